"""Progress reports of long computations."""

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias, TypeVar

__all__ = [
    "Progress",
    "ProgressCallback",
    "counter",
    "report",
]

T = TypeVar("T")


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


def counter(step: str, total: int, progress: ProgressCallback | None) -> Callable[[], None]:
    """Return a function to call after each of so many parts of a step."""
    done = count(1)

    def advance() -> None:
        if callable(progress):
            progress(Progress(step, next(done), total))

    return advance
