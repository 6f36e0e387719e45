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
    """A process that runs jobs; `alive` where it said so within the last quarter of a minute."""

    id: str
    host: str
    pid: int
    started: datetime
    heartbeat: datetime
    alive: bool


SCOPES = ("read", "submit", "admin")


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
    """A token as it is shown once; `token` is what requests carry."""

    token: str


TASKS: dict[str, tuple[str, ...]] = {
    "analyze": ("load", "basis", "graph", "store", "partition"),
    "partition": ("partition",),
    "ledger": ("ledger",),
    "llc": ("llc",),
    "experiment": ("experiment",),
    "track": ("track",),
}

ON_CHECKPOINTS = ("analyze", "ledger", "llc")

STATES = ("queued", "running", "succeeded", "failed", "cancelled")

ENDED = ("succeeded", "failed", "cancelled")

_QUEUE = re.compile(r"[A-Za-z0-9_-]{1,80}")


@dataclass(frozen=True, kw_only=True)
class JobRow(Record):
    """A job as it stands.

    Attributes:
        task: one of `TASKS`.
        target: ID of a checkpoint, a graph, a partition or a model.
        choices: names of the task's recipe, `data` and `force`.
        queue: whose workers take it.
        priority: jobs with smaller numbers go first.
        timeout: seconds after which a run of it is stopped.
        run: how often it was queued.
        attempts: how often the present run was tried, because the computation broke down.
        interruptions: how often a worker went away during the run, which went on elsewhere.
        step, fraction, message, remaining: what goes on; of the phase that the message names, how much is done, and how
            many seconds it may still take (None: not known).
        error: why it failed, in full.
        results: `{"kind": ..., "id": ...}` of what it made.
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
        """Whether nothing more happens to it by itself."""
        return self.state in ENDED


def check_request(task: str, choices: Mapping[str, Any], *, queue: str, priority: int, timeout: float | None) -> None:
    """What is asked for in a job, or in the jobs of a schedule.

    Raises:
        StoreError: an unknown task or choice, a choice of the wrong type or value, a queue that cannot be called so, or
            a number out of its range.
    """
    if task not in TASKS:
        raise StoreError(f"there is no task {task!r}: expected one of {', '.join(TASKS)}")
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0 and math.isfinite(timeout)):
        raise StoreError(f"timeout is {timeout!r}: expected seconds above 0")
    check_choices(task, choices)
    if not isinstance(queue, str) or not _QUEUE.fullmatch(queue):
        raise StoreError(f"a queue cannot be called {queue!r}: expected up to 80 letters, digits, - and _")
    if not isinstance(priority, int) or not -1000 <= priority <= 1000:
        raise StoreError(f"priority is {priority!r}: expected -1000 to 1000")


@dataclass(frozen=True, kw_only=True)
class ScheduleRow(Record):
    """A schedule.

    Attributes:
        task: one of `TASKS`.
        model: name of the model whose checkpoints (or graphs, partitions, or tracking) the jobs are about.
        cron: when, in UTC, as in crontab; None: for every new checkpoint.
        folder: where new checkpoints appear, as .safetensors with a .json beside it; None: they are registered.
        choices, queue, priority, timeout: of the jobs.
        paused: whether it waits to be resumed.
        next_run: when it is due; None where it is not a matter of time.
        last_run: when it last asked for jobs.
        jobs: IDs of the jobs it last asked for.
        error: what went wrong the last time.
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
