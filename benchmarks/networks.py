"""Modules of trained networks whose modules are known: agreement with the truth, no knob, five seeds each.

    python benchmarks/networks.py

Trains the networks of tests/cases_networks.py at several weight decays and writes benchmarks/networks.md.
"""

from __future__ import annotations

import platform
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import adjusted_mutual_info_score

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from cases_networks import CUTS, TASKS, trained_graph  # noqa: E402

from interbasis.analysis import find_modules  # noqa: E402

TRAININGS = (
    ("weight decay 1, fresh pairs", {"weight_decay": 1.0, "fresh": True}),
    ("weight decay 0.3, fresh pairs", {"weight_decay": 0.3, "fresh": True}),
    ("weight decay 0.3, 4000 pairs", {"weight_decay": 0.3, "fresh": False}),
    ("weight decay 0.1, 4000 pairs", {"weight_decay": 0.1, "fresh": False}),
)
SEEDS = range(5)
TEXT = """# Modules of trained networks

`python benchmarks/networks.py`, {date}, {machine}, {versions}

Networks that name handwritten digits side by side (two hidden layers of 24 ReLU units per digit, AdamW, 2000 steps,
batches of 256). Basis with rotation="degenerate", raw outputs as nodes; `find_modules(graph)` with no option, epsilon
included. Cuts: the input and after each of the three layers, or cuts="auto", which adds those before each activation.
AMI: adjusted mutual information with the true sides on the nodes with an edge, seeds 0 to 4; 0 where one
module is found. For the sum of the digits one module is the right answer; a p-value is given where more are found.

| task | training | cuts | accuracy | AMI by seed | mean | least | modules | p |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def row(task: str, name: str, training: dict[str, object], cuts: object) -> str:
    """One line of the table."""
    accuracies, agreements, counts, ps = [], [], [], []
    for seed in SEEDS:
        graph, sides, accuracy = trained_graph(task, seed, cuts=cuts, **training)
        part = find_modules(graph)
        accuracies.append(accuracy)
        counts.append(str(part.n_modules))
        ps.append("-" if part.p_value is None else f"{part.p_value:.3f}")
        if sides is not None:
            labels, truth = np.concatenate(part.labels), np.concatenate(sides)
            agreements.append(adjusted_mutual_info_score(truth[labels >= 0], labels[labels >= 0]))
    shown = ["-"] * 3
    if agreements:
        shown = [", ".join(f"{a:.2f}" for a in agreements), f"{np.mean(agreements):.2f}", f"{min(agreements):.2f}"]
    cells = [task, name, "auto" if cuts == "auto" else "named", f"{np.mean(accuracies):.2f}", *shown]
    return "| " + " | ".join([*cells, ", ".join(counts), ", ".join(ps)]) + " |"


def main() -> None:
    """Write the table, line by line."""
    torch.set_num_threads(1)
    versions = ", ".join(f"{name} {version(name)}" for name in ("interbasis", "torch", "numpy"))
    text = TEXT.format(date=date.today(), machine=f"{platform.machine()}, {platform.system()}", versions=versions)
    for task in TASKS:
        for name, training in TRAININGS:
            for cuts in (CUTS, "auto"):
                text += row(task, name, training, cuts) + "\n"
                print(text.splitlines()[-1], flush=True)
    (ROOT / "benchmarks" / "networks.md").write_text(text)


if __name__ == "__main__":
    main()
