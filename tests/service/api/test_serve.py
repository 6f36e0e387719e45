"""`interbasis serve` and the command line against it: real processes, real HTTP."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cases_checkpoints import save_inputs, save_mlp
from cases_jobs import LONG
from cases_long import POSTGRESQL_FIRST, SQLITE_FIRST

from interbasis.service.api.guard import Limits
from interbasis.service.api.serve import check_exposure, serve
from interbasis.service.cli import app as cli
from interbasis.service.client.client import Client
from interbasis.service.records.errors import StoreError, UnavailableError
from interbasis.service.store.store import Store

Serve = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture
def serving(place: Any, python: str, tmp_path: Path) -> Iterator[Serve]:
    """Starts `interbasis serve`; gives the process and its URL. What it says is in serve.log."""
    started: list[subprocess.Popen[str]] = []

    def begin(*options: str) -> tuple[subprocess.Popen[str], str]:
        command = [python, "-m", "interbasis.service.cli", "serve", "--port", "0", *options]
        env = {**os.environ, "INTERBASIS_STORE": place.url, "INTERBASIS_ARTIFACTS": place.artifacts}
        log = tmp_path / f"serve{len(started)}.log"
        with log.open("w") as stream:
            own: dict[str, Any] = {"stderr": stream, "stdout": stream, "text": True, "env": env}
            started.append(subprocess.Popen(command, start_new_session=True, **own))
        deadline = time.monotonic() + 300
        while not (found := re.search(r" at (http://[^\s\"]+)", log.read_text())):
            assert started[-1].poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return started[-1], found.group(1)

    yield begin
    for process in started:
        process.kill()
        process.wait()


def run(*words: str, **env: str) -> str:
    """What a command prints on standard output."""
    command = [sys.executable, "-m", "interbasis.service.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command prints on standard output, or on a failure on standard error; in this process."""

    def call(*words: str | Path, code: int = 0, **env: str) -> str:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["interbasis", *map(str, words)])
            with pytest.raises(SystemExit) as stop:
                cli.main()
        captured = capsys.readouterr()
        assert stop.value.code == code, captured.err
        return captured.err if code else captured.out

    return call


