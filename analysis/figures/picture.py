"""The figure that all pictures are drawn on: a matplotlib figure that notebooks show by themselves."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

__all__ = ["Picture"]

_DPI = 144


class Picture(Figure):
    """A matplotlib figure that is shown as the last expression of a notebook cell.

    Notebooks show figures of pyplot by themselves, and others only after pyplot was imported. This one needs no pyplot
    and does not change its state.
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Return the pixels for a notebook, with the width and height at which it shows them."""
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=_DPI)
        width, height = self.get_size_inches()
        return stream.getvalue(), {"width": round(72 * width), "height": round(72 * height)}
