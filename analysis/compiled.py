"""Compile loops with numba on first use; machine code is cached on disk, so that it is compiled once per machine."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

__all__ = ["compiled", "random_below", "random_state"]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def compiled(function: FunctionT) -> FunctionT:
    """Compile a function to machine code that releases the GIL; it is not cached if no folder can be written."""
    function = inspect.unwrap(function)  # without run-time shape checks, which numba cannot compile
    try:
        return cast(FunctionT, njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba found no place for its cache
        return cast(FunctionT, njit(nogil=True)(function))


def random_state(generator: np.random.Generator) -> np.ndarray:
    """Create the state of the kernels' own generator."""
    return generator.integers(1, 2**63, size=1, dtype=np.uint64)


@compiled
def random_below(state: np.ndarray, n: int) -> int:
    """Draw a number in [0, n): xorshift64*."""
    x = state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    state[0] = x
    return int(((x * np.uint64(2685821657736338717)) >> np.uint64(33)) % np.uint64(n))
