"""Slow, dense, looped float64 versions of the formulas, to compare the fast ones with."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]
"""From the activations of one data point (positions, width) at a cut to those at a later cut, or to the output."""


def gram(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and centred Gram matrix of (data, positions, width), averaged over both."""
    flat = values.reshape(-1, values.shape[-1])
    mean = flat.mean(0)
    total = torch.zeros(flat.shape[1], flat.shape[1], dtype=torch.float64)
    for f in flat:
        total += torch.outer(f - mean, f - mean)
    return mean, total / len(flat)


def jacobians(forward: Map, values: Tensor) -> list[Tensor]:
    """One Jacobian (t_out, d_out, t_in, d_in) per data point."""
    return [torch.autograd.functional.jacobian(forward, f) for f in values]


def jacobian_gram(forward: Map, values: Tensor, weigh: Map | None = None) -> Tensor:
    """M = 1/n sum_x sum_ts J_ts^T F J_ts, with F = I or Fisher's matrix of the output (`weigh` gives the output)."""
    d = values.shape[-1]
    total = torch.zeros(d, d, dtype=torch.float64)
    for f, j in zip(values, jacobians(forward, values), strict=True):
        metric = torch.eye(j.shape[1], dtype=torch.float64)
        for t in range(j.shape[0]):
            if weigh is not None:
                p = weigh(f)[t].softmax(-1)
                metric = torch.diag(p) - torch.outer(p, p)
            for s in range(j.shape[2]):
                total += j[t, :, s].T @ metric @ j[t, :, s]
    return total / len(values)


def jacobian_strengths(
    forward: Map, values: Tensor, to_later: np.ndarray, from_earlier: np.ndarray, importance: np.ndarray
) -> np.ndarray:
    """w_ji = sqrt(E_x[sum_ts J^_{tj,si}^2] Lambda_i), looped."""
    squared = np.zeros((to_later.shape[0], from_earlier.shape[1]))
    for j in jacobians(forward, values):
        for t in range(j.shape[0]):
            for s in range(j.shape[2]):
                squared += (to_later @ j[t, :, s].numpy() @ from_earlier) ** 2
    return np.sqrt(squared / len(values) * importance)


def attribution_strengths(
    forward: Map,
    values: Tensor,
    to_later: np.ndarray,
    to_earlier: np.ndarray,
    from_earlier: np.ndarray,
    mean: np.ndarray,
    nodes: list[float],
    weights: list[float],
) -> np.ndarray:
    """w_ji = sqrt(E_x[sum_t (sum_s int J^_{tj,si} d alpha f^_si)^2]), with the given rule for the integral."""
    squared = np.zeros((to_later.shape[0], from_earlier.shape[1]))
    centre = torch.from_numpy(mean)
    for f in values:
        coordinates = (f.numpy() - mean) @ to_earlier.T
        path = [torch.autograd.functional.jacobian(forward, centre + a * (f - centre)) for a in nodes]
        integral = sum(w * j for w, j in zip(weights, path, strict=True))
        for t in range(integral.shape[0]):
            effect = np.zeros_like(squared)
            for s in range(integral.shape[2]):
                effect += (to_later @ integral[t, :, s].numpy() @ from_earlier) * coordinates[s]
            squared += effect**2
    return np.sqrt(squared / len(values))


def brute_force_angle(s11: np.ndarray, s22: np.ndarray, s12: np.ndarray, points: int = 20001) -> float:
    """The angle in (-pi/4, pi/4] that maximises the varimax criterion of two coordinates, on a grid."""
    best, best_value = 0.0, -np.inf
    for theta in np.linspace(-np.pi / 4, np.pi / 4, points):
        c, s = np.cos(theta), np.sin(theta)
        first = c * c * s11 + 2 * c * s * s12 + s * s * s22
        second = s * s * s11 - 2 * c * s * s12 + c * c * s22
        value = float((first**2).sum() + (second**2).sum())
        if value > best_value:
            best, best_value = theta, value
    return best
