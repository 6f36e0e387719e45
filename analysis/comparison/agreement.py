"""Agreement of two labellings: AMI and ARI, and how large both are when labels are permuted within each cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import xlogy

from ..results import by_value

__all__ = ["Agreement", "agreement", "relabellings"]


@by_value
@dataclass(frozen=True)
class Agreement:
    """How much two labellings of n nodes agree.

    Attributes:
        ami: adjusted mutual information, 1 for the same division, 0 as between labels dealt out over all nodes.
        ari: adjusted Rand index, likewise.
        ami_by_chance, ari_by_chance: their means when the labels of one are permuted within each cut.
        z: (ami - ami_by_chance) / standard deviation; None where permutations change nothing.
        p_value, ari_p_value: (1 + permutations with at least as much) / (1 + permutations).
        overlap: [k, l], number of nodes with label k in the first and l in the second.
        best: per labelling, for each label the largest Jaccard overlap with a label of the other.
        best_by_chance: their means when labels are permuted.
        best_p: (1 + permutations in which it is at least as large) / (1 + permutations).
    """

    ami: float
    ari: float
    ami_by_chance: float
    ari_by_chance: float
    z: float | None
    p_value: float
    ari_p_value: float
    overlap: Int[np.ndarray, "k l"]
    best: tuple[Float[np.ndarray, " k"], Float[np.ndarray, " l"]]
    best_by_chance: tuple[Float[np.ndarray, " k"], Float[np.ndarray, " l"]]
    best_p: tuple[Float[np.ndarray, " k"], Float[np.ndarray, " l"]]


def agreement(
    a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"], cuts: Int[np.ndarray, " n"], n_permutations: int, seed: int
) -> Agreement:
    """Compute AMI and ARI of labels 0 .. k - 1 and 0 .. l - 1, and compare them with permutations within cuts.

    Permutations keep the sizes of all modules at each cut, so mutual information and AMI, and the number of
    pairs together in both and ARI, order them alike. The same for (a, b) and (b, a), and for other names of the labels.

    >>> one = np.array([0, 0, 1, 1])
    >>> found = agreement(one, np.array([0, 1, 0, 1]), np.zeros(4, dtype=int), 99, 0)
    >>> round(found.ami, 12), found.ari, found.overlap.tolist()
    (-0.5, -0.5, [[1, 1], [1, 1]])
    """
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score  # takes a second
    from sklearn.metrics.cluster import expected_mutual_information

    n, width = len(a), int(b.max()) + 1
    overlap = np.bincount(a * width + b, minlength=(int(a.max()) + 1) * width).reshape(-1, width)
    rows, columns = overlap.sum(1), overlap.sum(0)
    logs = xlogy(np.arange(n + 1.0), np.arange(n + 1.0))
    ends = logs[rows].sum() + logs[columns].sum() - logs[n]  # n MI = sum over cells - ends
    information = [(logs[overlap].sum() - ends) / n]
    together = [int((overlap**2).sum())]
    numbered = [_by_appearance(a), _by_appearance(b)]
    swapped = numbered[0].tolist() > numbered[1].tolist()
    first, second = reversed(numbered) if swapped else numbered
    best = _Best(first, second, overlap.size)
    for order in relabellings(cuts, n_permutations, seed):
        keys, counts = _counts(first, second[order], overlap.size)
        information.append((logs[counts].sum() - ends) / n)
        together.append(int((counts**2).sum()))
        best.add(keys, counts)
    entropies = float(2 * logs[n] - logs[rows].sum() - logs[columns].sum()) / n
    room = entropies / 2 - float(expected_mutual_information(overlap, n))
    expected = float((rows**2).sum() - n) * float((columns**2).sum() - n) / max(n * (n - 1.0), 1.0)
    pairs = float((rows**2).sum() + (columns**2).sum()) / 2 - n - expected
    mi, rand = np.array(information), np.array(together, dtype=float)
    ami, ari = float(adjusted_mutual_info_score(a, b)), float(adjusted_rand_score(a, b))
    mean, sd, known = float(mi[1:].mean()), float(mi[1:].std()), float(mi[0])
    tolerance = 1e-9 * max(entropies, 1e-300)
    return Agreement(
        ami=min(ami, 1.0),
        ari=min(ari, 1.0),
        ami_by_chance=min(ami, 1.0) - (known - mean) / room if room > 1e-12 else min(ami, 1.0),
        ari_by_chance=min(ari, 1.0) - float(rand[0] - rand[1:].mean()) / pairs if pairs > 0 else min(ari, 1.0),
        z=(known - mean) / sd if sd > tolerance else None,
        p_value=float(1 + (mi[1:] >= known - tolerance).sum()) / (1 + n_permutations),
        ari_p_value=float(1 + (rand[1:] >= rand[0]).sum()) / (1 + n_permutations),
        overlap=overlap,
        **best.of((b, a) if swapped else (a, b), swapped),
    )


def relabellings(cuts: Int[np.ndarray, " n"], count: int, seed: int) -> Iterator[Int[np.ndarray, " n"]]:
    """Draw orders of the nodes that exchange nodes of the same cut only.

    >>> [order.tolist() for order in relabellings(np.array([0, 1, 0, 1]), 3, 0)]
    [[0, 1, 2, 3], [0, 3, 2, 1], [2, 1, 0, 3]]
    """
    rng = np.random.default_rng(seed)
    parts = [np.flatnonzero(cuts == cut) for cut in np.unique(cuts)]
    for _ in range(count):
        order = np.arange(len(cuts))
        for part in parts:
            order[part] = rng.permutation(part)
        yield order


def _by_appearance(labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Renumber labels in the order in which they first appear."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _counts(
    a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"], size: int
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Return the pairs of labels that occur, a width + b, and the number of nodes of each."""
    keys = a * (int(b.max()) + 1) + b
    if size > 8 * len(a):
        return np.unique(keys, return_counts=True)
    counts = np.bincount(keys)
    found = np.flatnonzero(counts)
    return found, counts[found]


