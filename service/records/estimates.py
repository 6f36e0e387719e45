"""What is measured of a network: parameter ledgers, learning coefficients, circuit experiments, and descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from .base import Kind, Provenance, Record, Sha256, Time
from .checkpoints import CheckpointId, DatasetId, Label, ModelName, RunIdOrNone, RunNumber, Step
from .graphs import GraphId
from .partitions import PartitionId

__all__ = [
    "DESCRIPTION",
    "EXPERIMENT",
    "LEDGER",
    "LLC",
    "CardValues",
    "DescriptionRow",
    "DescriptionValues",
    "ExperimentRow",
    "ExperimentValues",
    "LedgerRow",
    "LedgerValues",
    "LlcRow",
    "LlcValues",
]

_LEDGER, _LLC, _EXPERIMENT, _DESCRIPTION = "l-5e6f7a8b", "n-1a2b3c4d", "e-1a2b3c4d", "x-1a2b3c4d"

DataPoints = Annotated[int, Field(examples=[4000])]


@dataclass(frozen=True, kw_only=True)
class LedgerValues(Record):
    """Numbers of a parameter ledger that queries use; see `interbasis.analysis.Ledger`.

    Attributes:
        method: how the rank of the Hessian was computed: "exact", "lanczos" or "sampled".
        lower, upper: bounds of the rank; equal where it is exact.
        soft: soft rank at epsilon; None without one.
        layers: name, sizes, ranks, free directions by cause and Kronecker fit of each layer, as JSON objects.
    """

    nominal: Annotated[int, Field(examples=[9524])]
    activations: Annotated[int, Field(examples=[840])]
    jacobians: Annotated[int, Field(examples=[1347])]
    gating: Annotated[int, Field(examples=[0])]
    synchronised: Annotated[int, Field(examples=[81])]
    tied: Annotated[int, Field(examples=[0])]
    unexplained: Annotated[int, Field(examples=[0])]
    effective: Annotated[int, Field(examples=[7256])]
    method: Annotated[str, Field(examples=["sampled"])]
    lower: Annotated[int, Field(examples=[2048])]
    upper: Annotated[int, Field(examples=[7256])]
    soft: Annotated[float | None, Field(examples=[None])]
    epsilon: Annotated[float | None, Field(examples=[None])]
    tolerance: Annotated[float, Field(examples=[1e-10])]
    n: DataPoints
    warning: Annotated[str | None, Field(examples=[None])]
    layers: Annotated[tuple[dict[str, Any], ...], Field(examples=[[{"name": "layers.0.linear", "nominal": 6192}]])]


@dataclass(frozen=True, kw_only=True)
class LedgerRow(LedgerValues, Provenance):
    """A stored parameter ledger.

    Attributes:
        model: name of the model.
        checkpoint, dataset: their IDs.
        ledger_sha256: the artifact.
        step, label: those of the checkpoint.
        run, run_number: ID and number of the checkpoint's run.
    """

    recipe: Annotated[Mapping[str, Any], Field(examples=[{"loss": "mse", "method": "auto", "seed": 0}])]
    id: Annotated[str, Field(examples=[_LEDGER])]
    model: ModelName
    checkpoint: CheckpointId
    dataset: DatasetId
    ledger_sha256: Sha256
    created: Time
    step: Step = None
    label: Label = None
    run: RunIdOrNone = None
    run_number: RunNumber = None


LEDGER = Kind(
    name="ledger",
    plural="ledgers",
    row=LedgerRow,
    detail=LedgerRow,
    listing="List parameter ledgers, all or those of a model, a run or a checkpoint.",
    single="Return a parameter ledger.",
    example=_LEDGER,
    owners=("checkpoint", "dataset"),
    filters=("model", "run", "checkpoint"),
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

    mode: Annotated[str, Field(examples=["point"])]
    loss: Annotated[str, Field(examples=["mse"])]
    value: Annotated[float | None, Field(examples=[145.3])]
    standard_error: Annotated[float | None, Field(examples=[0.7])]
    lower: Annotated[float | None, Field(examples=[143.9])]
    upper: Annotated[float | None, Field(examples=[146.7])]
    epsilon: Annotated[float | None, Field(examples=[0.0025])]
    temperature: Annotated[float | None, Field(examples=[5500.0])]
    n_parameters: Annotated[int, Field(examples=[9524])]
    n: DataPoints
    verdict: Annotated[str, Field(examples=["reliable"])]
    reason: Annotated[
        str, Field(examples=["R-hat 1.003, 812 effective draws, virial 1.002, soft rank of the quadratic 291.4"])
    ]
    r_hat: Annotated[float | None, Field(examples=[1.003])]
    ess: Annotated[float | None, Field(examples=[812.0])]
    kernel: Annotated[str, Field(examples=["hmc"])]
    preconditioner: Annotated[str, Field(examples=["gauss-newton"])]
    points: Annotated[
        tuple[dict[str, Any], ...], Field(examples=[[{"epsilon": 0.0025, "value": 145.3, "verdict": "reliable"}]])
    ]


@dataclass(frozen=True, kw_only=True)
class LlcRow(LlcValues, Provenance):
    """A stored learning coefficient.

    Attributes:
        model: name of the model.
        checkpoint, dataset: their IDs.
        llc_sha256: the artifact.
        step, label: those of the checkpoint.
        run, run_number: ID and number of the checkpoint's run.
    """

    recipe: Annotated[Mapping[str, Any], Field(examples=[{"loss": "mse", "epsilon": 0.0025, "seed": 0}])]
    id: Annotated[str, Field(examples=[_LLC])]
    model: ModelName
    checkpoint: CheckpointId
    dataset: DatasetId
    llc_sha256: Sha256
    created: Time
    step: Step = None
    label: Label = None
    run: RunIdOrNone = None
    run_number: RunNumber = None

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
    listing="List learning coefficients, all or those of a model, a run or a checkpoint.",
    single="Return a learning coefficient at one loss scale, or a curve over many, with its verdict.",
    example=_LLC,
    owners=("checkpoint", "dataset"),
    filters=("model", "run", "checkpoint"),
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

    experiment: Annotated[str, Field(examples=["modules"])]
    metric: Annotated[str, Field(examples=["accuracy"])]
    n: DataPoints
    held_out: Annotated[bool, Field(examples=[True])]
    value: Annotated[float | None, Field(examples=[0.62])]
    standard_error: Annotated[float | None, Field(examples=[0.03])]
    control: Annotated[float | None, Field(examples=[-0.31])]
    p_value: Annotated[float | None, Field(examples=[0.0476])]
    summary: Annotated[dict[str, Any], Field(examples=[{"rows": [], "n_modules": 2}])]
    verdict: Annotated[str | None, Field(examples=["supported"])] = None
    reason: Annotated[
        str | None,
        Field(
            examples=[
                "fed from two data points, nodes follow their modules: selectivity 0.62 (1: nothing from other "
                "modules, 0: chance), of 20 divided null graphs at most 0.11, p 0.048"
            ]
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ExperimentRow(ExperimentValues, Provenance):
    """A stored circuit experiment.

    Attributes:
        model: name of the model.
        checkpoint, graph, partition: their IDs.
        experiment_sha256: the artifact.
        step, label: those of the checkpoint.
        run, run_number: ID and number of the checkpoint's run.
    """

    recipe: Annotated[Mapping[str, Any], Field(examples=[{"kind": "modules", "metric": "accuracy", "seed": 0}])]
    id: Annotated[str, Field(examples=[_EXPERIMENT])]
    model: ModelName
    checkpoint: CheckpointId
    graph: GraphId
    partition: PartitionId
    experiment_sha256: Sha256
    created: Time
    step: Step = None
    label: Label = None
    run: RunIdOrNone = None
    run_number: RunNumber = None


EXPERIMENT = Kind(
    name="experiment",
    plural="experiments",
    row=ExperimentRow,
    detail=ExperimentRow,
    listing="List circuit experiments, all or those of a model, a run, a checkpoint or a partition.",
    single="Return a circuit experiment, with every row of its summary.",
    example=_EXPERIMENT,
    owners=("partition",),
    filters=("model", "run", "checkpoint", "partition"),
    values=ExperimentValues,
    files={"experiment": "Download the whole experiment, for `Experiment.from_bytes`."},
)


_SUMMARY = {"module": 0, "size": 28, "summary": "28 nodes at 4 cuts; left picture; answers 0:0 to 0:9"}


@dataclass(frozen=True, kw_only=True)
class CardValues(Record):
    """One card, of a node or a module; see `interbasis.analysis.meaning.Card`.

    Attributes:
        cut, node: the node; None on the card of a module.
        module: the module, or that of the node; None where a node is in none.
        summary: one line, made by rule from what is on the card.
        content: all that is on the card, with the inputs of its examples.
    """

    cut: Annotated[str | None, Field(examples=["layers.1"])]
    node: Annotated[int | None, Field(examples=[7])]
    module: Annotated[int | None, Field(examples=[0])]
    summary: Annotated[str, Field(examples=["left picture; more of 0:3"])]
    content: Annotated[dict[str, Any], Field(examples=[{"variance": 1.2, "importance": 1.7}])]


@dataclass(frozen=True, kw_only=True)
class DescriptionValues(Record):
    """What queries use of a description.

    Attributes:
        n: number of data points.
        n_cards: cards of nodes that there are.
        n_nodes: nodes of the graph; more than cards while a job writes them, or after it was stopped.
        modules: number, size and summary of each module, once all cards are written.
    """

    n: Annotated[int, Field(examples=[4000])]
    n_cards: Annotated[int, Field(examples=[119])]
    n_nodes: Annotated[int, Field(examples=[119])]
    modules: Annotated[tuple[dict[str, Any], ...], Field(examples=[[_SUMMARY]])]


@dataclass(frozen=True, kw_only=True)
class DescriptionRow(DescriptionValues, Provenance):
    """A stored description.

    Attributes:
        model: name of the model.
        checkpoint, graph, partition: their IDs.
        description_sha256: the artifact.
        step, label: those of the checkpoint.
        run, run_number: ID and number of the checkpoint's run.
    """

    recipe: Annotated[Mapping[str, Any], Field(examples=[{"examples": 8, "seed": 0}])]
    id: Annotated[str, Field(examples=[_DESCRIPTION])]
    model: ModelName
    checkpoint: CheckpointId
    graph: GraphId
    partition: PartitionId
    description_sha256: Sha256
    created: Time
    step: Step = None
    label: Label = None
    run: RunIdOrNone = None
    run_number: RunNumber = None

    @property
    def whole(self) -> bool:
        """Whether all cards are written."""
        return self.n_cards == self.n_nodes


DESCRIPTION = Kind(
    name="description",
    plural="descriptions",
    row=DescriptionRow,
    detail=DescriptionRow,
    listing="List descriptions without their cards, all or those of a model, a run, a checkpoint or a partition.",
    single="Return a description, with a line on each module; `/partitions/{ref}/cards` lists the cards.",
    example=_DESCRIPTION,
    owners=("partition",),
    filters=("model", "run", "checkpoint", "partition"),
    values=DescriptionValues,
    files={"description": "Download all cards in one file, for `Cards.from_bytes`."},
)
