"""What goes wrong says so in words: damaged databases, conflicts, services that ask to wait; no path, no traceback."""

import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cases_checkpoints import save_inputs, save_mlp
from cases_store import register, save_graph, save_partition
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from interbasis.analysis.recipe import LedgerRecipe, LlcRecipe
from interbasis.service.api.app import create_app
from interbasis.service.cli.app import app
from interbasis.service.client import client as client_module
from interbasis.service.client import http, uploads
from interbasis.service.client.client import Client
from interbasis.service.client.in_process import InProcess
from interbasis.service.jobs import compute
from interbasis.service.records.checkpoints import ModelRow
from interbasis.service.records.errors import (
    AmbiguousError,
    ConflictError,
    DatabaseError,
    NotFoundError,
    ReadOnlyError,
    StoreError,
    UnavailableError,
)
from interbasis.service.storage import connection as connections
from interbasis.service.store.store import Store
from interbasis.service.tasks import analyze as analyze_task
from interbasis.service.tasks import estimates

PATHS = ("models", "checkpoints", "partitions", "graphs", "jobs", "schedules", "partitions/p-1", "ready")


def damage(file: Path, seed: int) -> None:
    """Overwrite pages of a SQLite file with noise, the first one, which says what it is, excepted."""
    chance = random.Random(seed)
    content = bytearray(file.read_bytes())
    for start in range(4096, len(content), 4096):
        if chance.random() < 0.9:
            content[start : start + 4096] = chance.randbytes(4096)
    file.write_bytes(content)


@pytest.mark.parametrize("seed", [0, 1])
def test_damaged_database_is_our_failure_and_says_no_path(sqlite_place: Any, tmp_path: Path, seed: int) -> None:
    with sqlite_place.open() as store:
        save_partition(store, save_graph(store).id)
    damage(Path(sqlite_place.url), seed)
    runner = CliRunner()
    seen = []
    for command in (["ls", "models"], ["ls", "partitions"], ["jobs"], ["show", "partition", "p-1"]):
        result = runner.invoke(app, [*command, "--store", sqlite_place.url])
        seen.append(result.exit_code)
        if result.exit_code:
            assert isinstance(result.exception, StoreError)
            assert "restore it from a backup" in str(result.exception)
            assert "\n" not in str(result.exception)
    assert any(seen)
    engine = connections.connect(store.location)
    with Store(store.location, engine, store.blobs) as opened:
        transport = InProcess(create_app(opened))
        with httpx.Client(transport=transport, base_url="http://127.0.0.1/api/v1/") as web:
            answers = [web.get(path) for path in PATHS]
    assert any(answer.status_code >= 500 for answer in answers)
    for answer in answers:
        assert answer.status_code in (200, 404, 500, 503)
        assert str(tmp_path) not in answer.text
        assert "sqlite" not in answer.text.lower()


@pytest.mark.parametrize(
    "change", ["UPDATE model SET config = '{broken'", "UPDATE model SET created = 'yesterday'", "DROP TABLE model"]
)
def test_damaged_row_is_our_failure(sqlite_place: Any, tmp_path: Path, change: str) -> None:
    with sqlite_place.open() as store:
        register(store)
        with store._writer.begin() as connection:
            connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
            connection.exec_driver_sql(change)
        with pytest.raises(DatabaseError, match=r"the store is damaged \(.*\): restore it from a backup"):
            store.models()
        with Client("http://127.0.0.1", transport=InProcess(create_app(store))) as client:
            with pytest.raises(DatabaseError, match="the store is damaged; the service's log says why") as caught:
                client.models()
            assert str(tmp_path) not in str(caught.value)


def test_errors_have_codes(store: Store) -> None:
    for name in ("digits", "letters"):
        store.register_model(name, "mlp", {})
        store.add_checkpoint(name, sha256="0" * 64, label="same")
    with Client("http://127.0.0.1", transport=InProcess(create_app(store))) as client:
        for path, status, code, kind in [
            ("models/none", 404, "not-found", NotFoundError),
            ("checkpoints/same", 409, "ambiguous", AmbiguousError),
            ("jobs?state=odd", 422, "invalid", StoreError),
            ("nowhere", 404, "not-found", NotFoundError),
        ]:
            answer = client._http.get(path)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            with pytest.raises(kind):
                client._request("GET", path)


class Answering(httpx.BaseTransport):
    """A service that gives these answers, in order, and keeps what it was sent."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.answers, self.sent = list(answers), []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        self.sent.append(list(request.stream))
        return self.answers.pop(0)


def problem(status: int, detail: str, code: str | None = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json={"detail": detail} | ({"code": code} if code else {}), headers=named)


def test_conflicts_are_told_apart_by_their_code_not_their_words() -> None:
    for code, kind in [("ambiguous", AmbiguousError), ("conflict", ConflictError), (None, ConflictError)]:
        answer = problem(409, "the name could be any of them", code)
        with pytest.raises(StoreError) as caught:
            Client(transport=Answering(answer)).get_model("m")
        assert type(caught.value) is kind


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the client slept, in seconds; nobody really does."""
    moments: list[float] = []
    monkeypatch.setattr(client_module.time, "sleep", moments.append)
    return moments


