"""Conversion of table rows to the frozen records that the store returns."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..records.base import Provenance, Record
from ..records.checkpoints import CheckpointRow, DatasetRow, ModelRow
from ..records.estimates import ExperimentRow, ExperimentValues, LedgerRow, LedgerValues, LlcRow, LlcValues
from ..records.graphs import GraphRow, GraphValues
from ..records.partitions import (
    LinkRow,
    MediatorRow,
    ModuleRow,
    NodeRow,
    PartitionDetail,
    PartitionRow,
    PartitionValues,
)
from ..records.tracking import TrackingDetail, TrackingRow, TrackingStep, TrackingValues
from .tables import (
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
    Tracking,
    TrackingCheckpoint,
)

__all__ = [
    "checkpoint_row",
    "dataset_row",
    "experiment_row",
    "graph_row",
    "ledger_row",
    "llc_row",
    "mediator_row",
    "model_row",
    "node_row",
    "partition_detail",
    "partition_row",
    "tracking_detail",
    "tracking_row",
]


def _columns(row: Any, *kinds: type[Record]) -> dict[str, Any]:
    """Return the columns of a row that are fields of the given records; lists become tuples."""
    names = [field.name for kind in kinds for field in fields(kind)]  # type: ignore[arg-type]
    values = {name: getattr(row, name) for name in names}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def model_row(row: Model) -> ModelRow:
    """Convert a row to a ModelRow."""
    return ModelRow(**_columns(row, ModelRow))


def dataset_row(row: Dataset) -> DatasetRow:
    """Convert a row to a DatasetRow."""
    return DatasetRow(**_columns(row, DatasetRow))


def checkpoint_row(row: Checkpoint) -> CheckpointRow:
    """Convert a row to a CheckpointRow."""
    return CheckpointRow(**_columns(row, CheckpointRow) | {"model": row.model.name})


def graph_row(row: Graph) -> GraphRow:
    """Convert a row to a GraphRow."""
    own = _columns(row, GraphValues, Provenance) | _of_checkpoint(row)
    return GraphRow(**own, graph_sha256=row.graph_sha256, bases_sha256=row.bases_sha256)


def mediator_row(row: Mediator) -> MediatorRow:
    """Convert a row to a MediatorRow."""
    return MediatorRow(**_columns(row, MediatorRow))


def node_row(row: NodeAssignment) -> NodeRow:
    """Convert a row to a NodeRow."""
    return NodeRow(**_columns(row, NodeRow))


def partition_row(row: Partition) -> PartitionRow:
    """Convert a row to a PartitionRow."""
    return PartitionRow(**_partition_fields(row))


def partition_detail(session: Session, row: Partition) -> PartitionDetail:
    """Convert a row to a PartitionDetail, with modules and links."""
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
    """Convert a row to a LedgerRow."""
    own = _columns(row, LedgerValues, Provenance)
    return LedgerRow(**own, **_of_checkpoint(row), ledger_sha256=row.ledger_sha256)


def llc_row(row: LlcEstimate) -> LlcRow:
    """Convert a row to an LlcRow."""
    return LlcRow(**_columns(row, LlcValues, Provenance), **_of_checkpoint(row), llc_sha256=row.llc_sha256)


def experiment_row(row: Experiment) -> ExperimentRow:
    """Convert a row to an ExperimentRow."""
    graph = row.partition.graph
    owner = {"model": graph.checkpoint.model.name, "checkpoint": graph.checkpoint.id, "graph": graph.id}
    own: dict[str, Any] = {"id": row.id, **owner, "partition": row.partition.id, "created": row.created}
    return ExperimentRow(**_columns(row, ExperimentValues, Provenance), **own, experiment_sha256=row.experiment_sha256)


def _of_checkpoint(row: Graph | Ledger | LlcEstimate) -> dict[str, Any]:
    """Return the fields that say which checkpoint and dataset a result belongs to."""
    owner = {"model": row.checkpoint.model.name, "checkpoint": row.checkpoint.id, "dataset": row.dataset.id}
    return {"id": row.id, **owner, "created": row.created}


def tracking_row(row: Tracking) -> TrackingRow:
    """Convert a row to a TrackingRow."""
    return TrackingRow(**_tracking_fields(row))


def tracking_detail(session: Session, row: Tracking) -> TrackingDetail:
    """Convert a row to a TrackingDetail, with its checkpoints."""
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
