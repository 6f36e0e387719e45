"""Progress reports of long computations, and the memory that they may still take."""

import os
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeAlias, TypeVar

__all__ = [
    "Progress",
    "ProgressCallback",
    "available_memory",
    "bytes_in_words",
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


_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_memory() -> int | None:
    """Return the bytes that this process can still take without swapping, or None where the system does not tell.

    The least of what Linux calls MemAvailable and of what is left of the limit of a container.
    """
    found = [left for left in (_of_the_machine(), *(_of_a_container(*files) for files in _LIMITS)) if left is not None]
    return min(found, default=None)


def bytes_in_words(count: int) -> str:
    """Write a number of bytes with a unit.

    >>> bytes_in_words(3 * 2**30), bytes_in_words(40 * 2**20)
    ('3.0 GiB', '40 MiB')
    """
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _of_the_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # macOS and Windows do not know the name
        return None


def _of_a_container(limit: str, used: str) -> int | None:
    try:
        return max(int(Path(limit).read_text()) - int(Path(used).read_text()), 0)
    except (OSError, ValueError):  # no container, or "max"
        return None
