"""Graphs and partitions as other tools read them."""

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import igraph
import jsonschema_rs
import networkx
import numpy as np
import pytest
from cases_figures import facts_of
from cases_graphs import planted
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from interbasis.analysis.errors import GraphError, InputError
from interbasis.analysis.exchange.attribution_graph import attribution_graph
from interbasis.analysis.exchange.graph_files import FORMATS, export, to_networkx
from interbasis.analysis.figures.graphs import plot_graph, plot_strengths
from interbasis.analysis.graph.interaction_graph import InteractionGraph
from interbasis.analysis.modules.find_modules import score_partition
from interbasis.analysis.modules.partition import Partition

EPSILON = 1.0


@pytest.fixture(scope="module")
def graph() -> InteractionGraph:
    """Two planted modules; one node has no edge above the cutoff."""
    whole = planted((4, 3), n_cuts=3, seed=0)[0]
    blocks = [block.copy() for block in whole.blocks]
    blocks[0][:, 2] = 0.5
    importance = [np.linspace(1, 2, width) for width in whole.widths]
    return InteractionGraph.from_blocks(blocks, ["in", "layers.0", "out"], importance, basis="global")


@pytest.fixture(scope="module")
def partition(graph: InteractionGraph) -> Partition:
    labels = [np.arange(width) % 2 for width in graph.widths]
    labels[0][2] = -1
    return score_partition(graph, labels, EPSILON)


def assert_complete(read: networkx.DiGraph, graph: InteractionGraph, partition: Partition, epsilon: float) -> None:
    """Every node with cut, coordinate, importance and module; every edge above the cutoff with its strength."""
    assert read.is_directed()
    expected = {
        f"{cut}/{i}": {"cut": cut, "coordinate": i, "importance": weight, "module": module}
        for cut, weights, modules in zip(graph.cuts, graph.importance, partition.labels, strict=True)
        for i, (weight, module) in enumerate(zip(weights.tolist(), modules.tolist(), strict=True))
    }
    assert dict(read.nodes(data=True)) == expected
    edges = {(f"{a}/{i}", f"{b}/{j}"): w for (a, i), (b, j), w in graph.edges(epsilon)}
    assert {(a, b): data for a, b, data in read.edges(data=True)} == {k: {"strength": w} for k, w in edges.items()}
    assert 0 < len(edges) < graph.n_edges()


def test_graphml_is_read_by_networkx(graph: InteractionGraph, partition: Partition) -> None:
    read = networkx.read_graphml(io.BytesIO(export(graph, partition, "graphml")))
    assert_complete(read, graph, partition, EPSILON)
    assert read.graph["epsilon"] == EPSILON
    assert read.graph["basis"] == "global"


def test_graphml_is_read_by_igraph(graph: InteractionGraph, partition: Partition, tmp_path: Path) -> None:
    file = tmp_path / "graph.graphml"
    file.write_bytes(export(graph, partition, "graphml"))
    read = igraph.Graph.Read_GraphML(str(file))
    nodes = {v["id"]: {name: v[name] for name in v.attribute_names() if name != "id"} for v in read.vs}
    edges = [(read.vs[e.source]["id"], read.vs[e.target]["id"], e["strength"]) for e in read.es]
    rebuilt = networkx.DiGraph()
    rebuilt.add_nodes_from(nodes.items())
    rebuilt.add_edges_from((a, b, {"strength": w}) for a, b, w in edges)
    assert_complete(rebuilt, graph, partition, EPSILON)


def test_node_link_is_read_by_networkx(graph: InteractionGraph, partition: Partition) -> None:
    read = networkx.node_link_graph(json.loads(export(graph, partition, "node-link")), edges="edges")
    assert_complete(read, graph, partition, EPSILON)


@pytest.mark.parametrize("form", ["graphml", "node-link"])
def test_epsilon_given_goes_before_the_partitions(graph: InteractionGraph, partition: Partition, form: str) -> None:
    content = export(graph, partition, form, epsilon=4.0)
    if form == "graphml":
        read = networkx.read_graphml(io.BytesIO(content))
    else:
        read = networkx.node_link_graph(json.loads(content), edges="edges")
    assert_complete(read, graph, partition, 4.0)


def edges_in(content: bytes, form: str) -> dict[tuple[str, str], float]:
    """Edges of an export of any format by the names of their nodes."""
    if form == "circuit-tracer":
        made = json.loads(content)
        name = {node["node_id"]: node["clerp"].partition(" ")[0] for node in made["nodes"]}
        return {(name[e["source"]], name[e["target"]]): e["weight"] for e in made["links"]}
    if form == "node-link":
        read = networkx.node_link_graph(json.loads(content), edges="edges")
    else:
        read = {"graphml": networkx.read_graphml, "gexf": networkx.read_gexf}[form](io.BytesIO(content))
    return {(a, b): w for a, b, w in read.edges(data="strength")}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.floats(-3, 1.5), min_size=2, max_size=4))
