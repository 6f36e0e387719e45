"""The parameter ledger: bounds on random networks, counts by hand, invariances, transformers, trained networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cases import random_invertible
from cases_ledger import degenerate_networks, dense, generic, halves, inputs, small_transformer, weights_of
from cases_long import SEEDS
from hypothesis import HealthCheck, given, settings
from reference_ledger import count, hessian_rank, parameter_gradients
from torch import Tensor, nn

from interbasis.analysis.checkpoints.checkpoint import load_checkpoint
from interbasis.analysis.degeneracy import blocks as free_blocks
from interbasis.analysis.degeneracy import free_directions
from interbasis.analysis.degeneracy.ledger import Ledger, parameter_ledger
from interbasis.analysis.errors import DataError, GraphError, InputError
from interbasis.analysis.network.network import Network

CAUSES = ("activations", "jacobians", "gating", "synchronised", "unexplained", "effective")
SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


def ledger_of(model: nn.Sequential, data: Tensor, **options) -> Ledger:
    return parameter_ledger(dense(model), halves(data), **options)


def counts(ledger: Ledger) -> list[tuple[int, ...]]:
    """Every row of the ledger and of its layers."""
    per_layer = [
        (x.gram_rank, x.jacobian_rank, x.activations, x.jacobians, x.gating, x.synchronised, x.dead, x.hessian_rank)
        for x in ledger.layers
    ]
    return [tuple(getattr(ledger, name) for name in CAUSES), *per_layer]


@given(degenerate_networks((1, 2, 3), ("relu", "relu", "leaky", "linear")))
@SLOW
def test_causes_never_take_more_than_the_hessian_has_free_and_rows_add_up(case) -> None:
    model, data = case
    ledger = ledger_of(model, data)
    assert ledger.hessian.exact
    assert ledger.effective == ledger.hessian_rank == hessian_rank(model, data)
    assert ledger.unexplained >= 0
    assert all(getattr(ledger, name) >= 0 for name in CAUSES)
    assert ledger.nominal == sum(getattr(ledger, name) for name in CAUSES)
    assert ledger.nominal == sum(p.numel() for p in model.parameters())
    for layer in ledger.layers:
        assert layer.hessian_rank <= layer.kept <= layer.gram_rank * layer.jacobian_rank
    assert ledger.lower_bound == ledger.effective / 2


@given(degenerate_networks((1, 2, 3), ("relu", "leaky")))
@SLOW
def test_causes_never_take_too_much_where_directions_are_not_tested(case) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(free_blocks, "_MOVES", -1)
        ledger = ledger_of(*case)
    assert ledger.effective == hessian_rank(*case)
    assert ledger.nominal == sum(getattr(ledger, name) for name in CAUSES)
    assert ledger_of(*case).unexplained <= ledger.unexplained, "tested directions explain at least as much"
    assert min(getattr(ledger, name) for name in CAUSES) >= 0


@given(degenerate_networks((1, 2, 3), ("linear",)))
@SLOW
def test_deep_linear_networks_are_explained_in_full(case) -> None:
    assert ledger_of(*case).unexplained == 0


@given(degenerate_networks((1,), ("relu",)))
@SLOW
def test_one_hidden_layer_is_explained_but_for_dependent_gated_activations(case) -> None:
    """What is left comes from dependences between r_a f of different blocks, and the constant that the bias adds.

    For example where a unit is rarely off, or where there are more of these functions than data points.
    """
    ledger = ledger_of(*case)
    assert ledger.layers[1].hessian_rank == ledger.layers[1].kept
    if ledger.unexplained:
        model, data = case
        f = torch.cat([data, torch.ones(len(data), 1)], 1)
        on = model[0](data).detach() > 0
        gated = [on[:, block[:1]] * f for block in ledger.units[0].blocks]
        if ledger.units[0].always_on is None:
            gated.append(f[:, -1:])
        spans = sum(int(torch.linalg.matrix_rank(part)) for part in gated)
        assert torch.linalg.matrix_rank(torch.cat(gated, 1)) < spans, "nothing but this is known to be left"


def test_complementary_neurons_pass_a_constant() -> None:
    """1-2-1 with neurons that are on at opposite sides of 0.3: r_1 + r_2 = 1 is undone by the last bias."""
    model, data = generic((1, 2, 1)), inputs(100, 1)
    w, b = weights_of(model, 0)
    w.copy_(torch.tensor([[1.0], [-2.0]]))
    b.copy_(torch.tensor([-0.3, 0.6]))
    ledger = ledger_of(model, data)
    assert [(x.kind, x.units, x.free) for x in ledger.layers[0].blocks][-1] == ("complementary", (0, 1), 1)
    assert (ledger.nominal, ledger.synchronised, ledger.unexplained, ledger.effective) == (7, 3, 0, 4)


def test_ranks_and_blocks_alone_may_count_a_direction_twice() -> None:
    """1-4-1: two units on for x > 0, one for x < 0, one always on. All functions are in span(rx, r, x, 1): rank 4.

    rank(G) rank(K) = 2 * 2 and 4 * 1, blocks 2 * 1, 1 * 1, 2 * 1 (with the constant): 8 - 5 = 3 would be too few. The
    function r x + (1 - r) x - x = 0 is lost from the Jacobians and from the activations behind, and free as well.
    """
    model, data = generic((1, 4, 1)), inputs(100, 1)
    data = data + 0.5 * data.sign()  # nothing between -0.5 and 0.5
    w, b = weights_of(model, 0)
    w.copy_(torch.tensor([[1.0], [1.0], [-1.0], [0.5]]))
    b.copy_(torch.tensor([0.0, 0.3, 0.2, 40.0]))
    ledger = ledger_of(model, data)
    assert count(model, data) == 3
    assert hessian_rank(model, data) == ledger.effective == 4
    assert ledger.unexplained == 0


@pytest.mark.parametrize(
    ("widths", "kind", "nominal", "effective"),
    [
        ((5, 4, 3), "linear", 39, 18),
        ((5, 4, 2, 3), "linear", 43, 15),
        ((5, 6, 3), "relu", 57, 51),
        ((5, 6, 3), "three always on", 57, 42),
        ((5, 6, 3), "two proportional", 57, 48),
        ((5, 6, 3), "one dead", 57, 43),
    ],
)
def test_table_of_cases(widths: tuple[int, ...], kind: str, nominal: int, effective: int) -> None:
    model, data = generic(widths, activation="linear" if kind == "linear" else "relu"), inputs(400, widths[0])
    w, b = weights_of(model, 0)
    if kind == "three always on":
        b[:3] = 30.0
    if kind == "two proportional":
        w[1], b[1] = 2.5 * w[0], 2.5 * b[0]
    if kind == "one dead":
        b[0] = -30.0
    ledger = ledger_of(model, data)
    assert (ledger.nominal, ledger.effective, ledger.unexplained) == (nominal, effective, 0)
    assert hessian_rank(model, data) == effective
    assert count(model, data) == effective


@pytest.mark.parametrize("seed", range(3))
def test_three_hidden_layers(seed: int) -> None:
    """6-10-10-10-4: ranks and blocks alone leave more than the exact rank; rarely active units explain the rest."""
    model, data = generic((6, 10, 10, 10, 4), seed=seed), inputs(3000, 6)
    ledger = ledger_of(model, data)
    assert ledger.nominal == 334
    assert ledger.explained + ledger.gating == count(model, data)
    assert ledger.unexplained == 0


def test_low_rank_weights_may_leave_something_unexplained() -> None:
    """No cause is named for it, and it is reported as such."""
    model, data = generic((8, 7, 7, 2), seed=2), inputs(300, 1) @ inputs(1, 8, seed=4)
    assert ledger_of(model, data).unexplained > 0


class TestByHand:
    """5-6-3 with ReLU: 57 parameters, of which 6 scales of neurons are free."""

    def changed(self, data: Tensor | None = None, **edits: Tensor) -> Ledger:
        model = generic((5, 6, 3))
        for name, value in edits.items():
            weights_of(model, 0 if name.startswith("first") else 1)[name.endswith("bias")].copy_(value)
        return ledger_of(model, inputs(400, 5) if data is None else data)

    def test_nothing_but_scales(self) -> None:
        ledger = self.changed()
        assert (ledger.activations, ledger.jacobians, ledger.gating, ledger.synchronised) == (0, 0, 0, 6)
        assert all((b.kind, b.s, b.t, len(b.units)) == ("synchronised", 1, 1, 1) for b in ledger.layers[0].blocks)

    def test_each_lost_direction_of_the_data_frees_a_weight_per_unit(self) -> None:
        ledger = self.changed(inputs(400, 3) @ inputs(3, 5, seed=2))
        assert (ledger.activations, ledger.synchronised, ledger.unexplained) == (2 * 6, 6, 0)
        assert ledger.layers[0].gram_rank == 4

    def test_duplicated_neuron(self) -> None:
        """The two activations span one direction (3 weights free), and their block has s = 1, t = 2."""
        w, b = (x.clone() for x in weights_of(generic((5, 6, 3)), 0))
        w[1], b[1] = w[0], b[0]
        ledger = self.changed(firstweight=w, firstbias=b)
        assert (ledger.activations, ledger.synchronised, ledger.effective) == (3, 4 + 2, 48)
        assert [(x.units, x.s, x.t) for x in ledger.layers[0].blocks if len(x.units) > 1] == [((0, 1), 1, 2)]

    def test_dead_neuron(self) -> None:
        """Its 6 weights in are never felt, its 3 weights out never used, its scale is no freedom of its own."""
        b = weights_of(generic((5, 6, 3)), 0)[1].clone()
        b[2] = -30.0
        ledger = self.changed(firstbias=b)
        assert (ledger.activations, ledger.jacobians, ledger.synchronised, ledger.effective) == (3, 6, 5, 43)
        assert [(x.kind, x.units, x.free) for x in ledger.layers[0].blocks if x.kind == "dead"] == [("dead", (2,), 0)]
        assert ledger.layers[0].dead == 1

    def test_output_that_ignores_a_neuron(self) -> None:
        w = weights_of(generic((5, 6, 3)), 1)[0].clone()
        w[:, 4] = 0.0
        ledger = self.changed(lastweight=w)
        assert (ledger.jacobians, ledger.synchronised, ledger.effective) == (6, 5, 57 - 6 - 5)

    def test_linear_layer_costs_nothing(self) -> None:
        """5-6-3 without activation is a map 5 -> 3, 18 parameters: its 6 units span 5 inputs and the constant."""
        ledger = ledger_of(generic((5, 6, 3), activation="linear"), inputs(400, 5))
        (block,) = ledger.layers[0].blocks
        assert (block.kind, block.s, block.t) == ("always on", 6, 3)
        causes = ledger.activations, ledger.jacobians, ledger.synchronised, ledger.effective
        assert causes == (3, 6 * 3, 6 * 3, 18)

    def test_too_many_directions_to_be_tested_one_by_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then those count that the writing layer tells apart: all of a linear layer, too few where blocks overlap."""
        monkeypatch.setattr(free_blocks, "_MOVES", 5)
        ledger = ledger_of(generic((8, 70, 3), activation="linear"), inputs(100, 8))
        assert (ledger.effective, ledger.unexplained) == (9 * 3, 0)
        assert "those that are certain are counted" in ledger.warning

    def test_neuron_that_is_on_at_two_points_only(self) -> None:
        """Its 6 weights act through 2 activations: 4 are free, and that is no loss of rank of all data."""
        model, data = generic((5, 6, 3)), inputs(400, 5)
        w, b = weights_of(model, 0)
        top = (data @ w[3]).sort(descending=True).values
        b[3] = -(top[1] + top[2]) / 2
        ledger = ledger_of(model, data)
        assert (ledger.gating, ledger.activations, ledger.jacobians, ledger.unexplained) == (4, 0, 0, 0)

    def test_too_few_data_points_are_told(self) -> None:
        ledger = self.changed(inputs(7, 5))
        assert ledger.effective <= 21
        assert "7 data points give 21 gradients" in ledger.warning


