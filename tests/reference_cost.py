"""Costs of a division into modules by plain loops over nodes: slow, and obviously the formulas."""

from __future__ import annotations

import math


class NotSettledError(Exception):
    """Totals that force some expected costs to 0 are restored in infinitely many rounds only."""


def cost(w, epsilon):
    return max(0.0, math.log(w / math.sqrt(epsilon))) if w > 0 else 0.0


def _edges(graph):
    for p, block in enumerate(graph.blocks):
        for j in range(block.shape[0]):
            for i in range(block.shape[1]):
                yield p, i, j, float(block[j, i])


def _ends(graph, labels, p, i, j):
    earlier, later = graph.pairs[p]
    return labels[earlier][i], labels[later][j]


def edge_cost(graph, labels, epsilon):
    total = 0.0
    for p, i, j, w in _edges(graph):
        earlier, later = _ends(graph, labels, p, i, j)
        total += cost(w, epsilon) if earlier != later else 0.0
    return total


def mediator_cost(graph, labels, epsilon):
    total = 0.0
    for cut, width in enumerate(graph.widths):
        for i in range(width):
            squares = {}
            for p, k, j, w in _edges(graph):
                if graph.pairs[p][0] == cut and k == i:
                    module = int(labels[graph.pairs[p][1]][j])
                    squares[module] = squares.get(module, 0.0) + w**2
            squares.pop(int(labels[cut][i]), None)
            total += sum(cost(math.sqrt(square), epsilon) for square in squares.values())
    return total


def expected(graph, epsilon):
    """Cost expected on each possible edge (pair, earlier node, later node): equal costs, totals restored in turn."""
    position = graph.positions
    first = [sum(graph.widths[:cut]) for cut in range(len(graph.widths))]
    real, found = {}, {}
    for p, i, j, w in _edges(graph):
        a, b = (first[cut] + node for cut, node in zip(graph.pairs[p], (i, j), strict=True))
        if position is None or position[a] <= position[b]:
            real[p, i, j], found[p, i, j] = cost(w, epsilon), 1.0
    for rounds in range(300):
        for side in (0, 1):
            wanted, have = {}, {}
            for (p, *nodes), x in real.items():
                node = graph.pairs[p][side], nodes[side]
                wanted[node] = wanted.get(node, 0.0) + x
                have[node] = have.get(node, 0.0) + found[p, *nodes]
            if rounds == 299 and side == 0 and max(abs(wanted[n] - have[n]) for n in wanted) > 1e-9:
                raise NotSettledError
            for p, *nodes in found:
                node = graph.pairs[p][side], nodes[side]
                found[p, *nodes] *= wanted[node] / have[node] if have[node] else 0.0
    return found


def node_totals(graph, epsilon):
    """Total cost of each node over all its edges, as a mapping from (cut, index)."""
    totals = {(cut, i): 0.0 for cut, k in enumerate(graph.widths) for i in range(k)}
    for p, i, j, w in _edges(graph):
        totals[graph.pairs[p][0], i] += cost(w, epsilon)
        totals[graph.pairs[p][1], j] += cost(w, epsilon)
    return totals


def quality(graph, labels, epsilon, objective, resolution):
    chance = expected(graph, epsilon)
    total = 0.0
    for p, i, j, w in _edges(graph):
        earlier, later = _ends(graph, labels, p, i, j)
        if earlier != later:
            continue
        possible = (p, i, j) in chance
        charge = {"layered_cpm": float(possible), "layered_modularity": chance.get((p, i, j), 0.0)}.get(objective, 0.0)
        total += cost(w, epsilon) - resolution * charge
    nodes = node_totals(graph, epsilon)
    twice = sum(nodes.values())
    for a in nodes:
        for b in nodes:
            if labels[a[0]][a[1]] != labels[b[0]][b[1]]:
                continue
            if objective == "cpm" and a < b:
                total -= resolution
            if objective == "modularity" and twice:
                total -= resolution * nodes[a] * nodes[b] / (2 * twice)
    return total


def contrast(graph, labels, epsilon):
    between = 0.0
    for (p, i, j), x in expected(graph, epsilon).items():
        earlier, later = _ends(graph, labels, p, i, j)
        between += x if earlier != later else 0.0
    return 1 - edge_cost(graph, labels, epsilon) / between if between > 1e-12 else 0.0
