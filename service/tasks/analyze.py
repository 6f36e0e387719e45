"""Analyse checkpoints: compute interaction bases, graph and partition, and store them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ...analysis import Bases, InteractionGraph, Partition
from ...analysis.checkpoints.checkpoint import Checkpoint
from ...analysis.checkpoints.two_digits import accuracy, train_two_digits
from ...analysis.pipeline.demo import agreement, true_sides
from ...analysis.progress import ProgressCallback
from ...analysis.recipe import GraphRecipe, Recipe, build_bases, build_graph, controlled
from ..records.errors import ArtifactError
from ..records.graphs import GraphRow
from ..records.jobs import TASKS
from ..records.partitions import Outcome
from ..store.store import Store
from .checkpoints import check_registrable, load, provenance, register
from .partitions import divide, graph_values, stored_graph

__all__ = ["Analysis", "Answer", "DemoLine", "analyze", "run_demo", "save_graph"]

Answer = dict[str, Any]

MadeT = TypeVar("MadeT")


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


class Analysis:
    """The steps of analysing one checkpoint: load, basis, graph, store, partition.

    A step takes what those before it returned, as JSON values, so that a job can go on after an interruption in another
    process. What a step made also stays in memory, for the next.

    Args:
        store: store for the results.
        load: loads the checkpoint and its recipe, see `tasks.checkpoints.load`.
        force: compute and store again.
        keep: keep bases and graph as files of the store as soon as they exist.
        progress: called as the work goes on.
    """

    def __init__(
        self,
        store: Store,
        load: Callable[[], tuple[Checkpoint, Recipe]],
        *,
        force: bool = False,
        keep: bool = False,
        progress: ProgressCallback | None = None,
    ) -> None:
        """Load nothing yet."""
        self._store, self._load, self._force, self._keep, self._progress = store, load, force, keep, progress
        self._loaded: tuple[Checkpoint, Recipe] | None = None
        self._bases: Bases | None = None
        self._graph: InteractionGraph | None = None

    def all(self) -> Outcome:
        """Take every step; return what is stored."""
        before: dict[str, Answer] = {}
        for step in TASKS["analyze"]:
            before[step] = self.take(step, before)
        (graph,), (partition,) = (before[step]["results"] for step in ("store", "partition"))
        return self._store.outcome(graph["id"], partition["id"])

    def take(self, step: str, before: Mapping[str, Answer]) -> Answer:
        """Take one step; return its answer: the ID of a stored graph, the file it made, or its results."""
        if step == "load":
            return self._found()
        if step == "partition":
            return self._partition(before["store"]["results"][0]["id"])
        if known := before["load"]["graph"]:
            return {} if step != "store" else {"results": [{"kind": "graph", "id": known}]}
        start = time.monotonic()
        bases = self._bases or self._again(before, "basis", Bases.from_bytes) or self._made_bases()
        self._bases = bases
        if step == "basis":
            return self._file(bases, time.monotonic() - start)
        graph = self._graph or self._again(before, "graph", InteractionGraph.from_bytes) or self._made_graph(bases)
        self._graph = graph
        if step == "graph":
            return self._file(graph, before["basis"]["seconds"] + time.monotonic() - start)
        checkpoint, recipe = self.loaded()
        begun = time.monotonic() - before["graph"]["seconds"]
        row = save_graph(self._store, checkpoint, recipe.graph, bases, graph, begun, force=self._force)
        return {"results": [{"kind": "graph", "id": row.id}]}

    def loaded(self) -> tuple[Checkpoint, Recipe]:
        """Return the checkpoint and its recipe."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def _found(self) -> Answer:
        """Look for a stored graph; without one, refuse a checkpoint whose results could not be stored."""
        checkpoint, recipe = self.loaded()
        found = None if self._force else stored_graph(self._store, checkpoint, recipe.graph)
        if found is None:
            check_registrable(self._store, checkpoint)
        return {"graph": found.id if found else None}

    def _partition(self, graph: str) -> Answer:
        """Divide the stored graph, and compare a supported division with that of an untrained copy of the network."""

        def control(whole: InteractionGraph, partition: Partition) -> Partition:
            checkpoint, recipe = self.loaded()
            net, batches = checkpoint.network, checkpoint.batches
            return controlled(partition, whole, net, batches, recipe, progress=self._progress)

        row = self._store.get_graph(graph)
        options: dict[str, Any] = {"control": control, "force": self._force, "progress": self._progress}
        made = divide(self._store, row, self.loaded()[1].partition, graph=self._graph, **options)
        return {"results": [{"kind": "partition", "id": made.id}]}

    def _file(self, made: Bases | InteractionGraph, seconds: float) -> Answer:
        """Keep what a step made as a file, where files are kept."""
        kept = {"file": self._store.blobs.put(made.to_bytes())} if self._keep else {}
        return {**kept, "seconds": seconds}

    def _again(self, before: Mapping[str, Answer], step: str, read: Callable[[bytes], MadeT]) -> MadeT | None:
        """Load what an earlier step made; None where its file is gone (`db gc` removes it after a day)."""
        try:
            return read(self._store.blobs.get(before[step]["file"])) if step in before else None
        except ArtifactError:
            return None

    def _made_bases(self) -> Bases:
        checkpoint, recipe = self.loaded()
        return build_bases(checkpoint.network, checkpoint.batches, recipe.graph, progress=self._progress)

    def _made_graph(self, bases: Bases) -> InteractionGraph:
        checkpoint, recipe = self.loaded()
        return build_graph(checkpoint.network, bases, checkpoint.batches, recipe.graph, progress=self._progress)


def analyze(
    store: Store,
    path: Path,
    choices: Mapping[str, Any],
    *,
    data: Path | None = None,
    factory: str | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> Outcome:
    """Compute and store graph and partition of a checkpoint; reuse stored ones of the same data and recipe.

    Args:
        store: store for the results.
        path: the .safetensors file.
        choices: fields of the recipe; None is the default.
        data: file to read the data from.
        factory: `module:function` that builds a model of family `torch`.
        force: compute and store again.
        progress: called as the work goes on.
    """
    opened = partial(load, path, choices, data=data, factory=factory)
    return Analysis(store, opened, force=force, progress=progress).all()


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
        analysis = Analysis(store, partial(load, path, {}), progress=progress)
        made, (checkpoint, _) = analysis.all(), analysis.loaded()
        bases = Bases.from_bytes(store.bases_bytes(made.graph.id))
        partition = Partition.from_bytes(store.partition_bytes(made.partition.id))
        line = DemoLine(
            made,
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
        values=graph_values(graph, bases.settings.get("left_out")),
        blobs={"graph": graph.to_bytes(), "bases": bases.to_bytes()},
        force=force,
    )
