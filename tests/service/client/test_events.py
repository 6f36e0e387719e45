"""Jobs that are followed: events that break off, stay away or are not ours, and the handle of a submitted job."""

import json
import time
from typing import Any

import cases_rows as rows
import httpx
import pytest
from cases_client import answer, connected, event, page, problem, stream

from interbasis.service.client import JobHandle
from interbasis.service.records.errors import NotFoundError, StoreError, UnavailableError
from interbasis.service.records.jobs import JobRow

QUEUED = {"state": "queued", "version": 1}
RUNNING = {"state": "running", "step": "track", "version": 2}
DONE = {"state": "succeeded", "version": 3, "results": ({"kind": "tracking", "id": "t-1"},)}
GONE = httpx.ConnectError("refused")


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, in seconds; none takes time."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


def seen(*answers: Any, after: int = 0) -> tuple[list[str], list[str | None]]:
    """The states that a client sees, and the last event that it names in each request for events."""
    client, service = connected(*answers)
    states = [row.state for row in client.events("j-01234567", after=after)]
    asked = [each for each in service.asked if each.url.path.endswith("/events")]
    return states, [each.headers.get("last-event-id") for each in asked]


# Streams


def test_events_are_the_job_at_each_change() -> None:
    client, service = connected(stream(event(**QUEUED), event(**RUNNING), event(**DONE)))
    assert list(client.events("j/1")) == [rows.job(**QUEUED), rows.job(**RUNNING), rows.job(**DONE)]
    assert service.paths == ["GET jobs/j%252F1/events"]
    assert service.asked[0].headers["accept"] == "text/event-stream"


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
def test_stream_ends_with_the_job_even_if_the_connection_stays(end: str) -> None:
    """Nothing is read after the last event, and nothing is asked."""
    states, asked = seen(stream(event(state=end), AssertionError("read on")))
    assert (states, asked) == ([end], ["0"])


def test_comments_and_fields_without_data_are_passed_over() -> None:
    parts = [
        ": ping\n\n",
        "retry: 100\n\n",
        ":\n\n",
        "event: job\n\n",
        "id: 7\n\n",
        "data:\n\n",
        event(**RUNNING),
        "\n\n",
    ]
    assert seen(stream(*parts, ": ping\n\n", event(**DONE)))[0] == ["running", "succeeded"]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_every_way_that_the_standard_allows(ends: str) -> None:
    assert seen(stream((event(**RUNNING) + event(**DONE)).replace("\n", ends)))[0] == ["running", "succeeded"]


def test_events_may_arrive_in_pieces_of_any_size() -> None:
    content = (": ping\n\n" + event(**RUNNING, message="ünï 数学") + event(**DONE)).encode()
    assert seen(stream(*(content[i : i + 1] for i in range(len(content)))))[0] == ["running", "succeeded"]


def test_data_of_several_lines_are_one_document() -> None:
    lines = json.dumps(rows.job(**DONE).to_json(), indent=2).splitlines()
    (row,) = connected(stream("".join(f"data: {line}\n" for line in lines) + "\n"))[0].events("j")
    assert row == rows.job(**DONE)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
def test_characters_that_part_lines_elsewhere_part_none_here(separator: str) -> None:
    """As in the error of a job, in JSON that is not escaped."""
    row = rows.job(state="failed", error=f"first{separator}second")
    (found,) = connected(stream(f"data: {json.dumps(row.to_json(), ensure_ascii=False)}\n\n"))[0].events("j")
    assert found == row


# Connections that break


def test_stream_that_breaks_is_taken_up_after_the_last_event() -> None:
    broken = stream(event(**RUNNING), httpx.ReadError("reset"))
    assert seen(stream(event(**QUEUED)), broken, GONE, stream(event(**DONE))) == (
        ["queued", "running", "succeeded"],
        ["0", "1", "2", "2"],
    )


def test_half_of_an_event_is_not_one() -> None:
    half = event(**RUNNING)[:-20]
    assert seen(stream(event(**QUEUED), half, httpx.ReadError("reset")), stream(event(**DONE)))[1] == ["0", "1"]
    assert seen(stream(half), answer(rows.job(**QUEUED).to_json()), stream(event(**DONE)))[0] == ["succeeded"]


