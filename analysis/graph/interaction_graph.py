"""The interaction graph: nodes, strengths between the coordinates of adjacent cuts, and settings, as a result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array, issparse, sparray
from torch import Tensor

from ..edges import Block, Edges, as_rows, dense, entries, stored, values_at
from ..errors import GraphError
from ..notebook.tables import Columns, data_frame, html_table
from ..results import Result, by_value, decode, encode, figure, interactive_figure
from .node_table import NodeTable, checked_nodes

if TYPE_CHECKING:
    import igraph
    import networkx
    import pandas
    from matplotlib.figure import Figure


__all__ = ["UNITS", "InteractionGraph"]

UNITS = ("loss", "weight", "share")

"""Units of strengths: w^2 is a loss; any weight; the share of the total weight into a node."""

_BESIDE = ("beyond_skip", "errors", "beyond_errors", "weights")  # matrices that go with the blocks

_TINY, _HUGE = 1e-150, 1e150  # beyond, squares of strengths are 0 or infinite

_LARGEST = 250_000_000  # entries of a dense matrix that is read: 2 GB

_SURE = 2  # standard errors by which an estimated strength must be above the cutoff


@by_value
@dataclass(frozen=True)
class InteractionGraph(Result):
    """Weighted graph whose nodes are (cut, coordinate) and whose edges go from earlier to later, mostly adjacent, cuts.

    Attributes:
        cuts: names of the L + 1 cuts, in order of computation.
        blocks: for each pair p of cuts the strengths w, shape (k_later, k_earlier), float64, row = later node;
            w^2 is in units of the behavioural loss, so that sqrt(epsilon) is the cutoff. Matrices given as sparse rows
            stay so where less than a tenth is filled (`scipy.sparse.csr_array`); see `matrices`.
        importance: per cut Lambda (k,), the mean squared first-order change of the output carried by each node.
        strengths: the method by which w was computed: "jacobian", "attribution" or "given".
        basis: kind of basis the coordinates belong to.
        settings: everything else that fixes the numbers (rotation, points, seed, ...).
        pairs: for each block the indices (earlier, later) of its cuts; (0, 1), (1, 2), ... unless edges skip cuts.
        beyond_skip: for each block the strengths of J - 1, what a layer adds to the residual stream, where its two cuts
            belong to one stream, None elsewhere; () where it was not measured. See `skip_paths`.
        errors: for each block the standard errors of w, None where w is an exact sum over the data; () if all are.
        beyond_errors: the same for `beyond_skip`.
        weights: for each block the weights with their signs, as the file of a graph made elsewhere has them; None where
            a block has none, () where there are no signs at all.
        nodes: for each cut what its nodes are (id, type, position, label, ...); () where nodes have no names.
        origin: where a graph that was read comes from: the format of its file, what the file says about the whole
            graph, how layers were found; see `read_graph`. Its values are JSON values.
        unit: "loss" if w^2 is a loss; "weight" for other weights, whose costs are not taken on a log scale, see `cost`.

    >>> graph = InteractionGraph.from_blocks([[[1.0, 0.0], [0.5, 2.0]]])
    >>> graph
    InteractionGraph: 3 edges (given), 4 nodes (2 at 0, 2 at 1)
    """

    cuts: tuple[str, ...]
    blocks: tuple[Block, ...]
    importance: tuple[Float[np.ndarray, " _"], ...]
    strengths: str = "given"
    basis: str = "given"
    settings: dict[str, Any] = field(default_factory=dict)
    pairs: tuple[tuple[int, int], ...] = ()
    beyond_skip: tuple[Float[np.ndarray, "_ _"] | None, ...] = ()
    errors: tuple[Float[np.ndarray, "_ _"] | None, ...] = ()
    beyond_errors: tuple[Float[np.ndarray, "_ _"] | None, ...] = ()
    weights: tuple[Block | None, ...] = ()
    nodes: tuple[NodeTable, ...] = ()
    origin: dict[str, Any] = field(default_factory=dict)
    unit: str = "loss"

    def __repr__(self) -> str:
        """Describe the size of the graph in one line."""
        edges = sum(map(_filled, self.blocks))
        widths = shorten(", ".join(f"{width} at {cut}" for cut, width in zip(self.cuts, self.widths, strict=True)), 60)
        return f"InteractionGraph: {edges:,} edges ({self.strengths}), {self.n_nodes} nodes ({widths})"

    @classmethod
    def from_blocks(
        cls,
        blocks: Sequence[Block | sparray | Tensor | Sequence[Sequence[float]]],
        cuts: Sequence[str] | None = None,
        importance: Sequence[np.ndarray] | None = None,
        *,
        strengths: str = "given",
        basis: str = "given",
        settings: dict[str, Any] | None = None,
        pairs: Sequence[tuple[int, int]] | None = None,
        beyond_skip: Sequence[np.ndarray | None] = (),
        errors: Sequence[np.ndarray | None] = (),
        beyond_errors: Sequence[np.ndarray | None] = (),
        weights: Sequence[Block | sparray | None] = (),
        nodes: Sequence[NodeTable] = (),
        origin: dict[str, Any] | None = None,
        unit: str = "loss",
    ) -> InteractionGraph:
        """Build a graph from its strength matrices; row = later node, column = earlier node.

        Args:
            blocks: one matrix per pair of cuts, dense or `scipy.sparse`.
            cuts: names; default "0", "1", ...
            importance: per cut; default 1.
            strengths: the method by which w was computed.
            basis: kind of basis.
            settings: everything else that fixes the numbers.
            pairs: indices (earlier, later) of each block's cuts, earlier < later; default adjacent cuts in order.
            beyond_skip: one matrix or None per block, see the attributes.
            errors: one matrix or None per block, see the attributes.
            beyond_errors: one matrix or None per block, see the attributes.
            weights: one matrix with signs or None per block, see the attributes.
            nodes: one table per cut, see the attributes.
            origin: where the graph comes from, see the attributes.
            unit: one of UNITS, see the attributes.

        Raises:
            GraphError: no blocks, a block that is not a matrix, widths that do not fit together, pairs out of
                order or twice, strengths that are negative, NaN or infinite, tables that do not fit the
                cuts, or an unknown unit.
        """
        if unit not in UNITS:
            raise GraphError(f"unknown unit {unit!r}: expected one of {', '.join(UNITS)}")
        if any(issparse(block) for block in blocks):
            blocks, weights = list(map(_sparse, blocks)), list(map(_sparse, weights))
        arrays = tuple(_matrix(f"block {p}", block) for p, block in enumerate(blocks))
        if not arrays:
            raise GraphError("a graph needs at least one block of strengths between two cuts, none was given")
        given = {"beyond_skip": beyond_skip, "errors": errors, "beyond_errors": beyond_errors, "weights": weights}
        beside: dict[str, Any] = {name: _beside(name, blocks, arrays) for name, blocks in given.items()}
        largest = max(float(array.max()) for array in arrays)
        if largest and not _TINY <= largest <= _HUGE:
            raise GraphError(f"the largest strength is {largest:g}: expected {_TINY:g} to {_HUGE:g}; change their unit")
        joined = _checked_pairs(pairs, len(arrays))
        widths = _widths(arrays, joined)
        names = tuple(cuts) if cuts is not None else tuple(str(i) for i in range(len(widths)))
        if len(names) != len(widths) or len(set(names)) != len(names):
            raise GraphError(f"{len(widths)} cuts need as many different names, got {list(names)}")
        masses = tuple(importance) if importance is not None else tuple(np.ones(k) for k in widths)
        if tuple(len(w) for w in masses) != widths:
            raise GraphError(f"importance has lengths {[len(w) for w in masses]}, expected {list(widths)}")
        if not all(np.isfinite(w).all() for w in masses):
            raise GraphError("importance holds NaN or infinite values: expected the variance of each coordinate")
        beside |= {"nodes": checked_nodes(nodes, widths), "origin": dict(origin or {}), "unit": unit}
        return cls(names, arrays, masses, strengths, basis, dict(settings or {}), joined, **beside)

    @property
    def beyond(self) -> tuple[Block, ...]:
        """For each block the strengths beyond the skip path: `beyond_skip`, or the block if there is none."""
        kept = self.beyond_skip or (None,) * len(self.blocks)
        return tuple(block if new is None else new for block, new in zip(self.blocks, kept, strict=True))

    def significant(self, epsilon: float | Sequence[float]) -> InteractionGraph:
        """Return the graph without the edges that are not above the cutoff by two standard errors.

        These have strength 0 then, beyond skip paths too; exact strengths stay as they are.

        >>> graph = InteractionGraph.from_blocks([[[1.0, 0.5]]], errors=[np.array([[0.1, 0.2]])])
        >>> graph.significant(0.04).blocks[0].tolist()
        [[1.0, 0.0]]
        """
        if all(error is None for error in (*self.errors, *self.beyond_errors)):
            return self
        cutoffs = self.cutoffs(epsilon)
        beyond = _certain(self.beyond_skip, self.beyond_errors, cutoffs)
        return replace(self, blocks=_certain(self.blocks, self.errors, cutoffs), beyond_skip=beyond)

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of nodes at each cut."""
        return tuple(len(importance) for importance in self.importance)

    @property
    def cut_slices(self) -> tuple[slice, ...]:
        """For each cut the range of its nodes when all nodes are numbered cut after cut."""
        ends = np.cumsum([0, *self.widths]).tolist()
        return tuple(slice(a, b) for a, b in pairwise(ends))

    @property
    def pair_slices(self) -> tuple[tuple[slice, slice], ...]:
        """For each block the ranges of the nodes of its earlier and its later cut."""
        cuts = self.cut_slices
        return tuple((cuts[a], cuts[b]) for a, b in self.pairs)

    @cached_property
    def edge_list(self) -> Edges:
        """All edges with their strengths; nodes are numbered cut after cut."""
        return Edges.of(self.blocks, self.pair_slices)

    @property
    def matrices(self) -> tuple[Float[np.ndarray, "_ _"], ...]:
        """The blocks as dense matrices, where some are kept as sparse rows.

        >>> from scipy.sparse import csr_array
        >>> graph = InteractionGraph.from_blocks([csr_array(np.eye(20))])
        >>> type(graph.blocks[0]).__name__, type(graph.matrices[0]).__name__
        ('csr_array', 'ndarray')
        """
        return tuple(map(dense, self.blocks))

    @property
    def positions(self) -> Int[np.ndarray, " nodes"] | None:
        """The position of every node in a sequence, cut after cut; None where not all have one, or edges go back."""
        flat = [at for table in self.nodes for at in table.positions]
        if not flat or None in flat:
            return None
        found = np.array(flat, dtype=np.int64)
        edges = self.edge_list
        return None if (found[edges.earlier] > found[edges.later]).any() else found

    @property
    def n_nodes(self) -> int:
        """The number of nodes of all cuts together."""
        return sum(self.widths)

    def cutoffs(self, epsilon: float | Sequence[float] = 0.0) -> tuple[float, ...]:
        """Compute the cutoff sqrt(epsilon) of each block, for one loss scale or one per pair of cuts.

        Raises:
            GraphError: a loss scale below 0 or not finite, or not one per pair.

        >>> InteractionGraph.from_blocks([np.eye(2), np.eye(2)]).cutoffs((0.25, 4.0))
        (0.5, 2.0)
        """
        try:
            scales = np.asarray(epsilon, dtype=np.float64)
        except (TypeError, ValueError):
            raise GraphError(f"epsilon is {epsilon!r}: expected a number, or one per pair of cuts") from None
        scales = np.full(len(self.blocks), scales) if scales.ndim == 0 else scales.ravel()
        if len(scales) != len(self.blocks):
            raise GraphError(
                f"{len(scales)} loss scales were given: expected one, or one for each of {len(self.blocks)} pairs"
            )
        if not (np.isfinite(scales) & (scales >= 0)).all():
            raise GraphError(f"epsilon is {epsilon!r}: expected loss scales of 0 or more")
        return tuple(np.sqrt(scales).tolist())

    def n_edges(self, epsilon: float | Sequence[float] = 0.0) -> int:
        """Count the edges with w > sqrt(epsilon), with one epsilon for all or one per pair of cuts."""
        return sum(int((w > cutoff).sum()) for w, cutoff in zip(self.blocks, self.cutoffs(epsilon), strict=True))

    def edges(self, epsilon: float | Sequence[float] = 0.0) -> Iterator[tuple[tuple[str, int], tuple[str, int], float]]:
        """Yield (earlier node, later node, w) for each edge with w > sqrt(epsilon), one epsilon or one per pair."""
        for (a, b), block, cutoff in zip(self.pairs, self.blocks, self.cutoffs(epsilon), strict=True):
            columns = (column.tolist() for column in _above(block, cutoff))
            for j, i, w in zip(*columns, strict=True):
                yield (self.cuts[a], i), (self.cuts[b], j), w

    def to_networkx(self, epsilon: float | Sequence[float] = 0.0) -> networkx.DiGraph:
        """Convert to a directed networkx graph of nodes (cut, coordinate), `importance` and `strength`.

        Nodes have the attribute `importance`, edges `strength`. The graph's attribute `epsilon` is the loss scale;
        where pairs of cuts have different ones, `epsilons` is the JSON list of them and there is no `epsilon`.
        Where the graph has names and signs, nodes have `node_id`, `type`, `position` and `label`, edges `weight`.
        """
        import networkx

        scales = [epsilon] if np.ndim(epsilon) == 0 else np.ravel(epsilon).tolist()
        named = {"epsilon": scales[0]} if len(set(scales)) == 1 else {"epsilons": json.dumps(scales)}
        graph = networkx.DiGraph(**{k: getattr(self, k) for k in ("strengths", "basis")}, **named)
        for cut, importance in zip(self.cuts, self.importance, strict=True):
            graph.add_nodes_from(
                ((cut, i), {"cut": cut, "coordinate": i, "importance": float(w)}) for i, w in enumerate(importance)
            )
        for cut, table in zip(self.cuts, self.nodes, strict=bool(self.nodes)):
            for i in range(len(table)):
                row: dict[str, Any] = {"node_id": table.ids[i], "type": table.types[i]}
                row |= {"position": table.positions[i], "label": table.labels[i]}
                graph.nodes[cut, i].update((name, value) for name, value in row.items() if value is not None)
        for (a, b), signs, found in zip(self.pairs, self._weights_of(), self._found(epsilon), strict=True):
            for j, i, w, signed in zip(*(column.tolist() for column in found), strict=True):
                more = {} if signs is None else {"weight": signed}
                graph.add_edge((self.cuts[a], i), (self.cuts[b], j), strength=w, **more)
        return graph

    def _found(self, epsilon: float | Sequence[float] = 0.0) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield for each block later and earlier node, strength and weight of the edges with w > sqrt(epsilon).

        The weight is the strength where a block has none.
        """
        for block, signs, cutoff in zip(self.blocks, self._weights_of(), self.cutoffs(epsilon), strict=True):
            later, earlier, strength = _above(block, cutoff)
            yield later, earlier, strength, strength if signs is None else values_at(signs, later, earlier)

    def _weights_of(self) -> tuple[Block | None, ...]:
        """For each block its weights with signs, None where it has none."""
        return self.weights or (None,) * len(self.blocks)

    def to_frame(self, epsilon: float | Sequence[float] = 0.0) -> pandas.DataFrame:
        """Convert the edges with w > sqrt(epsilon) to a pandas data frame, the strongest first.

        Raises:
            InputError: pandas is not installed.
        """
        return data_frame(self._columns(epsilon))

    def _columns(self, epsilon: float | Sequence[float] = 0.0) -> Columns:
        parts = []
        for pair, (later, earlier, strength, weight) in zip(self.pairs, self._found(epsilon), strict=True):
            ends = [np.full(len(later), self.cuts[cut], dtype=object) for cut in pair]
            parts.append((ends[0], earlier, ends[1], later, strength, *((weight,) if self.weights else ())))
        names = ("earlier_cut", "earlier", "later_cut", "later", "strength", *(("weight",) if self.weights else ()))
        columns = dict(zip(names, map(np.concatenate, zip(*parts, strict=True)), strict=True))
        order = np.argsort(-columns["strength"], kind="stable")
        return {name: column[order] for name, column in columns.items()}

    def _repr_html_(self) -> str:
        """Return a table of the cuts, with the number and the largest strength of the edges from each to later ones."""
        edges, strongest = np.zeros(len(self.cuts), dtype=int), np.zeros(len(self.cuts))
        for (a, _), block in zip(self.pairs, self.blocks, strict=True):
            edges[a] += _filled(block)
            strongest[a] = max(strongest[a], block.max())
        columns = {"cut": self.cuts, "nodes": self.widths, "edges to later cuts": edges, "strongest": strongest}
        head = f"Interaction graph: {self.n_nodes:,} nodes, {edges.sum():,} edges ({self.strengths})"
        return html_table(head, columns)

    def to_igraph(self, epsilon: float | Sequence[float] = 0.0) -> igraph.Graph:
        """Convert to a directed igraph graph; vertices have `cut`, `coordinate`, `importance`, edges `strength`.

        Where the graph has names and signs, vertices have `node_id`, `type` and `label`, edges `weight`.
        """
        import igraph

        ends: list[tuple[int, int]] = []
        values: dict[str, list[float]] = {name: [] for name in ("strength", "weight")[: 1 + bool(self.weights)]}
        for (a, b), (later, earlier, *numbers) in zip(self.pair_slices, self._found(epsilon), strict=True):
            ends += zip((earlier + a.start).tolist(), (later + b.start).tolist(), strict=True)
            for name, column in zip(values, numbers, strict=False):
                values[name] += column.tolist()
        graph = igraph.Graph(n=self.n_nodes, edges=ends, directed=True, edge_attrs=values)
        for name, kind in (("node_id", "ids"), ("type", "types"), ("label", "labels")) if self.nodes else ():
            graph.vs[name] = [value for table in self.nodes for value in getattr(table, kind)]
        graph.vs["cut"] = [cut for cut, k in zip(self.cuts, self.widths, strict=True) for _ in range(k)]
        graph.vs["coordinate"] = [i for k in self.widths for i in range(k)]
        graph.vs["importance"] = np.concatenate(self.importance).tolist()
        return graph

    def plot(
        self,
        partition: Result | None = None,
        epsilon: float | Sequence[float] | None = None,
        *,
        title: str | None = None,
        names: Mapping[str, Sequence[str]] | None = None,
    ) -> Figure:
        """Draw the layered graph, the modules of a partition in colour.

        `names` are those of the nodes of a cut; by default their labels or ids, where the graph has them.
        """
        return figure(self, partition, epsilon, title=title, names=self._titles() if names is None else names)

    def plot_interactive(
        self,
        partition: Result | None = None,
        epsilon: float | Sequence[float] | None = None,
        *,
        title: str | None = None,
        names: Mapping[str, Sequence[str]] | None = None,
    ) -> Any:
        """Draw the layered graph as a plotly figure, with a card at each node; it needs `interbasis[notebook]`.

        Raises:
            InputError: plotly is not installed.
        """
        return interactive_figure(
            self, partition, epsilon, title=title, names=self._titles() if names is None else names
        )

    def _titles(self) -> Mapping[str, Sequence[str]] | None:
        tables = zip(self.cuts, self.nodes, strict=bool(self.nodes))
        return {cut: [shorten(t, 32) or t[:32] for t in table.titles] for cut, table in tables} if self.nodes else None

    def to_bytes(self) -> bytes:
        """Return the content of the file that `save` writes; blocks as compressed sparse rows."""
        arrays = {f"importance.{i}": weight for i, weight in enumerate(self.importance)}
        named = {f"block.{p}": block for p, block in enumerate(self.blocks)}
        for name in _BESIDE:
            named |= {f"{name}.{p}": block for p, block in enumerate(getattr(self, name)) if block is not None}
        for name, block in named.items():
            rows = as_rows(block)
            arrays[f"{name}.strength"] = rows.data
            arrays[f"{name}.earlier"] = rows.indices.astype(np.int32)
            arrays[f"{name}.row_start"] = rows.indptr.astype(np.int64)
        texts = {f"nodes.{i}": table.to_json() for i, table in enumerate(self.nodes)}
        texts |= {"origin": json.dumps(self.origin)} if self.origin else {}
        arrays |= {name: np.frombuffer(text.encode(), dtype=np.uint8) for name, text in texts.items()}
        metadata = {k: getattr(self, k) for k in ("cuts", "widths", "strengths", "basis", "settings", "pairs")}
        metadata |= {"unit": self.unit} if self.unit != "loss" else {}
        metadata |= {"sparse": True} if any(isinstance(block, csr_array) for block in self.blocks) else {}
        return encode("graph", arrays, metadata)

    @classmethod
    def from_bytes(cls, data: bytes) -> InteractionGraph:
        """Rebuild a graph from `to_bytes`.

        Raises:
            GraphError: the parts of the file do not fit together.
        """
        arrays, meta = decode("graph", data)
        sparse = meta.get("sparse", False)
        widths = meta["widths"]
        lengths = [len(arrays.get(f"importance.{i}", ())) for i in range(len(widths))]
        if lengths != widths:
            raise GraphError(f"the file says {widths} nodes and has the importance of {lengths}: save the graph again")
        pairs = meta.get("pairs") or list(pairwise(range(len(widths))))  # not in files of version 0.1

        def block(name: str, a: int, b: int) -> Block:
            try:
                parts = tuple(arrays[f"{name}.{part}"] for part in ("strength", "earlier", "row_start"))
                rows = csr_array(parts, shape=(widths[b], widths[a]))
                rows.check_format()  # places outside of the matrix
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise GraphError(f"{name} of the file is no matrix from cut {a} to {b}: {error}") from error
            if widths[a] * widths[b] > _LARGEST and not (sparse and name.startswith(("block", "weights"))):
                raise GraphError(
                    f"{name} of the file has {widths[b]:,} by {widths[a]:,} entries, too many if not sparse"
                )
            return rows if sparse else np.asarray(rows.toarray())

        def beside(name: str) -> list[Any]:
            known = [f"{name}.{p}.strength" in arrays for p in range(len(pairs))]
            found = [block(f"{name}.{p}", a, b) if known[p] else None for p, (a, b) in enumerate(pairs)]
            return found if any(known) else []

        return cls.from_blocks(
            [block(f"block.{p}", a, b) for p, (a, b) in enumerate(pairs)],
            meta["cuts"],
            [arrays[f"importance.{i}"] for i in range(len(widths))],
            strengths=meta["strengths"],
            basis=meta["basis"],
            settings=meta["settings"],
            pairs=[(a, b) for a, b in pairs],
            nodes=[
                NodeTable.from_json(arrays[f"nodes.{i}"].tobytes()) for i in range(len(widths)) if "nodes.0" in arrays
            ],
            origin=json.loads(arrays["origin"].tobytes()) if "origin" in arrays else None,
            unit=meta.get("unit", "loss"),  # not in files of versions before 0.8
            **{name: beside(name) for name in _BESIDE},
        )


def _certain(blocks: Sequence[Any], errors: Sequence[Any], cutoffs: Sequence[float]) -> tuple[Any, ...]:
    """Set strengths to 0 that are not above the cutoff by two standard errors; exact ones stay."""
    return tuple(
        w if w is None or error is None else np.where(dense(w) - _SURE * error > cutoff, dense(w), 0.0)
        for w, error, cutoff in zip(blocks, errors or (None,) * len(blocks), cutoffs, strict=bool(blocks))
    )


def _filled(block: Block) -> int:
    """Count the entries that are not 0."""
    return int(np.count_nonzero(block if isinstance(block, np.ndarray) else block.data))


def _above(block: Block, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return later and earlier node and strength of the edges above a cutoff."""
    later, earlier, strength = entries(block)
    kept = strength > cutoff
    return later[kept], earlier[kept], strength[kept]


