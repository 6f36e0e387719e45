"""Partitions, their modules, nodes and mediators, comparisons of partitions, and modules tracked over training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from .base import Kind, Provenance, Record, Sha256, Time
from .checkpoints import (
    CheckpointId,
    CheckpointRow,
    DatasetRow,
    Label,
    ModelName,
    RunId,
    RunIdOrNone,
    RunNumber,
    Step,
)
from .graphs import Cuts, EdgeCount, EdgeRow, GraphId, GraphRow, NodeCount, Output, Strength

__all__ = [
    "AGREEMENTS",
    "COMPARISON",
    "PARTITION",
    "TRACKING",
    "Comparison",
    "ComparisonRow",
    "ComparisonValues",
    "Drawing",
    "FlowRow",
    "Flows",
    "LinkRow",
    "MediatorRow",
    "ModuleRow",
    "NodeRow",
    "Outcome",
    "OverlapRow",
    "PartitionDetail",
    "PartitionId",
    "PartitionRow",
    "PartitionValues",
    "Profile",
    "ProfileRow",
    "Supernode",
    "TrackingDetail",
    "TrackingRow",
    "TrackingStep",
    "TrackingValues",
]

_ID = "p-1a2b3c4d"

PartitionId = Annotated[str, Field(examples=[_ID])]

Earlier = Annotated[int, Field(examples=[0])]

Later = Annotated[int, Field(examples=[1])]

CutIndex = Annotated[int, Field(examples=[1])]

Coordinate = Annotated[int, Field(examples=[3])]

EdgeCost = Annotated[float, Field(examples=[31.7])]

MediatorCost = Annotated[float, Field(examples=[12.2])]

_MODULE = {
    "index": 0,
    "size": 61,
    "cuts": ["layers.0:in", "layers.0", "layers.1"],
    "sizes": [24, 22, 15],
    "inner_cost": 812.4,
    "outer_cost": 31.7,
}

_LINK = {"earlier": 0, "later": 1, "n_edges": 5, "edge_cost": 8.9, "mediator_cost": 3.1}


@dataclass(frozen=True, kw_only=True)
class ModuleRow(Record):
    """One module: its label, number of nodes, the cuts it spans, nodes per cut of the graph, costs."""

    index: Annotated[int, Field(examples=[0])]
    size: Annotated[int, Field(examples=[61])]
    cuts: Cuts
    sizes: Annotated[tuple[int, ...], Field(examples=[[24, 22, 15]])]
    inner_cost: Annotated[float, Field(examples=[812.4])]
    outer_cost: Annotated[float, Field(examples=[31.7])]


@dataclass(frozen=True, kw_only=True)
class LinkRow(Record):
    """A link of the quotient graph: the edges from nodes of one module to nodes of another, one cut later."""

    earlier: Earlier
    later: Later
    n_edges: EdgeCount
    edge_cost: EdgeCost
    mediator_cost: MediatorCost


@dataclass(frozen=True, kw_only=True)
class NodeRow(Record):
    """A node of the graph: index of its cut, coordinate, module (None: in none) and importance.

    `confidence` says how consistently independent searches put it in its module; None without such searches.
    `id`, `type`, `position` and `label` are what the file of an imported graph says of it; None where it says nothing.
    """

    cut: CutIndex
    coordinate: Coordinate
    module: Annotated[int | None, Field(examples=[0])]
    importance: Annotated[float, Field(examples=[1.7])]
    confidence: Annotated[float | None, Field(examples=[0.98])] = None
    id: Annotated[str | None, Field(examples=["2_14251_5"])] = None
    type: Annotated[str | None, Field(examples=["cross layer transcoder"])] = None
    position: Annotated[int | None, Field(examples=[5])] = None
    label: Annotated[str | None, Field(examples=["words about bees"])] = None


@dataclass(frozen=True, kw_only=True)
class Supernode(Record):
    """Nodes that the file of an imported graph shows as one, as [cut, coordinate]: those that are drawn."""

    title: Annotated[str, Field(examples=["capitals"])]
    nodes: Annotated[tuple[tuple[int, int], ...], Field(examples=[[[1, 3], [2, 0]]])]


@dataclass(frozen=True, kw_only=True)
class Drawing(Record):
    """What a picture of a partition shows: its most important nodes, and the strongest edges among these.

    `n_nodes` and `n_edges` count what there is to show: all nodes, or those of the module that was asked for, and all
    edges between them that are stronger than the square root of epsilon, where one was given. `supernodes` are those
    of the file of an imported attribution graph.
    """

    cuts: Cuts
    n_nodes: NodeCount
    n_edges: EdgeCount
    nodes: Annotated[
        tuple[NodeRow, ...], Field(examples=[[{"cut": 1, "coordinate": 3, "module": 0, "importance": 1.7}]])
    ]
    edges: Annotated[
        tuple[EdgeRow, ...],
        Field(examples=[[{"earlier_cut": 1, "earlier": 3, "later_cut": 2, "later": 0, "strength": 0.82}]]),
    ]
    supernodes: Annotated[
        tuple[Supernode, ...], Field(examples=[[{"title": "capitals", "nodes": [[1, 3], [2, 0]]}]])
    ] = ()


@dataclass(frozen=True, kw_only=True)
class ProfileRow(Record):
    """One resolution that was tried, beside null graphs; see `interbasis.analysis.modules.partition.ProfileRow`."""

    objective: Annotated[str, Field(examples=["layered_modularity"])]
    resolution: Annotated[float, Field(examples=[1.0])]
    n_modules: Annotated[int, Field(examples=[2])]
    quality: Annotated[float, Field(examples=[0.47])]
    null_mean: Annotated[float | None, Field(examples=[0.21])]
    null_sd: Annotated[float | None, Field(examples=[0.01])]
    z: Annotated[float | None, Field(examples=[21.4])]
    gap: Annotated[float | None, Field(examples=[0.26])]
    edge_cost: EdgeCost
    contrast: Annotated[float, Field(examples=[0.93])]
    significant: Annotated[bool | None, Field(examples=[True])]
    beyond_chains: Annotated[float | None, Field(examples=[0.9])] = None


_PROFILE_ROW = {
    **{"objective": "layered_modularity", "resolution": 1.0, "n_modules": 2, "quality": 0.47, "null_mean": 0.21},
    **{"null_sd": 0.01, "z": 21.4, "gap": 0.26, "edge_cost": 31.7, "contrast": 0.93, "significant": True},
}


@dataclass(frozen=True, kw_only=True)
class Profile(Record):
    """Every resolution that was tried for a partition, in order; none where one was given, or null graphs were not."""

    rows: Annotated[tuple[ProfileRow, ...], Field(examples=[[_PROFILE_ROW]])]


@dataclass(frozen=True, kw_only=True)
class MediatorRow(Record):
    """A node of an earlier module that feeds a later one; see `interbasis.analysis.modules.Mediator`."""

    earlier: Earlier
    later: Later
    cut: CutIndex
    coordinate: Coordinate
    strength: Strength
    cost: Annotated[float, Field(examples=[2.31])]
    gamma: Annotated[float | None, Field(examples=[0.4])]


@dataclass(frozen=True, kw_only=True)
class PartitionValues(Record):
    """Numbers of a partition that queries use; see `interbasis.analysis.Partition`.

    Attributes:
        verdict: "supported", "one module", "not told apart from chance" or "untested"; None of a partition
            that an earlier version stored, where what is stored does not tell.
        reason: reason of the verdict, one sentence.
        remarks: how far the numbers hold, as sentences: what was assumed or estimated, and what limits the ranks; None
            of a partition that an earlier version stored.
    """

    n_modules: Annotated[int, Field(examples=[2])]
    edge_cost: EdgeCost
    mediator_cost: MediatorCost
    normalised_cost: Annotated[float | None, Field(examples=[6.9])]
    quality: Annotated[float, Field(examples=[0.47])]
    objective: Annotated[str, Field(examples=["layered_modularity"])]
    resolution: Annotated[float, Field(examples=[1.0])]
    epsilon: Annotated[float, Field(examples=[0.0025])]
    contrast: Annotated[float, Field(examples=[0.93])]
    description_length: Annotated[float | None, Field(examples=[-310.5])] = None
    p_value: Annotated[float | None, Field(examples=[0.0476])] = None
    stability: Annotated[float | None, Field(examples=[0.99])] = None
    epsilons: Annotated[tuple[float, ...] | None, Field(examples=[[0.0025, 0.0025]])] = None
    epsilon_source: Annotated[str | None, Field(examples=["graph"])] = None
    z: Annotated[float | None, Field(examples=[21.4])] = None
    variation_of_information: Annotated[float | None, Field(examples=[0.05])] = None
    polished: Annotated[bool | None, Field(examples=[False])] = None
    warning: Annotated[str | None, Field(examples=[None])] = None
    verdict: Annotated[str | None, Field(examples=["supported"])] = None
    reason: Annotated[
        str | None, Field(examples=["more modular than all null graphs (z 21.4, p 0.048); independent searches agree"])
    ] = None
    remarks: Annotated[
        tuple[str, ...] | None,
        Field(examples=[["Few data: at 2 there are no more points than features, so that directions are missing."]]),
    ] = None


@dataclass(frozen=True, kw_only=True)
class PartitionRow(PartitionValues, Provenance):
    """A stored partition.

    Attributes:
        model: name of the model.
        checkpoint, graph: their IDs.
        partition_sha256: the artifact.
        step, label: those of the checkpoint.
        run, run_number: ID and number of the checkpoint's run.
        cuts, output: those of the graph.
    """

    recipe: Annotated[Mapping[str, Any], Field(examples=[{"chains": "discount", "control": True, "seed": 0}])]
    id: PartitionId
    model: ModelName
    checkpoint: CheckpointId
    graph: GraphId
    partition_sha256: Sha256
    created: Time
    step: Step = None
    label: Label = None
    run: RunIdOrNone = None
    run_number: RunNumber = None
    cuts: Cuts = ()
    output: Output = None


@dataclass(frozen=True, kw_only=True)
class PartitionDetail(PartitionRow):
    """A stored partition with its modules and the links between them."""

    modules: Annotated[tuple[ModuleRow, ...], Field(examples=[[_MODULE]])]
    links: Annotated[tuple[LinkRow, ...], Field(examples=[[_LINK]])]


PARTITION = Kind(
    name="partition",
    plural="partitions",
    row=PartitionRow,
    detail=PartitionDetail,
    listing="List partitions without their modules, all or those of a model, a run, a checkpoint or a graph.",
    single="Return a partition with its modules and the links between them.",
    example=_ID,
    owners=("graph",),
    filters=("model", "run", "checkpoint", "graph"),
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

    first: Annotated[int, Field(examples=[0])]
    second: Annotated[int, Field(examples=[0])]
    n_nodes: NodeCount


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

    first: PartitionId
    second: Annotated[str, Field(examples=["p-5e6f7a8b"])]
    n_nodes: NodeCount
    adjusted_mutual_information: Annotated[float, Field(examples=[0.97])]
    variation_of_information: Annotated[float, Field(examples=[0.05])]
    overlaps: Annotated[tuple[OverlapRow, ...], Field(examples=[[{"first": 0, "second": 0, "n_nodes": 60}]])]


_COMPARISON = "v-1a2b3c4d"

_OTHER = "p-5e6f7a8b"

AGREEMENTS = ("same division", "agree more than chance", "no more than chance")
"""Possible verdicts on a comparison."""


@dataclass(frozen=True, kw_only=True)
class ComparisonValues(Record):
    """Numbers of a comparison that queries use; see `interbasis.analysis.Comparison`.

    Attributes:
        name: what the other division is called: the ID of a partition, or the name of a file.
        matched_by: how nodes of the two were matched: "place", "name" or "values".
        n_nodes: number of nodes that both put into a module.
        only_first, only_second: number of nodes that only one of them puts into a module; they are left out.
        left_out: number of nodes of the other division in no module, in several, or with a name that several have.
        ami, ari: adjusted mutual information and adjusted Rand index.
        ami_by_chance, ari_by_chance: their means when labels are permuted within each cut.
        z: None where permutations change nothing.
        n_permutations: number of permutations behind both p-values.
        matches: modules matched one to one: names, shared nodes and their Jaccard overlap.
    """

    name: Annotated[str, Field(examples=[_OTHER])]
    matched_by: Annotated[str, Field(examples=["place"])]
    n_nodes: NodeCount
    only_first: Annotated[int, Field(examples=[0])]
    only_second: Annotated[int, Field(examples=[0])]
    left_out: Annotated[int, Field(examples=[0])]
    ami: Annotated[float, Field(examples=[0.97])]
    ari: Annotated[float, Field(examples=[0.96])]
    ami_by_chance: Annotated[float, Field(examples=[0.02])]
    ari_by_chance: Annotated[float, Field(examples=[0.01])]
    z: Annotated[float | None, Field(examples=[31.5])]
    p_value: Annotated[float, Field(examples=[0.000999])]
    ari_p_value: Annotated[float, Field(examples=[0.000999])]
    n_permutations: Annotated[int, Field(examples=[1000])]
    verdict: Annotated[str, Field(examples=[AGREEMENTS[1]])]
    reason: Annotated[str, Field(examples=["AMI 0.970 (0.020 by chance), ARI 0.960, p = 0.000999, 119 nodes"])]
    matches: Annotated[
        tuple[dict[str, Any], ...], Field(examples=[[{"first": "0", "second": "0", "shared": 60, "jaccard": 0.97}]])
    ]


@dataclass(frozen=True, kw_only=True)
class ComparisonRow(ComparisonValues, Provenance):
    """A stored comparison of a partition with another one, or with a division from a file.

    Attributes:
        model: name of the model.
        checkpoint, graph, partition: their IDs.
        other: ID of the other partition; None of a file.
        comparison_sha256: the artifact.
        step, label: those of the checkpoint.
        run, run_number: ID and number of the checkpoint's run.
    """

    recipe: Annotated[Mapping[str, Any], Field(examples=[{"other": _OTHER, "permutations": 1000, "seed": 0}])]
    id: Annotated[str, Field(examples=[_COMPARISON])]
    model: ModelName
    checkpoint: CheckpointId
    graph: GraphId
    partition: PartitionId
    other: Annotated[str | None, Field(examples=[_OTHER])]
    comparison_sha256: Sha256
    created: Time
    step: Step = None
    label: Label = None
    run: RunIdOrNone = None
    run_number: RunNumber = None


COMPARISON = Kind(
    name="comparison",
    plural="comparisons",
    row=ComparisonRow,
    detail=ComparisonRow,
    listing="List comparisons, all or those of a model, a run, a checkpoint or a partition, on either side.",
    single="Return a comparison of two divisions with the modules that match.",
    example=_COMPARISON,
    owners=("partition",),
    filters=("model", "run", "checkpoint", "partition"),
    values=ComparisonValues,
    files={"comparison": "Download the whole comparison, for `Comparison.from_bytes`."},
)


_TRACKING_ID = "t-1a2b3c4d"

Churn = Annotated[float | None, Field(examples=[0.02])]

_STEP = {
    "checkpoint": "c-1a2b3c4d",
    "graph": "g-1a2b3c4d",
    "step": 2500,
    "label": "two-digits step 2500",
    "tracks": [0, 1],
    "sizes": [61, 58],
    "churn": 0.02,
}


@dataclass(frozen=True, kw_only=True)
class TrackingValues(Record):
    """Numbers of a tracking that queries use; see `interbasis.analysis.Tracking`.

    Attributes:
        churn: mean over the transitions; None where no node could be aligned.
        events: as JSON objects with `kind`, `at`, `earlier` and `later`.
    """

    n_checkpoints: Annotated[int, Field(examples=[6])]
    n_tracks: Annotated[int, Field(examples=[2])]
    churn: Churn
    events: Annotated[
        tuple[dict[str, Any], ...], Field(examples=[[{"kind": "birth", "at": 3, "earlier": [], "later": [1]}]])
    ]


@dataclass(frozen=True, kw_only=True)
class TrackingRow(TrackingValues, Provenance):
    """A stored tracking.

    Attributes:
        model: name of the model.
        run, run_number: ID and number of the run.
        tracking_sha256: the artifact.
    """

    recipe: Annotated[
        Mapping[str, Any], Field(examples=[{"chains": "discount", "coupling": 0.0, "align": True, "seed": 0}])
    ]
    id: Annotated[str, Field(examples=[_TRACKING_ID])]
    model: ModelName
    run: RunId
    tracking_sha256: Sha256
    created: Time
    run_number: RunNumber = None


@dataclass(frozen=True, kw_only=True)
class TrackingStep(Record):
    """One checkpoint of a tracking: its graph, track and size of each module, churn since the step before."""

    checkpoint: CheckpointId
    graph: GraphId
    step: Step
    label: Label
    tracks: Annotated[tuple[int, ...], Field(examples=[[0, 1]])]
    sizes: Annotated[tuple[int, ...], Field(examples=[[61, 58]])]
    churn: Churn


@dataclass(frozen=True, kw_only=True)
class FlowRow(Record):
    """Nodes that go from a module to one of the next checkpoint; `at` is the index of the later checkpoint."""

    at: Annotated[int, Field(examples=[1])]
    earlier: Earlier
    later: Later
    n_nodes: NodeCount


@dataclass(frozen=True, kw_only=True)
class Flows(Record):
    """The flows of aligned nodes between the modules of successive checkpoints, by time."""

    flows: Annotated[tuple[FlowRow, ...], Field(examples=[[{"at": 1, "earlier": 0, "later": 0, "n_nodes": 58}]])]


@dataclass(frozen=True, kw_only=True)
class TrackingDetail(TrackingRow):
    """A stored tracking with its checkpoints."""

    steps: Annotated[tuple[TrackingStep, ...], Field(examples=[[_STEP]])]


TRACKING = Kind(
    name="tracking",
    plural="trackings",
    row=TrackingRow,
    detail=TrackingDetail,
    listing="List trackings of modules over training, all or those of one model or run.",
    single="Return a tracking with its checkpoints.",
    example=_TRACKING_ID,
    owners=("run",),
    filters=("model", "run"),
    values=TrackingValues,
    files={"tracking": "Download the whole tracking, for `Tracking.from_bytes`."},
    parts={"steps": TrackingStep},
)
