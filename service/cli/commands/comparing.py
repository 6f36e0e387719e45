"""The commands that hold networks, nodes and modules against others: compare, distance, coherence, roles, scores."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any

import typer

from ...records.errors import StoreError
from ...records.graphs import GRAPH
from ...records.kinds import Source
from ...records.labels import preferred
from ...records.partitions import PARTITION, PartitionDetail
from ...terminal.results import (
    comparison_body,
    comparisons_table,
    distance_table,
    distance_values,
    persistence_table,
)
from ...terminal.show import err, out, print_json
from ...terminal.tables import counted, table, verdict
from ..backends import Given, makes_store, opened_backend
from ..completion import complete_ids
from ..divisions import Pairs, division_files
from ..options import (
    ArtifactsOption,
    ContextOption,
    DataOption,
    DeviceOption,
    FactoryOption,
    ForceOption,
    JsonOption,
    LossOption,
    MemoryOption,
    NetworksArgument,
    PlotOption,
    PointsOption,
    PositionsOption,
    SeedOption,
    StoreOption,
    TextOption,
    TokensOption,
    UrlOption,
)
from ..pictures import check_picture
from ..seeds import distances
from ..sources import opened_source
from ..texts import Text, windows_file

__all__ = ["app"]

app = typer.Typer()

_SHOWN = 12  # rows of a table

_NAMES = 32  # characters of the names of some nodes


@app.command(rich_help_panel="Analyse")
def compare(
    divisions: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C ...]",
            help="Partitions: IDs, model@step, model@last; and files: CSV or JSON of node and label, or a graph of "
            "circuit-tracer with supernodes.",
            autocompletion=complete_ids("partition"),
        ),
    ],
    permutations: Annotated[int, typer.Option(min=1, help="Permutations of labels within cuts.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the permutations.")] = 0,
    align: Annotated[
        bool,
        typer.Option(
            "--align/--no-align",
            help="Match nodes of different checkpoints by their values; otherwise node i is node i.",
        ),
    ] = True,
    plot: PlotOption = None,
    data: DataOption = None,
    factory: FactoryOption = None,
    force: ForceOption = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare divisions of the same nodes: do they agree more than by chance, and which modules match?

    Of networks from several seeds it says how many of them have each module of the first.
    Pairs with a partition are stored; of files alone what is found is only printed.

    Example: interbasis compare two-digits@500 two-digits@last
    Example: interbasis compare seed0@last seed1@last seed2@last
    Example: interbasis compare clusters.csv supernodes.json
    """
    check_picture(plot)
    if len(divisions) < 2:
        raise StoreError(f"compare {divisions[0]}: expected two divisions or more")
    files = division_files(divisions)
    choices = {"permutations": permutations, "seed": seed}
    options = Given(data=data, factory=factory, force=force)
    with ExitStack() as stack:
        backend = None
        if None in files:
            backend = stack.enter_context(opened_backend(store, artifacts, url))
        pairs = Pairs(backend, choices, {"align": None if align else False}, options)
        found, left = pairs.of([file or pairs.partition(name) for file, name in zip(files, divisions, strict=True)])
        kept = pairs.persistence(found)
        best = [asdict(one.pairs[0])["best"][0] for one in pairs.made(found)] if as_json else []
        if plot is not None:
            pairs.draw(found, plot)
    unstored = [one for one in found if one.row is None]
    if as_json:
        print_json([{**one.to_json(), "best": matches} for one, matches in zip(found, best, strict=True)])
    else:
        out.print(comparisons_table([(one.first, one.values) for one in found]))
        if len(found) == 1 and not left:
            out.print()
            for part in comparison_body(found[0].first, found[0].values)[:-1]:
                out.print(part)
        if kept:
            out.print()
            out.print(persistence_table(found[0].first, kept))
            out.print(
                "\nmatched: more overlap than the best match has in 95 % of permutations within cuts", style="dim"
            )
        if unstored:
            out.print("pairs of files are not stored: a stored comparison is of a partition", style="dim")
    for line in left:
        (err if as_json else out).print(line, soft_wrap=True)


