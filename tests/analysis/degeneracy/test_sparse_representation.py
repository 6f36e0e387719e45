"""The sparse representation: same function, exact reconstruction, zeros by hand and as promised."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cases import block_diagonal_mlp
from cases_ledger import degenerate_networks, dense, generic, halves, inputs, small_transformer, weights_of
from hypothesis import HealthCheck, given, settings
from torch import nn

from interbasis.analysis.checkpoints.checkpoint import load_checkpoint
from interbasis.analysis.degeneracy.sparse_representation import SparseNetwork, sparsify
from interbasis.analysis.errors import DataError, LayerError, NumericalError
from interbasis.analysis.network.network import Network

SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


def check(network: Network, data: list[torch.Tensor]) -> SparseNetwork:
    """What must hold for every network."""
    sparse = sparsify(network, data)
    for batch in data:
        expected = network.output(batch)
        size = float(expected.abs().max())
        assert float((sparse.network().output(batch) - expected).abs().max()) <= 1e-9 * max(size, 1e-300)
    original = sparse.network(original=True).model
    for a, b in zip(network.model.parameters(), original.parameters(), strict=True):
        torch.testing.assert_close(b.data, a.data, rtol=1e-9, atol=1e-9 * float(a.data.abs().max()))
    assert sparse.zeros >= sparse.promised
    assert sparse.interactions == sum(p.numel() for p in network.model.parameters())
    for layer in sparse.layers:
        lost = [j for j in range(layer.weight.shape[1]) if j not in layer.kept]
        assert not layer.weight[:, lost].any()
        assert layer.zeros == int((layer.weight == 0).sum())
    return sparse


@given(degenerate_networks((1, 2, 3), ("relu", "relu", "leaky", "linear")))
@SLOW
def test_function_zeros_and_reconstruction(case) -> None:
    model, data = case
    check(dense(model), halves(data))


def test_generic_network_has_nothing_to_lose() -> None:
    """Each neuron is scaled so that one weight is 1; no weight becomes zero."""
    sparse = check(dense(generic((5, 6, 3))), halves(inputs(400, 5)))
    assert (sparse.zeros, sparse.promised) == (0, 0)
    assert ((sparse.layers[0].weight == 1).sum(1) == 1).all()


def test_linear_layer_passes_its_inputs_on() -> None:
    """4-4-3: the first layer becomes the identity without biases: 12 zeros off the diagonal, 4 biases."""
    sparse = check(dense(generic((4, 4, 3), activation="linear")), halves(inputs(100, 4)))
    torch.testing.assert_close(sparse.layers[0].weight, torch.eye(4, 5, dtype=torch.float64))
    assert (sparse.layers[0].zeros, sparse.layers[0].promised) == (16, 16)


def test_lost_directions_of_the_data_disconnect_inputs() -> None:
    data = inputs(200, 3) @ inputs(3, 5, seed=2)
    sparse = check(dense(generic((5, 6, 3))), halves(data))
    assert len(sparse.layers[0].kept) == 4, "three inputs and the constant"
    assert (sparse.layers[0].zeros, sparse.layers[0].promised) == (2 * 6, 2 * 6)


def test_duplicated_neuron_vanishes() -> None:
    """Its row is zero (5 weights and the bias), and nothing reads it (3 weights)."""
    model = generic((5, 6, 3))
    w, b = weights_of(model, 0)
    w[3], b[3] = 2 * w[1], 2 * b[1]
    sparse = check(dense(model), halves(inputs(200, 5)))
    assert not sparse.layers[0].weight[[1, 3]].any(1).all()
    assert (sparse.layers[0].zeros, sparse.layers[1].zeros) == (6, 3)


def test_block_of_synchronised_neurons_becomes_the_identity() -> None:
    """Three neurons that are always on: 3 by 3 identity (6 zeros), no biases (3 zeros)."""
    model = generic((5, 6, 3))
    weights_of(model, 0)[1][:3] = 40.0
    sparse = check(dense(model), halves(inputs(200, 5)))
    first = sparse.layers[0]
    block = first.weight[:3]
    pivots = [int(row.eq(1).nonzero()[0]) for row in block]
    assert sorted(set(pivots)) == sorted(pivots)
    torch.testing.assert_close(block[:, pivots], torch.eye(3, dtype=torch.float64))
    assert (first.zeros, first.promised) == (9, 9)
    assert float(first.shift[:3].abs().min()) > 0


def test_planted_blocks() -> None:
    """Blocks hidden by invertible changes of basis in linear layers, which cost nothing in the new coordinates."""
    g = torch.Generator().manual_seed(0)
    model = block_diagonal_mlp(3, g, hidden_by="basis")
    sparse = check(Network(model, ["0:in", "3"]), halves(inputs(300, 15)))
    assert sparse.layers[1].zeros == 15 * 15
    assert sparse.zeros > sparse.interactions / 4


def test_smooth_units_keep_their_coordinates() -> None:
    model = generic((5, 6, 3))
    model[0][1] = nn.Tanh()
    data = inputs(200, 3) @ inputs(3, 5, seed=2)
    sparse = check(dense(model), halves(data))
    torch.testing.assert_close(sparse.layers[0].to_new, torch.eye(6, dtype=torch.float64))
    assert sparse.zeros == 12


def test_trained_network(real_data: Path, tmp_path: Path) -> None:
    """On inputs of rank 32 all but 32 of the 784 pixels lose their 100 weights each."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "thin.npz", inputs=rng.standard_normal((600, 32)) @ rng.standard_normal((32, 784)))
    run = load_checkpoint(real_data / "mnist_mlp" / "mnist_mlp_100_100.safetensors", data=tmp_path / "thin.npz")
    sparse = check(run.network, list(run.batches))
    assert sparse.layers[0].promised >= (784 - 32) * 100


def test_layers_that_are_not_dense_are_named() -> None:
    network, data = small_transformer()
    with pytest.raises(LayerError, match=r"not dense: embed, attention\.q"):
        sparsify(network, data)


def test_tolerance_that_changes_the_function_is_refused() -> None:
    model, data = generic((5, 6, 3)), inputs(200, 5)
    data[:, 0] = data[:, 1] + 0.05 * data[:, 0]
    with pytest.raises(NumericalError, match="choose a smaller one"):
        sparsify(dense(model), [data], tolerance=0.2)


def test_no_data() -> None:
    with pytest.raises(DataError, match="no batches"):
        sparsify(dense(generic((3, 4, 2))), [])
