"""The command line. Starts without torch; exit code 0 success, 2 bad input, 1 failure."""

from __future__ import annotations

import os
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from platformdirs import user_data_dir
from rich.text import Text

from . import remote
from .bars import ProgressBars
from .client import Client
from .display import counted, llc_summary, number, partition_notes, rows_table, table, verdict
from .job_commands import app as job_commands
from .options import (
    KINDS,
    ArtifactsOption,
    DataOption,
    EpsilonOption,
    FactoryOption,
    ForceOption,
    JsonOption,
    MaxSizeOption,
    MinSizeOption,
    NumberOption,
    ObjectiveOption,
    PolishOption,
    ResolutionOption,
    SeedOption,
    StoreOption,
    UrlOption,
    allow,
    err,
    loss_scale,
    opened_source,
    opened_store,
    out,
    print_json,
    recipe_choices,
    show_experiment,
    show_ledger,
    show_llc,
    show_row,
    singular,
)
from .records import ArtifactError, ExperimentRow, LedgerRow, LlcRow, Record, StoreError, UnavailableError
from .series import described_series
from .service_commands import app as service_commands
from .store import Store

__all__ = ["app", "main"]

app = typer.Typer(
    help="Find the modules inside a neural network.", no_args_is_help=True, pretty_exceptions_enable=False
)
db = typer.Typer(help="Look after the store's database.", no_args_is_help=True)
app.add_typer(db, name="db")
app.add_typer(job_commands)
app.add_typer(service_commands)

