"""Choose the resolution: a profile over a grid of resolutions, compared with null graphs, and the rule of choice.

For each objective and resolution the graph and every null graph (`graph.degree_preserving_null`) are searched
with the same effort. With gap = quality - mean null quality, the statistic of a row is z = gap / (sd + median sd over
the rows), sd that of the null qualities in the row (the median avoids a division by zero in rows where no null graph
splits). The rule:

1. A row is significant when its z exceeds the largest z of every null graph, and their mean by 3 standard deviations,
   and z times contrast exceeds 1.5 (the first two alone are a threshold that varies with the seed), and its modules
   are also separated beyond chains and skip paths (`beyond_chains`). If there is no such row: one module.
2. Satellites are joined. On graphs whose strengths spread over decades both objectives split off single weak nodes;
   a module is kept only if it is separated from the rest by more than chance, (mu - e) / sqrt(mu E[x^2] / E[x]) >= 2,
   with e its cost to the rest and mu = the sum of k_i k_j / m expected (a quasi-Poisson standard deviation). The
   least separated one joins the module with which it exchanges most loss (sum of w^2, edges below the cutoff
   included), until all are. A module must also be separated, by 1 standard deviation, beyond chains: a node that is
   the same quantity at several cuts is no module, however little its separation costs. If fewer than two modules are,
   all stay, and point 1 refuses them as chains.
3. The number of modules is that of the significant row with the largest gap times contrast squared; where edges skip
   cuts (`graph.expectation`) that of the largest gap, and z times contrast has no least value: such graphs are dense,
   and contrasts of .4 to .5 are clear.
4. Among significant rows with this number, the one with the largest product of agreement with the others (mean AMI) and
   root of the gap is taken.

Mean agreement with the truth (in brackets the best row of the grid, chosen with knowledge of the truth).
Planted graphs: balanced, bridges, 12 and 25 modules .92 to 1.0 (the same to .01), hubs .94 to .96 (.97 to .99),
unbalanced .98 (1.0). 60 trained networks of three weight decays, epsilon from the graph: two digits .94 (.97), three
digits .98 (.99), digit and parity .96 (.99); sum of the digits: one module in all 20. By the largest gap alone
networks lose .02 to .4, by the largest contrast or the least description length up to 1.0 (the latter answers "one
module" for digit and parity).
In point 2, three standard deviations dissolve small true modules and one leaves satellites. Beyond chains, in 27 MLPs
that name two digits (cuts before and after each activation), chains had at most .8 standard deviations, the two
modules at least 5, and the smallest true modules of other networks 1.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..compiled import in_order
from ..graph.null_graphs import null_costs
from ..graph.quotient import contrast_of
from ..progress import ProgressCallback, report
from ..results import by_value
from ..search.local_search import Effort, Found, Search
from ..search.objectives import LAYERED, checked_resolution, find_objective
from .beyond_chains import BeyondChains
from .evidence import description_length
from .partition import ProfileRow
from .satellites import join_satellites
from .tail import tail_p_value

__all__ = ["Profile", "profile", "resolutions"]


# For layered_cpm and cpm in units of the mean cost per pair of nodes.
_FACTORS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)

_JOINT_FACTORS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0)  # where edges skip cuts

_SIGNIFICANT = 3.0

_LEAST = 1.5  # z times contrast


@by_value
@dataclass(frozen=True)
class Profile:
    """All rows with their flat labels, and the choice that the rule makes.

    Attributes:
        rows: one per resolution.
        labels: of each row, 0, 1, ...
        joined: whether satellites were joined.
        row: index of the chosen row; if none is significant, of the row with the largest z.
        significant: whether the chosen row is significant.
        p_value: (1 + null graphs whose largest z is at or above the graph's) / (1 + null graphs), or that of the chosen
            row beyond chains if that is larger; None without null graphs.
        chains: whether a division that null graphs do not explain was refused because of its contrast beyond chains.
        tail_p: estimate of the p-value beyond the ranks, see `tail`; None where it is not known.
        levels: index of a row for each number of modules among significant rows, fewest first.
        runs: labels of the independent runs if only one resolution was tried.
    """

    rows: tuple[ProfileRow, ...]
    labels: tuple[Int[np.ndarray, " n"], ...]
    joined: bool
    row: int = 0
    significant: bool = False
    p_value: float | None = None
    tail_p: float | None = None
    levels: tuple[int, ...] = ()
    runs: tuple[Int[np.ndarray, " n"], ...] = ()
    chains: bool = False


def resolutions(search: Search, objective: str | None, resolution: float | None) -> list[tuple[str, float]]:
    """List the (objective, resolution) to try."""
    names = LAYERED if objective is None else (find_objective(objective).name,)
    if objective is None and search.places.joint:
        names = ("layered_modularity",)
    if resolution is not None or (objective is not None and find_objective(objective).fixed):
        return [("layered_modularity" if objective is None else objective, checked_resolution(resolution or 0.0))]
    total = search.costs.total
    units = {
        "layered_cpm": total / sum((a.stop - a.start) * (b.stop - b.start) for a, b in search.pairs),
        "cpm": 2.0 * total / max(search.n * (search.n - 1), 1),
    }
    factors = _JOINT_FACTORS if objective is None and search.places.joint else _FACTORS
    return [(name, factor * units.get(name, 1.0)) for name in names for factor in factors]


def profile(
    search: Search,
    grid: Sequence[tuple[str, float]],
    *,
    n_null: int,
    effort: Effort,
    generator: np.random.Generator,
    backend: str,
    start: Int[np.ndarray, " n"] | None,
    join: bool,
    beyond: BeyondChains | None,
    progress: ProgressCallback | None,
) -> Profile:
    """Search the graph and null graphs at every resolution, and choose by the rule at the head of this module."""
    of_nulls = effort if start is None else replace(effort, restarts=effort.restarts + 1)  # as many runs as the graph

    def searched(drawn: tuple[int, np.random.Generator]) -> list[Found]:
        """Search the graph, number 0, or a null graph at every resolution."""
        k, own = drawn
        costs = null_costs(search.costs, search.places, generator=own) if k else search.costs
        options: dict[str, Any] = {"generator": own, "backend": backend}
        options |= {"effort": of_nulls} if k else {"effort": effort, "start": start}
        wired = search.wired(costs)
        charged = {name: search.charged(wired, costs, name) for name in {name for name, _ in grid}}
        found = [search.best(wired, costs, *point, charged=charged[point[0]], **options) for point in grid]
        return [replace(best, labels=best.labels[:0], runs=()) for best in found] if k else found

    graphs = list(enumerate(generator.spawn(1 + n_null)))
    with closing(in_order(searched, graphs, search.threads)) as results:
        every = list(report(results, "modules", progress, len(graphs)))
    qualities = np.array([[best.value for best in found] for found in every]).T
    labels = [_settled(search, best.labels, join, beyond) for best in every[0]]
    runs = [_settled(search, run, join, beyond) for run in every[0][-1].runs]
    rows = [_row(search, *point, qualities[k], labels[k]) for k, point in enumerate(grid)]
    found = Profile(tuple(rows), tuple(labels), join, runs=tuple(runs) if len(grid) == 1 else ())
    return _chosen(found, qualities, beyond, search.places.joint) if n_null else found


def _settled(search: Search, labels: np.ndarray, join: bool, beyond: BeyondChains | None) -> np.ndarray:
    return join_satellites(search, labels, beyond) if join else np.unique(labels, return_inverse=True)[1]


def _row(search: Search, objective: str, resolution: float, qualities: np.ndarray, labels: np.ndarray) -> ProfileRow:
    sums = search.between(search.costs, labels)
    inner = float(np.trace(sums))
    cost = max(0.0, float(sums.sum()) - inner)
    real, nulls = float(qualities[0]), qualities[1:]
    mean, sd = (float(nulls.mean()), float(nulls.std(ddof=1))) if len(nulls) else (None, None)
    return ProfileRow(
        objective=objective,
        resolution=resolution,
        n_modules=len(sums),
        quality=real,
        null_mean=mean,
        null_sd=sd,
        z=None,
        gap=None if mean is None else real - mean,
        edge_cost=cost,
        contrast=contrast_of(sums, search.expected(search.costs, labels)),
        description_length=description_length(search, labels),
        significant=None,
    )


def _chosen(
    found: Profile, qualities: Float[np.ndarray, "rows graphs"], beyond: BeyondChains | None, joint: bool
) -> Profile:
    """Apply the rule, and return the profile with the choice."""
    real, nulls = qualities[:, 0], qualities[:, 1:]
    count = nulls.shape[1]
    tiny = 1e-9 * (1.0 + np.abs(qualities).max())

    def standardised(values: np.ndarray, against: np.ndarray) -> np.ndarray:
        sd = against.std(axis=1, ddof=1)
        return np.asarray((values - against.mean(axis=1)) / (sd + np.median(sd) + tiny))

    z = standardised(real, nulls)
    null_z = np.array([standardised(nulls[:, b], np.delete(nulls, b, axis=1)).max() for b in range(count)])
    p_value = (1 + int((null_z >= z.max()).sum())) / (1 + count)
    threshold = max(null_z.mean() + _SIGNIFICANT * null_z.std(ddof=1), null_z.max())
    gap = real - nulls.mean(axis=1)
    contrast = np.array([row.contrast for row in found.rows])
    clear = (z > threshold) & (z * contrast > (0.0 if joint else _LEAST)) & (gap > 10 * tiny)
    explained = ~clear
    tests = [(None, 0.0)] * len(found.rows) if beyond is None else beyond.tests(found.labels)
    apart = np.array([True if beyond is None or c is None else beyond.supports(c, p) for c, p in tests])
    significant = ~explained & apart
    rows = tuple(
        replace(row, z=float(z[k]), significant=bool(significant[k]), beyond_chains=tests[k][0])
        for k, row in enumerate(found.rows)
    )
    counts = np.array([row.n_modules for row in rows])
    levels = tuple(
        _medoid(found.labels, np.flatnonzero(significant & (counts == k)), gap)
        for k in sorted(set(counts[significant].tolist()) - {1})
    )
    wanted = counts[np.where(significant, gap if joint else gap * contrast**2, -np.inf).argmax()]
    chosen = [level for level in levels if counts[level] == wanted]
    row = chosen[0] if chosen else int(z.argmax())
    return replace(
        found,
        rows=rows,
        row=row,
        significant=bool(chosen),
        p_value=max(p_value, tests[row][1]) if counts[row] > 1 else p_value,
        tail_p=tail_p_value(float(z.max()), null_z) if chosen else None,
        levels=levels,
        chains=bool((~explained & ~apart & (counts > 1)).any()),
    )


def _medoid(labels: Sequence[np.ndarray], rows: np.ndarray, gap: np.ndarray) -> int:
    """Return the row with the largest product of its mean AMI with all others and the root of its gap."""
    from sklearn.metrics import adjusted_mutual_info_score  # takes a second

    agreement = [np.mean([adjusted_mutual_info_score(labels[i], labels[j]) for j in rows]) for i in rows]
    return int(rows[np.argmax(np.array(agreement) * np.sqrt(gap[rows]))])
