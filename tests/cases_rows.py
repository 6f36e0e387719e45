"""Records of every kind, made by hand, and what a terminal of 80 columns shows of them."""

import io
from datetime import UTC, datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console

from interbasis.service.records.checkpoints import CheckpointRow, DatasetRow, ModelRow, RunRow
from interbasis.service.records.estimates import DescriptionRow, ExperimentRow, LedgerRow, LlcRow
from interbasis.service.records.graphs import GraphRow
from interbasis.service.records.jobs import JobRow, NewToken, ScheduleRow, TokenRow, WorkerRow
from interbasis.service.records.partitions import (
    ComparisonRow,
    ModuleRow,
    PartitionDetail,
    TrackingDetail,
    TrackingStep,
)

THEN = datetime(2026, 11, 5, 7, 3, tzinfo=UTC)
NAN = float("nan")
HASH = "0123456789abcdef" * 4
ORIGIN: dict[str, Any] = {"recipe": {"basis": "global", "seed": 0}, "recipe_hash": HASH, "code_version": "0.7.0"}
ORIGIN |= {"seed": 0, "wall_time": 1.5, "model": "digits", "created": THEN}
OF: dict[str, Any] = {"step": 100, "label": "final"}


def console(width: int = 80) -> Console:
    """A console as the command line has it, which writes into a text."""
    return Console(file=io.StringIO(), width=width, markup=False, emoji=False)


def lines(*shown: Any, width: int = 80) -> list[str]:
    """What a terminal shows, without the spaces at the ends of lines; nothing is wider than the terminal."""
    where = console(width)
    for each in shown:
        where.print(each)
    found = where.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(cell_len, found), default=0) <= width, found
    return [line.rstrip() for line in found]


def cells(*shown: Any, width: int = 80) -> list[list[str]]:
    """The words of each line."""
    return [line.split() for line in lines(*shown, width=width)]


def colours(shown: Any) -> dict[str, str]:
    """The styles of the words that a terminal shows in one."""
    parts = console().render(shown)
    return {part.text.strip(): str(part.style) for part in parts if part.text.strip() and part.style}


def model(**changes: Any) -> ModelRow:
    config = {"widths": [2, 3], "activation": "relu"}
    return ModelRow(
        **{"id": "m-01234567", "name": "digits", "family": "mlp", "config": config, "created": THEN} | changes
    )


def run(**changes: Any) -> RunRow:
    values = {"id": "r-01234567", "model": "digits", "number": 1, "label": None, "family": "mlp", "config": {}}
    return RunRow(**{**values, "created": THEN, **changes})


def checkpoint(**changes: Any) -> CheckpointRow:
    values = {"id": "c-01234567", "model": "digits", "sha256": HASH, "step": 100, "label": "final", "family": "mlp"}
    values |= {"run": "r-01234567"}
    return CheckpointRow(**{**values, "config": {}, "path": "/data/digits.safetensors", "created": THEN, **changes})


def dataset(**changes: Any) -> DatasetRow:
    values = {"id": "d-01234567", "sha256": HASH, "description": "digits, test half", "created": THEN}
    return DatasetRow(**{**values, **changes})


def graph(**changes: Any) -> GraphRow:
    values = {"id": "g-01234567", "checkpoint": "c-01234567", "dataset": "d-01234567", "graph_sha256": HASH}
    values |= {"bases_sha256": None, "cuts": ("layers.0", "layers.1"), "widths": (3, 4), "basis": "global"}
    return GraphRow(
        **{
            **ORIGIN,
            **OF,
            "output": "neuron",
            **values,
            "strengths": "jacobian",
            "n_nodes": 7,
            "n_edges": 12,
            **changes,
        }
    )


def module(index: int = 0, **changes: Any) -> ModuleRow:
    values = {"index": index, "size": 5, "cuts": ("layers.0", "layers.1"), "sizes": (2, 3)}
    return ModuleRow(**{**values, "inner_cost": 1.25, "outer_cost": 0.5, **changes})


def partition(**changes: Any) -> PartitionDetail:
    values = {"id": "p-01234567", "checkpoint": "c-01234567", "graph": "g-01234567", "partition_sha256": HASH}
    values |= {"n_modules": 2, "edge_cost": 0.25, "mediator_cost": 0.125, "normalised_cost": None, "quality": 0.4}
    values |= {"objective": "layered_cpm", "resolution": 1.0, "epsilon": 1e-4, "contrast": 0.9, "p_value": 0.0476}
    values |= {"verdict": "supported", "reason": "clearer than in null graphs", "links": ()}
    values |= {"cuts": ("layers.0", "layers.1"), "output": "neuron"}
    return PartitionDetail(**{**ORIGIN, **OF, **values, "modules": (module(0), module(1)), **changes})


