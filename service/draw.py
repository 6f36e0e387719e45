"""Figures and files of what is stored, for people and for other tools."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..analysis import Bases, Experiment, InteractionGraph, Ledger, Partition, Tracking
from ..analysis import epsilon_profile as _epsilon_profile
from ..analysis.checkpoints.checkpoint import components_of
from ..analysis.checkpoints.families import load_factory
from ..analysis.errors import InputError
from ..analysis.exchange.circuit_files import CIRCUIT_FORMATS, export_circuit
from ..analysis.exchange.component_circuit import component_circuit
from ..analysis.exchange.graph_files import FORMATS, export_masks
from ..analysis.exchange.graph_files import export as _export
from ..analysis.figures.graphs import plot_membership, plot_strengths
from ..analysis.figures.profiles import plot_epsilon_profile, plot_profile
from ..analysis.llc.coefficient import LearningCoefficient, LearningCoefficientCurve
from ..analysis.progress import ProgressCallback
from ..analysis.recipe import Recipe
from ..analysis.results import read_bytes, write_bytes
from . import worker
from .client import Client
from .records import GraphRow, NotFoundError
from .store import Store

__all__ = ["epsilon_profile", "export", "picture_format", "plot"]

_PICTURES = ("png", "svg", "pdf")


def export(
    store: Store | Client,
    ref: str,
    form: str,
    epsilon: float | None = None,
    *,
    module: int | None = None,
    data: Path | None = None,
    factory: str | None = None,
    progress: ProgressCallback | None = None,
) -> bytes:
    """A stored result as the content of a file for another tool.

    Args:
        store: what it is in.
        ref: ID of a graph, a partition or a learning coefficient.
        form: of a graph or partition see `analysis.exchange.export`, or "eap" and "autocircuit", for which the network
            is run again (`analysis.projection`); of a partition also "masks" (`analysis.exchange.export_masks`); of a
            learning coefficient "netcdf": its traces as ArviZ InferenceData.
        epsilon: only edges above its square root.
        module: of "eap" and "autocircuit": only the circuit of this module.
        data: of the same: file to read the data from, where that is not the checkpoint's own.
        factory: of the same: `module:function` that builds a model of family `torch`.
        progress: called as the network is run.

    Raises:
        InputError: a form that this result does not have.
    """
    if form not in CIRCUIT_FORMATS and (module, data, factory) != (None, None, None):
        given = [
            name for name, value in (("module", module), ("data", data), ("factory", factory)) if value is not None
        ]
        raise InputError(f"{', '.join(given)}: only for the formats {' and '.join(CIRCUIT_FORMATS)}, not for {form}")
    if epsilon is not None and not (math.isfinite(epsilon) and epsilon >= 0):
        raise InputError(f"epsilon is {epsilon}: expected a loss scale, 0 or more")
    if form in CIRCUIT_FORMATS and epsilon is not None:
        raise InputError(f"{form} holds heads and MLPs, whose edges have no loss scale: leave epsilon out")
    try:
        estimate = _estimate(store, ref)
    except NotFoundError:
        if form == "netcdf":
            raise InputError(
                f"netcdf holds the traces of a learning coefficient, and {ref!r} is none: list them with "
                "`interbasis ls llc`"
            ) from None
    else:
        if form != "netcdf" or epsilon is not None:
            raise InputError(
                f"{ref} is a learning coefficient, which has no edges: export it with --format netcdf alone"
            )
        return _netcdf(estimate)
    if form in CIRCUIT_FORMATS and isinstance(store, Client):
        if (data, factory) != (None, None):
            raise InputError("a service takes the checkpoint's own data: export with --data here, without --url")
        return store.export(ref, form, module=module)
    try:
        row = store.get_partition(ref)
    except NotFoundError:
        of, partition = store.get_graph(ref), None
    else:
        of, partition = store.get_graph(row.graph), Partition.from_bytes(store.partition_bytes(row.id))
    graph = InteractionGraph.from_bytes(store.graph_bytes(of.id))
    if form in CIRCUIT_FORMATS and isinstance(store, Store):
        loaded = worker.reloaded(
            store, (store.get_checkpoint(of.checkpoint), of), data, load_factory(factory) if factory else None
        )
        circuit = component_circuit(
            loaded.network,
            _bases(store, of),
            graph,
            partition,
            loaded.test_batches,
            components_of(loaded),
            progress=progress,
        )
        return export_circuit(circuit, form, module)
    if form == "masks":
        if partition is None:
            raise InputError(f"masks are of modules, and {ref} is a graph: export one of its partitions")
        return export_masks(_bases(store, of), graph, partition)
    if form not in FORMATS:
        raise InputError(
            f"unknown format {form!r}: expected one of {', '.join([*FORMATS, 'masks', *CIRCUIT_FORMATS, 'netcdf'])}"
        )
    return _export(graph, partition, form, epsilon)


def _bases(store: Store | Client, row: GraphRow) -> Bases:
    """The bases of a graph.

    Raises:
        InputError: they were not kept.
    """
    if row.bases_sha256 is None:
        raise InputError(f"the bases of {row.id} were not kept: analyze its checkpoint again with --force")
    return Bases.from_bytes(store.bases_bytes(row.id))


def plot(store: Store | Client, ref: str, path: Path, figure: str | None = None) -> None:
    """Draw something stored into a file (.png, .svg or .pdf).

    Args:
        store: what it is in.
        ref: ID of a graph, a partition, a tracking, a ledger, an experiment or a learning coefficient.
        path: to write.
        figure: of a graph "graph" or "strengths", of a partition also "membership" and "profile", of a tracking
            "tracks", of a ledger "waterfall" or "synchronisation" (of the layer with the most units; of another one
            "synchronisation:LAYER"), of a learning coefficient "traces", of a curve of them "curve", of an experiment
            its kind. Default: the first named.

    Raises:
        InputError: a figure that this result does not have, or a file of another kind.
    """
    form = picture_format(path)
    available = _figures(store, ref)
    name = next(iter(available)) if figure is None else figure
    if name not in available:
        raise InputError(f"{ref} has no figure {name!r}: expected one of {', '.join(available)}")
    _draw(available[name](), path, form)


def _figures(store: Store | Client, ref: str) -> dict[str, Callable[[], Any]]:
    """What can be drawn of a result, the default first."""
    try:
        estimate = _estimate(store, ref)
    except NotFoundError:
        pass
    else:
        return {"curve" if isinstance(estimate, LearningCoefficientCurve) else "traces": estimate.plot}
    for kind, figures in (("ledger", _of_ledger), ("tracking", _of_tracking), ("experiment", _of_experiment)):
        try:
            content = getattr(store, f"{kind}_bytes")(ref)
        except NotFoundError:
            continue
        return figures(content)
    try:
        row = store.get_partition(ref)
    except NotFoundError:
        graph = InteractionGraph.from_bytes(store.graph_bytes(ref))
        return {"graph": graph.plot, "strengths": lambda: plot_strengths(graph)}
    partition = Partition.from_bytes(store.partition_bytes(row.id))
    graph = InteractionGraph.from_bytes(store.graph_bytes(row.graph))
    return {
        "graph": lambda: graph.plot(partition),
        "membership": lambda: plot_membership(partition),
        "profile": lambda: plot_profile(partition),
        "strengths": lambda: plot_strengths(graph, partition.epsilons),
    }


def _estimate(store: Store | Client, ref: str) -> LearningCoefficient | LearningCoefficientCurve:
    """A stored learning coefficient, or a curve of them."""
    row = store.get_llc(ref)
    kind = LearningCoefficientCurve if row.mode == "curve" else LearningCoefficient
    return kind.from_bytes(store.llc_bytes(row.id))


def _netcdf(estimate: LearningCoefficient | LearningCoefficientCurve) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "traces.nc"
        estimate.to_inference_data().to_netcdf(file)
        return read_bytes(file)


def _of_tracking(content: bytes) -> dict[str, Callable[[], Any]]:
    return {"tracks": Tracking.from_bytes(content).plot}


def _of_experiment(content: bytes) -> dict[str, Callable[[], Any]]:
    experiment = Experiment.from_bytes(content)
    return {experiment.kind: experiment.plot}


def _of_ledger(content: bytes) -> dict[str, Callable[[], Any]]:
    ledger = Ledger.from_bytes(content)
    found: dict[str, Callable[[], Any]] = {"waterfall": ledger.plot}
    if ledger.units:
        found["synchronisation"] = max(ledger.units, key=lambda units: len(units.power)).plot
    return found | {f"synchronisation:{units.layer}": units.plot for units in ledger.units}


def picture_format(path: Path) -> str:
    """The kind of picture that a file's name asks for.

    Raises:
        InputError: none that can be drawn.
    """
    form = path.suffix.removeprefix(".").lower()
    if form not in _PICTURES:
        raise InputError(f"cannot draw into {path}: expected a name that ends in one of .{', .'.join(_PICTURES)}")
    return form


def _draw(figure: Any, path: Path, form: str) -> None:
    content = io.BytesIO()
    figure.savefig(content, format=form, dpi=150)
    write_bytes(path, content.getvalue())


def epsilon_profile(
    store: Store | Client, ref: str, choices: Mapping[str, Any], path: Path, *, progress: ProgressCallback | None = None
) -> tuple[Partition, ...]:
    """Divide a stored graph at several loss scales, and draw how modules merge and split."""
    form = picture_format(path)
    recipe = Recipe.from_mapping(choices).partition
    if recipe.epsilon is not None:
        raise InputError("a profile goes over loss scales by itself: leave --epsilon out")
    options = {name: value for name, value in recipe.search.items() if name != "epsilon"}
    graph = InteractionGraph.from_bytes(store.graph_bytes(ref))
    found = _epsilon_profile(graph, progress=progress, **options)
    _draw(plot_epsilon_profile(found), path, form)
    return found
