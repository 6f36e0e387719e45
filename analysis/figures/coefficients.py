"""Figures of the learning coefficient: over loss scales, and the traces of its chains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..llc.coefficient import LearningCoefficient, LearningCoefficientCurve
from ..results import figure
from .style import GREY, title_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_curve", "plot_traces"]

_VERDICTS = {"reliable": "tab:blue", "doubtful": "tab:orange", "failed": "tab:red"}


@figure.register(LearningCoefficientCurve)
def plot_curve(curve: LearningCoefficientCurve) -> Figure:
    """Draw N_eff = 2 lambda over the loss scale with 95 % intervals, and the growth of the volume.

    Points that are not reliable are orange (doubtful) or red (failed); the dotted line is the soft rank, the value
    for a quadratic loss.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    soft = [2 * point.diagnostics.soft_rank for point in curve.points]
    left.plot(curve.epsilons, soft, ":", color=GREY, lw=1.2, label="soft rank (quadratic loss)")
    left.plot(curve.epsilons, curve.n_effective, color="tab:blue", lw=1)
    for verdict, colour in _VERDICTS.items():
        points = [point for point in curve.points if point.verdict == verdict and np.isfinite(point.value)]
        if points:
            ends = np.array([[p.n_effective - 2 * p.interval[0], 2 * p.interval[1] - p.n_effective] for p in points])
            x, y = [p.epsilon for p in points], [p.n_effective for p in points]
            left.errorbar(x, y, np.abs(ends).T, fmt="o", ms=4, capsize=2.5, lw=1.2, color=colour, label=verdict)
    left.set(xscale="log", xlabel="loss scale epsilon", ylabel="effective parameters 2 lambda")
    left.set_ylim(bottom=min(0.0, *(2 * p.interval[0] for p in curve.points if np.isfinite(p.value)), 0.0))
    left.legend(fontsize=8, frameon=False, ncols=4, loc="upper left", bbox_to_anchor=(0.0, -0.15))
    title = [f"{curve.points[0].n_parameters:,} parameters varied", f"verdict {curve.verdict}"]
    if missing := sum(not np.isfinite(point.value) for point in curve.points):
        title.append(f"{missing} scale{'' if missing == 1 else 's'} without a value")
    left.set_title(title_lines(title, 4.6), fontsize=10)
    right.errorbar(curve.epsilons, curve.log_volume, 1.96 * curve.log_volume_error, fmt="o-", ms=3.5, lw=1, capsize=2)
    right.set(xscale="log", xlabel="loss scale epsilon", ylabel="log volume, from the smallest scale on")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


@figure.register(LearningCoefficient)
def plot_traces(found: LearningCoefficient) -> Figure:
    """Draw t (L - L(theta*)) and the distance from theta* over the draws, one line per chain.

    The line is lambda, the band its interval; with control variates the mean of the draws is dashed.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.8), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for chain, (loss, radius) in enumerate(zip(found.traces["llc"], found.traces["radius"], strict=True)):
        upper.plot(loss, lw=0.6, alpha=0.8, label=f"chain {chain}")
        lower.plot(radius, lw=0.6, alpha=0.8)
    if np.isfinite(found.value):
        upper.axhspan(*found.interval, color="black", alpha=0.25, lw=0)
        upper.axhline(found.value, color="black", lw=1)
        if found.diagnostics.control_variate.coefficients:
            plain = found.diagnostics.plain
            upper.axhline(plain, color="black", lw=1, ls="--", label=f"mean {plain:.4g}, before control variates")
    upper.set_ylabel("t (L - L*)")
    lower.set(xlabel="draw", ylabel="distance from theta*")
    figure.legend(*upper.get_legend_handles_labels(), fontsize=8, frameon=False, ncols=3, loc="outside lower center")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    low, high = found.interval
    title = f"lambda = {found.value:.4g} in [{low:.4g}, {high:.4g}] at loss scale {found.epsilon:.3g}: {found.verdict}"
    upper.set_title(title, fontsize=10, color=_VERDICTS[found.verdict] if found.verdict != "reliable" else "black")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
