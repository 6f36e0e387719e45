"""The parameters inside each module and between modules (paper, section 5.2).

A dense layer W that reads cut l and writes cut l+1 unit by unit is divided with the nodes of both: dW = C'^+ X C and
db = C'^+ y. Entries X_ji with nodes i and j of one module are inside it, with y_j, the bias of its nodes; entries of
two modules lie between them. All these directions are independent. What is left are directions of nodes in no module
and that the bases dropped, and the parameters of layers that do not join two cuts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..basis.bases import Bases
from ..degeneracy import Layer, find_layers, layer_weight, parameter_parts, trace_layers
from ..errors import InputError, LayerError
from ..llc.network_loss import NetworkLandscape
from ..llc.subspace import Subspace, orthonormal_basis
from ..network.batches import Batch
from ..network.network import Network
from ..results import by_value

__all__ = ["DividedLayer", "ModuleSubspaces", "module_subspaces"]

_NUMBERS = 2**27  # numbers of the directions of one layer: 1 GiB

_EXACT = 2**24  # integers up to this are exact in float32


@dataclass(frozen=True)
class DividedLayer:
    """A layer whose parameters are divided: its name, and the numbers of the cuts that it reads and writes."""

    name: str
    earlier: int
    later: int


@by_value
@dataclass(frozen=True)
class ModuleSubspaces:
    """The parameters of a network by module.

    Attributes:
        modules: the parameters inside each module.
        together: those inside any module, with those between modules fixed.
        between: those between modules.
        layers: the layers that are divided.
        others: names of layers with parameters that are not.
    """

    modules: tuple[Subspace, ...]
    together: Subspace
    between: Subspace
    layers: tuple[DividedLayer, ...]
    others: tuple[str, ...]


def module_subspaces(
    landscape: NetworkLandscape, bases: Bases, labels: Sequence[Int[np.ndarray, " _"]]
) -> ModuleSubspaces:
    """Divide the parameters of a network among the modules of its graph.

    Args:
        landscape: the loss of all its parameters, with the data on which layers are recognised.
        bases: the graph's bases.
        labels: the module of each node, one array per cut; -1: in none.

    Raises:
        LayerError: no dense layer reads one cut and writes the next.
        InputError: labels that do not fit the bases, or a layer with too many directions.
    """
    network = landscape.network
    widths = [len(basis.importance) for basis in bases.bases]
    if [len(own) for own in labels] != widths or tuple(bases) != network.cuts:
        raise InputError(f"the partition is of another graph: the bases have {dict(zip(bases, widths, strict=True))}")
    layers, found, undivided = _divided(network, landscape.inputs[0])
    count = max((int(own.max(initial=-1)) for own in labels), default=-1) + 1
    inside: list[list[Subspace]] = [[] for _ in range(count)]
    together, between = list[Subspace](), list[Subspace]()
    for layer, where in zip(layers, found, strict=True):
        _require_room(layer, layer.nominal, 1)
        place = _places(landscape, layer).flatten()
        earlier, later = labels[where.earlier], labels[where.later]
        read = torch.from_numpy(bases.bases[where.earlier].to_basis).T
        written = torch.from_numpy(bases.bases[where.later].from_basis)
        own, crossing = [], []
        for m in range(count):
            columns = _with_bias(orthonormal_basis(read[:, earlier == m]), layer)
            own.append(_products(orthonormal_basis(written[:, later == m]), columns))
            others_read = _padded(read[:, (earlier != m) & (earlier >= 0)], layer)
            crossing.append(_products(written[:, later == m], others_read))
            inside[m].append(Subspace.on(place, own[m]))
        for parts, into in ((own, together), (crossing, between)):
            _require_room(layer, len(place), sum(part.shape[1] for part in parts))
            into.append(Subspace.on(place, torch.cat(parts, 1)))
    return ModuleSubspaces(
        tuple(Subspace.joined(parts) for parts in inside),
        Subspace.joined(together),
        Subspace.joined(between),
        tuple(found),
        undivided,
    )


def _divided(network: Network, batch: Batch) -> tuple[list[Layer], list[DividedLayer], tuple[str, ...]]:
    """Find the layers that read one cut and write the next, and the names of other layers."""
    layers = find_layers(network, batch, without=())
    trace = trace_layers(network, layers, batch, grad=False)
    values = list(network.activations(batch).values())
    kept, found, others = [], [], []
    for layer, inputs in zip(layers, trace.inputs, strict=True):
        plain = layer.groups == 1 and not (layer.shares or layer.tokens or layer.heads or layer.channels)
        read = inputs[..., : layer.d_in]
        at = [p for p, v in enumerate(values[:-1]) if plain and v.shape == read.shape and torch.equal(v.to(read), read)]
        at = [p for p in at if _writes_unit_by_unit(network, layer, p + 1, batch)]
        if at:
            kept.append(layer)
            found.append(DividedLayer(layer.name, at[0], at[0] + 1))
        else:
            others.append(layer.name)
    if not kept:
        raise LayerError(
            f"no dense layer reads one cut and writes the next: the cuts are {', '.join(network.cuts)}, the layers "
            f"{', '.join(others)}. The parameters of modules are defined where a dense layer joins two cuts: cut at "
            "its input and behind its activation"
        )
    return kept, found, tuple(others)


def _writes_unit_by_unit(network: Network, layer: Layer, p: int, batch: Batch) -> bool:
    """Test whether each unit of a cut depends on one unit of the layer's output, by moving half of them."""
    before = network.activations(batch)[network.cuts[p]]
    if before.shape[-1] != layer.d_out:
        return False
    draws = torch.Generator().manual_seed(0)
    half = torch.randperm(layer.d_out, generator=draws, device="cpu")[: (layer.d_out + 1) // 2]
    module = network.model.get_submodule(layer.name)

    def move(_: nn.Module, __: object, value: Tensor) -> Tensor:
        moved = value.clone()
        moved[..., half] += value.detach().abs().max() + 1
        return moved

    handle = module.register_forward_hook(move)
    try:
        after = network.activations(batch)[network.cuts[p]]
    finally:
        handle.remove()
    same = torch.ones(layer.d_out, dtype=torch.bool, device="cpu")
    same[half] = False
    changed = (after != before).flatten(0, -2).any(0).cpu()
    return bool(not changed[same].any() and changed[~same].all())


def _places(landscape: NetworkLandscape, layer: Layer) -> Int[Tensor, "d_out n_inputs"]:
    """Return where the entries of a layer's matrix, bias last, stand in the vector of parameters."""
    offsets = dict(zip(landscape.names, np.cumsum([0, *landscape.sizes]).tolist(), strict=False))
    shape = layer_weight(landscape.network, layer).shape
    numbers = torch.arange(shape.numel(), dtype=torch.float64, device="cpu").reshape(shape)
    found = torch.zeros(shape.numel(), dtype=torch.int64, device="cpu")
    for name, part in parameter_parts(landscape.network, layer, numbers).items():
        found[part.flatten().long()] = offsets[name] + torch.arange(part.numel(), device="cpu")
    return found.reshape(shape)


def _products(written: Float[Tensor, "d_out k"], read: Float[Tensor, "n_inputs m"]) -> Float[Tensor, "entries km"]:
    """Return all products of a direction written and a direction read, a column each."""
    whole = written[:, None, :, None] * read[None, :, None, :]
    return whole.reshape(len(written) * len(read), written.shape[1] * read.shape[1])


def _padded(read: Float[Tensor, "d_in k"], layer: Layer) -> Float[Tensor, "n_inputs k"]:
    """Return directions of the inputs with a row of zeros for the constant unit, where the layer has one."""
    return torch.cat([read, read.new_zeros(int(layer.bias), read.shape[1])])


def _with_bias(read: Float[Tensor, "d_in k"], layer: Layer) -> Float[Tensor, "n_inputs _"]:
    """Return directions of the inputs and that of the constant unit."""
    if not layer.bias:
        return read
    constant = read.new_zeros(layer.n_inputs, 1)
    constant[-1] = 1
    return torch.cat([_padded(read, layer), constant], 1)


def _require_room(layer: Layer, entries: int, directions: int) -> None:
    if entries * directions > _NUMBERS or entries > _EXACT:
        raise InputError(
            f"layer {layer.name!r} has {entries:,} parameters and {directions:,} directions of pairs of nodes: their "
            f"basis is too large, more than {_NUMBERS:,} numbers. Take a larger loss scale, at which "
            "fewer nodes are in modules"
        )
