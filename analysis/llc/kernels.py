"""Samplers of exp(-U), U = t L + gamma/2 |theta - theta*|^2: pure kernels with one contract.

    init(position, potential) -> State
    step(state, draws, potential) -> (State, Info)

A state holds one row per chain. Random numbers come from `draws`, one generator per chain, so that chains give the
same numbers together, one by one or in other processes. Every kernel works in the coordinates of its metric P (see
`curvature`): theta = theta* + P z.

    sgld     z' = z - h/2 grad + sqrt(h) xi                     (Welling and Teh 2011)
    psgld    the same with P = V^(-1/4), V the mean of squared gradients over the warm-up (Li et al. 2016)
    sgnht    p' = (1 - h xi) p - h grad + sqrt(2 h) n, z' = z + h p', xi' = xi + h (|p'|^2/d - 1)   (Ding et al. 2014)
    mala     a Langevin step that is accepted with the Metropolis rule: `hmc` with a single leapfrog step
    hmc      leapfrog trajectories with the Metropolis rule (Duane et al. 1987)

The last two sample exp(-U) whatever the step; the first three have a bias that `Kernel.energies` predicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.linalg import solve_discrete_lyapunov
from scipy.optimize import brentq
from torch import Tensor

from ..results import by_value
from .batch_loss import LARGE
from .curvature import Metric
from .landscape import Landscape

__all__ = [
    "KERNELS",
    "HamiltonianMonteCarlo",
    "Info",
    "Kernel",
    "NoseHoover",
    "Potential",
    "PreconditionedLangevin",
    "Seen",
    "State",
    "StochasticLangevin",
    "Walker",
    "blocks",
    "langevin",
    "normal",
]

_IDENTITY = Metric(1.0)

_BLOCK = 2**16  # numbers that change together in place, a multiple of 16: so many torch draws at a time

_RARELY = 0.2  # share of trajectories whose step is much smaller


@dataclass(frozen=True)
class Potential:
    """U = t L + gamma/2 |theta - theta*|^2.

    Attributes:
        batch_size: number of random data points of each chain and step, None for all.
    """

    landscape: Landscape
    temperature: float
    gamma: float
    batch_size: int | None = None

    def __call__(
        self, position: Float[Tensor, "chains d"], draws: Sequence[torch.Generator] = ()
    ) -> tuple[Float[Tensor, " chains"], Float[Tensor, " chains"], Float[Tensor, "chains d"]]:
        """Compute L, U and grad U of each chain."""
        points = None
        if self.batch_size is not None and draws:
            n = self.landscape.n
            points = torch.stack([torch.randint(n, (self.batch_size,), generator=g, device="cpu") for g in draws])
        loss, slope = self.landscape.evaluate(position, points)
        away = position - self.landscape.start
        energy = self.temperature * loss + self.gamma / 2 * away.square().sum(1)
        return loss, energy, self.temperature * slope + self.gamma * away


@by_value
@dataclass(frozen=True)
class State:
    """The state of the chains.

    Attributes:
        position: theta.
        loss, energy, gradient: L, U and grad U there.
        step_size: h of each chain.
        memory: further tensors that a kernel keeps from step to step.
    """

    position: Float[Tensor, "chains d"]
    loss: Float[Tensor, " chains"]
    energy: Float[Tensor, " chains"]
    gradient: Float[Tensor, "chains d"]
    step_size: Float[Tensor, " chains"]
    memory: tuple[Tensor, ...] = ()

    def where(self, chosen: Bool[Tensor, " chains"], other: State) -> State:
        """Take chains of this state where chosen, else of the other."""

        def pick(a: Tensor, b: Tensor) -> Tensor:
            return torch.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b)

        return _each(pick, self, other)

    def chain(self, index: int) -> State:
        """Return the state of one chain alone."""
        return _each(lambda part: part[index : index + 1], self)

    @staticmethod
    def join(parts: Sequence[State]) -> State:
        """Join states of chains side by side."""
        return _each(lambda *tensors: torch.cat(tensors), *parts)


def _each(function: Callable[..., Tensor], *states: State) -> State:
    """Apply a function to every tensor of the states."""

    def of(name: str) -> Tensor:
        return function(*(getattr(state, name) for state in states))

    memory = tuple(function(*parts) for parts in zip(*(state.memory for state in states), strict=True))
    return State(of("position"), of("loss"), of("energy"), of("gradient"), of("step_size"), memory)


@by_value
@dataclass(frozen=True)
class Info:
    """Information about a step.

    Attributes:
        acceptance: probability of acceptance, per chain; 1 without a rule.
        finite: whether loss and gradient of the proposal are finite.
        gradients: number of gradients computed.
    """

    acceptance: Float[Tensor, " chains"]
    finite: Bool[Tensor, " chains"]
    gradients: int


@runtime_checkable
class Kernel(Protocol):
    """The contract of all samplers."""

    adjusted: ClassVar[bool]

    def init(self, position: Float[Tensor, "chains d"], potential: Potential, step_size: float) -> State:
        """Return the state at a position."""
        ...

    def step(self, state: State, draws: Sequence[torch.Generator], potential: Potential) -> tuple[State, Info]:
        """Make one step."""
        ...

    def scaled(self, state: State, slope: Float[Tensor, "chains d"]) -> Float[Tensor, "chains d"]:
        """Compute P times a gradient, for each chain."""
        ...

    def energies(
        self, stiffness: Float[np.ndarray, " m"], weights: Float[np.ndarray, " m"], step: float
    ) -> Float[np.ndarray, " m"]:
        """Compute a <z^2> of harmonic modes of potential a z^2/2 and `weights`; 1: no bias, infinite: unstable."""
        ...


@dataclass(frozen=True)
class StochasticLangevin:
    """SGLD in the coordinates of a metric; a harmonic mode has a <z^2> = 1/(1 - h a/4).

    Attributes:
        metric: P.
        noise: factor of the noise; 0 makes it gradient descent with step h/2.
    """

    metric: Metric = _IDENTITY
    noise: float = 1.0
    adjusted: ClassVar[bool] = False

    def init(self, position: Float[Tensor, "chains d"], potential: Potential, step_size: float) -> State:
        """Return the state at a position."""
        return _state(position, potential, step_size)

    def step(self, state: State, draws: Sequence[torch.Generator], potential: Potential) -> tuple[State, Info]:
        """Make one step."""
        h = state.step_size[:, None]
        move = self.noise * h.sqrt() * normal(state.position, draws) - h / 2 * self.metric(state.gradient)
        position = state.position + self.metric(move)
        return _unadjusted(_moved(state, position, draws, potential))

    def scaled(self, state: State, slope: Float[Tensor, "chains d"]) -> Float[Tensor, "chains d"]:
        """Compute P times a gradient, for each chain."""
        return self.metric(slope)

    def energies(
        self, stiffness: Float[np.ndarray, " m"], weights: Float[np.ndarray, " m"], step: float
    ) -> Float[np.ndarray, " m"]:
        """Compute 1/(1 - h a/4) for each mode."""
        return _langevin_energies(stiffness, step)


@dataclass(frozen=True)
class PreconditionedLangevin:
    """SGLD with P = s V^(-1/4), V the mean of squared gradients over the warm-up, fixed afterwards.

    Attributes:
        metric: metric of plain SGLD, which is used during adaptation.
        noise: factor of the noise; 0 makes it RMSProp with step h/2.
        adapting: whether gradients are still added to V.
        floor: lower bound of the root of V, relative to the largest.
    """

    metric: Metric = _IDENTITY
    noise: float = 1.0
    adapting: bool = True
    floor: float = 1e-3
    adjusted: ClassVar[bool] = False

    def init(self, position: Float[Tensor, "chains d"], potential: Potential, step_size: float) -> State:
        """Return the state at a position; V is empty."""
        state = _state(position, potential, step_size)
        return replace(state, memory=(torch.zeros_like(position), torch.zeros_like(state.loss)))

    def scale(self, state: State) -> Float[Tensor, "chains d"]:
        """Compute the diagonal of P P = 1/sqrt(V), from the state alone."""
        root = state.memory[0].sqrt()
        return 1 / torch.maximum(root, self.floor * root.amax(1, keepdim=True))

    def root_of(self, squares: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """Compute the diagonal of P from V of one chain, in its memory."""
        squares.sqrt_()
        return squares.clamp_(min=self.floor * float(squares.max())).rsqrt_()

    def step(self, state: State, draws: Sequence[torch.Generator], potential: Potential) -> tuple[State, Info]:
        """Make one step."""
        if self.adapting:
            moved, info = StochasticLangevin(self.metric, self.noise).step(state, draws, potential)
            mean, count = state.memory
            mean = mean + (moved.gradient.square() - mean) / (count + 1)[:, None]
            return replace(moved, memory=(mean, count + 1)), info
        h, scale = state.step_size[:, None], self.scale(state)
        noise = self.noise * (h * scale).sqrt() * normal(state.position, draws)
        position = state.position - h / 2 * scale * state.gradient + noise
        return _unadjusted(_moved(state, position, draws, potential))

    def scaled(self, state: State, slope: Float[Tensor, "chains d"]) -> Float[Tensor, "chains d"]:
        """Compute P times a gradient, for each chain."""
        return self.metric(slope) if self.adapting else self.scale(state).sqrt() * slope

    def energies(
        self, stiffness: Float[np.ndarray, " m"], weights: Float[np.ndarray, " m"], step: float
    ) -> Float[np.ndarray, " m"]:
        """Compute 1/(1 - h a/4) for each mode."""
        return _langevin_energies(stiffness, step)


@dataclass(frozen=True)
class NoseHoover:
    """SGNHT: Langevin dynamics with momentum, and a thermostat xi that keeps |p|^2/d at 1.

    Attributes:
        metric: P.
        noise: factor of the noise; 0 makes it gradient descent with momentum 1 - h xi and step h^2.
    """

    metric: Metric = _IDENTITY
    noise: float = 1.0
    adjusted: ClassVar[bool] = False

    def init(self, position: Float[Tensor, "chains d"], potential: Potential, step_size: float) -> State:
        """Return the state at a position, at rest, with friction 1."""
        state = _state(position, potential, step_size)
        return replace(state, memory=(torch.zeros_like(position), torch.ones_like(state.loss)))

    def step(self, state: State, draws: Sequence[torch.Generator], potential: Potential) -> tuple[State, Info]:
        """Make one step."""
        momentum, friction = state.memory
        h = state.step_size[:, None]
        kick = self.noise * (2 * h).sqrt() * normal(state.position, draws) - h * self.metric(state.gradient)
        momentum = (1 - h * friction[:, None]) * momentum + kick
        moved = _moved(state, state.position + h * self.metric(momentum), draws, potential)
        friction = friction + state.step_size * (momentum.square().mean(1) - 1)
        return _unadjusted(replace(moved, memory=(momentum, friction)))

    def scaled(self, state: State, slope: Float[Tensor, "chains d"]) -> Float[Tensor, "chains d"]:
        """Compute P times a gradient, for each chain."""
        return self.metric(slope)

    def energies(
        self, stiffness: Float[np.ndarray, " m"], weights: Float[np.ndarray, " m"], step: float
    ) -> Float[np.ndarray, " m"]:
        """Compute them from the stationary covariance of the linear recursion, with friction such that <p^2> is 1."""

        def covariance(a: float, friction: float) -> Float[np.ndarray, "2 2"]:
            damped = 1 - step * friction
            forward = np.array([[1 - step**2 * a, step * damped], [-step * a, damped]])
            if np.abs(np.linalg.eigvals(forward)).max() >= 1:
                return np.full((2, 2), np.inf)
            kick = np.array([step, 1.0])
            found: np.ndarray = solve_discrete_lyapunov(forward, 2 * step * np.outer(kick, kick))
            return found

        def excess(friction: float) -> float:
            heat = [covariance(a, friction)[1, 1] for a in stiffness]
            return float(np.average(heat, weights=weights)) - 1

        if step**2 * stiffness.max() >= 4 or not np.isfinite(excess(1.0)):
            return np.full(len(stiffness), np.inf)
        friction = brentq(excess, 0.2, min(4.0, 1 / step))
        return np.array([a * covariance(a, friction)[0, 0] for a in stiffness])


@dataclass(frozen=True)
class HamiltonianMonteCarlo:
    """HMC in the coordinates of a metric.

    Attributes:
        metric: P.
        leapfrog: number of steps of a trajectory; 1 is MALA.
        jitter: share by which the step of a trajectory varies at random; if above 0, one trajectory in five takes a
            step that is up to a hundred times smaller, for valleys that are narrow in places only.
        noise: factor of the momentum; 0 makes a single step gradient descent with step h^2/2.
    """

    metric: Metric = _IDENTITY
    leapfrog: int = 8
    jitter: float = 0.1
    noise: float = 1.0
    adjusted: ClassVar[bool] = True

    @property
    def target(self) -> float:
        """The target acceptance: .8 for trajectories, .65 for single steps."""
        return 0.8 if self.leapfrog > 1 else 0.65

    def init(self, position: Float[Tensor, "chains d"], potential: Potential, step_size: float) -> State:
        """Return the state at a position."""
        return _state(position, potential, step_size)

    def step(self, state: State, draws: Sequence[torch.Generator], potential: Potential) -> tuple[State, Info]:
        """Make one step."""
        start = self.noise * normal(state.position, draws)
        uniform = torch.stack([torch.rand(3, generator=g, dtype=torch.float64, device="cpu") for g in draws]).to(
            state.loss
        )
        h = state.step_size[:, None]
        if self.jitter:
            smaller = 10 ** (-2 * uniform[:, 2:] / _RARELY).where(uniform[:, 2:] < _RARELY, 0.0)
            h = h * smaller * (1 + self.jitter * (2 * uniform[:, :1] - 1))
        momentum, now = start, state
        kick = h / 2 * self.metric(now.gradient)
        for _ in range(self.leapfrog):
            momentum = momentum - kick
            now = _moved(now, now.position + h * self.metric(momentum), (), potential)
            kick = h / 2 * self.metric(now.gradient)
            momentum = momentum - kick
        change = now.energy - state.energy + (momentum.square() - start.square()).sum(1) / 2
        finite = torch.isfinite(change) & torch.isfinite(now.gradient).all(1)
        acceptance = torch.where(finite, torch.exp(-change.clamp(min=0.0)), 0.0)
        return now.where(uniform[:, 1] < acceptance, state), Info(acceptance, finite, self.leapfrog)

    def scaled(self, state: State, slope: Float[Tensor, "chains d"]) -> Float[Tensor, "chains d"]:
        """Compute P times a gradient, for each chain."""
        return self.metric(slope)

    def energies(
        self, stiffness: Float[np.ndarray, " m"], weights: Float[np.ndarray, " m"], step: float
    ) -> Float[np.ndarray, " m"]:
        """Return 1: the Metropolis rule removes the bias."""
        return np.ones(len(stiffness))


def langevin(metric: Metric = _IDENTITY) -> HamiltonianMonteCarlo:
    """Build MALA: HMC with a single leapfrog step, without jitter."""
    return HamiltonianMonteCarlo(metric, leapfrog=1, jitter=0.0)


KERNELS: Mapping[str, Callable[[Metric], Kernel]] = {
    "sgld": StochasticLangevin,
    "psgld": PreconditionedLangevin,
    "sgnht": NoseHoover,
    "mala": langevin,
    "hmc": HamiltonianMonteCarlo,
}


def normal(like: Float[Tensor, "chains d"], draws: Sequence[torch.Generator]) -> Float[Tensor, "chains d"]:
    """Draw standard normal numbers from each chain's own generator on the CPU, in float64 unless they are many."""
    drawn = like.dtype if like.shape[1] > LARGE else torch.float64
    return torch.stack([torch.randn(like.shape[1], generator=g, dtype=drawn, device="cpu").to(like) for g in draws])


