"""Files as the client uploads them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..records.errors import StoreError

__all__ = ["CHUNK", "as_safetensors", "parts"]

CHUNK = 1 << 20
"""Bytes of a file that are sent at a time."""


def parts(stream: BinaryIO) -> Iterator[bytes]:
    """Yield a file from its beginning, in parts."""
    stream.seek(0)
    while part := stream.read(CHUNK):
        yield part


@contextlib.contextmanager
def as_safetensors(file: Path) -> Iterator[Path]:
    """Provide a file to upload while the context is open: NumPy arrays are written as safetensors.

    Raises:
        StoreError: the arrays cannot be read, or have a dtype that safetensors does not hold.
    """
    if file.suffix not in (".npz", ".npy"):
        yield file
        return
    import tempfile
    import zlib
    from zipfile import BadZipFile

    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        with file.open("rb") as stream:
            opened = np.load(stream, allow_pickle=False)
            arrays = {"inputs": opened} if isinstance(opened, np.ndarray) else dict(opened)
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise StoreError(f"cannot read {file}: {error}") from error
    with tempfile.TemporaryDirectory(prefix="interbasis-") as folder:
        sent = Path(folder) / f"{file.stem}.safetensors"
        try:
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, sent)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            kinds = ", ".join(f"{name} has dtype {array.dtype}" for name, array in arrays.items())
            raise StoreError(f"cannot send {file} as safetensors: {kinds}; expected numbers") from error
        yield sent
