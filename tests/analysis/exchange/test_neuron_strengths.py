"""Strengths of MLPs split over their hidden units: against dense Jacobians, and the sum over units."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases_components import IDS, SINGLE, Hooked, dense, function, network, read, squared
from torch import nn

from interbasis.analysis import InteractionGraph, Network, Partition, find_modules, interaction_basis, interaction_graph
from interbasis.analysis.basis.bases import Bases
from interbasis.analysis.checkpoints.components import Components, Part, find_components
from interbasis.analysis.errors import CutError, GraphError, InputError
from interbasis.analysis.exchange.component_strengths import component_strengths, component_table


def built(net: Network) -> tuple[Bases, InteractionGraph, Partition]:
    bases = interaction_basis(net, [IDS], kind="pca")
    graph = interaction_graph(net, bases, [IDS])
    return bases, graph, find_modules(graph, k=2)


def in_double(net: Network) -> Network:
    """Llama and Gemma normalise in float32, whatever their weights are; here in float64."""
    for module in net.model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = lambda x, m=module: (
                m.weight * x * (x.pow(2).mean(-1, keepdim=True) + m.variance_epsilon).rsqrt()
            )
    return net


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox", "bert"])
def test_neurons_add_up_to_their_mlp(name: str) -> None:
    net = in_double(network(name, skip_first=name != "bert"))
    bases, graph, part = built(net)
    found = component_strengths(net, bases, graph, [IDS[:2], IDS[2:]], neurons=3, partition=part)
    plain = component_strengths(net, bases, graph, [IDS])
    whole = component_strengths(net, bases, graph, [IDS], neurons=3).neurons
    neurons = found.neurons
    for p in range(2):
        mlp = found.names[p].index(f"m{p}")
        assert neurons.layers[p] == (p,)
        for sums, entering in ((neurons.inside, False), (neurons.entering, True)):
            expected = plain.added(part, entering=entering)[p][:, mlp]
            np.testing.assert_allclose(sums[p][0].sum(1), expected, rtol=1e-10, atol=1e-16)
        np.testing.assert_allclose(whole.inside[p][0].sum(1), plain.along[p][mlp].sum(), rtol=1e-10)
        both = neurons.inside[p][0].sum(0) + neurons.entering[p][0].sum(0)
        if all((label >= 0).all() for label in part.labels):
            np.testing.assert_allclose(both, whole.inside[p][0][0], rtol=1e-9, atol=1e-16)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_each_neuron_has_its_own_jacobian(name: str) -> None:
    """Also of a gated MLP, whose neurons are the inputs of its last linear map."""
    net = network(name)
    bases, graph, part = built(net)
    neurons = component_strengths(net, bases, graph, [IDS], neurons=3, partition=part).neurons
    items = find_components(net, IDS).items
    rounding = 1e-4 if name in SINGLE else 1e-9
    start, end = net.cuts[:2]
    x = read(net, IDS, start)
    writes = {item.writes.name: read(net, IDS, item.writes.name) for item in items if item.layer == 0}
    beyond = dense(function(net, IDS, start, end), x) - dense(function(net, IDS, start, end, writes), x)
    mlp = next(item for item in items if item.name == "m0")
    del writes[mlp.writes.name]
    hidden = mlp.hidden.name
    ahead = dense(function(net, IDS, start, hidden), x)
    behind = dense(function(net, IDS, hidden, end, writes), read(net, IDS, hidden))
    later, earlier = part.labels[1], part.labels[0]
    for unit in (0, 7, 15):
        block = torch.einsum("ntdu,nuse->ntdse", behind[..., unit], ahead[:, :, unit])
        edges = squared(block, bases, net.cuts, 0, beyond)
        for module in range(part.n_modules):
            others = (earlier != module) & (earlier >= 0)
            for sums, mask in ((neurons.inside, earlier == module), (neurons.entering, others)):
                expected = edges[np.outer(later == module, mask)].sum()
                assert sums[0][0][module, unit] == pytest.approx(expected, rel=rounding, abs=rounding / 100)


def test_the_strongest_are_listed_by_name() -> None:
    net = network("gpt2")
    bases, graph, part = built(net)
    found = component_strengths(net, bases, graph, [IDS], neurons=4, partition=part)
    frame = found.neurons.to_frame()
    assert list(frame.columns) == [
        *("cut", "next_cut", "module", "component", "neuron", "place", "transformer_lens", "share", "across")
    ]
    for p, module in ((0, 0), (1, 1)):
        rows = frame[(frame["cut"] == net.cuts[p]) & (frame["module"] == module)]
        shares = found.neurons.inside[p][0][module] / found.added(part)[p][module].sum()
        order = np.argsort(-np.abs(shares))[:4]
        assert rows["neuron"].tolist() == order.tolist()
        np.testing.assert_allclose(rows["share"], shares[order])
        assert set(rows["place"]) == {f"transformer.h.{p}.mlp.c_proj:in"}
        assert rows["transformer_lens"].tolist() == [f"blocks.{p}.mlp.hook_post[{n}]" for n in order]
    table = component_table(found, part, 1)
    assert len(table["neurons"]) == 2 * 4
    assert {row["module"] for row in table["neurons"]} == {1}
    alone = component_strengths(net, bases, graph, [IDS], neurons=1000)
    assert len(alone.neurons.to_frame()) == 2 * 32
    assert not {"module", "across"} & set(alone.neurons.columns())
    assert "neurons" not in component_table(component_strengths(net, bases, graph, [IDS]), part)


def test_random_signs_add_up_too() -> None:
    net = network("gpt2")
    bases = interaction_basis(net, [IDS], kind="pca")
    graph = interaction_graph(net, bases, [IDS], probes=2)
    found = component_strengths(net, bases, graph, [IDS], neurons=1)
    for p in range(2):
        expected = found.along[p][found.names[p].index(f"m{p}")].sum()
        np.testing.assert_allclose(found.neurons.inside[p][0].sum(), expected, rtol=1e-10)


def test_neurons_of_hooks() -> None:
    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.W_in, self.W_out = (nn.Parameter(torch.randn(shape)) for shape in ((6, 9), (9, 6)))
            self.hook_post = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.hook_post(nn.functional.gelu(x @ self.W_in)) @ self.W_out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = Hooked()
        block.mlp = Mlp()
        model = nn.ModuleDict({"embed": nn.Embedding(11, 6), "blocks": nn.ModuleList([block])}).double()
    model.forward = lambda ids: model.blocks[0](model.embed(ids))
    net = Network(model, ["blocks.0:in", "blocks.0"])
    bases, graph, part = built(net)
    found = component_strengths(net, bases, graph, [IDS], neurons=1, partition=part)
    assert found.neurons.places == {0: "blocks.0.mlp.hook_post"}
    np.testing.assert_allclose(found.neurons.inside[0][0].sum(1), found.added(part)[0][:, 2], rtol=1e-10, atol=1e-16)


def test_what_is_no_hidden_layer_is_refused() -> None:
    net = network("gpt2")
    bases, graph, part = built(net)
    items = find_components(net, IDS).items

    def hidden(part: Part | None) -> Components:
        return Components(tuple(replace(item, hidden=part if item.name == "m0" else item.hidden) for item in items))

    with pytest.raises(CutError, match="m0 has no hidden values between linear layers"):
        component_strengths(net, bases, graph, [IDS], components=hidden(None), neurons=1)
    for other in (Part("transformer.h.0.mlp.c_proj:in", stop=16), Part("transformer.h.1.mlp.c_proj:in")):
        with pytest.raises(CutError, match=f"the values at '{other.name}' add .* expected the input of its last"):
            component_strengths(net, bases, graph, [IDS], components=hidden(other), neurons=1)
    with pytest.raises(InputError, match="neurons is -1"):
        component_strengths(net, bases, graph, [IDS], neurons=-1)
    found = component_strengths(net, bases, graph, [IDS], neurons=1)
    with pytest.raises(GraphError, match="neurons were counted for the modules of another partition"):
        component_table(found, part)
