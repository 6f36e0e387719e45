"""Interaction graphs, their edges, and subgraphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from .base import Kind, Provenance, Record, Sha256, Sha256OrNone, Time
from .checkpoints import CheckpointId, DatasetId, Label, ModelName, RunIdOrNone, RunNumber, Step

__all__ = [
    "GRAPH",
    "Cuts",
    "EdgeCount",
    "EdgeRow",
    "GraphId",
    "GraphRow",
    "GraphValues",
    "LeftOut",
    "NodeCount",
    "Output",
    "Strength",
    "Subgraph",
]

_ID = "g-1a2b3c4d"

GraphId = Annotated[str, Field(examples=[_ID])]

Cuts = Annotated[tuple[str, ...], Field(examples=[["layers.0:in", "layers.0", "layers.1"]])]

Output = Annotated[str | None, Field(examples=["neuron"])]

NodeCount = Annotated[int, Field(examples=[119])]

EdgeCount = Annotated[int, Field(examples=[1240])]

Strength = Annotated[float, Field(examples=[0.82])]

LeftOut = Annotated[
    dict[str, list[str]] | None, Field(examples=[{"before": ["conv1"], "between": [], "after": ["head"]}])
]


@dataclass(frozen=True, kw_only=True)
class GraphValues(Record):
    """Numbers of an interaction graph that queries use; the strengths themselves are an artifact.

    Attributes:
        left_out: modules with weights that are at no cut, "before" the first, "between" two and "after" the last; None
            for graphs of earlier versions.
    """

    cuts: Cuts
    widths: Annotated[tuple[int, ...], Field(examples=[[48, 46, 25]])]
    basis: Annotated[str, Field(examples=["global"])]
    strengths: Annotated[str, Field(examples=["jacobian"])]
    n_nodes: NodeCount
    n_edges: EdgeCount
    left_out: LeftOut = None


@dataclass(frozen=True, kw_only=True)
class GraphRow(GraphValues, Provenance):
    """A stored interaction graph.

    Attributes:
        model: name of the model.
        checkpoint, dataset: their IDs.
        graph_sha256, bases_sha256: artifacts; the bases may not have been kept.
        step, label: those of the checkpoint.
        run, run_number: ID and number of the checkpoint's run.
        output: basis of the last cut.
    """

    recipe: Annotated[Mapping[str, Any], Field(examples=[{"basis": "global", "output": "neuron"}])]
    id: GraphId
    model: ModelName
    checkpoint: CheckpointId
    dataset: DatasetId
    graph_sha256: Sha256
    bases_sha256: Sha256OrNone
    created: Time
    step: Step = None
    label: Label = None
    run: RunIdOrNone = None
    run_number: RunNumber = None
    output: Output = None


GRAPH = Kind(
    name="graph",
    plural="graphs",
    row=GraphRow,
    detail=GraphRow,
    listing="List graphs, all or those of a model, a run, a checkpoint or a data set.",
    single="Return the record of a graph; other routes return its edges.",
    example=_ID,
    owners=("checkpoint", "dataset"),
    filters=("model", "run", "checkpoint", "dataset"),
    values=GraphValues,
    files={
        "graph": "Download the whole graph, for `InteractionGraph.from_bytes`.",
        "bases": "Download the bases of a graph, for `Bases.from_bytes`.",
    },
)


@dataclass(frozen=True, kw_only=True)
class EdgeRow(Record):
    """An edge: indices of its two cuts, its node at each, and its strength w; of a network, w squared is a loss.

    `weight` is the signed weight of a graph that was read from a file; None where there are no signs.
    """

    earlier_cut: Annotated[int, Field(examples=[1])]
    earlier: Annotated[int, Field(examples=[0])]
    later_cut: Annotated[int, Field(examples=[2])]
    later: Annotated[int, Field(examples=[1])]
    strength: Strength
    weight: Annotated[float | None, Field(examples=[-0.82])] = None


@dataclass(frozen=True, kw_only=True)
class Subgraph(Record):
    """Some edges of a graph, strongest first; `n_edges` is their number before the list was cut to its limit."""

    cuts: Cuts
    n_edges: EdgeCount
    edges: Annotated[
        tuple[EdgeRow, ...],
        Field(examples=[[{"earlier_cut": 1, "earlier": 3, "later_cut": 2, "later": 0, "strength": 0.82}]]),
    ]
