"""Options that commands share, and how they print what is stored. Starts without torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from .display import (
    COLUMNS,
    details,
    experiment_notes,
    experiment_tables,
    layers_table,
    ledger_table,
    llc_table,
    modules_table,
    tracking_table,
    verdict_line,
)
from .records import ExperimentRow, LedgerRow, LlcRow, PartitionDetail, Record, StoreError, TrackingDetail
from .settings import Settings
from .store import Store

if TYPE_CHECKING:
    from .client import Client

__all__ = [
    "KINDS",
    "ArtifactsOption",
    "DataOption",
    "EpsilonOption",
    "FactoryOption",
    "ForceOption",
    "JsonOption",
    "MaxSizeOption",
    "MinSizeOption",
    "NumberOption",
    "ObjectiveOption",
    "PolishOption",
    "ResolutionOption",
    "SeedOption",
    "StoreOption",
    "UrlOption",
    "allow",
    "err",
    "loss_scale",
    "named_choices",
    "opened_source",
    "opened_store",
    "out",
    "print_json",
    "recipe_choices",
    "show_experiment",
    "show_ledger",
    "show_llc",
    "show_row",
    "singular",
]

KINDS = {kind.removesuffix("s"): kind for kind in COLUMNS}
"""Of what is stored the name of one, and the name of its list."""

out = Console(markup=False, emoji=False)
err = Console(stderr=True, markup=False, emoji=False)

StoreOption = Annotated[
    str | None,
    typer.Option("--store", envvar="INTERBASIS_STORE", help="SQLite file or database URL.", show_envvar=True),
]
ArtifactsOption = Annotated[
    str | None,
    typer.Option("--artifacts", envvar="INTERBASIS_ARTIFACTS", help="Folder or URL of large files.", show_envvar=True),
]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", envvar="INTERBASIS_URL", help="Of a service, instead of a store.", show_envvar=True),
]
EpsilonOption = Annotated[
    str | None,
    typer.Option(help='Loss scale: a number, one per pair of cuts (with commas), "graph" or "pairs"; default: graph.'),
]
ObjectiveOption = Annotated[
    str | None, typer.Option(help="layered_cpm, layered_modularity, kway, cpm or modularity; default: both layered.")
]
ResolutionOption = Annotated[float | None, typer.Option(help="Default: chosen against chance.")]
NumberOption = Annotated[int | None, typer.Option("--k", help="Number of modules (objective kway).")]
MinSizeOption = Annotated[int | None, typer.Option(help="Fewest nodes of a module.")]
MaxSizeOption = Annotated[int | None, typer.Option(help="Most nodes of a module.")]
PolishOption = Annotated[
    bool | None, typer.Option("--mediator-polish", help="Lower the mediator cost, sizes held to 20 %.")
]
SeedOption = Annotated[int | None, typer.Option(help="Of everything random.")]
DataOption = Annotated[Path | None, typer.Option(help=".npz, .npy or .safetensors with `inputs`.")]
FactoryOption = Annotated[
    str | None, typer.Option(help="module:function that builds a model of family torch. It is run.")
]
ForceOption = Annotated[bool, typer.Option(help="Compute again what is stored.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


@contextmanager
def opened_store(store: str | None, artifacts: str | None) -> Iterator[Store]:
    """The store that the options name, closed afterwards."""
    with Store.open(store, artifacts) as opened:
        yield opened


@contextmanager
def opened_source(store: str | None, artifacts: str | None, url: str | None) -> Iterator[Store | Client]:
    """The service that the options name, else the store; the token comes from `INTERBASIS_TOKEN`."""
    if url is None:
        with opened_store(store, artifacts) as opened:
            yield opened
        return
    from .client import Client

    with Client(url, Settings().token) as client:
        yield client


def show_row(row: Record, as_json: bool) -> None:
    """One stored value, for people or for programs."""
    if as_json:
        print_json(row.to_json())
        return
    out.print(details(row))
    if isinstance(row, LedgerRow):
        out.print()
        show_ledger(row)
    if isinstance(row, ExperimentRow):
        out.print()
        show_experiment(row)
    if isinstance(row, LlcRow):
        out.print()
        show_llc(row)
    if isinstance(row, PartitionDetail):
        out.print()
        out.print(modules_table(row))
        if (line := verdict_line(row)) is not None:
            out.print()
            out.print(line)
    if isinstance(row, TrackingDetail):
        out.print()
        out.print(tracking_table(row))


def show_ledger(row: LedgerRow) -> None:
    """The tables of a ledger, for people."""
    out.print(ledger_table(row))
    out.print()
    out.print(layers_table(row))
    if row.warning:
        out.print(f"\n{row.warning}")
    out.print()


def show_experiment(row: ExperimentRow) -> None:
    """The table of an experiment, and what it found, for people."""
    for part in experiment_tables(row):
        out.print(part)
        out.print()
    for note in experiment_notes(row):
        out.print(note)
    if (line := verdict_line(row)) is not None:
        out.print(line)
    out.print()


def show_llc(row: LlcRow) -> None:
    """A learning coefficient, or one line per loss scale of a curve, the verdict and its reason, for people."""
    out.print(llc_table(row))
    out.print()
    out.print(verdict_line(row))
    out.print()


def loss_scale(epsilon: str | None) -> float | str | list[float] | None:
    """The loss scale as the recipe has it: a number, a name, or one number per pair of cuts."""
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
    """The choices of a recipe file; none without one."""
    if file is None:
        return {}
    from ..analysis.recipe import read_choices

    return dict(read_choices(file))


def named_choices(given: list[str]) -> dict[str, Any]:
    """`name=value` as a choice; numbers, true, false and JSON lists are read as such.

    >>> named_choices(["epsilon=0.1", "basis=local"])
    {'epsilon': 0.1, 'basis': 'local'}

    Raises:
        StoreError: there is no "=".
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
    """Let the user's own modules be found, as python itself does."""
    if factory:
        sys.path.insert(0, str(Path.cwd()))


def singular(name: str) -> str:
    """The name of a kind, given as one or as many: "graph" of "graphs", "llc" of "llc" and "llcs".

    >>> singular("partitions"), singular("llc")
    ('partition', 'llc')

    Raises:
        StoreError: there is no such kind.
    """
    for one, many in KINDS.items():
        if name in (one, many, f"{one}s"):
            return one
    raise StoreError(f"there is nothing called {name!r} to show: expected one of {', '.join(KINDS.values())}")


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(document, indent=2))
