"""Evidence for a partition: its description length, and the agreement of independent searches.

`stability` compares a partition with those of independent searches: adjusted mutual information, variation of
information, and for each node how much its module agrees in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ..results import by_value
from ..search.local_search import Search

__all__ = ["Stability", "description_length", "stability", "variation_of_information"]


def description_length(search: Search, labels: Int[np.ndarray, " n"]) -> float:
    """Compute the nats to describe costs and labels, minus those for one module; not part of the rule.

    Degree-corrected stochastic block model with quasi-Poisson weights (dispersion phi = E[x^2] / E[x]), K modules,
    P pairs of cuts, n nodes, n_c of them in module c, x_cd^p the cost from c to d in pair p, E[x_cd^p] = k_c^p k_d^p /
    m_p; where edges skip cuts all pairs count as one, P = 1, with E of `graph.expectation`:

        - sum_p sum_cd x_cd^p log(x_cd^p / E[x_cd^p]) / phi
        + n H(n_c / n) + (K - 1) log n + P (K - 1)^2 log(n) / 4
    """
    phi = (search.costs.weight**2).sum() / search.costs.total
    parts = search.expectations(labels)
    n, count = len(labels), int(labels.max()) + 1
    fit = sum(float((x[x > 0] * np.log(x[x > 0] / expected[x > 0])).sum()) for x, expected in parts)
    sizes = np.bincount(labels)
    entropy = -float((sizes[sizes > 0] * np.log(sizes[sizes > 0] / n)).sum())
    return float(-fit / float(phi) + entropy + (count - 1) * np.log(n) + len(parts) * (count - 1) ** 2 * np.log(n) / 4)


@by_value
@dataclass(frozen=True)
class Stability:
    """The agreement of a partition with independent searches.

    Attributes:
        ami: mean adjusted mutual information (1: the same, 0: as by chance).
        variation_of_information: mean variation of information, in nats (0: the same).
        confidence: per node the mean of |A & B| / |A | B|, A its module here and B that in another search.
    """

    ami: float
    variation_of_information: float
    confidence: Float[np.ndarray, " n"]


def stability(labels: Int[np.ndarray, " n"], runs: Sequence[Int[np.ndarray, " n"]]) -> Stability:
    """Compare labels with those of independent searches on the same nodes.

    >>> one = np.array([0, 0, 1, 1])
    >>> found = stability(one, [one, np.array([0, 0, 0, 1])])
    >>> found.confidence.round(4).tolist()
    [0.8333, 0.8333, 0.625, 0.75]
    """
    from sklearn.metrics import adjusted_mutual_info_score  # takes a second

    confidence = np.zeros(len(labels))
    for other in runs:
        counts = np.zeros((labels.max() + 1, other.max() + 1))
        np.add.at(counts, (labels, other), 1.0)
        union = counts.sum(1)[:, None] + counts.sum(0) - counts
        confidence += (counts / np.maximum(union, 1.0))[labels, other] / len(runs)
    ami = float(np.mean([adjusted_mutual_info_score(labels, other) for other in runs]))
    vi = float(np.mean([variation_of_information(labels, other) for other in runs]))
    return Stability(ami, vi, confidence)


def variation_of_information(a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"]) -> float:
    """Compute H(a | b) + H(b | a) in nats, a metric on partitions (Meila 2007).

    >>> float(round(variation_of_information(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 0])) / np.log(2), 12))
    1.0
    """
    counts = np.unique(np.stack([a, b]), axis=1, return_counts=True)[1]
    return max(
        0.0,
        2 * _entropy(counts)
        - _entropy(np.unique(a, return_counts=True)[1])
        - _entropy(np.unique(b, return_counts=True)[1]),
    )


def _entropy(counts: Int[np.ndarray, " k"]) -> float:
    """Compute the entropy in nats of a division into parts of these sizes."""
    shares = counts / counts.sum()
    return -float((shares * np.log(shares)).sum())
