"""The notebook of the documents runs anew in a fresh kernel, and shows what is committed."""

import json
import os
import re
import sys
from typing import Any

import pytest
from test_rooms import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
MISSING = "not installed: pip install '.[test]'"
DIGITS = re.compile(r"[-+.,\d]+(e[-+]?\d+)?")


def outputs_of(notebook: Any) -> list[list[dict[str, Any]]]:
    """The outputs of each cell, but those of progress bars."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [[out for out in cell["outputs"] if out.get("name") != "stderr"] for cell in cells]


def said(outputs: list[dict[str, Any]]) -> list[str]:
    """What each output is, and its text up to numbers and spaces."""
    found = []
    for out in outputs:
        data = out.get("data", {})
        text = "".join(out.get("text", [])) or "".join(data.get("text/html", data.get("text/plain", [])))
        words = " ".join([*sorted(data), *DIGITS.sub("#", text).split()])
        found.append(re.sub(r"#(?: #)+ ?", "#", words))  # how many weights a training leaves depends on the processor
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook after it ran in a kernel of this Python."""
    client = pytest.importorskip("nbclient", reason=f"nbclient is {MISSING}")
    nbformat = pytest.importorskip("nbformat", reason=f"nbformat is {MISSING}")
    for name in ("ipykernel", "plotly", "tqdm"):
        pytest.importorskip(name, reason=f"{name} is {MISSING}")
    folder = tmp_path_factory.mktemp("notebook")
    spec = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
    kernel = folder / "kernels" / "fresh"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps({**spec, "display_name": "fresh", "language": "python"}))
    before = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = str(folder)
    try:
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        client.NotebookClient(
            notebook, timeout=300, kernel_name="fresh", resources={"metadata": {"path": folder}}
        ).execute()
    finally:
        os.environ.pop("JUPYTER_PATH") if before is None else os.environ.update(JUPYTER_PATH=before)
    assert list(folder.iterdir()) == [folder / "kernels"], "it writes no files"
    return notebook


def test_notebook_shows_again_what_is_committed(run: Any) -> None:
    committed = outputs_of(json.loads(NOTEBOOK.read_text()))
    for here, there in zip(outputs_of(run), committed, strict=True):
        assert said(here) == said(there)


def test_committed_notebook_shows_figures_tables_and_two_modules() -> None:
    outputs = [out for cell in outputs_of(json.loads(NOTEBOOK.read_text())) for out in cell]
    kinds = [kind for out in outputs for kind in out.get("data", {})]
    assert kinds.count("image/png") >= 4
    assert kinds.count("text/html") >= 5
    assert "application/vnd.plotly.v1+json" in kinds
    assert any("2 modules: supported" in "".join(out.get("data", {}).get("text/html", "")) for out in outputs)
    assert not any("<script" in "".join(out.get("data", {}).get("text/html", "")) for out in outputs)
    assert NOTEBOOK.stat().st_size < 10**6


def test_figures_show_in_a_fresh_kernel_without_pyplot(run: Any) -> None:
    """The notebook never imports pyplot, so that the pictures are shown by the figures themselves."""
    source = "".join(cell["source"] for cell in run["cells"])
    assert "pyplot" not in source
    shown = [out for cell in outputs_of(run) for out in cell if "image/png" in out.get("data", {})]
    assert len(shown) >= 4
    assert all(out["metadata"]["image/png"]["width"] > 300 for out in shown)
