"""Divisions of nodes from partitions, arrays and mappings, so that the same node has the same key in all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Int

from ..errors import GraphError
from ..graph.node_table import NodeTable
from ..modules.alignment import Alignment
from ..modules.partition import Partition

__all__ = [
    "Division",
    "DivisionLike",
    "Key",
    "NodeNames",
    "Nodes",
    "key_of_names",
    "name_of",
    "nodes_of",
    "read_divisions",
]

Key: TypeAlias = tuple[str, str | int]
"""The cut of a node, and its name or its place in the cut."""

NodeNames: TypeAlias = Sequence[Sequence[str] | NodeTable]
"""The names of the nodes of each cut, in order; or the `nodes` of a graph that was read from a file."""

DivisionLike: TypeAlias = Partition | Sequence[Int[np.ndarray, " _"]] | Mapping[str, Any]
"""A partition; an int array of labels per cut (-1: in no module); or the module of each node by the node's name."""

_NONE = ("", "-1", "none", "null", "nan")


@dataclass(frozen=True)
class Division:
    """The module of each node by its key; counts of nodes with none, of nodes with several, and of ambiguous names."""

    modules: Mapping[Key, str]
    in_none: int
    in_several: int
    ambiguous: int


def read_divisions(
    given: Sequence[DivisionLike],
    nodes: Sequence[NodeNames | None] | None,
    alignments: Sequence[Alignment | None] | None,
) -> list[Division]:
    """Give every node the same key in all divisions.

    A node is its cut and its name where `nodes` names it, else its cut and place; where `alignments` has an entry, the
    node of the first division that it continues. Nodes of a mapping are looked up among those of the others.

    Raises:
        GraphError: numbers of entries or nodes that do not fit.
    """
    named = [names or None for names in _entries("nodes", nodes, len(given))]
    aligned = [None, *_entries("alignments", alignments, len(given) - 1)]
    arrays = [None if isinstance(d, Mapping) else _labels(d) for d in given]
    cuts = _cuts(given, arrays)
    tables: list[Nodes | None] = []
    for k, labels in enumerate(arrays):
        if labels is None:
            tables.append(None)
        elif aligned[k] is not None:
            tables.append(_aligned(tables[0], cuts[k], list(map(len, labels)), aligned[k], k))
        else:
            tables.append(nodes_of(cuts[k], list(map(len, labels)), named[k]))
    _same_places(cuts, arrays, named, aligned)
    lookup = key_of_names([table for table in tables if table is not None])
    return [
        _of_names(division, lookup) if isinstance(division, Mapping) else _of_arrays(labels or [], table)
        for division, labels, table in zip(given, arrays, tables, strict=True)
    ]


@dataclass(frozen=True)
class Nodes:
    """The key of each node per cut, and its name if it has one; a rare name gives way to the same name elsewhere."""

    keys: Sequence[Sequence[Key]]
    names: Sequence[Sequence[str | None]]
    rare: Sequence[Sequence[bool]]

    @classmethod
    def at(cls, keys: Sequence[Sequence[Key]]) -> Nodes:
        """Return nodes without names."""
        return cls(keys, [[None] * len(part) for part in keys], [[False] * len(part) for part in keys])


def nodes_of(cuts: Sequence[str], widths: Sequence[int], names: NodeNames | None) -> Nodes:
    """Return the nodes of all cuts, by their places or by their names.

    The error of an attribution graph may have the id of a feature: its key is type and id, and the id alone is the
    feature's.

    Raises:
        GraphError: names that do not fit the nodes, or name two nodes of a cut alike.
    """
    if not names:
        return Nodes.at([[(cut, i) for i in range(width)] for cut, width in zip(cuts, widths, strict=True)])
    if [len(part) for part in names] != list(widths):
        raise GraphError(f"there are {[len(p) for p in names]} node names, expected one per node: {list(widths)}")
    ids = [[str(name) for name in (part.ids if isinstance(part, NodeTable) else part)] for part in names]
    types = [part.types if isinstance(part, NodeTable) else ("",) * len(part) for part in names]
    rare = [["error" in kind.split() for kind in part] for part in types]
    keys: list[list[Key]] = [
        [(cut, f"{kind} {name}" if error else name) for name, kind, error in zip(*columns, strict=True)]
        for cut, *columns in zip(cuts, ids, types, rare, strict=True)
    ]
    for cut, part in zip(cuts, keys, strict=True):
        if len(set(part)) < len(part):
            twice = next(key[1] for i, key in enumerate(part) if key in part[:i])
            raise GraphError(f"two nodes of the cut {cut!r} have the name {twice!r}: expected different names")
    return Nodes(keys, ids, rare)


def key_of_names(tables: Sequence[Nodes]) -> dict[str, Key | None]:
    """Return the key of each name that a node may be given; None where several nodes have the name.

    A node may be given as "cut/place", "cut/name" or "name".
    """
    found: dict[str, Key | None] = {}
    rare: dict[str, Key | None] = {}
    for table in tables:
        for keys, names, flags in zip(table.keys, table.names, table.rare, strict=True):
            for i, (key, name, second) in enumerate(zip(keys, names, flags, strict=True)):
                into = rare if second else found
                for alias in (name, f"{key[0]}/{name}", f"{key[0]}/{key[1]}") if name is not None else ():
                    into[alias] = key if into.get(alias, key) == key else None
                found[f"{key[0]}/{i}"] = key if found.get(f"{key[0]}/{i}", key) == key else None
    return {**rare, **found}


