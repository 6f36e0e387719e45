"""Networks of planted blocks, for interventions."""

import numpy as np
import torch
from cases import normal, sequential
from torch import Tensor, nn

from interbasis.analysis import (
    Bases,
    InteractionGraph,
    Network,
    Partition,
    interaction_basis,
    interaction_graph,
    score_partition,
)

WIDTH = 3


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
