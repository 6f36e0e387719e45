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

The charges of all objectives have this form, f_i g_j on possible pairs of places, see `search.objectives`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from ..edges import Edges, summed
from ..errors import GraphError
from ..results import by_value
from .interaction_graph import InteractionGraph

__all__ = ["Expected", "Places", "expected_costs", "places_of", "possible_edges"]

_ROUNDS = 1000

_EXACT = 1e-10

_MOST = 50_000_000  # nodes times places: the search keeps 16 bytes for each


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
        return self.positions is not None or sorted(self.links) != list(pairwise(range(len(self.cuts))))

    @cached_property
    def cells(self) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, "places places"]]:
        """The place of each node, a cut and a position, numbered; and which places may interact, (earlier, later)."""
        cut = np.concatenate([np.full(own.stop - own.start, c) for c, own in enumerate(self.cuts)])
        where = np.zeros(self.n, dtype=np.int64) if self.positions is None else self.positions
        found, cell = np.unique(np.stack([cut, where]), axis=1, return_inverse=True)
        count = found.shape[1]
        if count * self.n > _MOST:
            raise GraphError(
                f"{self.n:,} nodes stand at {count:,} places, pairs of layer and position: expected a product of at "
                f"most {_MOST:,}; leave positions or nodes out, for example by influence (keep)"
            )
        linked = np.zeros((len(self.cuts),) * 2, dtype=bool)
        for a, b in self.links:
            linked[a, b] = True
        return cell.ravel(), linked[found[0][:, None], found[0]] & (found[1][:, None] <= found[1])

    def among(self, kept: Sequence[np.ndarray]) -> Places:
        """Return the places of some nodes, those where the mask of their cut is true."""
        ends = np.cumsum([0, *(int(own.sum()) for own in kept)]).tolist()
        positions = None if self.positions is None else self.positions[np.concatenate(kept)]
        return Places(tuple(slice(a, b) for a, b in pairwise(ends)), self.links, positions)


@by_value
@dataclass(frozen=True)
class Expected:
    """Expected costs f_i g_j of all possible edges, nodes numbered cut after cut.

    Attributes:
        earlier, later: f and g of each node, for edges to later and from earlier nodes.
        place: the place of each node.
        possible: whether nodes of a place may have edges to those of another, (earlier, later).
    """

    earlier: Float[np.ndarray, " n"]
    later: Float[np.ndarray, " n"]
    place: Int[np.ndarray, " n"]
    possible: Bool[np.ndarray, "places places"]

    def between(self, labels: Int[np.ndarray, " n"], count: int) -> Float[np.ndarray, "later earlier"]:
        """Sum by (later label, earlier label); labels are 0, 1, ..., or -1 for nodes that do not count."""
        earlier, later = (self._by_place(values, labels, count) for values in (self.earlier, self.later))
        return np.asarray(later.T @ (self.possible.T.astype(np.float64) @ earlier))

    def inside(self, labels: Int[np.ndarray, " n"], count: int) -> float:
        """Sum over the edges inside of labels."""
        earlier, later = (self._by_place(values, labels, count) for values in (self.earlier, self.later))
        return float((earlier * (self.possible.astype(np.float64) @ later)).sum())

    def towards(self, i: int) -> Float[np.ndarray, " n"]:
        """Return the expected costs between node i and each node, in both directions."""
        here = self.place[i]
        after, before = self.possible[here][self.place], self.possible[:, here][self.place]
        return np.asarray(self.earlier[i] * self.later * after + self.later[i] * self.earlier * before)

    def _by_place(self, values: np.ndarray, labels: np.ndarray, count: int) -> Float[np.ndarray, "places count"]:
        known = labels >= 0
        code, places = self.place[known] * count + labels[known], len(self.possible)
        return summed(code, values[known], places * count).reshape(places, count)


def places_of(graph: InteractionGraph) -> Places:
    """Return which nodes of a graph may interact."""
    return Places(graph.cut_slices, graph.pairs, graph.positions)


def expected_costs(costs: Edges, places: Places) -> Expected:
    """Compute the costs expected by chance; see the head of this module.

    >>> places = Places((slice(0, 2), slice(2, 4)), ((0, 1),))
    >>> found = expected_costs(Edges.of([np.diag([1.0, 3.0])], places.pairs), places)
    >>> found.between(np.arange(4), 4)[2:, :2].tolist()
    [[0.25, 0.75], [0.75, 2.25]]
    """
    out, into = costs.totals(places.n)
    cell, possible = places.cells
    sums = [summed(cell, total, len(possible)) for total in (out, into)]
    of_earlier, of_later = _scaled(possible, *sums)
    return Expected(out * of_earlier[cell], into * of_later[cell], cell, possible)


def possible_edges(places: Places) -> Expected:
    """Return 1 for each possible edge, 0 for others."""
    cell, possible = places.cells
    return Expected(np.ones(places.n), np.ones(places.n), cell, possible)


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
