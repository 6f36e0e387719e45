"""Colours, legends and titles that figures share."""

import numpy as np
import pytest
from cases_figures import EPSILON, assert_readable, facts_of, graph_of, legend_of, partition_of, title_of
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgba

from interbasis.analysis import score_partition
from interbasis.analysis.figures.style import (
    GREY,
    beside,
    blank,
    capped,
    folded,
    graph_facts,
    heading,
    in_style,
    module_colours,
    module_legend,
    scaled,
    spans_decades,
    title_lines,
    with_widths,
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("abc ", min_size=1, max_size=30), min_size=1, max_size=6), st.floats(0, 10))
def test_title_keeps_its_parts_whole_and_in_order(parts: list[str], inches: float) -> None:
    title = title_lines(parts, inches)
    assert title.replace("\n", " ") == ", ".join(parts)
    lines = title.split("\n")
    narrow = [line for line in lines if len(line.rstrip(",")) >= 13 * inches]
    assert all(line.rstrip(",") in parts for line in narrow), "only a part that is too long by itself"


def test_title_has_one_line_where_there_is_room() -> None:
    parts = ["two modules", "epsilon 1", "12 edges"]
    assert title_lines(parts, 10.0) == "two modules, epsilon 1, 12 edges"
    assert title_lines(parts, 1.8) == "two modules, epsilon 1,\n12 edges"
    assert title_lines(parts, 0.1) == "two modules,\nepsilon 1,\n12 edges"
    assert title_lines(["alone"], 0.0) == "alone"


@pytest.mark.parametrize(
    ("name", "room", "lines"),
    [("", 3, ""), ("abc", 3, "abc"), ("abcd", 3, "abc\nd"), ("abcdefg", 3, "abc\ndef\ng"), ("ab", 1, "a\nb")],
)
def test_names_are_folded_where_room_ends(name: str, room: int, lines: str) -> None:
    assert folded(name, room) == lines


def test_cuts_are_named_with_their_number_of_nodes() -> None:
    assert with_widths(["in", "layers.10.mlp"], [1, 20], 9) == ["in\n1 node", "layers.10\n.mlp\n20 nodes"]


def test_nodes_without_edges_are_counted_at_their_cut() -> None:
    assert with_widths(["a", "b"], [39, 20], 26, [25, 0]) == ["a\n39 nodes\n25 without edges", "b\n20 nodes"]
    assert with_widths(["a"], [39], 9, [25]) == ["a\n39 nodes\n25 without\nedges"]


def test_no_two_modules_have_one_colour_and_none_is_grey() -> None:
    colours = module_colours(np.arange(-1, 200))
    np.testing.assert_allclose(colours[0], to_rgba(GREY))
    assert len(np.unique(colours.round(4), axis=0)) == 201
    first = colours[:25, :3]  # grey and 24 modules
    apart = np.linalg.norm(first[:, None] - first, axis=2) + np.eye(25)
    assert apart.min() > 0.15
    assert np.linalg.norm(colours[25:, :3] - first[0], axis=1).min() > 0.15


@pytest.mark.parametrize(
    ("labels", "grey", "between", "names"),
    [
        ([[0, 0], [0]], False, False, ["module 0"]),
        ([[0], [1]], False, True, ["module 0", "module 1", "edge between modules"]),
        ([[0, -1], [1, -1]], True, False, ["module 0", "module 1", "no edge above the cutoff"]),
        ([[0, -1], [1, -1]], False, False, ["module 0", "module 1"]),
        ([[-1, -1]], True, False, ["no edge above the cutoff"]),
        ([range(42)], False, False, [*(f"module {i}" for i in range(24)), "and 18 more modules"]),
    ],
)
def test_legend_names_what_is_there(labels: list[list[int]], grey: bool, between: bool, names: list[str]) -> None:
    figure = blank(4.0, 4.0)
    module_legend(figure.add_subplot(), [np.array(label) for label in labels], grey=grey, between=between)
    assert legend_of(figure) == names


def test_legend_of_nothing_is_none() -> None:
    figure = blank(4.0, 4.0)
    beside(figure.add_subplot(), capped([], "layers"))
    assert legend_of(figure) == []


def test_heading_keeps_its_room_free() -> None:
    figure = blank(4.0, 3.0)
    heading(figure, ["2 modules", "epsilon 1"], "a $model$ of 1_000 steps")
    axes = figure.add_subplot()
    assert_readable(figure)
    assert (title_of(figure), facts_of(figure)) == ("a $model$ of 1_000 steps", "2 modules, epsilon 1")
    assert max(axes.get_tightbbox().y1, axes.bbox.y1) < min(text.get_window_extent().y0 for text in figure.texts)
    bare = blank(4.0, 3.0)
    heading(bare, ["2 modules"])
    assert title_of(bare) is None


def test_style_is_ours_and_leaves_settings_as_they_were() -> None:
    import matplotlib

    @in_style
    def drawn() -> tuple[float, bool]:
        return matplotlib.rcParams["font.size"], matplotlib.rcParams["axes.spines.top"]

    with matplotlib.rc_context({"font.size": 30.0, "axes.facecolor": "black"}):
        before = dict(matplotlib.rcParams)
        assert drawn() == (9.0, False)
        assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("values", "wide", "scale"),
    [
        ([1.0, 29.0], False, "linear"),
        ([1.0, 31.0], True, "log"),
        ([0.0, 1.0, 31.0], True, "symlog"),
        ([-1.0, 1.0, 31.0], True, "symlog"),
        ([0.0, 5.0], False, "linear"),
        ([np.nan, np.inf], False, "linear"),
        ([], False, "linear"),
    ],
)
def test_axis_is_logarithmic_where_values_span_decades(values: list[float], wide: bool, scale: str) -> None:
    axes = blank(4.0, 3.0).add_subplot()
    scaled(axes, "y", values)
    assert spans_decades(values) is wide
    assert axes.get_yscale() == scale


def test_title_of_a_graph_says_what_is_shown() -> None:
    partition = partition_of([0, 0, 1], [0, 1, 1])
    assert graph_facts(partition, (EPSILON,)) == ["2 modules (untested)", "cost between modules 0", "epsilon 1"]
    assert graph_facts(partition_of([0, 0], [0]), (0.25, 4.0)) == ["one module", "epsilon 0.25 to 4"]
    assert graph_facts(None, (0.5, 0.5), 12_345, 678) == ["epsilon 0.5", "12,345 edges (678 weakest not drawn)"]
    assert graph_facts(None, (0.5,), 0) == ["epsilon 0.5", "0 edges"]


def test_cost_in_a_title_is_that_of_the_edges_between_modules() -> None:
    crossed = score_partition(graph_of([0, 1], [0, 1]), [np.array([0, 1]), np.array([1, 0])], EPSILON)
    assert graph_facts(crossed, crossed.epsilons)[1] == f"cost between modules {2 * np.log(3.0):.3g}"
