"""Layers: the linear maps that hold a network's parameters, with their inputs f and outputs p.

A layer computes p = W f + b at each position; embeddings read one-hot vectors of tokens and positions, attention
heads of one map are side by side. A convolution reads the patch of its input at each position (Grosse and Martens
2016, KFC), with groups each of its maps reads its own channels; a batch normalisation in evaluation mode is one map
from one input per feature, f the normalised feature, and so are LayerNorm and RMSNorm (of torch and of transformers),
whose scale is a layer behind the normalisation. An embedding and the unembedding may share one matrix: it belongs to
the unembedding, and the embedding is a second use of it, transposed. `trace_layers` records f and p of every layer in
one forward pass, and `jacobian_blocks` gives the rows of J = df^L/dp, from which everything in `degeneracy` is counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..checkpoints.transformer import Affine, CausalAttention, Embedding, HeadOutput, Heads
from ..checkpoints.weights import refuse_shared_memory
from ..errors import LayerError
from ..network.batches import Batch
from ..network.network import Network

__all__ = [
    "AttentionHeads",
    "Layer",
    "OneLayerError",
    "attention_heads",
    "channels_last",
    "find_layers",
    "layer_modules",
    "layer_weight",
    "parameter_parts",
    "shared_rows",
]


_GROUPS = 1024  # maps side by side in one module


class OneLayerError(LayerError):
    """One layer cannot be counted as a linear map.

    Attributes:
        layer: its name.
    """

    def __init__(self, layer: str, message: str) -> None:
        super().__init__(message)
        self.layer = layer


@dataclass(frozen=True)
class Layer:
    """A linear map with parameters.

    Attributes:
        name: path of the module.
        d_in, d_out: width of its input (without the constant unit) and output.
        bias: whether the constant unit is among its inputs.
        tokens: for an embedding, how many of the inputs are tokens (the rest are positions); else 0.
        heads: number of heads if they have an axis of their own in the module's output; else 0.
        channels: whether the module's output has its units on axis 1, (batch, units, height, width).
        groups, group: number of linear maps side by side in the module, each with inputs and outputs of its own, and
            which of them this is; d_in and d_out are those of one.
        shares: name of the layer whose matrix this one uses, transposed; its parameters are counted there.
        offset: what a normalisation adds to its weight, 1 where it computes (1 + w) f.
    """

    name: str
    d_in: int
    d_out: int
    bias: bool
    tokens: int = 0
    heads: int = 0
    channels: bool = False
    groups: int = 1
    group: int = 0
    shares: str = ""
    offset: float = 0.0

    @property
    def read(self) -> slice:
        """Which inputs of the module this map reads."""
        return slice(self.group * self.d_in, (self.group + 1) * self.d_in)

    @property
    def written(self) -> slice:
        """Which outputs of the module this map writes."""
        return slice(self.group * self.d_out, (self.group + 1) * self.d_out)

    @property
    def n_inputs(self) -> int:
        """The number of inputs with the constant unit, which comes last."""
        return self.d_in + self.bias

    @property
    def nominal(self) -> int:
        """The number of parameters of its own."""
        return 0 if self.shares else self.n_inputs * self.d_out


@dataclass(frozen=True)
class AttentionHeads:
    """The layers of an attention block: indices of queries, keys, values and output, and the module of the softmax."""

    name: str
    q: int
    k: int
    v: int
    o: int
    pattern: str
    n_heads: int

    def units(self, head: int, width: int) -> list[int]:
        """Return which of `width` units side by side belong to a head."""
        size = width // self.n_heads
        return list(range(head * size, (head + 1) * size))


@dataclass(frozen=True)
class _Kind:
    """How to read a type of module: sizes, input as (batch, positions, d_in), weights as (d_out, d_in), of all groups.

    `names` are its parameters, which `weight` reads, the bias last where there is one.
    """

    layer: Callable[[str, Any], Layer]
    read: Callable[[Any, Tensor], Tensor]
    weight: Callable[[Any], Tensor]
    names: tuple[str, ...]


def _sequence(value: Tensor) -> Tensor:
    return value.reshape(len(value), -1, value.shape[-1])


def _side_by_side(value: Tensor) -> Tensor:
    """Reshape (batch, heads, positions, d) to (batch, positions, heads d)."""
    return value.transpose(1, 2).flatten(2)


def _one_hot_positions(module: Embedding, tokens: Tensor) -> Tensor:
    tok = nn.functional.one_hot(tokens, len(module.tok))
    pos = torch.eye(len(module.pos), dtype=tok.dtype, device=tok.device)[: tokens.shape[1]].expand(len(tokens), -1, -1)
    return torch.cat([tok, pos], -1).to(module.tok.dtype)


def channels_last(value: Tensor) -> Tensor:
    """Reshape (batch, units) or (batch, units, height, width) to (batch, positions, units)."""
    return value[:, None] if value.ndim == 2 else value.flatten(2).transpose(1, 2)


def _patches(module: Any, x: Tensor) -> Tensor:
    """Return what a convolution reads at each position of its output: channels by kernel (batch, positions, d_in)."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = nn.functional.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    sizes = [module.kernel_size, module.dilation, module.stride]
    if x.ndim == 3:
        x, sizes = x[:, :, None], [(1, *size) for size in sizes]
    kernel, dilation, stride = sizes
    return nn.functional.unfold(x, kernel, dilation=dilation, stride=stride).transpose(1, 2)


