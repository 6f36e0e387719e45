// Labels of a module or a node: who said what, and a form to say something else.
import { keep, Refused, remove, send, type Schemas } from "./client";
import { h, show, type Child } from "./dom";
import { shared, type Known } from "./panel";
import { reports } from "./report";

type Row = Schemas["LabelRow"];
export type Place = { module: number } | { cut: string; node: number };

const AUTHOR = "interbasis-author";
const of = (row: Row, at: Place): boolean => ("module" in at ? row.module === at.module : row.cut === at.cut && row.node === at.node);
const said = (row: Row): string => `${row.author} (${row.source}), ${new Date(row.created).toLocaleDateString("en", { dateStyle: "medium" })}`;

/** All labels of a place, and the means to change that of people. `changed` is called with all labels after a change. */
export function labels(known: Known, all: Row[], at: Place, changed: (rows: Row[]) => void): HTMLElement {
  const element = h("div", { class: "labels" });
  const own = all.filter((row) => of(row, at) && row.text);
  const human = own.find((row) => row.source === "human");
  const closed = (focus: boolean): void => {
    const button = h("button", { type: "button", click: () => opened() }, human ? "Edit label" : "Give a label");
    const rows = own.map((row) => h("li", {}, h("q", {}, row.text ?? ""), h("span", { class: "value" }, ` ${said(row)}${moved(row)}`)));
    show(element, rows.length ? h("ul", { class: "said" }, rows) : null, reports() ? null : button);
    if (focus) button.focus();
  };
  const opened = (): void => show(element, form(known, at, human, { changed, cancel: () => closed(true) }));
  closed(false);
  return element;
}

const moved = (row: Row): string =>
  row.origin ? `, given to ${row.origin}${row.overlap === null || row.overlap === undefined ? "" : `, which shares ${Math.round(100 * row.overlap)} %`}` : "";

interface Then {
  changed: (rows: Row[]) => void;
  cancel: () => void;
}

function form(known: Known, at: Place, human: Row | undefined, then: Then): HTMLElement {
  const text = h("input", { id: "label-text", required: true, maxlength: 500, value: human?.text ?? "", autocomplete: "off" });
  const author = h("input", { id: "label-author", required: true, maxlength: 200, value: remembered(), autocomplete: "name" });
  const trouble = h("div", { role: "alert" });
  const ref = { ref: known.partition.id };
  const change = async (act: () => Promise<unknown>): Promise<void> => {
    show(trouble);
    try {
      await act();
      remember(author.value.trim());
      then.changed(await shared.labels(known.partition.id));
    } catch (error) {
      show(trouble, problem(error, () => void change(act)));
    }
  };
  const save = (event: Event): void => {
    event.preventDefault();
    const label = { text: text.value.trim(), author: author.value.trim(), source: "human", ...at };
    void change(() => send("/api/v1/partitions/{ref}/labels", "PUT", ref, { labels: [label] }));
  };
  const gone = (): void => {
    if (!author.reportValidity()) return;
    const query = { author: author.value.trim() };
    void change(() =>
      "module" in at
        ? remove("/api/v1/partitions/{ref}/labels/{module}", { ...ref, module: at.module }, query)
        : remove("/api/v1/graphs/{ref}/labels/{cut}/{node}", { ref: known.graph.id, cut: at.cut, node: at.node }, query),
    );
  };
  const keydown = (event: Event): void => {
    if ((event as KeyboardEvent).key === "Escape") then.cancel();
  };
  const element = h(
    "form",
    { class: "form", submit: save, keydown },
    h("div", {}, h("label", { for: "label-text" }, "Label"), text),
    h("div", {}, h("label", { for: "label-author" }, "Your name, kept with it"), author),
    h("div", { class: "buttons" }, h("button", { type: "submit" }, "Save"), h("button", { type: "button", click: then.cancel }, "Cancel"), human ? h("button", { type: "button", click: gone }, "Remove") : null),
    trouble,
  );
  queueMicrotask(() => text.focus());
  return element;
}

/** What went wrong; where the token is of too small a scope, a field for another one. */
function problem(error: unknown, again: () => void): Child {
  const message = h("p", { class: "error" }, error instanceof Error ? error.message : String(error));
  if (!(error instanceof Refused) || (error.status !== 401 && error.status !== 403)) return message;
  const field = h("input", { id: "label-token", type: "password", autocomplete: "off" });
  const use = (): void => {
    if (!field.value.trim()) return;
    keep(field.value.trim());
    again();
  };
  return [message, h("label", { for: "label-token" }, "A token of scope submit"), field, h("button", { type: "button", click: use }, "Use it")];
}

function remembered(): string {
  try {
    return localStorage.getItem(AUTHOR) ?? "";
  } catch {
    return "";
  }
}

function remember(author: string): void {
  try {
    localStorage.setItem(AUTHOR, author);
  } catch {
    // a browser without storage asks again
  }
}
