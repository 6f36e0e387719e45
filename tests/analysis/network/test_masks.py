"""Batches of padded texts give what the texts give one by one, without padding."""

import re
from collections import UserDict
from inspect import Parameter, Signature

import numpy as np
import pytest
import torch
from cases_masks import CUTS, PAD, alone, masked, padded, reader, texts
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from interbasis.analysis import Network, interaction_basis, interaction_graph
from interbasis.analysis.basis.moments import collect
from interbasis.analysis.checkpoints.components import Component, Components, Part
from interbasis.analysis.circuits.ablation import ablate_modules, isolate_modules
from interbasis.analysis.circuits.interventions import Interventions
from interbasis.analysis.degeneracy.hessian_rank import sampled_gradients
from interbasis.analysis.degeneracy.layers import find_layers
from interbasis.analysis.degeneracy.ledger import parameter_ledger
from interbasis.analysis.errors import CutError, DataError, GraphError
from interbasis.analysis.exchange.component_circuit import component_circuit
from interbasis.analysis.llc.network_loss import behavioural_loss
from interbasis.analysis.modules.alignment import coordinate_correlation
from interbasis.analysis.modules.find_modules import score_partition
from interbasis.analysis.network.masks import counted_at, read_mask
from interbasis.analysis.network.transitions import PositionWise

LENGTHS = [3, 4, 2, 4, 3]
BOTH = pytest.mark.parametrize(("causal", "side"), [(True, "right"), (True, "left"), (False, "right"), (False, "left")])


def one_by_one(model: nn.Module, **options) -> Network:
    """A network that knows no mask, for texts alone; the swap test needs two of one length, and is left out."""
    return Network(model, CUTS, check=False, **options)


def split(parts: list[torch.Tensor], side: str, size: int) -> list[dict[str, torch.Tensor]]:
    """Batches, each as long as its longest text."""
    return [padded(parts[i : i + size], side) for i in range(0, len(parts), size)]


def assert_moments_agree(got, expected) -> None:
    for cut in expected.activations:
        a, b = got.activations[cut], expected.activations[cut]
        assert (a.n, a.count) == (b.n, b.count)
        torch.testing.assert_close(a.mean, b.mean, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(a.gram, b.gram, rtol=1e-10, atol=1e-12)
    for cut in expected.jacobians:
        torch.testing.assert_close(got.jacobians[cut].gram, expected.jacobians[cut].gram, rtol=1e-10, atol=1e-10)


@settings(deadline=None, max_examples=12)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    side=st.sampled_from(["left", "right"]),
    causal=st.booleans(),
    loss=st.sampled_from(["mse", "kl"]),
    size=st.integers(1, 5),
    to=st.integers(0, 7),
    last=st.booleans(),
    probes=st.sampled_from([None, 3]),
)
def test_moments_do_not_depend_on_padding(lengths, side, causal, loss, size, to, last, probes) -> None:
    model, parts = reader(causal), texts(lengths)
    options = {"loss": loss, "positions": "last" if last else "all"}
    batches = [padded(parts[i : i + size], side, to=to) for i in range(0, len(parts), size)]
    got = collect(masked(model, check=False, **options), batches, probes=probes, seed=1)
    assert_moments_agree(got, collect(one_by_one(model, **options), alone(parts), probes=probes, seed=1))


@settings(deadline=None, max_examples=8)
@given(lengths=st.lists(st.integers(2, 5), min_size=2, max_size=4), side=st.sampled_from(["left", "right"]))
def test_the_first_position_is_left_out_of_moments_on_request(lengths, side) -> None:
    model, parts = reader(True), texts(lengths)
    got = collect(masked(model, skip_first=True, check=False), [padded(parts, side)])
    expected = None
    for part in parts:
        later = {cut: list(range(1, len(part))) for cut in CUTS}
        alone_ = collect(one_by_one(model, positions={**later, "output": later["unembed"]}), alone([part]))
        expected = alone_ if expected is None else expected.merge(alone_)
    assert_moments_agree(got, expected)
    assert_moments_agree(collect(one_by_one(model, skip_first=True), alone(parts)), expected)


