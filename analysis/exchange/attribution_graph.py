"""Export a graph with its modules as an attribution graph, the JSON that circuit-tracer and Neuronpedia show.

Modules take the place of tokens: a node's `ctx_idx` is its module, whose name is one of the prompt tokens, and each
module is a supernode. The page cannot draw large graphs, so only the strongest edges are written, and the file says so.
Schema: neuronpedia.org, "Anthropic Attribution Graph" 1.0.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..graph.cost import Epsilon
from ..graph.interaction_graph import InteractionGraph
from ..modules.partition import Partition
from .feature_files import feature_number

__all__ = ["MOST_LINKS", "MOST_PINNED", "Names", "attribution_graph"]

MOST_LINKS = 3000

"""Links that are written, the strongest."""

MOST_PINNED = 200

"""Number of nodes that the page pins, the most important ones."""

Node: TypeAlias = tuple[int, int]

"""Index of the cut, and coordinate."""

_NONE = "no module"


class Names(NamedTuple):
    """Labels that files show.

    Attributes:
        nodes: label of a node, by name of its cut and coordinate.
        modules: label of a module, by its index.
    """

    nodes: Mapping[tuple[str, int], str] = MappingProxyType({})
    modules: Mapping[int, str] = MappingProxyType({})


def attribution_graph(
    graph: InteractionGraph,
    partition: Partition | None,
    epsilon: Epsilon,
    *,
    most_links: int = MOST_LINKS,
    called: Names | None = None,
) -> dict[str, Any]:
    """Build the JSON of the strongest edges of a graph and their nodes, with modules as supernodes.

    Args:
        graph: the strengths; a link's weight is w, with its sign where the graph has signs.
        partition: its modules; without one all nodes are in one lane.
        epsilon: only edges above its square root are written; one for all pairs of cuts, or one per pair.
        most_links: largest number of edges, the strongest.
        called: labels of nodes, which take the place of their paths, and of modules, which follow their numbers.
    """
    given = called or Names()
    labels = partition.labels if partition is not None else [np.zeros(k, dtype=int) for k in graph.widths]
    lanes = [_titled(m, given.modules) for m in range(partition.n_modules if partition is not None else 1)]
    kept = _strongest(graph, epsilon, most_links)
    influence = _influence(kept)
    ranked = list(influence)
    module = {(cut, i): int(labels[cut][i]) for cut, i in ranked}
    used = set(module.values())
    tokens = [*lanes, _NONE] if len(used) > 1 else [_NONE, *lanes]  # the page leaves out the first lane
    places = {m: tokens.index(lanes[m] if m >= 0 else _NONE) for m in used}
    lane = {node: places[m] for node, m in module.items()}
    names = {node: f"{node[0]}_{node[1]}_{lane[node]}" for node in ranked}
    pinned = ranked[:MOST_PINNED]
    supernodes = [[title, *(names[node] for node in pinned if module[node] == m)] for m, title in enumerate(lanes)]
    return {
        "metadata": _metadata(graph, epsilon, lanes, tokens, len(kept)),
        "qParams": {
            "pinnedIds": [names[node] for node in pinned],
            "supernodes": [members for members in supernodes if len(members) > 1],
            "linkType": "both",
            "clickedId": names[pinned[0]] if pinned else "",
            "sg_pos": "",
        },
        "nodes": _nodes(graph, influence, names, lane, given),
        "links": [
            {"source": names[a], "target": names[b], "weight": w}
            for (a, b, _), w in zip(kept, _signed(graph, kept), strict=True)
        ],
    }


def _titled(module: int, called: Mapping[int, str]) -> str:
    """Name a module, with its number, so that no two have the same name."""
    return f"module {module}" + (f": {called[module]}" if module in called else "")


def _signed(graph: InteractionGraph, kept: Sequence[tuple[Node, Node, float]]) -> list[float]:
    """Return the weights of edges, with their signs where the graph has them."""
    known = dict(zip(graph.pairs, graph.weights, strict=bool(graph.weights)))
    blocks = [known.get((a[0], b[0])) for a, b, _ in kept]
    return [w if block is None else float(block[b[1], a[1]]) for (a, b, w), block in zip(kept, blocks, strict=True)]


def _influence(kept: Sequence[tuple[Node, Node, float]]) -> dict[Node, float]:
    """Compute per node, from the one that carries most loss on, the share of all loss carried up to there."""
    carried: dict[Node, float] = {}
    for earlier, later, w in kept:
        for node in (earlier, later):
            carried[node] = carried.get(node, 0.0) + w**2
    ranked = sorted(carried, key=lambda node: (-carried[node], node))
    shares = np.cumsum([carried[node] for node in ranked]) / (sum(carried.values()) or 1.0)
    return dict(zip(ranked, shares.tolist(), strict=True))


def _nodes(
    graph: InteractionGraph,
    influence: Mapping[Node, float],
    names: Mapping[Node, str],
    lane: Mapping[Node, int],
    called: Names,
) -> list[dict[str, Any]]:
    """Describe each node that has an influence; the first of them at the last cut is the target."""
    last = len(graph.cuts) - 1
    outputs = float(graph.importance[last].sum()) or 1.0
    target = next((node for node in influence if node[0] == last), None)
    found = []
    for node in sorted(influence):
        (cut, i), importance = node, float(graph.importance[node[0]][node[1]])
        own = graph.nodes[cut].titles[i] if graph.nodes else f"{graph.cuts[cut]}/{i}"
        share, title = importance / outputs, called.nodes.get((graph.cuts[cut], i), own)
        found.append(
            {
                "node_id": names[node],
                "feature": feature_number(cut, i),
                "layer": "E" if cut == 0 else str(cut),
                "ctx_idx": lane[node],
                "feature_type": {0: "embedding", last: "logit"}.get(cut, "cross layer transcoder"),
                "token_prob": share if cut == last else 0.0,
                "is_target_logit": node == target,
                "run_idx": 0,
                "reverse_ctx_idx": 0,
                "jsNodeId": f"{cut}_{i}-0",
                "clerp": title + (f" (p={share:.3f})" if cut == last else ""),
                "influence": influence[node],
                "activation": importance,
            }
        )
    return found


def _metadata(
    graph: InteractionGraph, epsilon: Epsilon, lanes: Sequence[str], tokens: Sequence[str], n_links: int
) -> dict[str, Any]:
    """Build the metadata that the page shows about the whole graph."""
    n_edges = graph.n_edges(epsilon)
    part = f"all {n_edges}" if n_links == n_edges else f"the strongest {n_links} of {n_edges}"
    above = ", ".join(dict.fromkeys(f"{cutoff:.3g}" for cutoff in graph.cutoffs(epsilon)))
    description = (
        f"Interaction graph, {part} edges with strengths above {above}. Tokens are modules, layers are "
        "cuts, weights are strengths w (w^2 is a loss), probabilities are shares of the variance of the last cut."
    )
    return {
        "slug": "interbasis",
        "scan": f"interbasis {graph.basis} basis",
        "transcoder_list": [],
        "prompt_tokens": list(tokens),  # with a single one the page would stay empty
        "prompt": ", ".join(lanes),
        "node_threshold": 1.0,
        "schema_version": 1,
        "info": {
            "description": description,
            "generator": {"name": "interbasis", "version": version("interbasis")},
        },
    }


def _strongest(graph: InteractionGraph, epsilon: Epsilon, count: int) -> list[tuple[Node, Node, float]]:
    """Return the strongest edges above the cutoff, ties by earlier and then later node."""
    cutoffs = graph.cutoffs(epsilon)
    edges = graph.edge_list
    edges = edges.where(edges.weight > np.array(cutoffs)[edges.pair])
    every = edges.weight
    least = np.partition(every, -count)[-count] if len(every) > count > 0 else 0.0
    found: list[tuple[Node, Node, float]] = []
    edges = edges.where(every >= least)
    for part, (a, b), (earlier, later) in zip(edges.parts(), graph.pairs, graph.pair_slices, strict=True):
        columns = edges.earlier[part] - earlier.start, edges.later[part] - later.start, edges.weight[part]
        found += [((a, i), (b, j), w) for i, j, w in zip(*(column.tolist() for column in columns), strict=True)]
    return sorted(found, key=lambda edge: (-edge[2], edge[:2]))[:count]
