"""Interaction basis of each cut (paper, section 6 and appendix A), with PCA and neuron bases for comparison.

    G = U^T D_G U,  A = (D_G^{1/2})^+ U            whitening, G centred
    M~ = (A^+)^T M A^+ = V^T D_M V                 importance of the whitened directions for the loss
    C = D_M^{1/2} V A,  f^ = C (f - mean)          coordinates; variance Lambda = D_M

The paper's section 6.1 prints (D_M^{1/2})^+ in the last step; its appendix A proves the results with D_M^{1/2},
which is used here. The global basis takes M to the output, the local one to the coordinates of the next cut
(companion paper, arXiv 2405.10928, appendix A). The constant direction is kept apart as `mean`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import CutError, GraphError
from ..linalg import Eigen, Whitening, column_signs, eigh, noise_floor, whiten
from ..network.batches import Batch
from ..network.checks import differs
from ..network.hooks import with_gradients
from ..network.network import Network
from ..notebook.bars import with_bar
from ..progress import ProgressCallback
from .bases import KINDS, OUTPUTS, ROTATIONS, Bases, Basis
from .cotangents import SPLITS
from .data_points import enough_points, random_points
from .halves import SecondMoments
from .jacobians import ends_in_output, output_moments, pair_moments
from .moments import ActivationMoments, collect
from .rotation import degenerate_runs, rotate

__all__ = ["interaction_basis"]

_MANY = 1024  # outputs; more than these do not become nodes of a graph

_WIDEST = 8192  # features of a cut

_GAP = 0.25  # neighbouring eigenvalues with a smaller relative gap count as degenerate

_BLURRED = 1e-4  # share of the criterion; estimated moments do not fix the rotation further

_LONGEST = 128  # coordinates rotated together where moments are estimated; their sweeps cost the third power

_MEMORY = 2**30  # bytes of memory for second moments per output

_Plain: TypeAlias = "Callable[[str, ActivationMoments], Basis]"

_Measure: TypeAlias = Callable[[Mapping[int, Tensor], Mapping[int, Sequence[slice]] | None], dict[int, SecondMoments]]


@with_gradients()
@with_bar
def interaction_basis(
    net: Network,
    batches: Iterable[Batch],
    *,
    kind: str = "global",
    output: str = "auto",
    rotation: str = "degenerate",
    rank_tolerance: float = 1e-10,
    gap: float = _GAP,
    probes: int | None = None,
    tolerance: float | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Bases:
    """Compute the basis of every cut of a network.

    Args:
        net: the network; its cuts are checked by the swap test first.
        batches: re-iterable data.
        kind: "global" (M to the output), "local" (M to the next cut's coordinates), "pca" (U, no whitening) or
            "neuron" (the model's own coordinates).
        output: basis of the last cut. "neuron" keeps its own coordinates. "pca" takes the interaction basis towards the
            loss itself, which for MSE at the output is PCA: there the map into the outputs is diagonal, so that the
            graph falls into one-to-one chains. "auto" (default) keeps the cut's own coordinates where they are the
            network's outputs, up to 1,024 of them, or stand for one output each (logits before a softmax): only
            these coordinates are given rather than chosen. Elsewhere it takes "pca". `settings` holds the choice made.
        rotation: "degenerate" rotates inside runs of eigenvalues with relative gaps below `gap` so that few outputs
            depend on each coordinate, "full" ignores the gaps, "none" gives the paper's plain basis.
        rank_tolerance: eigenvalues of G and M~ below this share of the largest are dropped, in PCA bases those of G;
            neuron bases keep every coordinate, and if all bases are neuron bases, `settings` holds None. It is at
            least the noise floor of the activations' number format (1e-6 in float32). `settings["rank_limited"]` names
            the cuts at which data points are fewer than features, and those at which that noise floor decides.
        gap: relative gap of neighbouring eigenvalues that ends a run.
        probes: random probes per data point for M, None for the exact sum over output coordinates. The rotation then
            takes the differences between 64 random halves of the outputs, with two probes in place of one; towards the
            next cut one probe per coordinate there, with random signs of the positions (see `cotangents`). At most 128
            coordinates are then rotated together.
        tolerance: take more probes until the importance of the directions is known with this relative standard error,
            at most `probes`; `settings` holds the number and the error. It is that of the output's Jacobian: local
            bases take one probe per coordinate of the next cut, and their error is not known (None). Where `probes` is
            not given, Jacobians of global bases and of their graph are taken at as many data points, drawn with the
            seed, as `enough_points` finds enough for this tolerance (all, if none are); `settings["data_points"]` and
            `settings["sampling_error"]` say how many. The Gram matrix of the activations takes all.
        seed: seed of the probes.
        progress: called after each batch.

    Raises:
        CutError: a cut leaks, does not reach the output, has more than 8,192 features, or its activations do not vary
            over the data.
        DataError: no data, NaN, or inputs that do not fit.
        GraphError: an unknown option; or a tolerance without probes that 64 of them do not reach.
    """
    drawn = None if probes is None and tolerance is None else seed
    options = _Options(kind, output, rotation, rank_tolerance, gap, probes, tolerance, drawn)
    options.check()
    net.check_once(batches)
    floor = _require_narrow(net, next(iter(batches)))
    activations = collect(net, batches, jacobians=False, progress=progress).activations
    _require_variance(activations)
    last = len(net.cuts) - 1
    if output == "auto":
        output = "neuron" if _stand_for_outputs(net, batches) else "pca"
    options = replace(options, rank_tolerance=max(rank_tolerance, floor), output=output)
    plain: dict[str, _Plain] = {"pca": partial(_pca, rank_tolerance=options.rank_tolerance), "neuron": _neuron}
    if kind in plain:
        bases = [plain[kind](cut, activations[cut]) for cut in net.cuts[:last]]
        bases.append(plain[output](net.cuts[last], activations[net.cuts[last]]))
        return Bases(tuple(bases), _settings(options, bases, net, batches))
    frames = [whiten(activations[cut].gram, options.rank_tolerance) for cut in net.cuts]
    extra: dict[str, Any] = {"seed": seed, "progress": progress}
    batches, sampled = _enough(net, batches, {p: frames[p].backward for p in range(last)}, options, progress)
    to_output: _Measure = partial(output_moments, net, batches, **extra)
    n_outputs = SPLITS if options.estimated else net.output_width
    found: dict[int, Basis] = {}
    estimates: list[_Estimate] = []

    def solve(cuts: Iterable[int], moments: _Measure, n_outputs: int, options: _Options) -> None:
        solutions, estimate = _solve({p: frames[p].backward for p in cuts}, moments, n_outputs, options)
        estimates.append(estimate)
        for p, solution in solutions.items():
            if options.estimated and moments is to_output:  # halves of the outputs tell the influence on none of them
                solution = replace(solution, influence=np.zeros((0, len(solution.importance))))
            found[p] = _basis(net.cuts[p], kind, activations[net.cuts[p]].centre, frames[p], solution)

    if output == "neuron":
        found[last] = _neuron(net.cuts[last], activations[net.cuts[last]])
    if kind == "global":
        solve(range(last + (output == "pca")), to_output, n_outputs, options)
    else:
        if output == "pca":
            solve([last], to_output, n_outputs, options)
        signed = replace(options, probes=1, tolerance=None) if options.tolerance is not None else options
        for p in reversed(range(last)):
            rows = torch.from_numpy(found[p + 1].to_basis)
            solve([p], partial(_to_next, net, batches, rows, extra), len(rows), signed)
    ordered = [found[p] for p in range(last + 1)]
    settings = _settings(options, ordered, net, batches) | _limits(ordered, activations, rank_tolerance, floor)
    return Bases(tuple(ordered), settings | _taken(options, estimates) | sampled)


def _enough(
    net: Network,
    batches: Iterable[Batch],
    columns: Mapping[int, Float[Tensor, "d k"]],
    options: _Options,
    progress: ProgressCallback | None,
) -> tuple[Iterable[Batch], dict[str, Any]]:
    """Return as many data points as a tolerance alone needs, and what to say of it; otherwise all."""
    if options.kind != "global" or options.tolerance is None or options.probes is not None:
        return batches, {}
    seed = options.seed or 0
    enough = enough_points(net, batches, columns, tolerance=options.tolerance, seed=seed, progress=progress)
    return random_points(batches, enough.taken, seed), {"data_points": enough.taken, "sampling_error": enough.error}


class _Estimate(NamedTuple):
    """How many probes were taken per data point, and how well the importance of the directions is known then."""

    probes: int | None = None
    importance_error: float | None = None


def _taken(options: _Options, estimates: Sequence[_Estimate]) -> dict[str, Any]:
    """Return what was estimated how well; for local bases the error is not known."""
    if not (options.estimated and estimates):
        return {}
    known = estimates[0] if options.kind == "global" else estimates[-1]._replace(importance_error=None)
    return known._asdict()


@dataclass(frozen=True)
class _Options:
    kind: str
    output: str
    rotation: str
    rank_tolerance: float
    gap: float
    probes: int | None
    tolerance: float | None
    seed: int | None

    @property
    def estimated(self) -> bool:
        """Whether random probes take the place of exact sums."""
        return self.probes is not None or self.tolerance is not None

    def check(self) -> None:
        for name, seen, known in (
            ("kind", self.kind, KINDS),
            ("output", self.output, OUTPUTS),
            ("rotation", self.rotation, ROTATIONS),
        ):
            if seen not in known:
                raise GraphError(f"unknown {name} {seen!r}: expected one of {', '.join(known)}")
        if not 0 < self.rank_tolerance < 1:
            raise GraphError(f"rank_tolerance is {self.rank_tolerance}: expected a share between 0 and 1")
        if self.probes is not None and self.probes < 1:
            raise GraphError(f"probes is {self.probes}: expected at least one, or None for the exact sum")
        if self.tolerance is not None and not 0 < self.tolerance < 1:
            raise GraphError(f"tolerance is {self.tolerance}: expected a share between 0 and 1")
        if self.gap < 0:
            raise GraphError(f"gap is {self.gap}: expected a relative gap of at least 0")


def _settings(options: _Options, bases: Sequence[Basis], net: Network, batches: Iterable[Batch]) -> dict[str, Any]:
    """Return the options that fix the numbers, whether the model was checked, and which modules are at no cut.

    Neuron bases drop nothing, so that they have no tolerance.
    """
    left_out = net.left_out(next(iter(batches)))._asdict()
    drops = any(basis.kind != "neuron" for basis in bases)
    return {
        **asdict(options),
        "rank_tolerance": options.rank_tolerance if drops else None,
        "checked": net.checked,
        "left_out": {where: list(names) for where, names in left_out.items()},
        "remarks": list(net.remarks),
    }


@dataclass(frozen=True)
class _Solution:
    """V with the rotation applied, in whitened coordinates, with spectrum, influence and rotated runs."""

    directions: Float[np.ndarray, "k rank"]
    importance: Float[np.ndarray, " rank"]
    influence: Float[np.ndarray, "o _"]
    spectrum: Float[np.ndarray, " k"]
    runs: tuple[int, ...]
    off_diagonal: float


def _to_next(
    net: Network,
    batches: Iterable[Batch],
    rows: Tensor,
    extra: Mapping[str, Any],
    columns: Mapping[int, Tensor],
    groups: Mapping[int, Sequence[slice]] | None,
    *,
    probes: int | None = None,
) -> dict[int, SecondMoments]:
    return {
        p: pair_moments(net, batches, p, rows, c, None if groups is None else groups[p], probes=probes, **extra)
        for p, c in columns.items()
    }


def _solve(
    columns: Mapping[int, Float[Tensor, "d k"]], moments: _Measure, n_outputs: int, options: _Options
) -> tuple[dict[int, _Solution], _Estimate]:
    """Solve steps 2 and 3 in whitened coordinates, in one pass if second moments per output fit in memory."""
    drawn: dict[str, Any] = {"probes": options.probes}
    drawn |= {} if options.tolerance is None else {"tolerance": options.tolerance}
    fits = 8 * n_outputs * sum(c.shape[1] ** 2 for c in columns.values()) <= _MEMORY
    if fits and not (options.estimated and options.rotation == "none"):
        whole = moments(columns, {p: [slice(0, c.shape[1])] for p, c in columns.items()}, **drawn)
    elif options.tolerance is not None or (options.estimated and options.rotation != "none"):
        whole = moments(columns, {p: [] for p in columns}, **drawn)
    else:
        whole = moments(columns, None, **drawn)
    errors = [m.error for m in whole.values() if m.error is not None]
    estimate = _Estimate(next(iter(whole.values())).probes or options.probes, max(errors, default=None))
    eigens = {p: eigh(m.gram, options.rank_tolerance) for p, m in whole.items()}
    if options.rotation == "none" and (options.estimated or not fits):
        return {p: _rotated(eigen, [], [], options) for p, eigen in eigens.items()}, estimate
    runs = {p: _runs(eigen, options, n_outputs, in_parts=not fits) for p, eigen in eigens.items()}
    if fits:
        per_output = {p: m.per_output[0] for p, m in whole.items()}
        seen = {p: [v.T @ per_output[p] @ v for v in (eigens[p].vectors[:, r] for r in runs[p])] for p in columns}
    else:
        drawn = {"probes": estimate.probes}
        found = moments({p: c @ eigens[p].vectors for p, c in columns.items()}, runs, **drawn)
        seen = {p: m.per_output for p, m in found.items()}
    return {p: _rotated(eigens[p], runs[p], seen[p], options) for p in columns}, estimate


def _runs(eigen: Eigen, options: _Options, n_outputs: int, *, in_parts: bool) -> list[slice]:
    """Find runs of nearly equal eigenvalues, short enough for memory and time."""
    values = eigen.values.numpy()
    gap = {"none": 0.0, "degenerate": options.gap, "full": np.inf}[options.rotation]
    longest = max(1, _MEMORY // (8 * n_outputs * len(values))) if in_parts else len(values)
    return _split(degenerate_runs(values, gap), values, min(longest, _LONGEST) if options.estimated else longest)


def _split(runs: list[slice], values: Float[np.ndarray, " k"], longest: int) -> list[slice]:
    """Split runs at their widest gap until none is longer."""
    done: list[slice] = []
    while runs:
        run = runs.pop(0)
        if run.stop - run.start <= longest:
            done.append(run)
            continue
        inside = values[run]
        at = run.start + 1 + int(np.argmin(inside[1:] / inside[:-1]))
        runs[:0] = [slice(run.start, at), slice(at, run.stop)]
    return done


def _rotated(eigen: Eigen, runs: Sequence[slice], moments: Sequence[Tensor], options: _Options) -> _Solution:
    """Rotate the eigenvectors inside each run, given the second moments per output there."""
    values = eigen.values.numpy()
    turn = np.eye(len(values))
    influence = [np.zeros((0, len(values)))] if not runs else []
    for run, moment in zip(runs, moments, strict=True):
        inside = moment.numpy()
        turn[run, run] = rotate(inside, enough=_BLURRED if options.estimated else 0.0)
        influence.append(np.einsum("ki,okl,li->oi", turn[run, run], inside, turn[run, run], optimize=True))
    turned = (turn.T * values) @ turn
    importance = np.diag(turned).copy()
    scale = np.sqrt(importance)
    off = np.abs(turned / np.outer(scale, scale) - np.eye(len(values))).max(initial=0.0)
    order = np.argsort(-importance, kind="stable")
    return _Solution(
        eigen.vectors.numpy() @ turn[:, order],
        importance[order],
        np.concatenate(influence, 1)[:, order],
        eigen.spectrum.numpy(),
        tuple(run.stop - run.start for run in runs),
        float(off) if any(run.stop - run.start > 1 for run in runs) else 0.0,
    )


def _basis(cut: str, kind: str, mean: Tensor, frame: Whitening, solution: _Solution) -> Basis:
    """Compute C = D^{1/2} V A (step 3) and its pseudoinverse, the largest entry of each row of C positive."""
    directions, scale = torch.from_numpy(solution.directions), torch.from_numpy(np.sqrt(solution.importance))
    rows = frame.forward.T @ directions * scale
    signs = column_signs(rows)
    to_basis, from_basis = (rows * signs).T, frame.backward @ directions / scale * signs
    return Basis(
        cut=cut,
        kind=kind,
        mean=mean.numpy(),
        to_basis=to_basis.contiguous().numpy(),
        from_basis=from_basis.numpy(),
        importance=solution.importance,
        gram_spectrum=frame.spectrum.numpy(),
        jacobian_spectrum=solution.spectrum,
        influence=solution.influence,
        runs=solution.runs,
        off_diagonal=solution.off_diagonal,
    )


def _plain(cut: str, kind: str, moments: ActivationMoments, to_basis: Tensor, importance: Tensor) -> Basis:
    none = np.zeros(0)
    spectrum = eigh(moments.gram).spectrum.numpy()
    c = to_basis.numpy()
    return Basis(cut, kind, moments.centre.numpy(), c, c.T.copy(), importance.numpy(), spectrum, none, none[:, None])


def _pca(cut: str, moments: ActivationMoments, *, rank_tolerance: float) -> Basis:
    eigen = eigh(moments.gram, rank_tolerance)
    return _plain(cut, "pca", moments, eigen.vectors.T.contiguous(), eigen.values)


def _neuron(cut: str, moments: ActivationMoments) -> Basis:
    variance = moments.gram.diagonal()
    return _plain(cut, "neuron", moments, torch.eye(len(variance), dtype=torch.float64, device="cpu"), variance)


def _stand_for_outputs(net: Network, batches: Iterable[Batch]) -> bool:
    """Return whether each coordinate of the last cut is an output, its logit, or mainly moves one output.

    The output is the softmax of logits, or its logarithm. A coordinate mainly moves one output, as before a sigmoid, if
    e_oo is more than half of its row and of its column, with e_oi = E[J_oi^2].
    """
    last, width = len(net.cuts) - 1, net.output_width
    if net.widths[last] != width or width > _MANY:
        return False
    batch = next(iter(batches))
    if ends_in_output(net, batch) or _are_logits(net, batch):
        return True
    columns = {last: torch.eye(width, dtype=torch.float64, device="cpu")}
    moments = output_moments(net, batches, columns, {last: [slice(i, i + 1) for i in range(width)]})[last]
    squared = torch.cat([moment[:, :, 0] for moment in moments.per_output], 1)
    own = squared.diagonal()
    return bool((2 * own > squared.sum(0)).all() and (2 * own > squared.sum(1)).all())


def _are_logits(net: Network, batch: Batch) -> bool:
    """Return whether the output is the softmax of the last cut, or its logarithm."""
    with torch.no_grad():
        trace = net.trace(batch)
    values, output, counted = trace.values[-1], trace.output, trace.output_counted
    if values.shape != output.shape:
        return False
    return any(not differs(output, counted.clean(of(values, -1))) for of in (torch.softmax, torch.log_softmax))


def _limits(
    bases: Sequence[Basis], activations: Mapping[str, ActivationMoments], wanted: float, floor: float
) -> dict[str, Any]:
    """Name the cuts at which the number of data points, or the number format, decides the rank."""
    spectra = {basis.cut: basis.gram_spectrum for basis in bases}
    few = [cut for cut, spectrum in spectra.items() if activations[cut].count <= len(spectrum)]
    cut_off = [cut for cut, g in spectra.items() if ((g > wanted * g[0]) & (g <= floor * g[0])).any()]
    found = {"data": few, "format": [cut for cut in cut_off if cut not in few]}
    return {"rank_limited": found} if any(found.values()) else {}


def _require_narrow(net: Network, batch: Batch) -> float:
    """Refuse cuts that are too wide, and return the noise floor of the activations."""
    with torch.no_grad():
        values = net.trace(batch).values
    for cut, width in zip(net.cuts, [value.shape[-1] for value in values], strict=True):
        if width > _WIDEST:
            raise CutError(
                f"{cut!r} has {width:,} features, and its moments are matrices of that size: cut where there are at "
                f"most {_WIDEST:,}, for example before the layer that widens to them (an unembedding); the outputs "
                "count all the same"
            )
    return max(noise_floor(value.dtype) for value in values)


def _require_variance(activations: Mapping[str, ActivationMoments]) -> None:
    for cut, moments in activations.items():
        if not float(moments.gram.diagonal().max()) > 1e-24 * float(moments.mean.abs().max()) ** 2:
            raise CutError(
                f"the activations at {cut!r} do not vary over the {moments.n} data points: leave this cut out, or use "
                "data that makes it vary"
            )
