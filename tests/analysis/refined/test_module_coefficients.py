"""Degrees of freedom of modules: subspaces against textbook matrices, sums of independent blocks, known values."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cases_figures import coefficient_of
from torch import Tensor, nn

from interbasis.analysis import (
    Bases,
    InteractionGraph,
    Network,
    Partition,
    RefinedCoefficients,
    Sampler,
    interaction_basis,
    interaction_graph,
    learning_coefficient,
    module_coefficients,
    score_partition,
)
from interbasis.analysis.errors import InputError, LayerError
from interbasis.analysis.llc.network_loss import behavioural_loss
from interbasis.analysis.llc.subspace import Restricted, Subspace
from interbasis.analysis.refined.dividing import module_subspaces
from interbasis.analysis.refined.estimating import _degrees, _taken
from interbasis.analysis.refined.watched import Watched

SHORT = Sampler(chains=2, warmup=40, draws=150)
TINY = Sampler(chains=2, warmup=10, draws=30)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def two_blocks(w: float = 0.0, *, activation: type[nn.Module] = nn.Tanh) -> Network:
    """Two independent blocks side by side; one hidden unit of the first feeds the second by a weight w."""
    model = nn.Sequential(nn.Linear(4, 4), activation(), nn.Linear(4, 2)).double()
    for seed, p in enumerate(model.parameters()):
        p.data = drawn(*p.shape, seed=seed)
    for layer, rows in ((model[0], 2), (model[2], 1)):
        layer.weight.data[:rows, 2:] = layer.weight.data[rows:, :2] = 0
    model[2].weight.data[1, 0] = w
    return Network(model, ["0:in", "1", "2"])


SIDES = [np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), np.array([0, 1])]


def divided(net: Network, x: Tensor, epsilon: float = 1e-4, **options: Any) -> tuple[Bases, Partition]:
    bases = interaction_basis(net, [x], **options)
    graph: InteractionGraph = interaction_graph(net, bases, [x])
    return bases, score_partition(graph, SIDES, epsilon=epsilon)


def whole_matrix(space: Subspace, d: int) -> Tensor:
    return space.lift(torch.eye(space.dimension, dtype=torch.float64), d).T


def test_in_the_neuron_basis_modules_hold_the_blocks_of_the_matrices() -> None:
    net, x = two_blocks(), drawn(30, 4, seed=9)
    bases, part = divided(net, x, kind="neuron")
    loss = behavioural_loss(net, [x])
    spaces = module_subspaces(loss, bases, part.labels)
    assert [(layer.name, layer.earlier, layer.later) for layer in spaces.layers] == [("0", 0, 1), ("2", 1, 2)]
    assert [space.dimension for space in spaces.modules] == [2 * 2 + 2 + 2 + 1] * 2
    assert spaces.between.dimension == 2 * 4 + 2 * 2
    assert spaces.together.dimension == 18
    mask = torch.zeros(4, 4)
    mask[:2, :2] = 1
    own = torch.cat([mask.flatten(), torch.tensor([1.0, 1, 0, 0]), torch.tensor([1.0, 1, 0, 0, 0, 0, 0, 0, 1, 0])])
    found = whole_matrix(spaces.modules[0], 30)
    torch.testing.assert_close(found @ found.T, torch.diag(own).double(), rtol=0, atol=1e-9)


def test_parts_move_the_coordinates_of_their_own_nodes() -> None:
    """dW = C'^+ X C: seen from the nodes, a change inside a module is X between its nodes only."""
    torch.manual_seed(0)
    net, x = (
        Network(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double(), ["0:in", "1", "2"]),
        drawn(40, 4),
    )
    bases = interaction_basis(net, [x])
    labels = [(np.arange(len(basis.importance)) + 1) % 3 - 1 for basis in bases.bases]  # 0, 1, none, 0, ...
    spaces = module_subspaces(behavioural_loss(net, [x]), bases, labels)
    to, back = (torch.from_numpy(getattr(bases["1"], name)) for name in ("to_basis", "from_basis"))
    before = torch.from_numpy(bases["0:in"].from_basis)
    for space, same in ((spaces.modules[0], True), (spaces.between, False)):
        matrix = whole_matrix(space, 43)[:20].T.reshape(-1, 5, 4)
        seen = to @ matrix @ before
        inside = torch.from_numpy((labels[1][:, None] == 0) & (labels[0] == 0))
        across = torch.from_numpy((labels[1][:, None] != labels[0]) & (labels[1][:, None] >= 0) & (labels[0] >= 0))
        outside = seen * ~(inside if same else across)
        assert seen.abs().max() > 0
        assert outside.abs().max() < 1e-9 * seen.abs().max()
        torch.testing.assert_close(back @ to @ matrix, matrix)
    sizes = [spaces.together.dimension, spaces.between.dimension]
    both = torch.cat([whole_matrix(spaces.together, 43), whole_matrix(spaces.between, 43)], 1)
    assert torch.linalg.matrix_rank(both) == sum(sizes)
    assert spaces.together.dimension == sum(space.dimension for space in spaces.modules)