@SQLITE_FIRST
def test_every_command_against_a_service(
    place: Any, store: Store, serving: Serve, here: Callable[..., str], tmp_path: Path
) -> None:
    save_inputs(tmp_path / "x.npz", 8)
    for step in (1, 2):
        save_mlp(tmp_path / f"step{step}.safetensors", seed=step, step=step, model="run", blocks=2)
    _, url = serving()
    service = {"INTERBASIS_URL": url, "INTERBASIS_STORE": str(tmp_path / "not.sqlite")}
    data = ("--data", tmp_path / "x.npz", "--json")
    paths = [tmp_path / "step1.safetensors", tmp_path / "step2.safetensors"]
    rows = json.loads(here("analyze", *paths, "--output", "neuron", *data, **service))["items"]
    assert [row["partition"]["graph"] for row in rows] == [row["graph"]["id"] for row in rows]
    partition = rows[0]["partition"]["id"]
    assert json.loads(here("show", "partition", partition, "--json", **service))["id"] == partition
    assert partition in run("ls", "partitions", **service)
    assert partition in here("ls", "partitions", "--model", "run", "--since", "1h", **service)
    here("plot", partition, "-o", tmp_path / "modules.png", **service)
    assert (tmp_path / "modules.png").read_bytes()[:4] == b"\x89PNG"
    here("export", partition, "--format", "graphml", "-o", tmp_path / "modules.graphml", **service)
    assert "<graphml" in (tmp_path / "modules.graphml").read_text()
    divided = json.loads(here("modules", rows[0]["graph"]["id"], "--k", "2", "--json", **service))
    assert divided["objective"] == "kway"
    (counted,) = json.loads(here("ledger", paths[0], *data, **service))["items"]
    assert counted["nominal"] == store.get_ledger(counted["id"]).nominal
    short = ("--temperature", "1000", "--draws", "20", "--warmup", "9")
    (estimate,) = json.loads(here("llc", paths[0], *short, *data, **service))["items"]
    assert estimate["n_effective"] == store.get_llc(estimate["id"]).n_effective
    assert json.loads(here("track", "run", *data, **service))["n_checkpoints"] == 2
    kinds = ("--kind", "isolate", "--kind", "modules", "--draws", "2")
    tested = json.loads(here("experiment", partition, *kinds, *data, **service))["items"]
    assert [row["experiment"] for row in tested] == ["isolate", "modules"]
    assert [row["partition"] for row in tested] == [partition] * 2
    assert tested[1]["id"] in here("ls", "experiments", **service)
    added = json.loads(
        here("schedule", "add", "experiment", "run", "--cron", "0 2 * * *", "--set", "draws=1", *data, **service)
    )
    here("schedule", "run", added["id"], **service)
    deadline = time.monotonic() + 300
    while len(store.experiments().items) < 2 + len(store.partitions().items):
        assert time.monotonic() < deadline, (store.jobs(task="experiment"), store.get_schedule(added["id"]))
        time.sleep(0.2)
    assert store.get_schedule(added["id"]).error is None
    here("schedule", "rm", added["id"], **service)
    (job,) = json.loads(here("submit", "ledger", paths[1], "--set", f"data={data[1]}", "--watch", "--json", **service))[
        "items"
    ]
    assert job["state"] == "succeeded"
    assert job["id"] in here("jobs", **service)
    assert "only a job that failed" in here("retry", job["id"], code=2, **service)
    assert json.loads(here("cancel", job["id"], "--json", **service))["state"] == "succeeded"
    added = json.loads(here("schedule", "add", "track", "run", "--cron", "0 2 * * *", "--json", **service))
    assert added["id"] in here("schedule", "ls", **service)
    for change in ("pause", "resume", "rm"):
        here("schedule", change, added["id"], **service)
    assert store.schedules().items == ()
    assert "no such" not in here("register", paths[0], **service)
    assert "installed families" in here("analyze", paths[0], "--factory", "os:system", code=2, **service)
    assert not (tmp_path / "not.sqlite").exists()
    left = store.blobs.put(b"of no result")
    report = json.loads(here("db", "check", "--json", **service))
    assert (report["uncollected"], report["artifacts"]) == ([f"file without a row {left}"], [])
    assert "0 problems" in here("db", "check", **service)
    assert json.loads(here("db", "gc", "--grace", "1", "--json", **service))["files"] == []
    assert json.loads(here("db", "gc", "--grace", "0", "--json", **service))["files"] == [left]
    assert "expected hours" in here("db", "gc", "--grace", "-1", code=2, **service)
    assert not (tmp_path / "not.sqlite").exists()
    made = here("token", "new", "me", "--scope", "admin", **service).strip()
    assert "a token is needed" in here("ls", "models", code=2, **service)
    assert "run" in here("ls", "models", **service, INTERBASIS_TOKEN=made)
    (row,) = store.tokens().items
    here("token", "revoke", row.id, **service, INTERBASIS_TOKEN=made)
    assert "unknown or revoked" in here("token", "ls", code=2, **service, INTERBASIS_TOKEN=made)


@POSTGRESQL_FIRST
def test_job_of_a_service_that_stops_goes_on_in_the_next(store: Store, serving: Serve, tmp_path: Path) -> None:
    save_inputs(tmp_path / "x.npz")
    process, url = serving()
    with Client(url) as client:
        choices = {"data": tmp_path / "x.npz", **LONG}
        job = client.submit("llc", save_mlp(tmp_path / "a.safetensors", model="run"), choices)
        for row in client.events(job.id):
            if row.fraction:
                break
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C in a terminal
    assert process.wait(timeout=120) == 0
    left = store.get_job(job.id)
    assert (left.state, left.worker) == ("queued", None)
    with pytest.raises(UnavailableError, match="cannot reach"), Client(url) as client:
        client._request("GET", "health", safe=False)
    _, url = serving()
    with Client(url) as client:
        done = [row for row in client.events(job.id) if row.ended]
    assert [(row.state, row.attempts, row.interruptions) for row in done] == [("succeeded", 1, 0)]


