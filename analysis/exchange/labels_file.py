"""Read divisions and texts of nodes that were made elsewhere, from CSV and JSON files."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from ..errors import GraphError, InputError
from ..graph.cost import Epsilon
from ..graph.interaction_graph import InteractionGraph
from ..modules.find_modules import score_partition
from ..modules.partition import Partition
from ..results import read_bytes

__all__ = ["groups_of", "labels_of", "read_assignment", "read_groups", "read_labels", "read_partition"]

_NONE = ("", "-1", "none", "null", "nan")

_MODULE = ("module", "label", "group", "cluster")  # names of the column of modules

_COLUMNS = [{*node, module} for module in _MODULE for node in (["node"], ["cut", "coordinate"])]


def read_partition(
    path: str | os.PathLike[str], graph: InteractionGraph, epsilon: Epsilon | str | None = None
) -> Partition:
    """Read a division of a graph from a file, and compute its costs.

    Args:
        path: see `read_labels`.
        graph: graph whose nodes the file names.
        epsilon: loss scale, see `find_modules`.

    Raises:
        InputError: the file cannot be read.
        GraphError: the file names nodes that the graph does not have, names one twice, or leaves out one with an edge.
    """
    return score_partition(graph, read_labels(read_bytes(path), graph), epsilon)


def read_labels(content: bytes, graph: InteractionGraph) -> list[Int[np.ndarray, " _"]]:
    r"""Read one array of labels per cut; modules are numbered as they first appear, -1 for nodes without one.

    Args:
        content: content of a CSV file with the columns `node` and `module`, or `cut`, `coordinate` and `module`; or of
            a JSON file: an object {node: module}, or a list of objects with those names. A node is "cut/coordinate", as
            exports name it, or "cut/id" where the graph has ids; a module is any text or number; "-1", "none" or
            nothing for none. Nodes that are not named are in no module.
        graph: graph whose nodes the file names.

    Raises:
        InputError: the content is neither.
        GraphError: a node that the graph does not have, or has twice.

    >>> graph = InteractionGraph.from_blocks([np.eye(2)], cuts=["a", "b"])
    >>> [labels.tolist() for labels in read_labels(b"node,module\na/0,left\nb/0,left\na/1,7\n", graph)]
    [[0, 1], [0, -1]]
    """
    return labels_of(read_assignment(content), graph)


def read_assignment(content: bytes) -> dict[str, str]:
    """Read the module of each node that a file names, as it is written there; see `read_labels`.

    Raises:
        InputError: the content cannot be read.
        GraphError: the content names a node twice.

    >>> read_assignment(b'{"a/0": "left", "a/1": 7}')
    {'a/0': 'left', 'a/1': '7'}
    """
    assignment: dict[str, str] = {}
    for node, module in _rows(content):
        if node in assignment:
            raise GraphError(f"the file names the node {node!r} twice")
        assignment[node] = module
    return assignment


def read_groups(path: str | os.PathLike[str]) -> dict[str, tuple[str, ...]]:
    """Read the groups of each node from a file, for `compare_partitions`; see `groups_of`.

    Raises:
        InputError: the file cannot be read.
    """
    return groups_of(read_bytes(path))


def groups_of(content: bytes) -> dict[str, tuple[str, ...]]:
    r"""Read the groups of each node that a file names: none, one, or several.

    Args:
        content: content of a file of nodes and modules, see `read_labels`, where the second column may be named
            `label`, `group` or `cluster`, too, and a node may have several rows; or an attribution graph of
            circuit-tracer or Neuronpedia, whose `qParams.supernodes` [[name, node id, ...], ...] are the groups.

    Raises:
        InputError: the content is neither.
        GraphError: a JSON object that names a node twice.

    >>> groups_of(b"node,label\na/0,left\na/1,left\na/1,right\n")
    {'a/0': ('left',), 'a/1': ('left', 'right')}
    >>> groups_of(b'{"qParams": {"supernodes": [["capital", "E_1_0", "2_7_1"], ["capital", "3_4_1"]]}}')
    {'E_1_0': ('capital',), '2_7_1': ('capital',), '3_4_1': ('capital (2)',)}
    """
    supernodes = _supernodes(content)
    rows = _rows(content) if supernodes is None else _members(supernodes)
    found: dict[str, tuple[str, ...]] = {}
    for node, group in rows:
        named = () if group.lower() in _NONE else (group,)
        found[node] = tuple(dict.fromkeys((*found.get(node, ()), *named)))
    return found


def _supernodes(content: bytes) -> list[Any] | None:
    """Return the supernodes of an attribution graph; None where the content is none."""
    if content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"{":
        return None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the file cannot be read as JSON ({type(error).__name__}: {error})") from error
    choices = document.get("qParams", document)
    found = choices.get("supernodes") if isinstance(choices, dict) else None
    if found is None and "qParams" not in document:
        return None
    if not found or not isinstance(found, list):
        raise InputError("the attribution graph has no supernodes: expected qParams.supernodes [[name, node id, ...]]")
    return found


def _members(supernodes: list[Any]) -> Iterator[tuple[str, str]]:
    """Yield node and group; a name that an earlier group has gets a number."""
    taken: dict[str, int] = {}
    for members in supernodes:
        if not isinstance(members, list) or len(members) < 2 or not all(isinstance(m, str) for m in members):
            raise InputError(f"a supernode is {members!r:.80}: expected [name, node id, ...]")
        name = members[0].strip() or "unnamed"
        taken[name] = taken.get(name, 0) + 1
        yield from ((node, name if taken[name] == 1 else f"{name} ({taken[name]})") for node in members[1:])


def labels_of(assignment: Mapping[str, str], graph: InteractionGraph) -> list[Int[np.ndarray, " _"]]:
    """Build one array of labels per cut from nodes named "cut/coordinate" or "cut/id" and their modules.

    Where a name is the id of one node and the coordinate of another it is the id; see `read_labels`.

    Raises:
        GraphError: a node that the graph does not have, or no node in a module.
    """
    labels = [np.full(width, -1, dtype=np.int64) for width in graph.widths]
    places = {f"{cut}/{i}": (p, i) for p, cut in enumerate(graph.cuts) for i in range(graph.widths[p])}
    for p, (cut, table) in enumerate(zip(graph.cuts, graph.nodes, strict=bool(graph.nodes))):
        places |= {f"{cut}/{name}": (p, i) for i, name in enumerate(table.ids)}
    numbers: dict[str, int] = {}
    for node, module in assignment.items():
        if node not in places:
            raise GraphError(
                f"the labels name the node {node!r}, which the graph does not have: expected names like "
                f"{next(iter(places))!r}, cuts {dict(zip(graph.cuts, graph.widths, strict=True))}"
            )
        if module.lower() not in _NONE:
            p, i = places[node]
            labels[p][i] = numbers.setdefault(module, len(numbers))
    if not numbers:
        raise GraphError("the labels put no node into a module")
    return labels


def _rows(content: bytes) -> Iterator[tuple[str, str]]:
    try:
        text = content.decode("utf-8-sig")
        rows = (
            _of_json(json.loads(text, object_pairs_hook=_once))
            if text.lstrip()[:1] in ("{", "[")
            else _of_csv(csv.DictReader(io.StringIO(text)))
        )
        for row in rows:
            node = row["node"] if row.get("node") is not None else f"{row['cut']}/{row['coordinate']}"
            module = row[next((name for name in _MODULE if name in row), "module")]
            if isinstance(module, dict | list):
                raise TypeError(f"the module of the node {node!r} is {module!r:.80}: expected a text or a number")
            name = "" if module is None else str(module).strip()
            yield str(node).strip(), re.sub(r"^(-?\d+)\.0+$", r"\1", name)  # pandas writes whole numbers like this
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, csv.Error) as error:
        raise InputError(
            f"the file is no division into modules ({type(error).__name__}: {error}): expected CSV with the columns "
            'node,module or JSON like {"layers.0/3": 1}'
        ) from error


def _of_csv(reader: csv.DictReader[str]) -> Iterable[dict[str, Any]]:
    names = reader.fieldnames
    if names and not any(needed <= set(names) for needed in _COLUMNS):
        first = ",".join(names)
        raise InputError(
            f"the first line of the file is {first[:80]!r}: expected the names of its columns, node,module or "
            "cut,coordinate,module, and a line per node below"
        )
    return reader


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a dict from the pairs of a JSON object, which must not name anything twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise GraphError(f"the file names the node {twice!r} twice")
    return found


def _of_json(document: Any) -> Iterable[dict[str, Any]]:
    if isinstance(document, dict):
        return [{"node": node, "module": module} for node, module in document.items()]
    for row in document:
        if not isinstance(row, dict):
            raise TypeError(f"the list holds {row!r:.80}: expected objects with the names node and module")
    return list(document)
