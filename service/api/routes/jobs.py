"""Routes for jobs and schedules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Literal

import anyio
from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi import Path as InPath
from fastapi.sse import EventSourceResponse, ServerSentEvent

from ...records.base import plain
from ...records.errors import StoreError
from ...records.jobs import JobRow, ScheduleRow
from ..files import confined
from ..guard import Limits
from ..responses import Allowed, Cursor, JobRef, Limit, Newest, Opened, ScheduleRef, as_json
from ..schemas import JobRequest, Listing, ScheduleRequest, State, Task

__all__ = ["routes"]

_LOOK = 0.5  # seconds between looks at a job whose events are streamed

routes = APIRouter()


@routes.get("/jobs", response_model=Listing[JobRow], tags=["jobs"])
def jobs(
    request: Request,
    store: Opened,
    state: Annotated[State | None, Query(examples=["running"])] = None,
    task: Annotated[Task | None, Query(examples=["analyze"])] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
    newest: Newest = False,
) -> Response:
    """List jobs, all or those in one state or of one task."""
    found = store.jobs(state=state, task=task, cursor=cursor, limit=limit, newest_first=newest)
    return as_json(request, found.to_json())


@routes.post("/jobs", status_code=202, response_model=JobRow, tags=["jobs"])
def submit(request: Request, store: Opened, limits: Allowed, body: JobRequest) -> Response:
    """Submit a job; the same work is done once, so it is safe to send the request again."""
    options: dict[str, Any] = {"queue": body.queue, "priority": body.priority, "timeout": body.timeout}
    row = store.submit(body.task, body.target, _choices(body.choices, limits), **options)
    request.state.job_id = row.id  # for the log
    return as_json(request, row.to_json(), 202, {"location": f"/api/v1/jobs/{row.id}"})


def _choices(given: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Return the choices of a request; data must be an upload or lie in the allowed folders."""
    data = given.get("data")
    if data is not None and not isinstance(data, str):
        raise StoreError("data: expected a path or the sha256:... of an upload")
    if data is not None and not data.startswith("sha256:"):
        given = {**given, "data": str(confined(data, limits.roots))}
    checked: dict[str, Any] = plain(given)
    return checked


@routes.get("/jobs/{ref}", response_model=JobRow, tags=["jobs"])
def job(request: Request, store: Opened, ref: JobRef) -> Response:
    """Return a job in its present state."""
    return as_json(request, store.get_job(ref).to_json())


def _named_job(store: Opened, ref: JobRef) -> JobRow:
    return store.get_job(ref)


@routes.get("/jobs/{ref}/events", response_class=EventSourceResponse, tags=["jobs"])
async def events(
    store: Opened,
    limits: Allowed,
    row: Annotated[JobRow, Depends(_named_job)],
    last_event_id: Annotated[str | None, Header(max_length=40, examples=["7"])] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Stream the job at each change, until it has ended, as server-sent events.

    Every event contains the whole job, and its ID grows with each change. `Last-Event-ID` skips the events seen before;
    the newest state is always sent.
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
def cancel(request: Request, store: Opened, ref: JobRef) -> Response:
    """Cancel a job: at once if it waits, within two seconds if it runs."""
    return as_json(request, store.cancel_job(ref).to_json())


@routes.post("/jobs/{ref}/retry", response_model=JobRow, tags=["jobs"])
def retry(request: Request, store: Opened, ref: JobRef) -> Response:
    """Queue a job again that failed or was cancelled."""
    return as_json(request, store.retry_job(ref).to_json())


@routes.get("/schedules", response_model=Listing[ScheduleRow], tags=["schedules"])
def schedules(
    request: Request, store: Opened, cursor: Cursor = None, limit: Limit = 100, newest: Newest = False
) -> Response:
    """List all schedules."""
    return as_json(request, store.schedules(cursor=cursor, limit=limit, newest_first=newest).to_json())


@routes.post("/schedules", status_code=201, response_model=ScheduleRow, tags=["schedules"])
def add_schedule(request: Request, store: Opened, limits: Allowed, body: ScheduleRequest) -> Response:
    """Add a schedule, which submits jobs at set times or for each new checkpoint of a model."""
    folder = None if body.folder is None else confined(body.folder, limits.roots, folder=True)
    options: dict[str, Any] = {"queue": body.queue, "priority": body.priority, "timeout": body.timeout}
    choices = _choices(body.choices, limits)
    row = store.add_schedule(body.task, body.model, choices, cron=body.cron, folder=folder, **options)
    return as_json(request, row.to_json(), 201, {"location": f"/api/v1/schedules/{row.id}"})


@routes.get("/schedules/{ref}", response_model=ScheduleRow, tags=["schedules"])
def schedule(request: Request, store: Opened, ref: ScheduleRef) -> Response:
    """Return a schedule."""
    return as_json(request, store.get_schedule(ref).to_json())


@routes.delete("/schedules/{ref}", status_code=204, response_class=Response, tags=["schedules"])
def remove_schedule(store: Opened, ref: ScheduleRef) -> Response:
    """Remove a schedule; its jobs stay."""
    store.remove_schedule(ref)
    return Response(status_code=204)


@routes.post("/schedules/{ref}/{action}", response_model=ScheduleRow, tags=["schedules"])
def change_schedule(
    request: Request,
    store: Opened,
    ref: ScheduleRef,
    action: Annotated[Literal["pause", "resume", "run"], InPath(examples=["pause"])],
) -> Response:
    """Pause or resume a schedule, or submit its jobs now."""
    change: dict[str, Callable[[str], ScheduleRow]] = {
        "pause": store.pause_schedule,
        "resume": store.resume_schedule,
        "run": store.run_schedule,
    }
    return as_json(request, change[action](ref).to_json())
