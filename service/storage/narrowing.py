"""Conditions that narrow a list: the step of the checkpoint, the moment of storing, the verdict."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, or_

from ..records.base import Kind
from ..records.kinds import KINDS
from .tables import TABLES, Checkpoint, Comparison, Partition

__all__ = ["narrowed"]


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
