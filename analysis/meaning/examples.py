"""Streaming records of the values of nodes: the extreme ones, a random sample, and the histogram.

A node's values are seen batch by batch, (nodes, data points); the records need memory for what they keep alone, and do
not depend on how the data are cut into batches. Which data points are sampled depends on their number and the seed.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Around", "AroundPeaks", "Extremes", "Histogram", "Sample", "best_rows", "priorities"]

_BINS = 64  # on each side of 0


def priorities(points: Int[np.ndarray, " n"], seed: int, stream: int = 0) -> Float[np.ndarray, " n"]:
    """Return a random number in [0, 1) for each data point, which depends on its number, seed and stream alone.

    The numbers are those of SplitMix64 (Steele, Lea and Flood 2014) at state (seed, stream, point).

    >>> both = priorities(np.arange(4), 0)
    >>> np.array_equal(both[2:], priorities(np.array([2, 3]), 0)), bool((both < 1).all())
    (True, True)
    """
    start = int(np.random.SeedSequence(int(seed) % 2**64, spawn_key=(stream,)).generate_state(1, np.uint64)[0])
    with np.errstate(over="ignore"):
        z = np.uint64(start) + (points.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / 2**53


def best_rows(values: Float[Tensor, "nodes points"], k: int) -> Int[Tensor, "nodes _"]:
    """Return where the k largest values of each node are, the largest first, ties in order of the data points.

    >>> best_rows(torch.tensor([[1.0, 3.0, 2.0, 3.0, 1.0]]), 4)
    tensor([[1, 3, 2, 0]])
    """
    k = min(k, values.shape[1])
    least = values.topk(k, 1).values[:, -1:]
    above, tied = values > least, values == least
    taken = above | (tied & (tied.cumsum(1) <= k - above.sum(1, keepdim=True)))
    found = taken.nonzero()[:, 1].reshape(len(values), k)
    return found.gather(1, values.gather(1, found).sort(dim=1, descending=True, stable=True).indices)


class Extremes:
    """The k data points at which each node is largest (or smallest), with what is seen around each.

    Attributes:
        values: (nodes, up to k), the most extreme first.
        points: the numbers of the data points.
        positions: the position of each value in its data point.
        windows: (nodes, up to k, window) the node's values at the positions around; NaN where there is none.
    """

    def __init__(self, nodes: int, k: int, window: int, *, sign: int = 1) -> None:
        self.k, self.sign = k, sign
        self.values = torch.empty(nodes, 0, dtype=torch.float64, device="cpu")
        self.points = torch.empty(nodes, 0, dtype=torch.int64, device="cpu")
        self.positions = torch.empty(nodes, 0, dtype=torch.int64, device="cpu")
        self.windows = torch.empty(nodes, 0, window, dtype=torch.float64, device="cpu")

    def add(self, values: Float[Tensor, "nodes points positions"], known: Around, first: int) -> None:
        """Take a batch into account.

        Args:
            values: of the batch, at the positions that are read.
            known: which of these count, and where they are.
            first: number of its first data point.
        """
        signed = values if self.sign > 0 else -values
        own, positions = known.hidden(signed).max(-1)
        if self.values.shape[1] == self.k:  # nodes without a new extreme stay as they are
            moved = (own.amax(1) > self.sign * self.values[:, -1]).nonzero()[:, 0]
        else:
            moved = torch.arange(len(values), device="cpu")
        if not len(moved):
            return
        rows = best_rows(own[moved], self.k)
        read = positions[moved].gather(1, rows)
        parts = {
            "values": self.sign * own[moved].gather(1, rows),
            "points": rows + first,
            "positions": known.absolute(moved, rows, read),
            "windows": known.windows(values, moved, rows, read, self.windows.shape[-1]),
        }
        both = {name: torch.cat([getattr(self, name)[moved], new], 1) for name, new in parts.items()}
        order = best_rows(self.sign * both["values"], self.k)
        for name, whole in both.items():
            index = order if whole.ndim == 2 else order[..., None].expand(-1, -1, whole.shape[-1])
            chosen = whole.gather(1, index)
            if len(moved) == len(values):
                setattr(self, name, chosen)
            else:
                getattr(self, name)[moved] = chosen


class Around:
    """Which positions of a batch are read at a cut and count, and where the windows around them lie."""

    def __init__(
        self, index: slice | list[int] | Int[Tensor, " n"], mask: Tensor | None, shape: tuple[int, int], before: int
    ) -> None:
        """Set up the positions of a batch.

        Args:
            index: which positions are read, as in `Counted`.
            mask: (data points, positions read) which of them count; None where all do.
            shape: (data points, positions read).
            before: positions of a window before its own.
        """
        self.index, self.mask, self.before = index, mask, before
        self.shape = shape

    def hidden(self, values: Float[Tensor, "nodes points positions"]) -> Float[Tensor, "nodes points positions"]:
        """Put -infinity where positions do not count."""
        return values if self.mask is None else values.masked_fill(~self.mask, -torch.inf)

    def absolute(
        self, nodes: Int[Tensor, " moved"], rows: Int[Tensor, "moved k"], read: Int[Tensor, "moved k"]
    ) -> Int[Tensor, "moved k"]:
        """Return the positions in the data point of positions that are read."""
        if isinstance(self.index, Tensor):
            return self.index.cpu()[rows]
        return read if isinstance(self.index, slice) else torch.tensor(self.index, device="cpu")[read]

    def windows(
        self,
        values: Float[Tensor, "nodes points positions"],
        nodes: Int[Tensor, " moved"],
        rows: Int[Tensor, "moved k"],
        read: Int[Tensor, "moved k"],
        size: int,
    ) -> Float[Tensor, "moved k window"]:
        """Return the values around some positions, NaN where none is read or counts."""
        here = read[..., None] + torch.arange(size, device="cpu") - self.before
        there = here == read[..., None] if not isinstance(self.index, slice) else here == here
        there &= (here >= 0) & (here < values.shape[2])
        here = here.clamp(0, values.shape[2] - 1)
        if self.mask is not None:
            there &= self.mask[rows[..., None], here]
        found = values[nodes[:, None, None], rows[..., None], here].double()
        return found.masked_fill(~there, torch.nan)


class AroundPeaks(Around):
    """The windows around the largest of other values: of the energy of a module at each position, say."""

    def __init__(self, other: Float[Tensor, "nodes points positions"], known: Around) -> None:
        super().__init__(known.index, known.mask, known.shape, known.before)
        self._other = other
        self._peaks = known.hidden(other).max(-1).indices

    def hidden(self, values: Float[Tensor, "nodes points positions"]) -> Float[Tensor, "nodes points positions"]:
        """Leave the values as they are: they belong to data points."""
        return values

    def absolute(
        self, nodes: Int[Tensor, " moved"], rows: Int[Tensor, "moved k"], read: Int[Tensor, "moved k"]
    ) -> Int[Tensor, "moved k"]:
        """Return where the other values are largest."""
        return self._peaks[nodes[:, None], rows]

    def windows(
        self,
        values: Float[Tensor, "nodes points positions"],
        nodes: Int[Tensor, " moved"],
        rows: Int[Tensor, "moved k"],
        read: Int[Tensor, "moved k"],
        size: int,
    ) -> Float[Tensor, "moved k window"]:
        """Return the other values around their largest."""
        return super().windows(self._other, nodes, rows, self.absolute(nodes, rows, read), size)


class Sample:
    """A random sample of data points: those with the smallest `priorities`, whatever batches they come in.

    Attributes:
        points: the numbers of the data points in the sample, in no order.
    """

    def __init__(self, size: int, seed: int, stream: int = 0) -> None:
        self.size, self.seed, self.stream = size, seed, stream
        self.points = np.empty(0, dtype=np.int64)
        self._ranks = np.empty(0)

    def first(self, size: int) -> Int[np.ndarray, " some"]:
        """Return the data points of a smaller sample."""
        return self.points[np.argsort(self._ranks, kind="stable")[:size]]

    def add(self, first: int, n: int) -> tuple[Int[np.ndarray, " new"], Int[np.ndarray, " new"]]:
        """Draw from a batch.

        Returns:
            Rows of the batch that are taken, and the places of the sample that each of them takes.
        """
        points = np.arange(first, first + n)
        ranks = priorities(points, self.seed, self.stream)
        both = np.concatenate([self._ranks, ranks])
        held = len(self._ranks)
        kept = np.sort(np.argsort(both, kind="stable")[: self.size])
        new = kept[kept >= held] - held
        free = np.setdiff1d(np.arange(held), kept)
        places = np.concatenate([free, np.arange(held, held + len(new) - len(free))]).astype(np.int64)
        size = min(self.size, held + n)
        self.points, self._ranks = (
            np.concatenate([own, np.zeros(size - held, own.dtype)]) for own in (self.points, self._ranks)
        )
        self.points[places], self._ranks[places] = points[new], ranks[new]
        return new, places


class Histogram:
    """Counts of each node's values in bins whose width is a power of two, at least 1/64 of the unit.

    The bins cover the largest absolute value; where it grows, pairs of bins become one, so that neither order nor
    batches matter.

    Attributes:
        counts: (nodes, 128), of the bins from -64 to 64 times the width.
        exponents: (nodes,) the width is 2^exponent.
        n: number of values of each node.
    """

    def __init__(self, units: Float[np.ndarray, " nodes"]) -> None:
        least = np.where(units > 0, units, 1.0) / _BINS
        self.exponents = np.floor(np.log2(least)).astype(np.int64)
        self.counts = np.zeros((len(units), 2 * _BINS), dtype=np.int64)
        self.n = 0
        self._origin = np.zeros(len(units))  # the first values: sums about them keep the digits of the variance
        self._sums, self._squares = np.zeros(len(units)), np.zeros(len(units))
        self.smallest, self.largest = np.full(len(units), np.inf), np.full(len(units), -np.inf)

    def add(self, values: Float[np.ndarray, "nodes values"]) -> None:
        """Count values."""
        if not values.shape[1]:
            return
        if self.n == 0:
            self._origin = values[:, 0].copy()
        self.n += values.shape[1]
        from_origin = values - self._origin[:, None]
        self._sums += from_origin.sum(1)
        self._squares += np.einsum("ij,ij->i", from_origin, from_origin)
        self.smallest = np.minimum(self.smallest, values.min(1))
        self.largest = np.maximum(self.largest, values.max(1))
        self._widen(np.maximum(np.abs(self.smallest), np.abs(self.largest)))
        bins = np.floor(np.ldexp(values, -self.exponents[:, None])).astype(np.int64) + _BINS
        bins += np.arange(len(values))[:, None] * 2 * _BINS
        self.counts += np.bincount(bins.ravel(), minlength=self.counts.size).reshape(self.counts.shape)

    def _widen(self, reach: Float[np.ndarray, " nodes"]) -> None:
        """Join pairs of bins until those of each node reach as far."""
        while (narrow := np.ldexp(float(_BINS), self.exponents) <= reach).any():
            wider = np.zeros((int(narrow.sum()), 2 * _BINS), dtype=np.int64)
            wider[:, _BINS // 2 : _BINS // 2 * 3] = self.counts[narrow].reshape(len(wider), _BINS, 2).sum(2)
            self.counts[narrow] = wider
            self.exponents[narrow] += 1

    @property
    def mean(self) -> Float[np.ndarray, " nodes"]:
        """The mean of each node's values."""
        return np.asarray(self._origin + self._sums / max(self.n, 1))

    @property
    def variance(self) -> Float[np.ndarray, " nodes"]:
        """The variance of each node's values."""
        count = max(self.n, 1)
        return np.asarray(np.maximum(self._squares / count - (self._sums / count) ** 2, 0.0))

    def of(self, node: int) -> dict[str, object]:
        """Return the histogram of one node: where its bins start, their width, and the counts, without empty ends."""
        width = float(np.ldexp(1.0, self.exponents[node]))
        filled = np.flatnonzero(self.counts[node])
        first, last = (int(filled[0]), int(filled[-1])) if len(filled) else (_BINS, _BINS)
        return {
            "start": (first - _BINS) * width,
            "width": width,
            "counts": self.counts[node, first : last + 1].tolist(),
        }
