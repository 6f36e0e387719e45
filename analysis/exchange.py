"""Graphs and partitions for other tools: NetworkX, GraphML, GEXF, node-link and attribution-graph JSON."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from .attribution_graphs import attribution_graph
from .errors import GraphError
from .graph import InteractionGraph
from .modules import Partition

if TYPE_CHECKING:
    import networkx

__all__ = ["FORMATS", "export", "to_networkx"]


def to_networkx(
    graph: InteractionGraph, partition: Partition | None = None, epsilon: float | None = None
) -> networkx.DiGraph:
    """The graph with text nodes "cut/coordinate"; with a partition each node has its `module` (-1: none).

    Args:
        graph: the strengths.
        partition: of this graph.
        epsilon: only edges above its square root; default the partition's, without one all edges above 0.

    Raises:
        GraphError: the partition belongs to a graph of another shape.

    >>> graph = InteractionGraph.from_blocks([[[2.0]]], cuts=["a", "b"])
    >>> list(to_networkx(graph).edges(data="strength"))
    [('a/0', 'b/0', 2.0)]
    """
    import networkx

    if epsilon is None:
        epsilon = partition.epsilon if partition is not None else 0.0
    nodes = graph.to_networkx(epsilon)
    if partition is not None:
        _check_fit(graph, partition)
        labels = dict(zip(partition.cuts, partition.labels, strict=True))
        networkx.set_node_attributes(nodes, {(c, i): int(labels[c][i]) for c, i in nodes.nodes}, "module")
    return networkx.relabel_nodes(nodes, {(c, i): f"{c}/{i}" for c, i in nodes.nodes})


def export(graph: InteractionGraph, partition: Partition | None, form: str, epsilon: float | None = None) -> bytes:
    """A graph, or a partition with its graph, as the content of a file.

    Args:
        graph: the strengths.
        partition: of this graph.
        form: "graphml", "gexf", "node-link" (NetworkX's JSON, key `edges`), "circuit-tracer" (attribution-graph JSON,
            also of Neuronpedia; see `attribution_graph`) or "safetensors" (what `save` writes: the partition where one
            is given, else the graph).
        epsilon: see `to_networkx`.

    Raises:
        GraphError: an unknown format, or a partition of another graph.
    """
    if form not in FORMATS:
        raise GraphError(f"unknown format {form!r}: expected one of {', '.join(FORMATS)}")
    if partition is not None:
        _check_fit(graph, partition)
    return FORMATS[form](graph, partition, epsilon)


def _check_fit(graph: InteractionGraph, partition: Partition) -> None:
    if partition.cuts != graph.cuts or tuple(map(len, partition.labels)) != graph.widths:
        raise GraphError(f"the partition of the cuts {list(partition.cuts)} does not belong to this graph")


def _graphml(graph: InteractionGraph, partition: Partition | None, epsilon: float | None) -> bytes:
    import networkx

    stream = io.BytesIO()
    networkx.write_graphml(to_networkx(graph, partition, epsilon), stream)
    return stream.getvalue()


def _node_link(graph: InteractionGraph, partition: Partition | None, epsilon: float | None) -> bytes:
    import networkx

    data: dict[str, Any] = networkx.node_link_data(to_networkx(graph, partition, epsilon), edges="edges")
    return json.dumps(data).encode()


def _safetensors(graph: InteractionGraph, partition: Partition | None, epsilon: float | None) -> bytes:
    return graph.to_bytes() if partition is None else partition.to_bytes()


def _gexf(graph: InteractionGraph, partition: Partition | None, epsilon: float | None) -> bytes:
    import networkx

    stream = io.BytesIO()
    networkx.write_gexf(to_networkx(graph, partition, epsilon), stream)
    return stream.getvalue()


def _circuit_tracer(graph: InteractionGraph, partition: Partition | None, epsilon: float | None) -> bytes:
    scale = epsilon if epsilon is not None else partition.epsilon if partition is not None else 0.0
    return json.dumps(attribution_graph(graph, partition, scale)).encode()


FORMATS = {
    "graphml": _graphml,
    "gexf": _gexf,
    "node-link": _node_link,
    "circuit-tracer": _circuit_tracer,
    "safetensors": _safetensors,
}