@pytest.mark.parametrize(
    ("causal", "side", "kind"),
    [(True, "right", "global"), (True, "left", "local"), (False, "right", "local"), (False, "left", "global")],
)
def test_bases_and_strengths_do_not_depend_on_padding(causal, side, kind) -> None:
    model, parts = reader(causal), texts(LENGTHS)
    plain, net = one_by_one(model, loss="kl"), masked(model, loss="kl")
    expected = interaction_basis(plain, alone(parts), kind=kind)
    bases = interaction_basis(net, split(parts, side, 3), kind=kind)
    for cut in CUTS:
        for field in ("mean", "to_basis", "importance"):
            a, b = getattr(bases[cut], field), getattr(expected[cut], field)
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9 * abs(b).max())
    for strengths in ("jacobian", "attribution"):
        a = interaction_graph(net, expected, split(parts, side, 3), strengths=strengths, points=2)
        b = interaction_graph(plain, expected, alone(parts), strengths=strengths, points=2)
        for got, wanted in zip(a.blocks, b.blocks, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-10)


@BOTH
@pytest.mark.parametrize("loss", ["mse", "kl"])
def test_behavioural_losses_do_not_depend_on_padding(causal, side, loss) -> None:
    model, parts = reader(causal), texts(LENGTHS)
    here = behavioural_loss(masked(model, loss=loss), split(parts, side, 3))
    there = behavioural_loss(one_by_one(model, loss=loss), alone(parts))
    theta = here.start + 0.1 * torch.randn(2, len(here.start), generator=torch.Generator().manual_seed(0)).double()
    for got, expected in zip(here.evaluate(theta), there.evaluate(theta), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    rows = [torch.cat([r.flatten(0, -2) for r in which.rows(here.start)]) for which in (here, there)]
    torch.testing.assert_close(rows[0].T @ rows[0], rows[1].T @ rows[1], rtol=1e-9, atol=1e-10)


def test_random_points_of_padded_data_have_their_own_masks() -> None:
    model, parts = reader(False), texts(LENGTHS)
    whole = behavioural_loss(masked(model), [padded(parts, "left")])
    theta = whole.start[None] + 0.1
    drawn = torch.tensor([[1, 4, 2]])
    chosen = behavioural_loss(masked(model), [padded([parts[i] for i in drawn[0]], "right")])
    got, expected = whole.evaluate(theta, drawn)[0], chosen.evaluate(theta)[0]
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("loss", ["mse", "kl"])
def test_the_loss_of_a_constant_output_counts_no_padding(loss) -> None:
    model, parts = reader(True), texts(LENGTHS)
    scales = [
        behavioural_loss(masked(model, loss=loss), [padded(parts, "right", to=9)]).scale,
        behavioural_loss(masked(model, loss=loss), split(parts, "left", 2)).scale,
        behavioural_loss(one_by_one(model, loss=loss), alone(parts)).scale,
    ]
    rows = torch.cat([model(**batch)[0] for batch in alone(parts)]).detach()
    if loss == "mse":
        expected = (rows - rows.mean(0)).square().sum() / len(parts)
    else:
        p = rows.softmax(-1)
        expected = (p * (p / p.mean(0)).log()).sum() / len(parts)
    assert scales == pytest.approx([float(expected)] * 3, rel=1e-10)


@pytest.mark.parametrize(("causal", "side"), [(True, "right"), (False, "left")])
def test_interventions_do_not_depend_on_padding(causal, side) -> None:
    model, parts = reader(causal), texts(LENGTHS)
    net, plain = masked(model, loss="kl"), one_by_one(model, loss="kl")
    bases = interaction_basis(net, [padded(parts, side)], kind="local")
    graph = interaction_graph(net, bases)
    partition = score_partition(graph, [np.arange(k) % 2 for k in graph.widths], 1e-6)
    for function in (isolate_modules, ablate_modules):
        got, expected = (
            function(n, bases, graph, partition, batches, draws=0)
            for n, batches in ((net, split(parts, side, 4)), (plain, alone(parts)))
        )
        rows = (
            (got.isolated, expected.isolated) if function is isolate_modules else (got.without[0], expected.without[0])
        )
        for a, b in zip(*(row.values.values() for row in rows), strict=True):
            assert a.value == pytest.approx(b.value, rel=1e-9)
            assert a.standard_error == pytest.approx(b.standard_error, rel=1e-9)
            assert a.value > 1e-6
        mixed, alike = got.mixing, expected.mixing  # between data points at which the same positions count
        assert mixed is not None
        assert alike is not None
        assert (mixed.selectivity, mixed.own) == pytest.approx((alike.selectivity, alike.own), rel=1e-6)
        if function is ablate_modules:
            np.testing.assert_allclose(got.outputs, expected.outputs, rtol=1e-9)
            np.testing.assert_allclose(got.losses, expected.losses, rtol=1e-9)


def test_metrics_see_positions_that_count_alone() -> None:
    model, parts = reader(True), texts(LENGTHS)
    net = masked(model)
    data = [padded(parts, "left")]
    bases = interaction_basis(net, data)
    answers = torch.full(data[0]["input_ids"].shape, -100)
    seen = data[0]["attention_mask"].bool()
    answers[seen] = torch.randint(3, (int(seen.sum()),), generator=torch.Generator().manual_seed(0))

    def length(output, targets):
        assert output.shape[:2] == targets.shape
        assert (targets >= 0).all()
        return torch.full((len(output),), float(output.shape[1]))

    study = Interventions(
        net, bases, data, targets=answers, metrics=["accuracy", "cross_entropy", length], higher_is_better=False
    )
    logits = model(**data[0]).detach()
    for row, part in enumerate(parts):
        mine, right = logits[row, seen[row]], answers[row, seen[row]]
        assert study.whole["accuracy"][row] == pytest.approx(float((mine.argmax(1) == right).double().mean()))
        expected = float(nn.functional.cross_entropy(mine, right))
        assert study.whole["cross_entropy"][row] == pytest.approx(expected)
        assert study.whole["length"][row] == len(part)
    assert not study.whole["mse"].any()


@pytest.mark.parametrize("side", ["left", "right"])
def test_exact_forms_leave_positions_out_that_do_not_count(side) -> None:
    model, parts = reader(True), texts(LENGTHS)
    readout = model.unembed
    form = PositionWise(skip=readout.weight.detach(), bias=readout.bias.detach())
    net = masked(model, loss="kl", transitions={("blocks.1", "unembed"): form})
    data = split(parts, side, 4)
    plain = masked(model, loss="kl")
    bases = interaction_basis(net, data, kind="local")
    for strengths in ("jacobian", "attribution"):
        a, b = (interaction_graph(n, bases, data, strengths=strengths) for n in (net, plain))
        np.testing.assert_allclose(a.blocks[-1], b.blocks[-1], rtol=1e-10, atol=1e-12)
    study, other = (Interventions(n, bases, data) for n in (net, plain))
    mask = np.arange(study.widths[2]) % 2 == 0
    edges = {2: np.broadcast_to(mask, (study.widths[3], len(mask)))}
    for kept in ({"nodes": {2: mask}}, {"edges": edges}):
        a, b = (s.measure(**kept)["kl"] for s in (study, other))
        np.testing.assert_allclose(a, b, rtol=1e-9)
        assert a.min() > 0


def test_the_ledger_counts_no_padding() -> None:
    parts = texts([3, 4, 2, 4, 3, 4])
    model = reader(True, width=3)
    plain = parameter_ledger(one_by_one(model), alone(parts))
    for side in ("left", "right"):
        ledger = parameter_ledger(masked(model), [padded(parts, side)])
        assert ledger.effective == plain.effective
        assert ledger.hessian == plain.hessian or ledger.hessian.value == plain.hessian.value


def test_correlations_of_coordinates_count_no_padding() -> None:
    first, second, parts = reader(True), reader(True, seed=1), texts(LENGTHS)
    data = [padded(parts, "right")]
    nets = [masked(model) for model in (first, second)]
    bases = [interaction_basis(net, data) for net in nets]
    plain = [(one_by_one(model), basis) for model, basis in zip((first, second), bases, strict=True)]
    got = coordinate_correlation(*zip(nets, bases, strict=True), data)
    for a, b in zip(got, coordinate_correlation(*plain, alone(parts)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def test_pooled_outputs_count_once_per_data_point() -> None:
    model, parts = reader(False, pooled=True), texts(LENGTHS)
    got = collect(masked(model), [padded(parts, "left")])
    assert_moments_agree(got, collect(one_by_one(model), alone(parts)))
    assert got.activations["unembed"].count == len(parts)


@pytest.mark.parametrize(
    "how", ["key", "function", "argument", "mapping", "booleans", "from tokens"], ids=lambda how: how.replace(" ", "_")
)
def test_masks_come_from_keys_arguments_and_functions(how) -> None:
    model, parts = reader(True), texts(LENGTHS)
    batch = padded(parts, "left")
    expected = collect(masked(model), [batch])
    mask = "attention_mask"
    if how == "argument":
        batch = tuple(batch.values())
    if how == "mapping":
        batch = UserDict(batch)
    if how == "booleans":
        batch["attention_mask"] = batch["attention_mask"].bool()
    if how == "function":
        mask = lambda b: b["attention_mask"]  # noqa: E731
    if how == "from tokens":
        mask = lambda b: b["input_ids"] != PAD  # noqa: E731
    net = Network(model, CUTS, mask=mask)
    net.check_once([batch])
    assert_moments_agree(collect(net, [batch]), expected)


@BOTH
def test_a_model_that_does_not_look_at_its_mask_is_refused(causal, side) -> None:
    batches = [padded(texts([4, 4]), side), padded(texts(LENGTHS), side)]
    model = reader(causal, heeds=False)
    if causal and side == "right":  # later positions are never looked at
        interaction_basis(masked(model), batches)
        return
    for net in (masked(model), Network(model, [], mask="attention_mask")):
        with pytest.raises((CutError, DataError), match="padding"):
            net.check_once(batches)


def test_content_that_goes_around_the_cuts_at_a_skipped_first_position_is_refused() -> None:
    with pytest.raises(CutError, match="not counted"):
        interaction_basis(masked(reader(False), skip_first=True), [padded(texts(LENGTHS), "right")])


class Takes(nn.Module):
    """A position-wise network that is given a mask under a name and does not look at it."""

    def __init__(self, name: str, pooled: bool = False) -> None:
        super().__init__()
        self.embed, self.read = nn.Linear(3, 4).double(), nn.Linear(4, 2).double()
        self.pooled = pooled
        x = Parameter("x", Parameter.POSITIONAL_OR_KEYWORD)
        forward = self._forward
        self.forward = lambda *args, **kwargs: forward(args[0] if args else kwargs["x"])
        self.forward.__signature__ = Signature([x, Parameter(name, Parameter.POSITIONAL_OR_KEYWORD)])

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x.mean(1) if self.pooled else x)
        return self.read(x)


def checked(name: str, given_mask: torch.Tensor, how: str, *, n: int = 3, positions: int = 4, **options) -> None:
    """The checks of a network whose batch holds a mask of that name."""
    x = torch.randn(n, positions, 3, generator=torch.Generator().manual_seed(0)).double()
    batch = {"x": x, name: given_mask} if how == "mapping" else (x, given_mask)
    pooled = options.pop("pooled", False)
    Network(Takes(name, pooled), ["embed", "read"], **options).check_once([batch])


ROWS = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
KINDS = (torch.bool, torch.long, torch.float64)
HOWS = ("mapping", "tuple")


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(
    "name", ["attention_mask", "mask", "attn_mask", "src_key_padding_mask", "padding_mask", "key_padding_mask"]
)
def test_padded_batches_whose_mask_is_not_declared_are_refused(name: str, kind: torch.dtype, how: str) -> None:
    mask = (ROWS if "pad" not in name else 1 - ROWS).to(kind)
    with pytest.raises(DataError, match=rf"batches are padded \({name} .*pass Network\(\.\.\., mask=") as refused:
        checked(name, mask, how)
    if name != "attention_mask":
        assert f"mask={name!r}" in str(refused.value)
        inverse = re.search(r"mask=(lambda batch: [^,]*), where (it|true) marks padding", str(refused.value))
        assert inverse is not None
        batch = {name: mask} if how == "mapping" else (None, mask)
        assert torch.equal(eval(inverse[1])(batch), mask == 0)  # what is advised does what it says
    if "pad" not in name:
        checked(name, mask, how, mask=name)
    checked(name, torch.ones_like(mask), how)
    checked(name, mask, how, pooled=True)
    checked(name, mask, how, check=False)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    "mask",
    [
        torch.zeros(3, 4).masked_fill(ROWS == 0, -torch.inf),
        torch.zeros(3, 4).masked_fill(ROWS == 0, -1e9),
        ROWS[:1].bool(),
        ROWS[:, None].bool().expand(3, 4, 4),
        torch.rand(3, 4, generator=torch.Generator().manual_seed(0)),
    ],
    ids=["infinite", "additive", "shared", "three axes", "weights"],
)
def test_masks_that_leave_no_position_out_pass(mask: torch.Tensor, how: str) -> None:
    checked("src_mask", mask, how)


@pytest.mark.parametrize("side", ["tril", "triu"])
@pytest.mark.parametrize("diagonal", [0, -1, 1])
@pytest.mark.parametrize("kind", [torch.bool, torch.float64])
def test_causal_squares_pass_where_there_are_as_many_data_points_as_positions(side, diagonal, kind) -> None:
    mask = getattr(torch.ones(4, 4), side)(diagonal).to(kind)
    if (side, diagonal) not in (("tril", 1), ("triu", -1)):
        checked("src_mask", mask, "tuple", n=4)
    with pytest.raises(DataError, match="padded"):  # one of padding may look the same
        checked("src_key_padding_mask", mask, "tuple", n=4)


@pytest.mark.parametrize(
    ("mask", "change", "match"),
    [
        ("seen", {}, "no entry 'seen'"),
        ("attention_mask", {"attention_mask": torch.full((2, 3), 2)}, "other numbers than 0 and 1"),
        ("attention_mask", {"attention_mask": torch.ones(2, 3, 3)}, "expected booleans"),
        ("attention_mask", {"attention_mask": torch.tensor([[1, 1, 1], [0, 0, 0]])}, "data point 1 .* none"),
        (lambda b: b["input_ids"][:, 1:] > 0, {}, "mask has"),
        (lambda b: b["nothing"], {}, "function that gives the mask failed: KeyError"),
        (lambda b: None, {}, "a NoneType"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask, change, match) -> None:
    batch = padded(texts([3, 3]), "right") | change
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3)).double()

    class Only(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids)

    with pytest.raises(DataError, match=match):
        collect(Network(Only(), ["model.0", "model.1"], mask=mask), [batch])


def test_positions_that_are_not_there_or_do_not_count_are_refused() -> None:
    model, parts = reader(True), texts([2, 4])
    for positions, match in (([2], "data point 0 .* none of the positions"), ([4], "which has 4")):
        with pytest.raises(DataError, match=match):
            collect(masked(model, positions=positions), [padded(parts, "right")])


def test_a_batch_that_is_one_tensor_has_no_argument_for_a_mask() -> None:
    with pytest.raises(DataError, match="give batches as"):
        collect(Network(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), ["0", "1"], mask="mask"), [torch.ones(2, 2)])


