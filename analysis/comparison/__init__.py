"""Comparisons of divisions of the same nodes, of the labels of a module's nodes, and of the outputs of networks."""

from .coherence import Coherence, ModuleCoherence, label_coherence
from .comparison import AGREEMENTS, Best, Comparison, Match, Pair, Persistence, compare_partitions
from .distance import NetworkDistance, PairDistances, network_distance
from .divisions import DivisionLike, NodeNames

__all__ = [
    "AGREEMENTS",
    "Best",
    "Coherence",
    "Comparison",
    "DivisionLike",
    "Match",
    "ModuleCoherence",
    "NetworkDistance",
    "NodeNames",
    "Pair",
    "PairDistances",
    "Persistence",
    "compare_partitions",
    "label_coherence",
    "network_distance",
]
