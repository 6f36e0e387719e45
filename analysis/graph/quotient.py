"""The quotient of a graph by a division: costs summed between modules, and the costs of the whole division."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from ..edges import Edges, summed
from ..errors import GraphError
from .cost import Epsilon, edge_costs, has_edge, interaction_cost, loss_scales, shown_scales
from .expectation import expected_costs, places_of
from .interaction_graph import InteractionGraph

__all__ = [
    "Division",
    "Labels",
    "ModuleLink",
    "checked_labels",
    "contrast",
    "contrast_of",
    "edge_cost",
    "mediator_cost",
    "module_links",
]

Labels: TypeAlias = Sequence[Int[np.ndarray, " _"]]


@dataclass(frozen=True)
class ModuleLink:
    """The interactions from one module to another: a row of the quotient graph.

    Attributes:
        earlier, later: labels of the sending and of the receiving module.
        n_edges: edges above the cutoff.
        edge_cost, mediator_cost: the link's part of the two costs; sums over all links give the totals.
    """

    earlier: int
    later: int
    n_edges: int
    edge_cost: float
    mediator_cost: float


def checked_labels(
    graph: InteractionGraph, labels: Sequence[Any], epsilon: Epsilon
) -> tuple[Int[np.ndarray, " _"], ...]:
    """Check labels and return them as int64 arrays.

    Raises:
        GraphError: a wrong number of cuts or nodes, no integers, a label below -1, or -1 on a node with an edge.
    """
    arrays = [np.asarray(a) for a in labels]
    shapes, expected = [a.shape for a in arrays], [(k,) for k in graph.widths]
    if shapes != expected:
        raise GraphError(f"labels have shapes {shapes}: expected one array per cut, {expected}")
    if not all(np.issubdtype(a.dtype, np.integer) for a in arrays):
        raise GraphError(f"labels have types {[str(a.dtype) for a in arrays]}: expected integers")
    smallest = min(int(a.min()) for a in arrays)
    if smallest < -1:
        raise GraphError(f"the smallest label is {smallest}: expected -1 (no module) or more")
    for cut, (a, strong) in enumerate(zip(arrays, has_edge(graph, epsilon), strict=True)):
        if (strong & (a < 0)).any():
            node = int(np.flatnonzero(strong & (a < 0))[0])
            raise GraphError(
                f"node {node} of cut {graph.cuts[cut]!r} has no module (label -1) but an edge above the cutoff at "
                f"epsilon {shown_scales(epsilon)}: give it a module"
            )
    return tuple(a.astype(np.int64) for a in arrays)


class Division:
    """A graph divided into modules, and sums over it; each sum is computed once, on first use.

    Attributes:
        graph, scales: the graph, and the loss scale of each pair of cuts.
        labels: checked, one int64 array per cut.
        names: the labels in use, sorted, without -1. Sums are indexed by position in `names`.
        members: per cut the (nodes, modules) matrix of 0 and 1.
    """

    def __init__(self, graph: InteractionGraph, labels: Sequence[Any], epsilon: Epsilon) -> None:
        self.graph = graph
        self.scales = loss_scales(graph, epsilon)
        self.labels = checked_labels(graph, labels, self.scales)
        names = np.unique(np.concatenate(self.labels))
        self.names = names[names >= 0]
        self.members = [(a[:, None] == self.names).astype(np.float64) for a in self.labels]

    @cached_property
    def positions(self) -> Int[np.ndarray, " nodes"]:
        """For each node, cut after cut, the position of its label in `names`; -1 for none."""
        flat = np.concatenate(self.labels)
        return np.where(flat >= 0, np.searchsorted(self.names, flat), -1)

    @cached_property
    def costs(self) -> Edges:
        """The costs of all edges, see `graph_costs`."""
        return edge_costs(self.graph, self.scales)

    @cached_property
    def sums(self) -> Float[np.ndarray, "later earlier"]:
        """The costs summed by (later module, earlier module)."""
        return self.costs.between(self.positions, len(self.names))

    @cached_property
    def between_per_pair(self) -> Float[np.ndarray, " pairs"]:
        """The costs between modules, summed by pair of cuts."""
        apart = self.costs.where(self.positions[self.costs.earlier] != self.positions[self.costs.later])
        return summed(apart.pair, apart.weight, len(self.scales))

    @cached_property
    def carried(self) -> list[Float[np.ndarray, "modules _"]]:
        """For each cut w / sqrt(epsilon) from its nodes to each module, w = sqrt(sum_{j in module} w_vj^2).

        j runs over all later cuts that the node has edges to, those below the cutoff included.
        """
        edges, n = self.graph.edge_list, self.graph.n_nodes
        module = self.positions[edges.later]
        known = module >= 0
        squares = edges.weight**2 / np.array(self.scales)[edges.pair]
        code = module[known] * n + edges.earlier[known]
        sums = summed(code, squares[known], len(self.names) * n).reshape(-1, n)
        return [np.sqrt(sums[:, nodes]) for nodes in self.graph.cut_slices]

    @cached_property
    def links(self) -> tuple[ModuleLink, ...]:
        """The quotient graph."""
        edges = self.sums
        counts = replace(self.costs, weight=np.ones(len(self.costs))).between(self.positions, len(self.names))
        mediators = sum(interaction_cost(w, 1.0) @ m for w, m in zip(self.carried, self.members, strict=True))
        mediators = np.asarray(mediators)
        for matrix in (counts, mediators):
            np.fill_diagonal(matrix, 0)
        later_of, earlier_of = np.nonzero((counts > 0) | (mediators > 0))
        names = self.names.tolist()
        return tuple(
            ModuleLink(names[a], names[b], int(counts[b, a]), float(edges[b, a]), float(mediators[b, a]))
            for b, a in zip(later_of.tolist(), earlier_of.tolist(), strict=True)
        )

    @property
    def contrast(self) -> float:
        """By how much less the modules interact than by chance, see `contrast`."""
        expected = expected_costs(self.costs, places_of(self.graph))
        return contrast_of(self.sums, expected.between(self.positions, len(self.names)))

    @property
    def inner_costs(self) -> dict[int, float]:
        """The sum of c(w) over the edges inside each module."""
        return dict(zip(self.names.tolist(), np.diag(self.sums).tolist(), strict=True))

    @property
    def outer_costs(self) -> dict[int, float]:
        """The sum of c(w) over the edges between each module and the others, in both directions."""
        outer = self.sums.sum(axis=0) + self.sums.sum(axis=1) - 2 * np.diag(self.sums)
        return dict(zip(self.names.tolist(), outer.tolist(), strict=True))


def edge_cost(graph: InteractionGraph, labels: Sequence[Any], epsilon: Epsilon) -> float:
    """Compute C_edge = sum of c(w_ij) over the edges between different modules (last sentence of section 5).

    >>> graph = InteractionGraph.from_blocks([np.eye(2) + 0.1 * np.eye(2)[::-1]])
    >>> float((edge_cost(graph, [np.array([0, 1])] * 2, 1e-4) / np.log(10)).round(9))
    2.0
    """
    return float(sum(link.edge_cost for link in Division(graph, labels, epsilon).links))


def mediator_cost(graph: InteractionGraph, labels: Sequence[Any], epsilon: Epsilon) -> float:
    """Sum c(w) over ordered pairs of modules (A, B) and nodes v in A, w = sqrt(sum_{j in B} w_vj^2).

    Footnote 10 and eq. 31-34: j runs over the later cuts that v has edges to; strengths add in quadrature because the
    loss does, so one node that feeds ten nodes of B costs about once. Edges below the cutoff are included.

    >>> graph = InteractionGraph.from_blocks([[[1.0], [0.3], [0.4]]])
    >>> labels = [np.array([0]), np.array([0, 1, 1])]
    >>> float((mediator_cost(graph, labels, 0.0025) / np.log(10)).round(9))   # c(0.5), cutoff 0.05
    1.0
    """
    return float(sum(link.mediator_cost for link in Division(graph, labels, epsilon).links))


def module_links(graph: InteractionGraph, labels: Sequence[Any], epsilon: Epsilon) -> tuple[ModuleLink, ...]:
    """Compute the quotient graph: one row for each ordered pair of modules with edges from the earlier to the later.

    >>> graph = InteractionGraph.from_blocks([[[1.0, 0.0], [0.5, 1.0]]])
    >>> links = module_links(graph, [np.array([0, 1])] * 2, 0.01)
    >>> [(link.earlier, link.later, link.n_edges) for link in links]
    [(0, 1, 1)]
    """
    return Division(graph, labels, epsilon).links


def contrast(graph: InteractionGraph, labels: Sequence[Any], epsilon: Epsilon) -> float:
    """Compute 1 - C_edge / E[C_edge], E of `expectation`: 1 for no interaction, 0 for chance and for one module.

    >>> graph = InteractionGraph.from_blocks([np.eye(2)])
    >>> contrast(graph, [np.array([0, 1])] * 2, 0.01)
    1.0
    """
    return Division(graph, labels, epsilon).contrast


def contrast_of(sums: Float[np.ndarray, "later earlier"], expected: Float[np.ndarray, "later earlier"]) -> float:
    """Compute `contrast` from the costs, and those expected by chance, summed by (later module, earlier module)."""
    between, chance = (float(matrix.sum() - np.trace(matrix)) for matrix in (sums, expected))
    return 1.0 - between / chance if chance > 1e-12 * sums.sum() else 0.0
