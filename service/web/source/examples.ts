// Examples of a card: tokens in their window, pictures, or columns of numbers.
import { inks, mixed } from "./colours";
import type { Content, Example } from "./content";
import { h, note, number, type Child } from "./dom";

const [POSITIVE, NEGATIVE] = ["#0072b2", "#d55e00"];
const FEATURES = 4; // columns beside an example

export const percent = (share: number): string => `${share >= 0.0995 || share === 0 ? Math.round(100 * share) : Number((100 * share).toPrecision(2))} %`;

export function target(value: unknown): string {
  if (value === null || value === undefined) return "";
  return Array.isArray(value) ? value.map(String).join(", ") : String(value);
}

/** Examples below a heading; `shares` says that their values are shares. */
export function examples(title: string, shown: Example[], content: Content, shares = false): Child {
  if (!shown.length) return null;
  const value = (one: Example): string => (shares ? percent(one.value) : number(one.value));
  let body: Child;
  if (shown.some((one) => one.tokens?.length)) body = windows(shown, value);
  else if (content.image_shape && shown.some((one) => content.inputs[one.point])) body = pictures(shown, content, value);
  else body = columns(shown, content, value, title);
  return [h("h3", {}, title), body];
}

function windows(shown: Example[], value: (one: Example) => string): Child {
  const most = Math.max(...shown.flatMap((one) => (one.values ?? []).map((v) => Math.abs(v ?? 0))), 1e-300);
  const { paper } = inks();
  const rows = shown.map((one) => {
    const tokens = (one.tokens ?? []).map((text, i) => {
      const v = one.values?.[i];
      const span = h("span", { class: i === one.at ? "token peak" : "token", title: v === null || v === undefined ? null : number(v) }, visible(text));
      if (v) span.style.backgroundColor = mixed(v > 0 ? POSITIVE : NEGATIVE, paper, 0.45 * Math.sqrt(Math.abs(v) / most));
      return span;
    });
    const of = target(one.target);
    return h("li", {}, h("span", { class: "value" }, value(one), of ? `, ${of}` : ""), h("span", { class: "tokens" }, tokens));
  });
  return h("ul", { class: "windows" }, rows);
}

const visible = (text: string): string => text.replaceAll("\n", "↵").replaceAll("\t", "⇥");

function pictures(shown: Example[], content: Content, value: (one: Example) => string): Child {
  const figures = shown.map((one) => {
    const input = content.inputs[one.point];
    if (!input || !content.image_shape) return null;
    const said = [value(one), target(one.target)].filter(Boolean).join(" · ");
    return h("figure", { class: "example" }, drawn(input, content.image_shape, `Data point ${one.point}: ${said}`), h("figcaption", {}, said));
  });
  return h("div", { class: "pictures" }, figures);
}

/** A picture of numbers: grey, or colours where the numbers have signs (`signed`) or three channels. */
export function drawn(values: number[], shape: number[], name: string, signed = false): HTMLCanvasElement {
  const [channels, height, each] = (shape.length === 2 ? [1, ...shape] : shape) as [number, number, number];
  const beside = channels === 3 ? 1 : channels;
  const canvas = h("canvas", { width: each * beside, height, role: "img", "aria-label": name, class: "pixels" });
  const context = canvas.getContext("2d");
  if (!context || values.length < channels * height * each) return canvas;
  const image = context.createImageData(each * beside, height);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const grey = (v: number): [number, number, number] => {
    const level = Math.round(255 * (1 - (v - least) / (most - least || 1)));
    return [level, level, level];
  };
  const size = Math.max(Math.abs(least), Math.abs(most)) || 1;
  const tinted = (v: number): [number, number, number] => {
    const hex = mixed(v > 0 ? POSITIVE : NEGATIVE, "#ffffff", Math.abs(v) / size);
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)) as [number, number, number];
  };
  const area = height * each;
  for (let y = 0; y < height; y++)
    for (let x = 0; x < each * beside; x++) {
      const at = (channel: number, column: number): number => values[channel * area + y * each + column] ?? 0;
      const v = at(Math.floor(x / each), x % each);
      const colours = channels === 3 ? [0, 1, 2].map((c) => Math.round((255 * (at(c, x) - least)) / (most - least || 1))) : signed ? tinted(v) : grey(v);
      image.data.set([...colours, 255], 4 * (y * each * beside + x));
    }
  context.putImageData(image, 0, 0);
  return canvas;
}

function columns(shown: Example[], content: Content, value: (one: Example) => string, title: string): Child {
  const features = (content.reads?.features ?? []).slice(0, FEATURES).filter((f) => shown.some((one) => content.inputs[one.point]?.[f.feature] !== undefined));
  const targets = shown.some((one) => target(one.target) !== "");
  const head = ["Data point", "Value", ...(targets ? ["Target"] : []), ...features.map((f) => f.name)];
  const rows = shown.map((one) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, String(one.point)),
      h("td", { class: "number" }, value(one)),
      targets ? h("td", {}, target(one.target)) : null,
      features.map((f) => h("td", { class: "number" }, number(content.inputs[one.point]?.[f.feature]))),
    ),
  );
  return scrolled(title, head, rows, (i) => i === 1 || i > (targets ? 2 : 1));
}

/** A table that scrolls by itself where it is wide. */
export function scrolled(name: string, head: string[], rows: Child[], right: (column: number) => boolean): Child {
  if (!rows.length) return note("There are none.");
  const heads = head.map((text, i) => h("th", { scope: "col", class: right(i) ? "number" : null }, text));
  return h(
    "div",
    { class: "scroll", role: "region", "aria-label": name, tabindex: 0 },
    h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows)),
  );
}
