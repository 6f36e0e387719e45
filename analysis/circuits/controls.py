"""The effect of an intervention compared with random interventions of the same size: one row of every experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from ..graph.interaction_graph import InteractionGraph
from .interventions import Edges, Interventions, Nodes
from .metrics import Estimate, Metric, difference, estimate

__all__ = [
    "CHANCE",
    "LEVEL",
    "REFUTED",
    "SUPPORTED",
    "Control",
    "Draw",
    "Judged",
    "Outcome",
    "Verdict",
    "against_chance",
    "compared",
    "control",
    "matched_edges",
    "outcome",
    "random_edges",
    "random_nodes",
]

SUPPORTED, CHANCE, REFUTED = "supported", "not told apart from chance", "refuted"

"""Possible verdicts of an experiment on its hypothesis."""

LEVEL = 0.05

"""A hypothesis is supported by a p-value below this."""

_ENOUGH = 20  # least number of draws with which p can be below LEVEL

Draw: TypeAlias = Callable[[np.random.Generator], tuple[Nodes, Edges]]

"""Draws a random intervention of the same size: the nodes and the edges that it keeps."""


@dataclass(frozen=True)
class Verdict:
    """The verdict of an experiment on its hypothesis, and the reason.

    Attributes:
        verdict: "supported", "not told apart from chance" or "refuted".
        reason: one sentence.
    """

    verdict: str
    reason: str


class Judged:
    """A result with a verdict on its hypothesis and a reason."""

    def judge(self) -> Verdict | None:
        """Return verdict and reason; None for a result of an earlier version that lacks the data for it."""
        raise NotImplementedError

    @property
    def verdict(self) -> str | None:
        """The verdict, see `Verdict`; None for a result of an earlier version that lacks the data for it."""
        return None if (found := self.judge()) is None else found.verdict

    @property
    def reason(self) -> str | None:
        """The reason for the verdict."""
        return None if (found := self.judge()) is None else found.reason


def against_chance(p_value: float | None, draws: int, better: str, worse: str) -> Verdict:
    """Judge where random interventions of the same size are the only control.

    The hypothesis is refuted if the real intervention does no better than half of them.

    Args:
        p_value: p-value of "no better than random"; None where nothing was drawn.
        draws: number of draws.
        better: the finding if p is small.
        worse: the finding otherwise.

    >>> against_chance(0.25, 3, "better", "not better").reason
    'not better (p 0.25; 3 draws cannot give less than 0.25, 20 can give 0.048)'
    """
    if p_value is None:
        return Verdict(CHANCE, "nothing was drawn at random to compare with")
    if p_value < LEVEL:
        return Verdict(SUPPORTED, f"{better} (p {p_value:.2g})")
    few = f"; {draws} draws cannot give less than {1 / (1 + draws):.2g}, {_ENOUGH} can give 0.048"
    return Verdict(REFUTED if p_value > 0.5 else CHANCE, f"{worse} (p {p_value:.2g}{few if draws < _ENOUGH else ''})")


@dataclass(frozen=True)
class Control:
    """Random interventions of the same size.

    Attributes:
        value, spread: mean and standard deviation of the metric over the draws.
        draws: number of draws.
        p_value: (1 + draws that do at least as well) / (1 + draws), of "no better than random".
    """

    value: float
    spread: float
    draws: int
    p_value: float

    def __str__(self) -> str:
        return f"{Estimate(self.value, self.spread)} ({self.draws} draws, p {self.p_value:.2g})"


@dataclass(frozen=True)
class Outcome:
    """The effect of an intervention.

    Attributes:
        name: name of the intervention.
        removed: nodes, or edges with a strength above zero, that it ablates.
        values: every metric, mean over data points with its standard error.
        changes: change of every metric from the whole network, at the same data points.
        controls: random interventions of the same size, per metric; empty where there are none.
    """

    name: str
    removed: int
    values: dict[str, Estimate]
    changes: dict[str, Estimate]
    controls: dict[str, Control] = field(default_factory=dict)


def outcome(
    study: Interventions,
    name: str,
    nodes: Nodes | None = None,
    edges: Edges | None = None,
    *,
    graph: InteractionGraph | None = None,
    draw: Draw | None = None,
    draws: int = 0,
    seed: int = 0,
    step: Callable[[], None] = lambda: None,
) -> Outcome:
    """Measure an intervention, and as many random ones as requested.

    Args:
        study: the network and its data.
        name: name of the row.
        nodes: nodes that are kept, as in `Interventions.measure`.
        edges: edges that are kept.
        graph: needed with edges, to count those with a strength above zero.
        draw: draws a random intervention of the same size; None where there is none.
        draws: number of draws.
        seed: seed of the draws.
        step: called after each measurement.
    """
    values = study.measure(nodes, edges)
    step()
    found = {key: estimate(array) for key, array in values.items()}
    return Outcome(
        name,
        count_removed(nodes or {}) + (count_cut(edges, graph) if edges and graph is not None else 0),
        found,
        {key: difference(array, study.whole[key]) for key, array in values.items()},
        control(study, found, draw, draws, seed, step),
    )


def control(
    study: Interventions,
    found: Mapping[str, Estimate],
    draw: Draw | None,
    draws: int,
    seed: int,
    step: Callable[[], None] = lambda: None,
) -> dict[str, Control]:
    """Summarise per metric the random interventions, compared with the real one; empty where none is drawn."""
    if draw is None or not draws:
        return {}
    generator = np.random.default_rng(seed)
    random: dict[str, list[float]] = {key: [] for key in found}
    for _ in range(draws):
        for key, array in study.measure(*draw(generator)).items():
            random[key].append(float(array.mean()))
        step()
    return compared(study.metrics, found, random)


def compared(
    metrics: Sequence[Metric], found: Mapping[str, Estimate], random: Mapping[str, Sequence[float]]
) -> dict[str, Control]:
    """Summarise per metric its means in random interventions, compared with the real one.

    >>> from .metrics import METRICS
    >>> found = compared([METRICS["accuracy"]], {"accuracy": Estimate(0.9, 0.01)}, {"accuracy": [0.2, 0.4, 0.95]})
    >>> found["accuracy"].p_value
    0.5
    """
    beside = {}
    for metric in metrics:
        drawn, limit = random[metric.name], metric.loss(found[metric.name].value)
        as_good = sum(metric.loss(value) <= limit for value in drawn)
        spread = stdev(drawn) if len(drawn) > 1 else 0.0
        beside[metric.name] = Control(fmean(drawn), spread, len(drawn), (1 + as_good) / (1 + len(drawn)))
    return beside


def count_removed(nodes: Nodes) -> int:
    """Count the nodes that masks remove."""
    return sum(int((~mask).sum()) for mask in nodes.values())


def count_cut(edges: Edges, graph: InteractionGraph) -> int:
    """Count the edges with a strength above zero that masks remove."""
    return sum(int((graph.matrices[p][~mask] > 0).sum()) for p, mask in edges.items())


def random_nodes(nodes: Nodes) -> Draw | None:
    """Draw as many nodes of each cut at random; None where all or none of each are kept."""
    groups = {p: np.zeros(mask.shape) for p, mask in nodes.items()}
    return None if _fixed(nodes, groups) else lambda generator: (_shuffled(nodes, groups, generator), {})


def random_edges(edges: Edges, graph: InteractionGraph) -> Draw | None:
    """Draw as many edges above zero of each pair of cuts at random; None where all or none are kept."""
    groups = {p: np.where(graph.matrices[p] > 0, 0.0, np.nan) for p in edges}
    return None if _fixed(edges, groups) else lambda generator: ({}, _shuffled(edges, groups, generator))


def matched_edges(edges: Edges, graph: InteractionGraph) -> Draw | None:
    """Draw as many edges of each pair of cuts and each octave of strength (w within a factor of 2) at random.

    Return None where all or none of each are kept.
    """
    groups = {p: _octaves(graph.matrices[p]) for p in edges}
    return None if _fixed(edges, groups) else lambda generator: ({}, _shuffled(edges, groups, generator))


def _fixed(masks: Mapping[int, np.ndarray], groups: Mapping[int, np.ndarray]) -> bool:
    """Return whether all or none of each group are kept; entries of NaN or -inf belong to no group."""
    return not any(
        mask[inside].any() and not mask[inside].all()
        for p, mask in masks.items()
        for inside in (groups[p] == group for group in np.unique(groups[p][np.isfinite(groups[p])]))
    )


def _shuffled(
    masks: Mapping[int, np.ndarray], groups: Mapping[int, np.ndarray], generator: np.random.Generator
) -> dict[int, np.ndarray]:
    """Draw masks with as many kept in each group; entries in no group stay as they are."""
    drawn = {}
    for p, mask in masks.items():
        drawn[p] = mask.copy()
        for group in np.unique(groups[p][~np.isnan(groups[p])]):
            inside = groups[p] == group
            drawn[p][inside] = generator.permutation(mask[inside])
    return drawn


def _octaves(strengths: Float[np.ndarray, "j k"]) -> Float[np.ndarray, "j k"]:
    """Compute log2 of the strengths, rounded down."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.floor(np.log2(strengths)))
