"""Search for a given number of modules of bounded size with the least interaction between them (a balanced cut).

The search starts from the modules of a free search, merged or split until there are k. Then single nodes move and pairs
of nodes are exchanged (Kernighan & Lin 1970) while either gains. Kicks exchange the labels of a share of the nodes and
start again. This is a heuristic: the optimum is not guaranteed.
"""

from __future__ import annotations

import numpy as np

from ..compiled import compiled
from ..errors import GraphError
from .leiden import leiden
from .weights import Weights, compact, value

__all__ = ["check_bounds", "kway"]

_KICK, _LEAST = 0.2, 4  # share of the nodes that exchange their labels, and their least number


def check_bounds(n: int, k: int | None, min_size: int | None, max_size: int | None) -> tuple[int, int]:
    """Return the smallest and largest size of a module of n nodes in all, and check that they fit k.

    >>> check_bounds(20, 4, None, None)
    (1, 6)

    Raises:
        GraphError: bounds that contradict each other, or more modules than nodes.
    """
    smallest = 1 if min_size is None else min_size
    largest = n if max_size is None else max_size
    if k is not None and max_size is None:
        largest = max(-(-11 * n // (10 * max(k, 1))), smallest)  # 1.1 times the mean size, rounded up
    if k is not None and not 1 <= k <= n:
        raise GraphError(f"k is {k}: expected 1 to {n}, the number of nodes with an edge above the cutoff")
    if not 1 <= smallest <= largest:
        raise GraphError(f"sizes from {min_size} to {max_size}: expected 1 <= min_size <= max_size")
    if smallest > n:
        raise GraphError(f"min_size is {smallest}, but only {n} nodes have an edge above the cutoff")
    if k is not None and not k * smallest <= n <= k * largest:
        raise GraphError(f"{k} modules of {smallest} to {largest} nodes hold {k * smallest} to {k * largest}, not {n}")
    return smallest, largest


def kway(
    graph: Weights,
    start: np.ndarray,
    k: int,
    generator: np.random.Generator,
    *,
    sizes: tuple[int, int],
    kicks: int,
) -> np.ndarray:
    """Search for the labels of k modules with the largest value; `sizes` are the smallest and largest size of a module.

    Raises:
        GraphError: pinned groups leave no way to fill k modules within the sizes.
    """
    best = _polished(graph, _into_k(graph, start, k, sizes), generator, sizes)
    for _ in range(kicks):
        labels = best.copy()
        free = generator.permutation(np.flatnonzero((graph.pin == 0) & (graph.size == 1)))
        drawn = free[: max(_LEAST, int(generator.binomial(len(free), _KICK)))]
        labels[drawn] = labels[generator.permutation(drawn)]
        labels = _polished(graph, labels, generator, sizes)
        if value(graph, labels) > value(graph, best):
            best = labels
    return best


def _polished(graph: Weights, labels: np.ndarray, generator: np.random.Generator, sizes: tuple[int, int]) -> np.ndarray:
    labels = leiden(graph, labels, generator, min_size=sizes[0], max_size=sizes[1])
    while _exchange(graph.start, graph.neighbour, graph.weight, graph.size, graph.pin, labels):
        labels = leiden(graph, labels, generator, min_size=sizes[0], max_size=sizes[1])
    return labels


def _into_k(graph: Weights, start: np.ndarray, k: int, sizes: tuple[int, int]) -> np.ndarray:
    """Merge all nodes into the k largest modules of the start, the most connected first, as sizes allow."""
    count, labels = compact(start)
    amount = np.bincount(labels, graph.size, count)
    seeds = np.argsort(-amount, kind="stable")[:k]
    new = np.full(count, -1)
    new[seeds] = np.arange(len(seeds))
    labels = new[labels]
    filled = np.zeros(k)
    weight_to = np.zeros((graph.n, k))
    source = np.repeat(np.arange(graph.n), np.diff(graph.start))
    pins = np.zeros(k)
    order = np.lexsort((-np.diff(graph.start), -graph.size, -graph.pin))
    wanted, labels = labels, np.full(graph.n, -1)
    known = wanted[graph.neighbour] >= 0
    np.add.at(weight_to, (source[known], wanted[graph.neighbour[known]]), graph.weight[known])
    owed = np.full(k, float(sizes[0]))
    left = float(graph.size.sum())
    for i in order:
        size = graph.size[i]
        fits = (filled + size <= sizes[1]) & ((graph.pin[i] == 0) | (pins == 0))
        short = np.maximum(owed - filled, 0.0)
        if left - size < short.sum() - short.min():
            fits &= short > 0  # the rest of the nodes must fill every module to its smallest size
        if not fits.any():
            raise GraphError(f"the pinned groups do not fit into {k} modules of {sizes[0]} to {sizes[1]} nodes")
        choice = np.where(fits, weight_to[i] + 1e9 * (np.arange(k) == wanted[i]), -np.inf)
        into = int(np.lexsort((-filled, choice))[-1])
        labels[i] = into
        filled[into] += size
        pins[into] += graph.pin[i]
        left -= size
    if (filled < sizes[0]).any():
        raise GraphError(f"the pinned groups do not fit into {k} modules of {sizes[0]} to {sizes[1]} nodes")
    return labels


@compiled
def _exchange(
    start: np.ndarray, neighbour: np.ndarray, weight: np.ndarray, size: np.ndarray, pin: np.ndarray, labels: np.ndarray
) -> bool:
    """Exchange two free nodes of equal size while that gains, `labels` in place; return whether any did."""
    n = len(labels)
    count = labels.max() + 1
    towards = np.zeros((n, count))
    for i in range(n):
        for m in range(start[i], start[i + 1]):
            towards[i, labels[neighbour[m]]] += weight[m]
    between = np.zeros(n)
    any_gain = False
    for i in range(n):
        if pin[i] > 0:
            continue
        a = labels[i]
        for m in range(start[i], start[i + 1]):
            between[neighbour[m]] = weight[m]
        best, best_gain = -1, 1e-9
        for j in range(n):
            b = labels[j]
            if b != a and pin[j] == 0 and size[j] == size[i]:
                gain = towards[i, b] - towards[i, a] + towards[j, a] - towards[j, b] - 2.0 * between[j]
                if gain > best_gain:
                    best, best_gain = j, gain
        for m in range(start[i], start[i + 1]):
            between[neighbour[m]] = 0.0
        if best < 0:
            continue
        any_gain = True
        b = labels[best]
        for m in range(start[i], start[i + 1]):
            towards[neighbour[m], a] -= weight[m]
            towards[neighbour[m], b] += weight[m]
        for m in range(start[best], start[best + 1]):
            towards[neighbour[m], b] -= weight[m]
            towards[neighbour[m], a] += weight[m]
        labels[i], labels[best] = b, a
    return any_gain
