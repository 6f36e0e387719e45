"""Cuts in convolutional networks: positions by channels, against Jacobians taken one by one."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interbasis.analysis import (
    Bases,
    Network,
    align_nodes,
    coordinate_correlation,
    interaction_basis,
    interaction_graph,
    isolate_modules,
    score_partition,
)
from interbasis.analysis.basis.jacobians import disjoint_positions, pair_trace
from interbasis.analysis.circuits.edge_ablation import to_values
from interbasis.analysis.errors import CutError, DataError


def convolutional(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 4, 3, stride=2), nn.GELU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 3)).double().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(30, 2, 10, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def looped(model: nn.Sequential, earlier: slice, step: slice, x: Tensor) -> Tensor:
    """Jacobians of a part of the model at each data point, one after another: (n, c', h', w', c, h, w)."""
    here = model[earlier](x).detach()
    return torch.stack([torch.autograd.functional.jacobian(model[step], v[None])[0, ..., 0, :, :, :] for v in here])


@pytest.mark.parametrize("kind", ["global", "local", "neuron"])
def test_strengths_are_those_of_looped_jacobians(kind: str, x: Tensor) -> None:
    model = convolutional()
    net = Network(model, ["2", "4", "6"])
    bases = interaction_basis(net, [x], kind=kind)
    graph = interaction_graph(net, bases, [x.split(7)[0], x[7:]])

    maps = looped(model, slice(3), slice(3, 5), x).flatten(2, 3).flatten(-2)  # n, c', t, c, s
    to_basis, from_basis = (torch.from_numpy(v) for v in (bases["4"].to_basis, bases["2"].from_basis))
    rotated = torch.einsum("jo,notis,ik->njtks", to_basis, maps, from_basis)
    importance = torch.from_numpy(bases["2"].importance)
    squared = rotated.square().sum((2, 4)).mean(0) * importance
    torch.testing.assert_close(torch.from_numpy(graph.blocks[0]), squared.sqrt(), atol=1e-10, rtol=1e-10)


def test_basis_is_over_channels_centred_at_each_position(x: Tensor) -> None:
    model = convolutional()
    border = torch.zeros(2, 10, 10, dtype=torch.float64)
    border[:, :2] = 50.0  # the same in every picture
    net = Network(model, ["2", "4", "6"])
    bases = interaction_basis(net, [(x + border)[:13], (x + border)[13:]], rotation="none")
    f = model[:3](x + border).detach().flatten(2).transpose(1, 2)  # n, s, c
    centred = (f - f.mean(0)).flatten(0, 1)
    gram = centred.T @ centred / len(centred)
    jacobians = looped(model, slice(3), slice(3, 7), x + border).flatten(-2)  # n, o, c, s
    to_output = torch.einsum("nocs,nods->cd", jacobians, jacobians) / len(x)
    basis = bases["2"]
    values = torch.linalg.eigvals(gram @ to_output).real.sort(descending=True).values
    torch.testing.assert_close(torch.from_numpy(basis.importance.copy()).sort(descending=True).values, values)
    variance = torch.from_numpy(basis.to_basis) @ gram @ torch.from_numpy(basis.to_basis).T
    torch.testing.assert_close(variance.diagonal(), torch.from_numpy(basis.importance))


def test_what_every_picture_has_is_put_back(x: Tensor) -> None:
    """A channel that is the same in every picture is in no direction of the basis, but in its mean."""
    model = convolutional()
    with torch.no_grad():
        model[0].weight[4] = 0
    constant = nn.Parameter(torch.linspace(0, 3, 25, dtype=torch.float64).reshape(5, 5))
    model[2].register_forward_hook(lambda _, __, value: torch.cat([value[:, :4], constant.expand(len(x), 1, 5, 5)], 1))
    net = Network(model, ["2", "4", "6"], check=False)
    bases = interaction_basis(net, [x])
    assert bases["2"].mean.shape == (25, 5)
    assert bases["2"].to_basis.shape == (4, 5)
    values = net.trace(x).values[0].detach()
    back = to_values(bases["2"], bases["2"].coordinates(values))
    torch.testing.assert_close(back, values)
    assert Bases.from_bytes(bases.to_bytes()) == bases
    graph = interaction_graph(net, bases, [x], strengths="attribution")
    one = score_partition(graph, [np.zeros(width, int) for width in graph.widths])
    for replacement in ("mean", "zero"):
        found = isolate_modules(net, bases, graph, one, [x], draws=0, replacement=replacement)
        assert all(change.value == pytest.approx(0, abs=1e-12) for change in found.isolated.changes.values())
    first = align_nodes(coordinate_correlation((net, bases), (net, bases), [x]))[0]
    np.testing.assert_array_equal(first, np.arange(4))


def test_positions_with_disjoint_fields_share_a_backward_pass(x: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(400, 2)).double()
    net = Network(model, ["0", "1"])
    groups = disjoint_positions(net, pair_trace(net, x, 0), 0, 4)
    assert groups is not None
    assert sorted(t for group in groups for t in group) == list(range(100))
    assert len(groups) == 9
    for group in groups:
        assert all(max(abs(a // 10 - b // 10), abs(a % 10 - b % 10)) > 2 for a in group for b in group if a != b)
    flat = Network(model, ["0", "2"])
    assert disjoint_positions(flat, pair_trace(flat, x, 0), 0, 4) is None


def test_signals_are_declared_and_their_channels_are_nodes() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Conv1d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 2))
    x = torch.randn(20, 3, 8, dtype=torch.float64)
    net = Network(layers.double(), ["1", "3", "5"], batch_first={"1": "channels", "3": "channels"})
    bases = interaction_basis(net, [x], kind="neuron")
    graph = interaction_graph(net, bases, [x])
    assert graph.widths == (4, 5, 2)
    here = layers[:2](x).detach()
    maps = torch.stack([torch.autograd.functional.jacobian(layers[2:4], v[None])[0, :, :, 0] for v in here])
    variance = (here - here.mean((0, 2), keepdim=True)).square().mean((0, 2))
    squared = maps.square().sum((2, 4)).mean(0) * variance
    torch.testing.assert_close(torch.from_numpy(graph.blocks[0]), squared.sqrt(), atol=1e-10, rtol=1e-10)


def test_pictures_whose_channels_are_not_shown_are_refused_until_declared() -> None:
    class Last(nn.Module):
        """Channels on the last axis."""

        def __init__(self) -> None:
            super().__init__()
            self.mix, self.act, self.out = nn.Linear(3, 4), nn.ReLU(), nn.Linear(4 * 6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.act(self.mix(x)).flatten(1))

    torch.manual_seed(0)
    x = torch.randn(20, 2, 3, 3, dtype=torch.float64)
    model = Last().double()
    with pytest.raises(CutError, match=r"'act' has shape \(20, 2, 3, 4\), and nothing shows which axis"):
        interaction_basis(Network(model, ["act", "out"]), [x])
    net = Network(model, ["act", "out"], batch_first={"act": True})
    assert interaction_basis(net, [x])["act"].to_basis.shape[1] == 4
    with pytest.raises(CutError, match="expected floats of"):
        Network(model, ["act", "out"], batch_first={"act": False}, example=x)


def test_pictures_of_several_sizes_are_refused() -> None:
    torch.manual_seed(0)
    pool = nn.AdaptiveAvgPool2d(1)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3), pool, nn.Flatten(), nn.Linear(3, 2))
    batches = [torch.randn(9, 1, size, size, dtype=torch.float64) for size in (7, 8)]
    with pytest.raises(DataError, match="pictures with 25 positions and with 36 positions: expected one size"):
        interaction_basis(Network(model.double(), ["1", "3", "5"]), batches)


def test_auto_takes_the_channels_after_each_convolution(x: Tensor) -> None:
    assert Network(convolutional(), "auto", example=x).cuts == ("2", "5", "6")
