"""Figures of circuit experiments, one per kind: the effect of an intervention, compared with random ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ..circuits.ablation import Isolation, ModuleAblation
from ..circuits.adversarial.searched import WorstCut
from ..circuits.bisection import EdgeBisection
from ..circuits.controls import Control, Outcome
from ..circuits.experiments import Experiment
from ..circuits.faithfulness import Faithfulness
from ..circuits.metrics import BEHAVIOURAL
from ..circuits.prediction import Prediction
from ..results import figure
from .style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    SMALL,
    below,
    blank,
    heading,
    in_style,
    module_colours,
    scaled,
    spans_decades,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_experiment"]

_MOST_LABELS = 20  # dots with a label, those with the largest predicted cost

_MOST_COLUMNS = 40  # columns of a heat map: classes or outputs, those that change most


@figure.register(Experiment)
@in_style
def plot_experiment(experiment: Experiment, *, title: str | None = None) -> Figure:
    """Draw the figure of an experiment by its kind.

    isolate: every metric of the network whole, isolated, with random cuts, without any edge, and, where it was asked
    for, under the worst partial cut. modules: which classes (else outputs) each module serves. faithfulness: f(k)
    beside random orders. bisect, epsilon: the metric over the edges kept. predict: measured loss over predicted cost, a
    dot per link, and of as many random edges. Error bars are one standard error, of random interventions one standard
    deviation over the draws. Axes whose values span decades are logarithmic.
    """
    draw: dict[type[Any], Callable[[Any, str | None], Figure]] = {
        Isolation: _isolation,
        ModuleAblation: _modules,
        Faithfulness: _faithfulness,
        EdgeBisection: _bisection,
        Prediction: _prediction,
    }
    return draw[type(experiment.result)](experiment.result, title)


def _isolation(found: Isolation, title: str | None) -> Figure:
    metrics = sorted(found.whole.values, key=lambda name: name not in BEHAVIOURAL)
    figure = blank(3.6 * len(metrics) + 1, 3.4 + 1.4 * len(found.worst))
    facts = [f"{found.n_modules} module{'s' if found.n_modules != 1 else ''}"]
    facts.append(f"{sum(found.cut_edges):,} of {sum(found.n_edges):,} edges cut")
    beside = found.matched.get(metrics[-1])
    if beside is not None:
        facts.append(f"p {beside.p_value:.2g} against as many edges of the same strengths")
    heading(figure, facts, title)
    for axes, metric in zip(np.atleast_1d(figure.subplots(1, len(metrics))), metrics, strict=True):
        bars: list[tuple[str, float, float, str]] = [_measured("whole", found.whole, metric)]
        bars.append(_measured("modules\nisolated", found.isolated, metric, ORANGE))
        bars += _drawn("random edges,\nsame strengths", found.matched.get(metric))
        bars += _drawn("random\nmodules", found.isolated.controls.get(metric))
        for each in found.worst:
            bars.append(_measured("worst\npartial cut", each.worst, metric, ORANGE))
            bars += _drawn("worst of\nrandom edges", each.matched.get(metric))
            bars += _drawn("worst of\nrandom modules", each.worst.controls.get(metric))
        bars.append(_measured("no edges", found.ablated, metric, INK))
        names, values, errors, colours = zip(*bars, strict=True)
        axes.barh(range(len(bars)), values, xerr=errors, color=colours, height=0.65, ecolor=GREY, capsize=2)
        axes.set_yticks(range(len(bars)), names)
        axes.invert_yaxis()
        axes.set_xlabel(metric)
        if min(values) >= 0:
            scaled(axes, "x", [0.0, *values])
            axes.set_xlim(left=0)
    return figure


def _measured(name: str, row: Outcome, metric: str, colour: str = BLUE) -> tuple[str, float, float, str]:
    return name, row.values[metric].value, row.values[metric].standard_error, colour


def _drawn(name: str, beside: Control | None) -> list[tuple[str, float, float, str]]:
    return [] if beside is None else [(name, beside.value, beside.spread, GREY)]


def _worst_facts(worst: Sequence[WorstCut]) -> list[str]:
    """Say what the worst partial cut of all loses, and with which p-value."""
    if not worst:
        return []
    most = max(worst, key=lambda each: each.losses[-1])
    beside = "" if most.p_value is None else f", p {most.p_value:.2g} against random {most.beside}"
    return [f"worst partial cut: {most.loss} {most.losses[-1]:.3g}{beside}"]


def _modules(found: ModuleAblation, title: str | None) -> Figure:
    """Draw a table: rows are modules, columns classes (of each answer) or outputs."""
    if found.whole_classes.size:
        answers, classes = found.whole_classes.shape
        table = found.classes.reshape(2, found.n_modules, answers * classes)
        names = [f"{c}" if answers == 1 else f"{a}:{c}" for a in range(answers) for c in range(classes)]
        label, what, limits = "accuracy", "class" if answers == 1 else "answer:class", (0.0, 1.0)
    else:
        table, names = found.outputs, [str(o) for o in range(found.outputs.shape[2])]
        label, what, limits = "mean squared change", "output", (0.0, float(found.outputs.max(initial=0.0)) or 1.0)
    shown = _most_varied(table[0])
    figure = blank(min(12.0, 2.5 + 0.3 * len(shown)), 2.0 + 0.44 * found.n_modules)
    heading(figure, [f"{label} without each module, and with it alone", *_worst_facts(found.worst)], title)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, rows, name in zip(panels, table, ("without the module", "the module alone"), strict=True):
        image = axes.imshow(rows[:, shown], aspect="auto", vmin=limits[0], vmax=limits[1], cmap="viridis")
        axes.set_yticks(range(found.n_modules), [f"module {m}" for m in range(found.n_modules)])
        for text, colour in zip(axes.get_yticklabels(), module_colours(np.arange(found.n_modules)), strict=True):
            text.set_color(colour)
        axes.set_title(name, loc="left")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    step = -(-len(shown) // 20)
    panels[1].set_xticks(range(0, len(shown), step), [names[i] for i in shown[::step]], fontsize=SMALL)
    hidden = f" ({len(shown)} of {len(names)} that vary most)" if len(shown) < len(names) else ""
    panels[1].set_xlabel(what + hidden)
    figure.colorbar(image, ax=panels, label=label, shrink=0.9)
    return figure


def _most_varied(table: Float[np.ndarray, "modules columns"]) -> list[int]:
    """Return columns of a table in their order; if there are many, those in which modules differ most."""
    known = np.nan_to_num(table)
    span = known.max(0) - known.min(0) if len(known) > 1 else known[0]
    order = np.argsort(-span, kind="stable")[:_MOST_COLUMNS]
    return [int(i) for i in sorted(order)]


def _faithfulness(found: Faithfulness, title: str | None) -> Figure:
    figure = blank(5.8, 4.0)
    heading(figure, [f"CPR {found.cpr.value:.3f}, CMD {found.cmd.value:.3f}, p {found.p_value:.2g}"], title)
    axes = figure.subplots()
    handles: list[Any] = []
    for row in found.random:
        handles[:1] = axes.plot(found.fractions, row, color=GREY, lw=0.8, label="random order")
    axes.axhline(1, color=INK, lw=0.8, ls=":")
    values, errors = [p.value for p in found.curve], [p.standard_error for p in found.curve]
    handles.append(axes.errorbar(found.fractions, values, errors, label="strongest first", color=BLUE, **_CURVE))
    axes.set(xscale="log", xlabel="share of the edges kept", ylabel=f"faithfulness ({found.metric})")
    below(figure, handles)
    return figure


_CURVE: dict[str, Any] = {"fmt": "o-", "ms": 4, "capsize": 2.5}


def _bisection(found: EdgeBisection, title: str | None) -> Figure:
    """Draw one panel per pair of cuts, and one for all at once."""
    from matplotlib.ticker import MaxNLocator

    names = [*(f"{a} to {b}" for a, b in zip(found.cuts[:-1], found.cuts[1:], strict=True)), "all at once"]
    needed = [*found.edges_required, sum(found.jointly_required)]
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = blank(2.7 * columns + 0.5, 2.5 * rows + 0.7)
    facts = [f"Fewest edges that keep {found.metric} within {found.tolerance:g}", *_worst_facts(found.worst)]
    heading(figure, facts, title)
    panels = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    whole = found.whole.values[found.metric].value
    for axes, name, curve, count in zip(panels, names, found.curves, needed, strict=False):
        edges, values = zip(*curve, strict=True)
        axes.plot(edges, values, "o", ms=3, color=BLUE)
        line = axes.axhline(whole, color=INK, lw=0.8, ls=":", label="whole network")
        mark = axes.axvline(count, color=ORANGE, lw=1, label="fewest edges")
        axes.set_title(f"{name}: {count:,}")
        axes.set_xlabel("strongest edges kept")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
        if spans_decades([max(1, min(edges)), max(edges)]):
            axes.set_xscale("symlog", linthresh=1)  # symlog also shows 0
            axes.set_xlim(-0.1 if min(edges) == 0 else None, 1.2 * max(edges))
    panels[0].set_ylabel(found.metric)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    below(figure, [line, mark])
    return figure


def _prediction(found: Prediction, title: str | None) -> Figure:
    figure = blank(5.0, 4.2)
    facts = ["too few links to rank"]
    if found.spearman is not None and found.interval is not None:
        low, high = found.interval
        facts = [f"Spearman {found.spearman:.2f} [{low:.2f}, {high:.2f}]"]
    heading(figure, [*facts, "dots: module to module"], title)
    axes = figure.subplots()
    cost = np.array([link.predicted for link in found.links])
    changes = [link.measured.changes[found.metric] for link in found.links]
    y, errors = _column(changes, "value"), _column(changes, "standard_error")
    handles: list[Any] = [axes.errorbar(cost, y, errors, label="edges of a link", color=BLUE, **{**_CURVE, "fmt": "o"})]
    for x, link, change in list(zip(cost, found.links, changes, strict=True))[:_MOST_LABELS]:
        text = f"{link.earlier} to {link.later}"
        axes.annotate(text, (x, change.value), xytext=(4, 3), textcoords="offset points", fontsize=SMALL)
    axes.margins(x=0.15, y=0.1)  # for the labels
    random = [link.measured.controls.get(found.metric) for link in found.links]
    whole = found.whole.values[found.metric].value
    drawn = [(x, beside.value - whole) for x, beside in zip(cost, random, strict=True) if beside is not None]
    if drawn:
        handles += axes.plot(*zip(*drawn, strict=True), "x", ms=4, color=GREY, label="as many random edges")
        below(figure, handles)
    axes.set(xlabel="predicted interaction cost", ylabel=f"change of {found.metric} when cut")
    if all(change.value > 0 for change in changes):
        axes.set_yscale("log")  # like the cost, which is a logarithm
    return figure


def _column(estimates: Sequence[Any], name: str) -> list[float]:
    return [getattr(estimate, name) for estimate in estimates]
