"""Figures of the parameter ledger and of synchronised units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ..degeneracy.ledger import Ledger
from ..degeneracy.synchronised_units import SynchronisedUnits
from ..results import figure
from .style import GREY, INK, beside, blank, capped, heading, in_style

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_ledger", "plot_synchronisation"]


@figure.register(Ledger)
@in_style
def plot_ledger(ledger: Ledger, *, title: str | None = None) -> Figure:
    """Draw a waterfall from the number of parameters to the effective ones: each cause subtracts its share, by layer.

    Shades are layers, from the first (dark) to the last (light). Where the rank of the Hessian is only bounded, what
    lies between the bounds is hatched: it is effective or unexplained.
    """
    from matplotlib import colormaps
    from matplotlib.ticker import StrMethodFormatter

    rows = ledger.rows()
    figure = blank(10.0, 4.2)
    most = {"exact": "", "lanczos": "About ", "sampled": "At most "}[ledger.hessian.method]
    facts = [f"{most}{ledger.effective:,} of {ledger.nominal:,} parameters are effective"]
    if not ledger.hessian.exact:
        facts.append(f"at least {ledger.hessian.lower:,}")
    facts.append("no loss scale" if ledger.epsilon is None else f"loss scale {ledger.epsilon:.3g}")
    heading(figure, facts, title)
    axes = figure.add_subplot()
    shades = colormaps["viridis"](np.linspace(0.15, 0.9, len(ledger.layers)))
    top = ledger.nominal
    for x, (name, total) in enumerate(rows[:-1]):
        level = ledger.nominal if name == "nominal" else top
        for share, colour in _shares(ledger, name, total, shades):
            axes.bar(x, share, bottom=level - share, color=colour, width=_WIDTH)
            level -= share
        if x:
            axes.plot([x - _WIDTH / 2, x + 1 + _WIDTH / 2], [level, level], color=GREY, lw=0.7)
        axes.annotate(_count(ledger, name, total), (x, max(top, level)), (0, 3), **_ABOVE)
        top = level if x else top
    _draw_effective(axes, ledger, len(rows) - 1)
    axes.set_xticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(0, 1.08 * ledger.nominal)
    axes.set_ylabel("parameters")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    _layer_legend(axes, ledger, shades)
    return figure


_WIDTH = 0.72  # of a bar

_ABOVE: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 8.5}

_UNKNOWN: dict[str, Any] = {"facecolor": "white", "edgecolor": "#6b6b6b", "hatch": "////", "linewidth": 0.6}


def _shares(ledger: Ledger, name: str, total: int, shades: Float[np.ndarray, "layers rgba=4"]) -> list[tuple[int, Any]]:
    """Return the parts of a row and their colours: one a layer, or grey where layers are not told apart."""
    if name == "unexplained" or not ledger.layers:
        return [(total, GREY)]
    field = {"Jacobians": "jacobians", "synchronisation": "synchronised"}.get(name, name)
    return [(getattr(layer, field), shade) for layer, shade in zip(ledger.layers, shades, strict=True)]


def _count(ledger: Ledger, name: str, total: int) -> str:
    if name == "unexplained" and ledger.hessian.method == "sampled":
        return f"at least {total:,}" if total else "not known"
    return f"-{total:,}" if name != "nominal" and total > 0 else f"{abs(total):,}"


def _draw_effective(axes: Axes, ledger: Ledger, x: int) -> None:
    """Draw the last bar up to the lower bound of the rank, and hatch what is unknown there and in the bar before."""
    lower, upper = ledger.hessian.lower, ledger.hessian.upper
    known = ledger.effective if ledger.hessian.exact else lower
    axes.bar(x, known, color=INK, width=_WIDTH)
    if not ledger.hessian.exact and upper > lower:
        for place in (x - 1, x):
            axes.bar(place, upper - lower, bottom=lower, width=_WIDTH, zorder=0, **_UNKNOWN)
        axes.plot([x - _WIDTH / 2, x + _WIDTH / 2], [ledger.effective] * 2, color=INK, lw=1.5)
    axes.annotate(f"{ledger.effective:,}", (x, max(ledger.effective, upper)), (0, 3), **_ABOVE)


def _layer_legend(axes: Axes, ledger: Ledger, shades: Float[np.ndarray, "layers rgba=4"]) -> None:
    """Name the shade of each layer, and what is hatched where something is."""
    from matplotlib.patches import Patch

    layers: list[Artist] = [
        Patch(color=shade, label=f"{layer.name} ({layer.n_inputs} to {layer.n_outputs})")
        for layer, shade in zip(ledger.layers, shades, strict=True)
    ]
    handles = capped(layers, "layers")
    if not ledger.hessian.exact:
        handles.append(Patch(**_UNKNOWN, label="not known: effective or unexplained"))
    beside(axes, handles)


@figure.register(SynchronisedUnits)
@in_style
def plot_synchronisation(units: SynchronisedUnits, *, title: str | None = None) -> Figure:
    """Draw distances between firing patterns, relative to the units' power, sorted by block; blocks are framed."""
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    order = [i for block in units.blocks for i in block] + list(units.dead)
    power = np.maximum(units.power, np.finfo(float).tiny)
    share = units.distances / np.maximum(power[:, None], power[None])
    on = 0 if units.always_on is None else len(units.blocks[units.always_on])
    figure = blank(5.6, 5.0)
    facts = [f"{units.layer}: {len(order)} units in {len(units.blocks)} blocks", f"{on} always on (cyan)"]
    heading(figure, [*facts, f"{len(units.dead)} dead (red)"], title)
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
    axes.set_xlabel("unit, sorted by block")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure
