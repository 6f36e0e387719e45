// A picture of nodes and edges that can be moved, zoomed and clicked.
import Graph from "graphology";
import Sigma from "sigma";
import type { Settings } from "sigma/settings";
import type { NodeDisplayData, PartialButFor } from "sigma/types";
import { inks } from "./colours";
import { h } from "./dom";

const MANY = 3000; // edges that slow down moving where there is no GPU

export interface Dot {
  id: string;
  label: string;
  x: number;
  y: number;
  size: number;
  colour: string;
  labelled?: boolean;
  caption?: boolean; // words alone, which nobody clicks
}

/** On which side of a node its name stands. */
export type Side = "right" | "below";

export interface Tie {
  from: string;
  to: string;
  strength: number;
  width: number;
  colour: string;
}

/** What of a picture stands out: edges stronger than `least`, and one node with those beside it, or a group of nodes. */
export interface Focus {
  least: number;
  chosen: string | null;
  group: string[];
}

/** A picture; it is drawn once when it is made, and once for each change of what stands out. */
export class Canvas {
  private readonly sigma: Sigma;
  private readonly graph = new Graph({ multi: true });
  private near = new Set<string>();

  constructor(
    private readonly holder: HTMLElement,
    dots: Dot[],
    ties: Tie[],
    private readonly side: Side,
    private focus: Focus,
    click: (id: string | null) => void,
  ) {
    for (const dot of dots)
      this.graph.addNode(dot.id, {
        ...{ label: dot.label, x: dot.x, y: dot.y, size: dot.size, color: dot.colour },
        ...{ caption: dot.caption === true, forceLabel: dot.labelled === true || dot.caption === true },
      });
    for (const tie of [...ties].reverse()) // the strongest last, above the others
      this.graph.addEdge(tie.from, tie.to, { size: tie.width, color: tie.colour, strength: tie.strength });
    this.near = this.beside();
    this.sigma = new Sigma(this.graph, holder, this.settings());
    this.sigma.on("clickNode", ({ node }) => !this.isCaption(node) && click(node));
    this.sigma.on("clickStage", () => click(null));
    this.sigma.on("enterNode", ({ node }) => (holder.style.cursor = this.isCaption(node) ? "" : "pointer"));
    this.sigma.on("leaveNode", () => (holder.style.cursor = ""));
  }

  private inside(edge: string): boolean {
    return this.graph.extremities(edge).every((node) => this.near.has(node));
  }

  private isCaption(id: string): boolean {
    return this.graph.getNodeAttribute(id, "caption") === true;
  }

  private settings(): Partial<Settings> {
    const { ink, line, paper, soft } = inks();
    return {
      allowInvalidContainer: true,
      labelColor: { color: ink },
      labelFont: "system-ui, sans-serif",
      labelSize: 13,
      labelWeight: "400",
      labelDensity: 0.6,
      labelGridCellSize: 110,
      labelRenderedSizeThreshold: 7,
      stagePadding: 48,
      zIndex: true,
      hideEdgesOnMove: this.graph.size > MANY,
      minCameraRatio: 0.02,
      maxCameraRatio: 4,
      defaultDrawNodeLabel: (context, data, settings) => drawLabel(context, data, settings, this.side, [ink, soft], paper),
      defaultDrawNodeHover: (context, data, settings) => drawHover(context, data, settings, this.side, ink, paper),
      nodeReducer: (id, data) =>
        !this.near.size || this.near.has(id) || data["caption"]
          ? { ...data, zIndex: 1, highlighted: id === this.focus.chosen }
          : { ...data, color: line, label: null, zIndex: 0 },
      edgeReducer: (id, data) => {
        if ((data["strength"] as number) <= this.focus.least) return { ...data, hidden: true };
        if (!this.near.size) return data;
        const { chosen } = this.focus;
        const mine = chosen === null || !this.graph.hasNode(chosen) ? this.inside(id) : this.graph.hasExtremity(id, chosen);
        return mine ? { ...data, zIndex: 1 } : { ...data, hidden: true };
      },
    };
  }

