"""Check autograd's gradient against finite differences, one block of parameters at a time.

The gradient is not the derivative where a model changes it: `nn.Embedding(padding_idx=...)` and `scale_grad_by_freq`,
straight-through estimators, `detach`, hooks on gradients, an `autograd.Function` with a custom backward. Samplers and
counts of directions that use such a gradient give wrong numbers without a warning.

Central differences at several steps are compared with the gradient, per block along random directions:

    (f(theta + h u) - f(theta - h u)) / 2h   against   u . grad f(theta)

A block passes where they agree at one step: rounding spoils small steps, and curvature and the kinks of ReLU spoil
large ones, but at no step does a wrong gradient agree with the difference. A block fails if all its directions
disagree and the differences converge.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .devices.device import lacks_memory, too_large
from .errors import DataError, InputError

__all__ = [
    "AWAY",
    "DIFFERENTIABLE",
    "Disagreement",
    "batched_gradients",
    "describe_disagreements",
    "gradient_disagreements",
]

_DIRECTIONS = 2
_SETTLED = 0.03  # largest distance of two differences relative to their distance from the gradient
_SHOWN = 6


@dataclass(frozen=True)
class _Precision:
    """Steps relative to the size of a block, the relative difference that is allowed, and that of rounding."""

    steps: tuple[float, ...]
    tolerance: float
    rounding: float


_PRECISIONS = {
    torch.float64: _Precision((1e-6, 1e-5, 1e-7, 1e-4, 1e-3), 1e-3, 1e-13),
    torch.float32: _Precision((1e-2, 3e-3, 1e-3, 3e-2), 0.05, 1e-5),
}


DIFFERENTIABLE = tuple(_PRECISIONS)
"""Types of numbers in which derivatives are tested."""

AWAY = {torch.float64: 1e-2, torch.float32: 1e-1}
"""How far from a point to test, relative to its size: off kinks that it may sit on, beyond the reach of most steps."""


@dataclass(frozen=True)
class Disagreement:
    """A block of parameters along which autograd's gradient is not the derivative.

    Attributes:
        name: name of the block.
        by_autograd: slope along a random direction of the block, by the gradient.
        by_differences: the same slope by a central difference.
    """

    name: str
    by_autograd: float
    by_differences: float


def gradient_disagreements(
    function: Callable[[Mapping[str, Tensor]], Tensor],
    parameters: Mapping[str, Tensor],
    gradient: Mapping[str, Tensor] | None = None,
    *,
    seed: int = 0,
) -> tuple[Disagreement, ...]:
    """Find the blocks of parameters along which the gradient of a function is not its derivative.

    Test a behavioural loss away from theta*, where its gradient is 0; any network away from points that kinks may
    sit on (biases of exactly 0); and in float64 where the model allows it: in float32 only differences of more than
    5 % are seen.

    Args:
        function: scalar function of named tensors; it must not change them.
        parameters: point at which it is tested, in float64 or float32.
        gradient: gradient to test, per name; None for `torch.autograd.grad`.
        seed: seed of the directions.

    Raises:
        InputError: the parameters are in another dtype.

    >>> def straight_through(named):  # rounds, and tells autograd that it does not
    ...     w = named["w"]
    ...     return (w + (w.round() - w).detach()).sum() + named["b"].square().sum()
    >>> at = {"w": torch.tensor([0.3, 1.2]).double(), "b": torch.ones(3).double()}
    >>> [(found.name, found.by_differences) for found in gradient_disagreements(straight_through, at)]
    [('w', 0.0)]
    """
    for name, value in parameters.items():
        if value.dtype not in _PRECISIONS:
            raise InputError(f"{name!r} is {value.dtype}: derivatives are tested in torch.float64 or torch.float32")
    named = {name: value.detach() for name, value in parameters.items()}
    with torch.enable_grad():
        slopes = _autograd(function, named) if gradient is None else gradient
    draws = torch.Generator().manual_seed(seed)
    typical = _typical(torch.cat([value.flatten() for value in named.values()])) if named else 1.0
    found = []
    for name, value in named.items():
        size = _typical(value) or typical or 1.0
        for _ in range(_DIRECTIONS):
            u = size * torch.randn(value.shape, generator=draws, dtype=torch.float64, device="cpu").to(value)
            slope = float((slopes[name] * u).sum())
            nearest = _nearest(_along(function, named, name, u), slope, _PRECISIONS[value.dtype])
            if nearest is None:
                break
            last = Disagreement(name, slope, nearest)
        else:
            found.append(last)
    return tuple(found)


def batched_gradients(output: Tensor, by: Sequence[Tensor], cotangents: Float[Tensor, "v ..."]) -> list[Tensor | None]:
    """Compute vector-Jacobian products for a block of cotangents; None for tensors without dependence.

    They are computed at once, or one after another where backward functions cannot be vectorised (custom ones, some
    recurrent ones). A block that memory does not suffice for is computed in halves, with a warning.

    Raises:
        DataError: memory does not suffice for a single cotangent.

    >>> x = torch.ones(2, requires_grad=True)
    >>> batched_gradients(x * x, [x], torch.eye(2))
    [tensor([[2., 0.],
            [0., 2.]])]
    """
    options: dict[str, Any] = {"retain_graph": True, "allow_unused": True}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
            return list(torch.autograd.grad(output, by, cotangents, is_grads_batched=True, **options))
    except Exception as error:  # any error: a backward function of the caller's is vectorised
        too_many = lacks_memory(error)
    if too_many:
        return _in_halves(output, by, cotangents)
    try:
        rows = [torch.autograd.grad(output, by, cotangent, **options) for cotangent in cotangents]
    except Exception as error:
        if lacks_memory(error):
            raise DataError(too_large(cotangents.shape[1], "a backward pass")) from error
        raise
    return [None if parts[0] is None else torch.stack(parts) for parts in zip(*rows, strict=True)]


def _in_halves(output: Tensor, by: Sequence[Tensor], cotangents: Float[Tensor, "v ..."]) -> list[Tensor | None]:
    """Compute a block of vector-Jacobian products in two blocks."""
    half = len(cotangents) // 2
    if not half:
        raise DataError(too_large(cotangents.shape[1], "a backward pass"))
    warnings.warn(
        f"memory does not suffice for {len(cotangents)} backward passes at once: they are taken in halves, slower",
        RuntimeWarning,
        stacklevel=3,
    )
    first, second = (batched_gradients(output, by, part) for part in (cotangents[:half], cotangents[half:]))
    return [None if a is None or b is None else torch.cat([a, b]) for a, b in zip(first, second, strict=True)]


def describe_disagreements(found: Sequence[Disagreement]) -> str:
    """Describe which blocks disagree, with both slopes.

    >>> describe_disagreements([Disagreement("embed.weight", 0.5, 2.0)])
    "'embed.weight' (slope along a random direction by autograd 0.5, by finite differences 2)"
    """
    said = [
        f"{one.name!r} (slope along a random direction by autograd {one.by_autograd:.4g}, by finite differences "
        f"{one.by_differences:.4g})"
        for one in found[:_SHOWN]
    ]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(said) + more


def _autograd(function: Callable[[Mapping[str, Tensor]], Tensor], named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute the gradient with `torch.autograd.grad`; 0 where the function does not depend on a tensor."""
    leaves = {name: value.clone().requires_grad_() for name, value in named.items()}
    value = function(leaves)
    if not value.requires_grad:
        return {name: torch.zeros_like(part) for name, part in named.items()}
    slopes = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, slopes, strict=True))


