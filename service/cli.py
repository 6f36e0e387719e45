"""The command line. Starts without torch; exit code 0 success, 2 bad input, 1 failure."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from platformdirs import user_data_dir
from rich.console import Console
from rich.text import Text

from .display import (
    COLUMNS,
    ProgressBars,
    details,
    layers_table,
    ledger_table,
    modules_table,
    number,
    rows_table,
    table,
    tracking_table,
)
from .records import LedgerRow, PartitionDetail, Record, StoreError, TrackingDetail
from .store import Store

__all__ = ["app", "main"]

app = typer.Typer(
    help="Find the modules inside a neural network.", no_args_is_help=True, pretty_exceptions_enable=False
)
db = typer.Typer(help="Look after the store's database.", no_args_is_help=True)
app.add_typer(db, name="db")

_out = Console(markup=False, emoji=False)
_err = Console(stderr=True, markup=False, emoji=False)

StoreOption = Annotated[
    str | None,
    typer.Option("--store", envvar="INTERBASIS_STORE", help="SQLite file or database URL.", show_envvar=True),
]
ArtifactsOption = Annotated[
    str | None,
    typer.Option("--artifacts", envvar="INTERBASIS_ARTIFACTS", help="Folder or URL of large files.", show_envvar=True),
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
_KINDS = list(COLUMNS)
_FORMATS = ["graphml", "node-link", "safetensors"]


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
    with _opened(store, artifacts) as opened, ProgressBars(_err) as bars:
        from .worker import DemoLine, run_demo

        lines = run_demo(opened, folder, seed=seed, progress=bars.update)
    if as_json:
        _print_json({"items": [line.to_json() for line in lines]})
        return
    _out.print(
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
    _out.print(table(names, [row(line) for line in lines]))
    _out.print(
        "\nright: held-out digits named correctly. cost: log-strength between modules.\n"
        "cut 0 to 3, all: agreement of the modules with left and right (adjusted mutual\n"
        f"information, 1 perfect, 0 chance) at {', '.join(cuts)}.\n",
        soft_wrap=True,
    )
    for line in lines:
        if line.outcome.partition.n_modules == 1:
            _out.print(f"Step {line.outcome.checkpoint.step} is not modular: no division beats chance.")
    last = lines[-1].outcome.partition
    count = "is one module" if last.n_modules == 1 else f"has {last.n_modules} modules"
    _out.print(
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
    loss: Annotated[str | None, typer.Option(help="Behavioural loss: mse or kl.")] = None,
    basis: Annotated[str | None, typer.Option(help="global, local, pca or neuron.")] = None,
    output: Annotated[str | None, typer.Option(help="Basis of the last cut: pca or neuron.")] = None,
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
    as_json: JsonOption = False,
) -> None:
    """Take checkpoints to the modules of their interaction graphs, and store graphs and partitions."""
    named: dict[str, Any] = {"loss": loss, "basis": basis, "output": output, "rotation": rotation, "probes": probes}
    named |= {"strengths": strengths, "points": points, "epsilon": _scale(epsilon), "objective": objective}
    choices = {**named, "resolution": resolution, "k": k, "min_size": min_size, "max_size": max_size}
    choices |= {"mediator_polish": mediator_polish, "seed": seed}
    choices["cuts"] = cuts if cuts in (None, "auto") else [part.strip() for part in cuts.split(",")]
    outcomes = []
    with _opened(store, artifacts) as opened, ProgressBars(_err) as bars:
        from .worker import analyze as run

        _allow(factory)
        for path in checkpoints:
            bars.title(path.stem)
            options: dict[str, Any] = {"recipe_file": recipe, "data": data, "factory": factory, "force": force}
            outcomes.append(run(opened, path, choices, progress=bars.update, **options))
    if as_json:
        _print_json({"items": [outcome.to_json() for outcome in outcomes]})
        return
    rows = [
        (o.checkpoint.label, o.graph.id, o.graph.n_nodes, o.partition.id, o.partition.n_modules, o.partition.edge_cost)
        for o in outcomes
    ]
    _out.print(table(("checkpoint", "graph", "nodes", "partition", "modules", "cost"), rows))


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
    epsilon_profile: Annotated[
        Path | None, typer.Option(help="Instead: a figure of the modules over a range of loss scales.")
    ] = None,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Divide a stored graph into modules, and store the partition."""
    choices: dict[str, Any] = {"epsilon": _scale(epsilon), "objective": objective, "resolution": resolution, "k": k}
    choices |= {"min_size": min_size, "max_size": max_size, "mediator_polish": mediator_polish, "seed": seed}
    with _opened(store, artifacts) as opened, ProgressBars(_err) as bars:
        from . import draw, worker

        if epsilon_profile is not None:
            found = draw.epsilon_profile(opened, ref, choices, epsilon_profile, progress=bars.update)
            names = ("epsilon", "n_modules", "edge_cost", "mediator_cost", "contrast", "p_value")
            rows = [tuple(getattr(part, name) for name in names) for part in found]
        else:
            part = worker.modules(opened, ref, choices, force=force, progress=bars.update)
    if epsilon_profile is not None:
        if as_json:
            _print_json({"items": [dict(zip(names, row, strict=True)) for row in rows]})
            return
        _out.print(table(("epsilon", "modules", "edge cost", "mediator cost", "contrast", "p"), rows))
        _err.print(f"wrote {epsilon_profile}", soft_wrap=True)
        return
    _show(part, as_json)


