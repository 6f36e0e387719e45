"""What the store asks its tables: references to IDs, pages of lists, rows as frozen values."""

from __future__ import annotations

import base64
import hashlib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, and_, delete, func, literal, or_, select, tuple_
from sqlalchemy.orm import Session

from .records import (
    AmbiguousError,
    CheckpointRow,
    DatasetRow,
    ExperimentRow,
    ExperimentValues,
    GraphRow,
    GraphValues,
    LedgerRow,
    LedgerValues,
    LinkRow,
    LlcRow,
    LlcValues,
    MediatorRow,
    ModelRow,
    ModuleRow,
    NodeRow,
    NotFoundError,
    Page,
    PartitionDetail,
    PartitionRow,
    PartitionValues,
    Provenance,
    Record,
    StoreError,
    TrackingDetail,
    TrackingRow,
    TrackingStep,
    TrackingValues,
)
from .tables import (
    ARTIFACT_COLUMNS,
    Artifact,
    Checkpoint,
    Dataset,
    Experiment,
    Graph,
    Ledger,
    LlcEstimate,
    Mediator,
    Model,
    Module,
    ModuleLink,
    NodeAssignment,
    Partition,
    Row,
    Tracking,
    TrackingCheckpoint,
)

__all__ = [
    "checkpoint_row",
    "dataset_row",
    "drop_unreferenced",
    "experiment_row",
    "graph_row",
    "ledger_row",
    "llc_row",
    "mediator_page",
    "mediator_row",
    "model_row",
    "new_id",
    "node_page",
    "node_row",
    "page",
    "partition_detail",
    "partition_row",
    "plain",
    "plain_values",
    "resolve",
    "tracking_detail",
    "tracking_row",
]

RowT = TypeVar("RowT", bound=Row)
RecordT = TypeVar("RecordT", bound=Record)
TextT = TypeVar("TextT", str, None, str | None)

_SHORT = 8  # hexadecimal digits of an ID, more where two would be the same
_MAX_LIMIT = 1000
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def new_id(session: Session, table: type[Row], *identity: str) -> str:
    """Letter of the kind and the start of the hash of what identifies the row, long enough to be unique."""
    digest = hashlib.sha256("\0".join((table.kind, *identity)).encode()).hexdigest()
    for length in range(_SHORT, len(digest)):
        candidate = f"{table.kind[0]}-{digest[:length]}"
        if session.scalar(select(table.key).where(table.id == candidate)) is None:
            return candidate
    raise StoreError(f"there is a {table.kind} with the ID {table.kind[0]}-{digest} already")


def resolve(session: Session, table: type[RowT], ref: str) -> RowT:
    """The row that an ID, a name or the unique start of an ID names.

    Raises:
        NotFoundError: there is none.
        AmbiguousError: there are several.
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
    """What a reference may mean, the most exact first."""
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
    """`label`, `model@label` and `model@step`."""
    model, at, moment = ref.rpartition("@")
    meanings = [Checkpoint.label == moment]
    if moment.isdecimal() and len(moment) < 19 and at:
        meanings.append(Checkpoint.step == int(moment))
    return [and_(Checkpoint.model.has(Model.name == model), m) if at else m for m in meanings]


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
    """The next rows of a query by creation, and where to go on.

    Raises:
        StoreError: a cursor that no page had, or a limit out of range.
    """
    _check_limit(limit)
    order = [table.created, table.key]
    if cursor is not None:
        created, key = _decode_cursor(cursor)
        beyond = operator.lt if newest_first else operator.gt
        same_moment = and_(table.created == created, beyond(table.key, key))
        query = query.where(or_(beyond(table.created, created), same_moment))
    query = query.order_by(*(column.desc() if newest_first else column.asc() for column in order))
    rows = session.scalars(query.limit(limit + 1)).all()
    more = _encode_cursor(rows[limit - 1]) if len(rows) > limit else None
    return Page(items=tuple(convert(row) for row in rows[:limit]), next_cursor=more)


def node_page(session: Session, query: Select[Any], *, cursor: str | None, limit: int) -> Page[NodeRow]:
    """The next rows of a query for nodes by cut and coordinate, and where to go on; raises as `page` does."""
    _check_limit(limit)
    if cursor is not None:
        key = tuple_(NodeAssignment.cut, NodeAssignment.coordinate)
        query = query.where(key > tuple_(*(literal(number) for number in _decode_key(cursor, 2))))
    rows = session.scalars(query.limit(limit + 1)).all()
    more = _encode(rows[limit - 1].cut, rows[limit - 1].coordinate) if len(rows) > limit else None
    return Page(items=tuple(node_row(row) for row in rows[:limit]), next_cursor=more)


def mediator_page(session: Session, query: Select[Any], *, cursor: str | None, limit: int) -> Page[MediatorRow]:
    """The next rows of a query for mediators, the strongest first between the same modules; see `node_page`."""
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
    return Page(items=tuple(mediator_row(row) for row in rows[:limit]), next_cursor=more)


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


def storable(text: TextT) -> TextT:
    r"""A text as databases take it: what they do not take of it is shown as U+FFFD.

    >>> storable("a\0b") == "a\ufffdb"
    True
    """
    return _UNSTORABLE.sub("\ufffd", text) if isinstance(text, str) else text


def plain(value: Any) -> Any:
    """The value as JSON knows it, NumPy scalars as numbers; refuses what databases change or do not take.

    >>> plain((1, 2.5))
    [1, 2.5]

    Raises:
        StoreError: NaN, infinity, text with NUL or half of a surrogate pair, or a type that JSON does not know.
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
        raise StoreError(f"a value to be stored is a {type(value).__name__}: expected what JSON knows")
    return value


