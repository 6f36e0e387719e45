"""Parameters and forms of answers that routes share."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, cast

from anyio import to_thread
from fastapi import Depends, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from pydantic import AfterValidator
from starlette.background import BackgroundTask

from ..records.base import Kind
from ..records.checkpoints import CHECKPOINT, MODEL
from ..records.estimates import LLC, LlcRow
from ..records.graphs import GRAPH, GraphRow
from ..records.partitions import PARTITION, TRACKING, PartitionDetail
from ..store.store import Store
from . import files
from .guard import COMPUTED, Limits

__all__ = [
    "EXPORT",
    "FILE",
    "NARROWING",
    "UPLOAD",
    "Allowed",
    "CheckpointRef",
    "Cursor",
    "Cut",
    "Edges",
    "Epsilon",
    "GraphRef",
    "JobRef",
    "LabelCursor",
    "Limit",
    "LlcRef",
    "MediatorCursor",
    "ModelRef",
    "Newest",
    "Node",
    "NodeCursor",
    "Opened",
    "OtherRef",
    "PartitionRef",
    "ScheduleRef",
    "TokenRef",
    "TrackingRef",
    "as_file",
    "as_json",
    "as_list",
    "exported",
    "filter_by",
    "reference_to",
]

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


def _in_path(example: str) -> Any:
    """Describe a reference in a path."""
    about = "An ID, the start of one, or a name; write slashes in it as %252F."
    return InPath(max_length=500, description=about, examples=[example])


_SLASHES = AfterValidator(lambda ref: ref.replace("%2F", "/"))

CheckpointRef = Annotated[str, _in_path(CHECKPOINT.example), _SLASHES]

ModelRef = Annotated[str, _in_path(MODEL.example), _SLASHES]

GraphRef = Annotated[str, _in_path(GRAPH.example), _SLASHES]

PartitionRef = Annotated[str, _in_path(PARTITION.example), _SLASHES]

OtherRef = Annotated[str, _in_path("p-5e6f7a8b"), _SLASHES]

LlcRef = Annotated[str, _in_path(LLC.example), _SLASHES]

JobRef = Annotated[str, _in_path("j-1a2b3c4d"), _SLASHES]

ScheduleRef = Annotated[str, _in_path("s-1a2b3c4d"), _SLASHES]

TrackingRef = Annotated[str, _in_path(TRACKING.example), _SLASHES]

TokenRef = Annotated[str, _in_path("t-5e6f7a8b"), _SLASHES]


def reference_to(kind: Kind[Any, Any]) -> Any:
    """Return the type of a reference in a path to a thing of one kind."""
    return Annotated[str, _in_path(kind.example), _SLASHES]


def filter_by(kind: Kind[Any, Any]) -> Any:
    """Return the type of a reference by which a list is filtered."""
    return Annotated[str | None, Query(max_length=500, description="An ID or a name.", examples=[kind.example])]


def _cursor(example: str) -> Any:
    """Describe the cursor of a list."""
    return Query(max_length=200, description="The next_cursor of the page before.", examples=[example])


Cursor = Annotated[str | None, _cursor("MjAyNi0xMS0yMlQwODozMDowMC4xMjUwMDArMDA6MDAgMTI")]

NodeCursor = Annotated[str | None, _cursor("MSAz")]

MediatorCursor = Annotated[str | None, _cursor("MCAxIDEgMw")]

LabelCursor = Annotated[str | None, _cursor("MSAzIDEy")]

Limit = Annotated[int, Query(ge=1, le=1000, examples=[100])]

Newest = Annotated[bool, Query(description="Newest first.", examples=[True])]

NARROWING: dict[str, Any] = {
    "step": Annotated[
        int | None, Query(ge=-(2**63), lt=2**63, description="Only checkpoints of this step.", examples=[2500])
    ],
    "since": Annotated[
        str | None,
        Query(
            max_length=40,
            description="Only what was stored since: 30min, 2h, 3d or 1w ago, or a date and time (UTC by default).",
            examples=["2026-11-22T08:30:00+00:00"],
        ),
    ],
    "verdict": Annotated[
        str | None,
        Query(max_length=80, description="Only results whose verdict starts with this.", examples=["supported"]),
    ],
}
"""Types of the parameters by which a list is narrowed."""

Cut = Annotated[str, InPath(description="Name or index of a cut.", examples=["layers.0"])]

Node = Annotated[int, InPath(ge=0, lt=2**31, examples=[3])]

Edges = Annotated[int, Query(ge=1, le=10_000, description="Largest number of edges, strongest first.", examples=[100])]

Epsilon = Annotated[
    float | None,
    Query(ge=0, allow_inf_nan=False, description="Keep only edges stronger than its square root.", examples=[0.0025]),
]

_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

FILE: dict[int | str, dict[str, Any]] = {200: {"content": _BINARY}}

UPLOAD: dict[str, Any] = {"requestBody": {"required": True, "content": _BINARY}}

_TYPES = {"application/xml": {"schema": {"type": "string"}}, "application/json": {"schema": {"type": "object"}}}

EXPORT: dict[int | str, dict[str, Any]] = {200: {"content": {**_TYPES, **_BINARY}}}


def as_json(request: Request, document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with a document and its ETag, or 304 where the client already has it."""
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


