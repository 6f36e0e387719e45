"""Models, their runs and checkpoints, data sets, and files kept for jobs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..records.base import plain
from ..records.checkpoints import (
    CheckpointRow,
    DatasetRow,
    FileRow,
    ModelRow,
    RunRow,
    checkpoint_sha256,
    describe,
    of_checkpoint,
    place_of,
    run_label,
    training_key,
)
from ..records.errors import ForbiddenError, NotFoundError, StoreError
from ..records.kinds import kinds_of
from ..storage import connection as connections
from ..storage.references import new_id, resolve
from ..storage.rows import record
from ..storage.tables import Artifact, Checkpoint, Dataset, Model
from .reading import Reader
from .runs import Moment, check_run_label, followed_run, named_run, newest_run, run_for, same_checkpoint
from .saving import added, now

__all__ = ["Registry", "check_name", "check_new_name"]


class Registry(Reader):
    """The part of the store for models, runs, checkpoints, data sets and files."""

    def register_model(self, name: str, family: str, config: Mapping[str, Any]) -> ModelRow:
        """Return the model with this name; create it where there is none.

        A model that is trained again, with this family and config, gets a new run with the first checkpoint.

        Raises:
            StoreError: the name is not valid.
        """
        check_name(name)
        values = {"family": family, "config": plain(config)}

        def find(session: Session) -> ModelRow | None:
            row = session.scalar(select(Model).where(Model.name == name))
            return None if row is None else record(row, ModelRow)

        def make(session: Session) -> ModelRow:
            check_new_name(name)
            row = Model(id=new_id(session, Model, name), created=now(), name=name, n_runs=0, **values)
            return record(added(session, row), ModelRow)

        return self._once(find, make)

    def check_registrable(self, name: str, family: str, config: Mapping[str, Any], *, run: str | None = None) -> None:
        """Refuse, before the computation, results that could not be stored after it; register nothing.

        Args:
            name: name of the model.
            family: family of the checkpoint.
            config: config of the checkpoint.
            run: name of its run, None where it has none.

        Raises:
            ConflictError: the run has another family or config.
            StoreError: a name is not valid.
            ReadOnlyError: the store cannot be written.
        """
        check_name(name)
        moment = _moment("", family, config, run=run)
        with self._read() as session:
            row = session.scalar(select(Model).where(Model.name == name))
            if row is None:
                check_new_name(name)
            else:
                named_run(session, row, moment)
        connections.require_writable(self.location)

    def add_checkpoint(
        self,
        model: str,
        *,
        sha256: str,
        step: int | None = None,
        label: str | None = None,
        path: str | None = None,
        family: str | None = None,
        config: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
        file_sha256: str | None = None,
        run: str | None = None,
        after_run: int = 0,
    ) -> CheckpointRow:
        """Return the checkpoint of a model with this file, family and config; create it where there is none.

        A stored checkpoint only gets what it lacks: about, and the file. A new one belongs to the run that it names;
        otherwise to the newest run with its family and config, or, where that has another file for its step (without
        a step: for its label), to a new run; see `together` for several files.

        Args:
            model: reference.
            sha256: hash of the checkpoint's file.
            step: step of the training.
            label: a name for this moment of the training.
            path: path from which the file was read.
            family: default: that of the model's newest run.
            config: default: that of the model's newest run.
            about: the JSON that belongs to the file, to keep it.
            file_sha256: hash of the artifact with the file, where it was kept.
            run: label or ID of the run; a label that no run of the model has makes a new run.
            after_run: a new checkpoint that names no run joins only one with a larger number than this.

        Raises:
            ConflictError: the run that it names has another family or config.
            StoreError: the run cannot be called so.
        """
        known = {"about": None if about is None else plain(about), "file_sha256": file_sha256}
        known = {name: value for name, value in known.items() if value is not None}

        def described(session: Session) -> tuple[Model, Moment]:
            owner = resolve(session, Model, model)
            last = newest_run(session, owner) or owner
            built = last.family if family is None else family, last.config if config is None else config
            after = max(after_run, self._left.get(training_key(owner.name, built[0], plain(built[1])), 0))
            return owner, _moment(sha256, *built, step=step, label=label, run=run, after=after)

        def find(session: Session) -> CheckpointRow | None:
            row = same_checkpoint(session, *described(session))
            whole = row is not None and all(getattr(row, name) is not None for name in known)
            return record(row, CheckpointRow) if row is not None and whole else None

        def make(session: Session) -> CheckpointRow:
            owner, moment = described(session)
            row = same_checkpoint(session, owner, moment)
            if row is not None:
                for name, value in known.items():
                    setattr(row, name, value if getattr(row, name) is None else getattr(row, name))
                return record(row, CheckpointRow)
            values = {name: getattr(moment, name) for name in ("sha256", "family", "config", "step", "label")}
            of = run_for(session, owner, moment)
            identifier = new_id(session, Checkpoint, owner.name, sha256)
            row = Checkpoint(id=identifier, created=now(), run=of, path=path, **values, **known)
            return record(added(session, row), CheckpointRow)

        return self._once(find, make)

    def find_checkpoint(
        self, model: str, sha256: str, family: str, config: Mapping[str, Any], *, run: str | None = None
    ) -> CheckpointRow | None:
        """Return the stored checkpoint of a model with this file, family, config and run; None without one.

        Args:
            model: name of the model; it may not be stored.
            sha256: hash of the checkpoint's file.
            family: family of the checkpoint.
            config: config of the checkpoint.
            run: label or ID of its run; default: any.
        """
        with self._read() as session:
            owner = session.scalar(select(Model).where(Model.name == model))
            moment = _moment(sha256, family, config, run=run)
            row = None if owner is None else same_checkpoint(session, owner, moment)
            return None if row is None else record(row, CheckpointRow)

    def followed_run(self, ref: str, *, like: str | None = None) -> RunRow:
        """Return the run that tracking follows: the one that is named, or a run of the model that is named.

        Of a model it is that of the graph `like`, else the newest run with two analysed checkpoints.
        """
        with self._read() as session:
            return record(followed_run(session, ref, like), RunRow)

    def add_dataset(self, sha256: str, description: str) -> DatasetRow:
        """Return the dataset with this hash; create it where there is none; keep a stored description."""

        def find(session: Session) -> DatasetRow | None:
            row = session.scalar(select(Dataset).where(Dataset.sha256 == sha256))
            return None if row is None else record(row, DatasetRow)

        def make(session: Session) -> DatasetRow:
            identifier = new_id(session, Dataset, sha256)
            row = Dataset(id=identifier, created=now(), sha256=sha256, description=description)
            return record(added(session, row), DatasetRow)

        return self._once(find, make)

    def register_checkpoint(
        self,
        file: Path | str,
        *,
        about: Mapping[str, Any] | None = None,
        path: str | None = None,
        sha256: str | None = None,
        after_run: int = 0,
    ) -> CheckpointRow:
        """Register the checkpoint in a file, so that jobs can name it; create its model where there is none.

        Args:
            file: path of a .safetensors file or of a folder of `save_pretrained`, or "sha256:..." of one that
                `add_file` stored.
            about: the JSON that belongs to it; default: that of the .json file beside it.
            path: path to record; default: its own.
            sha256: required hash of the file; default: any.
            after_run: see `add_checkpoint`.

        Raises:
            ForbiddenError: the file has another hash.
            StoreError: the file cannot be read, or its JSON is not valid.
        """
        if isinstance(file, str) and file.startswith("sha256:"):
            kept = self.get_file(file)
            return self._register(kept.sha256, describe(about, file[:15]), None, kept.sha256, after_run)
        file, found = of_checkpoint(Path(file), about)
        digest = checkpoint_sha256(file)
        if sha256 not in (None, digest):
            raise ForbiddenError(f"{path or file} has another SHA-256 here: upload the file")
        return self._register(digest, describe(found, file.stem), path or place_of(file), None, after_run)

    def _register(
        self, sha256: str, about: dict[str, Any], path: str | None, kept: str | None, after_run: int
    ) -> CheckpointRow:
        model = self.register_model(about["model"], about["family"], about["config"])
        row = self.add_checkpoint(
            model.id,
            sha256=sha256,
            step=about.get("step"),
            label=about["label"],
            path=path,
            family=about["family"],
            config=about["config"],
            about=about,
            file_sha256=kept,
            run=run_label(about),
            after_run=after_run,
        )
        return row if path in (None, row.path) else self._moved(row.id, path)

    def _moved(self, checkpoint: str, path: str | None) -> CheckpointRow:
        """Update the path of a registered checkpoint whose file has moved."""

        def move(session: Session) -> CheckpointRow:
            row = resolve(session, Checkpoint, checkpoint)
            row.path = path
            session.flush()
            return record(row, CheckpointRow)

        return self._write(move)

    def add_file(self, file: Path) -> FileRow:
        """Store a copy of a file among the artifacts; the same content is stored once."""
        connections.require_writable(self.location)
        sha256, size = self.blobs.put_file(file), file.stat().st_size

        def make(session: Session) -> FileRow:
            row = session.get(Artifact, sha256)
            if row is None:
                row = added(session, Artifact(sha256=sha256, uri=self.blobs.key(sha256), bytes=size, created=now()))
            return _file_row(row)

        return self._write(make)

    def get_file(self, ref: str) -> FileRow:
        """Return what is known of an artifact by its SHA-256, with or without "sha256:" before it.

        Raises:
            NotFoundError: no such file is stored.
        """
        sha256 = ref.removeprefix("sha256:")
        with self._read() as session:
            row = session.get(Artifact, sha256) if sha256.isalnum() else None
            if row is None:
                raise NotFoundError(f"no file {ref!r} in the store: upload it first")
            return _file_row(row)


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a model.

    Raises:
        StoreError: it is empty, too long, contains @, is "last", ends like the name of a run, or cannot be printed.
    """
    if not name.strip() or not name.isprintable() or "@" in name or len(name) > 200:
        raise StoreError(f"a model cannot be called {name!r}: expected up to 200 printable characters, no @")
    if name == "last" or re.search(r"#\d+$", name):
        raise StoreError(f"a model cannot be called {name!r}: that is a reference to something else")


def check_new_name(name: str) -> None:
    """Refuse what cannot be the name of a new model, as `check_name` does, and what could be the start of an ID.

    Models of earlier versions may be called so.

    Raises:
        StoreError: the message says of what it could be the ID.
    """
    check_name(name)
    if kinds := kinds_of(name):
        raise StoreError(
            f"a model cannot be called {name!r}: that could be the ID of a {' or '.join(kinds)}; choose another name, "
            'for a checkpoint as the "model" in its JSON, for a graph from a file with --model'
        )


def _moment(sha256: str, family: str, config: Mapping[str, Any], *, run: str | None = None, **of: Any) -> Moment:
    """Describe a checkpoint as the database holds it."""
    if run is not None:
        check_run_label(run)
    return Moment(sha256, family, plain(config), run=run, **{name: plain(value) for name, value in of.items()})


def _file_row(row: Artifact) -> FileRow:
    return FileRow(sha256=row.sha256, uri=f"sha256:{row.sha256}", bytes=row.bytes, created=row.created)
