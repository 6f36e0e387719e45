"""Jobs: submit them, cancel and retry them, and record what workers report.

A job is `queued`, `running`, then `succeeded`, `failed` or `cancelled`. The same work on the same content is the same
job: a second request joins one that waits or runs, returns one that succeeded, and queues again one that did not.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, object_session

from ..records.base import Page, plain, storable
from ..records.checkpoints import IMPORTED, beside, file_sha256, import_names, require_network
from ..records.choices import as_json
from ..records.errors import ConflictError, StoreError
from ..records.jobs import ENDED, ON_CHECKPOINTS, STATES, TASKS, JobRow, WorkerRow, check_request
from ..records.kinds import KINDS
from ..storage.pages import page
from ..storage.references import belongs, new_id, resolve
from ..storage.tables import TABLES, Checkpoint, Graph, Job, Partition, Run, Worker
from .registry import Registry
from .runs import followed_run, newest_run
from .saving import now

__all__ = ["SILENT", "Jobs"]

SILENT = 15.0
"""Seconds without a report after which a worker counts as gone."""

_MOST_ATTEMPTS = 3

_LOST = 500  # jobs checked at once

_MOST_INTERRUPTIONS = 20  # so that a job which kills its worker ends at last


class Jobs(Registry):
    """The part of the store for jobs and workers."""

    def submit(
        self,
        task: str,
        target: str | Path,
        choices: Mapping[str, Any] | None = None,
        *,
        queue: str = "default",
        priority: int = 0,
        timeout: float | None = None,
        again: bool = True,
    ) -> JobRow:
        """Submit a job; a second request for the same work returns the same job.

        Args:
            task: one of `TASKS`.
            target: for "analyze", "ledger" and "llc" a checkpoint: a reference, or its file as a Path, which is then
                registered; for "partition" a graph, for "experiment", "describe" and "compare" a partition, for "track"
                a run or a model, of which the newest run with two analysed checkpoints is tracked; for "import" the
                file of a graph, which is then kept, or the "sha256:..." of one that is.
            choices: fields of the task's recipe, and `data`, a file or "sha256:..." of an upload; None is left
                out. With `force`, stored results are computed again.
            queue: only workers of this queue take the job.
            priority: jobs with smaller numbers go first.
            timeout: seconds until a run is stopped.
            again: whether a job that failed or was cancelled, or whose results were removed, is queued again.

        Raises:
            StoreError: an unknown task or choice, a choice of the wrong type or value, a file that cannot be read, or a
                timeout that is not above 0, or a network that workers cannot build.
            NotFoundError: the checkpoint, graph, partition, run or model does not exist.
        """
        given = as_json(choices or {})
        check_request(task, given, queue=queue, priority=priority, timeout=timeout)
        given = plain(given)
        if isinstance(target, Path) and task in ON_CHECKPOINTS:
            if target.with_suffix(".json").exists():
                _require_family(beside(target), task, target)
            target = self.register_checkpoint(target).id
        if task == "import":
            given |= import_names(target if isinstance(target, Path) else None, given)
            self.check_registrable(given["model"], IMPORTED, {})
            target = self.add_file(target).uri if isinstance(target, Path) else target
        named, content = self._identity(task, str(target), given)
        described = json.dumps([task, content, given], sort_keys=True)
        digest = hashlib.sha256(described.encode()).hexdigest()

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
            elif not again or not _to_be_run(session, row, force=bool(given.get("force"))):
                return job_row(row)
            row.queue, row.priority, row.timeout = queue, priority, timeout
            _queue(row)
            session.flush()
            return job_row(row)

        return self._write(make)

    def _identity(self, task: str, target: str, choices: dict[str, Any]) -> tuple[str, list[str]]:
        """Return the ID that the job gives its target, and what identifies the content of target and data."""
        content = []
        data = choices.get("data")
        if isinstance(data, str) and data.startswith("sha256:"):
            content.append(self.get_file(data).sha256)
        elif data is not None:
            choices["data"] = str(Path(data).resolve())
            content.append(file_sha256(Path(data)))
        if task == "import":
            kept = self.get_file(target)
            return kept.uri, [kept.sha256]
        with self._read() as session:
            if task == "partition":
                graph = resolve(session, Graph, target)
                return graph.id, [*content, graph.id, graph.graph_sha256]
            if task in ("experiment", "describe"):
                partition = resolve(session, Partition, target)
                _require_family({"family": partition.graph.checkpoint.family}, task, partition.id)
                require_network(partition.graph.checkpoint.family, task, partition.id)
                return partition.id, [*content, partition.id, partition.partition_sha256]
            if task == "compare":
                return _compared(session, target, choices, content)
            if task == "track":
                if choices.get("like") is not None:
                    choices["like"] = resolve(session, Graph, str(choices["like"])).id
                run = followed_run(session, target, choices.get("like"))
                if choices.get("align", True):
                    _require_family({"family": run.family}, task, f"{run.model.name}#{run.number}")
                of_run = belongs(Graph, "run", run.key)
                graphs = session.execute(select(Graph.id, Graph.graph_sha256).where(of_run).order_by(Graph.key))
                return run.id, [*content, run.id, *(part for graph in graphs for part in graph)]
            checkpoint = resolve(session, Checkpoint, target)
            _require_family({"family": checkpoint.family}, task, checkpoint.id)
            require_network(checkpoint.family, task, checkpoint.id)
            if checkpoint.path is None and checkpoint.file_sha256 is None:
                raise StoreError(f"{checkpoint.id} was stored without its file: register or upload it again")
            if task == "llc" and choices.get("modules") is not None:
                content += _modules_of(session, checkpoint, choices)
            return checkpoint.id, [*content, checkpoint.id, checkpoint.sha256]

    def get_job(self, ref: str) -> JobRow:
        """Return the job with this ID, or unique start of an ID."""
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
        """List jobs, all or those in one state or of one task."""
        if state is not None and state not in STATES:
            raise StoreError(f"there is no state {state!r}: expected one of {', '.join(STATES)}")
        query = select(Job)
        query = query.where(Job.state == state) if state is not None else query
        query = query.where(Job.task == task) if task is not None else query
        with self._read() as session:
            return page(session, Job, query, job_row, cursor=cursor, limit=limit, newest_first=newest_first)

    def cancel_job(self, ref: str) -> JobRow:
        """Cancel a job: at once if it waits, within two seconds if it runs; one that has ended stays as it is."""

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
            ConflictError: the job has not ended, or it succeeded.
        """

        def again(session: Session) -> JobRow:
            row = _locked(session, ref)
            if row.state not in ("failed", "cancelled"):
                raise ConflictError(f"{row.id} is {row.state}: only a job that failed or was cancelled can be retried")
            _queue(row)
            return job_row(row)

        return self._write(again)

    def count_jobs(self) -> dict[str, int]:
        """Count the jobs in each state."""
        with self._read() as session:
            found = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
        return {state: found.get(state, 0) for state in STATES}

    def workers(self) -> tuple[WorkerRow, ...]:
        """List the processes that run jobs, with those that have recently stopped reporting."""
        with self._read() as session:
            limit = _clock(session) - timedelta(seconds=SILENT)
            names = [name for name in WorkerRow.__dataclass_fields__ if name != "alive"]
            rows = session.scalars(select(Worker).order_by(Worker.id)).all()
            return tuple(
                WorkerRow(**{name: getattr(row, name) for name in names}, alive=row.heartbeat >= limit) for row in rows
            )

    # What workers write

    def waiting_jobs(self) -> list[JobRow]:
        """Return the jobs that are not in the engine's queue yet, in the order in which they are to run."""
        with self._read() as session:
            query = select(Job).where(Job.state == "queued", Job.enqueued.is_(False))
            return [job_row(row) for row in session.scalars(query.order_by(Job.priority, Job.created, Job.key))]

    def mark_enqueued(self, job: str, run: int) -> None:
        """Note that the engine has this run in its queue."""
        self._write(lambda s: s.execute(update(Job).where(Job.id == job, Job.run == run).values(enqueued=True)))

    def lost_jobs(self, worker: str, running: Collection[str]) -> list[JobRow]:
        """Return the jobs that the engine should have and that no worker runs, or that one is just starting.

        They are queued, or marked as running on a worker that is gone, or on this one although it does not run them.
        """
        with self._read() as session:
            known = set(session.scalars(select(Worker.id))) - {worker}
            query = select(Job).where(Job.state.in_(("queued", "running")), Job.enqueued.is_(True))
            rows = session.scalars(query.order_by(Job.priority, Job.key).limit(_LOST))
            return [job_row(row) for row in rows if row.worker not in known and row.id not in running]

    def end_lost_job(self, job: str, run: int, *, error: str | None) -> bool:
        """Let a run fail that the engine gave up, with its reason; without a reason queue it again.

        Returns whether the job was still in this run.
        """

        def end(session: Session) -> bool:
            row = session.scalar(select(Job).where(Job.id == job).with_for_update())
            if row is None or row.run != run or row.state in ENDED:
                return False
            if error is not None:
                _end(row, "failed", error=error)
            else:
                row.state, row.worker, row.enqueued = "queued", None, False
            return True

        return self._write(end)

    def begin_job(self, job: str, run: int, worker: str, *, error: str | None = None) -> JobRow | None:
        """Mark a run as started or continued by a worker; return None where nothing is left to do.

        A run fails after it crashed three times, or after twenty workers went away during it.

        Args:
            job: its ID.
            run: its number; any other run is left alone.
            worker: name of the worker.
            error: why this worker starts the run again.
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
            row.state, row.worker, row.error = "running", worker, storable(error)
            row.started = row.started or now()
            return job_row(row)

        return self._write(begin)

    def report_job(
        self, job: str, worker: str, *, step: str, fraction: float | None, message: str, remaining: float | None
    ) -> bool:
        """Record progress; return whether to continue (a job may be cancelled, or belong to another worker)."""

        def note(session: Session) -> bool:
            row = session.scalar(select(Job).where(Job.id == job).with_for_update())
            if row is None or row.state != "running" or row.worker != worker or row.cancelling:
                return False
            row.step, row.fraction, row.message, row.remaining = step, fraction, storable(message), remaining
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
    ) -> str | None:
        """End a run of this worker; return the new state, None where the run is not this worker's."""

        def end(session: Session) -> str | None:
            row = session.scalar(select(Job).where(Job.id == job).with_for_update())
            if row is None or row.run != run:
                return None
            mine = row.state == "running" and row.worker == worker
            left = row.state == "queued" and row.enqueued and row.worker is None  # given back just before it was done
            if mine or left:
                _end(row, state, error=error, results=results)
            return row.state

        return self._write(end)

    def give_back_job(self, job: str, worker: str) -> None:
        """Return the job of a worker that stops to the queue; this does not count as an interruption."""
        mine = Job.id == job, Job.worker == worker, Job.state == "running"
        values: dict[str, Any] = {"state": "queued", "worker": None, "version": Job.version + 1}
        self._write(lambda session: session.execute(update(Job).where(*mine).values(**values)))

    def beat(self, worker: str) -> None:
        """Record that a worker is alive."""

        def note(session: Session) -> None:
            moment = _clock(session)
            row = session.get(Worker, worker)
            if row is None:
                host = socket.gethostname()
                session.add(Worker(id=worker, host=host, pid=os.getpid(), started=moment, heartbeat=moment))
            else:
                row.heartbeat, row.pid = moment, os.getpid()

        self._write(note)

    def retire(self, worker: str) -> None:
        """Record that a worker has stopped: others may take its jobs at once."""
        past = datetime(1970, 1, 1, tzinfo=UTC)
        self._write(lambda session: session.execute(update(Worker).where(Worker.id == worker).values(heartbeat=past)))

    def silent_workers(self, seconds: float) -> list[str]:
        """Return the workers that have not reported for so many seconds."""
        with self._read() as session:
            limit = _clock(session) - timedelta(seconds=seconds)
            return list(session.scalars(select(Worker.id).where(Worker.heartbeat < limit)))

    def forget_worker(self, worker: str) -> None:
        """Remove a worker that is gone and whose jobs others have."""

        def forget(session: Session) -> None:
            row = session.get(Worker, worker)
            if row is not None:
                session.delete(row)

        self._write(forget)


