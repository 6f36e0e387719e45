"""Sets of parameters by name: globs, slices of parameters, and each attention head and MLP of a network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeAlias

import torch
from jaxtyping import Bool
from torch import Tensor

from ..checkpoints.components import find_components
from ..degeneracy import Layer, attention_heads, find_layers, parameter_parts
from ..errors import CutError, InputError, LayerError
from ..llc.network_loss import NetworkLandscape
from ..llc.subspace import Subspace
from ..network.batches import Batch
from ..network.network import Network

__all__ = ["Parts", "parts_of"]

Parts: TypeAlias = str | Mapping[str, str | Sequence[str]] | Sequence[str]

"""Sets of parameters: "auto", globs or slices by name of the set, or a list of them, each a set of its own."""

_Place: TypeAlias = tuple[str, bool, list[int]]

"""A layer, whether units are among its inputs or its outputs, and which."""

_SLICE = re.compile(r"(?P<name>.+)\[(?P<index>[-\d:,\s]+)\]")


def parts_of(landscape: NetworkLandscape, parts: Parts) -> dict[str, Subspace]:
    """Return the subspaces of sets of parameters.

    Args:
        landscape: the loss of all parameters.
        parts: "auto", or globs and slices. A slice "name[i, j:k]" takes entries along the leading axes of a parameter.

    Raises:
        InputError: a set that fits no parameter, or a slice outside of one.
        LayerError: "auto", of a network whose layers are not known.

    >>> from torch import nn
    >>> from ..llc.network_loss import behavioural_loss
    >>> from ..network.network import Network
    >>> loss = behavioural_loss(Network(nn.Linear(3, 4), []), [torch.ones(5, 3)])
    >>> {name: own.dimension for name, own in parts_of(loss, ["weight[:2]", "bias", "*"]).items()}
    {'weight[:2]': 6, 'bias': 4, '*': 16}
    """
    if isinstance(parts, str):
        if parts != "auto":
            raise InputError(f"unknown parts {parts!r}: expected 'auto', a list of globs, or globs by name")
        return _heads_and_layers(landscape)
    named = parts if isinstance(parts, Mapping) else {part: part for part in parts}
    shapes = {name: p.shape for name, p in landscape.network.model.named_parameters()}
    found = {}
    for name, globs in named.items():
        chosen = {own: torch.zeros(shapes[own], dtype=torch.bool, device="cpu") for own in landscape.names}
        for glob in [globs] if isinstance(globs, str) else globs:
            _choose(chosen, glob)
        found[name] = _subspace(landscape, chosen)
        if not found[name].dimension:
            raise InputError(f"the part {name!r} names no entry of a parameter: an empty slice counts nothing")
    return found


def _choose(chosen: Mapping[str, Bool[Tensor, ...]], glob: str) -> None:
    """Mark the entries that a glob, or a slice of the parameters of a glob, names."""
    sliced = _SLICE.fullmatch(glob)
    if sliced and (fitting := [name for name in chosen if fnmatchcase(name, sliced["name"])]):
        for name in fitting:
            try:
                chosen[name][_index(sliced["index"])] = True
            except (IndexError, ValueError) as error:
                shape = tuple(chosen[name].shape)
                raise InputError(f"{glob!r} does not fit {name}, whose shape is {shape}: {error}") from error
        return
    fitting = [name for name in chosen if fnmatchcase(name, glob)]
    if not fitting:
        raise InputError(f"no parameter is called {glob!r}: they are {', '.join(list(chosen)[:20])}")
    for name in fitting:
        chosen[name][...] = True


def _index(text: str) -> tuple[int | slice, ...]:
    """Read "2, 3:5" as an index.

    >>> _index("2, 3:5")
    (2, slice(3, 5, None))
    """
    found: list[int | slice] = []
    for part in text.split(","):
        numbers = [int(number) if number.strip() else None for number in part.split(":")]
        whole = numbers[0] if len(numbers) == 1 and numbers[0] is not None else None
        found.append(slice(*numbers) if whole is None else whole)
    return tuple(found)


def _subspace(landscape: NetworkLandscape, chosen: Mapping[str, Bool[Tensor, ...]]) -> Subspace:
    """Return all directions of the marked entries."""
    return Subspace.on(torch.cat([chosen[name].flatten() for name in landscape.names]).nonzero()[:, 0])


def _heads_and_layers(landscape: NetworkLandscape) -> dict[str, Subspace]:
    """Return the parameters of each attention head, and of the other layers: with heads, those of one module."""
    network, batch = landscape.network, landscape.inputs[0]
    layers = {layer.name: layer for layer in find_layers(network, batch, without=()) if not layer.shares}
    heads = _own_heads(network, list(layers.values())) or _named_heads(network, batch)
    shapes = {name: p.shape for name, p in network.model.named_parameters()}
    found: dict[str, dict[str, Bool[Tensor, ...]]] = {}

    def marks(part: str) -> dict[str, Bool[Tensor, ...]]:
        empty = {name: torch.zeros(shapes[name], dtype=torch.bool, device="cpu") for name in landscape.names}
        return found.setdefault(part, empty)

    for head, places in heads.items():
        for layer, inputs, units in places:
            matrix = torch.zeros(layers[layer].d_out, layers[layer].n_inputs, dtype=torch.float64, device="cpu")
            matrix[(slice(None), units) if inputs else units] = 1
            for name, part in parameter_parts(network, layers[layer], matrix).items():
                marks(head)[name].logical_or_(part != 0)
    attention = {layer for places in heads.values() for layer, _, _ in places}
    for layer in (layer for layer in layers if layer not in attention):
        owner = layer.rpartition(".")[0] if heads and "." in layer else layer
        for name in (name for name in landscape.names if name.rpartition(".")[0] == layer):
            marks(owner)[name][...] = True
    if not found:
        raise LayerError("no layer of a known type is found: name the parts by globs on their parameters")
    return {name: _subspace(landscape, own) for name, own in found.items()}


def _own_heads(network: Network, layers: Sequence[Layer]) -> dict[str, list[_Place]]:
    """Return where the parameters of heads of attention that `degeneracy` knows are."""
    found = {}
    for block in attention_heads(network, layers):
        written = [layers[i] for i in (block.q, block.k, block.v)]
        for head in range(block.n_heads):
            own = [(layer.name, False, block.units(head, layer.d_out)) for layer in written]
            last = layers[block.o]
            found[f"{block.name} head {head}"] = [*own, (last.name, True, block.units(head, last.d_in))]
    return found


def _named_heads(network: Network, batch: Batch) -> dict[str, list[_Place]]:
    """Return the same for blocks of transformers; nothing where there are none, or their heads are not understood."""
    try:
        items = find_components(network, batch).items
    except CutError:
        return {}
    found = {}
    for item in (item for item in items if item.head is not None):
        parts = [*item.reads.values(), item.writes]
        places = [(part.place.path, part.place.is_input, list(range(part.start, part.stop or 0))) for part in parts]
        found[item.name] = places
    return found
