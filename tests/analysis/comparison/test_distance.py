"""Distances between networks: values by hand, both directions of KL, standard errors, batches, refusals, storage."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from cases_checkpoints import save_inputs, save_mlp
from torch import Tensor, nn

from interbasis.analysis import InteractionGraph, Network, analyze, find_modules, load_checkpoint, network_distance
from interbasis.analysis.comparison.distance import NetworkDistance, _jackknife
from interbasis.analysis.errors import DataError, GraphError, InputError
from interbasis.analysis.modules.partition import Partition
from interbasis.analysis.recipe import LlcRecipe, PartitionRecipe

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def linear(weight: Tensor, loss: str = "mse") -> Network:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return Network(layer, (), loss=loss)


def drawn(count: int, *, outputs: int = 2, loss: str = "mse", scale: float = 1.0) -> list[Network]:
    generator = torch.Generator().manual_seed(1)
    return [
        linear(scale * torch.randn(outputs, 3, generator=generator, dtype=torch.float64), loss) for _ in range(count)
    ]


def weights(nets: Sequence[Network]) -> list[Tensor]:
    return [next(net.model.parameters()).detach() for net in nets]


# --- values


def test_linear_networks_are_apart_by_the_second_moment_of_the_data() -> None:
    """1/n sum |A x - B x|^2 = trace((A - B) E[x x^T] (A - B)^T)."""
    nets = drawn(4)
    moment = X.T @ X / len(X)
    expected = [[float(torch.trace((a - b) @ moment @ (a - b).T)) for b in weights(nets)] for a in weights(nets)]
    found = network_distance(nets, [X])
    np.testing.assert_allclose(found.data.matrix, expected, rtol=1e-12)
    assert found.epsilon == pytest.approx(np.sum(expected) / 12)
    assert found.data.between(0, 3) == pytest.approx(expected[0][3])


def test_kl_has_both_directions() -> None:
    """Two classes with log odds w and -w: KL(p || q) = p log p/q + (1 - p) log (1 - p)/(1 - q)."""
    odds, x = (2.0, -0.5), torch.ones(1, 1, dtype=torch.float64)
    p, q = (1 / (1 + np.exp(-w)) for w in odds)
    forward = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    backward = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
    nets = [linear(torch.tensor([[w], [0.0]], dtype=torch.float64), "kl") for w in odds]
    found = network_distance(nets, [x])
    np.testing.assert_allclose(found.data.matrix, [[0, forward], [backward, 0]], rtol=1e-12)
    assert found.epsilon == pytest.approx((forward + backward) / 2)
    frame = found.to_frame()
    assert frame[["from_first", "from_second"]].to_numpy().tolist() == [
        [found.data.matrix[0, 1], found.data.matrix[1, 0]]
    ]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_kl_is_that_of_torch_without_cancellation_or_overflow(scale: float) -> None:
    one, other = drawn(2, outputs=5, loss="kl", scale=scale)
    logs = [(X @ w.T).log_softmax(-1) for w in weights((one, other))]
    expected = float(nn.functional.kl_div(logs[1], logs[0], reduction="none", log_target=True).sum(1).mean())
    found = network_distance([one, other], [X]).data.matrix[0, 1]
    assert found > 0
    assert found == pytest.approx(expected, rel=1e-9 if scale >= 1 else 1e-3)


def test_the_same_network_is_at_no_distance() -> None:
    (net,) = drawn(1, loss="kl")
    found = network_distance([net, net], [X], names=["once", "again"])
    assert not found.data.matrix.any()
    with pytest.raises(InputError, match=r"once, again are the same.*no loss scale"):
        _ = found.choices


def test_batches_and_the_order_of_data_change_nothing() -> None:
    nets = drawn(3, loss="kl")
    whole = network_distance(nets, [X]).data
    parts = network_distance(nets, [X.flip(0)[:7], X.flip(0)[7:39], X.flip(0)[39:]]).data
    for name in ("matrix", "errors", "mean", "error_of_data", "error_of_networks"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-10)


# --- standard errors


def test_errors_over_data_are_those_of_the_mean_over_pairs_at_each_point() -> None:
    nets = drawn(3)
    points = torch.stack(
        [
            ((a - b) @ X.T).square().sum(0)
            for a, b in ((weights(nets)[i], weights(nets)[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
        ]
    )
    found = network_distance(nets, [X]).data
    assert found.error_of_data == pytest.approx(float(points.mean(0).std() / len(X) ** 0.5))
    assert found.errors[0, 2] == pytest.approx(float(points[1].std() / len(X) ** 0.5))
    assert found.standard_error == pytest.approx(np.hypot(found.error_of_data, found.error_of_networks))


def test_jackknife_is_exact_for_sums_of_a_term_for_each_network() -> None:
    """D_ij = a_i + a_j: the mean over pairs is 2 mean(a), with the variance 4 s^2 / K."""
    a = np.array([0.3, 1.0, 2.5, -0.7])
    matrix = (a[:, None] + a) * (1 - np.eye(4))
    assert _jackknife(matrix) == pytest.approx(2 * a.std(ddof=1) / 4**0.5)


def test_jackknife_is_not_too_small_on_average() -> None:
    """D_ij = (w_i - w_j)^2, w normal: the mean over pairs is twice the sample variance, with variance 8 / (K - 1)."""
    w = np.random.default_rng(0).normal(size=(2000, 5))
    variances = np.array([float(_jackknife((row[:, None] - row) ** 2) or 0.0) ** 2 for row in w])
    error = variances.std() / len(w) ** 0.5
    assert 8 / 4 - 4 * error < variances.mean() < 2 * 8 / 4


def test_two_networks_or_one_data_point_tell_no_more() -> None:
    pair = network_distance(drawn(2), [X])
    assert pair.data.error_of_networks is None
    assert pair.data.standard_error == pair.data.error_of_data
    assert "two networks do not tell how pairs differ" in pair.summary
    single = network_distance(drawn(2), [X[:1]])
    assert single.data.standard_error is None
    assert np.isnan(single.data.errors[0, 1])


# --- refusals


def test_what_cannot_be_compared_is_refused_by_name() -> None:
    one, two = drawn(2)
    with pytest.raises(InputError, match="1 network given: a distance needs two or more"):
        network_distance([one], [X])
    with pytest.raises(InputError, match="different losses, network 0 mse, network 1 kl"):
        network_distance([one, drawn(1, loss="kl")[0]], [X])
    with pytest.raises(DataError, match=r"network 0 and network 1 have shapes .40, 1, 2. and .40, 1, 5."):
        network_distance([one, drawn(1, outputs=5)[0]], [X])
    with pytest.raises(DataError, match=r"b: .*NaN or infinite"):
        network_distance([one, linear(torch.full((2, 3), np.nan, dtype=torch.float64))], [X], names=["a", "b"])
    with pytest.raises(DataError, match="distance of network 1 from network 0 is not finite"):
        network_distance([one, linear(torch.full((2, 3), 1e200, dtype=torch.float64))], [X])
    with pytest.raises(InputError, match="names are"):
        network_distance([one, two], [X], names=["a", "a"])
    with pytest.raises(InputError, match="no data: give batches"):
        network_distance([one, two])


# --- checkpoints, storage, and the loss scale


@pytest.fixture
def seeds(tmp_path: Path) -> list[Path]:
    save_inputs(tmp_path / "data.npz")
    return [save_mlp(tmp_path / f"seed{seed}.safetensors", seed=seed, step=9) for seed in range(3)]


def test_checkpoints_bring_data_held_out_data_names_and_hashes(seeds: list[Path], tmp_path: Path) -> None:
    loaded = [load_checkpoint(path, data=tmp_path / "data.npz") for path in seeds]
    found = network_distance(loaded)
    assert found.names == ("seed0@9", "seed1@9", "seed2@9")
    assert found.sha256 == tuple(each.sha256 for each in loaded)
    held_out = network_distance([each.network for each in loaded], loaded[0].test_batches).data
    assert found.held_out == held_out
    assert found.held_out is not None
    assert len(found.to_frame()) == 6
    again = NetworkDistance.load(found.save(tmp_path / "distance.safetensors"))
    assert again == found
    assert repr(again) == repr(found)
    assert "seed0@9 and seed1@9" in repr(found)
    assert "held out" in found._repr_html_()


def test_the_mean_is_a_loss_scale_that_names_where_it_comes_from(tmp_path: Path) -> None:
    distance = network_distance(drawn(3, scale=0.1), [X])
    graph = InteractionGraph.from_blocks([np.diag([3.0, 2.0]), np.diag([1.0, 2.0])])
    part = find_modules(graph, **distance.choices)
    assert (part.epsilon, part.epsilon_source) == (distance.epsilon, "seeds")
    assert part.seeds == tuple(f"network {i} sha256:{h}" for i, h in enumerate(distance.sha256))
    assert part.full_strength == 1.0
    assert "mean distance of network 0, network 1" in repr(part)
    assert Partition.load(part.save(tmp_path / "part.safetensors")) == part
    given = find_modules(graph, epsilon=distance.epsilon)
    assert b"seeds" not in given.to_bytes()
    with pytest.raises(GraphError, match="expected their mean distance as epsilon"):
        find_modules(graph, seeds=part.seeds)


def test_recipes_keep_the_number_and_the_networks() -> None:
    choices = network_distance(drawn(3), [X]).choices
    assert PartitionRecipe(**choices).seeds == choices["seeds"]
    assert PartitionRecipe(**choices).sha256 != PartitionRecipe(epsilon=choices["epsilon"]).sha256
    assert LlcRecipe(**choices).epsilon == choices["epsilon"]
    for wrong in ({"seeds": choices["seeds"]}, {"seeds": choices["seeds"], "epsilon": "graph"}):
        with pytest.raises(InputError, match="expected the mean distance of these networks as epsilon"):
            PartitionRecipe(**wrong)  # type: ignore[arg-type]


def test_analyze_takes_models_as_seeds() -> None:
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)) for _ in range(3)]
    for i, model in enumerate(models):  # the first, moved by a hundredth
        model.load_state_dict({name: v + 0.01 * i for name, v in models[0].state_dict().items()})
    x = X.float()
    found = analyze(models[0], x, epsilon="seeds", seeds=models, resolution=1.0)
    nets = [Network(model.double(), ()) for model in models]
    expected = network_distance(nets, [x.double()])
    assert found.partition.epsilon == pytest.approx(expected.epsilon, rel=1e-12)
    assert len(found.partition.seeds) == 3
    assert found.recipe.partition.epsilon == found.partition.epsilon
    again = analyze(models[0], x, epsilon="seeds", seeds=expected, resolution=1.0)
    assert again.partition.epsilon == expected.epsilon
    with pytest.raises(InputError, match="give the networks as seeds"):
        analyze(models[0], x, epsilon="seeds")
    with pytest.raises(InputError, match='say epsilon="seeds"'):
        analyze(models[0], x, seeds=models)
