"""Files that come in and go out: check uploads before they are stored, and write exports, in separate processes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio

from ..records.checkpoints import FileRow
from ..records.errors import ExportError, ForbiddenError, StoreError, UnavailableError
from ..store.store import Store

__all__ = ["confined", "export", "keep"]


def confined(named: str, roots: Sequence[Path], *, folder: bool = False) -> Path:
    """Return the real path of a file (or folder) that lies within one of the roots.

    Raises:
        ForbiddenError: the file lies elsewhere, does not exist, or is not an ordinary file; of files elsewhere the
            message does not tell which.
    """
    refusal = f"{named!r} lies in none of the folders that this service reads: upload the file, or start with --root"
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


# what torch takes of the address space, which depends on its build, is known once it is imported
_CONVERT = """
import os, resource, sys, zipfile
import torch
from safetensors.torch import save_file
source, target, room, most = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
try:
    with open("/proc/self/statm") as used:
        base = int(used.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
except OSError:
    base = 8 << 30
resource.setrlimit(resource.RLIMIT_AS, (base + room,) * 2)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
with open(source, "rb") as file:
    archive = file.read(2) == b"PK"
if archive or zipfile.is_zipfile(source):
    try:
        members = zipfile.ZipFile(source).infolist()
    except zipfile.BadZipFile as error:
        sys.exit(f"it is no zip archive: {error}")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        sys.exit("its members are compressed, which torch.save never does: save it again with torch.save")
    size = sum(member.file_size for member in members)
    if size > most:
        sys.exit(f"its members have {size} bytes, expected at most {most}")
found = torch.load(source, map_location="cpu", weights_only=True)
found = found.get("state_dict", found) if isinstance(found, dict) else found
plain = isinstance(found, dict) and all(isinstance(n, str) and isinstance(t, torch.Tensor) for n, t in found.items())
if not plain:
    sys.exit("expected tensors by name")
size = sum(tensor.numel() * tensor.element_size() for tensor in found.values())
if size > most:
    sys.exit(f"its tensors have {size} bytes, expected at most {most}")
save_file({name: tensor.contiguous().clone() for name, tensor in found.items()}, target)
"""


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
        raise StoreError(f"the upload is no safetensors file: {why}") from error
    return store.add_file(file)


def _converted(file: Path, most: int) -> Path:
    """Convert the tensors of a .pt file, read with weights_only in a process with limited memory.

    Files that could grow are refused before they are read: compressed members, or more bytes than may be uploaded.
    """
    target = file.with_suffix(".safetensors")
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CONVERT, str(file), str(target), str(_ROOM + _COPIES * most), str(most)],
            capture_output=True,
            timeout=_SECONDS,
            env={"PATH": os.environ.get("PATH", ""), "OMP_NUM_THREADS": "1"},
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
    store: Store, ref: str, form: str, epsilon: float | None, file: Path, module: int | None = None
) -> None:
    """Write a result for another tool, as `interbasis export` does.

    Raises:
        StoreError: the result cannot be exported in this form.
        ExportError: the export failed; the log says why.
        UnavailableError: the export took too long.
    """
    location = store.location
    url = str(location.file) if location.file else location.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "interbasis.service.cli", "export", ref, "--format", form, "-o", str(file)]
    command += [] if epsilon is None else ["--epsilon", repr(epsilon)]
    command += [] if module is None else ["--module", str(module)]
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