def _clock(session: Session) -> datetime:
    """Read the database's clock, which is the same for all workers."""
    moment: datetime = session.scalars(select(func.now())).one()
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _require_family(about: Any, task: str, target: object) -> None:
    """Refuse a task on a network of family torch, which workers cannot build.

    Raises:
        StoreError: the message says what to do.
    """
    if isinstance(about, Mapping) and about.get("family") == "torch":
        raise StoreError(
            f"{target} is of family 'torch': only a function of yours builds it, which workers do not have; compute "
            f"without a service, on the same store: `interbasis {task} {target} --factory module:function --data FILE`"
        )


def _compared(session: Session, target: str, choices: dict[str, Any], content: list[str]) -> tuple[str, list[str]]:
    """Return the ID of a partition to compare, and what identifies it and the other one; name that by its ID."""
    rows = [resolve(session, Partition, target)]
    if choices.get("other") is not None:
        rows.append(resolve(session, Partition, str(choices["other"])))
        choices["other"] = rows[-1].id
    return rows[0].id, [*content, *(part for row in rows for part in (row.id, row.partition_sha256))]


def _modules_of(session: Session, checkpoint: Checkpoint, choices: dict[str, Any]) -> list[str]:
    """Return what identifies the partition whose modules are counted; name it by its ID."""
    partition = resolve(session, Partition, str(choices["modules"]))
    own = partition.graph.checkpoint
    if own.key != checkpoint.key:
        raise StoreError(f"{partition.id} divides {own.id}, not {checkpoint.id}: name the partition's own checkpoint")
    choices["modules"] = partition.id
    return [partition.id, partition.partition_sha256]


