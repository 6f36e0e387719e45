"""Frequencies on cyclic inputs: known functions, the Fourier transform on all pairs, and trained transformers."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from interbasis.analysis import Dataset, interaction_basis, interaction_graph, load_checkpoint, score_partition
from interbasis.analysis.errors import DataError
from interbasis.analysis.meaning import Frequencies, cyclic_inputs, describe

P = 11


def pairs(modulus: int = P) -> torch.Tensor:
    return torch.cartesian_prod(torch.arange(modulus), torch.arange(modulus))


def by_fourier(values: np.ndarray) -> np.ndarray:
    """Share of each frequency k = 1 .. P // 2: power at (k, 0), (0, k), (k, k), (k, -k) and their opposites."""
    power = np.abs(np.fft.fft2(values)) ** 2
    power[0, 0] = 0.0
    shares = []
    for k in range(1, P // 2 + 1):
        modes = {(a * s % P, b * s % P) for a, b in ((k, 0), (0, k), (k, k), (k, -k)) for s in (1, -1)}
        shares.append(sum(power[m] for m in modes) / power.sum())
    return np.array(shares)


def test_shares_are_those_of_the_fourier_transform_in_any_batches() -> None:
    values = np.random.default_rng(0).normal(size=(5, P, P))
    data = torch.from_numpy(values.reshape(5, P * P, 1))
    for sizes in ([P * P], [20, 1, 100]):
        found = Frequencies(5, P, 2, seed=0)
        for rows in torch.arange(P * P).split(sizes):
            found.add(pairs()[rows], data[:, rows])
        np.testing.assert_allclose(found.shares, np.stack([by_fourier(v) for v in values], 1), atol=1e-12)


def test_a_cosine_of_the_sum_is_named() -> None:
    x, y = pairs().double().T
    wave = torch.cos(2 * torch.pi * 3 * (x + y) / P)
    noise = torch.randn(7, P * P, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = Frequencies(8, P, 2, seed=0)
    found.add(pairs(), torch.cat([wave[None], noise])[..., None])
    first, *others = found.facts()
    assert [(one["frequency"], one["arguments"]) for one in first["frequencies"]] == [(3, ["x + y"])]
    assert first["frequencies"][0]["share"] == pytest.approx(1, abs=1e-12)
    assert first["random"][0] < 0.6
    assert all(one["together"] < 0.9 for one in others)


def test_one_input() -> None:
    x = torch.arange(P)
    found = Frequencies(1, P, 1, seed=0)
    found.add(x[:, None], torch.sin(2 * torch.pi * 4 * x.double() / P)[None, :, None])
    assert found.facts()[0]["frequencies"][0]["frequency"] == 4


def test_inputs_that_are_not_cyclic_are_refused() -> None:
    with pytest.raises(DataError, match="expected one or two"):
        cyclic_inputs(torch.tensor([[5, 6]]), 5)


@pytest.mark.skipif("INTERBASIS_TEST_DATA" not in os.environ, reason="needs the trained transformers")
def test_a_transformer_shows_its_algorithm() -> None:
    """The shares that were measured once by the Fourier transform on all 113^2 inputs, before these cards."""
    file = Path(os.environ["INTERBASIS_TEST_DATA"]) / "modadd" / "modadd_p113_seed0.safetensors"
    run = load_checkpoint(file)
    bases = interaction_basis(run.network, run.batches, kind="local")
    graph = interaction_graph(run.network, bases, run.batches)
    one = score_partition(graph, [np.zeros(width, dtype=int) for width in graph.widths], 1e-6)
    whole = torch.cat([pairs(113), torch.full((113**2, 1), 113)], 1)
    data = Dataset("all pairs", whole).named(run.batches.names)
    nodes = [(cut, i) for cut in ("attention", "mlp") for i in range(6)]
    cards = describe(run.network, bases, graph, one, data, nodes=nodes, points=0)
    attention, mlp = ([card.content["frequencies"] for card in cards.nodes[a : a + 6]] for a in (0, 6))
    strongest = [found["frequencies"][0] for found in attention]
    assert [one["frequency"] for one in strongest] == [15, 18, 18, 1, 15, 15]
    measured = [0.991, 0.996, 0.997, 0.987, 0.688, 0.989]
    np.testing.assert_allclose([one["share"] for one in strongest], measured, atol=1e-3)
    two = [sum(one["share"] for one in found["frequencies"][:2]) for found in mlp]
    np.testing.assert_allclose(two, [0.88, 0.98, 0.94, 0.94, 0.81, 0.84], atol=0.01)
    assert cards.node("attention", 0).summary.startswith("cos/sin of 15 (x, y), 99 %")
    assert {one["frequency"] for one in cards.module(0).content["frequencies"]} >= {1, 15, 18}
