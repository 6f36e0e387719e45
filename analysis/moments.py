"""Streaming moments of activations and Jacobians: mean, Gram matrix G, Jacobian Gram matrix M (paper, section 6).

    G^l = 1/n sum_x f f^T (centred, averaged over positions)
    M^l = 1/n sum_x sum_k (df^L_k/df^l)(df^L_k/df^l)^T (summed over all pairs of positions)

All sums are float64, take one batch times one block of backward passes of memory, and merge. Positions that a mask
leaves out take no part: G is the mean over those that count of all data points, M and strengths sum over pairs of
those that count, and are means over data points. So padding and batching change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .batches import Batch, read_batches
from .errors import DataError, GraphError
from .masks import EVERYTHING, Counted
from .network import Network, Trace
from .progress import ProgressCallback
from .transitions import PositionWise, SlopeMoments
from .values import by_value

__all__ = [
    "ActivationMoments",
    "JacobianMoments",
    "Moments",
    "Probes",
    "collect",
    "ends_in_output",
    "gate_moments",
    "one_position",
    "output_cotangents",
    "output_moments",
    "pair_moments",
    "pair_rows",
    "pair_trace",
]

_BLOCK = 2**18  # entries of one block of cotangents: 2 MB in float64, and some times that on the way back
_EXACT_BLOCK = 2**19  # entries of one block of Jacobian rows where an exact form gives them


@by_value
@dataclass(frozen=True)
class ActivationMoments:
    """Mean and centred scatter of the activations at a cut; `merge` is exact (Chan et al. 1983).

    Attributes:
        n: number of data points.
        count: number of positions that count, of all data points.
        mean: (d,).
        scatter: sum of (f - mean)(f - mean)^T (d, d).

    >>> a = ActivationMoments.of(torch.tensor([[[0.0]], [[2.0]]]))
    >>> b = ActivationMoments.of(torch.tensor([[[4.0]]]))
    >>> a.merge(b).mean, a.merge(b).gram
    (tensor([2.], dtype=torch.float64), tensor([[2.6667]], dtype=torch.float64))
    """

    n: int
    count: int
    mean: Float[Tensor, " d"]
    scatter: Float[Tensor, "d d"]

    @classmethod
    def of(cls, values: Float[Tensor, "batch positions d"], counted: Counted = EVERYTHING) -> ActivationMoments:
        """Moments of one batch, at the positions that count."""
        flat = counted.rows(values).to(torch.float64)
        mean = flat.mean(0)
        centred = flat - mean
        return cls(len(values), len(flat), mean, centred.T @ centred)

    def merge(self, other: ActivationMoments) -> ActivationMoments:
        """Moments of both sets of data together."""
        count = self.count + other.count
        shift = other.mean - self.mean
        between = torch.outer(shift, shift) * (self.count * other.count / count)
        mean = self.mean + shift * (other.count / count)
        return ActivationMoments(self.n + other.n, count, mean, self.scatter + other.scatter + between)

    @property
    def gram(self) -> Float[Tensor, "d d"]:
        """G, centred: the block of the Gram matrix that is left when the constant unit is kept apart."""
        return self.scatter / self.count


@by_value
@dataclass(frozen=True)
class JacobianMoments:
    """Sum over data points of J^T J for one cut, J the Jacobian of the loss-weighted output.

    Attributes:
        n: number of data points.
        total: sum of J^T J (d, d).
    """

    n: int
    total: Float[Tensor, "d d"]

    def merge(self, other: JacobianMoments) -> JacobianMoments:
        """Moments of both sets of data together."""
        return JacobianMoments(self.n + other.n, self.total + other.total)

    @property
    def gram(self) -> Float[Tensor, "d d"]:
        """M."""
        return self.total / self.n


@dataclass(frozen=True)
class Moments:
    """Moments of every cut of a network over a set of data; partial results merge.

    Attributes:
        activations: per cut mean and Gram matrix G.
        jacobians: per cut Jacobian Gram matrix M to the output. At a cut that is the output of a dense layer
            (its preactivations) this is the ledger's K.
    """

    activations: Mapping[str, ActivationMoments]
    jacobians: Mapping[str, JacobianMoments]

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets of data together.

        Raises:
            DataError: the two belong to different cuts.
        """
        if list(self.activations) != list(other.activations) or list(self.jacobians) != list(other.jacobians):
            raise DataError(
                f"moments of the cuts {list(self.activations)} cannot be merged with those of {list(other.activations)}"
            )
        return Moments(
            {cut: m.merge(other.activations[cut]) for cut, m in self.activations.items()},
            {cut: m.merge(other.jacobians[cut]) for cut, m in self.jacobians.items()},
        )


