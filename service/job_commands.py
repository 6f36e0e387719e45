"""The commands about jobs: submit, jobs, cancel, retry, worker. Starts without torch."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .display import details, rows_table
from .jobs import STATES, TASKS, JobRow
from .options import (
    ArtifactsOption,
    DataOption,
    ForceOption,
    JsonOption,
    StoreOption,
    err,
    opened_store,
    out,
    print_json,
)
from .records import StoreError
from .store import Store

__all__ = ["app"]

app = typer.Typer()

_WATCH = 0.3  # seconds between looks at a job


@app.command()
def submit(
    task: Annotated[str, typer.Argument(help=f"{', '.join(TASKS)}.")],
    targets: Annotated[list[str], typer.Argument(help="Checkpoint files; of partition graphs, of track models.")],
    choice: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A choice of the recipe; may be given several times."),
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="A .toml or .json file of choices.")] = None,
    data: DataOption = None,
    priority: Annotated[int, typer.Option(help="Smaller numbers go first.")] = 0,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which a run is stopped.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for the end, with progress.")] = False,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put work in the queue; workers do it (`interbasis worker`)."""
    choices: dict[str, Any] = {**_recipe(recipe), **_choices(choice or [])}
    choices |= {"data": str(data) if data else None, "force": force or None}
    with opened_store(store, artifacts) as opened:
        rows = [opened.submit(task, t, choices, priority=priority, timeout=timeout) for t in targets]
        if watch:
            rows = _watched(opened, rows)
    if as_json:
        print_json({"items": [row.to_json() for row in rows]})
    else:
        for row in rows:
            out.print(details(row))
    if any(row.state in ("failed", "cancelled") for row in rows):
        raise typer.Exit(1)


@app.command()
def jobs(
    state: Annotated[str | None, typer.Option(help=f"Only these: {', '.join(STATES)}.")] = None,
    limit: Annotated[int, typer.Option(help="The newest so many.")] = 20,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, the newest first."""
    with opened_store(store, artifacts) as opened:
        page = opened.jobs(state=state, limit=limit, newest_first=True)
    if as_json:
        print_json(page.to_json())
    elif page.items:
        out.print(rows_table("jobs", page.items))
    else:
        err.print("no jobs: submit some with `interbasis submit`")


@app.command()
def cancel(
    job: Annotated[str, typer.Argument(help="ID of a job.")],
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop a job that waits or runs."""
    with opened_store(store, artifacts) as opened:
        _show(opened.cancel_job(job), as_json)


@app.command()
def retry(
    job: Annotated[str, typer.Argument(help="ID of a job.")],
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Queue a job again that failed or was cancelled."""
    with opened_store(store, artifacts) as opened:
        _show(opened.retry_job(job), as_json)


@app.command()
def worker(
    name: Annotated[str | None, typer.Option(help="Stable and unique; default: the host's name.")] = None,
    concurrency: Annotated[int, typer.Option(help="Jobs at a time.")] = 1,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
) -> None:
    """Run jobs until Ctrl-C; what is unfinished then goes back to the queue."""
    from .supervisor import Supervisor, stop_on_signals

    with opened_store(store, artifacts) as opened:
        supervisor = Supervisor(opened, name=name or socket.gethostname(), concurrency=concurrency)
        stop_on_signals(supervisor)
        err.print(f"worker {supervisor.name} on {opened.location}; Ctrl-C stops it", soft_wrap=True)
        supervisor.run()
    os._exit(0)  # threads of unfinished runs wait for ever


def _recipe(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    from ..analysis.recipe import read_choices

    return dict(read_choices(file))


def _choices(given: list[str]) -> dict[str, Any]:
    """`name=value` as a choice; numbers, true, false and JSON lists are read as such."""
    import json

    choices = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise StoreError(f"--set {text!r}: expected NAME=VALUE")
        try:
            choices[name.replace("-", "_")] = json.loads(value)
        except ValueError:
            choices[name.replace("-", "_")] = value
    return choices


def _watched(store: Store, rows: list[JobRow]) -> list[JobRow]:
    """The jobs when all have ended, with a bar for each that has not."""
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn()
    with Progress(*columns, console=err, transient=True) as bars:
        tasks = {row.id: bars.add_task(f"{row.task} {row.id}", total=1.0, note=row.state) for row in rows}
        while True:
            rows = [store.get_job(row.id) for row in rows]
            for row in rows:
                note = " ".join(part for part in (row.state, row.step, row.message) if part)
                bars.update(tasks[row.id], completed=row.fraction or 0.0, note=note)
            if all(row.ended for row in rows):
                return rows
            time.sleep(_WATCH)


def _show(row: JobRow, as_json: bool) -> None:
    if as_json:
        print_json(row.to_json())
    else:
        out.print(details(row))
