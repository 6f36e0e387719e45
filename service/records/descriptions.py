"""Descriptions: what the nodes and modules of a partition mean, as cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from .base import Kind, Provenance, Record, Sha256, Time
from .checkpoints import CheckpointId, Label, ModelName, RunIdOrNone, RunNumber, Step
from .graphs import GraphId
from .partitions import PartitionId

__all__ = ["DESCRIPTION", "CardValues", "DescriptionRow", "DescriptionValues"]

_ID = "x-1a2b3c4d"

_SUMMARY = {"module": 0, "size": 28, "summary": "28 nodes at 4 cuts; left picture; answers 0:0 to 0:9"}


@dataclass(frozen=True, kw_only=True)
class CardValues(Record):
    """One card, of a node or a module; see `interbasis.analysis.meaning.Card`.

    Attributes:
        cut, node: the node; None on the card of a module.
        module: the module, or that of the node; None where a node is in none.
        summary: one line, made by rule from what is on the card.
        content: all that is on the card, with the inputs of its examples.
    """

    cut: Annotated[str | None, Field(examples=["layers.1"])]
    node: Annotated[int | None, Field(examples=[7])]
    module: Annotated[int | None, Field(examples=[0])]
    summary: Annotated[str, Field(examples=["left picture; more of 0:3"])]
    content: Annotated[dict[str, Any], Field(examples=[{"variance": 1.2, "importance": 1.7}])]


@dataclass(frozen=True, kw_only=True)
class DescriptionValues(Record):
    """What queries use of a description.

    Attributes:
        n: number of data points.
        n_cards: cards of nodes that there are.
        n_nodes: nodes of the graph; more than cards while a job writes them, or after it was stopped.
        modules: number, size and summary of each module, once all cards are written.
    """

    n: Annotated[int, Field(examples=[4000])]
    n_cards: Annotated[int, Field(examples=[119])]
    n_nodes: Annotated[int, Field(examples=[119])]
    modules: Annotated[tuple[dict[str, Any], ...], Field(examples=[[_SUMMARY]])]


@dataclass(frozen=True, kw_only=True)
class DescriptionRow(DescriptionValues, Provenance):
    """A stored description.

    Attributes:
        model: name of the model.
        checkpoint, graph, partition: their IDs.
        description_sha256: the artifact.
        step, label: those of the checkpoint.
        run, run_number: ID and number of the checkpoint's run.
    """

    recipe: Annotated[Mapping[str, Any], Field(examples=[{"examples": 8, "seed": 0}])]
    id: Annotated[str, Field(examples=[_ID])]
    model: ModelName
    checkpoint: CheckpointId
    graph: GraphId
    partition: PartitionId
    description_sha256: Sha256
    created: Time
    step: Step = None
    label: Label = None
    run: RunIdOrNone = None
    run_number: RunNumber = None

    @property
    def whole(self) -> bool:
        """Whether all cards are written."""
        return self.n_cards == self.n_nodes


DESCRIPTION = Kind(
    name="description",
    plural="descriptions",
    row=DescriptionRow,
    detail=DescriptionRow,
    listing="List descriptions without their cards, all or those of a model, a run, a checkpoint or a partition.",
    single="Return a description, with a line on each module; `/partitions/{ref}/cards` lists the cards.",
    example=_ID,
    owners=("partition",),
    filters=("model", "run", "checkpoint", "partition"),
    values=DescriptionValues,
    files={"description": "Download all cards in one file, for `Cards.from_bytes`."},
)
