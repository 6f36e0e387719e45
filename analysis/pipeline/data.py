"""Data as users have it, a tensor, a list or a DataLoader, as batches of arguments of the model and their labels."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..checkpoints.datasets import Dataset as NamedDataset
from ..errors import DataError
from ..names import Names
from ..network.batches import Batch, batch_size, describe, joined, take_points, tensors
from ..progress import ProgressCallback, report
from ..results import by_value

__all__ = ["Data", "read_data"]

_POINTS = 256  # data points in a batch, where the data come in one piece


@by_value
@dataclass(frozen=True)
class Data:
    """Batches of arguments of a model, in memory, so that every pass over the data sees the same numbers.

    Attributes:
        batches: arguments of the model, the data point first.
        targets: the labels of all data points in order (n, ...); None where there are none.
        names: names of tokens, features, outputs and classes, where the data have them.
    """

    batches: tuple[Batch, ...]
    targets: Tensor | None = None
    names: Names = field(default_factory=Names)

    @property
    def n(self) -> int:
        """The number of data points."""
        return sum(map(batch_size, self.batches))


def read_data(
    model: nn.Module, data: Any, *, labels: bool | None = None, progress: ProgressCallback | None = None
) -> Data:
    """Read data into batches of arguments of the model, and labels.

    Args:
        model: the model; how many arguments its `forward` takes tells labels from arguments.
        data: a tensor, an array, or a tensor per argument in a tuple or a mapping, of all data points; a `Dataset` of
            torch, or one of ours, which brings targets and names; or batches, in a list, a DataLoader or anything else
            that can be iterated over: each a tensor, a tuple (arguments, then labels) or a mapping of arguments.
        labels: whether the last entry of each tuple holds labels; None where the model tells.
        progress: called after each batch.

    Raises:
        DataError: no data, single data points instead of batches, or tuples of which it is not clear whether they end
            in labels.

    >>> x, y = torch.zeros(300, 2), torch.zeros(300, dtype=torch.int64)
    >>> found = read_data(nn.Linear(2, 1), torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 100))
    >>> len(found.batches), found.n, found.targets.shape
    (3, 300, torch.Size([300]))
    >>> len(read_data(nn.Linear(2, 1), x).batches)
    2
    """
    batches: list[Batch] = []
    targets: list[Tensor] = []
    for batch in report(_batches(data), "reading data", progress):
        given, label = _parted(model, _as_tensors(batch), labels)
        if label is not None and len(label) != batch_size(given):
            raise DataError(f"a batch holds {batch_size(given)} data points and {len(label)} labels: expected one each")
        if any(v.ndim and not len(v) for v in tensors(given)):
            continue
        batches.append(given)
        if label is not None:
            targets.append(label)
    if not batches:
        raise DataError("there are no data: expected at least two data points")
    if sum(map(batch_size, batches)) < 2:
        raise DataError("there is one data point: expected at least two")
    if targets and (len(targets) != len(batches) or len({v.shape[1:] for v in targets}) > 1):
        raise DataError("the labels of some batches have other shapes than those of others: expected one kind of label")
    if isinstance(data, NamedDataset):
        return Data(tuple(_larger(batches)), data.targets, data.names)
    return Data(tuple(_larger(batches)), torch.cat(targets) if targets else None)


def _larger(batches: list[Batch]) -> list[Batch]:
    """Join batches of one data point each, which nothing can be checked on, where they fit together."""
    if any(batch_size(batch) > 1 for batch in batches):
        return batches
    parts = [joined(batches[start : start + _POINTS]) for start in range(0, len(batches), _POINTS)]
    return batches if any(part is None for part in parts) else parts


def _batches(data: Any) -> Iterable[Any]:
    """Split data that come in one piece; everything else holds batches already."""
    if isinstance(data, Tensor | np.ndarray | Mapping) or (isinstance(data, tuple) and _all_tensors(data)):
        whole = _as_tensors(data)
        if not tensors(whole):
            raise DataError(f"the data are a {type(data).__name__} without a tensor: expected data points")
        n = batch_size(whole)
        return [take_points(whole, slice(start, start + _POINTS)) for start in range(0, n, _POINTS)]
    if isinstance(data, Dataset):
        return DataLoader(data, batch_size=_POINTS)
    if isinstance(data, list) and len(data) == 2 and _all_tensors(data) and _look_like_labels(*data):
        raise DataError(
            f"the data are a list of two tensors of {len(data[0])} entries, which may be two batches, or inputs and "
            "labels: pass a tuple for inputs and labels, or torch.cat(...) of the batches"
        )
    if isinstance(data, Iterator):
        raise DataError("the data are a generator: pass a list or a DataLoader, or list(...) of it")
    if isinstance(data, str | bytes) or not (isinstance(data, Iterable) or hasattr(data, "__getitem__")):
        raise DataError(f"the data are a {type(data).__name__}: expected a tensor, a list of batches or a DataLoader")
    return cast("Iterable[Any]", data)


def _look_like_labels(inputs: Any, labels: Any) -> bool:
    """Return whether the second of two tensors is no batch as the first is, but has an entry for each data point."""
    return len(inputs) == len(labels) and (inputs.shape[1:] != labels.shape[1:] or inputs.dtype != labels.dtype)


def _all_tensors(data: Sequence[Any]) -> bool:
    return bool(data) and all(isinstance(part, Tensor | np.ndarray) for part in data)


def _as_tensors(batch: Any) -> Any:
    """Convert arrays to tensors; mappings become dicts."""
    if isinstance(batch, np.ndarray):
        if batch.dtype.kind not in "biufc":
            raise DataError(f"an array of type {batch.dtype} in the data: expected numbers; number classes with names")
        return torch.from_numpy(batch)
    if isinstance(batch, Mapping):
        return {name: _as_tensors(part) for name, part in batch.items()}
    if isinstance(batch, list | tuple) and not hasattr(batch, "_fields"):
        return type(batch)(map(_as_tensors, batch))
    return batch


def _parted(model: nn.Module, batch: Any, labels: bool | None) -> tuple[Batch, Tensor | None]:
    """Part a batch into the arguments of the model and the labels, if it ends in labels or has them by name."""
    if isinstance(batch, Mapping) and "labels" in batch and labels is not False:
        return {name: value for name, value in batch.items() if name != "labels"}, _label(batch["labels"])
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        if labels:
            raise DataError(f"a batch is {describe(batch)} without labels: labels=True needs tuples that end in them")
        return (batch[0] if isinstance(batch, tuple | list) and batch else batch), None
    if not isinstance(batch[-1], Tensor) or batch[-1].ndim == 0:
        batch = (*batch[:-1], _label(batch[-1]))
    if not (_ends_in_labels(model, len(batch)) if labels is None else labels):
        return tuple(batch), None
    given = tuple(batch[:-1])
    return (given[0] if len(given) == 1 else given), batch[-1].detach()


def _label(value: Any) -> Tensor:
    """Return labels as a tensor, one entry or row for each data point."""
    try:
        found = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value), device="cpu")
    except (TypeError, ValueError):
        found = torch.zeros((), device="cpu")
    if found.ndim == 0:
        raise DataError(
            f"a batch ends in a {type(value).__name__}, or has it as labels, without a number for each data point: "
            "expected labels in a tensor, one for each data point, and batches of several data points; number classes "
            "that have names"
        )
    return found.detach()


def _ends_in_labels(model: nn.Module, entries: int) -> bool:
    """Return whether batches of so many entries hold one more than the model takes as arguments.

    Raises:
        DataError: both numbers fit the model, or none does.
    """
    least, most = _n_arguments(model)
    with_labels, without = least <= entries - 1 <= most, least <= entries <= most
    if with_labels != without:
        return with_labels
    takes = f"{least}" if least == most else f"{least} or more" if math.isinf(most) else f"{least} to {most:.0f}"
    said = f"batches hold {entries} entries, and the model takes {takes} arguments"
    if without:
        raise DataError(f"{said}: say whether the last entry holds labels, labels=True or labels=False")
    raise DataError(f"{said}: expected a batch to hold the arguments, and possibly the labels after them")


def _n_arguments(model: nn.Module) -> tuple[int, float]:
    """Return how many arguments `forward` takes, at least and at most; wrappers take those of their model."""
    parameters = inspect.signature(model.forward).parameters.values()
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        inner = dict(model.named_children())
        wraps = len(inner) == 1 and not {"_orig_mod", "module"}.isdisjoint(inner)  # compiled, parallel, averaged
        return _n_arguments(*inner.values()) if wraps else (0, math.inf)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return sum(p.default is p.empty for p in positional), float(len(positional))
