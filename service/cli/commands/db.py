"""The commands that maintain the store's database."""

from __future__ import annotations

from typing import Annotated

import typer

from ...records.errors import StoreError
from ...store.store import Store
from ...terminal.show import out, print_json
from ...terminal.tables import counted
from ..options import ArtifactsOption, JsonOption, StoreOption, UrlOption
from ..sources import opened_source

__all__ = ["db"]

db = typer.Typer(help="Maintain the store's database.", no_args_is_help=True)


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
