"""Results to be stored, and a process that stores them.

    python cases_store.py STORE ARTIFACTS FIRST COUNT

saves COUNT results from number FIRST on, after it has said "ready" and been answered with a line; or, where the line is
"label", labels a node of the graph again and again until it is killed.
"""

import random
import sys
from typing import Any

from interbasis.service.records.base import Provenance
from interbasis.service.records.estimates import (
    DescriptionRow,
    DescriptionValues,
    ExperimentRow,
    ExperimentValues,
    LedgerRow,
    LedgerValues,
    LlcRow,
    LlcValues,
)
from interbasis.service.records.graphs import GRAPH, GraphRow, GraphValues
from interbasis.service.records.labels import NewLabel
from interbasis.service.records.partitions import (
    ComparisonRow,
    ComparisonValues,
    LinkRow,
    MediatorRow,
    ModuleRow,
    PartitionDetail,
    PartitionValues,
    TrackingDetail,
    TrackingStep,
    TrackingValues,
)
from interbasis.service.store.store import Store

WIDTHS = (3, 4, 2)


def sha(number: int) -> str:
    return f"{number:064x}"


def provenance(number: int = 0, **changes: Any) -> Provenance:
    values = {"recipe": {"basis": "global", "seed": number}, "recipe_hash": sha(number), "code_version": "0.1.0"}
    return Provenance(**{**values, "seed": number, "wall_time": 1.5, **changes})


def graph_values(widths: tuple[int, ...] = WIDTHS, **changes: Any) -> GraphValues:
    cuts = tuple(f"layers.{i}" for i in range(len(widths)))
    values = {"cuts": cuts, "widths": widths, "basis": "global", "strengths": "jacobian", "n_nodes": sum(widths)}
    return GraphValues(**{**values, "n_edges": 7, **changes})


def partition_values(**changes: Any) -> PartitionValues:
    values = {"n_modules": 2, "edge_cost": 0.25, "mediator_cost": 0.125, "normalised_cost": None, "quality": 0.4}
    values |= {"objective": "layered_cpm", "resolution": 1.0, "epsilon": 1e-4, "contrast": 0.9, "p_value": 0.05}
    return PartitionValues(**{**values, **changes})


def partition_parts(widths: tuple[int, ...] = WIDTHS) -> dict[str, Any]:
    """Two modules that take the nodes in turn; the last node is in none."""
    labels = [[i % 2 for i in range(width)] for width in widths]
    labels[-1][-1] = -1
    sizes = [tuple(cut.count(m) for cut in labels) for m in (0, 1)]
    cuts = [tuple(f"layers.{i}" for i, n in enumerate(row) if n) for row in sizes]
    return {
        "modules": [
            ModuleRow(index=m, size=sum(sizes[m]), cuts=cuts[m], sizes=sizes[m], inner_cost=1.0 + m, outer_cost=0.25)
            for m in (0, 1)
        ],
        "links": [LinkRow(earlier=0, later=1, n_edges=2, edge_cost=0.25, mediator_cost=0.125)],
        "labels": labels,
        "importance": [[1.0 / (1 + i) for i in range(width)] for width in widths],
        "confidence": [[0.5] * width for width in widths],
        "mediators": [
            MediatorRow(earlier=0, later=1, cut=0, coordinate=i, strength=8.0 / (1 + i), cost=0.1, gamma=None)
            for i in (2, 0)
        ],
    }


def register(store: Store) -> tuple[str, str]:
    """IDs of a checkpoint and a dataset."""
    store.register_model("digits", "mlp", {"widths": [3, 4, 2]})
    checkpoint = store.add_checkpoint("digits", sha256=sha(1), step=100, label="final", path="/data/digits.safetensors")
    return checkpoint.id, store.add_dataset(sha(2), "digits, test half").id


def save_graph(store: Store, number: int = 0, *, force: bool = False, content: bytes | None = None) -> GraphRow:
    checkpoint, dataset = register(store)
    graph = content if content is not None else random.Random(number).randbytes(1000 + 20_000 * (number % 9))
    blobs = {"graph": graph, "bases": f"bases {number}".encode()}
    return store.save_graph(
        checkpoint, dataset, provenance=provenance(number), values=graph_values(), blobs=blobs, force=force
    )


def save_partition(store: Store, graph: str, number: int = 0, *, force: bool = False) -> PartitionDetail:
    content = {"partition": f"partition {graph} {number}".encode()}
    given = {"provenance": provenance(number), "values": partition_values(), **partition_parts()}
    return store.save_partition(graph, **given, blobs=content, force=force)


def save_experiment(
    store: Store, partition: str, number: int = 0, *, force: bool = False, **changes: Any
) -> ExperimentRow:
    values = {"experiment": "isolate", "metric": "accuracy", "n": 1000, "held_out": True, "value": -0.25}
    values |= {"standard_error": 0.01, "control": -0.5, "p_value": None, "summary": {"rows": [], "n_modules": 2}}
    given = {"provenance": provenance(number), "values": ExperimentValues(**{**values, **changes})}
    content = {"experiment": f"experiment {partition} {number} {changes}".encode()}
    return store.save_experiment(partition, **given, blobs=content, force=force)


