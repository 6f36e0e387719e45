"""Routes that every kind of stored thing has: its list, one of it, its files, and its removal."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response

from ...records.base import Kind, parse_moment
from ...records.errors import NotFoundError
from ...records.kinds import KINDS
from ...records.maintenance import Removal
from ..responses import FILE, NARROWING, Cursor, Limit, Newest, Opened, as_file, as_json, filter_by, reference_to
from ..schemas import Listing

__all__ = ["routes"]

EndpointT = TypeVar("EndpointT", bound=Callable[..., Response])

routes = APIRouter()


def _add_routes(kind: Kind[Any, Any]) -> None:
    """Add the routes of one kind, as its description says."""
    path = f"/{kind.plural}"
    tags: list[str | Enum] = [kind.plural]

    @routes.get(path, tags=tags, response_model=Listing[kind.row], name=f"{kind.name}s", description=kind.listing)  # type: ignore[name-defined]
    @_filtered(kind)
    def listing(
        request: Request, store: Opened, of: dict[str, Any], cursor: Cursor, limit: Limit, newest: Newest
    ) -> Response:
        paging: Any = {"cursor": cursor, "limit": limit, "newest_first": newest}
        paging |= {name: of.pop(name, None) for name in kind.narrowings}
        paging["since"] = None if paging["since"] is None else parse_moment(paging["since"])
        found = store.page(kind, of, paging)
        return as_json(request, found.to_json())

    @routes.get(path + "/{ref}", tags=tags, response_model=kind.detail, name=kind.name, description=kind.single)
    @_refers_to(kind)
    def single(request: Request, store: Opened, ref: str) -> Response:
        return as_json(request, store.get(kind, ref).to_json())

    @routes.get(path + "/{ref}/removal", tags=tags, response_model=Removal, name=f"{kind.name}_removal")
    @_refers_to(kind)
    def removal(request: Request, store: Opened, ref: str) -> Response:
        """Say what goes along where this is removed; remove nothing."""
        return as_json(request, store.removal(kind, ref).to_json())

    @routes.delete(path + "/{ref}", tags=tags, response_model=Removal, name=f"remove_{kind.name}")
    @_refers_to(kind)
    def remove(request: Request, store: Opened, ref: str) -> Response:
        """Remove this with all that belongs to it, for ever."""
        return as_json(request, store.remove(kind, ref).to_json())

    for name, text in kind.files.items():
        routes.get(
            f"{path}/{{ref}}/{'file' if name == kind.name else name}",
            tags=tags,
            response_class=Response,
            responses=FILE,
            name=f"{name}_file",
            description=text,
        )(_download(kind, name))


def _filtered(kind: Kind[Any, Any]) -> Callable[[Callable[..., Response]], Callable[..., Response]]:
    """Give an endpoint one query parameter per filter of a kind, which it takes together as the mapping `of`."""

    def decorate(listing: Callable[..., Response]) -> Callable[..., Response]:
        def endpoint(
            request: Request,
            store: Opened,
            cursor: Cursor = None,
            limit: Limit = 100,
            newest: Newest = False,
            **of: Any,
        ) -> Response:
            return listing(request, store, of, cursor, limit, newest)

        signature = inspect.signature(endpoint, eval_str=True)
        own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        types = {name: filter_by(KINDS[name]) for name in kind.filters}
        types |= {name: NARROWING[name] for name in kind.narrowings}
        extra = [inspect.Parameter(name, own[2].kind, default=None, annotation=types[name]) for name in types]
        endpoint.__signature__ = signature.replace(parameters=[*own[:2], *extra, *own[2:]])  # type: ignore[attr-defined]
        return endpoint

    return decorate


def _refers_to(kind: Kind[Any, Any]) -> Callable[[EndpointT], EndpointT]:
    """Give the parameter `ref` of an endpoint the type of a reference to this kind."""

    def decorate(endpoint: EndpointT) -> EndpointT:
        endpoint.__annotations__["ref"] = reference_to(kind)
        return endpoint

    return decorate


def _download(kind: Kind[Any, Any], name: str) -> Callable[..., Response]:
    """Make the endpoint that sends one of the files of a kind."""

    @_refers_to(kind)
    def download(request: Request, store: Opened, ref: str) -> Response:
        row = store.get(kind, ref)
        sha256 = getattr(row, f"{name}_sha256")
        if sha256 is None:
            raise NotFoundError(f"the {name} of {row.id} were not kept")
        return as_file(
            request, store, sha256, f"{row.id}.safetensors" if name == kind.name else f"{row.id}-{name}.safetensors"
        )

    return download


for _kind in KINDS.values():
    _add_routes(_kind)
