"""Data as users have it: which shapes are taken, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from interbasis.analysis.errors import DataError
from interbasis.analysis.pipeline.data import read_data

X = torch.randn(600, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(600) % 5


class Optional(nn.Module):
    """Takes one or two arguments."""

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        return x if scale is None else x * scale[:, None]


class Pair(nn.Module):
    """Takes two arguments."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * y[:, None]


ONE = nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("data", "labelled"),
    [
        (X, False),
        (X.numpy(), False),
        ((X, Y), True),
        (TensorDataset(X, Y), True),
        (DataLoader(TensorDataset(X, Y), batch_size=100), True),
        (DataLoader(TensorDataset(X), batch_size=100), False),
        (list(X.split(100)), False),
        ([(X[:300], Y[:300]), [X[300:], Y[300:]]], True),
        ([[x] for x in X.split(100)], False),
        ([X[:0], X], False),
    ],
)
@pytest.mark.parametrize(
    "model", [ONE, nn.DataParallel(ONE), torch.compile(ONE, backend="eager")], ids=["plain", "parallel", "compiled"]
)
def test_inputs_and_labels_are_told_apart(data: Any, labelled: bool, model: nn.Module) -> None:
    found = read_data(model, data)
    assert torch.equal(torch.cat(found.batches), X)
    assert found.n == 600
    assert torch.equal(found.targets, Y) if labelled else found.targets is None  # type: ignore[arg-type]


def test_models_of_several_arguments_get_them() -> None:
    assert read_data(Pair(), (X, Y)).targets is None
    found = read_data(Pair(), [(X, Y, Y + 1)])
    assert torch.equal(found.targets, Y + 1)  # type: ignore[arg-type]
    assert len(found.batches[0]) == 2
    (named,) = read_data(Pair(), {"x": X[:9].numpy(), "y": Y[:9]}).batches
    assert torch.equal(named["x"], X[:9])
    with pytest.raises(DataError, match="batches hold 2 entries, and the model takes 1 to 2 arguments: say whether"):
        read_data(Optional(), [(X, Y)])
    assert read_data(Optional(), [(X, Y)], labels=True).targets is not None
    assert read_data(Optional(), [(X, Y)], labels=False).targets is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((x for x in [X]), "the data are a generator: pass a list"),
        ([], "there are no data"),
        ([X[:0]], "there are no data"),
        ("images/", "the data are a str: expected a tensor"),
        (3, "the data are a int: expected a tensor"),
        ({}, "the data are a dict without a tensor"),
        ([(X[0], 3), (X[1], 4)], "a batch ends in a int, or has it as labels, without a number for each data point"),
        ([(X, Y, Y)], "batches hold 3 entries, and the model takes 1 arguments: expected"),
        ([(X, Y[:-1])], "a batch holds 600 data points and 599 labels"),
        ([X, Y], "the data are a list of two tensors of 600 entries"),
        ([(X, Y), X], "the labels of some batches have other shapes"),
        ([(X, Y), (X, torch.stack([Y, Y], 1))], "the labels of some batches have other shapes"),
    ],
)
def test_what_is_no_data_is_refused(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_data(ONE, data)
    with pytest.raises(DataError, match="without labels: labels=True needs tuples"):
        read_data(ONE, X, labels=True)


def test_labels_of_mappings_are_those_with_that_name() -> None:
    found = read_data(ONE, {"input": X, "labels": Y})
    assert torch.equal(found.targets, Y)  # type: ignore[arg-type]
    assert set(found.batches[0]) == {"input"}
    assert "labels" in read_data(ONE, {"input": X, "labels": Y}, labels=False).batches[0]


def test_streams_are_read_in_batches() -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(zip(X, Y, strict=True))

    found = read_data(ONE, Stream())
    assert torch.equal(torch.cat(found.batches), X)
    assert torch.equal(found.targets, Y)  # type: ignore[arg-type]


def test_random_data_are_read_once() -> None:
    """Augmented data differ each time they are read: all passes see the same ones."""

    read: list[int] = []

    class Augmented(torch.utils.data.Dataset[Tensor]):
        def __len__(self) -> int:
            return 10

        def __getitem__(self, i: int) -> Tensor:
            read.append(i)
            return torch.from_numpy(np.random.default_rng().normal(size=3))

    found = read_data(ONE, Augmented())
    for _ in range(2):
        assert sum(map(len, found.batches)) == found.n == len(read) == 10


@pytest.mark.parametrize("given", [[0, 1, 2], np.array([0, 1, 2]), (0.5, 1.0, 2.0)])
def test_labels_may_be_lists_and_arrays(given: Any) -> None:
    found = read_data(ONE, {"input": torch.zeros(3, 3), "labels": given})
    assert found.targets is not None
    assert found.targets.tolist() == list(given)


def test_labels_that_are_names_are_refused() -> None:
    for data in ({"input": torch.zeros(2, 3), "labels": ["a", "b"]}, [(torch.zeros(2, 3), ("a", "b"))]):
        with pytest.raises(DataError, match="number classes that have names"):
            read_data(ONE, data)
    with pytest.raises(DataError, match="an array of type <U1"):
        read_data(ONE, (np.zeros((2, 3)), np.array(["a", "b"])))
