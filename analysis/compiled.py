"""Compile loops with numba on first use, and run them over many items in threads.

Machine code is cached on disk, so that it is compiled once per machine; it releases Python's lock.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, cast

from numba import njit

__all__ = ["compiled", "in_order"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def compiled(function: FunctionT) -> FunctionT:
    """Compile a function to machine code that releases the GIL; it is not cached if no folder can be written."""
    function = inspect.unwrap(function)  # without run-time shape checks, which numba cannot compile
    try:
        return cast(FunctionT, njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba found no place for its cache
        return cast(FunctionT, njit(nogil=True)(function))


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
