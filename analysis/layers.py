"""Layers: the linear maps that hold a network's parameters, with what they read (f) and what they write (p).

A layer computes p = W f + b at each position; embeddings read one-hot vectors of tokens and positions, attention
heads of one map are side by side. `trace_layers` records f and p of every layer in one forward pass, and
`jacobian_blocks` the rows of J = df^L/dp, from which everything in `degeneracy` is counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .batches import Batch, map_tensors
from .cuts import first_tensor
from .derivatives import batched_gradients
from .errors import DataError, LayerError
from .masks import EVERYTHING, Counted
from .models import Affine, CausalAttention, Embedding, HeadOutput, Heads
from .moments import output_cotangents
from .network import Network
from .values import by_value
from .weights import refuse_shared_memory

__all__ = [
    "Activation",
    "AttentionHeads",
    "Layer",
    "LayerTrace",
    "activations_between",
    "arranged",
    "attention_heads",
    "copied",
    "find_layers",
    "in_double",
    "jacobian_blocks",
    "layer_modules",
    "layer_weight",
    "parameter_parts",
    "trace_layers",
]


@dataclass(frozen=True)
class Layer:
    """A linear map with parameters.

    Attributes:
        name: path of the module.
        d_in, d_out: width of what it reads (without the constant unit) and writes.
        bias: whether the constant unit is among its inputs.
        tokens: for an embedding, how many of the inputs are tokens (the rest are positions); else 0.
        heads: number of heads whose outputs have an axis of their own in what the module writes; else 0.
    """

    name: str
    d_in: int
    d_out: int
    bias: bool
    tokens: int = 0
    heads: int = 0

    @property
    def n_inputs(self) -> int:
        """Number of inputs with the constant unit, which comes last."""
        return self.d_in + self.bias

    @property
    def nominal(self) -> int:
        """Number of parameters."""
        return self.n_inputs * self.d_out


@dataclass(frozen=True)
class AttentionHeads:
    """The layers of one attention block: indices of queries, keys, values and output, and the softmax between them."""

    name: str
    q: int
    k: int
    v: int
    o: int
    pattern: str
    n_heads: int

    def units(self, head: int, width: int) -> list[int]:
        """Which of `width` units side by side belong to a head."""
        size = width // self.n_heads
        return list(range(head * size, (head + 1) * size))


@dataclass(frozen=True)
class Activation:
    """What happens to the output of a layer before other layers read it: f = p on the positive side, slope p elsewhere.

    Attributes:
        source: index of the layer that writes p.
        readers: indices of all layers that read f = phi(p); nothing else does.
        slope: 1 for a linear map, 0 for ReLU, another constant for leaky ReLU.
    """

    source: int
    readers: tuple[int, ...]
    slope: float


@by_value
@dataclass(frozen=True)
class LayerTrace:
    """One forward pass over a batch, with the autograd graph from the layers to the output.

    Attributes:
        inputs: per layer f (batch, positions, n_inputs), with the constant unit.
        outputs: per layer p, in the shape the module gave it.
        output: of the network, at the counted positions.
        patterns: attention patterns (batch, heads, queries, keys) by the name of their module.
        counted: which positions of the output count.
    """

    inputs: tuple[Float[Tensor, "batch _ _"], ...]
    outputs: tuple[Tensor, ...]
    output: Float[Tensor, "batch _ _"]
    patterns: Mapping[str, Float[Tensor, "batch heads q k"]] = field(default_factory=dict)
    counted: Counted = EVERYTHING


@dataclass(frozen=True)
class _Kind:
    """How to read a type of module: its sizes, its input as (batch, positions, d_in), its weights as (d_out, d_in).

    `names` are its parameters, which `weight` reads, the bias last where there is one.
    """

    layer: Callable[[str, Any], Layer]
    read: Callable[[Any, Tensor], Tensor]
    weight: Callable[[Any], Tensor]
    names: tuple[str, ...]


def _sequence(value: Tensor) -> Tensor:
    return value.reshape(len(value), -1, value.shape[-1])


def _side_by_side(value: Tensor) -> Tensor:
    """(batch, heads, positions, d) to (batch, positions, heads d)."""
    return value.transpose(1, 2).flatten(2)


def _one_hot_positions(module: Embedding, tokens: Tensor) -> Tensor:
    tok = nn.functional.one_hot(tokens, len(module.tok))
    pos = torch.eye(len(module.pos), dtype=tok.dtype)[: tokens.shape[1]].expand(len(tokens), -1, -1)
    return torch.cat([tok, pos], -1).to(module.tok.dtype)


_KINDS: dict[type[nn.Module], _Kind] = {
    nn.Linear: _Kind(
        lambda name, m: Layer(name, m.in_features, m.out_features, m.bias is not None),
        lambda _, x: _sequence(x),
        lambda m: m.weight,
        ("weight", "bias"),
    ),
    Affine: _Kind(
        lambda name, m: Layer(name, *m.w.shape, bias=True), lambda _, x: _sequence(x), lambda m: m.w.T, ("w", "b")
    ),
    Heads: _Kind(
        lambda name, m: Layer(name, m.w.shape[1], m.b.numel(), bias=True, heads=len(m.w)),
        lambda _, x: _sequence(x),
        lambda m: m.w.transpose(1, 2).flatten(0, 1),
        ("w", "b"),
    ),
    HeadOutput: _Kind(
        lambda name, m: Layer(name, m.w.shape[0] * m.w.shape[1], m.w.shape[2], bias=True),
        lambda _, z: _side_by_side(z),
        lambda m: m.w.flatten(0, 1).T,
        ("w", "b"),
    ),
    Embedding: _Kind(
        lambda name, m: Layer(name, len(m.tok) + len(m.pos), m.tok.shape[1], bias=False, tokens=len(m.tok)),
        _one_hot_positions,
        lambda m: torch.cat([m.tok, m.pos]).T,
        ("tok", "pos"),
    ),
    nn.Embedding: _Kind(
        lambda name, m: Layer(name, m.num_embeddings, m.embedding_dim, bias=False, tokens=m.num_embeddings),
        lambda m, x: nn.functional.one_hot(_ids(x), m.num_embeddings).to(m.weight.dtype),
        lambda m: m.weight.T,
        ("weight",),
    ),
}


def find_layers(network: Network, batch: Batch) -> tuple[Layer, ...]:
    """The layers of a network, in order of computation.

    Raises:
        LayerError: parameters that no supported layer holds, shared ones, or a layer not called exactly once.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> find_layers(Network(model, ["0:in", "2"]), torch.zeros(2, 3))[0]
    Layer(name='0', d_in=3, d_out=4, bias=True, tokens=0, heads=0)
    """
    refuse_shared_memory(network.model)
    modules = layer_modules(network.model)
    _check_parameters(network.model, modules)
    calls = Counter[str]()
    order: list[str] = []

    def note(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            calls[name] += 1
            order.append(name)

        return hook

    with ExitStack() as stack, torch.no_grad():
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(note(name)).remove)
        network.output(batch)
    for name in modules:
        if calls[name] != 1:
            raise LayerError(
                f"layer {name!r} is called {calls[name]} times in a forward pass, expected once: its parameters cannot "
                "be counted as those of one linear map"
            )
    return tuple(_KINDS[type(modules[name])].layer(name, modules[name]) for name in order)


def layer_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules of types that can be counted, by name."""
    return {name: module for name, module in model.named_modules() if type(module) in _KINDS}


