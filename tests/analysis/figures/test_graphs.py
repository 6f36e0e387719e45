"""Figures show every node and every edge above the cutoff, in the colours of the modules."""

import io

import numpy as np
import pytest
from cases_figures import facts_of, legend_of
from cases_graphs import planted
from cases_ledger import dense, generic, halves, inputs, weights_of
from cases_llc import quadratic
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from interbasis.analysis.degeneracy.ledger import parameter_ledger
from interbasis.analysis.errors import GraphError
from interbasis.analysis.figures.coefficients import plot_curve, plot_traces
from interbasis.analysis.figures.graphs import plot_graph, plot_membership, plot_strengths
from interbasis.analysis.figures.ledgers import plot_ledger, plot_synchronisation
from interbasis.analysis.figures.profiles import plot_epsilon_profile, plot_profile
from interbasis.analysis.figures.tracks import plot_tracking
from interbasis.analysis.graph.interaction_graph import InteractionGraph
from interbasis.analysis.graph.loss_scale import default_epsilon
from interbasis.analysis.llc.chains import Sampler
from interbasis.analysis.llc.estimate import learning_coefficient, learning_coefficient_curve
from interbasis.analysis.modules.find_modules import epsilon_profile, find_modules, score_partition
from interbasis.analysis.modules.partition import Partition
from interbasis.analysis.modules.tracking import track_modules

EPSILON = 1.0
GREY = to_rgba("#9a9a9a")


@pytest.fixture(scope="module")
def graph() -> InteractionGraph:
    given = planted((5, 4), n_cuts=4, seed=1)[0]
    blocks = [block.copy() for block in given.blocks]
    blocks[0][:, 3] = 0.5  # a node without an edge above the cutoff
    return InteractionGraph.from_blocks(blocks, importance=[np.arange(1.0, 10.0)] * 4)


@pytest.fixture(scope="module")
def partition(graph: InteractionGraph) -> Partition:
    labels = planted((5, 4), n_cuts=4, seed=1)[1]
    labels[0][3] = -1
    return score_partition(graph, labels, EPSILON)


def lines_of(figure: Figure) -> list[LineCollection]:
    return [drawn for drawn in figure.axes[0].collections if isinstance(drawn, LineCollection)]


def dots_of(figure: Figure) -> list[PathCollection]:
    return [drawn for drawn in figure.axes[0].collections if isinstance(drawn, PathCollection)]


def colour(module: int) -> tuple[float, ...]:
    return GREY if module < 0 else to_rgba(("tab:blue", "tab:orange")[module])


def draw(figure: Figure) -> None:
    figure.savefig(io.BytesIO(), format="png", dpi=40)


def assert_no_legend_over_axes(figure: Figure) -> None:
    """Once drawn, no legend covers what axes show, and all of it is on the figure."""
    figure.draw_without_rendering()
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    assert legends
    for legend in legends:
        box = legend.get_window_extent()
        assert not any(box.overlaps(axes.bbox) for axes in figure.axes)
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1


@pytest.mark.parametrize("epsilon", [None, 0.25, 4.0])
def test_as_many_dots_as_nodes_and_segments_as_edges(
    graph: InteractionGraph, partition: Partition, epsilon: float | None
) -> None:
    figure = plot_graph(graph, partition, epsilon)
    draw(figure)
    assert [len(dots.get_offsets()) for dots in dots_of(figure)] == [8, 9, 9, 9]
    assert sum(len(lines.get_segments()) for lines in lines_of(figure)) == graph.n_edges(epsilon or EPSILON)


def test_segments_join_the_dots_of_their_nodes(graph: InteractionGraph, partition: Partition) -> None:
    figure = plot_graph(graph, partition)
    at = [np.asarray(dots.get_offsets()) for dots in dots_of(figure)]
    at[0] = np.insert(at[0], 3, np.nan, axis=0)  # the node without edges has no dot
    drawn = {tuple(np.round(segment, 9).flatten()) for lines in lines_of(figure) for segment in lines.get_segments()}
    where = {cut: p for p, cut in enumerate(graph.cuts)}
    expected = [np.concatenate([at[where[a]][i], at[where[b]][j]]) for (a, i), (b, j), _ in graph.edges(EPSILON)]
    assert drawn == {tuple(np.round(ends, 9)) for ends in expected}


