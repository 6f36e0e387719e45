"""A stranger's first ten minutes: README's program and commands as printed, in an empty folder and home."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cases_page import Open, static
from playwright.sync_api import expect
from test_docs import blocks
from test_rooms import ROOT
from torch import nn

from interbasis.service.store.store import Store

README = (ROOT / "README.md").read_text()
HOW = (ROOT / "docs" / "how_it_works.md").read_text()
SERVICE = (ROOT / "docs" / "service.md").read_text()
BASE = "https://raw.githubusercontent.com/interbasis/interbasis/main/"

Run = Callable[[str], str]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def run(home: Path, tmp_path: Path, python: str) -> Run:
    """Run a command line as a stranger with an empty home, and return what it prints.

    The first is the installed program, later ones have imported torch before they start.
    """
    paths = [str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    env = {**os.environ, "COLUMNS": "80", "PATH": ":".join(paths), "HOME": str(home)}
    env.pop("XDG_DATA_HOME", None)
    warm = tmp_path / "bin" / "interbasis"
    warm.parent.mkdir()

    def run(command: str) -> str:
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        if command.startswith("interbasis ") and not warm.exists():
            warm.write_text(f'#!/bin/sh\nexec {python} -m interbasis.service.cli "$@"\n')
            warm.chmod(0o700)
        return done.stdout

    return run


def test_readme_takes_five_minutes_and_its_pictures_show_anywhere() -> None:
    assert len(README.splitlines()) <= 150
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", README)
    assert pictures
    for picture in pictures:
        assert picture.startswith(BASE)
        assert (ROOT / picture.removeprefix(BASE)).exists()


def test_own_model_is_taken_apart_as_printed(run: Run, tmp_path: Path) -> None:
    (program,) = blocks("python", README)
    (tmp_path / "own.py").write_text(program)
    said = run(f"{sys.executable} own.py").splitlines()
    (shown,) = (text.splitlines() for text in blocks("text", README))
    title = "2 modules, supported: more modular than all null graphs"
    assert said[0].split(" (")[0] == shown[0].split(" (")[0] == title
    assert said[3].split()[:3] == ["cut", "features", "nodes"]
    assert [line.split()[0] for line in said[3:7]] == [line.split()[0] for line in shown[3:7]]
    assert said[6].split()[-3:] == ["10", "10", "0"]
    assert (tmp_path / "own.png").stat().st_size > 10_000
    assert "2 modules, supported" in (tmp_path / "report.html").read_text()


def test_commands_work_as_printed_and_the_service_after_them(
    run: Run, home: Path, tmp_path: Path, python: str, request: pytest.FixtureRequest
) -> None:
    """README's commands, then the service on the same store, with a watched job, and all views of its page."""
    (commands,) = (block for block in blocks("console", README) if "interbasis demo" in block)
    lines = [line.removeprefix("$ ") for line in commands.splitlines()]
    said = {line: run(line) for line in lines}
    store = home / ".local/share/interbasis/interbasis.sqlite"
    check_demo(said["interbasis demo"], store)
    printed = [line.strip() for line in said["interbasis demo"].splitlines() if line.startswith("  interbasis ")]
    assert printed
    assert set(printed) <= set(lines), "README says what the demo prints, so that both are run"
    for text in said.values():
        wide = [line for line in text.splitlines() if len(line) > 80 and str(home) not in line]
        assert not wide
    assert {"modules.png", "modules.graphml"} <= {path.name for path in tmp_path.iterdir()}
    (tmp_path / "run").symlink_to(home / ".local/share/interbasis/demo")
    check_service(run, home, tmp_path, python, request)


def check_demo(said: str, file: Path) -> None:
    """What the demo says is what is stored and what the document shows: two modules at the end, one at first."""
    lines = said.splitlines()
    (shown,) = (block.splitlines() for block in blocks("console", HOW) if block.startswith("$ interbasis demo"))
    for here, there in zip(table(lines), table(shown), strict=True):
        assert here == pytest.approx(there, rel=0.02)
    assert [line[:8] for line in lines] == [line[:8] for line in shown[1:]]
    steps = [line.split()[0] for line in lines if line[:4].strip().isdigit()]
    assert steps == ["0", "50", "150", "400", "1000", "2500"]
    assert "Step 0 is one module: divisions beat chance (largest z" in said
    assert "After training the network has 2 modules" in said
    with Store.open(str(file)) as store:
        partition = store.get_partition("two-digits@last")
        assert partition.n_modules == 2
        assert store.get_checkpoint("two-digits@2500").id == partition.checkpoint
        assert store.check().ok


def table(lines: list[str]) -> list[list[float]]:
    """The numbers of the demo's table: all columns but the last, which holds IDs."""
    rows = [line.split()[:-1] for line in lines if re.match(r" *\d+ +\d+%", line)]
    return [[float(word.removesuffix("%")) for word in row] for row in rows]


