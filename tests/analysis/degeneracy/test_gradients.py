"""Parameters that no layer explains: counted as plain gradients have it, or refused by name."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cases import normal
from cases_ledger import dense, generic, inputs, small_transformer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference_ledger import hessian_rank, parameter_gradients, plain_rank
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from interbasis.analysis.degeneracy import gradients
from interbasis.analysis.degeneracy.gradients import check_derivatives, explained_layers, plain_factor
from interbasis.analysis.degeneracy.ledger import Ledger, parameter_ledger
from interbasis.analysis.degeneracy.sparse_representation import sparsify
from interbasis.analysis.degeneracy.synchronised_units import synchronised_units
from interbasis.analysis.errors import LayerError
from interbasis.analysis.network.network import Network
from interbasis.analysis.results import decode, encode

PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
Forward = Callable[[Any, Tensor], Tensor]


class Model(nn.Module):
    """Parts, and what is done with them."""

    def __init__(self, forward: Forward, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def linear(d_in: int, d_out: int, bias: bool = True) -> nn.Linear:
    return nn.Linear(d_in, d_out, bias=bias, dtype=torch.float64)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, dtype=torch.float64))


def mlp(a: int, b: int, c: int, act: nn.Module) -> nn.Sequential:
    return nn.Sequential(linear(a, b), act, linear(b, c))


def pruned(model: nn.Sequential, how: str) -> nn.Sequential:
    if how == "weight":
        prune.random_unstructured(model[0], "weight", amount=0.5)
    if how == "bias":
        prune.random_unstructured(model[2], "bias", amount=0.5)
    if how == "rows":
        prune.ln_structured(model[0], "weight", amount=0.5, n=2, dim=0)
    return model


def normalised(model: nn.Sequential, how: str) -> nn.Sequential:
    if how == "weight":
        parametrizations.weight_norm(model[0])
    if how == "spectral":
        parametrizations.spectral_norm(model[2])
    if how == "old spectral":
        nn.utils.spectral_norm(model[0])
    return model


def shared(a: int, act: nn.Module) -> Model:
    return Model(lambda m, x: m.out(m.hidden(act(m.hidden(x)))), hidden=linear(a, a), out=linear(a, 2))


def tied(a: int, b: int, act: nn.Module) -> Model:
    return Model(lambda m, x: nn.functional.linear(act(m.enc(x)), m.enc.weight.T), enc=linear(a, b, bias=False))


def adapted(a: int, b: int, act: nn.Module) -> Model:
    """A frozen layer with a low-rank change beside it."""
    model = Model(
        lambda m, x: m.out(act(m.base(x) + x @ m.down @ m.up)),
        base=linear(a, b),
        down=parameter(a, 1),
        up=parameter(1, b),
        out=linear(b, 2),
    )
    model.base.requires_grad_(False)
    return model


def unused(a: int, b: int, act: nn.Module) -> Model:
    return Model(lambda m, x: m.out(act(m.hidden(x))), hidden=linear(a, b), out=linear(b, 2), spare=parameter(3))


def aside(a: int, b: int, act: nn.Module) -> Model:
    """A weight that a second term of the output reads."""
    return Model(
        lambda m, x: m.out(act(m.hidden(x))) + m.hidden.weight.square().sum(), hidden=linear(a, b), out=linear(b, 2)
    )


def doubled(a: int, b: int, act: nn.Module) -> nn.Sequential:
    model = mlp(a, b, 2, act)
    model[0].register_forward_hook(lambda module, args, value: 2 * value + args[0].sum(-1, keepdim=True))
    return model


@st.composite
def models(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    """A model whose parameters do something else than those of linear maps, and data of any rank."""
    seed = draw(st.integers(0, 2**31))
    torch.manual_seed(seed)
    a, b, n = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.sampled_from([2, 7, 24]))
    act: nn.Module = draw(st.sampled_from([nn.Tanh(), nn.ReLU(), nn.Identity(), nn.LeakyReLU(0.1)]))
    builds: list[Callable[[], nn.Module]] = [
        *(lambda how=how: pruned(mlp(a, b, 2, act), how) for how in ("weight", "bias", "rows")),
        *(lambda how=how: normalised(mlp(a, b, 2, act), how) for how in ("weight", "spectral", "old spectral")),
        lambda: shared(a, act),
        lambda: tied(a, b, act),
        lambda: adapted(a, b, act),
        lambda: unused(a, b, act),
        lambda: aside(a, b, act),
        lambda: doubled(a, b, act),
        lambda: nn.Sequential(linear(a, b), nn.LayerNorm(b, dtype=torch.float64), act, linear(b, 2)),
    ]
    model = draw(st.sampled_from(builds))().eval()
    data = normal(n, a, generator=torch.Generator().manual_seed(seed))
    if draw(st.booleans()):
        data[: n // 2] = 0.0  # kinks of ReLU exactly where biases are zero
    if a > 1 and draw(st.booleans()):  # without any data nothing is left to explain
        data[:, -1] = 0.0
    return model, data


@given(models())
@PROPERTY
def test_what_layers_do_not_explain_is_counted_from_plain_gradients(case: tuple[nn.Module, Tensor]) -> None:
    model, data = case
    before = {name: (p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
    ledger = parameter_ledger(dense(model), [data[:1], data[1:]] if len(data) > 2 else [data])
    assert ledger.effective == plain_rank(model, data)
    assert ledger.nominal == sum(p.numel() for p in model.parameters())
    assert ledger.explained >= ledger.effective
    if ledger.uncounted:
        assert "layers do not explain" in ledger.warning
    else:
        assert {type(m) for m in model.modules()} & {nn.LayerNorm, Model}
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name][0], rtol=0, atol=0)
        assert p.requires_grad == before[name][1]
    for refused in (synchronised_units, sparsify) if ledger.uncounted else ():
        with pytest.raises(LayerError):
            refused(dense(model), [data])


class Squared(torch.autograd.Function):
    """A backward function that cannot be vectorised."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return torch.from_numpy((x.detach() @ w.detach()).numpy() ** 2)

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor]:
        x, w = (v.detach().numpy() for v in ctx.saved_tensors)
        slope = 2 * (x @ w) * given.detach().numpy()
        return torch.from_numpy(slope @ w.T), torch.from_numpy(x.T @ slope)


