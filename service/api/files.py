"""Files that come in and go out: check uploads before they are stored, and write exports, in separate processes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from fastapi import Request

from ..records.checkpoints import FileRow
from ..records.errors import ExportError, ForbiddenError, StoreError, UnavailableError
from ..store.store import Store

__all__ = ["confined", "export", "keep", "received"]


def confined(named: str, roots: Sequence[Path], *, folder: bool = False) -> Path:
    """Return the real path of a file (or folder) that lies within one of the roots.

    Raises:
        ForbiddenError: the file lies elsewhere, does not exist, or is not an ordinary file; of files elsewhere the
            message does not tell which.
    """
    refusal = f"{named!r} lies in none of the folders that this service reads: upload the file, or start it with --root"
    if not roots or not named.isprintable() or not Path(named).is_absolute():
        raise ForbiddenError(refusal)
    try:
        path = Path(named).resolve()
        if not any(path.is_relative_to(root.resolve()) for root in roots):
            raise ForbiddenError(refusal)
        there = path.is_dir() if folder else path.is_file()
    except (OSError, RuntimeError) as error:
        raise ForbiddenError(refusal) from error
    if not there:
        raise ForbiddenError(f"there is no {'folder' if folder else 'file'} {named!r}")
    return path


_log = logging.getLogger(__name__)

_ROOM = 256 << 20  # bytes that a process which reads a .pt file may use beside its tensors and torch itself

_COPIES = 4  # of the tensors in it: as loaded, in order, as bytes, as written

_SECONDS = 120

_TAIL = 4000  # characters of what a process said last, for the log


@asynccontextmanager
async def received(request: Request, name: str) -> AsyncIterator[Path]:
    """Provide the body of a request as a temporary file of this name while the context is open.

    Raises:
        UnavailableError: it cannot be written, or kept by what is done with it.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="interbasis-") as folder:
            file = Path(folder) / name
            async with await anyio.open_file(file, "wb") as stream:
                async for part in request.stream():
                    await stream.write(part)
            yield file
    except OSError as error:
        raise UnavailableError(f"the upload cannot be kept: {error.strerror}") from error


def keep(store: Store, file: Path, most: int) -> FileRow:
    """Check an uploaded file and store it; convert a .pt file first, whose tensors have at most `most` bytes.

    Raises:
        StoreError: the file is not safetensors, or (.pt) contains more than tensors by name.
    """
    if file.suffix == ".pt":
        file = _converted(file, most)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            opened.keys()
    except (SafetensorError, OSError) as error:
        why = str(error).replace(str(file), "it")
        raise StoreError(f"the upload is not a safetensors file: {why}") from error
    return store.add_file(file)


def _converted(file: Path, most: int) -> Path:
    """Convert the tensors of a .pt file, read with weights_only in a process with limited memory.

    Files that could grow are refused before they are read: compressed members, or more bytes than may be uploaded.
    """
    target, limits = file.with_suffix(".safetensors"), (str(_ROOM + _COPIES * most), str(most))
    paths = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "interbasis.service.api.convert_pt", str(file), str(target), *limits],
            capture_output=True,
            timeout=_SECONDS,
            env=paths | {"OMP_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StoreError(f"the .pt file was not read within {_SECONDS} s") from error
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().splitlines()
        said = why[-1].replace(str(file.parent), "") if why else "the process was ended"
        raise StoreError(f"the .pt file cannot be read: {said}")
    return target


async def export(
    store: Store, ref: str, form: str, epsilon: float | None, file: Path, **choices: float | str | None
) -> None:
    """Write a result for another tool, as `interbasis export` does.

    Args:
        store: store of the result.
        ref: reference of the result.
        form: the format.
        epsilon: keep only edges stronger than its square root.
        file: to be written.
        choices: other options of the command; None is left out.

    Raises:
        StoreError: the result cannot be exported in this form.
        ExportError: the export failed; the log says why.
        UnavailableError: the export took too long.
    """
    location = store.location
    url = str(location.file) if location.file else location.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "interbasis.service.cli", "export", ref, "--format", form, "-o", str(file)]
    command += [f"--{name}={value}" for name, value in {"epsilon": epsilon, **choices}.items() if value is not None]
    env = {name: value for name, value in os.environ.items() if name not in ("INTERBASIS_URL", "INTERBASIS_TOKEN")}
    env |= {"INTERBASIS_STORE": url, "INTERBASIS_ARTIFACTS": str(location.artifacts)}
    with anyio.move_on_after(_SECONDS):
        done = await anyio.run_process(command, env=env, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            ours = [line for line in said.splitlines() if line.startswith("error: ")]
            places = str(file), str(location), str(location.artifacts)  # what is wrong there is our failure
            if done.returncode == 2 and ours and not any(place in ours[-1] for place in places):
                raise StoreError(ours[-1].removeprefix("error: "))
            _log.error("the export of %s as %s ended with %s: %s", ref, form, done.returncode, said[-_TAIL:])
            raise ExportError(f"the export of {ref} as {form} failed")
        return
    raise UnavailableError(f"the export took more than {_SECONDS} s")
