"""Manners of the command line: help, version, wrong words, completion, files of torch.save, and pictures."""

import errno
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from cases_store import save_graph, save_partition
from typer.testing import CliRunner

from interbasis.analysis.errors import InterbasisError
from interbasis.analysis.results import write_bytes
from interbasis.service.cli import app as cli
from interbasis.service.cli import backends, completion
from interbasis.service.cli.usage import plain_help
from interbasis.service.store.store import Store

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command in this process; gives its exit code, and what it printed and said."""
    monkeypatch.setenv("INTERBASIS_STORE", str(tmp_path / "store.sqlite"))

    def start(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["interbasis", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return start


def commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that name it."""
    inner = getattr(command, "commands", {})
    for name, each in inner.items():
        yield from commands(each, *path, name)
    if not inner:
        yield path, command


COMMAND = typer.main.get_command(cli.app)
COMMANDS = dict(commands(COMMAND))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_an_example_that_it_understands(words: tuple[str, ...]) -> None:
    examples = [example.split() for example in re.findall("Example: interbasis (.*)", COMMANDS[words].help)]
    assert examples
    options = {option for parameter in COMMANDS[words].params for option in parameter.opts}
    for given in examples:
        assert tuple(given[: len(words)]) == words
        assert {word for word in given if word.startswith("-")} <= options


def test_help_is_grouped_and_plain() -> None:
    plain_help(COMMAND)
    runner = CliRunner(env={"COLUMNS": "80"})
    shown = runner.invoke(cli.app, ["-h"]).stdout
    groups = re.findall("─ ([A-Z][a-z ]+) ─", shown)
    assert groups == ["Options", "Start here", "Analyse", "What is stored", "Jobs", "Service and store"]


def test_flags_have_no_type_and_defaults_are_shown(run: Run) -> None:
    code, shown, _ = run("analyze", "--help")
    assert code == 0
    assert "bool" not in shown
    for default in ("global", "degenerate", "jacobian", "exact sums, or as many", "chosen against chance"):
        assert f"default: {default}" in " ".join(shown.replace("│", " ").split())


def test_version(run: Run) -> None:
    from importlib.metadata import version

    assert run("--version") == (0, f"interbasis {version('interbasis')}\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("analyze x.safetensors --probes many", "--probes is 'many', expected a whole number"),
        ("ls graphs --limit 0", "--limit is '0', expected at least 1"),
        ("export x --format foo -o y", "--format is 'foo', expected one of graphml, gexf, "),
        ("analyse x", "there is no command 'analyse': did you mean analyze?"),
        ("analyze x --prbes 3", "there is no option --prbes: did you mean --probes?"),
        ("analyze", "CHECKPOINTS is missing; see `interbasis analyze --help`"),
        ("plot x", "--output is missing; see "),
        ("submit llc x --set", "--set needs a value"),
        ("analyze model.pt", "model.pt is a file of torch.save: convert it with `interbasis convert model.pt`"),
        ("submit llc model.pt", "model.pt is a file of torch.save: convert it with `interbasis convert model.pt`"),
        ("register model.pt", "model.pt is a file of torch.save: convert it with `interbasis convert model.pt`"),
        ("submit llc x --set epsilo=1", "llc has no choice epsilo: did you mean epsilon?"),
        ("submit llc x --set epsilon=often", "llc: epsilon is 'often', expected a number above 0"),
        ("schedule add llc x --set draws=1", "llc: draws is 1, expected a whole number of at least 4"),
    ],
)
def test_wrong_words_are_refused_in_one_sentence(run: Run, words: str, said: str) -> None:
    code, out, err = run(*words.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1


def test_first_token_that_is_not_of_scope_admin_is_told_about(run: Run) -> None:
    code, out, err = run("token", "new", "reader")
    assert (code, out.startswith("ib_t-")) == (0, True)
    assert "This is the first token: from now on every request to the service needs one." in err
    assert "With scope read it cannot manage tokens." in err
    assert "first token" not in run("token", "new", "operator", "--scope", "admin")[2]


def test_who_stops_watching_is_told_that_the_job_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop(_: float) -> None:
        raise KeyboardInterrupt

    with Store.open(str(tmp_path / "store.sqlite")) as store:
        graph = save_graph(store)
    monkeypatch.setattr(backends.time, "sleep", stop)
    code, out, err = run("submit", "partition", graph.id, "--watch")
    assert (code, out) == (130, "")
    assert (said := re.search("the job goes on: watch again with `interbasis (watch j-[0-9a-f]+)`\n$", err)), err
    assert run(*said.group(1).split())[0] == 130
    jobs = json.loads(run("jobs", "--json")[1])["items"]
    assert [(job["state"], job["target_name"]) for job in jobs] == [("queued", "digits@100")]


def test_several_submitted_jobs_are_a_table(run: Run, tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "store.sqlite")) as store:
        graphs = [save_graph(store, number).id for number in range(2)]
    code, out, _ = run("submit", "partition", *graphs)
    assert code == 0
    head, *lines = [line.split() for line in out.splitlines()]
    assert head[:4] == ["id", "task", "target", "state"]
    assert [line[1:4] for line in lines] == [["partition", "digits@100", "queued"]] * 2


