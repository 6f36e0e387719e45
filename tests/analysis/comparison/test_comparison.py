"""Comparing divisions: values by hand, peers, invariants, calibration, nodes that are left out, refusals, storage."""

import itertools
from typing import Any

import numpy as np
import pytest
from cases_figures import partition_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from interbasis.analysis.comparison.agreement import agreement, relabellings
from interbasis.analysis.comparison.comparison import AGREEMENTS, Comparison, Match, compare_partitions
from interbasis.analysis.errors import GraphError
from interbasis.analysis.graph.node_table import NodeTable

LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 1)), min_size=2, max_size=20)


def arrays(labels: list[tuple[int, ...]], *columns: int) -> list[Any]:
    """Labels 0, 1, ... of each column."""
    return [np.unique([row[c] for row in labels], return_inverse=True)[1] for c in columns]


# --- values


def test_overlap_by_hand() -> None:
    (pair,) = compare_partitions([np.array([0, 0, 0, 1, 1])], [np.array([0, 0, 1, 1, 1])], n_permutations=9).pairs
    assert pair.overlap.tolist() == [[2, 1], [0, 2]]
    assert pair.matches == (Match("0", "0", 2, 2 / 3), Match("1", "1", 2, 2 / 3))
    assert pair.jaccard.tolist() == [[2 / 3, 1 / 5], [0, 2 / 3]]
    assert pair.ari == pytest.approx((2 - 4 * 4 / 10) / (4 - 4 * 4 / 10))  # 2 pairs in both, 4 in each, of 10


def test_p_value_by_counting_all_relabellings() -> None:
    a, b, cuts = np.array([0, 0, 1, 1, 0, 1]), np.array([0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 0, 1, 1])
    orders = [[*p, *q] for p in itertools.permutations(range(4)) for q in itertools.permutations((4, 5))]
    share = np.mean([adjusted_rand_score(a, b[o]) >= adjusted_rand_score(a, b) - 1e-12 for o in orders])
    mean = np.mean([adjusted_mutual_info_score(a, b[o]) for o in orders])
    found = agreement(a, b, cuts, 4000, 0)
    assert abs(found.ari_p_value - share) < 4 * np.sqrt(share * (1 - share) / 4000)
    assert abs(found.ami_by_chance - mean) < 4 / np.sqrt(4000)


@settings(max_examples=25, deadline=None)
@given(LABELS)
def test_values_are_those_of_scikit_learn_and_their_means_follow_from_the_draws(labels: Any) -> None:
    a, b, cuts = arrays(labels, 0, 1, 2)
    found = agreement(a, b, cuts, 5, 1)
    assert found.ami == pytest.approx(adjusted_mutual_info_score(a, b), abs=1e-9)
    assert found.ari == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)
    assert found.overlap.sum() == len(a)
    assert (found.p_value * 6) % 1 == pytest.approx(0, abs=1e-9) or (found.p_value * 6) % 1 == pytest.approx(1)
    if len(set(a)) == len(set(b)) == 1:
        assert found.ami_by_chance == found.ari_by_chance == 1.0


def test_means_by_chance_are_those_of_the_draws() -> None:
    rng = np.random.default_rng(0)
    cuts = np.repeat([0, 1], 30)
    a, b = (np.unique(rng.integers(0, 4, 60) + 3 * cuts, return_inverse=True)[1] for _ in range(2))
    low, high = sorted((a, b), key=lambda x: np.argsort(np.argsort(np.unique(x, return_index=True)[1]))[x].tolist())
    draws = [high[order] for order in relabellings(cuts, 20, 3)]
    found = agreement(a, b, cuts, 20, 3)
    assert found.ami_by_chance == pytest.approx(np.mean([adjusted_mutual_info_score(low, d) for d in draws]))
    assert found.ari_by_chance == pytest.approx(np.mean([adjusted_rand_score(low, d) for d in draws]))
    assert found.ami_by_chance > 0.05, "modules that follow the cuts agree by the cuts alone"


# --- invariants


