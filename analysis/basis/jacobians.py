"""Second moments of Jacobians, of the outputs and between adjacent cuts, in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..devices.device import summed, sums_on
from ..network.batches import Batch, read_batches
from ..network.forward import Trace
from ..network.network import Network
from ..network.transitions import PositionWise, SlopeMoments
from ..progress import ProgressCallback, Watched
from .cotangents import PositionSigns, Probes, _coordinate_cotangents, _gram, _output_rows, _rows_per_block
from .halves import SecondMoments, half_moments

__all__ = [
    "SecondMoments",
    "disjoint_positions",
    "ends_in_output",
    "gate_moments",
    "one_position",
    "output_moments",
    "pair_moments",
    "pair_rows",
    "pair_trace",
    "signed_rows",
]

_EXACT_BLOCK = 2**19  # entries of one block of Jacobian rows computed by an exact form


def output_moments(
    network: Network,
    batches: Iterable[Batch],
    columns: Mapping[int, Float[Tensor, "d k"]],
    groups: Mapping[int, Sequence[slice]] | None,
    *,
    probes: int | None = None,
    tolerance: float | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> dict[int, SecondMoments]:
    """Compute second moments of J = d(output)/d(cut) columns, for several cuts per backward pass.

    Args:
        network: the network; its loss weighs the outputs (KL: rows sqrt(p_o) (e_o - p), so that sum_o is Fisher's).
        batches: re-iterable data.
        columns: for each index of a cut the coordinates (d, k) of the Jacobian.
        groups: for each index of a cut groups of columns; None for the sum over outputs only.
        probes: number of random probes per data point, with groups one for each of two halves of the outputs; None for
            the exact sum.
        tolerance: with groups, add probes until the relative standard errors of the eigenvalues are below.
        seed: seed of the probes.
        progress: called after each batch.
    """
    if groups is not None and (probes is not None or tolerance is not None):
        return half_moments(
            network, batches, columns, groups, probes=probes, tolerance=tolerance, seed=seed, progress=progress
        )
    sums: dict[int, list[Tensor]] = {}
    columns = {p: c.to(sums_on(network.device)) for p, c in columns.items()}
    draws = None if probes is None else Probes(probes, seed)
    n = 0
    watched = Watched(progress)
    for batch in read_batches(batches, "Jacobians", watched):
        with torch.no_grad():
            trace = network.trace(batch)
        n += len(trace.output)
        if not sums:
            sums = {p: _zeros(c, trace.output.shape[-1], _of(groups, p)) for p, c in columns.items()}
        inner = [p for p in columns if not _is_output(network, trace, p)]
        for p in set(columns) - set(inner):
            _add_identity(sums[p], len(trace.output_counted.rows(trace.output)), columns[p], _of(groups, p))
        done = 0
        for cuts, labels, blocks in _output_rows(network, batch, inner, draws):
            for p, rows in zip(cuts, blocks, strict=True):
                _add(sums[p], labels, summed(rows) @ columns[p], _of(groups, p))
            done += len(labels)
            watched.part(done, probes or trace.output[0].numel(), "passes of a batch")
    found = {p: [total.cpu() / n for total in totals] for p, totals in sums.items()}
    if groups is None:
        return {p: SecondMoments(totals[0], []) for p, totals in found.items()}
    return {p: SecondMoments(None, totals) for p, totals in found.items()}


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
) -> SecondMoments:
    """Compute second moments of J = rows (d(cut p+1)/d(cut p)) columns, in the format of `output_moments`.

    Uses the exact form of the transition where the network declares one (probes would save nothing there), and backward
    passes otherwise: with probes and groups (of which there may be none) one per row with random signs of the
    positions.
    """
    form = network.transitions.get(pair)
    rows, columns = (v.to(sums_on(network.device)) for v in (rows, columns))
    if isinstance(form, PositionWise):
        slopes = gate_moments(network, batches, pair, form, progress)
        moments = [m.cpu() for m in slopes.jacobian_moments(form, rows, columns, groups or [slice(None)])]
        return SecondMoments(None, moments) if groups else SecondMoments(moments[0].sum(0), [])
    exact = probes is None or form is not None
    draws = None if exact or groups is not None else Probes(probes or 1, seed)
    signs = PositionSigns(probes or 1, seed, pair) if not exact and draws is None else None
    groups = groups or None
    sums = _zeros(columns, len(rows), groups)
    n = 0
    watched = Watched(progress)
    for batch in read_batches(batches, f"Jacobians into {network.cuts[pair + 1]}", watched):
        trace = pair_trace(network, batch, pair)
        n += len(trace.output)
        if signs is not None:
            for labels, blocks, _ in signed_rows(network, trace, pair, rows, columns, signs):
                watched.part(int(labels[0]), len(rows), "passes of a batch")
                _add(sums, labels.repeat(len(blocks)), blocks.flatten(0, 1) / len(blocks) ** 0.5, groups)
            continue
        together = disjoint_positions(network, trace, pair, len(rows)) if draws is None else None
        for labels, block in pair_rows(network, trace, pair, rows, columns, draws, together):
            _add(sums, labels, block, groups)
    found = [total.cpu() / n for total in sums]
    return SecondMoments(None, found) if groups else SecondMoments(found[0], [])


def signed_rows(
    network: Network,
    trace: Trace,
    pair: int,
    rows: Float[Tensor, "o d_out"],
    columns: Float[Tensor, "d_in k"],
    signs: PositionSigns,
) -> Iterator[tuple[Int[Tensor, " v"], Float[Tensor, "probes v batch _ k"], list[Float[Tensor, "batch _ 1"]]]]:
    """Yield for blocks of rows sum_t xi_t rows J_t columns for each set of signs, with the indices and the signs.

    With J_t the Jacobian of position t of the later cut, at each position of the earlier one, the expectation of the
    squares is the sum over t; float64.
    """
    target = trace.values[pair + 1]
    drawn = signs.of(target, trace.counted[pair + 1])
    size = _rows_per_block(target.numel())
    for start in range(0, len(rows), size):
        part = rows[start : start + size].to(target)
        blocks = [summed(network.vjp(trace, target, pair, part[:, None, None] * xi)) @ columns for xi in drawn]
        yield torch.arange(start, start + len(part), device=columns.device), torch.stack(blocks), drawn


def gate_moments(
    network: Network, batches: Iterable[Batch], pair: int, form: PositionWise, progress: ProgressCallback | None = None
) -> SlopeMoments:
    """Compute first and second moments of the slopes phi'(A x + b) of a position-wise transition over the data."""
    n = count = 0
    first, second = torch.zeros(2, dtype=torch.float64, device=sums_on(network.device))
    for batch in read_batches(batches, f"slopes into {network.cuts[pair + 1]}", progress):
        with torch.no_grad():
            trace = network.trace(batch)
        value, counted = trace.values[pair], trace.counted[pair]
        q = summed(counted.rows(form.slopes(value)))
        first, second = first + q.sum(0), second + q.T @ q
        n, count = n + len(value), count + len(q)
    return SlopeMoments(n, count, first, second)


def pair_trace(network: Network, batch: Batch, pair: int, moved: Sequence[Tensor] | None = None) -> Trace:
    """Run a trace for `pair_rows`, without the autograd graph where an exact form needs none."""
    with torch.set_grad_enabled(pair not in network.transitions):
        return network.trace(batch, replace=None if moved is None else {pair: moved})


def pair_rows(
    network: Network,
    trace: Trace,
    pair: int,
    rows: Float[Tensor, "o d_out"],
    columns: Float[Tensor, "d_in k"],
    draws: Probes | None = None,
    together: Sequence[Sequence[int]] | None = None,
) -> Iterator[tuple[Int[Tensor, " v"], Float[Tensor, "v _ _ k"]]]:
    """Yield blocks of rows (d(cut p+1)/d(cut p)) columns at each position, with the row's index; float64.

    Between position-wise cuts every position is a data point of its own (see `one_position`). With `together`, see
    `disjoint_positions`, a block is the sum over the output positions of a group.
    """
    target, form = trace.values[pair + 1], network.transitions.get(pair)
    if draws is not None:
        shape = (*target.shape[:2], len(rows))
        for u in draws.blocks(shape, target, trace.counted[pair + 1]):
            back = summed(network.vjp(trace, target, pair, u @ rows.to(target)))
            yield torch.zeros(len(u), dtype=torch.int64, device=back.device), back @ columns
    elif form is not None:
        value = one_position(network, trace, pair, summed(trace.values[pair].detach()))
        yield from form.jacobian_rows(value, rows, columns, _rows_per_block(value.numel(), _EXACT_BLOCK))
    else:
        for labels, cotangents in _coordinate_cotangents(target.detach(), rows, together):
            yield labels.to(columns.device), summed(network.vjp(trace, target, pair, cotangents)) @ columns


def disjoint_positions(
    network: Network, trace: Trace, pair: int, n_rows: int, same: Sequence[int] | None = None
) -> list[list[int]] | None:
    """Group output positions that depend on disjoint sets of input positions, on the data of a trace.

    A backward pass for a whole group gives the Jacobians of all its positions, each at its own input positions. A
    convolution with 3 x 3 weights needs 9 groups for a picture of any size, a position-wise map one. The positions s
    that t depends on are those where a random combination of the rows of J_ts is not zero.

    Args:
        network: the network.
        trace: a trace in which the gradients between the cuts are kept.
        pair: index of the earlier cut.
        n_rows: how many rows there are at each position; the groups cost one backward pass per position.
        same: for each output position the index of the same input position, which then belongs to its own set.

    Returns:
        The groups; None where a backward pass per position is as cheap, or the map has an exact form.
    """
    target = trace.values[pair + 1].detach()
    n, positions, d = target.shape
    if pair in network.transitions or positions == 1 or n_rows < 3:
        return None
    draws, groups, taken = torch.Generator().manual_seed(0), list[list[int]](), list[Tensor]()
    size = _rows_per_block(target.numel())
    for start in range(0, positions, size):
        block = target.new_zeros(min(size, positions - start), n, positions, d)
        for i in range(len(block)):
            block[i, :, start + i] = torch.randn(n, d, generator=draws, dtype=torch.float64, device="cpu").to(target)
        back = network.vjp(trace, trace.values[pair + 1], pair, block)
        for t, reached in enumerate((back != 0).any(-1).any(1), start):
            if same is not None:
                reached[same[t]] = True
            fits = (i for i, other in enumerate(taken) if not bool((other & reached).any()))
            if (group := next(fits, None)) is None:
                groups.append([t])
                taken.append(reached.clone())
            else:
                groups[group].append(t)
                taken[group] |= reached
    return groups


def one_position(
    network: Network, trace: Trace, pair: int, value: Float[Tensor, "batch positions d"]
) -> Float[Tensor, "_ _ d"]:
    """Make each position that counts a data point of its own where the transition is position-wise."""
    position_wise = isinstance(network.transitions.get(pair), PositionWise)
    return trace.counted[pair].rows(value)[:, None] if position_wise else value


def _of(groups: Mapping[int, Sequence[slice]] | None, p: int) -> Sequence[slice] | None:
    return None if groups is None else groups[p]


def _zeros(columns: Tensor, n_rows: int, groups: Sequence[slice] | None) -> list[Tensor]:
    k = columns.shape[1]
    if groups is None:
        return [torch.zeros(k, k, dtype=torch.float64, device=columns.device)]
    sizes = [len(range(*group.indices(k))) for group in groups]
    return [torch.zeros(n_rows, size, size, dtype=torch.float64, device=columns.device) for size in sizes]


def _add(
    sums: list[Tensor], labels: Int[Tensor, " v"], rows: Float[Tensor, "v _ _ k"], groups: Sequence[slice] | None
) -> None:
    if groups is None:
        sums[0] += _gram(rows)
        return
    seen = rows.flatten(1, 2)
    for total, group in zip(sums, groups, strict=True):
        part = seen[..., group]
        total.index_add_(0, labels.to(total.device), part.transpose(1, 2) @ part)


def ends_in_output(network: Network, batch: Batch) -> bool:
    """Return whether the last cut is the output itself, on this batch."""
    with torch.no_grad():
        trace = network.trace(batch)
    value = trace.values[-1]
    return value.shape == trace.output.shape and torch.equal(value, trace.output)


def _is_output(network: Network, trace: Trace, cut: int) -> bool:
    """Return whether the cut is the output and the loss MSE, so that its Jacobian is the identity."""
    same = cut == len(network.cuts) - 1 and network.loss == "mse"
    same = same and trace.values[cut].shape == trace.output.shape and torch.equal(trace.values[cut], trace.output)
    return same and trace.counted[cut].agrees(trace.output_counted)


def _add_identity(
    sums: list[Tensor], count: int, columns: Float[Tensor, "d k"], groups: Sequence[slice] | None
) -> None:
    """Add to the sums the terms of a batch whose Jacobian is the identity at `count` positions."""
    if groups is None:
        sums[0] += columns.T @ columns * count
        return
    for total, group in zip(sums, groups, strict=True):
        part = columns[:, group]
        total += part[:, :, None] * part[:, None, :] * count
