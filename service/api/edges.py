"""Edges of stored graphs, read from the artifact's file: of a node, between modules, or of a subgraph.

Files are mapped into memory, so that a node's edges among 10^7 take milliseconds. NumPy is imported at first use.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from ..records.errors import NotFoundError, StoreError
from ..records.graphs import EdgeRow, Subgraph
from ..records.partitions import PARTITION, Comparison, Drawing, NodeRow, OverlapRow, PartitionRow, Supernode
from ..store.reading import Reader

__all__ = ["compare", "drawing", "edges_between", "edges_of", "subgraph"]

_MOST = 10_000

Part = tuple[int, int, Any, Any, Any]  # earlier cut, later cut; earlier nodes, later nodes, strengths


def edges_of(store: Reader, graph: str, cut: int | str, node: int, *, limit: int = 100) -> Subgraph:
    """Return the edges of a node, to the cut before and to the cut after.

    Raises:
        NotFoundError: the graph, cut or node does not exist.
    """
    with _opened(store, graph) as file:
        at = file.cut(cut)
        if not 0 <= node < file.widths[at]:
            raise NotFoundError(f"no node {node} at cut {cut!r}, which has {file.widths[at]} nodes, counted from 0")
        parts = []
        for p, (a, b) in enumerate(file.pairs):
            if b == at:
                parts.append(file.row(p, node))
            if a == at:
                earlier, later, strength = file.pair(p)
                chosen = earlier == node
                parts.append((a, b, earlier[chosen], later[chosen], strength[chosen]))
        return _strongest(file, parts, limit)


def edges_between(store: Reader, partition: str, first: int, second: int, *, limit: int = 100) -> Subgraph:
    """Return the edges from nodes of one module to nodes, one cut later, of another or the same module.

    Raises:
        NotFoundError: the partition or module does not exist.
    """
    detail = store.row(PARTITION, partition)
    _require_modules(detail, (first, second))
    with _opened(store, detail.graph) as file:
        sources, sinks = (file.mask(store, detail.id, index) for index in (first, second))
        parts = []
        for p, (a, b) in enumerate(file.pairs):
            earlier, later, strength = file.pair(p)
            chosen = sources[a][earlier] & sinks[b][later]
            parts.append((a, b, earlier[chosen], later[chosen], strength[chosen]))
        return _strongest(file, parts, limit)


def subgraph(
    store: Reader,
    graph: str,
    *,
    cuts: Sequence[int | str] = (),
    epsilon: float | None = None,
    limit: int = 1000,
) -> Subgraph:
    """Return the edges among some cuts (default: all) stronger than the square root of `epsilon`.

    Raises:
        NotFoundError: the graph or cut does not exist.
    """
    with _opened(store, graph) as file:
        chosen_cuts = {file.cut(cut) for cut in cuts} or set(range(len(file.cuts)))
        parts = []
        for p, (a, b) in enumerate(file.pairs):
            if {a, b} <= chosen_cuts:
                earlier, later, strength = file.pair(p)
                chosen = strength**2 > (epsilon or 0.0)
                parts.append((a, b, earlier[chosen], later[chosen], strength[chosen]))
        return _strongest(file, parts, limit)


def drawing(
    store: Reader,
    partition: str,
    *,
    module: int | None = None,
    epsilon: float | None = None,
    nodes: int = 2000,
    limit: int = 10_000,
) -> Drawing:
    """Return the most important nodes of a partition, or of one module, and the strongest edges among them.

    Raises:
        NotFoundError: the partition or module does not exist.
    """
    import numpy as np

    detail = store.row(PARTITION, partition)
    _require_modules(detail, () if module is None else (module,))
    chosen, n_nodes = store.strongest_nodes(detail.id, module=module, limit=nodes)
    with _opened(store, detail.graph) as file:
        shown = [np.zeros(width, dtype=bool) for width in file.widths]
        for node in chosen:
            shown[node.cut][node.coordinate] = True
        everything = shown if n_nodes == len(chosen) else file.mask(store, detail.id, module)
        parts, n_edges = [], 0
        for p, (a, b) in enumerate(file.pairs):
            earlier, later, strength = file.rows(p, shown[b] if module is None else everything[b])
            strong = strength**2 > (epsilon or 0.0)
            among = strong & everything[a][earlier]
            n_edges += file.count(p, epsilon or 0.0) if module is None else int(np.count_nonzero(among))
            kept = among & shown[a][earlier] & shown[b][later]
            parts.append((a, b, earlier[kept], later[kept], strength[kept]))
        found, groups = _strongest(file, parts, limit), file.supernodes(chosen)
    return Drawing(
        cuts=found.cuts, n_nodes=n_nodes, n_edges=n_edges, nodes=chosen, edges=found.edges, supernodes=groups
    )


def _require_modules(detail: PartitionRow, indices: Sequence[int]) -> None:
    for index in indices:
        if not 0 <= index < detail.n_modules:
            raise NotFoundError(f"no module {index} in {detail.id}, which has {detail.n_modules}, counted from 0")


def compare(store: Reader, first: str, second: str) -> Comparison:
    """Compare two partitions; they must have the same number of nodes at each cut.

    Raises:
        StoreError: the partitions divide different nodes.
    """
    from sklearn.metrics import adjusted_mutual_info_score, mutual_info_score

    one, other = store.get_partition(first), store.get_partition(second)
    widths = [store.get_graph(detail.graph).widths for detail in (one, other)]
    if widths[0] != widths[1]:
        raise StoreError(
            f"{one.id} and {other.id} divide graphs of {widths[0]} and {widths[1]} nodes: expected the same"
        )
    pairs = [
        (a.module, b.module)
        for a, b in zip(store.nodes(one.id), store.nodes(other.id), strict=True)
        if a.module is not None and b.module is not None
    ]
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    joint = mutual_info_score(ours, theirs) if pairs else 0.0
    entropies = [mutual_info_score(labels, labels) if pairs else 0.0 for labels in (ours, theirs)]
    return Comparison(
        first=one.id,
        second=other.id,
        n_nodes=len(pairs),
        adjusted_mutual_information=float(adjusted_mutual_info_score(ours, theirs)) if pairs else 0.0,
        variation_of_information=max(0.0, float(sum(entropies) - 2 * joint)),
        overlaps=tuple(OverlapRow(first=a, second=b, n_nodes=n) for (a, b), n in sorted(Counter(pairs).items())),
    )


def _field(value: Any, name: str) -> Any:
    """Return a field of what should be a JSON object, None where it is none."""
    return value.get(name) if isinstance(value, dict) else None


class _GraphFile:
    """A graph's file; of its arrays only the parts that are needed are read."""

    def __init__(self, opened: Any, path: Path) -> None:
        self._names, self._mapped = set(opened.keys()), _mapped(path)
        about = json.loads(opened.metadata()["interbasis"])
        self.cuts, self.widths = tuple(about["cuts"]), tuple(about["widths"])
        pairs = about.get("pairs") or pairwise(range(len(self.cuts)))
        self.pairs = [(int(a), int(b)) for a, b in pairs]

    def supernodes(self, nodes: Sequence[NodeRow]) -> tuple[Supernode, ...]:
        """Return the supernodes that the file of an attribution graph has, with those of their nodes that are given."""
        if "origin" not in self._names:
            return ()
        origin = json.loads(self._mapped["origin"].tobytes())
        groups = _field(_field(_field(origin, "file"), "qParams"), "supernodes")
        if isinstance(groups, str):  # as some versions write it
            with suppress(ValueError):
                groups = json.loads(groups)
        places: dict[str, list[tuple[int, int]]] = {}
        for node in nodes:
            places.setdefault(node.id or "", []).append((node.cut, node.coordinate))
        found = []
        for group in groups if isinstance(groups, list) else ():
            if isinstance(group, list) and len(group) > 1 and all(isinstance(name, str) for name in group):
                members = tuple(place for name in group[1:] for place in places.get(name, ()))
                found.append(Supernode(title=group[0], nodes=members))
        return tuple(found)

    def cut(self, named: int | str) -> int:
        """Return the index of a cut given by name or index."""
        if str(named) in self.cuts:
            return self.cuts.index(str(named))
        if str(named).isdecimal() and len(str(named)) < 9 and int(named) < len(self.cuts):
            return int(named)
        raise NotFoundError(f"no cut {named!r}: the cuts are {', '.join(self.cuts)}")

    def pair(self, p: int) -> tuple[Any, Any, Any]:
        """Return earlier node, later node and strength of every edge of a pair of cuts."""
        import numpy as np

        strength, earlier = (self._mapped[f"block.{p}.{name}"] for name in ("strength", "earlier"))
        counts = np.diff(self._mapped[f"block.{p}.row_start"])
        return earlier, np.repeat(np.arange(len(counts), dtype=np.int32), counts), strength

    def rows(self, p: int, chosen: Any) -> tuple[Any, Any, Any]:
        """Return earlier node, later node and strength of every edge into some later nodes, given as a mask."""
        import numpy as np

        start = self._mapped[f"block.{p}.row_start"]
        nodes = np.flatnonzero(chosen)
        counts = np.diff(start)[nodes]
        before = np.cumsum(counts) - counts
        places = np.repeat(start[nodes] - before, counts) + np.arange(counts.sum())
        strength, earlier = (self._mapped[f"block.{p}.{name}"][places] for name in ("strength", "earlier"))
        return earlier, np.repeat(nodes.astype(np.int32), counts), strength

    def count(self, p: int, epsilon: float) -> int:
        """Return the number of edges of a pair of cuts that are stronger than the square root of epsilon."""
        import numpy as np

        return int(np.count_nonzero(self._mapped[f"block.{p}.strength"] ** 2 > epsilon))

    def row(self, p: int, later: int) -> Part:
        """Return the edges into one later node."""
        import numpy as np

        begin, end = self._mapped[f"block.{p}.row_start"][later : later + 2]
        strength = self._mapped[f"block.{p}.strength"][begin:end]
        earlier = self._mapped[f"block.{p}.earlier"][begin:end]
        return (*self.pairs[p], earlier, np.full(len(earlier), later), strength)

    def weight(self, edge: EdgeRow) -> float | None:
        """Return the weight of an edge with its sign, None where the file has no signs."""
        name = f"weights.{self.pairs.index((edge.earlier_cut, edge.later_cut))}"
        if f"{name}.strength" not in self._names:
            return None
        begin, end = self._mapped[f"{name}.row_start"][edge.later : edge.later + 2]
        earlier = self._mapped[f"{name}.earlier"][begin:end]
        for place, node in enumerate(earlier, int(begin)):
            if node == edge.earlier:
                return float(self._mapped[f"{name}.strength"][place])
        return 0.0

    def mask(self, store: Reader, partition: str, module: int | None) -> list[Any]:
        """Return, for each cut, which nodes are in a module; None: all."""
        import numpy as np

        if module is None:
            return [np.ones(width, dtype=bool) for width in self.widths]
        masks = [np.zeros(width, dtype=bool) for width in self.widths]
        for node in store.nodes(partition, module=module):
            masks[node.cut][node.coordinate] = True
        return masks


_TYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}


def _mapped(path: Path) -> dict[str, Any]:
    """Return the arrays of a safetensors file by name, mapped into memory."""
    import numpy as np

    data = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
    begin = 8 + int.from_bytes(data[:8].tobytes(), "little")
    found = json.loads(data[8:begin].tobytes())
    return {
        name: data[begin + about["data_offsets"][0] : begin + about["data_offsets"][1]]
        .view(_TYPES[about["dtype"]])
        .reshape(about["shape"])
        for name, about in found.items()
        if name != "__metadata__"
    }


@contextmanager
def _opened(store: Reader, graph: str) -> Iterator[_GraphFile]:
    from safetensors import safe_open

    path = store.graph_path(graph)
    if path is not None and path.is_file():
        with safe_open(path, framework="numpy") as opened:
            yield _GraphFile(opened, path)
        return
    with NamedTemporaryFile(suffix=".safetensors") as copy:  # an object store, or a file that is gone: get says which
        Path(copy.name).write_bytes(store.graph_bytes(graph))
        with safe_open(copy.name, framework="numpy") as opened:
            yield _GraphFile(opened, Path(copy.name))


def _strongest(file: _GraphFile, parts: Sequence[Part], limit: int) -> Subgraph:
    if not 1 <= limit <= _MOST:
        raise StoreError(f"limit is {limit}: expected 1 to {_MOST}")
    import numpy as np

    found: list[EdgeRow] = []
    for a, b, earlier, later, strength in parts:
        best = np.argsort(-strength, kind="stable")[:limit]
        rows = zip(earlier[best].tolist(), later[best].tolist(), strength[best].tolist(), strict=True)
        found += [EdgeRow(earlier_cut=a, earlier=i, later_cut=b, later=j, strength=w) for i, j, w in rows]
    found.sort(key=lambda edge: -edge.strength)
    edges = tuple(edge if (w := file.weight(edge)) is None else replace(edge, weight=w) for edge in found[:limit])
    return Subgraph(cuts=file.cuts, n_edges=sum(len(part[4]) for part in parts), edges=edges)
