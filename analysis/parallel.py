"""Run one function over many items in threads, where its loops are compiled and release Python's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["in_order"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def in_order(
    function: Callable[[ItemT], ResultT], items: Iterable[ItemT], threads: int = 1
) -> Generator[ResultT, None, None]:
    """Yield the result of each item in order; what has not begun is dropped when the iterator is closed.

    Args:
        function: must not depend on the order in which items are computed.
        items: one argument each.
        threads: how many are computed at once.

    >>> list(in_order(lambda x: x**2, range(4), threads=2))
    [0, 1, 4, 9]
    """
    if threads < 2:
        yield from map(function, items)
        return
    waiting: deque[Future[ResultT]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
