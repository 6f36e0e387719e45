"""What is stored about a node or a module, as one JSON document: what a command that gives labels is asked with."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

from ..records.errors import StoreError
from ..records.graphs import GRAPH, GraphRow
from ..records.kinds import Source
from ..records.labels import LabelRow
from ..records.partitions import PARTITION, NodeRow, PartitionDetail

__all__ = ["Documents"]

_EDGES = 10  # strongest edges of a node, in and out

_NODES = 50  # nodes of a module, the most important ones


class Documents:
    """Documents of the nodes of a graph, or of the modules and nodes of a partition with its graph."""

    def __init__(self, source: Source, graph: GraphRow, partition: PartitionDetail | None = None) -> None:
        """Keep where the graph, and a partition of it, are stored."""
        self._source, self._graph, self._partition = source, graph, partition

    def node(self, cut: str, i: int) -> dict[str, Any]:
        """Describe a node: importance, share of its cut's, module, its card, strongest edges, labels.

        The card is there once the partition is described. Its deciles are left out, for scoring labels on them.

        Args:
            cut: name of the cut.
            i: coordinate of the node.
        """
        c = self._graph.cuts.index(cut)
        importance = self._strengths.importance[c]
        whole = float(importance.sum())
        return {
            "kind": "node",
            "graph": self._about,
            "cut": cut,
            "node": i,
            "module": self._modules.get((c, i)),
            "importance": float(importance[i]),
            "share": float(importance[i]) / whole if whole else None,
            "card": self._card("node", cut, i),
            "edges_in": self._edges(c, i, incoming=True),
            "edges_out": self._edges(c, i, incoming=False),
            "labels": _said(label for label in self._labels if (label.cut, label.node) == (cut, i)),
        }

    def module(self, index: int) -> dict[str, Any]:
        """Describe a module: size, links, its card, most important nodes with their labels, labels."""
        partition = self._partition
        if partition is None:
            raise StoreError(f"{self._graph.id} is a graph: its partitions have modules")
        (module,) = (each for each in partition.modules if each.index == index)
        nodes = sorted((node for node in self._nodes if node.module == index), key=lambda node: -node.importance)
        links = [link for link in partition.links if index in (link.earlier, link.later)]
        return {
            "kind": "module",
            "graph": self._about,
            "partition": partition.id,
            "module": index,
            "size": module.size,
            "card": self._card("module", index),
            "cuts": list(module.cuts),
            "sizes": list(module.sizes),
            "nodes": [self._brief(node) for node in nodes[:_NODES]],
            "links": [link.to_json() for link in links],
            "labels": _said(label for label in self._labels if label.module == index),
        }

    @property
    def _about(self) -> dict[str, Any]:
        row = self._graph
        about = {name: getattr(row, name) for name in ("id", "model", "checkpoint", "step", "basis", "strengths")}
        return about | {"cuts": list(row.cuts), "widths": list(row.widths)}

    def _card(self, kind: str, *place: Any) -> dict[str, Any] | None:
        """Return what is on a card, without what labels are scored on; None where there is none."""
        from ...analysis.errors import GraphError

        try:
            card = None if self._cards is None else getattr(self._cards, kind)(*place)
        except GraphError:  # not written yet
            card = None
        if card is None:
            return None
        found: dict[str, Any] = json.loads(card.to_json())
        return found | {"examples": {name: own for name, own in found["examples"].items() if name != "deciles"}}

    @cached_property
    def _cards(self) -> Any:
        """The cards of the partition's newest description, or of that of the graph's newest described partition."""
        one = self._partition
        partitions = [one] if one is not None else self._source.every(PARTITION, graph=self._graph.id)
        for partition in reversed(partitions):
            found = self._source.descriptions(partition=partition.id, newest_first=True, limit=1).items
            if found:
                from ...analysis.meaning.cards import Cards

                return Cards.from_bytes(self._source.description_bytes(found[0].id))
        return None

    @cached_property
    def _strengths(self) -> Any:
        from ...analysis import InteractionGraph

        return InteractionGraph.from_bytes(self._source.graph_bytes(self._graph.id))

    @cached_property
    def _nodes(self) -> tuple[NodeRow, ...]:
        return () if self._partition is None else self._source.nodes(self._partition.id)

    @cached_property
    def _modules(self) -> dict[tuple[int, int], int | None]:
        return {(node.cut, node.coordinate): node.module for node in self._nodes}

    @cached_property
    def _labels(self) -> tuple[LabelRow, ...]:
        if self._partition is None:
            return self._source.labels(GRAPH, self._graph.id)
        return self._source.labels(PARTITION, self._partition.id)

    def _brief(self, node: NodeRow) -> dict[str, Any]:
        cut = self._graph.cuts[node.cut]
        labels = _said(label for label in self._labels if (label.cut, label.node) == (cut, node.coordinate))
        return {"cut": cut, "node": node.coordinate, "importance": node.importance, "labels": labels}

    def _edges(self, cut: int, node: int, *, incoming: bool) -> list[dict[str, Any]]:
        """List the strongest edges of a node, to earlier cuts or to later ones."""
        from ...analysis.edges import strength_line

        found = []
        for (a, b), block in zip(self._strengths.pairs, self._strengths.blocks, strict=True):
            if cut == (b if incoming else a):
                other, side = (a, "row") if incoming else (b, "column")
                strengths = strength_line(block, **{side: node})
                found += [(float(w), other, j) for j, w in enumerate(strengths.tolist()) if w > 0]
        found.sort(key=lambda edge: (-edge[0], edge[1:]))
        return [
            {"cut": self._graph.cuts[c], "node": j, "module": self._modules.get((c, j)), "strength": w}
            for w, c, j in found[:_EDGES]
        ]


def _said(labels: Any) -> list[dict[str, Any]]:
    return [{name: getattr(label, name) for name in ("text", "author", "source", "confidence")} for label in labels]
