"""The steps of jobs, one method per task."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ...analysis import Bases, InteractionGraph, Partition
from ...analysis.checkpoints.checkpoint import Checkpoint
from ...analysis.circuits.experiments import ExperimentRecipe
from ...analysis.progress import Progress
from ...analysis.recipe import LedgerRecipe, LlcRecipe, Recipe, build_bases, build_graph, controlled, from_choices
from ..records.choices import check_choices
from ..records.errors import ArtifactError
from ..records.jobs import ON_CHECKPOINTS
from ..store.store import Store
from ..tasks import analyze as analyze_task
from ..tasks import checkpoints as checkpoint_task
from ..tasks import estimates, experiments
from ..tasks import partitions as partition_task
from ..tasks import tracking as tracking_task
from ..tasks.checkout import checked_out, data_file, names_of_checkpoint, names_of_data, own_names

__all__ = ["Answer", "Steps"]

Answer = dict[str, Any]

MadeT = TypeVar("MadeT")

_OFTEN = 0.1  # seconds between reports of progress


class Steps:
    """The steps of every task, on an open store; what one step loads stays for the next."""

    def __init__(self, store: Store, job: Mapping[str, Any], tell: Callable[[Progress], None]) -> None:
        self._store, self._job, self._tell = store, job, tell
        choices = dict(job["choices"])
        self._force = bool(choices.pop("force", False))
        self._named_data = choices.pop("data", None)
        self._choices = choices
        check_choices(job["task"], job["choices"])  # an earlier version took any
        self._loaded: tuple[Checkpoint, Recipe] | None = None
        self._data: Path | None = None
        self._file = Path()
        self._names: dict[str, str] = {}

    @contextmanager
    def files(self) -> Iterator[None]:
        """Keep the checkpoint and the data on disk while steps run."""
        with ExitStack() as stack:
            self._data = stack.enter_context(data_file(self._store, self._named_data))
            self._names |= names_of_data(self._named_data, self._data)
            if self._job["target"].endswith(".safetensors"):  # a job that an earlier version wrote
                self._file = Path(self._job["target"])
            elif self._job["task"] in ON_CHECKPOINTS:
                row, self._file = stack.enter_context(checked_out(self._store, self._job["target"]))
                self._names |= names_of_checkpoint(row, self._file)
            yield

    def take(self, step: str, before: Mapping[str, Answer]) -> Answer:
        """Run one step; errors name files as the user does."""
        with own_names(self._names):
            return self._taken(step, before)

    def _taken(self, step: str, before: Mapping[str, Answer]) -> Answer:
        return {"analyze": self._analyze}.get(self._job["task"], self._whole)(step, before)

    def _whole(self, _step: str, _before: Mapping[str, Answer]) -> Answer:
        """Run a task of one step."""
        task, target = self._job["task"], self._job["target"]
        shared: dict[str, Any] = {"force": self._force, "progress": self._tell}
        row: Any
        if task == "partition":
            row = partition_task.modules(self._store, target, self._choices, **shared)
        elif task == "track":
            ties = {name: value for name, value in self._choices.items() if name in ("like", "coupling", "align")}
            choices = {name: value for name, value in self._choices.items() if name not in ties}
            row = tracking_task.track(self._store, target, choices, data=self._data, **ties, **shared)
        elif task == "experiment":
            experiment = from_choices(ExperimentRecipe, self._choices)
            row = experiments.experiment(self._store, target, experiment, data=self._data, **shared)
            new = experiments.divided(self._store, row, progress=self._tell)
            made = [{"kind": task, "id": row.id}]
            return {"results": made + ([{"kind": "partition", "id": new.id}] if new is not None else [])}
        elif task == "ledger":
            recipe = from_choices(LedgerRecipe, self._choices)
            row = estimates.ledger(self._store, self._file, recipe, data=self._data, **shared)
        else:
            chosen = from_choices(LlcRecipe, self._choices)
            row = estimates.llc(self._store, self._file, chosen, data=self._data, **shared)
        kind = {"track": "tracking"}.get(task, task)
        return {"results": [{"kind": kind, "id": row.id}]}

    def _control(self, partition: Partition) -> Partition:
        """Compare a partition with that of an untrained copy of the network."""
        checkpoint, recipe = self._checkpoint()
        return controlled(partition, checkpoint, recipe, progress=self._tell)

    def _analyze(self, step: str, before: Mapping[str, Answer]) -> Answer:
        """Run one step of an analysis; bases and graph become files of the artifact store as soon as they exist."""
        if step == "partition":
            graph = before["store"]["results"][0]["id"]
            shared: dict[str, Any] = {"force": self._force, "progress": self._tell}
            row = partition_task.modules(self._store, graph, self._choices, control=self._control, **shared)
            return {"results": [{"kind": "partition", "id": row.id}]}
        checkpoint, recipe = self._checkpoint()
        if step == "load":
            found = None if self._force else partition_task.stored_graph(self._store, checkpoint, recipe.graph)
            if found is None:
                checkpoint_task.check_registrable(self._store, checkpoint)
            return {"graph": found.id if found else None}
        if before["load"]["graph"]:
            return {} if step != "store" else {"results": [{"kind": "graph", "id": before["load"]["graph"]}]}
        begun = time.monotonic()
        if step == "basis":
            bases = build_bases(checkpoint, recipe.graph, progress=self._tell)
            return {"file": self._store.blobs.put(bases.to_bytes()), "seconds": time.monotonic() - begun}
        bases = self._again("basis", before, Bases.from_bytes) or build_bases(
            checkpoint, recipe.graph, progress=self._tell
        )
        if step == "graph":
            graph = build_graph(checkpoint, bases, recipe.graph, progress=self._tell)
            spent = before["basis"]["seconds"] + time.monotonic() - begun
            return {"file": self._store.blobs.put(graph.to_bytes()), "seconds": spent}
        graph = self._again("graph", before, InteractionGraph.from_bytes) or build_graph(
            checkpoint, bases, recipe.graph, progress=self._tell
        )
        start = time.monotonic() - before["graph"]["seconds"]
        saved = analyze_task.save_graph(self._store, checkpoint, recipe.graph, bases, graph, start, force=self._force)
        return {"results": [{"kind": "graph", "id": saved.id}]}

    def _again(self, step: str, before: Mapping[str, Answer], read: Callable[[bytes], MadeT]) -> MadeT | None:
        """Load what an earlier step made; None where its file is gone (`db gc` removes it after a day)."""
        try:
            return read(self._store.blobs.get(before[step]["file"]))
        except ArtifactError:
            return None

    def _checkpoint(self) -> tuple[Checkpoint, Recipe]:
        if self._loaded is None:
            self._loaded = checkpoint_task.load(self._file, self._choices, data=self._data)
        return self._loaded
