"""A large attribution graph: time and memory of reading and dividing it, and whether its modules are found.

The graph has the layers of a real one (a transcoder graph of Gemma-2-2B, widths scaled up), positions, five planted
groups whose nodes interact three times as strongly, and log-normal weights with as wide a spread as the real ones.
Links join nodes of different layers, not back to an earlier position, and are drawn until there are as many as asked
for. Each step runs in a process of its own. Run by hand:

    python benchmarks/large_graphs.py [--nodes 14000] [--links 16000000]

Prints the report, and writes it to benchmarks/large_graphs.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

import interbasis
from interbasis.analysis import find_modules, read_graph

HERE = Path(__file__).parent

LAYERS = (7, 156, 53, 53, 31, 37, 16, 26, 20, 21, 16, 8, 8, 9, 8, 9, 13, 20, 13, 18, 19, 12, 17, 15, 14, 22, 20, 10)
POSITIONS, GROUPS, SPREAD, STRONGER = 13, 5, 1.3, 3.0


def write_graph(path: Path, nodes: int, links: int, seed: int = 0) -> None:
    """Write the graph as circuit-tracer does."""
    generator = np.random.default_rng(seed)
    widths = np.maximum(np.round(np.array(LAYERS) * nodes / sum(LAYERS)), 1).astype(int)
    layer = np.repeat(np.arange(len(widths)), widths)
    n = len(layer)
    position = generator.integers(0, POSITIONS, n)
    position[layer == len(widths) - 1] = POSITIONS - 1
    group = generator.integers(0, GROUPS, n)
    last = len(widths) - 1
    names = ["E", *map(str, range(last - 1)), str(last - 1)]
    kinds = ["embedding", *["cross layer transcoder"] * (last - 1), "logit"]
    with path.open("w") as file:
        file.write('{"metadata": {"slug": "large", "prompt_tokens": ')
        file.write(json.dumps([f"t{i}" for i in range(POSITIONS)]) + '}, "qParams": {}, "nodes": [\n')
        rows = [
            json.dumps(
                {
                    "node_id": f"{names[layer[i]]}_{i}_{position[i]}",
                    "feature": i,
                    "layer": names[layer[i]],
                    "ctx_idx": int(position[i]),
                    "feature_type": kinds[layer[i]],
                    "clerp": f"group {group[i]}",
                }
            )
            for i in range(n)
        ]
        file.write(",\n".join(rows) + '\n], "links": [\n')
        ids = [f"{names[layer[i]]}_{i}_{position[i]}" for i in range(n)]
        possible = sum(
            int(((layer < layer[j]) & (position <= position[j])).sum()) for j in generator.choice(n, 200)
        ) * (n / 200)
        first = True
        for j in range(n):
            earlier = np.flatnonzero((layer < layer[j]) & (position <= position[j]))
            drawn = earlier[generator.random(len(earlier)) < links / possible]
            if not len(drawn):
                continue
            w = np.exp(SPREAD * generator.standard_normal(len(drawn)))
            w *= np.where(group[drawn] == group[j], STRONGER, 1.0) * generator.choice([-1, 1], len(drawn))
            file.write("" if first else ",\n")
            first = False
            target = ids[j]
            file.write(
                ",\n".join(
                    f'{{"source": "{ids[i]}", "target": "{target}", "weight": {weight:.6g}}}'
                    for i, weight in zip(drawn.tolist(), w.tolist(), strict=True)
                )
            )
        file.write("\n]}\n")


def step(name: str, path: Path) -> None:
    """Run one step, and print its figures as JSON."""
    started, cpu = time.perf_counter(), time.process_time()
    found: dict[str, object] = {}
    if name == "read":
        graph = read_graph(path)
        found |= {"nodes": graph.n_nodes, "edges": graph.n_edges()}
        found |= {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
        graph.save(path.with_suffix(".safetensors"))
    else:
        from sklearn.metrics import adjusted_mutual_info_score

        graph = interbasis.analysis.InteractionGraph.load(path.with_suffix(".safetensors"))
        started, cpu = time.perf_counter(), time.process_time()
        part = find_modules(graph)
        found |= {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
        truth = [label.split()[-1] for table in graph.nodes for label in table.labels if label]
        labels = np.concatenate(part.labels)
        ami = adjusted_mutual_info_score(np.array(truth)[labels >= 0], labels[labels >= 0])
        found |= {"modules": part.n_modules, "verdict": part.verdict, "p": part.p_value, "AMI": ami}
        found |= {"edges": graph.n_edges(part.epsilons)}
    found["GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps(found))


def processor() -> str:
    """The name of the processor, as Linux says it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "?")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=14_000)
    parser.add_argument("--links", type=int, default=16_000_000)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--step")
    given = parser.parse_args()
    if given.step:
        step(given.step, given.file)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = given.file or Path(folder) / "large.json"
        if not path.exists():
            write_graph(path, given.nodes, given.links)
        command = [sys.executable, __file__, "--file", str(path), "--step"]
        results = {
            name: json.loads(subprocess.run([*command, name], check=True, capture_output=True).stdout)
            for name in ("read", "divide")
        }
        size = path.stat().st_size / 1e9
    read, divided = results["read"], results["divide"]
    lines = [
        "# A large attribution graph",
        "",
        f"`python benchmarks/large_graphs.py --nodes {given.nodes} --links {given.links}`, {date.today()}, "
        f"{processor()}, Python {platform.python_version()}; interbasis "
        f"{interbasis.__version__}, {os.cpu_count()} cores",
        "",
        f"{read['nodes']:,} nodes, {read['edges']:,} links, a file of {size:.2f} GB. Of the links "
        f"{divided['edges']:,} are above the cutoff that `find_modules` chooses.",
        "",
        "| step | seconds | CPU s | memory at most, GB |",
        "| --- | --- | --- | --- |",
        f"| `read_graph` | {read['seconds']:.0f} | {read['cpu']:.0f} | {read['GB']:.1f} |",
        f"| `find_modules`, 20 null graphs | {divided['seconds']:.0f} | {divided['cpu']:.0f} | {divided['GB']:.1f} |",
        "",
        f"{divided['modules']} modules, {divided['verdict']}, p = {divided['p']:.2g}; adjusted mutual information "
        f"with the {GROUPS} planted groups {divided['AMI']:.2f}.",
        "",
    ]
    report = "\n".join(lines)
    print(report)
    (HERE / "large_graphs.md").write_text(report)


if __name__ == "__main__":
    main()
