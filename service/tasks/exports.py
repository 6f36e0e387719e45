"""Export a stored result to a file of another tool."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...analysis import Bases, InteractionGraph, Partition
from ...analysis.checkpoints.checkpoint import components_of
from ...analysis.checkpoints.families import load_factory
from ...analysis.errors import InputError
from ...analysis.exchange.attribution_graph import Names
from ...analysis.exchange.circuit_files import export_circuit
from ...analysis.exchange.component_circuit import component_circuit
from ...analysis.exchange.component_strengths import NETWORK_FORMATS, component_strengths, component_table
from ...analysis.exchange.graph_files import FORMATS, export_masks
from ...analysis.exchange.graph_files import export as _export
from ...analysis.llc.coefficient import LearningCoefficient, LearningCoefficientCurve
from ...analysis.progress import ProgressCallback
from ...analysis.results import read_bytes
from ..records.errors import NotFoundError
from ..records.estimates import LLC
from ..records.graphs import GRAPH, GraphRow
from ..records.kinds import Source, kinds_of
from ..records.labels import preferred
from ..records.partitions import PARTITION
from ..store.store import Store
from .checkpoints import reloaded

__all__ = ["check_form", "export", "export_stored", "stored_estimate"]

_NO_EDGES = "{} is a learning coefficient, which has no edges: export it with --format netcdf alone"


def export(
    store: Store,
    ref: str,
    form: str,
    epsilon: float | None = None,
    *,
    module: int | None = None,
    neurons: int | None = None,
    data: Path | None = None,
    factory: str | None = None,
    progress: ProgressCallback | None = None,
) -> bytes:
    """Export a stored result for another tool; return the content of the file.

    Args:
        store: store of the result.
        ref: reference of a graph or partition (of a name, the partition), or a learning coefficient.
        form: one of those of `export_stored`; for a graph or partition also those that run the network again: "eap"
            or "autocircuit" (`analysis.exchange.component_circuit`), on held-out data, or "components"
            (`analysis.exchange.component_strengths`), on the data of the graph.
        epsilon: keep only edges stronger than its square root.
        module: for these: export only the circuit, or the components, of this module.
        neurons: for components: list so many hidden units of the MLPs for each module.
        data: for all that run the network: file to read the data from; default: the checkpoint's own.
        factory: for the same: `module:function` that builds a model of family `torch`.
        progress: called as the network runs.

    Raises:
        InputError: this result cannot be exported in this form.
    """
    check_form(form, epsilon, {"module": module, "data": data, "factory": factory}, neurons)
    if form not in NETWORK_FORMATS:
        return export_stored(store, ref, form, epsilon)
    of, partition = _divided(store, ref)
    build = load_factory(factory) if factory else None
    loaded = reloaded(store, (store.get_checkpoint(of.checkpoint), of), data, build)
    graph, bases = InteractionGraph.from_bytes(store.graph_bytes(of.id)), _bases(store, of)
    components = components_of(loaded)
    if form == "components":
        chosen: dict[str, Any] = {"patterns": True, "neurons": neurons or 0, "partition": partition}
        split = component_strengths(
            loaded.network, bases, graph, loaded.batches, components=components, progress=progress, **chosen
        )
        return json.dumps(component_table(split, partition, module), indent=1).encode()
    about = bases, graph, partition, loaded.test_batches, components
    return export_circuit(component_circuit(loaded.network, *about, progress=progress), form, module)


def check_form(form: str, epsilon: float | None, of_circuits: Mapping[str, object], neurons: int | None = None) -> None:
    """Refuse choices that a form does not have.

    Args:
        form: the form.
        epsilon: a loss scale, which circuits do not have.
        of_circuits: choices that only circuits have.
        neurons: a number of hidden units, which only components have.

    Raises:
        InputError: one of them is given and the form does not have it, or it is out of range.
    """
    given = [name for name, value in of_circuits.items() if value is not None]
    if form not in NETWORK_FORMATS and given:
        raise InputError(f"{', '.join(given)}: only for the formats {', '.join(NETWORK_FORMATS)}, not for {form}")
    if neurons is not None and form != "components":
        raise InputError(f"neurons: only for the format components, not for {form}")
    if neurons is not None and neurons < 1:
        raise InputError(f"neurons is {neurons}: expected how many of each module to list, 1 or more")
    if epsilon is not None and not (math.isfinite(epsilon) and epsilon >= 0):
        raise InputError(f"epsilon is {epsilon}: expected a loss scale, 0 or more")
    if form in NETWORK_FORMATS and epsilon is not None:
        raise InputError(f"{form} holds heads and MLPs, whose edges have no loss scale: leave epsilon out")


def export_stored(source: Source, ref: str, form: str, epsilon: float | None = None) -> bytes:
    """Export a result as it is stored, without the network; return the content of the file.

    Args:
        source: where the result is stored.
        ref: reference of a graph or partition (of a name, the partition), or a learning coefficient.
        form: for a graph or partition a format of `analysis.exchange.export`; for a partition also "masks"
            (`analysis.exchange.export_masks`); for a learning coefficient "netcdf": its traces as ArviZ InferenceData.
        epsilon: keep only edges stronger than its square root.

    Raises:
        InputError: this result cannot be exported in this form.
    """
    if form == "netcdf":
        if epsilon is not None:
            raise InputError(_NO_EDGES.format(ref))
        try:
            return _netcdf(stored_estimate(source, ref))
        except NotFoundError as error:
            raise InputError(
                f"netcdf holds the traces of a learning coefficient, which {ref!r} is not: {error}"
            ) from None
    of, partition = _divided(source, ref)
    graph = InteractionGraph.from_bytes(source.graph_bytes(of.id))
    if form == "masks":
        if partition is None:
            raise InputError(f"masks need modules, and {ref} is a graph: export one of its partitions")
        return export_masks(_bases(source, of), graph, partition)
    if form not in FORMATS:
        raise InputError(
            f"unknown format {form!r}: expected one of {', '.join([*FORMATS, 'masks', *NETWORK_FORMATS, 'netcdf'])}"
        )
    kind, row = source.find_any((PARTITION, GRAPH), ref)
    return _export(graph, partition, form, epsilon, called=Names(*preferred(source.labels(kind, row.id))))


def stored_estimate(source: Source, ref: str) -> LearningCoefficient | LearningCoefficientCurve:
    """Load a stored learning coefficient, or a curve of them."""
    row = source.get_llc(ref)
    kind = LearningCoefficientCurve if row.mode == "curve" else LearningCoefficient
    return kind.from_bytes(source.llc_bytes(row.id))


def _divided(source: Source, ref: str) -> tuple[GraphRow, Partition | None]:
    """Return the record of a graph, and the partition where that is what the reference names.

    Raises:
        InputError: it names a learning coefficient.
    """
    kind, row = source.find_any((PARTITION, GRAPH, LLC) if kinds_of(ref) else (PARTITION, GRAPH), ref)
    if kind is LLC:
        raise InputError(_NO_EDGES.format(row.id))
    if kind is GRAPH:
        return row, None
    return source.get_graph(row.graph), Partition.from_bytes(source.partition_bytes(row.id))


def _bases(source: Source, row: GraphRow) -> Bases:
    """Load the bases of a graph.

    Raises:
        InputError: the bases were not kept.
    """
    if row.bases_sha256 is None:
        raise InputError(f"the bases of {row.id} were not kept: analyze its checkpoint again with --force")
    return Bases.from_bytes(source.bases_bytes(row.id))


def _netcdf(estimate: LearningCoefficient | LearningCoefficientCurve) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "traces.nc"
        estimate.to_inference_data().to_netcdf(file)
        return read_bytes(file)
