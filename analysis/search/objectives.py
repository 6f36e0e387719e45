"""Objectives of a division into modules: one registry of objectives of one form.

With strengths x_ij = c(w_ij) (see `cost`), e_c the total of the edges inside module c, and values f and g of the nodes:

    Q = sum_c [ e_c - resolution * sum of f_i g_j over the charged pairs of nodes (i, j) inside c ]

    layered_cpm         f = g = 1: section 5 of the paper, and a price for size; pairs that can have an edge
    layered_modularity  f g = the costs expected by chance, see `graph.expectation`; pairs that can have an edge
    kway                no charge: the interactions kept inside a given number of modules of bounded size
    cpm                 f = 1, g = 1/2; all ordered pairs but those of a node with itself (leidenalg's CPM)
    modularity          f: the node's total over all pairs of cuts, g: f / (4 total); all ordered pairs (Newman's Q
                        times the total)

The layered ones charge for pairs of nodes that can have an edge. The last two, which other tools use, charge for all
pairs of nodes; on dense graphs their modules are groups of consecutive cuts. They are included for comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..edges import Edges, summed
from ..errors import GraphError
from ..graph.cost import Epsilon, edge_costs
from ..graph.expectation import Expected, Places, expected_costs, places_of, possible_edges
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
        charges: function of the costs and of the places of the nodes, their f and g.
        own_pairs: whether a node is charged for its pair with itself.
        fixed: whether the number of modules must be given.
    """

    name: str
    charges: Callable[[Edges, Places], Expected]
    own_pairs: bool = True
    fixed: bool = False


def _layered_cpm(costs: Edges, places: Places) -> Expected:
    return possible_edges(places)


def _kway(costs: Edges, places: Places) -> Expected:
    return _everywhere(np.zeros(places.n), 0.0)


def _cpm(costs: Edges, places: Places) -> Expected:
    return _everywhere(np.ones(places.n), 0.5)


def _modularity(costs: Edges, places: Places) -> Expected:
    totals = np.add(*costs.totals(places.n))
    return _everywhere(totals, 1.0 / (2.0 * float(totals.sum())) if totals.any() else 0.0)


def _everywhere(values: np.ndarray, price: float) -> Expected:
    """Charge all ordered pairs of nodes the price times the product of their values."""
    return Expected(values, price * values, np.zeros(len(values), dtype=np.int64), np.ones((1, 1), dtype=bool))


OBJECTIVES = {
    entry.name: entry
    for entry in (
        Objective("layered_cpm", _layered_cpm),
        Objective("layered_modularity", expected_costs),
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
    chosen = find_objective(objective)
    charges = chosen.charges(division.costs, places_of(division.graph))
    charged = charges.inside(division.positions, len(division.names))
    if not chosen.own_pairs:
        charged -= float((charges.earlier * charges.later)[division.positions >= 0].sum())
    return float(np.trace(division.sums)) - checked_resolution(resolution) * charged


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
    costs = edge_costs(graph, epsilon)
    flat = np.concatenate(checked_labels(graph, labels, epsilon))
    i = graph.cut_slices[cut].start + index
    before = flat[i]
    if before == module:
        return 0.0
    weight = np.zeros(len(flat))
    for here, there in ((costs.earlier, costs.later), (costs.later, costs.earlier)):
        weight += summed(there[here == i], costs.weight[here == i], len(flat))
    weight -= resolution * find_objective(objective).charges(costs, places_of(graph)).towards(i)
    weight[i] = 0.0
    return float(weight[flat == module].sum() - (weight[flat == before].sum() if before >= 0 else 0.0))
