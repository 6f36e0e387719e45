"""Nodes and modules matched over checkpoints: known permutations, events and churn by hand, storage, bad input."""

import dataclasses

import numpy as np
import pytest
import torch
from cases import TinyAttention, cut_network, normal, random_mlp
from cases_graphs import planted
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interbasis.analysis.basis.bases import Bases
from interbasis.analysis.basis.interaction_basis import interaction_basis
from interbasis.analysis.checkpoints.mlp import MLP
from interbasis.analysis.errors import DataError, GraphError, InputError
from interbasis.analysis.graph.interaction_graph import InteractionGraph
from interbasis.analysis.modules.alignment import align_nodes, coordinate_correlation
from interbasis.analysis.modules.tracking import Event, Tracking, track_modules
from interbasis.analysis.network.network import Network

CONFIG = {"widths": [4, 7, 6, 3], "activation": "tanh"}
HALF = {"epsilon": 0.1, "resolution": 0.5}


def complete(*sizes, n_cuts=3):
    """Complete modules of the given sizes at every cut, nothing between them: the optimum at resolution 1/2."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return InteractionGraph.from_blocks([(labels[:, None] == labels).astype(float)] * (n_cuts - 1))


def permuted(graph, orders):
    """The graph whose node i of a cut is node orders[cut][i] of the given one."""
    pairs = zip(graph.pairs, graph.blocks, strict=True)
    return InteractionGraph.from_blocks([w[np.ix_(orders[b], orders[a])] for (a, b), w in pairs])


def ties(*nodes, n_cuts=3):
    return [np.array(nodes)] * n_cuts


# --- nodes


@pytest.mark.parametrize(
    ("correlation", "matched"),
    [
        ([[0.9, 0.1], [0.2, 0.8]], [0, 1]),
        ([[0.1, -0.9], [0.8, 0.2]], [1, 0]),  # the sign does not matter
        ([[0.9, 0.8], [0.8, 0.1]], [1, 0]),  # the sum counts: .8 + .8 > .9 + .1
        ([[0.9, 0.1], [0.2, 0.29]], [0, -1]),  # below .3
        ([[0.9, 0.1], [0.2, 0.3]], [0, 1]),
        ([[0.1, 0.5, 0.9], [0.8, 0.2, 0.1]], [2, 0]),  # more earlier nodes
        ([[0.5], [0.9], [0.7]], [-1, 0, -1]),  # more later nodes
        ([[0.0, 0.0], [0.0, 0.0]], [-1, -1]),
    ],
)
def test_alignment_by_hand(correlation, matched):
    assert [a.tolist() for a in align_nodes([np.array(correlation)])] == [matched]


def test_least_correlation_of_a_match_is_an_argument():
    correlation = [np.array([[0.9, 0.0], [0.0, 0.2]])]
    assert [align_nodes(correlation, least=least)[0].tolist() for least in (0.1, 0.5, 0.95)] == [
        [0, 1],
        [0, -1],
        [-1, -1],
    ]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 8))
def test_alignment_is_one_to_one_and_above_the_least(seed, later, earlier):
    correlation = np.random.default_rng(seed).uniform(-1, 1, (later, earlier))
    (matched,) = align_nodes([correlation])
    used = matched[matched >= 0]
    assert len(np.unique(used)) == len(used)
    assert (np.abs(correlation[matched >= 0, used]) >= 0.3).all()


def mlp(generator: torch.Generator, orders: dict[int, Tensor] | None = None) -> MLP:
    """An MLP with random weights, its hidden units in another order."""
    model = MLP(**CONFIG).double()
    for p in model.parameters():
        p.data = normal(*p.shape, generator=generator)
    for i, order in (orders or {}).items():
        before, after = model.dense[i].linear, model.dense[i + 1].linear
        before.weight.data, before.bias.data = before.weight.data[order], before.bias.data[order]
        after.weight.data = after.weight.data[:, order]
    return model


def with_bases(model: MLP, x: Tensor, kind: str) -> tuple[Network, Bases]:
    net = Network(model, list(MLP.cuts(CONFIG)), example=x)
    return net, interaction_basis(net, [x], kind=kind)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def x() -> Tensor:
    return normal(60, 4, generator=seeded(1))


@pytest.mark.parametrize("kind", ["global", "local", "pca", "neuron"])
def test_network_is_correlated_with_itself_as_numpy_says(kind, x):
    net, bases = with_bases(mlp(seeded()), x, kind)
    correlation = coordinate_correlation((net, bases), (net, bases), [x])
    for cut, matrix in zip(net.cuts, correlation, strict=True):
        values = bases[cut].coordinates(net.activations(x)[cut][:, 0]).numpy()
        np.testing.assert_allclose(matrix, np.atleast_2d(np.corrcoef(values.T)), atol=1e-8)
        np.testing.assert_allclose(np.diag(matrix), 1.0, atol=1e-8)
    assert [a.tolist() for a in align_nodes(correlation)] == [list(range(k)) for k in map(len, correlation)]


def test_correlation_of_two_networks_is_numpys(x):
    earlier, later = (with_bases(mlp(seeded(seed)), x, "global") for seed in (0, 5))
    correlation = coordinate_correlation(earlier, later, [x])
    for cut, matrix in zip(earlier[0].cuts, correlation, strict=True):
        new, old = (b[cut].coordinates(net.activations(x)[cut][:, 0]).numpy() for net, b in (later, earlier))
        whole = np.corrcoef(np.hstack([new, old]).T)
        np.testing.assert_allclose(matrix, whole[: new.shape[1], new.shape[1] :], atol=1e-8)


def test_batches_do_not_matter(x):
    earlier, later = (with_bases(mlp(seeded(seed)), x, "global") for seed in (0, 5))
    one, several = (coordinate_correlation(earlier, later, batches) for batches in ([x], x.split(7)))
    for a, b in zip(one, several, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


def test_order_of_neurons_is_recovered(x):
    orders = {0: torch.randperm(7, generator=seeded(2)), 1: torch.randperm(6, generator=seeded(3))}
    earlier, later = (with_bases(mlp(seeded(), o), x, "neuron") for o in (None, orders))
    correlation = coordinate_correlation(earlier, later, [x])
    expected = [list(range(4)), orders[0].tolist(), orders[1].tolist(), list(range(3))]
    assert [a.tolist() for a in align_nodes(correlation)] == expected


@pytest.mark.parametrize("kind", ["global", "local"])
def test_interaction_basis_of_permuted_units_is_matched_with_itself(kind, x):
    orders = {0: torch.randperm(7, generator=seeded(2)), 1: torch.randperm(6, generator=seeded(3))}
    earlier, later = (with_bases(mlp(seeded(), o), x, kind) for o in (None, orders))
    correlation = coordinate_correlation(earlier, later, [x])
    for matrix, matched in zip(correlation, align_nodes(correlation), strict=True):
        assert matched.tolist() == list(range(len(matrix)))
        np.testing.assert_allclose(np.abs(matrix[np.arange(len(matrix)), matched]), 1.0, atol=1e-6)


def test_coordinate_that_does_not_vary_has_correlation_zero(x):
    model = mlp(seeded())
    model.dense[0].linear.weight.data[2] = 0.0
    net, bases = with_bases(model, x, "neuron")
    hidden = coordinate_correlation((net, bases), (net, bases), [x])[1]
    assert not hidden[2].any()
    assert not hidden[:, 2].any()
    np.testing.assert_allclose(np.delete(np.diag(hidden), 2), 1.0, atol=1e-8)


def test_correlation_is_over_positions_too():
    x = normal(8, 5, 4, generator=seeded(1))
    net = Network(TinyAttention(4, seeded()), ["enter", "mix", "read"], example=x)
    bases = interaction_basis(net, [x])
    correlation = coordinate_correlation((net, bases), (net, bases), [x])
    values = bases["mix"].coordinates(net.activations(x)["mix"].flatten(0, 1)).numpy()
    np.testing.assert_allclose(correlation[1], np.corrcoef(values.T), atol=1e-8)


def test_correlation_of_other_cuts_is_refused(x):
    net, bases = with_bases(mlp(seeded()), x, "global")
    other = cut_network(random_mlp((4, 5, 3), seeded()), x)
    with pytest.raises(GraphError, match="the cuts differ"):
        coordinate_correlation((net, bases), (other, interaction_basis(other, [x])), [x])


@pytest.mark.parametrize(
    ("batches", "message"),
    [([], "no batches|no data|at least one data point"), ([torch.full((3, 4), np.nan).double()], "NaN")],
)
def test_correlation_on_bad_data(batches, message, x):
    pair = with_bases(mlp(seeded()), x, "global")
    with pytest.raises(DataError, match=message):
        coordinate_correlation(pair, pair, batches)


def test_correlation_reports_progress(x):
    reports = []
    pair = with_bases(mlp(seeded()), x, "global")
    coordinate_correlation(pair, pair, x.split(20), progress=reports.append)
    assert [(r.step, r.done, r.total) for r in reports] == [("aligning", k, 3) for k in range(4)]


# --- modules


@pytest.mark.parametrize("coupling", [0.0, 0.5])
def test_same_graph_three_times(coupling):
    found = track_modules([complete(3, 4, 5)] * 3, coupling=coupling, **HALF)
    assert found.tracks == ((0, 1, 2),) * 3
    assert found.n_tracks == 3
    assert found.churn == (0.0, 0.0)
    assert found.events == ()
    assert found.names == ("0", "1", "2")
    for flow in found.flows:
        np.testing.assert_array_equal(flow, np.diag([15.0, 12.0, 9.0]))


@pytest.mark.parametrize("coupling", [0.0, 1.0])
def test_coupled_search_keeps_tracks_of_equal_graphs(coupling):
    graph, _ = planted((8, 6, 6), seed=0, inside=0.8)
    found = track_modules([graph] * 3, coupling=coupling, epsilon=1.0, resolution=1.0)
    assert len(set(found.tracks)) == 1
    assert found.events == ()
    assert found.churn == (0.0, 0.0)
    assert found.coupling == coupling
    warnings = {part.warning for part in found.partitions}
    assert (
        "searched together with the other checkpoints: no p-value, and the profile is that of this one alone"
        in warnings
    ) == (coupling > 0)


def test_coupling_steadies_a_node_between_two_modules():
    # at the second checkpoint node 0 of the last cut has as much to do with the other module, and a little more
    before = complete(4, 4)
    first, last = before.blocks
    torn = last.copy()
    torn[0] = np.repeat([1.0, 1.2], 4)
    graphs = [before, InteractionGraph.from_blocks([first, torn]), before]
    alone, together = (track_modules(graphs, coupling=coupling, **HALF) for coupling in (0.0, 1.0))
    assert alone.churn == pytest.approx((1 / 24, 1 / 24))
    assert together.churn == (0.0, 0.0)


def test_bounds_hold_at_every_checkpoint():
    graph = InteractionGraph.from_blocks([np.kron(np.eye(2), np.full((4, 4), 3.0)) + 0.5] * 2)
    found = track_modules([graph] * 2, epsilon=0.1, k=2)
    assert [part.n_modules for part in found.partitions] == [2, 2]
    with pytest.raises(GraphError, match="coupling does not go with k"):
        track_modules([graph] * 2, epsilon=0.1, k=2, coupling=1.0)


def test_pins_hold_at_every_checkpoint():
    pins = [np.array([0, *[-1] * 3, 1, *[-1] * 3]), np.full(8, -1), np.full(8, -1)]
    found = track_modules([complete(8)] * 2, pins=pins, **HALF)
    assert all(part.labels[0][0] != part.labels[0][4] for part in found.partitions)


def test_small_modules_at_a_given_resolution_stay_when_coupled():
    alone, together = (track_modules([complete(1, 1)] * 2, coupling=coupling, **HALF) for coupling in (0.0, 1.0))
    assert [part.n_modules for part in alone.partitions] == [2, 2]
    assert [part.n_modules for part in together.partitions] == [2, 2]


def test_start_that_no_longer_fits_the_bounds_is_no_error():
    # 24 nodes in two modules of 12; then all edges of one are below the cutoff: 12 nodes, of which a module holds 7
    faded = InteractionGraph.from_blocks([np.kron(np.diag([1.0, 0.1]), np.ones((4, 4)))] * 2)
    found = track_modules([complete(4, 4), faded], epsilon=0.1, k=2)
    assert [part.n_modules for part in found.partitions] == [2, 2]


def test_permuted_nodes_with_their_alignment():
    graph, _ = planted((8, 6, 6), seed=0, inside=0.8)
    generator = np.random.default_rng(0)
    orders = [generator.permutation(k) for k in graph.widths]
    found = track_modules([graph, permuted(graph, orders)], alignments=[orders], epsilon=1.0, resolution=1.0)
    assert (found.churn, found.events) == ((0.0,), ())
    earlier, later = (
        [np.array(track)[labels] for labels in part.labels]
        for track, part in zip(found.tracks, found.partitions, strict=True)
    )
    for old, new, order in zip(earlier, later, orders, strict=True):
        np.testing.assert_array_equal(new, old[order])


def test_one_module_splits_in_two():
    found = track_modules([complete(8), complete(4, 4)], **HALF)
    assert found.tracks == ((0,), (0, 1))
    assert found.events == (Event("split", 1, (0,), (0, 1)),)
    assert found.churn == (0.5,)  # 12 of 24 nodes are in a new track
    np.testing.assert_array_equal(found.flows[0], [[12.0, 12.0]])


def test_two_modules_merge():
    # of 5 and 3 nodes per cut: the larger one goes on, 9 of 24 nodes join it
    found = track_modules([complete(5, 3), complete(8)], **HALF)
    assert found.tracks == ((0, 1), (0,))
    assert found.events == (Event("merge", 1, (0, 1), (0,)),)
    assert found.churn == pytest.approx((9 / 24,))


def test_half_of_a_module_is_enough_for_an_event():
    # A of 8 and C of 4 nodes per cut; then 4 of A on their own (X), the other 4 with C (Y, the larger one)
    found = track_modules([complete(8, 4), complete(4, 8)], **HALF)
    np.testing.assert_array_equal(found.flows[0], [[12.0, 12.0], [12.0, 0.0]])
    assert found.tracks == ((0, 1), (1, 0))  # overlaps A X 12 / 24, C Y 12 / 24, A Y 12 / 36
    assert found.events == (Event("split", 1, (0,), (1, 0)), Event("merge", 1, (0, 1), (1,)))
    assert found.churn == pytest.approx((1 / 3,))


def test_new_nodes_are_a_birth():
    found = track_modules([complete(4), complete(4, 5)], **HALF)
    assert found.tracks == ((0,), (1, 0))  # labels are by size: the module of 5 is number 0
    assert found.events == (Event("birth", 1, (), (1,)),)
    assert found.churn == (0.0,)  # of the nodes that there were


def test_lost_nodes_are_a_death():
    found = track_modules([complete(4, 5), complete(4)], **HALF)
    assert found.tracks == ((0, 1), (1,))
    assert found.events == (Event("death", 1, (0,), ()),)
    assert found.churn == (0.0,)


def test_module_that_comes_back_is_a_new_track():
    found = track_modules([complete(4, 5), complete(4), complete(4, 5)], **HALF)
    assert found.tracks == ((0, 1), (1,), (2, 1))
    assert [event.kind for event in found.events] == ["death", "birth"]
    assert [event.at for event in found.events] == [1, 2]


def test_nodes_that_change_sides_are_churn_without_an_event():
    # one node of each side changes places at one of three cuts: 2 of 24
    alignment = [np.arange(8), np.arange(8), np.array([4, 1, 2, 3, 0, 5, 6, 7])]
    found = track_modules([complete(4, 4)] * 2, alignments=[alignment], **HALF)
    np.testing.assert_array_equal(found.flows[0], [[11.0, 1.0], [1.0, 11.0]])
    assert found.churn == pytest.approx((1 / 12,))
    assert (found.events, found.tracks) == ((), ((0, 1), (0, 1)))


def test_swapped_modules_keep_their_tracks():
    found = track_modules(
        [complete(5, 3), complete(3, 5)], alignments=[[np.array([5, 6, 7, 0, 1, 2, 3, 4])] * 3], **HALF
    )
    assert (found.tracks, found.churn, found.events) == (((0, 1), (0, 1)), (0.0,), ())


def test_overlap_below_the_least_is_no_match():
    # halves have Jaccard overlap 1/2 with the whole
    found = track_modules([complete(8), complete(4, 4)], overlap=0.6, **HALF)
    assert found.tracks == ((0,), (1, 2))
    assert found.churn == (1.0,)
    assert set(found.events) == {Event("split", 1, (0,), (1, 2)), Event("death", 1, (0,), ())}


def test_no_aligned_nodes_at_all():
    found = track_modules([complete(3, 3)] * 2, alignments=[ties(*[-1] * 6)], **HALF)
    assert np.isnan(found.churn[0])
    assert found.tracks == ((0, 1), (2, 3))
    assert sorted((event.kind, event.earlier, event.later) for event in found.events) == [
        ("birth", (), (2,)),
        ("birth", (), (3,)),
        ("death", (0,), ()),
        ("death", (1,), ()),
    ]


def test_nodes_in_no_module_take_no_part():
    # node 7 has no edge at the second checkpoint
    faded = complete(4, 4)
    blocks = [block.copy() for block in faded.blocks]
    for block in blocks:
        block[7], block[:, 7] = 0.0, 0.0
    found = track_modules([faded, InteractionGraph.from_blocks(blocks)], **HALF)
    assert found.flows[0].sum() == 21
    assert (found.churn, found.events) == ((0.0,), ())


def test_flows_and_churn_agree_with_the_labels():
    graphs = [planted((6, 6), seed=seed, inside=0.8)[0] for seed in range(3)]
    found = track_modules(graphs, epsilon=1.0, resolution=1.0)
    for t, (flow, share) in enumerate(zip(found.flows, found.churn, strict=True)):
        old, new = (np.concatenate(found.partitions[k].labels) for k in (t, t + 1))
        both = (old >= 0) & (new >= 0)
        assert flow.sum() == both.sum()
        before, after = np.array(found.tracks[t])[old[both]], np.array(found.tracks[t + 1])[new[both]]
        assert share == pytest.approx((before != after).mean())


def test_tracks_are_different_within_a_checkpoint():
    graphs = [planted((4,) * k, seed=k, inside=0.9)[0] for k in (2, 3, 2, 4)]
    found = track_modules(graphs, epsilon=1.0, resolution=1.0)
    for tracks, part in zip(found.tracks, found.partitions, strict=True):
        assert len(set(tracks)) == len(tracks) == part.n_modules


def test_one_graph_has_no_transitions():
    found = track_modules([complete(4, 4)], names=["start"], coupling=1.0, **HALF)
    assert (found.names, found.tracks, found.flows, found.churn, found.events) == (("start",), ((0, 1),), (), (), ())


def test_same_seed_same_result():
    graphs = [planted((6, 6), seed=seed)[0] for seed in range(2)]
    first, second = (track_modules(graphs, epsilon=1.0, resolution=1.0, seed=2, coupling=0.3) for _ in range(2))
    assert first.to_bytes() == second.to_bytes()


def test_progress_is_per_checkpoint():
    reports = []
    track_modules([complete(4, 4)] * 2, progress=reports.append, **HALF)
    assert [(r.step, r.done, r.total) for r in reports] == [("checkpoints", k, 2) for k in range(3)]


def test_repr_tells_what_happened():
    graphs = [complete(8), complete(4, 4), complete(4, 4, 5), complete(8, 5)]
    text = repr(track_modules(graphs, names=["a", "b", "c", "d"], **HALF)).splitlines()
    assert text[0] == "Tracking: 4 checkpoints, 3 tracks"
    assert text[1] == "  a: modules 0"
    assert text[2] == "  b: modules 0, 1, churn 0.50 (split of 0 into 0, 1)"
    assert text[3] == "  c: modules 2, 0, 1, churn 0.00 (birth of 2)"
    assert text[4].startswith("  d: modules 0, 2, churn 0.31 (merge of 0, 1 into 0)")  # 12 of 39
    assert "(death of 0)" in repr(
        track_modules([complete(5, 4), permuted(complete(4), ties(0, 1, 2, 3))], **HALF, alignments=[ties(5, 6, 7, 8)])
    )


@pytest.mark.parametrize(
    ("alignments", "coupling"), [(None, 0.0), ([ties(*[-1] * 8), ties(*range(4), -1, -1, -1, -1)], 0.1)]
)
def test_save_and_load(tmp_path, alignments, coupling):
    graphs = [complete(8), complete(4, 4), complete(8)]
    found = track_modules(graphs, names=["a", "b", "c"], alignments=alignments, coupling=coupling, **HALF)
    assert found.events
    found.save(tmp_path / "t.safetensors")
    loaded = Tracking.load(tmp_path / "t.safetensors")
    assert loaded.to_bytes() == found.to_bytes()
    for field in dataclasses.fields(found):
        if field.name not in ("partitions", "flows", "churn"):
            assert getattr(loaded, field.name) == getattr(found, field.name), field.name
    np.testing.assert_array_equal(loaded.churn, found.churn)
    for a, b in zip(loaded.flows, found.flows, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(loaded.partitions, found.partitions, strict=True):
        assert a.to_bytes() == b.to_bytes()
    assert repr(loaded) == repr(found)
    with pytest.raises(InputError, match="holds a graph"):
        Tracking.from_bytes(graphs[0].to_bytes())


OTHER = InteractionGraph.from_blocks([np.eye(8)] * 2, cuts=["x", "y", "z"])


@pytest.mark.parametrize(
    ("graphs", "options", "message"),
    [
        ([], {}, "no graphs were given"),
        ([complete(4, 4), OTHER], {}, "different cuts"),
        ([complete(4, 4), complete(4, 4, n_cuts=4)], {}, "different cuts"),
        ([complete(4, 4)] * 2, {"coupling": -0.1}, "coupling is -0.1"),
        ([complete(4, 4)] * 2, {"coupling": float("nan")}, "coupling is nan"),
        ([complete(4, 4)] * 2, {"coupling": float("inf")}, "coupling is inf"),
        ([complete(4, 4)] * 2, {"overlap": 0.0}, "overlap 0.0"),
        ([complete(4, 4)] * 2, {"overlap": 1.5}, "overlap 1.5"),
        ([complete(4, 4)] * 2, {"names": ["a"]}, "1 names were given for 2 graphs"),
        ([complete(4, 4)] * 2, {"alignments": []}, "0 alignments were given for 1 transitions"),
        ([complete(4, 4)] * 2, {"alignments": [ties(*range(8))] * 2}, "2 alignments were given for 1"),
        ([complete(4, 4)] * 2, {"alignments": [ties(*range(8), n_cuts=2)]}, "alignment 0 does not fit"),
        ([complete(4, 4)] * 2, {"alignments": [ties(*range(7))]}, "alignment 0 does not fit"),
        ([complete(4, 4)] * 2, {"alignments": [ties(*range(1, 9))]}, "alignment 0 does not fit"),
        ([complete(4, 4)] * 2, {"alignments": [ties(-2, *range(1, 8))]}, "alignment 0 does not fit"),
        ([complete(4, 4)] * 2, {"alignments": [ties(1, *range(1, 8))]}, "none twice"),
        ([complete(4, 4)] * 3, {"alignments": [ties(*range(8)), ties(0, 0, *range(2, 8))]}, "alignment 1 does"),
        ([complete(4, 4)], {"alignments": [ties(*range(8))]}, "1 alignments were given for 0"),
        ([complete(4, 4)] * 2, {"objective": "newman"}, "unknown objective 'newman'"),
    ],
)
def test_bad_input(graphs, options, message):
    with pytest.raises(GraphError, match=message):
        track_modules(graphs, **{**HALF, **options})
