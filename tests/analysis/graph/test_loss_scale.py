"""The loss scale: what is lost below the cutoff, valleys, scaling, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from interbasis.analysis.errors import GraphError
from interbasis.analysis.graph.interaction_graph import InteractionGraph
from interbasis.analysis.graph.loss_scale import choose_epsilon, default_epsilon, strength_distribution

BLOCKS = [np.diag([5.0, 5.0]), np.diag([2.0, 2.0])]
GRAPH = InteractionGraph.from_blocks(BLOCKS)
SEEDS = st.integers(0, 2**32 - 1)


def normal_grid(centre, spread, n):
    """Strengths whose log10 are the quantiles of a normal distribution."""
    return 10 ** (centre + spread * norm.ppf((np.arange(n) + 0.5) / n))


def log_normal_blocks(seed):
    generator = np.random.default_rng(seed)
    spread = generator.uniform(0.3, 4.0)
    return [np.exp(spread * generator.standard_normal((9, 9))) * (generator.random((9, 9)) < 0.8) for _ in range(2)]


def lost(blocks, cutoff):
    w = np.concatenate([b.ravel() for b in blocks])
    return float((w[w < cutoff] ** 2).sum() / (w**2).sum())


def test_equal_strengths_are_cut_at_a_fiftieth():
    assert default_epsilon(InteractionGraph.from_blocks([np.diag([5.0, 5.0])])) == pytest.approx(0.1**2)


def test_cutoff_by_hand_where_a_share_is_lost():
    # squares 1, 1e-4 (20 of them, share .002) and, far below, 1e-12: the share reaches .003 only at the strongest,
    # so that a fiftieth of it is the bound; with 40 of them the share .004 is reached at 0.01, where they lie
    few, many = (np.concatenate([[1.0], 0.01 * 1.001 ** np.arange(-k // 2, k // 2), [1e-6]]) for k in (20, 40))
    assert strength_distribution([few[None]]).cutoff == pytest.approx(0.02)
    assert strength_distribution([many[None]]).cutoff == pytest.approx(0.01, rel=0.03)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_little_is_lost_below_the_cutoff(seed):
    blocks = log_normal_blocks(seed)
    cutoff = strength_distribution(blocks).cutoff
    w = np.sort(np.concatenate([b[b > 0] for b in blocks]))
    share = np.cumsum(w**2) / (w**2).sum()
    middle = min(w[np.searchsorted(share, 3e-3)], 0.02 * w[-1])
    assert lost(blocks, middle) <= 3e-3
    moved = not np.isclose(cutoff, middle, rtol=1e-9)
    assert lost(blocks, cutoff * (1 - 1e-9)) <= 3e-3 or moved
    assert 0.5 * (1 - 1e-9) <= cutoff / middle <= 2 * (1 + 1e-9)


def test_strengths_that_are_equal_are_not_lost_together():
    # one edge of 60 and a hundred of 1: these carry 100 / 3700 = 2.7 % of the squared strength
    w = np.where(np.arange(101) == 0, 60.0, 1.0)[None]
    epsilon = default_epsilon(InteractionGraph.from_blocks([w]))
    assert (w[w <= np.sqrt(epsilon)] ** 2).sum() / (w**2).sum() <= 3e-3


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.floats(1e-3, 1e3))
def test_cutoff_scales_with_the_strengths(seed, factor):
    blocks = log_normal_blocks(seed)
    plain, scaled = (strength_distribution([s * b for b in blocks]) for s in (1.0, factor))
    assert scaled.cutoff == pytest.approx(factor * plain.cutoff)
    np.testing.assert_allclose(scaled.log10, plain.log10 + np.log10(factor), atol=1e-9)
    np.testing.assert_allclose(scaled.density, plain.density, atol=1e-3)


def test_scaled_strengths_have_the_same_edges():
    differ = []
    for seed in range(60):
        blocks = log_normal_blocks(seed)
        counts = set()
        for factor in (1.0, 3.0, 0.1):
            graph = InteractionGraph.from_blocks([factor * b for b in blocks])
            counts.add(graph.n_edges(default_epsilon(graph)))
        differ += [seed] * (len(counts) > 1)
    assert differ == []


def test_order_and_division_into_blocks_do_not_matter():
    blocks = log_normal_blocks(0)
    mixed = np.random.default_rng(1).permutation(np.concatenate([b.ravel() for b in blocks]))
    assert strength_distribution([mixed[None]]).cutoff == pytest.approx(strength_distribution(blocks).cutoff)


def test_valley_between_two_clusters_is_found():
    # equal clusters about 10^-2.1 and 10^-0.6: by symmetry the density between them is least at 10^-1.35. The
    # strongest is 10^0.3, so that the middle, a fiftieth of it, is 10^-1.4, in reach of the valley.
    clusters = [normal_grid(centre, 0.3, 400) for centre in (-2.1, -0.6)]
    clusters[1][-1] = 10**0.3
    found = strength_distribution([np.concatenate(clusters)[None]])
    assert np.log10(found.cutoff) == pytest.approx(-1.35, abs=0.03)
    weak, strong = ((c > found.cutoff).mean() for c in clusters)
    assert weak < 0.01 < 0.99 < strong


def test_valley_out_of_reach_is_left_alone():
    # the same clusters further apart in strength: the valley is at 10^-2.35, the middle at 10^-1.4
    clusters = [normal_grid(centre, 0.3, 400) for centre in (-4.1, -0.6)]
    clusters[1][-1] = 10**0.3
    found = strength_distribution([np.concatenate(clusters)[None]])
    assert found.cutoff == pytest.approx(10**0.3 / 50)


def test_one_cluster_has_no_valley():
    w = np.append(normal_grid(-1.4, 0.3, 400), 10**0.3)
    found = strength_distribution([w[None]])
    share = np.cumsum(np.sort(w) ** 2) / (w**2).sum()
    assert found.cutoff == pytest.approx(min(np.sort(w)[np.searchsorted(share, 3e-3)], 10**0.3 / 50))


def test_distribution_is_a_density_and_a_share():
    w = normal_grid(-0.5, 0.4, 500)
    found = strength_distribution([w[None]])
    assert (np.diff(found.log10) > 0).all()
    assert (np.diff(found.carried) >= 0).all()
    assert found.carried[-1] == pytest.approx(1.0)
    # the kernel has bandwidth .15: N(-.5, sqrt(.4^2 + .15^2)), up to the finite sample
    expected = norm.pdf(found.log10, -0.5, np.hypot(0.4, 0.15))
    np.testing.assert_allclose(found.density, expected, atol=0.01)


@pytest.mark.parametrize(
    ("epsilon", "per_pair", "source", "full_strength"),
    [
        (0.3, (0.3, 0.3), "given", 1.0),
        ([0.3, 0.4], (0.3, 0.4), "given per pair", 1.0),
        ((0.3, 0.3), (0.3, 0.3), "given per pair", 1.0),
        ("graph", (0.01, 0.01), "graph", 5.0),
        (None, (0.01, 0.01), "graph", 5.0),
        ("pairs", (0.01, 0.04**2), "pairs", 5.0),
    ],
)
def test_sources(epsilon, per_pair, source, full_strength):
    scale = choose_epsilon(GRAPH, epsilon)
    assert scale.per_pair == pytest.approx(per_pair)
    assert (scale.source, scale.full_strength) == (source, full_strength)
    assert scale.normalisable


def test_one_number_for_several_pairs_is_the_geometric_mean():
    assert choose_epsilon(GRAPH, [0.1, 0.4]).epsilon == pytest.approx(0.2)
    assert choose_epsilon(GRAPH, [0.1, 0.1]).epsilon == 0.1


def test_normalisable_where_every_cutoff_is_below_full_strength():
    assert not choose_epsilon(GRAPH, 1.0).normalisable
    assert not choose_epsilon(GRAPH, [0.5, 2.0]).normalisable
    assert choose_epsilon(GRAPH, [0.5, 0.9]).normalisable


def test_pair_without_strengths_takes_the_scale_of_the_graph():
    graph = InteractionGraph.from_blocks([BLOCKS[0], np.zeros((2, 2))])
    assert choose_epsilon(graph, "pairs").per_pair == pytest.approx((0.01, 0.01))


@pytest.mark.parametrize(
    ("epsilon", "message"),
    [
        (0.0, "epsilon is 0"),
        (-1.0, "epsilon is -1"),
        (float("nan"), "epsilon is nan"),
        (float("inf"), "epsilon is inf"),
        ([0.1, 0.0], "epsilon is 0"),
        ([0.1, float("nan")], "epsilon is nan"),
        ([0.1], "1 loss scales were given: expected one, or one for each of 2 pairs"),
        ([0.1] * 3, "3 loss scales"),
        ([], "0 loss scales"),
        ("layers", "epsilon is 'layers': expected a number, one per pair of cuts, 'graph' or 'pairs'"),
        (25.0, "no edge above the cutoff sqrt.epsilon. = 5: the strongest strength is 5; choose a smaller epsilon"),
        ([25.0, 4.0], "no edge above the cutoff"),
    ],
)
def test_bad_epsilon(epsilon, message):
    with pytest.raises(GraphError, match=message):
        choose_epsilon(GRAPH, epsilon)


@pytest.mark.parametrize("epsilon", [None, "graph", "pairs"])
def test_strengths_that_are_all_zero(epsilon):
    with pytest.raises(GraphError, match="all strengths of the graph are 0"):
        choose_epsilon(InteractionGraph.from_blocks([np.zeros((2, 3))]), epsilon)
