"""Figures of stored results, and the report of a partition in one HTML file."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from html import escape
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...analysis import Comparison, Experiment, InteractionGraph, Ledger, Partition, Tracking
from ...analysis import epsilon_profile as _epsilon_profile
from ...analysis.attribution.named_nodes import NamedEdge, NamedNode, strongest_nodes
from ...analysis.circuits.experiments import KINDS as EXPERIMENTS
from ...analysis.comparison.comparison import join_comparisons
from ...analysis.errors import InputError
from ...analysis.figures.graphs import plot_membership, plot_strengths
from ...analysis.figures.profiles import plot_controls, plot_epsilon_profile, plot_profile
from ...analysis.figures.report import page
from ...analysis.llc.coefficient import LearningCoefficientCurve
from ...analysis.meaning.cards import Cards
from ...analysis.notebook.tables import html_table
from ...analysis.progress import ProgressCallback
from ...analysis.recipe import Recipe
from ...analysis.refined.coefficients import RefinedCoefficients
from ...analysis.results import Result, write_bytes
from ..records.base import Kind
from ..records.estimates import DESCRIPTION, EXPERIMENT, LEDGER, LLC, DescriptionRow, ExperimentRow
from ..records.graphs import GRAPH
from ..records.kinds import Source, kinds_of
from ..records.labels import LabelRow
from ..records.partitions import COMPARISON, PARTITION, TRACKING, PartitionDetail
from .exchange import stored_estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["epsilon_profile", "picture_format", "plot", "plot_comparisons", "report", "written"]

_NODES = 12  # of each cut whose cards are shown

_MODULES = 12  # whose pictures are drawn

_SUCH_AS = 3  # nodes that say what a module is

_TITLE = 40  # characters of the name of a node

_PICTURES = ("png", "svg", "pdf")

_OF_FIGURES: dict[str, tuple[Kind[Any, Any], ...]] = {
    **dict.fromkeys(("graph", "strengths"), (PARTITION, GRAPH)),
    **dict.fromkeys(("membership", "profile", "controls"), (PARTITION,)),
    "tracks": (TRACKING,),
    **dict.fromkeys(("waterfall", "synchronisation"), (LEDGER,)),
    **dict.fromkeys(("traces", "curve", "parts"), (LLC,)),
    **dict.fromkeys(EXPERIMENTS, (EXPERIMENT,)),
    **dict.fromkeys(("cards", "module", "node"), (DESCRIPTION,)),
    "overlap": (COMPARISON,),
}
"""Kinds that a figure may be of, where a name could be any."""


def plot(source: Source, ref: str, path: Path, figure: str | None = None, *, kind: str | None = None) -> None:
    """Draw a stored result into a file (.png, .svg or .pdf); the title names its model and step.

    Args:
        source: where the result is stored.
        ref: reference of a graph, a partition, a tracking, a ledger, an experiment, a learning coefficient, a
            description or a comparison; a name is that of a result with this figure, a partition where none is given.
        path: file to write.
        figure: "graph" or "strengths" of a graph, also "membership", "profile" and "controls" of a partition, "tracks"
            of a tracking, "waterfall" or "synchronisation" of a ledger (the layer with the most units; another one by
            "synchronisation:LAYER"), "traces" of a learning coefficient, "curve" of a curve of them, the kind of an
            experiment, "cards", "module:M" or "node:CUT/I" of a description, and "overlap" of a comparison. Default:
            the first of these.
        kind: kind of the result.

    Raises:
        InputError: this result or kind has no such figure, or the file's name has another ending.
    """
    form = picture_format(path)
    row, available = _figures(source, ref, (figure or "").partition(":")[0], kind)
    name = next(iter(available)) if figure is None else figure
    if name not in available:
        raise InputError(f"{ref} has no figure {name!r}: expected one of {_listed(available)}")
    _draw(available[name](title=_title(source, row)), path, form)


def _listed(names: Iterable[str]) -> str:
    """List names, those of many nodes in short."""
    found = list(names)
    nodes = [name for name in found if name.startswith("node:")]
    few = [name for name in found if not name.startswith("node:")]
    return ", ".join([*few, *nodes[:1], *([f"... ({len(nodes)} nodes)"] if len(nodes) > 1 else [])])


def _title(source: Source, row: Any) -> str:
    """Name the checkpoint of a stored result: model and step, and as references do where the model has several runs."""
    name = source.place_of(row)
    if not hasattr(row, "checkpoint") or not name.startswith(f"{row.model}@"):
        return name
    where = f"step {row.step:,}" if row.step is not None else row.label
    return ", ".join(filter(None, (row.model, where)))


def _figures(source: Source, ref: str, figure: str, named: str | None) -> tuple[Any, dict[str, Callable[..., Any]]]:
    """Return the record of a result and the figures that it has, the default first."""
    kinds = [kind for kind, _ in _KINDS if named in (None, kind.name)]
    if not kinds:
        known = ", ".join(kind.name for kind, _ in _KINDS)
        raise InputError(f"there are no figures of a {named}: expected one of {known}")
    known_by = kinds if kinds_of(ref) or named else _OF_FIGURES.get(figure, kinds)
    found, row = source.find_any(known_by, ref)
    return row, next(figures(source, row) for kind, figures in _KINDS if kind is found)


def _of_llc(source: Source, row: Any) -> dict[str, Callable[..., Any]]:
    estimate = stored_estimate(source, row.id)
    if isinstance(estimate, RefinedCoefficients):
        return {"parts": estimate.plot}
    return {"curve" if isinstance(estimate, LearningCoefficientCurve) else "traces": estimate.plot}


def _of_tracking(source: Source, row: Any) -> dict[str, Callable[..., Any]]:
    return {"tracks": Tracking.from_bytes(source.tracking_bytes(row.id)).plot}


def _of_experiment(source: Source, row: Any) -> dict[str, Callable[..., Any]]:
    experiment = Experiment.from_bytes(source.experiment_bytes(row.id))
    return {experiment.kind: experiment.plot}


def _of_description(source: Source, row: Any) -> dict[str, Callable[..., Any]]:
    cards = Cards.from_bytes(source.description_bytes(row.id))
    modules = {f"module:{card.content['module']}": card.plot for card in cards.modules}
    return {"cards": cards.plot, **modules, **{f"node:{card.title}": card.plot for card in cards.nodes}}


def _of_comparison(source: Source, row: Any) -> dict[str, Callable[..., Any]]:
    return {"overlap": Comparison.from_bytes(source.comparison_bytes(row.id)).plot}


def _of_ledger(source: Source, row: Any) -> dict[str, Callable[..., Any]]:
    ledger = Ledger.from_bytes(source.ledger_bytes(row.id))
    found: dict[str, Callable[..., Any]] = {"waterfall": ledger.plot}
    if ledger.units:
        found["synchronisation"] = max(ledger.units, key=lambda units: len(units.power)).plot
    return found | {f"synchronisation:{units.layer}": units.plot for units in ledger.units}


def _of_graph(source: Source, row: Any) -> dict[str, Callable[..., Any]]:
    graph = InteractionGraph.from_bytes(source.graph_bytes(row.id))
    return {"graph": graph.plot, "strengths": partial(plot_strengths, graph)}


def _of_partition(source: Source, row: Any) -> dict[str, Callable[..., Any]]:
    partition = Partition.from_bytes(source.partition_bytes(row.id))
    graph = InteractionGraph.from_bytes(source.graph_bytes(row.graph))
    found: dict[str, Callable[..., Any]] = {
        "graph": partial(graph.plot, partition),
        "membership": partial(plot_membership, partition),
        "profile": partial(plot_profile, partition),
        "strengths": partial(plot_strengths, graph, partition.epsilons),
    }
    return found | ({"controls": partial(plot_controls, partition)} if partition.controls else {})


_KINDS: tuple[tuple[Kind[Any, Any], Callable[[Source, Any], dict[str, Callable[..., Any]]]], ...] = (
    (PARTITION, _of_partition),
    (GRAPH, _of_graph),
    (TRACKING, _of_tracking),
    (LEDGER, _of_ledger),
    (EXPERIMENT, _of_experiment),
    (LLC, _of_llc),
    (DESCRIPTION, _of_description),
    (COMPARISON, _of_comparison),
)
"""Kinds that have figures, and their figures: of a name, the first kind that has it is drawn."""


def picture_format(path: Path) -> str:
    """Return the picture format that a file's name ends in.

    Raises:
        InputError: the name does not end in a picture format.
    """
    form = path.suffix.removeprefix(".").lower()
    if form not in _PICTURES:
        raise InputError(f"cannot draw into {path}: expected a name that ends in one of .{', .'.join(_PICTURES)}")
    return form


def _draw(figure: Any, path: Path, form: str) -> None:
    content = io.BytesIO()
    figure.savefig(content, format=form, dpi=150)
    write_bytes(path, content.getvalue())


def plot_comparisons(found: Sequence[Comparison], path: Path) -> tuple[Path, ...]:
    """Draw the overlap of two divisions; of more the AMI of each pair, and each overlap in a file of its own.

    Args:
        found: comparisons of two divisions each.
        path: .png, .svg or .pdf file to write; overlaps of several are NAME-1.png, NAME-2.png, ... in their order.

    Returns:
        The files that were written.

    Raises:
        InputError: the file's name has another ending.
    """
    form = picture_format(path)
    _draw(join_comparisons(found).plot(), path, form)
    if len(found) == 1:
        return (path,)
    files = [path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(1, len(found) + 1)]
    for one, file in zip(found, files, strict=True):
        _draw(one.plot(), file, form)
    return path, *files


def written(found: Result, path: Path) -> Path:
    """Draw a result that is not stored into a file (.png, .svg or .pdf), and return the file."""
    _draw(found.plot(), path, picture_format(path))
    return path


def epsilon_profile(
    source: Source, ref: str, choices: Mapping[str, Any], path: Path, *, progress: ProgressCallback | None = None
) -> tuple[Partition, ...]:
    """Divide a stored graph at several loss scales, and draw how modules merge and split."""
    form = picture_format(path)
    recipe = Recipe.from_mapping(choices).partition
    if recipe.epsilon is not None:
        raise InputError("a profile varies the loss scale itself: leave --epsilon out")
    options = {name: value for name, value in recipe.search.items() if name != "epsilon"}
    graph = InteractionGraph.from_bytes(source.graph_bytes(ref))
    found = _epsilon_profile(graph, progress=progress, **options)
    _draw(plot_epsilon_profile(found, title=_title(source, source.get_graph(ref))), path, form)
    return found


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
    if sum(not row.reason for row in partition.controls) > 1:
        figures["Beside untrained copies of the network"] = plot_controls(partition)
    figures |= dict(_pictures(source, experiments))
    nodes = strongest_nodes(graph, partition.labels, epsilon=partition.epsilons, most=_NODES) if graph.nodes else []
    sections = dict(_sections(row, cards, described, labels, nodes))
    if experiments:
        sections["Experiments"] = _experiments(experiments)
    footer = (
        f"{row.id}, interbasis {row.code_version} (report {version('interbasis')}, {datetime.now():%Y-%m-%d %H:%M})"
    )
    named = title or source.place_of(row)
    above = {"Modules": sections.pop("Modules")}
    below: dict[str, Any] = {"below": sections, "unit": graph.unit}
    return write_bytes(path, page(named, _text(row, graph.unit), figures, footer, sections=above, **below).encode())


def _text(row: PartitionDetail, unit: str) -> str:
    """Return the verdict, its reason, and how far the numbers hold."""
    n = row.n_modules
    head = f"{n} module{'s' * (n != 1)}, {row.verdict or 'untested'}: {row.reason or ''}".rstrip(": ")
    cutoff = f"Loss scale {row.epsilon:.3g}" if unit == "loss" else f"Cutoff {row.epsilon**0.5:.3g} of strengths"
    scale = f"{cutoff}, resolution {row.resolution:.3g}, objective {row.objective}."
    return "\n".join([head, *([row.warning] if row.warning else []), scale, *(row.remarks or ())])


def _sections(
    row: PartitionDetail,
    cards: Cards | None,
    described: Sequence[DescriptionRow],
    labels: Sequence[LabelRow],
    nodes: Sequence[NamedNode],
) -> Iterator[tuple[str, str]]:
    named = _texts(labels)
    said = {card.content["module"]: card.summary for card in cards.modules} if cards else {}
    columns: dict[str, list[Any]] = {
        "module": [module.index for module in row.modules],
        "nodes": [module.size for module in row.modules],
        "inner cost": [module.inner_cost for module in row.modules],
        "outer cost": [module.outer_cost for module in row.modules],
        "label": [named.get((None, None, module.index), "") for module in row.modules],
        "strongest nodes": [_such_as(nodes, module.index) for module in row.modules],
        "what it does": [said.get(module.index, "") for module in row.modules],
    }
    kept = {name: values for name, values in columns.items() if any(value != "" for value in values)}
    yield "Modules", html_table("", kept)
    if nodes:
        intro = f"<p>The {_NODES} strongest nodes of each module, as the file of the graph names them.</p>"
        yield "Nodes", intro + "\n".join(_named_nodes(nodes, named))
        return
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


def _such_as(nodes: Sequence[NamedNode], module: int) -> str:
    """Return what the strongest nodes of a module are called."""
    return ", ".join(
        dict.fromkeys([_short(each.label or each.id) for each in nodes if each.module == module][:_SUCH_AS])
    )


def _named_nodes(
    nodes: Sequence[NamedNode], named: Mapping[tuple[str | None, int | None, int | None], str]
) -> Iterator[str]:
    """Yield a table of the nodes of each module with their strongest edges; stored labels go before the file's."""
    for module, group in groupby(nodes, key=lambda node: node.module):
        own = list(group)
        places = [(cut, int(i), None) for cut, _, i in (node.node.rpartition("/") for node in own)]
        columns: dict[str, list[Any]] = {
            "node": [node.node for node in own],
            "label": [named.get(place) or node.label or "" for place, node in zip(places, own, strict=True)],
            "id": [node.id for node in own],
            "type": [node.type for node in own],
            "position": ["" if node.position is None else node.position for node in own],
            "strength": [node.strength for node in own],
            "strongest inputs": [_edges(node.inputs) for node in own],
            "strongest outputs": [_edges(node.outputs) for node in own],
        }
        yield f"<h3>{f'Module {module}' if module >= 0 else 'In no module'}</h3>"
        yield html_table("", {name: values for name, values in columns.items() if any(value != "" for value in values)})


def _edges(edges: Sequence[NamedEdge]) -> str:
    return "; ".join(f"{edge.weight:+.3g} {edge.node} {_short(edge.title)}" for edge in edges)


def _short(title: str) -> str:
    return title if len(title) <= _TITLE else f"{title[: _TITLE - 1]}\u2026"


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
