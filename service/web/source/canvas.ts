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

export class Canvas {
  private readonly sigma: Sigma;
  private readonly graph = new Graph({ multi: true });
  private least = 0;
  private chosen: string | null = null;
  private group: string[] = [];
  private near = new Set<string>();

  constructor(
    private readonly holder: HTMLElement,
    dots: Dot[],
    ties: Tie[],
    private readonly side: Side,
    click: (id: string | null) => void,
  ) {
    for (const dot of dots)
      this.graph.addNode(dot.id, {
        ...{ label: dot.label, x: dot.x, y: dot.y, size: dot.size, color: dot.colour },
        ...{ caption: dot.caption === true, forceLabel: dot.labelled === true || dot.caption === true },
      });
    for (const tie of [...ties].reverse()) // the strongest last, above the others
      this.graph.addEdge(tie.from, tie.to, { size: tie.width, color: tie.colour, strength: tie.strength });
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
          ? { ...data, zIndex: 1, highlighted: id === this.chosen }
          : { ...data, color: line, label: null, zIndex: 0 },
      edgeReducer: (id, data) => {
        if ((data["strength"] as number) <= this.least) return { ...data, hidden: true };
        if (!this.near.size) return data;
        const mine = this.chosen === null ? this.inside(id) : this.graph.hasExtremity(id, this.chosen);
        return mine ? { ...data, zIndex: 1 } : { ...data, hidden: true };
      },
    };
  }

  /** Hide edges that are not stronger than this. */
  above(strength: number): void {
    this.least = strength;
    this.choose(this.chosen, this.group);
  }

  /** Show one node with those to which it has a visible edge, or a group of nodes, and the rest as a shadow; else all alike. */
  choose(id: string | null, group: string[] = []): void {
    this.group = group;
    this.chosen = id !== null && this.graph.hasNode(id) ? id : null;
    this.near = new Set(this.chosen === null ? group : [this.chosen]);
    if (this.chosen !== null)
      this.graph.forEachEdge(this.chosen, (_, tie, from, to) => {
        if ((tie["strength"] as number) > this.least) this.near.add(from === this.chosen ? to : from);
      });
    this.sigma.refresh({ skipIndexation: true });
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
