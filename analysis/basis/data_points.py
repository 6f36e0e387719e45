"""How many data points are enough: the importance of directions, compared between parts of more and more of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..network.batches import Batch, batch_size, take_points
from ..network.network import Network
from ..progress import ProgressCallback
from .jacobians import output_moments

__all__ = ["Enough", "SomePoints", "enough_points", "random_points"]

_FIRST = 128  # data points of the first comparison, those of the next ones are twice as many

_PARTS = 8  # of the data points, whose means are compared


class SomePoints:
    """Some of the data points of batches, in their order; re-iterable, batch after batch.

    >>> [batch.tolist() for batch in SomePoints([torch.arange(4), torch.arange(4, 6)], np.array([5, 1, 0]))]
    [[0, 1], [5]]
    """

    def __init__(self, batches: Iterable[Batch], index: Int[np.ndarray, " n"]) -> None:
        """Keep the batches, and the numbers of the data points in them."""
        self._batches, self._index = batches, np.sort(index)

    def __iter__(self) -> Iterator[Batch]:
        start = 0
        for batch in self._batches:
            stop = start + batch_size(batch)
            here = self._index[np.searchsorted(self._index, start) : np.searchsorted(self._index, stop)] - start
            if len(here):
                yield take_points(batch, torch.from_numpy(here))
            start = stop


def random_points(batches: Iterable[Batch], n: int, seed: int) -> SomePoints:
    """Return n data points drawn without replacement; those of a smaller n are among those of a larger one."""
    return SomePoints(batches, _order(sum(map(batch_size, batches)), seed)[:n])


class Enough(NamedTuple):
    """How many data points were taken, and the relative error of the importance that comes from their number.

    With fewer than 8 data points the error is not known (None).
    """

    taken: int
    error: float | None


def enough_points(
    network: Network,
    batches: Iterable[Batch],
    columns: Mapping[int, Float[Tensor, "d k"]],
    *,
    tolerance: float,
    seed: int,
    progress: ProgressCallback | None = None,
) -> Enough:
    """Take more data points until the importance of the directions is known.

    With M the second moments of the output's Jacobian, from one random probe per data point, V its eigenvectors and M_a
    those of P = 8 parts of the data points, the relative standard error is

        sum_i sqrt(sum_a (v_i^T (M_a - M) v_i)^2 / (P (P - 1))) / tr M.

    Directions may also fit the data points at hand alone, where these are few. With M_1 and M_2 the moments of two
    halves, and V the eigenvectors of M_1, that error is half of sum_i |v_i^T (M_1 - M_2) v_i| / tr M_2, averaged over
    both roles. The larger of the two errors decides, and of several cuts the largest.

    Args:
        network: the network.
        batches: re-iterable data.
        columns: for each index of a cut the coordinates (d, k) of the Jacobian.
        tolerance: the error at which no more data points are taken.
        seed: of the draw of data points, and of the probes.
        progress: called after each batch.
    """
    total = sum(map(batch_size, batches))
    order = _order(total, seed)
    sums = {
        p: torch.zeros(_PARTS, c.shape[1], c.shape[1], dtype=torch.float64, device="cpu") for p, c in columns.items()
    }
    sizes = torch.zeros(_PARTS, dtype=torch.float64, device="cpu")
    taken, error = 0, cast("float | None", None)
    while taken < total and (error is None or error > tolerance):
        new = order[taken : min(max(_FIRST, 2 * taken), total)]
        for part, index in enumerate(new[part::_PARTS] for part in range(_PARTS)):
            if len(index):
                drawn = int(np.random.SeedSequence(seed % 2**64, spawn_key=(3, taken, part)).generate_state(1)[0])
                some = SomePoints(batches, index)
                found = output_moments(network, some, columns, None, probes=1, seed=drawn, progress=progress)
                for p, moments in found.items():
                    sums[p][part] += moments.gram * len(index)
            sizes[part] += len(index)
        taken += len(new)
        error = max((_error(value, sizes) for value in sums.values()), default=0.0) if taken >= _PARTS else error
    return Enough(taken, error)


def _order(total: int, seed: int) -> Int[np.ndarray, " n"]:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed % 2**64, spawn_key=(2,)))).permutation(total)


def _error(sums: Float[Tensor, "parts k k"], sizes: Float[Tensor, " parts"]) -> float:
    """Return the error of `enough_points` for one cut, given the sums over the data points of each part."""
    whole, means = sums.sum(0) / sizes.sum(), sums / sizes[:, None, None]
    vectors = torch.linalg.eigh(whole).eigenvectors
    off = torch.einsum("di,pde,ei->pi", vectors, means - whole, vectors)
    standard = (off.square().sum(0) / (_PARTS * (_PARTS - 1))).sqrt().sum() / whole.trace().clamp_min(1e-300)
    half = _PARTS // 2
    one, other = (sums[part].sum(0) / sizes[part].sum() for part in (slice(half), slice(half, _PARTS)))
    errors = []
    for fitted, held_out in ((one, other), (other, one)):
        vectors = torch.linalg.eigh(fitted).eigenvectors
        here, there = (torch.einsum("di,de,ei->i", vectors, m, vectors) for m in (fitted, held_out))
        errors.append(float((here - there).abs().sum() / there.sum().clamp_min(1e-300)))
    return max(float(standard), sum(errors) / 4)
