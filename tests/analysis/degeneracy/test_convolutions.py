"""The ledger of convolutions, counted through their patches, and of batch normalisation in evaluation mode."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from interbasis.analysis import Ledger, Network, parameter_ledger
from interbasis.analysis.degeneracy.layer_trace import trace_layers
from interbasis.analysis.degeneracy.layers import find_layers


def exact(model: nn.Module, x: Tensor) -> int:
    """The rank of the gradients of every output at every data point, by torch.func."""
    parameters = dict(model.named_parameters())
    grads = vmap(lambda v: jacrev(lambda p: functional_call(model, p, (v[None],))[0])(parameters))(x)
    rows = torch.cat([g.flatten(2).flatten(0, 1) for g in grads.values()], 1)
    return int(torch.linalg.matrix_rank(rows, rtol=1e-10))


def normalised(model: nn.Sequential, x: Tensor) -> nn.Sequential:
    """Set the statistics and weights of all batch normalisations to something that is not the identity."""
    model(x.roll(1, 0) + 0.3)
    for module in model:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return model.eval()


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(2, 4, 3, padding=1),
        nn.Conv2d(2, 4, (3, 2), stride=2, dilation=(2, 1), bias=False),
        nn.Conv2d(2, 4, 3, padding="same", padding_mode="reflect", groups=2),
        nn.Conv2d(2, 4, 1),
    ],
)
def test_ranks_are_exact_and_patches_explain_the_gradients(convolution: nn.Conv2d) -> None:
    torch.manual_seed(0)
    x = torch.randn(60, 2, 6, 7, dtype=torch.float64)
    pool = nn.AdaptiveAvgPool2d(2)
    layers = [convolution, nn.BatchNorm2d(4), nn.GELU(), pool, nn.Flatten(), nn.Linear(16, 3)]
    model = normalised(nn.Sequential(*layers).double(), x)
    ledger = parameter_ledger(Network(model, []), x.split(40))
    assert ledger.warning is None
    assert ledger.nominal == sum(p.numel() for p in model.parameters())
    assert ledger.effective == exact(model, x)
    assert ledger.unexplained >= 0
    assert [layer.name for layer in ledger.layers] == ["0", "1", "5"]
    assert [layer.groups for layer in ledger.layers] == [convolution.groups, 4, 1]
    assert [layer.nominal for layer in ledger.layers] == [
        sum(p.numel() for p in model[i].parameters()) for i in (0, 1, 5)
    ]
    found = find_layers(Network(model, []), x)
    trace = trace_layers(Network(model, []), found, x)
    for layer, f in zip(found[: convolution.groups], trace.inputs, strict=False):
        whole = convolution.weight[layer.written].flatten(1)
        if convolution.bias is not None:
            whole = torch.cat([whole, convolution.bias[layer.written, None]], 1)
        torch.testing.assert_close(f @ whole.T, convolution(x).flatten(2).transpose(1, 2)[..., layer.written])


def test_signals_and_normalised_features() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 2, 8, dtype=torch.float64)
    first = nn.Conv1d(2, 3, 3, padding=2, padding_mode="circular", dilation=2)
    layers = [first, nn.BatchNorm1d(3, affine=False), nn.Tanh(), nn.Flatten(), nn.Linear(24, 2), nn.BatchNorm1d(2)]
    model = normalised(nn.Sequential(*layers).double(), x)
    ledger = parameter_ledger(Network(model, []), [x])
    assert [layer.name for layer in ledger.layers] == ["0", "4", "5"]
    assert ledger.effective == exact(model, x) == ledger.nominal - 4
    assert ledger.unexplained == 4  # scale and shift of the last features, which the layer before can make as well
    assert Ledger.from_bytes(ledger.to_bytes()) == ledger


def test_lost_ranks_of_patches_are_activations_and_dead_filters_jacobians() -> None:
    torch.manual_seed(0)
    x = torch.randn(80, 3, 5, 5, dtype=torch.float64)
    x[:, 2] = x[:, 0] + x[:, 1]  # a channel that says nothing new: 9 of 27 directions of every filter
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36, 5)).double()
    with torch.no_grad():
        model[3].weight[:, 27:] = 0  # the last filter is not read
    ledger = parameter_ledger(Network(model, []), [x])
    convolution = ledger.layers[0]
    assert (convolution.gram_rank, convolution.jacobian_rank) == (19, 3)
    assert (convolution.activations, convolution.jacobians) == (9 * 4, 19)
    assert ledger.effective == exact(model, x)


def test_what_is_no_linear_map_of_patches_is_named_and_the_rest_counted() -> None:
    torch.manual_seed(0)
    x = torch.randn(40, 1, 4, 4, 4, dtype=torch.float64)
    model = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Flatten(), nn.Linear(16, 2)).double()
    ledger = parameter_ledger(Network(model, []), [x])
    assert [layer.name for layer in ledger.layers] == ["2"]
    assert "not counted: 56 parameters (62.2%) in 0.weight, 0.bias" in str(ledger.warning)
    assert ledger.effective == exact(model, x)
