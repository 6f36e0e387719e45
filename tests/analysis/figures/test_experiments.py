"""Figures of circuit experiments show what was measured."""

from typing import Any

import numpy as np
import pytest
from cases_circuits import WIDTH, Planted
from cases_figures import (
    ablation_of,
    bisection_of,
    experiment_of,
    facts_of,
    faithfulness_of,
    isolation_of,
    legend_of,
    outcome_of,
    prediction_of,
)
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from interbasis.analysis import Dataset
from interbasis.analysis.circuits.experiments import KINDS, Experiment, ExperimentRecipe
from interbasis.analysis.figures.experiments import plot_experiment

pytestmark = pytest.mark.usefixtures("few_nulls")


@pytest.fixture(scope="module")
def case() -> Planted:
    return Planted(3, {(2, 0, 1): 0.1, (2, 1, 2): 0.2, (1, 2, 0): 0.3}, points=4)


def made(case: Planted, kind: str, *, classes: bool = True, **choices: Any) -> Experiment:
    logits = case.net.output(case.x)[:, 0].unflatten(1, (3, WIDTH))
    data = Dataset("planted", case.x, logits.argmax(2) if classes else None)
    return case.run(data, ExperimentRecipe(kind=kind, draws=2, **choices))


@pytest.mark.parametrize("kind", KINDS)
def test_figure_comes_back_from_a_file_the_same(case: Planted, kind: str) -> None:
    found = made(case, kind)
    figure, again = found.plot(), plot_experiment(Experiment.from_bytes(found.to_bytes()))
    assert [axes.get_xlabel() for axes in figure.axes] == [axes.get_xlabel() for axes in again.axes]
    assert [axes.get_title() for axes in figure.axes] == [axes.get_title() for axes in again.axes]


def test_isolation_is_bars_of_each_metric(case: Planted) -> None:
    found = made(case, "isolate")
    figure = found.plot()
    assert [axes.get_xlabel() for axes in figure.axes] == ["mse", "accuracy"]
    result: Any = found.result
    lengths = [bar.get_width() for bar in figure.axes[1].patches]
    rows = (
        result.whole.values,
        result.isolated.values,
        result.matched,
        result.isolated.controls,
        result.ablated.values,
    )
    np.testing.assert_allclose(lengths, [row["accuracy"].value for row in rows])
    assert f"{sum(result.cut_edges)} of {sum(result.n_edges)} edges cut" in facts_of(figure)


def test_modules_are_maps_of_classes_or_outputs(case: Planted) -> None:
    found: Any = made(case, "modules")
    without, alone = (axes.images[0].get_array() for axes in found.plot().axes[:2])
    np.testing.assert_allclose(without, found.result.classes[0].reshape(3, -1))
    np.testing.assert_allclose(alone, found.result.classes[1].reshape(3, -1))
    plain: Any = made(case, "modules", classes=False)
    image = plain.plot().axes[0].images[0]
    np.testing.assert_allclose(image.get_array(), plain.result.outputs[0])
    assert image.get_clim()[1] == plain.result.outputs.max()


def test_faithfulness_is_a_curve_beside_random_ones(case: Planted) -> None:
    found: Any = made(case, "faithfulness")
    figure = found.plot()
    (axes,) = figure.axes
    curves = [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines]
    np.testing.assert_allclose(curves[:2], found.result.random)
    np.testing.assert_allclose(curves[3], [point.value for point in found.result.curve])
    assert f"CPR {found.result.cpr.value:.3f}" in facts_of(figure)


def test_bisection_marks_the_edges_that_are_required(case: Planted) -> None:
    found: Any = made(case, "bisect", tolerance=0.05)
    panels = found.plot().axes
    assert len(panels) == len(found.result.edges_required) + 1
    counts = [*found.result.edges_required, sum(found.result.jointly_required)]
    for axes, count, curve in zip(panels, counts, found.result.curves, strict=True):
        assert axes.get_title().endswith(f": {count:,}")
        dots, _, marked = axes.lines
        np.testing.assert_allclose(dots.get_ydata(), [value for _, value in curve])
        np.testing.assert_allclose(dots.get_xdata(), [edges for edges, _ in curve])
        assert marked.get_xdata()[0] == count


