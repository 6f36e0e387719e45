"""Free directions of synchronised units, and the number of them that are independent.

A change p_a -> p_a + A p_a of the units of a block, undone by the layers that read them, moves the parameters of
several layers. The effect of a move dW of one layer, up to directions lost for other reasons, is the tensor J dW f in
span(J) (x) span(f); where gating is counted, one tensor for each block of the layer's units, J_b dW_b f over the points
where the block is on. Directions are independent of each other and of all other lost directions as far as these
tensors are independent. Their Gram matrix shows that: a sum over tensors of (U^T U) * (V^T V), columns of U and V the
factors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..linalg import RowSpace
from ..results import by_value

__all__ = ["Moves", "Part", "independent", "independent_up_to"]

_ROUNDING = 1e-14  # eigenvalues of the Gram matrix of n unit directions are exact to n times this

_WORK = 10**12  # floating point operations, about a minute on two cores


@by_value
@dataclass(frozen=True)
class Moves:
    """Directions of one layer's units: dp = left (right . (p, 1)), and after it df = left' (right' . (f, 1)).

    Attributes:
        left: (units, directions).
        right: (units + 1, directions), the constant unit last.
        gain: (units,) for units in blocks that are always on f = gain p, the slope for silent ones; 1 for all others.
            left' = gain left, right' = right / gain.
        undo: share of W left that the reader subtracts: 1, or (1 + slope) / 2 for a pair of complementary blocks, both
            of which write the same.
    """

    left: Float[Tensor, "units _"]
    right: Float[Tensor, "inputs _"]
    gain: Float[Tensor, " units"]
    undo: Float[Tensor, " _"]

    def behind(self) -> tuple[Float[Tensor, "units _"], Float[Tensor, "inputs _"]]:
        """Return left', times the share to undo, and right'."""
        per_input = torch.cat([self.gain, self.gain.new_ones(1)])
        return self.gain[:, None] * self.left * self.undo, self.right / per_input[:, None]

    def and_more(self, other: Moves) -> Moves:
        """Return both sets of directions together."""
        left, right, undo = (torch.cat([getattr(self, n), getattr(other, n)], -1) for n in ("left", "right", "undo"))
        return Moves(left, right, self.gain, undo)


@by_value
@dataclass(frozen=True)
class Part:
    """One tensor space of a layer: the factors of J and f, and the moves in it.

    Attributes:
        jacobian, inputs: triangular factors (r, units of the part) and (r, n_inputs).
        terms: moves as (their places in the list of all directions, factors u and v of the tensor); a direction may
            come several times, its tensor is the sum.
    """

    jacobian: Float[Tensor, "r units"]
    inputs: Float[Tensor, "s n_inputs"]
    terms: tuple[tuple[Int[Tensor, " _"], Float[Tensor, "units _"], Float[Tensor, "n_inputs _"]], ...]


def independent(parts: Iterable[Part], total: int, expected: int, tolerance: float = 1e-10) -> int:
    """Compute the rank of `total` directions in all tensor spaces together, at most `expected`.

    First the Gram matrix of the directions, scaled to length 1, is used. If it gives fewer than expected, the tensors
    themselves are written out, because a Gram matrix loses singular values below 1e-8 of the largest. This is done up
    to 10^12 operations; beyond that the rank of the Gram matrix is a lower bound.

    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> terms = (torch.tensor([0]), one, one), (torch.tensor([1]), 2 * one, one)
    >>> independent([Part(one, one, terms)], 2, expected=2)
    1
    """
    factors = [_factors(part) for part in parts if part.terms]
    gram = _gram(factors, total)
    length = gram.diagonal().sqrt()
    kept = length > 1e-13 * length.max() if total else torch.zeros(0, dtype=torch.bool, device="cpu")
    if not kept.any():
        return 0
    found = min(_rank(gram), expected)
    work = sum(len(u) * len(v) for _, u, v in factors) * 2.5 * total**2
    if found == expected or work > _WORK:
        return found
    space = RowSpace(int(kept.sum()))
    for columns, u, v in factors:
        for row in u:
            tensor = torch.zeros(len(v), total, dtype=torch.float64, device="cpu")
            tensor.index_add_(1, columns, row * v / length[columns].clamp_min(torch.finfo(torch.float64).tiny))
            space.add(tensor[:, kept])
    return min(space.rank(tolerance=tolerance), expected)


def independent_up_to(parts: Iterable[Part], ends: Sequence[int]) -> list[int]:
    """Compute lower bounds of the ranks of the first `end` directions, for several ends, from their Gram matrix."""
    gram = _gram([_factors(part) for part in parts if part.terms], ends[-1] if ends else 0)
    return [_rank(gram[:end, :end]) for end in ends]


def _gram(factors: Sequence[tuple[Tensor, Tensor, Tensor]], total: int) -> Float[Tensor, "total total"]:
    gram = torch.zeros(total, total, dtype=torch.float64, device="cpu")
    for columns, u, v in factors:
        gram.index_put_((columns[:, None], columns[None]), (u.T @ u) * (v.T @ v), accumulate=True)
    return gram


def _rank(gram: Float[Tensor, "k k"]) -> int:
    """Count the eigenvalues above rounding, directions scaled to length 1."""
    length = gram.diagonal().sqrt()
    kept = length > 1e-13 * length.max() if len(gram) else torch.zeros(0, dtype=torch.bool, device="cpu")
    if not kept.any():
        return 0
    values = torch.linalg.eigvalsh((gram / length / length[:, None])[kept][:, kept])
    return int((values > _ROUNDING * len(values)).sum())


def _factors(part: Part) -> tuple[Int[Tensor, " k"], Float[Tensor, "r k"], Float[Tensor, "s k"]]:
    """Return the directions that move the part, and the factors of their tensors."""
    columns = torch.cat([where for where, _, _ in part.terms])
    u = torch.cat([part.jacobian @ left for _, left, _ in part.terms], 1)
    return columns, u, torch.cat([part.inputs @ right for _, _, right in part.terms], 1)
