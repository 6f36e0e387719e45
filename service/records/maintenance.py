"""What the commands about the database report."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Record

__all__ = ["CheckReport", "Collected", "Upgrade"]


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
