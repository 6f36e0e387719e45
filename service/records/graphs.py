"""Interaction graphs, their edges, and subgraphs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .base import Kind, Provenance, Record

__all__ = ["GRAPH", "EdgeRow", "GraphRow", "GraphValues", "Subgraph"]


@dataclass(frozen=True, kw_only=True)
class GraphValues(Record):
    """Numbers of an interaction graph that queries use; the strengths themselves are an artifact."""

    cuts: tuple[str, ...]
    widths: tuple[int, ...]
    basis: str
    strengths: str
    n_nodes: int
    n_edges: int


@dataclass(frozen=True, kw_only=True)
class GraphRow(GraphValues, Provenance):
    """A stored interaction graph.

    Attributes:
        model: name of the model.
        checkpoint, dataset: their IDs.
        graph_sha256, bases_sha256: artifacts; the bases may not have been kept.
    """

    id: str
    model: str
    checkpoint: str
    dataset: str
    graph_sha256: str
    bases_sha256: str | None
    created: datetime


GRAPH = Kind(
    name="graph",
    plural="graphs",
    row=GraphRow,
    detail=GraphRow,
    listing="List graphs, all or those of a model, a checkpoint or a data set.",
    single="Return the record of a graph; other routes return its edges.",
    owners=("checkpoint", "dataset"),
    filters=("model", "checkpoint", "dataset"),
    values=GraphValues,
    files={
        "graph": "Download the whole graph, for `InteractionGraph.from_bytes`.",
        "bases": "Download the bases of a graph, for `Bases.from_bytes`.",
    },
)


@dataclass(frozen=True, kw_only=True)
class EdgeRow(Record):
    """An edge: indices of its two cuts, its node at each, and its strength w; w squared is a loss."""

    earlier_cut: int
    earlier: int
    later_cut: int
    later: int
    strength: float


@dataclass(frozen=True, kw_only=True)
class Subgraph(Record):
    """Some edges of a graph, strongest first; `n_edges` is their number before the list was cut to its limit."""

    cuts: tuple[str, ...]
    n_edges: int
    edges: tuple[EdgeRow, ...]
