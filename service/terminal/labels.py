"""Tables of labels that fit 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ..records.labels import LabelRow, place_name
from .tables import age, counted, number, table

__all__ = ["label_notes", "labels_table"]


def labels_table(rows: Sequence[LabelRow], shown: int | None = None) -> Table:
    """Make the table of labels, or of entries of their history; a removed one has a dash for its text.

    Args:
        rows: the labels.
        shown: number of rows to show; default: all.
    """
    cells = []
    for row in rows[:shown]:
        text = Text("-", "dim") if row.text is None else Text(row.text)
        cells.append((place_name(row), text, row.source, row.author, number(row.confidence), age(row.created)))
    hidden = len(rows) - len(cells)
    title = f"{counted(hidden, 'more label')}: list them with `interbasis label`" if hidden else None
    return table(("place", "label", "source", "author", "sure", "age"), cells, title)


def label_notes(rows: Sequence[LabelRow]) -> list[str]:
    """Say of labels that were given elsewhere where they come from, a line for each."""
    notes = []
    for row in rows:
        if row.origin is not None:
            share = "" if row.overlap is None else f", overlap {row.overlap:.2f}"
            notes.append(f"{place_name(row)}, {row.source}: from {row.origin}{share}")
    return notes
