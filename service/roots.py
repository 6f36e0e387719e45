"""Paths that a request may name: within folders that the operator allowed, with every symbolic link followed first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .records import ForbiddenError

__all__ = ["confined"]


def confined(named: str, roots: Sequence[Path], *, folder: bool = False) -> Path:
    """The real path of a file (or folder) that lies within one of the roots.

    Raises:
        ForbiddenError: it lies elsewhere, is not there, or is no ordinary file; which of these is not said of what
            lies elsewhere.
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
