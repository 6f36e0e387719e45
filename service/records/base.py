"""The base class of records, a page of them, and where a result comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Generic, TypeVar

__all__ = ["Page", "Provenance", "Record"]


def _plain(value: Any) -> Any:
    """Convert records, tuples and dates within a value to what JSON can hold."""
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, datetime):
        return value.isoformat()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


class Record:
    """Base class of the frozen values that stores take and return."""

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON-ready values; dates are in ISO 8601, UTC.

        >>> Page(items=()).to_json()
        {'items': [], 'next_cursor': None}
        """
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]


RecordT = TypeVar("RecordT", bound=Record)


@dataclass(frozen=True, kw_only=True)
class Page(Record, Generic[RecordT]):
    """Part of a list, in order of creation.

    Attributes:
        items: the values.
        next_cursor: pass it as `cursor` to get the next part; None at the end.
    """

    items: tuple[RecordT, ...]
    next_cursor: str | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance(Record):
    """How a result came about: every choice and its hash, version of the code, seed, seconds taken."""

    recipe: Mapping[str, Any]
    recipe_hash: str
    code_version: str
    seed: int
    wall_time: float
