"""What large models need: few vectors in memory, targets that are not kept, refusals before anything starts."""

from typing import Any

import numpy as np
import pytest
import torch
from cases import normal
from torch import Tensor, nn

from interbasis.analysis.errors import InputError
from interbasis.analysis.linalg import lanczos
from interbasis.analysis.llc import curvature, estimate, network_loss
from interbasis.analysis.llc.chains import Sampler
from interbasis.analysis.llc.curvature import affordable_pairs, exact_curvature, leading_curvature
from interbasis.analysis.llc.estimate import learning_coefficient
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
