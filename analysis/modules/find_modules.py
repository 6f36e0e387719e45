"""`find_modules`: divide a graph into modules by an objective, or return one module where chance explains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Int

from ..errors import GraphError
from ..graph.cost import Epsilon, interaction_cost
from ..graph.interaction_graph import InteractionGraph
from ..graph.loss_scale import LossScale, choose_epsilon, default_epsilon
from ..graph.quotient import Division, Labels, checked_labels
from ..notebook.bars import with_bar
from ..progress import ProgressCallback, report
from ..search.local_search import Effort, Search
from ..search.objectives import find_objective, quality_of
from .beyond_chains import BeyondChains
from .evidence import description_length, stability
from .mediators import polish_mediators, surface_of
from .partition import Level, Module, Partition
from .profile import Profile, profile, resolutions
from .satellites import join_satellites, join_small

__all__ = ["CHAINS", "epsilon_profile", "find_modules", "renumbered", "score_partition", "scored"]

CHAINS = ("discount", "count")

_NULLS = 20

_MIN_NULLS = 4

_THOROUGH = Effort(restarts=8, kicks=12)

_PROFILE = Effort(restarts=1, kicks=1)  # per resolution, for the graph and each null graph

_LARGE = 200_000  # edges from which on searches take less effort

_THOROUGH_OF_LARGE, _PROFILE_OF_LARGE = Effort(restarts=4, kicks=4, passes=10), Effort(restarts=1, kicks=0, passes=5)

_STABLE = 0.8

_CHAINS = "modules are chains: without one-to-one edges and skip paths they interact as much as by chance"

_LEVEL = 0.05
_CLEAR = 0.7  # contrast

_APART = 0.999  # least contrast of modules without interactions between them

_CLOSE = 0.05

_ALIKE = 0.9  # least adjusted mutual information at which two divisions of the outputs count as the same


def score_partition(
    graph: InteractionGraph,
    labels: Sequence[Any],
    epsilon: Epsilon | str | None = None,
    *,
    seeds: Sequence[str] | None = None,
    objective: str = "layered_modularity",
    resolution: float = 1.0,
    seed: int = 0,
) -> Partition:
    """Compute the costs of given labels; modules are renumbered by size; epsilon and seeds as in `find_modules`.

    Raises:
        GraphError: labels, epsilon, objective or resolution that make no sense, or no edge above the cutoff.

    >>> graph = InteractionGraph.from_blocks([np.eye(2) + 0.1 * np.eye(2)[::-1]])
    >>> score_partition(graph, [np.array([0, 1]), np.array([0, 1])], 1e-4).normalised_cost
    1.0
    """
    graph, scale = _with_scale(graph, epsilon, seeds)
    numbered = renumbered(checked_labels(graph, labels, scale.per_pair))
    return scored(graph, numbered, scale, objective=objective, resolution=resolution, seed=seed)


def _with_scale(
    graph: InteractionGraph, epsilon: Epsilon | str | None, seeds: Sequence[str] | None
) -> tuple[InteractionGraph, LossScale]:
    """Choose the loss scale, and leave out the edges that are not above its cutoff by two standard errors."""
    scale = choose_epsilon(graph, epsilon, seeds=seeds)
    return graph.significant(scale.per_pair), scale


def scored(
    graph: InteractionGraph, labels: Labels, scale: LossScale, *, objective: str, resolution: float, seed: int
) -> Partition:
    """Compute `score_partition` of labels that are already checked and numbered."""
    division = Division(graph, labels, scale.per_pair)
    modules = _modules(division)
    return Partition(
        cuts=graph.cuts,
        labels=tuple(labels),
        n_modules=len(modules),
        edge_cost=float(sum(link.edge_cost for link in division.links)),
        mediator_cost=float(sum(link.mediator_cost for link in division.links)),
        normalised_cost=_normalised(division, scale),
        full_strength=scale.full_strength,
        quality=quality_of(division, objective=objective, resolution=resolution),
        objective=objective,
        resolution=float(resolution),
        epsilon=scale.epsilon,
        epsilons=scale.per_pair,
        epsilon_source=scale.source,
        contrast=division.contrast,
        modules=modules,
        mediators=surface_of(division, scale.full_strength),
        seed=seed,
        seeds=scale.seeds,
    )


def _normalised(division: Division, scale: LossScale) -> float | None:
    """Compute the edge cost of each pair of cuts in units of its full-strength connection."""
    if not scale.normalisable:
        return None
    units = [interaction_cost(np.array(scale.full_strength), e, division.graph.unit) for e in scale.per_pair]
    return float((division.between_per_pair / np.array(units)).sum())


@with_bar
def find_modules(
    graph: InteractionGraph,
    *,
    epsilon: Epsilon | str | None = None,
    seeds: Sequence[str] | None = None,
    objective: str | None = None,
    resolution: float | None = None,
    k: int | None = None,
    min_size: int | None = None,
    max_size: int | None = None,
    pins: Sequence[Any] | None = None,
    start: Sequence[Any] | None = None,
    mediator_polish: bool = False,
    seed: int = 0,
    n_null: int | None = None,
    effort: Effort | None = None,
    backend: str = "leiden",
    chains: str = "discount",
    progress: ProgressCallback | None = None,
) -> Partition:
    """Divide a graph into modules; return one module where no division is more modular than chance.

    The result ends with a verdict: `Partition.verdict` and its `reason`.

    Args:
        graph: the strengths; estimated ones count where they are above the cutoff by two standard errors.
        epsilon: loss scale: a number, one per pair of cuts, "graph" (default: read off the strengths) or "pairs"
            (read off each pair of cuts); see `graph.loss_scale`.
        seeds: names of the networks whose mean distance epsilon is: `find_modules(graph, **distance.choices)` with
            `distance = network_distance([...])` takes it for the loss scale.
        objective: one of `search.OBJECTIVES`; default: both layered ones where the resolution is chosen,
            layered_modularity where it is given, kway where k is given.
        resolution: if given, the result is the best partition found at that resolution; by default it is chosen by
            comparison with null graphs, and satellites are joined; see `profile`.
        k: number of modules (objective kway), of at most 1.1 times the mean size, rounded up, unless
            max_size is given.
        min_size: least number of nodes of a module; smaller ones join the module with which they exchange most loss.
        max_size: largest number of nodes of a module.
        pins: one int array per cut: nodes with the same label stay together, with different ones apart, -1: free.
        start: one int array per cut: labels to start a search from.
        mediator_polish: lower the mediator cost by moves of single nodes, the number of nodes of each module at
            each cut held to 20 %; see `mediators`.
        seed: the same seed gives the same result, bit for bit.
        n_null: null graphs; default 20 where the resolution is chosen, otherwise 0 (then p_value is None). From 100 on
            a p-value beyond their ranks is estimated, too, see `tail`.
        effort: effort of the search for the result. The profile takes one search and one kick per graph and resolution,
            from 200,000 edges on one search of five passes; where the resolution is given, the graph and its null
            graphs are searched with this effort.
        backend: "leiden" or "leidenalg", see `search`.
        chains: with "discount" one-to-one edges and skip paths are no evidence of modules: a division is significant
            only if its modules are also separated without them; with "count" they are evidence, as in version 0.6. See
            `beyond_chains`.
        progress: called per graph searched, the null graphs included.

    Raises:
        GraphError: an option that makes no sense, or no edge above the cutoff.
    """
    whole = {"k": k, "min_size": min_size, "max_size": max_size, "n_null": n_null, "seed": seed}
    _check_options(resolution, chains, whole)
    graph, scale = _with_scale(graph, epsilon, seeds)
    objective = "kway" if objective is None and k is not None else objective
    choosing = resolution is None and not (objective is not None and find_objective(objective).fixed)
    n_null = (_NULLS if choosing else 0) if n_null is None else n_null
    _check(objective, k, choosing, n_null)
    search = Search(graph, scale.per_pair)
    search.constrain(k=k, min_size=min_size, max_size=max_size, pins=pins)
    beyond = None
    if chains == "discount" and n_null:
        beyond = BeyondChains(graph, scale.per_pair, search, n_null=n_null, seed=seed)
    thorough, quick = _efforts(search, effort)
    generator = np.random.default_rng(seed)
    found = profile(
        search,
        resolutions(search, objective, None if choosing else resolution),
        n_null=n_null,
        effort=quick if choosing else thorough,
        generator=generator,
        backend=backend,
        start=None if start is None else search.begin(start),
        join=choosing,
        beyond=beyond,
        progress=progress,
    )
    chosen, flat, runs = found.rows[found.row], found.labels[found.row], found.runs
    if choosing:
        flat, runs = _significant(search, found, beyond, thorough, generator, backend)
    flat = join_small(search, flat, search.min_size)
    if min_size is not None and np.bincount(flat).min() < min_size:
        raise GraphError(f"found no division into modules of {min_size} to {search.max_size} nodes: loosen the bounds")
    labels = renumbered(search.per_cut(flat))
    if mediator_polish:
        labels = _polished(search, graph, labels, scale, generator)
    part = scored(graph, labels, scale, objective=chosen.objective, resolution=chosen.resolution, seed=seed)
    part = replace(
        part,
        profile=found.rows,
        polished=mediator_polish,
        hierarchy=_hierarchy(search, found),
        beyond_chains=chosen.beyond_chains if part.n_modules > 1 else None,
    )
    return replace(part, **_evidence(search, part, found, runs))


def _efforts(search: Search, effort: Effort | None) -> tuple[Effort, Effort]:
    """Return the effort for the result, as given or by the size of the graph, and that for each row of the profile."""
    if len(search.costs) >= _LARGE:
        return effort or _THOROUGH_OF_LARGE, _PROFILE_OF_LARGE
    return effort or _THOROUGH, _PROFILE


def _polished(
    search: Search, graph: InteractionGraph, labels: Labels, scale: LossScale, generator: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Lower the mediator cost by moves of single nodes, pinned ones held, sizes kept within their bounds."""
    bounds = (search.min_size, search.max_size)
    held = search.spread(search.pinned[search.groups] > 0)
    return renumbered(polish_mediators(graph, labels, scale.per_pair, generator=generator, held=held, sizes=bounds))


