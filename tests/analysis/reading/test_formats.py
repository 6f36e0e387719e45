"""Graphs of other tools are read as they are, and come back from every format with all that they hold."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pytest
from cases_attribution import ERROR, FEATURE, SMALL, signed
from hypothesis import given, settings
from hypothesis import strategies as st

from interbasis.analysis import InteractionGraph, find_modules, read_graph
from interbasis.analysis.edges import dense
from interbasis.analysis.errors import GraphError, InputError
from interbasis.analysis.exchange import export, to_networkx
from interbasis.analysis.reading import graph_of_bytes

FORMS = ("safetensors", "node-link", "graphml", "gexf", "circuit-tracer")
REAL = ("3plus5-plt", "airplane-clt", "bee-insect-clt", "bee-insect-plt", "clt-dallas", "dallas-austin", "nobel")


def test_an_attribution_graph_keeps_layers_types_signs_and_labels() -> None:
    graph = graph_of_bytes(SMALL)
    assert graph.cuts == ("E", "0", "1", "2", "logits")
    assert graph.widths == (1, 1, 1, 2, 1)
    assert signed(graph)["2_7_1", "4_9_1"] == -0.30000000000000004
    assert all(np.array_equal(np.abs(dense(w)), x) for w, x in zip(graph.weights, graph.matrices, strict=True))
    assert [table.types for table in graph.nodes][2:4] == [(ERROR,), (FEATURE, FEATURE)]
    assert graph.nodes[3].labels == ("bell \x07", None)
    assert graph.nodes[3].positions == (1, 1)
    assert graph.nodes[3].attributes[0] == {"layer": "2", "other": {"deep": [1, None]}}
    assert graph.origin["file"]["metadata"]["nodeThreshold"] == 0.5
    assert graph.to_frame()["weight"].min() == -0.30000000000000004


@pytest.mark.parametrize("form", FORMS)
def test_a_graph_comes_back_whole(form: str) -> None:
    graph = graph_of_bytes(SMALL)
    assert graph_of_bytes(export(graph, None, form)) == graph
    assert graph_of_bytes(export(graph, None, form), format=form) == graph


def test_an_attribution_graph_is_written_as_it_was() -> None:
    written, given = (json.loads(text) for text in (export(graph_of_bytes(SMALL), None, "circuit-tracer"), SMALL))
    key = lambda link: (link["source"], link["target"])  # noqa: E731
    assert sorted(written.pop("links"), key=key) == sorted(given.pop("links"), key=key)
    assert written == given


@pytest.mark.parametrize("name", REAL)
def test_real_attribution_graphs_come_back_whole(real_data: Path, name: str) -> None:
    path = real_data / "attribution_graphs" / f"{name}.json"
    given = json.loads(path.read_text())
    graph = read_graph(path)
    assert signed(graph) == {(link["source"], link["target"]): link["weight"] for link in given["links"]}
    assert json.loads(export(graph, None, "circuit-tracer")) == given
    assert InteractionGraph.from_bytes(graph.to_bytes()) == graph
    assert not any(ERROR in table.types for table in read_graph(path, without=("error",)).nodes)


@pytest.mark.parametrize("form", ["node-link", "graphml", "gexf"])
@pytest.mark.parametrize(
    "name", [name if name == "nobel" else pytest.param(name, marks=pytest.mark.long) for name in REAL]
)
def test_a_real_graph_comes_back_whole_from_other_formats(real_data: Path, name: str, form: str) -> None:
    graph = read_graph(real_data / "attribution_graphs" / f"{name}.json")
    assert graph_of_bytes(export(graph, None, form)) == graph


def test_types_are_left_out_with_their_links() -> None:
    whole, graph = graph_of_bytes(SMALL), graph_of_bytes(SMALL, without=("error",))
    assert graph.cuts == ("E", "0", "2", "logits")
    assert signed(graph) == {ends: w for ends, w in signed(whole).items() if "1_-1_0" not in ends}
    assert graph_of_bytes(export(graph, None, "circuit-tracer")).nodes == graph.nodes
    assert graph_of_bytes(whole.to_bytes(), without=(ERROR,)) == graph_of_bytes(SMALL, without=(ERROR,))
    with pytest.raises(GraphError, match="no node is of the type 'neuron': expected one of cross layer"):
        graph_of_bytes(SMALL, without=("neuron",))
    with pytest.raises(GraphError, match="no link is left"):
        graph_of_bytes(SMALL, without=("transcoder",))


def test_a_graph_that_was_read_has_modules() -> None:
    graph = graph_of_bytes(SMALL)
    assert find_modules(graph, seed=0).cuts == graph.cuts


@st.composite
def drawn(draw: Callable[[st.SearchStrategy[Any]], Any]) -> networkx.DiGraph:
    graph = networkx.DiGraph()
    names = draw(
        st.lists(st.one_of(st.text(min_size=1, max_size=5), st.integers(0, 9)), min_size=2, max_size=6, unique_by=str)
    )
    label = st.dictionaries(st.sampled_from(["label", "kind"]), st.text(max_size=5))
    graph.add_nodes_from((name, draw(label)) for name in names)
    ends = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    weight = st.floats(-1e100, 1e100)
    for a, b in draw(st.lists(st.sampled_from(ends), min_size=1, unique=True)):
        graph.add_edge(a, b, weight=draw(weight))
    return graph


@given(drawn())
@settings(max_examples=10, deadline=None)
def test_any_node_link_graph_comes_back(graph: networkx.DiGraph) -> None:
    for edges in ("edges", "links"):
        text = json.dumps(networkx.node_link_data(graph, edges=edges)).encode()
        read = graph_of_bytes(text)
        expected = {(_id(a), _id(b)): w for a, b, w in graph.edges(data="weight") if w}
        assert signed(read) == expected
        depth = {_id(n): d for d, layer in enumerate(networkx.topological_generations(graph)) for n in layer}
        assert {name: p for p, table in enumerate(read.nodes) for name in table.ids} == depth
        assert [label for table in read.nodes for label in table.labels if label is not None] == [
            data["label"]
            for _, table in enumerate(read.nodes)
            for name in table.ids
            for n, data in graph.nodes(data=True)
            if _id(n) == name and "label" in data
        ]
    for form in ("safetensors", "node-link", "graphml", "gexf"):
        assert graph_of_bytes(export(read, None, form)) == read


def _id(name: Any) -> str:
    return name if isinstance(name, str) else json.dumps(name)


@pytest.mark.parametrize(("form", "write"), [("graphml", networkx.write_graphml), ("gexf", networkx.write_gexf)])
def test_xml_of_others_is_read(form: str, write: Callable[..., None]) -> None:
    graph = networkx.DiGraph()
    graph.add_node("<b>", label="first", layer=10, type="feature")
    graph.add_node("y", label="second", layer=9, type="error")
    graph.add_edge("y", "<b>", weight=-0.1)
    stream = io.BytesIO()
    write(graph, stream)
    read = graph_of_bytes(stream.getvalue())
    assert read.cuts == ("9", "10")
    assert signed(read) == {("y", "<b>"): -0.1}
    assert [table.row(0)["label"] for table in read.nodes] == ["second", "first"]
    assert [table.row(0)["type"] for table in read.nodes] == ["error", "feature"]
    assert read.origin["format"] == form


def test_edge_lists_are_read() -> None:
    read = graph_of_bytes(b"source,target,weight\nNA,b,0.1\nb,'c,-2\nNA,'c,1e-5\n")
    assert read.cuts == ("0", "1", "2")
    assert signed(read) == {("NA", "b"): 0.1, ("b", "'c"): -2.0, ("NA", "'c"): 1e-5}
    assert read.origin["layers"] == "the longest path"
    rows = ["source,target,weight,source_layer,target_layer", "a,b,1,E,3", "b,c,2,3,10", "a,c,3,E,10"]
    layered = graph_of_bytes("\n".join(rows).encode())
    assert layered.cuts == ("E", "3", "10")
    assert graph_of_bytes("\n".join(rows).replace(",", "\t").encode()) == layered
    again = graph_of_bytes(layered.to_frame().to_csv(index=False).encode())
    assert again.cuts == layered.cuts
    assert all(map(np.array_equal, again.weights, layered.weights))


def test_parquet_is_read_or_asks_for_a_library() -> None:
    pandas = pytest.importorskip("pandas")
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match="pip install pyarrow"):
            graph_of_bytes(b"PAR1....")
        return
    stream = io.BytesIO()
    pandas.DataFrame({"source": ["a"], "target": ["b"], "weight": [-0.1]}).to_parquet(stream)
    assert signed(graph_of_bytes(stream.getvalue())) == {("a", "b"): -0.1}


def test_exports_without_names_come_back() -> None:
    blocks = [np.array([[0.5, 0.0], [2.0, 1.0]]), np.array([[1.0, 3.0]])]
    graph = InteractionGraph.from_blocks(blocks, ["z", "a", "m"], [np.array([1.0, 0.1]), np.ones(2), np.ones(1)])
    for form in FORMS[:4]:
        assert graph_of_bytes(export(graph, None, form)) == graph
    older = networkx.node_link_data(to_networkx(graph), edges="edges")
    del older["graph"]["interbasis"]
    read = graph_of_bytes(json.dumps(older).encode())
    assert read.cuts == graph.cuts
    assert all(map(np.array_equal, read.blocks, graph.blocks))


def test_layers_can_be_computed_where_the_file_has_some() -> None:
    graph = graph_of_bytes(SMALL, longest_path=True)
    assert graph.cuts == ("0", "1", "2", "3")
    assert graph.origin["layers"] == "the longest path"
    assert signed(graph) == signed(graph_of_bytes(SMALL))


def test_names_of_layers_follow_the_links_between_them() -> None:
    nodes = [{"id": i, "layer": layer} for i, layer in enumerate(("late", "early", "middle"))]
    links = [{"source": a, "target": b, "weight": 1} for a, b in ((1, 2), (2, 0), (1, 0))]
    assert graph_of_bytes(json.dumps({"nodes": nodes, "links": links}).encode()).cuts == ("early", "middle", "late")
