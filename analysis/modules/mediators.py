"""Mediating nodes: the nodes through which modules interact, and local moves that lower the mediator cost.

Module A acts on module B through each node v of A that feeds B, with strength w_v = sqrt(sum_{j in B} w_vj^2) (footnote
10 of the paper; strengths add in quadrature because the loss does). At loss scale epsilon it shares the fraction

    gamma_v = log(w_v / sqrt(epsilon)) / log(full strength / sqrt(epsilon))

of one degree of freedom (eq. 34; 0 below the cutoff). As a global objective the mediator cost is degenerate (modules
that are whole cuts beat the truth), so it only improves a partition found in another way, at nearly constant sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array

from ..compiled import compiled
from ..graph.cost import Epsilon, loss_scales
from ..graph.interaction_graph import InteractionGraph
from ..graph.quotient import Division
from .partition import Mediator

__all__ = ["interaction_surface", "polish_mediators", "surface_of"]

_SLACK = 0.2  # share by which the number of nodes of a module at a cut may change

_TOLERANCE = 1e-12


def interaction_surface(
    graph: InteractionGraph, labels: Sequence[Any], epsilon: Epsilon, *, full_strength: float = 1.0
) -> tuple[Mediator, ...]:
    """List every mediating node of every ordered pair of modules, by pair, the strongest first.

    Their costs sum to `graph.mediator_cost`. With a loss scale per pair of cuts strengths are divided by the
    cutoffs of their pairs before they are added, and gamma takes the mean log of them.

    Raises:
        GraphError: labels or loss scales that do not fit the graph.

    >>> graph = InteractionGraph.from_blocks([[[1.0], [0.3], [0.4]]])
    >>> (v,) = interaction_surface(graph, [np.array([0]), np.array([0, 1, 1])], 0.0025)
    >>> v.earlier, v.later, v.coordinate, round(v.strength, 12), round(v.gamma, 6)   # 0.5 / 0.05
    (0, 1, 0, 10.0, 0.768622)
    """
    return surface_of(Division(graph, labels, epsilon), full_strength)


def surface_of(division: Division, full_strength: float) -> tuple[Mediator, ...]:
    """Compute `interaction_surface` from the sums of a division."""
    unit = float(np.mean([np.log(full_strength / np.sqrt(scale)) for scale in division.scales]))
    names = division.names.tolist()
    found: list[Mediator] = []
    if not names:
        return ()
    for cut, (strengths, own) in enumerate(zip(division.carried, division.members, strict=True)):
        module = own.argmax(axis=1)
        later_of, nodes = np.nonzero((strengths > 1.0) & (own.T == 0) & (own.sum(axis=1) > 0))
        costs = np.log(strengths[later_of, nodes])
        columns = (later_of, nodes, module[nodes], strengths[later_of, nodes], costs)
        for later, node, earlier, strength, cost in zip(*(column.tolist() for column in columns), strict=True):
            gamma = cost / unit if unit > 0 else None
            found.append(Mediator(names[earlier], names[later], cut, node, strength, cost, gamma))
    return tuple(sorted(found, key=lambda v: (v.earlier, v.later, -v.strength, v.cut, v.coordinate)))


def polish_mediators(
    graph: InteractionGraph,
    labels: Sequence[Any],
    epsilon: Epsilon,
    *,
    generator: np.random.Generator,
    held: Sequence[Bool[np.ndarray, " _"]] | None = None,
    sizes: tuple[int, int] | None = None,
) -> list[Int[np.ndarray, " _"]]:
    """Lower the mediator cost by moves of single nodes, and return the labels.

    The number of nodes of each module at each cut stays within 20 % of what it was. A node i that moves from A to B
    changes its own terms, c(w_iA) - c(w_iB), and the terms towards A and B of each node that feeds it: the time for a
    gain is proportional to the degree. Nodes without a module stay without one.

    Args:
        graph: the strengths.
        labels: one int array per cut.
        epsilon: the loss scale.
        generator: draws the order in which nodes are tried.
        held: per cut which nodes do not move.
        sizes: smallest and largest number of nodes of a module in all.
    """
    division = Division(graph, labels, epsilon)
    names, members = division.names, division.members
    squares = np.concatenate([s.T**2 for s in division.carried])
    present = np.concatenate([m.sum(axis=1) > 0 for m in members])
    flat = np.searchsorted(names, np.concatenate(division.labels))
    flat[~present] = -1
    cut_of = np.repeat(np.arange(len(members)), graph.widths)
    counts = np.stack([m.sum(axis=0) for m in members]).astype(np.int64)
    lowest = np.ceil((1 - _SLACK) * counts - 1e-9).astype(np.int64)
    highest = np.floor((1 + _SLACK) * counts + 1e-9).astype(np.int64)
    bounds = np.array([1, graph.n_nodes] if sizes is None else sizes)
    feeders = _feeders(graph, epsilon)
    free = present if held is None else present & ~np.concatenate(list(held))
    moved = len(names) > 0
    while moved:
        order = generator.permutation(np.flatnonzero(free))
        moved = _sweep(*feeders, flat, squares, cut_of, counts, lowest, highest, bounds, order, _TOLERANCE)
    full = np.concatenate([names, [-1]])[flat]
    return [full[nodes] for nodes in graph.cut_slices]


def _feeders(graph: InteractionGraph, epsilon: Epsilon) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, " _"]]:
    """Return for each node those that feed it: row starts, nodes, w^2 / epsilon."""
    edges, n = graph.edge_list, graph.n_nodes
    squares = edges.weight**2 / np.array(loss_scales(graph, epsilon))[edges.pair]
    table = coo_array((squares, (edges.later, edges.earlier)), (n, n)).tocsr()
    return table.indptr.astype(np.int64), table.indices.astype(np.int64), table.data


@compiled
def _cost(square: float) -> float:
    return 0.5 * np.log(square) if square > 1.0 else 0.0


@compiled
def _sweep(
    start: np.ndarray,
    feeder: np.ndarray,
    strength: np.ndarray,
    labels: np.ndarray,
    squares: np.ndarray,
    cut_of: np.ndarray,
    sizes: np.ndarray,
    lowest: np.ndarray,
    highest: np.ndarray,
    bounds: np.ndarray,
    order: np.ndarray,
    tolerance: float,
) -> bool:
    """Move each node once to the module with the lowest mediator cost, in place; return whether any moved."""
    n_modules = squares.shape[1]
    gains = np.empty(n_modules)
    moved = False
    for i in order:
        own, cut = labels[i], cut_of[i]
        if sizes[cut, own] <= lowest[cut, own] or sizes[:, own].sum() <= bounds[0]:
            continue
        leaving = 0.0
        for k in range(start[i], start[i + 1]):
            v = feeder[k]
            if labels[v] >= 0 and labels[v] != own:
                leaving += _cost(squares[v, own]) - _cost(max(squares[v, own] - strength[k], 0.0))
        best, best_gain = own, tolerance
        for c in range(n_modules):
            if c == own or sizes[cut, c] >= highest[cut, c] or sizes[:, c].sum() >= bounds[1]:
                continue
            gains[c] = leaving + _cost(squares[i, c]) - _cost(squares[i, own])
            for k in range(start[i], start[i + 1]):
                v = feeder[k]
                if labels[v] >= 0 and labels[v] != c:
                    gains[c] -= _cost(squares[v, c] + strength[k]) - _cost(squares[v, c])
            if gains[c] > best_gain:
                best, best_gain = c, gains[c]
        if best == own:
            continue
        moved = True
        sizes[cut, own] -= 1
        sizes[cut, best] += 1
        labels[i] = best
        for k in range(start[i], start[i + 1]):
            squares[feeder[k], own] = max(squares[feeder[k], own] - strength[k], 0.0)
            squares[feeder[k], best] += strength[k]
    return moved
