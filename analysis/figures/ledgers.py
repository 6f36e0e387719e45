"""Figures of the parameter ledger and of synchronised units."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ..degeneracy.ledger import Ledger
from ..degeneracy.synchronised_units import SynchronisedUnits
from ..results import figure
from .style import GREY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_ledger", "plot_synchronisation"]


@figure.register(Ledger)
def plot_ledger(ledger: Ledger) -> Figure:
    """Draw a waterfall from the number of parameters to the effective ones: each cause subtracts its share, by layer.

    Shades are layers, from the first (dark) to the last (light). Where the rank of the Hessian is only bounded, a line
    on the last bar extends down to the lower bound.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    rows = ledger.rows()
    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    shades = colormaps["viridis"](np.linspace(0.15, 0.9, len(ledger.layers)))
    top = ledger.nominal
    for x, (name, total) in enumerate(rows):
        field = {"Jacobians": "jacobians", "synchronisation": "synchronised"}.get(name, name)
        if name in ("unexplained", "effective"):
            shares = [(total, GREY if name == "unexplained" else "#2b2b2b")]
        else:
            shares = [(getattr(layer, field), shade) for layer, shade in zip(ledger.layers, shades, strict=True)]
            shares = shares or [(total, GREY)]  # counted without layers
        level = ledger.nominal if name == "nominal" else top
        for share, colour in shares:
            axes.bar(x, share, bottom=level - share if name != "effective" else 0, color=colour, width=0.72)
            level -= share
        if 0 < x < len(rows) - 1:
            axes.plot([x - 0.36, x + 1.36], [level, level], color=GREY, lw=0.7)
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
    _layer_legend(figure, ledger, shades)
    scale = "exact ranks" if ledger.epsilon is None else f"loss scale {ledger.epsilon:.3g}"
    most = {"exact": "", "lanczos": "About ", "sampled": "At most "}[ledger.hessian.method]
    title = f"{most}{ledger.effective:,} of {ledger.nominal:,} parameters are effective ({scale})"
    axes.set_title(title, fontsize=10)
    return figure


def _layer_legend(figure: Figure, ledger: Ledger, shades: Float[np.ndarray, "layers rgba=4"]) -> None:
    """Name the shade of each layer, and the line of the bounds where there is one."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Patch | Line2D] = [
        Patch(color=shade, label=f"{layer.name} ({layer.n_inputs} to {layer.n_outputs})")
        for layer, shade in zip(ledger.layers, shades, strict=True)
    ]
    if not ledger.hessian.exact:
        handles.append(Line2D([], [], color="tab:orange", lw=2, label="rank of the Hessian, bounds"))
    if handles:
        figure.legend(handles=handles, fontsize=8, frameon=False, loc="outside right upper")


@figure.register(SynchronisedUnits)
def plot_synchronisation(units: SynchronisedUnits) -> Figure:
    """Draw distances between firing patterns, relative to the units' power, sorted by block; blocks are framed."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

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
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure
