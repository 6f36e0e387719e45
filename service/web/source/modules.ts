// The view of what modules and nodes are: all modules, the card of one, or that of a node.
import { smallCard, moduleCard, nodeCard } from "./cards";
import { get, type Schemas } from "./client";
import { colour, onScheme } from "./colours";
import type { ModuleContent, NodeContent } from "./content";
import { called, count, failure, h, note, number, show, swatch, type Child } from "./dom";
import { costs, membership, profiles } from "./division";
import { scrolled } from "./examples";
import { labels, type Place } from "./labels";
import { key } from "./layout";
import { described, shared as stored, type Known } from "./panel";
import { to, type View } from "./route";

const CARDS = 8; // of the strongest nodes of a module
const NODES = 200; // of its list

interface Shown {
  known: Known;
  labels: Schemas["LabelRow"][];
  description: Schemas["DescriptionRow"] | undefined;
}

/** The view at #/modules/PARTITION; `module` and `node` (cut/coordinate, by index) of the query show one of them. */
export async function modulesView(place: HTMLElement, ref: string, query: URLSearchParams): Promise<View> {
  const partition = await get("/api/v1/partitions/{ref}", { ref });
  const [graph, rows, descriptions] = await Promise.all([
    get("/api/v1/graphs/{ref}", { ref: partition.graph }),
    stored.labels(partition.id),
    get("/api/v1/descriptions", {}, { partition: partition.id, limit: 1, newest: true }),
  ]);
  document.title = `Modules of ${called(partition)} · interbasis`;
  const description = descriptions.items[0];
  return new ModulesView(place, { known: described(partition, graph, rows, description), labels: rows, description }, query);
}

class ModulesView implements View {
  private readonly quiet: () => void;
  private turn = 0;
  private drop = (): void => undefined;

  constructor(
    private readonly place: HTMLElement,
    private shown: Shown,
    private query: URLSearchParams,
  ) {
    this.quiet = onScheme(() => this.update(this.query));
    this.update(query);
  }

  update(query: URLSearchParams): void {
    const moved = query !== this.query;
    this.query = query;
    const turn = ++this.turn;
    const body = h("div", { "aria-busy": "true" }, note("Loading …"));
    this.drop();
    this.drop = (): void => undefined;
    show(this.place, this.head(), body);
    if (moved) scrollTo(0, 0);
    const arrive = (made: { element: Child; leave?: () => void }): void => {
      if (turn !== this.turn) made.leave?.();
      else {
        this.drop = made.leave ?? this.drop;
        show(body, made.element);
        body.removeAttribute("aria-busy");
      }
    };
    this.body().then(arrive, (error: unknown) => arrive({ element: failure(error) }));
  }

  leave(): void {
    this.turn++;
    this.quiet();
    this.drop();
  }

  private body(): Promise<{ element: Child; leave?: () => void }> {
    const [module, node] = [this.query.get("module"), this.query.get("node")];
    if (node !== null && /^\d{1,9}\/\d{1,9}$/.test(node)) return this.node(node);
    if (module !== null && /^\d{1,9}$/.test(module)) return this.module(Number(module));
    return this.overview();
  }

  private head(): Child {
    const { partition } = this.shown.known;
    return [
      h("div", { class: "title" }, h("h1", {}, called(partition)), h("small", {}, "modules and nodes")),
      h(
        "p",
        { class: "paths" },
        h("a", { href: to("modules", partition.id) }, "All modules"),
        h("a", { href: to("graph", partition.id) }, "Graph"),
        partition.run ? h("a", { href: to("training", partition.run) }, "Training") : null,
      ),
    ];
  }

  private labelled(at: Place): HTMLElement {
    const { known } = this.shown;
    return labels(known, this.shown.labels, at, (rows) => {
      this.shown = { ...this.shown, labels: rows, known: described(known.partition, known.graph, rows, this.shown.description) };
      this.update(this.query);
    });
  }

