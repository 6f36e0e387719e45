"""Figures of divisions beside one another: modules over training, and comparisons."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from ..comparison.comparison import Comparison, Pair
from ..comparison.distance import NetworkDistance
from ..modules.tracking import Tracking
from ..results import figure
from .style import INK, SMALL, beside, blank, capped, folded, heading, in_style, module_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .picture import Picture

__all__ = ["plot_comparison", "plot_distance", "plot_tracking"]

_MOST_MODULES = 30  # rows or columns, those with most nodes

_MOST_NUMBERS = 16  # columns up to which cells show their number of nodes

_LONGEST = 22  # characters of a name

_UPRIGHT = 7  # characters of a column's name up to which it is not turned


@figure.register(Tracking)
@in_style
def plot_tracking(tracking: Tracking, *, title: str | None = None) -> Figure:
    """Draw an alluvial diagram: checkpoints as columns, modules as bars coloured by track, flows of aligned nodes.

    Checkpoints stand at equal distances, named below. The numbers on the bars are those of nodes.
    """
    from matplotlib.patches import Patch

    count = len(tracking.names)
    figure = blank(float(np.clip(1.3 * count + 2.4, 5.0, 14.0)), 4.8)
    counts = {kind: sum(event.kind == kind for event in tracking.events) for kind in _EVENTS}
    events = [_counted(n, kind) for kind, n in counts.items() if n] or ["no events"]
    facts = [f"{_counted(tracking.n_tracks, 'module')} over {_counted(count, 'checkpoint')}", *events]
    heading(figure, [*facts, "numbers: nodes"], title)
    axes = figure.add_subplot()
    bars = [
        _bars(np.array([m.size for m in part.modules], dtype=float), np.argsort(tracks))
        for part, tracks in zip(tracking.partitions, tracking.tracks, strict=True)
    ]
    for t, flow in enumerate(tracking.flows):
        for a, left, right, height in _ribbons(flow, bars[t], bars[t + 1]):
            x = np.linspace(t + _BAR, t + 1 - _BAR, 40)
            bend = 3 * (s := (x - x[0]) / (x[-1] - x[0])) ** 2 - 2 * s**3
            lower = left + (right - left) * bend
            colour = module_colours(np.array([tracking.tracks[t][a]]))[0]
            axes.fill_between(x, lower, lower + height, color=colour, alpha=0.35, lw=0)
    highest = max(-bottom for column in bars for bottom, _ in column)
    for t, (part, tracks) in enumerate(zip(tracking.partitions, tracking.tracks, strict=True)):
        for module, track, (bottom, height) in zip(part.modules, tracks, bars[t], strict=True):
            colour = module_colours(np.array([track]))[0]
            axes.bar(t, height, 2 * _BAR, bottom, color=colour, edgecolor="white")
            if height > _LEAST_NAMED * highest:
                ink = "white" if colour[:3] @ (0.3, 0.6, 0.1) < 0.6 else INK
                axes.annotate(f"{module.size}", (t, bottom + height / 2), color=ink, **_NUMBER)
    _name_checkpoints(axes, tracking.names, figure.get_figwidth())
    found = np.arange(tracking.n_tracks)
    handles: list[Any] = [
        Patch(color=c, label=f"module {m}") for m, c in zip(found, module_colours(found), strict=True)
    ]
    beside(axes, capped(handles, "modules"))
    return figure


def _name_checkpoints(axes: Axes, names: Sequence[str], inches: float) -> None:
    """Name the checkpoints below their columns, by the numbers alone where all are steps; not all of very many."""
    steps = [re.fullmatch(r"step (\d+)", name) for name in names]
    short = [f"{int(found[1]):,}" if found else name for name, found in zip(names, steps, strict=True)]
    if all(steps):
        axes.set_xlabel("step")
    else:
        short = [folded(name, 14) for name in names]
    every = -(-len(names) // max(1, int(1.4 * inches)))
    axes.set_xticks(range(0, len(names), every), short[::every], parse_math=False)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)


_NUMBER: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SMALL}

_LEAST_NAMED = 0.03  # height of a bar that has room for its number

_EVENTS = ("split", "merge", "birth", "death")

_BAR = 0.09  # half width of a bar

_SPACE = 0.03  # gap between bars, as a share of the largest checkpoint


def _bars(sizes: Float[np.ndarray, " modules"], order: Int[np.ndarray, " modules"]) -> list[tuple[float, float]]:
    """Compute bottom and height of each module's bar, stacked from the top in the given order."""
    space = _SPACE * sizes.sum()
    tops = np.empty(len(sizes))
    tops[order] = -(np.cumsum(sizes[order] + space) - sizes[order] - space)
    return [(float(top - size), float(size)) for top, size in zip(tops, sizes, strict=True)]


