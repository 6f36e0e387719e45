"""Cotangents: rows of the output, or of a cut, that are pulled back through the network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import GraphError
from ..network.batches import Batch
from ..network.masks import EVERYTHING, Counted
from ..network.network import Network
from ..seeds import torch_generator

__all__ = ["Probes", "output_cotangents"]

_BLOCK = 2**18  # entries of one block of cotangents: 2 MB in float64, and several times that in the backward pass


class Probes:
    """Rademacher probes of variance 1/count.

    Probe j has its own generator, and draws only for the positions that count, data point after data point, so that
    blocks, batches and padding do not change the draws.
    """

    def __init__(self, count: int, seed: int) -> None:
        if count < 1:
            raise GraphError(f"the number of probes is {count}: expected at least one, or None for the exact sum")
        self.generators = [torch_generator(seed, j) for j in range(count)]

    def blocks(
        self, shape: Sequence[int], dtype: torch.dtype, counted: Counted = EVERYTHING
    ) -> Iterator[Float[Tensor, "v batch positions width"]]:
        """Yield the probes of one batch in blocks, 0 where positions do not count."""
        size = _rows_per_block(math.prod(shape))
        scale = 1 / math.sqrt(len(self.generators))
        for start in range(0, len(self.generators), size):
            yield (
                torch.stack([self._one(g, shape, counted) for g in self.generators[start : start + size]]).to(dtype)
                * scale
            )

    @staticmethod
    def _one(
        generator: torch.Generator, shape: Sequence[int], counted: Counted
    ) -> Int[Tensor, "batch positions width"]:
        """Draw the signs of one probe."""
        if counted.mask is None:
            return torch.randint(0, 2, tuple(shape), generator=generator) * 2 - 1
        signs = torch.zeros(*shape, dtype=torch.int64)
        signs[counted.mask] = torch.randint(0, 2, (int(counted.mask.sum()), shape[-1]), generator=generator) * 2 - 1
        return signs


def _output_rows(
    network: Network, batch: Batch, cuts: Iterable[int], draws: Probes | None
) -> Iterator[tuple[list[int], Int[Tensor, " v"], list[Float[Tensor, "v batch _ _"]]]]:
    """Yield blocks of rows of the loss-weighted output's Jacobian: cuts, indices of outputs, rows per cut."""
    for trace, served in network.output_traces(batch, cuts):
        for labels, cotangents in output_cotangents(network, trace.output, draws, trace.output_counted):
            yield served, labels, network.vjps(trace, trace.output, served, cotangents)


def output_cotangents(
    network: Network,
    output: Float[Tensor, "batch positions width"],
    draws: Probes | None = None,
    counted: Counted = EVERYTHING,
) -> Iterator[tuple[Int[Tensor, " v"], Float[Tensor, "v batch positions width"]]]:
    """Yield cotangents u with sum_u u u^T = I (MSE) or Fisher's matrix (KL), exactly or in expectation."""
    output = output.detach()
    p = output.softmax(-1) if network.loss == "kl" else None
    if draws is not None:
        for u in draws.blocks(output.shape, output.dtype, counted):
            if p is not None:
                u = p.sqrt() * u - p * (p.sqrt() * u).sum(-1, keepdim=True)
            yield torch.zeros(len(u), dtype=torch.int64), u
        return
    for labels, unit in _coordinate_cotangents(output, torch.eye(output.shape[-1], dtype=output.dtype)):
        if p is not None:
            here = unit.abs().sum(-1, keepdim=True)
            unit = (p[..., labels].sqrt().movedim(-1, 0)[..., None]) * (unit - p * here)
        yield labels, unit


def _coordinate_cotangents(
    target: Float[Tensor, "batch positions d"],
    rows: Float[Tensor, "o d"],
    together: Sequence[Sequence[int]] | None = None,
) -> Iterator[tuple[Int[Tensor, " v"], Float[Tensor, "v batch positions d"]]]:
    """Yield each row at each position of the target, or at several together, labelled by the index of the row."""
    n, positions, d = target.shape
    size = _rows_per_block(n * positions * d)
    for group in [[t] for t in range(positions)] if together is None else together:
        for start in range(0, len(rows), size):
            part = rows[start : start + size].to(target.dtype)
            block = target.new_zeros(len(part), n, positions, d)
            block[:, :, list(group)] = part[:, None, None]
            yield torch.arange(start, start + len(part)), block


def _gram(rows: Float[Tensor, "v batch positions d"]) -> Float[Tensor, "d d"]:
    flat = rows.to(torch.float64).flatten(0, 2)
    return flat.T @ flat


def _rows_per_block(entries: int, block: int = _BLOCK) -> int:
    return max(1, block // max(entries, 1))
