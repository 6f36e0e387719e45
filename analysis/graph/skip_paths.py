"""Strengths between adjacent cuts, and the part of them that is a skip path.

Between two cuts of one residual stream J = 1 + (Jacobian of the block). The identity says nothing about modules, and it
dominates the strengths: at default initialisation 62 to 94 % of a node's w^2 goes to one node of the next cut. So for
two cuts with the same features the contributions are compared with those of the identity at equal positions,
S = C^{l+1} (C^l)^+ in the coordinates of the bases. With r the contributions to an output position t,

    a = sum_ji S_ji E[sum_t r_tji f^_ti] / sum_ji S_ji^2 E[sum_t f^_ti^2]

is the share of the identity in them, 1 for a residual stream at initialisation. Above 1/2 the cuts belong to one
stream, and the strengths beyond the skip path are

    w_ji^2 = E[ sum_t (r_tji - a S_ji f^_ti)^2 ],

for Jacobians E[sum_ts (J_{tj,si} - a [s = t] S_ji)^2] Lambda_i.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from ..basis.bases import Basis
from ..basis.cotangents import PositionSigns
from ..basis.jacobians import disjoint_positions, gate_moments, one_position, pair_rows, pair_trace, signed_rows
from ..devices.device import summed, sums_on
from ..network.batches import Batch, read_batches
from ..network.forward import Trace
from ..network.network import Network
from ..network.transitions import PositionWise
from ..progress import ProgressCallback, Watched
from ..results import by_value

__all__ = ["PairStrengths", "has_streams", "pair_attributions", "pair_strengths"]

_STREAM = 0.5  # two cuts with a larger share of the identity belong to one stream

_ROUNDING = 1e-12


@by_value
@dataclass(frozen=True)
class SampledMoments:
    """Moments over data points of q = sum r_tji^2, c = sum r_tji f^_ti and p = sum f^_ti^2, in units of Lambda_i.

    Attributes:
        n: number of data points.
        first: E[q], E[c] (2, j, i).
        second: E[q q], E[q c], E[c c], E[q p], E[c p] (5, j, i).
        power: E[p], E[p p].
        importance: Lambda_i.
    """

    n: int
    first: Float[Tensor, "2 j i"]
    second: Float[Tensor, "5 j i"]
    power: tuple[float, float]
    importance: Float[Tensor, " i"]

    def errors(self, skip: Float[Tensor, "j i"]) -> Float[np.ndarray, "j i"]:
        """Compute the standard errors of w where w^2 = E[q - 2 s c + s^2 p]: those of the mean, divided by 2w."""
        (q, c), (qq, qc, cc, qp, cp), (p, pp) = self.first, self.second, self.power
        mean = q - 2 * skip * c + skip**2 * p
        square = qq + 4 * skip**2 * cc + skip**4 * pp - 4 * skip * qc + 2 * skip**2 * qp - 4 * skip**3 * cp
        spread = (square - mean**2).clamp_min(0.0).div(max(self.n - 1, 1)).sqrt()
        w = mean.clamp_min(0.0).sqrt()
        return np.asarray((torch.where(w > 0, spread / (2 * w), 0.0) * self.importance.sqrt()).cpu().numpy())


@by_value
@dataclass(frozen=True)
class PairStrengths:
    """Second moments of the contributions from one cut to the next, in units of the behavioural loss.

    Attributes:
        squared: w^2 (j, i).
        identity: S (j, i), the identity in the coordinates of the bases; None where the cuts have other features or
            positions.
        along: E[sum_t r_tji f^_ti] (j, i); for Jacobians E[sum_t J_{tj,ti}] Lambda_i.
        power: E[sum_t f^_ti^2] (i,), summed over positions that both cuts have.
        sampled: the moments from which standard errors follow, of data points and random signs together; None for exact
            sums.

    >>> eye = torch.eye(2, dtype=torch.float64)
    >>> found = PairStrengths(squared=2.25 * eye, identity=eye, along=1.5 * eye, power=torch.ones(2).double())
    >>> found.share, found.strengths.tolist(), found.beyond_skip.tolist()
    (1.5, [[1.5, 0.0], [0.0, 1.5]], [[0.0, 0.0], [0.0, 0.0]])
    """

    squared: Float[Tensor, "j i"]
    identity: Float[Tensor, "j i"] | None
    along: Float[Tensor, "j i"]
    power: Float[Tensor, " i"]
    sampled: SampledMoments | None = None

    @property
    def errors(self) -> Float[np.ndarray, "j i"] | None:
        """The standard errors of the strengths; None where they are exact sums over the data."""
        return None if self.sampled is None else self.sampled.errors(torch.zeros_like(self.squared))

    @property
    def beyond_errors(self) -> Float[np.ndarray, "j i"] | None:
        """The standard errors of the strengths beyond the skip path; None where there is none, or sums are exact."""
        if self.sampled is None or self.identity is None or not self.share > _STREAM:
            return None
        return self.sampled.errors(self.share * self.identity)

    @property
    def strengths(self) -> Float[np.ndarray, "j i"]:
        """The strengths w."""
        return np.asarray(self.squared.clamp(min=0).sqrt().cpu().numpy())

    @property
    def share(self) -> float:
        """`a`, the share of the identity in the contributions; 0 where there is no identity."""
        if self.identity is None or not bool(self.power.any()):
            return 0.0
        return float((self.identity * self.along).sum() / (self.identity.square() * self.power).sum())

    @property
    def beyond_skip(self) -> Float[np.ndarray, "j i"] | None:
        """The strengths without the share of the identity; None if the cuts do not belong to one stream."""
        share = self.share
        if self.identity is None or not share > _STREAM:
            return None
        skip = share * self.identity
        taken = skip.square() * self.power
        squared = self.squared - 2 * skip * self.along + taken
        squared = torch.where(squared > _ROUNDING * (self.squared + taken), squared, 0.0)
        return np.asarray(squared.sqrt().cpu().numpy())


def pair_strengths(
    network: Network,
    batches: Iterable[Batch],
    pair: int,
    bases: tuple[Basis, Basis],
    progress: ProgressCallback | None,
    signs: PositionSigns | None = None,
) -> PairStrengths:
    """Compute w_ji^2 = E[sum_ts J^_{tj,si}^2] Lambda_i from Jacobians, J^ = C^{l+1} (df^{l+1}/df^l) (C^l)^+.

    Uses the exact form of the transition where the network declares one. With random signs one backward pass per
    coordinate j of the later cut serves all positions t: E[(sum_t xi_t J^_{tj,si})^2] = sum_t J^_{tj,si}^2.
    """
    rows, columns, importance = _coordinates(bases, sums_on(network.device))
    identity = _identity(rows, columns)
    form = network.transitions.get(pair)
    if isinstance(form, PositionWise):
        slopes = gate_moments(network, batches, pair, form, progress)
        squared, along = slopes.squared_jacobian(form, rows, columns), slopes.mean_jacobian(form, rows, columns)
        power = importance * (slopes.count / slopes.n)
        return PairStrengths(squared * importance, identity, along * importance, power)
    if signs is not None:
        return _signed_strengths(network, batches, pair, bases, progress, signs)
    squared, along = torch.zeros(2, len(rows), columns.shape[1], dtype=torch.float64, device=rows.device)
    n, count = 0, 0.0
    watched = Watched(progress)
    for batch in read_batches(batches, f"strengths into {network.cuts[pair + 1]}", watched):
        trace = pair_trace(network, batch, pair)
        n += len(trace.output)
        same = None if identity is None else _same_positions(network, trace, pair)
        identity, count = (None, 0.0) if same is None else (identity, count + float(_n_both(trace, pair, same).sum()))
        together = disjoint_positions(network, trace, pair, len(rows), same)
        groups = [[t] for t in range(trace.values[pair + 1].shape[1])] if together is None else together
        at = -1
        for labels, block in pair_rows(network, trace, pair, rows, columns, together=together):
            at += int(labels[0] == 0)  # rows come group after group of positions
            watched.part(max(at, 0) * len(rows) + int(labels[0]), len(groups) * len(rows), "passes of a batch")
            if same is not None:
                along.index_add_(0, labels, block[:, :, [same[t] for t in groups[at]]].sum((1, 2)))
            squared.index_add_(0, labels, block.flatten(1, 2).square_().sum(1))
    return PairStrengths(squared / n * importance, identity, along / n * importance, importance * (count / n))


def _signed_strengths(
    network: Network,
    batches: Iterable[Batch],
    pair: int,
    bases: tuple[Basis, Basis],
    progress: ProgressCallback | None,
    signs: PositionSigns,
) -> PairStrengths:
    rows, columns, importance = _coordinates(bases, at := sums_on(network.device))
    identity = _identity(rows, columns)
    shape = len(rows), columns.shape[1]
    first, second = (torch.zeros(k, *shape, dtype=torch.float64, device=at) for k in (2, 5))
    powers: list[Tensor] = []
    watched = Watched(progress)
    for batch in read_batches(batches, f"strengths into {network.cuts[pair + 1]}", watched):
        trace = pair_trace(network, batch, pair)
        same = None if identity is None else _same_positions(network, trace, pair)
        if same is None:
            identity, p = None, torch.zeros(len(trace.output), dtype=torch.float64, device=at)
        else:
            p = _n_both(trace, pair, same)
        powers.append(p)
        for labels, blocks, drawn in signed_rows(network, trace, pair, rows, columns, signs):
            watched.part(int(labels[0]), len(rows), "passes of a batch")
            q = blocks.square().sum(3).mean(0)  # over positions of the earlier cut, and sets of signs
            c = torch.zeros_like(q)
            if same is not None:
                c = (summed(torch.stack(drawn))[:, None] * blocks[..., same, :]).sum(3).mean(0)
            first[:, labels] += torch.stack([q, c]).sum(2)
            for moment, one, other in zip(second, (q, q, c, q, c), (q, c, c, p[:, None], p[:, None]), strict=True):
                moment[labels] += (one * other).sum(1)
    power = torch.cat(powers)
    n = len(power)
    sampled = SampledMoments(n, first / n, second / n, (float(power.mean()), float(power.square().mean())), importance)
    squared, along = first / n * importance
    return PairStrengths(squared, identity, along, importance * power.mean(), sampled if n > 1 else None)


def pair_attributions(
    network: Network,
    batches: Iterable[Batch],
    pair: int,
    bases: tuple[Basis, Basis],
    *,
    points: int,
    progress: ProgressCallback | None,
) -> PairStrengths:
    """Compute w_ji^2 = E[sum_t (sum_s int J^_{tj,si} d alpha f^_si)^2] by attribution, from the mean to f.

    `points` is the size of the Gauss-Legendre rule; 1 stands for the single point alpha = 1.
    """
    rows, columns, importance = _coordinates(bases, sums_on(network.device))
    identity = _identity(rows, columns)
    nodes, weights = leggauss(points) if points > 1 else (np.ones(1), 2 * np.ones(1))
    squared = torch.zeros(len(rows), columns.shape[1], dtype=torch.float64, device=rows.device)
    mean, to_basis = (torch.from_numpy(v).to(rows.device) for v in (bases[0].mean, bases[0].to_basis))
    along, power, n = torch.zeros_like(squared), torch.zeros_like(importance), 0
    for batch in read_batches(batches, f"strengths into {network.cuts[pair + 1]}", progress):
        with torch.no_grad():
            here = network.trace(batch)
        n += len(here.output)
        centred = here.counted[pair].clean(summed(here.values[pair]) - mean)
        coordinates = one_position(network, here, pair, centred @ to_basis.T)
        same = None if identity is None else _same_positions(network, here, pair)
        if same is not None and isinstance(network.transitions.get(pair), PositionWise):
            same = [0]  # each position is a data point of its own
        if same is None:
            identity = None
        else:
            power += coordinates[:, same].square().sum((0, 1))
        traces = [
            pair_trace(network, batch, pair, network.moved(here, pair, (alpha - 1) * centred))
            for alpha in (nodes + 1) / 2
        ]
        paths = [pair_rows(network, trace, pair, rows, columns) for trace in traces]
        position = -1
        for blocks in zip(*paths, strict=True):
            labels = blocks[0][0]
            position += int(labels[0] == 0)
            mean_rows = sum(w / 2 * block for w, (_, block) in zip(weights, blocks, strict=True))
            parts = (mean_rows * coordinates).sum(2)
            if same is not None:
                along.index_add_(0, labels, (parts * coordinates[:, same[position]]).sum(1))
            squared.index_add_(0, labels, parts.square().sum(1))
    return PairStrengths(squared / n, identity, along / n, power / n)


def has_streams(network: Network, batches: Iterable[Batch]) -> bool:
    """Test, with one random probe on the first batch, whether two adjacent cuts may belong to one residual stream.

    For random signs v the expectation of v^T J v is the trace of J. Divided by the trace of the identity it is compared
    with half of the threshold, since it is noisy and in the model's own coordinates.
    """
    widths = network.widths
    draws = torch.Generator().manual_seed(0)
    for batch in read_batches(batches, "skip paths", None):
        trace = network.trace(batch)
        for pair in range(len(widths) - 1):
            target = trace.values[pair + 1].detach()
            same = _same_positions(network, trace, pair) if widths[pair] == widths[pair + 1] else None
            if same is None or target.shape != trace.values[pair][:, same].shape:
                continue
            signs = (torch.randint(0, 2, target.shape, generator=draws, device="cpu") * 2 - 1).to(target)
            back = network.vjp(trace, trace.values[pair + 1], pair, signs[None])[0][:, same]
            if float((signs * back).sum()) > 0.5 * _STREAM * target.numel():
                return True
        break
    return False


def _coordinates(bases: tuple[Basis, Basis], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return C of the later cut, and C^+ and Lambda of the earlier one, on a device."""
    earlier, later = bases
    return (
        torch.from_numpy(later.to_basis).to(device),
        torch.from_numpy(earlier.from_basis).to(device),
        torch.from_numpy(earlier.importance).to(device),
    )


