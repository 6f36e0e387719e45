"""What people see of work that goes on: bars on a terminal, lines now and then elsewhere."""

import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cases_rows import job as job_row
from cases_rows import worker as worker_row
from rich.cells import cell_len
from rich.console import Console

from interbasis.service.cli import backends
from interbasis.service.records.errors import UnavailableError
from interbasis.service.records.jobs import JobRow, WorkerRow
from interbasis.service.store.store import Store
from interbasis.service.terminal import progress as bars
from interbasis.service.terminal.course import Course
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
    monkeypatch.setattr(backends, "time", made)
    return made


@pytest.fixture
def job() -> JobRow:
    return job_row()


def test_redirected_steps_are_told_once_each_if_they_take_long(clock: Clock) -> None:
    out = io.StringIO()
    with ProgressBars(Console(file=out, width=80)) as shown:
        shown.title("net")
        shown.update(Report("quick", 1, 1))
        for step in ("moments", "search"):
            for done in range(100):
                shown.update(Report(step, done, 100, "some"))
                clock.now += 1
    assert out.getvalue().splitlines() == ["net moments (about 1 min left)", "net search (about 50 s left)"]


def test_redirected_jobs_are_told_when_their_state_or_step_changes(clock: Clock, job: JobRow) -> None:
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
        ({"queue": "night"}, [worker_row(alive=False)], "`interbasis worker --queue night` on the same store"),
        ({}, [worker_row(alive=False), worker_row()], None),
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
        store.register_model("m", "mlp", {})
        row = store.submit("track", store.add_checkpoint("m", sha256="0" * 64).run)
        patch.setattr(backends, "time", Patience())
        (ended,) = backends.waited(store, [row])
    assert ended.state == "cancelled"
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"track {row.id}: queued"
    assert [line for line in said if "no worker is running" in line] == said[1:2]
    assert said[2:] == [f"track {row.id}: cancelled"]


# What a terminal shows


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Console], None]], list[str]]:
    """The lines that something draws on a terminal of 80 columns, without codes for colours and the cursor."""
    monkeypatch.setenv("TERM", "xterm")

    def drawn(draw: Callable[[Console], None]) -> list[str]:
        file = io.StringIO()
        draw(Console(file=file, width=80, force_terminal=True, markup=False, emoji=False))
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue()).replace("\r", "\n")
        found = [line.rstrip() for line in text.splitlines() if line.strip()]
        assert max(map(cell_len, found), default=0) <= 80
        return found

    return drawn


Frames = Callable[[Callable[[Console], None]], list[str]]


def steps(reports: Iterable[Report], title: str = "") -> Callable[[Console], None]:
    def draw(console: Console) -> None:
        with ProgressBars(console) as shown:
            shown.title(title)
            for report in reports:
                shown.update(report)

    return draw


def jobs(rows: Iterable[JobRow], changes: Iterable[JobRow] = (), said: str = "") -> Callable[[Console], None]:
    def draw(console: Console) -> None:
        with JobBars(list(rows), console) as show:
            for row in changes:
                show(row)
            if said:
                show.say(said)

    return draw


@pytest.mark.parametrize(
    ("report", "name", "rest"),
    [
        (Report("moments", 3, 10, "rank 5"), "net moments ", ["30%", "rank 5"]),
        (Report("search", 7), "net search ", ["0%"]),
        (Report("graph", 0, 0), "net graph ", ["0%"]),
        (Report("[red]basis", 10, 10, "[b]all :tiger:"), "net [red]basis ", ["100%", "[b]all :tiger:"]),
    ],
)
def test_phase_has_its_name_a_bar_a_share_and_what_it_found(
    frames: Frames, report: Report, name: str, rest: list[str]
) -> None:
    last = frames(steps([report], "net"))[-1]
    assert last.startswith(name)
    assert all(part in last for part in rest)


@pytest.mark.parametrize("message", ["x " * 200, "y" * 300, "数学" * 100])
def test_long_messages_leave_room_for_name_bar_and_share(frames: Frames, message: str) -> None:
    last = frames(steps([Report("moments", 3, 10, message)], "net"))[-1]
    assert last.startswith("net moments ")
    assert last.count("━") > 15
    assert " 30%" in last
    assert last.endswith("…")


def test_one_bar_goes_through_all_phases(frames: Frames) -> None:
    found = frames(steps([Report("moments", 2, 2), Report("search", 1, 4)]))
    assert found[-1].startswith("search ")
    assert "moments" not in found[-1]
    again = [Report("warm-up", 1, 2), Report("sampling", 1, 2), Report("warm-up", 1, 2)]
    assert frames(steps(again))[-1].startswith("warm-up, round 2 ")


