"""Reports of the commands that maintain the database, and of what they remove."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from .base import Bytes, Record, Sha256s

__all__ = ["CheckReport", "Collected", "Removal", "Upgrade"]


@dataclass(frozen=True, kw_only=True)
class Upgrade(Record):
    """Schema revisions before and after an upgrade; `before` is None for an empty database."""

    before: str | None
    after: str


@dataclass(frozen=True, kw_only=True)
class CheckReport(Record):
    """Findings of a check of the store, one line each.

    Attributes:
        artifacts: results whose artifact is missing or fails its hash.
        schema: differences between the tables and what this version expects.
        foreign_keys: rows whose reference points to no row.
        integrity: damage that the database itself reports.
        uncollected: files that no row refers to: harmless leftovers of interrupted or replaced results.
        n_artifacts: number of artifacts that were read and hashed.
    """

    artifacts: Annotated[tuple[str, ...], Field(examples=[[]])] = ()
    schema: Annotated[tuple[str, ...], Field(examples=[[]])] = ()
    foreign_keys: Annotated[tuple[str, ...], Field(examples=[[]])] = ()
    integrity: Annotated[tuple[str, ...], Field(examples=[[]])] = ()
    uncollected: Annotated[tuple[str, ...], Field(examples=[["unfinished file .3f2a9c1e-5b7d8a60c4e2f913.tmp"]])] = ()
    n_artifacts: Annotated[int, Field(examples=[412])] = 0

    @property
    def problems(self) -> tuple[str, ...]:
        """All findings that need repair."""
        return self.artifacts + self.schema + self.foreign_keys + self.integrity

    @property
    def ok(self) -> bool:
        """Whether nothing needs repair; uncollected files do no harm."""
        return not self.problems


@dataclass(frozen=True, kw_only=True)
class Collected(Record):
    """Unused files that were removed, and the number of bytes freed."""

    files: Sha256s
    bytes: Bytes


@dataclass(frozen=True, kw_only=True)
class Removal(Record):
    """A stored thing that is removed, and how many of each kind go along with it.

    Attributes:
        kind, id: of the thing.
        name: `model`, `model#run` or `model#run@step` of the thing, or of the checkpoint to which a result belongs.
        along: number of the things that go along, by the plural of their kind; "labels" counts earlier ones, too.
        schedules: IDs of the schedules that follow the model or run, which go along, too.
    """

    kind: Annotated[str, Field(examples=["run"])]
    id: Annotated[str, Field(examples=["r-1a2b3c4d"])]
    name: Annotated[str | None, Field(examples=["two-digits#2"])]
    along: Annotated[Mapping[str, int], Field(examples=[{"checkpoints": 6, "graphs": 6, "partitions": 6}])]
    schedules: Annotated[tuple[str, ...], Field(examples=[["s-1a2b3c4d"]])] = ()