def test_prediction_is_a_dot_per_link(case: Planted) -> None:
    found: Any = made(case, "predict", metric="loss")
    figure = found.plot()
    (axes,) = figure.axes
    assert len(axes.texts) == len(found.result.links) == 6
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [link.predicted for link in found.result.links])
    assert f"Spearman {found.result.spearman:.2f}" in facts_of(figure)


# Results made by hand: every number of a figure, and what is missing


def drawn(result: Any) -> Figure:
    return plot_experiment(experiment_of(result))


def spans_of(axes: Axes, along: int) -> list[tuple[float, float]]:
    """Both ends of the error bars along an axis."""
    (container,) = [found for found in axes.containers if hasattr(found, "has_xerr")]
    return [(float(segment[0, along]), float(segment[1, along])) for segment in container.lines[2][0].get_segments()]


def test_isolation_has_a_bar_with_its_error_for_each_network() -> None:
    left, right = drawn(isolation_of()).axes
    assert (left.get_xlabel(), right.get_xlabel()) == ("mse", "accuracy"), "the behavioural loss first"
    names = ["whole", "modules\nisolated", "random edges,\nsame strengths", "random\nmodules", "no edges"]
    for axes, lengths, errors in (
        (left, [0.0, 0.5, 0.75, 0.75, 2.0], [0.0, 0.05, 0.05, 0.05, 0.2]),
        (right, [0.9, 0.7, 0.625, 0.625, 0.1], [0.09, 0.07, 0.125, 0.125, 0.01]),
    ):
        assert [label.get_text() for label in axes.get_yticklabels()] == names
        np.testing.assert_allclose([bar.get_width() for bar in axes.patches], lengths)
        segments = axes.containers[0].lines[2][0].get_segments()
        np.testing.assert_allclose([np.ptp(segment[:, 0]) / 2 for segment in segments], errors, atol=1e-12)
        colours = [to_rgba(bar.get_facecolor()) for bar in axes.patches]
        assert colours == [to_rgba(c) for c in ("tab:blue", "tab:orange", "#9a9a9a", "#9a9a9a", "#2b2b2b")]
        assert axes.yaxis_inverted(), "the first bar is on top"


def test_bars_that_span_decades_are_logarithmic() -> None:
    rows = {
        name: outcome_of(name, mse=value) for name, value in (("whole", 0.0), ("ablated", 277.0), ("isolated", 1.0))
    }
    (axes,) = drawn(isolation_of(matched={}, **rows)).axes
    assert axes.get_xscale() == "symlog"
    assert axes.get_xlim()[0] == 0
    assert drawn(isolation_of()).axes[0].get_xscale() == "linear"


def test_isolation_without_controls_has_three_bars() -> None:
    rows = {name: outcome_of(name, mse=value) for name, value in (("whole", 0.0), ("ablated", 2.0), ("isolated", 0.5))}
    figure = drawn(isolation_of(1, matched={}, **rows))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["whole", "modules\nisolated", "no edges"]
    assert facts_of(figure) == "1 module, 1,234 of 4,100 edges cut"


def test_title_of_an_isolation_has_the_p_value() -> None:
    assert (
        facts_of(drawn(isolation_of()))
        == "2 modules, 1,234 of 4,100 edges cut, p 0.1 against as many edges of the same strengths"
    )


OUTPUTS = np.arange(12.0).reshape(2, 2, 3)


