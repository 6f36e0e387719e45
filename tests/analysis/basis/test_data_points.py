"""How many data points are enough: fewer where they agree, all where they do not, the same ones for the graph."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cases_transformers import random_tokens, transformer
from hypothesis import given
from hypothesis import strategies as st

from interbasis.analysis import Network, interaction_basis, interaction_graph
from interbasis.analysis.basis.data_points import SomePoints, enough_points, random_points
from interbasis.analysis.graph import graph_remarks
from interbasis.analysis.huggingface.language import assumed_network
from interbasis.analysis.network.batches import Batch


def linear(spread: float) -> Network:
    """Outputs exp(spread x0) (x1 + x2): the larger the spread, the more its few largest data points decide."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(3, 3, bias=False)
            self.first.weight = torch.nn.Parameter(torch.eye(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            return (spread * x[:, :1].detach()).exp() * (x[:, 1:2] + x[:, 2:])

    return Network(Model().double(), ["first:in", "first"], check=False)


def inputs(n: int) -> torch.Tensor:
    return torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_points_drawn_are_those_of_a_sort_whatever_the_batches(sizes: list[int], share: float, seed: int) -> None:
    n, data = sum(sizes), torch.arange(sum(sizes))
    taken = int(share * n)
    whole = list(random_points([data], taken, seed))
    split = list(random_points(data.split(sizes), taken, seed))
    index = np.random.default_rng(seed).permutation(n)[:taken]
    for found in (whole, split):
        drawn: list[int] = torch.cat([*found, data[:0]]).tolist()  # type: ignore[arg-type]
        assert drawn == sorted(set(drawn))
        assert len(drawn) == taken
    assert torch.equal(torch.cat([*whole, data[:0]]), torch.cat([*split, data[:0]]))  # type: ignore[arg-type]
    some = torch.cat([*SomePoints(data.split(sizes), index), data[:0]])  # type: ignore[arg-type]
    assert some.tolist() == sorted(index.tolist())
    fewer = set(torch.cat([*random_points([data], taken // 2, seed), data[:0]]).tolist())  # type: ignore[arg-type]
    assert fewer <= set(torch.cat([*whole, data[:0]]).tolist())  # type: ignore[arg-type]


def error_of(net: Network, n: int, seed: int, tolerance: float = 1e-9) -> Any:
    return enough_points(net, [inputs(n)], {0: torch.eye(3, dtype=torch.float64)}, tolerance=tolerance, seed=seed)


def test_equal_jacobians_need_the_fewest_points() -> None:
    """J = (0, 1, 1) at every data point: both halves give the same moments, exactly."""
    found = error_of(linear(0.0), 1000, 0, tolerance=0.01)
    assert found.taken == 128
    assert found.error < 1e-12


def test_error_is_that_of_a_mean_over_the_data() -> None:
    """M = E[exp(2 s x0)] (0, 1, 1)(0, 1, 1)^T, and exp(2 s x0) has a relative variance of exp(4 s^2) - 1."""
    spread, n = 0.3, 512
    errors = [error_of(linear(spread), n, seed) for seed in range(40)]
    assert {found.taken for found in errors} == {n}
    expected = np.sqrt(np.expm1(4 * spread**2) / n)
    mean = np.mean([found.error for found in errors])
    assert abs(mean - expected) < 0.15 * expected, "all parts are of the same data, whose own variance is 8 % off"


def test_fewer_points_do_for_a_larger_tolerance() -> None:
    net = linear(0.3)
    loose, tight = (error_of(net, 4096, 0, tolerance) for tolerance in (0.1, 0.02))
    assert loose.taken < tight.taken
    assert loose.error <= 0.1
    assert tight.error <= 0.02 or tight.taken == 4096
    batched = enough_points(net, inputs(4096).split(100), {0: torch.eye(3, dtype=torch.float64)}, tolerance=0.1, seed=0)
    assert (batched.taken, batched.error) == (loose.taken, pytest.approx(loose.error, rel=1e-9))


def test_graph_takes_the_points_of_the_bases_and_says_how_many() -> None:
    batches: list[Batch] = list(random_tokens(160, 4).split(40))
    net, _ = assumed_network(transformer("gpt2"), batches, cuts="auto")
    bases = interaction_basis(net, batches, tolerance=0.3)
    taken: Any = bases.settings["data_points"]
    assert taken == 128
    assert 0 < float(bases.settings["sampling_error"]) <= 0.3  # type: ignore[arg-type]
    graph = interaction_graph(net, bases, batches, probes=1)
    plain = replace(bases, settings={**bases.settings, "data_points": None})
    alone = interaction_graph(net, plain, list(random_points(batches, taken, 0)), probes=1)
    for one, other in zip(graph.blocks, alone.blocks, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    said = " ".join(graph_remarks(graph, [0.0] * len(graph.blocks)))
    assert f"Jacobians were computed at {taken} data points" in said
    assert "asked for" not in said
    few = interaction_graph(net, interaction_basis(net, [batches[0][:20]], tolerance=0.3), [batches[0][:20]], probes=1)  # type: ignore[index]
    settings = {**few.settings, "tolerance": 1e-4}
    told = " ".join(graph_remarks(replace(few, settings=settings), [0.0] * len(few.blocks)))
    assert "computed at 20 data points" in told
    assert "and not the 0.0% asked for: give more data points" in told
    most = interaction_basis(net, batches, tolerance=0.3, probes=4)
    assert "data_points" not in most.settings, "beside a number of probes every data point is taken"