_FORMATS = ["graphml", "gexf", "node-link", "circuit-tracer", "eap", "autocircuit", "masks", "safetensors", "netcdf"]


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Option(help="Where the checkpoints go; default: in the user's data folder.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the training.")] = 0,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a small network on two digits side by side, and find its two halves."""
    folder = folder or Path(user_data_dir("interbasis", appauthor=False)) / "demo"
    with opened_store(store, artifacts) as opened, ProgressBars(err) as bars:
        from .worker import DemoLine, run_demo

        lines = run_demo(opened, folder, seed=seed, progress=bars.update)
    if as_json:
        print_json({"items": [line.to_json() for line in lines]})
        return
    out.print(
        "Two handwritten digits side by side, one network that names both. The left and\n"
        "the right digit have nothing to do with each other: does the network know?\n"
    )
    cuts = lines[-1].outcome.graph.cuts

    def row(line: DemoLine) -> tuple[Any, ...]:
        stored = line.outcome
        agreement = [round(value, 2) for value in line.agreement]
        counts = stored.checkpoint.step, f"{line.accuracy:.0%}", stored.partition.n_modules
        return *counts, stored.partition.edge_cost, *agreement, stored.partition.id

    names = ("step", "right", "modules", "cost", *(f"cut {i}" for i in range(len(cuts))), "all", "partition")
    out.print(table(names, [row(line) for line in lines]))
    out.print(
        "\nright: held-out digits named correctly. cost: log-strength between modules.\n"
        "cut 0 to 3, all: agreement of the modules with left and right (adjusted mutual\n"
        f"information, 1 perfect, 0 chance) at {', '.join(cuts)}.\n",
        soft_wrap=True,
    )
    for line in lines:
        if line.outcome.partition.n_modules == 1:
            out.print(f"Step {line.outcome.checkpoint.step} is one module: {line.outcome.partition.reason}.")
    last = lines[-1].outcome.partition
    count = "is one module" if last.n_modules == 1 else f"has {counted(last.n_modules, 'module')}"
    out.print(
        f"After training the network {count}. Look closer:\n"
        f"  interbasis ls partitions\n"
        f"  interbasis show partition {last.id}\n"
        f"  interbasis plot {last.id} -o modules.png\n"
        f"  interbasis export {last.id} --format graphml -o modules.graphml\n"
        f"Checkpoints are in {folder}",
        soft_wrap=True,
    )


@app.command()
def analyze(
    checkpoints: Annotated[list[Path], typer.Argument(help=".safetensors files, each with a .json beside it.")],
    recipe: Annotated[Path | None, typer.Option(help="A .toml or .json file with the options below.")] = None,
    cuts: Annotated[str | None, typer.Option(help='Comma-separated cuts, or "auto".')] = None,
    loss: Annotated[
        str | None, typer.Option(help="How far outputs are from the checkpoint's own: mse or kl. Targets play no part.")
    ] = None,
    basis: Annotated[str | None, typer.Option(help="global, local, pca or neuron.")] = None,
    output: Annotated[str | None, typer.Option(help="Basis of the last cut: auto, pca or neuron.")] = None,
    rotation: Annotated[str | None, typer.Option(help="none, degenerate or full.")] = None,
    probes: Annotated[int | None, typer.Option(help="Random probes instead of the exact sum over outputs.")] = None,
    strengths: Annotated[str | None, typer.Option(help="jacobian or attribution.")] = None,
    points: Annotated[int | None, typer.Option(help="Of the rule that integrates attributions.")] = None,
    epsilon: EpsilonOption = None,
    objective: ObjectiveOption = None,
    resolution: ResolutionOption = None,
    k: NumberOption = None,
    min_size: MinSizeOption = None,
    max_size: MaxSizeOption = None,
    mediator_polish: PolishOption = None,
    seed: SeedOption = None,
    data: DataOption = None,
    factory: FactoryOption = None,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take checkpoints to the modules of their interaction graphs, and store graphs and partitions."""
    named: dict[str, Any] = {"loss": loss, "basis": basis, "output": output, "rotation": rotation, "probes": probes}
    named |= {"strengths": strengths, "points": points, "epsilon": loss_scale(epsilon), "objective": objective}
    choices = {**named, "resolution": resolution, "k": k, "min_size": min_size, "max_size": max_size}
    choices |= {"mediator_polish": mediator_polish, "seed": seed}
    choices["cuts"] = cuts if cuts in (None, "auto") else [part.strip() for part in cuts.split(",")]
    outcomes = []
    with opened_source(store, artifacts, url) as opened, ProgressBars(err) as bars:
        options: dict[str, Any] = {"data": data, "factory": factory, "force": force}
        if not isinstance(opened, Store):
            given = {name: value for name, value in choices.items() if value is not None}
            jobs = remote.computed(opened, "analyze", checkpoints, {**recipe_choices(recipe), **given}, **options)
            outcomes = remote.analyses(opened, jobs)
        else:
            from .worker import analyze as run

            allow(factory)
            for path in checkpoints:
                bars.title(path.stem)
                outcomes.append(run(opened, path, choices, recipe_file=recipe, progress=bars.update, **options))
    if as_json:
        print_json({"items": [outcome.to_json() for outcome in outcomes]})
        return
    rows = [
        (*(o.checkpoint.label, o.graph.id, o.partition.id, o.partition.n_modules), verdict(o.partition.verdict))
        for o in outcomes
    ]
    out.print(table(("checkpoint", "graph", "partition", "modules", "verdict"), rows))
    for note in partition_notes([o.partition for o in outcomes]):
        out.print(note)


