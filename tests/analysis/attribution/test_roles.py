"""Roles: nodes with the same inputs and outputs are found with their signs, and none where there are none."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from interbasis.analysis.attribution.roles import find_roles
from interbasis.analysis.errors import GraphError
from interbasis.analysis.graph.interaction_graph import InteractionGraph


def with_roles(seed, *, noise=0.2, each=4):
    """Three cuts; the middle nodes have four patterns of signed weights from the first and to the last cut."""
    generator = np.random.default_rng(seed)
    role = generator.permutation(np.repeat(np.arange(4), each))
    into, out = generator.standard_normal((2, 4, 8))
    weights = [into[role] + noise * generator.standard_normal((len(role), 8))]
    weights.append((out[role] + noise * generator.standard_normal((len(role), 8))).T)
    return weights, role


def graph_of(weights):
    return InteractionGraph.from_blocks([abs(w) for w in weights], weights=weights, unit="weight")


@pytest.mark.parametrize("seed", range(3))
def test_planted_roles_are_found(seed):
    weights, role = with_roles(seed)
    found = find_roles(graph_of(weights), seed=seed)
    assert found.verdict == "supported"
    assert adjusted_rand_score(role, found.labels[1]) == 1.0
    assert found.similarity > 0.5


def test_opposite_signs_are_other_roles():
    pattern = np.random.default_rng(0).standard_normal((1, 8))
    weights = [np.concatenate([pattern] * 3 + [-pattern] * 3), np.concatenate([pattern.T] * 3 + [-pattern.T] * 3, 1)]
    found = find_roles(graph_of(weights), k=3)
    assert found.labels[1][0] != found.labels[1][3]
    assert len(set(found.labels[1][:3].tolist())) == 1


def test_random_weights_have_one_role():
    weights = [list(np.random.default_rng(seed).standard_normal((2, 10, 10))) for seed in range(6)]
    found = [find_roles(graph_of(own), seed=seed) for seed, own in enumerate(weights)]
    assert sum(roles.n_roles > 1 for roles in found) <= 1
    assert {roles.verdict for roles in found if roles.n_roles == 1} == {"one role"}


def test_order_of_nodes_does_not_matter_and_nodes_without_edges_have_no_role():
    weights, _ = with_roles(1)
    weights = [np.concatenate([weights[0], np.zeros((1, 8))]), np.concatenate([weights[1], np.zeros((8, 1))], 1)]
    order = np.random.default_rng(5).permutation(17)
    first = find_roles(graph_of(weights), k=6, seed=0)
    again = find_roles(graph_of([weights[0][order], weights[1][:, order]]), k=6, seed=0)
    assert first.labels[1][16] == -1
    assert adjusted_rand_score(first.labels[1][order], again.labels[1]) == 1.0
    assert first.gaps[0] == pytest.approx(again.gaps[0], abs=0.2)  # null graphs are others


def test_one_group_has_the_similarity_of_all_pairs():
    weights, _ = with_roles(2, each=2)
    found = find_roles(graph_of(weights), n_null=19)
    n = sum(len(own) for own in found.labels)
    whole = np.zeros((n, n))
    whole[8:16, :8], whole[16:, 8:16] = weights
    profile = np.concatenate([whole, whole.T], 1)
    profile /= np.linalg.norm(profile, axis=1, keepdims=True)
    again = find_roles(graph_of(weights), n_null=19, k=1)
    assert again.n_roles == 1
    assert repr(again).startswith(f"Roles: 1 role of {n} nodes, mean cosine {again.similarity:.2f}\n{again.verdict}: ")
    assert again.similarity == pytest.approx(((profile @ profile.T).sum() - n) / (n * (n - 1)))


@pytest.mark.parametrize(
    ("options", "match"), [({"n_null": 18}, "n_null is 18"), ({"k": 0}, "k is 0"), ({"k": 99}, "k is 99")]
)
def test_numbers_that_make_no_sense_are_refused(options, match):
    with pytest.raises(GraphError, match=match):
        find_roles(graph_of(with_roles(0)[0]), **options)