def check_service(run: Run, home: Path, folder: Path, python: str, request: pytest.FixtureRequest) -> None:
    """The commands of the document but for those that a stranger has run, then its Python; the port is another."""
    (commands,) = (block for block in blocks("console", SERVICE) if "interbasis serve" in block and "show" in block)
    (program,) = (program for program in blocks("python", SERVICE) if "Client(" in program)
    install, demo, serve, submit, show = (line.removeprefix("$ ") for line in commands.splitlines())
    assert (install, demo) == ("pip install -c constraints.txt .", "interbasis demo --folder run")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    log = folder / "log"
    with log.open("w") as stream:
        words = [python, "-m", "interbasis.service.cli", *serve.removesuffix(" &").split()[1:], "--port", port]
        env = {**os.environ, "HOME": str(home)}
        service = subprocess.Popen(words, cwd=folder, env=env, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + 300
        while "Ctrl-C" not in log.read_text():
            assert time.monotonic() < deadline
            assert service.poll() is None, log.read_text()
            time.sleep(0.1)
        assert re.findall(r"p-[0-9a-f]{8}", run(submit.replace("8422", port)))
        assert "modules" in run(show.replace("8422", port))
        (folder / "program.py").write_text(program.replace("8422", port))
        assert "succeeded" in run(f"{python} program.py")
        visit = request.getfixturevalue("visit")  # at the end: where there is no Chromium, the rest has been tested
        check_page(visit, f"http://127.0.0.1:{port}/")
        run("interbasis report two-digits@last -o report/")
        check_report(visit, folder / "report")
    finally:
        service.terminate()
        service.wait(timeout=300)


def check_page(visit: Open, url: str) -> None:
    """What a person does over the demo's store, from the first view to the last."""
    page = visit(url)
    page.get_by_role("link", name="two-digits@2500", exact=True).click()
    expect(page.get_by_role("status").first).to_contain_text("2 modules, 1 connected pair")
    page.get_by_text("Another division of this graph").click()
    page.get_by_label("Resolution").fill("2.5")
    page.get_by_role("button", name="Divide again").click()
    expect(page.get_by_role("link", name=re.compile("^open p-"))).to_be_visible(timeout=120_000)
    page.get_by_label("Shown").select_option("all")
    page.get_by_role("slider").press("End")
    expect(page).to_have_url(re.compile("above="))
    colleague = visit(page.url)
    expect(colleague.get_by_role("status").first).to_have_text(page.get_by_role("status").first.inner_text())
    colleague.close()
    page.get_by_role("link", name="Evidence and downloads").click()
    expect(page.get_by_text("Do modules work by themselves?").first).to_be_visible()
    with page.expect_download() as started:
        page.get_by_role("button", name="graphml").click()
    assert "<graphml" in Path(started.value.path()).read_text()
    page.get_by_role("link", name="The picture of this division").click()
    page.get_by_role("link", name="Training").click()
    expect(page.locator("figcaption", has_text="held-out accuracy")).to_be_visible()
    page.go_back()
    page.get_by_role("link", name="What modules do").click()
    page.get_by_role("link", name="module 0").first.click()
    page.get_by_role("button", name="Give a label").click()
    page.get_by_label("Label", exact=True).fill("one of the digits")
    page.get_by_label("Your name").fill("ada")
    page.get_by_label("Label", exact=True).press("Enter")
    expect(page.get_by_role("heading", name="module 0: one of the digits")).to_be_visible()
    page.goto(f"{url}#/jobs?task=partition&target=two-digits@2500")
    page.get_by_label("queue", exact=True).fill("nobody")
    page.get_by_role("button", name="Ask for this job").click()
    page.get_by_role("button", name=re.compile("^Cancel")).click()
    expect(page.get_by_role("status")).to_have_text("cancelled")
    page.get_by_role("link", name="All jobs").click()
    expect(
        page.get_by_role("region", name="Ended").get_by_role("link", name=re.compile("^partition p-")).first
    ).to_be_visible()
    page.close()  # before the service ends, for which it asks again and again


def check_report(visit: Open, folder: Path) -> None:
    """The page over files shows the same division, with the label."""
    with static(folder) as url:
        page = visit(url)
        expect(page.get_by_role("heading", name="two-digits@2500")).to_be_visible()
        page.get_by_role("navigation").get_by_role("link", name="Evidence").click()
        expect(page.get_by_role("heading", name="Experiments on the network")).to_be_visible()
        page.get_by_role("link", name="All checkpoints").click()
        expect(page.get_by_role("link", name="two-digits@2500", exact=True)).to_be_visible()
        page.close()


def test_files_of_torch_save_are_converted_and_analysed(run: Run, tmp_path: Path) -> None:
    """An MLP and a CNN of a stranger's own, from state dicts to modules."""
    torch.manual_seed(0)
    models = {
        "mlp": "nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))",
        "cnn": "nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4))",
    }
    for name, made in models.items():
        torch.save(eval(made, {"nn": nn}).state_dict(), tmp_path / f"{name}.pt")
    code = "".join(f"def {name}():\n    return {made}\n" for name, made in models.items())
    (tmp_path / "mine.py").write_text("from torch import nn\n\n" + code)
    run("interbasis convert mlp.pt cnn.pt")
    for name, shape in (("mlp", (8,)), ("cnn", (2, 6, 6))):
        np.savez(tmp_path / f"{name}.npz", inputs=np.random.default_rng(0).normal(size=(64, *shape)))
        words = f"interbasis analyze {name}.safetensors --data {name}.npz --factory mine:{name} --json"
        (item,) = json.loads(run(words))["items"]
        assert item["partition"]["n_modules"] == 1
