"""What people see of work that goes on: bars on a terminal, lines now and then elsewhere."""

import io
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from interbasis.service.cli import sources
from interbasis.service.records.errors import UnavailableError
from interbasis.service.records.jobs import JobRow, WorkerRow
from interbasis.service.store.store import Store
from interbasis.service.terminal import progress as bars
from interbasis.service.terminal.progress import JobBars, ProgressBars, waiting_hint


@dataclass
class Clock:
    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Report:
    step: str
    done: int
    total: int | None = None
    message: str = ""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(bars, "time", made)
    monkeypatch.setattr(sources, "time", made)
    return made


@pytest.fixture
def job(sqlite_place: Any) -> JobRow:
    with sqlite_place.open() as store:
        model = store.register_model("m", "mlp", {})
        return store.submit("track", model.id)


def worker(alive: bool) -> WorkerRow:
    then = datetime(2026, 1, 1, tzinfo=UTC)
    return WorkerRow(id="w", host="h", pid=1, started=then, heartbeat=then, alive=alive)


def test_redirected_steps_are_told_now_and_then(clock: Clock) -> None:
    out = io.StringIO()
    with ProgressBars(Console(file=out, width=80)) as shown:
        shown.title("net")
        for done in range(100):
            shown.update(Report("moments", done, 100, "some"))
            clock.now += 1
        shown.update(Report("search", 3))
    assert out.getvalue().splitlines() == [
        *(f"net moments: {done} of 100 some" for done in range(10, 100, 10)),
        "net search: 3",
    ]


def test_redirected_jobs_are_told_when_their_state_changes_and_now_and_then(clock: Clock, job: JobRow) -> None:
    out = io.StringIO()
    with JobBars([job], Console(file=out, width=80)) as show:
        for _ in range(3):
            show(job)
        running = replace(job, state="running", step="track")
        for percent in range(40):
            show(replace(running, fraction=percent / 100, message="aligning"))
            clock.now += 1
        show(replace(running, state="succeeded", fraction=1.0, message="aligning"))
    name = f"track {job.id}: "
    assert out.getvalue().splitlines() == [
        f"{name}queued",
        f"{name}running track aligning",
        *(f"{name}running track aligning ({percent} %)" for percent in (11, 22, 33)),
        f"{name}succeeded",
    ]


def test_terminal_gets_bars_and_no_lines(clock: Clock, job: JobRow) -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True)
    with ProgressBars(console) as shown, JobBars([job], console) as show:
        shown.update(Report("moments", 1, 2))
        clock.now += 100
        shown.update(Report("moments", 2, 2))
        show(job)
    assert "moments: " not in out.getvalue()
    assert f"{job.id}: " not in out.getvalue()


@pytest.mark.parametrize(
    ("changes", "workers", "said"),
    [
        ({}, [], "`interbasis worker` on the same store"),
        ({"queue": "night"}, [worker(False)], "`interbasis worker --queue night` on the same store"),
        ({}, [worker(False), worker(True)], None),
        ({"state": "running"}, [], None),
    ],
)
def test_hint_where_nobody_takes_jobs(
    job: JobRow, changes: dict[str, Any], workers: list[WorkerRow], said: str | None
) -> None:
    class Source:
        def workers(self) -> list[WorkerRow]:
            assert job.state == "queued", "workers are asked for where a job waits only"
            return workers

    class Away:
        def workers(self) -> list[WorkerRow]:
            raise UnavailableError("gone")

    job = replace(job, **changes)
    hint = waiting_hint([job], Source())
    assert hint is None if said is None else hint is not None and said in hint
    assert waiting_hint([job], Away()) is None


def test_who_watches_a_job_that_nobody_takes_is_told_once(
    clock: Clock, sqlite_place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    class Patience(Clock):
        """A user who gives up after a minute."""

        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.now > 60:
                store.cancel_job(row.id)

    with pytest.MonkeyPatch.context() as patch, sqlite_place.open() as opened:
        store: Store = opened
        row = store.submit("track", store.register_model("m", "mlp", {}).id)
        patch.setattr(sources, "time", Patience())
        (ended,) = sources.waited(store, [row])
    assert ended.state == "cancelled"
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"track {row.id}: queued"
    assert [line for line in said if "no worker is running" in line] == said[1:2]
    assert said[2:] == [f"track {row.id}: cancelled"]
