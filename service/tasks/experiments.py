"""Circuit experiments on stored partitions: run the network, and store the result."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ...analysis import Bases, Dataset, InteractionGraph, Partition
from ...analysis.checkpoints.families import load_factory
from ...analysis.circuits.experiments import Experiment, ExperimentRecipe, run_experiment
from ...analysis.progress import ProgressCallback
from ..records.errors import ArtifactError, NotFoundError
from ..records.estimates import ExperimentRow, ExperimentValues
from ..records.partitions import PartitionDetail
from ..store.store import Store
from . import checkpoints as checkpoint_task
from . import partitions as partition_task

__all__ = ["divided", "experiment"]

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
    row = store.get_partition(ref)
    graph_row = store.get_graph(row.graph)
    if graph_row.bases_sha256 is None:
        raise NotFoundError(f"the bases of {graph_row.id} were not kept: analyze its checkpoint again with --force")
    build = load_factory(factory) if factory else None
    pair = store.get_checkpoint(row.checkpoint), graph_row
    checkpoint = checkpoint_task.reloaded(store, pair, data, build, device)
    test = checkpoint.test_batches
    described, digest = _described(recipe, test)
    found = None if force else store.find_experiment(row.id, digest)
    if found is not None:
        return found
    start = time.monotonic()
    twin = _TWINS.get(recipe.kind)  # the same measurements under another name
    same = store.find_experiment(row.id, _described(replace(recipe, kind=twin), test)[1]) if twin else None
    result = None if same is None or force else _stored(store, same)
    if result is not None:
        result = replace(result, kind=recipe.kind)
    else:
        result = run_experiment(
            checkpoint.network,
            Bases.from_bytes(store.bases_bytes(graph_row.id)),
            InteractionGraph.from_bytes(store.graph_bytes(graph_row.id)),
            partition=Partition.from_bytes(store.partition_bytes(row.id)),
            data=test,
            recipe=recipe,
            progress=progress,
        )
    return store.save_experiment(
        row.id,
        provenance=checkpoint_task.provenance(described, digest, recipe.seed, start),
        values=_values(result),
        blobs={"experiment": result.to_bytes()},
        force=force,
    )


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


def _described(recipe: ExperimentRecipe, test: Dataset) -> tuple[dict[str, Any], str]:
    """Return what identifies an experiment on a partition, and its hash."""
    described = {**recipe.choices, "data": test.sha256}
    return described, hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


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
