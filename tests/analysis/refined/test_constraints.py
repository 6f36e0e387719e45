"""The constrained loss: mediating nodes are held as strongly as the other modules feel them."""

import numpy as np
import pytest
import torch
from torch import nn

from interbasis.analysis.basis.interaction_basis import interaction_basis
from interbasis.analysis.graph.interaction_graph import InteractionGraph
from interbasis.analysis.graph.strengths import interaction_graph
from interbasis.analysis.llc.network_loss import behavioural_loss
from interbasis.analysis.modules.mediators import interaction_surface
from interbasis.analysis.network.network import Network
from interbasis.analysis.refined.constraints import constrained_loss, mediating_readout


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_constraint_of_a_linear_network_is_its_loss() -> None:
    """The second layer as the other module: what it feels of the hidden nodes is all of the loss."""
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).double(), ["0:in", "0", "1"])
    x, epsilon = drawn(30, 4), 1e-12
    bases = interaction_basis(network, [x])
    graph: InteractionGraph = interaction_graph(network, bases, [x])
    labels = [np.full(len(importance), int(p == 2)) for p, importance in enumerate(graph.importance)]
    mediators = interaction_surface(graph, labels, epsilon)
    assert {m.cut for m in mediators} == {1}
    readout = mediating_readout(bases, mediators, epsilon)
    plain = behavioural_loss(network, [x], parameters="0.*")
    held = constrained_loss(network, [x], readout, parameters="0.*")
    theta = plain.start + 0.3 * drawn(5, len(plain.start), seed=1)
    torch.testing.assert_close(held.evaluate(theta)[0], 2 * plain.evaluate(theta)[0], rtol=1e-6, atol=0)
    assert held.evaluate(plain.start[None])[0] < 1e-25


@pytest.mark.parametrize("full", [1.0, 0.3])
def test_at_full_strength_nodes_are_read_in_standard_deviations(full: float) -> None:
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(), ["0:in", "1", "2"])
    x, epsilon = drawn(30, 3), 1e-8
    bases = interaction_basis(network, [x])
    graph: InteractionGraph = interaction_graph(network, bases, [x])
    labels = [np.arange(len(importance)) % 2 for importance in graph.importance]
    own = [m for m in interaction_surface(graph, labels, epsilon) if m.earlier == 0]
    readout = mediating_readout(bases, own, epsilon, weighted=False, full_strength=full)
    assert sum(map(len, readout.values())) == len({(m.cut, m.coordinate) for m in own})
    for cut, values in network.activations(x).items():
        if cut in readout:
            read = (values.flatten(0, -2) - torch.from_numpy(bases[cut].mean)) @ readout[cut].T
            torch.testing.assert_close(read.square().mean(0), torch.full((len(readout[cut]),), full**2).double())
