"""Documentation is true: doctests run, and README's commands and Python run as printed."""

import doctest
import importlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_rooms import ROOT, modules
from typer.testing import CliRunner

from interbasis.service.cli.app import app

README = (ROOT / "README.md").read_text()
CIRCUITS = (ROOT / "docs" / "circuits.md").read_text()


@pytest.mark.parametrize("name", modules())
def test_doctests(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_python_in_readme_runs(tmp_path: Path) -> None:
    programs = [program for program in blocks("python") if "Client(" not in program]
    assert programs
    for program in programs:
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=300)


def test_service_in_readme_runs(tmp_path: Path) -> None:
    """Its five commands, then its Python; only the port and the ID of the partition are filled in."""
    (commands,) = (block for block in blocks("console") if "interbasis serve" in block and "show" in block)
    (program,) = (program for program in blocks("python") if "Client(" in program)
    install, demo, serve, submit, show = (line.removeprefix("$ ") for line in commands.splitlines())
    assert install == "pip install -c constraints.txt ."  # what `make` and test_wheel.py do
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {**_wide(), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "INTERBASIS_STORE": "s.sqlite"}

    def run(command: str) -> str:
        command = command.replace("8422", port)
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(demo)
    words = [*serve.removesuffix(" &").split(), "--port", port]
    with (tmp_path / "log").open("w") as log:
        service = subprocess.Popen(words, cwd=tmp_path, env=env, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while "Ctrl-C" not in (tmp_path / "log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        (partition,) = set(re.findall(r"p-[0-9a-f]{8}", run(submit)))
        assert "modules" in run(re.sub(r"p-[0-9a-f]{8}", partition, show))
        (tmp_path / "program.py").write_text(program.replace("8422", port))
        assert "succeeded" in run(f"{sys.executable} program.py")
    finally:
        service.terminate()
        service.wait(timeout=60)


@pytest.mark.long
def test_circuits_document_runs(tmp_path: Path) -> None:
    """Its commands in order, on the demo's results, then its Python; only IDs are filled in."""
    env = {**_wide(), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "INTERBASIS_STORE": "s.sqlite"}

    def run(command: str) -> str:
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    run("interbasis demo --folder run")
    partition = json.loads(run("interbasis ls partitions --json"))["items"][-1]
    ids = {"p-9a083433": partition["id"], "g-fa3c70b4": partition["graph"]}
    run(f"interbasis export {partition['id']} --format node-link -o nodes.json")
    nodes = json.loads((tmp_path / "nodes.json").read_text())["nodes"]
    lines = [f"{node['id']},{node['module'] if node['module'] >= 0 else ''}" for node in nodes]
    (tmp_path / "theirs.csv").write_text("\n".join(["node,module", *lines]))
    commands = [line.removeprefix("$ ") for block in blocks("console", CIRCUITS) for line in block.splitlines()]
    assert len(commands) == 8
    for command in (command for command in commands if "--url" not in command):
        for printed, found in ids.items():
            command = command.replace(printed, found)
        run(command)
        if not {"e-9605a529", "e-aaf6c4b2"} <= set(ids):
            modules, isolate = json.loads(run("interbasis ls experiments --json"))["items"]
            ids |= {"e-9605a529": isolate["id"], "e-aaf6c4b2": modules["id"]}
    for program in blocks("python", CIRCUITS):
        printed = run(f"{sys.executable} -c '{program}'")
        assert printed.strip()


def test_commands_in_documents_exist() -> None:
    """Each `interbasis ...` line names a command and options that the program has."""
    texts = blocks("console") + blocks("console", CIRCUITS)
    lines = [line for block in texts for line in block.splitlines() if line.startswith("$ interbasis")]
    assert lines
    for line in lines:
        words = line.removeprefix("$ interbasis ").split()
        depth = 2 if words[0] in ("db", "schedule", "token") else 1
        shown = CliRunner().invoke(app, [*words[:depth], "--help"], env=_wide()).stdout
        for option in (w for w in words[depth:] if w.startswith("-")):
            assert option in shown, f"{line!r}: no option {option}"


def _wide() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200"}


def test_files_that_readme_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
