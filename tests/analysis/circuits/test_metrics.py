"""A metric gives each data point a value of its own: functions that mix data points are refused, others are not."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from interbasis.analysis import Network, interaction_basis
from interbasis.analysis.circuits.interventions import Interventions
from interbasis.analysis.circuits.metrics import METRICS, find_metric
from interbasis.analysis.errors import DataError

Pointwise = Callable[[Tensor, Tensor], Tensor]

OWN: dict[str, tuple[Pointwise, Pointwise]] = {
    "square": (lambda o, t: (o - t).square().flatten(1).mean(1), lambda o, t: (o - t).square().mean()),
    "worst": (lambda o, t: (o - t).abs().flatten(1).amax(1), lambda o, t: (o - t).abs().max()),
    "cosine": (
        lambda o, t: nn.functional.cosine_similarity(o.flatten(1), t.flatten(1).expand_as(o.flatten(1))),
        lambda o, t: nn.functional.cosine_similarity(o.flatten(), t.flatten(), 0),
    ),
    "outputs": (lambda o, t: o.flatten(1).exp().sum(1), lambda o, t: o.exp().sum()),
    "constant": (lambda o, t: torch.ones(len(o)), lambda o, t: torch.ones(())),
}
"""Metrics of tensors of the same shape, and what each gives a single data point."""

MIXED: dict[str, Pointwise] = {
    "broadcast": lambda o, t: (o - t[:, 0]).square().flatten(1).mean(1),
    "right answers": lambda o, t: (o[..., 0] > t[:, 0, 0]).double().mean(1),
    "standardised": lambda o, t: ((o - o.mean(0)) / o.std(0).clamp_min(1e-9)).flatten(1).sum(1),
    "rank": lambda o, t: o.flatten(1)[:, 0].argsort().argsort().double(),
    "softmax over the batch": lambda o, t: o.flatten(1)[:, 0].softmax(0),
    "other targets": lambda o, t: (o - t.roll(1, 0)).square().flatten(1).mean(1),
}
"""Metrics whose value of a data point depends on the other ones."""


def data(n: int, positions: int, width: int, seed: int, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, positions, width, generator=draws).to(kind) for _ in range(2))  # type: ignore[return-value]


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(sorted(OWN)),
    n=st.integers(1, 9),
    positions=st.integers(1, 4),
    width=st.integers(1, 4),
    seed=st.integers(0, 99),
    kind=st.sampled_from([torch.float32, torch.float64]),
    padded=st.booleans(),
)
def test_metrics_of_single_data_points_pass_and_are_what_each_point_gives(
    name, n, positions, width, seed, kind, padded
) -> None:
    function, alone = OWN[name]
    output, targets = data(n, positions, width, seed, kind)
    counted = torch.ones(n, positions, dtype=torch.bool)
    if padded:
        counted[:, 1:] = torch.rand(n, positions - 1, generator=torch.Generator().manual_seed(seed)) < 0.5
    metric = find_metric(function, higher_is_better=False)
    metric.check_alone(output, output, targets, counted)
    values = metric.values(output, output, targets, counted)
    for point in range(n):
        expected = alone(output[point, counted[point]], targets[point, counted[point]])
        torch.testing.assert_close(values[point], expected.double(), rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(sorted(MIXED)),
    n=st.integers(3, 9),
    width=st.integers(1, 4),
    seed=st.integers(0, 99),
    kind=st.sampled_from([torch.float32, torch.float64]),
)
def test_metrics_that_mix_data_points_are_refused(name, n, width, seed, kind) -> None:
    output, targets = data(n, 1, width, seed, kind)
    output = output + 3 * torch.arange(n)[:, None, None]  # so that ranks and answers differ
    targets = targets + 3 * torch.arange(n).flip(0)[:, None, None]
    metric = find_metric(MIXED[name], higher_is_better=False)
    metric.values(output, output, targets)  # of the right shape: nothing else would notice
    with pytest.raises(DataError, match="does not depend on other data points"):
        metric.check_alone(output, output, targets)


@pytest.mark.parametrize("size", [3, 5])
def test_targets_that_fall_on_positions_are_refused(size: int) -> None:
    output, targets = data(size, size, 2, 0, torch.float64)
    metric = find_metric(lambda o, t: (o - t[:, 0]).square().flatten(1).mean(1), higher_is_better=False)
    with pytest.raises(DataError, match="does not depend on other data points"):
        metric.check_alone(output, output, targets)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_metrics_of_ours_are_of_single_data_points(name: str) -> None:
    output, whole = data(6, 2, 3, 1, torch.float64)
    targets = torch.randint(3, (6, 2), generator=torch.Generator().manual_seed(0))
    values = METRICS[name].values(output, whole, targets)
    for i in range(6):
        one = slice(i, i + 1)
        torch.testing.assert_close(METRICS[name].values(output[one], whole[one], targets[one])[0], values[i])


@pytest.mark.parametrize("sizes", [(20,), (1, 12, 7)])
def test_interventions_refuse_targets_that_broadcast(sizes: tuple[int, ...], generator: torch.Generator) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x = torch.randn(20, 4, dtype=torch.float64, generator=generator)
    y = model(x).detach() + 0.1
    net, batches = Network(model, ["0", "1", "2"]), list(x.split(sizes))
    bases = interaction_basis(net, batches)

    def square(output: Tensor, targets: Tensor) -> Tensor:
        return (output - targets).square().flatten(1).mean(1)

    def right(output: Tensor, targets: Tensor) -> Tensor:
        return (output[:, 0] - targets).square().flatten(1).mean(1)

    options = {"targets": y, "higher_is_better": False}
    with pytest.raises(DataError, match=r"'square' gives data point .*\(\d+, 1, 3\), targets \(\d+, 3\).*output\[:, 0"):
        Interventions(net, bases, batches, metrics=[square], **options)
    study = Interventions(net, bases, batches, metrics=[right], **options)
    np.testing.assert_allclose(study.whole["right"], 0.01, rtol=1e-9)
