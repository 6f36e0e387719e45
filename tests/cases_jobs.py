"""Asking for jobs and waiting for them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interbasis.service.records.jobs import JobRow
from interbasis.service.store.store import Store

LONG = {"temperature": 1000.0, "draws": 500, "warmup": 9}
"""Choices of an estimate that takes some seconds, in which its worker can be killed."""

ENDLESS = {"temperature": 1000.0, "draws": 1_000_000}


def ask(store: Store, task: str, target: Path | str, choices: dict[str, Any] | None = None, **options: Any) -> JobRow:
    """Submitted with the data that lie beside the checkpoint."""
    data = {"data": Path(target).with_name("x.npz")} if isinstance(target, Path) else {}
    return store.submit(task, target, {**data, **(choices or {})}, **options)


def wait(
    store: Store, *jobs: JobRow, seconds: float = 300, until: Callable[[JobRow], bool] | None = None
) -> list[JobRow]:
    """The jobs when all have ended, or are as wanted."""
    deadline = time.monotonic() + seconds
    while True:
        rows = [store.get_job(job.id) for job in jobs]
        if all(until(row) if until else row.ended for row in rows):
            return rows
        assert time.monotonic() < deadline, rows
        time.sleep(0.1)
