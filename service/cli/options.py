"""Options that commands share. Starts without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
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
]

StoreOption = Annotated[
    str | None,
    typer.Option("--store", envvar="INTERBASIS_STORE", help="SQLite file or database URL.", show_envvar=True),
]

ArtifactsOption = Annotated[
    str | None,
    typer.Option("--artifacts", envvar="INTERBASIS_ARTIFACTS", help="Folder or URL for large files.", show_envvar=True),
]

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url", envvar="INTERBASIS_URL", help="URL of a service to use instead of a store.", show_envvar=True
    ),
]

EpsilonOption = Annotated[
    str | None,
    typer.Option(help='Loss scale: a number, one per pair of cuts (with commas), "graph" or "pairs"; default: graph.'),
]

ObjectiveOption = Annotated[
    str | None, typer.Option(help="layered_cpm, layered_modularity, kway, cpm or modularity; default: the first two.")
]

ResolutionOption = Annotated[
    float | None, typer.Option(help="Resolution of the objective; default: chosen against chance.")
]

NumberOption = Annotated[int | None, typer.Option("--k", help="Number of modules (objective kway).")]

MinSizeOption = Annotated[int | None, typer.Option(help="Least number of nodes in a module.")]

MaxSizeOption = Annotated[int | None, typer.Option(help="Largest number of nodes in a module.")]

PolishOption = Annotated[
    bool | None, typer.Option("--mediator-polish", help="Reduce the mediator cost; sizes change by 20 % at most.")
]

SeedOption = Annotated[int | None, typer.Option(help="Seed of the random numbers.")]

DataOption = Annotated[Path | None, typer.Option(help="Data file: .npz, .npy or .safetensors with `inputs`.")]

FactoryOption = Annotated[
    str | None, typer.Option(help="module:function that builds a model of family torch; the code is executed.")
]

ForceOption = Annotated[bool, typer.Option(help="Compute stored results again.")]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
