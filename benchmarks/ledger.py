"""Parameter ledgers of the demo's checkpoints and of trained networks; prints the tables of docs/ledger.md.

    INTERBASIS_TEST_DATA=... python benchmarks/ledger.py

Takes about ten minutes on two cores, and 3 GB.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from interbasis.analysis import Ledger, load_checkpoint, parameter_ledger
from interbasis.analysis.checkpoints.two_digits import train_two_digits

_SCALES = (None, 1e-3, 1e-2, 1e-1)


def main() -> None:
    """Print all tables."""
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, torch {version('torch')}"
    print(
        f"`python benchmarks/ledger.py`, {datetime.now(UTC):%Y-%m-%d}, {machine}, interbasis {version('interbasis')}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        demo(Path(folder))
        if data := os.environ.get("INTERBASIS_TEST_DATA"):
            modular_addition(Path(data))
            mnist(Path(data), Path(folder))


def demo(folder: Path) -> None:
    """Every checkpoint of the demo, exact and at three loss scales."""
    paths = train_two_digits(folder / "demo")
    for epsilon in _SCALES:
        rows = []
        for path in paths:
            run = load_checkpoint(path)
            rows.append((f"step {run.step}", *timed(run, epsilon=epsilon)))
        table(f"Demo, {'exact ranks' if epsilon is None else f'epsilon {epsilon:g}'}", rows)


def modular_addition(data: Path) -> None:
    """The three seeds, then one of them layer by layer."""
    runs = {seed: load_checkpoint(data / "modadd" / f"modadd_p113_seed{seed}.safetensors") for seed in (0, 1, 2)}
    rows = [(f"seed {seed}", *timed(run)) for seed, run in runs.items()]
    table("Modular addition, exact ranks", rows)
    layers(rows[0][1])


def mnist(data: Path, folder: Path) -> None:
    """Its own data are missing: inputs that stand for them."""
    small = torch.from_numpy(load_digits().images)[:, None]
    digits = torch.nn.functional.interpolate(small, size=(28, 28), mode="bilinear").flatten(1).numpy() / 16
    stand_ins = {"normal inputs": np.random.default_rng(0).standard_normal((2000, 784)), "enlarged digits": digits}
    rows = []
    for name, inputs in stand_ins.items():
        np.savez(folder / "inputs.npz", inputs=inputs)
        run = load_checkpoint(data / "mnist_mlp" / "mnist_mlp_100_100.safetensors", data=folder / "inputs.npz")
        rows.append((name, *timed(run)))
    table("MNIST MLP 784-100-100-10, exact ranks", rows)
    layers(rows[-1][1])


def timed(run, **options) -> tuple[Ledger, float]:
    """A ledger, and the seconds it took."""
    start = time.perf_counter()
    return parameter_ledger(run.network, run.batches, **options), time.perf_counter() - start


def table(title: str, rows: list[tuple[str, Ledger, float]]) -> None:
    """One line per ledger."""
    print(f"### {title}\n")
    print("| | nominal | activations | Jacobians | gating | synchronisation | unexplained | effective | dead | s |")
    print("| --- " * 10 + "|")
    for name, ledger, seconds in rows:
        known = ledger.hessian
        counts = [f"{count:,}" for _, count in ledger.rows()]
        if known.method == "sampled":
            counts[-2] = f">= {counts[-2]}" if ledger.unexplained else "?"
            counts[-1] = f"<= {counts[-1]}"
        if known.method == "lanczos":
            counts[-1] += f" ({known.lower:,} to {known.upper:,})"
        dead = sum(layer.dead for layer in ledger.layers)
        print(f"| {name} | {' | '.join(counts)} | {dead} | {seconds:.1f} |")
    print()


def layers(ledger: Ledger) -> None:
    """One line per layer."""
    print("| layer | nominal | rank G | rank K | activations | Jacobians | gating | free together | cos(H, G x K) |")
    print("| --- " * 9 + "|")
    for layer in ledger.layers:
        ranks = f"{layer.gram_rank}/{layer.n_inputs} | {layer.jacobian_rank}/{layer.n_outputs}"
        fit = f"{layer.kronecker.cosine:.3f}"
        if layer.kronecker.standard_error is not None:
            fit += f" +- {layer.kronecker.standard_error:.3f}"
        free = " + ".join(sorted({f"{b.s} x {b.t} ({b.kind})" for b in layer.blocks if b.free})[:3])
        causes = f"{layer.activations:,} | {layer.jacobians:,} | {layer.gating:,}"
        print(f"| {layer.name} | {layer.nominal:,} | {ranks} | {causes} | {layer.synchronised:,}: {free} | {fit} |")
    print()


if __name__ == "__main__":
    main()
