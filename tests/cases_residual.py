"""Small networks of many shapes whose right division is known: independent tasks, or one task, or no training at all.

    mlp       independent tasks on inputs of their own in one MLP; with dropout; with cuts before and after activations
    cnn       two digits named by one convolutional network
    modular   residual networks that solve independent tasks: block-diagonal by construction and hidden by a rotation of
              the residual stream, or trained freely
    joint     networks trained on one task: one module
    shared    language models trained freely on two tasks; at the median node .55 to .83 of the influence goes to its
              own task, so that neither one module nor two is the right answer
    untrained residual networks, MLPs and linear ones as they are initialised: one module

`CASES` lists them by name. The right division assigns each coordinate to the task whose outputs it influences most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from interbasis.analysis import Network
from interbasis.analysis.basis.jacobians import output_moments

__all__ = ["CASES", "Case", "truth"]


@dataclass(frozen=True)
class Case:
    """One network: how it is built, trained and cut, and the widths of the parts of its output, one per task.

    `heads` has one entry where one module is right. `stream` are the cuts that read the residual stream, in order.
    """

    group: str
    build: Callable[[torch.Generator], nn.Module]
    inputs: Callable[[torch.Generator, int], Tensor]
    cuts: tuple[str, ...] | str
    heads: tuple[int, ...]
    loss: Callable[[Tensor, Tensor], Tensor] | None = None  # of inputs and outputs; None: not trained
    stream: tuple[str, ...] = ()
    steps: int = 800
    weight_decay: float = 0.3
    learning_rate: float = 3e-3
    batch: int = 128
    points: int = 1000  # data points of the analysis
    finish: Callable[[nn.Module, torch.Generator], nn.Module] | None = None  # after training
    seed: int = 0

    @property
    def right(self) -> int:
        """Number of modules."""
        return len(self.heads)

    def trained(self) -> nn.Module:
        """The network, float64, in evaluation mode."""
        generator = torch.Generator().manual_seed(self.seed)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)  # dropout and torch's own initialisation draw from the global generator
            model = self.build(generator)
            if self.loss is not None:
                _train(self, model, generator)
        if self.finish is not None:
            model = self.finish(model, generator)
        return model.eval().double()

    def data(self) -> list[Tensor]:
        """Batches for the analysis."""
        drawn = self.inputs(torch.Generator().manual_seed(1000 + self.seed), self.points)
        return list((drawn.double() if drawn.is_floating_point() else drawn).split(500))

    def network(self, model: nn.Module, cuts: Sequence[str] | str | None = None) -> Network:
        """The network with its cuts, or with others."""
        return Network(model, cuts=self.cuts if cuts is None else cuts, example=self.data()[0])


def truth(net: Network, bases, data, heads):
    """Per cut the task whose outputs each coordinate influences most: sum over its outputs of E[J_oi^2] Lambda_i."""
    columns = {
        p: torch.from_numpy(basis.from_basis * np.sqrt(basis.importance.clip(min=0)))
        for p, basis in enumerate(bases.values())
    }
    found = output_moments(net, data, columns, {p: [slice(0, c.shape[1])] for p, c in columns.items()})
    starts = np.cumsum([0, *heads])[:-1]
    squares = [np.einsum("oii->oi", found[p].per_output[0].numpy()) for p in columns]
    return [np.add.reduceat(square, starts, axis=0).argmax(axis=0) for square in squares]


def _train(case: Case, model: nn.Module, generator: torch.Generator) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=case.learning_rate, weight_decay=case.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, case.steps, eta_min=case.learning_rate / 30)
    loss_of = case.loss
    assert loss_of is not None
    for _ in range(case.steps):
        inputs = case.inputs(generator, case.batch)
        loss = loss_of(inputs, model(inputs))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


# Models.


class Plain(nn.Sequential):
    """Linear maps with the activation, and dropout where asked for, after each but the last."""

    def __init__(self, widths: Sequence[int], activation: Callable[[], nn.Module] | None, dropout: float = 0.0) -> None:
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            layers.append(nn.Linear(a, b))
            if i < len(widths) - 2:
                layers += ([activation()] if activation else []) + ([nn.Dropout(dropout)] if dropout else [])
        super().__init__(*layers)


class Convolutional(nn.Sequential):
    """conv, ReLU, pool, flatten, linear, ReLU, linear; the cuts are "flatten", "relu", "out"."""

    def __init__(self, channels: int, filters: int, hidden: int, outputs: int, groups: int = 1, wide: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, 3, groups=groups)
        self.act = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(filters * 3 * ((wide - 2) // 2), hidden)
        self.relu = nn.ReLU()
        self.out = nn.Linear(hidden, outputs)


class Block(nn.Module):
    """x + W2 phi(W1 x)."""

    def __init__(self, width: int, hidden: int, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.inner, self.act, self.outer = nn.Linear(width, hidden), activation(), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.outer(self.act(self.inner(x)))
        return x + added


class Residual(nn.Module):
    """Read in, blocks, read out."""

    def __init__(
        self,
        inputs: int,
        width: int,
        hidden: int,
        depth: int,
        outputs: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
        linear_in: bool = True,
    ) -> None:
        super().__init__()
        self.read = nn.Linear(inputs, width) if linear_in else nn.Identity()
        self.blocks = nn.ModuleList(Block(width, hidden, activation) for _ in range(depth))
        self.out = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.read(x)
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.out(x)
        return y


class Attention(nn.Module):
    """Causal, several heads, plain arithmetic."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = (y.reshape(n, t, self.heads, -1).transpose(1, 2) for y in self.qkv(x).split(d, -1))
        score = q @ k.transpose(-1, -2) / math.sqrt(d / self.heads)
        score = score + torch.full((t, t), -1e9, dtype=score.dtype).triu(1)
        mixed: Tensor = self.proj((score.softmax(-1) @ v).transpose(1, 2).reshape(n, t, d))
        return mixed


