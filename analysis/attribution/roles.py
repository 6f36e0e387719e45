"""Roles: nodes with the same inputs and the same outputs, whether or not they interact with each other.

Modules are nodes that interact; roles are nodes that could stand in for each other. The profile of a node holds its
signed weights from all earlier and to all later nodes, and the similarity of two nodes is the cosine of their profiles.
Complete linkage joins nodes to groups. The number of groups is that of the gap statistic (Tibshirani, Walther & Hastie
2001) without its logarithm, which has no bound as groups become single nodes (Mohajer, Englmeier & Schmid 2011): with
D_r the sum of 1 - cosine over all ordered pairs of nodes of group r, and n_r its size, the k with the largest

    gap(k) = E[W_k of null graphs] - W_k,      W_k = sum_r D_r / (2 n_r).

Null graphs keep the totals of every node and the number of its edges (`graph.null_costs`); signs are permuted within
each pair of cuts. The largest gap over all k is tested against those of the null graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from ..edges import Edges
from ..errors import GraphError
from ..graph.expectation import Places, places_of
from ..graph.interaction_graph import InteractionGraph
from ..graph.null_graphs import null_costs
from ..progress import ProgressCallback, report
from ..results import by_value

__all__ = ["Roles", "find_roles"]

_MOST = 64  # groups

_LEAST_NULLS = 19

_LARGEST = 8000  # nodes whose similarities are kept in memory


@by_value
@dataclass(frozen=True)
class Roles:
    """Groups of nodes with the same inputs and outputs.

    Attributes:
        labels: per cut the role of each node, the largest role 0; -1 for nodes without an edge.
        n_roles: number of roles.
        gaps: gap(k) for k = 1, 2, ...
        gap_errors: standard deviation of W_k over B null graphs, times sqrt(1 + 1 / B).
        p_value: of the largest gap against null graphs, or where k was given of gap(k).
        similarity: mean cosine of two nodes of one role; NaN where every role has one node.
        verdict, reason: whether roles are told apart from chance, and why.
    """

    labels: tuple[Int[np.ndarray, " _"], ...]
    n_roles: int
    gaps: Float[np.ndarray, " k"]
    gap_errors: Float[np.ndarray, " k"]
    p_value: float
    similarity: float
    verdict: str
    reason: str

    def __repr__(self) -> str:
        """Describe the number and the sizes of the roles, and the verdict."""
        flat = np.concatenate(self.labels)
        sizes = np.bincount(flat[flat >= 0])
        shown = ", ".join(map(str, sizes[:12].tolist())) + (", ..." if len(sizes) > 12 else "")
        count = f"{self.n_roles} role{'' if self.n_roles == 1 else 's'}"
        return f"Roles: {count} of {shown} nodes, mean cosine {self.similarity:.2f}\n{self.verdict}: {self.reason}"


def find_roles(
    graph: InteractionGraph, *, k: int | None = None, n_null: int = 20, seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Roles:  # fmt: skip
    """Group the nodes of a graph by their signed profiles, see the head of this module.

    Args:
        graph: with signed `weights`; strengths count where a graph has no signs.
        k: number of roles; by default that of the gap statistic.
        n_null: null graphs, at least 19.
        seed: of the null graphs.
        progress: called per graph, the null graphs included.

    Raises:
        GraphError: fewer than three or too many nodes with an edge, or numbers that make no sense.
    """
    signed = graph.weights or (None,) * len(graph.blocks)
    matrices = [w if s is None else s for w, s in zip(graph.blocks, signed, strict=True)]
    edges = Edges.of(matrices, graph.pair_slices)
    edges = replace(edges, weight=edges.weight / np.abs(edges.weight).max(initial=1e-300))
    joined = np.bincount(np.concatenate([edges.earlier, edges.later]), minlength=graph.n_nodes) > 0
    n = int(joined.sum())
    if not 3 <= n <= _LARGEST:
        hint = ": keep those that carry influence, see `kept_by_influence`" if n > _LARGEST else ""
        raise GraphError(f"the graph has {n:,} nodes with an edge: expected 3 to {_LARGEST:,}{hint}")
    if not isinstance(n_null, int | np.integer) or n_null < _LEAST_NULLS:
        raise GraphError(f"n_null is {n_null}: expected at least {_LEAST_NULLS}, for a p-value of .05")
    if k is not None and not (isinstance(k, int | np.integer) and 1 <= k <= n):
        raise GraphError(f"k is {k}: expected 1 to {n}, the number of nodes with an edge")
    most = min(_MOST if k is None else max(k, _MOST), n - 1)
    generator = np.random.default_rng(seed)
    places = places_of(graph)
    dispersions = np.empty((1 + n_null, most))
    for b in report(range(1 + n_null), "roles", progress):
        drawn = _drawn(edges, places, generator) if b else edges
        tree, similar = _tree(drawn, joined)
        cuts = _cuts(tree, most, n)
        dispersions[b] = [_dispersion(similar, labels) for labels in cuts]
        if not b:
            kept, real = cuts, similar
    return _chosen(graph, dispersions, kept, real, joined, k)


def _chosen(
    graph: InteractionGraph,
    dispersions: Float[np.ndarray, "graphs k"],
    groups: Sequence[np.ndarray],
    similar: Float[np.ndarray, "n n"],
    joined: np.ndarray,
    k: int | None,
) -> Roles:
    nulls = dispersions[1:]
    count = len(nulls)
    gaps = nulls.mean(0) - dispersions[0]
    errors = nulls.std(0) * np.sqrt(1 + 1 / count)
    chosen = k if k is not None else int(gaps.argmax()) + 1
    # where the number is given its own gap is tested, else the largest of all
    tested = slice(None) if k is None else slice(k - 1, k)
    gap = float(gaps[tested].max(initial=-np.inf))
    reached = [(np.delete(nulls, b, 0).mean(0) - nulls[b])[tested].max(initial=-np.inf) >= gap for b in range(count)]
    p_value = (1 + sum(reached)) / (1 + count)
    supported = p_value <= 0.05 and chosen > 1
    if k is None and not supported:
        chosen = 1
    labels = _by_size(groups[chosen - 1] if chosen <= len(groups) else np.arange(len(similar)))
    full = np.full(len(joined), -1, dtype=np.int64)
    full[joined] = labels
    same = labels[:, None] == labels
    np.fill_diagonal(same, False)
    within = float(similar[same].mean()) if same.any() else float("nan")
    against = f"(gap {gap:.2f}, p {p_value:.2g})"
    reason = f"profiles are {'more alike than in all null graphs' if supported else 'no more alike than by chance'}"
    return Roles(
        labels=tuple(full[nodes] for nodes in graph.cut_slices),
        n_roles=int(labels.max()) + 1,
        gaps=gaps,
        gap_errors=errors,
        p_value=float(p_value),
        similarity=within,
        verdict="supported" if supported else "not told apart from chance" if chosen > 1 else "one role",
        reason=f"{reason} {against}",
    )


def _drawn(edges: Edges, places: Places, generator: np.random.Generator) -> Edges:
    """Draw a null graph, with the signs of the graph permuted within each pair of cuts."""
    absolute = null_costs(replace(edges, weight=np.abs(edges.weight)), places, generator=generator)
    signs = [generator.permutation(np.sign(edges.weight[part])) for part in edges.parts()]
    return replace(absolute, weight=absolute.weight * np.concatenate(signs))


def _tree(edges: Edges, joined: Bool[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
    """Join nodes by complete linkage; return the merges, and the cosines of profiles."""
    from scipy.cluster.hierarchy import linkage
    from scipy.sparse import coo_array

    n = len(joined)
    rows, columns = np.concatenate([edges.later, edges.earlier]), np.concatenate([edges.earlier, edges.later + n])
    values = np.concatenate([edges.weight, edges.weight])
    profile = coo_array((values, (rows, columns)), (n, 2 * n)).tocsr()[joined]
    length = np.sqrt(np.asarray(profile.multiply(profile).sum(1)).ravel())
    similar = np.asarray((profile @ profile.T).toarray()) / np.outer(length, length)
    distance = np.clip(1.0 - similar, 0.0, 2.0)[np.triu_indices(len(similar), 1)]
    return linkage(distance, "complete"), similar


def _cuts(tree: np.ndarray, most: int, n: int) -> list[np.ndarray]:
    """Return the labels of 1, 2, ... groups."""
    from scipy.cluster.hierarchy import cut_tree

    return list(cut_tree(tree, np.arange(1, most + 1)).T)


def _dispersion(similar: np.ndarray, labels: np.ndarray) -> float:
    """Compute W_k = sum_r (n_r - sum of cosines of group r / n_r) / 2."""
    members = np.eye(int(labels.max()) + 1)[labels]
    inner = np.einsum("ir,ir->r", similar @ members, members)
    sizes = members.sum(0)
    return float((sizes - inner / sizes).sum() / 2)


def _by_size(labels: np.ndarray) -> np.ndarray:
    """Number groups by size, then by their first node."""
    _, first, again, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))
    return np.asarray(number[again])
