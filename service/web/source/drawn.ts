// What the picture of a partition shows: discs and lines for its modules, or for nodes and edges.
import type { Dot, Tie } from "./canvas";
import type { Schemas } from "./client";
import { colour, inks, mixed } from "./colours";
import { key, layered, quotient, radii, type Box } from "./layout";
import type { Known } from "./panel";

/** The modules as discs, with the interaction cost between them. */
export function modulesOf(known: Known, box: Box): [Dot[], Tie[]] {
  const { modules, links } = known.partition;
  const places = quotient(modules, box);
  const largest = Math.max(1, ...modules.map((module) => module.size));
  const dots = modules.map((module) => ({
    id: String(module.index),
    label: known.moduleName(module.index),
    ...(places.get(module.index) ?? { x: 0, y: 0 }),
    size: 6 + 24 * Math.sqrt(module.size / largest),
    colour: colour(module.index),
    labelled: modules.length <= 40,
  }));
  const costs = new Map<string, number>();
  for (const link of links) {
    if (link.earlier === link.later) continue;
    const pair = [link.earlier, link.later].sort((a, b) => a - b).join(" ");
    costs.set(pair, (costs.get(pair) ?? 0) + link.edge_cost);
  }
  const strongest = [...costs].sort((a, b) => b[1] - a[1]).slice(0, 10_000);
  const most = strongest[0]?.[1] || 1;
  const { soft, paper } = inks();
  const ties = strongest.map(([pair, cost]) => {
    const [from = "", end = ""] = pair.split(" ");
    return { from, to: end, strength: cost, width: 0.8 + 9 * (cost / most), colour: mixed(soft, paper, 0.3 + 0.4 * (cost / most)) };
  });
  return [dots, ties];
}

/** The nodes of a drawing with their edges, and captions. */
export function nodesOf(drawing: Schemas["Drawing"], known: Known, box: Box): [Dot[], Tie[]] {
  const { places, captions } = layered(drawing.nodes, drawing.edges, box, drawing.cuts);
  const largest = drawing.nodes[0]?.importance || 1;
  const equal = drawing.nodes.every((node) => node.importance === largest); // as in graphs whose file says nothing
  const room = radii(places, box);
  const crowd = Math.min(1, Math.sqrt(150 / drawing.nodes.length));
  const dots: Dot[] = drawing.nodes.map((node) => ({
    id: key(node.cut, node.coordinate),
    label: known.nodeName(node.cut, node.coordinate, node.label, String(node.coordinate)),
    ...(places.get(key(node.cut, node.coordinate)) ?? { x: 0, y: 0 }),
    size: Math.min(
      room.get(key(node.cut, node.coordinate)) ?? Infinity,
      equal ? 2 + 4 * crowd : 2 + (2 + 9 * crowd) * Math.sqrt(Math.max(0, node.importance) / largest),
    ),
    colour: colour(node.module),
  }));
  if (dots.length)
    captions.forEach(([label, point], i) =>
      dots.push({ id: `caption ${i}`, label, ...point, size: 0.01, colour: inks().paper, caption: true }),
    );
  const signed = drawing.edges.some((edge) => (edge.weight ?? 0) < 0);
  const most = drawing.edges[0]?.strength || 1;
  const { soft, paper } = inks();
  const ties = drawing.edges.map((edge) => {
    const share = edge.strength / most;
    const ink = signed ? ((edge.weight ?? 0) < 0 ? "#d55e00" : "#0072b2") : soft;
    return {
      from: key(edge.earlier_cut, edge.earlier),
      to: key(edge.later_cut, edge.later),
      strength: edge.strength,
      width: 0.4 + 4 * share,
      colour: mixed(ink, paper, 0.15 + 0.75 * Math.sqrt(share)),
    };
  });
  return [dots, ties];
}