@app.command()
def ledger(
    checkpoints: Annotated[list[Path], typer.Argument(help=".safetensors files, each with a .json beside it.")],
    epsilon: Annotated[
        float | None, typer.Option(help="Loss scale below which directions count as lost; default: exact ranks.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Without epsilon: relative, on singular values.")] = 1e-10,
    method: Annotated[str, typer.Option(help="Rank of the Hessian: exact, estimate or auto.")] = "auto",
    loss: Annotated[str | None, typer.Option(help="Behavioural loss: mse or kl.")] = None,
    seed: Annotated[int, typer.Option(help="Of estimates.")] = 0,
    data: DataOption = None,
    factory: FactoryOption = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw the (last) ledger: .png, .svg or .pdf.")] = None,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count where parameters go: what is free, by cause, and how many are effective."""
    rows = []
    with _opened(store, artifacts) as opened, ProgressBars(_err) as bars:
        from ..analysis.recipe import LedgerRecipe
        from .draw import picture_format
        from .draw import plot as draw
        from .worker import ledger as run

        _allow(factory)
        if plot is not None:
            picture_format(plot)
        for path in checkpoints:  # refused before the first one is counted
            if not path.exists():
                raise StoreError(f"there is no checkpoint {path}")
        recipe = LedgerRecipe(loss=loss, epsilon=epsilon, tolerance=tolerance, method=method, seed=seed)
        for path in checkpoints:
            bars.title(path.stem)
            options: dict[str, Any] = {"data": data, "factory": factory, "force": force}
            rows.append(run(opened, path, recipe, progress=bars.update, **options))
        if plot is not None and rows:
            draw(opened, rows[-1].id, plot)
    if as_json:
        _print_json({"items": [row.to_json() for row in rows]})
        return
    for path, row in zip(checkpoints, rows, strict=True):
        scale = "exact ranks" if row.epsilon is None else f"loss scale {row.epsilon:g}"
        _out.print(f"{path.stem}: {row.id}, {scale}, {row.n:,} data points", style="bold", soft_wrap=True)
        _show_ledger(row)
    if plot is not None:
        _err.print(f"wrote {plot}", soft_wrap=True)


@app.command()
def track(
    model: Annotated[str, typer.Argument(help="Name or ID of a model with analysed checkpoints.")],
    epsilon: EpsilonOption = None,
    objective: ObjectiveOption = None,
    resolution: ResolutionOption = None,
    seed: SeedOption = None,
    coupling: Annotated[
        float, typer.Option(help="Tie between a node and its copy at the next checkpoint; in mean costs per node.")
    ] = 0.0,
    align: Annotated[bool, typer.Option(help="Align nodes by their values on the data.")] = True,
    data: DataOption = None,
    factory: FactoryOption = None,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Match the modules of a model's checkpoints: births, deaths, splits, merges, churn."""
    choices = {"epsilon": _scale(epsilon), "objective": objective, "resolution": resolution, "seed": seed}
    with _opened(store, artifacts) as opened, ProgressBars(_err) as bars:
        from .worker import track as run

        _allow(factory)
        options: dict[str, Any] = {"coupling": coupling, "align": align, "data": data, "factory": factory}
        found = run(opened, model, choices, force=force, progress=bars.update, **options)
    _show(found, as_json)


@app.command()
def ls(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(_KINDS)}.")],
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 100,
    cursor: Annotated[str | None, typer.Option(help="Where the last list ended (next_cursor).")] = None,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what is stored."""
    kind = _kind(kind)
    with _opened(store, artifacts) as opened:
        page = getattr(opened, kind)(cursor=cursor, limit=limit)
    if as_json:
        _print_json(page.to_json())
        return
    _out.print(rows_table(kind, page.items) if page.items else f"no {kind} stored yet")
    if page.next_cursor:
        _out.print(f"more: interbasis ls {kind} --cursor {page.next_cursor}", soft_wrap=True)


@app.command()
def show(
    kind: Annotated[str, typer.Argument(help="model, checkpoint, dataset, graph, partition, ledger or tracking.")],
    ref: Annotated[str, typer.Argument(help="Its ID, the start of it, or a name.")],
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one stored thing in full."""
    kind = _kind(kind)
    with _opened(store, artifacts) as opened:
        row: Record = getattr(opened, f"get_{kind.removesuffix('s')}")(ref)
        if as_json:
            document = row.to_json()
            if kind == "partitions":
                document["nodes"] = [node.to_json() for node in opened.nodes(ref)]
                document["mediators"] = [node.to_json() for node in opened.mediators(ref)]
            _print_json(document)
            return
    _show(row, False)


@app.command()
def export(
    ref: Annotated[str, typer.Argument(help="ID of a graph or a partition.")],
    form: Annotated[Enum("Format", {f: f for f in _FORMATS}, type=str), typer.Option("--format", help="Of the file.")],  # type: ignore[valid-type]
    file: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    epsilon: Annotated[float | None, typer.Option(help="Only edges above its square root.")] = None,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
) -> None:
    """Write a graph, or a partition with its graph, for another tool."""
    with _opened(store, artifacts) as opened:
        from ..analysis.files import write_bytes
        from .draw import export as content

        write_bytes(file, content(opened, ref, form.value, epsilon))
    _err.print(f"wrote {file}", soft_wrap=True)


@app.command()
def plot(
    ref: Annotated[str, typer.Argument(help="ID of a graph, a partition, a tracking or a ledger.")],
    file: Annotated[Path, typer.Option("-o", "--output", help=".png, .svg or .pdf file to write.")],
    figure: Annotated[
        str | None,
        typer.Option(help="graph, strengths, membership, profile, tracks, waterfall or synchronisation[:LAYER]."),
    ] = None,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
) -> None:
    """Draw a graph, a partition with its modules in colour, modules over training, or a parameter ledger."""
    with _opened(store, artifacts) as opened:
        from .draw import plot as draw

        draw(opened, ref, file, figure)
    _err.print(f"wrote {file}", soft_wrap=True)


@db.command()
def upgrade(store: StoreOption = None) -> None:
    """Bring the database's schema to this version."""
    done = Store.upgrade(store)
    before = done.before or "an empty database"
    _out.print(f"nothing to do: {done.after}" if done.before == done.after else f"upgraded {before} to {done.after}")


@db.command()
def check(store: StoreOption = None, artifacts: ArtifactsOption = None, as_json: JsonOption = False) -> None:
    """Check the database and every stored file; exit code 1 where something is damaged."""
    with _opened(store, artifacts) as opened:
        report = opened.check()
    if as_json:
        _print_json(report.to_json())
    else:
        for problem in report.problems:
            _out.print(problem, style="red", soft_wrap=True)
        _out.print(f"{number(report.n_artifacts)} files read, {len(report.problems)} problems", soft_wrap=True)
        if report.uncollected:
            _out.print(f"{len(report.uncollected)} files belong to no result (harmless leftovers)")
    if not report.ok:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; errors of ours become one line on standard error."""
    try:
        app()
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        line = Text.assemble(("error:", "bold red"), " ", " ".join(str(error).split()))
        _err.print(line, soft_wrap=True, highlight=False)
        sys.exit(code)


def _exit_code(error: Exception) -> int | None:
    """2 for bad input, 1 for failures of ours, None for a bug; does not import the numerics to find out."""
    if isinstance(error, StoreError):
        return 2
    errors: Any = sys.modules.get("interbasis.analysis.errors")
    if errors is None or not isinstance(error, errors.InterbasisError):
        return None
    return 2 if isinstance(error, errors.InputError) else 1


@contextmanager
def _opened(store: str | None, artifacts: str | None) -> Iterator[Store]:
    with Store.open(store, artifacts) as opened:
        yield opened


def _show(row: Record, as_json: bool) -> None:
    """One stored value, for people or for programs."""
    if as_json:
        _print_json(row.to_json())
        return
    _out.print(details(row))
    if isinstance(row, LedgerRow):
        _out.print()
        _show_ledger(row)
    if isinstance(row, PartitionDetail):
        _out.print()
        _out.print(modules_table(row))
    if isinstance(row, TrackingDetail):
        _out.print()
        _out.print(tracking_table(row))


def _show_ledger(row: LedgerRow) -> None:
    _out.print(ledger_table(row))
    _out.print()
    _out.print(layers_table(row))
    if row.warning:
        _out.print(f"\n{row.warning}")
    _out.print()


def _scale(epsilon: str | None) -> float | str | list[float] | None:
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


def _allow(factory: str | None) -> None:
    """Let the user's own modules be found, as python itself does."""
    if factory:
        sys.path.insert(0, str(Path.cwd()))


def _kind(name: str) -> str:
    for kind in _KINDS:
        if name in (kind, kind.removesuffix("s")):
            return kind
    raise StoreError(f"there is nothing called {name!r} to show: expected one of {', '.join(_KINDS)}")


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
