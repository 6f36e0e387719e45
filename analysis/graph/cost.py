"""The cost of an interaction on a log scale (paper, section 5), from which the cost of a division is summed.

Two modules joined by an interaction of strength w keep, at loss scale epsilon, the fraction (eq. 29-35)

    gamma / gamma~ = 1 - 2 log w / log epsilon = log(w / sqrt(epsilon)) / log(1 / sqrt(epsilon))

of one shared degree of freedom, 0 below the cutoff; the fractions of several interactions add up. The cost of one is
c(w) = log(w / sqrt(epsilon))_+, and x^p_ji = c(w_ji) for node i of the earlier and node j of the later cut of
pair p. Labels are one integer array per cut; -1 marks a node of no module, allowed only where it has no edge above
the cutoff.

With edges that skip a cut, a pair p = (a, b) may be any two cuts with a < b. The loss scale may be one number, or one
for each pair of cuts. `search.objectives` defines what is minimised together with these costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from ..edges import Edges
from ..errors import GraphError
from .interaction_graph import InteractionGraph

__all__ = [
    "Epsilon",
    "costs_of",
    "edge_costs",
    "graph_costs",
    "has_edge",
    "interaction_cost",
    "loss_scales",
    "normalised",
    "shown_scales",
]

"""One integer array per cut: the module of each node, -1 for none."""

Epsilon: TypeAlias = float | Sequence[float]

"""The loss scale: one for all pairs of cuts, or one per pair."""


def _checked_scale(epsilon: float) -> float:
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise GraphError(f"epsilon is {epsilon}: expected a positive, finite loss scale")
    return float(epsilon)


def interaction_cost(w: Float[np.ndarray, "*shape"], epsilon: float, unit: str = "loss") -> Float[np.ndarray, "*shape"]:
    """Compute c(w) = log(w / sqrt(epsilon)), elementwise, 0 where w <= sqrt(epsilon) (eq. 35, not normalised).

    Where w^2 is no loss (any other unit, see `InteractionGraph`) the weights of a node's edges add up, so c(w) = w.

    Raises:
        GraphError: epsilon is not positive and finite.

    >>> interaction_cost(np.array([0.0, 0.1, 1.0]), 0.01).round(4).tolist()
    [0.0, 0.0, 2.3026]
    >>> interaction_cost(np.array([0.0, 0.1, 1.0]), 0.01, "weight").tolist()
    [0.0, 0.0, 1.0]
    """
    cutoff = np.sqrt(_checked_scale(epsilon))
    strengths = np.asarray(w, dtype=np.float64)
    edges = strengths > cutoff
    if unit != "loss":
        return np.where(edges, strengths, 0.0)
    return np.asarray(np.log(strengths / cutoff, out=np.zeros_like(strengths), where=edges))


def normalised(cost: float, epsilon: float, full_strength: float = 1.0) -> float:
    """Convert a cost to full-strength connections: cost / log(full_strength / sqrt(epsilon)).

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
    """Return the loss scale of each pair of cuts.

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
    """Format loss scales: one number if all are the same, otherwise a list.

    >>> shown_scales(np.full(3, 0.1)), shown_scales((0.1, 0.25))
    ('0.1', '0.1, 0.25')
    """
    return ", ".join(dict.fromkeys(f"{scale:.4g}" for scale in np.ravel(epsilon).tolist()))


def graph_costs(graph: InteractionGraph, epsilon: Epsilon) -> list[Float[np.ndarray, "_ _"]]:
    """Compute the costs x^p = c(w^p) of every pair of cuts; of estimated strengths, those that are surely edges."""
    scales = loss_scales(graph, epsilon)
    blocks = graph.significant(scales).matrices
    return [interaction_cost(w, e, graph.unit) for w, e in zip(blocks, scales, strict=True)]


def edge_costs(graph: InteractionGraph, epsilon: Epsilon) -> Edges:
    """List the costs of `graph_costs` that are above 0."""
    scales = loss_scales(graph, epsilon)
    return costs_of(graph.significant(scales).edge_list, scales, graph.unit)


def costs_of(strengths: Edges, scales: Sequence[float], unit: str) -> Edges:
    """List the costs above 0 of strengths, with a loss scale for each pair of cuts."""
    parts = zip(strengths.parts(), scales, strict=True)
    return strengths.weighing(np.concatenate([interaction_cost(strengths.weight[p], e, unit) for p, e in parts]))


def has_edge(graph: InteractionGraph, epsilon: Epsilon) -> list[np.ndarray]:
    """Return for each cut which nodes have an edge above the cutoff; see `graph_costs`."""
    scales = loss_scales(graph, epsilon)
    edges = graph.significant(scales).edge_list
    above = edges.where(edges.weight > np.sqrt(scales)[edges.pair])
    strong = np.zeros(graph.n_nodes, dtype=bool)
    strong[above.earlier] = strong[above.later] = True
    return [strong[nodes] for nodes in graph.cut_slices]
