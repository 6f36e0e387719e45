"""Links between layers: which units of one layer are read through an activation function by which layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..network.batches import Batch
from ..network.network import Network
from .layer_trace import arranged, jacobian_blocks, trace_layers
from .layers import Layer, layer_weight

__all__ = ["Activation", "activations_between"]


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
    cotangent = torch.randn(trace.output.shape, generator=draws).to(trace.output)
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
