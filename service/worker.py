"""Runs analyses and stores what they give: the one place where numerics meet the store."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..analysis import Bases, InteractionGraph, Partition, demo
from ..analysis.cost import module_links
from ..analysis.errors import InputError
from ..analysis.exchange import export as _export
from ..analysis.families import Checkpoint, load_checkpoint, load_factory
from ..analysis.files import write_bytes
from ..analysis.progress import ProgressCallback
from ..analysis.recipe import GraphRecipe, PartitionRecipe, Recipe, build_graph, partition_graph, read_choices
from .store import (
    CheckpointRow,
    DatasetRow,
    GraphRow,
    GraphValues,
    LinkRow,
    ModuleRow,
    NotFoundError,
    PartitionDetail,
    PartitionValues,
    Provenance,
    Store,
)

__all__ = ["DemoLine", "Outcome", "analyze", "export", "plot", "run_demo", "store_analysis"]

_PICTURES = ("png", "svg", "pdf")


@dataclass(frozen=True)
class Outcome:
    """What is stored of one checkpoint's analysis."""

    checkpoint: CheckpointRow
    dataset: DatasetRow
    graph: GraphRow
    partition: PartitionDetail

    def to_json(self) -> dict[str, Any]:
        """All rows as JSON-ready values."""
        return {name: getattr(self, name).to_json() for name in ("checkpoint", "dataset", "graph", "partition")}


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
    given = {
        **(read_choices(recipe_file) if recipe_file else {}),
        **{k: v for k, v in choices.items() if v is not None},
    }
    recipe = Recipe.from_mapping(given)
    checkpoint = load_checkpoint(
        path,
        cuts=recipe.graph.cuts,
        loss=recipe.graph.loss,
        data=data,
        factory=load_factory(factory) if factory else None,
    )
    return store_analysis(store, checkpoint, recipe, force=force, progress=progress)


def store_analysis(
    store: Store,
    checkpoint: Checkpoint,
    recipe: Recipe,
    *,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> Outcome:
    """`analyze` for a loaded checkpoint."""
    chosen = replace(recipe.graph, cuts=checkpoint.network.cuts, loss=checkpoint.network.loss)
    graph_row = None if force else _stored_graph(store, checkpoint, chosen)
    if graph_row is None:
        graph_row, graph = _compute_graph(store, checkpoint, chosen, force, progress)
    else:
        graph = InteractionGraph.from_bytes(store.graph_bytes(graph_row.id))
    partition_row = None if force else store.find_partition(graph_row.id, recipe.partition.sha256)
    if partition_row is None:
        partition_row = _compute_partition(store, graph_row, graph, recipe.partition, force, progress)
    row, data = store.get_checkpoint(graph_row.checkpoint), store.get_dataset(graph_row.dataset)
    return Outcome(row, data, graph_row, partition_row)


def _stored_graph(store: Store, checkpoint: Checkpoint, recipe: GraphRecipe) -> GraphRow | None:
    """The graph of this checkpoint, data and recipe, where it was stored before."""
    try:
        data = store.get_dataset(checkpoint.batches.sha256)
        page = store.checkpoints(model=checkpoint.model, limit=1000)
    except NotFoundError:
        return None
    while True:
        for row in page.items:
            if row.sha256 == checkpoint.sha256:
                return store.find_graph(row.id, data.id, recipe.sha256)
        if page.next_cursor is None:
            return None
        page = store.checkpoints(model=checkpoint.model, limit=1000, cursor=page.next_cursor)


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
    for path in demo.train_two_digits(folder, seed=seed, progress=progress):
        checkpoint = load_checkpoint(path)
        outcome = store_analysis(store, checkpoint, Recipe.from_mapping(demo.RECIPE), progress=progress)
        bases = Bases.from_bytes(store.bases_bytes(outcome.graph.id))
        partition = Partition.from_bytes(store.partition_bytes(outcome.partition.id))
        line = DemoLine(
            outcome,
            demo.accuracy(checkpoint.network.model, checkpoint.test_batches),
            demo.agreement(partition, demo.true_sides(bases)),
        )
        lines.append(line)
        if done is not None:
            done(line)
    return lines


def export(store: Store, ref: str, form: str, epsilon: float | None = None) -> bytes:
    """A stored graph or partition as the content of a file; see `analysis.exchange.export`."""
    try:
        row = store.get_partition(ref)
    except NotFoundError:
        return _export(InteractionGraph.from_bytes(store.graph_bytes(ref)), None, form, epsilon)
    graph = InteractionGraph.from_bytes(store.graph_bytes(row.graph))
    return _export(graph, Partition.from_bytes(store.partition_bytes(row.id)), form, epsilon)


def plot(store: Store, ref: str, path: Path) -> None:
    """Draw a stored graph, or a partition with its graph, into a file (.png, .svg or .pdf)."""
    form = path.suffix.removeprefix(".").lower()
    if form not in _PICTURES:
        raise InputError(f"cannot draw into {path}: expected a name that ends in one of .{', .'.join(_PICTURES)}")
    try:
        row = store.get_partition(ref)
    except NotFoundError:
        figure = InteractionGraph.from_bytes(store.graph_bytes(ref)).plot()
    else:
        partition = Partition.from_bytes(store.partition_bytes(row.id))
        figure = InteractionGraph.from_bytes(store.graph_bytes(row.graph)).plot(partition)
    content = io.BytesIO()
    figure.savefig(content, format=form, dpi=150)
    write_bytes(path, content.getvalue())


def _compute_graph(
    store: Store,
    checkpoint: Checkpoint,
    recipe: GraphRecipe,
    force: bool,
    progress: ProgressCallback | None,
) -> tuple[GraphRow, InteractionGraph]:
    """Nothing is registered before the graph is there, so that a refused analysis leaves no trace."""
    start = time.monotonic()
    bases, graph = build_graph(checkpoint, recipe, progress=progress)
    store.register_model(checkpoint.model, checkpoint.family, checkpoint.config)
    row = store.add_checkpoint(
        checkpoint.model,
        sha256=checkpoint.sha256,
        step=checkpoint.step,
        label=checkpoint.label,
        path=str(checkpoint.path.resolve()),
    )
    data = store.add_dataset(checkpoint.batches.sha256, repr(checkpoint.batches))
    stored = store.save_graph(
        row.id,
        data.id,
        provenance=_provenance(recipe, start),
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
    return stored, graph


def _compute_partition(
    store: Store,
    row: GraphRow,
    graph: InteractionGraph,
    recipe: PartitionRecipe,
    force: bool,
    progress: ProgressCallback | None,
) -> PartitionDetail:
    start = time.monotonic()
    partition = partition_graph(graph, recipe, progress=progress)
    links = module_links(graph, partition.labels, partition.epsilon)
    return store.save_partition(
        row.id,
        provenance=_provenance(recipe, start),
        values=PartitionValues(**{f.name: getattr(partition, f.name) for f in fields(PartitionValues)}),
        modules=[ModuleRow(**asdict(module)) for module in partition.modules],
        links=[LinkRow(**asdict(link)) for link in links],
        labels=[labels.tolist() for labels in partition.labels],
        importance=[importance.tolist() for importance in graph.importance],
        blobs={"partition": partition.to_bytes()},
        force=force,
    )


def _provenance(recipe: GraphRecipe | PartitionRecipe, start: float) -> Provenance:
    return Provenance(
        recipe=asdict(recipe),
        recipe_hash=recipe.sha256,
        code_version=version("interbasis"),
        seed=recipe.seed,
        wall_time=time.monotonic() - start,
    )
