"""Hooks that read and replace tensors during a forward pass, and what holds a model at rest meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from threading import Lock
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..devices.device import device_of, find_device, placed
from ..errors import CutError
from .cuts import Place, first_tensor, replace_tensor
from .layouts import Layout, swap_of

__all__ = ["Kept", "Visit", "as_sequence", "as_written", "at_rest", "copied", "copied_to", "hooked", "with_gradients"]

Visit: TypeAlias = Callable[[Place, Tensor], Tensor]


def hooked(module: nn.Module, place: Place, visit: Visit) -> RemovableHandle:
    """Call `visit(place, tensor)` at each place during forward passes and put there what it returns."""
    if not place.is_input:
        return module.register_forward_hook(
            lambda _, __, value: replace_tensor(value, visit(place, first_tensor(value, place.name)))
        )

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        held: Any = args or kwargs
        changed = replace_tensor(held, visit(place, first_tensor(held, place.name)))
        return (changed, kwargs) if args else (args, changed)

    return module.register_forward_pre_hook(before, with_kwargs=True)


class Kept:
    """A visitor that stores copies of the tensors it sees, since later modules may change them in place."""

    def __init__(self) -> None:
        self.values: dict[Place, Tensor] = {}

    def __call__(self, place: Place, value: Tensor) -> Tensor:
        """Store a copy of the tensor and leave it in place."""
        self.values[place] = value.clone()
        return value


def as_sequence(value: Tensor, name: str, layout: Layout | None = None) -> Tensor:
    """Return a tensor as (batch, positions, width).

    A matrix gets one position, and one number per data point becomes a width of one. Tensors of four or more axes are
    (batch, channels, height, width): every point of the picture is a position, unless their layout is True.

    Raises:
        CutError: another number of axes, or no floats.
    """
    if value.ndim == 1 and value.is_floating_point():
        return value[:, None, None]
    if value.ndim < 2 or not value.is_floating_point() or (value.ndim > 3 and layout is False):
        raise CutError(
            f"{name!r} has shape {tuple(value.shape)} of {value.dtype}: expected floats of (batch, width) or "
            "(batch, positions, width), or (batch, channels, height, width)"
        )
    if value.ndim == 2:
        return value[:, None]
    if value.ndim > 3:
        return value.flatten(1, -2) if layout is True else value.flatten(2).transpose(1, 2)
    swap = swap_of(layout)
    return value if swap is None else value.transpose(*swap)


def as_written(sequence: Tensor, like: Tensor, layout: Layout | None = None) -> Tensor:
    """Undo `as_sequence`: return the tensor in the layout of its place."""
    if like.ndim > 3 and layout is not True:
        return sequence.transpose(1, 2).reshape(like.shape)
    swap = swap_of(layout)
    return sequence.transpose(*swap) if swap and like.ndim == 3 else sequence.reshape(like.shape)


@contextmanager
def with_gradients() -> Iterator[None]:
    """Turn gradients on, and `torch.inference_mode` and `torch.autocast` off; also a decorator."""
    with torch.inference_mode(False), torch.enable_grad(), _own_precision():
        yield


@contextmanager
def _own_precision() -> Iterator[None]:
    with ExitStack() as stack:
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def copied(model: nn.Module) -> nn.Module:
    """Copy a model, also one whose weights are computed by hooks (weight_norm, pruning), where deepcopy fails."""
    # computed weights carry their autograd graph, which cannot be copied
    computed = [v for module in model.modules() for v in vars(module).values() if isinstance(v, Tensor)]
    memo: dict[int, Any] = {id(value): value.detach().clone() for value in computed if not value.is_leaf}
    return deepcopy(model, memo)


def copied_to(model: nn.Module, device: str | torch.device | None) -> nn.Module:
    """Return a copy of a model on a device; the model itself where it is there already, or for None.

    Raises:
        InputError: an unknown device, or one that is not there.
    """
    where = None if device is None else find_device(device)
    if where is None or _is_on(device_of(model), where):
        return model
    return placed(copied(model), where)


def _is_on(device: torch.device, wanted: torch.device) -> bool:
    return device.type == wanted.type and wanted.index in (None, device.index)


@contextmanager
def at_rest(model: nn.Module, *, gradients: bool | None = False, restored: Iterable[str] = ()) -> Iterator[None]:
    """Make the model a function of its parameters and the batch, for the time of a forward pass.

    The model is put into evaluation mode and runs eagerly even if it was compiled, without the caller's
    `torch.autocast`, without torch's fast path for attention, whose numbers differ from those with gradients, and
    without the cache of keys and values that the `config` of a model of transformers asks for.

    Args:
        model: any module; its modes and the `requires_grad` flags of its parameters are restored.
        gradients: whether parameters require gradients; None leaves them as they are.
        restored: names of buffers that the model writes into, which are restored.
    """
    modes = [(module, module.training) for module in model.modules()]
    parameters = [] if gradients is None else [p for p in model.parameters() if p.is_floating_point()]
    wanted = [(parameter, parameter.requires_grad) for parameter in parameters]
    before = [(*_owner(model, name), value, value.clone()) for name, value in _buffers(model, restored).items()]
    caching = _caching(model)
    try:
        model.eval()
        for config in caching:
            config.use_cache = False
        for parameter in parameters:
            parameter.requires_grad_(bool(gradients))
        with _EAGER, _own_precision():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, grad in wanted:
            parameter.requires_grad_(grad)
        for config in caching:
            config.use_cache = True
        with torch.no_grad():
            for owner, name, buffer, value in before:
                owner._buffers[name] = buffer.copy_(value)


def _caching(model: nn.Module) -> list[Any]:
    """Return the configs of modules that ask for a cache, as those of transformers do, each once."""
    configs = {id(held): held for module in model.modules() if (held := vars(module).get("config")) is not None}
    return [config for config in configs.values() if getattr(config, "use_cache", None) is True]


def _buffers(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    wanted = set(names)
    return {name: value for name, value in model.named_buffers() if name in wanted} if wanted else {}


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, last = name.rpartition(".")
    return model.get_submodule(path), last


class _Eager:
    """Switches of torch for the whole process, set while at least one of our runs is under way in any thread."""

    def __init__(self) -> None:
        self._lock, self._inside, self._stack = Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
                torch.backends.mha.set_fastpath_enabled(False)
                if "torch._dynamo" in sys.modules:  # not imported: nothing is compiled
                    self._stack.enter_context(torch.compiler.set_stance("force_eager"))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._stack.pop_all().close()


_EAGER = _Eager()
