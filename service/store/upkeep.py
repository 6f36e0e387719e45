"""Change what is stored: remove things with all that belongs to them, rename models, relocate checkpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, delete, false, func, or_, select, update
from sqlalchemy.orm import Session

from ..records.base import Kind
from ..records.checkpoints import CheckpointRow, ModelRow, checkpoint_sha256, place_of, weights_of
from ..records.errors import ConflictError, StoreError
from ..records.kinds import KINDS
from ..records.maintenance import Removal
from ..storage.references import belongs, owners_of, resolve
from ..storage.rows import record
from ..storage.tables import (
    ARTIFACT_COLUMNS,
    TABLES,
    Checkpoint,
    Comparison,
    Graph,
    Job,
    Label,
    Model,
    Partition,
    Row,
    Run,
    Schedule,
    Tracking,
    TrackingCheckpoint,
)
from .registry import Registry, check_new_name
from .runs import newest_run
from .saving import drop_unreferenced

__all__ = ["Upkeep"]

_UNDER_WAY = ("queued", "running")

_TARGETS = ("model", "run", "checkpoint", "graph", "partition")  # of jobs


class Upkeep(Registry):
    """The part of the store that removes, renames and relocates."""

    def removal(self, kind: Kind[Any, Any], ref: str) -> Removal:
        """Return what `remove` would remove: the thing itself, and how many of each kind go along."""
        with self._read() as session:
            return _removal(session, resolve(session, TABLES[kind.name], ref))

    def remove(self, kind: Kind[Any, Any], ref: str) -> Removal:
        """Remove a thing with all that belongs to it; `collect` then removes the files that nothing refers to.

        Raises:
            ConflictError: a job on it waits or runs.
        """

        def work(session: Session) -> Removal:
            row: Any = resolve(session, TABLES[kind.name], ref)
            gone = _removal(session, row)
            _require_idle(session, row, _UNDER_WAY)
            going = _going(row)
            garbage = [sha256 for name, condition in going.items() for sha256 in _files(session, name, condition)]
            for table in (Tracking, TABLES[row.kind]):  # trackings of removed graphs; all else goes with its owner
                if table.kind in going:
                    found = delete(table).where(going[table.kind])
                    session.execute(found, execution_options={"synchronize_session": False})
            drop_unreferenced(session, garbage)
            session.execute(delete(Schedule).where(Schedule.id.in_(gone.schedules)))
            if isinstance(row, Run) and (left := newest_run(session, row.model)) is not None:
                row.model.family, row.model.config = left.family, left.config
            return gone

        return self._write(work)

    def rename_model(self, ref: str, name: str) -> ModelRow:
        """Give a model another name, also in its checkpoints' stored JSON and in schedules that watch no folder.

        Files that name the old one in their JSON still belong to a model of that name.

        Raises:
            ConflictError: another model is called so, or a job on the model is running.
            StoreError: the name is not valid.
        """
        check_new_name(name)

        def rename(session: Session) -> ModelRow:
            row = resolve(session, Model, ref)
            other = session.scalar(select(Model).where(Model.name == name))
            if other is not None and other is not row:
                raise ConflictError(f"{other.id} is called {name!r} already: choose another name, or remove that model")
            _require_idle(session, row, ("running",))
            for checkpoint in session.scalars(select(Checkpoint).where(belongs(Checkpoint, "model", row.key))):
                if checkpoint.about is not None:
                    checkpoint.about = {**checkpoint.about, "model": name}
            follows = Schedule.model == row.name, Schedule.folder.is_(None)
            session.execute(update(Schedule).where(*follows).values(model=name))
            row.name = name
            session.flush()
            return record(row, ModelRow)

        return self._write(rename)

    def relocate_checkpoint(self, ref: str, file: Path | str) -> CheckpointRow:
        """Say where the file of a checkpoint is now.

        Args:
            ref: reference of the checkpoint.
            file: its file or its folder of `save_pretrained`, or "sha256:..." of one that `add_file` stored.

        Raises:
            StoreError: the file is not that of the checkpoint, or cannot be read.
        """
        kept = self.get_file(file).sha256 if isinstance(file, str) and file.startswith("sha256:") else None
        path = weights_of(Path(file)) if kept is None else Path(file)
        digest = kept or checkpoint_sha256(path)

        def move(session: Session) -> CheckpointRow:
            row = resolve(session, Checkpoint, ref)
            if digest != row.sha256:
                raise StoreError(
                    f"{file} is not the file of {row.id}: it has SHA-256 {digest[:12]}..., not {row.sha256[:12]}..."
                )
            if kept is not None:
                row.file_sha256 = kept
            else:
                row.path = place_of(path)
            session.flush()
            return record(row, CheckpointRow)

        return self._write(move)


def _going(row: Row) -> dict[str, ColumnElement[bool]]:
    """Return, by kind, the condition that things are removed together with one: that itself first."""
    table = type(row)
    found: dict[str, ColumnElement[bool]] = {row.kind: table.key == row.key}
    found |= {name: belongs(TABLES[name], row.kind, row.key) for name in KINDS if row.kind in owners_of(name)}
    if "graph" in found and row.kind not in ("model", "run"):
        followed = select(TrackingCheckpoint.tracking_key).where(TrackingCheckpoint.graph.has(found["graph"]))
        found["tracking"] = or_(found.get("tracking", false()), Tracking.key.in_(followed))
    if (divided := found.get("partition")) is not None:
        others = Comparison.other_key.in_(select(Partition.key).where(divided))
        found["comparison"] = or_(found["comparison"], others)
    return found


def _removal(session: Session, row: Row) -> Removal:
    counts: Counter[str] = Counter()
    for name, condition in _going(row).items():
        if name != row.kind:
            counts[KINDS[name].plural] = session.scalar(select(func.count(TABLES[name].key)).where(condition)) or 0
    if (going := _going(row).get("graph")) is not None:
        graphs = select(Graph.key).where(going)
        of = Label.graph_key.in_(graphs), Label.text.is_not(None)
        counts["labels"] = session.scalar(select(func.count(Label.key)).where(*of)) or 0
    along = {kind: n for kind, n in counts.items() if n}
    return Removal(kind=row.kind, id=row.id, name=_name(row), along=along, schedules=_followers(session, row))


def _followers(session: Session, row: Row) -> tuple[str, ...]:
    """Return the IDs of the schedules that follow a model."""
    names = {row.id, row.name} if isinstance(row, Model) else set()
    return tuple(session.scalars(select(Schedule.id).where(Schedule.model.in_(names)).order_by(Schedule.key)))


def _name(row: Any) -> str | None:
    """Return how people call a thing, beside its ID."""
    if isinstance(row, Model):
        return row.name
    if isinstance(row, Run):
        return f"{row.model.name}#{row.number}"
    if isinstance(row, Checkpoint):
        return f"{row.run.model.name}#{row.run.number}@{row.label if row.step is None else row.step}"
    owner = KINDS[row.kind].owners[:1]
    return _name(getattr(row, owner[0])) if owner else None


def _files(session: Session, name: str, condition: ColumnElement[bool]) -> Iterator[str]:
    """Yield the files of the things of a kind that are removed."""
    for column in ARTIFACT_COLUMNS:
        if column.class_ is TABLES[name]:
            yield from session.scalars(select(column).where(condition, column.is_not(None)))


def _require_idle(session: Session, row: Row, states: Collection[str]) -> None:
    """Refuse to change what a job works on.

    Raises:
        ConflictError: the message names the first such job.
    """
    going = {name: condition for name, condition in _going(row).items() if name in _TARGETS}
    targets = {ref for name, of in going.items() for ref in session.scalars(select(TABLES[name].id).where(of))}
    followed = session.scalars(select(Run.id).where(Run.key == _run_key(row))).first()
    for job in session.scalars(select(Job).where(Job.state.in_(states)).order_by(Job.key)):
        if job.target in targets or (job.task == "track" and job.target == followed):
            doing = "is running" if job.state == "running" else "waits"
            raise ConflictError(
                f"{row.id} cannot be changed now: the job {job.id} ({job.task} {job.target}) {doing}; wait for it, or "
                f"cancel it with `interbasis cancel {job.id}`"
            )


def _run_key(row: Any) -> int | None:
    """Return the key of the run to which a thing belongs, None where it belongs to none."""
    while row is not None and not isinstance(row, Run):
        owners = KINDS[row.kind].owners
        row = getattr(row, owners[0]) if owners else None
    return None if row is None else row.key
