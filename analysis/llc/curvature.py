"""The curvature of a loss at a point: its spectrum, and the metric that makes the localised posterior round.

H is the generalised Gauss-Newton matrix, which for a behavioural loss at theta* is the Hessian. All eigenpairs are
computed where this fits; otherwise the largest ones and a Lanczos quadrature of the whole spectrum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor

from ..errors import NumericalError
from ..linalg import eigh, lanczos
from ..progress import ProgressCallback
from ..results import by_value
from .batch_loss import LARGE
from .landscape import Landscape
from .network_loss import DENSE

__all__ = [
    "Below",
    "Curvature",
    "Metric",
    "affordable_pairs",
    "exact_curvature",
    "fits_densely",
    "leading_curvature",
]

_PRODUCTS = 1500  # up to so many parameters H is built from products with unit vectors

_RANK_TOLERANCE = 1e-13

_RESOLVED = 0.01  # share of gamma; smaller t H cannot be distinguished from 0 in a quadrature

_QUADRATURE_STEPS = 48

_QUADRATURE_NUMBERS = 2**27  # numbers of the vectors of a quadrature that are kept: 1 GiB; with more, two of them

_PAIR_NUMBERS = 2**29  # numbers of the vectors for eigenpairs, of which there are three for each: 4 GiB in float64

_NOT_FINITE = "the curvature holds NaN or infinite numbers: the model's derivatives overflow"


@by_value
@dataclass(frozen=True)
class Metric:
    """A symmetric square root P of the sampler's covariance: P z = s (z + V ((c - 1) * V^T z)).

    >>> metric = Metric(2.0, torch.eye(3, 1, dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64))
    >>> metric(torch.ones(1, 3, dtype=torch.float64)).tolist()
    [[1.0, 2.0, 2.0]]
    """

    scale: float
    vectors: Float[Tensor, "d k"] | None = None
    factors: Float[Tensor, " k"] | None = None

    def __call__(self, z: Float[Tensor, "chains d"]) -> Float[Tensor, "chains d"]:
        """Compute P z."""
        if self.vectors is None or self.factors is None:
            return self.scale * z
        return self.scale * (z + (z @ self.vectors * (self.factors - 1)) @ self.vectors.T)


@dataclass(frozen=True)
class Below:
    """The directions that the localiser confines more than the loss does, 0 < t H_i < gamma.

    Attributes:
        worth: their contribution to lambda at small gamma, 1/2 sum gamma / (t H_i + gamma).
        directions: their number.
        lowest, highest: range of t H_i / gamma.
        exact: whether all eigenvalues are known; otherwise the numbers come from a quadrature.
    """

    worth: float = 0.0
    directions: float = 0.0
    lowest: float = 0.0
    highest: float = 0.0
    exact: bool = True


@by_value
@dataclass(frozen=True)
class Curvature:
    """Eigenpairs of H, the largest first, and a quadrature of its whole spectrum.

    Attributes:
        values, vectors: eigenpairs; all that are not 0 where `rest` is 0.
        rest: upper bound of the eigenvalues that are left out.
        nodes, weights: sum of f over the eigenvalues is about sum of weights * f(nodes).
    """

    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "d k"]
    rest: float
    nodes: Float[np.ndarray, " m"]
    weights: Float[np.ndarray, " m"]

    @property
    def largest(self) -> float:
        """The largest eigenvalue."""
        return float(self.nodes.max(initial=0.0))

    def soft_rank(self, temperature: float, gamma: float) -> float:
        """Compute 1/2 sum_i t H_i / (t H_i + gamma), the value of t <L> for the localised quadratic."""
        a = temperature * np.maximum(self.nodes, 0.0)
        return float((self.weights * a / (a + gamma)).sum()) / 2

    @property
    def exact(self) -> bool:
        """Whether the nodes are all eigenvalues that are not 0, rather than a quadrature."""
        return bool((self.weights == 1).all())

    def hidden(self, temperature: float, gamma: float) -> float:
        """Compute 1/2 sum_i gamma / (t H_i + gamma) over t H_i >= gamma, which gamma subtracts from `soft_rank`.

        These are the directions that the loss confines more than the localiser does.

        >>> from .landscape import Function
        >>> bowl = Function(lambda w: w[0] ** 2 / 2 + 4 * w[1] ** 2, torch.zeros(3, dtype=torch.float64))
        >>> round(exact_curvature(bowl, [bowl.start]).hidden(1.0, 1.0), 4)  # 1/2 (1/2 + 1/9)
        0.3056
        """
        share = temperature * self.nodes / gamma
        seen = share >= 1.0
        return float((self.weights[seen] / (1 + share[seen])).sum()) / 2

    def below(self, temperature: float, gamma: float) -> Below:
        """Summarise the directions with 0 < t H_i < gamma, which the localiser confines more than the loss does.

        Each adds 1/2 gamma / (t H_i + gamma) to lambda as gamma falls. A quadrature merges the smallest eigenvalues
        with those that are 0, so that there only t H_i >= 0.01 gamma count.

        >>> from .landscape import Function
        >>> bowl = Function(lambda w: w[0] ** 2 / 8 + 4 * w[1] ** 2, torch.zeros(3, dtype=torch.float64))
        >>> exact_curvature(bowl, [bowl.start]).below(1.0, 1.0)
        Below(worth=0.4, directions=1.0, lowest=0.25, highest=0.25, exact=True)
        """
        share = temperature * self.nodes / gamma
        chosen = (share < 1.0) & (share >= (0.0 if self.exact else _RESOLVED)) & (self.nodes > 0)
        if not chosen.any():
            return Below(exact=self.exact)
        share, weights = share[chosen], self.weights[chosen]
        worth = float((weights / (1 + share)).sum()) / 2
        return Below(worth, float(weights.sum()), float(share.min()), float(share.max()), self.exact)

    def leading(self, count: int) -> Curvature:
        """Return the same curvature with only so many eigenpairs; the spectrum stays whole."""
        if len(self.values) <= count:
            return self
        rest = float(self.values[count])
        return Curvature(self.values[:count], self.vectors[:, :count].contiguous(), rest, self.nodes, self.weights)

    def metric(self, temperature: float, gamma: float) -> Metric:
        """Compute P with P P = (t H + gamma)^-1 from the eigenpairs; the rest counts as its bound."""
        base = (temperature * self.rest + gamma) ** -0.5
        factors = (temperature * self.values + gamma) ** -0.5 / base
        return Metric(base, self.vectors, factors) if len(factors) else Metric(base)

    def share(
        self, displacement: Float[Tensor, "chains d"], temperature: float, gamma: float
    ) -> Float[Tensor, "chains d"]:
        """Compute M D with M = t H (t H + gamma)^-1: displacements without their part in free directions."""
        a = temperature * self.values
        return (displacement @ self.vectors * (a / (a + gamma))) @ self.vectors.T

    def trace_of_share(self, temperature: float, gamma: float) -> float:
        """Compute tr M over the known eigenpairs."""
        a = temperature * self.values
        return float((a / (a + gamma)).sum())


def affordable_pairs(d: int, count: int) -> int:
    """Return how many of `count` eigenpairs of order d have vectors that fit: ARPACK takes 2 k + 1, and gives k more.

    >>> affordable_pairs(10**6, 128), affordable_pairs(10**7, 128)
    (128, 17)
    """
    return max(1, min(count, (_PAIR_NUMBERS // d - 1) // 3))


def fits_densely(landscape: Landscape) -> bool:
    """Return whether `exact_curvature` takes seconds rather than hours."""
    d = len(landscape.start)
    if not landscape.row_count:
        return d <= _PRODUCTS
    return min(d, landscape.row_count) <= DENSE and d <= 10 * DENSE


def exact_curvature(landscape: Landscape, points: Sequence[Float[Tensor, " d"]]) -> Curvature:
    """Compute all eigenpairs of H, averaged over points, from H or from the rows' Gram matrix if that is smaller.

    Where H has no rows (training losses, functions) negative curvature counts with its absolute value.

    Raises:
        NumericalError: H is not finite.

    >>> from .landscape import Function
    >>> bowl = Function(lambda w: w[0] ** 2, torch.zeros(2, dtype=torch.float64))
    >>> exact_curvature(bowl, [bowl.start]).values.tolist()
    [2.0]
    """
    d = len(landscape.start)
    if not landscape.row_count:
        return _by_products(landscape, points)
    if d <= DENSE or landscape.row_count * len(points) > DENSE:
        total = torch.zeros(d, d, dtype=torch.float64, device="cpu")
        for point in points:
            for block in landscape.rows(point):
                total.addmm_(block.T.double(), block.double())
        return _of_matrix(total / len(points))
    rows = torch.cat([block.double() for point in points for block in landscape.rows(point)]) / len(points) ** 0.5
    small = _of_matrix(rows @ rows.T)
    vectors = rows.T @ small.vectors / small.values.sqrt()
    return Curvature(small.values, vectors.to(landscape.start), 0.0, small.values.numpy(), small.weights)


def leading_curvature(
    landscape: Landscape, count: int, *, seed: int, progress: ProgressCallback | None = None
) -> Curvature:
    """Compute the `count` largest eigenpairs of H at theta*, and a Lanczos quadrature of its spectrum.

    With a count of 0 only the quadrature is computed. ARPACK works in the type of the parameters.

    If ARPACK does not find all of them, those that it found are used; if it finds none, H is built from products if it
    is small.

    Raises:
        NumericalError: H is not finite, or no eigenpair is found.
    """
    d = len(landscape.start)
    generator = torch.Generator().manual_seed(seed)
    small = d <= LARGE or count > 0
    drawn = torch.float64 if small else landscape.start.dtype  # few vectors where there are no pairs
    small &= _QUADRATURE_STEPS * d <= _QUADRATURE_NUMBERS
    start = torch.randn(d, generator=generator, dtype=drawn, device="cpu")

    def product(vector: Tensor) -> Tensor:
        return landscape.product(landscape.start, vector.to(landscape.start)[None])[0].to(vector)

    if d == 1:
        return _by_products(landscape, [landscape.start])
    first = product(start)
    if not torch.isfinite(first).all():
        raise NumericalError(_NOT_FINITE)
    flat = not first.any()
    del first
    given = [start]
    if not small:
        del start  # lanczos frees it
    nodes, weights = lanczos(product, given.pop(), _QUADRATURE_STEPS, progress, kept=small)
    if flat or not count or not nodes.max() > 0:  # flat, or only negative curvature
        rest = 0.0 if flat else float(nodes.max(initial=0.0))
        return Curvature(landscape.start[:0], landscape.start.new_zeros(d, 0), rest, nodes.clip(0), d * weights)
    begin = start.to(landscape.start).numpy()
    operator = LinearOperator(
        (d, d), matvec=lambda v: product(torch.from_numpy(v.ravel().copy())).numpy(), dtype=begin.dtype
    )
    try:
        values, vectors = eigsh(operator, k=min(count, d - 1), v0=begin, tol=1e-3)
    except ArpackError as error:
        values, vectors = getattr(error, "eigenvalues", np.zeros(0)), getattr(error, "eigenvectors", np.zeros((d, 0)))
        if not len(values) and d <= _PRODUCTS:
            return _by_products(landscape, [landscape.start]).leading(count)
        if not len(values):
            raise NumericalError(
                f"the largest eigenpairs of the curvature of {d:,} parameters were not found ({error}): use "
                "preconditioner='none', or 'gauss-newton' where it fits"
            ) from error
    order = np.argsort(values)[::-1].copy()
    kept = torch.from_numpy(values[order]).clamp(min=0.0)
    found = torch.from_numpy(np.ascontiguousarray(vectors[:, order]))
    return Curvature(kept.to(landscape.start), found.to(landscape.start), float(kept[-1]), nodes, d * weights)


def _by_products(landscape: Landscape, points: Sequence[Float[Tensor, " d"]]) -> Curvature:
    """Compute all eigenpairs of H, averaged over points, from its products with unit vectors; sorted by size."""
    eye = torch.eye(len(landscape.start), dtype=landscape.start.dtype, device="cpu")
    products = torch.stack([landscape.product(point, eye) for point in points]).mean(0).double()
    if not torch.isfinite(products).all():
        raise NumericalError(_NOT_FINITE)
    values, basis = torch.linalg.eigh((products + products.T) / 2)
    return _of_matrix(basis * values.abs() @ basis.T)


def _of_matrix(matrix: Float[Tensor, "d d"]) -> Curvature:
    if not torch.isfinite(matrix).all():
        raise NumericalError(_NOT_FINITE)
    if not matrix.any():
        empty = matrix.new_zeros(len(matrix), 0)
        return Curvature(empty[0], empty, 0.0, np.zeros(0), np.zeros(0))
    found = eigh(matrix, _RANK_TOLERANCE)
    return Curvature(found.values, found.vectors, 0.0, found.values.numpy(), np.ones(len(found.values)))
