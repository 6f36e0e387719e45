// Tables, each in a region of its own that moves sideways where the page is narrow.
import { h, type Child } from "./dom";

/** The cells of a row; the first is its heading. */
export type Cells = Child[];

/** A table with a heading; columns named in `numbers` stand to the right. */
export function table(title: string, heads: string[], rows: Cells[], numbers: string[] = [], small = false): HTMLElement {
  const right = heads.map((head) => (numbers.includes(head) ? "number" : null));
  const head = heads.map((text, i) => h("th", { scope: "col", class: right[i] ?? null }, text));
  const body = rows.map((cells) =>
    h(
      "tr",
      {},
      cells.map((cell, i) => (i ? h("td", { class: right[i] ?? null }, cell) : h("th", { scope: "row", class: right[0] ?? null }, cell))),
    ),
  );
  return h(
    "div",
    { class: "scroll", role: "region", "aria-label": title, tabindex: 0 },
    h("table", small ? { class: "small" } : {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)),
  );
}