def job_row(row: Job) -> JobRow:
    """Convert a row to a JobRow."""
    names = (name for name in JobRow.__dataclass_fields__ if name not in ("results", "target_name"))
    values = {name: getattr(row, name) for name in names}
    return JobRow(**values, results=tuple(row.results), target_name=_target_name(row))


def _target_name(row: Job) -> str | None:
    """Name the run that a job is about, or the checkpoint that its target is, becomes, or belongs to."""
    if row.task == "import":
        return f"{row.choices['model']}@{row.choices['label']}"
    session = object_session(row)
    tables: dict[str, Any] = {"track": Run, "partition": Graph}
    tables |= dict.fromkeys(("experiment", "describe", "compare"), Partition)
    table = tables.get(row.task, Checkpoint)
    target: Any = None if session is None else session.scalar(select(table).where(table.id == row.target))
    while target is not None and not isinstance(target, Checkpoint | Run):
        target = getattr(target, KINDS[target.kind].owners[0])
    if target is None:
        return None
    run: Run = target if isinstance(target, Run) else target.run
    newest = newest_run(session, run.model) if session is not None else None
    name = run.model.name if run is newest else f"{run.model.name}#{run.number}"
    return name if isinstance(target, Run) else f"{name}@{target.label if target.step is None else target.step}"


def _to_be_run(session: Session, row: Job, *, force: bool) -> bool:
    """Return whether a job that is asked for again is queued again: not one that waits, runs, or has its results."""
    if row.state != "succeeded" or force:
        return row.state in ENDED
    made = [(TABLES[result["kind"]], result["id"]) for result in row.results]
    return any(session.scalar(select(table.key).where(table.id == ref)) is None for table, ref in made)


def _queue(row: Job) -> None:
    row.run, row.state, row.attempts, row.interruptions, row.results = row.run + 1, "queued", 0, 0, []
    row.enqueued = row.cancelling = False
    row.worker = row.step = row.fraction = row.remaining = row.error = row.started = row.finished = None
    row.message = ""


def _end(row: Job, state: str, *, error: str | None = None, results: Sequence[Mapping[str, Any]] = ()) -> None:
    row.state, row.finished, row.cancelling, row.remaining = state, now(), False, None
    row.error, row.results = storable(error), [dict(result) for result in results]
    if state == "succeeded":
        row.step, row.fraction = TASKS[row.task][-1], 1.0


def _locked(session: Session, ref: str) -> Job:
    return session.scalars(select(Job).where(Job.key == resolve(session, Job, ref).key).with_for_update()).one()
