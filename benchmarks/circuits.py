"""Circuit experiments on the demo's checkpoints and on trained networks; prints the tables of docs/circuits.md.

    INTERBASIS_TEST_DATA=... python benchmarks/circuits.py

Takes about twenty minutes on one core.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import circuits_mixing
import numpy as np
import torch
from sklearn.datasets import load_digits

from interbasis.analysis import (
    Checkpoint,
    ablate_modules,
    bisect_edges,
    circuit_faithfulness,
    find_modules,
    isolate_modules,
    load_checkpoint,
    predict_losses,
)
from interbasis.analysis.checkpoints.two_digits import train_two_digits
from interbasis.analysis.circuits.controls import Control, Outcome
from interbasis.analysis.circuits.metrics import Estimate
from interbasis.analysis.pipeline.one_call import run
from interbasis.analysis.recipe import Recipe

_LOCAL = {"basis": "local", "output": "neuron", "rotation": "none"}


def main() -> None:
    """Print all tables."""
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, torch {version('torch')}"
    print(
        f"`python benchmarks/circuits.py`, {datetime.now(UTC):%Y-%m-%d}, {machine}, interbasis {version('interbasis')}"
    )
    with tempfile.TemporaryDirectory() as folder:
        runs: list[tuple[str, Checkpoint, dict[str, Any], str]] = []
        for path in train_two_digits(Path(folder) / "demo"):
            loaded = load_checkpoint(path)
            runs.append((f"demo, step {loaded.step}", loaded, {}, "accuracy"))
        bisected: list[tuple[str, Checkpoint, dict[str, Any], str]] = [runs[-1]]
        if data := os.environ.get("INTERBASIS_TEST_DATA"):
            for seed in (0, 1, 2):
                loaded = load_checkpoint(Path(data) / "modadd" / f"modadd_p113_seed{seed}.safetensors")
                runs.append((f"modular addition, seed {seed}", loaded, _LOCAL, "accuracy"))
                rotated = {**_LOCAL, "output": "pca"}
                bisected += [runs[-1], (f"modular addition, seed {seed}, rotated output", loaded, rotated, "accuracy")]
            runs.append(("MNIST MLP, enlarged digits", mnist(Path(data), Path(folder)), _LOCAL, "accuracy"))
        isolation(runs)
        modules([runs[5], *runs[6:]])
        peers = reference(Path(data)) if data else {}
        bisection(bisected, peers)
        faithfulness([runs[5], *runs[6:9]])
        prediction(runs)
    circuits_mixing.main()


def mnist(data: Path, folder: Path) -> Checkpoint:
    """Its own data are missing: the 8x8 digits of scikit-learn stand for them, in a box of 20x20 centred by mass."""
    digits = load_digits()
    small = torch.from_numpy(digits.images)[:, None] / 16
    boxes = torch.nn.functional.interpolate(small, size=(20, 20), mode="bicubic").clamp(0, 1)[:, 0]
    places = torch.arange(20.0, dtype=torch.float64)
    frames = torch.zeros(len(boxes), 28, 28, dtype=torch.float64)
    for frame, box in zip(frames, boxes, strict=True):
        top, left = (int((13.5 - (box.sum(axis) @ places) / box.sum()).round().clamp(0, 8)) for axis in (1, 0))
        frame[top : top + 20, left : left + 20] = box
    images = frames.flatten(1).numpy()
    parts = {"inputs": images[:1200], "targets": digits.target[:1200]}
    np.savez(folder / "digits.npz", **parts, test_inputs=images[1200:], test_targets=digits.target[1200:])
    return load_checkpoint(data / "mnist_mlp" / "mnist_mlp_100_100.safetensors", data=folder / "digits.npz")


def isolation(runs: Sequence[tuple[str, Checkpoint, dict[str, Any], str]]) -> None:
    """What isolating the modules costs."""
    rows: list[tuple[Any, ...]] = []
    for name, loaded, choices, metric in runs:
        made = run(loaded, Recipe.from_mapping(choices))
        parts = [(name, made.partition)]
        if made.partition.n_modules == 1:
            parts.append((f"{name}, by force in two", find_modules(made.graph, k=2)))
        for title, part in parts:
            found = isolate_modules(loaded.network, made.bases, made.graph, part, loaded.test_batches, metrics=[metric])
            cells: tuple[Any, ...] = (title, part.n_modules, f"{sum(found.cut_edges):,} of {sum(found.n_edges):,}")
            for kind in (loaded.network.loss, metric):
                beside, matched = found.isolated.controls.get(kind), found.matched.get(kind)
                measured = tuple(row.values[kind] for row in (found.whole, found.isolated, found.ablated))
                rows.append((*cells, kind, *measured, random(beside), random(matched)))
                cells = ("", "", "")
    table(
        "Isolated modules",
        "network | modules | edges cut | metric | whole | isolated | no edges | random modules, p | random edges, p",
        rows,
    )


def modules(runs: Sequence[tuple[str, Checkpoint, dict[str, Any], str]]) -> None:
    """Each module ablated, and alone."""
    rows = []
    for name, loaded, choices, metric in runs:
        made = run(loaded, Recipe.from_mapping(choices))
        found = ablate_modules(
            loaded.network, made.bases, made.graph, made.partition, loaded.test_batches, metrics=[metric], draws=10
        )
        lines: list[Outcome] = [found.whole, found.nothing, *found.without, *found.alone]
        for line in lines:
            rows.append((name, line.name, line.removed, line.values[metric], random(line.controls.get(metric))))
            name = ""
    table("Modules ablated and alone", "network | | nodes ablated | accuracy | random nodes, p", rows)


def bisection(runs: Sequence[tuple[str, Checkpoint, dict[str, Any], str]], peers: dict[str, list[int]]) -> None:
    """The fewest strongest edges."""
    rows = []
    for name, loaded, choices, metric in runs:
        made = run(loaded, Recipe.from_mapping(choices))
        begun, worked = time.perf_counter(), time.process_time()
        found = bisect_edges(
            loaded.network, made.bases, made.graph, batches=loaded.test_batches, metric=metric, draws=5
        )
        spent, worked = time.perf_counter() - begun, time.process_time() - worked
        part = find_modules(made.graph, epsilon=found.epsilon)
        rows.append(
            (
                name,
                numbers(found.edges_required),
                numbers(peers.get(name, [])),
                numbers(found.jointly_required),
                found.whole.values[metric],
                found.jointly.values[metric],
                random(found.jointly.controls.get(metric)),
                ", ".join(f"{pair.controls[metric].value:.2g}" if pair.controls else "-" for pair in found.pairs),
                f"{spent:.0f} s, {worked:.0f} s",
                " ".join(f"{e**0.5:.3g}" for e in found.epsilon),
                part.n_modules,
            )
        )
    heads = "network | edges per pair | rib | jointly | whole | kept | random, p | random per pair | time, of CPU | "
    table("Fewest edges that keep accuracy within 0.001", heads + "sqrt(epsilon) | modules with it", rows)


def faithfulness(runs: Sequence[tuple[str, Checkpoint, dict[str, Any], str]]) -> None:
    """MIB's curve."""
    rows = []
    for name, loaded, choices, metric in runs:
        made = run(loaded, Recipe.from_mapping(choices))
        found = circuit_faithfulness(
            loaded.network, made.bases, made.graph, batches=loaded.test_batches, metric=metric, draws=3
        )
        curve = " ".join(f"{point.value:.2f}" for point in found.curve)
        shown = f"{np.mean(found.random_cpr):.3f}, {found.p_value:.2g}"
        rows.append((name, curve, found.cpr, shown, found.cmd))
    fractions = " ".join(f"{k:g}" for k in found.fractions)
    table("Faithfulness", f"network | f(k), k = {fractions} | CPR | random, p | CMD", rows)


