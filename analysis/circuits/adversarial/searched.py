"""The worst partial cut beside random ones that were searched for with the same budget, and what it means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from ...graph.interaction_graph import InteractionGraph
from ...results import by_value
from ..controls import CHANCE, LEVEL, REFUTED, SUPPORTED, Control, Draw, Outcome, Verdict, compared
from ..interventions import Edges, Interventions, Values
from ..metrics import difference, estimate
from .ascent import CORNERS, Budget, steepest_shares

__all__ = ["Search", "WorstCut", "judged_by_worst", "worst_cut"]

_DESTROYED = 0.1  # a cut is destructive from this share of the loss without anything


@by_value
@dataclass(frozen=True)
class WorstCut:
    """The worst partial cut that was found of edges said not to be needed; see `ascent`.

    Attributes:
        edges: number of these edges with a strength above zero.
        steps: numbers of steps of projected gradient ascent from each start.
        step_size: how much the share of each edge moved in a step.
        starts: number of starts: all cut, nearly all kept, and random ones.
        points: number of data points that the ascent used; losses are on all.
        cut: behavioural loss with all of these edges cut.
        losses: behavioural loss after each number of steps, at least `cut`.
        worst: the network under the worst partial cut after the last step; it removes the edges with a share below 1.
            Controls are the worst partial cuts of random draws, found with the same budget.
        beside: what is drawn: "partitions" of the same sizes, or (of "bisect") as many "edges".
        matched: per metric the control of the worst partial cuts of as many random edges of the same strengths, of
            the same budget; empty for "bisect".
        shares: (later, earlier) per pair of cuts, what is kept of each edge: 1 where it is said to be needed.
    """

    edges: int
    steps: tuple[int, ...]
    step_size: float
    starts: int
    points: int
    cut: float
    losses: tuple[float, ...]
    worst: Outcome
    beside: str
    matched: dict[str, Control]
    shares: tuple[Float[np.ndarray, "_ _"], ...]

    @property
    def loss(self) -> str:
        """The name of the behavioural loss."""
        return next(iter(self.worst.values))

    @property
    def random(self) -> Control | None:
        """The worst partial cuts of random partitions, or of random edges where there are no partitions."""
        return self.worst.controls.get(self.loss)

    @property
    def p_value(self) -> float | None:
        """The p-value of "no worse than random"; None where nothing was drawn."""
        return None if self.random is None else self.random.p_value

    def in_words(self) -> str:
        """Say what the worst partial cut does, beside the full cut and random ones."""
        where = self.worst.name.partition(", ")[2]
        said = f"under the worst partial cut found ({self.steps[-1]} steps{f', {where}' if where else ''}) "
        said += f"the network loses {self.losses[-1]:.4g}, with all of these edges cut {self.cut:.4g}"
        matched = self.matched.get(self.loss)
        if self.random is not None:
            said += f"; of random {self.beside} the worst loses {self.random}"
        return said + (f", of as many edges of the same strengths {matched}" if matched else "")


class Search:
    """The search for worst partial cuts on one network, with one budget."""

    def __init__(self, study: Interventions, graph: InteractionGraph, budget: Budget) -> None:
        self.study, self.graph, self.budget = study, graph, budget
        self.few = study.sample(budget.points)
        self._loss = study.metrics[0].name
        self._corners = sum(int((matrix > 0).sum()) for matrix in graph.matrices) <= CORNERS  # the same for all draws

    def find(self, kept: Edges, number: int = 0) -> tuple[tuple[float, ...], Values, Edges]:
        """Find the worst partial cut of all edges that are not kept.

        Args:
            kept: which edges are kept, as booleans.
            number: of the draw, for the seed of its random starts.

        Returns:
            The loss with all of them cut and after each number of steps, all metrics of the worst, and its shares.
        """
        strong = np.concatenate([self.graph.matrices[p][~kept[p]] > 0 for p in sorted(kept)])
        generator = np.random.default_rng((self.study.seed, number))
        values, shares = self.study.measure(edges=kept), {p: mask.astype(float) for p, mask in kept.items()}
        losses = [float(values[self._loss].mean())]
        search = partial(steepest_shares, budget=self.budget, generator=generator, corners=self._corners)
        for found in search(self.few, kept, strong):
            mask, start = {}, 0
            for p in sorted(kept):
                mask[p] = kept[p].astype(float)
                mask[p][~kept[p]] = found[start : (start := start + int((~kept[p]).sum()))]
            measured = self.study.measure(edges=mask)
            if (loss := float(measured[self._loss].mean())) > losses[-1]:
                values, shares = measured, mask
            losses.append(max(loss, losses[-1]))
        return tuple(losses), values, shares

    def means(self, draw: Draw, draws: int, step: Callable[[], None]) -> dict[str, list[float]]:
        """Return per metric its means under the worst partial cuts of random interventions."""
        generator = np.random.default_rng(self.study.seed)
        found: dict[str, list[float]] = {metric.name: [] for metric in self.study.metrics}
        for number in range(1, draws + 1):
            for name, values in self.find(draw(generator)[1], number)[1].items():
                found[name].append(float(values.mean()))
            step()
        return found


def worst_cut(
    search: Search,
    name: str,
    kept: Edges,
    *,
    beside: str,
    random: Draw | None,
    matched: Draw | None = None,
    draws: int = 0,
    step: Callable[[], None] = lambda: None,
) -> WorstCut:
    """Find the worst partial cut of all edges that are not kept, and those of random draws with the same budget.

    Args:
        search: network, graph and budget.
        name: name of the row.
        kept: which edges are kept, as booleans.
        beside: what is drawn, "partitions" or "edges".
        random: draws random partitions of the same sizes, or as many random edges; None where there are none.
        matched: draws as many random edges of the same strengths.
        draws: number of draws of each.
        step: called after each search.
    """
    study, graph, budget = search.study, search.graph, search.budget
    losses, values, shares = search.find(kept)
    step()
    found = {key: estimate(array) for key, array in values.items()}
    controls = [
        compared(study.metrics, found, search.means(draw, draws, step)) if draw is not None and draws else {}
        for draw in (random, matched)
    ]
    blocks = graph.matrices
    worst = Outcome(
        name,
        sum(int((blocks[p][mask < 1] > 0).sum()) for p, mask in shares.items()),
        found,
        {key: difference(array, study.whole[key]) for key, array in values.items()},
        controls[0],
    )
    return WorstCut(
        edges=sum(int((blocks[p][~mask] > 0).sum()) for p, mask in kept.items()),
        steps=budget.steps,
        step_size=budget.step_size,
        starts=budget.starts,
        points=search.few.n,
        cut=losses[0],
        losses=losses[1:],
        worst=worst,
        beside=beside,
        matched=controls[1],
        shares=tuple(shares[p] if p in shares else np.ones(block.shape) for p, block in enumerate(blocks)),
    )


def judged_by_worst(found: Verdict | None, worst: Sequence[WorstCut], everything: float) -> Verdict | None:
    """Add to a verdict what the worst partial cut does.

    The hypothesis is refuted where the worst cut loses at least 10 % of everything, and no less than the worst of as
    many random edges of the same strengths; it is not supported where random partitions (of "bisect" random edges) do
    as well too often. Too few draws for a p-value below .05, none of which does as well, change no verdict.

    Args:
        found: the verdict without it.
        worst: the worst partial cuts; the one with the largest p-value, then the largest loss, counts.
        everything: behavioural loss without any edge or node.
    """
    if found is None or not worst:
        return found
    chosen = max(worst, key=lambda each: (each.p_value or 0.0, each.losses[-1]))
    for each in worst:
        beside = each.matched.get(each.loss)
        if beside is not None and each.losses[-1] >= max(_DESTROYED * everything, beside.value):
            lost = f"{each.in_words()}; without anything it loses {everything:.4g}"
            return Verdict(REFUTED, f"{lost}. Otherwise {found.verdict}: {found.reason}")
    least = 0.0 if chosen.random is None else 1 / (1 + chosen.random.draws)
    if found.verdict == SUPPORTED and (chosen.p_value or 0.0) >= max(LEVEL, least * (1 + 1e-9)):
        return Verdict(CHANCE, f"{chosen.in_words()}. Otherwise {found.verdict}: {found.reason}")
    return Verdict(found.verdict, f"{found.reason}; {chosen.in_words()}")
