"""Reports of the commands that maintain the database."""

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
    """Findings of a check of the store, one line each.

    Attributes:
        artifacts: results whose artifact is missing or fails its hash.
        schema: differences between the tables and what this version expects.
        foreign_keys: rows whose reference points to no row.
        integrity: damage that the database itself reports.
        uncollected: files that no row refers to: harmless leftovers of interrupted or replaced results.
        n_artifacts: number of artifacts that were read and hashed.
    """

    artifacts: tuple[str, ...] = ()
    schema: tuple[str, ...] = ()
    foreign_keys: tuple[str, ...] = ()
    integrity: tuple[str, ...] = ()
    uncollected: tuple[str, ...] = ()
    n_artifacts: int = 0

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

    files: tuple[str, ...]
    bytes: int
