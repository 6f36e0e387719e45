"""Null graphs: random graphs in which each node keeps its degree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ..compiled import compiled
from .expectation import Places, node_totals

__all__ = ["degree_preserving_null", "null_costs"]

_MAX_SWEEPS = 500

_MAX_RESCALINGS = 100

_RESCALED = 1e-6


def degree_preserving_null(
    costs: Float[np.ndarray, "later earlier"], *, generator: np.random.Generator, exchanges: float = 30.0
) -> Float[np.ndarray, "later earlier"]:
    """Draw a random matrix of costs in which every node keeps its number of edges and its total.

    Weights move by checkerboard exchanges: for two rows and two columns, the two entries of each row change
    places if both columns keep their number of edges (an edge against an absent one, or edges among each
    other, so a dense matrix mixes as well as a sparse one). Row totals stay exact;
    column totals are held by accepting with probability min(1, exp(-change of sum_j (k_j - k_j^0)^2 / (2
    s^2))), with s half the standard deviation of the weights. Sweeps, for rows and for columns, go on until
    there were `exchanges` per edge (30 bring the correlation with the graph to that of the totals alone; at
    a tenth of it, null graphs keep so much of the graph that small graphs never look modular); alternate
    rescaling of rows and columns then restores all totals (to 1e-6; where the edges leave no freedom, as in one draw in
    eight of a graph of 30 by 30 nodes with 90 edges, a total may be off by more than 1 %).

    Keeping both numbers and totals calibrates the test. On 20 graphs without modules (uniform, sparse, with
    hubs, log-additive strengths; dense and not) the largest excess of the real quality stayed below 2
    standard deviations; without the condition on numbers of edges it went up to 30 on graphs with hubs.

    >>> x = np.array([[2.0, 0.0, 1.0], [0.0, 1.0, 3.0]])
    >>> null = degree_preserving_null(x, generator=np.random.default_rng(0))
    >>> (null > 0).sum(axis=1).tolist(), (null > 0).sum(axis=0).tolist(), null.sum(axis=1).round(6).tolist()
    ([2, 2], [1, 1, 2], [3.0, 4.0])
    """
    null = np.array(costs, dtype=np.float64, order="C")
    if min(null.shape) < 2 or not (null > 0).any():
        return null
    width = 0.5 * float(null[null > 0].std()) + 1e-9 * float(null.max())
    null = _exchanged(null, generator, width, exchanges * np.count_nonzero(null))
    rows, columns = costs.sum(axis=1), costs.sum(axis=0)
    for _ in range(_MAX_RESCALINGS):
        factors = np.divide(columns, null.sum(axis=0), out=np.ones_like(columns), where=columns > 0)
        null *= factors
        null *= np.divide(rows, null.sum(axis=1), out=np.ones_like(rows), where=rows > 0)[:, None]
        if np.abs(factors - 1).max() < _RESCALED:
            break
    return null


def null_costs(
    costs: Sequence[Float[np.ndarray, "_ _"]],
    places: Places,
    *,
    generator: np.random.Generator,
    exchanges: float = 30.0,
) -> list[Float[np.ndarray, "_ _"]]:
    """Draw random costs for all pairs of cuts, in which every node keeps its number of edges and its totals.

    Between two cuts see `degree_preserving_null`. Where edges skip cuts, weights move within a pair of cuts, and each
    node keeps its total from all earlier and its total to all later cuts: what it loses in one pair it may gain in
    another. Where nodes have positions, weights move to possible edges only, see `expectation`.

    >>> places = Places((slice(0, 2), slice(2, 4), slice(4, 5)), ((0, 1), (0, 2), (1, 2)))
    >>> costs = [np.array([[1.0, 2.0], [0.0, 4.0]]), np.array([[3.0, 0.0]]), np.array([[1.0, 5.0]])]
    >>> null = null_costs(costs, places, generator=np.random.default_rng(0))
    >>> (null[0].sum(0) + null[1].sum(0)).round(6).tolist(), null[0].sum(1).round(6).tolist()
    ([4.0, 6.0], [3.0, 4.0])
    """
    if not places.joint:
        return [degree_preserving_null(x, generator=generator, exchanges=exchanges) for x in costs]
    nulls = [np.array(x, dtype=np.float64, order="C") for x in costs]
    every = np.concatenate([x[x > 0] for x in nulls])
    if not len(every):
        return nulls
    width = 0.5 * float(every.std()) + 1e-9 * float(every.max())
    where = np.zeros(places.n, dtype=np.int64) if places.positions is None else places.positions
    ends = np.array([[a.start, a.stop, b.start, b.stop] for a, b in places.pairs])
    flat = np.concatenate([x.ravel() for x in nulls])
    _exchanged_jointly(flat, ends, where, generator, width, exchanges * len(every))
    sizes = np.cumsum([x.size for x in nulls])[:-1]
    nulls = [part.reshape(x.shape) for part, x in zip(np.split(flat, sizes), nulls, strict=True)]
    _rescale(nulls, costs, places)
    return nulls


def _rescale(nulls: Sequence[np.ndarray], costs: Sequence[np.ndarray], places: Places) -> None:
    """Restore the totals of all nodes, over all pairs of cuts, by alternate rescaling in place."""
    wanted = node_totals(costs, places)
    for _ in range(_MAX_RESCALINGS):
        largest = 0.0
        for side in (0, 1):
            total = node_totals(nulls, places)[side]
            factors = np.divide(wanted[side], total, out=np.ones_like(total), where=total > 0)
            for x, pair in zip(nulls, places.pairs, strict=True):
                own = factors[pair[side]]
                x *= own if side == 0 else own[:, None]
            largest = max(largest, float(np.abs(factors - 1).max())) if side == 0 else largest
        if largest < _RESCALED:
            break


@compiled
def _shuffle(order: np.ndarray, generator: np.random.Generator) -> None:
    """Shuffle in place, five times as fast as `generator.shuffle` in compiled code."""
    for i in range(len(order) - 1, 0, -1):
        k = int(generator.random() * (i + 1))
        order[i], order[k] = order[k], order[i]


@compiled
def _exchange(
    x: np.ndarray,
    generator: np.random.Generator,
    width: float,
    deviation: np.ndarray,
    row_position: np.ndarray,
    column_position: np.ndarray,
) -> int:
    """Run one sweep in place: each row with the next in a random order, its columns in random disjoint pairs.

    Columns whose position is not after those of both rows can have edges with them.
    """
    n_rows, n_columns = x.shape
    done = 0
    rows, columns = np.arange(n_rows), np.empty(n_columns, dtype=np.int64)
    _shuffle(rows, generator)
    for r in range(n_rows):
        i, k = rows[r], rows[(r + 1) % n_rows]
        used = 0  # columns where neither row has an edge have nothing to exchange
        last = min(row_position[i], row_position[k])
        for column in range(n_columns):
            if column_position[column] <= last and (x[i, column] > 0 or x[k, column] > 0):
                columns[used] = column
                used += 1
        _shuffle(columns[:used], generator)
        for m in range(used // 2):
            left, right = columns[2 * m], columns[2 * m + 1]
            a, b, c, d = x[i, left], x[i, right], x[k, left], x[k, right]
            if (a > 0) + (c > 0) != (b > 0) + (d > 0) or (a == b and c == d):
                continue
            change = b + d - a - c
            new_left, new_right = deviation[left] + change, deviation[right] - change
            energy = new_left**2 - deviation[left] ** 2 + new_right**2 - deviation[right] ** 2
            if energy <= 0 or generator.random() < np.exp(-energy / (2 * width**2)):
                x[i, left], x[i, right], x[k, left], x[k, right] = b, a, d, c
                deviation[left], deviation[right] = new_left, new_right
                done += 1
    return done


@compiled
def _exchanged(x: np.ndarray, generator: np.random.Generator, width: float, wanted: float) -> np.ndarray:
    """Run sweeps between rows, which move the totals of columns, and between columns, until there were enough."""
    done, of_columns, of_rows = 0, np.zeros(x.shape[1]), np.zeros(x.shape[0])
    rows, columns = np.zeros(x.shape[0], dtype=np.int64), np.zeros(x.shape[1], dtype=np.int64)
    for _ in range(_MAX_SWEEPS):
        done += _exchange(x, generator, width, of_columns, rows, columns)
        x = np.ascontiguousarray(x.T)
        done += _exchange(x, generator, width, of_rows, columns, rows)
        x = np.ascontiguousarray(x.T)
        if done >= wanted:
            break
    return x


@compiled
def _exchanged_jointly(
    flat: np.ndarray,
    ends: np.ndarray,
    position: np.ndarray,
    generator: np.random.Generator,
    width: float,
    wanted: float,
) -> None:
    """Run sweeps in place over all pairs of cuts, each node's deviation from its totals shared by its pairs.

    Args:
        flat: all matrices (later, earlier), one after the other.
        ends: of each pair where the nodes of the earlier cut start and end, and those of the later one.
        position: of each node.
        generator: draws what is exchanged.
        width: see `degree_preserving_null`.
        wanted: number of exchanges after which sweeps end.
    """
    of_columns, of_rows = np.zeros(len(position)), np.zeros(len(position))
    done = 0
    for _ in range(_MAX_SWEEPS):
        start = 0
        for p in range(len(ends)):
            first, last, below, above = ends[p]
            n_rows, n_columns = above - below, last - first
            x = flat[start : start + n_rows * n_columns].reshape(n_rows, n_columns)
            start += n_rows * n_columns
            rows, columns = position[below:above], position[first:last]
            done += _exchange(x, generator, width, of_columns[first:last], rows, columns)
            turned = np.ascontiguousarray(x.T)
            done += _exchange(turned, generator, width, of_rows[below:above], -columns, -rows)
            x[:] = turned.T
        if done >= wanted:
            break
