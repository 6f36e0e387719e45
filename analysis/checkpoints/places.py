"""Positions that count at the cuts of a network, from declarations for other places with the same tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from ..errors import CutError
from ..network.batches import Batch, naming_batch
from ..network.cuts import Cut, Place
from ..network.hooks import hooked
from ..network.masks import Positions
from ..network.network import Network

__all__ = ["positions_at"]


def positions_at(
    network: Network, cuts: Sequence[Cut], declared: Mapping[str, Positions], batch: Batch
) -> dict[str, Positions]:
    """Return the positions that count at each cut, as `Network` takes them.

    At a cut those positions count that are declared for its name; else those declared for any place with the same
    tensor (the input of a module and the output of the one before); at a concatenated cut those of its parts, if these
    agree. At other cuts all positions count.

    Args:
        network: the model, without cuts.
        cuts: the wanted cuts.
        declared: positions by name of a place or of a concatenated cut, and "output".
        batch: used in one pass to find places with the same tensor.

    Raises:
        CutError: a name that the model does not have.
    """
    modules = dict(network.model.named_modules())
    names = {name for name in declared if name != "output"}
    if unknown := {name for name in names if any(_place(part).path not in modules for part in name.split("+"))}:
        raise CutError(f"positions are given for {sorted(unknown)}, which the model does not have")
    wanted = {place for cut in cuts for place in cut.places}
    carried = _tensors(network, wanted | {_place(name) for name in names if "+" not in name}, batch)
    by_tensor = {carried[place]: declared[place.name] for place in carried if place.name in declared}
    found: dict[str, Positions] = {}
    for cut in cuts:
        parts = [declared.get(place.name, by_tensor.get(carried.get(place), "all")) for place in cut.places]
        agree = all(part == parts[0] for part in parts)
        found[cut.name] = declared.get(cut.name, parts[0] if agree else "all")
    return {name: value for name, value in found.items() if value != "all"} | {
        name: declared[name] for name in ("output",) if name in declared
    }


def _place(name: str) -> Place:
    return Place(name.removesuffix(":in"), name.endswith(":in"))


def _tensors(network: Network, places: set[Place], batch: Batch) -> dict[Place, Any]:
    """Return an identity of the tensor at each place: equal for places with the same tensor."""
    modules = dict(network.model.named_modules())
    held: list[Tensor] = []
    found: dict[Place, Any] = {}

    def note(place: Place, value: Tensor) -> Tensor:
        held.append(value)  # keep tensors alive, so that no memory is used again
        found.setdefault(place, (value.data_ptr(), value.shape, value.stride(), value.dtype, value._version))
        return value

    with torch.no_grad(), ExitStack() as stack, naming_batch(batch):
        for place in places:
            stack.callback(hooked(modules[place.path], place, note).remove)
        network.forward(batch)
    return found
