"""The objectives as multiplex partitions of leidenalg: a second backend, and the reference of the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import igraph
import numpy as np

from ..edges import Edges
from ..errors import GraphError

__all__ = ["Layer", "leidenalg_labels", "multiplex"]

Layer = tuple[igraph.Graph, Any, float, dict[str, Any]]

"""A graph, the type of partition, its weight and its options."""


def multiplex(
    costs: Edges, pairs: Sequence[tuple[slice, slice]], n: int, objective: str, resolution: float
) -> list[Layer]:
    """Build layers whose qualities, weighted, sum to an objective.

    Layered modularity: one directed graph with the configuration null per pair of cuts. Layered CPM: the edges at
    resolution 0, and the price n_a n_b of each pair as that of both cuts minus that of each, on edgeless graphs.
    Undirected qualities count every pair twice, hence the halves.

    Raises:
        GraphError: leidenalg has no such objective.
    """
    import leidenalg

    def penalty(cuts: Sequence[slice], weight: float) -> Layer:
        sizes = np.zeros(n, dtype=int)
        for cut in cuts:
            sizes[cut] = 1
        options = {"node_sizes": sizes.tolist(), "resolution_parameter": resolution}
        return igraph.Graph(n=n), leidenalg.CPMVertexPartition, weight, options

    layers: list[Layer] = []
    edges = list(zip(costs.earlier.tolist(), costs.later.tolist(), strict=True))
    weights = costs.weight.tolist()
    for part, (a, b) in zip(costs.parts(), pairs, strict=True):
        if objective == "layered_modularity":
            options = {"weights": weights[part], "resolution_parameter": resolution}
            graph = igraph.Graph(n=n, edges=edges[part], directed=True)
            layers.append((graph, leidenalg.RBConfigurationVertexPartition, 1.0, options))
        elif objective == "layered_cpm":
            layers += [penalty([a, b], 0.5), penalty([a], -0.5), penalty([b], -0.5)]
    if objective == "layered_modularity":
        return layers
    kinds = {"layered_cpm": (leidenalg.CPMVertexPartition, 0.0), "cpm": (leidenalg.CPMVertexPartition, resolution)}
    kinds["modularity"] = (leidenalg.RBConfigurationVertexPartition, resolution)
    if objective not in kinds:
        raise GraphError(f"backend 'leidenalg' has no objective {objective!r}: use backend 'leiden'")
    kind, own = kinds[objective]
    whole = igraph.Graph(n=n, edges=edges)
    return [(whole, kind, 0.5, {"weights": weights, "resolution_parameter": own}), *layers]


def leidenalg_labels(
    costs: Edges,
    pairs: Sequence[tuple[slice, slice]],
    n: int,
    objective: str,
    resolution: float,
    *,
    seed: int,
    iterations: int,
) -> np.ndarray:
    """Return the labels of one run of leidenalg.

    Raises:
        GraphError: leidenalg refuses the graph (it raises a bare BaseException).
    """
    import leidenalg

    layers = multiplex(costs, pairs, n, objective, resolution)
    try:
        parts = [kind(graph, **options) for graph, kind, _, options in layers]
        optimiser = leidenalg.Optimiser()
        optimiser.set_rng_seed(seed)
        optimiser.optimise_partition_multiplex(parts, [weight for *_, weight, _ in layers], n_iterations=iterations)
    except Exception:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise
        raise GraphError(f"leidenalg refused the graph: {error}") from error
    return np.array(parts[0].membership, dtype=np.int64)
