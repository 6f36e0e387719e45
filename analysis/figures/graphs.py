"""Figures of the interaction graph: the layered graph, membership in modules, and the strengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..edges import Edges
from ..errors import GraphError
from ..graph.cost import Epsilon, costs_of, loss_scales
from ..graph.interaction_graph import InteractionGraph
from ..graph.loss_scale import default_epsilon, strength_distribution
from ..modules.partition import Partition
from ..results import by_value, figure
from .style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    SMALL,
    blank,
    graph_facts,
    heading,
    in_style,
    module_colours,
    module_legend,
    shown_range,
    with_widths,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ShownNodes", "node_names", "plot_graph", "plot_membership", "plot_strengths", "shown_nodes"]

_MAX_EDGES = 4000

_WEAK = 0.15  # opacity of the weakest edge shown

_WIDEST = 20.0  # inches for all cuts

_STEPS = (0.75, 2.1)  # inches from cut to cut

_NAMED = 1.5  # step above which the nodes of all cuts are named, else those of the first and the last

_ROOM = 12.4  # characters an inch

_BESIDE = 1.8  # inches for the names of the last cut where cuts are close

_GAP = 0.6  # between two modules, in units of the distance of nodes


@by_value
@dataclass(frozen=True)
class ShownNodes:
    """What the figures of a graph show at each cut.

    Attributes:
        scales: loss scale of each pair of cuts.
        costs: interaction costs of the edges above the cutoff.
        labels: module of each node, -1 for none.
        shown: whether a node is drawn: it has an edge above the cutoff, or a module.
        heights: height of each node between 0 and 1; a module has the same range of heights at all cuts.
    """

    scales: tuple[float, ...]
    costs: Edges
    labels: tuple[Int[np.ndarray, " _"], ...]
    shown: tuple[Bool[np.ndarray, " _"], ...]
    heights: tuple[Float[np.ndarray, " _"], ...]

    @property
    def hidden(self) -> list[int]:
        """The number of nodes at each cut that are not drawn."""
        return [int((~shown).sum()) for shown in self.shown]

    def strongest(self, graph: InteractionGraph, pair: int, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return earlier and later node and cost of the strongest edges of a pair of cuts, the strongest first."""
        part = slice(*self.costs.starts[pair : pair + 2].tolist())
        order = np.argsort(-self.costs.weight[part], kind="stable")[:most]
        ends = (self.costs.earlier[part], self.costs.later[part])
        earlier, later = (nodes[order] - own.start for nodes, own in zip(ends, graph.pair_slices[pair], strict=True))
        return earlier, later, self.costs.weight[part][order]

    def too_many(self, most: int) -> int:
        """Count the edges beyond the strongest so many of each pair of cuts."""
        return int(np.maximum(np.diff(self.costs.starts) - most, 0).sum())

    @property
    def grey(self) -> bool:
        """Whether a node without a module is drawn."""
        return any(bool((shown & (a < 0)).any()) for shown, a in zip(self.shown, self.labels, strict=True))


def shown_nodes(graph: InteractionGraph, partition: Partition | None, epsilon: Epsilon | None) -> ShownNodes:
    """Choose the nodes that figures of a graph show, and their heights.

    Raises:
        GraphError: the partition is of another graph, or a loss scale makes no sense.
    """
    if partition is not None and tuple(map(len, partition.labels)) != graph.widths:
        widths = tuple(map(len, partition.labels))
        raise GraphError(
            f"the partition is of another graph: it has {widths} nodes at the cuts, this one {graph.widths}"
        )
    if epsilon is None:
        epsilon = partition.epsilons if partition is not None else default_epsilon(graph)
    scales = loss_scales(graph, epsilon)
    costs = costs_of(graph.edge_list, scales, graph.unit)
    flat = np.zeros(graph.n_nodes, dtype=bool)
    flat[costs.earlier] = flat[costs.later] = True
    joined = [flat[nodes] for nodes in graph.cut_slices]
    labels = partition.labels if partition is not None else tuple(np.where(found, 0, -1) for found in joined)
    shown = tuple(found | (label >= 0) for found, label in zip(joined, labels, strict=True))
    return ShownNodes(tuple(scales), costs, tuple(labels), shown, _heights(labels, shown))


