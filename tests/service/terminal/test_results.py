"""What is shown of results and jobs, for people: no dictionaries, no brackets, within 80 columns."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cases_checkpoints import save_inputs, save_mlp
from rich.console import Console
from safetensors.torch import load_file, save_file

from interbasis.service.records.base import Record
from interbasis.service.records.jobs import JobRow
from interbasis.service.store.store import Store
from interbasis.service.tasks import checkpoints as checkpoint_task
from interbasis.service.terminal.details import details

THEN = datetime(2026, 11, 5, 7, 3, tzinfo=UTC)


def shown(row: Record) -> dict[str, str]:
    """The lines of the details of a record, by their names."""
    console = Console(width=80)
    with console.capture() as capture:
        console.print(details(row))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert not set("{}[]'") & set(capture.get())
    return {line.split()[0]: " ".join(line.split()[1:]) for line in lines}


@pytest.fixture
def job(sqlite_place: Any) -> JobRow:
    with sqlite_place.open() as store:
        model = store.register_model("m", "mlp", {"widths": [2, 3], "activation": "relu"})
        assert shown(model)["config"] == "widths 2 3, activation relu"
        return store.submit("track", model.id, {"epsilon": [0.1, 0.2], "align": False})


def test_job_that_waits_is_shown_without_what_does_not_apply(job: JobRow) -> None:
    row = replace(job, created=THEN)
    assert shown(row) == {
        "id": job.id,
        "task": "track",
        "target": job.target,
        "choices": "epsilon 0.1 0.2, align False",
        "state": "queued",
        "created": "2026-11-05 07:03",
    }


def test_job_that_runs_and_one_that_has_ended(job: JobRow) -> None:
    row = replace(job, state="running", step="track", fraction=0.25, remaining=12.0, worker="w", queue="night")
    lines = shown(replace(row, message="aligning", cancelling=True, attempts=2, timeout=60.0))
    assert (lines["state"], lines["done"], lines["queue"]) == ("to be cancelled", "25 %, 12 s left", "night")
    assert (lines["timeout"], lines["attempts"], lines["message"]) == ("60 s", "2", "aligning")
    made = ({"kind": "graph", "id": "g-1"}, {"kind": "partition", "id": "p-2"})
    assert shown(replace(row, state="succeeded", results=made))["results"] == "graph g-1, partition p-2"
    failed = shown(replace(row, state="failed", error="no data\nat all"))
    assert (failed["error"], "done" in failed) == ("no data", False)


def test_notes_on_how_a_checkpoint_was_read_are_stored_and_shown(tmp_path: Path) -> None:
    path = save_mlp(tmp_path / "net.safetensors")
    save_file({f"module.{name}": tensor for name, tensor in load_file(path).items()}, path)
    loaded, _ = checkpoint_task.load(path, {}, data=save_inputs(tmp_path / "data.npz"))
    row, _ = checkpoint_task.register(Store.open(str(tmp_path / "s.db")), loaded)
    said = "module. in names of tensors passed over: a wrapped model was saved"
    assert loaded.notes == (said,)
    assert row.about is not None
    assert row.about["notes"] == [said]
    console = Console(width=200, file=io.StringIO())
    console.print(details(row))
    assert said in console.file.getvalue()  # type: ignore[attr-defined]
