"""Any graph and division, written for another tool and read back by it, is the same: names, numbers and modules."""

import csv
import io
import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import jsonschema_rs
import networkx
import numpy as np
import pytest
from cases_labels import label_texts
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from interbasis.analysis import InteractionGraph, Partition, score_partition
from interbasis.analysis.basis.bases import Bases, Basis
from interbasis.analysis.errors import GraphError
from interbasis.analysis.exchange.attribution_graph import Names
from interbasis.analysis.exchange.feature_files import feature_number
from interbasis.analysis.exchange.graph_files import FORMATS, export, export_masks, to_networkx
from interbasis.analysis.exchange.labels_file import read_labels

SCHEMA = json.loads((Path(__file__).parents[2] / "schema_attribution_graph.json").read_text())
TEXT = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")
NAMES = st.text(TEXT, min_size=1, max_size=8).filter(lambda name: name == name.strip() and _in_xml(name))
SPECIAL = ("<a>", "&amp;", '"b"', "c'd", "e/0", "é…", "层", "😀", "a,b;c", "tab\tx", "line\nx", "-->", "]]>")
Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]
NETWORKX = ("graphml", "gexf", "node-link")


def _in_xml(name: str) -> bool:
    return not any(0xFDD0 <= ord(c) <= 0xFDEF or ord(c) & 0xFFFE == 0xFFFE for c in name)


def drawn_graph(draw: Draw) -> InteractionGraph:
    """Two to four cuts of any names, some joined across others; strengths of 0, small and large ones."""
    names = draw(st.lists(st.one_of(NAMES, st.sampled_from(SPECIAL)), min_size=2, max_size=4, unique=True))
    widths = [draw(st.integers(1, 3)) for _ in names]
    pairs = list(pairwise(range(len(names))))
    if len(names) > 2 and draw(st.booleans()):
        pairs.append((0, 2))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    blocks = [generator.lognormal(sigma=3, size=(widths[b], widths[a])) for a, b in pairs]
    blocks = [np.where(generator.random(block.shape) < 0.4, 0.0, block) for block in blocks]
    importance = [generator.lognormal(sigma=5, size=width) for width in widths]
    kinds: dict[str, Any] = {"basis": draw(st.sampled_from(["global", "<local>"])), "settings": {"seed": 1}}
    return InteractionGraph.from_blocks(blocks, names, importance, pairs=pairs, **kinds)


def drawn_case(draw: Draw) -> tuple[InteractionGraph, Partition | None]:
    """A graph with a division into up to three modules; nodes without an edge above the cutoff are in none."""
    graph = drawn_graph(draw)
    epsilon = draw(st.sampled_from([1e-4, 1.0, 100.0]))
    if graph.n_edges(epsilon) == 0:
        return graph, None
    joined = {end for *ends, _ in graph.edges(epsilon) for end in ends}
    labels = [
        np.array([draw(st.integers(0, 2)) if (cut, i) in joined else -1 for i in range(width)])
        for cut, width in zip(graph.cuts, graph.widths, strict=True)
    ]
    return graph, score_partition(graph, labels, epsilon)


def nodes_of(graph: InteractionGraph, partition: Partition | None) -> dict[str, dict[str, Any]]:
    """What a file says of each node."""
    labels = [None] * len(graph.cuts) if partition is None else partition.labels
    return {
        f"{cut}/{i}": {"cut": cut, "coordinate": i, "importance": float(weight)}
        | ({} if modules is None else {"module": int(modules[i])})
        for cut, weights, modules in zip(graph.cuts, graph.importance, labels, strict=True)
        for i, weight in enumerate(weights)
    }


def edges_of(graph: InteractionGraph, epsilons: tuple[float, ...]) -> dict[tuple[str, str], float]:
    """Edges above the cutoff, entry by entry."""
    return {
        (f"{graph.cuts[a]}/{i}", f"{graph.cuts[b]}/{j}"): float(block[j, i])
        for (a, b), block, epsilon in zip(graph.pairs, graph.blocks, epsilons, strict=True)
        for j in range(block.shape[0])
        for i in range(block.shape[1])
        if block[j, i] > math.sqrt(epsilon)
    }


