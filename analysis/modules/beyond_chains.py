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

from ..compiled import in_order
from ..edges import Edges
from ..graph.cost import Epsilon, costs_of, loss_scales
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
    later, earlier = w.shape
    edges = Edges.of([w], [(slice(0, earlier), slice(earlier, earlier + later))])
    alone = edges.where(_one_to_one(edges))
    found = np.zeros(w.shape, dtype=bool)
    found[alone.later - earlier, alone.earlier] = True
    return found


def _one_to_one(edges: Edges) -> Bool[np.ndarray, " edges"]:
    """Find such edges among the strengths of all pairs of cuts."""
    found = np.zeros(len(edges), dtype=bool)
    for part in edges.parts():
        squared = edges.weight[part] ** 2
        over = (np.bincount(ends[part], squared)[ends[part]] for ends in (edges.earlier, edges.later))
        found[part] = np.all([2 * squared > total for total in over], axis=0)
    return found


def costs_beyond_chains(graph: InteractionGraph, epsilon: Epsilon) -> Edges:
    """List c(w) without one-to-one edges, beyond the skip path where the graph has one.

    >>> graph = InteractionGraph.from_blocks([[[2.0, 0.1], [0.1, 1.0]]])
    >>> costs_beyond_chains(graph, 0.0001).weight.round(3).tolist()
    [2.303, 2.303]
    """
    edges = Edges.of(graph.beyond, graph.pair_slices)
    edges = edges.where(~_one_to_one(edges))
    return costs_of(edges, loss_scales(graph, epsilon), graph.unit)


class BeyondChains:
    """The interactions of a graph that are not chains, and null graphs of them.

    Attributes:
        costs: c(w) of these interactions, between the nodes of the search.
    """

    def __init__(self, graph: InteractionGraph, epsilon: Epsilon, search: Search, *, n_null: int, seed: int) -> None:
        self._search = search
        self._seed, self._n_null = seed, max(n_null, 0)
        self.costs = search.kept(costs_beyond_chains(graph, epsilon))

    def tests(self, divisions: Sequence[Int[np.ndarray, " n"]]) -> list[tuple[float, float]]:
        """Compute the contrast of each division, labels 0, 1, ..., and its p-value against the null graphs."""
        contrasts = self._contrasts(self.costs, divisions)

        def reached(generator: np.random.Generator) -> np.ndarray:
            null = null_costs(self.costs, self._search.places, generator=generator)
            return self._contrasts(null, divisions) >= contrasts

        generators = np.random.default_rng([self._seed, 1]).spawn(self._n_null)
        count = 1 + sum(in_order(reached, generators, self._search.threads), np.zeros(len(divisions)))
        return list(zip(contrasts.tolist(), (count / (1 + self._n_null)).tolist(), strict=True))

    def supports(self, contrast: float, p_value: float) -> bool:
        """Return whether a division's contrast exceeds that of every null graph, and a least value."""
        return contrast >= _LEAST and p_value * (1 + self._n_null) < 1.5

    def _contrasts(self, costs: Edges, divisions: Sequence[np.ndarray]) -> Float[np.ndarray, " divisions"]:
        return np.array([self._search.contrast(costs, labels) if len(costs) else 0.0 for labels in divisions])
