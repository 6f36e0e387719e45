"""Compile loops with numba on first use; machine code is cached on disk, so that it is compiled once per machine."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

__all__ = ["compiled"]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def compiled(function: FunctionT) -> FunctionT:
    """Compile a function to machine code that releases the GIL; it is not cached if no folder can be written."""
    function = inspect.unwrap(function)  # without run-time shape checks, which numba cannot compile
    try:
        return cast(FunctionT, njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba found no place for its cache
        return cast(FunctionT, njit(nogil=True)(function))
