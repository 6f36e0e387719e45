"""The commands that change what is stored: rm, rename, relocate."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ...records.errors import NotFoundError, StoreError
from ...records.kinds import KINDS
from ...records.maintenance import Removal
from ...terminal.show import err, out, print_json, show_row
from ...terminal.tables import counted
from ..completion import complete_ids
from ..options import ArtifactsOption, JsonOption, StoreOption, UrlOption
from ..sources import found_by_name, opened_source, singular

__all__ = ["app"]

app = typer.Typer()

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
