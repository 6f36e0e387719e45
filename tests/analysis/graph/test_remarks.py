"""What a reader is told of a graph's numbers."""

import numpy as np

from interbasis.analysis import InteractionGraph
from interbasis.analysis.graph import graph_remarks


def graph(errors: list[np.ndarray | None], **settings: object) -> InteractionGraph:
    blocks = [np.array([[1.0, 0.01], [2.0, 4.0]]), np.array([[0.5, 0.5]])]
    return InteractionGraph.from_blocks(blocks, settings=settings, errors=errors)


def test_exact_graph_of_many_data_needs_no_remark() -> None:
    assert graph_remarks(InteractionGraph.from_blocks([np.ones((2, 2))]), [0.01]) == ()


def test_error_of_estimates_is_the_largest_median_over_edges_only() -> None:
    first = np.array([[0.1, 1.0], [0.04, 0.4]])  # relative: .1, (no edge: 100), .02, .1
    second = np.array([[0.05, 0.01]])  # relative: .1, .02, median .06
    (said,) = graph_remarks(graph([first, second], probes=8, importance_error=0.031), [0.01, 0.01])
    assert said == (
        "Estimated with 8 random probes per data point: relative standard errors are 3.1% of the importance, and 10.0% "
        "of the strengths (median)."
    )
    (said,) = graph_remarks(graph([None, second], signs=1), [0.01, 0.01])
    assert (
        said
        == "Estimated with 1 random probe per data point: relative standard errors are 6.0% of the strengths (median)."
    )
    assert graph_remarks(graph([first, second], probes=8), [100.0, 100.0]) == (), "no edge has an error"


def test_assumptions_and_limits_of_the_rank_are_said() -> None:
    limits = {"data": ["a"], "format": ["b", "c"]}
    said = graph_remarks(
        graph([None, None], remarks=["Assumed: x."], rank_limited=limits, rank_tolerance=1e-6), [0.01, 0.01]
    )
    assert said[0] == "Assumed: x."
    assert said[1].startswith("Few data: at a there are no more points than features")
    assert said[2] == "At b, c the number format limits the rank: directions below 1e-06 of the largest are rounding."
