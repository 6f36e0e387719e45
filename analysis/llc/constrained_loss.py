"""The loss that also holds a module's mediating nodes, for the effective parameters of a module."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ..basis.bases import Bases
from ..modules.partition import Mediator
from ..network.batches import Batch
from ..network.network import Network
from ..progress import ProgressCallback
from .batch_loss import Parameters
from .network_loss import NetworkLandscape

__all__ = ["constrained_loss", "mediating_readout"]


def constrained_loss(
    network: Network,
    batches: Iterable[Batch],
    readout: Mapping[str, Float[Tensor, "m width"]],
    *,
    parameters: Parameters | None = None,
    progress: ProgressCallback | None = None,
) -> NetworkLandscape:
    """Build the behavioural loss plus the squared movement of mediating nodes (paper, eq. 31 and 32).

    Args:
        network: the network; mediators are at its cuts.
        batches: data.
        readout: per name of a cut a matrix whose row i is w_i times the direction that reads v_i from the activations
            there: w_i = eps^(k_i) of eq. 32, or 1 for eq. 31. See `mediating_readout`.
        parameters: parameters of the module that the mediators belong to.
        progress: called after each batch.
    """
    return NetworkLandscape(network, batches, parameters=parameters, readout=readout, progress=progress)


def mediating_readout(
    bases: Bases, mediators: Iterable[Mediator], epsilon: float, *, weighted: bool = True
) -> dict[str, Float[Tensor, "m width"]]:
    """Build the readout of `constrained_loss` for the mediating nodes of an interaction surface.

    Args:
        bases: the graph's bases.
        mediators: mediators of one module, from `interaction_surface`; a node that feeds several modules counts for
            each.
        epsilon: loss scale at which they were found: their strengths are in units of its square root.
        weighted: whether rows are weighted by the strength w_i (eq. 32) or not (eq. 31).
    """
    squares: dict[tuple[int, int], float] = {}
    for mediator in mediators:
        node = mediator.cut, mediator.coordinate
        squares[node] = squares.get(node, 0.0) + (mediator.strength**2 * epsilon if weighted else 1.0)
    names = list(bases)
    found: dict[str, list[Tensor]] = {}
    for (cut, coordinate), square in sorted(squares.items()):
        weight = math.sqrt(square) if weighted else 1.0
        found.setdefault(names[cut], []).append(weight * torch.from_numpy(bases[names[cut]].to_basis[coordinate]))
    return {name: torch.stack(rows) for name, rows in found.items()}
