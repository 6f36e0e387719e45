"""Positions that count: which positions of a tensor are read, and which of them count at each data point.

Data points of different lengths share a batch, padded on the left or on the right; a boolean mask (data points,
positions) says which positions count. Shapes stay as they are: values at positions that do not count are read as 0
and pass no gradient on, so that sums over positions leave them out, and means divide by the positions that count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..errors import DataError
from ..results import by_value
from .batches import Batch, batch_size, map_points, map_tensors, tensors

__all__ = [
    "EVERYTHING",
    "Counted",
    "Mask",
    "Masks",
    "Positions",
    "counted_at",
    "how_to_declare",
    "mask_entry",
    "other_padding",
    "read_mask",
    "swap_partners",
    "swapped",
    "unread_masks",
]

Positions: TypeAlias = Literal["all", "last"] | Sequence[int]

"""All positions, the last one that counts, or some by their index from the first position of the tensor."""

Mask: TypeAlias = str | Callable[[Batch], Tensor]

"""A key of the batch (or the name of an argument of the model) or a function of it: (data points, positions)."""


@by_value
@dataclass(frozen=True)
class Counted:
    """Which positions of a tensor (batch, all positions, width) are read, and which of these count.

    Attributes:
        index: the positions that are read; if a tensor, one per data point, the last that counts.
        mask: which of them count; None where all do.

    >>> counted = counted_at(torch.tensor([[True, True, False], [True, True, True]]), "last", 2, 3, "a cut")
    >>> value = torch.arange(6.0).reshape(2, 3, 1)
    >>> counted.read(value).flatten().tolist()
    [1.0, 5.0]
    >>> counted.write(value, torch.zeros(2, 1, 1))[..., 0].tolist()
    [[0.0, 0.0, 2.0], [3.0, 4.0, 0.0]]
    """

    index: slice | list[int] | Int[Tensor, " batch"]
    mask: Bool[Tensor, "batch read"] | None

    def read(self, value: Float[Tensor, "*v batch positions width"]) -> Float[Tensor, "*v batch read width"]:
        """Read the selected positions of a tensor, 0 where one does not count."""
        if isinstance(self.index, Tensor):
            index = self.index.to(value.device).reshape(*(1,) * (value.ndim - 3), -1, 1, 1)
            return torch.take_along_dim(value, index, -2)
        return self.clean(value[..., self.index, :])

    def clean(self, read: Float[Tensor, "*v batch read width"]) -> Float[Tensor, "*v batch read width"]:
        """Set values that were read to 0 where a position does not count."""
        return read if self.mask is None else read.masked_fill(~self.mask.to(read.device)[..., None], 0.0)

    def write(
        self, value: Float[Tensor, "batch positions width"], new: Float[Tensor, "batch read width"]
    ) -> Float[Tensor, "batch positions width"]:
        """Return a copy of the tensor with new values where positions count."""
        new = new.to(value)
        if isinstance(self.index, Tensor):
            here = torch.arange(value.shape[1], device=value.device) == self.index.to(value.device)[:, None]
            return torch.where(here[..., None], new, value)
        changed = value.clone()
        if self.mask is not None:
            new = torch.where(self.mask.to(value.device)[..., None], new, value[:, self.index])
        changed[:, self.index] = new
        return changed

    def rows(self, read: Float[Tensor, "batch read width"]) -> Float[Tensor, "rows width"]:
        """Collect what was read where positions count, data point after data point."""
        return read.flatten(0, 1) if self.mask is None else read[self.mask.to(read.device)]

    def agrees(self, other: Counted) -> bool:
        """Return whether both have the same mask."""
        if self.mask is None or other.mask is None:
            return all(part is None or bool(part.all()) for part in (self.mask, other.mask))
        return torch.equal(self.mask, other.mask)


EVERYTHING = Counted(slice(None), None)

"""All positions of a tensor."""


@by_value
@dataclass(frozen=True)
class Masks:
    """The masks of a network's batches.

    Attributes:
        model: the model that the batches are for.
        mask: see `Mask`; None where all positions count.
        skip_first: leave out the first position of each data point.
    """

    model: nn.Module
    mask: Mask | None
    skip_first: bool

    @property
    def vary(self) -> bool:
        """Whether the positions that count may differ between data points."""
        return self.mask is not None or self.skip_first

    @property
    def arguments(self) -> list[str]:
        """The names of the model's arguments."""
        return list(signature(self.model.forward).parameters)

    def of(self, batch: Batch) -> Bool[Tensor, "batch positions"] | None:
        """Return which positions count at each data point of a batch; None where all do."""
        if not self.vary:
            return None
        mask = read_mask(self.mask, batch, self.arguments, skip_first=self.skip_first)
        return mask if mask is None or len(mask) > 1 else mask.expand(batch_size(batch), -1)

    def padding(self, batch: Batch) -> Bool[Tensor, "points positions"]:
        """Return the mask as it was given, first positions included; all true where there is none."""
        mask = read_mask(self.mask, batch, self.arguments)
        return torch.ones(1, 1, dtype=torch.bool, device="cpu") if mask is None else mask

    def held(self, batch: Batch) -> Any:
        """Return the tensor of a batch that holds the mask; None if there is none."""
        return mask_entry(batch, self.mask, self.arguments) if isinstance(self.mask, str) else None

    def first_kept(self, batch: Batch, other: Batch) -> Batch:
        """Return the other batch with the first positions of this one, where `skip_first` leaves these out."""
        mask = self.of(batch)
        if not self.skip_first or mask is None:
            return other
        first = self.padding(batch) & ~mask
        given = iter(tensors(batch))

        def kept(value: Tensor) -> Tensor:
            own = next(given)
            if own.shape[:2] != first.shape:
                return value
            return torch.where(first.reshape(*first.shape, *(1,) * (own.ndim - 2)), own, value)

        return map_tensors(kept, other)

    def swappable(self, batch: Batch) -> bool:
        """Return whether two data points can be swapped under the same mask: it is held, or equal for both."""
        mask = self.of(batch)
        if mask is None or isinstance(self.mask, str):
            return True
        return not torch.equal(swap_partners(mask), torch.arange(len(mask), device=mask.device))


