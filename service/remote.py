"""Commands that compute, against a service: their jobs are submitted there and waited for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .bars import JobBars, waiting_hint
from .client import Client, JobHandle
from .jobs import JobRow
from .records import Outcome, StoreError

__all__ = ["analyses", "computed", "waited"]

_STARTING = 3.0  # seconds that a worker may take to say that it runs, and until it is asked for again


def computed(
    client: Client,
    task: str,
    targets: Sequence[str | Path],
    choices: Mapping[str, Any],
    *,
    data: Path | None = None,
    factory: str | None = None,
    force: bool = False,
) -> list[JobHandle]:
    """The jobs of a task on several targets, when all have succeeded.

    Raises:
        StoreError: one of them failed; or a factory was given: a service builds models of installed families.
    """
    if factory is not None:
        raise StoreError(
            "--factory: a service builds models of installed families only; analyze it here, without --url"
        )
    given = {**choices, "data": data, "force": force or None}
    handles = [client.submit(task, target, given) for target in targets]
    rows = waited(client, [handle.row for handle in handles])
    for handle, row in zip(handles, rows, strict=True):
        handle.row = row
        if row.state != "succeeded":
            raise StoreError(f"{row.id} {row.state}: {row.error or 'it was stopped'}")
    return handles


def waited(source: Any, rows: Sequence[JobRow]) -> list[JobRow]:
    """Jobs of a store or a service when all have ended, with a bar for each; that there is no worker is said once."""
    ask, hint = time.monotonic() + _STARTING, None
    with JobBars(rows) as show:
        while True:
            rows = [row if row.ended else source.get_job(row.id) for row in rows]
            for row in rows:
                show(row)
            if all(row.ended for row in rows):
                return list(rows)
            if hint is None and time.monotonic() > ask:
                ask, hint = time.monotonic() + _STARTING, waiting_hint(rows, source)
                if hint is not None:
                    show.say(hint)
            time.sleep(0.3)


def analyses(client: Client, handles: Sequence[JobHandle]) -> list[Outcome]:
    """What the jobs of task "analyze" made."""
    outcomes = []
    for handle in handles:
        graph = client.get_graph(handle.result("graph"))
        partition = client.get_partition(handle.result("partition"))
        checkpoint, dataset = client.get_checkpoint(graph.checkpoint), client.get_dataset(graph.dataset)
        outcomes.append(Outcome(checkpoint=checkpoint, dataset=dataset, graph=graph, partition=partition))
    return outcomes
