"""Any circuit of heads and MLPs, as a file of EAP-IG or AutoCircuit: every edge with its score, and no other."""

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interbasis.analysis.checkpoints.components import Component, Components, Part
from interbasis.analysis.errors import GraphError
from interbasis.analysis.exchange.circuit_files import CIRCUIT_FORMATS, eap_graph, export_circuit, prune_scores
from interbasis.analysis.exchange.component_circuit import ComponentCircuit, Edge


def components_of(n_layers: int, n_heads: int, parallel: bool = False) -> Components:
    items = []
    for layer in range(n_layers):
        parts = {key: Part(f"{layer}.{key}") for key in "qkv"}
        items += [Component(layer, head, parts, Part(f"{layer}.o:in")) for head in range(n_heads)]
        items.append(Component(layer, None, {"": Part(f"{layer}.in")}, Part(f"{layer}.out")))
    return Components(tuple(items), parallel)


def edges_of(components: Components) -> list[Edge]:
    """u -> v wherever u writes into the stream before v reads it."""

    def before(u: Component, v: Component) -> bool:
        within = u.layer == v.layer and u.head is not None and v.head is None and not components.parallel
        return u.layer < v.layer or within

    found = [("input", v.name, key) for v in components.items for key in v.reads]
    found += [
        (u.name, v.name, key) for u in components.items for v in components.items if before(u, v) for key in v.reads
    ]
    return [*found, *((u, "logits", "") for u in ("input", *(item.name for item in components.items)))]


def circuit_of(components: Components, modules: list[int], scores: list[float]) -> ComponentCircuit:
    """Components in these modules, of which each has .75 of its variance, or all if there is one."""
    count = max(modules) + 1
    shares = np.full((len(modules), count), 0.25 / max(1, count - 1))
    shares[np.arange(len(modules)), modules] = 0.75 if count > 1 else 1.0
    return ComponentCircuit(components, 16, shares, dict(zip(edges_of(components), scores, strict=True)), "kl", 10)


def drawn_circuit(data: st.DataObject) -> ComponentCircuit:
    """Up to three layers of up to two heads; any modules and scores."""
    layers, heads, parallel = (data.draw(s) for s in (st.integers(1, 3), st.integers(0, 2), st.booleans()))
    components = components_of(layers, heads, parallel)
    size = len(components.items)
    modules = data.draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    draws = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    return circuit_of(components, modules, draws.lognormal(sigma=3, size=len(edges_of(components))).tolist())


def inside(circuit: ComponentCircuit, edge: Edge, module: int | None) -> bool:
    """Input and logits belong to every module; an edge between two modules is in no circuit."""
    ends = [circuit.modules[name] for name in edge[:2] if name not in ("input", "logits")]
    return len(set(ends)) < 2 if module is None else all(end == module for end in ends)


@settings(max_examples=25, deadline=None)
@given(st.data(), st.booleans())
def test_file_of_eap_has_every_edge_and_component(data: st.DataObject, whole: bool) -> None:
    circuit = drawn_circuit(data)
    module = None if whole else circuit.shares.shape[1] - 1
    made = json.loads(export_circuit(circuit, "eap", module))
    assert made["edges"] == {
        f"{u}->{v}<{key}>" if key else f"{u}->{v}": {"score": score, "in_graph": inside(circuit, (u, v, key), module)}
        for (u, v, key), score in circuit.scores.items()
    }
    names = [item.name for item in circuit.components.items]
    assert list(made["nodes"]) == ["input", *names, "logits"]
    kept = {name for name, node in made["nodes"].items() if node["in_graph"]} - {"input", "logits"}
    assert kept == {name for name in names if whole or circuit.modules[name] == module}
    assert made["cfg"] == {
        "n_layers": circuit.components.n_layers,
        "n_heads": circuit.components.n_heads,
        "parallel_attn_mlp": circuit.components.parallel,
        "d_model": 16,
    }
    about = made["interbasis"]
    assert (about["module"], about["lossy"]) == (module, True)
    assert "(kl, mean over 10 data points)" in about["note"]
    assert about["components"] == {
        name: {"module": of, "share": circuit.shares[i, of]} for i, (name, of) in enumerate(circuit.modules.items())
    }


def edges_in(tensors: dict[str, torch.Tensor], components: Components) -> dict[Edge, float]:
    """Edges from the names and places of AutoCircuit: a row per head, a column per source that writes before."""
    sources = ["input", *(item.name for item in components.items)]
    found: dict[Edge, float] = {}
    for name, values in tensors.items():
        _, layer, hook = name.split(".")
        if hook == "hook_resid_post":
            readers, key = ["logits"], ""
        elif hook == "hook_mlp_in":
            readers, key = [f"m{layer}"], ""
        else:
            readers, key = [f"a{layer}.h{head}" for head in range(components.n_heads)], hook.split("_")[1]
        for reader, row in zip(readers, values.reshape(len(readers), -1).tolist(), strict=True):
            found |= {(source, reader, key): score for source, score in zip(sources, row, strict=False)}
    return found


@settings(max_examples=25, deadline=None)
@given(st.data(), st.booleans())
def test_file_of_autocircuit_has_every_edge_at_its_place(data: st.DataObject, whole: bool) -> None:
    circuit = drawn_circuit(data)
    module = None if whole else 0
    tensors = torch.load(io.BytesIO(export_circuit(circuit, "autocircuit", module)), weights_only=True)
    found = edges_in(tensors, circuit.components)
    assert sum(value.numel() for value in tensors.values()) == len(found)
    assert found.keys() == circuit.scores.keys()
    for edge, score in circuit.scores.items():
        assert found[edge] == pytest.approx(score if inside(circuit, edge, module) else 0.0, rel=1e-6, abs=1e-30)


@pytest.mark.parametrize("parallel", [False, True])
def test_mlp_reads_the_heads_of_its_layer_unless_they_are_parallel(parallel: bool) -> None:
    components = components_of(1, 2, parallel)
    circuit = circuit_of(components, [0, 0, 0], [1.0] * len(edges_of(components)))
    assert prune_scores(circuit)["blocks.0.hook_mlp_in"].tolist() == ([1.0] if parallel else [1.0, 1.0, 1.0])
    assert ("a0.h0->m0" in eap_graph(circuit)["edges"]) is not parallel


@pytest.mark.parametrize("form", CIRCUIT_FORMATS)
@pytest.mark.parametrize("module", [-1, 2])
def test_module_that_does_not_exist_is_refused(form: str, module: int) -> None:
    components = components_of(1, 1)
    circuit = circuit_of(components, [0, 1], [1.0] * len(edges_of(components)))
    with pytest.raises(GraphError, match=f"there is no module {module}: the partition has 2, counted from 0"):
        export_circuit(circuit, form, module)


@pytest.mark.parametrize("form", ["", "EAP", "eap.json", "graphml"])
def test_unknown_format_is_refused_with_the_known_ones(form: str) -> None:
    components = components_of(1, 0)
    circuit = circuit_of(components, [0], [1.0] * len(edges_of(components)))
    with pytest.raises(GraphError) as raised:
        export_circuit(circuit, form)
    assert str(raised.value) == f"unknown format {form!r}: expected one of eap, autocircuit"


def test_component_that_writes_nothing_is_in_the_first_module() -> None:
    components = components_of(1, 0)
    scores: Any = dict.fromkeys(edges_of(components), 0.0)
    circuit = ComponentCircuit(components, 4, np.zeros((1, 3)), scores, "mse", 1)
    assert circuit.modules == {"m0": 0}
    assert eap_graph(circuit)["interbasis"]["components"] == {"m0": {"module": 0, "share": 0.0}}
