"""Comparisons: whether two divisions of the same nodes agree, and whether the labels of a module's nodes do."""

from .coherence import Coherence, ModuleCoherence, label_coherence
from .comparison import AGREEMENTS, Comparison, Match, Pair, compare_partitions
from .divisions import DivisionLike, NodeNames

__all__ = [
    "AGREEMENTS",
    "Coherence",
    "Comparison",
    "DivisionLike",
    "Match",
    "ModuleCoherence",
    "NodeNames",
    "Pair",
    "compare_partitions",
    "label_coherence",
]
