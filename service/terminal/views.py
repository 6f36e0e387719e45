"""How each kind of stored thing is shown: the columns of its list, the details of one, and what follows them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..records.base import Record
from ..records.checkpoints import CheckpointRow, DatasetRow, ModelRow, RunRow
from ..records.estimates import DescriptionRow, ExperimentRow, LedgerRow, LlcRow
from ..records.graphs import GraphRow
from ..records.jobs import JobRow, ScheduleRow, TokenRow
from ..records.partitions import ComparisonRow, PartitionDetail, PartitionRow, TrackingDetail, TrackingRow
from .cards import modules_overview
from .experiments import experiment_notes, experiment_tables, what_it_found, with_unit
from .parts import parts_tables
from .results import (
    at_no_cut,
    comparison_body,
    layers_table,
    ledger_table,
    llc_table,
    modules_table,
    remark_notes,
    tracking_table,
    verdict_line,
)
from .tables import age, number, plainly, span, table, verdict

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
        shared: columns that go into a line above the table where all rows have the same, with what that line says.
        silent: columns that are left out where no row has another value than these.
        spare: columns that are left out, in this order, where the table is too wide for a line.
    """

    record: type[Record]
    columns: tuple[str, ...]
    cells: Callable[[Any], tuple[Any, ...]]
    facts: Callable[[Any], dict[str, Any]]
    body: Callable[[Any], list[RenderableType]] = lambda _: []
    shared: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    silent: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    spare: tuple[str, ...] = ()


def rows_table(kind: str, rows: Sequence[Record]) -> RenderableType:
    """Make the table of a list of stored things of one kind, named in the plural.

    What is the same in all rows stands in a line above it, see `View.shared`; what says nothing is left out.
    """
    view, filled = VIEWS[kind], [VIEWS[kind].cells(row) for row in rows]
    columns = {name: [cells[i] for cells in filled] for i, name in enumerate(view.columns)}
    quiet = {name for name, values in view.silent.items() if rows and set(columns[name]) <= {*values}}
    same: dict[str, str] = {}
    for name, say in view.shared.items():
        values = {plainly(say(row)) for row in rows} if name not in quiet else set()
        same |= {name: values.pop()} if len(values) == 1 else {}
    kept = {name: values for name, values in columns.items() if name not in {*same, *quiet}}
    dropped = []
    for name in view.spare:
        if name in kept and _width(kept) > _LINE:
            dropped.append(name)
            del kept[name]
    made = table(list(kept), list(zip(*kept.values(), strict=True)))
    above = ", ".join(f"{name} {value}" for name, value in same.items() if value)
    lines = [above if len(rows) == 1 else f"all: {above}"] if same else []
    lines += [f"only with --json: {', '.join(dropped)}"] if dropped else []
    return Group(*(Text(line, "dim") for line in lines), made) if lines else made


def _width(columns: Mapping[str, Sequence[Any]]) -> int:
    """Return the width of a table of these columns, two spaces between them."""
    widths = (max(map(len, [name, *map(number, values)])) for name, values in columns.items())
    return sum(widths) + 2 * (len(columns) - 1)


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


def _moment(row: Any) -> int | str:
    """Return the step of the checkpoint of a result, "" where it has none."""
    return row.step if row.step is not None else ""


def _plain_description(row: DatasetRow) -> str:
    """Describe a data set in words.

    >>> _plain_description(DatasetRow(id="", sha256="", created=None, description="Dataset('digits', 50 data points)"))
    'digits, 50 data points'
    """
    return re.sub(r"^Dataset\('(.*)', (.*)\)$", r"\1, \2", row.description)


_LINE = 80  # characters

_SILENT = {"run": (None, 1), "output": (None, "auto")}  # one run per model; the output that is chosen by itself

_RUN: dict[str, Callable[[Any], Any]] = {"model": lambda r: r.model, "run": lambda r: r.run_number}


def _cuts(row: GraphRow | PartitionRow) -> str:
    return " ".join(row.cuts)


def _elapsed(row: JobRow) -> str | None:
    """Format how long a job has run, or ran."""
    if row.started is None:
        return None
    return age(row.started) if row.finished is None else span((row.finished - row.started).total_seconds())


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.0f}"


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
    recipe = {name: value for name, value in row.recipe.items() if name != "seeds"}  # with their hashes: see --json
    return {"recipe": recipe, "version": row.code_version, "seconds": row.wall_time, "created": row.created}


def _checkpoint_facts(row: CheckpointRow) -> dict[str, Any]:
    facts = _named("id", "model", "run", "step", "label", "sha256", "path")(row)
    if notes := (row.about or {}).get("notes"):
        facts["notes"] = notes if isinstance(notes, str) else "; ".join(map(str, notes))
    return facts | {"created": row.created}


