"""Server-sent events of a job, read from the service's stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
from httpx_sse import EventSource

from ..records.errors import StoreError

__all__ = ["read_events"]


def read_events(response: httpx.Response) -> Iterator[Any]:
    """Yield the data of server-sent events; comments, which keep the connection open, are skipped.

    Raises:
        StoreError: the answer has no events, or the data of one are not JSON.
    """
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        what = response.headers.get("content-type", "nothing")
        raise StoreError(f"{response.url} answered with {what}, expected events: is this an interbasis service?")
    for event in EventSource(response).iter_sse():
        if event.data:
            try:
                data = event.json()
            except (ValueError, RecursionError) as error:
                raise StoreError(f"{response.url} sent an event that is not JSON: {event.data[:80]!r}") from error
            yield data
