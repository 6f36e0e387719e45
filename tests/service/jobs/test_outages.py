"""What a full disk and a database that goes away do to a job, and to the API: nothing is lost, nothing half-written."""

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from cases_checkpoints import save_inputs, save_mlp
from cases_jobs import LONG, ask, wait
from cases_long import SQLITE_FIRST
from cases_store import save_llc
from sqlalchemy import event
from sqlalchemy.engine import make_url

from interbasis.service.api.app import create_app
from interbasis.service.client.in_process import InProcess
from interbasis.service.records.errors import UnavailableError
from interbasis.service.store.store import Store


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        warnings.simplefilter("always")
        warnings.warn("no file system can be mounted: the test of a full disk is SKIPPED", stacklevel=1)
        pytest.skip("no file system can be mounted")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # killed processes may take a moment to let go


@SQLITE_FIRST
def test_full_disk_fails_the_job_and_leaves_nothing_half_written(
    place: Any, small_disk: Path, start_worker: Any, tmp_path: Path
) -> None:
    os.symlink(small_disk, place.artifacts)
    if place.kind == "postgresql":
        Store.upgrade(place.url)
    save_inputs(tmp_path / "x.npz")
    path = save_mlp(tmp_path / "a.safetensors", step=1, model="run")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free))
    with place.open() as store:
        start_worker()
        job = ask(store, "analyze", path)
        (failed,) = wait(store, job)
        assert (failed.state, failed.attempts) == ("failed", 3)
        assert "No space left on device" in (failed.error or "")
        assert store.graphs().items == ()
        assert [file.name for file in small_disk.rglob("*") if file.is_file()] == ["ballast"]
        ballast.unlink()
        store.retry_job(job.id)
        (done,) = wait(store, job)
        assert (done.state, [result["kind"] for result in done.results]) == ("succeeded", ["graph", "partition"])
        assert store.check().ok


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_job_outlasts_a_full_disk_under_the_database(
    place: Any, small_disk: Path, start_worker: Any, tmp_path: Path
) -> None:
    """That the job goes on cannot be written then; it is not given up, and its result is stored once there is space."""
    there = replace(place, url=str(small_disk / "store.sqlite"))
    save_inputs(tmp_path / "x.npz")
    path = save_mlp(tmp_path / "a.safetensors", step=1, model="run")
    ballast, log = small_disk / "ballast", tmp_path / "w1.log"
    with there.open() as store:
        start_worker(at=there)
        job = ask(store, "llc", path, LONG)
        wait(store, job, until=lambda row: (row.fraction or 0) > 0)
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as stream:
            while stream.write(bytes(4096)):
                pass
        deadline = time.monotonic() + 300
        while "disk is full" not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert store.get_job(job.id).state == "running"
        ballast.unlink()
        (done,) = wait(store, job)
        assert (done.state, done.interruptions) == ("succeeded", 0)
        assert store.get_llc(done.results[0]["id"]).n_parameters == 83
        assert store.check().ok


class Proxy:
    """Stands between a database and its clients; while `away`, connections break and new ones are refused."""

    def __init__(self, target: str) -> None:
        self.away = False
        self._target = target
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.away:
                near.close()
                continue
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._target)
            self._pairs.append((near, far))
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(a, b), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        self._hang_up((source, sink))
        source.close()

    @staticmethod
    def _hang_up(pair: tuple[socket.socket, socket.socket]) -> None:
        """End both connections; each thread closes the one it reads, which stays open while another thread reads it."""
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def go_away(self) -> None:
        self.away = True
        for pair in self._pairs:
            self._hang_up(pair)
        self._pairs.clear()

    def close(self) -> None:
        self.go_away()
        self._listener.close()


def behind(place: Any, proxy: Proxy) -> Any:
    """Return the same store, reached through the proxy."""
    through = make_url(place.url).set(host="127.0.0.1", port=proxy.port, query={})
    return replace(place, url=through.render_as_string(hide_password=False))


@pytest.fixture
def proxy(place: Any) -> Iterator[Proxy]:
    if place.kind == "sqlite":
        pytest.skip("a file does not go away")
    url = make_url(place.url)
    made = Proxy(f"{url.query['host']}/.s.PGSQL.{url.port or 5432}")
    yield made
    made.close()


@pytest.mark.parametrize("statement", ["SELECT", "INSERT INTO llc", "COMMIT"])
def test_connection_that_breaks_while_a_result_is_saved(place: Any, proxy: Proxy, statement: str) -> None:
    """A store with patience saves the result once, whether its first look, its row or its commit met the outage."""
    Store.upgrade(place.url)
    broken: list[threading.Timer] = []

    def come_back() -> None:
        proxy.away = False

    def break_once(*_: Any) -> None:
        if not broken:
            broken.append(threading.Timer(1.0, come_back))
            proxy.go_away()
            broken[0].start()

    with place.open() as store, Store.open(behind(place, proxy).url, place.artifacts, patience=60.0) as far:
        if statement == "COMMIT":
            event.listen(far._engine, "commit", break_once)
        else:
            event.listen(far._engine, "before_cursor_execute", lambda *a: a[2].startswith(statement) and break_once())
        saved = save_llc(far)
        assert len(broken) == 1
        assert save_llc(store) == saved


def test_a_store_without_patience_says_that_the_connection_broke(place: Any, proxy: Proxy) -> None:
    Store.upgrade(place.url)
    with Store.open(behind(place, proxy).url, place.artifacts) as store:
        event.listen(store._engine, "before_cursor_execute", lambda *_: proxy.go_away())
        with pytest.raises(UnavailableError):
            save_llc(store)


@pytest.mark.parametrize("seconds", [6, pytest.param(20, marks=pytest.mark.long)])
def test_database_gone_for_seconds(place: Any, proxy: Proxy, start_worker: Any, tmp_path: Path, seconds: int) -> None:
    """The computation goes on, its result is stored when the database is back, and the API says 503 meanwhile."""
    Store.upgrade(place.url)
    away = behind(place, proxy)
    save_inputs(tmp_path / "x.npz")
    path = save_mlp(tmp_path / "a.safetensors", step=1, model="run")
    with place.open() as store, away.open() as far:
        start_worker(at=away)
        job = ask(store, "llc", path, LONG)
        wait(store, job, until=lambda row: (row.fraction or 0) > 0)
        api = httpx.Client(transport=InProcess(create_app(far)), base_url="http://127.0.0.1/api/v1/")
        assert api.get("jobs").status_code == 200
        proxy.go_away()
        time.sleep(1)
        refused = api.get("jobs")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert refused.headers["content-type"] == "application/problem+json"
        assert api.get("health").status_code == 200
        time.sleep(seconds - 1)
        proxy.away = False
        (done,) = wait(store, job)
        assert (done.state, done.attempts, done.interruptions) == ("succeeded", 1, 0)
        assert store.get_llc(done.results[0]["id"]).n_parameters == 83
        assert api.get("jobs").json()["items"][0]["state"] == "succeeded"
        (later,) = wait(store, ask(store, "ledger", path))
        assert later.state == "succeeded"
        assert store.check().ok
