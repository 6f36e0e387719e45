import json
from itertools import pairwise

import numpy as np
import pytest
import reference_cost as reference
from cases_graphs import planted, unstructured
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from interbasis.analysis import score_partition
from interbasis.analysis.errors import GraphError
from interbasis.analysis.exchange.graph_files import export
from interbasis.analysis.graph import cost, quotient
from interbasis.analysis.graph.interaction_graph import InteractionGraph
from interbasis.analysis.graph.null_graphs import degree_preserving_null
from interbasis.analysis.search import objectives

OBJECTIVES = pytest.mark.parametrize("objective", objectives.OBJECTIVES)
ARGUMENTS = {"epsilon": 0.5, "resolution": 0.8}


CASES = st.tuples(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.integers(0, 2**32 - 1))


def divided_graph(widths, seed):
    """A small graph, some strengths 0 and some below the cutoff, edges that skip cuts, and labels for it."""
    generator = np.random.default_rng(seed)
    pairs = list(pairwise(range(len(widths))))
    pairs += [(0, cut) for cut in range(2, len(widths)) if generator.random() < 0.5]
    blocks = []
    for a, b in pairs:
        shape = widths[b], widths[a]
        strengths = np.exp(1.5 * generator.standard_normal(shape))
        blocks.append(np.where(generator.random(shape) < 0.2, 0.0, strengths))
    return InteractionGraph.from_blocks(blocks, pairs=pairs), [generator.integers(0, 4, k) for k in widths]


def test_cost_of_one_interaction():
    w = np.array([[0.0, 1e-300, 0.01], [0.1, 0.2, 1.0]])
    expected = [[0, 0, 0], [0, np.log(2), np.log(10)]]
    np.testing.assert_allclose(cost.interaction_cost(w, 0.01), expected, atol=1e-14)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, np.nan, np.inf])
def test_epsilon_out_of_range(epsilon):
    with pytest.raises(GraphError, match="epsilon is"):
        cost.interaction_cost(np.ones(2), epsilon)


def test_normalised_is_the_papers_formula():
    w, epsilon = 0.3, 0.004
    expected = 1 - 2 * np.log(w) / np.log(epsilon)
    assert cost.normalised(float(cost.interaction_cost(np.array(w), epsilon)), epsilon) == pytest.approx(expected)


@pytest.mark.parametrize("epsilon", [1.0, 2.0])
def test_normalised_needs_epsilon_below_full_strength(epsilon):
    with pytest.raises(GraphError, match="choose epsilon < 1"):
        cost.normalised(1.0, epsilon)
    assert cost.normalised(np.log(2), epsilon, full_strength=2 * np.sqrt(epsilon)) == pytest.approx(1.0)


def test_two_squares_joined_by_one_edge():
    # two modules of 2 + 2 nodes, all four edges inside each, one edge between them; every edge costs 1
    block = np.kron(np.eye(2), np.ones((2, 2)))
    block[0, 3] = 1.0
    graph, epsilon = InteractionGraph.from_blocks([block]), np.exp(-2.0)
    labels = [np.array([0, 0, 1, 1])] * 2
    assert quotient.edge_cost(graph, labels, epsilon) == pytest.approx(1.0)
    assert quotient.mediator_cost(graph, labels, epsilon) == pytest.approx(1.0)
    division = quotient.Division(graph, labels, epsilon)
    assert division.inner_costs == pytest.approx({0: 4.0, 1: 4.0})
    assert division.outer_costs == pytest.approx({0: 1.0, 1: 1.0})
    # out (4, 5), in (5, 4), m = 9: modularity 8 - (4 * 5 + 5 * 4) / 9, expected between 9 - 40 / 9
    options = {"objective": "layered_modularity", "resolution": 1.0}
    assert objectives.quality(graph, labels, epsilon, **options) == pytest.approx(8 - 40 / 9)
    options = {"objective": "layered_cpm", "resolution": 0.5}
    assert objectives.quality(graph, labels, epsilon, **options) == pytest.approx(8 - 0.5 * 8)
    assert quotient.contrast(graph, labels, epsilon) == pytest.approx(1 - 9 / 41)
    (link,) = quotient.module_links(graph, labels, epsilon)
    assert (link.earlier, link.later, link.n_edges) == (1, 0, 1)


