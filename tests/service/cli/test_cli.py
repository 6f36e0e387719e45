"""The command line: what it prints, stores and refuses, mostly in this process, at times as users start it."""

import contextlib
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pytest
import torch
import xarray
from cases_checkpoints import WIDTHS, mlp_tensors, save_checkpoint, save_inputs, save_mlp, save_transformer
from safetensors.torch import load_file, save_file

from interbasis.analysis.circuits.experiments import KINDS as EXPERIMENTS
from interbasis.analysis.errors import NumericalError
from interbasis.analysis.graph.interaction_graph import InteractionGraph
from interbasis.analysis.modules.partition import Partition
from interbasis.service.cli import app as cli
from interbasis.service.store.store import Store
from interbasis.service.tasks import analyze as analyze_task
from interbasis.service.terminal import results as display
from interbasis.service.terminal import show

KINDS = ("models", "checkpoints", "datasets", "graphs", "partitions", "ledgers", "llc", "experiments", "trackings")
LONG = "a-rather-long-name-that-somebody-gave-to-a-network-because-everything-was-in-it-2026-11-23"
STRANGE = "[/bold] [red]label:smile:"


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        assert self.code == 0, self.err
        return json.loads(self.out)


@dataclass(frozen=True)
class Files:
    """Two checkpoints and their data: two networks side by side, and one whose names are hard to print."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data.npz"

    @property
    def net(self) -> Path:
        return self.folder / "net.safetensors"

    @property
    def strange(self) -> Path:
        return self.folder / "strange.safetensors"


def environment(store: Path) -> dict[str, str]:
    return {**os.environ, "INTERBASIS_STORE": str(store), "COLUMNS": "80"}


def run_process(store: Path, *arguments: object, python: str = sys.executable) -> Result:
    command = [python, "-m", "interbasis.service.cli", *map(str, arguments)]
    done = subprocess.run(command, env=environment(store), capture_output=True, text=True, timeout=300)
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    made = Files(tmp_path_factory.mktemp("checkpoints"))
    save_inputs(made.data, 2 * WIDTHS[0])
    save_mlp(made.net, blocks=2, model="net", label="final", step=7)
    save_mlp(made.strange, blocks=2, seed=1, model=LONG, label=STRANGE, step=123456789)
    return made


@pytest.fixture(scope="session")
def first(files: Files, python: str) -> tuple[Path, Result]:
    """A store that a process made, and what it said."""
    store = files.folder / "stored" / "store.sqlite"
    return store, run_process(store, "analyze", files.net, files.strange, "--data", files.data, "--json", python=python)


@pytest.fixture
def filled(first: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The store of `first` is the one that commands use; what was stored in it. To be read only."""
    monkeypatch.setenv("INTERBASIS_STORE", str(first[0]))
    items: list[dict[str, Any]] = first[1].document["items"]
    return items


