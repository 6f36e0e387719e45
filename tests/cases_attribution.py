"""Small attribution graphs, as circuit-tracer writes them."""

import json
from typing import Any

import numpy as np

from interbasis.analysis import InteractionGraph

FEATURE, ERROR = "cross layer transcoder", "mlp reconstruction error"


def node(name: str, kind: str, layer: str, **others: Any) -> dict[str, Any]:
    return {"node_id": name, "feature_type": kind, "layer": layer, "ctx_idx": 0, "clerp": "", **others}


def attribution(nodes: list[dict[str, Any]], links: list[tuple[str, str, float]], **others: Any) -> bytes:
    named = [{"source": a, "target": b, "weight": w} for a, b, w in links]
    params = {"pinnedIds": "[]", "supernodes": "[]", "linkType": "both", "clickedId": "", "sg_pos": ""}
    metadata = {"slug": "s", "scan": "m", "prompt_tokens": ["a", "b"], "prompt": "ab", "nodeThreshold": 0.5}
    return json.dumps({"metadata": metadata, "qParams": params, "nodes": nodes, "links": named, **others}).encode()


SMALL = attribution(
    [
        node("0_1_0", FEATURE, "0", clerp="<b>bold</b> & 'more'", activation=0.1),
        node("2_7_1", FEATURE, "2", clerp="bell \x07", ctx_idx=1, other={"deep": [1, None]}),
        node("2_8_1", FEATURE, "2", clerp=None, ctx_idx=1),
        node("1_-1_0", ERROR, "1"),
        node("E_5_0", "embedding", "E", clerp="Emb: a"),
        node("4_9_1", "logit", "4", clerp='Output "x" (p=0.5)', token_prob=0.5),
    ],
    [
        ("E_5_0", "0_1_0", 0.1),
        ("0_1_0", "2_7_1", -1e-300),
        ("1_-1_0", "2_7_1", 3.0),
        ("E_5_0", "4_9_1", 0.0),
        ("2_7_1", "4_9_1", -0.30000000000000004),
    ],
    extra=[1.5, "kept"],
)


def signed(graph: InteractionGraph) -> dict[tuple[str, str], float]:
    """Weights by the ids of both nodes."""
    found = {}
    for (a, b), block in zip(graph.pairs, graph.weights, strict=True):
        assert block is not None
        for j, i in zip(*np.nonzero(block), strict=True):
            found[graph.nodes[a].ids[i], graph.nodes[b].ids[j]] = float(block[j, i])
    return found
