"""Interventions: what is kept changes nothing, forms agree with the model, masks do what they say."""

from itertools import product

import numpy as np
import pytest
import torch
from cases import TinyAttention, cut_network, normal, random_mlp
from torch import Tensor

from interbasis.analysis import Bases, Dataset, Network, interaction_basis, interaction_graph
from interbasis.analysis.checkpoints.mlp import MLP
from interbasis.analysis.checkpoints.transformer import ModularAdditionTransformer
from interbasis.analysis.circuits.interventions import Interventions
from interbasis.analysis.errors import DataError, GraphError

KINDS = ("global", "local", "pca", "neuron")
REPLACEMENTS = ("mean", "zero", "resample")


def transformer(generator: torch.Generator, loss: str = "mse") -> tuple[Network, Tensor]:
    """Of the family with attention, small and random, on all prompts of two tokens."""
    config = {"d_model": 8, "n_heads": 2, "d_head": 3, "d_mlp": 11, "n_ctx": 3, "d_vocab": 6}
    model = ModularAdditionTransformer(**config).double()
    for parameter in model.parameters():
        parameter.data = normal(*parameter.shape, generator=generator) / 2
    x = torch.tensor([[a, b, 5] for a, b in product(range(5), repeat=2)])
    cuts = ModularAdditionTransformer.cuts({})
    positions = {name: p for name, p in ModularAdditionTransformer.positions({}).items() if name in {*cuts, "output"}}
    return Network(model, cuts, positions=positions, loss=loss, transitions=model.transitions(model), example=x), x


def dense(generator: torch.Generator, loss: str = "mse") -> tuple[Network, Tensor]:
    """An MLP of the family, with forms."""
    model = MLP((5, 7, 6, 4), "gelu").double()
    for parameter in model.parameters():
        parameter.data = normal(*parameter.shape, generator=generator) / 2
    x = normal(30, 5, generator=generator)
    cuts = MLP.cuts({"widths": [5, 7, 6, 4]})
    return Network(model, cuts, loss=loss, transitions=MLP.transitions(model), example=x), x


def without_forms(generator: torch.Generator, loss: str = "mse") -> tuple[Network, Tensor]:
    """Softmax attention over four positions; nothing is known of it."""
    x = normal(20, 4, 3, generator=generator)
    return Network(TinyAttention(3, generator), ["enter", "mix", "read"], loss=loss, example=x), x


NETWORKS = (transformer, dense, without_forms)


def built(net: Network, x: Tensor, kind: str = "local") -> Bases:
    return interaction_basis(net, [x], kind=kind)


@pytest.fixture(params=NETWORKS, ids=lambda make: make.__name__)
def network(request: pytest.FixtureRequest, generator: torch.Generator) -> tuple[Network, Tensor]:
    net, x = request.param(generator)
    return net, x


