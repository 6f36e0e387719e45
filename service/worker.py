"""Runs analyses and stores what they give: the one place where numerics meet the store."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from ..analysis import (
    Bases,
    InteractionGraph,
    Partition,
    Tracking,
    align_nodes,
    coordinate_correlation,
    score_partition,
)
from ..analysis import track_modules as _track_modules
from ..analysis.checkpoints.checkpoint import Checkpoint, load_checkpoint
from ..analysis.checkpoints.families import load_factory
from ..analysis.checkpoints.two_digits import accuracy, train_two_digits
from ..analysis.demo import agreement, true_sides
from ..analysis.errors import InputError
from ..analysis.exchange.labels_file import labels_of
from ..analysis.graph.quotient import module_links
from ..analysis.progress import ProgressCallback
from ..analysis.recipe import (
    GraphRecipe,
    PartitionRecipe,
    Recipe,
    build_bases,
    build_graph,
    controlled,
    partition_graph,
    read_choices,
)
from ..analysis.results import read_bytes
from .checkout import checked_out
from .records import (
    CheckpointRow,
    DatasetRow,
    GraphRow,
    GraphValues,
    LinkRow,
    MediatorRow,
    ModuleRow,
    NotFoundError,
    Outcome,
    PartitionDetail,
    PartitionValues,
    Provenance,
    TrackingDetail,
    TrackingStep,
    TrackingValues,
)
from .series import chosen_series
from .store import Store

__all__ = [
    "DemoLine",
    "analyze",
    "check_registrable",
    "load",
    "modules",
    "provenance",
    "register",
    "reloaded",
    "run_demo",
    "save_graph",
    "store_analysis",
    "stored",
    "stored_graph",
    "track",
]


Control: TypeAlias = Callable[[Partition], Partition]


@dataclass(frozen=True)
class DemoLine:
    """One checkpoint of the demo: accuracy on held-out pairs, and agreement of the modules with left and right.

    Attributes:
        agreement: adjusted mutual information per cut, and over all cuts (last); NaN where no node is in a module.
    """

    outcome: Outcome
    accuracy: float
    agreement: list[float]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON-ready values."""
        agreement = [None if math.isnan(value) else value for value in self.agreement]
        return {**self.outcome.to_json(), "accuracy": self.accuracy, "agreement": agreement}


