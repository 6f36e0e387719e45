"""The eigendecomposition that everything else stands on."""

import math

import pytest
import torch
from cases import normal, random_orthogonal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interbasis.analysis.errors import NumericalError
from interbasis.analysis.linalg import column_signs, eigh, whiten

F64 = torch.float64


def gram(values: list[float], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A matrix with these eigenvalues, and its eigenvectors."""
    vectors = random_orthogonal(len(values), generator)
    return vectors * torch.tensor(values, dtype=F64) @ vectors.T, vectors


def test_eigenvalues_descend_and_vectors_belong_to_them(generator: torch.Generator) -> None:
    matrix, vectors = gram([0.5, 3.0, 2.0, 7.0], generator)
    eigen = eigh(matrix)
    torch.testing.assert_close(eigen.values, torch.tensor([7.0, 3.0, 2.0, 0.5], dtype=F64), rtol=1e-12, atol=1e-12)
    expected = vectors[:, [3, 1, 2, 0]]
    expected = expected * column_signs(expected)
    torch.testing.assert_close(eigen.vectors, expected, rtol=1e-10, atol=1e-10)


def test_largest_entry_of_each_vector_is_positive(generator: torch.Generator) -> None:
    matrix, _ = gram([1.0, 2.0, 3.0, 4.0, 5.0], generator)
    vectors = eigh(matrix).vectors
    assert (vectors.gather(0, vectors.abs().argmax(0)[None]) > 0).all()


@pytest.mark.parametrize(
    ("column", "sign"),
    [([1.0, -3.0], -1), ([2.0, -2.0], 1), ([-2.0, 2.0 * (1 + 1e-12)], -1), ([-1.0, 1.0 + 1e-6], 1), ([0.0, 0.0], 1)],
    ids=["largest", "tied", "tied by rounding", "not tied", "zero"],
)
def test_sign_is_that_of_the_first_largest_entry(column: list[float], sign: int) -> None:
    assert column_signs(torch.tensor([column], dtype=F64).T).tolist() == [sign]


def test_signs_of_no_rows_are_positive() -> None:
    assert column_signs(torch.zeros(0, 3, dtype=F64)).tolist() == [1, 1, 1]


def test_rank_cut_is_relative_to_the_largest() -> None:
    values = torch.tensor([1e6, 1.0, 1e-3, 1e-5, 0.0], dtype=F64)
    assert len(eigh(torch.diag(values)).values) == 3
    assert len(eigh(torch.diag(values), rank_tolerance=1e-7).values) == 2
    assert len(eigh(torch.diag(values), rank_tolerance=0.0).values) == 4
    assert eigh(torch.diag(values)).spectrum.tolist() == values.tolist()


def test_zero_matrix_has_rank_zero() -> None:
    eigen = eigh(torch.zeros(3, 3, dtype=F64))
    assert eigen.values.shape == (0,)
    assert eigen.vectors.shape == (3, 0)
    assert eigen.spectrum.tolist() == [0, 0, 0]


def test_float32_is_computed_in_float64() -> None:
    assert eigh(torch.eye(2)).values.dtype == F64


def test_negative_eigenvalue_raises_with_its_value() -> None:
    with pytest.raises(NumericalError, match=r"eigenvalue -1\.000e-02 beside the largest 1\.000e\+00"):
        eigh(torch.diag(torch.tensor([1.0, -0.01], dtype=F64)))
    with pytest.raises(NumericalError, match="expected none below zero"):
        eigh(-torch.eye(2, dtype=F64))


def test_rounding_below_zero_is_cut() -> None:
    eigen = eigh(torch.diag(torch.tensor([1.0, -1e-12], dtype=F64)))
    assert eigen.values.tolist() == [1]
    assert eigen.spectrum.tolist() == [1, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_not_finite_raises(bad: float) -> None:
    matrix = torch.eye(3, dtype=F64)
    matrix[0, 1] = bad
    with pytest.raises(NumericalError, match="NaN or infinite entries: check data and weights"):
        eigh(matrix)


@given(d=st.integers(1, 8), rank=st.integers(0, 8), decades=st.floats(0, 4), seed=st.integers(0, 2**32))
@settings(deadline=None)
def test_whitened_gram_is_the_identity_on_the_kept_span(d: int, rank: int, decades: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rank = min(rank, d)
    scale = 10 ** (-decades * torch.linspace(0, 1, rank, dtype=F64))
    root = random_orthogonal(d, generator)[:, :rank] * scale.sqrt()
    matrix = root @ root.T
    whitening = whiten(matrix)
    A, back = whitening.forward, whitening.backward
    assert A.shape == (rank, d)
    eye = torch.eye(rank, dtype=F64)
    torch.testing.assert_close(A @ matrix @ A.T, eye, rtol=0, atol=1e-9)
    torch.testing.assert_close(A @ back, eye, rtol=0, atol=1e-9)
    torch.testing.assert_close(back @ A @ root, root, rtol=0, atol=1e-9)


def test_projector_of_a_whitening_is_symmetric(generator: torch.Generator) -> None:
    root = normal(6, 3, generator=generator)
    whitening = whiten(root @ root.T)
    projector = whitening.backward @ whitening.forward
    torch.testing.assert_close(projector, projector.T, rtol=0, atol=1e-10)
    torch.testing.assert_close(projector @ projector, projector, rtol=0, atol=1e-10)
