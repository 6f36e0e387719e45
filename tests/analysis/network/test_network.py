"""Cuts by hooks: what is read and replaced, what is refused, and that the model is left as it was."""

import copy

import pytest
import torch
from cases import TinyAttention, cut_network, normal, random_mlp
from torch import Tensor, nn

from interbasis.analysis.basis.moments import collect
from interbasis.analysis.errors import CutError, DataError
from interbasis.analysis.network.network import Network
from interbasis.analysis.network.transitions import PositionWise


class Skip(nn.Module):
    """A block with a skip path around its inner module, then a readout; returns a tuple or a dict on demand."""

    def __init__(self, generator: torch.Generator, wrap: str = "tensor") -> None:
        super().__init__()
        self.first = random_mlp((4, 4), generator)
        self.inner = random_mlp((4, 4), generator)
        self.block = nn.Identity()
        self.act = nn.ReLU(inplace=True)
        self.last = random_mlp((4, 3), generator)
        self.wrap = wrap

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor | tuple[Tensor, int] | dict[str, Tensor]:
        h = self.first(x * scale)
        y = self.last(self.act(self.block(h + self.inner(h))))
        return {"tensor": y, "tuple": (y, 1), "dict": {"logits": y}}[self.wrap]


@pytest.fixture
def x(generator: torch.Generator) -> Tensor:
    return normal(6, 4, generator=generator)


@pytest.fixture
def skip(generator: torch.Generator) -> Skip:
    return Skip(generator)


def test_activations_are_those_of_the_modules(generator: torch.Generator, x: Tensor) -> None:
    model = random_mlp((4, 5, 3), generator)
    net = cut_network(model, x)
    assert net.cuts == ("0:in", "0", "1")
    assert net.widths == (4, 5, 3)
    values = net.activations(x)
    torch.testing.assert_close(values["0:in"][:, 0], x)
    torch.testing.assert_close(values["0"][:, 0], model[0](x))
    torch.testing.assert_close(net.output(x)[:, 0], model(x))


def test_in_place_modules_after_a_cut_do_not_change_what_was_read(skip: Skip, x: Tensor) -> None:
    net = Network(skip, ["first", "block", "last"])
    h = skip.first(x)
    torch.testing.assert_close(net.activations(x)["block"][:, 0], h + skip.inner(h))


def test_jacobians_equal_autograd(generator: torch.Generator, x: Tensor) -> None:
    model = random_mlp((4, 5, 6, 3), generator)
    net = cut_network(model, x)
    found = net.jacobian(x, 1, 3)
    for i, h in enumerate(model[0](x)):
        expected = torch.autograd.functional.jacobian(lambda v: model[2](model[1](v)), h)
        torch.testing.assert_close(found[i, 0, :, 0], expected)


def test_jacobians_over_positions_equal_autograd(generator: torch.Generator) -> None:
    model = TinyAttention(4, generator)
    x = normal(3, 5, 4, generator=generator)
    net = Network(model, ["enter", "mix", "read"], example=x)
    found = net.jacobian(x, 0, 1)
    for i in range(3):
        expected = torch.autograd.functional.jacobian(lambda v: model.mix(v[None])[0], x[i])
        torch.testing.assert_close(found[i], expected)


def test_parts_of_a_concatenated_cut_are_independent(skip: Skip, x: Tensor) -> None:
    """d(block) / d(first, inner) is (I, I), although `first` feeds `inner`; and so for the output."""
    net = Network(skip, ["first", ("first", "inner"), "block", "last"])
    net.check_cuts(x)
    assert net.widths == (4, 8, 4, 3)
    eye = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(net.jacobian(x, 1, 2)[0, 0, :, 0], torch.cat([eye, eye], 1))
    torch.testing.assert_close(net.jacobian(x, 0, 1)[0, 0, :4, 0], eye)
    gram = collect(net, [x]).jacobians
    torch.testing.assert_close(gram["first+inner"].gram, gram["block"].gram.repeat(2, 2))


def test_positions_select_what_counts(generator: torch.Generator) -> None:
    model = TinyAttention(4, generator)
    x = normal(3, 5, 4, generator=generator)
    net = Network(model, ["enter", "mix", "read"], positions={"mix": "last", "read": "last"}, example=x)
    values = net.activations(x)
    assert [v.shape[1] for v in values.values()] == [5, 1, 1]
    torch.testing.assert_close(values["read"][:, 0], model(x)[:, -1])
    net.check_cuts(x)
    some = Network(model, ["enter", "read"], positions=[0, 2], example=x)
    torch.testing.assert_close(some.output(x), model(x)[:, [0, 2]])
    wrong = Network(model, ["enter", "mix", "read"], positions={"enter": "last"}, example=x)
    with pytest.raises(CutError, match="'enter' is not a cut"):
        wrong.check_cuts(x)


@pytest.mark.parametrize("wrap", ["tensor", "tuple", "dict"])
def test_batches_and_outputs_of_every_kind(generator: torch.Generator, x: Tensor, wrap: str) -> None:
    model = Skip(generator, wrap)
    net = Network(model, ["first", "block", "last"], output={"tensor": None, "tuple": 0, "dict": "logits"}[wrap])
    expected = net.output(x)
    torch.testing.assert_close(net.output((x,)), expected)
    torch.testing.assert_close(net.output({"x": x}), expected)
    net.check_cuts({"x": x, "scale": 1.0})
    if wrap != "tensor":
        with pytest.raises(CutError, match="which part is the output"):
            Network(model, ["first", "last"]).output(x)


