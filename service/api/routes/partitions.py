"""Routes for partitions, their modules and nodes."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath

from ...records.errors import NotFoundError
from ...records.graphs import Subgraph
from ...records.jobs import JobRow
from ...records.partitions import (
    PARTITION,
    TRACKING,
    Comparison,
    Drawing,
    FlowRow,
    Flows,
    MediatorRow,
    ModuleRow,
    NodeRow,
    Profile,
    ProfileRow,
)
from .. import edges
from ..responses import (
    Cut,
    Edges,
    Epsilon,
    Limit,
    MediatorCursor,
    Node,
    NodeCursor,
    Opened,
    OtherRef,
    PartitionRef,
    TrackingRef,
    as_json,
)
from ..schemas import ComparisonRequest, Listing

__all__ = ["routes"]

routes = APIRouter()


@routes.get("/partitions/{ref}/modules/{index}", response_model=ModuleRow, tags=["partitions"])
def module(
    request: Request, store: Opened, ref: PartitionRef, index: Annotated[int, InPath(ge=0, lt=2**31, examples=[0])]
) -> Response:
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
    ref: PartitionRef,
    module: Annotated[int | None, Query(ge=0, lt=2**31, examples=[0])] = None,
    cursor: NodeCursor = None,
    limit: Limit = 100,
) -> Response:
    """List the nodes of a partition by cut and coordinate, all or those of one module."""
    return as_json(request, store.node_page(ref, module=module, cursor=cursor, limit=limit).to_json())


@routes.get("/partitions/{ref}/nodes/{cut}/{node}", response_model=NodeRow, tags=["partitions"])
def node_module(
    request: Request,
    store: Opened,
    ref: PartitionRef,
    cut: Cut,
    node: Node,
) -> Response:
    """Return a node with the module it is in."""
    return as_json(request, store.get_node(ref, cut, node).to_json())


@routes.get("/partitions/{ref}/mediators", response_model=Listing[MediatorRow], tags=["partitions"])
def mediators(
    request: Request,
    store: Opened,
    ref: PartitionRef,
    earlier: Annotated[int | None, Query(ge=0, lt=2**31, examples=[0])] = None,
    later: Annotated[int | None, Query(ge=0, lt=2**31, examples=[1])] = None,
    cursor: MediatorCursor = None,
    limit: Limit = 100,
) -> Response:
    """List the mediators: nodes through which modules feed each other, strongest first."""
    options: dict[str, Any] = {"cursor": cursor, "limit": limit}
    return as_json(request, store.mediator_page(ref, earlier=earlier, later=later, **options).to_json())


@routes.get("/partitions/{ref}/edges", response_model=Subgraph, tags=["partitions"])
def module_edges(
    request: Request,
    store: Opened,
    ref: PartitionRef,
    earlier: Annotated[int, Query(ge=0, lt=2**31, examples=[0])],
    later: Annotated[int, Query(ge=0, lt=2**31, examples=[1])],
    limit: Edges = 100,
) -> Response:
    """Return the strongest edges from one module to another."""
    return as_json(request, edges.edges_between(store, ref, earlier, later, limit=limit).to_json())


@routes.get("/partitions/{ref}/drawing", response_model=Drawing, tags=["partitions"])
def drawing(
    request: Request,
    store: Opened,
    ref: PartitionRef,
    module: Annotated[int | None, Query(ge=0, lt=2**31, examples=[0])] = None,
    epsilon: Epsilon = None,
    nodes: Annotated[int, Query(ge=1, le=2000, description="Largest number of nodes.", examples=[500])] = 2000,
    limit: Edges = 10_000,
) -> Response:
    """Return what a picture shows: the most important nodes, all or of a module, and the strongest edges there."""
    chosen: dict[str, Any] = {"module": module, "epsilon": epsilon, "nodes": nodes, "limit": limit}
    return as_json(request, edges.drawing(store, ref, **chosen).to_json())


@routes.get("/partitions/{ref}/profile", response_model=Profile, tags=["partitions"])
def profile(request: Request, store: Opened, ref: PartitionRef) -> Response:
    """Return every resolution that was tried, with its quality and that of null graphs."""
    known = [field.name for field in fields(ProfileRow)]
    about = _about(store.file(PARTITION, ref))
    rows = [ProfileRow(**{name: row.get(name) for name in known}) for row in about.get("profile", ())]
    return as_json(request, Profile(rows=tuple(rows)).to_json())


@routes.get("/trackings/{ref}/flows", response_model=Flows, tags=["trackings"])
def flows(request: Request, store: Opened, ref: TrackingRef) -> Response:
    """Return how many nodes go from each module to each module of the next checkpoint."""
    from safetensors.numpy import load

    data = store.file(TRACKING, ref)
    arrays = load(data)
    found = []
    for t in range(len(_about(data)["names"]) - 1):
        flow = arrays[f"flow.{t}"]
        for a, b in zip(*(each.tolist() for each in flow.nonzero()), strict=True):
            found.append(FlowRow(at=t + 1, earlier=a, later=b, n_nodes=int(flow[a, b])))
    return as_json(request, Flows(flows=tuple(found)).to_json())


def _about(data: bytes) -> dict[str, Any]:
    """Return the scalars and names in a file of results; torch is not loaded for it."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found: dict[str, Any] = json.loads(header["__metadata__"]["interbasis"])
    return found


@routes.post("/comparisons", status_code=202, response_model=JobRow, tags=["comparisons"])
def add_comparison(request: Request, store: Opened, body: ComparisonRequest) -> Response:
    """Compare two divisions: submit a job `compare`, whose result is a comparison; the same work is done once."""
    given = {name: value for name, value in body.model_dump(exclude={"partition"}).items() if value is not None}
    if "other" not in given or body.align:
        given.pop("align", None)
    row = store.submit("compare", body.partition, given)
    request.state.job_id = row.id  # for the log
    return as_json(request, row.to_json(), 202, {"location": f"/api/v1/jobs/{row.id}"})


@routes.get("/partitions/{ref}/compare/{other}", response_model=Comparison, tags=["partitions"])
def compare(request: Request, store: Opened, ref: PartitionRef, other: OtherRef) -> Response:
    """Compare two partitions of the same nodes."""
    return as_json(request, edges.compare(store, ref, other).to_json())
