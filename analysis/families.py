"""Families: how to rebuild a model, its cuts and its data from a checkpoint (.safetensors with a .json beside it)."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .components import Components
from .datasets import Dataset, load_dataset, read_dataset
from .errors import CheckpointError, DataError, InputError
from .models import MLP, ModularAdditionTransformer
from .network import Network, Positions
from .transitions import Transition

__all__ = [
    "MLP",
    "Checkpoint",
    "Family",
    "ModularAdditionTransformer",
    "components_of",
    "families",
    "load_checkpoint",
    "load_factory",
]


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

    def __repr__(self) -> str:
        return f"Checkpoint({self.label!r}, step={self.step}, family={self.family!r}, cuts={list(self.network.cuts)})"


def families() -> dict[str, type[Family]]:
    """Registered families by name: those of interbasis and those of installed packages."""
    return {point.name: point.load() for point in entry_points(group="interbasis.families")}


def components_of(checkpoint: Checkpoint) -> Components:
    """Heads and MLPs of a checkpoint's model, where its family names them by a method `components(config)`.

    Raises:
        InputError: it does not.
    """
    family = families().get(checkpoint.family)
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
            "label", ...}`.
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
    tensors, digest = _read_tensors(file)
    name, config = about["family"], about.get("config", {})
    family = _family(name, factory)
    try:
        with torch.random.fork_rng(devices=[]):  # initial weights are replaced: leave the caller's random state alone
            model = family.build(config)
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{file.with_suffix('.json')}: the config does not fit family {name!r}: {error}"
        ) from error
    _fill(model.double(), tensors, family, file)
    train, test = _data(about, data, file, batch_size)
    if cuts is None:
        cuts = about.get("cuts") or family.cuts(config)
    elif list(cuts) == ["auto"]:
        cuts = "auto"
    network = Network(
        model,
        cuts,
        output=about.get("output"),
        loss=loss or about.get("loss", "mse"),
        positions=_positions(about, family, cuts),
        transitions=family.transitions(model),
        example=next(iter(train)),
    )
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
    )


@dataclass(frozen=True)
class _Torch:
    """Family `torch`: any module that a function of the user's builds from the config; cuts found by scanning."""

    factory: Callable[..., nn.Module]

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """See `Family`."""
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
    known = {point.name: point for point in entry_points(group="interbasis.families")}
    if name not in known:
        raise CheckpointError(f"unknown family {name!r}: known are {', '.join(sorted([*known, 'torch']))}")
    try:
        family: type[Family] = known[name].load()
    except (ImportError, AttributeError) as error:
        raise CheckpointError(f"the family {name!r} cannot be imported from {known[name].value}: {error}") from error
    return family


def _positions(about: Mapping[str, Any], family: type[Family] | _Torch, cuts: Any) -> Any:
    if "positions" in about:
        return about["positions"]
    positions = family.positions(about.get("config", {}))
    if isinstance(positions, Mapping):
        return {k: v for k, v in positions.items() if k == "output" or k in cuts}
    return positions


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


def _read_tensors(file: Path) -> tuple[dict[str, Tensor], str]:
    try:
        return load_file(file), hashlib.sha256(file.read_bytes()).hexdigest()
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"cannot read {file}: {error} (is the file truncated?)") from error


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], family: type[Family] | _Torch, file: Path) -> None:
    """Put the tensors of a file into the model; errors call them as the file does."""
    expected = model.state_dict()
    paths = {name: family.parameter(name) for name in tensors}
    if missing := set(expected) - set(paths.values()):
        stored = getattr(family, "tensor", str)
        lacks, held = _some({stored(path) for path in missing}), _some(set(tensors))
        raise CheckpointError(f"{file} lacks the tensors {lacks} that the config's model has; it holds {held}")
    if extra := {name for name, path in paths.items() if path not in expected}:
        raise CheckpointError(f"{file} holds the tensors {_some(extra)}, which the model of its config does not have")
    for name, tensor in tensors.items():
        wanted = expected[paths[name]].shape
        if tensor.shape != wanted:
            raise CheckpointError(f"{file}: {name} has shape {tuple(tensor.shape)}, the config expects {tuple(wanted)}")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"{file}: {name} holds NaN or infinite weights")
    model.load_state_dict({path: tensors[name].to(expected[path].dtype) for name, path in paths.items()})


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


def _some(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