def test_client_waits_as_long_as_it_is_asked_to(slept: list[float]) -> None:
    fine = httpx.Response(200, json={"items": [], "next_cursor": None})
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=9), usegmt=True)
    busy = [problem(429, "busy", retry_after=after) for after in ("7", date, "soon", "-3")]
    Client(transport=Answering(*busy, fine)).models()
    assert slept[0] == 7
    assert 6 < slept[1] <= 9
    assert slept[2:] == [1.0, 2.0]


def test_client_does_not_wait_for_ever(slept: list[float]) -> None:
    far = format_datetime(datetime.now(UTC) + timedelta(days=9), usegmt=True)
    for after in ("3600", "9" * 400, far):
        with pytest.raises(UnavailableError, match="busy"):
            Client(transport=Answering(problem(503, "busy", retry_after=after))).models()
    with pytest.raises(UnavailableError, match="busy"):
        Client(transport=Answering(*(problem(503, "busy", retry_after="13") for _ in range(9)))).models()
    assert slept == [13, 13]


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30))
def test_any_retry_after_is_a_number_of_seconds(text: str) -> None:
    asked = http.asked_pause(httpx.Response(503, headers={"retry-after": text}))
    assert asked >= 0


def test_uploads_are_sent_in_parts_and_again_from_the_beginning(tmp_path: Path, slept: list[float]) -> None:
    file = tmp_path / "large.safetensors"
    content = random.Random(0).randbytes(5 << 19)
    file.write_bytes(content)
    kept = {"sha256": "a" * 64, "uri": "sha256:" + "a" * 64, "bytes": 1, "created": "2026-01-01T00:00:00Z"}
    service = Answering(problem(503, "busy"), httpx.Response(201, json=kept))
    assert Client(transport=service).upload(file).uri == kept["uri"]
    assert len(slept) == 1
    for parts in service.sent:
        assert max(map(len, parts)) <= uploads.CHUNK
        assert b"".join(parts) == content
    with pytest.raises(StoreError, match=r"cannot read .*gone"):
        Client(transport=service).upload(tmp_path / "gone.safetensors")


def test_validators_are_made_once_per_type() -> None:
    items = [{"id": f"m-{n}", "name": "a", "family": "mlp", "config": {}, "created": "2026-01-01"} for n in range(50)]
    http._validator.cache_clear()
    page = Client(transport=Answering(httpx.Response(200, json={"items": items, "next_cursor": None}))).models()
    assert [type(item) for item in page.items] == [ModelRow] * 50
    assert http._validator.cache_info().misses == 1


@pytest.fixture
def conflicting(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint whose run belongs to another network; whoever computes fails."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("this takes an hour")

    for module, name in [(analyze_task, "build_bases"), (estimates, "build_ledger"), (estimates, "build_llc")]:
        monkeypatch.setattr(module, name, fail)
    save_inputs(tmp_path / "x.npz")
    store.register_model("run", "mlp", {"widths": [1, 2]})
    store.add_checkpoint("run", sha256="0" * 64, run="first")
    return save_mlp(tmp_path / "a.safetensors", model="run", run="first")


def test_name_conflicts_are_found_before_the_computation(store: Store, conflicting: Path) -> None:
    data = conflicting.with_name("x.npz")
    for call in (
        lambda: analyze_task.analyze(store, conflicting, {}, data=data),
        lambda: estimates.ledger(store, conflicting, LedgerRecipe(), data=data),
        lambda: estimates.llc(store, conflicting, LlcRecipe(temperature=9.0), data=data),
    ):
        with pytest.raises(ConflictError, match="choose another name for this run"):
            call()
    job = {"task": "analyze", "target": str(conflicting), "choices": {"data": str(data)}}
    steps = compute.Steps(store, job, lambda _: None)
    with steps.files(), pytest.raises(ConflictError, match="choose another name"):
        steps.take("load", {})
    assert len(store.models().items) == 1


def test_name_that_is_taken_meanwhile_is_refused_at_the_end(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_inputs(tmp_path / "x.npz")
    path = save_mlp(tmp_path / "a.safetensors", model="run", run="first")
    built = estimates.build_ledger

    def build(*arguments: Any, **options: Any) -> Any:
        store.register_model("run", "mlp", {"widths": [1, 2]})
        store.add_checkpoint("run", sha256="0" * 64, run="first")
        return built(*arguments, **options)

    monkeypatch.setattr(estimates, "build_ledger", build)
    with pytest.raises(ConflictError, match="choose another name"):
        estimates.ledger(store, path, LedgerRecipe(), data=tmp_path / "x.npz")
    assert store.ledgers().items == ()


def test_store_that_cannot_be_written_is_found_before_the_computation(
    store: Store, conflicting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise ReadOnlyError("read-only")

    monkeypatch.setattr(connections, "require_writable", refuse)
    other = save_mlp(conflicting.with_name("b.safetensors"), model="other")
    with pytest.raises(ReadOnlyError):
        estimates.ledger(store, other, LedgerRecipe(), data=conflicting.with_name("x.npz"))
