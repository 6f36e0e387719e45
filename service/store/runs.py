"""Runs: which training of a model a checkpoint belongs to.

A checkpoint whose JSON names a run belongs to that run. Any other joins the newest run of its model with the same
family and config, unless that run has another file for the same moment of the training: then it opens a new run.
Files that are registered together (`Source.together`) join it all or none. Numbers of removed runs are not used again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from ..records.errors import ConflictError, NotFoundError, StoreError
from ..storage.references import new_id, resolve
from ..storage.tables import Checkpoint, Graph, Model, Run
from .saving import added, now

__all__ = ["Moment", "check_run_label", "followed_run", "named_run", "newest_run", "run_for", "same_checkpoint"]


@dataclass(frozen=True)
class Moment:
    """What tells a checkpoint from others of its model.

    Attributes:
        sha256: hash of its file.
        family, config: what it is built from.
        step, label: moment of the training; without a step the label counts.
        run: label or ID of the run that it names, or None.
        after: where it names none, only runs with a larger number than this are joined.
    """

    sha256: str
    family: str
    config: Mapping[str, Any]
    step: int | None = None
    label: str | None = None
    run: str | None = None
    after: int = 0

    def built_as(self, row: Run | Checkpoint) -> bool:
        """Return whether a run or checkpoint has the same family and config."""
        return (row.family, row.config) == (self.family, self.config)


def check_run_label(label: str) -> None:
    """Refuse what cannot name a run.

    Raises:
        StoreError: it is empty, too long, or cannot be printed.
    """
    if not isinstance(label, str) or not label.strip() or not label.isprintable() or "@" in label or len(label) > 200:
        raise StoreError(f"a run cannot be called {label!r}: expected up to 200 printable characters, no @")


def newest_run(session: Session, model: Model) -> Run | None:
    """Return the newest run of a model, None where it has none yet."""
    return session.scalar(_runs(model).order_by(Run.number.desc()).limit(1))


def named_run(session: Session, model: Model, moment: Moment) -> Run | None:
    """Return the run of a model that a checkpoint names; None where there is none of this label or ID yet.

    Raises:
        ConflictError: its checkpoints have another family or config.
    """
    if moment.run is None:
        return None
    row = session.scalar(_runs(model).where((Run.label == moment.run) | (Run.id == moment.run)))
    if row is not None and not moment.built_as(row):
        raise ConflictError(
            f"the run {moment.run!r} of model {model.name!r} has family {row.family!r} and config {row.config}, not "
            f"{moment.family!r} and {dict(moment.config)}: choose another name for this run"
        )
    return row


def same_checkpoint(session: Session, model: Model, moment: Moment) -> Checkpoint | None:
    """Return the stored checkpoint with the same file, family and config, in the run that is named or in any."""
    found = select(Checkpoint).join(Run).where(Checkpoint.sha256 == moment.sha256)
    if moment.run is not None:
        run = named_run(session, model, moment)
        return None if run is None else session.scalar(found.where(Run.key == run.key))
    rows = session.scalars(found.where(Run.model_key == model.key).order_by(Run.number))
    return next((row for row in rows if moment.built_as(row)), None)


def run_for(session: Session, model: Model, moment: Moment) -> Run:
    """Return the run that a new checkpoint of a model belongs to; open one where it needs one of its own."""
    row = named_run(session, model, moment) if moment.run is not None else _joined(session, model, moment)
    if row is not None:
        return row
    number = model.n_runs + 1
    model.n_runs, model.family, model.config = number, moment.family, dict(moment.config)
    made = Run(
        id=new_id(session, Run, model.name, str(number)),
        created=now(),
        model=model,
        number=number,
        label=moment.run,
        family=moment.family,
        config=dict(moment.config),
    )
    return added(session, made)


def followed_run(session: Session, ref: str, like: str | None = None) -> Run:
    """Return the run that tracking follows: the one that is named; of a model the newest with two analysed checkpoints.

    Args:
        session: the transaction.
        ref: reference of a run or a model.
        like: reference of a graph; of a model, its run is followed.

    Raises:
        NotFoundError: there is no such run, model or graph, or the graph is of another model.
    """
    try:
        model = resolve(session, Model, ref)
    except NotFoundError:
        return resolve(session, Run, ref)
    if like is not None:
        graph = resolve(session, Graph, like)
        if graph.checkpoint.run.model_key != model.key:
            raise NotFoundError(
                f"{graph.id} is a graph of model {graph.checkpoint.run.model.name!r}, not of {model.name!r}"
            )
        return graph.checkpoint.run
    query = select(Run).join(Checkpoint, Checkpoint.run_key == Run.key).join(Graph).where(Run.model_key == model.key)
    several = func.count(Graph.checkpoint_key.distinct()) >= 2
    alike = select(Run.key).join(Checkpoint, Checkpoint.run_key == Run.key).join(Graph)
    alike = alike.group_by(Run.key, Graph.dataset_key, Graph.recipe_hash).having(several)
    found = session.scalars(query.where(Run.key.in_(alike)).order_by(Run.number.desc()).limit(1)).first()
    return found or resolve(session, Run, model.id)


def _joined(session: Session, model: Model, moment: Moment) -> Run | None:
    """Return the newest run of the same family and config, unless it has another file for the same moment."""
    rows = session.scalars(_runs(model).where(Run.number > moment.after).order_by(Run.number.desc()))
    row = next((row for row in rows if moment.built_as(row)), None)
    if row is None:
        return None
    same = [Checkpoint.run_key == row.key, Checkpoint.step.is_(None), Checkpoint.label == moment.label]
    if moment.step is not None:
        same = [Checkpoint.run_key == row.key, Checkpoint.step == moment.step]
    taken = moment.step is not None or moment.label is not None
    other = session.scalar(select(Checkpoint.key).where(*same).limit(1)) if taken else None
    return row if other is None else None


def _runs(model: Model) -> Select[Run]:
    return select(Run).where(Run.model_key == model.key)
