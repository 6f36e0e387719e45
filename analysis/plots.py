"""Figures of results: the layered graph with modules in colour, and module membership by cut and coordinate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from .cost import interaction_cost
from .graph import InteractionGraph
from .partition import Partition, default_epsilon

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_graph", "plot_membership"]

_GREY = "#9a9a9a"
_MAX_EDGES = 4000
_WEAK = 0.15  # opacity of the weakest edge shown


def plot_graph(graph: InteractionGraph, partition: Partition | None = None, epsilon: float | None = None) -> Figure:
    """Cuts as columns, nodes as dots (area: importance), edges above the cutoff as lines (opacity: cost c(w)).

    With a partition nodes are sorted and coloured by module; edges inside a module take its colour, edges between
    modules are grey and dashed. Only the strongest 4,000 edges of each pair of cuts are drawn, which the title says.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    if epsilon is None:
        epsilon = partition.epsilon if partition is not None else default_epsilon(graph)
    labels = partition.labels if partition is not None else tuple(np.zeros(k, int) for k in graph.widths)
    heights = [_heights(a) for a in labels]
    figure = Figure(figsize=(2.2 * len(graph.cuts) + 1.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    hidden = 0
    for p, block in enumerate(graph.blocks):
        cost = interaction_cost(block, epsilon)
        later, earlier = np.nonzero(cost)
        order = np.argsort(-cost[later, earlier], kind="stable")
        hidden += max(0, len(order) - _MAX_EDGES)
        later, earlier = later[order[:_MAX_EDGES]], earlier[order[:_MAX_EDGES]]
        inside = labels[p][earlier] == labels[p + 1][later]
        opacity = _WEAK + (1 - _WEAK) * cost[later, earlier] / max(cost.max(initial=0.0), 1e-300)
        ends = np.stack(
            [
                np.stack([np.full(len(earlier), float(p)), heights[p][earlier]], 1),
                np.stack([np.full(len(later), p + 1.0), heights[p + 1][later]], 1),
            ],
            1,
        )
        for shown, style in ((~inside, "dashed"), (inside, "solid")):
            if not shown.any():
                continue
            colours = _colours(np.where(inside, labels[p][earlier], -1)[shown])
            axes.add_collection(
                LineCollection(list(ends[shown]), colors=colours, alpha=list(opacity[shown]), linestyles=style, lw=1)
            )
    for p, importance in enumerate(graph.importance):
        area = 12 + 60 * np.sqrt(importance / max(importance.max(initial=0.0), 1e-300))
        axes.scatter(np.full(len(importance), p), heights[p], area, _colours(labels[p]), zorder=3)
    axes.set_xticks(range(len(graph.cuts)), _with_widths(graph.cuts, graph.widths))
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(_title(partition, epsilon, graph.n_edges(epsilon), hidden), fontsize=10)
    return figure


def plot_membership(partition: Partition) -> Figure:
    """Cuts as columns, coordinates (most important first) as cells in the colour of their module; grey: no edge."""
    from matplotlib.figure import Figure

    deepest = max(map(len, partition.labels))
    figure = Figure(figsize=(1.3 * len(partition.cuts) + 1.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    picture = np.ones((deepest, len(partition.cuts), 4))
    for p, label in enumerate(partition.labels):
        picture[: len(label), p] = _colours(label)
    axes.imshow(picture, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(partition.cuts)), _with_widths(partition.cuts, [len(a) for a in partition.labels]))
    axes.set_ylabel("coordinate")
    axes.set_title(_title(partition, partition.epsilon, None, 0), fontsize=10)
    return figure


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


def _with_widths(cuts: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [f"{cut}\n{width} nodes" for cut, width in zip(cuts, widths, strict=True)]


def _title(partition: Partition | None, epsilon: float, n_edges: int | None, hidden: int) -> str:
    parts = []
    if partition is not None:
        parts.append("one module" if partition.n_modules == 1 else f"{partition.n_modules} modules")
        parts.append(f"cost between modules {partition.edge_cost:.3g}")
    parts.append(f"epsilon {epsilon:.3g}")
    if n_edges is not None:
        parts.append(f"{n_edges:,} edges" + (f" ({hidden:,} weakest not drawn)" if hidden else ""))
    return ", ".join(parts)
