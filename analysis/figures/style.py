"""Colours, fonts, headings and legends that all figures share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from textwrap import fill
from typing import TYPE_CHECKING, Any, ParamSpec, SupportsFloat, TypeVar

import numpy as np
from jaxtyping import Float, Int

from ..modules.partition import Partition

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from .picture import Picture

__all__ = [
    "BLUE",
    "GREY",
    "INK",
    "ORANGE",
    "RED",
    "SMALL",
    "below",
    "beside",
    "blank",
    "capped",
    "folded",
    "graph_facts",
    "heading",
    "in_style",
    "module_colours",
    "module_legend",
    "scaled",
    "shown_range",
    "spans_decades",
    "title_lines",
    "with_widths",
]

P = ParamSpec("P")
R = TypeVar("R")

INK = "#2b2b2b"  # text, and whatever is black

GREY = "#9a9a9a"  # what belongs to no module, and what is random

BLUE, ORANGE, RED = "#1f77b4", "#ff7f0e", "#d62728"

SMALL = 7.5  # points of the smallest text

_TITLE, _FACTS = 11.0, 9.0  # points of the two parts of a heading

_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "axes.titlesize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#6b6b6b",
    "axes.labelcolor": INK,
    "xtick.color": "#6b6b6b",
    "ytick.color": "#6b6b6b",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "axes.formatter.useoffset": False,
    "lines.linewidth": 1.2,
    "hatch.linewidth": 0.8,
}

_MODULES = (  # far apart from one another, from grey and from white (CIELAB); ten of them as in tab10
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf"),
    *("#334c0d", "#f2b273", "#0de6b2", "#a60d4c", "#99bf7f", "#0d7f66", "#f27f8c", "#8c730d", "#594066"),
    *("#267ff2", "#b2b2f2", "#a64c0d", "#990d7f", "#1a408c", "#e6a626"),
)

_MOST_NAMED = 24  # entries of a legend

_DECADES = 30.0  # ratio of largest and smallest value from which on an axis is logarithmic

_PER_INCH = 13.0  # characters of a title, at 10 points


def in_style(draw: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that draws a figure: it draws in our style, and leaves matplotlib's settings as they are."""

    @wraps(draw)
    def styled(*args: P.args, **options: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            return draw(*args, **options)

    return styled


def blank(width: float, height: float) -> Picture:
    """Return an empty figure of this size in inches, which lays out what is drawn on it."""
    from .picture import Picture

    return Picture(figsize=(width, height), layout="constrained")


def heading(figure: Picture, facts: Sequence[str], title: str | None = None) -> None:
    """Write the title in bold and below it the facts, at the upper left, and keep the room for them free."""
    height = float(figure.get_figheight())
    width = float(figure.get_figwidth()) - 0.2
    parts = [(folded(title, int(_PER_INCH * width * 10 / _TITLE)), _TITLE, "bold", INK)] if title else []
    if facts:
        parts.append((title_lines(facts, width * 10 / _FACTS), _FACTS, "normal", "#4d4d4d"))
    top = height - 0.08
    for text, size, weight, colour in parts:
        place: dict[str, Any] = {"x": 0.1 / (width + 0.2), "y": top / height, "va": "top", "ha": "left"}
        figure.text(s=text, fontsize=size, fontweight=weight, color=colour, parse_math=False, linespacing=1.3, **place)
        top -= 1.35 * size / 72 * (1 + text.count("\n")) + 0.03
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0.0, 0.0, 1.0, (top - 0.05) / height))


def beside(axes: Axes, handles: Sequence[Artist]) -> None:
    """Draw a legend to the right of the axes."""
    if handles:
        axes.legend(handles=list(handles), loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0)


def below(figure: Picture, handles: Sequence[Artist], columns: int = 4) -> None:
    """Draw a legend below the axes of a figure."""
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns)


def capped(handles: Sequence[Artist], what: str) -> list[Artist]:
    """Return the first entries of a legend, and one that counts the others."""
    from matplotlib.lines import Line2D

    shown, rest = list(handles[:_MOST_NAMED]), len(handles) - _MOST_NAMED
    return shown if rest <= 0 else [*shown, Line2D([], [], ls="", label=f"and {rest} more {what}")]


