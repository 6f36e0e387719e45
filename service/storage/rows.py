"""Conversion of table rows to the frozen records that the store returns."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from ..records.base import Kind, Record
from ..records.kinds import KINDS
from .tables import Base, Model, Row

__all__ = ["detail", "record"]

RecordT = TypeVar("RecordT", bound=Record)


def record(row: Base, kind: type[RecordT], leave: tuple[str, ...] = ()) -> RecordT:
    """Convert a row to a record.

    A field is the column of the same name, lists as tuples. A field with the name of a kind is the ID of the thing of
    that kind to which the row belongs, directly or through its owner; of a model it is the name. Any other field that
    the row does not have is that of its owner. Fields in `leave` keep their defaults.
    """
    return kind(**_values(row, kind, leave))


def detail(row: Base, kind: Kind[Any, RecordT]) -> RecordT:
    """Convert a row to the record with all details of its kind."""
    lists = {name: tuple(record(each, part) for each in getattr(row, name)) for name, part in kind.parts.items()}
    return kind.detail(**_values(row, kind.detail, leave=tuple(lists)), **lists)


def _values(row: Base, kind: type[Record], leave: tuple[str, ...] = ()) -> dict[str, Any]:
    names = (field.name for field in fields(kind))  # type: ignore[arg-type]
    return {name: _value(row, name) for name in names if name not in leave}


def _value(row: Any, name: str) -> Any:
    if not hasattr(row, name):
        return _value(getattr(row, KINDS[row.kind].owners[0]), name)
    value = getattr(row, name)
    if isinstance(value, Row):
        return value.name if isinstance(value, Model) else value.id
    return tuple(value) if isinstance(value, list) else value
