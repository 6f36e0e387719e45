"""Losses around a trained network against the textbook: values, gradients, curvature, subsets, mediators, batches."""

import math
import warnings

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, jacrev

from interbasis.analysis.checkpoints.pairs import ignores_pairing
from interbasis.analysis.errors import DataError, InputError
from interbasis.analysis.llc.curvature import exact_curvature, leading_curvature
from interbasis.analysis.llc.landscape import Function
from interbasis.analysis.llc.network_loss import NetworkLandscape, behavioural_loss, training_loss
from interbasis.analysis.network.network import Network
from interbasis.analysis.refined.constraints import constrained_loss


def net(loss: str = "mse", seed: int = 0) -> Network:
    draws = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=draws, dtype=torch.float64)
    return Network(model, ["0:in", "1", "2"], loss=loss)


def points(n: int = 12, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def away(loss: NetworkLandscape, chains: int = 3) -> torch.Tensor:
    draws = torch.Generator().manual_seed(2)
    return loss.start + 0.3 * torch.randn(chains, len(loss.start), generator=draws, dtype=torch.float64)


def textbook(network: Network, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The behavioural loss of one parameter vector, written out."""
    model, named, first = network.model, {}, 0
    for name, p in model.named_parameters():
        named[name] = theta[first : first + p.numel()].reshape(p.shape)
        first += p.numel()
    here, there = functional_call(model, named, (x,)), model(x).detach()
    if network.loss == "mse":
        return (here - there).square().sum() / len(x)
    return (there.softmax(-1) * (there.log_softmax(-1) - here.log_softmax(-1))).sum() / len(x)


@pytest.mark.parametrize("vectorised", [True, False])
@pytest.mark.parametrize("kind", ["mse", "kl"])
def test_values_and_gradients_are_the_textbook_ones(kind: str, vectorised: bool) -> None:
    network, x = net(kind), points()
    loss = behavioural_loss(network, [x])
    loss.vectorised = vectorised
    theta = away(loss)
    values, slopes = loss.evaluate(theta)
    for row, value, slope in zip(theta, values, slopes, strict=True):
        torch.testing.assert_close(value, textbook(network, row, x))
        torch.testing.assert_close(slope, torch.func.grad(lambda w: textbook(network, w, x))(row))


@pytest.mark.parametrize("kind", ["mse", "kl"])
def test_behavioural_loss_is_zero_at_the_start_and_never_negative(kind: str) -> None:
    loss = behavioural_loss(net(kind), [points()])
    assert loss.behavioural
    assert loss.baseline == 0
    for size in (0.0, 1e-12, 1e-9, 1e-6, 1e-3, 1.0):
        values, _ = loss.evaluate(loss.start + size * (away(loss, 20) - loss.start))
        assert (values >= 0).all()
    assert float(loss.evaluate(loss.start[None])[0]) < 1e-25, "but for rounding, which depends on the processor"


@pytest.mark.parametrize("vectorised", [True, False])
@pytest.mark.parametrize("kind", ["mse", "kl"])
def test_curvature_is_the_hessian_at_the_start(kind: str, vectorised: bool) -> None:
    network, x = net(kind), points()
    loss = behavioural_loss(network, [x])
    loss.vectorised = vectorised
    expected = jacrev(grad(lambda w: textbook(network, w, x)))(loss.start)
    by_rows = sum(block.T @ block for block in loss.rows(loss.start))
    torch.testing.assert_close(by_rows, expected, rtol=1e-9, atol=1e-12)
    by_products = loss.product(loss.start, torch.eye(len(loss.start), dtype=torch.float64))
    torch.testing.assert_close(by_products, expected, rtol=1e-9, atol=1e-12)


def test_few_rows_and_few_products_find_the_same_spectrum() -> None:
    loss = behavioural_loss(net(), [points(6)])  # 12 rows, 26 parameters
    whole = exact_curvature(loss, [loss.start])
    rows = torch.cat(list(loss.rows(loss.start)))
    torch.testing.assert_close(whole.values, torch.linalg.svdvals(rows).square())
    assert whole.soft_rank(1e12, 1e-6) == pytest.approx(6.0)
    leading = leading_curvature(loss, 5, seed=0)
    torch.testing.assert_close(leading.values, whole.values[:5], rtol=1e-5, atol=0)
    assert leading.rest == pytest.approx(float(whole.values[4]), rel=1e-5)
    assert leading.largest == pytest.approx(whole.largest, rel=1e-8)
    cut = whole.leading(5)
    torch.testing.assert_close(cut.vectors.T @ cut.vectors, torch.eye(5, dtype=torch.float64))
    assert cut.rest == float(whole.values[5])
    assert cut.soft_rank(10.0, 1.0) == whole.soft_rank(10.0, 1.0)
    t = 1e3
    metric, vectors = leading.metric(t, 1.0), whole.vectors[:, :5]
    ones = torch.ones(1, len(loss.start), dtype=torch.float64)
    inside = metric(ones) @ vectors
    torch.testing.assert_close(inside, ones @ vectors / (t * whole.values[:5] + 1).sqrt(), rtol=1e-4, atol=1e-8)


def test_gram_matrix_of_rows_gives_the_same_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = behavioural_loss(net(), [points(6)])
    expected = exact_curvature(loss, [loss.start])
    monkeypatch.setattr("interbasis.analysis.llc.curvature.DENSE", 13)  # between 12 rows and 26 parameters
    found = exact_curvature(loss, [loss.start])
    torch.testing.assert_close(found.values, expected.values)
    z = torch.randn(2, 26, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(found.metric(50.0, 2.0)(z), expected.metric(50.0, 2.0)(z))


# Batches


@pytest.mark.parametrize("sizes", [(12,), (5, 7), (1,) * 12])
def test_batching_changes_nothing(sizes: tuple[int, ...]) -> None:
    x = points()
    expected = behavioural_loss(net(), [x])
    found = behavioural_loss(net(), list(x.split(sizes)))
    theta = away(expected)
    for a, b in zip(found.evaluate(theta), expected.evaluate(theta), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    assert (found.n, found.row_count) == (12, 24)


def test_big_batches_stay_apart() -> None:
    x = points(1500)
    loss = behavioural_loss(net(), [x[:800], x[800:]])
    whole = behavioural_loss(net(), [x])
    theta = away(loss)
    torch.testing.assert_close(loss.evaluate(theta)[0], whole.evaluate(theta)[0], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(loss.evaluate(theta, torch.arange(1500).repeat(3, 1))[0], whole.evaluate(theta)[0])


@pytest.mark.parametrize("vectorised", [True, False])
def test_random_points_give_their_own_mean(vectorised: bool) -> None:
    x = points()
    loss = behavioural_loss(net(), [x])
    loss.vectorised = vectorised
    theta, chosen = away(loss, 2), torch.tensor([[0, 3, 3], [11, 1, 2]])
    values, slopes = loss.evaluate(theta, chosen)
    for c in range(2):
        alone = behavioural_loss(net(), [x[chosen[c]]])
        value, slope = alone.evaluate(theta[c : c + 1])
        torch.testing.assert_close(values[c], value[0])
        torch.testing.assert_close(slopes[c], slope[0])


# Subsets of the parameters


def test_globs_and_masks_restrict_the_loss() -> None:
    x = points()
    whole = behavioural_loss(net(), [x])
    part = behavioural_loss(net(), [x], parameters="2.*")
    assert part.names == ("2.weight", "2.bias")
    assert len(part.start) == 10
    full = whole.start.repeat(3, 1)
    full[:, -10:] = away(part)
    torch.testing.assert_close(part.evaluate(away(part))[0], whole.evaluate(full)[0])
    torch.testing.assert_close(part.evaluate(away(part))[1], whole.evaluate(full)[1][:, -10:])
    mask = torch.zeros(4, 3, dtype=torch.bool)
    mask[1, 2] = mask[3, 0] = True
    few = behavioural_loss(net(), [x], parameters={"0.weight": mask})
    full = whole.start.repeat(2, 1)
    full[:, 5], full[:, 9] = 1.0, -1.0
    theta = torch.tensor([[1.0, -1.0]] * 2, dtype=torch.float64)
    torch.testing.assert_close(few.evaluate(theta)[0], whole.evaluate(full)[0])


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("3.*", "no parameter is called '3.\\*'"),
        ({"0.weight": torch.ones(3, 4, dtype=torch.bool)}, "expected torch.bool of \\(4, 3\\)"),
        ({"nothing": torch.ones(2, dtype=torch.bool)}, "no such parameter"),
        ({"0.bias": torch.zeros(4, dtype=torch.bool)}, "no parameter is varied"),
    ],
)
def test_wrong_subsets_are_refused(parameters: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        behavioural_loss(net(), [points()], parameters=parameters)  # type: ignore[arg-type]


# Mediators and training losses


def test_constrained_loss_adds_what_mediators_move() -> None:
    network, x = net(), points()
    readout = torch.tensor([[0.5, 0.0, 0.0, 0.0], [0.0, 1.0, -1.0, 0.0]], dtype=torch.float64)
    plain, constrained = behavioural_loss(network, [x]), constrained_loss(network, [x], {"1": readout})
    theta = away(plain)
    extra = []
    for row in theta:
        hidden = torch.tanh(x @ row[:12].reshape(4, 3).T + row[12:16])
        before = torch.tanh(x @ plain.start[:12].reshape(4, 3).T + plain.start[12:16])
        extra.append(((hidden - before) @ readout.T).square().sum() / len(x))
    torch.testing.assert_close(constrained.evaluate(theta)[0], plain.evaluate(theta)[0] + torch.stack(extra))
    by_rows = sum(block.T @ block for block in constrained.rows(plain.start))
    by_products = constrained.product(plain.start, torch.eye(26, dtype=torch.float64))
    torch.testing.assert_close(by_rows, by_products, rtol=1e-9, atol=1e-12)
    with pytest.raises(InputError, match="'9' is not a cut"):
        constrained_loss(network, [x], {"9": readout})


def test_training_loss_is_the_users() -> None:
    network, x = net(), points()
    labels = torch.arange(12) % 2
    loss = training_loss(network, [(x[:5], labels[:5]), (x[5:], labels[5:])], nn.functional.cross_entropy)
    assert not loss.behavioural
    assert loss.baseline == pytest.approx(nn.functional.cross_entropy(network.model(x), labels).item())
    theta = away(loss)
    for row, value in zip(theta, loss.evaluate(theta)[0], strict=True):
        named, first = {}, 0
        for name, p in network.model.named_parameters():
            named[name] = row[first : first + p.numel()].reshape(p.shape)
            first += p.numel()
        expected = nn.functional.cross_entropy(functional_call(network.model, named, (x,)), labels)
        torch.testing.assert_close(value, expected)
    kl = sum(block.T @ block for block in behavioural_loss(net("kl"), [x]).rows(loss.start))  # Gauss-Newton of both
    torch.testing.assert_close(loss.product(loss.start, torch.eye(26, dtype=torch.float64)), kl, rtol=1e-9, atol=1e-12)


def test_losses_that_are_not_one_number_are_refused() -> None:
    pairs = [(points(), torch.zeros(12, 2, dtype=torch.float64))]
    with pytest.raises(InputError, match=r"training loss returned a tensor of shape \(12, 2\): expected"):
        training_loss(net(), pairs, lambda output, target: (output - target).square())
    with pytest.raises(InputError, match="training loss returned a float: expected"):
        training_loss(net(), pairs, lambda output, target: 0.5)  # type: ignore[arg-type, return-value]
    with pytest.raises(InputError, match=r"function returned a tensor of shape \(3,\): expected"):
        Function(lambda w: w**2, torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("batches", "said"),
    [([], "there are no batches"), ([torch.full((4, 3), math.nan, dtype=torch.float64)], "NaN or infinite")],
)
def test_useless_data_is_refused(batches: list[torch.Tensor], said: str) -> None:
    with pytest.raises(DataError, match=said):
        behavioural_loss(net(), batches)


def test_labels_are_asked_for() -> None:
    with pytest.raises(DataError, match="pairs of"):
        training_loss(net(), [points()], nn.functional.mse_loss)


def test_model_is_left_as_it_was_and_float32_is_copied() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).train()
    before = [p.clone() for p in model.parameters()]
    loss = behavioural_loss(Network(model, []), [points().float()])
    loss.evaluate(away(loss))
    assert loss.start.dtype == torch.float64
    assert model.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


class Attending(nn.Module):
    """Causal attention in torch's own fused form, with tied weights, over integer tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.unembed = nn.Linear(4, 5, bias=False)
        self.unembed.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        x = x + nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)
        return self.unembed(x)


def test_attention_tokens_and_tied_weights() -> None:
    model = Attending().double()
    tokens = torch.randint(5, (6, 3), generator=torch.Generator().manual_seed(0))
    loss = behavioural_loss(Network(model, [], loss="kl"), [{"tokens": tokens}])
    assert len(loss.start) == 20  # shared weights count once
    by_rows = sum(block.T @ block for block in loss.rows(loss.start))
    by_products = loss.product(loss.start, torch.eye(20, dtype=torch.float64))
    torch.testing.assert_close(by_rows, by_products, rtol=1e-8, atol=1e-10)
    assert (loss.evaluate(away(loss))[0] > 0).all()


# The user's loss sees the model's own output


class Shaped(nn.Module):
    """A linear map whose output has a shape of its own."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.a = nn.Linear(3, math.prod(shape))
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x).reshape(len(x), *self.shape)


@pytest.mark.parametrize("sizes", [(12,), (5, 7), (1, 4, 7)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(), (1,), (2,), (1, 2), (3, 2), (1, 1)])
def test_training_loss_is_what_torch_says_of_all_data(
    shape: tuple[int, ...], reduction: str, sizes: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model, x = Shaped(shape).double(), points()
    y = torch.randn(12, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def loss(output: torch.Tensor, target: dict[str, torch.Tensor]) -> torch.Tensor:
        assert output.shape == target["y"].shape
        return nn.functional.mse_loss(output, target["y"], reduction=reduction)

    pairs = [(a, {"y": b}) for a, b in zip(x.split(sizes), y.split(sizes), strict=True)]
    found = training_loss(Network(model, []), pairs, loss)
    assert found.reduction == reduction
    assert found.baseline == pytest.approx(nn.functional.mse_loss(model(x), y, reduction=reduction).item())
    everything = torch.arange(12).repeat(2, 1)
    values, slopes = found.evaluate(away(found, 2), everything)
    torch.testing.assert_close(values, found.evaluate(away(found, 2))[0])
    torch.testing.assert_close(slopes, found.evaluate(away(found, 2))[1])


def test_a_mean_with_other_weights_is_refused_over_several_batches() -> None:
    network = net()
    labels = torch.tensor([0, 1, -100, 1] * 3)
    whole = nn.functional.cross_entropy(network.model(points()), labels).item()
    assert training_loss(network, [(points(), labels)], nn.functional.cross_entropy).baseline == pytest.approx(whole)
    long = points(1500)
    pairs = [(part, torch.tensor([0, -100, 1, 1, 1])[torch.arange(len(part)) % 5]) for part in long.split(800)]
    with pytest.raises(InputError, match="neither the mean over data points nor their sum"):
        training_loss(network, pairs, nn.functional.cross_entropy)


# Training losses that broadcast outputs against targets

OVER_PAIRS = {
    "square": lambda o, t: (o - t).square().mean(),
    "sum": lambda o, t: (o - t).square().sum(),
    "root": lambda o, t: (o - t).square().mean().sqrt(),
    "huber": lambda o, t: nn.functional.huber_loss(*torch.broadcast_tensors(o, t)),
    "logistic": lambda o, t: nn.functional.softplus(-o * t).mean(),
}
"""Right where outputs and targets have one shape; of all pairs where outputs are (n, 1) and targets (n,)."""

WEIGHTED = {
    "ignore_index": lambda o, t: nn.functional.cross_entropy(o, t.where(t > 0, -100)),
    "class weights": lambda o, t: nn.functional.cross_entropy(o, t, o.new_tensor([0.2, 1.0, 3.0])),
    "by target": lambda o, t: ((o[:, 0] - t).square() * (1 + t)).sum() / (1 + t).sum(),
    "by output": lambda o, t: ((o[:, 0] - t).square() * o[:, 1].detach().exp()).sum() / o[:, 1].detach().exp().sum(),
    "root": lambda o, t: (o[:, 0] - t).square().mean().sqrt(),
    "no targets": lambda o, t: (o[:, 0].exp() * o[:, 1].square()).sum() / o[:, 0].exp().sum(),
    "no outputs": lambda o, t: 0.0 * o.sum() + (t * t).double().mean().sqrt(),
    "linear": lambda o, t: (o[:, 0] - t).mean(),
    "linear, broadcast": lambda o, t: (o[:, :1] - t).mean(),
    "sum": lambda o, t: nn.functional.cross_entropy(o, t, reduction="sum"),
}
"""Losses of data points, whatever they weigh them by, and whether they look at all that they are given or not."""


def seen(loss, x: torch.Tensor, y: torch.Tensor) -> bool:
    return ignores_pairing(lambda pair: float(loss(*pair)), (x, y), torch.finfo(x.dtype).eps)


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(sorted(OVER_PAIRS)),
    n=st.integers(3, 60),
    seed=st.integers(0, 99),
    spread=st.sampled_from([1e-2, 1.0]),
    kind=st.sampled_from([torch.float64, torch.float32]),
)
def test_losses_over_all_pairs_are_told_from_losses_of_data_points(name, n, seed, spread, kind) -> None:
    draws = torch.Generator().manual_seed(seed)
    y = torch.randn(n, generator=draws).to(kind)
    x = (1 + spread * torch.randn(n, 1, generator=draws)).to(kind)  # near what a constant would be, too
    assume(name != "huber" or bool(((x - y).abs() < 0.9).any()))  # elsewhere it is linear: pairs do not matter
    if spread == 1.0 or kind == torch.float64:
        assert seen(OVER_PAIRS[name], x, y)
    assert not seen(OVER_PAIRS[name], x, y[:, None])
    assert not seen(lambda o, t: OVER_PAIRS[name](o[:, 0], t), x, y)


@settings(deadline=None, max_examples=80)
@given(
    name=st.sampled_from(sorted(WEIGHTED)),
    n=st.integers(1, 60),
    seed=st.integers(0, 99),
    spread=st.sampled_from([0.0, 1e-9, 1e-5, 1.0]),
    kind=st.sampled_from([torch.float64, torch.float32]),
    classes=st.integers(1, 3),
)
def test_losses_of_data_points_are_never_taken_for_one_over_all_pairs(name, n, seed, spread, kind, classes) -> None:
    draws = torch.Generator().manual_seed(seed)
    x = (0.5 + spread * torch.randn(n, 3, generator=draws)).to(kind)
    assert not seen(WEIGHTED[name], x, torch.randint(classes, (n,), generator=draws))


@pytest.mark.parametrize(
    ("name", "reduction", "sizes"),
    [
        *((name, None, (60,)) for name in ("of torch", "of torch, silenced", *sorted(OVER_PAIRS))),
        ("of torch", None, (1, 40, 19)),
        ("of torch", "sum", (60,)),
        ("square", None, (1, 40, 19)),
        ("root", "mean", (60,)),
        ("sum", "sum", (1, 40, 19)),
    ],
)
def test_training_losses_that_broadcast_are_refused_with_the_shapes(
    name: str, reduction: str | None, sizes: tuple[int, ...]
) -> None:
    def silenced(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return nn.functional.mse_loss(output, target)

    torch.manual_seed(0)
    model, x = Shaped((1,)), points(60).float()
    y = x.sum(1)
    loss = {"of torch": nn.functional.mse_loss, "of torch, silenced": silenced}.get(name) or OVER_PAIRS[name]
    pairs = list(zip(x.split(sizes), y.split(sizes), strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.raises(DataError, match=r"outputs are .*\(60, 1\), targets .*\(60,\).*target\[:, None\]"):
            training_loss(Network(model, []), pairs, loss, reduction=reduction)
    pairs = [(a, b[:, None]) for a, b in pairs]
    training_loss(Network(model, []), pairs, loss, reduction=reduction)


def test_a_loss_that_fails_on_some_of_the_data_points_is_refused() -> None:
    model, x = Shaped((6, 2)).double(), points(6)
    y = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))  # falls on the positions
    with pytest.raises(DataError, match="the training loss works on whole batches only: on 12 data points"):
        training_loss(Network(model, []), [(x, y)], lambda o, t: (o - t).square().mean())


# Gradients that are not derivatives


@pytest.mark.parametrize("options", [{"padding_idx": 0}, {"scale_grad_by_freq": True}, {}])
def test_embeddings_are_differentiated_as_they_are_written(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(4, 2, **options), nn.Linear(2, 2)).double()  # type: ignore[arg-type]
    tokens = torch.tensor([[0, 1], [0, 2], [0, 3], [1, 1]])
    loss = behavioural_loss(Network(model, []), [tokens])
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Embedding(4, 2), nn.Linear(2, 2)).double()
    with torch.no_grad():
        plain[0].weight.copy_(model[0].weight)
    torch.testing.assert_close(
        loss.evaluate(away(loss))[1], behavioural_loss(Network(plain, []), [tokens]).evaluate(away(loss))[1]
    )
    assert (model[0].padding_idx, model[0].scale_grad_by_freq) == (
        options.get("padding_idx"),
        options.get("scale_grad_by_freq", False),
    )


def test_straight_through_is_refused_by_the_name_of_its_parameters() -> None:
    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            return self.b(y + (y.round() - y).detach())

    torch.manual_seed(0)
    with pytest.raises(InputError, match=r"not the derivative of the loss for 'a\.weight'.*'a\.bias'"):
        behavioural_loss(Network(Rounded().double(), []), [points()])
    trusted = Network(Rounded().double(), [], check=False)
    assert not behavioural_loss(trusted, [points()]).checked