def read_mask(
    mask: Mask | None, batch: Batch, arguments: Sequence[str] = (), *, skip_first: bool = False
) -> Bool[Tensor, "batch positions"] | None:
    """Return which positions count at each data point of a batch; None where all do.

    Args:
        mask: see `Mask`; None where all positions count.
        batch: a batch of the model.
        arguments: names of the model's arguments, for a batch that is a tuple of them.
        skip_first: leave out the first position of each data point that the mask counts.

    Raises:
        DataError: no mask in the batch, or one of another shape or of other values than true and false.

    >>> read_mask("attention_mask", {"attention_mask": torch.tensor([[0, 1, 1]])}, skip_first=True)
    tensor([[False, False,  True]])
    """
    if mask is None:
        found = _all_positions(batch) if skip_first else None
    elif isinstance(mask, str):
        found = _as_mask(mask_entry(batch, mask, arguments), f"the mask {mask!r}")
    else:
        try:
            given = mask(batch)
        except Exception as error:  # the user's function may fail in any way
            raise DataError(f"the function that gives the mask failed: {type(error).__name__}: {error}") from error
        found = _as_mask(given, "the mask that the function gave")
    if found is not None and skip_first:
        found = found & (found.cumsum(1) > 1)
    return found


def mask_entry(batch: Batch, name: str, arguments: Sequence[str] = ()) -> Any:
    """Return the entry of a batch under a key, or the argument of the model of that name.

    Raises:
        DataError: there is none.
    """
    if isinstance(batch, Mapping):
        if name not in batch:
            raise DataError(f"a batch has no entry {name!r} that says which positions count: it has {list(batch)}")
        return batch[name]
    if not isinstance(batch, tuple | list):
        raise DataError(
            f"the mask is an argument of the model, {name!r}, and a batch is a {type(batch).__name__}: give batches as "
            f"{{'...': inputs, {name!r}: mask}}, or a function as mask"
        )
    if name not in arguments[: len(batch)]:
        raise DataError(
            f"the mask {name!r} is not among the {len(batch)} arguments in a batch: the model takes {list(arguments)}"
        )
    return batch[list(arguments).index(name)]


