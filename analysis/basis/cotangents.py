"""Cotangents: rows of the output, or of a cut, that are pulled back through the network, exactly or as random probes.

A random probe is a combination of rows with independent signs, at all outputs and positions at once, so that one
backward pass gives a sample v with E[v v^T] = sum_o J_o^T J_o. Where the moments of each row o of a cut are needed,
the signs xi_t are those of positions alone: v = sum_t xi_t J_{to} has E[v_i v_i'] = sum_t J_{to,i} J_{to,i'}. Where
those of each output are, which a vocabulary forbids, the outputs are split at random in halves, S times, with signs
g_o: for any a_o, E_g[(sum_o g_o a_o)^2] = sum_o a_o^2, so that the rotation may take the S differences between the
moments of two halves in place of the moments of all outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..devices.device import summed
from ..devices.memory import BLOCK
from ..errors import GraphError
from ..network.batches import Batch
from ..network.masks import EVERYTHING, Counted
from ..network.network import Network
from ..seeds import torch_generator

__all__ = ["SPLITS", "Halves", "PositionSigns", "Probes", "output_cotangents"]

SPLITS = 64
"""Random halves of the outputs; with so many the rotation finds .95 to .99 of the exact gain."""


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
        self, shape: Sequence[int], like: Tensor, counted: Counted = EVERYTHING
    ) -> Iterator[Float[Tensor, "v batch positions width"]]:
        """Yield the probes of one batch in blocks, 0 where positions do not count; of the type and device of `like`."""
        size = _rows_per_block(math.prod(shape))
        scale = 1 / math.sqrt(len(self.generators))
        for start in range(0, len(self.generators), size):
            yield (
                torch.stack([_signs(g, shape, counted) for g in self.generators[start : start + size]]).to(like) * scale
            )


class Halves:
    """Random halves of the outputs, each with its Rademacher probes.

    Probe i of data point x takes split (11 x + i) mod S: every split gets its share of the data, however many probes
    there are, and neither batches nor later probes change the draws.
    """

    def __init__(self, seed: int, splits: int = SPLITS) -> None:
        self.splits, self._seed = splits, seed
        self._sides: Tensor | None = None

    def sides(self, n_outputs: int) -> Bool[Tensor, "splits outputs"]:
        """Return which outputs are in the first half of each split."""
        if self._sides is None:
            generator = torch_generator(self._seed, 0, 1)
            self._sides = (
                torch.randint(0, 2, (self.splits, n_outputs), generator=generator, dtype=torch.int8, device="cpu") > 0
            )
        return self._sides

    def probe(self, i: int) -> HalvesProbe:
        """Return probe i at the start of the data."""
        return HalvesProbe(self, i, torch_generator(self._seed, i))


class HalvesProbe:
    """One probe per data point, on both sides of its split."""

    def __init__(self, halves: Halves, number: int, generator: torch.Generator) -> None:
        self._halves, self._number, self._generator = halves, number, generator

    def cotangents(
        self, network: Network, output: Float[Tensor, "batch positions width"], counted: Counted, start: int
    ) -> tuple[Int[Tensor, " batch"], list[tuple[int, Float[Tensor, "1 batch positions width"]]]]:
        """Return the split of each data point, and for both of its sides the sign and the cotangents.

        `start` is the number of the first data point; batches are to be given in order.
        """
        p = output.softmax(-1) if network.loss == "kl" else None
        points = torch.arange(start, start + len(output), device="cpu")
        splits = (11 * points + self._number) % self._halves.splits
        first = self._halves.sides(output.shape[-1])[splits][:, None]
        signs = _signs(self._generator, output.shape, counted)
        sides = ((1, first), (-1, ~first))
        return splits, [(sign, _in_metric((signs * side).to(output), p)[None]) for sign, side in sides]


class PositionSigns:
    """Random signs of positions: with them a row of a cut is pulled back from all positions in one pass.

    Each pair of cuts has its own draws.
    """

    def __init__(self, count: int, seed: int, pair: int = 0) -> None:
        self._generators = [torch_generator(seed, j, 2, pair) for j in range(count)]

    def of(
        self, target: Float[Tensor, "batch positions d"], counted: Counted
    ) -> list[Float[Tensor, "batch positions 1"]]:
        """Draw the signs of one batch, one set per probe; 0 where a position does not count."""
        shape = (*target.shape[:2], 1)
        return [_signs(generator, shape, counted).to(target) for generator in self._generators]


def _signs(generator: torch.Generator, shape: Sequence[int], counted: Counted) -> Int[Tensor, "batch _ width"]:
    """Draw the signs of one probe on the CPU, 0 where positions do not count."""
    small = torch.int8
    if counted.mask is None:
        return torch.randint(0, 2, tuple(shape), generator=generator, dtype=small, device="cpu") * 2 - 1
    signs, mask = torch.zeros(*shape, dtype=small, device="cpu"), counted.mask.cpu()
    drawn = torch.randint(0, 2, (int(mask.sum()), shape[-1]), generator=generator, dtype=small, device="cpu")
    signs[mask] = drawn * 2 - 1
    return signs


def _in_metric(u: Tensor, p: Tensor | None) -> Tensor:
    """Multiply by the square root of Fisher's matrix: with signs u, sum_o u_o sqrt(p_o) (e_o - p); MSE: u itself."""
    if p is None:
        return u
    weighted = p.sqrt() * u
    return weighted - p * weighted.sum(-1, keepdim=True)


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
        for u in draws.blocks(output.shape, output, counted):
            yield torch.zeros(len(u), dtype=torch.int64, device=u.device), _in_metric(u, p)
        return
    unit_rows = torch.eye(output.shape[-1], dtype=output.dtype, device=output.device)
    for labels, unit in _coordinate_cotangents(output, unit_rows):
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
            part = rows[start : start + size].to(target)
            block = target.new_zeros(len(part), n, positions, d)
            block[:, :, list(group)] = part[:, None, None]
            yield torch.arange(start, start + len(part), device=block.device), block


def _gram(rows: Float[Tensor, "v batch positions d"]) -> Float[Tensor, "d d"]:
    flat = summed(rows).flatten(0, 2)
    return flat.T @ flat


def _rows_per_block(entries: int, block: int = BLOCK) -> int:
    return max(1, block // max(entries, 1))
