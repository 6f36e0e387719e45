"""Families: how to rebuild a model, its cuts and its data from a checkpoint (.safetensors with a .json beside it)."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import save
from torch import Tensor, nn

from .components import Components
from .cuts import resolve
from .datasets import Dataset, load_dataset, read_dataset
from .errors import CheckpointError, DataError, InputError, InterbasisError
from .files import write_bytes
from .models import MLP, ModularAdditionTransformer
from .network import Network, Positions
from .places import positions_at
from .tensors import read_tensors
from .transitions import Transition
from .values import by_value
from .weights import as_double, fill, stored_once

__all__ = [
    "MLP",
    "Checkpoint",
    "Family",
    "ModularAdditionTransformer",
    "components_of",
    "families",
    "load_checkpoint",
    "load_factory",
    "save_checkpoint",
]


_METHODS = ("build", "parameter", "cuts", "positions", "transitions")


@runtime_checkable
class Family(Protocol):
    """What a family gives; third parties register theirs under the entry point group `interbasis.families`.

    Two more methods are used where a family has them: `components(config)` names heads and MLPs (`components_of`), and
    `tensor(path)`, the inverse of `parameter`, lets errors call missing tensors as files do.
    """

    @staticmethod
    def build(config: Mapping[str, Any]) -> nn.Module:
        """The model with the shapes of the config; its weights are replaced by the checkpoint's."""

    @staticmethod
    def parameter(name: str) -> str:
        """Path of the model's parameter that a tensor of the checkpoint holds."""

    @staticmethod
    def cuts(config: Mapping[str, Any]) -> Sequence[str]:
        """Default cuts."""

    @staticmethod
    def positions(config: Mapping[str, Any]) -> Positions | Mapping[str, Positions]:
        """Positions that count at each cut."""

    @staticmethod
    def transitions(model: nn.Module) -> Mapping[tuple[str, str], Transition]:
        """Exact forms of the maps between cuts, where known."""


@by_value
@dataclass(frozen=True, repr=False)
class Checkpoint:
    """A loaded checkpoint: the network with its cuts, its data, and where it comes from.

    Attributes:
        network: in float64.
        batches: training data (inputs).
        test_batches: held-out data.
        step: training step, or None.
        label: name of the checkpoint.
        model: name of the model whose training the checkpoint belongs to (JSON `model`, else the label).
        sha256: of the .safetensors file.
        family, config: how the model was built.
        path: of the .safetensors file.
        about: its JSON.
        notes: what to know about how the file was read, in words.
    """

    network: Network
    batches: Dataset
    test_batches: Dataset
    step: int | None
    label: str
    model: str
    sha256: str
    family: str
    config: dict[str, Any]
    path: Path
    about: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """What it is, and a line per note."""
        head = f"Checkpoint({self.label!r}, step={self.step}, family={self.family!r}, cuts={list(self.network.cuts)})"
        return "\n".join([head, *(f"  note: {note}" for note in self.notes)])


def families() -> dict[str, type[Family]]:
    """Registered families by name: those of interbasis and those of installed packages that can be imported.

    One that cannot be is left out, and `load_checkpoint` says why when a checkpoint asks for it.
    """
    found = {}
    for name in _registered():
        with suppress(CheckpointError):
            found[name] = _loaded(name)
    return found


def components_of(checkpoint: Checkpoint) -> Components:
    """Heads and MLPs of a checkpoint's model, where its family names them by a method `components(config)`.

    Raises:
        InputError: it does not, or cannot be imported.
    """
    family = _loaded(checkpoint.family) if checkpoint.family in _registered() else None
    named = getattr(family, "components", None)
    if named is None:
        raise InputError(
            f"family {checkpoint.family!r} names no heads and MLPs: name them in Python, see "
            "`interbasis.analysis.projection.component_circuit` and `interbasis.analysis.components.Components`"
        )
    found: Components = named(checkpoint.config)
    return found


