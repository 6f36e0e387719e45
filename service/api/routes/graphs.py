"""Routes for the edges of graphs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from ...records.graphs import Subgraph
from .. import edges
from ..responses import Cut, Edges, Epsilon, GraphRef, Node, Opened, as_json

__all__ = ["routes"]

routes = APIRouter()


@routes.get("/graphs/{ref}/nodes/{cut}/{node}/edges", response_model=Subgraph, tags=["graphs"])
def node_edges(
    request: Request,
    store: Opened,
    ref: GraphRef,
    cut: Cut,
    node: Node,
    limit: Edges = 100,
) -> Response:
    """Return a node's strongest edges."""
    return as_json(request, edges.edges_of(store, ref, cut, node, limit=limit).to_json())


@routes.get("/graphs/{ref}/subgraph", response_model=Subgraph, tags=["graphs"])
def subgraph(
    request: Request,
    store: Opened,
    ref: GraphRef,
    cut: Annotated[
        list[str] | None,
        Query(
            max_length=100,
            description="Names or indices of cuts; default: all.",
            examples=[["layers.0", "layers.1"]],
        ),
    ] = None,
    epsilon: Epsilon = None,
    limit: Edges = 1000,
) -> Response:
    """Return the strongest edges among some cuts."""
    return as_json(request, edges.subgraph(store, ref, cuts=cut or (), epsilon=epsilon, limit=limit).to_json())
