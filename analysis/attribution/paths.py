"""Influence on the outputs through all paths of an attribution graph, and what it is used for.

A weight becomes a share of its target's input, a_ji = |w_ji| / sum_i |w_ji| (i runs over all earlier nodes). With p the
weights of the outputs (their probabilities, where the file has them) the influence of all nodes is

    b = p (I - A)^-1 - p,

since the graph has no cycle a sum over all paths to the outputs, and that of an edge is a_ji (b_j + p_j). From them

    replacement    b of embeddings / b of embeddings and errors: the share of what reaches the outputs that starts at
                   tokens, not at reconstruction errors
    completeness   sum_j (b_j + p_j) (1 - sum of a_ji over errors i) / sum_j (b_j + p_j): the share of inputs that are
                   no errors, weighed by influence, over all nodes; one without inputs has no errors among them

as circuit-tracer defines them (https://github.com/decoderesearch/circuit-tracer, `graph.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse import csr_array

from ..edges import Edges, entries, stored, summed, values_at
from ..errors import GraphError
from ..graph.interaction_graph import InteractionGraph
from ..reading.assembling import some_nodes
from ..results import by_value

__all__ = ["Influence", "PathScores", "as_shares", "influence", "kept_by_influence", "path_scores"]


@by_value
@dataclass(frozen=True)
class Influence:
    """Influence on the outputs.

    Attributes:
        nodes: per cut b (k,), of outputs 0 where they feed no other output.
        outputs: per cut p (k,), 0 for nodes that are no outputs; their sum is 1.
        shares: a_ji of all edges.
    """

    nodes: tuple[Float[np.ndarray, " _"], ...]
    outputs: tuple[Float[np.ndarray, " _"], ...]
    shares: Edges

    @property
    def edges(self) -> Float[np.ndarray, " edges"]:
        """The influence of each edge of `shares`."""
        whole = np.concatenate(self.nodes) + np.concatenate(self.outputs)
        return np.asarray(self.shares.weight * whole[self.shares.later])


@dataclass(frozen=True)
class PathScores:
    """How much of what reaches the outputs starts at tokens, see the head of this module; None where it has no meaning.

    Attributes:
        replacement: None in a graph without embeddings, or without influence of embeddings and errors.
    """

    replacement: float | None
    completeness: float


def as_shares(graph: InteractionGraph) -> InteractionGraph:
    """Return the graph with strengths a_ji, the share of each weight in its target's input; signs stay.

    >>> graph = InteractionGraph.from_blocks([[[3.0, 1.0]]], unit="weight")
    >>> as_shares(graph).blocks[0].tolist()
    [[0.75, 0.25]]
    """
    blocks = tuple(_shares(graph.edge_list).blocks(graph.pair_slices))
    return replace(graph, blocks=blocks, unit="share", errors=(), beyond_skip=(), beyond_errors=())


def influence(graph: InteractionGraph) -> Influence:
    """Compute the influence of all nodes and edges on the outputs.

    Outputs are the nodes of type "logit" with their `token_prob`, or where there are none those of the last cut.

    >>> graph = InteractionGraph.from_blocks([[[1.0], [1.0]], [[3.0, 1.0]]], unit="weight")
    >>> [b.tolist() for b in influence(graph).nodes]
    [[1.0], [0.75, 0.25], [0.0]]
    """
    return _influence(graph, graph.edge_list)


def _influence(graph: InteractionGraph, edges: Edges) -> Influence:
    shares, outputs = _shares(edges), _outputs(graph)
    return Influence(_per_cut(graph, _through(graph, shares, np.concatenate(outputs))), outputs, shares)


def _per_cut(graph: InteractionGraph, values: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(values[nodes] for nodes in graph.cut_slices)


def kept_by_influence(graph: InteractionGraph, share: float) -> InteractionGraph:
    """Return the nodes, and then the edges between them, that together carry a share of the influence on the outputs.

    As circuit-tracer prunes: the nodes of largest influence until they have the share of all of it, embeddings and
    outputs in any case; then, shares computed anew, the edges of largest influence until they have the share. Nodes
    that are left without an edge to a later one, or from an earlier one though they are no embedding or error, go, too.

    Raises:
        GraphError: a share outside (0, 1], or nothing is left.
    """
    if not 0 < share <= 1:
        raise GraphError(f"the kept share of influence is {share}: expected a number above 0, at most 1")
    if share == 1:
        return graph
    found, edges = influence(graph), graph.edge_list
    embedding, b = _typed(graph, "embedding"), np.concatenate(found.nodes)
    outputs = np.concatenate(found.outputs) > 0
    left = (b >= _least(b, share)) & (b > 0) | embedding | outputs
    edges = edges.where(left[edges.earlier] & left[edges.later])
    carried = _influence(graph, edges).edges
    edges = edges.where((carried >= _least(carried, share)) & (carried > 0))
    return _without_dead_ends(graph, edges, outputs, embedding | _typed(graph, "error"))


def path_scores(graph: InteractionGraph, labels: Sequence[Any] | None = None, module: int | None = None) -> PathScores:
    """Compute replacement and completeness of a graph, or of one module kept alone.

    A module alone: features of other modules count as errors, and what they read does not count.

    Args:
        graph: with node types, see `InteractionGraph.nodes`.
        labels: one int array per cut.
        module: the module that is kept.

    Raises:
        GraphError: labels that are not one integer per node, or no node has the label of the module.
    """
    shares, outputs = _shares(graph.edge_list), np.concatenate(_outputs(graph))
    embedded, error = _typed(graph, "embedding"), _typed(graph, "error")
    if labels is not None:
        flat = _flat(graph, labels, module)
        error = error | (flat != module) & ~embedded & ~(outputs > 0)
        shares = shares.where(~error[shares.later])
    b = _through(graph, shares, outputs)
    tokens, errors = float(b[embedded].sum()), float(b[error].sum())
    wrong = shares.where(error[shares.earlier]).totals(graph.n_nodes)[1]
    weight = b + outputs
    right = float((weight * (1 - wrong)).sum()) / float(weight.sum())
    return PathScores(tokens / (tokens + errors) if tokens + errors > 0 else None, right)


def _flat(graph: InteractionGraph, labels: Sequence[Any], module: int | None) -> np.ndarray:
    arrays = [np.asarray(own) for own in labels]
    if [own.shape for own in arrays] != [(k,) for k in graph.widths]:
        raise GraphError(
            f"labels have shapes {[own.shape for own in arrays]}: expected one array per cut, of {list(graph.widths)}"
        )
    flat = np.concatenate(arrays)
    if module is None or not (flat == module).any():
        raise GraphError(f"no node has the label {module!r}: expected a module of {np.unique(flat).tolist()[:20]}")
    return flat


def _shares(edges: Edges) -> Edges:
    """Divide strengths by the totals into their later nodes."""
    into = summed(edges.later, edges.weight, 0)
    return replace(edges, weight=edges.weight / into[edges.later])


def _outputs(graph: InteractionGraph) -> tuple[np.ndarray, ...]:
    """Return per cut the weights of the outputs; their sum is 1."""
    logits = _typed(graph, "logit").astype(np.float64)
    if not logits.any():
        logits[graph.cut_slices[-1]] = 1.0
    elif graph.nodes:
        given = [row.get("token_prob") for table in graph.nodes for row in table.attributes]
        known = np.array([v if isinstance(v, int | float) and np.isfinite(v) else 0.0 for v in given], dtype=np.float64)
        weighed = np.maximum(known, 0.0) * logits
        logits = weighed if weighed.sum() > 0 else logits
    return _per_cut(graph, logits / logits.sum())


def _through(graph: InteractionGraph, shares: Edges, outputs: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Sum over all paths to the outputs, from the last cut back."""
    found = np.zeros(graph.n_nodes)
    parts = list(shares.parts())
    for k in sorted(range(len(parts)), key=lambda k: -graph.pairs[k][1]):
        later, earlier = shares.later[parts[k]], graph.pair_slices[k][0]
        carried = (found[later] + outputs[later]) * shares.weight[parts[k]]
        width = earlier.stop - earlier.start
        found[earlier] += summed(shares.earlier[parts[k]] - earlier.start, carried, width)
    return found


