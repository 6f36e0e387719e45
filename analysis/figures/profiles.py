"""Figures of profiles: the choice of resolution, and partitions over the loss scale."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GraphError
from ..modules.evidence import variation_of_information
from ..modules.partition import Partition, ProfileRow
from ..results import figure
from .graphs import plot_membership
from .style import BLUE, GREY, ORANGE, below, blank, graph_facts, heading, in_style, scaled

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_controls", "plot_epsilon_profile", "plot_partition", "plot_profile"]


@in_style
def plot_profile(partition: Partition, *, title: str | None = None) -> Figure:
    """Draw every resolution tried, one column per objective, and mark the chosen one.

    The number of modules and z lead; below them gap over the null, contrast and description length. A number that is 0
    at every resolution has no panel, the heading names it.

    Raises:
        GraphError: the partition has no profile.
    """
    if not partition.profile:
        raise GraphError("this partition was given, not searched: it has no profile to plot")
    names = list(dict.fromkeys(row.objective for row in partition.profile))
    flat = [field for field in _SMALL if not np.any([abs(y) > _ZERO for *_, y in _known(partition.profile, field)])]
    shown = [field for field in _PROFILE if field not in flat or _missing(partition.profile, field)]
    facts = graph_facts(partition, partition.epsilons)
    if rest := [_PROFILE[field].split("\n")[0] for field in _PROFILE if field not in shown]:
        facts.append(f"{' and '.join(rest)} 0 at every resolution")
    heights = [1.7 if field in _LARGE else 1.0 for field in shown]
    if len({row.n_modules for row in partition.profile}) == 1:
        heights[0] = 0.7
    figure = blank(4.3 * len(names) + 0.6, 1.1 * sum(heights) + 1.5)
    heading(figure, facts, title)
    grid = figure.subplots(len(shown), len(names), squeeze=False, sharex="col", sharey="row", height_ratios=heights)
    for column, name in enumerate(names):
        rows = [row for row in partition.profile if row.objective == name]
        for axes, field in zip(grid[:, column], shown, strict=True):
            _profile_line(axes, rows, field)
            if name == partition.objective:
                axes.axvline(partition.resolution, color=GREY, lw=1, ls="dashed", zorder=0)
            if column == 0:
                axes.set_ylabel(_PROFILE[field])
        grid[0, column].set_title(name)
        _resolution_axis(grid[-1, column], rows)
    _module_axis(grid[0, 0], [row.n_modules for row in partition.profile])
    below(figure, _profile_legend(), columns=3)
    return figure


_PROFILE = {
    "n_modules": "modules",
    "z": "z against\nnull graphs",
    "gap": "gap over\nthe null",
    "contrast": "contrast",
    "description_length": "description length\nminus one\nmodule's (nats)",
}

_LARGE = ("n_modules", "z")

_SMALL = ("gap", "contrast", "description_length")

_ZERO = 1e-9  # rounding errors of sums are below


def _known(rows: Sequence[ProfileRow], field: str) -> list[tuple[float, bool, float]]:
    """Return resolution, significance and value of the rows that have a finite value; rounding errors become 0."""
    found = [(row.resolution, bool(row.significant), getattr(row, field)) for row in rows]
    known = [(x, filled, float(y)) for x, filled, y in found if y is not None and np.isfinite(y)]
    return [(x, filled, 0.0 if abs(y) < _ZERO else y) for x, filled, y in known]


def _missing(rows: Sequence[ProfileRow], field: str) -> bool:
    return not _known(rows, field)


def _profile_line(axes: Axes, rows: Sequence[ProfileRow], field: str) -> None:
    if _missing(rows, field):
        axes.text(0.5, 0.5, "no null graphs were searched", transform=axes.transAxes, ha="center", va="center")
        return
    x, filled, y = map(np.array, zip(*_known(rows, field), strict=True))
    if field in ("z", "gap", "description_length"):
        axes.axhline(0.0, color=GREY, lw=0.6, zorder=0)
    axes.plot(x, y, color=BLUE)
    for marked, colour in ((filled, BLUE), (~filled, "white")):
        axes.scatter(x[marked], y[marked], 24, colour, edgecolors=BLUE, zorder=3)


def _resolution_axis(axes: Axes, rows: Sequence[ProfileRow]) -> None:
    axes.set_xlabel("resolution")
    if all(row.resolution > 0 for row in rows):
        axes.set_xscale("log")
        shown = _round_values([row.resolution for row in rows])
        axes.set_xticks(shown, [f"{value:g}" for value in shown])
        axes.minorticks_off()


def _module_axis(axes: Axes, counts: Sequence[int]) -> None:
    """Show whole numbers of modules, logarithmic where they span decades, and never an axis without height."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    scaled(axes, "y", counts)
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_ylim(min(counts) - 0.5, max(counts) + 0.5)
    else:
        axes.yaxis.set_major_formatter(ScalarFormatter())


