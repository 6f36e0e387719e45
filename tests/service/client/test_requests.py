"""Requests of the client: which are sent again and after what pause, errors, pages, and names in paths."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import cases_rows as rows
import httpx
import pytest
from cases_client import Answer, answer, connected, page, problem

from interbasis.service.api.app import create_app
from interbasis.service.client import Client
from interbasis.service.client.in_process import InProcess
from interbasis.service.records.errors import (
    AmbiguousError,
    ArtifactError,
    ConflictError,
    DatabaseError,
    ExportError,
    ForbiddenError,
    NotFoundError,
    StoreError,
    UnavailableError,
)
from interbasis.service.records.partitions import MediatorRow, NodeRow

SHA = "sha256:" + "0" * 64


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, in seconds; none takes time."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


def node(coordinate: int = 0, **changes: Any) -> NodeRow:
    return NodeRow(**{"cut": 0, "coordinate": coordinate, "module": 1, "importance": 0.5, **changes})


def graph_of_edges() -> Answer:
    return answer({"cuts": ["a"], "n_edges": 0, "edges": []})


# Requests that are sent again


SAFE: dict[str, tuple[Callable[[Client], Any], Answer]] = {
    "list": (lambda client: client.models(), page(rows.model())),
    "get": (lambda client: client.get_graph("g"), answer(rows.graph().to_json())),
    "get a job": (lambda client: client.get_job("j"), answer(rows.job().to_json())),
    "workers": (lambda client: client.workers(), page(rows.worker())),
    "nodes": (lambda client: client.nodes("p"), page(node())),
    "edges": (lambda client: client.subgraph("g"), graph_of_edges()),
    "file": (lambda client: client.graph_bytes("g"), answer(b"\x00bytes")),
    "submit": (lambda client: client.submit("partition", "g"), answer(rows.job().to_json(), 202)),
    "not forced": (
        lambda client: client.submit("partition", "g", {"force": False}),
        answer(rows.job().to_json(), 202),
    ),
    "cancel": (lambda client: client.cancel_job("j"), answer(rows.job(state="cancelled").to_json())),
    "pause": (lambda client: client.pause_schedule("s"), answer(rows.schedule(paused=True).to_json())),
    "resume": (lambda client: client.resume_schedule("s"), answer(rows.schedule().to_json())),
    "revoke": (lambda client: client.revoke_token("t"), answer(rows.token(revoked=rows.THEN).to_json())),
    "register": (
        lambda client: client.register_checkpoint(SHA, about={"family": "mlp"}),
        answer(rows.checkpoint().to_json(), 201),
    ),
}

UNSAFE: dict[str, Callable[[Client], Any]] = {
    "retry": lambda client: client.retry_job("j"),
    "run": lambda client: client.run_schedule("s"),
    "remove": lambda client: client.remove_schedule("s"),
    "add": lambda client: client.add_schedule("track", "digits", cron="0 2 * * *"),
    "token": lambda client: client.new_token("ci"),
    "check": lambda client: client.check(),
    "collect": lambda client: client.collect(),
    "forced": lambda client: client.submit("partition", "g", {"force": True}),
}

FAULTS: dict[str, Answer | Exception] = {
    "refused": httpx.ConnectError("refused"),
    "no answer": httpx.ReadTimeout("timed out"),
    "broken": httpx.RemoteProtocolError("peer closed connection"),
    "429": problem(429),
    "502": answer(b"<html>Bad Gateway</html>", 502),
    "503": problem(503, code="unavailable"),
    "504": answer(b"", 504),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", SAFE)
def test_safe_requests_are_sent_again_unchanged(call: str, fault: str) -> None:
    ask, good = SAFE[call]
    client, service = connected(FAULTS[fault], FAULTS[fault], good)
    assert ask(client) is not None
    assert len(service.asked) == 3
    assert len({(str(each.url), each.method, each.content) for each in service.asked}) == 1


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", UNSAFE)
def test_other_requests_are_sent_once(call: str, fault: str, pauses: list[float]) -> None:
    """What went wrong on the way back was done."""
    client, service = connected(FAULTS[fault])
    with pytest.raises(StoreError, match=r"cannot reach|busy|is this an interbasis service"):
        UNSAFE[call](client)
    assert (len(service.asked), pauses) == (1, [])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 413, 422, 500, 501])
def test_answers_that_would_be_the_same_again_are_not_asked_for_again(status: int, pauses: list[float]) -> None:
    client, service = connected(problem(status, "no", {"retry-after": "1"}))
    with pytest.raises(StoreError, match=r"^no$"):
        client.models()
    assert (len(service.asked), pauses) == (1, [])


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("refused", r"cannot reach http://127.0.0.1 \(refused\): is"),
        ("503", "busy"),
        ("429", "busy"),
        ("504", "504 Gateway"),
    ],
)
def test_after_five_pauses_that_grow_it_gives_up(fault: str, said: str, pauses: list[float]) -> None:
    client, service = connected(FAULTS[fault])
    kind = StoreError if fault == "429" else UnavailableError
    with pytest.raises(kind, match=said):
        client.models()
    assert len(service.asked) == 6
    assert pauses == sorted(pauses)
    assert (len(pauses), pauses[0]) == (5, 0.2)
    assert sum(pauses) < 10


def test_faults_of_several_kinds_share_the_attempts() -> None:
    client, service = connected(*FAULTS.values())
    with pytest.raises(UnavailableError):
        client.models()
    assert len(service.asked) == 6


# Retry-After


def in_seconds(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("3", 3, 3),
        ("0", 0.2, 0.2),  # never less than the pause of its own
        ("", 0.2, 0.2),
        ("soon", 0.2, 0.2),
        ("-5", 0.2, 0.2),
        ("1.5", 0.2, 0.2),  # the standard has whole seconds only
        ("٣", 0.2, 0.2),
        ("Wed, 01 Jan 2025 00:00:00 GMT", 0.2, 0.2),  # that has passed
        ("Wed, 99 Nov 2026 00:00:00 GMT", 0.2, 0.2),
        (20, 5, 20),
    ],
)
def test_it_waits_as_long_as_it_was_asked_to(asked: Any, least: float, most: float, pauses: list[float]) -> None:
    """Seconds, or a date: here some seconds from now."""
    asked = in_seconds(asked) if isinstance(asked, int) else asked
    busy = problem(503, headers={"retry-after": asked.encode()})
    client, service = connected(busy, page())
    assert client.models().items == ()
    assert len(service.asked) == 2
    assert len(pauses) == 1
    assert least <= pauses[0] <= most


@pytest.mark.parametrize("asked", ["31", "86400", "9" * 30, 3600, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_it_gives_up_at_once_where_it_would_wait_too_long(asked: Any, pauses: list[float]) -> None:
    asked = in_seconds(asked) if isinstance(asked, int) else asked
    client, service = connected(problem(503, "down until tomorrow", {"retry-after": asked}), page())
    with pytest.raises(UnavailableError, match="down until tomorrow"):
        client.models()
    assert (len(service.asked), pauses) == (1, [])


def test_asked_pauses_count_together(pauses: list[float]) -> None:
    """12 + 12 seconds are waited; the third 12 would be more than 30."""
    client, service = connected(problem(429, "slower", {"retry-after": "12"}))
    with pytest.raises(StoreError, match="slower"):
        client.models()
    assert (len(service.asked), pauses) == (3, [12.0, 12.0])


# Errors


CODES: dict[str, type[StoreError]] = {
    "not-found": NotFoundError,
    "ambiguous": AmbiguousError,
    "conflict": ConflictError,
    "forbidden": ForbiddenError,
    "unavailable": UnavailableError,
    "database-failed": DatabaseError,
    "artifact-failed": ArtifactError,
    "export-failed": ExportError,
    "invalid": StoreError,
}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("status", [409, 500])
def test_error_has_the_class_of_its_code_whatever_the_status(code: str, status: int) -> None:
    client, _ = connected(problem(status, "seen [x], expected y", code=code))
    with pytest.raises(StoreError) as raised:
        client.get_graph("g")
    if code != "invalid":  # the base, where the status may say more
        assert type(raised.value) is CODES[code]
    assert str(raised.value) == "seen [x], expected y"


@pytest.mark.parametrize("code", [None, "of-the-future", 7, ["not-found"], {}])
@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, StoreError), (401, StoreError), (403, ForbiddenError), (404, NotFoundError), (409, ConflictError)],
)
def test_error_of_an_unknown_code_has_the_class_of_its_status(code: Any, status: int, kind: type[StoreError]) -> None:
    client, _ = connected(problem(status, "no", code=code))
    with pytest.raises(StoreError, match=r"^no$") as raised:
        client.get_graph("g")
    assert type(raised.value) is kind


NOT_OURS = [
    b"<html>Not Found</html>",
    b"",
    b"[]",
    b"null",
    b'"text"',
    b"{}",
    b'{"error": "no"}',
    b"\xff\xfe",
    b"[" * 100_000,
]
WRONG = [*NOT_OURS, b'{"items": {}}', b'{"items": [3]}', b'{"items": [{"id": "m"}]}']


@pytest.mark.parametrize("content", NOT_OURS, ids=range(len(NOT_OURS)))
@pytest.mark.parametrize(("status", "kind"), [(302, StoreError), (404, NotFoundError), (500, StoreError)])
def test_error_of_another_program_is_told_with_its_address(content: bytes, status: int, kind: type[StoreError]) -> None:
    client, _ = connected(answer(content, status, {"location": "http://elsewhere/login"}))
    with pytest.raises(StoreError, match=rf"^{status} .* from http://127.0.0.1/api/v1/graphs/g: is this") as raised:
        client.get_graph("g")
    assert type(raised.value) is kind


@pytest.mark.parametrize("content", WRONG, ids=range(len(WRONG)))
def test_answer_of_another_shape_is_an_error_of_ours(content: bytes) -> None:
    client, _ = connected(answer(content))
    calls: list[Callable[[], Any]] = [client.models, client.workers, lambda: client.get_graph("g")]
    calls += [lambda: client.nodes("p"), lambda: client.submit("partition", "g"), lambda: client.revoke_token("t")]
    for call in calls:
        with pytest.raises(StoreError, match=r"is (this|it) an interbasis service"):
            call()


def test_field_that_does_not_fit_is_named() -> None:
    client, _ = connected(answer({**rows.graph().to_json(), "widths": [3, "many"]}))
    with pytest.raises(StoreError, match=r"no GraphRow \(widths\.1: "):
        client.get_graph("g")


def test_fields_of_a_newer_service_are_passed_over() -> None:
    client, _ = connected(answer({**rows.model().to_json(), "colour": "red"}))
    assert client.get_model("m") == rows.model()


def test_answer_that_cannot_be_decompressed_is_an_error_of_ours() -> None:
    broken = {"content-encoding": "gzip", "content-type": "application/json"}
    client, service = connected(
        lambda: httpx.Response(200, headers=broken, stream=httpx.ByteStream(b"not gzip"))  # a proxy's mistake
    )
    for call in (client.models, lambda: client.graph_bytes("g"), lambda: list(client.events("j"))):
        with pytest.raises(StoreError, match="is this an interbasis service"):
            call()
    assert len(service.asked) == 3


# Pages


def test_list_of_nodes_is_read_to_its_end() -> None:
    nodes = [node(n) for n in range(5)]
    client, service = connected(page(*nodes[:2], cursor="a b"), page(*nodes[2:4], cursor="/?&"), page(nodes[4]))
    assert client.nodes("p", module=1) == tuple(nodes)
    start = "GET partitions/p/nodes?module=1&"
    assert service.paths == [
        f"{start}limit=1000",
        f"{start}cursor=a+b&limit=1000",
        f"{start}cursor=%2F%3F%26&limit=1000",
    ]


def test_pages_without_items_do_not_end_a_list() -> None:
    client, service = connected(page(node(0), cursor="1"), page(cursor="2"), page(node(1)))
    assert client.nodes("p") == (node(0), node(1))
    assert len(service.asked) == 3
    empty, _ = connected(page())
    assert empty.mediators("p") == ()


def test_page_that_fails_is_asked_for_again_and_the_others_are_not() -> None:
    client, service = connected(page(node(0), cursor="1"), problem(503), page(node(1), cursor="2"), page(node(2)))
    assert client.nodes("p") == (node(0), node(1), node(2))
    assert [each.url.params.get("cursor") for each in service.asked] == [None, "1", "1", "2"]


def test_list_that_breaks_off_is_an_error_and_not_a_shorter_list() -> None:
    client, _ = connected(page(node(0), cursor="1"), problem(404, "no partition 'p'", code="not-found"))
    with pytest.raises(NotFoundError, match="no partition 'p'"):
        client.nodes("p")


def test_mediators_are_filtered_by_the_service() -> None:
    row = MediatorRow(earlier=0, later=1, cut=2, coordinate=3, strength=0.5, cost=0.1, gamma=None)
    client, service = connected(page(row))
    assert client.mediators("p", earlier=0, later=1) == (row,)
    assert service.paths == ["GET partitions/p/mediators?earlier=0&later=1&limit=1000"]


def test_lists_pass_on_what_was_given_only() -> None:
    client, service = connected(page(rows.job(), cursor="next"))
    found = client.jobs(state="queued", limit=2, newest_first=True)
    assert (found.items, found.next_cursor) == ((rows.job(),), "next")
    client.jobs(newest_first=False)
    params = [dict(each.url.params) for each in service.asked]
    assert params == [{"state": "queued", "limit": "2", "newest": "true"}, {}]


# What requests carry


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("plain", "plain"),
        ("EleutherAI/pythia-14m", "EleutherAI%252Fpythia-14m"),  # servers decode once, and split at slashes
        ("run@1/2", "run%401%252F2"),
        ("a b", "a%20b"),
        ("50% ?#&", "50%25%20%3F%23%26"),
        ("a%2Fb", "a%252Fb"),
        ("ünï", "%C3%BCn%C3%AF"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("../..", "..%252F.."),
        ("...", "..."),
    ],
)
def test_names_are_quoted_in_paths(name: str, sent: str) -> None:
    client, service = connected(answer(rows.model().to_json()))
    client.get_model(name)
    assert service.paths == [f"GET models/{sent}"]


def test_names_of_two_parts_arrive_apart() -> None:
    client, service = connected(answer(node().to_json()), graph_of_edges())
    client.get_node("p", "blocks.0/resid", 3)
    client.edges_of("g", "..", 7, limit=5)
    client.subgraph("g", cuts=["a/b", 1], epsilon=0.25)
    client.edges_between("p", 0, 1)
    assert service.paths == [
        "GET partitions/p/nodes/blocks.0%252Fresid/3",
        "GET graphs/g/nodes/%2E%2E/7/edges?limit=5",
        "GET graphs/g/subgraph?cut=a%2Fb&cut=1&epsilon=0.25&limit=1000",
        "GET partitions/p/edges?earlier=0&later=1&limit=100",
    ]


def test_names_of_dots_and_slashes_are_found_by_the_service(sqlite_place: Any) -> None:
    with sqlite_place.open() as store:
        client = Client("http://127.0.0.1", transport=InProcess(create_app(store)))
        for name in (".", "..", "../..", "a/./b", "/", "//"):
            row = store.register_model(name, "mlp", {})
            assert client.get_model(name) == row
            assert client.checkpoints(model=name).items == ()
        client.close()


def test_token_goes_with_every_request_and_into_no_message() -> None:
    client, service = connected(page(), token="ib_t-1_secret")
    client.models()
    assert service.asked[0].headers["authorization"] == "Bearer ib_t-1_secret"
    refused, _ = connected(httpx.ConnectError("refused"), token="ib_t-1_secret")
    with pytest.raises(UnavailableError) as raised:
        refused.models()
    assert "secret" not in f"{raised.value}{refused!r}"
    for token in (None, ""):
        client, service = connected(page(), token=token)
        client.models()
        assert "authorization" not in service.asked[0].headers


@pytest.mark.parametrize(
    "url", ["http://h:1", "http://h:1/", "http://h:1/api/v1", "http://h:1/api/v1/", "http://h:1//"]
)
def test_address_may_end_as_it_is_copied(url: str) -> None:
    asked: list[str] = []
    client = Client(url, transport=httpx.MockTransport(lambda request: asked.append(str(request.url)) or page()()))
    client.models()
    assert (client.url, asked, repr(client)) == ("http://h:1", ["http://h:1/api/v1/models"], "Client('http://h:1')")


@pytest.mark.parametrize(
    "url",
    [
        *("", "/", "127.0.0.1:8422", "localhost", "ftp://h", "file:///etc/passwd", "http:/h", "http://", "https:///"),
        *(
            "http://h:port",
            "http://[::1",
            "http://h\x00",
            "http://a..b",
            f"http://{'a' * 64}.example",
            "http://☃.example",
        ),
    ],
)
def test_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(StoreError, match=r"is not the URL of a service: expected one like http://127\.0\.0\.1:8422"):
        Client(url)


@pytest.mark.parametrize("url", ["http://[::1]:8422", "https://bücher.example", "http://user@h", "http://h/below"])
def test_unusual_addresses_are_taken(url: str) -> None:
    assert Client(url).url == url


def test_client_closes_its_connections_at_the_end() -> None:
    class Transport(httpx.MockTransport):
        closed = False

        def close(self) -> None:
            self.closed = True

    transport = Transport(lambda _: page()())
    with Client(transport=transport) as client:
        client.models()
        assert not transport.closed
    assert transport.closed


# Files, exports and frames


def test_files_arrive_byte_by_byte() -> None:
    content = bytes(range(256)) * 100
    client, service = connected(answer(content, 200, {"content-type": "application/octet-stream"}))
    kinds = ("graph", "bases", "partition", "tracking", "experiment", "ledger", "llc")
    assert {getattr(client, f"{kind}_bytes")("x/1") for kind in kinds} == {content}
    assert service.paths == [
        "GET graphs/x%252F1/file",
        "GET graphs/x%252F1/bases",
        *(f"GET {kind}/x%252F1/file" for kind in ("partitions", "trackings", "experiments", "ledgers", "llc")),
    ]


def test_file_that_is_damaged_there_is_an_error_and_no_bytes() -> None:
    client, _ = connected(problem(500, "a stored file is missing or damaged", code="artifact-failed"))
    with pytest.raises(ArtifactError, match="missing or damaged"):
        client.ledger_bytes("l")


def test_export_asks_for_the_kind_that_the_reference_names() -> None:
    client, service = connected(answer(rows.partition(id="p-12").to_json()), answer(b"masks"))
    assert client.export("p-1", "masks", module=1, neurons=2) == b"masks"
    assert service.paths == ["GET partitions/p-1", "GET partitions/p-12/export?format=masks&module=1&neurons=2"]
    missing, graph = problem(404, "no", code="not-found"), answer(rows.graph(id="g-12").to_json())
    for ref, asked in (("g-1", []), ("net@7", ["GET partitions/net%407"])):
        client, service = connected(*([missing] if asked else []), graph, answer(b"<graphml/>"))
        assert client.export(ref, "graphml", epsilon=0.5) == b"<graphml/>"
        found = f"GET graphs/{ref.replace('@', '%40')}"
        assert service.paths == [*asked, found, "GET graphs/g-12/export?format=graphml&epsilon=0.5"]
    client, service = connected(answer(b"CDF"))
    assert client.export("l-1", "netcdf", epsilon=0.5) == b"CDF"
    assert service.paths == ["GET llc/l-1/export"]


def test_lists_become_frames_with_a_column_per_field() -> None:
    client, _ = connected(page(rows.graph(id="g-1"), rows.graph(id="g-2", n_edges=3)))
    for found in (client.graphs(), client.graphs().items):
        frame = client.frame(found)
        assert list(frame["id"]) == ["g-1", "g-2"]
        assert list(frame["n_edges"]) == [12, 3]
        assert set(frame.columns) == set(rows.graph().to_json())
    assert len(client.frame(())) == 0


def test_objects_are_checked_as_files_of_disk_are(tmp_path: Path) -> None:
    """What arrives is no graph: an error of the analysis, which says so."""
    from interbasis.analysis.errors import InterbasisError

    client, _ = connected(answer(b"not a graph"))
    for load in (client.graph, client.bases, client.partition, client.tracking, client.experiment, client.ledger):
        with pytest.raises(InterbasisError):
            load("x")
