"""Jobs, schedules, workers and tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .base import Record
from .choices import check_choices
from .errors import StoreError

__all__ = [
    "ENDED",
    "ON_CHECKPOINTS",
    "SCOPES",
    "STATES",
    "TASKS",
    "JobRow",
    "NewToken",
    "ScheduleRow",
    "TokenRow",
    "WorkerRow",
    "check_request",
]


@dataclass(frozen=True, kw_only=True)
class WorkerRow(Record):
    """A process that runs jobs; `alive` if it has reported within the last 15 seconds."""

    id: str
    host: str
    pid: int
    started: datetime
    heartbeat: datetime
    alive: bool


SCOPES = ("read", "submit", "admin")
"""What a token allows; each scope includes those before it."""


@dataclass(frozen=True, kw_only=True)
class TokenRow(Record):
    """A token without its secret."""

    id: str
    name: str
    scope: str
    revoked: datetime | None
    created: datetime


@dataclass(frozen=True, kw_only=True)
class NewToken(TokenRow):
    """A new token, shown only once; requests carry `token`."""

    token: str


TASKS: dict[str, tuple[str, ...]] = {
    "analyze": ("load", "basis", "graph", "store", "partition"),
    "partition": ("partition",),
    "ledger": ("ledger",),
    "llc": ("llc",),
    "experiment": ("experiment",),
    "track": ("track",),
}
"""Each task and its steps; an interrupted job continues with the step it was in."""

ON_CHECKPOINTS = ("analyze", "ledger", "llc")
"""Tasks whose target is a checkpoint."""

STATES = ("queued", "running", "succeeded", "failed", "cancelled")

ENDED = ("succeeded", "failed", "cancelled")

_QUEUE = re.compile(r"[A-Za-z0-9_-]{1,80}")


@dataclass(frozen=True, kw_only=True)
class JobRow(Record):
    """A job and its present state.

    Attributes:
        task: one of `TASKS`.
        target: ID of a checkpoint, a graph, a partition or a model.
        choices: names of the task's recipe, `data` and `force`.
        queue: only its workers take the job.
        priority: jobs with smaller numbers go first.
        timeout: seconds after which a run of it is stopped.
        run: how many times it was queued.
        attempts: how many times the present run was tried, because the computation crashed.
        interruptions: how many times a worker went away during the run, which another one continued.
        step, fraction, message, remaining: the step, the share done of the phase that the message names, and how
            many seconds it may still take (None: not known).
        error: why it failed, in full.
        results: `{"kind": ..., "id": ...}` of each result it made.
        version: grows with every change.
    """

    id: str
    task: str
    target: str
    choices: Mapping[str, Any]
    queue: str
    priority: int
    timeout: float | None
    state: str
    run: int
    attempts: int
    interruptions: int
    cancelling: bool
    worker: str | None
    step: str | None
    fraction: float | None
    message: str
    remaining: float | None
    error: str | None
    results: tuple[dict[str, Any], ...]
    created: datetime
    started: datetime | None
    finished: datetime | None
    version: int

    @property
    def ended(self) -> bool:
        """Whether the job has ended: it changes only if someone retries it."""
        return self.state in ENDED


def check_request(task: str, choices: Mapping[str, Any], *, queue: str, priority: int, timeout: float | None) -> None:
    """Check the request for a job, or for the jobs of a schedule.

    Raises:
        StoreError: an unknown task or choice, a choice of the wrong type or value, an invalid name of a queue, or
            a number out of its range.
    """
    if task not in TASKS:
        raise StoreError(f"there is no task {task!r}: expected one of {', '.join(TASKS)}")
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0 and math.isfinite(timeout)):
        raise StoreError(f"timeout is {timeout!r}: expected seconds above 0")
    check_choices(task, choices)
    if not isinstance(queue, str) or not _QUEUE.fullmatch(queue):
        raise StoreError(f"queue is {queue!r}: expected up to 80 letters, digits, - and _")
    if not isinstance(priority, int) or not -1000 <= priority <= 1000:
        raise StoreError(f"priority is {priority!r}: expected -1000 to 1000")


@dataclass(frozen=True, kw_only=True)
class ScheduleRow(Record):
    """A schedule, which submits jobs at set times or for each new checkpoint.

    Attributes:
        task: one of `TASKS`.
        model: name of the model whose checkpoints (or graphs, partitions, or tracking) the jobs are about.
        cron: times in UTC, as in crontab; None: for each new checkpoint.
        folder: where new checkpoints appear, as .safetensors with .json beside; None: others register them.
        choices, queue, priority, timeout: those of the jobs.
        paused: whether it is paused until someone resumes it.
        next_run: next time it is due; None without cron.
        last_run: when it last submitted jobs.
        jobs: IDs of the jobs it last submitted.
        error: the error of the last time, if any.
    """

    id: str
    task: str
    model: str
    cron: str | None
    folder: str | None
    choices: Mapping[str, Any]
    queue: str
    priority: int
    timeout: float | None
    paused: bool
    next_run: datetime | None
    last_run: datetime | None
    jobs: tuple[str, ...]
    error: str | None
    created: datetime
