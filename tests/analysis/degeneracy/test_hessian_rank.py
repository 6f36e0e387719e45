"""Rank of the Hessian: products against gradients written out, quadrature against known spectra."""

import numpy as np
import pytest
import torch
from cases import normal
from cases_ledger import dense, generic, halves, inputs, small_transformer
from reference_ledger import parameter_gradients

from interbasis.analysis.degeneracy.hessian_rank import estimated_rank, gradient_factor, sampled_gradients
from interbasis.analysis.degeneracy.layers import find_layers
from interbasis.analysis.linalg import lanczos
from interbasis.analysis.network.network import Network


def hessian_of(network: Network, data: list[torch.Tensor]) -> torch.Tensor:
    """H in the order of the layers, from the triangular factor."""
    factor = gradient_factor(network, find_layers(network, data[0]), data).factor()
    return factor.T @ factor / sum(map(len, data))


@pytest.mark.parametrize("loss", ["mse", "kl"])
def test_gradients_are_those_of_autograd(loss: str) -> None:
    model, data = generic((3, 4, 2)), inputs(20, 3)
    network = Network(model, ["0:in", "1"], loss=loss)
    got = torch.linalg.eigvalsh(hessian_of(network, halves(data)))
    rows = torch.from_numpy(parameter_gradients(model, data, list(model.parameters()))).reshape(20, 2, -1)
    fisher = torch.eye(2, dtype=torch.float64).expand(20, 2, 2)
    if loss == "kl":
        p = model(data).detach().softmax(-1)
        fisher = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    expected = torch.einsum("nki,nkl,nlj->ij", rows, fisher, rows) / 20
    torch.testing.assert_close(got, torch.linalg.eigvalsh(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", ["mse", "kl", "transformer"])
def test_lanczos_sees_the_spectrum_of_the_hessian(case: str) -> None:
    """As many steps as parameters: the quadrature of a random vector has the eigenvalues of H as nodes."""
    if case == "transformer":
        network, data = small_transformer(d_model=2, n_heads=1, d_mlp=2, d_vocab=4)
    else:
        network, data = Network(generic((3, 4, 2)), ["0:in", "1"], loss=case), halves(inputs(30, 3))
    layers = find_layers(network, data[0])
    n = sum(map(len, data))
    values = torch.linalg.eigvalsh(hessian_of(network, data))
    options = {"bound": len(values), "steps": len(values), "probes": 4}
    for cut in (0.3, 0.03):
        epsilon = cut * float(values[-1])
        found = estimated_rank(network, layers, data, n, epsilon=epsilon, **options)
        assert found.largest == pytest.approx(float(values[-1]), rel=1e-9)
        assert found.lower <= int((values > epsilon).sum()) <= found.upper


def test_quadrature_is_exact_for_polynomials() -> None:
    """m nodes integrate x^0 to x^(2m-1) against the spectral measure exactly."""
    g = torch.Generator().manual_seed(0)
    root = normal(12, 12, generator=g)
    matrix, start = root @ root.T / 12, normal(12, generator=g)
    nodes, weights = lanczos(lambda v: matrix @ v, start, 4)
    unit = start / start.norm()
    power = unit
    for degree in range(8):
        assert float((weights * nodes**degree).sum()) == pytest.approx(float(unit @ power), rel=1e-9)
        power = matrix @ power


def test_lanczos_stops_where_the_space_is_exhausted() -> None:
    nodes, weights = lanczos(lambda v: 3.0 * v, torch.ones(5, dtype=torch.float64), 5)
    np.testing.assert_allclose(nodes, [3.0])
    np.testing.assert_allclose(weights, [1.0])


def test_projections_of_gradients_have_the_hessian_as_second_moment() -> None:
    """Mean over 4,000 projections against H, within four standard errors entry by entry."""
    network, data = dense(generic((2, 3, 2))), inputs(50, 2)
    layers = find_layers(network, data)
    rows = [
        torch.cat([part.flatten(0, 1) for part in sampled_gradients(network, layers, [data], 50, seed=s)], 1)
        for s in range(40)
    ]
    g = torch.cat(rows)
    products = torch.einsum("mi,mj->mij", g, g)
    error = products.std(0) / len(g) ** 0.5
    assert bool(((products.mean(0) - hessian_of(network, [data])).abs() <= 4.5 * error + 1e-12).all())
