// Where nodes are drawn. Layers run left to right, on narrow pages from top to bottom.
import type { Schemas } from "./client";

export interface Point {
  x: number;
  y: number;
}

export interface Box {
  width: number;
  height: number;
}

type Node = Schemas["NodeRow"];
type Edge = Schemas["EdgeRow"];

export const key = (cut: number, coordinate: number): string => `${cut}/${coordinate}`;

export interface Layout {
  places: Map<string, Point>;
  captions: [string, Point][];
}

/** Places of nodes: by token position and layer where positions are known, otherwise by cut and module. */
export function layered(nodes: Node[], edges: Edge[], box: Box, names: string[]): Layout {
  const known = nodes.filter((node) => node.position !== null && node.position !== undefined);
  if (known.length > nodes.length / 2) return byPosition(nodes, box, names);
  const lanes = byModule(nodes, edges);
  const wide = box.width >= box.height;
  const cuts = [...new Set(nodes.map((node) => node.cut))].sort((a, b) => a - b);
  const along = new Map(cuts.map((cut, i) => [cut, cuts.length > 1 ? i / (cuts.length - 1) : 0.5]));
  const captions = cuts.map((cut): [string, Point] => {
    const forth = along.get(cut) ?? 0;
    const point = wide
      ? { x: forth * box.width, y: 0.05 * box.height }
      : { x: -0.12 * box.width, y: -(forth - 0.4 / Math.max(2, cuts.length)) * box.height };
    return [names[cut] ?? String(cut), point];
  });
  const places = new Map(
    nodes.map((node): [string, Point] => {
      const [forth, across] = [along.get(node.cut) ?? 0, lanes.get(key(node.cut, node.coordinate)) ?? 0];
      const point = wide
        ? { x: forth * box.width, y: -across * box.height }
        : { x: across * box.width, y: -forth * box.height };
      return [key(node.cut, node.coordinate), point];
    }),
  );
  return { places, captions };
}

/** For each node how far across it lies, from 0 to 1: every module has a lane, as wide as its fullest cut; the last, of
 * nodes in no module, is narrower. */
function byModule(nodes: Node[], edges: Edge[]): Map<string, number> {
  const lanes = Map.groupBy(nodes, (node) => node.module ?? Infinity);
  const order = [...lanes.keys()].sort((a, b) => a - b);
  const cells = new Map(order.map((module) => [module, Map.groupBy(lanes.get(module) ?? [], (node) => node.cut)]));
  const widths = order.map((module) => {
    const most = Math.max(...[...(cells.get(module)?.values() ?? [])].map((cell) => cell.length));
    return module === Infinity ? 0.3 * most : most;
  });
  const gap = 1.5;
  const total = widths.reduce((sum, width) => sum + width, 0) + gap * (order.length - 1) || 1;
  const found = new Map<string, number>();
  const into = Map.groupBy(edges, (edge) => key(edge.later_cut, edge.later));
  let start = 0;
  order.forEach((module, i) => {
    const width = widths[i] ?? 1;
    for (const [, cell] of [...(cells.get(module) ?? [])].sort((a, b) => a[0] - b[0])) {
      const wanted = new Map(cell.map((node) => [node, pull(into.get(key(node.cut, node.coordinate)) ?? [], found)]));
      cell.sort((a, b) => (wanted.get(a) ?? 0) - (wanted.get(b) ?? 0) || a.coordinate - b.coordinate);
      cell.forEach((node, place) => {
        const inside = ((place + 0.5) / cell.length) * width;
        found.set(key(node.cut, node.coordinate), (start + inside) / total);
      });
    }
    start += width + gap;
  });
  return found;
}

/** The mean place of what feeds a node, by strength. */
function pull(edges: Edge[], places: Map<string, number>): number {
  let [sum, weight] = [0, 0];
  for (const edge of edges) {
    const place = places.get(key(edge.earlier_cut, edge.earlier));
    if (place === undefined) continue;
    sum += place * edge.strength;
    weight += edge.strength;
  }
  return weight ? sum / weight : 0.5;
}

