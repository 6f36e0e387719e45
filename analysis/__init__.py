"""Numerics of interbasis: from a network with cuts to the modules of its interaction graph.

checkpoint -> `load_checkpoint` -> `Network` -> `interaction_basis` -> `interaction_graph` -> `find_modules`
"""

from .basis import Bases, Basis, interaction_basis
from .coefficient import LearningCoefficient, LearningCoefficientCurve
from .datasets import Dataset
from .degeneracy import Ledger, parameter_ledger
from .errors import InterbasisError
from .exchange import to_networkx
from .families import Checkpoint, load_checkpoint
from .graph import InteractionGraph, interaction_graph
from .llc import Sampler, learning_coefficient, learning_coefficient_curve
from .mediators import interaction_surface
from .modules import Partition
from .moments import collect
from .network import Network
from .partition import epsilon_profile, find_modules, score_partition
from .progress import Progress
from .recipe import Recipe, run
from .search import Effort
from .sparsify import SparseNetwork, sparsify
from .synchronisation import SynchronisedUnits, synchronised_units
from .tracking import Tracking, align_nodes, coordinate_correlation, track_modules

__all__ = [
    "Bases",
    "Basis",
    "Checkpoint",
    "Dataset",
    "Effort",
    "InteractionGraph",
    "InterbasisError",
    "LearningCoefficient",
    "LearningCoefficientCurve",
    "Ledger",
    "Network",
    "Partition",
    "Progress",
    "Recipe",
    "Sampler",
    "SparseNetwork",
    "SynchronisedUnits",
    "Tracking",
    "align_nodes",
    "collect",
    "coordinate_correlation",
    "epsilon_profile",
    "find_modules",
    "interaction_basis",
    "interaction_graph",
    "interaction_surface",
    "learning_coefficient",
    "learning_coefficient_curve",
    "load_checkpoint",
    "parameter_ledger",
    "run",
    "score_partition",
    "sparsify",
    "synchronised_units",
    "to_networkx",
    "track_modules",
]
