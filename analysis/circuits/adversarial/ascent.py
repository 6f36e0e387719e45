"""Projected gradient ascent on the behavioural loss, over how much of each edge is kept.

An edge i -> j with share m in [0, 1] lets node j see m f_i + (1 - m) r_i, with r what replaces f. One share per edge
holds for all data points and positions: edges are said not to be needed once and for all, and a share per data point
would be another circuit for each. (Parameter decomposition is evaluated so, too, with `mask_scope`
"shared_across_batch" of goodfire-ai/param-decomp; the signed steps of a constant size are those used there.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...errors import InputError
from ..interventions import Edges, Interventions

__all__ = ["CORNERS", "POINTS", "RESTARTS", "STEPS", "STEP_SIZE", "Budget", "steepest_shares"]

STEPS = (20, 80)

"""Default numbers of steps after which the worst mask so far is reported."""

STEP_SIZE = 0.1

"""Default size of a step: each share moves by as much, up or down."""

RESTARTS = 1

"""Default number of starts at random shares, beside all edges cut and nearly all kept."""

POINTS = 1024

"""Default number of data points that the ascent uses."""

CORNERS = 12  # in graphs with so many edges or fewer all corners of a cut are tried, too

_NOISE = 1e-12  # slopes below this share of the largest are rounding


@dataclass(frozen=True)
class Budget:
    """What is spent on the search for the worst partial cut, the same for what is found and for every random draw.

    Attributes:
        steps: numbers of steps after which the worst so far is reported, ascending; each start takes the last.
        step_size: how much each share moves in a step.
        restarts: starts at random shares, beside all edges cut and nearly all kept.
        points: the most data points that the ascent uses, drawn with the seed; losses are reported on all.

    Raises:
        InputError: no steps, steps that do not ascend from 1, or another number out of range.

    >>> Budget().steps
    (20, 80)
    """

    steps: tuple[int, ...] = STEPS
    step_size: float = STEP_SIZE
    restarts: int = RESTARTS
    points: int = POINTS

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 1 or list(self.steps) != sorted(set(self.steps)):
            raise InputError(f"adversarial is {self.steps}: expected numbers of steps that ascend, like (20, 80)")
        if not 0 < self.step_size <= 1:
            raise InputError(f"step_size is {self.step_size}: expected a number above 0, at most 1")
        if self.restarts < 0 or self.points < 1:
            raise InputError(f"restarts {self.restarts} and points {self.points}: expected at least 0 and 1")

    @classmethod
    def of(cls, adversarial: int | Sequence[int] | None) -> Budget | None:
        """Return the budget of so many steps, or numbers of steps; None for None.

        >>> Budget.of(40).steps, Budget.of([20, 80]).steps, Budget.of(None)
        ((40,), (20, 80), None)
        """
        if adversarial is None:
            return None
        whole = isinstance(adversarial, int | np.integer)
        return cls((int(adversarial),) if whole else tuple(map(int, adversarial)))  # type: ignore[arg-type]

    @property
    def starts(self) -> int:
        """The number of starts."""
        return 2 + self.restarts


def steepest_shares(
    study: Interventions,
    kept: Edges,
    strong: Bool[np.ndarray, " edges"],
    *,
    budget: Budget,
    generator: np.random.Generator,
    corners: bool = False,
) -> list[Float[np.ndarray, " edges"]]:
    """Find the shares of the edges that are not kept with the largest behavioural loss, after each number of steps.

    m <- clip(m + step_size sign(dL/dm), 0, 1) from all cut (m = 0), from nearly all kept (at m = 1 the loss has its
    minimum, and no slope), and from random shares. The best shares of all steps and starts so far are kept, so that, on
    the data points of the ascent, the loss never falls with more steps and is at least that of cutting all edges. It
    may have several maxima: with `corners` all corners of the strong edges are tried, too.

    Args:
        study: the network and the data points of the ascent.
        kept: which edges are kept, as booleans.
        strong: which of the others have a strength above zero, pair after pair and row after row.
        budget: steps, step size and restarts.
        generator: of the random starts.
        corners: whether all 2^k corners of the k strong edges are tried, too.
    """
    best = [(-np.inf, np.zeros(len(strong)))] * len(budget.steps)

    def note(loss: float, shares: np.ndarray, steps: int) -> None:
        for i, limit in enumerate(budget.steps):
            if steps <= limit and loss > best[i][0]:
                best[i] = loss, shares

    if corners and strong.any():
        for corner in product((0.0, 1.0), repeat=int(strong.sum())):
            shares = np.zeros(len(strong))
            shares[strong] = corner
            note(_loss(study, kept, shares), shares, 0)
    for shares in _starts(len(strong), budget, generator):
        here = shares
        for step in range(budget.steps[-1] + 1):
            loss, slope = _slope(study, kept, here)
            note(loss, here, step)
            there = np.clip(here + budget.step_size * slope, 0.0, 1.0)
            if np.array_equal(there, here):
                break
            here = there
    return [shares for _, shares in best]


def _starts(size: int, budget: Budget, generator: np.random.Generator) -> Iterator[Float[np.ndarray, " edges"]]:
    yield np.zeros(size)
    yield 1 - budget.step_size * generator.random(size)
    for _ in range(budget.restarts):
        yield generator.random(size)


def _loss(study: Interventions, kept: Edges, shares: Float[np.ndarray, " edges"]) -> float:
    with torch.no_grad():
        return sum(float(part) for part in study.partial_losses(kept, torch.from_numpy(shares))) / study.n


def _slope(
    study: Interventions, kept: Edges, shares: Float[np.ndarray, " edges"]
) -> tuple[float, Float[np.ndarray, " edges"]]:
    """Compute the loss and the signs of its slopes, 0 for rounding."""
    total, slope = 0.0, torch.zeros(len(shares), dtype=torch.float64, device="cpu")
    with torch.inference_mode(False), torch.enable_grad():
        given: Tensor = torch.tensor(shares, device="cpu", requires_grad=True)
        for part in study.partial_losses(kept, given):
            total += float(part.detach())
            slope += torch.autograd.grad(part, given)[0]
    signs = torch.where(slope.abs() > _NOISE * slope.abs().amax(), slope.sign(), 0.0) if len(shares) else slope
    return total / study.n, signs.numpy()
