"""Learning coefficients of deep linear networks against the exact values and against devinterp, in one run.

    python benchmarks/llc.py --devinterp1 VENV/bin/python --devinterp2 VENV/bin/python > benchmarks/llc.md

with devinterp 1.3.2 and 2.0.1 in virtual environments of their own. For every network interbasis runs first, with its
defaults; devinterp then samples the same posterior for the same CPU time, with steps set from the largest curvature
(which it does not compute itself), full batch, a quarter of the steps left out as burn-in. All on one thread.
Takes about 40 minutes. Ends with exit code 1 where our mean error is 2 % or more, or more values lie outside their
95 % intervals than chance allows (1 in 100).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binom

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT.parent / "tests"))
from cases_llc import DeepLinear, deep_linear, random_widths  # noqa: E402

from interbasis.analysis import Sampler, learning_coefficient  # noqa: E402
from interbasis.analysis.llc.diagnostics import mean_with_error  # noqa: E402

_RADIUS = 0.002
_SMALL, _LARGE = 14, 8
_BANDS = ((0, 300), (300, 1000), (1000, 10_000))
_OURS = "interbasis"


@dataclass(frozen=True)
class Answer:
    """What a tool said of one network: value, CPU seconds, effective draws, and seconds per gradient of one chain.

    The seconds are of everything: search for the temperature, curvature, warm-up; so are the gradients.
    """

    tool: str
    case: DeepLinear
    value: float
    error: float
    interval: tuple[float, float]
    seconds: float
    ess: float
    pace: float

    @property
    def deviation(self) -> float:
        """Relative error in per cent."""
        return 100 * abs(self.value / self.case.coefficient - 1)

    @property
    def inside(self) -> bool:
        """Whether the 95 % interval holds the exact value."""
        return self.interval[0] <= self.case.coefficient <= self.interval[1]


def main() -> int:
    """Runs all networks, prints the tables, and says whether ours are good enough."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devinterp1", help="python of an environment with devinterp 1.3.2")
    parser.add_argument("--devinterp2", help="python of an environment with devinterp 2.0.1")
    parser.add_argument("--small", type=int, default=_SMALL)
    parser.add_argument("--large", type=int, default=_LARGE)
    options = parser.parse_args()
    peers = {k: path for k, path in (("1", options.devinterp1), ("2", options.devinterp2)) if path}
    torch.set_num_threads(1)
    answers, defaults = [], []
    for seed, case in [*small(options.small), *large(options.large)]:
        ours, problem = interbasis(case, seed)
        answers.append(ours)
        for number, python in peers.items():
            found, default = devinterp(python, number, case, problem)
            answers += found
            defaults += [(case, default)] if number == "1" else []
        print([f"{a.tool}: {a.deviation:.2f} %" for a in answers if a.case is case], file=sys.stderr, flush=True)
    report(answers, defaults)
    ours = [a for a in answers if a.tool == _OURS]
    error, outside = float(np.mean([a.deviation for a in ours])), sum(not a.inside for a in ours)
    allowed = int(binom.ppf(0.99, len(ours), 0.05))
    print(f"mean error {error:.2f} %, below 2 expected; {outside} outside, {allowed} allowed", file=sys.stderr)
    return int(not (error < 2 and outside <= allowed))


def small(count: int) -> Iterator[tuple[int, DeepLinear]]:
    """Certified networks of 60 to 900 parameters, of the seeds in order."""
    seed = 0
    while count:
        if case := deep_linear(seed, random_widths(seed)):
            yield seed, case
            count -= 1
        seed += 1


def large(count: int) -> Iterator[tuple[int, DeepLinear]]:
    """Wide ones of 1,000 to 10,000 parameters whose product has full rank, so that no search certifies them."""
    seed = 1000
    while count:
        draws = np.random.default_rng(seed)
        ends = [int(w) for w in draws.integers(8, 17, 2)]
        hidden = [int(w) for w in draws.integers(48, 81, int(draws.integers(1, 4)))]
        case = deep_linear(seed, [ends[0], *hidden, ends[1]], lowered=0.0)
        if case and 1000 <= case.size <= 10_000:
            yield seed, case
            count -= 1
        seed += 1


