"""The REST API under /api/v1: the store over HTTP. Starts without torch; `guard` stands before every route."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import anyio
from anyio import to_thread
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.security import HTTPBearer
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import AfterValidator
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from . import edges, uploads
from .examples import add_examples, add_parameter_examples
from .guard import COMPUTED, Guard, Limits, problem
from .jobs import JobRow
from .metrics import Metrics
from .queries import plain
from .records import (
    AmbiguousError,
    ArtifactError,
    CheckpointRow,
    Collected,
    Comparison,
    ConflictError,
    DatasetRow,
    ExperimentRow,
    FileRow,
    ForbiddenError,
    GraphRow,
    LedgerRow,
    LlcRow,
    MediatorRow,
    ModelRow,
    ModuleRow,
    NewerSchemaError,
    NodeRow,
    NotFoundError,
    OldSchemaError,
    PartitionDetail,
    PartitionRow,
    ReadOnlyError,
    StoreError,
    Subgraph,
    TrackingDetail,
    TrackingRow,
    UnavailableError,
    WorkerRow,
)
from .registry import file_sha256
from .roots import confined
from .schedules import ScheduleRow
from .schemas import (
    CheckpointRequest,
    CollectRequest,
    ExportFormat,
    GraphFormat,
    Health,
    JobRequest,
    Listing,
    Problem,
    Readiness,
    ScheduleRequest,
    State,
    Task,
    TokenRequest,
)
from .store import Store
from .tables import SCHEMA_REVISION
from .tokens import NewToken, TokenRow

__all__ = ["create_app"]

_log = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[StoreError], int], ...] = (
    (NotFoundError, 404),
    (AmbiguousError, 409),
    (ConflictError, 409),
    (ForbiddenError, 403),
    (UnavailableError, 503),
    (ReadOnlyError, 503),
    (OldSchemaError, 503),
    (NewerSchemaError, 503),
    (ArtifactError, 500),
    (StoreError, 422),
)

_OURS: dict[type[StoreError], str] = {
    ArtifactError: "a stored file is missing or damaged, or none could be written",
    ReadOnlyError: "the store cannot be written",
}
_OURS = {kind: f"{said}; the service's log says why, under the request ID" for kind, said in _OURS.items()}
_LOOK = 0.5  # seconds between looks at a job whose events are streamed
_FORMATS = {"graphml": "application/xml", "gexf": "application/xml"}
_FORMATS |= dict.fromkeys(("node-link", "circuit-tracer", "eap"), "application/json")  # others: octet-stream
_SUFFIXES = dict.fromkeys(("node-link", "circuit-tracer", "eap"), "json")
_SUFFIXES |= {"netcdf": "nc", "masks": "safetensors", "autocircuit": "pt"}


def _store(request: Request) -> Store:
    return cast(Store, request.app.state.store)


def _limits(request: Request) -> Limits:
    return cast(Limits, request.app.state.limits)


Opened = Annotated[Store, Depends(_store)]
Allowed = Annotated[Limits, Depends(_limits)]
Ref = Annotated[
    str,
    InPath(max_length=500, description="An ID, the start of one, or a name, whose slashes are written %252F."),
    AfterValidator(lambda ref: ref.replace("%2F", "/")),
]
Index = Annotated[int, InPath(ge=0, lt=2**31)]
Cursor = Annotated[str | None, Query(max_length=200, description="next_cursor of the page before.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Newest = Annotated[bool, Query(description="The newest first.")]
Filter = Annotated[str | None, Query(max_length=500, description="An ID or a name.")]
Edges = Annotated[int, Query(ge=1, le=10_000, description="At most so many, the strongest first.")]
Epsilon = Annotated[float | None, Query(ge=0, allow_inf_nan=False, description="Only edges above its square root.")]

_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_FILE: dict[int | str, dict[str, Any]] = {200: {"content": _BINARY}}
_TYPES = {"application/xml": {"schema": {"type": "string"}}, "application/json": {"schema": {"type": "object"}}}
_EXPORT: dict[int | str, dict[str, Any]] = {200: {"content": {**_TYPES, **_BINARY}}}

routes = APIRouter()


def create_app(store: Store, limits: Limits | None = None) -> FastAPI:
    """The application on an open store.

    Args:
        store: where everything is; who opened it closes it.
        limits: what the operator allows.
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
    app.include_router(routes, prefix="/api/v1", dependencies=[Depends(HTTPBearer(auto_error=False))])
    app.add_middleware(Guard, store=store, limits=app.state.limits, observe=app.state.metrics.observe)
    app.add_exception_handler(StoreError, _store_error)
    app.add_exception_handler(AnyHTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(RecursionError, _too_deep)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return app


# Answers


def _json(request: Request, document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A document with its ETag, or 304 where the client has it already."""
    body = json.dumps(document, allow_nan=False).encode()
    given = dict(headers or {})
    if request.method == "GET":
        given |= {"etag": f'"{hashlib.sha256(body).hexdigest()[:32]}"', "cache-control": "private, no-cache"}
        if _known(request, given["etag"]):
            return Response(status_code=304, headers=given)
    return Response(body, status, given, "application/json")


def _known(request: Request, etag: str) -> bool:
    named = request.headers.get("if-none-match", "")
    given = [tag.strip().removeprefix("W/") for tag in named.split(",")]
    return named.strip() == "*" or etag.removeprefix("W/") in given


def _listed(request: Request, rows: Any) -> Response:
    return _json(request, {"items": [row.to_json() for row in rows], "next_cursor": None})


def _file(request: Request, store: Store, sha256: str, name: str) -> Response:
    """A stored file; it never changes, so that its hash is its ETag."""
    etag = f'"{sha256}"'
    headers = {"etag": etag, "cache-control": "private, no-cache"}
    if _known(request, etag):
        return Response(status_code=304, headers=headers)
    path = store.blobs.verified_path(sha256)
    if path is not None:
        return FileResponse(path, headers=headers, filename=name, media_type="application/octet-stream")
    headers["content-disposition"] = f'attachment; filename="{name}"'
    return Response(store.blobs.get(sha256), headers=headers, media_type="application/octet-stream")


def _problem(status: int, detail: str, headers: Any = None, **more: Any) -> Response:
    return Response(problem(status, detail, **more), status, dict(headers or {}), "application/problem+json")


def _store_error(_: Request, error: Exception) -> Response:
    status = next(status for kind, status in _STATUS if isinstance(error, kind))
    detail = next((said for kind, said in _OURS.items() if isinstance(error, kind)), None)
    if detail is not None:  # where things lie on the server is the operator's business
        _log.error("%s: %s", type(error).__name__, error, exc_info=error)
    return _problem(status, detail or str(error), {"retry-after": "5"} if status == 503 else None)


def _http_error(request: Request, error: Exception) -> Response:
    refusal = cast(AnyHTTPException, error)
    headers = dict(refusal.headers or {})
    if refusal.status_code == 405:  # several routes may share the path
        scopes = {method: {**request.scope, "method": method} for method in ("DELETE", "GET", "POST")}
        found = [m for m, scope in scopes.items() if any(r.matches(scope)[0] == Match.FULL for r in request.app.routes)]
        headers["allow"] = ", ".join(found)
    return _problem(refusal.status_code, str(refusal.detail), headers)


def _invalid(_: Request, error: Exception) -> Response:
    found = cast(RequestValidationError, error).errors()
    errors = [{"where": ".".join(map(str, e["loc"])), "what": str(e["msg"])} for e in found[:20]]
    detail = "; ".join(f"{e['where']}: {e['what']}" for e in errors[:3])
    return _problem(422, detail, errors=errors)


def _too_deep(_: Request, __: Exception) -> Response:
    return _problem(422, "the document is nested too deeply")


def _gone(_: Request, __: Exception) -> Response:
    return _problem(400, "the client went away before the body had ended")


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the one form that errors have."""
    if app.openapi_schema is None:
        from fastapi.openapi.utils import get_openapi

        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = Problem.model_json_schema()
        form = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        tag = {"ETag": {"description": "For If-None-Match.", "schema": {"type": "string"}}}
        place = {"Location": {"description": "Where it is now.", "schema": {"type": "string"}}}
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                operation["responses"].pop("422", None)
                if method == "get" and not path.endswith(("/events", "/metrics")):
                    operation["responses"]["200"]["headers"] = tag
                    operation["responses"]["304"] = {"description": "It is what If-None-Match says."}
                for status in {"201", "202"} & set(operation["responses"]):
                    operation["responses"][status]["headers"] = place
                operation["responses"]["default"] = {"description": "An error, as in RFC 9457.", "content": form}
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        add_examples(schemas)
        add_parameter_examples(document["paths"])
        app.openapi_schema = document
    return app.openapi_schema


# The service itself


@routes.get("/health", response_model=Health, tags=["service"])
def health(request: Request) -> Response:
    """Whether the process answers."""
    return _json(request, Health(version=version("interbasis")).model_dump())


@routes.get("/ready", response_model=Readiness, tags=["service"])
def ready(request: Request, store: Opened) -> Response:
    """Whether the database answers; who works, and what there is to do."""
    alive = sum(worker.alive for worker in store.workers())
    found = Readiness(schema_revision=SCHEMA_REVISION, workers=alive, jobs=store.count_jobs())
    return _json(request, found.model_dump())


@routes.get(
    "/metrics",
    tags=["service"],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(request: Request) -> Response:
    """Counts for Prometheus."""
    return Response(request.app.state.metrics.text(), media_type="text/plain; version=0.0.4")


@routes.get("/workers", response_model=Listing[WorkerRow], tags=["service"])
def workers(request: Request, store: Opened) -> Response:
    """Processes that run jobs."""
    return _listed(request, store.workers())


@routes.post("/gc", response_model=Collected, tags=["service"])
def collect(request: Request, store: Opened, body: CollectRequest) -> Response:
    """Remove stored files that belong to nothing: what interrupted and replaced results left behind."""
    return _json(request, store.collect(body.grace).to_json())


# Models, checkpoints, data, files


@routes.get("/models", response_model=Listing[ModelRow], tags=["models"])
def models(
    request: Request, store: Opened, cursor: Cursor = None, limit: Limit = 100, newest: Newest = False
) -> Response:
    """All models."""
    return _json(request, store.models(cursor=cursor, limit=limit, newest_first=newest).to_json())


@routes.get("/models/{ref}", response_model=ModelRow, tags=["models"])
def model(request: Request, store: Opened, ref: Ref) -> Response:
    """A model."""
    return _json(request, store.get_model(ref).to_json())


@routes.get("/checkpoints", response_model=Listing[CheckpointRow], tags=["checkpoints"])
def checkpoints(
    request: Request,
    store: Opened,
    model: Filter = None,
    cursor: Cursor = None,
    limit: Limit = 100,
    newest: Newest = False,
) -> Response:
    """Checkpoints, all or of a model."""
    found = store.checkpoints(model=model, cursor=cursor, limit=limit, newest_first=newest)
    return _json(request, found.to_json())


@routes.post("/checkpoints", status_code=201, response_model=CheckpointRow, tags=["checkpoints"])
def register(request: Request, store: Opened, limits: Allowed, body: CheckpointRequest) -> Response:
    """Make a checkpoint known: a file that the service may read, or one that was uploaded."""
    if (body.path is None) == (body.uri is None):
        raise StoreError("expected either path or uri")
    if body.uri is not None:
        if body.about is None:
            raise StoreError("about is missing: an uploaded file has no JSON beside it")
        row = store.register_checkpoint(body.uri, about=body.about)
    else:
        file = confined(str(body.path), limits.roots)
        if body.about is None and file.with_suffix(".json").exists():
            confined(str(file.with_suffix(".json")), limits.roots)
        if body.sha256 is not None and file_sha256(file) != body.sha256:
            raise ForbiddenError(f"{body.path} has other content here: upload the file")
        row = store.register_checkpoint(file, about=body.about)
    return _json(request, row.to_json(), 201, {"location": f"/api/v1/checkpoints/{row.id}"})


@routes.get("/checkpoints/{ref}", response_model=CheckpointRow, tags=["checkpoints"])
def checkpoint(request: Request, store: Opened, ref: Ref) -> Response:
    """A checkpoint."""
    return _json(request, store.get_checkpoint(ref).to_json())


@routes.get("/datasets", response_model=Listing[DatasetRow], tags=["datasets"])
def datasets(
    request: Request, store: Opened, cursor: Cursor = None, limit: Limit = 100, newest: Newest = False
) -> Response:
    """Data on which results were computed."""
    return _json(request, store.datasets(cursor=cursor, limit=limit, newest_first=newest).to_json())


@routes.get("/datasets/{ref}", response_model=DatasetRow, tags=["datasets"])
def dataset(request: Request, store: Opened, ref: Ref) -> Response:
    """A data set."""
    return _json(request, store.get_dataset(ref).to_json())


@routes.post(
    "/files",
    status_code=201,
    response_model=FileRow,
    tags=["files"],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload(
    request: Request,
    store: Opened,
    limits: Allowed,
    form: Annotated[Literal["safetensors", "pt"], Query(alias="format")] = "safetensors",
) -> Response:
    """Keep a file, weights or data, for checkpoints and jobs: the body is the file, as safetensors."""
    if form == "pt" and not limits.pt:
        raise HTTPException(403, "this service takes no .pt files: convert it with safetensors.torch.save_file")
    try:
        with tempfile.TemporaryDirectory(prefix="interbasis-") as folder:
            file = Path(folder) / f"upload.{form}"
            async with await anyio.open_file(file, "wb") as stream:
                async for part in request.stream():
                    await stream.write(part)
            async with request.app.state.converting if form == "pt" else contextlib.nullcontext():
                row = await to_thread.run_sync(uploads.keep, store, file, limits.upload)
    except OSError as error:
        raise UnavailableError(f"the upload cannot be kept: {error.strerror}") from error
    return _json(request, row.to_json(), 201, {"location": f"/api/v1/files/{row.sha256}"})


@routes.get("/files/{sha256}", response_class=Response, responses=_FILE, tags=["files"])
def file(
    request: Request, store: Opened, sha256: Annotated[str, InPath(pattern=r"^(sha256:)?[0-9a-f]{64}$")]
) -> Response:
    """A kept file, or that of any result, by its hash."""
    row = store.get_file(sha256)
    return _file(request, store, row.sha256, f"{row.sha256[:16]}.safetensors")


# Graphs


@routes.get("/graphs", response_model=Listing[GraphRow], tags=["graphs"])
def graphs(
    request: Request,
    store: Opened,
    model: Filter = None,
    checkpoint: Filter = None,
    dataset: Filter = None,
    cursor: Cursor = None,
    limit: Limit = 100,
    newest: Newest = False,
) -> Response:
    """Graphs, all or of a model, a checkpoint or a data set."""
    options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest}
    return _json(request, store.graphs(model=model, checkpoint=checkpoint, dataset=dataset, **options).to_json())


@routes.get("/graphs/{ref}", response_model=GraphRow, tags=["graphs"])
def graph(request: Request, store: Opened, ref: Ref) -> Response:
    """What is known of a graph; its edges are elsewhere."""
    return _json(request, store.get_graph(ref).to_json())


@routes.get("/graphs/{ref}/nodes/{cut}/{node}/edges", response_model=Subgraph, tags=["graphs"])
def node_edges(
    request: Request,
    store: Opened,
    ref: Ref,
    cut: Annotated[str, InPath(description="Its name or index.")],
    node: Index,
    limit: Edges = 100,
) -> Response:
    """A node's strongest edges."""
    return _json(request, edges.edges_of(store, ref, cut, node, limit=limit).to_json())


@routes.get("/graphs/{ref}/subgraph", response_model=Subgraph, tags=["graphs"])
def subgraph(
    request: Request,
    store: Opened,
    ref: Ref,
    cut: Annotated[list[str] | None, Query(max_length=100, description="Names or indices; default: all.")] = None,
    epsilon: Epsilon = None,
    limit: Edges = 1000,
) -> Response:
    """The strongest edges among some cuts."""
    return _json(request, edges.subgraph(store, ref, cuts=cut or (), epsilon=epsilon, limit=limit).to_json())


@routes.get("/graphs/{ref}/file", response_class=Response, responses=_FILE, tags=["graphs"])
def graph_file(request: Request, store: Opened, ref: Ref) -> Response:
    """The whole graph, as `InteractionGraph.from_bytes` reads it."""
    row = store.get_graph(ref)
    return _file(request, store, row.graph_sha256, f"{row.id}.safetensors")


@routes.get("/graphs/{ref}/bases", response_class=Response, responses=_FILE, tags=["graphs"])
def bases_file(request: Request, store: Opened, ref: Ref) -> Response:
    """The bases of a graph, as `Bases.from_bytes` reads them."""
    row = store.get_graph(ref)
    if row.bases_sha256 is None:
        raise NotFoundError(f"the bases of {row.id} were not kept")
    return _file(request, store, row.bases_sha256, f"{row.id}-bases.safetensors")


@routes.get("/graphs/{ref}/export", response_class=Response, responses=_EXPORT, tags=["graphs"])
async def export_graph(
    request: Request,
    store: Opened,
    ref: Ref,
    form: Annotated[GraphFormat, Query(alias="format")],
    epsilon: Epsilon = None,
) -> Response:
    """A graph for another tool; eap and autocircuit run the network again, which needs scope submit."""
    row = await to_thread.run_sync(store.get_graph, ref)
    return await _exported(request, row, form, epsilon)


# Partitions


@routes.get("/partitions", response_model=Listing[PartitionRow], tags=["partitions"])
def partitions(
    request: Request,
    store: Opened,
    model: Filter = None,
    checkpoint: Filter = None,
    graph: Filter = None,
    cursor: Cursor = None,
    limit: Limit = 100,
    newest: Newest = False,
) -> Response:
    """Partitions without their modules, all or of a model, a checkpoint or a graph."""
    options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest}
    return _json(request, store.partitions(model=model, checkpoint=checkpoint, graph=graph, **options).to_json())


@routes.get("/partitions/{ref}", response_model=PartitionDetail, tags=["partitions"])
def partition(request: Request, store: Opened, ref: Ref) -> Response:
    """A partition with its modules and the links between them."""
    return _json(request, store.get_partition(ref).to_json())


@routes.get("/partitions/{ref}/modules/{index}", response_model=ModuleRow, tags=["partitions"])
def module(request: Request, store: Opened, ref: Ref, index: Index) -> Response:
    """One module; its members are `nodes?module=`."""
    detail = store.get_partition(ref)
    for found in detail.modules:
        if found.index == index:
            return _json(request, found.to_json())
    raise NotFoundError(f"no module {index} in {detail.id}, which has {detail.n_modules}, counted from 0")


@routes.get("/partitions/{ref}/nodes", response_model=Listing[NodeRow], tags=["partitions"])
def nodes(
    request: Request,
    store: Opened,
    ref: Ref,
    module: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """The nodes of a partition by cut and coordinate, all or the members of one module."""
    return _json(request, store.node_page(ref, module=module, cursor=cursor, limit=limit).to_json())


@routes.get("/partitions/{ref}/nodes/{cut}/{node}", response_model=NodeRow, tags=["partitions"])
def node_module(
    request: Request,
    store: Opened,
    ref: Ref,
    cut: Annotated[str, InPath(description="Its name or index.")],
    node: Index,
) -> Response:
    """Which module holds a node."""
    return _json(request, store.get_node(ref, cut, node).to_json())


@routes.get("/partitions/{ref}/mediators", response_model=Listing[MediatorRow], tags=["partitions"])
def mediators(
    request: Request,
    store: Opened,
    ref: Ref,
    earlier: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
    later: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """The interaction surface: nodes through which modules feed each other, the strongest first."""
    options: dict[str, Any] = {"cursor": cursor, "limit": limit}
    return _json(request, store.mediator_page(ref, earlier=earlier, later=later, **options).to_json())


@routes.get("/partitions/{ref}/edges", response_model=Subgraph, tags=["partitions"])
def module_edges(
    request: Request,
    store: Opened,
    ref: Ref,
    earlier: Annotated[int, Query(ge=0, lt=2**31)],
    later: Annotated[int, Query(ge=0, lt=2**31)],
    limit: Edges = 100,
) -> Response:
    """The strongest edges from one module to another."""
    return _json(request, edges.edges_between(store, ref, earlier, later, limit=limit).to_json())


@routes.get("/partitions/{ref}/compare/{other}", response_model=Comparison, tags=["partitions"])
def compare(request: Request, store: Opened, ref: Ref, other: Ref) -> Response:
    """How far two partitions of the same nodes agree."""
    return _json(request, edges.compare(store, ref, other).to_json())


@routes.get("/partitions/{ref}/file", response_class=Response, responses=_FILE, tags=["partitions"])
def partition_file(request: Request, store: Opened, ref: Ref) -> Response:
    """The whole partition, as `Partition.from_bytes` reads it."""
    row = store.get_partition(ref)
    return _file(request, store, row.partition_sha256, f"{row.id}.safetensors")


@routes.get("/partitions/{ref}/export", response_class=Response, responses=_EXPORT, tags=["partitions"])
async def export_partition(
    request: Request,
    store: Opened,
    ref: Ref,
    form: Annotated[ExportFormat, Query(alias="format")],
    epsilon: Epsilon = None,
    module: Annotated[
        int | None, Query(ge=0, lt=2**31, description="Of eap and autocircuit: only the circuit of this module.")
    ] = None,
) -> Response:
    """A partition with its graph for another tool; eap and autocircuit run the network again, which needs submit."""
    row = await to_thread.run_sync(store.get_partition, ref)
    return await _exported(request, row, form, epsilon, module)


# Counts and estimates


@routes.get("/llc", response_model=Listing[LlcRow], tags=["llc"])
def llcs(
    request: Request,
    store: Opened,
    model: Filter = None,
    checkpoint: Filter = None,
    cursor: Cursor = None,
    limit: Limit = 100,
    newest: Newest = False,
) -> Response:
    """Learning coefficients, all or of a model or a checkpoint."""
    options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest}
    return _json(request, store.llcs(model=model, checkpoint=checkpoint, **options).to_json())


@routes.get("/llc/{ref}", response_model=LlcRow, tags=["llc"])
def llc(request: Request, store: Opened, ref: Ref) -> Response:
    """A learning coefficient at one loss scale, or a curve over many, with its verdict on itself."""
    return _json(request, store.get_llc(ref).to_json())


@routes.get("/llc/{ref}/file", response_class=Response, responses=_FILE, tags=["llc"])
def llc_file(request: Request, store: Opened, ref: Ref) -> Response:
    """The whole estimate with its traces."""
    row = store.get_llc(ref)
    return _file(request, store, row.llc_sha256, f"{row.id}.safetensors")


@routes.get("/llc/{ref}/export", response_class=Response, responses=_FILE, tags=["llc"])
async def export_llc(request: Request, store: Opened, ref: Ref) -> Response:
    """The traces as netCDF, for ArviZ."""
    row = await to_thread.run_sync(store.get_llc, ref)
    return await _exported(request, row, "netcdf", None)


@routes.get("/experiments", response_model=Listing[ExperimentRow], tags=["experiments"])
def experiments(
    request: Request,
    store: Opened,
    model: Filter = None,
    checkpoint: Filter = None,
    partition: Filter = None,
    cursor: Cursor = None,
    limit: Limit = 100,
    newest: Newest = False,
) -> Response:
    """Circuit experiments, all or of a model, a checkpoint or a partition."""
    options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest}
    found = store.experiments(model=model, checkpoint=checkpoint, partition=partition, **options)
    return _json(request, found.to_json())


@routes.get("/experiments/{ref}", response_model=ExperimentRow, tags=["experiments"])
def experiment(request: Request, store: Opened, ref: Ref) -> Response:
    """A circuit experiment, with every row of its summary."""
    return _json(request, store.get_experiment(ref).to_json())


@routes.get("/experiments/{ref}/file", response_class=Response, responses=_FILE, tags=["experiments"])
def experiment_file(request: Request, store: Opened, ref: Ref) -> Response:
    """The whole experiment, as `Experiment.from_bytes` reads it."""
    row = store.get_experiment(ref)
    return _file(request, store, row.experiment_sha256, f"{row.id}.safetensors")


@routes.get("/ledgers", response_model=Listing[LedgerRow], tags=["ledgers"])
def ledgers(
    request: Request,
    store: Opened,
    model: Filter = None,
    checkpoint: Filter = None,
    cursor: Cursor = None,
    limit: Limit = 100,
    newest: Newest = False,
) -> Response:
    """Parameter ledgers, all or of a model or a checkpoint."""
    options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest}
    return _json(request, store.ledgers(model=model, checkpoint=checkpoint, **options).to_json())


@routes.get("/ledgers/{ref}", response_model=LedgerRow, tags=["ledgers"])
def ledger(request: Request, store: Opened, ref: Ref) -> Response:
    """A parameter ledger."""
    return _json(request, store.get_ledger(ref).to_json())


@routes.get("/ledgers/{ref}/file", response_class=Response, responses=_FILE, tags=["ledgers"])
def ledger_file(request: Request, store: Opened, ref: Ref) -> Response:
    """The whole ledger, as `Ledger.from_bytes` reads it."""
    row = store.get_ledger(ref)
    return _file(request, store, row.ledger_sha256, f"{row.id}.safetensors")


@routes.get("/trackings", response_model=Listing[TrackingRow], tags=["trackings"])
def trackings(
    request: Request,
    store: Opened,
    model: Filter = None,
    cursor: Cursor = None,
    limit: Limit = 100,
    newest: Newest = False,
) -> Response:
    """Modules over training, of all models or of one."""
    return _json(request, store.trackings(model=model, cursor=cursor, limit=limit, newest_first=newest).to_json())


@routes.get("/trackings/{ref}", response_model=TrackingDetail, tags=["trackings"])
def tracking(request: Request, store: Opened, ref: Ref) -> Response:
    """A tracking with its checkpoints."""
    return _json(request, store.get_tracking(ref).to_json())


@routes.get("/trackings/{ref}/file", response_class=Response, responses=_FILE, tags=["trackings"])
def tracking_file(request: Request, store: Opened, ref: Ref) -> Response:
    """The whole tracking, as `Tracking.from_bytes` reads it."""
    row = store.get_tracking(ref)
    return _file(request, store, row.tracking_sha256, f"{row.id}.safetensors")


# Jobs


@routes.get("/jobs", response_model=Listing[JobRow], tags=["jobs"])
def jobs(
    request: Request,
    store: Opened,
    state: State | None = None,
    task: Task | None = None,
    cursor: Cursor = None,
    limit: Limit = 100,
    newest: Newest = False,
) -> Response:
    """Jobs, all or those in one state or of one task."""
    found = store.jobs(state=state, task=task, cursor=cursor, limit=limit, newest_first=newest)
    return _json(request, found.to_json())


@routes.post("/jobs", status_code=202, response_model=JobRow, tags=["jobs"])
def submit(request: Request, store: Opened, limits: Allowed, body: JobRequest) -> Response:
    """Ask for work; the same work is done once, so that asking again is safe."""
    options: dict[str, Any] = {"queue": body.queue, "priority": body.priority, "timeout": body.timeout}
    row = store.submit(body.task, body.target, _choices(body.choices, limits), **options)
    request.state.job_id = row.id  # for the log
    return _json(request, row.to_json(), 202, {"location": f"/api/v1/jobs/{row.id}"})


def _choices(given: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """The choices of a request, whose data must be an upload or within the allowed folders."""
    data = given.get("data")
    if data is not None and not isinstance(data, str):
        raise StoreError("data: expected a path or the sha256:... of an upload")
    if data is not None and not data.startswith("sha256:"):
        given = {**given, "data": str(confined(data, limits.roots))}
    checked: dict[str, Any] = plain(given)
    return checked


@routes.get("/jobs/{ref}", response_model=JobRow, tags=["jobs"])
def job(request: Request, store: Opened, ref: Ref) -> Response:
    """A job as it stands."""
    return _json(request, store.get_job(ref).to_json())


def _named_job(store: Opened, ref: Ref) -> JobRow:
    return store.get_job(ref)


@routes.get("/jobs/{ref}/events", response_class=EventSourceResponse, tags=["jobs"])
async def events(
    store: Opened,
    limits: Allowed,
    row: Annotated[JobRow, Depends(_named_job)],
    last_event_id: Annotated[str | None, Header(max_length=40)] = None,
) -> AsyncIterator[ServerSentEvent]:
    """The job whenever it changes, until it has ended: server-sent events.

    Every event carries the whole job, and its ID grows with each change; with `Last-Event-ID` nothing is sent that was
    seen before, and the newest state always is.
    """
    seen = int(last_event_id) if last_event_id is not None and last_event_id.isdecimal() else 0
    with anyio.move_on_after(limits.stream):
        while True:
            if row.version > seen:
                seen = row.version
                yield ServerSentEvent(data=row.to_json(), event="job", id=str(seen))
            if row.ended:
                return
            await anyio.sleep(_LOOK)
            row = await to_thread.run_sync(store.get_job, row.id)


@routes.post("/jobs/{ref}/cancel", response_model=JobRow, tags=["jobs"])
def cancel(request: Request, store: Opened, ref: Ref) -> Response:
    """Stop a job: at once where it waits, within two seconds where it runs."""
    return _json(request, store.cancel_job(ref).to_json())


@routes.post("/jobs/{ref}/retry", response_model=JobRow, tags=["jobs"])
def retry(request: Request, store: Opened, ref: Ref) -> Response:
    """Queue a job again that failed or was cancelled."""
    return _json(request, store.retry_job(ref).to_json())


# Schedules


@routes.get("/schedules", response_model=Listing[ScheduleRow], tags=["schedules"])
def schedules(
    request: Request, store: Opened, cursor: Cursor = None, limit: Limit = 100, newest: Newest = False
) -> Response:
    """All schedules."""
    return _json(request, store.schedules(cursor=cursor, limit=limit, newest_first=newest).to_json())


@routes.post("/schedules", status_code=201, response_model=ScheduleRow, tags=["schedules"])
def add_schedule(request: Request, store: Opened, limits: Allowed, body: ScheduleRequest) -> Response:
    """Ask for work at times, or for every new checkpoint of a model."""
    folder = None if body.folder is None else confined(body.folder, limits.roots, folder=True)
    options: dict[str, Any] = {"queue": body.queue, "priority": body.priority, "timeout": body.timeout}
    choices = _choices(body.choices, limits)
    row = store.add_schedule(body.task, body.model, choices, cron=body.cron, folder=folder, **options)
    return _json(request, row.to_json(), 201, {"location": f"/api/v1/schedules/{row.id}"})


@routes.get("/schedules/{ref}", response_model=ScheduleRow, tags=["schedules"])
def schedule(request: Request, store: Opened, ref: Ref) -> Response:
    """A schedule."""
    return _json(request, store.get_schedule(ref).to_json())


@routes.delete("/schedules/{ref}", status_code=204, response_class=Response, tags=["schedules"])
def remove_schedule(store: Opened, ref: Ref) -> Response:
    """Forget a schedule; its jobs stay."""
    store.remove_schedule(ref)
    return Response(status_code=204)


@routes.post("/schedules/{ref}/{action}", response_model=ScheduleRow, tags=["schedules"])
def change_schedule(request: Request, store: Opened, ref: Ref, action: Literal["pause", "resume", "run"]) -> Response:
    """Let a schedule rest, go on, or ask for its jobs now."""
    change: dict[str, Callable[[str], ScheduleRow]] = {
        "pause": store.pause_schedule,
        "resume": store.resume_schedule,
        "run": store.run_schedule,
    }
    return _json(request, change[action](ref).to_json())


# Tokens


@routes.get("/tokens", response_model=Listing[TokenRow], tags=["tokens"])
def tokens(
    request: Request, store: Opened, cursor: Cursor = None, limit: Limit = 100, newest: Newest = False
) -> Response:
    """All tokens, without their secrets."""
    return _json(request, store.tokens(cursor=cursor, limit=limit, newest_first=newest).to_json())


@routes.post("/tokens", status_code=201, response_model=NewToken, tags=["tokens"])
def new_token(request: Request, store: Opened, body: TokenRequest) -> Response:
    """Make a token, which is shown this once; from the first one on every request needs one."""
    made = store.new_token(body.name, body.scope)
    return _json(request, made.to_json(), 201, {"location": f"/api/v1/tokens/{made.id}"})


@routes.get("/tokens/{ref}", response_model=TokenRow, tags=["tokens"])
def token(request: Request, store: Opened, ref: Ref) -> Response:
    """A token, without its secret."""
    return _json(request, store.get_token(ref).to_json())


@routes.delete("/tokens/{ref}", response_model=TokenRow, tags=["tokens"])
def revoke_token(request: Request, store: Opened, ref: Ref) -> Response:
    """Close a token for ever."""
    return _json(request, store.revoke_token(ref).to_json())


async def _exported(
    request: Request,
    row: GraphRow | PartitionDetail | LlcRow,
    form: str,
    epsilon: float | None,
    module: int | None = None,
) -> Response:
    """A result written by the command line in a process of its own, which may load the numerics."""
    store = _store(request)
    etag = await to_thread.run_sync(_export_etag, store, row, form, epsilon, module)
    headers = {"etag": etag, "cache-control": "private, no-cache"}
    if _known(request, etag):
        return Response(status_code=304, headers=headers)
    handle, name = tempfile.mkstemp(prefix="interbasis-", suffix=f".{form}")
    os.close(handle)
    done = BackgroundTask(Path(name).unlink, missing_ok=True)
    try:
        async with request.app.state.exporting:
            await uploads.export(store, row.id, form, epsilon, Path(name), module)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    kind = _FORMATS.get(form, "application/octet-stream")
    suffix = _SUFFIXES.get(form, form)
    return FileResponse(name, headers=headers, filename=f"{row.id}.{suffix}", media_type=kind, background=done)


def _export_etag(
    store: Store, row: GraphRow | PartitionDetail | LlcRow, form: str, epsilon: float | None, module: int | None
) -> str:
    """From what a file is made of; weak, since some formats note when they were written."""
    made_of: list[Any] = [version("interbasis"), row.id, form, epsilon, module]
    if isinstance(row, LlcRow):
        made_of.append(row.llc_sha256)
    else:
        graph = store.get_graph(row.graph) if isinstance(row, PartitionDetail) else row
        made_of += [graph.graph_sha256, graph.bases_sha256, getattr(row, "partition_sha256", None)]
        if form in COMPUTED:
            checkpoint, data = store.get_checkpoint(graph.checkpoint), store.get_dataset(graph.dataset)
            made_of += [checkpoint.sha256, checkpoint.about, data.sha256]
    return f'W/"{hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32]}"'
