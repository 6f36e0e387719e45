"""Two nodes of an attribution graph may have one id: links mean the one that layers and their order leave."""

import itertools
from typing import Any

import pytest
from cases_attribution import ERROR, FEATURE, attribution, node, signed

from interbasis.analysis import InteractionGraph
from interbasis.analysis.errors import GraphError
from interbasis.analysis.exchange import export
from interbasis.analysis.reading import graph_of_bytes

NODES = [  # in the order of circuit-tracer: features, errors, tokens, logits
    node("0_2_0", FEATURE, "0", clerp="feature 2"),
    node("0_9_0", FEATURE, "0"),
    node("1_5_0", FEATURE, "1"),
    node("3_5_0", FEATURE, "3"),
    node("0_1_0", ERROR, "1"),
    node("0_2_0", ERROR, "2", clerp="error"),
    node("E_1_0", "embedding", "E"),
    node("5_3_0", "logit", "5"),
]
LINKS = [
    ("E_1_0", "0_2_0", 1.0),
    ("0_2_0", "1_5_0", 2.0),
    ("0_9_0", "1_5_0", 3.0),
    ("0_2_0", "3_5_0", 4.0),
    ("0_9_0", "3_5_0", 5.0),
    ("0_1_0", "3_5_0", 6.0),
    ("0_2_0", "5_3_0", 7.0),
    ("1_5_0", "5_3_0", 8.0),
    ("0_2_0", "5_3_0", 9.0),
]


def by_type(graph: InteractionGraph) -> dict[tuple[str, str], list[float]]:
    """Weights of the links from and to the shared id, by the types of both nodes."""
    found: dict[tuple[str, str], list[float]] = {}
    for (a, b), block in zip(graph.pairs, graph.weights, strict=True):
        assert block is not None
        for j, i in itertools.product(*map(range, block.shape)):
            ends = graph.nodes[a].row(i), graph.nodes[b].row(j)
            if block[j, i] and "0_2_0" in (ends[0]["id"], ends[1]["id"]):
                found.setdefault((ends[0]["type"], ends[1]["type"]), []).append(float(block[j, i]))
    return found


def test_layers_and_order_say_which_node_a_link_means() -> None:
    graph = graph_of_bytes(attribution(NODES, LINKS))
    assert by_type(graph) == {
        ("embedding", FEATURE): [1.0],
        (FEATURE, FEATURE): [2.0, 4.0],
        (FEATURE, "logit"): [7.0],
        (ERROR, "logit"): [9.0],
    }
    assert graph.origin["links_of_shared_ids"] == {"by layer": 1, "by order": 3}
    assert graph.nodes[3].labels == ("error",)
    for form in ("node-link", "circuit-tracer"):
        assert graph_of_bytes(export(graph, None, form)) == graph


def test_dropped_errors_take_only_their_own_links() -> None:
    graph = graph_of_bytes(attribution(NODES, LINKS), without=("error",))
    assert by_type(graph) == {("embedding", FEATURE): [1.0], (FEATURE, FEATURE): [2.0, 4.0], (FEATURE, "logit"): [7.0]}


def test_a_link_of_an_error_is_known_by_its_place() -> None:
    links: list[Any] = [link for link in LINKS if link[2] != 4.0]
    links.insert(5, ("0_2_0", "3_5_0", 4.0))
    assert by_type(graph_of_bytes(attribution(NODES, links)))[ERROR, FEATURE] == [4.0]


@pytest.mark.parametrize(
    "links",
    [
        [*LINKS[:5], ("0_2_0", "5_3_0", 7.0)],  # alone: feature or error
        [LINKS[4], *LINKS[:4], *LINKS[5:]],  # not in order
    ],
)
def test_links_that_could_mean_two_nodes_are_refused(links: list[Any]) -> None:
    with pytest.raises(GraphError, match="names the id '0_2_0', which two nodes have"):
        graph_of_bytes(attribution(NODES, links))


def test_one_type_and_id_is_one_node() -> None:
    with pytest.raises(GraphError, match=r"two nodes have the id .*0_9_0"):
        graph_of_bytes(attribution([*NODES, NODES[1]], LINKS))


def test_ids_of_html_are_texts() -> None:
    name = "<script>alert(1)</script>"
    nodes = [node(name, FEATURE, "0"), node("b", FEATURE, "1")]
    graph = graph_of_bytes(attribution(nodes, [(name, "b", 1.0)]))
    assert signed(graph) == {(name, "b"): 1.0}
    for form in ("node-link", "graphml", "gexf", "circuit-tracer"):
        assert graph_of_bytes(export(graph, None, form)) == graph
