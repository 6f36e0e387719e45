"""Roles, label coherence and path scores on the command line: what the library says, in tables and JSON."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases_attribution import ERROR, FEATURE, attribution, node
from cases_store import save_graph, save_partition

from interbasis.analysis import InteractionGraph, Partition
from interbasis.analysis.attribution import find_roles, path_scores
from interbasis.analysis.comparison.coherence import label_coherence
from interbasis.service.cli import app as cli
from interbasis.service.records.labels import NewLabel
from interbasis.service.records.partitions import PARTITION
from interbasis.service.store.store import Store
from interbasis.service.tasks.exchange import import_graph
from interbasis.service.tasks.partitions import modules

TOPICS = ("cats and kittens", "stock markets")


def two_topics() -> bytes:
    """Two groups of features in three layers, from their own tokens to their own logits; each has an error."""
    nodes, links = [], []
    for side, topic in enumerate(TOPICS):
        names = [[f"E_{side}_0"], *([f"{layer}_{side}{i}_0" for i in range(4)] for layer in range(3)), [f"3_{side}_1"]]
        kinds = ("embedding", FEATURE, FEATURE, FEATURE, "logit")
        for column, kind, layer in zip(names, kinds, "E0123", strict=True):
            given = {"token_prob": 0.5} if kind == "logit" else {}
            nodes += [node(name, kind, layer, clerp=f"{topic} {name}", **given) for name in column]
        nodes.append(node(f"err_{side}", ERROR, "0"))
        for earlier, later in zip(names[:-1], names[1:], strict=True):
            links += [(a, b, 1.0 + 0.1 * i) for i, a in enumerate(earlier) for b in later]
        links += [(f"err_{side}", name, 0.5) for name in names[2]]
    return attribution(nodes, links)


@pytest.fixture
def place(sqlite_place: Any) -> list[str]:
    return ["--store", sqlite_place.url, "--artifacts", sqlite_place.artifacts]


@pytest.fixture
def stored(sqlite_place: Any, tmp_path: Path) -> tuple[str, str]:
    """IDs of the graph of two topics, and of its division into them."""
    file = tmp_path / "topics.json"
    file.write_bytes(two_topics())
    with sqlite_place.open() as store:
        graph = import_graph(store, file, {})
        loaded = InteractionGraph.from_bytes(store.graph_bytes(graph.id))
        side = {
            f"{cut}/{i}": int(TOPICS[1] in str(label) or name == "err_1")
            for cut, table in zip(loaded.cuts, loaded.nodes, strict=True)
            for i, (name, label) in enumerate(zip(table.ids, table.labels, strict=True))
        }
        return graph.id, modules(store, graph.id, {"labels": side}).id


def opened(store: Store, graph: str, partition: str) -> tuple[InteractionGraph, Partition]:
    whole = InteractionGraph.from_bytes(store.graph_bytes(graph))
    return whole, Partition.from_bytes(store.partition_bytes(partition))


def run(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["interbasis", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    out, err = capsys.readouterr()
    assert (stopped.value.code or 0) == code, err
    assert max(map(len, out.splitlines()), default=0) <= 80 or "--json" in words
    return out, " ".join(err.split())


def test_coherence_takes_the_labels_of_the_graph(
    stored: tuple[str, str], sqlite_place: Any, place: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    graph, partition = stored
    out, _ = run(capsys, "coherence", partition, "--permutations", 99, *place)
    assert "labels agree more within modules: mean cosine" in " ".join(out.split())
    assert "2 without a label" in out
    document = json.loads(run(capsys, "coherence", partition, "--permutations", 99, "--json", *place)[0])
    with sqlite_place.open() as store:
        whole, division = opened(store, graph, partition)
    found = label_coherence(division, [table.labels for table in whole.nodes], n_permutations=99)
    assert (document["value"], document["p_value"], len(document["modules"])) == (found.value, found.p_value, 2)


def test_coherence_takes_labels_from_a_file(
    stored: tuple[str, str], place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, partition = stored
    file = tmp_path / "labels.json"
    file.write_text(json.dumps({"0_00_0": "river", "0_01_0": "river", "1_10_0": "stone", "nowhere": "sky"}))
    document = json.loads(run(capsys, "coherence", partition, file, "--json", *place)[0])
    assert (document["n_labelled"], document["n_unknown"], document["value"]) == (3, 1, 1.0)
    out, _ = run(capsys, "coherence", partition, file, *place)
    assert "1 labels of nodes in no module, or of none" in out


def test_coherence_takes_stored_labels_where_the_graph_has_none(
    sqlite_place: Any, place: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first = [[2.0, 0.1, 0.0], [1.0, 0.0, 0.0], [0.0, 3.0, 2.0], [0.0, 1.0, 2.0]]
    blocks, cuts = [first, [[2.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 2.0]]], ["layers.0", "layers.1", "layers.2"]
    with sqlite_place.open() as store:
        content = InteractionGraph.from_blocks(blocks, cuts=cuts)
        graph = save_graph(store, content=content.to_bytes()).id
        partition = modules(store, graph, {"objective": "kway", "k": 2}).id
    _, err = run(capsys, "coherence", partition, *place, code=2)
    assert f"no node of {graph} has a label: give a file of node and label" in err
    with sqlite_place.open() as store:
        given = [NewLabel(text="round", author="ada", cut=cut, node=0) for cut in cuts]
        store.put_labels(PARTITION, partition, given)
    document = json.loads(run(capsys, "coherence", partition, "--json", *place)[0])
    assert (document["n_labelled"], document["value"], document["verdict"]) == (3, 1.0, "no more than chance")


def test_roles_are_those_of_the_library(
    stored: tuple[str, str], sqlite_place: Any, place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph, partition = stored
    file = tmp_path / "roles.csv"
    out, err = run(capsys, "roles", graph, "--nulls", 19, "--seed", 3, "-o", file, *place)
    assert "roles: nodes with the same inputs and outputs; not modules: nodes that interact" in out
    assert f"wrote {file}" in err
    with sqlite_place.open() as store:
        whole, _ = opened(store, graph, partition)
    found = find_roles(whole, n_null=19, seed=3)
    assert found.reason in " ".join(out.split())
    written = {row["node"]: int(row["module"]) for row in csv.DictReader(file.read_text().splitlines())}
    expected = {
        f"{cut}/{table.ids[i]}": int(role)
        for cut, table, labels in zip(whole.cuts, whole.nodes, found.labels, strict=True)
        for i, role in enumerate(labels)
    }
    assert written == {name: role for name, role in expected.items() if role >= 0}
    document = json.loads(run(capsys, "roles", graph, "--nulls", 19, "--k", 3, "--json", *place)[0])
    assert (document["graph"], document["n_roles"], set(document["roles"].values())) == (graph, 3, {0, 1, 2})
    out, _ = run(capsys, "compare", partition, file, "--permutations", 9, *place)
    assert "roles.csv" in out, "modules are compared with roles"
    _, err = run(capsys, "roles", graph, "-o", "roles.png", *place, code=2)
    assert "expected the name of a .csv file" in err


def test_scores_of_a_graph_and_of_each_module_alone(
    stored: tuple[str, str], sqlite_place: Any, place: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    graph, partition = stored
    with sqlite_place.open() as store:
        whole, division = opened(store, graph, partition)
    document = json.loads(run(capsys, "scores", partition, "--json", *place)[0])
    assert (document["replacement"], document["completeness"]) == (
        path_scores(whole).replacement,
        path_scores(whole).completeness,
    )
    for module in range(2):
        alone = path_scores(whole, division.labels, module)
        assert document["modules"][module] == {
            "module": module,
            "replacement": alone.replacement,
            "completeness": alone.completeness,
        }
        assert (alone.replacement or 1.0) < document["replacement"] < 1.0
    out, _ = run(capsys, "scores", partition, *place)
    assert [line.split()[:2] for line in out.splitlines()[1:4]] == [["the", "whole"], ["module", "0"], ["module", "1"]]
    assert json.loads(run(capsys, "scores", graph, "--json", *place)[0])["modules"] == []


def test_scores_need_embeddings(sqlite_place: Any, place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite_place.open() as store:
        content = InteractionGraph.from_blocks([[[1.0, 2.0]]]).to_bytes()
        graph = save_graph(store, content=content).id
        assert save_partition(store, graph).graph == graph
    _, err = run(capsys, "scores", graph, *place, code=2)
    assert f"{graph} has no embeddings, at which paths start: expected an attribution graph" in err


def test_scores_without_errors_say_so(
    sqlite_place: Any, place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "topics.json"
    file.write_bytes(two_topics())
    run(capsys, "import", file, "--without", "error", *place)
    out, _ = run(capsys, "scores", "last", *place)
    assert "without nodes of type error both are 1 of the whole graph" in out
    assert [cell for cell in out.splitlines()[1].split() if cell == "1"] == ["1", "1"]


def test_roles_of_cuts_with_commas_are_read_again(
    sqlite_place: Any, place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = [np.kron(np.eye(2), np.ones((3, 3))) + 0.1] * 2
    with sqlite_place.open() as store:
        content = InteractionGraph.from_blocks(blocks, cuts=["in, first", 'a "b"', "out"]).to_bytes()
        graph = save_graph(store, content=content).id
    file = tmp_path / "roles.csv"
    document = json.loads(run(capsys, "roles", graph, "--nulls", 19, "--k", 2, "-o", file, "--json", *place)[0])
    assert "in, first/0" in document["roles"]
    written = {row["node"]: int(row["module"]) for row in csv.DictReader(file.read_text().splitlines())}
    assert written == document["roles"]
