"""Write graphs and partitions for other tools: NetworkX, GraphML, GEXF, node-link and attribution-graph JSON, masks."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ..basis.bases import Bases
from ..circuits.ablation import joined_labels, require_partition
from ..errors import GraphError
from ..graph.cost import Epsilon
from ..graph.interaction_graph import InteractionGraph
from ..modules.partition import Partition
from ..reading.attribution_files import FORMAT, attribution_document
from ..reading.own_graphs import KEY, whole_graph_said
from ..reading.xml_graphs import with_description
from ..results import encode
from .attribution_graph import Names, attribution_graph
from .supernodes import supernode_params

if TYPE_CHECKING:
    import networkx

__all__ = ["FORMATS", "export", "export_masks", "to_networkx"]

_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_networkx(
    graph: InteractionGraph,
    partition: Partition | None = None,
    epsilon: Epsilon | None = None,
    *,
    called: Names | None = None,
) -> networkx.DiGraph:
    """Convert to NetworkX with text nodes "cut/coordinate"; with a partition nodes have a `module` (-1: none).

    Nodes with a label have it as `label`, those of a module with a label as `module_label`. The attribute `interbasis`
    of the graph, and of nodes that have names, is JSON of all else that `read_graph` needs to give the same graph,
    apart from edges below the cutoff, strengths beyond skip paths (`beyond_skip`) and standard errors (`errors`,
    `beyond_errors`), which are lost.

    Args:
        graph: the strengths.
        partition: of this graph.
        epsilon: only edges above its square root, one for all or one per pair of cuts; default: the partition's, or all
            edges above 0 if there is none.
        called: labels of nodes and modules.

    Raises:
        GraphError: the partition belongs to a graph of another shape, or a wrong number of loss scales.

    >>> graph = InteractionGraph.from_blocks([[[2.0]]], cuts=["a", "b"])
    >>> list(to_networkx(graph).edges(data="strength"))
    [('a/0', 'b/0', 2.0)]
    """
    import networkx

    if partition is not None:
        require_partition(graph, partition)
    nodes = _counted(graph, partition, epsilon).to_networkx(_scales(partition, epsilon))
    nodes.graph[KEY] = whole_graph_said(graph)
    for cut, table in zip(graph.cuts, graph.nodes, strict=bool(graph.nodes)):
        said = {(cut, i): json.dumps(table.row(i)) for i in range(len(table))}
        networkx.set_node_attributes(nodes, said, KEY)
    if partition is not None:
        labels = dict(zip(partition.cuts, partition.labels, strict=True))
        module = {(c, i): int(labels[c][i]) for c, i in nodes.nodes}
        networkx.set_node_attributes(nodes, module, "module")
        titles = {} if called is None else called.modules
        networkx.set_node_attributes(nodes, {n: titles[m] for n, m in module.items() if m in titles}, "module_label")
    if called is not None:
        networkx.set_node_attributes(nodes, {n: called.nodes[n] for n in nodes.nodes if n in called.nodes}, "label")
    return networkx.relabel_nodes(nodes, {(c, i): f"{c}/{i}" for c, i in nodes.nodes})


def export(
    graph: InteractionGraph,
    partition: Partition | None,
    form: str,
    epsilon: Epsilon | None = None,
    *,
    called: Names | None = None,
) -> bytes:
    """Return a graph, or a partition with its graph, as the content of a file.

    Args:
        graph: the strengths.
        partition: of this graph.
        form: "graphml", "gexf", "node-link" (NetworkX's JSON, key `edges`), "circuit-tracer" (attribution-graph JSON,
            also of Neuronpedia; see `attribution_graph`; a graph that was read from such a file is written as that file
            again, with all its links, and the modules as supernodes) or "safetensors" (what `save` writes: the
            partition where one is given, else the graph). Of a graph only "safetensors" keeps everything; see
            `to_networkx` for what "graphml", "gexf" and "node-link" lose.
        epsilon: see `to_networkx`.
        called: labels of nodes and modules, for all formats but "safetensors".

    Raises:
        GraphError: an unknown format, a partition of another graph, a loss scale for a graph that is written with all
            its links, or a name that XML (GraphML, GEXF) cannot hold.
    """
    if form not in FORMATS:
        raise GraphError(f"unknown format {form!r}: expected one of {', '.join(FORMATS)}")
    if partition is not None:
        require_partition(graph, partition)
    written = graph if form == "safetensors" else _counted(graph, partition, epsilon)
    return FORMATS[form](written, partition, epsilon, called)


def export_masks(bases: Bases, graph: InteractionGraph, partition: Partition) -> bytes:
    """Write the tensors that apply modules as hooks in plain PyTorch, as a safetensors file.

    Per cut the tensors `CUT/mean` (d,) or, of pictures, (positions, d), `CUT/to_basis` C (k, d), `CUT/from_basis` C^+
    (d, k), float64, and `CUT/masks` (modules, k) of booleans: f -> mean + C^+ diag(mask) C (f - mean) keeps one module.
    Nodes of no module join the one with which they exchange most loss.

    Raises:
        GraphError: bases, graph and partition do not belong together.
    """
    widths = tuple(len(basis.importance) for basis in bases.values())
    if tuple(bases) != graph.cuts or widths != graph.widths:
        raise GraphError(f"the bases of the cuts {list(bases)} do not belong to this graph")
    arrays: dict[str, np.ndarray] = {}
    for basis, labels in zip(bases.values(), joined_labels(graph, partition), strict=True):
        masks = labels == np.arange(partition.n_modules)[:, None]
        given = {"mean": basis.mean, "to_basis": basis.to_basis, "from_basis": basis.from_basis, "masks": masks}
        arrays |= {f"{basis.cut}/{name}": array for name, array in given.items()}
    return encode("masks", arrays, {"cuts": list(graph.cuts), "n_modules": partition.n_modules})


def _counted(graph: InteractionGraph, partition: Partition | None, epsilon: Epsilon | None) -> InteractionGraph:
    """Leave out edges that are estimated and not surely above a loss scale; without a scale all edges stay."""
    if partition is None and epsilon is None:
        return graph
    return graph.significant(_scales(partition, epsilon))


def _graphml(
    graph: InteractionGraph, partition: Partition | None, epsilon: Epsilon | None, called: Names | None
) -> bytes:
    import networkx

    stream = io.BytesIO()
    networkx.write_graphml(_for_xml(graph, partition, epsilon, called), stream)
    return stream.getvalue()


def _node_link(
    graph: InteractionGraph, partition: Partition | None, epsilon: Epsilon | None, called: Names | None
) -> bytes:
    import networkx

    data: dict[str, Any] = networkx.node_link_data(to_networkx(graph, partition, epsilon, called=called), edges="edges")
    return json.dumps(data).encode()


def _safetensors(
    graph: InteractionGraph, partition: Partition | None, epsilon: Epsilon | None, called: Names | None
) -> bytes:
    return graph.to_bytes() if partition is None else partition.to_bytes()


def _gexf(graph: InteractionGraph, partition: Partition | None, epsilon: Epsilon | None, called: Names | None) -> bytes:
    import networkx

    stream = io.BytesIO()
    converted = _for_xml(graph, partition, epsilon, called)
    networkx.write_gexf(converted, stream)
    return with_description(stream.getvalue(), converted.graph[KEY])


def _for_xml(
    graph: InteractionGraph, partition: Partition | None, epsilon: Epsilon | None, called: Names | None
) -> networkx.DiGraph:
    """Convert to NetworkX, and refuse names that no XML file can hold."""
    for name in (*graph.cuts, graph.basis, graph.strengths, *_texts(called)):
        if found := _NOT_XML.search(name):
            raise GraphError(
                f"the name {name!r} has the character {found[0]!r}, which XML cannot hold: rename it, or write "
                "node-link JSON"
            )
    converted = to_networkx(graph, partition, epsilon, called=called)
    for _, known in converted.nodes(data=True) if graph.nodes else ():  # what XML cannot hold is whole in their JSON
        known.update({name: _NOT_XML.sub("\ufffd", value) for name, value in known.items() if isinstance(value, str)})
    return converted


def _texts(called: Names | None) -> tuple[str, ...]:
    return () if called is None else (*called.nodes.values(), *called.modules.values())


def _circuit_tracer(
    graph: InteractionGraph, partition: Partition | None, epsilon: Epsilon | None, called: Names | None
) -> bytes:
    if graph.origin.get("format") == FORMAT:
        if epsilon is not None:
            raise GraphError(
                "the graph was read from an attribution graph, and is written as that file again, with all its links: "
                "leave epsilon out"
            )
        document = attribution_document(graph)
        if partition is not None:
            document["qParams"] = {**document.get("qParams", {}), **supernode_params(graph, partition, called)}
        return json.dumps(document).encode()
    return json.dumps(attribution_graph(graph, partition, _scales(partition, epsilon), called=called)).encode()


def _scales(partition: Partition | None, epsilon: Epsilon | None) -> Epsilon:
    """Return the loss scale, or those of the pairs of cuts, for the cutoff of edges."""
    if epsilon is not None:
        return epsilon
    return partition.epsilons if partition is not None else 0.0


FORMATS = {
    "graphml": _graphml,
    "gexf": _gexf,
    "node-link": _node_link,
    "circuit-tracer": _circuit_tracer,
    "safetensors": _safetensors,
}
