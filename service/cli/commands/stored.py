"""The commands about one stored result: show, export, plot."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ...records.errors import StoreError
from ...records.estimates import EXPERIMENT, LEDGER, LLC
from ...records.graphs import GRAPH
from ...records.kinds import Source
from ...records.labels import preferred
from ...records.partitions import COMPARISON, PARTITION, TRACKING, PartitionDetail
from ...terminal.cards import named_nodes_table
from ...terminal.labels import labels_table
from ...terminal.show import err, out, print_json, show_row
from ...terminal.tables import counted
from ..backends import Given, opened_backend
from ..completion import complete_ids
from ..options import ArtifactsOption, DataOption, FactoryOption, JsonOption, StoreOption, UrlOption, with_place
from ..sources import KINDS, found_by_name, opened_source, singular

__all__ = ["app"]

app = typer.Typer()

_FORMATS = ["graphml", "gexf", "node-link", "circuit-tracer", "eap", "autocircuit", "components", "masks"]
_FORMATS += ["safetensors", "netcdf"]

_DRAWN = ("partition", "graph", "tracking", "ledger", "experiment", "llc", "description", "comparison")

_LABELS = 12  # shown with a graph or partition

_NODES = 3  # of each module, of a graph whose file names them

_UNITS = {
    "loss": "strengths squared are losses",
    "weight": "strengths are weights of the file; costs are their sums, without signs",
    "share": "strengths are shares of all weights into a node; costs are their sums, without signs",
}

_RESULTS = (PARTITION, GRAPH, LEDGER, LLC, EXPERIMENT, COMPARISON, TRACKING)


@app.command(rich_help_panel="What is stored")
def show(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[KIND] ID",
            help=f"An ID, the start of one, or a name; last: the newest result; KIND: {', '.join(KINDS)}.",
            autocompletion=complete_ids(*KINDS),
        ),
    ],
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all details of one stored thing.

    Example: interbasis show two-digits@last
    """
    if len(words) > 2 or (words[0] in KINDS and len(words) == 1):
        raise StoreError(f"show {' '.join(words)}: expected [KIND] ID, like `interbasis show partition p-1a2b3c4d`")
    ref = words[-1]
    with opened_source(store, artifacts, url) as opened:
        if len(words) == 2:
            name = singular(words[0])
            row = getattr(opened, f"get_{name}")(ref)
        elif ref == "last":
            kind, row = opened.find_any(_RESULTS, ref)
            name = kind.name
        else:
            name, row = found_by_name(opened, ref)
        labelled: Any = {"graph": GRAPH, "partition": PARTITION}.get(name)
        labels = None if labelled is None else opened.labels(labelled, row.id)
        named = _NamedNodes(opened, row) if name == "partition" else None
        if as_json:
            document = row.to_json()
            if name == "partition":
                document["nodes"] = [node.to_json() for node in opened.nodes(row.id)]
                document["mediators"] = [node.to_json() for node in opened.mediators(row.id)]
            if named is not None and named.nodes:
                document["strongest_nodes"] = [asdict(node) for node in named.nodes]
            if labels is not None:
                document["labels"] = [label.to_json() for label in labels]
            print_json(document)
            return
    show_row(row, False)
    if named is not None and named.nodes:
        out.print()
        out.print(named_nodes_table(named.nodes, preferred(labels or ())[0]))
        out.print(named.note, style="dim")
    if labels:
        out.print()
        out.print(labels_table(labels, _LABELS))


class _NamedNodes:
    """The strongest nodes of a partition of a graph that was read from a file, and what their strengths are."""

    def __init__(self, source: Source, row: PartitionDetail) -> None:
        """Read the graph, where it is one of a file."""
        self.nodes: list[Any] = []
        self.note = ""
        if source.get_graph(row.graph).strengths != "given":
            return
        from ....analysis.attribution.named_nodes import strongest_nodes
        from ....analysis.graph.interaction_graph import InteractionGraph
        from ....analysis.modules.partition import Partition

        graph = InteractionGraph.from_bytes(source.graph_bytes(row.graph))
        if graph.nodes:
            partition = Partition.from_bytes(source.partition_bytes(row.id))
            self.nodes = strongest_nodes(graph, partition.labels, epsilon=partition.epsilons, most=_NODES)
            self.note = _UNITS[graph.unit]


