"""Print results: tables and details in the terminal, or JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ..records.base import Page, Record
from .views import body, details, rows_table

__all__ = ["err", "out", "print_json", "show_body", "show_page", "show_row"]


class _Trimmed:
    """Shows something without the spaces at the ends of its lines."""

    def __init__(self, shown: RenderableType) -> None:
        """Keep what is shown."""
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render it line by line."""
        for line in console.render_lines(self._shown, options, pad=False):
            while line and not line[-1].text.strip():
                line.pop()
            if line:
                yield from line[:-1]
                yield Segment(line[-1].text.rstrip(), line[-1].style, line[-1].control)
            yield Segment.line()


class _Console(Console):
    """A console on which text is printed as it is, and tables without spaces at the ends of their lines."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as `rich.console.Console.print` does."""
        if not options.get("soft_wrap"):
            objects = tuple(self._trimmed(each) for each in objects)
        super().print(*objects, **options)

    def _trimmed(self, shown: Any) -> Any:
        if isinstance(shown, str):
            shown = self.render_str(shown, markup=False, emoji=False)
        return _Trimmed(shown) if isinstance(shown, Table | Group | Text) else shown


out = _Console(markup=False, emoji=False)

err = _Console(stderr=True, markup=False, emoji=False)


def show_row(row: Record, as_json: bool) -> None:
    """Print one stored value: its details and what follows them, or JSON."""
    if as_json:
        print_json(row.to_json())
        return
    out.print(details(row))
    if body(row):
        out.print()
        show_body(row)


def show_page(kind: str, page: Page[Any], as_json: bool, stored: int | None = None) -> None:
    """Print a page of the list of one kind, named in the plural, as a table or as JSON.

    Args:
        kind: the kind.
        page: the page.
        as_json: whether to print JSON.
        stored: number of things of the kind, whether or not they are asked for.
    """
    if as_json:
        print_json(page.to_json())
    elif page.items:
        out.print(rows_table(kind, page.items))
    else:
        out.print(f"none of {stored} {kind} fit" if stored else f"no {kind} stored yet")


def show_body(row: Record) -> None:
    """Print what follows the details of a stored value: its tables, its verdict and the reason."""
    parts = body(row)
    while parts and parts[-1] == "":
        parts.pop()
    for part in parts:
        out.print(part)


def print_json(document: Any) -> None:
    """Print one JSON document on standard output; NaN and infinity, which JSON lacks, as null."""
    print(json.dumps(_finite(document), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