@settings(max_examples=25, deadline=None)
@given(LABELS, st.randoms(use_true_random=False))
def test_order_of_divisions_of_nodes_and_names_of_modules_do_not_matter(labels: Any, random: Any) -> None:
    rows = [(f"{'ab'[cut]}/{i}", f"x{a}", f"y{b}") for i, (a, b, cut) in enumerate(labels)]
    one, other = {node: a for node, a, _ in rows}, {node: b for node, _, b in rows}
    found = compare_partitions(one, other, n_permutations=9).pairs[0]
    random.shuffle(rows)
    renamed = {"x0": "q", "x1": "p", "x2": "5", "x3": "z"}
    again = compare_partitions({n: b for n, _, b in rows}, {n: renamed[a] for n, a, _ in rows}, n_permutations=9).pairs[
        0
    ]
    for name in ("ami", "ari", "ami_by_chance", "ari_by_chance", "z"):
        assert getattr(again, name) == pytest.approx(getattr(found, name), abs=1e-9), name
    assert (again.p_value, again.ari_p_value, again.verdict) == (found.p_value, found.ari_p_value, found.verdict)
    assert sorted(again.overlap.ravel()) == sorted(found.overlap.ravel())


@pytest.mark.parametrize("names", [(0, 1, 2), (2, 0, 1), ("x", "y", "z")])
def test_a_division_is_the_same_under_any_names(names: tuple[Any, ...]) -> None:
    labels = np.random.default_rng(0).integers(0, 3, 60)
    found = compare_partitions(
        {f"n{i}": m for i, m in enumerate(labels)}, {f"n{i}": names[m] for i, m in enumerate(labels)}
    )
    assert found.verdict == "same division"
    assert found.pairs[0].ami == found.pairs[0].ari == 1.0
    assert found.pairs[0].p_value == 1 / 1001


def test_p_is_uniform_for_independent_divisions() -> None:
    rng = np.random.default_rng(0)
    cuts = np.repeat(np.arange(3), 20)
    found = []
    for seed in range(80):
        a, b = rng.integers(0, 4, 60), rng.integers(0, 3, 60)
        a[cuts == 0], b[cuts == 0] = a[cuts == 0] // 2, 0  # sizes differ between cuts
        found.append(agreement(a, b, cuts, 19, seed).p_value)
    counts = np.bincount((np.array(found) * 4 - 1e-9).astype(int), minlength=4)  # quarters
    assert (np.abs(counts - 20) < 4 * np.sqrt(20 * 0.75)).all()


def test_divisions_that_agree_are_told_from_those_that_do_not() -> None:
    rng = np.random.default_rng(1)
    one, chance = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    near = np.where(rng.random(200) < 0.3, chance, one)
    found = compare_partitions([one], [near], [chance], names=["one", "near", "chance"], n_permutations=99)
    assert [p.verdict for p in found.pairs] == [AGREEMENTS[1], AGREEMENTS[2], AGREEMENTS[1]]
    assert found.verdict == AGREEMENTS[2]
    assert found.pair("near", "one").verdict == AGREEMENTS[1]
    alone = compare_partitions([one], [near], names=["one", "near"], n_permutations=99)
    assert found.pair("one", "near") == alone, "a pair does not depend on other divisions"


def test_modules_that_cuts_determine_are_no_evidence() -> None:
    layers = [np.zeros(5, dtype=int), np.ones(5, dtype=int)]
    (pair,) = compare_partitions(layers, layers).pairs
    assert (pair.verdict, pair.p_value, pair.z) == ("same division", 1.0, None)
    (pair,) = compare_partitions(layers, [np.zeros(5, dtype=int)] * 2).pairs
    assert (pair.verdict, pair.p_value) == ("no more than chance", 1.0)
    assert "single module" in pair.reason


# --- nodes


def test_nodes_that_one_does_not_name_are_left_out_and_counted() -> None:
    part = partition_of([0, 0, 1, 1], [0, 1, 1])
    cut = part.cuts[1]
    found = compare_partitions(
        part, {f"{part.cuts[0]}/0": "x", f"{part.cuts[0]}/3": "y", f"{cut}/0": "", f"{cut}/1": "y", "no/9": "x"}
    )
    (pair,) = found.pairs
    assert (pair.n_nodes, pair.only_first, pair.only_second) == (3, 4, 1)
    assert found.in_no_module == (0, 1)
    assert "1 in no module" in found.summary
    assert "4 nodes" in found.summary
    assert pair.overlap.tolist() == [[2, 0], [0, 1]]


