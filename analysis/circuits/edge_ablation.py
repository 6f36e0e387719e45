"""Edge ablation: the coordinates at a cut when each of its nodes sees only some nodes of the previous cut.

Node j sees x' = mean + C^+ (mask_j o f^ + (1 - mask_j) o r), with r = 0 (the mean) or another replacement of the
others; its coordinate is computed from x'. Nodes with the same mask share a run. Where the map between the two cuts has
an exact form, it is written in the coordinates of both, and only the kept columns are read.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..basis.bases import Basis
from ..network.batches import Batch, map_tensors
from ..network.network import Network
from ..network.transitions import Frame, PositionWise, Transition

__all__ = ["Receivers", "to_coordinates", "to_values"]


def to_coordinates(basis: Basis, values: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch k"]:
    """Compute coordinates C (f - mean), float64."""
    return basis.coordinates(values)


def to_values(basis: Basis, coordinates: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch d"]:
    """Compute activations mean + C^+ f^; directions that the basis dropped are at their mean."""
    return coordinates @ torch.from_numpy(basis.from_basis).T + torch.from_numpy(basis.mean)


class Receivers:
    """The nodes of one cut, and how they depend on the nodes of the previous cut."""

    def __init__(self, net: Network, earlier: Basis, later: Basis, pair: int, *, exact: bool = True) -> None:
        """Set up the cuts `pair` and `pair + 1`; without `exact` the model itself runs even where it has a form."""
        self._net, self._earlier, self._later, self._pair = net, earlier, later, pair
        self._form = _in_coordinates(net.transitions.get(pair) if exact else None, earlier, later)

    def receive(
        self,
        batch: Batch,
        coordinates: Float[Tensor, "batch s k"],
        others: Float[Tensor, "batch s k"] | None,
        mask: Bool[np.ndarray, "j k"],
        nodes: Int[np.ndarray, " m"],
    ) -> Float[Tensor, "batch t m"]:
        """Compute coordinates of some nodes, each with its row of the mask; `others` replaces unseen nodes."""
        if isinstance(self._form, PositionWise) and self._form.inner is None:
            return _linear(self._form, coordinates, others, torch.from_numpy(mask[nodes]), torch.from_numpy(nodes))
        found: list[Tensor] = [torch.empty(0, device="cpu")] * len(nodes)
        for kept, members in _groups(mask[nodes]):
            values = self._one(batch, coordinates, others, torch.from_numpy(kept), torch.from_numpy(nodes[members]))
            for member, value in zip(members.tolist(), values.unbind(-1), strict=True):
                found[member] = value
        return torch.stack(found, -1)

    def _one(
        self, batch: Batch, coordinates: Tensor, others: Tensor | None, kept: Tensor, nodes: Tensor
    ) -> Float[Tensor, "batch t m"]:
        """Compute the coordinates of nodes that see the same."""
        if self._form is not None and others is None:
            return self._form.narrowed(kept.nonzero()[:, 0], nodes).apply(coordinates[..., kept])
        seen = torch.where(kept, coordinates, torch.zeros((), device="cpu") if others is None else others)
        if self._form is not None:
            return self._form.narrowed(torch.arange(len(kept), device="cpu"), nodes).apply(seen)
        values = self._net.resume(batch, self._pair, to_values(self._earlier, seen), self._pair + 1)
        return to_coordinates(self._later, values)[..., nodes]


def _groups(mask: Bool[np.ndarray, "m k"]) -> Iterator[tuple[Bool[np.ndarray, " k"], Int[np.ndarray, " _"]]]:
    """Yield the different rows of a mask, each with the indices where it occurs."""
    rows, which = np.unique(mask, axis=0, return_inverse=True)
    for index, row in enumerate(rows):
        yield row, np.flatnonzero(which.ravel() == index)


def _linear(
    form: PositionWise, coordinates: Tensor, others: Tensor | None, mask: Tensor, nodes: Tensor
) -> Float[Tensor, "batch t m"]:
    """Compute all receivers of a linear map at once: unseen nodes are left out of each row."""
    skip, bias = (part if part is not None else torch.zeros((), device="cpu") for part in (form.skip, form.bias))
    rows = skip[nodes]
    seen = coordinates @ torch.where(mask, rows, 0.0).T + bias[nodes]
    return seen if others is None else seen + others @ torch.where(mask, 0.0, rows).T


def _in_coordinates(form: Transition | None, earlier: Basis, later: Basis) -> Transition | None:
    """Return the form as a map from coordinates to coordinates, float64 on the CPU."""
    if form is None:
        return None
    mean, columns, target, rows = (
        torch.from_numpy(array) for array in (earlier.mean, earlier.from_basis, later.mean, later.to_basis)
    )
    there: Transition = map_tensors(Tensor.cpu, form)
    return there.in_coordinates(Frame(mean, columns, target, rows))
