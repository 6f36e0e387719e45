"""The store: models, checkpoints and results in a database, large tensors as artifacts beside it.

It takes and returns frozen values, and owns every transaction: files of a result are on disk before its row,
and the row, its modules and its nodes appear together or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType

from sqlalchemy import insert
from sqlalchemy.orm import Session

from ..records.base import Provenance
from ..records.errors import StoreError
from ..records.estimates import ExperimentRow, ExperimentValues, LedgerRow, LedgerValues, LlcRow, LlcValues
from ..records.graphs import GraphRow, GraphValues
from ..records.maintenance import Upgrade
from ..records.partitions import LinkRow, MediatorRow, ModuleRow, PartitionDetail, PartitionValues
from ..records.tracking import TrackingDetail, TrackingStep, TrackingValues
from ..records.values import plain, plain_values
from ..storage import connection as connections
from ..storage import schema
from ..storage.artifacts import Blobs
from ..storage.location import locate
from ..storage.references import new_id, resolve
from ..storage.rows import experiment_row, graph_row, ledger_row, llc_row, partition_detail, tracking_detail
from ..storage.tables import Experiment, Graph, Ledger, LlcEstimate, Model, Partition, Tracking, TrackingCheckpoint
from .reading import experiment_query, partition_query, tracking_query
from .saving import (
    added,
    check_fit,
    check_names,
    drop_unreferenced,
    fill,
    forget_graph,
    forget_partition,
    forget_tracking,
    parts_of,
)
from .tokens import Tokens
from .transactions import ResultKind

__all__ = ["Store"]


class Store(Tokens):
    """An open store; use it as a context manager, or `close` it.

    A reference is an ID, the unique start of one, or a name: the name of a model; the SHA-256, label, `model@label`
    or `model@step` of a checkpoint; the SHA-256 of a dataset.

    Every method raises `StoreError` where the database or the artifacts cannot be reached or written, and
    `NotFoundError` or `AmbiguousError` for a reference that names nothing or several things.
    """

    @classmethod
    def open(cls, url: str | None = None, artifacts: str | None = None, *, patience: float = 0.0) -> Store:
        """Open the store given, else that of the environment, else the default; see `storage.location.locate`.

        A missing SQLite file and its folder are created; an older file is upgraded.

        Args:
            url: database URL, or path of a SQLite file.
            artifacts: folder or fsspec URL of the artifacts.
            patience: seconds that every call waits for a server that cannot be reached.

        Raises:
            NewerSchemaError: the database was written by a newer version of interbasis.
            OldSchemaError: a PostgreSQL database is empty or older: run `interbasis db upgrade`.
            ReadOnlyError: the SQLite file cannot be created or opened.
            StoreError: anything else is wrong with the database or its name.
        """
        location = locate(url, artifacts)
        blobs = Blobs(str(location.artifacts))
        engine = connections.connect(location, patience=patience)
        try:
            with connections.translated(location):
                schema.prepare(location, engine)
        except BaseException:
            engine.dispose()
            raise
        return cls(location, engine, blobs)

    @staticmethod
    def upgrade(url: str | None = None) -> Upgrade:
        """Upgrade the schema of an empty or older database; safe while other processes do the same."""
        return schema.upgrade(locate(url, need_artifacts=False))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def save_graph(
        self,
        checkpoint: str,
        dataset: str,
        *,
        provenance: Provenance,
        values: GraphValues,
        blobs: Mapping[str, bytes],
        force: bool = False,
    ) -> GraphRow:
        """Store a graph, or return the stored one of the same checkpoint, dataset and recipe.

        Args:
            checkpoint: reference.
            dataset: reference.
            provenance: how it was computed.
            values: numbers that queries use.
            blobs: the files: "graph", and "bases" to keep those.
            force: replace a stored one. Its ID stays; its partitions stay only if the new graph is the same
                to the last bit. A stored one with missing files is always replaced.

        Raises:
            ReadOnlyError: the database or the artifacts cannot be written; nothing was changed.
        """
        columns = plain_values(provenance, Provenance) | plain_values(values, GraphValues)
        kind = ResultKind(Graph, ("graph", "bases"), graph_row, forget_graph)
        return self._save(kind, checkpoint, dataset, columns, blobs, force)

    def save_partition(
        self,
        graph: str,
        *,
        provenance: Provenance,
        values: PartitionValues,
        modules: Sequence[ModuleRow],
        links: Sequence[LinkRow],
        labels: Sequence[Sequence[int]],
        importance: Sequence[Sequence[float]],
        blobs: Mapping[str, bytes],
        confidence: Sequence[Sequence[float]] = (),
        mediators: Sequence[MediatorRow] = (),
        force: bool = False,
    ) -> PartitionDetail:
        """Store a partition, or return the stored one of the same graph and recipe.

        Args:
            graph: reference.
            provenance: how it was computed.
            values: numbers that queries use.
            modules: one per module.
            links: the quotient graph.
            labels: for each cut the module of each node, -1 for none.
            importance: for each cut the importance of each node.
            blobs: the file: "partition".
            confidence: for each cut the confidence of each node; may be empty.
            mediators: the nodes through which modules interact.
            force: replace a stored one; its ID stays.

        Raises:
            ReadOnlyError: the database or the artifacts cannot be written; nothing was changed.
            StoreError: the labels do not fit the graph or the modules.
        """
        check_names(blobs, needed="partition", known=("partition",))
        columns = plain_values(provenance, Provenance) | plain_values(values, PartitionValues)
        parts = parts_of(modules, links, labels, importance, confidence, mediators)
        found = self.find_partition(graph, provenance.recipe_hash)
        if found and not force and self._whole(found.partition_sha256):
            return found
        check_fit(self.get_graph(graph), values.n_modules, parts, [len(cut) for cut in labels])
        replace = force or found is not None
        files = self._put(blobs)

        def save(session: Session) -> PartitionDetail:
            query = partition_query(session, graph, provenance.recipe_hash)
            row = session.scalar(query.with_for_update(of=Partition))
            if row is not None and not replace:
                return partition_detail(session, row)
            garbage = [] if row is None else forget_partition(session, row, files["partition"][0])
            if row is None:
                owner = resolve(session, Graph, graph)
                row = Partition(id=new_id(session, Partition, owner.id, provenance.recipe_hash), graph=owner)
            fill(session, row, columns | {"partition_sha256": files["partition"][0]}, files)
            for table, rows in parts.items():
                if rows:
                    session.execute(insert(table), [{"partition_key": row.key, **values} for values in rows])
            drop_unreferenced(session, garbage)
            return partition_detail(session, row)

        return self._write(save)

    def save_ledger(
        self,
        checkpoint: str,
        dataset: str,
        *,
        provenance: Provenance,
        values: LedgerValues,
        blobs: Mapping[str, bytes],
        force: bool = False,
    ) -> LedgerRow:
        """Store a ledger, or return the stored one of the same checkpoint, dataset and recipe.

        Args:
            checkpoint: reference.
            dataset: reference.
            provenance: how it was computed.
            values: numbers that queries use.
            blobs: the file: "ledger".
            force: replace a stored one; its ID stays.

        Raises:
            ReadOnlyError: the database or the artifacts cannot be written; nothing was changed.
        """
        columns = plain_values(provenance, Provenance) | plain_values(values, LedgerValues)
        return self._save(ResultKind(Ledger, ("ledger",), ledger_row), checkpoint, dataset, columns, blobs, force)

    def save_llc(
        self,
        checkpoint: str,
        dataset: str,
        *,
        provenance: Provenance,
        values: LlcValues,
        blobs: Mapping[str, bytes],
        force: bool = False,
    ) -> LlcRow:
        """Store a learning coefficient, or return the stored one of the same checkpoint, dataset and recipe.

        Arguments and exceptions are those of `save_ledger`; the file is "llc".
        """
        columns = plain_values(provenance, Provenance) | plain_values(values, LlcValues)
        return self._save(ResultKind(LlcEstimate, ("llc",), llc_row), checkpoint, dataset, columns, blobs, force)

    def save_experiment(
        self,
        partition: str,
        *,
        provenance: Provenance,
        values: ExperimentValues,
        blobs: Mapping[str, bytes],
        force: bool = False,
    ) -> ExperimentRow:
        """Store a circuit experiment, or return the stored one of the same partition and recipe.

        Args:
            partition: reference.
            provenance: how it was computed.
            values: numbers that queries use.
            blobs: the file: "experiment".
            force: replace a stored one; its ID stays.

        Raises:
            ReadOnlyError: the database or the artifacts cannot be written; nothing was changed.
        """
        check_names(blobs, needed="experiment", known=("experiment",))
        columns = plain_values(provenance, Provenance) | plain_values(values, ExperimentValues)
        found = self.find_experiment(partition, provenance.recipe_hash)
        if found and not force and self._whole(found.experiment_sha256):
            return found
        replace = force or found is not None
        files = self._put(blobs)

        def save(session: Session) -> ExperimentRow:
            query = experiment_query(session, partition, provenance.recipe_hash)
            row = session.scalar(query.with_for_update(of=Experiment))
            if row is not None and not replace:
                return experiment_row(row)
            garbage = [] if row is None else [row.experiment_sha256]
            if row is None:
                owner = resolve(session, Partition, partition)
                row = Experiment(id=new_id(session, Experiment, owner.id, provenance.recipe_hash), partition=owner)
            fill(session, row, columns | {"experiment_sha256": files["experiment"][0]}, files)
            drop_unreferenced(session, garbage)
            return experiment_row(row)

        return self._write(save)

    def save_tracking(
        self,
        model: str,
        *,
        provenance: Provenance,
        values: TrackingValues,
        steps: Sequence[TrackingStep],
        blobs: Mapping[str, bytes],
        force: bool = False,
    ) -> TrackingDetail:
        """Store a tracking, or return the stored one of the same model and recipe.

        Args:
            model: reference.
            provenance: how it was computed.
            values: numbers that queries use.
            steps: one per checkpoint, in order; `graph` of each is a reference.
            blobs: the file: "tracking".
            force: replace a stored one; its ID stays.

        Raises:
            ReadOnlyError: the database or the artifacts cannot be written; nothing was changed.
            StoreError: the number of steps is not the number of checkpoints.
        """
        check_names(blobs, needed="tracking", known=("tracking",))
        if len(steps) != values.n_checkpoints:
            raise StoreError(f"{len(steps)} steps were given for {values.n_checkpoints} checkpoints")
        columns = plain_values(provenance, Provenance) | plain_values(values, TrackingValues)
        found = self.find_tracking(model, provenance.recipe_hash)
        if found and not force and self._whole(found.tracking_sha256):
            return found
        replace = force or found is not None
        files = self._put(blobs)

        def save(session: Session) -> TrackingDetail:
            row = session.scalar(tracking_query(session, model, provenance.recipe_hash).with_for_update(of=Tracking))
            if row is not None and not replace:
                return tracking_detail(session, row)
            garbage = [] if row is None else forget_tracking(session, row)
            if row is None:
                owner = resolve(session, Model, model)
                row = Tracking(id=new_id(session, Tracking, owner.id, provenance.recipe_hash), model=owner)
            fill(session, row, columns | {"tracking_sha256": files["tracking"][0]}, files)
            for position, step in enumerate(steps):
                graph = resolve(session, Graph, step.graph)
                shares = {name: plain(getattr(step, name)) for name in ("tracks", "sizes", "churn")}
                added(session, TrackingCheckpoint(tracking_key=row.key, position=position, graph=graph, **shares))
            drop_unreferenced(session, garbage)
            return tracking_detail(session, row)

        return self._write(save)
