"""The command about labels: list, give and remove them, in files, from elsewhere, and with a command."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ...client.client import Client
from ...labels.commands import answer, source_of, words_of
from ...labels.documents import Documents
from ...labels.files import from_csv, to_csv
from ...labels.moving import Divided, moved_labels
from ...records.errors import StoreError
from ...records.graphs import GRAPH, GraphRow
from ...records.kinds import Source
from ...records.labels import LabelRow, NewLabel, check_label, check_source, place_name
from ...records.partitions import PARTITION, PartitionDetail
from ...terminal.labels import label_notes, labels_table
from ...terminal.show import err, out, print_json
from ...terminal.tables import counted
from ..completion import complete_ids
from ..options import ArtifactsOption, DataOption, FactoryOption, JsonOption, StoreOption, UrlOption
from ..sources import opened_source

__all__ = ["app"]

app = typer.Typer()

_GIVE, _MANY = "A label", "Many labels"


@app.command(rich_help_panel="What is stored")
def label(
    ref: Annotated[
        str,
        typer.Argument(
            help="A partition or a graph: an ID, or model@step, model@last, last.",
            autocompletion=complete_ids("partition", "graph"),
        ),
    ],
    text: Annotated[str | None, typer.Argument(help="The label, one line; without it labels are listed.")] = None,
    node: Annotated[
        str | None, typer.Option(metavar="CUT/I", help="A node, as layers.1/3.", rich_help_panel=_GIVE)
    ] = None,
    module: Annotated[int | None, typer.Option(help="A module of the partition.", rich_help_panel=_GIVE)] = None,
    author: Annotated[
        str | None, typer.Option(help="Who gives it.", show_default="your login name", rich_help_panel=_GIVE)
    ] = None,
    confidence: Annotated[
        float | None, typer.Option(help="How sure it is, between 0 and 1.", rich_help_panel=_GIVE)
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="human, import or command:NAME; each has a label of its own.",
            show_default="human, with --with its program",
            rich_help_panel=_GIVE,
        ),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the label.", rich_help_panel=_GIVE)] = False,
    history: Annotated[bool, typer.Option("--history", help="List all that was ever said, oldest first.")] = False,
    csv: Annotated[
        Path | None,
        typer.Option(help="Read labels from a CSV file, as -o writes it; all or none.", rich_help_panel=_MANY),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the labels to a CSV file.", rich_help_panel=_MANY)
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="OTHER",
            help="Move labels along from another partition or graph: by shared nodes; of another graph by the values "
            "of nodes.",
            rich_help_panel=_MANY,
        ),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            "--with",
            metavar="COMMAND",
            help="Run this for each module of a partition or node of a graph that it has not labelled: JSON on "
            "standard input, one line back.",
            rich_help_panel=_MANY,
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds that COMMAND may take for one.", rich_help_panel=_MANY)
    ] = 60.0,
    again: Annotated[
        bool, typer.Option("--again", help="Run COMMAND also where it gave a label.", rich_help_panel=_MANY)
    ] = False,
    data: DataOption = None,
    factory: FactoryOption = None,
    store: StoreOption = None,
    artifacts: ArtifactsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List, give and remove labels of nodes and modules; earlier ones are kept.

    Example: interbasis label two-digits@last --module 0 "left digit"
    """
    actions = {
        "TEXT": text,
        "--remove": remove,
        "--csv": csv,
        "--from": origin,
        "--with": command,
        "--history": history,
    }
    named = [name for name, value in actions.items() if value not in (None, False)]
    if len(named) > 1:
        raise StoreError(f"{' and '.join(named)} were given: expected one of them")
    if (text is not None or remove) and (node is None) == (module is None):
        raise StoreError("a label needs a place: give --node CUT/I or --module M")
    with opened_source(store, artifacts, url) as opened:
        at = _Place(opened, *_divided(opened, ref), node, module, author, source, confidence)
        if text is not None:
            rows = at.put([at.new(text)])
        elif remove:
            rows = (at.remove(),)
        elif csv is not None:
            rows = at.put(from_csv(_content(csv), author=at.author))
        elif origin is not None:
            rows = at.move(origin, data, factory)
        elif command is not None:
            rows = tuple(at.ask(command, timeout, again))
        else:
            rows = at.listed(history)
    _show(rows, output, as_json, at.name)


