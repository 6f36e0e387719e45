"""The kernel: what it stores, that it never loses value, that seeds and threads do not matter."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cases_graphs import planted, unstructured
from hypothesis import given, settings
from hypothesis import strategies as st

from interbasis.analysis.graph.interaction_graph import InteractionGraph
from interbasis.analysis.search import leiden, objectives
from interbasis.analysis.search.local_search import Effort, Search

POINTS = [("layered_cpm", 0.4), ("layered_modularity", 1.0), ("cpm", 0.1), ("modularity", 1.0)]


def weights(graph, objective, resolution, epsilon=1.0):
    search = Search(graph, epsilon)
    return search, search.priced(search.wired(search.costs), search.costs, objective, resolution)


def dense(graph, objective, resolution):
    """What each pair of nodes gains when it shares a module, as a full symmetric matrix."""
    search = Search(graph, 1.0)
    gains = np.zeros((search.n, search.n))
    np.add.at(gains, (search.costs.later, search.costs.earlier), search.costs.weight)
    np.add.at(gains, (search.costs.earlier, search.costs.later), search.costs.weight)
    charges = objectives.find_objective(objective).charges(search.costs, search.places)
    for i in range(search.n):
        gains[i] -= resolution * charges.towards(i)
    return gains


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(POINTS))
def test_value_is_the_sum_over_pairs(seed, point):
    graph, _ = planted((3, 4), n_cuts=3, seed=seed)
    search, kernel = weights(graph, *point)
    labels = np.random.default_rng(seed).integers(0, 4, search.n)
    gains = dense(graph, *point)
    assert leiden.value(kernel, labels) == pytest.approx(0.5 * gains[labels[:, None] == labels].sum(), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(POINTS))
def test_contracting_keeps_every_value(seed, point):
    graph, _ = planted((4, 4), n_cuts=3, seed=seed)
    search, kernel = weights(graph, *point)
    generator = np.random.default_rng(seed)
    count, parts = leiden.compact(generator.integers(0, 6, search.n))
    coarse = leiden.contracted(kernel, parts, count)
    labels = generator.integers(0, count, count)
    assert coarse.size.sum() == search.n
    assert leiden.value(coarse, labels) == pytest.approx(leiden.value(kernel, labels[parts]), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(POINTS))
def test_value_never_falls_and_no_move_is_left(seed, point):
    graph, _ = planted((4, 4), n_cuts=3, seed=seed, inside=0.4)
    search, kernel = weights(graph, *point)
    generator = np.random.default_rng(seed)
    start = generator.integers(0, 5, search.n)
    found = leiden.leiden(kernel, start, generator)
    assert leiden.value(kernel, found) >= leiden.value(kernel, start) - 1e-12
    gains = dense(graph, *point)
    np.fill_diagonal(gains, 0.0)
    into = np.stack([gains[:, found == module].sum(axis=1) for module in range(search.n)], axis=1)
    stay = into[np.arange(search.n), found]
    assert (np.maximum(into.max(axis=1), 0.0) - stay).max() < 1e-8


def test_sizes_are_bounded():
    graph, _ = planted((10, 10), seed=0)
    search, kernel = weights(graph, "layered_modularity", 0.5)
    found = leiden.leiden(kernel, np.arange(search.n), np.random.default_rng(7), max_size=6)
    assert np.bincount(found).max() <= 6


def test_labels_do_not_depend_on_the_number_of_threads():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from cases_graphs import planted\n"
        "from interbasis.analysis import find_modules\n"
        "import hashlib\n"
        "part = find_modules(planted((9, 9, 9), seed=1, inside=0.3)[0], epsilon=1.0, seed=3, n_null=4)\n"
        "print(hashlib.sha256(part.to_bytes()).hexdigest())\n"
    )
    folder = str(Path(__file__).parents[2])
    found = set()
    for threads in ("1", "2"):
        names = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, threads)}
        run = subprocess.run(
            [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True, env=environment
        )
        found.add(run.stdout.strip())
    assert len(found) == 1


@pytest.mark.parametrize("kind", ["uniform", "hubs"])
def test_kicks_find_more_than_independent_runs_alone_or_the_same(kind):
    graph = unstructured(kind, width=40, seed=0)
    search = Search(graph, 1.0)
    wired = search.wired(search.costs)

    def best(effort):
        generator = np.random.default_rng(0)
        return search.best(wired, search.costs, "layered_modularity", 1.0, generator=generator, effort=effort).value

    assert best(Effort(4, 12)) >= best(Effort(4, 0))


def test_memory_of_the_kernel_is_below_100_bytes_an_edge():
    generator = np.random.default_rng(0)
    blocks = [np.exp(generator.standard_normal((400, 400))) for _ in range(3)]
    _, kernel = weights(InteractionGraph.from_blocks(blocks), "layered_modularity", 1.0)
    edges = len(kernel.neighbour) // 2
    held = sum(array.nbytes for array in kernel.arrays)
    assert edges > 200_000
    assert 2 * held < 100 * edges  # the graph and, at most as large, its first aggregated level
