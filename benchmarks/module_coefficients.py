"""Degrees of freedom of planted modules: do they add up, and do mediating nodes cost what eq. 34 of the paper says?

Two tanh blocks side by side (3-4-4-2 each), in the neuron basis. Without connections N_eff of all modules together
must be the sum over modules, at four loss scales. Then m hidden nodes of the first block feed the second one and are
held by a strength w: what they take from their module's volume, over log w.

    python benchmarks/module_coefficients.py > benchmarks/module_coefficients.md
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import sys
import time
from dataclasses import replace

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
    learning_coefficient,
    module_coefficients,
    score_partition,
)
from interbasis.analysis.llc import mean_with_error
from interbasis.analysis.llc.network_loss import behavioural_loss
from interbasis.analysis.refined.constraints import constrained_loss, mediating_readout
from interbasis.analysis.refined.dividing import module_subspaces
from interbasis.analysis.refined.watched import Watched

SIDE = [np.repeat([0, 1], size) for size in (3, 4, 4, 2)]
SCALES = (1e-3, 1e-4, 1e-5, 1e-6)


def drawn(*shape: int, seed: int) -> Tensor:
    """Draw normal numbers of a seed."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def blocks(mediators: int, w: float, *, lonely: bool = False) -> Network:
    """Build two blocks; nodes of the first one's second layer feed the outputs of the second; `lonely` ones only it."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    for seed, p in enumerate(model.parameters()):
        p.data = drawn(*p.shape, seed=seed) * (1 if p.ndim == 1 else 1.5 / math.sqrt(p.shape[1] / 2))
    for place, (rows, columns) in ((0, (4, 3)), (2, (4, 4)), (4, (2, 4))):
        weight = model[place].weight.data
        weight[:rows, columns:] = weight[rows:, :columns] = 0
    for node in range(mediators):
        model[4].weight.data[2 + node % 2, node] = w
        if lonely:
            model[4].weight.data[:2, node] = 0
    return Network(model, ["0:in", "1", "3", "4"])


def counted(net: Network, x: Tensor, epsilon: float, sampler: Sampler) -> RefinedCoefficients:
    """Count the degrees of freedom of both blocks."""
    bases = interaction_basis(net, [x], kind="neuron")
    part = score_partition(interaction_graph(net, bases, [x]), SIDE, epsilon=epsilon)
    return module_coefficients(net, bases, part, batches=[x], epsilon=epsilon, constrained=False, sampler=sampler)


def independent(x: Tensor, sampler: Sampler) -> None:
    """Print whether blocks without connections add up."""
    print("## Two independent blocks\n")
    print("| epsilon | module 0 | module 1 | sum | all modules | difference | standard errors | between | whole |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for epsilon in SCALES:
        found = counted(blocks(0, 0.0), x, epsilon, sampler)
        values = {part.name: part.estimate.n_effective for part in found.parts}
        difference, error = found.interaction or (math.nan, math.nan)
        total = values["module 0"] + values["module 1"]
        print(
            f"| {epsilon:g} | {values['module 0']:.2f} | {values['module 1']:.2f} | {total:.2f} | "
            f"{values['all modules']:.2f} | {difference:+.3f} +- {error:.3f} | {abs(difference) / error:.1f} | "
            f"{values['between modules']:.2f} | {values['whole']:.2f} |",
            flush=True,
        )


def ladder(
    net: Network, x: Tensor, nodes: int, epsilon: float, sampler: Sampler
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Hold the first nodes of the second hidden layer with growing strength, within the parameters of their block.

    d/dlog(w) of -log(Z_C / Z) is 2 t w^2 E_w[P], with P the movement of the nodes in standard deviations over chains
    that feel the constraint (thermodynamic integration).

    Returns:
        Strengths, these derivatives, their standard errors, and the full strength.
    """
    bases = interaction_basis(net, [x], kind="neuron")
    part = score_partition(interaction_graph(net, bases, [x]), SIDE, epsilon=epsilon)
    free = behavioural_loss(net, [x])
    space = module_subspaces(free, bases, part.labels).modules[0]
    whole = learning_coefficient(free, epsilon=epsilon, sampler=sampler)
    fixed = replace(sampler, gamma=whole.gamma, radius=Sampler.radius)
    own = [v for v in part.mediators if v.earlier == 0 and v.cut == 2 and v.coordinate < nodes]
    unit = mediating_readout(bases, own, epsilon, weighted=False)
    steps = np.arange(-3, math.ceil(math.log2(part.full_strength / math.sqrt(epsilon))) + 1)
    strengths = math.sqrt(epsilon) * 2.0**steps
    slopes, errors = list[float](), list[float]()
    for w in strengths:
        loss = constrained_loss(net, [x], {cut: w * rows for cut, rows in unit.items()})
        chains = learning_coefficient(
            Watched(loss, space, unit), temperature=whole.temperature, sampler=fixed, seed=len(slopes)
        )
        moved = sum(chains.traces[f"observed_{i}"] for i in range(len(own)))
        found = mean_with_error(2 * whole.temperature * w**2 * moved)
        slopes, errors = [*slopes, found.mean], [*errors, found.error]
        print(f"{w:.4f}: {found.mean:.3f} +- {found.error:.3f}, {chains.verdict}", file=sys.stderr, flush=True)
    return strengths, np.array(slopes), np.array(errors), part.full_strength


