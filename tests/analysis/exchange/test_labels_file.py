"""Divisions made elsewhere: what is read, what it costs, what is refused."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interbasis.analysis.errors import GraphError, InputError
from interbasis.analysis.exchange.graph_files import to_networkx
from interbasis.analysis.exchange.labels_file import (
    groups_of,
    labels_of,
    read_assignment,
    read_groups,
    read_labels,
    read_partition,
)
from interbasis.analysis.graph.interaction_graph import InteractionGraph
from interbasis.analysis.graph.node_table import NodeTable
from interbasis.analysis.modules.find_modules import find_modules, score_partition

CUTS = ["layers.0:in", "b/c", "out"]


@pytest.fixture(scope="module")
def graph() -> InteractionGraph:
    blocks = [np.kron(np.eye(2), np.ones((2, 2))) + 1e-3, np.kron(np.eye(2), np.ones((2, 2))) + 1e-3]
    return InteractionGraph.from_blocks(blocks, CUTS)


LABELS = [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, -1]]


def rows() -> list[tuple[str, int, int]]:
    return [(cut, i, m) for cut, labels in zip(CUTS, LABELS, strict=True) for i, m in enumerate(labels)]


def as_csv(columns: list[str], lines: list[tuple[Any, ...]]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream).writerows([columns, *lines])
    return stream.getvalue().encode()


FILES = {
    "csv": as_csv(["node", "module"], [(f"{c}/{i}", m) for c, i, m in rows()]),
    "csv, other order, more columns": as_csv(["module", "x", "node"], [(m, 1, f"{c}/{i}") for c, i, m in rows()]),
    "csv of cuts and coordinates": as_csv(["cut", "coordinate", "module"], list(rows())),
    "csv of a spreadsheet": b"\xef\xbb\xbf" + as_csv(["node", "module"], [(f" {c}/{i} ", m) for c, i, m in rows()]),
    "json": json.dumps({f"{c}/{i}": m for c, i, m in rows()}).encode(),
    "json, no module is null": json.dumps({f"{c}/{i}": None if m < 0 else m for c, i, m in rows()}).encode(),
    "json, left out": json.dumps({f"{c}/{i}": m for c, i, m in rows() if m >= 0}).encode(),
    "json, names": json.dumps({f"{c}/{i}": ["left", "right", "none"][m] for c, i, m in rows()}).encode(),
    "json list": json.dumps([{"node": f"{c}/{i}", "module": m} for c, i, m in rows()]).encode(),
}


@pytest.mark.parametrize("name", FILES)
def test_labels_are_read(graph: InteractionGraph, name: str) -> None:
    assert [labels.tolist() for labels in read_labels(FILES[name], graph)] == LABELS


def test_partition_made_elsewhere_costs_what_ours_does(graph: InteractionGraph, tmp_path: Path) -> None:
    ours = find_modules(graph, epsilon=1e-4, k=2)
    nodes = to_networkx(graph, ours).nodes(data="module")
    (tmp_path / "labels.json").write_text(json.dumps(dict(nodes)))
    read = read_partition(tmp_path / "labels.json", graph, 1e-4)
    assert [a.tolist() for a in read.labels] == [a.tolist() for a in ours.labels]
    assert (read.edge_cost, read.mediator_cost) == (ours.edge_cost, ours.mediator_cost)
    assert read.modules == ours.modules


@given(st.lists(st.integers(-1, 3), min_size=12, max_size=12).filter(lambda labels: max(labels) >= 0))
def test_any_labels_come_back(labels: list[int]) -> None:
    graph = InteractionGraph.from_blocks([np.ones((4, 4)), np.ones((4, 4))], CUTS)
    named = {f"{cut}/{i}": labels[4 * p + i] for p, cut in enumerate(CUTS) for i in range(4)}
    read = np.concatenate(read_labels(json.dumps(named).encode(), graph))
    known = np.array(labels) >= 0
    assert (read[~known] == -1).all()
    pairs = set(zip(read[known].tolist(), np.array(labels)[known].tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (b"", GraphError, "put no node into a module"),
        (b"node,module\nout/0,-1\n", GraphError, "put no node into a module"),
        (b"node,modul\nout/0,1\n", InputError, "'node,modul': expected the names of its columns, node,module or"),
        (b"cut,module\nout,1\n", InputError, "'cut,module': expected the names"),
        (b"out/0,1\nout/1,0\n", InputError, "the first line of the file is 'out/0,1': expected the names"),
        (b"[1, 2]", InputError, "no division into modules"),
        (b'{"a":', InputError, "no division into modules"),
        (b"\xff\xfe\x00", InputError, "no division into modules"),
        (b"node,module\nout/4,1\n", GraphError, "name the node 'out/4', which the graph does not have"),
        (b"node,module\nin/0,1\n", GraphError, "expected names like 'layers.0:in/0'"),
        (b"node,module\nout/0,1\nout/0,2\n", GraphError, "names the node 'out/0' twice"),
        (b'{"out/0": 1, "out/0": 2}', GraphError, "names the node 'out/0' twice"),
        (b'{"out/0": 1, " out/0": 2}', GraphError, "names the node 'out/0' twice"),
        (
            b'[{"node": "out/0", "module": 1}, {"node": "out/0", "module": 1}]',
            GraphError,
            "names the node 'out/0' twice",
        ),
        (b"cut,coordinate,module\nout,0,1\nout,0,1\n", GraphError, "names the node 'out/0' twice"),
        (b"[" * 100_000, InputError, "RecursionError: maximum recursion depth exceeded"),
        (b'{"out/0": [1]}', InputError, r"the module of the node 'out/0' is \[1\]: expected a text or a number"),
        (b'{"out/0": {"module": 1}}', InputError, "the module of the node 'out/0' is {'module': 1}: expected a text"),
        (b'{"out": [0, 0, 1, 1]}', InputError, r"the module of the node 'out' is \[0, 0, 1, 1\]"),
        (b'[["out/0", 1]]', InputError, r"the list holds \['out/0', 1\]: expected objects with the names node"),
        (b'[{"node": "out/0"}]', InputError, "KeyError: 'module'"),
        (b'[{"module": 1}]', InputError, "KeyError: 'cut'"),
        (b'[{"cut": "out", "module": 1}]', InputError, "KeyError: 'coordinate'"),
        (b"null", InputError, "the first line of the file is 'null': expected the names of its columns"),
        (b"node;module\nout/0;1\n", InputError, "'node;module': expected the names of its columns"),
        (b"Node,Module\nout/0,1\n", InputError, "'Node,Module': expected the names of its columns"),
        (b"node,module\n,1\n", GraphError, "name the node '', which the graph does not have"),
        (b"node,module\nout/00,1\n", GraphError, "name the node 'out/00'"),
        (b"node,module\nout/-1,1\n", GraphError, "name the node 'out/-1'"),
        (b"node,module\nOUT/0,1\n", GraphError, "name the node 'OUT/0'"),
        (b"cut,coordinate,module\nout,,1\n", GraphError, "name the node 'out/'"),
        (b"cut,coordinate,module\nout,1.0,1\n", GraphError, "name the node 'out/1.0'"),
        (b"node,module\n" + b"x" * 200_000 + b",1\n", InputError, "field larger than field limit"),
        ("node,module\nout/0,1\n".encode("utf-16"), InputError, "'utf-8' codec can't decode byte 0xff"),
        (b'{"out/0": "none", "out/1": null, "out/2": -1, "out/3": NaN}', GraphError, "put no node into a module"),
    ],
)
def test_what_makes_no_sense_is_refused(
    graph: InteractionGraph, content: bytes, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        read_labels(content, graph)


@pytest.mark.parametrize(
    ("module", "label"),
    [
        *((text, -1) for text in ("", "-1", " -1.0 ", "none", "None", "NULL", "nan")),
        *((text, 0) for text in ("first", " first ")),
        *((text, 1) for text in ("0", "0.0", "-2", "First", "no", "1e0")),
    ],
)
def test_texts_of_no_module_and_of_the_same_module(graph: InteractionGraph, module: str, label: int) -> None:
    content = as_csv(["node", "module"], [("out/0", "first"), ("out/1", module)])
    labels = read_labels(content, graph)[2]
    assert labels.tolist() == [0, label, -1, -1]


def test_numbers_of_pandas_are_those_of_json(graph: InteractionGraph) -> None:
    """With a missing module pandas writes all of them as floats."""
    floats = read_labels(b"node,module\nout/0,1.0\nout/1,2.0\nout/2,\nout/3,1.0\n", graph)
    whole = read_labels(b'{"out/0": 1, "out/1": 2, "out/2": null, "out/3": 1}', graph)
    assert [labels.tolist() for labels in floats] == [labels.tolist() for labels in whole]
    assert floats[2].tolist() == [0, 1, -1, 0]


def test_assignment_is_as_written_before_any_graph_is_known() -> None:
    content = as_csv(
        ["module", "node", "note"], [("left", "nowhere/0", "x"), ("3.00", "a/1", "y"), ("3.5", "a/2", "z")]
    )
    assert read_assignment(content) == {"nowhere/0": "left", "a/1": "3", "a/2": "3.5"}
    assert read_assignment(b'{"a/0": true, "a/1": 2.0}') == {"a/0": "True", "a/1": "2"}


def test_modules_are_numbered_as_they_first_appear(graph: InteractionGraph) -> None:
    found = labels_of({"out/3": "z", "b/c/0": "a", "out/0": "z", "layers.0:in/1": "none"}, graph)
    assert [labels.tolist() for labels in found] == [[-1] * 4, [1, -1, -1, -1], [0, -1, -1, 0]]
    assert all(labels.dtype == np.int64 for labels in found)
    with pytest.raises(GraphError, match=r"cuts {'layers.0:in': 4, 'b/c': 4, 'out': 4}"):
        labels_of({"layers.0/0": "1"}, graph)


def test_file_that_is_missing_is_named(graph: InteractionGraph, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"cannot read {re.escape(str(tmp_path / 'none.csv'))}: No such file"):
        read_partition(tmp_path / "none.csv", graph)


def test_epsilon_of_a_partition_made_elsewhere_is_that_asked_for(graph: InteractionGraph, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(as_csv(["node", "module"], [(node, max(0, m)) for node, m in _named()]))
    assert read_partition(file, graph, 0.25).epsilons == (0.25, 0.25)
    assert read_partition(file, graph, (0.25, 0.5)).epsilons == (0.25, 0.5)
    assert read_partition(file, graph, "pairs").epsilon_source == "pairs"
    assert read_partition(file, graph).epsilon_source == "graph"
    with pytest.raises(GraphError, match="no edge above the cutoff"):
        read_partition(file, graph, 100.0)


def _named() -> list[tuple[str, int]]:
    return [(f"{cut}/{i}", module) for cut, i, module in rows()]


def test_node_with_an_edge_needs_a_module(graph: InteractionGraph) -> None:
    labels = read_labels(FILES["json"], graph)
    for scale in (1e-9, tuple(np.full(2, 1e-9))):
        with pytest.raises(
            GraphError, match=r"no module .label -1. but an edge above the cutoff at epsilon 1e-09: give it"
        ):
            score_partition(graph, labels, scale)
    assert score_partition(graph, [*labels[:2], np.array([0, 0, 1, 1])], 1e-9).n_modules == 2


# --- groups, of which a node may be in several


GROUPS = {
    "supernodes": (
        b'{"nodes": [], "qParams": {"supernodes": [["a", "1_2_3", "E_4_0"], ["b", "1_2_3"], ["a", "5_6_7"]]}}',
        {"1_2_3": ("a", "b"), "E_4_0": ("a",), "5_6_7": ("a (2)",)},
    ),
    "supernodes alone": (b'{"supernodes": [["a", "1_2_3"]], "pinnedIds": []}', {"1_2_3": ("a",)}),
    "clusters": (b"node,cluster\np,7\nq,-1\np,7\n", {"p": ("7",), "q": ()}),
    "json": (b'[{"node": "p", "label": "x"}, {"node": "p", "label": "y"}]', {"p": ("x", "y")}),
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups_are_read(tmp_path: Path, name: str) -> None:
    content, expected = GROUPS[name]
    (tmp_path / "groups").write_bytes(content)
    assert read_groups(tmp_path / "groups") == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"qParams": {"supernodes": []}}', "has no supernodes"),
        (b'{"qParams": {"supernodes": [["a"]]}}', r"a supernode is \['a'\]"),
        (b'{"qParams": 3}', "has no supernodes"),
        (b'{"qParams": ', "cannot be read as JSON"),
        (b'{"a":' * 100_000, "cannot be read as JSON"),
        (b"a,b\n1,2\n", "node,module"),
    ],
)
def test_files_without_groups_are_refused(content: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        groups_of(content)


def test_nodes_of_a_graph_that_was_read_are_named_by_id_or_place():
    nodes = [NodeTable.from_rows([{"id": "x"}, {"id": "0"}]), NodeTable.from_rows([{"id": "y"}])]
    graph = InteractionGraph.from_blocks([np.ones((1, 2))], cuts=["a", "b"], nodes=nodes)
    by_id = read_labels(b"node,module\na/x,0\na/0,1\nb/y,1\n", graph)  # a/0 is the node of that id, not the first
    assert [labels.tolist() for labels in by_id] == [[0, 1], [1]]
    by_place = read_labels(b"node,module\na/1,5\nb/0,5\n", graph)
    assert [labels.tolist() for labels in by_place] == [[-1, 0], [0]]
