"""Graphs that come in from files of other tools, and stored results that go out to them."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...analysis import Bases, InteractionGraph, Partition
from ...analysis.checkpoints.checkpoint import components_of
from ...analysis.checkpoints.families import load_factory
from ...analysis.errors import GraphError, InputError
from ...analysis.exchange.attribution_graph import Names
from ...analysis.exchange.circuit_files import export_circuit
from ...analysis.exchange.component_circuit import component_circuit
from ...analysis.exchange.component_strengths import NETWORK_FORMATS, component_strengths, component_table
from ...analysis.exchange.graph_files import FORMATS, export_masks
from ...analysis.exchange.graph_files import export as _export
from ...analysis.exchange.supernodes import with_supernodes
from ...analysis.progress import ProgressCallback, report
from ...analysis.recipe import ImportRecipe, from_choices, imported_graph
from ...analysis.refined.coefficients import Estimate, RefinedCoefficients, estimate_from_bytes
from ...analysis.results import read_bytes
from ..records.checkpoints import IMPORTED, import_names, place_of, require_network
from ..records.errors import NotFoundError
from ..records.estimates import LLC
from ..records.graphs import GRAPH, GraphRow
from ..records.kinds import Source, kinds_of
from ..records.labels import preferred
from ..records.partitions import PARTITION
from ..store.store import Store
from .checkout import data_file
from .checkpoints import provenance, reloaded
from .partitions import graph_values

__all__ = ["check_form", "export", "export_stored", "import_graph", "stored_estimate"]

_NO_EDGES = "{} is a learning coefficient, which has no edges: export it with --format netcdf alone"

_NO_DATA = hashlib.sha256().hexdigest()


def import_graph(
    store: Store,
    source: str | Path,
    choices: Mapping[str, Any],
    *,
    force: bool = False,
    progress: ProgressCallback | None = None,
) -> GraphRow:
    """Read a graph from a file and store both; reuse a stored graph of the same file and choices.

    The file stands for a checkpoint of a model of family "graph". Nothing is registered before the graph exists, so
    that a refused file leaves no trace.

    Args:
        store: store for the graph.
        source: the file, or "sha256:..." of one that `Store.add_file` stored.
        choices: fields of `ImportRecipe`, the `model`, and the `label` of the file in it; without them both are the
            name of the file without its ending.
        force: read and store again.
        progress: called before and after.

    Raises:
        GraphError: see `imported_graph`.
        StoreError: the model or the label cannot be called so.
    """
    recipe = from_choices(ImportRecipe, {name: choices[name] for name in choices if name not in ("model", "label")})
    file = None if isinstance(source, str) else source
    names = import_names(file, choices)
    store.check_registrable(names["model"], IMPORTED, {})
    start = time.monotonic()
    data = read_bytes(file) if file is not None else store.blobs.get(store.get_file(str(source)).sha256)
    sha256 = hashlib.sha256(data).hexdigest()
    found = None if force else _imported(store, names["model"], sha256, recipe)
    if found is not None:
        return found
    try:
        (graph,) = [imported_graph(data, recipe) for _ in report(range(1), "importing", progress)]
    except GraphError as error:
        raise GraphError(f"{file or names['label']}: {error}") from error
    store.register_model(names["model"], IMPORTED, {})
    row = store.add_checkpoint(
        names["model"],
        sha256=sha256,
        label=names["label"],
        path=None if file is None else place_of(file),
        family=IMPORTED,
        config={},
        about={"family": IMPORTED, "config": {}, **names},
        file_sha256=sha256 if file is None else store.add_file(file).sha256,
    )
    return store.save_graph(
        row.id,
        store.add_dataset(_NO_DATA, "no data: graphs made elsewhere").id,
        provenance=provenance(asdict(recipe), recipe.sha256, 0, start),
        values=graph_values(graph),
        blobs={"graph": graph.to_bytes()},
        force=force,
    )


def _imported(store: Store, model: str, sha256: str, recipe: ImportRecipe) -> GraphRow | None:
    """Return the stored graph of a file and recipe, or None."""
    row = store.find_checkpoint(model, sha256, IMPORTED, {})
    try:
        return None if row is None else store.find_graph(row.id, _NO_DATA, recipe.sha256)
    except NotFoundError:  # of the data set
        return None


def export(
    store: Store,
    ref: str,
    form: str,
    epsilon: float | None = None,
    *,
    module: int | None = None,
    neurons: int | None = None,
    into: str | Path | None = None,
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
        into: for circuit-tracer: the original file, see `export_stored`, or "sha256:..." of one that is stored.
        data: for all that run the network: file to read the data from; default: the checkpoint's own.
        factory: for the same: `module:function` that builds a model of family `torch`.
        progress: called as the network runs.

    Raises:
        InputError: this result cannot be exported in this form.
    """
    check_form(form, epsilon, {"module": module, "data": data, "factory": factory}, neurons)
    if form not in NETWORK_FORMATS or into is not None:
        with data_file(store, None if into is None else str(into)) as original:
            return export_stored(store, ref, form, epsilon, into=None if original is None else read_bytes(original))
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


def export_stored(
    source: Source, ref: str, form: str, epsilon: float | None = None, *, into: bytes | None = None
) -> bytes:
    """Export a result as it is stored, without the network; return the content of the file.

    Args:
        source: where the result is stored.
        ref: reference of a graph or partition (of a name, the partition), or a learning coefficient.
        form: for a graph or partition a format of `analysis.exchange.export`; for a partition also "masks"
            (`analysis.exchange.export_masks`); for a learning coefficient "netcdf": its traces as ArviZ InferenceData.
        epsilon: keep only edges stronger than its square root; not for an imported attribution graph as
            "circuit-tracer", which is written with all its links.
        into: for a partition as "circuit-tracer": content of the attribution graph that its graph was read from. It is
            written again with the modules as its supernodes, and every other value as it was.

    Raises:
        InputError: this result cannot be exported in this form.
    """
    if into is not None:
        return _written_into(source, ref, form, epsilon, into)
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


def _written_into(source: Source, ref: str, form: str, epsilon: float | None, original: bytes) -> bytes:
    """Write the modules of a partition into the attribution graph that its graph was read from."""
    if form != "circuit-tracer" or epsilon is not None:
        raise InputError("into: only for the format circuit-tracer, and without epsilon, since all links stay")
    of, partition = _divided(source, ref)
    if partition is None:
        raise InputError(f"into: supernodes are modules, and {ref} is a graph: export one of its partitions")
    graph = InteractionGraph.from_bytes(source.graph_bytes(of.id))
    row = source.get_partition(ref)
    return with_supernodes(original, graph, partition, Names(*preferred(source.labels(PARTITION, row.id))))


def stored_estimate(source: Source, ref: str) -> Estimate:
    """Load a stored learning coefficient, a curve of them, or those of parts."""
    row = source.get_llc(ref)
    return estimate_from_bytes(row.mode, source.llc_bytes(row.id))


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
        require_network(source.get_checkpoint(row.checkpoint).family, "a basis", row.id)
        raise InputError(f"the bases of {row.id} were not kept: analyze its checkpoint again with --force")
    return Bases.from_bytes(source.bases_bytes(row.id))


def _netcdf(estimate: Estimate) -> bytes:
    if isinstance(estimate, RefinedCoefficients):
        raise InputError(
            "netcdf holds the traces of one learning coefficient or a curve: load the parts in Python, and take "
            "`part.estimate.to_inference_data()`"
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "traces.nc"
        estimate.to_inference_data().to_netcdf(file)
        return read_bytes(file)