class _Best:
    """The largest Jaccard overlap of each label with a label of the other labelling, here and in permutations."""

    def __init__(self, first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"], size: int) -> None:
        self._labels = first, second
        self._sizes = np.bincount(first), np.bincount(second)
        self._known = self._of(*_counts(first, second, size))
        self._sums = [np.zeros(len(known)) for known in self._known]
        self._above = [np.zeros(len(known)) for known in self._known]
        self._n = 0

    def _of(
        self, keys: Int[np.ndarray, " pairs"], counts: Int[np.ndarray, " pairs"]
    ) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " l"]]:
        rows, columns = np.divmod(keys, len(self._sizes[1]))
        share = counts / (self._sizes[0][rows] + self._sizes[1][columns] - counts)
        best = np.zeros(len(self._sizes[0])), np.zeros(len(self._sizes[1]))
        for part, labels in zip(best, (rows, columns), strict=True):
            np.maximum.at(part, labels, share)
        return best

    def add(self, keys: Int[np.ndarray, " pairs"], counts: Int[np.ndarray, " pairs"]) -> None:
        """Take a permutation."""
        self._n += 1
        for side, drawn in enumerate(self._of(keys, counts)):
            self._sums[side] += drawn
            self._above[side] += drawn >= self._known[side] - 1e-12

    def of(self, given: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]], swapped: bool) -> dict[str, Any]:
        """Return best overlaps, their means and p-values by the labels as given, in the order given."""
        found: dict[str, list[Any]] = {"best": [], "best_by_chance": [], "best_p": []}
        for side, labels in enumerate(given):
            places = np.unique(labels, return_index=True)[1]
            order = self._labels[side][places]  # the number of each label here
            found["best"].append(self._known[side][order])
            found["best_by_chance"].append(self._sums[side][order] / self._n)
            found["best_p"].append((1 + self._above[side][order]) / (1 + self._n))
        return {name: tuple(reversed(parts)) if swapped else tuple(parts) for name, parts in found.items()}
