"""Files that come in and go out: checks of uploads before they are kept, and exports, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import anyio

from .records import FileRow, StoreError, UnavailableError
from .store import Store

__all__ = ["export", "keep"]

_MEMORY = 8 << 30  # address space of a process that reads a .pt file: its weights, and torch itself
_SECONDS = 120

_CONVERT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[3]),) * 2)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import torch
from safetensors.torch import save_file
found = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
found = found.get("state_dict", found) if isinstance(found, dict) else found
plain = isinstance(found, dict) and all(isinstance(n, str) and isinstance(t, torch.Tensor) for n, t in found.items())
if not plain:
    sys.exit("expected tensors by name")
size = sum(tensor.numel() * tensor.element_size() for tensor in found.values())
if size > int(sys.argv[4]):
    sys.exit(f"its tensors have {size} bytes, expected at most {sys.argv[4]}")
save_file({name: tensor.contiguous().clone() for name, tensor in found.items()}, sys.argv[2])
"""


def keep(store: Store, file: Path, most: int) -> FileRow:
    """Check an uploaded file and keep it; a .pt file is converted first, to tensors of so many bytes at most.

    Raises:
        StoreError: it is no safetensors file, or (.pt) holds more than tensors by name.
    """
    if file.suffix == ".pt":
        file = _converted(file, most)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            opened.keys()
    except (SafetensorError, OSError) as error:
        raise StoreError(f"the upload is no safetensors file: {error}") from error
    return store.add_file(file)


def _converted(file: Path, most: int) -> Path:
    """The tensors of a .pt file, read with weights_only where memory is limited and nothing is inherited."""
    target = file.with_suffix(".safetensors")
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CONVERT, str(file), str(target), str(_MEMORY), str(most)],
            capture_output=True,
            timeout=_SECONDS,
            env={"PATH": os.environ.get("PATH", ""), "OMP_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StoreError(f"the .pt file was not read within {_SECONDS} s") from error
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().splitlines()
        raise StoreError(f"the .pt file cannot be read: {why[-1] if why else 'the process was ended'}")
    return target


async def export(
    store: Store, ref: str, form: str, epsilon: float | None, file: Path, module: int | None = None
) -> None:
    """Write a result for another tool, as `interbasis export` does.

    Raises:
        StoreError: it has no such form.
        UnavailableError: it took too long.
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
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise StoreError(said[-1].removeprefix("error: ") if said else "the export failed")
        return
    raise UnavailableError(f"the export took more than {_SECONDS} s")
