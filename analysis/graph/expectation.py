"""The costs that chance would give: every node keeps its totals, over all pairs of cuts at once.

A node of an earlier cut may interact with one of a later cut if the graph has edges between the two cuts and, where
nodes have positions, the later node is not at an earlier position. Of all costs on these possible edges with the node
totals of the graph, those of largest entropy are

    E[x_ij] = f_i g_j    on possible edges,    sum_j E[x_ij] = out_i,    sum_i E[x_ij] = in_j,

out_i and in_j the totals of the node's costs to later and from earlier cuts. Nodes of one cut and position, a place,
have the same possible partners, so f_i = out_i a(place of i) and g_j = in_j b(place of j); a and b follow by alternate
scaling of places (Sinkhorn & Knopp 1967). Between two cuts alone E[x_ij] = k_i k_j / m, and so it is, pair by pair, in
a graph without edges that skip cuts. Where edges skip, one pair has few of a node's edges: totals kept in each pair
would leave hardly any freedom, and modules would look like chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from ..results import by_value
from .interaction_graph import InteractionGraph

__all__ = ["Places", "Side", "expected_between", "expected_sides", "node_totals", "places_of", "possible_sides"]

_ROUNDS = 1000

_EXACT = 1e-10


@by_value
@dataclass(frozen=True)
class Side:
    """One term price A_i B_j of the expected costs; the values of all nodes, flat, cut after cut, on its two sides."""

    earlier: Float[np.ndarray, " n"]
    later: Float[np.ndarray, " n"]
    price: float


@by_value
@dataclass(frozen=True)
class Places:
    """Which nodes may interact.

    Attributes:
        cuts: the range of each cut's nodes when all nodes are numbered cut after cut.
        links: indices (earlier, later) of the cuts of each pair with edges.
        positions: of all nodes; None where they have none.
    """

    cuts: tuple[slice, ...]
    links: tuple[tuple[int, int], ...]
    positions: Int[np.ndarray, " n"] | None = None

    @property
    def n(self) -> int:
        """The number of nodes."""
        return int(self.cuts[-1].stop)

    @property
    def pairs(self) -> tuple[tuple[slice, slice], ...]:
        """The ranges of the nodes of the earlier and the later cut of each pair."""
        return tuple((self.cuts[a], self.cuts[b]) for a, b in self.links)

    @property
    def joint(self) -> bool:
        """Whether totals are those of several pairs: edges skip cuts, or nodes have positions."""
        return self.positions is not None or self.links != tuple(pairwise(range(len(self.cuts))))

    def among(self, kept: Sequence[np.ndarray]) -> Places:
        """Return the places of some nodes, those where the mask of their cut is true."""
        ends = np.cumsum([0, *(int(own.sum()) for own in kept)]).tolist()
        positions = None if self.positions is None else self.positions[np.concatenate(kept)]
        return Places(tuple(slice(a, b) for a, b in pairwise(ends)), self.links, positions)


def places_of(graph: InteractionGraph) -> Places:
    """Return which nodes of a graph may interact."""
    return Places(graph.cut_slices, graph.pairs, graph.positions)


def expected_sides(costs: Sequence[Float[np.ndarray, "_ _"]], places: Places) -> list[Side]:
    """Compute the costs expected by chance, E[x_ij] = sum of price A_i B_j over sides; see the head of this module.

    Args:
        costs: per pair of cuts, (later, earlier).
        places: which nodes may interact.

    >>> places = Places((slice(0, 2), slice(2, 4)), ((0, 1),))
    >>> (side,) = expected_sides([np.diag([1.0, 3.0])], places)
    >>> (side.price * np.outer(side.later, side.earlier))[2:, :2].tolist()
    [[0.25, 0.75], [0.75, 2.25]]
    """
    sides = []
    if not places.joint:
        for x, (a, b) in zip(costs, places.pairs, strict=True):
            if x.any():
                earlier, later = np.zeros(places.n), np.zeros(places.n)
                earlier[a], later[b] = x.sum(0), x.sum(1)
                sides.append(Side(earlier, later, 1.0 / float(x.sum())))
        return sides
    out, into = node_totals(costs, places)
    cell, possible = _cells(places)
    sums = [np.bincount(cell, total, minlength=len(possible)) for total in (out, into)]
    of_earlier, of_later = _scaled(possible, *sums)
    out, into = out * of_earlier[cell], into * of_later[cell]
    for c in np.flatnonzero(np.bincount(cell, out, minlength=len(possible))).tolist():
        sides.append(Side(np.where(cell == c, out, 0.0), np.where(possible[c][cell], into, 0.0), 1.0))
    return sides


def node_totals(
    costs: Sequence[Float[np.ndarray, "_ _"]], places: Places
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Sum the costs of each node to later cuts, and from earlier ones."""
    out, into = np.zeros(places.n), np.zeros(places.n)
    for x, (a, b) in zip(costs, places.pairs, strict=True):
        out[a] += x.sum(0)
        into[b] += x.sum(1)
    return out, into


