"""Networks with known answers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from interbasis.analysis.network.network import Network


def random_orthogonal(k: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(k, k, generator=generator, dtype=torch.float64))[0]


def random_invertible(k: int, generator: torch.Generator) -> Tensor:
    """Condition number at most 4."""
    scale = 0.5 + 1.5 * torch.rand(k, generator=generator, dtype=torch.float64)
    return random_orthogonal(k, generator) * scale @ random_orthogonal(k, generator)


def normal(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def sequential(
    weights: Sequence[Tensor], biases: Sequence[Tensor], activation: type[nn.Module] | None
) -> nn.Sequential:
    """Dense layers as modules `0`, `1`, ...; each a Sequential of linear map and activation, the last one linear."""
    layers = []
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        linear = nn.Linear(w.shape[1], w.shape[0], dtype=torch.float64)
        linear.weight.data, linear.bias.data = w.clone(), b.clone()
        last = i == len(weights) - 1
        layers.append(nn.Sequential(linear) if last or activation is None else nn.Sequential(linear, activation()))
    return nn.Sequential(*layers)


def random_mlp(
    widths: Sequence[int], generator: torch.Generator, activation: type[nn.Module] | None = nn.GELU
) -> nn.Sequential:
    weights = [normal(b, a, generator=generator) / a**0.5 for a, b in zip(widths[:-1], widths[1:], strict=True)]
    return sequential(weights, [normal(b, generator=generator) for b in widths[1:]], activation)


def cut_network(model: nn.Sequential, example: Tensor) -> Network:
    """Cuts at the input and after every layer."""
    return Network(model, ["0:in", *(str(i) for i in range(len(model)))], example=example)


def block_diagonal_mlp(
    blocks: int, generator: torch.Generator, *, width: int = 5, hidden_by: str = "permutation"
) -> nn.Sequential:
    """MLP made of `blocks` networks side by side, with `width` inputs and outputs each.

    Hidden by permutations of the ReLU units of each layer, or with "basis" by linear layers between the ReLU layers
    whose coordinates are changed by a random invertible matrix.
    """
    size = blocks * width
    side = torch.arange(blocks).repeat_interleave(width)
    linear = [hidden_by == "basis" and i % 2 == 1 for i in range(4)]
    weights = [
        normal(size, size, generator=generator) / width**0.5 * (side[:, None] == side[None]) for _ in range(len(linear))
    ]
    biases = [normal(size, generator=generator) for _ in weights]
    for i in range(len(weights) - 1):
        order = torch.randperm(size, generator=generator)
        mix = random_invertible(size, generator) if linear[i] else torch.eye(size, dtype=torch.float64)[order]
        weights[i], biases[i] = mix @ weights[i], mix @ biases[i]
        weights[i + 1] = weights[i + 1] @ torch.linalg.inv(mix)
    model = sequential(weights, biases, nn.ReLU)
    for i, without in enumerate(linear[:-1]):
        if without:
            model[i] = nn.Sequential(model[i][0])
    return model


def white(n: int, d: int, generator: torch.Generator) -> Tensor:
    """Data with mean 0 and covariance I on the data points themselves, so that no two inputs are correlated."""
    x = normal(n, d, generator=generator)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / n)).T


class TinyAttention(nn.Module):
    """Residual stream plus softmax attention plus a dense readout: three modules, three cuts with positions."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.enter = nn.Identity()
        self.mix = _Mix(width, generator)
        self.read = nn.Linear(width, 3, dtype=torch.float64)
        self.read.weight.data = normal(3, width, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.mix(self.enter(x)))


class _Mix(nn.Module):
    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weights = nn.ParameterList(normal(width, width, generator=generator) / width for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (x @ w for w in self.weights)
        return x + (q @ k.transpose(1, 2)).softmax(-1) @ v
