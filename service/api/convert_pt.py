"""Convert a .pt file to .safetensors in a process of its own, whose memory is limited.

`python -m interbasis.service.api.convert_pt SOURCE TARGET ROOM MOST`; its last line on stderr says what failed.
"""

from __future__ import annotations

import os
import resource
import sys
import zipfile

from ..records.errors import StoreError

__all__ = ["check_archive", "convert", "limit_memory", "main"]

_PLACES = ("state_dict", "model_state_dict", "model")  # where training scripts keep the tensors of the model

_UNKNOWN = 8 << 30  # bytes of address space that torch takes at most, for systems that do not say


def limit_memory(room: int) -> None:
    """Let this process use `room` bytes beside what it uses now, and write no core file.

    Call it once torch is imported: the address space that torch takes depends on its build.
    """
    try:
        with open("/proc/self/statm") as used:
            base = int(used.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        base = _UNKNOWN
    resource.setrlimit(resource.RLIMIT_AS, (base + room,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def check_archive(source: str, most: int) -> None:
    """Check, without unpacking it, that a zip archive holds at most `most` bytes; accept files that are no archive.

    Raises:
        StoreError: the archive is broken, compressed or too large.
    """
    with open(source, "rb") as file:
        archive = file.read(2) == b"PK"
    if not archive and not zipfile.is_zipfile(source):
        return
    try:
        members = zipfile.ZipFile(source).infolist()
    except zipfile.BadZipFile as error:
        raise StoreError(f"it is not a zip archive: {error}") from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise StoreError("its members are compressed, which torch.save never does: save it again with torch.save")
    size = sum(member.file_size for member in members)
    if size > most:
        raise StoreError(f"its members have {size} bytes, expected at most {most}")


def convert(source: str, target: str, most: int) -> str | None:
    """Write the tensors of a .pt file as .safetensors; run no code that it holds.

    They are those of the file itself, or what it holds as "state_dict", "model_state_dict" or "model".

    Returns:
        Which of these it was, None for the file itself.

    Raises:
        StoreError: it holds no tensors, more than tensors by name, or more than `most` bytes.
    """
    import torch
    from safetensors.torch import save_file

    check_archive(source, most)
    found = torch.load(source, map_location="cpu", weights_only=True)
    places: list[str | None] = [None, *(name for name in _PLACES if isinstance(found, dict) and name in found)]
    parts = [found if place is None else found[place] for place in places]
    fit = [isinstance(part, dict) and len(part) > 0 and all(map(_is_tensor, part.items())) for part in parts]
    if True not in fit and any(isinstance(part, dict) and not part for part in parts):
        raise StoreError("it holds no tensors: expected those of a model by name")
    if True not in fit:
        holds = f"; it holds {', '.join(map(str, found))[:200]}" if isinstance(found, dict) else ""
        raise StoreError(f"expected tensors by name, or these as {', '.join(_PLACES)}{holds}")
    place, found = places[fit.index(True)], parts[fit.index(True)]
    size = sum(tensor.numel() * tensor.element_size() for tensor in found.values())
    if size > most:
        raise StoreError(f"its tensors have {size} bytes, expected at most {most}")
    save_file({name: tensor.contiguous().clone() for name, tensor in found.items()}, target)
    return place


def _is_tensor(item: tuple[object, object]) -> bool:
    import torch

    return isinstance(item[0], str) and isinstance(item[1], torch.Tensor)


def main(arguments: list[str]) -> None:
    """Convert as the command line says: source, target, bytes of memory, most bytes of tensors."""
    import torch  # noqa: F401

    source, target, room, most = arguments
    limit_memory(int(room))
    try:
        convert(source, target, int(most))
    except StoreError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
