"""The layers of nodes: those that a file names, in order, or the longest path that leads to each node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from ..errors import GraphError
from .tables import Links

__all__ = ["longest_paths", "ordered_layers"]

_SHOWN = 12  # nodes of a cycle that an error names
_FIRST = ("e", "emb", "embed", "embedding", "embeddings", "input", "inputs")
_LAST = ("logit", "logits", "output", "outputs")


def longest_paths(n_nodes: int, links: Links, names: Sequence[str]) -> Int[np.ndarray, " nodes"]:
    """Compute for each node the number of links on the longest path that ends there; 0 where no link ends.

    Args:
        n_nodes: number of nodes.
        links: between them.
        names: of the nodes, for errors.

    Raises:
        GraphError: links form a cycle, whose nodes are named.

    >>> links = Links(np.array([0, 0, 1]), np.array([1, 2, 2]), np.ones(3))
    >>> longest_paths(3, links, "abc").tolist()
    [0, 1, 2]
    """
    order = np.argsort(links.source, kind="stable")
    targets = np.asarray(links.target[order], dtype=np.int64)
    starts = np.searchsorted(links.source[order], np.arange(n_nodes + 1))
    waiting = np.bincount(links.target, minlength=n_nodes)
    layers = np.zeros(n_nodes, dtype=np.int64)
    ready, depth = np.flatnonzero(waiting == 0), 0
    left = n_nodes
    while len(ready):
        layers[ready], left, depth = depth, left - len(ready), depth + 1
        reached = np.concatenate([targets[starts[node] : starts[node + 1]] for node in ready.tolist()])
        touched, times = np.unique(reached, return_counts=True)
        waiting[touched] -= times
        ready = touched[waiting[touched] == 0]
    if left:
        raise GraphError(_cycle(links, waiting > 0, names))
    return layers


def _cycle(links: Links, waiting: np.ndarray, names: Sequence[str]) -> str:
    """Name the nodes of one cycle among nodes that wait for others: each of them has a link from another."""
    inside = waiting[links.source] & waiting[links.target]
    before = dict(zip(links.target[inside].tolist(), links.source[inside].tolist(), strict=True))
    node, path = next(iter(before)), list[int]()
    places: dict[int, int] = {}
    while node not in places:
        places[node] = len(path)
        path.append(node)
        node = before[node]
    cycle = path[places[node] :][::-1]
    shown = [repr(names[i])[:60] for i in (*cycle[:_SHOWN], *cycle[:1])]
    if len(cycle) > _SHOWN:
        shown.insert(_SHOWN, f"{len(cycle) - _SHOWN} more")
    return (
        f"links form a cycle of {len(cycle)} nodes, {' -> '.join(shown)}: expected links from earlier to later nodes "
        "only; leave one of these links out"
    )


def ordered_layers(layers: Sequence[Any], links: Links) -> tuple[Int[np.ndarray, " nodes"], tuple[str, ...]]:
    """Return for each node the number of its layer, and the names of the layers in order.

    Layers that are numbers, as texts too, follow each other by size. "E" (also "embedding", "input") comes before all
    numbers, "logits" (also "output") after them. Other names follow each other as the links between them do; layers
    that no link orders, as they come in the file.

    Raises:
        GraphError: the links between layers with other names form a cycle.
    """
    numbers: dict[Any, int] = {}
    layer: list[int] = []
    for value in layers:
        layer.append(numbers.setdefault(value, len(numbers)))
    found = list(numbers)
    ranks = [_rank(value) for value in found]
    if None in ranks:
        order = _by_links(np.array(layer), found, links)
    else:
        order = sorted(range(len(found)), key=lambda i: ranks[i])  # type: ignore[arg-type, return-value]
    place = np.empty(len(found), dtype=np.int64)
    place[order] = np.arange(len(found))
    return place[np.array(layer, dtype=np.int64)], tuple(_name(found[i]) for i in order)


def _rank(value: Any) -> tuple[int, float] | None:
    if isinstance(value, str) and value.strip().lower() in (*_FIRST, *_LAST):
        return (0 if value.strip().lower() in _FIRST else 2), 0.0
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return (1, number) if np.isfinite(number) else None


def _name(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _by_links(layer: np.ndarray, found: Sequence[Any], links: Links) -> list[int]:
    """Sort layers topologically, ties as they come in the file."""
    import networkx

    graph = networkx.DiGraph()
    graph.add_nodes_from(range(len(found)))
    ends = np.unique(layer[links.source] * len(found) + layer[links.target])
    graph.add_edges_from((a, b) for a, b in (divmod(int(end), len(found)) for end in ends) if a != b)
    try:
        return list(networkx.lexicographical_topological_sort(graph, key=int))
    except networkx.NetworkXUnfeasible:
        around = [str(found[a]) for a, _ in networkx.find_cycle(graph)]
        raise GraphError(
            f"links between the layers {', '.join(around)} go around in a circle: expected links from earlier to later "
            "layers; number the layers, or have them computed by the longest path (longest_path=True)"
        ) from None