def _typed(graph: InteractionGraph, kind: str) -> Bool[np.ndarray, " n"]:
    """Return which nodes have a type; "mlp reconstruction error" is an error."""
    if not graph.nodes:
        return np.zeros(graph.n_nodes, dtype=bool)
    return np.array([kind in name.split() for table in graph.nodes for name in table.types], dtype=bool)


def _least(values: np.ndarray, share: float) -> float:
    """Return the smallest of the largest values that together have a share of the sum."""
    ordered = np.sort(values)[::-1]
    total = np.cumsum(ordered)
    return float(ordered[min(int(np.searchsorted(total, share * total[-1])), len(ordered) - 1)])


def _without_dead_ends(
    graph: InteractionGraph, edges: Edges, outputs: Bool[np.ndarray, " n"], roots: Bool[np.ndarray, " n"]
) -> InteractionGraph:
    """Take out, again and again, nodes without an edge to a later one, or from an earlier one, and their edges."""
    if not roots.any():
        roots = np.arange(graph.n_nodes) < graph.widths[0]
    while True:
        sends, receives = (np.bincount(ends, minlength=len(roots)) > 0 for ends in (edges.earlier, edges.later))
        alive = (sends | outputs) & (receives | roots)
        left = alive[edges.earlier] & alive[edges.later]
        if left.all():
            break
        edges = edges.where(left)
    if not len(edges):
        raise GraphError("no edge is left that carries influence on the outputs: keep a larger share")
    pairs = graph.pair_slices
    blocks = edges.blocks(pairs)
    signed = [
        None if s is None else csr_array((values_at(s, *ends), ends), shape=w.shape)
        for s, w, ends in zip(graph.weights, blocks, (entries(w)[:2] for w in blocks), strict=bool(graph.weights))
    ]
    weights = tuple(None if s is None else stored(s) for s in signed)
    left = replace(graph, blocks=tuple(blocks), weights=weights, beyond_skip=(), errors=(), beyond_errors=())
    return some_nodes(left, list(_per_cut(graph, sends | receives)))