def test_resampling_where_other_positions_count_is_refused() -> None:
    net, data = masked(reader(True)), [padded(texts(LENGTHS), "right")]
    with pytest.raises(DataError, match="cannot be resampled"):
        Interventions(net, interaction_basis(net, data), data, replacement="resample")


@given(
    st.lists(st.lists(st.booleans(), min_size=4, max_size=4).filter(any), min_size=1, max_size=4),
    st.sampled_from(["all", "last", [0, 2], [-1]]),
)
def test_what_is_written_where_positions_count_is_read_there(rows, positions) -> None:
    mask = torch.tensor(rows)
    value = torch.arange(mask.numel() * 2.0).reshape(*mask.shape, 2) + 1
    try:
        counted = counted_at(mask, positions, len(mask), 4, "a cut")
    except DataError:
        assert isinstance(positions, list)
        assert not mask[:, positions].any(1).all()
        return
    read = counted.read(value)
    assert torch.equal(counted.write(value, read), value)
    changed = counted.write(value, -read)
    assert torch.equal(counted.read(changed), -read)
    assert int((changed != value).any(-1).sum()) == len(counted.rows(read))
    assert not (changed != value).any(-1)[~mask].any()


def test_a_first_position_is_the_first_that_the_mask_counts() -> None:
    mask = torch.tensor([[False, True, True], [True, True, False]])
    expected = torch.tensor([[False, False, True], [False, True, False]])
    assert torch.equal(read_mask(lambda _: mask, None, skip_first=True), expected)
    assert torch.equal(read_mask(None, torch.zeros(1, 2), skip_first=True), torch.tensor([[False, True]]))
    with pytest.raises(DataError, match="no tensor of a batch has positions"):
        read_mask(None, torch.zeros(3), skip_first=True)


