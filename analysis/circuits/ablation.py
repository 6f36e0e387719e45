"""Test modules on the network itself: cut the interactions between them, ablate each, keep each alone.

A module is a hypothesis. It predicts that the network works without the interactions between modules, and that
each module serves outputs of its own. Data mixed between modules distinguish them from chance (see `mixing`). Every
number is compared with those of the whole network, the fully ablated one, and
random interventions of the same size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..basis.bases import Bases
from ..errors import GraphError
from ..graph.cost import edge_costs
from ..graph.interaction_graph import InteractionGraph
from ..modules.partition import Partition
from ..network.batches import Batch
from ..network.network import Network
from ..notebook.bars import with_bar
from ..progress import ProgressCallback, counter
from ..results import by_value
from .adversarial.ascent import Budget
from .adversarial.searched import Search, WorstCut, judged_by_worst, worst_cut
from .controls import (
    CHANCE,
    REFUTED,
    Control,
    Draw,
    Judged,
    Outcome,
    Verdict,
    control,
    matched_edges,
    outcome,
    random_nodes,
)
from .interventions import Edges, Interventions, Nodes, Options
from .metrics import BEHAVIOURAL, Metric, MetricFunction, class_accuracy
from .mixing import Mixing, mixed_modules

__all__ = [
    "InputLosses",
    "Isolation",
    "ModuleAblation",
    "ablate_modules",
    "isolate_modules",
    "joined_labels",
    "link_edges",
    "require_partition",
]

_LARGEST = 5  # data points that are listed

_ROUNDING = 1e-6  # relative difference of sums of the costs of one graph that counts as rounding

_DESTROYED = 0.1  # isolation is destructive from this share of the loss without any edge

_IDLE = 1e-3  # a module does nothing below this share of the loss without any node


@by_value
@dataclass(frozen=True)
class Isolation(Judged):
    """The network with all interactions between its modules cut, in all pairs of cuts at once.

    Attributes:
        n_modules: number of modules of the partition.
        cut_edges: edges with a strength above zero that are cut, per pair of cuts.
        n_edges: edges with a strength above zero, per pair of cuts.
        whole, ablated: the network as it is, and without any edge.
        isolated: every node sees its own module only; controls are random modules of the same sizes at each cut.
        matched: per metric the control of as many random edges of the same strengths (see `matched_edges`). Where
            modules are joined by weak edges only, these are weak too: it tells whether it matters which edges are cut,
            given their strengths.
        mixing: how much modules depend on their own inputs; None for one module, for data that cannot be mixed, and in
            results of version 0.6 and before.
        checked: whether the checks of the network ran and passed; None of results of version 0.6 and before.
        worst: the worst partial cut of the edges between modules, see `WorstCut`; () where it was not asked for.
    """

    n_modules: int
    cut_edges: tuple[int, ...]
    n_edges: tuple[int, ...]
    whole: Outcome
    ablated: Outcome
    isolated: Outcome
    matched: dict[str, Control]
    mixing: Mixing | None = None
    checked: bool | None = None
    worst: tuple[WorstCut, ...] = ()

    def judge(self) -> Verdict | None:
        """Return the verdict: refuted if random cuts of equal strength matter as much, else `Mixing.judge`.

        What the worst partial cut does is added, see `judged_by_worst`.
        """
        loss = _behavioural(self.whole)
        cost, everything = (row.values[loss].value for row in (self.isolated, self.ablated))
        beside = self.matched.get(loss)
        if self.n_modules > 1 and beside is not None and cost >= max(_DESTROYED * everything, beside.value):
            return Verdict(
                REFUTED,
                f"isolated, the network loses {cost:.4g} of the {everything:.4g} that it loses without any edge, "
                f"no less than with as many edges of the same strengths cut at random ({beside})",
            )
        return judged_by_worst(_by_mixing(self.n_modules, self.mixing, self.checked), self.worst, everything)


@by_value
@dataclass(frozen=True)
class ModuleAblation(Judged):
    """Each module ablated, and each kept alone, at all cuts but the output.

    Attributes:
        n_modules: number of modules of the partition.
        whole, nothing: the network as it is, and with all nodes ablated.
        without, alone: per module the network without it, and with it alone; controls are random nodes of the same
            sizes.
        outputs: (2, modules, outputs) mean squared change of each output (for KL of its log-probability), of the
            network without the module and with it alone.
        classes: (2, modules, answers, classes) accuracy at the data points of each class, NaN where there are none;
            empty without classes as targets.
        whole_classes: (answers, classes) the same for the whole network.
        losses: (2, modules, data points) behavioural loss of each data point, to show which inputs suffer.
        mixing, checked: see `Isolation`.
        worst: the worst partial cut of the edges that join a module to the others, per module (of two modules once);
            () where it was not asked for.
    """

    n_modules: int
    whole: Outcome
    nothing: Outcome
    without: tuple[Outcome, ...]
    alone: tuple[Outcome, ...]
    outputs: Float[np.ndarray, "2 modules outputs"]
    classes: Float[np.ndarray, "2 modules answers classes"]
    whole_classes: Float[np.ndarray, "answers classes"]
    losses: Float[np.ndarray, "2 modules n"]
    mixing: Mixing | None = None
    checked: bool | None = None
    worst: tuple[WorstCut, ...] = ()

    def judge(self) -> Verdict | None:
        """Return the verdict: refuted if a module does nothing, else as `Mixing.judge`, and `judged_by_worst`."""
        if self.n_modules > 1 and (idle := [m for m, share in enumerate(self.shares) if share < _IDLE]):
            return Verdict(REFUTED, _idle(idle[0], self.shares[idle[0]]))
        everything = self.nothing.values[_behavioural(self.whole)].value
        return judged_by_worst(_by_mixing(self.n_modules, self.mixing, self.checked), self.worst, everything)

    @property
    def shares(self) -> tuple[float, ...]:
        """The behavioural loss without each module, as a share of that without any node."""
        loss = _behavioural(self.whole)
        everything = self.nothing.values[loss].value
        return tuple(row.values[loss].value / everything if everything > 0 else 1.0 for row in self.without)

    @property
    def parts(self) -> tuple[Verdict, ...]:
        """The verdict on each module, by its effect and the inputs it depends on; () if the whole has none."""
        whole = self.judge()
        if whole is None:
            return ()
        found = []
        for module, share in enumerate(self.shares):
            followed = self.mixing.followed[module] if self.mixing is not None else None
            own = "" if followed is None else f", and {followed:.1%} of its outputs' variance goes by its own inputs"
            does = f"without module {module} the network loses {share:.1%} of what it loses without any node{own}"
            idle = share < _IDLE and self.n_modules > 1
            found.append(Verdict(REFUTED, _idle(module, share)) if idle else Verdict(whole.verdict, does))
        return tuple(found)

    @property
    def inputs(self) -> tuple[tuple[InputLosses, ...], tuple[InputLosses, ...]]:
        """The data points that suffer without each module, and with each alone."""
        without, alone = (tuple(InputLosses.of(row) for row in side) for side in self.losses)
        return without, alone


def _behavioural(row: Outcome) -> str:
    return next(name for name in BEHAVIOURAL if name in row.values)


def _idle(module: int, share: float) -> str:
    return f"module {module} is idle: without it the network loses {share:.2g} of what it loses without any node"


def _by_mixing(n_modules: int, mixing: Mixing | None, checked: bool | None) -> Verdict | None:
    if n_modules == 1:
        return Verdict(CHANCE, "there is one module: nothing to tell apart")
    if mixing is None:
        if checked is None:  # of version 0.6 and before
            return None
        few = "that takes two data points at which the same positions count"
        return Verdict(CHANCE, f"the data cannot be mixed between modules: {few}")
    return mixing.judge()


@dataclass(frozen=True)
class InputLosses:
    """The distribution of a behavioural loss over the data points.

    Attributes:
        half: the smallest share of the data points that carries half of the loss; None where the loss is 0.
        largest: (index, loss) of the at most five data points with the largest loss above 0.
    """

    half: float | None
    largest: tuple[tuple[int, float], ...]

    @classmethod
    def of(cls, losses: Float[np.ndarray, " n"]) -> InputLosses:
        """Summarise the losses of the data points.

        >>> InputLosses.of(np.array([0.0, 1.0, 6.0, 1.0]))
        InputLosses(half=0.25, largest=((2, 6.0), (1, 1.0), (3, 1.0)))
        """
        order = np.argsort(-losses, kind="stable")
        total = np.cumsum(losses[order])
        half = float(1 + (total < total[-1] / 2).sum()) / len(losses) if total[-1] > 0 else None
        return cls(half, tuple((int(i), float(losses[i])) for i in order[:_LARGEST] if losses[i] > 0))


@with_bar
def isolate_modules(
    net: Network,
    bases: Bases,
    graph: InteractionGraph,
    partition: Partition,
    batches: Iterable[Batch],
    *,
    metrics: Sequence[str | MetricFunction | Metric] = (),
    draws: int = 20,
    adversarial: int | Sequence[int] | None = None,
    progress: ProgressCallback | None = None,
    **options: Unpack[Options],
) -> Isolation:
    """Cut all interactions between modules, and measure the loss.

    At each cut every node recomputes its coordinate from an input in which the coordinates of other modules are
    replaced. Nodes of no module join the module with which they exchange most loss.

    Args:
        net: the network.
        bases: bases of all its cuts.
        graph: the strengths of its edges.
        partition: partition of the graph.
        batches: held-out data; see `Interventions`.
        metrics: metrics besides the behavioural loss.
        draws: number of random modules of the same sizes, of random sets of edges of the same strengths, and of null
            graphs for mixed data (at least 39, or none), see `mixing`.
        adversarial: steps of projected gradient ascent to the worst partial cut of the edges between modules, and to
            those of as many draws; or numbers of steps after which it is reported, such as `STEPS` (20, 80). None: not.
        progress: called after each measurement.
        options: see `Options`.

    Raises:
        GraphError: a partition of another graph, or a graph of another network.
        DataError: data or targets that do not fit.
        InputError: steps that do not ascend from 1.
    """
    budget = Budget.of(adversarial)
    study = Interventions(net, bases, batches, metrics=metrics, ordered=False, **options)
    study.require(graph)
    labels = joined_labels(graph, partition)
    kept = _inside(graph, labels)

    def random_modules(generator: np.random.Generator) -> tuple[Nodes, Edges]:
        return {}, _inside(graph, [generator.permutation(array) for array in labels])

    one = all(mask.all() for mask in kept.values())  # nothing is cut, so there is no control
    chance, matched = None if one else random_modules, matched_edges(kept, graph)
    step = counter("isolation", 3 + draws * ((chance is not None) + (matched is not None)), progress)
    plans = [] if one or budget is None else [_Plan("worst cut", kept, random_modules)]
    isolated = outcome(study, "isolated", edges=kept, graph=graph, draw=chance, draws=draws, seed=study.seed, step=step)
    return Isolation(
        n_modules=partition.n_modules,
        cut_edges=tuple(int((block[~kept[p]] > 0).sum()) for p, block in enumerate(graph.matrices)),
        n_edges=tuple(int((block > 0).sum()) for block in graph.matrices),
        whole=outcome(study, "whole", step=step),
        ablated=outcome(study, "no edges", edges=study.without_edges(), graph=graph, step=step),
        isolated=isolated,
        matched=control(study, isolated.values, matched, draws, study.seed, step),
        mixing=mixed_modules(study, graph, partition, labels, draws=draws, progress=progress),
        checked=net.checked,
        worst=_worst(study, graph, budget, plans, draws, progress),
    )


@with_bar
def ablate_modules(
    net: Network,
    bases: Bases,
    graph: InteractionGraph,
    partition: Partition,
    batches: Iterable[Batch],
    *,
    metrics: Sequence[str | MetricFunction | Metric] = (),
    draws: int = 20,
    adversarial: int | Sequence[int] | None = None,
    progress: ProgressCallback | None = None,
    **options: Unpack[Options],
) -> ModuleAblation:
    """Ablate each module, and keep each module alone; the arguments are those of `isolate_modules`.

    The worst partial cuts are of the edges that join each module to the others.

    Raises:
        GraphError: a partition of another graph, or a graph of another network.
        DataError: data or targets that do not fit.
        InputError: steps that do not ascend from 1.
    """
    budget = Budget.of(adversarial)
    study = Interventions(net, bases, batches, metrics=metrics, **options)
    study.require(graph)
    labels = joined_labels(graph, partition)
    inner = range(len(labels) - study.ends_in_cut)  # ablating the outputs themselves is no test
    count = partition.n_modules
    plans = [[{p: (labels[p] == module) == alone for p in inner} for module in range(count)] for alone in (False, True)]
    drawn = sum(draws for side in plans for nodes in side if random_nodes(nodes))
    step = counter("modules", 2 + 2 * 2 * count + drawn, progress)
    rows: list[list[Outcome]] = [[], []]
    details: list[list[_Detail]] = [[], []]
    for side, form in enumerate(("without module {}", "module {} alone")):
        for module, nodes in enumerate(plans[side]):
            chance, name = random_nodes(nodes), form.format(module)
            rows[side].append(outcome(study, name, nodes, draw=chance, draws=draws, seed=study.seed, step=step))
            details[side].append(_detail(study, nodes))
            step()
    nothing = {p: np.zeros(len(labels[p]), dtype=bool) for p in inner}
    return ModuleAblation(
        n_modules=count,
        whole=outcome(study, "whole", step=step),
        nothing=outcome(study, "no nodes", nothing, step=step),
        without=tuple(rows[0]),
        alone=tuple(rows[1]),
        outputs=np.array([[d.outputs for d in side] for side in details]),
        classes=np.array([[d.classes for d in side] for side in details]),
        whole_classes=_detail(study, {}).classes,
        losses=np.array([[d.losses for d in side] for side in details]),
        mixing=mixed_modules(study, graph, partition, labels, draws=draws, progress=progress),
        checked=net.checked,
        worst=_worst(study, graph, budget, _plans_by_module(graph, labels, count), draws, progress),
    )


@dataclass(frozen=True)
class _Plan:
    """A worst partial cut to search for: its row's name, what is kept, and random partitions of the same sizes."""

    name: str
    kept: Edges
    random: Draw