def plain_values(record: Record, kind: type[Record]) -> dict[str, Any]:
    """The fields of one kind of record as columns take them.

    Raises:
        StoreError: a value that cannot be stored, with the name of the field.
    """
    values = {}
    for field in fields(kind):  # type: ignore[arg-type]
        try:
            values[field.name] = plain(getattr(record, field.name))
        except StoreError as error:
            raise StoreError(f"{field.name}: {error}") from None
    return values


def _columns(row: Any, *kinds: type[Record]) -> dict[str, Any]:
    """The columns of a row that fields of the given records are named after, lists as tuples."""
    names = [field.name for kind in kinds for field in fields(kind)]  # type: ignore[arg-type]
    values = {name: getattr(row, name) for name in names}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def model_row(row: Model) -> ModelRow:
    """As a frozen value."""
    return ModelRow(**_columns(row, ModelRow))


def dataset_row(row: Dataset) -> DatasetRow:
    """As a frozen value."""
    return DatasetRow(**_columns(row, DatasetRow))


def checkpoint_row(row: Checkpoint) -> CheckpointRow:
    """As a frozen value."""
    return CheckpointRow(**_columns(row, CheckpointRow) | {"model": row.model.name})


def graph_row(row: Graph) -> GraphRow:
    """As a frozen value."""
    own = _columns(row, GraphValues, Provenance) | _of_checkpoint(row)
    return GraphRow(**own, graph_sha256=row.graph_sha256, bases_sha256=row.bases_sha256)


def mediator_row(row: Mediator) -> MediatorRow:
    """As a frozen value."""
    return MediatorRow(**_columns(row, MediatorRow))


def node_row(row: NodeAssignment) -> NodeRow:
    """As a frozen value."""
    return NodeRow(**_columns(row, NodeRow))


def partition_row(row: Partition) -> PartitionRow:
    """As a frozen value."""
    return PartitionRow(**_partition_fields(row))


def partition_detail(session: Session, row: Partition) -> PartitionDetail:
    """As a frozen value, with modules and links."""
    modules = session.scalars(select(Module).where(Module.partition_key == row.key).order_by(Module.index))
    links = session.scalars(
        select(ModuleLink).where(ModuleLink.partition_key == row.key).order_by(ModuleLink.earlier, ModuleLink.later)
    )
    return PartitionDetail(
        **_partition_fields(row),
        modules=tuple(ModuleRow(**_columns(module, ModuleRow)) for module in modules),
        links=tuple(LinkRow(**_columns(link, LinkRow)) for link in links),
    )


def _partition_fields(row: Partition) -> dict[str, Any]:
    return _columns(row, PartitionValues, Provenance) | {
        "id": row.id,
        "model": row.graph.checkpoint.model.name,
        "checkpoint": row.graph.checkpoint.id,
        "graph": row.graph.id,
        "partition_sha256": row.partition_sha256,
        "created": row.created,
    }


def ledger_row(row: Ledger) -> LedgerRow:
    """As a frozen value."""
    own = _columns(row, LedgerValues, Provenance)
    return LedgerRow(**own, **_of_checkpoint(row), ledger_sha256=row.ledger_sha256)


def llc_row(row: LlcEstimate) -> LlcRow:
    """As a frozen value."""
    return LlcRow(**_columns(row, LlcValues, Provenance), **_of_checkpoint(row), llc_sha256=row.llc_sha256)


def experiment_row(row: Experiment) -> ExperimentRow:
    """As a frozen value."""
    graph = row.partition.graph
    owner = {"model": graph.checkpoint.model.name, "checkpoint": graph.checkpoint.id, "graph": graph.id}
    own: dict[str, Any] = {"id": row.id, **owner, "partition": row.partition.id, "created": row.created}
    return ExperimentRow(**_columns(row, ExperimentValues, Provenance), **own, experiment_sha256=row.experiment_sha256)


def _of_checkpoint(row: Graph | Ledger | LlcEstimate) -> dict[str, Any]:
    """What a result of a checkpoint on a dataset belongs to."""
    owner = {"model": row.checkpoint.model.name, "checkpoint": row.checkpoint.id, "dataset": row.dataset.id}
    return {"id": row.id, **owner, "created": row.created}


def tracking_row(row: Tracking) -> TrackingRow:
    """As a frozen value."""
    return TrackingRow(**_tracking_fields(row))


def tracking_detail(session: Session, row: Tracking) -> TrackingDetail:
    """As a frozen value, with its checkpoints."""
    of_tracking = TrackingCheckpoint.tracking_key == row.key
    steps = session.scalars(select(TrackingCheckpoint).where(of_tracking).order_by(TrackingCheckpoint.position))
    return TrackingDetail(**_tracking_fields(row), steps=tuple(_tracking_step(step) for step in steps))


def _tracking_step(row: TrackingCheckpoint) -> TrackingStep:
    checkpoint = row.graph.checkpoint
    names: dict[str, Any] = {"checkpoint": checkpoint.id, "graph": row.graph.id}
    names |= {"step": checkpoint.step, "label": checkpoint.label}
    return TrackingStep(**names, tracks=tuple(row.tracks), sizes=tuple(row.sizes), churn=row.churn)


def _tracking_fields(row: Tracking) -> dict[str, Any]:
    own = {"id": row.id, "model": row.model.name, "tracking_sha256": row.tracking_sha256, "created": row.created}
    return _columns(row, TrackingValues, Provenance) | own


def drop_unreferenced(session: Session, artifacts: Iterable[str | None]) -> None:
    """Forget artifacts that no result refers to any more; their files become garbage."""
    for sha256 in {name for name in artifacts if name is not None}:
        if all(session.scalar(select(column).where(column == sha256).limit(1)) is None for column in ARTIFACT_COLUMNS):
            session.execute(delete(Artifact).where(Artifact.sha256 == sha256))
