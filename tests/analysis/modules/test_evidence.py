"""Are the modules real? Null graphs, planted graphs, and trained networks whose modules are known; no knob anywhere."""

import numpy as np
import pytest
from cases_graphs import planted, unstructured
from cases_networks import TASKS, trained_graph
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from interbasis.analysis.modules.evidence import stability, variation_of_information
from interbasis.analysis.modules.find_modules import find_modules
from interbasis.analysis.modules.profile import resolutions
from interbasis.analysis.search.local_search import Search
from interbasis.analysis.search.objectives import LAYERED

KINDS = ["uniform", "sparse", "hubs", "decay"]


@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 35), marks=pytest.mark.long)])
def test_false_positives(seeds):
    """Of graphs without modules, hub-only ones among them, at most a tenth have p <= .05."""
    found = []
    for seed in seeds:
        for kind in KINDS:
            part = find_modules(unstructured(kind, 12, 4, seed=1000 + seed), epsilon=1.0, seed=seed)
            found.append(part.n_modules > 1 and part.p_value <= 0.05)
            assert (part.n_modules == 1) == (part.warning is not None and part.warning.startswith("one module"))
    assert np.mean(found) <= 0.1


@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 26), marks=pytest.mark.long)])
@pytest.mark.parametrize("objective", LAYERED)
def test_p_values_of_given_resolutions_are_calibrated(objective, seeds):
    """p <= .1 in at most 10 % of graphs without modules, up to 3 binomial standard deviations."""
    values = []
    for seed in seeds:
        for kind in KINDS:
            graph = unstructured(kind, 12, 4, seed=2000 + seed)
            _, resolution = resolutions(Search(graph, 1.0), objective, None)[4]
            part = find_modules(graph, epsilon=1.0, objective=objective, resolution=resolution, n_null=19, seed=seed)
            values.append(1.0 if part.n_modules == 1 else part.p_value)
    assert np.mean(np.array(values) <= 0.1) <= 0.1 + 3 * np.sqrt(0.09 / len(values))


@pytest.mark.parametrize("seeds", [range(4), pytest.param(range(4, 40), marks=pytest.mark.long)])
def test_power(seeds):
    """Of graphs with modules that can be seen, nine of ten have p <= .05 and the right number."""
    hits = 0
    for seed in seeds:
        graph, _ = planted(((8, 8), (12, 4), (5, 5, 5), (4,) * 4)[seed % 4], seed=seed, inside=0.8)
        part = find_modules(graph, epsilon=1.0, seed=seed)
        hits += part.p_value is not None and part.p_value <= 0.05 and part.n_modules == (2, 2, 3, 4)[seed % 4]
    assert hits >= 0.9 * len(seeds)


@pytest.mark.parametrize(
    ("options", "within"),
    [
        ({"sizes": (12,) * 5, "inside": 0.4}, 0.02),
        ({"sizes": (30, 15, 8), "inside": 0.4}, 0.05),
        ({"sizes": (5,) * 10, "inside": 0.7}, 0.02),
        ({"sizes": (20, 20), "inside": 0.3, "spread": 1.0}, 0.02),
    ],
)
def test_choice_is_near_the_best_of_the_grid(options, within):
    graph, truth = planted(**options, seed=5)
    flat = np.concatenate(truth)

    def agreement(part):
        labels = np.concatenate(part.labels)
        return adjusted_rand_score(flat[labels >= 0], labels[labels >= 0])

    part = find_modules(graph, epsilon=1.0)
    grid = [find_modules(graph, epsilon=1.0, objective=r.objective, resolution=r.resolution) for r in part.profile]
    assert agreement(part) >= max(map(agreement, grid)) - within


