"""Figures of profiles: the choice of resolution, and partitions over the loss scale."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ..errors import GraphError
from ..modules.evidence import variation_of_information
from ..modules.partition import Partition, ProfileRow
from ..results import figure
from .graphs import plot_membership
from .style import GREY, graph_title, title_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_epsilon_profile", "plot_partition", "plot_profile"]


def plot_profile(partition: Partition) -> Figure:
    """Draw every resolution tried: modules, z, gap over the null, contrast, description length; mark the chosen one.

    Raises:
        GraphError: the partition has no profile.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not partition.profile:
        raise GraphError("this partition was given, not searched: it has no profile to plot")
    names = list(dict.fromkeys(row.objective for row in partition.profile))
    figure = Figure(figsize=(4.6 * len(names) + 0.6, 8.0), layout="constrained")
    grid = figure.subplots(len(_PROFILE), len(names), squeeze=False, sharex="col", sharey="row")
    for column, name in enumerate(names):
        rows = [row for row in partition.profile if row.objective == name]
        for axes, (field, title) in zip(grid[:, column], _PROFILE.items(), strict=True):
            _profile_line(axes, rows, field)
            if name == partition.objective:
                axes.axvline(partition.resolution, color=GREY, lw=1, ls="dashed")
            if column == 0:
                axes.set_ylabel(title)
        grid[0, column].set_title(name, fontsize=10)
        grid[-1, column].set_xlabel("resolution")
        if all(row.resolution > 0 for row in partition.profile):
            grid[-1, column].set_xscale("log")
            shown = _round_values([row.resolution for row in rows])
            grid[-1, column].set_xticks(shown, [f"{value:g}" for value in shown])
            grid[-1, column].minorticks_off()
    grid[0, 0].yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    parts = [*graph_title(partition, partition.epsilons), "dashed: chosen", "filled: significant"]
    figure.suptitle(title_lines(parts, figure.get_figwidth()), fontsize=10)
    return figure


_PROFILE = {
    "n_modules": "modules",
    "z": "z against\nnull graphs",
    "gap": "gap over\nthe null",
    "contrast": "contrast",
    "description_length": "description\nlength minus one\nmodule's (nats)",
}


def _profile_line(axes: Axes, rows: Sequence[ProfileRow], field: str) -> None:
    points = [(row.resolution, getattr(row, field), bool(row.significant)) for row in rows]
    known = [(x, y, filled) for x, y, filled in points if y is not None and np.isfinite(y)]
    if not known:
        axes.text(0.5, 0.5, "no null graphs were searched", transform=axes.transAxes, ha="center", fontsize=8)
        return
    x, y, filled = map(np.array, zip(*known, strict=True))
    axes.plot(x, y, color="C0", lw=1)
    for marked, colour in ((filled, "C0"), (~filled, "white")):
        axes.scatter(x[marked], y[marked], 22, colour, edgecolors="C0", zorder=3)
    if field in ("z", "gap", "description_length"):
        axes.axhline(0.0, color=GREY, lw=0.6)


def plot_epsilon_profile(partitions: Sequence[Partition]) -> Figure:
    """Draw how modules merge and split with the loss scale: number, cost, and change between scales.

    Raises:
        GraphError: no partitions.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not partitions:
        raise GraphError("no partitions to plot: expected those of `epsilon_profile`")
    ordered = sorted(partitions, key=lambda part: part.epsilon)
    x = [part.epsilon for part in ordered]
    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    counts, costs, changes = figure.subplots(3, 1, sharex=True)
    counts.plot(x, [part.n_modules for part in ordered], marker="o")
    counts.set_ylabel("modules")
    counts.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    costs.plot(x, [part.edge_cost for part in ordered], marker="o", label="edge cost")
    costs.plot(x, [part.mediator_cost for part in ordered], marker="s", label="mediator cost")
    costs.set_ylabel("cost between modules")
    costs.legend(fontsize=8)
    middles, moved = [], []
    for first, second in pairwise(ordered):
        a, b = (np.concatenate(part.labels) for part in (first, second))
        both = (a >= 0) & (b >= 0)
        if not both.any():
            continue
        middles.append(float(np.sqrt(first.epsilon * second.epsilon)))
        moved.append(variation_of_information(a[both], b[both]))
    changes.plot(middles, moved, marker="o")
    changes.set_ylabel("change to the next\n(variation of\ninformation, nats)")
    changes.set_xlabel("loss scale epsilon")
    changes.set_xscale("log")
    return figure


def _round_values(values: Sequence[float]) -> list[float]:
    """Return 1, 2 and 5 times powers of ten in the range of positive values; if fewer than two, its ends."""
    low, high = min(values), max(values)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    round_ones = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    inside = [value for value in round_ones if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    return inside if len(inside) > 1 else [float(f"{value:.2g}") for value in sorted({low, high})]


@figure.register(Partition)
def plot_partition(partition: Partition, shown: str = "modules") -> Figure:
    """Draw the membership of the nodes in modules, or with "profile" the profile over resolutions."""
    return plot_profile(partition) if shown == "profile" else plot_membership(partition)
