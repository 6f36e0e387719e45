"""Divide a stored graph into modules, and store the partition."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from ...analysis import Bases, InteractionGraph, Partition, score_partition
from ...analysis.checkpoints.checkpoint import Checkpoint
from ...analysis.errors import InputError
from ...analysis.exchange.labels_file import labels_of
from ...analysis.graph.quotient import module_links
from ...analysis.graph.remarks import graph_remarks
from ...analysis.modules.untrained import control_note
from ...analysis.progress import ProgressCallback
from ...analysis.recipe import GraphRecipe, PartitionRecipe, Recipe, partition_graph
from ..records.base import Provenance
from ..records.checkpoints import require_network
from ..records.errors import NotFoundError
from ..records.graphs import GraphRow, GraphValues
from ..records.partitions import LinkRow, MediatorRow, ModuleRow, PartitionDetail, PartitionValues
from ..store.store import Store
from .checkpoints import Control, provenance, stored

__all__ = ["divide", "graph_values", "modules", "opened_parts", "stored_graph"]


def modules(
    store: Store,
    ref: str,
    choices: Mapping[str, Any],
    *,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> PartitionDetail:
    """Divide a stored graph into modules; reuse a stored partition of the same choices.

    Args:
        store: store of the graph, and for the partition.
        ref: reference of the graph.
        choices: fields of a partition's recipe; or epsilon and `labels`, the module of each node ("cut/coordinate")
            in a division made elsewhere, which is scored as it is.
        force: compute and store again.
        progress: called per graph searched.

    Raises:
        InputError: choices or labels are not valid.
    """
    row = store.get_graph(ref)
    recipe = Recipe.from_mapping({name: value for name, value in choices.items() if name != "labels"}).partition
    if choices.get("labels") is None:
        return divide(store, row, recipe, force=force, progress=progress)
    if recipe != PartitionRecipe(epsilon=recipe.epsilon, seeds=recipe.seeds):
        raise InputError("labels already define a partition: give only epsilon with them")
    if not isinstance(choices["labels"], Mapping):
        raise InputError('labels: expected nodes and their modules, like {"layers.0/3": 1}')
    graph = InteractionGraph.from_bytes(store.graph_bytes(row.id))
    given = labels_of({node: "" if of is None else str(of) for node, of in choices["labels"].items()}, graph)
    listed = json.dumps([labels.tolist() for labels in given])
    described: dict[str, Any] = {"labels": hashlib.sha256(listed.encode()).hexdigest(), "epsilon": recipe.epsilon}
    described |= {} if recipe.seeds is None else {"seeds": recipe.seeds}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    found = None if force else store.find_partition(row.id, digest)
    if found is not None:
        return found
    start = time.monotonic()
    partition = score_partition(graph, given, recipe.epsilon, seeds=recipe.seeds)
    return _save_partition(store, row, graph, partition, provenance(described, digest, 0, start), force)


def graph_values(graph: InteractionGraph, left_out: dict[str, list[str]] | None = None) -> GraphValues:
    """Return the numbers of a graph that queries use."""
    return GraphValues(
        cuts=graph.cuts,
        widths=graph.widths,
        basis=graph.basis,
        strengths=graph.strengths,
        n_nodes=graph.n_nodes,
        n_edges=graph.n_edges(),
        left_out=left_out,
    )


def stored_graph(store: Store, checkpoint: Checkpoint, recipe: GraphRecipe) -> GraphRow | None:
    """Return the stored graph of this checkpoint, data and recipe, or None."""
    known = stored(store, checkpoint)
    return store.find_graph(*known, recipe.sha256) if known else None


def opened_parts(store: Store, ref: str) -> tuple[PartitionDetail, GraphRow, Bases, Partition]:
    """Load a stored partition of a network, with the record of its graph and the graph's bases.

    Raises:
        NotFoundError: the bases were not kept.
    """
    row = store.get_partition(ref)
    graph = store.get_graph(row.graph)
    require_network(store.get_checkpoint(row.checkpoint).family, "what was asked for", row.id)
    if graph.bases_sha256 is None:
        raise NotFoundError(f"the bases of {graph.id} were not kept: analyze its checkpoint again with --force")
    bases = Bases.from_bytes(store.bases_bytes(graph.id))
    return row, graph, bases, Partition.from_bytes(store.partition_bytes(row.id))


def divide(
    store: Store,
    row: GraphRow,
    recipe: PartitionRecipe,
    *,
    graph: InteractionGraph | None = None,
    control: Control | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> PartitionDetail:
    """Return the stored partition of a graph by this recipe, or compute and store it.

    Without a network, a stored partition with control is good enough, and a new one is stored as without control.

    Args:
        store: store of the graph, and for the partition.
        row: record of the graph.
        recipe: choices of the partition.
        graph: the graph itself, where it is loaded already.
        control: compares a partition with that of an untrained copy of the network, where one is available.
        force: compute and store again.
        progress: called per graph searched.
    """
    wanted = [recipe] if control is not None else [recipe, replace(recipe, control=False, untrained=None)]
    stored_ones = () if force else (store.find_partition(row.id, choices.sha256) for choices in wanted)
    found = next((partition for partition in stored_ones if partition is not None), None)
    if found is not None:
        return found
    recipe = wanted[-1]
    start = time.monotonic()
    graph = graph or InteractionGraph.from_bytes(store.graph_bytes(row.id))
    partition = partition_graph(graph, recipe, progress=progress)
    partition = partition if control is None else control(graph, partition)
    made = provenance(asdict(recipe), recipe.sha256, recipe.seed, start)
    return _save_partition(store, row, graph, partition, made, force)


def _save_partition(
    store: Store, row: GraphRow, graph: InteractionGraph, partition: Partition, made: Provenance, force: bool
) -> PartitionDetail:
    links = module_links(graph, partition.labels, partition.epsilons)
    names = [f.name for f in fields(PartitionValues) if f.name != "remarks"]
    values: dict[str, Any] = {name: getattr(partition, name) for name in names}
    note = control_note(partition.controls)
    values["remarks"] = (*graph_remarks(graph, partition.epsilons), *([note] if note else []))
    return store.save_partition(
        row.id,
        provenance=made,
        values=PartitionValues(**values),
        modules=[ModuleRow(**asdict(module)) for module in partition.modules],
        links=[LinkRow(**asdict(link)) for link in links],
        labels=[labels.tolist() for labels in partition.labels],
        importance=[importance.tolist() for importance in graph.importance],
        blobs={"partition": partition.to_bytes()},
        confidence=[shares.tolist() for shares in partition.confidence],
        mediators=[MediatorRow(**asdict(node)) for node in partition.mediators],
        force=force,
    )
