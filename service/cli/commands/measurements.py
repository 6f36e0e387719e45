"""The commands that measure a network: ledger, llc, experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ...records.base import Kind, Record
from ...records.errors import StoreError
from ...records.estimates import LEDGER, LLC, ExperimentRow, LedgerRow, LlcRow
from ...terminal.results import llc_summary
from ...terminal.show import err, out, print_json, show_body, show_row
from ...terminal.tables import counted, number
from ..backends import Backend, Given, opened_backend
from ..options import ArtifactsOption, DataOption, FactoryOption, ForceOption, JsonOption, StoreOption, UrlOption

__all__ = ["app"]

app = typer.Typer()

RowT = TypeVar("RowT", bound=Record)


@app.command()
def ledger(
    checkpoints: Annotated[
        list[Path], typer.Argument(help="Checkpoints: .safetensors files, each with a .json beside it.")
    ],
    epsilon: Annotated[
        float | None, typer.Option(help="Loss scale below which directions count as lost; default: exact ranks.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Relative cutoff of singular values, without epsilon.")] = 1e-10,
    method: Annotated[str, typer.Option(help="Method for the rank of the Hessian: exact, estimate or auto.")] = "auto",
    loss: Annotated[
        str | None, typer.Option(help="Distance of outputs from the checkpoint's own: mse or kl. Targets are not used.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of estimates.")] = 0,
    data: DataOption = None,
    factory: FactoryOption = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw the (last) ledger: .png, .svg or .pdf.")] = None,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count parameters: which are free, and why, and how many are effective."""
    with opened_backend(store, artifacts, url, create=True) as backend:
        choices = {"loss": loss, "epsilon": epsilon, "tolerance": tolerance, "method": method, "seed": seed}
        given = Given(data, factory, force)
        rows: list[LedgerRow] = _measured(backend, LEDGER, checkpoints, choices, given, plot)
    if as_json:
        print_json({"items": [row.to_json() for row in rows]})
        return
    for path, row in zip(checkpoints, rows, strict=True):
        scale = "exact ranks" if row.epsilon is None else f"loss scale {row.epsilon:g}"
        out.print(f"{path.stem}: {row.id}, {scale}, {row.n:,} data points", style="bold", soft_wrap=True)
        show_body(row)
    if plot is not None:
        err.print(f"wrote {plot}", soft_wrap=True)


