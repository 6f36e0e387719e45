"""What large models need: few vectors in memory, targets that are not kept, refusals before anything starts."""

from typing import Any

import numpy as np
import pytest
import torch
from cases import normal
from torch import Tensor, nn

from interbasis.analysis.errors import InputError
from interbasis.analysis.linalg import lanczos
from interbasis.analysis.llc import chains, curvature, estimate, kernels, network_loss
from interbasis.analysis.llc.chains import Plan, Sampler, run_chains
from interbasis.analysis.llc.curvature import Metric, affordable_pairs, exact_curvature, leading_curvature
from interbasis.analysis.llc.estimate import learning_coefficient
from interbasis.analysis.llc.kernels import Potential
from interbasis.analysis.llc.network_loss import behavioural_loss
from interbasis.analysis.network.network import Network

SHORT = Sampler(kernel="sgld", preconditioner="none", chains=2, warmup=6, draws=20)


class Branching(nn.Module):
    """Branches on its mask, as transformers does, which `torch.vmap` over data points does not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(input_ids)
        x = x if attention_mask.all() else x * attention_mask[..., None]
        return self.head(torch.tanh(x + x.cumsum(1)))


def tokens(count: int) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(3)
    mask = torch.ones(count, 4, dtype=torch.long)
    mask[:2, 3:] = 0
    return {"input_ids": torch.randint(0, 5, (count, 4), generator=draws), "attention_mask": mask}


def branching() -> Network:
    torch.manual_seed(0)
    return Network(Branching().double(), [], loss="kl", mask="attention_mask")


def test_lanczos_with_two_vectors_gives_the_same_sums() -> None:
    values = torch.linspace(0.1, 1, 300, dtype=torch.float64) ** 4
    start = normal(300, generator=torch.Generator().manual_seed(0))
    (nodes, weights), (few, shares) = (lanczos(lambda v: values * v, start, 60, kept=kept) for kept in (True, False))
    for function in (np.sqrt, lambda x: x / (x + 0.01), np.square):
        each = torch.from_numpy(np.asarray(function(values.numpy())))
        expected = float((start.square() * each).sum() / start.square().sum())
        assert float((weights * function(nodes)).sum()) == pytest.approx(expected, rel=1e-4)
        assert float((shares * function(few.clip(0))).sum()) == pytest.approx(expected, rel=1e-4)


def test_no_eigenpairs_are_searched_for_without_a_preconditioner(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = behavioural_loss(branching(), [tokens(12)])
    monkeypatch.setattr(curvature, "eigsh", None)
    found = leading_curvature(loss, 0, seed=0)
    assert found.vectors.shape == (len(loss.start), 0)
    whole = exact_curvature(loss, [loss.start])
    assert found.largest == pytest.approx(whole.largest, rel=1e-6)
    assert found.rest == found.largest
    assert found.metric(1.0, 1.0)(loss.start[None]).shape == (1, len(loss.start))


def test_eigenpairs_are_as_many_as_their_vectors_fit() -> None:
    assert [affordable_pairs(d, 128) for d in (10**5, 10**7, 10**9)] == [128, 17, 1]


@pytest.mark.parametrize("vectorised", [True, False])
def test_outputs_that_are_not_kept_change_nothing(vectorised: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [tokens(12), tokens(7)]
    expected = behavioural_loss(branching(), batches)
    monkeypatch.setattr(network_loss, "_HELD", 1)
    found = behavioural_loss(branching(), batches)
    expected.vectorised = found.vectorised = vectorised
    assert all(target is None for _, target in found._batches)
    theta = expected.start + 0.1 * torch.ones(1, len(expected.start), dtype=torch.float64)
    for a, b in zip(found.evaluate(theta), expected.evaluate(theta), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found.product(found.start, theta), expected.product(found.start, theta))
    assert found.scale == pytest.approx(expected.scale, rel=1e-12)


def test_random_data_points_of_a_model_that_branches_on_its_mask() -> None:
    loss = behavioural_loss(branching(), [tokens(8)])
    points = torch.tensor([[0, 5], [7, 7]])
    theta = loss.start + 0.1 * torch.ones(2, len(loss.start), dtype=torch.float64)
    value, slope = loss.evaluate(theta, points)
    for row in range(2):
        part = {name: value[points[row]] for name, value in tokens(8).items()}
        alone = behavioural_loss(Network(branching().model, [], loss="kl", mask="attention_mask", check=False), [part])
        again, other = alone.evaluate(theta[row : row + 1])
        torch.testing.assert_close((value[row], slope[row]), (again[0], other[0]))


def test_minibatches_of_tokens_are_sampled() -> None:
    options: dict[str, Any] = {"temperature": 100.0, "sampler": Sampler(**(vars(SHORT) | {"batch_size": 4}))}
    found = learning_coefficient(branching(), [tokens(12)], **options)
    assert np.isfinite(found.value)
    assert found.diagnostics.preconditioner == "none"


def test_what_does_not_fit_into_memory_is_refused_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "memory_left", lambda device: 1000)
    monkeypatch.setattr(estimate, "fits_densely", lambda landscape: False)
    with pytest.raises(InputError, match=r"2 chains of 35 parameters in torch.float64 take about 0 MiB \(65 vectors\)"):
        learning_coefficient(branching(), [tokens(12)], temperature=100.0, sampler=SHORT)


def test_fewer_eigenpairs_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curvature, "_PAIR_NUMBERS", 35 * 7)
    sampler = Sampler(**(vars(SHORT) | {"preconditioner": "lanczos"}))
    found = learning_coefficient(branching(), [tokens(12)], temperature=100.0, sampler=sampler)
    assert "2 eigenpairs of the curvature instead of 17" in found.diagnostics.notes[-1]


# Chains one after another, in place


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (chains, network_loss, estimate, curvature):
        monkeypatch.setattr(module, "LARGE", 10)


@pytest.mark.parametrize("kernel", ["sgld", "psgld"])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_chains_in_place_are_those_that_run_together(
    kernel: str, batch_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for large in (10**5, 10):
        monkeypatch.setattr(network_loss, "LARGE", large)
        monkeypatch.setattr(chains, "LARGE", large)
        loss = behavioural_loss(branching(), [tokens(8), tokens(5)])
        spectrum = leading_curvature(loss, 0, seed=0)
        execution = "sequential" if large == 10 else "vectorised"
        found.append(
            run_chains(
                Potential(loss, 100.0, 5.0, batch_size),
                kernel,
                spectrum,
                Plan(chains=2, warmup=12, draws=9, execution=execution),
                metric=Metric((100.0 * spectrum.largest + 5.0) ** -0.5),
            )
        )
    together, alone = found
    assert alone.state is None
    assert together.state is not None
    for name in ("loss", "virial", "radius", "step_size"):
        np.testing.assert_allclose(getattr(alone, name), getattr(together, name), rtol=1e-9)
    assert [torch.equal(a, b) for a, b in zip(alone.generators, together.generators, strict=True)] == [True, True]


def test_noise_in_blocks_is_that_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_BLOCK", 32)
    for size in (5, 32, 47, 50, 100):
        for dtype in (torch.float32, torch.float64):
            whole = torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=dtype, device="cpu")
            generator = torch.Generator().manual_seed(1)
            parts = [kernels.block_of_noise(generator, whole[part]) for part in kernels.blocks(size)]
            assert torch.equal(torch.cat(parts), whole)


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_gradients_and_curvature_with_few_vectors(loss: str) -> None:
    network = Network(branching().model, [], loss=loss, mask="attention_mask")
    few = behavioural_loss(network, [tokens(12), tokens(7)])
    plain = behavioural_loss(network, [tokens(12), tokens(7)])
    plain._alone = None
    assert few._ahead
    theta = few.start + 0.1 * torch.ones(1, len(few.start), dtype=torch.float64)
    for points in (None, torch.tensor([[0, 3, 3, 9]])):
        for a, b in zip(few.evaluate(theta, points), plain.evaluate(theta, points), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(few.product(few.start, theta), plain.product(few.start, theta))


@pytest.mark.usefixtures("all_large")
def test_the_bias_of_steps_and_random_batches_is_that_of_a_quadratic() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 5, dtype=torch.float64)
    network = Network(nn.Linear(5, 4).double(), [])
    biases = {}
    for batch_size in (None, 4):
        sampler = Sampler(
            kernel="sgld", gamma=50.0, batch_size=batch_size, warmup=30, draws=500, step_size=0.4, chains=2
        )
        found = learning_coefficient(network, [x], temperature=1e4, sampler=sampler)
        biases[batch_size] = found.diagnostics.step_bias
        off = found.diagnostics.plain - found.diagnostics.soft_rank  # L is quadratic: all of this is bias
        assert abs(off - biases[batch_size]) < 4 * found.diagnostics.plain_error + 0.15 * biases[batch_size]
        assert found.interval[0] - 4 * found.standard_error < found.diagnostics.soft_rank
    assert biases[4] > biases[None] > 0


def test_large_models_take_the_field_sampler_by_default() -> None:
    assert estimate.default_kernel(10**6, 100) == "psgld"
    assert estimate.default_kernel(50_000, 10**4) == "sgld"
    assert estimate.default_kernel(5_000, 100) == "hmc"
