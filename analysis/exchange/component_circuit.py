"""Project a partition on attention heads and MLPs, for tools that know circuits of these only.

Nodes of an interaction graph are coordinates of the residual stream, which every component reads and writes in part:
the projection is lossy. A component belongs to the module that receives most of its output, and the shares of all
modules are kept. Edges are those of path patching: u -> v is the loss of the network when v alone does not see the
output of u.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..basis.bases import Bases
from ..checkpoints.components import Components, Part
from ..circuits.ablation import joined_labels
from ..circuits.metrics import find_metric
from ..devices.device import summed
from ..errors import CutError, DataError, GraphError
from ..graph.interaction_graph import InteractionGraph
from ..modules.partition import Partition
from ..network.batches import Batch, naming_batch
from ..network.cuts import Place, find_modules_by_name
from ..network.hooks import hooked
from ..network.network import Network
from ..progress import ProgressCallback, counter
from ..results import by_value

__all__ = ["ComponentCircuit", "Edge", "component_circuit"]

Edge: TypeAlias = tuple[str, str, str]

"""Writer ("input" or a component), reader (a component or "logits"), and the reader's input (q, k, v or "")."""

_INPUT, _LOGITS = "input", "logits"


@by_value
@dataclass(frozen=True)
class ComponentCircuit:
    """Heads and MLPs with their modules, and the edges between them.

    Attributes:
        components: heads and MLPs.
        d_model: width of the residual stream.
        shares: (components, modules) share of the variance of a component's output in the next cut's coordinates; zeros
            where its output does not vary there.
        scores: behavioural loss without each edge, the writer at its mean over the data.
        loss, n: kind of the behavioural loss, and number of data points.
    """

    components: Components
    d_model: int
    shares: Float[np.ndarray, "components modules"]
    scores: Mapping[Edge, float]
    loss: str
    n: int

    @property
    def modules(self) -> dict[str, int]:
        """The module of each component, by its name: the one that receives most of its output."""
        return {item.name: int(row.argmax()) for item, row in zip(self.components.items, self.shares, strict=True)}

    def holds(self, edge: Edge, module: int | None = None) -> bool:
        """Return whether an edge stays inside a module, any or a given one; input and logits belong to all.

        Raises:
            GraphError: the module does not exist.
        """
        count = self.shares.shape[1]
        if module is not None and not 0 <= module < count:
            raise GraphError(f"there is no module {module}: the partition has {count}, counted from 0")
        ends = {self.modules[name] for name in edge[:2] if name in self.modules}
        return len(ends) < 2 if module is None else ends <= {module}


def component_circuit(
    net: Network,
    bases: Bases,
    graph: InteractionGraph,
    partition: Partition | None,
    batches: Iterable[Batch],
    components: Components,
    *,
    progress: ProgressCallback | None = None,
) -> ComponentCircuit:
    """Find the modules of heads and MLPs, and measure each edge between them.

    s(u -> v) = L_B(network in which v reads, at one of its inputs, the stream without the direct output of u). The
    output of u is replaced by its mean over the data, position by position; effects of u through other components stay.
    There is one forward pass per edge.

    Args:
        net: network whose first cut is the residual stream before all components.
        bases: bases of all its cuts.
        graph: graph built from them.
        partition: partition of the graph; None for one module.
        batches: data points of one length, at which the same positions count.
        components: heads and MLPs, and where they read and write.
        progress: called after each writer of each batch.

    Raises:
        CutError: a component reads or writes at a place that the network does not compute.
        DataError: no data, or sequences of different lengths.
        GraphError: graph, partition and bases do not belong together, or heads that share keys and values.
    """
    if tuple(bases) != net.cuts or graph.cuts != net.cuts:
        raise GraphError(f"graph and bases have the cuts {list(graph.cuts)} and {list(bases)}, the network {net.cuts}")
    _refuse_shared(components)
    labels = [np.zeros(k, dtype=np.int64) for k in graph.widths]
    labels = labels if partition is None else joined_labels(graph, partition)
    inputs = list(batches)
    masks = [mask for batch in inputs if (mask := net.mask(batch)) is not None]
    if any(mask.shape[1] != masks[0].shape[1] or not torch.equal(mask, masks[0][:1].expand_as(mask)) for mask in masks):
        raise GraphError(
            "outputs of heads and MLPs are averaged position by position: give data points at which the same positions "
            "count"
        )
    writes = {item.name: item.writes for item in components.items}
    reads = [part for item in components.items for part in item.reads.values()]
    means, first, n = _means(net, inputs, list(writes.values()))
    metric = find_metric(net.loss)
    scores: dict[Edge, float] = {}
    squares = {name: [np.zeros(k) for k in graph.widths] for name in writes}
    step = counter("components", len(inputs) * (1 + len(writes)), progress)

    def add(edge: Edge, output: Tensor, whole: Tensor) -> None:
        scores[edge] = scores.get(edge, 0.0) + float(metric.values(output, whole, None).sum()) / n

    for batch in inputs:
        with _patched(net, {}, writes.values()) as held, torch.no_grad():
            base = net.trace(batch)
        for position, writer in enumerate((None, *components.items)):
            mean = {} if writer is None else {writer.writes: means[writer.writes]}
            start = {0: [value.to(e).expand_as(e) for value, e in zip(first, base.entries[0], strict=True)]}
            with _patched(net, {**held, **mean}, reads) as seen, torch.no_grad():
                without = net.trace(batch, replace=start if writer is None else None)
            name = _INPUT if writer is None else writer.name
            if writer is not None:
                for p, basis in enumerate(bases.values()):
                    change = basis.coordinates(base.values[p]) - basis.coordinates(without.values[p])
                    squares[name][p] += change.square().sum((0, 1)).numpy() / n
            for reader in components.items:
                if components.before(reader) >= position:
                    for key, part in reader.reads.items():
                        add((name, reader.name, key), _output(net, batch, {part: seen[part]}), base.output)
            add((name, _LOGITS, ""), without.output, base.output)
            step()
    count = 1 if partition is None else partition.n_modules
    shares = np.stack([_shares(squares[name], labels, count) for name in writes])
    return ComponentCircuit(components, net.widths[0], shares, scores, net.loss, n)


