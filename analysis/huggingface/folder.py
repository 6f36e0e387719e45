"""What a folder of `save_pretrained` holds: its config, the files of its weights, and its moment of the training."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..results import by_value

__all__ = ["Folder", "check_memory", "hash_of", "is_saved", "n_numbers", "read_folder"]

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

_OF_THE_FILE = ("transformers_version", "_name_or_path", "torch_dtype", "dtype")  # the rest of a config is the model's

_STEP = re.compile(r"checkpoint[-_](\d+)")


@by_value
@dataclass(frozen=True)
class Folder:
    """A folder of `save_pretrained`.

    Attributes:
        path: of the folder.
        config: content of its config.json.
        files: the files of its weights, one or several.
        about: what the JSON of a checkpoint says: family, config, model, label and step.
    """

    path: Path
    config: dict[str, Any]
    files: tuple[Path, ...]
    about: dict[str, Any]

    @property
    def file(self) -> Path:
        """The file that stands for the checkpoint: its weights, or the index of several files."""
        return self.files[0] if len(self.files) == 1 else self.path / _INDEX

    @property
    def sha256(self) -> str:
        """Hash of the weights, see `hash_of`."""
        return hash_of(self.files)


def hash_of(files: Sequence[Path]) -> str:
    """Return the SHA-256 of a file, or, of several, that of their hashes in order."""
    digests = [_sha256(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def is_saved(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a folder, or a file of weights in one that `save_pretrained` wrote."""
    place = Path(path)
    in_folder = place.name in (_WEIGHTS, _INDEX) and (place.parent / "config.json").is_file()
    return place.is_dir() or (in_folder and not place.with_suffix(".json").is_file()) or place.name == _INDEX


def read_folder(path: str | os.PathLike[str]) -> Folder:
    """Read what a folder of `save_pretrained` holds; no weights are read.

    Of `runs/my-gpt2/checkpoint-1000` model and step are "my-gpt2" and 1000.

    Args:
        path: the folder, or its file of weights.

    Raises:
        CheckpointError: no config, no weights in safetensors, or a part of them is missing; says what to do.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    config = _json(folder / "config.json", folder)
    files = _weights(folder)
    name = folder.resolve().name
    found = _STEP.fullmatch(name)
    model = folder.resolve().parent.name if found else name
    about = {
        "family": "hf",
        "config": {key: value for key, value in config.items() if key not in _OF_THE_FILE},
        "model": model,
        "label": f"{model} {name}" if found else name,
        "step": int(found[1]) if found else None,
    }
    return Folder(folder, config, files, about)


def n_numbers(file: Path) -> dict[str, int]:
    """Count the numbers of each type in a safetensors file, from its header alone.

    Raises:
        CheckpointError: it is no safetensors file.
    """
    counts: dict[str, int] = {}
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                raise ValueError("it is incomplete")
            header = json.loads(stream.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                counts[entry["dtype"]] = counts.get(entry["dtype"], 0) + math.prod(entry["shape"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"cannot read {file}: it is no safetensors file, or incomplete ({error})") from error
    return counts


def check_memory(files: tuple[Path, ...], bytes_per_number: int | None) -> None:
    """Check that a model fits into the memory that is available, before any of it is read.

    Args:
        files: the files of its weights.
        bytes_per_number: of the loaded model; None as in the files.

    Raises:
        CheckpointError: it does not fit.
    """
    free = _available()
    size = bytes_per_number
    need = sum(file.stat().st_size if size is None else size * sum(n_numbers(file).values()) for file in files)
    if free is not None and need > free:
        raise CheckpointError(
            f"{files[0].parent} holds a model of {need / 1e9:,.1f} GB as it is loaded, and {free / 1e9:,.1f} GB of "
            "memory are free: take a smaller model, or a machine with more memory"
        )


def _available() -> int | None:
    """Return the bytes of memory that are available; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = next(line.split() for line in lines if line.startswith("MemAvailable:"))
        return 1024 * int(found[1])
    except (OSError, StopIteration, ValueError):
        return None


def _weights(folder: Path) -> tuple[Path, ...]:
    if (folder / _WEIGHTS).is_file():
        return (folder / _WEIGHTS,)
    if (folder / _INDEX).is_file():
        named = _json(folder / _INDEX, folder).get("weight_map", {})
        files = tuple(folder / name for name in sorted(set(named.values())))
        if missing := [file.name for file in files if not file.is_file()]:
            raise CheckpointError(
                f"{folder} lacks {', '.join(missing[:3])}, which {_INDEX} names: copy the whole folder"
            )
        if files:
            return files
    pickles = [file.name for pattern in _PICKLES for file in sorted(folder.glob(pattern))]
    if any(name.startswith("pytorch_model") for name in pickles):
        raise CheckpointError(
            f"{folder} holds its weights as pickles ({pickles[0]}), which can run code when they are read: load it "
            "with transformers and write it again with model.save_pretrained(folder), which writes safetensors"
        )
    raise CheckpointError(f"{folder} has a config.json, but no {_WEIGHTS}: expected a folder of save_pretrained")


def _json(file: Path, folder: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} is a folder without {file.name}: expected one that save_pretrained wrote, or a .safetensors "
            "file with a .json beside it"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {file}: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__}: expected a JSON object")
    return content


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
