"""The varimax rotation: its closed form, and what it leaves alone."""

import re
import warnings

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from interbasis.analysis.basis.rotation import degenerate_runs, pair_angle, rotate, sparsity
from interbasis.analysis.errors import NumericalError


def random_moments(seed: int, outputs: int, k: int, n: int = 5) -> np.ndarray:
    """E[J_oi J_oi'] of random Jacobians."""
    j = np.random.default_rng(seed).normal(size=(outputs, n, k))
    return np.einsum("oni,onj->oij", j, j) / n


@pytest.mark.parametrize("seed", range(20))
def test_closed_form_angle_equals_brute_force(seed: int) -> None:
    m = random_moments(seed, 4, 2)
    theta = pair_angle(m[:, 0, 0], m[:, 1, 1], m[:, 0, 1])
    found = reference.brute_force_angle(m[:, 0, 0], m[:, 1, 1], m[:, 0, 1])
    difference = abs(theta - found) % (np.pi / 2)
    assert min(difference, np.pi / 2 - difference) < 2 * (np.pi / 2) / 20000


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 7))
def test_result_is_orthogonal_and_no_pair_can_be_improved(seed: int, outputs: int, k: int) -> None:
    m = random_moments(seed, outputs, k)
    turn = rotate(m)
    np.testing.assert_allclose(turn.T @ turn, np.eye(k), atol=1e-12)
    turned = turn.T @ m @ turn
    assert sparsity(turned) >= sparsity(m) - 1e-9
    for i in range(k):
        for j in range(i + 1, k):
            assert abs(pair_angle(turned[:, i, i], turned[:, j, j], turned[:, i, j], 1e-14 * abs(m).max())) < 1e-7


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 8), st.integers(1, 12))
def test_sweeps_that_end_at_their_limit_say_so(seed: int, k: int, sweeps: int) -> None:
    m = random_moments(seed, 4, k)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            turn = rotate(m, sweeps)
        except NumericalError as error:
            refused = str(error)
        else:
            refused = ""
    if refused:
        assert re.search(rf"rotation of {k} coordinates .*sweep {sweeps}, the last", refused)
        return
    turned = turn.T @ m @ turn
    left = [
        abs(pair_angle(turned[:, i, i], turned[:, j, j], turned[:, i, j], 1e-14 * abs(m).max()))
        for i in range(k)
        for j in range(i + 1, k)
    ]
    assert said or max(left) < 1e-4  # one more turn of a pair moves others, so that angles may grow a little
    for warning in said:
        assert f"ended after {sweeps} sweeps" in str(warning.message)


def test_rotation_far_from_converged_raises_and_nearly_converged_warns() -> None:
    m = random_moments(3, 4, 6)
    with pytest.raises(
        NumericalError, match=r"sweep 1, the last, still turned a pair by .* rad and raised the criterion by"
    ):
        rotate(m, 1)
    seen = set()
    for sweeps in range(1, 200):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                rotate(m, sweeps)
        except NumericalError:
            seen.add("refused")
        except UserWarning:
            seen.add("warned")
        else:
            seen.add("converged")
            break
    assert seen == {"refused", "warned", "converged"}


def test_flat_criterion_is_left_alone() -> None:
    m = np.eye(3)[None].repeat(2, 0)
    np.testing.assert_array_equal(rotate(m), np.eye(3))


def test_runs_end_at_wide_gaps() -> None:
    values = np.array([8.0, 6.1, 4.0, 3.1, 1.0])
    assert degenerate_runs(values, 0.25) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert degenerate_runs(values, 0.0) == [slice(i, i + 1) for i in range(5)]
    assert degenerate_runs(values, np.inf) == [slice(0, 5)]
