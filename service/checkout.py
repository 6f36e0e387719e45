"""The files of a job on disk: a registered checkpoint with its JSON beside it, and data that were uploaded."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .reader import Reader
from .records import CheckpointRow, NotFoundError
from .registry import file_sha256

__all__ = ["checked_out", "data_file"]


@contextmanager
def checked_out(store: Reader, ref: str) -> Iterator[tuple[CheckpointRow, Path]]:
    """A checkpoint and a path of its file, with the JSON it was registered with beside it, as long as it is needed.

    Raises:
        NotFoundError: it was stored without its file, or the file is gone or has changed.
    """
    row = store.get_checkpoint(ref)
    with tempfile.TemporaryDirectory(prefix="interbasis-") as folder:
        file = Path(folder) / (Path(row.path).name if row.path else f"{row.sha256[:8]}.safetensors")
        if row.file_sha256 is not None:
            _link(store, row.file_sha256, file)
        elif row.path is None:
            raise NotFoundError(f"{row.id} was stored without its file: register or upload it again")
        elif not Path(row.path).is_file():
            raise NotFoundError(f"the file of {row.id}, {row.path}, is gone: register or upload it again")
        elif file_sha256(Path(row.path)) != row.sha256:
            raise NotFoundError(f"{row.path} is not the checkpoint {row.id} any more: its content has changed")
        else:
            file.symlink_to(Path(row.path).resolve())
        if row.about is not None:
            file.with_suffix(".json").write_text(json.dumps(row.about))
        yield row, file if row.about is not None else Path(str(row.path))


@contextmanager
def data_file(store: Reader, named: str | None) -> Iterator[Path | None]:
    """The file of data that a job names: a path, or "sha256:..." of one that was uploaded."""
    if named is None or not named.startswith("sha256:"):
        yield None if named is None else Path(named)
        return
    with tempfile.TemporaryDirectory(prefix="interbasis-") as folder:
        file = Path(folder) / "data.safetensors"
        _link(store, named.removeprefix("sha256:"), file)
        yield file


def _link(store: Reader, sha256: str, file: Path) -> None:
    """An artifact under another name, its hash verified; a copy where artifacts are not local files."""
    local = store.blobs.verified_path(sha256)
    if local is None:
        file.write_bytes(store.blobs.get(sha256))
    else:
        file.symlink_to(local.resolve())