@app.command(rich_help_panel="Analyse")
def distance(
    checkpoints: NetworksArgument,
    loss: LossOption = None,
    positions: PositionsOption = None,
    data: DataOption = None,
    text: TextOption = None,
    tokens: TokensOption = None,
    context: ContextOption = 128,
    points: PointsOption = None,
    seed: SeedOption = None,
    factory: FactoryOption = None,
    plot: PlotOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write the distances to this .safetensors file.")
    ] = None,
    device: DeviceOption = None,
    memory: MemoryOption = None,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute how far apart the outputs of networks that do the same job are, as trained from several seeds.

    Their mean is a loss scale, which other commands take as --epsilon seeds:GLOB. Nothing is stored.

    Example: interbasis distance run1/last.safetensors run2/last.safetensors run3/last.safetensors
    Example: interbasis distance two-digits@500 two-digits@last
    """
    check_picture(plot)
    refs, windows = list(map(str, checkpoints)), Text(text, tokens, context, points, seed)
    with (
        opened_backend(store, artifacts, None, create=makes_store("ledger", checkpoints)) as backend,
        windows_file(backend.source, checkpoints, data, windows) as file,
    ):
        given = Given(file, factory, False, device, memory)
        found = distances(backend.source, refs, given, bars=backend.bars, loss=loss, positions=positions)
    if output is not None:
        err.print(f"wrote {found.save(output)}", soft_wrap=True)
    if plot is not None:
        from ...tasks.figures import written

        err.print(f"wrote {written(found, plot)}", soft_wrap=True)
    if as_json:
        print_json({"names": found.names, "sha256": found.sha256, "loss": found.loss, **distance_values(found)})
        return
    out.print(distance_table(found))
    out.print()
    out.print(found.summary)


@app.command(rich_help_panel="Analyse")
def coherence(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="PARTITION",
            help="ID of a partition, or model@step, model@last, last.",
            autocompletion=complete_ids("partition"),
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Argument(
            help="A CSV or JSON file of node and label.",
            show_default="the labels in the file of the graph, else those that `interbasis label` gave",
        ),
    ] = None,
    permutations: Annotated[int, typer.Option(min=1, help="Relabellings within cuts.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the relabellings.")] = 0,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether the labels of a module's nodes agree more than by chance.

    Labels are compared by their words (TF-IDF). Chance deals them out anew within each cut.

    Example: interbasis coherence bee@last
    """
    with opened_source(store, artifacts, url) as source:
        from ....analysis.comparison.coherence import label_coherence
        from ....analysis.modules.partition import Partition

        row = source.get_partition(ref)
        graph = _graph(source, row.graph)
        given = _labels(source, row, graph) if labels is None else _texts(labels)
        partition = Partition.from_bytes(source.partition_bytes(row.id))
    found = label_coherence(partition, given, nodes=graph.nodes or None, n_permutations=permutations, seed=seed)
    if as_json:
        print_json({"partition": row.id, **asdict(found), "verdict": found.verdict})
        return
    rows = [(m.index, m.n_labelled, m.value, m.null_mean, m.z, m.p_value) for m in found.modules[:_SHOWN]]
    title = _more(len(found.modules) - len(rows), "module")
    out.print(table(("module", "labelled nodes", "mean cosine", "by chance", "z", "p"), rows, title))
    out.print()
    out.print(verdict(found.verdict).append(found.summary.removeprefix(found.verdict), "default"))
    left = {"without a label": found.n_without, "labels of nodes in no module, or of none": found.n_unknown}
    if said := "; ".join(f"{count:,} {what}" for what, count in left.items() if count):
        out.print(f"left out: {said}", style="dim")