@pytest.mark.parametrize("n", [400, 9])
def test_scale_of_neurons_and_their_order_change_no_row(n: int) -> None:
    model, data = generic((4, 6, 5, 2), seed=5), inputs(n, 4)
    weights_of(model, 0)[1][0] = -20.0
    before = counts(ledger_of(model, data))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
    scale = 10 ** torch.linspace(-2, 2, 6, dtype=torch.float64)
    w, b = weights_of(model, 0)
    w.copy_((scale[:, None] * w)[order])
    b.copy_((scale * b)[order])
    out = weights_of(model, 1)[0]
    out.copy_((out / scale)[:, order])
    assert counts(ledger_of(model, data)) == before


def test_change_of_basis_in_a_linear_layer_changes_no_row() -> None:
    g = torch.Generator().manual_seed(0)
    model, data = generic((5, 4, 6, 3), seed=2), inputs(300, 5)
    model[0] = nn.Sequential(model[0][0])
    before = counts(ledger_of(model, data))
    mix = random_invertible(4, g)
    w, b = weights_of(model, 0)
    w.copy_(mix @ w)
    b.copy_(mix @ b)
    out = weights_of(model, 1)[0]
    out.copy_(out @ torch.linalg.inv(mix))
    assert counts(ledger_of(model, data)) == before
    assert before[1][5] == 5 * 4


