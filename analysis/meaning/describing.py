"""Cards of the nodes and modules of a network: one pass over the data, then card after card."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ..basis.bases import Bases
from ..errors import GraphError, InputError
from ..graph.interaction_graph import InteractionGraph
from ..huggingface.language import numbered
from ..modules.partition import Partition
from ..names import Names
from ..network.batches import Batch, read_batches
from ..network.network import Network
from ..notebook.bars import with_bar
from ..progress import ProgressCallback, report
from .cards import Card, Cards, ModuleCard, NodeCard
from .effects import Effects, find_lens
from .inputs import Wording, class_targets, kept_inputs, names_of, targets_of
from .modules import module_contents
from .nodes import NodeFacts, node_content
from .passes import CutRecord, Sources, observe
from .surroundings import Surroundings

__all__ = ["Node", "describe", "iterate_cards", "settings_of"]

Node = tuple[str | int, int]
"""A node by the name or the number of its cut, and its number there."""


@with_bar
def describe(
    net: Network,
    bases: Bases,
    graph: InteractionGraph,
    partition: Partition,
    batches: Iterable[Batch],
    *,
    names: Names | Mapping[str, Any] | None = None,
    targets: Tensor | Sequence[Any] | None = None,
    nodes: Collection[Node] | None = None,
    examples: int = 8,
    deciles: int = 2,
    sampled: int = 1000,
    points: int | None = None,
    outputs: int = 10,
    neighbours: int = 8,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Cards:
    """Say of every node and module what excites it, what it does to the outputs, and what it is connected with.

    Values are recorded in one forward pass over the data. What moving a node does to the outputs is measured on a
    sample of the data points, see `effects`; so are the signs of interactions.

    Args:
        net: the network.
        bases: bases of all its cuts.
        graph: the interaction graph in these bases.
        partition: its modules.
        batches: the data, in the same order in every pass; a `Dataset` brings names and targets.
        names: names of tokens, pictures, features, outputs and classes, see `Names`.
        targets: (n, ...) the target of each data point.
        nodes: write cards of these alone, as (cut, number); modules have cards in any case, of what is known.
        examples: data points with the largest, and with the smallest values on each card.
        deciles: data points drawn from each decile of a random sample.
        sampled: size of that sample.
        points: data points on which effects and signs are measured; default: 256, of sequences as many as hold 2,048
            tokens and at least 16; 0 leaves effects out.
        outputs: outputs that are listed at each end.
        neighbours: edges that are listed in each direction.
        seed: seed of the draws.
        progress: called as the work goes on.

    Raises:
        GraphError: bases, graph, partition and network that do not belong together, or a node that there is not.
        DataError: no data, a loader that shuffles, names or targets that do not fit.
        InputError: choices that make no sense.
    """
    choices = _Choices(examples, deciles, sampled, points, outputs, neighbours, seed)
    cards = list(
        iterate_cards(
            net, bases, graph, partition=partition, batches=batches, names=names, targets=targets, nodes=nodes,
            **vars(choices), progress=progress,
        )
    )  # fmt: skip
    own = tuple(card for card in cards if isinstance(card, NodeCard))
    modules = tuple(card for card in cards if isinstance(card, ModuleCard))
    return Cards(own, modules, settings_of(bases, cards, seed=seed))


def iterate_cards(
    net: Network,
    bases: Bases,
    graph: InteractionGraph,
    *,
    partition: Partition,
    batches: Iterable[Batch],
    names: Names | Mapping[str, Any] | None = None,
    targets: Tensor | Sequence[Any] | None = None,
    nodes: Collection[Node] | None = None,
    known: Iterable[NodeCard] = (),
    examples: int = 8,
    deciles: int = 2,
    sampled: int = 1000,
    points: int | None = None,
    outputs: int = 10,
    neighbours: int = 8,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Iterator[Card]:
    """Write cards one by one: those of the nodes, cut after cut, then those of the modules.

    A job stores each as it comes, and after a kill gives those that it has as `known`: they are not written again, and
    the module cards take them into account. All other arguments are those of `describe`.
    """
    choices = _Choices(examples, deciles, sampled, points, outputs, neighbours, seed)
    _check(net, bases, graph, partition)
    chosen = _chosen(nodes, graph)
    named = names_of(batches, names)
    held = batches if hasattr(batches, "targets") else None
    given: Iterable[Batch] = _Numbered(net, batches)
    net.check_once(given)
    all_targets = None if targets is None and held is None else targets_of(batches, targets, _n_points(given))
    seen = observe(
        net,
        bases,
        partition,
        batches=given,
        names=named,
        examples=examples,
        sampled=sampled,
        points=points,
        seed=seed,
        classes=class_targets(all_targets),
        progress=progress,
    )
    wording = Wording(named, seen.kind, seen.shape, seen.outputs)
    sources = Sources(seen, wording, all_targets, choices.deciles)
    done = {(card.content["cut"], card.content["node"]): card for card in known}
    written = {p: [i for i in own if (graph.cuts[p], i) not in done] for p, own in chosen.items()}
    inputs = kept_inputs(given, named, sources.wanted(chosen), seen.checksums) if len(seen.checksums) else {}
    sources.keep(inputs)
    count = sum(map(len, written.values()))
    probed = seen.probed if count else []
    effects = Effects(net, bases, probed, steps=_steps(seen.cuts, written)) if probed else None
    around = Surroundings(net, bases, graph, partition, batches=effects.parts if effects else [], nodes=chosen,
                          most=neighbours, sources=sources)  # fmt: skip
    facts = NodeFacts(bases, partition, sources, effects, around, find_lens(net), outputs)
    cards = list[NodeCard](done.values())
    for p, i in report([(p, i) for p, own in written.items() for i in own], "cards", progress, count):
        content = node_content(facts, p, i)
        card = NodeCard(content, sources.inputs_of(content))
        cards.append(card)
        yield card
    for content in module_contents(facts, graph, [card.content for card in cards]):
        yield ModuleCard(content, sources.inputs_of(content))


def settings_of(bases: Bases, cards: Sequence[Card], *, seed: int) -> dict[str, Any]:
    """Return the settings of `Cards`, from the cards."""
    first = cards[0].content if cards else {}
    known = {name: first.get(name) for name in ("n", "inputs_are", "image_shape", "sampled")}
    effects = next((c.content["effects"] for c in cards if c.content.get("effects")), None)
    return {**known, "seed": seed, "cuts": list(bases), "points": effects["points"] if effects else 0}


def _steps(cuts: Sequence[CutRecord], nodes: Mapping[int, Sequence[int]]) -> dict[int, dict[int, float]]:
    """Return the standard deviation of each node whose values vary."""
    spread = {p: np.sqrt(cuts[p].histogram.variance) for p in nodes}
    return {p: {i: float(spread[p][i]) for i in own if spread[p][i] > 0} for p, own in nodes.items()}


@dataclass(frozen=True)
class _Choices:
    """The numbers that fix what is on a card."""

    examples: int
    deciles: int
    sampled: int
    points: int | None
    outputs: int
    neighbours: int
    seed: int

    def __post_init__(self) -> None:
        least = {"examples": 1, "deciles": 0, "sampled": 10, "points": 0, "outputs": 1, "neighbours": 0}
        for name, value in least.items():
            found = getattr(self, name)
            if found is not None and found < value:
                raise InputError(f"{name} is {found}: expected at least {value}")


class _Numbered:
    """Batches with positions that are counted from the first that the mask counts, each time that they are read."""

    def __init__(self, net: Network, batches: Iterable[Batch]) -> None:
        self._net, self._batches = net, batches

    def __iter__(self) -> Iterator[Batch]:
        for batch in read_batches(self._batches, "data", None):
            yield from numbered(self._net.model, [batch])


def _n_points(batches: Iterable[Batch]) -> int:
    from ..network.batches import batch_size

    return sum(batch_size(batch) for batch in batches)


def _check(net: Network, bases: Bases, graph: InteractionGraph, partition: Partition) -> None:
    """Refuse parts of different analyses.

    Raises:
        GraphError: other cuts, or other numbers of nodes.
    """
    if tuple(bases) != net.cuts:
        raise GraphError(f"the bases belong to the cuts {list(bases)}, the network has {list(net.cuts)}")
    own = tuple(len(basis.importance) for basis in bases.bases)
    for what, cuts, widths in (
        ("graph", graph.cuts, graph.widths),
        ("partition", partition.cuts, tuple(map(len, partition.labels))),
    ):
        if cuts != net.cuts or widths != own:
            raise GraphError(
                f"the {what} has the nodes {dict(zip(cuts, widths, strict=True))}, the bases "
                f"{dict(zip(net.cuts, own, strict=True))}: give the {what} that was built from them"
            )


def _chosen(nodes: Collection[Node] | None, graph: InteractionGraph) -> dict[int, list[int]]:
    """Return by index of a cut which of its nodes get cards.

    Raises:
        GraphError: a node that there is not.
    """
    if nodes is None:
        return {p: list(range(width)) for p, width in enumerate(graph.widths)}
    chosen: dict[int, set[int]] = {}
    for cut, i in nodes:
        p = graph.cuts.index(cut) if cut in graph.cuts else cut
        if not isinstance(p, int) or not 0 <= p < len(graph.cuts) or not 0 <= i < graph.widths[p]:
            seen = dict(zip(graph.cuts, graph.widths, strict=True))
            raise GraphError(f"there is no node {i} at {cut!r}: the cuts have the nodes {seen}")
        chosen.setdefault(p, set()).add(int(i))
    return {p: sorted(own) for p, own in sorted(chosen.items())}
