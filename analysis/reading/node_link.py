"""Node-link JSON, as NetworkX writes it: `nodes` with `id`, and `edges` or `links` with `source` and `target`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ..errors import GraphError
from ..graph.interaction_graph import InteractionGraph
from ..graph.node_table import NodeTable
from .json_documents import Document, decoded, links_of
from .node_rows import node_row
from .own_graphs import KEY, own_graph
from .tables import Links, Parts, node_index

__all__ = ["described_parts", "node_link_parts"]


class _Edge(msgspec.Struct):
    source: Any
    target: Any
    weight: float | None = None
    strength: float | None = None


def node_link_parts(document: Document) -> Parts | InteractionGraph:
    """Read node-link JSON; a file of ours gives its graph at once.

    Raises:
        GraphError: the file is no directed graph with weights, two nodes have one id, or a link names no node.
    """
    if document.get("directed") is not None and decoded(document["directed"], Any, "directed") is False:
        raise GraphError("the graph is undirected: expected links that lead from earlier to later nodes")
    nodes = decoded(document["nodes"], list[dict[str, Any]], "the list of nodes")
    if None in (given := [node.get("id") for node in nodes]):
        raise GraphError(
            f"node {given.index(None) + 1:,} has no id: expected node-link JSON, a list of objects with the name id"
        )
    names = list(map(_hashable, given))
    index = node_index(names)
    raw = document.get("edges", document.get("links", msgspec.Raw(b"[]")))
    lookup = _Lookup(index)

    def links(value: str) -> Links:
        def ends(edge: _Edge) -> tuple[Any, Any, float]:
            first, other = (edge.weight, edge.strength) if value == "weight" else (edge.strength, edge.weight)
            found = first if first is not None else other
            if found is None:
                raise GraphError(
                    f"the link {edge.source!r:.80} -> {edge.target!r:.80} has no weight: expected a number"
                )
            return edge.source, edge.target, found

        return links_of(raw, _Edge, lookup, ends)

    said = decoded(document["graph"], Any, "graph") if "graph" in document else {}
    rest = {name: decoded(raw, Any, name) for name, raw in document.items() if name not in ("nodes", "edges", "links")}
    return described_parts("node-link", rest, said if isinstance(said, dict) else {}, names, nodes, links)


def described_parts(
    form: str,
    rest: Mapping[str, Any],
    said: Mapping[str, Any],
    names: Sequence[Any],
    attributes: Sequence[Mapping[str, Any]],
    links: Callable[[str], Links],
) -> Parts | InteractionGraph:
    """Read nodes that are described by attributes; a file of ours gives its graph at once.

    Args:
        form: format of the file.
        rest: what is kept of the file.
        said: attributes of the whole graph.
        names: of the nodes.
        attributes: of the nodes.
        links: returns the links with their "weight" or "strength", or the other where one is missing.
    """
    if isinstance(said.get(KEY), str):
        return own_graph(said[KEY], names, attributes, links)
    rows = [node_row(_plain(name), node) for name, node in zip(names, attributes, strict=True)]
    nodes = NodeTable.from_rows(row for row, _ in rows)
    node_index(nodes.ids)
    layers = [layer for _, layer in rows]
    if None in layers and len(set(layers)) > 1:
        raise GraphError(
            f"the node {nodes.ids[layers.index(None)]!r:.80} has no layer: expected a layer of every node, or none"
        )
    known = () if None in layers else tuple(layers)
    return Parts(nodes, links("weight"), known, {"format": form, "file": dict(rest)})


def _hashable(name: Any) -> Any:
    """Return an id as NetworkX has it: lists are tuples."""
    if isinstance(name, list):
        return tuple(map(_hashable, name))
    if isinstance(name, dict):
        raise GraphError(f"a node has the id {json.dumps(name)[:80]}: expected a text or a number")
    return name


def _plain(name: Any) -> Any:
    return list(map(_plain, name)) if isinstance(name, tuple) else name


class _Lookup(dict[Any, int]):
    """Numbers of nodes by ids, lists too."""

    def get(self, name: Any, default: Any = None) -> Any:
        return super().get(_hashable(name), default)
