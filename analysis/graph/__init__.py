"""The interaction graph: strengths between cuts, costs of a division, the loss scale, and null graphs."""

from .cost import (
    Epsilon,
    costs_of,
    edge_costs,
    graph_costs,
    has_edge,
    interaction_cost,
    loss_scales,
    normalised,
    shown_scales,
)
from .expectation import Expected, Places, expected_costs, places_of, possible_edges
from .interaction_graph import UNITS, InteractionGraph
from .loss_scale import LossScale, StrengthDistribution, choose_epsilon, default_epsilon, strength_distribution
from .node_table import NodeTable
from .null_graphs import degree_preserving_null, null_costs
from .quotient import (
    Division,
    Labels,
    ModuleLink,
    checked_labels,
    contrast,
    contrast_of,
    edge_cost,
    mediator_cost,
    module_links,
)
from .remarks import graph_remarks
from .skip_paths import PairStrengths, has_streams, pair_attributions, pair_strengths

__all__ = [
    "UNITS",
    "Division",
    "Epsilon",
    "Expected",
    "InteractionGraph",
    "Labels",
    "LossScale",
    "ModuleLink",
    "NodeTable",
    "PairStrengths",
    "Places",
    "StrengthDistribution",
    "checked_labels",
    "choose_epsilon",
    "contrast",
    "contrast_of",
    "costs_of",
    "default_epsilon",
    "degree_preserving_null",
    "edge_cost",
    "edge_costs",
    "expected_costs",
    "graph_costs",
    "graph_remarks",
    "has_edge",
    "has_streams",
    "interaction_cost",
    "loss_scales",
    "mediator_cost",
    "module_links",
    "normalised",
    "null_costs",
    "pair_attributions",
    "pair_strengths",
    "places_of",
    "possible_edges",
    "shown_scales",
    "strength_distribution",
]