def in_double(network: Network, batches: Iterable[Batch]) -> tuple[Network, Iterable[Batch]]:
    """The network and its data in float64, in which ranks can be decided: as they are, or copies."""
    parameters = list(network.model.parameters())
    if all(p.dtype == torch.float64 for p in parameters if p.is_floating_point()):
        return network, batches
    return network.with_model(copied(network.model).double()), _Doubled(batches)


def copied(model: nn.Module) -> nn.Module:
    """A copy of a model, also where hooks compute weights (weight_norm, pruning), which deepcopy alone refuses."""
    # these weights are kept with their graph, which cannot be copied
    computed = [v for module in model.modules() for v in vars(module).values() if isinstance(v, Tensor)]
    memo: dict[int, Any] = {id(value): value.detach().clone() for value in computed if not value.is_leaf}
    return deepcopy(model, memo)


class _Doubled:
    """Batches with floating point tensors in float64, read anew each time."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = batches
        if iter(batches) is batches:
            raise DataError("the batches can be read only once: pass a list or a DataLoader, not a generator")

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            yield map_tensors(lambda v: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v, batch)


def attention_heads(network: Network, layers: Sequence[Layer]) -> tuple[AttentionHeads, ...]:
    """The attention blocks among the layers."""
    index = {layer.name: i for i, layer in enumerate(layers)}
    found = []
    for name, module in network.model.named_modules():
        if isinstance(module, CausalAttention):
            parts = {part: index[f"{name}.{part}"] for part in "qkvo"}
            found.append(AttentionHeads(name, **parts, pattern=f"{name}.pattern", n_heads=len(module.q.w)))
    return tuple(found)


def trace_layers(network: Network, layers: Sequence[Layer], batch: Batch, *, grad: bool = True) -> LayerTrace:
    """Run the model once and keep what every layer reads and writes, with the autograd graph from there on."""
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    patterns: dict[str, Tensor] = {}

    def keep(layer: Layer) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: Any, kwargs: Any, value: Tensor) -> Tensor:
            given = first_tensor(args or kwargs, layer.name).detach()
            read = _KINDS[type(module)].read(module, given).to(torch.float64)
            constant = read.new_ones(*read.shape[:-1], int(layer.bias))
            inputs[layer.name] = torch.cat([read, constant], -1)  # a copy: modules after it may work in place
            outputs[layer.name] = value.requires_grad_() if grad and not value.requires_grad else value
            return outputs[layer.name].clone()  # modules after it may work in place

        return hook

    def keep_pattern(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, value: Tensor) -> None:
            patterns[name] = value.detach().to(torch.float64)

        return hook

    modules = dict(network.model.named_modules())
    with ExitStack() as stack, torch.set_grad_enabled(grad):
        for layer in layers:
            handle = modules[layer.name].register_forward_hook(keep(layer), with_kwargs=True)
            stack.callback(handle.remove)
        for heads in attention_heads(network, layers):
            stack.callback(modules[heads.pattern].register_forward_hook(keep_pattern(heads.pattern)).remove)
        output, counted = network.counted_output(batch)
    for layer in layers:
        if layer.name not in inputs:
            raise LayerError(f"layer {layer.name!r} is called for some batches only: its parameters cannot be counted")
        if len(inputs[layer.name]) != len(output):
            raise LayerError(
                f"layer {layer.name!r} reads {len(inputs[layer.name])} items for {len(output)} data points: expected "
                "an input with a batch axis, expanded where it is the same for all"
            )
    names = [layer.name for layer in layers]
    return LayerTrace(tuple(inputs[n] for n in names), tuple(outputs[n] for n in names), output, patterns, counted)


def arranged(output: Tensor, layer: Layer) -> Float[Tensor, "batch positions d_out"]:
    """A layer's output, or a gradient by it, as (batch, positions, units) in float64; heads side by side."""
    return (_side_by_side(output) if layer.heads else _sequence(output)).to(torch.float64)