def collect(
    network: Network,
    batches: Iterable[Batch],
    *,
    jacobians: bool = True,
    probes: int | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Moments:
    """Mean, G and (unless `jacobians` is False) M to the output at every cut, in one pass over the data.

    Args:
        network: the network with its cuts and behavioural loss.
        batches: re-iterable data.
        jacobians: whether M is wanted.
        probes: number of random probes per data point for M, None for the exact sum over output coordinates.
        seed: of the probes.
        progress: called after each batch.

    Raises:
        CutError: an assumption about the model fails, see `Network.check_once`.
        DataError: no data, NaN or infinite values, inputs that do not fit the model.
    """
    network.check_once(batches)
    activations: dict[str, ActivationMoments] = {}
    n, totals = 0, list[Tensor]()
    draws = None if probes is None else Probes(probes, seed)
    for batch in read_batches(batches, "moments", progress):
        with torch.no_grad():
            trace = network.trace(batch)
        for cut, value, counted in zip(network.cuts, trace.values, trace.counted, strict=True):
            new = ActivationMoments.of(value, counted)
            activations[cut] = activations[cut].merge(new) if cut in activations else new
        n += len(trace.output)
        if not jacobians:
            continue
        if not totals:
            totals = [torch.zeros(d, d, dtype=torch.float64) for d in network.widths]
        for cuts, _, blocks in _output_rows(network, batch, range(len(totals)), draws):
            for p, rows in zip(cuts, blocks, strict=True):
                totals[p] += _gram(rows)
    return Moments(
        activations,
        {cut: JacobianMoments(n, total) for cut, total in zip(network.cuts, totals, strict=True)} if jacobians else {},
    )


def output_moments(
    network: Network,
    batches: Iterable[Batch],
    columns: Mapping[int, Float[Tensor, "d k"]],
    groups: Mapping[int, Sequence[slice]] | None,
    *,
    probes: int | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> dict[int, list[Float[Tensor, ...]]]:
    """Second moments of J = d(output)/d(cut) columns, for several cuts in one backward pass per output coordinate.

    Args:
        network: the network; its loss weighs the outputs (KL: rows sqrt(p_o) (e_o - p), so that sum_o is Fisher's).
        batches: re-iterable data.
        columns: per index of a cut the coordinates (d, k) to take the Jacobian in.
        groups: per index of a cut groups of columns; None for the sum over outputs only.
        probes: number of random probes per data point (groups must then be None).
        seed: of the probes.
        progress: called after each batch.

    Returns:
        Per cut, for each group E[J_oi J_oi'] (o, g, g); without groups one matrix sum_o E[J_oi J_oi'] (k, k).
    """
    if probes is not None and groups is not None:
        raise GraphError("random probes mix the outputs: second moments per output need probes=None")
    sums: dict[int, list[Tensor]] = {}
    draws = None if probes is None else Probes(probes, seed)
    n = 0
    for batch in read_batches(batches, "Jacobians", progress):
        with torch.no_grad():
            trace = network.trace(batch)
        n += len(trace.output)
        if not sums:
            sums = {p: _zeros(c, trace.output.shape[-1], _of(groups, p)) for p, c in columns.items()}
        inner = [p for p in columns if not _is_output(network, trace, p)]
        for p in set(columns) - set(inner):
            _add_identity(sums[p], len(trace.output_counted.rows(trace.output)), columns[p], _of(groups, p))
        for cuts, labels, blocks in _output_rows(network, batch, inner, draws):
            for p, rows in zip(cuts, blocks, strict=True):
                _add(sums[p], labels, rows.to(torch.float64) @ columns[p], _of(groups, p))
    return {p: [total / n for total in totals] for p, totals in sums.items()}


def pair_moments(
    network: Network,
    batches: Iterable[Batch],
    pair: int,
    rows: Float[Tensor, "o d_out"],
    columns: Float[Tensor, "d_in k"],
    groups: Sequence[slice] | None,
    *,
    probes: int | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> list[Float[Tensor, ...]]:
    """Second moments of J = rows (d(cut p+1)/d(cut p)) columns, as `output_moments` gives them for the output.

    Uses the exact form of the transition where the network declares one, for which probes would save nothing;
    backward passes otherwise.
    """
    if probes is not None and groups is not None:
        raise GraphError("random probes mix the outputs: second moments per output need probes=None")
    form = network.transitions.get(pair)
    if isinstance(form, PositionWise):
        slopes = gate_moments(network, batches, pair, form, progress)
        moments = slopes.jacobian_moments(form, rows, columns, groups or [slice(None)])
        return moments if groups else [moments[0].sum(0)]
    sums = _zeros(columns, len(rows), groups)
    draws = None if probes is None or form is not None else Probes(probes, seed)
    n = 0
    for batch in read_batches(batches, f"Jacobians into {network.cuts[pair + 1]}", progress):
        trace = pair_trace(network, batch, pair)
        n += len(trace.output)
        for labels, block in pair_rows(network, trace, pair, rows, columns, draws):
            _add(sums, labels, block, groups)
    return [total / n for total in sums]


def gate_moments(
    network: Network, batches: Iterable[Batch], pair: int, form: PositionWise, progress: ProgressCallback | None = None
) -> SlopeMoments:
    """First and second moments of the slopes phi'(A x + b) of a position-wise transition over the data."""
    n = count = 0
    first, second = torch.zeros(()), torch.zeros(())
    for batch in read_batches(batches, f"slopes into {network.cuts[pair + 1]}", progress):
        with torch.no_grad():
            trace = network.trace(batch)
        value, counted = trace.values[pair], trace.counted[pair]
        q = counted.rows(form.slopes(value)).to(torch.float64)
        first, second = first + q.sum(0), second + q.T @ q
        n, count = n + len(value), count + len(q)
    return SlopeMoments(n, count, first, second)


class Probes:
    """Rademacher probes of variance 1/count.

    Probe j has a generator of its own, and draws for the positions that count alone, data point after data point, so
    that blocks, batches and padding do not change the draws.
    """

    def __init__(self, count: int, seed: int) -> None:
        if count < 1:
            raise GraphError(f"the number of probes is {count}: expected at least one, or None for the exact sum")
        self.generators = [torch.Generator().manual_seed(hash((seed, j)) % 2**63) for j in range(count)]

    def blocks(
        self, shape: Sequence[int], dtype: torch.dtype, counted: Counted = EVERYTHING
    ) -> Iterator[Float[Tensor, "v batch positions width"]]:
        """The probes of one batch, 0 where positions do not count."""
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
        """Signs for one probe."""
        if counted.mask is None:
            return torch.randint(0, 2, tuple(shape), generator=generator) * 2 - 1
        signs = torch.zeros(*shape, dtype=torch.int64)
        signs[counted.mask] = torch.randint(0, 2, (int(counted.mask.sum()), shape[-1]), generator=generator) * 2 - 1
        return signs


def _output_rows(
    network: Network, batch: Batch, cuts: Iterable[int], draws: Probes | None
) -> Iterator[tuple[list[int], Int[Tensor, " v"], list[Float[Tensor, "v batch _ _"]]]]:
    """Blocks of rows of the loss-weighted output's Jacobian: the cuts it is by, the outputs' indices, the rows."""
    for trace, served in network.output_traces(batch, cuts):
        for labels, cotangents in output_cotangents(network, trace.output, draws, trace.output_counted):
            yield served, labels, network.vjps(trace, trace.output, served, cotangents)


def output_cotangents(
    network: Network,
    output: Float[Tensor, "batch positions width"],
    draws: Probes | None = None,
    counted: Counted = EVERYTHING,
) -> Iterator[tuple[Int[Tensor, " v"], Float[Tensor, "v batch positions width"]]]:
    """Cotangents u with sum_u u u^T = I (MSE) or Fisher's matrix (KL); exact, or in expectation over the probes."""
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
    target: Float[Tensor, "batch positions d"], rows: Float[Tensor, "o d"]
) -> Iterator[tuple[Int[Tensor, " v"], Float[Tensor, "v batch positions d"]]]:
    """Each row at each position of the target, the row's index as label."""
    n, positions, d = target.shape
    size = _rows_per_block(n * positions * d)
    for t in range(positions):
        for start in range(0, len(rows), size):
            part = rows[start : start + size].to(target.dtype)
            block = target.new_zeros(len(part), n, positions, d)
            block[:, :, t] = part[:, None]
            yield torch.arange(start, start + len(part)), block


def pair_trace(network: Network, batch: Batch, pair: int, moved: Sequence[Tensor] | None = None) -> Trace:
    """A trace for `pair_rows`, without the autograd graph where an exact form needs none."""
    with torch.set_grad_enabled(pair not in network.transitions):
        return network.trace(batch, replace=None if moved is None else {pair: moved})


def pair_rows(
    network: Network,
    trace: Trace,
    pair: int,
    rows: Float[Tensor, "o d_out"],
    columns: Float[Tensor, "d_in k"],
    draws: Probes | None = None,
) -> Iterator[tuple[Int[Tensor, " v"], Float[Tensor, "v _ _ k"]]]:
    """Blocks of rows (d(cut p+1)/d(cut p)) columns at each position, with the index of the row; float64.

    Between position-wise cuts every position is a data point of its own (see `one_position`).
    """
    target, form = trace.values[pair + 1], network.transitions.get(pair)
    if draws is not None:
        shape = (*target.shape[:2], len(rows))
        for u in draws.blocks(shape, target.dtype, trace.counted[pair + 1]):
            back = network.vjp(trace, target, pair, u @ rows.to(target.dtype))
            yield torch.zeros(len(u), dtype=torch.int64), back.to(torch.float64) @ columns
    elif form is not None:
        value = one_position(network, trace, pair, trace.values[pair].detach().to(torch.float64))
        yield from form.jacobian_rows(value, rows, columns, _rows_per_block(value.numel(), _EXACT_BLOCK))
    else:
        for labels, cotangents in _coordinate_cotangents(target.detach(), rows):
            yield labels, network.vjp(trace, target, pair, cotangents).to(torch.float64) @ columns


def one_position(
    network: Network, trace: Trace, pair: int, value: Float[Tensor, "batch positions d"]
) -> Float[Tensor, "_ _ d"]:
    """Each position that counts as a data point of its own where the transition is position-wise."""
    position_wise = isinstance(network.transitions.get(pair), PositionWise)
    return trace.counted[pair].rows(value)[:, None] if position_wise else value


def _of(groups: Mapping[int, Sequence[slice]] | None, p: int) -> Sequence[slice] | None:
    return None if groups is None else groups[p]


def _zeros(columns: Tensor, n_rows: int, groups: Sequence[slice] | None) -> list[Tensor]:
    k = columns.shape[1]
    if groups is None:
        return [torch.zeros(k, k, dtype=torch.float64)]
    sizes = [len(range(*group.indices(k))) for group in groups]
    return [torch.zeros(n_rows, size, size, dtype=torch.float64) for size in sizes]


def _add(
    sums: list[Tensor], labels: Int[Tensor, " v"], rows: Float[Tensor, "v _ _ k"], groups: Sequence[slice] | None
) -> None:
    if groups is None:
        sums[0] += _gram(rows)
        return
    seen = rows.flatten(1, 2)
    for total, group in zip(sums, groups, strict=True):
        part = seen[..., group]
        total.index_add_(0, labels, part.transpose(1, 2) @ part)


def ends_in_output(network: Network, batch: Batch) -> bool:
    """Whether the last cut is the output itself, on this batch."""
    with torch.no_grad():
        trace = network.trace(batch)
    value = trace.values[-1]
    return value.shape == trace.output.shape and torch.equal(value, trace.output)


def _is_output(network: Network, trace: Trace, cut: int) -> bool:
    """Whether the cut is the output itself and the loss MSE, so that its Jacobian is the identity."""
    same = cut == len(network.cuts) - 1 and network.loss == "mse"
    same = same and trace.values[cut].shape == trace.output.shape and torch.equal(trace.values[cut], trace.output)
    return same and trace.counted[cut].agrees(trace.output_counted)


def _add_identity(
    sums: list[Tensor], count: int, columns: Float[Tensor, "d k"], groups: Sequence[slice] | None
) -> None:
    """What `_add` adds for a batch whose Jacobian is the identity at each of so many positions."""
    if groups is None:
        sums[0] += columns.T @ columns * count
        return
    for total, group in zip(sums, groups, strict=True):
        part = columns[:, group]
        total += part[:, :, None] * part[:, None, :] * count


def _gram(rows: Float[Tensor, "v batch positions d"]) -> Float[Tensor, "d d"]:
    flat = rows.to(torch.float64).flatten(0, 2)
    return flat.T @ flat


def _rows_per_block(entries: int, block: int = _BLOCK) -> int:
    return max(1, block // max(entries, 1))
