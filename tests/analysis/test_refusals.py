"""Models and data of everyday that must be taken as they are, and models that must be refused by name."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from interbasis.analysis import Network, interaction_basis, learning_coefficient, parameter_ledger
from interbasis.analysis.errors import CutError, DataError
from interbasis.analysis.llc.chains import Sampler
from interbasis.analysis.llc.network_loss import behavioural_loss, training_loss

N = 24


class Dense(nn.Module):
    """Two dense layers with a function of the user's between them."""

    def __init__(self, between: Callable[[Tensor], Tensor] = torch.tanh, returned: Callable[..., Any] | None = None):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 1)
        self.between, self.returned = between, returned

    def forward(self, x: Tensor) -> Any:
        y = self.b(self.between(self.a(x)))
        return y if self.returned is None else self.returned(y)


class Chosen(torch.autograd.Function):
    """The identity, with a backward pass that does as it likes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.factor * grads[0], None


class ByNumpy(torch.autograd.Function):
    """tanh by numpy, whose backward cannot be vectorised."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.from_numpy(grads[0].numpy() * (1 - y.numpy() ** 2))


def dense(*args: Any) -> Dense:
    torch.manual_seed(0)
    return Dense(*args).double()


def data(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(N, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def importance(model: nn.Module, x: Tensor, cut: str = "a") -> Tensor:
    bases = interaction_basis(Network(model, ["a:in", "a", "b"]), [x], rotation="none")
    return torch.from_numpy(bases[cut].importance)


def quantised(h: Tensor) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(h, 0.05, 0, -128, 127)


@pytest.mark.parametrize(
    "between",
    [
        lambda h: h + (h.sign() - h).detach(),
        lambda h: torch.tanh(h + (h * h).detach()),
        quantised,
        lambda h: Chosen.apply(h, -1.0),
        lambda h: Chosen.apply(h, 1e-3),
    ],
    ids=["straight-through", "detached part", "fake quantisation", "reversed gradient", "scaled gradient"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_that_are_no_derivative_are_refused_by_the_basis_too(between: Any, dtype: torch.dtype) -> None:
    if dtype == torch.float32 and between is quantised:
        pytest.skip("steps that float32 needs are as wide as its stairs")
    with pytest.raises(CutError, match=r"derivative of the output with respect to 'a(:in)?' is wrong"):
        importance(dense(between).to(dtype), data(dtype))
    trusted = Network(dense(between).to(dtype), ["a:in", "a", "b"], check=False)
    interaction_basis(trusted, [data(dtype)], rotation="none")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "between",
    [
        torch.relu,
        functional.hardtanh,
        lambda h: functional.max_pool1d(torch.relu(h)[:, None], 3, 1, 1)[:, 0],  # ties at 0
        lambda h: torch.relu(torch.relu(h)),
        lambda h: h.softmax(-1).log(),
        lambda h: functional.layer_norm(h, (4,)),
        lambda h: h.relu().sort(-1).values,
    ],
    ids=["relu", "hardtanh", "max-pooling", "relu twice", "log softmax", "layer norm", "sort"],
)
def test_kinks_are_no_reason_to_refuse(between: Any, dtype: torch.dtype) -> None:
    model = nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), Dense(between), nn.Sigmoid()
    )  # a cut at the ReLU has many zeros, at which kinks may sit
    torch.manual_seed(0)
    model[2].a = nn.Linear(4, 4)
    net = Network(model.to(dtype), ["0:in", "0", "1", "2.a", "2"])
    net.check_once([data(dtype)])
    assert net.checked


def test_a_part_without_gradients_is_named() -> None:
    class Frozen(Dense):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                h = self.a(x)
            return self.b(torch.tanh(h))

    with pytest.raises(CutError, match=r"'a:in' has no gradient.*no_grad"):
        importance(Frozen().double(), data())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_data_are_widened_to_the_type_of_the_model(dtype: torch.dtype) -> None:
    x, model = data(dtype), dense()
    torch.testing.assert_close(importance(model, x), importance(model, x.double()))
    ledgers = [parameter_ledger(Network(model, []), [batch]).effective for batch in (x, x.double())]
    assert ledgers[0] == ledgers[1]
    losses = [behavioural_loss(Network(model, []), [batch]) for batch in (x, x.double())]
    point = losses[0].start[None] + 0.1
    torch.testing.assert_close(losses[0].evaluate(point), losses[1].evaluate(point))


def test_wide_data_are_refused_with_what_to_do() -> None:
    with pytest.raises(DataError, match="the batch holds float64: convert it"):
        importance(dense().float(), data())


@pytest.mark.parametrize("context", [torch.no_grad, lambda: torch.autograd.set_detect_anomaly(True, check_nan=False)])
def test_the_callers_switches_of_autograd_do_not_matter(context: Any) -> None:
    right = importance(dense(), data())
    with context():
        torch.testing.assert_close(importance(dense(), data()), right)
        assert parameter_ledger(Network(dense(), []), [data()]).effective == 21


def test_backward_functions_that_cannot_be_vectorised_are_run_one_by_one() -> None:
    torch.testing.assert_close(importance(dense(ByNumpy.apply), data()), importance(dense(), data()))


def test_data_that_record_gradients_are_taken_as_values() -> None:
    found = [
        learning_coefficient(dense(), [x], temperature=1e3, sampler=Sampler(chains=2, warmup=3, draws=4)).value
        for x in (data(), data().requires_grad_())
    ]
    assert found[0] == found[1]


def test_one_number_per_data_point_is_a_width_of_one() -> None:
    flat = dense(torch.tanh, lambda y: y.squeeze(-1))
    torch.testing.assert_close(importance(flat, data()), importance(dense(), data()))


@pytest.mark.parametrize("shape", [(N,), (N, 1), (N, 1, 1, 1)])
def test_training_losses_see_outputs_of_any_shape(shape: tuple[int, ...]) -> None:
    model, y = dense(torch.tanh, lambda y: {"loss": y.sum(), "value": y.reshape(len(y), *shape[1:])}), torch.ones(shape)
    for output, loss in (("value", functional.mse_loss), (None, lambda out, y: functional.mse_loss(out["value"], y))):
        found = training_loss(Network(model, [], output=output), [(data(), y.double())], loss)
        assert found.baseline == pytest.approx(float((model(data())["value"].detach() - 1).square().mean()))
        assert found.checked


def test_training_losses_refuse_outputs_that_mix_data_points() -> None:
    mixed = dense(torch.tanh, lambda y: {"value": (y - y.mean(0)).reshape(-1, 1, 1, 1)})
    with pytest.raises(CutError, match="data points are mixed"):
        training_loss(Network(mixed, []), [(data(), data())], lambda out, _: out["value"].square().mean())


def test_models_that_write_into_their_parameters_are_refused_and_put_back() -> None:
    model = nn.Sequential(nn.Embedding(6, 3, max_norm=0.5), nn.Linear(3, 2)).double()
    before = model[0].weight.detach().clone()
    with pytest.raises(DataError, match=r"writes into its parameters '0.weight'.*max_norm"):
        parameter_ledger(Network(model, []), [torch.arange(6)[:, None]])
    torch.testing.assert_close(model[0].weight.detach(), before)


@pytest.mark.parametrize("compiled", [torch.jit.script, lambda m: torch.jit.trace(m, data())], ids=["script", "trace"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_models_of_torch_jit_are_refused(compiled: Any) -> None:
    model = compiled(nn.Sequential(nn.Linear(3, 4), nn.Tanh()).double())
    with pytest.raises(CutError, match=r"torch\.jit"):
        Network(model, ["0", "1"])


def test_parameters_without_dimensions_are_counted() -> None:
    class Scaled(Dense):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.tanh(self.scale * self.a(x)))

    torch.manual_seed(0)
    assert parameter_ledger(Network(Scaled().double(), []), [data()]).effective == 21  # of 22: scale and a are one


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_embeddings_read_tokens_of_any_whole_type(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 2, sparse=True), nn.Tanh(), nn.Linear(2, 2)).double()
    tokens = torch.arange(20).reshape(10, 2).remainder(5).to(kind)
    assert parameter_ledger(Network(model, []), [tokens]).effective == 10  # two numbers of each of five tokens
    loss = behavioural_loss(Network(model, []), [tokens])
    assert loss.evaluate(loss.start[None] + 0.1)[0] > 0


def test_parameters_behind_data_parallel_are_counted_and_moved() -> None:
    found = [
        (
            parameter_ledger(Network(model, []), [data()]).effective,
            float(behavioural_loss(Network(model, []), [data()]).evaluate(torch.ones(1, 21).double())[0]),
        )
        for model in (dense(), nn.DataParallel(dense()))
    ]
    assert found[0] == found[1]


def test_padded_batches_need_their_mask_to_be_named() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Embedding(5, 3), nn.Linear(3, 2)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return self.b(torch.tanh(self.a(input_ids)) * attention_mask[..., None])

    torch.manual_seed(0)
    model, mask = Reader().double(), torch.ones(N, 4)
    batch = {"input_ids": torch.randint(5, (N, 4)), "attention_mask": mask}
    Network(model, ["a", "b"]).check_once([batch])
    mask[: N // 2, 2:] = 0
    with pytest.raises(DataError, match=r"padded.*mask='attention_mask'"):
        Network(model, ["a", "b"]).check_once([batch])
    Network(model, ["a", "b"], mask="attention_mask").check_once([batch])