def _plans_by_module(graph: InteractionGraph, labels: Sequence[Int[np.ndarray, " _"]], count: int) -> list[_Plan]:
    """Plan a cut of each module from the others; of two modules both are the same."""

    def kept(labels: Sequence[np.ndarray], module: int) -> Edges:
        return {p: (labels[b] == module)[:, None] == (labels[a] == module) for p, (a, b) in enumerate(graph.pairs)}

    def drawn(module: int) -> Draw:
        return lambda generator: ({}, kept([generator.permutation(array) for array in labels], module))

    named = {m: f"worst cut, module {m}" for m in range(count)} if count > 2 else {0: "worst cut"}
    plans = [_Plan(name, kept(labels, m), drawn(m)) for m, name in named.items()]
    return [plan for plan in plans if not all(mask.all() for mask in plan.kept.values())]


def _worst(
    study: Interventions,
    graph: InteractionGraph,
    budget: Budget | None,
    plans: Sequence[_Plan],
    draws: int,
    progress: ProgressCallback | None,
) -> tuple[WorstCut, ...]:
    """Search for the worst partial cuts, and for those of random partitions and edges."""
    if budget is None or not plans:
        return ()
    search = Search(study, graph, budget)
    edges = [matched_edges(plan.kept, graph) for plan in plans]
    total = sum(1 + draws * (1 + (matched is not None)) for matched in edges)
    step = counter("worst cuts", total, progress)
    options: list[dict[str, Any]] = [
        {"beside": "partitions", "random": plan.random, "matched": matched}
        for plan, matched in zip(plans, edges, strict=True)
    ]
    return tuple(
        worst_cut(search, plan.name, plan.kept, draws=draws, step=step, **each)
        for plan, each in zip(plans, options, strict=True)
    )


