"""One forward pass of a model: reads and replaces the tensors at the cuts."""

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

_LEAK = 1e-6  # leaks up to this share of the effect of swapping the whole input count as rounding


@by_value
@dataclass(frozen=True)
class Trace:
    """The result of one forward pass: the tensors at the cuts, with the autograd graph between them.

    Attributes:
        entries: per cut the tensors to differentiate with respect to, one per place, each (batch, positions, width).
        values: per cut the activations at the positions that are read (batch, positions, width), 0 where one does not
            count.
        output: the network's output (batch, positions, width), 0 where a position does not count.
        counted: per cut the positions that are read, and which of them count.
        output_counted: the same for the output.
    """

    entries: tuple[tuple[Float[Tensor, "batch _ _"], ...], ...]
    values: tuple[Float[Tensor, "batch _ _"], ...]
    output: Float[Tensor, "batch _ _"]
    counted: tuple[Counted, ...]
    output_counted: Counted


class _UnchangedError(DataError):
    """Swapping data points leaves the output of the model unchanged."""


class _ReachedError(BaseException):
    """The requested cut has been reached, so the rest of the model need not run."""


class _Run:
    """The record of one forward pass: what to read and replace at the cuts, and the tensors read."""

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
    """Run a check on a few data points, and on the whole batch if it fails there."""
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
        raise (first if problem.__cause__ else problem) from None  # with a cause: the model itself failed


def _one_type(parameters: Iterable[Tensor]) -> torch.dtype | None:
    """Return the common type of all floating point parameters; None if types differ or there are none."""
    kinds = {parameter.dtype for parameter in parameters if parameter.is_floating_point()}
    return kinds.pop() if len(kinds) == 1 else None


def _in_layout(value: Tensor, swap: tuple[int, int] | None) -> Tensor:
    return (value.transpose(*swap) if swap and value.ndim == 3 else value).detach().clone()


def _concatenate(values: Mapping[tuple[int, int], Tensor], p: int, cut: Cut) -> Tensor:
    parts = [values[p, i] for i in range(len(cut.places))]
    if len({part.shape[:-1] for part in parts}) > 1:
        raise CutError(f"the parts of {cut.name!r} have shapes {[tuple(v.shape) for v in parts]}: positions must agree")
    return torch.cat(parts, -1)
