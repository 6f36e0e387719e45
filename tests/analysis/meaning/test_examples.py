"""The streaming records: what must hold however the data are cut into batches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interbasis.analysis.meaning.examples import Around, Extremes, Histogram, Sample, best_rows, priorities


def brute_force(values: np.ndarray, k: int) -> list[int]:
    """Numbers of the k largest values, ties in order."""
    return sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]


def streamed(values: Tensor, sizes: list[int], k: int, sign: int, window: int = 0, before: int = 0) -> Extremes:
    found = Extremes(len(values), k, window, sign=sign)
    first = 0
    for part in values.split(sizes, 1):
        found.add(part, Around(slice(None), None, (part.shape[1], part.shape[2]), before), first)
        first += part.shape[1]
    return found


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-2, 2), min_size=1, max_size=30), st.integers(1, 5), st.data())
def test_extremes_are_those_of_a_sort_with_ties_in_order(numbers: list[int], k: int, data: st.DataObject) -> None:
    values = torch.tensor(numbers, dtype=torch.float64)
    assert best_rows(values[None], k)[0].tolist() == brute_force(values.numpy(), k)
    cut = data.draw(st.integers(0, len(numbers) - 1))
    sizes = [part for part in (cut, len(numbers) - cut) if part]
    for sign in (1, -1):
        found = streamed(values[None, :, None], sizes, k, sign)
        expected = brute_force(sign * values.numpy(), k)
        assert found.points[0].tolist() == expected
        assert torch.equal(found.values[0], values[expected])


def test_each_data_point_is_listed_once_at_its_largest_position() -> None:
    values = torch.randn(3, 40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = streamed(values, [15, 1, 24], 6, 1, window=4, before=2)
    for node in range(3):
        own = values[node].numpy()
        expected = brute_force(own.max(1), 6)
        assert found.points[node].tolist() == expected
        for rank, point in enumerate(expected):
            position = int(own[point].argmax())
            assert found.positions[node, rank] == position
            around = [own[point, p] if 0 <= p < 7 else np.nan for p in range(position - 2, position + 2)]
            np.testing.assert_array_equal(found.windows[node, rank].numpy(), around)


def test_positions_that_do_not_count_are_no_examples() -> None:
    values = torch.tensor([[[5.0, 1.0], [0.0, 2.0]]], dtype=torch.float64)
    mask = torch.tensor([[False, True], [True, True]])
    found = Extremes(1, 2, 3)
    found.add(values, Around(slice(None), mask, (2, 2), 1), 0)
    assert found.values[0].tolist() == [2.0, 1.0]
    assert torch.isnan(found.windows[0, 1]).tolist() == [True, False, True]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=40), st.integers(0, 40))
def test_histogram_does_not_depend_on_batches(numbers: list[float], cut: int) -> None:
    values = np.array([numbers, [-v / 3 for v in numbers]])
    whole, parts = Histogram(np.ones(2)), Histogram(np.ones(2))
    whole.add(values)
    for part in (values[:, :cut], values[:, cut:]):
        parts.add(part)
    assert np.array_equal(whole.counts, parts.counts)
    assert np.array_equal(whole.exponents, parts.exponents)
    np.testing.assert_allclose(parts.variance, values.var(1), rtol=1e-9, atol=1e-9 * float(np.abs(values).max()) ** 2)
    listed = whole.of(0)
    assert sum(listed["counts"]) == len(numbers)  # type: ignore[arg-type]
    assert listed["start"] <= min(numbers)  # type: ignore[operator]
    assert listed["start"] + listed["width"] * len(listed["counts"]) > max(numbers)  # type: ignore[operator, arg-type]


def test_variance_of_values_far_from_zero_keeps_its_digits() -> None:
    values = 1e9 + np.array([[0.0, 1.0, 2.0, 3.0]])
    histogram = Histogram(np.ones(1))
    for value in values.T:
        histogram.add(value[:, None])
    assert histogram.mean[0] == 1e9 + 1.5
    assert histogram.variance[0] == 1.25


@pytest.mark.parametrize("sizes", [[100], [1] * 100, [37, 3, 60]])
def test_a_sample_does_not_depend_on_batches(sizes: list[int]) -> None:
    found, held = Sample(10, 0), np.full(10, -1)
    first = 0
    for size in sizes:
        rows, places = found.add(first, size)
        held[places] = rows + first
        first += size
    expected = np.argsort(priorities(np.arange(100), 0))[:10]
    assert sorted(found.points.tolist()) == sorted(expected.tolist()) == sorted(held.tolist())
    assert np.array_equal(found.points, held)


def test_priorities_are_uniform_and_independent_of_one_another() -> None:
    one, other = (priorities(np.arange(20_000), seed) for seed in (0, 1))
    counts = np.histogram(one, 20, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 19 + 4 * np.sqrt(38)  # chi squared
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(20_000)
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 4 / np.sqrt(20_000)
