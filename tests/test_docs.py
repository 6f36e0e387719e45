"""Documentation is true: doctests run, and README's commands and Python run as printed."""

import doctest
import importlib
import re
import subprocess
import sys
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
    programs = blocks("python")
    assert programs
    for program in programs:
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=300)


def test_commands_in_readme_exist() -> None:
    """Each `interbasis ...` line names a command and options that the program has."""
    lines = [line for block in blocks("console") for line in block.splitlines() if line.startswith("$ interbasis")]
    assert lines
    for line in lines:
        words = line.removeprefix("$ interbasis ").split()
        depth = 2 if words[0] == "db" else 1
        run = [sys.executable, "-m", "interbasis.service.cli", *words[:depth], "--help"]
        shown = subprocess.run(run, capture_output=True, text=True, check=True, env=_wide()).stdout
        for option in (w for w in words[depth:] if w.startswith("-")):
            assert option in shown, f"{line!r}: no option {option}"


def _wide() -> dict[str, str]:
    import os

    return {**os.environ, "COLUMNS": "200"}


def test_files_that_readme_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
