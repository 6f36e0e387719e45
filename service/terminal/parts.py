"""Tables of learning coefficients of parts: modules, what lies between them, heads, sets of parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from ..records.estimates import LlcRow
from .tables import number, table, verdict

__all__ = ["parts_summary", "parts_tables"]


def parts_tables(row: LlcRow) -> list[RenderableType]:
    """Make the table of parts, a line each, with the sum of modules, and that of mediating nodes if there are any."""
    lines = [_line(point) for point in row.points]
    modules = [point for point in row.points if point["kind"] == "module"]
    if modules:
        total = sum(point["n_parameters"] for point in modules)
        values = [point["n_effective"] for point in modules]
        errors = [point["standard_error"] for point in modules]
        known = all(value is not None for value in (*values, *errors))
        added = (number(sum(values)), number(2 * math.hypot(*errors))) if known else ("-", "-")
        lines.insert(1 + len(modules), ("sum of modules", f"{total:,}", *added, "", ""))
    found: list[RenderableType] = [table(("part", "parameters", "N_eff", "+-", "interval (95 %)", "verdict"), lines)]
    nodes = row.points[0].get("mediators") or []
    if nodes:
        names = ("module", "mediating node", "strength", "gamma", "+-", "predicted", "at full strength")
        found += ["", table(names, [_node(node) for node in nodes])]
    return found


def parts_summary(names: Sequence[str], rows: Sequence[LlcRow]) -> Table:
    """Make the table of several checkpoints, a line each: N_eff of the parts that all of them have."""
    parts = [point["part"] for point in rows[0].points if "held" not in point["kind"] and point["kind"] != "weighted"]
    shared = [part for part in parts if all(part in {point["part"] for point in row.points} for row in rows)]
    lines = []
    for name, row in zip(names, rows, strict=True):
        values = {point["part"]: point["n_effective"] for point in row.points}
        lines.append((name, *(number(values[part]) for part in shared)))
    return table(("N_eff", *shared), lines)


def _line(point: Mapping[str, Any]) -> tuple[Any, ...]:
    ends = (None if point[end] is None else 2 * point[end] for end in ("lower", "upper"))
    error = None if point["standard_error"] is None else 2 * point["standard_error"]
    low, high = (number(end) for end in ends)
    count = f"{point['n_parameters']:,}"
    return (
        point["part"],
        count,
        number(point["n_effective"]),
        number(error),
        f"[{low}, {high}]",
        verdict(point["verdict"]),
    )


def _node(node: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("strength", "measured", "standard_error", "predicted", "at_full_strength")
    return node["module"], f"{node['cut']}/{node['coordinate']}", *(number(node[name]) for name in names)
