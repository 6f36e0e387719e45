"""What the store takes, hands out and raises: frozen values and one tree of exceptions.

StoreError
├── NotFoundError         a reference names nothing that is stored
├── AmbiguousError        a reference names several things
├── ConflictError         what is asked for contradicts what is stored
├── ForbiddenError        a file that the service may not read
├── ReadOnlyError         the store file, its folder or the artifact folder cannot be written
├── OldSchemaError        the database is empty or older than this version of interbasis
├── NewerSchemaError      the database was written by a newer version of interbasis
├── UnavailableError      the database or the service cannot be reached, is busy, or its disk is full
├── DatabaseError         the database is damaged, or is none
└── ArtifactError         an artifact is missing, damaged, or cannot be written
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar

__all__ = [
    "AmbiguousError",
    "ArtifactError",
    "CheckReport",
    "CheckpointRow",
    "Collected",
    "Comparison",
    "ConflictError",
    "DatabaseError",
    "DatasetRow",
    "EdgeRow",
    "ExperimentRow",
    "ExperimentValues",
    "ExportError",
    "FileRow",
    "ForbiddenError",
    "GraphRow",
    "GraphValues",
    "LedgerRow",
    "LedgerValues",
    "LinkRow",
    "LlcRow",
    "LlcValues",
    "MediatorRow",
    "ModelRow",
    "ModuleRow",
    "NewerSchemaError",
    "NodeRow",
    "NotFoundError",
    "OldSchemaError",
    "Outcome",
    "OverlapRow",
    "Page",
    "PartitionDetail",
    "PartitionRow",
    "PartitionValues",
    "Provenance",
    "ReadOnlyError",
    "Record",
    "StoreError",
    "Subgraph",
    "TrackingDetail",
    "TrackingRow",
    "TrackingStep",
    "TrackingValues",
    "UnavailableError",
    "Upgrade",
    "WorkerRow",
]


class StoreError(Exception):
    """Base of every exception that the store raises on purpose.

    Attributes:
        code: what a service calls it, for programs.
        public: what a service says instead of the message, where that names places on the server.
    """

    code: ClassVar[str] = "invalid"
    public: str | None = None


class NotFoundError(StoreError):
    """A reference names nothing that is stored."""

    code = "not-found"


class AmbiguousError(StoreError):
    """A reference names several things."""

    code = "ambiguous"


class ConflictError(StoreError):
    """What is asked for contradicts what is stored."""

    code = "conflict"


class ForbiddenError(StoreError):
    """A file that the service may not read."""

    code = "forbidden"


class ReadOnlyError(StoreError):
    """The store file, its folder or the artifact folder cannot be written."""

    code = "read-only"


class OldSchemaError(StoreError):
    """The database is empty or older than this version of interbasis."""

    code = "old-schema"


class NewerSchemaError(StoreError):
    """The database was written by a newer version of interbasis."""

    code = "newer-schema"


class UnavailableError(StoreError):
    """The database or the service cannot be reached, is busy, or its disk is full: try again later."""

    code = "unavailable"


class DatabaseError(StoreError):
    """The database is damaged, is none, or failed in a way that is not known."""

    code = "database-failed"


class ArtifactError(StoreError):
    """An artifact is missing, damaged, or cannot be written."""

    code = "artifact-failed"


class ExportError(ArtifactError):
    """The process that wrote a file for another tool failed."""

    code = "export-failed"


def _plain(value: Any) -> Any:
    """The value with records, tuples and dates turned into what JSON knows."""
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, datetime):
        return value.isoformat()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


class Record:
    """Base of the frozen values."""

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON-ready values, dates in ISO 8601, UTC.

        >>> LinkRow(earlier=0, later=1, n_edges=2, edge_cost=0.5, mediator_cost=0.5).to_json()["later"]
        1
        """
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]


RecordT = TypeVar("RecordT", bound=Record)


@dataclass(frozen=True, kw_only=True)
class Page(Record, Generic[RecordT]):
    """Part of a list, in order of creation.

    Attributes:
        items: the values.
        next_cursor: pass it as `cursor` to get the next part; None at the end.
    """

    items: tuple[RecordT, ...]
    next_cursor: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelRow(Record):
    """A network that is trained: its name, and how to build it."""

    id: str
    name: str
    family: str
    config: dict[str, Any]
    created: datetime


