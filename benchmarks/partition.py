"""Modules found by interbasis and by other partitioners on the same planted layered graphs, in one run.

Quality, agreement with the planted modules and CPU seconds; then CPU seconds and peak memory as graphs grow, one
fresh process per measurement. Run by hand, from the project's root, with nothing else running:

    pip install networkit infomap pymetis      # peers that interbasis does not need; missing ones are reported so
    python benchmarks/partition.py [--quick] [--seed 0]

Prints the report, and writes it to benchmarks/partition.md unless --quick is given (small graphs, to try the script).
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import igraph
import leidenalg
import numpy as np
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from interbasis.analysis import Effort, InteractionGraph, find_modules
from interbasis.analysis.search.leiden import leiden
from interbasis.analysis.search.leidenalg_backend import multiplex
from interbasis.analysis.search.local_search import Search
from interbasis.analysis.search.objectives import quality

EPSILON = 1e-4
N_CUTS = 5
RUNS = 10  # of leidenalg, for its best
PASSES = 20  # of leidenalg at most: "until nothing changes" can go on for ever on rounding errors
PEERS = ("igraph", "leidenalg", "networkit", "infomap", "pymetis")
MODULARITY, CPM = "layered_modularity", "layered_cpm"
TITLES = {"layered modularity": MODULARITY, "layered CPM": CPM}


TEXT = f"""\
{N_CUTS} cuts, edges between adjacent ones only. All get the same edges, weighted with c(w) = log(w / sqrt(epsilon));
labels are valued by the same code: layered modularity at resolution 1 and layered CPM at the mean cost of a pair, both
divided by the total cost. ARI is that of the nodes with an edge; where nothing is planted it is 1 for one module and 0
for any other answer. One graph and one seed per kind: a small difference says little.

CPU seconds: one run, one thread, process_time, without compilation (a warm-up call comes first) and without building
the peers' graphs. Rows of interbasis without an addition are find_modules with all that it does: edges, search (8
starts and 12 kicks), scores, stability from the starts; without a knob also the grid of resolutions and 20
null graphs. leidenalg does 2 iterations, its default; its best of {RUNS} goes on until nothing gains, at most {PASSES}
times, and the seconds are those of all runs. leidenalg CPM is at the mean cost of any two nodes."""
GROWTH = """
## Growth

