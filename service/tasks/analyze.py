"""Analyse checkpoints: compute interaction bases, graph and partition, and store them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...analysis import Bases, InteractionGraph, Partition
from ...analysis.checkpoints.checkpoint import Checkpoint
from ...analysis.checkpoints.two_digits import accuracy, train_two_digits
from ...analysis.demo import agreement, true_sides
from ...analysis.progress import ProgressCallback
from ...analysis.recipe import GraphRecipe, Recipe, build_bases, build_graph, controlled, read_choices
from ..records.graphs import GraphRow, GraphValues
from ..records.partitions import Outcome
from ..store.store import Store
from .checkpoints import check_registrable, load, provenance, register
from .partitions import _partition, stored_graph

__all__ = ["DemoLine", "analyze", "run_demo", "save_graph", "store_analysis"]


@dataclass(frozen=True)
class DemoLine:
    """One checkpoint of the demo: accuracy on held-out pairs, and agreement of the modules with left and right.

    Attributes:
        agreement: adjusted mutual information at each cut, and over all cuts (last); NaN where no node is in a module.
    """

    outcome: Outcome
    accuracy: float
    agreement: list[float]

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON-ready values."""
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
    """Compute and store graph and partition of a checkpoint; reuse stored ones of the same data and recipe.

    Args:
        store: store for the results.
        path: the .safetensors file.
        choices: fields of the recipe; None keeps the value of the recipe file, or the default.
        recipe_file: a .toml or .json file of such fields.
        data: file to read the data from.
        factory: `module:function` that builds a model of family `torch`.
        force: compute and store again.
        progress: called as the work goes on.
    """
    given = {name: value for name, value in choices.items() if value is not None}
    given = {**(read_choices(recipe_file) if recipe_file else {}), **given}
    checkpoint, recipe = load(path, given, data=data, factory=factory)
    return store_analysis(store, checkpoint, recipe, force=force, progress=progress)


def store_analysis(
    store: Store,
    checkpoint: Checkpoint,
    recipe: Recipe,
    *,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> Outcome:
    """Analyse a checkpoint with a recipe, both from `load`; see `analyze`."""
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


def run_demo(
    store: Store,
    folder: Path,
    *,
    seed: int = 0,
    progress: ProgressCallback | None = None,
    done: Callable[[DemoLine], None] | None = None,
) -> list[DemoLine]:
    """Train the demo's network, analyse each of its checkpoints, and compare the modules with the known answer."""
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
    """Register the checkpoint and store its graph; `start` is when its computation began (monotonic clock).

    Nothing is registered before the graph exists, so that a refused analysis leaves no trace.
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