  /** Let something else stand out, and the rest be a shadow; nothing chosen: all alike. */
  show(focus: Focus): void {
    const { least, chosen, group } = this.focus;
    if (focus.least === least && focus.chosen === chosen && focus.group.join() === group.join()) return;
    this.focus = focus;
    this.near = this.beside();
    this.sigma.refresh({ skipIndexation: true });
  }

  /** The chosen node with those to which it has a visible edge, or the group. */
  private beside(): Set<string> {
    const { least, chosen, group } = this.focus;
    if (chosen === null || !this.graph.hasNode(chosen)) return new Set(group);
    const near = new Set([chosen]);
    this.graph.forEachEdge(chosen, (_, tie, from, to) => {
      if ((tie["strength"] as number) > least) near.add(from === chosen ? to : from);
    });
    return near;
  }

  /** Buttons that do what wheel and drag do. */
  buttons(): HTMLElement {
    const camera = this.sigma.getCamera();
    const button = (text: string, name: string, act: () => unknown): HTMLElement =>
      h("button", { type: "button", "aria-label": name, title: name, click: () => void act() }, text);
    return h(
      "div",
      { class: "zoom" },
      button("+", "Zoom in", () => camera.animatedZoom({ duration: 150 })),
      button("−", "Zoom out", () => camera.animatedUnzoom({ duration: 150 })),
      button("⤢", "Show everything", () => camera.animatedReset({ duration: 150 })),
    );
  }

  /** Move the picture with the arrow keys, zoom with + and -. */
  keys(event: KeyboardEvent): void {
    const camera = this.sigma.getCamera();
    const step = 0.1 * camera.ratio;
    const moves: Record<string, [number, number]> = {
      ...{ ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] },
    };
    const move = moves[event.key];
    if (move) camera.setState({ x: camera.x + move[0], y: camera.y + move[1] });
    else if (event.key === "+" || event.key === "=") void camera.animatedZoom({ duration: 100 });
    else if (event.key === "-") void camera.animatedUnzoom({ duration: 100 });
    else return;
    event.preventDefault();
  }

  leave(): void {
    this.sigma.kill();
    this.holder.style.cursor = "";
  }
}

type Drawn = PartialButFor<NodeDisplayData, "x" | "y" | "size" | "label" | "color">;

/** The name of a node, within the picture and on a rim of paper; captions are in the second ink. */
function drawLabel(
  context: CanvasRenderingContext2D,
  data: Drawn & { caption?: boolean },
  settings: Settings,
  side: Side,
  [ink, soft]: [string, string],
  paper: string,
  weight = "400",
): void {
  if (!data.label) return;
  const size = settings.labelSize;
  context.font = `${weight} ${size}px ${settings.labelFont}`;
  context.lineWidth = 4;
  context.lineJoin = "round";
  context.strokeStyle = paper;
  context.fillStyle = data.caption ? soft : ink;
  const width = context.measureText(data.label).width;
  const centred = side === "below" || data.caption;
  const wanted = centred ? data.x - width / 2 : data.x + data.size + 4;
  const x = Math.max(4, Math.min(context.canvas.clientWidth - width - 4, wanted));
  const y = side === "below" && !data.caption ? data.y + data.size + size + 1 : data.y + size / 3;
  context.strokeText(data.label, x, y);
  context.fillText(data.label, x, y);
}

function drawHover(
  context: CanvasRenderingContext2D,
  data: Drawn & { caption?: boolean },
  settings: Settings,
  side: Side,
  ink: string,
  paper: string,
): void {
  if (data.caption) return;
  context.beginPath();
  context.arc(data.x, data.y, data.size + 2, 0, 2 * Math.PI);
  context.lineWidth = 2;
  context.strokeStyle = ink;
  context.stroke();
  drawLabel(context, data, settings, side, [ink, ink], paper, "600");
}
