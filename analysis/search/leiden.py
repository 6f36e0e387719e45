"""The Leiden algorithm (Traag, Waltman & van Eck 2019) for objectives that charge pairs of nodes by their places.

Every objective has one form, with e_c the weight of the edges inside module c, and f, g and possible pairs of places as
in `graph.expectation`:

    Q = sum_c [ e_c - sum over possible (p, q) of F_c^p G_c^q ],      F_c^p, G_c^p: sums of f and g over c at place p

Each module keeps, for each place p, the totals that a node there is charged for: A_c^p, the sum of G_c^q over the
places q after p, and B_c^p, the sum of F_c^q over the places q before. Joining node i to module c gains

    e_ic - f_i A_c^p - g_i B_c^p,

whatever the number of places; a node that moves adds to the totals of all places before and after its own. Pairs of
nodes without an edge need neither time nor memory (24 bytes an edge, and at most as much again for the first
aggregated level). The only random choice is the order in which nodes are visited first, so the same seed gives the same
labels, bit for bit.
"""

from __future__ import annotations

import numpy as np

from ..compiled import compiled
from .weights import Weights, _add, compact, contracted, value

__all__ = ["PASSES", "leiden"]

PASSES = 20

"""Most passes of one run."""


def leiden(
    graph: Weights,
    labels: np.ndarray,
    generator: np.random.Generator,
    *,
    max_size: int | None = None,
    min_size: int = 0,
    passes: int = PASSES,
) -> np.ndarray:
    """Improve labels until no pass and no move of a single node gains; Q is never lowered.

    Args:
        graph: weights and values.
        labels: the start, integers in [0, n); `np.arange(n)` for singletons.
        generator: draws the order in which nodes are visited.
        max_size: no module grows beyond it.
        passes: most passes of Leiden; the search ends earlier where one changes nothing.
        min_size: if above 0, no module shrinks below it, no new ones appear, and nodes move one by one only.
    """
    labels = labels.astype(np.int64)
    bound = int(graph.size.sum()) if max_size is None else max_size
    if min_size > 0:
        _move(graph, labels, generator, bound, smallest=min_size, thorough=True)
        return labels
    for _ in range(passes):
        before = value(graph, labels)
        labels = _descend(graph, labels, generator, bound)
        if value(graph, labels) <= before + graph.tolerance and not _move(
            graph, labels, generator, bound, thorough=True
        ):
            break
    else:
        _move(graph, labels, generator, bound, thorough=True)
    return labels


def _descend(graph: Weights, labels: np.ndarray, generator: np.random.Generator, bound: int) -> np.ndarray:
    """Run one pass of Leiden: move nodes, refine the modules, continue with the refined parts as nodes."""
    level, where = graph, np.arange(graph.n)
    of_level = labels.copy()
    while True:
        _move(level, of_level, generator, bound)
        count, of_level = compact(of_level)
        if count == level.n:
            return of_level[where]
        parts = np.arange(level.n)
        _move(level, parts, generator, bound, within=of_level)
        n_parts, parts = compact(parts)
        if n_parts == level.n:  # no part merged: the modules themselves become the nodes
            n_parts, parts = count, of_level
        coarse = np.empty(n_parts, dtype=np.int64)
        coarse[parts] = of_level
        where, of_level = parts[where], coarse
        level = contracted(level, parts, n_parts)


def _move(
    graph: Weights,
    labels: np.ndarray,
    generator: np.random.Generator,
    bound: int,
    *,
    within: np.ndarray | None = None,
    smallest: int = 0,
    thorough: bool = False,
) -> bool:
    """Move nodes one by one while that gains, `labels` in place; with `within` singletons merge inside its modules."""
    inner = np.empty(0, dtype=np.int64) if within is None else within
    moved = _moves(
        *graph.arrays,
        totals=np.zeros((graph.n, graph.slots)),
        labels=labels,
        within=inner,
        queue=generator.permutation(graph.n),
        bound=bound,
        smallest=smallest,
        thorough=thorough,
        tolerance=graph.tolerance,
    )
    return bool(moved)


