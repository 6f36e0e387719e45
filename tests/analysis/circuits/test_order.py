"""What is paired with data points by order: other orders are refused, whatever gives them; elsewhere none matters."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from cases_circuits import WIDTH, Planted
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler, WeightedRandomSampler

from interbasis.analysis import Dataset, ablate_modules, coordinate_correlation, interaction_basis, isolate_modules
from interbasis.analysis.circuits.interventions import Interventions
from interbasis.analysis.circuits.order import read_in_order
from interbasis.analysis.errors import DataError


class Passes:
    """An iterable whose every pass has an order of its own, as loaders of other libraries have."""

    def __init__(self, x: Tensor, size: int, orders: Sequence[Sequence[int]]):
        self.x, self.size, self.orders, self.count = x, size, orders, 0

    def __iter__(self) -> Iterator[Tensor]:
        order = self.orders[min(self.count, len(self.orders) - 1)]
        self.count += 1
        yield from self.x[list(order)].split(self.size)


class Stream(IterableDataset[Tensor]):
    """A data set without indices."""

    def __init__(self, passes: Passes):
        self.passes = passes

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.passes:
            yield from batch


@st.composite
def orders(draw: st.DrawFn) -> tuple[Tensor, int, list[int]]:
    n = draw(st.integers(2, 9))
    x = torch.arange(2.0 * n, dtype=torch.float64).reshape(n, 2)
    return x, draw(st.integers(1, n)), draw(st.permutations(range(n)))


@given(orders(), st.sampled_from(["passes", "stream", "sampler", "batches", "iterator"]))
@settings(max_examples=60, deadline=None)
def test_only_the_order_of_the_data_is_taken(case: tuple[Tensor, int, list[int]], how: str) -> None:
    x, size, order = case
    straight = list(range(len(x)))
    loader: Any
    if how == "passes":
        loader = Passes(x, size, [straight, order])
    elif how == "stream":
        loader = DataLoader(Stream(Passes(x, size, [straight, order])), batch_size=size)
    elif how == "batches":
        loader = DataLoader(x, batch_sampler=[order[i : i + size] for i in range(0, len(x), size)])
    else:
        loader = DataLoader(x, batch_size=size, sampler=order)
        loader = iter(loader) if how == "iterator" else loader
    if order == straight:
        assert torch.equal(torch.cat(read_in_order(loader)), x)
    else:
        with pytest.raises(DataError, match=r"another order.*shuffle=False"):
            read_in_order(loader)


@given(orders())
@settings(max_examples=20, deadline=None)
def test_orders_that_are_kept_are_taken(case: tuple[Tensor, int, list[int]]) -> None:
    x, size, order = case
    mine = [x[list(order)], x]
    for batches in (mine, tuple(mine), Dataset("x", x, batch_size=size), (b for b in mine), DataLoader(x, size)):
        expected = torch.cat(list(batches)) if not isinstance(batches, Iterator) else torch.cat(mine)
        assert torch.equal(torch.cat(read_in_order(batches)), expected)
    assert torch.equal(torch.cat(read_in_order(Passes(x, size, [order]))), x[list(order)])
    with_nan = x.clone()
    with_nan[0] = torch.nan
    assert len(read_in_order(Passes(with_nan, size, [order]))) == -(-len(x) // size)


@pytest.mark.parametrize("random", ["shuffle", "subset", "weighted", "fewer", "noise"])
def test_random_loaders_are_refused_by_name(random: str) -> None:
    x = torch.arange(12.0).reshape(6, 2)
    loaders: dict[str, Any] = {
        "shuffle": DataLoader(x, batch_size=2, shuffle=True),
        "subset": DataLoader(x, batch_size=2, sampler=SubsetRandomSampler(range(6))),
        "weighted": DataLoader(x, batch_size=2, sampler=WeightedRandomSampler([1.0] * 6, 6)),
        "fewer": Passes(x, 2, [range(6), range(4)]),
    }
    names = {"shuffle": "RandomSampler", "subset": "SubsetRandomSampler", "weighted": "WeightedRandomSampler"}
    loader = Noisy(x) if random == "noise" else loaders[random]
    with pytest.raises(DataError, match=names.get(random, "in each pass")):
        read_in_order(loader)


class Noisy:
    """Other data in each pass."""

    def __init__(self, x: Tensor):
        self.x, self.chance = x, torch.Generator().manual_seed(0)

    def __iter__(self) -> Iterator[Tensor]:
        yield self.x + torch.randn(self.x.shape, generator=self.chance)


def test_targets_and_named_data_points_need_an_order_and_losses_do_not() -> None:
    case = Planted(2, {})
    net, bases, graph, part, _ = case.args
    answers = net.output(case.x)[:, 0].unflatten(1, (2, WIDTH)).argmax(2)
    straight, shuffled = (DataLoader(case.x, batch_size=16, shuffle=s) for s in (False, True))
    options: dict[str, Any] = {"targets": answers, "metrics": ["accuracy"], "draws": 0}
    assert isolate_modules(net, bases, graph, part, straight, **options).whole.values["accuracy"].value == 1
    assert np.nanmin(ablate_modules(net, bases, graph, part, straight, **options).whole_classes) == 1
    for call in (isolate_modules, ablate_modules):
        with pytest.raises(DataError, match="the loader shuffles"):
            call(net, bases, graph, part, shuffled, **options)
    with pytest.raises(DataError, match="the loader shuffles"):
        ablate_modules(net, bases, graph, part, shuffled, draws=0)
    with pytest.raises(DataError, match="the loader shuffles"):
        Interventions(net, bases, shuffled)
    one, other = (isolate_modules(net, bases, graph, part, data, draws=0) for data in (straight, shuffled))
    assert one.ablated.values["mse"].value == pytest.approx(other.ablated.values["mse"].value, rel=1e-9)


def test_coordinates_are_paired_within_a_pass() -> None:
    case = Planted(2, {}, points=4)
    other = interaction_basis(case.net, [case.x], kind="local", output="neuron")
    pairs = (case.net, case.bases), (case.net, other)
    whole = coordinate_correlation(*pairs, [case.x])
    shuffled = coordinate_correlation(*pairs, DataLoader(case.x, batch_size=5, shuffle=True))
    for a, b in zip(whole, shuffled, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
