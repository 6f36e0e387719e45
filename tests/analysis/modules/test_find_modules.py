from dataclasses import replace

import numpy as np
import pytest
from cases_graphs import planted, trained, unstructured
from cases_long import SEEDS
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from interbasis.analysis.errors import GraphError, InputError
from interbasis.analysis.graph import cost
from interbasis.analysis.graph.interaction_graph import InteractionGraph
from interbasis.analysis.graph.loss_scale import default_epsilon
from interbasis.analysis.modules.find_modules import find_modules, score_partition
from interbasis.analysis.modules.partition import Partition
from interbasis.analysis.search import leiden, objectives
from interbasis.analysis.search.leidenalg_backend import multiplex
from interbasis.analysis.search.local_search import Effort, Search

BLOCKS = np.kron(np.eye(2), np.ones((2, 2)))
SQUARES = InteractionGraph.from_blocks([BLOCKS, BLOCKS], cuts=["a", "b", "c"])


def agreement(part, truth):
    """Adjusted Rand index on the nodes that are in a module."""
    labels, truth = np.concatenate(part.labels), np.concatenate(truth)
    return adjusted_rand_score(truth[labels >= 0], labels[labels >= 0])


FREE = [name for name, objective in objectives.OBJECTIVES.items() if not objective.fixed]


def random_graph(seed, widths=(6, 5, 4, 6), skip=True):
    """Log-normal strengths, with a pair of cuts that skips one."""
    generator = np.random.default_rng(seed)
    pairs = [(0, 1), (1, 2), (2, 3), *([(0, 2)] if skip else [])]
    blocks = [np.exp(generator.standard_normal((widths[b], widths[a]))) for a, b in pairs]
    return InteractionGraph.from_blocks(blocks, pairs=pairs)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(FREE), st.sampled_from([0.0, 0.3, 1.0, 2.5]))
def test_quality_is_leidenalgs(seed, objective, resolution):
    graph = random_graph(seed, skip=objective != "layered_modularity")  # leidenalg has no totals over several pairs
    generator = np.random.default_rng(seed)
    labels = [generator.integers(0, 5, k) for k in graph.widths]
    flat = np.unique(np.concatenate(labels), return_inverse=True)[1].tolist()
    layers = multiplex(cost.edge_costs(graph, 1.0), graph.pair_slices, graph.n_nodes, objective, resolution)
    theirs = sum(w * kind(g, initial_membership=flat, **options).quality() for g, kind, w, options in layers)
    ours = objectives.quality(graph, labels, 1.0, objective=objective, resolution=resolution)
    assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("objective", FREE)
def test_search_is_as_good_as_the_best_of_ten_runs_of_leidenalg(objective):
    """On most graphs at least as good, on every one nearly."""
    unit = {"layered_cpm": 0.5, "cpm": 0.1}.get(objective, 1.0)
    options = {"epsilon": 1.0, "objective": objective, "resolution": unit}
    ratios = []
    for seed, inside in ((0, 0.3), (1, 0.15), (2, 0.3)):
        graph, _ = planted((12, 12, 12), seed=seed, inside=inside, noise=-0.3)
        theirs = find_modules(graph, **options, effort=Effort(10, 0), backend="leidenalg")
        ratios.append(find_modules(graph, **options).quality / theirs.quality)
    assert min(ratios) > 0.995
    assert np.median(ratios) > 1 - 1e-9


@pytest.mark.parametrize("entry", list(objectives.OBJECTIVES))
def test_every_objective_keeps_the_contract(entry):
    """Named in the registry, searched, scored alike by the kernel and by the definition, reproducible."""
    graph, _ = planted((8, 8), seed=2)
    options = {"k": 3} if objectives.OBJECTIVES[entry].fixed else {"resolution": 0.3}
    part, again = (find_modules(graph, epsilon=1.0, objective=entry, seed=4, **options) for _ in range(2))
    assert part.objective == entry
    assert part.to_bytes() == again.to_bytes()
    value = objectives.quality(graph, part.labels, 1.0, objective=entry, resolution=part.resolution)
    assert part.quality == pytest.approx(value)
    search = Search(graph, 1.0)
    weights = search.priced(search.wired(search.costs), search.costs, entry, part.resolution)
    flat = search.flat(part.labels, "labels")
    own = 0.0 if objectives.OBJECTIVES[entry].own_pairs else part.resolution * search.n / 2
    assert leiden.value(weights, flat) + own == pytest.approx(value)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(FREE), st.sampled_from([0.1, 0.5, 1.0]))
def test_no_single_move_improves_the_partition(seed, objective, resolution):
    graph = random_graph(seed)
    options = {"objective": objective, "resolution": resolution}
    part = find_modules(graph, epsilon=1.0, effort=Effort(1, 1), **options)
    assert max(move_gains(graph, part, 1.0, options)) < 1e-8


def move_gains(graph, part, epsilon, options):
    """Gain of every move of a node into every module and into one of its own."""
    return [
        objectives.move_gain(graph, part.labels, (cut, i), m, epsilon, **options)
        for cut, labels in enumerate(part.labels)
        for i in range(len(labels))
        if labels[i] >= 0
        for m in range(part.n_modules + 1)
    ]