def test_every_export_has_the_edges_above_the_cutoff_of_their_pair(seed: int, decades: list[float]) -> None:
    draws = np.random.default_rng(seed)
    widths = draws.integers(1, 5, len(decades) + 1)
    blocks = [draws.lognormal(sigma=2, size=(b, a)) for a, b in pairwise(widths)]
    graph = InteractionGraph.from_blocks(blocks)
    epsilons = tuple(10.0**decade for decade in decades)
    assume(any((block > e**0.5).any() for block, e in zip(blocks, epsilons, strict=True)))
    expected = {
        (f"{p}/{i}", f"{p + 1}/{j}"): float(block[j, i])
        for p, (block, epsilon) in enumerate(zip(blocks, epsilons, strict=True))
        for j in range(block.shape[0])
        for i in range(block.shape[1])
        if block[j, i] > epsilon**0.5
    }
    found = score_partition(graph, [np.zeros(width, dtype=int) for width in widths], epsilons)
    for form in ("graphml", "gexf", "node-link", "circuit-tracer"):
        assert edges_in(export(graph, found, form), form) == expected
        assert edges_in(export(graph, None, form, epsilons), form) == expected
    assert graph.n_edges(epsilons) == len(expected)
    vertices = [f"{v['cut']}/{v['coordinate']}" for v in graph.to_igraph(epsilons).vs]
    joined = graph.to_igraph(epsilons).es
    assert {(vertices[e.source], vertices[e.target]): e["strength"] for e in joined} == expected
    assert to_networkx(graph, found).number_of_edges() == len(expected)
    assert f"{len(expected):,} edges" in " ".join(facts_of(plot_graph(graph, found)).split())
    assert f"{len(expected):,} edges above" in " ".join(facts_of(plot_strengths(graph, epsilons)).split())


def test_loss_scales_of_pairs_are_named_where_they_differ() -> None:
    graph = InteractionGraph.from_blocks([np.eye(2) * 3, np.eye(2) * 3])
    labels = [np.arange(2)] * 3
    same, other = score_partition(graph, labels, (0.25, 0.25)), score_partition(graph, labels, (0.25, 4.0))
    assert to_networkx(graph, same).graph["epsilon"] == 0.25
    named = to_networkx(graph, other).graph
    assert json.loads(named["epsilons"]) == [0.25, 4.0]
    assert "epsilon" not in named
    assert "epsilon 0.25)" in repr(same)
    assert "epsilon 0.25, 4)" in repr(other)
    assert "epsilon 0.25 to 4" in " ".join(facts_of(plot_graph(graph, other)).split())
    made = json.loads(export(graph, other, "circuit-tracer"))
    assert "strengths above 0.5, 2." in made["metadata"]["info"]["description"]


@pytest.mark.parametrize(
    ("epsilon", "said"),
    [((1.0,), "1 loss scales were given"), ((1.0, -1.0), "of 0 or more"), (np.nan, "of 0 or more")],
)
def test_loss_scales_that_make_no_sense_raise(epsilon: Any, said: str) -> None:
    graph = InteractionGraph.from_blocks([np.eye(2), np.eye(2)])
    with pytest.raises(GraphError, match=said):
        graph.cutoffs(epsilon)


def test_without_a_partition_all_edges_and_no_modules(graph: InteractionGraph) -> None:
    read = networkx.read_graphml(io.BytesIO(export(graph, None, "graphml")))
    assert read.number_of_edges() == graph.n_edges()
    assert all("module" not in data for _, data in read.nodes(data=True))


