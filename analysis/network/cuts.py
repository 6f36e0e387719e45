"""Cuts: places in a model, resolved from their names."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, MutableMapping, Sequence
from copy import copy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from ..errors import CutError

__all__ = [
    "Cut",
    "Place",
    "block_lists",
    "find_modules_by_name",
    "first_tensor",
    "replace_tensor",
    "resolve",
    "short_name",
    "stream_names",
]

_WRAPPERS = (nn.DataParallel, DistributedDataParallel, AveragedModel)


@dataclass(frozen=True)
class Place:
    """The input or the output of one module.

    >>> Place("layers.0", True).name
    'layers.0:in'
    """

    path: str
    is_input: bool

    @property
    def name(self) -> str:
        """The path of the module, followed by ":in" for its input."""
        return f"{self.path}:in" if self.is_input else self.path


@dataclass(frozen=True)
class Cut:
    """One place, or several whose tensors are concatenated along the features."""

    places: tuple[Place, ...]

    @property
    def name(self) -> str:
        """The names of the places, joined by "+"."""
        return "+".join(place.name for place in self.places)


def find_modules_by_name(model: nn.Module) -> dict[str, nn.Module]:
    """Map names without wrappers to modules; a wrapper and the module it wraps give the wrapped module.

    >>> list(find_modules_by_name(nn.DataParallel(nn.Sequential(nn.ReLU()))))
    ['', '0']
    """
    modules = dict(model.named_modules())
    return {short: modules[path] for path, short in _short_names(model).items()}


def short_name(model: nn.Module, name: str) -> str:
    """Return the name of a cut, place or module without the parts that wrappers add."""
    short = _short_names(model)
    parts = [(part.removesuffix(":in"), part.endswith(":in")) for part in name.split("+")]
    known = set(short.values())
    return "+".join(Place(path if path in known else short.get(path, path), is_input).name for path, is_input in parts)


def _short_names(model: nn.Module) -> dict[str, str]:
    """Map each path of `named_modules()` to its name without wrappers."""
    names = {"": ""}
    wrappers: dict[str, str] = {}  # path of a wrapper -> the part it adds to names
    for path, module in model.named_modules():
        if path:
            above, _, last = path.rpartition(".")
            inside = names[above]
            names[path] = inside if wrappers.get(above) == last else f"{inside}.{last}".strip(".")
        if isinstance(module, _WRAPPERS):
            wrappers[path] = "module"
        elif "_orig_mod" in dict(module.named_children()):
            wrappers[path] = "_orig_mod"
    return names


def block_lists(model: nn.Module) -> list[list[str]]:
    """Return the names of the blocks of each list of blocks, the longest first.

    A list of blocks is a `ModuleList` of modules with two or more weights (parameters of two or more axes) each, that
    lies in no other one.

    >>> block_lists(nn.ModuleDict({"h": nn.ModuleList([nn.Bilinear(2, 2, 2), nn.TransformerEncoderLayer(4, 1)])}))
    []
    >>> block_lists(nn.ModuleDict({"h": nn.ModuleList([nn.TransformerEncoderLayer(4, 1)])}))
    [['h.0']]
    """
    found: list[list[str]] = []
    for path, module in find_modules_by_name(model).items():
        inside = any(path.startswith(f"{block}.") for blocks in found for block in blocks)
        if inside or not isinstance(module, nn.ModuleList) or not len(module):
            continue
        if all(sum(p.ndim > 1 for p in block.parameters()) > 1 for block in module):
            found.append([f"{path}.{i}".strip(".") for i in range(len(module))])
    return sorted(found, key=len, reverse=True)


def stream_names(model: nn.Module) -> dict[str, Place]:
    """Return the places before and after each block by their names in the field; none where it is unclear which list.

    >>> list(stream_names(nn.ModuleDict({"h": nn.ModuleList([nn.TransformerEncoderLayer(4, 1)])})))
    ['resid_pre.0', 'resid_post.0']
    """
    lists = block_lists(model)
    if not lists or (len(lists) > 1 and len(lists[0]) == len(lists[1])):
        return {}
    before = {f"resid_pre.{i}": Place(block, True) for i, block in enumerate(lists[0])}
    return before | {f"resid_post.{i}": Place(block, False) for i, block in enumerate(lists[0])}


def resolve(model: nn.Module, cuts: Sequence[str | Sequence[str]]) -> tuple[Cut, ...]:
    """Resolve names, globs and tuples of names to cuts, and check that each of them exists.

    Raises:
        CutError: no cuts, a name that no module has (with the nearest names), or the same cut twice.
    """
    resolved: list[Cut] = []
    for cut in cuts:
        if not isinstance(cut, str | tuple | list) or not all(isinstance(name, str) for name in cut):
            raise CutError(f"a cut is {cut!r}: expected the name of a module, or a tuple of names")
        if isinstance(cut, str):
            resolved += [Cut((place,)) for place in _places(model, cut)]
        else:
            resolved.append(Cut(tuple(place for name in cut for place in _places(model, name))))
    names = [cut.name for cut in resolved]
    for name in names:
        if names.count(name) > 1:
            raise CutError(f"cut {name!r} is given {names.count(name)} times: name each cut once")
    if len(resolved) < 2:
        raise CutError(f"an interaction graph needs at least two cuts, got {names}")
    return tuple(resolved)


def _places(model: nn.Module, name: str) -> list[Place]:
    is_input = name.endswith(":in")
    pattern = name.removesuffix(":in")
    short = _short_names(model)
    paths = list(dict.fromkeys(path for path in short.values() if path))
    matching = [path for path in paths if _matches(path, pattern)]
    matching = matching or list(dict.fromkeys(s for path, s in short.items() if s and _matches(path, pattern)))
    if not matching and (named := [at for known, at in stream_names(model).items() if _matches(known, name)]):
        return named
    if not matching:
        near = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.3) or paths[:5]
        raise CutError(f"no module is named {pattern!r}; nearest names: {', '.join(near)}")
    return [Place(path, is_input) for path in matching]


def _matches(path: str, pattern: str) -> bool:
    parts, patterns = path.split("."), pattern.split(".")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def first_tensor(value: Any, name: str) -> Tensor:
    """Return the tensor that a module takes or returns; of a tuple, mapping or dataclass the first entry."""
    while not isinstance(value, Tensor):
        if isinstance(value, tuple | list) and value:
            value = value[0]
        elif isinstance(value, Mapping) and value:
            value = next(iter(value.values()))
        elif _is_instance_of_dataclass(value) and dataclasses.fields(value):
            value = getattr(value, dataclasses.fields(value)[0].name)
        else:
            raise CutError(
                f"{name!r} carries a {type(value).__name__}: expected a tensor, or a tuple that starts with one"
            )
    return value


def replace_tensor(value: Any, tensor: Tensor) -> Any:
    """Return the same structure with its first tensor replaced."""
    if isinstance(value, Tensor):
        return tensor
    if isinstance(value, Mapping):
        first = next(iter(value))
        changed = copy(value) if isinstance(value, MutableMapping) else dict(value)
        changed[first] = replace_tensor(value[first], tensor)
        return changed
    if _is_instance_of_dataclass(value):
        name = dataclasses.fields(value)[0].name
        held = copy(value)
        object.__setattr__(held, name, replace_tensor(getattr(value, name), tensor))
        return held
    rest = (replace_tensor(value[0], tensor), *value[1:])
    return type(value)(*rest) if hasattr(value, "_fields") else type(value)(rest)


def _is_instance_of_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)
