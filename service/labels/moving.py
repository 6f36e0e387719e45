"""Move labels along: to partitions by the nodes that modules share, to graphs by the values of their nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..records.graphs import GRAPH, GraphRow
from ..records.kinds import Source
from ..records.labels import LabelRow, NewLabel, overlaps, place_name
from ..records.partitions import PARTITION, PartitionDetail

__all__ = ["Align", "Divided", "moved_labels"]

Node = tuple[int, int]  # index of the cut, and coordinate

Align = Callable[[str, str], Mapping[Node, tuple[Node, float]]]
"""Returns for nodes of an earlier graph those of a later one, with |correlation| of their values; takes their IDs."""


@dataclass(frozen=True)
class Divided:
    """A graph, with one of its partitions or without."""

    graph: GraphRow
    partition: PartitionDetail | None = None


def moved_labels(source: Source, old: Divided, new: Divided, align: Align) -> tuple[list[NewLabel], list[str]]:
    """Return the labels of one graph or partition as those of another, and a line about each that finds no place.

    A label of a node goes to the node whose values on the data are correlated most with those of its own, one to one,
    as tracking aligns checkpoints. A label of a module goes to the module with the largest overlap of nodes, the
    Jaccard index. What has a label of the same source already keeps it.

    Args:
        source: where both are stored.
        old: whose labels are moved.
        new: where they are moved to.
        align: aligns the nodes of two graphs; not called where they are the same.
    """
    same = old.graph.id == new.graph.id
    matches = {} if same else align(old.graph.id, new.graph.id)
    kind, ref = (GRAPH, new.graph.id) if new.partition is None else (PARTITION, new.partition.id)
    taken = {(place_name(label), label.source) for label in source.labels(kind, ref)}
    found: dict[tuple[str, str], NewLabel] = {}
    left = []
    places = [] if same else list(_nodes(source, old, new, matches))
    if old.partition is not None and new.partition is not None:
        places += _modules(source, old, new, None if same else matches)
    for label, moved in sorted(places, key=lambda each: -((each[1] and each[1].overlap) or 0.0)):
        where = place_name(label)
        key = None if moved is None else (place_name(moved), moved.source)
        if moved is None or key is None:
            left.append(f"{where} has no counterpart: {label.text}")
        elif key in taken or key in found:
            left.append(f"{where}, moved to {key[0]}, which has a label of source {key[1]}: {label.text}")
        else:
            found[key] = moved
    return list(found.values()), left


def _nodes(
    source: Source, old: Divided, new: Divided, matches: Mapping[Node, tuple[Node, float]]
) -> Iterator[tuple[LabelRow, NewLabel | None]]:
    """Yield each label of a node with what it is in the other graph, None where no node fits."""
    for label in source.labels(GRAPH, old.graph.id):
        match = matches.get((old.graph.cuts.index(str(label.cut)), int(label.node or 0)))
        if match is None:
            yield label, None
        else:
            (cut, node), share = match
            yield label, replace(_copied(label, old.graph.id), cut=new.graph.cuts[cut], node=node, overlap=share)


def _modules(
    source: Source, old: Divided, new: Divided, matches: Mapping[Node, tuple[Node, float]] | None
) -> Iterator[tuple[LabelRow, NewLabel | None]]:
    """Yield each label of a module with what it is in the other partition, None where no module shares a node."""
    before, after = (_assigned(source, each.partition) for each in (old, new))
    sizes, ref = Counter(after.values()), "" if old.partition is None else old.partition.id
    for label in source.labels(PARTITION, ref):
        if label.module is not None:
            members = [node for node, module in before.items() if module == label.module]
            there = [
                node if matches is None else matches.get(node, ((-1, i), 0.0))[0] for i, node in enumerate(members)
            ]
            shares = overlaps(there, after, sizes)
            best = max(shares, key=lambda m: (shares[m], -m), default=None)
            moved = _copied(label, ref)
            yield label, None if best is None else replace(moved, module=best, overlap=shares[best])


def _assigned(source: Source, partition: PartitionDetail | None) -> dict[Node, int]:
    """Return the module of each node that is in one."""
    nodes: Any = () if partition is None else source.nodes(partition.id)
    return {(node.cut, node.coordinate): node.module for node in nodes if node.module is not None}


def _copied(label: LabelRow, ref: str) -> NewLabel:
    """Return a label, of no node or module yet, with where it comes from."""
    origin = f"{ref} {place_name(label)}"[:500]
    about: dict[str, Any] = {name: getattr(label, name) for name in ("author", "source", "confidence")}
    return NewLabel(text=str(label.text), origin=origin, **about)
