"""What a division into modules costs: the interactions between modules on a log scale (paper, section 5).

Two modules joined by an interaction of strength w keep, at loss scale epsilon, the fraction (eq. 29-35)

    gamma / gamma~ = 1 - 2 log w / log epsilon = log(w / sqrt(epsilon)) / log(1 / sqrt(epsilon))

of one shared degree of freedom, 0 below the cutoff; the fractions of several add. The cost of one is
c(w) = log(w / sqrt(epsilon))_+, and x^p_ji = c(w_ji) for node i of the earlier and node j of the later cut of
pair p. Labels are one integer array per cut; -1 marks a node of no module, allowed only where it has no edge above
the cutoff.

With edges that skip a cut a pair p = (a, b) of cuts may be any with a < b. The loss scale may be one number, or one
for each pair of cuts. `objectives` says what is minimised together with these costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from .errors import GraphError
from .graph import InteractionGraph

__all__ = [
    "Division",
    "Epsilon",
    "Labels",
    "ModuleLink",
    "checked_labels",
    "contrast",
    "contrast_of",
    "edge_cost",
    "graph_costs",
    "has_edge",
    "interaction_cost",
    "loss_scales",
    "mediator_cost",
    "module_links",
    "normalised",
    "shown_scales",
]

Labels: TypeAlias = Sequence[Int[np.ndarray, " _"]]
"""One integer array per cut: the module of each node, -1 for none."""

Epsilon: TypeAlias = float | Sequence[float]
"""The loss scale: one for all pairs of cuts, or one per pair."""


@dataclass(frozen=True)
class ModuleLink:
    """What one module feeds to another: a row of the quotient graph.

    Attributes:
        earlier, later: labels of the feeding and of the fed module.
        n_edges: edges above the cutoff.
        edge_cost, mediator_cost: their share of the two costs; sums over all links give the totals.
    """

    earlier: int
    later: int
    n_edges: int
    edge_cost: float
    mediator_cost: float


def _checked_scale(epsilon: float) -> float:
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise GraphError(f"epsilon is {epsilon}: expected a positive, finite loss scale")
    return float(epsilon)


def interaction_cost(w: Float[np.ndarray, "*shape"], epsilon: float) -> Float[np.ndarray, "*shape"]:
    """c(w) = log(w / sqrt(epsilon)), elementwise, 0 where w <= sqrt(epsilon) (eq. 35, not normalised).

    Raises:
        GraphError: epsilon is not positive and finite.

    >>> interaction_cost(np.array([0.0, 0.1, 1.0]), 0.01).round(4).tolist()
    [0.0, 0.0, 2.3026]
    """
    cutoff = np.sqrt(_checked_scale(epsilon))
    strengths = np.asarray(w, dtype=np.float64)
    edges = strengths > cutoff
    return np.asarray(np.log(strengths / cutoff, out=np.zeros_like(strengths), where=edges))


def normalised(cost: float, epsilon: float, full_strength: float = 1.0) -> float:
    """Cost in full-strength connections: cost / log(full_strength / sqrt(epsilon)).

    Eq. 34 has full strength 1.

    Raises:
        GraphError: epsilon is not positive, or sqrt(epsilon) is not below full_strength: an interaction of
            full strength would itself be below the cutoff, and eq. 34 has no meaning.

    >>> normalised(2 * np.log(10), 0.01)
    2.0
    """
    unit = float(interaction_cost(np.array(full_strength), epsilon))
    if not unit > 0:
        raise GraphError(
            f"no normalised cost at epsilon {epsilon:g}: its square root is not below full strength "
            f"{full_strength:g}; choose epsilon < {full_strength**2:g}"
        )
    return float(cost) / unit


def loss_scales(graph: InteractionGraph, epsilon: Epsilon) -> tuple[float, ...]:
    """The loss scale of each pair of cuts.

    Raises:
        GraphError: a scale that is not positive and finite, or not one per pair.

    >>> loss_scales(InteractionGraph.from_blocks([np.eye(2), np.eye(2)]), 0.1)
    (0.1, 0.1)
    """
    try:
        array = np.asarray(epsilon, dtype=np.float64)
    except (TypeError, ValueError):
        raise GraphError(f"epsilon is {epsilon!r}: expected a number, or one per pair of cuts") from None
    given = np.full(len(graph.blocks), array) if array.ndim == 0 else array.ravel()
    if len(given) != len(graph.blocks):
        raise GraphError(
            f"{len(given)} loss scales were given: expected one, or one for each of {len(graph.blocks)} pairs"
        )
    return tuple(_checked_scale(scale) for scale in given.tolist())


def shown_scales(epsilon: Epsilon | Float[np.ndarray, " pairs"]) -> str:
    """Loss scales for people: one number where all are the same.

    >>> shown_scales(np.full(3, 0.1)), shown_scales((0.1, 0.25))
    ('0.1', '0.1, 0.25')
    """
    return ", ".join(dict.fromkeys(f"{scale:.4g}" for scale in np.ravel(epsilon).tolist()))


def graph_costs(graph: InteractionGraph, epsilon: Epsilon) -> list[Float[np.ndarray, "_ _"]]:
    """The costs x^p = c(w^p) of every pair of cuts."""
    return [interaction_cost(w, e) for w, e in zip(graph.blocks, loss_scales(graph, epsilon), strict=True)]


def checked_labels(
    graph: InteractionGraph, labels: Sequence[Any], epsilon: Epsilon
) -> tuple[Int[np.ndarray, " _"], ...]:
    """The labels as int64 arrays.

    Raises:
        GraphError: wrong number of cuts or nodes, no integers, a label below -1, -1 on a node with an edge.
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
                f"node {node} of cut {graph.cuts[cut]!r} has label -1 but an edge above the cutoff at "
                f"epsilon {shown_scales(epsilon)}: give it a module"
            )
    return tuple(a.astype(np.int64) for a in arrays)


