"""Influence on the outputs through all paths of an attribution graph, and what it is used for.

A weight becomes a share of its target's input, a_ji = |w_ji| / sum_i |w_ji| (i runs over all earlier nodes). With p the
weights of the outputs (their probabilities, where the file has them) the influence of all nodes is

    b = p (I - A)^-1 - p,

since the graph has no cycle a sum over all paths to the outputs, and that of an edge is a_ji (b_j + p_j). From them

    replacement    b of embeddings / b of embeddings and errors: the share of what reaches the outputs that starts at
                   tokens, not at reconstruction errors
    completeness   sum_j (b_j + p_j) (1 - sum of a_ji over errors i) / sum_j (b_j + p_j): the share of inputs that are
                   no errors, weighed by influence

as circuit-tracer defines them (https://github.com/decoderesearch/circuit-tracer, `graph.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

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
        shares: for each pair of cuts a_ji, (later, earlier).
    """

    nodes: tuple[Float[np.ndarray, " _"], ...]
    outputs: tuple[Float[np.ndarray, " _"], ...]
    shares: tuple[Float[np.ndarray, "_ _"], ...]

    def edges(self, graph: InteractionGraph) -> list[Float[np.ndarray, "_ _"]]:
        """Return the influence of the edges of each pair of cuts, (later, earlier)."""
        whole = [b + p for b, p in zip(self.nodes, self.outputs, strict=True)]
        return [a * whole[later][:, None] for a, (_, later) in zip(self.shares, graph.pairs, strict=True)]


@dataclass(frozen=True)
class PathScores:
    """How much of what reaches the outputs starts at tokens, see the head of this module; None where it has no meaning.

    Attributes:
        replacement: None in a graph without embeddings, or without influence of embeddings and errors.
        completeness: None in a graph without inputs.
    """

    replacement: float | None
    completeness: float | None


def as_shares(graph: InteractionGraph) -> InteractionGraph:
    """Return the graph with strengths a_ji, the share of each weight in its target's input; signs stay.

    >>> graph = InteractionGraph.from_blocks([[[3.0, 1.0]]], unit="weight")
    >>> as_shares(graph).blocks[0].tolist()
    [[0.75, 0.25]]
    """
    return replace(graph, blocks=tuple(_shares(graph)), unit="share", errors=(), beyond_skip=(), beyond_errors=())


def influence(graph: InteractionGraph) -> Influence:
    """Compute the influence of all nodes and edges on the outputs.

    Outputs are the nodes of type "logit" with their `token_prob`, or where there are none those of the last cut.

    >>> graph = InteractionGraph.from_blocks([[[1.0], [1.0]], [[3.0, 1.0]]], unit="weight")
    >>> [b.tolist() for b in influence(graph).nodes]
    [[1.0], [0.75, 0.25], [0.0]]
    """
    shares, outputs = _shares(graph), _outputs(graph)
    return Influence(_through(graph, shares, outputs), outputs, tuple(shares))


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
    found = influence(graph)
    fixed = [_typed(graph, cut, "embedding") | (p > 0) for cut, p in enumerate(found.outputs)]
    least = _least(np.concatenate(found.nodes), share)
    left = [np.asarray((b >= least) & (b > 0) | own) for b, own in zip(found.nodes, fixed, strict=True)]
    blocks = [np.where(left[b][:, None] & left[a], w, 0.0) for (a, b), w in zip(graph.pairs, graph.blocks, strict=True)]
    found = influence(replace(graph, blocks=tuple(blocks)))
    edges = found.edges(graph)
    least = _least(np.concatenate([e.ravel() for e in edges]), share)
    blocks = [np.where((e >= least) & (e > 0), w, 0.0) for e, w in zip(edges, blocks, strict=True)]
    roots = [_typed(graph, cut, "embedding") | _typed(graph, cut, "error") for cut in range(len(graph.cuts))]
    return _without_dead_ends(graph, blocks, found.outputs, roots)


