"""A multilayer perceptron that interbasis can rebuild by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ..errors import CheckpointError
from ..network.masks import Positions
from ..network.transitions import PositionWise, Transition

__all__ = ["MLP"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


class Dense(nn.Module):
    """A linear map followed by an elementwise activation."""

    def __init__(self, d_in: int, d_out: int, activation: nn.Module, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(d_in, d_out, bias=bias)
        self.activation = activation

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Compute the module's output."""
        result: Tensor = self.activation(self.linear(x))
        return result


class MLP(nn.Module):
    """Dense layers `layers.0`, `layers.1`, ...; the last one has no activation.

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
        """Compute the module's output."""
        for layer in self.dense:
            x = layer(x)
        return x

    @property
    def dense(self) -> list[Dense]:
        """The layers in order."""
        return [layer for layer in self.layers if isinstance(layer, Dense)]

    @staticmethod
    def build(config: Mapping[str, Any]) -> nn.Module:
        """See `Family`."""
        return MLP(**config)

    @staticmethod
    def parameter(name: str) -> str:
        """Map `layers.0.weight` of the file to `layers.0.linear.weight` of the model."""
        head, _, tail = name.rpartition(".")
        if head.endswith(".linear"):
            return name
        return f"{head}.linear.{tail}"

    @staticmethod
    def tensor(path: str) -> str:
        """Map a path of the model to the name in the file, the inverse of `parameter`, for error messages.

        >>> MLP.tensor("layers.0.linear.bias")
        'layers.0.bias'
        """
        return path.replace(".linear.", ".")

    @staticmethod
    def cuts(config: Mapping[str, Any]) -> Sequence[str]:
        """Return the input, each hidden activation and the output."""
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
