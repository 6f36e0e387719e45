"""Symmetries of transformers: changes of several layers together that no output sees, proposed and then tested.

    values             V_h -> (1 + A) V_h, O_h -> O_h (1 - A), A any matrix, per group of heads that share values; with
                       biases also V_h + c, which the bias of O subtracts again
    queries and keys   Q_h -> (1 + A) Q_h, K_h -> (1 - A^T) K_h; with rotary embeddings only the A that commute with
                       all rotations, a scaling and a rotation of each pair of units that turn together
    keys               one vector for all keys of a head, which no softmax sees
    normalisation      scale and shift of a normalised feature, which the layers that read it undo
    gated units        a unit of one layer larger, and the weights that read it smaller (SwiGLU)
    same sum           what two layers that write into one sum exchange (tokens and positions)
    residual stream    rotations of the stream, which the normalisations keep: for LayerNorm those that keep (1, ..., 1)

A proposal costs nothing and claims nothing. For a random cotangent u on all data, a change m of the parameters counts
only if u^T J m = 0 to rounding: the derivative of all outputs along m vanishes with probability one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..huggingface.attention import attention_layouts
from ..linalg import RowSpace
from ..network.batches import Batch
from ..network.network import Network
from ..results import by_value
from .layer_trace import jacobian_blocks, trace_layers
from .layers import Layer, layer_weight, shared_rows

__all__ = ["Symmetry", "symmetries"]

_ZERO = 1e-11  # share of the sizes of all its terms up to which a derivative along a move is rounding


@by_value
@dataclass(frozen=True)
class Symmetry:
    """Moves of one kind: each changes the weights of several layers by sums of left right^T.

    Attributes:
        kind: see the head of this module.
        layer: name of the layer under which they are counted.
        units: the units or heads concerned.
        count: number of moves.
        terms: per term the index of the layer, the moves it belongs to (m,), left (d_out, m) and right (n_inputs, m).
    """

    kind: str
    layer: str
    units: tuple[int, ...]
    count: int
    terms: tuple[tuple[int, Int[Tensor, " _"], Float[Tensor, "_ _"], Float[Tensor, "_ _"]], ...]

    def only(self, wanted: Tensor) -> Symmetry:
        """Return the moves that are wanted, a boolean for each."""
        place = wanted.cumsum(0) - 1
        terms = []
        for layer, columns, left, right in self.terms:
            kept = wanted[columns]
            if kept.any():
                terms.append((layer, place[columns[kept]], left[:, kept], right[:, kept]))
        return Symmetry(self.kind, self.layer, self.units, int(wanted.sum()), tuple(terms))


@dataclass
class _Moves:
    """Terms of moves as they are collected: per layer columns, left and right vectors."""

    count: int = 0
    terms: dict[int, list[tuple[int, Tensor, Tensor]]] = field(default_factory=lambda: defaultdict(list))

    def move(self, *parts: tuple[int, Tensor, Tensor]) -> None:
        """Add a move of several layers, each by left right^T."""
        for layer, left, right in parts:
            self.terms[layer].append((self.count, left, right))
        self.count += 1

    def symmetry(self, kind: str, layer: str, units: Sequence[int]) -> Symmetry:
        terms = []
        for i, found in self.terms.items():
            columns, lefts, rights = zip(*found, strict=True)
            terms.append((i, torch.tensor(columns, device="cpu"), torch.stack(lefts, 1), torch.stack(rights, 1)))
        return Symmetry(kind, layer, tuple(units), self.count, tuple(terms))


@dataclass(frozen=True)
class _Group:
    """Heads that share keys and values: their units as rows of the layers q, k, v and columns of o."""

    q: tuple[int, tuple[range, ...]]
    k: tuple[int, range]
    v: tuple[int, range]
    o: tuple[int, tuple[range, ...]]
    heads: tuple[int, ...]


def symmetries(
    network: Network, layers: Sequence[Layer], batches: Iterable[Batch], stream: bool = True
) -> list[Symmetry]:
    """Propose the symmetries of a network's layers, and return the moves that change no output on the data.

    Args:
        network: the network, in float64.
        layers: its layers, checked against autograd.
        batches: the data, re-iterable.
        stream: whether to propose rotations of the residual stream.
    """
    if not layers:
        return []
    seen = _Structure(network, layers, batches)
    found = [seen.tested(proposal) for proposal in seen.proposals(stream)]
    return [symmetry for symmetry in found if symmetry.count]


class _Structure:
    """What moves are proposed from, and the gradients of random sums of all outputs, with which they are tested."""

    def __init__(self, network: Network, layers: Sequence[Layer], batches: Iterable[Batch]) -> None:
        self.network, self.layers, self.batches = network, layers, batches
        self.weights = [layer_weight(network, layer) for layer in layers]
        self.index = {layer.name: i for i, layer in enumerate(layers) if not layer.group}
        self.gradients = [torch.zeros(2, *weight.shape, dtype=torch.float64, device="cpu") for weight in self.weights]
        self.sizes = [torch.zeros_like(gradient) for gradient in self.gradients]
        self.same: dict[int, int] = {}
        self.readers: dict[str, list[int]] = {}
        draws = torch.Generator().manual_seed(0)
        for number, batch in enumerate(batches):
            trace = trace_layers(network, layers, batch)
            u = torch.randn(2, *trace.output.shape, generator=draws, dtype=torch.float64, device="cpu").to(trace.output)
            if network.loss == "kl":  # what a softmax sees
                p = trace.output.detach().softmax(-1)
                u = p.sqrt() * u - p * (p.sqrt() * u).sum(-1, keepdim=True)
            (rows,) = jacobian_blocks(network, layers, trace, iter([u]))
            for total, size, f, j in zip(self.gradients, self.sizes, trace.inputs, rows, strict=True):
                total += torch.einsum("vnto,nti->voi", j, f)
                size += torch.einsum("vnto,nti->voi", j.abs(), f.abs())
            if not number:
                self._look(trace.inputs, trace.outputs, rows)
        self.gradients, self.sizes = (shared_rows(layers, parts) for parts in (self.gradients, self.sizes))

    def _look(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], rows: Sequence[Tensor]) -> None:
        """Note which layers write into one sum (equal Jacobians), and which read what a normalisation writes."""
        for i, j in combinations(range(len(self.layers)), 2):
            alike = self.layers[i].groups == 1 and rows[i].shape == rows[j].shape and bool(rows[i].any())
            if alike and float((rows[i] - rows[j]).abs().max()) <= 1e-12 * float(rows[i].abs().max()):
                self.same.setdefault(j, self.same.get(i, i))
        for norm in self.norms():
            i = self.index[norm]
            written = outputs[i].detach().cpu().reshape(len(outputs[i]), -1, outputs[i].shape[-1])
            after = range(i + self.layers[i].groups, len(self.layers))
            self.readers[norm] = [r for r in after if self._reads(r, inputs[r], written)]

    def _reads(self, reader: int, inputs: Tensor, written: Tensor) -> bool:
        layer = self.layers[reader]
        own = inputs[..., : layer.d_in]
        return layer.groups == 1 and own.shape == written.shape and torch.equal(own, written.to(own))

    def norms(self) -> list[str]:
        """Return the names of the normalisations: layers of one input per unit."""
        return [
            layer.name
            for layer in self.layers
            if layer.groups > 1 and layer.d_in == layer.d_out == 1 and not layer.group
        ]

    def tested(self, proposal: Symmetry) -> Symmetry:
        """Return the moves along which the derivatives of two random sums of outputs vanish."""
        total, size = torch.zeros(2, 2, proposal.count, dtype=torch.float64, device="cpu")
        for i, columns, left, right in proposal.terms:
            gradient, most = self.gradients[i], self.sizes[i]
            if self.layers[i].shares:  # a second use: the gradient of the matrix, transposed
                owner, width = self.index[self.layers[i].shares], self.layers[i].d_out
                gradient, most = (part[owner][..., :width].mT for part in (self.gradients, self.sizes))
            total.index_add_(1, columns, ((gradient @ right) * left).sum(1))
            size.index_add_(1, columns, ((most @ right.abs()) * left.abs()).sum(1))
        return proposal.only((total.abs() <= _ZERO * size).all(0))

    def proposals(self, stream: bool) -> Iterator[Symmetry]:
        """Propose moves of all kinds."""
        for group in self.heads():
            name = self.layers[group.v[0]].name
            yield self.values(group).symmetry("values", name, group.heads)
            yield self.queries(group).symmetry("queries and keys", self.layers[group.q[0]].name, group.heads)
            if self.layers[group.k[0]].bias:
                moves = _Moves()
                for unit in group.k[1]:
                    moves.move((group.k[0], self.unit(group.k[0], unit), self.constant(group.k[0])))
                yield moves.symmetry("keys", self.layers[group.k[0]].name, group.heads)
        for norm in self.norms():
            yield self.scales(norm).symmetry("normalisation", norm, range(self.layers[self.index[norm]].groups))
        yield from self.gated_units()
        yield from self.sums()
        if stream and self.norms():
            yield from self.rotations()

    def unit(self, layer: int, unit: int) -> Float[Tensor, " d_out"]:
        """Return the unit vector of an output of a layer."""
        return _unit(self.layers[layer].d_out, unit)

    def fed(self, layer: int, place: int) -> Float[Tensor, " n_inputs"]:
        """Return the unit vector of an input of a layer."""
        return _unit(self.layers[layer].n_inputs, place)

    def constant(self, layer: int) -> Float[Tensor, " n_inputs"]:
        """Return the vector of the constant unit of a layer with a bias."""
        return self.fed(layer, self.layers[layer].d_in)

    def values(self, group: _Group) -> _Moves:
        """Propose V_h -> (1 + A) V_h, O_h -> O_h (1 - A), and constants where both have biases."""
        (v, rows), (o, sides), moves = group.v, group.o, _Moves()
        for i in range(len(rows)):
            for j in range(len(rows)):
                undo = [(o, -self.weights[o][:, side[i]], self.fed(o, side[j])) for side in sides]
                moves.move((v, self.unit(v, rows[i]), self.weights[v][rows[j]]), *undo)
            if self.layers[v].bias and self.layers[o].bias:
                undo = [(o, -self.weights[o][:, side[i]], self.constant(o)) for side in sides]
                moves.move((v, self.unit(v, rows[i]), self.constant(v)), *undo)
        return moves

    def queries(self, group: _Group) -> _Moves:
        """Propose Q_h -> (1 + A) Q_h, K_h -> (1 - A^T) K_h for all A, and for those that commute with rotations."""
        (q, heads), (k, rows), moves = group.q, group.k, _Moves()

        def of(entries: Sequence[tuple[int, int, float]]) -> None:
            """Add the move of A with the given entries."""
            parts = []
            for i, j, a in entries:
                parts += [(q, a * self.unit(q, head[i]), self.weights[q][head[j]]) for head in heads]
                parts.append((k, -a * self.unit(k, rows[j]), self.weights[k][rows[i]]))
            moves.move(*parts)

        size = len(rows)
        for i in range(size):
            for j in range(size):
                of([(i, j, 1.0)])
        for i, j in {pair for turned in range(2, size + 1, 2) for pair in _turned_together(turned)}:
            of([(i, i, 1.0), (j, j, 1.0)])
            of([(i, j, 1.0), (j, i, -1.0)])
        return moves

    def scales(self, norm: str) -> _Moves:
        """Propose larger scales and other shifts of each feature, undone by its readers, and by a bias behind them."""
        first, readers, moves = self.index[norm], self.readers[norm], _Moves()
        biased = [r for r in readers if self.layers[r].bias]
        own = self.layers[first]
        behind = [
            i
            for i in range(first + own.groups, len(self.layers))
            if self.layers[i].bias and self.layers[i].groups == 1 and self.layers[i].d_out == own.groups
        ][:4]
        for i in range(own.groups):
            row = self.weights[first + i][0].clone()
            row[0] += own.offset
            undo = [(r, -self.weights[r][:, i], self.fed(r, i)) for r in readers]
            moves.move((first + i, torch.ones(1, dtype=torch.float64, device="cpu"), row), *undo)
            if own.bias:
                shift = (first + i, torch.ones(1, dtype=torch.float64, device="cpu"), self.constant(first + i))
                undo = [(r, -self.weights[r][:, i], self.constant(r)) for r in biased]
                moves.move(shift, *undo)
                mean_free = self._mean_free(first)
                if mean_free is not None:  # n sums to 0, so that a weight along 1 / g sees the constant 1 . (b / g)
                    undo = [
                        (r, -self.weights[r][:, i], torch.nn.functional.pad(mean_free, (0, int(self.layers[r].bias))))
                        for r in readers
                    ]
                    moves.move(shift, *undo)
                for late in behind:
                    moves.move(shift, *undo, (late, -self.unit(late, i), self.constant(late)))
        return moves

    def _mean_free(self, first: int) -> Tensor | None:
        """Return the weights with which a reader of a LayerNorm reads a constant 1: (1 / g) / (1 . (b / g))."""
        rows = torch.cat(self.weights[first : first + self.layers[first].groups])
        constant = float((rows[:, 1] / rows[:, 0]).sum()) if bool((rows[:, 0] != 0).all()) else 0.0
        return 1 / rows[:, 0] / constant if constant else None

    def gated_units(self) -> Iterator[Symmetry]:
        """Propose a unit larger and its readers smaller, for layers as wide as a later one reads."""
        for a, b in combinations(range(len(self.layers)), 2):
            one, other = self.layers[a], self.layers[b]
            if one.groups > 1 or other.groups > 1 or one.tokens or other.d_in not in (one.d_out, one.d_out / 2):
                continue
            if b - a > 3 or one.d_out == one.d_in:
                continue
            moves, start = _Moves(), one.d_out - other.d_in
            for i in range(other.d_in):
                up = (a, self.unit(a, start + i), self.weights[a][start + i])
                moves.move(up, (b, -self.weights[b][:, i], self.fed(b, i)))
            yield moves.symmetry("gated units", one.name, range(start, one.d_out))

    def sums(self) -> Iterator[Symmetry]:
        """Propose what layers that write into one sum exchange: v_a f_a + v_b f_b = 0 on the data, for every unit."""
        groups: dict[int, list[int]] = {}
        for late, early in self.same.items():
            groups.setdefault(early, [early]).append(late)
        for members in groups.values():
            sizes = [self.layers[i].n_inputs for i in members]
            space = RowSpace(sum(sizes))
            for batch in self.batches:
                trace = trace_layers(self.network, self.layers, batch, grad=False)
                space.add(torch.cat([trace.inputs[i] for i in members], -1).flatten(0, 1))
            moves, factor = _Moves(), space.factor()
            _, values, whole = torch.linalg.svd(factor, full_matrices=True)
            rank = int((values > 1e-10 * values[0]).sum())
            null, parts = whole[rank:].T, []
            for block, part in zip(factor.split(sizes, 1), null.split(sizes), strict=True):
                parts.append(block @ part)  # what each writes; where all are zero nothing is exchanged
            _, strong, turn = torch.linalg.svd(torch.cat(parts), full_matrices=False)
            if not len(strong):
                continue
            vectors = null @ turn[strong > 1e-8 * values[0]].T
            for vector in vectors.T:
                for unit in range(self.layers[members[0]].d_out):
                    own = zip(members, vector.split(sizes), strict=True)
                    moves.move(*((i, self.unit(i, unit), part) for i, part in own))
            yield moves.symmetry("same sum", self.layers[members[0]].name, members)

    def rotations(self) -> Iterator[Symmetry]:
        """Propose x -> x + A x of the stream, A antisymmetric: writers A W, readers of norms -W g A / g."""
        norms = {name: self.index[name] for name in self.norms()}
        width = self.layers[next(iter(norms.values()))].groups
        norms = {name: first for name, first in norms.items() if self.layers[first].groups == width}
        readers = {r for name in norms for r in self.readers[name]}
        writers = [
            i for i, layer in enumerate(self.layers) if layer.groups == 1 and layer.d_out == width and i not in readers
        ]
        owners = {self.index[self.layers[i].shares] for i in writers if self.layers[i].shares}
        for centred in (False, True):
            basis = torch.eye(width, dtype=torch.float64, device="cpu")
            if centred:
                ones = torch.ones(width, 1, dtype=torch.float64, device="cpu")
                basis = torch.linalg.svd(ones, full_matrices=True)[0][:, 1:]
            moves = _Moves()
            for u, v in combinations(basis.T, 2):
                parts: list[tuple[int, Tensor, Tensor]] = []
                for i in writers:
                    parts += [(i, u, self.weights[i].T @ v), (i, -v, self.weights[i].T @ u)]
                for name, first in norms.items():
                    parts += self._turned(name, first, width, (u, v), owners)
                moves.move(*parts)
            yield moves.symmetry("residual stream", self.layers[writers[0]].name if writers else "", range(width))

    def _turned(
        self, norm: str, first: int, width: int, pair: tuple[Tensor, Tensor], owners: set[int]
    ) -> list[tuple[int, Tensor, Tensor]]:
        """Return what a norm and its readers change: W -> W (1 - g A / g), and the shift b -> b + g A (b / g)."""
        layer, (u, v) = self.layers[first], pair
        rows = torch.cat(self.weights[first : first + width])
        gain = rows[:, 0] + layer.offset
        safe = torch.where(gain == 0, 1.0, gain)
        parts: list[tuple[int, Tensor, Tensor]] = []
        for r in self.readers[norm]:
            if r in owners:
                continue
            weight, own = self.weights[r][:, :width], self.layers[r]
            down = [torch.cat([side / safe, side.new_zeros(own.n_inputs - width)]) for side in (v, u)]
            parts += [(r, -weight @ (gain * u), down[0]), (r, weight @ (gain * v), down[1])]
        if layer.bias:
            moved = rows[:, 1] / safe
            shift = gain * (u * (v @ moved) - v * (u @ moved))
            one = torch.ones(1, dtype=torch.float64, device="cpu")
            parts += [(first + i, one, torch.stack([shift.new_zeros(()), shift[i]])) for i in range(width)]
        return parts

    def heads(self) -> Iterator[_Group]:
        """Find attention by the names of its layers; each layout that fused layers may have is proposed."""
        plain = [layer for layer in self.layers if layer.groups == 1 and not layer.heads]
        sizes = {layer.name: (layer.d_in, layer.d_out) for layer in plain}
        for found in attention_layouts(self.network.model, sizes):
            q, k, v, o = (self.index[name] for name in (found.q, found.k, found.v, found.o))
            for group in found.groups:
                yield _Group((q, group.q), (k, group.k), (v, group.v), (o, group.o), group.heads)


def _unit(size: int, place: int) -> Float[Tensor, " size"]:
    vector = torch.zeros(size, dtype=torch.float64, device="cpu")
    vector[place] = 1
    return vector


def _turned_together(size: int) -> list[tuple[int, int]]:
    """Return the pairs of units that rotary embeddings of the first `size` units may turn: halves, or neighbours."""
    half = size // 2
    return [(i, i + half) for i in range(half)] + [(2 * i, 2 * i + 1) for i in range(half)]
