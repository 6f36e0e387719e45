"""The store: models, checkpoints and results in a database, large tensors as artifacts beside it.

It takes and returns frozen values, and owns every transaction: files of a result are on disk before its row,
and the row, its modules and its nodes appear together or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from sqlalchemy import insert
from sqlalchemy.orm import Session

from ..records import (
    COMPARISON,
    DESCRIPTION,
    EXPERIMENT,
    GRAPH,
    LEDGER,
    LLC,
    PARTITION,
    TRACKING,
    ComparisonRow,
    ComparisonValues,
    DescriptionRow,
    DescriptionValues,
    ExperimentRow,
    ExperimentValues,
    GraphRow,
    GraphValues,
    Kind,
    LedgerRow,
    LedgerValues,
    LinkRow,
    LlcRow,
    LlcValues,
    MediatorRow,
    ModuleRow,
    PartitionDetail,
    PartitionValues,
    Provenance,
    Record,
    StoreError,
    TrackingDetail,
    TrackingStep,
    TrackingValues,
    Upgrade,
    plain,
    plain_values,
)
from ..storage import connection as connections
from ..storage import schema
from ..storage.artifacts import Blobs
from ..storage.location import locate
from ..storage.references import new_id, resolve
from ..storage.rows import detail
from ..storage.tables import TABLES, Comparison, Graph, Partition, TrackingCheckpoint
from .labels import Labels
from .reading import result_query
from .saving import added, artifacts, check_fit, check_names, drop_unreferenced, fill, forget, parts_of
from .schedules import Schedules
from .tokens import Tokens
from .upkeep import Upkeep

__all__ = ["Store"]


DetailT = TypeVar("DetailT", bound=Record)

AddParts = Callable[[Session, Any], None]  # adds the rows that belong to the row of a result


class Store(Labels, Schedules, Tokens, Upkeep):
    """An open store; use it as a context manager, or `close` it.

    A reference is an ID, the unique start of one, or a name, see `records.kinds.Source`.

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
            patience: seconds that every call waits for a server that cannot be reached; what is saved is saved again
                when the connection breaks meanwhile.

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
        return cls(location, engine, blobs, patience=patience)

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

    def save(
        self,
        kind: Kind[Any, DetailT],
        owners: Sequence[str],
        provenance: Provenance,
        values: Record,
        blobs: Mapping[str, bytes],
        *,
        force: bool,
        add_parts: AddParts | None = None,
    ) -> DetailT:
        """Store a result, or return a complete stored one of the same owners and recipe.

        Args:
            kind: kind of the result.
            owners: references of the things that it belongs to, in the order of `kind.owners`.
            provenance: how it was computed.
            values: numbers that queries use.
            blobs: its files by name.
            force: replace a stored one; its ID stays.
            add_parts: adds the rows that belong to it.
        """
        check_names(kind, blobs)
        columns = plain_values(provenance, Provenance) | plain_values(values, kind.values or type(values))

        def look(session: Session) -> tuple[bool, DetailT | None]:
            found = session.scalar(result_query(session, kind, owners, provenance.recipe_hash))
            whole = found is not None and not force and self._whole(*artifacts(kind, found))
            return found is not None, detail(found, kind) if whole else None

        known, stored = self._find(look)
        if stored is not None:
            return stored
        replace = force or known
        files = self._put(blobs)
        columns |= {f"{name}_sha256": files[name][0] if name in files else None for name in kind.files}
        table = TABLES[kind.name]

        def save(session: Session) -> DetailT:
            query = result_query(session, kind, owners, provenance.recipe_hash)
            row = session.scalar(query.with_for_update(of=table))
            if row is not None and not replace:
                return detail(row, kind)
            garbage = [] if row is None else forget(session, kind, row, files[next(iter(kind.files))][0])
            if row is None:
                of = {name: resolve(session, TABLES[name], ref) for name, ref in zip(kind.owners, owners, strict=True)}
                identity = (*(owner.id for owner in of.values()), provenance.recipe_hash)
                row = table(id=new_id(session, table, *identity), **of)
            fill(session, row, columns, files)
            if add_parts is not None:
                add_parts(session, row)
            drop_unreferenced(session, garbage)
            return detail(row, kind)

        return self._write(save)

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
        return self.save(GRAPH, (checkpoint, dataset), provenance, values, blobs, force=force)

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
        parts = parts_of(modules, links, labels, importance, confidence, mediators)
        check_fit(self.get_graph(graph), values.n_modules, parts, [len(cut) for cut in labels])

        def add(session: Session, row: Any) -> None:
            for table, rows in parts.items():
                if rows:
                    session.execute(insert(table), [{"partition_key": row.key, **each} for each in rows])

        return self.save(PARTITION, (graph,), provenance, values, blobs, force=force, add_parts=add)

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
        return self.save(LEDGER, (checkpoint, dataset), provenance, values, blobs, force=force)

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
        return self.save(LLC, (checkpoint, dataset), provenance, values, blobs, force=force)

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
        return self.save(EXPERIMENT, (partition,), provenance, values, blobs, force=force)

    def save_description(
        self,
        partition: str,
        *,
        provenance: Provenance,
        values: DescriptionValues,
        blobs: Mapping[str, bytes],
        force: bool = False,
    ) -> DescriptionRow:
        """Store cards, or return the stored ones of the same partition and recipe.

        Arguments and exceptions are those of `save_experiment`; the file is "description".
        """
        return self.save(DESCRIPTION, (partition,), provenance, values, blobs, force=force)

    def save_comparison(
        self,
        partition: str,
        other: str | None,
        *,
        provenance: Provenance,
        values: ComparisonValues,
        blobs: Mapping[str, bytes],
        force: bool = False,
    ) -> ComparisonRow:
        """Store a comparison, or return the stored one of the same partition and recipe.

        Args:
            partition: reference of the first partition.
            other: reference of the other one; None of a file.
            provenance: how it was computed.
            values: numbers that queries use.
            blobs: the file: "comparison".
            force: replace a stored one; its ID stays.
        """

        def add(session: Session, row: Comparison) -> None:
            row.other = None if other is None else resolve(session, Partition, other)
            session.flush()

        return self.save(COMPARISON, (partition,), provenance, values, blobs, force=force, add_parts=add)

    def save_tracking(
        self,
        run: str,
        *,
        provenance: Provenance,
        values: TrackingValues,
        steps: Sequence[TrackingStep],
        blobs: Mapping[str, bytes],
        force: bool = False,
    ) -> TrackingDetail:
        """Store a tracking, or return the stored one of the same run and recipe.

        Args:
            run: reference.
            provenance: how it was computed.
            values: numbers that queries use.
            steps: one per checkpoint, in order; `graph` of each is a reference.
            blobs: the file: "tracking".
            force: replace a stored one; its ID stays.

        Raises:
            ReadOnlyError: the database or the artifacts cannot be written; nothing was changed.
            StoreError: the number of steps is not the number of checkpoints.
        """
        if len(steps) != values.n_checkpoints:
            raise StoreError(f"{len(steps)} steps were given for {values.n_checkpoints} checkpoints")

        def add(session: Session, row: Any) -> None:
            for position, step in enumerate(steps):
                graph = resolve(session, Graph, step.graph)
                shares = {name: plain(getattr(step, name)) for name in ("tracks", "sizes", "churn")}
                added(session, TrackingCheckpoint(tracking_key=row.key, position=position, graph=graph, **shares))

        return self.save(TRACKING, (run,), provenance, values, blobs, force=force, add_parts=add)