def test_unknown_backend_is_named():
    with pytest.raises(GraphError, match="unknown backend 'louvain'"):
        find_modules(SQUARES, epsilon=0.5, backend="louvain")


def test_two_squares_by_hand():
    part = find_modules(SQUARES, epsilon=np.exp(-2.0), resolution=1.0)
    assert [a.tolist() for a in part.labels] == [[0, 0, 1, 1]] * 3
    assert part.quality == pytest.approx(2 * (8 - 2 * 4 * 4 / 8))
    assert (part.edge_cost, part.mediator_cost, part.normalised_cost, part.contrast) == (0, 0, 0, 1)
    assert part.modules[0].sizes == (2, 2, 2)
    assert part.modules[0].cuts == ("a", "b", "c")
    assert part.modules[0].inner_cost == pytest.approx(8.0)
    assert part.p_value is None


@pytest.mark.parametrize(("sizes", "seed"), [((10, 10), 0), ((24, 8), 1), ((8, 8, 8), 0), ((6,) * 5, 1)])
def test_planted_modules_are_found(sizes, seed):
    graph, truth = planted(sizes, seed=seed, inside=0.8)
    part = find_modules(graph, epsilon=1.0, seed=seed)
    assert part.n_modules == len(sizes)
    assert agreement(part, truth) > 0.9
    assert part.p_value == pytest.approx(1 / 21)


@pytest.mark.parametrize(("sizes", "seed"), [((20, 20), 1), ((39, 7), 2)])
def test_two_modules_of_a_network_like_graph(sizes, seed):
    graph, truth = trained(sizes, seed=seed)
    strongest = max(block.max() for block in graph.blocks)
    part = find_modules(graph, epsilon=(0.003 * strongest) ** 2, seed=seed)
    assert agreement(part, truth) > 0.9


@pytest.mark.parametrize("kind", ["uniform", "sparse", "hubs", "decay"])
@pytest.mark.parametrize("seed", SEEDS)
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
    assert loaded.to_bytes() == part.to_bytes()
    assert repr(loaded) == repr(part)
    assert [len(level.labels) for level in loaded.hierarchy] == [4] * len(part.hierarchy)
    assert loaded.mediators == part.mediators
    assert loaded.modules == part.modules
    with pytest.raises(InputError, match="holds a graph"):
        Partition.from_bytes(graph.to_bytes())


def test_repr_names_the_modules():
    text = repr(find_modules(SQUARES, epsilon=0.1, resolution=1.0))
    assert text.startswith("Partition: 2 modules, edge cost 0")
    assert "0: 6 nodes (2, 2, 2)" in text


def test_repr_is_wrapped_at_words():
    part = find_modules(SQUARES, epsilon=0.1, resolution=1.0, n_null=4)
    text = repr(replace(part, reason="because " * 40, p_value=0.0476190))
    assert max(map(len, text.splitlines())) <= 88
    assert " ".join(text.split()).endswith("because because")


def test_progress_reports_and_cancels():
    reports = []
    find_modules(SQUARES, epsilon=0.1, n_null=4, progress=reports.append)
    assert [r.fraction for r in reports if r.step == "modules"] == [0, 0.2, 0.4, 0.6, 0.8, 1]
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
        ({"objective": "surprise"}, "layered_cpm, layered_modularity"),
        ({"objective": "kway"}, "needs k"),
        ({"objective": "cpm", "k": 2}, "objective 'kway', not 'cpm'"),
        ({"k": 13}, "k is 13: expected 1 to 12"),
        ({"k": 0}, "k is 0"),
        ({"min_size": 5, "max_size": 4}, "1 <= min_size <= max_size"),
        ({"k": 3, "max_size": 3}, "3 modules of 1 to 3 nodes hold 3 to 9, not 12"),
        ({"k": 3, "min_size": 5}, "hold 15 to 15, not 12"),
        ({"pins": [[0, 0, 1]]}, "pins: got arrays of shapes"),
        ({"pins": [[0, 0, 1, -2], [0] * 4, [0] * 4]}, "pins: the smallest label is -2"),
        ({"pins": [[0] * 4] * 3, "max_size": 6}, "12 nodes are pinned together"),
        ({"pins": [[0, 1, 2, 3], [-1] * 4, [-1] * 4], "k": 2}, "4 pinned groups have to be apart"),
        ({"start": [[0] * 4] * 2}, "start: got arrays of shapes"),
        ({"start": [[0] * 4] * 3, "max_size": 6}, "the start breaks a bound"),
        ({"epsilon": [0.1]}, "1 loss scales were given"),
        ({"epsilon": "auto"}, "epsilon is 'auto'"),
        ({"resolution": -1.0}, "resolution is -1.0"),
        ({"resolution": np.nan}, "resolution is nan"),
        ({"n_null": 2}, "n_null is 2"),
        ({"n_null": -1, "resolution": 1.0}, "n_null is -1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(GraphError, match=message):
        find_modules(SQUARES, **options)


def test_graph_of_zeros():
    with pytest.raises(GraphError, match="all strengths of the graph are 0"):
        find_modules(InteractionGraph.from_blocks([np.zeros((2, 2))]))
