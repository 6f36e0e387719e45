"""The waterfall adds up, and the matrix of distances shows every pair of units and every block."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from cases_figures import facts_of, layer_of, ledger_of, legend_of, units_of
from matplotlib.colors import LogNorm, to_rgba
from matplotlib.figure import Figure

from interbasis.analysis import Ledger

LAYERS = [layer_of("layers.0.linear", 6, 6, (3, 2, 1, 4)), layer_of("layers.1.linear", 7, 3, (1, 0, 2, 0))]
NAMES = ["nominal", "activations", "Jacobians", "gating", "synchronisation", "unexplained", "effective"]
CAUSES = NAMES[1:5]


def bars_of(figure: Figure) -> list[list[tuple[float, float]]]:
    """Lower and upper end of the bars at each name, from the top down; those without height left out."""
    found: list[list[tuple[float, float]]] = [[] for _ in NAMES]
    for bar in figure.axes[0].patches:
        if bar.get_hatch():
            continue
        low, high = sorted((bar.get_y(), bar.get_y() + bar.get_height()))
        if high > low:
            found[round(bar.get_x() + bar.get_width() / 2)].append((low, high))
    return found


def hatched_of(figure: Figure) -> list[tuple[int, float, float]]:
    """Column and both ends of the bars that are hatched."""
    bars = [bar for bar in figure.axes[0].patches if bar.get_hatch()]
    return [(round(b.get_x() + b.get_width() / 2), b.get_y(), b.get_y() + b.get_height()) for b in bars]


def said(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("unexplained", [2, 0, -3])
def test_waterfall_falls_from_bar_to_bar(unexplained: int) -> None:
    ledger = ledger_of(LAYERS, unexplained, method="exact" if unexplained >= 0 else "lanczos")  # bounds that agree
    figure = ledger.plot()
    assert not hatched_of(figure), "all is known"
    nominal, *causes, rest, effective = bars_of(figure)
    assert nominal == [(21, 57), (0, 21)]  # 6 x 6 and 7 x 3 parameters
    assert causes == [[(54, 57), (53, 54)], [(51, 53)], [(50, 51), (48, 50)], [(44, 48)]]
    assert rest == ([tuple(sorted((44, 44 - unexplained)))] if unexplained else [])
    assert effective == [(0, 44 - unexplained)]
    assert said(figure)[:5] == ["57", "-4", "-2", "-3", "-4"]
    assert said(figure)[5] == (f"-{unexplained}" if unexplained > 0 else str(abs(unexplained)))
    assert said(figure)[6] == str(ledger.effective)


def test_levels_are_joined_by_lines() -> None:
    lines = [line.get_xydata() for line in ledger_of(LAYERS, 2).plot().axes[0].get_lines()]
    np.testing.assert_allclose([line[:, 1] for line in lines], [[y, y] for y in (53, 51, 48, 44, 42)])
    for left, right in pairwise(lines):
        assert left[1, 0] > right[0, 0], "a line reaches the bar that the next one leaves"


def test_layers_are_shades_that_the_legend_names() -> None:
    figure = ledger_of(LAYERS, 2).plot()
    axes = figure.axes[0]
    shades = [to_rgba(handle.get_facecolor()) for handle in axes.get_legend().get_patches()]
    assert legend_of(figure) == ["layers.0.linear (6 to 6)", "layers.1.linear (7 to 3)"]
    assert len(set(shades)) == 2
    for bars in (axes.containers[i : i + 2] for i in range(0, 10, 2)):
        assert [to_rgba(bar[0].get_facecolor()) for bar in bars] == shades
    assert to_rgba(axes.containers[10][0].get_facecolor()) == to_rgba("#9a9a9a")
    assert to_rgba(axes.containers[11][0].get_facecolor()) == to_rgba("#2b2b2b")


def test_ledger_without_layers_is_grey_and_has_no_legend() -> None:
    figure = ledger_of([], nominal=20, activations=5, effective=15).plot()
    nominal, activations, *_, effective = bars_of(figure)
    assert (nominal, activations, effective) == ([(0, 20)], [(15, 20)], [(0, 15)])
    assert legend_of(figure) == []
    assert {to_rgba(bar.get_facecolor()) for bar in figure.axes[0].patches[:-1]} == {to_rgba("#9a9a9a")}


@pytest.mark.parametrize(
    ("method", "unexplained", "text", "facts"),
    [
        ("exact", 0, "0", "44 of 57 parameters are effective, no loss scale"),
        ("lanczos", 2, "-2", "About 42 of 57 parameters are effective, at least 22, no loss scale"),
        ("sampled", 2, "at least 2", "At most 42 of 57 parameters are effective, at least 22, no loss scale"),
        ("sampled", 0, "not known", "At most 44 of 57 parameters are effective, at least 24, no loss scale"),
    ],
)
def test_what_is_only_bounded_is_hatched_and_says_so(method: str, unexplained: int, text: str, facts: str) -> None:
    figure = ledger_of(LAYERS, unexplained, method=method, below=20).plot()
    assert said(figure)[5] == text
    assert facts_of(figure) == facts
    upper = 44 - unexplained
    if method == "exact":
        assert hatched_of(figure) == []
        return
    assert hatched_of(figure) == [(5, upper - 20, upper), (6, upper - 20, upper)]
    assert bars_of(figure)[6] == [(0, upper - 20)], "what is certain is solid"
    assert legend_of(figure)[-1] == "not known: effective or unexplained"


def test_axis_of_a_waterfall_holds_all_parameters() -> None:
    figure = ledger_of(LAYERS, 2, epsilon=0.0125).plot()
    axes = figure.axes[0]
    assert axes.get_ylim() == (0, pytest.approx(1.08 * 57))
    assert axes.get_ylabel() == "parameters"
    assert [label.get_text() for label in axes.get_xticklabels()] == NAMES
    assert facts_of(figure).endswith(", loss scale 0.0125")


def test_large_counts_have_thousands_separators() -> None:
    ledger: Ledger = ledger_of([layer_of("wide", 1000, 2000, (1500, 0, 0, 0))])
    figure = ledger.plot()
    assert said(figure)[:2] == ["2,000,000", "-1,500"]
    assert facts_of(figure).startswith("1,998,500 of 2,000,000 parameters")


# --- synchronised units

DISTANCES = [[0.0, 0.5, 0.25, 0.0], [0.5, 0.0, 1.0, 0.5], [0.25, 1.0, 0.0, 0.25], [0.0, 0.5, 0.25, 0.0]]


def frames_of(figure: Figure) -> list[tuple[float, float, tuple[float, ...]]]:
    """Corner, size and colour of the frames."""
    rows = [(frame.get_x(), frame.get_width(), to_rgba(frame.get_edgecolor())) for frame in figure.axes[0].patches]
    assert all(frame.get_x() == frame.get_y() for frame in figure.axes[0].patches)
    assert all(frame.get_width() == frame.get_height() for frame in figure.axes[0].patches)
    return rows


def test_distances_are_relative_to_the_larger_power() -> None:
    units = units_of(DISTANCES, [(0, 3), (2,)], dead=(1,), power=np.array([1.0, 4.0, 2.0, 1.0]))
    image = units.plot().axes[0].images[0]
    order = [0, 3, 2, 1]
    larger = np.array([[1, 1, 2, 4], [1, 1, 2, 4], [2, 2, 2, 4], [4, 4, 4, 4]], dtype=float)
    expected = np.array(DISTANCES)[np.ix_(order, order)] / larger
    np.testing.assert_allclose(image.get_array(), np.maximum(expected, 1e-6))
    assert isinstance(image.norm, LogNorm)
    assert (image.norm.vmin, image.norm.vmax) == (1e-6, 1)


def test_blocks_are_framed_and_what_is_always_on_or_dead_has_its_colour() -> None:
    figure = units_of(np.zeros((6, 6)), [(0, 3), (2,), (4,)], always_on=2, dead=(1, 5)).plot()
    assert frames_of(figure) == [
        (-0.5, 2, to_rgba("white")),
        (2.5, 1, to_rgba("tab:cyan")),
        (3.5, 2, to_rgba("tab:red")),
    ]
    axes = figure.axes[0]
    assert facts_of(figure) == "layers.0: 6 units in 3 blocks, 1 always on (cyan), 2 dead (red)"
    assert axes.get_xlabel() == "unit, sorted by block"
    assert figure.axes[1].get_ylabel() == "share of the preactivation where patterns differ"


@pytest.mark.parametrize(
    ("given", "blocks", "frames"),
    [({}, [(0,), (1,)], 0), ({"dead": (0, 1)}, [], 1), ({"always_on": 0}, [(0, 1)], 1)],
)
def test_units_alone_have_no_frame(given: dict[str, Any], blocks: list[tuple[int, ...]], frames: int) -> None:
    assert len(frames_of(units_of(np.zeros((2, 2)), blocks, **given).plot())) == frames


def test_units_without_power_are_drawn_without_a_division_by_zero() -> None:
    units = units_of(np.zeros((2, 2)), [], dead=(0, 1), power=np.zeros(2))
    np.testing.assert_array_equal(units.plot().axes[0].images[0].get_array(), np.full((2, 2), 1e-6))


def test_ticks_are_whole_units() -> None:
    figure = units_of(np.zeros((3, 3)), [(0, 1, 2)]).plot()
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        assert all(tick == round(tick) for tick in axis.get_majorticklocs())
