"""Data mixed between modules: closed forms of what is followed and what interacts; chance is not taken for modules."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cases import normal, random_mlp
from cases_circuits import Planted
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from interbasis.analysis import (
    Dataset,
    Experiment,
    ExperimentRecipe,
    InteractionGraph,
    Network,
    ablate_modules,
    find_modules,
    interaction_basis,
    interaction_graph,
    isolate_modules,
    score_partition,
)
from interbasis.analysis.circuits.controls import Control, Verdict, against_chance
from interbasis.analysis.circuits.interventions import Interventions
from interbasis.analysis.circuits.metrics import Estimate
from interbasis.analysis.circuits.mixing import Mixing, _searched, mixed_modules, partners
from interbasis.analysis.results import decode, encode
from interbasis.analysis.search.local_search import Effort


class Map(nn.Module):
    """A map from two inputs to outputs, with a cut at each end."""

    def __init__(self, kind: str):
        super().__init__()
        self.enter, self.leave, self.kind = nn.Identity(), nn.Identity(), kind

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.enter(x).unbind(1)
        both = torch.stack([a * b, a + b] if self.kind == "product" else [a.sin() + a, b.exp()], 1)
        return self.leave(both)


def mixed(net: Network, x: Tensor, labels: list[Any], kind: str = "neuron", draws: int = 0) -> Mixing:
    bases = interaction_basis(net, [x], kind=kind, output="neuron")
    graph = interaction_graph(net, bases, [x])
    part = score_partition(graph, labels, 1e-12)
    found = mixed_modules(Interventions(net, bases, [x]), graph, part, part.labels, draws=draws)
    assert found is not None
    return found


def pairs_of(x: Tensor, seed: int = 0) -> Tensor:
    """The data point that takes the place of each."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return x[other]


@pytest.mark.parametrize("seed", [0, 3])
def test_null_graphs_are_divided_as_find_modules_does(seed: int) -> None:
    draws = np.random.default_rng(seed)
    graph = InteractionGraph.from_blocks([draws.exponential(size=(12, 12)) ** 3 for _ in range(2)])
    part = find_modules(graph, epsilon=0.1, k=3, seed=1)
    part = replace(part, objective="layered_modularity", resolution=1.0)
    effort, largest = Effort(restarts=2, kicks=2), max(m.size for m in part.modules)
    largest = max(largest, math.ceil(1.1 * sum(m.size for m in part.modules) / 3))
    slow = [
        find_modules(graph, epsilon=0.1, k=3, max_size=largest, seed=seed, effort=effort),
        find_modules(graph, epsilon=0.1, objective="layered_modularity", resolution=1.0, seed=seed, effort=effort),
    ]
    fast = _searched(graph, part, seed)
    assert len(fast) == len(slow)
    for labels, other in zip(fast, slow, strict=True):
        own, theirs = np.concatenate(labels), np.concatenate(other.labels)
        assert ((own[:, None] == own) == (theirs[:, None] == theirs)).all()
    more = replace(part, n_modules=100)
    assert len(_searched(graph, more, seed)) == 1, "36 nodes are no 100 modules"


def test_a_product_interacts_by_its_closed_form_and_a_sum_does_not(generator: torch.Generator) -> None:
    """(a - a')(b - b') is the second difference of ab: squared, over 4, it is Var a Var b in expectation."""
    x = normal(4000, 2, generator=generator) * torch.tensor([1.0, 3.0])
    labels = [np.array([0, 1])] * 2
    found = mixed(Network(Map("product"), ["enter", "leave"], example=x), x, labels)
    a, b = (x - pairs_of(x)).unbind(1)
    expected = float((a * b).square().mean()) / 4
    assert found.interaction == pytest.approx((expected, expected))
    error = float((a * b).square().std()) / 4 / len(x) ** 0.5
    assert abs(expected - 9) < 5 * error
    change = torch.stack([x.prod(1), x.sum(1)], 1) - torch.stack([pairs_of(x).prod(1), pairs_of(x).sum(1)], 1)
    assert found.variance == pytest.approx(float(change.square().sum(1).mean()) / 2)
    apart = mixed(Network(Map("apart"), ["enter", "leave"], example=x / 3), x / 3, labels)
    assert max(apart.interaction) < 1e-24 * apart.variance
    assert apart.followed == (1, 1)
    assert (apart.others, apart.own) == (0, 0)