def module_colours(labels: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k rgba=4"]:
    """Return the colour of each label, no two the same, and grey for nodes in no module.

    The first 24 are chosen to be far apart. Further ones turn the hue by the golden angle, at full saturation.
    """
    from matplotlib.colors import hsv_to_rgb, to_rgba

    table = np.array([*(to_rgba(colour) for colour in _MODULES), to_rgba(GREY)])
    colours = table[np.where(labels < 0, len(_MODULES), labels % len(_MODULES))]
    more = labels >= len(_MODULES)
    turn = labels[more] * (np.sqrt(5) - 1) / 2
    colours[more, :3] = hsv_to_rgb(np.stack([turn % 1, np.full(len(turn), 0.9), 0.55 + 0.3 * (turn * 7 % 1)], 1))
    return np.asarray(colours)


def module_legend(axes: Axes, labels: Sequence[Int[np.ndarray, " _"]], *, grey: bool, between: bool) -> None:
    """Draw a legend beside the axes: the modules, and where they are drawn nodes in none and edges between modules."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    found = np.unique(np.concatenate(labels))
    modules = found[found >= 0]
    handles: list[Artist] = [
        Patch(color=colour, label=f"module {module}")
        for module, colour in zip(modules, module_colours(modules), strict=True)
    ]
    handles = capped(handles, "modules")
    if grey:
        handles.append(Patch(color=GREY, label="no edge above the cutoff"))
    if between:
        handles.append(Line2D([], [], color=GREY, ls="dashed", lw=1, label="edge between modules"))
    beside(axes, handles)


def spans_decades(values: Iterable[SupportsFloat]) -> bool:
    """Return whether the positive ones among the values are so far apart that an axis should be logarithmic.

    >>> spans_decades([1.0, 20.0]), spans_decades([0.0, 0.1, 20.0]), spans_decades([0.0])
    (False, True, False)
    """
    found = np.array([value for value in map(float, values) if np.isfinite(value) and value > 0])
    return bool(len(found) and found.max() > _DECADES * found.min())


def scaled(axes: Axes, axis: str, values: Iterable[SupportsFloat]) -> None:
    """Make an axis ("x" or "y") logarithmic where its values span decades, and linear near 0 where one is not above."""
    known = [value for value in map(float, values) if np.isfinite(value)]
    if not spans_decades(known):
        return
    options: dict[str, Any] = {"value": "log"}
    if min(known) <= 0:
        options = {"value": "symlog", "linthresh": min(value for value in known if value > 0)}
    getattr(axes, f"set_{axis}scale")(**options)


def with_widths(cuts: Sequence[str], widths: Sequence[int], room: int, hidden: Sequence[int] = ()) -> list[str]:
    """Name each cut, in lines of at most `room` characters, with its number of nodes and of those not drawn below."""
    lines = [
        f"{folded(cut, room)}\n{width} node{'' if width == 1 else 's'}" for cut, width in zip(cuts, widths, strict=True)
    ]
    return [
        line + ("\n" + fill(f"{count} without edges", max(room, 11)) if count else "")
        for line, count in zip(lines, hidden or [0] * len(lines), strict=True)
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


def graph_facts(
    partition: Partition | None, epsilons: Sequence[float], n_edges: int | None = None, hidden: int = 0
) -> list[str]:
    """Return the facts of a graph's heading: modules, verdict and cost, loss scale, edges shown and hidden."""
    parts = []
    if partition is not None:
        if partition.n_modules == 1:
            parts.append("one module")
        else:
            parts += [f"{partition.n_modules} modules ({partition.verdict})"]
            parts += [f"cost between modules {partition.edge_cost:.3g}"]
    parts.append(f"epsilon {shown_range(epsilons)}")
    if n_edges is not None:
        parts.append(f"{n_edges:,} edges" + (f" ({hidden:,} weakest not drawn)" if hidden else ""))
    return parts


def shown_range(values: Sequence[float]) -> str:
    """Format one number, or the smallest and largest over pairs of cuts."""
    least, largest = (f"{value:.3g}" for value in (min(values), max(values)))
    return least if least == largest else f"{least} to {largest}"