def test_targets_are_counted(frames: Frames) -> None:
    def draw(console: Console) -> None:
        with ProgressBars(console) as shown:
            shown.begin("partition", 2)
            shown.title("a")
            shown.update(Report("modules", 1, 2))
            shown.title("b", 2)
            shown.update(Report("modules", 1, 2))

    assert frames(draw)[-1].startswith("b (2 of 2) modules ")


# The estimate of the time


def test_time_of_later_targets_is_that_of_the_first() -> None:
    course = Course("partition", 3)
    shares = []
    for target in range(3):
        if target:
            course.next_target(10.0 * target)
        for done in range(11):
            course.note("modules", done / 10, 10.0 * target + done)
            shares.append(course.share(10.0 * target + done))
        assert course.remaining(10.0 * (target + 1)) == pytest.approx(10.0 * (2 - target))
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(0.999)


def test_several_tasks_are_one_course() -> None:
    """Each has phases of its own; a task without a plan takes some seconds."""
    course, now = Course(("partition", "experiment predict", "partition"), 3), 0.0
    assert course.remaining(0.0) == pytest.approx(2.7 + 3.0 + 2.7)
    shares = []
    for step in ("modules", "losses", "modules"):
        if now:
            course.next_target(now)
        for done in range(11):
            course.note(step, done / 10, now + done / 10)
            shares.append(course.share(now + done / 10))
        now += 1.0
    assert shares == sorted(shares)
    assert (course.remaining(now), shares[-1]) == (pytest.approx(0.0), pytest.approx(0.999))
    assert shares[10] < 0.5, "a third of the work is not the whole"


def test_second_round_is_expected_to_take_as_long_as_the_first() -> None:
    course, now = Course("llc"), 0.0
    for step, seconds in (("Hessian", 1), ("warm-up", 2), ("warm-up", 2), ("warm-up", 2), ("sampling", 20)):
        for done in range(11):
            course.note(step, done / 10, now + seconds * done / 10)
        now += seconds
    assert course.remaining(now) == pytest.approx(0.0)
    before = course.share(now)
    course.note("warm-up", 0.0, now)
    course.note("warm-up", 0.5, now + 1)
    assert course.round == 2
    assert course.remaining(now + 1) == pytest.approx(1 + 2 + 2 + 20)
    assert course.share(now + 1) == before, "it waits rather than goes back"


def test_parts_of_a_target_are_expected_to_take_as_long_as_the_last_one() -> None:
    course, now = Course("llc", 2), 0.0
    warmup = [("warm-up", 1.0)] * 3
    first = [("Hessian", 2.0), *warmup, ("sampling", 5.0), *warmup, ("sampling", 7.0)]
    other = [*warmup, ("sampling", 2.0)]
    left = []
    for part, phases in enumerate((first, other, other, other), 1):
        for step, seconds in phases:
            for done in range(11):
                course.note(f"part {part}/4, {step}", done / 10, now + seconds * done / 10)
            now += seconds
        left.append(course.remaining(now))
        assert course.round == (2 if part == 1 else 1)
    assert left[0] == pytest.approx((3 + 4) * 20)
    assert left[0] > left[1] > left[2]
    assert left[2:] == pytest.approx([(1 + 4) * 5, 4 * 5])
    course.next_target(now)
    course.note("part 1/4, warm-up", 0.0, now)
    assert course.remaining(now) == pytest.approx(4 * 5)


def test_phases_to_come_are_expected_at_the_pace_of_this_machine() -> None:
    course = Course("experiment modules")  # 0.9 and 4.5 seconds elsewhere
    course.note("modules", 0.0, 0.0)
    assert course.remaining(0.0) == pytest.approx(5.4)
    course.note("modules", 1.0, 9.0)
    course.note("null graphs", 0.0, 9.0)
    assert course.remaining(9.0) == pytest.approx(45.0)
    course.note("something new", None, 12.0)
    assert 0 <= course.share(12.0) < 1


def test_title_belongs_to_the_steps_that_follow(frames: Frames) -> None:
    def draw(console: Console) -> None:
        with ProgressBars(console) as shown:
            shown.title("first")
            shown.update(Report("moments", 1, 2))
            shown.title("second")
            shown.update(Report("basis", 1, 2))

    assert frames(draw)[-1].startswith("second basis ")