def possible_sides(places: Places) -> list[Side]:
    """Return sides whose sum of A_i B_j is 1 for each possible edge, 0 for others."""
    sides = []
    if places.positions is None:
        for a, b in places.pairs:
            earlier, later = np.zeros(places.n), np.zeros(places.n)
            earlier[a] = later[b] = 1.0
            sides.append(Side(earlier, later, 1.0))
        return sides
    cell, possible = _cells(places)
    return [
        Side((cell == c).astype(np.float64), possible[c][cell].astype(np.float64), 1.0)
        for c in np.flatnonzero(possible.any(1)).tolist()
    ]


def expected_between(sides: Sequence[Side], labels: Int[np.ndarray, " n"], count: int) -> Float[np.ndarray, "c c"]:
    """Sum the costs expected by chance by (later module, earlier module); labels are 0, 1, ... or -1 for none."""
    members = (labels[:, None] == np.arange(count)).astype(np.float64)
    earlier = np.stack([side.price * side.earlier for side in sides] or [np.zeros(len(labels))]) @ members
    later = np.stack([side.later for side in sides] or [np.zeros(len(labels))]) @ members
    return np.asarray(later.T @ earlier)


def _cells(places: Places) -> tuple[Int[np.ndarray, " n"], np.ndarray]:
    """Number the places, cut and position, and return that of each node, and which may interact, (earlier, later)."""
    cut = np.concatenate([np.full(own.stop - own.start, c) for c, own in enumerate(places.cuts)])
    where = np.zeros(places.n, dtype=np.int64) if places.positions is None else places.positions
    found, cell = np.unique(np.stack([cut, where]), axis=1, return_inverse=True)
    linked = np.zeros((len(places.cuts),) * 2, dtype=bool)
    for a, b in places.links:
        linked[a, b] = True
    return cell.ravel(), linked[found[0][:, None], found[0]] & (found[1][:, None] <= found[1])


def _scaled(possible: np.ndarray, out: np.ndarray, into: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find a and b with a sum_q possible_pq into_q b_q = 1 and b sum_p possible_pq out_p a_p = 1.

    The totals of a real graph have a solution: its own costs are one of the ways to fill them.
    """
    matrix = possible.astype(np.float64)
    b = np.ones(len(into))
    a = b
    for _ in range(_ROUNDS):
        reached = matrix @ (into * b)
        a = np.divide(1.0, reached, out=np.zeros_like(reached), where=(reached > 0) & (out > 0))
        reached = matrix.T @ (out * a)
        new = np.divide(1.0, reached, out=np.zeros_like(reached), where=(reached > 0) & (into > 0))
        change = np.abs(new - b).max(initial=0.0)
        b = new
        if change <= _EXACT * b.max(initial=0.0):
            break
    return a, b
