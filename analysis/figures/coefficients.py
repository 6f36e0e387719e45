"""Figures of the learning coefficient: over loss scales, and the traces of its chains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..llc.coefficient import LearningCoefficient, LearningCoefficientCurve
from ..refined.coefficients import RefinedCoefficients
from ..results import figure
from .style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    RED,
    below,
    blank,
    capped,
    heading,
    in_style,
    module_colours,
    spans_decades,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_curve", "plot_parts", "plot_traces"]

_VERDICTS = {"reliable": BLUE, "doubtful": ORANGE, "failed": RED}


@figure.register(LearningCoefficientCurve)
@in_style
def plot_curve(curve: LearningCoefficientCurve, *, title: str | None = None) -> Figure:
    """Draw N_eff = 2 lambda over the loss scale with 95 % intervals, and the growth of the volume.

    Points that are not reliable are orange (doubtful) or red (failed); the dotted line is the soft rank, the value
    for a quadratic loss.
    """
    figure = blank(8.4, 4.2)
    facts = [f"{curve.points[0].n_parameters:,} parameters varied", f"verdict {curve.verdict}"]
    if missing := sum(not np.isfinite(point.value) for point in curve.points):
        facts.append(f"{missing} scale{'' if missing == 1 else 's'} without a value")
    heading(figure, facts, title)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    soft = [2 * point.diagnostics.soft_rank for point in curve.points]
    handles: list[Any] = left.plot(curve.epsilons, soft, ":", color=GREY, label="soft rank (quadratic loss)")
    left.plot(curve.epsilons, curve.n_effective, color=BLUE)
    for verdict, colour in _VERDICTS.items():
        points = [point for point in curve.points if point.verdict == verdict and np.isfinite(point.value)]
        if points:
            ends = np.array([[p.n_effective - 2 * p.interval[0], 2 * p.interval[1] - p.n_effective] for p in points])
            x, y = [p.epsilon for p in points], [p.n_effective for p in points]
            handles.append(left.errorbar(x, y, np.abs(ends).T, label=verdict, color=colour, **_BARS))
    left.set(xscale="log", xlabel="loss scale epsilon", ylabel="effective parameters 2 lambda")
    lows = [2 * point.interval[0] for point in curve.points if np.isfinite(point.value)]
    if lows and min(lows) > 0 and spans_decades([*lows, *curve.n_effective]):
        left.set_yscale("log")
    else:
        left.set_ylim(bottom=min(0.0, *lows, 0.0))
    right.errorbar(
        curve.epsilons, curve.log_volume, 1.96 * curve.log_volume_error, color=BLUE, **{**_BARS, "fmt": "o-"}
    )
    right.set(xscale="log", xlabel="loss scale epsilon", ylabel="log volume, from the smallest scale on")
    below(figure, handles)
    return figure


_BARS: dict[str, Any] = {"fmt": "o", "ms": 4, "capsize": 2.5}


@figure.register(LearningCoefficient)
@in_style
def plot_traces(found: LearningCoefficient, *, title: str | None = None) -> Figure:
    """Draw t (L - L(theta*)) and the distance from theta* over the draws, one line per chain.

    The line is lambda, the band its interval; with control variates the mean of the draws is dashed.
    """
    from matplotlib.ticker import MaxNLocator

    figure = blank(8.0, 5.0)
    low, high = found.interval
    facts = [
        f"lambda = {found.value:.4g} in [{low:.4g}, {high:.4g}] at loss scale {found.epsilon:.3g}: {found.verdict}"
    ]
    heading(figure, facts, title)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    colours = [tuple(colour) for colour in module_colours(np.arange(len(found.traces["llc"])))]
    for chain, (loss, radius) in enumerate(zip(found.traces["llc"], found.traces["radius"], strict=True)):
        upper.plot(loss, lw=0.6, alpha=0.8, color=colours[chain], label=f"chain {chain}")
        lower.plot(radius, lw=0.6, alpha=0.8, color=colours[chain])
    if np.isfinite(found.value):
        colour = INK if found.verdict == "reliable" else _VERDICTS[found.verdict]
        upper.axhspan(*found.interval, color=colour, alpha=0.2, lw=0, label="95 % interval", zorder=0)
        upper.axhline(found.value, color=colour, label="lambda")
        if found.diagnostics.control_variate.coefficients:
            plain = found.diagnostics.plain
            upper.axhline(plain, color=colour, ls="--", label=f"mean {plain:.4g}, before control variates")
    upper.set_ylabel("t (L - L*)")
    lower.set(xlabel="draw", ylabel="distance from theta*")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    lower.margins(x=0.01)
    below(figure, capped(upper.get_legend_handles_labels()[0], "chains"))
    return figure


@figure.register(RefinedCoefficients)
@in_style
def plot_parts(found: RefinedCoefficients, *, title: str | None = None) -> Figure:
    """Draw N_eff of each part with its 95 % interval, and what mediating nodes take beside the prediction of eq. 34.

    Parts that are not reliable are orange (doubtful) or red (failed); the grey bar is the number of parameters.
    """
    nodes = [
        (node.predicted, node.measured, node.standard_error or 0.0)
        for node in found.mediators
        if node.measured is not None and node.predicted is not None
    ]
    figure = blank(9.6 if nodes else 7.2, 1.6 + 0.34 * len(found.parts))
    heading(figure, [f"loss scale {found.epsilon:.3g}", f"verdict {found.verdict}"], title)
    panels = figure.subplots(1, 2, width_ratios=(3, 2)) if nodes else [figure.subplots()]
    places = np.arange(len(found.parts))
    left = panels[0]
    counts = [part.estimate.n_parameters for part in found.parts]
    left.barh(places, counts, color=GREY, alpha=0.25, label="parameters")
    for verdict, colour in _VERDICTS.items():
        chosen = [(y, part.estimate) for y, part in enumerate(found.parts) if part.estimate.verdict == verdict]
        shown = [(y, point) for y, point in chosen if np.isfinite(point.value)]
        if shown:
            ends = np.array([[p.n_effective - 2 * p.interval[0], 2 * p.interval[1] - p.n_effective] for _, p in shown])
            x, y = [p.n_effective for _, p in shown], [y for y, _ in shown]
            left.errorbar(x, y, xerr=np.abs(ends).T, label=verdict, color=colour, **_BARS)
    left.set_yticks(places, [part.name for part in found.parts])
    left.invert_yaxis()
    left.set(xscale="symlog" if max(counts) > 100 else "linear", xlabel="effective parameters 2 lambda", xlim=(0, None))
    if nodes:
        predicted, measured, errors = np.array(nodes).T
        most = 1.1 * max(predicted.max(), measured.max())
        panels[1].plot([0, most], [0, most], ":", color=GREY)
        panels[1].errorbar(predicted, measured, errors, color=BLUE, **_BARS)
        panels[1].set(xlabel="predicted gamma of a mediating node", ylabel="measured gamma")
    below(figure, left.get_legend_handles_labels()[0])
    return figure
