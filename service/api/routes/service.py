"""Routes for the service itself: health, metrics, workers, maintenance, tokens."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from ...records.jobs import NewToken, TokenRow, WorkerRow
from ...records.labels import FoundRow
from ...records.maintenance import CheckReport, Collected
from ...storage.tables import SCHEMA_REVISION
from ..responses import Cursor, Limit, Newest, Opened, TokenRef, as_json, as_list
from ..schemas import CollectRequest, Health, Listing, Readiness, TokenRequest

__all__ = ["routes"]

routes = APIRouter()


@routes.get("/health", response_model=Health, tags=["service"])
def health(request: Request) -> Response:
    """Return 200 if the process is alive."""
    return as_json(request, Health(version=version("interbasis")).model_dump())


@routes.get("/ready", response_model=Readiness, tags=["service"])
def ready(request: Request, store: Opened) -> Response:
    """Return 200 if the database answers, with the number of workers and of jobs in each state."""
    alive = sum(worker.alive for worker in store.workers())
    found = Readiness(schema_revision=SCHEMA_REVISION, workers=alive, jobs=store.count_jobs())
    return as_json(request, found.model_dump())


@routes.get(
    "/metrics",
    tags=["service"],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(request: Request) -> Response:
    """Return metrics for Prometheus."""
    return Response(request.app.state.metrics.text(), media_type="text/plain; version=0.0.4")


@routes.get("/search", response_model=Listing[FoundRow], tags=["service"])
def search(
    request: Request,
    store: Opened,
    q: Annotated[
        str, Query(min_length=1, max_length=200, description="Words, all of which it has.", examples=["digits"])
    ],
    limit: Limit = 20,
) -> Response:
    """Find whatever has these words in its name, its ID or its label; `total` counts all that has."""
    return as_json(request, store.search(q, limit=limit).to_json())


@routes.get("/workers", response_model=Listing[WorkerRow], tags=["service"])
def workers(request: Request, store: Opened) -> Response:
    """List the processes that run jobs."""
    return as_list(request, store.workers())


@routes.post("/check", response_model=CheckReport, tags=["service"])
async def check(request: Request, store: Opened) -> Response:
    """Check every stored file and the database for damage, change nothing. Only one check runs at a time."""
    async with request.app.state.checking:
        report = await to_thread.run_sync(store.check)
    return as_json(request, report.to_json())


@routes.post("/gc", response_model=Collected, tags=["service"])
def collect(request: Request, store: Opened, body: CollectRequest) -> Response:
    """Remove unused stored files: leftovers of interrupted and replaced results."""
    return as_json(request, store.collect(body.grace).to_json())


@routes.get("/tokens", response_model=Listing[TokenRow], tags=["tokens"])
def tokens(
    request: Request, store: Opened, cursor: Cursor = None, limit: Limit = 100, newest: Newest = False
) -> Response:
    """List all tokens, without their secrets."""
    return as_json(request, store.tokens(cursor=cursor, limit=limit, newest_first=newest).to_json())


@routes.post("/tokens", status_code=201, response_model=NewToken, tags=["tokens"])
def new_token(request: Request, store: Opened, body: TokenRequest) -> Response:
    """Make a token, shown only this once; from the first token on every request needs one."""
    made = store.new_token(body.name, body.scope)
    return as_json(request, made.to_json(), 201, {"location": f"/api/v1/tokens/{made.id}"})


@routes.get("/tokens/{ref}", response_model=TokenRow, tags=["tokens"])
def token(request: Request, store: Opened, ref: TokenRef) -> Response:
    """Return a token, without its secret."""
    return as_json(request, store.get_token(ref).to_json())


@routes.delete("/tokens/{ref}", response_model=TokenRow, tags=["tokens"])
def revoke_token(request: Request, store: Opened, ref: TokenRef) -> Response:
    """Revoke a token for ever."""
    return as_json(request, store.revoke_token(ref).to_json())
