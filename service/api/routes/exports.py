"""Routes that export results for other tools."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from ...records.base import EXAMPLE_SHA256
from ..responses import EXPORT, FILE, Epsilon, GraphRef, LlcRef, Opened, PartitionRef, exported
from ..schemas import ExportFormat, GraphFormat

__all__ = ["routes"]

routes = APIRouter()

_Neurons = Annotated[
    int | None,
    Query(
        ge=1,
        lt=2**31,
        description="For components: list so many hidden units of the MLPs for each module and pair of cuts.",
        examples=[10],
    ),
]


@routes.get("/graphs/{ref}/export", response_class=Response, responses=EXPORT, tags=["graphs"])
async def export_graph(
    request: Request,
    store: Opened,
    ref: GraphRef,
    form: Annotated[GraphFormat, Query(alias="format", examples=["graphml"])],
    epsilon: Epsilon = None,
    neurons: _Neurons = None,
) -> Response:
    """Export a graph for another tool; eap, autocircuit, components run the network again: scope submit."""
    row = await to_thread.run_sync(store.get_graph, ref)
    return await exported(request, row, form, epsilon, neurons=neurons)


@routes.get("/partitions/{ref}/export", response_class=Response, responses=EXPORT, tags=["partitions"])
async def export_partition(
    request: Request,
    store: Opened,
    ref: PartitionRef,
    form: Annotated[ExportFormat, Query(alias="format", examples=["graphml"])],
    epsilon: Epsilon = None,
    module: Annotated[
        int | None,
        Query(
            ge=0,
            lt=2**31,
            description="For eap, autocircuit and components: export only this module.",
            examples=[0],
        ),
    ] = None,
    neurons: _Neurons = None,
    into: Annotated[
        str | None,
        Query(
            pattern=r"^sha256:[0-9a-f]{64}$",
            description="For circuit-tracer: the uri of the attribution graph that the graph was imported from: it is "
            "written again with the modules as its supernodes, all else as it was.",
            examples=[f"sha256:{EXAMPLE_SHA256}"],
        ),
    ] = None,
) -> Response:
    """Export a partition with its graph; eap, autocircuit, components run the network again: scope submit."""
    row = await to_thread.run_sync(store.get_partition, ref)
    return await exported(request, row, form, epsilon, module=module, neurons=neurons, into=into)


@routes.get("/llc/{ref}/export", response_class=Response, responses=FILE, tags=["llc"])
async def export_llc(request: Request, store: Opened, ref: LlcRef) -> Response:
    """Export the traces as netCDF, for ArviZ."""
    row = await to_thread.run_sync(store.get_llc, ref)
    return await exported(request, row, "netcdf", None)
