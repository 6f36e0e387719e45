"""Small networks with a known meaning, and their cards."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from cases_transformers import VOCABULARY, random_tokens, transformer
from torch import Tensor, nn

from interbasis.analysis import (
    Bases,
    Cards,
    Dataset,
    InteractionGraph,
    Network,
    Partition,
    describe,
    interaction_basis,
    interaction_graph,
    score_partition,
)

FEATURES = [f"{side} {j}" for side in ("left", "right") for j in range(3)]
OUTPUTS = [f"{side} {o}" for side in ("left", "right") for o in range(2)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_tasks(*, hidden: int = 4, relu: bool = True, seed: int = 0) -> nn.Sequential:
    """Two independent networks side by side: 3 inputs, `hidden` units and 2 outputs each."""
    first, second = nn.Linear(6, 2 * hidden).double(), nn.Linear(2 * hidden, 4).double()
    with torch.no_grad():
        for layer, seed_of in ((first, seed), (second, seed + 1)):
            weight = normal(*layer.weight.shape, seed=seed_of)
            sides = [torch.arange(n) >= n // 2 for n in weight.shape]
            layer.weight.copy_(weight * (sides[0][:, None] == sides[1]))
            layer.bias.copy_(normal(len(layer.bias), seed=seed_of + 10))
    return nn.Sequential(first, nn.ReLU() if relu else nn.Identity(), second)


def named_data(n: int = 400, *, seed: int = 0, batch_size: int = 512) -> Dataset:
    inputs = normal(n, 6, seed=seed)
    targets = (inputs[:, :1] > 0).long()
    names: dict[str, Any] = {"feature_names": FEATURES, "output_names": OUTPUTS, "class_names": ["no", "yes"]}
    return Dataset("two tasks", inputs, targets, batch_size, **names)


def crossed_data(n: int = 20, *, batch_size: int = 512) -> Dataset:
    """All pairs of n inputs of the left side and n of the right one, which are so independent of each other."""
    left, right = normal(n, 3, seed=1), normal(n, 3, seed=2)
    inputs = torch.cat([left.repeat_interleave(n, 0), right.repeat(n, 1)], 1)
    return replace(named_data(), inputs=inputs, targets=(inputs[:, :1] > 0).long(), batch_size=batch_size)


def analysed(
    model: nn.Module, data: Any, *, modules: int = 1, kind: str = "local", **options: Any
) -> tuple[Network, Bases, InteractionGraph, Partition]:
    """A network with cuts at its input, activation and output, and a division by side where there are two modules."""
    net = Network(model, ["0:in", "1", "2"], **options)
    bases = interaction_basis(net, data, kind=kind)
    graph = interaction_graph(net, bases, data)
    labels = [np.zeros(width, dtype=int) for width in graph.widths]
    if modules == 2:
        labels = [side_of(basis.from_basis) for basis in bases.values()]
    return net, bases, graph, score_partition(graph, labels, 1e-6)


def side_of(from_basis: np.ndarray) -> np.ndarray:
    """Which half of the features each coordinate lies in, by the larger part of its column."""
    half = len(from_basis) // 2
    return (np.square(from_basis[half:]).sum(0) > np.square(from_basis[:half]).sum(0)).astype(int)


def picture_cards() -> Cards:
    """Cards of pictures, two of 1 x 3 pixels side by side, with names that HTML and formulas would change."""
    names: dict[str, Any] = {"feature_names": None, "output_names": ["<b>", "$x_1$", "a\nb", "c" * 90]}
    data = replace(crossed_data(), image_shape=(2, 1, 3), **names)
    return describe(*analysed(two_tasks(), data, modules=2), data, points=20)


def token_cards(**choices: Any) -> Cards:
    """Cards of a small decoder as it is initialised, with names of its tokens."""
    tokens = random_tokens(40, 12)
    net = Network(transformer("gpt2").double(), ["transformer.h.0", "transformer.h.1"], loss="kl", example=tokens)
    bases = interaction_basis(net, [tokens], kind="pca")
    graph = interaction_graph(net, bases, [tokens])
    one = score_partition(graph, [np.zeros(width, dtype=int) for width in graph.widths], 1e-9)
    names = {"token_strings": [f" w{i}" for i in range(VOCABULARY)]}
    return describe(net, bases, graph, one, [tokens[:7], tokens[7:]], **({"names": names, "points": 20} | choices))


def two_task_cards(**choices: Any) -> Cards:
    data = crossed_data()
    return describe(*analysed(two_tasks(), data, modules=2), data, **choices)