def read(content: bytes, form: str) -> networkx.DiGraph:
    if form == "node-link":
        return networkx.node_link_graph(json.loads(content), edges="edges")
    found = {"graphml": networkx.read_graphml, "gexf": networkx.read_gexf}[form](io.BytesIO(content))
    if form == "gexf":  # networkx adds these
        for _, data in found.nodes(data=True):
            data.pop("label")
        for *_, data in found.edges(data=True):
            data.pop("id")
    return found


@pytest.mark.parametrize("form", NETWORKX)
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_networkx_reads_every_node_edge_strength_and_module(form: str, data: st.DataObject) -> None:
    graph, partition = drawn_case(data.draw)
    found = read(export(graph, partition, form), form)
    epsilons = (0.0,) * len(graph.blocks) if partition is None else partition.epsilons
    assert found.is_directed()
    assert dict(found.nodes(data=True)) == nodes_of(graph, partition)
    assert {(a, b): data for a, b, data in found.edges(data=True)} == {
        ends: {"strength": w} for ends, w in edges_of(graph, epsilons).items()
    }
    if form != "gexf":
        assert found.graph["basis"] == graph.basis
        assert found.graph["epsilon"] == epsilons[0]
        assert list(found) == list(nodes_of(graph, partition)), "in order of computation"


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=20, deadline=None)
@given(text=label_texts, other=label_texts)
@example(text="\u202b\u05e9\u05dc\u05d5\u05dd\u202c <script>alert(1)</script>&amp; ", other="]]>")
def test_labels_are_kept_as_they_are(form: str, text: str, other: str) -> None:
    graph = InteractionGraph.from_blocks([[[2.0, 0.5]], [[1.0]]], cuts=["a", "b", "c"])
    partition = score_partition(graph, [np.array([0, 0]), np.array([0]), np.array([0])], 1e-4)
    called = Names({("a", 0): text, ("c", 0): other}, {0: other})
    content = export(graph, partition, form, called=called)
    if form == "safetensors":
        assert content == export(graph, partition, form)
    elif form == "circuit-tracer":
        made = json.loads(content)
        jsonschema_rs.validate(SCHEMA, made)
        titles = {node["jsNodeId"]: node["clerp"] for node in made["nodes"]}
        assert titles == {"0_0-0": text, "0_1-0": "a/1", "1_0-0": "b/0", "2_0-0": f"{other} (p=1.000)"}
        assert [row[0] for row in made["qParams"]["supernodes"]] == [f"module 0: {other}"]
        assert f"module 0: {other}" in made["metadata"]["prompt_tokens"]
    else:
        reader = {"graphml": networkx.read_graphml, "gexf": networkx.read_gexf}.get(form)
        found = read(content, form) if reader is None else reader(io.BytesIO(content))
        assert {name: data.get("label", name) for name, data in found.nodes(data=True)} == {
            **{"a/0": text, "a/1": "a/1", "b/0": "b/0", "c/0": other}
        }
        assert {data["module_label"] for _, data in found.nodes(data=True)} == {other}


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_attribution_graph_holds_what_its_edges_join(data: st.DataObject) -> None:
    graph, partition = drawn_case(data.draw)
    epsilons = (0.0,) * len(graph.blocks) if partition is None else partition.epsilons
    made = json.loads(export(graph, partition, "circuit-tracer"))
    jsonschema_rs.validate(SCHEMA, made)
    expected = edges_of(graph, epsilons)
    name = {node["node_id"]: node["jsNodeId"] for node in made["nodes"]}
    names = {f"{cut}/{i}": f"{p}_{i}-0" for p, cut in enumerate(graph.cuts) for i in range(graph.widths[p])}
    links = {(name[link["source"]], name[link["target"]]): link["weight"] for link in made["links"]}
    assert links == {(names[a], names[b]): w for (a, b), w in expected.items()}
    assert [link["weight"] for link in made["links"]] == sorted(expected.values(), reverse=True)
    assert set(name.values()) == {names[end] for ends in expected for end in ends}
    tokens, about = made["metadata"]["prompt_tokens"], nodes_of(graph, partition)
    shown = {names[node]: values for node, values in about.items()}
    for node in made["nodes"]:
        values = shown[node["jsNodeId"]]
        assert tokens[node["ctx_idx"]] == f"module {values.get('module', 0)}"
        assert node["feature"] == feature_number(graph.cuts.index(values["cut"]), values["coordinate"])
        assert node["activation"] == values["importance"]
        assert node["clerp"].startswith(f"{values['cut']}/{values['coordinate']}")


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_safetensors_give_back_the_same_graph_and_partition(data: st.DataObject) -> None:
    graph, partition = drawn_case(data.draw)
    assert InteractionGraph.from_bytes(export(graph, None, "safetensors")) == graph
    if partition is not None:
        assert Partition.from_bytes(export(graph, partition, "safetensors")) == partition