def test_change_of_each_output_has_its_cell() -> None:
    figure = drawn(ablation_of(OUTPUTS))
    without, alone, bar = figure.axes
    for axes, table, title in ((without, OUTPUTS[0], "without the module"), (alone, OUTPUTS[1], "the module alone")):
        np.testing.assert_array_equal(axes.images[0].get_array(), table)
        assert axes.images[0].get_clim() == (0, 11), "both tables in the same colours"
        assert axes.get_title(loc="left") == title
        assert [label.get_text() for label in axes.get_yticklabels()] == ["module 0", "module 1"]
    assert [label.get_text() for label in alone.get_xticklabels()] == ["0", "1", "2"]
    assert (alone.get_xlabel(), bar.get_ylabel()) == ("output", "mean squared change")


@pytest.mark.parametrize("outputs", [np.zeros((2, 1, 1)), np.zeros((2, 3, 2))])
def test_outputs_that_do_not_change_have_a_range_of_colours(outputs: np.ndarray) -> None:
    assert drawn(ablation_of(outputs)).axes[0].images[0].get_clim() == (0, 1)


def test_classes_of_several_answers_are_named_with_their_answer() -> None:
    table = np.arange(8.0).reshape(2, 1, 2, 2) / 8
    figure = drawn(ablation_of(OUTPUTS[:, :1], table))
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), table[0].reshape(1, 4))
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["0:0", "0:1", "1:0", "1:1"]
    assert figure.axes[1].get_xlabel() == "answer:class"
    assert figure.axes[0].images[0].get_clim() == (0, 1)
    assert figure.axes[2].get_ylabel() == "accuracy"


def test_class_without_data_points_stays_empty() -> None:
    table = np.full((2, 2, 1, 3), 0.5)
    table[..., 1] = np.nan
    image = drawn(ablation_of(OUTPUTS, table)).axes[0].images[0]
    assert np.ma.getmaskarray(image.get_array()).tolist() == [[False, True, False]] * 2


def test_of_many_outputs_those_that_vary_most_are_shown_in_their_order() -> None:
    outputs = np.zeros((2, 2, 100))
    outputs[0, 1] = np.arange(100)[::-1]  # the first ones vary most
    outputs[1, 0] = np.arange(100)
    figure = drawn(ablation_of(outputs))
    for axes, table in zip(figure.axes[:2], outputs, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), table[:, :40])
    assert figure.axes[1].get_xlabel() == "output (40 of 100 that vary most)"
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == [str(i) for i in range(0, 40, 2)]


def test_of_many_outputs_of_one_module_those_that_change_most_are_shown() -> None:
    outputs = np.zeros((2, 1, 50))
    outputs[0, 0, 5:45] = 1.0
    assert drawn(ablation_of(outputs)).axes[0].images[0].get_array().min() == 1


def test_faithfulness_has_points_errors_and_random_orders() -> None:
    figure = drawn(faithfulness_of())
    (axes,) = figure.axes
    first, second, one, curve = axes.get_lines()[:4]
    np.testing.assert_allclose((first.get_ydata(), second.get_ydata()), [[0, 0.1, 1], [0, 0.2, 1]])
    np.testing.assert_array_equal(one.get_ydata(), [1, 1])
    np.testing.assert_allclose(curve.get_xydata(), [[0.01, 0.25], [0.1, 0.75], [1, 1]])
    np.testing.assert_allclose(spans_of(axes, 1), [(0.2, 0.3), (0.725, 0.775), (1, 1)])
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "share of the edges kept")
    assert axes.get_ylabel() == "faithfulness (accuracy)"
    assert legend_of(figure) == ["random order", "strongest first"]
    assert facts_of(figure) == "CPR 0.875, CMD 0.125, p 0.33"


def test_faithfulness_without_random_orders_names_only_the_curve() -> None:
    assert legend_of(drawn(faithfulness_of(0))) == ["strongest first"]


