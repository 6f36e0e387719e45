"""The commands that measure a network: ledger, llc, experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ...records.base import Kind, Record
from ...records.errors import StoreError
from ...records.estimates import LEDGER, LLC, LedgerRow, LlcRow
from ...terminal.parts import parts_summary
from ...terminal.results import llc_summary
from ...terminal.show import out, print_json, show_body, show_row
from ...terminal.tables import counted, number
from ..backends import Backend, Given, makes_store, opened_backend
from ..completion import complete_ids, complete_values
from ..options import (
    ArtifactsOption,
    CheckpointsArgument,
    ContextOption,
    DataOption,
    DeviceOption,
    FactoryOption,
    ForceOption,
    JsonOption,
    LossOption,
    MemoryOption,
    OptionalCheckpoints,
    PlotOption,
    PointsOption,
    PositionsOption,
    ScaleOption,
    StoreOption,
    TextOption,
    TokensOption,
    UrlOption,
)
from ..pictures import check_picture, draw
from ..seeds import at_distance
from ..sources import numbers_of_steps, single_loss_scale
from ..texts import Text, windows_file

__all__ = ["app"]

app = typer.Typer()

_SAMPLING = "Sampling"

RowT = TypeVar("RowT", bound=Record)


@app.command(rich_help_panel="Analyse")
def ledger(
    checkpoints: CheckpointsArgument,
    epsilon: ScaleOption = None,
    tolerance: Annotated[float, typer.Option(help="Relative cutoff of singular values, without epsilon.")] = 1e-10,
    method: Annotated[
        str,
        typer.Option(
            help="Method for the rank of the Hessian: exact, estimate or auto.",
            autocompletion=complete_values("ledger", "method"),
        ),
    ] = "auto",
    loss: LossOption = None,
    positions: PositionsOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of estimates.", show_default="0")] = None,
    data: DataOption = None,
    text: TextOption = None,
    tokens: TokensOption = None,
    context: ContextOption = 128,
    points: PointsOption = None,
    factory: FactoryOption = None,
    plot: PlotOption = None,
    device: DeviceOption = None,
    memory: MemoryOption = None,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count parameters: which are free, and why, and how many are effective.

    Example: interbasis ledger run/step500.safetensors --plot ledger.png
    Example: interbasis ledger my-gpt2 --text corpus.txt --context 64 --points 50
    """
    windows = Text(text, tokens, context, points, seed)
    with opened_backend(store, artifacts, url, create=makes_store("ledger", checkpoints)) as backend:
        choices = {"loss": loss, "epsilon": single_loss_scale(epsilon), "tolerance": tolerance, "method": method}
        choices["seed"] = seed
        choices["positions"] = positions
        given = Given(data, factory, force, device, memory)
        rows: list[LedgerRow] = _measured(backend, LEDGER, checkpoints, choices, given, windows, plot)
        names = [backend.source.place_of(row) for row in rows]
    if as_json:
        print_json({"items": [row.to_json() for row in rows]})
        return
    for number_of, row in enumerate(rows):
        scale = "no loss scale" if row.epsilon is None else f"loss scale {row.epsilon:g}"
        _head(number_of, f"{row.id}, {names[number_of]}: {scale}, {row.n:,} data points")
        show_body(row)


