"""Figures of the learning coefficient show the estimates, their intervals and what is not reliable."""

from typing import Any

import numpy as np
import pytest
from cases_figures import coefficient_of, curve_of, facts_of, legend_of
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from interbasis.analysis import LearningCoefficientCurve

NAN = float("nan")


@pytest.fixture(scope="module")
def curve() -> LearningCoefficientCurve:
    """Four scales; the third estimate is doubtful, the last one failed without a value."""
    return curve_of(
        coefficient_of(2.0, 1e-4),
        coefficient_of(3.0, 1e-3),
        coefficient_of(2.5, 1e-2, "doubtful"),
        coefficient_of(NAN, 1e-1, "failed"),
    )


def bars_of(axes: Any) -> dict[str, tuple[np.ndarray, np.ndarray, Any]]:
    """By their name in the legend: points (n, 2), ends (n, 2) and the colour of error bars."""
    found = {}
    for container in axes.containers:
        line, _, (segments,) = container.lines
        ends = np.array([segment[:, 1] for segment in segments.get_segments() if len(segment)])
        found[container.get_label()] = line.get_xydata(), ends, line.get_color()
    return found


def test_points_of_each_verdict_have_its_colour_and_their_interval(curve: LearningCoefficientCurve) -> None:
    bars = bars_of(curve.plot().axes[0])
    assert {name: colour for name, (*_, colour) in bars.items()} == {"reliable": "#1f77b4", "doubtful": "#ff7f0e"}
    points, ends, _ = bars["reliable"]
    np.testing.assert_allclose(points, [[1e-4, 4.0], [1e-3, 6.0]])
    np.testing.assert_allclose(ends, [[3.5, 5.0], [5.5, 7.0]])  # twice the intervals of lambda
    points, ends, _ = bars["doubtful"]
    np.testing.assert_allclose((points[0], ends[0]), ([1e-2, 5.0], [4.5, 6.0]))


def test_failed_point_with_a_value_is_red() -> None:
    points, ends, colour = bars_of(curve_of(coefficient_of(2.0, 1e-3, "failed")).plot().axes[0])["failed"]
    np.testing.assert_allclose((points[0], ends[0]), ([1e-3, 4.0], [3.5, 5.0]))
    assert colour == "#d62728"


def test_line_joins_the_scales_and_the_soft_rank_is_dotted(curve: LearningCoefficientCurve) -> None:
    left = curve.plot().axes[0]
    soft, line = left.get_lines()[:2]
    np.testing.assert_allclose(line.get_xydata(), np.stack([curve.epsilons, curve.n_effective], 1))
    np.testing.assert_allclose(soft.get_xdata(), curve.epsilons)
    np.testing.assert_allclose(soft.get_ydata(), [4.5, 6.5, 5.5, 4.0])  # 2 soft_rank
    assert (soft.get_linestyle(), soft.get_label()) == (":", "soft rank (quadratic loss)")


def test_axes_of_a_curve_are_named_and_logarithmic_in_the_loss_scale(curve: LearningCoefficientCurve) -> None:
    left, right = curve.plot().axes
    assert (left.get_ylabel(), right.get_ylabel()) == (
        "effective parameters 2 lambda",
        "log volume, from the smallest scale on",
    )
    for axes in (left, right):
        assert (axes.get_xlabel(), axes.get_xscale(), axes.get_yscale()) == ("loss scale epsilon", "log", "linear")


@pytest.mark.parametrize(("values", "bottom"), [((2.0, 3.0), 0.0), ((2.0, -0.5), -1.5), ((NAN, NAN), 0.0)])
def test_axis_of_a_curve_begins_at_0_or_at_the_lowest_interval(values: tuple[float, ...], bottom: float) -> None:
    points = [coefficient_of(value, 10.0 ** (i - 4), "failed") for i, value in enumerate(values)]
    assert curve_of(*points).plot().axes[0].get_ylim()[0] == bottom


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((2.0,), "12,345 parameters varied, verdict reliable"),
        ((2.0, NAN), "12,345 parameters varied, verdict failed, 1 scale without a value"),
        ((NAN, NAN, 2.0), "12,345 parameters varied, verdict failed, 2 scales without a value"),
    ],
)
def test_title_of_a_curve_says_what_cannot_be_drawn(values: tuple[float, ...], said: str) -> None:
    points = [
        coefficient_of(value, 10.0 ** (i - 4), "reliable" if np.isfinite(value) else "failed")
        for i, value in enumerate(values)
    ]
    assert facts_of(curve_of(*points).plot()) == said