def test_shares_of_a_linear_map_are_its_squares(generator: torch.Generator) -> None:
    """Over a pass through the data what a node takes from some inputs is E[(W (x - x'))^2] / 2 of these inputs."""
    weight = normal(4, 4, generator=generator)
    x = normal(50, 4, generator=generator)
    model = nn.Sequential(nn.Linear(4, 4, bias=False, dtype=torch.float64))
    model[0].weight.data = weight
    net = Network(model, ["0:in", "0"], example=x)
    found = mixed(net, x, [np.array([0, 0, 1, 1])] * 2)
    bases = interaction_basis(net, [x], kind="neuron", output="neuron")
    left_out = partners(interaction_graph(net, bases, [x]).blocks[0])
    change = (x - pairs_of(x)).numpy()
    own = others = 0.0
    for j in range(4):
        same = np.arange(4) // 2 == j // 2
        own += ((change * weight[j].numpy() * (same & ~left_out[j])).sum(1) ** 2).mean() / 2
        others += ((change * weight[j].numpy() * ~same).sum(1) ** 2).mean() / 2
    assert (found.own, found.others) == pytest.approx((own, others))


@pytest.mark.parametrize("kind", ["global", "neuron"])
def test_planted_blocks_are_supported_and_other_divisions_are_not(kind: str) -> None:
    case = Planted(4, {(2, 0, 1): 0.01}, kind=kind, points=5)
    found = ablate_modules(*case.args, draws=1)
    assert found.verdict == "supported"
    assert found.reason is not None
    assert "nodes follow their modules: selectivity 1" in found.reason
    mixing = found.mixing
    assert mixing is not None
    assert mixing.p_value == 1 / 40
    assert max(mixing.interaction) < 1e-3 * mixing.variance
    assert min(share for share in mixing.followed if share is not None) > 0.99
    assert [part.verdict for part in found.parts] == ["supported"] * 4
    chance = np.random.default_rng(0)
    random = score_partition(case.graph, [chance.permutation(side) for side in case.side], 1e-12)
    other = ablate_modules(*case.args[:3], random, [case.x], draws=1)
    assert other.verdict in ("refuted", "not told apart from chance")
    assert isolate_modules(*case.args[:3], random, [case.x], draws=3).verdict == "refuted"


def test_chains_of_partners_are_not_told_apart() -> None:
    case = Planted(2, {}, kind="global", points=5)
    labels = [np.arange(6)]
    for block in reversed(case.graph.blocks):
        labels.insert(0, labels[0][partners(block).argmax(0)])
    part = score_partition(case.graph, labels, 1e-12)
    assert part.n_modules == 6
    mixing = ablate_modules(*case.args[:3], part, [case.x], draws=1).mixing
    assert mixing is not None
    assert mixing.own == 0
    assert mixing.p_value == 1
    assert mixing.judge().verdict == "not told apart from chance"
    assert "chains" in mixing.judge().reason


def test_networks_without_modules_are_rarely_supported(generator: torch.Generator) -> None:
    """Six random networks divided by force in two; of sixty, see docs/circuits.md."""
    p_values = []
    for _ in range(6):
        x = normal(150, 8, generator=generator)
        net = Network(random_mlp((8, 9, 8, 6), generator), ["0:in", "0", "1", "2"], example=x)
        bases = interaction_basis(net, [x[:100]], output="neuron")
        graph = interaction_graph(net, bases, [x[:100]])
        part = find_modules(graph, k=2)
        study = Interventions(net, bases, [x[100:]])
        found = mixed_modules(study, graph, part, part.labels)
        assert found is not None
        p_values.append(found.p_value)
    assert sum(p is not None and p < 0.05 for p in p_values) <= 1


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_partners_are_the_best_matching(later: int, earlier: int, seed: int) -> None:
    block = np.random.default_rng(seed).random((later, earlier))
    found = partners(block)
    assert found.sum() == min(later, earlier)
    assert found.sum(0).max() == found.sum(1).max() == 1
    greedy = sum(sorted((block**2).diagonal()))
    assert (block**2)[found].sum() >= greedy - 1e-12


