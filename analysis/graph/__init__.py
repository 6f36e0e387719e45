"""The interaction graph: strengths between cuts, costs of a division, the loss scale, and null graphs."""

from .cost import Epsilon, graph_costs, has_edge, interaction_cost, loss_scales, normalised, shown_scales
from .expectation import Places, Side, expected_between, expected_sides, node_totals, places_of, possible_sides
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
    "InteractionGraph",
    "Labels",
    "LossScale",
    "ModuleLink",
    "NodeTable",
    "PairStrengths",
    "Places",
    "Side",
    "StrengthDistribution",
    "checked_labels",
    "choose_epsilon",
    "contrast",
    "contrast_of",
    "default_epsilon",
    "degree_preserving_null",
    "edge_cost",
    "expected_between",
    "expected_sides",
    "graph_costs",
    "graph_remarks",
    "has_edge",
    "has_streams",
    "interaction_cost",
    "loss_scales",
    "mediator_cost",
    "module_links",
    "node_totals",
    "normalised",
    "null_costs",
    "pair_attributions",
    "pair_strengths",
    "places_of",
    "possible_sides",
    "shown_scales",
    "strength_distribution",
]
