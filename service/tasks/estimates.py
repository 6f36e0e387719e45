"""Parameter ledgers and learning coefficients of one checkpoint, computed and stored."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from ...analysis.checkpoints.checkpoint import Checkpoint, load_checkpoint
from ...analysis.checkpoints.families import load_factory
from ...analysis.degeneracy.counts import LayerLedger
from ...analysis.degeneracy.ledger import Ledger
from ...analysis.errors import InputError
from ...analysis.llc.coefficient import LearningCoefficient, LearningCoefficientCurve
from ...analysis.llc.diagnostics import to_json
from ...analysis.progress import ProgressCallback
from ...analysis.recipe import LedgerRecipe, LlcRecipe, Recipe, build_ledger, build_llc
from ...analysis.refined.coefficients import Estimate, RefinedCoefficients
from ..records.base import Kind, Record
from ..records.estimates import LEDGER, LLC, LedgerRow, LedgerValues, LlcRow, LlcValues
from ..store.store import Store
from .checkpoints import check_registrable, provenance, register, stored
from .partitions import opened_parts

__all__ = ["ledger", "llc"]

RowT = TypeVar("RowT", bound=Record)


def ledger(
    store: Store,
    path: Path,
    recipe: LedgerRecipe,
    *,
    data: Path | None = None,
    factory: str | None = None,
    device: str | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> LedgerRow:
    """Compute and store the parameter ledger of a checkpoint; reuse a stored one of the same data and recipe.

    Args:
        store: store for the ledger.
        path: the .safetensors file.
        recipe: choices of the ledger.
        data: file to read the data from.
        factory: `module:function` that builds a model of family `torch`.
        device: where to compute; default: the CPU.
        force: compute and store again.
        progress: called as the work goes on.
    """
    options: dict[str, Any] = {"data": data, "factory": factory, "device": device, "force": force, "progress": progress}
    return _measured(store, LEDGER, path, recipe, build_ledger, lambda made, _: _ledger_values(made), **options)


def llc(
    store: Store,
    path: Path,
    recipe: LlcRecipe,
    *,
    data: Path | None = None,
    factory: str | None = None,
    device: str | None = None,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> LlcRow:
    """Estimate and store the learning coefficient of a checkpoint; reuse a stored one of the same data and recipe.

    Args:
        store: store for the estimate.
        path: the .safetensors file.
        recipe: choices of the estimate.
        data: file to read the data from.
        factory: `module:function` that builds a model of family `torch`.
        device: where to compute; default: the CPU.
        force: compute and store again.
        progress: called as the work goes on.

    Raises:
        InputError: the partition whose modules are counted is of another checkpoint.
    """
    options: dict[str, Any] = {"data": data, "factory": factory, "device": device, "force": force, "progress": progress}
    if recipe.modules is None:
        return _measured(store, LLC, path, recipe, build_llc, _llc_values, **options)
    row, graph, bases, partition = opened_parts(store, recipe.modules)
    own = store.get_checkpoint(row.checkpoint)
    chosen = Recipe.from_mapping({name: graph.recipe.get(name) for name in ("cuts", "loss", "positions")}).graph
    recipe = replace(recipe, modules=row.id, loss=chosen.loss, positions=chosen.positions)

    def build(checkpoint: Checkpoint, chosen: LlcRecipe, *, progress: ProgressCallback | None) -> RefinedCoefficients:
        if checkpoint.sha256 != own.sha256:
            raise InputError(f"{row.id} divides {own.id}, not {path}: name the partition's own checkpoint")
        found = build_llc(checkpoint, chosen, divided=(bases, partition), progress=progress)
        return cast(RefinedCoefficients, found)

    return _measured(store, LLC, path, recipe, build, _llc_values, cuts=chosen.cuts, **options)


def _measured(
    store: Store,
    kind: Kind[Any, RowT],
    path: Path,
    recipe: Any,
    build: Callable[..., Any],
    values: Callable[[Any, Any], Record],
    *,
    data: Path | None,
    factory: str | None,
    device: str | None,
    force: bool,
    progress: ProgressCallback | None,
    cuts: Any = None,
) -> RowT:
    """Compute and store a measurement of one checkpoint, or return the stored one of the same data and recipe."""
    build_model = load_factory(factory) if factory else None
    options: dict[str, Any] = {"data": data, "factory": build_model, "device": device, "cuts": cuts}
    checkpoint = load_checkpoint(path, loss=recipe.loss, positions=recipe.positions, **options)
    chosen = replace(recipe, loss=checkpoint.network.loss, positions=checkpoint.positions)
    known = None if force else stored(store, checkpoint)
    found = store.find(kind, known, chosen.sha256) if known else None
    if found is not None:
        return found
    check_registrable(store, checkpoint)
    start = time.monotonic()
    made = build(checkpoint, chosen, progress=progress)
    owners = [owner.id for owner in register(store, checkpoint)]
    how = provenance(asdict(chosen), chosen.sha256, chosen.seed, start)
    return store.save(kind, owners, how, values(made, chosen), {kind.name: made.to_bytes()}, force=force)


def _ledger_values(counted: Ledger) -> LedgerValues:
    values = {f.name: getattr(counted, f.name) for f in fields(LedgerValues) if hasattr(counted, f.name)}
    values |= {name: getattr(counted.hessian, name) for name in ("method", "lower", "upper", "soft")}
    values["layers"] = tuple(_layer(layer) for layer in counted.layers)
    return LedgerValues(**values)


def _layer(layer: LayerLedger) -> dict[str, Any]:
    """Return a layer's part of the ledger as JSON: counts, ranks, number of blocks, fit; NaN as None."""
    names = ["name", "n_inputs", "n_outputs", "nominal", "gram_rank", "jacobian_rank", "activations", "jacobians"]
    names += ["gating", "synchronised", "tied", "dead", "hessian_rank"]
    measured = {name: value for name, value in asdict(layer.kronecker).items() if value is not None}
    fit = {name: None if math.isnan(value) else value for name, value in measured.items()}
    blocks = sum(block.free > 0 for block in layer.blocks)
    return {name: getattr(layer, name) for name in names} | {"blocks": blocks, "kronecker": fit}