def layer(name: str = "layers.0", **changes: Any) -> dict[str, Any]:
    values = {"name": name, "nominal": 1234, "activations": 300, "jacobians": 20, "gating": 10, "synchronised": 4}
    values |= {"gram_rank": 12, "n_inputs": 16, "jacobian_rank": 9, "n_outputs": 10, "dead": 1}
    return {**values, "kronecker": {"cosine": 0.98765, "error": 0.01}, **changes}


def ledger(**changes: Any) -> LedgerRow:
    values = {"id": "l-01234567", "checkpoint": "c-01234567", "dataset": "d-01234567", "ledger_sha256": HASH}
    values |= {"nominal": 2000, "activations": 500, "jacobians": 250, "gating": 20, "synchronised": 10, "tied": 0}
    values |= {"unexplained": 220, "effective": 1000, "method": "exact", "lower": 1000, "upper": 1000, "soft": None}
    values |= {"epsilon": None, "tolerance": 1e-10, "n": 400, "warning": None, "layers": (layer(),)}
    return LedgerRow(**{**ORIGIN, **OF, **values, **changes})


def point(**changes: Any) -> dict[str, Any]:
    """The numbers of a learning coefficient at one loss scale."""
    found = {"r_hat": 1.0123, "ess": 400.0, "chains": 4, "draws": 500, "virial": 1.02, "virial_error": 0.03}
    found |= {"heat": 0.97, "acceptance": None, "soft_rank": 4.75, "prior": 0.125, "below": None}
    values = {"epsilon": 1e-3, "n_effective": 9.0, "standard_error": 0.25, "lower": 4.0, "upper": 5.0}
    return {**values, "verdict": "reliable", "diagnostics": {**found, **changes.pop("diagnostics", {})}, **changes}


def llc(**changes: Any) -> LlcRow:
    values = {"id": "l-76543210", "checkpoint": "c-01234567", "dataset": "d-01234567", "llc_sha256": HASH}
    values |= {"mode": "point", "loss": "mse", "value": 4.5, "standard_error": 0.25, "lower": 4.0, "upper": 5.0}
    values |= {"epsilon": 1e-3, "temperature": 5500.0, "n_parameters": 2600, "n": 400, "verdict": "reliable"}
    values |= {"reason": "the chains mixed", "r_hat": 1.0123, "ess": 400.0, "kernel": "hmc"}
    return LlcRow(**{**ORIGIN, **OF, **values, "preconditioner": "lanczos", "points": (point(),), **changes})


def outcome(name: str, removed: int, values: dict[str, Any], controls: dict[str, Any] | None = None) -> dict[str, Any]:
    """A row of an experiment, `values` as (value, standard error), `controls` as (value, spread, p)."""
    found = {metric: {"value": value, "standard_error": error} for metric, (value, error) in values.items()}
    beside = {
        metric: {"value": value, "spread": spread, "draws": 20, "p_value": p}
        for metric, (value, spread, p) in (controls or {}).items()
    }
    return {"name": name, "removed": removed, "values": found, "controls": beside}


def experiment(kind: str = "isolate", summary: dict[str, Any] | None = None, **changes: Any) -> ExperimentRow:
    """An experiment; by default one whose edges between two modules are cut."""
    if summary is None:
        rows = [outcome("whole", 0, {"mse": (0.0, 0.0)}), outcome("no edges", 12, {"mse": (2.0, 0.1)})]
        rows += [outcome("isolated", 5, {"mse": (0.125, 0.0312)}, {"mse": (1.5, 0.25, 0.0476)})]
        matched = {"mse": {"value": 0.5, "spread": 0.2, "draws": 20, "p_value": 0.0952}}
        summary = {"rows": rows, "n_modules": 2, "cut_edges": [2, 3], "n_edges": [4, 8], "matched": matched}
    values = {"id": "e-01234567", "checkpoint": "c-01234567", "graph": "g-01234567", "partition": "p-01234567"}
    values |= {"experiment_sha256": HASH, "experiment": kind, "metric": "loss", "n": 1000, "held_out": True}
    values |= {"value": 0.125, "standard_error": 0.0312, "control": 0.5, "p_value": 0.0952, "summary": summary}
    values |= {"verdict": "supported", "reason": "nodes follow their own modules"}
    return ExperimentRow(**{**ORIGIN, **OF, **values, **changes})