def test_dots_have_the_colour_of_their_module(graph: InteractionGraph, partition: Partition) -> None:
    assert partition.labels[0][3] == -1
    for dots, labels in zip(dots_of(plot_graph(graph, partition)), partition.labels, strict=True):
        np.testing.assert_allclose(dots.get_facecolors(), [colour(module) for module in labels if module >= 0])
    assert not any(GREY in map(tuple, dots.get_facecolors()) for dots in dots_of(plot_graph(graph, partition)))


def test_node_without_a_module_that_has_edges_is_grey(graph: InteractionGraph, partition: Partition) -> None:
    figure = plot_graph(graph, partition, 0.04)
    assert tuple(dots_of(figure)[0].get_facecolors()[3]) == GREY
    assert "no edge above the cutoff" in legend_of(figure)
    assert "without edges" not in figure.axes[0].get_xticklabels()[0].get_text()


def test_edges_inside_modules_are_coloured_and_others_grey(graph: InteractionGraph, partition: Partition) -> None:
    seen: dict[tuple[float, ...], int] = {}
    for lines in lines_of(plot_graph(graph, partition)):
        for rgba in lines.get_colors():
            seen[tuple(rgba[:3])] = seen.get(tuple(rgba[:3]), 0) + 1
    expected: dict[tuple[float, ...], int] = {}
    where = {cut: p for p, cut in enumerate(graph.cuts)}
    for (a, i), (b, j), _ in graph.edges(EPSILON):
        ends = partition.labels[where[a]][i], partition.labels[where[b]][j]
        key = colour(int(ends[0]) if ends[0] == ends[1] else -1)[:3]
        expected[key] = expected.get(key, 0) + 1
    assert seen == expected
    assert len(seen) == 3


def test_modules_are_bands_one_below_the_other_at_all_cuts(graph: InteractionGraph, partition: Partition) -> None:
    bands: dict[int, list[float]] = {}
    for dots, labels in zip(dots_of(plot_graph(graph, partition)), partition.labels, strict=True):
        heights = np.asarray(dots.get_offsets())[:, 1]
        assert len(set(heights)) == len(heights)
        for module, height in zip(labels[labels >= 0].tolist(), heights.tolist(), strict=True):
            bands.setdefault(module, []).append(height)
    assert min(bands[0]) > max(bands[1])


def test_larger_importance_is_a_larger_dot(graph: InteractionGraph) -> None:
    for dots, importance in zip(dots_of(plot_graph(graph)), graph.importance, strict=True):
        assert (np.diff(dots.get_sizes()) > 0).all(), "like the importance"
        assert (np.diff(importance) > 0).all()


def test_without_a_partition_the_default_cutoff_is_used(graph: InteractionGraph) -> None:
    figure = plot_graph(graph)
    shown = graph.n_edges(default_epsilon(graph))
    assert sum(len(lines.get_segments()) for lines in lines_of(figure)) == shown
    assert f"{shown:,} edges" in facts_of(figure)


def test_title_counts_modules_edges_and_what_is_hidden(graph: InteractionGraph, partition: Partition) -> None:
    title = facts_of(plot_graph(graph, partition))
    assert "2 modules" in title
    assert f"{graph.n_edges(EPSILON):,} edges" in title
    assert "not drawn" not in title
    one = score_partition(graph, [np.zeros(width, int) for width in graph.widths], EPSILON)
    assert "one module" in facts_of(plot_graph(graph, one))


