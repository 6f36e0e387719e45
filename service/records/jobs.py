"""Jobs, schedules, workers and tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from .base import Record, Time, TimeOrNone
from .checkpoints import ModelName
from .choices import check_choices
from .errors import StoreError

__all__ = [
    "ENDED",
    "ON_CHECKPOINTS",
    "SCOPES",
    "STATES",
    "TASKS",
    "Cron",
    "Folder",
    "JobRow",
    "NewToken",
    "Priority",
    "Queue",
    "ScheduleRow",
    "Timeout",
    "TokenName",
    "TokenRow",
    "WorkerRow",
    "check_request",
]

_JOB = "j-1a2b3c4d"

Host = Annotated[str, Field(examples=["gpu-1"])]

TokenName = Annotated[str, Field(examples=["two-digits"])]

Task = Annotated[str, Field(examples=["analyze"])]

Choices = Annotated[Mapping[str, Any], Field(examples=[{"output": "neuron"}])]

Queue = Annotated[str, Field(examples=["default"])]

Priority = Annotated[int, Field(examples=[0])]

Timeout = Annotated[float | None, Field(examples=[3600.0])]

Cron = Annotated[str | None, Field(examples=["0 2 * * *"])]

Folder = Annotated[str | None, Field(examples=["/srv/runs/two-digits"])]


@dataclass(frozen=True, kw_only=True)
class WorkerRow(Record):
    """A process that runs jobs; `alive` if it has reported within the last 15 seconds."""

    id: Host
    host: Host
    pid: Annotated[int, Field(examples=[4711])]
    started: Time
    heartbeat: Time
    alive: Annotated[bool, Field(examples=[True])]


SCOPES = ("read", "submit", "admin")
"""What a token allows; each scope includes those before it."""


@dataclass(frozen=True, kw_only=True)
class TokenRow(Record):
    """A token without its secret."""

    id: Annotated[str, Field(examples=["t-5e6f7a8b"])]
    name: TokenName
    scope: Annotated[str, Field(examples=["submit"])]
    revoked: Annotated[datetime | None, Field(examples=[None])]
    created: Time


@dataclass(frozen=True, kw_only=True)
class NewToken(TokenRow):
    """A new token, shown only once; requests carry `token`."""

    token: Annotated[str, Field(examples=["ib_t-5e6f7a8b_dGhpcy1pcy1uby1zZWNyZXQtYnV0LWFuLWV4YW1wbGU"])]


TASKS: dict[str, tuple[str, ...]] = {
    "analyze": ("load", "basis", "graph", "store", "partition"),
    "partition": ("partition",),
    "ledger": ("ledger",),
    "llc": ("llc",),
    "experiment": ("experiment",),
    "describe": ("describe",),
    "compare": ("compare",),
    "track": ("track",),
    "import": ("import",),
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
        target: ID of a checkpoint, a graph, a partition or a run; of an import "sha256:..." of the file.
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
        target_name: what the target is about, as `model@step`; None where it is not known.
    """

    id: Annotated[str, Field(examples=[_JOB])]
    task: Task
    target: Annotated[str, Field(examples=["c-1a2b3c4d"])]
    choices: Choices
    queue: Queue
    priority: Priority
    timeout: Timeout
    state: Annotated[str, Field(examples=["running"])]
    run: Annotated[int, Field(examples=[1])]
    attempts: Annotated[int, Field(examples=[1])]
    interruptions: Annotated[int, Field(examples=[0])]
    cancelling: Annotated[bool, Field(examples=[False])]
    worker: Annotated[str | None, Field(examples=["gpu-1"])]
    step: Annotated[str | None, Field(examples=["basis"])]
    fraction: Annotated[float | None, Field(examples=[0.5])]
    message: Annotated[str, Field(examples=["Gram matrices: batch 3 of 8"])]
    remaining: Annotated[float | None, Field(examples=[12.5])]
    error: Annotated[str | None, Field(examples=[None])]
    results: Annotated[tuple[dict[str, Any], ...], Field(examples=[[{"kind": "graph", "id": "g-1a2b3c4d"}]])]
    created: Time
    started: TimeOrNone
    finished: TimeOrNone
    version: Annotated[int, Field(examples=[12])]
    target_name: Annotated[str | None, Field(examples=["two-digits@2500"])] = None

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
    check_choices(task, choices)
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0 and math.isfinite(timeout)):
        raise StoreError(f"timeout is {timeout!r}: expected seconds above 0")
    if not isinstance(queue, str) or not _QUEUE.fullmatch(queue):
        raise StoreError(f"queue is {queue!r}: expected up to 80 letters, digits, - and _")
    if not isinstance(priority, int) or not -1000 <= priority <= 1000:
        raise StoreError(f"priority is {priority!r}: expected -1000 to 1000")


@dataclass(frozen=True, kw_only=True)
class ScheduleRow(Record):
    """A schedule, which submits jobs at set times or for each new checkpoint.

    Attributes:
        task: one of `TASKS`.
        model: name of the model; the jobs are about what its newest run has: checkpoints, graphs, partitions, tracking.
        cron: times in UTC, as in crontab; None: for each new checkpoint.
        folder: where new checkpoints appear, as .safetensors with .json beside; None: others register them.
        choices, queue, priority, timeout: those of the jobs.
        paused: whether it is paused until someone resumes it.
        next_run: next time it is due; None without cron.
        last_run: when it last submitted jobs.
        jobs: IDs of the jobs it last submitted.
        error: the error of the last time, if any.
    """

    id: Annotated[str, Field(examples=["s-1a2b3c4d"])]
    task: Task
    model: ModelName
    cron: Cron
    folder: Folder
    choices: Choices
    queue: Queue
    priority: Priority
    timeout: Timeout
    paused: Annotated[bool, Field(examples=[False])]
    next_run: Annotated[datetime | None, Field(examples=["2026-11-23T02:00:00+00:00"])]
    last_run: TimeOrNone
    jobs: Annotated[tuple[str, ...], Field(examples=[[_JOB]])]
    error: Annotated[str | None, Field(examples=[None])]
    created: Time