@app.command()
def modules(
    ref: Annotated[str, typer.Argument(metavar="GRAPH", help="ID of a graph.")],
    epsilon: EpsilonOption = None,
    objective: ObjectiveOption = None,
    resolution: ResolutionOption = None,
    k: NumberOption = None,
    min_size: MinSizeOption = None,
    max_size: MaxSizeOption = None,
    mediator_polish: PolishOption = None,
    seed: SeedOption = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Instead: store a division made elsewhere, a .csv or .json file of nodes and modules."),
    ] = None,
    epsilon_profile: Annotated[
        Path | None, typer.Option(help="Instead: a figure of the modules over a range of loss scales.")
    ] = None,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Divide a stored graph into modules, and store the partition."""
    choices: dict[str, Any] = {"epsilon": loss_scale(epsilon), "objective": objective, "resolution": resolution, "k": k}
    choices |= {"min_size": min_size, "max_size": max_size, "mediator_polish": mediator_polish, "seed": seed}
    with opened_source(store, artifacts, url) as opened, ProgressBars(err) as bars:
        if labels is not None:
            from ..analysis.exchange.labels_file import read_assignment
            from ..analysis.results import read_bytes

            choices["labels"] = read_assignment(read_bytes(labels))
        if epsilon_profile is not None:
            from . import draw

            found = draw.epsilon_profile(opened, ref, choices, epsilon_profile, progress=bars.update)
            names = ("epsilon", "n_modules", "edge_cost", "mediator_cost", "contrast", "p_value")
            rows = [tuple(getattr(part, name) for name in names) for part in found]
        elif not isinstance(opened, Store):
            (job,) = remote.computed(opened, "partition", [ref], choices, force=force)
            part = opened.get_partition(job.result("partition"))
        else:
            from . import worker

            part = worker.modules(opened, ref, choices, force=force, progress=bars.update)
    if epsilon_profile is not None:
        if as_json:
            print_json({"items": [dict(zip(names, row, strict=True)) for row in rows]})
            return
        out.print(table(("epsilon", "modules", "edge cost", "mediator cost", "contrast", "p"), rows))
        err.print(f"wrote {epsilon_profile}", soft_wrap=True)
        return
    show_row(part, as_json)


@app.command()
def ledger(
    checkpoints: Annotated[list[Path], typer.Argument(help=".safetensors files, each with a .json beside it.")],
    epsilon: Annotated[
        float | None, typer.Option(help="Loss scale below which directions count as lost; default: exact ranks.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Without epsilon: relative, on singular values.")] = 1e-10,
    method: Annotated[str, typer.Option(help="Rank of the Hessian: exact, estimate or auto.")] = "auto",
    loss: Annotated[
        str | None, typer.Option(help="How far outputs are from the checkpoint's own: mse or kl. Targets play no part.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of estimates.")] = 0,
    data: DataOption = None,
    factory: FactoryOption = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw the (last) ledger: .png, .svg or .pdf.")] = None,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count where parameters go: what is free, by cause, and how many are effective."""
    with opened_source(store, artifacts, url) as opened, ProgressBars(err) as bars:
        _require(checkpoints)
        choices = {"loss": loss, "epsilon": epsilon, "tolerance": tolerance, "method": method, "seed": seed}
        options: dict[str, Any] = {"data": data, "factory": factory, "force": force}
        rows: list[LedgerRow] = _counted(opened, "ledger", checkpoints, choices, plot, bars, options)
    if as_json:
        print_json({"items": [row.to_json() for row in rows]})
        return
    for path, row in zip(checkpoints, rows, strict=True):
        scale = "exact ranks" if row.epsilon is None else f"loss scale {row.epsilon:g}"
        out.print(f"{path.stem}: {row.id}, {scale}, {row.n:,} data points", style="bold", soft_wrap=True)
        show_ledger(row)
    if plot is not None:
        err.print(f"wrote {plot}", soft_wrap=True)


@app.command()
def llc(
    checkpoints: Annotated[list[Path], typer.Argument(help=".safetensors files, each with a .json beside it.")],
    epsilon: Annotated[float | None, typer.Option(help="Loss scale at which parameters are counted.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Instead of a loss scale: n beta.")] = None,
    curve: Annotated[bool, typer.Option("--curve", help="Instead: over a range of loss scales.")] = False,
    loss: Annotated[
        str | None, typer.Option(help="How far outputs are from the checkpoint's own: mse or kl. Targets play no part.")
    ] = None,
    parameters: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Vary only these; may be given several times.")
    ] = None,
    kernel: Annotated[str, typer.Option(help="hmc, mala, sgld, psgld, sgnht or auto.")] = "auto",
    preconditioner: Annotated[str, typer.Option(help="gauss-newton, lanczos, none or auto.")] = "auto",
    radius: Annotated[
        float, typer.Option(help="How far free directions are followed, relative to the size of the parameters.")
    ] = 0.02,
    gamma: Annotated[float | None, typer.Option(help="Of the localiser, instead of a radius.")] = None,
    chains: Annotated[int, typer.Option(help="Number of chains.")] = 4,
    warmup: Annotated[
        int | None, typer.Option(help="Steps of a chain that are not averaged; default: 300, sgld 600.")
    ] = None,
    draws: Annotated[int | None, typer.Option(help="Steps of a chain that are; default: 500, sgld 4,000.")] = None,
    step_size: Annotated[float | None, typer.Option(help="Of the kernel; default: adapted, or a safe one.")] = None,
    seed: Annotated[int, typer.Option(help="Of the chains.")] = 0,
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
    with opened_source(store, artifacts, url) as opened, ProgressBars(err) as bars:
        _require(checkpoints)
        choices: dict[str, Any] = {"epsilon": epsilon, "temperature": temperature, "curve": curve, "loss": loss}
        choices |= {"parameters": tuple(parameters) if parameters else None, "kernel": kernel, "radius": radius}
        choices |= {"preconditioner": preconditioner, "gamma": gamma, "chains": chains, "warmup": warmup}
        choices |= {"draws": draws, "step_size": step_size, "seed": seed}
        options: dict[str, Any] = {"data": data, "factory": factory, "force": force}
        rows: list[LlcRow] = _counted(opened, "llc", checkpoints, choices, plot, bars, options)
    if as_json:
        print_json({"items": [row.to_json() for row in rows]})
        return
    for path, row in zip(checkpoints, rows, strict=True):
        scales = " to ".join(dict.fromkeys(number(point["epsilon"]) for point in (row.points[0], row.points[-1])))
        out.print(f"{path.stem}: {row.id}, loss scale {scales}, {row.n:,} data points", style="bold", soft_wrap=True)
        show_llc(row)
    if len(rows) > 1 and not curve:
        out.print(llc_summary([path.stem for path in checkpoints], rows))
    if plot is not None:
        err.print(f"wrote {plot}", soft_wrap=True)


