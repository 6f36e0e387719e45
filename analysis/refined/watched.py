"""A loss on a subspace that also tells how far single nodes have moved, without holding them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ..llc.batch_loss import BatchLoss
from ..llc.network_loss import NetworkLandscape
from ..llc.subspace import Restricted, Subspace
from ..network.batches import batch_size

__all__ = ["Watched"]


class Watched(Restricted):
    """The loss of a network on a subspace; `observed` are the mean squared movements of nodes.

    From chains that sample exp(-t L) the constraint of eq. 32 follows for any strength w, by reweighting:
    Z_C / Z = E[exp(-t w^2 P)] with P = 1/n sum_x (v(x) - v*(x))^2.

    Args:
        whole: the behavioural loss of all parameters.
        subspace: the subspace.
        readout: per name of a cut a matrix whose rows read nodes from the activations there.
    """

    def __init__(
        self, whole: NetworkLandscape, subspace: Subspace, readout: Mapping[str, Float[Tensor, "m width"]]
    ) -> None:
        super().__init__(whole, subspace)
        self._inputs = whole.inputs
        self._loss = BatchLoss(whole.network, None, readout, None)
        with torch.no_grad():
            self._before = [self._loss.outputs(self._loss.start, inputs)[1:] for inputs in self._inputs]

    def observed(self, theta: Float[Tensor, "chains k"]) -> Float[Tensor, "chains m"]:
        """Compute the mean squared movement of each node from theta*, at the coordinates of each chain."""
        found = []
        with torch.no_grad():
            for parameters in self.parameters(theta):
                total = torch.zeros((), dtype=torch.float64, device="cpu")
                for inputs, before in zip(self._inputs, self._before, strict=True):
                    values = self._loss.outputs(parameters, inputs)[1:]
                    moved = [(v - b).square().flatten(0, -2).sum(0) for v, b in zip(values, before, strict=True)]
                    total = total + torch.cat(moved).to("cpu", torch.float64)
                found.append(total / sum(batch_size(inputs) for inputs in self._inputs))
        return torch.stack(found).to(theta)
