"""The REST API under /api/v1: the store over HTTP. Starts without torch; `Guard` checks every request."""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import version
from typing import Any, cast

import anyio
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match

from ..records.errors import (
    ArtifactError,
    DatabaseError,
    ExportError,
    NewerSchemaError,
    OldSchemaError,
    ReadOnlyError,
    StoreError,
)
from ..store.store import Store
from ..web.files import FILES, POLICY, static_file
from .complaints import complaint
from .guard import Guard, Limits, problem
from .metrics import Metrics
from .routes import cards as card_routes
from .routes import checkpoints as checkpoint_routes
from .routes import exports as export_routes
from .routes import graphs as graph_routes
from .routes import imports as import_routes
from .routes import jobs as job_routes
from .routes import kinds as kind_routes
from .routes import labels as label_routes
from .routes import partitions as partition_routes
from .routes import recipes as recipe_routes
from .routes import service as service_routes
from .schemas import Problem

__all__ = ["ROUTERS", "create_app"]

_log = logging.getLogger(__name__)

_OURS: dict[type[StoreError], str] = {
    ExportError: "the export failed",
    ArtifactError: "a stored file is missing or damaged, or none could be written",
    DatabaseError: "the database failed",
    ReadOnlyError: "the store cannot be written",
    OldSchemaError: "the database is older than this service: its operator has to run `interbasis db upgrade`",
    NewerSchemaError: "the database was written by a newer version than this service's",
}

_LOGGED = "; the service's log says why, under the request ID"

_PARTS = (
    *(service_routes, kind_routes, checkpoint_routes, graph_routes, partition_routes, label_routes),
    *(card_routes, export_routes, import_routes, job_routes, recipe_routes),
)

ROUTERS = tuple(part.routes for part in _PARTS)

"""All routes, below /api/v1."""


def create_app(store: Store, limits: Limits | None = None, *, guarded: bool = True) -> FastAPI:
    """Make the application on an open store.

    Args:
        store: the store; the caller closes it.
        limits: limits that the operator sets.
        guarded: whether requests are checked; not where they come from this process alone, which has the database.
    """
    app = FastAPI(
        title="interbasis",
        version=version("interbasis"),
        description="Interaction graphs, their modules, effective parameters, and the jobs that compute them.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        redirect_slashes=False,
    )
    app.state.store, app.state.limits, app.state.metrics = store, limits or Limits(), Metrics(store)
    app.state.exporting, app.state.converting = anyio.Semaphore(2), anyio.Semaphore(2)
    app.state.checking = anyio.Semaphore(1)
    app.router.routes.extend(_routes())
    _add_pages(app)
    if guarded:
        app.add_middleware(Guard, store=store, limits=app.state.limits, observe=app.state.metrics.observe)
    app.add_exception_handler(StoreError, _store_error)
    app.add_exception_handler(AnyHTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(RecursionError, _too_deep)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.openapi = lambda: _described(app.title, app.version, app.description)  # type: ignore[method-assign]
    return app


@cache
def _routes() -> list[BaseRoute]:
    """Return all routes, which the applications of a process share: to resolve them takes a third of a second."""
    api = APIRouter()
    for router in ROUTERS:
        api.include_router(router, prefix="/api/v1", dependencies=[Depends(HTTPBearer(auto_error=False))])
    return api.routes


def _add_pages(app: FastAPI) -> None:
    """Add the files of the page: at `/`, at `/docs` and below `/web/`."""

    def page(request: Request) -> Response:
        file = static_file(request.scope["route"].path)  # without the prefix of a proxy
        headers = {"content-security-policy": POLICY, "etag": file.etag, "cache-control": "no-cache"}
        headers["vary"] = "accept-encoding"
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(file.packed, headers={**headers, "content-encoding": "gzip"}, media_type=file.kind)
        return Response(file.body, headers=headers, media_type=file.kind)

    for path in FILES:
        app.get(path, include_in_schema=False)(page)


def _problem(status: int, detail: str, headers: Any = None, **more: Any) -> Response:
    return Response(problem(status, detail, **more), status, dict(headers or {}), "application/problem+json")


def _store_error(_: Request, error: Exception) -> Response:
    given = cast(StoreError, error)
    detail = given.public or next((said for kind, said in _OURS.items() if isinstance(error, kind)), None)
    if detail is not None:  # where things lie on the server is the operator's business
        detail += _LOGGED
        _log.error("%s: %s", type(error).__name__, error, exc_info=error)
    headers = {"retry-after": "5"} if given.status == 503 else None
    return _problem(given.status, detail or str(error), headers, code=given.code)


def _http_error(request: Request, error: Exception) -> Response:
    refusal = cast(AnyHTTPException, error)
    headers = dict(refusal.headers or {})
    if refusal.status_code == 405:  # several routes may share the path
        scopes = {method: {**request.scope, "method": method} for method in ("DELETE", "GET", "POST", "PUT")}
        found = [m for m, scope in scopes.items() if any(r.matches(scope)[0] == Match.FULL for r in request.app.routes)]
        headers["allow"] = ", ".join(found)
    return _problem(refusal.status_code, str(refusal.detail), headers)


def _invalid(_: Request, error: Exception) -> Response:
    found = [dict(each) for each in cast(RequestValidationError, error).errors()[:20]]
    errors = [{"where": ".".join(map(str, each["loc"])), "what": complaint(each)} for each in found]
    return _problem(422, "; ".join(each["what"] for each in errors[:3]), code=StoreError.code, errors=errors)


def _too_deep(_: Request, __: Exception) -> Response:
    return _problem(422, "the document is nested too deeply", code=StoreError.code)


def _gone(_: Request, __: Exception) -> Response:
    return _problem(400, "the client went away before the body had ended")


@cache
def _described(title: str, version: str, description: str) -> dict[str, Any]:
    """Return the OpenAPI document, with the one form that errors have."""
    from fastapi.openapi.utils import get_openapi

    document = get_openapi(title=title, version=version, description=description, routes=_routes())
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema()
    form = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    tag = {"ETag": {"description": "Send it in If-None-Match.", "schema": {"type": "string"}}}
    place = {"Location": {"description": "Path of the new resource.", "schema": {"type": "string"}}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["responses"].pop("422", None)
            for parameter in operation.get("parameters", ()):
                if examples := parameter["schema"].pop("examples", None):  # OpenAPI has it beside the schema
                    parameter["example"] = examples[0]
            if method == "get" and not path.endswith(("/events", "/metrics")):
                operation["responses"]["200"]["headers"] = tag
                operation["responses"]["304"] = {"description": "Not modified: it matches If-None-Match."}
            for status in {"201", "202"} & set(operation["responses"]):
                operation["responses"][status]["headers"] = place
            operation["responses"]["default"] = {"description": "An error, as in RFC 9457.", "content": form}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document