# Completion


class Context:
    def __init__(self, **params: Any) -> None:
        self.params = params


def test_kinds_tasks_and_values_are_completed() -> None:
    assert completion.complete_kinds("p") == ["partitions"]
    assert completion.complete_tasks("l") == ["ledger", "llc"]
    assert completion.complete_values("analyze", "epsilon")("") == ["graph", "pairs"]
    assert completion.complete_choices(Context(task="llc"), "ke") == ["kernel="]
    assert completion.complete_choices(Context(task="llc"), "kernel=s") == ["kernel=sgld", "kernel=sgnht"]
    assert completion.complete_choices(Context(task="none"), "") == []


def test_ids_are_completed_from_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "new" / "store.sqlite"
    complete = completion.complete_ids("partition", "checkpoint")
    assert complete(Context(store=str(file)), "") == []
    assert not file.parent.exists()
    with Store.open(str(file)) as store:
        made = save_partition(store, save_graph(store).id)
    assert complete(Context(store=str(file)), "p-") == [(made.id, "partition digits@100")]
    assert ("digits@100", "checkpoint digits") in complete(Context(store=str(file)), "")
    monkeypatch.setenv("INTERBASIS_STORE", str(file))
    words = {"_INTERBASIS_COMPLETE": "complete_bash", "COMP_WORDS": f"interbasis show {made.id[:4]}", "COMP_CWORD": "2"}
    shown = CliRunner(env=words).invoke(cli.app, prog_name="interbasis").stdout
    assert shown.split() == [made.id]


# Files of torch.save


def test_files_of_torch_save_are_converted(run: Run, tmp_path: Path) -> None:
    shapes = {"layers.0.weight": (6, 4), "layers.0.bias": (6,), "layers.1.weight": (3, 6), "layers.1.bias": (3,)}
    file = tmp_path / "digits-step5.pt"
    torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, file)
    code, out, err = run("convert", file)
    assert code == 0, err
    assert "".join(out.split()).endswith("digits-step5.safetensors")
    about = json.loads(file.with_suffix(".json").read_text())
    assert about["config"] == {"widths": [4, 6, 3], "activation": "relu"}
    assert (about["family"], about["model"], about["step"]) == ("mlp", "digits", 5)
    assert "the activation is a guess" in err
    assert "give --force" in run("convert", file)[2]
    torch.save({"state_dict": {"conv.weight": torch.zeros(2, 1, 3, 3)}}, file)
    assert 'has the tensors of "state_dict"; the rest was left out' in run("convert", file, "--force")[2]
    code, out, err = run("convert", file, "--force", "--model", "net", "--json")
    (made,) = json.loads(out)["items"]
    assert (made["about"]["family"], made["about"]["model"], made["tensors"]) == (
        "torch",
        "net",
        {"conv.weight": [2, 1, 3, 3]},
    )