def _graph_facts(row: GraphRow) -> dict[str, Any]:
    widths = ", ".join(f"{cut} ({width})" for cut, width in zip(row.cuts, row.widths, strict=True))
    facts = _named("id", "model", "checkpoint", "dataset")(row)
    left_out = {} if row.left_out is None else {"at no cut": at_no_cut(row) or "none"}
    return facts | {
        "cuts (nodes)": widths,
        **left_out,
        "edges": row.n_edges,
        "strengths": row.strengths,
        **_origin(row),
    }


def _partition_facts(row: PartitionRow) -> dict[str, Any]:
    names = ["id", "model", "checkpoint", "graph", "n_modules", "edge_cost", "mediator_cost", "normalised_cost"]
    names += ["contrast", "p_value", "z", "stability", "description_length", "objective", "resolution"]
    facts = _named(*names, "epsilon", "epsilon_source", "warning")(row)
    if len(scales := list(dict.fromkeys(row.epsilons or ()))) > 1:
        facts["epsilon"] = ", ".join(map(number, scales))
    if seeds := _seeds(row):
        facts["epsilon_source"] = f"seeds: the mean distance of {seeds}"
    return facts | _origin(row)


def _seeds(row: PartitionRow | LedgerRow | LlcRow) -> str:
    """Name the networks whose mean distance the loss scale of a result is."""
    return ", ".join(str(name).partition(" sha256:")[0] for name in row.recipe.get("seeds") or ())


def _partition_body(row: PartitionRow) -> list[RenderableType]:
    if not isinstance(row, PartitionDetail):
        return []
    line = verdict_line(row)
    return [modules_table(row), *(("", line) if line is not None else ()), *remark_notes([row])]


_COUNTED = {
    "all": "every position of each data point",
    "mask": "those of the attention mask",
    "later": "all but the first of each data point, and of the attention mask where there is one",
    "last": "the last of each data point",
}


def _ledger_body(row: LedgerRow) -> list[RenderableType]:
    warning = ("", row.warning) if row.warning else ()
    return [ledger_table(row), "", layers_table(row), *warning, *_counted_note(row), ""]


def _llc_body(row: LlcRow) -> list[RenderableType]:
    body = [llc_table(row)] if row.mode in ("point", "curve") else parts_tables(row)
    return [*body, "", verdict_line(row) or "", *_counted_note(row), ""]


