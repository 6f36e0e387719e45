// The view of a partition: its modules and what runs between them; the nodes of one module, or of all.
import { Canvas, type Focus } from "./canvas";
import { get, type Schemas } from "./client";
import { onScheme } from "./colours";
import { called, count, failure, h, note, number, show, type Child } from "./dom";
import { modulesOf, nodesOf } from "./drawn";
import { key } from "./layout";
import { described, groupPanel, modulePanel, modulesPanel, nodePanel, shared, type Known } from "./panel";
import { reports } from "./report";
import { requestForm } from "./request";
import { replace, to, type View } from "./route";

type Drawing = Schemas["Drawing"];
const STEPS = 400; // of the slider

interface Asked {
  module: number | null; // null: all
  nodes: boolean; // nodes of the module or of all, or the modules themselves
  node: string | null; // "cut/coordinate", by index
  above: number | null; // square root of epsilon
  group: number | null; // supernode of the file
}

function read(query: URLSearchParams): Asked {
  const module = query.get("module");
  const index = module !== null && /^\d{1,9}$/.test(module) ? Number(module) : null;
  const node = query.get("node");
  const above = Number(query.get("above") ?? NaN);
  const group = query.get("group");
  return {
    module: index,
    nodes: index !== null || query.has("all"),
    node: node !== null && /^\d{1,9}\/\d{1,9}$/.test(node) ? node : null,
    above: Number.isFinite(above) && above >= 0 ? above : null,
    group: group !== null && /^\d{1,9}$/.test(group) ? Number(group) : null,
  };
}

/** The view at #/graph/PARTITION. */
export async function graphView(place: HTMLElement, ref: string, query: URLSearchParams): Promise<View> {
  const partition = await get("/api/v1/partitions/{ref}", { ref });
  const [graph, others, labels, descriptions] = await Promise.all([
    get("/api/v1/graphs/{ref}", { ref: partition.graph }),
    get("/api/v1/partitions", {}, { graph: partition.graph, limit: 1000, newest: true }),
    shared.labels(partition.id),
    get("/api/v1/descriptions", {}, { partition: partition.id, limit: 1, newest: true }),
  ]);
  document.title = `${called(partition)} · interbasis`;
  const known = described(partition, graph, labels, descriptions.items[0]);
  return new GraphView(place, known, others.items.filter((row) => row.id === partition.id || !reports()), query);
}

class GraphView implements View {
  private readonly bars = h("div", { class: "bars" });
  private readonly holder = h("div", { class: "canvas", role: "group", tabindex: 0 });
  private readonly picture = h("div", { class: "picture" }, this.holder);
  private readonly status = h("p", { class: "small", role: "status" });
  private readonly panel = h("div", { class: "panel" });
  private readonly quiet: () => void;
  private canvas: Canvas | null = null;
  private drawing: Drawing | null = null;
  private shown = ""; // what the picture shows
  private asked: Asked;
  private turn = 0; // grows with every change, so that late answers are left out

  constructor(
    place: HTMLElement,
    private readonly known: Known,
    private readonly others: Schemas["PartitionRow"][],
    query: URLSearchParams,
  ) {
    this.asked = read(query);
    const { partition } = known;
    const verdict = [partition.verdict, partition.reason].filter(Boolean).join(": ");
    show(
      place,
      h("div", { class: "title" }, h("h1", {}, called(partition)), h("small", {}, partition.label ?? "")),
      h("p", {}, `${count(partition.n_modules, "module")}, ${verdict || "without a verdict"}.`),
      h(
        "p",
        { class: "paths" },
        h("a", { href: to("modules", partition.id) }, "What modules do"),
        h("a", { href: to("evidence", partition.id) }, "Evidence and downloads"),
        partition.run ? h("a", { href: to("training", partition.run) }, "Training") : null,
      ),
      this.bars,
      h("div", { class: "stage" }, h("div", {}, this.picture, this.status), this.panel),
    );
    this.holder.addEventListener("keydown", (event) => this.canvas?.keys(event));
    this.quiet = onScheme(() => this.draw());
    this.update(query);
  }

