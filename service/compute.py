"""Computes the steps of jobs, in a process of its own: `python -m interbasis.service.compute`.

Standard input brings lines of JSON: first the store, then a job, and its steps one at a time with what those before
returned; then the next job. Standard output takes lines of JSON: progress, then the step's answer or its error. When
standard input ends, the worker is gone, and this process ends itself and everything it started.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

from ..analysis import Bases, InteractionGraph, Partition
from ..analysis.checkpoints.checkpoint import Checkpoint
from ..analysis.circuits.experiments import ExperimentRecipe
from ..analysis.errors import InterbasisError
from ..analysis.progress import Progress
from ..analysis.recipe import LedgerRecipe, LlcRecipe, Recipe, build_bases, build_graph, controlled, from_choices
from . import estimates, experiments, worker
from .checkout import checked_out, data_file, names_of_checkpoint, names_of_data, own_names
from .choices import check_choices
from .jobs import ON_CHECKPOINTS
from .records import ArtifactError, ReadOnlyError, StoreError, UnavailableError
from .store import Store

__all__ = ["main"]

Answer = dict[str, Any]
MadeT = TypeVar("MadeT")
_OFTEN = 0.1  # seconds between reports of progress
_PASSING = (ArtifactError, ReadOnlyError, UnavailableError)  # what may be better the next time
_BUGS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)  # what will be the same
_PATIENCE = 3600.0  # seconds for which a result waits for a server that is away


class _Steps:
    """The steps of every task, on an open store; what one of them loaded stays for the next."""

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
        """The checkpoint and the data on disk as long as steps are taken."""
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
        """Do one step; errors call files as the user does."""
        with own_names(self._names):
            return self._taken(step, before)

    def _taken(self, step: str, before: Mapping[str, Answer]) -> Answer:
        return {"analyze": self._analyze}.get(self._job["task"], self._whole)(step, before)

    def _whole(self, _step: str, _before: Mapping[str, Answer]) -> Answer:
        """Tasks of one step, which are functions of other modules."""
        task, target = self._job["task"], self._job["target"]
        shared: dict[str, Any] = {"force": self._force, "progress": self._tell}
        row: Any
        if task == "partition":
            row = worker.modules(self._store, target, self._choices, **shared)
        elif task == "track":
            ties = {name: value for name, value in self._choices.items() if name in ("like", "coupling", "align")}
            choices = {name: value for name, value in self._choices.items() if name not in ties}
            row = worker.track(self._store, target, choices, data=self._data, **ties, **shared)
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
        """A division beside that of an untrained copy of the network."""
        checkpoint, recipe = self._checkpoint()
        return controlled(partition, checkpoint, recipe, progress=self._tell)

    def _analyze(self, step: str, before: Mapping[str, Answer]) -> Answer:
        """Bases and graph are files of the artifact store as soon as they are there: nothing is computed twice."""
        if step == "partition":
            graph = before["store"]["results"][0]["id"]
            shared: dict[str, Any] = {"force": self._force, "progress": self._tell}
            row = worker.modules(self._store, graph, self._choices, control=self._control, **shared)
            return {"results": [{"kind": "partition", "id": row.id}]}
        checkpoint, recipe = self._checkpoint()
        if step == "load":
            found = None if self._force else worker.stored_graph(self._store, checkpoint, recipe.graph)
            if found is None:
                worker.check_registrable(self._store, checkpoint)
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
        saved = worker.save_graph(self._store, checkpoint, recipe.graph, bases, graph, start, force=self._force)
        return {"results": [{"kind": "graph", "id": saved.id}]}

    def _again(self, step: str, before: Mapping[str, Answer], read: Callable[[bytes], MadeT]) -> MadeT | None:
        """What a step before made; None where its file is gone, as `db gc` takes what waits for a day."""
        try:
            return read(self._store.blobs.get(before[step]["file"]))
        except ArtifactError:
            return None

    def _checkpoint(self) -> tuple[Checkpoint, Recipe]:
        if self._loaded is None:
            self._loaded = worker.load(self._file, self._choices, data=self._data)
        return self._loaded


def main() -> None:
    """Serve steps until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(commands,), daemon=True).start()
    about = commands.get()
    told = 0.0

    def tell(report: Progress) -> None:
        nonlocal told
        if time.monotonic() - told > _OFTEN or report.done == report.total:
            told = time.monotonic()
            fraction = report.done / report.total if report.total else None
            text = f"{report.step}: {report.message}" if report.message else report.step
            _say(answers, {"progress": {"phase": report.step, "fraction": fraction, "message": text}})

    with Store.open(about["store"], about["artifacts"], patience=_PATIENCE) as store, ExitStack() as files:
        job: dict[str, Any] = {}
        steps: _Steps | None = None
        while True:
            command = commands.get()
            if "job" in command:
                files.close()
                job, steps = command["job"], None
                continue
            try:
                if steps is None:
                    fresh = _Steps(store, job, tell)
                    files.enter_context(fresh.files())
                    steps = fresh
                done = steps.take(command["step"], command["before"])
            except Exception as error:
                _say(answers, _failure(error, store))
            else:
                _say(answers, {"done": done})


def _failure(error: Exception, store: Store) -> dict[str, Any]:
    """An error as an answer: input that cannot be used will not be better the next time; the store or memory may be.

    The traceback of an error that is none of ours, and where the store lies, are for the worker's log.
    """
    ours = isinstance(error, InterbasisError | StoreError)
    passing = isinstance(error, _PASSING) or not (ours or isinstance(error, _BUGS))
    message = str(error) if ours else f"{type(error).__name__}: {error} (the worker's log has the traceback)"
    trace = None if ours else "".join(traceback.format_exception(error))
    places = {str(store.location.artifacts): "the store's folder", str(store.location): "the store"}
    for place, name in places.items():
        if place in message:
            trace, message = trace or message, message.replace(place, name)
    return {"error": message, "final": not passing, "trace": trace}


def _say(answers: TextIO, message: Mapping[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        answers.write(json.dumps(message) + "\n")


def _listen(commands: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin.buffer:
        commands.put(json.loads(line))
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
