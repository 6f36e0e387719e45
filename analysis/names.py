"""Names of what data hold: tokens, pictures, features, outputs and classes, which cards show instead of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import Any

import numpy as np

from .errors import DataError

__all__ = ["NAMES", "Names"]

_SHAPES = "(rows, columns), or (channels, rows, columns) with 1 or 3 channels, or several pictures drawn side by side"


@dataclass(frozen=True)
class Names:
    """The names of a data set; None where it has none.

    Attributes:
        token_strings: the text of each token, by its number.
        image_shape: shape of the inputs as a picture: (rows, columns), or (channels, rows, columns) with 1 or 3
            channels; any other number of channels is one of pictures, drawn side by side.
        feature_names: one per input feature; of a picture one per pixel, in the order of the flat inputs.
        output_names: one per output coordinate.
        class_names: one per class of the targets.
        modulus: the inputs are integers modulo this number (tokens of a cyclic group).

    >>> Names.of({"output_names": ["cat", "dog"], "image_shape": [8, 8], "inputs": 0})
    Names(token_strings=None, image_shape=(8, 8), feature_names=None, output_names=('cat', 'dog'), \
class_names=None, modulus=None)
    """

    token_strings: tuple[str, ...] | None = None
    image_shape: tuple[int, ...] | None = None
    feature_names: tuple[str, ...] | None = None
    output_names: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None
    modulus: int | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any], *, where: str = "the data set") -> Names:
        """Read and check the names in a mapping; None and other keys are left out.

        Raises:
            DataError: names that are no list of text, a shape of no picture, or a modulus below 2.
        """
        found: dict[str, Any] = {}
        for name in NAMES:
            value = given.get(name)
            if value is None:
                continue
            if name == "image_shape":
                found[name] = _shape(value, where)
            elif name == "modulus":
                found[name] = _modulus(value, where)
            else:
                found[name] = _texts(value, f"{name} of {where}")
        return cls(**found)

    def filled(self, other: Names) -> Names:
        """Return these names, and those of the other where there are none here."""
        return replace(self, **{n: getattr(other, n) for n in NAMES if getattr(self, n) is None})

    def check_inputs(self, shape: Sequence[int], *, where: str = "the data set") -> None:
        """Check names and shape against the shape of one input.

        Raises:
            DataError: another number of features.
        """
        n = math.prod(shape)
        for what, count in (
            ("image_shape", None if self.image_shape is None else math.prod(self.image_shape)),
            ("feature_names", None if self.feature_names is None else len(self.feature_names)),
        ):
            if count is not None and count != n:
                raise DataError(f"{what} of {where} is of {count:,} features, and an input has {n:,}: give one of each")


NAMES = tuple(field.name for field in fields(Names))
"""The kinds of names."""


def _texts(value: Any, what: str) -> tuple[str, ...]:
    entries = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(entries, str) or not isinstance(entries, Sequence) or not all(isinstance(v, str) for v in entries):
        raise DataError(f"{what} is {_brief(value)}: expected a list of text")
    return tuple(entries)


def _shape(value: Any, where: str) -> tuple[int, ...]:
    entries = value.tolist() if isinstance(value, np.ndarray) else value
    whole = isinstance(entries, Sequence) and not isinstance(entries, str)
    if not (whole and len(entries) in (2, 3) and all(isinstance(v, Integral) and int(v) > 0 for v in entries)):
        raise DataError(f"image_shape of {where} is {_brief(value)}: expected {_SHAPES}")
    return tuple(int(v) for v in entries)


def _modulus(value: Any, where: str) -> int:
    number = value.tolist() if isinstance(value, np.ndarray) and value.ndim == 0 else value
    if not isinstance(number, Integral) or isinstance(number, bool) or int(number) < 2:
        raise DataError(f"modulus of {where} is {_brief(value)}: expected a whole number of 2 or more")
    return int(number)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
