"""How long bases and strengths will take, from backward passes of one batch that are timed beforehand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from ..basis.cotangents import Halves, output_cotangents
from ..basis.jacobians import disjoint_positions
from ..devices.memory import BLOCK
from ..network.batches import Batch, batch_size
from ..network.forward import Trace
from ..network.network import Network

__all__ = ["Forecast", "forecast"]


@dataclass(frozen=True)
class Forecast:
    """Predicted seconds of the backward passes of an analysis.

    Attributes:
        basis: of the moments of all bases, with the fewest probes where these are estimated.
        basis_most: the same with the most probes.
        strengths: of the strengths of all pairs of cuts, each of `coordinates` of the later cut.
        pairs: the part of each pair of cuts in `strengths`.
    """

    basis: float
    basis_most: float
    strengths: float
    pairs: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """The least that bases and strengths take."""
        return self.basis + self.strengths

    def __str__(self) -> str:
        """Say it in words.

        >>> print(Forecast(100.0, 100.0, 80.0, (80.0,)))
        passes of bases and strengths will take about 3 min
        >>> print(Forecast(600.0, 9600.0, 600.0, (600.0,)))
        passes of bases and strengths will take about 20 min, up to 170 min if the importance is hard to estimate
        """
        least, most = (round(s / 60) for s in (self.seconds, self.basis_most + self.strengths))
        more = f", up to {most} min if the importance is hard to estimate" if most > 1.2 * least else ""
        return f"passes of bases and strengths will take about {max(least, 1)} min{more}"


def forecast(
    network: Network,
    batches: Iterable[Batch],
    *,
    kind: str = "global",
    probes: tuple[int, int] | None = None,
    points: int = 0,
) -> Forecast:
    """Predict the seconds that the passes of an analysis take, from one block of each kind on the first batch.

    Seconds of a block times the number of blocks and of batches. Exact sums take a cotangent per output and position,
    estimates two halves of the outputs per probe; strengths one per coordinate of the later cut, or with exact sums one
    per coordinate and position. Kept coordinates are at most the features, and the data points and positions. Checks,
    sums of moments (of small models as much as the passes), rotation and the search for modules are left out.

    Args:
        network: the network.
        batches: re-iterable data.
        probes: the fewest and the most random probes per data point; None for exact sums.
        kind: kind of basis: "global" takes moments of the output's Jacobian, "local" passes as the strengths do, others
            none.
        points: points of the attributions, for strengths by attribution, which are exact sums; 0 for Jacobians.
    """
    first = next(iter(batches))
    shares = sum(map(batch_size, batches)) / batch_size(first)
    low = high = 0.0
    if kind == "global":
        low, high = (shares * s for s in _of_outputs(network, first, probes))
    elif kind == "local":
        low = high = shares * sum(_of_pairs(network, first, shares, exact=probes is None))
    exact = probes is None or points > 0
    pairs = [shares * max(points, 1) * s for s in _of_pairs(network, first, shares, exact=exact)]
    return Forecast(low, high, sum(pairs), tuple(pairs))


def _of_outputs(network: Network, batch: Batch, probes: tuple[int, int] | None) -> tuple[float, float]:
    """Return the least and the most seconds of one batch for the moments of the output's Jacobian at all cuts."""
    seconds = 0.0
    for trace, served in network.output_traces(batch, range(len(network.cuts))):
        output = trace.output.detach()
        if probes is None:
            labels, cotangents = next(output_cotangents(network, output, None, trace.output_counted))
            blocks = output.shape[1] * output.shape[2] / len(labels)
        else:
            _, sides = Halves(0).probe(0).cotangents(network, output, trace.output_counted, 0)
            cotangents, blocks = sides[0][1], 2.0
        reached = [p for p in served if _reaches(trace, trace.output, p)]
        seconds += blocks * _timed(partial(network.vjps, trace, trace.output, reached, cotangents)) if reached else 0.0
    least, most = (1, 1) if probes is None else probes
    return least * seconds, most * seconds


def _of_pairs(network: Network, batch: Batch, shares: float, *, exact: bool) -> Iterator[float]:
    """Yield the seconds of one batch for the strengths of each pair of cuts; 0 where the transition has a formula."""
    trace = network.trace(batch)
    for p in range(len(network.cuts) - 1):
        target = trace.values[p + 1]
        if p in network.transitions or not _reaches(trace, target, p):
            yield 0.0
            continue
        n, positions, width = target.shape
        rows = min(width, int(shares * n * positions))
        if exact and positions > 1:
            together = disjoint_positions(network, trace, p, rows)
            rows *= positions if together is None else len(together)
        block = torch.zeros(1, *target.shape, dtype=target.dtype, device=target.device)
        block[..., 0] = 1
        size = max(1, min(rows, BLOCK // max(target.numel(), 1)))
        cotangents = block.expand(size, *block.shape[1:])
        yield rows / size * _timed(partial(network.vjp, trace, target, p, cotangents))


def _reaches(trace: Trace, target: torch.Tensor, cut: int) -> bool:
    return target.requires_grad and all(entry.requires_grad for entry in trace.entries[cut])


def _timed(run: Callable[[], object]) -> float:
    """Return the seconds of a second run: the first one reserves memory and compiles kernels."""
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
