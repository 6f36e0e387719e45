// Pictures over the checkpoints of a training, all with the same places for the same steps.
import type { Schemas } from "./client";
import { colour } from "./colours";
import { count, h, number, swatch, type Child } from "./dom";
import { picture, s } from "./svg";

export const LEFT = 58; // room for numbers
const [BAR, FOOT] = [14, 20];

/** Where the checkpoints stand: a place and a name for each. */
export interface Columns {
  width: number;
  x: number[];
  names: string[];
}

export const columns = (steps: (number | null)[], names: string[], width: number, scaled: boolean): Columns => {
  const span = Math.max(1, width - LEFT - 36);
  const last = Math.max(1, ...steps.map((step) => step ?? 0));
  const at = (step: number | null, i: number): number => (scaled && step !== null ? step / last : i / Math.max(1, steps.length - 1));
  return { width, names, x: steps.map((step, i) => LEFT + 10 + (span - 10) * at(step, i)) };
};

function feet({ x, names }: Columns, y: number): SVGElement[] {
  let last = -Infinity;
  return names.flatMap((name, i) => {
    const at = x[i] ?? 0;
    if (at - last < 12 + 7 * name.length) return [];
    last = at;
    return [s("text", { x: at, y, "text-anchor": "middle" }, name)];
  });
}

interface Bar {
  top: number;
  height: number;
}

/** Modules as bars, coloured by track, with ribbons for the nodes that they share with those of the next checkpoint. */
export function alluvial(tracking: Schemas["TrackingDetail"], flows: Schemas["FlowRow"][], of: number[], where: Columns): SVGElement {
  const height = 300;
  const { steps } = tracking;
  const x = of.map((i) => where.x[i] ?? 0);
  const gaps = Math.max(...steps.map((step) => step.sizes.length - 1), 0);
  const gap = Math.min(10, 100 / Math.max(1, gaps));
  const scale = (height - gap * gaps) / Math.max(1, ...steps.map((step) => step.sizes.reduce((sum, n) => sum + n, 0)));
  const order = steps.map((step) => step.tracks.map((_, m) => m).sort((a, b) => (step.tracks[a] ?? 0) - (step.tracks[b] ?? 0)));
  const bars = steps.map((step, t) => {
    let top = 0;
    const found: Bar[] = [];
    for (const m of order[t] ?? []) {
      found[m] = { top, height: (step.sizes[m] ?? 0) * scale };
      top += (step.sizes[m] ?? 0) * scale + gap;
    }
    return found;
  });
  const rects = steps.flatMap((step, t) =>
    step.sizes.flatMap((size, m) => {
      const bar = bars[t]?.[m];
      if (!bar) return [];
      const track = step.tracks[m] ?? 0;
      const name = s("title", {}, `${where.names[of[t] ?? 0]}: module ${track}, ${count(size, "node")}`);
      const rect = s("rect", { x: (x[t] ?? 0) - BAR / 2, y: bar.top, width: BAR, height: Math.max(1, bar.height), fill: colour(track) }, name);
      
      const text = s("text", { x: (x[t] ?? 0) + BAR / 2 + 3, y: bar.top + bar.height / 2 + 4, class: "onto" }, number(size));
      return bar.height > 13 ? [rect, text] : [rect];
    }),
  );
  const events = tracking.events.map((event) => `${event["kind"]} at ${where.names[of[Number(event["at"])] ?? 0]}`);
  const said = steps.map((step, t) => `${where.names[of[t] ?? 0]}: ${step.tracks.map((track, m) => `module ${track} with ${step.sizes[m]}`).join(", ")}`);
  const name = `Modules over training, with numbers of nodes. ${said.join("; ")}. ${events.join(", ") || "No events"}`.slice(0, 900);
  return picture(where.width, height + FOOT, name, ...ribbons(steps, flows, bars, order, x, scale), ...rects, ...feet({ ...where, x, names: of.map((i) => where.names[i] ?? "") }, height + FOOT - 5));
}

function ribbons(steps: Schemas["TrackingStep"][], flows: Schemas["FlowRow"][], bars: Bar[][], order: number[][], x: number[], scale: number): SVGElement[] {
  const used = steps.map((step) => ({ out: step.sizes.map(() => 0), into: step.sizes.map(() => 0) }));
  const rank = (t: number, m: number): number => order[t]?.indexOf(m) ?? 0;
  const sorted = flows.toSorted((a, b) => a.at - b.at || rank(a.at - 1, a.earlier) - rank(b.at - 1, b.earlier) || rank(a.at, a.later) - rank(b.at, b.later));
  return sorted.flatMap((flow) => {
    const [from, end] = [bars[flow.at - 1]?.[flow.earlier], bars[flow.at]?.[flow.later]];
    const [before, after] = [used[flow.at - 1]?.out, used[flow.at]?.into];
    if (!from || !end || !before || !after) return [];
    const y0 = from.top + (before[flow.earlier] ?? 0);
    const y1 = end.top + (after[flow.later] ?? 0);
    const thick = flow.n_nodes * scale;
    before[flow.earlier] = (before[flow.earlier] ?? 0) + thick;
    after[flow.later] = (after[flow.later] ?? 0) + thick;
    const [a, b] = [(x[flow.at - 1] ?? 0) + BAR / 2, (x[flow.at] ?? 0) - BAR / 2];
    const middle = (a + b) / 2;
    const d = `M${a},${y0}C${middle},${y0} ${middle},${y1} ${b},${y1}V${y1 + thick}C${middle},${y1 + thick} ${middle},${y0 + thick} ${a},${y0 + thick}Z`;
    const [one, other] = [steps[flow.at - 1]?.tracks[flow.earlier] ?? 0, steps[flow.at]?.tracks[flow.later] ?? 0];
    return [s("path", { d, fill: colour(one), "fill-opacity": 0.35, class: "ribbon" }, s("title", {}, `${count(flow.n_nodes, "node")} from module ${one} to module ${other}`))];
  });
}

