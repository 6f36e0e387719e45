// Cards of modules and nodes: what excites them, what they do, what they read.
import type { Content, Edge, Effect, ModuleContent, NodeContent, Reads } from "./content";
import { h, number, type Child } from "./dom";
import { drawn, examples, percent, scrolled, target } from "./examples";
import { histogram } from "./svg";

const MOST = 12; // rows of a table

/** Where a node of a cut, by name, is shown. */
export type NodeLink = (cut: string, node: number) => string | null;

const named = (link: NodeLink, edge: { cut: string; node: number }): Child => {
  const href = link(edge.cut, edge.node);
  const text = `${edge.cut}/${edge.node}`;
  return href ? h("a", { href }, text) : text;
};

const block = (title: string, ...children: Child[]): Child => h("section", { class: "block" }, h("h3", {}, title), ...children);

/** The whole card of a module, below its name and label. */
export function moduleCard(content: ModuleContent, link: NodeLink): Child {
  const { energy, share, share_error: error } = content;
  const outputs = content.outputs.slice(0, MOST).map((one) => [one.name, one.share] as [string, number]);
  return [
    h("p", {}, content.summary),
    examples("Data points with the largest share of the energy", content.examples.largest, content, true),
    h(
      "div",
      { class: "blocks" },
      block(
        "Energy per data point",
        histogram(energy.histogram, null, null, "the energy per data point"),
        h("p", { class: "small" }, `Mean ${number(energy.mean)}; ${percent(share)}${plus(error === null ? null : 100 * error)} of the energy of all nodes, ${number(content.n)} data points.`),
      ),
      outputs.length ? block("Share of the effect on outputs", bars(outputs)) : null,
      (content.classes ?? []).map((rows, i, all) => block(`Share of the energy by class${all.length > 1 ? `, answer ${i + 1}` : ""}`, bars(rows.slice(0, 2 * MOST).map((row) => [target(row.class), row.share])))),
      reads("Reads", content.reads, content),
      content.frequencies?.length ? block("Frequencies", bars(content.frequencies.map((one) => [`k = ${one.frequency}`, one.share]))) : null,
    ),
    mediators("Fed through", content.mediators.in, link),
    mediators("Feeds others through", content.mediators.out, link),
    content.similar ? similar(content.similar) : null,
  ];
}

function mediators(title: string, edges: Edge[], link: NodeLink): Child {
  if (!edges.length) return null;
  const rows = edges.map((edge) =>
    h("tr", {}, h("th", { scope: "row" }, named(link, edge)), h("td", { class: "number" }, edge.module < 0 ? "none" : String(edge.module)), h("td", { class: "number" }, number(edge.strength)), h("td", { class: "wide" }, edge.carries ?? "–")),
  );
  return [h("h3", {}, title), scrolled(title, ["Node", "Module", "Strength", "It carries"], rows, (i) => i === 1 || i === 2)];
}

function similar(found: NonNullable<ModuleContent["similar"]>): Child {
  const title = "Members of different cuts whose values are most alike";
  const rows = found.pairs.map((pair) => h("tr", {}, h("th", { scope: "row" }, pair.first), h("td", {}, pair.second), h("td", { class: "number" }, number(pair.correlation))));
  return [h("h3", {}, title), scrolled(title, ["Node", "and", "Correlation"], rows, (i) => i === 2), h("p", { class: "small" }, `Mean absolute correlation of all such pairs ${number(found.mean)}.`)];
}

