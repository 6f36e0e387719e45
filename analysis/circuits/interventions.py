"""Interventions on a network in its basis: hooks ablate nodes and edges, on held-out data.

A node that is ablated, or not seen along a cut edge, is replaced by its mean over the data of the basis, by its value
at activations of zero, or by its value at another data point. Cuts without ablation are left alone, so that keeping
everything changes no bit; at the others f = mean + C^+ f^, and directions that the basis dropped are at their mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias, TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ..basis.bases import KINDS, Bases
from ..checkpoints.datasets import Dataset
from ..errors import DataError, GraphError, InputError
from ..graph.interaction_graph import InteractionGraph
from ..huggingface.language import is_decoder, numbered, token_targets
from ..network.batches import Batch, map_tensors, take_points
from ..network.checks import spread
from ..network.masks import Counted
from ..network.network import Network
from .edge_ablation import Receivers, to_coordinates, to_values
from .metrics import NEEDS_TARGETS, Metric, MetricFunction, find_metric
from .order import read_in_order

__all__ = ["REPLACEMENTS", "Edges", "Interventions", "Nodes", "Options", "Values"]

REPLACEMENTS = ("mean", "zero", "resample")

"""Replacements of a node that is ablated."""

Nodes: TypeAlias = Mapping[int, Bool[np.ndarray, " _"]]

"""By index of a cut which of its nodes are kept; cuts that are not named keep all."""

Edges: TypeAlias = Mapping[int, Shaped[np.ndarray, "_ _"]]

"""By index p of a pair of adjacent cuts (p, p + 1) which edges are kept; pairs that are not named keep all.

