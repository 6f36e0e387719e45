"""The interaction basis of each cut: moments of activations and Jacobians, the rotation, PCA and neuron bases."""

from .bases import KINDS, OUTPUTS, ROTATIONS, Bases, Basis
from .cotangents import PositionSigns, Probes, output_cotangents
from .jacobians import (
    disjoint_positions,
    ends_in_output,
    gate_moments,
    one_position,
    output_moments,
    pair_moments,
    pair_rows,
    pair_trace,
    signed_rows,
)
from .moments import ActivationMoments, JacobianMoments, Moments, collect
from .rotation import degenerate_runs, pair_angle, rotate, sparsity

__all__ = [
    "KINDS",
    "OUTPUTS",
    "ROTATIONS",
    "ActivationMoments",
    "Bases",
    "Basis",
    "JacobianMoments",
    "Moments",
    "PositionSigns",
    "Probes",
    "collect",
    "degenerate_runs",
    "disjoint_positions",
    "ends_in_output",
    "gate_moments",
    "one_position",
    "output_cotangents",
    "output_moments",
    "pair_angle",
    "pair_moments",
    "pair_rows",
    "pair_trace",
    "rotate",
    "signed_rows",
    "sparsity",
]
