"""Routes for the labels of nodes and modules, the same for graphs and partitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath

from ...records.base import Kind, Page
from ...records.graphs import GRAPH
from ...records.labels import LabelRow, NewLabel
from ...records.partitions import PARTITION
from ..responses import Cut, GraphRef, LabelCursor, Limit, Node, Opened, PartitionRef, as_json
from ..schemas import LabelsRequest, Listing

__all__ = ["routes"]

routes = APIRouter()

History = Annotated[bool, Query(description="All that was ever said, oldest first.", examples=[True])]

Author = Annotated[str, Query(max_length=200, description="Who removes it.", examples=["ada"])]

LabelSource = Annotated[
    str, Query(max_length=120, description="Whose label: human, import or command:NAME.", examples=["human"])
]

Module = Annotated[int, InPath(ge=0, lt=2**31, examples=[0])]


def _add_routes(kind: Kind[Any, Any], reference: Any, about: str) -> None:
    """Add the list of the labels of one kind, and the route that stores some."""
    path, tag = f"/{kind.plural}/{{ref}}/labels", kind.plural

    def referring(endpoint: Callable[..., Response]) -> Callable[..., Response]:
        endpoint.__annotations__["ref"] = reference
        return endpoint

    @routes.get(path, response_model=Listing[LabelRow], tags=[tag], name=f"{kind.name}_labels", description=about)
    @referring
    def labels(
        request: Request,
        store: Opened,
        ref: str,
        history: History = False,
        cursor: LabelCursor = None,
        limit: Limit = 100,
    ) -> Response:
        return as_json(request, store.label_page(kind, ref, history=history, cursor=cursor, limit=limit).to_json())

    @routes.put(path, response_model=Listing[LabelRow], tags=[tag], name=f"put_{kind.name}_labels")
    @referring
    def put_labels(request: Request, store: Opened, ref: str, body: LabelsRequest) -> Response:
        """Store labels, all or none; what they replace is kept in the history."""
        given = [NewLabel(**label.model_dump()) for label in body.labels]
        return as_json(request, Page(items=store.put_labels(kind, ref, given)).to_json())


_add_routes(GRAPH, GraphRef, "List the labels of the nodes of a graph.")
_add_routes(PARTITION, PartitionRef, "List the labels of the modules of a partition, and of the nodes of its graph.")


@routes.delete("/graphs/{ref}/labels/{cut}/{node}", response_model=LabelRow, tags=["graphs"])
def remove_node_label(
    request: Request,
    store: Opened,
    ref: GraphRef,
    cut: Cut,
    node: Node,
    author: Author,
    source: LabelSource = "human",
) -> Response:
    """Remove the label of a node; it is kept in the history."""
    gone = store.remove_label(GRAPH, ref, cut=cut, node=node, source=source, author=author)
    return as_json(request, gone.to_json())


@routes.delete("/partitions/{ref}/labels/{module}", response_model=LabelRow, tags=["partitions"])
def remove_module_label(
    request: Request,
    store: Opened,
    ref: PartitionRef,
    module: Module,
    author: Author,
    source: LabelSource = "human",
) -> Response:
    """Remove the label of a module; it is kept in the history."""
    gone = store.remove_label(PARTITION, ref, module=module, source=source, author=author)
    return as_json(request, gone.to_json())
