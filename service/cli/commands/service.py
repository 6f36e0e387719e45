"""The commands of the service: serve, register, schedule, token. Starts without torch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from ...records.checkpoints import check_suffix, of_checkpoint
from ...records.errors import StoreError
from ...records.jobs import SCOPES
from ...terminal.progress import ProgressBars
from ...terminal.show import err, out, print_json, show_row
from ...terminal.views import rows_table
from ..backends import Given
from ..completion import complete_ids
from ..options import (
    ArtifactsOption,
    CheckpointsArgument,
    ChoiceOption,
    DataOption,
    DeviceOption,
    JsonOption,
    LogOption,
    MemoryOption,
    RecipeOption,
    StoreOption,
    TaskArgument,
    UrlOption,
    check_device,
    check_memory,
)
from ..seeds import at_distance
from ..sources import named_choices, opened_source, opened_store, recipe_choices
from .lists import print_list

__all__ = ["app"]

_log = logging.getLogger(__name__)

app = typer.Typer()

schedule = typer.Typer(help="Submit jobs at set times, or for each new checkpoint.", no_args_is_help=True)

token = typer.Typer(help="Manage tokens, the secrets that give access to the service.", no_args_is_help=True)

app.add_typer(schedule, name="schedule", rich_help_panel="Jobs")

app.add_typer(token, name="token", rich_help_panel="Service and store")

ScheduleArgument = Annotated[
    str, typer.Argument(metavar="SCHEDULE", help="ID of a schedule.", autocompletion=complete_ids("schedule"))
]


@app.command(rich_help_panel="Service and store")
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; any but a local one needs a token.")] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free one.", min=0, max=65535)] = 8422,
    workers: Annotated[int, typer.Option(help="Number of processes that run jobs; at most one on SQLite.", min=0)] = 1,
    root: Annotated[
        list[Path] | None, typer.Option(help="Folder with files that requests may name; may be given several times.")
    ] = None,
    max_upload: Annotated[int, typer.Option(help="Largest size of an uploaded file, in megabytes.", min=1)] = 2048,
    device: DeviceOption = None,
    memory: MemoryOption = None,
    allow_pt: Annotated[bool, typer.Option("--allow-pt", help="Accept .pt files too, read with weights_only.")] = False,
    log: LogOption = "text",
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
) -> None:
    """Answer requests and run jobs until Ctrl-C; then return unfinished jobs to the queue.

    Example: interbasis serve --root run
    """
    from ...api.guard import Limits
    from ...api.serve import serve as run
    from ...logs import configure

    for folder in root or []:
        if not folder.is_dir():
            raise StoreError(f"--root {folder}: there is no such folder")
    roots = tuple(folder.resolve() for folder in root or [])
    configure(log)
    check_device(device)
    check_memory(memory)
    with opened_store(store, artifacts) as opened:
        limits = Limits(roots=roots, upload=max_upload * 10**6, pt=allow_pt, host=host)

        def ready(url: str) -> None:
            if log == "json":
                fields = {"url": url, "store": str(opened.location), "needs_token": opened.needs_token()}
                _log.info("interbasis serves %s at %s", opened.location, url, extra={"fields": fields})
                return
            err.print(f"interbasis serves {opened.location} at {url}", soft_wrap=True)
            if opened.needs_token():
                err.print("Requests need a token: Authorization: Bearer ib_... (INTERBASIS_TOKEN)", soft_wrap=True)
            err.print(f"  interbasis ls models --url {url}\nCtrl-C stops it", soft_wrap=True)

        run(
            opened,
            host=host,
            port=port,
            workers=workers,
            limits=limits,
            device=device,
            memory=memory,
            log_form=log,
            ready=ready,
        )


@app.command(rich_help_panel="Jobs")
def register(
    checkpoints: CheckpointsArgument,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register checkpoints, so that jobs and schedules find them; compute nothing.

    Example: interbasis register run/step500.safetensors
    """
    for file in checkpoints:  # before a store is made
        check_suffix(file)
        of_checkpoint(file)
    with opened_source(store, artifacts, url, create=True) as opened, opened.together(checkpoints):
        rows = [opened.register_checkpoint(file) for file in checkpoints]
    if as_json:
        print_json({"items": [row.to_json() for row in rows]})
    else:
        out.print(rows_table("checkpoints", rows))


