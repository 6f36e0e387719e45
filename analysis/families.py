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
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .datasets import Dataset, load_dataset, read_dataset
from .errors import CheckpointError, DataError, InputError
from .network import Network, Positions
from .transitions import Attention, PositionWise, Transition

__all__ = [
    "MLP",
    "Checkpoint",
    "Family",
    "ModularAdditionTransformer",
    "families",
    "load_checkpoint",
    "load_factory",
]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


@runtime_checkable
class Family(Protocol):
    """What a family gives; third parties register theirs under the entry point group `interbasis.families`."""

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


class Dense(nn.Module):
    """Linear map followed by an elementwise activation."""

    def __init__(self, d_in: int, d_out: int, activation: nn.Module, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(d_in, d_out, bias=bias)
        self.activation = activation

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """The module's output."""
        result: Tensor = self.activation(self.linear(x))
        return result


class MLP(nn.Module):
    """Dense layers `layers.0`, `layers.1`, ...; the last one without activation.

    Config: `widths`, `activation` (relu, leaky_relu, gelu, tanh, sigmoid or identity), `bias` (default true).
    """

    def __init__(self, widths: Sequence[int], activation: str = "relu", bias: bool = True) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise CheckpointError(f"unknown activation {activation!r}: known are {', '.join(_ACTIVATIONS)}")
        if len(widths) < 2 or min(widths) < 1:
            raise CheckpointError(f"widths {list(widths)}: expected at least an input and an output width")
        last = len(widths) - 2
        self.layers = nn.ModuleList(
            Dense(a, b, nn.Identity() if i == last else _ACTIVATIONS[activation](), bias)
            for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """The module's output."""
        for layer in self.dense:
            x = layer(x)
        return x

    @property
    def dense(self) -> list[Dense]:
        """The layers."""
        return [layer for layer in self.layers if isinstance(layer, Dense)]

    @staticmethod
    def build(config: Mapping[str, Any]) -> nn.Module:
        """See `Family`."""
        return MLP(**config)

    @staticmethod
    def parameter(name: str) -> str:
        """`layers.0.weight` is stored for `layers.0.linear.weight`."""
        head, _, tail = name.rpartition(".")
        return f"{head}.linear.{tail}"

    @staticmethod
    def cuts(config: Mapping[str, Any]) -> Sequence[str]:
        """The input, each hidden activation, the output."""
        return ["layers.0:in", *(f"layers.{i}" for i in range(len(config["widths"]) - 1))]

    @staticmethod
    def positions(config: Mapping[str, Any]) -> Positions:
        """See `Family`."""
        return "all"

    @staticmethod
    def transitions(model: nn.Module) -> Mapping[tuple[str, str], Transition]:
        """See `Family`."""
        forms: dict[tuple[str, str], Transition] = {}
        before = "layers.0:in"
        for i, layer in enumerate(model.dense if isinstance(model, MLP) else []):
            weight = layer.linear.weight.detach()
            bias = None if layer.linear.bias is None else layer.linear.bias.detach()
            linear = isinstance(layer.activation, nn.Identity)
            form = PositionWise(skip=weight, bias=bias) if linear else PositionWise(weight, bias, phi=layer.activation)
            forms[before, f"layers.{i}"] = form
            before = f"layers.{i}"
        return forms


class Embedding(nn.Module):
    """Token embedding plus learned absolute position embedding."""

    def __init__(self, d_vocab: int, n_ctx: int, d_model: int) -> None:
        super().__init__()
        self.tok = nn.Parameter(torch.zeros(d_vocab, d_model))
        self.pos = nn.Parameter(torch.zeros(n_ctx, d_model))

    def forward(self, tokens: Int[Tensor, "batch positions"]) -> Float[Tensor, "batch positions d_model"]:
        """The module's output."""
        return self.tok[tokens] + self.pos[: tokens.shape[1]]


class CausalAttention(nn.Module):
    """Residual stream plus causal multi-head attention, with biases and without normalisation."""

    def __init__(self, d_model: int, n_heads: int, d_head: int) -> None:
        super().__init__()
        for name in ("q", "k", "v"):
            self.register_parameter(f"w_{name}", nn.Parameter(torch.zeros(n_heads, d_model, d_head)))
            self.register_parameter(f"b_{name}", nn.Parameter(torch.zeros(n_heads, d_head)))
        self.w_o = nn.Parameter(torch.zeros(n_heads, d_head, d_model))
        self.b_o = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Float[Tensor, "batch positions d_model"]) -> Float[Tensor, "batch positions d_model"]:
        """The module's output."""
        q, k, v = (
            torch.einsum("nsm,hmd->nhsd", x, getattr(self, f"w_{name}")) + getattr(self, f"b_{name}")[:, None]
            for name in ("q", "k", "v")
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + torch.einsum("nhsd,hdm->nsm", mixed, self.w_o) + self.b_o


class ResidualMLP(nn.Module):
    """Residual stream plus a two-layer MLP."""

    def __init__(self, d_model: int, d_mlp: int, activation: nn.Module) -> None:
        super().__init__()
        self.w_in = nn.Parameter(torch.zeros(d_model, d_mlp))
        self.b_in = nn.Parameter(torch.zeros(d_mlp))
        self.w_out = nn.Parameter(torch.zeros(d_mlp, d_model))
        self.b_out = nn.Parameter(torch.zeros(d_model))
        self.activation = activation

    def forward(self, x: Float[Tensor, "batch positions d_model"]) -> Float[Tensor, "batch positions d_model"]:
        """The module's output."""
        hidden: Tensor = self.activation(x @ self.w_in + self.b_in)
        return x + hidden @ self.w_out + self.b_out


class Unembedding(nn.Module):
    """Logits."""

    def __init__(self, d_model: int, d_vocab: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(d_model, d_vocab))
        self.b = nn.Parameter(torch.zeros(d_vocab))

    def forward(self, x: Float[Tensor, "batch positions d_model"]) -> Float[Tensor, "batch positions d_vocab"]:
        """The module's output."""
        return x @ self.w + self.b


class ModularAdditionTransformer(nn.Module):
    """One-layer transformer without normalisation; modules `embed`, `attention`, `mlp`, `unembed`.

    The first three return the residual stream after their stage, the last one the logits, of which the last position
    counts. Config: `d_model`, `n_heads`, `d_head`, `d_mlp`, `n_ctx`, `d_vocab`, `activation`.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        d_head: int,
        d_mlp: int,
        n_ctx: int,
        d_vocab: int,
        activation: str = "relu",
        layer_norm: str | None = None,
        modulus: int | None = None,
    ) -> None:
        super().__init__()
        if layer_norm is not None:
            raise CheckpointError(f"layer_norm is {layer_norm!r}: this family has none, expected null")
        if activation not in _ACTIVATIONS:
            raise CheckpointError(f"unknown activation {activation!r}: known are {', '.join(_ACTIVATIONS)}")
        self.embed = Embedding(d_vocab, n_ctx, d_model)
        self.attention = CausalAttention(d_model, n_heads, d_head)
        self.mlp = ResidualMLP(d_model, d_mlp, _ACTIVATIONS[activation]())
        self.unembed = Unembedding(d_model, d_vocab)

    def forward(self, tokens: Int[Tensor, "batch positions"]) -> Float[Tensor, "batch positions d_vocab"]:
        """The module's output."""
        logits: Tensor = self.unembed(self.mlp(self.attention(self.embed(tokens))))
        return logits

    @staticmethod
    def build(config: Mapping[str, Any]) -> nn.Module:
        """See `Family`."""
        return ModularAdditionTransformer(**config)

    @staticmethod
    def parameter(name: str) -> str:
        """`tok_embed`, `pos_embed` and `attn.*` have shorter paths in the model."""
        renamed = {"tok_embed": "embed.tok", "pos_embed": "embed.pos"}
        return renamed.get(name, name.replace("attn.", "attention.", 1) if name.startswith("attn.") else name)

    @staticmethod
    def cuts(config: Mapping[str, Any]) -> Sequence[str]:
        """Before attention, after attention, after the MLP, the logits."""
        return ["embed", "attention", "mlp", "unembed"]

    @staticmethod
    def positions(config: Mapping[str, Any]) -> Mapping[str, Positions]:
        """All before attention, the last one afterwards."""
        return {"attention": "last", "mlp": "last", "unembed": "last", "output": "last"}

    @staticmethod
    def transitions(model: nn.Module) -> Mapping[tuple[str, str], Transition]:
        """See `Family`."""
        weights = {name: p.detach() for name, p in model.named_parameters()}
        attention = {k.removeprefix("attention."): v for k, v in weights.items() if k.startswith("attention.")}
        d_model = len(weights["mlp.b_out"])
        return {
            ("embed", "attention"): Attention(**attention, queries=(len(weights["embed.pos"]) - 1,)),
            ("attention", "mlp"): PositionWise(
                inner=weights["mlp.w_in"].T,
                inner_bias=weights["mlp.b_in"],
                outer=weights["mlp.w_out"].T,
                skip=torch.eye(d_model, dtype=weights["mlp.b_out"].dtype),
                bias=weights["mlp.b_out"],
                phi=model.get_submodule("mlp.activation"),
            ),
            ("mlp", "unembed"): PositionWise(skip=weights["unembed.w"].T, bias=weights["unembed.b"]),
        }


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


def load_factory(name: str) -> Callable[..., nn.Module]:
    """The function `module:function` that builds a model of family `torch`. Only for names the user typed himself.

    Raises:
        InputError: no such module or function.
    """
    module, _, function = name.partition(":")
    try:
        factory: Callable[..., nn.Module] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
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
        model = family.build(config)
    except (TypeError, KeyError) as error:
        raise CheckpointError(
            f"{file.with_suffix('.json')}: the config does not fit family {name!r}: {error}"
        ) from error
    _fill(model.double(), {family.parameter(k): v for k, v in tensors.items()}, file)
    train, test = _data(about, data, file, batch_size)
    if cuts is None:
        cuts = about.get("cuts") or family.cuts(config)
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
    known = families()
    if name not in known:
        raise CheckpointError(f"unknown family {name!r}: known are {', '.join(sorted([*known, 'torch']))}")
    return known[name]


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


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    expected = model.state_dict()
    if missing := set(expected) - set(tensors):
        raise CheckpointError(f"{file} lacks the tensors {_some(missing)} that the model of its config has")
    if extra := set(tensors) - set(expected):
        raise CheckpointError(f"{file} holds the tensors {_some(extra)}, which the model of its config does not have")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{file}: {name} has shape {tuple(tensor.shape)}, the config expects {tuple(expected[name].shape)}"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"{file}: {name} holds NaN or infinite weights")
    model.load_state_dict({k: v.to(expected[k].dtype) for k, v in tensors.items()})


def _data(
    about: Mapping[str, Any], data: str | os.PathLike[str] | None, file: Path, batch_size: int | None
) -> tuple[Dataset, Dataset]:
    if data is not None:
        train, test = read_dataset(data)
    elif isinstance(about.get("data"), Mapping):
        train, test = load_dataset(about["data"])
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