@settings(max_examples=25, deadline=None)
@given(st.data(), st.sampled_from(["json", "csv", "columns"]))
def test_labels_written_from_an_export_are_the_same_modules(data: st.DataObject, form: str) -> None:
    graph, partition = drawn_case(data.draw)
    if partition is None:
        return
    nodes = dict(read(export(graph, partition, "node-link"), "node-link").nodes(data=True))
    if form == "json":
        content = json.dumps({node: data["module"] for node, data in nodes.items()})
    else:
        names = ("node", "module") if form == "csv" else ("cut", "coordinate", "module")
        rows = [{"node": node, **data} for node, data in nodes.items()]
        stream = io.StringIO(newline="")
        csv.writer(stream).writerows([names, *([row[name] for name in names] for row in rows)])
        content = stream.getvalue()
    again = score_partition(graph, read_labels(content.encode(), graph), partition.epsilons)
    assert [found.tolist() for found in again.labels] == [labels.tolist() for labels in partition.labels]
    assert (again.modules, again.edge_cost) == (partition.modules, partition.edge_cost)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-12, 1e12), st.sampled_from([form for form in FORMATS if form != "safetensors"]))
def test_edge_is_above_the_root_of_epsilon_and_not_at_it(epsilon: float, form: str) -> None:
    cutoff = math.sqrt(epsilon)
    strengths = [[cutoff, math.nextafter(cutoff, math.inf), math.nextafter(cutoff, 0.0)]]
    graph = InteractionGraph.from_blocks([strengths], ["in", "out"])
    content = export(graph, None, form, epsilon)
    if form == "circuit-tracer":
        made = json.loads(content)
        assert [link["weight"] for link in made["links"]] == [strengths[0][1]]
        assert {node["jsNodeId"] for node in made["nodes"]} == {"0_1-0", "1_0-0"}
    else:
        assert list(read(content, form).edges(data="strength")) == [("in/1", "out/0", strengths[0][1])]


@pytest.mark.parametrize("form", NETWORKX)
def test_graph_without_edges_keeps_its_nodes(form: str) -> None:
    for blocks, epsilon in (([[[0.0, 0.0]]], None), ([[[1.0, 0.5]]], 1.0)):
        graph = InteractionGraph.from_blocks(blocks, ["in", "out"])
        found = read(export(graph, None, form, epsilon), form)
        assert set(found) == {"in/0", "in/1", "out/0"}
        assert found.number_of_edges() == 0


def test_attribution_graph_without_edges_is_empty_and_keeps_to_its_schema() -> None:
    made = json.loads(export(InteractionGraph.from_blocks([[[1.0, 0.5]]]), None, "circuit-tracer", 1.0))
    jsonschema_rs.validate(SCHEMA, made)
    assert (made["nodes"], made["links"], made["qParams"]["pinnedIds"]) == ([], [], [])
    assert made["qParams"]["clickedId"] == ""


def test_partition_with_a_larger_epsilon_has_nodes_and_modules_but_no_edges() -> None:
    graph = InteractionGraph.from_blocks([2 * np.eye(2)], ["in", "out"])
    partition = score_partition(graph, [np.arange(2)] * 2, 1.0)
    found = to_networkx(graph, partition, 4.0)
    assert dict(found.nodes(data="module")) == {"in/0": 0, "in/1": 1, "out/0": 0, "out/1": 1}
    assert found.number_of_edges() == 0


