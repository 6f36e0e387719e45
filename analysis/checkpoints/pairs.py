"""Inputs and targets held in memory, and how a user's loss weighs data points over batches.

A training loss is a number per batch: the mean over its data points or their sum. To tell which, every data point of a
batch is taken twice: a mean stays, a sum doubles. The loss of all data is then the value for one batch of all of
them,

    mean   sum_b n_b loss_b / n          sum   sum_b loss_b

so the sizes of batches do not matter. A mean that weighs data points by something else (class weights, `ignore_index`)
is correct only on a single batch. A loss over all pairs of an output and a target, the result of broadcasting shapes
that differ, is never correct (`ignores_pairing`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import DataError, InputError
from ..network.batches import Batch, batch_size, joined, map_tensors, read_batches, take_points, tensors
from ..progress import ProgressCallback

__all__ = ["Pair", "ignores_pairing", "join_pairs", "read_pairs", "reduction_of", "sliceable"]

Pair: TypeAlias = tuple[Batch, Any]

_MERGED = 1024, 10**6  # largest merged batch: data points, numbers

_CLOSE = 1e-4  # values of a loss count as equal up to this relative difference

_POINTS = 24  # data points of a batch at which a loss is examined

_ROUNDING = 64  # epsilons; changes of a loss up to here are rounding

_FELT = 1e3  # a real change is at least so many times that rounding


def read_pairs(batches: Iterable[Any], *, labelled: bool, progress: ProgressCallback | None) -> list[Pair]:
    """Read inputs and targets in batches of a good size: small ones of the same shapes are joined.

    Raises:
        DataError: no data, or (with labels) batches that are not pairs.
    """
    given = list(batches) if isinstance(batches, Iterator) else batches
    held: list[Pair] = []
    for batch in read_batches(given, "data", progress):
        if labelled and not (isinstance(batch, tuple | list) and len(batch) == 2):
            raise DataError(f"a training loss needs pairs of (input, target), not a {type(batch).__name__}")
        pair = (batch[0], batch[1]) if labelled else (batch, None)
        whole = join_pairs([held[-1], pair]) if held else None
        if whole is not None and batch_size(whole) <= _MERGED[0] and _numbers(whole) <= _MERGED[1]:
            held[-1] = whole
        else:
            held.append(pair)
    return held


def sliceable(pair: Pair) -> bool:
    """Return whether input and target have the same number of data points, so that a part of them can be taken."""
    try:
        return batch_size(pair) == batch_size(pair[0])
    except DataError:
        return False


def join_pairs(pairs: list[Pair]) -> Pair | None:
    """Join pairs into one of all data points, or return None where their structures or shapes differ."""
    return joined(pairs) if all(sliceable(pair) for pair in pairs) else None


def reduction_of(value: Callable[[Pair], float], pairs: list[Pair]) -> str:
    """Return whether a loss is the "mean" over the data points of a batch or their "sum".

    Args:
        value: the loss of a batch.
        pairs: the data; a loss that is neither counts as a mean if there is only one batch.

    Raises:
        DataError: several batches whose data points cannot be separated.
        InputError: the loss is neither, and there are several batches.
    """
    pair = pairs[0]
    if not sliceable(pair):
        if len(pairs) > 1:
            raise DataError(
                "the targets of a batch have another leading axis than its inputs, so that several batches cannot be "
                "weighed: give all data as one batch, or targets whose leading axis is the data point"
            )
        return "mean"
    index = _some(pair)
    parts = list(index.split(1))
    once, twice = value(take_points(pair, index)), value(take_points(pair, index.repeat(2)))
    each = [value(take_points(pair, part)) for part in parts]
    size = max(abs(once), abs(twice), *map(abs, each))
    as_mean = sum(len(part) * one for part, one in zip(parts, each, strict=True)) / len(index)
    if abs(twice - once) <= _CLOSE * size and (abs(as_mean - once) <= _CLOSE * size or len(pairs) == 1):
        return "mean"
    if abs(twice - 2 * once) <= _CLOSE * size and abs(sum(each) - once) <= _CLOSE * size:
        return "sum"
    if len(pairs) == 1:
        return "mean"
    raise InputError(
        f"the training loss is neither the mean over data points nor their sum: {len(index)} data points give "
        f"{once:.6g}, each twice {twice:.6g}, and {each[:4]} alone. Class weights and "
        "ignore_index weigh batches by other than their sizes: give all data as one batch, or use reduction='sum'"
    )


def ignores_pairing(value: Callable[[Pair], float], pair: Pair, epsilon: float) -> bool:
    """Return whether a loss ignores which target belongs to which data point.

    Outputs (n, 1) and targets (n,) are broadcast to all pairs of one and the other, and the loss becomes

        1/n^2 sum_ij l(f(x_i), y_j),

    or a function of it. Such a loss does not change, up to rounding, when data points exchange their targets, while
    other inputs and other targets change it. A mean or a sum over data points does change, whatever its weights. The
    exception is a linear loss, which is recognised as the mean or sum of the losses of single data points.

    Args:
        value: the loss of a batch.
        pair: inputs and targets of a batch.
        epsilon: machine epsilon of the type in which the loss is computed.

    >>> x, y = torch.arange(6.0)[:, None], torch.arange(6.0).square()
    >>> [ignores_pairing(lambda p: float((p[0] - p[1]).square().mean()), (x, t), 1e-7) for t in (y, y[:, None])]
    [True, False]
    """
    if not sliceable(pair) or batch_size(pair) < 2:
        return False
    index = _some(pair)
    n = len(index)
    inputs, target = take_points(pair, index)
    once = value((inputs, target))
    exchanged = []
    for order in (
        torch.arange(n, device="cpu").roll(1),
        torch.randperm(n, generator=torch.Generator().manual_seed(0), device="cpu"),
    ):
        exchanged.append(value((inputs, _of_points(target, order, n))))
        if not abs(exchanged[-1] - once) <= _ROUNDING * epsilon * max(abs(once), abs(exchanged[-1])):
            return False
    same = [torch.full((n,), i, device="cpu") for i in (0, n // 2, n - 1)]
    felt = _FELT * _ROUNDING * epsilon * abs(once)
    other_inputs = [(_of_points(inputs, i, n), target) for i in same]
    other_targets = [(inputs, _of_points(target, i, n)) for i in same]
    if any(max(abs(value(other) - once) for other in others) <= felt for others in (other_inputs, other_targets)):
        return False  # the loss does not depend on inputs or targets
    each = [value(take_points((inputs, target), torch.tensor([i], device="cpu"))) for i in range(n)]
    size = max(abs(once), *map(abs, each))
    close = min(_CLOSE, _FELT * _ROUNDING * epsilon)
    return all(abs(whole - once) > close * size for whole in (sum(each), sum(each) / n))


def _some(pair: Pair) -> Int[Tensor, " points"]:
    """Select data points of a batch, evenly spread."""
    n = batch_size(pair)
    return torch.linspace(0, n - 1, min(n, _POINTS), device="cpu").round().long()


def _of_points(part: Any, index: Int[Tensor, " points"], n: int) -> Any:
    """Select inputs, or targets, of the given data points."""
    return map_tensors(lambda v: v[index] if v.ndim and len(v) == n else v, part)


def _numbers(pair: Pair) -> int:
    return sum(v.numel() for v in tensors(pair))
