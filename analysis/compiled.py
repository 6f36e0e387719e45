"""Loops that numba compiles on first use; machine code is kept on disk, so that it is compiled once per machine."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

__all__ = ["compiled"]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def compiled(function: FunctionT) -> FunctionT:
    """The function as machine code that releases the GIL; not kept where no folder can be written."""
    function = inspect.unwrap(function)  # of run-time shape checks, which are not for machine code
    try:
        return njit(cache=True, nogil=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # numba found no place for its cache
        return njit(nogil=True)(function)  # type: ignore[no-any-return]
