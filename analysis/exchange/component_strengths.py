"""Split the strengths between cuts of a residual stream over attention heads and MLPs.

Between two cuts x and y the heads and MLPs c write w_c into the stream, each after it has read x and what was written
before: y = S(x, w_1, ..., w_n) with w_c = f_c(x, w_1, ..., w_{c-1}). By the chain rule

    J = dS/dx + sum_c J_c,    J_c = dS/dw_c dw_c/dx,

exactly: a path from x to y belongs to the component that writes last on it, and dS/dx is the skip path, the identity
where no normalisation stands in the stream. So what an MLP makes of what a head wrote is counted with the MLP. In the
coordinates of the bases, with J' = sum_c J_c,

    w_c,ji^2 = E[sum_ts J_c,tj,si^2] Lambda_i,     along_c,ji = E[sum_ts J_c,tj,si J'_tj,si] Lambda_i,

and sum_c along_c = w'^2, the squared strength of the block without its skip path. along_c / w'^2 is the share of a
component; a negative one weakens what the others do. Of a head the part through its pattern, with the values held, is
J_c without the part through its values, with the pattern held. That of an MLP is split over its hidden units, see
`neuron_strengths`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..basis.bases import Bases
from ..basis.cotangents import PositionSigns
from ..checkpoints.components import Component, Components, find_components
from ..circuits.ablation import require_partition
from ..derivatives import batched_gradients
from ..devices.device import summed, sums_on
from ..errors import CutError, GraphError, InputError
from ..graph.interaction_graph import InteractionGraph
from ..modules.partition import Partition
from ..network.batches import Batch, read_batches
from ..network.cuts import Place, find_modules_by_name
from ..network.forward import Trace
from ..network.hooks import hooked, with_gradients
from ..network.network import Network
from ..notebook.bars import with_bar
from ..notebook.tables import Columns, data_frame
from ..progress import ProgressCallback
from ..results import by_value
from .circuit_files import CIRCUIT_FORMATS
from .neuron_strengths import Ahead, NeuronStrengths, NeuronSums

__all__ = ["NETWORK_FORMATS", "ComponentStrengths", "component_strengths", "component_table"]

NETWORK_FORMATS = (*CIRCUIT_FORMATS, "components")

"""Formats of files that hold heads and MLPs, for which the network runs again."""

_NUMBERS = 2**25  # numbers of the rows of all components that are held at a time


@by_value
@dataclass(frozen=True)
class ComponentStrengths:
    """The strengths of each component, per pair of cuts.

    Attributes:
        graph: the graph whose strengths are split.
        names: per pair of cuts the components that write between them, `a0.h1` or `m0`, in order of computation.
        places: by name where the component writes, as cuts are named.
        strengths: per pair w_c, (components, later nodes, earlier nodes).
        along: per pair what each component adds to w'^2; their sum.
        patterns: per pair the part of `along` that runs through the patterns of a head, 0 for MLPs; () if not asked
            for.
        neurons: what the hidden units of each MLP add; None if not asked for.

    Where the graph is estimated, so are these, with the same number of random signs.
    """

    graph: InteractionGraph
    names: tuple[tuple[str, ...], ...]
    places: dict[str, str]
    strengths: tuple[Float[np.ndarray, "_ _ _"], ...]
    along: tuple[Float[np.ndarray, "_ _ _"], ...]
    patterns: tuple[Float[np.ndarray, "_ _ _"], ...] = ()
    neurons: NeuronStrengths | None = None

    @property
    def block_strengths(self) -> tuple[Float[np.ndarray, "_ _"], ...]:
        """Per pair of cuts w', the strengths of all components together, without the skip path."""
        return tuple(np.sqrt(along.sum(0).clip(min=0)) for along in self.along)

    def shares(self, partition: Partition | None = None) -> list[Float[np.ndarray, "_ _"]]:
        """Compute per pair of cuts the share of each component in w'^2, over the edges inside each module.

        Rows sum to 1; a row of NaN stands for a module without strength between these cuts. Without a partition the
        one row is of all edges.

        Raises:
            GraphError: a partition of another graph.
        """
        return [_of_total(sums) for sums in self.added(partition)]

    def added(self, partition: Partition | None = None, *, entering: bool = False) -> list[Float[np.ndarray, "_ _"]]:
        """Compute per pair of cuts what each component adds to w'^2 inside each module, (modules, components).

        Args:
            partition: of the graph; None for one module of all nodes.
            entering: of the edges into each module from other modules instead.

        Raises:
            GraphError: a partition of another graph.
        """
        return self._sums(self.along, partition, entering=entering)

    def _sums(
        self, parts: Sequence[np.ndarray], partition: Partition | None, *, entering: bool = False
    ) -> list[np.ndarray]:
        """Sum over the edges inside each module, or into each from others, (modules, components)."""
        if partition is not None:
            require_partition(self.graph, partition)
        found = []
        for (a, b), part in zip(self.graph.pairs, parts, strict=True):
            if partition is None:
                found.append(part.sum((1, 2))[None] * (not entering))
                continue
            earlier, later = partition.labels[a], partition.labels[b]
            others = [(earlier >= 0) & (earlier != m) if entering else earlier == m for m in range(partition.n_modules)]
            found.append(np.array([part[:, np.outer(later == m, other)].sum(1) for m, other in enumerate(others)]))
        return found

    def columns(self, partition: Partition | None = None) -> Columns:
        """Return a row per pair of cuts, module and component: its share, and the root of the sum of its w_c^2."""
        shares, squares = self.shares(partition), self._sums([w**2 for w in self.strengths], partition)
        by_pattern = self._sums(self.patterns, partition) if self.patterns else None
        totals = self.added(partition)
        rows: list[tuple[Any, ...]] = []
        for p, (a, b) in enumerate(self.graph.pairs):
            for module in range(len(shares[p])):
                for c, name in enumerate(self.names[p]):
                    ends = (self.graph.cuts[a], self.graph.cuts[b], -1 if partition is None else module)
                    total = totals[p][module].sum()
                    numbers = [shares[p][module, c], squares[p][module, c] ** 0.5]
                    if by_pattern is not None:
                        numbers.append(by_pattern[p][module, c] / total if total else np.nan)
                    rows.append((*ends, name, self.places[name], *map(float, numbers)))
        named = ["cut", "next_cut", "module", "component", "place", "share", "strength"]
        named += ["pattern"] if by_pattern is not None else []
        found = dict(zip(named, (tuple(column) for column in zip(*rows, strict=True)), strict=True))
        return {name: column for name, column in found.items() if name != "module" or partition is not None}

    def to_frame(self, partition: Partition | None = None) -> Any:
        """Convert to a pandas data frame: a row per pair of cuts, module and component.

        Its columns: cut, next_cut, module (with a partition), component, place, share (of the squared strengths inside
        the module), strength, and the share through the pattern where that was asked for.

        Raises:
            GraphError: a partition of another graph.
            InputError: pandas is not installed.
        """
        return data_frame(self.columns(partition))


