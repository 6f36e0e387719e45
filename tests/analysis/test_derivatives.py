"""Autograd's gradient against finite differences: models that lie to autograd are named, others are left alone."""

from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from interbasis.analysis.derivatives import Disagreement, describe_disagreements, gradient_disagreements
from interbasis.analysis.errors import InputError


class WrongSlope(torch.autograd.Function):
    """x^2 whose backward says 3x."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, slope):  # type: ignore[no-untyped-def]
        return 3 * ctx.saved_tensors[0] * slope


class Lying(nn.Module):
    """A network whose second layer passes through something that autograd gets wrong."""

    def __init__(self, lie: Callable[[Tensor], Tensor], width: int = 4) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, width), nn.Linear(width, width)
        self.third = nn.Linear(width, 2)
        self.lie = lie

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.lie(self.second(torch.tanh(self.first(x)))))


def hooked(x: Tensor) -> Tensor:
    y = x * 1.0
    if y.requires_grad:
        y.register_hook(lambda slope: slope / 2)
    return y


LIES: dict[str, Callable[[Tensor], Tensor]] = {
    "straight-through": lambda x: x + (torch.sign(x) - x).detach(),
    "detached": lambda x: torch.where(x > 0, x, x.detach()),
    "hook": hooked,
    "backward": WrongSlope.apply,
    "clipped": lambda x: 3 * x - (2 * x).detach(),
}


def loss_of(model: nn.Module, x: Tensor) -> Callable[[Mapping[str, Tensor]], Tensor]:
    weights = torch.linspace(-1, 2, 64, dtype=torch.float64)

    def loss(named: Mapping[str, Tensor]) -> Tensor:
        y = functional_call(model, dict(named), (x,)).flatten()
        return (weights.repeat(len(y))[: len(y)].to(y) * y + y**2).sum()

    return loss


def named_of(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("lie", LIES)
def test_what_lies_to_autograd_is_named(lie: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Lying(LIES[lie]).to(dtype)
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    names = {one.name for one in gradient_disagreements(loss_of(model, x), named_of(model))}
    behind = {"first.weight", "first.bias", "second.weight", "second.bias"}  # what follows is right
    assert names == behind if dtype == torch.float64 else names & behind == names != set()


@pytest.mark.parametrize("options", [{"padding_idx": 0}, {"scale_grad_by_freq": True}])
def test_embeddings_with_a_gradient_of_their_own_are_named(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 3, **options), nn.Linear(3, 2)).double()  # type: ignore[arg-type]
    with torch.no_grad():
        model[0].weight[0] = 0.4
    tokens = torch.tensor([[0, 1, 2], [0, 3, 1], [4, 4, 4]])
    assert [one.name for one in gradient_disagreements(loss_of(model, tokens), named_of(model))] == ["0.weight"]


ACTIVATIONS = [nn.ReLU, nn.Tanh, nn.GELU, nn.Hardtanh, nn.Softplus, nn.LeakyReLU, lambda: nn.Softmax(-1)]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    depth=st.integers(1, 4),
    width=st.integers(1, 24),
    n=st.integers(1, 40),
    activation=st.sampled_from(ACTIVATIONS),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    size=st.sampled_from([1e-3, 1.0, 30.0]),
)
def test_honest_networks_pass(
    seed: int,
    depth: int,
    width: int,
    n: int,
    activation: Callable[[], nn.Module],
    dtype: torch.dtype,
    size: float,
) -> None:
    """Kinks of ReLU, saturated units, dead ones, near-zero biases and a single data point give no false alarm."""
    draws = torch.Generator().manual_seed(seed)
    size = size if dtype == torch.float64 else min(size, 1.0)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width if layers else 3, width), activation()]
    model = nn.Sequential(*layers, nn.Linear(width, 2)).to(dtype)
    for p in model.parameters():
        p.data = (torch.randn(p.shape, generator=draws) * size * (1.0 if p.ndim > 1 else 0.02)).to(dtype)
    x = torch.randn(n, 3, generator=draws).to(dtype)
    assert gradient_disagreements(loss_of(model, x), named_of(model), seed=seed) == ()


def test_numbers_in_float32_inside_a_model_in_float64_are_rounding() -> None:
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.nn.functional.softmax(self.a(x), -1, dtype=torch.float32).double())

    torch.manual_seed(0)
    model = Inside().double()
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert gradient_disagreements(loss_of(model, x), named_of(model)) == ()


def test_a_gradient_of_the_callers_is_judged() -> None:
    at = {"a": torch.tensor([1.0, 2.0]).double(), "b": torch.tensor(3.0).double()}

    def bowl(named: Mapping[str, Tensor]) -> Tensor:
        return named["a"].square().sum() * named["b"]

    right = {"a": 2 * at["a"] * 3, "b": torch.tensor(5.0).double()}
    assert gradient_disagreements(bowl, at, right) == ()
    (wrong,) = gradient_disagreements(bowl, at, right | {"b": torch.tensor(4.9).double()})
    assert wrong.name == "b"
    assert wrong.by_autograd / wrong.by_differences == pytest.approx(0.98)
    assert gradient_disagreements(lambda named: torch.tensor(1.0), at) == ()
    with pytest.raises(InputError, match=r"'h' is torch\.float16"):
        gradient_disagreements(bowl, {"h": torch.ones(1, dtype=torch.float16)})


def test_many_blocks_are_counted() -> None:
    said = describe_disagreements([Disagreement(f"{i}.weight", 0.0, 1.0) for i in range(9)])
    assert said.startswith("'0.weight' (slope along a random direction by autograd 0, by finite differences 1), ")
    assert said.endswith(" and 3 more")