def test_output_may_be_an_earlier_module(skip: Skip, x: Tensor) -> None:
    net = Network(skip, ["first", "block"], output="block")
    torch.testing.assert_close(net.output(x), net.activations(x)["block"])


def test_leaking_cut_is_named_with_the_size_of_its_leak(skip: Skip, x: Tensor) -> None:
    with pytest.raises(CutError, match=r"'inner' is not a cut: [\d.]+ of the effect"):
        Network(skip, ["first", "inner", "last"]).check_cuts(x)
    Network(skip, ["first", "block", "last"]).check_cuts(x)


def test_auto_finds_one_cut_per_layer_after_its_activation(skip: Skip, x: Tensor) -> None:
    assert Network(skip, "auto", example=x).cuts == ("first:in", "first", "act", "last")


def test_globs_match_part_by_part(generator: torch.Generator, x: Tensor) -> None:
    model = nn.Sequential(random_mlp((4, 4), generator), random_mlp((4, 4), generator))
    assert Network(model, ["*"]).cuts == ("0", "1")
    assert Network(model, ["*.0"]).cuts == ("0.0", "1.0")


def test_unknown_cut_names_the_nearest(skip: Skip) -> None:
    with pytest.raises(CutError, match=r"no module is named 'blok'; nearest names: block"):
        Network(skip, ["first", "blok"])


def test_shared_unused_and_disordered_modules_are_refused(generator: torch.Generator, x: Tensor) -> None:
    relu = nn.ReLU()
    shared = nn.Sequential(random_mlp((4, 4), generator), relu, random_mlp((4, 4), generator), relu)
    with pytest.raises(CutError, match="'1' is computed 2 times"):
        Network(shared, ["0", "1"], example=x)
    model = random_mlp((4, 5, 3), generator)
    with pytest.raises(CutError, match="'0' is computed before '1'"):
        Network(model, ["1", "0"], example=x)
    model.spare = nn.Identity()
    model.forward = lambda v: model[1](model[0](v))  # type: ignore[method-assign]
    with pytest.raises(CutError, match="'spare' is computed 0 times"):
        Network(model, ["0", "spare"], example=x)


def test_cut_without_effect_is_refused(generator: torch.Generator, x: Tensor) -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = random_mlp((4, 4), generator), random_mlp((4, 2), generator)

        def forward(self, v: Tensor) -> Tensor:
            return 0 * self.a(v).sum(-1, keepdim=True) + self.b(v)

    with pytest.raises(CutError, match=r"does not reach the output|not a cut"):
        Network(Dead(), ["a", "b"]).check_cuts(x)


def test_model_is_left_as_it_was_even_after_an_exception(skip: Skip, x: Tensor) -> None:
    skip.train()
    skip.inner.eval()
    skip.last[0][0].weight.requires_grad_(False)
    skip.first[0][0].weight.grad = torch.ones_like(skip.first[0][0].weight)
    called: list[int] = []
    skip.block.register_forward_hook(lambda *_: called.append(1))
    before = copy.deepcopy(skip.state_dict())
    net = Network(skip, ["first", "block", "last"])
    net.jacobian(x, 0, 2)
    with pytest.raises(DataError, match=r"failed on a batch of tensors of shape \(6, 9\)"):
        net.activations(torch.zeros(6, 9).double())
    with pytest.raises(DataError, match=r"labels do not belong there \(pass them as targets=\)"):
        net.activations((x, torch.zeros(6).long()))
    assert skip.training
    assert not skip.inner.training
    assert not skip.last[0][0].weight.requires_grad
    assert skip.first[0][0].weight.requires_grad
    assert (skip.first[0][0].weight.grad == 1).all()
    assert all(torch.equal(before[k], v) for k, v in skip.state_dict().items())
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in skip.modules()]
    assert sum(hooks) == 1
    assert called


def test_nan_is_blamed_on_data_or_weights(generator: torch.Generator, x: Tensor) -> None:
    model = random_mlp((4, 5, 3), generator)
    net = cut_network(model, x)
    bad = x.clone()
    bad[0, 0] = torch.nan
    with pytest.raises(DataError, match="the data holds them"):
        net.activations(bad)
    model[0][0].weight.data[0, 0] = torch.nan
    with pytest.raises(DataError, match=r"weight '0\.0\.weight' holds them"):
        net.activations(x)


def test_wrong_declared_transition_is_refused(generator: torch.Generator, x: Tensor) -> None:
    model = random_mlp((4, 5, 3), generator)
    wrong = PositionWise(model[0][0].weight.detach(), None, phi=nn.GELU())
    net = Network(model, ["0:in", "0", "1"], transitions={("0:in", "0"): wrong})
    with pytest.raises(CutError, match="does not reproduce"):
        net.check_cuts(x)


def test_one_data_point_cannot_be_swapped(generator: torch.Generator, x: Tensor) -> None:
    net = cut_network(random_mlp((4, 5, 3), generator), x)
    with pytest.raises(DataError, match="two data points"):
        net.check_once([x[:1]])
