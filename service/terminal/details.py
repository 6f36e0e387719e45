"""All details of one row."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from ..records.base import Record
from ..records.checkpoints import CheckpointRow, DatasetRow, ModelRow
from ..records.estimates import ExperimentRow, LedgerRow, LlcRow
from ..records.graphs import GraphRow
from ..records.jobs import JobRow
from ..records.partitions import PartitionRow
from ..records.tracking import TrackingRow
from .tables import _percent, number, plainly

__all__ = ["details"]


def details(row: Record) -> Table:
    """Make a table of one stored value, a line per field."""
    result = Table(box=None, show_header=False, pad_edge=False)
    result.add_column(style="bold")
    result.add_column(overflow="fold")
    for name, value in _facts(row).items():
        result.add_row(name, plainly(value))
    return result


def _facts(row: Record) -> dict[str, Any]:
    names: tuple[str, ...]
    match row:
        case ModelRow():
            return {"id": row.id, "name": row.name, "family": row.family, "config": row.config, "created": row.created}
        case CheckpointRow():
            names = ("id", "model", "step", "label", "sha256", "path")
            if notes := (row.about or {}).get("notes"):
                shown = notes if isinstance(notes, str) else "; ".join(map(str, notes))
                return {name: getattr(row, name) for name in names} | {"notes": shown, "created": row.created}
        case DatasetRow():
            names = ("id", "description", "sha256")
        case GraphRow():
            widths = ", ".join(f"{cut} ({width})" for cut, width in zip(row.cuts, row.widths, strict=True))
            some = {"id": row.id, "model": row.model, "checkpoint": row.checkpoint, "dataset": row.dataset}
            return some | {"cuts (nodes)": widths, "edges": row.n_edges, "strengths": row.strengths, **_origin(row)}
        case PartitionRow():
            names = ("id", "model", "checkpoint", "graph", "n_modules", "edge_cost", "mediator_cost")
            names += ("normalised_cost", "contrast", "p_value", "z", "stability", "description_length")
            names += ("objective", "resolution", "epsilon", "epsilon_source", "warning")
            facts = {name: getattr(row, name) for name in names}
            if len(scales := list(dict.fromkeys(row.epsilons or ()))) > 1:
                facts["epsilon"] = ", ".join(map(number, scales))
            return facts | _origin(row)
        case LedgerRow():
            names = ("id", "model", "checkpoint", "dataset", "n", "epsilon", "warning")
            return {name: getattr(row, name) for name in names} | _origin(row)
        case LlcRow():
            names = ("id", "model", "checkpoint", "dataset", "mode", "loss", "n_parameters", "n")
            return {name: getattr(row, name) for name in names} | _origin(row)
        case ExperimentRow():
            names = ("id", "model", "checkpoint", "graph", "partition", "experiment", "metric")
            return {name: getattr(row, name) for name in names} | _origin(row)
        case TrackingRow():
            names = ("id", "model", "n_checkpoints", "n_tracks", "churn")
            return {name: getattr(row, name) for name in names} | _origin(row)
        case JobRow():
            return _job_facts(row)
        case _:
            names = tuple(row.to_json())
    return {name: getattr(row, name) for name in names} | ({"created": row.created} if hasattr(row, "created") else {})


def _job_facts(row: JobRow) -> dict[str, Any]:
    """Return the fields of a job; leave out those that do not apply."""
    left = f", {row.remaining:.0f} s left" if row.remaining is not None else ""
    facts: dict[str, Any] = {
        "id": row.id,
        "task": row.task,
        "target": row.target,
        "choices": row.choices or None,
        "queue": None if row.queue == "default" else row.queue,
        "priority": row.priority or None,
        "timeout": None if row.timeout is None else f"{row.timeout:g} s",
        "state": "to be cancelled" if row.cancelling and not row.ended else row.state,
        "step": row.step,
        "done": None if row.fraction is None or row.ended else f"{_percent(row.fraction)} %{left}",
        "message": None if row.ended else row.message or None,
        "attempts": row.attempts if row.attempts > 1 else None,
        "interruptions": row.interruptions or None,
        "worker": row.worker,
        "error": row.error,
        "results": ", ".join(f"{made['kind']} {made['id']}" for made in row.results) or None,
    }
    facts |= {"created": row.created, "started": row.started, "finished": row.finished}
    return {name: value for name, value in facts.items() if value is not None}


def _origin(row: ExperimentRow | GraphRow | LedgerRow | LlcRow | PartitionRow | TrackingRow) -> dict[str, Any]:
    return {"recipe": row.recipe, "version": row.code_version, "seconds": row.wall_time, "created": row.created}
