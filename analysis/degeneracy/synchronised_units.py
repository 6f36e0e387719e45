"""Activations between layers, and synchronised units: those that fire on the same data points, with distances.

A unit with f = phi(p), phi piecewise linear, has the firing pattern r(x) = f/p (paper, eq. 17). Units i and j are
synchronised at loss scale epsilon when exchanging their patterns changes the activations by epsilon at most:

    D_ij = max( E[(r_i - r_j)^2 p_i^2], E[(r_i - r_j)^2 p_j^2] ) <= epsilon

Eq. 20 of the paper compares the activations r_i p_i themselves, which differ for synchronised units with different
weights; this distance compares the patterns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from ..checkpoints.weights import refuse_shared_memory
from ..errors import GraphError, InputError
from ..network.batches import Batch, doubled, read_batches
from ..network.hooks import with_gradients
from ..network.network import Network
from ..notebook.bars import with_bar
from ..progress import ProgressCallback
from ..results import by_value, figure
from .gradients import explained_layers
from .layer_trace import LayerTrace, arranged, jacobian_blocks, trace_layers
from .layers import AttentionHeads, Layer, layer_weight

__all__ = [
    "Activation",
    "FiringPatterns",
    "HeadPatterns",
    "SynchronisedUnits",
    "activations_between",
    "check_scale",
    "complete_linkage",
    "synchronised_units",
]


@by_value
@dataclass(frozen=True)
class SynchronisedUnits:
    """The units of one layer grouped by their firing patterns.

    Attributes:
        layer: name of the layer that writes p.
        slope: slope of the activation where p < 0 (0 for ReLU, 1 for a linear map).
        epsilon: loss scale, None for exact synchrony.
        distances: D (units, units), in units of the activation squared; zero on the diagonal.
        power: E[p_i^2] of each unit.
        blocks: units that are synchronised with each other, largest blocks first; dead units are not among them.
        always_on: index of the block of units that are on (or linear) on all data, or None.
        dead: units that are zero on all data.
        silent: leaky units that are never on; p times the slope everywhere, they count as always on.
        complements: pairs of blocks of which exactly one is on at every data point, r_a + r_b = 1.
        checked: whether the model passed the checks of `Network.check_once` before.
    """

    layer: str
    slope: float
    epsilon: float | None
    distances: Float[np.ndarray, "units units"]
    power: Float[np.ndarray, " units"]
    blocks: tuple[tuple[int, ...], ...]
    always_on: int | None
    dead: tuple[int, ...]
    silent: tuple[int, ...] = ()
    complements: tuple[tuple[int, int], ...] = ()
    checked: bool = False

    def __repr__(self) -> str:
        sizes = [len(block) for block in self.blocks]
        shown = ", ".join(map(str, sizes[:6])) + (", ..." if len(sizes) > 6 else "")
        on = 0 if self.always_on is None else sizes[self.always_on]
        return (
            f"SynchronisedUnits({self.layer!r}: {len(self.power)} units in {len(sizes)} blocks of {shown}; "
            f"{on} always on, {len(self.dead)} dead)"
        )

    def plot(self, *, title: str | None = None) -> Any:
        """Draw the matrix of distances with the blocks."""
        return figure(self, title=title)


class FiringPatterns:
    """Sums over data that tell which units of a layer are on together, weighted by their squared preactivations.

    All terms are non-negative, so that a distance of zero is exact: the two units never differ.
    """

    def __init__(self, units: int, slope: float) -> None:
        self.slope = slope
        self.count = 0

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device="cpu")

        self._alone = zeros(units, units)  # [i, j]: sum of p_i^2 where i is on and j off
        self._other = zeros(units, units)  # [i, j]: sum of p_i^2 where i is off and j on
        self._on, self._off, self._times_off = zeros(units), zeros(units), zeros(units)
        self._times_alike = zeros(units, units)  # [i, j]: both are on, or both off

    def add(self, p: Float[Tensor, "m units"]) -> None:
        """Add the preactivations at more data points."""
        on = (p > 0).to(torch.float64)
        square = p.to(torch.float64).square()
        self.count += len(p)
        self._alone += (square * on).T @ (1 - on)
        self._other += (square * (1 - on)).T @ on
        self._on += (square * on).sum(0)
        self._off += (square * (1 - on)).sum(0)
        self._times_off += (1 - on).sum(0)
        self._times_alike += on.T @ on + (1 - on).T @ (1 - on)

    def synchronised(self, layer: str, epsilon: float | None, tolerance: float) -> SynchronisedUnits:
        """Group units into blocks at a loss scale, or exactly: patterns differ on at most tolerance^2 of E[p^2]."""
        n = max(self.count, 1)
        on, off, alone, other = self._on / n, self._off / n, self._alone / n, self._other / n
        power = on + off
        step = (1 - self.slope) ** 2
        negligible = power * tolerance**2 if epsilon is None else torch.full_like(power, epsilon / max(step, 1e-300))
        silent, differs = on <= negligible, alone + other
        if self.slope != 0:  # a leaky unit that is never on is linear, like one that always is: count it as on
            differs = torch.where(silent[:, None], off[:, None] - other, differs)
            differs = torch.where(silent[None], torch.where(silent[:, None], 0.0, off[:, None]), differs)
        dead = silent if self.slope == 0 else torch.zeros_like(silent)
        # distance to the constant unit's pattern, 1 everywhere; p = 0 counts as off, as in the derivative of ReLU
        on_always = (off <= negligible) & (step * self._times_off / n <= (0.0 if epsilon is None else epsilon))
        always = (on_always | silent | (self.slope == 1)) & ~dead
        distances = step * differs.clamp_min(0)
        distances = torch.maximum(distances, distances.T)
        relative = differs.clamp_min(0) / power.clamp_min(torch.finfo(power.dtype).tiny)[:, None]
        closeness, limit = (
            (torch.maximum(relative, relative.T), tolerance**2) if epsilon is None else (distances, epsilon)
        )
        rest = torch.nonzero(~always & ~dead)[:, 0]
        blocks = [rest[group].tolist() for group in complete_linkage(closeness[rest][:, rest].numpy(), limit)]
        on_block = torch.nonzero(always)[:, 0].tolist()
        blocks = sorted([on_block, *blocks] if on_block else blocks, key=lambda block: (-len(block), block))
        return SynchronisedUnits(
            layer,
            self.slope,
            epsilon,
            distances.fill_diagonal_(0).numpy(),
            power.numpy(),
            tuple(map(tuple, blocks)),
            blocks.index(on_block) if on_block else None,
            tuple(torch.nonzero(dead)[:, 0].tolist()),
            tuple(torch.nonzero(silent & ~dead & (self.slope != 1))[:, 0].tolist()),
            self._complements(blocks, on_block, epsilon),
        )

    def _complements(
        self, blocks: list[list[int]], on_block: list[int], epsilon: float | None
    ) -> tuple[tuple[int, int], ...]:
        """Find pairs of blocks whose first units are hardly ever alike, not even where p = 0."""
        alike = (1 - self.slope) ** 2 * self._times_alike / max(self.count, 1)
        close = alike <= (0.0 if epsilon is None else epsilon)
        free = [a for a, block in enumerate(blocks) if block != on_block]
        return tuple((a, b) for a in free for b in free if a < b and close[blocks[a][0], blocks[b][0]])


class HeadPatterns:
    """Sums over data of E[|(P_i - P_j) v_i|^2] for pairs of heads: the effect of exchanging their patterns."""

    def __init__(self, heads: AttentionHeads) -> None:
        self.heads = heads
        self.count = 0
        self._changes = torch.zeros(heads.n_heads, heads.n_heads, dtype=torch.float64, device="cpu")
        self._power = torch.zeros(heads.n_heads, dtype=torch.float64, device="cpu")

    def add(self, trace: LayerTrace, values: Layer, felt: Tensor) -> None:
        """Add the patterns of a batch, at the queries that reach the output."""
        pattern = trace.patterns[self.heads.pattern]
        written = arranged(trace.outputs[self.heads.v].detach(), values)
        by_head = written.unflatten(-1, (self.heads.n_heads, -1)).transpose(1, 2)
        own = pattern @ by_head
        self.count += int(felt.sum())
        weight = felt[:, :, None].to(torch.float64)
        for j in range(self.heads.n_heads):
            other = pattern[:, j, None] @ by_head
            self._changes[:, j] += ((own - other) * weight[:, None]).square().sum((0, 2, 3))
        self._power += (own * weight[:, None]).square().sum((0, 2, 3))

    def groups(self, epsilon: float | None, tolerance: float) -> list[list[int]]:
        """Group heads with the same patterns on the data."""
        if epsilon is None:
            changes, limit = self._changes / self._power.clamp_min(1e-300)[:, None], tolerance**2
        else:
            changes, limit = self._changes / max(self.count, 1), epsilon
        return complete_linkage(torch.maximum(changes, changes.T).fill_diagonal_(0).numpy(), limit)


@with_gradients()
@with_bar
def synchronised_units(
    net: Network,
    batches: Iterable[Batch],
    epsilon: float | None = None,
    *,
    tolerance: float = 1e-10,
    progress: ProgressCallback | None = None,
) -> dict[str, SynchronisedUnits]:
    """Find blocks of synchronised units of every layer with a piecewise linear activation, by the layer's name.

    Data points and positions from which nothing reaches the output do not count.

    Args:
        net: the network; its layers are found automatically (see `layers`).
        batches: re-iterable data.
        epsilon: loss scale; None for units that are on at exactly the same points.
        tolerance: relative tolerance, on activations, of exact synchrony.
        progress: called after each batch.

    Raises:
        LayerError: parameters outside supported layers, or used otherwise than by their layer.
        CutError: the model mixes data points, or is not a function of its parameters and the batch.
        DataError: no data, or data that does not fit.
        GraphError: an epsilon that is not above zero.
    """
    check_scale(epsilon, tolerance)
    refuse_shared_memory(net.model)
    net.check_once(batches)
    checked = net.checked
    net, batches = net.in_double(), doubled(batches)
    layers = explained_layers(net, batches)
    links = activations_between(net, layers, batches)
    patterns = {link: FiringPatterns(layers[link.source].d_out, link.slope) for link in links}
    for batch in read_batches(batches, "firing patterns", progress):
        trace = trace_layers(net, layers, batch)
        draws = torch.Generator().manual_seed(0)
        probe = torch.randn(trace.output.shape, generator=draws, dtype=torch.float64, device="cpu").to(trace.output)
        (blocks,) = jacobian_blocks(net, layers, trace, iter([probe[None]]))
        for link, found in patterns.items():
            felt = torch.stack([blocks[reader][0].ne(0).any(-1) for reader in link.readers]).any(0)
            found.add(arranged(trace.outputs[link.source].detach(), layers[link.source])[felt])
    return {
        layers[link.source].name: replace(
            found.synchronised(layers[link.source].name, epsilon, tolerance), checked=checked
        )
        for link, found in patterns.items()
    }


def check_scale(epsilon: float | None, tolerance: float) -> None:
    """Refuse a loss scale or a relative tolerance out of range."""
    if epsilon is not None and not 0 < epsilon < math.inf:
        raise GraphError(f"epsilon is {epsilon}: expected a loss above zero, or None for exact ranks")
    if not 0 < tolerance < 1:
        raise InputError(f"the tolerance is {tolerance}: expected a number between 0 and 1")


def complete_linkage(distances: Float[np.ndarray, "n n"], limit: float) -> list[list[int]]:
    """Group items by complete linkage: all pairs in a group are at most `limit` apart.

    >>> complete_linkage(np.array([[0.0, 1.0], [1.0, 0.0]]), 0.5)
    [[0], [1]]
    """
    if len(distances) < 2:
        return [[i] for i in range(len(distances))]
    groups = fcluster(linkage(squareform(distances, checks=False), "complete"), limit, "distance")
    return [np.flatnonzero(groups == g).tolist() for g in np.unique(groups)]


@dataclass(frozen=True)
class Activation:
    """The activation f = phi(p) between a layer and its readers: f = p for p >= 0, slope p for p < 0.

    Attributes:
        source: index of the layer that writes p.
        readers: indices of all layers that read f = phi(p); nothing else reads it.
        slope: 1 for a linear map, 0 for ReLU, another constant for leaky ReLU.
    """

    source: int
    readers: tuple[int, ...]
    slope: float


def activations_between(network: Network, layers: Sequence[Layer], batches: Iterable[Batch]) -> tuple[Activation, ...]:
    """Find pairs of layers with only a piecewise linear activation between them, from the values on the data.

    f = phi(p) is recognised where it equals p, max(p, 0) or a leaky ReLU of p entry by entry. That nothing else reads
    f is tested by the chain rule: the gradient with respect to p must come from the readers alone.
    """
    slopes: dict[tuple[int, int], float] = {}
    excluded: set[tuple[int, int]] = set()
    for batch in batches:
        trace = trace_layers(network, layers, batch, grad=False)
        written = [arranged(p.detach(), layer) for p, layer in zip(trace.outputs, layers, strict=True)]
        read = [f[..., : layer.d_in] for f, layer in zip(trace.inputs, layers, strict=True)]
        for reader, source in ((r, s) for r in range(len(layers)) for s in range(r)):
            if (source, reader) in excluded:
                continue
            seen = _slope(written[source], read[reader])
            merged = None if seen is None else _merged(slopes.get((source, reader), math.nan), seen)
            if merged is None:
                excluded.add((source, reader))
                slopes.pop((source, reader), None)
            else:
                slopes[source, reader] = merged
    nearest = {reader: max(s for s, r in slopes if r == reader) for _, reader in slopes}
    links = {(source, reader): slopes[source, reader] for reader, source in sorted(nearest.items())}
    found = []
    for link in _grouped(links):  # if no data point shows the slope, take it from the gradient
        for candidate in [replace(link, slope=s) for s in (1.0, 0.0)] if math.isnan(link.slope) else [link]:
            if all(_reads_alone(network, layers, batch, candidate) for batch in batches):
                found.append(candidate)
                break
    return tuple(found)


def _merged(known: float, seen: float) -> float | None:
    """Return the slope that agrees with both; nan if neither shows one, None if they differ."""
    if math.isnan(known) or math.isnan(seen):
        return seen if math.isnan(known) else known
    return known if math.isclose(known, seen, rel_tol=1e-9) else None


def _grouped(links: Mapping[tuple[int, int], float]) -> Iterator[Activation]:
    for source in sorted({source for source, _ in links}):
        readers = tuple(r for s, r in links if s == source)
        slope = math.nan
        for reader in readers:
            slope = math.nan if (merged := _merged(slope, links[source, reader])) is None else merged
        yield Activation(source, readers, slope)


def _reads_alone(network: Network, layers: Sequence[Layer], batch: Batch, link: Activation) -> bool:
    trace = trace_layers(network, layers, batch)
    draws = torch.Generator().manual_seed(0)
    cotangent = torch.randn(trace.output.shape, generator=draws, device="cpu").to(trace.output)
    grads = [block[0] for block in next(jacobian_blocks(network, layers, trace, iter([cotangent[None]])))]
    p = arranged(trace.outputs[link.source].detach(), layers[link.source])
    through = torch.zeros_like(grads[link.source])
    for reader in link.readers:
        through += grads[reader] @ layer_weight(network, layers[reader])[:, : layers[reader].d_in]
    expected = through * torch.where(p > 0, 1.0, link.slope)
    return bool((grads[link.source] - expected).norm() <= 1e-6 * expected.norm())


def _slope(p: Tensor, f: Tensor) -> float | None:
    """Return the slope a with f = max(p, 0) + a min(p, 0); nan if no p is negative, None if there is no such slope."""
    negative = p < 0
    if p.shape != f.shape or not torch.equal(p[~negative], f[~negative]):
        return None
    if not negative.any():
        return math.nan
    if torch.equal(p, f):
        return 1.0
    if not f[negative].any():
        return 0.0
    largest = torch.where(negative, p.abs(), 0.0).argmax()  # where rounding matters least
    slope = float(f.flatten()[largest] / p.flatten()[largest])
    close = (f[negative] - slope * p[negative]).abs() <= 1e-6 * abs(slope) * p[negative].abs()
    return slope if bool(close.all()) else None