def embedded(head: nn.Module | None, **options: Any) -> Model:
    emb = nn.Embedding(6, 3, dtype=torch.float64, **options)
    with torch.no_grad():
        emb.weight.normal_()
    model = Model(lambda m, t: m.head(torch.tanh(m.emb(t))), emb=emb, head=head or linear(3, 2))
    if head is None:
        return model
    head.weight = emb.weight
    return model


def sequence(model: nn.Module) -> nn.Module:
    """Positions first inside, data points first outside."""
    return Model(lambda m, x: m.out(m.rnn(x.transpose(0, 1))[0]).transpose(0, 1), rnn=model, out=linear(2, 2))


def tokens() -> Tensor:
    return torch.randint(0, 6, (20, 3), generator=torch.Generator().manual_seed(0))


def series() -> Tensor:
    return normal(6, 6, 2, generator=torch.Generator().manual_seed(0))


ATTENTION = {"embed_dim": 2, "num_heads": 1, "batch_first": True, "dtype": torch.float64}
COUNTED: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "tied by assignment": (lambda: embedded(linear(3, 6, bias=False)), tokens),
    "parameters without a module": (
        lambda: Model(lambda m, x: m.out(torch.tanh(x @ m.w)), w=parameter(2, 3), out=linear(3, 2)),
        lambda: inputs(20, 2),
    ),
    "own function": (
        lambda: Model(lambda m, x: m.out(Squared.apply(x, m.w)), w=parameter(2, 3), out=linear(3, 2)),
        lambda: inputs(20, 2),
    ),
    "lstm": (lambda: sequence(nn.LSTM(2, 2, dtype=torch.float64)), series),
    "gru": (lambda: sequence(nn.GRU(2, 2, dtype=torch.float64)), series),
    "convolution": (
        lambda: nn.Sequential(nn.Conv1d(6, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)).double(),
        series,
    ),
    "attention": (
        lambda: Model(lambda m, x: m.att(x, x, x, need_weights=False)[0], att=nn.MultiheadAttention(**ATTENTION)),
        series,
    ),
    "sequence first, as many positions as data points": (
        lambda: Model(
            lambda m, x: m.b(torch.tanh(m.a(x.transpose(0, 1)).cumsum(0))).transpose(0, 1),
            a=linear(2, 3),
            b=linear(3, 2),
        ),
        series,
    ),
    "positions without a batch axis": (
        lambda: Model(
            lambda m, t: m.out(torch.tanh(m.emb(t) + m.place(torch.arange(3)[None]))),
            emb=nn.Embedding(6, 2, dtype=torch.float64),
            place=nn.Embedding(3, 2, dtype=torch.float64),
            out=linear(2, 2),
        ),
        tokens,
    ),
}