Twenty modules; one run per row, each in a fresh process, whose peak memory is given (none: the graph and its edges
alone)."""


@dataclass(frozen=True)
class Kind:
    """A kind of planted graph; log-strengths are in units above log of the cutoff."""

    sizes: tuple[int, ...]  # nodes of each module at each cut
    inside: float = 0.5  # share of the pairs inside a module that have a strong edge
    noise: float = -1.0  # mean log-strength of all other pairs (spread 1.1)
    bridges: float = 0.0  # share of the pairs between modules that have a strong edge
    hubs: float = 0.0  # share of the nodes that feed all nodes of the next cut


def kinds(quick: bool) -> dict[str, Kind]:
    shrink = 3 if quick else 1
    many = (4,) * (24 // shrink)
    return {
        "mid 1e4": Kind((12 // shrink,) * 8, inside=0.3, noise=-0.8),
        "hubs": Kind((12 // shrink,) * 8, inside=0.4, hubs=0.08),
        "bridges": Kind((12 // shrink,) * 8, bridges=0.06),
        "unbalanced": Kind(tuple(k // shrink for k in (45, 24, 12, 9, 6, 3)), inside=0.4),
        "many small": Kind(many, inside=0.6),
        "dense 1e5": Kind((28 // shrink,) * 8, noise=0.0),
        "uniform noise": Kind((96 // shrink,), inside=0.0, noise=-0.7),
        "hubs only": Kind((96 // shrink,), inside=0.0, noise=-2.0, hubs=0.15),
    }


def planted(kind: Kind, *, seed: int) -> tuple[InteractionGraph, list[np.ndarray]]:
    """A graph of that kind and the module of each node, per cut in random order."""
    generator = np.random.default_rng(seed)
    labels = [generator.permutation(np.repeat(np.arange(len(kind.sizes)), kind.sizes)) for _ in range(N_CUTS)]
    blocks = []
    for earlier, later in pairwise(labels):
        shape = (len(later), len(earlier))
        same = later[:, None] == earlier
        strong = generator.random(shape) < np.where(same, kind.inside, kind.bridges)
        log_strength = np.where(strong, generator.normal(2.5, 1.5, shape), generator.normal(kind.noise, 1.1, shape))
        hub = generator.random(len(earlier)) < kind.hubs
        log_strength[:, hub] = np.maximum(log_strength[:, hub], generator.normal(2.0, 1.0, (len(later), hub.sum())))
        blocks.append(np.sqrt(EPSILON) * np.exp(log_strength))
    return InteractionGraph.from_blocks(blocks), labels


class Problem:
    """A graph, what is measured on it, and its edges as all peers get them (nodes without an edge left out)."""

    def __init__(self, graph: InteractionGraph, truth: list[np.ndarray]) -> None:
        self.graph, self.search = graph, Search(graph, EPSILON)
        self.truth = self.search.flat(truth, "truth")
        self.k, self.n = len(np.unique(self.truth)), self.search.n
        costs, pairs = self.search.costs, self.search.pairs
        self.n_edges = len(costs)
        possible = sum((a.stop - a.start) * (b.stop - b.start) for a, b in pairs)
        self.resolutions = {MODULARITY: 1.0, CPM: costs.total / possible}
        self.density = costs.total / (self.n * (self.n - 1) / 2)
        self.source, self.target, self.weights = costs.earlier, costs.later, costs.weight

    def igraph(self) -> igraph.Graph:
        """The undirected graph, as all peers but the multiplex take it."""
        edges = list(zip(self.source.tolist(), self.target.tolist(), strict=True))
        return igraph.Graph(n=self.n, edges=edges, edge_attrs={"weight": self.weights.tolist()})

    def qualities(self, flat: np.ndarray) -> dict[str, float]:
        """Both layered objectives of labels, as shares of the total cost."""
        labels, total = self.search.per_cut(flat), float(self.weights.sum())
        return {
            objective: quality(self.graph, labels, EPSILON, objective=objective, resolution=resolution) / total
            for objective, resolution in self.resolutions.items()
        }

    def row(self, flat: np.ndarray) -> str:
        """Cells of both qualities and the agreement with the planted modules."""
        cells = [*(f"{round(value, 5) + 0.0:.5f}" for value in self.qualities(flat).values())]
        return " | ".join([*cells, f"{adjusted_rand_score(self.truth, flat):.3f}"])


Run = Callable[[], np.ndarray]
"""One run, everything prepared: the labels of the nodes with an edge."""


def ours(problem: Problem, objective: str | None, effort: Effort | None = None) -> Run:
    """find_modules with everything it does; without an objective it chooses that and the resolution."""
    resolution = None if objective is None else problem.resolutions[objective]
    options: dict[str, Any] = {"objective": objective, "resolution": resolution, "effort": effort}

    def run() -> np.ndarray:
        part = find_modules(problem.graph, epsilon=EPSILON, seed=0, **options)
        return problem.search.flat(part.labels, "labels")

    return run


def kernel(problem: Problem, objective: str) -> Run:
    """One run of the Leiden kernel from single nodes."""
    own = problem.search
    priced = own.priced(own.wired(own.costs), own.costs, objective, problem.resolutions[objective])
    generator = np.random.default_rng(0)
    return lambda: leiden(priced, np.arange(priced.n), generator)


def search(problem: Problem, objective: str) -> Run:
    """What find_modules searches at a given resolution: 8 starts and 12 kicks."""
    own = problem.search
    options: dict[str, Any] = {"generator": np.random.default_rng(0), "effort": Effort()}
    point = objective, problem.resolutions[objective]
    return lambda: own.best(own.wired(own.costs), own.costs, *point, **options).labels


def leidenalg_multiplex(problem: Problem, objective: str, *, best: bool) -> Run:
    """Our objective in leidenalg: one run of 2 iterations, its default, or the best of 10 runs until nothing gains."""
    own = problem.search
    layers = multiplex(own.costs, own.pairs, own.n, objective, problem.resolutions[objective])
    shares = [share for *_, share, _ in layers]

    def once(seed: int) -> tuple[float, np.ndarray]:
        parts = [kind(graph, **options) for graph, kind, _, options in layers]
        optimiser = leidenalg.Optimiser()
        optimiser.set_rng_seed(seed)
        for _ in range(PASSES if best else 1):
            gain = optimiser.optimise_partition_multiplex(parts, shares, n_iterations=1 if best else 2)
            if gain < 1e-9 * problem.weights.sum():
                break
        reached = sum(share * part.quality() for share, part in zip(shares, parts, strict=True))
        return float(reached), np.array(parts[0].membership)

    return lambda: max((once(seed) for seed in range(RUNS if best else 1)), key=lambda found: found[0])[1]


def leidenalg_plain(problem: Problem, kind: Any, **options: Any) -> Run:
    graph = problem.igraph()
    options |= {"weights": "weight", "n_iterations": 2, "seed": 0}
    return lambda: np.array(leidenalg.find_partition(graph, kind, **options).membership)


def igraph_leiden(problem: Problem) -> Run:
    graph = problem.igraph()
    random.seed(0)  # igraph's generator
    options = {"objective_function": "modularity", "weights": "weight", "n_iterations": -1}
    return lambda: np.array(graph.community_leiden(**options).membership)


def networkit_leiden(problem: Problem) -> Run:
    networkit = importlib.import_module("networkit")
    networkit.setNumberOfThreads(1)
    networkit.setSeed(0, False)
    coordinates = problem.weights, (problem.source, problem.target)
    graph = networkit.GraphFromCoo(coordinates, n=problem.n, weighted=True, directed=False)

    def run() -> np.ndarray:
        algorithm = networkit.community.ParallelLeiden(graph)
        algorithm.run()
        return np.array(algorithm.getPartition().getVector())

    return run


def infomap(problem: Problem) -> Run:
    found = importlib.import_module("infomap").Infomap(two_level=True, silent=True, seed=1)
    found.add_links(list(zip(problem.source.tolist(), problem.target.tolist(), problem.weights.tolist(), strict=True)))

    def run() -> np.ndarray:
        modules = found.run().modules()
        return np.array([modules[i] for i in range(problem.n)])

    return run


def metis(problem: Problem) -> Run:
    pymetis = importlib.import_module("pymetis")
    ends = np.concatenate([problem.source, problem.target])
    order = np.argsort(ends, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=problem.n))])
    rows = pymetis.CSRAdjacency(starts, np.concatenate([problem.target, problem.source])[order])
    weights = np.maximum(1, np.round(1000 * np.tile(problem.weights, 2)[order])).astype(int).tolist()
    return lambda: np.array(pymetis.part_graph(problem.k, rows, eweights=weights)[1])


METHODS: dict[str, Callable[[Problem], Run]] = {"interbasis, no knob": lambda p: ours(p, None)}
for _title, _objective in TITLES.items():
    METHODS |= {
        f"interbasis, {_title}": partial(ours, objective=_objective),
        f"interbasis, {_title}, search alone": partial(search, objective=_objective),
        f"interbasis, {_title}, one kernel run": partial(kernel, objective=_objective),
        f"leidenalg multiplex, {_title}": partial(leidenalg_multiplex, objective=_objective, best=False),
        f"leidenalg multiplex, {_title}, best of {RUNS}": partial(leidenalg_multiplex, objective=_objective, best=True),
    }
METHODS |= {
    "leidenalg modularity": lambda p: leidenalg_plain(p, leidenalg.ModularityVertexPartition),
    "leidenalg CPM": lambda p: leidenalg_plain(p, leidenalg.CPMVertexPartition, resolution_parameter=p.density),
    "igraph Leiden modularity": igraph_leiden,
    "networkit ParallelLeiden": networkit_leiden,
    "infomap": infomap,
    "METIS, K given": metis,
}
SCALING: dict[str, Callable[[Problem], Run]] = {
    "interbasis, find_modules, one start": lambda p: ours(p, MODULARITY, Effort(restarts=1, kicks=0)),
    "interbasis, one kernel run": partial(kernel, objective=MODULARITY),
    "igraph Leiden modularity": igraph_leiden,
    "leidenalg multiplex, layered modularity": partial(leidenalg_multiplex, objective=MODULARITY, best=False),
    "networkit ParallelLeiden": networkit_leiden,
    "infomap": infomap,
}


def timed(run: Run) -> tuple[float, np.ndarray]:
    start = time.process_time()
    labels = run()
    return time.process_time() - start, labels


def compare(name: str, problem: Problem) -> Iterator[str]:
    """The table of one graph, and below it where leidenalg was ahead of ours."""
    known = f"{problem.k} modules planted" if problem.k > 1 else "no modules: one is right"
    yield f"\n### {name}: {problem.n} nodes and {problem.n_edges:,} edges, {known}\n"
    yield "| method | layered modularity | layered CPM | ARI | modules | CPU s |\n| --- | --- | --- | --- | --- | --- |"
    found: dict[str, tuple[dict[str, float], float]] = {}
    for method, prepare in METHODS.items():
        if method.startswith("METIS") and problem.k == 1:
            continue
        try:
            run = prepare(problem)
        except ModuleNotFoundError as error:
            yield f"| {method} | not installed ({error.name}) | | | | |"
            continue
        seconds, labels = timed(run)
        found[method] = problem.qualities(labels), seconds
        yield f"| {method} | {problem.row(labels)} | {len(np.unique(labels))} | {seconds:.3f} |"
    yield f"| planted modules | {problem.row(problem.truth)} | {problem.k} | |"
    yield from behind(found)


def behind(found: dict[str, tuple[dict[str, float], float]]) -> Iterator[str]:
    """Where the search is below leidenalg's best, or slower than one run of it."""
    for title, objective in TITLES.items():
        peer = f"leidenalg multiplex, {title}"
        best, one_run = found[f"{peer}, best of {RUNS}"][0][objective], found[peer][1]
        for name, addition in (("search alone", ", search alone"), ("find_modules", "")):
            reached, seconds = found[f"interbasis, {title}{addition}"]
            gap = best - reached[objective]
            if gap > 1e-9:
                yield f"\nBehind: {title}, {name}: {gap:.2g} below the best of {RUNS} leidenalg runs."
            if seconds > one_run:
                yield f"\nBehind: {title}, {name}: {seconds:.3f} CPU s, one leidenalg run {one_run:.3f}."


