"""The worst partial cut: at least the full cut, never less with more steps, and the worst corner of small graphs."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from cases import normal, sequential
from cases_circuits import WIDTH, Planted
from cases_long import SEEDS
from torch import Tensor, nn

from interbasis.analysis import InteractionGraph, Network, interaction_basis, interaction_graph
from interbasis.analysis.circuits.ablation import ablate_modules, isolate_modules
from interbasis.analysis.circuits.adversarial import Budget, Search, WorstCut, judged_by_worst, steepest_shares
from interbasis.analysis.circuits.bisection import bisect_edges
from interbasis.analysis.circuits.controls import CHANCE, REFUTED, SUPPORTED, Control, Outcome, Verdict
from interbasis.analysis.circuits.experiments import Experiment, ExperimentRecipe
from interbasis.analysis.circuits.interventions import Edges, Interventions
from interbasis.analysis.circuits.metrics import Estimate
from interbasis.analysis.errors import GraphError, InputError

pytestmark = pytest.mark.usefixtures("few_nulls")


class Small:
    """Three cuts of two or three nodes; twelve edges at most, some of which are kept."""

    def __init__(self, seed: int, *, exact: bool = True, replacement: str = "mean", activation: Any = nn.Tanh):
        g = torch.Generator().manual_seed(seed)
        weights = [normal(2, 2, generator=g), normal(2, 2, generator=g)]
        self.model = sequential(weights, [normal(2, generator=g) for _ in weights], activation)
        self.x = normal(12, 2, generator=g)
        net = Network(self.model, ["0:in", "0", "1"], example=self.x)
        bases = interaction_basis(net, [self.x], kind="neuron", output="neuron")
        self.graph: InteractionGraph = interaction_graph(net, bases, [self.x])
        self.study = Interventions(net, bases, list(self.x.split(7)), exact=exact, replacement=replacement)
        chance = np.random.default_rng(seed)
        self.kept: Edges = {p: chance.random(block.shape) < 0.3 for p, block in enumerate(self.graph.blocks)}

    def corners(self) -> float:
        """The largest loss over all ways to cut each edge that is not kept or not, in a plain loop."""
        free = [(p, j, i) for p, mask in self.kept.items() for j, i in np.argwhere(~mask)]
        found = []
        for bits in product((False, True), repeat=len(free)):
            masks = {p: mask.copy() for p, mask in self.kept.items()}
            for (p, j, i), bit in zip(free, bits, strict=True):
                masks[p][j, i] = bit
            found.append(self.study.measure(edges=masks)["mse"].mean())
        return float(max(found))


@pytest.mark.parametrize("seed", SEEDS)
def test_it_is_at_least_the_worst_corner_of_a_small_graph(seed: int) -> None:
    case = Small(seed)
    corner = case.corners()
    losses, _, shares = Search(case.study, case.graph, Budget((20, 80))).find(case.kept)
    assert losses[-1] >= corner * (1 - 1e-12)
    inside = [((m > 0) & (m < 1)).any() for m in shares.values()]
    if not any(inside):
        assert losses[-1] == pytest.approx(corner, rel=1e-12)
    strong = np.ones(sum(int((~mask).sum()) for mask in case.kept.values()), dtype=bool)
    options: dict[str, Any] = {"budget": Budget((80,), restarts=3), "generator": np.random.default_rng(0)}
    (climbed,) = steepest_shares(case.study, case.kept, strong, **options)
    loss = sum(float(part) for part in case.study.partial_losses(case.kept, torch.from_numpy(climbed))) / case.study.n
    assert loss >= corner * (1 - 1e-9), "the ascent alone, without trying corners"


def test_the_worst_cut_of_a_linear_output_is_a_corner_worked_by_hand() -> None:
    """y = a x1 + b x2 loses E[((1 - m) o (a x1, b x2))^2]: with x1 x2 of negative mean it is worst to keep one."""
    t = torch.linspace(-1, 1, 9, dtype=torch.float64)
    x = torch.stack([t, -0.8 * t], 1)
    weights = [torch.eye(2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)]
    model = sequential(weights, [torch.zeros(len(w), dtype=torch.float64) for w in weights], None)
    net = Network(model, ["0:in", "0", "1"], example=x, check=False)
    bases = interaction_basis(net, [x], kind="neuron", output="neuron")
    study = Interventions(net, bases, [x])
    graph = interaction_graph(net, bases, [x])
    losses, _, shares = Search(study, graph, Budget((20,))).find({1: np.zeros((1, 2), dtype=bool)})
    variance = float(t.square().mean())
    assert losses[0] == pytest.approx(0.2**2 * variance)  # both cut: they nearly cancel
    assert losses[1] == pytest.approx(variance)  # the first cut, the second kept
    assert shares[1].tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize(
    ("exact", "replacement"), [(True, "mean"), (False, "mean"), (True, "zero"), (False, "resample")]
)
def test_gradients_are_those_of_differences(exact: bool, replacement: str) -> None:
    case = Small(1, exact=exact, replacement=replacement, activation=nn.GELU)
    size = sum(int((~mask).sum()) for mask in case.kept.values())
    shares = torch.linspace(0.2, 0.8, size, dtype=torch.float64, requires_grad=True)

    def loss(m: Tensor) -> Tensor:
        return torch.stack(list(case.study.partial_losses(case.kept, m))).sum()

    (slope,) = torch.autograd.grad(loss(shares), shares)
    for i in range(size):
        step = torch.zeros(size, dtype=torch.float64).index_fill(0, torch.tensor([i]), 1e-5)
        difference = (loss(shares.detach() + step) - loss(shares.detach() - step)) / 2e-5
        assert float(slope[i]) == pytest.approx(float(difference), rel=1e-5, abs=1e-7)
    masks, start = {}, 0
    for p, mask in case.kept.items():
        masks[p] = mask.astype(float)
        count = int((~mask).sum())
        masks[p][~mask] = shares.detach().numpy()[start : start + count]
        start += count
    assert float(loss(shares.detach())) / case.study.n == pytest.approx(
        case.study.measure(edges=masks)["mse"].mean(), rel=1e-9
    )


def test_partial_masks_of_zeros_and_ones_are_those_of_booleans() -> None:
    case = Small(2)
    expected = case.study.measure(edges=case.kept)["mse"]
    np.testing.assert_allclose(
        case.study.measure(edges={p: m.astype(float) for p, m in case.kept.items()})["mse"], expected
    )
    whole = {p: np.ones(mask.shape) for p, mask in case.kept.items()}
    assert case.study.measure(edges=whole)["mse"].max() == 0
    for wrong in (np.full((2, 2), 1.5), np.full((2, 2), np.nan), np.zeros((2, 2), dtype=int)):
        with pytest.raises(GraphError, match="numbers from 0 to 1"):
            case.study.measure(edges={0: wrong})


@pytest.mark.parametrize("kind", ["global", "neuron"])
def test_more_steps_lose_no_less_and_all_cut_is_the_least(kind: str) -> None:
    case = Planted(2, {(1, 0, 1): 0.4, (1, 1, 0): -0.3, (2, 0, 1): 0.3}, kind=kind)
    found = isolate_modules(*case.args, draws=0, adversarial=(1, 5, 20))
    (worst,) = found.worst
    assert worst.cut == found.isolated.values["mse"].value
    assert list(worst.losses) == sorted(worst.losses)
    assert worst.losses[0] >= worst.cut
    assert worst.losses[-1] == worst.worst.values["mse"].value
    fewer = [isolate_modules(*case.args, draws=0, adversarial=n).worst[0].losses for n in (1, 5)]
    assert fewer == [worst.losses[:1], worst.losses[1:2]]
    assert (worst.edges, worst.starts, worst.points) == (found.isolated.removed, 3, len(case.x))
    assert all(((m >= 0) & (m <= 1)).all() for m in worst.shares)
    inside = [a[:, None] == b for a, b in zip(case.part.labels[1:], case.part.labels[:-1], strict=True)]
    assert all((m[i] == 1).all() for m, i in zip(worst.shares, inside, strict=True))


def test_planted_modules_stand_the_worst_cut_and_random_partitions_do_not() -> None:
    case = Planted(3, {}, kind="neuron", points=3)
    found = isolate_modules(*case.args, draws=4, adversarial=5)
    (worst,) = found.worst
    assert worst.losses[-1] < 1e-20
    assert worst.p_value == 1 / 5
    assert worst.random is not None
    assert worst.random.value > 0.01 * found.ablated.values["mse"].value
    assert "under the worst partial cut found (5 steps) the network loses" in str(found.reason)
    assert "of random partitions the worst loses" in str(found.reason)
    parts = ablate_modules(*case.args, draws=1, adversarial=2).worst
    assert [each.worst.name for each in parts] == [f"worst cut, module {m}" for m in range(3)]
    assert max(each.losses[-1] for each in parts) < 1e-20


def test_two_modules_are_cut_from_each_other_once() -> None:
    case = Planted(2, {(2, 0, 1): 0.3}, kind="neuron")
    (one,) = ablate_modules(*case.args, draws=0, adversarial=(2, 5)).worst
    (same,) = isolate_modules(*case.args, draws=0, adversarial=(2, 5)).worst
    assert one == same
    assert one.losses == pytest.approx([case.graph.blocks[2][WIDTH, 0] ** 2] * 2)


def test_edges_that_bisection_leaves_out_are_cut_in_part() -> None:
    case = Planted(2, {}, kind="neuron")
    options: dict[str, Any] = {"batches": [case.x], "metric": "loss", "tolerance": 0.05, "draws": 2}
    found = bisect_edges(*case.args[:3], **options, adversarial=3)
    (worst,) = found.worst
    assert worst.edges == sum(found.n_edges) - sum(found.jointly_required)
    assert worst.losses[-1] >= worst.cut == found.jointly.values["mse"].value
    assert worst.worst.controls["mse"].draws == 2
    assert worst.matched == {}
    assert "of random edges the worst loses" in str(found.reason)
    whole = bisect_edges(*case.args[:3], **{**options, "tolerance": 0.0, "draws": 0}, adversarial=3)
    assert whole.worst == ()


def test_large_data_are_sampled_and_losses_are_on_all() -> None:
    case = Planted(2, {(1, 0, 1): 0.4}, kind="neuron")
    study = Interventions(case.net, case.bases, list(case.x.split(20)))
    search = Search(study, case.graph, Budget((3,), points=10))
    assert (search.few.n, study.n) == (10, 49)
    kept = {p: np.eye(len(block), dtype=bool) for p, block in enumerate(case.graph.blocks)}
    losses, values, _ = search.find(kept)
    assert len(values["mse"]) == 49
    assert losses[0] == pytest.approx(study.measure(edges=kept)["mse"].mean())
    assert list(losses) == sorted(losses)


@pytest.mark.parametrize("kind", ["isolate", "modules", "bisect"])
def test_it_is_stored_shown_and_comes_back(kind: str) -> None:
    case = Planted(2, {(2, 0, 1): 0.3}, kind="neuron", points=4)
    from interbasis.analysis import Dataset

    recipe = ExperimentRecipe(kind=kind, metric="loss", draws=1, adversarial=(1, 2), tolerance=0.05)
    found = case.run(Dataset("planted", case.x), recipe)
    again = Experiment.from_bytes(found.to_bytes())
    assert again.to_bytes() == found.to_bytes()
    assert again.result.worst == found.result.worst
    assert found.outcomes[-1].name == "worst cut"
    (summary,) = found.summary()["worst"]
    assert (summary["steps"], summary["starts"], summary["step_size"]) == ([1, 2], 3, 0.1)
    assert "shares" not in summary
    assert found.summary()["rows"][-1]["name"] == "worst cut"


def test_recipes_name_their_steps_where_these_have_an_effect() -> None:
    assert ExperimentRecipe(kind="isolate", adversarial=(20, 80)).choices["adversarial"] == (20, 80)
    assert ExperimentRecipe(kind="predict", adversarial=(20,)).sha256 == ExperimentRecipe(kind="predict").sha256
    assert "adversarial" not in ExperimentRecipe().choices  # the hash of what is stored stays
    for steps in ((80, 20), (20, 20)):
        with pytest.raises(InputError, match=r"adversarial is .*expected numbers of steps that ascend"):
            ExperimentRecipe(adversarial=steps)
    with pytest.raises(InputError, match="step_size is 0"):
        Budget(step_size=0)
    with pytest.raises(InputError, match="adversarial is \\(0,\\)"):
        Budget.of(0)


def judged(p_value: float, loss: float = 1.0, matched: float = 2.0, everything: float = 100.0) -> Verdict | None:
    beside, other = Control(50.0, 1.0, 20, p_value), Control(matched, 0.1, 20, 0.5)
    row = Outcome("worst cut", 3, {"mse": Estimate(loss, 0.1)}, {"mse": Estimate(loss, 0.1)}, {"mse": beside})
    worst = WorstCut(3, (20, 80), 0.1, 3, 100, 0.5, (0.75, loss), row, "partitions", {"mse": other}, ())
    return judged_by_worst(Verdict(SUPPORTED, "it holds"), [worst], everything)


def test_verdicts_say_what_the_worst_cut_does() -> None:
    kept = judged(0.048)
    assert kept == Verdict(
        SUPPORTED,
        "it holds; under the worst partial cut found (80 steps) the network loses 1, with all of these edges cut 0.5; "
        "of random partitions the worst loses 50 ± 1 (20 draws, p 0.048), of as many edges of the same strengths "
        "2 ± 0.1 (20 draws, p 0.5)",
    )
    chance, refuted = judged(0.3), judged(0.048, loss=11.0)
    assert chance is not None
    assert chance.verdict == CHANCE
    assert chance.reason.startswith("under the worst partial cut found")
    assert refuted is not None
    assert refuted.verdict == REFUTED
    assert judged_by_worst(None, [], 1.0) is None
