"""Documentation is true: doctests run, README's commands and Python run as printed, and the map is that of the code."""

import ast
import doctest
import importlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_rooms import ROOT, modules
from typer.testing import CliRunner

from interbasis.service.cli.app import app
from interbasis.service.store.store import Store

README = (ROOT / "README.md").read_text()
CIRCUITS = (ROOT / "docs" / "circuits.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("name", modules())
def test_doctests(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("name", ["README.md", "docs/ledger.md", "docs/learning_coefficient.md"])
def test_python_in_documents_runs(name: str, python: str, tmp_path: Path) -> None:
    programs = [program for program in blocks("python", (ROOT / name).read_text()) if "Client(" not in program]
    assert programs
    for program in programs:
        subprocess.run([python, "-c", program], cwd=tmp_path, check=True, timeout=300)


def test_service_in_readme_runs(tmp_path: Path) -> None:
    """Its five commands, then its Python; only the port and the ID of the partition are filled in.

    The first is the demo, whose numbers are checked too.
    """
    (commands,) = (block for block in blocks("console") if "interbasis serve" in block and "show" in block)
    (program,) = (program for program in blocks("python") if "Client(" in program)
    install, demo, serve, submit, show = (line.removeprefix("$ ") for line in commands.splitlines())
    assert install == "pip install -c constraints.txt ."  # what `make` and test_wheel.py do
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "COLUMNS": "80", "PATH": path, "INTERBASIS_STORE": "s.sqlite"}

    def run(command: str) -> str:
        command = command.replace("8422", port)
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    check_demo(run(demo), tmp_path)
    words = [*serve.removesuffix(" &").split(), "--port", port]
    with (tmp_path / "log").open("w") as log:
        service = subprocess.Popen(words, cwd=tmp_path, env=env, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 300
        while "Ctrl-C" not in (tmp_path / "log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        (partition,) = set(re.findall(r"p-[0-9a-f]{8}", run(submit)))
        assert "modules" in run(re.sub(r"p-[0-9a-f]{8}", partition, show))
        (tmp_path / "program.py").write_text(program.replace("8422", port))
        assert "succeeded" in run(f"{sys.executable} program.py")
    finally:
        service.terminate()
        service.wait(timeout=300)


def _table(lines: list[str]) -> list[list[float]]:
    """The numbers of the demo's table: all columns but the last, which holds IDs."""
    rows = [line.split()[:-1] for line in lines if re.match(r" *\d+ +\d+%", line)]
    return [[float(word.removesuffix("%")) for word in row] for row in rows]


def check_demo(said: str, folder: Path) -> None:
    """What the demo says is what is stored and what README shows: two modules at the end, one before training."""
    lines = said.splitlines()
    (shown,) = (block.splitlines() for block in blocks("console") if block.startswith("$ interbasis demo"))
    for here, there in zip(_table(lines), _table(shown), strict=True):
        assert here == pytest.approx(there, rel=0.02)
    assert [line[:8] for line in lines] == [line[:8] for line in shown[1:]]
    assert max(len(line) for line in lines if "Checkpoints are in" not in line) <= 80
    steps = [line.split()[0] for line in lines if line[:4].strip().isdigit()]
    assert steps == ["0", "50", "150", "400", "1000", "2500"]
    assert "Step 0 is one module: divisions beat chance (largest z" in said
    assert "After training the network has 2 modules" in said
    identifier = next(line.split()[-1] for line in lines if "interbasis show partition" in line)
    with Store.open(str(folder / "s.sqlite")) as store:
        partition = store.get_partition(identifier)
        assert partition.n_modules == 2
        assert store.get_checkpoint("two-digits@2500").id == partition.checkpoint
        assert store.check().ok
    assert len(list((folder / "run").glob("*.safetensors"))) == len(steps)


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
    for line in lines:
        words = line.removeprefix("$ interbasis ").split()
        depth = 2 if words[0] in ("db", "schedule", "token") else 1
        shown = CliRunner().invoke(app, [*words[:depth], "--help"], env=_wide()).stdout
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
