// Pictures of a division: its members by cut, what runs between modules, and what other resolutions give.
import { chart, type Line } from "./charts";
import type { Schemas } from "./client";
import { colour, inks, mixed, NONE } from "./colours";
import { count, h, note, number, swatch, type Child } from "./dom";
import { scrolled } from "./examples";
import type { Known } from "./panel";
import { to } from "./route";
import { picture, s } from "./svg";

const MOST = 30; // modules in a matrix or a legend

/** Nodes of every cut as a column, stacked by module. */
export function membership(known: Known): Child {
  const { graph, partition } = known;
  const [height, foot, left] = [180, 44, 62];
  const step = Math.max(26, Math.min(90, 640 / graph.cuts.length));
  const widest = Math.max(1, ...graph.widths);
  const scale = height / widest;
  const columns = graph.cuts.flatMap((cut, c) => {
    const x = left + c * step;
    let y = height;
    const bar = (n: number, fill: string, name: string): SVGElement | null => {
      if (!n) return null;
      y -= n * scale;
      return s("rect", { x, y, width: step * 0.7, height: Math.max(0.3, n * scale - 0.5), fill }, s("title", {}, `${cut}: ${name}, ${count(n, "node")}`));
    };
    const parts = partition.modules.map((module) => bar(module.sizes[c] ?? 0, colour(module.index), known.moduleName(module.index)));
    const others = (graph.widths[c] ?? 0) - partition.modules.reduce((sum, module) => sum + (module.sizes[c] ?? 0), 0);
    const middle = x + step * 0.35;
    const label = s("text", { x: middle, y: height + 14, "text-anchor": "end", transform: `rotate(-28 ${middle} ${height + 14})` }, cut.length > 16 ? `${cut.slice(0, 15)}…` : cut, s("title", {}, cut));
    return [...parts, bar(others, NONE, "in no module"), label];
  });
  const axis = [0, widest].map((n) => s("text", { x: left - 6, y: height - n * scale + (n ? 10 : 0), "text-anchor": "end" }, n ? `${number(n)} nodes` : "0"));
  const said = graph.cuts.map((cut, c) => `${cut}: ${partition.modules.map((module) => `${module.sizes[c] ?? 0} of module ${module.index}`).join(", ")}`);
  const drawn = picture(left + step * graph.cuts.length, height + foot, `Nodes by cut. ${said.join("; ")}`.slice(0, 600), ...columns, ...axis);
  const legend = partition.modules.slice(0, MOST).map((module) => h("li", {}, swatch(colour(module.index)), known.moduleName(module.index)));
  return [
    h("h2", {}, "Members by cut"),
    h("div", { class: "scroll", role: "region", "aria-label": "Members by cut", tabindex: 0 }, drawn),
    h("ul", { class: "legend" }, legend, h("li", {}, swatch(NONE), "in no module")),
  ];
}

/** The cost of interactions from each module to each other. */
export function costs(known: Known): Child {
  const { modules, links } = known.partition;
  if (modules.length < 2) return null;
  const shown = modules.slice(0, MOST);
  const between = new Map(links.map((link) => [`${link.earlier} ${link.later}`, link]));
  const most = Math.max(...links.map((link) => link.edge_cost), ...modules.map((module) => module.inner_cost), 1e-300);
  const { paper } = inks();
  const rows = shown.map((row) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, swatch(colour(row.index)), h("a", { href: to("modules", known.partition.id, { module: row.index }) }, String(row.index))),
      shown.map((column) => {
        const link = between.get(`${row.index} ${column.index}`);
        const cost = row === column ? row.inner_cost : (link?.edge_cost ?? 0);
        const cell = h("td", { class: "number", title: link && row !== column ? `${count(link.n_edges, "edge")}; through mediators ${number(link.mediator_cost)}` : null }, cost ? number(cost) : "0");
        cell.style.backgroundColor = mixed("#0072b2", paper, 0.4 * Math.sqrt(cost / most));
        return cell;
      }),
    ),
  );
  return [
    h("h2", {}, "Cost between modules"),
    h("div", { class: "matrix" }, scrolled("Cost between modules", ["From, to", ...shown.map((module) => String(module.index))], rows, (i) => i > 0)),
    h(
      "p",
      { class: "small" },
      modules.length > MOST ? `The largest ${MOST} of ${number(modules.length)} modules. ` : "",
      "Log strength: from the module of the row to nodes of the module of the column at a later cut; on the diagonal all that is inside a module.",
    ),
  ];
}

