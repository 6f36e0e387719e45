"""A device without a device: tensors whose numbers are on the CPU, and that take part in nothing with those there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

NAME = "meta"  # of the device: the one beside the CPU that every build of torch knows

_ANYWHERE = ("aten.copy_", "aten._to_copy", "aten.index.Tensor", "aten.index_put", "aten._index_put_impl_")
_PLACED = ("device", "pin_memory")


class Elsewhere(Tensor):
    """A tensor of the device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=NAME,
        )
        made.held = held
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Elsewhere({self.held})"

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(_of_tensors(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_of_tensors(index), value)

    def tolist(self) -> Any:  # which torch has for its own tensors only
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {}, float64=True)


class _Device(TorchDispatchMode):
    """Has the tensors that are created on the device, or moved there, made."""

    def __init__(self, *, float64: bool) -> None:
        super().__init__()
        self._float64 = float64

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {}, float64=self._float64)


def _of_tensors(index: Any) -> Any:
    """Replace lists, of which torch would make tensors without numbers."""
    parts = index if isinstance(index, tuple) else (index,)
    found = tuple(torch.tensor(part, device="cpu") if isinstance(part, list) else part for part in parts)
    return found if isinstance(index, tuple) else found[0]


@contextmanager
def device(*, float64: bool = True) -> Iterator[str]:
    """Make the device and name it; without `float64` it refuses these numbers, as mps does."""
    with _Device(float64=float64):
        yield NAME


def _computed(func: Any, args: Any, kwargs: dict[str, Any], *, float64: bool) -> Any:
    given = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    there = [value for value in given if isinstance(value, Elsewhere)]
    here = [value for value in given if not isinstance(value, Elsewhere)]
    placed = kwargs.get("device")
    if not there and (placed is None or torch.device(placed).type != NAME):
        return func(*args, **kwargs)
    name = str(func)
    if any(value.is_meta for value in here):
        raise NotImplementedError(f"{name}: torch made a tensor that holds no numbers")
    if there and any(value.ndim for value in here) and not name.startswith(_ANYWHERE):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found {NAME} and cpu")
    if isinstance(kwargs.get("generator"), torch.Generator):
        raise RuntimeError(f"{name}: expected a {NAME!r} device type for generator but found 'cpu'")
    stays = (
        torch.device(placed).type == NAME
        if placed is not None
        else not name.startswith("aten.copy_") or (isinstance(args[0], Elsewhere))
    )
    own = {key: value for key, value in kwargs.items() if key not in _PLACED}
    inner = tree_map(lambda v: v.held if isinstance(v, Elsewhere) else v, (args, own))
    if name.startswith("aten._efficientzerotensor"):  # which has no memory
        func = torch.ops.aten.zeros.default
    found = func(*inner[0], **inner[1], **({"device": "cpu"} if placed is not None else {}))
    if not stays:
        return found if placed is not None else args[0]
    made = tree_map(lambda v: Elsewhere(v) if isinstance(v, Tensor) else v, found)
    if not float64 and any(v.dtype == torch.float64 for v in tree_flatten(made)[0] if isinstance(v, Tensor)):
        raise TypeError(f"{name}: {NAME} doesn't support float64")
    return return_and_correct_aliasing(func, args, kwargs, made) if there else made
