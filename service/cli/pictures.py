"""Pictures that commands draw beside what they print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..terminal.show import err

__all__ = ["check_picture", "draw"]


def check_picture(file: Path | None) -> None:
    """Refuse a name that ends in no picture format, before anything is computed.

    Raises:
        InputError: the name does not end in a picture format.
    """
    if file is not None:
        from ..tasks.figures import picture_format

        picture_format(file)


def draw(source: Any, ref: str, file: Path | None, figure: str | None = None) -> None:
    """Draw a stored result into a file, if one is given, and say so."""
    if file is None:
        return
    from ..tasks.figures import plot

    plot(source, ref, file, figure)
    err.print(f"wrote {file}", soft_wrap=True)