def test_only_the_strongest_edges_of_a_large_graph_are_drawn() -> None:
    block = np.random.default_rng(0).uniform(1, 2, (70, 70))
    figure = plot_graph(InteractionGraph.from_blocks([block]), epsilon=0.5)
    segments = np.concatenate([lines.get_segments() for lines in lines_of(figure)])
    assert len(segments) == 4000
    assert "4,900 edges (900 weakest not drawn)" in facts_of(figure)
    at = [np.asarray(dots.get_offsets())[:, 1] for dots in dots_of(figure)]
    ends = [{height: i for i, height in enumerate(heights)} for heights in at]
    drawn = [block[ends[1][b], ends[0][a]] for (_, a), (_, b) in segments]
    assert min(drawn) == pytest.approx(np.sort(block.flatten())[900])


def test_cuts_are_named_with_their_widths(graph: InteractionGraph, partition: Partition) -> None:
    for figure in (plot_graph(graph, partition), plot_membership(partition)):
        names = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
        assert names == ["0\n9 nodes\n1 without edges", *(f"{i}\n9 nodes" for i in range(1, 4))]


def test_partition_of_another_graph_is_refused(graph: InteractionGraph, partition: Partition) -> None:
    other = InteractionGraph.from_blocks([np.ones((1, 1))] * len(graph.blocks))
    with pytest.raises(GraphError, match="the partition is of another graph"):
        plot_graph(other, partition)


def test_graph_without_edges_above_the_cutoff_is_drawn() -> None:
    figure = plot_graph(InteractionGraph.from_blocks([[[0.5, 0.1]]]), epsilon=1.0)
    draw(figure)
    assert lines_of(figure) == []
    assert [len(dots.get_offsets()) for dots in dots_of(figure)] == [0, 0]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == [
        "0\n2 nodes\n2 without edges",
        "1\n1 node\n1 without edges",
    ]


def test_nodes_are_named_where_they_have_names() -> None:
    blocks = [np.full((2, 2), 2.0)]
    graph = InteractionGraph.from_blocks(blocks, ["in", "out"])
    assert not plot_graph(graph).axes[0].texts
    named = plot_graph(graph, names={"in": ["left", "right"]}).axes[0].texts
    assert [(text.get_text(), text.xy[0], text.get_ha()) for text in named] == [
        ("left", 0, "right"),
        ("right", 0, "right"),
    ]
    own = InteractionGraph.from_blocks(blocks, ["in", "out"], settings={"output": "neuron"})
    assert [(text.get_text(), text.xy[0]) for text in plot_graph(own).axes[0].texts] == [("0", 1), ("1", 1)]
    with pytest.raises(GraphError, match="1 names were given for the 2 nodes of out"):
        plot_graph(graph, names={"out": ["yes"]})
    with pytest.raises(GraphError, match="names were given for the cut 'middle'"):
        plot_graph(graph, names={"middle": ["yes"]})


def test_graph_without_strengths_and_cutoff_raises() -> None:
    with pytest.raises(GraphError, match="all strengths of the graph are 0"):
        plot_graph(InteractionGraph.from_blocks([[[0.0]]]))


def test_membership_colours_every_coordinate() -> None:
    blocks = [np.full((3, 2), 2.0), np.full((1, 3), 2.0)]
    blocks[0][1] = blocks[1][:, 1] = 0.1
    partition = score_partition(InteractionGraph.from_blocks(blocks), [[0, 1], [0, -1, 1], [0]], EPSILON)
    figure = plot_membership(partition)
    draw(figure)
    picture = np.asarray(figure.axes[0].images[0].get_array())
    assert picture.shape == (3, 3, 4)
    for p, labels in enumerate(partition.labels):
        np.testing.assert_allclose(picture[: len(labels), p], [colour(module) for module in labels])
        np.testing.assert_allclose(picture[len(labels) :, p], 1)
    assert partition.labels[1][1] == -1


