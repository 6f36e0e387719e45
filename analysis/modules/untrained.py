"""An untrained copy of a network, the control for modules that come from the architecture alone."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature

import torch
from torch import Tensor, nn

from ..devices.device import device_of
from ..errors import InputError
from ..network.hooks import copied

__all__ = ["untrained_copy"]


def untrained_copy(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Copy a model and draw its parameters anew, as before training.

    Models that initialise each module (`_init_weights(module)`, as in Hugging Face) and modules with
    `reset_parameters` (most layers of torch) do so; the entries of every other parameter are shuffled, which keeps
    their distribution. Buffers stay, except running statistics that `reset_parameters` resets; parameters stay
    shared. The state of torch's random numbers is restored.

    Args:
        model: the model; it is not changed.
        seed: seed of the draws.

    Raises:
        InputError: the model cannot be copied, or its own initialisation fails.

    >>> layer = nn.Linear(2, 2)
    >>> copy = untrained_copy(layer)
    >>> bool((copy.weight != layer.weight).any()), bool((untrained_copy(layer).weight == copy.weight).all())
    (True, True)
    """
    try:
        return _drawn_anew(copied(model).cpu(), seed).to(device_of(model))
    except Exception as error:  # any error: the methods are the model's own
        raise InputError(f"an untrained copy cannot be made of the model: {type(error).__name__}: {error}") from error


def _drawn_anew(copy: nn.Module, seed: int) -> nn.Module:
    before = {name: parameter.detach().clone() for name, parameter in copy.named_parameters()}
    with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device("cpu"):
        torch.manual_seed(seed)
        own: Callable[[nn.Module], None] | None = getattr(copy, "_init_weights", None)
        for module in copy.modules():
            if callable(own) and _takes_a_module(own):
                own(module)
            elif callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        for name, parameter in copy.named_parameters():
            if torch.equal(parameter, before[name]):
                parameter.copy_(_shuffled(parameter))
    return copy


def _takes_a_module(function: Callable[..., None]) -> bool:
    """Return whether a function takes a single module; others of this name initialise the whole model."""
    try:
        signature(function).bind(nn.Identity())
    except (TypeError, ValueError):
        return False
    return True


def _shuffled(parameter: Tensor) -> Tensor:
    flat = parameter.flatten()
    return flat[torch.randperm(len(flat), device="cpu")].reshape(parameter.shape)
