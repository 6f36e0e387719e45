"""What the nodes of a cut are, where a file says so: id, type, position, label and any other attribute."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import GraphError
from ..results import by_value

__all__ = ["NodeTable"]

_COLUMNS = ("id", "type", "position", "label", "attributes")


@by_value
@dataclass(frozen=True)
class NodeTable:
    """The nodes of one cut in the order of their coordinates.

    Attributes:
        ids: name of each node in its file; type and id together are unique in a graph.
        types: what each node is, such as "embedding" or "logit"; "" where the file does not say.
        positions: place in the sequence, counted from 0; None where the file does not say.
        labels: what each node means; None where the file does not say.
        attributes: everything else that the file says about a node, as JSON values.

    >>> table = NodeTable.from_rows([{"id": "a", "label": "first"}, {"id": "b", "type": "logit", "position": 3}])
    >>> table.labels, table.positions, table.titles
    (('first', None), (None, 3), ('first', 'b'))
    >>> NodeTable.from_json(table.to_json()) == table
    True
    """

    ids: tuple[str, ...]
    types: tuple[str, ...]
    positions: tuple[int | None, ...]
    labels: tuple[str | None, ...]
    attributes: tuple[dict[str, Any], ...]

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> NodeTable:
        """Build a table from rows with `id` and, as far as known, `type`, `position`, `label` and `attributes`."""
        found = list(rows)
        return cls(
            tuple(row["id"] for row in found),
            tuple(row.get("type") or "" for row in found),
            tuple(row.get("position") for row in found),
            tuple(row.get("label") for row in found),
            tuple(dict(row.get("attributes") or {}) for row in found),
        )

    def __len__(self) -> int:
        """The number of nodes."""
        return len(self.ids)

    @property
    def titles(self) -> tuple[str, ...]:
        """For each node what to show of it: its label, or its id where it has none."""
        return tuple(label or name for label, name in zip(self.labels, self.ids, strict=True))

    def row(self, node: int) -> dict[str, Any]:
        """Return what is known of a node, by the names that `from_rows` takes."""
        columns = (self.ids, self.types, self.positions, self.labels, self.attributes)
        return dict(zip(_COLUMNS, (column[node] for column in columns), strict=True))

    def take(self, nodes: Iterable[int]) -> NodeTable:
        """Return the table of some of the nodes."""
        return NodeTable.from_rows(self.row(node) for node in nodes)

    def to_json(self) -> str:
        """Write the table as JSON."""
        return json.dumps([[row[name] for name in _COLUMNS] for row in map(self.row, range(len(self)))])

    @classmethod
    def from_json(cls, text: str | bytes) -> NodeTable:
        """Read what `to_json` wrote."""
        return cls.from_rows(dict(zip(_COLUMNS, row, strict=True)) for row in json.loads(text))


def checked_nodes(nodes: Sequence[NodeTable], widths: Sequence[int]) -> tuple[NodeTable, ...]:
    """Return the tables of all cuts, or none.

    Raises:
        GraphError: there is not one for each cut, or one has another number of nodes than its cut.
    """
    if nodes and [len(table) for table in nodes] != list(widths):
        raise GraphError(
            f"tables of {[len(table) for table in nodes]} nodes were given: expected one per cut, of {list(widths)}"
        )
    return tuple(nodes)
