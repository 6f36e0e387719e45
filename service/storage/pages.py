"""Pages of rows, and the cursors that lead from one page to the next."""

from __future__ import annotations

import base64
import operator
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Select, and_, func, literal, or_, select, tuple_
from sqlalchemy.orm import Session

from ..records.base import Page, Record
from ..records.errors import StoreError
from ..records.partitions import MediatorRow, NodeRow
from .node_names import FROM_FILE
from .references import RowT
from .rows import record
from .tables import Mediator, NodeAssignment, Row

__all__ = ["keyed_page", "mediator_page", "node_page", "page"]

RecordT = TypeVar("RecordT", bound=Record)

_MAX_LIMIT = 1000


def page(
    session: Session,
    table: type[RowT],
    query: Select[RowT],
    convert: Callable[[RowT], RecordT],
    *,
    cursor: str | None,
    limit: int,
    newest_first: bool,
) -> Page[RecordT]:
    """Return the next rows of a query, in order of creation, the cursor of the next page, and the number of all rows.

    Raises:
        StoreError: an unknown cursor, or a limit out of range.
    """
    _check_limit(limit)
    total = session.scalar(select(func.count()).select_from(query.with_only_columns(table.key).subquery()))
    order = [table.created, table.key]
    if cursor is not None:
        created, key = _decode_cursor(cursor)
        beyond = operator.lt if newest_first else operator.gt
        same_moment = and_(table.created == created, beyond(table.key, key))
        query = query.where(or_(beyond(table.created, created), same_moment))
    query = query.order_by(*(column.desc() if newest_first else column.asc() for column in order))
    rows = session.scalars(query.limit(limit + 1)).all()
    more = _encode_cursor(rows[limit - 1]) if len(rows) > limit else None
    return Page(items=tuple(convert(row) for row in rows[:limit]), next_cursor=more, total=total)


def node_page(session: Session, query: Select[Any], *, cursor: str | None, limit: int) -> Page[NodeRow]:
    """Return the next nodes of a query, by cut and coordinate, and the cursor; raises as `page` does."""
    _check_limit(limit)
    if cursor is not None:
        key = tuple_(NodeAssignment.cut, NodeAssignment.coordinate)
        query = query.where(key > tuple_(*(literal(number) for number in _decode_key(cursor, 2))))
    rows = session.scalars(query.limit(limit + 1)).all()
    more = _encode(rows[limit - 1].cut, rows[limit - 1].coordinate) if len(rows) > limit else None
    return Page(items=tuple(record(row, NodeRow, FROM_FILE) for row in rows[:limit]), next_cursor=more)


def mediator_page(session: Session, query: Select[Any], *, cursor: str | None, limit: int) -> Page[MediatorRow]:
    """Return the next mediators of a query, strongest first within each pair of modules; see `node_page`."""
    _check_limit(limit)
    names = ("earlier", "later", "cut", "coordinate")
    if cursor is not None:
        key = dict(zip(names, _decode_key(cursor, 4), strict=True))
        last = session.scalar(query.order_by(None).filter_by(**key))
        if last is None:
            raise _unknown(cursor)
        pair = tuple_(Mediator.earlier, Mediator.later)
        before = tuple_(literal(last.earlier), literal(last.later))
        node = tuple_(Mediator.cut, Mediator.coordinate) > tuple_(literal(last.cut), literal(last.coordinate))
        weaker = or_(Mediator.strength < last.strength, and_(Mediator.strength == last.strength, node))
        query = query.where(or_(pair > before, and_(pair == before, weaker)))
    rows = session.scalars(query.limit(limit + 1)).all()
    more = _encode(*(getattr(rows[limit - 1], name) for name in names)) if len(rows) > limit else None
    return Page(items=tuple(record(row, MediatorRow) for row in rows[:limit]), next_cursor=more)


def keyed_page(
    items: Sequence[tuple[tuple[int, int, int], RecordT]], *, cursor: str | None, limit: int
) -> Page[RecordT]:
    """Return the next of some items, each with a key, in the order of their keys, and the cursor; see `node_page`."""
    _check_limit(limit)
    after = None if cursor is None else tuple(_decode_key(cursor, 3))
    left = [(key, item) for key, item in items if after is None or key > after]
    more = _encode(*left[limit - 1][0]) if len(left) > limit else None
    return Page(items=tuple(item for _, item in left[:limit]), next_cursor=more, total=len(items))


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= _MAX_LIMIT:
        raise StoreError(f"limit is {limit}: expected 1 to {_MAX_LIMIT}")


def _encode(*parts: Any) -> str:
    return base64.urlsafe_b64encode(" ".join(map(str, parts)).encode()).decode().rstrip("=")


def _decode(cursor: str) -> list[str]:
    return base64.urlsafe_b64decode((cursor + "=" * (-len(cursor) % 4)).encode()).decode().split()


def _unknown(cursor: str) -> StoreError:
    return StoreError(f"unknown cursor {cursor!r}: expected the next_cursor of an earlier page")


def _encode_cursor(row: Row) -> str:
    return _encode(row.created.isoformat(), row.key)


def _decode_cursor(cursor: str) -> tuple[datetime, int]:
    try:
        created, key = _decode(cursor)
        moment = datetime.fromisoformat(created)
        if moment.tzinfo is None or not 0 <= int(key) < 2**31:
            raise ValueError(created)
        return moment.astimezone(UTC), int(key)
    except (ValueError, OverflowError) as error:
        raise _unknown(cursor) from error


def _decode_key(cursor: str, length: int) -> list[int]:
    try:
        key = [int(part) for part in _decode(cursor)]
        if len(key) != length or not all(0 <= number < 2**31 for number in key):
            raise ValueError(cursor)
        return key
    except ValueError as error:
        raise _unknown(cursor) from error