/** Token positions left to right, layers from the bottom up, nodes of one place side by side. */
function byPosition(nodes: Node[], box: Box, names: string[]): Layout {
  const positions = [...new Set(nodes.map((node) => node.position ?? -1))].sort((a, b) => a - b);
  const cuts = [...new Set(nodes.map((node) => node.cut))].sort((a, b) => a - b);
  const column = new Map(positions.map((position, i) => [position, i]));
  const height = new Map(cuts.map((cut, i) => [cut, (i / Math.max(1, cuts.length - 1)) * box.height]));
  const places = new Map<string, Point>();
  for (const [position, all] of Map.groupBy(nodes, (node) => node.position ?? -1))
    for (const [cut, cell] of Map.groupBy(all, (node) => node.cut)) {
      cell.sort((a, b) => (a.module ?? Infinity) - (b.module ?? Infinity) || a.coordinate - b.coordinate);
      cell.forEach((node, i) => {
        const across = ((column.get(position) ?? 0) + (i + 1) / (cell.length + 1)) / positions.length;
        places.set(key(cut, node.coordinate), { x: across * box.width, y: height.get(cut) ?? 0 });
      });
    }
  const rows = cuts.map((cut): [string, Point] => [names[cut] ?? String(cut), { x: -0.04 * box.width, y: height.get(cut) ?? 0 }]);
  const columns = positions.map((position, i): [string, Point] => [
    position < 0 ? "no position" : String(position),
    { x: ((i + 0.5) / positions.length) * box.width, y: -0.05 * box.height },
  ]);
  return { places, captions: [...rows, ...columns] };
}

/** Places of modules: on an ellipse, drawn to the left or right by the mean cut of their nodes. */
export function quotient(modules: Schemas["ModuleRow"][], box: Box): Map<number, Point> {
  const depth = new Map(
    modules.map((module) => {
      const total = module.sizes.reduce((sum, size) => sum + size, 0) || 1;
      return [module.index, module.sizes.reduce((sum, size, cut) => sum + size * cut, 0) / total];
    }),
  );
  const order = modules.map((module) => module.index).sort((a, b) => (depth.get(a) ?? 0) - (depth.get(b) ?? 0) || a - b);
  const depths = [...depth.values()];
  const [least, most] = [Math.min(...depths), Math.max(...depths)];
  const spread = most - least > 0.5;
  // the shallowest at the left end; then one above, one below, so that depth grows to the right
  const found = new Map<number, Point>();
  order.forEach((index, i) => {
    const turn = Math.ceil(i / 2) / Math.max(1, order.length / 2);
    const angle = Math.PI * (1 - (i % 2 ? turn : -turn));
    const share = ((depth.get(index) ?? 0) - least) / (most - least || 1);
    const x = spread ? share * 2 - 1 : Math.cos(angle);
    found.set(index, { x: (x * box.width) / 2, y: (Math.sin(angle) * box.height) / 2 });
  });
  return found;
}

const PADDING = 96; // pixels of a picture that stay free, both sides together

/** The largest radius of each node, in pixels, at which discs in a row or column do not overlap; at least 1. */
export function radii(places: Map<string, Point>, box: Box): Map<string, number> {
  const scale = Math.max(0.1, 1 - PADDING / Math.min(box.width, box.height));
  const found = new Map([...places.keys()].map((name) => [name, Infinity]));
  const closest = (along: (point: Point) => number, across: (point: Point) => number): void => {
    for (const [, line] of Map.groupBy(places, ([, point]) => along(point))) {
      line.sort(([, a], [, b]) => across(a) - across(b));
      line.forEach(([name, point], i) => {
        const next = line[i + 1];
        if (!next) return;
        const half = Math.max(1, (scale * (across(next[1]) - across(point))) / 2);
        for (const one of [name, next[0]]) found.set(one, Math.min(half, found.get(one) ?? half));
      });
    }
  };
  closest((point) => point.x, (point) => point.y);
  closest((point) => point.y, (point) => point.x);
  return found;
}