/** What other resolutions and loss scales give. */
export function profiles(known: Known, profile: Schemas["Profile"], others: Schemas["PartitionRow"][]): { element: Child; leave: () => void } {
  const tried = Map.groupBy(profile.rows, (row) => row.objective);
  const made = [...tried].flatMap(([objective, rows]) => (rows.length > 1 ? against(objective, rows) : []));
  const { resolution, objective, z } = known.partition;
  const chosen = `Chosen: resolution ${number(resolution)} of ${objective}${z === null || z === undefined ? "" : `, z ${number(z)}`}. Quality is what the search makes largest: how much more of the interaction is inside modules than in graphs with the same strengths per node. Where this graph lies far above the null graphs, the division is not chance. Bars are one standard deviation of the null graphs. At a higher resolution, further right on a logarithmic axis, modules are smaller.`;
  const scales = others.filter((row) => row.epsilon > 0);
  const byScale = new Set(scales.map((row) => row.epsilon)).size > 1 ? overScales(scales) : [];
  made.push(...byScale);
  const figures = made.map((one) => one.figure);
  return {
    element: [
      h("h2", {}, "Other resolutions, against null graphs"),
      made.length > byScale.length ? [h("div", { class: "charts two" }, figures.slice(0, figures.length - byScale.length)), h("p", { class: "small" }, chosen)] : note("Only one resolution was tried. ", h("code", {}, `interbasis modules ${known.graph.id}`), " tries a range of them."),
      h("h2", {}, "Other loss scales"),
      byScale.length
        ? [h("div", { class: "charts two" }, byScale.map((one) => one.figure)), h("p", { class: "small" }, "Divisions of this graph that are stored, by their loss scale ε.")]
        : note("Only one loss scale is stored. ", h("code", {}, `interbasis modules ${known.graph.id} --epsilon 0.01`), " divides the graph at another one."),
    ],
    leave: () => made.forEach((one) => one.leave()),
  };
}

type Drawn = ReturnType<typeof chart>;

function against(objective: string, rows: Schemas["ProfileRow"][]): Drawn[] {
  const axis = spanned(rows.map((row) => row.resolution), "resolution");
  const line = (name: string, at: number, y: (row: Schemas["ProfileRow"]) => number | null, spread?: (row: Schemas["ProfileRow"]) => number | null): Line => ({
    name,
    colour: colour(at),
    points: rows.flatMap((row) => {
      const [value, sd] = [y(row), spread?.(row) ?? null];
      return value === null ? [] : [{ x: row.resolution, y: value, lower: sd === null ? null : value - sd, upper: sd === null ? null : value + sd }];
    }),
  });
  const quality = [line("this graph", 0, (row) => row.quality), line("null graphs", 1, (row) => row.null_mean, (row) => row.null_sd)];
  const sync = `resolution ${objective}`;
  return [
    chart(`Quality, ${objective}`, "blue: this graph, orange: null graphs", quality.filter((one) => one.points.length), axis, sync),
    chart(`Modules, ${objective}`, "", [line("modules", 0, (row) => row.n_modules)], axis, sync),
  ];
}

function overScales(rows: Schemas["PartitionRow"][]): Drawn[] {
  const axis = spanned(rows.map((row) => row.epsilon), "loss scale");
  const sorted = rows.toSorted((a, b) => a.epsilon - b.epsilon);
  const line = (y: (row: Schemas["PartitionRow"]) => number | null): Line => ({
    name: "division",
    colour: colour(0),
    points: sorted.flatMap((row) => (y(row) === null ? [] : [{ x: row.epsilon, y: y(row) as number }])),
  });
  return [
    chart("Modules", "by loss scale ε", [line((row) => row.n_modules)], axis, "epsilon"),
    chart("Normalised cost between modules", "by loss scale ε", [line((row) => row.normalised_cost)], axis, "epsilon"),
  ].filter((_, i) => line(i ? (row): number | null => row.normalised_cost : (row): number | null => row.n_modules).points.length);
}

const spanned = (values: number[], over: string): { from: number; to: number; over: string } => {
  const [from, end] = [Math.min(...values), Math.max(...values)];
  return { from: from / 1.15, to: end * 1.15, over };
};
