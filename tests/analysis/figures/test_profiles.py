"""Profiles show every resolution or loss scale tried, at its value, and leave out what was not computed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases_figures import facts_of, graph_of, legend_of, partition_of, profile_row
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from interbasis.analysis import Partition
from interbasis.analysis.errors import GraphError
from interbasis.analysis.figures.graphs import plot_strengths
from interbasis.analysis.figures.profiles import plot_epsilon_profile, plot_profile
from interbasis.analysis.graph.loss_scale import strength_distribution
from interbasis.analysis.results import figure

FIELDS = ("n_modules", "z", "gap", "contrast", "description_length")
TITLES = ("modules", "z against\nnull graphs", "gap over\nthe null", "contrast")
LABELS = ([0, 0, 1, 1], [0, 1, 1], [0, 0, 1])
NULLS: tuple[dict[str, Any], ...] = (
    {"z": -0.5, "gap": 0.1, "significant": False},
    {"z": 2.5, "gap": 0.4, "significant": True},
    {"z": float("nan"), "gap": 0.2, "significant": False},
    {"z": float("inf"), "gap": None, "significant": None},
)


@pytest.fixture(scope="module")
def partition() -> Partition:
    """Four resolutions of one objective, two of another one; some numbers are missing."""
    rows = [profile_row("layered_cpm", 0.5 * 2**i, i + 1, **null) for i, null in enumerate(NULLS)]
    rows += [profile_row("layered_modularity", 1.0 + i, 2, z=1.0, gap=0.0, significant=i == 1) for i in range(2)]
    return partition_of(*LABELS, profile=tuple(rows), objective="layered_cpm", resolution=1.0)


def panel(drawn: Figure, field: str, column: int, columns: int) -> Axes:
    return drawn.axes[columns * FIELDS.index(field) + column]


def marks_of(axes: Axes) -> dict[tuple[float, float], bool]:
    """The dots, and whether they are filled."""
    found = {}
    for dots in axes.collections:
        for at in np.asarray(dots.get_offsets()).tolist():
            found[tuple(at)] = tuple(dots.get_facecolor()[0]) == to_rgba("#1f77b4")
    return found


@pytest.mark.parametrize("field", FIELDS)
def test_panels_show_the_rows_of_their_objective(partition: Partition, field: str) -> None:
    drawn = plot_profile(partition)
    assert len(drawn.axes) == 2 * len(FIELDS)
    for column, name in enumerate(("layered_cpm", "layered_modularity")):
        rows = [row for row in partition.profile if row.objective == name]
        known = [(row.resolution, getattr(row, field), row.significant) for row in rows]
        known = [(x, y, filled) for x, y, filled in known if y is not None and np.isfinite(y)]
        axes = panel(drawn, field, column, 2)
        line = next(line for line in axes.get_lines() if line.get_color() == "#1f77b4")
        np.testing.assert_allclose(line.get_xydata(), [(x, y) for x, y, _ in known])
        assert marks_of(axes) == {(x, y): bool(filled) for x, y, filled in known}
    assert len(marks_of(panel(drawn, "z", 0, 2))) == 2, "neither NaN nor infinity is drawn"


def test_chosen_resolution_is_dashed_in_the_column_of_its_objective(partition: Partition) -> None:
    drawn = plot_profile(partition)
    for i, axes in enumerate(drawn.axes):
        dashed = [line.get_xdata() for line in axes.get_lines() if line.get_linestyle() == "--"]
        assert [list(x) for x in dashed] == ([[1.0, 1.0]] if i % 2 == 0 else [])


def test_zero_is_drawn_where_a_number_is_a_difference(partition: Partition) -> None:
    drawn = plot_profile(partition)
    zeros = [field for field in FIELDS if len(panel(drawn, field, 1, 2).get_lines()) == 2]
    assert zeros == ["z", "gap", "description_length"]
    for field in zeros:
        np.testing.assert_array_equal(panel(drawn, field, 1, 2).get_lines()[0].get_ydata(), [0, 0])


def test_axes_of_a_profile_are_named(partition: Partition) -> None:
    drawn = plot_profile(partition)
    assert [drawn.axes[2 * i].get_ylabel() for i in range(4)] == list(TITLES)
    assert drawn.axes[8].get_ylabel() == "description length\nminus one\nmodule's (nats)"
    assert [axes.get_title() for axes in drawn.axes[:2]] == ["layered_cpm", "layered_modularity"]
    assert [axes.get_xlabel() for axes in drawn.axes] == [""] * 8 + ["resolution"] * 2
    assert facts_of(drawn) == "2 modules (untested), cost between modules 0, epsilon 1"
    assert legend_of(drawn) == ["significant", "not significant", "chosen"]


@pytest.mark.parametrize(
    ("resolutions", "shown"),
    [
        ((0.25, 1.0, 4.0), ["0.5", "1", "2"]),
        ((0.01, 100.0), ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50", "100"]),
        ((0.3, 0.4), ["0.3", "0.4"]),  # no round number between them
        ((0.37,), ["0.37"]),
        ((5.0,), ["5"]),
    ],
)
def test_resolutions_are_logarithmic_with_round_ticks(resolutions: tuple[float, ...], shown: list[str]) -> None:
    rows = tuple(profile_row("layered_cpm", resolution, 2) for resolution in resolutions)
    axes = plot_profile(partition_of(*LABELS, profile=rows)).axes[-1]
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == shown
    assert len(axes.xaxis.get_minorticklocs()) == 0


def test_resolution_of_0_is_drawn_on_a_linear_axis() -> None:
    rows = tuple(profile_row("layered_cpm", resolution, 2) for resolution in (0.0, 1.0))
    axes = plot_profile(partition_of(*LABELS, profile=rows)).axes[-1]
    assert axes.get_xscale() == "linear"
    np.testing.assert_array_equal(axes.get_lines()[0].get_xdata(), [0, 1])


def test_profile_without_null_graphs_says_so_in_their_panels() -> None:
    rows = tuple(profile_row("layered_cpm", resolution, 2) for resolution in (1.0, 2.0))
    drawn = plot_profile(partition_of(*LABELS, profile=rows))
    said = [[text.get_text() for text in axes.texts] for axes in drawn.axes]
    assert said == [[], ["no null graphs were searched"], ["no null graphs were searched"], [], []]


def test_profile_of_one_module_leaves_out_what_is_0_at_every_resolution() -> None:
    nothing = {"contrast": -1e-17, "description_length": 2e-17}
    rows = tuple(profile_row("layered_cpm", r, 1, z=r, gap=r, significant=False, **nothing) for r in (1.0, 2.0))
    drawn = plot_profile(partition_of([0, 0], [0, 0], profile=rows))
    assert [axes.get_ylabel() for axes in drawn.axes] == list(TITLES[:3])
    assert facts_of(drawn) == "one module, epsilon 1,\ncontrast and description length 0 at every resolution"
    assert all(np.ptp(axes.get_ylim()) > 0.5 for axes in drawn.axes)
    assert not any(axes.yaxis.get_offset_text().get_text() for axes in drawn.axes)


def test_number_of_modules_is_logarithmic_where_it_spans_decades() -> None:
    rows = tuple(profile_row("layered_cpm", float(n), n) for n in (1, 100))
    assert plot_profile(partition_of(*LABELS, profile=rows)).axes[0].get_yscale() == "log"


def test_partition_is_drawn_as_membership_or_profile(partition: Partition) -> None:
    assert figure(partition).axes[0].images
    assert len(figure(partition, "profile").axes) == len(partition.plot_profile().axes) == 10
    with pytest.raises(GraphError, match="was given, not searched: it has no profile"):
        partition_of(*LABELS).plot_profile()


# --- over loss scales


def scales(*epsilons: float, labels: tuple[Any, ...] = ()) -> list[Partition]:
    """Partitions at loss scales, whose costs tell them apart; `labels` replaces those of each."""
    found = [
        partition_of(*LABELS, epsilon=epsilon, edge_cost=10 * epsilon, mediator_cost=epsilon, n_modules=i + 1)
        for i, epsilon in enumerate(epsilons)
    ]
    arrays = [tuple(np.array(cut) for cut in given) for given in labels]
    return [replace(part, labels=given) for part, given in zip(found, arrays, strict=True)] if labels else found


def test_loss_scales_are_in_ascending_order() -> None:
    drawn = plot_epsilon_profile(scales(10.0, 0.1, 1.0))
    counts, costs, changes = drawn.axes
    np.testing.assert_array_equal(counts.get_lines()[0].get_xydata(), [[0.1, 2], [1, 3], [10, 1]])
    edge, mediator = costs.get_lines()
    np.testing.assert_array_equal(edge.get_xydata(), [[0.1, 1], [1, 10], [10, 100]])
    np.testing.assert_array_equal(mediator.get_xydata(), [[0.1, 0.1], [1, 1], [10, 10]])
    assert legend_of(drawn) == ["edge cost", "mediator cost"]
    assert (counts.get_ylabel(), costs.get_ylabel()) == ("modules", "cost between modules")
    assert (changes.get_xlabel(), changes.get_xscale()) == ("loss scale epsilon", "log")
    assert "variation of\ninformation, nats" in changes.get_ylabel()
    assert counts.get_xlim() == changes.get_xlim()


def test_change_is_the_variation_of_information_between_scales() -> None:
    """Two halves against two other halves share nothing: H(a | b) + H(b | a) = 2 log 2."""
    halves, others, whole = ([0, 0, 1, 1],), ([0, 1, 0, 1],), ([0, 0, 0, 0],)
    parts = scales(0.01, 1.0, 100.0, labels=(halves, others, whole))
    line = plot_epsilon_profile(parts).axes[2].get_lines()[0]
    np.testing.assert_allclose(line.get_xydata(), [[0.1, 2 * np.log(2)], [10, np.log(2)]])  # at the geometric mean


def test_change_counts_nodes_that_are_in_a_module_at_both_scales() -> None:
    parts = scales(1.0, 4.0, labels=(([0, 0, 1, -1],), ([0, 0, -1, 1],)))
    np.testing.assert_allclose(plot_epsilon_profile(parts).axes[2].get_lines()[0].get_xydata(), [[2.0, 0.0]])


@pytest.mark.parametrize(
    "parts", [scales(1.0), scales(1.0, 4.0, labels=(([0, 0, -1, -1],), ([-1, -1, 0, 0],)))], ids=["one", "apart"]
)
def test_without_common_nodes_there_is_no_change(parts: list[Partition]) -> None:
    counts, _, changes = plot_epsilon_profile(parts).axes
    assert len(counts.get_lines()[0].get_xdata()) == len(parts)
    assert len(changes.get_lines()[0].get_xdata()) == 0


# --- strengths


def test_strengths_are_a_density_and_a_share() -> None:
    graph = graph_of(*LABELS)
    density, share = plot_strengths(graph, 1.0).axes
    found = strength_distribution(graph.blocks)
    np.testing.assert_allclose(density.get_lines()[0].get_xydata(), np.stack([10**found.log10, found.density], 1))
    carried = share.get_lines()[0].get_ydata()
    assert (np.diff(carried) >= 0).all()
    assert carried[-1] == pytest.approx(1)
    weak, strong = 11 * 0.5**2, 10 * 3.0**2  # edges between and inside modules
    between = share.get_lines()[0].get_xdata() < 2.9
    assert carried[between][-1] == pytest.approx(weak / (weak + strong))
    assert (density.get_xlabel(), density.get_xscale()) == ("strength w", "log")
    assert density.get_ylabel() == "density of strengths per decade"
    assert share.get_ylabel() == "share of w² carried up to w"


@pytest.mark.parametrize(
    ("epsilon", "cutoffs", "said"),
    [
        (4.0, [2.0], "cutoff 2 (dashed), epsilon 4, 10 edges above"),
        ((0.04, 4.0), [0.2, 2.0], "cutoff 0.2 to 2 (dashed), epsilon 0.04 to 4, 16 edges above"),
        ((4.0, 4.0), [2.0], "cutoff 2 (dashed), epsilon 4, 10 edges above"),
        (100.0, [10.0], "cutoff 10 (dashed), epsilon 100, 0 edges above"),
    ],
)
def test_cutoffs_are_dashed_and_the_edges_above_them_counted(epsilon: Any, cutoffs: list[float], said: str) -> None:
    figure = plot_strengths(graph_of(*LABELS), epsilon)
    axes = figure.axes[0]
    dashed = [float(line.get_xdata()[0]) for line in axes.get_lines() if line.get_linestyle() == "--"]
    np.testing.assert_allclose(dashed, cutoffs)
    assert facts_of(figure) == said