@pytest.fixture
def copied(
    first: tuple[Path, Result], tmp_path: Path, filled: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of that store, to be changed."""
    shutil.copytree(first[0].parent, tmp_path / "copy")
    store = tmp_path / "copy" / first[0].name
    monkeypatch.setenv("INTERBASIS_STORE", str(store))
    return store


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store that commands use does not exist yet."""
    store = tmp_path / "empty" / "store.sqlite"
    monkeypatch.setenv("INTERBASIS_STORE", str(store))
    return store


@pytest.fixture
def interbasis(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs a command in this process, 80 columns wide."""
    for console in (show.out, show.err):
        monkeypatch.setattr(console, "_width", 80)

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["interbasis", *map(str, arguments)])
        code = 0
        capsys.readouterr()
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


def assert_refused(result: Result, *said: str) -> None:
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    for text in said:
        assert text in result.err


def assert_clean(store: Path, kinds: tuple[str, ...] = KINDS) -> None:
    """Nothing of these kinds is stored, and the store is whole."""
    with contextlib.closing(sqlite3.connect(store)) as connection:
        for kind in kinds:
            table = "llc_estimate" if kind == "llc" else kind.removesuffix("s")
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), kind
    with Store.open(str(store)) as opened:
        assert opened.check().ok


def assert_whole(check: Result) -> None:
    document = check.document
    assert [document[name] for name in ("artifacts", "schema", "foreign_keys", "integrity")] == [[]] * 4


# Analyses


def test_analyze_prints_one_document_with_everything_it_stored(first: tuple[Path, Result], files: Files) -> None:
    document = first[1].document
    assert list(document) == ["items"]
    net, strange = document["items"]
    assert [net["checkpoint"][name] for name in ("model", "label", "step")] == ["net", "final", 7]
    assert [strange["checkpoint"][name] for name in ("model", "label")] == [LONG, STRANGE]
    assert net["graph"]["checkpoint"] == net["checkpoint"]["id"]
    assert net["partition"]["graph"] == net["graph"]["id"]
    assert net["graph"]["cuts"] == ["layers.0:in", "layers.0", "layers.1", "layers.2"]
    assert net["partition"]["n_modules"] == len(net["partition"]["modules"])
    assert net["dataset"] == strange["dataset"]
    assert "error" not in first[1].err


def test_analyzing_again_computes_nothing_again(
    interbasis: Callable[..., Result], copied: Path, filled: list[dict[str, Any]], files: Files
) -> None:
    again = interbasis("analyze", files.net, files.strange, "--data", files.data, "--json").document["items"]
    assert again == filled


def test_another_epsilon_keeps_the_graph(
    interbasis: Callable[..., Result], copied: Path, filled: list[dict[str, Any]], files: Files
) -> None:
    options = ("--epsilon", "1e-3", "--json")
    (other,) = interbasis("analyze", files.net, "--data", files.data, *options).document["items"]
    assert other["graph"] == filled[0]["graph"]
    assert other["partition"]["id"] != filled[0]["partition"]["id"]
    assert other["partition"]["epsilon"] == 1e-3


def test_force_computes_again(
    interbasis: Callable[..., Result], copied: Path, filled: list[dict[str, Any]], files: Files
) -> None:
    (again,) = interbasis("analyze", files.net, "--data", files.data, "--force", "--json").document["items"]
    for kind in ("graph", "partition"):
        assert again[kind]["wall_time"] != filled[0][kind]["wall_time"]
        assert again[kind]["recipe"] == filled[0][kind]["recipe"]
    assert again["partition"]["edge_cost"] == pytest.approx(filled[0]["partition"]["edge_cost"])
    assert len(interbasis("ls", "graphs", "--json").document["items"]) == 2
    assert_whole(interbasis("db", "check", "--json"))


def test_options_and_recipe_file_arrive_and_options_go_first(
    interbasis: Callable[..., Result], empty: Path, files: Files, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('basis = "local"\nrotation = "none"\nseed = 3\nresolution = 1.0\nepsilon = 0.5\n')
    options: dict[str, object] = {"--recipe": recipe, "--data": files.data, "--basis": "pca", "--epsilon": 0.01}
    options |= {"--cuts": "layers.0:in, layers.2", "--loss": "mse", "--objective": "layered_cpm"}
    given = [text for option in options.items() for text in option]
    (item,) = interbasis("analyze", files.net, *given, "--json").document["items"]
    chosen = {"basis": "pca", "rotation": "none", "seed": 3, "cuts": ["layers.0:in", "layers.2"], "loss": "mse"}
    assert {name: item["graph"]["recipe"][name] for name in chosen} == chosen
    chosen = {"epsilon": 0.01, "resolution": 1.0, "objective": "layered_cpm", "seed": 3, "mediator_polish": False}
    chosen |= {"chains": "discount", "control": True}
    assert {name: value for name, value in item["partition"]["recipe"].items() if value is not None} == chosen
    assert item["graph"]["widths"] == [8, 6]


def test_cuts_are_scanned_for_on_request(interbasis: Callable[..., Result], empty: Path, files: Files) -> None:
    options = ("--data", files.data, "--cuts", "auto", "--resolution", "1", "--json")
    (item,) = interbasis("analyze", files.net, *options).document["items"]
    assert len(item["graph"]["cuts"]) >= 3
    assert item["graph"]["recipe"]["cuts"] == item["graph"]["cuts"]


def test_factory_builds_a_model_of_family_torch(
    interbasis: Callable[..., Result], empty: Path, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_model.py").write_text("import torch\n\ndef build(k):\n    return torch.nn.Sequential(\n"
        "        torch.nn.Linear(8, k), torch.nn.Tanh(), torch.nn.Linear(k, 2))\n")  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    shapes = {"0.weight": (5, 8), "0.bias": (5,), "2.weight": (2, 5), "2.bias": (2,)}
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    about = {"family": "torch", "config": {"k": 5}, "cuts": ["0:in", "1", "2"]}
    path = save_checkpoint(tmp_path / "own.safetensors", tensors, about)
    options = ("--data", files.data, "--factory", "own_model:build", "--resolution", "1", "--json")
    (item,) = interbasis("analyze", path, *options).document["items"]
    assert item["graph"]["cuts"] == ["0:in", "1", "2"]


def test_workers_are_not_asked_for_a_model_that_they_cannot_build(
    interbasis: Callable[..., Result], empty: Path, tmp_path: Path
) -> None:
    path = save_checkpoint(tmp_path / "own.safetensors", {"0.weight": torch.ones(2, 2)}, {"family": "torch"})
    result = interbasis("submit", "analyze", path)
    assert (result.code, "--factory module:function" in result.err) == (2, True)
    assert interbasis("ls", "checkpoints").out.startswith("no checkpoints stored yet"), "nothing is registered"
    interbasis("register", path)
    result = interbasis("submit", "ledger", "own@last")
    assert (result.code, "which workers do not have" in result.err) == (2, True)


def test_a_figure_of_a_kind(interbasis: Callable[..., Result], filled: list[dict[str, Any]], tmp_path: Path) -> None:
    name, file = filled[1]["graph"]["model"], tmp_path / "p.svg"
    for words in (("graph", f"{name}@last"), ("partitions", "last"), (f"{name}@last",)):
        result = interbasis("plot", *words, "-o", file)
        assert (result.code, result.err) == (0, f"wrote {file}\n")
    for words, said in (
        (("ledger", "last"), "no ledger is stored yet"),
        (("model", "last"), "there are no figures of a model: expected one of partition, graph"),
        (("graph",), "expected [KIND] REF"),
        (("graf", "last"), "did you mean graph?"),
    ):
        result = interbasis("plot", *words, "-o", file)
        assert (result.code, said in " ".join(result.err.split())) == (2, True), result.err


# Lists and single values


@pytest.mark.parametrize("kind", KINDS)
def test_list_as_json_has_items_and_cursor(
    interbasis: Callable[..., Result], filled: list[dict[str, Any]], kind: str
) -> None:
    page = interbasis("ls", kind, "--json").document
    assert list(page) == ["items", "next_cursor", "total"]
    assert (page["next_cursor"], page["total"]) == (None, len(page["items"]))
    assert len(page["items"]) == {"datasets": 1, "ledgers": 0, "llc": 0, "experiments": 0, "trackings": 0}.get(kind, 2)
    if kind not in ("models", "ledgers", "llc", "experiments", "trackings"):
        known = [item[kind.removesuffix("s")]["id"] for item in filled]
        assert {item["id"] for item in page["items"]} == set(known)


@pytest.mark.parametrize("kind", KINDS)
def test_list_shows_whole_ids_within_80_columns(
    interbasis: Callable[..., Result], filled: list[dict[str, Any]], kind: str
) -> None:
    result = interbasis("ls", kind)
    ids = [item["id"] for item in interbasis("ls", kind, "--json").document["items"]]
    assert result.code == 0
    assert max(map(len, result.out.splitlines())) <= 80
    assert all(any(line.startswith(identifier) for line in result.out.splitlines()) for identifier in ids)


def test_pages_follow_one_another(interbasis: Callable[..., Result], filled: list[dict[str, Any]]) -> None:
    one = interbasis("ls", "graphs", "--limit", "1", "--json").document
    two = interbasis("ls", "graphs", "--limit", "1", "--cursor", one["next_cursor"], "--json").document
    assert two["next_cursor"] is None
    assert one["items"] + two["items"] == interbasis("ls", "graphs", "--json").document["items"]
    assert (
        interbasis("ls", "graphs", "--limit", "1", "--all", "--json").document["items"] == one["items"] + two["items"]
    )
    newest = interbasis("ls", "graphs", "--limit", "1").out
    assert two["items"][0]["id"] in newest
    assert (said := re.search("1 of 2: --all lists all, and what follows\n--after (.*)\n", newest))
    assert max(map(len, newest.splitlines())) <= 80
    assert one["items"][0]["id"] in interbasis("ls", "graphs", "--limit", "1", "--after", said.group(1)).out


@pytest.mark.parametrize(
    ("kind", "options", "found"),
    [
        ("graphs", ("--model", "net"), [0]),
        ("partitions", ("--step", "7"), [0]),
        ("checkpoints", ("--step", "123456789"), [1]),
        ("graphs", ("--since", "2h"), [0, 1]),
        ("models", ("--since", "2999-01-01"), []),
        ("partitions", ("--verdict", "refuted"), []),
        ("partitions", ("--model", "net", "--step", "123456789"), []),
    ],
)
def test_lists_are_narrowed(
    interbasis: Callable[..., Result], filled: list[dict[str, Any]], kind: str, options: list[str], found: list[int]
) -> None:
    name = kind.removesuffix("s")
    expected = [(item[name] if name != "model" else {"id": "?"})["id"] for item in filled]
    page = interbasis("ls", kind, *options, "--json").document
    assert [item["id"] for item in page["items"]] == [expected[i] for i in found]
    assert page["total"] == len(found)


def test_lists_are_narrowed_by_what_they_have_only(
    interbasis: Callable[..., Result], filled: list[dict[str, Any]]
) -> None:
    verdict = filled[0]["partition"]["verdict"]
    assert filled[0]["partition"]["id"] in interbasis("ls", "partitions", "--verdict", verdict[:5]).out
    assert interbasis("ls", "partitions", "--verdict", "doubtful").out == "none of 2 partitions fit\n"
    assert_refused(interbasis("ls", "partitions", "--verdict", "good"), "no verdict 'good': expected one of supported,")
    assert_refused(interbasis("ls", "models", "--verdict", "x"), "--verdict: the list of models", "it has --since")
    assert_refused(interbasis("ls", "tokens", "--model", "net"), "cannot be narrowed by it")
    assert_refused(interbasis("ls", "graphs", "--since", "yesterday"), "since is 'yesterday', expected 30min, 2h, 3d")
    assert_refused(interbasis("ls", "graphs", "--model", "none"), "no model 'none'")


def test_lists_name_model_step_and_cuts(interbasis: Callable[..., Result], filled: list[dict[str, Any]]) -> None:
    said = interbasis("ls", "partitions").out
    assert "cuts layers.0:in layers.0 layers.1 layers.2" in said
    assert all(line == line.rstrip() for line in said.splitlines())
    (line,) = [line for line in said.splitlines() if line.startswith(filled[0]["partition"]["id"])]
    assert line.split()[1:3] == ["net", "7"]


@pytest.mark.parametrize("kind", KINDS)
def test_empty_list_says_so(interbasis: Callable[..., Result], empty: Path, kind: str) -> None:
    result = interbasis("ls", kind)
    assert (result.code, result.out.replace("\n", "")) == (0, f"nothing stored yet in {empty}")
    assert interbasis("ls", kind, "--json").document == {"items": [], "next_cursor": None, "total": 0}
    assert not empty.parent.exists()
    Store.open(str(empty)).close()
    assert interbasis("ls", kind).out == f"no {kind} stored yet\n"


@pytest.mark.parametrize(
    "command",
    ["show p-12", "plot p-12 -o x.png", "modules g-12", "track x", "experiment p-12", "cancel j-1", "db check"],
)
def test_reading_makes_no_store(interbasis: Callable[..., Result], empty: Path, command: str) -> None:
    assert_refused(interbasis(*command.split()), f"nothing stored yet in {empty}", "--store")
    assert not empty.parent.exists()


@pytest.mark.parametrize("kind", ["model", "checkpoint", "dataset", "graph", "partition"])
def test_show_needs_no_kind(interbasis: Callable[..., Result], filled: list[dict[str, Any]], kind: str) -> None:
    (row, _) = interbasis("ls", f"{kind}s", "--json").document["items"] * (2 if kind == "dataset" else 1)
    whole = interbasis("show", kind, row["id"], "--json").document
    assert interbasis("show", row["id"], "--json").document == whole
    assert interbasis("show", row["id"][:6], "--json").document == whole


def test_show_without_a_kind_takes_names_of_models_and_checkpoints(
    interbasis: Callable[..., Result], filled: list[dict[str, Any]]
) -> None:
    assert interbasis("show", "net", "--json").document["family"] == "mlp"
    assert interbasis("show", "net@7", "--json").document["step"] == 7
    results = [item[kind] for item in filled for kind in ("graph", "partition")]
    newest = max(results, key=lambda row: str(row["created"]))
    assert interbasis("show", "last", "--json").document["id"] == newest["id"]
    assert_refused(interbasis("show", "net@8"), "has no checkpoint '8'")
    assert_refused(interbasis("show", "partition"), "expected [KIND] ID")
    assert_refused(interbasis("show", "partitionx", "x"), "did you mean partition? expected one of model, run,")
    assert_refused(interbasis("show", "p-ffffffff"), "no partition 'p-ffffffff'")


@pytest.mark.parametrize("kind", ["model", "checkpoint", "dataset", "graph", "partition"])
def test_show_by_id_and_by_its_start(
    interbasis: Callable[..., Result], filled: list[dict[str, Any]], kind: str
) -> None:
    for row in interbasis("ls", f"{kind}s", "--json").document["items"]:
        whole = interbasis("show", kind, row["id"], "--json").document
        assert {name: whole[name] for name in row} == row
        assert interbasis("show", kind, row["id"][:6], "--json").document == whole
        assert interbasis("show", f"{kind}s", row["id"], "--json").document == whole
        text = interbasis("show", kind, row["id"])
        assert text.code == 0
        assert row["id"] in text.out
        assert max(map(len, text.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("kind", "name"),
    [("model", "net"), ("checkpoint", "final"), ("checkpoint", "net@7"), ("checkpoint", "net@final")],
)
def test_show_by_name(interbasis: Callable[..., Result], filled: list[dict[str, Any]], kind: str, name: str) -> None:
    shown = interbasis("show", kind, name, "--json").document
    assert (shown["id"] if kind == "checkpoint" else shown["name"]) == (
        filled[0]["checkpoint"]["id"] if kind == "checkpoint" else "net"
    )


def test_names_are_printed_as_they_are(interbasis: Callable[..., Result], filled: list[dict[str, Any]]) -> None:
    shown = interbasis("show", "checkpoint", filled[1]["checkpoint"]["id"]).out
    assert STRANGE in shown


def test_partition_is_shown_with_modules_and_nodes(
    interbasis: Callable[..., Result], filled: list[dict[str, Any]]
) -> None:
    partition = filled[0]["partition"]
    document = interbasis("show", "partition", partition["id"], "--json").document
    assert len(document["nodes"]) == filled[0]["graph"]["n_nodes"]
    assert {name: document[name] for name in partition} == partition
    text = interbasis("show", "partition", partition["id"]).out
    header = next(i for i, line in enumerate(text.splitlines()) if line.startswith("module "))
    table = text.splitlines()[header + 1 :]
    assert table.index("") == partition["n_modules"]
    assert " ".join(table[partition["n_modules"] :]).split() == f"{partition['verdict']}: {partition['reason']}".split()


def test_analyze_prints_a_table_within_80_columns(
    interbasis: Callable[..., Result], copied: Path, filled: list[dict[str, Any]], files: Files
) -> None:
    text = interbasis("analyze", files.net, files.strange, "--data", files.data).out
    assert max(map(len, text.splitlines())) <= 80
    for item in filled:
        assert item["graph"]["id"] in text
        assert item["partition"]["id"] in text


# Files for other tools


def test_export_of_a_partition_in_every_format(
    interbasis: Callable[..., Result], filled: list[dict[str, Any]], tmp_path: Path
) -> None:
    item = filled[0]
    for form in ("graphml", "node-link", "safetensors"):
        file = tmp_path / f"out.{form}"
        result = interbasis("export", item["partition"]["id"], "--format", form, "-o", file)
        assert (result.code, result.out) == (0, "")
        assert result.err.startswith(f"wrote {file}: partition {item['partition']['id']} of {item['graph']['model']}@")
    graphml = networkx.read_graphml(tmp_path / "out.graphml")
    node_link = networkx.node_link_graph(json.loads((tmp_path / "out.node-link").read_text()), edges="edges")
    assert len(graphml) == len(node_link) == item["graph"]["n_nodes"]
    assert set(graphml.edges) == set(node_link.edges)
    assert len({module for _, module in graphml.nodes(data="module")} - {-1}) == item["partition"]["n_modules"]
    partition = Partition.load(tmp_path / "out.safetensors")
    assert partition.edge_cost == item["partition"]["edge_cost"]


def test_export_of_a_graph(interbasis: Callable[..., Result], filled: list[dict[str, Any]], tmp_path: Path) -> None:
    identifier = filled[0]["graph"]["id"]
    assert interbasis("export", identifier, "--format", "safetensors", "-o", tmp_path / "g.safetensors").code == 0
    graph = InteractionGraph.load(tmp_path / "g.safetensors")
    assert graph.n_edges() == filled[0]["graph"]["n_edges"]
    file = tmp_path / "g.graphml"
    assert interbasis("export", identifier, "--format", "graphml", "--epsilon", "0.01", "-o", file).code == 0
    assert networkx.read_graphml(file).number_of_edges() == graph.n_edges(0.01)


def test_masks_of_a_partition(interbasis: Callable[..., Result], filled: list[dict[str, Any]], tmp_path: Path) -> None:
    item = filled[0]
    file = tmp_path / "masks.safetensors"
    assert interbasis("export", item["partition"]["id"], "--format", "masks", "-o", file).code == 0
    held = load_file(file)
    for cut, width in zip(item["graph"]["cuts"], item["graph"]["widths"], strict=True):
        masks = held[f"{cut}/masks"]
        assert masks.shape == (item["partition"]["n_modules"], width)
        assert (masks.sum(0) == 1).all()
        assert torch.allclose(held[f"{cut}/to_basis"] @ held[f"{cut}/from_basis"], torch.eye(width).double())
    assert_refused(interbasis("export", item["graph"]["id"], "--format", "masks", "-o", file), "masks need modules")


def test_heads_and_mlps_for_other_tools(interbasis: Callable[..., Result], empty: Path, tmp_path: Path) -> None:
    path = save_transformer(tmp_path / "t.safetensors")
    found = interbasis("analyze", path, "--basis", "pca", "--epsilon", "1e-6", "--resolution", "1", "--json").document
    (item,) = found["items"]
    partition, file = item["partition"]["id"], tmp_path / "circuit"
    written = interbasis("export", partition, "--format", "eap", "-o", file)
    assert (written.code, written.out) == (0, ""), written.err
    edges = json.loads(file.read_text())["edges"]
    assert len(edges) == 6 + 3 + 4
    assert edges["input->a0.h0<q>"]["score"] < 1e-20  # the last token is always the same
    assert edges["m0->logits"]["score"] > 0
    assert interbasis("export", partition, "--format", "autocircuit", "-o", file, "--module", 0).code == 0
    scores = torch.load(file, weights_only=True)
    assert scores["blocks.0.hook_q_input"].shape == (2, 1)
    assert scores["blocks.0.hook_resid_post"].shape == (4,)
    assert interbasis("export", item["graph"]["id"], "--format", "eap", "-o", file).code == 0
    assert all(edge["in_graph"] for edge in json.loads(file.read_text())["edges"].values())
    file.unlink()
    for options, said in (
        (("--format", "eap", "--epsilon", "1"), "leave epsilon out"),
        (("--format", "eap", "--module", "99"), "there is no module 99"),
        (
            ("--format", "gexf", "--module", "0"),
            "only for the formats eap, autocircuit, components, not for gexf",
        ),
        (("--format", "gexf", "--epsilon", "nan"), "epsilon is nan"),
        (("--format", "eap", "--data", tmp_path / "none.npz"), "none.npz"),
    ):
        assert_refused(interbasis("export", partition, *options, "-o", file), said)
    assert not file.exists()


def test_network_without_heads_is_no_circuit_of_heads(
    interbasis: Callable[..., Result], filled: list[dict[str, Any]], files: Files, tmp_path: Path
) -> None:
    asked = ("export", filled[0]["partition"]["id"], "--format", "eap", "--data", files.data, "-o", tmp_path / "x")
    assert_refused(interbasis(*asked), "family 'mlp' names no heads and MLPs")


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
@pytest.mark.parametrize("kind", ["graph", "partition"])
def test_plot_is_a_picture(
    interbasis: Callable[..., Result],
    filled: list[dict[str, Any]],
    tmp_path: Path,
    kind: str,
    suffix: str,
    start: bytes,
) -> None:
    file = tmp_path / f"[picture].{suffix}"
    result = interbasis("plot", filled[0][kind]["id"], "-o", file)
    assert (result.code, result.out, result.err) == (0, "", f"wrote {file}\n")
    assert file.read_bytes().startswith(start)
    if suffix == "svg":
        checkpoint = interbasis("show", "checkpoint", filled[0]["checkpoint"]["id"], "--json").document
        assert f"<!-- {checkpoint['model']}, step {checkpoint['step']:,} -->" in file.read_text()


@pytest.mark.parametrize(
    ("kind", "figure"),
    [("graph", "strengths"), ("partition", "membership"), ("partition", "profile"), ("partition", "strengths")],
)
def test_plot_draws_the_figure_asked_for(
    interbasis: Callable[..., Result], filled: list[dict[str, Any]], tmp_path: Path, kind: str, figure: str
) -> None:
    pictures = []
    for name in (figure, "graph"):
        file = tmp_path / f"{name}.png"
        assert interbasis("plot", filled[0][kind]["id"], "-o", file, "--figure", name).code == 0
        pictures.append(file.read_bytes())
    assert pictures[0].startswith(b"\x89PNG")
    assert pictures[0] != pictures[1]


def test_figure_that_a_result_does_not_have_is_refused(
    interbasis: Callable[..., Result], filled: list[dict[str, Any]], tmp_path: Path
) -> None:
    result = interbasis("plot", filled[0]["graph"]["id"], "-o", tmp_path / "a.png", "--figure", "profile")
    assert_refused(result, "no figure 'profile'", "graph, strengths")
    assert list(tmp_path.iterdir()) == []


# Modules of a stored graph, and modules over training


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--k", "2"], {"objective": "kway", "n_modules": 2}),
        (["--epsilon", "pairs"], {"epsilon_source": "pairs"}),
        (["--epsilon", "1e-3,1e-3,2e-3", "--resolution", "1"], {"epsilon_source": "given per pair"}),
        (["--resolution", "1", "--max-size", "9", "--mediator-polish"], {"polished": True}),
    ],
)
def test_modules_of_a_stored_graph(
    interbasis: Callable[..., Result],
    copied: Path,
    filled: list[dict[str, Any]],
    options: list[str],
    said: dict[str, Any],
) -> None:
    graph = filled[0]["graph"]["id"]
    found = interbasis("modules", graph, *options, "--json").document
    assert found["graph"] == graph
    assert {name: found[name] for name in said} == said
    assert interbasis("modules", graph, *options, "--json").document == found
    shown = interbasis("modules", graph, *options).out
    assert found["id"] in shown
    assert max(map(len, shown.splitlines())) <= 80
    stored = interbasis("show", "partition", found["id"], "--json").document
    costs = sum(node["cost"] for node in stored["mediators"])
    assert costs == pytest.approx(stored["mediator_cost"])
    sizes = [module["size"] for module in stored["modules"]]
    if "--max-size" in options:
        assert max(sizes) <= 9


def test_division_made_elsewhere_is_scored_and_stored(
    interbasis: Callable[..., Result], copied: Path, filled: list[dict[str, Any]], tmp_path: Path
) -> None:
    item = filled[0]
    graph, ours = item["graph"]["id"], item["partition"]
    exported = tmp_path / "ours.json"
    assert interbasis("export", ours["id"], "--format", "node-link", "-o", exported).code == 0
    nodes = json.loads(exported.read_text())["nodes"]
    (tmp_path / "labels.json").write_text(json.dumps({node["id"]: node["module"] for node in nodes}))
    lines = [f"{node['id']},{'abcdefgh'[node['module']] if node['module'] >= 0 else ''}" for node in nodes]
    (tmp_path / "labels.csv").write_text("\n".join(["node,module", *lines]))
    asked = ("modules", graph, "--epsilon", repr(ours["epsilon"]), "--labels")
    found = interbasis(*asked, tmp_path / "labels.json", "--json").document
    assert found["id"] != ours["id"]
    for name in ("n_modules", "edge_cost", "mediator_cost", "contrast", "modules"):
        assert found[name] == ours[name]
    assert (found["p_value"], found["stability"]) == (None, None)
    assert interbasis(*asked, tmp_path / "labels.csv", "--json").document == found
    assert found["id"] in interbasis("show", "partition", found["id"]).out
    (split,) = interbasis(
        "experiment", found["id"], "--data", save_inputs(tmp_path / "x.npz", 2 * WIDTHS[0]), "--json"
    ).document["items"]
    assert split["partition"] == found["id"]
    before = interbasis("ls", "partitions", "--json").document
    (tmp_path / "wrong.csv").write_text("node,module\nlayers.9/0,1\n")
    for options, said in (
        ((tmp_path / "wrong.csv",), "the labels name the node 'layers.9/0', which the graph does not have"),
        ((tmp_path / "labels.csv", "--k", "2"), "labels already define a partition: give only epsilon with them"),
        ((tmp_path / "none.csv",), "cannot read"),
    ):
        assert_refused(interbasis(*asked, *options), said)
    assert interbasis("ls", "partitions", "--json").document == before


def test_epsilon_profile_is_a_table_and_a_figure(
    interbasis: Callable[..., Result], filled: list[dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "profile.png"
    options = ("--resolution", "1", "--epsilon-profile", file)
    items = interbasis("modules", filled[0]["graph"]["id"], *options, "--json").document["items"]
    scales = [item["epsilon"] for item in items]
    assert len(scales) > 3
    assert scales == sorted(scales, reverse=True)
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--epsilon", "small"], "'small'"),
        (["--epsilon", "0.1,x"], "'0.1,x'"),
        (["--epsilon", "0.1,0.1"], "2 loss scales"),
        (["--epsilon", "0"], "epsilon is 0"),
        (["--k", "1000"], "k is 1000"),
        (["--k", "2", "--objective", "cpm"], "kway"),
        (["--min-size", "5", "--max-size", "3"], "min_size <= max_size"),
        (["--objective", "surprise"], "layered_modularity"),
        (["--epsilon-profile", "a.txt"], "a.txt"),
    ],
)
def test_bad_choices_of_modules_are_refused(
    interbasis: Callable[..., Result], filled: list[dict[str, Any]], options: list[str], said: str
) -> None:
    before = interbasis("ls", "partitions", "--json").document
    assert_refused(interbasis("modules", filled[0]["graph"]["id"], *options), said)
    assert interbasis("ls", "partitions", "--json").document == before


def save_series(folder: Path) -> list[Path]:
    """Three checkpoints of one model: the first two the same network but for the order of its hidden units."""
    paths = []
    for step, seed in enumerate((0, 0, 1)):
        path = folder / f"step{step}.safetensors"
        save_mlp(path, seed=seed, blocks=2, model="pair", step=10 * step, label=f"moment {step}")
        if step == 1:
            tensors = load_file(path)
            order = torch.randperm(len(tensors["layers.0.bias"]), generator=torch.Generator().manual_seed(0))
            for name in ("layers.0.weight", "layers.0.bias"):
                tensors[name] = tensors[name][order].contiguous()
            tensors["layers.1.weight"] = tensors["layers.1.weight"][:, order].contiguous()
            save_file(tensors, path)
        paths.append(path)
    return paths


@pytest.fixture
def training(tmp_path: Path) -> list[Path]:
    return save_series(tmp_path)


@pytest.fixture(scope="session")
def analysed_series(files: Files) -> tuple[list[Path], Path]:
    """Such checkpoints, and a store with their graphs in the neuron basis. Neither is to be changed."""
    folder = files.folder / "series"
    folder.mkdir()
    paths, store = save_series(folder), folder / "stored" / "store.sqlite"
    with Store.open(str(store)) as opened:
        for path in paths:
            analyze_task.analyze(opened, path, {"basis": "neuron", "resolution": 1.0}, data=files.data)
    return paths, store


@pytest.fixture
def series(empty: Path, analysed_series: tuple[list[Path], Path]) -> list[Path]:
    """These checkpoints; commands use a copy of the store."""
    paths, store = analysed_series
    shutil.copytree(store.parent, empty.parent)
    return paths


def test_track_matches_the_modules_of_all_checkpoints(
    interbasis: Callable[..., Result], series: list[Path], files: Files, tmp_path: Path
) -> None:
    options = ("--data", files.data, "--epsilon", "1e-6", "--resolution", "0.5")
    found = interbasis("track", "pair", *options, "--json").document
    assert found["id"].startswith("t-")
    assert [step["step"] for step in found["steps"]] == [0, 10, 20]
    assert found["steps"][1]["churn"] == pytest.approx(0.0)
    assert found["steps"][1]["sizes"] == found["steps"][0]["sizes"]
    assert found["steps"][1]["tracks"] == found["steps"][0]["tracks"]
    again = interbasis("track", "pair", *options, "--json").document
    assert again == found
    shown = interbasis("show", "tracking", found["id"])
    assert "churn" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    (listed,) = interbasis("ls", "trackings", "--json").document["items"]
    assert listed["id"] == found["id"]
    picture = tmp_path / "tracks.svg"
    assert interbasis("plot", found["id"], "-o", picture).code == 0
    assert all(f"<!-- {text} -->".encode() in picture.read_bytes() for text in ("step", "10", "20"))
    assert_whole(interbasis("db", "check", "--json"))


def test_track_without_aligning_or_with_another_coupling_is_another_result(
    interbasis: Callable[..., Result], series: list[Path], files: Files
) -> None:
    options = ("--data", files.data, "--resolution", "0.5", "--json")
    variants = ([], ["--no-align"], ["--coupling", "0.5"])
    assert len({interbasis("track", "pair", *options, *variant).document["id"] for variant in variants}) == 3


def test_track_says_what_is_missing(
    interbasis: Callable[..., Result], empty: Path, training: list[Path], files: Files
) -> None:
    options = ("--data", files.data, "--resolution", "1")
    assert interbasis("analyze", training[0], *options).code == 0
    assert_refused(interbasis("track", "pair", *options), "1 checkpoint of 'pair'", "tracking needs two")
    assert_refused(interbasis("track", "nothing", *options), "'nothing'")
    assert interbasis("analyze", *training[1:], *options).code == 0
    save_mlp(training[1], seed=5, blocks=2, model="pair", step=10)
    assert_refused(interbasis("track", "pair", *options), "not the checkpoint", "changed")
    training[1].unlink()
    assert_refused(interbasis("track", "pair", *options), str(training[1]))
    assert interbasis("ls", "trackings", "--json").document["items"] == []
    assert interbasis("track", "pair", *options, "--no-align").code == 0


def test_track_follows_the_graphs_that_most_checkpoints_have(
    interbasis: Callable[..., Result], series: list[Path], files: Files
) -> None:
    """A later analysis of one checkpoint in another way changes nothing; the user can name another series."""
    data = ("--data", files.data)
    options = (*data, "--resolution", "0.5", "--no-align")
    for basis, paths in (("pca", series[1:]), ("global", series[2:])):
        assert interbasis("analyze", *paths, *data, "--basis", basis).code == 0
    graphs = {row["id"]: row for row in interbasis("ls", "graphs", "--json").document["items"]}
    newest = {row["basis"]: row["id"] for row in graphs.values()}

    def followed(*more: str) -> list[str]:
        steps = interbasis("track", "pair", *options, *more, "--json").document["steps"]
        return [graphs[step["graph"]]["basis"] for step in steps]

    assert followed() == ["neuron"] * 3
    assert followed("--like", newest["pca"]) == ["pca"] * 2
    said = interbasis("track", "pair", *options).err.splitlines()
    assert said[0].startswith("followed: 3 checkpoints with ")
    assert "basis neuron" in said[0]
    assert [line.split(" with")[0] for line in said[1:]] == [
        f"--like {newest['pca']}: 2 checkpoints",
        f"--like {newest['global']}: 1 checkpoint",
    ]
    assert_refused(interbasis("track", "pair", *options, "--like", newest["global"]), "1 checkpoint of", "needs two")
    assert_refused(interbasis("track", "pair", *options, "--like", "g-none"), "g-none")
    assert interbasis("analyze", files.net, *data).code == 0
    assert_refused(interbasis("track", "net", *options, "--like", newest["pca"]), "of model 'pair', not of 'net'")


# Circuit experiments


@pytest.mark.usefixtures("few_nulls")
def test_experiments_are_run_stored_and_shown(interbasis: Callable[..., Result], copied: Path, files: Files) -> None:
    (item, _) = interbasis("ls", "partitions", "--json").document["items"]
    kinds = [word for kind in EXPERIMENTS for word in ("--kind", kind)]
    asked = ("experiment", item["id"], *kinds, "--draws", 2, "--data", files.data, "--tolerance", 0.5)
    printed = interbasis(*asked)
    assert printed.code == 0, printed.err
    assert max(map(len, printed.out.splitlines())) <= 80
    for said in ("edges join different modules and were cut", "without module 0", "CPR", "that keep loss within 0.5"):
        assert said in printed.out
    assert "made from the same data" in printed.out
    assert "divided again with these loss scales: p-" in printed.out
    rows = interbasis(*asked, "--json").document["items"]
    assert [row["experiment"] for row in rows] == list(EXPERIMENTS)
    assert {row["metric"] for row in rows} == {"loss"}
    assert interbasis("ls", "experiments", "--json").document["items"] == rows
    listed = interbasis("ls", "experiments").out
    assert max(map(len, listed.splitlines())) <= 80
    above, _, *cells = [line.split()[:2] for line in listed.splitlines()]
    assert above == ["all:", "model"]
    assert cells == [[row["id"], row["experiment"]] for row in reversed(rows)], "a line each, newest first"
    assert interbasis("show", "experiment", rows[0]["id"], "--json").document == rows[0]
    shown = {row["experiment"]: interbasis("show", "experiment", row["id"]).out for row in rows}
    assert "isolated" in shown["isolate"]
    assert "outputs that change most" in shown["modules"]
    for row in rows:
        assert row["verdict"] in ("supported", "not told apart from chance", "refuted")
        assert row["verdict"] in shown[row["experiment"]]
        assert row["reason"].split()[0] in shown[row["experiment"]]
    for row in rows:
        picture = copied.with_name(f"{row['experiment']}.png")
        assert interbasis("plot", row["id"], "-o", picture, "--figure", row["experiment"]).code == 0
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert_refused(interbasis("plot", rows[0]["id"], "-o", picture, "--figure", "graph"), "expected one of modules")
    (forced,) = interbasis(*asked[:2], *asked[-6:], "--force", "--json").document["items"]
    assert (forced["id"], forced["summary"]) == (rows[0]["id"], rows[0]["summary"])
    assert_whole(interbasis("db", "check", "--json"))


def test_experiment_says_which_data_it_needs(
    interbasis: Callable[..., Result], filled: list[dict[str, Any]], files: Files
) -> None:
    graph, partition = (filled[0][kind]["id"] for kind in ("graph", "partition"))
    said = f"names no data, and {graph} was computed on 'data', 64 data points: give that file again with --data FILE"
    assert_refused(interbasis("experiment", partition), said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--kind", "isolation"), "kind is 'isolation', expected one of isolate, modules"),
        (("--metric", "recall"), "metric is 'recall', expected one of loss"),
        (("--metric", "accuracy"), "needs targets, and the data have none"),
        (("--replacement", "noise"), "replacement is 'noise', expected one of mean"),
        (("--draws", "-1"), "draws is -1"),
        (("--adversarial", "many"), "--adversarial is 'many': expected numbers of steps with commas"),
        (("--adversarial", "80,20"), "adversarial is [80, 20], expected a list of numbers of steps that ascend"),
    ],
)
def test_experiments_that_make_no_sense_are_refused(
    interbasis: Callable[..., Result], copied: Path, files: Files, options: tuple[str, ...], said: str
) -> None:
    (item, _) = interbasis("ls", "partitions", "--json").document["items"]
    assert_refused(interbasis("experiment", item["id"], "--data", files.data, *options), said)
    assert interbasis("ls", "experiments", "--json").document["items"] == []


# The parameter ledger


@pytest.fixture
def relu(tmp_path: Path) -> list[object]:
    """A ReLU network of 4-6-5-3 whose first unit is dead, and its data, as arguments."""
    tensors = mlp_tensors()
    tensors["layers.0.bias"][0] = -100.0
    about = {"family": "mlp", "config": {"widths": list(WIDTHS), "activation": "relu"}, "step": 7, "label": "net"}
    path = save_checkpoint(tmp_path / "net.safetensors", tensors, about)
    return [path, "--data", save_inputs(tmp_path / "data.npz")]


def test_ledger_is_counted_stored_and_shown(
    interbasis: Callable[..., Result], empty: Path, relu: list[object], tmp_path: Path
) -> None:
    figure = tmp_path / "ledger.png"
    printed = interbasis("ledger", *relu, "--plot", figure)
    assert printed.code == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert max(map(len, printed.out.splitlines())) <= 80
    (row,) = interbasis("ledger", *relu, "--json").document["items"]
    assert row["nominal"] == 6 * 5 + 5 * 7 + 3 * 6
    causes = ("activations", "jacobians", "gating", "synchronised", "unexplained", "effective")
    assert sum(row[name] for name in causes) == row["nominal"]
    assert row["layers"][0]["dead"] == 1
    assert (row["method"], row["lower"], row["upper"]) == ("exact", row["effective"], row["effective"])
    for name in ("nominal", "activations", "Jacobians", "gating", "synchronisation", "unexplained", "effective"):
        assert name in printed.out
    assert f"{row['effective']}" in printed.out
    shown = interbasis("show", "ledger", row["id"])
    assert shown.code == 0
    assert "exact rank of the Hessian" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    (listed,) = interbasis("ls", "ledgers", "--json").document["items"]
    assert listed == row == interbasis("show", "ledger", row["id"], "--json").document
    assert interbasis("ls", "ledgers").out.count(row["id"]) == 1
    assert_whole(interbasis("db", "check", "--json"))


def test_ledger_is_not_counted_twice(interbasis: Callable[..., Result], empty: Path, relu: list[object]) -> None:
    first, again = (interbasis("ledger", *relu, "--json").document["items"] for _ in range(2))
    assert first == again, "wall time and moment included"
    (forced,) = interbasis("ledger", *relu, "--json", "--force").document["items"]
    assert forced["id"] == first[0]["id"]
    assert forced["created"] != first[0]["created"]
    (scaled,) = interbasis("ledger", *relu, "--json", "--epsilon", "0.01").document["items"]
    assert scaled["id"] != forced["id"]
    assert scaled["effective"] < forced["effective"]
    assert scaled["soft"] is not None
    (kl,) = interbasis("ledger", *relu, "--json", "--loss", "kl").document["items"]
    assert kl["effective"] < forced["effective"]


@pytest.mark.parametrize("figure", ["waterfall", "synchronisation", "synchronisation:layers.1.linear"])
def test_figures_of_a_ledger(
    interbasis: Callable[..., Result], empty: Path, relu: list[object], tmp_path: Path, figure: str
) -> None:
    (row,) = interbasis("ledger", *relu, "--json").document["items"]
    file = tmp_path / "figure.svg"
    assert interbasis("plot", row["id"], "-o", file, "--figure", figure).code == 0
    assert file.read_bytes().startswith(b"<?xml")
    assert_refused(interbasis("plot", row["id"], "-o", file, "--figure", "graph"), "waterfall, synchronisation")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--epsilon", "-1"], "epsilon is -1.0"),
        (["--method", "guess"], "method is 'guess', expected one of auto, exact, estimate"),
        (["--tolerance", "0"], "tolerance is 0.0"),
        (["--loss", "l2"], "loss is 'l2', expected one of mse, kl"),
    ],
)
def test_bad_choices_of_a_ledger_are_refused(
    interbasis: Callable[..., Result], empty: Path, relu: list[object], options: list[str], said: str
) -> None:
    assert_refused(interbasis("ledger", *relu, *options), said)
    assert_clean(empty)


# The learning coefficient

SHORT = ("--warmup", 30, "--draws", 60, "--chains", 2, "--kernel", "mala")


def test_llc_is_estimated_stored_and_shown(
    interbasis: Callable[..., Result], empty: Path, relu: list[object], tmp_path: Path
) -> None:
    command = ("llc", *relu, "--epsilon", "1e-3", *SHORT)
    printed = interbasis(*command)
    assert printed.code == 0, printed.err
    assert max(map(len, printed.out.splitlines())) <= 80
    (row,) = interbasis(*command, "--json").document["items"]
    assert (row["mode"], row["loss"], row["n_parameters"], row["n"]) == ("point", "mse", 83, 64)
    assert row["lower"] <= row["value"] <= row["upper"]
    assert row["n_effective"] == 2 * row["value"]
    assert row["epsilon"] == pytest.approx((row["value"] + 1) / row["temperature"])
    (point,) = row["points"]
    assert (point["value"], point["log_volume"], point["diagnostics"]["draws"]) == (row["value"], None, 60)
    for word in ("N_eff", "lambda", "virial", "acceptance", "soft rank", row["verdict"], f"{row['n_effective']:.4g}"):
        assert word in printed.out
    (listed,) = interbasis("ls", "llc", "--json").document["items"]
    shown = interbasis("show", "llc", row["id"])
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "effective draws" in shown.out
    assert listed == row == interbasis("show", "llcs", row["id"], "--json").document
    assert row["id"] in interbasis("ls", "llcs").out

    file = tmp_path / "traces.nc"
    assert interbasis("export", row["id"], "--format", "netcdf", "-o", file).code == 0
    with xarray.open_datatree(file, engine="h5netcdf") as tree:
        assert dict(tree["posterior"]["llc"].sizes) == {"chain": 2, "draw": 60, "epsilon": 1}
    assert_refused(interbasis("export", row["id"], "--format", "graphml", "-o", file), "--format netcdf")
    assert_whole(interbasis("db", "check", "--json"))


def test_llc_is_not_estimated_twice(interbasis: Callable[..., Result], empty: Path, relu: list[object]) -> None:
    command = ("llc", *relu, "--temperature", "1e4", *SHORT, "--json")
    first, again = (interbasis(*command).document["items"] for _ in range(2))
    assert first == again, "wall time and moment included"
    (forced,) = interbasis(*command, "--force").document["items"]
    assert (forced["id"], forced["value"]) == (first[0]["id"], first[0]["value"])
    assert forced["created"] != first[0]["created"]
    part = ("--parameters", "layers.0*", "--parameters", "*bias")
    (some,) = interbasis(*command, *part).document["items"]
    assert some["id"] != forced["id"]
    assert some["n_parameters"] == 4 * 6 + 6 + 5 + 3
    assert some["recipe"]["parameters"] == ["layers.0*", "*bias"]


def test_llc_of_the_divergence_of_probabilities(
    interbasis: Callable[..., Result], empty: Path, relu: list[object]
) -> None:
    command = ("llc", *relu, "--temperature", "1e4", *SHORT, "--json")
    mse, kl = (interbasis(*command, "--loss", loss).document["items"][0] for loss in ("mse", "kl"))
    assert (kl["loss"], kl["n_parameters"], kl["temperature"]) == ("kl", 83, 1e4)
    assert kl["lower"] <= kl["value"] <= kl["upper"]
    assert kl["id"] != mse["id"]
    assert kl["points"][0]["diagnostics"]["soft_rank"] < mse["points"][0]["diagnostics"]["soft_rank"]  # 2 of 3 logits


def test_several_llc_end_with_a_summary(interbasis: Callable[..., Result], empty: Path, relu: list[object]) -> None:
    path, *options = relu
    assert isinstance(path, Path)
    second = path.with_name("second.safetensors")
    save_checkpoint(second, mlp_tensors(), json.loads(path.with_suffix(".json").read_text()) | {"label": "second"})
    command = ("llc", path, second, *options, "--temperature", "1e4", *SHORT)
    lines = interbasis(*command).out.rstrip().splitlines()
    assert lines[-3].split()[:2] == ["checkpoint", "N_eff"]
    assert [line.split()[0] for line in lines[-2:]] == ["net@7", "second@7"]
    assert_refused(interbasis("llc", path, "nowhere.safetensors", *options, "--epsilon", "1"), "no checkpoint nowhere")


def test_llc_curve_has_a_row_per_loss_scale(
    interbasis: Callable[..., Result], empty: Path, relu: list[object], tmp_path: Path
) -> None:
    command = ("llc", *relu, "--curve", *SHORT, "--warmup", 9, "--draws", 20)
    printed = interbasis(*command)
    assert printed.code == 0, printed.err
    assert max(map(len, printed.out.splitlines())) <= 80
    (row,) = interbasis(*command, "--json").document["items"]
    points = row["points"]
    assert (row["mode"], len(points)) == ("curve", 11)
    assert [row[name] for name in ("value", "epsilon")] == [points[0][name] for name in ("value", "epsilon")]
    assert points[0]["log_volume"] == 0
    assert points[-1]["log_volume"] > 0
    assert f"{row['verdict']}: " in printed.out
    ends = [line.split()[-1] for line in printed.out.splitlines() if line.strip()]
    assert all(point["verdict"] in ends for point in points)
    file = tmp_path / "traces.nc"
    assert interbasis("export", row["id"], "--format", "netcdf", "-o", file).code == 0
    with xarray.open_datatree(file, engine="h5netcdf") as tree:
        assert tree["posterior"]["llc"].sizes["epsilon"] == 11
    figure = tmp_path / "curve.svg"
    assert interbasis("plot", row["id"], "-o", figure, "--figure", "curve").code == 0
    assert figure.read_bytes().startswith(b"<?xml")
    assert_refused(interbasis("plot", row["id"], "-o", figure, "--figure", "traces"), "curve")


def test_figure_of_an_llc(interbasis: Callable[..., Result], empty: Path, relu: list[object], tmp_path: Path) -> None:
    figure = tmp_path / "traces.png"
    command = ("llc", *relu, "--temperature", "1e4", *SHORT)
    assert interbasis(*command, "--plot", figure).code == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    (row,) = interbasis("ls", "llc", "--json").document["items"]
    assert_refused(interbasis("plot", row["id"], "-o", figure, "--figure", "curve"), "traces")


def test_verdicts_have_their_colours() -> None:
    colours = {name: str(display.verdict(name).style) for name in ("reliable", "doubtful", "failed")}
    assert colours == {"reliable": "green", "doubtful": "yellow", "failed": "bold red"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "give epsilon for one, or curve for a range"),
        (["--epsilon", "1", "--curve"], "epsilon and curve were given"),
        (["--epsilon", "1", "--temperature", "1"], "epsilon and temperature were given"),
        (["--epsilon", "-1"], "epsilon is -1.0"),
        (["--epsilon", "1", "--kernel", "nuts"], "kernel is 'nuts', expected one of auto, hmc"),
        (
            ["--epsilon", "1", "--preconditioner", "adam"],
            "preconditioner is 'adam', expected one of auto, gauss-newton",
        ),
        (["--epsilon", "1", "--radius", "0"], "radius is 0.0"),
        (["--epsilon", "1", "--chains", "0"], "chains is 0"),
        (["--epsilon", "1", "--loss", "l2"], "loss is 'l2', expected one of mse, kl"),
        (["--epsilon", "1", "--parameters", "nothing*"], "nothing*"),
        (["--epsilon", "1", "--plot", "llc.gif"], "llc.gif"),
    ],
)
def test_bad_choices_of_an_llc_are_refused(
    interbasis: Callable[..., Result], empty: Path, relu: list[object], given: list[str], said: str
) -> None:
    assert_refused(interbasis("llc", *relu, *given), said)
    assert_clean(empty)


def test_netcdf_of_a_graph_is_refused(
    interbasis: Callable[..., Result], filled: list[dict[str, Any]], tmp_path: Path
) -> None:
    for ref in (filled[0]["graph"]["id"], "l-nothing"):
        result = interbasis("export", ref, "--format", "netcdf", "-o", tmp_path / "g.nc")
        assert_refused(result, "netcdf holds the traces of a learning coefficient", ref)


# Refusals


def _truncated(files: Files, folder: Path) -> list[object]:
    path = shutil.copy(files.net, folder / "net.safetensors")
    shutil.copy(files.net.with_suffix(".json"), folder)
    Path(path).write_bytes(files.net.read_bytes()[:-50])
    return [path, "--data", files.data]


def _unknown_family(files: Files, folder: Path) -> list[object]:
    return [save_mlp(folder / "net.safetensors", family="cnn"), "--data", files.data]


def _nan_data(files: Files, folder: Path) -> list[object]:
    np.savez(folder / "nan.npz", inputs=np.full((4, 8), np.nan))
    return [files.net, "--data", folder / "nan.npz"]


def _nan_weights(files: Files, folder: Path) -> list[object]:
    path = save_mlp(folder / "net.safetensors", blocks=2)
    save_file(load_file(path) | {"layers.0.bias": torch.full((12,), torch.nan)}, path)
    return [path, "--data", files.data]


def _recipe(text: str) -> Callable[[Files, Path], list[object]]:
    def write(files: Files, folder: Path) -> list[object]:
        (folder / "recipe.toml").write_text(text)
        return [files.net, "--data", files.data, "--recipe", folder / "recipe.toml"]

    return write


def _options(*options: str) -> Callable[[Files, Path], list[object]]:
    return lambda files, _: [files.net, "--data", files.data, *options]


REFUSED: dict[str, tuple[Callable[[Files, Path], list[object]], list[str]]] = {
    "missing file": (lambda _, folder: [folder / "none.safetensors"], ["there is no checkpoint", "none.safetensors"]),
    "folder": (lambda _, folder: [folder], ["is a folder"]),
    "truncated": (_truncated, ["cannot read", "truncated?"]),
    "unknown family": (_unknown_family, ["unknown family 'cnn'", "known are"]),
    "no data": (lambda files, _: [files.net], ["names no data", "--data FILE"]),
    "NaN data": (_nan_data, ["hold NaN or infinite values"]),
    "NaN weights": (_nan_weights, ["holds NaN or infinite weights"]),
    "unknown cut": (_options("--cuts", "layer.1,layers.2"), ["'layer.1'", "nearest names", "layers.1"]),
    "unknown loss": (_options("--loss", "l2"), ["loss is 'l2', expected one of mse, kl"]),
    "unknown recipe name": (_recipe("bassis = 'pca'"), ["analyze has no choice bassis: did you mean basis?"]),
    "recipe of another type": (_recipe("seed = 'x'"), ["seed is 'x', expected a whole number"]),
    "recipe that is none": (_recipe("= 3"), ["cannot read the recipe", "recipe.toml"]),
    "unknown device": (_options("--device", "tpu"), ["unknown device 'tpu'", "auto, cpu, cuda, mps"]),
    "memory in no unit": (_options("--memory", "much"), ["memory is 'much'", "such as 8GiB"]),
    "too little memory": (_options("--memory", "1KiB"), ["of memory, and 0 MiB are available"]),
    "unknown factory": (_options("--factory", "nowhere:f"), ["'nowhere:f'", "expected module:function"]),
}

REFUSED_LATER: dict[str, tuple[Callable[[Files, Path], list[object]], list[str]]] = {
    "unknown basis": (_options("--basis", "fourier"), ["'fourier'", "expected one of", "local"]),
    "probes and a tolerance": (_options("--probes", "3", "--tolerance", "0.1"), ["probes", "tolerance"]),
    "unknown objective": (_options("--objective", "best"), ["'best'", "layered_cpm"]),
    "negative epsilon": (_options("--epsilon", "-1"), ["epsilon", "-1"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_line_and_leaves_nothing(
    interbasis: Callable[..., Result], empty: Path, files: Files, tmp_path: Path, case: str
) -> None:
    prepare, said = REFUSED[case]
    assert_refused(interbasis("analyze", *prepare(files, tmp_path), "--json"), *said)
    if case == "missing file":
        assert not empty.exists()
    else:
        assert_clean(empty)


@pytest.mark.parametrize("case", REFUSED_LATER)
def test_bad_option_is_refused_in_one_line_and_leaves_no_result(
    interbasis: Callable[..., Result], empty: Path, files: Files, tmp_path: Path, case: str
) -> None:
    prepare, said = REFUSED_LATER[case]
    assert_refused(interbasis("analyze", *prepare(files, tmp_path)), *said)
    assert_clean(empty, ("partitions",))


def test_cut_without_variance_is_refused(interbasis: Callable[..., Result], empty: Path, tmp_path: Path) -> None:
    tensors = mlp_tensors() | {"layers.0.bias": torch.full((WIDTHS[1],), -1e3, dtype=torch.float64)}
    about = {"family": "mlp", "config": {"widths": WIDTHS, "activation": "relu"}}
    path = save_checkpoint(tmp_path / "dead.safetensors", tensors, about)
    data = save_inputs(tmp_path / "data.npz")
    result = interbasis("analyze", path, "--data", data, "--cuts", "layers.0,layers.1,layers.2")
    assert_refused(result, "'layers.0' do not vary")
    assert_clean(empty, ("models", "checkpoints", "datasets", "graphs", "partitions"))


def test_bad_input_is_refused_as_users_see_it(files: Files, tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    assert_refused(run_process(store, "analyze", *_truncated(files, tmp_path)), "truncated?")
    assert_refused(run_process(store, "show", "graph", "g-00000000"), "no graph 'g-00000000'", "interbasis ls graphs")


@pytest.mark.parametrize("kind", ["model", "checkpoint", "dataset", "graph", "partition"])
def test_unknown_reference_is_refused(
    interbasis: Callable[..., Result], filled: list[dict[str, Any]], kind: str
) -> None:
    assert_refused(interbasis("show", kind, "nothing", "--json"), f"no {kind} 'nothing'", f"interbasis ls {kind}s")


def test_unknown_kind_and_cursor_are_refused(interbasis: Callable[..., Result], filled: list[dict[str, Any]]) -> None:
    assert_refused(interbasis("ls", "things"), "'things'", "expected one of models, ")
    assert_refused(interbasis("show", "things", "x"), "'things'", "expected one of model, ")
    assert_refused(interbasis("ls", "graphs", "--cursor", "???"), "cursor")


@pytest.mark.parametrize(
    ("name", "said"),
    [("picture.doc", ".png, .svg, .pdf"), ("picture", ".png, .svg, .pdf"), ("none/picture.png", "cannot write")],
)
def test_plot_that_cannot_be_written_is_refused(
    interbasis: Callable[..., Result], filled: list[dict[str, Any]], tmp_path: Path, name: str, said: str
) -> None:
    assert_refused(interbasis("plot", filled[0]["graph"]["id"], "-o", tmp_path / name), name, said)
    assert list(tmp_path.iterdir()) == []


def test_export_that_cannot_be_written_is_refused(
    interbasis: Callable[..., Result], filled: list[dict[str, Any]], tmp_path: Path
) -> None:
    target = tmp_path / "none" / "graph.graphml"
    result = interbasis("export", filled[0]["graph"]["id"], "--format", "graphml", "-o", target)
    assert_refused(result, "cannot write", "graph.graphml")


def test_failure_of_a_formula_exits_with_1(
    interbasis: Callable[..., Result], empty: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NumericalError("first line\nsecond line [/x]")

    monkeypatch.setattr("interbasis.service.tasks.run.load", fail)
    result = interbasis("analyze", files.net)
    assert (result.code, result.out, result.err) == (1, "", "error: first line second line [/x]\n")


# The store


def test_newer_database_is_refused_and_left_alone(
    interbasis: Callable[..., Result], copied: Path, files: Files
) -> None:
    with sqlite3.connect(copied) as connection:
        connection.execute("UPDATE interbasis_version SET version_num = '9999'")
    connection.close()
    for command in (["ls", "models"], ["db", "upgrade"], ["analyze", files.net, "--data", files.data]):
        assert_refused(interbasis(*command), "has schema 9999", "upgrade interbasis", "nothing was changed")
    with sqlite3.connect(copied) as connection:
        assert connection.execute("SELECT version_num FROM interbasis_version").fetchall() == [("9999",)]
        assert connection.execute("SELECT count(*) FROM partition").fetchone() == (2,)
    connection.close()


def test_store_below_a_file_is_refused(interbasis: Callable[..., Result], tmp_path: Path, files: Files) -> None:
    (tmp_path / "file").write_text("")
    store = tmp_path / "file" / "store.sqlite"
    result = interbasis("analyze", files.net, "--data", files.data, "--store", store)
    assert_refused(result, "cannot make the store", "name another --store")


def test_files_that_are_no_store_are_refused_and_left_alone(interbasis: Callable[..., Result], tmp_path: Path) -> None:
    garbage, foreign = tmp_path / "garbage.sqlite", tmp_path / "foreign.sqlite"
    garbage.write_bytes(b"no database at all, but long enough to be looked at" * 20)
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE model (x)")
    connection.close()
    before = garbage.read_bytes()
    assert_refused(interbasis("ls", "models", "--store", garbage), "is not a SQLite database", "--store")
    assert_refused(interbasis("ls", "models", "--store", foreign), "that interbasis did not make", "--store")
    assert_refused(interbasis("ls", "models", "--store", tmp_path), "is a folder")
    assert garbage.read_bytes() == before


def test_upgrade_makes_a_database_once(interbasis: Callable[..., Result], empty: Path) -> None:
    assert interbasis("db", "upgrade").out.startswith("upgraded an empty database to ")
    assert interbasis("db", "upgrade").out.startswith("nothing to do: ")
    assert_clean(empty)


def test_check_reads_every_file(interbasis: Callable[..., Result], filled: list[dict[str, Any]]) -> None:
    assert_whole(interbasis("db", "check", "--json"))
    assert interbasis("db", "check").out == "6 files read, 0 problems\n"


def test_check_names_a_damaged_file_and_exits_with_1(
    interbasis: Callable[..., Result], copied: Path, filled: list[dict[str, Any]]
) -> None:
    sha256 = filled[0]["graph"]["graph_sha256"]
    (file,) = [f for f in copied.parent.rglob(f"*{sha256[8:]}*") if f.is_file()]
    file.write_bytes(file.read_bytes()[:-1])
    result = interbasis("db", "check")
    assert result.code == 1
    assert filled[0]["graph"]["id"] in result.out
    assert "1 problem" in result.out
    document = json.loads(interbasis("db", "check", "--json").out)
    assert len(document["artifacts"]) == 1
    failed = interbasis("export", filled[0]["graph"]["id"], "--format", "graphml", "-o", copied.parent / "x")
    assert (failed.code, failed.out) == (1, "")
    assert failed.err.startswith("error: the artifact ")


# Starting and being stopped


def test_commands_that_compute_nothing_start_without_torch(first: tuple[Path, Result]) -> None:
    """One after the other in one process, each of which would leave behind what it imports."""
    commands = ["--help", "analyze --help", "ls models", "show model net", "db check"]
    program = (
        "import contextlib, io, sys, interbasis.service.cli as cli\n"
        f"for command in {commands}:\n"
        "    sys.argv = ['interbasis', *command.split()]\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as said:\n"
        "        try:\n            cli.main()\n"
        "        except SystemExit as stop:\n            assert not stop.code, command\n"
        "    assert said.getvalue(), command\n"
        "    assert not {'torch', 'scipy', 'matplotlib'} & set(sys.modules), command\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment(first[0]), capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_sleep_while_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the OpenMP library itself reports when torch loads it; unless the environment says otherwise."""
    program = "import interbasis.service.cli.app as cli\ncli._run = lambda: bool(__import__('torch')) - 1\ncli.main()\n"
    given = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    given |= {"OMP_DISPLAY_ENV": "true"}
    done = subprocess.run([sys.executable, "-c", program], env=given, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setattr(cli, "_run", lambda: 0)
    with pytest.raises(SystemExit):
        cli.main()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def count_graphs(store: Path) -> int:
    if not store.exists():
        return 0
    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=10)
    try:
        return int(connection.execute("SELECT count(*) FROM graph").fetchone()[0])
    except sqlite3.OperationalError:  # the tables are not there yet
        return 0
    finally:
        connection.close()


def test_killed_analysis_leaves_a_whole_store_and_goes_on(
    interbasis: Callable[..., Result], empty: Path, files: Files, python: str, tmp_path: Path
) -> None:
    """Killed while starting, and at some moment after its next result, until all but the last were computed."""
    checkpoints = [save_mlp(tmp_path / f"net{i}.safetensors", blocks=2, seed=i) for i in range(5)]
    command = ["analyze", *checkpoints, "--data", files.data, "--resolution", 1, "--json"]
    moments = random.Random(0)
    for wait_for in (0, 1, 3):
        process = subprocess.Popen(
            [python, "-m", "interbasis.service.cli", *map(str, command)],
            env=environment(empty),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 300
        while count_graphs(empty) < wait_for and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(moments.uniform(0.0, 0.2) if wait_for else 0.5)
        process.kill()
        process.wait()
        if not wait_for and not empty.exists():
            continue
        assert_whole(interbasis("db", "check", "--json"))
        graphs = interbasis("ls", "graphs", "--json").document["items"]
        assert len(graphs) >= wait_for
        for graph in graphs:
            target = tmp_path / "graph.safetensors"
            assert interbasis("export", graph["id"], "--format", "safetensors", "-o", target).code == 0
            assert InteractionGraph.load(target).n_nodes == graph["n_nodes"]

    before = {graph["id"]: graph["wall_time"] for graph in interbasis("ls", "graphs", "--json").document["items"]}
    items = interbasis(*command).document["items"]
    assert len(items) == len(checkpoints)
    after = {item["graph"]["id"]: item["graph"]["wall_time"] for item in items}
    assert before.items() <= after.items()
    assert len(interbasis("ls", "partitions", "--json").document["items"]) == len(checkpoints)
    assert_whole(interbasis("db", "check", "--json"))