def save_description(
    store: Store, partition: str, number: int = 0, *, force: bool = False, **changes: Any
) -> DescriptionRow:
    values = {"n": 400, "n_cards": 9, "n_nodes": 9, "modules": ({"module": 0, "size": 5, "summary": "left"},)}
    given = {"provenance": provenance(number), "values": DescriptionValues(**{**values, **changes})}
    content = {"description": f"description {partition} {number} {changes}".encode()}
    return store.save_description(partition, **given, blobs=content, force=force)


def save_comparison(
    store: Store, partition: str, other: str | None = None, number: int = 0, *, force: bool = False, **changes: Any
) -> ComparisonRow:
    values = {"name": other or "a.csv", "matched_by": "place", "n_nodes": 9, "only_first": 0, "only_second": 0}
    values |= {"left_out": 0, "z": None, "n_permutations": 99, "verdict": "same division", "reason": "the same"}
    values |= dict.fromkeys(("ami", "ari", "ami_by_chance", "ari_by_chance", "p_value", "ari_p_value"), 1.0)
    values |= {"matches": ({"first": "0", "second": "0", "shared": 9, "jaccard": 1.0},)}
    given = {"provenance": provenance(number), "values": ComparisonValues(**{**values, **changes})}
    content = {"comparison": f"comparison {partition} {other} {number} {changes}".encode()}
    return store.save_comparison(partition, other, **given, blobs=content, force=force)


def save_ledger(store: Store, number: int = 0, *, force: bool = False, **changes: Any) -> LedgerRow:
    checkpoint, dataset = register(store)
    counts = {"nominal": 26, "activations": 3, "jacobians": 2, "gating": 1, "synchronised": 4, "tied": 0}
    counts |= {"unexplained": 1, "effective": 15, "method": "exact", "lower": 15, "upper": 15, "soft": None}
    layer = {"name": "layers.0.linear", "nominal": 16, "kronecker": {"error": 0.25, "cosine": None}}
    other = {"epsilon": None, "tolerance": 1e-10, "n": 400, "warning": None, "layers": (layer,)}
    values = LedgerValues(**{**counts, **other, **changes})
    content = {"ledger": f"ledger {number}".encode()}
    given = {"provenance": provenance(number), "values": values, "blobs": content}
    return store.save_ledger(checkpoint, dataset, **given, force=force)


def save_llc(
    store: Store, number: int = 0, *, modules: str | None = None, force: bool = False, **changes: Any
) -> LlcRow:
    checkpoint, dataset = register(store)
    numbers = {"value": 4.5, "standard_error": 0.25, "lower": 4.0, "upper": 5.0, "epsilon": 1e-3, "temperature": 5500.0}
    point = {**numbers, "log_volume": None, "diagnostics": {"r_hat": 1.01, "acceptance": None}}
    other = {"mode": "point", "loss": "mse", "n_parameters": 26, "n": 400, "verdict": "reliable", "reason": "mixed"}
    run = {"r_hat": 1.01, "ess": 400.0, "kernel": "hmc", "preconditioner": "gauss-newton", "points": (point,)}
    values = LlcValues(**{**numbers, **other, **run, **changes})
    how = provenance(number, recipe={"modules": modules, "seed": number})
    given = {"provenance": how, "values": values, "blobs": {"llc": f"llc {number}{modules or ''}".encode()}}
    return store.save_llc(checkpoint, dataset, **given, force=force)


def save_tracking(store: Store, graphs: list[str], number: int = 0, *, force: bool = False) -> TrackingDetail:
    steps = [
        TrackingStep(checkpoint="", graph=graph, step=None, label=None, tracks=(0, t), sizes=(4, 3), churn=0.25 * t)
        for t, graph in enumerate(graphs)
    ]
    event = {"kind": "split", "at": 1, "earlier": [0], "later": [0, 1]}
    values = TrackingValues(n_checkpoints=len(graphs), n_tracks=2, churn=0.25, events=(event,))
    content = {"tracking": f"tracking {number}".encode()}
    given = {"provenance": provenance(number), "values": values, "steps": steps, "blobs": content}
    return store.save_tracking("digits", **given, force=force)


def main(url: str, artifacts: str, first: int, count: int) -> None:
    print("ready", flush=True)
    asked = sys.stdin.readline()
    with Store.open(url, artifacts) as store:
        while asked == "label\n":
            label = NewLabel(text=f"{first} {count}", author="ada", cut="layers.0", node=1)
            store.put_labels(GRAPH, "last", [label])
            print(label.text, flush=True)
            count += 1
        for number in range(first, first + count):
            graph = save_graph(store, number)
            save_partition(store, graph.id)
            print(graph.id, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
