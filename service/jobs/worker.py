"""A worker: take jobs from the queue, have their steps computed, and make sure that no job is lost.

It reports every few seconds that it is alive; the jobs of a worker that stops reporting go back to the queue.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from ..records.errors import ConflictError, ReadOnlyError, StoreError, UnavailableError
from ..records.jobs import TASKS, JobRow
from ..store.jobs import SILENT
from ..store.store import Store
from .child import Child, DiedError, FailedError, StoppedError
from .engine import Engine
from .pace import Pace

__all__ = ["Supervisor", "stop_on_signals"]

_log = logging.getLogger(__name__)

_BEAT = 2.0  # seconds between signs of life

_PUMP = 0.25  # seconds between looks for new jobs

_IDLE = 120.0  # seconds for which a computing process waits for the next job

_JOBS = 50  # that one process does before it is replaced, should memory pile up

_NOTE = 1.0  # seconds between notes of progress

_SAID = 1000  # characters of an error, from its end, in the log

_TRACE = 8000  # characters of a traceback there


class Supervisor:
    """A worker process; `run` returns after `stop` was called."""

    def __init__(
        self,
        store: Store,
        *,
        name: str,
        queues: Mapping[str, int | None] | None = None,
        device: str | None = None,
        memory: str | None = None,
        silent: float = SILENT,
    ) -> None:
        """Make a worker with this name on an open store.

        Args:
            store: store of the jobs, and for the results.
            name: a stable and unique name: a worker that restarts under it continues its jobs.
            queues: queues to take jobs from, and how many jobs of each a worker runs at a time; this number holds for
                all workers of the queue; None: as set before, else one. Default: "default".
            device: where its jobs compute; it is no choice of theirs. Default: the CPU.
            memory: limit of memory of each of its jobs, such as "8GiB". Default: half of what is free.
            silent: seconds without a report after which another worker counts as gone.
        """
        queues = {"default": None} if queues is None else dict(queues)
        if not queues or min(1 if n is None else n for n in queues.values()) < 1:
            raise StoreError(f"the queues are {queues}: expected at least one, with at least one job at a time")
        self.store, self.name = store, name
        self._queues, self._silent = queues, silent
        self._place = device, memory
        self._stopping = threading.Event()
        self._running: dict[str, Child] = {}
        self._resting: list[Child] = []
        self._lock = threading.Lock()
        self._cut_off = -math.inf  # when the database was last away, on the monotonic clock

    def stop(self, *_: object) -> None:
        """Make `run` return its unfinished jobs to the queue and end."""
        self._stopping.set()

    def stop_without(self, parent: int) -> None:
        """Stop when the process that started this one is gone."""

        def watch() -> None:
            while not self._stopping.wait(1.0):
                if os.getppid() != parent:
                    self.stop()

        threading.Thread(target=watch, daemon=True).start()

    def run(self) -> None:
        """Work until `stop` is called.

        Raises:
            ConflictError: another process runs under the same name; or, on SQLite, under any name.
        """
        self._require_no_rival()
        self.store.beat(self.name)
        engine = Engine(self.store.location, self.name, self._workflow, self._queues)
        threading.Thread(target=self._live, daemon=True).start()
        looked = 0.0
        while not self._stopping.wait(_PUMP):
            try:
                for job in self.store.waiting_jobs():
                    self._enqueue(engine, job)
                if time.monotonic() - looked > _BEAT:
                    self._take_over(engine)
                    self._find_lost(engine)
                    self.store.look_after_schedules()
                    self._dismiss(_IDLE)
                    looked = time.monotonic()
            except (StoreError, SQLAlchemyError) as error:  # the database is away: what runs goes on, and we try again
                self._cut_off = time.monotonic()
                _log.warning("%s", error)
                self._stopping.wait(_BEAT)
        self._give_back(engine)

    def _require_no_rival(self) -> None:
        """Refuse to start beside another worker; a worker that is gone reports no more, a rival does."""
        on_sqlite = self.store.location.file is not None
        for rival in self.store.workers():
            gone = rival.host == socket.gethostname() and not _exists(rival.pid)
            if not rival.alive or gone or not (on_sqlite or rival.id == self.name):
                continue
            deadline = time.monotonic() + 2.5 * _BEAT
            while time.monotonic() < deadline and not self._stopping.wait(0.2):
                if any(w.id == rival.id and w.heartbeat > rival.heartbeat for w in self.store.workers()):
                    why = "SQLite takes one worker" if rival.id != self.name else "give this one another --name"
                    raise ConflictError(f"worker {rival.id} is running on {rival.host} (process {rival.pid}): {why}")

    def _live(self) -> None:
        """Report that this worker is alive, whatever else it is doing."""
        while not self._stopping.wait(_BEAT):
            try:
                self.store.beat(self.name)
            except StoreError as error:
                self._cut_off = time.monotonic()
                _log.warning("%s", error)

    def _take_over(self, engine: Engine) -> None:
        if time.monotonic() - self._cut_off < self._silent:
            return  # the others could not say that they live
        for worker in self.store.silent_workers(self._silent):
            if worker == self.name:
                continue
            for job in engine.take_over(worker):
                _log.warning("job %s of silent worker %s goes back", job, worker, extra={"fields": {"job_id": job}})
            self.store.forget_worker(worker)

    def _enqueue(self, engine: Engine, job: JobRow) -> None:
        """Give the engine a run; if the engine refuses it the run fails, and the others continue."""
        try:
            engine.enqueue(job.queue, job.id, job.run, job.priority)
        except (StoreError, SQLAlchemyError):
            raise  # the database is away
        except Exception as error:
            self._fail_lost(job, f"the job engine refused it: {_in_short(error)}")
        else:
            self.store.mark_enqueued(job.id, job.run)

    def _find_lost(self, engine: Engine) -> None:
        """Find jobs whose run will not continue: let them fail with its reason, or queue them again."""
        lost = {(job.id, job.run): job for job in self.store.lost_jobs(self.name, list(self._running))}
        for key, why in engine.given_up(list(lost)).items():
            what = "it could not be started" if lost[key].state == "queued" else "its run broke off"
            self._fail_lost(lost[key], None if why is None else f"{what}: {why}")

    def _fail_lost(self, job: JobRow, error: str | None) -> None:
        if self.store.end_lost_job(job.id, job.run, error=error):
            said = error or "the job engine does not know it: it is queued again"
            _log.warning("job %s: %s", job.id, said, extra={"fields": {"job_id": job.id}})

    def _give_back(self, engine: Engine) -> None:
        running = list(self._running.items())
        for _, child in running:
            child.close()
        self._dismiss(0.0)
        try:
            for job, _ in running:
                self.store.give_back_job(job, self.name)
                _log.info("job %s goes back to the queue", job, extra={"fields": {"job_id": job}})
            self.store.retire(self.name)
        except StoreError as error:  # the database is away: others take over once this worker has been silent
            _log.warning("%s", error)
        engine.close()

    def _workflow(self, job: str, run: int, once: Callable[[str, Callable[[], Any]], Any]) -> None:
        """Run the steps of a job in order; skip those that are done."""
        try:
            row = self._patiently(lambda: self.store.begin_job(job, run, self.name))
        except Exception as error:
            why = f"it cannot begin: {_in_short(error)}"
            _log.exception("job %s cannot begin", job, extra={"fields": {"job_id": job}})
            self._patiently(lambda: self.store.end_lost_job(job, run, error=why))
            raise
        if row is None:
            state = self._patiently(lambda: self.store.get_job(job)).state
            _log.info("job %s does not begin: it is %s", job, state, extra={"fields": {"job_id": job, "state": state}})
            return
        _log.info("job %s begins: %s %s", job, row.task, row.target, extra={"fields": {"job_id": job}})
        child, kept = None, False
        try:
            child = self._running[job] = self._child(row)
            before: dict[str, Any] = {}
            for step in TASKS[row.task]:
                found = once(step, lambda step=step: self._step(row, child, step, before))
                if "ended" in found:
                    self._end(row, found["ended"], error=found.get("error"), late=found.get("late", False))
                    return
                before[step] = found
            self._end(row, "succeeded", [result for found in before.values() for result in found.get("results", ())])
            kept = self._rest(child)
        except Exception as error:  # of the engine, which forgets the run; ours must not be left running for ever
            if not self._stopping.is_set():
                _log.exception("job %s broke down", job, extra={"fields": {"job_id": job}})
                self._end(row, "failed", error=_in_short(error))
            raise
        finally:
            self._running.pop(job, None)
            if child is not None and not kept:
                child.close()

    def _end(
        self,
        row: JobRow,
        state: str,
        results: Sequence[Mapping[str, Any]] = (),
        *,
        error: str | None = None,
        late: bool = False,
    ) -> None:
        """Record the end of a run, and log it; `late`: it failed because of its timeout."""
        end = partial(self.store.end_job, row.id, row.run, self.name, state, error=error, results=results)
        left = self._patiently(end)
        how = f"{left} now" if left != state else "timed out" if late else state
        why = f": {' '.join(error.split())[-_SAID:]}" if error else ""
        made = {"results": [result["id"] for result in results]} if results else {}
        fields = {"job_id": row.id, "task": row.task, "state": left, "timed_out": late or None, **made}
        level = logging.WARNING if state == "failed" else logging.INFO
        _log.log(level, "job %s %s%s", row.id, how, why, extra={"fields": fields})

    def _child(self, row: JobRow) -> Child:
        """Return a computing process for a job, an idle one where there is one."""
        with self._lock:
            child = self._resting.pop() if self._resting else None
        child = child or Child(_url(self.store), self.store.location.artifacts, *self._place)
        child.begin(row.to_json())
        return child

    def _rest(self, child: Child) -> bool:
        """Keep the process of a job that succeeded for the next one, unless it is worn out; return whether."""
        with self._lock:
            if child.jobs < _JOBS:
                child.rested = time.monotonic()
                self._resting.append(child)
            return child in self._resting

    def _dismiss(self, older: float) -> None:
        """End processes that have been idle for so many seconds."""
        with self._lock:
            idle = [child for child in self._resting if time.monotonic() - child.rested >= older]
            self._resting = [child for child in self._resting if child not in idle]
        for child in idle:
            child.close()

    def _step(self, row: JobRow, child: Child, step: str, before: Mapping[str, Any]) -> dict[str, Any]:
        """Run a step; return its result, or how it ended the job; replace a process that dies up to three times."""
        noted, late, latest, pace = 0.0, False, None, Pace()

        def go_on(news: Mapping[str, Any] | None) -> bool:
            nonlocal noted, late, latest
            latest = news or latest
            if news:
                pace.note(news["phase"], news["fraction"], time.monotonic())
            if self._stopping.is_set():
                return False
            late = row.timeout is not None and time.monotonic() - child.begun > row.timeout
            if late:
                return False
            if time.monotonic() - noted < _NOTE:
                return True
            noted = time.monotonic()
            fraction = latest["fraction"] if latest else None
            message, remaining = latest["message"] if latest else "", pace.remaining(time.monotonic())
            try:
                return self.store.report_job(
                    row.id, self.name, step=step, fraction=fraction, message=message, remaining=remaining
                )
            except StoreError:
                return True  # the database is away; the computation does not need it

        while True:
            try:
                return child.run(step, before, go_on=go_on)
            except Exception as error:
                if self._stopping.is_set():
                    threading.Event().wait()  # the process ends; the run goes on elsewhere
                if isinstance(error, StoppedError):
                    late_error = f"stopped after its timeout of {row.timeout:g} s in step {step}" if late else None
                    return {"ended": "failed" if late else "cancelled", "error": late_error, "late": late}
                known = isinstance(error, FailedError | DiedError)
                problem = str(error) if known else _in_short(error)
                trace = error.trace if isinstance(error, FailedError | DiedError) else traceback.format_exc()
                if trace:
                    said = "job %s, step %s:\n%s"
                    _log.warning(said, row.id, step, trace[-_TRACE:], extra={"fields": {"job_id": row.id}})
                if isinstance(error, FailedError) and error.final:
                    return {"ended": "failed", "error": problem}
                child.kill()
            _log.warning("job %s, step %s: %s", row.id, step, problem, extra={"fields": {"job_id": row.id}})
            again = partial(self.store.begin_job, row.id, row.run, self.name, error=problem)
            if self._patiently(again) is None:
                return {"ended": "failed", "error": problem}

    def _patiently(self, write: Callable[[], Any]) -> Any:
        """Repeat a write that must happen until the database is available."""
        while True:
            try:
                return write()
            except (UnavailableError, ReadOnlyError) as error:
                _log.warning("%s", error)
                time.sleep(_BEAT)


def _in_short(error: BaseException) -> str:
    """Describe an unexpected error in one line; the log has the traceback."""
    return f"{type(error).__name__}: {error} (the worker's log has the traceback)"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def _url(store: Store) -> str:
    file = store.location.file
    return str(file) if file is not None else store.location.url.render_as_string(hide_password=False)


def stop_on_signals(supervisor: Supervisor) -> None:
    """Stop the worker on SIGTERM or Ctrl-C; a second signal ends the process at once."""

    def stop(*_: object) -> None:
        if supervisor._stopping.is_set():
            os._exit(1)
        supervisor.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
