"""The loss scale epsilon: given, or read off the distribution of the strengths, for the graph or per pair of cuts.

From the graph: interactions below the cutoff sqrt(epsilon) may together carry a fraction 0.003 of the squared
strength (the loss that all interactions carry), and the cutoff is at most 1/50 of the strongest strength. If the
density of log strengths has a valley within a factor of two around that, the cutoff moves to its minimum, so that a
small change of it changes as few edges as possible. Strengths times s give epsilon times s^2, and the same edges.
Where w^2 is no loss, in graphs made elsewhere, at most the strongest 500,000 edges are kept, and those as strong as
the last of them: such graphs may have millions of weak links.

On 60 trained networks (two or three digits, digit and parity; weight decay 0.1 to 1) this cutoff lies where
modules agree best with the truth; with 1/100 of the strongest strength alone the AMI was lower by 0.05.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..edges import Block, entries
from ..errors import GraphError
from ..results import by_value
from .cost import Epsilon, loss_scales
from .interaction_graph import InteractionGraph

__all__ = ["LossScale", "StrengthDistribution", "choose_epsilon", "default_epsilon", "strength_distribution"]

_LOST = 3e-3  # share of the squared strength below the cutoff

_RELATIVE = 0.02  # largest cutoff / strongest strength

_AROUND = 2.0

_BANDWIDTH = 0.15  # of the kernel density over log10 w

_DEPTH = 0.9  # a valley's minimum is at most this share of its lower side

_MOST = 500_000  # edges of a graph made elsewhere

_JUST_BELOW = 1 - 1e-9

_HAIR = 1e-7  # decades by which the cutoff is lowered, so that rounding moves no edge across it

_POINTS = 200


@by_value
@dataclass(frozen=True)
class StrengthDistribution:
    """The distribution of strengths, and the cutoff that follows from it.

    Attributes:
        log10: grid of log10 w.
        density: of the strengths above 0 (Gaussian kernel, bandwidth 0.15), per unit of log10 w.
        carried: share of the total of w^2 carried by strengths up to each grid point.
        cutoff: sqrt(epsilon).
    """

    log10: Float[np.ndarray, " points"]
    density: Float[np.ndarray, " points"]
    carried: Float[np.ndarray, " points"]
    cutoff: float


@dataclass(frozen=True)
class LossScale:
    """The loss scale of a partition.

    Attributes:
        per_pair: one per pair of cuts.
        source: "given", "given per pair", "graph", "pairs" (computed for each pair of cuts by itself), "strongest"
            (of a large graph made elsewhere) or "seeds" (the mean distance between networks).
        full_strength: strength that counts as one full connection: 1 (eq. 34) where epsilon is given, else the
            strongest strength.
        seeds: the networks whose mean distance it is.
    """

    per_pair: tuple[float, ...]
    source: str
    full_strength: float
    seeds: tuple[str, ...] = ()

    @property
    def epsilon(self) -> float:
        """One number: the scale, or the geometric mean over the pairs."""
        if len(set(self.per_pair)) == 1:
            return self.per_pair[0]
        return float(np.exp(np.mean(np.log(self.per_pair))))

    @property
    def normalisable(self) -> bool:
        """Whether every cutoff is below full strength."""
        return all(scale < self.full_strength**2 for scale in self.per_pair)


def strength_distribution(strengths: Sequence[Block]) -> StrengthDistribution:
    """Compute the distribution of all strengths of some blocks, and the cutoff (see the head of this module).

    Raises:
        GraphError: all strengths are 0.
    """
    w = np.sort(np.concatenate([entries(block)[2] for block in strengths]))
    if not len(w):
        raise GraphError("all strengths of the graph are 0: there is no interaction to divide into modules")
    unit = float(w[-1])
    share = np.cumsum((w / unit) ** 2)
    share /= share[-1]
    lost = float(w[np.searchsorted(share, _LOST)]) / unit
    middle = np.log10(min(lost, _RELATIVE))
    log = np.log10(w / unit)
    grid = np.linspace(max(log[0], middle - 3.0), 0.0, _POINTS)
    grid = np.unique(np.concatenate([grid, middle + np.log10(_AROUND) * np.linspace(-1, 1, 41)]))
    edges = np.linspace(min(log[0], grid[0]) - 1.0, 1.0, 4001)
    counts, _ = np.histogram(log, edges)
    centres = 0.5 * (edges[1:] + edges[:-1])
    kernel = np.exp(-0.5 * ((grid[:, None] - centres) / _BANDWIDTH) ** 2)
    density = kernel @ counts / (len(w) * _BANDWIDTH * np.sqrt(2 * np.pi))
    place = np.searchsorted(log, grid, side="right")
    carried = np.concatenate([[0.0], share])[place]
    cutoff = unit * 10 ** (_gap(grid, density, middle) - _HAIR)
    return StrengthDistribution(grid + np.log10(unit), density, carried, cutoff)


def _gap(grid: np.ndarray, density: np.ndarray, middle: float) -> float:
    """Return the point of least density around the middle if that is a valley, else the middle."""
    near = np.flatnonzero(np.abs(grid - middle) <= np.log10(_AROUND) + 1e-12)
    lowest = int(density[near].argmin())
    walls = min(density[near[: lowest + 1]].max(), density[near[lowest:]].max())
    return float(grid[near[lowest]]) if density[near[lowest]] < _DEPTH * walls else middle


def default_epsilon(graph: InteractionGraph) -> float:
    """Compute the loss scale from all strengths of the graph.

    >>> graph = InteractionGraph.from_blocks([np.diag([5.0, 5.0])])
    >>> float(round(default_epsilon(graph), 5))   # (5 / 50)^2
    0.01

    Raises:
        GraphError: all strengths are 0.
    """
    return strength_distribution(graph.blocks).cutoff ** 2


def _strongest(graph: InteractionGraph) -> float:
    """Return the loss scale that keeps the strongest edges of a graph made elsewhere, and those as strong as the last.

    It is 0 where the graph has few.
    """
    if graph.unit == "loss" or graph.n_edges() <= _MOST:
        return 0.0
    weight = graph.edge_list.weight
    return float((np.partition(weight, -_MOST)[-_MOST] * _JUST_BELOW) ** 2)


def choose_epsilon(
    graph: InteractionGraph, epsilon: Epsilon | str | None, *, seeds: Sequence[str] | None = None
) -> LossScale:
    """Choose the loss scale of a graph: given (a number, or one per pair of cuts), "graph" (also None) or "pairs".

    Args:
        graph: the graph.
        epsilon: the loss scale.
        seeds: names of the networks whose mean distance the given number is.

    Raises:
        GraphError: a scale is not positive, the number of scales or the name is wrong, seeds without a number, or no
            edge is above the cutoff.
    """
    if seeds and (epsilon is None or np.ndim(epsilon) > 0 or isinstance(epsilon, str)):
        raise GraphError(
            f"epsilon is {epsilon!r} and seeds are given: expected their mean distance as epsilon, a number; "
            "`network_distance([...]).choices` has both"
        )
    strongest = max(float(block.max()) for block in graph.blocks)
    if epsilon is None or (isinstance(epsilon, str) and epsilon == "graph"):
        chosen, few = default_epsilon(graph), _strongest(graph)
        source = "graph" if chosen >= few else "strongest"
        scale = LossScale((max(chosen, few),) * len(graph.blocks), source, strongest)
    elif isinstance(epsilon, str) and epsilon == "pairs":
        empty = [not block.max() > 0 for block in graph.blocks]
        whole = default_epsilon(graph) if any(empty) else 0.0
        cutoffs = [
            whole if none else strength_distribution([block]).cutoff ** 2
            for block, none in zip(graph.blocks, empty, strict=True)
        ]
        scale = LossScale(tuple(cutoffs), "pairs", strongest)
    elif isinstance(epsilon, str):
        raise GraphError(f"epsilon is {epsilon!r}: expected a number, one per pair of cuts, 'graph' or 'pairs'")
    else:
        given = "seeds" if seeds else "given" if np.ndim(epsilon) == 0 else "given per pair"
        scale = LossScale(loss_scales(graph, epsilon), given, 1.0, tuple(seeds or ()))
    if not any(w.max() > np.sqrt(e) for w, e in zip(graph.blocks, scale.per_pair, strict=True)):
        raise GraphError(
            f"no edge above the cutoff sqrt(epsilon) = {np.sqrt(max(scale.per_pair)):g}: the strongest strength is "
            f"{strongest:g}; choose a smaller epsilon"
        )
    return scale