@pytest.mark.parametrize("slope", [0.0, 0.3])
@pytest.mark.parametrize("size", [1, 7])
def test_batches_and_order_of_data_change_nothing(slope: float, size: int) -> None:
    """A slope that is no binary fraction comes out of each batch with another rounding error."""
    model, data = generic((4, 6, 5, 2)), inputs(90, 4)
    model[0][1] = model[1][1] = nn.LeakyReLU(slope)
    one = parameter_ledger(dense(model), [data])
    order = torch.randperm(90, generator=torch.Generator().manual_seed(0))
    many = parameter_ledger(dense(model), list(data[order].split(size)))
    assert [units.slope for units in many.units] == pytest.approx([slope, slope])
    assert counts(one) == counts(many)
    np.testing.assert_allclose(one.layers[1].gram_spectrum, many.layers[1].gram_spectrum, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(one.layers[0].kronecker.error, many.layers[0].kronecker.error, rtol=1e-9)


def test_activation_is_found_from_values_wherever_it_is_computed() -> None:
    class Functional(nn.Module):
        def __init__(self, model: nn.Sequential) -> None:
            super().__init__()
            self.first, self.last = model[0][0], model[1][0]

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.first(x)))

    model, data = generic((4, 5, 3)), inputs(100, 4)
    other = parameter_ledger(Network(Functional(model), ["first:in", "last"]), halves(data))
    assert counts(other) == counts(ledger_of(model, data))