def name_of(key: Key) -> str:
    """Return a key as text: "cut/place", or the node's own name."""
    return f"{key[0]}/{key[1]}" if isinstance(key[1], int) else key[1]


def _entries(what: str, given: Sequence[Any] | None, count: int) -> list[Any]:
    if given is not None and len(given) != count:
        raise GraphError(
            f"{what} has {len(given)} entries, expected {count}: one per division, None where there is none"
        )
    return [None] * count if given is None else list(given)


def _labels(division: Partition | Sequence[Int[np.ndarray, " _"]]) -> list[Int[np.ndarray, " _"]]:
    labels = [np.asarray(part) for part in (division.labels if isinstance(division, Partition) else division)]
    if not labels or any(part.ndim != 1 or part.dtype.kind not in "iu" for part in labels):
        seen = [f"{part.dtype} of shape {part.shape}" for part in labels]
        raise GraphError(f"labels are {seen}: expected a partition, one int array per cut, or {{node: module}}")
    return labels


def _cuts(given: Sequence[DivisionLike], arrays: Sequence[Any]) -> list[tuple[str, ...]]:
    """Return the names of the cuts; arrays take those of the first partition with as many nodes at each cut."""
    known = {tuple(map(len, d.labels)): d.cuts for d in reversed(given) if isinstance(d, Partition)}
    found = []
    for division, labels in zip(given, arrays, strict=True):
        if isinstance(division, Partition):
            found.append(division.cuts)
        else:
            found.append(
                () if labels is None else known.get(tuple(map(len, labels)), tuple(map(str, range(len(labels)))))
            )
    return found


def _aligned(first: Nodes | None, cuts: Sequence[str], widths: Sequence[int], alignment: Any, k: int) -> Nodes:
    """Return keys of nodes that continue nodes of the first division; the others keep a key that no other node has."""
    if first is None:
        raise GraphError("the first division has nodes by name: expected a partition to align others with")
    if [len(part) for part in alignment] != list(widths) or len(first.keys) != len(widths):
        raise GraphError(
            f"alignments[{k - 1}] has {[len(part) for part in alignment]} entries per cut, expected {list(widths)} "
            f"and as many cuts in the first division, which has {len(first.keys)}"
        )
    table: list[list[Key]] = []
    for cut, part, before in zip(cuts, alignment, first.keys, strict=True):
        chosen = [int(i) for i in part]
        kept = [i for i in chosen if i >= 0]
        if len(set(kept)) < len(kept) or max(kept, default=0) >= max(len(before), 1):
            raise GraphError(f"alignments[{k - 1}] at {cut!r} names a node twice, or none of the {len(before)} nodes")
        table.append([before[j] if j >= 0 else (cut, f"{cut}/{i} of division {k}") for i, j in enumerate(chosen)])
    return Nodes.at(table)


def _same_places(
    cuts: Sequence[Any],
    arrays: Sequence[Any],
    named: Sequence[Any],
    aligned: Sequence[Any],
) -> None:
    """Refuse to compare nodes by their places where cuts or widths differ."""
    places = [k for k in range(len(arrays)) if arrays[k] is not None and named[k] is None and aligned[k] is None]
    shapes = [dict(zip(cuts[k], map(len, arrays[k]), strict=True)) for k in places]
    for shape in shapes[1:]:
        if shape != shapes[0]:
            raise GraphError(
                f"the divisions have different nodes, {shapes[0]} and {shape}: give their names with nodes=, or with "
                "alignments= which node continues which"
            )


def _of_arrays(labels: Sequence[Int[np.ndarray, " _"]], table: Nodes | None) -> Division:
    keys = table.keys if table is not None else []
    pairs = [(key, int(m)) for part, row in zip(labels, keys, strict=True) for m, key in zip(part, row, strict=True)]
    modules = {key: str(module) for key, module in pairs if module >= 0}
    return Division(modules, len(pairs) - len(modules), 0, 0)


def _of_names(given: Mapping[str, Any], lookup: Mapping[str, Key | None]) -> Division:
    found: dict[Key, tuple[str, ...]] = {}
    ambiguous = 0
    for node, value in given.items():
        key = lookup.get(str(node), _split(str(node)))
        ambiguous += key is None
        if key is not None:
            found[key] = tuple(dict.fromkeys((*found.get(key, ()), *_modules(value))))
    modules = {key: values[0] for key, values in found.items() if len(values) == 1}
    in_none = sum(not values for values in found.values())
    return Division(modules, in_none, len(found) - len(modules) - in_none, ambiguous)


def _split(name: str) -> Key:
    """Return a key of a node that only mappings name: the text before the last slash is its cut."""
    cut, _, rest = name.rpartition("/")
    return (cut, int(rest)) if cut and rest.isdecimal() else ("", name)


def _modules(value: Any) -> Iterator[str]:
    for one in value if isinstance(value, tuple | list | set | frozenset) else (value,):
        name = "" if one is None else str(one).strip()
        if name.lower() not in _NONE:
            yield name