def test_nodes_in_several_groups_are_left_out_and_counted() -> None:
    found = compare_partitions({"p": 0, "q": 0, "r": 1}, {"p": ("x",), "q": ("x", "y"), "r": "y"})
    assert found.in_several == (0, 1)
    assert found.pairs[0].n_nodes == 2
    assert "1 in more than one module" in found.summary


def test_graphs_that_share_nodes_are_compared_by_cut_and_name() -> None:
    one, other = [np.array([0, 0, 1]), np.array([1])], [np.array([5, 7]), np.array([5, 7])]
    names = [[["p", "q", "r"], ["p"]], [["r", "p"], ["s", "p"]]]
    (pair,) = compare_partitions(one, other, nodes=names).pairs
    assert (pair.n_nodes, pair.only_first, pair.only_second) == (3, 1, 1)
    assert pair.overlap.tolist() == [[0, 1], [1, 1]]
    found = compare_partitions(one, {"q": "x", "0/r": "y", "p": "z"}, nodes=[names[0], None])
    assert found.ambiguous == (0, 1), "p is a node of both cuts"
    assert found.pairs[0].n_nodes == 2


def test_an_error_may_have_the_id_of_a_feature() -> None:
    table = NodeTable.from_rows(
        [{"id": "0_1_0"}, {"id": "0_1_0", "type": "mlp error"}, {"id": "0_2_0", "type": "error"}]
    )
    given = {"0_1_0": "x", "0/mlp error 0_1_0": "y", "0_2_0": "y"}
    found = compare_partitions([np.array([0, 1, 1])], given, nodes=[[table], None])
    assert (found.verdict, found.ambiguous) == ("same division", (0, 0))


def test_seeds_are_compared_along_an_alignment() -> None:
    rng = np.random.default_rng(2)
    one = [rng.integers(0, 3, 20), rng.integers(0, 3, 15)]
    orders = [rng.permutation(20), rng.permutation(15)]
    other = [labels[order] for labels, order in zip(one, orders, strict=True)]
    assert compare_partitions(one, other, alignments=[orders]).verdict == "same division"
    assert compare_partitions(one, other).verdict == "no more than chance"
    orders[0][3] = -1
    (pair,) = compare_partitions(one, other, alignments=[orders]).pairs
    assert (pair.only_first, pair.only_second) == (1, 1)


@pytest.mark.parametrize(
    ("divisions", "options", "said"),
    [
        (([np.zeros(3, dtype=int)], [np.zeros(4, dtype=int)]), {}, "give their names with nodes="),
        (({"p": 1}, {"q": 1}), {}, "like 'p' and 'q'"),
        (({"p": 1}, {"p": 1}), {"names": ["x", "x"]}, "expected 2 different ones"),
        (({"p": 1}, {"p": 1}), {"n_permutations": 0}, "at least 1"),
        (([], {"p": 1}), {}, "one int array per cut"),
        (({"p": 1}, [np.array([0])]), {"alignments": [[np.array([0])]]}, "expected a partition to align"),
        (([np.array([0, 1])], [np.array([0, 1])]), {"alignments": [[np.array([0, 0])]]}, "names a node twice"),
        (([np.array([0, 1])], [np.array([0, 1])]), {"alignments": [[np.array([0, 2])]]}, "none of the 2 nodes"),
        (([np.array([0, 1])], [np.array([0, 1])]), {"alignments": [[np.array([0])]]}, "entries per cut"),
        (([np.array([0, 1])], {"p": 1}), {"nodes": [[["p", "p"]], None]}, "the name 'p'"),
        (([np.array([0, 1])], {"p": 1}), {"nodes": [[["p"]], None]}, "expected one per node"),
        (([np.array([0, 1])], {"p": 1}), {"nodes": [None]}, "expected 2"),
    ],
)
def test_refusals(divisions: Any, options: Any, said: str) -> None:
    with pytest.raises(GraphError, match=said):
        compare_partitions(*divisions, **options)


# --- results


def test_round_trip_and_tables() -> None:
    pytest.importorskip("pandas")
    found = compare_partitions({"p": 0, "q": 0, "r": 1}, {"p": "x", "q": "y", "r": "y"}, {"p": 1, "q": 2, "r": 2})
    assert Comparison.from_bytes(found.to_bytes()) == found
    frame = found.to_frame()
    assert frame.nodes.sum() == 9
    assert frame[frame["first"].eq("b") & frame["second"].eq("c")].jaccard.tolist() == [1.0, 1.0]
    assert "same division" in found._repr_html_()
    assert "shared nodes" in found.pair("a", "b")._repr_html_()
    assert max(map(len, repr(found).splitlines())) <= 80
    with pytest.raises(GraphError, match="no pair"):
        found.pair("a", "z")


