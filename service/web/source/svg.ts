// Pictures made by code. Text becomes text nodes only, as in dom.ts; colours are attributes, since styles need no inline text.
import { number } from "./dom";

type Value = string | number | null | undefined;

/** Make an element of SVG. */
export function s(tag: string, attributes: Record<string, Value> = {}, ...children: (Node | string | number | null)[]): SVGElement {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes))
    if (value !== null && value !== undefined) element.setAttribute(name, String(value));
  for (const child of children)
    if (child !== null) element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  return element;
}

/** A picture with a name for those who do not see it. */
export const picture = (width: number, height: number, name: string, ...children: (Node | null)[]): SVGElement =>
  s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": name, class: "drawn" }, ...children);

export interface Counts {
  start: number;
  width: number;
  counts: number[];
}

/** A histogram with its ends written below. */
export function histogram(of: Counts, least: number | null, most: number | null, name: string): SVGElement {
  const [width, height, foot] = [240, 56, 16];
  const { counts, start } = of;
  const end = start + of.width * counts.length;
  const highest = Math.max(1, ...counts);
  const step = width / Math.max(1, counts.length);
  const bars = counts.map((n, i) =>
    n ? s("rect", { x: i * step, y: height - (height * n) / highest, width: Math.max(0.6, step - 0.4), height: (height * n) / highest, class: "bar" }) : null,
  );
  const zero = start < 0 && end > 0 ? (-start / (end - start)) * width : null;
  const rule = zero === null ? null : s("line", { x1: zero, x2: zero, y1: 0, y2: height, class: "rule" });
  const text = (x: number, anchor: string, shown: string): SVGElement => s("text", { x, y: height + foot - 3, "text-anchor": anchor }, shown);
  return picture(
    width,
    height + foot,
    `Histogram of ${name}: ${number(least ?? start)} to ${number(most ?? end)}`,
    ...bars,
    rule,
    text(0, "start", number(least ?? start)),
    text(width, "end", number(most ?? end)),
  );
}
