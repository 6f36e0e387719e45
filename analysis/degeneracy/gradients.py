"""Gradients of a model's parameters from autograd, against which layers are checked, and the rank of the gradients.

The ledger counts by layers, p = W f + b. This holds only if the assembled gradient sum_t J_t f_t^T equals
autograd's for every parameter (`check_layers`), and the rank of gradients describes the function only if they are its
derivative (`check_derivatives`). Where layers do not explain the gradients, `plain_factor` takes them from autograd
alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..basis.cotangents import output_cotangents
from ..derivatives import batched_gradients
from ..errors import LayerError
from ..linalg import RowSpace
from ..network.batches import Batch, map_tensors, read_batches
from ..network.network import Network
from ..progress import ProgressCallback
from .layer_trace import jacobian_blocks, trace_layers
from .layers import Layer, OneLayerError, find_layers, layer_modules, parameter_parts, shared_rows

__all__ = [
    "PlainSize",
    "check_derivatives",
    "check_layers",
    "explained_layers",
    "plain_factor",
    "plain_size",
    "unused_parameters",
]

_SAME = 1e-6  # share of |J| |f| by which the layer's and autograd's gradient may differ

_STEP = 1e-6  # step of finite differences, relative to the parameter's root mean square

_KINK = 1e-4  # an output counts as smooth if the one-sided derivatives differ by less than this share

_DERIVATIVE = 1e-3  # relative error of finite differences

_ROUNDING = 1e3 * torch.finfo(torch.float64).eps  # rounding of a forward pass, relative to the largest output

_ENTRIES = 2**20  # entries of a block of cotangents, 8 MB

_PLAIN_WORK = 10**12  # floating point operations of all gradients and their rank, about a minute on two cores

_PLAIN_ENTRIES = 2 * 10**8  # entries of the factor, 1.6 GB


@dataclass(frozen=True)
class PlainSize:
    """The cost of computing the gradients of every output with respect to every parameter by autograd.

    Attributes:
        n: number of data points.
        rows: number of gradients: outputs of all data points, as far as the loss distinguishes them.
        parameters: number of parameters.
        work: floating point operations; a gradient costs a backward pass over its whole batch.
    """

    n: int
    rows: int
    parameters: int
    work: float

    @property
    def feasible(self) -> bool:
        """Whether it takes about a minute at most and fits in memory."""
        return self.work <= _PLAIN_WORK and min(self.rows, self.parameters) * self.parameters <= _PLAIN_ENTRIES


def explained_layers(network: Network, batches: Iterable[Batch]) -> tuple[Layer, ...]:
    """Find the layers of a network, and check on all batches that they explain autograd's gradients.

    Raises:
        LayerError: see `find_layers`, `check_layers` and `check_derivatives`.
    """
    layers: tuple[Layer, ...] = ()
    for batch in read_batches(batches, "layers", None):
        if not layers:
            check_derivatives(network, batch)
            layers = find_layers(network, batch)
            for layer in layers:
                if layer.shares:
                    raise LayerError(
                        f"the layers {layer.name!r} and {layer.shares!r} share a parameter: neither changes alone"
                    )
        check_layers(network, layers, batch)
    return layers


def check_layers(network: Network, layers: Sequence[Layer], batch: Batch) -> None:
    """Compare the layers' gradients of a random sum of outputs with autograd's gradients of the parameters.

    Each half of the data points is tested alone, so that a layer whose axis 0 is not the data point is found even if
    that axis has the length of the batch.

    Raises:
        LayerError: the gradients differ; names the parameter or the layer, what was seen, and possible causes.
    """
    trace = trace_layers(network, layers, batch)
    n = len(trace.output)
    draws = torch.Generator().manual_seed(0)
    half = torch.zeros(n, dtype=torch.bool, device="cpu")
    half[torch.randperm(n, generator=draws, device="cpu")[: n // 2]] = True
    random = torch.randn(trace.output.shape, generator=draws, dtype=torch.float64, device="cpu").to(trace.output)
    sides = [side for side in (half, ~half) if side.any()]
    cotangents = torch.stack([random * side[:, None, None].to(random) for side in sides])
    (blocks,) = jacobian_blocks(network, layers, trace, iter([cotangents]))
    with _differentiable(network.model) as named:
        output = _output(network, batch)
        plain = [_on_cpu(dict(zip(named, _gradient(output, list(named.values()), u), strict=True))) for u in cotangents]
    for layer, jacobian in zip(layers, blocks, strict=True):
        for side, rows in zip(sides, jacobian, strict=True):
            if _largest(rows[~side]) > _SAME * _largest(rows):
                raise OneLayerError(
                    layer.name,
                    f"axis 0 of what layer {layer.name!r} writes is not the data point: the output of one half of the "
                    "batch depends on rows of the other half there; expected (batch, positions, width)",
                )
    first = {id(p): name for name, p in network.model.named_parameters()}
    for name, parameter in network.model.named_parameters(remove_duplicate=False):  # shared ones have two names
        for found in plain:
            found.setdefault(name, found.get(first[id(parameter)]))
    pairs = list(zip(trace.inputs, blocks, strict=True))
    ours = shared_rows(layers, [torch.einsum("vnto,nti->voi", j, f) for f, j in pairs])
    sizes = shared_rows(layers, [torch.einsum("vnto,nti->voi", j.abs(), f.abs()) for f, j in pairs])
    for layer, gradient, size in zip(layers, ours, sizes, strict=True):
        if not layer.shares:
            _compare(network, layer, gradient, size, plain)


def check_derivatives(network: Network, batch: Batch) -> None:
    """Compare autograd's derivative with respect to each parameter with central differences along a random direction.

    Outputs at which the two one-sided differences differ (a kink within the step, as ReLU has) are left out.

    Raises:
        LayerError: a gradient is not the derivative of the output; names the parameter.
    """
    draws = torch.Generator().manual_seed(0)
    with _differentiable(network.model) as named:
        output = _output(network, batch)
        here = output.detach().to("cpu", torch.float64)
        random = torch.randn(here.shape, generator=draws, dtype=torch.float64, device="cpu")
        for name, parameter in named.items():
            direction = torch.randn(parameter.shape, generator=draws, dtype=torch.float64, device="cpu")
            # a model that computes in float32 inside needs the step of float32
            coarse = max(torch.finfo(p.dtype).eps for p in (parameter, output)) > torch.finfo(torch.float64).eps
            step = (1e-3 if coarse else _STEP) * max(float(parameter.detach().double().square().mean().sqrt()), 1e-2)
            rounding = (torch.finfo(torch.float32).eps * 30 if coarse else _ROUNDING) * _largest(here) / step
            above, below = (_moved(network, parameter, s * step * direction, batch) for s in (1, -1))
            ahead, behind, central = (above - here) / step, (here - below) / step, (above - below) / (2 * step)
            smooth = (ahead - behind).abs() <= _KINK * torch.maximum(ahead.abs(), behind.abs()) + rounding
            weight = random * smooth
            (gradient,) = _gradient(output, [parameter], weight.to(output))
            got = 0.0 if gradient is None else float((gradient.to("cpu", torch.float64) * direction).sum())
            expected = float((weight * central).sum())
            allowed = _DERIVATIVE * float((weight * central).norm()) + rounding * float(weight.norm())
            if not abs(got - expected) <= allowed:
                raise LayerError(
                    f"the gradient that autograd gives for {name!r} is not the derivative of the output: along a "
                    f"random direction it is {got:.4g}, but finite differences give {expected:.4g} (possible causes: a "
                    "detach or no_grad, padding_idx, scale_grad_by_freq, a straight-through estimator or a hook on "
                    "gradients). Counts from such gradients do not describe the function: remove the cause, or make "
                    "the parameter a buffer"
                )


def plain_size(network: Network, batches: Iterable[Batch]) -> PlainSize:
    """Compute the cost of `plain_factor`."""
    parameters = sum(p.numel() for p in network.model.parameters() if p.is_floating_point())
    n = rows = 0
    work = 0.0
    for batch in read_batches(batches, "size", None):
        output = network.output(batch)
        free = output.shape[-1] - (network.loss == "kl")  # a softmax does not see the mean of its logits
        own = output[..., 0].numel() * free
        n, rows, work = n + len(output), rows + own, work + 4.0 * own * parameters * output[..., 0].numel()
    return PlainSize(n, rows, parameters, work + 2.5 * rows * parameters * min(rows, parameters))


def unused_parameters(network: Network, batches: Iterable[Batch]) -> dict[str, int]:
    """Find parameters with no path to the output, by name with their sizes; all their directions are free."""
    unused: set[str] | None = None
    sizes: dict[str, int] = {}
    for batch in batches:
        with _differentiable(network.model) as named:
            output = _output(network, batch)
            found = _gradient(output, list(named.values()), torch.ones_like(output))
        absent = {name for name, gradient in zip(named, found, strict=True) if gradient is None}
        unused = absent if unused is None else unused & absent
        sizes = {name: parameter.numel() for name, parameter in named.items()}
    return {name: size for name, size in sizes.items() if name in (unused or ())}


def plain_factor(
    network: Network, batches: Iterable[Batch], progress: ProgressCallback | None = None
) -> Float[Tensor, "r parameters"]:
    """Compute the triangular factor of autograd's gradients of every output of every data point.

    Columns are those of `named_parameters()`; rows are weighted by the behavioural loss, as in `jacobian_blocks`.
    """
    space: RowSpace | None = None
    for batch in read_batches(batches, "parameter gradients", progress):
        with _differentiable(network.model) as named:
            parameters = list(named.values())
            space = space or RowSpace(sum(parameter.numel() for parameter in parameters))
            output = _output(network, batch)
            if not output.requires_grad:
                continue
            for block in _one_by_one(network, output):
                grads = batched_gradients(output, parameters, block)
                space.add(
                    torch.cat(
                        [
                            (p.new_zeros(len(block), *p.shape) if g is None else g).reshape(len(block), -1)
                            for g, p in zip(grads, parameters, strict=True)
                        ],
                        1,
                    )
                )
    return torch.zeros(0, 0, device="cpu") if space is None else space.factor()


def _one_by_one(network: Network, output: Tensor) -> Iterator[Float[Tensor, "v batch positions width"]]:
    """Yield the cotangents of the loss, for one data point at a time, in blocks."""
    size = max(1, _ENTRIES // output.numel())
    waiting: list[Tensor] = []
    for _, units in output_cotangents(network, output):
        for unit in units:
            for i in range(len(unit)):
                if not unit[i].any():
                    continue
                alone = torch.zeros_like(unit)
                alone[i] = unit[i]
                waiting.append(alone)
                if len(waiting) == size:
                    yield torch.stack(waiting)
                    waiting = []
    if waiting:
        yield torch.stack(waiting)


@contextmanager
def _differentiable(model: nn.Module) -> Iterator[dict[str, nn.Parameter]]:
    """Turn gradients on for all floating point parameters, frozen ones included, and yield them by name."""
    named = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    wanted = {name: p.requires_grad for name, p in named.items()}
    try:
        for parameter in named.values():
            parameter.requires_grad_(True)
        with torch.enable_grad():
            yield named
    finally:
        for name, parameter in named.items():
            parameter.requires_grad_(wanted[name])


def _output(network: Network, batch: Batch) -> Float[Tensor, "batch positions width"]:
    """Compute the output with its autograd graph to the model's own parameters.

    Layers read copies of their inputs, since later modules may change in place what autograd needs.
    """
    with ExitStack() as stack:
        for module in layer_modules(network.model).values():
            stack.callback(module.register_forward_pre_hook(lambda _, args: map_tensors(torch.clone, args)).remove)
        return network.evaluate({}, batch)[0]


def _gradient(output: Tensor, parameters: Sequence[Tensor], cotangent: Tensor) -> Sequence[Tensor | None]:
    if not output.requires_grad:
        return [None] * len(parameters)
    try:
        return torch.autograd.grad(output, parameters, cotangent, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        raise LayerError(f"autograd cannot differentiate the model with respect to its parameters: {error}") from error


def _on_cpu(named: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    return {name: None if value is None else value.cpu() for name, value in named.items()}


def _moved(network: Network, parameter: nn.Parameter, change: Tensor, batch: Batch) -> Tensor:
    """Compute the output with a parameter moved, float64 on the CPU, and restore the parameter."""
    before = parameter.data.clone()
    try:
        parameter.data.add_(change.to(before))
        return network.output(batch).to("cpu", torch.float64)
    finally:
        parameter.data.copy_(before)


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def _compare(
    network: Network,
    layer: Layer,
    gradients: Float[Tensor, "v d_out n_inputs"],
    scales: Float[Tensor, "v d_out n_inputs"],
    plain: Sequence[dict[str, Tensor | None]],
) -> None:
    """Check that the gradients of one layer equal autograd's, parameter by parameter; scales are sums of sizes."""
    for gradient, ours, scale in zip(plain, gradients, scales, strict=True):
        sizes, own = (parameter_parts(network, layer, m) for m in (scale, torch.ones_like(ours)))
        for name, part in parameter_parts(network, layer, ours).items():
            found = gradient[name]
            theirs = torch.zeros_like(part) if found is None else found * own[name]  # a group's own entries
            beyond, allowed = float((part - theirs).norm()), _SAME * float(sizes[name].norm())
            if beyond > allowed + torch.finfo(torch.float64).tiny:
                raise OneLayerError(
                    layer.name,
                    f"the gradient of {name!r} has another part that its layer does not explain: its norm is "
                    f"{float(theirs.norm()):.4g} by autograd, {float(part.norm()):.4g} by the layer, {beyond:.4g} for "
                    "the difference (the parameter may be used a second time, tied to another layer, changed by a "
                    "hook, or not differentiated)",
                )
