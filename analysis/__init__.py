"""Numerics of interbasis: from a network with cuts to the modules of its interaction graph.

checkpoint -> `load_checkpoint` -> `Network` -> `interaction_basis` -> `interaction_graph` -> `find_modules`
"""

from .ablation import ablate_modules, isolate_modules
from .basis import Bases, Basis, interaction_basis
from .bisection import bisect_edges
from .coefficient import LearningCoefficient, LearningCoefficientCurve
from .datasets import Dataset
from .degeneracy import Ledger, parameter_ledger
from .errors import InterbasisError
from .exchange import to_networkx
from .experiments import Experiment, ExperimentRecipe, run_experiment
from .faithfulness import circuit_faithfulness
from .families import Checkpoint, load_checkpoint, save_checkpoint
from .graph import InteractionGraph, interaction_graph
from .imports import read_partition
from .interventions import Interventions
from .llc import Sampler, learning_coefficient, learning_coefficient_curve
from .mediators import interaction_surface
from .modules import Partition
from .moments import collect
from .network import Network
from .partition import epsilon_profile, find_modules, score_partition
from .prediction import predict_losses
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
    "Experiment",
    "ExperimentRecipe",
    "InteractionGraph",
    "InterbasisError",
    "Interventions",
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
    "ablate_modules",
    "align_nodes",
    "bisect_edges",
    "circuit_faithfulness",
    "collect",
    "coordinate_correlation",
    "epsilon_profile",
    "find_modules",
    "interaction_basis",
    "interaction_graph",
    "interaction_surface",
    "isolate_modules",
    "learning_coefficient",
    "learning_coefficient_curve",
    "load_checkpoint",
    "parameter_ledger",
    "predict_losses",
    "read_partition",
    "run",
    "run_experiment",
    "save_checkpoint",
    "score_partition",
    "sparsify",
    "synchronised_units",
    "to_networkx",
    "track_modules",
]
