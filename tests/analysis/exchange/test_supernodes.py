"""Modules are written into the attribution graph that they were found in, and nothing else of it changes."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from cases_attribution import ERROR, FEATURE, SMALL, attribution, node

from interbasis.analysis import InteractionGraph, Partition, read_graph, score_partition, write_supernodes
from interbasis.analysis.errors import GraphError
from interbasis.analysis.exchange import export, supernode_params, with_supernodes
from interbasis.analysis.exchange.attribution_graph import Names
from interbasis.analysis.reading import graph_of_bytes

SCHEMA = json.loads((Path(__file__).parents[2] / "schema_attribution_graph.json").read_text())


def divided(graph: InteractionGraph) -> Partition:
    """Cut E, cut 0 and one logit apart from the others."""
    labels = [np.full(width, int(p > 1)) for p, width in enumerate(graph.widths)]
    return score_partition(graph, labels, 1e-12)


def test_modules_become_supernodes_of_the_original() -> None:
    graph = graph_of_bytes(SMALL)
    written = json.loads(with_supernodes(SMALL, graph, divided(graph)))
    given = json.loads(SMALL)
    assert list(written) == list(given)
    assert written["qParams"].pop("supernodes") == [
        ['module 0: bell \x07, Output "x" (p=0.5)', "2_7_1", "1_-1_0", "4_9_1", "2_8_1"],
        ["module 1: Emb: a, <b>bold</b> & 'more'", "E_5_0", "0_1_0"],
    ]
    assert written["qParams"].pop("pinnedIds") == ["2_7_1", "1_-1_0", "4_9_1", "E_5_0", "0_1_0", "2_8_1"]
    for name in ("supernodes", "pinnedIds"):
        del given["qParams"][name]
    assert written == given


def test_labels_of_modules_name_supernodes() -> None:
    graph = graph_of_bytes(SMALL)
    found = supernode_params(graph, divided(graph), Names(modules={1: "capitals " * 20}))
    assert found["supernodes"][1][0].startswith("module 1: capitals capitals")
    assert len(found["supernodes"][1][0]) <= 60


def test_files_are_written_with_the_types_that_the_partition_has(tmp_path: Path) -> None:
    (tmp_path / "original.json").write_bytes(SMALL)
    graph = graph_of_bytes(SMALL, without=("error",))
    write_supernodes(divided(graph), tmp_path / "new.json", into=tmp_path / "original.json")
    members = [
        name for own in json.loads((tmp_path / "new.json").read_bytes())["qParams"]["supernodes"] for name in own
    ]
    assert set(members) >= {"2_7_1", "2_8_1", "4_9_1"}
    assert "1_-1_0" not in members
    other = InteractionGraph.from_blocks([[[1.0]]])
    with pytest.raises(GraphError, match="the partition has the cuts"):
        write_supernodes(score_partition(other, [[0], [0]], 0.1), tmp_path / "x.json", into=tmp_path / "original.json")
    assert not (tmp_path / "x.json").exists()


def test_selections_of_many_types_are_not_tried(tmp_path: Path) -> None:
    nodes = [node(f"n{i}", f"t{i}", str(i // 13)) for i in range(26)]
    original, new = tmp_path / "original.json", tmp_path / "new.json"
    original.write_bytes(attribution(nodes, [(f"n{i}", f"n{i + 13}", 1.0) for i in range(13)]))
    graph = read_graph(original)
    with pytest.raises(GraphError, match=r"nodes of 26 types, too many .*: give the graph of the partition as graph="):
        write_supernodes(divided(graph), new, into=original)
    write_supernodes(divided(graph), new, into=original, graph=graph)
    assert len(json.loads(new.read_bytes())["qParams"]["supernodes"]) == 1


def test_another_original_is_refused() -> None:
    graph = graph_of_bytes(SMALL)
    other = attribution([node("a", FEATURE, "0"), node("b", FEATURE, "1")], [("a", "b", 1.0)])
    with pytest.raises(GraphError, match="has no node"):
        with_supernodes(other, graph, divided(graph))
    with pytest.raises(GraphError, match="expected nodes and links"):
        with_supernodes(b"{}", graph, divided(graph))
    plain = InteractionGraph.from_blocks([[[1.0]]])
    with pytest.raises(GraphError, match="have no ids"):
        supernode_params(plain, score_partition(plain, [[0], [0]], 0.1))


def test_files_are_written_again_with_all_links_or_not_at_all() -> None:
    graph = graph_of_bytes(SMALL)
    for partition in (None, divided(graph)):
        with pytest.raises(GraphError, match="with all its links: leave epsilon out"):
            export(graph, partition, "circuit-tracer", 100.0)
        assert len(json.loads(export(graph, partition, "circuit-tracer"))["links"]) == 5


def test_real_graphs_pass_the_schema_and_stay_as_they_are(real_data: Path, tmp_path: Path) -> None:
    path, new = real_data / "attribution_graphs" / "dallas-austin.json", tmp_path / "new.json"
    graph = read_graph(path, without=("error",))
    write_supernodes(divided(graph), new, into=path)
    written, given = json.loads(new.read_text()), json.loads(path.read_text())
    params = written.pop("qParams")
    validated: dict[str, Any] = {**SCHEMA["properties"]["qParams"]}
    assert list(jsonschema_rs.validator_for(validated).iter_errors(params)) == []
    assert len(params["pinnedIds"]) == 200
    members = [name for own in params["supernodes"] for name in own[1:]]
    assert sorted(members) == sorted(n["node_id"] for n in given["nodes"] if n["feature_type"] != ERROR)
    assert written == {name: value for name, value in given.items() if name != "qParams"}
    exported = json.loads(export(read_graph(path), divided(read_graph(path)), "circuit-tracer"))
    assert exported["nodes"] == given["nodes"]
    assert len(exported["qParams"]["supernodes"]) == 2
