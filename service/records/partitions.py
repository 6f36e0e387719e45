"""Partitions, their modules, nodes and mediators, and comparisons of partitions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .base import Kind, Provenance, Record
from .checkpoints import CheckpointRow, DatasetRow
from .graphs import GraphRow

__all__ = [
    "PARTITION",
    "Comparison",
    "LinkRow",
    "MediatorRow",
    "ModuleRow",
    "NodeRow",
    "Outcome",
    "OverlapRow",
    "PartitionDetail",
    "PartitionRow",
    "PartitionValues",
]


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
    """A link of the quotient graph: the edges from nodes of one module to nodes of another, one cut later."""

    earlier: int
    later: int
    n_edges: int
    edge_cost: float
    mediator_cost: float


@dataclass(frozen=True, kw_only=True)
class NodeRow(Record):
    """A node of the graph: index of its cut, coordinate, module (None: in none) and importance.

    `confidence` says how consistently independent searches put it in its module; None without such searches.
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
    """Numbers of a partition that queries use; see `interbasis.analysis.Partition`.

    Attributes:
        verdict: "supported", "one module", "not told apart from chance" or "untested"; None of a partition
            that an earlier version stored, where what is stored does not tell.
        reason: reason of the verdict, one sentence.
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


PARTITION = Kind(
    name="partition",
    plural="partitions",
    row=PartitionRow,
    detail=PartitionDetail,
    listing="List partitions without their modules, all or those of a model, a checkpoint or a graph.",
    single="Return a partition with its modules and the links between them.",
    owners=("graph",),
    filters=("model", "checkpoint", "graph"),
    values=PartitionValues,
    files={"partition": "Download the whole partition, for `Partition.from_bytes`."},
    parts={"modules": ModuleRow, "links": LinkRow},
)


@dataclass(frozen=True, kw_only=True)
class Outcome(Record):
    """The stored results of analysing one checkpoint."""

    checkpoint: CheckpointRow
    dataset: DatasetRow
    graph: GraphRow
    partition: PartitionDetail


@dataclass(frozen=True, kw_only=True)
class OverlapRow(Record):
    """A module of one partition, a module of another, and the number of nodes they share."""

    first: int
    second: int
    n_nodes: int


@dataclass(frozen=True, kw_only=True)
class Comparison(Record):
    """Agreement of two partitions of the same nodes, over the nodes that both assign to a module.

    Attributes:
        first, second: their IDs.
        n_nodes: number of nodes that both assign.
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