def _llc_values(estimate: Estimate, recipe: LlcRecipe) -> LlcValues:
    """Return the numbers of an estimate; of a curve those at its smallest loss scale, of parts those of the whole."""
    if isinstance(estimate, LearningCoefficientCurve):
        mode, every = "curve", estimate.points
    elif isinstance(estimate, RefinedCoefficients):
        mode, every = "modules" if recipe.modules else "parts", tuple(part.estimate for part in estimate.parts)
    else:
        mode, every = "point", (estimate,)
    points = [_point(point) for point in every]
    if isinstance(estimate, RefinedCoefficients):
        for point, part in zip(points, estimate.parts, strict=True):
            point |= {"part": part.name, "kind": part.kind, "module": part.module}
        points[0] |= _about_modules(estimate)
    if isinstance(estimate, LearningCoefficientCurve):
        volumes = zip(estimate.log_volume, estimate.log_volume_error, strict=True)
        for point, (volume, error) in zip(points, volumes, strict=True):
            point |= {"log_volume": _finite(volume), "log_volume_error": _finite(error)}
    first = every[0]
    names = ("value", "standard_error", "lower", "upper", "epsilon", "temperature")
    return LlcValues(
        mode=mode,
        loss=str(recipe.loss),
        **{name: points[0][name] for name in names},
        n_parameters=first.n_parameters,
        n=first.n,
        verdict=estimate.verdict,
        reason=estimate.reason,
        r_hat=_finite(first.diagnostics.r_hat),
        ess=_finite(first.diagnostics.ess),
        kernel=first.diagnostics.kernel,
        preconditioner=first.diagnostics.preconditioner,
        points=tuple(points),
    )


def _about_modules(found: RefinedCoefficients) -> dict[str, Any]:
    """Return what is known of modules together as JSON: mediating nodes, excess and constraint with their errors."""
    mediators = [asdict(node) | {"predicted": node.predicted} for node in found.mediators]
    return {"mediators": mediators, "interaction": found.interaction, "constraint": found.constraint}


def _point(found: LearningCoefficient) -> dict[str, Any]:
    """Return the numbers at one loss scale as JSON; NaN and infinity as None."""
    low, high = found.interval
    numbers = {"epsilon": found.epsilon, "temperature": found.temperature, "gamma": found.gamma}
    numbers |= {"value": found.value, "standard_error": found.standard_error, "lower": low, "upper": high}
    numbers |= {"n_effective": found.n_effective, "n_parameters": found.n_parameters}
    result: dict[str, Any] = {name: _finite(value) for name, value in numbers.items()}
    result |= {"log_volume": None, "log_volume_error": None, "verdict": found.verdict, "reason": found.reason}
    return result | {"diagnostics": to_json(found.diagnostics)}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