def link_edges(
    graph: InteractionGraph, labels: Sequence[Int[np.ndarray, " _"]], earlier: int, later: int
) -> dict[int, Bool[np.ndarray, "_ _"]]:
    """Return per pair of cuts the edges by which one module feeds another."""
    return {p: (labels[b] == later)[:, None] & (labels[a] == earlier) for p, (a, b) in enumerate(graph.pairs)}


def _inside(graph: InteractionGraph, labels: Sequence[Int[np.ndarray, " _"]]) -> Edges:
    """Return the edges that stay inside their module."""
    return {p: labels[b][:, None] == labels[a] for p, (a, b) in enumerate(graph.pairs)}


def joined_labels(graph: InteractionGraph, partition: Partition) -> list[Int[np.ndarray, " _"]]:
    """Assign each node of no module to the one with which it shares the largest sum of w^2.

    Raises:
        GraphError: a partition of another graph.

    >>> from ..modules.find_modules import score_partition
    >>> graph = InteractionGraph.from_blocks([[[1.0, 1e-9], [0.0, 1e-8]]])
    >>> part = score_partition(graph, [np.array([0, -1]), np.array([0, -1])], 1e-4)
    >>> [labels.tolist() for labels in joined_labels(graph, part)]
    [[0, 0], [0, 0]]
    """
    require_partition(graph, partition)
    labels = [array.copy() for array in partition.labels]
    for _ in labels:  # a node may depend on one that got its module only now
        votes = [np.zeros((width, max(1, partition.n_modules))) for width in graph.widths]
        for (a, b), block in zip(graph.pairs, graph.matrices, strict=True):
            one = [(array[:, None] == np.arange(votes[0].shape[1])).astype(float) for array in (labels[a], labels[b])]
            votes[a] += (block**2).T @ one[1]
            votes[b] += (block**2) @ one[0]
        for array, vote in zip(labels, votes, strict=True):
            alone = (array < 0) & (vote.sum(1) > 0)
            array[alone] = vote[alone].argmax(1)
    return [np.maximum(array, 0) for array in labels]


