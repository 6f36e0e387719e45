"""A small network with a known answer: two handwritten digits side by side, named by one MLP.

The left digit and the right digit are drawn independently, and each has its own ten outputs, so a network that
solves the task well needs no interaction between its left and its right half. Basis and modules are found without
this knowledge; `agreement` compares them with it afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from ..basis.bases import Bases
from ..checkpoints.two_digits import CLASSES
from ..modules.partition import Partition

__all__ = ["agreement", "true_sides"]


def true_sides(bases: Bases) -> list[Int[np.ndarray, " _"]]:
    """Return per cut the side (0 left, 1 right) of each coordinate of a global basis with raw outputs at the last cut.

    A coordinate belongs to the side whose outputs it influences more; the sides of outputs are known.
    """
    *inner, last = bases.values()
    sides = [basis.influence[CLASSES:].sum(0) > basis.influence[:CLASSES].sum(0) for basis in inner]
    return [side.astype(np.int64) for side in (*sides, np.arange(len(last.importance)) >= CLASSES)]


def agreement(partition: Partition, sides: Sequence[Int[np.ndarray, " _"]]) -> list[float]:
    """Compute the adjusted mutual information of modules and true sides, per cut and for all cuts together (last).

    Nodes without an edge above the cutoff belong to no module and are left out.
    """
    from sklearn.metrics import adjusted_mutual_info_score  # takes a second

    pairs = [(side[labels >= 0], labels[labels >= 0]) for side, labels in zip(sides, partition.labels, strict=True)]
    pairs.append(tuple(np.concatenate(part) for part in zip(*pairs, strict=True)))  # type: ignore[arg-type]
    return [float(adjusted_mutual_info_score(side, labels)) if len(side) else math.nan for side, labels in pairs]
