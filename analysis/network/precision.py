"""Copies of a model: independent of the original, and in float64."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DataError
from .batches import Batch, map_tensors
from .network import Network

__all__ = ["copied", "in_double"]


def in_double(network: Network, batches: Iterable[Batch]) -> tuple[Network, Iterable[Batch]]:
    """Return the network and its data in float64, copied unless they are already; ranks need this precision."""
    parameters = list(network.model.parameters())
    if all(p.dtype == torch.float64 for p in parameters if p.is_floating_point()):
        return network, batches
    return network.with_model(copied(network.model).double()), _Doubled(batches)


def copied(model: nn.Module) -> nn.Module:
    """Copy a model, also one whose weights are computed by hooks (weight_norm, pruning), where deepcopy fails."""
    # computed weights carry their autograd graph, which cannot be copied
    computed = [v for module in model.modules() for v in vars(module).values() if isinstance(v, Tensor)]
    memo: dict[int, Any] = {id(value): value.detach().clone() for value in computed if not value.is_leaf}
    return deepcopy(model, memo)


class _Doubled:
    """Batches whose floating point tensors are converted to float64 each time they are read."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = batches
        if iter(batches) is batches:
            raise DataError("the batches can be read only once: pass a list or a DataLoader, not a generator")

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            yield map_tensors(lambda v: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v, batch)
