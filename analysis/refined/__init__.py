"""Refined learning coefficients: of modules and what lies between them, heads, sets of parameters, data sets."""

from .coefficients import MediatorDegrees, Part, RefinedCoefficients
from .constraints import constrained_loss, mediating_readout
from .dividing import DividedLayer, ModuleSubspaces, module_subspaces
from .estimating import module_coefficients, refined_coefficients
from .parts import parts_of
from .watched import Watched

__all__ = [
    "DividedLayer",
    "MediatorDegrees",
    "ModuleSubspaces",
    "Part",
    "RefinedCoefficients",
    "Watched",
    "constrained_loss",
    "mediating_readout",
    "module_coefficients",
    "module_subspaces",
    "parts_of",
    "refined_coefficients",
]
