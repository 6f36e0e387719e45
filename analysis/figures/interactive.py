"""The interaction graph as an interactive picture: hover cards of nodes, modules to switch on and off; by plotly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ..edges import strength_line
from ..errors import InputError
from ..graph.cost import Epsilon
from ..graph.interaction_graph import InteractionGraph
from ..modules.partition import Partition
from ..results import interactive_figure
from .graphs import ShownNodes, node_names, shown_nodes
from .style import graph_facts, module_colours

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["plot_interactive"]

_MAX_EDGES = 1500  # of each pair of cuts, for the browser's sake

_PARTNERS = 4  # strongest ones on a card


@interactive_figure.register(InteractionGraph)
def plot_interactive(
    graph: InteractionGraph,
    partition: Partition | None = None,
    epsilon: Epsilon | None = None,
    *,
    title: str | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """Draw what `plot_graph` draws as a plotly figure.

    A card at each node shows its cut, coordinate, module, importance and strongest partners. A click in the legend
    hides a module. Only the strongest 1,500 edges of each pair of cuts are drawn; the heading says so.

    Raises:
        GraphError: the partition is of another graph.
        InputError: plotly is not installed.
    """
    try:
        from plotly import graph_objects
    except ImportError as error:
        raise InputError("an interactive picture needs plotly: run `pip install 'interbasis[notebook]'`") from error
    found = shown_nodes(graph, partition, epsilon)
    facts = ", ".join(graph_facts(partition, found.scales, len(found.costs), found.too_many(_MAX_EDGES)))
    drawn = graph_objects.Figure()
    edges, nodes = _edges(graph, found), _nodes(graph, found, node_names(graph, names or {}))
    for module, (x, y) in sorted(edges.items()):
        line = {"color": _colour(module), "width": 1, "dash": "solid" if module >= 0 else "dot"}
        ends = {"x": x, "y": y, "mode": "lines", "line": line, "opacity": 0.35, "hoverinfo": "skip"}
        drawn.add_trace(
            graph_objects.Scatter(
                **ends, **_group(module, "between modules"), showlegend=module not in nodes or module < 0
            )
        )
    for module, dots in sorted(nodes.items()):
        marker = {"color": _colour(module), "size": dots.pop("size"), "line": {"width": 0.5, "color": "white"}}
        marker["opacity"] = 1.0
        drawn.add_trace(
            graph_objects.Scatter(
                **dots, mode="markers", marker=marker, hoverinfo="text", **_group(module, "in no module")
            )
        )
    ticks = [f"{escape(cut)}<br>{width} nodes" for cut, width in zip(graph.cuts, graph.widths, strict=True)]
    heading = f"<b>{escape(title)}</b><br><sub>{facts}</sub>" if title else facts
    drawn.update_layout(title={"text": heading}, template="plotly_white", height=560, hovermode="closest")
    drawn.update_xaxes(tickvals=list(range(len(graph.cuts))), ticktext=ticks, showgrid=False, zeroline=False)
    drawn.update_yaxes(visible=False)
    return drawn


def _colour(module: int) -> str:
    red, green, blue = (255 * module_colours(np.array([module]))[0, :3]).round().astype(int)
    return f"rgb({red}, {green}, {blue})"


def _group(module: int, without: str) -> dict[str, str]:
    """Name what is switched on and off together in the legend."""
    name = f"module {module}" if module >= 0 else without
    return {"legendgroup": name, "name": name}


def _edges(graph: InteractionGraph, found: ShownNodes) -> dict[int, tuple[list[float | None], list[float | None]]]:
    """Return the ends of the strongest edges inside each module, and by -1 those between modules, gaps between them."""
    lines: dict[int, tuple[list[float | None], list[float | None]]] = {}
    for pair, (a, b) in enumerate(graph.pairs):
        earlier, later, _ = found.strongest(graph, pair, _MAX_EDGES)
        for j, i in zip(later.tolist(), earlier.tolist(), strict=True):
            inside = found.labels[a][i] == found.labels[b][j]
            x, y = lines.setdefault(int(found.labels[a][i]) if inside else -1, ([], []))
            x += [float(a), float(b), None]
            y += [float(found.heights[a][i]), float(found.heights[b][j]), None]
    return lines


def _nodes(graph: InteractionGraph, found: ShownNodes, names: Mapping[str, Sequence[str]]) -> dict[int, dict[str, Any]]:
    """Return places, sizes and cards of the nodes of each module."""
    nodes: dict[int, dict[str, Any]] = {}
    for p, (cut, importance) in enumerate(zip(graph.cuts, graph.importance, strict=True)):
        size = 7 + 11 * np.sqrt(np.sqrt(np.maximum(importance, 0) / max(importance.max(initial=0.0), 1e-300)))
        for i in np.flatnonzero(found.shown[p]).tolist():
            module = int(found.labels[p][i])
            kept = nodes.setdefault(module, {"x": [], "y": [], "size": [], "hovertext": []})
            kept["x"].append(p)
            kept["y"].append(float(found.heights[p][i]))
            kept["size"].append(float(size[i]))
            called = f" ({escape(str(names[cut][i]))})" if cut in names else ""
            lines = [f"<b>{escape(cut)}, coordinate {i}</b>{called}"]
            lines.append(f"module {module}" if module >= 0 else "in no module")
            lines.append(f"importance {importance[i]:.3g}")
            kept["hovertext"].append("<br>".join([*lines, *_partners(graph, p, i)]))
    return nodes


def _partners(graph: InteractionGraph, p: int, i: int) -> list[str]:
    """Name the strongest partners of a node at earlier and at later cuts, with the strengths."""
    ends: dict[str, list[tuple[float, str]]] = {"from": [], "to": []}
    for (a, b), block in zip(graph.pairs, graph.blocks, strict=True):
        if b == p:
            ends["from"] += _strongest(strength_line(block, row=i), graph.cuts[a])
        if a == p:
            ends["to"] += _strongest(strength_line(block, column=i), graph.cuts[b])
    lines = []
    for word, found in ends.items():
        if found:
            best = sorted(found, key=lambda pair: -pair[0])[:_PARTNERS]
            lines.append(f"{word} " + ", ".join(f"{name} ({strength:.3g})" for strength, name in best))
    return lines


def _strongest(strengths: Float[np.ndarray, " k"], cut: str) -> list[tuple[float, str]]:
    best = np.argsort(-strengths, kind="stable")[:_PARTNERS].tolist()
    return [(float(strengths[j]), f"{escape(cut)} {j}") for j in best if strengths[j] > 0]