def test_nothing_reported_draws_nothing(frames: Frames) -> None:
    assert frames(steps([])) == []
    assert frames(jobs([])) == []


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({}, "queued"),
        ({"state": "running", "step": "basis", "fraction": 0.5}, "running basis"),
        ({"state": "running", "step": "basis", "message": "[red]rank", "fraction": 0.5}, "running basis [red]rank"),
        ({"state": "succeeded", "step": "partition", "message": "2 modules", "fraction": 1.0}, "succeeded"),
        ({"state": "failed", "step": "basis", "error": "no data"}, "failed"),
        ({"state": "cancelled", "cancelling": True}, "cancelled"),
    ],
)
def test_job_has_a_bar_and_says_what_it_does(frames: Frames, changes: dict[str, Any], note: str) -> None:
    last = frames(jobs([job_row()], [job_row(**changes)]))[-1]
    assert last.startswith("track j-01234567 ━")
    assert re.sub(r" *-?[-0-9:]+$", "", last).endswith(f"━ {note}")


def test_several_jobs_have_a_line_each_and_ids_stay_whole(frames: Frames) -> None:
    rows = [job_row(id=f"j-{n:08}", task="experiment") for n in range(3)]
    running = [replace(row, state="running", step="experiment", message="m" * 300, fraction=0.1) for row in rows]
    found = frames(jobs(rows, running[:2]))[-3:]
    assert [line.split()[:2] for line in found] == [["experiment", row.id] for row in rows]
    assert ["running experiment m" in line for line in found] == [True, True, False]
    assert "queued" in found[2]


def test_hint_stands_above_the_bars_unbroken(frames: Frames) -> None:
    found = frames(jobs([job_row()], said="no worker is running"))
    assert "no worker is running" in found
    assert found[-1].startswith("track j-01234567 ")


# Where there is no terminal


def told(rows: Iterable[JobRow], changes: Iterable[JobRow], clock: Clock, seconds: float = 0.0) -> list[str]:
    out = io.StringIO()
    with JobBars(list(rows), Console(file=out, width=80, markup=False)) as show:
        for row in changes:
            show(row)
            clock.now += seconds
    return out.getvalue().splitlines()


def test_states_of_several_jobs_are_told_as_they_change(clock: Clock) -> None:
    first, second = job_row(id="j-1"), job_row(id="j-2", task="ledger")
    running = replace(first, state="running", step="track")
    changes = [first, second, running, second, replace(second, state="failed", error="no data"), running]
    assert told([first, second], [*changes, replace(running, state="succeeded")], clock) == [
        "track j-1: queued",
        "ledger j-2: queued",
        "track j-1: running track",
        "ledger j-2: failed",
        "track j-1: succeeded",
    ]


def test_what_does_not_change_is_told_once_however_long_it_takes(clock: Clock) -> None:
    row = job_row(state="running", step="basis", fraction=0.5)
    assert told([row], [row] * 50, clock, 60.0) == ["track j-01234567: running basis"]


def test_each_step_is_told_once(clock: Clock) -> None:
    rows = [job_row(state="running", step=step, fraction=share) for step in ("load", "basis") for share in (0.1, 0.9)]
    assert told(rows[:1], rows, clock, 60.0) == ["track j-01234567: running load", "track j-01234567: running basis"]


def test_long_lines_are_not_broken_where_a_program_reads_them(clock: Clock) -> None:
    row = job_row(state="running", step="basis", message="[red]" + "m " * 100 + "end")
    (line,) = told([row], [row], clock)
    assert line == f"track j-01234567: running basis {row.message}"
    out = io.StringIO()
    with ProgressBars(Console(file=out, width=80, markup=False)) as shown:
        clock.now += 11
        shown.title("net " * 50)
        shown.update(Report("search", 5, 9, row.message))
    assert out.getvalue() == "net " * 50 + " search\n"


# Jobs that nobody takes


class Workers:
    """A source whose workers are alive or not."""

    def __init__(self, *alive: bool) -> None:
        self.alive = alive

    def workers(self) -> list[WorkerRow]:
        return [worker_row(alive=each) for each in self.alive]


@pytest.mark.parametrize(
    ("queues", "options"),
    [
        (["default"], ""),
        (["default", "default"], ""),
        (["night"], " --queue night"),
        (["night", "default", "night"], " --queue default --queue night"),
    ],
)
def test_hint_names_the_queues_that_wait(queues: list[str], options: str) -> None:
    rows = [job_row(queue=queue) for queue in queues]
    said = "no worker is running, and jobs wait for one: start it with `interbasis worker{}` on the same store"
    assert waiting_hint(rows, Workers(False, False)) == said.format(options)
    assert waiting_hint(rows, Workers(False, True)) is None


def test_no_hint_where_no_job_waits() -> None:
    assert waiting_hint([], Workers()) is None
    assert waiting_hint([job_row(state=state) for state in ("running", "succeeded", "failed")], Workers()) is None
    mixed = [job_row(state="running", queue="day"), job_row(queue="night")]
    assert "--queue night" in str(waiting_hint(mixed, Workers()))
    assert "day" not in str(waiting_hint(mixed, Workers()))
