"""Free directions of synchronised units, and how many of them are independent.

A change p_a -> p_a + A p_a of the units of a block, undone by the layers that read them, moves the parameters of
several layers. What a move dW of one layer does beyond what the layer loses anyway is the tensor J dW f in
span(J) (x) span(f); where gating is counted, one tensor for each block of the layer's units, J_b dW_b f over the points
where the block is on. Directions are independent of each other and of all that is lost otherwise as far as these
tensors are, which their Gram matrix tells: a sum over tensors of (U^T U) * (V^T V), columns of U and V the factors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Moves", "Part", "independent"]

_INDEPENDENT = 1e-13  # eigenvalues of the Gram matrix of unit directions above this share of the largest


@dataclass(frozen=True)
class Moves:
    """Directions of one layer's units: dp = left (right . (p, 1)), and behind it df = left' (right' . (f, 1)).

    Attributes:
        left: (units, directions).
        right: (units + 1, directions), the constant unit last.
        gain: (units,) f = gain p of units in blocks that are always on: the slope for silent ones; 1 for all others.
            left' = gain left, right' = right / gain.
        undo: share of W left that the reader takes away: 1, or (1 + slope) / 2 for a pair of complementary blocks,
            which write the same from both sides.
    """

    left: Float[Tensor, "units _"]
    right: Float[Tensor, "inputs _"]
    gain: Float[Tensor, " units"]
    undo: Float[Tensor, " _"]

    def behind(self) -> tuple[Float[Tensor, "units _"], Float[Tensor, "inputs _"]]:
        """left', with what is to be undone of it, and right'."""
        per_input = torch.cat([self.gain, self.gain.new_ones(1)])
        return self.gain[:, None] * self.left * self.undo, self.right / per_input[:, None]

    def and_more(self, other: Moves) -> Moves:
        """Both sets of directions."""
        left, right, undo = (torch.cat([getattr(self, n), getattr(other, n)], -1) for n in ("left", "right", "undo"))
        return Moves(left, right, self.gain, undo)


@dataclass(frozen=True)
class Part:
    """One tensor space of a layer: factors of J and f, and what the moves of each layer's units are there.

    Attributes:
        jacobian, inputs: triangular factors (r, units of the part) and (r, n_inputs).
        terms: per offset in the list of all directions, the moves of that layer as factors (u, v) of the tensor.
    """

    jacobian: Float[Tensor, "r units"]
    inputs: Float[Tensor, "s n_inputs"]
    terms: tuple[tuple[int, Float[Tensor, "units _"], Float[Tensor, "n_inputs _"]], ...]


def independent(parts: Iterable[Part], total: int) -> int:
    """Rank of `total` directions in all tensor spaces together.

    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> independent([Part(one, one, ((0, one, one), (1, 2 * one, one)))], 2)
    1
    """
    gram = torch.zeros(total, total, dtype=torch.float64)
    for part in parts:
        if not part.terms:
            continue
        u = [part.jacobian @ left for _, left, _ in part.terms]
        v = [part.inputs @ right for _, _, right in part.terms]
        columns = torch.cat([torch.arange(start, start + left.shape[1]) for start, left, _ in part.terms])
        joined_u, joined_v = torch.cat(u, 1), torch.cat(v, 1)
        gram[columns[:, None], columns] += (joined_u.T @ joined_u) * (joined_v.T @ joined_v)
    length = gram.diagonal().sqrt()
    kept = length > 1e-13 * length.max() if total else torch.zeros(0, dtype=torch.bool)
    if not kept.any():
        return 0
    scaled = (gram / length / length[:, None])[kept][:, kept]
    values = torch.linalg.eigvalsh(scaled)
    return int((values > _INDEPENDENT * values[-1]).sum())
