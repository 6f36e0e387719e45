// What stands beside the picture: modules, one module, or one node, in words.
import { all, get, type Schemas } from "./client";
import { colour } from "./colours";
import { count, h, note, number, show, swatch, type Child } from "./dom";
import { key } from "./layout";
import { to } from "./route";

type Partition = Schemas["PartitionDetail"];

/** A partition with its graph, and the names that people and descriptions gave. */
export interface Known {
  partition: Partition;
  graph: Schemas["GraphRow"];
  described: boolean;
  usual: number; // edges below it do not count
  scale: string; // what the loss scale is
  moduleName(module: number): string;
  nodeName(cut: number, coordinate: number, given?: string | null, otherwise?: string): string;
  label(cut: number, coordinate: number): Schemas["LabelRow"] | undefined;
  moduleLabel(module: number): Schemas["LabelRow"] | undefined;
}

/** Reads that several views share. */
export const shared = {
  labels: (ref: string): Promise<Schemas["LabelRow"][]> => all("/api/v1/partitions/{ref}/labels", { ref }),
};

type Link = (change: { node?: string | null; module?: number | null; nodes?: boolean }) => string;

export function described(
  partition: Partition,
  graph: Schemas["GraphRow"],
  labels: Schemas["LabelRow"][],
  description: Schemas["DescriptionRow"] | undefined,
): Known {
  const preferred = [...labels].sort((a, b) => Number(a.source === "human") - Number(b.source === "human"));
  const ofModules = new Map(preferred.flatMap((row) => (row.module === null ? [] : [[row.module, row] as const])));
  const ofNodes = new Map(
    preferred.flatMap((row) => (row.cut === null || row.node === null ? [] : [[key(graph.cuts.indexOf(row.cut), row.node), row] as const])),
  );
  return {
    partition,
    graph,
    described: description !== undefined,
    usual: Math.sqrt(Math.max(0, partition.epsilon)),
    scale: new Set(partition.epsilons ?? []).size > 1 ? "geometric mean of one loss scale per pair of cuts" : "",
    moduleName: (module) => {
      const text = ofModules.get(module)?.text;
      return text ? `module ${module}: ${text}` : `module ${module}`;
    },
    nodeName: (cut, coordinate, given, otherwise) =>
      ofNodes.get(key(cut, coordinate))?.text ?? given ?? otherwise ?? `${graph.cuts[cut] ?? cut} / ${coordinate}`,
    label: (cut, coordinate) => ofNodes.get(key(cut, coordinate)),
    moduleLabel: (module) => ofModules.get(module),
  };
}

const row = (href: string, mark: Child, what: string, value: string): HTMLElement =>
  h("li", {}, h("a", { class: "row", href }, mark, h("span", { class: "what" }, what), h("span", { class: "value" }, value)));

