"""Experiments on networks whose modules are known: what they must cost, and how much worse chance does."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from cases_circuits import WIDTH, Planted
from safetensors.torch import load
from scipy.stats import rankdata, spearmanr
from torch import Tensor

from interbasis.analysis import (
    Dataset,
    InteractionGraph,
    score_partition,
)
from interbasis.analysis.circuits.ablation import ablate_modules, isolate_modules, joined_labels
from interbasis.analysis.circuits.bisection import bisect_edges
from interbasis.analysis.circuits.experiments import KINDS, Experiment, ExperimentRecipe
from interbasis.analysis.circuits.faithfulness import circuit_faithfulness
from interbasis.analysis.circuits.interventions import Interventions
from interbasis.analysis.circuits.prediction import predict_losses
from interbasis.analysis.errors import GraphError, InputError
from interbasis.analysis.exchange.graph_files import export_masks
from interbasis.analysis.recipe import from_choices

pytestmark = pytest.mark.usefixtures("few_nulls")


def module_of(case: Planted, block: int) -> int:
    """The label of a block, which are numbered by size."""
    return int(case.part.labels[-1][block * WIDTH])


@pytest.mark.parametrize("kind", ["global", "local", "neuron", "pca"])
def test_isolating_planted_blocks_costs_nothing_and_random_modules_much(kind: str) -> None:
    case = Planted(3, {}, kind=kind)
    found = isolate_modules(*case.args, draws=9)
    assert found.n_modules == 3
    assert found.isolated.changes["mse"].value < 1e-24 * found.ablated.values["mse"].value
    control = found.isolated.controls["mse"]
    assert control.p_value == 1 / 10
    assert control.value - 3 * control.spread > 0.01 * found.ablated.values["mse"].value
    assert found.isolated.removed == sum(found.cut_edges)
    assert sum(found.cut_edges) < sum(found.n_edges)


@pytest.mark.parametrize("kind", ["global", "local", "pca"])
def test_cutting_edges_to_a_linear_output_costs_their_strengths_squared(kind: str) -> None:
    """Coordinates are not correlated, so the loss is the sum of w^2 over what is cut, whatever that is."""
    case = Planted(2, {(2, 0, 1): 0.5, (1, 1, 0): 0.3}, kind=kind)
    study = Interventions(case.net, case.bases, [case.x])
    chance = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.9):
        kept = chance.random(case.graph.blocks[2].shape) < share
        expected = (case.graph.blocks[2] ** 2)[~kept].sum()
        assert study.measure(None, {2: kept})["mse"].mean() == pytest.approx(expected, rel=1e-9)


def test_planted_connection_costs_its_strength_squared() -> None:
    """In the last layer exactly; the layer before it to first order, as the slopes after it do not change much."""
    for strength in (0.5, 1e-3):
        case = Planted(2, {(2, 0, 1): strength}, kind="neuron")
        found = isolate_modules(*case.args, draws=0)
        assert case.graph.blocks[2][WIDTH, 0] == pytest.approx(strength * float(hidden_spread(case, 2)[0]))
        assert found.isolated.changes["mse"].value == pytest.approx(case.graph.blocks[2][WIDTH, 0] ** 2, rel=1e-9)
    losses = []
    for strength in (2e-3, 1e-3):
        case = Planted(2, {(1, 0, 1): strength})
        losses.append(isolate_modules(*case.args, draws=0).isolated.changes["mse"].value)
    assert losses[0] / losses[1] == pytest.approx(4, rel=1e-2)


def hidden_spread(case: Planted, layer: int) -> np.ndarray:
    return case.model[:layer](case.x).std(0, correction=0).detach().numpy()


def test_edges_of_the_same_strengths_elsewhere_cost_as_much() -> None:
    """With links as strong as edges inside modules, it is how strong they are that counts, and the p-value is large."""
    case = Planted(3, {(2, 0, 1): 0.5, (2, 1, 2): 0.5, (2, 2, 0): 0.5}, kind="neuron")
    found = isolate_modules(*case.args, draws=19, seed=1)
    matched = found.matched["mse"]
    assert matched.draws == 19
    assert matched.value < found.isolated.controls["mse"].value
    assert matched.p_value > 1 / 20


def test_ablating_a_block_hurts_its_own_outputs_only() -> None:
    case = Planted(3, {})
    found = ablate_modules(*case.args, draws=0)
    for block in range(3):
        module = module_of(case, block)
        mine = slice(block * WIDTH, (block + 1) * WIDTH)
        without, alone = found.outputs[:, module]
        spread = case.net.output(case.x)[:, 0].var(0, correction=0).numpy()
        np.testing.assert_allclose(without[mine], ablated_change(case, block)[mine], rtol=1e-9)
        assert without[mine].min() > 1e-3 * spread[mine].min()
        others = np.delete(np.arange(3 * WIDTH), np.arange(mine.start, mine.stop))
        assert without[others].max() < 1e-18 * spread.max()
        assert alone[mine].max() < 1e-18 * spread.max()
        assert alone[others].min() > 1e-3 * spread[others].min()
        assert found.without[module].removed == found.alone[(module + 1) % 3].removed // 2
    np.testing.assert_allclose(found.losses.mean(2)[0], [row.values["mse"].value for row in found.without])
    assert found.nothing.values["mse"].value > max(row.values["mse"].value for row in found.without)


@pytest.mark.parametrize("kind", ["global", "local", "neuron", "pca"])
def test_random_nodes_cost_more_than_a_planted_block_that_counts_as_much(kind: str) -> None:
    """Of blocks with the same variance of outputs: as many random nodes are of all of them, and spoil all."""
    found = ablate_modules(*Planted(3, {}, kind=kind, level=True, points=5).args, draws=19)
    for rows, cost in ((found.without, 1), (found.alone, 2)):
        for row in rows:
            beside = row.controls["mse"]
            assert row.values["mse"].value == pytest.approx(cost, rel=1e-2)
            assert beside.value - beside.spread > cost
            assert beside.p_value <= 0.1


def test_data_points_that_suffer_are_named() -> None:
    case = Planted(2, {})
    found = ablate_modules(*case.args, draws=0)
    for side, rows in enumerate(found.inputs):
        for module, row in enumerate(rows):
            losses = found.losses[side, module]
            assert [loss for _, loss in row.largest] == sorted(losses, reverse=True)[:5]
            assert all(losses[i] == loss for i, loss in row.largest)
            worst = np.sort(losses)[::-1][: round(row.half * len(losses))]
            assert worst[:-1].sum() < losses.sum() / 2 <= worst.sum() * (1 + 1e-12)
    one = score_partition(case.graph, [0 * labels for labels in case.side], 1e-12)
    (alone,) = ablate_modules(case.net, case.bases, case.graph, one, [case.x], draws=0).inputs[1]
    assert (alone.half, alone.largest) == (None, ())


def ablated_change(case: Planted, block: int) -> np.ndarray:
    """Squared change of each output when a block's input and hidden units are at their means, by hand."""
    mine = torch.zeros(3 * WIDTH, dtype=torch.bool)
    mine[block * WIDTH : (block + 1) * WIDTH] = True
    h, whole = case.x, case.model(case.x)
    for layer, original in zip(case.model, (case.x, case.model[0](case.x), case.model[:2](case.x)), strict=True):
        h = layer(torch.where(mine, original.mean(0), h))
    return (h - whole).square().mean(0).detach().numpy()


