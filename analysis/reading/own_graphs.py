"""What our own exports say beside nodes and edges, so that reading them gives the same graph again.

The graph has the attribute `interbasis`, JSON of cuts, pairs and settings; a node of a graph made elsewhere has the
attribute `interbasis`, JSON of its row of the table of nodes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from ..errors import GraphError
from ..graph.interaction_graph import InteractionGraph
from ..graph.node_table import NodeTable
from .tables import Links

__all__ = ["KEY", "own_graph", "whole_graph_said"]

KEY = "interbasis"

"""Attribute of a graph and of its nodes."""

_SAID = ("cuts", "widths", "strengths", "basis", "settings", "pairs", "origin", "unit")


def whole_graph_said(graph: InteractionGraph) -> str:
    """Write what concerns the whole graph as JSON."""
    known = {name: getattr(graph, name) for name in _SAID}
    return json.dumps({**known, "weights": [block is not None for block in graph.weights]})


def own_graph(
    said: str, names: Sequence[Any], attributes: Sequence[Mapping[str, Any]], links: Callable[[str], Links]
) -> InteractionGraph:
    """Rebuild a graph from one of our exports; strengths beyond skip paths and standard errors are not in them.

    Args:
        said: what the file says of the whole graph.
        names: of the nodes.
        attributes: of the nodes.
        links: returns the links with their "strength" or "weight".

    Raises:
        GraphError: the file was changed, so that its parts do not fit together.
    """
    try:
        return _rebuilt(json.loads(said), names, attributes, links)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise GraphError(
            f"the file was exported by interbasis and changed since ({type(error).__name__}: {error}): export it "
            f"again, or take the attribute {KEY!r} of the graph out"
        ) from error


def _rebuilt(
    said: Mapping[str, Any],
    names: Sequence[Any],
    attributes: Sequence[Mapping[str, Any]],
    links: Callable[[str], Links],
) -> InteractionGraph:
    cuts, widths, pairs = said["cuts"], said["widths"], [(a, b) for a, b in said["pairs"]]
    if any(type(width) is not int or width < 0 for width in widths) or sum(widths) != len(names):
        raise GraphError(f"the file has {len(names)} nodes: expected cuts of as many, not {str(widths)[:200]}")
    if len(set(pairs)) < len(pairs):
        raise GraphError("the file names two cuts twice as a pair: expected different pairs")
    expected = [f"{cut}/{i}" for cut, width in zip(cuts, widths, strict=True) for i in range(width)]
    place = {name: k for k, name in enumerate(names)}
    order = [place[name] for name in expected]
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))
    ends = np.cumsum([0, *widths])
    importance = np.array([attributes[k]["importance"] for k in order], dtype=np.float64)
    tables: list[Any] = [json.loads(attributes[k][KEY]) if KEY in attributes[k] else None for k in order]
    nodes = [NodeTable.from_rows(tables[a:b]) for a, b in zip(ends[:-1], ends[1:], strict=True)] if all(tables) else []
    blocks = _filled(links("strength"), number, ends, pairs)
    signed = said["weights"]
    weights = _filled(links("weight"), number, ends, pairs) if any(signed) else []
    return InteractionGraph.from_blocks(
        blocks,
        cuts,
        np.split(importance, ends[1:-1]),
        strengths=said["strengths"],
        basis=said["basis"],
        settings=said["settings"],
        pairs=pairs,
        weights=[block if has else None for block, has in zip(weights, signed, strict=True)],
        nodes=nodes,
        origin=said["origin"],
        unit=said.get("unit", "loss"),
    )


def _filled(links: Links, number: np.ndarray, ends: np.ndarray, pairs: Sequence[tuple[int, int]]) -> list[Any]:
    source, target = number[links.source], number[links.target]
    cut = np.searchsorted(ends, np.arange(ends[-1]), side="right") - 1
    widths = np.diff(ends)
    code = cut[source] * len(widths) + cut[target]
    blocks, found = [], 0
    for a, b in pairs:
        chosen = np.flatnonzero(code == a * len(widths) + b)
        places = target[chosen] - ends[b], source[chosen] - ends[a]
        blocks.append(csr_array((links.weight[chosen], places), shape=(widths[b], widths[a])))
        found += len(chosen)
    if found != len(code):
        raise GraphError(
            f"{len(code) - found} links join cuts that the file does not join: expected pairs {list(pairs)}"
        )
    return blocks
