"""Write circuits of heads and MLPs as files of circuit-discovery tools: EAP-IG and MIB (JSON), AutoCircuit.

Names are those of TransformerLens, which both tools use. Only edges that stay inside a module are in the circuit.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import GraphError
from .component_circuit import ComponentCircuit, Edge

__all__ = ["CIRCUIT_FORMATS", "eap_graph", "export_circuit", "prune_scores"]


def export_circuit(circuit: ComponentCircuit, form: str, module: int | None = None) -> bytes:
    """Return a circuit as the content of a file.

    Args:
        circuit: modules of heads and MLPs, and the edges between them.
        form: "eap" (JSON of EAP-IG and MIB, see `eap_graph`) or "autocircuit" (see `prune_scores`, saved by torch).
        module: module whose edges are in the circuit; None: all edges except those between modules.

    Raises:
        GraphError: an unknown format, or an unknown module.
    """
    if form not in CIRCUIT_FORMATS:
        raise GraphError(f"unknown format {form!r}: expected one of {', '.join(CIRCUIT_FORMATS)}")
    return CIRCUIT_FORMATS[form](circuit, module)


def eap_graph(circuit: ComponentCircuit, module: int | None = None) -> dict[str, Any]:
    """Build `cfg`, `nodes` and `edges` as `eap.graph.Graph.from_json` reads them; a score is the loss without the edge.

    The key `interbasis`, which EAP-IG ignores, describes what the projection lost.
    """
    components, modules = circuit.components, circuit.modules
    edges = {
        f"{writer}->{reader}" + (f"<{key}>" if key else ""): {
            "score": score,
            "in_graph": circuit.holds((writer, reader, key), module),
        }
        for (writer, reader, key), score in circuit.scores.items()
    }
    inside = {name: module in (None, of) for name, of in modules.items()}
    return {
        "cfg": {
            "n_layers": components.n_layers,
            "n_heads": components.n_heads,
            "parallel_attn_mlp": components.parallel,
            "d_model": circuit.d_model,
        },
        "nodes": {name: {"in_graph": kept} for name, kept in {"input": True, **inside, "logits": True}.items()},
        "edges": edges,
        "interbasis": {
            "lossy": True,
            "note": "Modules are of coordinates of the residual stream; here each head and MLP is in the module that "
            "takes most of the variance it writes, of which `share` says how much. Scores are the behavioural loss "
            f"({circuit.loss}, mean over {circuit.n} data points) without the edge, the writer at its mean.",
            "module": module,
            "components": {
                name: {"module": of, "share": float(row[of])}
                for (name, of), row in zip(modules.items(), circuit.shares, strict=True)
            },
        },
    }


def prune_scores(circuit: ComponentCircuit, module: int | None = None) -> dict[str, Tensor]:
    """Build AutoCircuit's prune scores by name of a module, (heads, sources) or (sources,); 0 outside the circuit.

    Sources are the input, then layer by layer the heads and the MLP, as far as they write before. Make the model
    patchable with `factorized=True, separate_qkv=True`.
    """
    components = circuit.components
    sources = ["input", *(item.name for item in components.items)]
    found: dict[str, Tensor] = {}
    for layer in range(components.n_layers):
        heads = [item for item in components.items if item.layer == layer and item.head is not None]
        (mlp,) = (item for item in components.items if item.layer == layer and item.head is None)
        for key in "qkv" if heads else "":
            before = sources[: 1 + components.before(heads[0])]
            rows = [[_score(circuit, (name, head.name, key), module) for name in before] for head in heads]
            found[f"blocks.{layer}.hook_{key}_input"] = torch.tensor(rows, device="cpu")
        before = sources[: 1 + components.before(mlp)]
        found[f"blocks.{layer}.hook_mlp_in"] = torch.tensor(
            [_score(circuit, (name, mlp.name, ""), module) for name in before], device="cpu"
        )
    last = [_score(circuit, (name, "logits", ""), module) for name in sources]
    return found | {f"blocks.{components.n_layers - 1}.hook_resid_post": torch.tensor(last, device="cpu")}


def _score(circuit: ComponentCircuit, edge: Edge, module: int | None) -> float:
    return circuit.scores[edge] if circuit.holds(edge, module) else 0.0


def _saved(circuit: ComponentCircuit, module: int | None) -> bytes:
    stream = io.BytesIO()
    torch.save(prune_scores(circuit, module), stream)
    return stream.getvalue()


CIRCUIT_FORMATS: dict[str, Callable[[ComponentCircuit, int | None], bytes]] = {
    "eap": lambda circuit, module: json.dumps(eap_graph(circuit, module)).encode(),
    "autocircuit": _saved,
}
