"""`bisect_edges`: find the fewest strongest edges that keep a metric, per pair of cuts and for all pairs at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
from jaxtyping import Bool, Int

from ..basis.bases import Bases
from ..errors import GraphError
from ..graph.interaction_graph import InteractionGraph
from ..network.batches import Batch
from ..network.network import Network
from ..notebook.bars import with_bar
from ..progress import Progress, ProgressCallback, counter
from ..results import by_value
from .adversarial.ascent import Budget
from .adversarial.searched import Search, WorstCut, judged_by_worst, worst_cut
from .controls import Judged, Outcome, Verdict, against_chance, outcome, random_edges
from .interventions import Edges, Interventions, Options
from .metrics import Metric, MetricFunction

__all__ = ["EdgeBisection", "bisect_edges", "strongest", "strongest_order"]

_ROUNDING = 1e-12  # a metric may exceed its tolerance by this much

_PAIR_DRAWS = 5  # largest number of draws of random edges for one pair of cuts

_WINDOW = 16  # numbers of edges below a sufficient one that are tried too

_GROWTH, _FACTOR = 1.25, 0.02  # growth of the common factor, and precision of its bisection


@by_value
@dataclass(frozen=True)
class EdgeBisection(Judged):
    """The fewest strongest edges that keep a metric within a tolerance of the whole network's.

    Attributes:
        cuts: names of the cuts.
        metric, tolerance: the metric to keep, and how much of it may be lost.
        n_edges: edges with a strength above zero, per pair of cuts.
        edges_required: per pair of cuts, with all edges of the other pairs.
        jointly_required: per pair of cuts, with all pairs restricted at once.
        epsilon: loss scale per pair of cuts: w^2 just below the weakest edge that is jointly required; with it
            the graph has exactly these edges.
        whole, ablated: the network as it is, and without any edge.
        pairs: with the required edges of one pair of cuts each; controls are as many random edges.
        jointly: with the jointly required edges of all pairs; controls are as many random edges.
        curves: (edges kept, metric) of all trials, per pair of cuts; the last one jointly.
        checked: whether the checks of the network ran and passed; None of results of version 0.6 and before.
        worst: the worst partial cut of the edges that are not jointly required, see `WorstCut`; () where it was not
            asked for, or where all are.
    """

    cuts: tuple[str, ...]
    metric: str
    tolerance: float
    n_edges: tuple[int, ...]
    edges_required: tuple[int, ...]
    jointly_required: tuple[int, ...]
    epsilon: tuple[float, ...]
    whole: Outcome
    ablated: Outcome
    pairs: tuple[Outcome, ...]
    jointly: Outcome
    curves: tuple[tuple[tuple[int, float], ...], ...]
    checked: bool | None = None
    worst: tuple[WorstCut, ...] = ()

    def judge(self) -> Verdict | None:
        """Judge whether the required edges do better than as many random ones, and by the worst partial cut."""
        beside = self.jointly.controls.get(self.metric)
        kept = f"{sum(self.jointly_required):,} of {sum(self.n_edges):,} edges keep {self.metric}"
        found = against_chance(
            None if beside is None else beside.p_value,
            0 if beside is None else beside.draws,
            f"{kept}, and as many random ones do not: {beside}",
            f"{kept}, and as many random ones may do as well: {beside}",
        )
        everything = next(iter(self.ablated.values.values())).value
        return judged_by_worst(found, self.worst, everything)


@with_bar
def bisect_edges(
    net: Network,
    bases: Bases,
    graph: InteractionGraph,
    *,
    batches: Iterable[Batch],
    metric: str | MetricFunction | Metric = "accuracy",
    tolerance: float = 1e-3,
    draws: int = 5,
    adversarial: int | Sequence[int] | None = None,
    progress: ProgressCallback | None = None,
    **options: Unpack[Options],
) -> EdgeBisection:
    """Find the fewest strongest edges that keep a metric, by bisection.

    Per pair of cuts the number of edges is doubled until the metric is kept, then bisected. Jointly, the numbers of
    all pairs grow by a common factor, found in the same way, and then each pair is lowered while the others stay. The
    metric is not monotonic in the number of edges: the 16 numbers below a sufficient one are tried too.

    Args:
        net: the network.
        bases: bases of all its cuts.
        graph: the strengths of its edges.
        batches: held-out data; see `Interventions`.
        metric: see `find_metric`.
        tolerance: loss of the metric's mean that is allowed.
        draws: number of random sets of as many edges, as controls of those jointly required; at most 5 for a single
            pair.
        adversarial: steps of projected gradient ascent to the worst partial cut of the edges that are not jointly
            required, and to those of as many random edges; or numbers of steps after which it is reported, such as
            (20, 80). None: not.
        progress: called after each measurement.
        options: see `Options`.

    Raises:
        GraphError: a graph of other cuts or with edges that skip a cut, or a tolerance below zero.
        DataError: data or targets that do not fit.
        InputError: steps that do not ascend from 1.
    """
    budget = Budget.of(adversarial)
    study = Interventions(net, bases, batches, metrics=[metric], ordered=False, **options)
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise GraphError(f"tolerance is {tolerance}: expected how much of the metric may be lost, 0 or more")
    study.require(graph)
    search = _Search(study, graph, tolerance, progress)
    pairs = range(len(graph.matrices))
    required = tuple(search.fewest(p, {}, 1) for p in pairs)
    joint = search.grow(required)
    for p in sorted(pairs, key=lambda p: (-joint[p], p)):
        others = {q: m for q, m in enumerate(joint) if q != p}
        joint = (*joint[:p], search.fewest(p, others, required[p], joint[p]), *joint[p + 1 :])
    plans = {f"{graph.cuts[p]} to {graph.cuts[p + 1]}": {p: required[p]} for p in pairs}
    masks = [search.masks(counts) for counts in (*plans.values(), dict(enumerate(joint)))]
    chances = [random_edges(kept, graph) for kept in masks]
    drawn = [draws if i == len(pairs) else min(draws, _PAIR_DRAWS) for i in range(len(masks))]
    step = counter("random edges", 2 + len(masks) + sum(d for d, c in zip(drawn, chances, strict=True) if c), progress)
    rows = [
        outcome(study, name, edges=kept, graph=graph, draw=chance, draws=count, seed=study.seed, step=step)
        for name, kept, chance, count in zip((*plans, "jointly"), masks, chances, drawn, strict=True)
    ]
    return EdgeBisection(
        cuts=graph.cuts,
        metric=study.metrics[-1].name,
        tolerance=float(tolerance),
        n_edges=tuple(len(order) for order in search.orders),
        edges_required=required,
        jointly_required=joint,
        epsilon=tuple(
            _scale(block, order, m) for block, order, m in zip(graph.matrices, search.orders, joint, strict=True)
        ),
        whole=outcome(study, "whole", step=step),
        ablated=outcome(study, "no edges", edges=study.without_edges(), graph=graph, step=step),
        pairs=tuple(rows[:-1]),
        jointly=rows[-1],
        curves=tuple(search.curve(tried) for tried in (*[(p,) for p in pairs], tuple(pairs))),
        checked=net.checked,
        worst=_worst(search, masks[-1], budget, draws),
    )


def _worst(search: _Search, kept: Edges, budget: Budget | None, draws: int) -> tuple[WorstCut, ...]:
    """Search for the worst partial cut of the edges that are not kept, and for those of random edges."""
    if budget is None or all(mask.all() for mask in kept.values()):
        return ()
    chance = random_edges(kept, search.graph)
    step = counter("worst cuts", 1 + draws * (chance is not None), search.progress)
    found = Search(search.study, search.graph, budget)
    return (worst_cut(found, "worst cut", kept, beside="edges", random=chance, draws=draws, step=step),)


class _Search:
    """The numbers of edges that were tried, each measured once."""

    def __init__(
        self, study: Interventions, graph: InteractionGraph, tolerance: float, progress: ProgressCallback | None
    ) -> None:
        self.study, self.graph, self.progress = study, graph, progress
        self.orders = [strongest_order(block) for block in graph.matrices]
        self._metric = study.metrics[-1]
        self._worst = self._metric.loss(float(study.whole[self._metric.name].mean())) + tolerance + _ROUNDING
        self._tried: dict[tuple[tuple[int, int], ...], float] = {}

    def masks(self, counts: Mapping[int, int]) -> Edges:
        """Return masks of the strongest edges of the given pairs of cuts."""
        return {p: strongest(self.graph.matrices[p], self.orders[p], m) for p, m in counts.items()}

    def keeps(self, counts: Mapping[int, int]) -> bool:
        """Return whether the metric is kept with so many edges."""
        key = tuple(sorted(counts.items()))
        if key not in self._tried:
            self._tried[key] = float(self.study.measure(edges=self.masks(counts))[self._metric.name].mean())
            self.report()
        return self._metric.loss(self._tried[key]) <= self._worst

    def fewest(self, p: int, others: Mapping[int, int], start: int, enough: int | None = None) -> int:
        """Find the fewest edges of a pair of cuts, between a first guess and a sufficient number."""
        if start == 0 or self.keeps({**others, p: start - 1}):
            return max(0, start - 1)
        low, high = start - 1, start
        while enough is None and high < len(self.orders[p]) and not self.keeps({**others, p: high}):
            low, high = high, min(2 * high, len(self.orders[p]))
        high = high if enough is None else enough
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.keeps({**others, p: middle}) else (middle, high)
        below = range(max(start, high - _WINDOW), high)
        while fewer := [m for m in below if self.keeps({**others, p: m})]:  # the metric is not monotonic
            high = fewer[0]
            below = range(max(start, high - _WINDOW), high)
        return high

    def grow(self, required: Sequence[int]) -> tuple[int, ...]:
        """Find sufficient numbers for all pairs at once, the required ones times a common factor."""

        def scaled(factor: float) -> tuple[int, ...]:
            return tuple(min(len(o), math.ceil(factor * m)) for o, m in zip(self.orders, required, strict=True))

        low, high = 0.0, 1.0
        while not self.keeps(dict(enumerate(scaled(high)))) and scaled(high) != tuple(map(len, self.orders)):
            low, high = high, _GROWTH * high
        while low and high - low > _FACTOR:
            middle = (low + high) / 2
            low, high = (low, middle) if self.keeps(dict(enumerate(scaled(middle)))) else (middle, high)
        return scaled(high)

    def curve(self, pairs: tuple[int, ...]) -> tuple[tuple[int, float], ...]:
        """Return (edges kept, metric) of the trials in these pairs of cuts."""
        tried = {
            sum(m for _, m in key): value for key, value in self._tried.items() if tuple(p for p, _ in key) == pairs
        }
        return tuple(sorted(tried.items()))

    def report(self) -> None:
        """Report the number of measurements made; the total is not known."""
        if callable(self.progress):
            self.progress(Progress("bisection", len(self._tried), None, f"{len(self._tried)} sets of edges tried"))


def _scale(block: np.ndarray, order: Int[np.ndarray, " edges"], m: int) -> float:
    """Return the loss scale at which a pair of cuts has its m strongest edges: its root is just below the weakest."""
    if m == 0:
        return float(block.max() ** 2) or 1.0
    return float(np.nextafter(block.ravel()[order[m - 1]], 0.0) ** 2)


def strongest_order(block: np.ndarray) -> Int[np.ndarray, " edges"]:
    """Return indices of the edges of a block above zero, the strongest first, ties by later and then earlier node."""
    flat = block.ravel()
    order = np.argsort(-flat, kind="stable")
    return order[: int((flat > 0).sum())]


def strongest(block: np.ndarray, order: Int[np.ndarray, " edges"], m: int) -> Bool[np.ndarray, "later earlier"]:
    """Return a mask of the m strongest edges; with all of them, edges of strength zero too, so that nothing is cut."""
    mask = np.zeros(block.size, dtype=bool)
    mask[order[:m]] = True
    return (mask | (m >= len(order))).reshape(block.shape)
