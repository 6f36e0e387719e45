"""Influence on the outputs and the scores of circuit-tracer, against its formulas on whole matrices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interbasis.analysis.attribution.paths import as_shares, influence, kept_by_influence, path_scores
from interbasis.analysis.errors import GraphError
from interbasis.analysis.graph.interaction_graph import InteractionGraph
from interbasis.analysis.graph.node_table import NodeTable

KINDS = [
    ["embedding"] * 3,
    ["cross layer transcoder"] * 4 + ["mlp reconstruction error"] * 2,
    ["feature"] * 5,
    ["logit"] * 3,
]


def attribution(seed):
    """A random attribution graph of four layers; embeddings and errors have no inputs."""
    generator = np.random.default_rng(seed)
    tables = []
    for c, kinds in enumerate(KINDS):
        rows = [{"id": f"{c}_{i}", "type": kind} for i, kind in enumerate(kinds)]
        tables.append(NodeTable.from_rows(row | {"attributes": {"token_prob": generator.random()}} for row in rows))
    pairs = [(a, b) for b in range(4) for a in range(b)]
    weights = []
    for a, b in pairs:
        shape = len(KINDS[b]), len(KINDS[a])
        block = generator.standard_normal(shape) * (generator.random(shape) < 0.8)
        block[["error" in kind for kind in KINDS[b]]] = 0.0
        weights.append(block)
    return InteractionGraph.from_blocks(
        [np.abs(block) for block in weights], pairs=pairs, weights=weights, nodes=tables, unit="weight"
    )


def whole(graph):
    """Matrix of strengths (target, source), output weights, and the types of all nodes."""
    matrix = np.zeros((graph.n_nodes, graph.n_nodes))
    for block, (a, b) in zip(graph.blocks, graph.pair_slices, strict=True):
        matrix[b, a] = block
    kinds = np.array([kind for table in graph.nodes for kind in table.types])
    probability = np.array([row["token_prob"] for table in graph.nodes for row in table.attributes])
    outputs = np.where(kinds == "logit", probability, 0.0)
    return matrix, outputs / outputs.sum(), kinds


def theirs(matrix, outputs):
    """The influence of nodes and edges, by the inverse of I - A."""
    total = matrix.sum(1, keepdims=True)
    shares = np.divide(matrix, total, out=np.zeros_like(matrix), where=total > 0)
    nodes = outputs @ np.linalg.inv(np.eye(len(shares)) - shares) - outputs
    return shares, nodes, shares * (nodes + outputs)[:, None]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_influence_is_the_sum_over_all_paths(seed):
    graph = attribution(seed)
    matrix, outputs, kinds = whole(graph)
    shares, nodes, edges = theirs(matrix, outputs)
    found = influence(graph)
    np.testing.assert_allclose(np.concatenate(found.nodes), nodes, atol=1e-12)
    np.testing.assert_allclose(found.edges, edges[found.shares.later, found.shares.earlier], atol=1e-12)
    assert len(found.edges) == np.count_nonzero(matrix)
    for own, (a, b) in zip(as_shares(graph).matrices, graph.pair_slices, strict=True):
        np.testing.assert_allclose(own, shares[b, a], atol=1e-15)
    error = np.array(["error" in kind for kind in kinds])
    tokens = nodes[kinds == "embedding"].sum()
    scores = path_scores(graph)
    assert scores.replacement == pytest.approx(tokens / (tokens + nodes[error].sum()))
    weight = nodes + outputs  # of all nodes, as in circuit-tracer's compute_graph_scores
    assert scores.completeness == pytest.approx((weight * (1 - shares[:, error].sum(1))).sum() / weight.sum())


def test_scores_of_a_module_count_other_features_as_errors():
    graph = attribution(0)
    labels = [np.zeros(k, dtype=int) for k in graph.widths]
    labels[2][1:] = 1
    matrix, outputs, kinds = whole(graph)
    flat = np.concatenate(labels)
    error = np.array(["error" in kind for kind in kinds]) | ((flat != 0) & (kinds != "embedding") & (kinds != "logit"))
    shares, _, _ = theirs(matrix, outputs)
    shares[error] = 0.0
    nodes = outputs @ np.linalg.inv(np.eye(len(shares)) - shares) - outputs
    tokens = nodes[kinds == "embedding"].sum()
    assert path_scores(graph, labels, 0).replacement == pytest.approx(tokens / (tokens + nodes[error].sum()))
    assert path_scores(graph, [np.zeros(k, dtype=int) for k in graph.widths], 0) == path_scores(graph)


def test_hand_worked_graph_keeps_its_strongest_path():
    # e -> f -> o with shares 1 and .9, e -> o directly with .1
    tables = [[{"id": "e", "type": "embedding"}], [{"id": "f", "type": "feature"}], [{"id": "o", "type": "logit"}]]
    weights = [np.array([[2.0]]), np.array([[-9.0]]), np.array([[1.0]])]
    named = {"pairs": [(0, 1), (1, 2), (0, 2)], "nodes": [NodeTable.from_rows(t) for t in tables]}
    graph = InteractionGraph.from_blocks([abs(w) for w in weights], weights=weights, unit="weight", **named)
    found = influence(graph)
    assert [b.tolist() for b in found.nodes] == [[pytest.approx(1.0)], [pytest.approx(0.9)], [0.0]]
    kept = kept_by_influence(graph, 0.9)
    assert [block.tolist() for block in kept.matrices] == [[[2.0]], [[9.0]], [[0.0]]]
    assert kept.weights[1].tolist() == [[-9.0]]
    assert kept_by_influence(graph, 1.0) is graph
    assert path_scores(graph).replacement == 1.0


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_what_is_kept_leads_from_an_input_to_an_output(share):
    graph = attribution(3)
    kept = kept_by_influence(graph, share)
    assert kept.n_edges() < graph.n_edges()
    matrix, outputs, kinds = whole(kept)
    roots = (kinds == "embedding") | np.array(["error" in kind for kind in kinds])
    assert (matrix.sum(1)[~roots] > 0).all()
    assert (matrix.sum(0)[outputs == 0] > 0).all()
    ids = [name for table in kept.nodes for name in table.ids]
    assert set(ids) <= {name for table in graph.nodes for name in table.ids}


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_share_that_makes_no_sense_is_refused(share):
    with pytest.raises(GraphError, match="share of influence"):
        kept_by_influence(attribution(0), share)


def test_labels_of_another_graph_and_modules_without_nodes_are_refused():
    graph = attribution(0)
    labels = [np.zeros(k, dtype=int) for k in graph.widths]
    with pytest.raises(GraphError, match="labels have shapes"):
        path_scores(graph, labels[:-1], 0)
    for module in (1, None):
        with pytest.raises(GraphError, match="no node has the label"):
            path_scores(graph, labels, module)


def test_probabilities_that_are_no_numbers_do_not_count():
    rows = [{"id": str(i), "type": "logit", "attributes": {"token_prob": p}} for i, p in enumerate((np.inf, 0.5, "1"))]
    nodes = [NodeTable.from_rows([{"id": "e", "type": "embedding"}]), NodeTable.from_rows(rows)]
    graph = InteractionGraph.from_blocks([np.ones((3, 1))], nodes=nodes, unit="weight")
    assert influence(graph).outputs[1].tolist() == [0.0, 1.0, 0.0]


def test_graphs_without_names_are_pruned_and_keep_no_matrices_of_other_edges():
    generator = np.random.default_rng(0)
    blocks = [generator.random((6, 6)), generator.random((6, 6))]
    graph = InteractionGraph.from_blocks(blocks, beyond_skip=blocks, errors=blocks)
    kept = kept_by_influence(graph, 0.5)
    assert 0 < kept.n_edges() < graph.n_edges()
    assert kept.nodes == kept.beyond_skip == kept.errors == ()
