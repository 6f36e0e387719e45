"""Checkpoints and data: families of models that interbasis can rebuild, files of weights, data sets."""

from .checkpoint import Checkpoint, components_of, load_checkpoint
from .components import Component, Components, Part
from .datasets import DATASETS, Dataset, load_dataset, modular_addition, read_dataset
from .families import Family, load_factory, save_checkpoint
from .mlp import MLP
from .pairs import Pair, ignores_pairing, join_pairs, read_pairs, reduction_of, sliceable
from .places import positions_at
from .tensors import converted, named, parse_tensors, read_tensors
from .transformer import ModularAdditionTransformer
from .two_digits import CLASSES, accuracy, train_two_digits
from .weights import as_double, fill, refuse_shared_memory, stored_once, tied

__all__ = [
    "CLASSES",
    "DATASETS",
    "MLP",
    "Checkpoint",
    "Component",
    "Components",
    "Dataset",
    "Family",
    "ModularAdditionTransformer",
    "Pair",
    "Part",
    "accuracy",
    "as_double",
    "components_of",
    "converted",
    "fill",
    "ignores_pairing",
    "join_pairs",
    "load_checkpoint",
    "load_dataset",
    "load_factory",
    "modular_addition",
    "named",
    "parse_tensors",
    "positions_at",
    "read_dataset",
    "read_pairs",
    "read_tensors",
    "reduction_of",
    "refuse_shared_memory",
    "save_checkpoint",
    "sliceable",
    "stored_once",
    "tied",
    "train_two_digits",
]
