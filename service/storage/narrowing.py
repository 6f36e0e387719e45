"""Conditions that narrow a list: the step of the checkpoint, the moment of storing, the verdict, words in names."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, String, and_, cast, exists, func, literal, or_, select
from sqlalchemy.orm import aliased

from ..records.base import Kind
from ..records.kinds import KINDS
from .tables import TABLES, Checkpoint, Comparison, Label, Model, Partition, Run

__all__ = ["having", "labelled", "narrowed"]

_NAMES = ("id", "name", "label", "step", "task", "target")  # columns in which words are looked for

_LABELLED = ("graph_key", "partition", "cut", "node", "module", "named_sha256", "source")  # one label counts of each


def narrowed(query: Select[Any], kind: Kind[Any, Any], **by: Any) -> Select[Any]:
    """Narrow the query of a list by `step`, `since` and `verdict`, as far as they are given."""
    table: Any = TABLES[kind.name]
    for name, value in by.items():
        if value is None:
            continue
        if name == "step":
            query = query.where(_at(table, value))
        elif name == "since":
            query = query.where(table.created >= _in_utc(value))
        else:
            query = query.where(table.verdict.startswith(value, autoescape=True))
    return query


def _at(table: Any, step: int) -> ColumnElement[bool]:
    """Return the condition that rows are checkpoints of a step, or belong to them, directly or through their owner.

    A comparison belongs to that of either partition.
    """
    if table is Checkpoint:
        return Checkpoint.step == step
    owner = KINDS[table.kind].owners[0]
    found: ColumnElement[bool] = getattr(table, owner).has(_at(TABLES[owner], step))
    return or_(found, Comparison.other.has(_at(Partition, step))) if table is Comparison else found


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def having(table: Any, words: Sequence[str]) -> Select[Any]:
    """Return the query of the rows of a kind with all these words in the name of the kind, an ID or a name.

    These are their own and those of what they belong to; a checkpoint is also `model@step`, a run `model#number`.
    """
    query: Select[Any] = select(table)
    of = table
    parts: list[Any] = [literal(table.kind)]
    while True:
        parts += [getattr(of, name) for name in _NAMES if hasattr(of, name)]
        if of is Run:
            parts.append(Model.name + "#" + cast(Run.number, String))
        if of is Checkpoint:
            parts.append(Model.name + "@" + cast(Checkpoint.step, String))
        owners = KINDS[of.kind].owners if of.kind in KINDS else ()
        if not owners:
            return query.where(_words(parts, words))
        query, of = query.join(getattr(of, owners[0])), TABLES[owners[0]]


def labelled(words: Sequence[str]) -> Select[Any]:
    """Return the query of the labels that count and have all these words in their text."""
    later = aliased(Label)
    same = (getattr(later, name).is_not_distinct_from(getattr(Label, name)) for name in _LABELLED)
    newest = ~exists().where(later.key > Label.key, *same)
    return select(Label).where(Label.text.is_not(None), _words([Label.text], words), newest)


def _words(parts: Sequence[Any], words: Sequence[str]) -> ColumnElement[bool]:
    text: Any = literal("")
    for part in parts:
        text = text + " " + func.coalesce(cast(part, String), "")
    return and_(*(func.lower(text).contains(word.lower(), autoescape=True) for word in words))
