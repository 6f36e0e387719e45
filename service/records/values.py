"""Values that the database can hold."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from .base import Record
from .errors import StoreError

__all__ = ["plain", "plain_values"]

TextT = TypeVar("TextT", str, None, str | None)

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def storable(text: TextT) -> TextT:
    r"""Replace the characters of a text that databases cannot hold by U+FFFD.

    >>> storable("a\0b") == "a\ufffdb"
    True
    """
    return _UNSTORABLE.sub("\ufffd", text) if isinstance(text, str) else text


def plain(value: Any) -> Any:
    """Convert a value to JSON types, NumPy scalars to numbers; refuse what a database cannot hold unchanged.

    >>> plain((1, 2.5))
    [1, 2.5]

    Raises:
        StoreError: NaN, infinity, text with NUL or half of a surrogate pair, or a type that JSON does not have.
    """
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        raise StoreError(f"a value to be stored is {value}: expected a finite number")
    if isinstance(value, str) and _UNSTORABLE.search(value):
        raise StoreError(f"a text to be stored is {value[:80]!r}: expected no NUL and no half of a surrogate pair")
    if not isinstance(value, str | int | float | None):
        raise StoreError(f"a value to be stored is a {type(value).__name__}: expected a JSON value")
    return value


def plain_values(record: Record, kind: type[Record]) -> dict[str, Any]:
    """Return the fields of one kind of record as column values.

    Raises:
        StoreError: a value cannot be stored; the message names its field.
    """
    values = {}
    for field in fields(kind):  # type: ignore[arg-type]
        try:
            values[field.name] = plain(getattr(record, field.name))
        except StoreError as error:
            raise StoreError(f"{field.name}: {error}") from None
    return values