@SQLITE_FIRST
def test_worker_that_dies_is_started_again(store: Store, serving: Serve, tmp_path: Path) -> None:
    save_inputs(tmp_path / "x.npz")
    process, url = serving("--log", "json")
    deadline = time.monotonic() + 300
    with Client(url) as client:
        while not (workers := client.workers()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(workers[0].pid, signal.SIGKILL)
        job = client.submit("ledger", save_mlp(tmp_path / "a.safetensors", model="run"), {"data": tmp_path / "x.npz"})
        assert job.wait().state == "succeeded"
        (again,) = client.workers()
    assert (again.id, again.alive) == (workers[0].id, True)
    assert again.pid != workers[0].pid
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=120)
    logged = [json.loads(line) for line in (tmp_path / "serve0.log").read_text().splitlines()]
    asked = [entry for entry in logged if entry.get("path") == "/api/v1/jobs" and entry["method"] == "POST"]
    assert [entry["status"] for entry in asked] == [202]
    assert re.fullmatch("[0-9a-f]{16}", asked[0]["request_id"])
    assert asked[0]["job_id"] == job.id
    ended = [entry for entry in logged if entry.get("state") == "succeeded"]
    assert [(entry["job_id"], entry["message"]) for entry in ended] == [(job.id, f"job {job.id} succeeded")]
    assert ended[0]["results"] == [job.result("ledger")]
    (banner,) = [entry for entry in logged if "interbasis serves" in entry["message"]]
    assert (banner["url"], banner["needs_token"]) == (url, False)
    assert {entry["worker"] for entry in logged if "worker" in entry} == {workers[0].id}
    assert any("started again" in entry["message"] for entry in logged)


def test_service_whose_process_is_killed_leaves_no_worker(store: Store, serving: Serve) -> None:
    process, url = serving()
    deadline = time.monotonic() + 300
    with Client(url) as client:
        while not client.workers():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        (worker,) = client.workers()
    process.kill()
    process.wait()
    while Path(f"/proc/{worker.pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_second_service_on_a_sqlite_store_is_refused(
    sqlite_place: Any, here: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the first has ended, after which its lock is free, also where it was killed."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    said = []

    def second(url: str) -> None:
        said.append(here("serve", "--port", "0", code=2, INTERBASIS_STORE=sqlite_place.url))
        assert f"served already at {url} by process {os.getpid()}: SQLite takes one service" in said[-1]
        raise KeyboardInterrupt

    with sqlite_place.open() as store:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                serve(store, host="127.0.0.1", port=0, workers=0, limits=Limits(), ready=second)
    assert len(said) == 2


def test_senseless_options_are_refused(sqlite_place: Any, here: Callable[..., str]) -> None:
    with sqlite_place.open() as store:
        with pytest.raises(StoreError, match="there is no token"):
            check_exposure(store, "0.0.0.0")
        options: dict[str, Any] = {"port": 0, "limits": Limits()}
        with pytest.raises(StoreError, match="SQLite takes one"):
            serve(store, host="127.0.0.1", workers=2, **options)
        with pytest.raises(StoreError, match="cannot listen"):
            serve(store, host="192.0.2.1" if store.new_token("x") else "", workers=0, **options)
    where = {"INTERBASIS_STORE": sqlite_place.url}
    assert "no such folder" in here("serve", "--root", "/nowhere", code=2, **where)
    assert "expected text or json" in here("serve", "--log", "xml", code=2, **where)
