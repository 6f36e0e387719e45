"""The local learning coefficient: losses as functions of the parameters, samplers, chains, diagnostics, estimates."""

from .batch_loss import BatchLoss, Parameters, TrainingLoss, number
from .chains import EXECUTIONS, PRECONDITIONERS, Chains, Plan, Sampler, run_chains
from .coefficient import LearningCoefficient, LearningCoefficientCurve, nothing_varied, packed, unpacked
from .curvature import Below, Curvature, Metric, affordable_pairs, exact_curvature, fits_densely, leading_curvature
from .diagnostics import ControlVariate, Diagnostics, Evidence, control_variate, judge, mean_with_error
from .estimate import learning_coefficient, learning_coefficient_curve
from .kernels import (
    KERNELS,
    HamiltonianMonteCarlo,
    Info,
    Kernel,
    NoseHoover,
    Potential,
    PreconditionedLangevin,
    State,
    StochasticLangevin,
    langevin,
    normal,
)
from .landscape import Function, Landscape
from .network_loss import DENSE, NetworkLandscape, behavioural_loss, training_loss
from .subspace import Block, Directions, Restricted, Subspace, orthonormal_basis, subspace_of
from .ways import FAILURES, PlainAutograd, Transforms, Way, gradient, products_of, short

__all__ = [
    "DENSE",
    "EXECUTIONS",
    "FAILURES",
    "KERNELS",
    "PRECONDITIONERS",
    "BatchLoss",
    "Below",
    "Block",
    "Chains",
    "ControlVariate",
    "Curvature",
    "Diagnostics",
    "Directions",
    "Evidence",
    "Function",
    "HamiltonianMonteCarlo",
    "Info",
    "Kernel",
    "Landscape",
    "LearningCoefficient",
    "LearningCoefficientCurve",
    "Metric",
    "NetworkLandscape",
    "NoseHoover",
    "Parameters",
    "PlainAutograd",
    "Plan",
    "Potential",
    "PreconditionedLangevin",
    "Restricted",
    "Sampler",
    "State",
    "StochasticLangevin",
    "Subspace",
    "TrainingLoss",
    "Transforms",
    "Way",
    "affordable_pairs",
    "behavioural_loss",
    "control_variate",
    "exact_curvature",
    "fits_densely",
    "gradient",
    "judge",
    "langevin",
    "leading_curvature",
    "learning_coefficient",
    "learning_coefficient_curve",
    "mean_with_error",
    "normal",
    "nothing_varied",
    "number",
    "orthonormal_basis",
    "packed",
    "products_of",
    "run_chains",
    "short",
    "subspace_of",
    "training_loss",
    "unpacked",
]