function facts(pairs: [string, Child][]): HTMLElement {
  return h("dl", {}, pairs.filter(([, value]) => value !== null && value !== "").map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

/** All modules, largest first. */
export function modulesPanel(known: Known): Child {
  const { partition } = known;
  const modules = partition.modules.toSorted((a, b) => b.size - a.size || a.index - b.index);
  const rows = modules.map((module) =>
    row(
      to("graph", partition.id, { module: module.index }),
      swatch(colour(module.index)),
      known.moduleName(module.index),
      `${count(module.size, "node")}, cost out ${number(module.outer_cost)}`,
    ),
  );
  return [
    h("h2", {}, count(partition.n_modules, "module")),
    h("ul", { class: "list" }, rows),
    facts([
      ["Cost between modules", `${number(partition.edge_cost)} log strength`],
      ["normalised", number(partition.normalised_cost)],
      ["p", partition.p_value === null || partition.p_value === undefined ? "not tested" : `${number(partition.p_value, 2)}${partition.z !== null && partition.z !== undefined ? `, z ${number(partition.z)}` : ""}`],
      ["Stability", number(partition.stability)],
      ["Loss scale ε", [number(partition.epsilon), known.scale && `, ${known.scale}: ${(partition.epsilons ?? []).map((each) => number(each, 2)).join(", ")}`]],
      ["Nodes", `${number(known.graph.n_nodes)}, of which ${number(known.graph.n_nodes - partition.modules.reduce((sum, each) => sum + each.size, 0))} in no module`],
    ]),
    (partition.remarks ?? []).map((remark) => note(remark)),
    partition.warning ? note(partition.warning) : null,
  ];
}

/** One module, or all nodes: costs, what passes to and from other modules, and nodes by importance. */
export async function modulePanel(known: Known, module: number | null, drawing: Schemas["Drawing"], link: Link): Promise<Child> {
  const { partition, graph } = known;
  const found = partition.modules.find((each) => each.index === module);
  const back = h("p", { class: "small" }, h("a", { href: to("graph", partition.id) }, "All modules"));
  if (module !== null && !found) return [back, note(`There is no module ${module}.`)];
  const list = nodeList(known, drawing.nodes, link);
  if (!found) return [back, h("h2", {}, "All nodes"), list];
  const spans = found.sizes.flatMap((size, cut) => (size ? [`${graph.cuts[cut] ?? cut}: ${number(size)}`] : []));
  return [
    back,
    h("h2", {}, swatch(colour(found.index)), known.moduleName(found.index)),
    facts([
      ["Nodes", number(found.size)],
      ["at", spans.length > 8 ? `${spans.slice(0, 8).join(", ")} and ${spans.length - 8} more` : spans.join(", ")],
      ["Cost inside", `${number(found.inner_cost)} log strength`],
      ["Cost to others", `${number(found.outer_cost)} log strength`],
      ["Labelled by", author(known.moduleLabel(found.index))],
    ]),
    known.described ? await card(known, { module: found.index, modules: true }) : null,
    h("p", {}, h("a", { href: to("modules", partition.id, { module: found.index }) }, "What it does and who says so")),
    partition.n_modules > 1 ? await surface(known, found.index) : null,
    list,
  ];
}

const author = (label: Schemas["LabelRow"] | undefined): string | null => (label ? `${label.author} (${label.source})` : null);

/** Nodes through which the module feeds others and is fed. */
async function surface(known: Known, module: number): Promise<Child> {
  const ref = known.partition.id;
  const [out, into] = await Promise.all([
    get("/api/v1/partitions/{ref}/mediators", { ref }, { earlier: module, limit: 1000 }),
    get("/api/v1/partitions/{ref}/mediators", { ref }, { later: module, limit: 1000 }),
  ]);
  const rows = [...out.items, ...into.items].sort((a, b) => b.strength - a.strength);
  const more = out.next_cursor || into.next_cursor ? "the strongest " : "";
  if (!rows.length) return [h("h3", {}, "Nothing passes to or from other modules")];
  const shown = rows.slice(0, 12).map((mediator) => {
    const outward = mediator.earlier === module;
    const other = outward ? mediator.later : mediator.earlier;
    const name = known.nodeName(mediator.cut, mediator.coordinate);
    return h(
      "tr",
      {},
      h("td", {}, h("a", { href: to("graph", ref, { module: mediator.earlier, node: key(mediator.cut, mediator.coordinate) }) }, name)),
      h("td", {}, `${outward ? "to" : "from"} ${other}`),
      h("td", { class: "number" }, number(mediator.strength)),
      h("td", { class: "number" }, number(mediator.gamma)),
    );
  });
  const heads = ["Node", "Module", "Strength", "γ"].map((text, i) => h("th", { scope: "col", class: i > 1 ? "number" : null }, text));
  return [
    h("h3", {}, `Between this module and others: ${more}${count(rows.length, "mediator")}`),
    h(
      "div",
      { class: "scroll", role: "region", "aria-label": "Mediators", tabindex: 0 },
      h("table", { class: "small" }, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, shown)),
    ),
    rows.length > shown.length ? note(`The strongest ${shown.length}. γ: the fraction of a degree of freedom that passes here.`) : null,
  ];
}

/** The nodes that the file of a graph shows as one. */
export function groupPanel(known: Known, group: Schemas["Supernode"], drawing: Schemas["Drawing"], link: Link): Child {
  const inside = new Set(group.nodes.map(([cut, node]) => key(cut, node)));
  const nodes = drawing.nodes.filter((node) => inside.has(key(node.cut, node.coordinate)));
  return [h("h2", {}, group.title), note(`A supernode of the file: ${count(nodes.length, "node")} that it shows as one.`), nodeList(known, nodes, link)];
}

function nodeList(known: Known, nodes: Schemas["NodeRow"][], link: Link): Child {
  const list = h("ul", { class: "list" });
  const fill = (text: string): void => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const name = (node: Schemas["NodeRow"]): string => known.nodeName(node.cut, node.coordinate, node.label);
    const place = (node: Schemas["NodeRow"]): string => `${known.graph.cuts[node.cut] ?? node.cut} / ${node.coordinate}`;
    const found = nodes.filter((node) => {
      const said = `${name(node)} ${place(node)} ${node.id ?? ""} ${node.type ?? ""}`.toLowerCase();
      return words.every((word) => said.includes(word));
    });
    const shown = found.slice(0, 40).map((node) =>
      row(link({ node: key(node.cut, node.coordinate) }), swatch(colour(node.module)), name(node), number(node.importance)),
    );
    show(list, shown, found.length > shown.length ? h("li", {}, note(`and ${number(found.length - shown.length)} more`)) : null);
    if (!found.length) show(list, h("li", {}, note("No node here has this name.")));
  };
  fill("");
  const input = (event: Event): void => fill((event.target as HTMLInputElement).value);
  return [
    h("h3", {}, "Nodes by importance"),
    h("input", { type: "search", "aria-label": "Find a node", placeholder: "Find a node", input }),
    list,
  ];
}

