"""Networks trained on handwritten digits side by side, whose modules are known: one per question asked.

Each side's digit is drawn independently of the others, so what names one digit needs nothing of the others:

    two digits      10 outputs for the left digit, 10 for the right one
    digit, parity   10 outputs for the left digit, 2 for whether the right one is even
    three digits    10 outputs for each of three
    sum             19 outputs for the sum of two digits: a single task, one module
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from interbasis.analysis import Network, interaction_basis, interaction_graph
from interbasis.analysis.checkpoints.datasets import Dataset
from interbasis.analysis.checkpoints.mlp import MLP

TASKS = {"two digits": (10, 10), "digit, parity": (10, 2), "three digits": (10, 10, 10), "sum": (19,)}
CUTS = ("layers.0:in", "layers.0", "layers.1", "layers.2")
_WIDTH = 24  # hidden units per digit


def trained_graph(task, seed, **training):
    """Interaction graph of a trained network, the true side of each node per cut (None for the sum), accuracy."""
    return trained_network(task, seed, **training)[2:5]


def trained_network(task, seed, *, weight_decay=1.0, fresh=True, steps=2000, cuts=CUTS):
    """Network, bases, graph, the true side of each node per cut (None for the sum), accuracy, held-out inputs."""
    heads = TASKS[task]
    sides = 3 if task == "three digits" else 2
    pictures, digits = _digits()
    generator = torch.Generator().manual_seed(seed)
    pool, held_out = torch.arange(len(pictures)).split([1350, len(pictures) - 1350])
    model = MLP((64 * sides, _WIDTH * sides, _WIDTH * sides, sum(heads)), "relu")
    for parameter in model.parameters():
        bound = parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.1
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, eta_min=1e-4)
    fixed = pool[torch.randint(len(pool), (4000, sides), generator=generator)]
    for _ in range(steps):
        drawn = torch.randint(len(pool if fresh else fixed), (256, sides) if fresh else (256,), generator=generator)
        chosen = pool[drawn] if fresh else fixed[drawn]
        logits = model(pictures[chosen].flatten(1).float()).split(heads, dim=1)
        loss = sum(
            nn.functional.cross_entropy(x, y) for x, y in zip(logits, _answers(task, digits[chosen]), strict=True)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    test = held_out[torch.randint(len(held_out), (1000, sides), generator=generator)]
    with torch.no_grad():
        logits = model(pictures[test].flatten(1).float()).split(heads, dim=1)
    pairs = zip(logits, _answers(task, digits[test]), strict=True)
    accuracy = float(np.mean([(x.argmax(1) == y).double().mean() for x, y in pairs]))
    data = Dataset("digits", pictures[fixed].flatten(1))
    net = Network(model.double(), cuts)
    bases = interaction_basis(net, data, output="neuron", rotation="degenerate")
    sides = None if len(heads) == 1 else _sides(bases, heads)
    return net, bases, interaction_graph(net, bases, data), sides, accuracy, pictures[test].flatten(1)


def _digits():
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.data))
    return torch.from_numpy(digits.data[order] / 16), torch.from_numpy(digits.target[order]).long()


def _answers(task, digits):
    if task == "sum":
        return [digits.sum(1)]
    if task == "digit, parity":
        return [digits[:, 0], digits[:, 1] % 2]
    return list(digits.unbind(1))


def _sides(bases, heads):
    """The head whose outputs a coordinate influences most; an output's own head at the last cut."""
    *inner, _ = bases.values()
    ends = np.cumsum([0, *heads])
    heads_of = np.repeat(np.arange(len(heads)), heads)
    influence = [np.add.reduceat(np.asarray(basis.influence), ends[:-1], axis=0) for basis in inner]
    return [*(part.argmax(axis=0) for part in influence), heads_of]
