"""Loops that numba compiles on first use; machine code is kept on disk, so that it is compiled once per machine."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

__all__ = ["compiled"]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def compiled(function: FunctionT) -> FunctionT:
    """The function as machine code that releases the GIL; not kept where no folder can be written."""
    function = inspect.unwrap(function)  # of run-time shape checks, which are not for machine code
    try:
        return cast(FunctionT, njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba found no place for its cache
        return cast(FunctionT, njit(nogil=True)(function))
