"""Print results: tables and details in the terminal, or JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from ..records.base import Record
from ..records.estimates import ExperimentRow, LedgerRow, LlcRow
from ..records.partitions import PartitionDetail
from ..records.tracking import TrackingDetail
from .details import details
from .experiments import experiment_notes, experiment_tables
from .results import layers_table, ledger_table, llc_table, modules_table, tracking_table, verdict_line

__all__ = ["err", "out", "print_json", "show_experiment", "show_ledger", "show_llc", "show_row"]

out = Console(markup=False, emoji=False)

err = Console(stderr=True, markup=False, emoji=False)


def show_row(row: Record, as_json: bool) -> None:
    """Print one stored value, as a table or as JSON."""
    if as_json:
        print_json(row.to_json())
        return
    out.print(details(row))
    if isinstance(row, LedgerRow):
        out.print()
        show_ledger(row)
    if isinstance(row, ExperimentRow):
        out.print()
        show_experiment(row)
    if isinstance(row, LlcRow):
        out.print()
        show_llc(row)
    if isinstance(row, PartitionDetail):
        out.print()
        out.print(modules_table(row))
        if (line := verdict_line(row)) is not None:
            out.print()
            out.print(line)
    if isinstance(row, TrackingDetail):
        out.print()
        out.print(tracking_table(row))


def show_ledger(row: LedgerRow) -> None:
    """Print the tables of a ledger."""
    out.print(ledger_table(row))
    out.print()
    out.print(layers_table(row))
    if row.warning:
        out.print(f"\n{row.warning}")
    out.print()


def show_experiment(row: ExperimentRow) -> None:
    """Print the tables of an experiment, and what it found."""
    for part in experiment_tables(row):
        out.print(part)
        out.print()
    for note in experiment_notes(row):
        out.print(note)
    if (line := verdict_line(row)) is not None:
        out.print(line)
    out.print()


def show_llc(row: LlcRow) -> None:
    """Print a learning coefficient, or a curve with a line per loss scale, its verdict and reason."""
    out.print(llc_table(row))
    out.print()
    out.print(verdict_line(row))
    out.print()


def print_json(document: Any) -> None:
    """Print one JSON document on standard output; NaN and infinity, which JSON lacks, as null."""
    print(json.dumps(_finite(document), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
