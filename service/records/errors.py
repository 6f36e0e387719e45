"""Errors of the store and of the service."""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AmbiguousError",
    "ArtifactError",
    "ConflictError",
    "DatabaseError",
    "ExportError",
    "ForbiddenError",
    "NewerSchemaError",
    "NotFoundError",
    "OldSchemaError",
    "ReadOnlyError",
    "StoreError",
    "UnavailableError",
]


class StoreError(Exception):
    """Base of every exception that the store raises on purpose.

    Attributes:
        code: what a service calls it, for programs.
        public: what a service says instead of the message, where that names places on the server.
    """

    code: ClassVar[str] = "invalid"
    public: str | None = None


class NotFoundError(StoreError):
    """A reference names nothing that is stored."""

    code = "not-found"


class AmbiguousError(StoreError):
    """A reference names several things."""

    code = "ambiguous"


class ConflictError(StoreError):
    """What is asked for contradicts what is stored."""

    code = "conflict"


class ForbiddenError(StoreError):
    """A file that the service may not read."""

    code = "forbidden"


class ReadOnlyError(StoreError):
    """The store file, its folder or the artifact folder cannot be written."""

    code = "read-only"


class OldSchemaError(StoreError):
    """The database is empty or older than this version of interbasis."""

    code = "old-schema"


class NewerSchemaError(StoreError):
    """The database was written by a newer version of interbasis."""

    code = "newer-schema"


class UnavailableError(StoreError):
    """The database or the service cannot be reached, is busy, or its disk is full: try again later."""

    code = "unavailable"


class DatabaseError(StoreError):
    """The database is damaged, is none, or failed in a way that is not known."""

    code = "database-failed"


class ArtifactError(StoreError):
    """An artifact is missing, damaged, or cannot be written."""

    code = "artifact-failed"


class ExportError(ArtifactError):
    """The process that wrote a file for another tool failed."""

    code = "export-failed"
