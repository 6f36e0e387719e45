"""Models, their runs, checkpoints, data sets and files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from .base import Bytes, Kind, Record, Sha256, Sha256OrNone, Time, Uri, plain
from .errors import StoreError

__all__ = [
    "CHECKPOINT",
    "DATASET",
    "IMPORTED",
    "MODEL",
    "RUN",
    "About",
    "CheckpointId",
    "CheckpointPath",
    "CheckpointRow",
    "DatasetId",
    "DatasetRow",
    "FileRow",
    "Label",
    "ModelName",
    "ModelRow",
    "RunId",
    "RunIdOrNone",
    "RunNumber",
    "RunRow",
    "Step",
    "beside",
    "check_suffix",
    "checkpoint_sha256",
    "describe",
    "file_sha256",
    "import_names",
    "of_checkpoint",
    "place_of",
    "require_network",
    "run_label",
    "training_key",
    "weights_of",
]

_MODEL, _RUN, _DATASET = "two-digits", "r-1a2b3c4d", "d-1a2b3c4d"

ModelName = Annotated[str, Field(examples=[_MODEL])]

RunId = Annotated[str, Field(examples=[_RUN])]

RunIdOrNone = Annotated[str | None, Field(examples=[_RUN])]

RunNumber = Annotated[int | None, Field(examples=[2])]

CheckpointId = Annotated[str, Field(examples=["c-1a2b3c4d"])]

CheckpointPath = Annotated[str | None, Field(examples=["/srv/runs/two-digits/step02500.safetensors"])]

DatasetId = Annotated[str, Field(examples=[_DATASET])]

Family = Annotated[str, Field(examples=["mlp"])]

Config = Annotated[dict[str, Any], Field(examples=[{"widths": [128, 48, 48, 20], "activation": "relu"}])]

Step = Annotated[int | None, Field(examples=[2500])]

Label = Annotated[str | None, Field(examples=["two-digits step 2500"])]

About = Annotated[
    dict[str, Any] | None,
    Field(examples=[{"family": "mlp", "config": {"widths": [128, 48, 48, 20]}, "step": 2500, "model": _MODEL}]),
]


@dataclass(frozen=True, kw_only=True)
class ModelRow(Record):
    """A network that is trained: its name, and family and config of its newest run."""

    id: Annotated[str, Field(examples=["m-1a2b3c4d"])]
    name: ModelName
    family: Family
    config: Config
    created: Time


@dataclass(frozen=True, kw_only=True)
class RunRow(Record):
    """One training of a model.

    Attributes:
        model: name of the model.
        number: 1 for the first run of the model; `model#number` refers to the run.
        label: name of the run, the "run" of its checkpoints' JSON; None where they name none.
        family, config: what every checkpoint of the run is built from.
        created: when its first checkpoint was registered.
    """

    id: RunId
    model: ModelName
    number: Annotated[int, Field(examples=[2])]
    label: Annotated[str | None, Field(examples=["seed 1"])]
    family: Family
    config: Config
    created: Time


@dataclass(frozen=True, kw_only=True)
class CheckpointRow(Record):
    """A model at one moment of its training.

    Attributes:
        model: name of the model.
        run: ID of the run.
        sha256: hash of the checkpoint's file.
        step, label: the moment of the training; both may be None.
        path: path from which the file was read.
        about: the JSON that belongs to the file; None where it is only beside the file.
        file_sha256: hash of the artifact with the file; None where the file was not kept.
    """

    id: CheckpointId
    model: ModelName
    run: RunId
    sha256: Sha256
    step: Step
    label: Label
    family: Family
    config: Config
    path: CheckpointPath
    created: Time
    about: About = None
    file_sha256: Sha256OrNone = None


@dataclass(frozen=True, kw_only=True)
class DatasetRow(Record):
    """A data set on which results were computed, identified by its hash."""

    id: DatasetId
    sha256: Sha256
    description: Annotated[str, Field(examples=["two_digits (train)"])]
    created: Time


@dataclass(frozen=True, kw_only=True)
class FileRow(Record):
    """A stored file; jobs and checkpoints refer to it by `uri`."""

    sha256: Sha256
    uri: Uri
    bytes: Bytes
    created: Time


MODEL = Kind(
    name="model",
    plural="models",
    row=ModelRow,
    detail=ModelRow,
    listing="List all models.",
    single="Return a model.",
    example=_MODEL,
)

RUN = Kind(
    name="run",
    plural="runs",
    row=RunRow,
    detail=RunRow,
    listing="List runs, all or those of a model.",
    single="Return a run.",
    example=f"{_MODEL}#2",
    owners=("model",),
    filters=("model",),
)

CHECKPOINT = Kind(
    name="checkpoint",
    plural="checkpoints",
    row=CheckpointRow,
    detail=CheckpointRow,
    listing="List checkpoints, all or those of a model or a run.",
    single="Return a checkpoint.",
    example=f"{_MODEL}@2500",
    owners=("run",),
    filters=("model", "run"),
)

DATASET = Kind(
    name="dataset",
    plural="datasets",
    row=DatasetRow,
    detail=DatasetRow,
    listing="List the data sets on which results were computed.",
    single="Return a data set.",
    example=_DATASET,
)

IMPORTED = "graph"
"""Family of the checkpoints that stand for files of graphs made elsewhere."""

_INDEX = ".safetensors.index.json"  # names the files of weights that are in several

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


def import_names(file: Path | None, given: Mapping[str, Any]) -> dict[str, str]:
    """Return the model and the label of an imported file: those that are given, else the name of the file.

    Args:
        file: the file; None for an upload, which has no name.
        given: "model" and "label", where they are given.

    Raises:
        StoreError: an upload without a model, or a name of a file that cannot be a label.

    >>> import_names(Path("bee.json"), {"model": "gemma"})
    {'model': 'gemma', 'label': 'bee'}
    """
    model = given.get("model") or (file and file.stem)
    if not model:
        raise StoreError("import: an upload has no name: give the name of a model with it (model=...)")
    label = given.get("label") or (file.stem if file else model)
    if not label.strip() or not label.isprintable() or len(label) > 200:
        raise StoreError(f"import: the file is called {label[:80]!r}: expected up to 200 printable characters")
    return {"model": model, "label": label}


def require_network(family: str, task: str, named: str) -> None:
    """Refuse a task that runs the network where the checkpoint is a graph that was read from a file.

    Args:
        family: family of the checkpoint.
        task: what is asked for.
        named: what it is asked of.

    Raises:
        StoreError: the message says what to do.
    """
    if family == IMPORTED:
        raise StoreError(
            f"{named} comes from the file of a graph, and {task} needs the network itself: analyze a checkpoint of it "
            "with `interbasis analyze`; graphs from files can be divided (`interbasis modules`), compared, tracked, "
            "drawn and exported"
        )


def run_label(about: Mapping[str, Any]) -> str | None:
    """Return the name of the run in the JSON of a checkpoint, None without one; a number is a name, too.

    >>> run_label({"run": 1}), run_label({})
    ('1', None)
    """
    named: Any = about.get("run")
    return str(named) if isinstance(named, int) and not isinstance(named, bool) else named


def training_key(model: str, family: str, config: Mapping[str, Any]) -> str:
    """Return a key that is the same for checkpoints of the same model, family and config.

    >>> training_key("net", "mlp", {"b": 1, "a": 2})
    '["net", "mlp", {"a": 2, "b": 1}]'
    """
    return json.dumps([model, family, config], sort_keys=True)


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


def of_checkpoint(path: Path, about: Mapping[str, Any] | None = None) -> tuple[Path, Any]:
    """Return the file that stands for a checkpoint, and the JSON that belongs to it.

    Args:
        path: a .safetensors file with a .json beside it, or a folder of `save_pretrained`, or the weights in one.
        about: the JSON, in place of that beside the file.

    Raises:
        StoreError: it cannot be read, or is neither.
    """
    several = path.is_dir() or path.name.endswith(_INDEX)
    if path.suffix != ".safetensors" and not several:
        raise StoreError(f"{path} is not a .safetensors file: convert it with safetensors.torch.save_file")
    try:
        path.stat()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    alone = about is not None or path.with_suffix(".json").is_file() or not (path.parent / "config.json").is_file()
    if alone and not several:
        return path, beside(path) if about is None else about
    folder = _folder(path)
    return folder.file, folder.about if about is None else about


def weights_of(path: Path) -> Path:
    """Return the file that stands for a checkpoint: that of a folder of `save_pretrained`, any other path itself.

    Raises:
        StoreError: a folder that holds no checkpoint.
    """
    return Path(_folder(path).file) if path.is_dir() else path


def place_of(file: Path) -> str:
    """Return the path under which the file that stands for a checkpoint is stored; an index names its neighbours."""
    return str(file.resolve() if file.suffix == ".safetensors" else file.absolute())


def checkpoint_sha256(file: Path) -> str:
    """Return the hash of a checkpoint by the file that stands for it: that of the file, or of all that an index names.

    Raises:
        StoreError: it cannot be read.
    """
    return str(_folder(file).sha256) if file.name.endswith(_INDEX) else file_sha256(file)


def _folder(path: Path) -> Any:
    from ...analysis.errors import InterbasisError
    from ...analysis.huggingface.folder import read_folder

    try:
        return read_folder(path)
    except (InterbasisError, OSError) as error:
        raise StoreError(str(error)) from error


def check_suffix(file: Path) -> None:
    """Refuse a file of `torch.save` where a checkpoint is expected.

    Raises:
        StoreError: it ends in .pt, .pth or .bin; the message says what to do.
    """
    if file.suffix in (".pt", ".pth", ".bin"):
        raise StoreError(
            f"{file} is a file of torch.save: convert it with `interbasis convert {file}`, or write the model with "
            "interbasis.analysis.save_checkpoint"
        )


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
