"""The reading half of the store: single values, lists, artifacts, nodes, and checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine, Select, select
from sqlalchemy.orm import Session

from ..records.base import Page
from ..records.checkpoints import CheckpointRow, DatasetRow, ModelRow
from ..records.errors import NotFoundError
from ..records.estimates import ExperimentRow, LedgerRow, LlcRow
from ..records.graphs import GraphRow
from ..records.maintenance import CheckReport, Collected
from ..records.partitions import MediatorRow, NodeRow, PartitionDetail, PartitionRow
from ..records.tracking import TrackingDetail, TrackingRow
from ..storage.artifacts import Blobs
from ..storage.audit import audit, collect
from ..storage.connection import translated
from ..storage.location import Location
from ..storage.pages import mediator_page, node_page, page
from ..storage.references import resolve
from ..storage.rows import (
    checkpoint_row,
    dataset_row,
    experiment_row,
    graph_row,
    ledger_row,
    llc_row,
    mediator_row,
    model_row,
    node_row,
    partition_detail,
    partition_row,
    tracking_detail,
    tracking_row,
)
from ..storage.tables import (
    Checkpoint,
    Dataset,
    Experiment,
    Graph,
    Ledger,
    LlcEstimate,
    Mediator,
    Model,
    NodeAssignment,
    Partition,
    Tracking,
)

__all__ = ["Reader", "experiment_query", "partition_query", "result_query", "tracking_query"]

ResultT = TypeVar("ResultT", Graph, Ledger, LlcEstimate)


class Reader:
    """Read from an open store; `Store` adds saving.

    Lists come in pages of `limit` items (1 to 1000), in order of creation or `newest_first`; pass the `next_cursor`
    of a page as `cursor` to get the next page.
    """

    def __init__(self, location: Location, engine: Engine, blobs: Blobs) -> None:
        """Keep the connections that `Store.open` made."""
        self.location = location
        self.blobs = blobs
        self._engine = engine

    @contextmanager
    def _read(self) -> Iterator[Session]:
        with translated(self.location), Session(self._engine) as session:
            yield session

    def get_model(self, ref: str) -> ModelRow:
        """Return the model with this ID or name."""
        with self._read() as session:
            return model_row(resolve(session, Model, ref))

    def get_checkpoint(self, ref: str) -> CheckpointRow:
        """Return the checkpoint with this ID, SHA-256, label, `model@label` or `model@step`."""
        with self._read() as session:
            return checkpoint_row(resolve(session, Checkpoint, ref))

    def get_dataset(self, ref: str) -> DatasetRow:
        """Return the dataset with this ID or SHA-256."""
        with self._read() as session:
            return dataset_row(resolve(session, Dataset, ref))

    def get_graph(self, ref: str) -> GraphRow:
        """Return the graph with this ID."""
        with self._read() as session:
            return graph_row(resolve(session, Graph, ref))

    def get_partition(self, ref: str) -> PartitionDetail:
        """Return the partition with this ID, with modules and links."""
        with self._read() as session:
            return partition_detail(session, resolve(session, Partition, ref))

    def find_graph(self, checkpoint: str, dataset: str, recipe_hash: str) -> GraphRow | None:
        """Return the stored graph of a checkpoint, dataset and recipe, or None."""
        with self._read() as session:
            row = session.scalar(result_query(session, Graph, checkpoint, dataset, recipe_hash))
            return None if row is None else graph_row(row)

    def find_partition(self, graph: str, recipe_hash: str) -> PartitionDetail | None:
        """Return the stored partition of a graph by a recipe, or None."""
        with self._read() as session:
            row = session.scalar(partition_query(session, graph, recipe_hash))
            return None if row is None else partition_detail(session, row)

    def get_ledger(self, ref: str) -> LedgerRow:
        """Return the ledger with this ID."""
        with self._read() as session:
            return ledger_row(resolve(session, Ledger, ref))

    def find_ledger(self, checkpoint: str, dataset: str, recipe_hash: str) -> LedgerRow | None:
        """Return the stored ledger of a checkpoint, dataset and recipe, or None."""
        with self._read() as session:
            row = session.scalar(result_query(session, Ledger, checkpoint, dataset, recipe_hash))
            return None if row is None else ledger_row(row)

    def get_llc(self, ref: str) -> LlcRow:
        """Return the learning coefficient with this ID."""
        with self._read() as session:
            return llc_row(resolve(session, LlcEstimate, ref))

    def find_llc(self, checkpoint: str, dataset: str, recipe_hash: str) -> LlcRow | None:
        """Return the stored learning coefficient of a checkpoint, dataset and recipe, or None."""
        with self._read() as session:
            row = session.scalar(result_query(session, LlcEstimate, checkpoint, dataset, recipe_hash))
            return None if row is None else llc_row(row)

    def get_experiment(self, ref: str) -> ExperimentRow:
        """Return the circuit experiment with this ID."""
        with self._read() as session:
            return experiment_row(resolve(session, Experiment, ref))

    def find_experiment(self, partition: str, recipe_hash: str) -> ExperimentRow | None:
        """Return the stored experiment on a partition by a recipe, or None."""
        with self._read() as session:
            row = session.scalar(experiment_query(session, partition, recipe_hash))
            return None if row is None else experiment_row(row)

    def get_tracking(self, ref: str) -> TrackingDetail:
        """Return the tracking with this ID, with its checkpoints."""
        with self._read() as session:
            return tracking_detail(session, resolve(session, Tracking, ref))

    def find_tracking(self, model: str, recipe_hash: str) -> TrackingDetail | None:
        """Return the stored tracking of a model by a recipe, or None."""
        with self._read() as session:
            row = session.scalar(tracking_query(session, model, recipe_hash))
            return None if row is None else tracking_detail(session, row)

    def models(self, *, cursor: str | None = None, limit: int = 100, newest_first: bool = False) -> Page[ModelRow]:
        """List all models."""
        options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest_first}
        with self._read() as session:
            return page(session, Model, select(Model), model_row, **options)

    def datasets(self, *, cursor: str | None = None, limit: int = 100, newest_first: bool = False) -> Page[DatasetRow]:
        """List all datasets."""
        options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest_first}
        with self._read() as session:
            return page(session, Dataset, select(Dataset), dataset_row, **options)

    def checkpoints(
        self,
        *,
        model: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Page[CheckpointRow]:
        """List checkpoints, all or those of one model."""
        options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest_first}
        with self._read() as session:
            query = select(Checkpoint)
            if model is not None:
                query = query.where(Checkpoint.model_key == resolve(session, Model, model).key)
            return page(session, Checkpoint, query, checkpoint_row, **options)

    def graphs(
        self,
        *,
        model: str | None = None,
        checkpoint: str | None = None,
        dataset: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Page[GraphRow]:
        """List graphs, all or those of one model, checkpoint or dataset."""
        options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest_first}
        with self._read() as session:
            query = select(Graph)
            if dataset is not None:
                query = query.where(Graph.dataset_key == resolve(session, Dataset, dataset).key)
            query = _selected(session, query, Graph, model, checkpoint)
            return page(session, Graph, query, graph_row, **options)

    def partitions(
        self,
        *,
        model: str | None = None,
        checkpoint: str | None = None,
        graph: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Page[PartitionRow]:
        """List partitions without their modules, all or those of one model, checkpoint or graph."""
        options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest_first}
        with self._read() as session:
            query = select(Partition)
            if graph is not None:
                query = query.where(Partition.graph_key == resolve(session, Graph, graph).key)
            if checkpoint is not None:
                owner = resolve(session, Checkpoint, checkpoint).key
                query = query.where(Partition.graph.has(Graph.checkpoint_key == owner))
            if model is not None:
                trained = Checkpoint.model_key == resolve(session, Model, model).key
                query = query.where(Partition.graph.has(Graph.checkpoint.has(trained)))
            return page(session, Partition, query, partition_row, **options)

    def ledgers(
        self,
        *,
        model: str | None = None,
        checkpoint: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Page[LedgerRow]:
        """List ledgers, all or those of one model or checkpoint."""
        options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest_first}
        with self._read() as session:
            query = _selected(session, select(Ledger), Ledger, model, checkpoint)
            return page(session, Ledger, query, ledger_row, **options)

    def llcs(
        self,
        *,
        model: str | None = None,
        checkpoint: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Page[LlcRow]:
        """List learning coefficients, all or those of one model or checkpoint."""
        options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest_first}
        with self._read() as session:
            query = _selected(session, select(LlcEstimate), LlcEstimate, model, checkpoint)
            return page(session, LlcEstimate, query, llc_row, **options)

    def experiments(
        self,
        *,
        model: str | None = None,
        checkpoint: str | None = None,
        partition: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Page[ExperimentRow]:
        """List circuit experiments, all or those of one model, checkpoint or partition."""
        options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest_first}
        with self._read() as session:
            query = select(Experiment)
            if partition is not None:
                query = query.where(Experiment.partition_key == resolve(session, Partition, partition).key)
            if checkpoint is not None:
                owner = Graph.checkpoint_key == resolve(session, Checkpoint, checkpoint).key
                query = query.where(Experiment.partition.has(Partition.graph.has(owner)))
            if model is not None:
                trained = Graph.checkpoint.has(Checkpoint.model_key == resolve(session, Model, model).key)
                query = query.where(Experiment.partition.has(Partition.graph.has(trained)))
            return page(session, Experiment, query, experiment_row, **options)

    def trackings(
        self,
        *,
        model: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Page[TrackingRow]:
        """List trackings without their checkpoints, all or those of one model."""
        options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest_first}
        with self._read() as session:
            query = select(Tracking)
            if model is not None:
                query = query.where(Tracking.model_key == resolve(session, Model, model).key)
            return page(session, Tracking, query, tracking_row, **options)

    def graph_bytes(self, ref: str) -> bytes:
        """Return the file of a graph, for `InteractionGraph.from_bytes`; its hash is verified."""
        return self.blobs.get(self.get_graph(ref).graph_sha256)

    def bases_bytes(self, ref: str) -> bytes:
        """Return the file of the bases of a graph; its hash is verified.

        Raises:
            NotFoundError: the bases were not kept.
        """
        graph = self.get_graph(ref)
        if graph.bases_sha256 is None:
            raise NotFoundError(f"the bases of {graph.id} were not kept: compute the graph again with --force")
        return self.blobs.get(graph.bases_sha256)

    def partition_bytes(self, ref: str) -> bytes:
        """Return the file of a partition, for `Partition.from_bytes`; its hash is verified."""
        with self._read() as session:
            sha256 = resolve(session, Partition, ref).partition_sha256
        return self.blobs.get(sha256)

    def tracking_bytes(self, ref: str) -> bytes:
        """Return the file of a tracking, for `Tracking.from_bytes`; its hash is verified."""
        return self.blobs.get(self.get_tracking(ref).tracking_sha256)

    def experiment_bytes(self, ref: str) -> bytes:
        """Return the file of an experiment, for `Experiment.from_bytes`; its hash is verified."""
        return self.blobs.get(self.get_experiment(ref).experiment_sha256)

    def ledger_bytes(self, ref: str) -> bytes:
        """Return the file of a ledger, for `Ledger.from_bytes`; its hash is verified."""
        return self.blobs.get(self.get_ledger(ref).ledger_sha256)

    def llc_bytes(self, ref: str) -> bytes:
        """Return the file of a learning coefficient, for `from_bytes` of its mode's class; its hash is verified."""
        return self.blobs.get(self.get_llc(ref).llc_sha256)

    def graph_path(self, ref: str) -> Path | None:
        """Return the path of a graph's file for memory mapping; None where artifacts are not local files."""
        return self.blobs.path(self.get_graph(ref).graph_sha256)

    def module_of(self, partition: str, cut: int | str, coordinate: int) -> int | None:
        """Return the module of a node, None where it is in none; arguments as in `get_node`."""
        return self.get_node(partition, cut, coordinate).module

    def get_node(self, partition: str, cut: int | str, coordinate: int) -> NodeRow:
        """Return a node with the module it is in.

        Args:
            partition: reference.
            cut: its index or name.
            coordinate: index of the node at that cut.

        Raises:
            NotFoundError: the graph does not have this cut or node.
        """
        with self._read() as session:
            row = resolve(session, Partition, partition)
            node = session.get(NodeAssignment, (row.key, _cut_index(row.graph.cuts, cut), coordinate))
            if node is None:
                raise NotFoundError(
                    f"no node {coordinate} at cut {cut!r} of {row.id}: its cuts {row.graph.cuts} have "
                    f"{row.graph.widths} nodes, counted from 0"
                )
            return node_row(node)

    def nodes(self, partition: str, *, module: int | None = None) -> tuple[NodeRow, ...]:
        """List the nodes of a partition by cut and coordinate, all or those of one module."""
        names = ("cut", "coordinate", "module", "importance", "confidence")
        columns = [getattr(NodeAssignment, name) for name in names]
        with self._read() as session:
            rows = session.execute(_nodes_query(session, partition, module).with_only_columns(*columns))
            return tuple(NodeRow(**dict(zip(names, row, strict=True))) for row in rows)

    def node_page(
        self, partition: str, *, module: int | None = None, cursor: str | None = None, limit: int = 100
    ) -> Page[NodeRow]:
        """Return one page of `nodes`."""
        with self._read() as session:
            return node_page(session, _nodes_query(session, partition, module), cursor=cursor, limit=limit)

    def mediators(
        self, partition: str, *, earlier: int | None = None, later: int | None = None
    ) -> tuple[MediatorRow, ...]:
        """List the mediators of a partition, all or between given modules; strongest first."""
        with self._read() as session:
            rows = session.scalars(_mediators_query(session, partition, earlier, later))
            return tuple(mediator_row(row) for row in rows)

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


