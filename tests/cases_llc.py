"""Losses whose learning coefficient is known: quadratics, singular functions by quadrature, deep linear networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import quad
from torch import Tensor, nn
from torch.func import jacrev

from interbasis.analysis.llc.landscape import Function
from interbasis.analysis.llc.network_loss import NetworkLandscape, behavioural_loss
from interbasis.analysis.network.network import Network

DOUBLE = torch.float64


class Written(Function):
    """A function with its gradient written out, over rows, which takes a fifth of the time of autograd's."""

    def __init__(self, function: Callable[[Tensor], Tensor], slopes: Callable[[Tensor], Tensor], size: int) -> None:
        self.slopes = slopes
        super().__init__(function, torch.zeros(size, dtype=DOUBLE))

    def evaluate(self, theta: Tensor, points: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """L and its gradient."""
        return self.function(theta.T), self.slopes(theta)


def quadratic(coefficients: list[float]) -> Function:
    """L = sum h_i w_i^2."""
    h = torch.tensor(coefficients, dtype=DOUBLE)
    return Written(lambda w: h @ w**2, lambda w: 2 * h * w, len(h))


def soft_rank(coefficients: list[float], t: float, gamma: float) -> float:
    """1/2 sum t H / (t H + gamma), H = 2 h."""
    a = 2 * t * np.array(coefficients)
    return float((a / (a + gamma)).sum() / 2)


def _moment(t: float, gamma: float, weight: Callable[[float], float], loss: Callable[[float], float]) -> float:
    """t <loss> over w > 0 with density weight(w) exp(-gamma w^2 / 2), on a logarithmic grid."""

    def density(u: float) -> float:
        return math.exp(u - gamma * math.exp(2 * u) / 2) * weight(math.exp(u))

    norm = quad(density, -40, 6, limit=500)[0]
    return quad(lambda u: density(u) * t * loss(math.exp(u)), -40, 6, limit=500)[0] / norm


def thermal_average(name: str, t: float, gamma: float, power: int = 1) -> float:
    """<(t K)^power> by quadrature; for two variables, and the first power, the second is integrated in closed form."""
    if name in ("cross", "crossing"):
        order = {"cross": 2, "crossing": 4}[name]
        return _moment(
            t,
            gamma,
            lambda w: (t * w**order + gamma / 2) ** -0.5,
            lambda w: 0.5 * w**order / (t * w**order + gamma / 2),
        )
    loss = {"quartic": lambda w: w**4, "toy": lambda w: 0.01 * w**2 + w**4}[name]
    return _moment(t, gamma, lambda w: math.exp(-t * loss(w)), lambda w: (t * loss(w)) ** power / t)


SINGULAR = {
    "cross": Written(
        lambda w: w[0] ** 2 * w[1] ** 2,
        lambda w: 2 * w * w.flip(1) ** 2,
        2,
    ),
    "crossing": Written(
        lambda w: w[0] ** 4 * w[1] ** 2,
        lambda w: torch.stack([4 * w[:, 0] ** 3 * w[:, 1] ** 2, 2 * w[:, 0] ** 4 * w[:, 1]], 1),
        2,
    ),
    "quartic": Written(lambda w: w[0] ** 4, lambda w: 4 * w**3, 1),
    "toy": Written(lambda w: 0.01 * w[0] ** 2 + w[0] ** 4, lambda w: 0.02 * w + 4 * w**3, 1),
}


@dataclass
class DeepLinear:
    """A deep linear network at a point whose local learning coefficient is rank(J)/2, certified."""

    weights: list[Tensor]
    data: Tensor
    coefficient: float
    smallest: float  # eigenvalue of H that is not zero

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(w.numel() for w in self.weights)

    def model(self) -> nn.Sequential:
        """As torch modules."""
        layers = [nn.Linear(w.shape[1], w.shape[0], bias=False).double() for w in self.weights]
        for layer, weight in zip(layers, self.weights, strict=True):
            layer.weight.data = weight.clone()
        return nn.Sequential(*layers)

    def loss(self) -> NetworkLandscape:
        """The behavioural loss on the data."""
        return behavioural_loss(Network(self.model(), []), [self.data])

    def epsilon(self, radius: float, ratio: float = 1e3) -> float:
        """A loss scale at which the softest direction is `ratio` times stiffer than the localiser."""
        norm = math.sqrt(sum(float(w.square().sum()) for w in self.weights))
        gamma = self.size / (radius * norm) ** 2
        return (self.coefficient + 1) * self.smallest / (ratio * gamma)


def deep_linear(seed: int, widths: list[int], lowered: float = 0.5) -> DeepLinear | None:
    """Weights of lowered rank (each with that probability) on normal data; None where the point is not certified."""
    draws = torch.Generator().manual_seed(seed)
    weights = []
    for before, after in zip(widths[:-1], widths[1:], strict=True):
        weight = torch.randn(after, before, generator=draws, dtype=DOUBLE) / math.sqrt(before)
        if torch.rand(1, generator=draws) < lowered:
            rank = int(torch.randint(1, min(after, before) + 1, (1,), generator=draws))
            u, s, v = torch.linalg.svd(weight, full_matrices=False)
            weight = u[:, :rank] * s[:rank] @ v[:rank]
        weights.append(weight)
    data = torch.randn(2 * max(widths), widths[0], generator=draws, dtype=DOUBLE)
    start = torch.cat([w.flatten() for w in weights])

    def outputs(theta: Tensor) -> Tensor:
        y, first = data, 0
        for w in weights:
            y, first = y @ theta[first : first + w.numel()].reshape(w.shape).T, first + w.numel()
        return y.flatten()

    def jacobian(theta: Tensor) -> Tensor:
        return jacrev(outputs)(theta)

    values = torch.linalg.svdvals(jacobian(start))
    rank = int((values > 1e-9 * values[0]).sum())
    onto = rank == widths[0] * widths[-1]  # then L = 0 is smooth
    if rank != _rank_of(weights) or not (onto or _smooth(outputs, jacobian, start, rank, draws)):
        return None
    return DeepLinear(weights, data, rank / 2, 2 * float(values[rank - 1]) ** 2 / len(data))


def _rank_of(weights: list[Tensor]) -> int:
    """rank(J) = sum_l (p_l - p_(l-1)) q_l: p_l = rank of what comes after layer l, q_l of what comes before."""

    def rank(matrices: list[Tensor], size: int) -> int:
        product = torch.eye(size, dtype=DOUBLE)
        for matrix in matrices:
            product = matrix @ product
        return int(torch.linalg.matrix_rank(product, rtol=1e-9))

    n = len(weights)
    after = [0] + [rank(weights[i + 1 :], weights[i].shape[0]) for i in range(n)]
    before = [rank(weights[:i], weights[0].shape[1]) for i in range(n)]
    return sum((after[i + 1] - after[i]) * before[i] for i in range(n))


def _smooth(
    outputs: Callable[[Tensor], Tensor],
    jacobian: Callable[[Tensor], Tensor],
    start: Tensor,
    rank: int,
    draws: torch.Generator,
) -> bool:
    """Whether the set L = 0 is a manifold of codimension rank(J) at the start.

    A step of length d along ker J can be corrected by a step of order d^2 to a point of L = 0 where J has the same
    rank; at a point where branches meet the correction is of order d, or the rank is higher.
    """
    target = outputs(start)
    null = torch.linalg.svd(jacobian(start), full_matrices=True)[2][rank:]
    size = float(start.norm())
    for _ in range(3):
        step = torch.randn(len(null), generator=draws, dtype=DOUBLE) @ null
        step *= 1e-3 * size / step.norm()
        point = start + step
        for _ in range(8):
            u, s, v = torch.linalg.svd(jacobian(point), full_matrices=False)
            point = point - v[:rank].T @ ((outputs(point) - target) @ u[:, :rank] / s[:rank])
        values = torch.linalg.svdvals(jacobian(point))
        if (outputs(point) - target).norm() > 1e-9 * target.norm():
            return False
        if rank < len(values) and values[rank] > 1e-9 * values[0]:
            return False
        if (point - start - step).norm() > 0.1 * step.norm():
            return False
    return True


def random_widths(seed: int) -> list[int]:
    """Two to four layers of 3 to 16 units."""
    draws = np.random.default_rng(seed)
    depth, most = int(draws.integers(2, 5)), int(draws.choice([6, 10, 16]))
    return [int(width) for width in draws.integers(max(3, most // 2), most + 1, depth + 1)]