def test_many_labels_take_little_memory_and_time() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 700, 3000), rng.integers(0, 700, 3000)
    found = compare_partitions([a], [b], n_permutations=19)
    assert found.pairs[0].verdict == "no more than chance"
    assert abs(found.pairs[0].ami_by_chance) < 0.02


# --- modules over several seeds


def test_best_match_and_its_p_value_by_counting_all_relabellings() -> None:
    """Module 0 has the nodes 0, 1; by chance it meets both of a module of two in 2 of the 6 ways to choose them."""
    (pair,) = compare_partitions([np.array([0, 0, 1, 1])], [np.array([5, 5, 7, 7])], n_permutations=3000).pairs
    assert [(best.module, best.match, best.nodes, best.jaccard) for best in pair.best[0]] == [
        ("0", "5", 2, 1.0),
        ("1", "7", 2, 1.0),
    ]
    assert [(best.module, best.match) for best in pair.best[1]] == [("5", "0"), ("7", "1")]
    for best in (*pair.best[0], *pair.best[1]):
        assert abs(best.p_value - 1 / 3) < 4 * np.sqrt(
            2 / 9 / 3000
        )  # else each module of two shares one node with both
        assert abs(best.by_chance - (1 / 3 + 2 / 3 * 1 / 3)) < 4 * 0.32 / np.sqrt(3000)


@settings(max_examples=20, deadline=None)
@given(LABELS)
def test_best_matches_are_those_of_the_overlap_in_either_order(labels: Any) -> None:
    a, b, cuts = arrays(labels, 0, 1, 2)
    one, other = agreement(a, b, cuts, 7, 0), agreement(b, a, cuts, 7, 0)
    share = one.overlap / (one.overlap.sum(1)[:, None] + one.overlap.sum(0) - one.overlap)
    np.testing.assert_allclose(one.best[0], share.max(1))
    np.testing.assert_allclose(one.best[1], share.max(0))
    for name in ("best", "best_by_chance", "best_p"):
        for mine, theirs in zip(getattr(one, name), reversed(getattr(other, name)), strict=True):
            np.testing.assert_allclose(mine, theirs)


def test_a_module_that_all_seeds_have_persists_and_one_dealt_out_does_not() -> None:
    """30 nodes: module 0 is the same ten in all, modules 1 and 2 are dealt out anew in each."""
    rng = np.random.default_rng(0)
    rest = np.repeat([1, 2], 10)
    seeds = [[np.concatenate([np.zeros(10, dtype=int), rng.permutation(rest)])] for _ in range(4)]
    found = compare_partitions(*seeds, n_permutations=199)
    kept = found.persistence()
    assert [each.module for each in kept] == ["0", "1", "2"]
    assert (kept[0].matched, kept[0].jaccard) == (3, 1.0)
    assert all(each.jaccard < 0.7 for each in kept[1:])
    assert kept[0].by_chance < 0.5
    assert [name for name, _ in found.persistence(name="c")[0].best] == ["a", "b", "d"]
    assert "Modules of a in the 3 others: 0 in 3 (Jaccard 1.00" in " ".join(found.summary.split())
    with pytest.raises(GraphError, match="there is no division 'e'"):
        found.persistence(name="e")


def test_modules_without_counterparts_are_in_none() -> None:
    """Nodes 2 and 3, all of module 1, continue no node of the second division."""
    a, b = [np.array([0, 0, 1, 1, 2])], [np.array([0, 0, 1])]
    found = compare_partitions(a, b, a, alignments=[[np.array([0, 1, 4])], None], n_permutations=9)
    last = next(each for each in found.persistence() if each.module == "1")
    assert [(name, None if best is None else best.jaccard) for name, best in last.best] == [("b", None), ("c", 1.0)]
    assert last.jaccard == 0.5


def test_best_matches_are_stored(tmp_path: Any) -> None:
    found = compare_partitions([np.array([0, 0, 1])], [np.array([0, 1, 1])], n_permutations=9)
    again = Comparison.load(found.save(tmp_path / "comparison.safetensors"))
    assert again == found
    assert again.persistence() == found.persistence()