def as_list(request: Request, rows: Any) -> Response:
    """Answer with a whole list that has no pages."""
    return as_json(request, {"items": [row.to_json() for row in rows], "next_cursor": None})


def as_file(request: Request, store: Store, sha256: str, name: str) -> Response:
    """Answer with a stored file; it never changes, so its hash is its ETag."""
    etag = f'"{sha256}"'
    headers = {"etag": etag, "cache-control": "private, no-cache"}
    if _known(request, etag):
        return Response(status_code=304, headers=headers)
    path = store.blobs.verified_path(sha256)
    if path is not None:
        return FileResponse(path, headers=headers, filename=name, media_type="application/octet-stream")
    headers["content-disposition"] = f'attachment; filename="{name}"'
    return Response(store.blobs.get(sha256), headers=headers, media_type="application/octet-stream")


async def exported(
    request: Request,
    row: GraphRow | PartitionDetail | LlcRow,
    form: str,
    epsilon: float | None,
    *,
    module: int | None = None,
    neurons: int | None = None,
    into: str | None = None,
) -> Response:
    """Answer with an export, written by the command line in a separate process, which may load the numerics."""
    store = _store(request)
    etag = await to_thread.run_sync(_export_etag, store, row, form, (epsilon, module, neurons, into))
    headers = {"etag": etag, "cache-control": "private, no-cache"}
    if _known(request, etag):
        return Response(status_code=304, headers=headers)
    handle, name = tempfile.mkstemp(prefix="interbasis-", suffix=f".{form}")
    os.close(handle)
    done = BackgroundTask(Path(name).unlink, missing_ok=True)
    try:
        async with request.app.state.exporting:
            chosen = {"module": module, "neurons": neurons, "into": into}
            await files.export(store, row.id, form, epsilon, Path(name), **chosen)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    kind = _FORMATS.get(form, "application/octet-stream")
    suffix = _SUFFIXES.get(form, form)
    return FileResponse(name, headers=headers, filename=f"{row.id}.{suffix}", media_type=kind, background=done)


def _export_etag(
    store: Store, row: GraphRow | PartitionDetail | LlcRow, form: str, choices: tuple[float | str | None, ...]
) -> str:
    """Return a hash of everything an export depends on; weak, since some formats contain the time of writing."""
    made_of: list[Any] = [version("interbasis"), row.id, form, *choices]
    if isinstance(row, LlcRow):
        made_of.append(row.llc_sha256)
    else:
        graph = store.get_graph(row.graph) if isinstance(row, PartitionDetail) else row
        kind = PARTITION if isinstance(row, PartitionDetail) else GRAPH
        made_of.append([label.to_json() for label in store.labels(kind, row.id)])
        made_of += [graph.graph_sha256, graph.bases_sha256, getattr(row, "partition_sha256", None)]
        if form in COMPUTED:
            checkpoint, data = store.get_checkpoint(graph.checkpoint), store.get_dataset(graph.dataset)
            made_of += [checkpoint.sha256, checkpoint.about, data.sha256]
    return f'W/"{hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32]}"'
