"""Results: compared by value, stored in one file each, and drawn by the figure registered for their kind.

A file is one of safetensors, with scalars and names as JSON in its metadata, and is written whole or not at all.
"""

from __future__ import annotations

import json
import math
import numbers
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as _load_arrays
from safetensors.numpy import save as _save_arrays
from torch import Tensor

from .errors import InputError, InterbasisError
from .notebook.tables import Columns, data_frame

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

__all__ = [
    "Result",
    "by_value",
    "decode",
    "encode",
    "figure",
    "interactive_figure",
    "read_bytes",
    "same",
    "write_bytes",
]

_C = TypeVar("_C", bound=type)
ResultT = TypeVar("ResultT", bound="Result")


def by_value(cls: _C) -> _C:
    """Decorate a dataclass that holds arrays: two instances are equal if all their fields are, see `same`.

    The hash takes of arrays shape and type alone.

    >>> from dataclasses import dataclass
    >>> @by_value
    ... @dataclass(frozen=True)
    ... class Point:
    ...     at: np.ndarray
    >>> Point(np.zeros(2)) == Point(np.zeros(2)), Point(np.zeros(2)) == Point(np.ones(2)), Point(np.zeros(2)) == 0
    (True, False, False)
    >>> len({Point(np.zeros(2)), Point(np.zeros(2)), Point(np.ones(2))})
    2
    """

    def equal(self: Any, other: Any) -> Any:
        if type(self) is not type(other):
            return NotImplemented
        return all(same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.compare)

    def hashed(self: Any) -> int:
        return (type(self), *(_outline(getattr(self, f.name)) for f in fields(self) if f.compare)).__hash__()

    setattr(cls, "__eq__", equal)  # noqa: B010 - mypy would take an assignment for an override
    setattr(cls, "__hash__", hashed)  # noqa: B010
    return cls


def _outline(value: Any) -> Any:
    """Return something hashable that is equal for values that are the same."""
    if isinstance(value, np.ndarray | Tensor) or hasattr(value, "indptr"):
        return tuple(value.shape), str(value.dtype)
    if isinstance(value, Mapping):
        return len(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(map(_outline, value))
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return value if isinstance(value, str | numbers.Number | None) else type(value)


def same(one: Any, other: Any) -> bool:
    """Return whether two values are the same: of arrays type, shape and numbers; NaN is the same as NaN.

    >>> same({"a": [np.array([1.0, np.nan])]}, {"a": [np.array([1.0, np.nan])]}), same(np.zeros(2), np.zeros((2, 1)))
    (True, False)
    """
    if one is other:
        return True
    if isinstance(one, np.ndarray | np.generic) or isinstance(other, np.ndarray | np.generic):
        return _same_arrays(one, other)
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and _same_tensors(one, other)
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (one != one and other != other)
    if type(one) is not type(other):
        return bool(one == other)
    if hasattr(one, "indptr"):  # sparse rows
        return one.shape == other.shape and all(
            np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name == "data")
            for name in ("indptr", "indices", "data")
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _same_arrays(one: Any, other: Any) -> bool:
    a, b = np.asarray(one), np.asarray(other)
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fcmM")


def _same_tensors(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape or one.device != other.device:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


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
        InputError: the bytes are no such file, hold another kind of result, or come from a newer version.
    """
    try:
        arrays = _load_arrays(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["interbasis"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"expected a saved {kind}, but the file cannot be read as one: {error}") from error
    if metadata["kind"] != kind:
        raise InputError(f"expected a saved {kind}, but the file holds a {metadata['kind']}")
    if metadata["schema"] > _SCHEMA_VERSION:
        raise InputError(
            f"the saved {kind} has schema {metadata['schema']}, this version reads up to {_SCHEMA_VERSION}: "
            "upgrade interbasis"
        )
    return arrays, metadata


def write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write a file so that it appears under its name only when complete: temporary file, fsync, rename.

    A device or a pipe is written to as it is.

    Raises:
        InputError: no file can be made there.
        InterbasisError: it cannot be written whole, as where the disk is full.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"cannot write {target}: it is a folder")
    if target.exists() and not target.is_file():
        return _written(target, data)
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
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise InterbasisError(f"cannot write {target}: {error.strerror}") from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def _written(target: Path, data: bytes) -> Path:
    """Write to a device or a pipe."""
    try:
        with target.open("wb") as stream:
            stream.write(data)
    except OSError as error:
        raise InterbasisError(f"cannot write {target}: {error.strerror}") from error
    return target


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a file, and raise an error of ours if it is missing or unreadable."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


@singledispatch
def figure(result: Any, *choices: Any, **options: Any) -> Figure:
    """Draw a result with the figure that `interbasis.analysis.figures` registers for its type.

    Raises:
        InputError: no figure is registered.
    """
    raise InputError(f"there is no figure of a {type(result).__name__}")


@singledispatch
def interactive_figure(result: Any, *choices: Any, **options: Any) -> Any:
    """Draw a result with the interactive figure that `interbasis.analysis.figures` registers for its type.

    Raises:
        InputError: no such figure is registered, or plotly is not installed.
    """
    raise InputError(f"there is no interactive figure of a {type(result).__name__}")


class Result:
    """The base class of results: a figure, a table, and one file each.

    A subclass implements `to_bytes` with `encode`, `from_bytes` with `decode`, the columns of its table, and what
    notebooks show.
    """

    def to_bytes(self) -> bytes:
        """Pack the result into the bytes of a safetensors file."""
        raise NotImplementedError

    @classmethod
    def from_bytes(cls: type[ResultT], data: bytes) -> ResultT:
        """Unpack what `to_bytes` packed.

        Raises:
            InputError: the bytes are no such file, or hold another kind of result.
        """
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one safetensors file, whole or not at all."""
        return write_bytes(path, self.to_bytes())

    @classmethod
    def load(cls: type[ResultT], path: str | os.PathLike[str]) -> ResultT:
        """Read a file written by `save`.

        Raises:
            InputError: the file cannot be read, or holds another kind of result.
        """
        return cls.from_bytes(read_bytes(path))

    def plot(self, *, title: str | None = None) -> Figure:
        """Draw the figure of this kind of result; the title is written above its facts."""
        return figure(self, title=title)

    def to_frame(self) -> pandas.DataFrame:
        """Convert to a pandas data frame.

        Raises:
            InputError: pandas is not installed.
        """
        return data_frame(self._columns())

    def _columns(self) -> Columns:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        """Return a small table for notebooks."""
        raise NotImplementedError
