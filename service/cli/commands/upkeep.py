"""The commands that change what is stored: rm, rename, relocate; and those that maintain the database."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ...records.errors import NotFoundError, StoreError
from ...records.kinds import KINDS
from ...records.maintenance import Removal
from ...store.store import Store
from ...terminal.show import err, out, print_json, show_row
from ...terminal.tables import counted
from ..completion import complete_ids
from ..options import ArtifactsOption, JsonOption, StoreOption, UrlOption
from ..sources import found_by_name, opened_source, singular

__all__ = ["app", "db"]

app = typer.Typer()

db = typer.Typer(help="Maintain the store's database.", no_args_is_help=True)

_NAMES = {kind.plural: kind.name for kind in KINDS.values()}


@app.command(rich_help_panel="What is stored")
def rm(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[KIND] REF...",
            help=f"What to remove: a kind ({', '.join(KINDS)}; default: as `show` finds it).",
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove stored things with all that belongs to them; say what goes along, and ask first.

    Files that nothing refers to any more are removed by `interbasis db gc`.

    Example: interbasis rm run two-digits#1
    """
    kind, refs = None, words
    if len(words) > 1 and words[0] in {*KINDS, *_NAMES}:
        kind, refs = singular(words[0]), words[1:]
    elif "last" in refs:
        raise StoreError("rm last: say of which kind, as in `interbasis rm partition last`")
    with opened_source(store, artifacts, url) as opened:
        plans = {plan.id: plan for plan in (_planned(opened, kind, ref) for ref in refs)}
        if not yes:
            for plan in plans.values():
                err.print(_described(plan), soft_wrap=True)
            _ask()
        gone = _removed(opened, list(plans.values()))
    if as_json:
        print_json({"items": [each.to_json() for each in gone]})
        return
    for each in gone:
        out.print(f"removed {_described(each)}", soft_wrap=True)


@app.command(rich_help_panel="What is stored")
def rename(
    model: Annotated[str, typer.Argument(help="Name or ID of a model.", autocompletion=complete_ids("model"))],
    name: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a model another name; files whose JSON names the old one still belong to a model of that name.

    Example: interbasis rename two-digits two-digits-wide
    """
    with opened_source(store, artifacts, url) as opened:
        show_row(opened.rename_model(model, name), as_json)


@app.command(rich_help_panel="What is stored")
def relocate(
    checkpoint: Annotated[
        str, typer.Argument(help="A checkpoint: an ID, or MODEL@STEP.", autocompletion=complete_ids("checkpoint"))
    ],
    file: Annotated[Path, typer.Argument(help="Its file or folder, where it is now.")],
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say where the file or folder of a checkpoint is now; its content must be the same.

    Example: interbasis relocate two-digits@2500 moved/step02500.safetensors
    """
    with opened_source(store, artifacts, url) as opened:
        show_row(opened.relocate_checkpoint(checkpoint, file), as_json)


@db.command()
def upgrade(store: StoreOption = None) -> None:
    """Upgrade the database's schema to this version.

    Example: interbasis db upgrade
    """
    done = Store.upgrade(store)
    before = done.before or "an empty database"
    out.print(f"nothing to do: {done.after}" if done.before == done.after else f"upgraded {before} to {done.after}")


@db.command()
def check(
    store: StoreOption = None, artifacts: ArtifactsOption = None, url: UrlOption = None, as_json: JsonOption = False
) -> None:
    """Check the database and every stored file; exit code 1 where something is damaged.

    Example: interbasis db check
    """
    with opened_source(store, artifacts, url) as opened:
        report = opened.check()
    if as_json:
        print_json(report.to_json())
    else:
        for problem in report.problems:
            out.print(problem, style="red", soft_wrap=True)
        read, problems = counted(report.n_artifacts, "file"), counted(len(report.problems), "problem")
        out.print(f"{read} read, {problems}", soft_wrap=True)
        if report.uncollected:
            out.print(f"of no result (harmless leftovers): {counted(len(report.uncollected), 'file')}")
    if not report.ok:
        raise typer.Exit(1)


@db.command()
def gc(
    grace: Annotated[float, typer.Option(help="Least age of a file, in hours; jobs write files before rows.")] = 24.0,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove unused stored files: leftovers of interrupted and replaced results.

    Example: interbasis db gc --grace 24
    """
    if not grace >= 0:
        raise StoreError(f"--grace is {grace:g}: expected hours, at least 0")
    with opened_source(store, artifacts, url) as opened:
        found = opened.collect(grace * 3600)
    if as_json:
        print_json(found.to_json())
    else:
        out.print(f"removed {counted(len(found.files), 'file')}, {found.bytes / 1e6:.1f} MB")


def _planned(opened: Any, kind: str | None, ref: str) -> Removal:
    """Return what would be removed by a reference, to a thing of any kind where none is given."""
    if kind is None:
        kind, row = found_by_name(opened, ref, KINDS)
        ref = row.id
    planned: Removal = opened.removal(KINDS[kind], ref)
    return planned


def _removed(opened: Any, plans: Sequence[Removal]) -> list[Removal]:
    """Remove things; those that went along with one before are gone already, and are part of what is said of that."""
    gone: list[Removal] = []
    for plan in plans:
        try:
            gone.append(opened.remove(KINDS[plan.kind], plan.id))
        except NotFoundError:
            if not gone:
                raise
    return gone


def _described(plan: Removal) -> str:
    """Describe a removal in a line: the thing, and how many of each kind go along."""
    named = f" ({plan.name})" if plan.name else ""
    parts = [counted(n, _NAMES.get(kind, kind.removesuffix("s"))) for kind, n in plan.along.items()]
    if plan.schedules:
        parts.append(f"the schedule{'s' if len(plan.schedules) > 1 else ''} {' '.join(plan.schedules)}")
    along = ", ".join(parts)
    return f"{plan.kind} {plan.id}{named}{f', with {along}' if along else ''}"


def _ask() -> None:
    """Ask whether to go on, and end the command where the answer is no.

    Raises:
        StoreError: nobody can be asked.
    """
    if not sys.stdin.isatty():
        raise StoreError("nothing was removed: nobody can be asked here, give --yes")
    err.print("remove for ever? [y/N] ", end="")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise StoreError("nothing was removed")
