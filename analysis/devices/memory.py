"""Memory: how much is left, the limit that the user sets, and how many data points fit into it at a time.

Sums do not depend on how the data are cut into batches, so that a limit changes memory and time, not results.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import ByteSize, TypeAdapter, ValidationError
from torch import Tensor, nn

from ..errors import DataError, InputError
from .device import device_of

__all__ = [
    "BLOCK",
    "available_memory",
    "bytes_in_words",
    "check_memory",
    "limited_memory",
    "memory_left",
    "memory_of",
    "points_that_fit",
    "saved_bytes",
]

BLOCK = 2**18
"""Entries of one block of cotangents: 2 MB in float64, and several times that in the backward pass."""

_limit: ContextVar[int | None] = ContextVar("limit", default=None)  # bytes that the process may take

_SHARE = 0.5  # of the available memory is taken where no limit is set

_PASSES = 3  # memory of a backward pass of one cotangent, as a multiple of the tensors that autograd keeps

_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def memory_of(words: str | int) -> int:
    """Return the number of bytes that a word like "8GiB" or "500 MB" means.

    Raises:
        InputError: it means none, or is not positive.

    >>> memory_of("8GiB"), memory_of("500 MB"), memory_of(4096)
    (8589934592, 500000000, 4096)
    """
    with suppress(ValidationError):
        if (found := int(TypeAdapter(ByteSize).validate_python(words))) > 0:
            return found
    raise InputError(f"memory is {words!r}: expected a number of bytes, such as 8GiB or 500MB")


@contextmanager
def limited_memory(memory: str | int | None) -> Iterator[None]:
    """Keep the memory of the process, or of the GPU that it computes on, below a limit as far as batches decide it.

    Args:
        memory: bytes, or words for them, such as "8GiB"; None leaves the limit as it is.

    Raises:
        InputError: no number of bytes.

    >>> with limited_memory("1TiB"):
    ...     memory_left(torch.device("cpu")) > 2**39
    True
    """
    token = _limit.set(_limit.get() if memory is None else memory_of(memory))
    try:
        yield
    finally:
        _limit.reset(token)


def memory_left(device: torch.device, share: float = 1.0) -> int | None:
    """Return the bytes that a computation may take; None if that is unknown.

    Args:
        device: of a GPU the memory there counts, else that of the machine or its container.
        share: of what is free, where no limit is set.
    """
    limit = _limit.get()
    if limit is not None:
        taken = torch.cuda.memory_allocated(device) if device.type == "cuda" else _resident()
        return max(limit - taken, 0)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    return None if free is None else int(share * free)


def points_that_fit(
    run: Callable[[], object], targets: Sequence[Float[Tensor, "batch _ _"]], model: nn.Module
) -> int | None:
    """Return how many data points a forward pass and blocks of backward passes may take; None if memory is unknown.

    A block holds as many cotangents as fit `BLOCK` entries of what is differentiated, for all points of the batch.

    Args:
        run: a forward pass of a few data points that keeps the autograd graph, and returns it.
        targets: what is differentiated, on the same points.
        model: the model that runs; what it holds takes no more memory.

    Raises:
        DataError: not even one data point fits.
    """
    left = memory_left(device_of(model), _SHARE)
    if left is None:
        return None
    each = _PASSES * max(saved_bytes(run, (*model.parameters(), *model.buffers())), 1) / len(targets[0])
    if each > left:
        limit = _limit.get()
        allowed = "half of what is free" if limit is None else f"what a limit of {bytes_in_words(limit)} leaves"
        raise DataError(
            f"a backward pass of one data point takes about {bytes_in_words(int(each))}, more than {allowed} "
            f"({bytes_in_words(left)}): take shorter data points, a device with more memory, or a larger limit (memory)"
        )
    fits = max(1, int(left / each))
    if all(BLOCK // value[0].numel() <= fits for value in targets):
        return fits
    return max(1, fits // max(value.shape[-1] for value in targets))  # all cotangents of a target in one block


def saved_bytes(run: Callable[[], object], held: Iterable[Tensor] = ()) -> int:
    """Count the bytes of the tensors that autograd keeps for a backward pass, each storage once, without those held.

    >>> x = torch.ones(1000, dtype=torch.float64, requires_grad=True)
    >>> saved_bytes(lambda: (2 * x).exp())
    8000
    """
    seen: dict[int, int] = {}
    known = {value.untyped_storage().data_ptr() for value in held}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in known:
            seen[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        kept = run()  # while it lives no other tensor has the place of one that was counted
    del kept
    return sum(seen.values())


def check_memory(needed: int, what: str) -> None:
    """Refuse what cannot fit into the memory of this machine.

    Raises:
        InputError: more bytes are needed than are available, or than a limit leaves.
    """
    left = memory_left(torch.device("cpu"))
    if left is not None and needed > left:
        raise InputError(
            f"{what} takes {bytes_in_words(needed)} of memory, and {bytes_in_words(left)} are available: use a machine "
            "with more memory, or a smaller model"
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


def _resident() -> int:
    """Return the bytes of memory that the process has now; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0


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