@figure.register(InteractionGraph)
@in_style
def plot_graph(
    graph: InteractionGraph,
    partition: Partition | None = None,
    epsilon: Epsilon | None = None,
    *,
    title: str | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """Draw cuts as columns, nodes as dots (area: importance), edges above the cutoff as lines (opacity: c(w)).

    With a partition nodes are sorted and coloured by module; edges inside a module take its colour, edges between
    modules are grey and dashed. Nodes without an edge are counted below their cut. Only the strongest 4,000 edges of
    each pair of cuts are drawn; the heading says so.

    Args:
        graph: the graph.
        partition: its modules.
        epsilon: loss scale, one or one per pair of cuts; default that of the partition, else read off the graph.
        title: title, for example model and step.
        names: names of the nodes by cut; where a cut has the network's own outputs as nodes, default their numbers.
    """
    found = shown_nodes(graph, partition, epsilon)
    labels = found.labels
    shown_names = node_names(graph, names or {})
    columns = max(int(shown.sum()) for shown in found.shown)
    step = float(np.clip(_WIDEST / len(graph.cuts), *_STEPS))
    figure = blank(
        step * len(graph.cuts) + 1.6, float(np.clip(0.17 * columns + 1.6, 3.4, 8.0 if step > _NAMED else 12.0))
    )
    heading(figure, graph_facts(partition, found.scales, len(found.costs), found.too_many(_MAX_EDGES)), title)
    axes = figure.add_subplot()
    for k in range(len(graph.pairs)):
        _draw_edges(axes, graph, k, found)
    least = min(1.0, 30 / max(columns, 1))
    for p, (importance, shown) in enumerate(zip(graph.importance, found.shown, strict=True)):
        area = least * (14 + 56 * np.sqrt(importance / max(importance.max(initial=0.0), 1e-300)))
        at, colours = np.full(int(shown.sum()), p), module_colours(labels[p][shown])
        axes.scatter(
            at, found.heights[p][shown], area[shown], colours, edgecolors="white", linewidths=0.4 * least**2, zorder=3
        )
        if step > _NAMED or p in (0, len(graph.cuts) - 1):
            _name_nodes(axes, p, found, shown_names.get(graph.cuts[p], ()), left=p == 0 < len(graph.cuts) - 1)
    room = round(_ROOM * step)
    axes.set_xticks(range(len(graph.cuts)), with_widths(graph.cuts, graph.widths, room, found.hidden))
    beside = _BESIDE / step if step <= _NAMED and graph.cuts[-1] in shown_names else 0.25
    axes.set_xlim(-0.25, len(graph.cuts) - 1 + beside)
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)
    if partition is not None:
        flat = np.concatenate(labels)
        between = partition.n_modules > 1 and bool((flat[found.costs.earlier] != flat[found.costs.later]).any())
        module_legend(axes, labels, grey=found.grey, between=between)
    return figure


