"""Load checkpoints for a task, and register them and their data in a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias, cast

from ...analysis import InteractionGraph, Partition
from ...analysis.checkpoints.checkpoint import Checkpoint, load_checkpoint
from ...analysis.checkpoints.families import load_factory
from ...analysis.errors import InputError
from ...analysis.fields import Loss
from ...analysis.recipe import Recipe
from ..records.base import Provenance
from ..records.checkpoints import CheckpointRow, DatasetRow, place_of, require_network, run_label
from ..records.errors import NotFoundError
from ..records.graphs import GraphRow
from ..store.store import Store
from .checkout import checked_out

__all__ = ["check_registrable", "load", "provenance", "register", "reloaded", "stored"]

Control: TypeAlias = Callable[[InteractionGraph, Partition], Partition]


def load(
    path: Path,
    choices: Mapping[str, Any],
    *,
    data: Path | None = None,
    factory: str | None = None,
    device: str | None = None,
) -> tuple[Checkpoint, Recipe]:
    """Load a checkpoint; return it with its recipe, where cuts, loss and positions are as loaded; None is dropped."""
    recipe = Recipe.from_mapping({name: value for name, value in choices.items() if value is not None})
    build = load_factory(factory) if factory else None
    graph = recipe.graph
    options: dict[str, Any] = {"cuts": graph.cuts, "loss": graph.loss, "positions": graph.positions}
    checkpoint = load_checkpoint(path, data=data, factory=build, device=device, **options)
    loss = cast(Loss, checkpoint.network.loss)
    chosen = replace(graph, cuts=checkpoint.network.cuts, loss=loss, positions=checkpoint.positions)
    return checkpoint, replace(recipe, graph=chosen)


def reloaded(
    store: Store,
    pair: tuple[CheckpointRow, GraphRow],
    data: Path | None,
    factory: Any,
    device: str | None = None,
) -> Checkpoint:
    """Load the checkpoint of a graph again, with the graph's cuts and loss.

    Raises:
        NotFoundError: its file is gone or has changed.
    """
    checkpoint, row = pair
    require_network(checkpoint.family, "what was asked for", row.id)
    chosen = Recipe.from_mapping({name: row.recipe.get(name) for name in ("cuts", "loss", "positions")}).graph
    about = checkpoint.about
    if data is None and about is not None and not isinstance(about.get("data"), Mapping | str):
        described = store.get_dataset(row.dataset).description.removeprefix("Dataset(").removesuffix(")")
        raise InputError(
            f"{checkpoint.id} names no data, and {row.id} was computed on {described}: give that file again with "
            "--data FILE, or windows of a text as --data sha256:..., under the name that analyze --text printed"
        )
    with checked_out(store, checkpoint.id) as (_, file):
        options: dict[str, Any] = {"cuts": chosen.cuts, "loss": chosen.loss, "positions": chosen.positions}
        loaded = load_checkpoint(file, data=data, factory=factory, device=device, **options)
    if loaded.sha256 != checkpoint.sha256:
        where = checkpoint.path or "its file"
        raise NotFoundError(f"{where} is not the checkpoint {checkpoint.id} any more: its content has changed")
    return loaded


def stored(store: Store, checkpoint: Checkpoint) -> tuple[str, str] | None:
    """Return the IDs of this checkpoint and its data, if both are stored."""
    row = store.find_checkpoint(checkpoint.model, *_identity(checkpoint), run=run_label(checkpoint.about))
    try:
        return None if row is None else (row.id, store.get_dataset(checkpoint.batches.sha256).id)
    except NotFoundError:
        return None


def _identity(checkpoint: Checkpoint) -> tuple[str, str, dict[str, Any]]:
    return checkpoint.sha256, checkpoint.family, checkpoint.config


def check_registrable(store: Store, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint whose results could not be stored before they are computed; see `Store.check_registrable`."""
    run = run_label(checkpoint.about)
    store.check_registrable(checkpoint.model, checkpoint.family, checkpoint.config, run=run)


def register(store: Store, checkpoint: Checkpoint) -> tuple[CheckpointRow, DatasetRow]:
    """Store a checkpoint and its data set; return their rows."""
    store.register_model(checkpoint.model, checkpoint.family, checkpoint.config)
    notes = {"notes": list(checkpoint.notes)} if checkpoint.notes else {}
    row = store.add_checkpoint(
        checkpoint.model,
        sha256=checkpoint.sha256,
        step=checkpoint.step,
        label=checkpoint.label,
        path=place_of(checkpoint.path),
        family=checkpoint.family,
        config=checkpoint.config,
        run=run_label(checkpoint.about),
        about={
            **checkpoint.about,
            **notes,
            "label": checkpoint.label,
            "model": checkpoint.model,
            "config": checkpoint.config,
        },
    )
    return row, store.add_dataset(checkpoint.batches.sha256, repr(checkpoint.batches))


def provenance(recipe: Mapping[str, Any], recipe_hash: str, seed: int, start: float) -> Provenance:
    """Describe how a result was computed, from `start` (monotonic clock) until now."""
    return Provenance(
        recipe=recipe,
        recipe_hash=recipe_hash,
        code_version=version("interbasis"),
        seed=seed,
        wall_time=time.monotonic() - start,
    )
