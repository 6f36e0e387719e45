"""Requests and answers: typed documents, typed errors, pauses before another try."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from ..records.base import Record
from ..records.errors import (
    AmbiguousError,
    ArtifactError,
    ConflictError,
    DatabaseError,
    ExportError,
    ForbiddenError,
    NotFoundError,
    StoreError,
    UnavailableError,
)

__all__ = [
    "AGAIN",
    "LONGEST",
    "PAUSES",
    "asked_pause",
    "checked",
    "document",
    "is_service_url",
    "typed_as",
    "unreachable",
    "url_path",
]

RecordT = TypeVar("RecordT", bound=Record)

_KINDS: tuple[type[StoreError], ...] = (
    *(NotFoundError, AmbiguousError, ConflictError, ForbiddenError),
    *(UnavailableError, DatabaseError, ArtifactError, ExportError),
)

_ERRORS = {kind.code: kind for kind in _KINDS}

_STATUS: dict[int, type[StoreError]] = {
    **{404: NotFoundError, 403: ForbiddenError, 409: ConflictError},
    **{502: UnavailableError, 503: UnavailableError, 504: UnavailableError},
}

AGAIN = (429, 502, 503, 504)

PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt

LONGEST = 30.0  # seconds that a request waits in all because it was asked to


@functools.cache
def _validator(kind: Any) -> TypeAdapter[Any]:
    """Make the validator of a type, once: making one takes a thousand times as long as using it."""
    return TypeAdapter(kind)


def typed_as(kind: type[RecordT], document: Any) -> RecordT:
    """Convert the document of an answer to a record.

    Raises:
        StoreError: the document does not fit the record.
    """
    try:
        found: RecordT = _validator(kind).validate_python(document)  # type: ignore[arg-type]
        return found
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise StoreError(
            f"the service gave no {kind.__name__} ({where}: {first['msg']}): is it an interbasis service?"
        ) from error


def document(response: httpx.Response) -> Any:
    """Return the JSON of an answer that is not an error.

    Raises:
        StoreError: the answer is not JSON, as when another program answers at this address.
    """
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        what = response.headers.get("content-type", "nothing")
        raise StoreError(
            f"{response.url} answered with {what}, expected JSON: is this an interbasis service?"
        ) from error


def is_service_url(url: str) -> bool:
    """Return whether requests can be sent to a URL: it is one of HTTP, with a valid host and port."""
    try:
        host = httpx.URL(url).raw_host.decode("ascii")
        return url.startswith(("http://", "https://")) and bool(host.encode("idna"))
    except (httpx.InvalidURL, UnicodeError):
        return False


def unreachable(url: str, error: Exception) -> str:
    """Say in one sentence that a service cannot be reached, and why."""
    why = str(error).partition("] ")[2] or str(error) or type(error).__name__
    return f"cannot reach {url} ({why}): is `interbasis serve` running there?"


def url_path(*parts: Any) -> str:
    """Join parts of a path, each one quoted; also "." and "..", which would lead to another path."""
    quoted = (quote(str(part).replace("/", "%2F"), safe="") for part in parts)  # servers decode once
    return "/".join("%2E" * len(part) if part in (".", "..") else part for part in quoted)


def checked(response: httpx.Response) -> httpx.Response:
    """Return an answer, or raise its error as one of the store."""
    if response.is_success:
        return response
    try:
        found = response.json()
        detail, code = str(found["detail"]), found.get("code")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        detail = f"{response.status_code} {response.reason_phrase} from {response.url}: is this an interbasis service?"
        code = None
    kind = _ERRORS.get(code) if isinstance(code, str) else None
    raise (kind or _STATUS.get(response.status_code, StoreError))(detail)


def asked_pause(response: httpx.Response) -> float:
    """Return the seconds of Retry-After, given as a number or a date; 0 where it is missing."""
    given = response.headers.get("retry-after", "").strip()
    if given.isascii() and given.isdecimal():
        return float(min(int(given[:12]), 10**9))
    try:
        moment = parsedate_to_datetime(given)
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)
