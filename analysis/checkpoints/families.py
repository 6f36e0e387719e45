"""Families: how to rebuild a model, its cuts and its data from a checkpoint (.safetensors with a .json beside it)."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from safetensors.torch import save
from torch import nn

from ..errors import CheckpointError, InputError
from ..huggingface.language import CountedAt, assumed_network
from ..network.cuts import resolve
from ..network.masks import Positions
from ..network.network import Network
from ..network.transitions import Transition
from ..results import write_bytes
from .places import positions_at
from .weights import stored_once

__all__ = ["Family", "families", "load_factory", "save_checkpoint"]

_METHODS = ("build", "parameter", "cuts", "positions", "transitions")


@runtime_checkable
class Family(Protocol):
    """The protocol of a family; other packages register theirs under the entry point group `interbasis.families`.

    Three more methods are optional: `components(config)` gives heads and MLPs (see `components_of`); `tensor(path)`,
    the inverse of `parameter`, lets error messages use the names of the file; and `load(config, files)` builds the
    model and reads its weights, in place of `build` and `parameter`.
    """

    @staticmethod
    def build(config: Mapping[str, Any]) -> nn.Module:
        """Build the model with the shapes of the config; its weights are replaced by the checkpoint's."""

    @staticmethod
    def parameter(name: str) -> str:
        """Return the path of the model's parameter that a tensor of the checkpoint belongs to."""

    @staticmethod
    def cuts(config: Mapping[str, Any]) -> Sequence[str]:
        """Return the default cuts."""

    @staticmethod
    def positions(config: Mapping[str, Any]) -> Positions | Mapping[str, Positions]:
        """Return the positions that count at each cut."""

    @staticmethod
    def transitions(model: nn.Module) -> Mapping[tuple[str, str], Transition]:
        """Return exact forms of the maps between cuts, where known."""


def families() -> dict[str, type[Family]]:
    """Return registered families by name: those of interbasis and of installed packages that can be imported.

    A family that cannot be imported is left out; `load_checkpoint` gives the reason when a checkpoint needs it.
    """
    found = {}
    for name in _registered():
        with suppress(CheckpointError):
            found[name] = _loaded(name)
    return found


def load_factory(name: str) -> Callable[..., nn.Module]:
    """Import the function `module:function` that builds a model of family `torch`. The user must have typed the name.

    Raises:
        InputError: no such module or function.
    """
    module, _, function = name.partition(":")
    try:
        factory: Callable[..., nn.Module] = getattr(importlib.import_module(module), function)
    except Exception as error:  # any error: the module is the user's
        raise InputError(f"cannot import the model factory {name!r}: {error}; expected module:function") from error
    return factory


def save_checkpoint(
    model: nn.Module,
    path: str | os.PathLike[str],
    /,
    *,
    family: str = "torch",
    config: Mapping[str, Any] | None = None,
    **about: Any,
) -> Path:
    """Write a model as `load_checkpoint` reads it: a .safetensors file, and a .json of the same name beside it.

    A tensor that the model has under several names (tied weights) is written once.

    Args:
        model: the model; parts of names that a wrapper added are kept, and ignored on loading.
        path: file to write, ending in .safetensors.
        family: the family that will rebuild it; "torch" uses the function that is passed on loading.
        config: arguments of the family, or of that function.
        **about: more entries of the JSON: `data`, `step`, `label`, `model`, `run` (a name that tells trainings of
            one model apart), `cuts`, `loss`, `output`, `positions`, `batch_first`, `skip_first`, `check`.

    Raises:
        CheckpointError: another suffix, values that JSON cannot hold, or a state that does not consist of tensors.
    """
    file = Path(path)
    if file.suffix != ".safetensors":
        raise CheckpointError(f"{file} does not end in .safetensors: choose such a name")
    tensors, same = stored_once(model.state_dict())
    named: Callable[[str], str] = str if family == "torch" else getattr(_family(family, None), "tensor", str)
    try:
        described = json.dumps({"family": family, "config": dict(config or {}), **about}, indent=1, allow_nan=False)
        content = save({named(name): tensor for name, tensor in tensors.items()}, {"format": "pt", **same})
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"cannot write {file}: {error}") from error
    write_bytes(file.with_suffix(".json"), described.encode())
    return write_bytes(file, content)


