"""Track modules over the stored checkpoints of a run, and compare stored partitions."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ...analysis import (
    Bases,
    Comparison,
    InteractionGraph,
    Partition,
    Tracking,
    align_nodes,
    compare_partitions,
    coordinate_correlation,
)
from ...analysis import track_modules as _track_modules
from ...analysis.checkpoints.families import load_factory
from ...analysis.progress import ProgressCallback
from ...analysis.recipe import CompareRecipe, Recipe, from_choices
from ...analysis.results import read_bytes
from ..records.checkpoints import CheckpointRow
from ..records.graphs import GraphRow
from ..records.partitions import (
    ComparisonRow,
    ComparisonValues,
    PartitionDetail,
    TrackingDetail,
    TrackingStep,
    TrackingValues,
)
from ..store.store import Store
from .checkpoints import provenance, reloaded
from .series import chosen_series

__all__ = ["aligned", "compare", "comparison_values", "track"]


def track(
    store: Store,
    ref: str,
    choices: Mapping[str, Any],
    *,
    like: str | None = None,
    coupling: float = 0.0,
    align: bool = True,
    data: Path | None = None,
    factory: str | None = None,
    device: str | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> TrackingDetail:
    """Match the modules of a run's checkpoints; reuse a stored tracking of the same checkpoints and choices.

    Track one graph per checkpoint, by step, all with the same recipe and data: those of the graph `like`; by
    default the recipe and data that most checkpoints share, the latest of several (see `tasks.series`).

    Args:
        store: store of the graphs, and for the result.
        ref: reference of the run, or of a model, of which the newest run with two analysed checkpoints is tracked.
        choices: fields of a partition's recipe; None is left out.
        like: reference of a graph of the run.
        coupling: see `analysis.modules.track_modules`.
        align: whether to load the checkpoints and align nodes by their values on the data, those of graphs from files
            by their names; otherwise node i continues node i.
        data: file to read the data from; default: the checkpoint's own.
        factory: `module:function` that builds a model of family `torch`.
        device: where to compute; default: the CPU.
        force: compute and store again.
        progress: called as the work goes on.

    Raises:
        NotFoundError: fewer than two checkpoints of the run have such a graph, or a checkpoint's file is gone.
        InputError: choices are not valid.
    """
    recipe = Recipe.from_mapping(choices).partition
    run = store.followed_run(ref, like=like)
    graphs = chosen_series(store, run, like).graphs
    described = {**asdict(recipe), "coupling": coupling, "align": align, "graphs": [row.id for _, row in graphs]}
    if data is not None and align:
        described["data"] = hashlib.sha256(read_bytes(data)).hexdigest()
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    found = None if force else store.find_tracking(run.id, digest)
    if found is not None:
        return found
    start = time.monotonic()
    loaded = [InteractionGraph.from_bytes(store.graph_bytes(row.id)) for _, row in graphs]
    alignments = None
    if align:
        named = all(graph.nodes for graph in loaded)
        alignments = _by_name(loaded) if named else _alignments(store, graphs, (data, factory, device), progress)
    tracking = _track_modules(
        loaded,
        alignments=alignments,
        names=[_moment(checkpoint) for checkpoint, _ in graphs],
        coupling=coupling,
        progress=progress,
        **recipe.search,
    )
    known = [share for share in tracking.churn if not math.isnan(share)]
    return store.save_tracking(
        run.id,
        provenance=provenance(described, digest, recipe.seed, start),
        values=TrackingValues(
            n_checkpoints=len(graphs),
            n_tracks=tracking.n_tracks,
            churn=sum(known) / len(known) if known else None,
            events=tuple(asdict(event) for event in tracking.events),
        ),
        steps=[_step(tracking, t, checkpoint, row) for t, (checkpoint, row) in enumerate(graphs)],
        blobs={"tracking": tracking.to_bytes()},
        force=force,
    )


def aligned(
    store: Store,
    earlier: str,
    later: str,
    *,
    data: Path | None = None,
    factory: str | None = None,
    progress: ProgressCallback | None = None,
) -> dict[tuple[int, int], tuple[tuple[int, int], float]]:
    """Align the nodes of two graphs by their values on the data of the later one, as tracking does.

    Args:
        store: store of the graphs.
        earlier: reference of a graph.
        later: reference of a graph with the same cuts, of the same checkpoint or another one.
        data: file to read the data from; default: the checkpoint's own.
        factory: `module:function` that builds a model of family `torch`.
        progress: called as the networks run.

    Returns:
        For nodes of the earlier graph, as index of the cut and coordinate, the node of the later one and the absolute
        value of the correlation of both.

    Raises:
        NotFoundError: the file of a checkpoint is gone, or bases were not kept.
        GraphError: the cuts differ.
    """
    build = load_factory(factory) if factory else None
    rows = [store.get_graph(ref) for ref in (earlier, later)]
    loaded = [reloaded(store, (store.get_checkpoint(row.checkpoint), row), data, build) for row in rows]
    bases = [Bases.from_bytes(store.bases_bytes(row.id)) for row in rows]
    before, now = ((each.network, basis) for each, basis in zip(loaded, bases, strict=True))
    correlation = coordinate_correlation(before, now, loaded[1].batches, progress=progress)
    return {
        (cut, int(i)): ((cut, j), min(abs(float(matrix[j, i])), 1.0))
        for cut, (matrix, matched) in enumerate(zip(correlation, align_nodes(correlation), strict=True))
        for j, i in enumerate(matched)
        if i >= 0
    }


def compare(
    store: Store,
    ref: str,
    choices: Mapping[str, Any],
    *,
    data: Path | None = None,
    factory: str | None = None,
    device: str | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> ComparisonRow:
    """Compare a partition with another one or with given labels; reuse a stored comparison of the same choices.

    Nodes of one graph are matched by place, those of graphs that were read from files by cut and name. Nodes of
    other graphs are matched by their values on the data of the later one, as tracking does; with `align` false by
    place.

    Args:
        store: store of the partitions, and for the result.
        ref: reference of the first partition.
        choices: `other`, the reference of a partition; or `labels`, the module of each node, and their `name`;
            `permutations` (1000), `seed` (0), `align` (true).
        data: file to read the data from; default: the checkpoint's own.
        factory: `module:function` that builds a model of family `torch`.
        device: not used: aligning takes the CPU.
        force: compute and store again.
        progress: called as networks run.

    Raises:
        NotFoundError: a partition does not exist; or nodes are to be matched by values, and a file or bases are gone.
        GraphError: no node is in a module of both.
    """
    row = store.get_partition(ref)
    other = None if choices.get("other") is None else store.get_partition(choices["other"])
    recipe = from_choices(CompareRecipe, {name: choices[name] for name in ("permutations", "seed") if name in choices})
    described = asdict(recipe)
    if other is not None:
        described |= {"other": other.id} | ({} if choices.get("align", True) else {"align": False})
    else:
        given = json.dumps(choices["labels"], sort_keys=True)
        described |= {"labels": hashlib.sha256(given.encode()).hexdigest(), "name": choices.get("name", "labels")}
    content = [part.partition_sha256 for part in (row, other) if part is not None]
    if data is not None:
        content.append(hashlib.sha256(read_bytes(data)).hexdigest())
    digest = hashlib.sha256(json.dumps([described, content], sort_keys=True).encode()).hexdigest()
    found = None if force else store.find_comparison(row.id, digest)
    if found is not None:
        return found
    start = time.monotonic()
    options, how = _matched(store, row, other, bool(choices.get("align", True)), (data, factory, progress))
    names = [row.id, other.id if other is not None else described["name"]]
    names[1] += " (again)" if names[0] == names[1] else ""
    made = compare_partitions(
        Partition.from_bytes(store.partition_bytes(row.id)),
        choices["labels"] if other is None else Partition.from_bytes(store.partition_bytes(other.id)),
        names=names,
        n_permutations=recipe.permutations,
        seed=recipe.seed,
        **options,
    )
    return store.save_comparison(
        row.id,
        None if other is None else other.id,
        provenance=provenance(described, digest, recipe.seed, start),
        values=comparison_values(made, how),
        blobs={"comparison": made.to_bytes()},
        force=force,
    )


def _matched(
    store: Store,
    row: PartitionDetail,
    other: PartitionDetail | None,
    align: bool,
    given: tuple[Path | None, str | None, ProgressCallback | None],
) -> tuple[dict[str, Any], str]:
    """Return how `compare_partitions` is to match the nodes of two partitions, and a word for it."""
    if other is not None and other.graph == row.graph:
        return {}, "place"
    refs = [part.graph for part in (row, other) if part is not None]
    nodes = [InteractionGraph.from_bytes(store.graph_bytes(graph)).nodes for graph in refs]
    if other is None or all(nodes):
        return {"nodes": [*nodes, None][:2]}, "name"
    if not align:
        return {}, "place"
    data, factory, progress = given
    found = aligned(store, *refs, data=data, factory=factory, progress=progress)
    ties = [np.full(width, -1) for width in store.get_graph(other.graph).widths]
    for (_, before), ((cut, now), _) in found.items():
        ties[cut][now] = before
    return {"alignments": [ties]}, "values"


def comparison_values(made: Comparison, how: str) -> ComparisonValues:
    """Return the numbers of a comparison of two divisions; `how` their nodes were matched: place, name or values."""
    (pair,) = made.pairs
    known = {f.name for f in fields(ComparisonValues)} & {f.name for f in fields(pair)}
    values: dict[str, Any] = {name: getattr(pair, name) for name in known}
    return ComparisonValues(
        **{**values, "matches": tuple(asdict(match) for match in pair.matches)},
        name=pair.second,
        matched_by=how,
        left_out=made.in_no_module[1] + made.in_several[1] + made.ambiguous[1],
        n_permutations=made.n_permutations,
    )


def _moment(checkpoint: CheckpointRow) -> str:
    return f"step {checkpoint.step}" if checkpoint.step is not None else checkpoint.label or checkpoint.id


def _by_name(graphs: Sequence[InteractionGraph]) -> list[list[Any]]:
    """Align the nodes of successive graphs with the same cuts by the types and ids of nodes."""
    names = [[list(zip(table.types, table.ids, strict=True)) for table in graph.nodes] for graph in graphs]
    result = []
    for before, now in pairwise(names):
        places = [{name: i for i, name in enumerate(cut)} for cut in before]
        found = zip(places, now, strict=False)  # other numbers of cuts are refused with the graphs
        result.append([np.array([known.get(name, -1) for name in cut], dtype=np.int64) for known, cut in found])
    return result


def _alignments(
    store: Store,
    graphs: Sequence[tuple[CheckpointRow, GraphRow]],
    given: tuple[Path | None, str | None, str | None],
    progress: ProgressCallback | None,
) -> list[list[Any]]:
    """Align the nodes of successive checkpoints by the correlation of their values on the last one's data."""
    data, factory, device = given
    build = load_factory(factory) if factory else None
    result, before = [], None
    batches = reloaded(store, graphs[-1], data, build).batches
    for checkpoint, row in graphs:
        network = reloaded(store, (checkpoint, row), data, build, device).network
        now = network, Bases.from_bytes(store.bases_bytes(row.id))
        if before is not None:
            result.append(align_nodes(coordinate_correlation(before, now, batches, progress=progress)))
        before = now
    return result


def _step(tracking: Tracking, t: int, checkpoint: CheckpointRow, row: GraphRow) -> TrackingStep:
    share = tracking.churn[t - 1] if t else math.nan
    return TrackingStep(
        checkpoint=checkpoint.id,
        graph=row.id,
        step=checkpoint.step,
        label=checkpoint.label,
        tracks=tracking.tracks[t],
        sizes=tuple(module.size for module in tracking.partitions[t].modules),
        churn=None if math.isnan(share) else share,
    )
