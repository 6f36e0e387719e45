"""Networks whose degeneracy is known, and random ones with every kind of it."""

from typing import Any

import torch
from cases import normal, sequential
from hypothesis import strategies as st
from torch import Tensor, nn

from interbasis.analysis.checkpoints.transformer import ModularAdditionTransformer
from interbasis.analysis.network.network import Network

ACTIVATIONS: dict[str, Any] = {"relu": nn.ReLU, "leaky": lambda: nn.LeakyReLU(0.1), "linear": None}


def dense(model: nn.Module) -> Network:
    """A network without cuts: the ledger finds its layers by itself."""
    return Network(model, [])


def halves(inputs: Tensor) -> list[Tensor]:
    """The data in two batches of different size."""
    return [inputs[: len(inputs) // 3], inputs[len(inputs) // 3 :]]


def generic(widths: tuple[int, ...], seed: int = 0, activation: str = "relu") -> nn.Sequential:
    """Random weights and biases without any degeneracy of their own."""
    g = torch.Generator().manual_seed(seed)
    weights = [normal(b, a, generator=g) / a**0.5 for a, b in zip(widths[:-1], widths[1:], strict=True)]
    biases = [0.1 * normal(b, generator=g) for b in widths[1:]]
    return sequential(weights, biases, ACTIVATIONS[activation])


def weights_of(model: nn.Sequential, layer: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer, to be changed in place."""
    return model[layer][0].weight.data, model[layer][0].bias.data


def inputs(n: int, d: int, seed: int = 1) -> Tensor:
    return normal(n, d, generator=torch.Generator().manual_seed(seed))


@st.composite
def degenerate_networks(draw: st.DrawFn, depths: tuple[int, ...], activations: tuple[str, ...]) -> tuple[Any, Tensor]:
    """A model and data: low-rank data and weights, proportional, dead and always-on units, few or many points."""
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    depth = draw(st.sampled_from(depths))
    widths = [draw(st.integers(1, 7)) for _ in range(depth + 2)]
    n = draw(st.sampled_from([8, 40, 200]))
    data = normal(n, widths[0], generator=g)
    if draw(st.booleans()) and widths[0] > 1:
        r = draw(st.integers(1, widths[0] - 1))
        data = normal(n, r, generator=g) @ normal(r, widths[0], generator=g)
    weights, biases = [], []
    for a, b in zip(widths[:-1], widths[1:], strict=True):
        w, c = normal(b, a, generator=g) / a**0.5, 0.5 * normal(b, generator=g)
        kind = draw(st.sampled_from(["full", "full", "low rank", "proportional", "dead", "always on"]))
        if kind == "low rank":
            w = normal(b, 1, generator=g) @ normal(1, a, generator=g)
        if kind == "proportional" and b > 1:
            w[1], c[1] = 1.7 * w[0], 1.7 * c[0]
        if kind == "dead":
            c[-1] = -50.0
        if kind == "always on":
            c[0] = 50.0
        weights.append(w)
        biases.append(c)
    return sequential(weights, biases, ACTIVATIONS[draw(st.sampled_from(activations))]), data


def small_transformer(seed: int = 0, **changes: Any) -> tuple[Network, list[Tensor]]:
    """A one-layer transformer with random weights, all positions counted, and random tokens.

    `same`: the second head has the queries and keys of the first. `last`: only the last position counts, where always
    the same token stands.
    """
    same, last = changes.pop("same", False), changes.pop("last", False)
    config = {"d_model": 4, "n_heads": 2, "d_head": 2, "d_mlp": 6, "n_ctx": 3, "d_vocab": 11, **changes}
    g = torch.Generator().manual_seed(seed)
    model = ModularAdditionTransformer(**config).double()
    for parameter in model.parameters():
        parameter.data = 0.7 * normal(*parameter.shape, generator=g)
    if same:
        for part in (model.attention.q, model.attention.k):
            part.w.data[1], part.b.data[1] = part.w.data[0], part.b.data[0]
    tokens = torch.randint(0, config["d_vocab"] - 1, (250, config["n_ctx"]), generator=g)
    positions: Any = "all"
    if last:
        tokens[:, -1] = config["d_vocab"] - 1
        positions = {"attention": "last", "mlp": "last", "unembed": "last", "output": "last"}
    return Network(model, ["embed", "attention", "mlp", "unembed"], positions=positions), halves(tokens)