def path_scores(graph: InteractionGraph, labels: Sequence[Any] | None = None, module: int | None = None) -> PathScores:
    """Compute replacement and completeness of a graph, or of one module kept alone.

    A module alone: features of other modules count as errors, and what they read does not count.

    Args:
        graph: with node types, see `InteractionGraph.nodes`.
        labels: one int array per cut.
        module: the module that is kept.
    """
    shares, outputs = _shares(graph), _outputs(graph)
    embedded = [_typed(graph, cut, "embedding") for cut in range(len(graph.cuts))]
    error = [_typed(graph, cut, "error") for cut in range(len(graph.cuts))]
    if labels is not None:
        for cut, (own, p) in enumerate(zip(labels, outputs, strict=True)):
            left_out = (np.asarray(own) != module) & ~embedded[cut] & ~(p > 0)
            error[cut] = error[cut] | left_out
        shares = [a * ~error[b][:, None] for a, (_, b) in zip(shares, graph.pairs, strict=True)]
    nodes = _through(graph, shares, outputs)
    tokens = sum(float(b[own].sum()) for b, own in zip(nodes, embedded, strict=True))
    errors = sum(float(b[own].sum()) for b, own in zip(nodes, error, strict=True))
    wrong, inputs = ([np.zeros(k) for k in graph.widths] for _ in range(2))
    for a, (earlier, later) in zip(shares, graph.pairs, strict=True):
        wrong[later] += a @ error[earlier].astype(np.float64)
        inputs[later] += a.sum(1)
    weight = [(b + p) * (own > 0) for b, p, own in zip(nodes, outputs, inputs, strict=True)]
    whole = sum(float(w.sum()) for w in weight)
    right = sum(float((w * (1 - own)).sum()) for w, own in zip(weight, wrong, strict=True))
    return PathScores(tokens / (tokens + errors) if tokens + errors > 0 else None, right / whole if whole > 0 else None)


def _shares(graph: InteractionGraph) -> list[np.ndarray]:
    into = [np.zeros(k) for k in graph.widths]
    for w, (_, b) in zip(graph.blocks, graph.pairs, strict=True):
        into[b] += w.sum(1)
    factor = [np.divide(1.0, total, out=np.zeros_like(total), where=total > 0) for total in into]
    return [w * factor[b][:, None] for w, (_, b) in zip(graph.blocks, graph.pairs, strict=True)]


def _outputs(graph: InteractionGraph) -> tuple[np.ndarray, ...]:
    found = [_typed(graph, cut, "logit").astype(np.float64) for cut in range(len(graph.cuts))]
    if not any(own.any() for own in found):
        found[-1] = np.ones(graph.widths[-1])
    elif graph.nodes:
        given = [[row.get("token_prob") for row in table.attributes] for table in graph.nodes]
        known = [np.array([v if isinstance(v, int | float) else 0.0 for v in row], dtype=np.float64) for row in given]
        weighed = [np.maximum(v, 0.0) * own for v, own in zip(known, found, strict=True)]
        found = weighed if sum(float(v.sum()) for v in weighed) > 0 else found
    total = sum(float(own.sum()) for own in found)
    return tuple(own / total for own in found)


def _through(graph: InteractionGraph, shares: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> Any:
    """Sum over all paths to the outputs, from the last cut back."""
    found = [np.zeros(k) for k in graph.widths]
    for k in sorted(range(len(shares)), key=lambda k: -graph.pairs[k][1]):
        a, b = graph.pairs[k]
        found[a] += (found[b] + outputs[b]) @ shares[k]
    return tuple(found)


def _typed(graph: InteractionGraph, cut: int, kind: str) -> np.ndarray:
    """Return which nodes of a cut have a type; "mlp reconstruction error" is an error."""
    if not graph.nodes:
        return np.zeros(graph.widths[cut], dtype=bool)
    return np.array([kind in name.split() for name in graph.nodes[cut].types], dtype=bool)


def _least(values: np.ndarray, share: float) -> float:
    """Return the smallest of the largest values that together have a share of the sum."""
    ordered = np.sort(values)[::-1]
    total = np.cumsum(ordered)
    return float(ordered[min(int(np.searchsorted(total, share * total[-1])), len(ordered) - 1)])


def _without_dead_ends(
    graph: InteractionGraph, blocks: Sequence[np.ndarray], outputs: Sequence[np.ndarray], roots: Sequence[np.ndarray]
) -> InteractionGraph:
    """Take out, again and again, nodes without an edge to a later one, or from an earlier one, and their edges."""
    blocks = list(blocks)
    while True:
        sends, receives = ([np.zeros(k, dtype=bool) for k in graph.widths] for _ in range(2))
        for w, (a, b) in zip(blocks, graph.pairs, strict=True):
            sends[a] |= (w > 0).any(0)
            receives[b] |= (w > 0).any(1)
        first = not any(own.any() for own in roots)
        alive = []
        for cut, p in enumerate(outputs):
            fed = receives[cut] | roots[cut] | (first & (cut == 0))
            alive.append((sends[cut] | (p > 0)) & fed)
        new = [np.where(alive[b][:, None] & alive[a], w, 0.0) for (a, b), w in zip(graph.pairs, blocks, strict=True)]
        if all(np.array_equal(x, w) for x, w in zip(new, blocks, strict=True)):
            break
        blocks = new
    if not any(w.any() for w in blocks):
        raise GraphError("no edge is left that carries influence on the outputs: keep a larger share")
    weights = [None if s is None else np.where(w > 0, s, 0.0) for s, w in zip(graph.weights, blocks, strict=False)]
    kept = [sends[cut] | receives[cut] for cut in range(len(graph.cuts))]
    return some_nodes(replace(graph, blocks=tuple(blocks), weights=tuple(weights)), kept)
