"""The commands about stored results: ls, show, export, plot."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ...records.base import Record
from ...terminal.results import partition_notes
from ...terminal.show import err, out, print_json, show_page, show_row
from ..backends import Given, opened_backend
from ..options import ArtifactsOption, DataOption, FactoryOption, JsonOption, StoreOption, UrlOption
from ..sources import KINDS, opened_source, singular

__all__ = ["app"]

app = typer.Typer()

_FORMATS = ["graphml", "gexf", "node-link", "circuit-tracer", "eap", "autocircuit", "masks", "safetensors", "netcdf"]


@app.command()
def ls(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS.values())}.")],
    limit: Annotated[int, typer.Option(help="Number of rows to list.", min=1, max=1000)] = 100,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the list before.")] = None,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List stored things of one kind."""
    name = singular(kind)
    kind = KINDS[name]
    with opened_source(store, artifacts, url) as opened:
        page = getattr(opened, f"{name}s")(cursor=cursor, limit=limit)
    show_page(kind, page, as_json)
    if as_json:
        return
    for note in partition_notes(page.items, reasons=False) if name == "partition" else ():
        out.print(note)
    if page.next_cursor:
        out.print(f"more: interbasis ls {kind} --cursor {page.next_cursor}", soft_wrap=True)


@app.command()
def show(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    ref: Annotated[str, typer.Argument(help="An ID, the start of one, or a name.")],
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all details of one stored thing."""
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
    form: Annotated[Enum("Format", {f: f for f in _FORMATS}, type=str), typer.Option("--format", help="File format.")],  # type: ignore[valid-type]
    file: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    epsilon: Annotated[float | None, typer.Option(help="Keep only edges stronger than its square root.")] = None,
    module: Annotated[
        int | None, typer.Option(help="For eap and autocircuit: export only the circuit of this module.")
    ] = None,
    data: DataOption = None,
    factory: FactoryOption = None,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
) -> None:
    """Export a graph, a partition with its graph, or the traces of a learning coefficient to another tool's file."""
    with opened_backend(store, artifacts, url) as backend:
        from ....analysis.results import write_bytes

        write_bytes(file, backend.export(ref, form.value, epsilon, module, Given(data, factory)))
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
    """Draw a graph, a partition, a tracking of modules, a ledger, an experiment or a learning coefficient."""
    with opened_source(store, artifacts, url) as opened:
        from ...tasks.figures import plot as draw

        draw(opened, ref, file, figure)
    err.print(f"wrote {file}", soft_wrap=True)
