"""One forward pass with the inputs and outputs of all layers, and Jacobians with respect to their outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..basis.cotangents import output_cotangents
from ..derivatives import batched_gradients
from ..network.batches import Batch, batch_size
from ..network.cuts import first_tensor
from ..network.masks import EVERYTHING, Counted
from ..network.network import Network
from ..results import by_value
from .layers import Layer, OneLayerError, _known, _sequence, _side_by_side, attention_heads, channels_last

__all__ = ["InDouble", "LayerTrace", "arranged", "jacobian_blocks", "trace_layers"]


class InDouble(TorchFunctionMode):
    """Computes in float64 what a model of float64 computes in float32 inside: norms and softmax of transformers.

    >>> with InDouble():
    ...     torch.ones(1, dtype=torch.float64).to(torch.float32).dtype
    torch.float64
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.float:
            return args[0].to(torch.float64)
        args = tuple(torch.float64 if value is torch.float32 else value for value in args)
        named = {name: torch.float64 if value is torch.float32 else value for name, value in (kwargs or {}).items()}
        return func(*args, **named)


@by_value
@dataclass(frozen=True)
class LayerTrace:
    """One forward pass over a batch, with the autograd graph from the layers to the output.

    Attributes:
        inputs: per layer f (batch, positions, n_inputs), with the constant unit.
        outputs: per layer p, in the module's own shape.
        output: output of the network, at the counted positions.
        patterns: attention patterns (batch, heads, queries, keys) by the name of their module.
        counted: which positions of the output count.
    """

    inputs: tuple[Float[Tensor, "batch _ _"], ...]
    outputs: tuple[Tensor, ...]
    output: Float[Tensor, "batch _ _"]
    patterns: Mapping[str, Float[Tensor, "batch heads q k"]] = field(default_factory=dict)
    counted: Counted = EVERYTHING


def trace_layers(network: Network, layers: Sequence[Layer], batch: Batch, *, grad: bool = True) -> LayerTrace:
    """Run the model once and record inputs and outputs of every layer, with the autograd graph from there on."""
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    patterns: dict[str, Tensor] = {}
    n = batch_size(batch)

    def keep(layer: Layer) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: Any, kwargs: Any, value: Tensor) -> Tensor:
            given = first_tensor(args or kwargs, layer.name).detach()
            # a copy: later modules may work in place
            read = _known(module).read(module, given).to("cpu", torch.float64, copy=True)
            if len(value) == 1 < n and len(read) == 1:  # positions, say, which are the same for all data points
                read, value = read.expand(n, *read.shape[1:]), value.expand(n, *value.shape[1:]).clone()
            inputs[layer.name] = read
            outputs[layer.name] = value.requires_grad_() if grad and not value.requires_grad else value
            return outputs[layer.name].clone()  # later modules may work in place

        return hook

    def keep_pattern(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, value: Tensor) -> None:
            patterns[name] = value.detach().to("cpu", torch.float64)

        return hook

    modules = dict(network.model.named_modules())
    with ExitStack() as stack, torch.set_grad_enabled(grad):
        for layer in (layer for layer in layers if not layer.group):
            handle = modules[layer.name].register_forward_hook(keep(layer), with_kwargs=True)
            stack.callback(handle.remove)
        for heads in attention_heads(network, layers):
            stack.callback(modules[heads.pattern].register_forward_hook(keep_pattern(heads.pattern)).remove)
        output, counted = network.counted_output(batch)
    for layer in layers:
        if layer.name not in inputs:
            raise OneLayerError(
                layer.name, f"layer {layer.name!r} is called for some batches only: its parameters cannot be counted"
            )
        if len(inputs[layer.name]) != len(output):
            raise OneLayerError(
                layer.name,
                f"layer {layer.name!r} reads {len(inputs[layer.name])} items for {len(output)} data points: expected "
                "an input with a batch axis, expanded where it is the same for all",
            )
    read = tuple(_with_constant(inputs[layer.name], layer) for layer in layers)
    return LayerTrace(read, tuple(outputs[layer.name] for layer in layers), output, patterns, counted)


def _with_constant(
    inputs: Float[Tensor, "batch positions _"], layer: Layer
) -> Float[Tensor, "batch positions n_inputs"]:
    """Return what a layer reads of the inputs of its module, with the constant unit."""
    own = inputs[..., layer.read] if layer.groups > 1 else inputs
    return torch.cat([own, own.new_ones(*own.shape[:-1], int(layer.bias))], -1)


def arranged(output: Tensor, layer: Layer) -> Float[Tensor, "batch positions d_out"]:
    """Return a layer's output, or its gradient, as (batch, positions, units) in float64 on the CPU, heads in turn."""
    by_position = _side_by_side if layer.heads else channels_last if layer.channels else _sequence
    units = by_position(output).to("cpu", torch.float64)
    return units[..., layer.written] if layer.groups > 1 else units


def jacobian_blocks(
    network: Network, layers: Sequence[Layer], trace: LayerTrace, cotangents: Iterator[Tensor] | None = None
) -> Iterator[list[Float[Tensor, "v batch _ _"]]]:
    """Yield rows of J = df^L/dp of every layer, a block of output coordinates at a time; K = 1/n sum J^T J.

    Rows are weighted by the behavioural loss, so that for KL they carry the Fisher matrix of the output.
    """
    given = (u for _, u in output_cotangents(network, trace.output)) if cotangents is None else cotangents
    for block in given:
        grads = batched_gradients(trace.output, trace.outputs, block)
        found = []
        for grad, output, layer in zip(grads, trace.outputs, layers, strict=True):
            whole = output.new_zeros(len(block), *output.shape) if grad is None else grad
            found.append(torch.stack([arranged(g, layer) for g in whole]))
        yield found
