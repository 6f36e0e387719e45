"""The commands that list what is stored: ls, jobs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ...records.base import Page, parse_moment
from ...records.errors import StoreError
from ...records.jobs import STATES
from ...records.kinds import KINDS as STORED
from ...terminal.results import partition_notes
from ...terminal.show import out, print_json, show_page
from ..completion import complete_ids, complete_kinds, complete_verdicts
from ..options import ArtifactsOption, JsonOption, StoreOption, UrlOption
from ..sources import KINDS, missing_store, opened_source, singular

__all__ = ["app", "print_list"]

app = typer.Typer()

_SHOWN, _IN_JSON = 50, 100  # rows of a list, where no limit is given

LimitOption = Annotated[
    int | None,
    typer.Option(min=1, max=1000, help="Number of rows to list.", show_default=f"{_SHOWN}, with --json {_IN_JSON}"),
]

AfterOption = Annotated[
    str | None,
    typer.Option("--after", "--cursor", help="Go on after this place: the `next_cursor` of the list before."),
]

AllOption = Annotated[bool, typer.Option("--all", help="List all rows.")]

Read = Callable[[Any, dict[str, Any]], Page[Any]]  # a page, from a source and the part to read


@app.command(rich_help_panel="What is stored")
def ls(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS.values())}.", autocompletion=complete_kinds)],
    model: Annotated[
        str | None,
        typer.Option(help="Only what belongs to this model.", autocompletion=complete_ids("model")),
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Only what belongs to this run, as MODEL#2.", autocompletion=complete_ids("run"))
    ] = None,
    step: Annotated[int | None, typer.Option(help="Only checkpoints of this step, and their results.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only what was stored since: 30min, 2h, 3d or 1w ago, or a date (local time).")
    ] = None,
    verdict: Annotated[
        str | None,
        typer.Option(help="Only results with this verdict, or one that starts so.", autocompletion=complete_verdicts),
    ] = None,
    newest_first: Annotated[
        bool | None,
        typer.Option(
            "--newest-first/--oldest-first", help="Order of the list.", show_default="newest first, oldest with --json"
        ),
    ] = None,
    limit: LimitOption = None,
    after: AfterOption = None,
    every: AllOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List stored things of one kind.

    Example: interbasis ls partitions --model two-digits --since 3d --verdict supported
    """
    name = singular(kind, plural=True)
    kind = KINDS[name]
    by = {"model": model, "run": run, "step": step, "since": _moment(since), "verdict": verdict}
    given = {each: value for each, value in by.items() if value is not None}
    known = () if name not in STORED else (*STORED[name].filters, *STORED[name].narrowings)
    for each in given:
        if each not in known:
            having = f": it has {', '.join(f'--{k}' for k in by if k in known)}" if known else ""
            raise StoreError(f"--{each}: the list of {kind} cannot be narrowed by it{having}")
    order = {"newest_first": not as_json if newest_first is None else newest_first}

    def read(source: Any, part: dict[str, Any], by: dict[str, Any] = given) -> Page[Any]:
        page: Page[Any] = getattr(source, f"{name}s")(**part, **order, **by)
        return page

    paging = (limit, after, every)
    print_list(kind, (store, artifacts, url), as_json, paging, read, lambda s, p: read(s, p, {}))


@app.command(rich_help_panel="Jobs")
def jobs(
    state: Annotated[
        str | None,
        typer.Option(help=f"List only jobs in this state: {', '.join(STATES)}.", autocompletion=lambda: list(STATES)),
    ] = None,
    limit: LimitOption = None,
    after: AfterOption = None,
    every: AllOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first.

    Example: interbasis jobs --state running
    """
    if state is not None and state not in STATES:
        raise StoreError(f"there is no state {state!r}: expected one of {', '.join(STATES)}")
    asked = {"state": state, "newest_first": True}
    place, paging = (store, artifacts, url), (limit, after, every)
    print_list("jobs", place, as_json, paging, lambda s, p: s.jobs(**p, **asked), lambda s, p: s.jobs(**p))


def print_list(
    kind: str,
    place: tuple[str | None, str | None, str | None],
    as_json: bool,
    paging: tuple[int | None, str | None, bool],
    read: Read,
    read_all: Read | None = None,
) -> None:
    """Print a list, or the part of it that is asked for, and say how the rest is listed.

    Args:
        kind: name of the list.
        place: store, artifacts and URL.
        as_json: whether to print JSON.
        paging: number of rows, where to go on, and whether to read all.
        read: reads a part of the list.
        read_all: reads a part of the list of all things of the kind, where `read` leaves some out.
    """
    limit, after, every = paging
    if (file := missing_store(*place)) is not None:
        _say_missing(file, as_json)
        return
    part: dict[str, Any] = {"cursor": after, "limit": 1000 if every else limit or (_IN_JSON if as_json else _SHOWN)}
    with opened_source(*place) as opened:
        page = read(opened, part)
        while every and page.next_cursor is not None:
            more = read(opened, {**part, "cursor": page.next_cursor})
            page = Page(items=page.items + more.items, next_cursor=more.next_cursor, total=page.total)
        stored = page.total
        if not page.items and not as_json and read_all is not None:
            stored = read_all(opened, {"limit": 1}).total
    show_page(kind, page, as_json, stored)
    if as_json:
        return
    for note in partition_notes(page.items, reasons=False) if kind == "partitions" else ():
        out.print(note)
    if page.next_cursor:
        number = f"{len(page.items)} of {page.total}" if page.total is not None else f"{len(page.items)}, and more"
        out.print(f"{number}: --all lists all, and what follows\n--after {page.next_cursor}", soft_wrap=True)


def _say_missing(file: Path, as_json: bool) -> None:
    if as_json:
        print_json(Page(items=(), total=0).to_json())
    else:
        out.print(f"nothing stored yet in {file}", soft_wrap=True)


def _moment(since: str | None) -> datetime | None:
    """Read a moment; one without a time zone is in local time."""
    return None if since is None else parse_moment(since).astimezone()