@dataclass(frozen=True)
class _Torch:
    """Family `torch`: any module that a function of the user's builds from the config; cuts are found by a scan."""

    factory: Callable[..., nn.Module]

    def build(self, config: Mapping[str, Any]) -> Any:
        """See `Family`; the function's return value is checked by the caller."""
        return self.factory(**config)

    def parameter(self, name: str) -> str:
        """See `Family`."""
        return name

    def cuts(self, config: Mapping[str, Any]) -> str:
        """See `Family`."""
        return "auto"

    def positions(self, config: Mapping[str, Any]) -> Positions:
        """See `Family`."""
        return "all"

    def transitions(self, model: nn.Module) -> Mapping[tuple[str, str], Transition]:
        """See `Family`."""
        return {}


def _family(name: str, factory: Callable[..., nn.Module] | None) -> type[Family] | _Torch:
    if name == "torch":
        if factory is None:
            raise CheckpointError(
                "family 'torch' needs the function that builds its model: pass --factory module:function"
            )
        return _Torch(factory)
    if name not in (known := _registered()):
        raise CheckpointError(f"unknown family {name!r}: known are {', '.join(sorted([*known, 'torch']))}")
    return _loaded(name)


def _registered() -> dict[str, list[EntryPoint]]:
    """Collect the entry points of families by name; a name has several where packages disagree."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group="interbasis.families"):
        same = found.setdefault(point.name, [])
        if point.value not in [other.value for other in same]:
            same.append(point)
    return found


def _loaded(name: str) -> type[Family]:
    """Import the class of a registered family.

    Raises:
        CheckpointError: the class cannot be imported, is no family, or several packages register this name.
    """
    points = _registered()[name]
    places = " and ".join(point.value for point in points)
    if len(points) > 1:
        raise CheckpointError(f"the family {name!r} is registered by several packages, from {places}: remove one")
    try:
        family: type[Family] = points[0].load()
    except (Exception, SystemExit) as error:  # any error: the module is another package's
        raise CheckpointError(
            f"the family {name!r} cannot be imported from {places}: {type(error).__name__}: {error}"
        ) from error
    if lacks := [method for method in _METHODS if not callable(getattr(family, method, None))]:
        raise CheckpointError(f"the family {name!r} of {places} is no family: it lacks {', '.join(lacks)}")
    return family


def _network(
    model: nn.Module,
    cuts: str | Sequence[str | Sequence[str]] | None,
    family: type[Family] | _Torch,
    about: Mapping[str, Any],
    loss: str | None,
    counted: str | None,
    example: Any,
) -> tuple[Network, CountedAt | None]:
    """Build the network with the wanted cuts, in any spelling, and the positions that count at each."""
    own = about.get("cuts") or family.cuts(about.get("config", {}))
    wanted = own if cuts is None else cuts
    loss = loss or about.get("loss")
    if about["family"] == "hf":
        spelled = "auto" if list(wanted) == ["auto"] else wanted
        given: dict[str, Any] = {"cuts": spelled, "loss": loss, "output": about.get("output"), "example": example}
        return assumed_network(model, [example], positions=counted or about.get("positions"), **given)
    if counted is not None:
        raise InputError(f"positions are given, and those of family {about['family']!r} are its own: leave them out")
    output: dict[str, Any] = {"output": about.get("output"), "loss": loss or "mse"}
    output |= {name: about[name] for name in ("batch_first", "skip_first", "check") if name in about}
    for name in ("skip_first", "check"):
        if not isinstance(output.get(name, True), bool):
            raise CheckpointError(f"the JSON says {name}: {output[name]!r}, expected true or false")
    if list(wanted) == ["auto"] or wanted == "auto":
        wanted = Network(model, "auto", example=example, **output).cuts
    positions = about.get("positions", family.positions(about.get("config", {})))
    if isinstance(positions, Mapping):
        last = "" if isinstance(own, str) else own[-1]
        positions = {"output": positions.get(last, "all"), **positions} if isinstance(last, str) else positions
        resolved = resolve(model, [wanted] if isinstance(wanted, str) else wanted)
        positions = positions_at(Network(model, (), **output), resolved, positions, example)
    transitions = family.transitions(model)
    return Network(model, wanted, positions=positions, transitions=transitions, example=example, **output), None
