"""Learning coefficients of 20 nonlinear networks against reference values, and devinterp in the same CPU time.

    python benchmarks/llc_nonlinear.py --devinterp2 VENV/bin/python > benchmarks/llc_nonlinear.md
    python benchmarks/llc_nonlinear.py --kernels sgld psgld --batch 32 --only 0 4 8 12

The references of llc_references.json come from `llc_references.py`. For each network `learning_coefficient` runs with
its defaults at the reference's temperature; devinterp 2.0.1, in an environment of its own, then samples the same
posterior for the same CPU time, with steps set from the largest curvature (which it does not compute itself), full
batch, a quarter of the steps left out as burn-in. All on one thread. Takes about 15 minutes. Ends with exit code 1
where the mean error is 2 % or more, fewer than three quarters of the verdicts are "reliable", or one of these has an
error above 4 standard errors (its own and the reference's).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import torch
from llc import Answer, devinterp
from llc_references import FILE, NETWORKS, Problem, forward, layers, prepared
from torch import nn

from interbasis.analysis import Sampler, learning_coefficient
from interbasis.analysis.llc import LearningCoefficient, mean_with_error


@dataclass(frozen=True)
class Case:
    """A network and its reference value."""

    problem: Problem
    coefficient: float
    error: float
    temperature: float

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.problem.size


@dataclass(frozen=True)
class Row:
    """What was found of one network."""

    case: Case
    found: LearningCoefficient
    ours: Answer
    others: list[Answer]

    @property
    def sigmas(self) -> float:
        """The error in standard errors, of both values together."""
        return abs(self.found.value - self.case.coefficient) / math.hypot(self.found.standard_error, self.case.error)


def main() -> int:
    """Runs all networks, prints the tables, and says whether ours are good enough."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devinterp2", help="python of an environment with devinterp 2.0.1")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of networks")
    parser.add_argument("--kernels", nargs="*", default=["auto"], help="kernels; auto is the default one")
    parser.add_argument("--batch", type=int, help="random data points of a step; default: all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    references = json.loads(FILE.read_text())
    rows = []
    for problem in NETWORKS:
        kept = references.get(problem.name)
        if kept is None or (options.only and problem.number not in options.only):
            continue
        problem = prepared(problem)
        if float(np.square(problem.theta).sum()) != kept["sum_of_squares"]:
            raise SystemExit(f"{problem.name}: training gave other weights than those of the reference")
        case = Case(problem, kept["lambda"], kept["standard_error"], kept["t"])
        for kernel in options.kernels:
            rows.append(row(case, options.devinterp2, kernel, options.batch))
            print(told(rows[-1]), file=sys.stderr, flush=True)
    report(rows)
    mean = float(np.mean([r.ours.deviation for r in rows]))
    reliable = [r for r in rows if r.found.verdict == "reliable"]
    worst = max((r.sigmas for r in reliable), default=0.0)
    print(f"mean error {mean:.2f} %, {len(reliable)} of {len(rows)} reliable, worst {worst:.1f} SE", file=sys.stderr)
    return int(not (mean < 2 and len(reliable) >= 0.75 * len(rows) and worst < 4))


def told(found: Row) -> str:
    """What was found of one network, in a line."""
    others = ", ".join(f"{a.tool} {a.deviation:.2f} %" for a in found.others)
    own = f"{found.ours.tool}: {found.ours.deviation:.2f} %, {found.sigmas:.1f} SE, {found.found.verdict}"
    return f"{found.case.problem.name}: {own}; {others}; {found.found.reason}"


def row(case: Case, python: str | None, kernel: str, batch: int | None) -> Row:
    """Our answer, and devinterp's."""
    problem = case.problem
    net, x = model(problem), torch.from_numpy(problem.x.copy())
    begin = time.process_time()
    given = {} if kernel == "auto" else {"kernel": kernel, "batch_size": batch}
    sampler = Sampler(radius=problem.radius, **given)  # the question that is asked; all else is default
    found = learning_coefficient(net, [x], temperature=case.temperature, sampler=sampler, seed=problem.number)
    seconds = time.process_time() - begin
    ess, pace = mean_with_error(found.traces["llc"]).ess, seconds / found.diagnostics.gradients
    name = "interbasis" if kernel == "auto" else f"interbasis, {kernel}, {batch or 'all'} data points a step"
    ours = Answer(name, case, found.value, found.standard_error, found.interval, seconds, ess, pace)
    if python is None:
        return Row(case, found, ours, [])
    own = layers(problem, problem.theta[None])
    shared = {
        "weights": [torch.from_numpy(weight[0].copy()) for weight, _ in own],
        "biases": [torch.from_numpy(bias[0, 0].copy()) for _, bias in own],
        "activation": problem.activation,
        "x": x,
        "y": torch.from_numpy(forward(problem, problem.theta[None])[-1][0].copy()),
        "t": found.temperature,
        "gamma": found.gamma,
        "stiffest": found.temperature * found.diagnostics.largest_curvature + found.gamma,
        "seconds": seconds,
    }
    return Row(case, found, ours, devinterp(python, "2", case, shared)[0])


def model(problem: Problem) -> nn.Sequential:
    """The network as torch modules."""
    parts: list[nn.Module] = []
    for weight, bias in layers(problem, problem.theta[None]):
        linear = nn.Linear(weight.shape[2], weight.shape[1]).double()
        linear.weight.data, linear.bias.data = torch.from_numpy(weight[0].copy()), torch.from_numpy(bias[0, 0].copy())
        parts += [linear, nn.Tanh() if problem.activation == "tanh" else nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def report(rows: list[Row]) -> None:
    """The tables as Markdown."""
    print("# Learning coefficients of nonlinear networks\n")
    print(
        f"`python benchmarks/llc_nonlinear.py`, {datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} "
        f"CPUs (one thread used), torch {version('torch')}, interbasis {version('interbasis')}. References: plain HMC, "
        "`llc_references.py`.\n"
    )
    answers = [a for r in rows for a in (r.ours, *r.others)]
    print("| | mean error % | worst % | outside 95 % interval | ESS per CPU s | CPU s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for tool in dict.fromkeys(a.tool for a in answers):
        own = [a for a in answers if a.tool == tool]
        off, pace = [a.deviation for a in own], np.median([a.ess / a.seconds for a in own])
        out, spent = sum(not a.inside for a in own), np.median([a.seconds for a in own])
        print(f"| {tool} | {np.mean(off):.2f} | {np.max(off):.2f} | {out} | {pace:.1f} | {spent:.1f} |")
    print("\n| network | parameters | reference | quadratic | estimate | error % | in SE | verdict | devinterp, best |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for r in rows:
        best = f"{min(a.deviation for a in r.others):.2f}" if r.others else "-"
        name = r.case.problem.name + r.ours.tool.removeprefix("interbasis")
        print(
            f"| {name} | {r.case.size:,} | {r.case.coefficient:.3f} ± {r.case.error:.3f} "
            f"| {r.found.diagnostics.soft_rank:.3f} | {r.found.value:.3f} ± {r.found.standard_error:.3f} "
            f"| {r.ours.deviation:.2f} | {r.sigmas:.1f} | {r.found.verdict} | {best} |"
        )


if __name__ == "__main__":
    sys.exit(main())
