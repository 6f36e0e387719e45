"""Documentation is true: doctests run, and README's commands and Python run as printed."""

import doctest
import importlib
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_layers import ROOT, modules

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", modules())
def test_doctests(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


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


def test_commands_in_readme_exist() -> None:
    """Each `interbasis ...` line names a command and options that the program has."""
    lines = [line for block in blocks("console") for line in block.splitlines() if line.startswith("$ interbasis")]
    assert lines
    for line in lines:
        words = line.removeprefix("$ interbasis ").split()
        depth = 2 if words[0] in ("db", "schedule", "token") else 1
        run = [sys.executable, "-m", "interbasis.service.cli", *words[:depth], "--help"]
        shown = subprocess.run(run, capture_output=True, text=True, check=True, env=_wide()).stdout
        for option in (w for w in words[depth:] if w.startswith("-")):
            assert option in shown, f"{line!r}: no option {option}"


def _wide() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200"}


def test_files_that_readme_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
