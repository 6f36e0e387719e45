"""Firing patterns: distances written out, blocks by hand, leaky and linear units, dead and complementary ones."""

import numpy as np
import pytest
import torch
from cases_ledger import dense, generic, halves, inputs, weights_of
from torch import nn

from interbasis.analysis.degeneracy.ledger import parameter_ledger
from interbasis.analysis.degeneracy.synchronised_units import FiringPatterns, SynchronisedUnits, synchronised_units
from interbasis.analysis.errors import GraphError, LayerError
from interbasis.analysis.network.network import Network


def units_of(model: nn.Sequential, data: torch.Tensor, epsilon: float | None = None) -> SynchronisedUnits:
    return synchronised_units(dense(model), halves(data), epsilon)["0.0"]


@pytest.mark.parametrize("activation", ["relu", "leaky"])
def test_distance_is_what_exchanging_patterns_changes(activation: str) -> None:
    model, data = generic((4, 6, 2), activation=activation), inputs(80, 4)
    found = units_of(model, data)
    p = model[0][0](data).detach().numpy()
    r = np.where(p > 0, 1.0, 0.1 if activation == "leaky" else 0.0)
    for i in range(6):
        for j in range(6):
            differ = (r[:, i] - r[:, j]) ** 2
            expected = max((differ * p[:, i] ** 2).mean(), (differ * p[:, j] ** 2).mean())
            assert found.distances[i, j] == pytest.approx(expected, rel=1e-12, abs=1e-15)
    np.testing.assert_allclose(found.power, (p**2).mean(0))


def test_proportional_units_are_one_block_whatever_their_scale() -> None:
    model, data = generic((4, 6, 2)), inputs(80, 4)
    w, b = weights_of(model, 0)
    w[4], b[4] = 1e-3 * w[1], 1e-3 * b[1]
    found = units_of(model, data)
    assert found.blocks[0] == (1, 4)
    assert found.distances[1, 4] == 0
    assert sorted(u for block in found.blocks for u in block) == list(range(6))


def test_one_data_point_tells_two_units_apart() -> None:
    patterns = FiringPatterns(2, 0.0)
    p = torch.ones(1000, 2, dtype=torch.float64)
    p[17] = torch.tensor([1e-6, -1e-6])
    patterns.add(p[:500])
    patterns.add(p[500:])
    exact, rough = (patterns.synchronised("x", epsilon, 1e-10) for epsilon in (None, 1e-2))
    assert exact.blocks == ((0,), (1,))
    assert exact.always_on == 0
    assert rough.blocks == ((0, 1),)
    assert rough.always_on == 0


def test_blocks_have_no_pair_above_epsilon() -> None:
    model, data = generic((4, 12, 2)), inputs(300, 4)
    found = units_of(model, data, epsilon=0.05)
    assert len(found.blocks) < 12
    for number, block in enumerate(found.blocks):
        if number != found.always_on:
            assert found.distances[np.ix_(block, block)].max() <= 0.05


def test_dead_and_always_on_units() -> None:
    model, data = generic((4, 6, 2)), inputs(80, 4)
    b = weights_of(model, 0)[1]
    b[0], b[3], b[5] = -40.0, 40.0, 50.0
    found = units_of(model, data)
    assert found.dead == (0,)
    assert found.blocks[found.always_on] == (3, 5)


def test_leaky_unit_that_is_never_on_is_as_linear_as_one_that_always_is() -> None:
    model, data = generic((4, 6, 2), activation="leaky"), inputs(80, 4)
    b = weights_of(model, 0)[1]
    b[0], b[3] = -40.0, 40.0
    found = units_of(model, data)
    assert found.dead == ()
    assert found.blocks[found.always_on] == (0, 3)
    assert found.distances[0, 3] == 0


def test_linear_layer_is_one_block() -> None:
    found = units_of(generic((4, 6, 2), activation="linear"), inputs(80, 4))
    assert (found.blocks, found.always_on, found.slope) == ((tuple(range(6)),), 0, 1.0)
    assert not found.distances.any()


def test_units_on_at_opposite_sides_are_complements() -> None:
    model, data = generic((3, 4, 2)), inputs(80, 3)
    w, b = weights_of(model, 0)
    w[2], b[2] = -3 * w[0], -3 * b[0]
    found = units_of(model, data)
    (pair,) = found.complements
    assert {found.blocks[a] for a in pair} == {(0,), (2,)}


def test_smooth_activation_has_no_patterns() -> None:
    model = generic((4, 6, 2))
    model[0][1] = nn.GELU()
    assert synchronised_units(dense(model), [inputs(10, 4)]) == {}


def test_what_is_not_supported_is_named() -> None:
    model = nn.Sequential(nn.ConvTranspose1d(1, 2, 3), nn.Flatten(), nn.Linear(12, 2)).double()
    with pytest.raises(LayerError, match=r"0 \(ConvTranspose1d\)"):
        synchronised_units(Network(model, []), [inputs(5, 4)[:, None]])


def test_patterns_count_where_the_output_feels_them() -> None:
    """Only the last position reaches the output, and there all units are on."""
    model = generic((3, 4, 2))
    weights_of(model, 0)[1].fill_(0.0)
    w = weights_of(model, 0)[0]
    w.abs_()
    data = inputs(50, 6).reshape(50, 2, 3)
    data[:, 1] = data[:, 1].abs()
    network = Network(model, ["0:in", "1"], positions={"1": "last", "output": "last"})
    found = synchronised_units(network, [data])["0.0"]
    assert (found.blocks, found.always_on) == (((0, 1, 2, 3),), 0)
    assert found.blocks == parameter_ledger(network, [data]).units[0].blocks


@pytest.mark.parametrize("slope", [2.0, -0.5])
def test_any_slope_is_recognised(slope: float) -> None:
    model, data = generic((4, 6, 2)), inputs(80, 4)
    model[0][1] = nn.LeakyReLU(slope)
    assert units_of(model, data).slope == pytest.approx(slope)
    ledger = parameter_ledger(dense(model), halves(data))
    assert (ledger.synchronised, ledger.unexplained) == (6, 0)


@pytest.mark.parametrize("epsilon", [-1.0, float("nan")])
def test_bad_epsilon_is_refused(epsilon: float) -> None:
    with pytest.raises(GraphError, match="epsilon is"):
        units_of(generic((4, 6, 2)), inputs(8, 4), epsilon)


def test_repr_counts() -> None:
    model, data = generic((4, 6, 2)), inputs(80, 4)
    weights_of(model, 0)[1][0] = -40.0
    assert "6 units in 5 blocks" in repr(units_of(model, data))
    assert "1 dead" in repr(units_of(model, data))
