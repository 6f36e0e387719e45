"""Colours, legends and titles that all figures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from ..modules.partition import Partition

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GREY", "folded", "graph_title", "module_colours", "module_legend", "title_lines", "with_widths"]

GREY = "#9a9a9a"

_PER_INCH = 13  # characters of a title, at 10 points


def module_colours(labels: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k rgba=4"]:
    """Return the colour of each label: ten that repeat, and grey for nodes in no module."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgba

    table = np.array([*colormaps["tab10"](np.arange(10)), to_rgba(GREY)])
    return table[np.where(labels < 0, 10, labels % 10)]


def module_legend(figure: Figure, labels: Sequence[Int[np.ndarray, " _"]], *, edges: bool) -> None:
    """Draw a legend beside the axes: modules, which share ten colours, and nodes that are in none."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    found = np.unique(np.concatenate(labels))
    handles: list[Line2D | Patch] = []
    for first in range(10):
        same = [str(module) for module in found[found >= 0] if module % 10 == first]
        if same:
            name = f"module {', '.join(same[:3])}" + (", ..." if len(same) > 3 else "")
            handles.append(Patch(color=module_colours(np.array([first]))[0], label=name))
    if (found < 0).any():
        handles.append(Patch(color=GREY, label="no edge above the cutoff"))
    if edges and (found >= 0).sum() > 1:
        handles.append(Line2D([], [], color=GREY, ls="dashed", lw=1, label="edge between modules"))
    figure.legend(handles=handles, fontsize=8, frameon=False, loc="outside right upper")


def with_widths(cuts: Sequence[str], widths: Sequence[int], room: int) -> list[str]:
    """Name each cut, in lines of at most `room` characters, with its number of nodes on a line below."""
    return [
        f"{folded(cut, room)}\n{width} node{'' if width == 1 else 's'}" for cut, width in zip(cuts, widths, strict=True)
    ]


def folded(name: str, room: int) -> str:
    """Break a name into lines of at most `room` characters."""
    return "\n".join(name[i : i + room] for i in range(0, len(name), room))


def title_lines(parts: Sequence[str], inches: float) -> str:
    r"""Join the parts of a title with commas, in as many lines as its width needs.

    >>> title_lines(["2 modules", "epsilon 0.25", "1,234 edges"], 1.8)
    '2 modules, epsilon 0.25,\n1,234 edges'
    """
    lines = [parts[0]]
    for part in parts[1:]:
        longer = f"{lines[-1]}, {part}"
        if len(longer) < _PER_INCH * inches:
            lines[-1] = longer
        else:
            lines[-1] += ","
            lines.append(part)
    return "\n".join(lines)


def graph_title(
    partition: Partition | None, epsilons: Sequence[float], n_edges: int | None = None, hidden: int = 0
) -> list[str]:
    """Return the parts of the title of a graph's figure: modules and cost, loss scale, edges shown and hidden."""
    parts = []
    if partition is not None:
        parts.append("one module" if partition.n_modules == 1 else f"{partition.n_modules} modules")
        parts.append(f"cost between modules {partition.edge_cost:.3g}")
    parts.append(f"epsilon {_range(epsilons)}")
    if n_edges is not None:
        parts.append(f"{n_edges:,} edges" + (f" ({hidden:,} weakest not drawn)" if hidden else ""))
    return parts


def _range(values: Sequence[float]) -> str:
    """Format one number, or the smallest and largest over pairs of cuts."""
    least, largest = (f"{value:.3g}" for value in (min(values), max(values)))
    return least if least == largest else f"{least} to {largest}"