def test_legends_say_what_colours_mean(graph: InteractionGraph, partition: Partition) -> None:
    modules = ["module 0", "module 1"]
    assert legend_of(plot_graph(graph, partition)) == [*modules, "edge between modules"]
    assert legend_of(plot_membership(partition)) == [*modules, "no edge above the cutoff"], "a node amid others"
    assert legend_of(plot_graph(graph)) == []
    for figure in (plot_graph(graph, partition), plot_membership(partition)):
        assert_no_legend_over_axes(figure)
        keys = figure.axes[0].get_legend().get_patches()
        assert [key.get_facecolor() for key in keys][:2] == [colour(0), colour(1)]


def test_methods_draw_the_same_figures(graph: InteractionGraph, partition: Partition) -> None:
    assert facts_of(graph.plot(partition)) == facts_of(plot_graph(graph, partition))
    assert facts_of(partition.plot()) == facts_of(plot_membership(partition))


def test_profile_shows_every_resolution_of_every_criterion() -> None:
    part = find_modules(planted((8, 8), seed=0)[0], epsilon=1.0, n_null=4)
    figure = part.plot_profile()
    draw(figure)
    assert len(figure.axes) == 2 * 5
    for axes, name in zip(figure.axes[:2], ("layered_cpm", "layered_modularity"), strict=True):
        rows = [row for row in part.profile if row.objective == name]
        line = axes.get_lines()[0]
        np.testing.assert_allclose(line.get_xdata(), [row.resolution for row in rows])
        np.testing.assert_allclose(line.get_ydata(), [row.n_modules for row in rows])
    for axes in figure.axes[-2:]:
        ticks, labels = axes.get_xticks(), [label.get_text() for label in axes.get_xticklabels()]
        assert [float(label) for label in labels] == list(ticks)
        assert {label.strip("0.") for label in labels} <= {"1", "2", "5"}
        assert len(labels) > 1
    dashed = [axes for axes in figure.axes if any(line.get_linestyle() == "--" for line in axes.get_lines())]
    assert len(dashed) == 5  # the chosen objective's column


def test_profile_without_null_graphs_says_so(partition: Partition, graph: InteractionGraph) -> None:
    figure = plot_profile(find_modules(graph, epsilon=EPSILON, resolution=1.0))
    draw(figure)
    assert all(tick == round(tick) for tick in figure.axes[0].get_yticks())
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == ["1"]
    assert any("no null graphs" in text.get_text() for axes in figure.axes for text in axes.texts)
    with pytest.raises(GraphError, match="it has no profile"):
        plot_profile(partition)


def test_strengths_show_the_cutoff(graph: InteractionGraph) -> None:
    figure = plot_strengths(graph, 4.0)
    draw(figure)
    assert any(set(line.get_xdata()) == {2.0} for line in figure.axes[0].get_lines())
    assert f"{graph.n_edges(4.0):,} edges above" in facts_of(figure)
    assert f"epsilon {default_epsilon(graph):.3g}" in facts_of(plot_strengths(graph))


def test_epsilon_profile_has_a_point_for_each_scale(graph: InteractionGraph) -> None:
    parts = epsilon_profile(graph, [0.5, 1.0, 2.0], resolution=1.0)
    assert [part.epsilon for part in parts] == [2.0, 1.0, 0.5]
    figure = plot_epsilon_profile(parts)
    draw(figure)
    np.testing.assert_allclose(figure.axes[0].get_lines()[0].get_ydata(), [p.n_modules for p in reversed(parts)])
    assert all(tick == round(tick) for tick in figure.axes[0].get_yticks())
    with pytest.raises(GraphError, match="no partitions to plot"):
        plot_epsilon_profile([])


def test_tracks_have_a_bar_for_each_module(graph: InteractionGraph) -> None:
    tracking = track_modules([graph, graph], epsilon=EPSILON, objective="kway", k=2)
    figure = plot_tracking(tracking)
    draw(figure)
    bars = [bar for container in figure.axes[0].containers for bar in container]
    sizes = [module.size for part in tracking.partitions for module in part.modules]
    np.testing.assert_allclose(sorted(bar.get_height() for bar in bars), sorted(sizes))
    assert len(figure.axes[0].collections) == 2  # flows
    assert "2 modules over 2 checkpoints" in facts_of(figure)


