"""The interaction surface and its polish: sums, values by hand, and the hub on which edges and mediators disagree."""

import numpy as np
import pytest
import reference_mediators as reference
from cases_graphs import planted
from hypothesis import given, settings
from hypothesis import strategies as st

from interbasis.analysis.graph import cost, quotient
from interbasis.analysis.graph.interaction_graph import InteractionGraph
from interbasis.analysis.modules.find_modules import find_modules, score_partition
from interbasis.analysis.modules.mediators import interaction_surface, polish_mediators

SKIPPING = [(0, 1), (1, 2), (0, 2)]
SEEDS = st.integers(0, 2**32 - 1)


def divided_graph(seed, widths, n_modules):
    """Three cuts, by chance with edges that skip one and a loss scale per pair; some nodes quiet, of these some -1."""
    generator = np.random.default_rng(seed)
    pairs = SKIPPING[: int(generator.integers(2, 4))]
    quiet = [generator.random(k) < 0.3 for k in widths]
    blocks = []
    for a, b in pairs:
        w = np.exp(1.2 * generator.standard_normal((widths[b], widths[a])))
        w = np.where(quiet[b][:, None] | quiet[a], np.minimum(w, 0.5), w)
        blocks.append(np.where(generator.random(w.shape) < 0.3, 0.0, w))
    graph = InteractionGraph.from_blocks(blocks, pairs=pairs)
    epsilon = tuple(generator.uniform(0.26, 2.0, len(pairs)).tolist()) if generator.random() < 0.5 else 0.7
    labels = [
        np.where(strong | (generator.random(k) < 0.5), generator.integers(0, n_modules, k), -1)
        for strong, k in zip(cost.has_edge(graph, epsilon), widths, strict=True)
    ]
    labels[0][0] = 0
    return graph, labels, epsilon


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.tuples(*[st.integers(1, 6)] * 3), st.integers(1, 4))
def test_costs_of_the_surface_sum_to_the_mediator_cost(seed, widths, n_modules):
    graph, labels, epsilon = divided_graph(seed, widths, n_modules)
    surface = interaction_surface(graph, labels, epsilon)
    assert sum(v.cost for v in surface) == pytest.approx(quotient.mediator_cost(graph, labels, epsilon), abs=1e-9)
    expected = reference.mediators(graph, labels, epsilon)
    found = {(v.earlier, v.later, v.cut, v.coordinate): v.strength for v in surface}
    assert {key: s for key, s in found.items() if s > 1 + 1e-9} == pytest.approx(
        {key: s for key, s in expected.items() if s > 1 + 1e-9}
    )


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.tuples(*[st.integers(1, 6)] * 3))
def test_links_hold_the_surface_of_each_ordered_pair_of_modules(seed, widths):
    graph, labels, epsilon = divided_graph(seed, widths, 3)
    surface = interaction_surface(graph, labels, epsilon)
    for link in quotient.module_links(graph, labels, epsilon):
        costs = [v.cost for v in surface if (v.earlier, v.later) == (link.earlier, link.later)]
        assert sum(costs) == pytest.approx(link.mediator_cost, abs=1e-9)


def test_surface_is_sorted_by_pair_of_modules_then_strength():
    # module 0 at cut 0 holds nodes 0 and 1, module 2 node 2; all feed module 1
    graph = InteractionGraph.from_blocks([[[0.2, 0.9, 0.5]]])
    surface = interaction_surface(graph, [np.array([0, 0, 2]), np.array([1])], 0.01)
    assert [(v.earlier, v.later, v.coordinate) for v in surface] == [(0, 1, 1), (0, 1, 0), (2, 1, 2)]
    assert [v.strength for v in surface] == pytest.approx([9.0, 2.0, 5.0])


@pytest.mark.parametrize(
    ("w", "full_strength", "gamma"),
    [
        (1.0, 1.0, 1.0),  # full strength: one whole degree of freedom
        (0.1, 1.0, 0.5),  # cutoff 0.01: log 10 / log 100
        (0.1, 10.0, 1 / 3),  # log 10 / log 1000
        (10.0, 1.0, 1.5),  # log 1000 / log 100
    ],
)
def test_gamma_by_hand(w, full_strength, gamma):
    graph = InteractionGraph.from_blocks([[[w]]])
    (v,) = interaction_surface(graph, [np.array([0]), np.array([1])], 1e-4, full_strength=full_strength)
    assert v.gamma == pytest.approx(gamma)
    assert v.gamma == pytest.approx(np.log(w / 0.01) / np.log(full_strength / 0.01))
    assert v.cost == pytest.approx(np.log(w / 0.01))