def test_what_cannot_be_mixed_is_said() -> None:
    case = Planted(2, {}, points=4)
    one = score_partition(case.graph, [0 * side for side in case.side], 1e-12)
    alone = ablate_modules(*case.args[:3], one, [case.x], draws=1)
    assert (alone.mixing, alone.verdict) == (None, "not told apart from chance")
    assert "one module" in str(alone.reason)
    undrawn = isolate_modules(*case.args, draws=0)
    assert undrawn.mixing is not None
    assert (undrawn.mixing.p_value, undrawn.verdict) == (None, "not told apart from chance")
    assert "no null graphs" in str(undrawn.reason)


def experiment(kind: str, draws: int | None = 1) -> Experiment:
    case = Planted(2, {(2, 0, 1): 0.01}, points=4)
    return case.run(Dataset("planted", case.x), ExperimentRecipe(kind, "loss", draws=draws))


def without_new_fields(value: Any) -> Any:
    """A stored result as version 0.6.0 wrote it."""
    if isinstance(value, dict):
        return {key: without_new_fields(v) for key, v in value.items() if key not in ("mixing", "checked")}
    return [without_new_fields(v) for v in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("kind", ["modules", "isolate", "faithfulness", "bisect", "predict"])
def test_verdicts_are_stored_and_old_results_are_read(kind: str) -> None:
    found = experiment(kind)
    assert found.verdict in ("supported", "not told apart from chance", "refuted")
    assert found.reason
    assert found.result.checked is True
    again = Experiment.from_bytes(found.to_bytes())
    assert (again.verdict, again.reason, again.summary()) == (found.verdict, found.reason, found.summary())
    arrays, meta = decode("experiment", found.to_bytes())
    assert (meta["verdict"], meta["reason"]) == (found.verdict, found.reason)
    old = {key: without_new_fields(value) for key, value in meta.items() if key not in ("verdict", "reason")}
    read = Experiment.from_bytes(encode("experiment", arrays, old))
    assert read.result.checked is None
    assert read.verdict == (None if kind in ("modules", "isolate") else found.verdict)
    assert read.outcomes == found.outcomes
    assert len(read.headline) == 4


def test_fair_control_is_the_headline_of_isolation() -> None:
    found = experiment("isolate", 3)
    result: Any = found.result
    assert found.headline[3] == result.matched["mse"].p_value
    modules = experiment("modules")
    mixing: Any = modules.result
    assert modules.headline[3] == mixing.mixing.p_value == 1 / 40


def test_destructive_isolation_and_idle_modules_are_refuted() -> None:
    case = Planted(2, {}, points=4)
    found = isolate_modules(*case.args, draws=3)
    everything = found.ablated.values["mse"].value
    worse = {"mse": Estimate(0.5 * everything, 0.0)}
    for beside, expected in ((0.4, "refuted"), (0.6, found.verdict)):
        matched = {"mse": Control(beside * everything, 0.0, 3, 0.5)}
        other = replace(found, isolated=replace(found.isolated, values=worse), matched=matched)
        assert other.verdict == expected
    assert found.verdict != "refuted"
    modules = ablate_modules(*case.args, draws=0)
    rows = (replace(modules.without[0], values={"mse": Estimate(0.0, 0.0)}), *modules.without[1:])
    idle = replace(modules, without=rows)
    assert idle.verdict == "refuted"
    assert "module 0 is idle" in str(idle.reason)
    assert idle.parts[0].verdict == "refuted"


@given(st.floats(0.001, 1), st.integers(1, 60))
def test_verdicts_against_chance(p: float, draws: int) -> None:
    found = against_chance(p, draws, "better", "worse")
    expected = "supported" if p < 0.05 else "refuted" if p > 0.5 else "not told apart from chance"
    assert found.verdict == expected
    assert found.reason.startswith("better" if expected == "supported" else "worse")
    assert against_chance(None, 0, "better", "worse") == Verdict(
        "not told apart from chance", "nothing was drawn at random to compare with"
    )
