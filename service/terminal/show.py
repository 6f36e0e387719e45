"""Print results: tables and details in the terminal, or JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from ..records.base import Page, Record
from .views import body, details, rows_table

__all__ = ["err", "out", "print_json", "show_body", "show_page", "show_row"]

out = Console(markup=False, emoji=False)

err = Console(stderr=True, markup=False, emoji=False)


def show_row(row: Record, as_json: bool) -> None:
    """Print one stored value: its details and what follows them, or JSON."""
    if as_json:
        print_json(row.to_json())
        return
    out.print(details(row))
    if body(row):
        out.print()
        show_body(row)


def show_page(kind: str, page: Page[Any], as_json: bool) -> None:
    """Print a page of the list of one kind, named in the plural, as a table or as JSON."""
    if as_json:
        print_json(page.to_json())
    else:
        out.print(rows_table(kind, page.items) if page.items else f"no {kind} stored yet")


def show_body(row: Record) -> None:
    """Print what follows the details of a stored value: its tables, its verdict and the reason."""
    for part in body(row):
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
