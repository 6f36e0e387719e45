"""Effects on outputs: exact where they are known, and honest about their errors."""

import numpy as np
import pytest
import torch
from cases_meaning import analysed, named_data, normal, two_tasks
from cases_transformers import random_tokens, transformer
from torch import nn

from interbasis.analysis import Network, interaction_basis
from interbasis.analysis.meaning.effects import Effects, Means, influences


def steps_of(widths: list[int], step: float = 1.0) -> dict[int, dict[int, float]]:
    return {p: dict.fromkeys(range(k), step) for p, k in enumerate(widths)}


def test_first_order_is_exact_in_a_linear_network() -> None:
    data = named_data(60)
    net, bases, graph, _ = analysed(two_tasks(relu=False), data)
    effects = Effects(net, bases, list(data), steps=steps_of(list(graph.widths), 0.7))
    weights = [torch.eye(4).double() @ m for m in (net.model[2].weight @ net.model[0].weight, net.model[2].weight)]
    for p, k in enumerate(graph.widths[:2]):
        for i in range(k):
            found = effects.of(p, i)
            assert found.slope is not None
            expected = weights[p].detach() @ torch.from_numpy(bases[p].from_basis[:, i])
            torch.testing.assert_close(found.slope, expected, atol=1e-10, rtol=0)
            torch.testing.assert_close(found.up, 0.7 * found.slope, atol=1e-10, rtol=0)
            torch.testing.assert_close(found.down, -0.7 * found.slope, atol=1e-10, rtol=0)
            assert float(found.up_error.max()) < 1e-10


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_jacobians_by_nodes_are_those_by_outputs(name: str) -> None:
    """Asked for few nodes, Jacobians are computed node by node; for many, output by output."""
    model = transformer(name).double()
    cuts = {"gpt2": ["transformer.h.0", "transformer.h.1"], "bert": ["bert.encoder.layer.0", "bert.encoder.layer.1"]}
    tokens = random_tokens(12, 5)
    net = Network(model, cuts[name], loss="kl", example=tokens)
    bases = interaction_basis(net, [tokens], kind="pca")
    many = Effects(net, bases, [tokens[:7], tokens[7:]], steps=steps_of([len(b.importance) for b in bases.values()]))
    few = Effects(net, bases, [tokens], steps={0: {1: 1e-4}, 1: {0: 1e-4}})
    for p, i in ((0, 1), (1, 0)):
        one, other = few.of(p, i), many.of(p, i)
        assert one.slope is not None
        assert other.slope is not None
        assert one.slope_error is not None
        assert other.slope_error is not None
        torch.testing.assert_close(one.slope, other.slope, atol=1e-10, rtol=1e-8)
        torch.testing.assert_close(one.slope_error, other.slope_error, atol=1e-10, rtol=1e-6)
        torch.testing.assert_close((one.up - one.down) / 2e-4, one.slope, atol=1e-6, rtol=1e-5)
        assert abs(float(one.slope.sum())) < 1e-10  # logits without their mean


def test_exact_changes_are_those_of_the_network_from_there_on() -> None:
    data = named_data(50, batch_size=20)
    net, bases, graph, _ = analysed(two_tasks(), data, kind="global")
    effects = Effects(net, bases, list(data), steps=steps_of(list(graph.widths), 0.5))
    for i in range(3):
        shift = 0.5 * torch.from_numpy(bases[0].from_basis[:, i])
        expected = (net.model(data.inputs + shift) - net.model(data.inputs)).detach()
        found = effects.of(0, i)
        torch.testing.assert_close(found.up, expected.mean(0), atol=1e-12, rtol=1e-10)
        torch.testing.assert_close(found.up_error, expected.std(0) / 50**0.5, atol=1e-12, rtol=1e-8)


@pytest.mark.parametrize("repetitions", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_standard_errors_hold(repetitions: int) -> None:
    """Means over fresh samples are off the mean over many data points by as much as their errors say."""
    data = named_data(4000, seed=5)
    net, bases, _, _ = analysed(two_tasks(), data, kind="global")
    steps = {0: {0: 1.0, 1: 1.0}}
    whole = Effects(net, bases, [data.inputs], steps=steps)
    truth = [whole.of(0, i).up for i in range(2)]
    z = []
    for seed in range(repetitions):
        sample = Effects(net, bases, [normal(40, 6, seed=1000 + seed)], steps=steps)
        for i in range(2):
            found = sample.of(0, i)
            active = found.up_error > 1e-9
            z.append(((found.up - truth[i]) / found.up_error)[active])
    scores = torch.cat(z).numpy()
    n = len(scores)
    assert n > 300
    assert abs(scores.mean()) < 4 * np.sqrt(1 / repetitions + 40 / 4000)  # outputs and nodes of a sample go together
    assert 0.8 < scores.std() < 1.25
    assert (abs(scores) > 4).mean() < 2e-3  # Student's t of 39 degrees of freedom has 3e-4


def test_interactions_and_features_are_those_of_the_weights() -> None:
    data = named_data(60)
    net, bases, _, _ = analysed(two_tasks(relu=False), data)
    found = influences(
        net, bases, [data.inputs[:20], data.inputs[20:]], cut=1, nodes=[2, 0], earlier=[0], features=True
    )
    assert isinstance(net.model, nn.Sequential)
    rows = torch.from_numpy(bases[1].to_basis[[2, 0]]) @ net.model[0].weight.detach()
    torch.testing.assert_close(found.features, rows, atol=1e-10, rtol=0)
    torch.testing.assert_close(found.energies, rows.square(), atol=1e-10, rtol=0)
    mean, error = found.earlier[0]
    torch.testing.assert_close(mean, rows @ torch.from_numpy(bases[0].from_basis), atol=1e-10, rtol=0)
    assert float(error.max()) < 1e-10


def test_means_merge() -> None:
    values = normal(30, 4)
    found = Means()
    for part in values.split([1, 10, 19]):
        found.add(part)
    torch.testing.assert_close(found.mean, values.mean(0))
    torch.testing.assert_close(found.error, values.std(0) / 30**0.5)
    torch.testing.assert_close(found.mean_square, values.square().mean(0))