@app.command(rich_help_panel="What is stored")
def export(
    ref: Annotated[
        str,
        typer.Argument(
            help="A graph, a partition or (netcdf) an llc: an ID, or model@step, model@last, last.",
            autocompletion=complete_ids("partition", "graph", "llc"),
        ),
    ],
    form: Annotated[Enum("Format", {f: f for f in _FORMATS}, type=str), typer.Option("--format", help="File format.")],  # type: ignore[valid-type]
    file: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    epsilon: Annotated[float | None, typer.Option(help="Keep only edges stronger than its square root.")] = None,
    module: Annotated[
        int | None, typer.Option(help="For eap, autocircuit and components: export only this module.")
    ] = None,
    neurons: Annotated[
        int | None,
        typer.Option(
            help="For components: list so many hidden units of the MLPs for each module and pair of cuts.",
            show_default="none",
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="ORIGINAL",
            help="For circuit-tracer: the attribution graph that was imported, or the sha256:... of a stored one; it "
            "is written again with the modules as supernodes.",
        ),
    ] = None,
    data: DataOption = None,
    factory: FactoryOption = None,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
) -> None:
    """Export a graph, a partition with its graph, or the traces of a learning coefficient to another tool's file.

    Example: interbasis export two-digits@last --format graphml -o modules.graphml
    Example: interbasis export bee@last --format circuit-tracer --into bee.json -o bee-modules.json
    """
    with opened_backend(store, artifacts, url) as backend:
        from ....analysis.results import write_bytes

        chosen = {"module": module, "neurons": neurons, "into": into}
        write_bytes(file, backend.export(ref, form.value, epsilon, Given(data, factory), **chosen))
        kind, row = backend.source.find_any((LLC,) if form.value == "netcdf" else (PARTITION, GRAPH), ref)
        place = backend.source.place_of(row)
        labels = () if kind is LLC else backend.source.labels(kind, row.id)
    err.print(f"wrote {file}: {kind.name} {row.id} of {place}", soft_wrap=True)
    if moved := sum(label.origin is not None for label in labels):
        said = f"{moved} of {counted(len(labels), 'label')} moved along, or from before it was computed again"
        err.print(with_place(f"{said}: `interbasis label {row.id}` says from where"), soft_wrap=True)


@app.command(rich_help_panel="What is stored")
def plot(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[KIND] REF",
            help="A result: an ID, or model@step, model@last, last; KIND: partition, graph, tracking, ledger, "
            "experiment, llc, description or comparison.",
            autocompletion=complete_ids(
                "partition", "graph", "tracking", "ledger", "experiment", "llc", "description", "comparison"
            ),
        ),
    ],
    file: Annotated[Path, typer.Option("-o", "--output", help=".png, .svg or .pdf file to write.")],
    figure: Annotated[
        str | None,
        typer.Option(
            help="graph, strengths, membership, profile, tracks, waterfall, synchronisation[:LAYER], traces, curve, "
            "the kind of an experiment, cards, module:M, node:CUT/I, or overlap."
        ),
    ] = None,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
) -> None:
    """Draw a graph, a partition, a tracking, a ledger, an experiment, a learning coefficient, cards or a comparison.

    Example: interbasis plot two-digits@last -o modules.png
    """
    if len(words) > 2 or (words[0] in KINDS and len(words) == 1):
        raise StoreError(f"plot {' '.join(words)}: expected [KIND] REF, like `interbasis plot ledger last`")
    kind = singular(words[0]) if len(words) == 2 else None
    with opened_source(store, artifacts, url) as opened:
        from ...tasks.figures import plot as draw

        draw(opened, words[-1], file, figure, kind=kind)
    err.print(f"wrote {file}", soft_wrap=True)