def node_names(graph: InteractionGraph, names: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Return the names of nodes by cut; nodes that are the network's own outputs are called by their numbers.

    Raises:
        GraphError: names of a cut that does not exist, or not one for each node.
    """
    for cut, given in names.items():
        if cut not in graph.cuts:
            raise GraphError(f"names were given for the cut {cut!r}: expected some of {', '.join(graph.cuts)}")
        if len(given) != (width := graph.widths[graph.cuts.index(cut)]):
            raise GraphError(f"{len(given)} names were given for the {width} nodes of {cut}")
    last = graph.cuts[-1]
    own = {last: [str(i) for i in range(graph.widths[-1])]} if graph.settings.get("output") == "neuron" else {}
    return {**own, **names}


def _name_nodes(axes: Axes, p: int, found: ShownNodes, names: Sequence[str], *, left: bool) -> None:
    """Write the names of the nodes of a cut beside their dots."""
    side: dict[str, Any] = {"xytext": (-7, 0), "ha": "right"} if left else {"xytext": (7, 0)}
    for i in np.flatnonzero(found.shown[p]).tolist() if names else ():
        at = (p, found.heights[p][i])
        text = axes.annotate(str(names[i]), at, textcoords="offset points", va="center", fontsize=SMALL, **side)
        text.set_parse_math(False)


def _draw_edges(axes: Axes, graph: InteractionGraph, pair: int, found: ShownNodes) -> None:
    """Draw the strongest edges of a pair of cuts: solid in the colour of a module, dashed between modules."""
    from matplotlib.collections import LineCollection

    a, b = graph.pairs[pair]
    labels, heights = found.labels, found.heights
    earlier, later, cost = found.strongest(graph, pair, _MAX_EDGES)
    inside = labels[a][earlier] == labels[b][later]
    opacity = _WEAK + (1 - _WEAK) * cost / max(cost.max(initial=0.0), 1e-300)
    opacity *= min(1.0, (600 / max(len(cost), 1)) ** 0.5)  # so that many lines do not become one surface
    starts = np.stack([np.full(len(earlier), float(a)), heights[a][earlier]], 1)
    ends = np.stack([np.full(len(later), float(b)), heights[b][later]], 1)
    lines = np.stack([starts, ends], 1)
    for kept, style in ((~inside, "dashed"), (inside, "solid")):
        if kept.any():
            colours = module_colours(np.where(inside, labels[a][earlier], -1)[kept])
            edges, strength = list(lines[kept]), list(opacity[kept])
            axes.add_collection(LineCollection(edges, colors=colours, alpha=strength, linestyles=style, lw=1))


def _heights(
    labels: Sequence[Int[np.ndarray, " _"]], shown: Sequence[Bool[np.ndarray, " _"]]
) -> tuple[Float[np.ndarray, " _"], ...]:
    """Place the nodes of each module in a range of heights that it has at every cut, those without one below.

    A range is as high as its module has nodes at the cut where it has most; in it nodes keep their own order.
    """
    kept = [label[drawn] for label, drawn in zip(labels, shown, strict=True)]
    found = np.unique(np.concatenate(kept))
    order = [*found[found >= 0].tolist(), *([-1] if -1 in found else [])]
    room = {module: max(int((label == module).sum()) for label in kept) for module in order}
    total = sum(room.values()) + _GAP * max(len(order) - 1, 0)
    top = dict(zip(order, np.cumsum([0.0, *(room[module] + _GAP for module in order[:-1])]), strict=False))
    places = []
    for label, drawn in zip(labels, shown, strict=True):
        heights = np.zeros(len(label))
        for module in order:
            here = np.flatnonzero((label == module) & drawn)
            step = room[module] / max(len(here), 1)
            heights[here] = 1 - (top[module] + step * (np.arange(len(here)) + 0.5)) / total
        places.append(heights)
    return tuple(places)


@in_style
def plot_membership(partition: Partition, *, title: str | None = None) -> Figure:
    """Draw cuts as columns and coordinates (most important first) as cells in the colour of their module.

    A column ends with its last node in a module; nodes in none are counted below their cut.
    """
    from matplotlib.ticker import MaxNLocator

    ends = [int(np.flatnonzero(label >= 0).max(initial=-1)) + 1 for label in partition.labels]
    deepest = max(1, *ends)
    step = float(np.clip(_WIDEST / len(partition.cuts), _STEPS[0], 1.25))
    figure = blank(step * len(partition.cuts) + 2.2, float(np.clip(0.17 * deepest + 1.6, 3.0, 7.0)))
    heading(figure, graph_facts(partition, partition.epsilons), title)
    axes = figure.add_subplot()
    picture = np.ones((deepest, len(partition.cuts), 4))
    for p, (label, end) in enumerate(zip(partition.labels, ends, strict=True)):
        picture[:end, p] = module_colours(label[:end])
    axes.imshow(picture, aspect="auto", interpolation="nearest")
    axes.set_xticks(np.arange(1, len(partition.cuts)) - 0.5, minor=True)
    axes.grid(which="minor", axis="x", color="white", lw=3)
    axes.tick_params(axis="x", which="both", length=0)
    widths = [len(label) for label in partition.labels]
    hidden = [int((label < 0).sum()) for label in partition.labels]
    axes.set_xticks(range(len(partition.cuts)), with_widths(partition.cuts, widths, round(_ROOM * step), hidden))
    axes.set_ylabel("coordinate")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.spines[:].set_visible(False)
    grey = any(bool((label[:end] < 0).any()) for label, end in zip(partition.labels, ends, strict=True))
    module_legend(axes, partition.labels, grey=grey, between=False)
    return figure


@in_style
def plot_strengths(graph: InteractionGraph, epsilon: Epsilon | None = None, *, title: str | None = None) -> Figure:
    """Draw the distribution of the strengths, the share of w^2 carried by those up to w, and the cutoffs sqrt(epsilon).

    If no epsilon is given, the one read off the graph is shown; with one per pair of cuts each has a line.
    """
    found = strength_distribution(graph.blocks)
    scales = loss_scales(graph, found.cutoff**2 if epsilon is None else epsilon)
    cutoffs = [found.cutoff] * len(scales) if epsilon is None else np.sqrt(scales).tolist()
    edges = sum(int((block > cutoff).sum()) for block, cutoff in zip(graph.blocks, cutoffs, strict=True))
    figure = blank(6.4, 4.2)
    facts = [f"cutoff {shown_range(cutoffs)} (dashed)", f"epsilon {shown_range(scales)}", f"{edges:,} edges above"]
    heading(figure, facts, title)
    axes = figure.add_subplot()
    w = 10**found.log10
    axes.plot(w, found.density, color=BLUE)
    axes.set_ylabel("density of strengths per decade", color=BLUE)
    axes.set_xlabel("strength w")
    axes.set_xscale("log")
    for cutoff in dict.fromkeys(cutoffs):
        axes.axvline(cutoff, color=INK, lw=1, ls="dashed")
    axes.set_ylim(bottom=0)
    share = axes.twinx()
    share.plot(w, found.carried, color=ORANGE)
    share.set_ylabel("share of w² carried up to w", color="#c45f00")
    share.set_ylim(0, 1.02)
    share.spines["right"].set_visible(True)
    share.spines["right"].set_color(GREY)
    return figure
