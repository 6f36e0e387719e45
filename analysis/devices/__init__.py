"""Where a model computes: devices and what they can, threads, and memory."""

from .device import (
    DEVICES,
    device_of,
    few_threads,
    find_device,
    lacks_memory,
    moved,
    placed,
    summed,
    sums_on,
    too_large,
)
from .memory import (
    BLOCK,
    available_memory,
    bytes_in_words,
    check_memory,
    limited_memory,
    memory_left,
    memory_of,
    points_that_fit,
    saved_bytes,
)

__all__ = [
    "BLOCK",
    "DEVICES",
    "available_memory",
    "bytes_in_words",
    "check_memory",
    "device_of",
    "few_threads",
    "find_device",
    "lacks_memory",
    "limited_memory",
    "memory_left",
    "memory_of",
    "moved",
    "placed",
    "points_that_fit",
    "saved_bytes",
    "summed",
    "sums_on",
    "too_large",
]