@pytest.mark.parametrize("kind", COUNTED)
def test_models_of_other_kinds_are_counted(kind: str) -> None:
    torch.manual_seed(0)
    model, data = (make() for make in COUNTED[kind])
    rows = parameter_gradients_of(model, data)
    ledger = parameter_ledger(dense(model), [data])
    assert ledger.effective == int(torch.linalg.matrix_rank(rows))
    assert ledger.hessian.largest == pytest.approx(float(torch.linalg.svdvals(rows)[0] ** 2 / len(data)), rel=1e-9)
    assert Ledger.from_bytes(ledger.to_bytes()) == ledger


def parameter_gradients_of(model: nn.Module, data: Tensor) -> Tensor:
    """One row per output, with the model's own parameters: recurrent layers hold their weights a second time."""
    parameters = list(model.parameters())
    rows = []
    for y in model(data).flatten():
        grads = torch.autograd.grad(y, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows)


def test_float32_models_with_computed_weights_are_copied() -> None:
    """The weight that an old-style norm or pruning computes has a graph, which deepcopy refuses."""
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), inputs(30, 3).float()
    prune.l1_unstructured(model[0], "weight", amount=6)
    model(data)
    assert parameter_ledger(dense(model), [data]).effective == 26 - 6 - 3 * int((model[0].weight == 0).all(1).sum())


