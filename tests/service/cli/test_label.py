"""The command label: what it lists, stores, refuses and goes on with, on a store and through a service."""

import csv
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases_labels import of_module, of_node
from cases_store import partition_parts, partition_values, provenance, register, save_partition

from interbasis.analysis import InteractionGraph
from interbasis.service.cli import app as cli
from interbasis.service.records.graphs import GRAPH, GraphRow, GraphValues
from interbasis.service.records.partitions import PARTITION
from interbasis.service.store.store import Store

Run = Callable[..., tuple[int, str, str]]
SCRIPT = "<script>alert(1)</script> \u05e9\u05dc\u05d5\u05dd"


def save_real(store: Store, strength: float = 1.0) -> GraphRow:
    """A graph with real strengths, 3, 4 and 2 nodes, in place of one that is stored."""
    first = [[float(1 + i + 3 * j) for i in range(3)] for j in range(4)]
    blocks = [first, [[strength, 0.0, 2.0, 0.5], [3.0, 0.0, 0.0, 0.25]]]
    made = InteractionGraph.from_blocks(blocks, ["layers.0", "layers.1", "layers.2"])
    about = {"basis": made.basis, "strengths": made.strengths, "n_nodes": 9, "n_edges": made.n_edges(0.0)}
    values = GraphValues(cuts=made.cuts, widths=made.widths, **about)
    given: dict[str, Any] = {"provenance": provenance(), "values": values, "blobs": {"graph": made.to_bytes()}}
    return store.save_graph(*register(store), **given, force=True)


@pytest.fixture
def partition(sqlite_store: Store) -> str:
    """Two modules that take the nodes of such a graph in turn."""
    return save_partition(sqlite_store, save_real(sqlite_store).id).id


