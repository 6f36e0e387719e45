"""Transformers that interbasis can rebuild by itself; the model class is also a `families.Family`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import CheckpointError
from ..network.masks import Positions
from ..network.transitions import Attention, PositionWise, Transition
from .components import Component, Components, Part
from .mlp import _ACTIVATIONS

__all__ = ["ModularAdditionTransformer"]


class Embedding(nn.Module):
    """A token embedding plus a learned absolute position embedding."""

    def __init__(self, d_vocab: int, n_ctx: int, d_model: int) -> None:
        super().__init__()
        self.tok = nn.Parameter(torch.zeros(d_vocab, d_model, device="cpu"))
        self.pos = nn.Parameter(torch.zeros(n_ctx, d_model, device="cpu"))

    def forward(self, tokens: Int[Tensor, "batch positions"]) -> Float[Tensor, "batch positions d_model"]:
        """Compute the module's output."""
        return self.tok[tokens] + self.pos[: tokens.shape[1]]


class Affine(nn.Module):
    """y = x W + b, in the convention of TransformerLens."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(d_in, d_out, device="cpu"))
        self.b = nn.Parameter(torch.zeros(d_out, device="cpu"))

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Compute the module's output."""
        return x @ self.w + self.b


class Heads(nn.Module):
    """Queries, keys or values of each head."""

    def __init__(self, n_heads: int, d_model: int, d_head: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(n_heads, d_model, d_head, device="cpu"))
        self.b = nn.Parameter(torch.zeros(n_heads, d_head, device="cpu"))

    def forward(self, x: Float[Tensor, "batch positions d_model"]) -> Float[Tensor, "batch heads positions d_head"]:
        """Compute the module's output."""
        return torch.einsum("nsm,hmd->nhsd", x, self.w) + self.b[:, None]


class AttentionPattern(nn.Module):
    """softmax(q k^T / sqrt(d_head)) with a causal mask."""

    def forward(
        self, q: Float[Tensor, "batch heads positions d_head"], k: Float[Tensor, "batch heads positions d_head"]
    ) -> Float[Tensor, "batch heads positions positions"]:
        """Compute the module's output."""
        future = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).triu(1)
        score = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        return score.masked_fill(future, -math.inf).softmax(-1)


class HeadOutput(nn.Module):
    """The sum over heads of what each writes."""

    def __init__(self, n_heads: int, d_head: int, d_model: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(n_heads, d_head, d_model, device="cpu"))
        self.b = nn.Parameter(torch.zeros(d_model, device="cpu"))

    def forward(self, z: Float[Tensor, "batch heads positions d_head"]) -> Float[Tensor, "batch positions d_model"]:
        """Compute the module's output."""
        return torch.einsum("nhsd,hdm->nsm", z, self.w) + self.b