def _ribbons(
    flow: Float[np.ndarray, "earlier later"],
    left: Sequence[tuple[float, float]],
    right: Sequence[tuple[float, float]],
) -> list[tuple[int, float, float, float]]:
    """Yield earlier module, lower ends on both sides, and height of every flow, stacked from the top of the bars."""
    used_left, used_right = np.zeros(len(left)), np.zeros(len(right))
    ribbons = []
    for a, b in zip(*np.nonzero(flow), strict=True):
        size = float(flow[a, b])
        used_left[a] += size
        used_right[b] += size
        ends = sum(left[a]) - used_left[a], sum(right[b]) - used_right[b]
        ribbons.append((int(a), float(ends[0]), float(ends[1]), size))
    return ribbons


def _counted(n: int, name: str) -> str:
    return f"{n} {name}{'' if n == 1 else 's'}"


@figure.register(Comparison)
@in_style
def plot_comparison(comparison: Comparison, *, title: str | None = None) -> Figure:
    """Draw the overlap of the modules of two divisions; of more divisions, the AMI of each pair.

    Overlap: a cell has the number of nodes in both modules, its colour is their Jaccard overlap, and matched modules
    stand on the diagonal. Of many modules the largest are drawn.
    """
    return _overlap(comparison.pairs[0], title) if len(comparison.pairs) == 1 else _every_pair(comparison, title)


def _overlap(pair: Pair, title: str | None) -> Figure:
    rows, columns = _order(pair)
    drawn, share = pair.overlap[np.ix_(rows, columns)], pair.jaccard[np.ix_(rows, columns)]
    names = [
        _named(pair.first_modules, pair.overlap.sum(1), rows),
        _named(pair.second_modules, pair.overlap.sum(0), columns),
    ]
    margins = [0.075 * max(map(len, part)) for part in names]
    size = 0.42 if len(columns) <= _MOST_NUMBERS else 0.24
    picture = blank(max(4.8, size * len(columns) + margins[0] + 1.9), max(2.2, size * len(rows)) + margins[1] + 1.4)
    facts = [pair.verdict, f"AMI {pair.ami:.3f} ({pair.ami_by_chance:.3f} by chance)", f"ARI {pair.ari:.3f}"]
    facts += [f"p {pair.p_value:.2g}", f"{pair.n_nodes:,} nodes"]
    if hidden := sum(pair.overlap.shape) - len(rows) - len(columns):
        facts.append(f"{hidden:,} smaller modules not drawn")
    heading(picture, facts, title)
    axes = picture.subplots()
    _cells(picture, axes, share, "Jaccard overlap")
    if len(columns) <= _MOST_NUMBERS:
        _write(axes, [[f"{n:,}" if n else "" for n in row] for row in drawn.tolist()], share)
    _name_sides(axes, *names)
    axes.set_xlabel(f"modules of {_short(pair.second)} (nodes)")
    axes.set_ylabel(f"modules of {_short(pair.first)} (nodes)")
    return picture


def _every_pair(comparison: Comparison, title: str | None) -> Figure:
    names, n = [_short(name) for name in comparison.names], len(comparison.names)
    values, texts = np.full((n, n), np.nan), [[""] * n for _ in range(n)]
    for pair in comparison.pairs:
        i, j = comparison.names.index(pair.first), comparison.names.index(pair.second)
        values[i, j] = values[j, i] = pair.ami
        texts[i][j] = texts[j][i] = f"{pair.ami:.2f}\np {pair.p_value:.2g}"
    margin = 0.075 * max(map(len, names))
    picture = blank(max(4.8, 0.62 * n + margin + 1.9), max(2.0, 0.62 * n) + margin + 1.2)
    heading(picture, [comparison.verdict, f"{comparison.n_permutations:,} permutations within cuts"], title)
    axes = picture.subplots()
    _cells(picture, axes, values, "adjusted mutual information")
    _write(axes, texts, values)
    _name_sides(axes, names, names)
    return picture


