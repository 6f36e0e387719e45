"""Jobs: asked for once, run by real processes, not lost by `kill -9`, stopped when they are to stop."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import warm_python
from cases_checkpoints import save_inputs, save_mlp
from cases_jobs import ENDLESS, LONG, ask, wait
from cases_long import POSTGRESQL_FIRST, SQLITE_FIRST
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError

from interbasis.analysis.circuits.experiments import ExperimentRecipe
from interbasis.analysis.errors import InputError
from interbasis.service.jobs import compute
from interbasis.service.jobs import worker as supervisor
from interbasis.service.jobs.child import Child, FailedError
from interbasis.service.jobs.worker import Supervisor
from interbasis.service.records.errors import ArtifactError, ConflictError, NotFoundError, StoreError
from interbasis.service.records.jobs import TASKS
from interbasis.service.storage.tables import Job
from interbasis.service.store.jobs import SILENT
from interbasis.service.store.store import Store
from interbasis.service.tasks import analyze as analyze_task
from interbasis.service.tasks import experiments

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_inputs(tmp_path / "x.npz")
    return save_mlp(tmp_path / "a.safetensors", step=1, model="run")


def children(of: subprocess.Popen[bytes]) -> list[int]:
    """Computing processes that a worker started."""
    path = Path(f"/proc/{warm_python.real(of.pid)}/task")
    return [int(pid) for task in path.iterdir() for pid in (task / "children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


# Asking


def test_same_work_is_one_job(store: Store, checkpoint: Path) -> None:
    first = store.submit("analyze", checkpoint, {"basis": "local", "seed": None}, priority=3)
    assert (first.state, first.run, first.attempts, first.priority, first.error) == ("queued", 1, 0, 3, None)
    assert first.target == store.get_checkpoint("run@1").id
    assert store.submit("analyze", checkpoint, {"basis": "local"}).id == first.id
    assert store.submit("analyze", checkpoint).id != first.id
    assert store.submit("ledger", checkpoint).id != first.id
    assert store.jobs(task="analyze").items[0].id == first.id
    assert store.get_job(first.id[:6]) == first
    assert store.get_checkpoint(first.target).path == str(checkpoint.resolve())
    save_mlp(checkpoint, seed=5, step=1, model="run")
    assert store.submit("analyze", checkpoint, {"basis": "local"}).id != first.id


def test_ended_jobs_are_asked_for_again(store: Store, checkpoint: Path) -> None:
    job = store.submit("analyze", checkpoint)
    with pytest.raises(StoreError, match="is queued: only a job that failed"):
        store.retry_job(job.id)
    assert store.cancel_job(job.id).state == "cancelled"
    assert store.cancel_job(job.id).state == "cancelled"
    again = store.retry_job(job.id)
    assert (again.state, again.run, again.finished) == ("queued", 2, None)
    assert store.begin_job(job.id, 1, "w") is None
    assert store.begin_job(job.id, 2, "w").state == "running"
    store.end_job(job.id, 2, "other", "failed")
    store.end_job(job.id, 2, "w", "succeeded", results=[{"kind": "checkpoint", "id": job.target}])
    done = store.submit("analyze", checkpoint)
    assert (done.state, done.run, done.results) == ("succeeded", 2, ({"kind": "checkpoint", "id": job.target},))


def test_run_that_breaks_down_three_times_has_failed(store: Store, checkpoint: Path) -> None:
    job = store.submit("analyze", checkpoint)
    assert store.begin_job(job.id, 1, "w1").attempts == 1
    for attempt in (2, 3):
        assert store.begin_job(job.id, 1, "w1", error=f"died {attempt}").attempts == attempt
    assert store.begin_job(job.id, 1, "w1", error="died again") is None
    failed = store.get_job(job.id)
    assert failed.state == "failed"
    assert failed.error == "given up after 3 attempts; the last error was:\ndied again"


def test_workers_that_go_away_are_counted_apart(store: Store, checkpoint: Path) -> None:
    job = store.submit("analyze", checkpoint)
    for n in range(21):
        row = store.begin_job(job.id, 1, f"w{n}")
        assert (row.attempts, row.interruptions, row.worker) == (1, n, f"w{n}")
    assert not store.report_job(job.id, "w1", step="load", fraction=None, message="", remaining=None)
    assert store.begin_job(job.id, 1, "w") is None
    assert "20 workers went away" in store.get_job(job.id).error


def test_run_that_was_done_while_its_worker_stopped_has_ended(store: Store, checkpoint: Path) -> None:
    job = store.submit("analyze", checkpoint)
    store.mark_enqueued(job.id, 1)
    store.begin_job(job.id, 1, "w")
    store.give_back_job(job.id, "w")
    assert store.get_job(job.id).state == "queued"
    store.end_job(job.id, 1, "w", "succeeded", results=[{"kind": "checkpoint", "id": job.target}])
    assert store.get_job(job.id).state == "succeeded"
    again = store.retry_job(store.cancel_job(store.submit("ledger", checkpoint).id).id)
    store.end_job(again.id, 2, "w", "succeeded")  # it was never begun
    assert store.get_job(again.id).state == "queued"


def test_errors_hold_what_databases_take(store: Store, checkpoint: Path) -> None:
    job = store.submit("analyze", checkpoint)
    store.begin_job(job.id, 1, "w")
    assert store.begin_job(job.id, 1, "w", error="tensor 'a\0b'") is not None
    assert store.report_job(job.id, "w", step="load", fraction=None, message="\ud800", remaining=None)
    store.end_job(job.id, 1, "w", "failed", error="a\0b \udfff")
    assert store.get_job(job.id).error == "a\ufffdb \ufffd"


def test_tracking_is_of_the_graphs_as_they_are(store: Store, tmp_path: Path) -> None:
    data = save_inputs(tmp_path / "x.npz", 8)
    for step in (1, 2):
        path = save_mlp(tmp_path / f"{step}.safetensors", seed=step, step=step, model="run", blocks=2)
        analyze_task.analyze(store, path, {"resolution": 1.0}, data=data)
    first = store.submit("track", "run")
    assert store.submit("track", "run").id == first.id
    graph = store.graphs().items[0].id
    assert store.submit("track", "run", {"like": graph[:6]}).choices == {"like": graph}
    with pytest.raises(NotFoundError):
        store.submit("track", "run", {"like": "g-none"})
    store._write(lambda session: session.execute(text("UPDATE graph SET graph_sha256 = bases_sha256")))
    assert store.submit("track", "run").id != first.id


def test_running_job_is_told_to_stop(store: Store, checkpoint: Path) -> None:
    job = store.submit("analyze", checkpoint)
    store.begin_job(job.id, 1, "w")
    assert store.report_job(job.id, "w", step="load", fraction=0.5, message="half", remaining=2.0)
    assert store.cancel_job(job.id).state == "running"
    assert not store.report_job(job.id, "w", step="load", fraction=0.6, message="", remaining=1.0)
    assert store.get_job(job.id).message == "half"
    assert store.begin_job(job.id, 1, "w2") is None
    assert store.get_job(job.id).state == "cancelled"


def test_senseless_requests_are_refused(store: Store, checkpoint: Path, tmp_path: Path) -> None:
    for call, said in (
        (lambda: store.submit("train", checkpoint), "no task 'train'"),
        (lambda: store.submit("analyze", tmp_path / "none.safetensors"), "cannot read"),
        (lambda: store.submit("analyze", checkpoint, timeout=0), "timeout is 0"),
        (
            lambda: store.submit("llc", checkpoint, {"speed": 3}),
            "llc has no choice speed: did you mean seed or seeds. it has batch_size, chains",
        ),
        (lambda: store.submit("analyze", checkpoint, queue="a b"), "queue is 'a b'"),
        (lambda: store.submit("analyze", checkpoint, priority=2000), "priority is 2000"),
        (lambda: store.jobs(state="lost"), "no state 'lost'"),
    ):
        with pytest.raises(StoreError, match=said):
            call()
    for call in (lambda: store.submit("partition", "g-x"), lambda: store.get_job("j-x")):
        with pytest.raises(NotFoundError):
            call()


def test_silent_workers_are_found(store: Store) -> None:
    store.beat("a")
    store.beat("b")
    assert store.silent_workers(60) == []
    store.retire("a")
    assert store.silent_workers(60) == ["a"]
    store.forget_worker("a")
    assert store.silent_workers(-60) == ["b"]


class Reports:
    """A computing process that says what it is told to, a report a second by its own clock, and answers."""

    begun = 0.0

    def __init__(self, reports: list[tuple[str, float | None]]) -> None:
        self.reports, self.now = reports, 0.0

    def monotonic(self) -> float:
        return self.now

    def run(self, _step: str, _before: Any, *, go_on: Callable[[Any], bool]) -> dict[str, Any]:
        for phase, fraction in self.reports:
            self.now += 1
            assert go_on({"phase": phase, "fraction": fraction, "message": phase})
        return {}


def test_time_left_is_that_of_the_phase(store: Store, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new phase starts the clock again, and the end of one is not the end of the step."""
    row = store.begin_job(store.submit("analyze", checkpoint).id, 1, "w")
    assert row is not None
    seen: list[tuple[float | None, float | None]] = []

    def note(*_: Any, fraction: float | None, remaining: float | None, **__: Any) -> bool:
        seen.append((fraction, remaining))
        return True

    monkeypatch.setattr(store, "report_job", note)
    phases = [("moments", 0.0), ("moments", 0.5), ("moments", 1.0), ("basis", 0.0), ("basis", 0.1), ("basis", 0.2)]
    phases += [("basis", 0.2), ("basis", 0.0), ("basis", 0.5), ("search", None), ("search", 1.0)]
    child = Reports(phases)
    monkeypatch.setattr(supervisor, "time", child)
    Supervisor(store, name="w")._step(row, child, "basis", {})  # type: ignore[arg-type]
    assert [fraction for fraction, _ in seen] == [fraction for _, fraction in phases]
    left = {n: remaining for n, (_, remaining) in enumerate(seen) if remaining is not None}
    assert left == pytest.approx({1: 1.0, 4: 9.0, 5: 8.0, 6: 12.0, 8: 1.0})


