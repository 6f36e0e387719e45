"""`kill -9` of the API, the workers and the computing processes while jobs run: no job and no result is lost."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import warm_python
from cases_checkpoints import save_inputs, save_mlp
from cases_long import POSTGRESQL_FIRST

from interbasis.service.client.client import Client
from interbasis.service.records.errors import UnavailableError
from interbasis.service.store.store import Store
from interbasis.service.tasks import analyze as analyze_task

Start = Callable[..., subprocess.Popen[bytes]]
TARGETS = ("w1", "api", "child", "w2", "api", "w1")


@pytest.fixture
def start_api(place: Any, python: str, tmp_path: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[bytes], str]]]:
    """Starts `interbasis serve` without workers, each time at the same address."""
    started: list[subprocess.Popen[bytes]] = []
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def begin() -> tuple[subprocess.Popen[bytes], str]:
        command = [python, "-m", "interbasis.service.cli", "serve", "--workers", "0", "--port", str(port)]
        command += ["--store", place.url, "--artifacts", place.artifacts, "--root", str(tmp_path)]
        with (tmp_path / "api.log").open("ab") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
        return started[-1], f"http://127.0.0.1:{port}"

    yield begin
    for process in started:
        process.kill()
        process.wait()


def patiently(call: Callable[[], Any]) -> Any:
    """What a request gives, asked for again while the API is away."""
    deadline = time.monotonic() + 300
    while True:
        try:
            return call()
        except UnavailableError:
            assert time.monotonic() < deadline


def computing(workers: dict[str, subprocess.Popen[bytes]]) -> list[int]:
    tasks = [
        task for process in workers.values() for task in Path(f"/proc/{warm_python.real(process.pid)}/task").iterdir()
    ]
    return [int(pid) for task in tasks if task.exists() for pid in (task / "children").read_text().split()]


@POSTGRESQL_FIRST
def test_kill_9_loses_nothing(
    place: Any, store: Store, start_worker: Start, start_api: Callable[..., Any], tmp_path: Path
) -> None:
    chance = random.Random(0)
    data = save_inputs(tmp_path / "x.npz")
    paths = [save_mlp(tmp_path / f"{n}.safetensors", seed=n, step=n, model="run") for n in (1, 2)]
    names = ("w1",) if place.kind == "sqlite" else ("w1", "w2")
    workers = {name: start_worker(name) for name in names}
    api, url = start_api()
    wanted: list[tuple[str, Any, dict[str, Any]]] = [("analyze", path, {}) for path in paths]
    wanted += [("llc", paths[0], {"temperature": 1000.0, "draws": 2000, "warmup": 9})]  # runs when it is killed
    wanted += [("llc", paths[1], {"temperature": 1000.0, "draws": 50, "warmup": 9})]
    wanted += [("ledger", path, {}) for path in paths]
    jobs: list[str] = []
    with Client(url) as client:
        for target, (task, path, choices) in zip(TARGETS, wanted, strict=True):
            given = {"data": data, **choices}
            asked = patiently(lambda task=task, path=path, given=given: client.submit(task, path, given))
            jobs.append(asked.id)
            time.sleep(chance.uniform(0.2, 1.5))
            if target == "api":
                os.kill(warm_python.real(api.pid), signal.SIGKILL)
                api.wait()  # until its port is free
                api, _ = start_api()
            elif target == "child":
                deadline = time.monotonic() + 300
                while patiently(lambda: client.get_job(jobs[-1])).fraction is None:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                for pid in computing(workers):
                    os.kill(pid, signal.SIGKILL)
            else:
                name = target if target in workers else "w1"
                workers[name].kill()
                workers[name].wait()
                workers[name] = start_worker(name)
        deadline = time.monotonic() + 300
        while True:
            rows = [patiently(lambda job=job: client.get_job(job)) for job in jobs]
            if all(row.ended for row in rows):
                break
            assert time.monotonic() < deadline, rows
            time.sleep(0.2)
        assert [(row.state, row.error) for row in rows] == [("succeeded", None)] * len(wanted)
        killed = rows[TARGETS.index("child")]
        assert killed.attempts + killed.interruptions > 1
        assert store.count_jobs()["succeeded"] == len(wanted)
        made = [[(result["kind"], result["id"]) for result in row.results] for row in rows]
        assert {graph.id for graph in client.graphs().items} == {made[0][0][1], made[1][0][1]}
    counts = [len(page.items) for page in (store.graphs(), store.partitions(), store.ledgers(), store.llcs())]
    assert counts == [2, 2, 2, 2]
    report = store.check()
    assert report.ok, report.problems
    assert all("unfinished" in line for line in report.uncollected)
    here = analyze_task.analyze(store, paths[0], {}, data=data)
    stored = store.get_graph(made[0][0][1]).graph_sha256
    with Store.open(str(tmp_path / "peace.sqlite")) as calm:
        again = analyze_task.analyze(calm, paths[0], {}, data=data)
    assert (here.graph.id, again.graph.graph_sha256) == (made[0][0][1], stored)
