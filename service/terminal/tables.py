"""Tables of rows, and the format of numbers, times and verdicts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from ..records.base import Record

__all__ = ["COLUMNS", "counted", "number", "plainly", "rows_table", "table", "verdict"]

_ID = re.compile("[a-z]-[0-9a-f]+")


def number(value: Any) -> str:
    """Format a number with four significant digits; None and NaN as a dash.

    >>> number(0.123456), number(None), number(7)
    ('0.1235', '-', '7')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def counted(count: int, noun: str) -> str:
    """Format a count with its noun, singular or plural.

    >>> counted(1, "module"), counted(2000, "module")
    ('1 module', '2,000 modules')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def plainly(value: Any) -> str:
    """Format any value of a record for people: lists and objects as their contents, with commas between.

    >>> plainly({"k": 2, "cuts": ["a", "b"], "seed": None})
    'k 2, cuts a b'
    >>> plainly([{"kind": "graph", "id": "g-1"}])
    'kind graph id g-1'
    """
    return _joined(value, ", ")


def _joined(value: Any, between: str) -> str:
    if isinstance(value, Mapping):
        given = ((name, each) for name, each in value.items() if each is not None)
        return between.join(f"{name} {_joined(each, ' ')}" for name, each in given) or "-"
    if isinstance(value, list | tuple):
        return between.join(_joined(each, " ") for each in value) or "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return number(value)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None, *, right: Sequence[str] = ()
) -> Table:
    """Make a plain table.

    Numbers, and the columns named in `right`, are aligned right; neither these nor IDs are broken.
    """
    result = Table(box=None, title=title, title_justify="left", pad_edge=False, header_style="bold")
    for i, name in enumerate(columns):
        numeric = name in right or all(isinstance(row[i], int | float | None) for row in rows)
        whole = numeric or all(_ID.fullmatch(str(row[i])) for row in rows)
        result.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        result.add_row(*(cell if isinstance(cell, Text) else number(cell) for cell in row))
    return result


def _when(row: Any) -> str:
    return f"{row.created:%m-%d %H:%M}"


def verdict(name: str | None) -> Text:
    """Format a verdict in its colour, green, yellow or red; as a dash where none was stored."""
    return Text("-") if name is None else Text(name, _COLOURS.get(name, "yellow"))


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.0f}"


def _short(name: str | None) -> str | None:
    """Shorten a verdict for a column of a list: "not told apart"."""
    return None if name is None else name.removesuffix(" from chance")


COLUMNS: dict[str, tuple[tuple[str, ...], Any]] = {
    "models": (("id", "name", "family", "created"), lambda r: (r.id, r.name, r.family, _when(r))),
    "checkpoints": (
        ("id", "model", "step", "label", "created"),
        lambda r: (r.id, r.model, r.step, r.label, _when(r)),
    ),
    "datasets": (("id", "description", "created"), lambda r: (r.id, r.description, _when(r))),
    "graphs": (
        ("id", "model", "basis", "nodes", "edges", "created"),
        lambda r: (r.id, r.model, r.basis, r.n_nodes, r.n_edges, _when(r)),
    ),
    "partitions": (
        ("id", "model", "graph", "modules", "cost", "p", "verdict"),
        lambda r: (r.id, r.model, r.graph, r.n_modules, r.edge_cost, r.p_value, verdict(r.verdict)),
    ),
    "ledgers": (
        ("id", "checkpoint", "epsilon", "nominal", "effective", "rank known by", "created"),
        lambda r: (r.id, r.checkpoint, r.epsilon, r.nominal, r.effective, r.method, _when(r)),
    ),
    "llc": (
        ("id", "checkpoint", "mode", "epsilon", "N_eff", "verdict", "created"),
        lambda r: (r.id, r.checkpoint, r.mode, r.epsilon, r.n_effective, verdict(r.verdict), _when(r)),
    ),
    "experiments": (
        ("id", "partition", "kind", "metric", "verdict"),
        lambda r: (r.id, r.partition, r.experiment, r.metric, verdict(_short(r.verdict))),
    ),
    "trackings": (
        ("id", "model", "checkpoints", "tracks", "churn", "created"),
        lambda r: (r.id, r.model, r.n_checkpoints, r.n_tracks, r.churn, _when(r)),
    ),
    "jobs": (
        ("id", "task", "target", "state", "step", "%", "created"),
        lambda r: (r.id, r.task, r.target.rpartition("/")[2], r.state, r.step, _percent(r.fraction), _when(r)),
    ),
    "schedules": (
        ("id", "task", "model", "when", "state", "next (UTC)", "jobs", "error"),
        lambda r: (
            *(r.id, r.task, r.model, r.cron or "new checkpoint", "paused" if r.paused else "on"),
            *(f"{r.next_run:%m-%d %H:%M}" if r.next_run else "-", len(r.jobs), (r.error or "-").splitlines()[0]),
        ),
    ),
    "tokens": (
        ("id", "name", "scope", "state", "created"),
        lambda r: (r.id, r.name, r.scope, "revoked" if r.revoked else "valid", _when(r)),
    ),
}
"""For each kind of stored thing, the columns of its list, and the cells of a row."""


def rows_table(kind: str, rows: Sequence[Record]) -> Table:
    """Make the table of a list of stored values."""
    columns, fill = COLUMNS[kind]
    return table(columns, [fill(row) for row in rows])


_COLOURS = {"reliable": "green", "supported": "green", "failed": "bold red", "refuted": "bold red"}
