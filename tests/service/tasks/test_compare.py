"""Comparisons of one graph, of files, of seeds: stored once, gone with either partition; commands, jobs, service."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from cases_checkpoints import WIDTHS, save_inputs, save_mlp
from cases_store import (
    graph_values,
    partition_parts,
    partition_values,
    provenance,
    register,
    save_comparison,
    save_graph,
    save_partition,
    sha,
)

from interbasis.analysis import InteractionGraph
from interbasis.analysis.errors import GraphError
from interbasis.analysis.graph.node_table import NodeTable
from interbasis.service.api.app import create_app
from interbasis.service.cli import app as cli
from interbasis.service.client.client import Client
from interbasis.service.client.in_process import InProcess
from interbasis.service.jobs.steps import Steps
from interbasis.service.records.errors import NotFoundError
from interbasis.service.records.partitions import PARTITION, PartitionDetail
from interbasis.service.store.store import Store
from interbasis.service.tasks.analyze import analyze
from interbasis.service.tasks.partitions import modules
from interbasis.service.tasks.tracking import compare

CHOICES = {"control": False, "resolution": 1.0}  # without null graphs


@pytest.fixture
def store(sqlite_place: Any) -> Iterator[Store]:
    with sqlite_place.open() as opened:
        yield opened


@pytest.fixture
def partition(store: Store, tmp_path: Path) -> PartitionDetail:
    """Two networks side by side: two modules."""
    path = save_mlp(tmp_path / "net.safetensors", blocks=2)
    return analyze(store, path, CHOICES, data=save_inputs(tmp_path / "x.npz", 2 * WIDTHS[0])).partition


def nodes(store: Store, ref: str) -> dict[str, int | None]:
    cuts = store.get_graph(store.get_partition(ref).graph).cuts
    return {f"{cuts[node.cut]}/{node.coordinate}": node.module for node in store.nodes(ref)}


def test_partitions_of_one_graph_are_compared_once(store: Store, partition: PartitionDetail) -> None:
    other = modules(store, partition.graph, {"labels": dict.fromkeys(nodes(store, partition.id), "all")})
    row = compare(store, partition.id, {"other": other.id, "permutations": 19})
    assert (row.other, row.name, row.matched_by, row.n_permutations) == (other.id, other.id, "place", 19)
    assert row.verdict == ("same division" if partition.n_modules == 1 else "no more than chance")
    assert compare(store, partition.id, {"other": other.id, "permutations": 19}) == row
    assert compare(store, partition.id, {"other": other.id, "permutations": 19, "seed": 1}).id != row.id
    again = compare(store, partition.id, {"other": partition.id, "permutations": 9})
    assert (again.verdict, again.ami, again.ari) == ("same division", 1.0, 1.0)
    assert store.check().ok


def test_labels_are_compared_by_the_names_of_nodes(store: Store, partition: PartitionDetail) -> None:
    known = {name: module for name, module in nodes(store, partition.id).items() if module is not None}
    given: dict[str, Any] = {name: f"group {module}" for name, module in known.items()}
    first, second, third = list(given)[:3]
    given |= {first: ["a", "b"], second: None, "elsewhere/0": "a"}
    del given[third]
    row = compare(store, partition.id, {"labels": given, "name": "people.json", "permutations": 9})
    assert (row.name, row.other, row.matched_by) == ("people.json", None, "name")
    assert (row.only_second, row.left_out) == (1, 2)
    assert row.n_nodes + row.only_first == len(known)
    with pytest.raises(GraphError, match="no node into a module in common"):
        compare(store, partition.id, {"labels": {"elsewhere/0": "a"}})


def test_checkpoints_are_matched_by_values(store: Store, partition: PartitionDetail, tmp_path: Path) -> None:
    """The same network with its hidden units in another order has the same modules."""
    weights = save_mlp(tmp_path / "later.safetensors", blocks=2, step=7)
    later = analyze(store, weights, CHOICES, data=tmp_path / "x.npz").partition
    row = compare(store, partition.id, {"other": later.id, "permutations": 9}, data=tmp_path / "x.npz")
    assert (row.matched_by, row.other, row.name) == ("values", later.id, later.id)
    assert row.verdict == "same division"
    plain = compare(store, partition.id, {"other": later.id, "permutations": 9, "align": False})
    assert plain.matched_by == "place"


def test_comparisons_go_with_either_partition(store: Store) -> None:
    graph = save_graph(store).id
    first, second = save_partition(store, graph, 1), save_partition(store, graph, 2)
    one, other = save_comparison(store, first.id, second.id), save_comparison(store, second.id, first.id)
    alone = save_comparison(store, second.id, number=1)
    assert store.comparisons(partition=second.id).items == (one, other, alone)
    assert store.comparisons(partition=first.id).items == (one, other)
    assert store.removal(PARTITION, first.id).along == {"comparisons": 2}
    store.remove(PARTITION, first.id)
    assert store.comparisons().items == (alone,)
    for gone in (one, other):
        with pytest.raises(NotFoundError):
            store.get_comparison(gone.id)
    store.collect(grace=0.0)
    assert store.check().ok


def test_comparisons_are_listed_with_either_side(store: Store) -> None:
    _, dataset = register(store)
    made = []
    for step in (1, 2, 3):
        checkpoint = store.add_checkpoint("digits", sha256=sha(10 + step), step=step)
        blobs = {"graph": b"graph", "bases": b"bases"}
        graph = store.save_graph(
            checkpoint.id, dataset, provenance=provenance(step), values=graph_values(), blobs=blobs
        )
        made.append(save_partition(store, graph.id))
    first, second, third = made
    row = save_comparison(store, first.id, second.id)
    for known in (first, second):
        assert store.comparisons(checkpoint=known.checkpoint).items == (row,)
        assert store.comparisons(step=known.step).items == (row,)
        assert store.comparisons(run=known.run).items == store.comparisons(model=known.model).items == (row,)
    assert store.comparisons(checkpoint=third.checkpoint).items == store.comparisons(partition=third.id).items == ()
    assert store.comparisons(step=third.step).items == ()


def test_comparisons_go_when_a_partition_is_computed_anew(store: Store) -> None:
    graph = save_graph(store).id
    first, second = save_partition(store, graph, 1), save_partition(store, graph, 2)
    save_comparison(store, first.id, second.id)
    save_partition(store, graph, 2, force=True)
    assert len(store.comparisons().items) == 1, "the same partition"
    given = {"provenance": provenance(2), "values": partition_values(), **partition_parts()}
    store.save_partition(graph, **given, blobs={"partition": b"another one"}, force=True)
    assert store.comparisons().items == ()
    store.collect(grace=0.0)
    assert store.check().ok


def test_services_compare(store: Store, partition: PartitionDetail) -> None:
    body = {"partition": partition.id, "labels": nodes(store, partition.id), "name": "x", "permutations": 9}
    with httpx.Client(transport=InProcess(create_app(store)), base_url="http://127.0.0.1/api/v1") as http:
        answer = http.post("/comparisons", json=body)
        assert answer.status_code == 202
        wrong = http.post("/comparisons", json={"partition": partition.id})
        assert (wrong.status_code, "nothing to compare with" in wrong.json()["detail"]) == (422, True)
        job = store.get_job(answer.json()["id"])
        steps = Steps(store, job.to_json(), lambda _: None)
        with steps.files():
            (made,) = steps.take("compare", {})["results"]
        found = http.get(f"/comparisons/{made['id']}").json()
        assert (found["verdict"], found["name"]) == ("same division", "x")
    with Client("http://127.0.0.1", transport=InProcess(create_app(store))) as client:
        assert client.comparison(made["id"]).verdict == "same division"
        assert client.comparisons(partition=partition.id).items == (client.get_comparison(made["id"]),)


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["interbasis", *words])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    out, err = capsys.readouterr()
    assert (stopped.value.code or 0) == code, err
    return out, err


def test_command(
    store: Store, partition: PartitionDetail, sqlite_place: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--store", sqlite_place.url, "--artifacts", sqlite_place.artifacts]
    content = {name: module for name, module in nodes(store, partition.id).items() if module is not None}
    (tmp_path / "same.json").write_text(json.dumps(content))
    rng = np.random.default_rng(0)
    rows = [f"{name},{rng.integers(3)}" for name in content]
    (tmp_path / "random.csv").write_text("\n".join(["node,label", *rows]))
    files = [str(tmp_path / name) for name in ("same.json", "random.csv")]
    picture = tmp_path / "overlap.png"
    out, err = run(capsys, "compare", partition.id, files[0], "--permutations", "9", "--plot", str(picture), *place)
    assert "same division" in out
    assert "Jaccard" in out
    assert max(map(len, out.splitlines())) <= 80
    assert picture.stat().st_size > 1000
    out, _ = run(capsys, "compare", files[0], files[1], partition.id, "--permutations", "9", "--json", *place)
    between = [("same.json", "random.csv"), (partition.id, "same.json"), (partition.id, "random.csv")]
    assert [(row["first"], row["name"]) for row in json.loads(out)] == between
    assert [row["id"] is None for row in json.loads(out)] == [True, False, False]
    assert [best["jaccard"] for best in json.loads(out)[1]["best"]] == [1.0] * len(set(content.values()))
    shown, _ = run(capsys, "compare", partition.id, *files, "--permutations", "99", *place)
    assert "matched in" in shown
    assert "0 (1.00), " in shown
    assert max(map(len, shown.splitlines())) <= 80
    out, _ = run(capsys, "show", json.loads(out)[1]["id"], *place)
    assert "same.json" in out
    _, err = run(capsys, "compare", partition.id, *place, code=2)
    assert "expected two divisions" in " ".join(err.split())


def test_files_alone_need_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sub").mkdir()
    groups = {f"n{i}": i % 3 for i in range(30)}
    one, other, elsewhere = (tmp_path / name for name in ("one.csv", "other.json", "sub/one.csv"))
    one.write_text("\n".join(["node,label", *(f"{node},{group}" for node, group in groups.items())]))
    other.write_text(
        json.dumps({"qParams": {"supernodes": [[f"g{g}", *(n for n in groups if groups[n] == g)] for g in range(3)]}})
    )
    elsewhere.write_text("node,label\nfoo,1\nbar,2\n")
    place = ["--store", f"sqlite:///{tmp_path}/none.db", "--permutations", "99"]
    out, _ = run(capsys, "compare", str(one), str(other), *place)
    said = " ".join(out.split())
    assert "same division: Every module of one is a module of the other on 30 nodes (p = 0.01 in 99" in said
    assert "permutations over all nodes)" in said
    assert "pairs of files are not stored" in said
    assert not (tmp_path / "none.db").exists()
    _, err = run(capsys, "compare", str(one), str(elsewhere), *place, code=2)
    assert f"'{one}' and '{elsewhere}' put no node into a module in common: they name nodes like 'n0' and 'foo'" in err
    out, _ = run(capsys, "compare", str(one), str(other), str(elsewhere), *place)
    assert f"not compared: {one} and {elsewhere}: " in out
    assert f"not compared: other.json and {elsewhere}: " in out
    out, err = run(capsys, "compare", str(one), str(other), str(elsewhere), "--json", *place)
    assert [(row["first"], row["name"], row["ami"]) for row in json.loads(out)] == [(str(one), "other.json", 1.0)]
    assert err.count("not compared") == 2


def test_files_name_nodes_as_the_graph_of_a_partition_does(
    sqlite_place: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One file names nodes by id, the other by place: they are the same nodes in the graph of the partition."""
    generator = np.random.default_rng(0)
    blocks = [generator.random((4, 3)), generator.random((2, 4))]
    nodes = [(cut, i) for cut, width in (("a", 3), ("b", 4), ("c", 2)) for i in range(width)]
    tables = [NodeTable.from_rows({"id": f"{a}{i}"} for a, i in nodes if a == cut) for cut in "abc"]
    graph = InteractionGraph.from_blocks(blocks, cuts=["a", "b", "c"], nodes=tables, unit="weight")
    with sqlite_place.open() as store:
        of = save_graph(store, content=graph.to_bytes()).id
        partition = modules(store, of, {"labels": {f"{cut}/{i}": i % 2 for cut, i in nodes}}).id
    ids, places = tmp_path / "ids.json", tmp_path / "places.json"
    ids.write_text(json.dumps({f"{cut}{i}": i % 3 for cut, i in nodes}))
    places.write_text(json.dumps({f"{cut}/{i}": i % 3 for cut, i in nodes}))
    place = ["--store", sqlite_place.url, "--artifacts", sqlite_place.artifacts, "--permutations", "99"]
    _, err = run(capsys, "compare", str(ids), str(places), *place, code=2)
    assert "put no node into a module in common" in err
    drawn = tmp_path / "all.png"
    out, err = run(capsys, "compare", str(ids), str(places), partition, "--plot", str(drawn), "--json", *place)
    found = json.loads(out)
    assert [(row["first"], row["name"]) for row in found] == [
        ("ids.json", "places.json"), (partition, "ids.json"), (partition, "places.json")
    ]  # fmt: skip
    assert (found[0]["ami"], found[0]["n_nodes"]) == (1.0, 9)
    assert "within cuts" in found[0]["reason"]
    for name in ("all", "all-1", "all-2", "all-3"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
    assert f"wrote {tmp_path}/all-2.png: {partition} and ids.json" in err