@figure.register(NetworkDistance)
@in_style
def plot_distance(distance: NetworkDistance, *, title: str | None = None) -> Figure:
    """Draw the distance of each network from each other one: of KL from that of the row, on data and held-out data."""
    names, n = [_short(name) for name in distance.names], len(distance.names)
    parts = [("on data", distance.data), ("on held-out data", distance.held_out)]
    drawn = [(what, found) for what, found in parts if found is not None]
    margin = 0.075 * max(map(len, names))
    width = max(3.6, 0.62 * n + margin + 1.6)
    picture = blank(max(4.8, width * len(drawn)), max(2.0, 0.62 * n) + margin + 1.4)
    what = "squared distance" if distance.loss == "mse" else "KL divergence from row to column"
    facts = [f"mean {found.mean:.3g} +- {found.standard_error or 0.0:.1g} {where}" for where, found in drawn]
    heading(picture, [what, *facts], title)
    most = max(float(found.matrix.max()) for _, found in drawn) or 1.0
    for axes, (where, found) in zip(np.ravel(picture.subplots(1, len(drawn))), drawn, strict=True):
        values = np.where(np.eye(n, dtype=bool), np.nan, found.matrix)
        _cells(picture, axes, values, f"distance {where}", most)
        _write(axes, [[f"{v:.2g}" if v == v else "" for v in row] for row in values.tolist()], values / most)
        _name_sides(axes, names, names)
    return picture


def _order(pair: Pair) -> tuple[list[int], list[int]]:
    """Return rows and columns to draw: matched modules first, each beside its match; only the largest of many."""
    chosen = [_largest(pair.overlap.sum(axis)) for axis in (1, 0)]
    number = [{name: i for i, name in enumerate(part)} for part in (pair.first_modules, pair.second_modules)]
    matched = [(number[0][m.first], number[1][m.second]) for m in pair.matches]
    matched = [(k, m) for k, m in matched if k in chosen[0] and m in chosen[1]]
    rows, columns = [k for k, _ in matched], [m for _, m in matched]
    return [*rows, *(k for k in chosen[0] if k not in rows)], [*columns, *(m for m in chosen[1] if m not in columns)]


def _largest(sizes: Int[np.ndarray, " k"]) -> list[int]:
    return sorted(np.argsort(-sizes, kind="stable")[:_MOST_MODULES].tolist())


def _named(modules: Sequence[str], sizes: Int[np.ndarray, " k"], shown: Sequence[int]) -> list[str]:
    return [f"{_short(modules[i])} ({sizes[i]:,})" for i in shown]


def _short(name: str) -> str:
    """Leave out the middle of a long name."""
    line = " ".join(name.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 9]}…{line[-8:]}"


def _cells(picture: Picture, axes: Axes, values: Float[np.ndarray, "k l"], label: str, most: float = 1.0) -> None:
    image = axes.imshow(values, cmap="Blues", vmin=0.0, vmax=most, aspect="auto")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    picture.colorbar(image, ax=axes, label=label, shrink=0.9)


def _name_sides(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    upright = len(columns) > _MOST_NUMBERS or max(map(len, columns)) > _UPRIGHT
    axes.set_xticks(range(len(columns)), columns, rotation=90 * upright, fontsize=SMALL, parse_math=False)
    axes.set_yticks(range(len(rows)), rows, fontsize=SMALL, parse_math=False)


def _write(axes: Axes, texts: Sequence[Sequence[str]], values: Float[np.ndarray, "k l"]) -> None:
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            colour = "white" if values[i, j] > 0.6 else "black"
            axes.text(j, i, text, ha="center", va="center", fontsize=SMALL, color=colour, parse_math=False)
