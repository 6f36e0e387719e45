"""Parameter ledgers, learning coefficients and circuit experiments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .base import Kind, Provenance, Record

__all__ = [
    "EXPERIMENT",
    "LEDGER",
    "LLC",
    "ExperimentRow",
    "ExperimentValues",
    "LedgerRow",
    "LedgerValues",
    "LlcRow",
    "LlcValues",
]


@dataclass(frozen=True, kw_only=True)
class LedgerValues(Record):
    """Numbers of a parameter ledger that queries use; see `interbasis.analysis.Ledger`.

    Attributes:
        method: how the rank of the Hessian was computed: "exact", "lanczos" or "sampled".
        lower, upper: bounds of the rank; equal where it is exact.
        soft: soft rank at epsilon; None without one.
        layers: name, sizes, ranks, free directions by cause and Kronecker fit of each layer, as JSON objects.
    """

    nominal: int
    activations: int
    jacobians: int
    gating: int
    synchronised: int
    tied: int
    unexplained: int
    effective: int
    method: str
    lower: int
    upper: int
    soft: float | None
    epsilon: float | None
    tolerance: float
    n: int
    warning: str | None
    layers: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class LedgerRow(LedgerValues, Provenance):
    """A stored parameter ledger.

    Attributes:
        model: name of the model.
        checkpoint, dataset: their IDs.
        ledger_sha256: the artifact.
    """

    id: str
    model: str
    checkpoint: str
    dataset: str
    ledger_sha256: str
    created: datetime


LEDGER = Kind(
    name="ledger",
    plural="ledgers",
    row=LedgerRow,
    detail=LedgerRow,
    listing="List parameter ledgers, all or those of a model or a checkpoint.",
    single="Return a parameter ledger.",
    owners=("checkpoint", "dataset"),
    filters=("model", "checkpoint"),
    values=LedgerValues,
    files={"ledger": "Download the whole ledger, for `Ledger.from_bytes`."},
)


@dataclass(frozen=True, kw_only=True)
class LlcValues(Record):
    """Numbers of a learning coefficient that queries use; see `interbasis.analysis.llc`. None stands for NaN.

    Attributes:
        mode: "point" or "curve"; the numbers of a curve are those at its smallest loss scale.
        loss: behavioural loss, "mse" or "kl".
        value, standard_error, lower, upper: lambda and its 95 % interval.
        epsilon, temperature: loss scale of the estimate, and n beta.
        n_parameters, n: number of varied parameters, and of data points.
        verdict, reason: of the whole estimate; r_hat, ess: of the loss; kernel, preconditioner: as run.
        points: numbers and diagnostics at each loss scale, as JSON objects; a curve also has log_volume.
    """

    mode: str
    loss: str
    value: float | None
    standard_error: float | None
    lower: float | None
    upper: float | None
    epsilon: float | None
    temperature: float | None
    n_parameters: int
    n: int
    verdict: str
    reason: str
    r_hat: float | None
    ess: float | None
    kernel: str
    preconditioner: str
    points: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class LlcRow(LlcValues, Provenance):
    """A stored learning coefficient.

    Attributes:
        model: name of the model.
        checkpoint, dataset: their IDs.
        llc_sha256: the artifact.
    """

    id: str
    model: str
    checkpoint: str
    dataset: str
    llc_sha256: str
    created: datetime

    @property
    def n_effective(self) -> float | None:
        """Effective number of parameters, N_eff = 2 lambda."""
        return None if self.value is None else 2 * self.value

    def to_json(self) -> dict[str, Any]:
        """Return all fields and `n_effective` as JSON-ready values."""
        return super().to_json() | {"n_effective": self.n_effective}


LLC = Kind(
    name="llc",
    plural="llc",
    row=LlcRow,
    detail=LlcRow,
    listing="List learning coefficients, all or those of a model or a checkpoint.",
    single="Return a learning coefficient at one loss scale, or a curve over many, with its verdict.",
    owners=("checkpoint", "dataset"),
    filters=("model", "checkpoint"),
    values=LlcValues,
    files={"llc": "Download the whole estimate with its traces."},
)


@dataclass(frozen=True, kw_only=True)
class ExperimentValues(Record):
    """Numbers of a circuit experiment that queries use; see `interbasis.analysis.Experiment`.

    Attributes:
        experiment: "modules", "isolate", "faithfulness", "bisect", "epsilon" or "predict".
        metric: the metric of the experiment.
        n: number of data points; held_out: whether they differ from those of the basis.
        value, standard_error: for "modules" the selectivity of data mixed between modules (in version 0.6 the change of
            the metric without the module that costs most), for "isolate" the change of the metric, for "faithfulness"
            the CPR, for "bisect" and "epsilon" the number of edges jointly required, for "predict" the rank
            correlation.
        control, p_value: the same for null graphs ("modules"), for as many edges of the same strengths cut at random
            ("isolate") or for random interventions of the same size, and how often these do as well.
        summary: every row and number, as a JSON object.
        verdict, reason: "supported", "not told apart from chance" or "refuted", and why, in one sentence; None for an
            experiment without a verdict, or stored by an earlier version.
    """

    experiment: str
    metric: str
    n: int
    held_out: bool
    value: float | None
    standard_error: float | None
    control: float | None
    p_value: float | None
    summary: dict[str, Any]
    verdict: str | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExperimentRow(ExperimentValues, Provenance):
    """A stored circuit experiment.

    Attributes:
        model: name of the model.
        checkpoint, graph, partition: their IDs.
        experiment_sha256: the artifact.
    """

    id: str
    model: str
    checkpoint: str
    graph: str
    partition: str
    experiment_sha256: str
    created: datetime


EXPERIMENT = Kind(
    name="experiment",
    plural="experiments",
    row=ExperimentRow,
    detail=ExperimentRow,
    listing="List circuit experiments, all or those of a model, a checkpoint or a partition.",
    single="Return a circuit experiment, with every row of its summary.",
    owners=("partition",),
    filters=("model", "checkpoint", "partition"),
    values=ExperimentValues,
    files={"experiment": "Download the whole experiment, for `Experiment.from_bytes`."},
)
