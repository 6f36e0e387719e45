"""What nodes and modules mean: cards with examples, effects, neighbours and frequencies, and labels for them.

network, bases, graph, partition, data -> `describe` -> `Cards`
"""

from .cards import Card, Cards, ModuleCard, NodeCard
from .cyclic import Frequencies, cyclic_inputs
from .describing import describe, iterate_cards
from .labelling import Detection, detection_auc, label

__all__ = [
    "Card",
    "Cards",
    "Detection",
    "Frequencies",
    "ModuleCard",
    "NodeCard",
    "cyclic_inputs",
    "describe",
    "detection_auc",
    "iterate_cards",
    "label",
]
