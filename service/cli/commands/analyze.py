"""The commands that analyse checkpoints: demo, analyze, modules, track."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from platformdirs import user_data_dir

from ...records.partitions import PARTITION
from ...tasks.series import described_series
from ...terminal.progress import ProgressBars
from ...terminal.results import controls_table, cuts_note, partition_notes
from ...terminal.show import err, out, print_json, show_row
from ...terminal.tables import counted, table, verdict
from ..backends import Given, makes_store, opened_backend
from ..completion import complete_ids, complete_values
from ..options import (
    ArtifactsOption,
    CheckpointsArgument,
    ContextOption,
    ControlOption,
    CopiesOption,
    DataOption,
    DeviceOption,
    EpsilonOption,
    FactoryOption,
    ForceOption,
    JsonOption,
    LossOption,
    MaxSizeOption,
    MemoryOption,
    MinSizeOption,
    NullsOption,
    NumberOption,
    ObjectiveOption,
    PlotOption,
    PointsOption,
    PolishOption,
    RecipeOption,
    ResolutionOption,
    SeedOption,
    StoreOption,
    TextOption,
    TokensOption,
    UrlOption,
    given_place,
)
from ..pictures import check_picture, draw
from ..seeds import at_distance
from ..sources import control_choices, loss_scale, opened_store, recipe_choices, stored_controls
from ..texts import Text, windows_file

__all__ = ["app"]

app = typer.Typer()

_PANEL = "Analyse"

_GRAPH = "Choices of the graph"


def _choice(name: str, default: str, what: str) -> Any:
    """Make the option of a choice of the graph whose values can be listed."""
    values = complete_values("analyze", name)
    listed = f"{what}: {', '.join(values(''))}."
    return typer.Option(f"--{name}", help=listed, show_default=default, rich_help_panel=_GRAPH, autocompletion=values)


@app.command(rich_help_panel="Start here")
def demo(
    folder: Annotated[
        Path | None, typer.Option(help="Folder for the checkpoints.", show_default="in your data folder")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a small network on two digits side by side, and find its two halves.

    Example: interbasis demo --folder run
    """
    default = Path(user_data_dir("interbasis", appauthor=False)) / "demo"
    folder = folder or (default / f"seed{seed}" if seed else default)  # so that no training overwrites another
    with opened_store(store, artifacts) as opened, ProgressBars(err) as bars:
        from ...tasks.analyze import DemoLine, run_demo

        bars.begin("demo")
        lines = run_demo(opened, folder, seed=seed, progress=bars.update)
        name, place = opened.called(PARTITION, lines[-1].outcome.partition), given_place()
    if as_json:
        print_json({"items": [line.to_json() for line in lines]})
        return
    out.print(
        "Two handwritten digits side by side, one network that reads both. The left and\n"
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
        f"  interbasis ls partitions{place}\n"
        f"  interbasis show partition {name}{place}\n"
        f"  interbasis plot {name} -o modules.png{place}\n"
        f"  interbasis export {name} --format graphml -o modules.graphml{place}\n"
        f"Checkpoints are in {folder}",
        soft_wrap=True,
    )


