"""Routes for graphs and their edges."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath

from ...records.errors import NotFoundError
from ...records.graphs import GraphRow, Subgraph
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
from ..schemas import GraphFormat, Listing

__all__ = ["routes"]

routes = APIRouter()


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
    """List graphs, all or those of a model, a checkpoint or a data set."""
    options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest}
    return as_json(request, store.graphs(model=model, checkpoint=checkpoint, dataset=dataset, **options).to_json())


@routes.get("/graphs/{ref}", response_model=GraphRow, tags=["graphs"])
def graph(request: Request, store: Opened, ref: Ref) -> Response:
    """Return the record of a graph; other routes return its edges."""
    return as_json(request, store.get_graph(ref).to_json())


@routes.get("/graphs/{ref}/nodes/{cut}/{node}/edges", response_model=Subgraph, tags=["graphs"])
def node_edges(
    request: Request,
    store: Opened,
    ref: Ref,
    cut: Annotated[str, InPath(description="Name or index of a cut.")],
    node: Index,
    limit: Edges = 100,
) -> Response:
    """Return a node's strongest edges."""
    return as_json(request, edges.edges_of(store, ref, cut, node, limit=limit).to_json())


@routes.get("/graphs/{ref}/subgraph", response_model=Subgraph, tags=["graphs"])
def subgraph(
    request: Request,
    store: Opened,
    ref: Ref,
    cut: Annotated[
        list[str] | None, Query(max_length=100, description="Names or indices of cuts; default: all.")
    ] = None,
    epsilon: Epsilon = None,
    limit: Edges = 1000,
) -> Response:
    """Return the strongest edges among some cuts."""
    return as_json(request, edges.subgraph(store, ref, cuts=cut or (), epsilon=epsilon, limit=limit).to_json())


@routes.get("/graphs/{ref}/file", response_class=Response, responses=FILE, tags=["graphs"])
def graph_file(request: Request, store: Opened, ref: Ref) -> Response:
    """Download the whole graph, for `InteractionGraph.from_bytes`."""
    row = store.get_graph(ref)
    return as_file(request, store, row.graph_sha256, f"{row.id}.safetensors")


@routes.get("/graphs/{ref}/bases", response_class=Response, responses=FILE, tags=["graphs"])
def bases_file(request: Request, store: Opened, ref: Ref) -> Response:
    """Download the bases of a graph, for `Bases.from_bytes`."""
    row = store.get_graph(ref)
    if row.bases_sha256 is None:
        raise NotFoundError(f"the bases of {row.id} were not kept")
    return as_file(request, store, row.bases_sha256, f"{row.id}-bases.safetensors")


@routes.get("/graphs/{ref}/export", response_class=Response, responses=EXPORT, tags=["graphs"])
async def export_graph(
    request: Request,
    store: Opened,
    ref: Ref,
    form: Annotated[GraphFormat, Query(alias="format")],
    epsilon: Epsilon = None,
) -> Response:
    """Export a graph for another tool; eap and autocircuit run the network again, which needs scope submit."""
    row = await to_thread.run_sync(store.get_graph, ref)
    return await exported(request, row, form, epsilon)