class Rounded(torch.autograd.Function):
    """Straight through: rounds, and tells autograd that it does not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> Tensor:
        return given


def hooked_model() -> nn.Module:
    model = mlp(2, 3, 2, nn.Tanh())
    model[0].weight.register_hook(lambda g: 0.5 * g)
    return model


def between(change: Callable[[Tensor], Tensor]) -> nn.Module:
    return Model(lambda m, x: m.out(change(torch.tanh(m.hidden(x)))), hidden=linear(2, 3), out=linear(3, 2))


FALSE: dict[str, tuple[str, Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "padding": ("emb.weight", lambda: embedded(None, padding_idx=0), tokens),
    "padding, tied": ("emb.weight", lambda: embedded(linear(3, 6, bias=False), scale_grad_by_freq=True), tokens),
    "by frequency": ("emb.weight", lambda: embedded(None, scale_grad_by_freq=True), tokens),
    "straight through": ("hidden.weight", lambda: between(lambda h: Rounded.apply(3 * h)), lambda: inputs(20, 2)),
    "detached": ("hidden.weight", lambda: between(torch.detach), lambda: inputs(20, 2)),
    "detached in part": ("hidden.weight", lambda: between(lambda h: h * h.detach()), lambda: inputs(20, 2)),
    "hook on a gradient": ("0.weight", hooked_model, lambda: inputs(20, 2)),
}


@pytest.mark.parametrize("kind", FALSE)
@pytest.mark.parametrize("run", [parameter_ledger, synchronised_units, sparsify])
def test_gradients_that_are_no_derivatives_are_refused_by_name(kind: str, run: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    name, model, data = FALSE[kind]
    with pytest.raises(LayerError, match=f"autograd gives for '{name}' is not the derivative"):
        run(dense(model()), [data()])


def test_padding_that_no_data_point_holds_is_no_matter() -> None:
    torch.manual_seed(0)
    model, data = embedded(None, padding_idx=0), tokens().clamp_min(1)
    ledger = parameter_ledger(dense(model), [data])
    assert (ledger.effective, len(ledger.layers)) == (plain_rank(model, data), 2)


def test_padding_in_a_later_batch_is_seen() -> None:
    torch.manual_seed(0)
    with pytest.raises(LayerError, match=r"'emb.weight' is not the derivative"):
        parameter_ledger(dense(embedded(None, padding_idx=0)), [tokens().clamp_min(1), tokens()])


@given(st.integers(0, 2**31), st.sampled_from([nn.ReLU, nn.LeakyReLU, nn.Hardtanh, nn.Softplus]), st.booleans())
@PROPERTY
def test_kinks_are_no_false_gradients(seed: int, act: type[nn.Module], zero: bool) -> None:
    """Also where every unit stands exactly on its kink: no biases, and data points of zeros."""
    model = generic((3, 8, 8, 2), seed=seed)
    for layer in model[:-1]:
        layer[1] = act()
        if zero:
            layer[0].bias.data.zero_()
    data = inputs(30, 3, seed=seed)
    data[::3] = 0.0
    check_derivatives(dense(model), data)


def test_transformers_are_explained() -> None:
    network, data = small_transformer()
    assert len(explained_layers(network, data)) == 8


@pytest.mark.parametrize("loss", ["mse", "kl"])
def test_plain_gradients_are_those_of_the_layers(loss: str) -> None:
    model, data = generic((3, 4, 2)), inputs(12, 3)
    factor = plain_factor(Network(model, [], loss=loss), [data[:5], data[5:]])
    rows = torch.from_numpy(parameter_gradients(model, data, list(model.parameters()))).reshape(12, 2, -1)
    fisher = torch.eye(2, dtype=torch.float64).expand(12, 2, 2)
    if loss == "kl":
        p = model(data).detach().softmax(-1)
        fisher = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    expected = torch.einsum("nki,nkl,nlj->ij", rows, fisher, rows)
    np.testing.assert_allclose(factor.T @ factor, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("run", [synchronised_units, sparsify])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("sequence first, as many positions as data points", "axis 0 of what layer 'a' writes is not the data point"),
        ("tied by assignment", "'emb' and 'head' share a parameter"),
        ("parameters without a module", r"the model itself \(Model\)"),
    ],
)
def test_what_needs_layers_says_which_one_is_none(run: Callable[..., Any], kind: str, message: str) -> None:
    model, data = (make() for make in COUNTED[kind])
    with pytest.raises(LayerError, match=message):
        run(dense(model), [data])


class TestTooLarge:
    """Without layers there is only the exact rank."""

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (lambda: tied(3, 2, nn.Tanh()), "'enc.weight' has another part that its layer does not explain"),
        ],
    )
    @pytest.mark.parametrize("asked", [False, True])
    def test_is_refused_by_name(
        self, model: Callable[[], nn.Module], message: str, asked: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        options: dict[str, Any] = {"method": "estimate"} if asked else {}
        monkeypatch.setattr(gradients, "_PLAIN_WORK", 10)
        with pytest.raises(LayerError, match=message + ".*Without layers only the exact rank"):
            parameter_ledger(dense(model()), [inputs(10, 3)], **options)

    @pytest.mark.parametrize(
        ("model", "names", "message"),
        [
            (lambda: shared(3, nn.ReLU()), {"hidden.weight", "hidden.bias"}, "'hidden' is called 2 times"),
            (
                lambda: pruned(mlp(3, 3, 2, nn.Tanh()), "weight"),
                {"0.weight_orig", "0.bias"},
                "'weight' of layer '0' .* computed from 'weight_orig'",
            ),
        ],
    )
    def test_a_part_is_named_and_counts_as_remaining(
        self, model: Callable[[], nn.Module], names: set[str], message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch.manual_seed(0)
        built, data = model(), [inputs(40, 3)]
        exact = parameter_ledger(dense(built), data)
        monkeypatch.setattr(gradients, "_PLAIN_WORK", 10)
        ledger = parameter_ledger(dense(built), data)
        assert {name for name, _ in ledger.uncounted} == names
        assert re.search("not counted: 12 parameters .*" + message, str(ledger.warning))
        assert ledger.hessian.lower <= exact.effective <= ledger.effective == ledger.explained


def test_too_few_data_points_are_told() -> None:
    ledger = parameter_ledger(dense(shared(3, nn.Tanh())), [inputs(4, 3)])
    assert ledger.effective <= 8
    assert "4 data points give 8 gradients" in ledger.warning


def test_unused_parameters_are_free_and_named() -> None:
    model, data = unused(3, 4, nn.Tanh()), inputs(40, 3)
    ledger = parameter_ledger(dense(model), [data])
    assert (ledger.jacobians, ledger.unexplained, ledger.effective) == (3, 0, 26)
    assert "does not depend on spare: 3 free directions" in ledger.warning


def test_models_that_write_into_their_input_are_counted_and_the_data_stay() -> None:
    torch.manual_seed(0)
    model = Model(lambda m, x: m.out(torch.tanh(m.hidden(x.sub_(0.5).mul_(2)))), hidden=linear(3, 4), out=linear(4, 2))
    data = inputs(40, 3)
    before = data.clone()
    ledger = parameter_ledger(dense(model), [data])
    assert torch.equal(data, before)
    assert ledger.effective == hessian_rank(mlp_of(model), (data - 0.5) * 2)


def mlp_of(model: Any) -> nn.Sequential:
    return nn.Sequential(model.hidden, nn.Tanh(), model.out)


def test_networks_say_whether_they_were_checked() -> None:
    model, data = generic((3, 4, 2)), [inputs(20, 3)]
    for check in (True, False):
        network = Network(model, [], check=check)
        ledger = parameter_ledger(network, data)
        assert ledger.checked == Ledger.from_bytes(ledger.to_bytes()).checked == check
        assert sparsify(network, data).checked == check
        assert all(units.checked == check for units in synchronised_units(network, data).values())


def test_ledgers_of_earlier_versions_were_not_checked() -> None:
    arrays, about = decode("ledger", parameter_ledger(dense(generic((3, 4, 2))), [inputs(20, 3)]).to_bytes())
    assert about.pop("checked")
    assert not Ledger.from_bytes(encode("ledger", arrays, about)).checked
