"""Batches of any structure: sizes, shared arguments, joining, and data without a length."""

from collections import UserDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from cases import normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from interbasis.analysis.basis.interaction_basis import interaction_basis
from interbasis.analysis.errors import DataError
from interbasis.analysis.network.batches import (
    arguments,
    batch_size,
    joined,
    map_points,
    point_axes,
    read_batches,
    take_points,
    tensors,
)
from interbasis.analysis.network.network import Network
from interbasis.analysis.progress import Progress


class Pair(NamedTuple):
    x: Tensor
    shared: Any


@dataclass
class Held:
    x: Tensor
    shared: Any


CONTAINERS = {
    "tuple": lambda x, s: (x, s),
    "list": lambda x, s: [x, s],
    "dict": lambda x, s: {"x": x, "shared": s},
    "UserDict": lambda x, s: UserDict({"x": x, "shared": s}),
    "named tuple": Pair,
    "dataclass": Held,
    "nested": lambda x, s: {"x": (x, [x + 1]), "shared": {"s": s}},
}


@given(
    st.sampled_from(list(CONTAINERS)),
    st.integers(2, 6),
    st.integers(1, 6),
    st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool]),
    st.sampled_from(["row", "number", "text", "none", "point"]),
)
@settings(max_examples=60, deadline=None)
def test_shared_arguments_are_no_data_points(kind: str, n: int, width: int, dtype: torch.dtype, what: str) -> None:
    shared = {
        "row": torch.arange(width)[None],
        "number": torch.tensor(3.0),
        "text": "mode",
        "none": None,
        "point": torch.zeros(n),
    }[what]
    x = torch.arange(n * width).reshape(n, width).to(dtype)
    batch = CONTAINERS[kind](x, shared)
    assert batch_size(batch) == n
    index = torch.tensor([n - 1, 0])
    seen = take_points(batch, index)
    assert type(seen) is type(batch)
    assert batch_size(seen) == 2
    assert torch.equal(tensors(seen)[0], x[index])
    for before, after in zip(tensors(batch), tensors(seen), strict=True):
        own = before.ndim and len(before) == n
        assert torch.equal(after, before[index] if own else before)
    if kind != "dataclass":  # torch.vmap knows none
        halves = [take_points(batch, slice(0, 1)), take_points(batch, slice(1, None))]
        if n > 2:
            whole = joined([halves[1], halves[0]])
            assert whole is not None
            assert batch_size(whole) == n
            assert torch.equal(tensors(whole)[0], x.roll(-1, 0))


@given(st.integers(2, 7), st.integers(2, 7))
@settings(max_examples=20, deadline=None)
def test_axes_for_vmap_are_those_of_data_points(n: int, width: int) -> None:
    batch = {"x": torch.ones(n, width), "ids": torch.arange(width)[None].double(), "more": (torch.ones(n), "text")}
    assert point_axes(batch) == {"x": 0, "ids": None, "more": (0, None)}
    found = torch.vmap(lambda x, ids: x @ ids[0], in_dims=(point_axes(batch)["x"], point_axes(batch)["ids"]))(
        batch["x"].double(), batch["ids"]
    )
    assert found.shape == (n,)


def test_one_data_point_is_one() -> None:
    assert batch_size((torch.ones(1, 3), torch.ones(1, 2))) == 1
    assert map_points(lambda v: v + 1, (torch.ones(1, 3), torch.ones(1, 2)))[1].tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize("batch", [(torch.ones(4, 2), torch.ones(3, 3)), {"a": "text"}, torch.tensor(1.0)])
def test_sizes_that_do_not_tell_are_refused(batch: Any) -> None:
    with pytest.raises(DataError, match=r"leading axes of different lengths|no tensor with an axis of data points"):
        batch_size(batch)


def test_joining_needs_equal_shapes_and_equal_shared_arguments() -> None:
    a = (torch.ones(2, 3), torch.arange(3)[None])
    assert joined([a, (torch.ones(2, 4), torch.arange(3)[None])]) is None
    assert joined([a, (torch.ones(2, 3), torch.arange(1, 4)[None])]) is None
    assert joined([a, (torch.ones(2, 3), "text")]) is None
    assert joined([a, (torch.ones(2, 3).double(), torch.arange(3)[None])]) is None


def test_arguments_are_copies() -> None:
    x = torch.zeros(3)
    for batch in (x, (x,), [x], {"x": x}, UserDict({"x": x}), Held(x, None)):
        args, kwargs = arguments(batch)
        for value in tensors((args, kwargs)):
            value += 1
    assert not x.any()


class Stream(IterableDataset[Tensor]):
    """Data that can be read any number of times and have no length."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.x)


def test_data_without_a_length_give_the_same_numbers(generator: torch.Generator) -> None:
    x = normal(40, 3, generator=generator)
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2)).double()
    seen: list[Progress] = []
    bases = [
        interaction_basis(Network(model, ["0:in", "0", "2"]), data, progress=seen.append)
        for data in (x.split(8), DataLoader(Stream(x), batch_size=8), DataLoader(x, batch_size=8, shuffle=True))
    ]
    for other in bases[1:]:
        for cut, basis in bases[0].items():
            assert other[cut].importance == pytest.approx(basis.importance)
    assert {report.total for report in seen} == {5, None}


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ((b for b in [torch.ones(2, 2)]), "read only once"),
        (torch.ones(3, 2), r"one tensor of shape \(3, 2\): expected a list of batches"),
        ({"x": torch.ones(2)}, "batches is dict"),
        ([], "no batches"),
        ([torch.ones(0, 2)], "holds no data point"),
    ],
)
def test_data_that_cannot_be_read_are_refused(batches: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(read_batches(batches, "step", None))
