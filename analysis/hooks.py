"""Hooks at the places of a cut, and a model held at rest while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from .cuts import Place, first_tensor, replace_tensor

__all__ = ["at_rest", "hooked"]


def hooked(module: nn.Module, place: Place, visit: Any) -> RemovableHandle:
    """Have `visit(place, tensor)` called with the tensor at a place of the module; what it returns goes there."""
    if not place.is_input:
        return module.register_forward_hook(
            lambda _, __, value: replace_tensor(value, visit(place, first_tensor(value, place.name)))
        )

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        held: Any = args or kwargs
        changed = replace_tensor(held, visit(place, first_tensor(held, place.name)))
        return (changed, kwargs) if args else (args, changed)

    return module.register_forward_pre_hook(before, with_kwargs=True)


@contextmanager
def at_rest(model: nn.Module, *, freeze: bool = True) -> Iterator[None]:
    """Evaluation mode, and (where `freeze`) no parameter gradients, for the time of a forward pass."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters() if freeze]
    try:
        model.eval()
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, grad in wanted:
            parameter.requires_grad_(grad)
