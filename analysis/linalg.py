"""The one symmetric eigendecomposition of the project: float64, descending, sign fixed, rank cut stated."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .errors import NumericalError

__all__ = ["Eigen", "Whitening", "column_signs", "eigh", "whiten"]

_NEGATIVE = 1e-8  # a Gram matrix may have eigenvalues below zero by rounding, at most this share of the largest


@dataclass(frozen=True)
class Eigen:
    """Kept eigenpairs of a Gram matrix, and its whole spectrum.

    Attributes:
        values: kept eigenvalues (r,), descending, all positive.
        vectors: their eigenvectors as columns (d, r), the largest entry of each positive.
        spectrum: all eigenvalues (d,), descending.
    """

    values: Float[Tensor, " rank"]
    vectors: Float[Tensor, "d rank"]
    spectrum: Float[Tensor, " d"]


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
    """Sign of the entry of largest magnitude in each column (of the first one where tied to 1e-9).

    >>> column_signs(torch.tensor([[1.0, -3.0], [-2.0, 1.0]]))
    tensor([-1., -1.])
    """
    if columns.numel() == 0:
        return columns.new_ones(columns.shape[1])
    size = columns.abs()
    first = (size >= size.amax(0) * (1 - 1e-9)).int().argmax(0)
    return torch.where(columns.gather(0, first[None])[0] < 0, -1.0, 1.0).to(columns.dtype)


def eigh(gram: Float[Tensor, "d d"], rank_tolerance: float = 1e-10) -> Eigen:
    """Eigendecomposition of a Gram matrix, keeping eigenvalues above `rank_tolerance` times the largest.

    Args:
        gram: symmetric positive semidefinite matrix; computed on in float64.
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
    """Whitening transform of a Gram matrix: A G A^T = I on the kept span (paper, section 6, step 1).

    >>> whiten(torch.diag(torch.tensor([4.0, 0.0]))).forward
    tensor([[0.5000, 0.0000]], dtype=torch.float64)
    """
    eigen = eigh(gram, rank_tolerance)
    root = eigen.values.sqrt()
    return Whitening((eigen.vectors / root).T, eigen.vectors * root, eigen.spectrum)
