"""Weights of a model from the tensors of a file: names matched, ties kept, and every number exactly that of the file.

Names of a model may share memory: the same parameter under two names, tied buffers, views of one tensor. A file holds
such memory once (`safetensors.torch.save_model`, `save_pretrained` of transformers) or under each name. Both can be
read; names that share memory in the model but have different values in the file are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, InputError, LayerError
from .tensors import converted

__all__ = ["as_double", "fill", "refuse_shared_memory", "stored_once", "tied"]

_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod)\.")

"""Parts of names that DataParallel, DistributedDataParallel and `torch.compile` add."""


def as_double(model: nn.Module) -> nn.Module:
    """Convert a model to float64 and keep shared memory, which `model.double()` loses for views and buffers.

    >>> layer = nn.Linear(2, 2)
    >>> layer.register_buffer("rows", layer.weight.detach()[:1])
    >>> _ = as_double(layer).weight.data.zero_()
    >>> layer.rows
    tensor([[0., 0.]], dtype=torch.float64)
    """
    places: dict[tuple[int, torch.dtype], list[tuple[nn.Module, str, Tensor]]] = {}
    for module in model.modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and tensor.is_floating_point() and tensor.dtype != torch.float64:
                places.setdefault(_memory(tensor), []).append((module, name, tensor))
    shared = []
    for group in places.values():
        if len({id(t) if isinstance(t, nn.Parameter) else (id(m), n) for m, n, t in group}) > 1:
            memory = _whole(group[0][2].detach()).double()
            shared.append([(module, name, _view(memory, tensor)) for module, name, tensor in group])
    model.double()
    for module, name, view in (place for group in shared for place in group):
        if (parameter := module._parameters.get(name)) is not None:
            parameter.data = view
        else:
            module._buffers[name] = view
    return model


def fill(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    file: Path,
    *,
    parameter: Callable[[str], str] = str,
    stored: Callable[[str], str] = str,
) -> tuple[str, ...]:
    """Put the tensors of a file into a model and return remarks, as sentences; errors use the file's names.

    Args:
        model: the model, its weights in the wanted types.
        tensors: tensors of the file, by name.
        file: path of the file, for messages.
        parameter: maps a name in the file to a path in the model.
        stored: its inverse.

    Raises:
        CheckpointError: a missing or surplus tensor, another shape, a number that the model's type cannot represent,
            NaN, or names that share memory in the model and have different values in the file.
    """
    expected = model.state_dict()
    paths, notes = _matched(tensors, expected, parameter)
    missing, covered = set(expected) - set(paths.values()), _covered(expected, set(paths.values()))
    if lacking := {stored(path) for path in missing - set(covered)}:
        raise CheckpointError(
            f"{file} lacks the tensors {_some(lacking)} that the config's model has; it holds {_some(set(tensors))}"
        )
    if surplus := {name for name in tensors if name not in paths}:
        raise CheckpointError(f"{file} holds the tensors {_some(surplus)}, which the model of its config does not have")
    values: dict[str, Tensor] = {}
    for name, path in paths.items():
        value = _value(name, tensors[name], expected[path], file)
        if not torch.equal(values.setdefault(path, value), value):
            same = _some({n for n in paths if paths[n] == path})
            raise CheckpointError(f"{file}: {same} name one tensor of the model, but have different values")
    try:
        model.load_state_dict(values, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{file}: the model does not take these tensors: {error}") from error
    _require_loaded(model.state_dict(), values, {path: name for name, path in paths.items()}, file)
    left = [f"{stored(path)} (as {stored(other)})" for path, other in sorted(covered.items())]
    return (*notes, *([f"left out of the file, since the model ties them: {_some(set(left))}"] if left else []))


def stored_once(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors for a file, none of which share memory, and the names left out, each with its equal.

    Raises:
        CheckpointError: an entry is not a tensor.

    >>> a = torch.zeros(2)
    >>> stored_once({"a": a, "b": a})[1]
    {'b': 'a'}
    """
    kept: dict[str, Tensor] = {}
    same: dict[str, str] = {}
    seen: dict[Any, str] = {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise CheckpointError(f"{name} of the model's state is no plain tensor: a file cannot hold it")
        memory = (*_memory(tensor), tensor.shape, tensor.stride(), tensor.storage_offset())
        if tensor.numel() and (first := seen.setdefault(memory, name)) != name:
            same[name] = first
        else:
            kept[name] = tensor
    shared = {name for group in tied(kept) for name in group}
    for name, tensor in kept.items():
        plain = tensor.detach().cpu()
        kept[name] = plain.clone(memory_format=torch.contiguous_format) if name in shared else plain.contiguous()
    return kept, same


def tied(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """Group the names of tensors that share memory.

    >>> a = torch.zeros(4)
    >>> tied({"a": a, "b": torch.zeros(4), "c": a[2:]})
    [['a', 'c']]
    """
    groups: dict[tuple[int, torch.dtype], list[str]] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.numel():
            groups.setdefault(_memory(tensor), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def refuse_shared_memory(model: nn.Module, counted: Collection[str] | None = None) -> None:
    """Refuse distinct parameters that share memory: they would count as if each could vary alone.

    One parameter under several names (`b.weight = a.weight`) is accepted; so are views of one tensor that have no
    number in common.

    Args:
        model: the model.
        counted: names of the parameters that count; None for all.

    Raises:
        LayerError: parameters share memory; the message names them.

    >>> a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> b.weight = a.weight
    >>> refuse_shared_memory(nn.Sequential(a, b))
    """
    parameters = dict(model.named_parameters())
    wanted = set(parameters) if counted is None else set(counted)
    held = {name: v for name, v in (*parameters.items(), *model.named_buffers()) if _has_memory(v)}
    for name, value in held.items():
        if name in wanted and _repeats(value):
            raise LayerError(
                f"entries of {name!r} are in the same memory (an expanded view): they would count as numbers that vary "
                "apart. Give it memory of its own with .clone(), or expand it in the forward pass"
            )
    for group in _near(held):
        for a, b in ((a, b) for i, b in enumerate(group) for a in group[:i] if wanted & {a, b}):
            if not _overlap(held[a], held[b]):
                continue
            first, second = sorted((a, b), key=list(held).index)
            what = "different parameters" if second in parameters else "a parameter and a buffer"
            raise LayerError(
                f"{first!r} and {second!r} are {what} in the same memory: they would count as numbers that vary apart. "
                "Tie them as one parameter, as in b.weight = a.weight, or give each memory of its own with .clone()"
            )


def _has_memory(tensor: Tensor) -> bool:
    if nn.parameter.is_lazy(tensor) or tensor.layout != torch.strided or tensor.is_meta or not tensor.numel():
        return False
    try:
        return bool(tensor.data_ptr())
    except (NotImplementedError, RuntimeError):  # a tensor subclass that wraps others
        return False


def _range(tensor: Tensor) -> tuple[int, int]:
    """Return the first address of a tensor and the one after its last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def _repeats(tensor: Tensor) -> bool:
    """Return whether several entries are one number in memory, as in an expanded view."""
    start, end = _range(tensor)
    strides = zip(tensor.shape, tensor.stride(), strict=True)
    return (
        any(size > 1 and not stride for size, stride in strides) or tensor.numel() * tensor.element_size() > end - start
    )


def _near(held: Mapping[str, Tensor]) -> list[list[str]]:
    """Group the names of tensors whose ranges of addresses overlap."""
    groups: list[list[str]] = []
    end, device = 0, None
    for name in sorted(held, key=lambda name: (str(held[name].device), _range(held[name])[0])):
        first, after = _range(held[name])
        if groups and held[name].device == device and first < end:
            groups[-1].append(name)
            end = max(end, after)
        else:
            groups.append([name])
            end, device = after, held[name].device
    return groups


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors have a number in common; interleaved views (columns of one matrix) have none."""
    (first, last), (start, end) = _range(a), _range(b)
    if last <= start or end <= first:
        return False
    gaps = any(v.numel() * v.element_size() < end - start for v in (a, b) for start, end in [_range(v)])
    if not gaps or a.element_size() != b.element_size():
        return True
    return bool(torch.isin(_addresses(a), _addresses(b)).any())


def _addresses(tensor: Tensor) -> Tensor:
    """Compute the address of every entry, in bytes."""
    found = torch.tensor(tensor.data_ptr(), device="cpu")
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        found = found[..., None] + torch.arange(size, device="cpu") * (stride * tensor.element_size())
    return found.flatten()


def _memory(tensor: Tensor) -> tuple[int, torch.dtype]:
    return tensor.untyped_storage().data_ptr(), tensor.dtype


def _whole(tensor: Tensor) -> Tensor:
    """Return all the memory that a tensor is a view of, as numbers of its type."""
    return tensor.as_strided((tensor.untyped_storage().nbytes() // tensor.element_size(),), (1,), 0)


def _view(memory: Tensor, tensor: Tensor) -> Tensor:
    """Return the view of other memory that corresponds to a tensor."""
    return memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _matched(
    tensors: Iterable[str], expected: Mapping[str, Tensor], parameter: Callable[[str], str]
) -> tuple[dict[str, str], list[str]]:
    """Match names of the file to paths of the model, if need be without prefixes of wrappers; report the latter."""
    bare: dict[str, list[str]] = {}
    for path in expected:
        bare.setdefault(_bare(path), []).append(path)
    paths: dict[str, str] = {}
    passed: set[str] = set()
    for name in tensors:
        candidates = [found for given in (name, _bare(name)) if (found := _named(given, parameter))]
        exact = [path for path in candidates if path in expected]
        alike = [bare[path][0] for path in map(_bare, candidates) if len(bare.get(path, ())) == 1]
        if exact or alike:
            paths[name] = (exact or alike)[0]
            if candidates[0] != paths[name]:
                passed |= set(_WRAPPERS.findall(name)) | set(_WRAPPERS.findall(paths[name]))
    notes = (
        [f"{' and '.join(sorted(passed))} in names of tensors passed over: a wrapped model was saved"] if passed else []
    )
    return paths, notes


def _bare(path: str) -> str:
    return _WRAPPERS.sub("", path)


def _named(name: str, parameter: Callable[[str], str]) -> str | None:
    try:
        return parameter(name)
    except Exception:  # any error: a family may accept its own names only
        return None


def _covered(expected: Mapping[str, Tensor], present: set[str]) -> dict[str, str]:
    """Map paths missing from the file, whose memory is filled by paths that are in it, to one of these."""
    found: dict[str, str] = {}
    for group in tied(expected):
        held, missing = [p for p in group if p in present], [p for p in group if p not in present]
        if not held or not missing:
            continue
        known = torch.zeros_like(_whole(expected[group[0]]), dtype=torch.bool)
        for path in held:
            _view(known, expected[path]).fill_(True)
        found |= {path: held[0] for path in missing if bool(_view(known, expected[path]).all())}
    return found


def _value(name: str, tensor: Tensor, wanted: Tensor, file: Path) -> Tensor:
    if tensor.shape != wanted.shape:
        raise CheckpointError(
            f"{file}: {name} has shape {tuple(tensor.shape)}, the config expects {tuple(wanted.shape)}"
        )
    if wanted.device.type == "meta":
        raise CheckpointError(f"{file}: {name} has no memory in the model (device meta): build it on the CPU")
    try:
        value = converted(tensor, wanted.dtype)
    except InputError as error:
        raise CheckpointError(f"{file}: {name} {error}") from error
    if not torch.isfinite(value).all():
        raise CheckpointError(f"{file}: {name} holds NaN or infinite weights")
    return value


def _require_loaded(
    state: Mapping[str, Tensor], values: Mapping[str, Tensor], names: Mapping[str, str], file: Path
) -> None:
    """Check that all names hold what the file says; of names that share memory the last one written wins."""
    for path, value in values.items():
        if torch.equal(state[path], value):
            continue
        others = {names[other] for group in tied(state) if path in group for other in group if other in values}
        if len(others) > 1:
            raise CheckpointError(
                f"{file}: {_some(others)} share their memory in the model (tied weights) but have different values in "
                "the file: save the model again, or build it without the tie"
            )
        raise CheckpointError(f"{file}: the model holds other values of {names[path]} than the file after loading it")


def _some(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
