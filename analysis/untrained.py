"""An untrained copy of a network: the control for what an architecture alone makes of the data."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

__all__ = ["untrained_copy"]


def untrained_copy(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """The same architecture with parameters drawn anew, as before training.

    Models that initialise themselves (`_init_weights`, as those of Hugging Face) and modules with `reset_parameters`
    (all layers of torch) do so; the entries of every other parameter are shuffled, which keeps their distribution.
    Buffers stay, and so does sharing of parameters. torch's own random numbers are left as they were.

    Args:
        model: it is not changed.
        seed: of the draws.

    >>> layer = nn.Linear(2, 2)
    >>> copy = untrained_copy(layer)
    >>> bool((copy.weight != layer.weight).any()), bool((untrained_copy(layer).weight == copy.weight).all())
    (True, True)
    """
    copy = deepcopy(model)
    before = {name: parameter.detach().clone() for name, parameter in copy.named_parameters()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        own: Callable[[nn.Module], None] | None = getattr(copy, "_init_weights", None)
        for module in copy.modules():
            if callable(own):
                own(module)
            elif callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        for name, parameter in copy.named_parameters():
            if torch.equal(parameter, before[name]):
                parameter.copy_(_shuffled(parameter))
    return copy


def _shuffled(parameter: Tensor) -> Tensor:
    flat = parameter.flatten()
    return flat[torch.randperm(len(flat))].reshape(parameter.shape)
