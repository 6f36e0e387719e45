"""Models that interbasis can rebuild by itself; each class also says what `families.Family` asks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .errors import CheckpointError
from .network import Positions
from .transitions import Attention, PositionWise, Transition

__all__ = ["MLP", "ModularAdditionTransformer"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


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
        if head.endswith(".linear"):
            return name
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
