"""Errors of the store and of the service.

StoreError
├── NotFoundError         a reference names nothing that is stored
├── AmbiguousError        a reference names several things
├── ConflictError         the request contradicts what is stored
├── ForbiddenError        the service may not read a file
├── ReadOnlyError         the store file, its folder or the artifact folder cannot be written
├── OldSchemaError        the database is empty or older than this version of interbasis
├── NewerSchemaError      the database was written by a newer version of interbasis
├── UnavailableError      the database or the service cannot be reached, is busy, or its disk is full
├── DatabaseError         the database is damaged, is not one, or failed in an unknown way
├── ArtifactError         an artifact is missing, damaged, or cannot be written
└── ExportError           the process that writes a file for another tool failed
"""

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
        code: name of the error in answers of the service, for programs.
        status: HTTP status of these answers.
        public: message that a service sends instead, where the message itself names places on the server.
    """

    code: ClassVar[str] = "invalid"
    status: ClassVar[int] = 422
    public: str | None = None


class NotFoundError(StoreError):
    """A reference names nothing that is stored."""

    code = "not-found"
    status = 404


class AmbiguousError(StoreError):
    """A reference names several things."""

    code = "ambiguous"
    status = 409


class ConflictError(StoreError):
    """The request contradicts what is stored."""

    code = "conflict"
    status = 409


class ForbiddenError(StoreError):
    """The service may not read a file."""

    code = "forbidden"
    status = 403


class ReadOnlyError(StoreError):
    """The store file, its folder or the artifact folder cannot be written."""

    code = "read-only"
    status = 503


class OldSchemaError(StoreError):
    """The database is empty or older than this version of interbasis."""

    code = "old-schema"
    status = 503


class NewerSchemaError(StoreError):
    """The database was written by a newer version of interbasis."""

    code = "newer-schema"
    status = 503


class UnavailableError(StoreError):
    """The database or the service cannot be reached, is busy, or its disk is full: try again later."""

    code = "unavailable"
    status = 503


class DatabaseError(StoreError):
    """The database is damaged, is not a database, or failed in an unknown way."""

    code = "database-failed"
    status = 500


class ArtifactError(StoreError):
    """An artifact is missing, damaged, or cannot be written."""

    code = "artifact-failed"
    status = 500


class ExportError(ArtifactError):
    """The process that writes a file for another tool failed."""

    code = "export-failed"
