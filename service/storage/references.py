"""References to rows: IDs, their first characters, and names with a step."""

from __future__ import annotations

import hashlib
from typing import TypeVar

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from ..records.errors import AmbiguousError, NotFoundError, StoreError
from .tables import Checkpoint, Dataset, Model, Row

__all__ = ["new_id", "resolve"]

RowT = TypeVar("RowT", bound=Row)

_SHORT = 8  # hexadecimal digits of an ID, more where two would be the same


def new_id(session: Session, table: type[Row], *identity: str) -> str:
    """Make a unique ID: the letter of the kind and the start of the hash of what identifies the row."""
    digest = hashlib.sha256("\0".join((table.kind, *identity)).encode()).hexdigest()
    for length in range(_SHORT, len(digest)):
        candidate = f"{table.kind[0]}-{digest[:length]}"
        if session.scalar(select(table.key).where(table.id == candidate)) is None:
            return candidate
    raise StoreError(f"there is a {table.kind} with the ID {table.kind[0]}-{digest} already")


def resolve(session: Session, table: type[RowT], ref: str) -> RowT:
    """Find the row that an ID, a name, or the unique start of an ID refers to.

    Raises:
        NotFoundError: no row matches.
        AmbiguousError: several rows match.
    """
    for condition in _meanings(table, ref):
        found = session.scalars(select(table).where(condition).order_by(table.id).limit(6)).all()
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(row.id for row in found[:5]) + (", ..." if len(found) > 5 else "")
            raise AmbiguousError(f"{ref!r} could be any of the {table.kind}s {ids}: give one of these IDs")
    raise NotFoundError(f"no {table.kind} {ref!r} in the store: list them with `interbasis ls {table.kind}s`")


def _meanings(table: type[Row], ref: str) -> list[ColumnElement[bool]]:
    """Return the conditions that a reference may stand for, most exact first."""
    if not ref.isprintable() or len(ref) < 1:
        return []
    meanings = [table.id == ref]
    if table is Model:
        meanings.append(Model.name == ref)
    if table is Dataset:
        meanings.append(Dataset.sha256 == ref)
    if table is Checkpoint:
        meanings += [Checkpoint.sha256 == ref, *_moment(ref)]
    if len(ref) > 2:
        meanings.append(func.substr(table.id, 1, len(ref)) == ref)
    return meanings


def _moment(ref: str) -> list[ColumnElement[bool]]:
    """Return the conditions for `label`, `model@label` and `model@step`."""
    model, at, moment = ref.rpartition("@")
    meanings = [Checkpoint.label == moment]
    if moment.isdecimal() and len(moment) < 19 and at:
        meanings.append(Checkpoint.step == int(moment))
    return [and_(Checkpoint.model.has(Model.name == model), m) if at else m for m in meanings]
