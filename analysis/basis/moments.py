"""Streaming moments of activations and Jacobians: mean, Gram matrix G, Jacobian Gram matrix M (paper, section 6).

    G^l = 1/n sum_x f f^T (centred, averaged over positions)
    M^l = 1/n sum_x sum_k (df^L_k/df^l)(df^L_k/df^l)^T (summed over all pairs of positions)

All sums are float64 and can be merged; they need memory for one batch times one block of backward passes. Positions
that a mask leaves out are ignored: G is the mean over the positions of all data points that count; M and strengths sum
over pairs of positions that count, and are means over data points. So padding and batching change nothing. Where the
positions are those of a picture, G is centred at each of them: what is the same in every picture, such as a dark
border, varies with the position, not with the data. Signals and texts may differ in length and have one mean, and so
have pictures with a mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..devices.device import summed, sums_on
from ..errors import DataError
from ..network.batches import Batch, map_tensors, read_batches
from ..network.masks import EVERYTHING, Counted
from ..network.network import Network
from ..notebook.bars import with_bar
from ..progress import ProgressCallback
from ..results import by_value
from .cotangents import Probes, _gram, _output_rows

__all__ = ["ActivationMoments", "JacobianMoments", "Moments", "collect"]


@by_value
@dataclass(frozen=True)
class ActivationMoments:
    """Mean and centred scatter of the activations at a cut; `merge` is exact (Chan et al. 1983).

    Attributes:
        n: number of data points.
        count: number of positions that count, over all data points.
        mean: (d,).
        scatter: sum of (f - mean)(f - mean)^T (d, d); with `grid` about the mean at each position.
        grid: (positions, d) mean at each position of a picture; None elsewhere.

    >>> a = ActivationMoments.of(torch.tensor([[[0.0]], [[2.0]]]))
    >>> b = ActivationMoments.of(torch.tensor([[[4.0]]]))
    >>> a.merge(b).mean, a.merge(b).gram
    (tensor([2.], dtype=torch.float64), tensor([[2.6667]], dtype=torch.float64))
    """

    n: int
    count: int
    mean: Float[Tensor, " d"]
    scatter: Float[Tensor, "d d"]
    grid: Float[Tensor, "positions d"] | None = None

    @classmethod
    def of(
        cls, values: Float[Tensor, "batch positions d"], counted: Counted = EVERYTHING, *, grid: bool = False
    ) -> ActivationMoments:
        """Compute the moments of one batch, at the positions that count; with `grid` about the mean at each."""
        if grid and counted.mask is None:
            means = summed(values).mean(0)
            centred = (summed(values) - means).flatten(0, 1)
            return cls(len(values), len(centred), means.mean(0), centred.T @ centred, means)
        flat = summed(counted.rows(values))
        mean = flat.mean(0)
        centred = flat - mean
        return cls(len(values), len(flat), mean, centred.T @ centred)

    def merge(self, other: ActivationMoments) -> ActivationMoments:
        """Return the moments of both sets of data together."""
        count = self.count + other.count
        if self.grid is not None or other.grid is not None:
            if self.grid is None or other.grid is None or self.grid.shape != other.grid.shape:
                seen = ["one mean" if m.grid is None else f"{len(m.grid)} positions" for m in (self, other)]
                raise DataError(f"pictures with {' and with '.join(seen)}: expected one size")
            n, moved = self.n + other.n, other.grid - self.grid
            means = self.grid + moved * (other.n / n)
            scatter = self.scatter + other.scatter + moved.T @ moved * (self.n * other.n / n)
            return ActivationMoments(n, count, means.mean(0), scatter, means)
        shift = other.mean - self.mean
        between = torch.outer(shift, shift) * (self.count * other.count / count)
        mean = self.mean + shift * (other.count / count)
        return ActivationMoments(self.n + other.n, count, mean, self.scatter + other.scatter + between)

    @property
    def centre(self) -> Float[Tensor, "*positions d"]:
        """The mean about which the scatter is taken: at each position of a picture, or one for all."""
        return self.mean if self.grid is None else self.grid

    @property
    def gram(self) -> Float[Tensor, "d d"]:
        """The centred Gram matrix G, the block without the constant unit."""
        return self.scatter / self.count


@by_value
@dataclass(frozen=True)
class JacobianMoments:
    """Sum over data points of J^T J for one cut, J the Jacobian of the loss-weighted output.

    Attributes:
        n: number of data points.
        total: sum of J^T J (d, d).
    """

    n: int
    total: Float[Tensor, "d d"]

    def merge(self, other: JacobianMoments) -> JacobianMoments:
        """Return the moments of both sets of data together."""
        return JacobianMoments(self.n + other.n, self.total + other.total)

    @property
    def gram(self) -> Float[Tensor, "d d"]:
        """The Jacobian Gram matrix M."""
        return self.total / self.n


@dataclass(frozen=True)
class Moments:
    """Moments of every cut of a network over a set of data; partial results merge.

    Attributes:
        activations: per cut mean and Gram matrix G.
        jacobians: per cut Jacobian Gram matrix M to the output. At a cut that is the output of a dense layer
            (its preactivations) this is the ledger's K.
    """

    activations: Mapping[str, ActivationMoments]
    jacobians: Mapping[str, JacobianMoments]

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of data together.

        Raises:
            DataError: the two belong to different cuts.
        """
        if list(self.activations) != list(other.activations) or list(self.jacobians) != list(other.jacobians):
            raise DataError(
                f"moments of the cuts {list(self.activations)} cannot be merged with those of {list(other.activations)}"
            )
        return Moments(
            {cut: m.merge(other.activations[cut]) for cut, m in self.activations.items()},
            {cut: m.merge(other.jacobians[cut]) for cut, m in self.jacobians.items()},
        )


@with_bar
def collect(
    net: Network,
    batches: Iterable[Batch],
    *,
    jacobians: bool = True,
    probes: int | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Moments:
    """Compute mean, G and (unless `jacobians` is False) M to the output at every cut, in one pass over the data.

    Args:
        net: the network with its cuts and behavioural loss.
        batches: re-iterable data.
        jacobians: whether to compute M.
        probes: number of random probes per data point for M, None for the exact sum over output coordinates.
        seed: seed of the probes.
        progress: called after each batch.

    Raises:
        CutError: an assumption about the model fails, see `Network.check_once`.
        DataError: no data, NaN or infinite values, inputs that do not fit the model.
    """
    net.check_once(batches)
    activations: dict[str, ActivationMoments] = {}
    n, totals = 0, list[Tensor]()
    draws = None if probes is None else Probes(probes, seed)
    for batch in read_batches(batches, "moments", progress):
        with torch.no_grad():
            trace = net.trace(batch)
        for p, (cut, value, counted) in enumerate(zip(net.cuts, trace.values, trace.counted, strict=True)):
            new = ActivationMoments.of(value, counted, grid=p in trace.grids)
            activations[cut] = activations[cut].merge(new) if cut in activations else new
        n += len(trace.output)
        if not jacobians:
            continue
        if not totals:
            totals = [torch.zeros(d, d, dtype=torch.float64, device=sums_on(net.device)) for d in net.widths]
        for cuts, _, blocks in _output_rows(net, batch, range(len(totals)), draws):
            for p, rows in zip(cuts, blocks, strict=True):
                totals[p] += _gram(rows)
    return Moments(
        {cut: map_tensors(Tensor.cpu, moments) for cut, moments in activations.items()},
        {cut: JacobianMoments(n, total.cpu()) for cut, total in zip(net.cuts, totals, strict=True)}
        if jacobians
        else {},
    )
