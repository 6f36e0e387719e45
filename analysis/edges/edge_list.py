"""All edges of a graph as one list; sums over a graph, its null graphs and the search for modules go over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from ..results import by_value
from .matrices import Block, entries, stored

__all__ = ["Edges", "summed"]


def summed(index: Int[np.ndarray, " k"], values: Float[np.ndarray, " k"], n: int) -> Float[np.ndarray, " n"]:
    """Sum values by index, 0, 1, ..., n - 1.

    >>> summed(np.array([2, 0, 2]), np.array([1.0, 2.0, 3.0]), 4).tolist()
    [2.0, 0.0, 4.0, 0.0]
    """
    return np.bincount(index, values, minlength=n).astype(np.float64, copy=False)  # integers where there is nothing


@by_value
@dataclass(frozen=True)
class Edges:
    """Edges between cuts, pair of cuts after pair; of a pair by later and then by earlier node.

    Attributes:
        earlier, later: the nodes of each edge, all nodes numbered cut after cut; int32.
        weight: strength, cost or signed weight, not 0; float64.
        starts: where the edges of each pair begin, and the end.
    """

    earlier: Int[np.ndarray, " edges"]
    later: Int[np.ndarray, " edges"]
    weight: Float[np.ndarray, " edges"]
    starts: Int[np.ndarray, " ends"]

    @classmethod
    def of(cls, blocks: Sequence[Block], pairs: Sequence[tuple[slice, slice]]) -> Edges:
        """List the entries of matrices that are not 0.

        Args:
            blocks: (later, earlier), one per pair of cuts.
            pairs: the ranges of the nodes of the earlier and the later cut.

        >>> edges = Edges.of([np.array([[0.0, 2.0], [3.0, 0.0]])], [(slice(0, 2), slice(2, 4))])
        >>> edges.earlier.tolist(), edges.later.tolist(), edges.weight.tolist()
        ([1, 0], [2, 3], [2.0, 3.0])
        """
        parts = [entries(block) for block in blocks]
        shifted = [
            ((columns + a.start).astype(np.int32), (rows + b.start).astype(np.int32), values)
            for (rows, columns, values), (a, b) in zip(parts, pairs, strict=True)
        ]
        starts = np.cumsum([0, *(len(values) for *_, values in parts)])
        earlier, later, weight = (np.concatenate(column) for column in zip(*shifted, strict=True))
        return cls(earlier, later, weight, starts)

    def __len__(self) -> int:
        """The number of edges."""
        return len(self.weight)

    @property
    def pair(self) -> Int[np.ndarray, " edges"]:
        """The number of each edge's pair of cuts."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @property
    def total(self) -> float:
        """The sum of all weights."""
        return float(self.weight.sum())

    def parts(self) -> Iterator[slice]:
        """Yield the range of the edges of each pair of cuts."""
        for start, end in pairwise(self.starts.tolist()):
            yield slice(start, end)

    def weighing(self, weight: Float[np.ndarray, " edges"]) -> Edges:
        """Return the edges with other weights; those of weight 0 are left out."""
        return replace(self, weight=weight).where(weight != 0)

    def where(self, kept: Bool[np.ndarray, " edges"]) -> Edges:
        """Return some of the edges."""
        if kept.all():
            return self
        starts = np.concatenate([[0], np.cumsum(kept)])[self.starts]
        return Edges(self.earlier[kept], self.later[kept], self.weight[kept], starts)

    def among(self, kept: Bool[np.ndarray, " n"]) -> Edges:
        """Return the edges between the nodes of a mask, which are numbered anew."""
        if kept.all():
            return self
        number = (np.cumsum(kept) - 1).astype(np.int32)
        inside = self.where(kept[self.earlier] & kept[self.later])
        return replace(inside, earlier=number[inside.earlier], later=number[inside.later])

    def totals(self, n: int) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Sum the weights of each of n nodes to later cuts, and from earlier ones."""
        out, into = (summed(ends, self.weight, n) for ends in (self.earlier, self.later))
        return out, into

    def between(self, labels: Int[np.ndarray, " n"], count: int) -> Float[np.ndarray, "later earlier"]:
        """Sum the weights by (later label, earlier label); labels are 0, 1, ..., or -1 for nodes that do not count.

        >>> edges = Edges.of([np.array([[0.0, 2.0], [3.0, 0.0]])], [(slice(0, 2), slice(2, 4))])
        >>> edges.between(np.array([0, 1, 1, 0]), 2).tolist()
        [[3.0, 0.0], [0.0, 2.0]]
        """
        later, earlier, weight = labels[self.later].astype(np.int64), labels[self.earlier], self.weight
        if labels.min(initial=0) < 0:
            known = (later >= 0) & (earlier >= 0)
            later, earlier, weight = later[known], earlier[known], weight[known]
        return summed(later * count + earlier, weight, count * count).reshape(count, count)

    def blocks(self, pairs: Sequence[tuple[slice, slice]]) -> list[Block]:
        """Return the matrices (later, earlier) of each pair of cuts, sparse where less than a tenth is filled."""
        found = []
        for part, (a, b) in zip(self.parts(), pairs, strict=True):
            places = self.later[part] - b.start, self.earlier[part] - a.start
            rows = np.concatenate([[0], np.cumsum(np.bincount(places[0], minlength=b.stop - b.start))])
            shape = (b.stop - b.start, a.stop - a.start)
            found.append(stored(csr_array((self.weight[part], places[1], rows), shape=shape)))
        return found
