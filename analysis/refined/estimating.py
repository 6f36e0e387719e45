"""Estimate the learning coefficients of parts of a network, which share data, targets, temperature and localiser."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from ..basis.bases import Bases
from ..errors import InputError
from ..llc.chains import Sampler
from ..llc.coefficient import LearningCoefficient
from ..llc.diagnostics import mean_with_error
from ..llc.estimate import learning_coefficient
from ..llc.landscape import Landscape
from ..llc.network_loss import NetworkLandscape, behavioural_loss
from ..llc.subspace import Restricted
from ..modules.partition import Mediator, Partition
from ..network.batches import Batch
from ..network.hooks import with_gradients
from ..network.network import Network
from ..notebook.bars import with_bar
from ..progress import Progress, ProgressCallback
from .coefficients import MediatorDegrees, Part, RefinedCoefficients
from .constraints import constrained_loss, mediating_readout
from .dividing import module_subspaces
from .parts import Parts, parts_of
from .watched import Watched

__all__ = ["module_coefficients", "refined_coefficients"]

_Readout: TypeAlias = dict[str, Float[Tensor, "m width"]]

_DEFAULT = Sampler()

_DRAWS = 20.0  # least effective number of draws behind a ratio of volumes


@with_gradients()
@with_bar
def refined_coefficients(
    net: Network | nn.Module,
    batches: Iterable[Batch],
    epsilon: float,
    *,
    parts: Parts = "auto",
    data: Mapping[str, Iterable[Batch]] | None = None,
    sampler: Sampler = _DEFAULT,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> RefinedCoefficients:
    """Estimate the learning coefficient of sets of parameters and on data sets, at one temperature and localiser.

    Args:
        net: a network, or any module (MSE, all its outputs).
        batches: data of the whole.
        epsilon: loss scale of the whole, which fixes the temperature.
        parts: the sets of parameters: per name globs or slices of parameters, such as "attn.W_Q[2]" for head 2; or
            "auto" for each attention head and MLP (a layer, where there is no attention). () for none.
        data: other data, by name, on which all parameters are varied (data-refined coefficients).
        sampler: options of the sampler.
        seed: seed of the chains.
        progress: called as the chains go on.

    Raises:
        InputError: names that fit no parameter, and two parts of one name.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)).double()
    >>> x = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> short = Sampler(chains=2, warmup=30, draws=60)
    >>> found = refined_coefficients(net, [x], 1e-8, parts={"first": "0.*"}, sampler=short)
    >>> first = found["first"]
    >>> abs(first.value - 2) < 0.1 + 4 * first.standard_error   # of a map from 2 to 2 four numbers count, 1/2 each
    True
    """
    network = net if isinstance(net, Network) else Network(net, [])
    landscape = behavioural_loss(network, batches, progress=progress)
    sets = parts_of(landscape, parts)
    twice = {"whole", *sets} & {*(data or {})} | {"whole"} & {*sets}
    if twice:
        named = ", ".join(sorted(twice))
        raise InputError(f"two parts are called {named}; expected other names (whole is all parameters)")
    run = _Run(landscape, epsilon, sampler, seed, progress, 1 + len(sets) + len(data or {}))
    found = [Part("whole", "whole", run.whole)]
    found += [Part(name, "parameters", run.of(Restricted(landscape, own))) for name, own in sets.items()]
    for name, other in (data or {}).items():
        found.append(Part(name, "data", run.of(behavioural_loss(network, other))))
    return run.result(found)


@with_gradients()
@with_bar
def module_coefficients(
    net: Network,
    bases: Bases,
    partition: Partition,
    *,
    batches: Iterable[Batch],
    epsilon: float | None = None,
    constrained: bool = True,
    sampler: Sampler = _DEFAULT,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> RefinedCoefficients:
    """Count the degrees of freedom of each module, of what lies between, and of the whole (paper, section 5.2).

    The parts: all parameters; those inside each module; those inside any module, the ones between fixed; those
    between modules. For modules that feed others also with their mediating nodes held, by their strengths (eq. 32)
    and at full strength (eq. 31), and what each mediating node takes, measured beside eq. 34.

    Args:
        net: the network.
        bases: bases of the partition's graph.
        partition: the modules.
        batches: data.
        epsilon: loss scale of the whole; None for that of the partition.
        constrained: whether mediating nodes are held too, which takes two estimates more for each module.
        sampler: options of the sampler.
        seed: seed of the chains.
        progress: called as the chains go on.

    Raises:
        LayerError: no dense layer joins two cuts.
        InputError: a partition of another graph.
    """
    landscape = behavioural_loss(net, batches, progress=progress)
    spaces = module_subspaces(landscape, bases, partition.labels)
    feeding = sorted({v.earlier for v in partition.mediators if spaces.modules[v.earlier].dimension and constrained})
    readouts = {m: _readouts(bases, partition, m) for m in feeding}
    steps = 3 + len(spaces.modules) + 2 * len(feeding)
    scale = partition.epsilon if epsilon is None else epsilon
    run = _Run(landscape, scale, sampler, seed, progress, steps)
    found, degrees = [Part("whole", "whole", run.whole)], list[MediatorDegrees]()
    for m, space in enumerate(spaces.modules):
        if m in feeding:
            estimate = run.of(Watched(landscape, space, readouts[m][2]))
            degrees += _degrees(bases, partition, m, estimate, scale=scale)
        else:
            estimate = run.of(Restricted(landscape, space))
        found.append(Part(f"module {m}", "module", estimate, m))
    found.append(Part("all modules", "together", run.of(Restricted(landscape, spaces.together))))
    found.append(Part("between modules", "between", run.of(Restricted(landscape, spaces.between))))
    for kind, index, words in (("weighted", 0, "interface weighted"), ("held", 1, "interface held")):
        for m in feeding:
            loss = constrained_loss(net, landscape.inputs, readouts[m][index])
            estimate = run.of(Restricted(loss, spaces.modules[m]))
            found.append(Part(f"module {m}, {words}", kind, estimate, m))
    return run.result(found, degrees, spaces.others)


class _Run:
    """Estimates at the temperature and with the localiser of the whole."""

    def __init__(
        self,
        landscape: NetworkLandscape,
        epsilon: float,
        sampler: Sampler,
        seed: int,
        progress: ProgressCallback | None,
        steps: int,
    ) -> None:
        self._done, self._steps, self._progress, self._seed = 0, steps, progress, seed
        self.whole = learning_coefficient(
            landscape, epsilon=epsilon, sampler=sampler, seed=seed, progress=self._numbered()
        )
        self.temperature, self.gamma = self.whole.temperature, self.whole.gamma
        self._sampler = replace(sampler, gamma=self.gamma, radius=Sampler.radius)

    def of(self, landscape: Landscape) -> LearningCoefficient:
        """Estimate the coefficient of a loss."""
        return learning_coefficient(
            landscape, temperature=self.temperature, sampler=self._sampler, seed=self._seed, progress=self._numbered()
        )

    def result(
        self, parts: Sequence[Part], mediators: Sequence[MediatorDegrees] = (), others: Sequence[str] = ()
    ) -> RefinedCoefficients:
        """Put the parts together."""
        scales = (self.whole.epsilon, self.temperature, self.gamma)
        return RefinedCoefficients(tuple(parts), tuple(mediators), *scales, tuple(others), self._seed)

    def _numbered(self) -> ProgressCallback | None:
        self._done += 1
        head, progress = f"part {self._done}/{self._steps}, ", self._progress
        if not callable(progress):
            return None

        def tell(report: Progress) -> None:
            progress(replace(report, step=head + report.step))

        return tell


def _of_module(partition: Partition, module: int) -> list[Mediator]:
    return [v for v in partition.mediators if v.earlier == module]


def _readouts(bases: Bases, partition: Partition, module: int) -> tuple[_Readout, _Readout, _Readout]:
    """Return the readouts of a module's mediating nodes: weighted, at full strength, in standard deviations."""
    own, epsilon = _of_module(partition, module), partition.epsilon
    weighted = mediating_readout(bases, own, epsilon)
    held = mediating_readout(bases, own, epsilon, weighted=False, full_strength=partition.full_strength)
    return weighted, held, mediating_readout(bases, own, epsilon, weighted=False)