@pytest.mark.parametrize(
    "options", [{}, {"method": "estimate"}, {"epsilon": 0.1}, {"epsilon": 0.1, "method": "estimate"}]
)
def test_waterfall_goes_from_all_parameters_to_the_effective_ones(options: dict) -> None:
    model = generic((5, 6, 3))
    weights_of(model, 0)[1][0] = -30.0
    ledger = parameter_ledger(dense(model), halves(inputs(200, 5)), **options)
    figure = plot_ledger(ledger)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == [name for name, _ in ledger.rows()]
    bars = [bar for bar in axes.patches if bar.get_height() and not bar.get_hatch()]
    heights = [sum(bar.get_height() for bar in bars if round(bar.get_x() + 0.36) == x) for x in range(7)]
    exact = ledger.hessian.exact
    assert heights == [count for _, count in ledger.rows()[:-1]] + [ledger.effective if exact else ledger.hessian.lower]
    said = {text.get_text() for text in axes.texts}
    assert ("not known" in said) == (ledger.hessian.method == "sampled")
    names = legend_of(figure)
    assert [name.split()[0] for name in names[: len(ledger.layers)]] == [layer.name for layer in ledger.layers]
    assert names[len(ledger.layers) :] == ([] if exact else ["not known: effective or unexplained"])
    assert_no_legend_over_axes(figure)


def test_distances_are_sorted_by_block_and_blocks_framed() -> None:
    model = generic((5, 6, 3))
    w, b = weights_of(model, 0)
    w[4], b[4] = w[1], b[1]
    b[0], b[2] = -30.0, 30.0
    units = parameter_ledger(dense(model), halves(inputs(200, 5))).units[0]
    figure = plot_synchronisation(units)
    axes = figure.axes[0]
    shown = axes.images[0].get_array()
    order = [*units.blocks[0], *(u for block in units.blocks[1:] for u in block), 0]
    share = units.distances / np.maximum(units.power[:, None], units.power[None])
    np.testing.assert_allclose(shown, np.maximum(share[np.ix_(order, order)], 1e-6))
    assert [patch.get_width() for patch in axes.patches] == [2, 1, 1], "two alike, one always on, one dead"
    figure.savefig(io.BytesIO())


def test_curve_shows_every_scale_in_the_colour_of_its_verdict() -> None:
    sampler = Sampler(gamma=1.0, chains=2, warmup=30, draws=60, control_variate=False)
    curve = learning_coefficient_curve(quadratic([1.0, 2.0]), epsilons=[1e-4, 1e-3, 1e-2], sampler=sampler)
    left, right = plot_curve(curve).axes
    np.testing.assert_array_equal(left.lines[1].get_xdata(), curve.epsilons)
    np.testing.assert_array_equal(left.lines[1].get_ydata(), curve.n_effective)
    names = legend_of(left.figure)
    assert_no_legend_over_axes(left.figure)
    assert set(names) - {"soft rank (quadratic loss)"} == {point.verdict for point in curve.points}
    np.testing.assert_array_equal(right.containers[0].lines[0].get_ydata(), curve.log_volume)
    left.figure.savefig(io.BytesIO())


def test_traces_show_every_chain_and_the_estimate() -> None:
    sampler = Sampler(gamma=1.0, chains=3, warmup=30, draws=60)
    found = learning_coefficient(quadratic([1.0, 2.0]), temperature=100.0, sampler=sampler)
    upper, lower = plot_traces(found).axes
    for chain in range(3):
        np.testing.assert_array_equal(upper.lines[chain].get_ydata(), found.traces["llc"][chain])
        np.testing.assert_array_equal(lower.lines[chain].get_ydata(), found.traces["radius"][chain])
    assert upper.lines[3].get_ydata()[0] == found.value
    assert found.verdict in facts_of(upper.figure)
    assert legend_of(upper.figure)[:3] == [f"chain {chain}" for chain in range(3)]
    assert_no_legend_over_axes(upper.figure)
