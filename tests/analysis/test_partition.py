import dataclasses

import numpy as np
import pytest
from cases_graphs import planted, trained, unstructured
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from interbasis.analysis import cost
from interbasis.analysis.errors import GraphError, InputError
from interbasis.analysis.graph import InteractionGraph
from interbasis.analysis.partition import Partition, default_epsilon, find_modules, score_partition
from interbasis.analysis.search import multiplex

BLOCKS = np.kron(np.eye(2), np.ones((2, 2)))
SQUARES = InteractionGraph.from_blocks([BLOCKS, BLOCKS], cuts=["a", "b", "c"])


def agreement(part, truth):
    """Adjusted Rand index on the nodes that are in a module."""
    labels, truth = np.concatenate(part.labels), np.concatenate(truth)
    return adjusted_rand_score(truth[labels >= 0], labels[labels >= 0])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(cost.OBJECTIVES), st.sampled_from([0.0, 0.3, 1.0, 2.5]))
def test_quality_is_leidenalgs(seed, objective, resolution):
    generator = np.random.default_rng(seed)
    blocks = [np.exp(generator.standard_normal(shape)) for shape in ((5, 6), (4, 5), (6, 4))]
    graph = InteractionGraph.from_blocks(blocks)
    labels = [generator.integers(0, 5, k) for k in graph.widths]
    flat = np.unique(np.concatenate(labels), return_inverse=True)[1].tolist()
    theirs = sum(
        weight * kind(layer, initial_membership=flat, **options).quality()
        for layer, kind, weight, options in multiplex(cost.graph_costs(graph, 1.0), objective, resolution)
    )
    ours = cost.quality(graph, labels, 1.0, objective=objective, resolution=resolution)
    assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("objective", cost.OBJECTIVES)
def test_search_is_as_good_as_leidenalgs(objective):
    graph, _ = planted((8, 8, 8), seed=0, inside=0.3, noise=-0.3)
    options = {"epsilon": 1.0, "objective": objective, "resolution": 1.0}
    ours = find_modules(graph, **options, restarts=10)
    theirs = find_modules(graph, **options, restarts=3, backend="leidenalg")
    assert ours.quality >= 0.98 * theirs.quality
    assert theirs.quality >= 0.9 * ours.quality


def test_unknown_backend_is_named():
    with pytest.raises(GraphError, match="unknown backend 'louvain'"):
        find_modules(SQUARES, epsilon=0.5, backend="louvain")


@pytest.mark.parametrize("objective", cost.OBJECTIVES)
def test_no_single_move_improves_the_partition(objective):
    graph, _ = planted((6, 6), seed=1)
    part = find_modules(graph, epsilon=1.0, objective=objective, resolution=0.5)
    labels = [np.maximum(a, 0) for a in part.labels]
    gains = [
        cost.move_gain(graph, part.labels, (cut, i), m, 1.0, objective=objective, resolution=0.5)
        for cut, a in enumerate(labels)
        for i in range(len(a))
        if part.labels[cut][i] >= 0
        for m in range(part.n_modules + 1)
    ]
    assert max(gains) < 1e-9


def test_two_squares_by_hand():
    part = find_modules(SQUARES, epsilon=np.exp(-2.0), resolution=1.0)
    assert [a.tolist() for a in part.labels] == [[0, 0, 1, 1]] * 3
    assert part.quality == pytest.approx(2 * (8 - 2 * 4 * 4 / 8))
    assert (part.edge_cost, part.mediator_cost, part.normalised_cost, part.contrast) == (0, 0, 0, 1)
    assert part.modules[0].sizes == (2, 2, 2)
    assert part.modules[0].cuts == ("a", "b", "c")
    assert part.modules[0].inner_cost == pytest.approx(8.0)
    assert part.p_value is None