def analyze(
    store: Store,
    path: Path,
    choices: Mapping[str, Any],
    *,
    recipe_file: Path | None = None,
    data: Path | None = None,
    factory: str | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> Outcome:
    """Take a checkpoint to its graph and partition; what is stored for the same data and recipe is not computed again.

    Args:
        store: where results go.
        path: of the .safetensors file.
        choices: names of the recipe; None leaves what the recipe file says, or the default.
        recipe_file: a .toml or .json file of such names.
        data: file to read the data from.
        factory: `module:function` that builds a model of family `torch`.
        force: compute and store again.
        progress: called as the work goes on.
    """
    given = {name: value for name, value in choices.items() if value is not None}
    given = {**(read_choices(recipe_file) if recipe_file else {}), **given}
    checkpoint, recipe = load(path, given, data=data, factory=factory)
    return store_analysis(store, checkpoint, recipe, force=force, progress=progress)


def load(
    path: Path, choices: Mapping[str, Any], *, data: Path | None = None, factory: str | None = None
) -> tuple[Checkpoint, Recipe]:
    """A checkpoint, and the recipe for it with the cuts and the loss that it was loaded with; None is left out."""
    recipe = Recipe.from_mapping({name: value for name, value in choices.items() if value is not None})
    build = load_factory(factory) if factory else None
    checkpoint = load_checkpoint(path, cuts=recipe.graph.cuts, loss=recipe.graph.loss, data=data, factory=build)
    chosen = replace(recipe.graph, cuts=checkpoint.network.cuts, loss=checkpoint.network.loss)
    return checkpoint, replace(recipe, graph=chosen)


def store_analysis(
    store: Store,
    checkpoint: Checkpoint,
    recipe: Recipe,
    *,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> Outcome:
    """`analyze` for a checkpoint and a recipe from `load`."""
    graph_row = None if force else stored_graph(store, checkpoint, recipe.graph)
    if graph_row is None:
        check_registrable(store, checkpoint)
        start = time.monotonic()
        bases = build_bases(checkpoint, recipe.graph, progress=progress)
        graph = build_graph(checkpoint, bases, recipe.graph, progress=progress)
        graph_row = save_graph(store, checkpoint, recipe.graph, bases, graph, start, force=force)
    else:
        graph = InteractionGraph.from_bytes(store.graph_bytes(graph_row.id))
    control = partial(controlled, checkpoint=checkpoint, recipe=recipe, progress=progress)
    partition_row = _partition(store, graph_row, graph, recipe.partition, force, progress, control)
    row, data = store.get_checkpoint(graph_row.checkpoint), store.get_dataset(graph_row.dataset)
    return Outcome(checkpoint=row, dataset=data, graph=graph_row, partition=partition_row)


def modules(
    store: Store,
    ref: str,
    choices: Mapping[str, Any],
    *,
    control: Control | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> PartitionDetail:
    """Divide a stored graph into modules; what is stored for the same choices is not computed again.

    Args:
        store: where the graph comes from and the partition goes.
        ref: of the graph.
        choices: names of a partition's recipe; or `labels`, the module of each node ("cut/coordinate") of a division
            made elsewhere, which is scored as it is, and epsilon.
        control: compares a division with that of an untrained copy of the network, where that is at hand.
        force: compute and store again.
        progress: called per graph searched.

    Raises:
        InputError: choices or labels that make no sense.
    """
    row = store.get_graph(ref)
    graph = InteractionGraph.from_bytes(store.graph_bytes(row.id))
    recipe = Recipe.from_mapping({name: value for name, value in choices.items() if name != "labels"}).partition
    if choices.get("labels") is None:
        return _partition(store, row, graph, recipe, force, progress, control)
    if recipe != PartitionRecipe(epsilon=recipe.epsilon):
        raise InputError("labels are a division already: of the choices of a search only epsilon goes with them")
    if not isinstance(choices["labels"], Mapping):
        raise InputError('labels: expected nodes and their modules, like {"layers.0/3": 1}')
    given = labels_of({node: "" if of is None else str(of) for node, of in choices["labels"].items()}, graph)
    listed = json.dumps([labels.tolist() for labels in given])
    described = {"labels": hashlib.sha256(listed.encode()).hexdigest(), "epsilon": recipe.epsilon}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    found = None if force else store.find_partition(row.id, digest)
    if found is not None:
        return found
    start = time.monotonic()
    partition = score_partition(graph, given, recipe.epsilon)
    return _save_partition(store, row, graph, partition, provenance(described, digest, 0, start), force)


def track(
    store: Store,
    model: str,
    choices: Mapping[str, Any],
    *,
    like: str | None = None,
    coupling: float = 0.0,
    align: bool = True,
    data: Path | None = None,
    factory: str | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> TrackingDetail:
    """Match the modules of all checkpoints of a model; the same checkpoints and choices are not tracked again.

    The graphs have one recipe and one data set, one graph per checkpoint, by step: those of the graph `like`; by
    default of the recipe and data that most checkpoints share, of several the one used last (`series`).

    Args:
        store: where graphs come from and the result goes.
        model: reference.
        choices: names of a partition's recipe; None is left out.
        like: reference of a graph of the model.
        coupling: see `analysis.tracking.track_modules`.
        align: align the nodes by their values on the data, for which checkpoints are loaded again; without, node i
            continues node i.
        data: file to read the data from, where that is not the checkpoint's own.
        factory: `module:function` that builds a model of family `torch`.
        force: compute and store again.
        progress: called as the work goes on.

    Raises:
        NotFoundError: fewer than two checkpoints of the model have such a graph, or a checkpoint's file is gone.
        InputError: choices that make no sense.
    """
    recipe = Recipe.from_mapping(choices).partition
    graphs = chosen_series(store, model, like).graphs
    described = {**asdict(recipe), "coupling": coupling, "align": align, "graphs": [row.id for _, row in graphs]}
    if data is not None and align:
        described["data"] = hashlib.sha256(read_bytes(data)).hexdigest()
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    found = None if force else store.find_tracking(model, digest)
    if found is not None:
        return found
    start = time.monotonic()
    loaded = [InteractionGraph.from_bytes(store.graph_bytes(row.id)) for _, row in graphs]
    alignments = _alignments(store, graphs, data, factory, progress) if align else None
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
        model,
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


def _moment(checkpoint: CheckpointRow) -> str:
    return f"step {checkpoint.step}" if checkpoint.step is not None else checkpoint.label or checkpoint.id


def _alignments(
    store: Store,
    graphs: Sequence[tuple[CheckpointRow, GraphRow]],
    data: Path | None,
    factory: str | None,
    progress: ProgressCallback | None,
) -> list[list[Any]]:
    """Which node continues which, by the correlation of their values on the data of the last checkpoint."""
    build = load_factory(factory) if factory else None
    result, before = [], None
    batches = reloaded(store, graphs[-1], data, build).batches
    for checkpoint, row in graphs:
        network = reloaded(store, (checkpoint, row), data, build).network
        now = network, Bases.from_bytes(store.bases_bytes(row.id))
        if before is not None:
            result.append(align_nodes(coordinate_correlation(before, now, batches, progress=progress)))
        before = now
    return result


def reloaded(store: Store, pair: tuple[CheckpointRow, GraphRow], data: Path | None, factory: Any) -> Checkpoint:
    """The checkpoint of a graph, with the graph's cuts and loss.

    Raises:
        NotFoundError: its file is gone, or is another one now.
    """
    checkpoint, row = pair
    chosen = Recipe.from_mapping({name: row.recipe.get(name) for name in ("cuts", "loss")}).graph
    with checked_out(store, checkpoint.id) as (_, file):
        loaded = load_checkpoint(file, cuts=chosen.cuts, loss=chosen.loss, data=data, factory=factory)
    if loaded.sha256 != checkpoint.sha256:
        where = checkpoint.path or "its file"
        raise NotFoundError(f"{where} is not the checkpoint {checkpoint.id} any more: its content has changed")
    return loaded


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


def stored_graph(store: Store, checkpoint: Checkpoint, recipe: GraphRecipe) -> GraphRow | None:
    """The graph of this checkpoint, data and recipe, where it was stored before."""
    known = stored(store, checkpoint)
    return store.find_graph(*known, recipe.sha256) if known else None


def stored(store: Store, checkpoint: Checkpoint) -> tuple[str, str] | None:
    """IDs of this checkpoint and its data, where both were stored before."""
    try:
        data = store.get_dataset(checkpoint.batches.sha256)
        page = store.checkpoints(model=checkpoint.model, limit=1000)
    except NotFoundError:
        return None
    while True:
        for row in page.items:
            if row.sha256 == checkpoint.sha256:
                return row.id, data.id
        if page.next_cursor is None:
            return None
        page = store.checkpoints(model=checkpoint.model, limit=1000, cursor=page.next_cursor)


def check_registrable(store: Store, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint whose results could not be stored before they are computed; see `Store.check_registrable`."""
    store.check_registrable(checkpoint.model, checkpoint.family, checkpoint.config)


def register(store: Store, checkpoint: Checkpoint) -> tuple[CheckpointRow, DatasetRow]:
    """The rows of a checkpoint and its data."""
    store.register_model(checkpoint.model, checkpoint.family, checkpoint.config)
    notes = {"notes": list(checkpoint.notes)} if checkpoint.notes else {}
    row = store.add_checkpoint(
        checkpoint.model,
        sha256=checkpoint.sha256,
        step=checkpoint.step,
        label=checkpoint.label,
        path=str(checkpoint.path.resolve()),
        about={
            **checkpoint.about,
            **notes,
            "label": checkpoint.label,
            "model": checkpoint.model,
            "config": checkpoint.config,
        },
    )
    return row, store.add_dataset(checkpoint.batches.sha256, repr(checkpoint.batches))


def run_demo(
    store: Store,
    folder: Path,
    *,
    seed: int = 0,
    progress: ProgressCallback | None = None,
    done: Callable[[DemoLine], None] | None = None,
) -> list[DemoLine]:
    """Train the demo's network, analyse every checkpoint of it, and compare the modules with the known answer."""
    lines = []
    for path in train_two_digits(folder, seed=seed, progress=progress):
        checkpoint, recipe = load(path, {})
        outcome = store_analysis(store, checkpoint, recipe, progress=progress)
        bases = Bases.from_bytes(store.bases_bytes(outcome.graph.id))
        partition = Partition.from_bytes(store.partition_bytes(outcome.partition.id))
        line = DemoLine(
            outcome,
            accuracy(checkpoint.network.model, checkpoint.test_batches),
            agreement(partition, true_sides(bases)),
        )
        lines.append(line)
        if done is not None:
            done(line)
    return lines


def save_graph(
    store: Store,
    checkpoint: Checkpoint,
    recipe: GraphRecipe,
    bases: Bases,
    graph: InteractionGraph,
    start: float,
    *,
    force: bool = False,
) -> GraphRow:
    """Register the checkpoint and store its graph, whose computation began at `start` of the monotonic clock.

    Nothing is registered before the graph is there, so that a refused analysis leaves no trace.
    """
    row, data = register(store, checkpoint)
    return store.save_graph(
        row.id,
        data.id,
        provenance=provenance(asdict(recipe), recipe.sha256, recipe.seed, start),
        values=GraphValues(
            cuts=graph.cuts,
            widths=graph.widths,
            basis=graph.basis,
            strengths=graph.strengths,
            n_nodes=graph.n_nodes,
            n_edges=graph.n_edges(),
        ),
        blobs={"graph": graph.to_bytes(), "bases": bases.to_bytes()},
        force=force,
    )


def _partition(
    store: Store,
    row: GraphRow,
    graph: InteractionGraph,
    recipe: PartitionRecipe,
    force: bool,
    progress: ProgressCallback | None,
    control: Control | None,
) -> PartitionDetail:
    """The stored partition of a graph by this recipe, else a new one.

    Where no network is at hand, that of a controlled analysis will do, and a new one is stored as made without control.
    """
    wanted = [recipe] if control is not None else [recipe, replace(recipe, control=False)]
    stored_ones = () if force else (store.find_partition(row.id, choices.sha256) for choices in wanted)
    found = next((partition for partition in stored_ones if partition is not None), None)
    if found is not None:
        return found
    recipe = wanted[-1]
    start = time.monotonic()
    partition = partition_graph(graph, recipe, progress=progress)
    partition = partition if control is None else control(partition)
    made = provenance(asdict(recipe), recipe.sha256, recipe.seed, start)
    return _save_partition(store, row, graph, partition, made, force)


def _save_partition(
    store: Store, row: GraphRow, graph: InteractionGraph, partition: Partition, made: Provenance, force: bool
) -> PartitionDetail:
    links = module_links(graph, partition.labels, partition.epsilons)
    values: dict[str, Any] = {f.name: getattr(partition, f.name) for f in fields(PartitionValues)}
    return store.save_partition(
        row.id,
        provenance=made,
        values=PartitionValues(**values),
        modules=[ModuleRow(**asdict(module)) for module in partition.modules],
        links=[LinkRow(**asdict(link)) for link in links],
        labels=[labels.tolist() for labels in partition.labels],
        importance=[importance.tolist() for importance in graph.importance],
        blobs={"partition": partition.to_bytes()},
        confidence=[shares.tolist() for shares in partition.confidence],
        mediators=[MediatorRow(**asdict(node)) for node in partition.mediators],
        force=force,
    )


def provenance(recipe: Mapping[str, Any], recipe_hash: str, seed: int, start: float) -> Provenance:
    """How a result came about, whose computation began at `start` of the monotonic clock."""
    return Provenance(
        recipe=recipe,
        recipe_hash=recipe_hash,
        code_version=version("interbasis"),
        seed=seed,
        wall_time=time.monotonic() - start,
    )
