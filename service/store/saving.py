"""Steps of saving a result: checks before, and changes within the transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from ..records.base import Kind, Record, plain, plain_values
from ..records.errors import StoreError
from ..records.graphs import GraphRow
from ..records.partitions import LinkRow, MediatorRow, ModuleRow
from ..storage.artifacts import Blobs
from ..storage.tables import (
    ARTIFACT_COLUMNS,
    Artifact,
    Base,
    Comparison,
    Description,
    Experiment,
    Graph,
    LlcEstimate,
    Mediator,
    Module,
    ModuleLink,
    NodeAssignment,
    Partition,
    Result,
    Tracking,
    TrackingCheckpoint,
)

__all__ = [
    "Files",
    "Parts",
    "added",
    "artifacts",
    "check_fit",
    "check_names",
    "drop_unreferenced",
    "fill",
    "forget",
    "now",
    "parts_of",
]


def drop_unreferenced(session: Session, artifacts: Iterable[str | None]) -> None:
    """Delete the rows of artifacts that no result refers to; `collect` then removes their files."""
    for sha256 in {name for name in artifacts if name is not None}:
        if all(session.scalar(select(column).where(column == sha256).limit(1)) is None for column in ARTIFACT_COLUMNS):
            session.execute(delete(Artifact).where(Artifact.sha256 == sha256))


Files = dict[str, tuple[str, int]]  # what a file is -> SHA-256, bytes

Parts = dict[type[Base], list[dict[str, Any]]]  # rows of a partition but for its key, parents first

BaseT = TypeVar("BaseT", bound=Base)


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def added(session: Session, row: BaseT) -> BaseT:
    """Add a row within the transaction, and return it."""
    session.add(row)
    session.flush()
    return row


def check_names(kind: Kind[Any, Any], blobs: Mapping[str, bytes]) -> None:
    """Refuse files if the first of the kind is missing, or one is unknown."""
    needed, known = next(iter(kind.files)), list(kind.files)
    if needed not in blobs or set(blobs) - set(known):
        raise StoreError(f"the files given are {sorted(blobs)}: expected {needed!r}, of {known}")


def artifacts(kind: Kind[Any, Any], row: Any) -> list[str | None]:
    """Return the hashes of a result's files; None for a file that was not kept."""
    return [getattr(row, f"{name}_sha256") for name in kind.files]


def parts_of(
    modules: Iterable[ModuleRow],
    links: Iterable[LinkRow],
    labels: Sequence[Sequence[int]],
    importance: Sequence[Sequence[float]],
    confidence: Sequence[Sequence[float]] = (),
    mediators: Iterable[MediatorRow] = (),
) -> Parts:
    """Make the rows that belong to a partition: modules, links, nodes and mediators."""
    lengths = [len(cut) for cut in labels]
    if [len(cut) for cut in importance] != lengths or (confidence and [len(cut) for cut in confidence] != lengths):
        raise StoreError(
            "labels and importance or confidence differ in length: expected one value each per node and cut"
        )
    nodes = []
    for cut, (cut_labels, weights) in enumerate(zip(labels, importance, strict=True)):
        sure: Sequence[float | None] = confidence[cut] if confidence else [None] * len(weights)
        columns = (plain(list(values)) for values in (cut_labels, weights, sure))
        for coordinate, (label, weight, share) in enumerate(zip(*columns, strict=True)):
            node = {"cut": cut, "coordinate": coordinate, "module": label if label >= 0 else None}
            nodes.append(node | {"importance": float(weight), "confidence": share if label >= 0 else None})
    return {
        Module: _rows(modules),
        ModuleLink: _rows(links),
        Mediator: _rows(mediators),
        NodeAssignment: nodes,
    }


def _rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    return [plain_values(record, type(record)) for record in records]


