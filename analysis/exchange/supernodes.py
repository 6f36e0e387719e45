"""Write modules back into the attribution graph that they were found in, as its supernodes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from ..circuits.ablation import require_partition
from ..errors import GraphError
from ..graph.interaction_graph import InteractionGraph
from ..modules.partition import Partition
from ..reading.any_graph import graph_of_bytes
from ..reading.assembling import without_types
from ..reading.attribution_files import FORMAT
from ..reading.json_documents import decoded, members_of
from ..results import read_bytes, write_bytes
from .attribution_graph import MOST_PINNED, Names

__all__ = ["supernode_params", "with_supernodes", "write_supernodes"]

_TITLE = 60  # characters of the name of a supernode

_MOST_TYPES = 12  # of nodes, of which every selection is tried


def write_supernodes(
    partition: Partition,
    path: str | os.PathLike[str],
    into: str | os.PathLike[str],
    *,
    graph: InteractionGraph | None = None,
    called: Names | None = None,
) -> Path:
    """Write an attribution graph again, with the modules as its supernodes.

    `qParams.supernodes` and `qParams.pinnedIds` are replaced, see `supernode_params`; every other byte of a value stays
    as it is.

    Args:
        partition: of the graph that was read from the file, with or without some types of nodes.
        path: of the file to write.
        into: the original attribution graph.
        graph: that the partition belongs to; default: read from the original, without the types that the partition
            does not have, where it has at most 12 types.
        called: labels of modules.

    Raises:
        GraphError: the original is no attribution graph, the partition does not belong to it, or it has more than 12
            types of nodes and no graph is given.
        InputError: a file cannot be read or written.
    """
    original = read_bytes(into)
    if graph is None:
        graph = _matching(graph_of_bytes(original, format=FORMAT), partition)
    return write_bytes(path, with_supernodes(original, graph, partition, called))


def with_supernodes(
    original: bytes, graph: InteractionGraph, partition: Partition, called: Names | None = None
) -> bytes:
    """Return the content of an attribution graph with the modules as its supernodes; see `write_supernodes`."""
    document = members_of(original.removeprefix(b"\xef\xbb\xbf"), "the original file")
    if not {"nodes", "links"} <= set(document):
        raise GraphError(f"the original file has the names {', '.join(document)[:200]}: expected nodes and links")
    known = {node.get("node_id") for node in decoded(document["nodes"], list[dict[str, Any]], "the list of nodes")}
    found = supernode_params(graph, partition, called)
    for name in (name for members in found["supernodes"] for name in members[1:]):
        if name not in known:
            raise GraphError(
                f"the original file has no node {name!r:.80}: expected the file that the graph was read from"
            )
    given = members_of(document["qParams"], "qParams") if "qParams" in document else {}
    params = {**_DEFAULTS, **{name: bytes(raw) for name, raw in given.items()}}
    params |= {name: json.dumps(value).encode() for name, value in found.items()}
    parts = {name: bytes(raw) for name, raw in document.items()} | {"qParams": _joined(params)}
    return _joined(parts)


_DEFAULTS = {"linkType": b'"both"', "clickedId": b'""', "sg_pos": b'""'}  # what the schema asks for


def _joined(parts: dict[str, bytes]) -> bytes:
    return b"{" + b",".join(json.dumps(name).encode() + b":" + value for name, value in parts.items()) + b"}"


def supernode_params(
    graph: InteractionGraph, partition: Partition, called: Names | None = None
) -> dict[str, list[Any]]:
    """Return `supernodes`, a list [name, id, ...] per module, and `pinnedIds`, the strongest nodes of all modules.

    Nodes of a module are listed from the strongest on, by the sum of the squared strengths of their edges; at most 200
    are pinned. A supernode has the label of its module, or those of its strongest nodes. An id that an error shares
    with a feature stands for the feature.

    Raises:
        GraphError: the graph has no names of nodes, or the partition belongs to another graph.
    """
    if not graph.nodes:
        raise GraphError("the nodes of the graph have no ids: expected a graph that was read from an attribution graph")
    require_partition(graph, partition)
    carried = _carried(graph)
    labels = np.concatenate([np.asarray(label) for label in partition.labels])
    rows = [table.row(i) for table in graph.nodes for i in range(len(table))]
    errors = np.array(["error" in row["type"].split() for row in rows], dtype=bool)
    taken: dict[str, int] = {}
    for i in np.argsort(errors, kind="stable").tolist():
        taken.setdefault(rows[i]["id"], i)
    ranked = [i for i in np.argsort(-carried, kind="stable").tolist() if labels[i] >= 0 and taken[rows[i]["id"]] == i]
    titles = {} if called is None else called.modules
    supernodes = []
    for module in range(partition.n_modules):
        members = [i for i in ranked if labels[i] == module]
        if members:
            means = titles.get(module) or _meaning(rows[i]["label"] for i in members)
            name = shorten(f"module {module}" + (f": {means}" if means else ""), _TITLE, placeholder="...")
            supernodes.append([name, *(rows[i]["id"] for i in members)])
    return {"supernodes": supernodes, "pinnedIds": [rows[i]["id"] for i in ranked[:MOST_PINNED]]}


def _meaning(labels: Iterator[str | None]) -> str:
    """Join the labels of the two strongest nodes that have different ones."""
    return ", ".join(list(dict.fromkeys(label.strip() for label in labels if label and label.strip()))[:2])


def _carried(graph: InteractionGraph) -> np.ndarray:
    """For each node the sum of the squared strengths of its edges."""
    edges = graph.edge_list
    return np.asarray(sum(replace(edges, weight=edges.weight**2).totals(graph.n_nodes)))


def _matching(whole: InteractionGraph, partition: Partition) -> InteractionGraph:
    """Leave out the types of nodes that the partition does not have, as its cuts and their widths show."""
    types = sorted({kind for table in whole.nodes for kind in table.types})
    if len(types) > _MOST_TYPES:
        raise GraphError(
            f"the original has nodes of {len(types)} types, too many to find out which of them the partition has: give "
            "the graph of the partition as graph="
        )
    wanted = dict(zip(partition.cuts, map(len, partition.labels), strict=True))
    found = []
    for count in range(len(types)):
        for dropped in combinations(types, count):
            kept = [sum(kind not in dropped for kind in table.types) for table in whole.nodes]
            if wanted == {cut: width for cut, width in zip(whole.cuts, kept, strict=True) if width}:
                found.append(dropped)
    if len(found) != 1:
        raise GraphError(
            f"the partition has the cuts {wanted}, the original {dict(zip(whole.cuts, whole.widths, strict=True))}: "
            "expected the file that its graph was read from; give the graph of the partition as graph="
        )
    return without_types(whole, found[0])
