// Small charts over training steps, one below or beside the other, with one cursor.
import uPlot from "uplot";
import { inks } from "./colours";
import { h } from "./dom";

export interface Line {
  name: string;
  colour: string;
  points: { x: number; y: number; lower?: number | null; upper?: number | null }[];
}

/** A logarithmic axis, and what it is of. */
export interface Axis {
  from: number;
  to: number;
  over: string;
}

/** Draw lines over steps, or what `over` names, from 0 to a last one, or over another axis; points with an interval get a bar from its lower to its upper end. */
export function chart(title: string, unit: string, lines: Line[], axis: number | Axis, sync: string, over = "training steps"): { figure: HTMLElement; leave: () => void } {
  const holder = h("div", {});
  const said = lines.map((line) => `${line.name}: ${line.points.map((p) => `${p.y} at ${p.x}`).join(", ")}`);
  const figure = h(
    "figure",
    { role: "group", "aria-label": `${title} over ${typeof axis === "number" ? over : axis.over}. ${said.join("; ")}`.slice(0, 600) },
    h("figcaption", {}, title, unit ? `, ${unit}` : ""),
    holder,
  );
  let plot: uPlot | null = null;
  const draw = (): void => {
    const width = Math.floor(holder.clientWidth);
    if (!width || plot?.width === width) return;
    plot?.destroy();
    plot = new uPlot(options(width, lines, axis, sync), data(lines), holder);
  };
  const watch = new ResizeObserver(draw);
  watch.observe(holder);
  return {
    figure,
    leave: () => {
      watch.disconnect();
      plot?.destroy();
    },
  };
}

function data(lines: Line[]): uPlot.AlignedData {
  const steps = [...new Set(lines.flatMap((line) => line.points.map((point) => point.x)))].sort((a, b) => a - b);
  const columns = lines.map((line) => {
    const at = new Map(line.points.map((point) => [point.x, point.y]));
    return steps.map((step) => at.get(step) ?? null);
  });
  return [steps, ...columns];
}

function options(width: number, lines: Line[], over: number | Axis, sync: string): uPlot.Options {
  const { soft, line: rule } = inks();
  const axis = { stroke: soft, font: "12px system-ui, sans-serif", grid: { stroke: rule, width: 0.5 }, ticks: { show: false } };
  const ends = lines.flatMap((line) => line.points.flatMap((p) => [p.y, p.lower ?? p.y, p.upper ?? p.y]));
  const least = Math.min(0, ...ends);
  const most = Math.max(...ends);
  return {
    width,
    height: 170,
    legend: { show: false },
    cursor: { sync: { key: sync }, y: false, drag: { x: false, y: false } },
    scales: { x: typeof over === "number" ? { time: false, range: [0, over] } : { time: false, distr: 3, range: [over.from, over.to] }, y: { range: [least, most + (most - least || 1) * 0.08] } },
    axes: [
      { ...axis, size: 26, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : short(tick))) },
      { ...axis, size: 52, values: (_, ticks) => ticks.map(short) },
    ],
    series: [
      {},
      ...lines.map((line) => ({
        label: line.name,
        stroke: line.colour,
        width: 1.5,
        spanGaps: true,
        points: { show: true, size: 6, fill: line.colour },
      })),
    ],
    hooks: { draw: [(plot: uPlot) => bars(plot, lines)] },
  };
}

function bars(plot: uPlot, lines: Line[]): void {
  const context = plot.ctx;
  context.save();
  context.lineWidth = devicePixelRatio;
  for (const line of lines) {
    context.strokeStyle = line.colour;
    for (const point of line.points) {
      if (point.lower === undefined || point.lower === null || point.upper === undefined || point.upper === null) continue;
      const x = plot.valToPos(point.x, "x", true);
      context.beginPath();
      context.moveTo(x, plot.valToPos(point.lower, "y", true));
      context.lineTo(x, plot.valToPos(point.upper, "y", true));
      context.stroke();
    }
  }
  context.restore();
}

function short(value: number): string {
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  return size >= 1e4 ? `${Number((value / 1e3).toPrecision(3))}k` : String(Number(value.toPrecision(4)));
}
