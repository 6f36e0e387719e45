"""Jobs: what can be asked for, how it is asked for once, and what a worker writes about it.

A job is `queued`, `running`, then `succeeded`, `failed` or `cancelled`. The same work on the same content is the same
job: asking again joins the one that waits or runs, returns the one that succeeded, and queues again one that did not.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from .queries import new_id, page, resolve
from .records import Page, Record, StoreError
from .tables import Graph, Job, Model, Worker
from .writer import Writer
from .writes import now

__all__ = ["ENDED", "STATES", "TASKS", "JobRow", "Jobs"]

TASKS: dict[str, tuple[str, ...]] = {
    "analyze": ("load", "basis", "graph", "store", "partition"),
    "partition": ("partition",),
    "ledger": ("ledger",),
    "llc": ("llc",),
    "track": ("track",),
}
"""What can be asked for, and its steps; a job that is interrupted goes on with the step it was in."""

STATES = ("queued", "running", "succeeded", "failed", "cancelled")
ENDED = ("succeeded", "failed", "cancelled")

_MOST_ATTEMPTS = 3
_MOST_INTERRUPTIONS = 20  # a job that takes its worker down with it ends some time


@dataclass(frozen=True, kw_only=True)
class JobRow(Record):
    """A job as it stands.

    Attributes:
        task: one of `TASKS`.
        target: file of a checkpoint, or ID of a graph or model.
        choices: names of the task's recipe, `data` and `force`.
        priority: jobs with smaller numbers go first.
        timeout: seconds after which a run of it is stopped.
        run: how often it was queued.
        attempts: how often the present run was tried, because the computation broke down.
        interruptions: how often a worker went away during the run, which went on elsewhere.
        step, fraction, message, remaining: what goes on, how much of the step is done, and how many seconds it may
            still take.
        error: why it failed, in full.
        results: `{"kind": ..., "id": ...}` of what it made.
    """

    id: str
    task: str
    target: str
    choices: Mapping[str, Any]
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

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.state in ENDED


class Jobs(Writer):
    """The part of the store that knows jobs and workers."""

    def submit(
        self,
        task: str,
        target: str | Path,
        choices: Mapping[str, Any] | None = None,
        *,
        priority: int = 0,
        timeout: float | None = None,
    ) -> JobRow:
        """Ask for work; the same work is asked for once.

        Args:
            task: one of `TASKS`.
            target: of "analyze", "ledger" and "llc" the file of a checkpoint; of "partition" a graph, of "track" a
                model.
            choices: names of the task's recipe, and `data`, a file; None is left out. With `force`, what is stored is
                computed again.
            priority: jobs with smaller numbers go first.
            timeout: seconds after which a run is stopped.

        Raises:
            StoreError: an unknown task, a file that cannot be read, or a timeout that is not above 0.
            NotFoundError: no such graph or model.
        """
        if task not in TASKS:
            raise StoreError(f"there is no task {task!r}: expected one of {', '.join(TASKS)}")
        if timeout is not None and not timeout > 0:
            raise StoreError(f"timeout is {timeout}: expected seconds above 0")
        given = {name: value for name, value in (choices or {}).items() if value is not None}
        named, content = self._identity(task, target, given)
        described = json.dumps([task, content, given], sort_keys=True, default=str)
        digest = hashlib.sha256(described.encode()).hexdigest()
        given = json.loads(json.dumps(given, default=str))

        def make(session: Session) -> JobRow:
            row = session.scalar(select(Job).where(Job.digest == digest).with_for_update())
            if row is None:
                row = Job(
                    id=new_id(session, Job, digest),
                    created=now(),
                    task=task,
                    target=named,
                    choices=given,
                    digest=digest,
                )
                row.run = 0
                session.add(row)
            elif not (row.state in ("failed", "cancelled") or (row.state == "succeeded" and given.get("force"))):
                return job_row(row)
            row.priority, row.timeout = priority, timeout
            _queue(row)
            session.flush()
            return job_row(row)

        return self._write(make)

    def _identity(self, task: str, target: str | Path, choices: dict[str, Any]) -> tuple[str, list[str]]:
        """What the target is called in the job, and what makes up its content."""
        with self._read() as session:
            if task == "partition":
                graph = resolve(session, Graph, str(target))
                return graph.id, [graph.id, graph.graph_sha256]
            if task == "track":
                model = resolve(session, Model, str(target))
                of_model = Graph.checkpoint.has(model_key=model.key)
                return model.id, [model.id, *session.scalars(select(Graph.id).where(of_model).order_by(Graph.key))]
        files = [Path(target), Path(target).with_suffix(".json")]
        if "data" in choices:
            choices["data"] = str(Path(choices["data"]).resolve())
            files.append(Path(choices["data"]))
        return str(Path(target).resolve()), [_sha256(file) for file in files]

    def get_job(self, ref: str) -> JobRow:
        """The job with that ID, or the unique start of one."""
        with self._read() as session:
            return job_row(resolve(session, Job, ref))

    def jobs(
        self,
        *,
        state: str | None = None,
        task: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Page[JobRow]:
        """Jobs, all or those in one state or of one task."""
        if state is not None and state not in STATES:
            raise StoreError(f"there is no state {state!r}: expected one of {', '.join(STATES)}")
        query = select(Job)
        query = query.where(Job.state == state) if state is not None else query
        query = query.where(Job.task == task) if task is not None else query
        with self._read() as session:
            return page(session, Job, query, job_row, cursor=cursor, limit=limit, newest_first=newest_first)

    def cancel_job(self, ref: str) -> JobRow:
        """Stop a job: at once where it waits, within two seconds where it runs; one that has ended stays as it is."""

        def stop(session: Session) -> JobRow:
            row = _locked(session, ref)
            if row.state == "queued":
                _end(row, "cancelled")
            elif row.state == "running":
                row.cancelling = True
            return job_row(row)

        return self._write(stop)

    def retry_job(self, ref: str) -> JobRow:
        """Queue a job again that failed or was cancelled.

        Raises:
            StoreError: it has not ended, or it succeeded.
        """

        def again(session: Session) -> JobRow:
            row = _locked(session, ref)
            if row.state not in ("failed", "cancelled"):
                raise StoreError(f"{row.id} is {row.state}: only a job that failed or was cancelled can be retried")
            _queue(row)
            return job_row(row)

        return self._write(again)

    # What workers write

    def waiting_jobs(self) -> list[JobRow]:
        """Jobs that no engine has been told of yet, in the order in which they are to run."""
        with self._read() as session:
            query = select(Job).where(Job.state == "queued", Job.enqueued.is_(False))
            return [job_row(row) for row in session.scalars(query.order_by(Job.priority, Job.created, Job.key))]

    def mark_enqueued(self, job: str, run: int) -> None:
        """The engine knows this run."""
        self._write(lambda s: s.execute(update(Job).where(Job.id == job, Job.run == run).values(enqueued=True)))

    def begin_job(self, job: str, run: int, worker: str, *, error: str | None = None) -> JobRow | None:
        """A worker begins or goes on with a run; None where there is nothing to do any more.

        A run that broke down three times has failed, and one during which twenty workers went away.

        Args:
            job: its ID.
            run: which one; another one is left alone.
            worker: name of the worker.
            error: why it is begun again, by the worker that had it.
        """

        def begin(session: Session) -> JobRow | None:
            row = session.scalar(select(Job).where(Job.id == job).with_for_update())
            if row is None or row.run != run or row.state in ENDED:
                return None
            if row.cancelling:
                _end(row, "cancelled")
                return None
            if error is not None and row.attempts >= _MOST_ATTEMPTS:
                _end(row, "failed", error=f"given up after {row.attempts} attempts; the last error was:\n{error}")
                return None
            if row.interruptions >= _MOST_INTERRUPTIONS:
                _end(row, "failed", error=f"given up: {row.interruptions} workers went away while they ran it")
                return None
            row.interruptions += row.state == "running" and error is None
            row.attempts += row.attempts == 0 or error is not None
            row.state, row.worker, row.error = "running", worker, error
            row.started = row.started or now()
            return job_row(row)

        return self._write(begin)

    def report_job(
        self, job: str, worker: str, *, step: str, fraction: float | None, message: str, remaining: float | None
    ) -> bool:
        """Note what goes on; whether the worker is to go on (the job may have been cancelled or taken over)."""

        def note(session: Session) -> bool:
            row = session.scalar(select(Job).where(Job.id == job).with_for_update())
            if row is None or row.state != "running" or row.worker != worker or row.cancelling:
                return False
            row.step, row.fraction, row.message, row.remaining = step, fraction, message, remaining
            return True

        return self._write(note)

    def end_job(
        self,
        job: str,
        run: int,
        worker: str,
        state: str,
        *,
        error: str | None = None,
        results: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """The end of a run, where it is still this worker's."""

        def end(session: Session) -> None:
            row = session.scalar(select(Job).where(Job.id == job).with_for_update())
            if row is not None and row.run == run and row.worker == worker and row.state == "running":
                _end(row, state, error=error, results=results)

        self._write(end)

    def give_back_job(self, job: str, worker: str) -> None:
        """A worker that stops leaves its job to the queue, which does not count as an interruption."""
        mine = Job.id == job, Job.worker == worker, Job.state == "running"
        values = {"state": "queued", "worker": None}
        self._write(lambda session: session.execute(update(Job).where(*mine).values(**values)))

    def beat(self, worker: str) -> None:
        """Say that a worker lives."""

        def note(session: Session) -> None:
            moment = session.scalars(select(func.now())).one()
            row = session.get(Worker, worker)
            if row is None:
                host = socket.gethostname()
                session.add(Worker(id=worker, host=host, pid=os.getpid(), started=moment, heartbeat=moment))
            else:
                row.heartbeat, row.pid = moment, os.getpid()

        self._write(note)

    def retire(self, worker: str) -> None:
        """Say that a worker has stopped: the others may have its jobs at once."""
        past = datetime(1970, 1, 1, tzinfo=UTC)
        self._write(lambda session: session.execute(update(Worker).where(Worker.id == worker).values(heartbeat=past)))

    def silent_workers(self, seconds: float) -> list[str]:
        """Workers that have not said for so long that they live."""
        with self._read() as session:
            limit = session.scalars(select(func.now())).one() - timedelta(seconds=seconds)
            return list(session.scalars(select(Worker.id).where(Worker.heartbeat < limit)))

    def forget_worker(self, worker: str) -> None:
        """It is gone, and what it was doing is in other hands."""

        def forget(session: Session) -> None:
            row = session.get(Worker, worker)
            if row is not None:
                session.delete(row)

        self._write(forget)


def job_row(row: Job) -> JobRow:
    """As a frozen value."""
    values = {name: getattr(row, name) for name in JobRow.__dataclass_fields__ if name != "results"}
    return JobRow(**values, results=tuple(row.results))


def _queue(row: Job) -> None:
    row.run, row.state, row.attempts, row.interruptions, row.results = row.run + 1, "queued", 0, 0, []
    row.enqueued = row.cancelling = False
    row.worker = row.step = row.fraction = row.remaining = row.error = row.started = row.finished = None
    row.message = ""


def _end(row: Job, state: str, *, error: str | None = None, results: Sequence[Mapping[str, Any]] = ()) -> None:
    row.state, row.finished, row.cancelling, row.remaining = state, now(), False, None
    row.error, row.results = error, [dict(result) for result in results]
    row.fraction = 1.0 if state == "succeeded" else row.fraction


def _locked(session: Session, ref: str) -> Job:
    return session.scalars(select(Job).where(Job.key == resolve(session, Job, ref).key).with_for_update()).one()


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise StoreError(f"cannot read {file}: {error.strerror}") from error
