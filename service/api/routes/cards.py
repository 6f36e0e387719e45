"""Routes for cards: what the nodes and modules of a partition mean."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from ...records.base import Kind
from ...records.errors import NotFoundError
from ...records.estimates import CardValues, DescriptionRow
from ...records.graphs import GRAPH
from ...records.partitions import PARTITION
from ...storage.pages import keyed_page
from ...store.store import Store
from ..responses import GraphRef, LabelCursor, Limit, Opened, PartitionRef, as_json
from ..schemas import Listing

__all__ = ["routes"]

routes = APIRouter()

Key = tuple[int, int, int]

_Cut = Annotated[str | None, Query(max_length=500, description="Only nodes of this cut.", examples=["layers.1"])]

_Node = Annotated[int | None, Query(ge=0, lt=2**31, description="Only this node of the cut.", examples=[7])]

_Module = Annotated[
    int | None, Query(ge=0, lt=2**31, description="Only this module, with its own card last.", examples=[0])
]

_Modules = Annotated[bool, Query(description="Only the cards of modules.", examples=[True])]


@routes.get("/partitions/{ref}/cards", response_model=Listing[CardValues], tags=["partitions"])
def partition_cards(
    request: Request,
    store: Opened,
    ref: PartitionRef,
    cut: _Cut = None,
    node: _Node = None,
    module: _Module = None,
    modules: _Modules = False,
    cursor: LabelCursor = None,
    limit: Limit = 20,
) -> Response:
    """List the cards of a partition's newest description: those of nodes, cut after cut, then those of modules."""
    row = _newest(store, PARTITION, ref)
    return _page(request, store, row, (cut, node, module, modules), cursor=cursor, limit=limit)


@routes.get("/graphs/{ref}/cards", response_model=Listing[CardValues], tags=["graphs"])
def graph_cards(
    request: Request,
    store: Opened,
    ref: GraphRef,
    cut: _Cut = None,
    node: _Node = None,
    cursor: LabelCursor = None,
    limit: Limit = 20,
) -> Response:
    """List the cards of a graph's nodes, cut after cut, from the newest description of one of its partitions."""
    row = _newest(store, GRAPH, ref)
    return _page(request, store, row, (cut, node, None, None), cursor=cursor, limit=limit)


def _newest(store: Store, kind: Kind[Any, Any], ref: str) -> DescriptionRow:
    """Return the newest description of a partition, or of one of a graph's partitions.

    Raises:
        NotFoundError: there is none.
    """
    row: Any = store.get(kind, ref)
    of = [row.id] if kind is PARTITION else [each.id for each in reversed(store.every(PARTITION, graph=row.id))]
    for partition in of:
        found = store.descriptions(partition=partition, newest_first=True, limit=1).items
        if found:
            return found[0]
    raise NotFoundError(f"{row.id} is not described yet: run `interbasis describe`, or submit a job `describe`")


def _page(
    request: Request,
    store: Store,
    row: DescriptionRow,
    wanted: tuple[str | None, int | None, int | None, bool | None],
    *,
    cursor: str | None,
    limit: int,
) -> Response:
    """Answer with the next cards; `wanted` is cut, node, module, and whether only (None: no) modules are."""
    cut, node, module, modules = wanted
    found = []
    for key, card in _cards(store, row):
        of_module = card["cut"] is None
        if (cut is not None or node is not None or modules is None) and of_module:
            continue
        if modules and not of_module:
            continue
        if (cut, node, module) == tuple(
            None if asked is None else card[name] for name, asked in (("cut", cut), ("node", node), ("module", module))
        ):
            found.append((key, CardValues(**card)))
    return as_json(request, keyed_page(found, cursor=cursor, limit=limit).to_json())


def _cards(store: Store, row: DescriptionRow) -> tuple[tuple[Key, dict[str, Any]], ...]:
    """Return the cards of a description as JSON values, with keys in their order; torch is not loaded for it."""
    return _read(_Bytes(store, row.id, row.description_sha256))


class _Bytes:
    """The file of a description, the same as any other with this hash."""

    def __init__(self, store: Store, ref: str, sha256: str) -> None:
        self._store, self._ref, self._sha256 = store, ref, sha256

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bytes) and other._sha256 == self._sha256

    def __hash__(self) -> int:
        return int(self._sha256[:15], 16)

    def read(self) -> bytes:
        return self._store.description_bytes(self._ref)


@lru_cache(4)
def _read(file: _Bytes) -> tuple[tuple[Key, dict[str, Any]], ...]:
    from safetensors.numpy import load

    data = file.read()
    arrays = load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    kept = json.loads(header["__metadata__"]["interbasis"])["kept"]
    inputs = {point: row.tolist() for point, row in zip(arrays["points"].tolist(), arrays["inputs"], strict=True)}
    cuts: dict[str, int] = {}
    found: list[tuple[Key, dict[str, Any]]] = []
    for name in ("nodes", "modules"):
        for content, points in zip(json.loads(arrays[name].tobytes()), kept[name], strict=True):
            cut, module = content.get("cut"), content["module"]
            at = (1, 0, module) if cut is None else (0, cuts.setdefault(cut, len(cuts)), content["node"])
            shown = {str(point): inputs[point] for point in points}
            card = {"cut": cut, "node": content.get("node"), "module": None if module < 0 else module}
            found.append((at, {**card, "summary": content["summary"], "content": {**content, "inputs": shown}}))
    return tuple(found)