def require_partition(graph: InteractionGraph, partition: Partition) -> None:
    """Refuse a partition of another graph.

    Raises:
        GraphError: other cuts, other numbers of nodes, or edges of other strengths.
    """
    widths = tuple(map(len, partition.labels))
    if partition.cuts != graph.cuts or widths != graph.widths:
        raise GraphError(
            f"the partition is of another graph: it has {_nodes(partition.cuts, widths)}, "
            f"the graph has {_nodes(graph.cuts, graph.widths)}"
        )
    here = edge_costs(graph, partition.epsilons).total
    there = partition.edge_cost + sum(module.inner_cost for module in partition.modules)
    if abs(here - there) > _ROUNDING * max(here, there):
        raise GraphError(
            f"the partition is of another graph: the costs of all edges of its graph sum to {there:.6g}, of this graph "
            f"to {here:.6g} at the same loss scale; take its labels to this graph with score_partition"
        )


def _nodes(cuts: Sequence[str], widths: Sequence[int]) -> str:
    return ", ".join(f"{width} nodes at {cut}" for cut, width in zip(cuts, widths, strict=True))


@dataclass(frozen=True)
class _Detail:
    outputs: np.ndarray
    classes: np.ndarray
    losses: np.ndarray


def _detail(study: Interventions, nodes: Nodes) -> _Detail:
    """Compute which outputs, classes and data points suffer."""
    change: Tensor | None = None
    losses, hits = [], []
    for (output, whole, targets), counted in zip(study.outputs(nodes), study.counted, strict=True):
        if study.net.loss == "kl":
            output_, whole_ = output.log_softmax(-1), whole.log_softmax(-1)
        else:
            output_, whole_ = output, whole
        squared = (output_ - whole_).double().square().sum((0, 1))
        change = squared if change is None else change + squared
        losses.append(study.metrics[0].values(output, whole, targets))
        hits.append(class_accuracy(output, targets, counted))
    outputs = (change if change is not None else torch.zeros(0, device="cpu")) / study.n
    return _Detail(outputs.numpy(), _mean_by_class(hits), torch.cat(losses).numpy())


def _mean_by_class(hits: Sequence[tuple[Tensor, Tensor]]) -> Float[np.ndarray, "answers classes"]:
    if len({count.shape for _, count in hits}) > 1:  # batches differ in length: answers are positions
        return np.zeros((0, 0))
    right, count = (torch.stack(parts).sum(0) for parts in zip(*hits, strict=True))
    return np.asarray((right / count).numpy())