/** One node: what it is, its card, its strongest neighbours. */
export async function nodePanel(known: Known, place: string, link: Link): Promise<Child> {
  const [cut = 0, coordinate = 0] = place.split("/").map(Number);
  const at = { ref: known.partition.id, cut, node: coordinate };
  const [node, edges] = await Promise.all([
    get("/api/v1/partitions/{ref}/nodes/{cut}/{node}", at),
    get("/api/v1/graphs/{ref}/nodes/{cut}/{node}/edges", { ...at, ref: known.graph.id }, { limit: 16 }),
  ]);
  const label = known.label(cut, coordinate);
  const module = node.module;
  const neighbours = edges.edges.map((edge) => {
    const into = edge.later_cut === cut && edge.later === coordinate;
    const [c, i] = into ? [edge.earlier_cut, edge.earlier] : [edge.later_cut, edge.later];
    const counts = edge.strength > known.usual ? "" : ", does not count";
    return row(link({ node: key(c, i), module: null, nodes: true }), into ? "from" : "to", known.nodeName(c, i), number(edge.weight ?? edge.strength) + counts);
  });
  const weak = edges.edges.some((edge) => edge.strength <= known.usual);
  return [
    h("p", { class: "small" }, h("a", { href: link({ node: null }) }, "Back to the list")),
    h("h2", {}, swatch(colour(module)), known.nodeName(cut, coordinate, node.label)),
    facts([
      ["Node", `${coordinate} of ${known.graph.cuts[cut] ?? cut}`],
      ["Module", module === null ? "none" : h("a", { href: to("graph", known.partition.id, { module }) }, known.moduleName(module))],
      ["Importance", number(node.importance)],
      ["Confidence", node.confidence === null || node.confidence === undefined ? null : number(node.confidence)],
      ["Type", node.type ?? null],
      ["Position", node.position === null || node.position === undefined ? null : number(node.position)],
      ["Name in its file", node.id ?? null],
      ["Labelled by", author(label)],
    ]),
    known.described ? await card(known, { cut: known.graph.cuts[cut] ?? String(cut), node: coordinate }) : null,
    h("p", {}, h("a", { href: to("modules", known.partition.id, { node: place }) }, "Its card and labels")),
    h("h3", {}, `Strongest of ${count(edges.n_edges, "edge")}`),
    weak ? note(`Modules count edges stronger than √ε = ${number(known.usual)}.`) : null,
    h("ul", { class: "list" }, neighbours),
  ];
}

/** The line that the description says of a node or a module. */
async function card(known: Known, of: { cut?: string; node?: number; module?: number; modules?: boolean }): Promise<Child> {
  const found = await get("/api/v1/partitions/{ref}/cards", { ref: known.partition.id }, { ...of, limit: 1 });
  const [first] = found.items;
  return first ? h("p", {}, first.summary) : null;
}
