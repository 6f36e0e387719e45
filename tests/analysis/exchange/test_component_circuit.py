"""Heads and MLPs: edges against a network written out reader by reader, known modules, files of other tools."""

import io
import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import normal
from torch import Tensor, nn

from interbasis.analysis import Network, interaction_basis, interaction_graph, load_checkpoint, score_partition
from interbasis.analysis.checkpoints.checkpoint import components_of
from interbasis.analysis.checkpoints.components import Component, Components, Part
from interbasis.analysis.checkpoints.transformer import Affine, CausalAttention, Embedding, ResidualMLP
from interbasis.analysis.errors import CutError, DataError, GraphError, InputError
from interbasis.analysis.exchange.circuit_files import CIRCUIT_FORMATS, eap_graph, export_circuit, prune_scores
from interbasis.analysis.exchange.component_circuit import ComponentCircuit, Edge, component_circuit

LAYERS, HEADS, WIDTH, VOCAB = 2, 2, 6, 5


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = CausalAttention(WIDTH, HEADS, 3)
        self.mlp = ResidualMLP(WIDTH, 7, nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.attention(x))


class Transformer(nn.Module):
    """Two layers, no normalisation; every cut is a residual stream, or the logits."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.embed = Embedding(VOCAB, 3, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.unembed = Affine(WIDTH, VOCAB)
        for parameter in self.double().parameters():
            parameter.data = normal(*parameter.shape, generator=generator) / 2

    def forward(self, tokens: Tensor) -> Tensor:
        return self.unembed(self.blocks(self.embed(tokens)))


def head(layer: int, h: int) -> Component:
    path = f"blocks.{layer}.attention"
    return Component(
        layer, h, {key: Part(f"{path}.{key}", 1, h, h + 1) for key in "qkv"}, Part(f"{path}.o:in", 1, h, h + 1)
    )


def mlp(layer: int) -> Component:
    return Component(layer, None, {"": Part(f"blocks.{layer}.mlp.inner")}, Part(f"blocks.{layer}.mlp.outer"))


COMPONENTS = Components(tuple(item for la in range(LAYERS) for item in (*(head(la, h) for h in range(HEADS)), mlp(la))))
CUTS = ["embed", "blocks.0.attention", "blocks.0", "blocks.1.attention", "blocks.1", "unembed"]


class Case:
    def __init__(self, loss: str = "mse", model: Transformer | None = None) -> None:
        self.model = Transformer(torch.Generator().manual_seed(0)) if model is None else model
        self.x = torch.tensor(list(product(range(VOCAB), repeat=3)))[::3]
        self.net = Network(self.model, CUTS, loss=loss, example=self.x)
        self.bases = interaction_basis(self.net, [self.x], kind="neuron")
        self.graph = interaction_graph(self.net, self.bases, [self.x])
        side = [np.arange(k) >= k // 2 for k in self.graph.widths]
        self.part = score_partition(self.graph, [np.where(s, 1, 0) for s in side], 1e-12)

    def circuit(self, *batches: Tensor) -> ComponentCircuit:
        return component_circuit(self.net, self.bases, self.graph, self.part, batches or [self.x], COMPONENTS)


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


@pytest.fixture(scope="module")
def circuit(case: Case) -> ComponentCircuit:
    return case.circuit()


def logits(
    model: Transformer, x: Tensor, edge: Edge | None, means: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Every reader has a stream of its own, the sum of what was written before; `edge` sees a mean instead."""
    writes = {"input": model.embed(x)}
    constant = torch.zeros(())

    def stream(reader: str, key: str) -> Tensor:
        return constant + sum(
            means[u].expand_as(value) if (u, reader, key) == edge else value for u, value in writes.items()
        )

    for la, block in enumerate(model.blocks):
        attention, written = block.attention, {}
        for h in range(HEADS):
            name = f"a{la}.h{h}"
            q, k, v = (getattr(attention, key)(stream(name, key))[:, h : h + 1] for key in "qkv")
            written[name] = (attention.pattern(q, k) @ v)[:, 0] @ attention.o.w[h]
        writes |= written
        constant = constant + attention.o.b
        writes[f"m{la}"] = block.mlp.outer(block.mlp.activation(block.mlp.inner(stream(f"m{la}", ""))))
    return model.unembed(stream("logits", "")), writes


def edge_names() -> set[Edge]:
    """u -> v wherever u writes before v reads, as EAP-IG lists them."""
    found: set[Edge] = set()
    sources = ["input"]
    for la in range(LAYERS):
        heads = [f"a{la}.h{h}" for h in range(HEADS)]
        found |= {(u, v, key) for u in sources for v in heads for key in "qkv"}
        sources += heads
        found |= {(u, f"m{la}", "") for u in sources}
        sources.append(f"m{la}")
    return found | {(u, "logits", "") for u in sources}


