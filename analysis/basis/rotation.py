"""Rotation inside near-degenerate eigenspaces, which makes interactions sparse where the basis is free.

Where eigenvalues of M~ are (nearly) equal the interaction basis may rotate inside their eigenspace (paper, section
6.2). Two equally important modules always produce such eigenvalues, and the plain basis mixes them. The rotation
maximises the varimax criterion of the mean squared influence of coordinate i on output o,

    sum_o sum_i ( E_x[J_oi^2] )^2,

by Jacobi sweeps with a closed form per pair of coordinates.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
from jaxtyping import Float

from ..compiled import compiled
from ..errors import NumericalError

__all__ = ["degenerate_runs", "pair_angle", "rotate", "sparsity"]

_MAX_SWEEPS = 200

_ANGLE = 1e-9  # radians; a sweep has converged if it turns every pair by less

_TURNED = 1e-4  # radians; squared strengths change by its square, 1e-8: no warning up to here

_RISING = 1e-6  # the last sweep may raise the criterion by at most this share

_FLAT = 1e-13  # a pair whose criterion varies by less than this share is not turned


def sparsity(moments: Float[np.ndarray, "o k k"]) -> float:
    """Compute the varimax criterion sum_o sum_i (E[J_oi^2])^2.

    >>> sparsity(np.array([[[2.0, 0.0], [0.0, 1.0]]]))
    5.0
    """
    return float((np.diagonal(moments, axis1=1, axis2=2) ** 2).sum())


def pair_angle(
    s11: Float[np.ndarray, " o"], s22: Float[np.ndarray, " o"], s12: Float[np.ndarray, " o"], noise: float = 0.0
) -> float:
    """Compute the angle that maximises the criterion of two coordinates: i <- cos i + sin j, j <- -sin i + cos j.

    theta = atan2(2 sum_o d s12, sum_o (d^2 - s12^2)) / 4 with d = (s11 - s22) / 2; zero where the criterion is flat
    up to rounding; `noise` is the error of the moments.

    >>> mixed = np.array([0.5]), np.array([0.5]), np.array([0.5])  # one output, influenced by (i + j) / sqrt(2)
    >>> round(pair_angle(*mixed) / np.pi, 12)
    0.25
    """
    return float(_angle(s11, s22, s12, noise))


@compiled
def _angle(s11: np.ndarray, s22: np.ndarray, s12: np.ndarray, noise: float) -> float:
    sine = cosine = scale = 0.0
    for o in range(len(s11)):
        d = (s11[o] - s22[o]) / 2
        sine += 2 * d * s12[o]
        cosine += d * d - s12[o] * s12[o]
        scale += s11[o] * s11[o] + s22[o] * s22[o]
    if math.hypot(sine, cosine) <= max(_FLAT * scale, noise * noise):
        return 0.0
    return math.atan2(sine, cosine) / 4


def rotate(
    moments: Float[np.ndarray, "o k k"], sweeps: int = _MAX_SWEEPS, *, enough: float = 0.0
) -> Float[np.ndarray, "k k"]:
    """Compute the orthogonal matrix that maximises the varimax criterion, by Jacobi sweeps over pairs of columns.

    No turn lowers the criterion. If pairs still turn in the last sweep, a warning gives the largest angle.

    Args:
        moments: E_x[J_oi J_oi'] per output o.
        sweeps: largest number of sweeps.
        enough: share of the criterion; the sweeps end with the first that raises it by less. Estimated moments do not
            fix the rotation further.

    Raises:
        NumericalError: the last sweep still raised the criterion by more than 1e-6 of its value.

    >>> c, s = np.cos(0.3), np.sin(0.3)
    >>> turn = np.array([[c, -s], [s, c]])
    >>> sparse = np.stack([np.diag([1.0, 0.0]), np.diag([0.0, 1.0])])
    >>> found = turn @ rotate(turn.T @ sparse @ turn)
    >>> bool(np.allclose(abs(found), np.eye(2)))
    True
    """
    k = moments.shape[1]
    t = moments.transpose(1, 2, 0).copy()  # (i, i', o): the rows of a pair lie together
    turn = np.eye(k)
    noise = 1e-14 * float(np.abs(t).max(initial=0.0))
    before = reached = _criterion(t)
    largest = 0.0
    for _ in range(sweeps):
        largest, before = float(_sweep(t, turn, noise)), reached
        if largest <= _ANGLE:
            return turn
        reached = _criterion(t)
        if reached - before < enough * reached:
            return turn
    if reached - before > _RISING * reached:
        raise NumericalError(
            f"the rotation of {k} coordinates has not converged: sweep {sweeps}, the last, still turned a pair by "
            f"{largest:.2g} rad and raised the criterion by {(reached - before) / reached:.2g} of its value; take a "
            "smaller gap, so that runs are shorter, or rotation='none'"
        )
    if largest > _TURNED:
        warnings.warn(
            f"the rotation of {k} coordinates ended after {sweeps} sweeps, the last of which turned a pair by "
            f"{largest:.2g} rad: coordinates are known to about that angle",
            stacklevel=2,
        )
    return turn


def _criterion(t: Float[np.ndarray, "k k o"]) -> float:
    return float((np.einsum("iio->io", t) ** 2).sum())


@compiled
def _sweep(t: np.ndarray, turn: np.ndarray, noise: float) -> float:
    """Turn every pair once, in place, and return the largest angle; t is (k, k, o), turn (k, k)."""
    k, n_outputs = t.shape[0], t.shape[2]
    largest = 0.0
    for i in range(k - 1):
        for j in range(i + 1, k):
            theta = _angle(t[i, i], t[j, j], t[i, j], noise)
            if abs(theta) <= _ANGLE:
                continue
            largest = max(largest, abs(theta))
            c, s = math.cos(theta), math.sin(theta)
            for m in range(k):
                for o in range(n_outputs):
                    first, second = t[i, m, o], t[j, m, o]
                    t[i, m, o], t[j, m, o] = c * first + s * second, c * second - s * first
            for m in range(k):
                for o in range(n_outputs):
                    first, second = t[m, i, o], t[m, j, o]
                    t[m, i, o], t[m, j, o] = c * first + s * second, c * second - s * first
                first, second = turn[m, i], turn[m, j]
                turn[m, i], turn[m, j] = c * first + s * second, c * second - s * first
    return largest


def degenerate_runs(values: Float[np.ndarray, " k"], gap: float) -> list[slice]:
    """Find runs of consecutive eigenvalues (descending) whose relative gap (a - b) / a is below `gap`.

    >>> degenerate_runs(np.array([4.0, 3.9, 1.0]), 0.25)
    [slice(0, 2, None), slice(2, 3, None)]
    """
    starts = [0, *(i for i in range(1, len(values)) if values[i - 1] - values[i] >= gap * values[i - 1]), len(values)]
    return [slice(a, b) for a, b in zip(starts[:-1], starts[1:], strict=True)]