@compiled
def _moves(
    start: np.ndarray,
    neighbour: np.ndarray,
    weight: np.ndarray,
    added_start: np.ndarray,
    added_slot: np.ndarray,
    added: np.ndarray,
    charged_start: np.ndarray,
    charged_slot: np.ndarray,
    charged: np.ndarray,
    size: np.ndarray,
    pin: np.ndarray,
    totals: np.ndarray,
    labels: np.ndarray,
    within: np.ndarray,
    queue: np.ndarray,
    bound: int,
    smallest: int,
    thorough: bool,
    tolerance: float,
) -> bool:
    n = len(labels)
    refine = len(within) > 0
    _add(added_start, added_slot, added, totals, labels)
    itself = np.zeros(n)  # what a node is charged for what it adds itself
    for i in range(n):
        m = added_start[i]
        for k in range(charged_start[i], charged_start[i + 1]):
            while m < added_start[i + 1] and added_slot[m] < charged_slot[k]:
                m += 1
            if m < added_start[i + 1] and added_slot[m] == charged_slot[k]:
                itself[i] += charged[k] * added[m]
    sizes = np.zeros(n, dtype=np.int64)
    count = np.zeros(n, dtype=np.int64)
    pins = np.zeros(n, dtype=np.int64)
    for i in range(n):
        sizes[labels[i]] += size[i]
        count[labels[i]] += 1
        pins[labels[i]] += pin[i]
    empty = np.empty(n, dtype=np.int64)
    n_empty = 0
    for c in range(n):
        if count[c] == 0:
            empty[n_empty] = c
            n_empty += 1
    waiting = np.ones(n, dtype=np.bool_)
    head, length = 0, n
    sums = np.zeros(n)
    near = np.empty(n, dtype=np.int64)
    moved, moved_in_sweep = False, False
    while length > 0:
        i = queue[head]
        head = head + 1 if head + 1 < n else 0
        length -= 1
        waiting[i] = False
        own = labels[i]
        if not ((refine and count[own] > 1) or sizes[own] - size[i] < smallest):
            n_near = 0
            for k in range(start[i], start[i + 1]):
                j = neighbour[k]
                if refine and within[j] != within[i]:
                    continue
                c = labels[j]
                if sums[c] == 0.0:
                    near[n_near] = c
                    n_near += 1
                sums[c] += weight[k]
            stay = sums[own] + itself[i]
            for k in range(charged_start[i], charged_start[i + 1]):
                stay -= charged[k] * totals[own, charged_slot[k]]
            best, best_gain = own, stay + tolerance
            if smallest == 0 and n_empty > 0 and count[own] > 1 and best_gain < 0.0:
                best, best_gain = empty[n_empty - 1], 0.0
            for k in range(n_near):
                c = near[k]
                # charges are never negative, so a gain is at most the weight
                if c != own and sums[c] > best_gain and sizes[c] + size[i] <= bound and pin[i] * pins[c] == 0:
                    gain = sums[c]
                    for m in range(charged_start[i], charged_start[i + 1]):
                        gain -= charged[m] * totals[c, charged_slot[m]]
                        if gain <= best_gain:
                            break
                    if gain > best_gain:
                        best, best_gain = c, gain
                sums[c] = 0.0
            sums[own] = 0.0
            if best != own:
                moved = moved_in_sweep = True
                for k in range(added_start[i], added_start[i + 1]):
                    totals[own, added_slot[k]] -= added[k]
                    totals[best, added_slot[k]] += added[k]
                if count[best] == 0:
                    n_empty -= 1
                count[own] -= 1
                count[best] += 1
                if count[own] == 0:
                    empty[n_empty] = own
                    n_empty += 1
                sizes[own] -= size[i]
                sizes[best] += size[i]
                pins[own] -= pin[i]
                pins[best] += pin[i]
                labels[i] = best
                if not refine:
                    for k in range(start[i], start[i + 1]):
                        j = neighbour[k]
                        if not waiting[j] and labels[j] != best:
                            waiting[j] = True
                            queue[head + length - n if head + length >= n else head + length] = j
                            length += 1
        if length == 0 and thorough and moved_in_sweep:
            moved_in_sweep = False
            for j in range(n):
                queue[j] = j
                waiting[j] = True
            head, length = 0, n
    return moved
