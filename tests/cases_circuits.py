"""Networks of planted blocks, for interventions."""

from typing import Any

import numpy as np
import torch
from cases import normal, sequential
from torch import Tensor, nn

from interbasis.analysis import (
    Bases,
    Dataset,
    Experiment,
    ExperimentRecipe,
    InteractionGraph,
    Network,
    Partition,
    interaction_basis,
    interaction_graph,
    run_experiment,
    score_partition,
)
from interbasis.analysis.checkpoints.mlp import MLP

WIDTH = 3
ENTANGLED = ("random", "teacher", "sum", "product", "permuted")


class Planted:
    """Blocks of an MLP side by side, joined by weights of given size from one block to another in one layer.

    The data are all combinations of the blocks' own data points, so that no two blocks are correlated. With `level` the
    variances of each block's outputs sum to 1.
    """

    def __init__(
        self,
        blocks: int,
        links: dict[tuple[int, int, int], float],
        *,
        kind: str = "global",
        points: int = 7,
        level: bool = False,
    ):
        g = torch.Generator().manual_seed(0)
        size = blocks * WIDTH
        side = torch.arange(blocks).repeat_interleave(WIDTH)
        weights = [normal(size, size, generator=g) / WIDTH**0.5 * (side[:, None] == side) for _ in range(3)]
        for (layer, a, b), strength in links.items():
            weights[layer][b * WIDTH, a * WIDTH] = strength
        self.model = sequential(weights, [normal(size, generator=g) for _ in weights], nn.GELU)
        own = normal(blocks, points, WIDTH, generator=g)
        index = torch.cartesian_prod(*[torch.arange(points)] * blocks)
        self.x = torch.cat([own[b][index[:, b]] for b in range(blocks)], 1)
        if level:
            spread = self.model(self.x).var(0, correction=0).reshape(blocks, WIDTH).sum(1).sqrt().detach()
            self.model[-1][0].weight.data /= spread.repeat_interleave(WIDTH)[:, None]
        self.model[-1][0].bias.data -= self.model(self.x).mean(0)
        self.net = Network(self.model, ["0:in", "0", "1", "2"], example=self.x)
        self.bases = interaction_basis(self.net, [self.x], kind=kind, output="neuron")
        self.graph = interaction_graph(self.net, self.bases, [self.x])
        shares = [np.add.reduceat(np.abs(b.from_basis), range(0, size, WIDTH), 0) for b in self.bases.values()]
        self.side = [share.argmax(0) for share in shares]
        self.part = score_partition(self.graph, self.side, 1e-12)

    @property
    def args(self) -> tuple[Network, Bases, InteractionGraph, Partition, list[Tensor]]:
        return self.net, self.bases, self.graph, self.part, [self.x]

    def run(
        self, data: Dataset, recipe: ExperimentRecipe, *, partition: Partition | None = None, **options: Any
    ) -> Experiment:
        """Run an experiment on the planted blocks, or on other modules of the same graph."""
        part = self.part if partition is None else partition
        return run_experiment(*self.args[:3], partition=part, data=data, recipe=recipe, **options)


def entangled(seed: int) -> tuple[str, MLP, Tensor]:
    """A network without modules, and data: five kinds in turn.

    random: no training. teacher: trained on the outputs of another random network. sum, product: two symbols out of six
    side by side, named by their sum, or product mod 7. permuted: blocks side by side whose weights are permuted.
    """
    g = torch.Generator().manual_seed(seed)
    kind = ENTANGLED[seed % len(ENTANGLED)]
    activation = ("relu", "gelu")[seed // len(ENTANGLED) % 2]
    if kind in ("random", "teacher"):
        widths = torch.randint(10, 25, (4,), generator=g).tolist()
        model, x = _random(widths, activation, g), torch.randn(600, widths[0], generator=g)
        if kind == "teacher":
            with torch.no_grad():
                y = model(x)
            model = _random(widths, activation, g)
            _fit(model, x, y, nn.functional.mse_loss, 300, g)
    elif kind in ("sum", "product"):
        a, symbols = torch.randint(6, (2, 3000), generator=g), torch.randn(2, 6, 8, generator=g)
        x = torch.cat([symbols[0][a[0]], symbols[1][a[1]]], 1) + 0.1 * torch.randn(3000, 16, generator=g)
        y = a[0] + a[1] if kind == "sum" else (a[0] * a[1]) % 7
        model = _random([16, 24, 24, 11 if kind == "sum" else 7], activation, g)
        _fit(model, x, y, nn.functional.cross_entropy, 600, g)
    else:
        x, model = torch.randn(600, 16, generator=g), _random([16, 20, 20, 12], activation, g)
        for layer in model.dense:
            weight = layer.linear.weight
            rows, columns = (torch.arange(k) * 2 // k for k in weight.shape)
            blocks = weight * (rows[:, None] == columns) * 2**0.5
            weight.data = blocks.flatten()[torch.randperm(weight.numel(), generator=g)].reshape(weight.shape)
    return kind, model.double(), x[:600].double()


def _random(widths: list[int], activation: str, generator: torch.Generator) -> MLP:
    model = MLP(tuple(widths), activation)
    for parameter in model.parameters():
        scale = parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.2
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    return model


def _fit(model: MLP, x: Tensor, y: Tensor, loss: Any, steps: int, generator: torch.Generator) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.3)
    for _ in range(steps):
        chosen = torch.randint(len(x), (128,), generator=generator)
        optimiser.zero_grad()
        loss(model(x[chosen]), y[chosen]).backward()
        optimiser.step()
