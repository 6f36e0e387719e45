"""The commands that say what modules mean: describe, report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ...client.client import Client
from ...client.in_process import InProcess
from ...records.errors import NotFoundError, StoreError
from ...records.estimates import DESCRIPTION, DescriptionRow
from ...records.graphs import GRAPH
from ...records.kinds import Source, kinds_of
from ...records.labels import LabelRow
from ...records.partitions import PARTITION, PartitionDetail
from ...store.store import Store
from ...terminal.cards import module_card, modules_overview, node_card, nodes_overview
from ...terminal.show import err, out, print_json
from ...terminal.tables import counted
from ...web.report import Read, write_report
from ..backends import Backend, Given, opened_backend
from ..completion import complete_ids
from ..options import (
    ArtifactsOption,
    DataOption,
    DeviceOption,
    FactoryOption,
    ForceOption,
    JsonOption,
    MemoryOption,
    StoreOption,
    UrlOption,
)
from ..sources import opened_source

__all__ = ["app"]

app = typer.Typer()

_FILES = (".csv", ".json")  # of divisions

_SHOWN = 3  # nodes of each cut, where none is named


@app.command(rich_help_panel="Analyse")
def describe(
    ref: Annotated[
        str,
        typer.Argument(
            help="A partition or a graph: an ID, or model@step, model@last, last. The ID of a description shows its "
            "stored cards, without data.",
            autocompletion=complete_ids("partition", "graph", "description"),
        ),
    ],
    node: Annotated[
        list[str] | None, typer.Option(metavar="CUT/I", help="Print the card of this node, as layers.1/3.")
    ] = None,
    module: Annotated[list[int] | None, typer.Option(help="Print the card of this module.")] = None,
    examples: Annotated[int, typer.Option(min=1, help="Data points at each end of a card.")] = 8,
    points: Annotated[
        int | None,
        typer.Option(min=0, help="Data points on which effects are measured.", show_default="256; 16 long sequences"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    data: DataOption = None,
    factory: FactoryOption = None,
    force: ForceOption = False,
    device: DeviceOption = None,
    memory: MemoryOption = None,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    features: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write the cards of nodes as feature files of circuit-tracer, into FOLDER/features/SCAN of its page.",
        ),
    ] = None,
) -> None:
    """Say what modules and nodes do: their examples, their effects on the outputs, and what they read.

    Example: interbasis describe two-digits@last --module 0
    """
    choices = {"examples": examples, "points": points, "seed": seed}
    with opened_backend(store, artifacts, url) as backend:
        given = Given(data, factory, force, device, memory)
        row = _description(backend, ref, choices, given)
        partition = backend.source.get_partition(row.partition)
        cards = _cards(backend.source, row.id)
        labels = backend.source.labels(PARTITION, partition.id)
        name, basis = backend.source.place_of(row), backend.source.get_graph(row.graph).basis
    if features is not None:
        _write_features(cards, features / "features" / f"interbasis {basis} basis")
    chosen = [cards.module(m) for m in module or ()] + [cards.node(*_place(each)) for each in node or ()]
    if as_json:
        print_json({**row.to_json(), "cards": [card.content for card in chosen or cards]})
        return
    out.print(f"{row.id}, {name}: {row.n_cards:,} nodes of {partition.id}, {row.n:,} data points", highlight=False)
    for card in chosen:
        out.print()
        content = card.content
        said = _labels(labels, cut=content.get("cut"), node=content.get("node"), module=content["module"])
        for part in module_card(content, said) if content["kind"] == "module" else node_card(content, said):
            out.print(part)
    if not chosen:
        texts = {m.content["module"]: "; ".join(_labels(labels, module=m.content["module"])) for m in cards.modules}
        out.print(modules_overview([card.content for card in cards.modules], texts))
        out.print()
        out.print(nodes_overview([card.content for card in cards.nodes], _SHOWN))
        err.print("one card: --module M, --node CUT/I; all of them: --json", style="dim")


@app.command(rich_help_panel="Analyse")
def report(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="PARTITION",
            help="ID of a partition, or model@step, model@last, last.",
            autocompletion=complete_ids("partition"),
        ),
    ],
    file: Annotated[Path, typer.Option("-o", "--output", help="The .html file or the folder to write.")],
    title: Annotated[str | None, typer.Option(help="Title of a file.", show_default="model and step")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier report in the folder.")] = False,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
) -> None:
    """Write one HTML file of a partition, or a folder with the page of `interbasis serve`; neither loads anything else.

    Both have modules, cards, graph, evidence and experiments. A folder is for any static web server. Cards are those
    that `interbasis describe` wrote before.

    Example: interbasis report two-digits@last -o report/
    """
    single = file.suffix.lower() in (".html", ".htm")
    if file.suffix and not single and not file.is_dir():
        raise StoreError(f"-o {file}: expected the name of an .html file, or of a folder")
    if title is not None and not single:
        raise StoreError("--title is for an .html file: a folder is named by model and step")
    with opened_source(store, artifacts, url) as source:
        row = _partition(source, ref)
        if single:
            from ...tasks.figures import report as write

            write(source, row.id, file, title=title)
        else:
            with _reading(source) as read:
                write_report(read, row.id, file, force=force)
    held = f"{row.id}, {counted(row.n_modules, 'module')}, {row.verdict}"
    err.print(f"wrote {file}: {row.label or row.model}, {held}", soft_wrap=True)
    if not single:
        err.print(f"look at it: python -m http.server --directory {file}", style="dim", soft_wrap=True)


@contextmanager
def _reading(source: Store | Client) -> Iterator[Read]:
    """Read JSON as the routes answer it: from the service, or from its application in this process."""
    if isinstance(source, Client):
        yield source.read
        return
    from ...api.app import create_app

    with Client("http://127.0.0.1", transport=InProcess(create_app(source, guarded=False))) as client:
        yield client.read


def _description(backend: Backend, ref: str, choices: dict[str, Any], given: Given) -> DescriptionRow:
    """Return the description that is named, or write that of the partition or graph that is."""
    if kinds_of(ref) == (DESCRIPTION.name,):
        return backend.source.get_description(ref)
    (made,) = backend.run("describe", [_partition(backend.source, ref).id], choices, given)
    return backend.source.get_description(made["description"])


def _partition(source: Source, ref: str) -> PartitionDetail:
    """Return the partition that is named, or the newest one of the graph that is."""
    kind, row = source.find_any((PARTITION, GRAPH), ref)
    if kind is PARTITION:
        found: PartitionDetail = row
        return found
    newest = source.partitions(graph=row.id, newest_first=True, limit=1).items
    if not newest:
        raise NotFoundError(f"{row.id} has no partition: run `interbasis modules {row.id}` first")
    return source.get_partition(newest[0].id)


def _cards(source: Source, ref: str) -> Any:
    from ....analysis.meaning.cards import Cards

    return Cards.from_bytes(source.file(DESCRIPTION, ref))


def _write_features(cards: Any, place: Path) -> None:
    """Write the feature files of a graph's nodes into a folder."""
    from ....analysis.exchange.feature_files import feature_files
    from ....analysis.results import write_bytes

    place.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, content in feature_files(cards):
        write_bytes(place / name, json.dumps(content, ensure_ascii=False).encode())
        count += 1
    err.print(f"wrote {count:,} feature files to {place}", soft_wrap=True)


def _place(named: str) -> tuple[str, int]:
    """Part the name of a node into cut and number."""
    cut, slash, number = named.rpartition("/")
    if not slash or not number.isdecimal():
        raise StoreError(f"--node {named}: expected CUT/I, a cut and the number of a node there, as layers.1/3")
    return cut, int(number)


def _labels(
    labels: tuple[LabelRow, ...], *, cut: str | None = None, node: int | None = None, module: int | None = None
) -> list[str]:
    """Return the texts of the labels of a node, or of a module."""
    if cut is not None:
        return [row.text for row in labels if row.text and (row.cut, row.node) == (cut, node)]
    return [row.text for row in labels if row.text and row.node is None and row.module == module]