class CausalAttention(nn.Module):
    """The residual stream plus causal multi-head attention, with biases and without normalisation."""

    def __init__(self, d_model: int, n_heads: int, d_head: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (Heads(n_heads, d_model, d_head) for _ in range(3))
        self.pattern = AttentionPattern()
        self.o = HeadOutput(n_heads, d_head, d_model)

    def forward(self, x: Float[Tensor, "batch positions d_model"]) -> Float[Tensor, "batch positions d_model"]:
        """Compute the module's output."""
        result: Tensor = x + self.o(self.pattern(self.q(x), self.k(x)) @ self.v(x))
        return result


class ResidualMLP(nn.Module):
    """The residual stream plus a two-layer MLP."""

    def __init__(self, d_model: int, d_mlp: int, activation: nn.Module) -> None:
        super().__init__()
        self.inner = Affine(d_model, d_mlp)
        self.activation = activation
        self.outer = Affine(d_mlp, d_model)

    def forward(self, x: Float[Tensor, "batch positions d_model"]) -> Float[Tensor, "batch positions d_model"]:
        """Compute the module's output."""
        result: Tensor = x + self.outer(self.activation(self.inner(x)))
        return result


class ModularAdditionTransformer(nn.Module):
    """One-layer transformer without normalisation; modules `embed`, `attention`, `mlp`, `unembed`.

    The first three return the residual stream after their stage; the last one returns the logits, and only the last
    position counts there. Config: `d_model`, `n_heads`, `d_head`, `d_mlp`, `n_ctx`, `d_vocab`, `activation`.
    """

    residual_stream = ("embed", "attention.o", "mlp.outer")
    """Layers that write the residual stream, in order; all others read it, and nothing else does."""

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
        self.unembed = Affine(d_model, d_vocab)

    def forward(self, tokens: Int[Tensor, "batch positions"]) -> Float[Tensor, "batch positions d_vocab"]:
        """Compute the module's output."""
        logits: Tensor = self.unembed(self.mlp(self.attention(self.embed(tokens))))
        return logits

    @staticmethod
    def build(config: Mapping[str, Any]) -> nn.Module:
        """See `Family`."""
        return ModularAdditionTransformer(**config)

    @staticmethod
    def parameter(name: str) -> str:
        """Map `tok_embed`, `pos_embed`, `attn.w_q`, ..., `mlp.w_in`, ... of the file to paths of the model."""
        if name in (renamed := {"tok_embed": "embed.tok", "pos_embed": "embed.pos"}):
            return renamed[name]
        block, _, rest = name.partition(".")
        kind, _, which = rest.partition("_")
        if block == "attn":
            return f"attention.{which}.{kind}"
        inner = {"in": "inner", "out": "outer"}.get(which)
        return f"mlp.{inner}.{kind}" if block == "mlp" and inner else name

    @staticmethod
    def tensor(path: str) -> str:
        """Map a path of the model to the name in the file, the inverse of `parameter`, for error messages.

        >>> [ModularAdditionTransformer.tensor(path) for path in ("embed.tok", "attention.q.w", "mlp.outer.b")]
        ['tok_embed', 'attn.w_q', 'mlp.b_out']
        """
        block, _, rest = path.partition(".")
        which, _, kind = rest.partition(".")
        if block == "embed":
            return f"{rest}_embed"
        if block == "attention":
            return f"attn.{kind}_{which}"
        return f"mlp.{kind}_{which.removesuffix('ner').removesuffix('er')}" if block == "mlp" else path

    @staticmethod
    def cuts(config: Mapping[str, Any]) -> Sequence[str]:
        """Return the places before attention, after attention, after the MLP, and the logits."""
        return ["embed", "attention", "mlp", "unembed"]

    @staticmethod
    def positions(config: Mapping[str, Any]) -> Mapping[str, Positions]:
        """Return all positions before attention, the last one afterwards, inside the MLP too."""
        after = ("attention", "mlp.inner", "mlp.activation", "mlp.outer", "mlp", "unembed", "output")
        return dict.fromkeys(after, "last")

    @staticmethod
    def transitions(model: nn.Module) -> Mapping[tuple[str, str], Transition]:
        """See `Family`."""
        weights = {name: p.detach() for name, p in model.named_parameters()}
        attention = {f"{kind}_{name}": weights[f"attention.{name}.{kind}"] for name in "qkvo" for kind in "wb"}
        d_model = len(weights["mlp.outer.b"])
        return {
            ("embed", "attention"): Attention(**attention, queries=(len(weights["embed.pos"]) - 1,)),
            ("attention", "mlp"): PositionWise(
                inner=weights["mlp.inner.w"].T,
                inner_bias=weights["mlp.inner.b"],
                outer=weights["mlp.outer.w"].T,
                skip=torch.eye(d_model, dtype=weights["mlp.outer.b"].dtype, device="cpu"),
                bias=weights["mlp.outer.b"],
                phi=model.get_submodule("mlp.activation"),
            ),
            ("mlp", "unembed"): PositionWise(skip=weights["unembed.w"].T, bias=weights["unembed.b"]),
        }

    @staticmethod
    def components(config: Mapping[str, Any]) -> Components:
        """See `checkpoint.components_of`."""
        heads = [
            Component(
                0,
                h,
                {name: Part(f"attention.{name}", 1, h, h + 1) for name in "qkv"},
                Part("attention.o:in", 1, h, h + 1),
            )
            for h in range(int(config["n_heads"]))
        ]
        return Components(
            (*heads, Component(0, None, {"": Part("mlp.inner")}, Part("mlp.outer"), Part("mlp.outer:in")))
        )
