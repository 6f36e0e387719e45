"""The loss that also holds a module's mediating nodes, for the effective parameters of a module."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ..basis.bases import Bases
from ..llc.batch_loss import Parameters
from ..llc.network_loss import NetworkLandscape
from ..modules.partition import Mediator
from ..network.batches import Batch
from ..network.network import Network
from ..progress import ProgressCallback

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
    bases: Bases,
    mediators: Iterable[Mediator],
    epsilon: float,
    *,
    weighted: bool = True,
    full_strength: float = 1.0,
) -> dict[str, Float[Tensor, "m width"]]:
    """Build the readout of `constrained_loss` for the mediating nodes of an interaction surface.

    Row i reads w_i f^_i / sqrt(Lambda_i). A strength w_i = sqrt(E[J^2] Lambda_i) is what one standard deviation of
    the node does, so nodes are measured in standard deviations: (w_i dv_i)^2 is then the loss that the movement dv_i
    causes in the other modules, to first order.

    Args:
        bases: the graph's bases.
        mediators: mediators of one module, from `interaction_surface`; a node that feeds several modules counts for
            each.
        epsilon: loss scale at which they were found: their strengths are in units of its square root.
        weighted: whether rows are weighted by the strength w_i (eq. 32), or all by full strength (eq. 31).
        full_strength: strength of a connection that counts as one.
    """
    squares: dict[tuple[int, int], float] = {}
    for mediator in mediators:
        node = mediator.cut, mediator.coordinate
        own = mediator.strength**2 * epsilon
        squares[node] = squares.get(node, 0.0) + own if weighted else full_strength**2
    names = list(bases)
    found: dict[str, list[Tensor]] = {}
    for (cut, coordinate), square in sorted(squares.items()):
        basis = bases[names[cut]]
        weight = math.sqrt(square / float(basis.importance[coordinate]))
        found.setdefault(names[cut], []).append(weight * torch.from_numpy(basis.to_basis[coordinate]))
    return {name: torch.stack(rows) for name, rows in found.items()}
