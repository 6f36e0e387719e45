"""The reading half of the store: single values, lists, artifacts, nodes, and checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from ..records.base import Kind, Page, Record
from ..records.errors import NotFoundError, StoreError
from ..records.estimates import DESCRIPTION, EXPERIMENT, LEDGER, LLC, DescriptionRow, ExperimentRow, LedgerRow, LlcRow
from ..records.graphs import GRAPH, GraphRow
from ..records.kinds import KINDS, Paging, Source, check_paging
from ..records.labels import FoundRow
from ..records.maintenance import CheckReport, Collected
from ..records.partitions import (
    COMPARISON,
    PARTITION,
    TRACKING,
    ComparisonRow,
    MediatorRow,
    NodeRow,
    PartitionDetail,
    TrackingDetail,
)
from ..storage.audit import audit, collect
from ..storage.connection import translated
from ..storage.narrowing import having, labelled, narrowed
from ..storage.node_names import FROM_FILE, named
from ..storage.pages import mediator_page, node_page, page
from ..storage.references import belongs, concerns, resolve
from ..storage.rows import detail, record
from ..storage.tables import TABLES, Checkpoint, Graph, Job, Label, Mediator, Model, NodeAssignment, Partition, Run
from .transactions import Transactions

__all__ = ["Reader", "result_query"]

RowT = TypeVar("RowT", bound=Record)
DetailT = TypeVar("DetailT", bound=Record)

_MOST_FOUND = 1000

_SEARCHED = (*(TABLES[name] for name in KINDS), Job)


class Reader(Transactions, Source):
    """The part of the store that reads."""

    def get(self, kind: Kind[Any, DetailT], ref: str) -> DetailT:
        """Return the thing of this kind that a reference names, with all details."""
        with self._read() as session:
            return detail(resolve(session, TABLES[kind.name], ref), kind)

    def row(self, kind: Kind[RowT, Any], ref: str) -> RowT:
        """Return the thing of this kind that a reference names, without its parts."""
        with self._read() as session:
            return record(resolve(session, TABLES[kind.name], ref), kind.row)

    def page(self, kind: Kind[RowT, Any], of: dict[str, str | None], paging: Paging) -> Page[RowT]:
        """Return a page of the things of this kind that belong to the things named in `of`, by kind."""
        check_paging(kind, paging)
        options: dict[str, Any] = {"cursor": None, "limit": 100, "newest_first": False, **paging}
        by = {name: options.pop(name, None) for name in ("step", "since", "verdict")}
        table = TABLES[kind.name]
        with self._read() as session:
            query = narrowed(select(table), kind, **by)
            for name, ref in of.items():
                if ref is not None:
                    query = query.where(concerns(table, name, resolve(session, TABLES[name], ref).key))
            return page(session, table, query, lambda row: record(row, kind.row), **options)

    def search(self, text: str, *, limit: int = 20) -> Page[FoundRow]:
        """Return what has all words of a text in its name, ID or label, by kind and the newest first, and how many.

        Raises:
            StoreError: a text without words or with characters that cannot be printed, or a limit out of range.
        """
        words = text.split()
        if not words or not text.isprintable() or not 1 <= limit <= _MOST_FOUND:
            raise StoreError(f"expected words that can be printed, and a limit of 1 to {_MOST_FOUND}")
        found: list[FoundRow] = []
        total = 0
        with self._read() as session:
            for table in (*_SEARCHED, None):
                query = labelled(words) if table is None else having(table, words)
                of: Any = Label if table is None else table
                n = session.scalar(select(func.count()).select_from(query.with_only_columns(of.key).subquery())) or 0
                total += n
                if n and len(found) < limit:
                    rows = session.scalars(query.order_by(of.created.desc(), of.key.desc()).limit(limit - len(found)))
                    found += [_found(session, row) for row in rows]
        return Page(items=tuple(found), next_cursor=None, total=total)

    def find(self, kind: Kind[Any, DetailT], owners: Sequence[str], recipe_hash: str) -> DetailT | None:
        """Return the stored result of this kind by a recipe, or None.

        Args:
            kind: kind of the result.
            owners: references of the things that it belongs to, in the order of `kind.owners`.
            recipe_hash: SHA-256 of the recipe.
        """
        with self._read() as session:
            row = session.scalar(result_query(session, kind, owners, recipe_hash))
            return None if row is None else detail(row, kind)

    def find_graph(self, checkpoint: str, dataset: str, recipe_hash: str) -> GraphRow | None:
        """Return the stored graph of a checkpoint, dataset and recipe, or None."""
        return self.find(GRAPH, (checkpoint, dataset), recipe_hash)

    def find_partition(self, graph: str, recipe_hash: str) -> PartitionDetail | None:
        """Return the stored partition of a graph by a recipe, or None."""
        return self.find(PARTITION, (graph,), recipe_hash)

    def find_ledger(self, checkpoint: str, dataset: str, recipe_hash: str) -> LedgerRow | None:
        """Return the stored ledger of a checkpoint, dataset and recipe, or None."""
        return self.find(LEDGER, (checkpoint, dataset), recipe_hash)

    def find_llc(self, checkpoint: str, dataset: str, recipe_hash: str) -> LlcRow | None:
        """Return the stored learning coefficient of a checkpoint, dataset and recipe, or None."""
        return self.find(LLC, (checkpoint, dataset), recipe_hash)

    def find_experiment(self, partition: str, recipe_hash: str) -> ExperimentRow | None:
        """Return the stored experiment on a partition by a recipe, or None."""
        return self.find(EXPERIMENT, (partition,), recipe_hash)

    def find_description(self, partition: str, recipe_hash: str) -> DescriptionRow | None:
        """Return the stored description of a partition by a recipe, or None; it may lack cards."""
        return self.find(DESCRIPTION, (partition,), recipe_hash)

    def find_comparison(self, partition: str, recipe_hash: str) -> ComparisonRow | None:
        """Return the stored comparison of a partition by a recipe, or None."""
        return self.find(COMPARISON, (partition,), recipe_hash)

    def find_tracking(self, run: str, recipe_hash: str) -> TrackingDetail | None:
        """Return the stored tracking of a run by a recipe, or None."""
        return self.find(TRACKING, (run,), recipe_hash)

    def file(self, kind: Kind[Any, Any], ref: str, name: str | None = None) -> bytes:
        """Return a file of a result, by default the first of its kind; its hash is verified.

        Raises:
            NotFoundError: the file was not kept.
        """
        return self.blobs.get(self._sha256(kind, ref, name))

    def graph_path(self, ref: str) -> Path | None:
        """Return the path of a graph's file for memory mapping; None where artifacts are not local files."""
        return self.blobs.path(self._sha256(GRAPH, ref))

    def _sha256(self, kind: Kind[Any, Any], ref: str, name: str | None = None) -> str:
        named = name or next(iter(kind.files))
        with self._read() as session:
            row = resolve(session, TABLES[kind.name], ref)
            sha256: str | None = getattr(row, f"{named}_sha256")
        if sha256 is None:
            raise NotFoundError(f"the {named} of {row.id} were not kept: compute the {kind.name} again with --force")
        return sha256

    def get_node(self, partition: str, cut: int | str, coordinate: int) -> NodeRow:
        """Return a node with the module it is in, see `Source.get_node`."""
        with self._read() as session:
            row = resolve(session, Partition, partition)
            node = session.get(NodeAssignment, (row.key, _cut_index(row.graph.cuts, cut), coordinate))
            if node is None:
                raise NotFoundError(
                    f"no node {coordinate} at cut {cut!r} of {row.id}: its cuts {row.graph.cuts} have "
                    f"{row.graph.widths} nodes, counted from 0"
                )
            return named(self.blobs, row.graph, [record(node, NodeRow, FROM_FILE)])[0]

    def nodes(self, partition: str, *, module: int | None = None) -> tuple[NodeRow, ...]:
        """List the nodes of a partition by cut and coordinate, all or those of one module."""
        with self._read() as session:
            owner = resolve(session, Partition, partition)
            return named(self.blobs, owner.graph, _node_rows(session, _nodes_query(owner, module)))

    def node_page(
        self, partition: str, *, module: int | None = None, cursor: str | None = None, limit: int = 100
    ) -> Page[NodeRow]:
        """Return one page of `nodes`."""
        with self._read() as session:
            owner = resolve(session, Partition, partition)
            found = node_page(session, _nodes_query(owner, module), cursor=cursor, limit=limit)
            return replace(found, items=named(self.blobs, owner.graph, found.items))

    def strongest_nodes(
        self, partition: str, *, module: int | None = None, limit: int = 2000
    ) -> tuple[tuple[NodeRow, ...], int]:
        """Return the most important nodes of a partition or of one of its modules, and how many there are in all.

        Nodes of equal importance come in the order of cut and coordinate.
        """
        with self._read() as session:
            owner = resolve(session, Partition, partition)
            query = _nodes_query(owner, module)
            total = session.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0
            order = NodeAssignment.importance.desc(), NodeAssignment.cut, NodeAssignment.coordinate
            rows = _node_rows(session, query.order_by(None).order_by(*order).limit(limit))
            return named(self.blobs, owner.graph, rows), total

    def mediators(
        self, partition: str, *, earlier: int | None = None, later: int | None = None
    ) -> tuple[MediatorRow, ...]:
        """List the mediators of a partition, all or between given modules; strongest first."""
        with self._read() as session:
            rows = session.scalars(_mediators_query(session, partition, earlier, later))
            return tuple(record(row, MediatorRow) for row in rows)

    def mediator_page(
        self,
        partition: str,
        *,
        earlier: int | None = None,
        later: int | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[MediatorRow]:
        """Return one page of `mediators`."""
        with self._read() as session:
            query = _mediators_query(session, partition, earlier, later)
            return mediator_page(session, query, cursor=cursor, limit=limit)

    def check(self) -> CheckReport:
        """Check every artifact and the database for damage; change nothing."""
        with translated(self.location):
            return audit(self.location, self._engine, self.blobs)

    def collect(self, grace: float = 86_400.0) -> Collected:
        """Remove files that no row refers to and that are older than `grace` seconds."""
        with translated(self.location):
            return collect(self._engine, self.blobs, grace)


def result_query(session: Session, kind: Kind[Any, Any], owners: Sequence[str], recipe_hash: str) -> Select[Any]:
    """Select the result of a kind that belongs to the owners and was computed by a recipe."""
    table: Any = TABLES[kind.name]
    query = select(table).where(table.recipe_hash == recipe_hash)
    for name, ref in zip(kind.owners, owners, strict=True):
        query = query.where(belongs(table, name, resolve(session, TABLES[name], ref).key))
    return query


def _nodes_query(partition: Partition, module: int | None) -> Select[NodeAssignment]:
    """Select the nodes of a partition, or of one of its modules, in order."""
    of = NodeAssignment.partition_key == partition.key
    query = select(NodeAssignment).where(of).order_by(NodeAssignment.cut, NodeAssignment.coordinate)
    return query if module is None else query.where(NodeAssignment.module == module)


def _node_rows(session: Session, query: Select[NodeAssignment]) -> list[NodeRow]:
    """Read columns, not objects: a graph may have many nodes."""
    names = ("cut", "coordinate", "module", "importance", "confidence")
    rows = session.execute(query.with_only_columns(*(getattr(NodeAssignment, name) for name in names)))
    return [NodeRow(**dict(zip(names, row, strict=True))) for row in rows]


def _mediators_query(session: Session, partition: str, earlier: int | None, later: int | None) -> Select[Mediator]:
    """Select the mediators of a partition, or between given modules, in order."""
    query = select(Mediator).where(Mediator.partition_key == resolve(session, Partition, partition).key)
    if earlier is not None:
        query = query.where(Mediator.earlier == earlier)
    if later is not None:
        query = query.where(Mediator.later == later)
    order = Mediator.earlier, Mediator.later, Mediator.strength.desc(), Mediator.cut, Mediator.coordinate
    return query.order_by(*order)


def _cut_index(cuts: Sequence[str], cut: int | str) -> int:
    """Return the index of a cut given by name or index; -1, which no node has, where there is none."""
    if cut in cuts:
        return cuts.index(str(cut))
    return int(cut) if str(cut).isdecimal() and len(str(cut)) < 9 else -1


def _found(session: Session, row: Any) -> FoundRow:
    """Say what a row is, what it is called and where to look at it."""
    about: dict[str, Any] = {"kind": "label" if isinstance(row, Label) else row.kind}
    if isinstance(row, Label):
        about |= {"name": row.text, "cut": row.cut, "node": row.node, "module": row.module}
    if isinstance(row, Job):
        return FoundRow(**about, id=row.id, name=f"{row.task} {row.target}", model=None, partition=None)
    graph = session.get(Graph, row.graph_key) if isinstance(row, Label) else None
    chain: list[Any] = [graph if isinstance(row, Label) else row]
    while chain[-1].kind in KINDS and (owners := KINDS[chain[-1].kind].owners):
        chain.append(getattr(chain[-1], owners[0]))
    by: dict[Any, Any] = {type(each): each for each in chain}
    own = by.get(Partition) or _newest_partition(session, row, by.get(Graph))
    about["partition"] = None if own is None else own.id
    about["model"] = by[Model].name if Model in by else None
    return FoundRow(**{"name": _called(chain, by), **about}, id=chain[0].id)


def _newest_partition(session: Session, row: Any, graph: Graph | None) -> Partition | None:
    """Return the partition that a label of a module names, or the newest of a graph."""
    if graph is None:
        return None
    query = select(Partition).where(Partition.graph_key == graph.key)
    if isinstance(row, Label) and row.module is not None:
        query = query.where(Partition.id == row.partition)
    return session.scalar(query.order_by(Partition.created.desc(), Partition.key.desc()).limit(1))


def _called(chain: list[Any], by: dict[Any, Any]) -> str:
    """Name a thing by its model, the number of a later run, and the moment of its checkpoint; a dataset by its hash."""
    if Model not in by:
        return str(getattr(chain[0], "sha256", chain[0].id))
    run, checkpoint = by.get(Run), by.get(Checkpoint)
    number = f"#{run.number}" if run is not None and run.number > 1 else ""
    name = f"{by[Model].name}{number}"
    if checkpoint is None:
        return name
    return f"{name}@{checkpoint.label if checkpoint.step is None else checkpoint.step}"
