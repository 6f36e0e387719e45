"""The route that takes in graphs made elsewhere."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from ...records.checkpoints import IMPORTED
from ...records.jobs import JobRow, check_request
from ...store.store import Store
from ..files import received
from ..responses import UPLOAD, Opened, as_json
from ..schemas import ImportFormat

__all__ = ["routes"]

routes = APIRouter()

_Name = Query(min_length=1, max_length=200, description="Name of the model.", examples=["bee"])


@routes.post("/imports", status_code=202, response_model=JobRow, tags=["graphs"], openapi_extra=UPLOAD)
async def add_import(
    request: Request,
    store: Opened,
    model: Annotated[str, _Name],
    label: Annotated[
        str | None,
        Query(min_length=1, max_length=200, description="Name of the file in it; default: model.", examples=["bee"]),
    ] = None,
    form: Annotated[
        ImportFormat | None,
        Query(alias="format", description="Default: as the content says.", examples=["circuit-tracer"]),
    ] = None,
    without: Annotated[
        list[str] | None, Query(description="Types of nodes to leave out.", examples=[["error"]])
    ] = None,
    longest_path: Annotated[bool, Query(description="Compute layers by the longest path.", examples=[False])] = False,
    keep: Annotated[
        float | None,
        Query(gt=0, lt=1, description="Keep what carries this share of influence on outputs.", examples=[0.95]),
    ] = None,
    unit: Annotated[
        Literal["weight", "share"] | None, Query(description="Unit of strengths.", examples=["share"])
    ] = None,
    force: Annotated[bool, Query(description="Read it again.", examples=[False])] = False,
    queue: Annotated[str, Query(pattern=r"^[A-Za-z0-9_-]{1,80}$", examples=["default"])] = "default",
    priority: Annotated[int, Query(ge=-1000, le=1000, examples=[0])] = 0,
    timeout: Annotated[float | None, Query(gt=0, allow_inf_nan=False, examples=[3600.0])] = None,
) -> Response:
    """Upload the file of a graph, and submit a job `import`, whose result is a graph; the body is the file."""
    given: dict[str, Any] = {"model": model, "label": label or model, "format": form, "without": without, "keep": keep}
    given |= {"unit": unit, "longest_path": longest_path or None, "force": force or None}
    choices = {name: value for name, value in given.items() if value is not None}
    options: dict[str, Any] = {"queue": queue, "priority": priority, "timeout": timeout}

    def submit(store: Store) -> JobRow:
        return store.submit("import", store.add_file(file).uri, choices, **options)

    check_request("import", choices, **options)
    await to_thread.run_sync(store.check_registrable, model, IMPORTED, {})
    async with received(request, "graph") as file:
        row = await to_thread.run_sync(submit, store)
    request.state.job_id = row.id  # for the log
    return as_json(request, row.to_json(), 202, {"location": f"/api/v1/jobs/{row.id}"})
