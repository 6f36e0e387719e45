"""Moments and interaction strengths: equal to looped formulas, independent of batches, with positions and without."""

from pathlib import Path

import networkx
import numpy as np
import pytest
import reference
import torch
from cases import TinyAttention, cut_network, normal, random_mlp
from numpy.polynomial.legendre import leggauss
from torch import Tensor, nn

from interbasis.analysis.basis.interaction_basis import interaction_basis
from interbasis.analysis.basis.moments import collect
from interbasis.analysis.checkpoints.datasets import modular_addition
from interbasis.analysis.checkpoints.mlp import MLP
from interbasis.analysis.checkpoints.transformer import ModularAdditionTransformer
from interbasis.analysis.errors import DataError, GraphError, InputError
from interbasis.analysis.graph.interaction_graph import InteractionGraph
from interbasis.analysis.graph.strengths import interaction_graph
from interbasis.analysis.network.network import Network


def dense(generator: torch.Generator) -> tuple[Network, Tensor]:
    x = normal(12, 4, generator=generator)
    return cut_network(random_mlp((4, 5, 6, 3), generator), x), x


def attention(generator: torch.Generator) -> tuple[Network, Tensor]:
    x = normal(8, 3, 4, generator=generator)
    return Network(TinyAttention(4, generator), ["enter", "mix", "read"], example=x), x


def tiny_transformer(generator: torch.Generator) -> tuple[nn.Module, Tensor]:
    config = {"d_model": 6, "n_heads": 2, "d_head": 3, "d_mlp": 8, "n_ctx": 3, "d_vocab": 5}
    model = ModularAdditionTransformer(**config, activation="gelu").double()
    for p in model.parameters():
        p.data = normal(*p.shape, generator=generator) / 2
    return model, modular_addition(4, 0.6, 0)[0].inputs


NETWORKS = [dense, attention]


def maps(net: Network) -> list[reference.Map]:
    """The map from each cut to the next, for one data point, by forcing the earlier activations."""

    def between(p: int) -> reference.Map:
        def forward(f: Tensor) -> Tensor:
            return net.trace(X[0], replace={p: [f[None]]}, joined=True).values[p + 1][0]

        return forward

    return [between(p) for p in range(len(net.cuts) - 1)]


