"""Results made by hand, one of every kind that has a figure, and what a figure shows once it is drawn."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from interbasis.analysis import (
    Experiment,
    InteractionGraph,
    LearningCoefficient,
    LearningCoefficientCurve,
    Ledger,
    Partition,
    SynchronisedUnits,
    Tracking,
    score_partition,
)
from interbasis.analysis.circuits.ablation import Isolation, ModuleAblation
from interbasis.analysis.circuits.bisection import EdgeBisection
from interbasis.analysis.circuits.controls import Control, Outcome
from interbasis.analysis.circuits.faithfulness import Faithfulness
from interbasis.analysis.circuits.metrics import Estimate
from interbasis.analysis.circuits.prediction import LinkCut, Prediction
from interbasis.analysis.degeneracy.counts import LayerLedger
from interbasis.analysis.degeneracy.hessian_rank import Fit, HessianRank
from interbasis.analysis.llc.diagnostics import ControlVariate, Diagnostics
from interbasis.analysis.modules.partition import ProfileRow
from interbasis.analysis.modules.tracking import Event
from interbasis.analysis.refined.coefficients import Part, RefinedCoefficients

EPSILON = 1.0


# --- results


def graph_of(*labels: Sequence[int], inside: float = 3.0, between: float = 0.5) -> InteractionGraph:
    """A graph whose nodes have the given modules per cut: strong edges inside a module, weak ones between modules."""
    cuts = [np.array(label) for label in labels]
    pairs = zip(cuts[:-1], cuts[1:], strict=True)
    return InteractionGraph.from_blocks([np.where(b[:, None] == a, inside, between) for a, b in pairs])


def partition_of(*labels: Sequence[int], **changes: Any) -> Partition:
    """The partition of `graph_of(*labels)` into these modules, with other fields where wanted."""
    return replace(score_partition(graph_of(*labels), [np.array(label) for label in labels], EPSILON), **changes)


def profile_row(objective: str, resolution: float, n_modules: int, **changes: Any) -> ProfileRow:
    """A row of a profile for which no null graph was searched."""
    given = {"quality": 1.0, "null_mean": None, "null_sd": None, "z": None, "gap": None, "edge_cost": 1.0}
    given |= {"contrast": 0.1 * n_modules, "description_length": -10.0 * n_modules, "significant": None}
    return ProfileRow(objective, resolution, n_modules, **{**given, **changes})


def tracking_of(
    *partitions: Partition, tracks: Sequence[tuple[int, ...]], flows: Sequence[Any] = (), events: Sequence[Event] = ()
) -> Tracking:
    """Partitions at steps 0, 1000, ... with their tracks and the nodes that pass between their modules."""
    names = tuple(f"step {1000 * t}" for t in range(len(partitions)))
    churn = (0.0,) * (len(partitions) - 1)
    return Tracking(
        names, partitions, tuple(tracks), tuple(np.array(f, dtype=float) for f in flows), churn, tuple(events)
    )


def layer_of(name: str, n_inputs: int, n_outputs: int, causes: Sequence[int]) -> LayerLedger:
    """A layer that loses this many directions to activations, Jacobians, gating and synchronisation."""
    ones = np.ones
    fit = Fit(0.0, 1.0, None)
    return LayerLedger(
        name, n_inputs, n_outputs, n_inputs, n_outputs, *causes, 0, 0, (), None, None, None, fit, ones(2), ones(2)
    )


def ledger_of(
    layers: Sequence[LayerLedger], unexplained: int = 0, *, method: str = "exact", below: int = 0, **changes: Any
) -> Ledger:
    """The ledger of these layers; the rank of the Hessian is known up to `below`."""
    names = ("activations", "jacobians", "gating", "synchronised")
    counts = {name: sum(getattr(layer, name) for layer in layers) for name in names}
    nominal = sum(layer.nominal for layer in layers)
    effective = nominal - sum(counts.values()) - unexplained
    rank = HessianRank(effective, method, None, effective - below, effective, None, 1.0)
    given = {**counts, "nominal": nominal, "tied": 0, "unexplained": unexplained, "effective": effective}
    given |= {
        "hessian": rank,
        "epsilon": None,
        "tolerance": 1e-10,
        "layers": tuple(layers),
        "units": (),
        "n": 10,
        "seed": 0,
    }
    return Ledger(**{**given, **changes})


def units_of(distances: Any, blocks: Sequence[tuple[int, ...]], **changes: Any) -> SynchronisedUnits:
    """Units of power 1, with these distances and blocks."""
    array = np.array(distances, dtype=float)
    given = {"power": np.ones(len(array)), "blocks": tuple(blocks), "always_on": None, "dead": ()}
    return SynchronisedUnits(layer="layers.0", slope=0.0, epsilon=None, distances=array, **{**given, **changes})


def parts_of(whole: LearningCoefficient, *modules: LearningCoefficient) -> RefinedCoefficients:
    """Coefficients of a network and of its modules."""
    parts = [Part("whole", "whole", whole)]
    parts += [Part(f"module {m}", "module", found, m) for m, found in enumerate(modules)]
    return RefinedCoefficients(tuple(parts), (), whole.epsilon, whole.temperature, whole.gamma, (), 0)


def coefficient_of(
    value: float, epsilon: float, verdict: str = "reliable", *, used: bool = False, chains: int = 2
) -> LearningCoefficient:
    """An estimate of 20 draws per chain; with a control variate if it was used."""
    draws = np.random.default_rng(0).normal(value if np.isfinite(value) else 0.0, 0.3, (2, chains, 20))
    known = np.isfinite(value)
    numbers = (1.01, 400.0, 1.0, 1.25 * value if known else np.nan, 0.1)
    variate = ControlVariate({"stein": 1.0} if used else {}, {})
    about = ("hmc", "gauss-newton", "vectorised", (0.5,), 8, chains, 10, 20, 300, 2.0)
    soft = abs(value) + 0.25 if known else 2.0
    found = Diagnostics(*numbers, variate, 1.0, 0.0, 1.0, 0.9, soft, 0.0, 0.1, 0.2, (), 0, *about)
    return LearningCoefficient(
        value=value,
        standard_error=0.1,
        interval=(value - 0.25, value + 0.5),
        epsilon=epsilon,
        temperature=(1 + value) / epsilon if known else 1 / epsilon,
        gamma=1.0,
        n_parameters=12_345,
        n=100,
        verdict=verdict,
        reason="a reason",
        diagnostics=found,
        names=("w",),
        seed=0,
        traces={"llc": draws[0], "radius": np.abs(draws[1])},
    )


def curve_of(*points: LearningCoefficient) -> LearningCoefficientCurve:
    return LearningCoefficientCurve(points)


def outcome_of(name: str, *, controls: dict[str, Control] | None = None, removed: int = 3, **values: float) -> Outcome:
    """A row with these metrics, each with a standard error of a tenth; changes are from 0."""
    found = {metric: Estimate(value, abs(value) / 10) for metric, value in values.items()}
    return Outcome(name, removed, found, found, controls or {})


def isolation_of(n_modules: int = 2, **changes: Any) -> Isolation:
    random = {"mse": Control(0.75, 0.05, 9, 0.1), "accuracy": Control(0.625, 0.125, 9, 0.1)}
    given: dict[str, Any] = {
        "n_modules": n_modules,
        "cut_edges": (1200, 34),
        "n_edges": (4000, 100),
        "whole": outcome_of("whole", mse=0.0, accuracy=0.9),
        "ablated": outcome_of("ablated", mse=2.0, accuracy=0.1),
        "isolated": outcome_of("isolated", mse=0.5, accuracy=0.7, controls=random),
        "matched": random,
    }
    return Isolation(**{**given, **changes})


def ablation_of(outputs: Any, classes: Any = None) -> ModuleAblation:
    """Modules with the change of each output, or with the accuracy at each class of each answer."""
    changes = np.array(outputs, dtype=float)
    n_modules = changes.shape[1]
    table = np.empty((2, n_modules, 0, 0)) if classes is None else np.array(classes, dtype=float)
    rows = tuple(outcome_of(f"module {m}", mse=0.5) for m in range(n_modules))
    whole, nothing = outcome_of("whole", mse=0.0), outcome_of("nothing", mse=2.0)
    return ModuleAblation(
        n_modules, whole, nothing, rows, rows, changes, table, np.ones(table.shape[2:]), np.zeros((2, n_modules, 4))
    )


def faithfulness_of(draws: int = 2) -> Faithfulness:
    fractions = (0.01, 0.1, 1.0)
    return Faithfulness(
        metric="accuracy",
        fractions=fractions,
        edges=(1, 10, 100),
        curve=(Estimate(0.25, 0.05), Estimate(0.75, 0.025), Estimate(1.0, 0.0)),
        cpr=Estimate(0.875, 0.01),
        cmd=Estimate(0.125, 0.01),
        random=np.array([[0.0, 0.1 * (i + 1), 1.0] for i in range(draws)]).reshape(draws, 3),
        random_cpr=(0.5,) * draws,
        random_cmd=(0.5,) * draws,
        p_value=1 / (1 + draws),
        whole=outcome_of("whole", accuracy=0.9),
        ablated=outcome_of("ablated", accuracy=0.1),
    )


def bisection_of(*curves: tuple[tuple[int, float], ...]) -> EdgeBisection:
    """One curve per pair of cuts, and the last one jointly; the second number of edges is the one required."""
    required = tuple(curve[1][0] for curve in curves[:-1])
    whole = outcome_of("whole", accuracy=0.9)
    return EdgeBisection(
        cuts=tuple(f"layers.{i}" for i in range(len(curves))),
        metric="accuracy",
        tolerance=0.001,
        n_edges=(5000,) * len(required),
        edges_required=required,
        jointly_required=required,
        epsilon=(EPSILON,) * len(required),
        whole=whole,
        ablated=outcome_of("ablated", accuracy=0.1),
        pairs=(whole,) * len(required),
        jointly=whole,
        curves=curves,
    )


def prediction_of(*costs_and_losses: tuple[float, float], random: float | None = None, **changes: Any) -> Prediction:
    """A link per predicted cost and measured change; the whole network has a loss of 0.125."""
    controls = {} if random is None else {"mse": Control(random, 0.1, 5, 0.2)}
    links = tuple(
        LinkCut(i, i + 1, cost, outcome_of(f"{i} to {i + 1}", mse=loss, controls=controls))
        for i, (cost, loss) in enumerate(costs_and_losses)
    )
    given: dict[str, Any] = {"spearman": 0.5, "interval": (-0.25, 0.75)}
    whole, ablated = outcome_of("whole", mse=0.125), outcome_of("ablated", mse=2.0)
    return Prediction("mse", links, whole=whole, ablated=ablated, **{**given, **changes})


def experiment_of(result: Any) -> Experiment:
    kinds = {Isolation: "isolate", ModuleAblation: "modules", Faithfulness: "faithfulness"}
    kinds |= {EdgeBisection: "bisect", Prediction: "predict"}
    return Experiment(kinds[type(result)], "loss", 100, True, result)


# --- what is on a figure


def title_of(figure: Figure) -> str | None:
    """The bold line of the heading."""
    bold = [text.get_text() for text in figure.texts if text.get_fontweight() == "bold"]
    return bold[0] if bold else None


def facts_of(figure: Figure) -> str:
    """The other lines of the heading."""
    (facts,) = [text.get_text() for text in figure.texts if text.get_fontweight() != "bold"]
    return facts


def legend_of(figure: Figure) -> list[str]:
    """The entries of the one legend of a figure; none without a legend."""
    legends = figure.findobj(Legend)
    assert len(legends) <= 1
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def texts_of(figure: Figure) -> Iterator[Text]:
    """All texts that are shown, tick labels outside the limits of their axis left out."""
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            outside = [tick for tick in ticks if not low <= tick.get_loc() <= high or not axes.axison]
            hidden |= {label for tick in outside for label in (tick.label1, tick.label2)}
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text not in hidden:
            yield text


def assert_readable(figure: Figure) -> None:
    """Once drawn, all texts are on the figure, and no two of them overlap (data labels aside)."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer() if hasattr(figure.canvas, "get_renderer") else None
    inside = [text for axes in figure.axes for text in axes.texts]
    legends = figure.findobj(Legend)
    named = [text for legend in legends for text in legend.get_texts()]
    kept = [("legend", legend.get_window_extent()) for legend in legends]
    for text in texts_of(figure):
        box = text.get_window_extent(renderer)
        assert figure.bbox.x0 - 1 <= box.x0 <= box.x1 <= figure.bbox.x1 + 1, f"{text.get_text()!r} leaves the figure"
        assert figure.bbox.y0 - 1 <= box.y0 <= box.y1 <= figure.bbox.y1 + 1, f"{text.get_text()!r} leaves the figure"
        if text not in inside and text not in named:
            kept.append((text.get_text(), box))
    for i, (one, box) in enumerate(kept):
        for other, second in kept[:i]:
            width = min(box.x1, second.x1) - max(box.x0, second.x0)
            height = min(box.y1, second.y1) - max(box.y0, second.y0)
            assert width <= 1 or height <= 1, f"{one!r} and {other!r} overlap"