@app.command(rich_help_panel="Analyse")
def roles(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="GRAPH",
            help="ID of a graph, or model@step, model@last, last.",
            autocompletion=complete_ids("graph"),
        ),
    ],
    k: Annotated[int | None, typer.Option(min=1, help="Number of roles.", show_default="by the gap statistic")] = None,
    nulls: Annotated[int, typer.Option(min=19, help="Null graphs.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the null graphs.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write node and role to this .csv file, for `compare` and `modules`."),
    ] = None,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Group the nodes of a graph that have the same inputs and outputs, whether or not they interact.

    Modules, nodes that interact, are the answer to another question: see `interbasis modules`.

    Example: interbasis roles bee@last -o roles.csv
    """
    if output is not None and output.suffix.lower() != ".csv":
        raise StoreError(f"-o {output}: expected the name of a .csv file")
    with opened_backend(store, artifacts, url) as backend:
        from ....analysis.attribution.roles import find_roles
        from ....analysis.results import write_bytes

        row = backend.source.get_graph(ref)
        graph = _graph(backend.source, row.id)
        backend.bars.begin("roles")
        found = find_roles(graph, k=k, n_null=nulls, seed=seed, progress=backend.bars.update)
    ids = [table.ids for table in graph.nodes] or [tuple(map(str, range(k))) for k in graph.widths]
    of = {
        f"{cut}/{name}": int(role)
        for cut, names, labels in zip(graph.cuts, ids, found.labels, strict=True)
        for name, role in zip(names, labels.tolist(), strict=True)
        if role >= 0
    }
    if output is not None:
        written = io.StringIO()
        csv.writer(written, lineterminator="\n").writerows([("node", "module"), *of.items()])
        write_bytes(output, written.getvalue().encode())
        err.print(f"wrote {output}", soft_wrap=True)
    if as_json:
        names = ("n_roles", "p_value", "similarity", "verdict", "reason")
        print_json({"graph": row.id, **{name: getattr(found, name) for name in names}, "roles": of})
        return
    rows = [_role(graph, found.labels, role) for role in range(min(found.n_roles, _SHOWN))]
    out.print(table(("role", "nodes", "cuts", "such as"), rows, _more(found.n_roles - len(rows), "role")))
    out.print("\nroles: nodes with the same inputs and outputs; not modules: nodes that interact")
    out.print(verdict(found.verdict).append(f": {found.reason}", "default"))


@app.command(rich_help_panel="Analyse")
def scores(
    ref: Annotated[
        str,
        typer.Argument(
            help="A partition or a graph: an ID, or model@step, model@last, last.",
            autocompletion=complete_ids("partition", "graph"),
        ),
    ],
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how much of what reaches the outputs of an attribution graph starts at tokens, not at errors.

    Of the graph, and of each module kept alone: other nodes count as errors then.

    Example: interbasis scores bee@last
    """
    with opened_source(store, artifacts, url) as source:
        from ....analysis.attribution.paths import path_scores
        from ....analysis.modules.partition import Partition

        kind, row = source.find_any((PARTITION, GRAPH), ref)
        graph = _graph(source, row.graph if kind is PARTITION else row.id)
        labels = Partition.from_bytes(source.partition_bytes(row.id)).labels if kind is PARTITION else ()
    types = {word for each in graph.nodes for name in each.types for word in name.split()}
    if "embedding" not in types:
        raise StoreError(
            f"{row.id} has no embeddings, at which paths start: expected an attribution graph, imported with its "
            "nodes of type embedding"
        )
    whole = path_scores(graph)
    parts = [path_scores(graph, labels, m) for m in range(row.n_modules if kind is PARTITION else 0)]
    if as_json:
        modules = [{"module": m, **asdict(part)} for m, part in enumerate(parts)]
        print_json({kind.name: row.id, **asdict(whole), "modules": modules})
        return
    named = [("the whole graph", whole), *((f"module {m} alone", part) for m, part in enumerate(parts))]
    rows = [(name, part.replacement, part.completeness) for name, part in named]
    out.print(table(("kept", "replacement", "completeness"), rows))
    out.print(
        "\nreplacement: the share of what reaches the outputs that starts at tokens, not at\nerrors; completeness: the "
        "share of inputs that are no errors, by influence"
    )
    if "error" not in types:
        out.print("without nodes of type error both are 1 of the whole graph", style="dim")


def _graph(source: Source, ref: str) -> Any:
    from ....analysis.graph.interaction_graph import InteractionGraph

    return InteractionGraph.from_bytes(source.graph_bytes(ref))


def _more(hidden: int, noun: str) -> str | None:
    return f"{counted(hidden, f'more {noun}')}: show with --json" if hidden > 0 else None


def _labels(source: Source, row: PartitionDetail, graph: Any) -> list[list[str | None]]:
    """Return the labels of a graph's nodes, per cut: those of its file, else those that are stored."""
    given: list[list[str | None]] = [list(each.labels) for each in graph.nodes]
    if not any(text and text.strip() for cut in given for text in cut):
        stored, _ = preferred(source.labels(PARTITION, row.id))
        given = [[stored.get((cut, i)) for i in range(k)] for cut, k in zip(graph.cuts, graph.widths, strict=True)]
    if not any(text for cut in given for text in cut):
        raise StoreError(f"no node of {row.graph} has a label: give a file of node and label, as `coherence P FILE`")
    return given


def _texts(file: Path) -> dict[str, str]:
    """Read the labels of nodes from a file; several of one node become one."""
    from ....analysis.exchange.labels_file import read_groups

    return {node: " ".join(texts) for node, texts in read_groups(file).items() if texts}


def _role(graph: Any, labels: Sequence[Any], role: int) -> tuple[Any, ...]:
    """Return a row about a role: its nodes, the cuts that they are at, and what its strongest nodes are called."""
    strength = [0.0 * each for each in graph.importance]
    for (earlier, later), block in zip(graph.pairs, graph.blocks, strict=True):
        strength[earlier] = strength[earlier] + block.sum(0)
        strength[later] = strength[later] + block.sum(1)
    members = [(cut, i) for cut, of in enumerate(labels) for i in range(len(of)) if of[i] == role]
    members.sort(key=lambda node: -strength[node[0]][node[1]])
    cuts = [graph.cuts[cut] for cut in sorted({cut for cut, _ in members})]
    named = [graph.nodes[cut].titles[i] if graph.nodes else f"{graph.cuts[cut]}/{i}" for cut, i in members[:2]]
    said = shorten(", ".join(dict.fromkeys(named)), _NAMES, placeholder="...")
    return role, len(members), cuts[0] if len(cuts) == 1 else f"{cuts[0]} to {cuts[-1]}", said