@schedule.command("add")
def add_schedule(
    task: TaskArgument,
    model: Annotated[str, typer.Argument(help="Name of the model, which may not be stored yet.")],
    cron: Annotated[
        str | None,
        typer.Option(help='Times in UTC, as in crontab: "0 2 * * *".', show_default="each new checkpoint"),
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder to watch for new checkpoints of the model.")] = None,
    choice: ChoiceOption = None,
    recipe: RecipeOption = None,
    data: DataOption = None,
    queue: Annotated[str, typer.Option(help="Queue of the jobs.")] = "default",
    priority: Annotated[int, typer.Option(help="Priority of the jobs.")] = 0,
    timeout: Annotated[float | None, typer.Option(help="Timeout of the jobs, in seconds.")] = None,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a schedule: workers submit its jobs at set times, or for each new checkpoint.

    Example: interbasis schedule add analyze two-digits --folder run
    """
    choices: dict[str, Any] = {**recipe_choices(recipe), **named_choices(choice or [])}
    choices |= {"data": str(data.resolve()) if data else None}
    options: dict[str, Any] = {"queue": queue, "priority": priority, "timeout": timeout, "cron": cron}
    where = None if folder is None else folder.resolve()
    with opened_source(store, artifacts, url, create=True) as opened:
        with ProgressBars(err) as bars:
            choices = at_distance(opened, bars, choices, Given(data))
        show_row(opened.add_schedule(task, model, choices, folder=where, **options), as_json)


@schedule.command("ls")
def list_schedules(
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List schedules.

    Example: interbasis schedule ls
    """
    print_list("schedules", (store, artifacts, url), as_json, (None, None, True), lambda s, part: s.schedules(**part))


@schedule.command()
def pause(
    ref: ScheduleArgument, store: StoreOption = None, artifacts: ArtifactsOption = None, url: UrlOption = None
) -> None:
    """Pause a schedule.

    Example: interbasis schedule pause s-1a2b3c4d
    """
    with opened_source(store, artifacts, url) as opened:
        show_row(opened.pause_schedule(ref), False)


@schedule.command()
def resume(
    ref: ScheduleArgument, store: StoreOption = None, artifacts: ArtifactsOption = None, url: UrlOption = None
) -> None:
    """Resume a schedule.

    Example: interbasis schedule resume s-1a2b3c4d
    """
    with opened_source(store, artifacts, url) as opened:
        show_row(opened.resume_schedule(ref), False)


@schedule.command("run")
def run_now(
    ref: ScheduleArgument, store: StoreOption = None, artifacts: ArtifactsOption = None, url: UrlOption = None
) -> None:
    """Submit a schedule's jobs now.

    Example: interbasis schedule run s-1a2b3c4d
    """
    with opened_source(store, artifacts, url) as opened:
        show_row(opened.run_schedule(ref), False)


@schedule.command("rm")
def remove(
    ref: ScheduleArgument, store: StoreOption = None, artifacts: ArtifactsOption = None, url: UrlOption = None
) -> None:
    """Remove a schedule; its jobs stay.

    Example: interbasis schedule rm s-1a2b3c4d
    """
    with opened_source(store, artifacts, url) as opened:
        opened.remove_schedule(ref)
    err.print(f"removed {ref}")


@token.command("new")
def new_token(
    name: Annotated[str, typer.Argument(help="What the token is for.")],
    scope: Annotated[
        str,
        typer.Option(
            help=f"Scope: {', '.join(SCOPES)}; each includes those before it.", autocompletion=lambda: list(SCOPES)
        ),
    ] = "read",
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it, only this once; from the first token on every request needs one.

    Example: interbasis token new operator --scope admin
    """
    with opened_source(store, artifacts, url, create=True) as opened:
        first = not opened.tokens(limit=1).items
        made = opened.new_token(name, scope)
    if as_json:
        print_json(made.to_json())
    else:
        out.print(made.token, soft_wrap=True)
        err.print(f"{made.id}: scope {scope}; it cannot be shown again", soft_wrap=True)
    if first:
        err.print("This is the first token: from now on every request to the service needs one.", soft_wrap=True)
    if first and scope != "admin":
        err.print(
            f"With scope {scope} it cannot manage tokens. To make more over HTTP, make one of scope admin on the "
            "service's machine: interbasis token new NAME --scope admin --store STORE",
            soft_wrap=True,
        )


@token.command("ls")
def list_tokens(
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List tokens, without their secrets.

    Example: interbasis token ls
    """
    print_list("tokens", (store, artifacts, url), as_json, (None, None, True), lambda s, part: s.tokens(**part))


@token.command()
def revoke(
    ref: Annotated[str, typer.Argument(metavar="TOKEN", help="ID of a token.", autocompletion=complete_ids("token"))],
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
) -> None:
    """Revoke a token, at once and for ever.

    Example: interbasis token revoke t-1a2b3c4d
    """
    with opened_source(store, artifacts, url) as opened:
        show_row(opened.revoke_token(ref), False)