@app.command()
def track(
    model: Annotated[str, typer.Argument(help="Name or ID of a model with analysed checkpoints.")],
    epsilon: EpsilonOption = None,
    objective: ObjectiveOption = None,
    resolution: ResolutionOption = None,
    seed: SeedOption = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="GRAPH", help="Follow the graphs made as this one was; default: as those of most checkpoints were."
        ),
    ] = None,
    coupling: Annotated[
        float, typer.Option(help="Tie between a node and its copy at the next checkpoint; in mean costs per node.")
    ] = 0.0,
    align: Annotated[bool, typer.Option(help="Align nodes by their values on the data.")] = True,
    data: DataOption = None,
    factory: FactoryOption = None,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Match the modules of a model's checkpoints: births, deaths, splits, merges, churn."""
    choices = {"epsilon": loss_scale(epsilon), "objective": objective, "resolution": resolution, "seed": seed}
    with opened_source(store, artifacts, url) as opened, ProgressBars(err) as bars:
        ties: dict[str, Any] = {"like": like, "coupling": coupling, "align": align}
        options: dict[str, Any] = {"data": data, "factory": factory, "force": force}
        if not isinstance(opened, Store):
            (job,) = remote.computed(opened, "track", [model], {**choices, **ties}, **options)
            found = opened.get_tracking(job.result("tracking"))
        else:
            from .worker import track as run

            allow(factory)
            found = run(opened, model, choices, progress=bars.update, **ties, **options)
        taken = described_series(opened, model, [step.graph for step in found.steps])
    if taken:
        err.print(taken, soft_wrap=True)
    show_row(found, as_json)


@app.command()
def ls(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS.values())}.")],
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 100,
    cursor: Annotated[str | None, typer.Option(help="Where the last list ended (next_cursor).")] = None,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what is stored."""
    name = singular(kind)
    kind = KINDS[name]
    with opened_source(store, artifacts, url) as opened:
        page = getattr(opened, f"{name}s")(cursor=cursor, limit=limit)
    if as_json:
        print_json(page.to_json())
        return
    out.print(rows_table(kind, page.items) if page.items else f"no {kind} stored yet")
    for note in partition_notes(page.items, reasons=False) if name == "partition" else ():
        out.print(note)
    if page.next_cursor:
        out.print(f"more: interbasis ls {kind} --cursor {page.next_cursor}", soft_wrap=True)


@app.command()
def show(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    ref: Annotated[str, typer.Argument(help="Its ID, the start of it, or a name.")],
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one stored thing in full."""
    name = singular(kind)
    with opened_source(store, artifacts, url) as opened:
        row: Record = getattr(opened, f"get_{name}")(ref)
        if as_json:
            document = row.to_json()
            if name == "partition":
                document["nodes"] = [node.to_json() for node in opened.nodes(ref)]
                document["mediators"] = [node.to_json() for node in opened.mediators(ref)]
            print_json(document)
            return
    show_row(row, False)


