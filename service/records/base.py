"""Records, types of their fields, pages, provenance, kinds of stored things, and values that databases can hold."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field

from .errors import StoreError

__all__ = [
    "EXAMPLE_SHA256",
    "Bytes",
    "Kind",
    "Page",
    "Provenance",
    "Record",
    "Sha256",
    "Sha256OrNone",
    "Sha256s",
    "Time",
    "TimeOrNone",
    "Uri",
    "UriOrNone",
    "Version",
    "parse_moment",
    "plain",
    "plain_values",
    "storable",
]

EXAMPLE_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

"""Shown wherever the OpenAPI document needs a hash."""

_TIME = "2026-11-22T08:30:00.125000+00:00"

Sha256 = Annotated[str, Field(examples=[EXAMPLE_SHA256])]

Sha256OrNone = Annotated[str | None, Field(examples=[EXAMPLE_SHA256])]

Sha256s = Annotated[tuple[str, ...], Field(examples=[[EXAMPLE_SHA256]])]

Uri = Annotated[str, Field(examples=[f"sha256:{EXAMPLE_SHA256}"])]

UriOrNone = Annotated[str | None, Field(examples=[f"sha256:{EXAMPLE_SHA256}"])]

Time = Annotated[datetime, Field(examples=[_TIME])]

TimeOrNone = Annotated[datetime | None, Field(examples=[_TIME])]

Version = Annotated[str, Field(examples=["0.7.0"])]

Bytes = Annotated[int, Field(examples=[39_104])]


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
        {'items': [], 'next_cursor': None, 'total': None}
        """
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]


RecordT = TypeVar("RecordT", bound=Record)
DetailT = TypeVar("DetailT", bound=Record)


@dataclass(frozen=True, kw_only=True)
class Page(Record, Generic[RecordT]):
    """Part of a list, in order of creation or newest first.

    Attributes:
        items: the values.
        next_cursor: pass it as `cursor` to get the next part; None at the end.
        total: number of values in the whole list; None where it was not counted.
    """

    items: tuple[RecordT, ...]
    next_cursor: str | None = None
    total: int | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance(Record):
    """How a result came about: every choice and its hash, version of the code, seed, seconds taken."""

    recipe: Mapping[str, Any]
    recipe_hash: Sha256
    code_version: Version
    seed: Annotated[int, Field(examples=[0])]
    wall_time: Annotated[float, Field(examples=[1.9])]


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[RecordT, DetailT]):
    """A kind of stored thing: all that store, client and service need to know to read, list, find and save it.

    Attributes:
        name: name of one, as in `interbasis show NAME`, and of its table.
        plural: name of the list, as in `interbasis ls PLURAL` and /api/v1/PLURAL.
        row: record in a list.
        detail: record of one that is read by itself.
        listing, single: documentation of the routes that list them and return one.
        example: a reference to one, as an example for its routes.
        owners: kinds of the things that it belongs to. A result is identified by them and the hash of its recipe.
        filters: kinds of the things by which its list is filtered.
        values: record of the numbers that queries use; None of a kind that is not a result.
        files: names of its files, as in the columns NAME_sha256, each with the documentation of the route that
            downloads it; the first is always there.
        parts: record of each list that only `detail` has.
    """

    name: str
    plural: str
    row: type[RecordT]
    detail: type[DetailT]
    listing: str
    single: str
    example: str
    owners: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    values: type[Record] | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, type[Record]] = field(default_factory=dict)

    @property
    def narrowings(self) -> tuple[str, ...]:
        """Values by which its list can be narrowed: `since`, and `step` and `verdict` where rows have them."""
        known = {each.name for each in fields(self.row)}  # type: ignore[arg-type]
        return tuple(name for name in ("step", "since", "verdict") if name == "since" or name in known)


_AGO = re.compile(r"(\d{1,6}) *(min|h|d|w)")

_UNITS = {"min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_moment(text: str) -> datetime:
    """Read a moment: so many minutes, hours, days or weeks ago, or a date, with or without a time of day.

    >>> parse_moment("2026-11-05 07:03")
    datetime.datetime(2026, 11, 5, 7, 3)
    >>> parse_moment("2h") < datetime.now(UTC) - timedelta(hours=1)
    True

    Raises:
        StoreError: it cannot be read.
    """
    try:
        if ago := _AGO.fullmatch(text.strip()):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago.group(2)]: int(ago.group(1))})
        return datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise StoreError(f"since is {text[:80]!r}, expected 30min, 2h, 3d, 1w ago or a date like 2026-11-05") from None


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
    for each in fields(kind):  # type: ignore[arg-type]
        try:
            values[each.name] = plain(getattr(record, each.name))
        except StoreError as error:
            raise StoreError(f"{each.name}: {error}") from None
    return values
