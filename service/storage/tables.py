"""The tables, as SQLAlchemy models.

    model -< run -< checkpoint -< graph -< partition -< module, module_link (the quotient graph), mediator,
                                                        node_assignment
    dataset -< graph             artifact -< graph, partition, tracking, ledger, llc_estimate, experiment
    checkpoint, dataset -< ledger, llc_estimate
    partition -< experiment, description, comparison >- partition (the other one)
    graph -< label (of its nodes, and of modules of its partitions)
    run -< tracking -< tracking_checkpoint >- graph
    job, schedule, worker: what to compute, when, and where
    token: who has access to the service

A row's `key` is internal; users see its `id`: a letter for the kind and the start of a hash of what
identifies the row, for example `g-3f9a1c2b`. The schema changes only by a new file in `migrations/versions`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    TypeDecorator,
    UniqueConstraint,
    inspect,
)
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Mapped, mapped_column, relationship

__all__ = [
    "ARTIFACT_COLUMNS",
    "LETTERS",
    "SCHEMA_REVISION",
    "TABLES",
    "VERSION_TABLE",
    "Artifact",
    "Base",
    "Checkpoint",
    "Comparison",
    "Dataset",
    "Description",
    "Experiment",
    "Graph",
    "Job",
    "Label",
    "Ledger",
    "LlcEstimate",
    "Mediator",
    "Model",
    "Module",
    "ModuleLink",
    "NodeAssignment",
    "Partition",
    "Result",
    "Run",
    "Schedule",
    "Token",
    "Tracking",
    "TrackingCheckpoint",
    "Worker",
]

SCHEMA_REVISION = "0015"

VERSION_TABLE = "interbasis_version"


class UtcDateTime(TypeDecorator[datetime]):
    """A date and time in UTC, also where the database (SQLite) has no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert a value to UTC before it is written."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Mark a value that was read as UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base class of all tables; constraints have predictable names, so that migrations can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        float: Double(),
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
        list[int]: JSON(),
        list[float]: JSON(),
        list[dict[str, Any]]: JSON(),
        list[list[int]]: JSON(),
    }


class Row(Base):
    """Columns of every table whose rows have an ID."""

    __abstract__ = True

    kind: ClassVar[str]

    key: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(String(80), unique=True)
    created: Mapped[datetime]


class Result(Row):
    """Columns of every result: how it was computed."""

    __abstract__ = True

    recipe: Mapped[dict[str, Any]]
    recipe_hash: Mapped[str] = mapped_column(String(64))
    code_version: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    wall_time: Mapped[float]


class Model(Row):
    """A network that is trained; family and config are those of its newest run.

    `n_runs` is the largest number that one of its runs has had.
    """

    __tablename__ = "model"
    kind = "model"

    name: Mapped[str] = mapped_column(unique=True)
    family: Mapped[str]
    config: Mapped[dict[str, Any]]
    n_runs: Mapped[int]


class Run(Row):
    """One training of a model."""

    __tablename__ = "run"
    kind = "run"
    __table_args__ = (UniqueConstraint("model_key", "number"), UniqueConstraint("model_key", "label"))

    model_key: Mapped[int] = mapped_column(ForeignKey("model.key", ondelete="CASCADE"))
    number: Mapped[int]
    label: Mapped[str | None]
    family: Mapped[str]
    config: Mapped[dict[str, Any]]

    model: Mapped[Model] = relationship(lazy="joined", innerjoin=True)

    @property
    def run_number(self) -> int:
        """Return the number, as results of the run name it."""
        return self.number


class Checkpoint(Row):
    """A model at one moment of its training."""

    __tablename__ = "checkpoint"
    kind = "checkpoint"
    __table_args__ = (UniqueConstraint("run_key", "sha256"),)

    run_key: Mapped[int] = mapped_column(ForeignKey("run.key", ondelete="CASCADE"))
    sha256: Mapped[str] = mapped_column(String(64))
    step: Mapped[int | None] = mapped_column(BigInteger)
    label: Mapped[str | None]
    family: Mapped[str]
    config: Mapped[dict[str, Any]]
    path: Mapped[str | None]
    about: Mapped[dict[str, Any] | None]
    file_sha256: Mapped[str | None] = mapped_column(ForeignKey("artifact.sha256"), index=True)

    run: Mapped[Run] = relationship(lazy="joined", innerjoin=True)


class Dataset(Row):
    """A data set on which results were computed."""

    __tablename__ = "dataset"
    kind = "dataset"

    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    description: Mapped[str]