@app.command(rich_help_panel="Analyse")
def llc(
    checkpoints: OptionalCheckpoints = None,
    epsilon: ScaleOption = None,
    temperature: Annotated[
        float | None, typer.Option(help="Inverse temperature n beta, instead of a loss scale.")
    ] = None,
    curve: Annotated[
        bool, typer.Option("--curve", help="Estimate a curve over a range of loss scales instead.")
    ] = False,
    loss: LossOption = None,
    positions: PositionsOption = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Vary only parameters with these names; may be given several times."),
    ] = None,
    modules: Annotated[
        list[str] | None,
        typer.Option(
            "--modules",
            metavar="PARTITION",
            help="Count the parameters of each module of this partition; may be given several times.",
            autocompletion=complete_ids("partition"),
        ),
    ] = None,
    parts: Annotated[
        list[str] | None,
        typer.Option(
            "--parts",
            metavar="GLOB",
            help="Count sets of parameters one by one: globs or slices such as 'attn.W_Q[2]', or auto for each head "
            "and MLP; may be given several times.",
        ),
    ] = None,
    kernel: Annotated[
        str,
        typer.Option(
            help="Sampling kernel: hmc, mala, sgld, psgld, sgnht or auto.",
            autocompletion=complete_values("llc", "kernel"),
            rich_help_panel=_SAMPLING,
        ),
    ] = "auto",
    preconditioner: Annotated[
        str,
        typer.Option(
            help="Preconditioner of the kernel: gauss-newton, lanczos, none or auto.",
            autocompletion=complete_values("llc", "preconditioner"),
            rich_help_panel=_SAMPLING,
        ),
    ] = "auto",
    radius: Annotated[
        float,
        typer.Option(
            help="Distance to explore along free directions, relative to the size of the parameters.",
            rich_help_panel=_SAMPLING,
        ),
    ] = 0.02,
    gamma: Annotated[
        float | None, typer.Option(help="Strength of the localiser, instead of a radius.", rich_help_panel=_SAMPLING)
    ] = None,
    chains: Annotated[int, typer.Option(help="Number of chains.", rich_help_panel=_SAMPLING)] = 4,
    warmup: Annotated[
        int | None,
        typer.Option(
            help="Steps of each chain before the draws.", show_default="300, sgld 600", rich_help_panel=_SAMPLING
        ),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(help="Draws of each chain.", show_default="500, sgld 4,000", rich_help_panel=_SAMPLING),
    ] = None,
    step_size: Annotated[
        float | None,
        typer.Option(help="Step size of the kernel.", show_default="adapted, or a safe one", rich_help_panel=_SAMPLING),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Random data points (windows of text) of each step of sgld, psgld and sgnht.",
            show_default="256 where network and data are large, else all",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the chains.", show_default="0")] = None,
    data: DataOption = None,
    text: TextOption = None,
    tokens: TokensOption = None,
    context: ContextOption = 128,
    points: PointsOption = None,
    factory: FactoryOption = None,
    plot: PlotOption = None,
    device: DeviceOption = None,
    memory: MemoryOption = None,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate the learning coefficient: the effective number of parameters at a loss scale.

    Example: interbasis llc run/step500.safetensors --epsilon 0.01
    Example: interbasis llc my-gpt2 --text corpus.txt --points 50 --epsilon 0.1 --kernel sgld --batch-size 8
    Example: interbasis llc --modules two-digits@last
    """
    windows = Text(text, tokens, context, points, seed)
    checkpoints = checkpoints or []
    if bool(checkpoints) == bool(modules):
        raise StoreError("llc: expected checkpoints, or --modules PARTITION, whose checkpoint is taken")
    with opened_backend(store, artifacts, url, create=makes_store("llc", checkpoints)) as backend:
        choices: dict[str, Any] = {"epsilon": single_loss_scale(epsilon), "temperature": temperature, "curve": curve}
        choices["loss"] = loss
        choices |= {"parameters": tuple(parameters) if parameters else None, "kernel": kernel, "radius": radius}
        choices |= {"parts": tuple(parts) if parts else None}
        choices |= {"preconditioner": preconditioner, "gamma": gamma, "chains": chains, "warmup": warmup}
        choices |= {
            "positions": positions,
            "draws": draws,
            "step_size": step_size,
            "batch_size": batch_size,
            "seed": seed,
        }
        given = Given(data, factory, force, device, memory)
        rows: list[LlcRow] = []
        for divided in [backend.source.get_partition(ref) for ref in modules or ()]:
            own, chosen = [Path(divided.checkpoint)], {**choices, "modules": divided.id}
            rows += _measured(backend, LLC, own, chosen, given, windows, plot)
        if checkpoints:
            rows = _measured(backend, LLC, checkpoints, choices, given, windows, plot)
        names = [backend.source.place_of(row) for row in rows]
    if as_json:
        print_json({"items": [row.to_json() for row in rows]})
        return
    for number_of, row in enumerate(rows):
        scales = " to ".join(dict.fromkeys(number(point["epsilon"]) for point in (row.points[0], row.points[-1])))
        _head(number_of, f"{row.id}, {names[number_of]}: loss scale {scales}, {row.n:,} data points")
        show_body(row)
    if len(rows) > 1 and not curve:
        out.print()
        out.print((parts_summary if modules or parts else llc_summary)(names, rows))


@app.command(rich_help_panel="Analyse")
def experiment(
    partition: Annotated[
        str,
        typer.Argument(
            metavar="PARTITION",
            help="ID of a partition, or model@step, model@last, last.",
            autocompletion=complete_ids("partition"),
        ),
    ],
    kind: Annotated[
        list[str],
        typer.Option(
            "--kind",
            help="modules, isolate, faithfulness, bisect, epsilon or predict; may be given several times.",
            autocompletion=complete_values("experiment", "kind"),
        ),
    ] = ["modules"],  # noqa: B006 - typer copies it
    metric: Annotated[
        str | None,
        typer.Option(
            help="Metric: loss, mse, kl, accuracy, cross_entropy.",
            show_default="accuracy for classes (not predict), or loss",
            autocompletion=complete_values("experiment", "metric"),
        ),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Tolerance of the metric, for bisect and epsilon.")] = 1e-3,
    draws: Annotated[
        int | None,
        typer.Option(
            help="Number of random interventions.",
            show_default="20, predict 5, bisect at most 5 per pair",
        ),
    ] = None,
    replacement: Annotated[
        str,
        typer.Option(
            help="Values in place of ablated ones: mean, zero or resample.",
            autocompletion=complete_values("experiment", "replacement"),
        ),
    ] = "mean",
    adversarial: Annotated[
        str | None,
        typer.Option(
            metavar="STEPS",
            help="Also search for the worst partial cut, by so many steps of gradient ascent: 20,80 reports both.",
            show_default="no",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 0,
    data: DataOption = None,
    factory: FactoryOption = None,
    plot: PlotOption = None,
    device: DeviceOption = None,
    memory: MemoryOption = None,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test modules on the network: ablate each, cut the edges between them, keep the strongest edges.

    Example: interbasis experiment two-digits@last --kind isolate
    Example: interbasis experiment two-digits@last --kind isolate --adversarial 20,80
    """
    check_picture(plot)
    choices: dict[str, Any] = {"metric": metric, "tolerance": tolerance, "draws": draws, "replacement": replacement}
    choices |= {"adversarial": numbers_of_steps(adversarial), "seed": seed}
    with opened_backend(store, artifacts, url) as backend:
        found = backend.run(
            "experiment", [partition], {**choices, "kind": kind}, Given(data, factory, force, device, memory)
        )
        rows = [backend.source.get_experiment(made["experiment"]) for made in found]
        name = backend.source.place_of(rows[0])
        new = [backend.source.get_partition(made["partition"]) for made in found if "partition" in made]
        draw(backend.source, rows[-1].id, plot)
    if as_json:
        print_json({"items": [row.to_json() for row in rows]})
        return
    for number_of, row in enumerate(rows):
        _head(number_of, f"{row.id}, {name}: {row.experiment} on {row.partition}, {row.metric}")
        show_body(row)
        if row.experiment == "epsilon":
            part = new.pop(0)
            named = f"divided again with these loss scales: {part.id}, {counted(part.n_modules, 'module')}"
            _head(1, named)
            show_row(part, False)


def _head(number_of: int, text: str) -> None:
    """Print the heading of a result, after an empty line where it is not the first."""
    if number_of:
        out.print()
    out.print(text, style="bold", soft_wrap=True)


def _measured(
    backend: Backend,
    kind: Kind[Any, RowT],
    checkpoints: list[Path],
    choices: dict[str, Any],
    given: Given,
    windows: Text,
    plot: Path | None,
) -> list[RowT]:
    """Compute ledgers or learning coefficients of checkpoints, and draw the last one."""
    check_picture(plot)
    with windows_file(backend.source, checkpoints, given.data, windows) as file:
        read = given._replace(data=file)
        made = backend.run(kind.name, checkpoints, at_distance(backend.source, backend.bars, choices, read), read)
    draw(backend.source, made[-1][kind.name], plot)
    return [backend.source.get(kind, each[kind.name]) for each in made]
