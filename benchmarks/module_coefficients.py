"""Degrees of freedom of planted modules: do they add up, and do mediating nodes cost what eq. 34 of the paper says?

Two tanh blocks side by side (3-4-4-2 each), in the neuron basis. Without connections N_eff of all modules together
must be the sum over modules, at four loss scales. Then m hidden nodes of the first block feed the second one, each with
strength w: the excess of the constrained over the free coefficient, and what each node takes, over log w.

    python benchmarks/module_coefficients.py > benchmarks/module_coefficients.md
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from interbasis import __version__
from interbasis.analysis import (
    Network,
    RefinedCoefficients,
    Sampler,
    interaction_basis,
    interaction_graph,
    module_coefficients,
    score_partition,
)

SIDE = [np.repeat([0, 1], size) for size in (3, 4, 4, 2)]
SCALES = (1e-3, 1e-4, 1e-5, 1e-6)
STRENGTHS = (0.03, 0.06, 0.12, 0.25, 0.5)


def drawn(*shape: int, seed: int) -> Tensor:
    """Draw normal numbers of a seed."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def blocks(mediators: int, w: float) -> Network:
    """Build two blocks; nodes of the first one's second layer feed the outputs of the second."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    for seed, p in enumerate(model.parameters()):
        p.data = drawn(*p.shape, seed=seed) * (1 if p.ndim == 1 else 1.5 / math.sqrt(p.shape[1] / 2))
    for place, (rows, columns) in ((0, (4, 3)), (2, (4, 4)), (4, (2, 4))):
        weight = model[place].weight.data
        weight[:rows, columns:] = weight[rows:, :columns] = 0
    for node in range(mediators):
        model[4].weight.data[2 + node % 2, node] = w
    return Network(model, ["0:in", "1", "3", "4"])


def counted(net: Network, x: Tensor, epsilon: float, sampler: Sampler, *, constrained: bool) -> RefinedCoefficients:
    """Count the degrees of freedom of both blocks."""
    bases = interaction_basis(net, [x], kind="neuron")
    part = score_partition(interaction_graph(net, bases, [x]), SIDE, epsilon=epsilon)
    return module_coefficients(net, bases, part, batches=[x], epsilon=epsilon, constrained=constrained, sampler=sampler)


def slope(x: Sequence[float], y: Sequence[float], errors: Sequence[float]) -> tuple[float, float]:
    """Fit a line by weighted least squares; return its slope and standard error, scatter around the line included."""
    weights = 1 / np.square(np.maximum(errors, 1e-6))
    centre = np.average(x, weights=weights)
    spread = float((weights * np.square(np.array(x) - centre)).sum())
    found = float((weights * (np.array(x) - centre) * np.array(y)).sum()) / spread
    rest = np.array(y) - np.average(y, weights=weights) - found * (np.array(x) - centre)
    scatter = max(1.0, float((weights * rest**2).sum()) / max(len(x) - 2, 1))
    return found, math.sqrt(scatter / spread)


def independent(x: Tensor, sampler: Sampler) -> None:
    """Print whether blocks without connections add up."""
    print("## Two independent blocks\n")
    print("| epsilon | module 0 | module 1 | sum | all modules | difference | standard errors | between | whole |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for epsilon in SCALES:
        found = counted(blocks(0, 0.0), x, epsilon, sampler, constrained=False)
        values = {part.name: part.estimate.n_effective for part in found.parts}
        difference, error = found.interaction or (math.nan, math.nan)
        total = values["module 0"] + values["module 1"]
        print(
            f"| {epsilon:g} | {values['module 0']:.2f} | {values['module 1']:.2f} | {total:.2f} | "
            f"{values['all modules']:.2f} | {difference:+.3f} +- {error:.3f} | {abs(difference) / error:.1f} | "
            f"{values['between modules']:.2f} | {values['whole']:.2f} |",
            flush=True,
        )


def joined(x: Tensor, sampler: Sampler, epsilon: float) -> None:
    """Print what mediating nodes take, over their strength."""
    print(f"\n## Joined by m nodes of strength w, epsilon {epsilon:g}\n")
    print("| m | w | constrained - free (eq. 32) | all modules - sum | measured gamma, sum | sum of log(w/sqrt(eps)) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for mediators in (1, 2):
        logs, taken, errors = list[float](), list[float](), list[float]()
        for w in STRENGTHS:
            found = counted(blocks(mediators, w), x, epsilon, sampler, constrained=True)
            unit = math.log(1 / math.sqrt(epsilon))
            constraint, excess = found.constraint or (math.nan, math.nan), found.interaction or (math.nan, math.nan)
            known = [node for node in found.mediators if node.measured is not None]
            gammas = sum(node.measured or 0.0 for node in known)
            error = math.hypot(*(node.standard_error or 0.0 for node in known)) if known else math.nan
            log = sum(math.log(node.strength / math.sqrt(epsilon)) for node in found.mediators)
            print(
                f"| {mediators} | {w} | {constraint[0]:.3f} +- {constraint[1]:.3f} | "
                f"{excess[0]:+.3f} +- {excess[1]:.3f} | "
                f"{gammas:.3f} +- {error:.3f} ({len(known)} of {len(found.mediators)}) | {log:.2f} |",
                flush=True,
            )
            if len(known) == len(found.mediators) > 0:
                logs, taken, errors = [*logs, log / unit], [*taken, gammas], [*errors, error]
        if len(logs) > 2:
            found_slope, error = slope(logs, taken, errors)
            print(
                f"\nm = {mediators}: slope of the measured gamma over log(w/sqrt(eps))/log(1/sqrt(eps)): "
                f"{found_slope:.2f} [{found_slope - 1.96 * error:.2f}, {found_slope + 1.96 * error:.2f}]; eq. 34 with "
                "gamma~ = 1: 1\n"
            )


def main() -> None:
    """Run both studies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--draws", type=int, default=500)
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    x, sampler = drawn(given.points, 6, seed=99), Sampler(draws=given.draws)
    print("# Degrees of freedom of planted modules\n")
    print(
        f"`python benchmarks/module_coefficients.py`, {datetime.date.today()}, {platform.machine()}, {os.cpu_count()} "
        f"CPUs (one thread used), torch {torch.__version__}, interbasis {__version__}, {given.points} data points\n"
    )
    independent(x, sampler)
    joined(x, sampler, 1e-4)
    print(f"\n{time.process_time() - start:.0f} CPU seconds.")


if __name__ == "__main__":
    main()
