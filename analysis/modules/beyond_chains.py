"""Evidence for modules beyond chains of one-to-one edges and beyond skip paths.

A quantity that both of two cuts carry is one node of each: a nearly linear map (a skip path, a dropout layer, the
preactivation and the activation of a unit) joins nodes to chains. A chain is no evidence of modules: a diagonal matrix
splits into as many parts as it has rows at no cost, and compared with null graphs that move its edges this looks
significant. So a division is tested on the interactions that remain without

* the skip path between two cuts of one stream, whose strengths are those of J - a (see `graph.skip_paths`);
* one-to-one edges of the rest, those that carry more than half of the sum of w^2 of both their nodes: an activation
  function whose slope varies is a skip path and a rest, and that rest is one-to-one as well.

    contrast = 1 - C_edge / E[C_edge],   E: sum of k_i k_j / m over pairs of nodes in different modules

of these interactions, with the same labels, is compared with that of their null graphs. On networks of independent
tasks (digits, CNNs, MLPs, residual networks) the divisions found had contrasts of .3 to 1.0, above every null graph; of
38 untrained networks, raw outputs as nodes, the divisions at all resolutions had -.06 to .33, and the answer is one
module for each network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from ..graph.cost import Epsilon, interaction_cost, loss_scales
from ..graph.interaction_graph import InteractionGraph
from ..graph.null_graphs import null_costs
from ..search.local_search import Search

__all__ = ["BeyondChains", "costs_beyond_chains", "one_to_one"]

_LEAST = 0.2  # least contrast


def one_to_one(w: Float[np.ndarray, "j i"]) -> Bool[np.ndarray, "j i"]:
    """Find the edges that carry more than half of the sum of w^2 of both their later and their earlier node.

    >>> one_to_one(np.array([[2.0, 0.1], [0.1, 0.0], [0.0, 1.0]])).tolist()
    [[True, False], [False, False], [False, True]]
    """
    squared = w**2
    return np.asarray((2 * squared > squared.sum(1, keepdims=True)) & (2 * squared > squared.sum(0)))


def costs_beyond_chains(graph: InteractionGraph, epsilon: Epsilon) -> list[Float[np.ndarray, "_ _"]]:
    """Compute per pair of cuts c(w) without one-to-one edges, beyond the skip path where the graph has one.

    >>> graph = InteractionGraph.from_blocks([[[2.0, 0.1], [0.1, 1.0]]])
    >>> costs_beyond_chains(graph, 0.0001)[0].round(3).tolist()
    [[0.0, 2.303], [2.303, 0.0]]
    """
    return [
        np.where(one_to_one(w), 0.0, interaction_cost(w, scale, graph.unit))
        for w, scale in zip(graph.beyond, loss_scales(graph, epsilon), strict=True)
    ]


class BeyondChains:
    """The interactions of a graph that are not chains, and null graphs of them.

    Attributes:
        costs: per pair of cuts c(w) of these interactions, between the nodes of the search.
    """

    def __init__(self, graph: InteractionGraph, epsilon: Epsilon, search: Search, *, n_null: int, seed: int) -> None:
        self._search = search
        self.costs = search.kept(costs_beyond_chains(graph, epsilon))
        generator = np.random.default_rng([seed, 1])
        drawn = range(max(n_null, 0))
        self._nulls = [null_costs(self.costs, search.places, generator=generator) for _ in drawn]

    def test(self, labels: Int[np.ndarray, " n"]) -> tuple[float, float]:
        """Compute the contrast of a division, labels 0, 1, ..., and its p-value against the null graphs."""
        contrast = self._contrast(self.costs, labels)
        reached = sum(self._contrast(null, labels) >= contrast for null in self._nulls)
        return contrast, (1 + reached) / (1 + len(self._nulls))

    def supports(self, contrast: float, p_value: float) -> bool:
        """Return whether a division's contrast exceeds that of every null graph, and a least value."""
        return contrast >= _LEAST and p_value * (1 + len(self._nulls)) < 1.5

    def _contrast(self, costs: Sequence[np.ndarray], labels: np.ndarray) -> float:
        if not any(x.any() for x in costs):
            return 0.0
        return self._search.contrast(costs, labels)
