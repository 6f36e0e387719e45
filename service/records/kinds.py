"""All kinds of stored things, and the one interface to read them, which a local store and a remote client share."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

from .base import Kind, Page, Record
from .checkpoints import (
    CHECKPOINT,
    DATASET,
    MODEL,
    RUN,
    CheckpointRow,
    DatasetRow,
    ModelRow,
    RunRow,
    checkpoint_sha256,
    describe,
    of_checkpoint,
    run_label,
    training_key,
)
from .errors import NotFoundError, StoreError
from .estimates import DESCRIPTION, EXPERIMENT, LEDGER, LLC, DescriptionRow, ExperimentRow, LedgerRow, LlcRow
from .graphs import GRAPH, GraphRow
from .labels import LabelRow, NewLabel, Place
from .partitions import (
    AGREEMENTS,
    COMPARISON,
    PARTITION,
    TRACKING,
    ComparisonRow,
    MediatorRow,
    NodeRow,
    Outcome,
    PartitionDetail,
    PartitionRow,
    TrackingDetail,
    TrackingRow,
)

__all__ = ["KINDS", "VERDICTS", "Paging", "Source", "check_paging", "kinds_of", "likely_kinds"]

RowT = TypeVar("RowT", bound=Record)
DetailT = TypeVar("DetailT", bound=Record)

KINDS: dict[str, Kind[Any, Any]] = {
    kind.name: kind
    for kind in (
        *(MODEL, RUN, CHECKPOINT, DATASET, GRAPH, PARTITION, LEDGER, LLC, EXPERIMENT, DESCRIPTION),
        *(COMPARISON, TRACKING),
    )
}
"""Every kind of stored thing that results belong to or are, by its name."""

VERDICTS = (
    *("supported", "one module", "not told apart from chance", "untested", "refuted"),
    *("reliable", "doubtful", "failed"),
    *AGREEMENTS,
)
"""Every verdict on a result."""


_LETTERS: dict[str, tuple[str, ...]] = {
    **{kind.name[0]: (kind.name,) for kind in KINDS.values()},
    "c": ("checkpoint",),
    "d": ("dataset",),
    "v": ("comparison",),
    "x": ("description",),
    "l": ("ledger", "llc"),
    "n": ("llc",),
    "t": ("tracking", "token"),
    "j": ("job",),
    "s": ("schedule",),
}
"""For each letter that IDs begin with, the kinds of which something may have such an ID."""

_ID = re.compile("([a-z])-[0-9a-f]+")

_WHOLE = len("p-1a2b3c4d")  # characters of an ID


def kinds_of(ref: str) -> tuple[str, ...]:
    """Return the kinds of which something may have this ID, or start of an ID; none for a name.

    >>> kinds_of("p-12ab"), kinds_of("digits@500")
    (('partition',), ())
    """
    found = _ID.fullmatch(ref)
    return _LETTERS.get(found.group(1), ()) if found else ()


def likely_kinds(ref: str) -> tuple[str, ...]:
    """Return the kinds of which something may have this ID, start of an ID, or name; in the order to look in.

    A name is more exact than the start of an ID that looks the same.

    >>> likely_kinds("p-1a2b3c4d"), likely_kinds("digits@500")
    (('partition',), ('checkpoint',))
    >>> likely_kinds("digits"), likely_kinds("p-12ab")
    (('model', 'checkpoint', 'run'), ('model', 'partition', 'checkpoint', 'run'))
    """
    kinds = kinds_of(ref)
    if kinds and len(ref) >= _WHOLE:
        return kinds
    return ("checkpoint",) if "@" in ref else tuple(dict.fromkeys(("model", *kinds, "checkpoint", "run")))


class Paging(TypedDict, total=False):
    """The part of a list to read.

    Attributes:
        cursor: the `next_cursor` of the page before; default: from the beginning.
        limit: number of items, 1 to 1000; default: 100.
        newest_first: whether the newest come first; default: in order of creation.
        step: only checkpoints of this step, or results of these.
        since: only what was stored at this moment or later; a moment without a time zone is in UTC.
        verdict: only results whose verdict starts with this.
    """

    cursor: str | None
    limit: int
    newest_first: bool
    step: int | None
    since: datetime | None
    verdict: str | None


def check_paging(kind: Kind[Any, Any], paging: Paging) -> None:
    """Refuse to narrow a list by what things of its kind do not have, or by a verdict that there is not.

    Raises:
        StoreError: the message names it.
    """
    for name in ("step", "verdict"):
        if paging.get(name) is not None and name not in kind.narrowings:
            raise StoreError(f"{kind.plural} have no {name}: the list can be narrowed by {', '.join(kind.narrowings)}")
    verdict = paging.get("verdict")
    if verdict is not None and not any(known.startswith(verdict) for known in VERDICTS):
        raise StoreError(f"there is no verdict {verdict!r}: expected one of {', '.join(VERDICTS)}, or the start of one")


class Source(ABC):
    """Stored things, read from a local `Store` or a remote `Client` by the same methods.

    A reference is an ID, the unique start of one, or a name:

    - `last`: the newest thing of the kind that is asked for.
    - a model: its name. A run: `model#number` or `model#label`; a model's name is its newest run.
    - a checkpoint: its SHA-256, its label, or `run@step`, `run@label` and `run@last` with a run as above.
    - a result: `run@step` and `run@label` are the newest result of that checkpoint, `run@last` that of the last
      checkpoint which has one. A tracking is `run@last`.
    - a dataset: its SHA-256.

    Lists come in pages, see `Paging`.

    Every method raises `NotFoundError` or `AmbiguousError` for a reference that names nothing or several things.
    """

    @abstractmethod
    def get(self, kind: Kind[Any, DetailT], ref: str) -> DetailT:
        """Return the thing of this kind that a reference names, with all details."""

    def find_any(self, kinds: Sequence[Kind[Any, Any]], ref: str) -> tuple[Kind[Any, Any], Any]:
        """Return what a reference names among several kinds, with its kind: the first that has it.

        `last` is the newest thing of all these kinds.
        """
        found = []
        kinds = [kind for kind in kinds if kind.name in kinds_of(ref)] or kinds
        for kind in kinds:
            try:
                found.append((kind, self.get(kind, ref)))
            except NotFoundError:
                continue
            if ref != "last":
                break
        if not found:
            return kinds[0], self.get(kinds[0], ref)  # raises its error
        return max(found, key=lambda each: each[1].created)

    def called(self, kind: Kind[Any, Any], row: Any) -> str:
        """Return a name for a result of a checkpoint that refers to it now, like `digits@last`; else its ID."""
        checkpoint = self.get_checkpoint(row.checkpoint)
        run = self.get_run(checkpoint.run)
        runs = [run.model, f"{run.model}#{run.number}"]
        for name in (f"{of}@{moment}" for of in runs for moment in ("last", checkpoint.step) if moment is not None):
            try:
                if self.get(kind, name).id == row.id:
                    return name
            except NotFoundError:
                continue
        return str(row.id)

    def place_of(self, row: Any) -> str:
        """Name the checkpoint of a result, like `digits@500`, with its run, `digits#2@500`, where a model has several.

        Of a result of a run it is the run.
        """
        several = len(self.runs(model=row.model, limit=2).items) > 1
        run = f"{row.model}#{row.run_number}" if several else row.model
        if not hasattr(row, "checkpoint"):
            return str(run)
        return f"{run}@{row.label if row.step is None else row.step}"

    @contextmanager
    def together(self, files: Iterable[Path]) -> Iterator[None]:
        """Register checkpoint files as one call while this is open: its new files belong to one training.

        Without it each file joins the newest run of its model, family and config that lacks its step. Here one file
        that has a step of that run (without a step: a label) with another content makes a new run for all new files.
        Files that name a run, and stored ones, stay with theirs.
        """
        self._left = _runs_to_leave(self, files)
        try:
            yield
        finally:
            self._left = {}

    _left: Mapping[str, int] = {}
    """For each training, see `training_key`, the number of the run that `together` keeps new files out of."""

    @abstractmethod
    def page(self, kind: Kind[RowT, Any], of: dict[str, str | None], paging: Paging) -> Page[RowT]:
        """Return a page of the things of this kind that belong to the things named in `of`, by kind."""

    def every(self, kind: Kind[RowT, Any], **of: str | None) -> list[RowT]:
        """Return all things of this kind that belong to the things named in `of`, by kind, in order of creation."""
        rows: list[RowT] = []
        cursor: str | None = None
        while True:
            page = self.page(kind, of, {"cursor": cursor, "limit": 1000})
            rows += page.items
            cursor = page.next_cursor
            if cursor is None:
                return rows

    @abstractmethod
    def file(self, kind: Kind[Any, Any], ref: str, name: str | None = None) -> bytes:
        """Return a file of a result, by default the first of its kind; its hash is verified.

        Raises:
            NotFoundError: the file was not kept.
        """

    @abstractmethod
    def nodes(self, partition: str, *, module: int | None = None) -> tuple[NodeRow, ...]:
        """List the nodes of a partition by cut and coordinate, all or those of one module."""

    @abstractmethod
    def get_node(self, partition: str, cut: int | str, coordinate: int) -> NodeRow:
        """Return a node with the module it is in.

        Args:
            partition: reference.
            cut: its index or name.
            coordinate: index of the node at that cut.

        Raises:
            NotFoundError: the graph does not have this cut or node.
        """

    @abstractmethod
    def mediators(
        self, partition: str, *, earlier: int | None = None, later: int | None = None
    ) -> tuple[MediatorRow, ...]:
        """List the mediators of a partition, all or between given modules; strongest first."""

    @abstractmethod
    def labels(self, kind: Kind[Any, Any], ref: str, *, history: bool = False) -> tuple[LabelRow, ...]:
        """List the labels of a graph (of its nodes) or a partition (of its modules, and of its graph's nodes).

        Labels of modules of the graph's other partitions are listed at the module with which they share more than half
        of the nodes of both, with `origin` and `overlap`.

        Args:
            kind: GRAPH or PARTITION.
            ref: reference.
            history: list all that was ever said instead, oldest first; of a graph also of all modules.
        """

    @abstractmethod
    def put_labels(self, kind: Kind[Any, Any], ref: str, labels: Sequence[NewLabel]) -> tuple[LabelRow, ...]:
        """Store labels of nodes or modules, all or none, and return them; what they replace is kept in the history.

        A label that is there already, by the same author and with the same confidence, is not stored again.

        Args:
            kind: GRAPH, for nodes, or PARTITION, for modules and for nodes of its graph.
            ref: reference.
            labels: at most one of each node or module and source.

        Raises:
            StoreError: a text is empty, too long or no line; or another value is not valid, see `check_label`.
            NotFoundError: the graph or partition does not have a node or module.
        """

    @abstractmethod
    def remove_label(
        self, kind: Kind[Any, Any], ref: str, *, author: str, source: str = "human", **place: Unpack[Place]
    ) -> LabelRow:
        """Remove the label of a node or a module; it is kept in the history. Return the entry that says so.

        Args:
            kind: GRAPH or PARTITION.
            ref: reference.
            author: who removes it.
            source: whose label it is.
            place: `cut` (name or index) and `node`, or `module`.

        Raises:
            NotFoundError: there is no such label.
        """

    def module_of(self, partition: str, cut: int | str, coordinate: int) -> int | None:
        """Return the module of a node, None where it is in none; arguments as in `get_node`."""
        return self.get_node(partition, cut, coordinate).module

    def outcome(self, graph: str, partition: str) -> Outcome:
        """Return what the analysis of a checkpoint stored: its graph and partition, with checkpoint and data set."""
        of, made = self.get_graph(graph), self.get_partition(partition)
        checkpoint, dataset = self.get_checkpoint(of.checkpoint), self.get_dataset(of.dataset)
        return Outcome(checkpoint=checkpoint, dataset=dataset, graph=of, partition=made)

    def get_model(self, ref: str) -> ModelRow:
        """Return the model with this ID or name."""
        return self.get(MODEL, ref)

    def models(self, **paging: Unpack[Paging]) -> Page[ModelRow]:
        """List all models."""
        return self.page(MODEL, {}, paging)

    def get_run(self, ref: str) -> RunRow:
        """Return the run with this ID, `model#number` or `model#label`; of a model its newest."""
        return self.get(RUN, ref)

    def runs(self, *, model: str | None = None, **paging: Unpack[Paging]) -> Page[RunRow]:
        """List runs, all or those of one model."""
        return self.page(RUN, {"model": model}, paging)

    def get_checkpoint(self, ref: str) -> CheckpointRow:
        """Return the checkpoint with this ID, SHA-256, label, `model@label` or `model@step`."""
        return self.get(CHECKPOINT, ref)

    def checkpoints(
        self, *, model: str | None = None, run: str | None = None, **paging: Unpack[Paging]
    ) -> Page[CheckpointRow]:
        """List checkpoints, all or those of one model or run."""
        return self.page(CHECKPOINT, {"model": model, "run": run}, paging)

    def get_dataset(self, ref: str) -> DatasetRow:
        """Return the data set with this ID or SHA-256."""
        return self.get(DATASET, ref)

    def datasets(self, **paging: Unpack[Paging]) -> Page[DatasetRow]:
        """List all data sets."""
        return self.page(DATASET, {}, paging)

    def get_graph(self, ref: str) -> GraphRow:
        """Return the record of the graph with this ID."""
        return self.get(GRAPH, ref)

    def graphs(
        self,
        *,
        model: str | None = None,
        run: str | None = None,
        checkpoint: str | None = None,
        dataset: str | None = None,
        **paging: Unpack[Paging],
    ) -> Page[GraphRow]:
        """List graphs, all or those of one model, run, checkpoint or data set."""
        return self.page(GRAPH, {"model": model, "run": run, "checkpoint": checkpoint, "dataset": dataset}, paging)

    def graph_bytes(self, ref: str) -> bytes:
        """Return the file of a graph, for `InteractionGraph.from_bytes`; its hash is verified."""
        return self.file(GRAPH, ref)

    def bases_bytes(self, ref: str) -> bytes:
        """Return the file of the bases of a graph, for `Bases.from_bytes`; its hash is verified.

        Raises:
            NotFoundError: the bases were not kept.
        """
        return self.file(GRAPH, ref, "bases")

    def get_partition(self, ref: str) -> PartitionDetail:
        """Return the record of the partition with this ID, with modules and links."""
        return self.get(PARTITION, ref)

    def partitions(
        self,
        *,
        model: str | None = None,
        run: str | None = None,
        checkpoint: str | None = None,
        graph: str | None = None,
        **paging: Unpack[Paging],
    ) -> Page[PartitionRow]:
        """List partitions without their modules, all or those of one model, run, checkpoint or graph."""
        return self.page(PARTITION, {"model": model, "run": run, "checkpoint": checkpoint, "graph": graph}, paging)

    def partition_bytes(self, ref: str) -> bytes:
        """Return the file of a partition, for `Partition.from_bytes`; its hash is verified."""
        return self.file(PARTITION, ref)

    def get_ledger(self, ref: str) -> LedgerRow:
        """Return the record of the ledger with this ID."""
        return self.get(LEDGER, ref)

    def ledgers(
        self,
        *,
        model: str | None = None,
        run: str | None = None,
        checkpoint: str | None = None,
        **paging: Unpack[Paging],
    ) -> Page[LedgerRow]:
        """List ledgers, all or those of one model, run or checkpoint."""
        return self.page(LEDGER, {"model": model, "run": run, "checkpoint": checkpoint}, paging)

    def ledger_bytes(self, ref: str) -> bytes:
        """Return the file of a ledger, for `Ledger.from_bytes`; its hash is verified."""
        return self.file(LEDGER, ref)

    def get_llc(self, ref: str) -> LlcRow:
        """Return the record of the learning coefficient with this ID."""
        return self.get(LLC, ref)

    def llcs(
        self,
        *,
        model: str | None = None,
        run: str | None = None,
        checkpoint: str | None = None,
        **paging: Unpack[Paging],
    ) -> Page[LlcRow]:
        """List learning coefficients, all or those of one model, run or checkpoint."""
        return self.page(LLC, {"model": model, "run": run, "checkpoint": checkpoint}, paging)

    def llc_bytes(self, ref: str) -> bytes:
        """Return the file of a learning coefficient, for `from_bytes` of its mode's class; its hash is verified."""
        return self.file(LLC, ref)

    def get_experiment(self, ref: str) -> ExperimentRow:
        """Return the record of the circuit experiment with this ID."""
        return self.get(EXPERIMENT, ref)

    def experiments(
        self,
        *,
        model: str | None = None,
        run: str | None = None,
        checkpoint: str | None = None,
        partition: str | None = None,
        **paging: Unpack[Paging],
    ) -> Page[ExperimentRow]:
        """List circuit experiments, all or those of one model, run, checkpoint or partition."""
        return self.page(
            EXPERIMENT, {"model": model, "run": run, "checkpoint": checkpoint, "partition": partition}, paging
        )

    def experiment_bytes(self, ref: str) -> bytes:
        """Return the file of a circuit experiment, for `Experiment.from_bytes`; its hash is verified."""
        return self.file(EXPERIMENT, ref)

    def get_description(self, ref: str) -> DescriptionRow:
        """Return the record of the description with this ID."""
        return self.get(DESCRIPTION, ref)

    def descriptions(
        self,
        *,
        model: str | None = None,
        run: str | None = None,
        checkpoint: str | None = None,
        partition: str | None = None,
        **paging: Unpack[Paging],
    ) -> Page[DescriptionRow]:
        """List descriptions, all or those of one model, run, checkpoint or partition."""
        return self.page(
            DESCRIPTION, {"model": model, "run": run, "checkpoint": checkpoint, "partition": partition}, paging
        )

    def description_bytes(self, ref: str) -> bytes:
        """Return the file of a description, for `Cards.from_bytes`; its hash is verified."""
        return self.file(DESCRIPTION, ref)

    def get_comparison(self, ref: str) -> ComparisonRow:
        """Return the record of the comparison with this ID."""
        return self.get(COMPARISON, ref)

    def comparisons(
        self,
        *,
        model: str | None = None,
        run: str | None = None,
        checkpoint: str | None = None,
        partition: str | None = None,
        **paging: Unpack[Paging],
    ) -> Page[ComparisonRow]:
        """List comparisons, all or those of one model, run, checkpoint or partition, on either side."""
        return self.page(
            COMPARISON, {"model": model, "run": run, "checkpoint": checkpoint, "partition": partition}, paging
        )

    def comparison_bytes(self, ref: str) -> bytes:
        """Return the file of a comparison, for `Comparison.from_bytes`; its hash is verified."""
        return self.file(COMPARISON, ref)

    def get_tracking(self, ref: str) -> TrackingDetail:
        """Return the record of the tracking with this ID, with its checkpoints."""
        return self.get(TRACKING, ref)

    def trackings(
        self, *, model: str | None = None, run: str | None = None, **paging: Unpack[Paging]
    ) -> Page[TrackingRow]:
        """List trackings without their checkpoints, all or those of one model or run."""
        return self.page(TRACKING, {"model": model, "run": run}, paging)

    def tracking_bytes(self, ref: str) -> bytes:
        """Return the file of a tracking, for `Tracking.from_bytes`; its hash is verified."""
        return self.file(TRACKING, ref)


def _runs_to_leave(source: Source, files: Iterable[Path]) -> dict[str, int]:
    """Return, for each training with a file that the newest run has with another content, the number of that run."""
    stored: dict[str, tuple[int, dict[Any, set[str]]]] = {}
    left: dict[str, int] = {}
    for file in files:
        try:
            file, found = of_checkpoint(file)
            about = describe(found, file.stem)
        except StoreError:
            continue  # it is refused when it is registered
        key = training_key(about["model"], about["family"], about["config"])
        if run_label(about) is None and key not in left:
            if key not in stored:
                stored[key] = _moments(source, about)
            number, moments = stored[key]
            known = moments.get(_moment(about.get("step"), about["label"]))
            if known and checkpoint_sha256(file) not in known:
                left[key] = number
    return left


def _moments(source: Source, about: Mapping[str, Any]) -> tuple[int, dict[Any, set[str]]]:
    """Return number and moments, each with the hashes of its files, of the newest run of a model, family and config."""
    moments: dict[Any, set[str]] = {}
    try:
        runs = source.every(RUN, model=about["model"])
    except NotFoundError:
        return 0, moments
    found = [run for run in runs if (run.family, run.config) == (about["family"], about["config"])]
    for row in source.every(CHECKPOINT, run=found[-1].id) if found else ():
        moments.setdefault(_moment(row.step, row.label), set()).add(row.sha256)
    return (found[-1].number if found else 0), moments


def _moment(step: int | None, label: str | None) -> int | str | None:
    return label if step is None else step