@with_gradients()
@with_bar
def component_strengths(
    net: Network,
    bases: Bases,
    graph: InteractionGraph,
    batches: Iterable[Batch],
    *,
    components: Components | None = None,
    patterns: bool = False,
    neurons: int = 0,
    partition: Partition | None = None,
    probes: int | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> ComponentStrengths:
    """Split the strengths of a graph over heads and MLPs; see the head of this module.

    Strengths are those of Jacobians, exact sums or, where the graph was estimated, with as many random signs of the
    positions. For each backward pass of the graph there is one for each component, and two for a head with `patterns`.

    Args:
        net: the network; its cuts lie in the residual stream.
        bases: bases of all its cuts.
        graph: graph built from them.
        batches: the data that the graph was built from.
        components: heads and MLPs, and where they write; default: `find_components`.
        patterns: also split each head into values and pattern.
        neurons: also split each MLP into its hidden units, of which so many are listed for each module and pair of
            cuts; for each backward pass there is one forward derivative, or two with a partition.
        partition: of the graph, for whose modules hidden units are counted; without one those of all edges are.
        probes: sets of random signs per data point; default: those of the graph, whose sums may be exact.
        seed: seed of these signs.
        progress: called after each batch.

    Raises:
        CutError: heads and MLPs that are not understood, or not computed; hidden units that do not add up to their MLP.
        GraphError: graph and bases of other cuts, a partition of another graph, or strengths by attribution.
        InputError: a negative number of neurons.
    """
    if neurons < 0:
        raise InputError(f"neurons is {neurons}: expected how many of each module to list, 0 for none")
    if tuple(bases) != net.cuts or graph.cuts != net.cuts:
        raise GraphError(f"graph and bases have the cuts {list(graph.cuts)} and {list(bases)}, the network {net.cuts}")
    if graph.strengths != "jacobian":
        raise GraphError(
            f"the graph's strengths are of {graph.strengths}: those of Jacobians are split over components"
        )
    if partition is not None:
        require_partition(graph, partition)
    net.check_once(batches)
    given: tuple[Any, Any] = (probes, seed)
    if probes is None:
        given = graph.settings.get("signs"), graph.settings.get("signs_seed", 0)
    split: _Split | None = None
    for batch in read_batches(batches, "components", progress):
        if split is None:
            found = find_components(net, batch) if components is None else components
            signs = [None if given[0] is None else PositionSigns(*given, p) for p in range(len(graph.pairs))]
            split = _Split(net, bases, graph, found.items, patterns, signs)
            if neurons:
                split.neurons = NeuronSums(graph, partition, found.items, listed=neurons, device=split.at)
        split.add(batch)
    if split is None:
        raise GraphError("there are no batches: give the data that the graph was built from")
    return split.result()


def component_table(
    found: ComponentStrengths, partition: Partition | None = None, module: int | None = None
) -> dict[str, Any]:
    """Build the JSON of the components of a graph, or of the modules of a partition.

    Args:
        found: the strengths of the components.
        partition: of the same graph.
        module: only this module.

    Raises:
        GraphError: a partition of another graph than that of the strengths or of the neurons, or no such module.
    """
    if found.neurons is not None and found.neurons.partition != partition:
        raise GraphError("neurons were counted for the modules of another partition: give it to component_strengths")
    if module is not None and not (partition is not None and 0 <= module < partition.n_modules):
        count = 0 if partition is None else partition.n_modules
        raise GraphError(f"there is no module {module}: the partition has {count}, counted from 0")

    def rows(columns: Columns) -> list[dict[str, Any]]:
        every = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        every = [{name: None if value != value else value for name, value in row.items()} for row in every]
        return [row for row in every if module is None or row["module"] == module]

    table = {
        "about": "Shares of heads and MLPs in the squared strengths between two cuts (inside a module) without the "
        "skip path. A path belongs to the component that writes last on it; shares of a pair of cuts sum to 1, a "
        "negative one weakens what the others do, null stands for a module without strengths there.",
        "cuts": list(found.graph.cuts),
        "components": rows(found.columns(partition)),
    }
    if found.neurons is None:
        return table
    neurons = "The hidden units of the MLPs with the largest shares; `across` is the share in the strengths from other "
    neurons += "modules into this one. Those of all units of an MLP sum to its own."
    return {**table, "about_neurons": neurons, "neurons": rows(found.neurons.columns())}


class _Split:
    """Sums over batches of the products of the components' rows."""

    def __init__(
        self,
        net: Network,
        bases: Bases,
        graph: InteractionGraph,
        items: Sequence[Component],
        patterns: bool,
        signs: Sequence[PositionSigns | None],
    ) -> None:
        self.net, self.graph, self.items, self.patterns = net, graph, items, patterns
        values = [bases[cut] for cut in net.cuts]
        self.at = sums_on(net.device)
        self.rows = [torch.from_numpy(basis.to_basis).to(self.at) for basis in values]
        self.columns = [torch.from_numpy(basis.from_basis).to(self.at) for basis in values]
        self.importance = [torch.from_numpy(basis.importance).to(self.at) for basis in values]
        self.signs = signs
        self.between: list[tuple[int, ...] | None] = [None] * len(graph.pairs)
        self.sums: list[Tensor] = []
        self.neurons: NeuronSums | None = None
        self.n = 0

    def add(self, batch: Batch) -> None:
        """Add a batch: one pass as the model is, one with what is written held, one with the patterns held."""
        places = dict.fromkeys(item.writes.place for item in self.items)
        read = [*places, *(part.place for part in self.neurons.hidden.values())] if self.neurons else list(places)
        kernel = sdpa_kernel(SDPBackend.MATH) if self.neurons else nullcontext()  # MATH: its backward has a derivative
        with kernel, _visited(self.net, read, held=False) as written:
            whole = self.net.trace(batch)
        with _visited(self.net, places, held=True) as held:
            parts = self.net.trace(batch)
        values, apart = dict[Place, Tensor](), whole
        if self.patterns:
            with _patterns_held(self.net, self.items), _visited(self.net, places, held=False) as values:
                apart = self.net.trace(batch)
        self.n += len(whole.output)
        if missing := [place.name for place in read if place not in written]:
            raise CutError(f"{missing[0]!r}, at which a component should write, is not computed")
        for pair in range(len(self.graph.pairs)):
            chosen = self._chosen(pair, whole, parts, written, held)
            if len(self.sums) == pair:
                shape = len(self.rows[pair + 1]), self.columns[pair].shape[1]
                self.sums.append(torch.zeros(3, len(chosen), *shape, dtype=torch.float64, device=self.at))
            ahead = self._ahead(self.neurons, pair, whole, written) if self.neurons else None
            for labels, u, weight in self._cotangents(pair, parts, ahead):
                leaves = [held[place] for place in dict.fromkeys(self.items[c].writes.place for c in chosen)]
                back = batched_gradients(parts.values[pair + 1], leaves, u)
                slopes = dict(zip(dict.fromkeys(self.items[c].writes.place for c in chosen), back, strict=True))
                found = [self._row(pair, whole, written, slopes, self.items[c]) for c in chosen]
                fixed = list(found) if self.patterns else []
                for number, c in enumerate(chosen):
                    if fixed and self.items[c].head is not None:
                        fixed[number] = self._row(pair, apart, values, slopes, self.items[c])
                self._count(pair, labels, found, fixed, weight)
                if self.neurons and ahead:
                    mlps = [self.items[c] for c in chosen if self.items[c].head is None]
                    reached = {i.layer: (written[i.writes.place], _own(slopes, written, i)) for i in mlps}
                    together = torch.stack(found).sum(0) * (weight * self.importance[pair])
                    self.neurons.add(pair, ahead, labels, together, reached)

    def _ahead(self, sums: NeuronSums, pair: int, trace: Trace, written: dict[Place, Tensor]) -> Ahead | None:
        """Prepare the forward derivatives of the hidden units between two cuts."""
        layers = [self.items[c].layer for c in self.between[pair] or () if self.items[c].head is None]

        def pull(value: Tensor, u: Tensor) -> Tensor:
            entries = list(trace.entries[pair])
            back = torch.autograd.grad(value, entries, u, create_graph=True, allow_unused=True)
            return self._in_basis(pair, trace, [None if part is None else part[None] for part in back], 1)[0]

        return sums.ahead(pair, layers, written, pull)

    def _chosen(
        self, pair: int, whole: Trace, parts: Trace, written: dict[Place, Tensor], held: dict[Place, Tensor]
    ) -> tuple[int, ...]:
        """Return the components that write between two cuts: they depend on the first, and the second on them."""
        known = self.between[pair]
        if known is not None:
            return known
        target = parts.values[pair + 1]
        found = []
        for c, item in enumerate(self.items):
            place = item.writes.place
            (after,) = batched_gradients(target, [held[place]], torch.ones_like(target)[None])
            one = torch.ones_like(written[place])[None]
            reads = written[place].requires_grad
            before = batched_gradients(written[place], list(whole.entries[pair]), one) if reads else [None]
            if after is not None and any(part is not None for part in before):
                found.append(c)
        if not found:
            cuts = self.net.cuts[pair : pair + 2]
            raise CutError(f"no head and no MLP writes between {cuts[0]!r} and {cuts[1]!r}: cut at the residual stream")
        self.between[pair] = tuple(found)
        return tuple(found)

    def _cotangents(self, pair: int, trace: Trace, ahead: Ahead | None) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Yield blocks of rows of the later cut, at each position or with random signs, and what each counts."""
        target, signs = trace.values[pair + 1].detach(), self.signs[pair]
        n, positions, _ = target.shape
        rows = self.rows[pair + 1].to(target)
        earlier = trace.values[pair]
        numbers = (len(self.items) + 1) * len(earlier) * earlier.shape[1] * max(earlier.shape[2], target.shape[2])
        numbers += 3 * sum(value.numel() for value in ahead.values.values()) if ahead else 0
        size = max(1, _NUMBERS // max(numbers, 1))
        if signs is None:
            drawn = list(
                torch.eye(positions, dtype=target.dtype, device=target.device)[:, None, :, None].expand(-1, n, -1, -1)
            )
        else:
            drawn = signs.of(target, trace.counted[pair + 1])
        for xi in drawn:
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                labels = torch.arange(start, start + len(part), device=self.at)
                yield labels, part[:, None, None] * xi, 1.0 if signs is None else 1 / len(drawn)

    def _row(
        self, pair: int, trace: Trace, written: dict[Place, Tensor], slopes: dict[Place, Tensor | None], item: Component
    ) -> Float[Tensor, "v batch _ k"]:
        """Compute rows of J_c: what reaches the output of one component, pulled back to the earlier cut."""
        own = _own(slopes, written, item)
        back = batched_gradients(written[item.writes.place], list(trace.entries[pair]), own)
        return self._in_basis(pair, trace, back, len(own))

    def _in_basis(self, pair: int, trace: Trace, back: Sequence[Tensor | None], count: int) -> Tensor:
        """Return what was pulled back to a cut, (count, batch, positions, width), in the coordinates of its basis."""
        entries = trace.entries[pair]
        whole = [e.new_zeros(count, *e.shape) if part is None else part for part, e in zip(back, entries, strict=True)]
        return summed(trace.counted[pair].read(torch.cat(whole, -1))) @ self.columns[pair]

    def _count(
        self, pair: int, labels: Tensor, found: Sequence[Tensor], fixed: Sequence[Tensor], weight: float
    ) -> None:
        """Add the products of rows."""
        together = torch.stack(list(found)).sum(0)
        for c, rows in enumerate(found):
            parts = [rows.square(), rows * together]
            parts += [(rows - fixed[c]) * together] if fixed else []
            for kind, product in enumerate(parts):
                self.sums[pair][kind, c].index_add_(0, labels, weight * product.sum((1, 2)))

    def result(self) -> ComponentStrengths:
        """Return the means, in units of the behavioural loss."""
        scaled = [(s / self.n * self.importance[p]).cpu().numpy() for p, s in enumerate(self.sums)]
        found = ComponentStrengths(
            self.graph,
            tuple(tuple(self.items[c].name for c in chosen or ()) for chosen in self.between),
            {item.name: item.writes.name for item in self.items},
            tuple(np.sqrt(each[0]) for each in scaled),
            tuple(each[1] for each in scaled),
            tuple(each[2] for each in scaled) if self.patterns else (),
        )
        if self.neurons is None:
            return found
        inside, entering = (found.added(self.neurons.partition, entering=which) for which in (False, True))
        return replace(found, neurons=self.neurons.result(self.n, found.names, inside, entering))


def _own(slopes: dict[Place, Tensor | None], written: dict[Place, Tensor], item: Component) -> Float[Tensor, "v ..."]:
    """Return what reaches the output of one component, 0 at the others that write at its place."""
    slope, value = slopes[item.writes.place], written[item.writes.place]
    own = value.new_zeros(len(next(s for s in slopes.values() if s is not None)), *value.shape)
    if slope is not None:
        axis = item.writes.axis if item.writes.axis < 0 else item.writes.axis - value.ndim
        size = value.shape[axis] if item.writes.stop is None else item.writes.stop
        chosen = (axis, item.writes.start, size - item.writes.start)
        own.narrow(*chosen).copy_(slope.narrow(*chosen))
    return own


@contextmanager
def _visited(net: Network, places: Iterable[Place], *, held: bool) -> Iterator[dict[Place, Tensor]]:
    """Read the tensors at places with their graph whenever the network runs; or put leaves of the same values there."""
    found: dict[Place, Tensor] = {}

    def visit(place: Place, value: Tensor) -> Tensor:
        found[place] = value.detach().requires_grad_() if held else value
        return found[place].clone()

    with _hooks(net, places, visit):
        yield found


@contextmanager
def _patterns_held(net: Network, items: Sequence[Component]) -> Iterator[None]:
    """Pass no gradient through queries and keys whenever the network runs."""
    parts = {part for item in items if item.head is not None for key, part in item.reads.items() if key in ("q", "k")}

    def visit(place: Place, value: Tensor) -> Tensor:
        kept = value.clone()
        for part in parts:
            if part.place == place:
                part.of(kept).copy_(part.of(value).detach())
        return kept

    with _hooks(net, dict.fromkeys(part.place for part in parts), visit):
        yield


@contextmanager
def _hooks(net: Network, places: Iterable[Place], visit: Any) -> Iterator[None]:
    modules = find_modules_by_name(net.model)
    with ExitStack() as stack:
        for place in places:
            if place.path not in modules:
                raise CutError(f"no module is named {place.path!r}, at which a component should read or write")
            stack.callback(hooked(modules[place.path], place, visit).remove)
        yield


def _of_total(sums: Float[np.ndarray, "modules components"]) -> Float[np.ndarray, "modules components"]:
    """Divide each row by its sum, NaN where that is 0."""
    totals = sums.sum(1, keepdims=True)
    return np.asarray(np.divide(sums, totals, out=np.full_like(sums, np.nan), where=totals != 0))