def random_masks(study: Interventions, seed: int, share: float = 0.5) -> dict[int, np.ndarray]:
    chance = np.random.default_rng(seed)
    return {p: chance.random(mask.shape) < share for p, mask in study.without_edges().items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", ["mse", "kl"])
@pytest.mark.parametrize("make", NETWORKS)
def test_keeping_everything_changes_no_bit(make: object, loss: str, kind: str, generator: torch.Generator) -> None:
    net, x = make(generator, loss)  # type: ignore[operator]
    study = Interventions(net, built(net, x, kind), [x], replacement="resample")
    nodes = {p: np.ones(k, dtype=bool) for p, k in enumerate(study.widths)}
    edges = {p: ~mask for p, mask in study.without_edges().items()}
    for output, whole, _ in study.outputs(nodes, edges):
        assert torch.equal(output, whole)
        assert torch.equal(whole, net.output(x))
    assert not study.measure(nodes, edges)[loss].any()


@pytest.mark.parametrize("replacement", REPLACEMENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_forms_agree_with_running_the_model(network: tuple[Network, Tensor], kind: str, replacement: str) -> None:
    net, x = network
    fast, slow = (Interventions(net, built(net, x, kind), [x], replacement=replacement, exact=e) for e in (True, False))
    for seed in range(3):
        masks = random_masks(fast, seed)
        for edges in ({0: masks[0]}, {1: masks[1]}, masks, masks):  # the second time from what is known
            for (a, _, _), (b, _, _) in zip(fast.outputs(None, edges), slow.outputs(None, edges), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def reference(net: Network, bases: Bases, x: Tensor, edges: dict[int, np.ndarray], donors: Tensor | None) -> Tensor:
    """Node by node, the whole model for each: what a node sees is put at its cut, and its coordinate is read."""
    here: dict[int, Tensor] = {}
    for p, mask in sorted(edges.items()):
        a, b = bases[net.cuts[p]], bases[net.cuts[p + 1]]
        values = here[p] if p in here else net.activations(x)[net.cuts[p]]
        coordinates = a.coordinates(values)
        others = (
            torch.zeros_like(coordinates) if donors is None else a.coordinates(net.activations(donors)[net.cuts[p]])
        )
        columns = []
        for j, row in enumerate(mask):
            seen = torch.where(torch.from_numpy(row), coordinates, others)
            put = torch.from_numpy(a.mean) + seen @ torch.from_numpy(a.from_basis).T
            if row.all():
                put = values
            columns.append(b.coordinates(net.resume(x, p, put, p + 1))[..., j])
        here[p + 1] = torch.from_numpy(b.mean) + torch.stack(columns, -1) @ torch.from_numpy(b.from_basis).T
    last = max(edges) + 1
    return net.resume(x, last, here[last])


def test_edges_are_cut_node_by_node(network: tuple[Network, Tensor]) -> None:
    net, x = network
    bases = built(net, x)
    plain = net.with_model(net.model)  # without forms
    study = Interventions(net, bases, [x])
    for seed in range(3):
        masks = random_masks(study, seed, 0.7)
        masks[0][0] = True
        ((output, _, _),) = study.outputs(None, masks)
        torch.testing.assert_close(output, reference(plain, bases, x, masks, None), rtol=1e-9, atol=1e-9)


def test_resampling_takes_another_data_point(generator: torch.Generator) -> None:
    net, x = dense(generator)
    bases = built(net, x)
    study = Interventions(net, bases, [x], replacement="resample", seed=3)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    donor = torch.empty_like(order)
    donor[order] = order.roll(1)
    assert not (donor == torch.arange(len(x))).any()
    masks = random_masks(study, 0)
    ((output, _, _),) = study.outputs(None, masks)
    expected = reference(net.with_model(net.model), bases, x, masks, x[donor])
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)
    other = Interventions(net, bases, [x], replacement="resample", seed=4)
    assert not torch.equal(next(other.outputs(None, masks))[0], output)


def test_nodes_are_projected_out(generator: torch.Generator) -> None:
    """mean + C^+ diag(mask) C (f - mean), by hand at a hidden layer; zero puts the coordinates of f = 0 there."""
    model = random_mlp((4, 6, 3), generator)
    x = normal(25, 4, generator=generator)
    net = cut_network(model, x)
    bases = interaction_basis(net, [x])
    basis = bases["0"]
    keep = np.arange(len(basis.importance)) % 2 == 0
    hidden = model[0](x)
    mean, c, back = (torch.from_numpy(a) for a in (basis.mean, basis.to_basis, basis.from_basis))
    for replacement, others in (("mean", torch.zeros(len(keep))), ("zero", c @ -mean)):
        seen = torch.where(torch.from_numpy(keep), (hidden - mean) @ c.T, others)
        study = Interventions(net, bases, [x], replacement=replacement)
        ((output, _, _),) = study.outputs({1: keep})
        torch.testing.assert_close(output[:, 0], model[1](mean + seen @ back.T))


def test_without_nodes_or_edges_the_output_is_constant(network: tuple[Network, Tensor]) -> None:
    net, x = network
    study = Interventions(net, built(net, x), [x])
    none = {p: np.zeros(k, dtype=bool) for p, k in enumerate(study.widths)}
    for output, _, _ in (*study.outputs(none), *study.outputs(None, study.without_edges())):
        torch.testing.assert_close(output, output[:1].expand_as(output))


@pytest.mark.parametrize("replacement", REPLACEMENTS)
def test_results_do_not_depend_on_batches(network: tuple[Network, Tensor], replacement: str) -> None:
    net, x = network
    bases = built(net, x)
    studies = [Interventions(net, bases, x.split(size), replacement=replacement) for size in (len(x), 7, 1)]
    masks = random_masks(studies[0], 0)
    nodes = {1: np.arange(studies[0].widths[1]) % 3 > 0}
    for intervention in ((None, masks), (nodes, None), (nodes, masks)):
        first, *rest = (study.measure(*intervention)["mse"] for study in studies)
        for other in rest:
            np.testing.assert_allclose(other, first, rtol=1e-9, atol=1e-12)


def test_what_is_known_is_forgotten_when_it_is_too_much(
    network: tuple[Network, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = network
    study = Interventions(net, built(net, x), [x])
    expected = [study.measure(None, random_masks(study, seed))["mse"] for seed in range(4)]
    monkeypatch.setattr("interbasis.analysis.circuits.interventions._KEPT", 3 * len(x))
    forgetful = Interventions(net, built(net, x), [x])
    for seed in (0, 1, 2, 3, 1, 0):
        np.testing.assert_allclose(forgetful.measure(None, random_masks(study, seed))["mse"], expected[seed])


def test_metrics_and_targets(generator: torch.Generator) -> None:
    net, x = transformer(generator, "kl")
    targets = torch.randint(6, (len(x),), generator=generator)
    data = Dataset("prompts", x, targets)

    def margin(output: Tensor, targets: Tensor | None) -> Tensor:
        assert targets is not None
        return output[:, 0].gather(1, targets[:, None])[:, 0]

    study = Interventions(
        net, built(net, x), data, metrics=["accuracy", "cross_entropy", margin], higher_is_better=True
    )
    assert list(study.whole) == ["kl", "accuracy", "cross_entropy", "margin"]
    logits = net.output(x)[:, 0]
    assert study.whole["accuracy"].mean() == float((logits.argmax(1) == targets).double().mean())
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none").numpy()
    np.testing.assert_allclose(study.whole["cross_entropy"], expected)
    two = torch.stack([targets, targets], 1) % 3  # two answers of three classes each
    study = Interventions(net, built(net, x), [x], targets=two, metrics=["accuracy"])
    halves = logits.unflatten(1, (2, 3)).argmax(2) == two
    np.testing.assert_allclose(study.whole["accuracy"], halves.double().mean(1).numpy())


def test_targets_batch_by_batch(generator: torch.Generator) -> None:
    net, x = dense(generator)
    bases, batches = built(net, x), list(x.split(7))
    targets = torch.randint(0, 2, (len(x),), generator=generator)
    options = {"metrics": ["accuracy"]}
    whole = Interventions(net, bases, batches, targets=targets, **options)
    parts = Interventions(net, bases, batches, targets=list(targets.split(7)), **options)
    np.testing.assert_array_equal(whole.whole["accuracy"], parts.whole["accuracy"])
    with pytest.raises(DataError, match=r"targets of batches have the shapes \(2,\), \(2, 1\)"):
        Interventions(net, bases, batches, targets=[torch.zeros(2), torch.zeros(2, 1)], **options)


def test_bad_input_is_refused(generator: torch.Generator) -> None:
    net, x = dense(generator)
    bases = built(net, x)
    study = Interventions(net, bases, [x])
    for options, error, message in (
        ({"metrics": ["recall"]}, GraphError, "unknown metric 'recall'"),
        ({"metrics": ["accuracy"]}, DataError, "needs targets"),
        ({"metrics": ["accuracy"], "targets": torch.zeros(30)}, DataError, "expected integers"),
        ({"metrics": ["accuracy"], "targets": torch.full((30,), 4)}, DataError, "expected classes 0 to 3"),
        ({"metrics": ["accuracy"], "targets": torch.zeros(29, dtype=torch.long)}, DataError, "29 targets for 30"),
        ({"metrics": ["accuracy"], "targets": torch.zeros(30, 3, dtype=torch.long)}, DataError, "do not fit"),
        ({"metrics": [lambda o, t: o[:, 0, 0] * np.nan], "higher_is_better": True}, DataError, "NaN or infinite"),
        (
            {"metrics": [lambda o, t: o.mean()], "higher_is_better": True},
            DataError,
            "expected one number per data point",
        ),
        ({"replacement": "noise"}, GraphError, "unknown replacement"),
    ):
        with pytest.raises(error, match=message):
            Interventions(net, bases, [x], **options)
    with pytest.raises(DataError, match="no batch"):
        Interventions(net, bases, [])
    with pytest.raises(DataError, match=r"one tensor of shape .*expected a list of batches"):
        Interventions(net, bases, x)
    with pytest.raises(GraphError, match=r"expected a list, \['accuracy'\]"):
        Interventions(net, bases, [x], metrics="accuracy")
    with pytest.raises(DataError, match="resampling needs another"):
        Interventions(net, bases, x.split(1)[:1], replacement="resample")
    with pytest.raises(DataError, match="the model failed on a batch"):
        Interventions(net, bases, [x[:, :3]])
    with pytest.raises(GraphError, match="bases belong to"):
        Interventions(net, Bases(bases.bases[1:]), [x])
    with pytest.raises(GraphError, match=r"mask of pair 1: expected booleans \(or numbers from 0 to 1\) of shape"):
        study.measure(None, {1: np.ones((2, 2), dtype=bool)})
    other = interaction_graph(net, interaction_basis(net, [x], kind="neuron"), [x])
    with pytest.raises(GraphError, match="give the graph that was built from them"):
        study.require(other)
