"""Modules tracked over training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from .base import Kind, Provenance, Record, Sha256, Time
from .checkpoints import CheckpointId, Label, ModelName, RunId, RunNumber, Step
from .graphs import GraphId

__all__ = ["TRACKING", "TrackingDetail", "TrackingRow", "TrackingStep", "TrackingValues"]

_ID = "t-1a2b3c4d"

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
    id: Annotated[str, Field(examples=[_ID])]
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
    example=_ID,
    owners=("run",),
    filters=("model", "run"),
    values=TrackingValues,
    files={"tracking": "Download the whole tracking, for `Tracking.from_bytes`."},
    parts={"steps": TrackingStep},
)