@pytest.mark.parametrize("epsilon", [1e-3, 1e-4, 1e-5, 1e-6])
def test_independent_blocks_add_up(epsilon: float) -> None:
    net, x = two_blocks(), drawn(40, 4, seed=9)
    bases, part = divided(net, x, kind="neuron")
    loss = behavioural_loss(net, [x])
    spaces = module_subspaces(loss, bases, part.labels)
    short = Sampler(chains=2, warmup=40, draws=100, gamma=1.0)
    both, *each = (
        learning_coefficient(Restricted(loss, space), temperature=5 / epsilon, sampler=short)
        for space in (spaces.together, *spaces.modules)
    )
    error = math.hypot(both.standard_error, *(found.standard_error for found in each))
    assert abs(both.value - sum(found.value for found in each)) < 3 * error < 0.3 * both.value


def test_parts_are_named_and_come_back() -> None:
    net, x = two_blocks(), drawn(40, 4, seed=9)
    bases, part = divided(net, x, kind="neuron")
    found = module_coefficients(net, bases, part, batches=[x], epsilon=1e-5, sampler=SHORT)
    assert found.interaction is not None
    assert "no interaction of their degeneracies is seen" in found.reason
    assert [row.kind for row in found.parts] == ["whole", "module", "module", "together", "between"]
    assert RefinedCoefficients.from_bytes(found.to_bytes()) == found
    assert found["module 1"].gamma == found["whole"].gamma == found.gamma
    assert "module 0: N_eff" in repr(found)
    assert "between modules" in found._repr_html_()
    assert list(found.to_frame()["part"]) == [part.name for part in found.parts]


def test_deep_linear_blocks_have_their_known_coefficients() -> None:
    """A block maps 2 numbers and the constant to one, 3 numbers of 1/2 each; the whole 4 and the constant to two."""
    net, x = two_blocks(activation=nn.Identity), drawn(40, 4, seed=9)
    bases, part = divided(net, x, kind="neuron")
    found = module_coefficients(net, bases, part, batches=[x], epsilon=1e-7, constrained=False, sampler=SHORT)
    for name, value in (("module 0", 1.5), ("module 1", 1.5), ("all modules", 3.0), ("whole", 5.0)):
        error = found[name].standard_error
        assert found[name].value == pytest.approx(value, abs=4 * error + 0.02)
        assert error < 0.1 * value


def test_nothing_is_said_of_sums_where_chains_have_failed() -> None:
    net, x = two_blocks(), drawn(40, 4, seed=9)
    bases, part = divided(net, x, kind="neuron")
    tiny = Sampler(chains=2, warmup=3, draws=4, kernel="mala")
    found = module_coefficients(net, bases, part, batches=[x], epsilon=1e-4, sampler=tiny)
    with pytest.raises(InputError, match="epsilon is 0"):
        module_coefficients(net, bases, part, batches=[x], epsilon=0.0, sampler=tiny)
    assert found.verdict == "failed"
    assert found.interaction is None
    assert "degeneracies" not in found.reason


def test_holding_a_mediating_node_costs_degrees_of_freedom() -> None:
    net, x = two_blocks(0.05), drawn(40, 4, seed=9)
    bases, part = divided(net, x, kind="neuron")
    assert [(v.earlier, v.later, v.cut, v.coordinate) for v in part.mediators] == [(0, 1, 1, 0)]
    found = module_coefficients(net, bases, part, batches=[x], epsilon=1e-4, sampler=SHORT)
    assert [row.kind for row in found.parts][-2:] == ["weighted", "held"]
    free, weighted, held = (found[f"module 0{end}"] for end in ("", ", interface weighted", ", interface held"))
    for less, more in ((free, weighted), (weighted, held)):
        assert less.value < more.value + 4 * math.hypot(less.standard_error, more.standard_error)
    assert held.value > free.value
    (node,) = found.mediators
    scale = float(np.sqrt(bases["1"].importance[0]))
    assert node.strength == pytest.approx(0.05 * scale)
    assert node.share == pytest.approx(math.log(0.05 * scale / 0.01) / math.log(part.full_strength / 0.01))
    assert node.measured is not None
    assert node.measured > 0
    assert found.constraint is not None


