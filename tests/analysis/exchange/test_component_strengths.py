"""Strengths split over heads and MLPs: against dense Jacobians of each component, and what is refused."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from cases_components import IDS, SINGLE, Hooked, dense, function, network, read, squared
from cases_transformers import MODELS, transformer
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from interbasis.analysis import Network, find_modules, interaction_basis, interaction_graph
from interbasis.analysis.checkpoints.components import find_components
from interbasis.analysis.errors import CutError, GraphError
from interbasis.analysis.exchange.component_circuit import component_circuit
from interbasis.analysis.exchange.component_strengths import component_strengths
from interbasis.analysis.network.cuts import Place
from interbasis.analysis.network.hooks import hooked


@pytest.mark.parametrize("name", MODELS)
def test_components_add_up_to_the_block_without_its_skip_path(name: str) -> None:
    net = network(name)
    bases = interaction_basis(net, [IDS], kind="pca")
    graph = interaction_graph(net, bases, [IDS])
    found = component_strengths(net, bases, graph, [IDS[:2], IDS[2:]])
    heads = 4 if name in ("llama", "gemma") else 2
    assert found.names == tuple((*(f"a{la}.h{h}" for h in range(heads)), f"m{la}") for la in range(2))
    for p in range(2):
        start, end = net.cuts[p : p + 2]
        x = read(net, IDS, start)
        places = dict.fromkeys(found.places[c] for c in found.names[p])
        held = {place: read(net, IDS, place) for place in places}
        whole, skip = (dense(function(net, IDS, start, end, h), x) for h in (None, held))
        identity = torch.eye(x.shape[1] * x.shape[2], dtype=x.dtype).reshape(*x.shape[1:], *x.shape[1:])
        if name not in ("bert",):
            torch.testing.assert_close(skip, identity.expand_as(skip), rtol=0, atol=1e-12)
        expected = squared(whole - skip, bases, net.cuts, p)
        rounding = 1e-5 if name in SINGLE else 1e-10
        np.testing.assert_allclose(found.along[p].sum(0), expected, rtol=rounding, atol=rounding / 100)
        np.testing.assert_allclose(found.block_strengths[p], expected.clip(0) ** 0.5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox"])
def test_each_component_has_its_own_jacobian(name: str) -> None:
    net = network(name)
    bases = interaction_basis(net, [IDS], kind="pca")
    found = component_strengths(net, bases, interaction_graph(net, bases, [IDS]), [IDS], patterns=True)
    items = {item.name: item for item in find_components(net, IDS).items}
    rounding = 1e-4 if name in SINGLE else 1e-9
    for p in range(2):
        start, end = net.cuts[p : p + 2]
        x = read(net, IDS, start)
        places = dict.fromkeys(found.places[c] for c in found.names[p])
        held = {place: read(net, IDS, place) for place in places}
        beyond = dense(function(net, IDS, start, end), x) - dense(function(net, IDS, start, end, held), x)
        for c, component in enumerate(found.names[p]):
            item = items[component]
            own = dense(function(net, IDS, start, item.writes.name), x)
            if item.head is not None:
                out = net.model.get_submodule(item.writes.name.removesuffix(":in"))
                weight = out.weight.T if isinstance(out, nn.Linear) else out.weight
                units = slice(item.writes.start, item.writes.stop)
                own = torch.einsum("nthse,hd->ntdse", own[:, :, units], weight[units].detach())
            np.testing.assert_allclose(
                found.strengths[p][c] ** 2, squared(own, bases, net.cuts, p), rtol=rounding, atol=rounding / 100
            )
            np.testing.assert_allclose(
                found.along[p][c], squared(own, bases, net.cuts, p, beyond), rtol=rounding, atol=rounding / 100
            )
            if item.head is None:
                np.testing.assert_array_equal(found.patterns[p][c], 0.0)


def test_patterns_are_what_values_do_not_carry() -> None:
    """Where queries are zero patterns are even and do not change; a head of GPT-2 by hand elsewhere."""
    net = network("gpt2")
    attention = net.model.transformer.h[0].attn
    width = attention.c_attn.weight.shape[0]
    for kept in (1.0, 0.0):
        attention.c_attn.weight.data[:, : 2 * width] *= kept
        attention.c_attn.bias.data[: 2 * width] *= kept
        bases = interaction_basis(net, [IDS], kind="pca")
        found = component_strengths(net, bases, interaction_graph(net, bases, [IDS]), [IDS], patterns=True)
        assert (np.abs(found.patterns[0][:2]).max() > 1e-4) == bool(kept)
        if not kept:
            np.testing.assert_allclose(found.patterns[0], 0.0, atol=1e-16)


def test_random_signs_estimate_the_same() -> None:
    net = network("gpt2")
    bases = interaction_basis(net, [IDS], kind="pca")
    exact = component_strengths(net, bases, interaction_graph(net, bases, [IDS]), [IDS])
    graph = interaction_graph(net, bases, [IDS], probes=60)
    found = component_strengths(net, bases, graph, [IDS])
    again = component_strengths(net, bases, interaction_graph(net, bases, [IDS]), [IDS], probes=60)
    for a, b, c in zip(exact.along, found.along, again.along, strict=True):
        np.testing.assert_allclose(b.sum((1, 2)), a.sum((1, 2)), rtol=0.25)
        np.testing.assert_array_equal(b, c)


def test_shares_of_modules_and_masks() -> None:
    net = network("gpt2", skip_first=True)
    bases = interaction_basis(net, [IDS], kind="pca")
    graph = interaction_graph(net, bases, [IDS])
    part = find_modules(graph, k=2)
    found = component_strengths(net, bases, graph, [IDS])
    for p, (whole, modules) in enumerate(zip(found.shares(), found.shares(part), strict=True)):
        np.testing.assert_allclose(whole.sum(1), 1.0)
        along = found.along[p]
        for module, row in enumerate(modules):
            inside = np.outer(part.labels[p + 1] == module, part.labels[p] == module)
            if inside.any():
                np.testing.assert_allclose(row, along[:, inside].sum(1) / along[:, inside].sum())
    frame = found.to_frame(part)
    assert list(frame.columns) == ["cut", "next_cut", "module", "component", "place", "share", "strength"]
    assert len(frame) == 2 * 2 * 3
    assert set(frame["place"]) == {f"transformer.h.{i}.{p}" for i in range(2) for p in ("attn.c_proj:in", "mlp.c_proj")}
    assert "module" not in found.to_frame().columns


def test_what_is_not_understood_is_refused_by_name() -> None:
    net = network("gpt2")
    bases = interaction_basis(net, [IDS], kind="pca")
    graph = interaction_graph(net, bases, [IDS])
    with pytest.raises(GraphError, match="strengths are of attribution"):
        component_strengths(net, bases, interaction_graph(net, bases, [IDS], strengths="attribution"), [IDS])
    with pytest.raises(GraphError, match="graph and bases have the cuts"):
        component_strengths(Network(net.model, ["resid_pre.0", "resid_post.1"], loss="kl"), bases, graph, [IDS])

    def broken(change: Callable[[nn.Module], None]) -> Network:
        model = transformer("gpt2").double()
        change(model.transformer.h[1])
        return Network(model, ["resid_pre.0", "resid_post.1"], loss="kl")

    class Halved(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.c_attn, self.c_proj, self.inner = inner.c_attn, inner.c_proj, [inner]

        def forward(self, *args, **kwargs):
            with hooked(self.c_proj, Place("c_proj", True), lambda _, z: z / 2):
                return self.inner[0](*args, **kwargs)

        config = transformer("gpt2").config

    class Side(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.first, self.inner = nn.Linear(8, 8), inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) + self.first(x)

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.Parameter(torch.ones(2, 8, 8))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weights.sum(0)

    for change, message in (
        (lambda block: setattr(block, "attn", Halved(block.attn)), "'transformer.h.1.attn': a constant added"),
        (lambda block: setattr(block, "mlp", nn.Identity()), "has the linear layers \\[\\] beside attention"),
        (lambda block: setattr(block, "mlp", Side(block.mlp).double()), "'transformer.h.1.mlp.inner.c_fc' writes into"),
        (lambda block: setattr(block, "mlp", Experts().double()), "'transformer.h.1.mlp' is a Experts"),
    ):
        with pytest.raises(CutError, match=message):
            find_components(broken(change), IDS)
    with pytest.raises(CutError, match="the model has no list of blocks"):
        find_components(Network(nn.Sequential(nn.Linear(4, 2)), []), torch.zeros(2, 4))


def test_circuits_of_transformers() -> None:
    """Edges of GPT-2 as of any network; heads that share keys are refused; parallel blocks are told."""
    for name in ("gpt2", "gpt_neox"):
        net = network(name, skip_first=True)
        bases = interaction_basis(net, [IDS], kind="pca")
        components = find_components(net, IDS)
        assert components.parallel == (name == "gpt_neox")
        graph = interaction_graph(net, bases, [IDS])
        found = component_circuit(net, bases, graph, find_modules(graph, k=2), [IDS], components)
        np.testing.assert_allclose(found.shares.sum(1), 1.0)
        assert found.scores["m0", "logits", ""] > 0
    net = network("llama")
    bases = interaction_basis(net, [IDS], kind="pca")
    graph = interaction_graph(net, bases, [IDS])
    with pytest.raises(GraphError, match=r"a0.h0 and a0.h1 share 'model.layers.0.self_attn.k_proj' \(grouped"):
        component_circuit(net, bases, graph, None, [IDS], find_components(net, IDS))


def test_heads_of_hooks() -> None:
    """Sums of the components of a block of TransformerLens' names, and of one head, against dense Jacobians."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.ModuleDict({"embed": nn.Embedding(11, 6), "blocks": nn.ModuleList([Hooked()])}).double()
    model.forward = lambda ids: model.blocks[0](model.embed(ids))
    net = Network(model, ["blocks.0:in", "blocks.0"])
    bases = interaction_basis(net, [IDS], kind="pca")
    found = component_strengths(net, bases, interaction_graph(net, bases, [IDS]), [IDS], patterns=True)
    assert found.places == {
        "a0.h0": "blocks.0.attn.hook_z",
        "a0.h1": "blocks.0.attn.hook_z",
        "m0": "blocks.0.hook_mlp_out",
    }
    assert not find_components(net, IDS).parallel
    x = read(net, IDS, "blocks.0:in")
    whole = dense(function(net, IDS, "blocks.0:in", "blocks.0"), x)
    identity = torch.eye(x.shape[1] * x.shape[2], dtype=x.dtype).reshape(*x.shape[1:], *x.shape[1:])
    np.testing.assert_allclose(
        found.along[0].sum(0), squared(whole - identity, bases, net.cuts, 0), rtol=1e-10, atol=1e-12
    )
    z = jacobian(function(net, IDS, "blocks.0:in", "blocks.0.attn.hook_z"), x)
    z = torch.stack([z[i].select(z[i].ndim - 3, i) for i in range(len(x))])[:, :, 1]
    own = torch.einsum("nteuv,ed->ntduv", z, model.blocks[0].attn.W_O[1].detach())
    np.testing.assert_allclose(found.strengths[0][1] ** 2, squared(own, bases, net.cuts, 0), rtol=1e-10, atol=1e-12)
    assert np.abs(found.patterns[0][:2]).max() > 1e-6
