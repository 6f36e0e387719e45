"""A service that answers as it is told, and documents of its answers."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import cases_rows
import httpx

from interbasis.service.client import Client

Answer = Callable[[], httpx.Response]


def answer(document: Any = None, status: int = 200, headers: dict[str, Any] | None = None) -> Answer:
    """An answer with a JSON document, or with bytes as they are."""
    given = {"content-type": "application/json", **(headers or {})}
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return lambda: httpx.Response(status, headers=given, content=content)


def problem(status: int, detail: str = "busy", headers: dict[str, Any] | None = None, **more: Any) -> Answer:
    """An error as a service answers it."""
    document = {"type": "about:blank", "title": "Problem", "status": status, "detail": detail, **more}
    return answer(document, status, {"content-type": "application/problem+json", **(headers or {})})


def page(*items: Any, cursor: str | None = None) -> Answer:
    """A page of records."""
    return answer({"items": [item.to_json() for item in items], "next_cursor": cursor})


def stream(*parts: str | bytes | Exception, status: int = 200) -> Answer:
    """An answer whose parts arrive one after the other; the connection may break between them."""

    class Parts(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for part in parts:
                if isinstance(part, Exception):
                    raise part
                yield part.encode() if isinstance(part, str) else part

    return lambda: httpx.Response(status, headers={"content-type": "text/event-stream"}, stream=Parts())


def event(**changes: Any) -> str:
    """An event of a job, as a service sends it."""
    row = cases_rows.job(**changes)
    return f"event: job\nid: {row.version}\ndata: {json.dumps(row.to_json())}\n\n"


class Service:
    """Gives its answers in turn, and the last one for ever; an exception is raised in place of an answer."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers, self.asked = list(answers), list[httpx.Request]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(given, Exception):
            raise given
        return given()

    @property
    def paths(self) -> list[str]:
        """Method and path of each request, as they were sent."""
        return [f"{each.method} {each.url.raw_path.decode()}".replace("/api/v1/", "") for each in self.asked]


def connected(*answers: Answer | Exception, **options: Any) -> tuple[Client, Service]:
    """A client of such a service, and the service."""
    service = Service(*answers)
    return Client("http://127.0.0.1", transport=httpx.MockTransport(service), **options), service