def _along(
    function: Callable[[Mapping[str, Tensor]], Tensor], named: Mapping[str, Tensor], name: str, u: Tensor
) -> Callable[[float], float]:
    """Return the function on a line through the point, along one block."""

    def line(h: float) -> float:
        with torch.no_grad():
            return float(function({**named, name: named[name] + h * u}))

    return line


def _nearest(line: Callable[[float], float], slope: float, precision: _Precision) -> float | None:
    """Return the central difference nearest to the slope; None if one agrees with it, or they do not converge."""
    differences: list[float] = []
    for h in precision.steps:
        ahead, behind = line(h), line(-h)
        difference = (ahead - behind) / (2 * h)
        if not math.isfinite(difference):
            continue
        rounding = precision.rounding * max(abs(ahead), abs(behind)) / h
        if abs(difference - slope) <= precision.tolerance * max(abs(difference), abs(slope)) + rounding:
            return None
        differences.append(difference)
    if len(differences) < 2:
        return None
    nearest = min(differences, key=lambda difference: abs(difference - slope))
    spread = min(abs(a - b) for a, b in pairwise(differences))
    return nearest if spread <= _SETTLED * abs(nearest - slope) else None


def _typical(value: Tensor) -> float:
    """Compute the root mean square of the entries."""
    return float(value.square().mean().sqrt()) if value.numel() else 0.0