def _convolution(name: str, m: Any) -> Layer:
    d_in = m.in_channels // m.groups * math.prod(m.kernel_size)
    return Layer(name, d_in, m.out_channels // m.groups, m.bias is not None, channels=True, groups=m.groups)


def _normalised(module: Any, x: Tensor) -> Tensor:
    """Return what the weights of a batch normalisation in evaluation mode multiply (batch, positions, features)."""
    normalised: Tensor = (channels_last(x) - module.running_mean) / (module.running_var + module.eps).sqrt()
    return normalised


_CONVOLUTION = _Kind(_convolution, _patches, lambda m: m.weight.flatten(1), ("weight", "bias"))

_NORMALISATION = _Kind(
    lambda name, m: Layer(name, 1, 1, m.bias is not None, channels=True, groups=m.num_features),
    _normalised,
    lambda m: m.weight[:, None],
    ("weight", "bias"),
)


def _norm(name: str, m: Any) -> Layer:
    bias, offset = getattr(m, "bias", None) is not None, float(type(m).__name__.startswith("Gemma"))
    return Layer(name, 1, 1, bias, groups=m.weight.numel(), offset=offset)


def _standardised(module: Any, x: Tensor) -> Tensor:
    """Return what the scale of a layer normalisation multiplies."""
    x = _sequence(x)
    centred = x - x.mean(-1, keepdim=True)
    normalised: Tensor = centred * (centred.square().mean(-1, keepdim=True) + module.eps).rsqrt()
    return normalised


def _rescaled(module: Any, x: Tensor) -> Tensor:
    """Return what the scale of a root mean square normalisation multiplies."""
    x = _sequence(x)
    epsilon = next((v for v in (getattr(module, name, None) for name in ("variance_epsilon", "eps")) if v), None)
    epsilon = torch.finfo(x.dtype).eps if epsilon is None else epsilon  # the default of torch.nn.RMSNorm
    rescaled: Tensor = x * (x.square().mean(-1, keepdim=True) + epsilon).rsqrt()
    return rescaled


_LAYER_NORM = _Kind(_norm, _standardised, lambda m: m.weight[:, None], ("weight", "bias"))

_RMS_NORM = _Kind(_norm, _rescaled, lambda m: m.weight[:, None], ("weight",))

_TRANSPOSED = _Kind(  # transformers' Conv1D, the linear layer of GPT-2
    lambda name, m: Layer(name, *m.weight.shape, bias=True),
    lambda _, x: _sequence(x),
    lambda m: m.weight.T,
    ("weight", "bias"),
)


def _ids(x: Tensor) -> Tensor:
    if x.ndim != 2:
        raise LayerError(f"an embedding reads tokens of shape {tuple(x.shape)}: expected (batch, positions)")
    return x.long()


_KINDS: dict[type[nn.Module], _Kind] = {
    nn.Conv1d: _CONVOLUTION,
    nn.Conv2d: _CONVOLUTION,
    nn.BatchNorm1d: _NORMALISATION,
    nn.BatchNorm2d: _NORMALISATION,
    nn.BatchNorm3d: _NORMALISATION,
    nn.LayerNorm: _LAYER_NORM,
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


def _kind(module: nn.Module) -> _Kind | None:
    """Return how to read a module, by its type, or by name and parameters for the types of transformers."""
    if type(module) in _KINDS:
        wide = isinstance(module, nn.LayerNorm) and len(module.normalized_shape) > 1
        return None if wide else _KINDS[type(module)]
    if isinstance(module, nn.Embedding) and isinstance(getattr(module, "embed_scale", None), Tensor | float):
        return _SCALED
    name, shapes = type(module).__name__, {n: p.ndim for n, p in module.named_parameters(recurse=False)}
    if name == "Conv1D" and shapes == {"weight": 2, "bias": 1}:
        return _TRANSPOSED
    return _RMS_NORM if name.endswith("RMSNorm") and shapes == {"weight": 1} else None


_SCALED = replace(  # embeddings of Gemma, times the root of their width
    _KINDS[nn.Embedding], read=lambda m, x: _KINDS[nn.Embedding].read(m, x) * m.embed_scale
)


def find_layers(network: Network, batch: Batch, without: Collection[str] | None = None) -> tuple[Layer, ...]:
    """Find the layers of a network, in order of computation.

    Args:
        network: the network.
        batch: a batch of its data.
        without: names of layers to leave out; modules of other types are then left out as well, instead of refused.

    Raises:
        LayerError: parameters that no supported layer holds, shared ones, or a layer not called exactly once.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> [(layer.name, layer.n_inputs, layer.d_out) for layer in find_layers(Network(model, []), torch.zeros(2, 3))]
    [('0', 4, 4), ('2', 5, 2)]
    """
    refuse_shared_memory(network.model)
    modules = {name: m for name, m in layer_modules(network.model).items() if name not in (without or ())}
    shares = _check_parameters(network.model, modules, alone=without is None)
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
            raise OneLayerError(
                name,
                f"layer {name!r} is called {calls[name]} times in a forward pass, expected once: its parameters cannot "
                "be counted as those of one linear map",
            )
    found = [replace(_known(modules[name]).layer(name, modules[name]), shares=shares.get(name, "")) for name in order]
    for layer in found:
        if layer.groups > _GROUPS:
            raise OneLayerError(
                layer.name,
                f"layer {layer.name!r} holds {layer.groups} maps side by side: more than {_GROUPS} are not counted one "
                "by one",
            )
    return tuple(replace(layer, group=j) for layer in found for j in range(layer.groups))


def layer_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules of supported types, by name."""
    modules = {name: module for name, module in model.named_modules() if _kind(module) is not None}
    empty = {name for name, m in modules.items() if not (getattr(m, "affine", True) and _has_weights(m))}
    return {name: m for name, m in modules.items() if name not in empty}  # else there is nothing to count


def _has_weights(module: nn.Module) -> bool:
    return getattr(module, "elementwise_affine", True) or getattr(module, "weight", None) is not None


def _known(module: nn.Module) -> _Kind:
    kind = _kind(module)
    if kind is None:
        raise LayerError(f"{type(module).__name__} is no type of layer that is counted")
    return kind


def attention_heads(network: Network, layers: Sequence[Layer]) -> tuple[AttentionHeads, ...]:
    """Find the attention blocks among the layers."""
    index = {layer.name: i for i, layer in enumerate(layers)}
    found = []
    for name, module in network.model.named_modules():
        if isinstance(module, CausalAttention) and all(f"{name}.{part}" in index for part in "qkvo"):
            parts = {part: index[f"{name}.{part}"] for part in "qkvo"}
            found.append(AttentionHeads(name, **parts, pattern=f"{name}.pattern", n_heads=len(module.q.w)))
    return tuple(found)


def layer_weight(network: Network, layer: Layer) -> Float[Tensor, "d_out n_inputs"]:
    """Return the weights (d_out, n_inputs) of a layer in float64, the bias as last column."""
    module = network.model.get_submodule(layer.name)
    return _matrix(_known(module), module, layer).detach().to("cpu", torch.float64)


def parameter_parts(network: Network, layer: Layer, matrix: Float[Tensor, "d_out n_inputs"]) -> dict[str, Tensor]:
    """Split a matrix in the layout of `layer_weight`, such as a gradient, into the layer's parameters.

    >>> network = Network(nn.Sequential(nn.Linear(2, 1)), [])
    >>> parameter_parts(network, Layer("0", 2, 1, bias=True), torch.tensor([[1.0, 2.0, 3.0]]))
    {'0.weight': tensor([[1., 2.]]), '0.bias': tensor([3.])}
    """
    module = network.model.get_submodule(layer.name)
    kind = _known(module)
    own = {name: value.detach().cpu().requires_grad_() for name, value in module.named_parameters(recurse=False)}
    with torch.enable_grad():  # the layout is a linear map, which its transpose inverts
        laid_out = _matrix(kind, SimpleNamespace(**own), layer)
        parts = torch.autograd.grad(laid_out, list(own.values()), matrix.to(laid_out))
    prefix = f"{layer.name}." if layer.name else ""
    return {prefix + name: part for name, part in zip(own, parts, strict=True)}


def shared_rows(layers: Sequence[Layer], rows: Sequence[Float[Tensor, "... _ _"]]) -> list[Float[Tensor, "... _ _"]]:
    """Add what a matrix gets in its second use to what it gets in its own layer; nothing is left in the second use."""
    added = list(rows)
    index = {layer.name: i for i, layer in enumerate(layers)}
    for i, layer in enumerate(layers):
        if layer.shares:
            owner = index[layer.shares]
            width = added[owner].shape[-1]
            second = nn.functional.pad(rows[i].transpose(-1, -2), (0, width - rows[i].shape[-2]))
            added[owner], added[i] = added[owner] + second, rows[i][..., :0, :]
    return added


def _matrix(kind: _Kind, holder: Any, layer: Layer) -> Tensor:
    """Return the matrix of weights and bias of a module, or of anything with the same attributes."""
    weight = kind.weight(holder)
    whole = torch.cat([weight, getattr(holder, kind.names[-1]).reshape(-1, 1)], 1) if layer.bias else weight
    return whole[layer.written] if layer.groups > 1 else whole


def _check_parameters(model: nn.Module, layers: Mapping[str, nn.Module], *, alone: bool) -> dict[str, str]:
    """Check that each parameter belongs to one layer, and return which embeddings use the matrix of which layer.

    Args:
        model: the model.
        layers: its layers by name.
        alone: whether parameters of no layer are refused.
    """
    shares: dict[str, str] = {}
    owners: dict[int, list[str]] = {}
    for name, module in layers.items():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    for names in owners.values():
        tables = [name for name in names if isinstance(layers[name], nn.Embedding)]
        if len(names) == 2 and len(tables) == 1:
            owner = next(name for name in names if name not in tables)
            if type(layers[owner]) is nn.Linear and layers[owner].weight is layers[tables[0]].weight:
                shares[tables[0]] = owner
                continue
        if len(names) > 1:
            raise OneLayerError(
                names[-1],
                f"the layers {' and '.join(map(repr, names))} share a parameter: it cannot be counted",
            )
    for name, module in layers.items():
        own = {own for own, _ in module.named_parameters(recurse=False)}
        needed = {own for own in _known(module).names if getattr(module, own, None) is not None}
        if own != needed:
            computed = ", ".join(map(repr, sorted(needed - own))) or "what it adds"
            sources = f" but computed from {', '.join(map(repr, sorted(own - needed)))}" if own - needed else ""
            raise OneLayerError(
                name,
                f"{computed} of layer {name!r} ({type(module).__name__}) is no parameter of its own{sources} (pruned "
                "or normalised weights): its parameters are not those of one linear map",
            )
    unsupported: dict[str, str] = {}
    for name, module in model.named_modules():
        if any(id(parameter) not in owners for parameter in module.parameters(recurse=False)):
            unsupported.setdefault(name, type(module).__name__)
    if unsupported and (alone or not layers):
        listed = ", ".join(f"{name or 'the model itself'} ({kind})" for name, kind in list(unsupported.items())[:6])
        more = f" and {len(unsupported) - 6} more" if len(unsupported) > 6 else ""
        raise LayerError(
            f"parameters outside supported layers: {listed}{more}; counted are those of "
            f"{', '.join(sorted({kind.__name__ for kind in _KINDS}))} (these types themselves, not subclasses), Conv1D "
            "and RMSNorm"
        )
    if not layers:
        raise LayerError("the model has no parameters to count")
    return shares