def test_what_was_seen_before_is_named_from_the_start() -> None:
    assert seen(stream(event(**DONE)), after=2) == (["succeeded"], ["2"])


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_service_that_starts_again_is_waited_for(status: int, pauses: list[float]) -> None:
    busy = problem(status)
    assert seen(stream(event(**QUEUED)), busy, busy, stream(event(**DONE)))[0] == ["queued", "succeeded"]
    assert pauses == sorted(pauses)


@pytest.mark.parametrize(
    "fault", [GONE, httpx.ReadTimeout("timed out"), problem(503), stream(httpx.ReadError("reset"))]
)
def test_it_gives_up_after_five_attempts_in_a_row(fault: Any, pauses: list[float]) -> None:
    client, service = connected(fault)
    with pytest.raises(UnavailableError, match=r"cannot reach http://127\.0\.0\.1 \("):
        list(client.events("j"))
    assert len(service.asked) == 6
    assert 0 < sum(pauses) < 30


def test_attempts_are_counted_anew_after_each_event() -> None:
    answers = [each for n in range(4) for each in (*[GONE] * 5, stream(event(version=n + 1)))]
    states, asked = seen(*answers, stream(event(**DONE, attempts=1)))
    assert states == ["queued"] * 4 + ["succeeded"]
    assert len(asked) == 25


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (problem(404, "no job 'j'", code="not-found"), NotFoundError, "no job 'j'"),
        (problem(401, "a token is needed"), StoreError, "a token is needed"),
        (problem(500, "the database failed", code="database-failed"), StoreError, "the database failed"),
        (answer(b"", 302, {"location": "http://elsewhere/login"}), StoreError, "302 Found from"),
        (stream("<html>", status=307), StoreError, "307 Temporary Redirect from"),
        (answer(b"<html>", 200, {"content-type": "text/html"}), StoreError, "answered with text/html, expected events"),
        (stream("data: hello\n\n"), StoreError, "not JSON: 'hello'"),
        (stream("data: " + "[" * 100_000 + "\n\n"), StoreError, "not JSON: '"),
        (stream("data: []\n\n"), StoreError, "no JobRow"),
        (stream('data: {"id": "j"}\n\n'), StoreError, "no JobRow"),
    ],
    ids=range(10),
)
def test_errors_that_stay_are_raised_at_once(
    fault: Any, kind: type[StoreError], said: str, pauses: list[float]
) -> None:
    client, service = connected(fault)
    with pytest.raises(kind, match=said):
        list(client.events("j"))
    assert (len(service.asked), pauses) == (1, [])


def test_error_after_some_events_is_raised_after_them() -> None:
    client, _ = connected(stream(event(**QUEUED)), problem(404, "no job 'j'", code="not-found"))
    found = client.events("j")
    assert next(found).state == "queued"
    with pytest.raises(NotFoundError, match="no job 'j'"):
        next(found)


# Streams that say nothing


def test_silent_stream_is_asked_for_again_while_the_job_goes_on(pauses: list[float]) -> None:
    """A service ends each stream after some time."""
    silent, still = stream(": ping\n\n"), answer(rows.job(**RUNNING).to_json())
    states, asked = seen(stream(event(**RUNNING)), silent, still, silent, still, stream(event(**DONE)))
    assert (states, asked) == (["running", "succeeded"], ["0", "2", "2", "2"])
    assert len(pauses) == 3


def test_silent_stream_of_a_job_whose_end_was_seen_is_the_end() -> None:
    assert seen(stream(), answer(rows.job(**DONE).to_json()), after=3) == ([], ["3"])


def test_silent_stream_of_a_job_that_has_ended_since_is_asked_for_again() -> None:
    states, asked = seen(stream(), answer(rows.job(**DONE).to_json()), stream(event(**DONE)), after=2)
    assert (states, asked) == (["succeeded"], ["2", "2"])


def test_caller_may_stop_and_the_connection_is_closed() -> None:
    class Open(httpx.SyncByteStream):
        closed = False

        def __iter__(self) -> Any:
            while True:
                yield event(**RUNNING).encode()

        def close(self) -> None:
            self.closed = True

    opened = Open()
    headers = {"content-type": "text/event-stream"}
    client, service = connected(lambda: httpx.Response(200, headers=headers, stream=opened))
    found: Any = client.events("j")
    assert (next(found).state, opened.closed) == ("running", False)
    found.close()
    assert (opened.closed, len(service.asked)) == (True, 1)


# The handle of a job