  private link(cut: string, node: number): string | null {
    const { known } = this.shown;
    const at = known.graph.cuts.indexOf(cut);
    return at < 0 ? null : to("modules", known.partition.id, { node: key(at, node) });
  }

  private async overview(): Promise<{ element: Child; leave?: () => void }> {
    const { known, description } = this.shown;
    const { partition, graph } = known;
    const ref = { ref: partition.id };
    const [profile, others, drawing] = await Promise.all([
      get("/api/v1/partitions/{ref}/profile", ref),
      get("/api/v1/partitions", {}, { graph: graph.id, limit: 1000, newest: true }),
      get("/api/v1/partitions/{ref}/drawing", ref, {}),
    ]);
    const made = profiles(known, profile, others.items);
    const verdict = [partition.verdict, partition.reason].filter(Boolean).join(": ");
    return {
      element: [
        h("p", {}, `${count(partition.n_modules, "module")}, ${verdict || "without a verdict"}.`),
        description ? null : note("Modules are not described yet. ", h("code", {}, `interbasis describe ${partition.id}`), " says what they do."),
        this.table(drawing),
        membership(known),
        costs(known),
        made.element,
      ],
      leave: made.leave,
    };
  }

  private table(drawing: Schemas["Drawing"]): Child {
    const { known, description } = this.shown;
    const said = new Map((description?.modules ?? []).map((one) => [one["module"] as number, String(one["summary"] ?? "")]));
    const sure = Map.groupBy(drawing.nodes.filter((node) => typeof node.confidence === "number"), (node) => node.module);
    const mean = (module: number): string => {
      const found = sure.get(module) ?? [];
      return found.length ? number(found.reduce((sum, node) => sum + (node.confidence ?? 0), 0) / found.length) : "–";
    };
    const rows = known.partition.modules.map((module) => {
      const label = known.moduleLabel(module.index);
      return h(
        "tr",
        {},
        h("th", { scope: "row" }, swatch(colour(module.index)), h("a", { href: to("modules", known.partition.id, { module: module.index }) }, known.moduleName(module.index))),
        h("td", { class: "number" }, number(module.size)),
        h("td", { class: "number" }, number(module.inner_cost)),
        h("td", { class: "number" }, number(module.outer_cost)),
        h("td", { class: "number" }, mean(module.index)),
        h("td", {}, label ? `${label.author} (${label.source})` : "–"),
        h("td", { class: "wide" }, said.get(module.index) ?? "–"),
      );
    });
    return scrolled("Modules", ["Module", "Nodes", "Cost inside", "Cost to others", "Confidence", "Labelled by", "What it does"], rows, (i) => i > 0 && i < 5);
  }

  private async module(index: number): Promise<{ element: Child }> {
    const { known } = this.shown;
    const { partition, graph } = known;
    const ref = { ref: partition.id };
    const found = partition.modules.find((each) => each.index === index);
    if (!found) return { element: note(`There is no module ${index}: there are ${partition.n_modules}, counted from 0.`) };
    const [drawing, cards] = await Promise.all([
      get("/api/v1/partitions/{ref}/drawing", ref, { module: index }),
      known.described ? get("/api/v1/partitions/{ref}/cards", ref, { module: index, modules: true, limit: 1 }) : null,
    ]);
    const strongest = drawing.nodes.slice(0, CARDS);
    const nodes = known.described ? await Promise.all(strongest.map((node) => this.cardOf(node))) : [];
    const content = cards?.items[0]?.content as unknown as ModuleContent | undefined;
    const spans = found.sizes.flatMap((size, cut) => (size ? [`${number(size)} at ${graph.cuts[cut] ?? cut}`] : []));
    return {
      element: [
        h("h2", { class: "subject" }, swatch(colour(index)), known.moduleName(index)),
        this.labelled({ module: index }),
        h("p", { class: "small" }, `${count(found.size, "node")}: ${spans.join(", ")}. Cost inside ${number(found.inner_cost)}, to others ${number(found.outer_cost)} log strength. `, h("a", { href: to("graph", partition.id, { module: index }) }, "Picture of its nodes")),
        content ? moduleCard(content, (cut, node) => this.link(cut, node)) : this.undescribed(),
        nodes.some(Boolean) ? [h("h2", {}, "Its most important nodes"), h("div", { class: "cards" }, nodes)] : null,
        this.nodes(drawing),
      ],
    };
  }

