"""Models, their checkpoints, data sets, and files kept for jobs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..records.base import plain
from ..records.checkpoints import CheckpointRow, DatasetRow, FileRow, ModelRow, beside, describe, file_sha256
from ..records.errors import ConflictError, ForbiddenError, NotFoundError, StoreError
from ..storage import connection as connections
from ..storage.references import new_id, resolve
from ..storage.rows import record
from ..storage.tables import Artifact, Checkpoint, Dataset, Model
from .saving import added, now
from .transactions import Transactions

__all__ = ["Registry"]


class Registry(Transactions):
    """The part of the store for models, checkpoints, data sets and files."""

    def register_model(self, name: str, family: str, config: Mapping[str, Any]) -> ModelRow:
        """Return the model with this name; create it where there is none.

        Raises:
            ConflictError: the name belongs to a model of another family or config.
            StoreError: the name is not valid.
        """
        _check_name(name)
        values = {"family": family, "config": plain(config)}

        def find(session: Session) -> ModelRow | None:
            row = session.scalar(select(Model).where(Model.name == name))
            return None if row is None else record(row, ModelRow)

        def make(session: Session) -> ModelRow:
            row = Model(id=new_id(session, Model, name), created=now(), name=name, **values)
            return record(added(session, row), ModelRow)

        model = self._once(find, make)
        _check_same(model, family, values["config"])
        return model

    def check_registrable(self, name: str, family: str, config: Mapping[str, Any]) -> None:
        """Refuse, before the computation, results that could not be stored after it; register nothing.

        Args:
            name: name of the model.
            family: family of the model.
            config: config of the model.

        Raises:
            ConflictError: the name belongs to a model of another family or config.
            StoreError: the name is not valid.
            ReadOnlyError: the store cannot be written.
        """
        _check_name(name)
        described = plain(config)
        with self._read() as session:
            row = session.scalar(select(Model).where(Model.name == name))
            if row is not None:
                _check_same(record(row, ModelRow), family, described)
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
    ) -> CheckpointRow:
        """Return the checkpoint of a model with this file hash; create it where there is none.

        A stored checkpoint only gets what it lacks: about, and the file.

        Args:
            model: reference.
            sha256: hash of the checkpoint's file.
            step: step of the training.
            label: a name for this moment of the training.
            path: path from which the file was read.
            family: default: that of the model.
            config: default: that of the model.
            about: the JSON that belongs to the file, to keep it.
            file_sha256: hash of the artifact with the file, where it was kept.
        """
        known = {"about": None if about is None else plain(about), "file_sha256": file_sha256}
        known = {name: value for name, value in known.items() if value is not None}

        def stored(session: Session) -> Checkpoint | None:
            key = resolve(session, Model, model).key
            return session.scalar(select(Checkpoint).where(Checkpoint.model_key == key, Checkpoint.sha256 == sha256))

        def find(session: Session) -> CheckpointRow | None:
            row = stored(session)
            whole = row is not None and all(getattr(row, name) is not None for name in known)
            return record(row, CheckpointRow) if row is not None and whole else None

        def make(session: Session) -> CheckpointRow:
            row = stored(session)
            if row is not None:
                for name, value in known.items():
                    setattr(row, name, value if getattr(row, name) is None else getattr(row, name))
                return record(row, CheckpointRow)
            owner = resolve(session, Model, model)
            values = {
                "family": owner.family if family is None else family,
                "config": owner.config if config is None else plain(config),
                **{"sha256": sha256, "step": plain(step), "label": label, "path": path, **known},
            }
            identifier = new_id(session, Checkpoint, owner.name, sha256)
            row = Checkpoint(id=identifier, created=now(), model=owner, **values)
            return record(added(session, row), CheckpointRow)

        return self._once(find, make)

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
    ) -> CheckpointRow:
        """Register the checkpoint in a file, so that jobs can name it; create its model where there is none.

        Args:
            file: path of a .safetensors file, or "sha256:..." of one that `add_file` stored.
            about: the JSON that belongs to it; default: that of the .json file beside it.
            path: path to record; default: its own.
            sha256: required hash of the file; default: any.

        Raises:
            ForbiddenError: the file has another hash.
            StoreError: the file cannot be read, or its JSON is not valid.
        """
        if isinstance(file, str) and file.startswith("sha256:"):
            kept = self.get_file(file)
            return self._register(kept.sha256, describe(about, file[:15]), None, kept.sha256)
        file = Path(file)
        if file.suffix != ".safetensors":
            raise StoreError(f"{file} is not a .safetensors file: convert it with safetensors.torch.save_file")
        digest = file_sha256(file)
        if sha256 not in (None, digest):
            raise ForbiddenError(f"{path or file} has another SHA-256 here: upload the file")
        found = describe(beside(file) if about is None else about, file.stem)
        return self._register(digest, found, path or str(file.resolve()), None)

    def _register(self, sha256: str, about: dict[str, Any], path: str | None, kept: str | None) -> CheckpointRow:
        model = self.register_model(about["model"], about["family"], about["config"])
        row = self.add_checkpoint(
            model.id,
            sha256=sha256,
            step=about.get("step"),
            label=about["label"],
            path=path,
            about=about,
            file_sha256=kept,
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


def _check_name(name: str) -> None:
    if not name.strip() or not name.isprintable() or "@" in name or len(name) > 200:
        raise StoreError(f"a model cannot be called {name!r}: expected up to 200 printable characters, no @")


def _check_same(model: ModelRow, family: str, config: Any) -> None:
    if (model.family, model.config) != (family, config):
        raise ConflictError(
            f"the model {model.name!r} is stored with family {model.family!r} and config {model.config}, not "
            f"{family!r} and {config}: choose another name for this one"
        )


def _file_row(row: Artifact) -> FileRow:
    return FileRow(sha256=row.sha256, uri=f"sha256:{row.sha256}", bytes=row.bytes, created=row.created)
