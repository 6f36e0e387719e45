"""Sources of commands: a local store, or a service."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..client.client import Client, JobHandle
from ..records.errors import StoreError
from ..records.jobs import JobRow
from ..records.partitions import Outcome
from ..storage.location import Settings
from ..store.store import Store
from ..terminal.progress import JobBars, waiting_hint
from ..terminal.tables import COLUMNS

__all__ = [
    "KINDS",
    "allow",
    "analyses",
    "computed",
    "loss_scale",
    "named_choices",
    "opened_source",
    "opened_store",
    "recipe_choices",
    "singular",
    "waited",
]

KINDS = {kind.removesuffix("s"): kind for kind in COLUMNS}
"""For each kind of stored thing, the name of one and the name of its list."""


@contextmanager
def opened_store(store: str | None, artifacts: str | None) -> Iterator[Store]:
    """Open the store that the options name, and close it afterwards."""
    with Store.open(store, artifacts) as opened:
        yield opened


@contextmanager
def opened_source(store: str | None, artifacts: str | None, url: str | None) -> Iterator[Store | Client]:
    """Open the service that the options name, else the store; the token comes from `INTERBASIS_TOKEN`."""
    if url is None:
        with opened_store(store, artifacts) as opened:
            yield opened
        return
    from ..client.client import Client

    with Client(url, Settings().token) as client:
        yield client


def loss_scale(epsilon: str | None) -> float | str | list[float] | None:
    """Parse a loss scale: a number, a name, or one number per pair of cuts."""
    if epsilon is None or epsilon in ("graph", "pairs"):
        return epsilon
    try:
        values = [float(part) for part in epsilon.split(",")]
    except ValueError:
        raise StoreError(
            f"--epsilon is {epsilon!r}: expected a number, numbers with commas between, 'graph' or 'pairs'"
        ) from None
    return values if len(values) > 1 else values[0]


def recipe_choices(file: Path | None) -> dict[str, Any]:
    """Read the choices of a recipe file; return none without a file."""
    if file is None:
        return {}
    from ...analysis.recipe import read_choices

    return dict(read_choices(file))


def named_choices(given: list[str]) -> dict[str, Any]:
    """Parse `name=value` choices; read numbers, true, false and JSON lists as such.

    >>> named_choices(["epsilon=0.1", "basis=local"])
    {'epsilon': 0.1, 'basis': 'local'}

    Raises:
        StoreError: a choice has no "=".
    """
    choices = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise StoreError(f"--set {text!r}: expected NAME=VALUE")
        try:
            choices[name.replace("-", "_")] = json.loads(value)
        except (ValueError, RecursionError):  # it is text, or nested too deeply, which is refused as text is
            choices[name.replace("-", "_")] = value
    return choices


def allow(factory: str | None) -> None:
    """Let Python find the user's own modules in the current folder, for a factory."""
    if factory:
        sys.path.insert(0, str(Path.cwd()))


def singular(name: str) -> str:
    """Return the singular name of a kind, given in singular or plural.

    >>> singular("partitions"), singular("llc")
    ('partition', 'llc')

    Raises:
        StoreError: the kind is unknown.
    """
    for one, many in KINDS.items():
        if name in (one, many, f"{one}s"):
            return one
    raise StoreError(f"unknown kind {name!r}: expected one of {', '.join(KINDS.values())}")


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
    """Run a task on several targets by a service; return its jobs when all have succeeded.

    Raises:
        StoreError: a job failed; or a factory was given: a service builds only models of installed families.
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
    """Wait for jobs of a store or a service, with a bar for each; warn once if there is no worker."""
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
    """Return the results of jobs of task "analyze"."""
    outcomes = []
    for handle in handles:
        graph = client.get_graph(handle.result("graph"))
        partition = client.get_partition(handle.result("partition"))
        checkpoint, dataset = client.get_checkpoint(graph.checkpoint), client.get_dataset(graph.dataset)
        outcomes.append(Outcome(checkpoint=checkpoint, dataset=dataset, graph=graph, partition=partition))
    return outcomes