/** The whole card of a node, below its name and label. */
export function nodeCard(content: NodeContent, link: NodeLink): Child {
  const { histogram: values, smallest, largest, effects } = content;
  const drawnDeciles = content.examples.deciles.map((some, i) => examples(`Tenth ${i + 1} of 10`, some, content));
  const frequencies = (content.frequencies?.frequencies ?? []).slice(0, MOST).map((one) => [`k = ${one.frequency}`, one.share] as [string, number]);
  const { direction } = content;
  return [
    h("p", {}, content.summary),
    examples("Largest values", content.examples.largest, content),
    examples("Smallest values", content.examples.smallest, content),
    h(
      "div",
      { class: "blocks" },
      block(
        "Values",
        histogram(values, smallest, largest, "the values"),
        h("p", { class: "small" }, `Mean ${number(content.mean)}, standard deviation ${number(Math.sqrt(content.variance))}; ${percent(content.share)} of the importance of its cut; ${number(content.n)} data points.`),
      ),
      reads("Reads", content.reads, content),
      direction?.features ? reads("The input changes along it by", direction as Reads, content) : null,
      tokens("Writes to", direction?.unembed?.promoted ?? direction?.unembed?.largest),
      tokens("Written by", direction?.embed?.promoted ?? direction?.embed?.largest),
      frequencies.length ? block("Frequencies", bars(frequencies)) : null,
    ),
    effects && effects.promoted.length + effects.suppressed.length ? effectTable(effects.promoted, effects.suppressed, effects.points) : null,
    neighbours("Strongest edges in", content.neighbours.in, link),
    neighbours("Strongest edges out", content.neighbours.out, link),
    content.examples.deciles.some((some) => some.length) ? h("details", {}, h("summary", {}, "Examples from every tenth of its values"), drawnDeciles) : null,
  ];
}

function tokens(title: string, found: { name: string; value: number }[] | undefined): Child {
  return found?.length ? block(title, h("p", {}, found.slice(0, MOST).map((one) => h("span", { class: "token said" }, one.name.trim() ? one.name : JSON.stringify(one.name))))) : null;
}

function effectTable(promoted: Effect[], suppressed: Effect[], points: number): Child {
  const row = (what: string) => (one: Effect): Child =>
    h("tr", {}, h("th", { scope: "row" }, one.name.trim() ? one.name : JSON.stringify(one.name)), h("td", {}, what), h("td", { class: "number" }, number(one.slope)), h("td", { class: "number" }, one.up === null ? "–" : number(one.up) + plus(one.up_error)));
  const rows = [...promoted.slice(0, MOST).map(row("raises")), ...suppressed.slice(0, MOST).map(row("lowers"))];
  return [
    h("h3", {}, "Effects on the outputs"),
    scrolled("Effects on the outputs", ["Output", "It", "Slope", "One standard deviation up"], rows, (i) => i > 1),
    h("p", { class: "small" }, `Means over ${number(points)} data points.`),
  ];
}

function neighbours(title: string, edges: Edge[], link: NodeLink): Child {
  if (!edges.length) return null;
  const rows = edges.slice(0, MOST).map((edge) =>
    h("tr", {}, h("th", { scope: "row" }, named(link, edge)), h("td", { class: "number" }, edge.module < 0 ? "none" : String(edge.module)), h("td", { class: "number" }, `${edge.sign === "-" ? "−" : ""}${number(edge.strength)}`)),
  );
  return [h("h3", {}, title), scrolled(title, ["Node", "Module", "Strength"], rows, (i) => i > 0)];
}

function reads(title: string, found: Reads | null, content: Content): Child {
  if (!found) return null;
  const rows = found.groups.length ? found.groups : found.features;
  const shown = found.picture && content.image_shape ? drawn(found.picture, content.image_shape, `${title}: a picture of the weights, blue above zero, orange below`, true) : null;
  return block(title, shown, bars(rows.slice(0, MOST).map((one) => [one.name, one.share])), h("p", { class: "small" }, `Shares, by ${found.by}.`));
}

const plus = (error: number | null): string => (error === null || !(error > 0) ? "" : ` ± ${number(error, 1)}`);

/** Shares between 0 and 1 as bars with numbers. */
export function bars(rows: [string, number][]): Child {
  return h(
    "ul",
    { class: "shares" },
    rows.map(([name, share]) => {
      const bar = h("span", { class: "share", "aria-hidden": "true" });
      bar.style.width = `${Math.round(100 * Math.min(1, Math.max(0, share)))}%`;
      return h("li", {}, h("span", { class: "what" }, name), h("span", { class: "track" }, bar), h("span", { class: "value" }, percent(share)));
    }),
  );
}

/** A card in few words: its line, histogram and first examples. */
export function smallCard(content: NodeContent, heading: Child): Child {
  const few = content.image_shape ? 4 : 3;
  return h("article", { class: "card" }, heading, h("p", { class: "small" }, content.summary), histogram(content.histogram, content.smallest, content.largest, "the values"), examples("Largest values", content.examples.largest.slice(0, few), content));
}