def test_submitted_job_is_followed_to_its_end() -> None:
    running, done = stream(event(**RUNNING)), stream(event(**DONE))
    client, service = connected(answer(rows.job(**QUEUED).to_json(), 202), running, done)
    handle = client.submit("track", "digits", {"align": False, "seed": None}, queue="night", priority=-1, timeout=60.0)
    assert (handle.id, repr(handle)) == ("j-01234567", "JobHandle('j-01234567', track, queued)")
    changes: list[JobRow] = []
    assert handle.wait(progress=changes.append) == rows.job(**DONE) == handle.row
    assert [row.state for row in changes] == ["running", "succeeded"]
    assert handle.result("tracking") == "t-1"
    assert json.loads(service.asked[0].content) == {
        **{"task": "track", "target": "digits", "choices": {"align": False}},
        **{"queue": "night", "priority": -1, "timeout": 60.0},
    }
    assert service.paths == ["POST jobs", *["GET jobs/j-01234567/events"] * 2]


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_job_that_has_ended_is_not_asked_for(state: str) -> None:
    client, service = connected(GONE)
    handle = JobHandle(client, rows.job(state=state, error="no data\nat all" if state == "failed" else None))
    if state == "succeeded":
        assert handle.wait() is handle.row
    else:
        said = {"failed": "j-01234567 failed: no data\nat all", "cancelled": "j-01234567 cancelled: it was stopped"}
        with pytest.raises(StoreError) as raised:
            handle.wait()
        assert str(raised.value) == said[state]
    assert service.asked == []


def test_job_that_fails_while_it_is_waited_for_says_why() -> None:
    client, _ = connected(stream(event(**RUNNING), event(state="failed", error="[red] R-hat is 2", version=3)))
    handle = JobHandle(client, rows.job())
    with pytest.raises(StoreError, match=r"^j-01234567 failed: \[red\] R-hat is 2$"):
        handle.wait()
    assert handle.row.state == "failed"


def test_service_that_goes_away_leaves_the_last_known_state() -> None:
    client, _ = connected(stream(event(**RUNNING)), GONE)
    handle = JobHandle(client, rows.job())
    with pytest.raises(UnavailableError, match="cannot reach"):
        handle.wait()
    assert handle.row == rows.job(**RUNNING)


def test_results_are_named_by_their_kind() -> None:
    made = ({"kind": "graph", "id": "g-1"}, {"kind": "partition", "id": "p-2"})
    handle = JobHandle(connected(GONE)[0], rows.job(state="succeeded", results=made))
    assert (handle.result("graph"), handle.result("partition")) == ("g-1", "p-2")
    with pytest.raises(NotFoundError, match=r"j-01234567 \(succeeded\) has made no ledger"):
        handle.result("ledger")
    with pytest.raises(NotFoundError, match=r"j-01234567 \(queued\) has made no graph"):
        JobHandle(connected(GONE)[0], rows.job()).result("graph")


def test_job_can_be_cancelled_by_its_handle() -> None:
    client, service = connected(problem(503), answer(rows.job(cancelling=True, state="running", version=5).to_json()))
    handle = JobHandle(client, rows.job(**RUNNING))
    assert handle.cancel() == handle.row == rows.job(cancelling=True, state="running", version=5)
    assert service.paths == ["POST jobs/j-01234567/cancel"] * 2


def test_progress_is_drawn_on_standard_error_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """Where that is no terminal, as lines."""
    client, service = connected(page(), stream(event(**RUNNING), event(**DONE)))
    assert JobHandle(client, rows.job()).wait(progress=True).state == "succeeded"
    out, err = capsys.readouterr()
    assert out == ""
    hint, *told = err.splitlines()
    assert hint.startswith("no worker is running")
    assert told == ["track j-01234567: running track", "track j-01234567: succeeded"]
    assert service.paths[0] == "GET workers"


def test_progress_has_no_hint_where_a_worker_runs_or_the_job_does(capsys: pytest.CaptureFixture[str]) -> None:
    client, _ = connected(page(rows.worker()), stream(event(**DONE)))
    JobHandle(client, rows.job()).wait(progress=True)
    client, service = connected(stream(event(**DONE)))
    JobHandle(client, rows.job(**RUNNING)).wait(progress=True)
    assert "GET workers" not in service.paths
    assert capsys.readouterr().err.splitlines() == ["track j-01234567: succeeded"] * 2