class Refusing:
    """An engine that does not take some jobs, gives up others, and does not know the rest."""

    def __init__(self, refused: str, gone: str) -> None:
        self.refused, self.gone, self.taken = refused, gone, []

    def enqueue(self, _queue: str, job: str, _run: int, _priority: int) -> None:
        if job == self.refused:
            raise KeyError("no such queue")
        self.taken.append(job)

    def given_up(self, runs: list[tuple[str, int]]) -> dict[tuple[str, int], str | None]:
        return {run: "starting it raised" if run[0] == self.gone else None for run in runs}


def test_job_that_cannot_be_started_fails_with_the_reason(store: Store, checkpoint: Path) -> None:
    """None stays queued for ever: what the engine gave up fails, what it does not know is told to it again."""
    refused, gone, unknown, mine, other = (store.submit("ledger", checkpoint, {"seed": n}) for n in range(5))
    store.beat("elsewhere")
    for job, name in ((mine, "w"), (other, "elsewhere")):
        store.begin_job(job.id, 1, name)
        store.mark_enqueued(job.id, 1)
    engine, looking = Refusing(refused.id, gone.id), Supervisor(store, name="w")
    for job in store.waiting_jobs():
        looking._enqueue(engine, job)  # type: ignore[arg-type]
    assert engine.taken == [gone.id, unknown.id]
    assert "refused it: KeyError: 'no such queue'" in str(store.get_job(refused.id).error)
    looking._running[mine.id] = None  # type: ignore[assignment]
    looking._find_lost(engine)  # type: ignore[arg-type]
    states = {job.id: store.get_job(job.id).state for job in (refused, gone, unknown, mine, other)}
    assert list(states.values()) == ["failed", "failed", "queued", "running", "running"]
    assert store.get_job(gone.id).error == "it could not be started: starting it raised"
    assert [job.id for job in store.waiting_jobs()] == [unknown.id]


