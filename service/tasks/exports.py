"""Export a stored result to a file of another tool."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ...analysis import Bases, InteractionGraph, Partition
from ...analysis.checkpoints.checkpoint import components_of
from ...analysis.checkpoints.families import load_factory
from ...analysis.errors import InputError
from ...analysis.exchange.circuit_files import CIRCUIT_FORMATS, export_circuit
from ...analysis.exchange.component_circuit import component_circuit
from ...analysis.exchange.graph_files import FORMATS, export_masks
from ...analysis.exchange.graph_files import export as _export
from ...analysis.llc.coefficient import LearningCoefficient, LearningCoefficientCurve
from ...analysis.progress import ProgressCallback
from ...analysis.results import read_bytes
from ..client.client import Client
from ..records.errors import NotFoundError
from ..records.graphs import GraphRow
from ..store.store import Store
from . import checkpoints as checkpoint_task

__all__ = ["export"]


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
    """Export a stored result for another tool; return the content of the file.

    Args:
        store: store of the result.
        ref: ID of a graph, a partition or a learning coefficient.
        form: for a graph or partition a format of `analysis.exchange.export`, or "eap" or "autocircuit", which run the
            network again (`analysis.exchange.component_circuit`); for a partition also "masks"
            (`analysis.exchange.export_masks`); for a learning coefficient "netcdf": its traces as ArviZ InferenceData.
        epsilon: keep only edges stronger than its square root.
        module: for "eap" and "autocircuit": export only the circuit of this module.
        data: for the same: file to read the data from; default: the checkpoint's own.
        factory: for the same: `module:function` that builds a model of family `torch`.
        progress: called as the network runs.

    Raises:
        InputError: this result cannot be exported in this form.
    """
    _check_choices(form, epsilon, {"module": module, "data": data, "factory": factory})
    try:
        estimate = _estimate(store, ref)
    except NotFoundError:
        if form == "netcdf":
            raise InputError(
                f"netcdf holds the traces of a learning coefficient, which {ref!r} is not: list them with "
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
        build = load_factory(factory) if factory else None
        loaded = checkpoint_task.reloaded(store, (store.get_checkpoint(of.checkpoint), of), data, build)
        about = _bases(store, of), graph, partition, loaded.test_batches, components_of(loaded)
        return export_circuit(component_circuit(loaded.network, *about, progress=progress), form, module)
    if form == "masks":
        if partition is None:
            raise InputError(f"masks need modules, and {ref} is a graph: export one of its partitions")
        return export_masks(_bases(store, of), graph, partition)
    if form not in FORMATS:
        raise InputError(
            f"unknown format {form!r}: expected one of {', '.join([*FORMATS, 'masks', *CIRCUIT_FORMATS, 'netcdf'])}"
        )
    return _export(graph, partition, form, epsilon)


def _check_choices(form: str, epsilon: float | None, of_circuits: Mapping[str, object]) -> None:
    """Refuse choices that a form does not have."""
    given = [name for name, value in of_circuits.items() if value is not None]
    if form not in CIRCUIT_FORMATS and given:
        raise InputError(f"{', '.join(given)}: only for the formats {' and '.join(CIRCUIT_FORMATS)}, not for {form}")
    if epsilon is not None and not (math.isfinite(epsilon) and epsilon >= 0):
        raise InputError(f"epsilon is {epsilon}: expected a loss scale, 0 or more")
    if form in CIRCUIT_FORMATS and epsilon is not None:
        raise InputError(f"{form} holds heads and MLPs, whose edges have no loss scale: leave epsilon out")


def _bases(store: Store | Client, row: GraphRow) -> Bases:
    """Load the bases of a graph.

    Raises:
        InputError: the bases were not kept.
    """
    if row.bases_sha256 is None:
        raise InputError(f"the bases of {row.id} were not kept: analyze its checkpoint again with --force")
    return Bases.from_bytes(store.bases_bytes(row.id))


def _estimate(store: Store | Client, ref: str) -> LearningCoefficient | LearningCoefficientCurve:
    """Load a stored learning coefficient, or a curve of them."""
    row = store.get_llc(ref)
    kind = LearningCoefficientCurve if row.mode == "curve" else LearningCoefficient
    return kind.from_bytes(store.llc_bytes(row.id))


def _netcdf(estimate: LearningCoefficient | LearningCoefficientCurve) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "traces.nc"
        estimate.to_inference_data().to_netcdf(file)
        return read_bytes(file)