def joined(x: Tensor, sampler: Sampler, epsilon: float) -> None:
    """Print what mediating nodes take, over their strength."""
    print(f"\n## What m mediating nodes take from their module, epsilon {epsilon:g}, radius {sampler.radius:g}\n")
    print(
        "Taken: -log(Z_C / Z), by thermodynamic integration over the strength w at which the nodes are held. Eq. 34 "
        "says that it grows with log(w / sqrt(eps)) by gamma~, its secant up to full strength.\n"
    )
    for lonely in (True, False):
        for mediators in (1, 2):
            net = blocks(mediators, 0.3, lonely=lonely)
            w, slopes, errors, full = ladder(net, x, mediators, epsilon, sampler)
            logs = np.log(w / math.sqrt(epsilon))
            sums = np.zeros((len(w), len(w)))  # taken = sums @ slopes: trapezoids, and w^2 below the first strength
            sums[:, 0] = 0.5
            for k in range(1, len(w)):
                sums[k:, k - 1 : k + 1] += (logs[k] - logs[k - 1]) / 2
            counted = (logs >= -1e-9) & (w <= full * 1.001)
            centred = np.where(counted, logs - logs[counted].mean(), 0.0)
            fit = centred / np.square(centred).sum() @ sums
            top = sums[np.flatnonzero(counted)[-1]] / logs[counted][-1]
            taken = sums @ slopes
            what = "nodes that feed the other block only" if lonely else "nodes that feed both blocks"
            print(f"{mediators} of {what} (full strength {full:.3g}):\n")
            print("| w | log(w / sqrt(eps)) | taken | slope there, d taken / d log w |")
            print("| --- | --- | --- | --- |")
            for k in range(len(w)):
                error = math.sqrt(float(np.square(sums[k] * errors).sum()))
                print(
                    f"| {w[k]:.4f} | {logs[k]:+.2f} | {taken[k]:.3f} +- {error:.3f} | "
                    f"{slopes[k]:.2f} +- {errors[k]:.2f} |"
                )
            found, error = float(fit @ slopes), math.sqrt(float(np.square(fit * errors).sum()))
            secant, off = float(top @ slopes), math.sqrt(float(np.square(top * errors).sum()))
            print(
                f"\nSlope over log w from w = sqrt(eps) to full strength: {found:.2f} "
                f"[{found - 1.96 * error:.2f}, {found + 1.96 * error:.2f}]; gamma~ (the prediction): {secant:.2f} "
                f"[{secant - 1.96 * off:.2f}, {secant + 1.96 * off:.2f}].\n",
                flush=True,
            )


def main() -> None:
    """Run both studies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--joined-only", action="store_true")
    parser.add_argument("--radius", type=float, default=Sampler.radius)
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    x, sampler = drawn(given.points, 6, seed=99), Sampler(draws=given.draws, radius=given.radius)
    print("# Degrees of freedom of planted modules\n")
    print(
        f"`python benchmarks/module_coefficients.py`, {datetime.date.today()}, {platform.machine()}, {os.cpu_count()} "
        f"CPUs (one thread used), torch {torch.__version__}, interbasis {__version__}, {given.points} data points\n"
    )
    if not given.joined_only:
        independent(x, sampler)
    joined(x, sampler, 1e-4)
    print(f"\n{time.process_time() - start:.0f} CPU seconds.")


if __name__ == "__main__":
    main()
