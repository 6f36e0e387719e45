"""Which places hold (batch, channels, length): followed through the functions that a model calls."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from interbasis.analysis.errors import CutError
from interbasis.analysis.network.cuts import Place, find_modules_by_name
from interbasis.analysis.network.layouts import shown_axes
from interbasis.analysis.network.network import Network

Step = Callable[[Tensor, int], Tensor]  # of a tensor and its axis of channels


class OwnConvolution(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv1d(x, weight=self.weight, padding=1)


class Swish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * 2


READERS: dict[str, Callable[[int], Callable[[Tensor], Tensor]]] = {
    "Conv1d": lambda c: nn.Conv1d(c, c, 3, padding=1, padding_mode="circular"),
    "own module": OwnConvolution,
    "conv1d": lambda c: lambda h: functional.conv1d(input=h, weight=torch.ones(c, c, 1).to(h)),
    "conv_transpose1d": lambda c: lambda h: functional.conv_transpose1d(h, torch.ones(c, 2, 1).to(h)),
    "aten": lambda c: lambda h: torch.ops.aten.conv1d(h, torch.ones(c, c, 1).to(h)),
    "max_pool1d": lambda _: lambda h: functional.max_pool1d(h, 2),
    "with indices": lambda _: lambda h: functional.max_pool1d(h, 2, return_indices=True)[0],
    "avg_pool1d": lambda _: lambda h: functional.avg_pool1d(h, 2),
    "adaptive_avg_pool1d": lambda _: lambda h: functional.adaptive_avg_pool1d(h, 3),
    "adaptive_max_pool1d": lambda _: lambda h: functional.adaptive_max_pool1d(h, 3),
    "group_norm": lambda _: lambda h: functional.group_norm(h, 1),
    "batch_norm": lambda c: lambda h: functional.batch_norm(h, torch.zeros(c).to(h), torch.ones(c).to(h)),
    "instance_norm": lambda _: functional.instance_norm,
    "BatchNorm1d": nn.BatchNorm1d,
    "ReflectionPad1d": lambda _: nn.ReflectionPad1d(1),
    "interpolate": lambda _: lambda h: functional.interpolate(h, scale_factor=2),
    "conv2d": lambda c: lambda h: functional.conv2d(h[..., None], torch.ones(c, c, 3, 1).to(h)).flatten(2),
}

STEPS: dict[str, Step] = {
    "none": lambda h, _: h,
    "relu": lambda h, _: functional.relu(h),
    "in place": lambda h, _: h.clone().tanh_(),
    "module": lambda h, _: nn.GELU()(h),
    "own module": lambda h, _: Swish()(h),
    "autograd": lambda h, _: Doubled.apply(h),
    "scaled": lambda h, _: 2 * h + 1,
    "residual": lambda h, _: h + torch.tanh(h),
    "dropout": lambda h, _: functional.dropout(h, 0.1, training=False).contiguous(),
    "joined": lambda h, channels: torch.cat([h, -h], channels).narrow(channels, 1, h.shape[channels]),
    "halves": lambda h, channels: h.chunk(2, channels)[0],
    "gated": lambda h, channels: functional.glu(torch.cat([h, h], channels), channels),
    "padded": lambda h, channels: functional.pad(h, (1, 0) if channels == 1 else (0, 0, 1, 0)),
    "cut off": lambda h, channels: h[:, :, 1:] if channels == 1 else h[:, 1:],
    "turned twice": lambda h, _: torch.sin(h.mT.contiguous().mT),
}

TURNS: dict[str, Callable[[Tensor], Tensor]] = {
    "transpose": lambda h: h.transpose(1, 2),
    "permute": lambda h: h.permute(0, 2, 1).contiguous(),
    "movedim": lambda h: torch.movedim(h, 1, 2),
    "mT": lambda h: h.mT,
    "einsum": lambda h: torch.einsum("bcl->blc", h),
    "in place": lambda h: h.clone().transpose_(1, 2),
}


class Block(nn.Module):
    """Reads channels first; the layout outside may be another one."""

    def __init__(self, read: Callable[[Tensor], Tensor], turn: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__()
        self.read, self.turn = read, turn

    def forward(self, h: Tensor) -> Tensor:
        return self.read(h) if self.turn is None else self.turn(self.read(self.turn(h)))


class Followed(nn.Module):
    def __init__(self, block: Block, before: Step, after: Step) -> None:
        super().__init__()
        self.enter, self.block, self.leave, self.head = nn.Identity(), block, nn.Identity(), nn.Linear(1, 2)
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Tensor:
        channels = 1 if self.block.turn is None else 2
        h = self.block(self.before(self.enter(x), channels))
        return self.head(torch.exp(0.3 * self.leave(self.after(h, channels))).flatten(1).mean(1, keepdim=True))


PLACES = ["enter:in", "enter", "block:in", "block", "leave:in", "leave"]
befores = st.sampled_from(sorted(set(STEPS) - {"halves", "turned twice"}))
afters = st.sampled_from(sorted(set(STEPS) - {"turned twice"}))


@pytest.mark.parametrize("reader", READERS)
@given(st.integers(5, 8), befores, afters, st.sampled_from(sorted(TURNS)))
@settings(max_examples=12, deadline=None)
def test_layouts_are_followed_through_functions(reader: str, length: int, before: str, after: str, turn: str) -> None:
    x = torch.randn(6, 4, length)
    places = [Place(name.removesuffix(":in"), name.endswith(":in")) for name in PLACES]

    def found(turned: Callable[[Tensor], Tensor] | None, x: Tensor) -> set[Place | None]:
        model = Followed(Block(READERS[reader](4), turned), STEPS[before], STEPS[after]).eval()
        with torch.no_grad():
            shown = shown_axes(find_modules_by_name(model), lambda: model(x), places)
            return {place for place, what in shown.items() if what.channels}

    assert found(None, x) == set(places)
    assert found(TURNS[turn], x.mT) == set()
    assert found(TURNS[turn], x[..., :4].mT.contiguous()) == set()  # as many positions as channels


@given(st.sampled_from(sorted(READERS)), befores, afters, st.sampled_from(PLACES), st.sampled_from(sorted(TURNS)))
@settings(max_examples=10, deadline=None)
def test_channels_first_is_refused_and_channels_last_is_right(
    reader: str, before: str, after: str, cut: str, turn: str
) -> None:
    torch.manual_seed(0)
    x = torch.randn(10, 4, 6, dtype=torch.float64)

    first = Followed(Block(READERS[reader](4), None), STEPS[before], STEPS[after]).double()
    with pytest.raises(CutError, match=rf"'{cut}' holds \(batch, channels, length\), as .* takes it"):
        Network(first, [cut, "head"]).check_once([x])
    net = Network(first, [cut, "head"], batch_first={cut: "channels"})
    net.check_once([x])

    last = Followed(Block(READERS[reader](4), TURNS[turn]), STEPS[before], STEPS[after]).double()
    last.load_state_dict(first.state_dict())
    net_last = Network(last, [cut, "head"])
    net_last.check_once([x.mT])
    torch.testing.assert_close(net_last.activations(x.mT)[cut], net.activations(x)[cut])


class Between(nn.Module):
    """A function between two places; what comes after is the same for each data point."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.head, self.function = nn.Identity(), nn.Identity(), nn.Linear(1, 2), function

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.exp(0.3 * self.b(self.function(self.a(x)))).flatten(1).mean(1, keepdim=True))