@pytest.mark.parametrize("seeds", [range(1), pytest.param(range(1, 5), marks=pytest.mark.long)], ids=str)
@pytest.mark.parametrize(
    "task",
    [pytest.param(t, marks=[pytest.mark.long] if t == "three digits" else []) for t in TASKS if t != "sum"],
)
def test_modules_of_trained_networks(task, seeds):
    """No knob, epsilon included: AMI with the true sides .9 on average, .75 at worst."""
    found = []
    for seed in seeds:
        graph, sides, accuracy = trained_graph(task, seed)
        assert accuracy > 0.9
        part = find_modules(graph)
        labels, truth = np.concatenate(part.labels), np.concatenate(sides)
        found.append(adjusted_mutual_info_score(truth[labels >= 0], labels[labels >= 0]))
        assert part.p_value is not None
        assert part.p_value <= 0.05
    assert np.mean(found) >= 0.9
    assert min(found) >= 0.75


@pytest.mark.parametrize("seeds", [range(1), pytest.param(range(1, 5), marks=pytest.mark.long)], ids=str)
def test_one_entangled_task_is_one_module(seeds):
    for seed in seeds:
        graph, _, accuracy = trained_graph("sum", seed)
        assert accuracy > 0.5
        part = find_modules(graph)
        assert part.n_modules == 1
        assert f"(largest z {part.z:.1f}, p {part.p_value:.2g})" in part.reason
        assert "one module" in part.warning


def test_stability_and_confidence_of_clear_and_unclear_modules():
    clear = find_modules(planted((10, 10), seed=0, inside=0.8)[0], epsilon=1.0)
    unclear = find_modules(unstructured("uniform", width=20, seed=0), epsilon=1.0, resolution=1.5)
    assert clear.stability == pytest.approx(1.0)
    assert clear.variation_of_information == pytest.approx(0.0, abs=1e-12)
    assert min(shares.min() for shares in clear.confidence) == pytest.approx(1.0)
    assert unclear.stability < 0.6
    assert np.mean(np.concatenate(unclear.confidence)) < 0.7
    assert "independent searches differ" in unclear.warning
    assert clear.warning is None


def test_stability_by_hand():
    # {0, 1}, {2, 3} against {0}, {1, 2, 3}: overlaps 1/2, 1/4, 2/3, 2/3
    found = stability(np.array([0, 0, 1, 1]), [np.array([0, 1, 1, 1])])
    np.testing.assert_allclose(found.confidence, [1 / 2, 1 / 4, 2 / 3, 2 / 3])
    # H(a|b) = 3/4 H(1/3, 2/3), H(b|a) = 1/2 log 2
    expected = 0.75 * (np.log(3) - 2 / 3 * np.log(2)) + 0.5 * np.log(2)
    assert found.variation_of_information == pytest.approx(expected)
    assert variation_of_information(np.array([0, 1, 1]), np.array([5, 3, 3])) == pytest.approx(0.0, abs=1e-12)


def test_hierarchy_of_modules_within_modules():
    """Four blocks, two and two joined by weaker edges: levels of two and of four, the finer within the coarser."""
    graph, truth = planted((8, 8, 8, 8), seed=0, inside=0.9, noise=-3.0)
    generator = np.random.default_rng(0)
    blocks = []
    for p, block in enumerate(graph.blocks):
        same_pair = (truth[p + 1][:, None] // 2) == (truth[p] // 2)
        weaker = same_pair & (generator.random(block.shape) < 0.5)
        blocks.append(np.where(weaker, np.maximum(block, 1.8), block))
    part = find_modules(type(graph).from_blocks(blocks), epsilon=1.0)
    levels = {level.n_modules: level for level in part.hierarchy}
    assert {2, 4} <= set(levels)
    assert part.n_modules in levels
    coarse, fine = np.concatenate(levels[2].labels), np.concatenate(levels[4].labels)
    assert adjusted_rand_score(np.concatenate(truth) // 2, coarse) > 0.95
    assert adjusted_rand_score(np.concatenate(truth), fine) > 0.95
    chain = list(part.hierarchy)
    below = chain[chain.index(levels[2]) + 1]
    assert below.nesting > 0.95
    assert len(below.parents) == below.n_modules
    assert part.hierarchy[0].parents == ()