def result_query(
    session: Session, table: type[ResultT], checkpoint: str, dataset: str, recipe_hash: str
) -> Select[ResultT]:
    """Select the graph, ledger or learning coefficient of a checkpoint, dataset and recipe."""
    return select(table).where(
        table.checkpoint_key == resolve(session, Checkpoint, checkpoint).key,
        table.dataset_key == resolve(session, Dataset, dataset).key,
        table.recipe_hash == recipe_hash,
    )


def partition_query(session: Session, graph: str, recipe_hash: str) -> Select[Partition]:
    """Select the partition of a graph by a recipe."""
    return select(Partition).where(
        Partition.graph_key == resolve(session, Graph, graph).key, Partition.recipe_hash == recipe_hash
    )


def experiment_query(session: Session, partition: str, recipe_hash: str) -> Select[Experiment]:
    """Select the experiment on a partition by a recipe."""
    owner = resolve(session, Partition, partition).key
    return select(Experiment).where(Experiment.partition_key == owner, Experiment.recipe_hash == recipe_hash)


def tracking_query(session: Session, model: str, recipe_hash: str) -> Select[Tracking]:
    """Select the tracking of a model by a recipe."""
    owner = resolve(session, Model, model).key
    return select(Tracking).where(Tracking.model_key == owner, Tracking.recipe_hash == recipe_hash)


def _selected(
    session: Session, query: Select[ResultT], table: type[ResultT], model: str | None, checkpoint: str | None
) -> Select[ResultT]:
    """Restrict a query to results of one checkpoint or model, where one is named."""
    if checkpoint is not None:
        query = query.where(table.checkpoint_key == resolve(session, Checkpoint, checkpoint).key)
    if model is not None:
        query = query.where(table.checkpoint.has(Checkpoint.model_key == resolve(session, Model, model).key))
    return query


def _nodes_query(session: Session, partition: str, module: int | None) -> Select[NodeAssignment]:
    """Select the nodes of a partition, or of one of its modules, in order."""
    of = NodeAssignment.partition_key == resolve(session, Partition, partition).key
    query = select(NodeAssignment).where(of).order_by(NodeAssignment.cut, NodeAssignment.coordinate)
    return query if module is None else query.where(NodeAssignment.module == module)


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
