"""Effective parameters: the parameter ledger, rank of the Hessian, synchronised units, sparse representation."""

from .blocks import FreeBlocks
from .counts import Block, Census, LayerLedger
from .free_directions import Moves, Part, independent
from .gradients import (
    PlainSize,
    check_derivatives,
    check_layers,
    explained_layers,
    plain_factor,
    plain_size,
    unused_parameters,
)
from .hessian_rank import (
    Fit,
    HessianRank,
    estimated_rank,
    exact_rank,
    gradient_factor,
    gradient_rows,
    kronecker_fit,
    sampled_fit,
    sampled_gradients,
    sampled_rank,
)
from .layer_trace import LayerTrace, arranged, jacobian_blocks, trace_layers
from .layers import AttentionHeads, Layer, attention_heads, find_layers, layer_modules, layer_weight, parameter_parts
from .ledger import Ledger, parameter_ledger
from .sparse_representation import SparseLayer, SparseNetwork, sparsify
from .synchronised_units import (
    Activation,
    FiringPatterns,
    HeadPatterns,
    SynchronisedUnits,
    activations_between,
    check_scale,
    complete_linkage,
)

__all__ = [
    "Activation",
    "AttentionHeads",
    "Block",
    "Census",
    "FiringPatterns",
    "Fit",
    "FreeBlocks",
    "HeadPatterns",
    "HessianRank",
    "Layer",
    "LayerLedger",
    "LayerTrace",
    "Ledger",
    "Moves",
    "Part",
    "PlainSize",
    "SparseLayer",
    "SparseNetwork",
    "SynchronisedUnits",
    "activations_between",
    "arranged",
    "attention_heads",
    "check_derivatives",
    "check_layers",
    "check_scale",
    "complete_linkage",
    "estimated_rank",
    "exact_rank",
    "explained_layers",
    "find_layers",
    "gradient_factor",
    "gradient_rows",
    "independent",
    "jacobian_blocks",
    "kronecker_fit",
    "layer_modules",
    "layer_weight",
    "parameter_ledger",
    "parameter_parts",
    "plain_factor",
    "plain_size",
    "sampled_fit",
    "sampled_gradients",
    "sampled_rank",
    "sparsify",
    "trace_layers",
    "unused_parameters",
]
