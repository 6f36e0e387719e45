"""What is assumed about a model: layouts, independence of data points, a function of parameters and batch."""

import random
import warnings
from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from cases import normal, random_mlp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from interbasis.analysis.basis.interaction_basis import interaction_basis
from interbasis.analysis.basis.moments import collect
from interbasis.analysis.errors import CutError, DataError
from interbasis.analysis.graph.strengths import interaction_graph
from interbasis.analysis.network.checks import differs, halves, spread
from interbasis.analysis.network.network import Network

generated = settings(max_examples=6, deadline=None)


class Mixing(nn.Module):
    """Mixes positions, which stand on axis 0 or 1."""

    def __init__(self, width: int, axis: int) -> None:
        super().__init__()
        self.weight = nn.Linear(width, width)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.weight(x)).cumsum(self.axis)


class Wrapped(nn.Module):
    """Batch first outside; inside the layout that is asked for."""

    def __init__(self, width: int, *, sequence_first: bool, returns: bool = True) -> None:
        super().__init__()
        self.enter = nn.Linear(width, width)
        self.mix = Mixing(width, 0 if sequence_first else 1)
        self.leave = nn.Linear(width, 2)
        self.turn = sequence_first
        self.returns = returns

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        x = x.transpose(0, 1) if self.turn else x
        x = self.leave(self.mix(x))
        return x.transpose(0, 1) if self.turn and self.returns else x


def layouts_of(turned: bool) -> dict[str, bool]:
    return {"mix:in": not turned, "mix": not turned}


@given(st.integers(2, 5), st.integers(1, 5), st.integers(1, 3), st.sampled_from([torch.float32, torch.float64]))
@generated
def test_declared_layouts_give_the_numbers_of_batch_first(n: int, t: int, width: int, dtype: torch.dtype) -> None:
    torch.manual_seed(n + 10 * t)
    usual, turned = (Wrapped(width, sequence_first=first).to(dtype) for first in (False, True))
    turned.load_state_dict(usual.state_dict())
    x = torch.randn(4 * n, t, width, dtype=dtype)
    cuts = ["mix:in", "mix"]
    nets = [Network(usual, cuts), Network(turned, cuts, batch_first=layouts_of(True)), Network(turned, cuts)]
    nets.append(Network(turned, cuts, batch_first=False))
    graphs = []
    for net in (nets[0], nets[1], nets[3]):
        bases = interaction_basis(net, [x], kind="neuron", output="neuron")
        graphs.append(torch.from_numpy(interaction_graph(net, bases, [x]).blocks[0]))
        torch.testing.assert_close(net.jacobian(x, 0, 1), nets[0].jacobian(x, 0, 1))
        shifted = net.activations(x)["mix:in"] + 1
        torch.testing.assert_close(net.resume(x, 0, shifted), nets[0].resume(x, 0, shifted))
        named = dict(net.model.named_parameters())
        torch.testing.assert_close(net.evaluate(named, x, [1])[1][0], nets[0].activations(x)["mix"])
        assert net.checked
    torch.testing.assert_close(graphs[1], graphs[0])
    torch.testing.assert_close(graphs[2], graphs[0])
    if t > 1:
        with pytest.raises(CutError, match=r"'mix:in'.*batch_first=\{'mix:in': False\}"):
            interaction_basis(nets[2], [x], kind="neuron", output="neuron")


@given(st.integers(2, 20), st.booleans(), st.booleans())
@generated
def test_as_many_positions_as_data_points_are_told_apart(n: int, turned: bool, cuts: bool) -> None:
    torch.manual_seed(n)
    model = Wrapped(2, sequence_first=turned, returns=cuts).double()
    net = Network(model, ["mix:in", "mix"] if cuts else [])
    x = torch.randn(n, n, 2, dtype=torch.float64)
    if turned:
        with pytest.raises(CutError, match="data points are mixed"):
            net.check_once([x])
        assert not net.checked
    else:
        net.check_once([x])
        assert net.checked