@dataclass(frozen=True, kw_only=True)
class CheckpointRow(Record):
    """A model at one moment of its training.

    Attributes:
        model: name of the model.
        sha256: hash of the checkpoint's file.
        step, label: when in the training; both may be None.
        path: where the file was read from.
        about: the JSON that belongs to the file; None where it is beside the file only.
        file_sha256: the file as an artifact; None where it was not kept.
    """

    id: str
    model: str
    sha256: str
    step: int | None
    label: str | None
    family: str
    config: dict[str, Any]
    path: str | None
    created: datetime
    about: dict[str, Any] | None = None
    file_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetRow(Record):
    """Data on which results were computed, known by its hash."""

    id: str
    sha256: str
    description: str
    created: datetime


@dataclass(frozen=True, kw_only=True)
class FileRow(Record):
    """A file among the artifacts; `uri` is what jobs and checkpoints call it."""

    sha256: str
    uri: str
    bytes: int
    created: datetime


@dataclass(frozen=True, kw_only=True)
class Provenance(Record):
    """How a result came about: every choice and its hash, version of the code, seed, seconds taken."""

    recipe: Mapping[str, Any]
    recipe_hash: str
    code_version: str
    seed: int
    wall_time: float


@dataclass(frozen=True, kw_only=True)
class GraphValues(Record):
    """Numbers of an interaction graph that are queried; the strengths themselves are an artifact."""

    cuts: tuple[str, ...]
    widths: tuple[int, ...]
    basis: str
    strengths: str
    n_nodes: int
    n_edges: int


@dataclass(frozen=True, kw_only=True)
class GraphRow(GraphValues, Provenance):
    """A stored interaction graph.

    Attributes:
        model: name of the model.
        checkpoint, dataset: their IDs.
        graph_sha256, bases_sha256: artifacts; the bases may not have been kept.
    """

    id: str
    model: str
    checkpoint: str
    dataset: str
    graph_sha256: str
    bases_sha256: str | None
    created: datetime


@dataclass(frozen=True, kw_only=True)
class ModuleRow(Record):
    """One module: its label, number of nodes, the cuts it spans, nodes per cut of the graph, costs."""

    index: int
    size: int
    cuts: tuple[str, ...]
    sizes: tuple[int, ...]
    inner_cost: float
    outer_cost: float


@dataclass(frozen=True, kw_only=True)
class LinkRow(Record):
    """Edges of the quotient graph from nodes of an earlier module to nodes, one cut later, of another."""

    earlier: int
    later: int
    n_edges: int
    edge_cost: float
    mediator_cost: float


@dataclass(frozen=True, kw_only=True)
class NodeRow(Record):
    """A node of the graph: index of its cut, coordinate, module (None: in none), importance.

    `confidence` is how far its module is the same in independent searches; None where none were made.
    """

    cut: int
    coordinate: int
    module: int | None
    importance: float
    confidence: float | None = None


@dataclass(frozen=True, kw_only=True)
class MediatorRow(Record):
    """A node of an earlier module that feeds a later one; see `interbasis.analysis.modules.Mediator`."""

    earlier: int
    later: int
    cut: int
    coordinate: int
    strength: float
    cost: float
    gamma: float | None


@dataclass(frozen=True, kw_only=True)
class PartitionValues(Record):
    """Numbers of a partition that are queried; see `interbasis.analysis.Partition`.

    Attributes:
        verdict: "supported", "one module", "not told apart from chance" or "untested"; None of a partition
            that an earlier version stored, where what is stored does not tell.
        reason: of the verdict, one sentence.
    """

    n_modules: int
    edge_cost: float
    mediator_cost: float
    normalised_cost: float | None
    quality: float
    objective: str
    resolution: float
    epsilon: float
    contrast: float
    description_length: float | None = None
    p_value: float | None = None
    stability: float | None = None
    epsilons: tuple[float, ...] | None = None
    epsilon_source: str | None = None
    z: float | None = None
    variation_of_information: float | None = None
    polished: bool | None = None
    warning: str | None = None
    verdict: str | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class PartitionRow(PartitionValues, Provenance):
    """A stored partition.

    Attributes:
        model: name of the model.
        checkpoint, graph: their IDs.
        partition_sha256: the artifact.
    """

    id: str
    model: str
    checkpoint: str
    graph: str
    partition_sha256: str
    created: datetime


