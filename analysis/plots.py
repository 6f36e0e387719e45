"""Figures of results: graph, modules, profiles, tracks over training, the ledger, the learning coefficient."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from .coefficient import LearningCoefficient, LearningCoefficientCurve
from .cost import Epsilon, interaction_cost, loss_scales
from .degeneracy import Ledger
from .errors import GraphError
from .graph import InteractionGraph
from .modules import Partition
from .resolution import ProfileRow
from .scales import default_epsilon, strength_distribution
from .significance import variation_of_information
from .synchronisation import SynchronisedUnits
from .tracking import Tracking

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "plot_curve",
    "plot_epsilon_profile",
    "plot_graph",
    "plot_ledger",
    "plot_membership",
    "plot_profile",
    "plot_strengths",
    "plot_synchronisation",
    "plot_traces",
    "plot_tracking",
]

_GREY = "#9a9a9a"
_VERDICTS = {"reliable": "tab:blue", "doubtful": "tab:orange", "failed": "tab:red"}
_MAX_EDGES = 4000
_WEAK = 0.15  # opacity of the weakest edge shown


def plot_graph(graph: InteractionGraph, partition: Partition | None = None, epsilon: Epsilon | None = None) -> Figure:
    """Cuts as columns, nodes as dots (area: importance), edges above the cutoff as lines (opacity: cost c(w)).

    With a partition nodes are sorted and coloured by module; edges inside a module take its colour, edges between
    modules are grey and dashed. Only the strongest 4,000 edges of each pair of cuts are drawn, which the title says.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    if partition is not None and tuple(map(len, partition.labels)) != graph.widths:
        widths = tuple(map(len, partition.labels))
        raise GraphError(
            f"the partition is of another graph: it has {widths} nodes at the cuts, this one {graph.widths}"
        )
    if epsilon is None:
        epsilon = partition.epsilons if partition is not None else default_epsilon(graph)
    scales = loss_scales(graph, epsilon)
    labels = partition.labels if partition is not None else tuple(np.zeros(k, int) for k in graph.widths)
    heights = [_heights(a) for a in labels]
    figure = Figure(figsize=(2.2 * len(graph.cuts) + 1.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    hidden = shown_edges = 0
    for (a, b), block, scale in zip(graph.pairs, graph.blocks, scales, strict=True):
        cost = interaction_cost(block, scale)
        later, earlier = np.nonzero(cost)
        order = np.argsort(-cost[later, earlier], kind="stable")
        shown_edges += len(order)
        hidden += max(0, len(order) - _MAX_EDGES)
        later, earlier = later[order[:_MAX_EDGES]], earlier[order[:_MAX_EDGES]]
        inside = labels[a][earlier] == labels[b][later]
        opacity = _WEAK + (1 - _WEAK) * cost[later, earlier] / max(cost.max(initial=0.0), 1e-300)
        ends = np.stack(
            [
                np.stack([np.full(len(earlier), float(a)), heights[a][earlier]], 1),
                np.stack([np.full(len(later), float(b)), heights[b][later]], 1),
            ],
            1,
        )
        for shown, style in ((~inside, "dashed"), (inside, "solid")):
            if not shown.any():
                continue
            colours = _colours(np.where(inside, labels[a][earlier], -1)[shown])
            axes.add_collection(
                LineCollection(list(ends[shown]), colors=colours, alpha=list(opacity[shown]), linestyles=style, lw=1)
            )
    for p, importance in enumerate(graph.importance):
        area = 12 + 60 * np.sqrt(importance / max(importance.max(initial=0.0), 1e-300))
        axes.scatter(np.full(len(importance), p), heights[p], area, _colours(labels[p]), zorder=3)
    axes.set_xticks(range(len(graph.cuts)), _with_widths(graph.cuts, graph.widths))
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(_title(partition, scales, shown_edges, hidden), fontsize=10)
    if partition is not None:
        _module_legend(figure, labels, edges=True)
    return figure


def plot_membership(partition: Partition) -> Figure:
    """Cuts as columns, coordinates (most important first) as cells in the colour of their module; grey: no edge."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    deepest = max(map(len, partition.labels))
    figure = Figure(figsize=(1.3 * len(partition.cuts) + 1.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    picture = np.ones((deepest, len(partition.cuts), 4))
    for p, label in enumerate(partition.labels):
        picture[: len(label), p] = _colours(label)
    axes.imshow(picture, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(partition.cuts)), _with_widths(partition.cuts, [len(a) for a in partition.labels]))
    axes.set_ylabel("coordinate")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_title(_title(partition, partition.epsilons, None, 0), fontsize=10)
    _module_legend(figure, partition.labels, edges=False)
    return figure


def plot_profile(partition: Partition) -> Figure:
    """Every resolution tried: modules, z, gap over the null, contrast, description length; the chosen one marked.

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
                axes.axvline(partition.resolution, color=_GREY, lw=1, ls="dashed")
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
    figure.suptitle(
        _title(partition, partition.epsilons, None, 0) + " (dashed: chosen; filled: significant)", fontsize=10
    )
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
        axes.axhline(0.0, color=_GREY, lw=0.6)


def plot_strengths(graph: InteractionGraph, epsilon: Epsilon | None = None) -> Figure:
    """Distribution of the strengths, the share of w^2 that those up to w carry, and the cutoffs sqrt(epsilon).

    The epsilon read off the graph is shown where none is given; with one per pair of cuts each has a line.
    """
    from matplotlib.figure import Figure

    found = strength_distribution(graph.blocks)
    scales = loss_scales(graph, found.cutoff**2 if epsilon is None else epsilon)
    cutoffs = [found.cutoff] * len(scales) if epsilon is None else np.sqrt(scales).tolist()
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    w = 10**found.log10
    axes.plot(w, found.density, color="C0")
    axes.set_ylabel("density of strengths per decade", color="C0")
    axes.set_xlabel("strength w")
    axes.set_xscale("log")
    for cutoff in dict.fromkeys(cutoffs):
        axes.axvline(cutoff, color="black", lw=1, ls="dashed")
    axes.set_ylim(bottom=0)
    share = axes.twinx()
    share.plot(w, found.carried, color="C1")
    share.set_ylabel("share of w$^2$ carried up to w", color="C1")
    share.set_ylim(0, 1.02)
    edges = sum(int((block > cutoff).sum()) for block, cutoff in zip(graph.blocks, cutoffs, strict=True))
    axes.set_title(f"cutoff {_range(cutoffs)} (dashed), epsilon {_range(scales)}, {edges:,} edges above", fontsize=10)
    return figure


def plot_epsilon_profile(partitions: Sequence[Partition]) -> Figure:
    """How modules merge and split with the loss scale: number, cost, and change from one scale to the next.

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


def plot_tracking(tracking: Tracking) -> Figure:
    """Alluvial diagram: checkpoints as columns, modules as bars coloured by track, flows of aligned nodes."""
    from matplotlib.figure import Figure

    count = len(tracking.names)
    figure = Figure(figsize=(max(1.5 * count + 1.0, 4.0), 4.8), layout="constrained")
    axes = figure.add_subplot()
    bars = [
        _bars(np.array([m.size for m in part.modules], dtype=float), np.argsort(tracks))
        for part, tracks in zip(tracking.partitions, tracking.tracks, strict=True)
    ]
    for t, flow in enumerate(tracking.flows):
        for ribbon in _ribbons(flow, bars[t], bars[t + 1]):
            a, left, right, height = ribbon
            x = np.linspace(t + _BAR, t + 1 - _BAR, 40)
            bend = 3 * (s := (x - x[0]) / (x[-1] - x[0])) ** 2 - 2 * s**3
            lower = left + (right - left) * bend
            colour = _colours(np.array([tracking.tracks[t][a]]))[0]
            axes.fill_between(x, lower, lower + height, color=colour, alpha=0.35, lw=0)
    for t, (part, tracks) in enumerate(zip(tracking.partitions, tracking.tracks, strict=True)):
        for module, track, (bottom, height) in zip(part.modules, tracks, bars[t], strict=True):
            colour = _colours(np.array([track]))[0]
            axes.bar(t, height, 2 * _BAR, bottom, color=colour, edgecolor="white")
            axes.annotate(f"{module.size}", (t, bottom + height / 2), ha="center", va="center", fontsize=7)
    axes.set_xticks(range(count), [_folded(name) for name in tracking.names], fontsize=8)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    counts = {kind: sum(event.kind == kind for event in tracking.events) for kind in _EVENTS}
    events = ", ".join(f"{n} {kind}{'' if n == 1 else 's'}" for kind, n in counts.items() if n) or "no events"
    axes.set_title(f"{tracking.n_tracks} modules over {count} checkpoints ({events}); numbers: nodes", fontsize=10)
    return figure


def plot_ledger(ledger: Ledger) -> Figure:
    """Waterfall from the number of parameters to the effective ones: each cause takes its share off, by layer.

    Shades are layers, from the first (dark) to the last (light). Where the rank of the Hessian is only bounded, a line
    on the last bar shows how far down it may be.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    rows = ledger.rows()
    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    shades = colormaps["viridis"](np.linspace(0.15, 0.9, len(ledger.layers)))
    top = ledger.nominal
    for x, (name, total) in enumerate(rows):
        field = {"Jacobians": "jacobians", "synchronisation": "synchronised"}.get(name, name)
        if name in ("unexplained", "effective"):
            shares = [(total, _GREY if name == "unexplained" else "#2b2b2b")]
        else:
            shares = [(getattr(layer, field), shade) for layer, shade in zip(ledger.layers, shades, strict=True)]
            shares = shares or [(total, _GREY)]  # counted without layers
        level = ledger.nominal if name == "nominal" else top
        for share, colour in shares:
            axes.bar(x, share, bottom=level - share if name != "effective" else 0, color=colour, width=0.72)
            level -= share
        if 0 < x < len(rows) - 1:
            axes.plot([x - 0.36, x + 1.36], [level, level], color=_GREY, lw=0.7)
            top = level
        height = ledger.effective if name == "effective" else max(top, top + total if x else top)
        text = f"-{total:,}" if 0 < x < len(rows) - 1 and total > 0 else f"{abs(total):,}"
        if name == "unexplained" and ledger.hessian.method == "sampled":
            text = f"at least {total:,}" if total else "not known"
        axes.annotate(text, (x, height), (0, 3), textcoords="offset points", ha="center", fontsize=9)
    if not ledger.hessian.exact:
        axes.plot([len(rows) - 1] * 2, [ledger.hessian.lower, ledger.hessian.upper], color="tab:orange", lw=2)
    axes.set_xticks(range(len(rows)), [name for name, _ in rows], fontsize=9)
    axes.set_ylim(0, 1.08 * ledger.nominal)
    axes.set_ylabel("parameters")
    axes.spines[["top", "right"]].set_visible(False)
    handles: list[Patch | Line2D] = [
        Patch(color=shade, label=f"{layer.name} ({layer.n_inputs} to {layer.n_outputs})")
        for layer, shade in zip(ledger.layers, shades, strict=True)
    ]
    if not ledger.hessian.exact:
        handles.append(Line2D([], [], color="tab:orange", lw=2, label="rank of the Hessian, bounds"))
    if handles:
        figure.legend(handles=handles, fontsize=8, frameon=False, loc="outside right upper")
    scale = "exact ranks" if ledger.epsilon is None else f"loss scale {ledger.epsilon:.3g}"
    most = {"exact": "", "lanczos": "About ", "sampled": "At most "}[ledger.hessian.method]
    title = f"{most}{ledger.effective:,} of {ledger.nominal:,} parameters are effective ({scale})"
    axes.set_title(title, fontsize=10)
    return figure


def plot_curve(curve: LearningCoefficientCurve) -> Figure:
    """N_eff = 2 lambda over the loss scale with 95 % intervals, and how the volume grows.

    Points that are not reliable are orange (doubtful) or red (failed); the dotted line is the soft rank, which a
    quadratic loss would give.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    soft = [2 * point.diagnostics.soft_rank for point in curve.points]
    left.plot(curve.epsilons, soft, ":", color=_GREY, lw=1.2, label="soft rank (quadratic loss)")
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
    left.set_title(f"{curve.points[0].n_parameters:,} parameters varied, verdict {curve.verdict}", fontsize=10)
    right.errorbar(curve.epsilons, curve.log_volume, 1.96 * curve.log_volume_error, fmt="o-", ms=3.5, lw=1, capsize=2)
    right.set(xscale="log", xlabel="loss scale epsilon", ylabel="log volume, from the smallest scale on")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_traces(found: LearningCoefficient) -> Figure:
    """T (L - L(theta*)) and the distance from theta* over the draws, one line per chain.

    The line is lambda, the band its interval; where control variates were used, the mean of the draws is dashed.
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


def plot_synchronisation(units: SynchronisedUnits) -> Figure:
    """Distances between firing patterns, relative to the power of the units, sorted by block; blocks are framed."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    order = [i for block in units.blocks for i in block] + list(units.dead)
    power = np.maximum(units.power, np.finfo(float).tiny)
    share = units.distances / np.maximum(power[:, None], power[None])
    figure = Figure(figsize=(5.6, 4.8), layout="constrained")
    axes = figure.add_subplot()
    shown = np.maximum(share[np.ix_(order, order)], 1e-6)
    image = axes.imshow(shown, cmap="magma", norm=LogNorm(1e-6, 1), interpolation="nearest")
    start = 0
    for number, block in enumerate(units.blocks):
        if len(block) > 1 or number == units.always_on:
            colour = "tab:cyan" if number == units.always_on else "white"
            axes.add_patch(Rectangle((start - 0.5, start - 0.5), len(block), len(block), ec=colour, fc="none", lw=1.2))
        start += len(block)
    if units.dead:
        size = len(units.dead)
        axes.add_patch(Rectangle((start - 0.5, start - 0.5), size, size, ec="tab:red", fc="none", lw=1.2))
    figure.colorbar(image, label="share of the preactivation where patterns differ")
    on = 0 if units.always_on is None else len(units.blocks[units.always_on])
    axes.set_title(
        f"{units.layer}: {len(order)} units in {len(units.blocks)} blocks\n{on} always on (cyan), "
        f"{len(units.dead)} dead (red)",
        fontsize=10,
    )
    axes.set_xlabel("unit, sorted by block")
    return figure


_EVENTS = ("split", "merge", "birth", "death")
_BAR = 0.09  # half the width of a bar
_SPACE = 0.03  # between bars, as a share of the largest checkpoint


def _bars(sizes: Float[np.ndarray, " modules"], order: Int[np.ndarray, " modules"]) -> list[tuple[float, float]]:
    """Bottom and height of each module's bar, stacked from the top in the given order."""
    space = _SPACE * sizes.sum()
    tops = np.empty(len(sizes))
    tops[order] = -(np.cumsum(sizes[order] + space) - sizes[order] - space)
    return [(float(top - size), float(size)) for top, size in zip(tops, sizes, strict=True)]


def _ribbons(
    flow: Float[np.ndarray, "earlier later"],
    left: Sequence[tuple[float, float]],
    right: Sequence[tuple[float, float]],
) -> list[tuple[int, float, float, float]]:
    """Earlier module, lower ends on both sides, and height of every flow, stacked from the top of the bars."""
    used_left, used_right = np.zeros(len(left)), np.zeros(len(right))
    ribbons = []
    for a, b in zip(*np.nonzero(flow), strict=True):
        size = float(flow[a, b])
        used_left[a] += size
        used_right[b] += size
        ends = sum(left[a]) - used_left[a], sum(right[b]) - used_right[b]
        ribbons.append((int(a), float(ends[0]), float(ends[1]), size))
    return ribbons


def _folded(name: str, width: int = 14) -> str:
    return "\n".join(name[i : i + width] for i in range(0, len(name), width))


def _heights(labels: Int[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Nodes from top to bottom by module, nodes without one last, within a module in their own order."""
    order = np.lexsort((np.arange(len(labels)), np.where(labels < 0, labels.max(initial=0) + 1, labels)))
    heights = np.empty(len(labels))
    heights[order] = 1 - (np.arange(len(labels)) + 0.5) / len(labels)
    return heights


def _colours(labels: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k rgba=4"]:
    from matplotlib import colormaps
    from matplotlib.colors import to_rgba

    table = np.array([*colormaps["tab10"](np.arange(10)), to_rgba(_GREY)])
    return table[np.where(labels < 0, 10, labels % 10)]


def _round_values(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 times powers of ten in the range of positive values; where there are fewer than two, its ends."""
    low, high = min(values), max(values)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    round_ones = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    inside = [value for value in round_ones if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    return inside if len(inside) > 1 else [float(f"{value:.2g}") for value in sorted({low, high})]


def _module_legend(figure: Figure, labels: Sequence[Int[np.ndarray, " _"]], *, edges: bool) -> None:
    """Beside the axes, what colours mean: modules, which share ten colours, and nodes that are in none."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    found = np.unique(np.concatenate(labels))
    handles: list[Line2D | Patch] = []
    for first in range(10):
        same = [str(module) for module in found[found >= 0] if module % 10 == first]
        if same:
            name = f"module {', '.join(same[:3])}" + (", ..." if len(same) > 3 else "")
            handles.append(Patch(color=_colours(np.array([first]))[0], label=name))
    if (found < 0).any():
        handles.append(Patch(color=_GREY, label="no edge above the cutoff"))
    if edges and (found >= 0).sum() > 1:
        handles.append(Line2D([], [], color=_GREY, ls="dashed", lw=1, label="edge between modules"))
    figure.legend(handles=handles, fontsize=8, frameon=False, loc="outside right upper")


def _with_widths(cuts: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [f"{cut}\n{width} nodes" for cut, width in zip(cuts, widths, strict=True)]


def _title(partition: Partition | None, epsilons: Sequence[float], n_edges: int | None, hidden: int) -> str:
    parts = []
    if partition is not None:
        parts.append("one module" if partition.n_modules == 1 else f"{partition.n_modules} modules")
        parts.append(f"cost between modules {partition.edge_cost:.3g}")
    parts.append(f"epsilon {_range(epsilons)}")
    if n_edges is not None:
        parts.append(f"{n_edges:,} edges" + (f" ({hidden:,} weakest not drawn)" if hidden else ""))
    return ", ".join(parts)


def _range(values: Sequence[float]) -> str:
    """One number, or the least and the largest of those of the pairs of cuts."""
    least, largest = (f"{value:.3g}" for value in (min(values), max(values)))
    return least if least == largest else f"{least} to {largest}"
