"""Test whether the interaction cost of two modules predicts the loss when the interactions between them are cut."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Unpack

import numpy as np
from jaxtyping import Float

from ..basis.bases import Bases
from ..graph.interaction_graph import InteractionGraph
from ..graph.quotient import Division
from ..modules.partition import Partition
from ..network.batches import Batch
from ..network.network import Network
from ..notebook.bars import with_bar
from ..progress import ProgressCallback, counter
from .ablation import joined_labels, link_edges
from .controls import CHANCE, REFUTED, SUPPORTED, Judged, Outcome, Verdict, outcome, random_edges
from .interventions import Interventions, Options
from .metrics import Metric, MetricFunction

__all__ = ["LinkCut", "Prediction", "predict_losses"]

_RESAMPLES = 2000

_FEWEST = 3  # least number of links for a rank correlation


@dataclass(frozen=True)
class LinkCut:
    """The effect of cutting all edges by which one module feeds another.

    Attributes:
        earlier, later: labels of the sending and of the receiving module.
        predicted: edge cost of the link, the sum of c(w) (see `graph.cost`).
        measured: the network without these edges; controls are as many random ones of the same pairs of cuts.
    """

    earlier: int
    later: int
    predicted: float
    measured: Outcome


@dataclass(frozen=True)
class Prediction(Judged):
    """The predicted cost and measured loss of cutting each link between modules.

    Attributes:
        metric: metric whose loss is ranked.
        links: every ordered pair of modules, by descending predicted cost.
        spearman: rank correlation of prediction and loss; None for fewer than 3 links, or where one of both does
            not vary.
        interval: its 2.5 to 97.5 % range over bootstrap samples of the links.
        whole, ablated: the network as it is, and without any edge.
        checked: whether the checks of the network ran and passed; None of results of version 0.6 and before.
    """

    metric: str
    links: tuple[LinkCut, ...]
    spearman: float | None
    interval: tuple[float, float] | None
    whole: Outcome
    ablated: Outcome
    checked: bool | None = None

    def judge(self) -> Verdict:
        """Judge whether the predicted costs rank the losses."""
        if self.spearman is None or self.interval is None:
            return Verdict(CHANCE, f"{len(self.links)} links give no ranks to compare")
        low, high = self.interval
        shown = f"rank correlation {self.spearman:.2f} [{low:.2f}, {high:.2f}] over {len(self.links)} links"
        if low > 0:
            return Verdict(SUPPORTED, f"the predicted costs rank the losses: {shown}")
        return Verdict(REFUTED if self.spearman <= 0 else CHANCE, f"the costs do not rank the losses: {shown}")


@with_bar
def predict_losses(
    net: Network,
    bases: Bases,
    graph: InteractionGraph,
    *,
    partition: Partition,
    batches: Iterable[Batch],
    metric: str | MetricFunction | Metric = "loss",
    draws: int = 5,
    progress: ProgressCallback | None = None,
    **options: Unpack[Options],
) -> Prediction:
    """Cut the interactions of each ordered pair of modules, and compare the losses with the costs.

    Args:
        net: the network.
        bases: bases of all its cuts.
        graph: the strengths of its edges.
        partition: partition of the graph.
        batches: held-out data; see `Interventions`.
        metric: see `find_metric`.
        draws: number of random sets of as many edges, as controls of each link.
        progress: called after each measurement.
        options: see `Options`.

    Raises:
        GraphError: a partition of another graph, or a graph of another network.
        DataError: data or targets that do not fit.
    """
    study = Interventions(net, bases, batches, metrics=[metric], ordered=False, **options)
    study.require(graph)
    labels = joined_labels(graph, partition)
    metric = study.metrics[-1]
    division = Division(graph, partition.labels, partition.epsilons)
    costs = {(link.earlier, link.later): link.edge_cost for link in division.links}
    ordered = [(a, b) for a in range(partition.n_modules) for b in range(partition.n_modules) if a != b]
    ordered.sort(key=lambda pair: -costs.get(pair, 0.0))
    plans = [{p: ~mask for p, mask in link_edges(graph, labels, a, b).items()} for a, b in ordered]
    chances = [random_edges(kept, graph) for kept in plans]
    step = counter("prediction", 2 + len(plans) + draws * sum(chance is not None for chance in chances), progress)
    links = []
    for (a, b), kept, chance in zip(ordered, plans, chances, strict=True):
        measured = outcome(
            study, f"{a} to {b}", edges=kept, graph=graph, draw=chance, draws=draws, seed=study.seed, step=step
        )
        links.append(LinkCut(a, b, costs.get((a, b), 0.0), measured))
    predicted = np.array([link.predicted for link in links])
    losses = np.array([metric.loss(link.measured.changes[metric.name].value) for link in links])
    rho, interval = _rank_correlation(predicted, losses, study.seed)
    return Prediction(
        metric.name,
        tuple(links),
        rho,
        interval,
        whole=outcome(study, "whole", step=step),
        ablated=outcome(study, "no edges", edges=study.without_edges(), graph=graph, step=step),
        checked=net.checked,
    )


def _rank_correlation(
    predicted: Float[np.ndarray, " links"], losses: Float[np.ndarray, " links"], seed: int
) -> tuple[float | None, tuple[float, float] | None]:
    from scipy.stats import bootstrap, pearsonr, rankdata  # takes a second

    def spearman(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        """Correlate the ranks; NaN where one of both does not vary."""
        ranks = (rankdata(values, axis=axis) for values in (x, y))
        return np.asarray(pearsonr(*ranks, axis=axis).statistic)

    if len(predicted) < _FEWEST or any(len(np.unique(values)) == 1 for values in (predicted, losses)):
        return None, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy warns of samples of links that do not vary; they are left out below
        found = bootstrap(
            (predicted, losses),
            spearman,
            n_resamples=_RESAMPLES,
            paired=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    low, high = np.nanquantile(found.bootstrap_distribution, [0.025, 0.975]).tolist()
    return float(spearman(predicted, losses)), (low, high)