class Artifact(Base):
    """A file among the artifacts; `uri` is relative to their root, so that the folder can be moved."""

    __tablename__ = "artifact"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    uri: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    created: Mapped[datetime]


class Graph(Result):
    """An interaction graph of a checkpoint on a dataset."""

    __tablename__ = "graph"
    kind = "graph"
    __table_args__ = (UniqueConstraint("checkpoint_key", "dataset_key", "recipe_hash"),)

    checkpoint_key: Mapped[int] = mapped_column(ForeignKey("checkpoint.key", ondelete="CASCADE"))
    dataset_key: Mapped[int] = mapped_column(ForeignKey("dataset.key", ondelete="CASCADE"), index=True)
    cuts: Mapped[list[str]]
    widths: Mapped[list[int]]
    basis: Mapped[str]
    strengths: Mapped[str]
    n_nodes: Mapped[int] = mapped_column(BigInteger)
    n_edges: Mapped[int] = mapped_column(BigInteger)
    left_out: Mapped[dict[str, Any] | None]
    graph_sha256: Mapped[str] = mapped_column(ForeignKey("artifact.sha256"), index=True)
    bases_sha256: Mapped[str | None] = mapped_column(ForeignKey("artifact.sha256"), index=True)

    checkpoint: Mapped[Checkpoint] = relationship(lazy="joined", innerjoin=True)
    dataset: Mapped[Dataset] = relationship(lazy="joined", innerjoin=True)

    @property
    def output(self) -> str | None:
        """Return the basis of the last cut."""
        return self.recipe.get("output")


class Partition(Result):
    """Modules of a graph."""

    __tablename__ = "partition"
    kind = "partition"
    __table_args__ = (UniqueConstraint("graph_key", "recipe_hash"),)

    graph_key: Mapped[int] = mapped_column(ForeignKey("graph.key", ondelete="CASCADE"))
    n_modules: Mapped[int]
    edge_cost: Mapped[float]
    mediator_cost: Mapped[float]
    normalised_cost: Mapped[float | None]
    quality: Mapped[float]
    objective: Mapped[str]
    resolution: Mapped[float]
    epsilon: Mapped[float]
    contrast: Mapped[float]
    description_length: Mapped[float | None]
    p_value: Mapped[float | None]
    stability: Mapped[float | None]
    epsilons: Mapped[list[float] | None]
    epsilon_source: Mapped[str | None]
    z: Mapped[float | None]
    variation_of_information: Mapped[float | None]
    polished: Mapped[bool | None]
    warning: Mapped[str | None]
    verdict: Mapped[str | None]
    reason: Mapped[str | None]
    remarks: Mapped[list[str] | None]
    partition_sha256: Mapped[str] = mapped_column(ForeignKey("artifact.sha256"), index=True)

    graph: Mapped[Graph] = relationship(lazy="joined", innerjoin=True)
    modules: Mapped[list[Module]] = relationship(viewonly=True, order_by="Module.index")
    links: Mapped[list[ModuleLink]] = relationship(
        primaryjoin="foreign(ModuleLink.partition_key) == Partition.key",
        order_by="(ModuleLink.earlier, ModuleLink.later)",
        viewonly=True,
    )


