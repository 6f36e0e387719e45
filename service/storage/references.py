"""References to rows: IDs, their first characters, and names.

    digits            a model by its name; as a run: the newest one of the model
    digits#2          the second run of the model; digits#LABEL the run with this label
    digits@500        the checkpoint of step 500 in the newest run; digits@LABEL the one with this label
    digits#2@500      that of the second run
    digits@last       the last checkpoint of the newest run
    last              the newest thing of the kind that is asked for

As a graph, partition, ledger, learning coefficient or experiment, `digits@500` is the newest result of that checkpoint,
and `digits@last` the newest of the last checkpoint that has one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from ..records.errors import AmbiguousError, NotFoundError, StoreError
from ..records.kinds import KINDS
from .tables import LETTERS, TABLES, Checkpoint, Comparison, Dataset, Model, Partition, Row, Run, Token

__all__ = ["belongs", "concerns", "new_id", "owners_of", "resolve"]

RowT = TypeVar("RowT", bound=Row)

_SHORT = 8  # hexadecimal digits of an ID, more where two would be the same

_LAST = "last"


def new_id(session: Session, table: type[Row], *identity: str) -> str:
    """Make a unique ID: the letter of the kind and the start of the hash of what identifies the row."""
    digest = hashlib.sha256("\0".join((table.kind, *identity)).encode()).hexdigest()
    letter = LETTERS[table.kind]
    for length in range(_SHORT, len(digest)):
        candidate = f"{letter}-{digest[:length]}"
        if session.scalar(select(table.key).where(table.id == candidate)) is None:
            return candidate
    raise StoreError(f"there is a {table.kind} with the ID {letter}-{digest} already")


def owners_of(name: str) -> set[str]:
    """Return the kinds of all that things of a kind belong to, directly or through others.

    >>> sorted(owners_of("checkpoint"))
    ['model', 'run']
    """
    direct = KINDS[name].owners if name in KINDS else ()
    return {*direct, *(further for owner in direct for further in owners_of(owner))}


def belongs(table: Any, name: str, key: int) -> ColumnElement[bool]:
    """Return the condition that rows belong, directly or through their owner, to the thing of a kind with this key."""
    column = getattr(table, f"{name}_key", None)
    owner = KINDS[table.kind].owners[0]
    found: ColumnElement[bool] = (
        column == key if column is not None else getattr(table, owner).has(belongs(TABLES[owner], name, key))
    )
    return found


def concerns(table: Any, name: str, key: int) -> ColumnElement[bool]:
    """Return `belongs`; a comparison concerns what either of its two partitions belongs to."""
    found = belongs(table, name, key)
    if table is not Comparison:
        return found
    if name == "partition":
        return or_(found, Comparison.other_key == key)
    return or_(found, Comparison.other.has(belongs(Partition, name, key)))


def resolve(session: Session, table: type[RowT], ref: str) -> RowT:
    """Find the row that an ID, a name, or the unique start of an ID refers to.

    Raises:
        NotFoundError: no row matches; the message says what of another kind does.
        AmbiguousError: several rows match.
    """
    for found in _meanings(session, table, ref) if ref and ref.isprintable() else ():
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(row.id for row in found[:5]) + (", ..." if len(found) > 5 else "")
            raise AmbiguousError(f"{ref!r} could be any of the {table.kind}s {ids}: give one of these IDs")
    raise NotFoundError(_unknown(session, table, ref))


def _meanings(session: Session, table: type[RowT], ref: str) -> Iterator[list[RowT]]:
    """Yield the rows that a reference may stand for, by its most exact meaning first."""
    for condition in _own_names(table, ref):
        yield _some(session, select(table).where(condition).order_by(table.id))
    if table is Checkpoint:
        yield _labelled(session, ref)
    base, at, moment = ref.rpartition("@")
    if at:
        for run in _runs(session, base):
            yield _of_moment(session, table, run, moment)
    elif table is Run:
        yield _runs(session, ref)
    if ref == _LAST and table is not Token:
        yield _some(session, select(table).order_by(*_newest(table)), 1)
    if len(ref) > 2:
        yield _some(session, select(table).where(func.substr(table.id, 1, len(ref)) == ref).order_by(table.id))


def _own_names(table: type[Row], ref: str) -> list[ColumnElement[bool]]:
    """Return the conditions that a row is called by this name itself."""
    names = [table.id == ref]
    if table is Model:
        names.append(Model.name == ref)
    if table is Dataset:
        names.append(Dataset.sha256 == ref)
    if table is Checkpoint:
        names.append(Checkpoint.sha256 == ref)
    return names


def _labelled(session: Session, label: str) -> list[Checkpoint]:
    """Return the checkpoints with a label; where all are of one model, only those of its newest run with the label."""
    query = select(Checkpoint).join(Run).where(Checkpoint.label == label)
    rows = list(session.scalars(query.order_by(Run.number.desc(), Checkpoint.id)))
    one = len({row.run.model_key for row in rows}) == 1
    return [row for row in rows if not one or row.run_key == rows[0].run_key]


def _runs(session: Session, ref: str) -> list[Run]:
    """Return the run that `model`, `model#number`, `model#label` or an ID names: of a model the newest one."""
    named = or_(Model.name == ref, Model.id == ref)
    of_model = (
        select(Run).join(Model).where(named, select(Checkpoint.key).where(Checkpoint.run_key == Run.key).exists())
    )
    if found := _some(session, of_model.order_by(Run.number.desc()), 1):
        return found
    name, _, which = ref.rpartition("#")
    of_name = or_(Model.name == name, Model.id == name)
    conditions: list[ColumnElement[bool]] = [Run.id == ref, and_(of_name, Run.label == which)]
    if which.isdecimal() and len(which) < 10:
        conditions.append(and_(of_name, Run.number == int(which)))
    rows = (_some(session, select(Run).join(Model).where(condition)) for condition in conditions)
    return next((found for found in rows if found), [])


def _of_moment(session: Session, table: type[Any], run: Run, moment: str) -> list[Any]:
    """Return the checkpoints of a run at a moment, a step, a label or the last one; or the newest result there."""
    if table is Checkpoint:
        return _checkpoints(session, run, moment)[: None if moment != _LAST else 1]
    owners = owners_of(table.kind)
    if "checkpoint" in owners:
        for checkpoint in _checkpoints(session, run, moment):
            if found := _newest_of(session, table, checkpoint):
                return [found]
    elif moment == _LAST and "run" in owners and (found := _newest_of(session, table, run)):
        return [found]
    return []


def _checkpoints(session: Session, run: Run, moment: str) -> list[Checkpoint]:
    """Return the checkpoints of a run with this label or step; of the moment `last` all, the last one first."""
    of_run = select(Checkpoint).where(Checkpoint.run_key == run.key)
    order = Checkpoint.step.is_(None).desc(), Checkpoint.step.desc(), Checkpoint.created.desc(), Checkpoint.key.desc()
    found = _some(session, of_run.where(Checkpoint.label == moment).order_by(*order))
    if not found and moment.isdecimal() and len(moment) < 19:
        found = _some(session, of_run.where(Checkpoint.step == int(moment)).order_by(*order))
    return list(session.scalars(of_run.order_by(*order))) if moment == _LAST and not found else found


def _newest_of(session: Session, table: type[RowT], owner: Row) -> RowT | None:
    """Return the newest row of a table that belongs to another row, or None."""
    query = select(table).where(belongs(table, owner.kind, owner.key))
    return next(iter(_some(session, query.order_by(*_newest(table)), 1)), None)


def _newest(table: type[Row]) -> tuple[ColumnElement[Any], ...]:
    return table.created.desc(), table.key.desc()


def _some(session: Session, query: Select[RowT], most: int = 6) -> list[RowT]:
    return list(session.scalars(query.limit(most)))


def _unknown(session: Session, table: type[Row], ref: str) -> str:
    """Say why a reference names nothing of this kind, and what it names instead."""
    kind = table.kind
    listed = f"list them with `interbasis ls {KINDS[kind].plural if kind in KINDS else f'{kind}s'}`"
    if not ref or not ref.isprintable():
        return f"no {kind} {ref!r} in the store: {listed}"
    if ref == _LAST and table is not Token:
        return f"no {kind} is stored yet: {listed}"
    other = _of_other_kind(session, table, ref)
    if other is not None:
        return f"{ref} is {_a(other.kind)}; expected {_a(kind)}{_instead(session, table, other)}"
    base, at, moment = ref.rpartition("@")
    if at and (runs := _runs(session, base)) and (table is Checkpoint or "run" in owners_of(kind)):
        return _without(session, table, runs[0], moment)
    what = "model or run" if table is Run else kind
    return f"no {what} {ref!r} in the store: {listed}"


def _of_other_kind(session: Session, table: type[Row], ref: str) -> Row | None:
    """Return what of another kind has this ID, or is the model of this name."""
    for other in TABLES.values():
        named = or_(Model.id == ref, Model.name == ref) if other is Model else other.id == ref
        if other is not table and other is not Token:
            found: Row | None = session.scalars(select(other).where(named)).first()
            if found is not None:
                return found
    return None


def _instead(session: Session, table: type[Row], other: Row) -> str:
    """Name the thing of the kind that was expected, where it belongs to the other one or owns it."""
    if other.kind in owners_of(table.kind):
        found = _newest_of(session, table, other)
        return f"; its newest {table.kind} is {found.id}" if found is not None else f"; it has no {table.kind} yet"
    if table.kind in owners_of(other.kind):
        owner: Any = other
        while not isinstance(owner, table):
            owner = getattr(owner, table.kind, None) or getattr(owner, KINDS[owner.kind].owners[0])
        return f"; its {table.kind} is {owner.id}"
    return ""


def _without(session: Session, table: type[Row], run: Run, moment: str) -> str:
    """Say that a run has no such checkpoint, or that the checkpoint has no result of the kind."""
    name = f"{run.model.name}#{run.number}"
    found = _checkpoints(session, run, moment)
    if found and moment != _LAST:
        return f"{found[0].id}, step {found[0].step} of {name}, has no {table.kind} yet"
    others = select(Run).where(Run.model_key == run.model_key, Run.key != run.key).order_by(Run.number.desc())
    if found:
        has = next((other for other in session.scalars(others) if _newest_of(session, table, other)), None)
        other = "" if has is None else f"; {run.model.name}#{has.number} has: {run.model.name}#{has.number}@{moment}"
        return f"no checkpoint of {name} has {_a(table.kind)} yet{other}"
    has = next((other for other in session.scalars(others) if _checkpoints(session, other, moment)), None)
    hint = "" if has is None else f"; an earlier run has: {run.model.name}#{has.number}@{moment}"
    return f"{name} has no checkpoint {moment!r}{hint or ': list them with `interbasis ls checkpoints`'}"


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' or kind == 'llc' else 'a'} {kind}"
