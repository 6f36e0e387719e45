"""The strongest nodes of modules, and their strongest edges with signs."""

import numpy as np
import pytest

from interbasis.analysis import InteractionGraph
from interbasis.analysis.attribution import as_shares, strongest_nodes
from interbasis.analysis.errors import GraphError
from interbasis.analysis.graph.node_table import NodeTable

WEIGHTS = (
    np.array([[1.0, -2.0, 0.0], [0.0, 0.0, 3.0]]),  # a to b
    np.array([[-4.0, 0.5]]),  # b to c
    np.array([[0.0, 0.25, -1.5]]),  # a to c
)

LABELS = [np.array([0, 0, 1]), np.array([0, 1]), np.array([-1])]


@pytest.fixture
def graph() -> InteractionGraph:
    rows = [
        [{"id": "a0"}, {"id": "a1", "label": "second"}, {"id": "a2", "type": "embedding", "position": 4}],
        [{"id": "b0"}, {"id": "b1"}],
        [{"id": "c0", "type": "logit"}],
    ]
    pairs = [(0, 1), (1, 2), (0, 2)]
    named = {"nodes": [NodeTable.from_rows(each) for each in rows], "weights": WEIGHTS, "unit": "weight"}
    return InteractionGraph.from_blocks([abs(w) for w in WEIGHTS], cuts=["a", "b", "c"], pairs=pairs, **named)


def test_nodes_are_ordered_by_the_sum_of_their_weights_within_modules(graph: InteractionGraph) -> None:
    found = strongest_nodes(graph, LABELS)
    assert [(node.module, node.node, node.strength) for node in found] == [
        (0, "b/0", 7.0), (0, "a/1", 2.25), (0, "a/0", 1.0), (1, "a/2", 4.5), (1, "b/1", 3.5), (-1, "c/0", 6.25)
    ]  # fmt: skip
    few = strongest_nodes(graph, LABELS, most=1)
    assert [node.node for node in few] == ["b/0", "a/2", "c/0"]
    (a2,) = (node for node in found if node.node == "a/2")
    assert (a2.id, a2.type, a2.position, a2.label) == ("a2", "embedding", 4, None)


def test_edges_have_signs_and_titles(graph: InteractionGraph) -> None:
    found = {node.id: node for node in strongest_nodes(graph, edges=2)}
    assert [(e.node, e.title, e.weight) for e in found["b0"].inputs] == [("a/1", "second", -2.0), ("a/0", "a0", 1.0)]
    assert [(e.node, e.weight) for e in found["b0"].outputs] == [("c/0", -4.0)]
    assert [(e.node, e.weight) for e in found["c0"].inputs] == [("b/0", -4.0), ("a/2", -1.5)]
    assert found["c0"].outputs == ()


def test_edges_up_to_the_cutoff_do_not_count(graph: InteractionGraph) -> None:
    found = {node.id: node for node in strongest_nodes(graph, epsilon=4.0, most=9)}
    assert {name: node.strength for name, node in found.items()} == {"b0": 4.0, "c0": 4.0, "a2": 3.0, "b1": 3.0}
    one_each = strongest_nodes(graph, epsilon=[100.0, 4.0, 100.0])
    assert [node.id for node in one_each] == ["b0", "c0"]


def test_shares_have_the_signs_of_their_weights(graph: InteractionGraph) -> None:
    found = {node.id: node for node in strongest_nodes(as_shares(graph))}
    assert [e.weight for e in found["b0"].inputs] == pytest.approx([-2 / 3, 1 / 3])


def test_graphs_without_names_are_refused(graph: InteractionGraph) -> None:
    with pytest.raises(GraphError, match="the nodes of the graph have no names"):
        strongest_nodes(InteractionGraph.from_blocks([[[1.0]]]))
    with pytest.raises(GraphError, match=r"labels of \(3, 2\) nodes were given: the graph has \(3, 2, 1\)"):
        strongest_nodes(graph, LABELS[:2])