@with_bar
def epsilon_profile(
    graph: InteractionGraph,
    epsilons: Sequence[float] | None = None,
    *,
    progress: ProgressCallback | None = None,
    **options: Any,
) -> tuple[Partition, ...]:
    """Find partitions over a range of loss scales, to see how modules merge and split.

    Args:
        graph: the strengths.
        epsilons: loss scales; default: cutoffs from a third of to three times that of `graph.default_epsilon`,
            seven of them, evenly spaced on a log scale, without those that no edge exceeds.
        progress: called per loss scale.
        options: options of `find_modules`.

    Returns:
        One partition per loss scale, in descending order of epsilon. Compare two with
        `variation_of_information`.

    Raises:
        GraphError: loss scales that are no numbers, an option that makes no sense, or no edge above a cutoff.
    """
    if epsilons is None:
        middle = default_epsilon(graph)
        strongest = max(float(block.max()) for block in graph.blocks)
        epsilons = [e for e in middle * 10 ** np.linspace(-1, 1, 7) if e < strongest**2]
    if "epsilon" in options:
        raise GraphError("a profile goes over loss scales: give them as `epsilons`, not epsilon")
    try:
        ordered = sorted((float(e) for e in epsilons), reverse=True)
    except (TypeError, ValueError):
        raise GraphError(f"epsilons are {epsilons!r}: expected numbers") from None
    return tuple(find_modules(graph, epsilon=e, **options) for e in report(ordered, "loss scales", progress))