def test_smooth_activation_has_no_synchronised_units() -> None:
    model = generic((4, 5, 3))
    model[0][1] = nn.Tanh()
    ledger = ledger_of(model, inputs(100, 4))
    assert (ledger.synchronised, ledger.units, ledger.effective) == (0, (), ledger.nominal)


def test_units_that_something_else_reads_are_not_counted_as_free() -> None:
    """A skip path reads the neurons too: what the last layer would have to undo is not its own input alone."""

    class Skip(nn.Module):
        def __init__(self, model: nn.Sequential) -> None:
            super().__init__()
            self.first, self.last = model[0][0], model[1][0]

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.relu(self.first(x))
            return self.last(hidden) + hidden[:, :3]

    ledger = parameter_ledger(Network(Skip(generic((4, 5, 3))), ["first:in", "first"]), [inputs(100, 4)])
    assert ledger.layers[0].blocks[0].kind == "gated units"  # the two that the skip path does not read
    assert (ledger.synchronised, ledger.unexplained) == (2, 3), "that they are free all the same, the rank tells"


def test_softmax_does_not_see_the_mean_of_the_logits() -> None:
    """KL: the output layer's Jacobian loses one rank, that is 7 parameters of 6 inputs and the constant."""
    model, data = generic((5, 6, 3)), inputs(400, 5)
    kl = parameter_ledger(Network(model, ["0:in", "1"], loss="kl"), [data])
    assert kl.layers[1].jacobian_rank == 2
    assert kl.effective == 51 - 7


