"""Costs of a division into modules by plain loops over nodes: slow, and obviously the formulas."""

from __future__ import annotations

import math


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


def totals(graph, epsilon, p):
    """Cost leaving each earlier node, cost entering each later node, and all of it, for one pair of cuts."""
    later, earlier = graph.blocks[p].shape
    out, into = [0.0] * earlier, [0.0] * later
    for q, i, j, w in _edges(graph):
        if q == p:
            out[i] += cost(w, epsilon)
            into[j] += cost(w, epsilon)
    return out, into, sum(out)


def node_totals(graph, epsilon):
    """Total cost of each node over all its edges, as a mapping from (cut, index)."""
    totals = {(cut, i): 0.0 for cut, k in enumerate(graph.widths) for i in range(k)}
    for p, i, j, w in _edges(graph):
        totals[graph.pairs[p][0], i] += cost(w, epsilon)
        totals[graph.pairs[p][1], j] += cost(w, epsilon)
    return totals


def quality(graph, labels, epsilon, objective, resolution):
    sums = [totals(graph, epsilon, p) for p in range(len(graph.blocks))]
    total = 0.0
    for p, i, j, w in _edges(graph):
        earlier, later = _ends(graph, labels, p, i, j)
        if earlier != later:
            continue
        out, into, all_of_it = sums[p]
        expected = out[i] * into[j] / all_of_it if all_of_it else 0.0
        charge = {"layered_cpm": 1.0, "layered_modularity": expected}.get(objective, 0.0)
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
    sums = [totals(graph, epsilon, p) for p in range(len(graph.blocks))]
    expected = 0.0
    for p, i, j, _ in _edges(graph):
        earlier, later = _ends(graph, labels, p, i, j)
        if earlier != later and sums[p][2]:
            expected += sums[p][0][i] * sums[p][1][j] / sums[p][2]
    return 1 - edge_cost(graph, labels, epsilon) / expected if expected > 1e-12 else 0.0