X: list[Tensor] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    X.clear()


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("kind", ["global", "local", "pca", "neuron"])
@pytest.mark.parametrize(("strengths", "points"), [("jacobian", 1), ("attribution", 1), ("attribution", 3)])
def test_strengths_equal_the_looped_reference(
    make: object, kind: str, strengths: str, points: int, generator: torch.Generator
) -> None:
    net, x = make(generator)  # type: ignore[operator]
    bases = interaction_basis(net, [x], kind=kind)
    graph = interaction_graph(net, bases, [x], strengths=strengths, points=points)
    values = net.activations(x)
    nodes, weights = leggauss(points) if points > 1 else (np.ones(1), np.full(1, 2.0))
    modules = list(net.model.children())
    for p in range(len(net.cuts) - 1):
        a, b = bases[net.cuts[p]], bases[net.cuts[p + 1]]
        forward = (lambda f, m=modules[p]: m(f)) if make is dense else (lambda f, m=modules[p + 1]: m(f[None])[0])
        if strengths == "jacobian":
            expected = reference.jacobian_strengths(forward, values[a.cut], b.to_basis, a.from_basis, a.importance)
        else:
            expected = reference.attribution_strengths(
                forward, values[a.cut], b.to_basis, a.to_basis, a.from_basis, a.mean,
                ((nodes + 1) / 2).tolist(), (weights / 2).tolist(),
            )  # fmt: skip
        np.testing.assert_allclose(graph.blocks[p], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("loss", ["mse", "kl"])
def test_moments_equal_the_looped_reference_and_merge(make: object, loss: str, generator: torch.Generator) -> None:
    net, x = make(generator)  # type: ignore[operator]
    net.loss = loss
    whole = collect(net, [x])
    halves = collect(net, [x[:5]]).merge(collect(net, [x[5:]]))
    many = collect(net, list(x.split(2)))
    modules = list(net.model.children())
    first = 0 if make is dense else 1
    for p, (cut, values) in enumerate(net.activations(x).items()):
        mean, gram = reference.gram(values)

        def forward(f: Tensor, p: int = p) -> Tensor:
            f = f if make is dense else f[None]
            for module in modules[first + p :]:
                f = module(f)
            return f if make is dense else f[0]

        m = reference.jacobian_gram(forward, values, forward if loss == "kl" else None)
        for found in (whole, halves, many):
            torch.testing.assert_close(found.activations[cut].mean, mean)
            torch.testing.assert_close(found.activations[cut].gram, gram, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(found.jacobians[cut].gram, m, rtol=1e-10, atol=1e-12)


def test_moments_of_different_cuts_do_not_merge(generator: torch.Generator) -> None:
    net, x = dense(generator)
    other, y = attention(generator)
    with pytest.raises(DataError, match="cannot be merged"):
        collect(net, [x]).merge(collect(other, [y]))


@pytest.mark.parametrize("kind", ["global", "local"])
@pytest.mark.parametrize("strengths", ["jacobian", "attribution"])
def test_declared_transitions_give_what_backward_passes_give(
    kind: str, strengths: str, generator: torch.Generator
) -> None:
    model, x = tiny_transformer(generator)
    cuts = ModularAdditionTransformer.cuts({})
    positions = {name: p for name, p in ModularAdditionTransformer.positions({}).items() if name in {*cuts, "output"}}
    results = []
    for transitions in (ModularAdditionTransformer.transitions(model), None):
        net = Network(model, cuts, positions=positions, transitions=transitions, example=x)
        bases = interaction_basis(net, [x], kind=kind)
        results.append((bases, interaction_graph(net, bases, [x], strengths=strengths)))
    (fast_bases, fast), (slow_bases, slow) = results
    for a, b in zip(fast_bases.values(), slow_bases.values(), strict=True):
        np.testing.assert_allclose(a.to_basis, b.to_basis, atol=1e-8)
    for a, b in zip(fast.blocks, slow.blocks, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "gelu", "tanh", "sigmoid", "identity"])
def test_declared_dense_layers_give_what_backward_passes_give(activation: str, generator: torch.Generator) -> None:
    model = MLP((4, 6, 5, 3), activation).double()
    for p in model.parameters():
        p.data = normal(*p.shape, generator=generator)
    x = normal(20, 4, generator=generator)
    cuts = MLP.cuts({"widths": (4, 6, 5, 3)})
    graphs = []
    for transitions in (MLP.transitions(model), None):
        net = Network(model, cuts, transitions=transitions, example=x)
        graphs.append(interaction_graph(net, interaction_basis(net, [x], kind="local"), [x]))
    for a, b in zip(graphs[0].blocks, graphs[1].blocks, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8)


@pytest.mark.parametrize("strengths", ["jacobian", "attribution"])
def test_batches_order_and_size_change_nothing(strengths: str, generator: torch.Generator) -> None:
    for make in NETWORKS:
        net, x = make(generator)
        bases = interaction_basis(net, [x])
        one = interaction_graph(net, bases, [x], strengths=strengths)
        mixed = x[torch.randperm(len(x), generator=generator)]
        for batches in (list(x.split(3)), list(mixed.split(5))):
            many = interaction_graph(net, bases, batches, strengths=strengths)
            for a, b in zip(one.blocks, many.blocks, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_strengths_measured_with_a_local_basis_are_those_of_the_graph(generator: torch.Generator) -> None:
    for make in NETWORKS:
        net, x = make(generator)
        bases = interaction_basis(net, [x], kind="local")
        with_batches = interaction_graph(net, bases, [x])
        for a, b in zip(interaction_graph(net, bases).blocks, with_batches.blocks, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-7)


def test_graph_errors_name_the_problem(generator: torch.Generator) -> None:
    net, x = dense(generator)
    bases = interaction_basis(net, [x])
    with pytest.raises(GraphError, match="batches are needed"):
        interaction_graph(net, bases)
    with pytest.raises(GraphError, match="unknown strengths 'jacobin'"):
        interaction_graph(net, bases, [x], strengths="jacobin")
    with pytest.raises(GraphError, match="points is 0"):
        interaction_graph(net, bases, [x], points=0)
    other, _ = attention(generator)
    with pytest.raises(GraphError, match="the bases belong to the cuts"):
        interaction_graph(other, bases, [x])
    for blocks, message in (
        ([], "at least one block"),
        ([np.ones((2, 3)), np.ones((2, 4))], "block 1 has 4 nodes at cut 1, an earlier block has 2"),
        ([-np.ones((2, 3))], "negative"),
        ([np.full((2, 3), np.nan)], "NaN"),
        ([np.ones(3)], "has shape"),
    ):
        with pytest.raises(GraphError, match=message):
            InteractionGraph.from_blocks(blocks)


def test_round_trips(tmp_path: Path, generator: torch.Generator) -> None:
    net, x = dense(generator)
    graph = interaction_graph(net, interaction_basis(net, [x]), [x])
    graph.save(tmp_path / "graph.safetensors")
    loaded = InteractionGraph.load(tmp_path / "graph.safetensors")
    assert loaded.cuts == graph.cuts
    assert loaded.settings == graph.settings
    for a, b in zip(graph.blocks, loaded.blocks, strict=True):
        np.testing.assert_array_equal(a, b)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "graph.safetensors").read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read"):
        InteractionGraph.load(tmp_path / "cut.safetensors")
    with pytest.raises(InputError, match="cannot read"):
        InteractionGraph.load(tmp_path / "absent.safetensors")


def test_networkx_and_igraph_carry_the_same_edges() -> None:
    graph = InteractionGraph.from_blocks([[[1.0, 0.0], [0.5, 2.0]], [[0.1, 3.0]]], cuts=["a", "b", "c"])
    nx = graph.to_networkx(epsilon=0.04)
    assert isinstance(nx, networkx.DiGraph)
    expected = {("a0", "b0", 1.0), ("a0", "b1", 0.5), ("a1", "b1", 2.0), ("b1", "c0", 3.0)}
    assert {(f"{a[0]}{a[1]}", f"{b[0]}{b[1]}", w) for a, b, w in nx.edges(data="strength")} == expected
    ig = graph.to_igraph(epsilon=0.04)
    names = [f"{v['cut']}{v['coordinate']}" for v in ig.vs]
    assert {(names[e.source], names[e.target], e["strength"]) for e in ig.es} == expected
    assert nx.number_of_nodes() == ig.vcount() == graph.n_nodes == 5
    assert graph.n_edges(0.04) == 4
