"""Figure of modules over training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from ..modules.tracking import Tracking
from ..results import figure
from .style import folded, module_colours, title_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_tracking"]


@figure.register(Tracking)
def plot_tracking(tracking: Tracking) -> Figure:
    """Draw an alluvial diagram: checkpoints as columns, modules as bars coloured by track, flows of aligned nodes."""
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
            colour = module_colours(np.array([tracking.tracks[t][a]]))[0]
            axes.fill_between(x, lower, lower + height, color=colour, alpha=0.35, lw=0)
    for t, (part, tracks) in enumerate(zip(tracking.partitions, tracking.tracks, strict=True)):
        for module, track, (bottom, height) in zip(part.modules, tracks, bars[t], strict=True):
            colour = module_colours(np.array([track]))[0]
            axes.bar(t, height, 2 * _BAR, bottom, color=colour, edgecolor="white")
            axes.annotate(f"{module.size}", (t, bottom + height / 2), ha="center", va="center", fontsize=7)
    axes.set_xticks(range(count), [folded(name, 14) for name in tracking.names], fontsize=8)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    counts = {kind: sum(event.kind == kind for event in tracking.events) for kind in _EVENTS}
    events = [_counted(n, kind) for kind, n in counts.items() if n] or ["no events"]
    title = [f"{_counted(tracking.n_tracks, 'module')} over {_counted(count, 'checkpoint')}", *events, "numbers: nodes"]
    axes.set_title(title_lines(title, figure.get_figwidth()), fontsize=10)
    return figure


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