@pytest.mark.parametrize("form", ["graphml", "gexf"])
@pytest.mark.parametrize("character", ["\x00", "\x07", "\r", "\x1f", "\ud800", "\ufffe", "\uffff"])
def test_character_that_xml_cannot_hold_is_refused_by_name(form: str, character: str) -> None:
    graph = InteractionGraph.from_blocks([[[2.0]]], ["in", f"a{character}b"])
    with pytest.raises(GraphError) as raised:
        export(graph, None, form)
    said = f"the name {f'a{character}b'!r} has the character {character!r}, which XML cannot hold"
    assert str(raised.value).startswith(said)
    assert export(graph, None, "node-link")


@pytest.mark.parametrize("name", SPECIAL)
def test_names_special_in_xml_and_json_arrive(name: str) -> None:
    graph = InteractionGraph.from_blocks([[[2.0]]], [name, "out"])
    for form in NETWORKX:
        assert dict(read(export(graph, None, form), form).nodes(data="cut")) == {f"{name}/0": name, "out/0": "out"}


# --- masks


def basis_of(cut: str, k: int, d: int, seed: int) -> Basis:
    to_basis = np.random.default_rng(seed).normal(size=(k, d))
    ones = np.ones
    return Basis(
        cut, "global", np.arange(d) / 2, to_basis, np.linalg.pinv(to_basis), ones(k), ones(d), ones(k), ones((0, k))
    )


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_masks_hold_the_bases_and_every_node_once(data: st.DataObject) -> None:
    graph, partition = drawn_case(data.draw)
    if partition is None:
        return
    bases = Bases(
        tuple(basis_of(cut, k, k + 2, i) for i, (cut, k) in enumerate(zip(graph.cuts, graph.widths, strict=True)))
    )
    held = load(export_masks(bases, graph, partition))
    assert set(held) == {f"{cut}/{name}" for cut in graph.cuts for name in ("mean", "to_basis", "from_basis", "masks")}
    for cut, labels in zip(graph.cuts, partition.labels, strict=True):
        for name in ("mean", "to_basis", "from_basis"):
            np.testing.assert_array_equal(held[f"{cut}/{name}"], getattr(bases[cut], name))
        masks = held[f"{cut}/masks"]
        assert masks.dtype == bool
        assert masks.shape == (partition.n_modules, len(labels))
        np.testing.assert_array_equal(masks.sum(0), 1)
        known = labels >= 0
        np.testing.assert_array_equal(masks.argmax(0)[known], labels[known])


def test_node_in_no_module_has_the_mask_of_its_strongest_partner() -> None:
    """The weak node shares .3^2 with module 1 and .2^2 with module 0."""
    graph = InteractionGraph.from_blocks([[[3.0, 0.0, 0.2], [0.0, 3.0, 0.3]]], ["in", "out"])
    partition = score_partition(graph, [np.array([0, 1, -1]), np.array([0, 1])], 1.0)
    bases = Bases((basis_of("in", 3, 3, 0), basis_of("out", 2, 2, 1)))
    held = load(export_masks(bases, graph, partition))
    assert held["in/masks"].tolist() == [[True, False, False], [False, True, True]]


@pytest.mark.parametrize("cuts", [("in", "middle"), ("out", "in"), ("in",)])
def test_bases_of_other_cuts_or_widths_are_refused(cuts: tuple[str, ...]) -> None:
    graph = InteractionGraph.from_blocks([2 * np.eye(2)], ["in", "out"])
    partition = score_partition(graph, [np.arange(2)] * 2, 1.0)
    for bases in (
        Bases(tuple(basis_of(cut, 2, 2, 0) for cut in cuts)),
        Bases((basis_of("in", 2, 2, 0), basis_of("out", 3, 3, 0))),
    ):
        with pytest.raises(GraphError, match=r"the bases of the cuts .* do not belong to this graph"):
            export_masks(bases, graph, partition)
