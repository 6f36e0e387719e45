// What the sections of the view of evidence share.
import { count, failure, h, note, show, type Child } from "./dom";
import { reports } from "./report";
import { to } from "./route";

/** What a section shows, and what has to be done when it is left. */
export interface Section {
  element: Child;
  leave?: () => void;
}

/** The verdict that the service gives, with its reason, after what was asked. */
export const verdict = (word: string | null | undefined, reason: string | null | undefined, asked = ""): HTMLElement =>
  h("p", { class: "verdict" }, asked, h("strong", {}, word ?? "without a verdict"), reason ? `: ${reason}` : "");

/** What to do where nothing is stored: a command, and a form with the same. */
export const missing = (what: string, command: string, target: string, task: string, choices: Record<string, string> = {}): Child => [
  note(what),
  h("pre", { tabindex: 0 }, command),
  reports() ? null : h("p", { class: "small" }, h("a", { href: to("jobs", "", { task, target, ...choices }) }, "Ask the service for it")),
];

/** A part of the page that arrives later. */
export function later(work: Promise<Child>): HTMLElement {
  const holder = h("div", {}, note("Loading …"));
  void work.then((made) => show(holder, made), (error: unknown) => show(holder, failure(error)));
  return holder;
}

export const several = (n: number): string => (n ? `${count(n, "older one")} of the same kind` : "");
