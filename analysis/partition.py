"""Modules: the division of an interaction graph that an objective prefers, or one where chance explains it.

Choice of the resolution (`find_modules` without one): the same search, with as many restarts, runs on
`cost.degree_preserving_null` graphs. With gap = quality - mean null quality, the statistic of a row of the
profile is z = gap / (sd + median sd over the rows), sd that of the null qualities at the row's resolution
(the median keeps rows where no null graph splits from dividing by nothing). Rows count as significant when z
exceeds the mean of the null graphs' own largest z by 3 of its standard deviations; of these the largest gap
is taken, and none means one module.

Crumbs: on graphs whose strengths spread over decades both objectives split off single weak nodes. A module
is kept only if it is separated from the rest by more than chance, (mu - e) / sqrt(mu E[x^2] / E[x]) >= 3,
with e its cost to the rest and mu = the sum of k_i k_j / m expected (a quasi-Poisson standard deviation).
The least separated one joins the module with which it exchanges most loss (sum of w^2, edges below the
cutoff included), until all are. On planted graphs this removed the crumbs (29 modules found to the 2
planted) and kept 12 small planted modules apart.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from .cost import (
    OBJECTIVES,
    Labels,
    checked_labels,
    contrast,
    degree_preserving_null,
    edge_cost,
    graph_costs,
    inner_costs,
    mediator_cost,
    normalised,
    outer_costs,
    pair_gains,
    quality,
)
from .errors import GraphError
from .files import decode, encode, read_bytes, write_bytes
from .graph import InteractionGraph
from .progress import ProgressCallback, report
from .search import Search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Module", "Partition", "ProfileRow", "default_epsilon", "find_modules", "score_partition"]

_RELATIVE_CUTOFF = 1e-2  # default sqrt(epsilon) / strongest strength
# Resolutions tried; for layered_cpm in units of the mean cost per pair of nodes.
_FACTORS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
_NULLS = 20
_MIN_NULLS = 4
_SIGNIFICANT = 3.0


@dataclass(frozen=True)
class Module:
    """One module.

    Attributes:
        index: its label; modules are numbered by descending size, ties by their first node.
        size: number of nodes.
        cuts: names of the cuts in which it has nodes.
        sizes: number of nodes at each cut of the graph.
        inner_cost, outer_cost: sum of c(w) over the edges inside it, and between it and other modules.
    """

    index: int
    size: int
    cuts: tuple[str, ...]
    sizes: tuple[int, ...]
    inner_cost: float
    outer_cost: float


@dataclass(frozen=True)
class ProfileRow:
    """One resolution that was tried; null fields are None where no null graph was searched.

    `quality` is that of the search, `n_modules` and `edge_cost` are counted after joining crumbs.
    """

    objective: str
    resolution: float
    n_modules: int
    quality: float
    null_mean: float | None
    null_sd: float | None
    z: float | None
    gap: float | None
    edge_cost: float


@dataclass(frozen=True, repr=False)
class Partition:
    """Modules of an interaction graph, with what they cost.

    Attributes:
        cuts: names of the cuts.
        labels: one int array per cut; -1: no edge above the cutoff, hence in no module.
        n_modules: number of modules.
        edge_cost, mediator_cost: interactions between modules, sums of c(w) (see `cost`).
        normalised_cost: edge_cost / log(full_strength / sqrt(epsilon)), in full-strength connections; None
            where sqrt(epsilon) is not below full_strength.
        full_strength: 1 (the paper's formula) for a given epsilon, the graph's strongest strength for the
            default.
        quality, objective, resolution: value of the objective, its name and resolution.
        epsilon: loss scale; edges are strengths above its square root.
        contrast: 1 - edge_cost / its expectation by chance for these labels.
        p_value: of "no more modular than the null graphs", (1 + null graphs at or above) / (1 + null
            graphs), for the largest z over the profile; None where no null graph was searched, and for one
            module, which claims no division.
        modules: one `Module` per label.
        profile: every resolution tried.
        seed: of the search.
        description_length, stability, hierarchy: not computed in this version, None.
    """

    cuts: tuple[str, ...]
    labels: tuple[Int[np.ndarray, " _"], ...]
    n_modules: int
    edge_cost: float
    mediator_cost: float
    normalised_cost: float | None
    full_strength: float
    quality: float
    objective: str
    resolution: float
    epsilon: float
    contrast: float
    modules: tuple[Module, ...]
    seed: int
    p_value: float | None = None
    profile: tuple[ProfileRow, ...] = ()
    description_length: float | None = None
    stability: float | None = None
    hierarchy: tuple[Any, ...] | None = None

    def __repr__(self) -> str:
        """The main numbers and one line per module."""
        p = "" if self.p_value is None else f", p = {self.p_value:.3g}"
        count = f"{self.n_modules} module{'' if self.n_modules == 1 else 's'}"
        head = (
            f"Partition: {count}, edge cost {self.edge_cost:.4g}, contrast {self.contrast:.3f}{p} "
            f"({self.objective}, resolution {self.resolution:.3g}, epsilon {self.epsilon:.3g})"
        )
        shown = [
            f"  {m.index}: {m.size} nodes {m.sizes}, inner cost {m.inner_cost:.4g}, outer {m.outer_cost:.4g}"
            for m in self.modules[:12]
        ]
        rest = self.n_modules - len(shown)
        return "\n".join([head, *shown, *([f"  ... {rest} more"] if rest else [])])

    def plot(self) -> Figure:
        """Figure of module membership by cut and coordinate; see `plots.plot_membership`."""
        from .plots import plot_membership

        return plot_membership(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the partition to one safetensors file."""
        write_bytes(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Partition:
        """Read a partition written by `save`."""
        return cls.from_bytes(read_bytes(path))

    def to_bytes(self) -> bytes:
        """The content of the file that `save` writes."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "labels"}
        values["modules"] = [asdict(m) for m in self.modules]
        values["profile"] = [asdict(row) for row in self.profile]
        return encode("partition", {f"labels.{i}": a for i, a in enumerate(self.labels)}, values)

    @classmethod
    def from_bytes(cls, data: bytes) -> Partition:
        """Rebuild a partition from `to_bytes`."""
        arrays, meta = decode("partition", data)
        values = {f.name: meta[f.name] for f in fields(cls) if f.name != "labels"}
        values["cuts"] = tuple(meta["cuts"])
        values["modules"] = tuple(
            Module(**{**m, "cuts": tuple(m["cuts"]), "sizes": tuple(m["sizes"])}) for m in meta["modules"]
        )
        values["profile"] = tuple(ProfileRow(**row) for row in meta["profile"])
        return cls(labels=tuple(arrays[f"labels.{i}"] for i in range(len(values["cuts"]))), **values)


def default_epsilon(graph: InteractionGraph) -> float:
    """(strongest strength / 100)^2: keeps interactions over two decades of strength.

    Strengths times s give epsilon times s^2, and the same edges.

    >>> round(default_epsilon(InteractionGraph.from_blocks([[[5.0]]])), 12)
    0.0025

    Raises:
        GraphError: all strengths are 0.
    """
    strongest = _strongest(graph)
    if strongest == 0:
        raise GraphError("all strengths of the graph are 0: there is no interaction to divide into modules")
    return (_RELATIVE_CUTOFF * strongest) ** 2


def score_partition(
    graph: InteractionGraph,
    labels: Sequence[Any],
    epsilon: float | None = None,
    *,
    objective: str = "layered_modularity",
    resolution: float = 1.0,
    seed: int = 0,
) -> Partition:
    """What given labels cost; modules are renumbered by size.

    Raises:
        GraphError: labels, epsilon, objective or resolution that make no sense, or no edge above the cutoff.

    >>> graph = InteractionGraph.from_blocks([np.eye(2) + 0.1 * np.eye(2)[::-1]])
    >>> score_partition(graph, [np.array([0, 1]), np.array([0, 1])], 1e-4).normalised_cost
    1.0
    """
    full_strength = 1.0 if epsilon is not None else _strongest(graph)
    epsilon = _checked_epsilon(graph, epsilon)
    numbered = _renumbered(checked_labels(graph, labels, epsilon))
    cost = edge_cost(graph, numbered, epsilon)
    modules = _modules(graph, numbered, epsilon)
    return Partition(
        cuts=graph.cuts,
        labels=numbered,
        n_modules=len(modules),
        edge_cost=cost,
        mediator_cost=mediator_cost(graph, numbered, epsilon),
        normalised_cost=normalised(cost, epsilon, full_strength) if epsilon < full_strength**2 else None,
        full_strength=full_strength,
        quality=quality(graph, numbered, epsilon, objective=objective, resolution=resolution),
        objective=objective,
        resolution=float(resolution),
        epsilon=epsilon,
        contrast=contrast(graph, numbered, epsilon),
        modules=modules,
        seed=seed,
    )


def find_modules(
    graph: InteractionGraph,
    *,
    epsilon: float | None = None,
    objective: str | None = None,
    resolution: float | None = None,
    seed: int = 0,
    n_null: int | None = None,
    restarts: int = 2,
    backend: str = "igraph",
    progress: ProgressCallback | None = None,
) -> Partition:
    """Divide a graph into modules; one module where it is not more modular than chance.

    Args:
        graph: the strengths.
        epsilon: loss scale; default `default_epsilon`.
        objective: "layered_cpm" or "layered_modularity"; default: both are tried where the resolution is
            chosen, layered_modularity where it is given.
        resolution: given: the best partition found at that resolution, as the objective has it; default:
            chosen by the gap over null graphs, crumbs joined (head of this module).
        seed: the same seed gives the same result.
        n_null: null graphs; default 20 where the resolution is chosen, otherwise 0 (then p_value is None).
        restarts: searches per resolution, of the graph and of every null graph alike.
        backend: "igraph" or "leidenalg", see `search`.
        progress: called per null graph made and per resolution searched.

    Raises:
        GraphError: an option that makes no sense, or no edge above the cutoff.
    """
    scale = _checked_epsilon(graph, epsilon)
    n_null = (0 if resolution is not None else _NULLS) if n_null is None else n_null
    if restarts < 1 or n_null < 0 or ((n_null or resolution is None) and n_null < _MIN_NULLS):
        raise GraphError(
            f"n_null is {n_null}, restarts {restarts}: expected restarts >= 1 and n_null >= {_MIN_NULLS}, "
            "or n_null = 0 with a given resolution"
        )
    search = Search(graph, scale)
    grid = _grid(search.costs, objective, resolution)
    generator = np.random.default_rng(seed)
    graphs = [search.costs]
    for _ in report(range(n_null), "null graphs", progress):
        graphs.append([degree_preserving_null(x, generator=generator) for x in search.costs])
    found = []
    options: dict[str, Any] = {"generator": generator, "restarts": restarts, "backend": backend}
    for name, value in report(grid, "modules", progress):
        found.append([search.best(x, name, value, **options) for x in graphs])
    qualities = np.array([[q for q, _ in row] for row in found])  # (grid, graph and null graphs)
    labels = [row[0][1] for row in found]
    if resolution is None:
        labels = [search.join_crumbs(a) for a in labels]
    z, p_value, chosen = _choose(qualities)
    rows = [
        _row(point, qualities[k], None if z is None else float(z[k]), search.edge_cost(labels[k]), labels[k])
        for k, point in enumerate(grid)
    ]
    one = resolution is None and chosen is None
    best = int(np.argmax([row.gap or 0.0 for row in rows])) if chosen is None else chosen
    flat = np.zeros_like(labels[best]) if one else labels[best]
    name, value = grid[best]
    part = score_partition(graph, search.per_cut(flat), epsilon, objective=name, resolution=value, seed=seed)
    return replace(part, p_value=p_value if part.n_modules > 1 else None, profile=tuple(rows))


def _choose(qualities: np.ndarray) -> tuple[np.ndarray | None, float | None, int | None]:
    """The z of each row of the grid, the p-value of the largest, and the row to choose (or None)."""
    real, nulls = qualities[:, 0], qualities[:, 1:]
    count = nulls.shape[1]
    if not count:
        return None, None, None
    tiny = 1e-9 * (1.0 + np.abs(qualities).max())

    def standardised(values: np.ndarray, against: np.ndarray) -> np.ndarray:
        sd = against.std(axis=1, ddof=1)
        return np.asarray((values - against.mean(axis=1)) / (sd + np.median(sd) + tiny))

    z = standardised(real, nulls)
    null_z = np.array([standardised(nulls[:, b], np.delete(nulls, b, axis=1)).max() for b in range(count)])
    p_value = (1 + int((null_z >= z.max()).sum())) / (1 + count)
    threshold = max(null_z.mean() + _SIGNIFICANT * null_z.std(ddof=1), null_z.max())
    gap = np.where(z > threshold, real - nulls.mean(axis=1), -np.inf)
    gap[gap <= 10 * tiny] = -np.inf
    return z, p_value, int(gap.argmax()) if np.isfinite(gap).any() else None


def _row(
    point: tuple[str, float], qualities: np.ndarray, z: float | None, cost: float, labels: np.ndarray
) -> ProfileRow:
    """Summary of one resolution."""
    real, nulls = float(qualities[0]), qualities[1:]
    count = len(np.unique(labels))
    if z is None:
        return ProfileRow(*point, count, real, None, None, None, None, cost)
    mean = float(nulls.mean())
    return ProfileRow(*point, count, real, mean, float(nulls.std(ddof=1)), z, real - mean, cost)


def _grid(costs: list[np.ndarray], objective: str | None, resolution: float | None) -> list[tuple[str, float]]:
    """The (objective, resolution) to try."""
    if resolution is not None:
        grid = [(objective or "layered_modularity", float(resolution))]
    else:
        mean = sum(x.sum() for x in costs) / sum(x.size for x in costs)
        unit = {"layered_cpm": float(mean), "layered_modularity": 1.0}
        names = OBJECTIVES if objective is None else (objective,)
        grid = [(name, factor * unit.get(name, 1.0)) for name in names for factor in _FACTORS]
    pair_gains([], *grid[0])  # raises for an unknown objective or resolution
    return grid


def _strongest(graph: InteractionGraph) -> float:
    """The largest strength."""
    return max(float(block.max()) for block in graph.blocks)


def _checked_epsilon(graph: InteractionGraph, epsilon: float | None) -> float:
    """The loss scale, with an edge above its square root."""
    if epsilon is None:
        return default_epsilon(graph)
    if not any((x > 0).any() for x in graph_costs(graph, epsilon)):
        raise GraphError(
            f"no edge above the cutoff sqrt(epsilon) = {np.sqrt(epsilon):g}: the strongest strength is "
            f"{_strongest(graph):g}; choose a smaller epsilon"
        )
    return float(epsilon)


def _renumbered(labels: Labels) -> tuple[np.ndarray, ...]:
    """Labels by descending size, ties by the first node."""
    flat = np.concatenate(list(labels))
    names, first, sizes = np.unique(flat, return_index=True, return_counts=True)
    used = names >= 0
    order = np.lexsort((first[used], -sizes[used]))
    new = np.empty(int(used.sum()), dtype=np.int64)
    new[order] = np.arange(len(order))
    known = names[used]
    return tuple(np.where(a < 0, -1, new[np.searchsorted(known, np.maximum(a, known[0]))]) for a in labels)


def _modules(graph: InteractionGraph, labels: tuple[np.ndarray, ...], epsilon: float) -> tuple[Module, ...]:
    """Size and costs of each module of renumbered labels."""
    inner, outer = inner_costs(graph, labels, epsilon), outer_costs(graph, labels, epsilon)
    modules = []
    for index in sorted(inner):
        sizes = tuple(int((a == index).sum()) for a in labels)
        spanned = tuple(cut for cut, size in zip(graph.cuts, sizes, strict=True) if size)
        modules.append(Module(index, sum(sizes), spanned, sizes, inner[index], outer[index]))
    return tuple(modules)
