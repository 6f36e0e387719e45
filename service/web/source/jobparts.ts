// What the list of jobs and the page of one job share.
import type { Schemas } from "./client";
import { h, type Child } from "./dom";
import { to } from "./route";
import { unfinished } from "./watch";

type Job = Schemas["JobRow"];

export type Act = (job: Job, what: "cancel" | "retry") => void;

/** The button that stops a job, or queues it again; nothing where neither can be done. */
export function action(job: Job, act: Act): Child {
  const button = (what: "cancel" | "retry", text: string): Child =>
    h(
      "button",
      { type: "button", "aria-label": `${text} ${job.id}`, "data-focus": `act ${job.id}`, click: () => act(job, what) },
      text,
    );
  if (unfinished(job)) return job.cancelling ? null : button("cancel", "Cancel");
  return job.state === "succeeded" ? null : button("retry", "Retry");
}

/** A bar with the share that is done, of a job that runs and says so. */
export function progress(job: Job): Child {
  if (job.state !== "running" || job.fraction === null) return null;
  const percent = Math.round(100 * job.fraction);
  return [" ", h("progress", { value: percent, max: 100, "aria-label": `Progress of ${job.id}` }), ` ${percent} %`];
}

export const moment = (time: string | null): string =>
  time === null ? "–" : new Date(time).toLocaleString("en", { dateStyle: "medium", timeStyle: "medium" });

/** Draw anew; the control that had the focus has it again. */
export function keepingFocus(holder: HTMLElement, draw: () => void): void {
  const before = holder.contains(document.activeElement) ? document.activeElement?.getAttribute("data-focus") : null;
  draw();
  if (before) [...holder.querySelectorAll<HTMLElement>("[data-focus]")].find((one) => one.dataset["focus"] === before)?.focus();
}

/** Views of what a job was about, in which its result is shown. */
const VIEWS: Record<string, string> = { experiment: "evidence", comparison: "evidence", description: "modules", tracking: "training" };

/** Where a result of a job is shown; null for those that no view shows. */
export function resultAddress(job: Job, made: Record<string, unknown>): string | null {
  const [kind, id] = [String(made["kind"]), String(made["id"])];
  if (kind === "partition") return to("graph", id);
  const view = VIEWS[kind];
  return view ? to(view, job.target) : null;
}
