"""Routes for partitions, their modules and nodes."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath

from ...records.errors import NotFoundError
from ...records.graphs import Subgraph
from ...records.partitions import Comparison, MediatorRow, ModuleRow, NodeRow, PartitionDetail, PartitionRow
from .. import edges
from ..responses import (
    EXPORT,
    FILE,
    Cursor,
    Edges,
    Epsilon,
    Filter,
    Index,
    Limit,
    Newest,
    Opened,
    Ref,
    as_file,
    as_json,
    exported,
)
from ..schemas import ExportFormat, Listing

__all__ = ["routes"]

routes = APIRouter()


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
    """List partitions without their modules, all or those of a model, a checkpoint or a graph."""
    options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest}
    return as_json(request, store.partitions(model=model, checkpoint=checkpoint, graph=graph, **options).to_json())


@routes.get("/partitions/{ref}", response_model=PartitionDetail, tags=["partitions"])
def partition(request: Request, store: Opened, ref: Ref) -> Response:
    """Return a partition with its modules and the links between them."""
    return as_json(request, store.get_partition(ref).to_json())


@routes.get("/partitions/{ref}/modules/{index}", response_model=ModuleRow, tags=["partitions"])
def module(request: Request, store: Opened, ref: Ref, index: Index) -> Response:
    """Return one module; `nodes?module=` lists its nodes."""
    detail = store.get_partition(ref)
    for found in detail.modules:
        if found.index == index:
            return as_json(request, found.to_json())
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
    """List the nodes of a partition by cut and coordinate, all or those of one module."""
    return as_json(request, store.node_page(ref, module=module, cursor=cursor, limit=limit).to_json())


@routes.get("/partitions/{ref}/nodes/{cut}/{node}", response_model=NodeRow, tags=["partitions"])
def node_module(
    request: Request,
    store: Opened,
    ref: Ref,
    cut: Annotated[str, InPath(description="Name or index of a cut.")],
    node: Index,
) -> Response:
    """Return a node with the module it is in."""
    return as_json(request, store.get_node(ref, cut, node).to_json())


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
    """List the mediators: nodes through which modules feed each other, strongest first."""
    options: dict[str, Any] = {"cursor": cursor, "limit": limit}
    return as_json(request, store.mediator_page(ref, earlier=earlier, later=later, **options).to_json())


@routes.get("/partitions/{ref}/edges", response_model=Subgraph, tags=["partitions"])
def module_edges(
    request: Request,
    store: Opened,
    ref: Ref,
    earlier: Annotated[int, Query(ge=0, lt=2**31)],
    later: Annotated[int, Query(ge=0, lt=2**31)],
    limit: Edges = 100,
) -> Response:
    """Return the strongest edges from one module to another."""
    return as_json(request, edges.edges_between(store, ref, earlier, later, limit=limit).to_json())


@routes.get("/partitions/{ref}/compare/{other}", response_model=Comparison, tags=["partitions"])
def compare(request: Request, store: Opened, ref: Ref, other: Ref) -> Response:
    """Compare two partitions of the same nodes."""
    return as_json(request, edges.compare(store, ref, other).to_json())


@routes.get("/partitions/{ref}/file", response_class=Response, responses=FILE, tags=["partitions"])
def partition_file(request: Request, store: Opened, ref: Ref) -> Response:
    """Download the whole partition, for `Partition.from_bytes`."""
    row = store.get_partition(ref)
    return as_file(request, store, row.partition_sha256, f"{row.id}.safetensors")


@routes.get("/partitions/{ref}/export", response_class=Response, responses=EXPORT, tags=["partitions"])
async def export_partition(
    request: Request,
    store: Opened,
    ref: Ref,
    form: Annotated[ExportFormat, Query(alias="format")],
    epsilon: Epsilon = None,
    module: Annotated[
        int | None,
        Query(ge=0, lt=2**31, description="For eap and autocircuit: export only the circuit of this module."),
    ] = None,
) -> Response:
    """Export a partition with its graph; eap and autocircuit run the network again, which needs scope submit."""
    row = await to_thread.run_sync(store.get_partition, ref)
    return await exported(request, row, form, epsilon, module)
