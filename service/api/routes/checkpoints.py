"""Routes that take in checkpoints and files, relocate checkpoints, and rename models."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi import Path as InPath

from ...records.base import EXAMPLE_SHA256
from ...records.checkpoints import CheckpointRow, FileRow, ModelRow
from ...records.errors import StoreError
from ...tasks.checkout import own_names
from .. import files
from ..files import confined
from ..responses import FILE, UPLOAD, Allowed, CheckpointRef, ModelRef, Opened, as_file, as_json
from ..schemas import CheckpointRequest, RelocateRequest, RenameRequest

__all__ = ["routes"]

routes = APIRouter()


@routes.post("/checkpoints", status_code=201, response_model=CheckpointRow, tags=["checkpoints"])
def register(request: Request, store: Opened, limits: Allowed, body: CheckpointRequest) -> Response:
    """Register a checkpoint: a file that the service may read, or an upload."""
    if (body.path is None) == (body.uri is None):
        raise StoreError("expected either path or uri")
    if body.uri is not None:
        if body.about is None:
            raise StoreError("about is missing: an uploaded file has no JSON beside it")
        row = store.register_checkpoint(body.uri, about=body.about, after_run=body.after_run)
    else:
        file = confined(str(body.path), limits.roots)
        if body.about is None and file.with_suffix(".json").exists():
            confined(str(file.with_suffix(".json")), limits.roots)
        with own_names(
            {str(file): str(body.path), str(file.with_suffix("")): str(Path(str(body.path)).with_suffix(""))}
        ):
            row = store.register_checkpoint(file, about=body.about, sha256=body.sha256, after_run=body.after_run)
    return as_json(request, row.to_json(), 201, {"location": f"/api/v1/checkpoints/{row.id}"})


@routes.post("/checkpoints/{ref}/relocate", response_model=CheckpointRow, tags=["checkpoints"])
def relocate(request: Request, store: Opened, limits: Allowed, ref: CheckpointRef, body: RelocateRequest) -> Response:
    """Say where the file of a checkpoint is now: a path that the service may read, or an upload."""
    if (body.path is None) == (body.uri is None):
        raise StoreError("expected either path or uri")
    file = body.uri or confined(str(body.path), limits.roots)
    with own_names({} if body.uri else {str(file): str(body.path)}):
        return as_json(request, store.relocate_checkpoint(ref, file).to_json())


@routes.post("/models/{ref}/rename", response_model=ModelRow, tags=["models"])
def rename(request: Request, store: Opened, ref: ModelRef, body: RenameRequest) -> Response:
    """Give a model another name."""
    return as_json(request, store.rename_model(ref, body.name).to_json())


@routes.post(
    "/files",
    status_code=201,
    response_model=FileRow,
    tags=["files"],
    openapi_extra=UPLOAD,
)
async def upload(
    request: Request,
    store: Opened,
    limits: Allowed,
    form: Annotated[Literal["safetensors", "pt"], Query(alias="format", examples=["safetensors"])] = "safetensors",
) -> Response:
    """Upload a file, weights or data, for checkpoints and jobs: the body is the file, as safetensors."""
    if form == "pt" and not limits.pt:
        raise HTTPException(403, "this service takes no .pt files: convert it with safetensors.torch.save_file")
    one_of_few = request.app.state.converting if form == "pt" else contextlib.nullcontext()
    async with files.received(request, f"upload.{form}") as file, one_of_few:
        row = await to_thread.run_sync(files.keep, store, file, limits.upload)
    return as_json(request, row.to_json(), 201, {"location": f"/api/v1/files/{row.sha256}"})


@routes.get("/files/{sha256}", response_class=Response, responses=FILE, tags=["files"])
def file(
    request: Request,
    store: Opened,
    sha256: Annotated[str, InPath(pattern=r"^(sha256:)?[0-9a-f]{64}$", examples=[EXAMPLE_SHA256])],
) -> Response:
    """Download an uploaded file, or that of any result, by its hash."""
    row = store.get_file(sha256)
    return as_file(request, store, row.sha256, f"{row.sha256[:16]}.safetensors")
