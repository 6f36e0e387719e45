"""What an analysis will take: the predicted number of backward passes is the number that it takes."""

from typing import Any

import pytest
import torch
from cases_transformers import random_tokens, transformer

from interbasis.analysis import Network, interaction_basis, interaction_graph
from interbasis.analysis.basis import cotangents
from interbasis.analysis.graph import forecast as forecasts
from interbasis.analysis.graph.forecast import Forecast, forecast
from interbasis.analysis.huggingface.language import assumed_network
from interbasis.analysis.network.batches import Batch
from interbasis.analysis.progress import Progress
from interbasis.analysis.recipe import GraphRecipe, build_bases


def decoder() -> tuple[Network, list[Batch]]:
    batches: list[Batch] = list(random_tokens(12, 5).split(4))
    return assumed_network(transformer("gpt2"), batches, cuts="auto")[0], batches


def convolutions() -> tuple[Network, list[Batch]]:
    torch.manual_seed(0)
    parts = [torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Tanh()]
    model = torch.nn.Sequential(*parts, torch.nn.Flatten(), torch.nn.Linear(4 * 36, 3)).double()
    data = torch.randn(30, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Network(model, ["1", "3", "5"]), list(data.split(10))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Single cotangents pulled back, in blocks of one, with the target: an output or a cut."""
    seen: list[tuple[str, int]] = []
    plain = Network.vjps

    def counted(net: Network, trace: Any, target: Any, cuts: Any, block: Any) -> Any:
        seen.append(("output" if target is trace.output else "pair", len(block)))
        return plain(net, trace, target, cuts, block)

    monkeypatch.setattr(Network, "vjps", counted)
    monkeypatch.setattr(forecasts, "BLOCK", 1)
    monkeypatch.setattr(cotangents, "_rows_per_block", lambda entries, block=1: 1)
    return seen


def count(seen: list[tuple[str, int]], target: str) -> int:
    return sum(number for of, number in seen if of == target)


def predicted(monkeypatch: pytest.MonkeyPatch, net: Network, batches: list[Batch], **options: Any) -> Forecast:
    with monkeypatch.context() as patch:
        patch.setattr(forecasts, "_timed", lambda run: 1.0)
        return forecast(net, batches, **options)


def test_exact_sums_take_the_passes_predicted(passes: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    net, batches = convolutions()
    net.check_once(batches)
    said = predicted(monkeypatch, net, batches)
    passes.clear()
    bases = interaction_basis(net, batches, rotation="none")
    assert said.basis == said.basis_most == count(passes, "output") == 3 * 3
    passes.clear()
    graph = interaction_graph(net, bases, batches)
    groups = sum(said.pairs[:1]) / 3 / 4
    assert 9 <= groups < 36, "positions a picture apart are taken together"
    assert graph.widths[1:] == (4, 3), "every coordinate is kept"
    assert said.strengths <= count(passes, "pair") <= said.strengths + 3 * 40, "and passes that find the groups"


def test_estimates_take_the_passes_predicted(passes: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    net, batches = decoder()
    net.check_once(batches)
    said = predicted(monkeypatch, net, batches, probes=(2, 5))
    passes.clear()
    bases = interaction_basis(net, batches, probes=2)
    assert said.basis == count(passes, "output") == 3 * 2 * 2
    assert said.basis_most == said.basis * 5 / 2
    passes.clear()
    graph = interaction_graph(net, bases, batches, probes=1)
    assert count(passes, "pair") == 3 * sum(graph.widths[1:])
    assert said.strengths == 3 * sum(net.widths[1:]), "of all features, of which some may be dropped"


@pytest.mark.usefixtures("passes")
def test_kinds_without_jacobians_take_none(monkeypatch: pytest.MonkeyPatch) -> None:
    net, batches = decoder()
    net.check_once(batches)
    assert predicted(monkeypatch, net, batches, kind="pca", probes=(1, 1)).basis == 0
    local = predicted(monkeypatch, net, batches, kind="local", probes=(1, 1))
    assert local.basis == local.strengths
    one, three = (predicted(monkeypatch, net, batches, kind="neuron", points=points) for points in (1, 3))
    assert three.strengths == 3 * one.strengths > 3 * local.strengths, "attributions take exact sums, at each point"


def test_time_is_said_where_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    net, batches = decoder()
    said: list[Progress] = []
    build_bases(net, batches, GraphRecipe(basis="pca", probes=1), progress=said.append)
    assert "forecast" not in {report.step for report in said}
    monkeypatch.setattr("interbasis.analysis.recipe._LONG", 0.0)
    said.clear()
    build_bases(net, batches, GraphRecipe(basis="pca", probes=1), progress=said.append)
    (message,) = (report.message for report in said if report.step == "forecast")
    assert message.startswith("passes of bases and strengths will take about")
