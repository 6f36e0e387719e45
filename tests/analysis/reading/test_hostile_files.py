"""Files that are broken or made to do harm: an error of ours that says what is wrong, in little time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases_attribution import FEATURE, SMALL, attribution, node

from interbasis.analysis import InteractionGraph, read_graph
from interbasis.analysis.errors import GraphError, InputError
from interbasis.analysis.exchange import export
from interbasis.analysis.reading import KEY, graph_of_bytes, json_documents
from interbasis.analysis.results import decode, encode

CYCLE = [("a", "b", 1), ("b", "c", 1), ("c", "b", 2)]
EMPTY = b'<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="directed"/></graphml>'
TWICE = b'{"nodes": [{"id": 1}, {"id": "1"}], "edges": [{"source": 1, "target": "1", "weight": 1}]}'
TWO = [node("a", FEATURE, "0"), node("b", FEATURE, "1")]
BOMB = b"""<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="directed"><node id="&b;"/></graph>
</graphml>"""


def node_link(links: list[tuple[Any, Any, Any]], **others: Any) -> bytes:
    names = sorted({end for a, b, _ in links for end in (a, b)})
    edges = [{"source": a, "target": b, "weight": w} for a, b, w in links]
    return json.dumps({"nodes": [{"id": name} for name in names], "edges": edges, **others}).encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[" * 1_000_000, "(nested too deeply|expected `object`|Expected `object`)"),
        (b'{"nodes":' + b"[" * 1_000_000, "nested too deeply"),
        (b'{"nodes":[{"id":1}],"edges":[{"source":' + b"[" * 100_000, "nested too deeply"),
        (SMALL[:-40], "truncated"),
        (SMALL[:200], "cannot be read"),
        (b"", "no such column|cannot be read|empty"),
        (b"{}", "expected nodes and links"),
        (b'{"nodes": [], "links": []}', "no nodes"),
        (b'{"nodes": 3, "links": []}', "list of nodes"),
        (b'{"nodes": [{"x": 1}], "links": []}', "node 1 has no id"),
        (b'{"nodes": [{"id": "a"}, {"id": 0}, {"x": 1}], "links": []}', "node 3 has no id"),
        (
            attribution([TWO[0], {**TWO[1], "ctx_idx": 10**30}], [("a", "b", 1.0)]),
            "'b' has the position 10{30}: expect",
        ),
        (
            node_link([("a", "b", 1)]).replace(b'"a"}', b'"a", "position": -9223372036854775809}'),
            "'a' has the position",
        ),
        (attribution(TWO, []), "2 nodes and no links"),
        (attribution(TWO, [("a", "missing", 1.0)]), "link 1 names the target 'missing'"),
        (attribution(TWO, [("a", "b", float("nan"))]), "NaN at byte"),
        (attribution(TWO, [("a", "b", float("-inf"))]), "-Infinity at byte|Infinity at byte"),
        (attribution(TWO, [("a", "b", 7.25)]).replace(b"7.25", b"1e999"), "link 1"),
        (attribution(TWO, [("a", "b", 7.25)]).replace(b"7.25", b'"7"'), "link 1"),
        (attribution(TWO, [("a", "b", 1.0), ("a", "b", 1.0)]), "two links lead from 'a' to 'b'"),
        (attribution(TWO, [("b", "a", 1.0)]), "'b' -> 'a' leads from layer 1 to layer 0"),
        (attribution(TWO, [("a", "a", 1.0)]), "leads from layer 0 to layer 0"),
        (attribution([TWO[0], node("b", FEATURE, "0")], [("a", "b", 1.0)]), "leads from layer 0 to layer 0"),
        (attribution([TWO[0], {**TWO[1], "layer": None}], [("a", "b", 1.0)]), "'b' has no layer"),
        (attribution([TWO[0], {**TWO[1], "node_id": 3}], [("a", "b", 1.0)]), "node 2 has the node_id 3"),
        (
            node_link([("a", "b", 1), ("b", "c", 1), ("c", "b", 2)]),
            "cycle of 2 nodes, '(b' -> 'c' -> 'b|c' -> 'b' -> 'c)'",
        ),
        (node_link([("a", "a", 1)]), "cycle of 1 nodes, 'a' -> 'a'"),
        (node_link([("a", "b", 1)], directed=False), "undirected"),
        (node_link([("a", "b", None)]), "has no weight"),
        (
            b'{"nodes": [{"id": 1}, {"id": "1"}], "edges": [{"source": 1, "target": "1", "weight": 1}]}',
            "two nodes have the id",
        ),
        (BOMB, "document type 'lolz'"),
        (b"<graphml><graph", "cannot be read as graphml"),
        (b"<html></html>", "begins with <html>"),
        (
            b'<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="directed"/></graphml>',
            "no nodes",
        ),
        (b'<gexf xmlns="http://www.gexf.net/1.2draft" version="1.2"></gexf>', "cannot be read as gexf"),
        (b"source,target\na,b\n", "weight is missing"),
        (b"source,target,weight\n", "edge list is empty"),
        (b"source,target,weight\na,b,\n", "weight ''"),
        (b"source,target,weight\na,b,nan\n", "weight nan"),
        (b"source,target,weight,source_layer\na,b,1,0\n", "source_layer alone"),
        (b"source,target,weight,source_layer,target_layer\na,b,1,0,1\nb,c,1,0,2\n", "'b' is in the layers"),
        (b"\x00\x01\x02" * 50, "table|columns"),
    ],
)
def test_wrong_files_are_refused(data: bytes, said: str) -> None:
    with pytest.raises((GraphError, InputError), match=said):
        graph_of_bytes(data)


def test_formats_and_files_must_exist(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="unknown format 'png': expected one of circuit-tracer, node-link"):
        graph_of_bytes(SMALL, format="png")
    with pytest.raises(InputError, match="cannot read"):
        read_graph(tmp_path / "none.json")
    with pytest.raises(GraphError):
        graph_of_bytes(SMALL, format="gexf")


def test_links_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = graph_of_bytes(SMALL)
    tricky = SMALL.replace(b'"weight": 3.0}', b'"note": "}, {", "of": [{"a": 1}, {"b": [[]]}], "weight": 3.0}')
    assert tricky != SMALL
    for size in (1, 7, 60, 200):
        monkeypatch.setattr(json_documents, "_PIECE", size)
        assert graph_of_bytes(SMALL) == whole
        assert graph_of_bytes(tricky) == whole
        with pytest.raises(GraphError, match="link 5 names the source 'none'"):
            graph_of_bytes(SMALL.replace(b'"source": "2_7_1"', b'"source": "none"'))


def test_a_long_cycle_is_named_in_part() -> None:
    links = [(f"n{i}", f"n{(i + 1) % 500}", 1) for i in range(500)]
    with pytest.raises(GraphError, match=r"cycle of 500 nodes.*488 more"):
        graph_of_bytes(node_link(links))


OWN = InteractionGraph.from_blocks([np.arange(1.0, 7.0).reshape(2, 3)])


def changed_export(**said: Any) -> bytes:
    """Our node-link export, with other values in what it says of the whole graph."""
    document = json.loads(export(OWN, None, "node-link"))
    document["graph"][KEY] = json.dumps({**json.loads(document["graph"][KEY]), **said})
    return json.dumps(document).encode()


def test_exports_that_were_not_changed_are_read() -> None:
    assert graph_of_bytes(changed_export()) == OWN


@pytest.mark.parametrize("widths", [[10**12, 2], [3, 10**12], [-(10**12), 10**12 + 5], [3.0, 2], [True, 4], [3, 1]])
def test_exports_must_have_the_nodes_that_they_say(widths: list[Any]) -> None:
    with pytest.raises(GraphError, match="the file has 5 nodes: expected cuts of as many"):
        graph_of_bytes(changed_export(widths=widths))


def test_exports_must_join_different_cuts() -> None:
    with pytest.raises(GraphError, match="names two cuts twice as a pair"):
        graph_of_bytes(changed_export(pairs=[[0, 1]] * 2))


def changed_file(arrays: dict[str, Any], **said: Any) -> bytes:
    """Our own file, with other arrays and settings; an array of None is left out."""
    known, meta = decode("graph", OWN.to_bytes())
    left = {name: array for name, array in {**known, **arrays}.items() if array is not None}
    return encode("graph", left, {**{name: meta[name] for name in meta if name not in ("kind", "schema")}, **said})


def test_saved_graphs_that_were_not_changed_are_read() -> None:
    assert graph_of_bytes(changed_file({})) == OWN


@pytest.mark.parametrize(
    ("arrays", "said", "message"),
    [
        ({}, {"widths": [10**12, 2]}, "and has the importance of "),
        ({}, {"widths": [3, 2, 1]}, "and has the importance of "),
        ({"importance.0": np.ones(100)}, {}, "and has the importance of "),
        ({"importance.0": None}, {}, "and has the importance of "),
        ({"block.0.row_start": np.array([0, 6])}, {}, "block.0 of the file is no matrix"),
        ({"block.0.row_start": None}, {}, "block.0 of the file is no matrix"),
        ({"block.0.earlier": np.array([0, 1, 2, 0, 1, 10**9], np.int32)}, {}, "block.0 of the file is no matrix"),
        ({"block.0.earlier": np.array([0, 1, 2, 0, 1, -1], np.int32)}, {}, "block.0 of the file is no matrix"),
        ({}, {"pairs": [[0, 7]]}, "block.0 of the file is no matrix"),
    ],
)
def test_parts_of_saved_graphs_must_fit(arrays: dict[str, Any], said: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        graph_of_bytes(changed_file(arrays, **said))