def test_classes_of_an_answer_are_lost_with_its_module() -> None:
    """Two answers of three classes, one per block: each is lost without its block, and kept with it alone."""
    case = Planted(2, {})
    logits = case.net.output(case.x)[:, 0].unflatten(1, (2, WIDTH))
    data = Dataset("planted", case.x, logits.argmax(2))
    found = ablate_modules(case.net, case.bases, case.graph, case.part, data, metrics=["accuracy"], draws=0)
    assert found.classes.shape == (2, 2, 2, WIDTH)
    assert found.whole.values["accuracy"].value == 1
    for block in range(2):
        without, alone = found.classes[:, module_of(case, block)]
        assert np.nanmin(without[1 - block]) == 1
        assert np.nanmin(alone[block]) == 1
        assert np.nanmin(without[block]) < 0.5
        assert np.nanmean(found.whole_classes) == 1


def test_predicted_costs_rank_the_losses() -> None:
    ends = [(2, a, b) for a in range(4) for b in range(4) if a != b]
    case = Planted(4, dict(zip(ends, np.geomspace(0.3, 1e-4, 12).tolist(), strict=True)), kind="neuron", points=4)
    found = predict_losses(*case.args[:3], partition=case.part, batches=[case.x])
    assert len(found.links) == 12
    predicted = [link.predicted for link in found.links]
    assert predicted == sorted(predicted, reverse=True)
    measured = [link.measured.changes["mse"].value for link in found.links]
    assert found.spearman == pytest.approx(spearmanr(predicted, measured).statistic)
    assert found.spearman > 0.9
    assert found.interval == pytest.approx(bootstrap_interval(np.array([predicted, measured])))
    assert found.interval[0] > 0.6
    for link in found.links:
        assert (link.measured.removed, link.measured.controls["mse"].draws) == (1, 5)
        assert link.measured.controls["mse"].value > link.measured.values["mse"].value
    assert found.ablated.values["mse"].value > 1
    # of 6 links all but one predict 0: a third of the samples lacks that one
    one = Planted(3, {(2, 0, 1): 0.1}, kind="neuron", points=4)
    found = predict_losses(*one.args[:3], partition=one.part, batches=[one.x], draws=0)
    values = [[link.predicted, link.measured.changes["mse"].value] for link in found.links]
    assert [predicted > 0 for predicted, _ in values] == [True, *[False] * 5]
    assert found.interval == pytest.approx(bootstrap_interval(np.array(values).T))
    few = Planted(2, {(2, 0, 1): 0.1})
    found = predict_losses(*few.args[:3], partition=few.part, batches=[few.x])
    assert (found.spearman, found.interval, len(found.links)) == (None, None, 2)