def test_float32_is_counted_in_float64() -> None:
    model, data = generic((5, 4, 3), activation="linear").float(), inputs(200, 5)
    ledger = ledger_of(model, data.float())
    assert (ledger.effective, ledger.unexplained) == (18, 0)
    assert next(model.parameters()).dtype == torch.float32


def test_layer_that_the_output_does_not_feel_is_free() -> None:
    class Aside(nn.Module):
        def __init__(self, model: nn.Sequential) -> None:
            super().__init__()
            self.first, self.last, self.aside = model[0][0], model[1][0], nn.Linear(4, 2, dtype=torch.float64)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            hidden = torch.relu(self.first(x))
            return {"aside": self.aside(hidden), "y": self.last(hidden)}

    network = Network(Aside(generic((3, 4, 2))), ["first:in", "first"], output="y")
    ledger = parameter_ledger(network, [inputs(30, 3)])
    assert [layer.jacobian_rank for layer in ledger.layers if layer.name == "aside"] == [0]
    assert ledger.effective == 16 + 10 - 4


def test_modules_that_work_in_place_change_nothing() -> None:
    class InPlace(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.f, self.g = nn.Linear(2, 5), nn.Linear(5, 3, bias=False), nn.Linear(5, 3)
            self.relu = nn.ReLU(inplace)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.a(x)
            return self.f(hidden) + self.g(self.relu(hidden))

    data = inputs(20, 16).reshape(20, 8, 2)
    here, there = (Network(InPlace(inplace).double(), ["a:in", "a"]) for inplace in (True, False))
    assert counts(parameter_ledger(here, [data])) == counts(parameter_ledger(there, [data]))


def test_dense_layers_on_two_axes_of_positions() -> None:
    class Folded(nn.Module):
        def __init__(self, model: nn.Sequential) -> None:
            super().__init__()
            self.enter, self.inner, self.leave = nn.Identity(), model, nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            folded = self.enter(x).reshape(len(x), 2, 4, 2)
            return self.leave(self.inner(folded).flatten(1, 2))

    model, data = generic((2, 4, 3)), inputs(20, 16).reshape(20, 8, 2)
    folded = parameter_ledger(Network(Folded(model), ["enter", "leave"]), [data])
    assert counts(folded) == counts(parameter_ledger(dense(model), [data]))


class TestTransformer:
    @pytest.mark.parametrize(
        "changes",
        [{}, {"same": True}, {"n_heads": 3}, {"d_vocab": 13}, {"d_mlp": 9, "seed": 4}],
        ids=["plain", "same patterns", "three heads", "larger vocabulary", "wider"],
    )
    def test_all_free_directions_have_a_cause(self, changes: dict) -> None:
        ledger = parameter_ledger(*small_transformer(**changes))
        assert ledger.hessian.exact
        assert ledger.unexplained == 0

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("changes", [{"last": True}, {"d_model": 6}, {"n_heads": 1, "d_head": 3}])
    def test_causes_never_take_too_much(self, seed: int, changes: dict) -> None:
        """Nor the Hessian too little: its rank is at least that of the gradients of some outputs."""
        net, batches = small_transformer(seed, **changes)
        ledger = parameter_ledger(net, batches)
        assert ledger.nominal == sum(getattr(ledger, name) for name in CAUSES)
        assert min(getattr(ledger, name) for name in CAUSES) >= 0
        own = dict(net.model.named_parameters())
        some = net.evaluate(own, batches[0])[0][:60].flatten()[::3]
        rows = [
            torch.autograd.grad(value, [*own.values()], retain_graph=True, materialize_grads=True) for value in some
        ]
        sampled = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
        assert ledger.effective >= int(torch.linalg.matrix_rank(sampled, rtol=1e-9)) > 0

    def test_blocks_by_hand(self) -> None:
        """d_head = 2: values and the constant (2 + 1) 2 per head, queries and keys 2^2, keys' common shift 2."""
        ledger = parameter_ledger(*small_transformer())
        layers = {layer.name: layer for layer in ledger.layers}
        assert [(b.kind, b.s, b.t) for b in layers["attention.v"].blocks] == [("values", 3, 2)] * 2
        assert [(b.kind, b.s, b.t) for b in layers["attention.q"].blocks] == [("queries and keys", 2, 2)] * 2
        assert [(b.kind, b.s, b.t) for b in layers["attention.k"].blocks] == [("keys", 1, 2 * 2)]
        assert [(b.kind, b.s, b.t) for b in layers["embed"].blocks] == [("residual stream", 5, 4)]
        assert [(b.s, b.t) for b in layers["mlp.outer"].blocks] == [(1, 4)]

    def test_heads_with_the_same_patterns_are_one_block(self) -> None:
        """2 d_head^2 more, and nothing for the constant, which was free before."""
        blocks = {
            same: [b for x in parameter_ledger(*small_transformer(same=same)).layers for b in x.blocks]
            for same in (True, False)
        }
        free = {same: sum(b.free for b in found if b.kind == "values") for same, found in blocks.items()}
        assert free[True] == (4 + 1) * 4
        assert free[True] - free[False] == 2 * 2**2
        assert [b.units for b in blocks[True] if b.kind == "values"] == [(0, 1)]

    def test_token_that_always_stands_at_one_position_is_tied_to_it(self) -> None:
        ledger = parameter_ledger(*small_transformer(last=True))
        assert ledger.tied == 4
        assert parameter_ledger(*small_transformer()).tied == 0


class TestEpsilon:
    def test_directions_below_the_scale_are_lost(self) -> None:
        """A unit's input with rms 1e-3 counts at epsilon 1e-7, not at 1e-5."""
        model, data = generic((5, 6, 3)), inputs(400, 5)
        data[:, 0] *= 1e-3
        fine, coarse = (ledger_of(model, data, epsilon=e) for e in (1e-7, 1e-5))
        assert (fine.layers[0].gram_rank, coarse.layers[0].gram_rank) == (6, 5)
        assert coarse.activations == 6
        assert fine.layers[0].soft_gram_rank == pytest.approx(6, abs=0.2)
        assert coarse.layers[0].soft_gram_rank == pytest.approx(5.1, abs=0.1)

    def test_effective_is_the_number_of_eigenvalues_above_it(self) -> None:
        model, data = generic((5, 6, 3)), inputs(400, 5)
        rows = parameter_gradients(model, data, list(model.parameters()))
        values = np.linalg.eigvalsh(rows.T @ rows / 400)
        for epsilon in (1e-3, 1e-1):
            ledger = ledger_of(model, data, epsilon=epsilon)
            assert ledger.effective == (values > epsilon).sum()
            assert ledger.hessian.soft == pytest.approx((values / (values + epsilon)).sum(), rel=1e-6)
            assert ledger.nominal == sum(getattr(ledger, name) for name in CAUSES)

    def test_units_that_differ_on_a_negligible_point_are_synchronised(self) -> None:
        model, data = generic((5, 6, 3)), inputs(400, 5)
        w, b = weights_of(model, 0)
        w[1], b[1] = w[0], b[0] + 0.02
        assert all(len(b.units) == 1 for b in ledger_of(model, data).layers[0].blocks)
        assert max(len(b.units) for b in ledger_of(model, data, epsilon=1e-3).layers[0].blocks) == 2


class TestEstimates:
    def test_lanczos_counts_within_its_bounds(self) -> None:
        model, data = generic((12, 20, 16, 6), seed=1), inputs(500, 12)
        for epsilon in (1e-3, 1e-1):
            exact = ledger_of(model, data, epsilon=epsilon, method="exact").hessian
            rough = ledger_of(model, data, epsilon=epsilon, method="estimate").hessian
            assert (exact.method, rough.method) == ("exact", "lanczos")
            assert rough.lower <= exact.value <= rough.upper
            probe = np.sqrt(2 * exact.value * (1 - exact.value / 694))  # standard error of one random start
            assert abs(rough.value - exact.value) <= 3 * probe
            assert abs(rough.soft - exact.soft) <= 3 * probe
            assert rough.largest == pytest.approx(exact.largest, rel=1e-6)

    def test_without_epsilon_the_rank_is_bounded_from_both_sides(self) -> None:
        model, data = generic((12, 20, 16, 6), seed=1), inputs(500, 12)
        exact, rough = (ledger_of(model, data, method=m) for m in ("exact", "estimate"))
        assert rough.hessian.method == "sampled"
        assert rough.hessian.lower <= exact.effective <= rough.hessian.upper == rough.effective == exact.explained
        assert rough.unexplained == 0

    def test_kronecker_fit_from_a_sample_is_that_of_all_data(self) -> None:
        model, data = generic((6, 10, 8, 4), seed=1), inputs(2000, 6)
        exact, rough = (ledger_of(model, data, method=m) for m in ("exact", "estimate"))
        for a, b in zip(exact.layers, rough.layers, strict=True):
            assert abs(a.kronecker.cosine - b.kronecker.cosine) < 4 * b.kronecker.standard_error + 1e-3
        assert exact.layers[-1].kronecker.cosine == pytest.approx(1.0), "the output layer's Jacobian is constant"
        assert exact.layers[0].kronecker.cosine < 0.99

    def test_kronecker_fit_written_out(self) -> None:
        model, data = generic((3, 4, 2)), inputs(60, 3)
        ledger = ledger_of(model, data)
        layer = model[0][0]
        rows = parameter_gradients(model, data, [layer.weight, layer.bias]).reshape(-1, 16)
        order = [o * 3 + i if i < 3 else 12 + o for o in range(4) for i in range(4)]
        h = rows[:, order].T @ rows[:, order] / 60
        felt = (model[0](data) > 0).any(1)  # where no unit is on, nothing that the layer reads matters
        f = torch.cat([data, torch.ones(60, 1)], 1)[felt].numpy()
        k = rows[:, 12:].T @ rows[:, 12:] / 60  # by the bias: df/dp itself
        product = np.kron(k, f.T @ f / len(f))
        assert ledger.layers[0].kronecker.error == pytest.approx(np.linalg.norm(h - product) / np.linalg.norm(h))
        cosine = (h * product).sum() / np.linalg.norm(h) / np.linalg.norm(product)
        assert ledger.layers[0].kronecker.cosine == pytest.approx(cosine)

    def test_same_seed_same_estimate_however_the_data_are_batched(self) -> None:
        model, data = generic((6, 10, 8, 4)), inputs(300, 6)
        one = parameter_ledger(dense(model), [data], method="estimate", seed=3)
        many = parameter_ledger(dense(model), list(data.split(64)), method="estimate", seed=3)
        for a, b in zip(one.layers, many.layers, strict=True):
            assert a.kronecker.cosine == pytest.approx(b.kronecker.cosine, rel=1e-9)


class TestBadInput:
    def test_no_data(self) -> None:
        with pytest.raises(DataError, match="no batches"):
            parameter_ledger(dense(generic((3, 4, 2))), [])

    def test_empty_batch(self) -> None:
        with pytest.raises(DataError, match="holds no data point"):
            parameter_ledger(dense(generic((3, 4, 2))), [inputs(5, 3), inputs(0, 3)])

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"epsilon": 0.0}, GraphError, "epsilon is 0.0"),
            ({"epsilon": float("nan")}, GraphError, "epsilon is nan"),
            ({"tolerance": 2.0}, InputError, "tolerance is 2.0"),
            ({"method": "guess"}, InputError, "unknown method 'guess'"),
        ],
    )
    def test_options(self, options: dict, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            ledger_of(generic((3, 4, 2)), inputs(5, 3), **options)

    def test_file_of_another_kind(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"no ledger")
        with pytest.raises(InputError, match="expected a saved ledger"):
            Ledger.load(tmp_path / "x")


@pytest.mark.parametrize("epsilon", [None, 1e-2])
def test_ledger_round_trip(tmp_path: Path, epsilon: float | None) -> None:
    ledger = ledger_of(generic((4, 6, 5, 2)), inputs(60, 4), epsilon=epsilon)
    back = Ledger.load(ledger.save(tmp_path / "ledger.safetensors"))
    assert repr(back) == repr(ledger)
    assert counts(back) == counts(ledger)
    assert back.hessian == ledger.hessian
    assert back.layers[0].blocks == ledger.layers[0].blocks
    assert back.layers[0].kronecker == ledger.layers[0].kronecker
    np.testing.assert_array_equal(back.units[1].distances, ledger.units[1].distances)
    assert back.units[1].blocks == ledger.units[1].blocks


@pytest.mark.long
@pytest.mark.parametrize("work", [10**9, 10**12])
@pytest.mark.parametrize("seed", SEEDS)
def test_modular_addition(real_data: Path, seed: int, work: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few of the prompts are enough for the ranks that matter here. Long: more, and all directions are tested."""
    monkeypatch.setattr(free_directions, "_WORK", work)
    run = load_checkpoint(real_data / "modadd" / f"modadd_p113_seed{seed}.safetensors")
    inputs = run.batches.inputs
    every = inputs[
        torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[: 200 if work == 10**9 else 950]
    ]
    ledger = parameter_ledger(run.network, list(every.split(475)))
    layers = {layer.name: layer for layer in ledger.layers}
    assert ledger.nominal == 227_442
    assert ledger.tied == 128
    assert layers["embed"].activations == 2 * 128, "and every token against both positions"
    assert layers["attention.q"].gram_rank == 1, "the last position always holds the same token"
    assert layers["attention.k"].jacobian_rank == 4
    assert layers["attention.k"].synchronised == 4
    assert ledger.hessian.method == "sampled"
    assert 0 < ledger.hessian.lower <= ledger.effective <= ledger.explained < ledger.nominal


@pytest.mark.long
def test_mnist_mlp_with_synthetic_inputs(real_data: Path, tmp_path: Path) -> None:
    """Its data are not here: normal inputs stand for them, on which the first layer's activations have full rank."""
    np.savez(tmp_path / "normal.npz", inputs=np.random.default_rng(0).standard_normal((1000, 784)))
    run = load_checkpoint(real_data / "mnist_mlp" / "mnist_mlp_100_100.safetensors", data=tmp_path / "normal.npz")
    ledger = parameter_ledger(run.network, run.batches)
    assert ledger.nominal == 89_610
    assert ledger.layers[0].gram_rank == 785
    assert ledger.effective <= 10_000
    assert "1000 data points give 10,000 gradients" in ledger.warning