@dataclass(frozen=True, kw_only=True)
class PartitionDetail(PartitionRow):
    """A stored partition with its modules and the links between them."""

    modules: tuple[ModuleRow, ...]
    links: tuple[LinkRow, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome(Record):
    """What is stored of one checkpoint's analysis."""

    checkpoint: CheckpointRow
    dataset: DatasetRow
    graph: GraphRow
    partition: PartitionDetail


@dataclass(frozen=True, kw_only=True)
class LedgerValues(Record):
    """Numbers of a parameter ledger that are queried; see `interbasis.analysis.Ledger`.

    Attributes:
        method: how the rank of the Hessian is known: "exact", "lanczos" or "sampled".
        lower, upper: its bounds; equal where it is exact.
        soft: soft rank at epsilon; None without one.
        layers: of each layer its name, sizes, ranks, free directions by cause and Kronecker fit, as JSON objects.
    """

    nominal: int
    activations: int
    jacobians: int
    gating: int
    synchronised: int
    tied: int
    unexplained: int
    effective: int
    method: str
    lower: int
    upper: int
    soft: float | None
    epsilon: float | None
    tolerance: float
    n: int
    warning: str | None
    layers: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class LedgerRow(LedgerValues, Provenance):
    """A stored parameter ledger.

    Attributes:
        model: name of the model.
        checkpoint, dataset: their IDs.
        ledger_sha256: the artifact.
    """

    id: str
    model: str
    checkpoint: str
    dataset: str
    ledger_sha256: str
    created: datetime


@dataclass(frozen=True, kw_only=True)
class LlcValues(Record):
    """Numbers of a learning coefficient that are queried; see `interbasis.analysis.llc`. None stands for NaN.

    Attributes:
        mode: "point", or "curve", of which the numbers are those at the smallest loss scale.
        loss: behavioural loss, "mse" or "kl".
        value, standard_error, lower, upper: lambda and its interval of 95 %.
        epsilon, temperature: the loss scale it belongs to, and n beta.
        n_parameters, n: how many are varied, and number of data points.
        verdict, reason: of the whole; r_hat, ess: of the loss; kernel, preconditioner: as run.
        points: of each loss scale its numbers and diagnostics, as JSON objects; of a curve also log_volume.
    """

    mode: str
    loss: str
    value: float | None
    standard_error: float | None
    lower: float | None
    upper: float | None
    epsilon: float | None
    temperature: float | None
    n_parameters: int
    n: int
    verdict: str
    reason: str
    r_hat: float | None
    ess: float | None
    kernel: str
    preconditioner: str
    points: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class LlcRow(LlcValues, Provenance):
    """A stored learning coefficient.

    Attributes:
        model: name of the model.
        checkpoint, dataset: their IDs.
        llc_sha256: the artifact.
    """

    id: str
    model: str
    checkpoint: str
    dataset: str
    llc_sha256: str
    created: datetime

    @property
    def n_effective(self) -> float | None:
        """N_eff = 2 lambda."""
        return None if self.value is None else 2 * self.value

    def to_json(self) -> dict[str, Any]:
        """All fields and `n_effective` as JSON-ready values."""
        return super().to_json() | {"n_effective": self.n_effective}


@dataclass(frozen=True, kw_only=True)
class ExperimentValues(Record):
    """Numbers of a circuit experiment that are queried; see `interbasis.analysis.Experiment`.

    Attributes:
        experiment: "modules", "isolate", "faithfulness", "bisect", "epsilon" or "predict".
        metric: that was asked for.
        n: data points; held_out: whether they are others than those of the basis.
        value, standard_error: of "modules" the selectivity of data mixed between modules (in version 0.6 the change of
            the metric without the module that costs most); of "isolate" the change of the metric; of "faithfulness"
            the CPR; of "bisect" and "epsilon" the edges that are jointly required; of "predict" the rank correlation.
        control, p_value: the same of null graphs ("modules"), of as many edges of the same strengths cut at random
            ("isolate") or of random interventions of the same size, and how often they do as well.
        summary: every row and number, as a JSON object.
        verdict, reason: "supported", "not told apart from chance" or "refuted", and why, in one sentence; None of an
            experiment that gives no verdict, or that an earlier version stored.
    """

    experiment: str
    metric: str
    n: int
    held_out: bool
    value: float | None
    standard_error: float | None
    control: float | None
    p_value: float | None
    summary: dict[str, Any]
    verdict: str | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExperimentRow(ExperimentValues, Provenance):
    """A stored circuit experiment.

    Attributes:
        model: name of the model.
        checkpoint, graph, partition: their IDs.
        experiment_sha256: the artifact.
    """

    id: str
    model: str
    checkpoint: str
    graph: str
    partition: str
    experiment_sha256: str
    created: datetime


@dataclass(frozen=True, kw_only=True)
class TrackingValues(Record):
    """Numbers of a tracking that are queried; see `interbasis.analysis.Tracking`.

    Attributes:
        churn: mean over the transitions; None where no node could be aligned.
        events: as JSON objects with `kind`, `at`, `earlier` and `later`.
    """

    n_checkpoints: int
    n_tracks: int
    churn: float | None
    events: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class TrackingRow(TrackingValues, Provenance):
    """A stored tracking.

    Attributes:
        model: name of the model.
        tracking_sha256: the artifact.
    """

    id: str
    model: str
    tracking_sha256: str
    created: datetime


@dataclass(frozen=True, kw_only=True)
class TrackingStep(Record):
    """One checkpoint of a tracking: the graph divided, per module its track and size, churn since the one before."""

    checkpoint: str
    graph: str
    step: int | None
    label: str | None
    tracks: tuple[int, ...]
    sizes: tuple[int, ...]
    churn: float | None


@dataclass(frozen=True, kw_only=True)
class TrackingDetail(TrackingRow):
    """A stored tracking with its checkpoints."""

    steps: tuple[TrackingStep, ...]


@dataclass(frozen=True, kw_only=True)
class Upgrade(Record):
    """Schema revisions before and after an upgrade; `before` is None for an empty database."""

    before: str | None
    after: str


@dataclass(frozen=True, kw_only=True)
class CheckReport(Record):
    """What a check of the store found, one line per finding.

    Attributes:
        artifacts: results whose artifact is missing or fails its hash.
        schema: differences between the tables and what this version expects.
        foreign_keys: rows that refer to rows that do not exist.
        integrity: damage that the database itself reports.
        uncollected: files that no row refers to, harmless leftovers of interrupted or replaced results.
        n_artifacts: how many artifacts were read and hashed.
    """

    artifacts: tuple[str, ...] = ()
    schema: tuple[str, ...] = ()
    foreign_keys: tuple[str, ...] = ()
    integrity: tuple[str, ...] = ()
    uncollected: tuple[str, ...] = ()
    n_artifacts: int = 0

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything that has to be repaired."""
        return self.artifacts + self.schema + self.foreign_keys + self.integrity

    @property
    def ok(self) -> bool:
        """Whether there is nothing to repair; uncollected files do no harm."""
        return not self.problems


@dataclass(frozen=True, kw_only=True)
class Collected(Record):
    """Files that were removed because nothing refers to them, and how many bytes that freed."""

    files: tuple[str, ...]
    bytes: int


@dataclass(frozen=True, kw_only=True)
class EdgeRow(Record):
    """An interaction: indices of the two cuts, the nodes there, and the strength w, whose square is a loss."""

    earlier_cut: int
    earlier: int
    later_cut: int
    later: int
    strength: float


@dataclass(frozen=True, kw_only=True)
class Subgraph(Record):
    """Edges of a graph, the strongest first; `n_edges` is how many there are, of which some may not be listed."""

    cuts: tuple[str, ...]
    n_edges: int
    edges: tuple[EdgeRow, ...]


@dataclass(frozen=True, kw_only=True)
class OverlapRow(Record):
    """A module of a first partition, one of a second, and how many nodes they share."""

    first: int
    second: int
    n_nodes: int


@dataclass(frozen=True, kw_only=True)
class Comparison(Record):
    """How far two partitions of the same nodes agree, over the nodes that are in a module of both.

    Attributes:
        first, second: their IDs.
        n_nodes: how many nodes both assign.
        adjusted_mutual_information: 1 for the same division, 0 for chance.
        variation_of_information: in nats; 0 for the same division.
        overlaps: modules of both that share nodes.
    """

    first: str
    second: str
    n_nodes: int
    adjusted_mutual_information: float
    variation_of_information: float
    overlaps: tuple[OverlapRow, ...]


@dataclass(frozen=True, kw_only=True)
class WorkerRow(Record):
    """A process that runs jobs; `alive` where it said so within the last quarter of a minute."""

    id: str
    host: str
    pid: int
    started: datetime
    heartbeat: datetime
    alive: bool
