"""Edge ablation: the coordinates at a cut when each of its nodes sees only some nodes of the previous cut.

Node j sees x' = mean + C^+ (mask_j o f^ + (1 - mask_j) o r), with r = 0 (the mean) or another replacement of the
others; its coordinate is computed from x'. Masks are booleans, or, where edges are cut in part, numbers from 0 to 1.
Nodes with the same mask share a run. Where the map between the two cuts has an exact form, it is written in the
coordinates of both, and only the kept columns are read.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ..basis.bases import Basis
from ..network.batches import Batch, map_tensors, take_points
from ..network.network import Network
from ..network.transitions import Frame, PositionWise, Transition

__all__ = ["Receivers", "to_coordinates", "to_values"]

_AT_ONCE = 2**24  # largest number of inputs of receivers that are held at once


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
        mask: Shaped[np.ndarray, "j k"],
        nodes: Int[np.ndarray, " m"],
    ) -> Float[Tensor, "batch t m"]:
        """Compute coordinates of some nodes, each with its row of the mask; `others` replaces unseen nodes."""
        if mask.dtype != bool:
            return self.mixed(batch, coordinates, others, torch.from_numpy(mask[nodes]), torch.from_numpy(nodes))
        if isinstance(self._form, PositionWise) and self._form.inner is None:
            return _linear(self._form, coordinates, others, torch.from_numpy(mask[nodes]), torch.from_numpy(nodes))
        found: list[Tensor] = [torch.empty(0, device="cpu")] * len(nodes)
        for kept, members in _groups(mask[nodes]):
            values = self._one(batch, coordinates, others, torch.from_numpy(kept), torch.from_numpy(nodes[members]))
            for member, value in zip(members.tolist(), values.unbind(-1), strict=True):
                found[member] = value
        return torch.stack(found, -1)

    def mixed(
        self,
        batch: Batch,
        coordinates: Float[Tensor, "batch s k"],
        others: Float[Tensor, "batch s k"] | None,
        mask: Float[Tensor, "m k"],
        nodes: Int[Tensor, " m"],
    ) -> Float[Tensor, "batch t m"]:
        """Compute coordinates of some nodes whose edges are cut in part, differentiable by the mask.

        Every node has its own input: linear maps take all at once, position-wise forms and the model many, as so many
        more data points, and attention one.
        """
        form, size = self._form, max(1, coordinates.numel())
        if isinstance(form, PositionWise) and form.inner is None:
            return _linear(form, coordinates, others, mask, nodes)
        whole = torch.arange(coordinates.shape[-1], device="cpu")
        found = []
        if isinstance(form, PositionWise) and form.inner is not None:
            step = max(1, _AT_ONCE * len(whole) // (size * len(form.inner)))
            for rows, some in zip(mask.split(step), nodes.split(step), strict=True):
                found.append(form.narrowed(whole, some).partly(coordinates, others, rows))
            return torch.cat(found, -1)
        step = max(1, _AT_ONCE // size) if form is None else 1
        for rows, some in zip(mask.split(step), nodes.split(step), strict=True):
            seen = rows[:, None, None] * coordinates
            seen = seen if others is None else seen + (1 - rows)[:, None, None] * others
            found.append(self._run(batch, seen, some) if form is None else form.narrowed(whole, some).apply(seen[0]))
        return torch.cat(found, -1)

    def _run(
        self, batch: Batch, seen: Float[Tensor, "m batch s k"], nodes: Int[Tensor, " m"]
    ) -> Float[Tensor, "batch t m"]:
        """Run the model, and compute the coordinate of each node from its own input."""
        m, n = seen.shape[:2]
        repeated = take_points(batch, torch.arange(n, device="cpu").repeat(m)) if m > 1 else batch
        values, gradients = to_values(self._earlier, seen.flatten(0, 1)), torch.is_grad_enabled()
        after = self._net.resume(repeated, self._pair, values, self._pair + 1, gradients=gradients)
        every = to_coordinates(self._later, after).unflatten(0, (m, n))
        return torch.stack([own[..., node] for own, node in zip(every, nodes, strict=True)], -1)

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
    """Compute all receivers of a linear map at once: what is not seen is left out of each row."""
    skip, bias = (part if part is not None else torch.zeros((), device="cpu") for part in (form.skip, form.bias))
    rows = skip[nodes]
    kept = torch.where(mask, rows, 0.0) if mask.dtype == torch.bool else mask * rows
    seen = coordinates @ kept.T + bias[nodes]
    return seen if others is None else seen + others @ (rows - kept).T


def _in_coordinates(form: Transition | None, earlier: Basis, later: Basis) -> Transition | None:
    """Return the form as a map from coordinates to coordinates, float64 on the CPU."""
    if form is None:
        return None
    mean, columns, target, rows = (
        torch.from_numpy(array) for array in (earlier.mean, earlier.from_basis, later.mean, later.to_basis)
    )
    there: Transition = map_tensors(lambda value: value.detach().cpu(), form)
    return there.in_coordinates(Frame(mean, columns, target, rows))
