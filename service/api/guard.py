"""Checks of every request before a route sees it: request ID, host, token, rate, size and speed of the body.

It is ASGI middleware around the whole application, so that no route can be forgotten. Reading needs scope read;
changing something or running a network, scope submit; tokens and the removal of what is stored, scope admin. The pages
at `/` and `/docs`, which hold nothing that is stored, need no token.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..logs import request_id
from ..records.errors import NewerSchemaError, OldSchemaError, ReadOnlyError, StoreError, UnavailableError
from ..records.jobs import SCOPES
from ..store.store import Store
from ..web.files import FILES

__all__ = ["COMPUTED", "Guard", "Limits", "problem"]

COMPUTED = ("eap", "autocircuit", "components")

"""Export formats that run the network again."""

_log = logging.getLogger("interbasis.access")

_UPLOADS = ("/api/v1/files", "/api/v1/imports")

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

_KNOWN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_TOKEN = re.compile(r"(ib_[A-Za-z0-9-]+_)[A-Za-z0-9_-]{20,}")

_FAILURES, _WINDOW = 10, 60.0  # of authentication, per address, and seconds

_ADDRESSES = 10_000  # remembered at most

_CODES: dict[int, str] = {401: "unauthorized", 403: "forbidden", 404: "not-found", 429: "too-many-requests"}

_AWAY = (UnavailableError, ReadOnlyError, OldSchemaError, NewerSchemaError)

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)

"""Headers of every answer that does not set them itself."""


@dataclass(frozen=True)
class Limits:
    """Limits that the operator sets.

    Attributes:
        roots: folders from which requests may name files.
        upload: most bytes of an uploaded file.
        body: most bytes of any other body.
        patience: seconds that a body may take, plus one for every 10 kB.
        pt: whether .pt files may be uploaded; they are read with weights_only in a separate process.
        stream: seconds after which a stream of events ends.
        host: name or address that requests without a token may use, besides the loopback ones.
    """

    roots: tuple[Path, ...] = ()
    upload: int = 2 << 30
    body: int = 1 << 20
    patience: float = 30.0
    pt: bool = False
    stream: float = 3600.0
    host: str | None = None


@dataclass
class _Request:
    """Facts about a request, for log and metrics."""

    identifier: str
    begun: float = field(default_factory=time.monotonic)
    status: int = 0
    token: str | None = None


class Guard:
    """The middleware; it calls `observe` with route, method, status and seconds of every request."""

    def __init__(
        self, app: ASGIApp, *, store: Store, limits: Limits, observe: Callable[[str, str, int, float], None]
    ) -> None:
        """Wrap an application."""
        self._app, self._store, self._limits, self._observe = app, store, limits, observe
        self._failures: dict[str, tuple[int, float]] = {}
        self._needs_token: bool | None = None  # not known yet; once true it stays so

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        request = _Request(given if _KNOWN_ID.fullmatch(given) else secrets.token_hex(8))
        mark = request_id.set(request.identifier)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                own = [header for header in _HEADERS if header[0] not in given]
                own.append((b"x-request-id", request.identifier.encode()))
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        try:
            refusal = await self._refusal(scope, headers, request)
            if refusal is not None:
                await _respond(answer, *refusal)
            else:
                await self._app(scope, self._counted(scope, receive), answer)
        except Exception:
            _log.exception("a bug, met at %s", _named(scope))
            if not request.status:
                detail = "something went wrong in the service; its log says what, under the request ID"
                await _respond(answer, 500, detail, {})
        finally:
            request_id.reset(mark)
            self._tell(scope, request)

    async def _refusal(self, scope: Scope, headers: dict[str, str], request: _Request) -> tuple[Any, ...] | None:
        """Return status, detail and headers of a refusal; None where the request may pass."""
        client = scope["client"][0] if scope.get("client") else "unknown"
        token = _bearer(headers.get("authorization", ""))
        if self._locked_out(client):
            return 429, "too many failed authentications from this address: wait a minute", {"retry-after": "60"}
        try:
            needed, allowed = await to_thread.run_sync(self._look_up, token, scope["path"])
        except StoreError as error:  # who asks is not known, and what the database says is not for everyone
            _log.warning("a token cannot be looked up: %s", error)
            if isinstance(error, _AWAY):
                return 503, "the database cannot be used at the moment: try again later", {"retry-after": "5"}
            return 500, "the database does not answer as it should; the service's log says why", {}
        if needed and allowed is None and (token or not _open(scope)):
            if token:  # a page that has yet to ask for a token guesses at none
                self._note_failure(client)
            what = (
                "the token is unknown or revoked"
                if token
                else "a token is needed: Authorization: Bearer ib_... (commands take it from INTERBASIS_TOKEN)"
            )
            return 401, what, {"www-authenticate": "Bearer"}
        wanted = _scope_of(scope)
        if needed and allowed is not None and SCOPES.index(allowed) < SCOPES.index(wanted):
            return 403, f"this needs a token of scope {wanted}, the one given has scope {allowed}", {}
        request.token = token.split("_")[1] if needed and token else None
        if not needed and (foreign := _foreign(headers, self._limits.host)):
            return 403, foreign, {}
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._most(scope):
            return 413, f"the body has {length} bytes: expected at most {self._most(scope)}", {"connection": "close"}
        return None

    def _look_up(self, token: str | None, path: str) -> tuple[bool, str | None]:
        """Return whether requests need a token, and the scope of the given one.

        While the database is away, it is unknown whether there is a token by now: if none was needed so far, only the
        route that says that the process is alive is answered.
        """
        try:
            needed = self._needs_token = self._needs_token or self._store.needs_token()
        except UnavailableError:
            if self._needs_token is None or path != "/api/v1/health":
                raise
            needed = False
        return needed, self._store.scope_of(token) if needed and token else None

    def _locked_out(self, client: str) -> bool:
        count, since = self._failures.get(client, (0, 0.0))
        if time.monotonic() - since > _WINDOW:
            self._failures.pop(client, None)
            return False
        return count >= _FAILURES

    def _note_failure(self, client: str) -> None:
        if len(self._failures) >= _ADDRESSES:
            self._failures.clear()
        count, since = self._failures.get(client, (0, time.monotonic()))
        self._failures[client] = count + 1, since

    def _most(self, scope: Scope) -> int:
        return self._limits.upload if scope["path"] in _UPLOADS else self._limits.body

    def _counted(self, scope: Scope, receive: Receive) -> Receive:
        """Limit the body as it comes in: neither too large, whatever its header said, nor too slow."""
        most, patience = self._most(scope), self._limits.patience
        begun, size, ended = time.monotonic(), 0, False

        async def take() -> Message:
            nonlocal size, ended
            if ended:
                return await receive()
            left = begun + patience + size / 10_000 - time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), max(left, 0.001))
            except TimeoutError:
                ended = True
                raise HTTPException(408, "the body came too slowly", {"connection": "close"}) from None
            size += len(message.get("body", b""))
            ended = not message.get("more_body", False)
            if size > most:
                ended = True
                raise HTTPException(413, f"the body has more than {most} bytes", {"connection": "close"})
            return message

        return take

    def _tell(self, scope: Scope, request: _Request) -> None:
        seconds = time.monotonic() - request.begun
        route = getattr(scope.get("route"), "path", "unknown")
        self._observe(route, scope["method"], request.status, seconds)
        about = {"method": scope["method"], "path": _named(scope), "status": request.status}
        about |= {"ms": round(1000 * seconds, 1), "request_id": request.identifier, "token": request.token}
        about["job_id"] = scope.get("state", {}).get("job_id")
        _log.info("%s %s %s", scope["method"], _named(scope), request.status, extra={"fields": about})


def problem(status: int, detail: str, **more: Any) -> bytes:
    """Make the body of an error, as in RFC 9457, with a code for programs; default: the words of the status."""
    from http import HTTPStatus

    code = _CODES.get(status, HTTPStatus(status).phrase.lower().replace(" ", "-"))
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, "code": code}
    body |= more
    return _without_secrets(json.dumps(body | {"request_id": request_id.get()})).encode()


async def _respond(send: Send, status: int, detail: str, headers: dict[str, str]) -> None:
    body = problem(status, detail)
    given = {"content-type": "application/problem+json", "content-length": str(len(body)), **headers}
    listed = [(name.encode(), value.encode()) for name, value in given.items()]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": body})


def _open(scope: Scope) -> bool:
    """Return whether a request is for a file of the page, which holds nothing that is stored and needs no token."""
    return scope["method"] in ("GET", "HEAD") and scope["path"] in FILES


def _named(scope: Scope) -> str:
    """Return the path for a log, always as one line."""
    return _without_secrets(quote(scope["path"], safe="/:%"))


def _without_secrets(text: str) -> str:
    """Remove the secrets of tokens from a text, wherever a client put its own.

    >>> _without_secrets("no model ib_t-12ab34cd_ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    'no model ib_t-12ab34cd_...'
    """
    return _TOKEN.sub(r"\1...", text)


def _bearer(header: str) -> str | None:
    kind, _, token = header.partition(" ")
    return token.strip() or None if kind.lower() == "bearer" else None


def _scope_of(scope: Scope) -> str:
    """Return the scope that a request needs."""
    path = scope["path"].rstrip("\n")  # a route takes a path with a newline at its end, too
    if path.startswith("/api/v1/tokens") or path in ("/api/v1/gc", "/api/v1/check"):
        return "admin"
    if scope["method"] == "DELETE" and not path.startswith("/api/v1/schedules/"):
        return "admin"
    if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
        return "submit"
    given = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    computed = path.endswith("/export") and any(n == "format" and form in COMPUTED for n, form in given)
    return "submit" if computed else "read"


def _foreign(headers: dict[str, str], host: str | None) -> str | None:
    """Return why a service without tokens must refuse the source of a request; None where it may answer.

    Any page in the user's browser can send requests to this machine; its `Origin`, its `Sec-Fetch-Site`, or the `Host`
    of a name that was pointed here, reveals it. Following links is allowed.
    """
    allowed = {*_LOOPBACK, host}
    given = headers.get("host", "")
    parts = _parts(f"//{given}")
    named = parts.hostname if parts.netloc == given and "@" not in given else None
    if named is None or named not in allowed:
        return f"without a token this service answers to {', '.join(_LOOPBACK)} only, not to {given!r}"
    origin = headers.get("origin")
    if origin is not None and _parts(origin).netloc != headers.get("host"):
        return f"without a token requests from pages of {origin!r} are refused"
    if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
        return "without a token requests from pages of other sites are refused"
    return None


def _parts(url: str) -> SplitResult:
    """Split a URL; return empty parts where it cannot be read."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