def counted_at(
    mask: Bool[Tensor, "points positions"] | None, positions: Positions, batch: int, length: int, name: str
) -> Counted:
    """Determine which positions of a tensor (batch, length, width) are read and count.

    A tensor with one position, where the mask has more, belongs to the whole data point (pooled, say) and counts.

    Raises:
        DataError: a position that is not there, a mask of other data points or positions, or a data point at which
            nothing counts.
    """
    index = (slice(None) if positions == "all" else slice(-1, None)) if isinstance(positions, str) else list(positions)
    if isinstance(index, list) and any(not -length <= i < length for i in index):
        raise DataError(f"the positions {index} should count at {name}, which has {length}, counted from 0")
    if mask is None or (length == 1 < mask.shape[1]):
        return Counted(index, None)
    if mask.shape[1] != length or len(mask) not in (1, batch):
        raise DataError(
            f"the mask has (data points, positions) {tuple(mask.shape)}, {name} has {(batch, length)}: expected one "
            "entry of the mask for each position there"
        )
    mask = mask.expand(batch, -1)
    if positions == "last":
        _require_counted(mask, "none of its positions", name)
        return Counted(length - 1 - mask.flip(1).long().argmax(1), None)
    read = mask[:, index]
    _require_counted(read, "none of its positions" if positions == "all" else f"none of the positions {index}", name)
    return Counted(index, read)


def swap_partners(mask: Bool[Tensor, "points positions"]) -> Int[Tensor, " points"]:
    """Pair each data point with another one at which the same positions count; with itself if there is none.

    >>> swap_partners(torch.tensor([[True, False], [True, True], [True, False]])).tolist()
    [2, 1, 0]
    """
    partners = torch.arange(len(mask), device=mask.device)
    group = mask.unique(dim=0, return_inverse=True)[1]
    for label in group.unique():
        members = (group == label).nonzero()[:, 0]
        partners[members] = members.roll(1)
    return partners


def swapped(batch: Batch, mask: Bool[Tensor, "points positions"] | None, held: Any = None) -> Batch:
    """Exchange the data points of a batch, each for one at which the same positions count.

    Args:
        batch: a batch of the model.
        mask: which positions count; None where all do.
        held: the tensor of the batch that holds the mask. Where no two data points count the same positions, it stays
            in place while the other tensors are exchanged.

    Raises:
        DataError: no two data points are alike, and the mask is none of the batch's own tensors.

    >>> swapped(torch.tensor([[1.0], [2.0], [3.0]]), None).flatten().tolist()
    [3.0, 1.0, 2.0]
    """
    alike = None if mask is None else swap_partners(mask)
    if alike is not None and not torch.equal(alike, torch.arange(len(alike), device=alike.device)):
        return map_points(lambda v: v[alike], batch)
    if alike is not None and held is None:
        raise DataError(
            "no two data points of a batch count the same positions: cuts are checked by swapping two such; put data "
            "points of one length into a batch, or give the mask as a key of the batch"
        )
    return map_points(lambda v: v if v is held else v.roll(1, 0), batch)


def other_padding(batch: Batch, mask_of: Callable[[Batch], Tensor]) -> Batch | None:
    """Return the batch with other values at padding; None if there is no padding, or if its values make the mask.

    Padding takes the values of the first position that counts, so that every token and position is a valid one.
    Tensors of zeros and ones alone stay as they are, since they may be masks.
    """
    mask = mask_of(batch)
    first = mask.long().argmax(1)
    found = None
    for wanted in tensors(batch):
        if wanted.shape[:2] != mask.shape or bool(((wanted == 0) | (wanted == 1)).all()):
            continue
        shaped = mask.reshape(*mask.shape, *(1,) * (wanted.ndim - 2))
        points = torch.arange(len(first), device=first.device)
        other = torch.where(shaped, wanted, wanted[points, first][:, None])
        trial = map_tensors(lambda v, a=wanted, b=other: b if v is a else v, batch if found is None else found)
        if not torch.equal(other, wanted) and torch.equal(mask_of(trial), mask):
            found = trial
    return found


