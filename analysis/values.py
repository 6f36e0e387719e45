"""Results are compared by value: same type, same numbers. `==` answers, whatever arrays they hold."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

__all__ = ["by_value", "same"]

_C = TypeVar("_C", bound=type)


def by_value(cls: _C) -> _C:
    """Decorator of a dataclass that holds arrays: two are equal where all their fields are the same, see `same`.

    >>> from dataclasses import dataclass
    >>> @by_value
    ... @dataclass(frozen=True)
    ... class Point:
    ...     at: np.ndarray
    >>> Point(np.zeros(2)) == Point(np.zeros(2)), Point(np.zeros(2)) == Point(np.ones(2)), Point(np.zeros(2)) == 0
    (True, False, False)
    """

    def equal(self: Any, other: Any) -> Any:
        if type(self) is not type(other):
            return NotImplemented
        return all(same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.compare)

    setattr(cls, "__eq__", equal)  # noqa: B010 - mypy takes it for an override
    return cls


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same: of arrays type, shape and numbers; NaN is the same as NaN.

    >>> same({"a": [np.array([1.0, np.nan])]}, {"a": [np.array([1.0, np.nan])]}), same(np.zeros(2), np.zeros((2, 1)))
    (True, False)
    """
    if one is other:
        return True
    if isinstance(one, np.ndarray | np.generic) or isinstance(other, np.ndarray | np.generic):
        return _same_arrays(one, other)
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and _same_tensors(one, other)
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (one != one and other != other)
    if type(one) is not type(other):
        return bool(one == other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _same_arrays(one: Any, other: Any) -> bool:
    a, b = np.asarray(one), np.asarray(other)
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fcmM")


def _same_tensors(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape or one.device != other.device:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())
