"""Progress for people: bars on a terminal, or a line now and then where output goes elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Task, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from ..records.errors import UnavailableError
from ..records.jobs import JobRow, WorkerRow
from .course import Course
from .tables import span

__all__ = ["JobBars", "ProgressBars", "waiting_hint"]

_NOW_AND_THEN = 10.0  # least seconds between lines of progress where there is no terminal


class Report(Protocol):
    """The shape of `analysis.Progress`, so that this module starts without torch."""

    @property
    def step(self) -> str:
        """Name of the step."""

    @property
    def done(self) -> int:
        """Number of units done."""

    @property
    def total(self) -> int | None:
        """Number of units in all, where known."""

    @property
    def message(self) -> str:
        """Result so far, in words."""


class HasWorkers(Protocol):
    """A store or a service."""

    def workers(self) -> Sequence[WorkerRow]:
        """List the processes that run jobs."""


class _Words(TextColumn):
    """A column of remarks, which are cut where there is no room, so that names, bars and counts stay."""

    def __init__(self, field: str) -> None:
        super().__init__(f"{{task.fields[{field}]}}", markup=False, table_column=Column(no_wrap=False))

    def render(self, task: Task) -> Text:
        """Return the remark as one line."""
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


class ProgressBars:
    """Context manager whose `update` takes progress reports and draws one bar for the whole command, on standard error.

    The bar names the target and the phase; it estimates the time from all phases and targets, see `course.Course`.
    Where standard error is not a terminal, write a line per phase, if it takes long.
    """

    def __init__(self, console: Console) -> None:
        """Draw on this console."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            _Words("message"),
        )
        self._console = console
        self._bars = Bars(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._course, self._targets = Course(), 1
        self._said, self._told = time.monotonic(), set[str]()
        self._task: TaskID | None = None
        self._title = ""

    def __enter__(self) -> ProgressBars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, task: str | Sequence[str], targets: int = 1) -> None:
        """Expect a task on so many targets, or a task for each; without this every phase is met by surprise."""
        self._course, self._targets = Course(task, targets), targets

    def title(self, title: str, number: int = 1) -> None:
        """Set the title of the steps that follow, those of the target with this number."""
        self._title = title if self._targets == 1 else f"{title} ({number} of {self._targets})"
        if number > 1:
            self._course.next_target(time.monotonic())

    def update(self, report: Report) -> None:
        """Show a report; what a task forecasts stays above the bar."""
        if report.step == "forecast":
            self._console.print(f"{self._title}: {report.message}".lstrip(": "), soft_wrap=True, highlight=False)
            return
        now = time.monotonic()
        self._course.note(report.step, min(report.done / report.total, 1.0) if report.total else None, now)
        turn = f", round {self._course.round}" if self._course.round > 1 else ""
        name = f"{self._title} {report.step}{turn}".strip()
        left = self._course.remaining(now)
        if not self._console.is_terminal:
            self._tell(name, f" (about {span(left)} left)" if left >= 1 else "")
            return
        if self._task is None:
            self._task = self._bars.add_task(name, total=1.0, message="", left="")
        about = f"about {span(left)}" if left >= 1 else ""
        share = self._course.share(now)
        self._bars.update(self._task, description=name, completed=share, message=report.message, left=about)

    def _tell(self, name: str, left: str) -> None:
        if name in self._told or time.monotonic() - self._said < _NOW_AND_THEN:
            return
        self._said = time.monotonic()
        self._told.add(name)
        self._console.print(f"{name}{left}", soft_wrap=True, highlight=False)


class JobBars:
    """Context manager that draws the progress of jobs on standard error; call it with each job that has changed.

    Where standard error is not a terminal, write a line when the state of a job or its step changes.
    """

    def __init__(self, rows: Sequence[JobRow], console: Console | None = None) -> None:
        """Draw bars for these jobs."""
        columns = TextColumn("{task.description}", markup=False), BarColumn(), _Words("note")
        self._console = console or Console(stderr=True, markup=False, emoji=False)
        self._bars = Bars(
            *columns,
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._tasks = {row.id: self._bars.add_task(f"{row.task} {row.id}", total=1.0, note=row.state) for row in rows}
        self._told: dict[str, tuple[str, str | None]] = {}  # state and step of each job

    def __enter__(self) -> JobBars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, row: JobRow) -> None:
        """Show a job in its present state."""
        note = " ".join(part for part in (row.state, row.step, row.message) if part and not row.ended) or row.state
        self._bars.update(self._tasks[row.id], completed=row.fraction or 0.0, note=note)
        if self._console.is_terminal:
            return
        if self._told.get(row.id) != (row.state, row.step):
            self._told[row.id] = row.state, row.step
            self.say(f"{row.task} {row.id}: {note}")

    def say(self, line: str) -> None:
        """Write a line, above the bars."""
        self._console.print(line, soft_wrap=True, highlight=False)


def waiting_hint(rows: Sequence[JobRow], source: HasWorkers) -> str | None:
    """Say what queued jobs wait for if no worker runs; return None otherwise, or if that is unknown."""
    queues = sorted({row.queue for row in rows if row.state == "queued"})
    try:
        if not queues or any(worker.alive for worker in source.workers()):
            return None
    except UnavailableError:
        return None
    named = "".join(f" --queue {queue}" for queue in queues) if queues != ["default"] else ""
    return f"no worker is running, and jobs wait for one: start it with `interbasis worker{named}` on the same store"