@pytest.mark.parametrize("loss", ["mse", "kl"])
def test_edges_are_worth_what_the_network_loses_without_them(loss: str) -> None:
    case = Case(loss)
    found = case.circuit()
    with torch.no_grad():
        whole, writes = logits(case.model, case.x, None, {})
        torch.testing.assert_close(whole, case.model(case.x))
        means = {name: value.mean(0, keepdim=True) for name, value in writes.items()}
        assert set(found.scores) == edge_names()
        for edge, score in found.scores.items():
            output, _ = logits(case.model, case.x, edge, means)
            if loss == "mse":
                expected = (output - whole).square().sum((1, 2)).mean()
            else:
                expected = nn.functional.kl_div(
                    output.log_softmax(-1), whole.log_softmax(-1), log_target=True, reduction="sum"
                ) / len(case.x)
            assert score == pytest.approx(float(expected), rel=1e-9, abs=1e-14), edge
    assert min(found.scores.values()) > 1e-11


def test_batches_change_nothing(case: Case, circuit: ComponentCircuit) -> None:
    split = case.circuit(*case.x.split(7))
    assert split.scores == pytest.approx(circuit.scores, rel=1e-10)
    np.testing.assert_allclose(split.shares, circuit.shares, rtol=1e-10)
    assert split.n == len(case.x)


def test_shares_are_those_of_the_variance_written(case: Case, circuit: ComponentCircuit) -> None:
    """In the neuron basis the coordinates are the stream itself, and modules its two halves."""
    with torch.no_grad():
        _, writes = logits(case.model, case.x, None, {})
    for row, item in zip(circuit.shares, COMPONENTS.items, strict=True):
        spread = (writes[item.name] - writes[item.name].mean(0)).square().sum((0, 1))
        labels = case.part.labels[1]
        expected = [float(spread[torch.from_numpy(labels == m)].sum() / spread.sum()) for m in (0, 1)]
        np.testing.assert_allclose(row, expected, rtol=1e-9)


def test_components_that_write_into_one_half_are_in_its_module() -> None:
    """Head 0 and the MLP of layer 0 write into the first half, head 1 and that of layer 1 into the second."""
    model = Transformer(torch.Generator().manual_seed(1))
    half = WIDTH // 2
    for block, start in zip(model.blocks, (half, 0), strict=True):
        block.attention.o.w.data[0, :, half:] = 0
        block.attention.o.w.data[1, :, :half] = 0
        block.mlp.outer.w.data[:, start : start + half] = 0
    case = Case(model=model)
    found = case.circuit()
    first, second = (int(case.part.labels[1][i]) for i in (0, half))
    expected = [first, second, first, first, second, second]
    assert list(found.modules.values()) == expected
    np.testing.assert_allclose(found.shares.max(1), 1)
    assert found.holds(("a0.h0", "m0", ""))
    assert not found.holds(("a0.h1", "m0", ""))
    assert found.holds(("input", "a0.h1", "q"), second)
    assert not found.holds(("input", "a0.h1", "q"), first)
    assert found.holds(("input", "logits", ""), first)
    with pytest.raises(GraphError, match="there is no module 2: the partition has 2"):
        found.holds(("input", "logits", ""), 2)


def test_file_of_eap(circuit: ComponentCircuit) -> None:
    made = json.loads(export_circuit(circuit, "eap", 1))
    assert made == eap_graph(circuit, 1)
    assert made["cfg"] == {"n_layers": LAYERS, "n_heads": HEADS, "parallel_attn_mlp": False, "d_model": WIDTH}
    assert set(made["edges"]) == {f"{u}->{v}<{key}>" if key else f"{u}->{v}" for u, v, key in edge_names()}
    assert list(made["nodes"]) == ["input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1", "logits"]
    for (u, v, key), score in circuit.scores.items():
        assert made["edges"][f"{u}->{v}" + (f"<{key}>" if key else "")] == {
            "score": score,
            "in_graph": all(circuit.modules.get(name, 1) == 1 for name in (u, v)),
        }
    kept = {name for name, node in made["nodes"].items() if node["in_graph"]}
    assert kept == {"input", "logits", *(name for name, of in circuit.modules.items() if of == 1)}
    assert 2 < len(kept) < 8
    assert made["interbasis"]["lossy"] is True
    assert {n: c["module"] for n, c in made["interbasis"]["components"].items()} == circuit.modules
    every = eap_graph(circuit)
    assert all(node["in_graph"] for node in every["nodes"].values())
    inside = {name for name, edge in every["edges"].items() if edge["in_graph"]}
    assert {name for name, edge in made["edges"].items() if edge["in_graph"]} < inside < set(every["edges"])