@pytest.mark.parametrize("sizes", [(10, 10), (24, 8), (8, 8, 8), (6,) * 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_planted_modules_are_found(sizes, seed):
    graph, truth = planted(sizes, seed=seed, inside=0.8)
    part = find_modules(graph, epsilon=1.0, seed=seed)
    assert part.n_modules == len(sizes)
    assert agreement(part, truth) > 0.9
    assert part.p_value == pytest.approx(1 / 21)


@pytest.mark.parametrize("sizes", [(20, 20), (39, 7)])
@pytest.mark.parametrize("seed", [1, 2])
def test_two_modules_of_a_network_like_graph(sizes, seed):
    graph, truth = trained(sizes, seed=seed)
    strongest = max(block.max() for block in graph.blocks)
    part = find_modules(graph, epsilon=(0.003 * strongest) ** 2, seed=seed)
    assert part.n_modules == 2
    assert agreement(part, truth) > 0.95


@pytest.mark.parametrize("kind", ["uniform", "sparse", "hubs", "decay"])
@pytest.mark.parametrize("seed", range(3))
def test_graphs_without_modules_are_one_module(kind, seed):
    part = find_modules(unstructured(kind, seed=seed), epsilon=1.0, seed=seed)
    assert part.n_modules == 1
    assert part.edge_cost == 0


def test_same_seed_same_result():
    graph, _ = planted((8, 8), seed=0)
    first, second = (find_modules(graph, epsilon=1.0, seed=5) for _ in range(2))
    assert first.to_bytes() == second.to_bytes()


def test_order_of_nodes_does_not_matter():
    graph, _ = planted((10, 10), seed=3, inside=0.8)
    generator = np.random.default_rng(0)
    orders = [generator.permutation(k) for k in graph.widths]
    moved = InteractionGraph.from_blocks([b[np.ix_(orders[p + 1], orders[p])] for p, b in enumerate(graph.blocks)])
    parts = [find_modules(g, epsilon=1.0) for g in (graph, moved)]
    labels = [a[order] for a, order in zip(parts[0].labels, orders, strict=True)]
    assert adjusted_rand_score(np.concatenate(labels), np.concatenate(parts[1].labels)) == 1.0


def test_default_epsilon_follows_the_scale_of_the_strengths():
    graph, _ = planted((8, 8), seed=0)
    scaled = InteractionGraph.from_blocks([7.0 * block for block in graph.blocks])
    assert default_epsilon(scaled) == pytest.approx(49 * default_epsilon(graph))
    first, second = find_modules(graph), find_modules(scaled)
    assert all(np.array_equal(a, b) for a, b in zip(first.labels, second.labels, strict=True))
    assert second.normalised_cost == pytest.approx(first.normalised_cost)
    assert second.full_strength == pytest.approx(7 * first.full_strength)


def test_normalised_cost_of_a_given_epsilon_is_the_papers():
    graph = InteractionGraph.from_blocks([np.array([[4.0, 0.3], [0.0, 4.0]])])
    part = score_partition(graph, [[0, 1], [0, 1]], 0.01)
    assert part.normalised_cost == pytest.approx(1 - 2 * np.log(0.3) / np.log(0.01))
    assert score_partition(graph, [[0, 1], [0, 1]], 2.0).normalised_cost is None


def test_nodes_without_an_edge_are_in_no_module():
    graph = InteractionGraph.from_blocks([np.array([[1.0, 0.0], [1.0, 0.0]])])
    part = find_modules(graph, epsilon=0.01, resolution=1.0)
    assert [a.tolist() for a in part.labels] == [[0, -1], [0, 0]]
    assert part.modules[0].size == 3


def test_modules_are_numbered_by_size():
    part = score_partition(SQUARES, [[9, 9, 4, 4], [9, 7, 4, 4], [7, 7, 4, 4]], 0.1)
    assert [a.tolist() for a in part.labels] == [[1, 1, 0, 0], [1, 2, 0, 0], [2, 2, 0, 0]]
    assert [m.size for m in part.modules] == [6, 3, 3]


def test_profile_holds_every_resolution():
    graph, _ = planted((8, 8), seed=0)
    part = find_modules(graph, epsilon=1.0, objective="layered_cpm", n_null=4)
    assert {row.objective for row in part.profile} == {"layered_cpm"}
    assert all(row.gap == pytest.approx(row.quality - row.null_mean) for row in part.profile)
    assert part.resolution in [row.resolution for row in part.profile]


def test_p_value_of_a_given_resolution():
    graph, _ = planted((8, 8), seed=0)
    part = find_modules(graph, epsilon=1.0, resolution=0.7, n_null=9)
    assert part.p_value == pytest.approx(0.1)
    assert len(part.profile) == 1


def test_save_and_load(tmp_path):
    graph, _ = planted((8, 8), seed=0)
    part = find_modules(graph, epsilon=1.0, n_null=4)
    part.save(tmp_path / "p.safetensors")
    loaded = Partition.load(tmp_path / "p.safetensors")
    assert all(np.array_equal(a, b) for a, b in zip(loaded.labels, part.labels, strict=True))
    for field in dataclasses.fields(part):
        if field.name != "labels":
            assert getattr(loaded, field.name) == getattr(part, field.name), field.name
    with pytest.raises(InputError, match="holds a graph"):
        Partition.from_bytes(graph.to_bytes())


def test_repr_names_the_modules():
    text = repr(find_modules(SQUARES, epsilon=0.1, resolution=1.0))
    assert text.startswith("Partition: 2 modules, edge cost 0")
    assert "0: 6 nodes (2, 2, 2)" in text


def test_progress_reports_and_cancels():
    reports = []
    find_modules(SQUARES, epsilon=0.1, n_null=4, progress=reports.append)
    assert [r.fraction for r in reports if r.step == "null graphs"] == [0, 0.25, 0.5, 0.75, 1]
    assert reports[-1].fraction == 1

    def cancel(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_modules(SQUARES, epsilon=0.1, progress=cancel)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"epsilon": -1.0}, "epsilon is -1.0"),
        ({"epsilon": np.nan}, "epsilon is nan"),
        ({"epsilon": 4.0}, "strongest strength is 1; choose a smaller epsilon"),
        ({"objective": "modularity"}, "layered_cpm, layered_modularity"),
        ({"resolution": -1.0}, "resolution is -1.0"),
        ({"resolution": np.nan}, "resolution is nan"),
        ({"n_null": 2}, "n_null is 2"),
        ({"n_null": -1, "resolution": 1.0}, "n_null is -1"),
        ({"restarts": 0}, "restarts 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(GraphError, match=message):
        find_modules(SQUARES, **options)


def test_graph_of_zeros():
    with pytest.raises(GraphError, match="all strengths of the graph are 0"):
        find_modules(InteractionGraph.from_blocks([np.zeros((2, 2))]))
