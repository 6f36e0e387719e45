"""Schedules: submit jobs at set times (cron), or for each new checkpoint of a model.

At set times the jobs are about the newest run of the model.

A checkpoint is new if it was registered after the schedule was made; a schedule with a folder registers the files that
appear there, and the folders `checkpoint-...` that `save_pretrained` writes into it. Workers run schedules. The same
work gives one job, so several workers may run a schedule at the same time, and an interrupted pass is simply repeated.
Times that passed while no worker ran count once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, or_, select
from sqlalchemy.orm import Session

from ..records.base import Page, plain
from ..records.checkpoints import place_of
from ..records.choices import as_json
from ..records.errors import StoreError, UnavailableError
from ..records.jobs import ON_CHECKPOINTS, ScheduleRow, check_request
from ..storage.artifacts import Blobs
from ..storage.location import Location
from ..storage.pages import page
from ..storage.references import belongs, new_id, resolve
from ..storage.tables import Checkpoint, Graph, Model, Partition, Row, Schedule
from .jobs import Jobs
from .registry import check_name
from .runs import newest_run
from .saving import now

__all__ = ["Schedules"]

_OVERLAP = timedelta(minutes=2)  # between looks: clocks differ, and transactions end late

_TARGETS: dict[str, type[Row]] = {
    "experiment": Partition,
    "describe": Partition,
    "compare": Partition,
    "partition": Graph,
}  # of other tasks: checkpoints

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"

_QUIET = 2.0  # seconds for which a file must not have changed before it counts as written


class Schedules(Jobs):
    """The part of the store for schedules."""

    def __init__(self, location: Location, engine: Engine, blobs: Blobs, *, patience: float = 0.0) -> None:
        """Keep the connections that `Store.open` made."""
        super().__init__(location, engine, blobs, patience=patience)
        self._asked: set[tuple[str, str]] = set()  # schedules and checkpoints, to spare asking in each overlap
        self._seen: dict[tuple[Path, str], tuple[Any, list[str]]] = {}  # files, as they were when they were looked at

    def add_schedule(
        self,
        task: str,
        model: str,
        choices: Mapping[str, Any] | None = None,
        *,
        cron: str | None = None,
        folder: str | Path | None = None,
        queue: str = "default",
        priority: int = 0,
        timeout: float | None = None,
    ) -> ScheduleRow:
        """Add a schedule, which submits jobs at set times or for each new checkpoint.

        Args:
            task: one of `TASKS`.
            model: name of the model; it may not be stored yet.
            choices: choices of the jobs, see `submit`.
            cron: five fields as in crontab, in UTC. At each time, submit a job for every checkpoint of the model's
                newest run (partition: graph; experiment: partition; track: the run) that has none yet. Default: a
                job for each new checkpoint.
            folder: folder to watch for new checkpoints.
            queue: queue of the jobs.
            priority: priority of the jobs.
            timeout: timeout of the jobs, in seconds.

        Raises:
            StoreError: an unknown task or choice, an invalid cron, a missing folder, or anything that `submit` refuses.
        """
        given = as_json(choices or {})
        check_request(task, given, queue=queue, priority=priority, timeout=timeout)
        given = plain(given)
        if task == "import":
            raise StoreError("import reads one file: submit a job for each, it has no schedule")
        if cron is None and task not in ON_CHECKPOINTS:
            raise StoreError(f"{task} does not run on one checkpoint: give a time (cron)")
        check_name(model)
        if folder is not None and not Path(folder).is_dir():
            raise StoreError(f"{folder} is not a folder: expected one to watch for checkpoints")
        moment = now()

        def make(session: Session) -> ScheduleRow:
            row = Schedule(
                id=new_id(session, Schedule, os.urandom(16).hex()),
                created=moment,
                task=task,
                model=model,
                cron=cron,
                folder=None if folder is None else str(Path(folder).resolve()),
                choices=given,
                queue=queue,
                priority=priority,
                timeout=timeout,
                paused=False,
                next_run=None if cron is None else _after(cron, moment),
                seen=moment,
                jobs=[],
            )
            session.add(row)
            session.flush()
            return _schedule_row(row)

        return self._write(make)

    def get_schedule(self, ref: str) -> ScheduleRow:
        """Return the schedule with this ID, or unique start of an ID."""
        with self._read() as session:
            return _schedule_row(resolve(session, Schedule, ref))

    def schedules(
        self, *, cursor: str | None = None, limit: int = 100, newest_first: bool = False
    ) -> Page[ScheduleRow]:
        """List all schedules."""
        options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest_first}
        with self._read() as session:
            return page(session, Schedule, select(Schedule), _schedule_row, **options)

    def pause_schedule(self, ref: str) -> ScheduleRow:
        """Pause a schedule; times that pass meanwhile are skipped."""
        return self._change(ref, paused=True, next_run=None)

    def resume_schedule(self, ref: str) -> ScheduleRow:
        """Resume a schedule; it also handles checkpoints that are new since it was paused."""
        cron = self.get_schedule(ref).cron
        return self._change(ref, paused=False, next_run=None if cron is None else _after(cron, now()))

    def run_schedule(self, ref: str) -> ScheduleRow:
        """Submit a schedule's jobs now, for everything that has none yet; a paused one stays paused."""
        return self._change(ref, next_run=now())

    def remove_schedule(self, ref: str) -> None:
        """Remove a schedule; its jobs stay."""
        self._write(lambda session: session.delete(resolve(session, Schedule, ref)))

    def _change(self, ref: str, **values: Any) -> ScheduleRow:
        def change(session: Session) -> ScheduleRow:
            row = resolve(session, Schedule, ref)
            for name, value in values.items():
                setattr(row, name, value)
            return _schedule_row(row)

        return self._write(change)

    # What workers do

    def look_after_schedules(self) -> None:
        """Register new checkpoints in watched folders, and submit the jobs that are due."""
        with self._read() as session:
            rows = [(_schedule_row(row), row.seen) for row in session.scalars(select(Schedule).order_by(Schedule.key))]
        for row, seen in rows:
            moment = now()
            due = row.next_run is not None and row.next_run <= moment
            if due or not row.paused:
                self._fire(row, seen, due, moment)

    def _fire(self, row: ScheduleRow, seen: datetime, due: bool, moment: datetime) -> None:
        """Submit the jobs of one schedule that are due; record an error on the schedule."""
        problems = []
        if row.folder is not None:
            problems += self._register_folder(Path(row.folder), row.model)
        jobs = []
        options: dict[str, Any] = {"queue": row.queue, "priority": row.priority, "timeout": row.timeout}
        for target in self._targets(row, seen, due):
            try:
                jobs.append(self.submit(row.task, target, row.choices, again=False, **options).id)
            except UnavailableError:
                raise
            except StoreError as error:
                problems.append(str(error))
        error = "\n".join(problems) or None
        if due or jobs or error != row.error:
            self._note(row, due, moment, jobs, error)

    def _targets(self, row: ScheduleRow, seen: datetime, due: bool) -> Iterator[str]:
        """Yield the targets that need a job."""
        if row.cron is not None and not due:
            return
        with self._read() as session:
            model = session.scalar(select(Model).where(or_(Model.name == row.model, Model.id == row.model)))
            run = None if model is None else newest_run(session, model)
            if model is None or run is None:
                return  # nothing of it has been registered yet
            if row.task == "track":
                found = [model.id]
            elif due:
                table = _TARGETS.get(row.task, Checkpoint)
                query = select(table.id).where(belongs(table, "run", run.key))
                found = list(session.scalars(query.order_by(table.key)))
            else:
                new = Checkpoint.created >= max(seen - _OVERLAP, row.created)
                query = select(Checkpoint.id).where(belongs(Checkpoint, "model", model.key), new)
                rows = session.scalars(query.order_by(Checkpoint.key))
                found = [ref for ref in rows if (row.id, ref) not in self._asked]
        for ref in found:
            yield ref
            self._asked.add((row.id, ref))

    def _note(self, row: ScheduleRow, due: bool, moment: datetime, jobs: list[str], error: str | None) -> None:
        def note(session: Session) -> None:
            stored = session.scalar(select(Schedule).where(Schedule.id == row.id).with_for_update())
            if stored is None:
                return
            stored.error, stored.seen = error, moment
            if jobs and (due or set(jobs) - set(stored.jobs)):
                stored.jobs, stored.last_run = jobs, moment
            if due and stored.next_run == row.next_run:
                stored.last_run = moment
                stored.next_run = _after(row.cron, moment) if row.cron is not None and not stored.paused else None

        self._write(note)

    def _register_folder(self, folder: Path, model: str) -> list[str]:
        """Register the complete checkpoints of a model in a folder; return one line per file that failed.

        A file is read again only if it, or its JSON, has changed since.
        """
        with self._read() as session:
            known = dict(session.execute(select(Checkpoint.path, Checkpoint.created).order_by(Checkpoint.key)).all())
        try:
            files = [*sorted(folder.glob("*.safetensors")), *_saved(folder)]
        except OSError as error:
            return [f"cannot read {folder}: {error.strerror}"]
        problems: list[str] = []
        changed: dict[Path, Any] = {}
        for file in files:
            try:
                state = _state(file)
                seen, found = self._seen.get((file, model), (None, []))
                if state is None or seen == state:
                    problems += found if state is not None else []
                elif seen is None and (at := _known(file, known)) is not None and state[0] < at.timestamp():
                    self._seen[file, model] = state, []
                elif wrong := _unfit(folder, file):
                    self._seen[file, model] = state, [wrong]
                    problems.append(wrong)
                else:
                    changed[file] = state
            except OSError as error:
                problems.append(str(error))
            except RuntimeError:  # links in a circle
                problems.append(f"cannot read {file.name} and its JSON")
        with self.together(changed):
            for file, state in changed.items():
                self._seen[file, model] = state, self._register_file(file, model)
                problems += self._seen[file, model][1]
        return problems

    def _register_file(self, file: Path, model: str) -> list[str]:
        """Register one checkpoint of a watched folder; return what is wrong with it."""
        try:
            row = self.register_checkpoint(file)
        except UnavailableError:
            raise
        except StoreError as error:
            return [str(error)]
        return [] if row.model == model else [f"{file.name} belongs to model {row.model!r}, not {model!r}"]


