"""Rank of the Hessian of the behavioural loss, H = 1/n sum_x sum_k (df_k/dtheta)(df_k/dtheta)^T (paper, eq. 10).

Up to a factor 2 this is the second derivative at theta*. The rank is exact, from the singular values of the per-sample
parameter gradients, where these fit in memory; otherwise Lanczos quadrature estimates the number of eigenvalues above
a cutoff, with its error. rank(H)/2 is a lower bound of the learning coefficient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..basis.cotangents import Probes, output_cotangents
from ..linalg import RowSpace, column_rank, lanczos
from ..network.batches import Batch, read_batches
from ..network.network import Network
from ..progress import ProgressCallback
from .layer_trace import LayerTrace, arranged, jacobian_blocks, trace_layers
from .layers import Layer, shared_rows

__all__ = [
    "Fit",
    "HessianRank",
    "estimated_rank",
    "exact_rank",
    "gradient_factor",
    "gradient_rows",
    "kronecker_fit",
    "layer_rows",
    "sampled_fit",
    "sampled_gradients",
    "sampled_rank",
]

_SAMPLED_RANK = 2048  # sampled gradients, whose rank is a lower bound

_LANCZOS_WORK = 2 * 10**11  # floating point operations of all steps, about a minute on two cores

_ZERO = 1e-12  # Ritz values below this share of the largest belong to the null space


@dataclass(frozen=True)
class HessianRank:
    """The rank of the Hessian, with the method and its bounds.

    Attributes:
        value: the rank, or the estimated number of eigenvalues above `cutoff`.
        method: "exact" (singular values of all parameter gradients); "lanczos" (estimate); "sampled" (bounds: from
            below by the rank of a sample of gradients, from above, which is the value, by the ledger's causes).
        cutoff: eigenvalues up to the cutoff count as zero; None for the rank at a relative tolerance.
        lower, upper: equal to the value where that is exact; for Lanczos the bounds of the quadrature, widened by two
            standard errors of its random start.
        soft: sum of h / (h + epsilon) over the eigenvalues h, where an epsilon was given.
        largest: largest eigenvalue.
        steps, probes, seed: settings of the Lanczos quadrature.
    """

    value: int
    method: str
    cutoff: float | None
    lower: int
    upper: int
    soft: float | None
    largest: float
    steps: int = 0
    probes: int = 0
    seed: int | None = None

    @property
    def exact(self) -> bool:
        """Whether the rank was computed, not estimated."""
        return self.method == "exact"


@dataclass(frozen=True)
class Fit:
    """How well G (x) K approximates the Hessian block of a layer, from all of its gradients or a sample.

    Attributes:
        error: |H - G (x) K| / |H|, Frobenius norms; computed from three scalar products, so exact to about 1e-8 only.
        cosine: <H, G (x) K> / (|H| |G (x) K|).
        standard_error: standard error of the cosine, over parts of the sample; None where all gradients were used.
    """

    error: float
    cosine: float
    standard_error: float | None


def gradient_rows(
    inputs: Float[Tensor, "batch positions n_inputs"], jacobian: Float[Tensor, "v batch positions d_out"]
) -> Float[Tensor, "rows parameters"]:
    """Compute gradients sum_t J_t f_t^T of a layer's parameters (d_out, n_inputs), a row per output and data point."""
    return torch.einsum("vnto,nti->vnoi", jacobian, inputs).flatten(0, 1).flatten(1)


def layer_rows(
    layers: Sequence[Layer],
    inputs: Sequence[Float[Tensor, "batch _ _"]],
    jacobians: Sequence[Float[Tensor, "v batch _ _"]],
) -> list[Float[Tensor, "rows _"]]:
    """Compute gradients of all layers' parameters, a row per output and data point; uses of one matrix are added."""
    rows = [torch.einsum("vnto,nti->vnoi", j, f) for f, j in zip(inputs, jacobians, strict=True)]
    return [part.flatten(0, 1).flatten(1) for part in shared_rows(layers, rows)]


def gradient_factor(
    network: Network, layers: Sequence[Layer], batches: Iterable[Batch], progress: ProgressCallback | None = None
) -> RowSpace:
    """Compute the triangular factor of the per-sample gradients of all parameters, layer after layer."""
    space = RowSpace(sum(layer.nominal for layer in layers))
    for batch in read_batches(batches, "parameter gradients", progress):
        trace = trace_layers(network, layers, batch)
        for blocks in jacobian_blocks(network, layers, trace):
            space.add(torch.cat(layer_rows(layers, trace.inputs, blocks), 1))
    return space


def exact_rank(
    factor: Float[Tensor, "r parameters"], n: int, *, tolerance: float, epsilon: float | None
) -> HessianRank:
    """Compute the rank of H from the triangular factor of the gradients of n data points.

    >>> factor = torch.diag(torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64))
    >>> rank = exact_rank(factor, 1, tolerance=1e-10, epsilon=None)
    >>> rank.value, rank.largest
    (2, 4.0)
    """
    values = torch.linalg.svdvals(factor).square() / n if factor.numel() else torch.zeros(1, device="cpu")
    if epsilon is None:
        rank, soft = column_rank(factor, tolerance=tolerance), None
    else:
        rank, soft = int((values > epsilon).sum()), float((values / (values + epsilon)).sum())
    return HessianRank(rank, "exact", epsilon, rank, rank, soft, float(values[0]))


def estimated_rank(
    network: Network,
    layers: Sequence[Layer],
    batches: Iterable[Batch],
    n: int,
    *,
    epsilon: float,
    bound: int,
    steps: int | None = None,
    probes: int = 1,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> HessianRank:
    """Estimate the number of eigenvalues of H above epsilon by Lanczos quadrature.

    Each probe's spectral measure is a quadrature rule at the Ritz values; by the Chebyshev-Markov-Stieltjes
    inequalities its mass above a cut lies between the weights above it without and with the Ritz value next to it.
    The estimate interpolates between neighbouring Ritz values in the logarithm of the eigenvalue; no more than `bound`
    eigenvalues can be above zero. By default 24 to 256 steps, depending on the cost of a product with H.
    """
    sizes = [layer.nominal for layer in layers]
    total = sum(sizes)
    steps = min(256, max(24, _LANCZOS_WORK // (12 * n * total))) if steps is None else steps
    generator = torch.Generator().manual_seed(seed)

    def product(vector: Tensor) -> Tensor:
        return _hessian_product(network, layers, batches, n, vector)

    rules = []
    for _ in range(probes):
        start = torch.randn(total, generator=generator, dtype=torch.float64, device="cpu")
        rules.append(lanczos(product, start, steps, progress))
    largest = max(float(nodes[-1]) for nodes, _ in rules)
    shares = [_mass_above(nodes, weights, epsilon) for nodes, weights in rules]
    low, value, high = (total * np.array(column) for column in zip(*shares, strict=True))
    mean = float(value.mean())
    spread = math.sqrt(2 * mean * max(total - mean, 0.0) / (total + 2) / probes)  # of a random unit vector's share
    soft = float(np.mean([total * float((w * x / (x + epsilon)).sum()) for x, w in rules]))
    return HessianRank(
        min(round(mean), bound),
        "lanczos",
        epsilon,
        max(0, min(math.floor(low.mean() - 2 * spread), bound)),
        min(bound, math.ceil(high.mean() + 2 * spread)),
        soft,
        largest,
        steps,
        probes,
        seed,
    )


def kronecker_fit(
    factor: Float[Tensor, "r parameters"],
    n: int,
    gram: Float[Tensor, "n_inputs n_inputs"],
    jacobian_gram: Float[Tensor, "d_out d_out"],
) -> Fit:
    """Fit G (x) K to the block H of one layer, from the triangular factor (or all rows) of its gradients.

    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> kronecker_fit(one, 1, one, one)
    Fit(error=0.0, cosine=1.0, standard_error=None)
    """
    if not factor.numel():
        return Fit(math.nan, math.nan, None)
    own = factor @ factor.T if len(factor) < factor.shape[1] else factor.T @ factor
    rows = factor.reshape(-1, len(jacobian_gram), len(gram))
    cross = torch.einsum("roi,roi->", jacobian_gram @ rows, rows @ gram)
    return _fit(
        float(own.square().sum()) / n**2, float(cross) / n, float(gram.norm() * jacobian_gram.norm()) ** 2, None
    )


def sampled_gradients(
    network: Network,
    layers: Sequence[Layer],
    batches: Iterable[Batch],
    n: int,
    *,
    seed: int = 0,
    sample: int | None = None,
    progress: ProgressCallback | None = None,
) -> list[Float[Tensor, "two m _"]]:
    """Compute two random projections g = sum_k u_k df_k/dtheta at `sample` random data points, per layer.

    By default 256 points, or as many more (up to 2,048) as 320 MB hold. With E[u u^T] = I over the outputs,
    E[g g^T] = H_x at its data point. The draws depend on the seed alone, not on how the data are batched.
    """
    if sample is None:
        sample = min(2048, max(256, 2 * 10**7 // sum(layer.nominal for layer in layers)))
    chosen = torch.zeros(n, dtype=torch.bool, device="cpu")
    chosen[torch.randperm(n, generator=torch.Generator().manual_seed(seed), device="cpu")[:sample]] = True
    rows: list[list[Tensor]] = [[] for _ in layers]
    draws, start = Probes(2, seed), 0
    for batch in read_batches(batches, "sample of gradients", progress):
        trace = trace_layers(network, layers, batch)
        mine = chosen[start : start + len(trace.output)]
        start += len(trace.output)
        given = output_cotangents(network, trace.output, draws, trace.counted)
        cotangents = torch.cat([u for _, u in given]) * math.sqrt(2)
        for blocks in jacobian_blocks(network, layers, trace, iter([cotangents])):
            found = layer_rows(layers, [f[mine] for f in trace.inputs], [j[:, mine] for j in blocks])
            for held, part in zip(rows, found, strict=True):
                held.append(part.unflatten(0, (2, -1)))
    return [torch.cat(held, 1) for held in rows]


def sampled_rank(rows: Sequence[Float[Tensor, "two m _"]], bound: int) -> HessianRank:
    """Bound the rank from below by a sample of gradients (a randomised range finder), and from above by `bound`.

    Eigenvalues of the sample's Gram matrix, gradients scaled to length 1, count if above 1e-11 of the largest.
    """
    flat = [part.flatten(0, 1)[:_SAMPLED_RANK] for part in rows]
    gram = sum((part @ part.T for part in flat), torch.zeros((), device="cpu"))
    length = gram.diagonal().sqrt()
    kept = length > 0
    scaled = (gram / length / length[:, None])[kept][:, kept]
    values = torch.linalg.eigvalsh(scaled) if kept.any() else torch.zeros(0, device="cpu")
    lower = min(int((values > 1e-11 * values.max()).sum()), bound) if len(values) else 0
    return HessianRank(bound, "sampled", None, lower, bound, None, float(torch.linalg.eigvalsh(gram)[-1]) / len(gram))


def sampled_fit(
    rows: Float[Tensor, "two m _"], n: int, gram: Float[Tensor, "d d"], jacobian_gram: Float[Tensor, "k k"]
) -> Fit:
    """Compute `kronecker_fit` from a sample of gradients.

    |H|^2 is the mean of <H_x, H_x'> over pairs of data points, estimated without bias.

    The standard error of the cosine is over eight parts of the sample.
    """
    if not rows.numel():
        return Fit(math.nan, math.nan, None)
    shaped = rows.reshape(2, rows.shape[1], len(jacobian_gram), len(gram))
    cross = torch.einsum("zmoi,zmoi->m", jacobian_gram @ shaped, shaped @ gram) / 2
    kernel = (rows[0] @ rows[1].T).square()
    product = float(gram.norm() * jacobian_gram.norm()) ** 2

    def fit(part: Tensor) -> Fit:
        inner, size = kernel[part][:, part], len(part)
        same = inner.diagonal().mean()
        other = (inner.sum() - inner.diagonal().sum()) / max(size * (size - 1), 1)
        return _fit(float(other * (n - 1) / n + same / n), float(cross[part].mean()), product, None)

    whole = fit(torch.arange(rows.shape[1], device="cpu"))
    parts = [fit(part).cosine for part in torch.arange(rows.shape[1], device="cpu").chunk(8) if len(part) > 1]
    error = float(np.std(parts, ddof=1) / math.sqrt(len(parts))) if len(parts) > 1 else math.nan
    return replace(whole, standard_error=error)


def _fit(own: float, cross: float, product: float, error: float | None) -> Fit:
    if own <= 0 or product <= 0:
        return Fit(math.nan, math.nan, error)
    distance = math.sqrt(max(own - 2 * cross + product, 0.0) / own)
    return Fit(distance, min(1.0, cross / math.sqrt(own * product)), error)


def _mass_above(
    nodes: Float[np.ndarray, " m"], weights: Float[np.ndarray, " m"], cutoff: float
) -> tuple[float, float, float]:
    """Return the smallest, interpolated and largest share of the measure above the cut."""
    above = nodes > cutoff
    first = len(nodes) - int(above.sum())
    certain = float(weights[above].sum())
    low = certain - (float(weights[first]) if first < len(nodes) else 0.0)
    high = certain + (float(weights[first - 1]) if first > 0 else 0.0)
    middle = certain
    if 0 < first < len(nodes) and nodes[first - 1] > _ZERO * nodes[-1]:
        # half of each neighbour's weight lies on either side of its node; between them the measure is log-linear
        below, over = math.log(nodes[first - 1]), math.log(nodes[first])
        share = (over - math.log(cutoff)) / (over - below)
        middle += -weights[first] / 2 + share * (weights[first] + weights[first - 1]) / 2
    return max(low, 0.0), float(min(max(middle, low), high)), min(high, 1.0)


def _hessian_product(
    network: Network, layers: Sequence[Layer], batches: Iterable[Batch], n: int, vector: Float[Tensor, " parameters"]
) -> Float[Tensor, " parameters"]:
    """Compute H v by a forward and a backward derivative through the layers, without per-sample gradients."""
    split = dict(zip((id(layer) for layer in layers), vector.split([layer.nominal for layer in layers]), strict=True))
    index = {layer.name: layer for layer in layers}
    parts = []
    for layer in layers:
        owner = index[layer.shares] if layer.shares else layer
        part = split[id(owner)].reshape(owner.d_out, owner.n_inputs)
        parts.append(part[:, : layer.d_out].T if layer.shares else part)
    totals = [torch.zeros_like(part) for part in parts]
    for batch in batches:
        trace = trace_layers(network, layers, batch)
        moved = _push_forward(trace, layers, [f @ v.T for f, v in zip(trace.inputs, parts, strict=True)])
        if network.loss == "kl":
            p = trace.output.detach().softmax(-1)
            moved = p * (moved - (p * moved).sum(-1, keepdim=True))
        back = torch.autograd.grad(trace.output, trace.outputs, moved, materialize_grads=True)
        for total, grad, f, layer in zip(totals, back, trace.inputs, layers, strict=True):
            total += torch.einsum("nto,nti->oi", arranged(grad, layer), f)
    return torch.cat([total.flatten() for total in shared_rows(layers, totals)]) / n


def _push_forward(trace: LayerTrace, layers: Sequence[Layer], tangents: Sequence[Tensor]) -> Tensor:
    """Compute sum_l J_l tangent_l as the derivative of a vector-Jacobian product with respect to its cotangent."""
    cotangent = torch.zeros_like(trace.output, requires_grad=True)
    grads = torch.autograd.grad(trace.output, trace.outputs, cotangent, create_graph=True, materialize_grads=True)
    terms = [(arranged(g, layer) * t).sum() for g, layer, t in zip(grads, layers, tangents, strict=True)]
    inner = torch.stack(terms).sum()
    (moved,) = torch.autograd.grad(inner, cotangent, retain_graph=True)
    return moved.detach()
