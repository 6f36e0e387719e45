"""Server-sent events of a job, read from the service's stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx

from ..records.errors import StoreError

__all__ = ["read_events"]


def read_events(response: httpx.Response) -> Iterator[Any]:
    """Yield the data of server-sent events.

    Raises:
        StoreError: the answer has no events.
    """
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        what = response.headers.get("content-type", "nothing")
        raise StoreError(f"{response.url} answered with {what}, expected events: is this an interbasis service?")
    data: list[str] = []
    for line in response.iter_lines():
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            try:
                yield json.loads("\n".join(data))
            except ValueError as error:
                raise StoreError(f"{response.url} sent an event that is not JSON: {data[0][:80]!r}") from error
            data = []