  update(query: URLSearchParams): void {
    this.asked = read(query);
    const wanted = this.asked.nodes ? `nodes ${this.asked.module}` : "modules";
    const again = wanted !== this.shown;
    this.shown = wanted;
    void this.arrive(again).catch((error: unknown) => show(this.panel, failure(error)));
  }

  leave(): void {
    this.turn++;
    this.quiet();
    this.canvas?.leave();
  }

  private async arrive(again: boolean): Promise<void> {
    const turn = ++this.turn;
    if (again) {
      this.canvas?.leave();
      this.canvas = null;
      this.drawing = null;
      show(this.picture, this.holder);
      show(this.panel, note("Loading …"));
      if (this.asked.nodes) {
        const module = this.asked.module;
        const asked = module === null ? {} : { module };
        const found = await get("/api/v1/partitions/{ref}/drawing", { ref: this.known.partition.id }, asked);
        if (turn !== this.turn) return;
        this.drawing = found;
      }
    } else if (this.asked.nodes && !this.drawing) return; // it is on its way
    if (again || !this.canvas) this.draw();
    else this.show();
    await this.tell(turn);
  }

  /** Make the picture anew. */
  private draw(): void {
    this.canvas?.leave();
    this.canvas = null;
    if (this.asked.nodes && !this.drawing) return;
    const box = { width: this.holder.clientWidth || 1, height: this.holder.clientHeight || 1 };
    const [dots, ties] = this.drawing ? nodesOf(this.drawing, this.known, box) : modulesOf(this.known, box);
    if (!dots.length) {
      show(this.picture, note("There are no nodes here."));
      return;
    }
    this.holder.setAttribute(
      "aria-label",
      `Picture of ${this.drawing ? count(this.drawing.nodes.length, "node") : count(dots.length, "module")}; the list after it has the same. Arrow keys move it, + and - zoom.`,
    );
    const side = this.drawing && box.width >= box.height ? "right" : "below";
    this.canvas = new Canvas(this.holder, dots, ties, side, this.focus(), (id) => this.click(id));
    show(this.picture, this.holder, this.canvas.buttons());
    this.show();
  }

  private click(id: string | null): void {
    const { partition } = this.known;
    if (!this.drawing) {
      if (id !== null) location.hash = to("graph", partition.id, { module: Number(id) });
      return;
    }
    location.hash = this.address({ node: id });
  }

  private address(change: Partial<Asked>): string {
    const { module, nodes, node, above, group } = { ...this.asked, ...change };
    const all = nodes && module === null ? "1" : null;
    return to("graph", this.known.partition.id, { module, all, node, above, group });
  }

  /** Bring controls, threshold and selection into line with the address. */
  private show(): void {
    const least = this.asked.above ?? this.known.usual;
    show(this.bars, this.divisions(), this.parts(), this.groups(), this.drawing ? this.slider(least) : null);
    this.canvas?.show(this.focus());
    this.say(least);
  }

  /** What of the picture stands out. */
  private focus(): Focus {
    const least = this.drawing ? (this.asked.above ?? this.known.usual) : 0;
    const group = this.group()?.nodes.map(([cut, node]) => key(cut, node)) ?? [];
    return { least, chosen: this.asked.node, group };
  }

  private say(least: number): void {
    if (!this.drawing) {
      const { modules, links } = this.known.partition;
      const pairs = new Set(links.map((link) => [link.earlier, link.later].sort().join(" "))).size;
      show(this.status, `${count(modules.length, "module")}, ${count(pairs, "connected pair")}. The size of a disc is its number of nodes, the width of a line the interaction cost. Click a module to open it.`);
      return;
    }
    const { nodes, edges, n_nodes, n_edges } = this.drawing;
    const strong = edges.filter((edge) => edge.strength > least).length;
    const signed = edges.some((edge) => (edge.weight ?? 0) < 0) ? " Orange edges are negative, blue ones positive." : "";
    const cut = edges.length < n_edges ? ` Only the strongest ${number(edges.length)} are here.` : "";
    show(
      this.status,
      `${number(nodes.length)} of ${count(n_nodes, "node")}, ${number(strong)} of ${count(n_edges, "edge")}.${cut} Larger discs are more important.${signed}`,
    );
  }

