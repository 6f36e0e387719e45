"""Objectives of a division into modules: one registry of objectives of one form.

With strengths x_ij = c(w_ij) (see `cost`), e_c the total of the edges inside module c, and for each priced pair p
the totals A_c^p and B_c^p of its nodes' values on the two sides:

    Q = sum_c e_c - resolution sum_p price_p sum_c A_c^p B_c^p

    layered_cpm         values 1 on either cut of the pair, price 1: section 5 of the paper, and a price for size
    layered_modularity  sum of A B = the costs expected by chance, see `graph.expectation`: in a graph without edges
                        that skip cuts the values are the node's totals in the pair, the price 1 / total of the pair
    kway                no price: the interactions kept inside a given number of modules of bounded size
    cpm                 values 1 for all nodes, price 1/2, without a node's pair with itself (leidenalg's CPM)
    modularity          values: the node's total over all pairs, price 1 / (4 total) (Newman's Q times the total)

The layered ones charge for pairs of nodes that can have an edge. The last two, which other tools use, charge for all
pairs of nodes; on dense graphs their modules are groups of consecutive cuts. They are included for comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import GraphError
from ..graph.cost import Epsilon, graph_costs
from ..graph.expectation import Places, Side, expected_sides, node_totals, places_of, possible_sides
from ..graph.interaction_graph import InteractionGraph
from ..graph.quotient import Division, checked_labels
from ..results import by_value

__all__ = [
    "LAYERED",
    "OBJECTIVES",
    "Objective",
    "checked_resolution",
    "find_objective",
    "move_gain",
    "quality",
    "quality_of",
]


@by_value
@dataclass(frozen=True)
class Objective:
    """An entry of the registry.

    Attributes:
        name: key in the registry.
        sides: function of the costs of the pairs of cuts and of the places of the nodes.
        own_pairs: whether a node is charged for its pair with itself.
        fixed: whether the number of modules must be given.
    """

    name: str
    sides: Callable[[Sequence[np.ndarray], Places], list[Side]]
    own_pairs: bool = True
    fixed: bool = False


def _layered_cpm(costs: Sequence[np.ndarray], places: Places) -> list[Side]:
    return possible_sides(places)


def _kway(costs: Sequence[np.ndarray], places: Places) -> list[Side]:
    return []


def _cpm(costs: Sequence[np.ndarray], places: Places) -> list[Side]:
    return [Side(np.ones(places.n), np.ones(places.n), 0.5)]


def _modularity(costs: Sequence[np.ndarray], places: Places) -> list[Side]:
    totals = np.add(*node_totals(costs, places))
    return [Side(totals, totals, 1.0 / (2.0 * float(totals.sum())))] if totals.any() else []


OBJECTIVES = {
    entry.name: entry
    for entry in (
        Objective("layered_cpm", _layered_cpm),
        Objective("layered_modularity", expected_sides),
        Objective("kway", _kway, fixed=True),
        Objective("cpm", _cpm, own_pairs=False),
        Objective("modularity", _modularity),
    )
}

"""Every objective by its name."""

LAYERED = ("layered_cpm", "layered_modularity")

"""Objectives to try where none is named."""


def find_objective(name: str) -> Objective:
    """Return the objective of that name.

    Raises:
        GraphError: there is no such objective.
    """
    if name not in OBJECTIVES:
        raise GraphError(f"unknown objective {name!r}: expected one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]


def checked_resolution(resolution: float) -> float:
    """Check a resolution and return it.

    Raises:
        GraphError: it is negative or not finite.
    """
    if not (np.isfinite(resolution) and resolution >= 0):
        raise GraphError(f"resolution is {resolution}: expected a finite number >= 0")
    return float(resolution)


def quality(
    graph: InteractionGraph, labels: Sequence[Any], epsilon: Epsilon, *, objective: str, resolution: float
) -> float:
    """Compute the value of an objective for the given labels, in units of c(w).

    Two disjoint edges of cost c, two modules: layered modularity 2 c - resolution (c^2 + c^2) / (2 c).

    >>> graph = InteractionGraph.from_blocks([np.eye(2)])
    >>> q = quality(graph, [np.array([0, 1])] * 2, np.exp(-2), objective="layered_modularity", resolution=1.0)
    >>> round(q, 12)
    1.0
    """
    return quality_of(Division(graph, labels, epsilon), objective=objective, resolution=resolution)


def quality_of(division: Division, *, objective: str, resolution: float) -> float:
    """Compute `quality` from the sums of costs between modules."""
    chosen, graph = find_objective(objective), division.graph
    resolution = checked_resolution(resolution)
    total = float(np.einsum("pcc->", division.sums))
    members = np.concatenate(division.members)
    for side in chosen.sides(division.costs, places_of(graph)):
        charged = float((side.earlier @ members) @ (side.later @ members))
        if not chosen.own_pairs:
            charged -= float((side.earlier * side.later) @ members.sum(axis=1))
        total -= resolution * side.price * charged
    return total


def move_gain(
    graph: InteractionGraph,
    labels: Sequence[Any],
    node: tuple[int, int],
    module: int,
    epsilon: Epsilon,
    *,
    objective: str,
    resolution: float,
) -> float:
    """Compute the change of quality when one node (cut, index) moves into a module (an unused label: a new one).

    >>> graph = InteractionGraph.from_blocks([np.eye(2)])
    >>> options = {"objective": "layered_cpm", "resolution": 0.25}
    >>> move_gain(graph, [np.array([0, 0])] * 2, (0, 1), 1, np.exp(-2), **options)   # 2 * 0.25 - 1
    -0.5
    """
    cut, index = node
    if not (0 <= cut < len(graph.widths) and 0 <= index < graph.widths[cut]) or module < 0:
        raise GraphError(f"cannot move node {node} to module {module}: widths are {graph.widths}, labels start at 0")
    resolution = checked_resolution(resolution)
    costs = graph_costs(graph, epsilon)
    flat = np.concatenate(checked_labels(graph, labels, epsilon))
    i = graph.cut_slices[cut].start + index
    before = flat[i]
    if before == module:
        return 0.0
    weight = np.zeros(len(flat))
    for x, (a, b) in zip(costs, graph.pair_slices, strict=True):
        if a.start <= i < a.stop:
            weight[b] += x[:, i - a.start]
        if b.start <= i < b.stop:
            weight[a] += x[i - b.start]
    for side in find_objective(objective).sides(costs, places_of(graph)):
        price = resolution * side.price
        weight -= price * (side.earlier[i] * side.later + side.later[i] * side.earlier)
    weight[i] = 0.0
    return float(weight[flat == module].sum() - (weight[flat == before].sum() if before >= 0 else 0.0))
