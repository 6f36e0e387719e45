"""The commands rm, rename and relocate: what they list, ask and say."""

import contextlib
import io
import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from cases_checkpoints import save_mlp
from cases_store import save_graph, save_partition

from interbasis.service.cli import app as cli
from interbasis.service.store.store import Store


class Terminal(io.StringIO):
    """Somebody who answers."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    save_partition(sqlite_store, save_graph(sqlite_store).id)
    monkeypatch.setenv("INTERBASIS_STORE", str(sqlite_store.location.file))
    monkeypatch.setenv("COLUMNS", "80")

    def started(*arguments: object, says: str | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["interbasis", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO() if says is None else Terminal(says))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return started


def test_what_goes_along_is_listed_before_it_is_removed(sqlite_store: Store, run: Any) -> None:
    listed = "(digits), with 1 run, 1 checkpoint, 1 graph, 1 partition"
    for says in (None, "n\n"):
        code, out, err = run("rm", "digits", says=says)
        assert (code, out) == (2, "")
        assert listed in err
        assert "nothing was removed" in err
    assert sqlite_store.get_partition("last")
    code, out, err = run("rm", "digits", says="y\n")
    assert (code, out.startswith("removed model m-"), listed in out, "for ever?" in err) == (0, True, True, True)
    assert sqlite_store.models().items == ()


def test_schedules_that_go_along_are_listed(sqlite_store: Store, run: Any) -> None:
    first, second = (sqlite_store.add_schedule("analyze", "digits").id for _ in range(2))
    code, _, err = run("rm", "digits", says="n\n")
    assert (code, f"1 partition, the schedules {first} {second}\n" in err) == (2, True)
    sqlite_store.remove_schedule(second)
    code, out, _ = run("rm", "digits", "--yes")
    assert (code, f", the schedule {first}\n" in out, sqlite_store.schedules().items) == (0, True, ())


def test_files_of_one_command_are_one_training(sqlite_store: Store, run: Any, tmp_path: Path) -> None:
    for numbers, seeds in (([1, 1], {0: 0, 20: 0}), ([2, 2], {10: 1, 20: 1})):
        files = [
            save_mlp(tmp_path / f"step{step}.safetensors", seed=100 * seed + step, step=step, model="net")
            for step, seed in seeds.items()
        ]
        code, out, _ = run("register", *files, "--json")
        assert code == 0
        assert [sqlite_store.get_run(row["run"]).number for row in json.loads(out)["items"]] == numbers
    files = [save_mlp(tmp_path / f"s{step}.safetensors", seed=step, step=step, model="net") for step in (30, 10)]
    assert run("submit", "ledger", *files)[0] == 0
    assert [sqlite_store.get_run(row.run).number for row in sqlite_store.checkpoints().items[-2:]] == [3, 3]


def test_removal_without_a_question(sqlite_store: Store, run: Any) -> None:
    code, out, err = run("rm", "partitions", "digits@100", "last", "--yes", "--json")
    assert (code, err) == (0, "")
    (gone,) = json.loads(out)["items"]
    assert (gone["kind"], gone["name"], gone["along"]) == ("partition", "digits#1@100", {})
    assert run("rm", "run", "digits#7", "--yes")[0] == run("rm", "x", "--yes")[0] == 2
    assert len(sqlite_store.graphs().items) == 1


def test_the_kind_is_that_of_the_id(sqlite_store: Store, run: Any) -> None:
    (graph,), (partition,) = sqlite_store.graphs().items, sqlite_store.partitions().items
    code, out, _ = run("rm", partition.id[:7], graph.id, "--yes", "--json")
    assert (code, [gone["kind"] for gone in json.loads(out)["items"]]) == (0, ["partition", "graph"])
    code, _, err = run("rm", "l-12345678", "--yes")
    assert (code, "no ledger or llc 'l-12345678'" in err) == (2, True)


def test_a_name_without_a_kind_is_what_show_finds(sqlite_store: Store, run: Any) -> None:
    for command in ("show", "rm"):
        code, _, err = run(command, "nope")
        assert (code, "no model, checkpoint or run 'nope' in the store" in err.replace("\n", " ")) == (2, True)
    code, _, err = run("rm", "digits@99", "--yes")
    assert (code, "digits#1 has no checkpoint '99'" in err) == (2, True)
    code, out, _ = run("rm", "digits@100", "--yes")
    assert (code, out.startswith("removed checkpoint c-"), "(digits#1@100)" in out) == (0, True, True)
    assert [row.name for row in sqlite_store.models().items] == ["digits"]


def test_what_goes_along_with_one_named_before_is_removed_once(sqlite_store: Store, run: Any) -> None:
    (graph,), (partition,) = sqlite_store.graphs().items, sqlite_store.partitions().items
    code, out, err = run("rm", graph.id, partition.id, "--yes")
    assert (code, err, len(out.splitlines())) == (0, "", 1)
    assert f"removed graph {graph.id} (digits#1@100), with 1 partition" in out
    assert sqlite_store.graphs().items == sqlite_store.partitions().items == ()
    assert run("rm", partition.id, "--yes")[0] == 2


def test_models_that_look_like_ids(sqlite_store: Store, run: Any, tmp_path: Path) -> None:
    """They are refused; one of an earlier version is found by its name, and can be renamed."""
    file = save_mlp(tmp_path / "a.safetensors", model="d-2", step=100)
    for command in (["register", file], ["rename", "digits", "d-2"]):
        code, _, err = run(*command)
        assert (code, "'d-2': that could be the ID of a dataset" in err.replace("\n", " ")) == (2, True)
    with contextlib.closing(sqlite3.connect(str(sqlite_store.location.file))) as database, database:
        database.execute("update model set name = 'd-2'")
    assert json.loads(run("show", "d-2", "--json")[1])["name"] == "d-2"
    assert run("register", file)[0] == 0
    assert json.loads(run("show", "d-2@last", "--json")[1])["model"] == "d-2"
    assert run("rename", "d-2", "two")[0] == 0


def test_rename_and_relocate(sqlite_store: Store, run: Any, tmp_path: Path) -> None:
    code, out, _ = run("rename", "digits", "letters", "--json")
    assert (code, json.loads(out)["name"]) == (0, "letters")
    sqlite_store.register_checkpoint(save_mlp(tmp_path / "a.safetensors", model="net", step=1))
    moved = (tmp_path / "a.safetensors").rename(tmp_path / "b.safetensors")
    code, out, _ = run("relocate", "net@last", moved, "--json")
    assert (code, json.loads(out)["path"]) == (0, str(moved))
    code, _, err = run("relocate", "letters@100", moved)
    assert (code, "is not the file of" in err) == (2, True)
