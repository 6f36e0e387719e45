"""Null graphs by plain loops over dense matrices, with the same random draws as the fast ones."""

from __future__ import annotations

import numpy as np


def _shuffle(order, generator):
    for i in range(len(order) - 1, 0, -1):
        k = int(generator.random() * (i + 1))
        order[i], order[k] = order[k], order[i]


def _sweep(x, generator, width, off, row_position, column_position):
    """Exchange entries of each row with the next one, in place; `off` are the columns' deviations from their totals."""
    rows = list(range(len(x)))
    _shuffle(rows, generator)
    done = 0
    for r, i in enumerate(rows):
        k = rows[(r + 1) % len(rows)]
        last = min(row_position[i], row_position[k])
        columns = [c for c in range(x.shape[1]) if column_position[c] <= last and (x[i, c] > 0 or x[k, c] > 0)]
        _shuffle(columns, generator)
        for left, right in zip(columns[0::2], columns[1::2], strict=False):
            a, b = x[i, [left, right]].tolist()
            c, d = (0.0, 0.0) if i == k else x[k, [left, right]].tolist()
            if (a > 0) + (c > 0) != (b > 0) + (d > 0) or (a == b and c == d):
                continue
            change = b + d - a - c
            before = off[left] ** 2 + off[right] ** 2
            energy = (off[left] + change) ** 2 + (off[right] - change) ** 2 - before
            if energy <= 0 or generator.random() < np.exp(-energy / (2 * width**2)):
                x[i, [left, right]] = b, a
                if i != k:
                    x[k, [left, right]] = d, c
                off[left] += change
                off[right] -= change
                done += 1
    return done


def null_matrices(matrices, pairs, position, generator, exchanges=30.0):
    """Exchange within the matrices (later, earlier) of all pairs of cuts, then restore the totals of all nodes."""
    nulls = [np.array(x) for x in matrices]
    edges = np.concatenate([x[x > 0] for x in nulls])
    width = 0.5 * edges.std() + 1e-9 * edges.max()
    of_earlier, of_later = np.zeros(len(position)), np.zeros(len(position))
    done = 0
    for _ in range(500):
        for x, (a, b) in zip(nulls, pairs, strict=True):
            done += _sweep(x, generator, width, of_earlier[a], position[b], position[a])
            done += _sweep(x.T, generator, width, of_later[b], -position[a], -position[b])
        if done >= exchanges * len(edges):
            break
    wanted = totals(matrices, pairs, len(position))
    for _ in range(100):
        factors = []
        for side in (0, 1):
            have = totals(nulls, pairs, len(position))[side]
            factors.append(np.divide(wanted[side], have, out=np.ones_like(have), where=have > 0))
            for x, pair in zip(nulls, pairs, strict=True):
                x *= factors[0][pair[0]] if side == 0 else factors[1][pair[1]][:, None]
        if np.abs(factors[0] - 1).max() < 1e-6:
            break
    return nulls


def totals(matrices, pairs, n):
    out, into = np.zeros(n), np.zeros(n)
    for x, (a, b) in zip(matrices, pairs, strict=True):
        out[a] += x.sum(0)
        into[b] += x.sum(1)
    return out, into
