"""Interventions on a network in its basis: hooks ablate nodes and edges, on held-out data.

A node that is ablated, or not seen along a cut edge, is replaced by its mean over the data of the basis, by its value
at activations of zero, or by its value at another data point. Cuts without ablation are left alone, so that keeping
everything changes no bit; at the others f = mean + C^+ f^, and directions that the basis dropped are at their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias, TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ..basis.bases import KINDS, Bases
from ..checkpoints.datasets import Dataset
from ..errors import DataError, GraphError, InputError
from ..graph.interaction_graph import InteractionGraph
from ..network.batches import Batch
from ..network.masks import Counted
from ..network.network import Network
from .edge_ablation import Receivers, to_coordinates, to_values
from .metrics import Metric, MetricFunction, find_metric
from .order import read_in_order

__all__ = ["REPLACEMENTS", "Edges", "Interventions", "Nodes", "Options", "Values"]

REPLACEMENTS = ("mean", "zero", "resample")

"""Replacements of a node that is ablated."""

Nodes: TypeAlias = Mapping[int, Bool[np.ndarray, " _"]]

"""By index of a cut which of its nodes are kept; cuts that are not named keep all."""

Edges: TypeAlias = Mapping[int, Bool[np.ndarray, "_ _"]]

"""By index p of a pair of adjacent cuts (p, p + 1) which edges are kept; pairs that are not named keep all."""

Values: TypeAlias = dict[str, Float[np.ndarray, " _"]]

"""By name of a metric its value at every data point."""

_KEPT = 2**25  # largest number of cached values of nodes that see the same again, over all batches

_CHECKS = 2  # number of random tensors with which the last cut is compared with the output


class Options(TypedDict, total=False):
    """Keyword arguments of `Interventions` that every experiment takes.

    Attributes:
        targets: targets of the data, where they are not a `Dataset`.
        higher_is_better: direction of metrics that are functions, which need it.
        replacement: replacement of ablated nodes, see `REPLACEMENTS`; default "mean".
        seed: seed of resampling and of random controls; default 0.
    """

    targets: Tensor | Sequence[Tensor] | None
    higher_is_better: bool | None
    replacement: str
    seed: int


class Interventions:
    """A network with its bases and held-out data, on which the effect of interventions is measured.

    Attributes:
        net, bases: as given.
        metrics: the metrics, the behavioural loss first.
        replacement, seed: replacement of ablated nodes, and seed of resampling.
        n: number of data points.
        whole: every metric of the whole network at every data point.
        ends_in_cut: whether the last cut is the output itself.
    """

    def __init__(
        self,
        net: Network,
        bases: Bases,
        batches: Iterable[Batch],
        *,
        targets: Tensor | Sequence[Tensor] | None = None,
        metrics: Sequence[str | MetricFunction | Metric] = (),
        higher_is_better: bool | None = None,
        replacement: str = "mean",
        seed: int = 0,
        exact: bool = True,
        ordered: bool = True,
    ) -> None:
        """Read the data and run the whole network on them.

        Args:
            net: the network.
            bases: bases of all its cuts.
            batches: held-out data, kept in memory with the activations at the cuts; a `Dataset` brings its targets.
                They must come in the same order in every pass (see `order`), since it pairs values with targets.
            targets: (n, ...), or a list of tensors with one for each batch, for metrics that need them.
            metrics: metrics besides the behavioural loss, see `find_metric`.
            higher_is_better: direction of metrics that are functions, which need it.
            replacement: "mean" (over the data of the basis), "zero" or "resample" (another data point's, drawn
                once for all).
            seed: seed of that draw.
            exact: use exact forms of the maps between cuts; without, the model runs for each different mask.
            ordered: False if no data point is named and no targets are given, so that the order has no effect.

        Raises:
            GraphError: bases of other cuts, or an unknown metric or replacement.
            DataError: no data, NaN, data or targets that do not fit, a loader that shuffles, or a metric whose value of
                a data point depends on the other ones.
            CutError: a cut leaks.
        """
        if tuple(bases) != net.cuts:
            raise GraphError(f"the bases belong to the cuts {list(bases)}, the network has {list(net.cuts)}")
        if replacement not in REPLACEMENTS:
            raise GraphError(f"unknown replacement {replacement!r}: expected one of {', '.join(REPLACEMENTS)}")
        if isinstance(metrics, str):
            raise GraphError(f"metrics is {metrics!r}: expected a list, [{metrics!r}]")
        if isinstance(batches, Tensor):
            raise DataError(
                f"batches is one tensor of shape {tuple(batches.shape)}: expected a list of batches, [tensor]"
            )
        found = [find_metric(net.loss if m == "loss" else m, higher_is_better) for m in metrics]
        self.net, self.bases, self.replacement, self.seed = net, bases, replacement, seed
        named = {m.name: m for m in (find_metric(net.loss), *found)}
        for m in found:
            if named[m.name] != m or (m.name == net.loss and m != find_metric(net.loss)):
                raise GraphError(f"two metrics are called {m.name!r}: give each function a name of its own")
        self.metrics = tuple(named.values())
        self._order = [bases[cut] for cut in net.cuts]
        inputs = read_in_order(batches) if ordered or targets is not None else list(batches)
        if not inputs:
            raise DataError("the held-out data hold no batch: nothing to measure on")
        net.check_once(inputs)
        self._receivers = [
            Receivers(net, a, b, p, exact=exact)
            for p, (a, b) in enumerate(zip(self._order[:-1], self._order[1:], strict=True))
        ]
        given = batches.targets if targets is None and isinstance(batches, Dataset) else targets
        given = None if given is None else _whole(given)
        self._parts = self._read(inputs, given)
        self.n = sum(len(part.whole) for part in self._parts)
        self.ends_in_cut = self._is_output_last_cut(self._parts[0])
        for part in self._parts:
            for metric in self.metrics:
                metric.check_alone(part.whole, part.whole, part.targets, part.counted_output.mask)
        self.whole = self.measure()

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of nodes at each cut."""
        return tuple(len(basis.importance) for basis in self._order)

    @property
    def counted(self) -> tuple[Bool[Tensor, "batch positions"] | None, ...]:
        """Per batch the positions of the output that count at each data point; None where all do."""
        return tuple(part.counted_output.mask for part in self._parts)

    def measure(self, nodes: Nodes | None = None, edges: Edges | None = None) -> Values:
        """Measure every metric at every data point, with some nodes and edges kept.

        Raises:
            GraphError: masks that do not fit the cuts.
            DataError: a metric fails.
        """
        values: dict[str, list[Tensor]] = {metric.name: [] for metric in self.metrics}
        for (output, whole, targets), counted in zip(self.outputs(nodes, edges), self.counted, strict=True):
            for metric in self.metrics:
                values[metric.name].append(metric.values(output, whole, targets, counted))
        return {name: torch.cat(parts).numpy() for name, parts in values.items()}

    def outputs(
        self, nodes: Nodes | None = None, edges: Edges | None = None
    ) -> Iterator[tuple[Float[Tensor, "batch _ _"], Float[Tensor, "batch _ _"], Tensor | None]]:
        """Yield per batch the output with what is kept, that of the whole network, and the targets."""
        kept = {p: self._mask(mask, (self.widths[p],), f"cut {p}") for p, mask in (nodes or {}).items()}
        seen = {
            p: self._mask(mask, (self.widths[p + 1], self.widths[p]), f"pair {p}") for p, mask in (edges or {}).items()
        }
        for part in self._parts:
            yield self._output(part, kept, seen), part.whole, part.targets

    @property
    def uneven(self) -> str | None:
        """Why data points cannot replace each other: their lengths differ; None if they can."""
        if any(counted.mask is not None and not counted.mask.all() for part in self._parts for counted in part.counted):
            return "positions that do not count have no coordinates: expected data points of one length"
        for p in range(len(self._order)):
            if len(lengths := {part.values[p].shape[1] for part in self._parts}) > 1:
                return f"batches have sequences of different lengths: {sorted(lengths)}"
        return None

    def coordinates(self) -> list[Float[Tensor, "n _ _"]]:
        """Compute per cut the coordinates of all data points.

        Raises:
            DataError: batches of sequences of different lengths, or positions that do not count.
        """
        if self.uneven is not None:
            raise DataError(self.uneven)
        return [
            torch.cat([to_coordinates(basis, part.values[p]) for part in self._parts])
            for p, basis in enumerate(self._order)
        ]

    def receive(
        self, p: int, coordinates: Float[Tensor, "n s k"], others: Float[Tensor, "n s k"], mask: Bool[np.ndarray, "j k"]
    ) -> Float[Tensor, "n t j"]:
        """Compute coordinates at cut p + 1; a node sees `coordinates` where its mask says so, else `others`."""
        nodes = np.arange(len(mask))
        return torch.cat(
            [
                self._receivers[p].receive(part.inputs, coordinates[rows], others[rows], mask, nodes)
                for part, rows in self._rows()
            ]
        )

    def pushed(self, start: int, coordinates: Float[Tensor, "n s k"], stop: int) -> Float[Tensor, "n t j"]:
        """Compute coordinates at a later cut from those at an earlier one."""
        return torch.cat(
            [
                to_coordinates(
                    self._order[stop],
                    self.net.resume(part.inputs, start, to_values(self._order[start], coordinates[rows]), stop),
                )
                for part, rows in self._rows()
            ]
        )

    def _rows(self) -> Iterator[tuple[_Part, slice]]:
        """Yield each batch with the range of its data points among all."""
        start = 0
        for part in self._parts:
            yield part, slice(start, start + len(part.whole))
            start += len(part.whole)

    def require(self, graph: InteractionGraph) -> None:
        """Refuse a graph whose edges cannot be cut here.

        Raises:
            GraphError: other cuts, other numbers of nodes, or edges that skip a cut.
        """
        if graph.cuts != self.net.cuts or graph.widths != self.widths:
            raise GraphError(
                f"the graph has the cuts {dict(zip(graph.cuts, graph.widths, strict=True))}, the network's bases "
                f"{dict(zip(self.net.cuts, self.widths, strict=True))}: give the graph that was built from them"
            )
        if graph.basis in KINDS and graph.basis != self._order[0].kind:
            raise GraphError(
                f"the graph is of a {graph.basis} basis, the bases are of kind {self._order[0].kind}: give the graph "
                "that was built from them"
            )
        if graph.pairs != tuple(pairwise(range(len(self.widths)))):
            raise GraphError("the graph has edges that skip a cut: only edges between adjacent cuts can be cut")

    def without_edges(self) -> Edges:
        """Return masks without any edge: every node sees only replacements."""
        return {p: np.zeros((b, a), dtype=bool) for p, (a, b) in enumerate(pairwise(self.widths))}

    def _mask(self, mask: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
        array = np.asarray(mask)
        if array.dtype != bool or array.shape != shape:
            raise GraphError(f"mask of {where}: expected booleans of shape {shape}, got {array.dtype} {array.shape}")
        return array

    def _read(self, inputs: list[Batch], targets: Tensor | None) -> list[_Part]:
        donors: Callable[[int, int], Batch] | None = (
            _donors(inputs, self.seed) if self.replacement == "resample" else None
        )
        parts: list[_Part] = []
        start = 0
        for batch in inputs:
            with torch.no_grad():
                trace = self.net.trace(batch)
            stop = start + len(trace.output)
            part = _Part(
                batch,
                trace.output,
                None if targets is None else targets[start:stop],
                list(trace.values),
                trace.output_counted,
                trace.counted,
            )
            if donors is not None:
                with torch.no_grad():
                    given = self.net.trace(donors(start, stop))
                if not all(map(Counted.agrees, given.counted, trace.counted)):
                    raise DataError(
                        "data points cannot be resampled where other positions count at another one: take "
                        "replacement='mean', or data points of one length"
                    )
                part.others = [to_coordinates(basis, v) for basis, v in zip(self._order, given.values, strict=True)]
            elif self.replacement == "zero":
                part.others = [
                    to_coordinates(basis, torch.zeros(basis.mean.shape, dtype=torch.float64)).expand(
                        *value.shape[:-1], -1
                    )
                    for basis, value in zip(self._order, part.values, strict=True)
                ]
            parts.append(part)
            start = stop
        if targets is not None and len(targets) != start:
            raise DataError(f"there are {len(targets)} targets for {start} data points: give one per data point")
        return parts

    def _output(self, part: _Part, nodes: Nodes, edges: Edges) -> Tensor:
        """Compute the output cut after cut, from the first cut with an ablation."""
        at: int | None = None  # the last cut whose values were replaced
        values = torch.empty(0)
        for p, basis in enumerate(self._order):
            kept, mask = nodes.get(p), edges.get(p)
            loses_nodes, loses_edges = kept is not None and not kept.all(), mask is not None and not mask.all()
            if not loses_nodes and not loses_edges:
                continue
            if at != p:
                values = part.values[p] if at is None else self.net.resume(part.inputs, at, values, p)
            if loses_nodes:
                whole = to_coordinates(basis, values)
                others = part.others[p] if part.others else torch.zeros(())
                values = to_values(basis, torch.where(torch.from_numpy(kept), whole, others))
                at = p
            if loses_edges and mask is not None:
                received = self._receive(part, p, values, mask, touched=at is not None)
                values, at = to_values(self._order[p + 1], received), p + 1
        if at is None:
            return part.whole
        last = len(self._order) - 1
        if not self.ends_in_cut:
            return self.net.resume(part.inputs, at, values)
        return part.counted_output.clean(values) if at == last else self.net.resume(part.inputs, at, values, last)

    def _receive(self, part: _Part, p: int, values: Tensor, mask: np.ndarray, *, touched: bool) -> Tensor:
        """Compute coordinates at cut p + 1; nodes that see everything also see what the basis dropped."""
        full = mask.all(1)
        shape = part.values[p + 1].shape
        received = torch.empty(*shape[:-1], len(mask), dtype=torch.float64)
        if full.any():
            after = self.net.resume(part.inputs, p, values, p + 1) if touched else part.values[p + 1]
            seeing = torch.from_numpy(full)
            received[..., seeing] = to_coordinates(self._order[p + 1], after)[..., seeing]
        others = part.others[p] if part.others else None
        coordinates = to_coordinates(self._order[p], values)
        if touched:
            nodes = np.flatnonzero(~full)
            fresh = self._receivers[p].receive(part.inputs, coordinates, others, mask, nodes)
            received[..., torch.from_numpy(nodes)] = fresh
            return received
        keys = {int(j): (p, int(j), mask[j].tobytes()) for j in np.flatnonzero(~full)}
        nodes = np.array([j for j, key in keys.items() if key not in part.known], dtype=np.int64)
        seen = {j: part.known[key] for j, key in keys.items() if key in part.known}
        if len(nodes):
            columns = self._receivers[p].receive(part.inputs, coordinates, others, mask, nodes).unbind(-1)
            seen |= dict(zip(nodes.tolist(), columns, strict=True))
            if (len(part.known) + len(columns)) * columns[0].numel() > _KEPT // len(self._parts):
                part.known.clear()
            part.known |= {keys[j]: seen[j] for j in nodes.tolist()}
        for j, column in seen.items():
            received[..., j] = column
        return received

    def _is_output_last_cut(self, part: _Part) -> bool:
        """Return whether the tensor at the last cut is the output."""
        last = len(self._order) - 1
        if not torch.equal(part.whole, part.values[last]):
            return False
        draws = torch.Generator().manual_seed(0)
        for _ in range(_CHECKS):
            random = part.counted_output.clean(torch.randn(part.whole.shape, generator=draws).to(part.whole))
            if not torch.equal(self.net.resume(part.inputs, last, random), random):
                return False
        return True


@dataclass
class _Part:
    """A batch, what the whole network computes on it, and cached results of nodes that see the same again."""

    inputs: Batch
    whole: Tensor
    targets: Tensor | None
    values: list[Tensor]
    counted_output: Counted
    counted: tuple[Counted, ...]
    others: list[Tensor] = field(default_factory=list)
    known: dict[tuple[int, int, bytes], Tensor] = field(default_factory=dict)


def _whole(targets: Any) -> Tensor:
    """Return the targets of all data points, joined where they are given batch by batch."""
    if (
        isinstance(targets, list | tuple)
        and targets
        and all(isinstance(part, Tensor) and part.ndim for part in targets)
    ):
        if len({part.shape[1:] for part in targets}) > 1:
            shapes = ", ".join(str(tuple(part.shape)) for part in targets[:4])
            raise DataError(
                f"targets of batches have the shapes {shapes}: expected (data points, ...), alike but for the first"
            )
        return torch.cat(list(targets))
    try:
        return torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"targets is a {type(targets).__name__} that is no tensor ({error}): expected a tensor (data points, ...), "
            "or a list with one for each batch"
        ) from error


def _donors(inputs: list[Batch], seed: int) -> Callable[[int, int], Batch]:
    """Assign another data point to each one by a random cycle through all, so that no point is its own."""
    flat, structures = zip(*(tree_flatten(batch) for batch in inputs), strict=True)
    try:
        joined = [
            torch.cat(leaves) if isinstance(leaves[0], Tensor) else leaves[0] for leaves in zip(*flat, strict=True)
        ]
    except (RuntimeError, ValueError) as error:
        raise DataError(f"data points cannot be resampled across batches of different shapes: {error}") from error
    n = next(len(leaf) for leaf in joined if isinstance(leaf, Tensor))
    if n < 2:
        raise DataError("there is one data point: resampling needs another")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    donor = torch.empty_like(order)
    donor[order] = order.roll(1)
    whole = tree_unflatten(joined, structures[0])
    return lambda start, stop: tree_map(lambda v: v[donor[start:stop]] if isinstance(v, Tensor) else v, whole)
