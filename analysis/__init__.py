"""Numerics of interbasis: from a network with cuts to the modules of its interaction graph.

checkpoint -> `load_checkpoint` -> `Network` -> `interaction_basis` -> `interaction_graph` -> `find_modules`
"""

from . import figures as _figures  # noqa: F401 - registers how results are drawn
from .basis.bases import Bases, Basis
from .basis.interaction_basis import interaction_basis
from .basis.moments import collect
from .checkpoints.checkpoint import Checkpoint, load_checkpoint
from .checkpoints.datasets import Dataset
from .checkpoints.families import save_checkpoint
from .circuits.ablation import ablate_modules, isolate_modules
from .circuits.bisection import bisect_edges
from .circuits.experiments import Experiment, ExperimentRecipe, run_experiment
from .circuits.faithfulness import circuit_faithfulness
from .circuits.interventions import Interventions
from .circuits.prediction import predict_losses
from .comparison.coherence import Coherence, label_coherence
from .comparison.comparison import Comparison, compare_partitions
from .comparison.distance import NetworkDistance, network_distance
from .degeneracy.ledger import Ledger, parameter_ledger
from .degeneracy.sparse_representation import SparseNetwork, sparsify
from .degeneracy.synchronised_units import SynchronisedUnits, synchronised_units
from .errors import InterbasisError
from .exchange.graph_files import to_networkx
from .exchange.labels_file import read_groups, read_partition
from .exchange.supernodes import write_supernodes
from .graph.interaction_graph import InteractionGraph
from .graph.strengths import interaction_graph
from .llc.chains import Sampler
from .llc.coefficient import LearningCoefficient, LearningCoefficientCurve
from .llc.estimate import learning_coefficient, learning_coefficient_curve
from .meaning.cards import Cards
from .meaning.describing import describe
from .meaning.labelling import detection_auc, label
from .modules.alignment import align_nodes, coordinate_correlation
from .modules.find_modules import epsilon_profile, find_modules, score_partition
from .modules.mediators import interaction_surface
from .modules.partition import Partition
from .modules.tracking import Tracking, track_modules
from .names import Names
from .network.network import Network
from .pipeline.one_call import Analysis, analyze, run
from .progress import Progress
from .reading.any_graph import read_graph
from .recipe import Recipe
from .refined.coefficients import RefinedCoefficients
from .refined.estimating import module_coefficients, refined_coefficients
from .search.local_search import Effort

__all__ = [
    "Analysis",
    "Bases",
    "Basis",
    "Cards",
    "Checkpoint",
    "Coherence",
    "Comparison",
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
    "Names",
    "Network",
    "NetworkDistance",
    "Partition",
    "Progress",
    "Recipe",
    "RefinedCoefficients",
    "Sampler",
    "SparseNetwork",
    "SynchronisedUnits",
    "Tracking",
    "ablate_modules",
    "align_nodes",
    "analyze",
    "bisect_edges",
    "circuit_faithfulness",
    "collect",
    "compare_partitions",
    "coordinate_correlation",
    "describe",
    "detection_auc",
    "epsilon_profile",
    "find_modules",
    "interaction_basis",
    "interaction_graph",
    "interaction_surface",
    "isolate_modules",
    "label",
    "label_coherence",
    "learning_coefficient",
    "learning_coefficient_curve",
    "load_checkpoint",
    "module_coefficients",
    "network_distance",
    "parameter_ledger",
    "predict_losses",
    "read_graph",
    "read_groups",
    "read_partition",
    "refined_coefficients",
    "run",
    "run_experiment",
    "save_checkpoint",
    "score_partition",
    "sparsify",
    "synchronised_units",
    "to_networkx",
    "track_modules",
    "write_supernodes",
]
