"""Results on disk: one safetensors file each, scalars and names as JSON in its metadata, written whole or not."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as _load_arrays
from safetensors.numpy import save as _save_arrays

from .errors import InputError

__all__ = ["decode", "encode", "read_bytes", "write_bytes"]

_SCHEMA_VERSION = 2


def encode(kind: str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> bytes:
    """Pack arrays and JSON-serialisable metadata of a result of the given kind into safetensors bytes.

    >>> arrays, metadata = decode("point", encode("point", {"x": np.arange(2.0)}, {"name": "p"}))
    >>> arrays["x"].tolist(), metadata["name"]
    ([0.0, 1.0], 'p')
    """
    header = {"interbasis": json.dumps({"kind": kind, "schema": _SCHEMA_VERSION, **metadata}, sort_keys=True)}
    return _save_arrays({name: np.ascontiguousarray(a) for name, a in arrays.items()}, metadata=header)


def decode(kind: str, data: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Unpack what `encode` packed.

    Raises:
        InputError: the bytes are not such a file, hold another kind of result, or come from a newer version.
    """
    try:
        arrays = _load_arrays(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["interbasis"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"expected a {kind} saved by interbasis, but the file cannot be read: {error}") from error
    if metadata["kind"] != kind:
        raise InputError(f"expected a saved {kind}, but the file holds a {metadata['kind']}")
    if metadata["schema"] > _SCHEMA_VERSION:
        raise InputError(
            f"the saved {kind} has schema {metadata['schema']}, this version reads up to {_SCHEMA_VERSION}: "
            "upgrade interbasis"
        )
    return arrays, metadata


def write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write a file so that it appears under its name only when whole: temporary file, fsync, rename."""
    target = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            os.fchmod(stream.fileno(), 0o644)  # temporary files are private, results are not
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a file, with an error of ours where it is missing or unreadable."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