Booleans, or numbers from 0 (cut) to 1 (kept): a node then sees m f^ + (1 - m) r, with r what replaces f^.
"""

Values: TypeAlias = dict[str, Float[np.ndarray, " _"]]

"""By name of a metric its value at every data point."""

_KEPT = 2**25  # largest number of cached values of nodes that see the same again, over all batches

_OUTPUTS = 2**27  # largest number of outputs of the whole network that are kept; the rest are computed again

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
                Of models of tokens a batch may be a mapping; padding on the left is numbered (see `numbered`).
            targets: (n, ...), or a list of tensors with one for each batch, for metrics that need them; default: the
                `labels` in the batches of a model of tokens, or for a decoder the next tokens (see `token_targets`).
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
        if isinstance(batches, Tensor | Mapping):
            seen = f"tensor of shape {tuple(batches.shape)}" if isinstance(batches, Tensor) else type(batches).__name__
            raise DataError(f"batches is one {seen}: expected a list of batches, [batch]")
        found = [find_metric(net.loss if m == "loss" else m, higher_is_better) for m in metrics]
        self.net, self.bases, self.replacement, self.seed, self._exact = net, bases, replacement, seed, exact
        named = {m.name: m for m in (find_metric(net.loss), *found)}
        for m in found:
            if named[m.name] != m or (m.name == net.loss and m != find_metric(net.loss)):
                raise GraphError(f"two metrics are called {m.name!r}: give each function a name of its own")
        self.metrics = tuple(named.values())
        self._order = [bases[cut] for cut in net.cuts]
        inputs = list(numbered(net.model, read_in_order(batches) if ordered or targets is not None else batches))
        if not inputs:
            raise DataError("the held-out data hold no batch: nothing to measure on")
        net.check_once(inputs)
        self._receivers = [
            Receivers(net, a, b, p, exact=exact)
            for p, (a, b) in enumerate(zip(self._order[:-1], self._order[1:], strict=True))
        ]
        given = batches.targets if targets is None and isinstance(batches, Dataset) else targets
        self._parts = self._read(inputs)
        self.n = sum(map(len, self._parts))
        self._pair_with(given)
        self._replace()
        self.ends_in_cut = self._is_output_last_cut(self._parts[0])
        for part in self._parts:
            whole = self._whole_output(part)
            for metric in self.metrics:
                metric.check_alone(whole, whole, part.targets, part.counted_output.mask)
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
            p: self._mask(mask, (self.widths[p + 1], self.widths[p]), f"pair {p}", partly=True)
            for p, mask in (edges or {}).items()
        }
        for part in self._parts:
            whole = self._whole_output(part)
            yield self._output(part, whole, kept, seen), whole, part.targets

    def partial_losses(self, kept: Edges, shares: Float[Tensor, " edges"]) -> Iterator[Float[Tensor, ""]]:
        """Yield per batch the behavioural loss, summed over its data points, with edges cut in part.

        Differentiable by the shares. Nodes all of whose edges are kept also see what the basis dropped.

        Args:
            kept: which edges are kept, as booleans.
            shares: numbers from 0 (cut) to 1 (kept) for all other edges, pair after pair and row after row.
        """
        loss = self.metrics[0]
        places = {p: torch.from_numpy(~kept[p]) for p in sorted(kept) if not kept[p].all()}
        sizes = [int(free.sum()) for free in places.values()]
        for part in self._parts:
            masks = {
                p: torch.ones(free.shape, dtype=torch.float64, device="cpu").masked_scatter(free, some)
                for (p, free), some in zip(places.items(), shares.split(sizes), strict=True)
            }
            whole = self._whole_output(part)
            yield loss.function(self._partial_output(part, whole, masks, places), whole, None).double().sum()

    def sample(self, points: int) -> Interventions:
        """Return the same on at most so many data points, drawn with the seed, and with the behavioural loss alone.

        All are kept where data points replace each other (`replacement="resample"`).
        """
        if self.n <= points or self.replacement == "resample":
            return self
        drawn = torch.randperm(self.n, generator=torch.Generator().manual_seed(self.seed), device="cpu")[:points]
        chosen = torch.zeros(self.n, dtype=torch.bool, device="cpu").index_fill(0, drawn, True)
        rows = [mask.nonzero()[:, 0] for mask in chosen.split([len(part) for part in self._parts])]
        few = [take_points(part.inputs, r) for part, r in zip(self._parts, rows, strict=True) if len(r)]
        options: dict[str, Any] = {"replacement": self.replacement, "seed": self.seed, "exact": self._exact}
        return Interventions(self.net, self.bases, few, **options)

    def partners(self) -> Int[Tensor, " n"]:
        """Pair each data point with another one at which the same positions count, by random cycles through all such.

        A data point that has no such other one is its own partner.
        """
        alike: dict[tuple[Any, ...], list[int]] = {}
        place = 0
        for part in self._parts:
            for row in range(len(part)):
                alike.setdefault(tuple(_counts(part, p, row) for p in range(len(self._order))), []).append(place)
                place += 1
        other = torch.arange(self.n, device="cpu")
        draws = torch.Generator().manual_seed(self.seed)
        for same in alike.values():
            members = torch.tensor(same, device="cpu")
            order = members[torch.randperm(len(members), generator=draws, device="cpu")]
            other[order] = order.roll(1)
        return other

    def coordinates(self, *, other: Int[Tensor, " n"] | None = None) -> list[list[Float[Tensor, "_ _ _"]]]:
        """Compute per cut the coordinates of each batch; or those of other data points, as `partners` gives them."""
        own = [[to_coordinates(b, part.values[p]) for part in self._parts] for p, b in enumerate(self._order)]
        if other is None:
            return own
        return [self._exchanged(p, _rows(batches), other) for p, batches in enumerate(own)]

    def _exchanged(self, p: int, rows: Sequence[Tensor], other: Int[Tensor, " n"]) -> list[Float[Tensor, "_ _ _"]]:
        """Give each data point the coordinates of another one, in order, at the positions that count."""
        masks = [_mask_of(part, p, row) for part in self._parts for row in range(len(part))]
        mixed = [row.clone() for row in rows]
        for here, there in enumerate(other.tolist()):
            mixed[here][masks[here]] = rows[there][masks[there]]
        return [torch.stack([mixed[i] for i in chosen]) for chosen in self._split(torch.arange(self.n, device="cpu"))]

    def receive(
        self,
        p: int,
        coordinates: Sequence[Float[Tensor, "_ _ _"]],
        others: Sequence[Float[Tensor, "_ _ _"]],
        mask: Bool[np.ndarray, "j k"],
    ) -> list[Float[Tensor, "_ _ _"]]:
        """Compute coordinates at cut p + 1; a node sees `coordinates` where its mask says so, else `others`."""
        nodes = np.arange(len(mask))
        return [
            self._receivers[p].receive(part.inputs, here, there, mask, nodes)
            for part, here, there in zip(self._parts, coordinates, others, strict=True)
        ]

    def pushed(
        self, start: int, coordinates: Sequence[Float[Tensor, "_ _ _"]], stop: int
    ) -> list[Float[Tensor, "_ _ _"]]:
        """Compute coordinates at a later cut from those at an earlier one."""
        return [
            to_coordinates(
                self._order[stop], self.net.resume(part.inputs, start, to_values(self._order[start], here), stop)
            )
            for part, here in zip(self._parts, coordinates, strict=True)
        ]

    def _split(self, values: Int[Tensor, " n"]) -> Iterator[list[int]]:
        """Yield the entries that belong to the data points of each batch."""
        yield from (entries.tolist() for entries in values.split([len(part) for part in self._parts]))

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

    def _mask(self, mask: Any, shape: tuple[int, ...], where: str, *, partly: bool = False) -> np.ndarray:
        array = np.asarray(mask)
        shares = partly and array.dtype.kind == "f" and bool(((array >= 0) & (array <= 1)).all())
        if (array.dtype != bool and not shares) or array.shape != shape:
            expected = "booleans (or numbers from 0 to 1)" if partly else "booleans"
            raise GraphError(f"mask of {where}: expected {expected} of shape {shape}, got {array.dtype} {array.shape}")
        return array.astype(np.float64) if shares else array

    def _read(self, inputs: list[Batch]) -> list[_Part]:
        parts: list[_Part] = []
        kept = 0
        for batch in inputs:
            with torch.no_grad():
                trace = self.net.trace(batch)
            kept += trace.output.numel()
            output = trace.output.cpu() if kept <= _OUTPUTS else None
            counted: tuple[Counted, ...] = map_tensors(Tensor.cpu, (trace.output_counted, *trace.counted))
            parts.append(_Part(batch, output, [value.cpu() for value in trace.values], counted[0], counted[1:]))
        return parts

    def _pair_with(self, targets: Any) -> None:
        """Pair each batch with its targets, given or assumed."""
        if targets is not None:
            for part, own in zip(self._parts, _by_batch(targets, [len(part) for part in self._parts]), strict=True):
                part.targets = own
        elif any(metric.name in NEEDS_TARGETS for metric in self.metrics):
            decoder = is_decoder(self.net, spread(self._parts[0].inputs))
            for part in self._parts:
                part.targets = token_targets(self.net, part.inputs, part.counted_output, decoder=decoder)

    def _replace(self) -> None:
        """Set what takes the place of ablated nodes, unless that is their mean."""
        if self.replacement == "zero":
            for part in self._parts:
                part.others = [
                    to_coordinates(basis, torch.zeros(basis.mean.shape, dtype=torch.float64, device="cpu")).expand(
                        *value.shape[:-1], -1
                    )
                    for basis, value in zip(self._order, part.values, strict=True)
                ]
        if self.replacement != "resample":
            return
        if self.n < 2:
            raise DataError("there is one data point: resampling needs another")
        other = self.partners()
        if bool((alone := other == torch.arange(self.n, device="cpu")).any()):
            raise DataError(
                f"at data point {int(alone.long().argmax())} other positions count than at all others, so that it "
                "cannot be resampled: take replacement='mean', or data points of one length"
            )
        for part, others in zip(self._parts, zip(*self.coordinates(other=other), strict=True), strict=True):
            part.others = list(others)

    def _whole_output(self, part: _Part) -> Tensor:
        """Return the output of the whole network, computed again where it was not kept."""
        return self.net.output(part.inputs).cpu() if part.kept is None else part.kept

    def _output(self, part: _Part, whole_output: Tensor, nodes: Nodes, edges: Edges) -> Tensor:
        """Compute the output cut after cut, from the first cut with an ablation."""
        at: int | None = None  # the last cut whose values were replaced
        values = torch.empty(0, device="cpu")
        for p, basis in enumerate(self._order):
            kept, mask = nodes.get(p), edges.get(p)
            loses_nodes = kept is not None and not kept.all()
            loses_edges = mask is not None and not (mask == 1).all()
            if not loses_nodes and not loses_edges:
                continue
            if at != p:
                values = part.values[p] if at is None else self.net.resume(part.inputs, at, values, p).cpu()
            if loses_nodes:
                whole = to_coordinates(basis, values)
                others = part.others[p] if part.others else torch.zeros((), device="cpu")
                values = to_values(basis, torch.where(torch.from_numpy(kept), whole, others))
                at = p
            if loses_edges and mask is not None:
                received = self._receive(part, p, values, mask, touched=at is not None)
                values, at = to_values(self._order[p + 1], received), p + 1
        return whole_output if at is None else self._end(part, at, values)

    def _end(self, part: _Part, at: int, values: Tensor, *, gradients: bool = False) -> Tensor:
        """Compute the output from values at a cut."""
        last = len(self._order) - 1
        if self.ends_in_cut and at == last:
            return part.counted_output.clean(values)
        stop = last if self.ends_in_cut else None
        return self.net.resume(part.inputs, at, values, stop, gradients=gradients).cpu()

    def _partial_output(
        self, part: _Part, whole_output: Tensor, masks: Mapping[int, Tensor], places: Mapping[int, Tensor]
    ) -> Tensor:
        """Compute the output with edges at some places cut in part, differentiable by the masks."""
        at: int | None = None
        values = torch.empty(0, device="cpu")
        for p, mask in masks.items():
            if at is None:
                values = part.values[p]
            elif at != p:
                values = self.net.resume(part.inputs, at, values, p, gradients=True).cpu()
            shape = (*part.values[p + 1].shape[:-1], len(mask))
            received = torch.empty(shape, dtype=torch.float64, device="cpu")
            cut = places[p].any(1)
            if not cut.all():
                touched = at is not None
                after = (
                    self.net.resume(part.inputs, p, values, p + 1, gradients=True) if touched else part.values[p + 1]
                )
                received[..., ~cut] = to_coordinates(self._order[p + 1], after)[..., ~cut]
            others = part.others[p] if part.others else None
            seen, nodes = to_coordinates(self._order[p], values), cut.nonzero()[:, 0]
            received[..., nodes] = self._receivers[p].mixed(part.inputs, seen, others, mask[nodes], nodes)
            values, at = to_values(self._order[p + 1], received), p + 1
        return whole_output if at is None else self._end(part, at, values, gradients=True)

    def _receive(self, part: _Part, p: int, values: Tensor, mask: np.ndarray, *, touched: bool) -> Tensor:
        """Compute coordinates at cut p + 1; nodes that see everything also see what the basis dropped."""
        full = (mask == 1).all(1)
        shape = part.values[p + 1].shape
        received = torch.empty(*shape[:-1], len(mask), dtype=torch.float64, device="cpu")
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
        last, whole = len(self._order) - 1, self._whole_output(part)
        if not torch.equal(whole, part.values[last]):
            return False
        draws = torch.Generator().manual_seed(0)
        for _ in range(_CHECKS):
            random = part.counted_output.clean(torch.randn(whole.shape, generator=draws, device="cpu").to(whole))
            if not torch.equal(self.net.resume(part.inputs, last, random).cpu(), random):
                return False
        return True


@dataclass
class _Part:
    """A batch, what the whole network computes on it, and cached results of nodes that see the same again.

    Its length is the number of data points.
    """

    inputs: Batch
    kept: Tensor | None
    values: list[Tensor]
    counted_output: Counted
    counted: tuple[Counted, ...]
    targets: Tensor | None = None
    others: list[Tensor] = field(default_factory=list)
    known: dict[tuple[int, int, bytes], Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values[0])


def _counts(part: _Part, p: int, row: int) -> bytes:
    """Return which positions count at a data point, from the first to the last that does, whatever the padding."""
    mask = _mask_of(part, p, row)
    found = mask.nonzero()[:, 0].tolist()
    return mask[found[0] : found[-1] + 1].numpy().tobytes() if found else b""


def _mask_of(part: _Part, p: int, row: int) -> Bool[Tensor, " positions"]:
    mask = part.counted[p].mask
    return torch.ones(part.values[p].shape[1], dtype=torch.bool, device="cpu") if mask is None else mask[row]


def _rows(batches: Sequence[Float[Tensor, "_ _ _"]]) -> list[Float[Tensor, "_ _"]]:
    """List the data points of all batches."""
    return [row for batch in batches for row in batch]


def _by_batch(targets: Any, sizes: Sequence[int]) -> list[Tensor]:
    """Return the targets of each batch, of so many data points each."""
    if (
        isinstance(targets, list | tuple)
        and targets
        and all(isinstance(part, Tensor) and part.ndim for part in targets)
    ):
        if [len(part) for part in targets] == list(sizes):
            return list(targets)
        if len({part.shape[1:] for part in targets}) > 1:
            shapes = ", ".join(str(tuple(part.shape)) for part in targets[:4])
            raise DataError(
                f"targets of batches have the shapes {shapes}: expected (data points, ...), alike but for the first"
            )
        targets = torch.cat(list(targets))
    try:
        whole = torch.as_tensor(targets, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"targets is a {type(targets).__name__} that is no tensor ({error}): expected a tensor (data points, ...), "
            "or a list with one for each batch"
        ) from error
    if not whole.ndim or len(whole) != sum(sizes):
        seen = len(whole) if whole.ndim else "no"
        raise DataError(f"there are {seen} targets for {sum(sizes)} data points: give one per data point")
    return list(whole.split(list(sizes)))