@dataclass(frozen=True)
class _Place:
    """Whose labels a command is about: a graph or a partition, and a node or module where one is named."""

    source: Source
    graph: GraphRow
    partition: PartitionDetail | None
    node: str | None
    module: int | None
    given_author: str | None
    given_source: str | None
    confidence: float | None

    @property
    def kind(self) -> Any:
        return GRAPH if self.partition is None else PARTITION

    @property
    def name(self) -> str:
        return self.graph.id if self.partition is None else self.partition.id

    @property
    def author(self) -> str:
        if self.given_author is not None:
            return self.given_author
        try:
            return getpass.getuser()
        except (OSError, KeyError, ImportError):
            raise StoreError("your login name is not known: give --author NAME") from None

    @property
    def place(self) -> dict[str, Any]:
        """Cut and node, or module, as they were named."""
        if self.node is None:
            return {"module": self.module}
        cut, _, i = self.node.rpartition("/")
        if not cut or not i.isdecimal():
            raise StoreError(f"--node is {self.node!r}: expected CUT/I, like {self.graph.cuts[-1]}/0")
        cuts = self.graph.cuts
        return {
            "cut": cuts[int(cut)] if cut.isdecimal() and int(cut) < len(cuts) and cut not in cuts else cut,
            "node": int(i),
        }

    def new(self, text: str, **place: Any) -> NewLabel:
        about = {"author": self.author, "source": self.given_source or "human", "confidence": self.confidence}
        return NewLabel(text=text, **{**about, **(place or self.place)})

    def put(self, labels: list[NewLabel]) -> tuple[LabelRow, ...]:
        return self.source.put_labels(self.kind, self.name, labels)

    def remove(self) -> LabelRow:
        about: dict[str, Any] = {"author": self.author, "source": self.given_source or "human"}
        return self.source.remove_label(self.kind, self.name, **about, **self.place)

    def listed(self, history: bool = False) -> tuple[LabelRow, ...]:
        """List the labels, all or those of the place or source that was named."""
        wanted = {name: value for name, value in self.place.items() if value is not None}
        if self.given_source is not None:
            check_source(self.given_source)
            wanted["source"] = self.given_source
        rows = self.source.labels(self.kind, self.name, history=history)
        return tuple(row for row in rows if all(getattr(row, name) == value for name, value in wanted.items()))

    def move(self, ref: str, data: Path | None, factory: str | None) -> tuple[LabelRow, ...]:
        """Move labels along from another graph or partition; say which found no place."""

        def align(earlier: str, later: str) -> Any:
            if isinstance(self.source, Client):
                raise StoreError(
                    "--from another graph runs the networks, to compare the values of their nodes: do it on the store, "
                    "without --url"
                )
            from ...tasks.tracking import aligned

            return aligned(self.source, earlier, later, data=data, factory=factory)  # type: ignore[arg-type]

        old = Divided(*_divided(self.source, ref))
        labels, left = moved_labels(self.source, old, Divided(self.graph, self.partition), align)
        for line in left:
            err.print(f"not moved: {line}", soft_wrap=True)
        return self.put(labels) if labels else ()

    def ask(self, command: str, timeout: float, again: bool) -> Iterator[LabelRow]:
        """Run a command for each node or module, and store each label as it comes."""
        words = words_of(command)
        source = self.given_source or source_of(words)
        check_source(source)
        known = {place_name(row) for row in self.listed() if row.source == source and row.origin is None and not again}
        documents = Documents(self.source, self.graph, self.partition)
        for place in self._places():
            about = self.new("-", **place)
            where = place_name(about)
            if where in known:
                continue
            document = documents.module(place["module"]) if "module" in place else documents.node(*place.values())
            given = {"text": answer(words, document, where, timeout=timeout), "source": source}
            made = NewLabel(**{**about.to_json(), **given})
            check_label(made)
            (row,) = self.put([made])
            err.print(f"{where}: {row.text}", soft_wrap=True)
            yield row

    def _places(self) -> Iterator[dict[str, Any]]:
        """Yield the node or module that was named, else all modules of the partition, or all nodes of the graph."""
        if self.node is not None or self.module is not None:
            yield self.place
        elif self.partition is not None:
            yield from ({"module": module.index} for module in self.partition.modules)
        else:
            for cut, width in zip(self.graph.cuts, self.graph.widths, strict=True):
                yield from ({"cut": cut, "node": i} for i in range(width))


def _divided(source: Source, ref: str) -> tuple[GraphRow, PartitionDetail | None]:
    """Return the graph, and the partition where that is what the reference names."""
    kind, row = source.find_any((PARTITION, GRAPH), ref)
    return (row, None) if kind is GRAPH else (source.get_graph(row.graph), row)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {file}: {error.strerror or error}") from None


def _show(rows: tuple[LabelRow, ...], output: Path | None, as_json: bool, name: str) -> None:
    """Print labels, and write them to a file where one was named."""
    if output is not None:
        from ....analysis.results import write_bytes

        write_bytes(output, to_csv(row for row in rows if row.text is not None).encode())
        err.print(f"wrote {output}: {counted(len(rows), 'label')} of {name}", soft_wrap=True)
    if as_json:
        print_json({"items": [row.to_json() for row in rows]})
    elif rows and output is None:
        out.print(labels_table(rows))
        for note in label_notes(rows):
            out.print(note, soft_wrap=True)
    elif output is None:
        out.print(f"no labels of {name}")
