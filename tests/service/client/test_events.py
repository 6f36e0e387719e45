"""Server-sent events: whatever lines and parts they come in, their data are the same."""

from collections.abc import Iterator

import httpx
import pytest

from interbasis.service.client.events import read_events
from interbasis.service.records.errors import StoreError

STREAM = (
    ': hello\n\nid: 1\nevent: job\ndata: {"step": "käse\u2028"}\n\n'
    ": still here\n\nretry: 5\n\nid: 2\ndata: [1,\ndata: 2]\n\n"
)


def answer(content: bytes | Iterator[bytes], kind: str = "text/event-stream; charset=utf-8") -> httpx.Response:
    request = httpx.Request("GET", "http://localhost/events")
    return httpx.Response(200, content=content, headers={"content-type": kind}, request=request)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_data_of_each_event_and_of_no_comment(end: str, size: int) -> None:
    content = STREAM.replace("\n", end).encode()
    parts = (content[start : start + size] for start in range(0, len(content), size))
    assert list(read_events(answer(parts))) == [{"step": "käse\u2028"}, [1, 2]]


def test_event_that_has_not_ended_is_left_out() -> None:
    assert list(read_events(answer(b'data: {"a": 1}\n\ndata: {"a": 2}\n'))) == [{"a": 1}]


@pytest.mark.parametrize("kind", ["text/html", "application/json", ""])
def test_answer_of_another_kind_is_refused(kind: str) -> None:
    with pytest.raises(StoreError, match=f"http://localhost/events answered with {kind}, expected events"):
        next(read_events(answer(b'data: {"a": 1}\n\n', kind)))


def test_data_that_are_no_json_are_shown_in_part() -> None:
    events = read_events(answer(b"data: 1\n\ndata: " + b"x" * 1000 + b"\n\n"))
    assert next(events) == 1
    with pytest.raises(StoreError, match=f"sent an event that is not JSON: '{'x' * 80}'$"):
        next(events)
