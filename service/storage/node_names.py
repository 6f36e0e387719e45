"""What the file of a graph says of its nodes, read without the rest of the file."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from ..records.partitions import NodeRow
from .artifacts import Blobs
from .tables import Graph

__all__ = ["FROM_FILE", "named"]

FROM_FILE = ("id", "type", "position", "label")
"""Fields of a node that its graph's file has, in the order of its columns."""

_GIVEN = "given"  # strengths of graphs that were made elsewhere


def named(blobs: Blobs, graph: Graph, rows: Sequence[NodeRow]) -> tuple[NodeRow, ...]:
    """Return nodes with id, type, position and label, where the graph was made elsewhere and its file has them."""
    if graph.strengths != _GIVEN or not rows:
        return tuple(rows)
    path = blobs.path(graph.graph_sha256)
    local = path is not None and path.is_file()
    with path.open("rb") if path is not None and local else io.BytesIO(blobs.get(graph.graph_sha256)) as file:
        tables = _tables(file, {row.cut for row in rows})
    if not tables:
        return tuple(rows)
    return tuple(replace(row, **_about(tables[row.cut][row.coordinate])) for row in rows)


def _about(columns: Sequence[Any]) -> dict[str, Any]:
    return {name: None if value == "" else value for name, value in zip(FROM_FILE, columns, strict=False)}


def _tables(file: BinaryIO, cuts: Iterable[int]) -> dict[int, list[list[Any]]]:
    """Return the tables of the nodes of some cuts from a .safetensors file, as `NodeTable` writes them."""
    size = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(size))
    found = {}
    for cut in cuts:
        if (about := header.get(f"nodes.{cut}")) is not None:
            start, end = about["data_offsets"]
            file.seek(8 + size + start)
            found[cut] = json.loads(file.read(end - start))
    return found