def test_gamma_is_one_minus_the_ratio_of_logs():
    # eq. 34 as the paper has it: 1 - 2 log w / log epsilon
    graph = InteractionGraph.from_blocks([[[0.3]]])
    (v,) = interaction_surface(graph, [np.array([0]), np.array([1])], 0.004)
    assert v.gamma == pytest.approx(1 - 2 * np.log(0.3) / np.log(0.004))


@pytest.mark.parametrize("epsilon", [1.0, 2.0])
def test_no_gamma_where_the_cutoff_is_not_below_full_strength(epsilon):
    graph = InteractionGraph.from_blocks([[[3.0]]])
    (v,) = interaction_surface(graph, [np.array([0]), np.array([1])], epsilon)
    assert v.gamma is None
    assert v.cost == pytest.approx(np.log(3.0 / np.sqrt(epsilon)))


def test_strengths_towards_two_cuts_add_in_units_of_their_cutoffs():
    # 0.06 / 0.01 and 0.8 / 0.1 in quadrature: 10; mean log of the inverse cutoffs 3/2 log 10
    graph = InteractionGraph.from_blocks([[[0.06]], [[0.0]], [[0.8]]], pairs=SKIPPING)
    (v,) = interaction_surface(graph, [np.array([0]), np.array([1]), np.array([1])], [1e-4, 1e-2, 1e-2])
    assert (v.cut, v.coordinate, v.strength) == (0, 0, pytest.approx(10.0))
    assert v.gamma == pytest.approx(np.log(10) / np.log(np.array([100, 10, 10])).mean())


def test_nothing_mediates_inside_one_module_or_below_the_cutoff():
    graph = InteractionGraph.from_blocks([np.full((2, 2), 0.5)])
    assert interaction_surface(graph, [np.zeros(2, int)] * 2, 0.01) == ()
    assert interaction_surface(graph, [np.array([0, 0]), np.array([1, 1])], 0.6) == ()  # sqrt(.5) < sqrt(.6)
    assert len(interaction_surface(graph, [np.array([0, 0]), np.array([1, 1])], 0.4)) == 2  # .5 < sqrt(.4) < sqrt(.5)


def test_labels_of_no_module_at_all():
    graph, labels = InteractionGraph.from_blocks([np.full((2, 2), 0.1)]), [np.full(2, -1)] * 2
    assert quotient.mediator_cost(graph, labels, 1.0) == 0.0
    assert interaction_surface(graph, labels, 1.0) == ()
    polished = polish_mediators(graph, labels, 1.0, generator=np.random.default_rng(0))
    assert [a.tolist() for a in polished] == [[-1, -1]] * 2


def hub_graph(n_b=5):
    """Cutoff 1. A and B are complete, strengths e^2; a hub feeds 2 nodes of A with e^2 and 5 of B with e.

    Cut 0: 5 nodes of A, n_b of B, the hub; cut 1: 5 of A, 5 of B.
    """
    a0, b0 = np.repeat([0, 1], [5, n_b]), np.repeat([0, 1], 5)
    hub = np.exp([[2.0], [2.0], *[[-np.inf]] * 3, *[[1.0]] * 5])
    block = np.hstack([np.where(b0[:, None] == a0, np.exp(2.0), 0.0), hub])
    return InteractionGraph.from_blocks([block]), lambda side: [np.append(a0, side), b0]


# The hub in B: edges to A cost 2 * 2; one mediator, sqrt(2) e^2 towards A.
# The hub in A: edges to B cost 5 * 1; one mediator, sqrt(5) e towards B.
IN_A = {"edge_cost": 5.0, "mediator_cost": 1 + np.log(5) / 2}  # 1.80
IN_B = {"edge_cost": 4.0, "mediator_cost": 2 + np.log(2) / 2}  # 2.35


@pytest.mark.parametrize(("side", "expected"), [(0, IN_A), (1, IN_B)])
def test_hub_costs_by_hand(side, expected):
    graph, labels = hub_graph()
    part = score_partition(graph, labels(side), 1.0)
    assert (part.edge_cost, part.mediator_cost) == pytest.approx((expected["edge_cost"], expected["mediator_cost"]))
    for name, value in expected.items():
        assert getattr(reference, name)(graph, labels(side), 1.0) == pytest.approx(value)
    (v,) = part.mediators
    assert (v.cut, v.coordinate) == (0, 10)