def test_volume_is_drawn_up_to_the_first_scale_without_a_value(curve: LearningCoefficientCurve) -> None:
    """The volume is a sum over scales from the smallest one on: one that failed hides the later ones only."""
    known = curve_of(*curve.points[:3])
    ((points, ends, _),) = bars_of(curve.plot().axes[1]).values()
    assert np.isfinite(known.log_volume).all()
    np.testing.assert_allclose(points[:, 0], curve.epsilons)
    np.testing.assert_allclose(points[:3, 1], known.log_volume)
    np.testing.assert_allclose(np.diff(ends[:3]).ravel() / 2, 1.96 * known.log_volume_error)
    assert np.isnan(points[3, 1])
    assert (known.log_volume_error[1:] > 0).all()


def test_volume_of_a_constant_coefficient_is_a_power_of_the_scale() -> None:
    found = curve_of(*(coefficient_of(2.0, 10.0**-k) for k in (4, 3, 2)))
    np.testing.assert_allclose(found.log_volume, 2.0 * np.log([1.0, 10.0, 100.0]), atol=1e-12)
    line = found.plot().axes[1].get_lines()[0]
    np.testing.assert_allclose(line.get_ydata(), found.log_volume)


# --- traces


def lines_of(figure: Figure, panel: int, colour: str = "#2b2b2b") -> dict[str, float]:
    """Horizontal lines of a colour by their style."""
    lines = [line for line in figure.axes[panel].get_lines() if line.get_color() == colour]
    return {line.get_linestyle(): float(np.unique(line.get_ydata()).item()) for line in lines}


@pytest.mark.parametrize("chains", [1, 3])
def test_traces_are_one_line_per_chain_in_both_panels(chains: int) -> None:
    found = coefficient_of(2.0, 1e-3, chains=chains)
    upper, lower = found.plot().axes
    for axes, name in ((upper, "llc"), (lower, "radius")):
        shown = [line.get_ydata() for line in axes.get_lines()[:chains]]
        np.testing.assert_array_equal(shown, found.traces[name])
        colours = [to_rgba(line.get_color()) for line in axes.get_lines()[:chains]]
        assert colours == [to_rgba(c) for c in ("tab:blue", "tab:orange", "tab:green")[:chains]], (
            "of a chain the same in both"
        )
    assert (upper.get_ylabel(), lower.get_ylabel()) == ("t (L - L*)", "distance from theta*")
    assert lower.get_xlabel() == "draw"
    assert upper.get_shared_x_axes().joined(upper, lower)


def test_estimate_is_a_line_with_its_interval_as_band() -> None:
    figure = coefficient_of(2.0, 1e-3).plot()
    assert lines_of(figure, 0) == {"-": 2.0}
    (band,) = figure.axes[0].patches
    corners = band.get_corners() if hasattr(band, "get_corners") else band.get_xy()
    assert (corners[:, 1].min(), corners[:, 1].max()) == (1.75, 2.5)
    assert to_rgba(band.get_facecolor())[3] == 0.2


def test_mean_before_control_variates_is_dashed_and_named() -> None:
    figure = coefficient_of(2.0, 1e-3, used=True).plot()
    assert lines_of(figure, 0) == {"-": 2.0, "--": 2.5}
    names = ["chain 0", "chain 1", "95 % interval", "lambda", "mean 2.5, before control variates"]
    assert legend_of(figure) == names


def test_estimate_without_a_value_has_neither_line_nor_band() -> None:
    figure = coefficient_of(NAN, NAN, "failed", used=True).plot()
    assert lines_of(figure, 0) == {}
    assert not figure.axes[0].patches
    assert legend_of(figure) == ["chain 0", "chain 1"]


@pytest.mark.parametrize(
    ("verdict", "colour"), [("reliable", "#2b2b2b"), ("doubtful", "#ff7f0e"), ("failed", "#d62728")]
)
def test_title_of_traces_says_value_interval_scale_and_verdict(verdict: str, colour: str) -> None:
    figure = coefficient_of(2.0, 1e-3, verdict).plot()
    assert facts_of(figure) == f"lambda = 2 in [1.75, 2.5] at loss scale 0.001: {verdict}"
    assert lines_of(figure, 0, colour) == {"-": 2.0}


def test_axis_of_a_curve_is_logarithmic_where_values_span_decades() -> None:
    wide = curve_of(coefficient_of(1.0, 1e-4), coefficient_of(200.0, 1e-2))
    assert wide.plot().axes[0].get_yscale() == "log"
    below = curve_of(coefficient_of(0.1, 1e-4), coefficient_of(200.0, 1e-2))  # its interval reaches below 0
    assert below.plot().axes[0].get_yscale() == "linear"
