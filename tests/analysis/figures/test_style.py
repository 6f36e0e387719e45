"""Colours, legends and titles that figures share."""

import numpy as np
import pytest
from cases_figures import EPSILON, graph_of, partition_of
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from interbasis.analysis import score_partition
from interbasis.analysis.figures.style import (
    GREY,
    folded,
    graph_title,
    module_colours,
    module_legend,
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


def test_ten_colours_repeat_and_no_module_is_grey() -> None:
    colours = module_colours(np.array([0, 3, 10, 13, -1]))
    np.testing.assert_array_equal(colours[0], colours[2])
    np.testing.assert_array_equal(colours[1], colours[3])
    np.testing.assert_allclose(colours[4], to_rgba(GREY))
    assert len(np.unique(module_colours(np.arange(-1, 10)), axis=0)) == 11


@pytest.mark.parametrize(
    ("labels", "edges", "names"),
    [
        ([[0, 0], [0]], True, ["module 0"]),
        ([[0], [1]], True, ["module 0", "module 1", "edge between modules"]),
        ([[0, 1]], False, ["module 0", "module 1"]),
        ([[0, -1], [1, -1]], False, ["module 0", "module 1", "no edge above the cutoff"]),
        ([[2, 12, 22]], False, ["module 2, 12, 22"]),
        ([[2, 12, 22, 32]], False, ["module 2, 12, 22, ..."]),
        ([[-1, -1]], True, ["no edge above the cutoff"]),
    ],
)
def test_legend_names_what_is_there(labels: list[list[int]], edges: bool, names: list[str]) -> None:
    figure = Figure()
    module_legend(figure, [np.array(label) for label in labels], edges=edges)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names


def test_title_of_a_graph_says_what_is_shown() -> None:
    partition = partition_of([0, 0, 1], [0, 1, 1])
    assert graph_title(partition, (EPSILON,)) == ["2 modules", "cost between modules 0", "epsilon 1"]
    assert graph_title(partition_of([0, 0], [0]), (0.25, 4.0))[::2] == ["one module", "epsilon 0.25 to 4"]
    assert graph_title(None, (0.5, 0.5), 12_345, 678) == ["epsilon 0.5", "12,345 edges (678 weakest not drawn)"]
    assert graph_title(None, (0.5,), 0) == ["epsilon 0.5", "0 edges"]


def test_cost_in_a_title_is_that_of_the_edges_between_modules() -> None:
    crossed = score_partition(graph_of([0, 1], [0, 1]), [np.array([0, 1]), np.array([1, 0])], EPSILON)
    assert graph_title(crossed, crossed.epsilons)[1] == f"cost between modules {2 * np.log(3.0):.3g}"
