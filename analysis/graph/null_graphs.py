"""Null graphs: random graphs in which each node keeps its degree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from ..compiled import compiled
from ..edges import Edges, dense, summed
from .expectation import Places

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
    if min(costs.shape) < 2 or not (costs > 0).any():
        return np.array(costs, dtype=np.float64)
    later, earlier = costs.shape
    places = Places((slice(0, earlier), slice(earlier, earlier + later)), ((0, 1),))
    null = _drawn(Edges.of([costs], places.pairs), places, generator, exchanges)
    return dense(null.blocks(places.pairs)[0])


def null_costs(costs: Edges, places: Places, *, generator: np.random.Generator, exchanges: float = 30.0) -> Edges:
    """Draw random costs for all pairs of cuts, in which every node keeps its number of edges and its totals.

    Between two cuts see `degree_preserving_null`. Where edges skip cuts, weights move within a pair of cuts, and each
    node keeps its total from all earlier and its total to all later cuts: what it loses in one pair it may gain in
    another. Where nodes have positions, weights move to possible edges only, see `expectation`.

    >>> places = Places((slice(0, 2), slice(2, 4), slice(4, 5)), ((0, 1), (0, 2), (1, 2)))
    >>> matrices = [np.array([[1.0, 2.0], [0.0, 4.0]]), np.array([[3.0, 0.0]]), np.array([[1.0, 5.0]])]
    >>> null = null_costs(Edges.of(matrices, places.pairs), places, generator=np.random.default_rng(0))
    >>> [total.round(6).tolist() for total in null.totals(places.n)]
    [[4.0, 6.0, 1.0, 5.0, 0.0], [0.0, 0.0, 3.0, 4.0, 9.0]]
    """
    if not len(costs):
        return costs
    if places.joint:
        return _drawn(costs, places, generator, exchanges)
    parts = []
    for part, (a, b) in zip(costs.parts(), places.pairs, strict=True):
        alone = Places((a, b), ((0, 1),))
        own = Edges(costs.earlier[part], costs.later[part], costs.weight[part], np.array([0, part.stop - part.start]))
        free = len(own) and min(a.stop - a.start, b.stop - b.start) > 1
        parts.append(_drawn(own, alone, generator, exchanges) if free else own)
    return Edges(
        np.concatenate([own.earlier for own in parts]),
        np.concatenate([own.later for own in parts]),
        np.concatenate([own.weight for own in parts]),
        costs.starts,
    )


def _drawn(costs: Edges, places: Places, generator: np.random.Generator, exchanges: float) -> Edges:
    """Exchange weights within pairs of cuts, and restore the totals of nodes over all pairs."""
    width = 0.5 * float(costs.weight.std()) + 1e-9 * float(costs.weight.max())
    n = int(max(own.stop for own in places.cuts))
    where = np.zeros(n, dtype=np.int64) if places.positions is None else places.positions
    ends = np.array([[a.start, a.stop, b.start, b.stop] for a, b in places.pairs])
    earlier, later, weight = costs.earlier.copy(), costs.later.copy(), costs.weight.copy()
    _exchanged(earlier, later, weight, costs.starts, ends, where, generator, width, exchanges * len(costs))
    return _rescaled(replace(costs, earlier=earlier, later=later, weight=weight), costs, n)


def _rescaled(null: Edges, costs: Edges, n: int) -> Edges:
    """Restore the totals of all nodes, over all pairs of cuts, by alternate rescaling."""
    wanted, weight = costs.totals(n), null.weight
    for _ in range(_MAX_RESCALINGS):
        largest = 0.0
        for side, ends in enumerate((null.earlier, null.later)):
            total = summed(ends, weight, n)
            factors = np.divide(wanted[side], total, out=np.ones_like(total), where=total > 0)
            weight = weight * factors[ends]
            largest = max(largest, float(np.abs(factors - 1).max())) if side == 0 else largest
        if largest < _RESCALED:
            break
    return replace(null, weight=weight)


@compiled
def _shuffle(order: np.ndarray, generator: np.random.Generator) -> None:
    """Shuffle in place, five times as fast as `generator.shuffle` in compiled code."""
    for i in range(len(order) - 1, 0, -1):
        k = int(generator.random() * (i + 1))
        order[i], order[k] = order[k], order[i]


@compiled
def _merge(
    start: np.ndarray,
    column: np.ndarray,
    weight: np.ndarray,
    i: int,
    k: int,
    every: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
) -> int:
    """Spread rows i and k over all columns; write the columns where either has an edge to `every`, and count them.

    Where k is i, the second row is empty.
    """
    found = 0
    m, o = start[i], start[k] if i != k else start[k + 1]
    while m < start[i + 1] or o < start[k + 1]:
        c = len(first)
        if m < start[i + 1]:
            c = column[m]
        if o < start[k + 1]:
            c = min(c, column[o])
        if m < start[i + 1] and column[m] == c:
            first[c] = weight[m]
            m += 1
        if o < start[k + 1] and column[o] == c:
            second[c] = weight[o]
            o += 1
        every[found] = c
        found += 1
    return found


@compiled
def _part(
    start: np.ndarray,
    column: np.ndarray,
    weight: np.ndarray,
    i: int,
    k: int,
    every: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
) -> None:
    """Write the rows that `_merge` spread back, and empty them."""
    m, o = start[i], start[k]
    for c in every:
        if first[c] > 0:
            column[m], weight[m], first[c] = c, first[c], 0.0
            m += 1
        if second[c] > 0:
            column[o], weight[o], second[c] = c, second[c], 0.0
            o += 1


@compiled
def _exchange(
    start: np.ndarray,
    column: np.ndarray,
    weight: np.ndarray,
    generator: np.random.Generator,
    width: float,
    deviation: np.ndarray,
    row_position: np.ndarray,
    column_position: np.ndarray,
) -> int:
    """Run one sweep in place: each row with the next in a random order, its columns in random disjoint pairs.

    The matrix has sparse rows with ascending columns. Columns whose position is not after those of both rows can have
    edges with them.
    """
    n_rows, n_columns = len(start) - 1, len(deviation)
    done = 0
    rows = np.arange(n_rows)
    every, columns = np.empty(n_columns, dtype=np.int64), np.empty(n_columns, dtype=np.int64)
    first, second = np.zeros(n_columns), np.zeros(n_columns)
    _shuffle(rows, generator)
    for r in range(n_rows):
        i, k = rows[r], rows[(r + 1) % n_rows]
        found = _merge(start, column, weight, i, k, every, first, second)
        last = min(row_position[i], row_position[k])
        used = 0
        for c in every[:found]:
            if column_position[c] <= last:
                columns[used] = c
                used += 1
        _shuffle(columns[:used], generator)
        for m in range(used // 2):
            left, right = columns[2 * m], columns[2 * m + 1]
            a, b, c, d = first[left], first[right], second[left], second[right]
            if (a > 0) + (c > 0) != (b > 0) + (d > 0) or (a == b and c == d):
                continue
            change = b + d - a - c
            new_left, new_right = deviation[left] + change, deviation[right] - change
            energy = new_left**2 - deviation[left] ** 2 + new_right**2 - deviation[right] ** 2
            if energy <= 0 or generator.random() < np.exp(-energy / (2 * width**2)):
                first[left], first[right], second[left], second[right] = b, a, d, c
                deviation[left], deviation[right] = new_left, new_right
                done += 1
        _part(start, column, weight, i, k, every[:found], first, second)
    return done


@compiled
def _turned(
    start: np.ndarray, column: np.ndarray, weight: np.ndarray, n_columns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Transpose sparse rows; columns of the result ascend."""
    new_start = np.zeros(n_columns + 1, dtype=np.int64)
    for c in column:
        new_start[c + 1] += 1
    for c in range(n_columns):
        new_start[c + 1] += new_start[c]
    place = new_start[:-1].copy()
    new_column, new_weight = np.empty_like(column), np.empty_like(weight)
    for i in range(len(start) - 1):
        for m in range(start[i], start[i + 1]):
            c = column[m]
            new_column[place[c]], new_weight[place[c]] = i, weight[m]
            place[c] += 1
    return new_start, new_column, new_weight


