"""Labels of nodes and modules: the newest of each place and source, their history, and where they moved along to.

Rows are only added, so that two writers lose nothing: the last one counts, the other is in the history.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Unpack

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ..records.base import Kind, Page
from ..records.errors import NotFoundError, StoreError
from ..records.graphs import GRAPH
from ..records.labels import LabelRow, NewLabel, Place, check_label, overlaps, place_name
from ..records.partitions import PARTITION
from ..storage.pages import keyed_page
from ..storage.references import resolve
from ..storage.tables import Graph, Label, NodeAssignment, Partition
from .reading import _cut_index
from .saving import now
from .transactions import Transactions

__all__ = ["Labels"]

_LEAST = 0.5  # overlap above which a label is shown at a module of another partition

_GIVEN = ("text", "author", "source", "confidence", "origin", "overlap")  # columns as the writer gave them

_PLACE = ("partition", "cut", "node", "module", "named_sha256")

_NODE, _MODULE = (Label.cut, Label.node), (Label.partition, Label.module, Label.named_sha256)

_AGAIN = "before it was computed again"


class Labels(Transactions):
    """The part of the store for labels; `kind` is GRAPH or PARTITION, a partition has the labels of its graph, too."""

    def labels(self, kind: Kind[Any, Any], ref: str, *, history: bool = False) -> tuple[LabelRow, ...]:
        """List the labels of a graph or a partition, see `Source.labels`."""
        with self._read() as session:
            return tuple(row for _, row in _listed(_Owner(session, kind, ref), history))

    def label_page(
        self, kind: Kind[Any, Any], ref: str, *, history: bool = False, cursor: str | None = None, limit: int = 100
    ) -> Page[LabelRow]:
        """Return one page of `labels`."""
        with self._read() as session:
            found = list(_listed(_Owner(session, kind, ref), history))
            return keyed_page(found, cursor=cursor, limit=limit)

    def put_labels(self, kind: Kind[Any, Any], ref: str, labels: Sequence[NewLabel]) -> tuple[LabelRow, ...]:
        """Store labels, all or none, see `Source.put_labels`."""
        for label in labels:
            check_label(label)
        named = Counter((place_name(label), label.source) for label in labels)
        if twice := [place for (place, _), n in named.items() if n > 1]:
            raise StoreError(f"{twice[0]} has several labels of one source: expected one")

        def put(session: Session) -> tuple[LabelRow, ...]:
            owner = _Owner(session, kind, ref)
            known = owner.newest(modules=any(label.module is not None for label in labels))
            rows = []
            for label in labels:
                values = {name: getattr(label, name) for name in _GIVEN}
                place = owner.place(label.cut, label.node, label.module)
                row = known.get((*(place[name] for name in _PLACE), label.source))
                if row is None or any(getattr(row, name) != value for name, value in values.items()):
                    row = owner.add(place, values)
                rows.append(owner.record(row))
            return tuple(rows)

        return self._write(put)

    def remove_label(
        self, kind: Kind[Any, Any], ref: str, *, author: str, source: str = "human", **place: Unpack[Place]
    ) -> LabelRow:
        """Remove the label of a node or a module, see `Source.remove_label`."""
        given: dict[str, Any] = {**place, **({"cut": str(place["cut"])} if "cut" in place else {})}
        where = NewLabel(text="-", author=author, source=source, **given)
        check_label(where)

        def remove(session: Session) -> LabelRow:
            owner = _Owner(session, kind, ref)
            found = owner.place(where.cut, where.node, where.module)
            key = (*(found[name] for name in ("cut", "node", "module")), source)
            for _, row in _listed(owner, False):
                if (owner.cut(row.cut), row.node, row.module, row.source) == key:
                    values = dict.fromkeys(_GIVEN) | {"author": author, "source": source}
                    return owner.record(owner.add(found, values))
            raise NotFoundError(
                f"{place_name(where)} of {owner.id} has no label of source {source}: list them with `interbasis label`"
            )

        return self._write(remove)


class _Owner:
    """The graph and, where one was named, the partition whose labels are read or written in a transaction."""

    def __init__(self, session: Session, kind: Kind[Any, Any], ref: str) -> None:
        if kind not in (GRAPH, PARTITION):
            raise StoreError(f"a {kind.name} has no labels: name a graph or a partition")
        self.session = session
        self.partition = resolve(session, Partition, ref) if kind is PARTITION else None
        self.graph = resolve(session, Graph, ref) if self.partition is None else self.partition.graph
        self.id = self.graph.id if self.partition is None else self.partition.id

    @cached_property
    def modules(self) -> dict[tuple[int, int], int]:
        """Module of each node that is in one."""
        columns = (NodeAssignment.cut, NodeAssignment.coordinate, NodeAssignment.module)
        key = None if self.partition is None else self.partition.key
        of = NodeAssignment.partition_key == key, NodeAssignment.module.is_not(None)
        rows = self.session.execute(select(*columns).where(*of).order_by(*columns[:2]))
        return {(cut, node): int(module) for cut, node, module in rows if module is not None}

    @cached_property
    def members(self) -> dict[int, list[list[int]]]:
        """For each module the coordinates of its nodes at each cut, in order."""
        found: dict[int, list[list[int]]] = {m: [[] for _ in self.graph.cuts] for m in self.modules.values()}
        for (cut, node), module in self.modules.items():
            found[module][cut].append(node)
        return found

    def place(self, cut: int | str | None, node: int | None, module: int | None) -> dict[str, Any]:
        """Return the columns that say which node or module is meant.

        Raises:
            NotFoundError: there is no such node or module.
        """
        place: dict[str, Any] = {"partition": None, "cut": self.cut(cut), "node": node, "module": module}
        if module is None:
            if not self.has(place["cut"], node):
                raise NotFoundError(
                    f"no node {node} at cut {cut!r} of {self.graph.id}: its cuts {self.graph.cuts} have "
                    f"{self.graph.widths} nodes, counted from 0"
                )
            return place | {"members": None, "named_sha256": self.graph.graph_sha256}
        if self.partition is None:
            raise StoreError(f"{self.graph.id} is a graph: name one of its partitions to label module {module}")
        if module not in self.members:
            has = f"which has {self.partition.n_modules}, counted from 0"
            raise NotFoundError(f"no module {module} in {self.partition.id}, {has}")
        found = self.members[module]
        return place | {"partition": self.partition.id, "members": found, "named_sha256": _digest(found)}

    def cut(self, name: int | str | None) -> int | None:
        """Return the index of a cut, -1 where there is none of this name."""
        return None if name is None else _cut_index(self.graph.cuts, name)

    def has(self, cut: int | None, node: int | None) -> bool:
        """Return whether the graph has a node."""
        widths = self.graph.widths
        return cut is not None and node is not None and 0 <= cut < len(widths) and 0 <= node < widths[cut]

    def add(self, place: dict[str, Any], values: dict[str, Any]) -> Label:
        """Add a row."""
        row = Label(graph_key=self.graph.key, created=now(), **place, **values)
        self.session.add(row)
        return row

    def newest(self, *, modules: bool) -> dict[tuple[Any, ...], Label]:
        """Return the newest row of each place and source, of nodes and, where asked for, of modules."""
        rows = _counting(self, _NODE, False) + (_counting(self, _MODULE, True) if modules else [])
        return {(*(getattr(row, name) for name in _PLACE), row.source): row for row in rows}

    def record(self, row: Label, **shown: Any) -> LabelRow:
        """Convert a row; `shown` replaces what it says where it is shown elsewhere."""
        values = {name: getattr(row, name) for name in (*_GIVEN, "partition", "node", "module", "created")}
        cuts = self.graph.cuts
        cut = None if row.cut is None else cuts[row.cut] if row.cut < len(cuts) else f"cut {row.cut}"
        return LabelRow(**{"graph": self.graph.id, "cut": cut, **values, **shown})


Listed = tuple[tuple[int, int, int], LabelRow]  # its place in the list, which nothing else has


def _listed(owner: _Owner, history: bool) -> Iterator[Listed]:
    """Yield the labels that count, modules before nodes, or the history, oldest first."""
    if history:
        query = select(Label).where(Label.graph_key == owner.graph.key).order_by(Label.key)
        for row in owner.session.scalars(query):
            if owner.partition is None or row.module is None or row.partition == owner.partition.id:
                yield (row.key, 0, 0), owner.record(row)
        return
    if owner.partition is not None:
        yield from sorted(_of_modules(owner, owner.partition.id), key=lambda each: each[0])
    rows = _counting(owner, _NODE, False)
    for row in sorted(rows, key=lambda row: (row.cut, row.node, row.key)):
        if row.text is not None and row.cut is not None and row.node is not None and owner.has(row.cut, row.node):
            same = row.named_sha256 == owner.graph.graph_sha256
            shown = {} if same else {"origin": f"{owner.graph.id} {_AGAIN}", "overlap": None}
            yield (1 + row.cut, row.node, row.key), owner.record(row, **shown)


def _of_modules(owner: _Owner, partition: str) -> Iterator[Listed]:
    """Yield the labels of the modules of a partition: its own, and those of others that share most of their nodes.

    What was said of a module itself, even that its label is removed, goes before what moves along from elsewhere.
    """
    rows = _counting(owner, _MODULE, True)
    if not rows:
        return
    sizes = Counter(owner.modules.values())
    digests = {m: _digest(members) for m, members in owner.members.items()}
    own: dict[tuple[int, str], Label] = {}
    moved: dict[tuple[int, str], tuple[Label, float]] = {}
    for row in sorted(rows, key=lambda row: row.key):
        if row.partition == partition and row.module is not None and row.named_sha256 == digests.get(row.module):
            own[row.module, row.source] = row
        elif row.text is not None:
            members = ((cut, node) for cut, nodes in enumerate(row.members or ()) for node in nodes)
            for m, share in overlaps(members, owner.modules, sizes).items():
                if share > _LEAST:
                    moved[m, row.source] = row, share
    for (m, _), row in own.items():
        if row.text is not None:
            yield (0, m, row.key), owner.record(row)
    for (m, source), (row, share) in moved.items():
        if (m, source) not in own:
            origin = f"{row.partition} module {row.module}" + (f" {_AGAIN}" if row.partition == partition else "")
            shown = {"partition": partition, "module": m, "origin": origin, "overlap": share}
            yield (0, m, row.key), owner.record(row, **shown)


def _counting(owner: _Owner, place: Sequence[Any], of_modules: bool) -> list[Label]:
    """Return the newest row of each place and source of a graph, also those that remove a label."""
    of = (Label.graph_key == owner.graph.key, Label.module.is_not(None) if of_modules else Label.module.is_(None))
    newest = select(func.max(Label.key)).where(*of).group_by(*place, Label.source)
    return list(owner.session.scalars(select(Label).where(Label.key.in_(newest))))


def _digest(members: list[list[int]]) -> str:
    return hashlib.sha256(json.dumps(members).encode()).hexdigest()