def _sparse(block: Any) -> Any:
    """Return sparse rows of a matrix of numbers, None of None."""
    return csr_array(block) if isinstance(block, np.ndarray) and block.ndim == 2 else block


def _matrix(name: str, block: Any, signed: bool = False) -> Any:
    try:
        if isinstance(block, Tensor):
            block = block.detach().to("cpu", torch.float64).numpy()
        if np.iscomplexobj(block):
            raise TypeError("complex numbers")
        array = block
        if issparse(block) and array.ndim == 2:  # numbers first: duplicates are summed
            array = stored(csr_array(array.astype(np.float64)))
        array = array if isinstance(array, csr_array) else np.asarray(array)
        array = array.astype(np.float64, copy=False)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GraphError(f"{name} is no matrix of real numbers: {error}") from error
    if array.ndim != 2 or 0 in array.shape:
        raise GraphError(f"{name} has shape {array.shape}: expected (later nodes, earlier nodes), none zero")
    values = array if isinstance(array, np.ndarray) else array.data
    if signed and not np.isfinite(values).all():
        raise GraphError(f"{name} holds NaN or infinite values: expected finite numbers")
    if not signed and (not np.isfinite(values).all() or (values < 0).any()):
        raise GraphError(f"{name} holds negative, NaN or infinite strengths: expected w >= 0")
    return array