def _counted_note(row: LedgerRow | LlcRow) -> tuple[str, ...]:
    """Say which positions of a model of tokens counted, and which networks the loss scale comes from."""
    chosen, seeds = row.recipe.get("positions"), _seeds(row)
    lines = [] if chosen is None else [f"Positions that count ({chosen}): {_COUNTED[str(chosen)]}."]
    lines += [f"Loss scale: the mean distance of {seeds}."] if seeds else []
    return ("", *lines) if lines else ()


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
        "target": row.target if row.target_name is None else f"{row.target} ({row.target_name})",
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
        ("id", "name", "family", "age"),
        lambda r: (r.id, r.name, r.family, age(r.created)),
        _named("id", "name", "family", "config", "created"),
    ),
    "runs": View(
        RunRow,
        ("id", "model", "number", "label", "family", "age"),
        lambda r: (r.id, r.model, r.number, r.label, r.family, age(r.created)),
        _named("id", "model", "number", "label", "family", "config", "created"),
        shared={"model": lambda r: r.model, "family": lambda r: r.family},
    ),
    "checkpoints": View(
        CheckpointRow,
        ("id", "model", "run", "step", "label", "age"),
        lambda r: (r.id, r.model, r.run, r.step, r.label, age(r.created)),
        _checkpoint_facts,
        shared={"model": lambda r: r.model, "run": lambda r: r.run},
    ),
    "datasets": View(
        DatasetRow,
        ("id", "description", "age"),
        lambda r: (r.id, _plain_description(r), age(r.created)),
        lambda r: _named("id", "description", "sha256", "created")(r) | {"description": _plain_description(r)},
    ),
    "graphs": View(
        GraphRow,
        ("id", "model", "run", "step", "cuts", "basis", "output", "edges", "age"),
        lambda r: (
            *(r.id, r.model, r.run_number, _moment(r), len(r.cuts), r.basis, r.output, r.n_edges, age(r.created)),
        ),
        _graph_facts,
        shared={**_RUN, "cuts": _cuts, "basis": lambda r: r.basis, "output": lambda r: r.output},
        silent=_SILENT,
    ),
    "partitions": View(
        PartitionRow,
        ("id", "model", "run", "step", "cuts", "output", "modules", "verdict", "age"),
        lambda r: (
            *(r.id, r.model, r.run_number, _moment(r), len(r.cuts) or None, r.output, r.n_modules),
            *(verdict(r.verdict, short=True), age(r.created)),
        ),
        _partition_facts,
        _partition_body,
        shared={**_RUN, "cuts": _cuts, "output": lambda r: r.output},
        silent=_SILENT,
    ),
    "ledgers": View(
        LedgerRow,
        ("id", "model", "run", "step", "epsilon", "nominal", "effective", "rank known by", "age"),
        lambda r: (
            *(r.id, r.model, r.run_number, _moment(r), r.epsilon, r.nominal, r.effective, r.method, age(r.created)),
        ),
        _result("id", "model", "checkpoint", "dataset", "n", "epsilon", "warning"),
        _ledger_body,
        shared={**_RUN, "rank known by": lambda r: r.method},
        silent={"run": _SILENT["run"]},
    ),
    "llc": View(
        LlcRow,
        ("id", "model", "run", "step", "mode", "epsilon", "N_eff", "verdict", "age"),
        lambda r: (
            *(r.id, r.model, r.run_number, _moment(r), r.mode, r.epsilon, r.n_effective),
            *(verdict(r.verdict), age(r.created)),
        ),
        _result("id", "model", "checkpoint", "dataset", "mode", "loss", "n_parameters", "n"),
        _llc_body,
        shared={**_RUN, "mode": lambda r: r.mode},
        silent={"run": _SILENT["run"]},
    ),
    "experiments": View(
        ExperimentRow,
        ("id", "model", "run", "step", "partition", "kind", "found", "metric", "verdict", "age"),
        lambda r: (
            *(r.id, r.model, r.run_number, _moment(r), r.partition, r.experiment, what_it_found(r), with_unit(r)),
            *(verdict(r.verdict, short=True), age(r.created)),
        ),
        _result("id", "model", "checkpoint", "graph", "partition", "experiment", "metric"),
        _experiment_body,
        shared={**_RUN, "step": _moment, "partition": lambda r: r.partition, "metric": with_unit},
        silent={"run": _SILENT["run"]},
        spare=("metric", "partition"),
    ),
    "descriptions": View(
        DescriptionRow,
        ("id", "model", "run", "step", "partition", "cards", "data points", "age"),
        lambda r: (
            *(r.id, r.model, r.run_number, _moment(r), r.partition),
            *(r.n_cards if r.whole else f"{r.n_cards:,} of {r.n_nodes:,}", r.n, age(r.created)),
        ),
        _result("id", "model", "checkpoint", "graph", "partition", "n", "n_cards", "n_nodes"),
        lambda r: [modules_overview(r.modules, {}), ""],
        shared={**_RUN, "step": _moment, "partition": lambda r: r.partition},
        silent={"run": _SILENT["run"]},
    ),
    "comparisons": View(
        ComparisonRow,
        ("id", "model", "run", "step", "partition", "with", "nodes", "AMI", "p", "verdict", "age"),
        lambda r: (
            *(r.id, r.model, r.run_number, _moment(r), r.partition, r.name, r.n_nodes, r.ami, r.p_value),
            *(verdict(r.verdict, short=True), age(r.created)),
        ),
        _result("id", "model", "checkpoint", "graph", "partition", "other", "name", "matched_by"),
        lambda r: comparison_body(r.partition, r),
        shared={**_RUN, "step": _moment, "partition": lambda r: r.partition},
        silent={"run": _SILENT["run"]},
        spare=("partition", "nodes"),
    ),
    "trackings": View(
        TrackingRow,
        ("id", "model", "run", "checkpoints", "tracks", "churn", "age"),
        lambda r: (r.id, r.model, r.run_number, r.n_checkpoints, r.n_tracks, r.churn, age(r.created)),
        _result("id", "model", "run", "n_checkpoints", "n_tracks", "churn"),
        _tracking_body,
        shared=_RUN,
        silent={"run": _SILENT["run"]},
    ),
    "jobs": View(
        JobRow,
        ("id", "task", "target", "state", "step", "%", "time", "age"),
        lambda r: (
            *(r.id, r.task, r.target_name or r.target.rpartition("/")[2], r.state, r.step, _percent(r.fraction)),
            *(_elapsed(r), age(r.created)),
        ),
        _job_facts,
        spare=("time", "step"),
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
        ("id", "name", "scope", "state", "age"),
        lambda r: (r.id, r.name, r.scope, "revoked" if r.revoked else "valid", age(r.created)),
        _every,
    ),
}
"""How each kind of stored thing is shown, by the plural of its name."""
