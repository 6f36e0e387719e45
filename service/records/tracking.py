"""Modules tracked over training."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .base import Kind, Provenance, Record

__all__ = ["TRACKING", "TrackingDetail", "TrackingRow", "TrackingStep", "TrackingValues"]


@dataclass(frozen=True, kw_only=True)
class TrackingValues(Record):
    """Numbers of a tracking that queries use; see `interbasis.analysis.Tracking`.

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
    """One checkpoint of a tracking: its graph, track and size of each module, churn since the step before."""

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


TRACKING = Kind(
    name="tracking",
    plural="trackings",
    row=TrackingRow,
    detail=TrackingDetail,
    listing="List trackings of modules over training, all or those of one model.",
    single="Return a tracking with its checkpoints.",
    owners=("model",),
    filters=("model",),
    values=TrackingValues,
    files={"tracking": "Download the whole tracking, for `Tracking.from_bytes`."},
    parts={"steps": TrackingStep},
)
