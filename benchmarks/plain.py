"""The plainest call on networks whose right division is known: no option at all.

    python benchmarks/plain.py [beginning of a name ...]

Trains the networks of tests/cases_residual.py and prints the table; with no name writes benchmarks/plain.md as well.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import adjusted_mutual_info_score
from torch import nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from cases_residual import CASES, Case, truth  # noqa: E402

from interbasis.analysis import find_modules, interaction_basis, interaction_graph  # noqa: E402

CLAIMED = ("supported", "untested")  # a division with another verdict is not claimed
AGREES = 0.9
TEXT = """# The plain call on networks whose modules are known

`python benchmarks/plain.py`, {date}, {machine}, {versions}

`interaction_basis(net, data)`, `interaction_graph(net, bases, data)`, `find_modules(graph)`, no option; the networks
are those of tests/cases_residual.py, "auto" are those with cuts="auto". AMI: adjusted mutual information of the modules
with the task whose outputs each node influences most, on the nodes with an edge. Right: as many modules as tasks and an
AMI of at least {agrees}; where one module is right, one module or a division whose verdict does not claim it. The
"shared" ones, language models whose nodes serve both tasks, are shown and not judged.

{summary}

| network | right | modules | AMI | p | verdict | |
| --- | --- | --- | --- | --- | --- | --- |
"""


def row(name: str, case: Case, model: nn.Module) -> tuple[str, bool]:
    """One line of the table, and whether the answer is right."""
    net, data = case.network(model), case.data()
    bases = interaction_basis(net, data)
    part = find_modules(interaction_graph(net, bases, data))
    agreement = None
    if case.right > 1:
        labels, tasks = np.concatenate(part.labels), np.concatenate(truth(net, bases, data, case.heads))
        agreement = float(adjusted_mutual_info_score(tasks[labels >= 0], labels[labels >= 0]))
    if agreement is None:
        right = part.n_modules == 1 or part.verdict not in CLAIMED
    else:
        right = part.n_modules == case.right and agreement >= AGREES
    judged = case.group != "shared"
    numbers = ["-" if value is None else f"{value:.3f}" for value in (agreement, part.p_value)]
    wanted = str(case.right) if judged else "-"
    cells = [name, wanted, str(part.n_modules), *numbers, part.verdict, "" if right or not judged else "wrong"]
    return "| " + " | ".join(cells) + " |", right


def rows(wanted: list[str]) -> Iterator[tuple[str, str, bool]]:
    """Group, line and whether it is right, network after network; each is trained once for all its cuts."""
    models: dict[str, nn.Module] = {}
    for name, case in CASES.items():
        if wanted and not any(name.startswith(start) for start in wanted):
            continue
        base = name.removesuffix(", auto")
        if base not in models:
            models[base] = case.trained()
        line, right = row(name, case, models[base])
        print(line, flush=True)
        yield case.group, line, right


def main(wanted: list[str]) -> None:
    """Print the table, line by line, and write it where it is whole."""
    torch.set_num_threads(1)
    found = list(rows(wanted))
    groups = dict.fromkeys(group for group, _, _ in found if group != "shared")
    counts = {g: [right for group, _, right in found if group == g] for g in groups}
    summary = "; ".join(f"{g}: {sum(rights)} of {len(rights)} right" for g, rights in counts.items()) + "."
    print(summary)
    if wanted:
        return
    versions = ", ".join(f"{name} {version(name)}" for name in ("interbasis", "torch", "numpy"))
    machine = f"{platform.machine()}, {platform.system()}, one thread"
    text = TEXT.format(date=date.today(), machine=machine, versions=versions, agrees=AGREES, summary=summary)
    (ROOT / "benchmarks" / "plain.md").write_text(text + "\n".join(line for _, line, _ in found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