def _saved(folder: Path) -> list[Path]:
    """List the folders of checkpoints of one training, as transformers names them, by their steps."""
    found = [path for path in folder.glob("checkpoint-*") if path.name[11:].isdecimal() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name[11:]))


def _parts(file: Path) -> list[Path]:
    """List the files of a checkpoint: a file and its JSON; of a folder the config and the files of its weights."""
    return [file / "config.json", *sorted(file.glob("*.safetensors*"))] if file.is_dir() else [file, _json(file)]


def _json(file: Path) -> Path:
    return file.with_suffix(".json")


def _known(file: Path, known: Mapping[str | None, datetime]) -> datetime | None:
    """Return when a checkpoint was registered; None if it was not."""
    stands = [place for place in (file / _WEIGHTS, file / _INDEX) if place.exists()] if file.is_dir() else [file]
    return next((known[place] for place in map(place_of, stands) if place in known), None)


def _state(file: Path) -> tuple[float, ...] | None:
    """Return when the files of a checkpoint were last written, and their sizes; None while it is not complete."""
    whole = any((file / name).exists() for name in (_WEIGHTS, _INDEX)) if file.is_dir() else True
    parts = _parts(file)
    if not whole or not (parts[0] if file.is_dir() else parts[1]).exists():
        return None
    found = [part.stat() for part in parts]
    written = max(each.st_mtime for each in found)
    if time.time() - written < _QUIET:
        return None
    return written, *(each.st_size for each in found)


