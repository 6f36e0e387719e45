// Elements, numbers and names. Text becomes text nodes only: nothing is ever read as HTML.

export type Child = Node | string | number | null | undefined | false | Child[];
type Handler = (event: Event) => void;
export type Attributes = Record<string, string | number | boolean | null | undefined | Handler>;

function fill(element: Element, attributes: Attributes, children: Child[]): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...nodes(children));
}

function nodes(children: Child[]): Node[] {
  return children.flatMap((child) => {
    if (child === null || child === undefined || child === false) return [];
    if (Array.isArray(child)) return nodes(child);
    return [child instanceof Node ? child : document.createTextNode(String(child))];
  });
}

/** Make an element; functions among its attributes listen to the event of that name. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  fill(element, attributes, children);
  return element;
}

/** Show these in place of what an element shows. */
export function show(element: Element, ...children: Child[]): void {
  element.replaceChildren(...nodes(children));
}

/** A disc in the colour of a module, beside which its number is always written. */
export function swatch(colour: string): SVGElement {
  const space = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(space, "svg");
  const disc = document.createElementNS(space, "circle");
  for (const [name, value] of Object.entries({ cx: 5, cy: 5, r: 5, fill: colour })) disc.setAttribute(name, String(value));
  for (const [name, value] of Object.entries({ viewBox: "0 0 10 10", class: "swatch", "aria-hidden": "true" }))
    picture.setAttribute(name, value);
  picture.append(disc);
  return picture;
}

/** A number with three or more significant digits, as people write it. */
export function number(value: number | null | undefined, digits = 3): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(digits - 1).replace("e+", "e");
  if (size >= 10 ** digits) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(digits)));
}

export const count = (n: number, one: string, many = `${one}s`): string => `${number(n)} ${n === 1 ? one : many}`;

/** What a checkpoint is called, as in commands: model@step, of a later run model#2@step. */
export function called(row: { model: string; step?: number | null; label?: string | null; run_number?: number | null }): string {
  const run = (row.run_number ?? 1) > 1 ? `#${row.run_number}` : "";
  const moment = row.step ?? row.label;
  return moment === null || moment === undefined ? row.model + run : `${row.model}${run}@${moment}`;
}

/** A message in place of what is not there. */
export const note = (...children: Child[]): HTMLElement => h("p", { class: "note" }, ...children);

export const failure = (error: unknown): HTMLElement =>
  h("p", { class: "note error", role: "alert" }, error instanceof Error ? error.message : String(error));
