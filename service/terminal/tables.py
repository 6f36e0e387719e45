"""Plain tables, and the format of numbers, times and verdicts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

__all__ = ["counted", "number", "plainly", "table", "verdict"]

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


def verdict(name: str | None) -> Text:
    """Format a verdict in its colour, green, yellow or red; as a dash where none was stored."""
    return Text("-") if name is None else Text(name, _COLOURS.get(name, "yellow"))


_COLOURS = {"reliable": "green", "supported": "green", "failed": "bold red", "refuted": "bold red"}
