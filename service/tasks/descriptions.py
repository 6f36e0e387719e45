"""Describe stored partitions: write the cards of nodes and modules, and store them as they come."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...analysis import Bases, InteractionGraph, Partition
from ...analysis.checkpoints.families import load_factory
from ...analysis.meaning.cards import Card, Cards, ModuleCard, NodeCard
from ...analysis.meaning.describing import iterate_cards, settings_of
from ...analysis.progress import ProgressCallback
from ...analysis.recipe import DescribeRecipe
from ..records.descriptions import DESCRIPTION, DescriptionRow, DescriptionValues
from ..records.errors import ArtifactError, NotFoundError
from ..store.store import Store
from .checkpoints import provenance, reloaded

__all__ = ["describe"]

_OFTEN = 20.0  # seconds after which the cards so far are stored


def describe(
    store: Store,
    ref: str,
    recipe: DescribeRecipe,
    *,
    data: Path | None = None,
    factory: str | None = None,
    device: str | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> DescriptionRow:
    """Write and store the cards of a partition; reuse stored ones of the same data and recipe.

    Cards are stored every 20 seconds. After an interruption only those that are missing are written.

    Args:
        store: store of partition, graph and bases, and for the cards.
        ref: reference of the partition.
        recipe: choices of the cards.
        data: file to read the data from; default: the checkpoint's own.
        factory: `module:function` that builds a model of family `torch`.
        device: where to compute; default: the CPU.
        force: write all cards again.
        progress: called as the work goes on.

    Raises:
        NotFoundError: the partition does not exist, its checkpoint's file is gone, or the bases were not kept.
    """
    row = store.get_partition(ref)
    graph_row = store.get_graph(row.graph)
    if graph_row.bases_sha256 is None:
        raise NotFoundError(f"the bases of {graph_row.id} were not kept: analyze its checkpoint again with --force")
    build = load_factory(factory) if factory else None
    checkpoint = reloaded(store, (store.get_checkpoint(row.checkpoint), graph_row), data, build, device)
    described = {**asdict(recipe), "data": checkpoint.batches.sha256}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    found = None if force else store.find(DESCRIPTION, (row.id,), digest)
    known = _known(store, found)
    if found is not None and found.whole and known:
        return found
    start = time.monotonic()
    bases = Bases.from_bytes(store.bases_bytes(graph_row.id))
    graph = InteractionGraph.from_bytes(store.graph_bytes(graph_row.id))
    partition = Partition.from_bytes(store.partition_bytes(row.id))

    def save(cards: Sequence[Card]) -> DescriptionRow:
        nodes = tuple(card for card in cards if isinstance(card, NodeCard))
        modules = tuple(card for card in cards if isinstance(card, ModuleCard))
        made = Cards(nodes, modules, settings_of(bases, cards, seed=recipe.seed))
        values = DescriptionValues(
            n=len(checkpoint.batches.inputs),
            n_cards=len(nodes),
            n_nodes=sum(graph.widths),
            modules=tuple({**_numbers(card), "summary": card.summary} for card in modules),
        )
        how = provenance(described, digest, recipe.seed, start)
        return store.save(DESCRIPTION, (row.id,), how, values, {"description": made.to_bytes()}, force=True)

    cards: list[Card] = list(known)
    saved = start
    for card in iterate_cards(
        checkpoint.network,
        bases,
        graph,
        partition=partition,
        batches=checkpoint.batches,
        known=known,
        progress=progress,
        **asdict(recipe),
    ):
        cards.append(card)
        if time.monotonic() - saved > _OFTEN:
            save(cards)
            saved = time.monotonic()
    return save(cards)


def _known(store: Store, row: DescriptionRow | None) -> list[NodeCard]:
    """Return the cards that are stored; none where their file is damaged or missing."""
    try:
        return [] if row is None else list(Cards.from_bytes(store.description_bytes(row.id)).nodes)
    except ArtifactError:
        return []


def _numbers(card: ModuleCard) -> dict[str, Any]:
    return {name: card.content[name] for name in ("module", "size")}
