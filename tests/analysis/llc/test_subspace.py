"""Coefficients on linear subspaces of the parameters: the span alone counts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from interbasis.analysis import Network, Sampler, learning_coefficient, learning_coefficient_curve
from interbasis.analysis.errors import InputError
from interbasis.analysis.llc.landscape import Function, Landscape
from interbasis.analysis.llc.network_loss import behavioural_loss
from interbasis.analysis.llc.subspace import Restricted, Subspace, orthonormal_basis

BOWL = torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0], dtype=torch.float64)


def bowl() -> Function:
    return Function(lambda w: (BOWL * w**2).sum(), torch.zeros(5, dtype=torch.float64))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def net() -> Network:
    torch.manual_seed(0)
    return Network(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double(), ["0", "1", "2"])


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_the_basis_depends_on_the_span_alone(d: int, k: int, seed: int) -> None:
    directions = drawn(d, min(k, d), seed=seed)
    mixed = directions @ (drawn(min(k, d), min(k, d), seed=seed + 1) + 4 * torch.eye(min(k, d), dtype=torch.float64))
    basis = orthonormal_basis(directions)
    torch.testing.assert_close(basis.T @ basis, torch.eye(min(k, d), dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(basis @ basis.T @ directions, directions, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(orthonormal_basis(mixed), basis, rtol=1e-6, atol=1e-6)


def test_the_basis_of_everything_is_the_identity_and_of_nothing_is_empty() -> None:
    torch.testing.assert_close(orthonormal_basis(drawn(4, 4)), torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-12)
    assert orthonormal_basis(torch.zeros(4, 2)).shape == (4, 0)
    assert orthonormal_basis(torch.tensor([[1.0, 2.0], [1.0, 2.0]])).shape == (2, 1)  # one direction, given twice


def test_project_and_lift_are_those_of_the_joined_bases() -> None:
    first, second = torch.tensor([0, 2]), torch.tensor([1, 4])
    space = Subspace.joined([Subspace.on(first, drawn(2, 1)), Subspace.on(second)])
    matrix = torch.zeros(5, 3, dtype=torch.float64)
    matrix[first, :1] = orthonormal_basis(drawn(2, 1))
    matrix[second, 1:] = torch.eye(2, dtype=torch.float64)
    vectors, coordinates = drawn(4, 5), drawn(4, 3)
    torch.testing.assert_close(space.project(vectors), vectors @ matrix)
    torch.testing.assert_close(space.lift(coordinates, 5), coordinates @ matrix.T)


def test_a_restricted_loss_has_the_values_and_derivatives_of_the_whole() -> None:
    whole: Landscape = behavioural_loss(net(), [drawn(20, 2)])
    inside = Restricted(whole, Subspace.spanned_by(drawn(len(whole.start), 4)))
    z = inside.start + 0.1 * drawn(3, 4)
    value, slope = inside.evaluate(z)
    at, gradient = whole.evaluate(inside.parameters(z))
    torch.testing.assert_close(value, at)
    torch.testing.assert_close(slope, inside.subspace.project(gradient))
    eye = torch.eye(4, dtype=torch.float64)
    by_rows = sum(block.T @ block for block in inside.rows(inside.start))
    torch.testing.assert_close(inside.product(inside.start, eye), by_rows)
    torch.testing.assert_close(inside.parameters(inside.start[None])[0], whole.start)


def test_directions_of_a_bowl_count_one_half_each() -> None:
    sampler = Sampler(gamma=1.0, chains=2, warmup=60, draws=120)

    def value(directions: Tensor) -> float:
        return learning_coefficient(bowl(), temperature=1e5, subspace=directions, sampler=sampler).value

    eye = torch.eye(5, dtype=torch.float64)
    assert value(eye[:, :2]) == pytest.approx(1.0, abs=0.01)
    assert value(eye[:, 2:]) == pytest.approx(0.5, abs=0.01)  # two of the three are free
    assert value(eye[:, 3:]) == pytest.approx(0.0, abs=0.01)
    assert value((eye[:, 0] + eye[:, 3])[:, None]) == pytest.approx(0.5, abs=0.01)


def test_the_whole_space_is_the_plain_coefficient_in_any_basis() -> None:
    x, short = [drawn(40, 2)], Sampler(chains=2, warmup=60, draws=100)
    d = len(behavioural_loss(net(), x).start)
    plain = learning_coefficient(net(), x, temperature=1e5, sampler=short)
    for directions, far in ((torch.eye(d, dtype=torch.float64), 1e-4), (drawn(d, d), 0.01)):  # rounding grows in chains
        found = learning_coefficient(net(), x, temperature=1e5, subspace=directions, sampler=short)
        assert found.value == pytest.approx(plain.value, rel=far)
        assert found.gamma == pytest.approx(plain.gamma)
        assert found.names == plain.names


def test_an_invertible_change_of_directions_changes_nothing() -> None:
    x, short = [drawn(40, 2)], Sampler(chains=2, warmup=60, draws=100)
    given, mixing = drawn(17, 5), drawn(5, 5, seed=3)
    values = [
        learning_coefficient(net(), x, temperature=1e5, subspace=one, sampler=short).value
        for one in (given, given @ mixing)
    ]
    assert values[0] == pytest.approx(values[1], rel=0.01)


def test_directions_by_name_are_those_of_the_matrix() -> None:
    x, short = [drawn(40, 2)], Sampler(chains=2, warmup=60, draws=100)
    by_name = {"2.bias": drawn(2, 2), "2.weight": drawn(2, 2, 3, seed=1)}
    matrix = torch.zeros(17, 2, dtype=torch.float64)
    matrix[9:15], matrix[15:17] = by_name["2.weight"].flatten(1).T, by_name["2.bias"].T
    found = [learning_coefficient(net(), x, temperature=1e5, subspace=one, sampler=short) for one in (by_name, matrix)]
    assert found[0].value == pytest.approx(found[1].value, rel=1e-6)
    assert found[0].names == ("2.weight", "2.bias")
    assert found[0].n_parameters == 2


def test_a_subspace_of_dimension_zero_has_coefficient_zero() -> None:
    found = learning_coefficient(bowl(), epsilon=0.01, subspace=torch.zeros(5, 2))
    assert (found.value, found.standard_error, found.interval, found.verdict) == (0.0, 0.0, (0.0, 0.0), "reliable")
    assert found.epsilon == pytest.approx(0.01)
    curve = learning_coefficient_curve(bowl(), epsilons=[0.1, 0.2], subspace=Subspace(()))
    assert curve.values.tolist() == [0.0, 0.0]
    assert type(found).from_bytes(found.to_bytes()) == found


def test_directions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="of other parameters: 5 are varied"):
        learning_coefficient(bowl(), temperature=1.0, subspace=torch.eye(4))
    with pytest.raises(InputError, match="expected a matrix"):
        learning_coefficient(bowl(), temperature=1.0, subspace=torch.full((5, 1), torch.nan))
    with pytest.raises(InputError, match="expected \\(directions, \\*shape"):
        learning_coefficient(net(), [drawn(9, 2)], temperature=1.0, subspace={"2.bias": drawn(1, 3)})