def test_each_json_to_complete_is_named(run: Run, tmp_path: Path) -> None:
    """Beside each other: networks whose function is to be named, and those whose activation is a guess."""
    shapes = {"layers.0.weight": (6, 4), "layers.0.bias": (6,)}
    for name in ("net-10", "net-20"):
        torch.save({key: torch.zeros(shape) for key, shape in shapes.items()}, tmp_path / f"{name}.pt")
    for name in ("bf", "ck"):
        torch.save({"conv.weight": torch.zeros(2, 1, 3, 3)}, tmp_path / f"{name}.pt")
    names = ("net-10", "bf", "ck", "net-20")
    code, _, err = run("convert", *(tmp_path / f"{name}.pt" for name in names))
    assert code == 0
    bf, ck, first, second = (str(tmp_path / f"{name}.json") for name in ("bf", "ck", "net-10", "net-20"))
    assert f"Complete {bf}, {ck}: config has" in err
    assert f"Check {first}, {second}: the activation is a guess" in err


@pytest.mark.parametrize("held", [{}, {"state_dict": {}, "epoch": 3}])
def test_a_file_without_tensors_is_refused(run: Run, tmp_path: Path, held: Any) -> None:
    torch.save(held, tmp_path / "empty.pt")
    code, _, err = run("convert", tmp_path / "empty.pt")
    assert (code, "empty.pt: it holds no tensors: expected those of a model by name" in err) == (2, True)
    assert [file.name for file in tmp_path.iterdir() if file.stem == "empty"] == ["empty.pt"]


def test_files_that_hold_more_than_tensors_run_no_code(run: Run, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "evil"),))

    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    torch.save(torch.nn.Linear(2, 3), tmp_path / "whole.pt")
    (tmp_path / "text.pt").write_text("no file of torch.save")
    for name in ("evil", "whole", "text"):
        code, _, err = run("convert", tmp_path / f"{name}.pt")
        assert (code, err.count("\n")) == (2, 1)
        assert f"{name}.pt holds more than tensors, or is damaged: save model.state_dict()" in err
    assert not (tmp_path / "evil").exists()
    assert not list(tmp_path.glob("*.safetensors"))


# Files that cannot be written


def test_full_disk_is_one_sentence_and_devices_stay_devices(tmp_path: Path) -> None:
    link = tmp_path / "full"
    link.symlink_to("/dev/full")
    with pytest.raises(InterbasisError, match=r"cannot write .*full: No space left on device"):
        write_bytes(link, b"x" * 10_000)
    assert link.is_symlink()
    with pytest.raises(InterbasisError, match="it is a folder"):
        write_bytes(tmp_path, b"x")


class FullDisk(io.StringIO):
    """A stream that takes nothing."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, _: str) -> int:
        raise OSError(self.number, os.strerror(self.number))

    def flush(self) -> None:
        self.write("")


def test_a_full_disk_is_said_in_a_line(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is said to a reader that has gone."""
    save_graph(sqlite_store)
    line = f"error: cannot write to standard output: {os.strerror(errno.ENOSPC)}\n"
    listed = ["interbasis", "ls", "graphs", "--store", str(sqlite_store.location.file)]
    cases = ((errno.ENOSPC, line, []), (errno.ENOSPC, line, ["--json"]), (errno.EPIPE, "", ["--json"]))
    for number, said, more in cases:
        monkeypatch.setattr(sys, "argv", [*listed, *more])
        monkeypatch.setattr(sys, "stdout", FullDisk(number))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert (stop.value.code, capsys.readouterr().err) == (1, said)


def test_long_errors_are_wrapped_at_words_on_a_terminal(
    run: Run, sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("show", "partition", "no" * 60, "--store", sqlite_store.location.file)
    whole = run(*words)[2]
    monkeypatch.setattr(cli.err, "_force_terminal", True)
    monkeypatch.setattr(cli.err, "_width", 40)
    monkeypatch.setattr(cli.err, "_color_system", None)
    wrapped = run(*words)[2]
    assert whole.count("\n") == 1 < wrapped.count("\n")
    assert wrapped.split() == whole.split()
    assert all(len(line) <= 40 or " " not in line for line in wrapped.splitlines())