class DecoderBlock(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)), as in GPT-2."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.ln2, self.inner, self.act = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU()
        self.outer = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.ln1(x))
        added: Tensor = self.outer(self.act(self.inner(self.ln2(x))))
        return x + added


class Decoder(nn.Module):
    """A language model in the shape of GPT-2, initialised as it is: 0.02, what writes the stream / sqrt(2 L).

    With `parts` several vocabularies: a token of each at every position (batch, positions, parts), their embeddings
    added; the logits one after the other.
    """

    def __init__(
        self, generator: torch.Generator, vocabularies: Sequence[int], width: int, depth: int, context: int, heads: int
    ) -> None:
        super().__init__()
        self.tokens = nn.ModuleList(nn.Embedding(v, width) for v in vocabularies)
        self.places = nn.Embedding(context, width)
        self.embed = nn.Identity()
        self.blocks = nn.ModuleList(DecoderBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, sum(vocabularies), bias=False)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                writes = name.endswith(("proj.weight", "outer.weight"))
                nn.init.normal_(parameter, 0.0, 0.02 / (math.sqrt(2 * depth) if writes else 1.0), generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens if tokens.ndim == 3 else tokens[..., None]
        x = sum(table(tokens[..., i]) for i, table in enumerate(self.tokens))
        x = self.embed(x + self.places.weight[: tokens.shape[1]])
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


class TurnedBlock(nn.Module):
    """Blocks that each read and write a part of the stream of their own, which is seen through a rotation."""

    def __init__(self, blocks: Sequence[nn.Module], turn: Tensor) -> None:
        super().__init__()
        self.parts = nn.ModuleList(blocks)
        self.register_buffer("turn", turn)

    def forward(self, x: Tensor) -> Tensor:
        parts = (x @ self.turn).chunk(len(self.parts), -1)
        y: Tensor = torch.cat([part(z) for part, z in zip(self.parts, parts, strict=True)], -1) @ self.turn.T
        return y


class TurnedDecoders(nn.Module):
    """A decoder per vocabulary, of one stream that is rotated at random: modular by construction."""

    def __init__(
        self, generator: torch.Generator, vocabularies: Sequence[int], width: int, depth: int, context: int, heads: int
    ) -> None:
        super().__init__()
        n = len(vocabularies)
        self.parts = nn.ModuleList(Decoder(generator, (v,), width, depth, context, heads) for v in vocabularies)
        turn = torch.linalg.qr(torch.randn(n * width, n * width, generator=generator))[0]
        self.register_buffer("turn", turn)
        self.embed = nn.Identity()
        self.blocks = nn.ModuleList(TurnedBlock([part.blocks[i] for part in self.parts], turn) for i in range(depth))

    def forward(self, tokens: Tensor) -> Tensor:
        places = [part.places.weight[: tokens.shape[1]] for part in self.parts]
        x = [part.tokens[0](tokens[..., i]) + places[i] for i, part in enumerate(self.parts)]
        stream = self.embed(torch.cat(x, -1) @ self.turn.T)
        for block in self.blocks:
            stream = block(stream)
        ends = (stream @ self.turn).chunk(len(self.parts), -1)
        return torch.cat([part.head(part.norm(z)) for part, z in zip(self.parts, ends, strict=True)], -1)


# Data and losses.


def _teacher(seed: int, inputs: int, outputs: int) -> Callable[[Tensor], Tensor]:
    """A fixed random function: sines of random projections, mixed."""
    draws = torch.Generator().manual_seed(seed)
    hidden = 2 * outputs + 2
    first = torch.randn(inputs, hidden, generator=draws) * 1.5 / math.sqrt(inputs)
    second = torch.randn(hidden, outputs, generator=draws) / math.sqrt(hidden)
    phase = 3 * torch.rand(hidden, generator=draws)
    return lambda x: torch.sin(x @ first + phase) @ second


def regression(inputs: Sequence[int], outputs: Sequence[int], seed: int = 0):
    """Independent regressions, each on inputs of its own: inputs and loss."""
    teachers = [_teacher(100 * seed + i, a, b) for i, (a, b) in enumerate(zip(inputs, outputs, strict=True))]

    def draw(generator: torch.Generator, n: int) -> Tensor:
        return torch.randn(n, sum(inputs), generator=generator)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        wanted = [teacher(part) for teacher, part in zip(teachers, x.split(list(inputs), 1), strict=True)]
        return (y - torch.cat(wanted, 1)).square().sum(1).mean()

    return draw, loss


def mixtures(inputs: Sequence[int], classes: Sequence[int], seed: int = 0):
    """Independent classifications: Gaussian clusters, two per class; the labels are the nearest cluster's class."""
    draws = torch.Generator().manual_seed(seed)
    centres = [1.6 * torch.randn(2 * c, d, generator=draws) for d, c in zip(inputs, classes, strict=True)]

    def draw(generator: torch.Generator, n: int) -> Tensor:
        parts = []
        for centre in centres:
            which = torch.randint(len(centre), (n,), generator=generator)
            parts.append(centre[which] + 0.7 * torch.randn(n, centre.shape[1], generator=generator))
        return torch.cat(parts, 1)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        total = y.new_zeros(())
        for part, centre, logits, c in zip(
            x.split(list(inputs), 1), centres, y.split(list(classes), 1), classes, strict=True
        ):
            total = total + nn.functional.cross_entropy(logits, torch.cdist(part, centre).argmin(1) % c)
        return total

    return draw, loss


def _digits() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    return torch.from_numpy(digits.images / 16).float(), torch.from_numpy(digits.target).long()


def pictures(layout: str, question: str = "both"):
    """Two digits, as two channels, side by side in one picture, or as a vector; both are asked for, or their sum."""
    images, digits = _digits()
    flat = images.flatten(1)

    def arrange(a: Tensor, b: Tensor) -> Tensor:
        if layout == "vector":
            return torch.cat([a.flatten(1), b.flatten(1)], 1)
        return torch.stack([a, b], 1) if layout == "channels" else torch.cat([a, b], 2)[:, None]

    def draw(generator: torch.Generator, n: int) -> Tensor:
        left, right = torch.randint(len(images), (2, n), generator=generator)
        return arrange(images[left], images[right])

    def named(picture: Tensor) -> Tensor:
        return digits[torch.cdist(picture.flatten(1).float(), flat).argmin(1)]

    def loss(x: Tensor, y: Tensor) -> Tensor:
        parts = x.chunk(2, 1) if layout != "wide" else x.chunk(2, 3)
        a, b = named(parts[0]), named(parts[1])
        if question == "sum":
            return nn.functional.cross_entropy(y, a + b)
        return nn.functional.cross_entropy(y[:, :10], a) + nn.functional.cross_entropy(y[:, 10:], b)

    return draw, loss


def addition(modulus: int):
    """Two numbers, one-hot side by side; their sum modulo `modulus` is asked for."""

    def draw(generator: torch.Generator, n: int) -> Tensor:
        a, b = torch.randint(modulus, (2, n), generator=generator)
        return torch.cat([nn.functional.one_hot(a, modulus), nn.functional.one_hot(b, modulus)], 1).float()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        a, b = x[:, :modulus].argmax(1), x[:, modulus:].argmax(1)
        return nn.functional.cross_entropy(y, (a + b) % modulus)

    return draw, loss


def normal(width: int):
    """Standard normal inputs."""
    return lambda generator, n: torch.randn(n, width, generator=generator)


def tokens(vocabularies: Sequence[int], context: int):
    """Uniform tokens."""

    def draw(generator: torch.Generator, n: int) -> Tensor:
        parts = [torch.randint(v, (n, context), generator=generator) for v in vocabularies]
        return parts[0] if len(parts) == 1 else torch.stack(parts, -1)

    return draw


def chains(vocabularies: Sequence[int], context: int, seed: int = 0, lag: int = 1):
    """Independent Markov chains, one per vocabulary; each token hangs on that `lag` before; the next are asked for."""
    draws = torch.Generator().manual_seed(seed)
    tables = [torch.softmax(3.0 * torch.randn(v, v, generator=draws), -1).cumsum(-1) for v in vocabularies]

    def draw(generator: torch.Generator, n: int) -> Tensor:
        parts = []
        for v, table in zip(vocabularies, tables, strict=True):
            words = [torch.randint(v, (n,), generator=generator) for _ in range(lag)]
            while len(words) < context:
                drawn = torch.searchsorted(table[words[-lag]], torch.rand(n, 1, generator=generator)).squeeze(1)
                words.append(drawn.clamp(max=v - 1))
            parts.append(torch.stack(words, 1))
        return parts[0] if len(parts) == 1 else torch.stack(parts, -1)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        x = x if x.ndim == 3 else x[..., None]
        total = y.new_zeros(())
        for i, logits in enumerate(y.split(list(vocabularies), -1)):
            total = total + nn.functional.cross_entropy(logits[:, lag - 1 : -1].flatten(0, 1), x[:, lag:, i].flatten())
        return total

    return draw, loss


def interleaved(vocabulary: int, context: int, seed: int = 0):
    """Two independent Markov chains that take turns; each position is asked for the next token of its own chain."""
    draw_both, _ = chains((vocabulary, vocabulary), context // 2, seed)

    def draw(generator: torch.Generator, n: int) -> Tensor:
        return (draw_both(generator, n) + torch.tensor([0, vocabulary])).flatten(1)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        first = nn.functional.cross_entropy(y[:, :-2:2, :vocabulary].flatten(0, 1), x[:, 2::2].flatten())
        second = nn.functional.cross_entropy(y[:, 1:-2:2, vocabulary:].flatten(0, 1), x[:, 3::2].flatten() - vocabulary)
        return first + second

    return draw, loss


# Modular by construction.


class Halves(nn.Module):
    """Two residual MLPs side by side; as one residual MLP they are `joined`, its stream rotated at random."""

    def __init__(self, inputs: Sequence[int], width: int, hidden: int, depth: int, outputs: Sequence[int]) -> None:
        super().__init__()
        self.inputs, self.outputs = list(inputs), list(outputs)
        self.parts = nn.ModuleList(Residual(a, width, hidden, depth, b) for a, b in zip(inputs, outputs, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(y) for part, y in zip(self.parts, x.split(self.inputs, 1), strict=True)], 1)

    def joined(self, generator: torch.Generator) -> Residual:
        """The same function as one residual MLP whose stream is rotated."""
        parts = [part for part in self.parts if isinstance(part, Residual)]
        depth, width, hidden = len(parts[0].blocks), parts[0].out.in_features, parts[0].blocks[0].inner.out_features
        n = len(parts)
        whole = Residual(sum(self.inputs), n * width, n * hidden, depth, sum(self.outputs))
        whole = whole.to(parts[0].out.weight)
        drawn = torch.randn(n * width, n * width, generator=generator)
        turn = torch.linalg.qr(drawn.to(parts[0].out.weight))[0]
        with torch.no_grad():
            for name, target in whole.named_parameters():
                pieces = [dict(part.named_parameters())[name] for part in parts]
                value = torch.block_diag(*pieces) if target.ndim == 2 else torch.cat(pieces)
                if name.startswith("read.") or ".outer." in name:
                    value = turn @ value
                elif name == "out.weight" or name.endswith("inner.weight"):
                    value = value @ turn.T
                target.copy_(value)
        return whole


# The list.


def _plain(tasks, inputs: Sequence[int], outputs: Sequence[int], hidden: Sequence[int], activation, **options) -> Case:
    draw, loss = tasks
    widths = [sum(inputs), *hidden, sum(outputs)]
    dropout = options.pop("dropout", 0.0)
    step = 1 + (activation is not None) + (dropout > 0)
    cuts = ("0:in", *(str(step * i + (activation is not None)) for i in range(len(hidden))), str(step * len(hidden)))
    options.setdefault("cuts", cuts)
    return Case("mlp", lambda g: Plain(widths, activation, dropout), draw, heads=tuple(outputs), loss=loss, **options)


def _stream(depth: int) -> tuple[str, ...]:
    return ("read", *(f"blocks.{i}" for i in range(depth)))


def _residual(group: str, draw, loss, heads, inputs: int, width: int, hidden: int, depth: int, **options) -> Case:
    outputs = options.pop("outputs", sum(heads))
    activation = options.pop("activation", nn.ReLU)
    stream = _stream(depth)
    options.setdefault("build", lambda g: Residual(inputs, width, hidden, depth, outputs, activation))
    return Case(
        group, inputs=draw, cuts=("read:in", *stream, "out"), heads=tuple(heads), loss=loss, stream=stream, **options
    )


def _halves(tasks, inputs: Sequence[int], outputs: Sequence[int], width: int, hidden: int, depth: int, **options):
    draw, loss = tasks
    return _residual(
        "modular",
        draw,
        loss,
        outputs,
        sum(inputs),
        0,
        0,
        depth,
        build=lambda g: Halves(inputs, width, hidden, depth, outputs),
        finish=lambda m, g: m.joined(g),
        **options,
    )


def _decoder(group: str, vocabularies: Sequence[int], width: int, depth: int, context: int, n_heads: int, **options):
    stream = ("embed", *(f"blocks.{i}" for i in range(depth)))
    options.setdefault("inputs", tokens(vocabularies, context))
    options.setdefault("points", 64)
    options.setdefault("heads", tuple(vocabularies))
    options.setdefault("build", lambda g: Decoder(g, vocabularies, width, depth, context, n_heads))
    return Case(group, options.pop("build"), cuts=stream, stream=stream, **options)


def _cases() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    two, mixed = ((8, 8), (4, 4)), ((6, 10), (5, 4))
    # Independent tasks in one MLP.
    cases["mlp/regressions tanh"] = _plain(regression(*two, 1), *two, (32, 32), nn.Tanh)
    cases["mlp/regressions gelu"] = _plain(regression(*two, 2), *two, (32, 32, 32), nn.GELU)
    cases["mlp/mixtures relu"] = _plain(mixtures(*mixed, 3), *mixed, (32, 32), nn.ReLU, weight_decay=1.0)
    cases["mlp/mixtures tanh"] = _plain(mixtures(*mixed, 4), *mixed, (32, 32), nn.Tanh, weight_decay=1.0)
    three = ((4, 8, 12), (2, 4, 6))
    cases["mlp/three unequal"] = _plain(regression(*three, 5), *three, (48, 48), nn.ReLU)
    four = ((5, 5, 5, 5), (3, 3, 3, 3))
    cases["mlp/four"] = _plain(regression(*four, 6), *four, (48, 48), nn.GELU, steps=1500)
    cases["mlp/four mixtures"] = _plain(mixtures((5,) * 4, (3,) * 4, 7), *four, (48, 48), nn.ReLU, weight_decay=1.0)
    cases["mlp/dropout regressions"] = _plain(
        regression(*two, 8), *two, (48, 48), nn.ReLU, dropout=0.1, weight_decay=0.1, steps=1200
    )
    cases["mlp/dropout mixtures"] = _plain(mixtures(*mixed, 9), *mixed, (48, 48), nn.ReLU, dropout=0.2)
    for name in ("regressions tanh", "mixtures relu", "three unequal", "dropout mixtures", "dropout regressions"):
        cases[f"mlp/{name}, auto"] = replace(cases[f"mlp/{name}"], cuts="auto")

    # Two digits, one convolutional network.
    cuts = ("flatten", "relu", "out")
    for layout, channels, filters, groups, wide in (
        ("channels", 2, 12, 1, 8), ("channels", 2, 12, 2, 8), ("wide", 1, 6, 1, 16)
    ):  # fmt: skip
        draw, loss = pictures(layout)
        name = f"cnn/{layout}{', grouped' if groups > 1 else ''}"
        cases[name] = Case(
            "cnn",
            lambda g, a=(channels, filters, 48, 20, groups, wide): Convolutional(*a),
            draw, cuts, (10, 10), loss, weight_decay=1.0, steps=700,
        )  # fmt: skip
        cases[f"{name}, auto"] = replace(cases[name], cuts="auto")

    # Residual networks of independent tasks.
    language = {"steps": 600, "weight_decay": 0.3, "batch": 64}
    for seed, depth in enumerate((2, 3, 4)):
        tasks = regression(*two, 20 + seed)
        cases[f"modular/rotated regressions {depth} blocks"] = _halves(tasks, *two, 12, 24, depth, seed=seed)
        cases[f"modular/trained regressions {depth} blocks"] = _residual(
            "modular", *tasks, two[1], 16, 24, 48, depth, seed=seed, weight_decay=0.3, steps=1500
        )
        tasks = mixtures(*mixed, 30 + seed)
        cases[f"modular/rotated mixtures {depth} blocks"] = _halves(tasks, *mixed, 12, 24, depth, seed=seed)
        cases[f"modular/trained mixtures {depth} blocks"] = _residual(
            "modular", *tasks, mixed[1], 16, 24, 48, depth, seed=seed, weight_decay=1.0, steps=1500
        )
    cases["modular/rotated untrained"] = replace(cases["modular/rotated regressions 3 blocks"], loss=None, seed=7)
    draw, loss = pictures("vector")
    cases["modular/trained digits"] = _residual(
        "modular", draw, loss, (10, 10), 128, 32, 64, 2, weight_decay=1.0, steps=1000
    )
    cases["modular/three regressions"] = _residual(
        "modular", *regression(*three, 40), three[1], 24, 36, 72, 2, weight_decay=0.3, steps=1500
    )

    for seed in range(2):
        draw, loss = chains((12, 12), 6, 80 + seed, lag=1 + seed)
        build = lambda g: TurnedDecoders(g, (12, 12), 16, 2, 6, 4)  # noqa: E731
        cases[f"modular/rotated decoders {seed}"] = _decoder(
            "modular", (12, 12), 32, 2, 6, 4, inputs=draw, loss=loss, points=48, seed=seed, build=build, **language
        )

    # Decoders trained freely on two tasks: their nodes serve both, so that no division is right.
    for seed in range(3):
        draw, loss = chains((12, 12), 6, 60 + seed, lag=1 + seed % 2)
        cases[f"shared/decoder of two chains {seed}"] = _decoder(
            "shared", (12, 12), 32, 2, 6, 4, inputs=draw, loss=loss, points=48, seed=seed, **language
        )
    draw, loss = interleaved(12, 10, 63)
    cases["shared/decoder of chains in turn"] = _decoder(
        "shared", (24,), 32, 2, 10, 4, inputs=draw, loss=loss, points=32, heads=(12, 12), **language
    )

    # Residual networks of one task, and an MLP.
    draw, loss = pictures("vector", "sum")
    cases["joint/sum of digits"] = _residual("joint", draw, loss, (19,), 128, 32, 64, 2, weight_decay=1.0, steps=1000)
    for seed, modulus in enumerate((11, 13)):
        draw, loss = addition(modulus)
        cases[f"joint/addition {modulus}"] = _residual(
            "joint", draw, loss, (modulus,), 2 * modulus, 32, 64, 2, seed=seed, weight_decay=0.3, steps=1000
        )
    cases["joint/regression"] = _residual("joint", *regression((12,), (8,), 50), (8,), 12, 24, 48, 3, steps=1000)
    cases["joint/mixture"] = _residual("joint", *mixtures((12,), (8,), 51), (8,), 12, 24, 48, 3, steps=1000)
    cases["joint/regression, MLP"] = replace(
        _plain(regression((12,), (8,), 52), (12,), (8,), (32, 32), nn.GELU), group="joint"
    )
    cases["joint/mixture, MLP"] = replace(
        _plain(mixtures((12,), (8,), 53), (12,), (8,), (32, 32), nn.ReLU), group="joint"
    )

    draw, loss = chains((64,), 8, 70, lag=2)
    cases["joint/decoder"] = _decoder("joint", (64,), 64, 2, 8, 4, inputs=draw, loss=loss, points=24, **language)
    cases["joint/decoder, auto"] = replace(cases["joint/decoder"], cuts="auto")

    # As they are initialised.
    for seed in range(15):
        vocabulary, width, depth, context = (50, 56, 64)[seed % 3], (32, 40, 48)[seed // 5], 2 + seed % 3, 4
        cases[f"untrained/decoder {seed}"] = _decoder(
            "untrained", (vocabulary,), width, depth, context, 4, seed=seed, points=32
        )
    for seed in (0, 6, 12):
        cases[f"untrained/decoder {seed}, auto"] = replace(cases[f"untrained/decoder {seed}"], cuts="auto")
    for seed in range(6):
        depth, activation = 2 + seed % 3, (nn.ReLU, nn.GELU)[seed % 2]
        cases[f"untrained/residual MLP {seed}"] = _residual(
            "untrained", normal(16), None, (10,), 16, 32, 64, depth, activation=activation, seed=seed
        )
        cases[f"untrained/residual MLP {seed}, auto"] = replace(cases[f"untrained/residual MLP {seed}"], cuts="auto")
    for seed in range(4):
        activation = (nn.ReLU, nn.Tanh, nn.GELU, nn.ReLU)[seed]
        cases[f"untrained/MLP {seed}"] = replace(
            _plain((normal(16), None), (16,), (10,), (32,) * (2 + seed % 2), activation, seed=seed), group="untrained"
        )
        cases[f"untrained/linear {seed}"] = replace(
            _plain((normal(12), None), (12,), (8,), (16,) * (2 + seed % 2), None, seed=seed), group="untrained"
        )
    return cases


CASES = _cases()
