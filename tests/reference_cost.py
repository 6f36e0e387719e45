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


def edge_cost(graph, labels, epsilon):
    return sum(cost(w, epsilon) for p, i, j, w in _edges(graph) if labels[p][i] != labels[p + 1][j])


def mediator_cost(graph, labels, epsilon):
    total = 0.0
    for p, block in enumerate(graph.blocks):
        for i in range(block.shape[1]):
            for module in {int(a) for a in labels[p + 1]} - {int(labels[p][i])}:
                squares = [block[j, i] ** 2 for j in range(block.shape[0]) if labels[p + 1][j] == module]
                total += cost(math.sqrt(sum(squares)), epsilon)
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


def quality(graph, labels, epsilon, objective, resolution):
    sums = [totals(graph, epsilon, p) for p in range(len(graph.blocks))]
    total = 0.0
    for p, i, j, w in _edges(graph):
        if labels[p][i] != labels[p + 1][j]:
            continue
        out, into, all_of_it = sums[p]
        expected = out[i] * into[j] / all_of_it if all_of_it else 0.0
        total += cost(w, epsilon) - resolution * (1.0 if objective == "layered_cpm" else expected)
    return total


def contrast(graph, labels, epsilon):
    sums = [totals(graph, epsilon, p) for p in range(len(graph.blocks))]
    expected = sum(
        sums[p][0][i] * sums[p][1][j] / sums[p][2]
        for p, i, j, _ in _edges(graph)
        if labels[p][i] != labels[p + 1][j] and sums[p][2]
    )
    return 1 - edge_cost(graph, labels, epsilon) / expected if expected > 1e-12 else 0.0