def test_networks_with_a_mask_are_refused_where_means_are_taken_position_by_position() -> None:
    net, data = masked(reader(True)), [padded(texts(LENGTHS), "right")]
    bases = interaction_basis(net, data, kind="local")
    head = Component(0, 0, {name: Part(f"blocks.0.{name}") for name in "qkv"}, Part("blocks.0.o"))
    components = Components((head, Component(0, None, {"": Part("blocks.0.inner")}, Part("blocks.0.outer"))))
    with pytest.raises(GraphError, match="position by position"):
        component_circuit(net, bases, interaction_graph(net, bases), None, data, components)


def test_random_gradients_do_not_depend_on_padding() -> None:
    model, parts = reader(True), texts(LENGTHS)
    found = []
    for net, batches in ((masked(model), split(parts, "left", 3)), (one_by_one(model), alone(parts))):
        layers = find_layers(net, batches[0])
        found.append(sampled_gradients(net, layers, batches, len(parts), seed=1))
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-11)


def test_gradients_that_are_not_finite_at_padding_are_refused() -> None:
    class Softmax(nn.Module):
        """Softmax over nothing at padding: NaN there, and in all gradients."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(2, 2).double(), nn.Linear(2, 2).double()

        def forward(self, x, attention_mask):
            x = self.first(x)
            score = x @ x.transpose(1, 2)
            seen = attention_mask[:, None] & attention_mask[..., None]
            return self.last((score + seen.double().log()).softmax(-1) @ x)

    x = torch.randn(3, 3, 2, generator=torch.Generator().manual_seed(0)).double()
    seen = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    net = Network(Softmax(), ["first", "last"], mask="attention_mask")
    with pytest.raises(DataError, match="where positions do not count"):
        collect(net, [{"x": x, "attention_mask": seen}])
