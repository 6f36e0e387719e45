"""What jobs read lies in temporary folders; what they say about it names what the user registered or uploaded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases_checkpoints import save_inputs, save_mlp
from safetensors.numpy import save_file
from safetensors.torch import load_file
from safetensors.torch import save_file as save_tensors

from interbasis.analysis.errors import InputError
from interbasis.service.jobs import compute
from interbasis.service.store.store import Store
from interbasis.service.tasks import analyze as analyze_task
from interbasis.service.tasks.checkout import checked_out, own_names


def said_by(store: Store, task: str, target: Any, choices: dict[str, Any]) -> str:
    """The error of a job's first step, computed in this process."""
    job = store.submit(task, target, choices)
    steps = compute.Steps(store, job.to_json(), lambda _: None)
    with pytest.raises(InputError) as caught, steps.files():
        steps.take("load" if task == "analyze" else task, {})
    said = str(caught.value)
    assert "/interbasis-" not in said
    return said


@pytest.mark.parametrize("task", ["analyze", "ledger", "llc"])
def test_errors_name_the_json_as_what_was_registered(sqlite_place: Any, tmp_path: Path, task: str) -> None:
    data = save_inputs(tmp_path / "x.npz")
    with sqlite_place.open() as store:
        choices = {"data": data, **({"epsilon": 0.1} if task == "llc" else {})}
        row = store.register_checkpoint(save_mlp(tmp_path / "a.safetensors", config={"widths": "wide"}))
        assert said_by(store, task, row.id, choices).startswith(f"the JSON of {row.id}: the config does not fit")
        row = store.register_checkpoint(save_mlp(tmp_path / "b.safetensors"))
        del choices["data"]
        assert said_by(store, task, row.id, choices).startswith(f"the JSON of {row.id} names no data")


def test_errors_name_the_registered_file_or_the_upload(sqlite_place: Any, tmp_path: Path) -> None:
    data = save_inputs(tmp_path / "x.npz")
    path = save_mlp(tmp_path / "a.safetensors")
    tensors = load_file(path)
    del tensors["layers.0.bias"]
    save_tensors(tensors, path)
    with sqlite_place.open() as store:
        row = store.register_checkpoint(path)
        assert said_by(store, "analyze", row.id, {"data": data}).startswith(f"{path} lacks the tensors layers.0.bias")
        about = {**json.loads(path.with_suffix(".json").read_text()), "model": "other"}
        row = store.register_checkpoint(store.add_file(path).uri, about=about)
        assert said_by(store, "analyze", row.id, {"data": data}).startswith(f"the file of {row.id} lacks the tensors")


def test_errors_name_uploaded_data_by_their_hash(sqlite_place: Any, tmp_path: Path) -> None:
    save_file({"x": np.ones((3, 4))}, tmp_path / "x.safetensors")
    with sqlite_place.open() as store:
        uri = store.add_file(tmp_path / "x.safetensors").uri
        row = store.register_checkpoint(save_mlp(tmp_path / "a.safetensors"))
        assert said_by(store, "ledger", row.id, {"data": uri}).startswith(f"uploaded data {uri[:19]} holds ['x']")


def test_experiment_names_the_json_of_its_checkpoint(sqlite_place: Any, tmp_path: Path) -> None:
    """Its checkpoint is read again in the step, not before."""
    data = save_inputs(tmp_path / "x.npz", 8)
    with sqlite_place.open() as store:
        made = analyze_task.analyze(
            store, save_mlp(tmp_path / "a.safetensors", blocks=2), {"resolution": 1.0}, data=data
        )
        said = said_by(store, "experiment", made.partition.id, {"kind": "isolate"})
        assert said.startswith(f"{made.checkpoint.id} names no data, and {made.graph.id} was computed on")


def test_what_is_checked_out_has_the_registered_json(sqlite_place: Any, tmp_path: Path) -> None:
    with sqlite_place.open() as store:
        path = save_mlp(tmp_path / "a.safetensors", step=3)
        row = store.register_checkpoint(path)
        path.with_suffix(".json").unlink()
        with checked_out(store, row.id) as (found, file):
            assert found == row
            assert json.loads(file.with_suffix(".json").read_text())["step"] == 3
            assert torch.equal(load_file(file)["layers.0.bias"], load_file(path)["layers.0.bias"])
        assert not file.exists()


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(OSError, match=r"\[Errno 2\] /tmp/x") as caught, own_names({"/tmp/x": "y"}):
        raise OSError(2, "/tmp/x")
    assert caught.value.args == (2, "/tmp/x")