class Walker:
    """One chain of SGLD in few vectors: position and gradient change in place, in blocks; P is diagonal.

    Attributes:
        position: theta.
        root: the diagonal of P, or one number.
        step_size: h.
        noise: factor of the noise.
    """

    def __init__(
        self,
        potential: Potential,
        generator: torch.Generator,
        *,
        position: Float[Tensor, " d"],
        root: Float[Tensor, " d"] | float,
        step_size: float,
        noise: float = 1.0,
    ) -> None:
        """Start a chain."""
        self.potential, self.generator = potential, generator
        self.position, self.root, self.step_size, self.noise = position, root, step_size, noise
        self.loss, self.slope = 0.0, position
        self._points: Int[Tensor, "1 points"] | None = None

    def look(self, *, whole: bool = False) -> None:
        """Compute the loss here, and grad L in the memory of the old one."""
        potential, self._points = self.potential, None
        if potential.batch_size is not None and not whole:
            n = potential.landscape.n
            self._points = torch.randint(n, (1, potential.batch_size), generator=self.generator, device="cpu")
        self.forget()
        self.look_again()

    def forget(self) -> None:
        """Free the memory of the gradient."""
        self.slope = self.position[:0]

    def look_again(self) -> None:
        """Compute loss and gradient on the data points of the last look."""
        loss, slope = self.potential.landscape.evaluate(self.position[None], self._points)
        self.loss, self.slope = float(loss[0]), slope[0]

    def move(self) -> None:
        """Make a step with the gradient of the last look: theta += P (sqrt(h) xi - h/2 P grad U)."""
        self.seen(move=True)

    def seen(self, squares: Float[Tensor, " d"] | None = None, count: int = 0, *, move: bool = False) -> Seen:
        """Compute sums over D = theta - theta* and g = grad U, and the mean of g^2 where `squares` is given.

        The step from here can be made in the same go, which reads the vectors once.
        """
        t, gamma, start = self.potential.temperature, self.potential.gamma, self._start
        virial = away = push = 0.0
        for part in blocks(len(start)):
            apart = self.position[part] - start[part]
            slope = self.slope[part].mul(t).add_(apart, alpha=gamma)
            virial += float(apart @ slope)
            away += float(apart @ apart)
            if squares is not None:
                squares[part].add_(slope.square().sub_(squares[part]).div_(count + 1))
            slope.mul_(self._root(part))
            push += float(slope @ slope)
            if move:
                kick = block_of_noise(self.generator, slope).mul_(self.noise * math.sqrt(self.step_size))
                self.position[part].add_(kick.sub_(slope, alpha=self.step_size / 2).mul_(self._root(part)))
        energy = t * self.loss + gamma / 2 * away
        return Seen(self.loss, energy, virial, math.sqrt(away), push, math.isfinite(energy) and math.isfinite(push))

    @property
    def _start(self) -> Float[Tensor, " d"]:
        return self.potential.landscape.start

    def _root(self, part: slice) -> Float[Tensor, " _"] | float:
        return self.root[part] if isinstance(self.root, Tensor) else self.root


