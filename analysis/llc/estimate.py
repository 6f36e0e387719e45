"""Estimate the learning coefficient and the effective parameter count at a loss scale (paper, sections 2.1 and 2.2).

    V(eps) = vol{theta near theta* : L < eps},   lambda(eps) = d log V / d log eps,   N_eff(eps) = 2 lambda(eps)

(Equations 1 to 9.) Chains sample exp(-t L - gamma/2 |theta - theta*|^2), and lambda = t (E[L] - L(theta*)). This is the
mean of lambda(eps) over a density of mean eps = (lambda + 1)/t and relative width 1/sqrt(lambda + 1), so it belongs to
that loss scale.
Gamma defines "near": directions without cost are followed up to the distance sqrt(d/gamma). The localiser also damps
directions of small cost, by 1/2 gamma / (t H + gamma) each; the interval includes that part (`prior`). If it confines
more than a tenth of the directions on which the loss depends, t H < gamma, lambda describes the neighbourhood only, and
the verdict says so (`Diagnostics.below`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import brentq
from torch import Tensor, nn

from ..devices.memory import bytes_in_words, memory_left
from ..errors import InputError
from ..linalg import lanczos
from ..network.batches import Batch
from ..network.hooks import with_gradients
from ..network.network import Network
from ..notebook.bars import with_bar
from ..progress import Progress, ProgressCallback
from .batch_loss import LARGE, Parameters
from .chains import Chains, Plan, Sampler, run_chains
from .coefficient import LearningCoefficient, LearningCoefficientCurve, nothing_varied
from .curvature import Below, Curvature, Metric, affordable_pairs, exact_curvature, fits_densely, leading_curvature
from .diagnostics import (
    ControlVariate,
    Diagnostics,
    Evidence,
    control_variate,
    finite_chains,
    interval_around,
    judge,
    mean_with_error,
)
from .kernels import HamiltonianMonteCarlo, Potential, PreconditionedLangevin
from .landscape import Landscape
from .network_loss import DENSE, behavioural_loss
from .subspace import Directions, Restricted, Subspace, subspace_of

__all__ = ["learning_coefficient", "learning_coefficient_curve"]

_ADJUSTED = 30_000, 2 * 10**7  # parameters, and these times data points, for the Metropolis rule

_LEADING = 128  # eigenpairs of a metric without all of them

_HELD = 5 * 10**6  # largest size of all eigenvectors at which the metric is cheap beside the gradient

_REFINED = 10**11  # largest number of floating point operations for a new metric

_BATCH = 256, 2**26  # random data points of a step of a large network, and these times numbers of the output

_VECTORS = 45, 10  # vectors of all parameters beside those of the metric, and more for each chain

_IN_PLACE = 8  # vectors where chains run one after another in place

_SAME_RADIUS = 1.02  # largest R-hat of |theta - theta*| with the virial as control variate

_PILOTS = 4  # short runs to search for a temperature

_PILOT_DRAWS = 50  # least number in each

_CLOSE = 0.1  # relative distance of the loss scale that ends the search

_MISSED = 0.15  # and that makes the estimate doubtful

_TAIL = 0.1  # share of the soft rank that directions below the localiser may add to the interval


_DEFAULT = Sampler()


@with_gradients()
@with_bar
def learning_coefficient(
    net: Network | nn.Module | Landscape,
    batches: Iterable[Batch] | None = None,
    epsilon: float | None = None,
    *,
    temperature: float | None = None,
    parameters: Parameters | None = None,
    subspace: Subspace | Directions | None = None,
    sampler: Sampler = _DEFAULT,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> LearningCoefficient:
    """Estimate lambda of the behavioural loss at a loss scale.

    Args:
        net: a network; any module (MSE, all its outputs); or a loss made by `behavioural_loss`, `constrained_loss`,
            `training_loss` or `Function`.
        batches: data, unless a loss is given.
        epsilon: the loss scale, for which a temperature is searched. Value and interval hold at the scale in the
            result, within a few percent of the one wanted.
        temperature: t = n beta, instead of a loss scale.
        parameters: parameters to vary: globs on their names, or masks; None for all.
        subspace: directions of these parameters to vary: the columns of a matrix, or (directions, *shape) by name of
            a parameter; None for all. The result depends on their span alone, and is 0 where that is nothing.
        sampler: options of the sampler.
        seed: seed of the chains.
        progress: called as the chains go on.

    Raises:
        InputError: neither or both of epsilon and temperature, or unsuitable options.
        DataError: no data, or data that does not fit.

    >>> from .landscape import Function
    >>> bowl = Function(lambda w: (w**2).sum(), torch.zeros(3, dtype=torch.float64))
    >>> found = learning_coefficient(bowl, temperature=1e4, sampler=Sampler(gamma=1.0))
    >>> round(found.value, 3), found.verdict   # three directions, 1/2 each
    (1.5, 'reliable')
    """
    if (epsilon is None) == (temperature is None):
        raise InputError("give either a loss scale epsilon or a temperature")
    _check_scale("epsilon", epsilon)
    _check_scale("temperature", temperature)
    landscape = _landscape(net, batches, parameters, subspace, progress)
    if not len(landscape.start):
        return nothing_varied(landscape.n, temperature or 1 / (epsilon or 1.0), seed)
    setup = _Setup.of(landscape, sampler, seed, progress)
    if epsilon is not None:
        return setup.at(epsilon, setup.temperature_for(epsilon), None, progress)[0]
    if temperature is None:
        raise InputError("give either a loss scale epsilon or a temperature")
    return setup.estimate(temperature, setup.run(temperature, setup.plan, None, progress))


@with_gradients()
@with_bar
def learning_coefficient_curve(
    net: Network | nn.Module | Landscape,
    batches: Iterable[Batch] | None = None,
    epsilons: Sequence[float] | Float[np.ndarray, " points"] | None = None,
    *,
    parameters: Parameters | None = None,
    subspace: Subspace | Directions | None = None,
    sampler: Sampler = _DEFAULT,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> LearningCoefficientCurve:
    """Estimate lambda(eps) over a range of loss scales, from cold to hot, each starting where the last one ended.

    Args:
        net: as in `learning_coefficient`.
        batches: data, unless a loss is given.
        epsilons: at least two scales, each met within a few percent (see `learning_coefficient`); None for eleven from
            1e-6 to 0.1 of the loss of a constant output.
        parameters: parameters to vary.
        subspace: directions of them to vary, as in `learning_coefficient`.
        sampler: options of the sampler at each scale.
        seed: seed of the chains.
        progress: called as the chains go on.

    Raises:
        InputError: fewer than two scales, or scales that are not above 0.
        DataError: no data, or data that does not fit.
    """
    landscape = _landscape(net, batches, parameters, subspace, progress)
    if epsilons is None:
        epsilons = landscape.scale * np.logspace(-6, -1, 11)
    scales = sorted({float(epsilon) for epsilon in epsilons})
    if len(scales) < 2:
        raise InputError(f"{len(scales)} loss scales: a curve needs at least two")
    for scale in scales:
        _check_scale("epsilon", scale)
    if not len(landscape.start):
        none = [nothing_varied(landscape.n, 1 / scale, seed) for scale in scales]
        return LearningCoefficientCurve(tuple(none))
    setup = _Setup.of(landscape, sampler, seed, progress)
    points: list[LearningCoefficient] = []
    before = None
    for number, scale in enumerate(scales):
        guess = setup.temperature_for(scale)
        if points and math.isfinite(points[-1].value):
            guess = (max(points[-1].value, 0.0) + 1) / scale
        point, before = setup.at(scale, guess, before, _numbered(progress, number, len(scales)))
        points.append(point)
    return LearningCoefficientCurve(tuple(points))


@dataclass(frozen=True)
class _Setup:
    """The parts that all temperatures share: loss, localiser, curvature at theta*, options."""

    landscape: Landscape
    gamma: float
    curvature: Curvature
    kernel: str
    preconditioner: str
    batch_size: int | None
    sampler: Sampler
    plan: Plan
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, landscape: Landscape, sampler: Sampler, seed: int, progress: ProgressCallback | None) -> _Setup:
        d = len(landscape.start)
        default = default_kernel(d, landscape.n)
        affordable = default == "hmc"
        kernel = default if sampler.kernel == "auto" else sampler.kernel
        adjusted = kernel in ("mala", "hmc")
        batch_size = sampler.batch_size
        if batch_size == "auto":
            few = min(_BATCH[0], max(1, _BATCH[1] // max(getattr(landscape, "outputs_per_point", 1), 1)))
            batch_size = few if not adjusted and not affordable and landscape.n > 2 * few else None
        if batch_size is not None and adjusted:
            raise InputError(f"{kernel} needs all the data in each step: leave out batch_size, or use sgld")
        dense = fits_densely(landscape)
        chosen = sampler.preconditioner
        if chosen == "auto":
            diagonal = kernel == "psgld" or (kernel == "sgld" and d > LARGE)
            chosen = "none" if diagonal else "gauss-newton" if dense else "lanczos"
        if chosen == "gauss-newton" and not dense:
            raise InputError(
                f"all eigenpairs of the curvature of {d:,} parameters do not fit: use preconditioner='lanczos'"
            )
        notes = tuple(getattr(landscape, "notes", ()))
        if chosen == "lanczos" or not dense:
            wanted = min(_LEADING, max(1, d // 2)) if chosen == "lanczos" else 0
            count = affordable_pairs(d, wanted) if wanted else 0
            few = d > LARGE and kernel in ("sgld", "psgld") and not count
            _require_memory(landscape.start, sampler.chains, count, few=few)
            if count < wanted:
                notes += (f"{count} eigenpairs of the curvature instead of {wanted}: of {d:,} parameters no more fit",)
            curvature = leading_curvature(landscape, count, seed=seed, progress=progress)
        else:
            curvature = exact_curvature(landscape, [landscape.start])
            if sampler.preconditioner == "auto" and chosen == "gauss-newton" and curvature.vectors.numel() > _HELD:
                chosen, curvature = "lanczos", curvature.leading(_LEADING)
        size = None if isinstance(batch_size, str) else batch_size
        gamma = _gamma(landscape, sampler)
        return cls(landscape, gamma, curvature, kernel, chosen, size, sampler, sampler.plan(kernel, seed), notes)

    def temperature_for(self, epsilon: float) -> float:
        """Solve t eps = soft rank + 1 for t."""

        def excess(log_t: float) -> float:
            t = math.exp(log_t)
            return math.log(t * epsilon) - math.log(self.curvature.soft_rank(t, self.gamma) + 1)

        low = -math.log(epsilon)
        return math.exp(brentq(excess, low - 1e-9, low + math.log(len(self.landscape.start) + 1)))

    def at(
        self, epsilon: float, temperature: float, before: Chains | None, progress: ProgressCallback | None
    ) -> tuple[LearningCoefficient, Chains]:
        """Estimate lambda at a loss scale, whose temperature short runs find; return it with the chains."""
        for _ in range(_PILOTS):
            short = replace(self.plan, draws=max(_PILOT_DRAWS, self.plan.draws // 4))
            before = self.run(temperature, short, before, progress)
            found = self.estimate(temperature, before)
            if not found.value > -0.5:
                break
            old, temperature = temperature, (max(found.value, 0.0) + 1) / epsilon
            if abs(old / temperature - 1) < _CLOSE:
                break
        chains = self.run(temperature, self.plan, before, progress)
        return _at_the_scale(self.estimate(temperature, chains), epsilon), chains

    def potential(self, temperature: float) -> Potential:
        """Return U at a temperature."""
        return Potential(self.landscape, temperature, self.gamma, self.batch_size)

    def metric(self, curvature: Curvature, temperature: float) -> Metric:
        """Compute the kernel's metric from the curvature at theta* or at the positions of the chains."""
        if self.preconditioner == "none":
            return Metric((temperature * curvature.largest + self.gamma) ** -0.5)
        return curvature.metric(temperature, self.gamma)

    def curved(self, temperature: float) -> bool:
        """Return whether theta* has relevant curvature: half a direction or more of the quadratic."""
        return self.curvature.soft_rank(temperature, self.gamma) >= 0.5

    def run(self, temperature: float, plan: Plan, before: Chains | None, progress: ProgressCallback | None) -> Chains:
        """Run chains at a temperature; chains that continue others warm up for half as long."""
        landscape = self.landscape
        if before is not None and (before.state is None or not torch.isfinite(before.state.position).all()):
            before = None
        if before is not None:
            plan = replace(plan, warmup=max(3, plan.warmup // 2))
        d, rows = len(landscape.start), landscape.row_count
        work = plan.chains * max(rows, d) * d * min(d, rows or d) + 10 * min(d, rows * plan.chains or d) ** 3
        refined = self.preconditioner == "gauss-newton" and self.kernel in ("mala", "hmc") and work <= _REFINED
        refined &= self.curved(temperature)

        def refine(points: Sequence[Tensor]) -> Metric:
            return self.metric(exact_curvature(landscape, [*points, landscape.start]), temperature)

        return run_chains(
            self.potential(temperature),
            self.kernel,
            self.curvature,
            plan,
            metric=self.metric(self.curvature, temperature),
            refine=refine if refined else None,
            before=before,
            progress=progress,
        )

    @np.errstate(over="ignore", invalid="ignore")  # diverging chains are reported in the result
    def estimate(self, temperature: float, chains: Chains) -> LearningCoefficient:
        """Compute lambda and its diagnostics from the traces."""
        scaled = temperature * (chains.loss - self.landscape.baseline)
        whole = finite_chains(scaled, chains.virial, chains.share)
        plain = mean_with_error(scaled[whole])
        radius = mean_with_error(chains.radius[whole])
        bias = self._step_bias(temperature, chains) if whole.any() else math.inf
        d = len(self.landscape.start)
        square = float(np.square(chains.radius[whole]).mean()) if whole.any() else math.nan
        corrected, used = self._corrected(scaled, whole, temperature, chains, bias, radius.r_hat)
        best = mean_with_error(corrected)
        left = bias - (plain.mean - best.mean) if bias else 0.0  # change of the step's bias by the control variate
        low, high = interval_around(best, left)
        descent, soft_rank = self._descent(temperature), self.curvature.soft_rank(temperature, self.gamma)
        prior, below = self._hidden(temperature, soft_rank)
        found = Diagnostics(
            r_hat=float(np.maximum(plain.r_hat, best.r_hat)),
            ess=min(plain.ess, best.ess),
            r_hat_radius=radius.r_hat,
            plain=plain.mean,
            plain_error=plain.error,
            control_variate=used,
            heat=float(scaled[whole].var() / plain.mean) if whole.any() and plain.mean else math.nan,
            soft_rank=soft_rank,
            step_bias=bias,
            radius=math.sqrt(square),
            localised=self.gamma * square / d,
            largest_curvature=self.curvature.largest,
            descent=descent,
            prior=prior,
            below=below,
            n_parameters=d,
            derivatives="torch.func" if self.landscape.vectorised else "autograd",
            notes=self.notes,
            **self._sampling(chains, whole),
        )
        least = max(low, 0.0) if self.landscape.behavioural and high > 0 else low
        traces = {"llc": scaled, "virial": chains.virial, "stein": chains.share}
        traces |= {"radius": chains.radius, "acceptance": chains.acceptance}
        traces |= {f"observed_{i}": chains.observed[..., i] for i in range(chains.observed.shape[-1])}
        return self._result(temperature, best, (least, high + descent + prior), found, traces)

    def _sampling(self, chains: Chains, whole: Bool[np.ndarray, " chains"]) -> dict[str, Any]:
        """Collect the diagnostics of the sampling itself: how the chains ran, and their virial."""
        virial, d, kernel = mean_with_error(chains.virial[whole]), len(self.landscape.start), chains.kernel
        n_chains, draws = chains.loss.shape
        return {
            "virial": virial.mean / d,
            "virial_error": virial.error / d,
            "acceptance": float(np.nanmean(chains.acceptance)) if kernel.adjusted else None,
            "failed_chains": tuple(int(c) for c in np.flatnonzero(~whole)),
            "rejected": sum(chains.broken),
            "kernel": self.kernel,
            "preconditioner": self.preconditioner,
            "execution": chains.execution,
            "step_sizes": chains.step_size,
            "leapfrog": kernel.leapfrog if isinstance(kernel, HamiltonianMonteCarlo) else None,
            "chains": n_chains,
            "warmup": self.plan.warmup,
            "draws": draws,
            "gradients": chains.gradients,
        }

    def _result(
        self,
        temperature: float,
        best: Evidence,
        interval: tuple[float, float],
        found: Diagnostics,
        traces: dict[str, np.ndarray],
    ) -> LearningCoefficient:
        """Build the estimate with its verdict."""
        verdict, reason = judge(best.mean, best.error, found)
        return LearningCoefficient(
            value=best.mean,
            standard_error=best.error,
            interval=interval,
            epsilon=(best.mean + 1) / temperature if best.mean > -1 else math.nan,
            temperature=temperature,
            gamma=self.gamma,
            n_parameters=len(self.landscape.start),
            n=self.landscape.n,
            verdict=verdict,
            reason=reason,
            diagnostics=found,
            names=tuple(getattr(self.landscape, "names", ())),
            seed=self.plan.seed,
            traces=traces,
            checked=bool(getattr(self.landscape, "checked", False)),
        )

    def _corrected(
        self,
        scaled: Float[np.ndarray, "chains draws"],
        whole: Bool[np.ndarray, " chains"],
        temperature: float,
        chains: Chains,
        bias: float,
        r_hat_radius: float,
    ) -> tuple[Float[np.ndarray, "_ draws"], ControlVariate]:
        """Subtract control variates from the traces of the finite chains, where they may be used."""
        if not (self.sampler.control_variate and whole.any()):
            return scaled[whole], ControlVariate({}, {})
        variables = {"stein": chains.share[whole] - self.curvature.trace_of_share(temperature, self.gamma)}
        # without curvature the virial makes lambda (d - gamma <|D|^2>) / 4, which rare far excursions dominate
        if chains.kernel.adjusted and r_hat_radius < _SAME_RADIUS and self.curved(temperature):
            variables["virial"] = chains.virial[whole] - len(self.landscape.start)
        return control_variate(scaled[whole], variables, {"stein": 2 * bias if math.isfinite(bias) else 0.0})

    def _hidden(self, temperature: float, soft_rank: float) -> tuple[float, Below]:
        """Compute `Diagnostics.prior`, and `Diagnostics.below` where it is too large to be part of the interval."""
        prior, below = self.curvature.hidden(temperature, self.gamma), self.curvature.below(temperature, self.gamma)
        return (prior + below.worth, Below()) if below.worth <= _TAIL * soft_rank else (prior, below)

    def _descent(self, temperature: float) -> float:
        """Compute the decrease of t L from theta* to the mean of the localised quadratic.

        With g = t grad L and P P = (t H + gamma)^-1, D = -P P g is the mean and t (L(theta*) - L) = 1/2 |P g|^2 +
        gamma/2 |D|^2 there. Where not all eigenpairs are known the rest counts as its bound, and the result is a lower
        bound.
        """
        if self.landscape.behavioural:
            return 0.0
        slope = temperature * self.landscape.evaluate(self.landscape.start[None])[1]
        metric = self.curvature.metric(temperature, self.gamma)
        half = metric(slope)
        return float(half.square().sum() + self.gamma * metric(half).square().sum()) / 2

    def _step_bias(self, temperature: float, chains: Chains) -> float:
        """Compute the step's bias of t <L> on a quadratic loss, and the additional one from random batches."""
        kernel = chains.kernel
        if kernel.adjusted:
            return 0.0
        if chains.state is None:
            return float(np.mean([step / 8 * size for step, size in zip(chains.step_size, chains.push, strict=True)]))
        step = max(chains.step_size)
        if isinstance(kernel, PreconditionedLangevin):
            roots = kernel.scale(chains.state).sqrt()
            each = [
                self._diagonal_bias(temperature, root, kernel, own)
                for root, own in zip(roots, chains.step_size, strict=True)
            ]
            bias = float(np.mean(each))
        else:
            nodes, weights = self.curvature.nodes.clip(0), self.curvature.weights
            known = np.maximum(nodes, self.curvature.rest)
            if self.preconditioner == "none":
                known = np.full_like(nodes, self.curvature.largest)
            free = max(len(self.landscape.start) - float(weights.sum()), 0.0)
            floor = self.curvature.largest if self.preconditioner == "none" else self.curvature.rest
            stiffness = np.append(
                (temperature * nodes + self.gamma) / (temperature * known + self.gamma),
                self.gamma / (temperature * floor + self.gamma),
            )
            energies = kernel.energies(stiffness, np.append(weights, max(free, 1e-12)), step)[:-1]
            share = temperature * nodes / (temperature * nodes + self.gamma)
            bias = float((weights * share * (energies - 1)).sum()) / 2
        size = float(np.mean(chains.noise)) if chains.noise else 0.0
        return bias + step / 8 * size if math.isfinite(bias) else math.inf

    def _diagonal_bias(
        self, temperature: float, root: Float[Tensor, " d"], kernel: PreconditionedLangevin, step: float
    ) -> float:
        """Compute the same for a diagonal P, which H does not commute with: exact if H is known, else a bound."""
        known, d = self.curvature, len(root)
        if known.rest == 0 and d <= DENSE:
            loss = temperature * (known.vectors * known.values) @ known.vectors.T
            whole = root[:, None] * (loss + self.gamma * torch.eye(d, dtype=loss.dtype, device="cpu")) * root
            values, vectors = torch.linalg.eigh(whole)
            energies = kernel.energies(values.numpy(), np.ones(d), step)
            back = root[:, None] * vectors
            share = ((back * (loss @ back)).sum(0) / values).numpy()
            return float((share * (energies - 1)).sum()) / 2
        landscape = self.landscape

        def product(vector: Tensor) -> Tensor:
            inner = (root.double() * vector).to(root)
            image = temperature * landscape.product(landscape.start, inner[None])[0] + self.gamma * inner
            return (root * image).double()

        start = torch.randn(
            d, generator=torch.Generator().manual_seed(self.plan.seed), dtype=torch.float64, device="cpu"
        )
        nodes, weights = lanczos(product, start, 32)
        return d * float((weights * (kernel.energies(nodes.clip(0), weights, step) - 1)).sum()) / 2


def default_kernel(d: int, n: int) -> str:
    """Return the kernel that "auto" means for d parameters and n data points."""
    if d <= _ADJUSTED[0] and d * n <= _ADJUSTED[1]:
        return "hmc"
    return "psgld" if d > LARGE else "sgld"


def _landscape(
    network: Network | nn.Module | Landscape,
    batches: Iterable[Batch] | None,
    parameters: Parameters | None,
    subspace: Subspace | Directions | None,
    progress: ProgressCallback | None,
) -> Landscape:
    """Return the loss that is sampled: of a network or as given, of all its parameters or on a subspace of them."""
    whole = _loss_of(network, batches, parameters, progress)
    return whole if subspace is None else Restricted(whole, subspace_of(whole, subspace))


def _loss_of(
    network: Network | nn.Module | Landscape,
    batches: Iterable[Batch] | None,
    parameters: Parameters | None,
    progress: ProgressCallback | None,
) -> Landscape:
    if not isinstance(network, Network | nn.Module):
        if batches is not None or parameters is not None:
            raise InputError("a loss holds its data and its parameters: give them to the function that makes it")
        return network
    if batches is None:
        raise InputError("a network needs batches of data")
    if isinstance(network, nn.Module):
        network = Network(network, [])
    return behavioural_loss(network, batches, parameters=parameters, progress=progress)


def _at_the_scale(found: LearningCoefficient, epsilon: float) -> LearningCoefficient:
    """Mark the estimate as doubtful if it belongs to another loss scale than requested."""
    if not math.isfinite(found.epsilon) or abs(found.epsilon / epsilon - 1) <= _MISSED:  # NaN already has a reason
        return found
    missed = (
        f"the search for a temperature ended at loss scale {found.epsilon:.3g}, not near {epsilon:.3g} as asked: "
        "run the chains longer, or give a temperature"
    )
    if found.verdict == "reliable":
        return replace(found, verdict="doubtful", reason=missed)
    return replace(found, reason=f"{found.reason}; {missed}")


def _require_memory(start: Tensor, chains: int, pairs: int, *, few: bool = False) -> None:
    """Refuse chains and eigenpairs that do not fit into the memory available.

    Args:
        start: theta*.
        chains: number of chains.
        pairs: number of eigenpairs.
        few: whether chains run one after another in place.

    Raises:
        InputError: says how much they take, how much there is, and what takes less.
    """
    vectors = _IN_PLACE if few else _VECTORS[0] + _VECTORS[1] * chains + 3 * pairs
    needed, available = vectors * start.numel() * start.element_size(), memory_left(start.device)
    if available is None or needed <= available:
        return
    less = [*(["preconditioner='none'"] if pairs else []), *(["fewer chains"] if chains > 2 else [])]
    less += ["some of the parameters (parameters=)", *(["weights in float32"] if start.element_size() > 4 else [])]
    raise InputError(
        f"{chains} chains of {start.numel():,} parameters in {start.dtype} take about {bytes_in_words(needed)} "
        f"({vectors} vectors), and {bytes_in_words(available)} are available: take {', or '.join(less)}"
    )


def _gamma(landscape: Landscape, sampler: Sampler) -> float:
    if sampler.gamma is not None:
        return sampler.gamma
    size = float(landscape.start.norm())
    if not size > 0:
        raise InputError("all parameters that are varied are 0, so a radius relative to them says nothing: give gamma")
    return len(landscape.start) / (sampler.radius * size) ** 2


def _check_scale(name: str, value: float | None) -> None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise InputError(f"{name} is {value}: expected a number above 0")


def _numbered(progress: ProgressCallback | None, number: int, total: int) -> ProgressCallback | None:
    if not callable(progress):
        return None

    def tell(report: Progress) -> None:
        progress(replace(report, step=f"{report.step} {number + 1}/{total}"))

    return tell
