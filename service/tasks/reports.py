"""Reports: all that is stored of a partition in one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...analysis import Experiment, InteractionGraph, Partition
from ...analysis.errors import InputError
from ...analysis.figures.report import page
from ...analysis.meaning.cards import Cards
from ...analysis.notebook.tables import html_table
from ...analysis.results import write_bytes
from ..records.descriptions import DescriptionRow
from ..records.estimates import ExperimentRow
from ..records.kinds import Source
from ..records.labels import LabelRow
from ..records.partitions import PARTITION, PartitionDetail

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["report"]

_NODES = 12  # of each cut whose cards are shown

_MODULES = 12  # whose pictures are drawn


def report(source: Source, ref: str, path: Path, *, title: str | None = None) -> Path:
    """Write modules, cards, graph, evidence and experiments of a partition into one HTML file; it loads nothing else.

    Args:
        source: where the partition is stored.
        ref: reference of the partition.
        path: of the file.
        title: default: model and step.

    Raises:
        InputError: the file cannot be written.
    """
    row = source.get_partition(ref)
    if path.parent != Path() and not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}: make it first")
    graph = InteractionGraph.from_bytes(source.graph_bytes(row.graph))
    partition = Partition.from_bytes(source.partition_bytes(row.id))
    described = source.descriptions(partition=row.id, newest_first=True, limit=1).items
    cards = Cards.from_bytes(source.description_bytes(described[0].id)) if described else None
    labels = source.labels(PARTITION, row.id)
    experiments = source.experiments(partition=row.id, limit=1000).items
    figures = {"The interaction graph": graph.plot(partition)}
    if cards is not None:
        figures |= {f"Module {card.content['module']}": card.plot() for card in cards.modules[:_MODULES]}
    if partition.profile:
        figures["Every resolution that was tried, against null graphs"] = partition.plot_profile()
    figures |= dict(_pictures(source, experiments))
    sections = dict(_sections(row, cards, described, labels))
    if experiments:
        sections["Experiments"] = _experiments(experiments)
    footer = (
        f"{row.id}, interbasis {row.code_version} (report {version('interbasis')}, {datetime.now():%Y-%m-%d %H:%M})"
    )
    named = title or source.place_of(row)
    return write_bytes(path, page(named, _text(row), figures, footer, sections=sections).encode())


def _text(row: PartitionDetail) -> str:
    """Return the verdict, its reason, and how far the numbers hold."""
    n = row.n_modules
    head = f"{n} module{'s' * (n != 1)}, {row.verdict or 'untested'}: {row.reason or ''}".rstrip(": ")
    scale = f"Loss scale {row.epsilon:.3g}, resolution {row.resolution:.3g}, objective {row.objective}."
    return "\n".join([head, *([row.warning] if row.warning else []), scale, *(row.remarks or ())])


def _sections(
    row: PartitionDetail,
    cards: Cards | None,
    described: Sequence[DescriptionRow],
    labels: Sequence[LabelRow],
) -> Iterator[tuple[str, str]]:
    named = _texts(labels)
    said = {card.content["module"]: card.summary for card in cards.modules} if cards else {}
    columns: dict[str, list[Any]] = {
        "module": [module.index for module in row.modules],
        "nodes": [module.size for module in row.modules],
        "inner cost": [module.inner_cost for module in row.modules],
        "outer cost": [module.outer_cost for module in row.modules],
        "label": [named.get((None, None, module.index), "") for module in row.modules],
        "what it does": [said.get(module.index, "") for module in row.modules],
    }
    kept = {name: values for name, values in columns.items() if any(value != "" for value in values)}
    yield "Modules", html_table("", kept)
    if cards is None:
        yield "Cards", "<p>Nodes and modules are not described yet: <code>interbasis describe</code> writes cards.</p>"
        return
    one = described[0]
    count = f"{one.n_cards:,}" if one.whole else f"{one.n_cards:,} of {one.n_nodes:,}"
    intro = f"<p>{count} nodes, {one.n:,} data points; shown are the {_NODES} most important nodes of each cut.</p>"
    yield "Nodes", intro + "\n".join(_nodes(cards, named))


def _nodes(cards: Cards, named: Mapping[tuple[str | None, int | None, int | None], str]) -> Iterator[str]:
    """Yield the cards of the most important nodes of each cut, folded."""
    cuts: dict[str, list[int]] = {}
    for place, card in enumerate(cards.nodes):
        cuts.setdefault(card.content["cut"], []).append(place)
    for cut, places in cuts.items():
        yield f"<h3>{escape(cut)}</h3>"
        for place in sorted(places, key=lambda p: -cards.nodes[p].content["importance"])[:_NODES]:
            card = cards.nodes[place]
            label = named.get((cut, card.content["node"], None), "")
            head = f"{card.title}: {label + ': ' if label else ''}{card.summary}"
            yield f"<details><summary>{escape(head)}</summary>{card._repr_html_()}</details>"


def _texts(labels: Sequence[LabelRow]) -> dict[tuple[str | None, int | None, int | None], str]:
    """Return the labels of each node (cut, node, None) and module (None, None, module), joined."""
    found: dict[tuple[str | None, int | None, int | None], list[str]] = {}
    for row in labels:
        if row.text is not None:
            found.setdefault((row.cut, row.node, row.module if row.node is None else None), []).append(row.text)
    return {place: "; ".join(dict.fromkeys(texts)) for place, texts in found.items()}


def _experiments(rows: Sequence[ExperimentRow]) -> str:
    columns = {
        "experiment": [row.experiment for row in rows],
        "metric": [row.metric for row in rows],
        "data points": [row.n for row in rows],
        "found": [row.value for row in rows],
        "control": [row.control for row in rows],
        "p": [row.p_value for row in rows],
        "verdict": [row.verdict or "" for row in rows],
        "reason": [row.reason or "" for row in rows],
    }
    return html_table("", columns)


def _pictures(source: Source, rows: Sequence[ExperimentRow]) -> Iterator[tuple[str, Figure]]:
    for row in rows:
        experiment = Experiment.from_bytes(source.experiment_bytes(row.id))
        yield f"Experiment {row.experiment} ({row.id})", experiment.plot()