@pytest.mark.parametrize("options", [{"resolution": 1.0}, {"k": 2}])
def test_edges_put_the_hub_in_b_and_the_polish_in_a(options):
    graph, labels = hub_graph()
    by_edges = find_modules(graph, epsilon=1.0, **options)
    assert by_edges.edge_cost == pytest.approx(IN_B["edge_cost"])
    assert by_edges.labels[0][10] == by_edges.labels[1][9]
    polished = find_modules(graph, epsilon=1.0, mediator_polish=True, **options)
    assert polished.polished
    assert not by_edges.polished
    assert (polished.edge_cost, polished.mediator_cost) == pytest.approx((IN_A["edge_cost"], IN_A["mediator_cost"]))
    assert polished.labels[0][10] == polished.labels[1][0]
    moved = polish_mediators(graph, labels(1), 1.0, generator=np.random.default_rng(0))
    assert [a.tolist() for a in moved] == [a.tolist() for a in labels(0)]


def test_hub_stays_where_its_module_may_not_shrink():
    # B holds 3 + 1 nodes at cut 0: 20 % of that is less than a node
    graph, labels = hub_graph(n_b=3)
    polished = polish_mediators(graph, labels(1), 1.0, generator=np.random.default_rng(0))
    assert [a.tolist() for a in polished] == [a.tolist() for a in labels(1)]


@pytest.mark.parametrize("options", [{"resolution": 1.0}, {"k": 2}])
def test_polish_keeps_pins(options):
    # the hub is pinned to node 5 of B, node 0 of A apart from it
    graph, _ = hub_graph()
    pins = [np.array([0, *[-1] * 4, 1, *[-1] * 4, 1]), np.full(10, -1)]
    part = find_modules(graph, epsilon=1.0, pins=pins, mediator_polish=True, **options)
    assert part.labels[0][0] != part.labels[0][5] == part.labels[0][10]


@pytest.mark.parametrize("options", [{"resolution": 1.0}, {"k": 2}])
def test_polish_keeps_the_largest_size(options):
    # A and B with the hub have 10 nodes each
    graph, _ = hub_graph(n_b=4)
    part = find_modules(graph, epsilon=1.0, max_size=10, mediator_polish=True, **options)
    assert [module.size for module in part.modules] == [10, 10]


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.tuples(*[st.integers(11, 16)] * 3), st.integers(1, 2))
def test_polish_descends_within_its_bounds_to_a_local_minimum(seed, widths, n_modules):
    graph, labels, epsilon = divided_graph(seed, widths, n_modules)
    polished = polish_mediators(graph, labels, epsilon, generator=np.random.default_rng(seed))
    after = reference.mediator_cost(graph, polished, epsilon)
    assert after <= reference.mediator_cost(graph, labels, epsilon) + 1e-9
    for old, new in zip(labels, polished, strict=True):
        np.testing.assert_array_equal(old == -1, new == -1)
        assert all(reference.within(old, new, name, 0.2) for name in range(n_modules))
        assert set(new.tolist()) <= set(old.tolist())
    moves = reference.single_moves(labels, polished)
    assert min((reference.mediator_cost(graph, moved, epsilon) for moved in moves), default=after) >= after - 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_polish_moves_something_on_random_labels(seed):
    graph, labels, epsilon = divided_graph(seed, (14, 14, 14), 2)
    polished = polish_mediators(graph, labels, epsilon, generator=np.random.default_rng(0))
    assert quotient.mediator_cost(graph, polished, epsilon) < quotient.mediator_cost(graph, labels, epsilon) - 0.1


def test_polish_leaves_its_input_and_repeats_for_a_seed():
    graph, labels, epsilon = divided_graph(1, (14, 12, 13), 2)
    before = [a.copy() for a in labels]
    first, second = (polish_mediators(graph, labels, epsilon, generator=np.random.default_rng(7)) for _ in range(2))
    for a, b, old, kept in zip(first, second, labels, before, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(old, kept)


def test_polish_keeps_the_names_of_modules():
    graph, labels = hub_graph()
    renamed = [np.array([7, 3])[a] for a in labels(1)]
    polished = polish_mediators(graph, renamed, 1.0, generator=np.random.default_rng(0))
    assert [a.tolist() for a in polished] == [np.array([7, 3])[a].tolist() for a in labels(0)]


@pytest.mark.parametrize("seed", range(3))
def test_polish_of_found_modules_lowers_the_mediator_cost_or_leaves_them(seed):
    graph, _ = planted((10, 10), seed=seed, noise=-0.3)
    plain = find_modules(graph, epsilon=1.0, resolution=1.0, seed=seed)
    polished = find_modules(graph, epsilon=1.0, resolution=1.0, seed=seed, mediator_polish=True)
    assert polished.mediator_cost <= plain.mediator_cost + 1e-9
    assert polished.n_modules == plain.n_modules