def test_safetensors_of_a_graph_is_what_load_reads(graph: InteractionGraph, tmp_path: Path) -> None:
    file = tmp_path / "graph.safetensors"
    file.write_bytes(export(graph, None, "safetensors"))
    read = InteractionGraph.load(file)
    assert (read.cuts, read.basis, read.strengths) == (graph.cuts, graph.basis, graph.strengths)
    for ours, theirs in zip((*read.blocks, *read.importance), (*graph.blocks, *graph.importance), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_safetensors_of_a_partition_is_what_load_reads(
    graph: InteractionGraph, partition: Partition, tmp_path: Path
) -> None:
    file = tmp_path / "partition.safetensors"
    file.write_bytes(export(graph, partition, "safetensors"))
    read = Partition.load(file)
    assert (read.modules, read.edge_cost, read.epsilon) == (partition.modules, partition.edge_cost, EPSILON)
    for ours, theirs in zip(read.labels, partition.labels, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(InputError, match="expected a saved graph, but the file holds a partition"):
        InteractionGraph.load(file)


@pytest.mark.parametrize("form", ["graphml", "node-link"])
def test_partition_of_another_graph_raises(graph: InteractionGraph, partition: Partition, form: str) -> None:
    renamed = InteractionGraph.from_blocks(graph.blocks, ["a", "b", "c"])
    smaller = InteractionGraph.from_blocks([block[:-1, :-1] for block in graph.blocks], graph.cuts)
    for other in (renamed, smaller):
        with pytest.raises(GraphError, match="the partition is of another graph: it has 7 nodes at in"):
            export(other, partition, form)


def test_partition_of_another_graph_raises_as_safetensors(graph: InteractionGraph, partition: Partition) -> None:
    with pytest.raises(GraphError, match="the partition is of another graph"):
        export(InteractionGraph.from_blocks(graph.blocks), partition, "safetensors")


def test_gexf_is_read_by_networkx(graph: InteractionGraph, partition: Partition) -> None:
    read = networkx.read_gexf(io.BytesIO(export(graph, partition, "gexf")))
    for _, data in read.nodes(data=True):
        del data["label"]  # networkx adds one
    for _, _, data in read.edges(data=True):
        del data["id"]
    assert_complete(read, graph, partition, EPSILON)


@pytest.mark.parametrize("divided", [True, False])
def test_attribution_graph_keeps_to_its_schema(graph: InteractionGraph, partition: Partition, divided: bool) -> None:
    schema = json.loads((Path(__file__).parents[2] / "schema_attribution_graph.json").read_text())
    made = json.loads(export(graph, partition if divided else None, "circuit-tracer", EPSILON))
    jsonschema_rs.validate(schema, made)
    nodes = {node["node_id"]: node for node in made["nodes"]}
    assert len(nodes) == len(made["nodes"])
    edges = {(f"{a}/{i}", f"{b}/{j}"): w for (a, i), (b, j), w in graph.edges(EPSILON)}
    name = {key: node["clerp"].partition(" ")[0] for key, node in nodes.items()}
    assert {(name[e["source"]], name[e["target"]]): e["weight"] for e in made["links"]} == edges
    assert "all" in made["metadata"]["info"]["description"]
    for node in made["nodes"]:
        cut, coordinate = node["clerp"].partition(" ")[0].rsplit("/", 1)
        label = int(partition.labels[graph.cuts.index(cut)][int(coordinate)]) if divided else 0
        assert made["metadata"]["prompt_tokens"][node["ctx_idx"]] == f"module {label}"
        assert (node["layer"], node["feature_type"]) == {
            "in": ("E", "embedding"),
            "layers.0": ("1", "cross layer transcoder"),
            "out": ("2", "logit"),
        }[cut]
        assert ("(p=" in node["clerp"]) == (cut == "out")
    assert sum(node["is_target_logit"] for node in made["nodes"]) == 1
    assert sum(node["token_prob"] for node in made["nodes"]) == pytest.approx(1)
    assert max(node["influence"] for node in made["nodes"]) == pytest.approx(1)
    grouped = {label: set(members) for label, *members in made["qParams"]["supernodes"]}
    assert set().union(*grouped.values()) == set(made["qParams"]["pinnedIds"]) == set(nodes)
    for label, members in grouped.items():
        assert {made["metadata"]["prompt_tokens"][nodes[m]["ctx_idx"]] for m in members} == {label}


def test_attribution_graph_of_a_large_graph_is_its_strongest_part(graph: InteractionGraph) -> None:
    made = attribution_graph(graph, None, 0.0, most_links=5)
    strongest = sorted((w for *_, w in graph.edges()), reverse=True)[:5]
    assert [link["weight"] for link in made["links"]] == strongest
    assert f"the strongest 5 of {graph.n_edges()}" in made["metadata"]["info"]["description"]
    ends = {link[end] for link in made["links"] for end in ("source", "target")}
    assert {node["node_id"] for node in made["nodes"]} == ends
    wide = InteractionGraph.from_blocks([np.random.default_rng(0).random((150, 150))])
    made = attribution_graph(wide, None, 0.0)
    assert (len(made["links"]), len(made["qParams"]["pinnedIds"])) == (3000, 200)


def test_attribution_graph_is_read_by_circuit_tracer(graph: InteractionGraph, partition: Partition) -> None:
    models = pytest.importorskip("circuit_tracer.frontend.graph_models", reason="circuit-tracer is not installed")
    made = json.loads(export(graph, partition, "circuit-tracer"))
    read = models.Model(**made)
    assert len(read.nodes) == len(made["nodes"])
    assert [len(members) for members in read.qParams.supernodes] == [len(m) for m in made["qParams"]["supernodes"]]
    assert read.metadata.prompt_tokens == ["module 0", "module 1", "no module"]


def test_unknown_format_raises_with_the_known_ones(graph: InteractionGraph) -> None:
    with pytest.raises(GraphError, match="unknown format 'dot': expected one of graphml, gexf, node-link"):
        export(graph, None, "dot")


def test_every_format_is_tested() -> None:
    assert set(FORMATS) == {"graphml", "gexf", "node-link", "circuit-tracer", "safetensors"}


def test_names_of_cuts_with_slashes_stay_apart() -> None:
    graph = InteractionGraph.from_blocks([[[2.0]]], cuts=["a/0", "a"])
    assert set(to_networkx(graph).nodes) == {"a/0/0", "a/0"}
