"""Search for the partition that an objective prefers, on the nodes with an edge above the cutoff.

An objective is the sum over pairs of nodes in one module of a gain (`cost.pair_gains`), so its optimum is that of
the constant Potts model at resolution 0 on all pairs of adjacent cuts with these gains as weights. Backend "igraph"
runs Leiden on that graph. Backend "leidenalg" optimises the same objective as a multiplex of one graph per pair of
cuts (layered modularity), or of edges and edgeless penalty graphs (layered CPM); equal to rounding, 20 times slower.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import igraph
import numpy as np

from .cost import graph_costs, pair_gains
from .errors import GraphError
from .graph import InteractionGraph

__all__ = ["BACKENDS", "Search", "multiplex"]

BACKENDS = ("igraph", "leidenalg")
_ITERATIONS = 5  # of Leiden; "until nothing changes" can loop for ever on rounding errors
_SEPARATED = 3.0


class Search:
    """Leiden on the nodes that have an edge above the cutoff; flat labels run over them, cut after cut."""

    def __init__(self, graph: InteractionGraph, epsilon: float) -> None:
        costs = graph_costs(graph, epsilon)
        strong = [np.zeros(k, dtype=bool) for k in graph.widths]
        for p, x in enumerate(costs):
            strong[p] |= (x > 0).any(axis=0)
            strong[p + 1] |= (x > 0).any(axis=1)
        kept = [np.ix_(strong[p + 1], strong[p]) for p in range(len(costs))]
        self.strong = strong
        self.costs = [x[keep] for x, keep in zip(costs, kept, strict=True)]
        self.carried = [block[keep] ** 2 for block, keep in zip(graph.blocks, kept, strict=True)]
        start = np.concatenate([[0], np.cumsum([a.sum() for a in strong])])
        self.cuts = [slice(int(a), int(b)) for a, b in pairwise(start)]
        pairs: list[tuple[int, int]] = []
        for p, x in enumerate(self.costs):
            later, earlier = np.indices(x.shape).reshape(2, -1)
            pairs += zip((earlier + start[p]).tolist(), (later + start[p + 1]).tolist(), strict=True)
        self.pairs = igraph.Graph(n=int(start[-1]), edges=pairs)

    def best(
        self,
        costs: Sequence[np.ndarray],
        objective: str,
        resolution: float,
        *,
        generator: np.random.Generator,
        restarts: int,
        backend: str = "igraph",
    ) -> tuple[float, np.ndarray]:
        """Highest value found for these costs, and its labels; a single module is among the candidates.

        Raises:
            GraphError: an unknown backend or objective.
        """
        if backend not in BACKENDS:
            raise GraphError(f"unknown backend {backend!r}: expected one of {', '.join(BACKENDS)}")
        gains = pair_gains(costs, objective, resolution)
        best = float(sum(g.sum() for g in gains)), np.zeros(self.pairs.vcount(), dtype=np.int64)
        weights = np.concatenate([g.ravel() for g in gains]).tolist()
        for _ in range(restarts):
            seed = int(generator.integers(2**31))
            if backend == "igraph":
                labels = self._igraph(weights, seed)
            else:
                labels = _leidenalg(costs, objective, resolution, seed)
            best = max(best, (self.within(gains, labels), labels), key=lambda candidate: candidate[0])
        return best

    def _igraph(self, weights: list[float], seed: int) -> np.ndarray:
        igraph.set_random_number_generator(random.Random(seed))
        try:
            found = self.pairs.community_leiden(
                objective_function="CPM", resolution=0.0, weights=weights, n_iterations=_ITERATIONS
            )
        finally:
            igraph.set_random_number_generator(random)
        return np.array(found.membership, dtype=np.int64)

    def within(self, matrices: list[np.ndarray], labels: np.ndarray) -> float:
        """Sum of the entries whose nodes share a module."""
        return float(
            sum(
                m[labels[self.cuts[p + 1]][:, None] == labels[self.cuts[p]][None, :]].sum()
                for p, m in enumerate(matrices)
            )
        )

    def edge_cost(self, labels: np.ndarray) -> float:
        """Cost between modules."""
        return max(0.0, float(sum(x.sum() for x in self.costs)) - self.within(self.costs, labels))

    def _between(self, matrices: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
        """Sums by (pair of cuts, later module, earlier module)."""
        members = np.eye(labels.max() + 1)[labels]
        return np.stack([members[self.cuts[p + 1]].T @ m @ members[self.cuts[p]] for p, m in enumerate(matrices)])

    def join_crumbs(self, labels: np.ndarray) -> np.ndarray:
        """Labels in which every module is separated from the rest by more than chance."""
        scale = sum((x**2).sum() for x in self.costs) / sum(x.sum() for x in self.costs)
        labels = np.unique(labels, return_inverse=True)[1]
        costs, carried = self._between(self.costs, labels), self._between(self.carried, labels).sum(axis=0)
        sizes = np.bincount(labels)
        alive = np.arange(len(sizes))
        while len(alive) > 1:
            separation = _separation(costs, scale)
            crumb = int(separation.argmin())
            if separation[crumb] >= _SEPARATED:
                break
            exchanged = carried[crumb] + carried[:, crumb]
            exchanged[crumb] = -1.0
            into = int(np.lexsort((sizes, exchanged))[-1])
            labels = np.where(labels == alive[crumb], alive[into], labels)
            sizes[into] += sizes[crumb]
            for sums in (costs, carried):
                sums[..., into, :] += sums[..., crumb, :]
                sums[..., :, into] += sums[..., :, crumb]
            keep = np.delete(np.arange(len(alive)), crumb)
            costs, carried = costs[:, keep][:, :, keep], carried[keep][:, keep]
            sizes, alive = sizes[keep], alive[keep]
        return labels

    def per_cut(self, labels: np.ndarray) -> list[np.ndarray]:
        """Labels of all nodes, -1 for those without an edge."""
        result = [np.full(len(a), -1, dtype=np.int64) for a in self.strong]
        for full, strong, part in zip(result, self.strong, self.cuts, strict=True):
            full[strong] = labels[part]
        return result


def _separation(costs: np.ndarray, scale: float) -> np.ndarray:
    """Per module (mu - e) / sqrt(mu scale): by how much it interacts less with the rest than by chance."""
    out, into = costs.sum(axis=1), costs.sum(axis=2)  # (pair of cuts, module)
    m = np.maximum(out.sum(axis=1, keepdims=True), 1e-300)
    inner = np.einsum("pcc->c", costs)
    expected = (out + into - 2 * out * into / m).sum(axis=0)
    actual = (out + into).sum(axis=0) - 2 * inner
    return np.asarray((expected - actual) / np.sqrt(np.maximum(expected, 1e-300) * scale))


def multiplex(
    costs: Sequence[np.ndarray], objective: str, resolution: float
) -> list[tuple[igraph.Graph, Any, float, Any]]:
    """A layered objective as leidenalg's multiplex: (graph, kind of partition, weight, options) per layer.

    Layered modularity: one directed graph with the configuration null per pair of cuts. Layered CPM: the edges at
    resolution 0, and the price n_l n_{l+1} of each pair as that of both cuts minus that of each, on edgeless graphs.
    Undirected qualities count every pair twice, hence the halves.
    """
    import leidenalg

    widths = [costs[0].shape[1], *(x.shape[0] for x in costs)]
    offset = np.cumsum([0, *widths])
    n = int(offset[-1])

    def penalty(cuts: Sequence[int], weight: float) -> tuple[igraph.Graph, Any, float, Any]:
        sizes = np.zeros(n, dtype=int)
        for cut in cuts:
            sizes[offset[cut] : offset[cut + 1]] = 1
        options = {"node_sizes": sizes.tolist(), "resolution_parameter": resolution}
        return igraph.Graph(n=n), leidenalg.CPMVertexPartition, weight, options

    layers: list[tuple[igraph.Graph, Any, float, Any]] = []
    for p, x in enumerate(costs):
        later, earlier = np.nonzero(x)
        pairs = list(zip((earlier + offset[p]).tolist(), (later + offset[p + 1]).tolist(), strict=True))
        weights = x[later, earlier].tolist()
        if objective == "layered_modularity":
            options = {"weights": weights, "resolution_parameter": resolution}
            graph = igraph.Graph(n=n, edges=pairs, directed=True)
            layers.append((graph, leidenalg.RBConfigurationVertexPartition, 1.0, options))
            continue
        options = {"weights": weights, "resolution_parameter": 0.0}
        layers.append((igraph.Graph(n=n, edges=pairs), leidenalg.CPMVertexPartition, 0.5, options))
        layers += [penalty([p, p + 1], 0.5), penalty([p], -0.5), penalty([p + 1], -0.5)]
    return layers


def _leidenalg(costs: Sequence[np.ndarray], objective: str, resolution: float, seed: int) -> np.ndarray:
    import leidenalg

    layers = multiplex(costs, objective, resolution)
    parts = [kind(graph, **options) for graph, kind, _, options in layers]
    optimiser = leidenalg.Optimiser()
    optimiser.set_rng_seed(seed)
    try:
        optimiser.optimise_partition_multiplex(parts, [weight for *_, weight, _ in layers], n_iterations=_ITERATIONS)
    except Exception:
        raise
    except BaseException as error:  # leidenalg raises bare BaseException
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise
        raise GraphError(f"leidenalg refused the graph: {error}") from error
    return np.array(parts[0].membership, dtype=np.int64)
