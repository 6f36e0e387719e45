"""Compute the steps of jobs in a separate process: `python -m interbasis.service.jobs.compute`.

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
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, TextIO

from ...analysis.devices.memory import limited_memory
from ...analysis.errors import InterbasisError
from ...analysis.progress import Progress
from ..records.errors import ArtifactError, ReadOnlyError, StoreError, UnavailableError
from ..store.store import Store
from .steps import OFTEN, Steps

__all__ = ["main"]

_PASSING = (ArtifactError, ReadOnlyError, UnavailableError)  # what may be better the next time

_BUGS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)  # what will be the same

_PATIENCE = 3600.0  # seconds for which a result waits for a server that is away


def main() -> None:
    """Run steps until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(commands,), daemon=True).start()
    about = commands.get()
    told = 0.0

    def tell(report: Progress) -> None:
        nonlocal told
        if time.monotonic() - told > OFTEN or report.done == report.total:
            told = time.monotonic()
            fraction = report.done / report.total if report.total else None
            text = f"{report.step}: {report.message}" if report.message else report.step
            _say(answers, {"progress": {"phase": report.step, "fraction": fraction, "message": text}})

    with (
        Store.open(about["store"], about["artifacts"], patience=_PATIENCE) as store,
        limited_memory(about["memory"]),
        ExitStack() as files,
    ):
        job: dict[str, Any] = {}
        steps: Steps | None = None
        while True:
            command = commands.get()
            if "job" in command:
                files.close()
                job, steps = command["job"], None
                continue
            try:
                if steps is None:
                    fresh = Steps(store, job, tell, about["device"])
                    files.enter_context(fresh.files())
                    steps = fresh
                done = steps.take(command["step"], command["before"])
            except Exception as error:
                _say(answers, _failure(error, store))
            else:
                _say(answers, {"done": done})


def _failure(error: Exception, store: Store) -> dict[str, Any]:
    """Describe an error for the worker; `final` means invalid input, for which another try cannot help.

    The worker's log alone gets the traceback of unexpected errors, and the location of the store.
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
