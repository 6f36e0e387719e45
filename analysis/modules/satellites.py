"""Join satellites, modules that are not separated from the rest by more than chance, to other modules."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from ..edges import Edges, summed
from ..search.local_search import Search
from .beyond_chains import BeyondChains

__all__ = ["join_satellites", "join_small"]

_SEPARATED = 2.0

_SEPARATED_BEYOND = 1.0  # beyond chains


def join_satellites(
    search: Search, labels: Int[np.ndarray, " n"], beyond: BeyondChains | None = None
) -> Int[np.ndarray, " n"]:
    """Join modules until every module is separated from the rest by more than chance; labels are 0, 1, ...

    With `beyond` the modules must also be separated beyond chains and skip paths, unless fewer than two are.
    """
    joined = _separated(search, labels, search.costs, _SEPARATED)
    if beyond is None or not len(beyond.costs):
        return joined
    apart = _separated(search, joined, beyond.costs, _SEPARATED_BEYOND)
    return apart if apart.any() else joined


def _separated(search: Search, labels: np.ndarray, costs: Edges, least: float) -> Int[np.ndarray, " n"]:
    scale = float((costs.weight**2).sum()) / costs.total
    return _joined(search, labels, costs, lambda sums, chance, sizes: least - _separation(sums, chance, scale))


def join_small(search: Search, labels: Int[np.ndarray, " n"], min_size: int) -> Int[np.ndarray, " n"]:
    """Join modules until none is smaller than min_size; labels are 0, 1, ...

    A module that can join no other, since pins keep them apart or max_size does, takes nodes of larger modules instead.
    """
    return _filled(search, _joined(search, labels, search.costs, lambda _, __, sizes: min_size - sizes), min_size)


def _filled(search: Search, labels: np.ndarray, min_size: int) -> Int[np.ndarray, " n"]:
    """Move nodes without a pin into modules smaller than min_size: first those that exchange most with them."""
    free, sizes = search.pinned[search.groups] == 0, np.bincount(labels)
    while sizes.min() < min_size:
        small = int(sizes.argmin())
        inside, exchanged = (labels == small).astype(np.float64), np.zeros(search.n)
        edges = search.squares
        for here, there in ((edges.earlier, edges.later), (edges.later, edges.earlier)):
            exchanged += summed(here, edges.weight * inside[there], search.n)
        movable = free & (labels != small) & (sizes[labels] > min_size)
        if not movable.any():
            break
        node = int(np.where(movable, exchanged, -1.0).argmax())
        sizes[[labels[node], small]] += (-1, 1)
        labels = labels.copy()
        labels[node] = small
    return labels


def _joined(
    search: Search,
    labels: np.ndarray,
    costs: Edges,
    need: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> Int[np.ndarray, " n"]:
    """Join the module with the largest need above 0 to that with which it exchanges most, until there is none.

    need: function of the costs by (later module, earlier module), of those expected by chance, and of the sizes.
    """
    names, labels = np.unique(labels, return_inverse=True)
    sums, exchanged = search.between(costs, labels), search.between(search.squares, labels)
    chance = search.expected(costs, labels)
    sizes = np.bincount(labels)
    pinned = np.bincount(labels, search.pinned[search.groups] > 0) > 0
    alive = np.arange(len(names))
    stuck = np.zeros(len(names), dtype=bool)  # modules that cannot join another one
    while len(alive) > 1:
        wanted = np.where(stuck, 0.0, need(sums, chance, sizes))
        satellite = int(wanted.argmax())
        traffic = exchanged[satellite] + exchanged[:, satellite]
        apart = pinned & pinned[satellite] | (sizes + sizes[satellite] > search.max_size)
        traffic[apart | (np.arange(len(alive)) == satellite)] = -1.0
        if wanted[satellite] <= 0:
            break
        if traffic.max() < 0:
            stuck[satellite] = True
            continue
        into = int(np.lexsort((sizes, traffic))[-1])
        labels = np.where(labels == alive[satellite], alive[into], labels)
        sizes[into] += sizes[satellite]
        pinned[into] |= pinned[satellite]
        keep = np.delete(np.arange(len(alive)), satellite)
        for matrix in (sums, chance, exchanged):
            matrix[into] += matrix[satellite]
            matrix[:, into] += matrix[:, satellite]
        sums, chance, exchanged = (matrix[keep][:, keep] for matrix in (sums, chance, exchanged))
        sizes, alive, stuck, pinned = sizes[keep], alive[keep], stuck[keep], pinned[keep]
    return np.unique(labels, return_inverse=True)[1]


def _separation(sums: np.ndarray, chance: np.ndarray, scale: float) -> np.ndarray:
    """Compute per module (mu - e) / sqrt(mu scale): by how much it interacts less with the rest than by chance."""
    actual, expected = (matrix.sum(0) + matrix.sum(1) - 2 * np.diag(matrix) for matrix in (sums, chance))
    return np.asarray((expected - actual) / np.sqrt(np.maximum(expected, 1e-300) * scale))