def check_fit(graph: GraphRow, n_modules: int, parts: Parts, widths: list[int]) -> None:
    """Refuse labels that do not fit the graph, or that name missing modules."""
    if tuple(widths) != graph.widths:
        raise StoreError(f"the labels have {widths} nodes per cut, the graph {graph.id} has {list(graph.widths)}")
    indices = [row["index"] for row in parts[Module]]
    if len(indices) != n_modules or len(set(indices)) != n_modules:
        raise StoreError(f"n_modules is {n_modules}, the modules given are {indices}: expected one row per module")
    named = {row["module"] for row in parts[NodeAssignment]} - {None}
    named |= {row[end] for table in (ModuleLink, Mediator) for row in parts[table] for end in ("earlier", "later")}
    if unknown := named - set(indices):
        raise StoreError(f"labels or links name the modules {sorted(unknown)}, which are not among those given")


def fill(session: Session, row: Result, columns: Mapping[str, Any], files: Files) -> None:
    """Set the columns of a new or replaced result, and add rows for its files."""
    for sha256, size in files.values():
        if session.get(Artifact, sha256) is None:
            session.add(Artifact(sha256=sha256, uri=Blobs.key(sha256), bytes=size, created=now()))
            session.flush()
    for name, value in columns.items():
        setattr(row, name, value)
    row.created = now()
    added(session, row)


def forget(session: Session, kind: Kind[Any, Any], row: Any, sha256: str) -> list[str | None]:
    """Delete what depends on a result before it is replaced; return the artifacts no longer needed.

    Args:
        session: the transaction.
        kind: kind of the result.
        row: row of the result.
        sha256: hash of the first file of the new result. If it is the same as before, results that were computed from
            the result stay.
    """
    garbage = artifacts(kind, row)
    same = garbage[0] == sha256
    if isinstance(row, Graph) and not same:
        of_graph = Partition.graph_key == row.key
        garbage += _without_modules(session, row, set(session.scalars(select(Partition.id).where(of_graph))))
        garbage += session.scalars(select(Partition.partition_sha256).where(of_graph))
        garbage += session.scalars(select(Experiment.experiment_sha256).where(Experiment.partition.has(of_graph)))
        garbage += session.scalars(select(Description.description_sha256).where(Description.partition.has(of_graph)))
        compared = or_(Comparison.partition.has(of_graph), Comparison.other.has(of_graph))
        garbage += session.scalars(select(Comparison.comparison_sha256).where(compared))
        session.execute(delete(Partition).where(of_graph))
        divided = select(TrackingCheckpoint.tracking_key).where(TrackingCheckpoint.graph_key == row.key)
        garbage += session.scalars(select(Tracking.tracking_sha256).where(Tracking.key.in_(divided)))
        session.execute(delete(Tracking).where(Tracking.key.in_(divided)))
    if isinstance(row, Partition):
        if not same:
            on_it = Experiment.partition_key == row.key
            garbage += session.scalars(select(Experiment.experiment_sha256).where(on_it))
            session.execute(delete(Experiment).where(on_it))
            cards_of_it = Description.partition_key == row.key
            garbage += session.scalars(select(Description.description_sha256).where(cards_of_it))
            session.execute(delete(Description).where(cards_of_it))
            compared = or_(Comparison.partition_key == row.key, Comparison.other_key == row.key)
            garbage += session.scalars(select(Comparison.comparison_sha256).where(compared))
            session.execute(delete(Comparison).where(compared))
            garbage += _without_modules(session, row.graph, {row.id})
        session.execute(delete(NodeAssignment).where(NodeAssignment.partition_key == row.key))
        session.execute(delete(Module).where(Module.partition_key == row.key))
    if isinstance(row, Tracking):
        session.execute(delete(TrackingCheckpoint).where(TrackingCheckpoint.tracking_key == row.key))
    return garbage


def _without_modules(session: Session, graph: Graph, partitions: set[str]) -> list[str | None]:
    """Delete the learning coefficients of the modules of partitions; return their artifacts."""
    by_modules = (LlcEstimate.checkpoint_key == graph.checkpoint_key) & (LlcEstimate.mode == "modules")
    rows = [
        row for row in session.scalars(select(LlcEstimate).where(by_modules)) if row.recipe["modules"] in partitions
    ]
    for row in rows:
        session.delete(row)
    return [row.llc_sha256 for row in rows]
