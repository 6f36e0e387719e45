"""What stands beside a partition in a store: cards of every kind of input, and its modules over training."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from cases_store import provenance

from interbasis.analysis.meaning.cards import Card, Cards
from interbasis.analysis.modules.partition import Partition
from interbasis.analysis.modules.tracking import Event, Tracking
from interbasis.analysis.recipe import DescribeRecipe
from interbasis.service.records.estimates import DescriptionRow, DescriptionValues
from interbasis.service.records.partitions import PartitionDetail, TrackingRow, TrackingStep, TrackingValues
from interbasis.service.store.store import Store
from interbasis.service.tasks import experiments

TOKEN = "<b>tok</b>"
"""A token that would be an element if it were read as HTML."""


def describe(store: Store, partition: str, data: Path) -> DescriptionRow:
    """Store cards: of node 0 of the second cut on tokens, of node 1 on pictures, of all others on columns."""
    row = experiments.describe(store, partition, DescribeRecipe(examples=2, points=8), data=data)
    cards = Cards.from_bytes(store.description_bytes(row.id))
    cut = cards.settings["cuts"][1]

    def changed(card: Card) -> Any:
        if (card.content.get("cut"), card.content.get("node")) == (cut, 0):
            return replace(card, content=_on_tokens(card.content))
        if (card.content.get("cut"), card.content.get("node")) == (cut, 1):
            return replace(card, content={**card.content, "inputs_are": "picture", "image_shape": [2, 4]})
        return card

    other = replace(cards, nodes=tuple(map(changed, cards.nodes)))
    values = {"n": row.n, "n_cards": row.n_cards, "n_nodes": row.n_nodes, "modules": row.modules}
    given = {"provenance": provenance(7), "values": DescriptionValues(**values)}
    return store.save_description(partition, **given, blobs={"description": other.to_bytes()})


def _on_tokens(content: dict[str, Any]) -> dict[str, Any]:
    window = {"tokens": ["a ", TOKEN, " b\n"], "at": 1, "values": [-0.5, 2.0, None], "position": 1}
    examples = {name: [{**one, **window} for one in content["examples"][name]] for name in ("largest", "smallest")}
    return {**content, "inputs_are": "tokens", "examples": {**content["examples"], **examples}}


def track(store: Store, partitions: list[PartitionDetail]) -> TrackingRow:
    """Store the partitions of successive checkpoints as one tracking, in which each node keeps its place."""
    found = [Partition.from_bytes(store.partition_bytes(row.id)) for row in partitions]
    labels = [np.concatenate(part.labels) for part in found]
    flows = []
    for before, now in zip(labels, labels[1:], strict=False):
        flow = np.zeros((before.max() + 1, now.max() + 1))
        np.add.at(flow, (before[(before >= 0) & (now >= 0)], now[(before >= 0) & (now >= 0)]), 1.0)
        flows.append(flow)
    tracks = tuple(tuple(range(part.n_modules)) for part in found)
    events = (Event("split", 1, (0,), tracks[-1]),)
    churn = tuple(0.25 for _ in flows)
    names = tuple(f"step {row.step}" for row in partitions)
    tracking = Tracking(names, tuple(found), tracks, tuple(flows), churn, events)
    steps = [
        TrackingStep(
            checkpoint=row.checkpoint,
            graph=row.graph,
            step=row.step,
            label=row.label,
            tracks=tracks[t],
            sizes=tuple(module.size for module in row.modules),
            churn=0.25 if t else None,
        )
        for t, row in enumerate(partitions)
    ]
    values = TrackingValues(
        n_checkpoints=len(found),
        n_tracks=tracking.n_tracks,
        churn=0.25,
        events=tuple(asdict(event) for event in events),
    )
    given: dict[str, Any] = {"provenance": provenance(3), "values": values, "steps": steps}
    return store.save_tracking(str(partitions[0].run), **given, blobs={"tracking": tracking.to_bytes()})
