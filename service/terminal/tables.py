"""Plain tables, and the format of numbers, times and verdicts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

__all__ = ["age", "counted", "number", "plainly", "span", "table", "verdict"]

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


_SPANS = ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h"), (30 * 86_400, 86_400, "d"))


def span(seconds: float) -> str:
    """Format a span of time in its largest unit.

    >>> span(12.3), span(200), span(7300), span(200_000), span(10**7)
    ('12 s', '3 min', '2 h', '2 d', '115 d')
    """
    unit, name = next(((unit, name) for limit, unit, name in _SPANS if seconds < limit), (86_400, "d"))
    return f"{max(int(seconds / unit), 0)} {name}"


def age(moment: datetime) -> str:
    """Format how long ago a moment was; of one more than 30 days ago the date, in local time."""
    seconds = (_now() - moment).total_seconds()
    return span(seconds) if seconds < _SPANS[-1][0] else f"{moment.astimezone():%Y-%m-%d}"


def _now() -> datetime:
    return datetime.now(UTC)


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
        return f"{value.astimezone():%Y-%m-%d %H:%M}"
    return number(value)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None, *, right: Sequence[str] = ()
) -> Table:
    """Make a plain table.

    Numbers, "" among them, and the columns named in `right`, are aligned right; neither these nor IDs are broken.
    """
    result = Table(box=None, title=title, title_justify="left", pad_edge=False, header_style="bold")
    for i, name in enumerate(columns):
        numeric = name in right or all(isinstance(row[i], int | float | None) or row[i] == "" for row in rows)
        whole = numeric or all(_ID.fullmatch(str(row[i])) for row in rows)
        result.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        result.add_row(*(cell if isinstance(cell, Text) else number(cell) for cell in row))
    return result


def verdict(name: str | None, *, short: bool = False) -> Text:
    """Format a verdict in its colour, green, yellow or red; as a dash where none was stored.

    Args:
        name: the verdict.
        short: whether to shorten it for a column of a list: "not told apart".
    """
    if name is None:
        return Text("-")
    return Text(name.removesuffix(" from chance") if short else name, _COLOURS.get(name, "yellow"))


_COLOURS = {
    **dict.fromkeys(("reliable", "supported", "same division", "agree more than chance"), "green"),
    "labels agree more within modules": "green",
    **dict.fromkeys(("failed", "refuted"), "bold red"),
}
