"""Strengths between two cuts in one backward pass per coordinate, and what a skip path adds to them.

Between two cuts of one residual stream J = 1 + (what the block adds). The identity says nothing about modules, and it
dominates the strengths: at default initialisation 62 to 94 % of a node's w^2 goes to one node of the next cut. So for
two cuts whose features are the same coordinates the mean Jacobian at equal positions is compared with the identity. In
the coordinates of the bases, with S = C^{l+1} (C^l)^+ the identity and T positions:

    a = sum_ji S_ji E[sum_t J^_{tj,ti}] Lambda_i / (T sum_ji S_ji^2 Lambda_i)

is how much of the identity is in it, 1 for a residual stream at initialisation. Above 1/2 the two cuts belong to one
stream, and the strengths beyond the skip path are

    w_ji^2 = E[ sum_ts (J^_{tj,si} - a [s = t] S_ji)^2 ] Lambda_i.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .batches import Batch, read_batches
from .moments import gate_moments, pair_rows, pair_trace
from .network import Network
from .progress import ProgressCallback
from .transitions import PositionWise

__all__ = ["PairMoments", "strength_moments"]

_STREAM = 0.5  # share of the identity in the mean Jacobian above which two cuts belong to one stream
_ROUNDING = 1e-12


@dataclass(frozen=True)
class PairMoments:
    """Moments of J^ = C^{l+1} (df^{l+1}/df^l) (C^l)^+ over the data.

    Attributes:
        squared: E[sum_ts J^_{tj,si}^2] (j, i).
        mean: E[sum_t J^_{tj,ti}] (j, i), the mean Jacobian at equal positions; None where the two cuts have other
            features or positions, so that there is no identity between them.
        positions: T, the mean number of pairs of equal positions of a data point.
    """

    squared: Float[Tensor, "j i"]
    mean: Float[Tensor, "j i"] | None
    positions: float

    def share(self, identity: Float[Tensor, "j i"], importance: Float[Tensor, " i"]) -> float:
        """`a`, how much of the identity S is in the mean Jacobian (head of this module).

        >>> eye = torch.eye(2, dtype=torch.float64)
        >>> PairMoments(4 * eye, 2 * eye, 1.0).share(eye, torch.ones(2, dtype=torch.float64))
        2.0
        """
        norm = self.positions * float((identity.square() * importance).sum())
        if self.mean is None or not norm > 0:
            return 0.0
        return float((identity * self.mean * importance).sum()) / norm

    def beyond_skip(
        self, identity: Float[Tensor, "j i"], importance: Float[Tensor, " i"]
    ) -> Float[np.ndarray, "j i"] | None:
        """Strengths of J^ - a S, None where the two cuts do not belong to one stream."""
        share = self.share(identity, importance)
        if self.mean is None or not share > _STREAM:
            return None
        skip = share * identity
        squared = self.squared - 2 * skip * self.mean + self.positions * skip.square()
        rounding = _ROUNDING * (self.squared + self.positions * skip.square())
        squared = torch.where(squared > rounding, squared, 0.0)
        return np.asarray((squared * importance).sqrt().numpy())


def strength_moments(
    network: Network,
    batches: Iterable[Batch],
    pair: int,
    rows: Float[Tensor, "j d_out"],
    columns: Float[Tensor, "d_in i"],
    *,
    progress: ProgressCallback | None = None,
) -> PairMoments:
    """Moments of J^ = rows (d(cut p+1)/d(cut p)) columns, with the mean at equal positions where there are such.

    Uses the exact form of the transition where the network declares one.

    Raises:
        DataError: no data, NaN, or inputs that do not fit.
    """
    form = network.transitions.get(pair)
    if isinstance(form, PositionWise):
        slopes = gate_moments(network, batches, pair, form, progress)
        mean = slopes.mean_jacobian(form, rows, columns) if rows.shape[1] == columns.shape[0] else None
        return PairMoments(slopes.squared_jacobian(form, rows, columns), mean, slopes.count / slopes.n)
    squared, mean = torch.zeros(len(rows), columns.shape[1], dtype=torch.float64), None
    n = count = 0
    for batch in read_batches(batches, f"strengths into {network.cuts[pair + 1]}", progress):
        trace = pair_trace(network, batch, pair)
        n += len(trace.output)
        sources = network.sources(trace, pair) if rows.shape[1] == columns.shape[0] else None
        if sources is not None:
            mean = torch.zeros_like(squared) if mean is None else mean
            count += sources.count(trace)
        position = -1
        for labels, block in pair_rows(network, trace, pair, rows, columns):
            position += int(labels[0]) == 0  # rows come position after position
            squared.index_add_(0, labels, block.square().flatten(1, 2).sum(1))
            if mean is not None and sources is not None:
                mean.index_add_(0, labels, block[:, :, sources[position]].sum(1))
    return PairMoments(squared / n, None if mean is None else mean / n, count / n)
