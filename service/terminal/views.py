"""How each kind of stored thing is shown: the columns of its list, the details of one, and what follows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from ..records.base import Record
from ..records.checkpoints import CheckpointRow, DatasetRow, ModelRow, RunRow
from ..records.estimates import ExperimentRow, LedgerRow, LlcRow
from ..records.graphs import GraphRow
from ..records.jobs import JobRow, ScheduleRow, TokenRow
from ..records.partitions import PartitionDetail, PartitionRow
from ..records.tracking import TrackingDetail, TrackingRow
from .experiments import experiment_notes, experiment_tables
from .results import layers_table, ledger_table, llc_table, modules_table, tracking_table, verdict_line
from .tables import number, plainly, table, verdict

__all__ = ["VIEWS", "View", "body", "details", "rows_table"]


@dataclass(frozen=True)
class View:
    """How one kind of stored thing is shown.

    Attributes:
        record: its record in a list.
        columns: names of the columns of its list.
        cells: returns the cells of a row of the list.
        facts: returns the details of one, by name.
        body: returns what follows the details: tables, lines, and "" for an empty line.
    """

    record: type[Record]
    columns: tuple[str, ...]
    cells: Callable[[Any], tuple[Any, ...]]
    facts: Callable[[Any], dict[str, Any]]
    body: Callable[[Any], list[RenderableType]] = lambda _: []


def rows_table(kind: str, rows: Sequence[Record]) -> Table:
    """Make the table of a list of stored things of one kind, named in the plural."""
    view = VIEWS[kind]
    return table(view.columns, [view.cells(row) for row in rows])


def details(row: Record) -> Table:
    """Make a table of one stored value, a line per field."""
    view = _view(row)
    facts = _every(row) if view is None else view.facts(row)
    result = Table(box=None, show_header=False, pad_edge=False)
    result.add_column(style="bold")
    result.add_column(overflow="fold")
    for name, value in facts.items():
        result.add_row(name, plainly(value))
    return result


def body(row: Record) -> list[RenderableType]:
    """Return what follows the details of a stored value: tables, lines, and "" for an empty line."""
    view = _view(row)
    return [] if view is None else view.body(row)


def _view(row: Record) -> View | None:
    return next((view for view in VIEWS.values() if isinstance(row, view.record)), None)


def _when(row: Any) -> str:
    return f"{row.created:%m-%d %H:%M}"


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.0f}"


def _short(name: str | None) -> str | None:
    """Shorten a verdict for a column of a list: "not told apart"."""
    return None if name is None else name.removesuffix(" from chance")


def _every(row: Record) -> dict[str, Any]:
    """Read all fields of a record."""
    return {name: getattr(row, name) for name in row.to_json()}


def _named(*names: str) -> Callable[[Any], dict[str, Any]]:
    """Return a function that reads these fields of a record."""
    return lambda row: {name: getattr(row, name) for name in names}


def _result(*names: str) -> Callable[[Any], dict[str, Any]]:
    """Return a function that reads these fields of a result, and how it was computed."""
    return lambda row: _named(*names)(row) | _origin(row)


def _origin(row: Any) -> dict[str, Any]:
    return {"recipe": row.recipe, "version": row.code_version, "seconds": row.wall_time, "created": row.created}


def _checkpoint_facts(row: CheckpointRow) -> dict[str, Any]:
    facts = _named("id", "model", "run", "step", "label", "sha256", "path")(row)
    if notes := (row.about or {}).get("notes"):
        facts["notes"] = notes if isinstance(notes, str) else "; ".join(map(str, notes))
    return facts | {"created": row.created}


def _graph_facts(row: GraphRow) -> dict[str, Any]:
    widths = ", ".join(f"{cut} ({width})" for cut, width in zip(row.cuts, row.widths, strict=True))
    facts = _named("id", "model", "checkpoint", "dataset")(row)
    return facts | {"cuts (nodes)": widths, "edges": row.n_edges, "strengths": row.strengths, **_origin(row)}


def _partition_facts(row: PartitionRow) -> dict[str, Any]:
    names = ["id", "model", "checkpoint", "graph", "n_modules", "edge_cost", "mediator_cost", "normalised_cost"]
    names += ["contrast", "p_value", "z", "stability", "description_length", "objective", "resolution"]
    facts = _named(*names, "epsilon", "epsilon_source", "warning")(row)
    if len(scales := list(dict.fromkeys(row.epsilons or ()))) > 1:
        facts["epsilon"] = ", ".join(map(number, scales))
    return facts | _origin(row)


def _partition_body(row: PartitionRow) -> list[RenderableType]:
    if not isinstance(row, PartitionDetail):
        return []
    line = verdict_line(row)
    return [modules_table(row), *(("", line) if line is not None else ())]


def _ledger_body(row: LedgerRow) -> list[RenderableType]:
    warning = ("", row.warning) if row.warning else ()
    return [ledger_table(row), "", layers_table(row), *warning, ""]


def _llc_body(row: LlcRow) -> list[RenderableType]:
    return [llc_table(row), "", verdict_line(row) or "", ""]


def _experiment_body(row: ExperimentRow) -> list[RenderableType]:
    line = verdict_line(row)
    tables = [part for each in experiment_tables(row) for part in (each, "")]
    return [*tables, *experiment_notes(row), *((line,) if line is not None else ()), ""]


def _tracking_body(row: TrackingRow) -> list[RenderableType]:
    return [tracking_table(row)] if isinstance(row, TrackingDetail) else []


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


VIEWS: dict[str, View] = {
    "models": View(
        ModelRow,
        ("id", "name", "family", "created"),
        lambda r: (r.id, r.name, r.family, _when(r)),
        _named("id", "name", "family", "config", "created"),
    ),
    "runs": View(
        RunRow,
        ("id", "model", "number", "label", "family", "created"),
        lambda r: (r.id, r.model, r.number, r.label, r.family, _when(r)),
        _named("id", "model", "number", "label", "family", "config", "created"),
    ),
    "checkpoints": View(
        CheckpointRow,
        ("id", "model", "run", "step", "label", "created"),
        lambda r: (r.id, r.model, r.run, r.step, r.label, _when(r)),
        _checkpoint_facts,
    ),
    "datasets": View(
        DatasetRow,
        ("id", "description", "created"),
        lambda r: (r.id, r.description, _when(r)),
        _named("id", "description", "sha256", "created"),
    ),
    "graphs": View(
        GraphRow,
        ("id", "model", "basis", "nodes", "edges", "created"),
        lambda r: (r.id, r.model, r.basis, r.n_nodes, r.n_edges, _when(r)),
        _graph_facts,
    ),
    "partitions": View(
        PartitionRow,
        ("id", "model", "graph", "modules", "cost", "p", "verdict"),
        lambda r: (r.id, r.model, r.graph, r.n_modules, r.edge_cost, r.p_value, verdict(r.verdict)),
        _partition_facts,
        _partition_body,
    ),
    "ledgers": View(
        LedgerRow,
        ("id", "checkpoint", "epsilon", "nominal", "effective", "rank known by", "created"),
        lambda r: (r.id, r.checkpoint, r.epsilon, r.nominal, r.effective, r.method, _when(r)),
        _result("id", "model", "checkpoint", "dataset", "n", "epsilon", "warning"),
        _ledger_body,
    ),
    "llc": View(
        LlcRow,
        ("id", "checkpoint", "mode", "epsilon", "N_eff", "verdict", "created"),
        lambda r: (r.id, r.checkpoint, r.mode, r.epsilon, r.n_effective, verdict(r.verdict), _when(r)),
        _result("id", "model", "checkpoint", "dataset", "mode", "loss", "n_parameters", "n"),
        _llc_body,
    ),
    "experiments": View(
        ExperimentRow,
        ("id", "partition", "kind", "metric", "verdict"),
        lambda r: (r.id, r.partition, r.experiment, r.metric, verdict(_short(r.verdict))),
        _result("id", "model", "checkpoint", "graph", "partition", "experiment", "metric"),
        _experiment_body,
    ),
    "trackings": View(
        TrackingRow,
        ("id", "model", "checkpoints", "tracks", "churn", "created"),
        lambda r: (r.id, r.model, r.n_checkpoints, r.n_tracks, r.churn, _when(r)),
        _result("id", "model", "run", "n_checkpoints", "n_tracks", "churn"),
        _tracking_body,
    ),
    "jobs": View(
        JobRow,
        ("id", "task", "target", "state", "step", "%", "created"),
        lambda r: (r.id, r.task, r.target.rpartition("/")[2], r.state, r.step, _percent(r.fraction), _when(r)),
        _job_facts,
    ),
    "schedules": View(
        ScheduleRow,
        ("id", "task", "model", "when", "state", "next (UTC)", "jobs", "error"),
        lambda r: (
            *(r.id, r.task, r.model, r.cron or "new checkpoint", "paused" if r.paused else "on"),
            *(f"{r.next_run:%m-%d %H:%M}" if r.next_run else "-", len(r.jobs), (r.error or "-").splitlines()[0]),
        ),
        _every,
    ),
    "tokens": View(
        TokenRow,
        ("id", "name", "scope", "state", "created"),
        lambda r: (r.id, r.name, r.scope, "revoked" if r.revoked else "valid", _when(r)),
        _every,
    ),
}
"""How each kind of stored thing is shown, by the plural of its name."""