def test_file_of_autocircuit(circuit: ComponentCircuit) -> None:
    """Shapes and places are those of a HookedTransformer made patchable, with queries, keys and values apart."""
    sources = ["input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1"]
    for module in (None, 0):
        scores = torch.load(io.BytesIO(export_circuit(circuit, "autocircuit", module)), weights_only=True)
        assert scores.keys() == prune_scores(circuit, module).keys()
        assert {name: tuple(value.shape) for name, value in scores.items()} == {
            **{f"blocks.0.hook_{key}_input": (2, 1) for key in "qkv"},
            "blocks.0.hook_mlp_in": (3,),
            **{f"blocks.1.hook_{key}_input": (2, 4) for key in "qkv"},
            "blocks.1.hook_mlp_in": (6,),
            "blocks.1.hook_resid_post": (7,),
        }
        places = {
            (u, v, key): (f"blocks.{v[1]}.hook_{key}_input", (int(v[-1]), sources.index(u)))
            if key
            else ("blocks.1.hook_resid_post" if v == "logits" else f"blocks.{v[1]}.hook_mlp_in", (sources.index(u),))
            for u, v, key in circuit.scores
        }
        assert sum(value.numel() for value in scores.values()) == len(places)
        for edge, (name, index) in places.items():
            expected = circuit.scores[edge] if circuit.holds(edge, module) else 0
            assert float(scores[name][index]) == pytest.approx(expected, rel=1e-6)


def test_bad_input_is_refused(case: Case) -> None:
    with pytest.raises(CutError, match="expected q, k and v of a head"):
        Component(0, 0, {"": Part("a")}, Part("b"))
    with pytest.raises(CutError, match=r"the components are \['m0', 'a0\.h0'\]: expected \['a0\.h0', 'm0'\]"):
        Components((mlp(0), head(0, 0)))
    with pytest.raises(CutError, match="the components are"):
        Components(())
    read = {"": Part("blocks.0.mlp.inner")}
    for part, said in (
        (Part("blocks.7"), "no module is named 'blocks.7'"),
        (Part("blocks.0.mlp.outer", 2, 4, 9), "has 6 entries along axis 2: expected 4 to 9"),
        (Part("blocks.0.mlp.outer", 3), "expected an axis 3"),
    ):
        wrong = Components((Component(0, None, read, part),))
        with pytest.raises(CutError, match=said):
            component_circuit(case.net, case.bases, case.graph, None, [case.x], wrong)
    with pytest.raises(DataError, match="no batch"):
        component_circuit(case.net, case.bases, case.graph, None, [], COMPONENTS)
    with pytest.raises(DataError, match="different lengths"):
        case.circuit(case.x, case.x[:, :2])
    with pytest.raises(GraphError, match="unknown format 'dot'"):
        export_circuit(case.circuit(), "dot")
    other = Network(case.model, CUTS[1:], example=case.x)
    with pytest.raises(GraphError, match="graph and bases have the cuts"):
        component_circuit(other, case.bases, case.graph, None, [case.x], COMPONENTS)
    assert set(CIRCUIT_FORMATS) == {"eap", "autocircuit"}


def test_hooks_are_taken_away_again(case: Case) -> None:
    broken = Components((Component(0, None, {"": Part("blocks.0.mlp.inner")}, Part("blocks.7")),))
    with pytest.raises(CutError):
        component_circuit(case.net, case.bases, case.graph, None, [case.x], broken)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in case.model.modules())


def test_family_names_its_heads(real_data: Path) -> None:
    loaded = load_checkpoint(real_data / "modadd" / "modadd_p113_seed0.safetensors")
    found = components_of(loaded)
    assert (found.n_layers, found.n_heads) == (1, 4)
    bases = interaction_basis(loaded.network, loaded.batches, kind="pca")
    graph = interaction_graph(loaded.network, bases, loaded.batches)
    x = loaded.test_batches.inputs[:500]
    circuit = component_circuit(loaded.network, bases, graph, None, [x], found)
    assert circuit.scores["input", "a0.h0", "q"] == 0  # the last token is always the same
    assert circuit.scores["input", "m0", ""] == 0
    assert circuit.scores["m0", "logits", ""] > 100 * circuit.scores["a0.h0", "logits", ""] > 0
    assert set(circuit.modules.values()) == {0}


def test_family_without_heads_says_so(real_data: Path) -> None:
    loaded = load_checkpoint(real_data / "modadd" / "modadd_p113_seed0.safetensors")
    with pytest.raises(InputError, match="family 'mlp' names no heads and MLPs"):
        components_of(replace(loaded, family="mlp"))
