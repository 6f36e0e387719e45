"""Options of a sampler, and runs of its chains from warm-up to traces: together, one by one, or in processes.

Start: theta* + s P z, with s halved until U <= d/2 + 4 sqrt(d). Warm-up: the step size by dual averaging (Hoffman and
Gelman 2014), for kernels with a Metropolis rule; the metric again, from the curvature at the positions of the
chains; the number of leapfrog steps from the step size. The three phases of the warm-up are not part of the traces.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..progress import Progress, ProgressCallback
from ..results import by_value
from ..seeds import torch_generator
from .batch_loss import LARGE
from .curvature import Curvature, Metric
from .kernels import (
    KERNELS,
    HamiltonianMonteCarlo,
    Kernel,
    Potential,
    PreconditionedLangevin,
    State,
    StochasticLangevin,
    Walker,
    block_of_noise,
    blocks,
    normal,
)
from .landscape import Landscape

__all__ = ["EXECUTIONS", "PRECONDITIONERS", "Chains", "Plan", "Sampler", "run_chains"]

EXECUTIONS = ("auto", "vectorised", "sequential", "processes")

PRECONDITIONERS = ("auto", "gauss-newton", "lanczos", "none")

_METROPOLIS = ("mala", "hmc")  # kernels with a rule of acceptance

_VECTORISED = 20_000  # up to so many parameters chains are cheaper together

_TRAJECTORY = 1.5  # of a trajectory in the coordinates of the metric, about a quarter of a period

_MOST_LEAPFROG = 24

_SAFE_STEP = {"sgld": 0.06, "psgld": 0.06, "sgnht": 0.2}  # of the stiffest mode


@dataclass(frozen=True)
class Plan:
    """The number of chains and steps, and how chains are run.

    Attributes:
        warmup, draws: steps of each chain, before and in the trace.
        step_size: a fixed step size instead of the kernel's own choice.
        execution: "vectorised", "sequential", "processes", or "auto" for the cheaper of the first two.
        workers: number of processes for "processes"; None for one per chain.
    """

    chains: int = 4
    warmup: int = 300
    draws: int = 500
    step_size: float | None = None
    execution: str = "auto"
    workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.execution not in EXECUTIONS:
            raise InputError(f"unknown execution {self.execution!r}: expected one of {', '.join(EXECUTIONS)}")
        for name, least in (("chains", 1), ("warmup", 3), ("draws", 4)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}: expected at least {least}")
        if self.step_size is not None and not self.step_size > 0:
            raise InputError(f"the step size is {self.step_size}: expected a number above 0")


@dataclass(frozen=True)
class Sampler:
    """Options of the sampler; the defaults need no tuning.

    Attributes:
        kernel: "hmc", "mala", "sgld", "psgld", "sgnht"; "auto": hmc up to 30,000 parameters and
            2e7 parameters times data points, then sgld, and psgld above 100,000 parameters.
        preconditioner: "gauss-newton" (all eigenpairs of the curvature), "lanczos" (its largest), "none"; "auto" for
            the first where it fits and its eigenvectors are at most 5 million numbers.
        radius: root mean square of |theta - theta*| in free directions, relative to |theta*|.
        gamma: strength of the localiser, instead of the radius; None for d / (radius |theta*|)^2.
        chains, warmup, draws: numbers of chains and of their steps; the warm-up is not averaged. Default: 300 and 500,
            for kernels without a Metropolis rule, whose steps are small and cheap, 600 and 4,000.
        step_size: step size in the coordinates of the metric; None to adapt it, or for a safe one.
        batch_size: random data points of each step, for kernels without a Metropolis rule; None for all data, "auto"
            for 256 where the network is large.
        control_variate: whether a control variate is used.
        execution: "vectorised", "sequential", "processes", or "auto".
        workers: number of processes, only for "processes"; None for one per chain.

    The command line and `LlcRecipe` leave control_variate, execution and workers at their defaults.

    Raises:
        InputError: an option out of its range, a gamma beside another radius, or a batch size of a kernel that needs
            all data.
    """

    kernel: str = "auto"
    preconditioner: str = "auto"
    radius: float = 0.02
    gamma: float | None = None
    chains: int = 4
    warmup: int | None = None
    draws: int | None = None
    step_size: float | None = None
    batch_size: int | str | None = "auto"
    control_variate: bool = True
    execution: str = "auto"
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.kernel not in ("auto", *KERNELS):
            raise InputError(f"unknown kernel {self.kernel!r}: expected auto, {', '.join(KERNELS)}")
        if self.preconditioner not in PRECONDITIONERS:
            raise InputError(
                f"unknown preconditioner {self.preconditioner!r}: expected one of {', '.join(PRECONDITIONERS)}"
            )
        for name in ("radius", "gamma"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise InputError(f"{name} is {value}: expected a number above 0")
        if not (self.batch_size in (None, "auto") or (isinstance(self.batch_size, int) and self.batch_size >= 1)):
            raise InputError(f"batch_size is {self.batch_size!r}: expected a number of data points, None or 'auto'")
        if self.gamma is not None and self.radius != Sampler.radius:
            raise InputError(f"gamma {self.gamma} and radius {self.radius} were given: expected one of them")
        if isinstance(self.batch_size, int) and self.kernel in _METROPOLIS:
            raise InputError(f"{self.kernel} needs all the data in each step: leave out batch_size, or use sgld")
        if self.workers is not None and self.execution != "processes":
            raise InputError(
                f"workers is {self.workers} and execution {self.execution!r}: expected 'processes', or no workers"
            )
        self.plan("hmc", 0)

    def plan(self, kernel: str, seed: int) -> Plan:
        """Return the plan of a kernel: numbers of steps, and how chains are run."""
        warmup, draws = (300, 500) if kernel in _METROPOLIS else (600, 4000)
        warmup, draws = (
            self.warmup if self.warmup is not None else warmup,
            self.draws if self.draws is not None else draws,
        )
        return Plan(self.chains, warmup, draws, self.step_size, self.execution, self.workers, seed)


@by_value
@dataclass(frozen=True)
class Chains:
    """The traces of the draws, one row per chain, with kernel, state and settings.

    Attributes:
        loss: L.
        virial: D . grad U, with D = theta - theta*; its mean is d.
        share: (M D) . grad U, see `Curvature.share`; its mean is tr M.
        radius: |D|.
        acceptance: probability of acceptance; 1 without a rule.
        broken: per chain the number of draws whose proposal (or state) was not finite.
        step_size: per chain.
        kernel: kernel that sampled, with its metric.
        state, generators: state and random generators at the end of the chains; chains of large models that run one
            after another in place leave no state.
        noise: per chain tr P S P, with S the covariance of the gradient of U over random batches; empty without.
        push: per chain the mean of |P grad U|^2 less gamma tr P P, of chains without a state: its mean is
            tr P t H P + tr P S P.
        gradients: evaluations of the gradient per chain, warm-up included.
        observed: other numbers of each draw, which a loss with a method `observed` gives.
        execution: the execution used, also where "auto" chose it.
    """

    loss: Float[np.ndarray, "chains draws"]
    virial: Float[np.ndarray, "chains draws"]
    share: Float[np.ndarray, "chains draws"]
    radius: Float[np.ndarray, "chains draws"]
    acceptance: Float[np.ndarray, "chains draws"]
    broken: tuple[int, ...]
    step_size: tuple[float, ...]
    kernel: Kernel
    state: State | None
    generators: tuple[Tensor, ...]
    gradients: int
    execution: str
    observed: Float[np.ndarray, "chains draws m"]
    noise: tuple[float, ...] = ()
    push: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Phase:
    """A phase of steps for one group of chains; it can be sent to another process."""

    potential: Potential
    kernel: Kernel
    curvature: Curvature
    state: State
    generators: tuple[Tensor, ...]
    steps: int
    adapt: bool
    record: bool


@dataclass(frozen=True)
class _Done:
    state: State
    generators: tuple[Tensor, ...]
    trace: Float[Tensor, "chains draws columns"]
    broken: tuple[int, ...]
    gradients: int


class _DualAveraging:
    """Step sizes adapted until the mean acceptance is `target` (Hoffman and Gelman 2014, section 3.2)."""

    def __init__(self, step_size: Float[Tensor, " chains"], target: float) -> None:
        self._target = target
        self._centre = torch.log(10 * step_size)
        self._mean = torch.zeros_like(step_size)
        self._log = torch.log(step_size)
        self._count = 0

    def update(self, acceptance: Float[Tensor, " chains"]) -> Float[Tensor, " chains"]:
        """Return the step size to try next."""
        self._count += 1
        share = 1 / (self._count + 10)
        self._mean = (1 - share) * self._mean + share * (self._target - acceptance)
        now = self._centre - math.sqrt(self._count) / 0.05 * self._mean
        weight = self._count**-0.75
        self._log = weight * now + (1 - weight) * self._log
        return torch.exp(now).clamp(max=2.0)

    def final(self) -> Float[Tensor, " chains"]:
        """Return the step size to keep."""
        return torch.exp(self._log).clamp(max=1.9)


def run_chains(
    potential: Potential,
    name: str,
    curvature: Curvature,
    plan: Plan,
    *,
    metric: Metric,
    refine: Callable[[Sequence[Tensor]], Metric] | None = None,
    before: Chains | None = None,
    progress: ProgressCallback | None = None,
) -> Chains:
    """Warm up chains and sample.

    Args:
        potential: the potential U to sample.
        name: name of the kernel in `KERNELS`.
        curvature: curvature at theta*, for the control variates.
        plan: numbers of chains and steps, and how they run.
        metric: P, in whose coordinates the stiffest mode is about 1.
        refine: returns the metric for given points; called once the chains have moved.
        before: chains at another temperature, whose positions and steps are the start of these.
        progress: called some fifty times, with the running estimate of t (L - L(theta*)).
    """
    make = KERNELS[name]
    execution = _execution(potential.landscape, plan)
    kernel = make(metric)
    if refine is None and execution == "sequential" and _few_vectors(potential, kernel, curvature):
        return run_one_by_one(potential, kernel, plan, _Teller(potential, plan, progress))
    if before is None or before.state is None:
        state, generators = _started(potential, kernel, name, metric, plan)
    else:
        state, generators = _continued(potential, kernel, before.state), before.generators
        if isinstance(before.kernel, HamiltonianMonteCarlo) and isinstance(kernel, HamiltonianMonteCarlo):
            kernel = replace(kernel, leapfrog=before.kernel.leapfrog)
    gradients = 0
    tell = _Teller(potential, plan, progress)
    first, second = plan.warmup // 3, plan.warmup // 3
    with _Pool(execution, plan) as run:
        for number, steps in enumerate((first, second, plan.warmup - first - second)):
            adapt = kernel.adjusted and plan.step_size is None
            phase = _Phase(potential, kernel, curvature, state, generators, steps, adapt, record=False)
            done = run(phase, tell.phase("warm-up", steps))
            state, generators, gradients = done.state, done.generators, gradients + done.gradients
            if number < 2 and refine is not None and torch.isfinite(state.position).all():
                kernel = make(refine(list(state.position)))
            kernel, state = _settled(kernel, state, name, potential, plan, freeze=number == 1)
        phase = _Phase(potential, kernel, curvature, state, generators, plan.draws, adapt=False, record=True)
        done = run(phase, tell.phase("sampling", plan.draws))
    trace = done.trace.double().numpy()
    loss, virial, share, radius, acceptance = np.moveaxis(trace[..., :5], -1, 0)
    noise = _noise(potential, kernel, done.state, plan)
    return Chains(
        loss,
        virial,
        share,
        radius,
        acceptance,
        done.broken,
        tuple(done.state.step_size.tolist()),
        kernel,
        done.state,
        done.generators,
        gradients + done.gradients,
        execution,
        trace[..., 5:],
        noise,
    )


def run_one_by_one(potential: Potential, kernel: Kernel, plan: Plan, tell: _Teller) -> Chains:
    """Run SGLD or pSGLD with a diagonal metric, chain after chain, in five vectors of the parameters.

    The chains are those of `run_chains`: theta*, a position, its gradient, the metric, and no others.
    """
    if not isinstance(kernel, StochasticLangevin | PreconditionedLangevin):
        raise InputError(f"{type(kernel).__name__} keeps its states, and does not run in place")
    parts = [_walked(potential, kernel, plan, chain, tell) for chain in range(plan.chains)]
    columns = [[part.trace[name] for part in parts] for name in ("loss", "virial", "radius")]
    loss, virial, radius = (np.array(column) for column in columns)
    return Chains(
        loss,
        virial,
        np.zeros_like(loss),
        radius,
        np.ones_like(loss),
        tuple(part.broken for part in parts),
        tuple(part.step_size for part in parts),
        kernel,
        None,
        tuple(part.generator for part in parts),
        plan.warmup + plan.draws,
        "sequential",
        np.zeros((*loss.shape, 0)),
        push=tuple(part.push for part in parts),
    )


@dataclass(frozen=True)
class _Walked:
    """What a chain in place leaves."""

    trace: dict[str, list[float]]
    broken: int
    step_size: float
    generator: Tensor
    push: float


def _walked(
    potential: Potential,
    kernel: StochasticLangevin | PreconditionedLangevin,
    plan: Plan,
    chain: int,
    tell: _Teller,
) -> _Walked:
    """Run one chain in place, from its start through the warm-up to its trace."""
    generator, scale = torch_generator(plan.seed, chain), kernel.metric.scale
    preconditioned = isinstance(kernel, PreconditionedLangevin)
    step = plan.step_size or _SAFE_STEP["psgld" if preconditioned else "sgld"]
    walker = Walker(
        potential,
        generator,
        position=_dispersed(potential, scale, generator),
        root=scale,
        step_size=step,
        noise=kernel.noise,
    )
    squares = torch.zeros_like(walker.position) if preconditioned else None
    first = plan.warmup // 3
    steps = 2 * first if preconditioned else plan.warmup
    walker.look(whole=True)
    walker.move()
    report, total = tell.phase("warm-up", plan.warmup), 0.0
    for number in range(plan.warmup):
        walker.look()
        seen = walker.seen(squares if number < steps else None, number, move=number + 1 != steps)
        total += seen.loss
        report(number + 1, total / (number + 1))
        if squares is not None and isinstance(kernel, PreconditionedLangevin) and number + 1 == steps:
            walker.root = kernel.root_of(squares)
            if plan.step_size is None:
                walker.forget()
                walker.step_size = _SAFE_STEP["psgld"] / _stiffest(potential, walker.root)
                walker.look_again()
        if number + 1 == steps:  # with the final metric
            walker.move()
    trace: dict[str, list[float]] = {"loss": [], "virial": [], "radius": []}
    report, total, broken, pushed = tell.phase("sampling", plan.draws), 0.0, 0, 0.0
    for number in range(plan.draws):
        walker.look()
        seen = walker.seen(move=number + 1 < plan.draws)
        for name, values in trace.items():
            values.append(getattr(seen, name))
        total, broken, pushed = total + seen.loss, broken + (not seen.finite), pushed + seen.push / plan.draws
        report(number + 1, total / (number + 1))
    square = float(walker.root @ walker.root) if isinstance(walker.root, Tensor) else len(walker.position) * scale**2
    return _Walked(trace, broken, walker.step_size, generator.get_state(), pushed - potential.gamma * square)


def _few_vectors(potential: Potential, kernel: Kernel, curvature: Curvature) -> bool:
    """Return whether chains run one after another in place: large models, Langevin kernels, a diagonal metric."""
    if not isinstance(kernel, StochasticLangevin | PreconditionedLangevin) or curvature.vectors.numel():
        return False
    watched = hasattr(potential.landscape, "observed")  # by `_observed`, of states
    return len(potential.landscape.start) > LARGE and kernel.metric.vectors is None and not watched


def _dispersed(potential: Potential, scale: float, generator: torch.Generator) -> Float[Tensor, " d"]:
    """Draw one position as `_started` does."""
    start = potential.landscape.start
    position = torch.empty_like(start)
    for part in blocks(len(start)):
        position[part] = start[part] + scale * block_of_noise(generator, start[part])
    for _ in range(40):
        loss = float(potential.landscape.evaluate(position[None])[0])
        away = sum(float((position[part] - start[part]).square().sum()) for part in blocks(len(start)))
        if potential.temperature * loss + potential.gamma / 2 * away <= _typical(potential):
            break
        for part in blocks(len(start)):
            position[part].add_(start[part]).div_(2)
    return position


def _typical(potential: Potential) -> float:
    """Return an energy that a typical point hardly exceeds."""
    d = len(potential.landscape.start)
    return d / 2 + 4 * math.sqrt(d) + potential.temperature * potential.landscape.baseline


def _noise(potential: Potential, kernel: Kernel, state: State, plan: Plan, samples: int = 8) -> tuple[float, ...]:
    """Compute tr P S P of each chain at its end, from random batches of their own."""
    if potential.batch_size is None or not torch.isfinite(state.position).all():
        return ()
    draws = [torch_generator(plan.seed, chain, 0) for chain in range(plan.chains)]
    whole = potential(state.position)[2]
    apart = (potential(state.position, draws)[2] - whole for _ in range(samples))
    sizes = [kernel.scaled(state, difference).square().sum(1) for difference in apart]
    return tuple(torch.stack(sizes).mean(0).tolist())


def _continued(potential: Potential, kernel: Kernel, before: State) -> State:
    """Return the state at the positions of other chains, with their steps, and their memory if it has the same form."""
    state = kernel.init(before.position, potential, 1.0)
    fits = [m.shape for m in before.memory] == [m.shape for m in state.memory]
    return replace(state, step_size=before.step_size, memory=before.memory if fits else state.memory)


def _execution(landscape: Landscape, plan: Plan) -> str:
    if plan.execution != "auto":
        return plan.execution
    if len(landscape.start) > _VECTORISED or plan.chains == 1 or not landscape.vectorised:
        return "sequential"
    return "vectorised"


def _started(
    potential: Potential, kernel: Kernel, name: str, metric: Metric, plan: Plan
) -> tuple[State, tuple[Tensor, ...]]:
    """Draw dispersed positions, as far from theta* as the energy of a typical point allows."""
    draws = [torch_generator(plan.seed, chain) for chain in range(plan.chains)]
    start = potential.landscape.start
    away = metric(normal(start.repeat(plan.chains, 1), draws))
    scale = torch.ones(plan.chains, 1, dtype=start.dtype, device="cpu")
    for _ in range(40):
        energy = potential(start + scale * away)[1][:, None]
        high = ~(energy <= _typical(potential))
        if not high.any():
            break
        scale = torch.where(high, scale / 2, scale)
    step = plan.step_size or _SAFE_STEP.get(name, len(start) ** -0.25)
    state = kernel.init(start + scale * away, potential, step)
    return state, tuple(g.get_state() for g in draws)


def _settled(
    kernel: Kernel, state: State, name: str, potential: Potential, plan: Plan, *, freeze: bool
) -> tuple[Kernel, State]:
    """Return the kernel for the next phase: trajectories of the right length, squared gradients final."""
    if isinstance(kernel, HamiltonianMonteCarlo) and name == "hmc":
        steps = math.ceil(_TRAJECTORY / max(float(state.step_size.median()), 1e-6))
        return replace(kernel, leapfrog=min(max(steps, 1 if plan.step_size else 2), _MOST_LEAPFROG)), state
    if isinstance(kernel, PreconditionedLangevin) and kernel.adapting and freeze:
        kernel = replace(kernel, adapting=False)
        if plan.step_size is None:
            sizes = [_SAFE_STEP[name] / _stiffest(potential, root) for root in kernel.scale(state).sqrt()]
            state = replace(state, step_size=torch.tensor(sizes, dtype=torch.float64, device="cpu").to(state.step_size))
    return kernel, state


def _stiffest(potential: Potential, root: Float[Tensor, " d"], steps: int = 30) -> float:
    """Compute the largest eigenvalue of P (t H + gamma) P for a diagonal P by power iteration."""
    landscape = potential.landscape
    vector = torch.full_like(root, 1 / math.sqrt(len(root)))
    size, last = 1.0, 0.0
    for _ in range(steps):
        vector.mul_(root)
        image = landscape.product(landscape.start, vector[None])[0]
        vector.mul_(potential.gamma).add_(image, alpha=potential.temperature).mul_(root)
        del image
        size = float(vector.norm())
        if not size > 0 or not math.isfinite(size):
            return 1.0
        vector.div_(size)
        if abs(size - last) < 0.01 * size:  # the safe step is far from unstable
            break
        last = size
    return 1.1 * size  # power iteration approaches from below


class _Teller:
    """Turns draws into progress reports."""

    def __init__(self, potential: Potential, plan: Plan, progress: ProgressCallback | None) -> None:
        self._potential, self._plan, self._progress = potential, plan, progress

    def phase(self, step: str, steps: int) -> Callable[[int, float], None]:
        """Report the steps done in one phase, and the mean loss so far."""
        every = max(1, steps // 50)

        def tell(done: int, loss: float) -> None:
            if callable(self._progress) and (done % every == 0 or done == steps):
                value = self._potential.temperature * (loss - self._potential.landscape.baseline)
                self._progress(Progress(step, done, steps, f"t (L - L*) = {value:.4g}" if done else ""))

        return tell


class _Pool:
    """Runs a phase on all chains in the way that the plan names."""

    def __init__(self, execution: str, plan: Plan) -> None:
        self._execution, self._plan = execution, plan
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Pool:
        if self._execution == "processes":
            self._pool = ProcessPoolExecutor(self._plan.workers or self._plan.chains, get_context("spawn"))
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __call__(self, phase: _Phase, tell: Callable[[int, float], None]) -> _Done:
        if self._execution == "vectorised":
            return _run_phase(phase, tell)
        alone = [
            replace(phase, state=phase.state.chain(c), generators=(phase.generators[c],))
            for c in range(len(phase.generators))
        ]
        if self._pool is None:
            done = [_run_phase(part, tell) for part in alone]
        else:
            # bytes, which the executor can always send; on a failure Python 3.11 may wait forever
            sent = [_crossed(pickle.dumps, part) for part in alone]
            done = [pickle.loads(data) for data in self._pool.map(_run_sent, sent)]
            tell(phase.steps, float(np.mean([part.state.loss.mean() for part in done])))
        return _Done(
            State.join([part.state for part in done]),
            tuple(state for part in done for state in part.generators),
            torch.cat([part.trace for part in done]),
            tuple(count for part in done for count in part.broken),
            done[0].gradients,
        )


def _crossed(way: Callable[[Any], Any], phase: Any) -> Any:
    """Pack or unpack a phase for its way to another process.

    Raises:
        InputError: the model or the loss cannot be sent.
    """
    try:
        return way(phase)
    except (pickle.PicklingError, AttributeError, TypeError, ImportError) as error:
        raise InputError(
            f"the model or the loss cannot be sent to another process ({error}): define them at the top of a module, "
            "or use another execution"
        ) from error


def _run_sent(data: bytes) -> bytes:
    """Run `_run_phase` in another process."""
    phase: _Phase = _crossed(pickle.loads, data)
    return pickle.dumps(_run_phase(phase))


def _run_phase(phase: _Phase, tell: Callable[[int, float], None] | None = None) -> _Done:
    """Step all chains of the phase."""
    draws = []
    for saved in phase.generators:
        draws.append(torch.Generator())
        draws[-1].set_state(saved)
    state, kernel, potential = phase.state, phase.kernel, phase.potential
    averaging = None
    if phase.adapt and isinstance(kernel, HamiltonianMonteCarlo):
        averaging = _DualAveraging(state.step_size, kernel.target)
    rows: list[Tensor] = []
    broken = torch.zeros(len(draws), dtype=torch.int64, device="cpu")
    gradients, total = 0, 0.0
    for number in range(phase.steps):
        state, info = kernel.step(state, draws, potential)
        gradients += info.gradients
        broken += ~info.finite
        total += float(state.loss.mean())
        if averaging is not None:
            state = replace(state, step_size=averaging.update(info.acceptance))
        if phase.record:
            rows.append(_observed(state, info.acceptance, phase))
        if tell is not None:
            tell(number + 1, total / (number + 1))
    if averaging is not None and phase.steps:
        state = replace(state, step_size=averaging.final())
    trace = torch.stack(rows, 1) if rows else torch.zeros(len(draws), 0, 5, dtype=state.loss.dtype, device="cpu")
    return _Done(state, tuple(g.get_state() for g in draws), trace, tuple(broken.tolist()), gradients)


def _observed(state: State, acceptance: Float[Tensor, " chains"], phase: _Phase) -> Float[Tensor, "chains columns"]:
    potential = phase.potential
    away = state.position - potential.landscape.start
    share = phase.curvature.share(away, potential.temperature, potential.gamma)
    columns = (
        *(state.loss, (away * state.gradient).sum(1), (share * state.gradient).sum(1)),
        *(away.norm(dim=1), acceptance),
    )
    more = getattr(potential.landscape, "observed", None)
    return torch.cat([torch.stack(columns, 1), *([] if more is None else [more(state.position)])], 1)
