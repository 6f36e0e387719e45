"""Sparse rows and lists of edges give the numbers of dense matrices."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_null import null_matrices
from scipy.sparse import coo_array, csr_array

from interbasis.analysis import find_modules
from interbasis.analysis.edges import Edges, dense, stored, strength_line, values_at
from interbasis.analysis.errors import GraphError
from interbasis.analysis.graph import (
    InteractionGraph,
    NodeTable,
    Places,
    choose_epsilon,
    contrast,
    edge_cost,
    edge_costs,
    graph_costs,
    mediator_cost,
    null_costs,
    places_of,
)
from interbasis.analysis.modules import interaction_surface
from interbasis.analysis.search import OBJECTIVES, quality

EPSILON = 0.05


def graphs(seed, *, positions=True, unit="weight", filled=0.07, widths=(40, 30, 50, 25)):
    """One graph with edges that skip cuts, as dense matrices and as sparse rows."""
    generator = np.random.default_rng(seed)
    where = [generator.integers(0, 3, k) for k in widths]
    group = [generator.integers(0, 3, k) for k in widths]
    pairs = [(a, b) for b in range(len(widths)) for a in range(b)]
    signed = []
    for a, b in pairs:
        shape = (widths[b], widths[a])
        strong = group[b][:, None] == group[a]
        x = generator.standard_normal(shape) * np.where(strong, 3.0, 0.5) * (generator.random(shape) < filled)
        signed.append(np.where(where[b][:, None] >= where[a], x, 0.0) if positions else x)
    nodes = [NodeTable.from_rows({"id": f"{c}.{i}", "position": int(p)} for i, p in enumerate(own)) for c, own in
             enumerate(where)]  # fmt: skip
    named = {"pairs": pairs, "unit": unit, "nodes": nodes if positions else ()}
    whole = InteractionGraph.from_blocks([np.abs(x) for x in signed], weights=signed, **named)
    rows = [csr_array(x) for x in signed]
    return whole, InteractionGraph.from_blocks([abs(x) for x in rows], weights=rows, **named)


def test_matrices_are_sparse_rows_below_a_tenth():
    whole, sparse = graphs(0)
    assert all(isinstance(block, np.ndarray) for block in (*whole.blocks, *whole.weights))
    assert all(isinstance(block, csr_array) for block in (*sparse.blocks, *sparse.weights))
    assert all(map(np.array_equal, whole.blocks, sparse.matrices))
    full = csr_array(np.diag(np.ones(9)) + np.eye(9, k=1))
    assert isinstance(InteractionGraph.from_blocks([full]).blocks[0], np.ndarray)
    with_zeros = csr_array((np.zeros(50), (np.arange(50) // 10, np.arange(50) % 10)), shape=(10, 10))
    assert stored(with_zeros).nnz == 0


@pytest.mark.parametrize("broken", [np.nan, np.inf, -1.0])
def test_sparse_rows_are_checked(broken):
    block = csr_array(np.diag(np.full(30, broken)))
    with pytest.raises(Exception, match="block 0 holds negative, NaN or infinite strengths"):
        InteractionGraph.from_blocks([block])


@pytest.mark.parametrize("kind", ["uint8", "int8", "bool", "float32"])
def test_duplicates_are_summed_as_numbers(kind):
    values = np.array([100, 100, 1]).astype(kind)
    block = coo_array((values, ([0, 0, 29], [0, 0, 29])), shape=(30, 30))
    (found,) = InteractionGraph.from_blocks([block]).matrices
    assert found[0, 0] == float(values[0]) + float(values[1])
    assert found.sum() == found[0, 0] + 1


def test_only_matrices_of_numbers_that_can_be_squared_are_taken():
    for block, said in (
        (coo_array(np.ones(4)), "no matrix"),
        (csr_array(1j * np.eye(30)), "complex"),
        ([[1e200]], "largest strength is 1e[+]200"),
        ([[1e-200]], "largest strength is 1e-200"),
    ):
        with pytest.raises(GraphError, match=said):
            InteractionGraph.from_blocks([block])
    with pytest.raises(GraphError, match="weights: expected None or a matrix for each block"):
        InteractionGraph.from_blocks([np.eye(2)], weights=[np.eye(2), np.eye(2)])


def test_the_order_of_blocks_does_not_matter():
    generator = np.random.default_rng(0)
    blocks = [generator.random((8, 6)), generator.random((5, 8))]
    graph = InteractionGraph.from_blocks(blocks)
    turned = InteractionGraph.from_blocks(blocks[::-1], pairs=[(1, 2), (0, 1)])
    assert not places_of(graph).joint
    assert not places_of(turned).joint
    assert len(find_modules(graph, n_null=4).profile) == len(find_modules(turned, n_null=4).profile)


def test_more_places_than_memory_holds_are_refused(monkeypatch):
    graph, _ = graphs(0)
    monkeypatch.setattr("interbasis.analysis.graph.expectation._MOST", 145 * 11)
    with pytest.raises(GraphError, match="145 nodes stand at 12 places"):
        contrast(graph, [np.zeros(k, dtype=int) for k in graph.widths], EPSILON)


def test_of_a_large_graph_the_strongest_edges_are_kept(monkeypatch):
    monkeypatch.setattr("interbasis.analysis.graph.loss_scale._MOST", 100)
    whole, sparse = graphs(1)
    for graph in (whole, sparse):
        scale = choose_epsilon(graph, None)
        assert (scale.source, graph.n_edges(scale.per_pair)) == ("strongest", 100)
    equal = InteractionGraph.from_blocks([np.ones((20, 20))], unit="weight")
    assert equal.n_edges(choose_epsilon(equal, None).per_pair) == 400
    loss = InteractionGraph.from_blocks(whole.blocks, pairs=whole.pairs)
    assert choose_epsilon(loss, None).source == "graph"


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from(["loss", "weight"]))
def test_every_number_is_that_of_dense_matrices(seed, positions, unit):
    whole, sparse = graphs(seed, positions=positions, unit=unit)
    assert whole.edge_list == sparse.edge_list
    assert whole.n_edges(EPSILON) == sparse.n_edges(EPSILON)
    assert list(whole.edges(EPSILON)) == list(sparse.edges(EPSILON))
    assert whole.to_frame(EPSILON).equals(sparse.to_frame(EPSILON))
    assert dict(whole.to_networkx().edges) == dict(sparse.to_networkx().edges)
    assert whole.to_igraph().es["weight"] == sparse.to_igraph().es["weight"]
    generator = np.random.default_rng(seed)
    labels = [generator.integers(0, 4, k) for k in whole.widths]
    for name in OBJECTIVES:
        own, other = (quality(g, labels, EPSILON, objective=name, resolution=0.7) for g in (whole, sparse))
        assert own == pytest.approx(other, rel=1e-10)
    for measure in (edge_cost, mediator_cost, contrast):
        assert measure(whole, labels, EPSILON) == pytest.approx(measure(sparse, labels, EPSILON), rel=1e-10)
    assert interaction_surface(whole, labels, EPSILON) == interaction_surface(sparse, labels, EPSILON)


def test_modules_are_those_of_dense_matrices():
    whole, sparse = graphs(5, filled=0.09, widths=(60, 50, 70))
    assert find_modules(whole, seed=1, n_null=4) == find_modules(sparse, seed=1, n_null=4)


def test_a_sparse_graph_comes_back_from_its_file():
    _, sparse = graphs(1)
    again = InteractionGraph.from_bytes(sparse.to_bytes())
    assert again == sparse
    assert hash(again) == hash(sparse)
    other = replace(sparse, blocks=(sparse.blocks[0] * 2, *sparse.blocks[1:]))
    assert other != sparse


def test_edges_list_the_matrices():
    whole, sparse = graphs(2)
    edges = sparse.edge_list
    assert all(map(np.array_equal, map(dense, edges.blocks(sparse.pair_slices)), whole.blocks))
    flat = np.zeros((whole.n_nodes,) * 2)
    for block, (a, b) in zip(whole.blocks, whole.pair_slices, strict=True):
        flat[b, a] = block
    np.testing.assert_allclose(edges.totals(whole.n_nodes), (flat.sum(0), flat.sum(1)), rtol=1e-12)
    labels = np.random.default_rng(0).integers(-1, 3, whole.n_nodes)
    members = (labels == np.arange(3)[:, None]).astype(float)
    np.testing.assert_allclose(edges.between(labels, 3), members @ flat @ members.T, rtol=1e-12)
    kept = np.random.default_rng(1).random(whole.n_nodes) < 0.5
    inside = edges.among(kept)
    np.testing.assert_array_equal(inside.weight, edges.weight[kept[edges.earlier] & kept[edges.later]])
    assert inside.earlier.max() < kept.sum()
    assert len(Edges.of([np.zeros((2, 2))], [(slice(0, 2), slice(2, 4))])) == 0


def test_costs_are_those_of_matrices():
    _, sparse = graphs(3, unit="loss")
    listed = edge_costs(sparse, EPSILON).blocks(sparse.pair_slices)
    assert all(map(np.array_equal, map(dense, listed), graph_costs(sparse, EPSILON)))


def test_lines_and_entries_of_sparse_rows():
    block = np.where(np.arange(60).reshape(6, 10) % 11 == 0, 2.5, 0.0)
    rows = csr_array(block)
    for own in (block, rows):
        assert strength_line(own, row=0).tolist() == block[0].tolist()
        assert strength_line(own, column=3).tolist() == block[:, 3].tolist()
        assert values_at(own, np.array([0, 1]), np.array([0, 0])).tolist() == [2.5, 0.0]
        assert values_at(own, np.array([], dtype=int), np.array([], dtype=int)).tolist() == []


@pytest.mark.parametrize("positions", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_null_graphs_are_those_of_plain_loops(seed, positions):
    graph, _ = graphs(seed, positions=positions, filled=0.5, widths=(7, 1, 8, 5))
    costs, places = edge_costs(graph, EPSILON), places_of(graph)
    null = null_costs(costs, places, generator=np.random.default_rng(seed))
    position = np.zeros(places.n, dtype=int) if places.positions is None else places.positions
    matrices = [dense(x) for x in costs.blocks(places.pairs)]
    slow = null_matrices(matrices, places.pairs, position, np.random.default_rng(seed))
    for own, expected in zip(null.blocks(places.pairs), slow, strict=True):
        np.testing.assert_allclose(dense(own), expected, rtol=1e-9, atol=1e-12)


def test_null_graphs_of_a_chain_are_those_of_plain_loops():
    generator = np.random.default_rng(4)
    widths = (8, 6, 7)
    ends = np.cumsum([0, *widths]).tolist()
    places = Places(tuple(slice(a, b) for a, b in pairwise(ends)), ((0, 1), (1, 2)))
    matrices = [generator.exponential(size=(b, a)) * (generator.random((b, a)) < 0.6) for a, b in pairwise(widths)]
    null = null_costs(Edges.of(matrices, places.pairs), places, generator=np.random.default_rng(0))
    drawn = np.random.default_rng(0)
    for own, x, pair in zip(null.blocks(places.pairs), matrices, places.pairs, strict=True):
        (slow,) = null_matrices([x], [pair], np.zeros(places.n, dtype=int), drawn)
        np.testing.assert_allclose(dense(own), slow, rtol=1e-9, atol=1e-12)


def test_files_of_large_empty_matrices_are_refused(monkeypatch):
    whole, sparse = graphs(1)
    monkeypatch.setattr("interbasis.analysis.graph.interaction_graph._LARGEST", 1000)
    assert InteractionGraph.from_bytes(sparse.to_bytes()) == sparse
    with pytest.raises(GraphError, match="of the file has 30 by 40 entries"):
        InteractionGraph.from_bytes(whole.to_bytes())
