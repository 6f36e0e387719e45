"""Estimate the remaining time of a step."""

from __future__ import annotations

__all__ = ["Pace"]


class Pace:
    """Estimate the remaining seconds of a phase from its speed so far; each phase is estimated on its own."""

    def __init__(self) -> None:
        """Start without reports."""
        self._phase: str | None = None
        self._first: tuple[float, float] | None = None  # fraction, and when
        self._last: tuple[float, float] | None = None

    def note(self, phase: str, fraction: float | None, now: float) -> None:
        """Take a report; the clock restarts at a new phase, and when a phase is repeated."""
        if fraction is None or phase != self._phase or (self._last is not None and fraction < self._last[0]):
            self._first = None
        self._phase, self._last = phase, None if fraction is None else (fraction, now)
        self._first = self._first or self._last

    def remaining(self, now: float) -> float | None:
        """Return the remaining seconds; None where unknown, or where the phase is over and the step continues."""
        if self._first is None or self._last is None or not self._first[0] < self._last[0] < 1:
            return None
        (before, begun), (fraction, then) = self._first, self._last
        return max((then - begun) * (1 - fraction) / (fraction - before) - (now - then), 0.0)