class Module(Base):
    """One module of a partition."""

    __tablename__ = "module"

    partition_key: Mapped[int] = mapped_column(ForeignKey("partition.key", ondelete="CASCADE"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    cuts: Mapped[list[str]]
    sizes: Mapped[list[int]]
    inner_cost: Mapped[float]
    outer_cost: Mapped[float]


def _module(column: str, name: str) -> ForeignKeyConstraint:
    """Make a reference to a module of the same partition; deleting the module deletes the row."""
    return ForeignKeyConstraint(
        ["partition_key", column], ["module.partition_key", "module.index"], name=name, ondelete="CASCADE"
    )


class ModuleLink(Base):
    """Edges from one module of a partition to another one, one cut later: the quotient graph."""

    __tablename__ = "module_link"
    __table_args__ = (
        _module("earlier", "fk_module_link_earlier"),
        _module("later", "fk_module_link_later"),
        Index(None, "partition_key", "later"),
    )

    partition_key: Mapped[int] = mapped_column(primary_key=True)
    earlier: Mapped[int] = mapped_column(primary_key=True)
    later: Mapped[int] = mapped_column(primary_key=True)
    n_edges: Mapped[int] = mapped_column(BigInteger)
    edge_cost: Mapped[float]
    mediator_cost: Mapped[float]


class Mediator(Base):
    """A node of one module that feeds another: part of the interaction surface."""

    __tablename__ = "mediator"
    __table_args__ = (
        _module("earlier", "fk_mediator_earlier"),
        _module("later", "fk_mediator_later"),
        Index(None, "partition_key", "later"),
        {"sqlite_with_rowid": False},
    )

    partition_key: Mapped[int] = mapped_column(primary_key=True)
    earlier: Mapped[int] = mapped_column(primary_key=True)
    later: Mapped[int] = mapped_column(primary_key=True)
    cut: Mapped[int] = mapped_column(primary_key=True)
    coordinate: Mapped[int] = mapped_column(primary_key=True)
    strength: Mapped[float]
    cost: Mapped[float]
    gamma: Mapped[float | None]


class NodeAssignment(Base):
    """The module of a node; null where it is in none."""

    __tablename__ = "node_assignment"
    __table_args__ = (
        _module("module", "fk_node_assignment_module"),
        Index(None, "partition_key", "module"),
        {"sqlite_with_rowid": False},
    )

    partition_key: Mapped[int] = mapped_column(ForeignKey("partition.key", ondelete="CASCADE"), primary_key=True)
    cut: Mapped[int] = mapped_column(primary_key=True)
    coordinate: Mapped[int] = mapped_column(primary_key=True)
    module: Mapped[int | None]
    importance: Mapped[float]
    confidence: Mapped[float | None]


class Ledger(Result):
    """The parameter ledger of a checkpoint on a dataset."""

    __tablename__ = "ledger"
    kind = "ledger"
    __table_args__ = (UniqueConstraint("checkpoint_key", "dataset_key", "recipe_hash"),)

    checkpoint_key: Mapped[int] = mapped_column(ForeignKey("checkpoint.key", ondelete="CASCADE"))
    dataset_key: Mapped[int] = mapped_column(ForeignKey("dataset.key", ondelete="CASCADE"), index=True)
    nominal: Mapped[int] = mapped_column(BigInteger)
    activations: Mapped[int] = mapped_column(BigInteger)
    jacobians: Mapped[int] = mapped_column(BigInteger)
    gating: Mapped[int] = mapped_column(BigInteger)
    synchronised: Mapped[int] = mapped_column(BigInteger)
    tied: Mapped[int] = mapped_column(BigInteger)
    unexplained: Mapped[int] = mapped_column(BigInteger)
    effective: Mapped[int] = mapped_column(BigInteger)
    method: Mapped[str]
    lower: Mapped[int] = mapped_column(BigInteger)
    upper: Mapped[int] = mapped_column(BigInteger)
    soft: Mapped[float | None]
    epsilon: Mapped[float | None]
    tolerance: Mapped[float]
    n: Mapped[int] = mapped_column(BigInteger)
    warning: Mapped[str | None]
    layers: Mapped[list[dict[str, Any]]]
    ledger_sha256: Mapped[str] = mapped_column(ForeignKey("artifact.sha256"), index=True)

    checkpoint: Mapped[Checkpoint] = relationship(lazy="joined", innerjoin=True)
    dataset: Mapped[Dataset] = relationship(lazy="joined", innerjoin=True)


class LlcEstimate(Result):
    """A learning coefficient of a checkpoint on a dataset, at one loss scale or over a range; null for NaN."""

    __tablename__ = "llc_estimate"
    kind = "llc"
    __table_args__ = (UniqueConstraint("checkpoint_key", "dataset_key", "recipe_hash"),)

    checkpoint_key: Mapped[int] = mapped_column(ForeignKey("checkpoint.key", ondelete="CASCADE"))
    dataset_key: Mapped[int] = mapped_column(ForeignKey("dataset.key", ondelete="CASCADE"), index=True)
    mode: Mapped[str]
    loss: Mapped[str]
    value: Mapped[float | None]
    standard_error: Mapped[float | None]
    lower: Mapped[float | None]
    upper: Mapped[float | None]
    epsilon: Mapped[float | None]
    temperature: Mapped[float | None]
    n_parameters: Mapped[int] = mapped_column(BigInteger)
    n: Mapped[int] = mapped_column(BigInteger)
    verdict: Mapped[str]
    reason: Mapped[str]
    r_hat: Mapped[float | None]
    ess: Mapped[float | None]
    kernel: Mapped[str]
    preconditioner: Mapped[str]
    points: Mapped[list[dict[str, Any]]]
    llc_sha256: Mapped[str] = mapped_column(ForeignKey("artifact.sha256"), index=True)

    checkpoint: Mapped[Checkpoint] = relationship(lazy="joined", innerjoin=True)
    dataset: Mapped[Dataset] = relationship(lazy="joined", innerjoin=True)


class Tracking(Result):
    """Modules of a run, matched over its checkpoints."""

    __tablename__ = "tracking"
    kind = "tracking"
    __table_args__ = (UniqueConstraint("run_key", "recipe_hash"),)

    run_key: Mapped[int] = mapped_column(ForeignKey("run.key", ondelete="CASCADE"))
    n_checkpoints: Mapped[int]
    n_tracks: Mapped[int]
    churn: Mapped[float | None]
    events: Mapped[list[dict[str, Any]]]
    tracking_sha256: Mapped[str] = mapped_column(ForeignKey("artifact.sha256"), index=True)

    run: Mapped[Run] = relationship(lazy="joined", innerjoin=True)
    steps: Mapped[list[TrackingCheckpoint]] = relationship(viewonly=True, order_by="TrackingCheckpoint.position")


class TrackingCheckpoint(Base):
    """One checkpoint of a tracking: its graph, and the tracks of its modules."""

    __tablename__ = "tracking_checkpoint"

    tracking_key: Mapped[int] = mapped_column(ForeignKey("tracking.key", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    graph_key: Mapped[int] = mapped_column(ForeignKey("graph.key", ondelete="CASCADE"), index=True)
    tracks: Mapped[list[int]]
    sizes: Mapped[list[int]]
    churn: Mapped[float | None]

    graph: Mapped[Graph] = relationship(lazy="joined", innerjoin=True)

    @property
    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint of the graph."""
        return self.graph.checkpoint

    @property
    def step(self) -> int | None:
        """Return the step of the checkpoint."""
        return self.checkpoint.step

    @property
    def label(self) -> str | None:
        """Return the label of the checkpoint."""
        return self.checkpoint.label


class Experiment(Result):
    """The result of a circuit experiment on a partition."""

    __tablename__ = "experiment"
    kind = "experiment"
    __table_args__ = (UniqueConstraint("partition_key", "recipe_hash"),)

    partition_key: Mapped[int] = mapped_column(ForeignKey("partition.key", ondelete="CASCADE"))
    experiment: Mapped[str]
    metric: Mapped[str]
    n: Mapped[int] = mapped_column(BigInteger)
    held_out: Mapped[bool]
    value: Mapped[float | None]
    standard_error: Mapped[float | None]
    control: Mapped[float | None]
    p_value: Mapped[float | None]
    summary: Mapped[dict[str, Any]]
    verdict: Mapped[str | None]
    reason: Mapped[str | None]
    experiment_sha256: Mapped[str] = mapped_column(ForeignKey("artifact.sha256"), index=True)

    partition: Mapped[Partition] = relationship(lazy="joined", innerjoin=True)


class Description(Result):
    """The cards of the nodes and modules of a partition, those that are written."""

    __tablename__ = "description"
    kind = "description"
    __table_args__ = (UniqueConstraint("partition_key", "recipe_hash"),)

    partition_key: Mapped[int] = mapped_column(ForeignKey("partition.key", ondelete="CASCADE"))
    n: Mapped[int] = mapped_column(BigInteger)
    n_cards: Mapped[int] = mapped_column(BigInteger)
    n_nodes: Mapped[int] = mapped_column(BigInteger)
    modules: Mapped[list[dict[str, Any]]]
    description_sha256: Mapped[str] = mapped_column(ForeignKey("artifact.sha256"), index=True)

    partition: Mapped[Partition] = relationship(lazy="joined", innerjoin=True)


class Comparison(Result):
    """Two divisions of the same nodes: a partition, and another one or one from a file."""

    __tablename__ = "comparison"
    kind = "comparison"
    __table_args__ = (UniqueConstraint("partition_key", "recipe_hash"),)

    partition_key: Mapped[int] = mapped_column(ForeignKey("partition.key", ondelete="CASCADE"))
    other_key: Mapped[int | None] = mapped_column(ForeignKey("partition.key", ondelete="CASCADE"), index=True)
    name: Mapped[str]
    matched_by: Mapped[str]
    n_nodes: Mapped[int] = mapped_column(BigInteger)
    only_first: Mapped[int] = mapped_column(BigInteger)
    only_second: Mapped[int] = mapped_column(BigInteger)
    left_out: Mapped[int] = mapped_column(BigInteger)
    ami: Mapped[float]
    ari: Mapped[float]
    ami_by_chance: Mapped[float]
    ari_by_chance: Mapped[float]
    z: Mapped[float | None]
    p_value: Mapped[float]
    ari_p_value: Mapped[float]
    n_permutations: Mapped[int] = mapped_column(BigInteger)
    verdict: Mapped[str]
    reason: Mapped[str]
    matches: Mapped[list[dict[str, Any]]]
    comparison_sha256: Mapped[str] = mapped_column(ForeignKey("artifact.sha256"), index=True)

    partition: Mapped[Partition] = relationship(foreign_keys=[partition_key], lazy="joined", innerjoin=True)
    other: Mapped[Partition | None] = relationship(foreign_keys=[other_key], lazy="joined")


class Label(Base):
    """A text that somebody gave to a node or a module, or its removal (no text); rows are added, never changed.

    The newest row of a node or module and source counts; the others are its history. A module is what it was when the
    row was written: `members` are the coordinates of its nodes at each cut, so that the label finds it again in other
    partitions, and stays when its partition is removed or computed again. `named_sha256` is the hash of what the place
    belongs to: of the graph's artifact for a node, of the members for a module.
    """

    __tablename__ = "label"

    key: Mapped[int] = mapped_column(primary_key=True)
    graph_key: Mapped[int] = mapped_column(ForeignKey("graph.key", ondelete="CASCADE"), index=True)
    partition: Mapped[str | None] = mapped_column(String(80))
    cut: Mapped[int | None]
    node: Mapped[int | None]
    module: Mapped[int | None]
    members: Mapped[list[list[int]] | None]
    named_sha256: Mapped[str] = mapped_column(String(64))
    text: Mapped[str | None]
    author: Mapped[str]
    source: Mapped[str]
    confidence: Mapped[float | None]
    origin: Mapped[str | None]
    overlap: Mapped[float | None]
    created: Mapped[datetime]


class Job(Row):
    """A job that waits, runs, or has ended; its results are rows of the other tables."""

    __tablename__ = "job"
    kind = "job"
    __table_args__ = (Index("ix_job_state_priority", "state", "priority"),)

    task: Mapped[str]
    target: Mapped[str]
    choices: Mapped[dict[str, Any]]
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    queue: Mapped[str] = mapped_column(String(80))
    priority: Mapped[int]
    timeout: Mapped[float | None]
    state: Mapped[str] = mapped_column(String(16))
    run: Mapped[int]
    attempts: Mapped[int]
    interruptions: Mapped[int]
    enqueued: Mapped[bool]
    cancelling: Mapped[bool]
    worker: Mapped[str | None]
    step: Mapped[str | None]
    fraction: Mapped[float | None]
    message: Mapped[str]
    remaining: Mapped[float | None]
    error: Mapped[str | None]
    results: Mapped[list[dict[str, Any]]]
    started: Mapped[datetime | None]
    finished: Mapped[datetime | None]
    version: Mapped[int] = mapped_column()

    __mapper_args__: ClassVar[dict[str, Any]] = {"version_id_col": version}


class Schedule(Row):
    """A schedule: submits jobs at set times, or for each new checkpoint."""

    __tablename__ = "schedule"
    kind = "schedule"

    task: Mapped[str]
    model: Mapped[str]
    cron: Mapped[str | None]
    folder: Mapped[str | None]
    choices: Mapped[dict[str, Any]]
    queue: Mapped[str] = mapped_column(String(80))
    priority: Mapped[int]
    timeout: Mapped[float | None]
    paused: Mapped[bool]
    next_run: Mapped[datetime | None]
    last_run: Mapped[datetime | None]
    seen: Mapped[datetime]
    jobs: Mapped[list[str]]
    error: Mapped[str | None]


class Token(Row):
    """A secret that gives access to the service; only its hash is stored."""

    __tablename__ = "token"
    kind = "token"

    name: Mapped[str]
    scope: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str] = mapped_column(String(64))
    revoked: Mapped[datetime | None]


class Worker(Base):
    """A process that runs jobs; `heartbeat` is its last report, on the database's clock."""

    __tablename__ = "worker"

    id: Mapped[str] = mapped_column(String(80), primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    started: Mapped[datetime]
    heartbeat: Mapped[datetime]


TABLES: dict[str, type[Row]] = {
    mapper.class_.kind: mapper.class_ for mapper in Base.registry.mappers if issubclass(mapper.class_, Row)
}
"""The table of each kind of stored thing, by the kind's name."""

LETTERS: dict[str, str] = {name: name[0] for name in TABLES} | {"llc": "n", "description": "x", "comparison": "v"}
"""The letter with which new IDs of each kind begin; older IDs of learning coefficients begin with l."""

ARTIFACT_COLUMNS: tuple[InstrumentedAttribute[Any], ...] = tuple(
    getattr(table, column.key)
    for table in TABLES.values()
    for column in inspect(table).columns
    if any(key.column.table.name == Artifact.__tablename__ for key in column.foreign_keys)
)
"""Every column that refers to an artifact."""
