"""Attribution graphs of circuit-tracer and Neuronpedia: JSON to nodes and links, and back.

Schema: neuronpedia.org, "Anthropic Attribution Graph" 1.0.0. Layers are those of the file, tokens ("E") first and
logits last. A node is known by its type and its `node_id` together: older circuit-tracers call the error of layer L at
position P `0_L_P`, which is also the id of feature L of layer 0 at position P. What a link means that names such an
id, is decided by the following, in this order; a link that stays undecided is refused:

1. errors and tokens have no inputs, so that a link leads to the feature;
2. a link leads to a later layer, so that it cannot come from an error of the same or a later layer than its target;
3. circuit-tracer writes links by target and then by source, both in the order of the list of nodes. Where all other
   links of a file are in this order, the place of a link says which node it comes from, and of two links from one id
   to the same node the first comes from the first of the two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from ..edges import entries
from ..errors import GraphError
from ..graph.interaction_graph import InteractionGraph
from ..graph.node_table import NodeTable
from .json_documents import Document, Link, decoded, links_of
from .layering import ordered_layers
from .node_rows import layer_key
from .tables import Links, Parts, node_index

__all__ = ["FORMAT", "attribution_document", "attribution_parts"]

FORMAT = "circuit-tracer"

"""Name of the format."""

_FIELDS = {"feature_type": ("type", str), "ctx_idx": ("position", int), "clerp": ("label", str)}


def attribution_parts(document: Document) -> Parts:
    """Read the nodes, links and layers of an attribution graph.

    Raises:
        GraphError: the file is no attribution graph, two nodes have one type and id, or a link names no node or an id
            of two nodes and does not say which.
    """
    given = decoded(document["nodes"], list[dict[str, Any]], "the list of nodes")
    rows = [_row(node, k) for k, node in enumerate(given)]
    nodes = NodeTable.from_rows(rows)
    node_index([(row["type"], row["id"]) for row in rows])
    layers = _layers(given, nodes)
    index: dict[str, int] = {}
    groups: list[list[int]] = []
    for i, name in enumerate(nodes.ids):
        if (known := index.setdefault(name, i)) == i:
            continue
        if known >= 0:
            groups.append([known])
            index[name] = known = -1 - len(groups)
        groups[-2 - known].append(i)
    links = links_of(document.get("links", msgspec.Raw(b"[]")), Link, index)
    rest = {name: decoded(raw, Any, name) for name, raw in document.items() if name not in ("nodes", "links")}
    origin: dict[str, Any] = {"format": FORMAT, "file": rest}
    if groups:
        if not layers:
            raise GraphError(f"two nodes have the id {nodes.ids[groups[0][0]]!r:.80}, and nodes have no layers")
        links, origin["links_of_shared_ids"] = _Shared(links, groups, nodes, layers).resolved()
    return Parts(nodes, links, layers, origin)


def _row(node: Mapping[str, Any], k: int) -> dict[str, Any]:
    """Split what is known about a node; what has an unusual type stays among the attributes as it is."""
    if not isinstance(node.get("node_id"), str):
        raise GraphError(f"node {k + 1:,} has the node_id {node.get('node_id')!r:.80}: expected a text")
    row: dict[str, Any] = {"id": node["node_id"], "type": "", "attributes": {}}
    for name, value in node.items():
        field, kind = _FIELDS.get(name, (None, None))
        if field is not None and type(value) is kind and value != (None if field != "type" else ""):
            row[field] = value
        elif name != "node_id":
            row["attributes"][name] = value
    return row


def _layers(given: Sequence[Mapping[str, Any]], nodes: NodeTable) -> tuple[str, ...]:
    without = [name for node, name in zip(given, nodes.ids, strict=True) if node.get("layer") is None]
    if len(without) == len(given):
        return ()
    if without:
        raise GraphError(
            f"the node {without[0]!r:.80} has no layer, as {len(without) - 1:,} others: expected one of each"
        )
    named = {"embedding": "E", "logit": "logits"}
    return tuple(named.get(t) or layer_key(node["layer"]) for node, t in zip(given, nodes.types, strict=True))


class _Shared:
    """Decide which node a link means where two nodes of different types have one id."""

    def __init__(self, links: Links, groups: Sequence[Sequence[int]], nodes: NodeTable, layers: Sequence[str]) -> None:
        self.links, self.groups, self.nodes = links, groups, nodes
        self.source, self.target = links.source.astype(np.int64), links.target.astype(np.int64)
        sure = (self.source >= 0) & (self.target >= 0)
        self.layer, _ = ordered_layers(layers, Links(self.source[sure], self.target[sure], links.weight[sure]))

    def resolved(self) -> tuple[Links, dict[str, int]]:
        for k in np.flatnonzero(self.target < 0).tolist():
            self.target[k] = self._only(k, self._targets(k))
        open_links = np.flatnonzero(self.source < 0)
        by_order = []
        for k in open_links.tolist():
            earlier = [i for i in self._members(self.source[k]) if self.layer[i] < self.layer[self.target[k]]]
            if len(earlier) == 1:
                self.source[k] = earlier[0]
            else:
                by_order.append((k, earlier))
        self._by_order(by_order)
        counts = {"by layer": len(open_links) - len(by_order), "by order": len(by_order)}
        return Links(self.source, self.target, self.links.weight), counts

    def _members(self, code: Any) -> Sequence[int]:
        return self.groups[-2 - int(code)]

    def _targets(self, k: int) -> list[int]:
        found = [
            i for i in self._members(self.target[k]) if not {"error", "embedding"} & {*self.nodes.types[i].split()}
        ]
        starts = [self.source[k]] if self.source[k] >= 0 else self._members(self.source[k])
        return found if len(found) == 1 else [i for i in found if self.layer[i] > self.layer[list(starts)].min()]

    def _by_order(self, undecided: Sequence[tuple[int, list[int]]]) -> None:
        """Decide by the place of a link among those with the same target."""
        known = np.flatnonzero(self.source >= 0)
        code = self.target[known] * len(self.nodes) + self.source[known]
        in_order = bool((np.diff(code) > 0).all())
        same: dict[tuple[int, int], list[int]] = {}
        for k, _ in undecided:
            same.setdefault((int(self.source[k]), int(self.target[k])), []).append(k)
        source = self.source.copy()
        for k, members in undecided:
            twins = same[int(self.source[k]), int(self.target[k])]
            if not in_order or not members:
                members = []
            elif len(twins) == len(members):
                members = [members[twins.index(k)]]
            else:
                at = int(np.searchsorted(known, k))
                before = self.source[known[at - 1]] if at and self.target[known[at - 1]] == self.target[k] else -1
                after = known[at] if at < len(known) and self.target[known[at]] == self.target[k] else None
                end = len(self.nodes) if after is None else self.source[after]
                members = [i for i in members if before < i < end]
            source[k] = self._only(k, members)
        self.source = source

    def _only(self, k: int, found: Sequence[int]) -> int:
        if len(found) == 1:
            return int(found[0])
        code = next(code for code in (self.target[k], self.source[k]) if code < 0)
        members = self._members(code)
        name = self.nodes.ids[members[0]]
        kinds = " and ".join(f"{self.nodes.types[i]} of layer {self.layer[i]}" for i in members)
        raise GraphError(
            f"link {k + 1:,} names the id {name!r:.80}, which two nodes have ({kinds}), and neither layers nor the "
            "order of links say which is meant: give errors ids of their own, such as LAYER_-1_POSITION, or "
            "write the file with a newer circuit-tracer"
        )


def attribution_document(graph: InteractionGraph) -> dict[str, Any]:
    """Write a graph that was read from an attribution graph as one again, with all that the file said.

    Nodes are in the order of the original file, links in that of circuit-tracer: by target and then by source.
    """
    order = np.array(graph.origin["order"], dtype=np.int64)
    rows = [table.row(i) for table in graph.nodes for i in range(len(table))]
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))
    source, target, weight = _written(graph, number)
    sorted_by = np.lexsort((source, target))
    ids = [rows[i]["id"] for i in order.tolist()]
    links = zip(*(values[sorted_by].tolist() for values in (source, target, weight)), strict=True)
    return {
        **graph.origin["file"],
        "nodes": [_node(rows[i]) for i in order.tolist()],
        "links": [{"source": ids[a], "target": ids[b], "weight": w} for a, b, w in links],
    }


def _written(graph: InteractionGraph, number: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts: list[tuple[Any, Any, Any]] = []
    for (a, b), block in zip(graph.pair_slices, graph.weights, strict=True):
        if block is not None:
            later, earlier, weight = entries(block)
            parts.append((number[earlier + a.start], number[later + b.start], weight))
    for p, later, earlier, weight in graph.origin.get("zero_links", ()):
        a, b = graph.pair_slices[p]
        parts.append(([number[earlier + a.start]], [number[later + b.start]], [weight]))
    source, target, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    return source, target, weight


def _node(row: Mapping[str, Any]) -> dict[str, Any]:
    names = {
        name: row[field]
        for name, (field, _) in _FIELDS.items()
        if row[field] not in ((None, "") if field == "type" else (None,))
    }
    return {"node_id": row["id"], **names, **row["attributes"]}


def written(document: Mapping[str, Any]) -> bytes:
    """Write JSON; an id of a node may be any text."""
    return json.dumps(document).encode()
