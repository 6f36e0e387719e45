"""Seconds and peak memory of basis and graph on a modular-addition checkpoint, float64, one fresh process per run.

Same cuts, data and kind of basis as ApolloResearch/rib's modular-addition configuration (local basis, no rotation).
Run by hand, from the project's root:

    python benchmarks/build.py CHECKPOINT.safetensors [--runs 5]

Prints a Markdown table; results are kept in benchmarks/build.md.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

CASES = {
    "local, plain, jacobian (as rib)": {"basis": "local", "rotation": "none"},
    "local, plain, attribution (as rib)": {"basis": "local", "rotation": "none", "strengths": "attribution"},
    "local, rotated, jacobian": {"basis": "local"},
    "global, rotated, jacobian": {},
}


def measure(checkpoint: str, case: str) -> None:
    """One run in this process; prints seconds of both steps and peak memory in MB as JSON."""
    from interbasis.analysis import interaction_basis, interaction_graph, load_checkpoint

    choices = dict(CASES[case])
    kind, strengths = choices.pop("basis", "global"), choices.pop("strengths", "jacobian")
    run = load_checkpoint(checkpoint)
    start = time.perf_counter()
    bases = interaction_basis(run.network, run.batches, kind=kind, **choices)
    middle = time.perf_counter()
    interaction_graph(run.network, bases, run.batches, strengths=strengths)
    end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({"basis": middle - start, "graph": end - middle, "peak": peak}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--case")
    options = parser.parse_args()
    if options.case:
        measure(options.checkpoint, options.case)
        return
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "unknown")
    machine = f"{cpu.split(':')[-1].strip()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{date.today()}, {machine}, median of {options.runs} runs")
    print("\n| case | basis s | graph s | both s | min to max s | peak MB |\n| --- | --- | --- | --- | --- | --- |")
    for case in CASES:
        command = [sys.executable, __file__, options.checkpoint, "--case", case]
        runs = [json.loads(subprocess.check_output(command)) for _ in range(options.runs)]
        both = [r["basis"] + r["graph"] for r in runs]
        middle = {name: statistics.median(r[name] for r in runs) for name in ("basis", "graph", "peak")}
        print(
            f"| {case} | {middle['basis']:.2f} | {middle['graph']:.2f} | {statistics.median(both):.2f} "
            f"| {min(both):.2f} to {max(both):.2f} | {middle['peak']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
