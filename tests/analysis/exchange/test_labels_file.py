"""Divisions made elsewhere: what is read, what it costs, what is refused."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interbasis.analysis.errors import GraphError, InputError
from interbasis.analysis.exchange.graph_files import to_networkx
from interbasis.analysis.exchange.labels_file import read_labels, read_partition
from interbasis.analysis.graph.interaction_graph import InteractionGraph
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
    ],
)
def test_what_makes_no_sense_is_refused(
    graph: InteractionGraph, content: bytes, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        read_labels(content, graph)


def test_node_with_an_edge_needs_a_module(graph: InteractionGraph) -> None:
    labels = read_labels(FILES["json"], graph)
    for scale in (1e-9, tuple(np.full(2, 1e-9))):
        with pytest.raises(GraphError, match="has label -1 but an edge above the cutoff at epsilon 1e-09: give it"):
            score_partition(graph, labels, scale)
    assert score_partition(graph, [*labels[:2], np.array([0, 0, 1, 1])], 1e-9).n_modules == 2
