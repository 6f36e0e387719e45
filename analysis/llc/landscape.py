"""The loss around the parameters of a trained network, as a function of a vector: values, gradients, curvature.

    behavioural   L_B = 1/n sum_x |f(x) - f*(x)|^2, or 1/n sum_x KL(p* || p) (paper, eq. 6 and footnote 3)
    constrained   L_C = L_B + 1/n sum_i w_i^2 sum_x (v_i(x) - v_i*(x))^2 over mediating nodes v_i (eq. 31 and 32)
    training      the user's own

All can be restricted to a subset of the parameters, and evaluated for a stack of vectors (one per chain) at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import grad, grad_and_value, vjp, vmap

from ..derivatives import describe_disagreements, gradient_disagreements
from ..errors import InputError
from ..results import by_value
from .batch_loss import number
from .network_loss import _same
from .ways import FAILURES, gradient, gradients, products_of

__all__ = ["Function", "Landscape"]


@runtime_checkable
class Landscape(Protocol):
    """A loss L(theta) around `start`, in the dtype of `start`.

    Attributes:
        start: theta*.
        n: number of data points.
        baseline: L(theta*).
        behavioural: whether L >= 0 = L(theta*) by construction.
        scale: a large loss for comparison: for a network, that of a constant output.
        row_count: number of rows that `rows` gives, 0 where the curvature has no such form.
        vectorised: whether a stack of vectors is evaluated in one go.
    """

    start: Float[Tensor, " d"]
    n: int
    baseline: float
    behavioural: bool
    scale: float
    row_count: int
    vectorised: bool

    def evaluate(
        self, theta: Float[Tensor, "chains d"], points: Int[Tensor, "chains points"] | None = None
    ) -> tuple[Float[Tensor, " chains"], Float[Tensor, "chains d"]]:
        """Compute L and its gradient, over all data or as the mean over each chain's own data points."""
        ...

    def rows(self, theta: Float[Tensor, " d"]) -> Iterator[Float[Tensor, "rows d"]]:
        """Yield blocks of rows R with sum R^T R = H, the generalised Gauss-Newton matrix of L."""
        ...

    def product(self, theta: Float[Tensor, " d"], vectors: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        """Compute H v for each of the vectors."""
        ...


@by_value
@dataclass
class Function:
    """A loss that is given as a function of a vector; its curvature is the Hessian at `start`.

    >>> bowl = Function(lambda w: (w**2).sum(), torch.zeros(2, dtype=torch.float64))
    >>> [x.tolist() for x in bowl.evaluate(torch.tensor([[1.0, 2.0]], dtype=torch.float64))]
    [[5.0], [[2.0, 4.0]]]
    """

    function: Callable[[Tensor], Tensor]
    start: Float[Tensor, " d"]
    vectorised: bool = True
    n: int = 1
    scale: float = 1.0
    row_count: int = 0

    def __post_init__(self) -> None:
        self.baseline = float(number(self.function(self.start), "the function"))
        size = float(self.start.square().mean().sqrt()) or 1.0
        away = torch.randn(
            len(self.start), generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu"
        )
        nearby = self.start + 0.02 * size * away.to(self.start)
        value, slope = gradient(self.function, nearby)

        def agrees(derivative: Callable[[], tuple[Tensor, Tensor]]) -> bool:
            try:
                other, steepness = derivative()
            except FAILURES:
                return False
            return _same(other.reshape(()), value) and _same(steepness.reshape(-1), slope)

        self._transformed = agrees(lambda: grad_and_value(self.function)(nearby)[::-1])
        stacked = self.vectorised and self._transformed
        self.vectorised = stacked and agrees(lambda: gradients(vmap(self.function), nearby[None]))
        found = gradient_disagreements(lambda named: self.function(named["theta"]), {"theta": nearby}, {"theta": slope})
        if found:
            raise InputError(
                f"autograd's gradient is not the derivative of the function: {describe_disagreements(found)}"
            )
        self.behavioural = self.baseline == 0 and not gradient(self.function, self.start)[1].any()

    def evaluate(
        self, theta: Float[Tensor, "chains d"], points: Int[Tensor, "chains points"] | None = None
    ) -> tuple[Float[Tensor, " chains"], Float[Tensor, "chains d"]]:
        """Compute L and its gradient."""
        if points is not None:
            raise InputError("a loss that is given as a function has no data points to draw batches from")
        if self.vectorised:
            return gradients(vmap(self.function), theta)
        found = [gradient(self.function, row) for row in theta]
        return torch.stack([value for value, _ in found]), torch.stack([slope for _, slope in found])

    def rows(self, theta: Float[Tensor, " d"]) -> Iterator[Float[Tensor, "rows d"]]:
        """Yield nothing: there is no residual."""
        return iter(())

    def product(self, theta: Float[Tensor, " d"], vectors: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        """Compute the Hessian times each of the vectors, by differences where autograd cannot."""
        if self._transformed:
            _, pull = vjp(grad(self.function), theta)
            return torch.stack([pull(vector)[0] for vector in vectors])
        return products_of(self.function, theta, vectors)