def load_factory(name: str) -> Callable[..., nn.Module]:
    """The function `module:function` that builds a model of family `torch`. Only for names the user typed himself.

    Raises:
        InputError: no such module or function.
    """
    module, _, function = name.partition(":")
    try:
        factory: Callable[..., nn.Module] = getattr(importlib.import_module(module), function)
    except Exception as error:  # the user's module may fail in any way
        raise InputError(f"cannot import the model factory {name!r}: {error}; expected module:function") from error
    return factory


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    cuts: str | Sequence[str | Sequence[str]] | None = None,
    loss: str | None = None,
    data: str | os.PathLike[str] | None = None,
    batch_size: int | None = None,
    factory: Callable[..., nn.Module] | None = None,
) -> Checkpoint:
    """Rebuild the model of a checkpoint in float64, with its cuts and its data.

    Args:
        path: a .safetensors file with a .json of the same name beside it: `{"family", "config", "data", "step",
            "label", ...}`; `cuts`, `loss`, `output`, `positions`, `batch_first`, `skip_first` and `check` are those of
            `Network`.
        cuts: instead of the family's (or the JSON's) own.
        loss: behavioural loss, instead of the JSON's or "mse".
        data: a file to read the data from (see `read_dataset`) instead of what the JSON names.
        batch_size: of the data.
        factory: builds the model of family `torch` from the JSON's config.

    Raises:
        CheckpointError: a missing or truncated file, an unknown family, tensors that do not fit, NaN weights.
        DataError: no data, or inputs that do not fit the model.
        CutError: cuts that do not exist.
    """
    file = Path(path)
    about = _read_json(file)
    try:
        tensors, digest = read_tensors(file)
    except InputError as error:
        raise CheckpointError(str(error)) from error
    name, config = about["family"], about.get("config", {})
    family = _family(name, factory)
    try:
        with torch.random.fork_rng(devices=[]):  # initial weights are replaced: leave the caller's random state alone
            model = family.build(config)
    except InterbasisError:
        raise
    except Exception as error:  # of the user's function, or of another package
        raise CheckpointError(
            f"{file.with_suffix('.json')}: the config does not fit family {name!r}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(model, nn.Module):
        raise CheckpointError(f"family {name!r} built a {type(model).__name__}: expected a torch.nn.Module")
    notes = fill(as_double(model), tensors, file, parameter=family.parameter, stored=getattr(family, "tensor", str))
    train, test = _data(about, data, file, batch_size)
    network = _network(model, cuts, family, about, loss or about.get("loss", "mse"), next(iter(train)))
    label = str(about.get("label") or file.stem)
    return Checkpoint(
        network,
        train,
        test,
        about.get("step"),
        label,
        str(about.get("model") or label),
        digest,
        name,
        config,
        file,
        about,
        notes,
    )


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
        model: the model, as it is; names that a wrapper added are kept, and passed over on loading.
        path: where to, ending in .safetensors.
        family: how it will be rebuilt; "torch": by the function that is passed on loading.
        config: arguments of that function, or of the family.
        **about: more for the JSON: `data`, `step`, `label`, `model`, `cuts`, `loss`, `output`, `positions`,
            `batch_first`, `skip_first`, `check`.

    Raises:
        CheckpointError: another suffix, what JSON cannot hold, or a state that does not consist of tensors.
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
    """Family `torch`: any module that a function of the user's builds from the config; cuts found by scanning."""

    factory: Callable[..., nn.Module]

    def build(self, config: Mapping[str, Any]) -> Any:
        """See `Family`; what the function returns is looked at afterwards."""
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
    """Entry points of families by name; several of one name where packages disagree."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group="interbasis.families"):
        same = found.setdefault(point.name, [])
        if point.value not in [other.value for other in same]:
            same.append(point)
    return found


def _loaded(name: str) -> type[Family]:
    """The class of a registered family.

    Raises:
        CheckpointError: it cannot be imported, is no family, or two packages register one of this name.
    """
    points = _registered()[name]
    places = " and ".join(point.value for point in points)
    if len(points) > 1:
        raise CheckpointError(f"the family {name!r} is registered by several packages, from {places}: remove one")
    try:
        family: type[Family] = points[0].load()
    except (Exception, SystemExit) as error:  # another package's module may fail in any way
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
    loss: str,
    example: Tensor,
) -> Network:
    """The network with the cuts that are wanted, in whatever spelling, and the positions that count at each."""
    own = about.get("cuts") or family.cuts(about.get("config", {}))
    wanted = own if cuts is None else cuts
    output: dict[str, Any] = {"output": about.get("output"), "loss": loss}
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
    return Network(model, wanted, positions=positions, transitions=transitions, example=example, **output)


def _read_json(file: Path) -> dict[str, Any]:
    if file.is_dir():
        raise CheckpointError(f"{file} is a folder: expected a .safetensors file with a .json beside it")
    if not file.is_file():
        raise CheckpointError(f"there is no checkpoint {file}")
    if file.suffix != ".safetensors":
        raise CheckpointError(f"{file} is not a .safetensors file: convert it with safetensors.torch.save_file")
    beside = file.with_suffix(".json")
    try:
        about = json.loads(beside.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f'there is no {beside}: expected JSON like {{"family": "mlp", "config": ...}}') from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {beside}: {error}") from error
    if not isinstance(about, dict) or not isinstance(about.get("family"), str):
        raise CheckpointError(f'{beside} has no "family": expected JSON like {{"family": "mlp", "config": ...}}')
    return about


def _data(
    about: Mapping[str, Any], data: str | os.PathLike[str] | None, file: Path, batch_size: int | None
) -> tuple[Dataset, Dataset]:
    if data is not None:
        train, test = read_dataset(data)
    elif isinstance(about.get("data"), Mapping | str):
        named = about["data"]
        train, test = load_dataset({"name": named} if isinstance(named, str) else named)
    else:
        raise DataError(f"{file.with_suffix('.json')} names no data: pass a file with --data FILE (.npz, .safetensors)")
    if batch_size is not None:
        train, test = train.with_batch_size(batch_size), test.with_batch_size(batch_size)
    return _double(train), _double(test)


def _double(data: Dataset) -> Dataset:
    if not data.inputs.is_floating_point():
        return data
    return Dataset(data.name, data.inputs.double(), data.targets, data.batch_size)
