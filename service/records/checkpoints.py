"""Models, checkpoints, data sets and files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .base import Kind, Record, plain
from .errors import StoreError

__all__ = [
    "CHECKPOINT",
    "DATASET",
    "MODEL",
    "CheckpointRow",
    "DatasetRow",
    "FileRow",
    "ModelRow",
    "beside",
    "describe",
    "file_sha256",
]


@dataclass(frozen=True, kw_only=True)
class ModelRow(Record):
    """A network that is trained: its name, its family, and the config to build it from."""

    id: str
    name: str
    family: str
    config: dict[str, Any]
    created: datetime


@dataclass(frozen=True, kw_only=True)
class CheckpointRow(Record):
    """A model at one moment of its training.

    Attributes:
        model: name of the model.
        sha256: hash of the checkpoint's file.
        step, label: the moment of the training; both may be None.
        path: path from which the file was read.
        about: the JSON that belongs to the file; None where it is only beside the file.
        file_sha256: hash of the artifact with the file; None where the file was not kept.
    """

    id: str
    model: str
    sha256: str
    step: int | None
    label: str | None
    family: str
    config: dict[str, Any]
    path: str | None
    created: datetime
    about: dict[str, Any] | None = None
    file_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetRow(Record):
    """A data set on which results were computed, identified by its hash."""

    id: str
    sha256: str
    description: str
    created: datetime


@dataclass(frozen=True, kw_only=True)
class FileRow(Record):
    """A stored file; jobs and checkpoints refer to it by `uri`."""

    sha256: str
    uri: str
    bytes: int
    created: datetime


MODEL = Kind(
    name="model",
    plural="models",
    row=ModelRow,
    detail=ModelRow,
    listing="List all models.",
    single="Return a model.",
)

CHECKPOINT = Kind(
    name="checkpoint",
    plural="checkpoints",
    row=CheckpointRow,
    detail=CheckpointRow,
    listing="List checkpoints, all or those of a model.",
    single="Return a checkpoint.",
    owners=("model",),
    filters=("model",),
)

DATASET = Kind(
    name="dataset",
    plural="datasets",
    row=DatasetRow,
    detail=DatasetRow,
    listing="List the data sets on which results were computed.",
    single="Return a data set.",
)

_KNOWN = {"step": int, "label": str, "model": str, "config": dict, "family": str}


def describe(about: Any, name: str) -> dict[str, Any]:
    """Fill in label and model in the JSON of a checkpoint, as `load_checkpoint` does.

    Raises:
        StoreError: it is not an object, has no family, or a value is of the wrong type or not a valid name.

    >>> describe({"family": "mlp"}, "step5")
    {'config': {}, 'family': 'mlp', 'label': 'step5', 'model': 'step5'}
    """
    if not isinstance(about, Mapping) or not isinstance(about.get("family"), str):
        raise StoreError(f'the JSON of {name} has no "family": expected {{"family": "mlp", "config": ...}}')
    for key, kind in _KNOWN.items():
        if about.get(key) is not None and (not isinstance(about[key], kind) or isinstance(about[key], bool)):
            raise StoreError(f"the JSON of {name}: {key} is {about[key]!r}, expected a {kind.__name__}")
    label = about.get("label") or name
    for key, value in (("family", about["family"]), ("label", label)):
        if not value.strip() or not value.isprintable() or len(value) > 200:
            raise StoreError(
                f"the JSON of {name[:80]!r}: {key} is {value[:80]!r}, expected up to 200 printable characters"
            )
    return {"config": {}, **plain(about), "label": label, "model": about.get("model") or label}


def file_sha256(file: Path) -> str:
    """Compute the SHA-256 of a file's content.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise StoreError(f"cannot read {file}: {error.strerror}") from error


def beside(file: Path) -> Any:
    """Read the JSON file beside a checkpoint's file.

    Raises:
        StoreError: the file is missing or cannot be read.
    """
    about = file.with_suffix(".json")
    try:
        return json.loads(about.read_text())
    except FileNotFoundError as error:
        raise StoreError(f'there is no {about}: expected JSON like {{"family": "mlp", "config": ...}}') from error
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {about}: {error}") from error
    except RecursionError as error:
        raise StoreError(f"cannot read {about}: it is nested too deeply") from error
