"""Faithfulness of the strongest edges: how well circuits of growing size do the network's task (MIB, 2025)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
from jaxtyping import Float, Int

from ..basis.bases import Bases
from ..errors import GraphError
from ..graph.interaction_graph import InteractionGraph
from ..network.batches import Batch
from ..network.network import Network
from ..notebook.bars import with_bar
from ..progress import ProgressCallback, counter
from ..results import by_value
from .controls import Judged, Outcome, Verdict, against_chance, outcome
from .interventions import Edges, Interventions, Options
from .metrics import Estimate, Metric, MetricFunction, estimate

__all__ = ["FRACTIONS", "Faithfulness", "circuit_faithfulness"]

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

"""Shares of the edges that are kept, as in MIB."""

_FLAT = 1e-9  # relative change of a metric that counts as none


@by_value
@dataclass(frozen=True)
class Faithfulness(Judged):
    """f(k) = (m(C_k) - m(empty)) / (m(whole) - m(empty)), with k the share of the strongest edges.

    Attributes:
        metric: m.
        fractions: k.
        edges: the number of edges kept, over all pairs of cuts.
        curve: f(k) with its standard error over data points.
        cpr: area under f(k), linear trapezoids over the fractions: larger is better. The standard errors of both areas
            are over data points (delta method).
        cmd: area between f(k) and 1, int |1 - f(k)| dk: smaller is better.
        random: (draws, fractions) f(k) for edges in random order.
        random_cpr, random_cmd: the areas of each draw.
        p_value: (1 + random orders with at least this cpr) / (1 + draws).
        whole, ablated: the network as it is, and without any edge.
        checked: whether the checks of the network ran and passed; None of results of version 0.6 and before.
    """

    metric: str
    fractions: tuple[float, ...]
    edges: tuple[int, ...]
    curve: tuple[Estimate, ...]
    cpr: Estimate
    cmd: Estimate
    random: Float[np.ndarray, "draws fractions"]
    random_cpr: tuple[float, ...]
    random_cmd: tuple[float, ...]
    p_value: float
    whole: Outcome
    ablated: Outcome
    checked: bool | None = None

    def judge(self) -> Verdict:
        """Judge whether the strongest edges do better than edges in random order."""
        draws = len(self.random_cpr)
        beside = f"CPR {self.cpr.value:.3g}, of {draws} random orders at most {max(self.random_cpr, default=0):.3g}"
        return against_chance(
            self.p_value if draws else None,
            draws,
            f"the strongest edges carry more than edges in random order: {beside}",
            f"the strongest edges are not shown to carry more than edges in random order: {beside}",
        )


@with_bar
def circuit_faithfulness(
    net: Network,
    bases: Bases,
    graph: InteractionGraph,
    *,
    batches: Iterable[Batch],
    metric: str | MetricFunction | Metric = "accuracy",
    fractions: Sequence[float] = FRACTIONS,
    draws: int = 20,
    progress: ProgressCallback | None = None,
    **options: Unpack[Options],
) -> Faithfulness:
    """Keep a growing share of the strongest edges of the whole graph, in all pairs of cuts at once.

    Args:
        net: the network.
        bases: bases of all its cuts.
        graph: the strengths of its edges.
        batches: held-out data; see `Interventions`.
        metric: see `find_metric`.
        fractions: shares of the edges above zero, ascending, in (0, 1].
        draws: number of random orders of the edges.
        progress: called after each measurement.
        options: see `Options`.

    Raises:
        GraphError: a graph of other cuts, fractions out of range or order, or a metric that is the same without edges.
        DataError: data or targets that do not fit.
    """
    study = Interventions(net, bases, batches, metrics=[metric], ordered=False, **options)
    study.require(graph)
    shares = np.asarray(fractions, dtype=float)
    if shares.ndim != 1 or not len(shares) or (np.diff(shares) <= 0).any() or shares[0] <= 0 or shares[-1] > 1:
        raise GraphError(f"fractions are {list(fractions)}: expected ascending shares above 0 and up to 1")
    metric = study.metrics[-1].name
    whole, empty = study.whole[metric], study.measure(edges=study.without_edges())[metric]
    span = float(whole.mean() - empty.mean())
    if abs(span) <= _FLAT * max(abs(float(whole.mean())), abs(float(empty.mean()))):
        raise GraphError(f"{metric} is {whole.mean():.4g} with all edges and with none: it has no faithfulness")
    flat = np.concatenate([block.ravel() for block in graph.matrices])
    positive = np.flatnonzero(flat > 0)
    counts = np.maximum(1, np.round(shares * len(positive)).astype(int))
    step = counter("faithfulness", len(shares) * (1 + draws), progress)

    def curve(order: Int[np.ndarray, " edges"]) -> Float[np.ndarray, "fractions n"]:
        """Compute per fraction a value per data point whose mean is f(k); their spread is its error (delta method)."""
        rows = []
        for m in counts.tolist():
            values = study.measure(edges=_kept(graph, order[:m], all_of_them=m == len(order)))[metric]
            f = (values.mean() - empty.mean()) / span
            rows.append(f + ((values - empty) - f * (whole - empty)) / span)
            step()
        return np.array(rows)

    found = curve(positive[np.argsort(-flat[positive], kind="stable")])
    generator = np.random.default_rng(study.seed)
    random = np.array([curve(generator.permutation(positive)).mean(1) for _ in range(draws)]).reshape(
        draws, len(shares)
    )
    cpr = estimate(np.trapezoid(found, shares, axis=0))
    random_cpr = np.trapezoid(random, shares, axis=1)
    return Faithfulness(
        metric=metric,
        fractions=tuple(shares.tolist()),
        edges=tuple(counts.tolist()),
        curve=tuple(estimate(row) for row in found),
        cpr=cpr,
        cmd=estimate(np.trapezoid(np.sign(1 - found.mean(1, keepdims=True)) * (1 - found), shares, axis=0)),
        random=random,
        random_cpr=tuple(random_cpr.tolist()),
        random_cmd=tuple(np.trapezoid(np.abs(1 - random), shares, axis=1).tolist()),
        p_value=float(1 + (random_cpr >= cpr.value).sum()) / (1 + draws),
        whole=outcome(study, "whole"),
        ablated=outcome(study, "no edges", edges=study.without_edges(), graph=graph),
        checked=net.checked,
    )


def _kept(graph: InteractionGraph, chosen: Int[np.ndarray, " m"], *, all_of_them: bool) -> Edges:
    """Return masks of edges that are numbered over all blocks."""
    mask = np.full(sum(block.size for block in graph.matrices), all_of_them)
    mask[chosen] = True
    ends = np.cumsum([block.size for block in graph.matrices])[:-1]
    return {p: part.reshape(graph.matrices[p].shape) for p, part in enumerate(np.split(mask, ends))}