def test_mediator_adds_edges_below_the_cutoff_in_quadrature():
    graph = InteractionGraph.from_blocks([np.array([[1.0], [0.3], [0.4]])])
    labels = [np.array([0]), np.array([0, 1, 1])]
    assert quotient.edge_cost(graph, labels, 0.2) == 0.0
    assert quotient.mediator_cost(graph, labels, 0.2) == pytest.approx(np.log(0.5 / np.sqrt(0.2)))


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_costs_equal_the_loops(case):
    graph, labels = divided_graph(*case)
    try:
        reference.expected(graph, 0.5)
    except reference.NotSettledError:
        reject()
    for name in ("edge_cost", "mediator_cost", "contrast"):
        expected = getattr(reference, name)(graph, labels, 0.5)
        assert getattr(quotient, name)(graph, labels, 0.5) == pytest.approx(expected, abs=1e-6), name
    for objective in objectives.OBJECTIVES:
        expected = reference.quality(graph, labels, 0.5, objective, 0.8)
        assert objectives.quality(graph, labels, **ARGUMENTS, objective=objective) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_parts_sum_to_the_whole(case):
    graph, labels = divided_graph(*case)
    links = quotient.module_links(graph, labels, 0.5)
    division = quotient.Division(graph, labels, 0.5)
    inner, outer = division.inner_costs, division.outer_costs
    total = sum(x.sum() for x in cost.graph_costs(graph, 0.5))
    assert sum(inner.values()) + sum(outer.values()) / 2 == pytest.approx(total)
    assert sum(outer.values()) / 2 == pytest.approx(quotient.edge_cost(graph, labels, 0.5))
    assert sum(link.mediator_cost for link in links) == pytest.approx(quotient.mediator_cost(graph, labels, 0.5))


@settings(max_examples=60, deadline=None)
@given(CASES, st.integers(0, 2**32 - 1), st.sampled_from(list(objectives.OBJECTIVES)))
def test_gain_of_a_move_is_after_minus_before(case, seed, objective):
    graph, labels = divided_graph(*case)
    generator = np.random.default_rng(seed)
    cut = int(generator.integers(len(labels)))
    node, module = int(generator.integers(len(labels[cut]))), int(generator.integers(6))
    gain = objectives.move_gain(graph, labels, (cut, node), module, **ARGUMENTS, objective=objective)
    before = objectives.quality(graph, labels, **ARGUMENTS, objective=objective)
    labels[cut][node] = module
    after = objectives.quality(graph, labels, **ARGUMENTS, objective=objective)
    assert gain == pytest.approx(after - before, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(CASES, st.integers(0, 2**32 - 1))
def test_order_of_nodes_and_names_of_modules_do_not_matter(case, seed):
    graph, labels = divided_graph(*case)
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(k) for k in graph.widths]
    names = generator.permutation(20)
    blocks = [w[np.ix_(orders[b], orders[a])] for (a, b), w in zip(graph.pairs, graph.blocks, strict=True)]
    moved = InteractionGraph.from_blocks(blocks, pairs=graph.pairs)
    renamed = [names[a[order]] for a, order in zip(labels, orders, strict=True)]
    for name in ("edge_cost", "mediator_cost", "contrast"):
        value = getattr(quotient, name)
        assert value(moved, renamed, 0.5) == pytest.approx(value(graph, labels, 0.5), abs=1e-9)
    for objective in objectives.OBJECTIVES:
        q = [
            objectives.quality(*pair, **ARGUMENTS, objective=objective) for pair in ((moved, renamed), (graph, labels))
        ]
        assert q[0] == pytest.approx(q[1], abs=1e-9)


@OBJECTIVES
@pytest.mark.parametrize("resolution", [-0.1, np.nan, np.inf])
def test_bad_resolution(objective, resolution):
    graph = InteractionGraph.from_blocks([np.ones((2, 2))])
    with pytest.raises(GraphError, match="resolution is"):
        objectives.quality(graph, [[0, 1], [0, 1]], 0.1, objective=objective, resolution=resolution)