def _beside(name: str, given: Sequence[Block | sparray | None], blocks: Sequence[Block]) -> tuple[Block | None, ...]:
    """Check matrices that go with blocks, None where a block has none."""
    signed = name == "weights"
    found = tuple(None if block is None else _matrix(f"{name} {p}", block, signed) for p, block in enumerate(given))
    found = found if signed else tuple(None if block is None else dense(block) for block in found)
    shapes = [block.shape for block in blocks]
    given_shapes = [s if b is None else b.shape for b, s in zip(found, shapes, strict=False)]
    if found and (len(found) != len(shapes) or given_shapes != shapes):
        raise GraphError(f"{name}: expected None or a matrix for each block, of the shapes {shapes}")
    return found


def _checked_pairs(pairs: Sequence[tuple[int, int]] | None, n_blocks: int) -> tuple[tuple[int, int], ...]:
    try:
        joined = tuple((int(a), int(b)) for a, b in (pairs if pairs is not None else pairwise(range(n_blocks + 1))))
    except (TypeError, ValueError):
        raise GraphError(f"pairs are {pairs!r}: expected the indices (earlier, later) of two cuts per block") from None
    if len(joined) != n_blocks or len(set(joined)) != n_blocks or any(not 0 <= a < b for a, b in joined):
        raise GraphError(
            f"{n_blocks} blocks were given for the pairs of cuts {list(joined)}: expected as many different pairs "
            "(earlier, later), cuts counted from 0 in order of computation"
        )
    if missing := set(range(max(b for _, b in joined))) - {cut for pair in joined for cut in pair}:
        raise GraphError(f"no block reaches the cuts {sorted(missing)}: leave them out")
    return joined


def _widths(blocks: Sequence[Block], pairs: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    widths: dict[int, int] = {}
    for p, (block, (a, b)) in enumerate(zip(blocks, pairs, strict=True)):
        for cut, width in ((a, block.shape[1]), (b, block.shape[0])):
            if widths.setdefault(cut, width) != width:
                raise GraphError(f"block {p} has {width} nodes at cut {cut}, an earlier block has {widths[cut]}")
    return tuple(widths[cut] for cut in sorted(widths))
