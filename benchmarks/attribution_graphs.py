"""Modules of real attribution graphs: do they agree with labels that no method sees, and are false ones found?

Label coherence (mean TF-IDF cosine of the labels of two features of one module, as z against 500 relabellings that keep
layers and sizes) of our modules, at the number that `find_modules` chooses, and of k-means on profiles, spectral
clustering and Leiden modularity, the first two with the same number. Then graphs without modules: the layers, positions
and strengths per pair of layers of the real ones, and otherwise products of node factors and noise. Run by hand:

    INTERBASIS_TEST_DATA=... python benchmarks/attribution_graphs.py [--chance 60]

Prints the report, and writes it to benchmarks/attribution_graphs.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from datetime import date
from pathlib import Path

import igraph
import numpy as np
from sklearn.cluster import KMeans, SpectralClustering
from threadpoolctl import threadpool_limits

import interbasis
from interbasis.analysis import InteractionGraph, find_modules, label_coherence, read_graph

HERE = Path(__file__).parent


def matrix(graph: InteractionGraph) -> np.ndarray:
    """Strengths as one matrix, (later, earlier)."""
    found = np.zeros((graph.n_nodes, graph.n_nodes))
    for block, (a, b) in zip(graph.matrices, graph.pair_slices, strict=True):
        found[b, a] = block
    return found


def peers(graph: InteractionGraph, k: int) -> dict[str, np.ndarray]:
    """Labels of other methods, with k groups where they take a number."""
    strengths = matrix(graph)
    both = strengths + strengths.T
    profiles = np.concatenate([strengths, strengths.T], 1)
    profiles /= np.linalg.norm(profiles, axis=1, keepdims=True) + 1e-12
    undirected = igraph.Graph.Weighted_Adjacency(both.tolist(), mode="undirected")
    leiden = undirected.community_leiden("modularity", weights="weight", n_iterations=-1)
    return {
        "k-means on profiles": KMeans(k, n_init=10, random_state=0).fit_predict(profiles),
        "spectral clustering": SpectralClustering(k, affinity="precomputed", random_state=0).fit_predict(both + 1e-9),
        "Leiden modularity": np.array(leiden.membership),
    }


def coherence(graph: InteractionGraph, labels: list[np.ndarray]) -> float | None:
    """Z of the labels of features; None where a graph has too few."""
    texts = [
        [t if kind == "cross layer transcoder" else None for t, kind in zip(table.labels, table.types, strict=True)]
        for table in graph.nodes
    ]
    if sum(bool(t) for row in texts for t in row) < 20:
        return None
    return float(label_coherence(labels, [[t or None for t in row] for row in texts]).z)


def without_modules(graph: InteractionGraph, seed: int) -> InteractionGraph:
    """A graph with the layers, positions, numbers of edges and mean strengths per pair of layers, and no modules."""
    generator = np.random.default_rng(seed)
    out, into = np.exp(0.8 * generator.standard_normal((2, graph.n_nodes)))
    position = graph.positions if graph.positions is not None else np.zeros(graph.n_nodes)
    blocks = []
    for block, (a, b) in zip(graph.matrices, graph.pair_slices, strict=True):
        possible = position[b][:, None] >= position[a]
        product = np.outer(into[b], out[a]) * possible
        share = np.count_nonzero(block) * np.sqrt(product) / max(float(np.sqrt(product).sum()), 1e-300)
        noise = np.exp(0.8 * generator.standard_normal(block.shape))
        mean = float(block.sum()) / max(np.count_nonzero(block), 1)
        blocks.append(np.where(generator.random(block.shape) < share, product * noise * mean, 0.0))
    return InteractionGraph.from_blocks(blocks, pairs=graph.pairs, nodes=graph.nodes, unit=graph.unit)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--chance", type=int, default=60, help="number of graphs without modules")
    arguments = parser.parse_args()
    files = sorted((Path(os.environ["INTERBASIS_TEST_DATA"]) / "attribution_graphs").glob("*.json"))
    graphs = {file.stem: read_graph(file, without=("error",)) for file in files}
    lines = ["| graph | nodes | edges | modules | z, p | " + " | ".join(["interbasis", *NAMES]) + " | CPU s |"]
    lines.append("| --- |" + " --- |" * (len(NAMES) + 6))
    found: list[list[float]] = []
    for name, graph in graphs.items():
        start = time.process_time()
        part = find_modules(graph)
        seconds = time.process_time() - start
        flat = peers(graph, max(part.n_modules, 2))
        values = [coherence(graph, list(part.labels))]
        values += [coherence(graph, np.split(flat[peer], np.cumsum(graph.widths)[:-1])) for peer in NAMES]
        if values[0] is not None:
            found.append([float(v) for v in values if v is not None])
        shown = ["-" if v is None else f"{v:.1f}" for v in values]
        facts = (name, graph.n_nodes, f"{graph.n_edges():,}", part.n_modules, f"{part.z:.1f}, {part.p_value:.3f}")
        lines.append("| " + " | ".join([*map(str, facts), *shown, f"{seconds:.0f}"]) + " |")
        print(lines[-1], flush=True)
    means = [f"{mean:.1f}" for mean in np.mean(found, axis=0)]
    lines.append("| mean | | | | | " + " | ".join(means) + " | |")
    chance, false = list(graphs.values()), 0
    for k in range(arguments.chance):
        part = find_modules(without_modules(chance[k % len(chance)], k), seed=k)
        false += part.n_modules > 1
        print(k, part.n_modules, part.p_value, flush=True)
    processors = [x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
    machine = f"{processors[0] if processors else '?'}, Python {platform.python_version()}"
    table = "\n".join(lines)
    report = f"""# Modules of attribution graphs

`python benchmarks/attribution_graphs.py`, {date.today()}, {machine}; interbasis {interbasis.__version__}

Label coherence as z against 500 relabellings that keep layers and sizes; labels are seen by no method. Graphs of
circuit-tracer (Gemma-2-2B, Llama-3.2-1B) without error nodes; two have no labels. k-means and spectral clustering get
our number of modules. One thread; CPU seconds are those of `find_modules` with 20 null graphs.

{table}

Graphs without modules, of the same layers, positions and strengths: {false} of {arguments.chance} divided.
"""
    (HERE / "attribution_graphs.md").write_text(report)


NAMES = ("k-means on profiles", "spectral clustering", "Leiden modularity")

if __name__ == "__main__":
    with threadpool_limits(1):
        main()
