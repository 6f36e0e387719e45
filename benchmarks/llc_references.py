"""Reference values of lambda for 20 nonlinear networks, by plain Hamiltonian Monte Carlo with the exact gradient.

    python benchmarks/llc_references.py

Shares no code with the sampler of interbasis: networks, gradients and Gauss-Newton matrices are written out in NumPy.
For each network of `NETWORKS`, trained here, it samples

    exp(-U),   U = t L + gamma/2 |theta - theta*|^2,   L = 1/n sum_x |f(x) - f*(x)|^2,

with gamma = d / (r |theta*|)^2, r = 0.02 or 0.2, and t from the network's loss scale epsilon: t epsilon = 1/2 sum
t H/(t H + gamma) + 1. Four chains; the mass matrix is the mean of t H + gamma over points that the chains visit; step
size by dual averaging; after the warm-up all is fixed. It goes on until the rank-normalised split R-hat of the loss and
of |theta - theta*| is below 1.01 and the standard error of lambda = t E[L] is below 0.5 %. One thread; about 40 CPU
minutes. Values are kept in llc_references.json, one network at a time, and those that are there are not computed again.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from arviz_stats.base.array import array_stats
from sklearn import datasets

FILE = Path(__file__).parent / "llc_references.json"

CHAINS = 4
RADII = (0.02, 0.2)
R_HAT, ERROR = 1.01, 0.005
WARMUP, BLOCK, MOST_BLOCKS = 150, 250, 60
ROUNDED = 2.0**12  # weights are multiples of 1/4096, so that training elsewhere gives the same ones

Array = np.ndarray


@dataclass(frozen=True)
class Problem:
    """A trained network with its data: f(x) = W_L a(... a(W_1 x + b_1)) + b_L.

    Attributes:
        radius: of the region, relative to |theta*|.
        activation: "tanh" or "relu".
        widths: of the layers, from input to output.
        data: "teacher", or a data set of scikit-learn.
        n: number of data points.
        share: epsilon, relative to the loss of a constant output.
        x: data points (n, inputs), once made.
        theta: the weights, layer by layer, W then b.
    """

    number: int
    radius: float
    activation: str
    widths: tuple[int, ...]
    data: str
    n: int
    share: float
    x: Array | None = None
    theta: Array | None = None

    @property
    def name(self) -> str:
        """A name that says all of it."""
        shape = "-".join(map(str, self.widths))
        where = f"epsilon={self.share:g} radius={self.radius:g}"
        return f"{self.number:02d} {self.activation} {shape} {self.data} n={self.n} {where}"

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum((a + 1) * b for a, b in zip(self.widths[:-1], self.widths[1:], strict=True))


NETWORKS = [
    Problem(number, RADII[number // 2 % 2], *row, share=(1e-5, 1e-6, 1e-7)[number % 3] * 100 ** (number // 2 % 2))
    for number, row in enumerate(
        [
            ("tanh", (3, 8, 2), "teacher", 200),
            ("relu", (3, 8, 2), "teacher", 200),
            ("tanh", (4, 6, 6, 2), "teacher", 150),
            ("relu", (4, 6, 6, 2), "teacher", 150),
            ("tanh", (4, 10, 3), "iris", 150),
            ("relu", (4, 12, 3), "iris", 150),
            ("tanh", (10, 12, 1), "diabetes", 200),
            ("relu", (10, 16, 1), "diabetes", 200),
            ("tanh", (13, 12, 3), "wine", 178),
            ("relu", (13, 10, 8, 3), "wine", 178),
            ("tanh", (6, 12, 12, 12, 2), "teacher", 120),
            ("relu", (6, 12, 12, 12, 2), "teacher", 120),
            ("tanh", (16, 20, 10), "digits", 100),
            ("relu", (16, 24, 10), "digits", 100),
            ("tanh", (8, 24, 20, 4), "teacher", 80),
            ("relu", (8, 24, 24, 4), "teacher", 80),
            ("tanh", (30, 30, 10, 2), "breast_cancer", 80),
            ("relu", (30, 36, 10, 2), "breast_cancer", 80),
            ("tanh", (15, 40, 30, 3), "teacher", 50),
            ("relu", (16, 36, 30, 6), "teacher", 40),
        ]
    )
]


def main() -> None:
    """Computes the values that are not in the file yet."""
    np.seterr(over="ignore", invalid="ignore")  # proposals that diverge are rejected
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    for problem in NETWORKS:
        if problem.name in kept:
            continue
        kept[problem.name] = found = reference(prepared(problem))
        FILE.write_text(json.dumps(kept, indent=1) + "\n")
        said = ", ".join(f"{k} {v:.5g}" for k, v in found.items() if isinstance(v, float))
        print(f"{problem.name}: {said}", file=sys.stderr, flush=True)


def prepared(problem: Problem) -> Problem:
    """Draw the data and train, by full-batch Adam from a random start."""
    draws = np.random.default_rng(1000 + problem.number)
    x, y = _data(problem, draws)
    start = []
    for before, after in zip(problem.widths[:-1], problem.widths[1:], strict=True):
        start += [draws.normal(size=after * before) / math.sqrt(before), 0.1 * draws.normal(size=after)]
    problem = replace(problem, x=x, theta=np.concatenate(start))
    theta, mean, square = problem.theta[None], 0.0, 0.0
    for step in range(1, 1501):
        slope = gradient(problem, theta, y)[1]
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        theta = theta - 0.01 * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return replace(problem, theta=np.round(theta[0] * ROUNDED) / ROUNDED)


def _data(problem: Problem, draws: np.random.Generator) -> tuple[Array, Array]:
    n, ends = problem.n, (problem.widths[0], problem.widths[-1])
    if problem.data == "teacher":
        x = draws.normal(size=(n, ends[0]))
        y = np.tanh(x @ draws.normal(size=(ends[0], 5)) / math.sqrt(ends[0])) @ draws.normal(size=(5, ends[1]))
        return x, y + 0.1 * draws.normal(size=y.shape)
    loaded = getattr(datasets, f"load_{problem.data}")()
    x, target = loaded.data, loaded.target
    if problem.data == "digits":  # squares of 2 x 2 pixels
        x = x.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16)
    chosen = draws.permutation(len(x))[:n]
    x, target = x[chosen], target[chosen]
    spread = x.std(0)
    x = (x - x.mean(0)) / np.where(spread > 0, spread, 1.0)
    if problem.data == "diabetes":
        return x, ((target - target.mean()) / target.std())[:, None]
    return x, np.eye(ends[1])[target]


def layers(problem: Problem, theta: Array) -> list[tuple[Array, Array]]:
    """W (chains, out, in) and b (chains, 1, out) of each layer."""
    found, first = [], 0
    for before, after in zip(problem.widths[:-1], problem.widths[1:], strict=True):
        weight = theta[:, first : first + after * before].reshape(-1, after, before)
        first += after * before
        found.append((weight, theta[:, None, first : first + after]))
        first += after
    return found


def forward(problem: Problem, theta: Array) -> list[Array]:
    """The input and the output of each layer after its activation: (chains, n, width)."""
    values, own = [problem.x[None]], layers(problem, theta)
    for number, (weight, bias) in enumerate(own):
        z = values[-1] @ weight.transpose(0, 2, 1) + bias
        if number < len(own) - 1:
            z = np.tanh(z) if problem.activation == "tanh" else np.maximum(z, 0.0)
        values.append(z)
    return values


def gradient(problem: Problem, theta: Array, target: Array) -> tuple[Array, Array]:
    """L = 1/n sum |f - target|^2 and its gradient, for each row of theta."""
    values = forward(problem, theta)
    away = values[-1] - target
    delta, slopes = 2 * away / len(problem.x), []
    for number, (weight, _) in reversed(list(enumerate(layers(problem, theta)))):
        part = delta.transpose(0, 2, 1) @ values[number]
        slopes = [part.reshape(len(theta), -1), delta.sum(1), *slopes]
        if number:
            delta = (delta @ weight) * _derivative(problem, values[number])
    return np.square(away).sum((1, 2)) / len(problem.x), np.concatenate(slopes, 1)


def _derivative(problem: Problem, value: Array) -> Array:
    return 1 - value**2 if problem.activation == "tanh" else (value > 0).astype(float)


def rows(problem: Problem, theta: Array) -> Array:
    """R (n outputs, d) at one point, with R^T R = 2/n J^T J = H."""
    values, own = [v[0] for v in forward(problem, theta[None])], layers(problem, theta[None])
    n, k = len(problem.x), problem.widths[-1]
    delta, slopes = np.broadcast_to(np.eye(k), (n, k, k)), []  # of each data point, output by unit
    for number, (weight, _) in reversed(list(enumerate(own))):
        before = values[number]
        part = delta[..., None] * before[:, None, None, :]
        slopes = [part.reshape(n * k, -1), delta.reshape(n * k, -1), *slopes]
        if number:
            delta = delta @ weight[0] * _derivative(problem, before)[:, None, :]
    return np.concatenate(slopes, 1) * math.sqrt(2 / n)


def eigenpairs(blocks: list[Array]) -> tuple[Array, Array]:
    """Eigenvalues that are not 0, and vectors in columns, of the mean of R^T R."""
    whole = np.concatenate(blocks) / math.sqrt(len(blocks))
    if len(whole) < whole.shape[1]:
        values, left = np.linalg.eigh(whole @ whole.T)
        kept = values > 1e-12 * values[-1]
        return values[kept], whole.T @ left[:, kept] / np.sqrt(values[kept])
    values, vectors = np.linalg.eigh(whole.T @ whole)
    kept = values > 1e-12 * values[-1]
    return values[kept], vectors[:, kept]


def scales(problem: Problem) -> tuple[float, float, float, float]:
    """epsilon, gamma, t, and 1/2 sum t H / (t H + gamma) at theta*."""
    outputs = forward(problem, problem.theta[None])[-1][0]
    epsilon = problem.share * float(np.square(outputs - outputs.mean(0)).sum(1).mean())
    gamma = problem.size / (problem.radius * np.linalg.norm(problem.theta)) ** 2
    values = eigenpairs([rows(problem, problem.theta)])[0]
    low, high = math.log(1 / epsilon), math.log((problem.size + 1) / epsilon)
    for _ in range(100):
        t = math.exp((low + high) / 2)
        rank = float((t * values / (t * values + gamma)).sum()) / 2
        low, high = (low, math.log(t)) if t * epsilon > rank + 1 else (math.log(t), high)
    return epsilon, gamma, t, rank


class Sampler:
    """HMC in coordinates z with theta = theta* + P z, P = (t H + gamma)^(-1/2)."""

    def __init__(self, problem: Problem, gamma: float, t: float) -> None:
        self.problem, self.gamma, self.t = problem, gamma, t
        self.target = forward(problem, problem.theta[None])[-1]
        self.draws = np.random.default_rng(problem.number)
        self.measure([problem.theta])

    def measure(self, points: list[Array]) -> None:
        """Take the metric from the curvature at these points."""
        values, self.vectors = eigenpairs([rows(self.problem, point) for point in points])
        self.factors = (self.t * values / self.gamma + 1) ** -0.5 - 1

    def metric(self, z: Array) -> Array:
        """P z."""
        return (z + (z @ self.vectors * self.factors) @ self.vectors.T) / math.sqrt(self.gamma)

    def potential(self, theta: Array) -> tuple[Array, Array, Array]:
        """L, U and grad U."""
        loss, slope = gradient(self.problem, theta, self.target)
        away = theta - self.problem.theta
        energy = self.t * loss + self.gamma / 2 * np.square(away).sum(1)
        return loss, energy, self.t * slope + self.gamma * away

    def step(self, theta: Array, size: float) -> tuple[Array, Array, Array, Array]:
        """A trajectory of all chains and the Metropolis rule: theta, L, D . grad U, acceptance."""
        loss, energy, slope = self.potential(theta)
        h = size * self.draws.uniform(0.8, 1.2)
        if self.draws.random() < 0.1:  # for valleys that are narrow in places
            h /= 10
        count = min(max(1, round(self.draws.uniform(1.0, 2.0) / h)), 30)
        momentum = self.draws.normal(size=theta.shape)
        before, now, push = energy + np.square(momentum).sum(1) / 2, theta, self.metric(slope)
        for _ in range(count):
            momentum = momentum - h / 2 * push
            now = now + h * self.metric(momentum)
            new, energy, steep = self.potential(now)
            push = self.metric(steep)
            momentum = momentum - h / 2 * push
        change = energy + np.square(momentum).sum(1) / 2 - before
        acceptance = np.where(np.isfinite(change), np.exp(-np.maximum(change, 0.0)), 0.0)
        taken = self.draws.random(len(theta)) < acceptance
        theta, loss = np.where(taken[:, None], now, theta), np.where(taken, new, loss)
        slope = np.where(taken[:, None], steep, slope)
        return theta, loss, ((theta - self.problem.theta) * slope).sum(1), acceptance


def reference(problem: Problem) -> dict[str, float | int | str]:
    """Sample until the value is good enough."""
    begin = time.process_time()
    epsilon, gamma, t, rank = scales(problem)
    sampler = Sampler(problem, gamma, t)
    theta, size = warmed_up(sampler)
    loss, radius, virial, accepted = [], [], [], []
    for _ in range(MOST_BLOCKS):
        for _ in range(BLOCK):
            theta, value, product, acceptance = sampler.step(theta, size)
            loss.append(value)
            radius.append(np.linalg.norm(theta - problem.theta, axis=1))
            virial.append(product / problem.size)
            accepted.append(float(acceptance.mean()))
        found = convergence(t * np.array(loss).T)
        hats = [found["r_hat"], convergence(np.array(radius).T)["r_hat"]]
        if max(hats) < R_HAT and found["error"] < ERROR * found["mean"]:
            break
    heat = convergence(np.array(virial).T)
    return {
        "lambda": found["mean"],
        "standard_error": found["error"],
        "r_hat": found["r_hat"],
        "r_hat_radius": hats[1],
        "ess": found["ess"],
        "virial": heat["mean"],
        "virial_error": heat["error"],
        "soft_rank": rank,
        "epsilon": epsilon,
        "t": t,
        "gamma": gamma,
        "parameters": problem.size,
        "sum_of_squares": float(np.square(problem.theta).sum()),
        "draws": len(loss),
        "acceptance": float(np.mean(accepted)),
        "step": size,
        "cpu_seconds": time.process_time() - begin,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, one thread, numpy {np.__version__}",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def warmed_up(sampler: Sampler) -> tuple[Array, float]:
    """Positions of the chains and a step size; three times over, with the metric measured again."""
    problem = sampler.problem
    theta = problem.theta + 1.5 * sampler.metric(sampler.draws.normal(size=(CHAINS, problem.size)))
    for phase in range(3):
        size, centre, mean, smooth = 0.2, math.log(0.5), 0.0, 0.0
        for step in range(1, WARMUP + 1):
            theta, _, _, acceptance = sampler.step(theta, size)
            mean += (0.8 - float(acceptance.mean()) - mean) / (step + 10)
            log = centre - math.sqrt(step) / 0.05 * mean
            smooth += step**-0.75 * (log - smooth)
            size = min(math.exp(log), 1.5)
        size = min(math.exp(smooth), 1.5)
        if phase < 2:
            sampler.measure([problem.theta, *theta])
    for _ in range(WARMUP):  # with the last metric
        theta = sampler.step(theta, size)[0]
    return theta, size


def convergence(trace: Array) -> dict[str, float]:
    """Mean, its Monte Carlo standard error, bulk ESS and rank-normalised split R-hat."""
    axes = {"chain_axis": 0, "draw_axis": 1}
    return {
        "mean": float(trace.mean()),
        "error": float(array_stats.mcse(trace, method="mean", **axes)),
        "ess": float(array_stats.ess(trace, method="bulk", **axes)),
        "r_hat": float(array_stats.rhat(trace, method="rank", **axes)),
    }


if __name__ == "__main__":
    main()
