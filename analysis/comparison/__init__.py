"""Comparisons of divisions of the same nodes, of the labels of a module's nodes, and of the outputs of networks."""

from .coherence import Coherence, ModuleCoherence, label_coherence
from .comparison import AGREEMENTS, Comparison, Match, Pair, compare_partitions
from .distance import NetworkDistance, PairDistances, network_distance
from .divisions import DivisionLike, NodeNames

__all__ = [
    "AGREEMENTS",
    "Coherence",
    "Comparison",
    "DivisionLike",
    "Match",
    "ModuleCoherence",
    "NetworkDistance",
    "NodeNames",
    "Pair",
    "PairDistances",
    "compare_partitions",
    "label_coherence",
    "network_distance",
]