def test_places_that_an_analysis_reads_are_checked_by_name() -> None:
    x = torch.randn(4, 4, 2, dtype=torch.float64)
    net = Network(Wrapped(2, sequence_first=True).double(), [])
    net.check_once([x])
    net.check_rows(x, ["enter:in", "enter"])
    with pytest.raises(CutError, match=r"data points are mixed.*'leave:in'"):
        net.check_rows(x, ["enter", "leave:in"])
    Network(net.model, [], check=False).check_rows(x, ["leave:in"])
    declared = Network(net.model, [], batch_first={"leave:in": False})
    declared.check_rows(x, ["leave:in"])


class Inserted(nn.Module):
    """Two dense layers with a function between them, which may keep what it likes on the module."""

    def __init__(self, function: Callable[["Inserted", Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.between, self.b = nn.Linear(3, 4), nn.Identity(), nn.Linear(4, 2)
        self.function = function
        self.register_buffer("buffer", torch.zeros(4))
        self.kept: Any = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.between(torch.tanh(self.function(self, self.a(x)))))


def averaged(module: Inserted, h: Tensor) -> Tensor:
    module.buffer.mul_(0.9).add_(0.1 * h.detach().mean(0))
    return h - module.buffer


def counted(module: Inserted, h: Tensor) -> Tensor:
    module.kept += 1
    return h * module.kept


def recurrent(module: Inserted, h: Tensor) -> Tensor:
    module.kept = (h + module.kept).detach() if isinstance(module.kept, Tensor) else h.detach()
    return h + module.kept


MIXED: dict[str, Callable[[Inserted, Tensor], Tensor]] = {
    "centred": lambda _, h: h - h.mean(0),
    "centred by constants of autograd": lambda _, h: h - h.detach().mean(0),
    "statistics of the batch": lambda _, h: functional.batch_norm(h, None, None, training=True),
    "sums from the start": lambda _, h: h.cumsum(0),
    "sums from the end": lambda _, h: h.flip(0).cumsum(0).flip(0),
    "neighbours": lambda _, h: h + h.roll(1, 0),
    "softmax over the batch": lambda _, h: h.softmax(0),
    "place in the batch": lambda _, h: h + torch.arange(len(h))[:, None],
    "largest of the batch": lambda _, h: h / h.abs().max(),
}
NO_FUNCTION: dict[str, tuple[Callable[[Inserted, Tensor], Tensor], str]] = {
    "noise": (lambda _, h: h + torch.rand(4), "random"),
    "dropout": (lambda _, h: functional.dropout(h, 0.5), "random"),
    "rare dropout": (lambda _, h: functional.dropout(h, 0.02), "random"),
    "numpy": (lambda _, h: h * np.random.rand(), "random"),  # noqa: NPY002
    "random": (lambda _, h: h * random.random(), "random"),
    "average": (averaged, "state.*buffer"),
    "counter": (counted, "state"),
    "recurrent": (recurrent, "state"),
    "gradients": (lambda _, h: h * 2 if torch.is_grad_enabled() else h, "with gradients and without"),
}


@pytest.mark.parametrize("cuts", [(), ("a", "between", "b")], ids=["losses", "cuts"])
@pytest.mark.parametrize("kind", MIXED)
def test_mixed_data_points_are_refused(generator: torch.Generator, kind: str, cuts: tuple[str, ...]) -> None:
    net = Network(Inserted(MIXED[kind]).double(), cuts)
    with pytest.raises(CutError, match=r"data points are mixed|place of a data point"):
        net.check_once([normal(40, 3, generator=generator)])


@pytest.mark.parametrize("cuts", [(), ("a", "between", "b")], ids=["losses", "cuts"])
@pytest.mark.parametrize("kind", NO_FUNCTION)
def test_what_is_no_function_of_the_batch_is_refused(
    generator: torch.Generator, kind: str, cuts: tuple[str, ...]
) -> None:
    function, message = NO_FUNCTION[kind]
    net = Network(Inserted(function).double(), cuts)
    with pytest.raises(DataError, match=message):
        net.check_once([normal(200, 3, generator=generator)])
    trusted = Network(net.model, cuts, check=False)
    trusted.check_once([normal(200, 3, generator=generator)])
    assert not trusted.checked


@given(st.integers(0, 10**6), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]), st.integers(1, 40))
@generated
def test_dense_models_pass_in_every_dtype(seed: int, dtype: torch.dtype, n: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    model = nn.Sequential(random_mlp((4, 6, 5, 3), draws), nn.LayerNorm(3)).to(dtype)
    net = Network(model, [])
    net.check_once([normal(n, 4, generator=draws).to(dtype)])
    assert net.checked


def test_harmless_draws_and_counters_pass_and_leave_no_trace(generator: torch.Generator) -> None:
    def harmless(module: Inserted, h: Tensor) -> Tensor:
        torch.rand([])
        module.buffer += 1
        return h

    net = Network(Inserted(harmless).double(), ["a", "b"])
    state, buffer = torch.get_rng_state(), net.model.buffer.clone()
    x = normal(40, 3, generator=generator)
    net.check_once([x])
    assert torch.equal(state, torch.get_rng_state())
    net.activations(x)
    assert torch.equal(net.model.buffer, buffer)


@given(st.integers(1, 30), st.sampled_from(["tensor", "tuple", "dict", "UserDict"]))
@generated
def test_models_that_write_into_their_input_are_right(n: int, kind: str) -> None:
    torch.manual_seed(n)
    model = Inserted(lambda _, h: h).double()
    entering = nn.Module()
    entering.inner = model
    entering.forward = lambda x: model(x.sub_(0.5).mul_(2.0))  # type: ignore[method-assign]
    x = torch.rand(n + 3, 3, dtype=torch.float64)
    batch = {"tensor": x, "tuple": (x,), "dict": {"x": x}, "UserDict": UserDict(x=x)}[kind]
    before = x.clone()
    net = Network(entering, ["inner.a:in", "inner.a", "inner.b"])
    expected = Network(model, ["a:in", "a", "b"])
    found = interaction_basis(net, [batch], rotation="none")["inner.a:in"].importance
    assert found == pytest.approx(interaction_basis(expected, [(x - 0.5) * 2], rotation="none")["a:in"].importance)
    assert torch.equal(x, before)


def test_the_fast_path_of_attention_is_off_inside_and_put_back(generator: torch.Generator) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.TransformerEncoder(layer, 2)
    seen: list[bool] = []
    layer = model.layers[0]
    layer.register_forward_pre_hook(lambda *_: seen.append(torch.backends.mha.get_fastpath_enabled()))
    net = Network(model, ["layers.0", "layers.1"])
    net.check_once([normal(12, 5, 8, generator=generator).float()])
    assert seen
    assert not any(seen)
    assert torch.backends.mha.get_fastpath_enabled()


class Convolved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.second = nn.Conv1d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv1d(4, 5, 1)
        self.block = nn.Sequential(nn.Conv1d(5, 5, 1), nn.BatchNorm1d(5))
        self.read = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(torch.relu(self.block(self.second(self.act(self.first(x))))).mean(-1))


@given(st.integers(2, 8), st.sampled_from(["first:in", "first", "act", "second", "block", "block.1:in"]))
@generated
def test_channels_first_is_refused_or_declared(length: int, cut: str) -> None:
    torch.manual_seed(length)
    model = Convolved().double()
    x = torch.randn(10, 3, length, dtype=torch.float64)
    with pytest.raises(CutError, match=rf"'{cut}' holds \(batch, channels, length\)"):
        Network(model, [cut, "read"]).check_once([x])
    net = Network(model, [cut, "read"], batch_first={cut: "channels"})
    net.check_once([x])
    assert net.activations(x)[cut].shape[:2] == (10, length)
    Network(model, [cut, "read"], batch_first={cut: True}).check_once([x])
    Network(model, []).check_once([x])


def test_channels_last_beside_convolutions_pass(generator: torch.Generator) -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.read = nn.Conv1d(4, 4, 1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.read(self.conv(x.transpose(1, 2)).transpose(1, 2))

    net = Network(Turned().double(), ["read:in", "read"])
    net.check_once([normal(6, 4, 4, generator=generator)])
    assert net.checked


@dataclass
class Returned:
    loss: Tensor | None
    logits: Tensor


class Tokens(nn.Module):
    """A language model in its outer shape: token and position ids, and an output with several parts."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.tok, self.pos, self.a, self.b = nn.Embedding(7, 4), nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.wrap = wrap

    def forward(self, input_ids: Tensor, position_ids: Tensor, use_cache: bool = False) -> Any:
        return self.wrap(self.b(torch.tanh(self.a(self.tok(input_ids) + self.pos(position_ids)))))


WRAPS: dict[str, tuple[Callable[[Tensor], Any], Any]] = {
    "tensor": (lambda y: y, None),
    "dataclass": (lambda y: Returned(None, y), "logits"),
    "dict": (lambda y: {"items": y, "loss": None}, "items"),
    "UserDict": (lambda y: UserDict(logits=y), "logits"),
    "tuple": (lambda y: (y, None), 0),
}


@given(st.sampled_from(list(WRAPS)), st.booleans(), st.sampled_from([dict, UserDict]), st.integers(1, 2))
@generated
def test_containers_and_shared_arguments_give_the_same_numbers(
    wrap: str, shared: bool, container: Callable[[dict[str, Any]], Any], parts: int
) -> None:
    torch.manual_seed(0)
    function, output = WRAPS[wrap]
    model = Tokens(function).double()
    ids, positions = torch.randint(7, (32, 5)), torch.arange(5)[None]
    batches = [
        container(
            {
                "input_ids": part,
                "position_ids": positions if shared else positions.expand(len(part), 5),
                "use_cache": False,
            }
        )
        for part in ids.split(32 // parts)
    ]
    net = Network(model, ["a:in", "a", "b"], output=output)
    plain = Network(Tokens(lambda y: y).double(), ["a:in", "a", "b"])
    plain.model.load_state_dict(model.state_dict())
    found = interaction_basis(net, batches, rotation="none")
    expected = interaction_basis(plain, [(ids, positions.expand(32, 5))], rotation="none")
    for cut, basis in expected.items():
        assert found[cut].importance == pytest.approx(basis.importance)


def test_modules_that_carry_dataclasses_and_mappings_can_be_cut(generator: torch.Generator) -> None:
    class Inner(nn.Module):
        def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
            super().__init__()
            self.wrap = wrap

        def forward(self, held: Any) -> Any:
            return self.wrap(held)

    for wrap, read in (
        (lambda y: UserDict(h=y, more=1), lambda v: v["h"]),
        (lambda y: Returned(y, y), lambda v: v.loss),
        (lambda y: {"h": y}, lambda v: v["h"]),
    ):

        class Model(nn.Module):
            def __init__(self, wrap: Any = wrap, read: Any = read) -> None:
                super().__init__()
                self.a, self.inner, self.b = random_mlp((3, 4), generator), Inner(wrap), random_mlp((4, 2), generator)
                self.read = read

            def forward(self, x: Tensor) -> Tensor:
                return self.b(self.read(self.inner(self.a(x))))

        net = Network(Model(), ["a", "inner", "b"])
        net.check_once([normal(8, 3, generator=generator)])
        assert net.checked


class Deep(nn.Module):
    def __init__(self, how: str | None = None) -> None:
        super().__init__()
        self.how, self.a, self.m, self.b = how, nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def inner(self, x: Tensor) -> Tensor:
        return torch.tanh(self.m(torch.tanh(self.a(x))))

    def forward(self, x: Tensor) -> Tensor:
        if self.how is None:
            return self.b(self.inner(x))
        return self.b(checkpoint(self.inner, x, use_reentrant=self.how == "reentrant"))


WRAPPERS: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "DataParallel": (nn.DataParallel, "module."),
    "AveragedModel": (torch.optim.swa_utils.AveragedModel, "module."),
    "both": (lambda model: nn.DataParallel(torch.optim.swa_utils.AveragedModel(model)), "module.module."),
}


@pytest.mark.parametrize("kind", WRAPPERS)
@pytest.mark.parametrize("prefixed", [False, True])
def test_prefixes_of_wrappers_are_stripped(generator: torch.Generator, kind: str, prefixed: bool) -> None:
    wrap, prefix = WRAPPERS[kind]
    model = Deep().double()
    x = normal(12, 3, generator=generator)
    names = ["a:in", "m", "b"]
    expected = interaction_basis(Network(model, names), [x])
    given = [prefix + name for name in names] if prefixed else names
    net = Network(wrap(model), given, output=given[-1], positions={given[1]: "all"}, batch_first={given[1]: True})
    assert net.cuts == tuple(names)
    found = interaction_basis(net, [x])
    assert found["m"].importance == pytest.approx(expected["m"].importance)
    assert Network(wrap(model), ["*"]).cuts == ("a", "m", "b")


def test_compiled_models_run_eagerly(generator: torch.Generator) -> None:
    x = normal(12, 3, generator=generator)
    model, in_place = Deep().double(), Deep().double()
    in_place.load_state_dict(model.state_dict())
    expected = interaction_basis(Network(model, ["a:in", "m", "b"]), [x])["m"].importance
    compiled = torch.compile(model, backend="eager")
    in_place.compile(backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled(x)
        in_place(x)
    for other, names in ((compiled, ["_orig_mod.a:in", "m", "b"]), (in_place, ["a:in", "m", "b"])):
        net = Network(other, names)
        assert net.cuts == ("a:in", "m", "b")
        assert interaction_basis(net, [x])["m"].importance == pytest.approx(expected)


@pytest.mark.parametrize("how", ["plain", "reentrant"])
def test_checkpointing_past_cuts_is_refused(generator: torch.Generator, how: str) -> None:
    x = normal(12, 3, generator=generator)
    model = nn.Sequential(Deep(how), nn.Linear(2, 2)).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that the input needs no gradient
        with pytest.raises(CutError, match=r"'0' uses activation checkpointing.*turn it off"):
            Network(model, ["0.a", "1"]).check_once([x])
        Network(model, []).check_once([x])


def test_what_looks_wrong_on_few_data_points_is_judged_on_all(generator: torch.Generator) -> None:
    """A unit that is on for one data point of 500, and a model that takes batches of one size only."""
    x = normal(500, 3, generator=generator)
    x[:, 0] = -1
    x[77, 0] = 1
    model = nn.Sequential(nn.Linear(3, 1), nn.ReLU(), nn.Linear(1, 1)).double()
    with torch.no_grad():
        model[0].weight[:], model[0].bias[:] = torch.tensor([[1.0, 0.0, 0.0]]), 0.0
    net = Network(model, ["0", "1", "2"])
    net.check_once([x])
    assert net.checked
    fixed = nn.Sequential(random_mlp((3, 4), generator), nn.Unflatten(0, (25, 20)), nn.Flatten(0, 1))
    Network(fixed, ["0:in", "0"]).check_once([x])


def test_single_data_points_are_looked_at_in_pairs(generator: torch.Generator) -> None:
    model = random_mlp((3, 4, 2), generator)
    x = normal(5, 3, generator=generator)
    net = Network(model, ["0", "1"])
    net.check_once(x.split(1))
    assert net.checked
    same = [x[:1].expand(4, 3), x]
    other = net.with_model(model)
    assert not other.checked
    other.check_once(same)
    assert other.checked
    with pytest.raises(DataError, match="swapping the data points"):
        Network(model, ["0", "1"]).check_once(same[:1])
    with pytest.raises(CutError, match="data points are mixed"):
        Network(Inserted(MIXED["centred"]).double(), []).check_once(x.split(1))


def test_auto_cuts_are_found_on_the_first_batch(generator: torch.Generator) -> None:
    x = normal(30, 3, generator=generator)
    model = nn.Sequential(
        nn.Linear(3, 4), nn.Dropout(0.5), nn.ReLU(), nn.Sequential(nn.Identity(), nn.Linear(4, 5)), nn.Flatten()
    ).double()
    net = Network(model, "auto")
    with pytest.raises(CutError, match="once a batch was seen"):
        _ = net.cuts
    bases = interaction_basis(net, [x])
    assert net.cuts == ("0:in", "2", "3") == tuple(bases)
    assert net.cuts == Network(model, "auto", example=x).cuts


def test_auto_leaves_out_vocabularies_and_other_layouts(generator: torch.Generator) -> None:
    class Language(nn.Module):
        def __init__(self, rows: int) -> None:
            super().__init__()
            self.tok, self.mix, self.head = nn.Embedding(rows, 8), Wrapped(8, sequence_first=True), nn.Linear(2, rows)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.mix(self.tok(ids)))

    ids = torch.randint(6, (12, 5), generator=generator)
    assert Network(Language(50).double(), "auto", example=ids).cuts == ("tok", "mix.enter", "mix")
    assert "head" in Network(Language(6).double(), "auto", example=ids).cuts


@given(st.integers(2, 100))
@generated
def test_slices_and_halves(n: int) -> None:
    assert len(spread(torch.zeros(n, 1))) == min(n, 16)
    one, other = halves(n)
    assert sorted(torch.cat([one, other]).tolist()) == list(range(n))


def test_differences_within_rounding_count_as_none() -> None:
    a = torch.ones(3)
    assert differs(a, a + 1e-6) == 0
    assert differs(a.double(), a.double() + 1e-6) == pytest.approx(1e-6)
    assert differs(a, torch.ones(4)) == float("inf")
    assert differs(torch.tensor([1, 2]), torch.tensor([1, 3])) > 0


def test_unknown_layouts_are_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(CutError, match="'spare', which no module"):
        Network(model, ["0", "1"], batch_first={"spare": False})


def test_autocast_and_inference_mode_of_the_caller_change_nothing(generator: torch.Generator) -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    x = torch.randn(32, 3, generator=generator)

    def strengths() -> Tensor:
        net = Network(model, ["0:in", "1", "2"])
        graph = interaction_graph(net, interaction_basis(net, [x]), [x])
        return torch.cat([torch.from_numpy(block).flatten() for block in graph.blocks])

    expected = strengths()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(strengths(), expected)
        assert torch.is_autocast_enabled("cpu")
    with torch.inference_mode():
        assert torch.equal(strengths(), expected)
        made_there = nn.Linear(3, 2)
    with pytest.raises(CutError, match=r"'weight' was made under torch.inference_mode"):
        Network(made_there, [])


def test_an_example_leaves_the_weights_as_they_were() -> None:
    model = nn.Sequential(nn.Embedding(5, 4, max_norm=0.5), nn.Linear(4, 3))
    before = model[0].weight.detach().clone()
    with pytest.raises(DataError, match=r"writes into its parameters '0.weight'"):
        Network(model, ["0", "1"], example=torch.arange(5)[:, None])
    assert torch.equal(model[0].weight, before)


def _set_once(model: Inserted, y: Tensor) -> Tensor:
    if isinstance(model.kept, float):
        model.kept = y.detach().mean(0)
    return y - model.kept


def _set_once_in_a_buffer(model: Inserted, y: Tensor) -> Tensor:
    if not model.buffer.any():
        model.buffer.copy_(y.detach().std(0))
    return y / model.buffer


@pytest.mark.parametrize(("function", "name"), [(_set_once, "kept"), (_set_once_in_a_buffer, "buffer")])
def test_what_the_first_run_sets_by_its_data_is_refused(
    generator: torch.Generator, function: Callable[[Inserted, Tensor], Tensor], name: str
) -> None:
    model = Inserted(function).double()
    model.kept = model.kept if name == "buffer" else 0.0
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    with pytest.raises(DataError, match=f"the first run of the model sets {name} by the data"):
        Network(model, ["a", "b"]).check_once([x])
    assert not model.buffer.any()
    model(x)  # now it is set
    Network(model, ["a", "b"]).check_once([x])


def test_tables_and_records_that_a_run_leaves_are_no_reason(generator: torch.Generator) -> None:
    def function(model: Inserted, y: Tensor) -> Tensor:
        if isinstance(model.kept, float):
            model.kept = torch.arange(4, dtype=y.dtype)
        model.seen = y.detach()
        return y + model.kept

    model = Inserted(function).double()
    Network(model, ["a", "b"]).check_once([torch.randn(40, 3, generator=generator, dtype=torch.float64)])


@pytest.mark.parametrize("source", ["torch", "numpy", "random", "old numpy", "python"])
def test_generators_of_the_models_own_are_watched(generator: torch.Generator, source: str) -> None:
    """Each run changes its numbers with probability 0.3, so that two runs often agree."""
    draws: dict[str, Callable[[Any], float]] = {
        "torch": lambda own: float(torch.rand((), generator=own)),
        "numpy": lambda own: own.random(),
        "random": lambda own: own.random(),
        "old numpy": lambda own: own.rand(),
        "python": lambda _: random.random(),
    }
    made: dict[str, Callable[[int], Any]] = {
        "torch": lambda seed: torch.Generator().manual_seed(seed),
        "numpy": np.random.default_rng,
        "random": random.Random,
        "old numpy": np.random.RandomState,
        "python": random.seed,
    }
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    for seed in range(5):
        model = Inserted(lambda model, y: y * 2 if draws[source](model.own) < 0.3 else y).double()
        model.own = made[source](seed)
        with pytest.raises(DataError, match=r"draws random numbers in evaluation mode|or is random"):
            Network(model, ["a", "b"]).check_once([x])


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_mixing_that_begins_with_the_size_of_the_batch_is_refused(generator: torch.Generator, share: float) -> None:
    model = Inserted(lambda _, y: y - share * y.mean(0) if len(y) >= 32 else y).double()
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    with pytest.raises(CutError, match="data points are mixed"):
        Network(model, ["a", "b"]).check_once([x])
    Network(model, ["a", "b"]).check_once([x[:30]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_derivatives_are_tested_in_double_precision(generator: torch.Generator, dtype: torch.dtype) -> None:
    """Autograd does not see one of 16 units."""

    def model_of(hidden: int) -> nn.Module:
        torch.manual_seed(hidden)

        def partly(_: nn.Module, __: object, y: Tensor) -> Tensor:
            return torch.cat([y[:, :hidden].detach(), y[:, hidden:]], 1)

        model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4)).to(dtype)
        model[1].register_forward_hook(partly)
        return model

    x = torch.randn(32, 8, generator=generator).to(dtype)
    Network(model_of(0), ["0", "4:in"]).check_once([x])
    with pytest.raises(CutError, match="derivative of the output with respect to"):
        Network(model_of(1), ["0", "4:in"]).check_once([x])


def test_a_graph_checks_its_network_whatever_the_bases_say(generator: torch.Generator) -> None:
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    good, bad = Inserted(lambda _, y: y).double(), Inserted(lambda _, y: y - y.mean(0)).double()
    bad.load_state_dict(good.state_dict())
    bases = interaction_basis(Network(good, ["a", "b"]), [x])
    with pytest.raises(CutError, match="data points are mixed"):
        interaction_graph(Network(bad, ["a", "b"]), bases, [x])
    with pytest.raises(CutError, match="data points are mixed"):
        collect(Network(bad, ["a", "b"]), [x])
    trusted = interaction_graph(Network(good, ["a", "b"], check=False), bases, [x])
    assert trusted.settings["checked"] is False
    assert interaction_graph(Network(good, ["a", "b"]), bases, [x]).settings["checked"] is True


def test_data_of_another_width_say_which() -> None:
    with pytest.raises(DataError, match=r"shape \(5, 4\): a layer that takes 3 features was given 4"):
        Network(nn.Sequential(nn.Linear(3, 2)).double(), "auto", example=torch.zeros(5, 4).double())
