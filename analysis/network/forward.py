"""One forward pass: the tensors at the cuts, read and replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import CutError, DataError, InputError
from ..results import by_value
from .batches import Batch
from .checks import spread
from .cuts import Cut, Place
from .hooks import as_sequence, as_written
from .layouts import Layouts
from .masks import Counted

__all__ = ["Trace"]

T = TypeVar("T")

_LEAK = 1e-6  # share of the effect of swapping the whole input that still counts as rounding


@by_value
@dataclass(frozen=True)
class Trace:
    """One forward pass: the tensors at the cuts, with the autograd graph between them.

    Attributes:
        entries: per cut the tensors to differentiate by, one per place, each (batch, positions, width).
        values: per cut the activations at the positions that are read (batch, positions, width), 0 where one does not
            count.
        output: the network's output, likewise.
        counted: per cut which positions are read, and which of them count.
        output_counted: the same of the output.
    """

    entries: tuple[tuple[Float[Tensor, "batch _ _"], ...], ...]
    values: tuple[Float[Tensor, "batch _ _"], ...]
    output: Float[Tensor, "batch _ _"]
    counted: tuple[Counted, ...]
    output_counted: Counted


class _UnchangedError(DataError):
    """The data points of a batch are all the same to the model."""


class _ReachedError(BaseException):
    """The cut that was asked for is reached: the rest of the model need not run."""


class _Run:
    """What one forward pass records at the cuts, and what it puts there."""

    def __init__(
        self,
        start: int | None,
        replace: Mapping[int, Sequence[Tensor]],
        layouts: Layouts,
        where: Callable[[int, Tensor], Counted] | None = None,
    ) -> None:
        self.start, self.replace, self.layouts, self.where = start, replace, layouts, where
        self.entries: dict[tuple[int, int], Tensor] = {}
        self.values: dict[tuple[int, int], Tensor] = {}

    def visit(self, p: int, i: int, value: Tensor, place: Place) -> Tensor:
        swap = self.layouts.swap(place)
        sequence = as_sequence(value, place.name, swap)
        self.values[p, i] = sequence
        entry = sequence
        if p in self.replace:
            entry = self.replace[p][i]
            if self.where is not None:
                counted = self.where(p, sequence)
                entry = counted.write(sequence, counted.read(entry))
        if torch.is_grad_enabled() and (self.start in (None, p) or not entry.requires_grad):
            entry = entry.detach().requires_grad_()
        self.entries[p, i] = entry
        return as_written(entry, value, swap).clone()  # a copy, so that in-place modules leave the entry alone


def _few_then_all(batch: Batch, check: Callable[[Batch], T]) -> T:
    """Check on a few data points, and on the whole batch where something seems to be wrong with them."""
    few = spread(batch)
    try:
        return check(few)
    except InputError as problem:
        if few is batch:
            raise
        first = problem
    try:
        return check(batch)
    except InputError as problem:
        raise (first if problem.__cause__ else problem) from None  # a cause: the model failed, after other runs


def _one_type(parameters: Iterable[Tensor]) -> torch.dtype | None:
    """The type of all parameters that are floats; None where they differ, or there are none."""
    kinds = {parameter.dtype for parameter in parameters if parameter.is_floating_point()}
    return kinds.pop() if len(kinds) == 1 else None


def _in_layout(value: Tensor, swap: tuple[int, int] | None) -> Tensor:
    return (value.transpose(*swap) if swap and value.ndim == 3 else value).detach().clone()


def _concatenate(values: Mapping[tuple[int, int], Tensor], p: int, cut: Cut) -> Tensor:
    parts = [values[p, i] for i in range(len(cut.places))]
    if len({part.shape[:-1] for part in parts}) > 1:
        raise CutError(f"the parts of {cut.name!r} have shapes {[tuple(v.shape) for v in parts]}: positions must agree")
    return torch.cat(parts, -1)