def _unfit(folder: Path, file: Path) -> str | None:
    """Say why a checkpoint of a watched folder is not read; None for an ordinary one."""
    parts = _parts(file)
    if outside := [f.name for f in parts if not f.resolve().is_relative_to(folder)]:
        return f"{' and '.join(outside)} leads out of {folder}"
    if unusual := [f.name for f in parts if not f.is_file()]:
        return f"{' and '.join(unusual)} is not an ordinary file"
    return None


def _schedule_row(row: Schedule) -> ScheduleRow:
    values = {name: getattr(row, name) for name in ScheduleRow.__dataclass_fields__ if name != "jobs"}
    return ScheduleRow(**values, jobs=tuple(row.jobs))


def _after(cron: str, moment: datetime) -> datetime:
    """Return the next time of a schedule after a moment.

    >>> _after("30 2 * * *", datetime(2026, 1, 1, 3, tzinfo=UTC)).isoformat()
    '2026-01-02T02:30:00+00:00'
    """
    from croniter import croniter

    if len(cron.split()) != 5 or not croniter.is_valid(cron):
        raise StoreError(f"cannot read the time {cron!r}: expected five fields as in crontab, for example '0 2 * * *'")
    try:
        following: datetime = croniter(cron, moment.astimezone(UTC)).get_next(datetime)
    except (ValueError, KeyError) as error:
        raise StoreError(f"the time {cron!r} never comes: {error}") from error
    return following