def _identity(rows: Float[Tensor, "j d"], columns: Float[Tensor, "e i"]) -> Float[Tensor, "j i"] | None:
    return rows @ columns if rows.shape[1] == columns.shape[0] else None


def _same_positions(network: Network, trace: Trace, pair: int) -> list[int] | None:
    """For each position read at the later cut return its index at the earlier one; None if one is not read there."""
    counted, lengths = trace.counted[pair : pair + 2], [trace.entries[p][0].shape[1] for p in (pair, pair + 1)]
    if lengths[0] != lengths[1]:
        return None
    if any(isinstance(where.index, Tensor) for where in counted):  # the last position of each data point
        both = all(isinstance(where.index, Tensor) for where in counted)
        return [0] if both and torch.equal(*(where.index for where in counted)) else None  # type: ignore[arg-type]
    earlier, later = (torch.arange(lengths[0], device="cpu")[where.index].tolist() for where in counted)
    return [earlier.index(t) for t in later] if set(later) <= set(earlier) else None


def _n_both(trace: Trace, pair: int, same: list[int]) -> Float[Tensor, " batch"]:
    """Count the pairs of equal positions that count at both cuts, for each data point of a batch."""
    value = trace.values[pair]
    ones = torch.ones(*value.shape[:2], 1, dtype=torch.float64, device=sums_on(value.device))
    later = ones.new_ones(len(value), len(same), 1)
    return (trace.counted[pair].clean(ones)[:, same] * trace.counted[pair + 1].clean(later)).sum((1, 2))
