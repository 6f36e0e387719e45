"""Options that commands share. Starts without torch."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..records.jobs import TASKS
from .completion import complete_choices, complete_ids, complete_tasks, complete_values

__all__ = [
    "MODULES",
    "ArtifactsOption",
    "CheckpointsArgument",
    "ChoiceOption",
    "ContextOption",
    "ControlOption",
    "CopiesOption",
    "DataOption",
    "DeviceOption",
    "EpsilonOption",
    "FactoryOption",
    "ForceOption",
    "JobArgument",
    "JsonOption",
    "LogOption",
    "LossOption",
    "MaxSizeOption",
    "MinSizeOption",
    "NetworksArgument",
    "NumberOption",
    "ObjectiveOption",
    "PlotOption",
    "PointsOption",
    "PolishOption",
    "PositionsOption",
    "QueueOption",
    "RecipeOption",
    "ResolutionOption",
    "ScaleOption",
    "SeedOption",
    "StoreOption",
    "TaskArgument",
    "TextOption",
    "TokensOption",
    "UrlOption",
    "check_device",
    "check_memory",
    "given_place",
    "with_place",
]

_HERE = ("worker", "serve", "db", "token")  # commands that take no service

_PLACE = "Where results are stored"

_TEXT = "Text for a folder of save_pretrained"

MODULES = "Choices of the modules"
"""Panel of the options that say how a graph is divided."""

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="INTERBASIS_STORE",
        help="SQLite file or database URL.",
        show_envvar=True,
        show_default="a file in your data folder",
        rich_help_panel=_PLACE,
    ),
]

ArtifactsOption = Annotated[
    str | None,
    typer.Option(
        "--artifacts",
        envvar="INTERBASIS_ARTIFACTS",
        help="Folder or URL for large files.",
        show_envvar=True,
        show_default="a folder beside the file",
        rich_help_panel=_PLACE,
    ),
]

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="INTERBASIS_URL",
        help="URL of a service to use instead of a store.",
        show_envvar=True,
        rich_help_panel=_PLACE,
    ),
]

_CHECKPOINTS = (
    "Checkpoints: .safetensors files, each with a .json beside it, folders of save_pretrained, or stored ones, as "
    "MODEL@STEP."
)

CheckpointsArgument = Annotated[list[Path], typer.Argument(help=_CHECKPOINTS)]

OptionalCheckpoints = Annotated[list[Path] | None, typer.Argument(metavar="CHECKPOINTS...", help=_CHECKPOINTS)]

NetworksArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="A B [C ...]",
        help="Checkpoints of networks that do the same job: .safetensors files, folders of save_pretrained, or stored "
        "ones, as MODEL@STEP.",
    ),
]

TaskArgument = Annotated[
    str, typer.Argument(help=f"Task: {', '.join(TASKS)}.", autocompletion=complete_tasks, show_default=False)
]

JobArgument = Annotated[str, typer.Argument(help="ID of a job.", autocompletion=complete_ids("job"))]

RecipeOption = Annotated[Path | None, typer.Option("--recipe", help="A .toml or .json file of choices.")]

ChoiceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A choice of the recipe; may be given several times.",
        autocompletion=complete_choices,
    ),
]

QueueOption = Annotated[str, typer.Option("--queue", help="Queue of the job; only its workers take it.")]

LogOption = Annotated[
    str,
    typer.Option("--log", help="Format of the log: text or json.", autocompletion=lambda: ["text", "json"]),
]

DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="Where models compute: auto, cpu, cuda or mps; cuda:1 is the second of cuda.",
        show_default="cpu",
        autocompletion=lambda: ["auto", "cpu", "cuda", "mps"],
    ),
]

MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory",
        help="Limit of memory, such as 8GiB, that batches of data points are chosen by; results do not depend on it.",
        show_default="half of what is free",
    ),
]

LossOption = Annotated[
    str | None,
    typer.Option(
        "--loss",
        help="Distance of outputs from the checkpoint's own: mse or kl. Targets are not used.",
        show_default="that of the checkpoint, or mse",
        autocompletion=complete_values("analyze", "loss"),
    ),
]

PositionsOption = Annotated[
    str | None,
    typer.Option(
        "--positions",
        help="Which positions of a save_pretrained model count: all, mask, later, last.",
        show_default="later for decoders, else mask",
        autocompletion=complete_values("analyze", "positions"),
    ),
]

EpsilonOption = Annotated[
    str | None,
    typer.Option(
        "--epsilon",
        help='Loss scale: a number, one per pair of cuts (with commas), "graph", "pairs", or seeds:GLOB: the mean '
        "distance of these checkpoints.",
        show_default="graph",
        rich_help_panel=MODULES,
        autocompletion=complete_values("analyze", "epsilon"),
    ),
]

ScaleOption = Annotated[
    str | None,
    typer.Option(
        "--epsilon",
        help="Loss scale at which parameters are counted: a number, or seeds:GLOB: the mean distance of these "
        "checkpoints.",
        show_default="none",
    ),
]

ObjectiveOption = Annotated[
    str | None,
    typer.Option(
        "--objective",
        help="layered_cpm, layered_modularity, kway, cpm or modularity.",
        show_default="the better of the first two",
        rich_help_panel=MODULES,
        autocompletion=complete_values("analyze", "objective"),
    ),
]

ResolutionOption = Annotated[
    float | None,
    typer.Option(
        "--resolution",
        help="Resolution of the objective.",
        show_default="chosen against chance",
        rich_help_panel=MODULES,
    ),
]

NumberOption = Annotated[
    int | None, typer.Option("--k", help="Number of modules (objective kway).", rich_help_panel=MODULES)
]

MinSizeOption = Annotated[
    int | None, typer.Option("--min-size", help="Least number of nodes in a module.", rich_help_panel=MODULES)
]

MaxSizeOption = Annotated[
    int | None, typer.Option("--max-size", help="Largest number of nodes in a module.", rich_help_panel=MODULES)
]

NullsOption = Annotated[
    int | None,
    typer.Option(
        "--nulls",
        min=4,
        help="Null graphs; p is at least 1 / (1 + N), and from 100 on a tail is fitted.",
        show_default="20 where the resolution is chosen",
        rich_help_panel=MODULES,
    ),
]

PolishOption = Annotated[
    bool | None,
    typer.Option(
        "--mediator-polish",
        help="Reduce the mediator cost; sizes change by 20 % at most.",
        show_default="no",
        rich_help_panel=MODULES,
    ),
]

ControlOption = Annotated[
    str | None,
    typer.Option(
        "--control",
        help="untrained: analyse untrained copies of the network, too, and print them beside it; none: no copy.",
        show_default="one copy, for a division that is supported",
        rich_help_panel=MODULES,
        autocompletion=lambda: ["untrained", "none"],
    ),
]

CopiesOption = Annotated[
    int | None,
    typer.Option(
        "--control-copies",
        min=1,
        help="Untrained copies, with --control untrained.",
        show_default="3",
        rich_help_panel=MODULES,
    ),
]

SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of the random numbers.", show_default="0")]

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Data file: .npz, .npy or .safetensors with `inputs`.",
        show_default="the data that the checkpoint names",
    ),
]

TextOption = Annotated[
    Path | None,
    typer.Option("--text", help="Text in UTF-8, split by the tokenizer of the model's folder.", rich_help_panel=_TEXT),
]

TokensOption = Annotated[
    Path | None,
    typer.Option("--tokens", help="A .npy file of tokens, in one row or in windows.", rich_help_panel=_TEXT),
]

ContextOption = Annotated[
    int, typer.Option("--context", help="Tokens in a window, a data point.", rich_help_panel=_TEXT)
]

PointsOption = Annotated[
    int | None,
    typer.Option(
        "--points",
        help="Windows to take, evenly spread, or drawn where --seed is given.",
        show_default="all",
        rich_help_panel=_TEXT,
    ),
]

FactoryOption = Annotated[
    str | None,
    typer.Option(
        "--factory",
        metavar="MODULE:FUNCTION",
        help="Function that builds a model of family torch; the code is executed. Only without --url.",
    ),
]

PlotOption = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Also draw the (last) result: .png, .svg or .pdf."),
]

ForceOption = Annotated[bool, typer.Option("--force", help="Compute stored results again.")]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def check_device(device: str | None) -> None:
    """Refuse a device that is not there before anything starts; only then torch is loaded."""
    if device not in (None, "cpu"):
        from ...analysis.devices.device import find_device

        find_device(str(device))


def check_memory(memory: str | None) -> None:
    """Refuse a limit of memory that is none before anything starts; only then torch is loaded."""
    if memory is not None:
        from ...analysis.devices.memory import memory_of

        memory_of(memory)


def given_place(command: str = "") -> str:
    """Return the options `--store`, `--artifacts` and `--url` as they were given, to be added to a printed command."""
    if command == "convert":
        return ""
    names = ("--store", "--artifacts") if command in _HERE else ("--store", "--artifacts", "--url")
    given, words = "", iter(sys.argv[1:])
    for word in words:
        name, equals, value = word.partition("=")
        if name in names:
            given += f" {name} {shlex.quote(value if equals else next(words, ''))}"
    return given


def with_place(text: str) -> str:
    """Add the options of `given_place` to the commands in a text, which stand between backticks."""

    def whole(found: re.Match[str]) -> str:
        return f"`{found[1]}{'' if '--store' in found[1] else given_place(found[2])}`"

    return re.sub(r"`(interbasis ([a-z]+)[^`]*)`", whole, text)
