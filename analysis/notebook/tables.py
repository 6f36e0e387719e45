"""Results as tables: pandas data frames, and the HTML that notebooks show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import InputError

if TYPE_CHECKING:
    import pandas

__all__ = ["Columns", "data_frame", "html_table"]

Columns: TypeAlias = Mapping[str, Any]
"""The columns of a table by name: sequences or arrays of one length."""

_MOST_ROWS = 24  # of a table in a notebook


def data_frame(columns: Columns) -> pandas.DataFrame:
    """Convert columns to a pandas data frame.

    Raises:
        InputError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise InputError("a data frame needs pandas, which is not installed: run `pip install pandas`") from error
    return pandas.DataFrame(dict(columns))


def html_table(head: str, columns: Columns, notes: Sequence[str] = ()) -> str:
    """Return a headline, a table and notes below it as HTML; all text is escaped, and long tables are cut.

    >>> html_table("1 < 2", {}, ["a & b"])
    '<div><strong>1 &lt; 2</strong><div>a &amp; b</div></div>'
    """
    rows = list(zip(*columns.values(), strict=True))
    names, *body = [_row("th", list(columns)), *(_row("td", row) for row in rows[:_MOST_ROWS])]
    below = [f"and {len(rows) - _MOST_ROWS:,} more rows"] if len(rows) > _MOST_ROWS else []
    said = "".join(f"<div>{escape(note)}</div>" for note in [*below, *notes])
    table = f"<table><thead>{names}</thead><tbody>{''.join(body)}</tbody></table>" if columns else ""
    return f"<div><strong>{escape(head)}</strong>{table}{said}</div>"


def _row(cell: str, values: Sequence[Any]) -> str:
    return "<tr>" + "".join(f"<{cell}>{escape(_shown(value))}</{cell}>" for value in values) + "</tr>"


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, Integral) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{float(value):.4g}" if isinstance(value, Real) and not isinstance(value, bool) else str(value)
