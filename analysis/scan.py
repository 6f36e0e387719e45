"""Cuts found by scanning a model: the places that pass the swap test, each tensor once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .cuts import Cut, Place
from .errors import CutError

__all__ = ["scan", "vocabularies"]

_WIDEST = 10_000  # features of a cut


def scan(
    values: Mapping[Place, Float[Tensor, "batch _ _"]], wide: Collection[int], is_cut: Callable[[Place], bool]
) -> tuple[Cut, ...]:
    """Every place that is a cut, in order of computation; of places with equal tensors one.

    Of equal tensors (before and after dropout in evaluation mode, a module and the container that ends in it) the
    output with the shortest path that is a cut stands for all. Places as wide as a vocabulary are left out: those of
    a width in `wide`, and those wider than 10,000.

    Args:
        values: per place that is computed once the tensor there, in order of computation.
        wide: see `vocabularies`.
        is_cut: the swap test.

    Raises:
        CutError: fewer than two cuts.
    """
    groups: list[list[Place]] = []
    for place, value in values.items():
        if value.shape[-1] in wide or value.shape[-1] > _WIDEST:
            continue
        for group in groups:
            if torch.equal(values[group[0]], value):
                group.append(place)
                break
        else:
            groups.append([place])
    order = list(values)
    found: list[Place] = []
    for group in groups:
        preferred = sorted(group, key=lambda place: (place.is_input, place.path.count(".")))
        first = next((place for place in preferred if is_cut(place)), None)
        found += [first] if first else []
    if len(found) < 2:
        raise CutError(f"the swap test found {len(found)} cuts in the model, expected at least two: name them")
    return tuple(Cut((place,)) for place in sorted(found, key=order.index))


def vocabularies(model: nn.Module, output: int) -> set[int]:
    """The width of the output where it is that of a vocabulary: the number of rows of an embedding, which are shorter.

    >>> vocabularies(nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 50)), 50)
    {50}
    """
    rows = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.num_embeddings > m.embedding_dim]
    return {output} & {embedding.num_embeddings for embedding in rows}
