"""Expected costs and null graphs keep every node's totals over all pairs of cuts, on possible edges only."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interbasis.analysis.edges import Edges
from interbasis.analysis.graph.expectation import Places, expected_costs, possible_edges
from interbasis.analysis.graph.null_graphs import degree_preserving_null, null_costs


def case(seed, *, positions=True, skip=True, widths=(5, 4, 6, 3)):
    """Random costs, four fifths of the possible ones, with the places of their nodes."""
    generator = np.random.default_rng(seed)
    ends = np.cumsum([0, *widths]).tolist()
    cuts = tuple(slice(a, b) for a, b in pairwise(ends))
    links = tuple((a, b) for b in range(len(widths)) for a in range(b) if skip or b == a + 1)
    where = generator.integers(0, 3, ends[-1]) if positions else None
    places = Places(cuts, links, where)
    matrices = []
    for a, b in links:
        x = generator.exponential(size=(widths[b], widths[a])) * (generator.random((widths[b], widths[a])) < 0.8)
        if where is not None:
            x *= where[cuts[b]][:, None] >= where[cuts[a]]
        matrices.append(x)
    return Edges.of(matrices, places.pairs), places


def whole(costs, places):
    """All costs as one matrix (later, earlier)."""
    found = np.zeros((places.n, places.n))
    found[costs.later, costs.earlier] = costs.weight
    return found


def outer(expected):
    """Expected costs as one matrix (later, earlier)."""
    n = len(expected.place)
    found = np.zeros((n, n))
    for j in range(n):
        for i in range(n):
            if expected.possible[expected.place[i], expected.place[j]]:
                found[j, i] = expected.earlier[i] * expected.later[j]
    return found


@pytest.mark.parametrize("positions", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_expected_costs_are_those_of_scaling_every_node_in_turn(seed, positions):
    costs, places = case(seed, positions=positions, widths=(12, 12, 12, 12))
    real = whole(costs, places)
    possible = outer(possible_edges(places))
    assert set(np.unique(possible)) <= {0.0, 1.0}
    found = possible.copy()
    for _ in range(3000):
        for axis in (0, 1):
            total = found.sum(axis, keepdims=True)
            found = found * np.divide(real.sum(axis, keepdims=True), total, out=np.zeros_like(total), where=total > 0)
    expected = outer(expected_costs(costs, places))
    np.testing.assert_allclose(expected, found, atol=1e-6 * real.max())
    np.testing.assert_allclose(expected.sum(0), real.sum(0), atol=1e-6 * real.max())
    assert not expected[possible == 0].any()
    labels = np.random.default_rng(seed).integers(-1, 3, places.n)
    members = labels == np.arange(3)[:, None]
    np.testing.assert_allclose(expected_costs(costs, places).between(labels, 3), members @ expected @ members.T)
    inside = np.trace(members @ expected @ members.T)
    assert expected_costs(costs, places).inside(labels, 3) == pytest.approx(inside)
    towards = expected[:, 5] + expected[5]
    np.testing.assert_allclose(expected_costs(costs, places).towards(5), towards)


def test_without_edges_that_skip_the_formula_of_each_pair_is_kept():
    costs, places = case(0, positions=False, skip=False)
    apart = np.zeros((places.n, places.n))
    for x, (a, b) in zip(costs.blocks(places.pairs), places.pairs, strict=True):
        apart[b, a] = np.outer(x.sum(1), x.sum(0)) / x.sum()
    np.testing.assert_allclose(outer(expected_costs(costs, places)), apart, rtol=1e-9)
    nulls = null_costs(costs, places, generator=np.random.default_rng(1)).blocks(places.pairs)
    generator = np.random.default_rng(1)
    for null, x in zip(nulls, costs.blocks(places.pairs), strict=True):
        np.testing.assert_array_equal(null, degree_preserving_null(x, generator=generator))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_null_graphs_keep_totals_and_possible_edges(seed, positions):
    costs, places = case(seed, positions=positions, widths=(8, 7, 9, 6))
    nulls = null_costs(costs, places, generator=np.random.default_rng(seed))
    real, null = whole(costs, places), whole(nulls, places)
    assert not null[outer(possible_edges(places)) == 0].any()
    for x, drawn in zip(costs.blocks(places.pairs), nulls.blocks(places.pairs), strict=True):
        assert ((x > 0).sum(0) == (drawn > 0).sum(0)).all()
        assert ((x > 0).sum(1) == (drawn > 0).sum(1)).all()
    for axis in (0, 1):
        np.testing.assert_allclose(null.sum(axis), real.sum(axis), rtol=1e-2, atol=1e-2)


def test_null_graphs_move_weights_and_repeat_by_seed():
    costs, places = case(3, widths=(12, 12, 12, 12))
    first, again, other = (null_costs(costs, places, generator=np.random.default_rng(s)) for s in (0, 0, 1))
    assert first == again
    edges = whole(costs, places) > 0
    for null in (first, other):
        assert np.corrcoef(whole(costs, places)[edges], whole(null, places)[edges])[0, 1] < 0.6