@app.command()
def export(
    ref: Annotated[str, typer.Argument(help="ID of a graph, a partition or (netcdf) an llc.")],
    form: Annotated[Enum("Format", {f: f for f in _FORMATS}, type=str), typer.Option("--format", help="Of the file.")],  # type: ignore[valid-type]
    file: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    epsilon: Annotated[float | None, typer.Option(help="Only edges above its square root.")] = None,
    module: Annotated[int | None, typer.Option(help="Of eap and autocircuit: only the circuit of this module.")] = None,
    data: DataOption = None,
    factory: FactoryOption = None,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
) -> None:
    """Write a graph, a partition with its graph, or the traces of a learning coefficient, for another tool."""
    with opened_source(store, artifacts, url) as opened, ProgressBars(err) as bars:
        allow(factory)
        from ..analysis.results import write_bytes
        from .draw import export as content

        options: dict[str, Any] = {"module": module, "data": data, "factory": factory, "progress": bars.update}
        write_bytes(file, content(opened, ref, form.value, epsilon, **options))
    err.print(f"wrote {file}", soft_wrap=True)


@app.command()
def plot(
    ref: Annotated[str, typer.Argument(help="ID of a graph, partition, tracking, ledger, experiment or llc.")],
    file: Annotated[Path, typer.Option("-o", "--output", help=".png, .svg or .pdf file to write.")],
    figure: Annotated[
        str | None,
        typer.Option(
            help="graph, strengths, membership, profile, tracks, waterfall, synchronisation[:LAYER], traces, curve, or "
            "the kind of an experiment."
        ),
    ] = None,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
) -> None:
    """Draw a graph, a partition in colour, modules over training, a ledger, an experiment or an llc."""
    with opened_source(store, artifacts, url) as opened:
        from .draw import plot as draw

        draw(opened, ref, file, figure)
    err.print(f"wrote {file}", soft_wrap=True)


@db.command()
def upgrade(store: StoreOption = None) -> None:
    """Bring the database's schema to this version."""
    done = Store.upgrade(store)
    before = done.before or "an empty database"
    out.print(f"nothing to do: {done.after}" if done.before == done.after else f"upgraded {before} to {done.after}")


