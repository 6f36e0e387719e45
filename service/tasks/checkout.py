"""The files of a job on disk: a registered checkpoint with its JSON beside it, and uploaded data.

They lie in temporary folders, which users do not know: errors name them by what was registered or uploaded.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..records.checkpoints import CheckpointRow, checkpoint_sha256, require_network
from ..records.errors import NotFoundError
from ..store.reading import Reader

__all__ = ["checked_out", "data_file", "names_of_checkpoint", "names_of_data", "own_names"]

_SHOWN = 12  # digits of a hash that name an upload


@contextmanager
def checked_out(store: Reader, ref: str) -> Iterator[tuple[CheckpointRow, Path]]:
    """Provide a checkpoint's file on disk, with its registered JSON beside it, while the context is open.

    Weights in several files are read where they are.

    Raises:
        NotFoundError: the checkpoint was stored without its file, or the file is gone or has changed.
    """
    row = store.get_checkpoint(ref)
    require_network(row.family, "what was asked for", row.id)
    with tempfile.TemporaryDirectory(prefix="interbasis-") as folder:
        file = Path(folder) / (Path(row.path).name if row.path else f"{row.sha256[:8]}.safetensors")
        if row.file_sha256 is not None:
            _link(store, row.file_sha256, file)
        elif row.path is None:
            raise NotFoundError(f"{row.id} was stored without its file: register or upload it again")
        elif not Path(row.path).is_file():
            raise NotFoundError(
                f"the file of {row.id}, {row.path}, is gone: say where it is now with "
                f"`interbasis relocate {row.id} FILE`, or register or upload it again"
            )
        elif checkpoint_sha256(Path(row.path)) != row.sha256:
            raise NotFoundError(
                f"{row.path} is not the checkpoint {row.id} any more: its content has changed; if you have its file "
                f"elsewhere, say where with `interbasis relocate {row.id} FILE`"
            )
        else:
            file.symlink_to(Path(row.path).resolve())
        if row.about is None or file.suffix != ".safetensors":
            yield row, Path(str(row.path))
            return
        file.with_suffix(".json").write_text(json.dumps(row.about))
        with own_names(names_of_checkpoint(row, file)):
            yield row, file


@contextmanager
def data_file(store: Reader, named: str | None) -> Iterator[Path | None]:
    """Provide the data file that a job names: a path, or "sha256:..." of an upload."""
    if named is None or not named.startswith("sha256:"):
        yield None if named is None else Path(named)
        return
    with tempfile.TemporaryDirectory(prefix="interbasis-") as folder:
        file = Path(folder) / "data.safetensors"
        _link(store, named.removeprefix("sha256:"), file)
        with own_names(names_of_data(named, file)):
            yield file


def names_of_checkpoint(row: CheckpointRow, file: Path) -> dict[str, str]:
    """Return the names that errors use for a checkpoint's temporary file and its JSON."""
    if str(file) == row.path:
        return {}
    return {str(file): row.path or f"the file of {row.id}", str(file.with_suffix(".json")): f"the JSON of {row.id}"}


def names_of_data(named: str | None, file: Path | None) -> dict[str, str]:
    """Return the name that errors use for the temporary file of uploaded data."""
    if named is None or file is None or str(file) == named:
        return {}
    return {str(file): f"uploaded data {named[: len('sha256:') + _SHOWN]}"}


@contextmanager
def own_names(names: Mapping[str, str]) -> Iterator[None]:
    """Replace temporary paths in errors by names that users know.

    Args:
        names: the name to use in place of each path.
    """
    try:
        yield
    except Exception as error:
        if len(error.args) == 1 and isinstance(error.args[0], str):
            text = error.args[0]
            for path, name in names.items():
                text = text.replace(path, name)
            error.args = (text,)
        raise


def _link(store: Reader, sha256: str, file: Path) -> None:
    """Link an artifact to another name, its hash verified; copy it where artifacts are not local files."""
    local = store.blobs.verified_path(sha256)
    if local is None:
        file.write_bytes(store.blobs.get(sha256))
    else:
        file.symlink_to(local.resolve())
