"""How fast a worker may start jobs."""

from __future__ import annotations

__all__ = ["Pace"]


class Pace:
    """How many seconds a phase of a step may still take, by how fast it went so far; phases say nothing of the next."""

    def __init__(self) -> None:
        """Before the first report."""
        self._phase: str | None = None
        self._first: tuple[float, float] | None = None  # fraction, and when
        self._last: tuple[float, float] | None = None

    def note(self, phase: str, fraction: float | None, now: float) -> None:
        """A report; the clock starts anew with another phase, and with one that is gone through again."""
        if fraction is None or phase != self._phase or (self._last is not None and fraction < self._last[0]):
            self._first = None
        self._phase, self._last = phase, None if fraction is None else (fraction, now)
        self._first = self._first or self._last

    def remaining(self, now: float) -> float | None:
        """Seconds; None where it cannot be known, or the phase is over and the step goes on."""
        if self._first is None or self._last is None or not self._first[0] < self._last[0] < 1:
            return None
        (before, begun), (fraction, then) = self._first, self._last
        return max((then - begun) * (1 - fraction) / (fraction - before) - (now - then), 0.0)
