"""Run the network of a stored partition: circuit experiments, and the cards of its nodes and modules."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from ...analysis import Bases, Dataset, InteractionGraph, Partition
from ...analysis.checkpoints.checkpoint import Checkpoint
from ...analysis.checkpoints.families import load_factory
from ...analysis.circuits.experiments import Experiment, ExperimentRecipe, run_experiment
from ...analysis.meaning.cards import Card, Cards, ModuleCard, NodeCard
from ...analysis.meaning.describing import iterate_cards, settings_of
from ...analysis.progress import ProgressCallback
from ...analysis.recipe import DescribeRecipe
from ..records.checkpoints import require_network
from ..records.errors import ArtifactError, NotFoundError
from ..records.estimates import DESCRIPTION, DescriptionRow, DescriptionValues, ExperimentRow, ExperimentValues
from ..records.partitions import PartitionDetail
from ..store.store import Store
from . import checkpoints as checkpoint_task
from . import partitions as partition_task

__all__ = ["describe", "divided", "experiment"]

_OFTEN = 20.0  # seconds after which the cards so far are stored

_TWINS: dict[str, Literal["bisect", "epsilon"]] = {"bisect": "epsilon", "epsilon": "bisect"}


def experiment(
    store: Store,
    ref: str,
    recipe: ExperimentRecipe,
    *,
    data: Path | None = None,
    factory: str | None = None,
    device: str | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> ExperimentRow:
    """Run and store an experiment on a partition; reuse a stored one of the same data and recipe.

    It uses the held-out data of the checkpoint, or of the data file.

    Args:
        store: store of partition, graph and bases, and for the result.
        ref: reference of the partition.
        recipe: choices of the experiment.
        data: file to read the data from; default: the checkpoint's own.
        factory: `module:function` that builds a model of family `torch`.
        device: where to compute; default: the CPU.
        force: run and store again.
        progress: called as the work goes on.

    Raises:
        NotFoundError: the partition does not exist, its checkpoint's file is gone, or the bases were not kept.
    """
    row, checkpoint = _opened(store, ref, data, factory, device)
    test = checkpoint.test_batches
    described, digest = _described(recipe.choices, test)
    found = None if force else store.find_experiment(row.id, digest)
    if found is not None:
        return found
    start = time.monotonic()
    twin = _TWINS.get(recipe.kind)  # the same measurements under another name
    same = store.find_experiment(row.id, _described(replace(recipe, kind=twin).choices, test)[1]) if twin else None
    result = None if same is None or force else _stored(store, same)
    if result is not None:
        result = replace(result, kind=recipe.kind)
    else:
        bases, graph, partition = _parts(store, row)
        options: dict[str, Any] = {"partition": partition, "data": test, "recipe": recipe, "progress": progress}
        result = run_experiment(checkpoint.network, bases, graph, **options)
    return store.save_experiment(
        row.id,
        provenance=checkpoint_task.provenance(described, digest, recipe.seed, start),
        values=_values(result),
        blobs={"experiment": result.to_bytes()},
        force=force,
    )


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
    row, checkpoint = _opened(store, ref, data, factory, device)
    described, digest = _described(asdict(recipe), checkpoint.batches)
    found = None if force else store.find(DESCRIPTION, (row.id,), digest)
    known = _known(store, found)
    if found is not None and found.whole and known:
        return found
    start = saved = time.monotonic()
    bases, graph, partition = _parts(store, row)
    cards: list[Card] = list(known)

    def save() -> DescriptionRow:
        values, made = _description(cards, bases, len(checkpoint.batches.inputs), recipe.seed)
        how = checkpoint_task.provenance(described, digest, recipe.seed, start)
        return store.save(DESCRIPTION, (row.id,), how, values, {"description": made.to_bytes()}, force=True)

    options: dict[str, Any] = {"partition": partition, "batches": checkpoint.batches, **asdict(recipe)}
    for card in iterate_cards(checkpoint.network, bases, graph, known=known, progress=progress, **options):
        cards.append(card)
        if time.monotonic() - saved > _OFTEN:
            save()
            saved = time.monotonic()
    return save()


def _description(cards: Sequence[Card], bases: Bases, n: int, seed: int) -> tuple[DescriptionValues, Cards]:
    nodes = tuple(card for card in cards if isinstance(card, NodeCard))
    modules = tuple(card for card in cards if isinstance(card, ModuleCard))
    lines = tuple({name: card.content[name] for name in ("module", "size", "summary")} for card in modules)
    count = sum(len(basis.importance) for basis in bases.bases)
    values = DescriptionValues(n=n, n_cards=len(nodes), n_nodes=count, modules=lines)
    return values, Cards(nodes, modules, settings_of(bases, cards, seed=seed))


def _known(store: Store, row: DescriptionRow | None) -> list[NodeCard]:
    """Return the cards of nodes that are stored; none where their file is damaged or missing."""
    try:
        return [] if row is None else list(Cards.from_bytes(store.description_bytes(row.id)).nodes)
    except ArtifactError:
        return []


def divided(store: Store, row: ExperimentRow, *, progress: ProgressCallback | None = None) -> PartitionDetail | None:
    """Return the partition at the loss scales that an experiment "epsilon" found; None for other experiments."""
    if row.experiment != "epsilon":
        return None
    return partition_task.modules(store, row.graph, {"epsilon": list(row.summary["epsilon"])}, progress=progress)


def _stored(store: Store, row: ExperimentRow) -> Experiment | None:
    """Load an experiment from its file; return None where the file is damaged or missing."""
    try:
        return Experiment.from_bytes(store.experiment_bytes(row.id))
    except ArtifactError:
        return None


def _described(choices: Mapping[str, Any], data: Dataset) -> tuple[dict[str, Any], str]:
    """Return what identifies a result on a partition, and its hash."""
    described = {**choices, "data": data.sha256}
    return described, hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _opened(
    store: Store, ref: str, data: Path | None, factory: str | None, device: str | None
) -> tuple[PartitionDetail, Checkpoint]:
    """Return a partition, and its checkpoint with the graph's cuts and loss."""
    row = store.get_partition(ref)
    graph, checkpoint = store.get_graph(row.graph), store.get_checkpoint(row.checkpoint)
    require_network(checkpoint.family, "what was asked for", row.id)
    if graph.bases_sha256 is None:
        raise NotFoundError(f"the bases of {graph.id} were not kept: analyze its checkpoint again with --force")
    build = load_factory(factory) if factory else None
    return row, checkpoint_task.reloaded(store, (checkpoint, graph), data, build, device)


def _parts(store: Store, row: PartitionDetail) -> tuple[Bases, InteractionGraph, Partition]:
    """Load bases, graph and partition."""
    return (
        Bases.from_bytes(store.bases_bytes(row.graph)),
        InteractionGraph.from_bytes(store.graph_bytes(row.graph)),
        Partition.from_bytes(store.partition_bytes(row.id)),
    )


def _values(result: Experiment) -> ExperimentValues:
    value, error, control, p_value = result.headline
    return ExperimentValues(
        experiment=result.kind,
        metric=result.metric,
        n=result.n,
        held_out=result.held_out,
        value=value,
        standard_error=error,
        control=control,
        p_value=p_value,
        summary=result.summary(),
        verdict=result.verdict,
        reason=result.reason,
    )
