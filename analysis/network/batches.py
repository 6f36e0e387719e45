"""Batches: the arguments of a model, which of their tensors hold data points, and how many there are.

The leading axis of a tensor in a batch is the data point. A tensor whose leading axis has length one beside longer
ones (position ids of shape (1, T)), a number, and whatever is not a tensor are shared by all data points. Tensors are
found in tuples, lists, mappings of any kind and dataclasses.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence, Sized
from contextlib import contextmanager
from copy import copy
from typing import Any, TypeAlias, cast

import torch
from jaxtyping import Int
from torch import Tensor

from ..devices.device import lacks_memory, moved, summed, too_large
from ..errors import DataError
from ..progress import ProgressCallback, report

__all__ = [
    "Batch",
    "arguments",
    "batch_size",
    "describe",
    "doubled",
    "joined",
    "map_points",
    "map_tensors",
    "naming_batch",
    "point_axes",
    "read_batches",
    "take_points",
    "tensors",
]

Batch: TypeAlias = Any

"""A tensor (the model's argument), a tuple or list (its arguments) or a mapping (its keyword arguments)."""


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Apply a function to every tensor in a structure and return the same structure.

    Mappings that cannot be changed become dicts.

    >>> map_tensors(lambda v: v + 1, {"x": torch.tensor([1.0]), "scale": 2})
    {'x': tensor([2.]), 'scale': 2}
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        changed = {key: map_tensors(function, part) for key, part in value.items()}
        if type(value) is dict or not isinstance(value, MutableMapping):
            return changed
        other = copy(value)
        for key, part in changed.items():
            other[key] = part
        return other
    if isinstance(value, tuple | list):
        parts = [map_tensors(function, part) for part in value]
        if hasattr(value, "_fields"):
            return type(value)(*parts)
        return tuple(parts) if isinstance(value, tuple) else parts
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        held = copy(value)
        for name in _fields(value):
            object.__setattr__(held, name, map_tensors(function, getattr(value, name)))
        return held
    return value


def tensors(value: Any) -> list[Tensor]:
    """List every tensor in a structure, in order.

    >>> [v.shape for v in tensors((torch.ones(2), {"a": [torch.ones(3, 1)], "b": "text"}))]
    [torch.Size([2]), torch.Size([3, 1])]
    """
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        parts: Iterable[Any] = value.values()
    elif isinstance(value, tuple | list):
        parts = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = (getattr(value, name) for name in _fields(value))
    else:
        parts = ()
    return [tensor for part in parts for tensor in tensors(part)]


def arguments(
    batch: Batch, kind: torch.dtype | None = None, device: torch.device | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments of the model, as copies, since the model may change them.

    Args:
        batch: what the model is called with.
        kind: type of the model's parameters; floats of a type that it represents exactly are converted to it.
        device: where the model is; None leaves the tensors where they are.

    >>> arguments((torch.ones(1, dtype=torch.bfloat16), 3), torch.float64)
    ((tensor([1.], dtype=torch.float64), 3), {})
    """

    def given(value: Tensor) -> Tensor:
        value = value.detach().clone()
        value = value if device is None else moved(value, device)
        wider = kind is not None and value.is_floating_point() and torch.promote_types(value.dtype, kind) == kind
        return value.to(kind) if wider else value

    copies = map_tensors(given, dict(batch) if isinstance(batch, Mapping) else batch)
    if isinstance(copies, dict):
        return (), copies
    return (tuple(copies) if isinstance(copies, tuple | list) else (copies,)), {}


def batch_size(batch: Batch) -> int:
    """Return the number of data points: the length of all leading axes except those of length one.

    >>> batch_size({"input_ids": torch.zeros(32, 5), "position_ids": torch.arange(5)[None]})
    32

    Raises:
        DataError: leading axes of different lengths, or no tensor with a leading axis.
    """
    sizes = {len(v) for v in tensors(batch) if v.ndim}
    if not sizes:
        raise DataError(f"a batch of type {type(batch).__name__} holds no tensor with an axis of data points")
    if len(sizes - {1}) > 1:
        raise DataError(
            f"a batch of {describe(batch)} has leading axes of different lengths: the leading axis is the data point. "
            "Give arguments that all data points share a leading axis of length one (position_ids[None]), or bind "
            "them inside the model"
        )
    return max(sizes - {1}, default=1)


def map_points(function: Callable[[Tensor], Any], batch: Batch) -> Batch:
    """Apply a function to the tensors that hold data points; shared tensors stay as they are."""
    n = batch_size(batch)
    return map_tensors(lambda v: function(v) if v.ndim and len(v) == n else v, batch)


def take_points(batch: Batch, index: slice | Int[Tensor, " k"]) -> Batch:
    """Select some of the data points; shared tensors stay as they are.

    >>> take_points((torch.arange(6).reshape(3, 2), torch.tensor([[7, 8]])), torch.tensor([2, 0]))
    (tensor([[4, 5],
            [0, 1]]), tensor([[7, 8]]))
    """
    return map_points(lambda v: v[index], batch)


def point_axes(batch: Batch) -> Any:
    """Return the structure with 0 for tensors of data points and None for the rest, as `in_dims` of `torch.vmap`."""
    n = batch_size(batch)

    def axis(value: Any) -> Any:
        if isinstance(value, Tensor):
            return 0 if value.ndim and len(value) == n else None
        if isinstance(value, Mapping):
            return {key: axis(part) for key, part in value.items()}
        if isinstance(value, tuple | list):
            parts = [axis(part) for part in value]
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        return None

    return axis(batch)


def joined(batches: Sequence[Batch]) -> Batch | None:
    """Join batches into one, or return None where structures, shapes or shared arguments differ.

    >>> shared = torch.tensor([[1.0, 2.0]])
    >>> joined([(torch.zeros(2, 1), shared), (torch.ones(3, 1), shared)])[0].shape
    torch.Size([5, 1])
    """
    columns = [tensors(batch) for batch in batches]
    skeletons = [map_tensors(lambda v: _Hole(v.dtype, v.shape[1:]), batch) for batch in batches]
    sizes = [batch_size(batch) for batch in batches]
    if any(len(column) != len(columns[0]) for column in columns) or any(s != skeletons[0] for s in skeletons):
        return None
    whole = []
    for parts in zip(*columns, strict=True):
        own = [bool(v.ndim) and len(v) == n for v, n in zip(parts, sizes, strict=True)]
        if all(own):
            whole.append(torch.cat(parts))
        elif all(v.shape == parts[0].shape and torch.equal(v, parts[0]) for v in parts):
            whole.append(parts[0])
        else:
            return None
    rest = iter(whole)
    return map_tensors(lambda _: next(rest), batches[0])


def read_batches(batches: Iterable[Batch], step: str, progress: ProgressCallback | None) -> Iterator[Batch]:
    """Iterate over the data, refusing data that is empty or can be read only once; mappings become dicts.

    Raises:
        DataError: the data is empty, can be read only once, or is one tensor or mapping instead of a list of batches.
    """
    if isinstance(batches, Iterator):
        raise DataError("the batches can be read only once: pass a list or a DataLoader, not a generator")
    if isinstance(batches, Tensor | Mapping | str):
        seen = f"one tensor of shape {tuple(batches.shape)}" if isinstance(batches, Tensor) else type(batches).__name__
        raise DataError(f"batches is {seen}: expected a list of batches, [batch]")
    if not isinstance(batches, Iterable) and not hasattr(batches, "__getitem__"):
        raise DataError(f"batches is a {type(batches).__name__}: expected a list of batches, or a DataLoader")
    empty = True
    for batch in report(batches, step, progress):
        empty = False
        if any(v.ndim and not len(v) for v in tensors(batch)):
            raise DataError("a batch holds no data point: leave empty batches out")
        yield dict(batch) if isinstance(batch, Mapping) else batch
    if empty:
        raise DataError(
            "there are no batches: expected at least one data point, from data that can be read any number of times"
        )


def doubled(batches: Iterable[Batch]) -> Iterable[Batch]:
    """Return batches whose floating point tensors are converted to float64 each time they are read.

    >>> [batch.dtype for batch in doubled([torch.ones(1), torch.ones(1, dtype=torch.int64)])]
    [torch.float64, torch.int64]

    Raises:
        DataError: the batches can be read only once.
    """
    if iter(batches) is batches:
        raise DataError("the batches can be read only once: pass a list or a DataLoader, not a generator")
    return _Doubled(batches)


class _Doubled:
    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(cast("Sized", self._batches))  # TypeError where they have none, which `report` expects

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            yield map_tensors(lambda v: summed(v) if v.is_floating_point() else v, batch)


_WIDTHS = re.compile(r"mat1 and mat2 shapes cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)")


@contextmanager
def naming_batch(batch: Batch) -> Iterator[None]:
    """Turn an error of the model into a DataError that describes the batch."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        if lacks_memory(error):
            raise DataError(too_large(batch_size(batch), "a forward pass")) from error
        hint = ""
        if isinstance(batch, tuple | list):
            hint = "; a tuple holds the arguments of the model: labels do not belong there (pass them as targets=)"
        kinds = sorted({str(v.dtype).removeprefix("torch.") for v in tensors(batch)})
        if kinds and any(word in str(error) for word in ("dtype", "scalar type")):
            hint = f"; the batch holds {', '.join(kinds)}: convert it to the type of the model's parameters" + hint
        widths = _WIDTHS.search(str(error))  # of torch.matmul, which says it in its own words
        said = f"a layer that takes {widths[2]} features was given {widths[1]}" if widths else str(error)
        raise DataError(f"the model failed on a batch of {describe(batch)}: {said}{hint}") from error


def describe(batch: Batch) -> str:
    """Describe the shapes of the tensors of a batch, for messages."""
    shapes = [str(tuple(v.shape)) for v in tensors(batch)]
    return "tensors of shape " + ", ".join(shapes) if shapes else f"type {type(batch).__name__}"


@dataclasses.dataclass(frozen=True)
class _Hole:
    """A placeholder for a tensor, used to compare structures."""

    dtype: torch.dtype
    shape: torch.Size


def _fields(value: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(value)]
