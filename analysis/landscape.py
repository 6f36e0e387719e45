"""Losses as functions of the parameters, under the name that scripts import them by; they are defined in `llc`."""

from .llc.landscape import Function, Landscape
from .llc.network_loss import NetworkLandscape, behavioural_loss, training_loss
from .refined.constraints import constrained_loss, mediating_readout

__all__ = [
    "Function",
    "Landscape",
    "NetworkLandscape",
    "behavioural_loss",
    "constrained_loss",
    "mediating_readout",
    "training_loss",
]
