"""Names of cuts: from what a user writes (paths, ":in", globs, tuples) to places in a model's forward pass."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from .errors import CutError

__all__ = ["Cut", "Place", "candidates", "resolve"]


@dataclass(frozen=True)
class Place:
    """Input or output of one module.

    >>> Place("layers.0", True).name
    'layers.0:in'
    """

    path: str
    is_input: bool

    @property
    def name(self) -> str:
        """The path, followed by ":in" for the module's input."""
        return f"{self.path}:in" if self.is_input else self.path


@dataclass(frozen=True)
class Cut:
    """One place, or several whose tensors are concatenated along the features."""

    places: tuple[Place, ...]

    @property
    def name(self) -> str:
        """Names of the places, joined by "+"."""
        return "+".join(place.name for place in self.places)


def resolve(model: nn.Module, cuts: Sequence[str | Sequence[str]]) -> tuple[Cut, ...]:
    """Turn names, globs and tuples of names into cuts, each of which exists.

    Raises:
        CutError: no cuts, a name that no module has (with the nearest names), or the same cut twice.
    """
    resolved: list[Cut] = []
    for cut in cuts:
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


def candidates(model: nn.Module) -> tuple[Cut, ...]:
    """Input and output of every module below the root, to be scanned for cuts."""
    return tuple(
        Cut((Place(path, is_input),)) for path, _ in model.named_modules() if path for is_input in (True, False)
    )


def _places(model: nn.Module, name: str) -> list[Place]:
    is_input = name.endswith(":in")
    pattern = name.removesuffix(":in")
    paths = [path for path, _ in model.named_modules() if path]
    matching = [path for path in paths if _matches(path, pattern)]
    if not matching:
        near = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.3) or paths[:5]
        raise CutError(f"no module is named {pattern!r}; nearest names: {', '.join(near)}")
    return [Place(path, is_input) for path in matching]


def _matches(path: str, pattern: str) -> bool:
    parts, patterns = path.split("."), pattern.split(".")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def first_tensor(value: Any, name: str) -> Tensor:
    """The tensor that a module takes or returns; of a tuple the first entry, of a dict the first value."""
    while not isinstance(value, Tensor):
        if isinstance(value, tuple | list) and value:
            value = value[0]
        elif isinstance(value, dict) and value:
            value = next(iter(value.values()))
        else:
            raise CutError(
                f"{name!r} carries a {type(value).__name__}: expected a tensor, or a tuple that starts with one"
            )
    return value


def replace_tensor(value: Any, tensor: Tensor) -> Any:
    """The same structure with its first tensor replaced."""
    if isinstance(value, Tensor):
        return tensor
    if isinstance(value, dict):
        first = next(iter(value))
        changed = type(value)(value)
        changed[first] = replace_tensor(value[first], tensor)
        return changed
    rest = (replace_tensor(value[0], tensor), *value[1:])
    return type(value)(*rest) if hasattr(value, "_fields") else type(value)(rest)