def _check_options(resolution: Any, chains: str, whole: Mapping[str, Any]) -> None:
    for name, given in whole.items():
        if given is not None and (isinstance(given, bool) or not isinstance(given, int | np.integer)):
            raise GraphError(f"{name} is {given!r}: expected a whole number")
    if whole["seed"] < 0:
        raise GraphError(f"seed is {whole['seed']}: expected 0 or more")
    if resolution is not None and (isinstance(resolution, str) or np.ndim(resolution)):
        raise GraphError(f"resolution is {resolution!r}: expected a number")
    if chains not in CHAINS:
        raise GraphError(f"unknown chains {chains!r}: expected one of {', '.join(CHAINS)}")


def _check(objective: str | None, k: int | None, choosing: bool, n_null: int) -> None:
    if k is not None and objective != "kway":
        raise GraphError(f"k = {k} modules are found by objective 'kway', not {objective!r}")
    if k is None and objective == "kway":
        raise GraphError("objective 'kway' needs k, the number of modules")
    if n_null < 0 or ((n_null or choosing) and n_null < _MIN_NULLS):
        raise GraphError(f"n_null is {n_null}: expected at least {_MIN_NULLS}, or 0 with a given resolution")


def _significant(
    search: Search,
    found: Profile,
    beyond: BeyondChains | None,
    effort: Effort,
    generator: np.random.Generator,
    backend: str,
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return one module if no division is significant; else search the chosen row again, with more effort.

    The labels come with those of the independent runs. If the new search gives another number of modules, or more
    interaction between them relative to chance once satellites are joined, the row's labels stay.
    """
    row, labels = found.rows[found.row], found.labels[found.row]
    if not found.significant and not search.constrained:
        return np.zeros_like(labels), found.runs
    options: dict[str, Any] = {"generator": generator, "effort": effort, "backend": backend}
    wired = search.wired(search.costs)
    again = search.best(wired, search.costs, row.objective, row.resolution, start=labels, **options)
    joined = join_satellites(search, again.labels, beyond)
    runs = tuple(join_satellites(search, run, beyond) for run in again.runs)
    better = joined.max() == labels.max() and search.contrast(search.costs, joined) > row.contrast
    return (joined if better else labels), runs


def _hierarchy(search: Search, found: Profile) -> tuple[Level, ...]:
    """List the significant levels; the parent of a module is the earlier module that holds most of it."""
    levels: list[Level] = []
    above: np.ndarray | None = None
    for row in found.levels:
        labels = renumbered(search.per_cut(found.labels[row]))
        flat = search.flat(labels, "labels")
        parents, nesting = (), None
        if above is not None:
            counts = np.zeros((flat.max() + 1, above.max() + 1))
            np.add.at(counts, (flat, above), 1.0)
            parents, nesting = tuple(counts.argmax(axis=1).tolist()), float(counts.max(axis=1).sum() / len(flat))
        point = found.rows[row]
        levels.append(Level(point.n_modules, point.objective, point.resolution, labels, parents, nesting))
        above = flat
    return tuple(levels)


def _shown(z: float | None) -> str:
    """Write a z; where no null graph divides at all it has no size, only a sign; "-" where it is not known.

    >>> _shown(9.24), _shown(1.2e7)
    ('9.2', 'above 100')
    """
    if z is None:
        return "-"
    return f"{z:.1f}" if z <= 100 else "above 100"


def _evidence(search: Search, part: Partition, found: Profile, runs: Sequence[np.ndarray]) -> dict[str, Any]:
    """Add to a partition its significance, agreement with independent runs, verdict and warnings."""
    flat = search.flat(part.labels, "labels")
    values: dict[str, Any] = {"description_length": description_length(search, flat)}
    if part.n_modules == 1:
        values |= {"verdict": "one module", "reason": "no division was asked for, or none is cheaper"}
        if found.p_value is not None:
            row = found.rows[found.row]
            against = f"(largest z {_shown(row.z)}, p {found.p_value:.2g})"
            reason = f"no division is told apart from chance {against}{_perhaps(found)}"
            if found.p_value <= _LEVEL:
                weak = "by too little, or by nodes that are not separated from the rest"
                reason = f"divisions beat chance {against} {weak}"
            if found.chains:
                reason = _CHAINS
            else:
                values |= {"p_value": found.p_value, "z": row.z}
            values |= {"reason": reason, "warning": f"one module: {reason}"}
        return values
    agreement = stability(flat, [join_small(search, run, search.min_size) for run in runs])
    values |= {"stability": agreement.ami, "variation_of_information": agreement.variation_of_information}
    values["confidence"] = tuple(search.spread(agreement.confidence))
    differ = f"independent searches differ (mean AMI {agreement.ami:.2f}): see the confidence of each node"
    if agreement.ami < _STABLE:
        values["warning"] = differ
    if found.p_value is None:
        return values  # untested
    z = found.rows[found.row].z
    values |= {"p_value": found.p_value, "z": z}
    if not found.significant:
        values["verdict"] = "not told apart from chance"
        values["reason"] = (
            f"null graphs divide as well (z {_shown(z)}, p {found.p_value:.2g}): it was asked for, not found"
        )
        if found.chains:
            values["reason"] = _CHAINS
        values["warning"] = "no more modular than chance: the modules are what was asked for, not a finding"
        return values
    values |= {"verdict": "supported", "tail_p": found.tail_p}
    tail = "" if found.tail_p is None else f", by a Pareto tail about {found.tail_p:.1g}"
    values["reason"] = f"more modular than all null graphs (z {_shown(z)}, p {found.p_value:.2g}{tail})"
    values["reason"] += f"; {differ}" if agreement.ami < _STABLE else "; independent searches agree"
    return values


def _perhaps(found: Profile) -> str:
    """Say where a division is so clear that a graph of more edges might support it; not rejected is not refuted."""
    clear = [row for row in found.rows if row.contrast >= _CLEAR and (row.beyond_chains or 0.0) >= _CLEAR / 2]
    if not clear:
        return ""
    best = max(clear, key=lambda row: row.contrast)
    return f"; one into {best.n_modules}, of contrast {best.contrast:.2f}, may be real: too few edges to tell"


def compared(part: Partition, untrained: Partition, *, outputs_given: bool = False) -> Partition:
    """Compare a division with that of an untrained copy of the network, found with the same choices.

    The contrasts beyond chains are compared. If that of the copy is as large, up to 0.05, the modules do not come from
    training: the verdict becomes "not told apart from chance". There is one exception: an architecture of separate
    parts, such as two towers, has the same modules before training. The verdict stays if the copy has as many modules
    that divide the outputs in the same way, or between which there is no cost at all.

    Args:
        part: partition of the network.
        untrained: partition of the copy.
        outputs_given: whether the nodes of the last cut are the outputs themselves, the same in both.
    """
    count = untrained.n_modules if untrained.verdict == "supported" else 1
    part = replace(part, untrained_modules=count)
    if part.verdict != "supported":
        return part
    here, there = (beside.beyond_chains or 0.0 for beside in (part, untrained))
    shown = f"{count} module{'' if count == 1 else 's'}"
    if count == 1 or there < here - _CLOSE:
        return replace(part, reason=f"{part.reason}; an untrained copy of the network has {shown}")
    same = outputs_given and _agreement(part.labels[-1], untrained.labels[-1]) > _ALIKE
    if count == part.n_modules and (there > _APART or same):
        reason = f"{part.reason}; so has an untrained copy of the network: its architecture makes the modules"
        return replace(part, reason=reason)
    reason = f"an untrained copy of the network has {shown}, as far apart: the division does not come from training"
    return replace(part, verdict="not told apart from chance", reason=reason)


def _agreement(one: Int[np.ndarray, " n"], other: Int[np.ndarray, " n"]) -> float:
    """Compute the adjusted mutual information of two divisions, on nodes in a module of both; 0 for a single module."""
    from sklearn.metrics import adjusted_mutual_info_score  # takes a second

    both = (one >= 0) & (other >= 0)
    if len(np.unique(one[both])) < 2:
        return 0.0
    return float(adjusted_mutual_info_score(one[both], other[both]))


def renumbered(labels: Labels) -> tuple[np.ndarray, ...]:
    """Renumber labels by descending size, ties by the first node."""
    flat = np.concatenate(list(labels))
    names, first, sizes = np.unique(flat, return_index=True, return_counts=True)
    used = names >= 0
    order = np.lexsort((first[used], -sizes[used]))
    new = np.empty(int(used.sum()), dtype=np.int64)
    new[order] = np.arange(len(order))
    known = names[used]
    return tuple(np.where(a < 0, -1, new[np.searchsorted(known, np.maximum(a, known[0]))]) for a in labels)


def _modules(division: Division) -> tuple[Module, ...]:
    """Compute size and costs of each module of renumbered labels."""
    inner, outer, cuts = division.inner_costs, division.outer_costs, division.graph.cuts
    counts = np.stack([members.sum(axis=0) for members in division.members]).astype(int)
    modules = []
    for position, index in enumerate(division.names.tolist()):
        sizes = tuple(counts[:, position].tolist())
        spanned = tuple(cut for cut, size in zip(cuts, sizes, strict=True) if size)
        modules.append(Module(index, sum(sizes), spanned, sizes, inner[index], outer[index]))
    return tuple(modules)
