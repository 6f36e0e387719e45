"""The inputs of a network as a reader sees them: tokens, pictures or columns, with the names that the data set has."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..checkpoints.datasets import Dataset
from ..errors import DataError, InputError
from ..huggingface.language import tokens
from ..names import NAMES, Names
from ..network.batches import Batch, batch_size, read_batches, tensors
from ..results import by_value

__all__ = ["Kind", "Shown", "Wording", "checksums", "kept_inputs", "names_of", "runs", "shown_inputs", "targets_of"]

Kind = Literal["tokens", "picture", "columns", "other"]
"""What the inputs are."""

_KEPT = 2**25  # numbers of inputs that are kept for cards, in float32

_MOST_GROUPS = 8

_MOST_CLASSES = 1000


def names_of(batches: Iterable[Batch], given: Names | Mapping[str, Any] | None) -> Names:
    """Return the names that are given, and those of the data set where none is given."""
    if given is not None and not isinstance(given, Names | Mapping):
        raise InputError(f"names is a {type(given).__name__}: expected a mapping with some of {', '.join(NAMES)}")
    if isinstance(given, Mapping) and (unknown := sorted(set(given) - set(NAMES))):
        raise InputError(f"names has {', '.join(map(repr, unknown))}: expected some of {', '.join(NAMES)}")
    named = given if isinstance(given, Names) else Names.of(given or {}, where="names")
    return named.filled(batches.names) if isinstance(batches, Dataset) else named


def targets_of(batches: Iterable[Batch], targets: Any, n: int) -> Tensor | None:
    """Return one target per data point, given or of the data set.

    Raises:
        DataError: another number of targets.
    """
    found = batches.targets if targets is None and isinstance(batches, Dataset) else targets
    if found is None:
        return None
    if isinstance(found, list | tuple) and found and all(isinstance(v, Tensor) and v.ndim for v in found):
        found = torch.cat(list(found))
    found = torch.as_tensor(found, device="cpu")
    if found.ndim == 0 or len(found) != n:
        raise DataError(f"there are {len(found) if found.ndim else 'no'} targets for {n} data points: give one each")
    return found


@by_value
@dataclass(frozen=True)
class Shown:
    """The part of a batch that cards show.

    Attributes:
        values: tokens (data points, positions), or numbers (data points, ...); None where there is neither.
        kind: what they are.
    """

    values: Tensor | None
    kind: Kind


def shown_inputs(batch: Batch, names: Names) -> Shown:
    """Find the tokens of a batch, or else the first floating point numbers that belong to data points."""
    if (ids := tokens(batch)) is not None and (names.image_shape is None and names.feature_names is None):
        return Shown(ids, "tokens")
    n = batch_size(batch)
    own = [v for v in tensors(batch) if v.ndim and len(v) == n and (v.is_floating_point() or names.image_shape)]
    if not own:
        return Shown(None, "other")
    if names.image_shape is not None or (own[0].ndim == 4 and names.feature_names is None):
        return Shown(own[0], "picture")
    return Shown(own[0], "columns" if own[0].ndim == 2 else "other")


def checksums(values: Tensor) -> Int[np.ndarray, " n"]:
    """Compute a number for each data point that tells it from others, to see whether data come in the same order."""
    rows = values.detach().cpu().reshape(len(values), -1).contiguous().view(torch.uint8).numpy()
    return np.array([zlib.crc32(row.tobytes()) for row in rows], dtype=np.int64)


def kept_inputs(
    batches: Iterable[Batch], names: Names, wanted: Sequence[int], seen: Int[np.ndarray, " n"]
) -> dict[int, np.ndarray]:
    """Read the data again, without the network, and keep the inputs of some data points.

    Args:
        batches: the data.
        names: of the data.
        wanted: numbers of the data points, the most wanted first; those that memory does not suffice for are left out.
        seen: `checksums` of all data points in the first pass.

    Raises:
        DataError: the data come in another order than before.
    """
    kept: dict[int, np.ndarray] = {}
    chosen: set[int] | None = None
    first = 0
    for batch in read_batches(batches, "inputs of examples", None):
        shown = shown_inputs(batch, names)
        if shown.values is None:
            return {}
        if chosen is None:
            each = max(1, shown.values[0].numel())
            chosen = set(list(wanted)[: max(1, _KEPT // each)])
        own = [i for i in range(len(shown.values)) if first + i in chosen]
        if own:
            values = shown.values[own].detach().cpu()
            if not np.array_equal(checksums(values), seen[[first + i for i in own]]):
                raise DataError(
                    "the batches come in another order in a second pass: give a list, or a loader that does not shuffle"
                )
            numbers = values.numpy() if not values.is_floating_point() else values.float().numpy()
            kept |= {first + i: row for i, row in zip(own, numbers, strict=True)}
        first += len(shown.values)
    return kept


@dataclass(frozen=True)
class Wording:
    """How outputs, features, tokens, classes and targets are called.

    Attributes:
        names: of the data set.
        kind: what the inputs are.
        shape: of one input.
        outputs: number of output coordinates.
    """

    names: Names
    kind: Kind
    shape: tuple[int, ...]
    outputs: int
    features: tuple[str, ...] = field(init=False)
    groups: tuple[str, ...] | None = field(init=False)

    def __post_init__(self) -> None:
        if self.kind in ("picture", "columns"):
            self.names.check_inputs(self.shape)
        named = self.names.output_names
        if named is not None and len(named) != self.outputs:
            raise DataError(f"there are {len(named):,} output names for {self.outputs:,} outputs: give one each")
        object.__setattr__(self, "features", self._features())
        object.__setattr__(self, "groups", self._groups())

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """The shape of the inputs as pictures; None where they are none."""
        return (self.names.image_shape or self.shape) if self.kind == "picture" else None

    def output(self, o: int) -> str:
        """Name an output coordinate."""
        if self.names.output_names is not None:
            return self.names.output_names[o]
        if self.kind == "tokens" and (self.names.token_strings is not None) and self._as_wide_as_tokens():
            return self.token(o)
        classes = self.names.class_names
        return classes[o] if classes is not None and len(classes) == self.outputs else f"output {o}"

    def _as_wide_as_tokens(self) -> bool:
        known = len(self.names.token_strings or ())
        return known <= self.outputs <= known + 1024 or self.outputs == known

    def token(self, number: int) -> str:
        """Return the text of a token."""
        known = self.names.token_strings
        return known[number] if known is not None and 0 <= number < len(known) else f"#{number}"

    def target(self, value: Any) -> Any:
        """Name the class of a target, or of each answer of it; numbers stay numbers."""
        if isinstance(value, list):
            return [self.target(part) for part in value]
        classes = self.names.class_names
        whole = isinstance(value, int) and not isinstance(value, bool)
        return classes[value] if whole and classes is not None and 0 <= value < len(classes) else value

    def _features(self) -> tuple[str, ...]:
        if self.names.feature_names is not None:
            return self.names.feature_names
        if self.kind == "picture":
            *channels, rows, columns = self.image_shape or ()
            several = math.prod(channels) > 1
            word = "channel" if channels and channels[0] == 3 else "picture"
            return tuple(
                f"{word} {c + 1} {r},{q}" if several else f"{r},{q}"
                for c in range(math.prod(channels))
                for r in range(rows)
                for q in range(columns)
            )
        return tuple(f"feature {j}" for j in range(math.prod(self.shape))) if self.kind == "columns" else ()

    def _groups(self) -> tuple[str, ...] | None:
        """Return for each feature the picture, or the first word of its name, where a few words name them all."""
        shape = self.image_shape or ()
        if self.names.feature_names is None and not (len(shape) == 3 and shape[0] not in (1, 3)):
            return None
        words = [" ".join(name.split(" ")[:-1]) for name in self.features]
        counts = {word: words.count(word) for word in set(words)}
        if not 2 <= len(counts) <= _MOST_GROUPS or "" in counts or min(counts.values()) < 2:
            return None
        return tuple(words)


def class_targets(targets: Tensor | None) -> Int[Tensor, "n answers"] | None:
    """Return targets that are classes as (data points, answers); None for numbers, sequences and too many classes."""
    if targets is None or targets.is_floating_point() or targets.is_complex() or targets.ndim > 2:
        return None
    found = targets.long().reshape(len(targets), -1)
    most = int(found.max()) if found.numel() else -1
    return found if found.shape[1] <= 16 and int(found.min()) >= 0 and most < _MOST_CLASSES else None


def window_tokens(
    row: Int[np.ndarray, " positions"], position: int, before: int, size: int
) -> tuple[list[int], list[int]]:
    """Return the places in a window that lie in the data point, and the tokens there.

    >>> window_tokens(np.array([7, 8, 9]), 1, 2, 4)
    ([1, 2, 3], [7, 8, 9])
    """
    places = [w for w in range(size) if 0 <= position - before + w < len(row)]
    return places, [int(row[position - before + w]) for w in places]


def runs(numbers: Iterable[int], name: Any) -> str:
    """Join names, neighbours of one kind as "first to last".

    >>> runs([0, 1, 2, 5], lambda o: f"left {o}")
    'left 0 to left 2, left 5'
    """
    parts: list[list[int]] = []
    for o in sorted(numbers):
        if parts and o == parts[-1][-1] + 1 and _kind(name(o)) == _kind(name(parts[-1][-1])):
            parts[-1].append(o)
        else:
            parts.append([o])
    texts = [f"{name(part[0])} to {name(part[-1])}" if len(part) > 2 else ", ".join(map(name, part)) for part in parts]
    return ", ".join(texts)


def _kind(name: str) -> str:
    """Return a name without its numbers, by which names of a series agree; other names differ from one another."""
    return re.sub(r"\d+", "#", name)


def picture_rows(values: Float[np.ndarray, " d"], shape: Sequence[int]) -> Float[np.ndarray, "rows columns *rgb"]:
    """Arrange a flat picture to be drawn: channels of a colour picture last, several pictures side by side.

    >>> picture_rows(np.arange(4.0), (2, 1, 2)).tolist()
    [[0.0, 1.0, 2.0, 3.0]]
    """
    if len(shape) == 2:
        return values.reshape(*shape)
    channels, rows, columns = shape
    whole = values.reshape(channels, rows, columns)
    return whole.transpose(1, 2, 0) if channels == 3 else np.concatenate(list(whole), axis=1)