def _refuse_shared(components: Components) -> None:
    """Refuse heads that share keys and values: an edge into those of one head alone cannot be cut.

    Raises:
        GraphError: some do.
    """
    seen: dict[tuple[str, Part], str] = {}
    for item in components.items:
        for key, part in item.reads.items():
            if (other := seen.setdefault((key, part), item.name)) != item.name:
                raise GraphError(
                    f"the heads {other} and {item.name} share {part.name!r} (grouped queries): an edge into one of "
                    "them alone cannot be cut; split the strengths over components instead (export --format components)"
                )


def _means(net: Network, inputs: list[Batch], parts: list[Part]) -> tuple[dict[Part, Tensor], list[Tensor], int]:
    """Compute means over data points of the outputs and of the first cut, at each position; and count the points."""
    sums: list[Tensor] = []
    n = 0
    for batch in inputs:
        with _patched(net, {}, parts) as found, torch.no_grad():
            trace = net.trace(batch)
        n += len(trace.output)
        totals = [summed(v).sum(0, keepdim=True) for v in (*(found[part] for part in parts), *trace.entries[0])]
        if sums and [total.shape for total in totals] != [total.shape for total in sums]:
            raise DataError("batches have sequences of different lengths: means are taken position by position")
        sums = [a + b for a, b in zip(sums, totals, strict=True)] if sums else totals
    if not n:
        raise DataError("the data hold no batch: nothing to measure on")
    means = [total / n for total in sums]
    return dict(zip(parts, means[: len(parts)], strict=True)), means[len(parts) :], n


def _output(net: Network, batch: Batch, held: Mapping[Part, Tensor]) -> Tensor:
    with _patched(net, held, ()), torch.no_grad(), naming_batch(batch):
        return net.forward(batch)


def _shares(squares: list[np.ndarray], labels: list[np.ndarray], count: int) -> Float[np.ndarray, " modules"]:
    """Compute the shares of modules at the first cut at which something changes."""
    for changed, of in zip(squares, labels, strict=True):
        if changed.any():
            found = np.bincount(of, changed, count)
            return np.asarray(found / found.sum())
    return np.zeros(count)


@contextmanager
def _patched(net: Network, held: Mapping[Part, Tensor], read: Iterable[Part]) -> Iterator[dict[Part, Tensor]]:
    """Hold parts at given values, and read others, whenever the network runs."""
    wanted = list(read)
    modules = find_modules_by_name(net.model)
    found: dict[Part, Tensor] = {}

    def visit(place: Place, value: Tensor) -> Tensor:
        for part in wanted:
            if part.place == place:
                found[part] = part.of(value).detach().clone()
        if any(part.place == place for part in held):
            value = value.clone()
            for part, given in held.items():
                if part.place == place:
                    part.of(value).copy_(given.expand_as(part.of(value)))
        return value

    with ExitStack() as stack:
        for place in dict.fromkeys(part.place for part in (*wanted, *held)):
            if place.path not in modules:
                raise CutError(f"no module is named {place.path!r}, at which a component should read or write")
            stack.callback(hooked(modules[place.path], place, visit).remove)
        yield found
    if missing := [part.name for part in wanted if part not in found]:
        raise CutError(f"{missing[0]!r}, at which a component should read or write, is not computed")
