"""The strongest nodes of each module, with what a file says of them and their strongest edges with their signs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array

from ..errors import GraphError
from ..graph.interaction_graph import InteractionGraph

__all__ = ["NamedEdge", "NamedNode", "strongest_nodes"]


@dataclass(frozen=True)
class NamedEdge:
    """An edge of a node.

    Attributes:
        node, title: the node at its other end, as "cut/coordinate" and by label or id.
        weight: its strength, with the sign of its weight.
    """

    node: str
    title: str
    weight: float


@dataclass(frozen=True)
class NamedNode:
    """A node as its file describes it, with its strongest edges.

    Attributes:
        module: number of its module, -1 for none.
        node: its name, "cut/coordinate".
        id, type, position, label: see `NodeTable`.
        strength: sum of |w| over its edges.
        inputs, outputs: the strongest edges from earlier and to later nodes.
    """

    module: int
    node: str
    id: str
    type: str
    position: int | None
    label: str | None
    strength: float
    inputs: tuple[NamedEdge, ...]
    outputs: tuple[NamedEdge, ...]


def strongest_nodes(
    graph: InteractionGraph,
    labels: Sequence[Int[np.ndarray, " _"]] = (),
    *,
    epsilon: float | Sequence[float] = 0.0,
    most: int = 5,
    edges: int = 3,
) -> list[NamedNode]:
    """Return the nodes of each module with the largest total strength sum |w|, module by module, those in none last.

    Args:
        graph: a graph whose nodes have names, as of `read_graph`.
        labels: per cut the module of each node, -1 for none; by default all nodes are one group, -1.
        epsilon: loss scale, one or one per pair of cuts: edges with |w| up to its square root do not count.
        most: number of nodes of each module.
        edges: number of edges of each node, to either side.

    Raises:
        GraphError: the nodes have no names, or the labels are of another graph.

    >>> from interbasis.analysis.graph.node_table import NodeTable
    >>> nodes = [NodeTable.from_rows([{"id": "x"}, {"id": "y"}]), NodeTable.from_rows([{"id": "z", "label": "sum"}])]
    >>> w = np.array([[1.0, -2.0]])
    >>> graph = InteractionGraph.from_blocks([abs(w)], nodes=nodes, weights=[w], unit="weight")
    >>> z, y = strongest_nodes(graph, most=2)
    >>> (z.node, z.label, z.strength, z.inputs[0].title, z.inputs[0].weight)
    ('1/0', 'sum', 3.0, 'y', -2.0)
    """
    if not graph.nodes:
        raise GraphError("the nodes of the graph have no names: expected a graph that was read from a file")
    if labels and tuple(map(len, labels)) != graph.widths:
        raise GraphError(f"labels of {tuple(map(len, labels))} nodes were given: the graph has {graph.widths}")
    modules = np.concatenate(labels) if labels else np.full(graph.n_nodes, -1)
    earlier, later, strength, weight = _edges(graph, epsilon)
    total = np.bincount(earlier, strength, graph.n_nodes) + np.bincount(later, strength, graph.n_nodes)
    names = [f"{cut}/{i}" for cut, width in zip(graph.cuts, graph.widths, strict=True) for i in range(width)]
    titles = [title for table in graph.nodes for title in table.titles]
    rows = [table.row(i) for table in graph.nodes for i in range(len(table))]

    def strongest(of: Int[np.ndarray, " n"], other: Int[np.ndarray, " n"], v: int) -> tuple[NamedEdge, ...]:
        (found,) = np.nonzero(of == v)
        chosen = found[np.argsort(-strength[found], kind="stable")[:edges]]
        return tuple(NamedEdge(names[other[e]], titles[other[e]], float(weight[e])) for e in chosen)

    nodes = []
    for module in sorted(set(modules.tolist()), key=lambda m: (m < 0, m)):
        (members,) = np.nonzero((modules == module) & (total > 0))
        for v in members[np.argsort(-total[members], kind="stable")[:most]].tolist():
            about = {name: rows[v][name] for name in ("id", "type", "position", "label")}
            about |= {"inputs": strongest(later, earlier, v), "outputs": strongest(earlier, later, v)}
            nodes.append(NamedNode(module=module, node=names[v], strength=float(total[v]), **about))
    return nodes


def _edges(graph: InteractionGraph, epsilon: float | Sequence[float]) -> tuple[np.ndarray, ...]:
    """Return earlier node, later node, strength and signed strength of each edge; nodes are counted over all cuts."""
    parts = []
    signed = graph.weights or (None,) * len(graph.blocks)
    slices = zip(graph.pair_slices, graph.blocks, signed, graph.cutoffs(epsilon), strict=True)
    for (a, b), block, signs, cutoff in slices:
        entries = coo_array(block)
        kept = entries.data > cutoff
        j, i, w = entries.row[kept], entries.col[kept], entries.data[kept]
        sign = w if signs is None or not len(j) else np.asarray(signs[j, i]).ravel()
        parts.append((i + a.start, j + b.start, w, np.copysign(w, sign)))
    return tuple(map(np.concatenate, zip(*parts, strict=True)))
