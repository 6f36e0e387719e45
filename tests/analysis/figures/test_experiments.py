"""Figures of circuit experiments show what was measured."""

from typing import Any

import numpy as np
import pytest
from cases_circuits import WIDTH, Planted

from interbasis.analysis import Dataset
from interbasis.analysis.circuits.experiments import KINDS, Experiment, ExperimentRecipe, run_experiment
from interbasis.analysis.figures.experiments import plot_experiment


@pytest.fixture(scope="module")
def case() -> Planted:
    return Planted(3, {(2, 0, 1): 0.1, (2, 1, 2): 0.2, (1, 2, 0): 0.3}, points=4)


def made(case: Planted, kind: str, *, classes: bool = True, **choices: Any) -> Experiment:
    logits = case.net.output(case.x)[:, 0].unflatten(1, (3, WIDTH))
    data = Dataset("planted", case.x, logits.argmax(2) if classes else None)
    return run_experiment(*case.args[:4], data, ExperimentRecipe(kind=kind, draws=2, **choices))


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
    assert f"{sum(result.cut_edges)} of {sum(result.n_edges)} edges cut" in figure.get_suptitle()


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
    (axes,) = found.plot().axes
    curves = [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines]
    np.testing.assert_allclose(curves[:2], found.result.random)
    np.testing.assert_allclose(curves[3], [point.value for point in found.result.curve])
    assert f"CPR {found.result.cpr.value:.3f}" in axes.get_title()


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
    (axes,) = found.plot().axes
    assert len(axes.texts) == len(found.result.links) == 6
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [link.predicted for link in found.result.links])
    assert f"Spearman {found.result.spearman:.2f}" in axes.get_title()