def _profile_legend() -> list[Artist]:
    from matplotlib.lines import Line2D

    dot: dict[str, Any] = {"color": BLUE, "marker": "o", "ms": 5}
    return [
        Line2D([], [], **dot, label="significant"),
        Line2D([], [], **dot, mfc="white", label="not significant"),
        Line2D([], [], color=GREY, ls="dashed", lw=1, label="chosen"),
    ]


@in_style
def plot_epsilon_profile(partitions: Sequence[Partition], *, title: str | None = None) -> Figure:
    """Draw how modules merge and split with the loss scale: number, cost, and change between scales.

    Raises:
        GraphError: no partitions.
    """
    from matplotlib.lines import Line2D

    if not partitions:
        raise GraphError("no partitions to plot: expected those of `epsilon_profile`")
    ordered = sorted(partitions, key=lambda part: part.epsilon)
    x = [part.epsilon for part in ordered]
    figure = blank(6.4, 6.2)
    heading(figure, [f"{len(ordered)} loss scale{'' if len(ordered) == 1 else 's'}"], title)
    counts, costs, changes = figure.subplots(3, 1, sharex=True)
    counts.plot(x, [part.n_modules for part in ordered], marker="o", color=BLUE)
    counts.set_ylabel("modules")
    _module_axis(counts, [part.n_modules for part in ordered])
    lines: list[Line2D] = []
    for name, colour, marker in (("edge_cost", BLUE, "o"), ("mediator_cost", ORANGE, "s")):
        y = [getattr(part, name) for part in ordered]
        lines += costs.plot(x, y, marker=marker, color=colour, label=name.replace("_", " "))
    scaled(costs, "y", [part.edge_cost for part in ordered] + [part.mediator_cost for part in ordered])
    costs.set_ylabel("cost between modules")
    middles, moved = [], []
    for first, second in pairwise(ordered):
        a, b = (np.concatenate(part.labels) for part in (first, second))
        both = (a >= 0) & (b >= 0)
        if not both.any():
            continue
        middles.append(float(np.sqrt(first.epsilon * second.epsilon)))
        moved.append(variation_of_information(a[both], b[both]))
    changes.plot(middles, moved, marker="o", color=BLUE)
    changes.set_ylabel("change to the next\n(variation of\ninformation, nats)")
    changes.set_xlabel("loss scale epsilon")
    changes.set_xscale("log")
    below(figure, lines)
    return figure


def _round_values(values: Sequence[float]) -> list[float]:
    """Return 1, 2 and 5 times powers of ten in the range of positive values; if fewer than two, its ends."""
    low, high = min(values), max(values)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    round_ones = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    inside = [value for value in round_ones if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    return inside if len(inside) > 1 else [float(f"{value:.2g}") for value in sorted({low, high})]


@in_style
def plot_controls(partition: Partition, *, title: str | None = None) -> Figure:
    """Draw edges, normalised cost and modules of the network beside those of its untrained copies.

    Raises:
        GraphError: no copies were asked for, or none could be analysed.
    """
    rows = [row for row in partition.controls if not row.reason]
    if len(rows) < 2:
        raise GraphError(
            "this partition has no untrained copies beside it: analyse with untrained=3 (--control untrained)"
        )
    figure = blank(7.2, 2.9)
    heading(figure, [f"{len(rows) - 1} untrained copies", *graph_facts(partition, partition.epsilons)], title)
    panels = {"n_edges": "edges", "normalised_cost": "normalised cost", "n_modules": "modules"}
    for axes, (field, name) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        values = [getattr(row, field) for row in rows]
        places = [0.0, *(1 + 0.12 * (i - (len(rows) - 2) / 2) for i in range(len(rows) - 1))]
        known = [(x, y) for x, y in zip(places, values, strict=True) if y is not None]
        colours = [BLUE if x == 0 else GREY for x, _ in known]
        axes.scatter([x for x, _ in known], [y for _, y in known], c=colours, s=28, zorder=2)
        axes.set_xticks([0, 1], ["this network", "untrained"])
        axes.set_xlim(-0.5, 1.5)
        axes.set_ylim(0, 1.12 * max([1.0, *(y for _, y in known)]))
        axes.set_title(name)
        if field == "n_modules":
            axes.yaxis.get_major_locator().set_params(integer=True)
    return figure


@figure.register(Partition)
def plot_partition(partition: Partition, shown: str = "modules", *, title: str | None = None) -> Figure:
    """Draw the membership of the nodes in modules, with "profile" the profile, or with "controls" untrained copies."""
    return {"profile": plot_profile, "controls": plot_controls}.get(shown, plot_membership)(partition, title=title)