def test_bisection_has_a_panel_per_pair_and_hides_the_rest() -> None:
    curves = [((1, 0.2), (4, 0.9))] * 4 + [((0, 0.1), (400, 0.9))]
    figure = drawn(bisection_of(*curves))
    shown, hidden = figure.axes[:5], figure.axes[5:]
    assert [axes.get_title() for axes in shown] == [
        *(f"layers.{i} to layers.{i + 1}: 4" for i in range(4)),
        "all at once: 16",
    ]
    assert [axes.axison for axes in hidden] == [False] * 3
    assert [axes.get_xlabel() for axes in shown] == ["strongest edges kept"] * 5
    assert [axes.get_ylabel() for axes in shown] == ["accuracy", "", "", "", ""]
    for axes, curve, count in zip(shown, curves, [4, 4, 4, 4, 16], strict=True):
        dots, whole, needed = axes.get_lines()
        np.testing.assert_allclose(dots.get_xydata(), curve)
        assert whole.get_ydata()[0] == 0.9
        assert needed.get_xdata()[0] == count
    assert facts_of(figure) == "Fewest edges that keep accuracy within 0.001"


@pytest.mark.parametrize(
    ("edges", "scale"), [((1, 4), "linear"), ((1, 30), "linear"), ((1, 31), "symlog"), ((0, 4000), "symlog")]
)
def test_numbers_of_edges_are_logarithmic_where_they_span_decades(edges: tuple[int, int], scale: str) -> None:
    curve = tuple((n, 0.5) for n in edges)
    axes = drawn(bisection_of(curve, curve)).axes[0]
    assert axes.get_xscale() == scale
    low, high = axes.get_xlim()
    assert low < edges[0] <= edges[1] < high
    assert 0 in axes.get_xticks() or edges[0]
    if scale == "linear":
        assert all(tick == round(tick) for tick in axes.get_xticks())


def test_prediction_has_a_labelled_dot_with_its_error_for_each_link() -> None:
    figure = drawn(prediction_of((10.0, 2.0), (5.0, 1.0), (1.0, 0.1), random=0.5))
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.containers[0].lines[0].get_xydata(), [[10, 2], [5, 1], [1, 0.1]])
    np.testing.assert_allclose(spans_of(axes, 1), [(1.8, 2.2), (0.9, 1.1), (0.09, 0.11)])
    assert [(text.get_text(), *text.xy) for text in axes.texts] == [
        ("0 to 1", 10, 2),
        ("1 to 2", 5, 1),
        ("2 to 3", 1, 0.1),
    ]
    (random,) = [line for line in axes.get_lines() if line.get_marker() == "x"]
    np.testing.assert_allclose(random.get_xydata(), [[10, 0.375], [5, 0.375], [1, 0.375]])  # less the whole network's
    assert random.get_label() == "as many random edges"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted interaction cost", "change of mse when cut")
    assert facts_of(figure) == "Spearman 0.50 [-0.25, 0.75], dots: module to module"


@pytest.mark.parametrize(("losses", "scale"), [((2.0, 0.1), "log"), ((2.0, 0.0), "linear"), ((2.0, -0.1), "linear")])
def test_changes_are_logarithmic_where_all_are_losses(losses: tuple[float, ...], scale: str) -> None:
    (axes,) = drawn(prediction_of(*((2.0 - i, loss) for i, loss in enumerate(losses)))).axes
    assert axes.get_yscale() == scale
    assert not axes.figure.legends, "nothing was drawn at random"


def test_only_the_largest_links_are_labelled() -> None:
    (axes,) = drawn(prediction_of(*((30.0 - i, 1.0) for i in range(30)))).axes
    assert [text.get_text() for text in axes.texts] == [f"{i} to {i + 1}" for i in range(20)]
    assert len(axes.containers[0].lines[0].get_xdata()) == 30


def test_too_few_links_have_no_rank_correlation() -> None:
    figure = drawn(prediction_of((10.0, 2.0), spearman=None, interval=None))
    assert facts_of(figure).startswith("too few links to rank")
