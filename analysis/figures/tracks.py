"""Figure of modules over training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from ..modules.tracking import Tracking
from ..results import figure
from .style import INK, SMALL, beside, blank, capped, folded, heading, in_style, module_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_tracking"]


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
