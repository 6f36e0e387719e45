"""Circuit experiments by name: one recipe, one run, one result that can be stored."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field
from torch import Tensor

from ..basis.bases import Bases
from ..basis.moments import collect
from ..checkpoints.datasets import Dataset
from ..fields import Count, Natural, NotNegative, settle_fields
from ..graph.interaction_graph import InteractionGraph
from ..modules.partition import Partition
from ..network.batches import Batch, batch_size, tensors
from ..network.network import Network
from ..notebook.bars import with_bar
from ..notebook.tables import Columns, html_table
from ..progress import ProgressCallback
from ..results import Result, decode, encode
from .ablation import Isolation, ModuleAblation, ablate_modules, isolate_modules
from .adversarial.ascent import Budget
from .adversarial.searched import WorstCut
from .bisection import EdgeBisection, bisect_edges
from .controls import Control, Outcome
from .faithfulness import Faithfulness, circuit_faithfulness
from .metrics import BEHAVIOURAL, Estimate
from .mixing import Mixing
from .order import read_in_order
from .prediction import LinkCut, Prediction, predict_losses

__all__ = ["KINDS", "Experiment", "ExperimentRecipe", "ExperimentResult", "run_experiment"]

ExperimentResult: TypeAlias = Isolation | ModuleAblation | Faithfulness | EdgeBisection | Prediction

KINDS = ("modules", "isolate", "faithfulness", "bisect", "epsilon", "predict")

"""Kinds of experiments; "epsilon" is "bisect", after which its loss scales divide the graph anew."""

_MOST_IN_SUMMARY = 4096  # largest table to show; larger ones are only in the file

_DRAWS = {"isolate": 20, "modules": 20, "faithfulness": 20, "bisect": 20, "epsilon": 20, "predict": 5}

_COLUMNS = (
    *("intervention", "removed", "metric", "value", "standard_error"),
    *("change", "change_error", "random", "p_value"),
)

_STORED: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Control,
        EdgeBisection,
        Estimate,
        Faithfulness,
        Isolation,
        LinkCut,
        Mixing,
        ModuleAblation,
        Outcome,
        Prediction,
        WorstCut,
    )
}

_CUTTING = ("isolate", "modules", "bisect", "epsilon")  # kinds that say of edges that they are not needed

_Steps = Annotated[
    tuple[Count, ...],
    Field(min_length=1, description="a list of numbers of steps that ascend, like [20, 80]"),
]


@dataclass(frozen=True)
class ExperimentRecipe:
    """Choices that fix an experiment on a partition.

    Attributes:
        kind: one of `KINDS`.
        metric: "loss" (behavioural), or one of `metrics.METRICS`; None: accuracy where the targets are given and are
            classes, else, and for "predict", the loss.
        tolerance: tolerance of the metric, for "bisect" and "epsilon"; ignored in the others.
        draws: number of random interventions; None for 20, with "predict" 5.
        replacement: replacement of ablated nodes, see `interventions.REPLACEMENTS`.
        adversarial: numbers of steps of projected gradient ascent to the worst partial cut, see `adversarial`, for
            "isolate", "modules", "bisect" and "epsilon"; None: it is not searched for.
        seed: seed of resampling and of the random interventions.

    Raises:
        InputError: a word that is not among those of the annotation, or a number out of range.

    >>> ExperimentRecipe(kind="bisect").tolerance
    0.001
    """

    kind: Literal["isolate", "modules", "faithfulness", "bisect", "epsilon", "predict"] = "modules"
    metric: Literal["loss", "mse", "kl", "accuracy", "cross_entropy"] | None = None
    tolerance: NotNegative = 1e-3
    draws: Natural | None = None
    replacement: Literal["mean", "zero", "resample"] = "mean"
    adversarial: _Steps | None = None
    seed: Natural = 0

    def __post_init__(self) -> None:
        settle_fields(self)
        Budget.of(self.adversarial)

    @property
    def choices(self) -> dict[str, Any]:
        """The choices that have an effect in this kind of experiment."""
        idle = {"tolerance"} if self.kind not in ("bisect", "epsilon") else set()
        if self.adversarial is None or self.kind not in _CUTTING:
            idle.add("adversarial")
        return {name: value for name, value in asdict(self).items() if name not in idle}

    @property
    def sha256(self) -> str:
        """Hash of all choices that have an effect."""
        return hashlib.sha256(json.dumps(self.choices, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Experiment(Result):
    """An experiment on a partition, and its result.

    Attributes:
        kind: one of `KINDS`.
        metric: the name of the requested metric.
        n: number of data points.
        held_out: whether the basis was built from other data.
        result: `Isolation`, `ModuleAblation`, `Faithfulness`, `EdgeBisection` or `Prediction`.
    """

    kind: str
    metric: str
    n: int
    held_out: bool
    result: ExperimentResult

    def __repr__(self) -> str:
        """Describe kind, metric, data and verdict in one line; `headline` and `outcomes` have the numbers."""
        where = "held-out data points" if self.held_out else "data points of the basis"
        return f"Experiment: {self.kind}, {self.metric}, {self.n:,} {where}: {self.verdict or 'untested'}"

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """All measured outcomes, one a row, the whole network first."""
        r = self.result
        if isinstance(r, Isolation):
            return (r.whole, r.ablated, r.isolated, *(each.worst for each in r.worst))
        if isinstance(r, ModuleAblation):
            return (r.whole, r.nothing, *r.without, *r.alone, *(each.worst for each in r.worst))
        if isinstance(r, Faithfulness):
            return (r.whole, r.ablated)
        if isinstance(r, EdgeBisection):
            return (r.whole, r.ablated, *r.pairs, r.jointly, *(each.worst for each in r.worst))
        return (r.whole, r.ablated, *(link.measured for link in r.links))

    @property
    def measured(self) -> str:
        """The name of the metric in the outcomes: "loss" is the behavioural one, "mse" or "kl"."""
        names = self.result.whole.values
        return self.metric if self.metric in names else next(name for name in BEHAVIOURAL if name in names)

    @property
    def verdict(self) -> str | None:
        """The verdict on the hypothesis, see `controls.Verdict`; None for results of version 0.6 without one."""
        return self.result.verdict

    @property
    def reason(self) -> str | None:
        """The reason for the verdict, one sentence."""
        return self.result.reason

    @property
    def headline(self) -> tuple[float | None, float | None, float | None, float | None]:
        """The main number, its standard error, that of random interventions, and the p-value, where known.

        For "isolate" it is the change of the metric, compared with random cuts of as many edges of the same strengths;
        for "modules" the selectivity, compared with the mean of the null graphs (see `mixing`; in results without it
        the change without the module that costs most); for "faithfulness" the CPR; for "bisect" and "epsilon" the
        edges jointly required; for "predict" the rank correlation.
        """
        r = self.result
        if isinstance(r, Isolation):
            return _change(r.isolated, r.whole, self.measured, r.matched)
        if isinstance(r, ModuleAblation) and r.mixing is not None:
            random = float(np.mean(r.mixing.null)) if r.mixing.null else None
            return min(r.mixing.selectivity, r.mixing.predicted), None, random, r.mixing.p_value
        if isinstance(r, ModuleAblation):
            return max(
                (_change(row, r.whole, self.measured) for row in r.without), key=lambda found: abs(found[0] or 0.0)
            )
        if isinstance(r, Faithfulness):
            random = float(np.mean(r.random_cpr)) if r.random_cpr else None
            return r.cpr.value, r.cpr.standard_error, random, r.p_value if r.random_cpr else None
        if isinstance(r, EdgeBisection):
            beside = r.jointly.controls.get(r.metric)
            return float(sum(r.jointly_required)), None, None, beside.p_value if beside else None
        return r.spearman, None, None, None

    def summary(self) -> dict[str, Any]:
        """The numbers to show as JSON values: `rows`, and entries particular to the kind.

        For "modules" these include the tables of classes and outputs, unless large, and the data points that suffer
        most.
        """
        particular = {
            f.name: getattr(self.result, f.name)
            for f in fields(self.result)
            if f.name not in ("curves", "random", "losses", "random_cmd", "worst")
        }
        particular = {
            name: value for name, value in particular.items() if getattr(value, "size", 0) <= _MOST_IN_SUMMARY
        }
        plain = {name: value for name, value in _packed(particular, None).items() if not _holds_rows(value)}
        if isinstance(self.result, ModuleAblation):
            plain["inputs"] = _packed(self.result.inputs, None)
            plain["parts"] = _packed(self.result.parts, None)
        if worst := getattr(self.result, "worst", ()):
            left_out = ("worst", "shares")  # the one is a row, the other only in the file
            kept = [f.name for f in fields(WorstCut) if f.name not in left_out]
            plain["worst"] = [{name: _packed(getattr(each, name), None) for name in kept} for each in worst]
        if isinstance(self.result, Prediction):
            names = ("earlier", "later", "predicted")
            plain["links"] = [{name: getattr(link, name) for name in names} for link in self.result.links]
        return {"rows": [_packed(asdict(row), None) for row in self.outcomes], **plain}

    def _columns(self) -> Columns:
        """Return a row per intervention and metric; where there were random interventions, with their mean and p."""
        rows = []
        for outcome in self.outcomes:
            for metric, found in outcome.values.items():
                beside = outcome.controls.get(metric)
                change = outcome.changes[metric]
                random = (beside.value, beside.p_value) if beside else (None, None)
                numbers = (found.value, found.standard_error, change.value, change.standard_error)
                rows.append((outcome.name, outcome.removed, metric, *numbers, *random))
        return dict(zip(_COLUMNS, zip(*rows, strict=True), strict=True))

    def _repr_html_(self) -> str:
        """Return a table of the interventions, and the verdict with its reason."""
        where = "held-out data points" if self.held_out else "data points of the basis"
        notes = [f"Verdict: {self.verdict or 'untested'}" + (f" ({self.reason})" if self.reason else "")]
        return html_table(f"Experiment {self.kind}, {self.n:,} {where}", self._columns(), notes)

    def to_bytes(self) -> bytes:
        """Return the content of the file that `save` writes."""
        arrays: dict[str, np.ndarray] = {}
        about = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("kind", "result")}
        about |= {"experiment": self.kind, "result": _packed(self.result, arrays)}
        about |= {"verdict": self.verdict, "reason": self.reason}
        return encode("experiment", arrays, about)

    @classmethod
    def from_bytes(cls, data: bytes) -> Experiment:
        """Rebuild an experiment from `to_bytes`."""
        arrays, meta = decode("experiment", data)
        return cls(meta["experiment"], meta["metric"], meta["n"], meta["held_out"], _unpacked(meta["result"], arrays))


@with_bar
def run_experiment(
    net: Network,
    bases: Bases,
    graph: InteractionGraph,
    *,
    partition: Partition,
    data: Dataset | Iterable[Batch],
    recipe: ExperimentRecipe,
    targets: Tensor | Sequence[Tensor] | None = None,
    held_out: bool | None = None,
    progress: ProgressCallback | None = None,
) -> Experiment:
    """Run an experiment by its recipe.

    Args:
        net: the network.
        bases: bases of all its cuts.
        graph: graph built from them.
        partition: partition of the graph.
        data: held-out data: a `Dataset`, with targets where the metric needs them, or batches of any kind that the
            network takes, such as mappings of tokens and masks.
        recipe: the choices of the experiment.
        targets: targets of batches; see `Interventions`.
        held_out: whether the basis was built from other data; stored with the result. None: whether the mean
            activation at the first cut is another one.
        progress: called after each measurement.

    Raises:
        GraphError: partition, graph and network do not belong together.
        DataError: data or targets that do not fit.
    """
    data = data if isinstance(data, Dataset) else read_in_order(data)
    given = data.targets if isinstance(data, Dataset) and targets is None else targets
    classes = given is not None and not any(part.is_floating_point() for part in tensors(given))
    metric = recipe.metric or ("accuracy" if classes and recipe.kind != "predict" else "loss")
    draws = _DRAWS[recipe.kind] if recipe.draws is None else recipe.draws
    options: dict[str, Any] = {"draws": draws, "replacement": recipe.replacement, "seed": recipe.seed}
    options |= {"targets": targets, "progress": progress}
    if recipe.kind in _CUTTING:
        options["adversarial"] = recipe.adversarial
    result: ExperimentResult
    if recipe.kind == "isolate":
        result = isolate_modules(net, bases, graph, partition, data, metrics=[metric], **options)
    elif recipe.kind == "modules":
        result = ablate_modules(net, bases, graph, partition, data, metrics=[metric], **options)
    elif recipe.kind == "predict":
        result = predict_losses(net, bases, graph, partition=partition, batches=data, metric=metric, **options)
    elif recipe.kind == "faithfulness":
        result = circuit_faithfulness(net, bases, graph, batches=data, metric=metric, **options)
    else:
        result = bisect_edges(net, bases, graph, batches=data, metric=metric, tolerance=recipe.tolerance, **options)
    if held_out is None:
        held_out = _differs(net, bases, data)
    return Experiment(recipe.kind, metric, sum(map(batch_size, data)), held_out, result)


def _differs(net: Network, bases: Bases, data: Iterable[Batch]) -> bool:
    """Return whether the mean activation at the first cut is not that of the data that the basis was built from."""
    cut = net.cuts[0]
    before, here = bases[cut].mean, collect(net, data, jacobians=False).activations[cut].centre.numpy()
    return before.shape != here.shape or not np.allclose(before, here, rtol=1e-5, atol=1e-6 * np.abs(before).max())


def _change(
    row: Outcome, whole: Outcome, name: str, controls: Mapping[str, Control] | None = None
) -> tuple[float | None, float | None, float | None, float | None]:
    """Return the change of a metric, its error, that of the controls (default: the row's), and the p-value."""
    beside = (row.controls if controls is None else controls).get(name)
    change = row.changes[name]
    random = beside.value - whole.values[name].value if beside else None
    return change.value, change.standard_error, random, beside.p_value if beside else None


def _packed(value: Any, arrays: dict[str, np.ndarray] | None) -> Any:
    """Convert nested results to JSON; arrays go into a separate mapping, or (None) become lists."""
    if isinstance(value, np.ndarray):
        if arrays is None:
            return [_packed(item, None) for item in value.tolist()]
        arrays[name := str(len(arrays))] = value
        return {"@array": name}
    if is_dataclass(value) and not isinstance(value, type):
        packed = {f.name: _packed(getattr(value, f.name), arrays) for f in fields(value)}
        return packed if arrays is None else {"@": type(value).__name__, **packed}
    if isinstance(value, Mapping):
        return {key: _packed(item, arrays) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_packed(item, arrays) for item in value]
    if isinstance(value, float) and arrays is None and not math.isfinite(value):
        return None
    return value


def _unpacked(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict) and "@array" in value:
        return arrays[value["@array"]]
    if isinstance(value, dict):
        found = {key: _unpacked(item, arrays) for key, item in value.items() if key != "@"}
        return _STORED[value["@"]](**found) if "@" in value else found
    if isinstance(value, list):
        return tuple(_unpacked(item, arrays) for item in value)
    return value


def _holds_rows(value: Any) -> bool:
    """Return whether a value is, or contains, an outcome, which is a row already."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and ("removed" in first or "measured" in first)
