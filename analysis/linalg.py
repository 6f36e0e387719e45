"""Linear algebra in float64: the symmetric eigendecomposition (descending, signs fixed, rank cut), ranks, Lanczos.

Ranks that must see singular values far below 1e-8 of the largest come from `RowSpace`, which never forms a Gram matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from .errors import NumericalError
from .progress import ProgressCallback, report
from .results import by_value

__all__ = ["Eigen", "RowSpace", "Whitening", "column_rank", "column_signs", "eigh", "lanczos", "noise_floor", "whiten"]

_NEGATIVE = 1e-8  # by rounding a Gram matrix may have negative eigenvalues up to this share of the largest


@by_value
@dataclass(frozen=True)
class Eigen:
    """The kept eigenpairs of a Gram matrix, and its whole spectrum.

    Attributes:
        values: kept eigenvalues (r,), descending, all positive.
        vectors: their eigenvectors as columns (d, r), the largest entry of each positive.
        spectrum: all eigenvalues (d,), descending.
    """

    values: Float[Tensor, " rank"]
    vectors: Float[Tensor, "d rank"]
    spectrum: Float[Tensor, " d"]


@by_value
@dataclass(frozen=True)
class Whitening:
    """A = (D_G^{1/2})^+ U and its pseudoinverse, for the kept eigenpairs of G.

    Attributes:
        forward: A (k, d).
        backward: A^+ (d, k).
        spectrum: all eigenvalues of G (d,), descending.
    """

    forward: Float[Tensor, "k d"]
    backward: Float[Tensor, "d k"]
    spectrum: Float[Tensor, " d"]


def column_signs(columns: Float[Tensor, "d k"]) -> Float[Tensor, " k"]:
    """Return the sign of the entry of largest magnitude in each column (of the first one where tied to 1e-9).

    >>> column_signs(torch.tensor([[1.0, -3.0], [-2.0, 1.0]]))
    tensor([-1., -1.])
    """
    if columns.numel() == 0:
        return columns.new_ones(columns.shape[1])
    size = columns.abs()
    first = (size >= size.amax(0) * (1 - 1e-9)).int().argmax(0)
    return torch.where(columns.gather(0, first[None])[0] < 0, -1.0, 1.0).to(columns.dtype)


def eigh(gram: Float[Tensor, "d d"], rank_tolerance: float = 1e-10) -> Eigen:
    """Compute the eigendecomposition of a Gram matrix, keeping eigenvalues above `rank_tolerance` times the largest.

    Args:
        gram: symmetric positive semidefinite matrix; converted to float64.
        rank_tolerance: relative rank cut.

    Raises:
        NumericalError: the matrix is not finite, or has an eigenvalue below zero by more than rounding.

    >>> eigh(torch.diag(torch.tensor([1.0, 4.0, 0.0]))).values
    tensor([4., 1.], dtype=torch.float64)
    """
    symmetric = gram.to(torch.float64)
    symmetric = (symmetric + symmetric.T) / 2
    if not torch.isfinite(symmetric).all():
        raise NumericalError("a Gram matrix holds NaN or infinite entries: check data and weights")
    values, vectors = torch.linalg.eigh(symmetric)
    values, vectors = values.flip(0), vectors.flip(1)
    largest = float(values[0])
    if float(values[-1]) < -_NEGATIVE * max(largest, 0.0) - 1e-300:
        raise NumericalError(
            f"a Gram matrix has the eigenvalue {float(values[-1]):.3e} beside the largest {largest:.3e}: "
            "expected none below zero"
        )
    rank = int((values > max(rank_tolerance * largest, 0.0)).sum())
    kept = vectors[:, :rank]
    return Eigen(values[:rank], kept * column_signs(kept), values.clamp_min(0.0))


def whiten(gram: Float[Tensor, "d d"], rank_tolerance: float = 1e-10) -> Whitening:
    """Compute the whitening transform of a Gram matrix: A G A^T = I on the kept span (paper, section 6, step 1).

    >>> whiten(torch.diag(torch.tensor([4.0, 0.0]))).forward
    tensor([[0.5000, 0.0000]], dtype=torch.float64)
    """
    eigen = eigh(gram, rank_tolerance)
    root = eigen.values.sqrt()
    return Whitening((eigen.vectors / root).T, eigen.vectors * root, eigen.spectrum)


def noise_floor(kind: torch.dtype) -> float:
    """Return the share of the largest eigenvalue of a Gram matrix below which a number format's rounding decides.

    1e-6 for float32, after the rounding of many layers; the square of the spacing of numbers where that is more; 0 for
    float64.

    >>> noise_floor(torch.float64), noise_floor(torch.float32), round(noise_floor(torch.bfloat16), 6)
    (0.0, 1e-06, 6.1e-05)
    """
    return 0.0 if kind == torch.float64 else max(1e-6, torch.finfo(kind).eps ** 2)


class RowSpace:
    """The triangular factor R of a tall matrix given in blocks of rows: R^T R is its Gram matrix, never formed.

    Singular values are exact to rounding (1e-16 of the largest), so that ranks can be decided where a Gram matrix
    would have lost them below 1e-8.

    >>> rows = RowSpace(2)
    >>> rows.add(torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=torch.float64))
    >>> rows.rank(), rows.count
    (1, 2)
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.count = 0
        self._factor = torch.zeros(0, width, dtype=torch.float64, device="cpu")
        self._waiting: list[Tensor] = []

    def add(self, rows: Float[Tensor, "m d"]) -> None:
        """Add rows."""
        self.count += len(rows)
        self._waiting.append(rows.to("cpu", torch.float64))
        if sum(map(len, self._waiting)) > 4 * self.width:
            self._reduce()

    def factor(self) -> Float[Tensor, "r d"]:
        """Return R, with at most as many rows as columns."""
        self._reduce()
        return self._factor

    def rank(
        self, columns: Sequence[int] | None = None, *, tolerance: float = 1e-10, cutoff: float | None = None
    ) -> int:
        """Compute the rank of the matrix, or of some of its columns; see `column_rank`."""
        factor = self.factor()
        return column_rank(factor if columns is None else factor[:, list(columns)], tolerance=tolerance, cutoff=cutoff)

    def _reduce(self) -> None:
        if self._waiting:
            stacked = torch.cat([self._factor, *self._waiting])
            self._waiting = []
            self._factor = torch.linalg.qr(stacked, mode="r")[1] if len(stacked) > self.width else stacked


