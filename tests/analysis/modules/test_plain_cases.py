"""The networks on which plain calls are judged are what they are said to be."""

import pytest
import torch
from cases_residual import CASES, Halves, truth

from interbasis.analysis import interaction_basis


@pytest.mark.parametrize("seed", range(3))
def test_halves_joined_and_rotated_compute_the_same(seed):
    generator = torch.Generator().manual_seed(seed)
    halves = Halves((3, 4), 6, 5, 2, (2, 3)).double()
    joined = halves.joined(generator).double()
    x = torch.randn(20, 7, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(joined(x), halves(x), rtol=1e-10, atol=1e-10)
    assert (joined.blocks[0].inner.weight.abs() > 1e-6).all()  # nothing of the halves is seen in the stream


@pytest.mark.parametrize("name", [name for name in CASES if not name.endswith(", auto")])
def test_networks_answer_as_many_questions_as_they_have_outputs(name):
    case = CASES[name]
    drawn = case.inputs(torch.Generator().manual_seed(0), 4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = case.build(torch.Generator().manual_seed(0)).eval()
    given = model(drawn)
    assert given.shape[-1] == sum(case.heads)
    if case.loss is not None:
        assert case.loss(drawn, given).item() > 0


def test_outputs_belong_to_the_task_they_answer():
    case = CASES["modular/rotated untrained"]
    net = case.network(case.trained())
    sides = truth(net, interaction_basis(net, case.data(), output="neuron"), case.data(), case.heads)
    assert sides[-1].tolist() == [0] * case.heads[0] + [1] * case.heads[1]
    assert all(set(side.tolist()) == {0, 1} for side in sides)