@pytest.fixture
def run(
    sqlite_store: Store, partition: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    monkeypatch.setenv("INTERBASIS_STORE", str(sqlite_store.location.file))
    monkeypatch.setenv("INTERBASIS_ARTIFACTS", str(sqlite_store.location.artifacts))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LOGNAME", "ada")

    def started(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["interbasis", "label", partition, *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return started


def rows(out: str) -> list[tuple[Any, ...]]:
    found = json.loads(out)["items"]
    return [(row["module"] if row["cut"] is None else f"{row['cut']}/{row['node']}", row["text"]) for row in found]


def test_give_list_change_and_remove(run: Run, partition: str) -> None:
    assert run() == (0, f"no labels of {partition}\n", "")
    code, out, err = run("--module", 0, SCRIPT, "--confidence", 0.75)
    assert (code, err) == (0, "")
    assert SCRIPT in out
    assert run("--node", "layers.1/3", "edge", "--author", "bob")[0] == 0
    assert run("--module", 0, "left")[0] == 0
    code, out, _ = run()
    assert [line.split()[:5] for line in out.splitlines()] == [
        ["place", "label", "source", "author", "sure"],
        ["module", "0", "left", "human", "ada"],
        ["layers.1/3", "edge", "human", "bob", "-"],
    ]
    assert rows(run("--json")[1]) == [(0, "left"), ("layers.1/3", "edge")]
    assert rows(run("--node", "1/3", "--json")[1]) == [("layers.1/3", "edge")]
    assert rows(run("--module", 0, "--remove", "--json")[1]) == [(0, None)]
    assert rows(run("--json")[1]) == [("layers.1/3", "edge")]
    assert rows(run("--history", "--json")[1]) == [(0, SCRIPT), ("layers.1/3", "edge"), (0, "left"), (0, None)]
    assert rows(run("--history", "--module", 0, "--json")[1]) == [(0, SCRIPT), (0, "left"), (0, None)]
    code, _, err = run("--module", 0, "--remove")
    assert (code, "module 0 of p-" in err, "has no label of source human" in err) == (2, True, True)


def test_long_and_wide_labels_fit_the_terminal(run: Run) -> None:
    run("--module", 0, "\u5c64" * 400)
    run("--node", "layers.1/3", "[red]x[/red] :smile: " + "y" * 200)
    _, out, _ = run()
    assert "[red]x[/red] :smile:" in out
    assert out.count("\u5c64") == 400
    assert max(len(line) + line.count("\u5c64") for line in out.splitlines()) <= 80


REFUSED: list[tuple[list[Any], str]] = [
    (["text"], "a label needs a place: give --node CUT/I or --module M"),
    (["text", "--module", 0, "--node", "layers.1/1"], "a label needs a place"),
    (["text", "--node", "layers.1"], "--node is 'layers.1': expected CUT/I, like layers.2/0"),
    (["text", "--node", "layers.1/9"], "no node 9 at cut 'layers.1'"),
    (["text", "--module", 5], "no module 5 in p-"),
    (["text", "--module", 0, "--remove"], "TEXT and --remove were given: expected one of them"),
    (["", "--module", 0], "the label of module 0 is empty"),
    (["x" * 10_000, "--module", 0], "has 10,000 characters: expected at most 500"),
    (["text", "--module", 0, "--source", "x"], "expected human, import or command:NAME"),
    (["text", "--module", 0, "--confidence", 2], "expected a number between 0 and 1"),
    (["--csv", "/nowhere.csv"], "cannot read /nowhere.csv: No such file"),
    (["--with", "'"], "cannot be read"),
]


def test_what_is_refused(run: Run) -> None:
    for words, said in REFUSED:
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        assert said in " ".join(err.split())
        assert rows(run("--history", "--json")[1]) == []


def test_files_of_labels(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    run("--module", 1, SCRIPT)
    run("--node", "layers.1/3", "edge", "--source", "command:x", "--confidence", 0.5)
    code, out, err = run("-o", file)
    assert (code, out, f"wrote {file}: 2 labels of p-" in err) == (0, "", True)
    (module, node) = csv.DictReader(io.StringIO(file.read_text()))
    assert (module["text"], node["source"], node["confidence"]) == (SCRIPT, "command:x", "0.5")
    before = run("--json")[1]
    assert json.loads(run("--csv", file, "--json")[1]) == json.loads(before)
    file.write_text("text,module\nnew,0\nnone,7\n")
    code, _, err = run("--csv", file)
    assert (code, "no module 7 in p-" in err) == (2, True)
    assert run("--json")[1] == before


ECHO = """
import json, sys
said = json.load(sys.stdin)
place = said["node"] if said["kind"] == "node" else said["module"]
if place == int(sys.argv[1]):
    sys.exit("no idea")
print(said["kind"], place, said["graph"]["model"])
"""


def test_a_command_labels_each_module_and_goes_on_where_it_failed(run: Run, tmp_path: Path) -> None:
    program = tmp_path / "say.py"
    program.write_text(ECHO)
    python = shlex.quote(sys.executable)
    code, out, err = run("--with", f"{python} {program} 1", "--source", "command:say")
    assert (code, out) == (2, "")
    assert "module 1: the command ended with 1: no idea" in err
    assert rows(run("--json")[1]) == [(0, "module 0 digits")]
    code, out, _ = run("--with", f"{python} {program} 0", "--source", "command:say", "--json")
    assert (code, rows(out)) == (0, [(1, "module 1 digits")])
    code, out, err = run("--with", f"{python} {program} 0", "--source", "command:say", "--again")
    assert (code, "module 0: the command ended" in err) == (2, True)
    code, out, _ = run("--with", f"{python} {program} -1", "--node", "layers.1/2", "--json")
    (row,) = json.loads(out)["items"]
    assert (row["text"], row["source"]) == ("node 2 digits", f"command:{Path(sys.executable).name}")


def test_a_command_is_sent_what_is_stored(run: Run, sqlite_store: Store, partition: str, tmp_path: Path) -> None:
    sqlite_store.put_labels(PARTITION, partition, [of_module(SCRIPT, 1), of_node("edge", "layers.1", 3)])
    sent = tmp_path / "sent.json"
    keep = f"sh -c 'cat > {sent}; echo ok'"
    run("--with", keep, "--module", 1)
    said = json.loads(sent.read_text())
    assert (said["kind"], said["module"], said["size"], said["sizes"]) == ("module", 1, 3, [1, 2, 0])
    assert said["labels"] == [{"text": SCRIPT, "author": "ada", "source": "human", "confidence": None}]
    assert [(node["cut"], node["node"]) for node in said["nodes"]][-1] == ("layers.1", 3)
    assert said["nodes"][-1]["labels"][0]["text"] == "edge"
    assert said["links"] == [link.to_json() for link in sqlite_store.get_partition(partition).links]
    run("--with", keep, "--node", "layers.1/2")
    said = json.loads(sent.read_text())
    assert (said["cut"], said["node"], said["module"], said["labels"]) == ("layers.1", 2, 0, [])
    assert said["edges_in"] == [{"cut": "layers.0", "node": i, "module": i % 2, "strength": 7.0 + i} for i in (2, 1, 0)]
    assert said["edges_out"] == [{"cut": "layers.2", "node": 0, "module": 0, "strength": 2.0}]
    assert said["share"] == pytest.approx(said["importance"] / 4)


def test_labels_of_a_run_that_was_killed_are_there(
    run: Run, sqlite_store: Store, partition: str, python: str, tmp_path: Path
) -> None:
    """Each label is stored as it comes; the next run asks only for what is missing."""
    asked, graph = tmp_path / "asked", sqlite_store.get_partition(partition).graph
    command = f"sh -c 'cat >> {asked}; sleep 0.2; echo label'"
    words = [python, "-m", "interbasis.service.cli", "label", graph, "--with", command]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=os.environ)
    deadline = time.monotonic() + 60
    while len(sqlite_store.labels(GRAPH, graph)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = sqlite_store.labels(GRAPH, graph)
    assert 3 <= len(kept) < 9
    asked.unlink()
    done = subprocess.run([*words, "--json"], capture_output=True, text=True, env=os.environ, check=True)
    assert len(json.loads(done.stdout)["items"]) == 9 - len(kept) == len(asked.read_text().splitlines())
    assert [row.text for row in sqlite_store.labels(GRAPH, graph, history=True)] == ["label"] * 9


def test_labels_from_another_partition_say_the_overlap(run: Run, sqlite_store: Store, partition: str) -> None:
    """Two halves, of which none shares more than half of the nodes with a module."""
    graph = sqlite_store.get_partition(partition).graph
    parts = partition_parts() | {"labels": [[0, 0, 0], [0, 1, 1, 1], [1, 1]]}
    given = {"provenance": provenance(1), "values": partition_values(), "blobs": {"partition": b"halves"}}
    other = sqlite_store.save_partition(graph, **given, **parts).id
    sqlite_store.put_labels(PARTITION, other, [of_module("first half", 0), of_module("second half", 1)])
    assert run()[1] == f"no labels of {partition}\n"
    code, out, _ = run("--from", other)
    assert code == 0
    assert f"module 0, human: from {other} module 0, overlap 0.50" in out  # 3 of 6 nodes
    assert f"module 1, human: from {other} module 1, overlap 0.33" in out  # 2 of 6
    assert rows(run("--json")[1]) == [(0, "first half"), (1, "second half")]
    sqlite_store.put_labels(PARTITION, other, [of_module("of a program", 0, source="command:x")])
    code, out, err = run("--from", other)
    assert "not moved: module 1, moved to module 1, which has a label of source human: second half" in err
    assert (code, "of a program" in out, "second half" in out) == (0, True, False)


def test_exports_say_that_labels_are_from_before(
    run: Run,
    sqlite_store: Store,
    partition: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    graph, file = sqlite_store.get_partition(partition).graph, tmp_path / "x.json"
    words = ["interbasis", "export", graph, "--format", "node-link", "-o", str(file)]
    monkeypatch.setattr(sys, "argv", words)

    def exported() -> str:
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
        assert SCRIPT in {node.get("label") for node in json.loads(file.read_text())["nodes"]}
        return capsys.readouterr().err

    sqlite_store.put_labels(GRAPH, graph, [of_node(SCRIPT, "layers.1", 3)])
    assert exported().count("\n") == 1
    assert save_real(sqlite_store, 2.0).id == graph
    assert f"1 of 1 label moved along, or from before it was computed again: `interbasis label {graph}`" in exported()
    sqlite_store.put_labels(GRAPH, graph, [of_node(SCRIPT, "layers.1", 3)])
    assert exported().count("\n") == 1


def test_show_and_removal_say_that_there_are_labels(
    run: Run, sqlite_store: Store, partition: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sqlite_store.put_labels(PARTITION, partition, [of_module(SCRIPT, 1), of_node("edge", "layers.1", 3)])

    def said(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["interbasis", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
        return capsys.readouterr().out

    graph = sqlite_store.get_partition(partition).graph
    assert SCRIPT in said("show", partition)
    assert "layers.1/3" in said("show", graph)
    assert [label["text"] for label in json.loads(said("show", partition, "--json"))["labels"]] == [SCRIPT, "edge"]
    assert "2 labels" in said("rm", graph, "--yes")
