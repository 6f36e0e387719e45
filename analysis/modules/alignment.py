"""Align the nodes of two checkpoints by the correlation of their coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from ..basis.bases import Bases
from ..errors import DataError, GraphError
from ..network.batches import Batch
from ..network.network import Network
from ..notebook.bars import with_bar
from ..progress import ProgressCallback, report

__all__ = ["Alignment", "align_nodes", "coordinate_correlation"]

Alignment = Sequence[Int[np.ndarray, " _"]]

_CORRELATED = 0.3


@with_bar
def coordinate_correlation(
    earlier: tuple[Network, Bases],
    later: tuple[Network, Bases],
    batches: Iterable[Batch],
    *,
    progress: ProgressCallback | None = None,
) -> list[Float[np.ndarray, "_ _"]]:
    """Compute per cut the correlation of the coordinates of two networks over data points and positions.

    The correlation is in float64, and 0 where a coordinate does not vary.

    Raises:
        GraphError: the cuts, or their numbers of positions, differ.
        DataError: no data, NaN, or inputs that do not fit.
    """
    (first, a), (second, b) = earlier, later
    if tuple(a) != tuple(b):
        raise GraphError(f"the cuts differ: {list(a)} and {list(b)}; only the same cuts can be aligned")
    widths = [(b[cut].importance.shape[0], a[cut].importance.shape[0]) for cut in a]
    product = [np.zeros(shape) for shape in widths]
    sums = [[np.zeros(k) for k in shape] for shape in widths]
    squares = [[np.zeros(k) for k in shape] for shape in widths]
    count = [0] * len(widths)
    for batch in report(batches, "aligning", progress):
        with torch.no_grad():
            traces = second.trace(batch), first.trace(batch)
        for c, cut in enumerate(a):
            new, old = (
                trace.counted[c].rows(basis[cut].coordinates(trace.values[c])).numpy()
                for basis, trace in zip((b, a), traces, strict=True)
            )
            if len(new) != len(old) or not traces[0].counted[c].agrees(traces[1].counted[c]):
                raise GraphError(
                    f"cut {cut!r} has {len(old)} values per batch at one network and {len(new)} at the other"
                )
            product[c] += new.T @ old
            for k, x in enumerate((new, old)):
                sums[c][k] += x.sum(0)
                squares[c][k] += (x**2).sum(0)
            count[c] += len(new)
    if not all(count):
        raise DataError("there are no batches to align the nodes with: expected at least one data point")
    result = []
    for c, n in enumerate(count):
        covariance = product[c] / n - np.outer(sums[c][0], sums[c][1]) / n**2
        variance = [np.maximum(q / n - (s / n) ** 2, 0.0) for q, s in zip(squares[c], sums[c], strict=True)]
        scale = np.sqrt(np.outer(*variance))
        tiny = 1e-12 * max(float(scale.max(initial=0.0)), 1e-300)
        result.append(np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > tiny))
    return result


def align_nodes(
    correlation: Sequence[Float[np.ndarray, "_ _"]], *, least: float = _CORRELATED
) -> list[Int[np.ndarray, " _"]]:
    """Match nodes one to one with the largest sum of |correlation|; pairs below `least` stay unmatched.

    Raises:
        GraphError: a correlation that is no finite number.

    >>> [a.tolist() for a in align_nodes([np.array([[0.1, -0.9], [0.8, 0.2], [0.1, 0.1]])])]
    [[1, 0, -1]]
    """
    result = []
    for matrix in correlation:
        strength = np.abs(matrix)
        if not np.isfinite(strength).all():
            raise GraphError("correlations hold NaN or infinity: expected numbers between -1 and 1")
        matched = np.full(len(strength), -1, dtype=np.int64)
        later, earlier = linear_sum_assignment(strength, maximize=True)
        kept = strength[later, earlier] >= least
        matched[later[kept]] = earlier[kept]
        result.append(matched)
    return result