def test_unknown_objective_lists_the_known_ones():
    with pytest.raises(GraphError, match="layered_cpm, layered_modularity, kway, cpm, modularity"):
        objectives.find_objective("surprise")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0, 1]], "shapes"),
        ([[0, 1], [0, 1, 1]], "shapes"),
        ([[0, 1], [0.5, 1.0]], "integers"),
        ([[0, -2], [0, 1]], "smallest label is -2"),
        ([[0, -1], [0, 1]], "node 1 of cut '0' has no module"),
    ],
)
def test_bad_labels(labels, message):
    with pytest.raises(GraphError, match=message):
        quotient.edge_cost(InteractionGraph.from_blocks([np.ones((2, 2))]), labels, 0.1)


@pytest.mark.parametrize(("node", "module"), [((2, 0), 0), ((0, 2), 0), ((-1, 0), 0), ((0, 0), -1)])
def test_bad_move(node, module):
    graph = InteractionGraph.from_blocks([np.ones((2, 2))])
    with pytest.raises(GraphError, match="cannot move"):
        objectives.move_gain(graph, [[0, 0]] * 2, node, module, 0.1, objective="layered_cpm", resolution=1.0)


@pytest.mark.parametrize("kind", ["uniform", "sparse", "hubs", "decay"])
def test_null_keeps_degrees_and_totals(kind):
    """On this sparse graph about one draw in eight misses a total, because its edges leave no freedom (of 200, 25)."""
    x = cost.graph_costs(unstructured(kind, seed=0), 1.0)[0]
    kept = []
    for seed in range(20):
        null = degree_preserving_null(x, generator=np.random.default_rng(seed))
        for axis in (0, 1):
            np.testing.assert_array_equal((null > 0).sum(axis), (x > 0).sum(axis))
        kept.append(all(np.allclose(null.sum(axis), x.sum(axis), rtol=1e-2) for axis in (0, 1)))
    assert sum(kept) >= (15 if kind == "sparse" else 20)


def test_null_destroys_modules():
    graph, labels = planted((10, 10), seed=0)
    x = cost.graph_costs(graph, 1.0)[0]
    same = labels[1][:, None] == labels[0]
    nulls = [degree_preserving_null(x, generator=np.random.default_rng(seed)) for seed in range(20)]
    assert x[same].sum() / x.sum() > 0.85
    assert np.mean([null[same].sum() / null.sum() for null in nulls]) == pytest.approx(0.5, abs=0.05)


def test_null_is_repeatable_and_leaves_its_input():
    x = cost.graph_costs(unstructured("uniform", seed=0), 1.0)[0]
    before = x.copy()
    nulls = [degree_preserving_null(x, generator=np.random.default_rng(3)) for _ in range(2)]
    np.testing.assert_array_equal(*nulls)
    np.testing.assert_array_equal(x, before)
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(nulls[0], x)


def test_null_of_trivial_matrices():
    for x in (np.zeros((3, 3)), np.ones((1, 4))):
        np.testing.assert_array_equal(degree_preserving_null(x, generator=np.random.default_rng(0)), x)


def test_edges_that_are_not_sure_cost_nothing_anywhere() -> None:
    """A partition of a graph with estimated strengths fits it: costs, nodes with edges, links and exports agree."""
    errors = [np.full((2, 2), 0.1)]
    graph = InteractionGraph.from_blocks(
        [[[1.0, 0.25], [0.25, 1.0]]], errors=errors
    )  # cutoff .1: .25 - 2 x .1 is below
    (costs,) = cost.graph_costs(graph, 0.01)
    np.testing.assert_allclose(costs, np.log(10) * np.eye(2))
    alone = InteractionGraph.from_blocks([[[1.0, 0.25], [0.25, 0.25]]], errors=errors)
    assert [node.tolist() for node in cost.has_edge(alone, 0.01)] == [[True, False], [True, False]]
    partition = score_partition(graph, [[0, 1], [0, 1]], 0.01)
    assert partition.edge_cost == 0
    joined = json.loads(export(graph, partition, "node-link"))
    assert [(edge["source"], edge["target"]) for edge in joined["edges"]] == [("0/0", "1/0"), ("0/1", "1/1")]
    assert graph.significant(0.01).significant(0.01) == graph.significant(0.01)