  private divisions(): Child {
    const choices = this.others.map((row) =>
      h("option", { value: row.id, selected: row.id === this.known.partition.id }, divisionName(row)),
    );
    const change = (event: Event): void => {
      location.hash = to("graph", (event.target as HTMLSelectElement).value);
    };
    return h("div", {}, h("label", { for: "division" }, "Division"), h("select", { id: "division", change }, choices));
  }

  private parts(): Child {
    const { partition } = this.known;
    const chosen = this.asked.module ?? (this.asked.nodes ? "all" : "");
    const option = (value: string | number, text: string): Child => h("option", { value, selected: value === chosen }, text);
    const change = (event: Event): void => {
      const value = (event.target as HTMLSelectElement).value;
      const above = this.asked.above;
      location.hash = to("graph", partition.id, value === "all" ? { all: "1", above } : value === "" ? {} : { module: value, above });
    };
    const modules = partition.modules.map((module) => option(module.index, this.known.moduleName(module.index)));
    const options = [option("", "Modules and what runs between them"), option("all", "All nodes"), ...modules];
    return h("div", {}, h("label", { for: "part" }, "Shown"), h("select", { id: "part", change }, options));
  }

  /** The supernode that was chosen, of those that the file of the graph has. */
  private group(): Schemas["Supernode"] | undefined {
    return this.asked.group === null ? undefined : this.drawing?.supernodes?.[this.asked.group];
  }

  private groups(): Child {
    const all = this.drawing?.supernodes ?? [];
    if (!all.length) return null;
    const change = (event: Event): void => {
      const value = (event.target as HTMLSelectElement).value;
      location.hash = this.address({ group: value === "" ? null : Number(value), node: null });
    };
    const options = all.map((one, i) => h("option", { value: i, selected: i === this.asked.group }, `${one.title} (${one.nodes.length})`));
    const none = h("option", { value: "" }, "none chosen");
    return h("div", {}, h("label", { for: "group" }, "Supernode of the file"), h("select", { id: "group", change }, none, options));
  }

  private slider(least: number): Child {
    const edges = this.drawing?.edges ?? [];
    const [most, few] = [edges[0]?.strength ?? 1, edges.at(-1)?.strength ?? 1];
    if (!(most > few)) return null;
    const span = Math.log(most / few);
    const at = (strength: number): number => (strength < few ? 0 : Math.round((STEPS * Math.log(strength / few)) / span));
    const { usual, scale } = this.known;
    const text = (strength: number): string => `Edges stronger than √ε = ${number(strength)}${scale && strength === usual ? ` (${scale})` : ""}`;
    const label = h("label", { for: "above" }, text(least));
    const input = (event: Event): void => {
      const value = Number((event.target as HTMLInputElement).value);
      const strength = value ? Number((few * Math.exp((span * value) / STEPS)).toPrecision(4)) : 0;
      this.asked.above = strength;
      show(label, text(strength));
      this.canvas?.show(this.focus());
      this.say(strength);
      replace(new URLSearchParams(this.address({}).split("?", 2)[1]));
    };
    const field = h("input", { id: "above", type: "range", min: 0, max: STEPS - 1, value: at(least), input });
    return h("div", { class: "slider" }, label, field);
  }

  /** Fill the panel beside the picture. */
  private async tell(turn: number): Promise<void> {
    const { node, module } = this.asked;
    const form = reports() ? null : requestForm(this.known.partition);
    const link = (change: Partial<Asked>): string => this.address(change);
    let said: Child;
    if (node !== null) said = await nodePanel(this.known, node, link);
    else if (this.drawing && this.group()) said = groupPanel(this.known, this.group() as Schemas["Supernode"], this.drawing, link);
    else if (this.drawing) said = await modulePanel(this.known, module, this.drawing, link);
    else said = modulesPanel(this.known);
    if (turn === this.turn) show(this.panel, said, node === null ? form : null);
  }
}

function divisionName(row: Schemas["PartitionRow"]): string {
  const recipe = row.recipe as { seed?: number; roles?: unknown };
  const parts = [count(row.n_modules, "module"), row.objective, `ε ${number(row.epsilon)}`, `resolution ${number(row.resolution)}`];
  if (recipe.roles) parts.push("roles");
  return [...parts, row.verdict ?? "", row.id].filter(Boolean).join(" · ");
}
