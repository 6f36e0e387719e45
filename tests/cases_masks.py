"""Small transformers of tokens in float64, and texts of different lengths padded on either side."""

import math

import torch
from torch import Tensor, nn

from interbasis.analysis.network.network import Network

VOCABULARY, PAD = 7, 0
CUTS = ["embed", "blocks.0", "blocks.1", "unembed"]


class _Block(nn.Module):
    """Residual stream plus attention plus a position-wise layer; what the mask leaves out is not attended to."""

    def __init__(self, width: int, causal: bool) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.inner, self.outer = nn.Linear(width, 6), nn.Linear(6, width)
        self.causal = causal

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        score = self.q(x) @ self.k(x).transpose(1, 2) / math.sqrt(x.shape[-1])
        hidden = ~seen[:, None].expand_as(score)
        if self.causal:
            hidden = hidden | torch.ones_like(hidden[0]).triu(1)
        x = x + self.o(score.masked_fill(hidden, torch.finfo(score.dtype).min).softmax(-1) @ self.v(x))
        return x + self.outer(nn.functional.gelu(self.inner(x)))


class _Embed(nn.Module):
    """Tokens and positions, counted from the first that is seen."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(12, width)

    def forward(self, ids: Tensor, seen: Tensor) -> Tensor:
        return self.tokens(ids) + self.positions((seen.long().cumsum(1) - 1).clamp_min(0))


class Reader(nn.Module):
    """forward(input_ids, attention_mask) -> logits; without `heeds` the mask is taken and not looked at."""

    def __init__(self, causal: bool, width: int = 4, heeds: bool = True, pooled: bool = False) -> None:
        super().__init__()
        self.embed = _Embed(width)
        self.blocks = nn.ModuleList(_Block(width, causal) for _ in range(2))
        self.unembed = nn.Linear(width, 3)
        self.heeds, self.pooled = heeds, pooled

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        seen = attention_mask.bool() if self.heeds else torch.ones_like(attention_mask).bool()
        x = self.embed(input_ids, seen)
        for block in self.blocks:
            x = block(x, seen)
        if self.pooled:
            x = (x * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)
        return self.unembed(x)


def reader(causal: bool, *, seed: int = 0, **options) -> Reader:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Reader(causal, **options).double()
    for parameter in model.parameters():
        parameter.data *= 1.5
    return model


def texts(lengths, *, seed: int = 0) -> list[Tensor]:
    """Random tokens, each text of its own length."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, VOCABULARY, (length,), generator=generator) for length in lengths]


def padded(parts: list[Tensor], side: str, *, to: int = 0) -> dict[str, Tensor]:
    """One batch of texts."""
    longest = max(to, *(len(part) for part in parts))
    ids = torch.full((len(parts), longest), PAD)
    mask = torch.zeros(len(parts), longest, dtype=torch.long)
    for row, part in enumerate(parts):
        where = slice(0, len(part)) if side == "right" else slice(longest - len(part), None)
        ids[row, where], mask[row, where] = part, 1
    return {"input_ids": ids, "attention_mask": mask}


def alone(parts: list[Tensor]) -> list[dict[str, Tensor]]:
    """Each text as a batch of its own, without padding."""
    return [padded([part], "right") for part in parts]


def masked(model: nn.Module, **options) -> Network:
    return Network(model, CUTS, mask="attention_mask", **options)
