"""Documentation is true: doctests run, README's commands and Python run as printed, and the map is that of the code."""

import ast
import doctest
import functools
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_rooms import ROOT, modules
from typer.testing import CliRunner

from interbasis.service.cli.app import app

CIRCUITS = (ROOT / "docs" / "circuits.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("name", modules())
def test_doctests(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


LONG = pytest.param("learning_coefficient", marks=pytest.mark.long)


@pytest.mark.parametrize("name", ["checkpoints", "python", "ledger", "meaning", "any-graph", LONG])
def test_python_in_documents_runs(name: str, python: str, tmp_path: Path) -> None:
    programs = blocks("python", (ROOT / "docs" / f"{name}.md").read_text())
    assert programs
    for program in programs:
        subprocess.run([python, "-c", program], cwd=tmp_path, check=True, timeout=300)


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
    texts = [block for document in DOCUMENTS for block in blocks("console", document.read_text())]
    lines = [line for block in texts for line in block.splitlines() if line.startswith("$ interbasis")]
    assert lines
    help_of = functools.cache(lambda *words: CliRunner().invoke(app, [*words, "--help"], env=_wide()).stdout)
    for line in lines:
        words = line.removeprefix("$ interbasis ").split()
        depth = 2 if words[0] in ("db", "schedule", "token") else 1
        shown = help_of(*words[:depth])
        for option in (w for w in words[depth:] if re.match("--?[a-z]", w)):
            assert option in shown, f"{line!r}: no option {option}"


def _wide() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", document.read_text()):
        found = document.parent / target if target else document
        assert found.exists(), target
        anchors = [re.sub(r"[^\w -]", "", line).lower() for line in re.findall(r"^#+ (.*)", _text(found), re.MULTILINE)]
        assert not heading or heading in [anchor.replace(" ", "-") for anchor in anchors], f"{target}#{heading}"


def _text(path: Path) -> str:
    return path.read_text() if path.suffix == ".md" else ""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_files_and_definitions_that_documents_name_exist(document: Path) -> None:
    named = re.findall(
        r"`((?:analysis|service|migrations|tests|docs|benchmarks)/[\w./]*)(?:::([\w.]+))?`", _text(document)
    )
    for path, definition in named:
        assert (ROOT / path).exists(), path
        if definition:
            assert definition in definitions(ROOT / path), f"{path}::{definition}"


def definitions(path: Path) -> set[str]:
    """Names that a file defines, of methods with their class."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            methods = (inner for inner in node.body if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}.{method.name}" for method in methods}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def test_map_shows_the_rooms_and_imports_of_the_code() -> None:
    done = subprocess.run([sys.executable, "docs/rooms.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_map_is_drawn(python: str, tmp_path: Path) -> None:
    """In a copy of the files: the picture is drawn, and a room that is not listed is seen."""
    for top in ("analysis", "service", "migrations", "docs"):
        shutil.copytree(ROOT / top, tmp_path / top, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "ARCHITECTURE.md", tmp_path)

    def run(*options: str) -> int:
        return subprocess.run([python, "docs/rooms.py", *options], cwd=tmp_path, capture_output=True).returncode

    (tmp_path / "analysis/figures/new.py").write_text("def f():\n    from ..search import leiden\n")
    assert run("--check") == 1
    (tmp_path / "docs/rooms.png").unlink()
    assert run() == 0
    assert run("--check") == 0
    assert (tmp_path / "docs/rooms.png").exists()
