"""Check that data come in the same order in every pass, since targets and values are paired by order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, zip_longest
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from ..checkpoints.datasets import Dataset
from ..errors import DataError
from ..network.batches import Batch, tensors

__all__ = ["read_in_order"]

_REMEDY = (
    "what is paired with data points by order (targets, classes, indices of data points) would belong to others. Give "
    "the order of the data set (shuffle=False), or read the batches once, batches = list(loader), and take the targets "
    "from what was read"
)

_RANDOM = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)

_NONE = object()


def read_in_order(batches: Iterable[Batch]) -> list[Batch]:
    """Read all batches, and check that every pass gives them in the order of the data.

    A list, tuple or `Dataset` is accepted as it is. The sampler of a torch `DataLoader` must give 0, 1, 2, ... Any
    other iterable is read twice, and must give the same data points in the same order.

    Raises:
        DataError: the order differs between passes, or a sampler gives other indices than 0, 1, 2, ...

    >>> from torch.utils.data import DataLoader
    >>> [len(batch) for batch in read_in_order(DataLoader(torch.zeros(5, 2), batch_size=3))]
    [3, 2]
    """
    if isinstance(batches, list | tuple | Dataset):
        return list(batches)
    if isinstance(batches, DataLoader):
        if not isinstance(batches.dataset, IterableDataset):
            _require_counting(batches.batch_sampler or batches.sampler)
    elif getattr(batches, "_dataset_kind", None) == 0:  # the loader reads a data set with indices
        _require_counting(getattr(batches, "_index_sampler", ()))
    if isinstance(batches, Iterator):
        return list(batches)  # readable only once: there is no other pass to compare with
    first = list(batches)
    for index, (one, other) in enumerate(zip_longest(first, batches, fillvalue=_NONE)):
        if other is _NONE and index == 0:
            break  # exhausted: it can be read only once
        if not _same(one, other):
            raise DataError(f"the data come in another order in each pass (batch {index} differs): {_REMEDY}")
    return first


def _require_counting(indices: Iterable[Any]) -> None:
    """Refuse a sampler, of data points or of batches, whose indices are not 0, 1, 2, ..."""
    sampler = getattr(indices, "sampler", indices)
    name = type(sampler).__name__
    if isinstance(sampler, _RANDOM):
        raise DataError(f"the loader shuffles, another order in each pass (sampler {name}): {_REMEDY}")
    flat = chain.from_iterable(i if isinstance(i, Iterable) else [i] for i in indices)
    for place, index in enumerate(flat):
        if index != place:
            raise DataError(
                f"the loader gives another order than its data set (sampler {name}: data point {index} comes at "
                f"place {place}): {_REMEDY}"
            )


def _same(one: Any, other: Any) -> bool:
    """Return whether two batches hold the same tensors; NaN equals itself."""
    if one is _NONE or other is _NONE:
        return False
    a, b = tensors(one), tensors(other)
    return len(a) == len(b) and all(
        x.shape == y.shape
        and x.dtype == y.dtype
        and (torch.equal(x, y) or bool(torch.isclose(x, y, rtol=0, atol=0, equal_nan=True).all()))
        for x, y in zip(a, b, strict=True)
    )