def test_run_that_cannot_begin_fails(store: Store, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, childless = (store.submit("ledger", checkpoint, {"seed": n}) for n in (0, 1))

    def fail(*_: Any) -> None:
        raise ValueError("odd row")

    looking = Supervisor(store, name="w")
    monkeypatch.setattr(looking, "_child", fail)
    with pytest.raises(ValueError, match="odd row"):
        looking._workflow(childless.id, 1, lambda _, work: work())
    monkeypatch.setattr(store, "begin_job", fail)
    with pytest.raises(ValueError, match="odd row"):
        looking._workflow(broken.id, 1, lambda _, work: work())
    for job in (broken, childless):
        row = store.get_job(job.id)
        assert (row.state, "ValueError: odd row" in str(row.error)) == ("failed", True)
    assert looking._running == {}


def test_errors_of_a_step_say_whether_to_try_again(store: Store) -> None:
    """And hold no traceback, nor where the store lies."""
    place = str(store.location.artifacts)
    for error, final in [
        (InputError("no such cut"), True),
        (ConflictError("another config"), True),
        (TypeError("bad operand"), True),
        (MemoryError(), False),
        (RuntimeError("out of memory"), False),
        (ArtifactError(f"cannot write artifacts in {place}: No space left"), False),
    ]:
        answer = compute._failure(error, store)
        assert answer["final"] is final, error
        assert "Traceback" not in answer["error"]
        assert place not in answer["error"]


# Running, in real processes


@POSTGRESQL_FIRST
def test_every_task_is_done_and_equals_what_is_computed_here(
    store: Store, checkpoint: Path, start_worker: Start
) -> None:
    start_worker()
    save_mlp(checkpoint.with_name("b.safetensors"), seed=1, step=2, model="run")
    analyses = [ask(store, "analyze", checkpoint.with_name(f"{name}.safetensors")) for name in "ab"]
    done = wait(store, *analyses)
    graphs, partitions = zip(*([result["id"] for result in job.results] for job in done), strict=True)
    cuts = store.get_graph(graphs[0]).cuts
    labels = {f"{cuts[node.cut]}/{node.coordinate}": node.coordinate % 2 for node in store.nodes(partitions[0])}
    others = [
        ask(store, "partition", graphs[0], {"objective": "layered_cpm"}),
        ask(store, "partition", graphs[0], {"labels": labels}),
        ask(store, "ledger", checkpoint),
        ask(store, "llc", checkpoint, {"temperature": 1000.0, "draws": 20, "warmup": 9}),
        ask(store, "track", "run", {"data": checkpoint.with_name("x.npz")}),
        ask(store, "experiment", partitions[0], {"kind": "epsilon", "draws": 1, "data": checkpoint.with_name("x.npz")}),
    ]
    rest = wait(store, *others)
    for job in (*done, *rest):
        assert (job.state, job.attempts, job.error, job.worker) == ("succeeded", 1, None, "w1"), job
        assert job.step == TASKS[job.task][-1]
        assert job.started < job.finished
    assert [job.results[0]["kind"] for job in rest] == [
        "partition",
        "partition",
        "ledger",
        "llc",
        "tracking",
        "experiment",
    ]
    assert store.get_partition(rest[1].results[0]["id"]).n_modules == 2
    experiment, divided = (result["id"] for result in rest[5].results)
    assert list(store.get_partition(divided).epsilons) == store.get_experiment(experiment).summary["epsilon"]
    reports: list[object] = []
    bisected = experiments.experiment(  # the same measurements, which are not made again
        store,
        partitions[0],
        ExperimentRecipe(kind="bisect", draws=1),
        data=checkpoint.with_name("x.npz"),
        progress=reports.append,
    )
    assert (bisected.experiment, bisected.summary, reports) == ("bisect", store.get_experiment(experiment).summary, [])
    here = analyze_task.analyze(store, checkpoint, {}, data=checkpoint.with_name("x.npz"), force=True)
    assert (here.graph.id, here.partition.id) == (graphs[0], partitions[0])
    assert here.graph.graph_sha256 == store.get_graph(graphs[0]).graph_sha256
    assert store.get_llc(rest[3].results[0]["id"]).n_parameters == 83


def test_killed_worker_goes_on_from_its_step(store: Store, checkpoint: Path, start_worker: Start) -> None:
    process = start_worker()
    job = ask(store, "llc", checkpoint, LONG)
    wait(store, job, until=lambda row: (row.fraction or 0) > 0)
    (computing,) = children(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 300
    while alive(computing):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert store.get_job(job.id).state == "running"
    start_worker()
    (done,) = wait(store, job)
    assert (done.state, done.attempts, done.interruptions) == ("succeeded", 1, 1)


@pytest.mark.long
@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_job_of_a_dead_worker_is_taken_over_by_another(store: Store, checkpoint: Path, start_worker: Start) -> None:
    """Of another name, which goes by the silence of the first alone."""
    process = start_worker("w1")
    job = ask(store, "llc", checkpoint, LONG)
    wait(store, job, until=lambda row: (row.fraction or 0) > 0)
    assert store.get_job(job.id).worker == "w1"
    process.kill()
    process.wait()
    killed = time.monotonic()
    start_worker("w2")
    (taken,) = wait(store, job, until=lambda row: row.worker == "w2")
    assert time.monotonic() - killed > SILENT - 5
    assert (taken.state, taken.interruptions) == ("running", 1)
    (done,) = wait(store, job)
    assert (done.state, done.worker, done.attempts, done.interruptions) == ("succeeded", "w2", 1, 1)
    assert [row.id for row in store.llcs().items] == [done.results[0]["id"]]
    assert [row.id for row in store.workers()] == ["w2"]
    assert store.check().ok


@POSTGRESQL_FIRST
def test_experiment_that_is_stopped_midway_leaves_nothing(store: Store, checkpoint: Path, start_worker: Start) -> None:
    data = checkpoint.with_name("x.npz")
    partition = analyze_task.analyze(store, checkpoint, {}, data=data).partition.id
    files = set(store.blobs.list())
    process = start_worker()
    job = store.submit("experiment", partition, {"kind": "faithfulness", "draws": 500, "data": data})

    def nothing_stored() -> bool:
        return (store.experiments().items, store.collect(grace=0.0).files, set(store.blobs.list())) == ((), (), files)

    wait(store, job, until=lambda row: (row.fraction or 0) > 0)
    store.cancel_job(job.id)
    (stopped,) = wait(store, job)
    assert (stopped.state, stopped.results) == ("cancelled", ())
    assert nothing_stored()
    store.retry_job(job.id)
    wait(store, job, until=lambda row: row.state == "running" and (row.fraction or 0) > 0)
    computing = children(process)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 300
    while any(alive(pid) for pid in computing):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert store.get_job(job.id).state == "running"
    assert nothing_stored()
    start_worker()
    (done,) = wait(store, job)
    assert (done.state, done.run, done.attempts, done.interruptions) == ("succeeded", 2, 1, 1)
    (row,) = store.experiments().items
    assert done.results == ({"kind": "experiment", "id": row.id},)
    assert set(store.blobs.list()) - files == {row.experiment_sha256}
    report = store.check()
    assert (report.ok, report.uncollected) == (True, ())


def done_steps(store: Store) -> dict[str, str]:
    """Steps that the engine knows to be done, and what each returned, with the seconds it took."""
    schema = "dbos." if store.location.file is None else ""
    query = text(f"SELECT function_name, output FROM {schema}operation_outputs")
    with store._engine.connect() as connection:
        try:
            return {str(name): str(output) for name, output in connection.execute(query)}
        except DBAPIError:
            return {}  # the worker has not made its tables yet


@SQLITE_FIRST
def test_steps_that_are_done_are_not_done_again(store: Store, checkpoint: Path, start_worker: Start) -> None:
    process = start_worker()
    job = ask(store, "analyze", checkpoint)
    deadline = time.monotonic() + 300
    while "basis" not in (before := done_steps(store)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    start_worker()
    (done,) = wait(store, job)
    assert (done.state, done.attempts) == ("succeeded", 1)
    assert before.items() <= done_steps(store).items()
    assert store.check().ok


def test_steps_make_again_what_was_collected(store: Store, checkpoint: Path, tmp_path: Path) -> None:
    """`db gc` takes files of unfinished jobs that are older than a day."""
    job = ask(store, "analyze", checkpoint)
    before: dict[str, Any] = {}
    collected = []
    for step in TASKS["analyze"]:
        steps = compute.Steps(store, job.to_json(), lambda _: None)  # as after an interruption: nothing is in memory
        with steps.files():
            before[step] = steps.take(step, before)
        if step in ("basis", "graph"):
            collected.append(len(store.collect(grace=0.0).files))
    assert collected == [1, 1]
    with Store.open(str(tmp_path / "calm.sqlite")) as calm:
        expected = analyze_task.analyze(calm, checkpoint, {}, data=tmp_path / "x.npz")
    assert store.get_graph(before["store"]["results"][0]["id"]).graph_sha256 == expected.graph.graph_sha256
    assert store.check().ok


@POSTGRESQL_FIRST
def test_queue_has_its_number_and_its_order(store: Store, checkpoint: Path, place: Any, python: str) -> None:
    """Two at a time, the smallest priority first; a worker without a number leaves the queue's as it is."""
    priorities = [3, -2, 0, 5, -7, 1]
    jobs = [
        ask(store, "llc", checkpoint, {"temperature": 1000.0, "draws": 30, "warmup": 20, "seed": n}, priority=priority)
        for n, priority in enumerate(priorities)
    ]
    most = 0
    with working(python, place, "w1", "--queue", "default=2") as process:
        while not all((rows := [store.get_job(job.id) for job in jobs])[n].ended for n in range(len(jobs))):
            most = max(most, sum(row.state == "running" for row in rows))
            assert process.poll() is None
            time.sleep(0.05)
    assert {row.state for row in rows} == {"succeeded"}
    assert most == 2
    started = sorted(rows, key=lambda row: row.started)
    pairs = [sorted(row.priority for row in started[n : n + 2]) for n in (0, 2, 4)]  # two begin at the same moment
    assert pairs == [[-7, -2], [0, 1], [3, 5]]
    jobs = [ask(store, "llc", checkpoint, {**ENDLESS, "seed": n}) for n in (10, 11, 12)]
    with working(python, place, "w2"):
        deadline = time.monotonic() + 300
        while sum(store.get_job(job.id).state == "running" for job in jobs) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for job in jobs:
            store.cancel_job(job.id)
        wait(store, *jobs)


@SQLITE_FIRST
def test_worker_of_the_gpu_queue(store: Store, checkpoint: Path, place: Any, python: str) -> None:
    """It takes the jobs of its queue alone; its device is no choice of theirs."""
    job, other = ask(store, "ledger", checkpoint, queue="gpu"), ask(store, "analyze", checkpoint)
    with working(python, place, "gpu-1", "--queue", "gpu=1", "--device", "auto"):
        (done,) = wait(store, job)
    assert (done.state, done.worker, "device" in done.choices) == ("succeeded", "gpu-1", False)
    assert store.get_job(other.id).state == "queued"


@SQLITE_FIRST
def test_worker_without_its_device_or_memory_does_no_job(
    store: Store, checkpoint: Path, place: Any, python: str
) -> None:
    absent = "mps" if torch.cuda.is_available() else "cuda"
    with working(python, place, "gpu-1", "--device", absent) as process:
        assert process.wait(timeout=120) == 2
        assert f"there is no device '{absent}'" in process.stderr.read().decode()
    job = ask(store, "ledger", checkpoint)
    for device, memory, said in (
        (absent, None, f"there is no device '{absent}'"),
        (None, "1KiB", "of memory, and 0 MiB"),
    ):
        child = Child(place.url, place.artifacts, device, memory)  # as a worker would start it
        try:
            child.begin(job.to_json())
            with pytest.raises(FailedError, match=said):
                child.run("ledger", {}, go_on=lambda _: True)
        finally:
            child.close()


def test_second_worker_of_a_name_is_refused(store: Store, place: Any, python: str) -> None:
    with working(python, place, "w1"):
        deadline = time.monotonic() + 300
        while not store.workers():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for name in ("w1", "w2") if place.kind == "sqlite" else ("w1",):
            with working(python, place, name) as second:
                assert second.wait(timeout=120) == 2
                said = second.stderr.read().decode()
            assert "worker w1 is running on" in said
            assert ("another --name" if name == "w1" else "SQLite takes one worker") in said


@contextmanager
def working(python: str, place: Any, name: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker with options of its own."""
    command = [python, "-m", "interbasis.service.cli", "worker", "--name", name, *options]
    command += ["--store", place.url, "--artifacts", place.artifacts]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@SQLITE_FIRST
def test_cancel_stops_the_computation(store: Store, checkpoint: Path, start_worker: Start) -> None:
    process = start_worker()
    job = ask(store, "llc", checkpoint, ENDLESS)
    wait(store, job, until=lambda row: (row.fraction or 0) > 0)
    assert children(process)
    store.cancel_job(job.id)
    (stopped,) = wait(store, job)
    assert stopped.state == "cancelled"
    assert not children(process)
    assert not store.llcs().items
    short = ask(store, "ledger", checkpoint)
    assert wait(store, short)[0].state == "succeeded"


def test_timeout_kills(store: Store, checkpoint: Path, start_worker: Start) -> None:
    process = start_worker()
    job = ask(store, "llc", checkpoint, ENDLESS, timeout=2)
    (stopped,) = wait(store, job)
    assert stopped.state == "failed"
    assert "timeout of 2 s" in stopped.error
    assert not children(process)


@SQLITE_FIRST
def test_bad_input_fails_once_and_says_why(store: Store, checkpoint: Path, start_worker: Start) -> None:
    """Also choices of a type that an earlier version took."""
    wrong = [ask(store, "analyze", checkpoint, {"cuts": ["layers.9"]}), ask(store, "ledger", checkpoint)]
    old = update(Job).where(Job.id == wrong[1].id).values(choices={"epsilon": "small"})
    store._write(lambda session: session.execute(old))
    start_worker()
    first, second = wait(store, *wrong)
    assert (first.state, first.attempts) == (second.state, second.attempts) == ("failed", 1)
    assert "layers.9" in first.error
    assert second.error == "ledger: epsilon is 'small', expected a number above 0"


def test_computing_process_that_dies_is_replaced_three_times(
    store: Store, checkpoint: Path, start_worker: Start
) -> None:
    process = start_worker()
    job = ask(store, "llc", checkpoint, ENDLESS)
    for attempt in (1, 2, 3):
        wait(store, job, until=lambda row, n=attempt: row.attempts == n and children(process) != [])
        os.kill(children(process)[0], signal.SIGKILL)
        wait(store, job, until=lambda row, n=attempt: row.ended or row.attempts > n)
    (failed,) = wait(store, job)
    assert failed.state == "failed"
    assert "given up after 3 attempts" in failed.error
    assert "SIGKILL" in failed.error


@SQLITE_FIRST
def test_end_of_every_job_is_logged(store: Store, checkpoint: Path, place: Any, python: str) -> None:
    with working(python, place, "w1", "--log", "json") as process:
        late = ask(store, "llc", checkpoint, ENDLESS, timeout=2)
        wait(store, late)
        stopped = ask(store, "llc", checkpoint, {**ENDLESS, "seed": 1})
        wait(store, stopped, until=lambda row: (row.fraction or 0) > 0)
        store.cancel_job(stopped.id)
        done, wrong = ask(store, "ledger", checkpoint), ask(store, "analyze", checkpoint, {"cuts": ["layers.9"]})
        wait(store, stopped, done, wrong)
        process.terminate()
        said = process.stderr.read().decode().splitlines()
    logged = [json.loads(line) for line in said]
    assert logged[0]["message"].startswith("worker w1 on ")
    ends = {entry["job_id"]: entry for entry in logged if "state" in entry}
    assert {job: entry["state"] for job, entry in ends.items()} == {
        late.id: "failed",
        stopped.id: "cancelled",
        done.id: "succeeded",
        wrong.id: "failed",
    }
    assert ends[late.id]["message"] == f"job {late.id} timed out: stopped after its timeout of 2 s in step llc"
    assert ends[late.id]["timed_out"]
    assert ends[stopped.id]["message"] == f"job {stopped.id} cancelled"
    assert "layers.9" in ends[wrong.id]["message"]
    assert "timed_out" not in ends[done.id]
    assert ends[done.id]["results"] == [store.ledgers().items[0].id]


@POSTGRESQL_FIRST
def test_worker_that_is_told_to_stop_gives_its_job_back(store: Store, checkpoint: Path, start_worker: Start) -> None:
    process = start_worker()
    job = ask(store, "llc", checkpoint, LONG)
    wait(store, job, until=lambda row: (row.fraction or 0) > 0)
    process.terminate()
    assert process.wait(timeout=300) == 0
    left = store.get_job(job.id)
    assert (left.state, left.worker) == ("queued", None)
    start_worker()
    (done,) = wait(store, job)
    assert (done.state, done.attempts, done.interruptions) == ("succeeded", 1, 0)