def attention_of_channels(x: Tensor) -> Tensor:
    gate = functional.conv1d(x.mean(1, keepdim=True), torch.ones(1, 1, 3).to(x), padding=1)
    return x * torch.sigmoid(gate)


CHANNELS_LAST: dict[str, Callable[[Tensor], Tensor]] = {
    "gate": attention_of_channels,
    "linear of a product": lambda x: (x @ x.mT) @ x,
    "normalised": lambda x: functional.layer_norm(x, x.shape[-1:]),
    "pool of positions": lambda x: functional.avg_pool2d(x, (2, 1)),
    "padded width": lambda x: functional.pad(x, (0, 1)),
    "sentences as images": lambda x: functional.conv2d(x[:, None], torch.ones(1, 1, 3, 3).to(x), padding=1)[:, 0],
    "copies as images": lambda x: functional.conv2d(torch.stack([x, -x, 2 * x, x], 1), torch.ones(1, 4, 1, 1).to(x))[
        :, 0
    ],
    "each point alone": torch.vmap(lambda x: torch.sin(x[None]).sum(0)),
    "pairs as images": lambda x: functional.conv2d((x @ x.mT)[:, None], torch.ones(2, 1, 1, 1).to(x)).mean(1) @ x,
}


@pytest.mark.parametrize("kind", CHANNELS_LAST)
def test_functions_of_the_last_axis_pass(generator: torch.Generator, kind: str) -> None:
    net = Network(Between(CHANNELS_LAST[kind]).double(), ["a", "b", "head"])
    net.check_once([normal(10, 4, 4, generator=generator)])
    assert net.checked


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_picture_has_its_channels_last(generator: torch.Generator, turn: str) -> None:
    def patches(x: Tensor) -> Tensor:
        return functional.conv2d(x, torch.ones(4, 1, 2, 2).to(x) * torch.arange(4).to(x)[:, None, None, None], stride=2)

    x = normal(10, 1, 4, 4, generator=generator)
    net = Network(Between(lambda x: TURNS[turn](patches(x).flatten(2))).double(), ["b", "head"])
    net.check_once([x])
    assert net.checked
    with pytest.raises(CutError, match=r"'b' holds \(batch, channels, length\), as conv2d takes it"):
        Network(Between(lambda x: patches(x).flatten(2)).double(), ["b", "head"]).check_once([x])


def test_the_message_names_function_and_module(generator: torch.Generator) -> None:
    x = normal(10, 4, 5, generator=generator)
    model = nn.Sequential(nn.Tanh(), OwnConvolution(4), Swish(), nn.Flatten(), nn.Linear(20, 2)).double()
    with pytest.raises(CutError, match=r"'0' holds .* as conv1d in '1' takes it.*batch_first=\{'0': 'channels'\}"):
        Network(model, ["0", "4"]).check_once([x])
    Network(model, []).check_once([x])


def test_outputs_and_compiled_models(generator: torch.Generator) -> None:
    x = normal(10, 4, 5, generator=generator)
    model = nn.Sequential(nn.Linear(5, 5), OwnConvolution(4), Swish()).double()
    with pytest.raises(CutError, match=r"'output' holds"):
        Network(model, ["0:in", "0"], batch_first={"0": True}).check_once([x])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(model, backend="eager")
        with pytest.raises(CutError, match=r"'1' holds"):
            Network(compiled, ["1", "2"]).check_once([x])