def jacobian_blocks(
    network: Network, layers: Sequence[Layer], trace: LayerTrace, cotangents: Iterator[Tensor] | None = None
) -> Iterator[list[Float[Tensor, "v batch _ _"]]]:
    """Rows of J = df^L/dp of every layer, a block of output coordinates at a time; K = 1/n sum J^T J.

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


def layer_weight(network: Network, layer: Layer) -> Float[Tensor, "d_out n_inputs"]:
    """Weights (d_out, n_inputs) of a layer in float64, the bias as last column."""
    module = network.model.get_submodule(layer.name)
    return _matrix(_KINDS[type(module)], module, layer).detach().to(torch.float64)


def parameter_parts(network: Network, layer: Layer, matrix: Float[Tensor, "d_out n_inputs"]) -> dict[str, Tensor]:
    """A matrix in the layout of `layer_weight`, for example a gradient, in the shapes of the layer's parameters.

    >>> network = Network(nn.Sequential(nn.Linear(2, 1)), [])
    >>> parameter_parts(network, Layer("0", 2, 1, bias=True), torch.tensor([[1.0, 2.0, 3.0]]))
    {'0.weight': tensor([[1., 2.]]), '0.bias': tensor([3.])}
    """
    module = network.model.get_submodule(layer.name)
    kind = _KINDS[type(module)]
    own = {name: value.detach().requires_grad_() for name, value in module.named_parameters(recurse=False)}
    with torch.enable_grad():  # the layout is linear: its transpose takes a matrix back
        laid_out = _matrix(kind, SimpleNamespace(**own), layer)
        parts = torch.autograd.grad(laid_out, list(own.values()), matrix.to(laid_out))
    prefix = f"{layer.name}." if layer.name else ""
    return {prefix + name: part for name, part in zip(own, parts, strict=True)}


def _matrix(kind: _Kind, holder: Any, layer: Layer) -> Tensor:
    """Weights and bias that a module, or anything with the same attributes, holds."""
    weight = kind.weight(holder)
    return torch.cat([weight, getattr(holder, kind.names[-1]).reshape(-1, 1)], 1) if layer.bias else weight


def activations_between(network: Network, layers: Sequence[Layer], batches: Iterable[Batch]) -> tuple[Activation, ...]:
    """Pairs of layers with nothing but a piecewise linear activation between them, found from the values on the data.

    f = phi(p) is recognised where it equals p, max(p, 0) or a leaky ReLU of p entry by entry. That nothing else reads
    f is tested by the chain rule: the gradient by p must be the readers' alone.
    """
    slopes: dict[tuple[int, int], float] = {}
    excluded: set[tuple[int, int]] = set()
    for batch in batches:
        trace = trace_layers(network, layers, batch, grad=False)
        written = [arranged(p.detach(), layer) for p, layer in zip(trace.outputs, layers, strict=True)]
        read = [f[..., : layer.d_in] for f, layer in zip(trace.inputs, layers, strict=True)]
        for reader, source in ((r, s) for r in range(len(layers)) for s in range(r)):
            if (source, reader) in excluded:
                continue
            seen = _slope(written[source], read[reader])
            merged = None if seen is None else _merged(slopes.get((source, reader), math.nan), seen)
            if merged is None:
                excluded.add((source, reader))
                slopes.pop((source, reader), None)
            else:
                slopes[source, reader] = merged
    nearest = {reader: max(s for s, r in slopes if r == reader) for _, reader in slopes}
    links = {(source, reader): slopes[source, reader] for reader, source in sorted(nearest.items())}
    found = []
    for link in _grouped(links):  # a slope that no data point shows is taken from the gradient
        for candidate in [replace(link, slope=s) for s in (1.0, 0.0)] if math.isnan(link.slope) else [link]:
            if all(_reads_alone(network, layers, batch, candidate) for batch in batches):
                found.append(candidate)
                break
    return tuple(found)


def _merged(known: float, seen: float) -> float | None:
    """The slope that agrees with both, nan where neither shows one, None where they differ."""
    if math.isnan(known) or math.isnan(seen):
        return seen if math.isnan(known) else known
    return known if math.isclose(known, seen, rel_tol=1e-9) else None


def _grouped(links: Mapping[tuple[int, int], float]) -> Iterator[Activation]:
    for source in sorted({source for source, _ in links}):
        readers = tuple(r for s, r in links if s == source)
        slope = math.nan
        for reader in readers:
            slope = math.nan if (merged := _merged(slope, links[source, reader])) is None else merged
        yield Activation(source, readers, slope)


def _reads_alone(network: Network, layers: Sequence[Layer], batch: Batch, link: Activation) -> bool:
    trace = trace_layers(network, layers, batch)
    draws = torch.Generator().manual_seed(0)
    cotangent = torch.randn(trace.output.shape, generator=draws).to(trace.output)
    grads = [block[0] for block in next(jacobian_blocks(network, layers, trace, iter([cotangent[None]])))]
    p = arranged(trace.outputs[link.source].detach(), layers[link.source])
    through = torch.zeros_like(grads[link.source])
    for reader in link.readers:
        through += grads[reader] @ layer_weight(network, layers[reader])[:, : layers[reader].d_in]
    expected = through * torch.where(p > 0, 1.0, link.slope)
    return bool((grads[link.source] - expected).norm() <= 1e-6 * expected.norm())


def _slope(p: Tensor, f: Tensor) -> float | None:
    """The slope a with f = max(p, 0) + a min(p, 0); nan where no p is negative, None where there is no such slope."""
    negative = p < 0
    if p.shape != f.shape or not torch.equal(p[~negative], f[~negative]):
        return None
    if not negative.any():
        return math.nan
    if torch.equal(p, f):
        return 1.0
    if not f[negative].any():
        return 0.0
    largest = torch.where(negative, p.abs(), 0.0).argmax()  # where rounding counts least
    slope = float(f.flatten()[largest] / p.flatten()[largest])
    close = (f[negative] - slope * p[negative]).abs() <= 1e-6 * abs(slope) * p[negative].abs()
    return slope if bool(close.all()) else None


def _ids(x: Tensor) -> Tensor:
    if x.ndim != 2:
        raise LayerError(f"an embedding reads tokens of shape {tuple(x.shape)}: expected (batch, positions)")
    return x.long()


def _check_parameters(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    owners: dict[int, list[str]] = {}
    for name, module in layers.items():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    for names in owners.values():
        if len(names) > 1:
            raise LayerError(f"the layers {' and '.join(map(repr, names))} share a parameter: it cannot be counted")
    for name, module in layers.items():
        own = {own for own, _ in module.named_parameters(recurse=False)}
        needed = {own for own in _KINDS[type(module)].names if getattr(module, own, None) is not None}
        if own != needed:
            computed = ", ".join(map(repr, sorted(needed - own))) or "what it adds"
            sources = f" but computed from {', '.join(map(repr, sorted(own - needed)))}" if own - needed else ""
            raise LayerError(
                f"{computed} of layer {name!r} ({type(module).__name__}) is no parameter of its own{sources} (pruned "
                "or normalised weights): its parameters are not those of one linear map"
            )
    unsupported: dict[str, str] = {}
    for name, module in model.named_modules():
        if any(id(parameter) not in owners for parameter in module.parameters(recurse=False)):
            unsupported.setdefault(name, type(module).__name__)
    if unsupported:
        listed = ", ".join(f"{name or 'the model itself'} ({kind})" for name, kind in list(unsupported.items())[:6])
        more = f" and {len(unsupported) - 6} more" if len(unsupported) > 6 else ""
        raise LayerError(
            f"parameters outside supported layers: {listed}{more}; counted are those of "
            f"{', '.join(sorted({kind.__name__ for kind in _KINDS}))} (these types themselves, not subclasses)"
        )
    if not layers:
        raise LayerError("the model has no parameters to count")