def bootstrap_interval(links: np.ndarray) -> tuple[float, float]:
    """The range of the rank correlation over samples of links, prediction and loss drawn together, in a plain loop.

    Samples that hold one value of either alone have no rank correlation and do not count.
    """
    generator, found = np.random.default_rng(0), []
    for _ in range(2000):
        x, y = links[:, generator.integers(links.shape[1], size=links.shape[1])]
        if len(set(x)) > 1 < len(set(y)):
            found.append(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
    low, high = np.quantile(found, [0.025, 0.975]).tolist()
    return low, high


def test_faithfulness_of_strongest_edges() -> None:
    case = Planted(2, {(2, 0, 1): 0.05}, kind="neuron")
    found = circuit_faithfulness(case.net, case.bases, case.graph, batches=[case.x], metric="loss", draws=9)
    values = [point.value for point in found.curve]
    assert found.fractions[-1] == 1
    assert found.edges[-1] == case.graph.n_edges()
    assert values[-1] == pytest.approx(1, abs=1e-12)
    assert found.cpr.value == pytest.approx(np.trapezoid(values, found.fractions))
    assert found.cmd.value == pytest.approx(np.trapezoid(np.abs(1 - np.array(values)), found.fractions))
    assert found.p_value == 0.1
    assert max(found.random_cpr) < found.cpr.value
    with pytest.raises(GraphError, match="ascending shares"):
        circuit_faithfulness(case.net, case.bases, case.graph, batches=[case.x], metric="loss", fractions=(0.5, 0.1))

    def flat(output: Tensor, _: Tensor | None) -> Tensor:
        return output[:, 0, 0] * 0 + 1

    with pytest.raises(GraphError, match="is a higher 'flat' better"):
        circuit_faithfulness(case.net, case.bases, case.graph, batches=[case.x], metric=flat)
    with pytest.raises(GraphError, match="has no faithfulness"):
        circuit_faithfulness(case.net, case.bases, case.graph, batches=[case.x], metric=flat, higher_is_better=True)


def test_bisection_finds_the_edges_that_are_there() -> None:
    """Two blocks, in the neuron basis: nothing above zero joins them, and without any edge inside something is lost."""
    case = Planted(2, {}, kind="neuron")
    found = bisect_edges(case.net, case.bases, case.graph, batches=[case.x], metric="loss", tolerance=0.0)
    assert found.n_edges == tuple(int((block > 0).sum()) for block in case.graph.blocks)
    assert found.edges_required == found.n_edges == found.jointly_required == (2 * WIDTH**2,) * 3
    assert found.jointly.changes["mse"].value == 0
    loose = bisect_edges(case.net, case.bases, case.graph, batches=[case.x], metric="loss", tolerance=0.05, draws=19)
    assert all(a < b for a, b in zip(loose.edges_required, found.n_edges, strict=True))
    assert all(a <= b for a, b in zip(loose.edges_required, loose.jointly_required, strict=True))
    assert loose.jointly.values["mse"].value <= 0.05
    assert loose.jointly.controls["mse"].p_value == 0.05
    assert all(pair.controls["mse"].p_value == 1 / 6 for pair in loose.pairs)  # 5 draws
    for p, m in enumerate(loose.jointly_required):
        assert case.graph.blocks[p][case.graph.blocks[p] > loose.epsilon[p] ** 0.5].size == m
        tried = dict(loose.curves[p])
        assert tried[loose.edges_required[p]] <= 0.05
        assert all(value > 0.05 for m, value in tried.items() if m < loose.edges_required[p])
    none = bisect_edges(case.net, case.bases, case.graph, batches=[case.x], metric="loss", tolerance=1e9, draws=0)
    assert none.jointly_required == none.edges_required == (0, 0, 0)
    assert case.graph.n_edges(max(none.epsilon)) == 0
    with pytest.raises(GraphError, match="tolerance is -1"):
        bisect_edges(case.net, case.bases, case.graph, batches=[case.x], metric="loss", tolerance=-1.0)


def test_nodes_of_no_module_go_with_their_strongest() -> None:
    graph = InteractionGraph.from_blocks([np.diag([1.0, 1.0, 2e-9]) + 1e-9 * np.eye(3)[[0, 2, 1]], np.eye(3)])
    labels = [np.array([0, 1, -1]), np.array([0, 1, 2]), np.array([0, 1, 2])]
    part = score_partition(graph, labels, 1e-4)
    assert [a.tolist() for a in joined_labels(graph, part)] == [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    other = InteractionGraph.from_blocks([np.eye(3), np.eye(3)], cuts=["a", "b", "c"])
    with pytest.raises(GraphError, match="the partition is of another graph: it has 3 nodes at 0"):
        joined_labels(other, part)
    sibling = InteractionGraph.from_blocks([2 * np.eye(3), np.eye(3)])
    with pytest.raises(GraphError, match=r"the partition is of another graph: the costs of all edges.*score_partition"):
        joined_labels(sibling, part)


def test_one_module_has_no_interactions_to_cut() -> None:
    case = Planted(2, {})
    part = score_partition(case.graph, [0 * labels for labels in case.side], 1e-12)
    found = isolate_modules(case.net, case.bases, case.graph, part, [case.x])
    assert found.cut_edges == (0, 0, 0)
    assert found.isolated.changes["mse"].value == 0
    assert found.isolated.controls == {}


def test_nothing_is_drawn_where_there_is_nothing_to_draw() -> None:
    """All or none of the nodes or edges are kept: a random choice of as many is the same, and says nothing."""
    case = Planted(2, {(2, 0, 1): 0.05}, kind="neuron")
    one = score_partition(case.graph, [0 * labels for labels in case.side], 1e-12)
    modules = ablate_modules(case.net, case.bases, case.graph, one, [case.x])
    assert [row.controls for row in (*modules.without, *modules.alone)] == [{}, {}]
    everything = bisect_edges(case.net, case.bases, case.graph, batches=[case.x], metric="loss", tolerance=0.0)
    nothing = bisect_edges(case.net, case.bases, case.graph, batches=[case.x], metric="loss", tolerance=1e9)
    assert [row.controls for found in (everything, nothing) for row in (*found.pairs, found.jointly)] == [{}] * 8
    links = predict_losses(*case.args[:3], partition=case.part, batches=[case.x]).links
    assert [set(link.measured.controls) for link in links] == [{"mse"}, set()]  # the other way there is no edge
    outer = score_partition(case.graph, [np.zeros(6, int), *[labels + 1 for labels in case.side[1:]]], 1e-12)
    halves = [
        link
        for link in predict_losses(*case.args[:3], partition=outer, batches=[case.x]).links
        if link.measured.removed == 9
    ]
    assert [set(link.measured.controls) for link in halves] == [{"mse"}] * 2  # each of the edges of one pair of cuts


@pytest.mark.parametrize("kind", ["isolate", "modules", "faithfulness", "predict"])
@pytest.mark.parametrize("modules", [1, 3])
def test_progress_reaches_its_total(kind: str, modules: int) -> None:
    case = Planted(max(modules, 2), {(2, 0, 1): 0.05}, kind="neuron", points=4)
    part = score_partition(case.graph, [0 * labels for labels in case.side], 1e-12) if modules == 1 else case.part
    reports: list[Any] = []
    recipe = ExperimentRecipe(kind=kind, metric="loss", draws=3)
    case.run(Dataset("planted", case.x), recipe, partition=part, progress=reports.append)
    for step in {report.step for report in reports}:
        mine = [report for report in reports if report.step == step]
        assert [report.done for report in mine] == list(range(1, mine[-1].total + 1))


def test_edges_that_skip_a_cut_are_refused() -> None:
    case = Planted(2, {})
    skipping = InteractionGraph.from_blocks(
        [*case.graph.blocks, case.graph.blocks[0]],
        case.graph.cuts,
        case.graph.importance,
        pairs=[*pairwise(range(4)), (0, 2)],
    )
    with pytest.raises(GraphError, match="skip a cut"):
        bisect_edges(case.net, case.bases, skipping, batches=[case.x], metric="loss")


@pytest.mark.parametrize("kind", KINDS)
def test_experiments_by_recipe_come_back_from_a_file(kind: str, tmp_path: object) -> None:
    case = Planted(2, {(2, 0, 1): 0.1, (2, 1, 0): 0.2})
    logits = case.net.output(case.x)[:, 0].unflatten(1, (2, WIDTH))
    data = Dataset("planted", case.x, logits.argmax(2))
    recipe = ExperimentRecipe(kind=kind, draws=2)
    reports: list[object] = []
    found = case.run(data, recipe, progress=reports.append)
    assert reports
    metric = "loss" if kind == "predict" else "accuracy"
    assert (found.kind, found.metric, found.n) == (kind, metric, len(case.x))
    again = Experiment.from_bytes(found.to_bytes())
    assert again.to_bytes() == found.to_bytes()
    assert type(again.result) is type(found.result)
    assert again.outcomes == found.outcomes
    assert again.summary() == found.summary()
    rows = found.summary()["rows"]
    assert rows[0]["name"] == "whole"
    expected = {"mse": 0.0} if kind == "predict" else {"mse": 0.0, "accuracy": 1.0}
    assert {name: found["value"] for name, found in rows[0]["values"].items()} == expected
    assert ("links" in found.summary()) == (kind == "predict")
    repeated = case.run(data, recipe)
    assert repeated.to_bytes() == found.to_bytes()


def test_data_of_the_basis_are_not_called_held_out() -> None:
    """Whatever labels go with them."""
    case = Planted(2, {(2, 0, 1): 0.1})
    recipe = ExperimentRecipe(kind="isolate", metric="loss", draws=1)
    assert not case.run(Dataset("the same", case.x), recipe).held_out
    assert case.run(Dataset("others", case.x.flip(0)[1:]), recipe).held_out
    assert case.run(Dataset("the same", case.x), recipe, held_out=True).held_out


def test_recipes_that_make_no_sense_are_refused() -> None:
    for choices, message in (
        ({"kind": "isolation"}, "kind is 'isolation', expected 'isolate', 'modules'"),
        ({"metric": "recall"}, "metric is 'recall', expected 'loss'"),
        ({"replacement": "noise"}, "replacement is 'noise', expected 'mean'"),
        ({"tolerance": float("nan")}, "tolerance is nan"),
        ({"draws": -1}, "draws is -1"),
        ({"seed": -1}, "seed is -1"),
    ):
        with pytest.raises(InputError, match=message):
            from_choices(ExperimentRecipe, choices)


def test_masks_in_plain_pytorch_keep_a_module_as_interventions_do() -> None:
    case = Planted(2, {(1, 0, 1): 0.3, (2, 1, 0): 0.2})
    held = load(export_masks(case.bases, case.graph, case.part))

    def project(cut: str, module: int, value: Tensor) -> Tensor:
        mean, to_basis, from_basis, masks = (held[f"{cut}/{n}"] for n in ("mean", "to_basis", "from_basis", "masks"))
        return mean + (value - mean) @ to_basis.T * masks[module] @ from_basis.T

    study = Interventions(case.net, case.bases, [case.x])
    for module in range(2):
        kept = {p: case.part.labels[p] == module for p in range(3)}
        ((expected, _, _),) = study.outputs(kept)
        value = project("0:in", module, case.x)
        for name, layer in zip(("0", "1"), case.model, strict=False):
            value = project(name, module, layer(value))
        torch.testing.assert_close(case.model[2](value), expected[:, 0], rtol=1e-12, atol=1e-12)
    other = score_partition(InteractionGraph.from_blocks(case.graph.blocks), case.part.labels, 1e-12)
    with pytest.raises(GraphError, match="partition is of another graph"):
        export_masks(case.bases, case.graph, other)
    with pytest.raises(GraphError, match="do not belong to this graph"):
        export_masks(case.bases, InteractionGraph.from_blocks(case.graph.blocks), other)