def test_watched_nodes_move_with_their_bias() -> None:
    net, x = two_blocks(0.0, activation=nn.Identity), drawn(40, 4, seed=9)
    loss = behavioural_loss(net, [x])
    direction = torch.zeros(30, 1, dtype=torch.float64)
    direction[16] = 1  # the bias of hidden unit 0
    watched = Watched(loss, Subspace.spanned_by(direction), {"1": torch.eye(4, dtype=torch.float64)[:1]})
    away = watched.observed(watched.start + torch.tensor([[0.0], [0.3], [-0.2]], dtype=torch.float64))
    torch.testing.assert_close(away, torch.tensor([[0.0], [0.09], [0.04]], dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("held", [0.5, 4.0])
def test_what_a_node_takes_is_the_gaussian_value(held: float) -> None:
    """P = b^2 with b normal of variance s^2: Z_C / Z = E[exp(-a b^2)] = 1 / sqrt(1 + 2 a s^2), a = t w^2."""
    squares = np.random.default_rng(0).chisquare(1, (4, 4000)) * 0.25
    gamma, error = _taken(held * squares, math.log(100))
    assert gamma is not None
    assert error is not None
    assert abs(gamma - math.log(1 + 2 * held * 0.25) / 2 / math.log(100)) < 4 * error < 0.02
    assert _taken(1e9 * squares[:, :20], 1.0) == (None, None)


def test_gamma_is_measured_in_the_units_of_the_scale_asked_for() -> None:
    """With the same chains log(w / sqrt(eps)) and its unit follow epsilon, whatever the partition's; w does not."""
    net, x = two_blocks(0.05), drawn(40, 4, seed=9)
    moved = {"observed_0": np.random.default_rng(0).chisquare(1, (4, 500)) * 1e-4}
    estimate = replace(coefficient_of(2.0, 1e-6), temperature=1e6, traces=moved)
    found = []
    for own in (1e-4, 1e-6):
        bases, part = divided(net, x, own, kind="neuron")
        (node,) = _degrees(bases, part, 0, estimate, scale=1e-6)
        found.append(node)
    assert found[0].strength == pytest.approx(found[1].strength)
    assert found[0].share == pytest.approx(found[1].share)
    assert found[0].share == pytest.approx(math.log(found[0].strength / 1e-3) / math.log(part.full_strength / 1e-3))
    assert found[0].measured == pytest.approx(found[1].measured)
    assert found[0].measured is not None


def test_modules_without_parameters_take_nothing() -> None:
    """All nodes of the first cut as one module, which feeds the rest."""
    net, x = two_blocks(), drawn(20, 4, seed=9)
    bases = interaction_basis(net, [x], kind="neuron")
    labels = [np.zeros(4, int), np.ones(4, int), np.ones(2, int)]
    part = score_partition(interaction_graph(net, bases, [x]), labels, epsilon=1e-4)
    found = module_coefficients(net, bases, part, batches=[x], sampler=TINY)
    (empty,) = (row for row in found.of_kind("module") if row.estimate.n_parameters == 0)
    assert empty.estimate.value == 0
    assert part.mediators
    assert found.mediators == ()


def test_networks_without_a_layer_between_two_cuts_are_refused() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    net, x = Network(model, ["0:in", "3"]), drawn(20, 3)
    bases = interaction_basis(net, [x])
    labels = [np.zeros(len(basis.importance), dtype=int) for basis in bases.bases]
    with pytest.raises(LayerError, match="no dense layer reads one cut and writes the next"):
        module_subspaces(behavioural_loss(net, [x]), bases, labels)
    with pytest.raises(InputError, match="of another graph"):
        module_subspaces(behavioural_loss(net, [x]), bases, labels[:1])


def test_units_that_mix_behind_a_layer_keep_it_whole() -> None:
    """Behind a softmax each unit depends on all: its parameters are not those of single nodes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Softmax(-1), nn.Linear(4, 2)).double()
    net, x = Network(model, ["0:in", "1", "2"]), drawn(20, 3)
    bases = interaction_basis(net, [x])
    labels = [np.zeros(len(basis.importance), dtype=int) for basis in bases.bases]
    spaces = module_subspaces(behavioural_loss(net, [x]), bases, labels)
    assert [layer.name for layer in spaces.layers] == ["2"]
    assert spaces.others == ("0",)
