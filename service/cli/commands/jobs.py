"""The commands about jobs: submit, cancel, retry, worker. Starts without torch."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ...records.choices import check_choices
from ...records.errors import StoreError
from ...records.jobs import JobRow
from ...terminal.progress import ProgressBars, waiting_hint
from ...terminal.show import err, out, print_json
from ...terminal.views import details, rows_table
from ..backends import Given, checkpoint_files, makes_store, waited
from ..completion import complete_ids
from ..options import (
    ArtifactsOption,
    ChoiceOption,
    DataOption,
    DeviceOption,
    ForceOption,
    JobArgument,
    JsonOption,
    LogOption,
    MemoryOption,
    QueueOption,
    RecipeOption,
    StoreOption,
    TaskArgument,
    UrlOption,
    check_device,
    check_memory,
    with_place,
)
from ..seeds import at_distance, before_distance
from ..sources import named_choices, opened_source, opened_store, recipe_choices

__all__ = ["app"]

_log = logging.getLogger(__name__)

app = typer.Typer()


@app.command(rich_help_panel="Jobs")
def submit(
    task: TaskArgument,
    targets: Annotated[
        list[str],
        typer.Argument(
            help="Checkpoints, as files or IDs; for partition graphs, for experiment, describe and compare "
            "partitions, for track models, for import files.",
            autocompletion=complete_ids("checkpoint", "partition", "graph", "model"),
        ),
    ],
    choice: ChoiceOption = None,
    recipe: RecipeOption = None,
    data: DataOption = None,
    queue: QueueOption = "default",
    priority: Annotated[int, typer.Option(help="Priority: jobs with smaller numbers go first.")] = 0,
    timeout: Annotated[float | None, typer.Option(help="Seconds until a run is stopped.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Wait until the jobs have ended, and show progress.")] = False,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit jobs to the queue; workers run them (`interbasis worker`).

    Example: interbasis submit llc two-digits@last --set epsilon=0.01 --watch
    Example: interbasis submit llc run1/last.safetensors --set 'epsilon=seeds:run*/last.safetensors'
    """
    choices: dict[str, Any] = {**recipe_choices(recipe), **named_choices(choice or [])}
    plain = before_distance(choices)
    own_data = data is not None and (task != "partition" or plain == choices)  # else the data of the distances only
    more = ({"data": str(data)} if own_data else {}) | ({"force": True} if force else {})
    choices |= more
    options: dict[str, Any] = {"queue": queue, "priority": priority, "timeout": timeout}
    create = makes_store(task, targets)
    check_choices(task, plain | more)
    files = checkpoint_files(task, targets)
    named: list[Any] = [
        Path(t) if Path(t) in files or (task == "import" and not t.startswith("sha256:")) else t for t in targets
    ]
    with opened_source(store, artifacts, url, create=create) as opened:
        with ProgressBars(err) as bars:
            of = [str(target) if task == "partition" else None for target in named]
            chosen = [at_distance(opened, bars, choices, Given(data), graph) for graph in of]
        with opened.together(files):
            asked = [opened.submit(task, t, own, **options) for t, own in zip(named, chosen, strict=True)]
        rows = [job if isinstance(job, JobRow) else job.row for job in asked]
        if watch:
            rows = waited(opened, rows)
        elif hint := waiting_hint(rows, opened):
            err.print(with_place(hint), soft_wrap=True)
    _show_all(rows, as_json)


@app.command(rich_help_panel="Jobs")
def cancel(
    job: JobArgument,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cancel a job that waits or runs.

    Example: interbasis cancel j-1a2b3c4d
    """
    with opened_source(store, artifacts, url) as opened:
        _show(opened.cancel_job(job), as_json)


@app.command(rich_help_panel="Jobs")
def retry(
    job: JobArgument,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Queue a job again that failed or was cancelled.

    Example: interbasis retry j-1a2b3c4d
    """
    with opened_source(store, artifacts, url) as opened:
        _show(opened.retry_job(job), as_json)


@app.command(rich_help_panel="Jobs")
def worker(
    name: Annotated[
        str | None, typer.Option(help="Stable and unique name of the worker.", show_default="the host's name")
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=N]", help="Queue to take jobs from, N at a time; may be given several times."),
    ] = None,
    device: DeviceOption = None,
    memory: MemoryOption = None,
    log: LogOption = "text",
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
) -> None:
    """Run jobs until Ctrl-C; then return unfinished jobs to the queue.

    Example: interbasis worker --name gpu-1 --queue gpu=1 --device cuda
    """
    from ...jobs.worker import Supervisor, stop_on_signals
    from ...logs import configure

    configure(log)
    check_device(device)
    check_memory(memory)
    with opened_store(store, artifacts) as opened:
        queues = _queues(queue or ["default"])
        supervisor = Supervisor(opened, name=name or socket.gethostname(), queues=queues, device=device, memory=memory)
        stop_on_signals(supervisor)
        if parent is not None:
            supervisor.stop_without(parent)
        if log == "json":
            fields = {"worker": supervisor.name, "store": str(opened.location)}
            _log.info("worker %s on %s", supervisor.name, opened.location, extra={"fields": fields})
        else:
            err.print(f"worker {supervisor.name} on {opened.location}; Ctrl-C stops it", soft_wrap=True)
        supervisor.run()
    os._exit(0)  # threads of unfinished runs wait for ever


@app.command(rich_help_panel="Jobs")
def watch(
    jobs: Annotated[list[str], typer.Argument(help="IDs of jobs.", autocompletion=complete_ids("job"))],
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wait until jobs have ended, and show their progress; Ctrl-C leaves them running.

    Example: interbasis watch j-1a2b3c4d
    """
    with opened_source(store, artifacts, url) as opened:
        rows = waited(opened, [opened.get_job(job) for job in jobs])
    _show_all(rows, as_json)


def _show_all(rows: Sequence[JobRow], as_json: bool) -> None:
    """Print jobs, one in full, several as a table; end with exit code 1 where one did not succeed."""
    if as_json:
        print_json({"items": [row.to_json() for row in rows]})
    else:
        out.print(details(rows[0]) if len(rows) == 1 else rows_table("jobs", rows))
    if any(row.state in ("failed", "cancelled") for row in rows):
        raise typer.Exit(1)


def _queues(given: list[str]) -> dict[str, int | None]:
    """Parse `name` or `name=n`: a queue, and how many of its jobs a worker runs at a time."""
    queues: dict[str, int | None] = {}
    for text in given:
        name, equals, count = text.partition("=")
        if equals and not count.isdecimal():
            raise StoreError(f"--queue {text!r}: expected NAME or NAME=N")
        queues[name] = int(count) if equals else None
    return queues


def _show(row: JobRow, as_json: bool) -> None:
    if as_json:
        print_json(row.to_json())
    else:
        out.print(details(row))
