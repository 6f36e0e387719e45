"""A real service with a worker."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from cases_checkpoints import save_inputs, save_mlp
from cases_page import HOSTILE, Service, serve, stop
from cases_store import provenance, save_ledger, save_llc
from cases_studied import describe, track

from interbasis.service.records.estimates import LLC, LlcValues
from interbasis.service.records.labels import NewLabel
from interbasis.service.records.partitions import PARTITION
from interbasis.service.store.store import Store
from interbasis.service.tasks import analyze as analyze_task


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two networks side by side, analysed at two steps; every name that people give is hostile."""
    folder = tmp_path_factory.mktemp("page")
    data = save_inputs(folder / "x.npz", 8)
    partitions = []
    with Store.open(str(folder / "store.sqlite")) as store:
        for step in (1, 2):
            about = {"seed": 2 - step, "step": step, "model": HOSTILE, "label": HOSTILE, "blocks": 2}
            about["metrics"] = {"loss": 1 / step}
            about["data"] = about["note"] = str(folder / "secret" / "run.csv")
            path = save_mlp(folder / f"{step}.safetensors", **about)
            made = analyze_task.analyze(store, path, {"output": "neuron"}, data=data)
            partitions.append(made.partition)
        labels = [
            NewLabel(text=f"{HOSTILE}0", author=HOSTILE, module=0),
            NewLabel(text=f"{HOSTILE}n", author=HOSTILE, cut=made.graph.cuts[1], node=0),
        ]
        store.put_labels(PARTITION, made.partition.id, labels)
        describe(store, made.partition.id, data)
        track(store, partitions)
        _save_coefficients(store, made.partition.id)
        save_llc(store)
        save_ledger(store)
    process, url = serve(folder / "store.sqlite")
    yield Service(url, str(folder / "store.sqlite"), made.partition.id, made.graph.id)
    stop(process)


def _save_coefficients(store: Store, ref: str) -> None:
    """Learning coefficients of both checkpoints at one loss scale; newer ones at another, and of some parameters."""
    last = store.get_partition(ref)
    dataset = store.get_graph(last.graph).dataset
    seeds = [f"/home/secret/{each}.safetensors" for each in "ab"]
    for checkpoint in store.checkpoints(model=HOSTILE).items:
        _save_llc(store, checkpoint.id, dataset, 2.5, 1e-3, {"epsilon": 1e-3, "seeds": seeds})
    for value, epsilon, more in ((7.5, 1e-2, {}), (0.125, 1e-3, {"parameters": ["layers.0*"]})):
        _save_llc(store, last.checkpoint, dataset, value, epsilon, {"epsilon": epsilon, **more})


def _save_llc(
    store: Store, checkpoint: str, dataset: str, value: float, epsilon: float, recipe: dict[str, Any]
) -> None:
    numbers = {"value": value, "standard_error": 0.25, "lower": value / 2, "upper": 2 * value, "epsilon": epsilon}
    other = {"mode": "point", "loss": "mse", "n_parameters": 26, "n": 400, "verdict": "reliable", "reason": "mixed"}
    run = {"r_hat": 1.01, "ess": 400.0, "kernel": "hmc", "preconditioner": "gauss-newton", "temperature": 550.0}
    values = LlcValues(**numbers, **other, **run, points=({**numbers},))  # type: ignore[arg-type]
    hashed = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()
    how = replace(provenance(), recipe=recipe, recipe_hash=hashed)
    store.save(LLC, (checkpoint, dataset), how, values, {"llc": repr(recipe).encode()}, force=False)
