"""Second moments of the output's Jacobian from random halves of the outputs, in rounds until they are stable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..devices.device import summed, sums_on
from ..errors import GraphError
from ..network.batches import Batch, batch_size, read_batches
from ..network.network import Network
from ..progress import ProgressCallback, Watched
from ..results import by_value
from .cotangents import Halves

__all__ = ["SecondMoments", "half_moments"]

_ROUNDS = (2, 2, 4, 8, 16, 32)  # probes per data point that each round adds


@by_value
@dataclass(frozen=True)
class SecondMoments:
    """Second moments of a Jacobian in some columns, as a sum over outputs and per output.

    Attributes:
        total: sum_o E[J_oi J_oi'] (k, k); None where `per_output` holds it.
        per_output: for each group of columns E[J_oi J_oi'] (o, g, g); with random halves the difference of two halves
            of the outputs, one o per split.
        probes: how many were taken per data point; None for exact sums.
        error: relative standard error of the eigenvalues of the total, weighted by them, from the rounds of probes.
    """

    total: Float[Tensor, "k k"] | None
    per_output: list[Float[Tensor, "o _ _"]]
    probes: int | None = None
    error: float | None = None

    @property
    def gram(self) -> Float[Tensor, "k k"]:
        """The sum over outputs; where only moments per output are known, of the first group."""
        return self.per_output[0].sum(0) if self.total is None else self.total


def half_moments(
    network: Network,
    batches: Iterable[Batch],
    columns: Mapping[int, Float[Tensor, "d k"]],
    groups: Mapping[int, Sequence[slice]],
    *,
    probes: int | None = None,
    tolerance: float | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> dict[int, SecondMoments]:
    """Estimate the sum over outputs, and the differences between random halves of them; see `output_moments`.

    The standard error of an eigenvalue v^T M v is taken from the rounds, weighted by their probes.

    Beside a tolerance `probes` is the most that are taken, whatever error is reached.

    Raises:
        GraphError: neither a number of probes nor a tolerance was given; or 64 probes per data point do not reach the
            tolerance, and no number was given.
    """
    sums = _Sums(network, columns, groups, Halves(seed))
    if tolerance is None:
        if probes is None:
            raise GraphError("neither probes nor a tolerance were given: expected one of them")
        first = max(1, probes // 2)
        for more in (first, probes - first) if probes > 1 else (1,):
            sums.add(batches, more, progress)
        return sums.moments()
    most = sum(_ROUNDS) if probes is None else probes
    for more in _ROUNDS:
        sums.add(batches, min(more, most - sums.count), progress)
        if sums.count == most or (len(sums.rounds) > 1 and sums.error() <= tolerance):
            break
    if probes is None and not sums.error() <= tolerance:
        raise GraphError(
            f"after {most} probes per data point the importance of the directions is known to {sums.error():.1%}, "
            f"worse than the tolerance {tolerance:.1%}: give more data points, or a larger tolerance"
        )
    return sums.moments()


class _Sums:
    """Sums over data points and probes."""

    def __init__(
        self,
        network: Network,
        columns: Mapping[int, Float[Tensor, "d k"]],
        groups: Mapping[int, Sequence[slice]],
        halves: Halves,
    ) -> None:
        self._network, self._groups, self._halves = network, groups, halves
        self._at = sums_on(network.device)
        self._columns = {p: c.to(self._at) for p, c in columns.items()}
        self._drawn = torch.zeros(halves.splits, dtype=torch.float64, device="cpu")
        self._differences: dict[int, list[Tensor]] = {}
        for p, c in columns.items():
            sizes = [len(range(*group.indices(c.shape[1]))) for group in groups[p]]
            self._differences[p] = [self._zeros(halves.splits, g, g) for g in sizes]
        self._n = 0
        self.rounds: list[tuple[int, dict[int, Tensor]]] = []

    def add(self, batches: Iterable[Batch], probes: int, progress: ProgressCallback | None) -> None:
        """Take more probes at every data point."""
        before = self.count
        draws = [self._halves.probe(i) for i in range(before, before + probes)]
        totals = {p: self._zeros(c.shape[1], c.shape[1]) for p, c in self._columns.items()}
        n = 0
        watched = Watched(progress)
        for batch in read_batches(batches, f"Jacobians, {probes} probes", watched):
            for trace, served in self._network.output_traces(batch, self._columns):
                output, counted = trace.output.detach(), trace.output_counted
                for drawn, draw in enumerate(draws):
                    watched.part(drawn, len(draws), "probes of a batch")
                    splits, sides = draw.cotangents(self._network, output, counted, n)
                    if served[0] == next(iter(self._columns)):
                        self._drawn += torch.bincount(splits, minlength=self._halves.splits)
                    for sign, cotangents in sides:
                        rows = self._network.vjps(trace, trace.output, served, cotangents)
                        for p, found in zip(served, rows, strict=True):
                            self._take(totals[p], p, sign, splits.to(self._at), found[0])
            n += batch_size(batch)
        self._n = n
        self.rounds.append((probes, {p: total.cpu() / (n * probes) for p, total in totals.items()}))

    def _take(self, total: Tensor, p: int, sign: int, splits: Tensor, rows: Float[Tensor, "batch positions d"]) -> None:
        columns = self._columns[p]
        seen = summed(rows @ columns.to(rows)) if rows.dtype == torch.float32 else summed(rows) @ columns
        flat = seen.flatten(0, 1)
        total += flat.T @ flat
        for difference, group in zip(self._differences[p], self._groups[p], strict=True):
            part = seen[..., group]
            difference.index_add_(0, splits, part.transpose(1, 2) @ part, alpha=sign)

    @property
    def count(self) -> int:
        """The number of probes per data point so far."""
        return sum(probes for probes, _ in self.rounds)

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.float64, device=self._at)

    def _total(self, p: int) -> Tensor:
        return torch.stack([totals[p] * (probes / self.count) for probes, totals in self.rounds]).sum(0)

    def error(self) -> float:
        """Return the largest relative standard error among the cuts, see `SecondMoments.error`."""
        return max(self._error(p) for p in self._columns)

    def _error(self, p: int) -> float:
        total, count = self._total(p), sum(probes for probes, _ in self.rounds)
        vectors = torch.linalg.eigh(total).eigenvectors
        values = torch.einsum("di,de,ei->i", vectors, total, vectors)
        variance = torch.zeros_like(values)
        for probes, totals in self.rounds:
            there = torch.einsum("di,de,ei->i", vectors, totals[p], vectors)
            variance += probes * (there - values).square()
        error = (variance / ((len(self.rounds) - 1) * count)).sqrt()
        return float(error.sum() / values.sum().clamp_min(1e-300))

    def moments(self) -> dict[int, SecondMoments]:
        """Return the means."""
        scale = 1 / self._drawn.clamp_min(1.0)[:, None, None]
        count, several = sum(probes for probes, _ in self.rounds), len(self.rounds) > 1
        return {
            p: SecondMoments(
                self._total(p),
                [difference.cpu() * scale for difference in self._differences[p]],
                count,
                self._error(p) if several else None,
            )
            for p in self._columns
        }