@app.command()
def llc(
    checkpoints: Annotated[
        list[Path], typer.Argument(help="Checkpoints: .safetensors files, each with a .json beside it.")
    ],
    epsilon: Annotated[float | None, typer.Option(help="Loss scale at which parameters are counted.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Inverse temperature n beta, instead of a loss scale.")
    ] = None,
    curve: Annotated[
        bool, typer.Option("--curve", help="Estimate a curve over a range of loss scales instead.")
    ] = False,
    loss: Annotated[
        str | None, typer.Option(help="Distance of outputs from the checkpoint's own: mse or kl. Targets are not used.")
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Vary only parameters with these names; may be given several times."),
    ] = None,
    kernel: Annotated[str, typer.Option(help="Sampling kernel: hmc, mala, sgld, psgld, sgnht or auto.")] = "auto",
    preconditioner: Annotated[
        str, typer.Option(help="Preconditioner of the kernel: gauss-newton, lanczos, none or auto.")
    ] = "auto",
    radius: Annotated[
        float, typer.Option(help="Distance to explore along free directions, relative to the size of the parameters.")
    ] = 0.02,
    gamma: Annotated[float | None, typer.Option(help="Strength of the localiser, instead of a radius.")] = None,
    chains: Annotated[int, typer.Option(help="Number of chains.")] = 4,
    warmup: Annotated[
        int | None, typer.Option(help="Steps of each chain before the draws; default: 300, sgld 600.")
    ] = None,
    draws: Annotated[int | None, typer.Option(help="Draws of each chain; default: 500, sgld 4,000.")] = None,
    step_size: Annotated[
        float | None, typer.Option(help="Step size of the kernel; default: adapted, or a safe one.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the chains.")] = 0,
    data: DataOption = None,
    factory: FactoryOption = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw the (last) estimate: .png, .svg or .pdf.")] = None,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate the learning coefficient: the effective number of parameters at a loss scale."""
    with opened_backend(store, artifacts, url, create=True) as backend:
        choices: dict[str, Any] = {"epsilon": epsilon, "temperature": temperature, "curve": curve, "loss": loss}
        choices |= {"parameters": tuple(parameters) if parameters else None, "kernel": kernel, "radius": radius}
        choices |= {"preconditioner": preconditioner, "gamma": gamma, "chains": chains, "warmup": warmup}
        choices |= {"draws": draws, "step_size": step_size, "seed": seed}
        given = Given(data, factory, force)
        rows: list[LlcRow] = _measured(backend, LLC, checkpoints, choices, given, plot)
    if as_json:
        print_json({"items": [row.to_json() for row in rows]})
        return
    for path, row in zip(checkpoints, rows, strict=True):
        scales = " to ".join(dict.fromkeys(number(point["epsilon"]) for point in (row.points[0], row.points[-1])))
        out.print(f"{path.stem}: {row.id}, loss scale {scales}, {row.n:,} data points", style="bold", soft_wrap=True)
        show_body(row)
    if len(rows) > 1 and not curve:
        out.print(llc_summary([path.stem for path in checkpoints], rows))
    if plot is not None:
        err.print(f"wrote {plot}", soft_wrap=True)


@app.command()
def experiment(
    partition: Annotated[str, typer.Argument(metavar="PARTITION", help="ID of a partition.")],
    kind: Annotated[
        list[str],
        typer.Option(
            "--kind", help="modules, isolate, faithfulness, bisect, epsilon or predict; may be given several times."
        ),
    ] = ["modules"],  # noqa: B006 - typer copies it
    metric: Annotated[
        str | None,
        typer.Option(
            help="Metric: loss, mse, kl, accuracy, cross_entropy; default: accuracy for classes (not predict), or loss."
        ),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Tolerance of the metric, for bisect and epsilon.")] = 1e-3,
    draws: Annotated[
        int | None,
        typer.Option(
            help="Number of random interventions; default: 20, faithfulness and predict 5, bisect at most 5 per pair."
        ),
    ] = None,
    replacement: Annotated[str, typer.Option(help="Values in place of ablated ones: mean, zero or resample.")] = "mean",
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 0,
    data: DataOption = None,
    factory: FactoryOption = None,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test modules on the network: ablate each, cut the edges between them, keep the strongest edges."""
    choices = {"metric": metric, "tolerance": tolerance, "draws": draws, "replacement": replacement, "seed": seed}
    rows: list[ExperimentRow] = []
    new = []
    with opened_backend(store, artifacts, url) as backend:
        for each in kind:
            backend.bars.title(each)
            (made,) = backend.run("experiment", [partition], {**choices, "kind": each}, Given(data, factory, force))
            rows.append(backend.source.get_experiment(made["experiment"]))
            new += [backend.source.get_partition(made["partition"])] if "partition" in made else []
    if as_json:
        print_json({"items": [row.to_json() for row in rows]})
        return
    for row in rows:
        out.print(f"{row.id}: {row.experiment} on {row.partition}, {row.metric}", style="bold", soft_wrap=True)
        show_body(row)
        if row.experiment == "epsilon":
            part = new.pop(0)
            named = f"divided again with these loss scales: {part.id}, {counted(part.n_modules, 'module')}"
            out.print(named, style="bold", soft_wrap=True)
            show_row(part, False)


def _measured(
    backend: Backend,
    kind: Kind[Any, RowT],
    checkpoints: list[Path],
    choices: dict[str, Any],
    given: Given,
    plot: Path | None,
) -> list[RowT]:
    """Compute ledgers or learning coefficients of checkpoints, and draw the last one."""
    for path in checkpoints:
        if not path.exists():
            raise StoreError(f"there is no checkpoint {path}")
    if plot is not None:
        from ...tasks.figures import picture_format

        picture_format(plot)
    made = backend.run(kind.name, checkpoints, choices, given)
    if plot is not None and made:
        from ...tasks.figures import plot as draw

        draw(backend.source, made[-1][kind.name], plot)
    return [backend.source.get(kind, each[kind.name]) for each in made]