def sized(edges: int) -> Kind:
    """Twenty modules, about half of the pairs above the cutoff."""
    return Kind((max(1, round(np.sqrt(edges / (0.515 * (N_CUTS - 1))) / 20)),) * 20, noise=0.0)


def measure(edges: int, method: str) -> None:
    """One row of the second table; method "none" only builds the graph."""
    problem = Problem(*planted(sized(edges), seed=0))
    cells, labels, seconds = "| | |", None, 0.0
    if method in SCALING:
        warm_up()
        try:
            seconds, labels = timed(SCALING[method](problem))
        except ModuleNotFoundError as error:
            cells = f"not installed ({error.name}) | | |"
    status = Path("/proc/self/status").read_text()  # ru_maxrss would be the parent's where that is larger
    peak = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1000
    if labels is not None:
        cells = f"{problem.row(labels)} | {seconds:.3f}"
    print(f"| {problem.n_edges:,} | {method} | {cells} | {peak:.0f} |")


def growth(sizes: tuple[int, ...]) -> Iterator[str]:
    yield "\n| edges | method | layered modularity | layered CPM | ARI | CPU s | peak MB |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for edges in sizes:
        for method in ("none", *SCALING):
            command = [sys.executable, __file__, "--edges", str(edges), "--method", method]
            yield subprocess.check_output(command, text=True).strip()