export interface Stack {
  name: string;
  colour: string;
  values: (number | null)[];
}

/** Stacked counts of every checkpoint. */
export function stacked(title: string, stacks: Stack[], where: Columns): Child {
  const height = 170;
  const sums = where.x.map((_, i) => stacks.reduce((sum, stack) => sum + (stack.values[i] ?? 0), 0));
  const most = Math.max(1, ...sums);
  const near = Math.min(...where.x.slice(1).map((x, i) => x - (where.x[i] ?? 0)), 44);
  const wide = Math.max(3, Math.min(26, near * 0.6));
  const rects = where.x.flatMap((x, i) => {
    let y = height;
    return stacks.flatMap((stack) => {
      const value = stack.values[i];
      if (!value) return [];
      const tall = (value / most) * height;
      y -= tall;
      return [s("rect", { x: x - wide / 2, y, width: wide, height: tall, fill: stack.colour }, s("title", {}, `${where.names[i]}: ${stack.name} ${number(value)}`))];
    });
  });
  const present = stacks.filter((stack) => stack.values.some((value) => value));
  const said = present.map((stack) => `${stack.name}: ${stack.values.flatMap((value, i) => (value === null ? [] : [`${number(value)} at ${where.names[i]}`])).join(", ")}`);
  return figure(title, [
    h("ul", { class: "legend" }, present.map((stack) => h("li", {}, swatch(stack.colour), stack.name))),
    picture(where.width, height + FOOT, `${title}. ${said.join("; ")}`.slice(0, 900), ...ends(0, most, height), ...rects, ...feet(where, height + FOOT - 5)),
  ]);
}

export interface Mark {
  at: number; // index of the checkpoint
  y: number;
  lower?: number | null;
  upper?: number | null;
  sure?: boolean;
}

/** One value of every checkpoint, with its interval where there is one; values that are not sure are hollow. */
export function points(title: string, marks: Mark[], where: Columns, tint: number): Child {
  const height = 130;
  const all = marks.flatMap((mark) => [mark.y, mark.lower ?? mark.y, mark.upper ?? mark.y]);
  const [least, most] = [Math.min(0, ...all), Math.max(...all)];
  const y = (value: number): number => height - ((value - least) / (most - least || 1)) * (height - 8);
  const x = (mark: Mark): number => where.x[mark.at] ?? 0;
  const ink = colour(tint);
  const line = s("path", { d: marks.map((mark, i) => `${i ? "L" : "M"}${x(mark)},${y(mark.y)}`).join(""), fill: "none", stroke: ink, "stroke-width": 1.5 });
  const bars = marks.flatMap((mark) => (typeof mark.lower === "number" && typeof mark.upper === "number" ? [s("line", { x1: x(mark), x2: x(mark), y1: y(mark.lower), y2: y(mark.upper), stroke: ink })] : []));
  const dots = marks.map((mark) =>
    s("circle", { cx: x(mark), cy: y(mark.y), r: 3.5, fill: mark.sure === false ? "none" : ink, stroke: ink }, s("title", {}, `${where.names[mark.at]}: ${number(mark.y)}`)),
  );
  const said = marks.map((mark) => `${number(mark.y)} at ${where.names[mark.at]}`).join(", ");
  return figure(title, [picture(where.width, height + FOOT, `${title}: ${said}`.slice(0, 900), ...ends(least, most, height, y), line, ...bars, ...dots, ...feet(where, height + FOOT - 5))]);
}

function ends(least: number, most: number, height: number, y = (value: number): number => height - (value / most) * height): SVGElement[] {
  return [least, most].flatMap((value) => [
    s("text", { x: LEFT - 10, y: Math.max(10, y(value) + 4), "text-anchor": "end" }, number(value)),
    s("line", { x1: LEFT - 6, x2: LEFT - 2, y1: y(value), y2: y(value), class: "rule" }),
  ]);
}

const figure = (title: string, shown: Child): Child => h("figure", { class: "over" }, h("figcaption", {}, title), shown);
