"""Tensors of safetensors files: read once, together with the hash of the bytes; every type bit-exact, or refused."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["converted", "named", "parse_tensors", "read_tensors"]

_TYPES = {
    "BOOL": torch.bool,
    **{f"I{bits}": getattr(torch, f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": getattr(torch, f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"F{bits}": getattr(torch, f"float{bits}") for bits in (16, 32, 64)},
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "C64": torch.complex64,
}

"""Supported types; other types of the format are packed, scaled by other tensors, or cannot represent 0."""

_WHOLE = 2**53  # float64 represents all integers up to here

_MOST_HEADER = 100_000_000  # bytes, the limit of the format


def read_tensors(file: str | os.PathLike[str]) -> tuple[dict[str, Tensor], str]:
    """Read the tensors of a safetensors file by name, in the file's types, and the SHA-256 of its bytes.

    The file is opened and read once, so that tensors and hash belong together even if the file changes meanwhile. The
    tensors are views of these bytes.

    Raises:
        InputError: the file cannot be read, is no safetensors file, or holds an unsupported type (named).
    """
    path = Path(file)
    try:
        with path.open("rb") as stream:
            data = bytearray(os.fstat(stream.fileno()).st_size)
            read = stream.readinto(data)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if read < len(data):
        raise InputError(f"cannot read {path}: it became shorter meanwhile")
    try:
        return parse_tensors(data), hashlib.sha256(data).hexdigest()
    except ValueError as error:
        raise InputError(f"cannot read {path}: {error} (is the file truncated?)") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def parse_tensors(data: bytearray) -> dict[str, Tensor]:
    """Parse the content of a safetensors file into tensors that are views of it.

    Raises:
        ValueError: the content is no safetensors file.
        InputError: a tensor has an unsupported type.

    >>> from safetensors.torch import save
    >>> parse_tensors(bytearray(save({"a": torch.tensor([1.0, -2.0], dtype=torch.bfloat16)})))
    {'a': tensor([ 1., -2.], dtype=torch.bfloat16)}
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, _MOST_HEADER):
        raise ValueError("it is no safetensors file, or incomplete")
    try:
        header = json.loads(bytes(data[8 : 8 + length]))
        entries: dict[str, tuple[str, tuple[int, ...], int, int]] = {}
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = map(int, entry["data_offsets"])
                entries[name] = str(entry["dtype"]), tuple(map(int, entry["shape"])), begin, end
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"its header makes no sense ({type(error).__name__}: {error})") from error
    found = {}
    start = 8 + length
    spans = sorted((begin, end) for _, _, begin, end in entries.values())
    ends = [0, *(place for span in spans for place in span), len(data) - start]
    if ends[::2] != ends[1::2] or any(begin > end for begin, end in spans):
        raise ValueError("its tensors do not fill it")
    for name, (kind, shape, begin, end) in entries.items():
        if kind not in _TYPES:
            raise InputError(
                f"{name} holds numbers of type {kind}, which are not read: expected one of {', '.join(_TYPES)}; "
                "convert it to F32 first"
            )
        size = torch.empty(0, dtype=_TYPES[kind], device="cpu").element_size()
        if min(shape, default=0) < 0 or end - begin != size * math.prod(shape):
            raise ValueError(f"{name} has shape {shape} of {kind}, but {end - begin} bytes")
        found[name] = _view(data, _TYPES[kind], start + begin, shape, size)
    return found


def _view(data: bytearray, kind: torch.dtype, at: int, shape: tuple[int, ...], size: int) -> Tensor:
    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=kind, device="cpu")
    if at % size:
        data, at = data[at : at + size * count], 0
    return torch.frombuffer(data, dtype=kind, count=count, offset=at).reshape(shape)


def converted(tensor: Tensor, kind: torch.dtype) -> Tensor:
    """Convert a tensor to another type without changing its numbers.

    Raises:
        InputError: the type cannot represent one of the numbers.

    >>> converted(torch.tensor([1, 2]), torch.float64)
    tensor([1., 2.], dtype=torch.float64)
    """
    if tensor.dtype == kind:
        return tensor
    if tensor.is_floating_point() and kind == torch.float64:
        return tensor.to(kind)
    if tensor.is_complex() and not kind.is_complex:
        raise InputError(f"holds complex numbers ({named(tensor.dtype)}), expected real ones")
    source, result = _wide(tensor), tensor.to(kind)
    back = _wide(result)
    same = (source == back) | ((source != source) & (back != back))
    if source.dtype != back.dtype:  # float64 does not represent every integer beyond 2^53
        whole = back if source.is_floating_point() else source
        same &= (whole.real >= -_WHOLE) & (whole.real <= _WHOLE)
    if not same.all():
        raise InputError(f"holds {named(tensor.dtype)} numbers that are none of {named(kind)}")
    return result


def named(kind: torch.dtype) -> str:
    """Return the name of a type without `torch.`."""
    return str(kind).removeprefix("torch.")


def _wide(tensor: Tensor) -> Tensor:
    """Convert a tensor to int64, float64 or complex128."""
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    if tensor.is_floating_point():
        return tensor.to(torch.float64)
    if tensor.dtype == torch.uint64 and bool((tensor.view(torch.int64) < 0).any()):
        raise InputError("holds uint64 numbers of 2^63 and more, expected smaller ones")
    return tensor.to(torch.int64)