def warm_up() -> None:
    """Compile the kernel, which is no part of the seconds."""
    problem = Problem(*planted(Kind((6, 6)), seed=1))
    for objective in (MODULARITY, CPM):
        ours(problem, objective)()


def heading() -> Iterator[str]:
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "unknown")
    machine = f"{cpu.split(':')[-1].strip()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    yield "# Partitions of planted layered graphs\n"
    yield f"`python {' '.join(['benchmarks/partition.py', *sys.argv[1:]])}`, {date.today()}, {machine}; {versions()}\n"
    yield TEXT


def versions() -> str:
    known = []
    for name in ("interbasis", "numpy", "numba", *PEERS):
        try:
            known.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            known.append(f"{name} not installed")
    return ", ".join(known)


def report(quick: bool, seed: int) -> Iterator[str]:
    yield from heading()
    warm_up()
    yield "\n## Quality"
    for name, kind in kinds(quick).items():
        yield from compare(name, Problem(*planted(kind, seed=seed)))
    yield GROWTH
    yield from growth((10**4, 10**5) if quick else (10**5, 10**6, 5 * 10**6))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="small graphs; writes no file")
    parser.add_argument("--seed", type=int, default=0, help="of the planted graphs of the first part")
    parser.add_argument("--edges", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with threadpool_limits(1):
        if options.edges:
            measure(options.edges, options.method)
            return
        lines = []
        for line in report(options.quick, options.seed):
            print(line, flush=True)
            lines.append(line)
    if not options.quick:
        Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