def prediction(runs: Sequence[tuple[str, Checkpoint, dict[str, Any], str]]) -> None:
    """Predicted cost against measured loss, where there are three links or more."""
    rows = []
    for name, loaded, choices, _ in runs:
        made = run(loaded, Recipe.from_mapping(choices))
        for how, part in (
            ("as found", made.partition),
            ("four parts", find_modules(made.graph, k=4)),
            ("eight parts", find_modules(made.graph, k=8)),
        ):
            found = predict_losses(
                loaded.network, made.bases, made.graph, partition=part, batches=loaded.test_batches, draws=1
            )
            if found.spearman is not None and found.interval is not None:
                low, high = found.interval
                kind = found.metric
                beside = [(row.controls.get(kind), row.values[kind]) for row in (link.measured for link in found.links)]
                cheap = sum(drawn.value > real.value for drawn, real in beside if drawn is not None)
                known = sum(drawn is not None for drawn, _ in beside)
                shown = f"{found.spearman:.2f} [{low:.2f}, {high:.2f}]"
                rows.append((name, how, len(found.links), shown, f"{cheap} of {known}"))
    heads = "network | modules | links | Spearman | cheaper than as many random edges"
    table("Predicted cost and measured loss", heads, rows)


def reference(data: Path) -> dict[str, list[int]]:
    """What rib needs per pair of cuts, in its local basis with raw outputs."""
    found: dict[str, list[int]] = {}
    for row in json.loads((data / "modadd" / "reference_seeds_0_1_2.json").read_text())["edge_bisect"]:
        if row["basis"] == "rib":
            found.setdefault(f"modular addition, seed {row['seed']}", []).append(row["n_edges_required"])
    return found


def random(beside: Control | None) -> str:
    """Random interventions in a cell."""
    return "" if beside is None else f"{Estimate(beside.value, beside.spread)}, {beside.p_value:.2g}"


def numbers(values: Sequence[int]) -> str:
    """Counts in a cell."""
    return " / ".join(map(str, values))


def table(title: str, heads: str, rows: Sequence[Sequence[Any]]) -> None:
    """As Markdown."""
    print(f"\n## {title}\n\n| {heads} |\n|{' --- |' * (1 + heads.count('|'))}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
