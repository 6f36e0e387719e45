"""Read a graph of any format."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..errors import GraphError
from ..graph.interaction_graph import InteractionGraph
from ..results import read_bytes
from .assembling import assembled, without_types
from .attribution_files import FORMAT, attribution_parts
from .edge_lists import csv_parts, parquet_parts
from .json_documents import Document, decoded, members_of
from .node_link import node_link_parts
from .tables import Parts
from .xml_graphs import xml_kind, xml_parts

__all__ = ["READERS", "graph_of_bytes", "read_graph"]


def read_graph(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    without: Sequence[str] = (),
    longest_path: bool = False,
) -> InteractionGraph:
    """Read a graph that was made elsewhere, or an export of ours.

    A weight w keeps its sign in `weights`; the strength of an edge is |w|. A layer is a cut; edges may skip cuts.
    Links of weight 0 stay among the links, two links between one pair of nodes are refused. The ids, types, positions,
    labels and other attributes of nodes are in `nodes`, the rest of the file in `origin`. Of links, source, target and
    weight are kept.

    Layers come from the file: of an attribution graph, tokens first and logits last; of others, the attribute `layer`
    of the nodes or the columns `source_layer,target_layer`. Without layers, a node stands behind the longest path that
    leads to it. In attribution graphs a node is known by type and id, as an error may bear the id of a feature of layer
    0. What a link from such an id means is decided by layers (it leads to a later one), then by the order of links,
    which circuit-tracer writes by target and then by source; if both leave it open, the file is refused.

    Args:
        path: of the file.
        format: "circuit-tracer" (attribution graphs, also of Neuronpedia), "node-link" (NetworkX's JSON), "graphml",
            "gexf", "csv" or "parquet" (edge lists `source,target,weight`), "safetensors" (what `save` wrote); default:
            as the content says.
        without: types of nodes to leave out, whole or one word of them, such as "error" for "mlp reconstruction error".
        longest_path: compute layers even where the file names them.

    Raises:
        GraphError: an unknown format, a file that is none of this format, no links, a weight that is no finite number,
            two nodes of one id, two links between one pair of nodes, a link to a node that does not exist or not to a
            later layer, a cycle (whose nodes are named), a position beyond 64 bits, or nothing is left.
        InputError: the file cannot be read.
    """
    return graph_of_bytes(read_bytes(path), format=format, without=without, longest_path=longest_path)


def graph_of_bytes(
    data: bytes, *, format: str | None = None, without: Sequence[str] = (), longest_path: bool = False
) -> InteractionGraph:
    """Read a graph from the content of a file; see `read_graph`."""
    form = format or _detected(data)
    if form not in READERS:
        raise GraphError(f"unknown format {form!r}: expected one of {', '.join(READERS)}")
    found = READERS[form](data)
    graph = assembled(found, longest_path=longest_path) if isinstance(found, Parts) else found
    _require_positions(graph)
    left = without_types(graph, without)
    return replace(left, origin={**left.origin, "without": list(without)}) if without else left


def _require_positions(graph: InteractionGraph) -> None:
    for table in graph.nodes:
        for name, at in zip(table.ids, table.positions, strict=True):
            if at is not None and not (isinstance(at, int) and -(2**63) <= at < 2**63):
                raise GraphError(
                    f"the node {name!r:.80} has the position {at!r:.40}: expected an integer of at most 64 bits"
                )


def _detected(data: bytes) -> str:
    """Tell the format from the content."""
    if data[:4] == b"PAR1":
        return "parquet"
    if data[8:9] == b"{" and 2 <= int.from_bytes(data[:8], "little") <= len(data) - 8:
        return "safetensors"
    start = data[:256].removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"<" or data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        kind = xml_kind(data)
        if kind not in ("graphml", "gexf"):
            raise GraphError(f"the file is XML and begins with <{kind}>: expected GraphML or GEXF")
        return kind
    if start in (b"{", b"["):
        return "json"
    return "csv"


def _json(data: bytes) -> Parts | InteractionGraph:
    document = _document(data)
    first = decoded(document["nodes"], list[dict[str, Any]], "the list of nodes")[:1]
    attribution = first and "node_id" in first[0] and not {"edges", "directed"} & set(document)
    return attribution_parts(document) if attribution else node_link_parts(document)


def _document(data: bytes) -> Document:
    if not data.strip():
        raise GraphError("the file is empty: expected a graph")
    document = members_of(data.removeprefix(b"\xef\xbb\xbf"), "the file")
    if "nodes" not in document:
        raise GraphError(
            f"the file has the names {', '.join(document)[:200] or 'none'}: expected nodes and links (or edges)"
        )
    return document


READERS: dict[str, Callable[[bytes], Parts | InteractionGraph]] = {
    FORMAT: lambda data: attribution_parts(_document(data)),
    "node-link": lambda data: node_link_parts(_document(data)),
    "graphml": lambda data: xml_parts(data, "graphml"),
    "gexf": lambda data: xml_parts(data, "gexf"),
    "csv": csv_parts,
    "parquet": parquet_parts,
    "safetensors": InteractionGraph.from_bytes,
    "json": _json,
}
"""What reads each format."""
