"""Divisions that are compared on the command line: partitions and files of labels, each with each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

from ..records.errors import StoreError
from ..records.partitions import ComparisonRow, ComparisonValues, PartitionDetail
from ..terminal.show import err
from .backends import Backend, Given
from .pictures import draw

__all__ = ["Division", "File", "Found", "Pairs", "division_files"]

_FILES = (".csv", ".json")


class File:
    """A file of labels: its name, and the groups of each node."""

    def __init__(self, name: str, path: Path) -> None:
        """Read the file."""
        from ...analysis.exchange.labels_file import read_groups

        self.name = name
        groups = read_groups(path)
        self.labels = {node: list(of) if len(of) != 1 else of[0] for node, of in groups.items()}


Division: TypeAlias = PartitionDetail | File
"""A partition, or a file of labels."""


def division_files(divisions: Sequence[str]) -> list[File | None]:
    """Read the divisions that are files; a file goes by its name, or its path where another has the same name."""
    paths = [Path(name) for name in divisions]
    files = [path.suffix.lower() in _FILES or path.is_file() for path in paths]
    taken = Counter(path.name for path, is_file in zip(paths, files, strict=True) if is_file)
    return [
        File(path.name if taken[path.name] == 1 else str(path), path) if is_file else None
        for path, is_file in zip(paths, files, strict=True)
    ]


@dataclass(frozen=True)
class Found:
    """What was found of two divisions: the name of the first, the numbers, and the row or the comparison itself."""

    first: str
    values: ComparisonValues
    row: ComparisonRow | None = None
    made: Any = None

    def to_json(self) -> dict[str, Any]:
        """Return the stored row, or the numbers; both with the names of the two divisions."""
        return {"id": None, "first": self.first, **(self.row or self.values).to_json()}


class Pairs:
    """Compares pairs of divisions: in the store or the service where one is a partition, else here."""

    def __init__(self, backend: Backend | None, choices: dict[str, Any], between: dict[str, Any], given: Given) -> None:
        """Keep the backend, choices of all pairs, those of two partitions, and options of tasks."""
        self._backend, self._choices, self._between, self._given = backend, choices, between, given
        self._among: PartitionDetail | None = None

    @property
    def _open(self) -> Backend:
        if self._backend is None:
            raise StoreError("no store is open: expected a partition among the divisions")
        return self._backend

    def partition(self, name: str) -> PartitionDetail:
        """Return the partition that is named."""
        return self._open.source.get_partition(name)

    def of(self, given: Sequence[Division]) -> tuple[list[Found], list[str]]:
        """Compare each division with each; of more than two say of pairs that cannot be compared why."""
        from ...analysis.errors import GraphError

        self._among = next((one for one in given if not isinstance(one, File)), None)
        found, left, failed = [], [], None
        for one, other in combinations(given, 2):
            try:
                found.append(self._pair(one, other))
            except (GraphError, StoreError) as error:
                failed = error
                left.append(f"not compared: {_called(one)} and {_called(other)}: {error}")
        if failed is not None and not found:
            raise failed
        return found, left

    def _pair(self, one: Division, other: Division) -> Found:
        """Compare two divisions, of which a partition comes first."""
        first, second = (other, one) if isinstance(one, File) else (one, other)
        if isinstance(first, File):
            return self._of_files(one, other)
        chosen: dict[str, Any] = {**self._choices, **self._between}
        if isinstance(second, File):
            chosen |= {"align": None, "labels": second.labels, "name": second.name}
        else:
            chosen["other"] = second.id
        (made,) = self._open.run("compare", [first.id], chosen, self._given)
        row = self._open.source.get_comparison(made["comparison"])
        return Found(first.id, row, row)

    def _of_files(self, one: Any, other: Any) -> Found:
        """Compare two files; their nodes are those of the graph of a partition that is compared, too."""
        from ...analysis.comparison.comparison import compare_partitions
        from ..tasks.tracking import comparison_values

        options = {"n_permutations": self._choices["permutations"], "seed": self._choices["seed"]}
        names = [one.name, other.name if other.name != one.name else f"{other.name} (again)"]
        made = self._in_graph(one, other, names, options)
        if made is None:
            made = compare_partitions(one.labels, other.labels, names=names, **options)
        return Found(names[0], comparison_values(made, "name"), made=made)

    def _in_graph(self, one: File, other: File, names: list[str], options: dict[str, Any]) -> Any:
        """Compare two files by the names of nodes in a graph; None where no partition has such nodes."""
        from ...analysis.comparison.comparison import compare_partitions
        from ...analysis.errors import GraphError
        from ...analysis.graph.interaction_graph import InteractionGraph
        from ...analysis.modules.partition import Partition

        if self._among is None:
            return None
        nodes = InteractionGraph.from_bytes(self._open.source.graph_bytes(self._among.graph)).nodes or None
        partition = Partition.from_bytes(self._open.source.partition_bytes(self._among.id))
        given = {"names": [self._among.id, *names], "nodes": [nodes, None, None], **options}
        try:
            return compare_partitions(partition, one.labels, other.labels, **given).pair(*names)
        except GraphError:
            return None

    def made(self, found: Sequence[Found]) -> list[Any]:
        """Return the comparisons themselves."""
        from ...analysis.comparison.comparison import Comparison

        return [
            one.made if one.row is None else Comparison.from_bytes(self._open.source.comparison_bytes(one.row.id))
            for one in found
        ]

    def persistence(self, found: Sequence[Found]) -> tuple[Any, ...]:
        """Say of each module of the first of several divisions how many of the others have it, too."""
        from ...analysis.comparison.comparison import join_comparisons

        return join_comparisons(self.made(found)).persistence(name=found[0].first) if len(found) > 1 else ()

    def draw(self, found: Sequence[Found], file: Path) -> None:
        """Draw what was found, a stored pair with its title, and say so."""
        from ..tasks.figures import plot_comparisons

        if len(found) == 1 and found[0].row is not None:
            draw(self._open.source, found[0].row.id, file)
            return
        whole, *parts = plot_comparisons(self.made(found), file)
        err.print(f"wrote {whole}", soft_wrap=True)
        for one, part in zip(found, parts, strict=bool(parts)):
            err.print(f"wrote {part}: {one.first} and {one.values.name}", soft_wrap=True)


def _called(division: Division) -> str:
    return division.name if isinstance(division, File) else division.id
