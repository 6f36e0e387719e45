"""Figures of the interaction graph: the layered graph, membership in modules, and the strengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from ..errors import GraphError
from ..graph.cost import Epsilon, interaction_cost, loss_scales
from ..graph.interaction_graph import InteractionGraph
from ..graph.loss_scale import default_epsilon, strength_distribution
from ..modules.partition import Partition
from ..results import figure
from .style import _range, graph_title, module_colours, module_legend, title_lines, with_widths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_graph", "plot_membership", "plot_strengths"]

_MAX_EDGES = 4000

_WEAK = 0.15  # opacity of the weakest edge shown


@figure.register(InteractionGraph)
def plot_graph(graph: InteractionGraph, partition: Partition | None = None, epsilon: Epsilon | None = None) -> Figure:
    """Draw cuts as columns, nodes as dots (area: importance), edges above the cutoff as lines (opacity: c(w)).

    With a partition nodes are sorted and coloured by module; edges inside a module take its colour, edges between
    modules are grey and dashed. Only the strongest 4,000 edges of each pair of cuts are drawn; the title says so.
    """
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
    for k in range(len(graph.pairs)):
        _draw_edges(axes, graph, k, interaction_cost(graph.blocks[k], scales[k]), labels, heights)
    n_edges = [int(np.count_nonzero(interaction_cost(w, e))) for w, e in zip(graph.blocks, scales, strict=True)]
    hidden = sum(max(0, count - _MAX_EDGES) for count in n_edges)
    for p, importance in enumerate(graph.importance):
        area = 12 + 60 * np.sqrt(importance / max(importance.max(initial=0.0), 1e-300))
        axes.scatter(np.full(len(importance), p), heights[p], area, module_colours(labels[p]), zorder=3)
    axes.set_xticks(range(len(graph.cuts)), with_widths(graph.cuts, graph.widths, 26))
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    title = graph_title(partition, scales, sum(n_edges), hidden)
    axes.set_title(title_lines(title, 2.2 * len(graph.cuts)), fontsize=10)
    if partition is not None:
        module_legend(figure, labels, edges=True)
    return figure


def _draw_edges(
    axes: Axes,
    graph: InteractionGraph,
    pair: int,
    cost: Float[np.ndarray, "j i"],
    labels: Sequence[Int[np.ndarray, " _"]],
    heights: Sequence[Float[np.ndarray, " _"]],
) -> None:
    """Draw the strongest edges of a pair of cuts: solid in the colour of a module, dashed between modules."""
    from matplotlib.collections import LineCollection

    a, b = graph.pairs[pair]
    later, earlier = np.nonzero(cost)
    order = np.argsort(-cost[later, earlier], kind="stable")[:_MAX_EDGES]
    later, earlier = later[order], earlier[order]
    inside = labels[a][earlier] == labels[b][later]
    opacity = _WEAK + (1 - _WEAK) * cost[later, earlier] / max(cost.max(initial=0.0), 1e-300)
    starts = np.stack([np.full(len(earlier), float(a)), heights[a][earlier]], 1)
    ends = np.stack([np.full(len(later), float(b)), heights[b][later]], 1)
    lines = np.stack([starts, ends], 1)
    for shown, style in ((~inside, "dashed"), (inside, "solid")):
        if shown.any():
            colours = module_colours(np.where(inside, labels[a][earlier], -1)[shown])
            edges, strength = list(lines[shown]), list(opacity[shown])
            drawn = LineCollection(edges, colors=colours, alpha=strength, linestyles=style, lw=1)
            axes.add_collection(drawn)


def plot_membership(partition: Partition) -> Figure:
    """Draw cuts as columns and coordinates (most important first) as cells in the colour of their module."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    deepest = max(map(len, partition.labels))
    figure = Figure(figsize=(1.3 * len(partition.cuts) + 2.0, 5.5), layout="constrained")
    axes = figure.add_subplot()
    picture = np.ones((deepest, len(partition.cuts), 4))
    for p, label in enumerate(partition.labels):
        picture[: len(label), p] = module_colours(label)
    axes.imshow(picture, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(partition.cuts)), with_widths(partition.cuts, [len(a) for a in partition.labels], 15))
    axes.set_ylabel("coordinate")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    title = graph_title(partition, partition.epsilons)
    axes.set_title(title_lines(title, 1.3 * len(partition.cuts) - 0.2), fontsize=10)
    module_legend(figure, partition.labels, edges=False)
    return figure


def plot_strengths(graph: InteractionGraph, epsilon: Epsilon | None = None) -> Figure:
    """Draw the distribution of the strengths, the share of w^2 carried by those up to w, and the cutoffs sqrt(epsilon).

    If no epsilon is given, the one read off the graph is shown; with one per pair of cuts each has a line.
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
    title = [f"cutoff {_range(cutoffs)} (dashed)", f"epsilon {_range(scales)}", f"{edges:,} edges above"]
    axes.set_title(title_lines(title, 5.5), fontsize=10)
    return figure


def _heights(labels: Int[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Order nodes from top to bottom by module, nodes without one last, in a module in their own order."""
    order = np.lexsort((np.arange(len(labels)), np.where(labels < 0, labels.max(initial=0) + 1, labels)))
    heights = np.empty(len(labels))
    heights[order] = 1 - (np.arange(len(labels)) + 0.5) / len(labels)
    return heights
