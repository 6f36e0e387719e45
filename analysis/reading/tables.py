"""Nodes and links of a file, before they are a graph: links as arrays of node numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..errors import GraphError
from ..graph.node_table import NodeTable
from ..results import by_value

__all__ = ["UNKNOWN", "Links", "Parts", "node_index"]

UNKNOWN = -1

"""Number of a node that does not exist."""


@by_value
@dataclass(frozen=True)
class Links:
    """Links in the order of the file.

    Attributes:
        source: number of the node at which each begins.
        target: number of the node at which each ends.
        weight: of each, with its sign.
    """

    source: Int[np.ndarray, " links"]
    target: Int[np.ndarray, " links"]
    weight: Float[np.ndarray, " links"]

    @classmethod
    def joined(cls, parts: Sequence[Links]) -> Links:
        """Return the links of all parts, one part after the other."""
        if not parts:
            return cls(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0))
        return cls(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("source", "target", "weight"))
        )


@by_value
@dataclass(frozen=True)
class Parts:
    """What a file says.

    Attributes:
        nodes: all nodes, in the order of the file.
        links: between them.
        layers: for each node its layer, a number or a text, or () where the file has no layers.
        origin: what the graph keeps of the rest of the file, as JSON values.
    """

    nodes: NodeTable
    links: Links
    layers: tuple[Any, ...] = ()
    origin: dict[str, Any] = field(default_factory=dict)


def node_index(names: Sequence[Any]) -> dict[Any, int]:
    """Number nodes by their names.

    Raises:
        GraphError: there are none, or two have one name.
    """
    index = {name: i for i, name in enumerate(names)}
    if not index:
        raise GraphError("the file has no nodes: expected a graph with at least two nodes and a link between them")
    if len(index) < len(names):
        twice = next(name for i, name in enumerate(names) if index[name] != i)
        raise GraphError(f"two nodes have the id {twice!r:.100}: expected a different id for each node")
    return index
