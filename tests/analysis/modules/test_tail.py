"""p-values beyond ranks: right for exponential tails, too large for lighter ones, none where nothing can be said."""

import numpy as np
import pytest
from cases_graphs import planted
from scipy.stats import gumbel_r, norm

from interbasis.analysis import find_modules
from interbasis.analysis.modules.partition import Partition
from interbasis.analysis.modules.tail import tail_p_value


@pytest.mark.parametrize(
    ("draw", "value", "truth", "low", "high"),
    [
        ("exponential", 10.0, np.exp(-10.0), -0.5, 0.7),
        ("gumbel", 9.0, gumbel_r.sf(9.0), -0.5, 0.7),
        ("standard_normal", 4.0, norm.sf(4.0), 0.5, 2.0),  # lighter than any tail that is fitted: too large
    ],
)
def test_estimates_are_near_the_truth_or_too_large(draw, value, truth, low, high):
    generator = np.random.default_rng(0)
    found = [tail_p_value(value, getattr(generator, draw)(size=200)) for _ in range(25)]
    errors = [np.log10(p / truth) for p in found if p is not None]
    assert len(errors) >= 20
    assert low < np.median(errors) < high


def test_nothing_is_said_without_many_null_values_or_within_them():
    nulls = np.random.default_rng(0).exponential(size=200)
    assert tail_p_value(20.0, nulls[:99]) is None
    assert tail_p_value(float(nulls.max()), nulls) is None
    assert tail_p_value(20.0, np.zeros(200)) is None
    for value, drawn in ((np.inf, nulls), (20.0, np.append(nulls, np.nan))):
        assert tail_p_value(value, drawn) is None
    assert tail_p_value(1e6, nulls) == 1e-12


def test_the_seed_is_stored_in_no_global_state():
    nulls = np.random.default_rng(1).gumbel(size=150)
    assert tail_p_value(15.0, nulls) == tail_p_value(15.0, nulls)


def test_a_division_says_that_its_p_value_is_an_estimate():
    graph, _ = planted((8, 8), n_cuts=3, seed=0)
    part = find_modules(graph, epsilon=1.0, n_null=100)
    assert part.verdict == "supported"
    assert part.p_value == pytest.approx(1 / 101)
    assert 0 < part.tail_p < part.p_value
    assert f"by a Pareto tail about {part.tail_p:.1g}" in part.reason
    assert Partition.from_bytes(part.to_bytes()) == part
    assert find_modules(graph, epsilon=1.0).tail_p is None
