"""Routes for models, checkpoints, data sets and files."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import anyio
from anyio import to_thread
from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi import Path as InPath

from ...records.checkpoints import CheckpointRow, DatasetRow, FileRow, ModelRow
from ...records.errors import StoreError, UnavailableError
from ...tasks.checkout import own_names
from .. import files
from ..files import confined
from ..responses import FILE, Allowed, Cursor, Filter, Limit, Newest, Opened, Ref, as_file, as_json
from ..schemas import CheckpointRequest, Listing

__all__ = ["routes"]

routes = APIRouter()


@routes.get("/models", response_model=Listing[ModelRow], tags=["models"])
def models(
    request: Request, store: Opened, cursor: Cursor = None, limit: Limit = 100, newest: Newest = False
) -> Response:
    """List all models."""
    return as_json(request, store.models(cursor=cursor, limit=limit, newest_first=newest).to_json())


@routes.get("/models/{ref}", response_model=ModelRow, tags=["models"])
def model(request: Request, store: Opened, ref: Ref) -> Response:
    """Return a model."""
    return as_json(request, store.get_model(ref).to_json())


@routes.get("/checkpoints", response_model=Listing[CheckpointRow], tags=["checkpoints"])
def checkpoints(
    request: Request,
    store: Opened,
    model: Filter = None,
    cursor: Cursor = None,
    limit: Limit = 100,
    newest: Newest = False,
) -> Response:
    """List checkpoints, all or those of a model."""
    found = store.checkpoints(model=model, cursor=cursor, limit=limit, newest_first=newest)
    return as_json(request, found.to_json())


@routes.post("/checkpoints", status_code=201, response_model=CheckpointRow, tags=["checkpoints"])
def register(request: Request, store: Opened, limits: Allowed, body: CheckpointRequest) -> Response:
    """Register a checkpoint: a file that the service may read, or an upload."""
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
        with own_names(
            {str(file): str(body.path), str(file.with_suffix("")): str(Path(str(body.path)).with_suffix(""))}
        ):
            row = store.register_checkpoint(file, about=body.about, sha256=body.sha256)
    return as_json(request, row.to_json(), 201, {"location": f"/api/v1/checkpoints/{row.id}"})


@routes.get("/checkpoints/{ref}", response_model=CheckpointRow, tags=["checkpoints"])
def checkpoint(request: Request, store: Opened, ref: Ref) -> Response:
    """Return a checkpoint."""
    return as_json(request, store.get_checkpoint(ref).to_json())


@routes.get("/datasets", response_model=Listing[DatasetRow], tags=["datasets"])
def datasets(
    request: Request, store: Opened, cursor: Cursor = None, limit: Limit = 100, newest: Newest = False
) -> Response:
    """List the data sets on which results were computed."""
    return as_json(request, store.datasets(cursor=cursor, limit=limit, newest_first=newest).to_json())


@routes.get("/datasets/{ref}", response_model=DatasetRow, tags=["datasets"])
def dataset(request: Request, store: Opened, ref: Ref) -> Response:
    """Return a data set."""
    return as_json(request, store.get_dataset(ref).to_json())


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
    """Upload a file, weights or data, for checkpoints and jobs: the body is the file, as safetensors."""
    if form == "pt" and not limits.pt:
        raise HTTPException(403, "this service takes no .pt files: convert it with safetensors.torch.save_file")
    try:
        with tempfile.TemporaryDirectory(prefix="interbasis-") as folder:
            file = Path(folder) / f"upload.{form}"
            async with await anyio.open_file(file, "wb") as stream:
                async for part in request.stream():
                    await stream.write(part)
            async with request.app.state.converting if form == "pt" else contextlib.nullcontext():
                row = await to_thread.run_sync(files.keep, store, file, limits.upload)
    except OSError as error:
        raise UnavailableError(f"the upload cannot be kept: {error.strerror}") from error
    return as_json(request, row.to_json(), 201, {"location": f"/api/v1/files/{row.sha256}"})


@routes.get("/files/{sha256}", response_class=Response, responses=FILE, tags=["files"])
def file(
    request: Request, store: Opened, sha256: Annotated[str, InPath(pattern=r"^(sha256:)?[0-9a-f]{64}$")]
) -> Response:
    """Download an uploaded file, or that of any result, by its hash."""
    row = store.get_file(sha256)
    return as_file(request, store, row.sha256, f"{row.sha256[:16]}.safetensors")