def _degrees(
    bases: Bases, partition: Partition, module: int, estimate: LearningCoefficient, *, scale: float
) -> list[MediatorDegrees]:
    """Compute what each mediating node of a module takes at a loss scale, from chains that watched it move."""
    squares: dict[tuple[int, int], float] = {}
    for v in _of_module(partition, module):
        node = v.cut, v.coordinate
        squares[node] = squares.get(node, 0.0) + v.strength**2 * partition.epsilon
    unit, names, temperature = math.log(partition.full_strength / math.sqrt(scale)), list(bases), estimate.temperature
    found = []
    for i, ((cut, coordinate), square) in enumerate(sorted(squares.items())):
        moved = estimate.traces[f"observed_{i}"]
        measured, error = _taken(temperature * square * moved, unit)
        full, _ = _taken(temperature * partition.full_strength**2 * moved, unit)
        share = max(math.log(math.sqrt(square / scale)) / unit, 0.0) if unit > 0 else 0.0
        found.append(MediatorDegrees(module, names[cut], coordinate, math.sqrt(square), measured, error, full, share))
    return found


def _taken(exponent: np.ndarray, unit: float) -> tuple[float | None, float | None]:
    """Compute -log E[exp(-x)] / unit and its standard error from chains of x; None where too few draws count."""
    weights = np.exp(-exponent)
    found = mean_with_error(weights)
    if not (unit > 0 and found.mean > 0):
        return None, None
    effective = float(weights.sum() ** 2 / np.square(weights).sum()) * min(found.ess / weights.size, 1.0)
    if effective < _DRAWS:
        return None, None
    return 0.0 - math.log(found.mean) / unit, found.error / found.mean / unit
