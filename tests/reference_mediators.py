"""Costs and allowed moves on graphs whose edges may skip cuts, by plain loops: slow, and obviously the formulas."""

from __future__ import annotations

import math


def scales(graph, epsilon):
    return list(epsilon) if isinstance(epsilon, list | tuple) else [epsilon] * len(graph.blocks)


def edge_cost(graph, labels, epsilon):
    total = 0.0
    for (a, b), block, scale in zip(graph.pairs, graph.blocks, scales(graph, epsilon), strict=True):
        for j, row in enumerate(block.tolist()):
            for i, w in enumerate(row):
                if labels[a][i] != labels[b][j] and w > math.sqrt(scale):
                    total += math.log(w / math.sqrt(scale))
    return total


def mediators(graph, labels, epsilon):
    """Per (module, fed module, cut, node) the strength in units of the cutoff, where above 1."""
    squares = {}
    for (a, b), block, scale in zip(graph.pairs, graph.blocks, scales(graph, epsilon), strict=True):
        for j, row in enumerate(block.tolist()):
            for i, w in enumerate(row):
                earlier, later = int(labels[a][i]), int(labels[b][j])
                if earlier >= 0 and later >= 0 and earlier != later:
                    key = earlier, later, a, i
                    squares[key] = squares.get(key, 0.0) + w * w / scale
    return {key: math.sqrt(square) for key, square in squares.items() if square > 1}


def mediator_cost(graph, labels, epsilon):
    return sum(math.log(strength) for strength in mediators(graph, labels, epsilon).values())


def single_moves(before, labels, slack=0.2):
    """Labels after each move of one node that leaves every module at every cut within the slack of its size before."""
    names = sorted({int(label) for cut in before for label in cut} - {-1})
    for cut, (old, now) in enumerate(zip(before, labels, strict=True)):
        for i, own in enumerate(now.tolist()):
            for new in names:
                moved = [a.copy() for a in labels]
                moved[cut][i] = new
                if own in (-1, new):
                    continue
                if all(within(old, moved[cut], name, slack) for name in names):
                    yield moved


def within(before, after, name, slack):
    size = int((before == name).sum())
    return abs(int((after == name).sum()) - size) <= slack * size + 1e-9