@dataclass(frozen=True)
class Seen:
    """What a `Walker` sees at its position.

    Attributes:
        loss, energy: L and U.
        virial, radius: D . grad U and |D|.
        push: |P grad U|^2, whose mean is tr P (t H + gamma) P plus the noise of random batches.
        finite: whether they are finite.
    """

    loss: float
    energy: float
    virial: float
    radius: float
    push: float
    finite: bool


def blocks(size: int) -> Iterator[slice]:
    """Yield slices of a vector, none shorter than 16 numbers unless the vector is, so that draws agree with one draw.

    >>> [(part.start, part.stop) for part in blocks(2**16 + 3)], len(list(blocks(2**17)))
    ([(0, 65539)], 2)
    """
    first = 0
    while first < size:
        last = first + _BLOCK if size - first - _BLOCK >= 16 else size
        yield slice(first, last)
        first = last


def block_of_noise(generator: torch.Generator, like: Float[Tensor, " _"]) -> Float[Tensor, " _"]:
    """Draw the next of the numbers that `normal` draws for a large vector, or for one in float64."""
    return torch.randn(len(like), generator=generator, dtype=like.dtype, device="cpu")


def _state(position: Float[Tensor, "chains d"], potential: Potential, step_size: float) -> State:
    loss, energy, gradient = potential(position)
    return State(position, loss, energy, gradient, torch.full_like(loss, step_size))


def _moved(
    state: State, position: Float[Tensor, "chains d"], draws: Sequence[torch.Generator], potential: Potential
) -> State:
    loss, energy, gradient = potential(position, draws)
    return replace(state, position=position, loss=loss, energy=energy, gradient=gradient)


def _unadjusted(state: State) -> tuple[State, Info]:
    finite = torch.isfinite(state.energy) & torch.isfinite(state.gradient).all(1)
    return state, Info(torch.ones_like(state.step_size), finite, 1)


def _langevin_energies(stiffness: Float[np.ndarray, " m"], step: float) -> Float[np.ndarray, " m"]:
    room = 1 - step * stiffness / 4
    return np.where(room > 0, 1 / np.where(room > 0, room, 1.0), np.inf)