def description(**changes: Any) -> DescriptionRow:
    """A description that has all its cards."""
    values = {"id": "x-01234567", "checkpoint": "c-01234567", "graph": "g-01234567", "partition": "p-01234567"}
    values |= {"description_sha256": HASH, "n": 400, "n_cards": 9, "n_nodes": 9}
    values |= {"modules": ({"module": 0, "size": 5, "summary": "reads [left]"},)}
    return DescriptionRow(**{**ORIGIN, **OF, **values, **changes})


def comparison(**changes: Any) -> ComparisonRow:
    """A comparison with another partition of the same graph."""
    values = {"id": "v-01234567", "checkpoint": "c-01234567", "graph": "g-01234567", "partition": "p-01234567"}
    values |= {"other": "p-76543210", "name": "p-76543210", "matched_by": "place", "n_nodes": 9, "z": 3.5}
    values |= {"only_first": 0, "only_second": 1, "left_out": 2, "comparison_sha256": HASH, "n_permutations": 99}
    values |= {
        "ami": 0.5,
        "ari": 0.25,
        "ami_by_chance": 0.0,
        "ari_by_chance": 0.0,
        "p_value": 0.01,
        "ari_p_value": 0.01,
    }
    values |= {"verdict": "agree more than chance", "reason": "AMI 0.500, p = 0.01"}
    values |= {"matches": ({"first": "0", "second": "1", "shared": 4, "jaccard": 0.8},)}
    return ComparisonRow(**{**ORIGIN, **OF, **values, **changes})


def step(t: int = 0, **changes: Any) -> TrackingStep:
    values = {"checkpoint": f"c-{t:08}", "graph": f"g-{t:08}", "step": 100 * t, "label": None}
    return TrackingStep(**{**values, "tracks": (0, 1), "sizes": (4, 3), "churn": 0.25 if t else None, **changes})


def tracking(**changes: Any) -> TrackingDetail:
    values = {"id": "t-01234567", "tracking_sha256": HASH, "n_checkpoints": 2, "n_tracks": 2, "churn": 0.25}
    values |= {"run": "r-01234567"}
    return TrackingDetail(**{**ORIGIN, **values, "events": (), "steps": (step(0), step(1)), **changes})


def job(**changes: Any) -> JobRow:
    values = {"id": "j-01234567", "task": "track", "target": "m-01234567", "choices": {}, "queue": "default"}
    values |= {"priority": 0, "timeout": None, "state": "queued", "run": 1, "attempts": 0, "interruptions": 0}
    values |= {"cancelling": False, "worker": None, "step": None, "fraction": None, "message": "", "remaining": None}
    values |= {"error": None, "results": (), "created": THEN, "started": None, "finished": None, "version": 1}
    return JobRow(**{**values, **changes})


def schedule(**changes: Any) -> ScheduleRow:
    values = {"id": "s-01234567", "task": "track", "model": "digits", "cron": "0 2 * * *", "folder": None}
    values |= {"choices": {}, "queue": "default", "priority": 0, "timeout": None, "paused": False, "next_run": THEN}
    return ScheduleRow(**{**values, "last_run": None, "jobs": (), "error": None, "created": THEN, **changes})


def token(**changes: Any) -> TokenRow:
    return TokenRow(**{"id": "t-01234567", "name": "ci", "scope": "read", "revoked": None, "created": THEN} | changes)


def new_token(**changes: Any) -> NewToken:
    values = {"id": "t-01234567", "name": "ci", "scope": "read", "revoked": None, "created": THEN}
    return NewToken(**{**values, "token": "ib_t-01234567_secret", **changes})


def worker(**changes: Any) -> WorkerRow:
    values = {"id": "w", "host": "h", "pid": 1, "started": THEN, "heartbeat": THEN, "alive": True}
    return WorkerRow(**{**values, **changes})


ROWS: dict[str, Any] = {
    "models": model,
    "runs": run,
    "checkpoints": checkpoint,
    "datasets": dataset,
    "graphs": graph,
    "partitions": partition,
    "ledgers": ledger,
    "llc": llc,
    "experiments": experiment,
    "descriptions": description,
    "comparisons": comparison,
    "trackings": tracking,
    "jobs": job,
    "schedules": schedule,
    "tokens": token,
}
"""For each kind that can be listed, what makes a row of it."""
