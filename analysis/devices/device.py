"""The device that computes: its name, which numbers it has, and on how many threads.

A model and its derivatives are computed where the model is. Sums over data are float64, there, or on the CPU where a
device has no float64 (mps). Random numbers are drawn on the CPU, so that they are the same for every device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import InputError

__all__ = [
    "DEVICES",
    "device_of",
    "few_threads",
    "find_device",
    "lacks_memory",
    "moved",
    "placed",
    "summed",
    "sums_on",
    "too_large",
]

DEVICES = ("auto", "cpu", "cuda", "mps")
"""Names of devices; "auto" is the first of cuda, mps and cpu that there is."""

_WITHOUT_FLOAT64 = ("mps",)

_SMALL = 10**6  # parameters

_LACKS = ("out of memory", "not enough memory", "can't allocate memory")


def find_device(name: str | torch.device) -> torch.device:
    """Return the device of a name, such as "cuda", "cuda:1" or "auto".

    Raises:
        InputError: an unknown device, or one that is not there.

    >>> find_device("cpu")
    device(type='cpu')
    """
    kind, _, number = str(name).partition(":")
    if kind not in DEVICES or (number and (kind != "cuda" or not number.isdecimal())):
        raise InputError(
            f"unknown device {str(name)!r}: expected {', '.join(DEVICES)}, or cuda:1 for the second of cuda"
        )
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if kind == "auto":
        kind = next(kind for kind, found in there.items() if found)
    if not there[kind]:
        found = ", ".join(kind for kind, found in there.items() if found)
        raise InputError(f"there is no device {kind!r}: this PyTorch ({torch.__version__}) finds {found}")
    if number and int(number) >= torch.cuda.device_count():
        raise InputError(
            f"there is no device {str(name)!r}: of cuda there are {torch.cuda.device_count()}, from cuda:0"
        )
    return torch.device(f"{kind}:{number}" if number else kind)


def device_of(model: nn.Module) -> torch.device:
    """Return where a model computes: the device of its first parameter or buffer, or else the CPU."""
    first: Tensor | None = next(model.parameters(), next(model.buffers(), None))
    return torch.device("cpu") if first is None else first.device


def placed(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a model itself to a device; float64 becomes float32 where the device has no float64."""
    wide = any(v.dtype == torch.float64 for v in (*model.parameters(), *model.buffers()))
    return (model.float() if wide and sums_on(device) != device else model).to(device)


def moved(value: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; float64 becomes float32 where the device has no float64."""
    narrow = value.dtype == torch.float64 and sums_on(device) != device
    return value.to(device, torch.float32 if narrow else value.dtype)


def sums_on(device: torch.device) -> torch.device:
    """Return where float64 sums of what a device computes are taken: there, or on the CPU if it has no float64.

    >>> sums_on(torch.device("mps")), sums_on(torch.device("cuda"))
    (device(type='cpu'), device(type='cuda'))
    """
    return torch.device("cpu") if device.type in _WITHOUT_FLOAT64 else device


def summed(value: Tensor) -> Tensor:
    """Return a tensor in float64, where it is summed."""
    return value.to(sums_on(value.device), torch.float64)


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error says that memory, of the CPU or of a device, does not suffice.

    >>> lacks_memory(MemoryError()), lacks_memory(RuntimeError("MPS backend out of memory")), lacks_memory(ValueError())
    (True, True, False)
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _LACKS)


def too_large(points: int, what: str) -> str:
    """Say what to do where memory does not suffice for some data points.

    >>> too_large(8, "a forward pass")
    'memory does not suffice for a forward pass of 8 data points: give batches of fewer (batch_size)'
    """
    if points > 1:
        return f"memory does not suffice for {what} of {points:,} data points: give batches of fewer (batch_size)"
    return f"memory does not suffice for {what} of a single data point: take shorter ones, or a device with more memory"


@contextmanager
def few_threads(holder: object) -> Iterator[None]:
    """Compute on one thread while the model is small, and put the number of threads back.

    Threads that wait for each other spin; where other work keeps the cores busy that took 4 to 40 times as long.

    Args:
        holder: the model, or something that holds it as `model` or as `network.model`; without one nothing changes.
    """
    model = getattr(getattr(holder, "network", holder), "model", holder)
    before = torch.get_num_threads()
    own = list(model.parameters()) if isinstance(model, nn.Module) else []
    few = bool(own) and not any(map(is_lazy, own)) and sum(p.numel() for p in own) < _SMALL
    if few and before > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if few and before > 1:
            torch.set_num_threads(before)