def interbasis(case: DeepLinear, seed: int) -> tuple[Answer, dict]:
    """Our answer with its defaults, and the problem as devinterp gets it."""
    loss = case.loss()
    evaluate, gradients = loss.evaluate, 0

    def counting(theta: torch.Tensor, points: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal gradients
        gradients += len(theta)
        return evaluate(theta, points)

    loss.evaluate = counting
    begin = time.process_time()
    found = learning_coefficient(loss, epsilon=case.epsilon(_RADIUS), sampler=Sampler(radius=_RADIUS), seed=seed)
    seconds = time.process_time() - begin
    low, high = found.interval
    answer = Answer(
        _OURS,
        case,
        found.value,
        found.standard_error,
        (low, high),
        seconds,
        mean_with_error(found.traces["llc"]).ess,
        seconds / gradients,
    )
    with torch.no_grad():
        y = case.model()(case.data)
    return answer, {
        "weights": case.weights,
        "x": case.data,
        "y": y,
        "t": found.temperature,
        "gamma": found.gamma,
        "stiffest": found.temperature * found.diagnostics.largest_curvature + found.gamma,
        "seconds": seconds,
    }


def devinterp(python: str, number: str, case: DeepLinear, problem: dict) -> tuple[list[Answer], float | None]:
    """Its answers for each step size, and what its defaults say."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(problem, f"{folder}/problem.pt")
        command = [python, str(ROOT / "llc_devinterp.py"), number, f"{folder}/problem.pt", f"{folder}/answers.json"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": folder}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found = json.loads(Path(f"{folder}/answers.json").read_text())
    answers = []
    for run in found["runs"]:
        trace = np.array(run["trace"])
        estimate = mean_with_error(trace)
        half = 1.96 * estimate.error
        answers.append(
            Answer(
                f"devinterp {found['version']}, step {run['step']}",
                case,
                estimate.mean,
                estimate.error,
                (estimate.mean - half, estimate.mean + half),
                run["seconds"],
                estimate.ess,
                run["seconds"] / (run["steps"] * len(trace)),
            )
        )
    return answers, found.get("default")


def report(answers: list[Answer], defaults: list[tuple[DeepLinear, float | None]]) -> None:
    """The tables as Markdown."""
    print("# Learning coefficients of deep linear networks\n")
    print(
        f"`python benchmarks/llc.py`, {datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} CPUs (one "
        f"thread used), torch {version('torch')}, interbasis {version('interbasis')}\n"
    )
    tools = list(dict.fromkeys(a.tool for a in answers))
    for low, high in ((0, 10_000), *_BANDS):
        chosen = [a for a in answers if low <= a.case.size < high]
        count = len([a for a in chosen if a.tool == _OURS])
        if not count:
            continue
        print(f"## {f'{low:,} to {high:,} parameters' if high - low < 10_000 else 'All'} ({count} networks)\n")
        print("| | mean error % | worst % | outside 95 % interval | ESS per CPU s | us per gradient | CPU s |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for tool in tools:
            rows = [a for a in chosen if a.tool == tool]
            off = [a.deviation for a in rows]
            print(
                f"| {tool} | {np.mean(off):.2f} | {np.max(off):.2f} | {sum(not a.inside for a in rows)} "
                f"| {np.median([a.ess / a.seconds for a in rows]):.2f} "
                f"| {1e6 * np.median([a.pace for a in rows]):.0f} | {np.median([a.seconds for a in rows]):.1f} |"
            )
        print()
    if defaults:
        lost = sum(value is None for _, value in defaults)
        ratios = [value / case.coefficient for case, value in defaults if value is not None]
        print(f"devinterp 1.3.2 with nothing set: diverged on {lost} of {len(defaults)}", end="")
        print(f"; otherwise {min(ratios):.3g} to {max(ratios):.3g} times the exact value.\n" if ratios else ".\n")
    print("| parameters | exact | interbasis | error % | CPU s | best of devinterp, error % |")
    print("| --- | --- | --- | --- | --- | --- |")
    for ours in [a for a in answers if a.tool == _OURS]:
        others = [a for a in answers if a.case is ours.case and a is not ours]
        best = min(others, key=lambda a: a.deviation) if others else None
        print(
            f"| {ours.case.size:,} | {ours.case.coefficient:g} | {ours.value:.3f} ± {ours.error:.3f} "
            f"| {ours.deviation:.2f} | {ours.seconds:.1f} | {f'{best.deviation:.2f}' if best else '-'} |"
        )


if __name__ == "__main__":
    sys.exit(main())