@compiled
def _exchanged(
    earlier: np.ndarray,
    later: np.ndarray,
    weight: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    position: np.ndarray,
    generator: np.random.Generator,
    width: float,
    wanted: float,
) -> None:
    """Run sweeps in place between rows, which move the totals of columns, and between columns, until there were enough.

    The deviation of a node from its total is shared by its pairs of cuts.

    Args:
        earlier: the earlier node of each edge, pair after pair, by later and then by earlier node.
        later: the later nodes.
        weight: the costs.
        starts: where the edges of each pair begin, and the end.
        ends: of each pair where the nodes of the earlier cut start and end, and those of the later one.
        position: of each node.
        generator: draws what is exchanged.
        width: see `degree_preserving_null`.
        wanted: number of exchanges after which sweeps end.
    """
    of_columns, of_rows = np.zeros(len(position)), np.zeros(len(position))
    done = 0
    for _ in range(_MAX_SWEEPS):
        for p in range(len(ends)):
            first, last, below, above = ends[p]
            edges = slice(starts[p], starts[p + 1])
            start = np.zeros(above - below + 1, dtype=np.int64)
            for j in later[edges]:
                start[j - below + 1] += 1
            for j in range(above - below):
                start[j + 1] += start[j]
            column, own = earlier[edges] - first, weight[edges].copy()
            rows, columns = position[below:above], position[first:last]
            done += _exchange(start, column, own, generator, width, of_columns[first:last], rows, columns)
            start, column, own = _turned(start, column, own, last - first)
            done += _exchange(start, column, own, generator, width, of_rows[below:above], -columns, -rows)
            start, column, own = _turned(start, column, own, above - below)
            m = starts[p]
            for j in range(above - below):
                for k in range(start[j], start[j + 1]):
                    earlier[m], later[m], weight[m] = column[k] + first, j + below, own[k]
                    m += 1
        if done >= wanted:
            break
