"""Small transformers with cuts in their stream, and dense Jacobians between any two places in them."""

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import torch
from cases_transformers import random_tokens, transformer
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from interbasis.analysis import Network
from interbasis.analysis.network.cuts import Place
from interbasis.analysis.network.hooks import hooked

IDS = random_tokens(3, 3)
SINGLE = ("llama", "gemma")  # which normalise and rotate in float32, whatever their weights are


def network(name: str, **options) -> Network:
    model = transformer(name).double()
    for parameter in model.parameters():
        parameter.data = parameter.data + 0.1 * torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
        )
    return Network(model, ["resid_pre.0", "resid_post.0", "resid_post.1"], loss="kl", **options)


def function(
    net: Network, ids: Tensor, start: str, end: str, held: dict[str, Tensor] | None = None
) -> Callable[[Tensor], Tensor]:
    """The tensor at a place as a function of that at an earlier one, with others held."""

    def run(x: Tensor) -> Tensor:
        found: list[Tensor] = []
        with ExitStack() as stack:

            def hook(name: str, visit: Callable[[Place, Tensor], Tensor]) -> None:
                place = Place(name.removesuffix(":in"), name.endswith(":in"))
                stack.callback(hooked(net.model.get_submodule(place.path), place, visit).remove)

            hook(start, lambda _, __: x)
            for name, value in (held or {}).items():
                hook(name, lambda _, __, value=value: value)
            hook(end, lambda _, value: found.append(value) or value)
            net.model.eval()(ids)
        return found[0]

    return run


def read(net: Network, ids: Tensor, name: str) -> Tensor:
    found: list[Tensor] = []
    place = Place(name.removesuffix(":in"), name.endswith(":in"))
    with hooked(net.model.get_submodule(place.path), place, lambda _, v: found.append(v.detach()) or v):
        net.model.eval()(ids)
    return found[0]


def squared(block: Tensor, bases, cuts, pair: int, other: Tensor | None = None) -> np.ndarray:
    """E[sum_ts J J'] Lambda in the coordinates of the bases, of Jacobians (n, t, d, s, e)."""
    rows, columns = torch.from_numpy(bases[cuts[pair + 1]].to_basis), torch.from_numpy(bases[cuts[pair]].from_basis)
    a, b = (torch.einsum("jd,ntdse,ei->ntjsi", rows, v, columns) for v in (block, block if other is None else other))
    return ((a * b).sum((1, 3)).mean(0) * torch.from_numpy(bases[cuts[pair]].importance)).numpy()


def dense(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The Jacobian of each data point, (n, ..., s, e)."""
    whole = jacobian(f, x, vectorize=True)
    return torch.stack([whole[i].select(whole[i].ndim - 3, i) for i in range(len(x))])


class Hooked(nn.Module):
    """A block as TransformerLens writes it: weights per head, a hook at every tensor."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.W = nn.ParameterDict({part: nn.Parameter(torch.randn(2, 6, 3)) for part in "qkv"})
            self.W_O = nn.Parameter(torch.randn(2, 3, 6))
            self.hook_q, self.hook_k, self.hook_v, self.hook_z = (nn.Identity() for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            hooks = {"q": self.hook_q, "k": self.hook_k, "v": self.hook_v}
            q, k, v = (hooks[part](torch.einsum("btd,hde->bthe", x, self.W[part])) for part in "qkv")
            pattern = torch.einsum("bthe,bshe->bhts", q, k)
            pattern = pattern.masked_fill(torch.ones(pattern.shape[-2:]).triu(1).bool(), -1e9).softmax(-1)
            return torch.einsum("bthe,hed->btd", self.hook_z(torch.einsum("bhts,bshe->bthe", pattern, v)), self.W_O)

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.hook_mlp_out = Hooked.Attention(), nn.Identity()
        self.mlp = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 6))

    def forward(self, x: Tensor) -> Tensor:
        middle = x + self.attn(x)
        return middle + self.hook_mlp_out(self.mlp(middle))
