"""The ledger's quantities of a dense network written out: gradients of every data point, ranks by singular values."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


def rank(matrix: np.ndarray, tolerance: float = 1e-10) -> int:
    """Number of singular values above `tolerance` of the largest, columns scaled to length 1."""
    length = np.linalg.norm(matrix, axis=0)
    kept = length > 1e-13 * length.max(initial=0.0)
    if not kept.any():
        return 0
    values = np.linalg.svd(matrix[:, kept] / length[kept], compute_uv=False)
    return int((values > tolerance * values[0]).sum())


def parameter_gradients(model: nn.Module, inputs: Tensor, parameters: Sequence[nn.Parameter]) -> np.ndarray:
    """One row per data point and output: the gradient by all given parameters, by autograd."""
    rows = []
    for x in inputs:
        output = model(x[None]).flatten()
        for value in output:
            grads = torch.autograd.grad(value, parameters, retain_graph=True)
            rows.append(torch.cat([g.flatten() for g in grads]).numpy())
    return np.array(rows)


def hessian_rank(model: nn.Module, inputs: Tensor) -> int:
    """Exact rank of H = 1/n sum_x sum_k (df_k/dtheta)(df_k/dtheta)^T."""
    return rank(parameter_gradients(model, inputs, list(model.parameters())))


def plain_rank(model: nn.Module, batch: Tensor) -> int:
    """Rank of the Jacobian of all outputs of a batch by `named_parameters()`, one output after another."""
    held = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}
    rows = []
    for value in torch.func.functional_call(model, held, (batch,)).flatten():
        grads = torch.autograd.grad(
            value, list(held.values()), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.cat([g.flatten() for g in grads]).numpy())
    return rank(np.array(rows))


def count(model: nn.Sequential, inputs: Tensor) -> int:
    """sum_l rank(G) rank(K) - sum_a s_a t_a for the layers of `cases.sequential`, blocks by equal firing patterns."""
    dense = [layer[0] for layer in model]
    slopes = [1.0 if len(layer) == 1 else float(getattr(layer[1], "negative_slope", 0.0)) for layer in model]
    f, one = [inputs.numpy()], np.ones((len(inputs), 1))
    p, r = [], []
    for layer, slope in zip(dense, slopes, strict=True):
        z = f[-1] @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        p.append(z)
        r.append(np.where(z > 0, 1.0, slope))
        f.append(z * r[-1])
    k = p[-1].shape[1]
    seen = np.broadcast_to(np.eye(k), (len(inputs), k, k))
    jacobians = [seen]
    for layer, pattern in zip(reversed(dense[1:]), reversed(r[:-1]), strict=True):
        seen = (seen @ layer.weight.detach().numpy()) * pattern[:, None]
        jacobians.insert(0, seen)
    total = 0
    for i, seen in enumerate(jacobians):
        total += rank(np.hstack([f[i], one])) * rank(seen.reshape(-1, seen.shape[2]))
        if i == len(jacobians) - 1:
            continue
        blocks: dict[bytes, list[int]] = {}
        for unit, pattern in enumerate(r[i].T):
            blocks.setdefault((pattern / pattern.max(initial=1e-300)).round(12).tobytes(), []).append(unit)
        for units in blocks.values():
            pattern = r[i][:, units[0]]
            constant = [one] if pattern.all() and np.ptp(pattern) == 0 else []
            total -= rank(np.hstack([f[i + 1][:, units], *constant])) * rank(seen[..., units].reshape(-1, len(units)))
    return total