class Division:
    """A graph divided into modules, and what is summed over it; each sum is made once, when it is asked for.

    Attributes:
        graph, scales: the graph, and the loss scale of each pair of cuts.
        labels: checked, one int64 array per cut.
        names: the labels in use, sorted; -1 is none. Sums are indexed by the position here.
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
    def costs(self) -> list[Float[np.ndarray, "_ _"]]:
        """Of every pair of cuts, see `graph_costs`."""
        return graph_costs(self.graph, self.scales)

    @cached_property
    def sums(self) -> Float[np.ndarray, "pairs later earlier"]:
        """Costs by (pair of cuts, later module, earlier module)."""
        return self._between(self.costs)

    @cached_property
    def carried(self) -> list[Float[np.ndarray, "modules _"]]:
        """Per cut w / sqrt(epsilon) from each of its nodes to each module, w = sqrt(sum_{j in module} w_vj^2).

        j runs over all later cuts that the node has edges to, those below the cutoff included.
        """
        squares = [np.zeros((len(self.names), k)) for k in self.graph.widths]
        for (a, b), w, scale in zip(self.graph.pairs, self.graph.blocks, self.scales, strict=True):
            squares[a] += self.members[b].T @ (w**2 / scale)
        return [np.sqrt(sums) for sums in squares]

    @cached_property
    def links(self) -> tuple[ModuleLink, ...]:
        """The quotient graph."""
        edges = self.sums.sum(axis=0)
        counts = self._between([(x > 0).astype(np.float64) for x in self.costs]).sum(axis=0)
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
    def inner_costs(self) -> dict[int, float]:
        """Sum of c(w) over the edges inside each module."""
        return dict(zip(self.names.tolist(), np.einsum("pcc->c", self.sums).tolist(), strict=True))

    @property
    def outer_costs(self) -> dict[int, float]:
        """Sum of c(w) over the edges between each module and the others, in both directions."""
        total = self.sums.sum(axis=0)
        outer = total.sum(axis=0) + total.sum(axis=1) - 2 * np.diag(total)
        return dict(zip(self.names.tolist(), outer.tolist(), strict=True))

    def _between(self, matrices: Sequence[np.ndarray]) -> np.ndarray:
        parts = zip(self.graph.pairs, matrices, strict=True)
        return np.stack([self.members[b].T @ x @ self.members[a] for (a, b), x in parts])


def edge_cost(graph: InteractionGraph, labels: Sequence[Any], epsilon: Epsilon) -> float:
    """C_edge = sum of c(w_ij) over the edges between different modules (last sentence of section 5).

    >>> graph = InteractionGraph.from_blocks([np.eye(2) + 0.1 * np.eye(2)[::-1]])
    >>> float((edge_cost(graph, [np.array([0, 1])] * 2, 1e-4) / np.log(10)).round(9))
    2.0
    """
    return float(sum(link.edge_cost for link in Division(graph, labels, epsilon).links))


def mediator_cost(graph: InteractionGraph, labels: Sequence[Any], epsilon: Epsilon) -> float:
    """Sum over ordered pairs of modules (A, B) and nodes v in A of c(w), w = sqrt(sum_{j in B} w_vj^2).

    Footnote 10 and eq. 31-34: j runs over the later cuts that v has edges to; strengths add in quadrature because the
    loss does, so one node that feeds ten nodes of B costs about once. Edges below the cutoff take part in the sum.

    >>> graph = InteractionGraph.from_blocks([[[1.0], [0.3], [0.4]]])
    >>> labels = [np.array([0]), np.array([0, 1, 1])]
    >>> float((mediator_cost(graph, labels, 0.0025) / np.log(10)).round(9))   # c(0.5), cutoff 0.05
    1.0
    """
    return float(sum(link.mediator_cost for link in Division(graph, labels, epsilon).links))


def module_links(graph: InteractionGraph, labels: Sequence[Any], epsilon: Epsilon) -> tuple[ModuleLink, ...]:
    """The quotient graph: one row for each ordered pair of modules of which the earlier feeds the later.

    >>> graph = InteractionGraph.from_blocks([[[1.0, 0.0], [0.5, 1.0]]])
    >>> links = module_links(graph, [np.array([0, 1])] * 2, 0.01)
    >>> [(link.earlier, link.later, link.n_edges) for link in links]
    [(0, 1, 1)]
    """
    return Division(graph, labels, epsilon).links


def contrast(graph: InteractionGraph, labels: Sequence[Any], epsilon: Epsilon) -> float:
    """1 - C_edge / E[C_edge], E[x_ij] = k_i k_j / m_p: 1 for no interaction, 0 for chance and for one module.

    >>> graph = InteractionGraph.from_blocks([np.eye(2)])
    >>> contrast(graph, [np.array([0, 1])] * 2, 0.01)
    1.0
    """
    return contrast_of(Division(graph, labels, epsilon).sums)


def contrast_of(sums: Float[np.ndarray, "pairs later earlier"]) -> float:
    """`contrast` from the costs summed by (pair of cuts, later module, earlier module)."""
    between = float(sums.sum() - np.einsum("pcc->", sums))
    expected = sum(float(e.sum() - e.sum(0) @ e.sum(1) / e.sum()) for e in sums if e.sum() > 0)
    return 1.0 - between / expected if expected > 1e-12 * sums.sum() else 0.0


def has_edge(graph: InteractionGraph, epsilon: Epsilon) -> list[np.ndarray]:
    """Per cut which nodes have an edge above the cutoff."""
    strong = [np.zeros(k, dtype=bool) for k in graph.widths]
    for (a, b), w, scale in zip(graph.pairs, graph.blocks, loss_scales(graph, epsilon), strict=True):
        edges = w > np.sqrt(scale)
        strong[a] |= edges.any(axis=0)
        strong[b] |= edges.any(axis=1)
    return strong
