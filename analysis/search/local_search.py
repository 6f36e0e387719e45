"""Search for the partition with the best value of an objective, on the nodes with an edge above the cutoff.

Iterated local search on top of the Leiden kernel: independent runs first, then runs that start from the best
labels so far after a kick (a share of the nodes gets other labels, or becomes modules of one node). The best labels
are kept. On planted graphs (6,000 to 10,000 edges, hubs, bridges, 25 modules, noise) independent runs alone
missed up to 3 % of the value where modules are hard to find, and kicks alone got stuck where there are hubs; both
together were equal to or better than the best of 10 leidenalg runs (benchmarks/partition.md), in less time than one.

Backend "leidenalg" optimises the same objective as a multiplex: the reference of the tests, 30 times slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array, hstack

from ..compiled import compiled
from ..edges import Edges
from ..errors import GraphError
from ..graph.cost import Epsilon, edge_costs, has_edge
from ..graph.expectation import Expected, expected_costs, places_of
from ..graph.interaction_graph import InteractionGraph
from ..graph.quotient import contrast_of
from ..results import by_value
from .kway import check_bounds, kway
from .leiden import PASSES, leiden
from .objectives import checked_resolution, find_objective
from .weights import Weights, compact, contracted, value

__all__ = ["BACKENDS", "Effort", "Found", "Search"]

BACKENDS = ("leiden", "leidenalg")

_KICKS = ((0.3, False), (0.6, True), (0.1, False))  # (share of the nodes, whether they become singletons)

_MANY = 50_000  # edges from which on a search is worth a thread of its own

_LEIDENALG_ITERATIONS = 5  # "until nothing changes" can loop for ever on rounding errors


@dataclass(frozen=True)
class Effort:
    """The effort of a search.

    Attributes:
        restarts: number of independent runs.
        kicks: number of runs from a kicked best partition.
        passes: most passes of each run, see `leiden`.
    """

    restarts: int = 8
    kicks: int = 12
    passes: int = PASSES

    def __post_init__(self) -> None:
        if self.restarts < 1 or self.kicks < 0 or self.passes < 1:
            raise GraphError(f"{self}: expected at least one restart and pass, and no negative number of kicks")


@by_value
@dataclass(frozen=True)
class Found:
    """The result of a search: the best value, its labels, and the labels where each independent run ended."""

    value: float
    labels: np.ndarray
    runs: tuple[np.ndarray, ...]


class Search:
    """A search on the nodes that have an edge above the cutoff; flat labels number them cut after cut.

    Attributes:
        strong: per cut which nodes have such an edge.
        costs: c(w) of the edges between them.
        places: which nodes may interact.
        cuts: where each cut's nodes are; `pairs` the same for the two cuts of each pair.
    """

    def __init__(self, graph: InteractionGraph, epsilon: Epsilon) -> None:
        self.strong = has_edge(graph, epsilon)
        self._graph = graph
        self.costs = self.kept(edge_costs(graph, epsilon))
        self.places = places_of(graph).among(self.strong)
        self.cuts, self.pairs = self.places.cuts, self.places.pairs
        self.n = self.places.n
        self.groups = np.arange(self.n)  # nodes pinned together are one node for the search
        self.pinned = np.zeros(self.n, dtype=np.int64)
        self.k: int | None = None
        self.min_size, self.max_size = 1, self.n

    @cached_property
    def squares(self) -> Edges:
        """All edges between the nodes kept, weighing w^2."""
        edges = self.kept(self._graph.edge_list)
        return replace(edges, weight=edges.weight**2)

    def kept(self, edges: Edges) -> Edges:
        """Leave out the nodes without an edge above the cutoff."""
        return edges.among(np.concatenate(self.strong))

    @property
    def threads(self) -> int:
        """How many such graphs are searched at once: as many as torch may use threads, one where they are small."""
        return torch.get_num_threads() if len(self.costs) >= _MANY else 1

    def constrain(
        self,
        *,
        k: int | None = None,
        min_size: int | None = None,
        max_size: int | None = None,
        pins: Sequence[Any] | None = None,
    ) -> None:
        """Bound the modules: their number (objective kway), their sizes, and nodes that stay together or apart.

        Raises:
            GraphError: bounds that contradict each other, or pins that are not one label per node.
        """
        self.k = k
        self.min_size, self.max_size = check_bounds(self.n, k, min_size, max_size)
        if pins is None:
            return
        labels = self.flat(pins, "pins")
        named = labels >= 0
        first = np.unique(labels, return_index=True, return_inverse=True)
        group = np.where(named, first[1][first[2]], np.arange(self.n))
        self.groups = np.unique(group, return_inverse=True)[1]
        self.pinned = np.zeros(int(self.groups.max()) + 1, dtype=np.int64)
        self.pinned[self.groups[named]] = 1
        largest = int(np.bincount(self.groups).max())
        if largest > self.max_size:
            raise GraphError(f"{largest} nodes are pinned together: more than max_size = {self.max_size} allows")
        if k is not None and self.pinned.sum() > k:
            raise GraphError(f"{self.pinned.sum()} pinned groups have to be apart: more than k = {k} modules")

    @property
    def constrained(self) -> bool:
        """Whether a single module is or may be excluded."""
        return self.k is not None or self.max_size < self.n or int(self.pinned.sum()) > 1

    def flat(self, labels: Sequence[Any], name: str) -> np.ndarray:
        """Convert labels per cut to flat labels, without the nodes that have no edge.

        Raises:
            GraphError: the labels are not one integer >= -1 per node.
        """
        try:
            arrays = [np.asarray(a) for a in labels]
        except (TypeError, ValueError):
            raise GraphError(f"{name}: expected one array of integers per cut") from None
        shapes, expected = [a.shape for a in arrays], [a.shape for a in self.strong]
        if shapes != expected or not all(np.issubdtype(a.dtype, np.integer) for a in arrays):
            raise GraphError(f"{name}: got arrays of shapes {shapes}, expected integers per cut, shapes {expected}")
        flat = np.concatenate([a[strong] for a, strong in zip(arrays, self.strong, strict=True)]).astype(np.int64)
        if flat.min() < -1:
            raise GraphError(f"{name}: the smallest label is {flat.min()}, expected -1 (free) or more")
        return flat

    def wired(self, costs: Edges) -> Weights:
        """Build the graph of these costs, without charges yet."""
        degree = sum(np.bincount(ends, minlength=self.n) for ends in (costs.earlier, costs.later))
        start = np.concatenate([[0], np.cumsum(degree)])
        neighbour, weight = np.empty(start[-1], dtype=np.int32), np.empty(start[-1])
        _fill(costs.earlier, costs.later, costs.weight, start[:-1].copy(), neighbour, weight)
        none = np.zeros(self.n + 1, dtype=np.int64)
        empty = none, np.empty(0, dtype=np.int32), np.empty(0)
        ones = np.ones(self.n, dtype=np.int64)
        return Weights(start, neighbour, weight, *empty, *empty, size=ones, pin=np.zeros_like(ones))

    def charged(self, wired: Weights, costs: Edges, objective: str) -> Weights:
        """Build the graph with the charges of an objective at resolution 1; pinned groups are single nodes."""
        graph = replace(wired, **_charges(find_objective(objective).charges(costs, self.places)))
        if len(self.pinned) == self.n:
            return replace(graph, pin=self.pinned)
        return replace(contracted(graph, self.groups, int(self.groups.max()) + 1), pin=self.pinned)

    def priced(self, wired: Weights, costs: Edges, objective: str, resolution: float) -> Weights:
        """Build the graph with the charges of an objective at a resolution."""
        return _at(self.charged(wired, costs, objective), resolution)

    def best(
        self,
        wired: Weights,
        costs: Edges,
        objective: str,
        resolution: float,
        *,
        generator: np.random.Generator,
        effort: Effort,
        backend: str = "leiden",
        start: np.ndarray | None = None,
        charged: Weights | None = None,
    ) -> Found:
        """Search for the best labels; a single module and the start are among the candidates.

        Args:
            wired: the graph of the costs, see `wired`.
            costs: the costs.
            objective: name of what is maximised.
            resolution: its resolution.
            generator: generator of the search.
            effort: number of runs and kicks.
            backend: "leiden" or "leidenalg".
            start: labels to start from, too.
            charged: result of `charged`, which is the same at all resolutions; None to compute it.

        Raises:
            GraphError: an unknown backend or objective, or an option that leidenalg does not have.
        """
        if backend not in BACKENDS:
            raise GraphError(f"unknown backend {backend!r}: expected one of {', '.join(BACKENDS)}")
        if find_objective(objective).fixed:
            if backend == "leidenalg":
                raise GraphError("backend 'leidenalg' has no objective 'kway': use 'leiden'")
            return self._kway(wired, costs, objective, generator=generator, effort=effort, start=start)
        graph = _at(self.charged(wired, costs, objective) if charged is None else charged, resolution)
        found = np.arange(graph.n) if self.constrained else np.zeros(graph.n, dtype=np.int64)
        best = value(graph, found), found
        runs: list[np.ndarray] = [np.arange(graph.n)] * effort.restarts
        if start is not None:
            first = self._start(graph, start)
            best = _better(graph, best, first)
            runs = [first, *runs] if backend == "leiden" else runs
        ends = []
        for labels in runs:
            if backend == "leidenalg":
                labels = self._leidenalg(costs, objective, resolution, int(generator.integers(2**31)))
            else:
                labels = leiden(graph, labels, generator, max_size=self.max_size, passes=effort.passes)
            ends.append(labels[self.groups])
            best = _better(graph, best, labels)
        for k in range(effort.kicks if backend == "leiden" else 0):
            share, alone = _KICKS[k % len(_KICKS)]
            kicked = _kicked(graph, best[1], generator, share, alone or self.max_size < self.n)
            labels = leiden(graph, kicked, generator, max_size=self.max_size, passes=effort.passes)
            best = _better(graph, best, labels)
        return Found(best[0], best[1][self.groups], tuple(ends[len(runs) - effort.restarts :]))

    def _kway(
        self,
        wired: Weights,
        costs: Edges,
        objective: str,
        *,
        generator: np.random.Generator,
        effort: Effort,
        start: np.ndarray | None,
    ) -> Found:
        if self.k is None:
            raise GraphError("objective 'kway' needs k, the number of modules")
        graph = self.priced(wired, costs, objective, 0.0)
        free = self.priced(wired, costs, "layered_modularity", 1.0)
        options: dict[str, Any] = {"sizes": (self.min_size, self.max_size), "kicks": effort.kicks}
        runs = [] if start is None else [self._start(graph, start)]
        for run in range(effort.restarts):  # from the modules of a free search, and from random labels
            start = np.arange(free.n) if run % 2 == 0 else generator.integers(self.k, size=free.n)
            runs.append(leiden(free, start, generator, max_size=self.max_size) if run % 2 == 0 else start)
        found = [kway(graph, labels, self.k, generator, **options) for labels in runs]
        best = max(((value(graph, labels), labels) for labels in found), key=lambda candidate: candidate[0])
        ends = tuple(labels[self.groups] for labels in found[len(runs) - effort.restarts :])
        return Found(best[0], best[1][self.groups], ends)

    def _start(self, graph: Weights, labels: np.ndarray) -> np.ndarray:
        """Return the start labels for the groups of pinned nodes."""
        grouped = np.empty(graph.n, dtype=np.int64)
        grouped[self.groups] = np.unique(labels, return_inverse=True)[1]
        if np.bincount(grouped, graph.size).max() > self.max_size or np.bincount(grouped, graph.pin).max() > 1:
            raise GraphError("the start breaks a bound: a module is larger than max_size, or holds two pinned groups")
        return grouped

    def _leidenalg(self, costs: Edges, objective: str, resolution: float, seed: int) -> np.ndarray:
        if self.max_size < self.n or self.pinned.any():
            raise GraphError("backend 'leidenalg' supports neither pins nor sizes: leave them out, or use 'leiden'")
        if objective == "layered_modularity" and self.places.joint:
            raise GraphError(
                "backend 'leidenalg' cannot keep totals over several pairs of cuts, where edges skip cuts: use 'leiden'"
            )
        from .leidenalg_backend import leidenalg_labels

        return leidenalg_labels(
            costs, self.pairs, self.n, objective, resolution, seed=seed, iterations=_LEIDENALG_ITERATIONS
        )

    def begin(self, start: Sequence[Any]) -> np.ndarray:
        """Convert start labels per cut to flat ones; each -1 becomes a module of its own.

        Raises:
            GraphError: see `flat`.
        """
        labels = self.flat(start, "start")
        return np.where(labels >= 0, labels, labels.max() + 1 + np.arange(self.n))

    def between(self, edges: Edges, labels: np.ndarray) -> np.ndarray:
        """Sum costs by (later module, earlier module); labels are 0, 1, ..."""
        return edges.between(labels, int(labels.max()) + 1)

    def expectations(self, labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the sums of costs, and of those expected, once for all pairs of cuts that share totals."""
        if self.places.joint:
            return [(self.between(self.costs, labels), self.expected(self.costs, labels))]
        parts = (self.costs.where(self.costs.pair == p) for p in range(len(self.pairs)))
        sums = [self.between(edges, labels) for edges in parts]
        return [(x, np.outer(x.sum(1), x.sum(0)) / max(float(x.sum()), 1e-300)) for x in sums]

    def expected(self, costs: Edges, labels: np.ndarray) -> np.ndarray:
        """Sum the costs that chance gives nodes of these totals by (later module, earlier module)."""
        return expected_costs(costs, self.places).between(labels, int(labels.max()) + 1)

    def contrast(self, costs: Edges, labels: np.ndarray) -> float:
        """Compute by how much less modules interact than by chance, see `graph.contrast`."""
        return contrast_of(self.between(costs, labels), self.expected(costs, labels))

    def per_cut(self, labels: np.ndarray) -> list[np.ndarray]:
        """Convert flat labels to labels per cut, -1 for nodes without an edge."""
        return self.spread(labels, -1)

    def spread(self, values: np.ndarray, missing: int = 0) -> list[np.ndarray]:
        """Convert flat values to arrays per cut, with a given value for nodes without an edge."""
        result = [np.full(len(a), missing, dtype=values.dtype) for a in self.strong]
        for full, strong, part in zip(result, self.strong, self.cuts, strict=True):
            full[strong] = values[part]
        return result


