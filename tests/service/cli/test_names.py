"""Names in place of IDs and files on the command line, and the store in commands that are printed."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases_checkpoints import WIDTHS, save_inputs, save_mlp

from interbasis.service.cli import app as cli
from interbasis.service.cli.options import given_place, with_place

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def started(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["interbasis", *map(str, arguments)])
        code: Any = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        return int(code or 0), *capsys.readouterr()

    return started


def test_a_checkpoint_and_its_results_by_name(run: Run, tmp_path: Path) -> None:
    """From the file once, then by its name alone, also when the file is gone from where it was."""
    data, store = save_inputs(tmp_path / "x.npz", 2 * WIDTHS[0]), ("--store", tmp_path / "s.sqlite")
    file = save_mlp(tmp_path / "a.safetensors", blocks=2, model="net", step=7)
    assert run("analyze", file, "--data", data, *store)[0] == 0
    partition = json.loads(run("show", "partition", "net@last", "--json", *store)[1])
    assert json.loads(run("show", "graph", "net@7", "--json", *store)[1])["id"] == partition["graph"]
    made = json.loads(run("ledger", "net@last", "--data", data, "--json", *store)[1])["items"]
    assert made[0]["checkpoint"] == partition["checkpoint"]
    again = json.loads(run("analyze", "net@7", "--data", data, "--json", *store)[1])["items"]
    assert again[0]["partition"]["id"] == partition["id"]
    for command in (["plot", "net@last"], ["export", "net@last", "--format", "graphml"], ["export", "last"]):
        form = [] if len(command) != 2 or command[0] == "plot" else ["--format", "gexf"]
        code, _, err = run(*command, *form, "-o", tmp_path / "a.png", *store)
        assert (code, "wrote" in err) == (0, True), err
    code, _, err = run("plot", "net@last", "--figure", "waterfall", "-o", tmp_path / "b.png", *store)
    assert (code, (tmp_path / "b.png").exists()) == (0, True), err
    file.unlink()
    code, _, err = run("ledger", "net@last", "--data", data, "--force", *store)
    assert (code, f"the file of {partition['checkpoint']}" in err) == (2, True)
    code, _, err = run("llc", "net@8", "--epsilon", "0.1", *store)
    assert code == 2
    assert f"net#1 has no checkpoint '8': list them with `interbasis ls checkpoints --store {store[1]}`" in err


@pytest.mark.parametrize(
    "words",
    ["analyze x@1", "ledger x@1", "llc x@1 --epsilon 0.1", "submit partition p-1", "submit ledger x@1", "track x"],
)
def test_what_reads_a_store_makes_none(run: Run, tmp_path: Path, words: str) -> None:
    code, _, err = run(*words.split(), "--store", tmp_path / "new" / "s.sqlite")
    assert (code, "nothing stored yet in" in err, list(tmp_path.iterdir())) == (2, True, [])


@pytest.mark.parametrize("command", ["analyze", "ledger", "submit analyze", "register"])
def test_a_missing_file_makes_no_store(run: Run, tmp_path: Path, command: str) -> None:
    code, _, err = run(*command.split(), tmp_path / "none.safetensors", "--store", tmp_path / "new" / "s.sqlite")
    said = "cannot read" if command == "register" else "there is no checkpoint"
    assert (code, said in err, list(tmp_path.iterdir())) == (2, True, [])


def test_printed_commands_name_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["interbasis", "ls", "graphs", "--store=a b.sqlite", "--url", "http://x"])
    assert given_place() == " --store 'a b.sqlite' --url http://x"
    assert with_place("see `interbasis ls graphs`") == "see `interbasis ls graphs --store 'a b.sqlite' --url http://x`"
    assert with_place("run `interbasis worker`") == "run `interbasis worker --store 'a b.sqlite'`"
    assert with_place("`interbasis db check --store s`, `x`") == "`interbasis db check --store s`, `x`"


def test_results_of_two_runs_are_told_apart(run: Run, tmp_path: Path) -> None:
    """Two runs with a checkpoint of the same step: in lists, JSON, headings and titles of pictures."""
    data, store = save_inputs(tmp_path / "x.npz", WIDTHS[0]), ("--store", tmp_path / "s.sqlite")
    for number in (1, 2):
        file = save_mlp(tmp_path / f"{number}.safetensors", seed=number, model="net", step=7)
        code, out, err = run("ledger", file, "--data", data, "--plot", tmp_path / f"{number}.svg", *store)
        assert code == 0, err
        name = ("net@7:", "net#2@7:")[number - 1]
        assert name in out.splitlines()[0]
    rows = json.loads(run("ls", "ledgers", "--json", *store)[1])["items"]
    assert [row["run_number"] for row in rows] == [1, 2]
    assert [row["run"] for row in rows] == [
        json.loads(run("show", "run", f"net#{n}", "--json", *store)[1])["id"] for n in (1, 2)
    ]
    assert "<!-- net, step 7 -->" in (tmp_path / "1.svg").read_text()
    assert "<!-- net#2@7 -->" in (tmp_path / "2.svg").read_text()
    assert run("plot", "net#1@7", "-o", tmp_path / "1.svg", *store)[0] == 0
    assert "<!-- net#1@7 -->" in (tmp_path / "1.svg").read_text()