def column_rank(matrix: Float[Tensor, "m d"], *, tolerance: float = 1e-10, cutoff: float | None = None) -> int:
    """Count singular values above `cutoff`, or above `tolerance` times the largest after scaling columns.

    Columns are scaled to length 1 (those below 1e-13 of the longest count as zero), so that the rank does not depend
    on the unit of each column, for example on the scale of a ReLU neuron.

    >>> column_rank(torch.diag(torch.tensor([1.0, 1e-6], dtype=torch.float64)))
    2
    >>> column_rank(torch.diag(torch.tensor([1.0, 1e-6], dtype=torch.float64)), cutoff=1e-3)
    1
    """
    if matrix.numel() == 0:
        return 0
    if not torch.isfinite(matrix).all():
        raise NumericalError("a matrix whose rank is wanted holds NaN or infinite entries: check data and weights")
    if cutoff is not None:
        return int((torch.linalg.svdvals(matrix) > cutoff).sum())
    length = matrix.norm(dim=0)
    kept = length > 1e-13 * length.max()
    if not kept.any():
        return 0
    values = torch.linalg.svdvals(matrix[:, kept] / length[kept])
    return int((values > tolerance * values[0]).sum())


def lanczos(
    product: Callable[[Tensor], Tensor],
    start: Float[Tensor, " d"],
    steps: int,
    progress: ProgressCallback | None = None,
    *,
    kept: bool = True,
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Compute the Gauss quadrature of a symmetric operator's spectral measure at a vector: nodes ascending, weights.

    Golub and Welsch 1969; vectors are orthogonalised against all earlier ones, twice. Where these are not `kept`, only
    the last two are in memory, and eigenvalues that have converged come again, as nodes side by side that share the
    weight: sums over the measure stay the same (Greenbaum 1989).

    >>> nodes, weights = lanczos(lambda v: torch.tensor([1.0, 3.0]).double() * v, torch.ones(2).double(), 5)
    >>> nodes.round(6).tolist(), weights.round(6).tolist()
    ([1.0, 3.0], [0.5, 0.5])
    """
    most = min(steps, len(start))
    known = start.new_zeros(most if kept else 2, len(start))
    torch.div(start, start.norm(), out=known[0])
    del start  # its memory, where the caller does not hold it
    diagonal: list[float] = []
    beside: list[float] = []
    for step in report(range(most), "Hessian", progress):
        now = known[step if kept else step % 2]
        image = product(now)
        diagonal.append(float(image @ now))
        scale = float(image.norm())
        for _ in range(2):
            if kept:
                earlier = known[: step + 1]
                image = image - earlier.T @ (earlier @ image)
            else:
                image.addmv_(known.T, known @ image, alpha=-1.0)
        length = float(image.norm())
        if length <= 1e-12 * max(scale, abs(diagonal[0])) or step + 1 == most:
            break
        beside.append(length)
        known[step + 1 if kept else (step + 1) % 2] = image.div_(length)
        del image
    nodes, vectors = eigh_tridiagonal(np.array(diagonal), np.array(beside[: len(diagonal) - 1]))
    return nodes, vectors[0] ** 2