@app.command(rich_help_panel=_PANEL)
def analyze(
    checkpoints: CheckpointsArgument,
    recipe: RecipeOption = None,
    text: TextOption = None,
    tokens: TokensOption = None,
    context: ContextOption = 128,
    points: PointsOption = None,
    cuts: Annotated[
        str | None,
        typer.Option(
            help='Cuts of the network, separated by commas, or "auto".',
            show_default="those of the checkpoint or of its family",
            rich_help_panel=_GRAPH,
        ),
    ] = None,
    loss: LossOption = None,
    positions: Annotated[
        str | None,
        _choice("positions", "later for decoders, else mask", "Which positions of a save_pretrained model count"),
    ] = None,
    basis: Annotated[str | None, _choice("basis", "global", "Basis of each cut")] = None,
    output: Annotated[str | None, _choice("output", "auto", "Basis of the last cut")] = None,
    rotation: Annotated[str | None, _choice("rotation", "degenerate", "Rotation of the basis")] = None,
    probes: Annotated[
        int | None,
        typer.Option(
            help="Number of random probes per data point.",
            show_default="exact sums, or as many as --tolerance takes where these are too long",
            rich_help_panel=_GRAPH,
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Relative standard error of the importance of the directions at which no more probes are taken.",
            show_default="0.05 where sums are estimated",
            rich_help_panel=_GRAPH,
        ),
    ] = None,
    strengths: Annotated[str | None, _choice("strengths", "jacobian", "How strengths are computed")] = None,
    attribution_points: Annotated[
        int | None,
        typer.Option(
            help="Number of Gauss-Legendre points for attributions.", show_default="1", rich_help_panel=_GRAPH
        ),
    ] = None,
    epsilon: EpsilonOption = None,
    objective: ObjectiveOption = None,
    resolution: ResolutionOption = None,
    k: NumberOption = None,
    min_size: MinSizeOption = None,
    max_size: MaxSizeOption = None,
    nulls: NullsOption = None,
    mediator_polish: PolishOption = None,
    control: ControlOption = None,
    copies: CopiesOption = None,
    seed: SeedOption = None,
    data: DataOption = None,
    factory: FactoryOption = None,
    device: DeviceOption = None,
    memory: MemoryOption = None,
    plot: PlotOption = None,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute the interaction graphs of checkpoints and their modules, and store graphs and partitions.

    Example: interbasis analyze run/step500.safetensors --data digits.npz --plot modules.png
    Example: interbasis analyze my-gpt2 --text corpus.txt --context 64 --points 200
    """
    check_picture(plot)
    named: dict[str, Any] = {"loss": loss, "basis": basis, "output": output, "rotation": rotation, "probes": probes}
    named |= {
        "tolerance": tolerance,
        "positions": positions,
        "strengths": strengths,
        "points": attribution_points,
        "epsilon": loss_scale(epsilon),
        "objective": objective,
    }
    choices = {**named, "resolution": resolution, "k": k, "nulls": nulls, "min_size": min_size, "max_size": max_size}
    choices |= {"mediator_polish": mediator_polish, "seed": seed, **control_choices(control, copies)}
    choices["cuts"] = cuts if cuts in (None, "auto") else [part.strip() for part in cuts.split(",")]
    given = {name: value for name, value in choices.items() if value is not None}
    windows = Text(text, tokens, context, points, seed)
    with (
        opened_backend(store, artifacts, url, create=makes_store("analyze", checkpoints)) as backend,
        windows_file(backend.source, checkpoints, data, windows) as file,
    ):
        read = Given(file, factory, force, device, memory)
        chosen = at_distance(backend.source, backend.bars, {**recipe_choices(recipe), **given}, read)
        made = backend.run("analyze", checkpoints, chosen, read)
        outcomes = [backend.source.outcome(each["graph"], each["partition"]) for each in made]
        draw(backend.source, outcomes[-1].partition.id, plot)
        controls = [stored_controls(backend.source, outcome.partition) for outcome in outcomes]
        if plot is not None and controls[-1]:
            draw(backend.source, outcomes[-1].partition.id, plot.with_stem(f"{plot.stem}-control"), "controls")
    if as_json:
        beside = [{"controls": [asdict(row) for row in rows]} if rows else {} for rows in controls]
        print_json({"items": [{**o.to_json(), **more} for o, more in zip(outcomes, beside, strict=True)]})
        return
    rows = [
        (*(o.checkpoint.label, o.graph.id, o.partition.id, o.partition.n_modules), verdict(o.partition.verdict))
        for o in outcomes
    ]
    out.print(table(("checkpoint", "graph", "partition", "modules", "verdict"), rows))
    if note := cuts_note([o.graph for o in outcomes]):
        out.print(note, highlight=False)
    for line in partition_notes([o.partition for o in outcomes]):
        out.print(line)
    for outcome, beside_it in zip(outcomes, controls, strict=True):
        if beside_it:
            out.print()
            out.print(controls_table(outcome.partition.id, beside_it))


@app.command(rich_help_panel=_PANEL)
def modules(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="GRAPH",
            help="ID of a graph, or model@step, model@last, last.",
            autocompletion=complete_ids("graph"),
        ),
    ],
    epsilon: EpsilonOption = None,
    objective: ObjectiveOption = None,
    resolution: ResolutionOption = None,
    k: NumberOption = None,
    min_size: MinSizeOption = None,
    max_size: MaxSizeOption = None,
    nulls: NullsOption = None,
    mediator_polish: PolishOption = None,
    seed: SeedOption = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Store a division made elsewhere: a .csv or .json file of nodes and modules."),
    ] = None,
    epsilon_profile: Annotated[
        Path | None, typer.Option(help="Draw the modules over a range of loss scales into this file.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Data for seeds:GLOB.", show_default="those that the first checkpoint names"),
    ] = None,
    factory: FactoryOption = None,
    plot: PlotOption = None,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Divide a stored graph into modules, and store the partition.

    Example: interbasis modules two-digits@last --k 4
    """
    check_picture(plot)
    choices: dict[str, Any] = {"epsilon": loss_scale(epsilon), "objective": objective, "resolution": resolution, "k": k}
    choices |= {
        "nulls": nulls,
        "min_size": min_size,
        "max_size": max_size,
        "mediator_polish": mediator_polish,
        "seed": seed,
    }
    with opened_backend(store, artifacts, url) as backend:
        choices = at_distance(backend.source, backend.bars, choices, Given(data, factory), ref)
        if labels is not None:
            from ....analysis.exchange.labels_file import read_assignment
            from ....analysis.results import read_bytes

            choices["labels"] = read_assignment(read_bytes(labels))
        if epsilon_profile is not None:
            from ...tasks import figures

            found = figures.epsilon_profile(backend.source, ref, choices, epsilon_profile, progress=backend.bars.update)
            names = ("epsilon", "n_modules", "edge_cost", "mediator_cost", "contrast", "p_value")
            rows = [tuple(getattr(part, name) for name in names) for part in found]
        else:
            (made,) = backend.run("partition", [ref], choices, Given(force=force))
            part = backend.source.get_partition(made["partition"])
            draw(backend.source, part.id, plot)
    if epsilon_profile is not None:
        if as_json:
            print_json({"items": [dict(zip(names, row, strict=True)) for row in rows]})
            return
        out.print(table(("epsilon", "modules", "edge cost", "mediator cost", "contrast", "p"), rows))
        err.print(f"wrote {epsilon_profile}", soft_wrap=True)
        return
    show_row(part, as_json)


@app.command(rich_help_panel=_PANEL)
def track(
    model: Annotated[
        str,
        typer.Argument(
            help="A model with analysed checkpoints: its newest run is tracked; MODEL#2 is its second run.",
            autocompletion=complete_ids("model", "run"),
        ),
    ],
    epsilon: EpsilonOption = None,
    objective: ObjectiveOption = None,
    resolution: ResolutionOption = None,
    seed: SeedOption = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="GRAPH",
            help="Track graphs with the recipe and data of this one.",
            show_default="those of most checkpoints",
            autocompletion=complete_ids("graph"),
        ),
    ] = None,
    coupling: Annotated[
        float, typer.Option(help="Weight between a node and its copy at the next checkpoint, in mean costs per node.")
    ] = 0.0,
    align: Annotated[bool, typer.Option(help="Align nodes by their values on the data.")] = True,
    data: DataOption = None,
    factory: FactoryOption = None,
    device: DeviceOption = None,
    memory: MemoryOption = None,
    plot: PlotOption = None,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Match modules across the checkpoints of a run: births, deaths, splits, merges, churn.

    Example: interbasis track two-digits --plot tracks.png
    """
    check_picture(plot)
    choices: dict[str, Any] = {"epsilon": loss_scale(epsilon), "objective": objective, "resolution": resolution}
    choices |= {"seed": seed, "like": like, "coupling": coupling, "align": align}
    with opened_backend(store, artifacts, url) as backend:
        given = Given(data, factory, force, device, memory)
        (made,) = backend.run("track", [model], at_distance(backend.source, backend.bars, choices, given), given)
        found = backend.source.get_tracking(made["tracking"])
        draw(backend.source, found.id, plot)
        taken = described_series(
            backend.source, backend.source.get_run(found.run), [step.graph for step in found.steps]
        )
    if taken:
        err.print(taken, soft_wrap=True)
    show_row(found, as_json)