  private undescribed(): Child {
    return note("There is no card. ", h("code", {}, `interbasis describe ${this.shown.known.partition.id}`), " writes cards of nodes and modules.");
  }

  private async cardOf(node: Schemas["NodeRow"]): Promise<Child> {
    const { known } = this.shown;
    const content = await this.nodeContent(node.cut, node.coordinate);
    const href = to("modules", known.partition.id, { node: key(node.cut, node.coordinate) });
    return content ? smallCard(content, h("h3", {}, h("a", { href }, known.nodeName(node.cut, node.coordinate, node.label)))) : null;
  }

  private async nodeContent(cut: number, node: number): Promise<NodeContent | undefined> {
    const { known } = this.shown;
    const name = known.graph.cuts[cut] ?? String(cut);
    const found = await get("/api/v1/partitions/{ref}/cards", { ref: known.partition.id }, { cut: name, node, limit: 1 });
    return found.items[0]?.content as unknown as NodeContent | undefined;
  }

  private nodes(drawing: Schemas["Drawing"]): Child {
    const { known } = this.shown;
    const named = drawing.nodes.slice(0, NODES).some((node) => node.label || known.label(node.cut, node.coordinate));
    const rows = drawing.nodes.slice(0, NODES).map((node) => {
      const href = to("modules", known.partition.id, { node: key(node.cut, node.coordinate) });
      const label = known.label(node.cut, node.coordinate);
      return h(
        "tr",
        {},
        h("th", { scope: "row" }, h("a", { href }, known.nodeName(node.cut, node.coordinate, node.label))),
        named ? h("td", {}, `${known.graph.cuts[node.cut] ?? node.cut}/${node.coordinate}`) : null,
        h("td", { class: "number" }, number(node.importance)),
        h("td", { class: "number" }, number(node.confidence)),
        h("td", {}, label ? `${label.author} (${label.source})` : "–"),
      );
    });
    const more = drawing.n_nodes > rows.length ? note(`The most important ${number(rows.length)} of ${number(drawing.n_nodes)}.`) : null;
    return [h("h2", {}, "Nodes by importance"), scrolled("Nodes by importance", ["Node", ...(named ? ["At"] : []), "Importance", "Confidence", "Labelled by"], rows, (i) => i > Number(named) && i < 3 + Number(named)), more];
  }

  private async node(at: string): Promise<{ element: Child }> {
    const { known } = this.shown;
    const { partition, graph } = known;
    const [cut = 0, coordinate = 0] = at.split("/").map(Number);
    const [node, content] = await Promise.all([
      get("/api/v1/partitions/{ref}/nodes/{cut}/{node}", { ref: partition.id, cut, node: coordinate }),
      known.described ? this.nodeContent(cut, coordinate) : undefined,
    ]);
    const name = graph.cuts[cut] ?? String(cut);
    const facts = [`Importance ${number(node.importance)}`, typeof node.confidence === "number" ? `confidence ${number(node.confidence)}` : null, node.type ?? null];
    return {
      element: [
        h("h2", { class: "subject" }, swatch(colour(node.module)), known.nodeName(cut, coordinate, node.label)),
        this.labelled({ cut: name, node: coordinate }),
        h(
          "p",
          { class: "small" },
          `Node ${coordinate} of ${name}, `,
          node.module === null ? "in no module" : h("a", { href: to("modules", partition.id, { module: node.module }) }, known.moduleName(node.module)),
          `. ${facts.filter(Boolean).join(", ")}. `,
          h("a", { href: to("graph", partition.id, { module: node.module, all: node.module === null ? "1" : null, node: at }) }, "Its place in the picture"),
        ),
        content ? nodeCard(content, (other, i) => this.link(other, i)) : this.undescribed(),
      ],
    };
  }
}
