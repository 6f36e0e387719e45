"""Test whether modules depend on their own inputs, by data mixed between modules and compared with null graphs.

Nodes are fed coordinates of two data points x and x'. With a = the nodes of a module and b = all others, the change of
a node j of the module at the next cut from f(a, b) to f(a, b') is what it takes from other modules,

    others_j = E[(f_j(a, b') - f_j(a, b))^2] / 2,

and the same with its own module's nodes from x' is what it takes from its own. The factor 1/2 makes it the variance
carried, in the units of w^2. One edge of each node is left out on both sides, that in the matching of two cuts with the
largest sum of w^2 (to its partner): a nearly linear map is diagonal in its own coordinates, and chains of partners are
no evidence of modules. The selectivity compares the share taken from others with that expected by chance,

    T = 1 - (others / (others + own)) / (sum_p sum_ji r_j c_i / m [j, i in different modules] / sum_p m),

with r, c, m the sums of w^2 of rows, columns and all of a pair of cuts, partners left out. T = 1: nothing comes from
other modules; T = 0: as much as by chance. T is computed from the measured shares and from w^2; the smaller one counts.

Null hypothesis: given the number of edges and the total log-strength of every node in every pair of cuts, and given
partners, the other edges are placed at random. Null graphs are drawn accordingly (`graph.degree_preserving_null`) and
searched like the graph, both for as many modules and by the partition's own objective; the better of both counts. So a
division found by optimisation is compared with optimised ones. p = (1 + null graphs with at least this T) /
(1 + null graphs), and 1 where T is not above 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..errors import GraphError
from ..graph.cost import graph_costs, has_edge
from ..graph.interaction_graph import InteractionGraph
from ..graph.null_graphs import degree_preserving_null
from ..graph.quotient import Labels
from ..modules.partition import Partition
from ..modules.satellites import join_small
from ..progress import ProgressCallback, counter
from ..search.local_search import Effort, Search
from .controls import CHANCE, LEVEL, REFUTED, SUPPORTED, Judged, Verdict
from .interventions import Interventions

__all__ = ["NULLS", "Mixing", "mixed_modules", "partners"]

NULLS = 39

"""The least number of null graphs, if any: p may be below .05 even if one of them does as well."""

_EFFORT = Effort(restarts=2, kicks=2)

_BALANCE = 1.1  # largest module in a search for as many modules, relative to the mean size


@dataclass(frozen=True)
class Mixing(Judged):
    """How much modules depend on their own inputs.

    Attributes:
        selectivity: T as measured, see the head of this module; at most 1.
        predicted: T from the graph's w^2.
        own, others: variance that nodes take from their own module, partners left out, and from other modules; sums
            over all pairs of cuts.
        null: T for the best division of each null graph.
        p_value: (1 + null graphs with at least the smaller of both T) / (1 + null graphs); None without null graphs.
        followed: per module, with its nodes at the first cut from x and all others from x': the share of the variance
            of its nodes at the last cut that follows x, 1 - E|f(a, b') - f(a, b)|^2 / E|f(a', b') - f(a, b)|^2; None
            for a module that has no node at one of both cuts.
        interaction: per module the interaction of its nodes at the first cut with all others, in all coordinates of the
            last cut: E|f(a, b) - f(a', b) - f(a, b') + f(a', b')|^2 / 4, in the units of the loss; 0 where f is a sum
            of a function of a and one of b.
        variance: E|f(a', b') - f(a, b)|^2 / 2, to compare it with.
    """

    selectivity: float
    predicted: float
    own: float
    others: float
    null: tuple[float, ...]
    p_value: float | None
    followed: tuple[float | None, ...]
    interaction: tuple[float, ...]
    variance: float

    def judge(self) -> Verdict:
        """Return the verdict: supported if p < .05; refuted if modules use their own nodes no more than by chance."""
        least = min(self.selectivity, self.predicted)
        shown = f"selectivity {least:.3g} (1: nothing from other modules, 0: chance)"
        if self.own == 0:
            return Verdict(CHANCE, "inside modules nodes see one partner each: chains, as every nearly linear map has")
        if least <= 0:
            return Verdict(
                REFUTED, f"fed from two data points, nodes follow their modules no more than by chance: {shown}"
            )
        if self.p_value is None:
            return Verdict(CHANCE, f"no null graphs were drawn to compare with: {shown}")
        beside = f"{shown}, of {len(self.null)} divided null graphs at most {max(self.null):.3g}, p {self.p_value:.2g}"
        if self.p_value < LEVEL:
            return Verdict(SUPPORTED, f"fed from two data points, nodes follow their modules: {beside}")
        return Verdict(CHANCE, f"null graphs are divided as well: {beside}")


def mixed_modules(
    study: Interventions,
    graph: InteractionGraph,
    partition: Partition,
    labels: Sequence[Int[np.ndarray, " _"]],
    *,
    draws: int = NULLS,
    progress: ProgressCallback | None = None,
) -> Mixing | None:
    """Mix the data between modules; None for a single module, or where no two data points count the same positions.

    Args:
        study: the network and held-out data.
        graph: graph of the network.
        partition: partition of the graph.
        labels: its labels, with every node in a module.
        draws: number of null graphs, at least `NULLS`; 0 for none.
        progress: called after each null graph.
    """
    if partition.n_modules < 2 or (data := _Mixed(study)).n < 2:
        return None
    chains = [partners(block) for block in graph.matrices]
    strong = [costs > 0 for costs in graph_costs(graph, partition.epsilons)]
    own, others = data.shares(labels, chains)
    between, chance, total = _sums(graph.matrices, chains, strong, labels)
    predicted = 1 - between / chance if chance > 0 else 0.0
    known = own + others > 0 and chance > 0
    measured = 1 - others / (own + others) * total / chance if known else 0.0
    draws = max(draws, NULLS) if draws else 0
    null = _null(graph, partition, chains, draws, study.seed, progress)
    least = min(predicted, measured)
    as_good = sum(value >= least or least <= 0 for value in null)
    followed, interaction, variance = data.through(labels, partition.n_modules)
    return Mixing(
        selectivity=measured,
        predicted=predicted,
        own=own,
        others=others,
        null=tuple(null),
        p_value=(1 + as_good) / (1 + draws) if draws else None,
        followed=followed,
        interaction=interaction,
        variance=variance,
    )


def partners(block: Float[np.ndarray, "later earlier"]) -> Bool[np.ndarray, "later earlier"]:
    """Return the edges of the one-to-one matching of two cuts with the largest sum of w^2.

    >>> partners(np.array([[3.0, 1.0], [2.0, 0.5]])).astype(int).tolist()
    [[1, 0], [0, 1]]
    """
    found = np.zeros(block.shape, dtype=bool)
    found[linear_sum_assignment(block**2, maximize=True)] = True
    return found


def _sums(
    blocks: Sequence[np.ndarray],
    chains: Sequence[np.ndarray],
    strong: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
) -> tuple[float, float, float]:
    """Sum w^2 between modules, its expectation by chance, and in all, over edges above the cutoff except partners."""
    between = chance = total = 0.0
    for p, block in enumerate(blocks):
        squares = np.where(strong[p] & ~chains[p], block**2, 0.0)
        if (m := float(squares.sum())) > 0:
            apart = labels[p + 1][:, None] != labels[p]
            between, total = between + float(squares[apart].sum()), total + m
            chance += float(np.outer(squares.sum(1), squares.sum(0))[apart].sum()) / m
    return between, chance, total


def _null(
    graph: InteractionGraph,
    partition: Partition,
    chains: Sequence[np.ndarray],
    draws: int,
    seed: int,
    progress: ProgressCallback | None,
) -> list[float]:
    """Compute T of the best division of each null graph."""
    generator = np.random.default_rng(seed)
    costs = graph_costs(graph, partition.epsilons)
    step = counter("null graphs", draws, progress)
    found = []
    for _ in range(draws):
        blocks, strong = [], []
        for chain, c, epsilon in zip(chains, costs, partition.epsilons, strict=True):
            drawn = np.where(chain, c, degree_preserving_null(np.where(chain, 0.0, c), generator=generator))
            strong.append(drawn > 0)
            blocks.append(np.where(drawn > 0, math.sqrt(epsilon) * np.exp(drawn), 0.0))
        other = InteractionGraph.from_blocks(blocks, cuts=graph.cuts)
        values = [0.0]
        for labels in _searched(other, partition, int(generator.integers(2**31))):
            between, chance, _ = _sums(blocks, chains, strong, labels)
            values.append(1 - between / chance if chance > 0 else 0.0)
        found.append(max(values))
        step()
    return found


def _searched(graph: InteractionGraph, partition: Partition, seed: int) -> list[Labels]:
    """Search divisions of a null graph: into as many modules of similar sizes, and by the partition's own objective.

    The labels are those of `find_modules`, without its costs and evidence, which nobody reads here.
    """
    n = sum(int(nodes.sum()) for nodes in has_edge(graph, partition.epsilons))
    sizes = [module.size for module in partition.modules]
    largest = math.ceil(n * max(max(sizes) / sum(sizes), _BALANCE / partition.n_modules))
    found = list[Labels]()
    searches = (
        ("kway", 0.0, partition.n_modules, min(n, largest)),
        (partition.objective, partition.resolution, None, None),
    )
    for objective, resolution, k, most in searches:
        if objective == "kway" and k is None:
            continue
        search = Search(graph, partition.epsilons)
        try:
            search.constrain(k=k, max_size=most)
        except GraphError:  # there are fewer nodes than modules
            continue
        (own,) = np.random.default_rng(seed).spawn(1)
        options: dict[str, Any] = {"generator": own, "effort": _EFFORT}
        best = search.best(search.wired(search.costs), search.costs, objective, resolution, **options)
        flat = join_small(search, np.unique(best.labels, return_inverse=True)[1], search.min_size)
        found.append(search.per_cut(flat))
    return found


class _Mixed:
    """Pairs of data points: x of every data point, and x' of another one at which the same positions count.

    Positions that do not count (padding, a first token) are those of x throughout. Data points without such another one
    are left out.
    """

    def __init__(self, study: Interventions) -> None:
        self._study = study
        other = study.partners()
        self.n = int((other != torch.arange(study.n, device="cpu")).sum())
        self._x, self._other = study.coordinates(), study.coordinates(other=other)
        self._last_cut = len(self._x) - 1

    def shares(self, labels: Sequence[np.ndarray], chains: Sequence[np.ndarray]) -> tuple[float, float]:
        """Sum over all pairs the variance that nodes take from their own module, without partners, and from others."""
        own = others = 0.0
        for p, chain in enumerate(chains):
            same = labels[p + 1][:, None] == labels[p]
            whole = self._received(p, np.ones_like(same))
            own += self._half_square(self._received(p, ~same | chain), whole)
            others += self._half_square(self._received(p, same), whole)
        return own, others

    def through(
        self, labels: Sequence[np.ndarray], n_modules: int
    ) -> tuple[tuple[float | None, ...], tuple[float, ...], float]:
        """Compute per module how it follows its inputs and interacts, from first to last cut; and the variance."""
        both, neither = (self._last(values[0]) for values in (self._x, self._other))
        followed: list[float | None] = []
        interaction = []
        for module in range(n_modules):
            mine, ends = (torch.from_numpy(labels[p] == module) for p in (0, -1))
            first, second = (
                self._last([torch.where(mine == kept, a, b) for a, b in zip(self._x[0], self._other[0], strict=True)])
                for kept in (True, False)
            )
            rest = [a + b - c for a, b, c in zip(second, first, neither, strict=True)]
            interaction.append(self._half_square(both, rest) / 2)
            moved = self._half_square(neither, both, ends)
            share = 1 - self._half_square(first, both, ends) / moved if moved > 0 and mine.any() else None
            followed.append(share)
        return tuple(followed), tuple(interaction), self._half_square(neither, both)

    def _received(self, p: int, mask: Bool[np.ndarray, "j k"]) -> list[Float[Tensor, "_ _ _"]]:
        """Compute coordinates at cut p + 1 of nodes that see x where the mask says so and x' elsewhere."""
        return self._study.receive(p, self._x[p], self._other[p], mask)

    def _last(self, coordinates: Sequence[Float[Tensor, "_ _ _"]]) -> list[Float[Tensor, "_ _ _"]]:
        """Compute coordinates at the last cut from those at the first."""
        return self._study.pushed(0, coordinates, self._last_cut)

    def _half_square(self, new: Sequence[Tensor], old: Sequence[Tensor], nodes: Tensor | None = None) -> float:
        """Compute E|new - old|^2 / 2, summed over positions and (some) coordinates."""
        changes = (a - b for a, b in zip(new, old, strict=True))
        squares = (float((c if nodes is None else c[..., nodes]).square().sum()) for c in changes)
        return sum(squares) / (2 * self.n)
