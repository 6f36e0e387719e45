"""Routes for learning coefficients, experiments, ledgers and trackings."""

from __future__ import annotations

from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from ...records.estimates import ExperimentRow, LedgerRow, LlcRow
from ...records.tracking import TrackingDetail, TrackingRow
from ..responses import FILE, Cursor, Filter, Limit, Newest, Opened, Ref, as_file, as_json, exported
from ..schemas import Listing

__all__ = ["routes"]

routes = APIRouter()


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
    """List learning coefficients, all or those of a model or a checkpoint."""
    options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest}
    return as_json(request, store.llcs(model=model, checkpoint=checkpoint, **options).to_json())


@routes.get("/llc/{ref}", response_model=LlcRow, tags=["llc"])
def llc(request: Request, store: Opened, ref: Ref) -> Response:
    """Return a learning coefficient at one loss scale, or a curve over many, with its verdict."""
    return as_json(request, store.get_llc(ref).to_json())


@routes.get("/llc/{ref}/file", response_class=Response, responses=FILE, tags=["llc"])
def llc_file(request: Request, store: Opened, ref: Ref) -> Response:
    """Download the whole estimate with its traces."""
    row = store.get_llc(ref)
    return as_file(request, store, row.llc_sha256, f"{row.id}.safetensors")


@routes.get("/llc/{ref}/export", response_class=Response, responses=FILE, tags=["llc"])
async def export_llc(request: Request, store: Opened, ref: Ref) -> Response:
    """Export the traces as netCDF, for ArviZ."""
    row = await to_thread.run_sync(store.get_llc, ref)
    return await exported(request, row, "netcdf", None)


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
    """List circuit experiments, all or those of a model, a checkpoint or a partition."""
    options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest}
    found = store.experiments(model=model, checkpoint=checkpoint, partition=partition, **options)
    return as_json(request, found.to_json())


@routes.get("/experiments/{ref}", response_model=ExperimentRow, tags=["experiments"])
def experiment(request: Request, store: Opened, ref: Ref) -> Response:
    """Return a circuit experiment, with every row of its summary."""
    return as_json(request, store.get_experiment(ref).to_json())


@routes.get("/experiments/{ref}/file", response_class=Response, responses=FILE, tags=["experiments"])
def experiment_file(request: Request, store: Opened, ref: Ref) -> Response:
    """Download the whole experiment, for `Experiment.from_bytes`."""
    row = store.get_experiment(ref)
    return as_file(request, store, row.experiment_sha256, f"{row.id}.safetensors")


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
    """List parameter ledgers, all or those of a model or a checkpoint."""
    options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest}
    return as_json(request, store.ledgers(model=model, checkpoint=checkpoint, **options).to_json())


@routes.get("/ledgers/{ref}", response_model=LedgerRow, tags=["ledgers"])
def ledger(request: Request, store: Opened, ref: Ref) -> Response:
    """Return a parameter ledger."""
    return as_json(request, store.get_ledger(ref).to_json())


@routes.get("/ledgers/{ref}/file", response_class=Response, responses=FILE, tags=["ledgers"])
def ledger_file(request: Request, store: Opened, ref: Ref) -> Response:
    """Download the whole ledger, for `Ledger.from_bytes`."""
    row = store.get_ledger(ref)
    return as_file(request, store, row.ledger_sha256, f"{row.id}.safetensors")


@routes.get("/trackings", response_model=Listing[TrackingRow], tags=["trackings"])
def trackings(
    request: Request,
    store: Opened,
    model: Filter = None,
    cursor: Cursor = None,
    limit: Limit = 100,
    newest: Newest = False,
) -> Response:
    """List trackings of modules over training, all or those of one model."""
    return as_json(request, store.trackings(model=model, cursor=cursor, limit=limit, newest_first=newest).to_json())


@routes.get("/trackings/{ref}", response_model=TrackingDetail, tags=["trackings"])
def tracking(request: Request, store: Opened, ref: Ref) -> Response:
    """Return a tracking with its checkpoints."""
    return as_json(request, store.get_tracking(ref).to_json())


@routes.get("/trackings/{ref}/file", response_class=Response, responses=FILE, tags=["trackings"])
def tracking_file(request: Request, store: Opened, ref: Ref) -> Response:
    """Download the whole tracking, for `Tracking.from_bytes`."""
    row = store.get_tracking(ref)
    return as_file(request, store, row.tracking_sha256, f"{row.id}.safetensors")
