"""Files that are broken or made to do harm: an error of ours that says what is wrong, in little time."""

import json
from pathlib import Path
from typing import Any

import pytest
from cases_attribution import FEATURE, SMALL, attribution, node

from interbasis.analysis import read_graph
from interbasis.analysis.errors import GraphError, InputError
from interbasis.analysis.reading import graph_of_bytes, json_documents

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
        (b'{"nodes": [{"x": 1}], "links": []}', "has no id"),
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
