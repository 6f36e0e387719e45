"""Data mixed between modules: true halves, chains, random divisions, permuted networks, networks without modules.

    python benchmarks/circuits_mixing.py

Prints the tables of docs/circuits.md about `mixing`, as benchmarks/circuits.py does; five minutes on one core.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from cases_circuits import ENTANGLED, entangled  # noqa: E402
from cases_networks import TASKS, trained_network  # noqa: E402

from interbasis.analysis import (  # noqa: E402
    Bases,
    InteractionGraph,
    Network,
    Partition,
    ablate_modules,
    find_modules,
    interaction_basis,
    interaction_graph,
    load_checkpoint,
    score_partition,
)
from interbasis.analysis.checkpoints.mlp import MLP  # noqa: E402
from interbasis.analysis.checkpoints.two_digits import train_two_digits  # noqa: E402
from interbasis.analysis.circuits.ablation import joined_labels  # noqa: E402
from interbasis.analysis.circuits.interventions import Interventions  # noqa: E402
from interbasis.analysis.circuits.mixing import mixed_modules, partners  # noqa: E402
from interbasis.analysis.pipeline.demo import true_sides  # noqa: E402

NETWORKS = 60
HEADS = "network | division | modules | selectivity | null graphs, at most | p | follows | interaction | verdict | time"


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    print(f"\n## Data mixed between modules\n\n| {HEADS} |\n|{' --- |' * (1 + HEADS.count('|'))}")
    with tempfile.TemporaryDirectory() as folder:
        for path in train_two_digits(Path(folder)):
            demo(path)
    for task in TASKS:
        trained(task)
    without_modules()


def demo(path: Path) -> None:
    """True halves, chains, random divisions, and the network with its weights permuted."""
    loaded = load_checkpoint(path)
    net, x, test, name = loaded.network, list(loaded.batches), list(loaded.test_batches), f"demo, step {loaded.step}"
    bases = interaction_basis(net, x, output="neuron")
    graph = interaction_graph(net, bases, x)
    chance = np.random.default_rng(0)
    row(name, "true halves", net, bases, graph, score_partition(graph, true_sides(bases)), test)
    if loaded.step not in (0, 2500):
        return
    row(
        "",
        "random",
        net,
        bases,
        graph,
        score_partition(graph, [chance.integers(2, size=k) for k in graph.widths]),
        test,
    )
    turned = interaction_basis(net, x, output="pca")
    other = interaction_graph(net, turned, x)
    row("", "one-to-one chains, output=pca", net, turned, other, chains(other), test)
    for parameter in net.model.parameters():
        order = torch.from_numpy(chance.permutation(parameter.numel()))
        parameter.data = parameter.data.flatten()[order].reshape(parameter.shape)
    net = Network(net.model, net.cuts)
    bases = interaction_basis(net, x, output="neuron")
    graph = interaction_graph(net, bases, x)
    row("", "weights permuted, by force in two", net, bases, graph, find_modules(graph, k=2), test)


def trained(task: str) -> None:
    """A network of tests/cases_networks.py with its true sides; of a single task, by force in two."""
    net, bases, graph, sides, _, test = trained_network(task, 0)
    part = find_modules(graph, k=2) if sides is None else score_partition(graph, sides)
    row(task, "by force in two" if sides is None else "true sides", net, bases, graph, part, list(test.split(500)))


def chains(graph: InteractionGraph, count: int = 12) -> Partition:
    """The strongest nodes of the last cut, each with its partners; other nodes with the strongest that they feed."""
    ends = np.argsort(-(graph.blocks[-1] ** 2).sum(1))
    last = np.empty(len(ends), dtype=np.int64)
    last[ends] = np.arange(len(ends)) % count
    labels = [last]
    for block in reversed(graph.blocks):
        chained = partners(block)
        labels.insert(0, labels[0][np.where(chained.any(0), chained.argmax(0), block.argmax(0))])
    return score_partition(graph, labels)


def row(
    name: str, how: str, net: Network, bases: Bases, graph: InteractionGraph, part: Partition, test: Sequence[Any]
) -> None:
    """A line of the first table."""
    begun = time.process_time()
    mixing = mixed_modules(Interventions(net, bases, test), graph, part, joined_labels(graph, part))
    spent = time.process_time() - begun
    if mixing is None or mixing.p_value is None:
        return
    known = [share for share in mixing.followed if share is not None]
    follows = f"{min(known):.3f} to {max(known):.3f}" if known else "-"
    cells = (
        *(name, how, part.n_modules, f"{min(mixing.selectivity, mixing.predicted):.3f}", f"{max(mixing.null):.3f}"),
        *(f"{mixing.p_value:.3f}", follows, f"{max(mixing.interaction):.3g} of {mixing.variance:.3g}"),
        *(ablate_modules(net, bases, graph, part, test, draws=1).verdict, f"{spent:.1f} s"),
    )
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def without_modules() -> None:
    """How often networks without modules are supported, by force in two or three."""
    heads = "networks without modules | by force | p < .05 | supported | least p | largest selectivity"
    print(f"\n| {heads} |\n|{' --- |' * (1 + heads.count('|'))}")
    found: dict[str, list[tuple[float, float, str]]] = {kind: [] for kind in ENTANGLED}
    for seed in range(NETWORKS):
        kind, model, x = entangled(seed)
        cuts = MLP.cuts({"widths": [0] * 4})
        net = Network(model, cuts, transitions=MLP.transitions(model), example=x)
        bases = interaction_basis(net, [x[:400]], output="neuron")
        graph = interaction_graph(net, bases, [x[:400]])
        part = find_modules(graph, k=2 + seed // len(ENTANGLED) % 2)
        mixing = mixed_modules(Interventions(net, bases, [x[400:]]), graph, part, joined_labels(graph, part))
        if mixing is not None and mixing.p_value is not None:
            least = min(mixing.selectivity, mixing.predicted)
            found[kind].append((mixing.p_value, least, mixing.judge().verdict))
    for kind, rows in (*found.items(), ("all", [line for lines in found.values() for line in lines])):
        small, said = sum(p < 0.05 for p, *_ in rows), Counter(verdict for *_, verdict in rows)
        cells = (kind, len(rows), small, said["supported"], f"{min(p for p, *_ in rows):.3f}")
        print(f"| {' | '.join(map(str, cells))} | {max(least for _, least, _ in rows):.3f} |", flush=True)


if __name__ == "__main__":
    main()