@db.command()
def check(
    store: StoreOption = None, artifacts: ArtifactsOption = None, url: UrlOption = None, as_json: JsonOption = False
) -> None:
    """Check the database and every stored file; exit code 1 where something is damaged."""
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
    grace: Annotated[float, typer.Option(help="Hours that a file must be old; jobs write files before rows.")] = 24.0,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove stored files that belong to nothing: what interrupted and replaced results left behind."""
    if not grace >= 0:
        raise StoreError(f"--grace is {grace:g}: expected hours, at least 0")
    with opened_source(store, artifacts, url) as opened:
        found = opened.collect(grace * 3600)
    if as_json:
        print_json(found.to_json())
    else:
        out.print(f"removed {counted(len(found.files), 'file')}, {found.bytes / 1e6:.1f} MB")


def main() -> None:
    """Run the command line; errors of ours become one line on standard error."""
    # before torch is loaded: threads that spin while they wait for a core that another program has take ten times as
    # long as those that sleep, which are as fast as one thread where there is little to do
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except SystemExit as stop:
        if stop.code == 130:  # Ctrl-C
            err.print("interrupted: what was finished before is stored, nothing is half-stored")
        raise
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        line = Text.assemble(("error:", "bold red"), " ", " ".join(str(error).split()))
        err.print(line, soft_wrap=True, highlight=False)
        sys.exit(code)


@app.command()
def experiment(
    partition: Annotated[str, typer.Argument(metavar="PARTITION", help="ID of a partition.")],
    kind: Annotated[
        list[str], typer.Option("--kind", help="modules, isolate, faithfulness, bisect, epsilon or predict; several.")
    ] = ["modules"],  # noqa: B006 - typer copies it
    metric: Annotated[
        str | None, typer.Option(help="loss, accuracy or cross_entropy; default: accuracy where targets are classes.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Of the metric, for bisect and epsilon.")] = 1e-3,
    draws: Annotated[
        int | None,
        typer.Option(
            help="Random interventions; default: 20, faithfulness and predict 5; bisect at most 5 per pair of cuts."
        ),
    ] = None,
    replacement: Annotated[str, typer.Option(help="For what is ablated: mean, zero or resample.")] = "mean",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    data: DataOption = None,
    factory: FactoryOption = None,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test modules on the network: ablate each, cut what joins them, keep the strongest edges; store what is lost."""
    choices = {"metric": metric, "tolerance": tolerance, "draws": draws, "replacement": replacement, "seed": seed}
    rows: list[ExperimentRow] = []
    new = []
    with opened_source(store, artifacts, url) as opened, ProgressBars(err) as bars:
        for each in kind:
            bars.title(each)
            if not isinstance(opened, Store):
                given: dict[str, Any] = {name: value for name, value in choices.items() if value is not None}
                options: dict[str, Any] = {"data": data, "factory": factory, "force": force}
                (job,) = remote.computed(opened, "experiment", [partition], {**given, "kind": each}, **options)
                rows.append(opened.get_experiment(job.result("experiment")))
                new += [opened.get_partition(job.result("partition"))] if each == "epsilon" else []
            else:
                from ..analysis.circuits.experiments import ExperimentRecipe
                from . import experiments

                allow(factory)
                recipe = ExperimentRecipe(kind=each, **choices)  # type: ignore[arg-type]
                options = {"data": data, "factory": factory, "force": force, "progress": bars.update}
                rows.append(experiments.experiment(opened, partition, recipe, **options))
                made = experiments.divided(opened, rows[-1], progress=bars.update)
                new += [made] if made is not None else []
    if as_json:
        print_json({"items": [row.to_json() for row in rows]})
        return
    for row in rows:
        out.print(f"{row.id}: {row.experiment} on {row.partition}, {row.metric}", style="bold", soft_wrap=True)
        show_experiment(row)
        if row.experiment == "epsilon":
            part = new.pop(0)
            named = f"divided again with these loss scales: {part.id}, {counted(part.n_modules, 'module')}"
            out.print(named, style="bold", soft_wrap=True)
            show_row(part, False)


def _counted(
    source: Store | Client,
    task: str,
    checkpoints: list[Path],
    choices: dict[str, Any],
    plot: Path | None,
    bars: ProgressBars,
    options: dict[str, Any],
) -> list[Any]:
    """Ledgers or learning coefficients of checkpoints, computed here or by a service; the last one is drawn."""
    if plot is not None:
        from .draw import picture_format

        picture_format(plot)
    rows: list[Any] = []
    if isinstance(source, Store):
        from ..analysis.recipe import LedgerRecipe, LlcRecipe
        from . import estimates

        allow(options["factory"])
        recipe: Any = {"ledger": LedgerRecipe, "llc": LlcRecipe}[task](**choices)
        for path in checkpoints:
            bars.title(path.stem)
            rows.append(getattr(estimates, task)(source, path, recipe, progress=bars.update, **options))
    else:
        jobs = remote.computed(source, task, checkpoints, choices, **options)
        rows = [getattr(source, f"get_{task}")(job.result(task)) for job in jobs]
    if plot is not None and rows:
        from .draw import plot as draw

        draw(source, rows[-1].id, plot)
    return rows


def _require(checkpoints: list[Path]) -> None:
    """Refuse a file that is not there before the first one is computed."""
    for path in checkpoints:
        if not path.exists():
            raise StoreError(f"there is no checkpoint {path}")


def _exit_code(error: Exception) -> int | None:
    """2 for bad input, 1 for failures of ours, None for a bug; does not import the numerics to find out."""
    if isinstance(error, StoreError):
        return 1 if isinstance(error, ArtifactError | UnavailableError) else 2
    errors: Any = sys.modules.get("interbasis.analysis.errors")
    if errors is None or not isinstance(error, errors.InterbasisError):
        return None
    return 2 if isinstance(error, errors.InputError) else 1


if __name__ == "__main__":
    main()