def _better(graph: Weights, best: tuple[float, np.ndarray], labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the labels if their value is larger, or, up to rounding, the same with no more modules; else the best."""
    found = value(graph, labels)
    gain = found - best[0]
    few = abs(gain) <= graph.tolerance and len(np.unique(labels)) <= len(np.unique(best[1]))
    return (found, labels) if few or gain > graph.tolerance else best


def _kicked(
    graph: Weights, labels: np.ndarray, generator: np.random.Generator, share: float, alone: bool
) -> np.ndarray:
    """Give a random share of the nodes other labels, or make each of them a module of its own."""
    count, kicked = compact(labels)
    drawn = np.flatnonzero(generator.random(graph.n) < share)
    drawn = drawn[graph.pin[drawn] == 0]
    if alone:
        drawn = generator.permutation(drawn)[: graph.n - count]
        kicked[drawn] = np.arange(count, count + len(drawn))
    else:
        kicked[drawn] = generator.integers(count, size=len(drawn))
    return kicked


def _at(charged: Weights, resolution: float) -> Weights:
    return replace(charged, charged=checked_resolution(resolution) * charged.charged)


def _charges(charges: Expected) -> dict[str, Any]:
    """Build the rows of what nodes add to totals, and of what they are charged for them at resolution 1.

    Slot p is the total of g over the places after place p, slot P + p that of f over the places before it; slots that
    no node adds to, or none is charged for, are left out.
    """
    possible = csr_array(charges.possible.astype(np.float64))
    node, places = np.arange(len(charges.place)), len(charges.possible)
    f, g = (diags_array(values).tocsr() for values in (charges.earlier, charges.later))
    here = csr_array((np.ones(len(node)), (node, charges.place)), shape=(len(node), places))
    added = hstack([g @ here @ possible.T, f @ here @ possible], format="csr")
    charged = hstack([f @ here, g @ here], format="csr")
    for rows in (added, charged):
        rows.eliminate_zeros()
    used = np.flatnonzero((added.count_nonzero(axis=0) > 0) & (charged.count_nonzero(axis=0) > 0))
    found: dict[str, Any] = {"slots": len(used)}
    for name, rows in (("added", added[:, used]), ("charged", charged[:, used])):
        rows.sort_indices()
        found[f"{name}_start"] = rows.indptr.astype(np.int64)
        found[f"{name}_slot"], found[name] = rows.indices.astype(np.int32), rows.data
    return found


@compiled
def _fill(
    earlier: np.ndarray,
    later: np.ndarray,
    cost: np.ndarray,
    place: np.ndarray,
    neighbour: np.ndarray,
    weight: np.ndarray,
) -> None:
    """Write the edges from both ends, at `place`, which is advanced."""
    for k in range(len(cost)):
        a, b = earlier[k], later[k]
        neighbour[place[a]], weight[place[a]] = b, cost[k]
        neighbour[place[b]], weight[place[b]] = a, cost[k]
        place[a] += 1
        place[b] += 1
