"""From nodes and links of a file to an interaction graph: cuts are layers, a block per pair of layers with links."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse import csr_array

from ..edges import Block, mapped
from ..errors import GraphError
from ..graph.interaction_graph import InteractionGraph
from ..graph.node_table import NodeTable
from .layering import longest_paths, ordered_layers
from .tables import Links, Parts

__all__ = ["assembled", "some_nodes", "without_types"]


def assembled(parts: Parts, *, longest_path: bool = False) -> InteractionGraph:
    """Build the graph of the nodes and links of a file.

    Args:
        parts: what the file says.
        longest_path: compute layers even where the file names them.

    Raises:
        GraphError: no links, a weight that is not finite, two links between one pair of nodes, a cycle, a link that
            does not lead to a later layer.
    """
    nodes, links = parts.nodes, parts.links
    _require_links(links, nodes)
    if parts.layers and not longest_path:
        layer, cuts = ordered_layers(parts.layers, links)
        said = "the file"
    else:
        layer = longest_paths(len(nodes), links, nodes.ids)
        cuts, said = tuple(map(str, range(int(layer.max()) + 1))), "the longest path"
    _require_forward(layer, links, nodes, cuts)
    order = np.argsort(layer, kind="stable")  # nodes by layer, within one as in the file
    widths = np.bincount(layer, minlength=len(cuts))
    first = np.concatenate([[0], np.cumsum(widths)[:-1]])
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - np.repeat(first, widths)
    pairs, weights, zeros = _blocks(layer, place, links, widths)
    ends = np.cumsum([0, *widths])
    tables = [nodes.take(order[a:b].tolist()) for a, b in zip(ends[:-1], ends[1:], strict=True)]
    origin = {**parts.origin, "layers": said, "order": (first[layer] + place).tolist()}
    if zeros:
        origin["zero_links"] = zeros
    return InteractionGraph.from_blocks(
        [mapped(weight, np.abs) for weight in weights],
        cuts,
        strengths="given",
        unit="weight",
        pairs=pairs,
        weights=weights,
        nodes=tables,
        origin=origin,
    )


def _require_links(links: Links, nodes: NodeTable) -> None:
    if not len(links.weight):
        raise GraphError(f"the file has {len(nodes):,} nodes and no links: expected links between nodes of two layers")
    if not np.isfinite(links.weight).all():
        k = int(np.argmax(~np.isfinite(links.weight)))
        raise GraphError(
            f"the link {_named(links, k, nodes)} has the weight {links.weight[k]}: expected a finite number"
        )
    code = links.source.astype(np.int64) * len(nodes) + links.target
    code.sort()
    if (twice := np.flatnonzero(code[1:] == code[:-1])).size:
        a, b = divmod(int(code[twice[0]]), len(nodes))
        raise GraphError(
            f"two links lead from {nodes.ids[a]!r:.80} to {nodes.ids[b]!r:.80}: expected one link for a pair of nodes; "
            "add up their weights"
        )


def _require_forward(layer: np.ndarray, links: Links, nodes: NodeTable, cuts: Sequence[str]) -> None:
    wrong = layer[links.source] >= layer[links.target]
    if wrong.any():
        k = int(np.argmax(wrong))
        a, b = (cuts[layer[side[k]]] for side in (links.source, links.target))
        raise GraphError(
            f"the link {_named(links, k, nodes)} leads from layer {a} to layer {b}, and so do {int(wrong.sum()):,} "
            f"of {len(wrong):,} links to no later layer: expected links to later layers; correct the layers, or have "
            "them computed by the longest path (longest_path=True, --longest-path)"
        )


def _named(links: Links, k: int, nodes: NodeTable) -> str:
    return " -> ".join(f"{nodes.ids[side[k]]!r:.80}" for side in (links.source, links.target))


def _blocks(
    layer: Int[np.ndarray, " nodes"], place: Int[np.ndarray, " nodes"], links: Links, widths: Int[np.ndarray, " cuts"]
) -> tuple[list[tuple[int, int]], list[Block], list[list[Any]]]:
    """Return the pairs of layers with links, their weights, and the links of weight 0, [block, later, earlier, weight].

    A layer without any link is joined to a neighbour by a block of zeros.
    """
    n = len(widths)
    code = layer[links.source] * n + layer[links.target]
    order = np.argsort(code, kind="stable")
    found, starts = np.unique(code[order], return_index=True)
    pairs = [divmod(int(pair), n) for pair in found]
    weights: list[Block] = []
    zeros = []
    for p, ((a, b), chosen) in enumerate(zip(pairs, np.split(order, starts[1:]), strict=True)):
        later, earlier, weight = place[links.target[chosen]], place[links.source[chosen]], links.weight[chosen]
        weights.append(csr_array((weight, (later, earlier)), shape=(widths[b], widths[a])))
        none = np.flatnonzero(weight == 0)
        zeros += [
            [p, *ends] for ends in zip(later[none].tolist(), earlier[none].tolist(), weight[none].tolist(), strict=True)
        ]
    for pair in joining(pairs, n):
        pairs.append(pair)
        weights.append(csr_array((widths[pair[1]], widths[pair[0]])))
    return pairs, weights, zeros


def joining(pairs: Sequence[tuple[int, int]], n_cuts: int) -> list[tuple[int, int]]:
    """Return pairs that join the cuts that are in none to a neighbour."""
    reached = {cut for pair in pairs for cut in pair}
    found = [(cut - 1, cut) if cut else (0, 1) for cut in range(n_cuts) if cut not in reached]
    return list(dict.fromkeys(found))


def without_types(graph: InteractionGraph, types: Sequence[str]) -> InteractionGraph:
    """Leave out the nodes of some types, with their links; cuts without nodes are left out, too.

    Args:
        graph: with names of its nodes.
        types: whole types, or words of them: "error" stands for "mlp reconstruction error".

    Raises:
        GraphError: the graph has no such type, or nothing of it is left.
    """
    if not types:
        return graph
    known = sorted({kind for table in graph.nodes for kind in table.types})
    dropped: set[str] = set()
    for name in types:
        hit = {kind for kind in known if kind == name or set(name.lower().split()) & {*kind.lower().split()}}
        if not hit:
            raise GraphError(
                f"no node is of the type {name!r}: expected one of {', '.join(known) or 'no types at all'}"
            )
        dropped |= hit
    return some_nodes(
        graph, [np.array([kind not in dropped for kind in table.types], dtype=bool) for table in graph.nodes]
    )


def some_nodes(graph: InteractionGraph, keep: Sequence[Bool[np.ndarray, " _"]]) -> InteractionGraph:
    """Return the graph of some nodes, those where the mask of their cut is true; cuts without nodes are left out.

    Raises:
        GraphError: nodes of fewer than two cuts, or no link between them.
    """
    left = [cut for cut, kept in enumerate(keep) if kept.any()]
    if len(left) < 2:
        raise GraphError(f"nodes of {len(left)} layers are left: expected at least two; leave fewer types out")
    place = {cut: i for i, cut in enumerate(left)}
    held = [p for p, (a, b) in enumerate(graph.pairs) if a in place and b in place]
    pairs = [(place[graph.pairs[p][0]], place[graph.pairs[p][1]]) for p in held]
    flat, edges = np.concatenate(keep), graph.edge_list
    if not (flat[edges.earlier] & flat[edges.later]).any():
        raise GraphError("no link is left between nodes of the other types: leave fewer types out")
    more = joining(pairs, len(left))
    widths = [int(keep[cut].sum()) for cut in left]

    def inside(blocks: Sequence[Any], filled: bool) -> list[Any]:
        sides = [(keep[graph.pairs[p][1]], keep[graph.pairs[p][0]]) for p in held]
        chosen = [blocks[p] for p in held] if blocks else []
        found = [
            None if block is None else block[np.ix_(*side)] for block, side in zip(chosen, sides, strict=bool(chosen))
        ]
        added = [np.zeros((widths[b], widths[a])) if filled else None for a, b in more]
        return [*found, *added] if found else []

    return InteractionGraph.from_blocks(
        inside(graph.blocks, True),
        [graph.cuts[cut] for cut in left],
        [graph.importance[cut][keep[cut]] for cut in left],
        strengths=graph.strengths,
        unit=graph.unit,
        basis=graph.basis,
        settings=graph.settings,
        pairs=[*pairs, *more],
        beyond_skip=inside(graph.beyond_skip, False),
        errors=inside(graph.errors, False),
        beyond_errors=inside(graph.beyond_errors, False),
        weights=inside(graph.weights, True),
        nodes=[graph.nodes[cut].take(np.flatnonzero(keep[cut]).tolist()) for cut in left if graph.nodes],
        origin=_kept_origin(graph, keep, held),
    )


def _kept_origin(graph: InteractionGraph, keep: Sequence[np.ndarray], held: Sequence[int]) -> dict[str, Any]:
    """Number the nodes and blocks anew in what the origin says of their order and of links of weight 0."""
    origin = dict(graph.origin)
    flat = np.concatenate(keep)
    number = np.cumsum(flat) - 1
    if "order" in origin:
        origin["order"] = [int(number[i]) for i in origin["order"] if flat[i]]
    if "zero_links" in origin:
        block, within = {p: i for i, p in enumerate(held)}, [np.cumsum(kept) - 1 for kept in keep]
        ends = [(p, graph.pairs[p], j, i, w) for p, j, i, w in origin["zero_links"] if p in block]
        origin["zero_links"] = [
            [block[p], int(within[b][j]), int(within[a][i]), w]
            for p, (a, b), j, i, w in ends
            if keep[b][j] and keep[a][i]
        ]
    return origin
