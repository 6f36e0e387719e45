"""Progress reports of long computations."""

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import TypeAlias, TypeVar

__all__ = [
    "Progress",
    "ProgressCallback",
    "Watched",
    "counter",
    "report",
]

T = TypeVar("T")

_PAUSE = 0.5  # seconds between reports of parts


@dataclass(frozen=True)
class Progress:
    """One report: name of the step, items done, their total where known, and a running result in words.

    >>> Progress("moments", 3, 4).fraction
    0.75
    """

    step: str
    done: int
    total: int | None = None
    message: str = ""

    @property
    def fraction(self) -> float | None:
        """The share of the step that is done, or None where the total is not known."""
        return None if not self.total else self.done / self.total


ProgressCallback: TypeAlias = Callable[[Progress], None] | bool
"""Called with each report; an exception raised in it cancels the computation cleanly.

Of the public functions True shows a progress bar, False none, and None one in notebooks and at a prompt, see
`notebook.bars`.
"""


def report(items: Iterable[T], step: str, progress: ProgressCallback | None, total: int | None = None) -> Iterator[T]:
    """Iterate over the items, reporting before the first and after each one; items need no length."""
    if total is None and isinstance(items, Sized):
        with suppress(TypeError, NotImplementedError):  # a loader over a stream has the method but no length
            total = len(items)
    if callable(progress):
        progress(Progress(step, 0, total))
    for done, item in enumerate(items, 1):
        yield item
        if callable(progress):
            progress(Progress(step, done, total))


class Watched:
    """Reports of a step over items, and in between, twice a second, of the parts of an item that takes long.

    It is given in place of the callback; a callback that raises an exception cancels the step between two parts, too.
    """

    def __init__(self, progress: ProgressCallback | None) -> None:
        """Pass reports on to this callback; without one nothing happens."""
        self._progress, self._last, self._said = progress, Progress("", 0), 0.0

    def __call__(self, progress: Progress) -> None:
        """Pass on the report of an item."""
        self._last, self._said = progress, time.monotonic()
        if callable(self._progress):
            self._progress(progress)

    def part(self, done: int, total: int, noun: str) -> None:
        """Report that so many parts of the present item are done."""
        if callable(self._progress) and done < total and time.monotonic() - self._said > _PAUSE:
            self._said = time.monotonic()
            self._progress(replace(self._last, message=f"{done:,} of {total:,} {noun}"))


def counter(step: str, total: int, progress: ProgressCallback | None) -> Callable[[], None]:
    """Return a function to call after each of so many parts of a step."""
    done = count(1)

    def advance() -> None:
        if callable(progress):
            progress(Progress(step, next(done), total))

    return advance
