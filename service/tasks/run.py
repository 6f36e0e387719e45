"""Run any task on a store: one implementation, which commands and jobs call."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ...analysis.circuits.experiments import ExperimentRecipe
from ...analysis.progress import ProgressCallback
from ...analysis.recipe import DescribeRecipe, LedgerRecipe, LlcRecipe, from_choices
from ..records.jobs import TASKS
from ..store.store import Store
from .analyze import Analysis, Answer
from .checkpoints import load
from .estimates import ledger, llc
from .exchange import import_graph
from .experiments import describe, divided, experiment
from .partitions import modules
from .tracking import compare, track

__all__ = ["Task"]

_TRACKING = ("like", "coupling", "align")


class Task:
    """A task on a target, as its steps; what one step loads stays for the next.

    Args:
        store: store of what the task needs, and for its results.
        name: name of the task, one of `records.jobs.TASKS`.
        target: file of a checkpoint; for partition a graph, for experiment, describe and
            compare a partition, for track a run or model, for import the file of a graph, or "sha256:..." of one that
            is stored.
        choices: fields of the task's recipe; None is left out.
        data: file to read the data from; default: the checkpoint's own.
        factory: `module:function` that builds a model of family `torch`.
        device: where to compute; default: the CPU.
        force: compute stored results again.
        keep: keep what the steps of an analysis make as files of the store.
        progress: called as the work goes on.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        target: str | Path,
        choices: Mapping[str, Any],
        *,
        data: Path | None = None,
        factory: str | None = None,
        device: str | None = None,
        force: bool = False,
        keep: bool = False,
        progress: ProgressCallback | None = None,
    ) -> None:
        """Read nothing yet."""
        self._store, self._name, self._target = store, name, target
        self._choices = {name: value for name, value in choices.items() if value is not None}
        self._shared: dict[str, Any] = {"force": force, "progress": progress}
        self._model: dict[str, Any] = {"data": data, "factory": factory, "device": device}
        opened = partial(load, Path(target), self._choices, **self._model)
        self._analysis = Analysis(store, opened, keep=keep, **self._shared)

    def take(self, step: str, before: Mapping[str, Answer]) -> Answer:
        """Take one step; return its answer, with the kinds and IDs of the results that it stored.

        Args:
            step: name of the step, one of those that `records.jobs.TASKS` lists for the task.
            before: the answers of the steps before.

        Raises:
            InputError: choices are not valid.
        """
        if self._name == "analyze":
            return self._analysis.take(step, before)
        made = getattr(self, f"_{self._name}")()
        return {"results": [{"kind": kind, "id": row.id} for kind, row in made if row is not None]}

    def all(self) -> list[dict[str, str]]:
        """Take every step; return the kinds and IDs of the results."""
        before: dict[str, Answer] = {}
        for step in TASKS[self._name]:
            before[step] = self.take(step, before)
        return [result for answer in before.values() for result in answer.get("results", ())]

    def _partition(self) -> list[tuple[str, Any]]:
        return [("partition", modules(self._store, str(self._target), self._choices, **self._shared))]

    def _track(self) -> list[tuple[str, Any]]:
        ties = {name: value for name, value in self._choices.items() if name in _TRACKING}
        choices = {name: value for name, value in self._choices.items() if name not in ties}
        options = {**ties, **self._model, **self._shared}
        return [("tracking", track(self._store, str(self._target), choices, **options))]

    def _experiment(self) -> list[tuple[str, Any]]:
        recipe = from_choices(ExperimentRecipe, self._choices)
        row = experiment(self._store, str(self._target), recipe, **self._model, **self._shared)
        new = divided(self._store, row, progress=self._shared["progress"])
        return [("experiment", row), ("partition", new)]

    def _describe(self) -> list[tuple[str, Any]]:
        recipe = from_choices(DescribeRecipe, self._choices)
        return [("description", describe(self._store, str(self._target), recipe, **self._model, **self._shared))]

    def _compare(self) -> list[tuple[str, Any]]:
        return [("comparison", compare(self._store, str(self._target), self._choices, **self._model, **self._shared))]

    def _import(self) -> list[tuple[str, Any]]:
        return [("graph", import_graph(self._store, self._target, self._choices, **self._shared))]

    def _ledger(self) -> list[tuple[str, Any]]:
        recipe = from_choices(LedgerRecipe, self._choices)
        return [("ledger", ledger(self._store, Path(self._target), recipe, **self._model, **self._shared))]

    def _llc(self) -> list[tuple[str, Any]]:
        recipe = from_choices(LlcRecipe, self._choices)
        return [("llc", llc(self._store, Path(self._target), recipe, **self._model, **self._shared))]