def unread_masks(batch: Batch, arguments: Sequence[str] = ()) -> dict[str, Tensor] | None:
    """Find masks in a batch, by name, that leave out some positions; None if the batch holds no mask.

    A mask is a matrix of booleans, or of zeros and ones, with a row per data point, under a key, or as an argument of
    the model, whose name ends in "mask". One that all data points share, a float mask that is added to scores, and a
    causal square (unless the name says that it is of padding) leave nothing out.

    Args:
        batch: of the model.
        arguments: names of the model's arguments, for a batch that is a tuple of them.

    >>> x = torch.zeros(2, 3, 1)
    >>> list(unread_masks((x, torch.tensor([[False, False, True], [False, False, False]])), ["x", "padding_mask"]))
    ['padding_mask']
    """
    if isinstance(batch, Mapping):
        entries = [(name, value) for name, value in batch.items() if isinstance(name, str)]
    else:
        entries = list(zip(arguments, batch, strict=False)) if isinstance(batch, tuple | list) else []
    named = {
        name: value
        for name, value in entries
        if name.lower().endswith("mask") and isinstance(value, Tensor) and value.ndim == 2
    }
    return {name: mask for name, mask in named.items() if _leaves_out(name, mask, batch)} if named else None


def how_to_declare(name: str, mask: Tensor, batch: Batch, arguments: Sequence[str] = ()) -> str:
    """Describe how to declare a mask that is given to the model alone."""
    key = repr(name) if isinstance(batch, Mapping) else str(list(arguments).index(name))
    opposite = f"~batch[{key}]" if mask.dtype == torch.bool else f"batch[{key}] == 0"
    padding = f"mask=lambda batch: {opposite}"
    if "pad" in name.lower():
        return f"{padding}, where true marks padding (as in torch), or mask={name!r}, where it marks what counts"
    every = f"mask=lambda batch: torch.ones_like(batch[{key}]).bool(), where every position counts"
    return f"mask={name!r}, where true marks what counts, {padding}, where it marks padding, or {every}"


def _leaves_out(name: str, mask: Tensor, batch: Batch) -> bool:
    if name == "attention_mask":
        return bool((mask == 0).any()) and not bool((mask < 0).any())
    if len(mask) != batch_size(batch) or bool(((mask != 0) & (mask != 1)).any()):
        return False
    seen = mask != 0
    if "pad" not in name.lower() and mask.shape[0] == mask.shape[1]:
        ones = torch.ones_like(seen)
        if any(torch.equal(seen, square) for square in (ones.tril(), ones.tril(-1), ones.triu(), ones.triu(1))):
            return False
    return bool(seen.any()) and not bool(seen.all())


def _as_mask(given: Any, what: str) -> Bool[Tensor, "batch positions"]:
    if not isinstance(given, Tensor) or given.ndim != 2:
        seen = f"of shape {tuple(given.shape)}" if isinstance(given, Tensor) else f"a {type(given).__name__}"
        raise DataError(f"{what} is {seen}: expected booleans of (data points, positions)")
    if given.dtype == torch.bool:
        return given
    if _holds(((given != 0) & (given != 1)).any()):
        raise DataError(f"{what} holds other numbers than 0 and 1: expected true or 1 where a position counts")
    return given != 0


def _all_positions(batch: Batch) -> Bool[Tensor, "batch positions"]:
    values = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else [batch]
    for value in values:
        if isinstance(value, Tensor) and value.ndim > 1:
            return torch.ones(value.shape[:2], dtype=torch.bool, device=value.device)
    raise DataError("skip_first leaves out the first position, and no tensor of a batch has positions")


def _require_counted(mask: Bool[Tensor, "batch read"], none: str, name: str) -> None:
    empty = ~mask.any(1)
    if _holds(empty.any()):
        raise DataError(
            f"data point {int(empty.long().argmax())} of a batch counts {none} at {name}: leave it out, or count one"
        )


def _holds(condition: Tensor) -> bool:
    """Return whether a condition is true; False inside `torch.func.vmap`, where values cannot be inspected."""
    try:
        return bool(condition)
    except RuntimeError:
        return False
