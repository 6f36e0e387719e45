"""Counts behind the ledger: what passes over the data record of every layer, and the ranks computed from it.

Ranks are those of triangular factors (see `linalg.RowSpace`): of a layer's inputs, at the data points and positions
from which its output reaches the network's output, and of the Jacobian with respect to the layer's outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import qr
from torch import Tensor

from ..linalg import RowSpace, column_rank
from ..network.batches import Batch, read_batches
from ..network.network import Network
from ..progress import ProgressCallback
from ..results import by_value
from .activation_links import Activation, activations_between
from .free_directions import Moves, Part, independent
from .gradients import check_layers
from .hessian_rank import Fit, gradient_rows, kronecker_fit
from .layer_trace import LayerTrace, arranged, jacobian_blocks, trace_layers
from .layers import AttentionHeads, Layer, attention_heads, find_layers, layer_weight
from .synchronised_units import FiringPatterns, HeadPatterns, SynchronisedUnits

__all__ = ["Block", "Census", "LayerLedger"]

_EXACT_WORK = 10**12  # floating point operations of the exact rank, about a minute on two cores

_EXACT_ENTRIES = 2 * 10**8  # entries of the matrix for the exact rank, 1.6 GB

_MOVES = 4000  # free directions whose independence is tested; with more, s_a t_a are not tested


@dataclass(frozen=True)
class Block:
    """A block of parameters that can be changed together without any effect: s_a t_a free directions.

    Attributes:
        kind: "synchronised", "always on", "complementary", "dead" (units); "values", "queries and keys",
            "keys" (heads of an attention block); "residual stream".
        layer: name of the layer that writes the units.
        units: their indices, or those of the heads.
        s: dimension of their values on the data.
        t: dimension of these values that affects the output.
    """

    kind: str
    layer: str
    units: tuple[int, ...]
    s: int
    t: int

    @property
    def free(self) -> int:
        """The number of free directions, s_a t_a."""
        return self.s * self.t


@by_value
@dataclass(frozen=True)
class LayerLedger:
    """The part of the ledger that belongs to one layer.

    Attributes:
        name: name of the layer.
        n_inputs, n_outputs: number of inputs with the constant unit, and of outputs.
        gram_rank, jacobian_rank: ranks of G and K.
        activations, jacobians, gating, synchronised: free directions by cause (see `ledger`).
        tied: of `activations`, those of tokens and positions that only occur together.
        dead: number of units that are zero on all data.
        blocks: blocks of the units that this layer writes.
        hessian_rank: rank of the layer's own block of the Hessian; None where it is not computed.
        soft_gram_rank, soft_jacobian_rank: sum of g / (g + epsilon) over the eigenvalues; None without an epsilon.
        kronecker: how well G (x) K approximates the layer's block of the Hessian.
        gram_spectrum, jacobian_spectrum: eigenvalues of G and K, descending.
    """

    name: str
    n_inputs: int
    n_outputs: int
    gram_rank: int
    jacobian_rank: int
    activations: int
    jacobians: int
    gating: int
    synchronised: int
    tied: int
    dead: int
    blocks: tuple[Block, ...]
    hessian_rank: int | None
    soft_gram_rank: float | None
    soft_jacobian_rank: float | None
    kronecker: Fit
    gram_spectrum: Float[np.ndarray, " n_inputs"] = field(repr=False)
    jacobian_spectrum: Float[np.ndarray, " n_outputs"] = field(repr=False)

    @property
    def nominal(self) -> int:
        """The number of parameters."""
        return self.n_inputs * self.n_outputs

    @property
    def kept(self) -> int:
        """The layer's parameters that remain before synchronised units are subtracted."""
        return self.nominal - self.activations - self.jacobians - self.gating


class _LayerSums:
    """The triangular factors of one layer from a pass over the data."""

    def __init__(self, layer: Layer) -> None:
        self.inputs = RowSpace(layer.n_inputs)
        self.jacobians = RowSpace(layer.d_out)


class Census:
    """The layers of a network with all counts made of them."""

    def __init__(
        self, network: Network, layers: tuple[Layer, ...], links: tuple[Activation, ...], n: int, rows: int
    ) -> None:
        self.network, self.layers, self.links, self.n, self.rows = network, layers, links, n, rows
        self.epsilon: float | None = None
        self.tolerance = 0.0
        self.heads = attention_heads(network, layers)
        self.sums = [_LayerSums(layer) for layer in layers]
        self.gradients = RowSpace(sum(layer.nominal for layer in layers))
        self.patterns = {link: FiringPatterns(layers[link.source].d_out, link.slope) for link in links}
        self.head_patterns = {heads: HeadPatterns(heads) for heads in self.heads}
        self.units: dict[Activation, SynchronisedUnits] = {}
        self.moves: dict[Activation, Moves] = {}
        self.gated: set[int] = set()
        self.tested = True
        self._where_on: dict[tuple[int, int], RowSpace] = {}

    @classmethod
    def take(cls, network: Network, batches: Iterable[Batch], epsilon: float | None, tolerance: float) -> Census:
        """Find the layers, check them against autograd, and count the data.

        Raises:
            LayerError: the layers do not explain autograd's gradients of the parameters (see `gradients`).
        """
        n = rows = 0
        layers: tuple[Layer, ...] = ()
        for batch in read_batches(batches, "layers", None):
            layers = layers or find_layers(network, batch)
            check_layers(network, layers, batch)
            output = network.output(batch)
            free = output.shape[-1] - (network.loss == "kl")  # a softmax does not depend on the mean of its logits
            n, rows = n + len(output), rows + output[..., 0].numel() * free
        census = cls(network, layers, activations_between(network, layers, batches), n, rows)
        census.epsilon, census.tolerance = epsilon, tolerance
        return census

    @property
    def nominal(self) -> int:
        """The number of parameters."""
        return sum(layer.nominal for layer in self.layers)

    def choose(self, method: str) -> tuple[str, str | None]:
        """Choose the method for the rank of the Hessian, and return it with a warning or None."""
        least = min(self.nominal, self.rows)
        fits = 2.5 * self.rows * self.nominal * least <= _EXACT_WORK and least * self.nominal <= _EXACT_ENTRIES
        notes = []
        if self.rows < self.nominal:
            notes.append(
                f"{self.n} data points give {self.rows:,} gradients, fewer than the {self.nominal:,} parameters: the "
                "data themselves limit the rank"
            )
        if method == "auto":
            method = "exact" if fits else "estimate"
            if not fits:
                how = "bounded from below by a sample" if self.epsilon is None else "estimated by Lanczos quadrature"
                notes.append(
                    f"{self.nominal:,} parameters and {self.rows:,} gradients are too many for the exact rank: {how}"
                )
        return method, "; ".join(notes) or None

    def measure(self, batches: Iterable[Batch], *, exact: bool, progress: ProgressCallback | None) -> None:
        """Pass over the data once and record spans of activations and Jacobians, firing patterns, and gradients."""
        for batch in read_batches(batches, "activations and Jacobians", progress):
            trace = trace_layers(self.network, self.layers, batch)
            felt = [torch.zeros(f.shape[:2], dtype=torch.bool) for f in trace.inputs]
            for blocks in jacobian_blocks(self.network, self.layers, trace):
                for sums, seen, block in zip(self.sums, felt, blocks, strict=True):
                    on = block.ne(0).any(-1)
                    seen |= on.any(0)
                    sums.jacobians.add(block[on])
                if exact:
                    pairs = zip(trace.inputs, blocks, strict=True)
                    self.gradients.add(torch.cat([gradient_rows(f, j) for f, j in pairs], 1))
            for sums, seen, f in zip(self.sums, felt, trace.inputs, strict=True):
                sums.inputs.add(f[seen])
            for link, patterns in self.patterns.items():
                read = torch.stack([felt[reader] for reader in link.readers]).any(0)
                patterns.add(self._preactivations(trace, link)[read])
            for heads, found in self.head_patterns.items():
                found.add(trace, self.layers[heads.v], felt[heads.o])
        for link, patterns in self.patterns.items():
            name = self.layers[link.source].name
            self.units[link] = patterns.synchronised(name, self.epsilon, self.tolerance)

    def rank(self, matrix: Float[Tensor, "m d"], count: int) -> int:
        """Compute the rank at the tolerance, or at epsilon for sums over `count` points."""
        cutoff = None if self.epsilon is None else math.sqrt(self.epsilon * count)
        return column_rank(matrix, tolerance=self.tolerance, cutoff=cutoff)

    def gram_rank(self, i: int, columns: Sequence[int] | None = None) -> int:
        """Compute the rank of G of a layer, or of some of its inputs."""
        space = self.sums[i].inputs
        factor = space.factor() if columns is None else space.factor()[:, list(columns)]
        return self.rank(factor, space.count)

    def jacobian_rank(self, i: int, columns: Sequence[int] | None = None) -> int:
        """Compute the rank of K of a layer, or of some of its outputs."""
        factor = self.sums[i].jacobians.factor()
        return self.rank(factor if columns is None else factor[:, list(columns)], self.n)

    def product(self, i: int) -> int:
        """Compute rank(G) rank(K)."""
        return self.gram_rank(i) * self.jacobian_rank(i)

    def positive(self) -> int:
        """Sum rank(G) rank(K) at the tolerance: at most so many eigenvalues of the Hessian are above zero."""
        factors = [(sums.inputs.factor(), sums.jacobians.factor()) for sums in self.sums]
        return sum(math.prod(column_rank(f, tolerance=self.tolerance) for f in pair) for pair in factors)

    def gate(self, batches: Iterable[Batch], progress: ProgressCallback | None) -> list[int]:
        """Compute per layer the parameters kept: rank(G) rank(K), or less where units are off on part of the data.

        Where gating would count free directions of synchronised units again, the better of the two is chosen, layer
        by layer. With more than 4,000 directions gating is left out, as the warning says.
        """
        kept = [self.product(i) for i in range(len(self.layers))]
        pairs = {link: self._pairs(link) for link in self.links}
        if sum(map(len, pairs.values())) > _MOVES:
            self.tested = False
            return kept
        self.moves = {link: self._moves(link, found) for link, found in pairs.items()}
        spans = self._spans_where_on(batches, progress)
        free = self._independent()
        for link in self.links:
            units = self.units[link]
            counted = sum(
                spans[link.source, a] * self.jacobian_rank(link.source, block) for a, block in enumerate(units.blocks)
            )
            if counted < kept[link.source]:
                self.gated.add(link.source)
                left = self._independent()
                if kept[link.source] - counted > free - left:
                    kept[link.source], free = counted, left
                else:
                    self.gated.remove(link.source)
        return kept

    def _pairs(self, link: Activation) -> list[tuple[int, int]]:
        """List units i, j of the same block; for a block that is always on j may be the constant unit (the last).

        There are as many i as the output distinguishes, and as many j as are independent: s_a t_a pairs span all
        changes.
        """
        width = self.layers[link.source].d_out
        reader = link.readers[0]
        inputs, jacobian = self.sums[reader].inputs.factor(), self.sums[link.source].jacobians.factor()
        pairs = []
        for block in self._unit_blocks(link):
            units = list(block.units)
            constant = [self.layers[reader].d_in] if self._writes_constant(link, block) else []
            seen = _leading(jacobian[:, units], block.t)
            fed = _leading(inputs[:, units + constant], block.s)
            names = [*units, *([width] if constant else [])]
            pairs += [(units[i], names[j]) for i in seen for j in fed]
        return pairs

    def _moves(self, link: Activation, pairs: Sequence[tuple[int, int]]) -> Moves:
        """Build the moves p_i <- p_j for all pairs."""
        width = self.layers[link.source].d_out
        left = torch.zeros(width, len(pairs), dtype=torch.float64)
        right = torch.zeros(width + 1, len(pairs), dtype=torch.float64)
        for d, (i, j) in enumerate(pairs):
            left[i, d] = right[j, d] = 1
        gain = torch.ones(width, dtype=torch.float64)
        gain[list(self.units[link].silent)] = link.slope
        return Moves(left, right, gain, torch.ones(len(pairs), dtype=torch.float64))

    def _writes_constant(self, link: Activation, block: Block) -> bool:
        biased = self.layers[link.source].bias and all(self.layers[r].bias for r in link.readers)
        return block.kind == "always on" and biased

    def _independent(self) -> int:
        """Count the free directions of synchronised units that are independent of all others counted."""
        formula = sum(block.free for link in self.links for block in self._unit_blocks(link))
        moves = list(self.moves.values())
        total = sum(m.left.shape[1] for m in moves)
        complementary = sum(int((m.undo != 1).sum()) for m in moves)
        return independent(self._parts(), total, formula + complementary, self.tolerance)

    def _parts(self) -> Iterator[Part]:
        """Yield the tensor spaces of all layers, with the moves that act there."""
        starts = dict(zip(self.moves, _starts([m.left.shape[1] for m in self.moves.values()]), strict=True))
        for i, (layer, sums) in enumerate(zip(self.layers, self.sums, strict=True)):
            weight = layer_weight(self.network, layer)
            terms: list[tuple[int, Tensor, Tensor]] = []
            for link, moves in self.moves.items():
                if link.source == i:
                    constant = torch.zeros(1, layer.n_inputs, dtype=torch.float64)
                    constant[0, -1] = float(layer.bias)
                    terms.append((starts[link], moves.left, torch.cat([weight, constant]).T @ moves.right))
                elif i in link.readers:
                    left, right = moves.behind()
                    read = right if layer.bias else right[:-1]
                    terms.append((starts[link], -weight[:, : layer.d_in] @ left, read))
            jacobian = sums.jacobians.factor()
            if i not in self.gated:
                yield Part(jacobian, sums.inputs.factor(), tuple(terms))
                continue
            (link,) = (link for link in self.links if link.source == i)
            for a, block in enumerate(self.units[link].blocks):
                units = list(block)
                own = tuple((start, left[units], right) for start, left, right in terms)
                yield Part(jacobian[:, units], self._where_on.get((i, a), sums.inputs).factor(), own)

    def _written(self, i: int) -> Float[Tensor, "r _"]:
        """Compute the factor of a layer's outputs and the constant unit."""
        layer = self.layers[i]
        constant = torch.zeros(1, layer.n_inputs, dtype=torch.float64)
        if layer.bias:
            constant[0, -1] = 1
        elif layer.tokens:  # one-hot vectors sum to one: over positions, or over tokens where there are no positions
            constant[0, layer.tokens if layer.tokens < layer.d_in else 0 :] = 1
        weight = torch.cat([layer_weight(self.network, layer), constant])
        return self.sums[i].inputs.factor() @ weight.T

    def _preactivations(self, trace: LayerTrace, link: Activation) -> Float[Tensor, "batch positions d_out"]:
        return arranged(trace.outputs[link.source].detach(), self.layers[link.source])

    def _spans_where_on(
        self, batches: Iterable[Batch], progress: ProgressCallback | None
    ) -> dict[tuple[int, int], int]:
        """Compute per source layer and block the rank of the layer's inputs over the points where the block is on."""
        spaces = {
            (link.source, a): RowSpace(self.layers[link.source].n_inputs)
            for link in self.links
            for a, _ in enumerate(self.units[link].blocks)
            if self.units[link].always_on != a and link.slope == 0
        }
        if spaces:
            for batch in read_batches(batches, "activations where units are on", progress):
                trace = trace_layers(self.network, self.layers, batch, grad=False)
                for link in self.links:
                    on = self._preactivations(trace, link) > 0
                    for a, block in enumerate(self.units[link].blocks):
                        if (link.source, a) in spaces:
                            points = on[..., list(block)].any(-1)
                            spaces[link.source, a].add(trace.inputs[link.source][points])
        self._where_on = spaces
        ranks = {key: self.rank(space.factor(), self.sums[key[0]].inputs.count) for key, space in spaces.items()}
        for link in self.links:
            for a, _ in enumerate(self.units[link].blocks):
                limit = self.gram_rank(link.source)
                ranks[link.source, a] = min(ranks.get((link.source, a), limit), limit)
        return ranks

    def blocks(self) -> list[Block]:
        """List all blocks of parameters that can be changed together, by the layer that writes them."""
        found: list[Block] = []
        if self.tested:
            written = [block for link in self.links for block in self._unit_blocks(link)]
            found += _limited(written, self._independent())
        for link in self.links:
            if not self.tested:
                blocks = self._unit_blocks(link)
                found += _limited(blocks, _certain(blocks, self.jacobian_rank(link.source)))
            found += self._complementary_blocks(link)
            dead = self.units[link].dead
            if dead:
                found.append(Block("dead", self.layers[link.source].name, dead, 0, 0))
        for heads in self.heads:
            found += self._head_blocks(heads)
        return found + self._stream_blocks()

    def _unit_blocks(self, link: Activation) -> list[Block]:
        """Compute s_a from the inputs of the block, and t_a from the Jacobians of its preactivations."""
        units, layer = self.units[link], self.layers[link.source]
        blocks = []
        for a, members in enumerate(units.blocks):
            kind = "always on" if a == units.always_on else "synchronised"
            block = Block(kind, layer.name, members, 0, self.jacobian_rank(link.source, members))
            constant = self._writes_constant(link, block)
            spans = [self.gram_rank(r, [*members, *([self.layers[r].d_in] if constant else [])]) for r in link.readers]
            blocks.append(replace(block, s=max(spans)))
        return blocks

    def _complementary_blocks(self, link: Activation) -> list[Block]:
        """Find constants that two complementary blocks write together, r_a c + r_b c = c, and later biases undo.

        t is the dimension of the common span of both blocks' weights, as far as it is not free for another reason.
        """
        units, (reader, *others) = self.units[link], link.readers
        layer, behind = self.layers[link.source], self.layers[reader]
        if others or not (layer.bias and behind.bias and self.tested):
            return []
        weight = self.sums[reader].jacobians.factor() @ layer_weight(self.network, behind)[:, :-1]
        found = []
        for pair in units.complements:
            sides = [list(units.blocks[a]) for a in pair]
            alike = self._common_span(*(weight[:, side] for side in sides))
            if not alike.numel():
                continue
            left = torch.zeros(layer.d_out, alike.shape[1], dtype=torch.float64)
            for side in sides:
                left[side] = torch.linalg.lstsq(weight[:, side], alike, driver="gelsd").solution
            right = torch.zeros(layer.d_out + 1, alike.shape[1], dtype=torch.float64)
            right[-1] = 1
            before = self._independent()
            own = self.moves[link]
            undo = torch.full((alike.shape[1],), (1 + link.slope) / 2, dtype=torch.float64)
            self.moves[link] = own.and_more(Moves(left, right, own.gain, undo))
            t = self._independent() - before
            if t:
                found.append(Block("complementary", layer.name, tuple(sides[0] + sides[1]), 1, t))
            else:
                self.moves[link] = own
        return found

    def _common_span(self, a: Float[Tensor, "m _"], b: Float[Tensor, "m _"]) -> Float[Tensor, "m _"]:
        """Compute the vectors in the column spans of both matrices, as long as their longest columns."""
        bases = []
        for side in (a, b):
            vectors, _, _ = torch.linalg.svd(side, full_matrices=False)
            bases.append(vectors[:, : self.rank(side, self.n)])
        left, cosines, _ = torch.linalg.svd(bases[0].T @ bases[1])
        common = bases[0] @ left[:, : len(cosines)][:, cosines > 1 - 1e-12]
        scaled: Tensor = common * min(float(side.norm(dim=0).max()) for side in (a, b))
        return scaled

    def _head_blocks(self, heads: AttentionHeads) -> list[Block]:
        q, v, o = (self.layers[i] for i in (heads.q, heads.v, heads.o))
        seen = self.sums[heads.o].jacobians.factor() @ layer_weight(self.network, o)[:, : o.d_in]
        found = []
        for group in self.head_patterns[heads].groups(self.epsilon, self.tolerance):
            columns = [u for head in group for u in heads.units(head, o.d_in)]
            constant = [o.d_in] if v.bias and o.bias else []
            s = self.gram_rank(heads.o, columns + constant)
            found.append(Block("values", v.name, tuple(group), s, self.rank(seen[:, columns], self.n)))
        queries, limit = [], self.jacobian_rank(heads.q)
        count = self.sums[heads.q].inputs.count
        for head in range(heads.n_heads):
            columns = heads.units(head, q.d_out)
            s = self.rank(self._written(heads.q)[:, columns], count)
            queries.append(Block("queries and keys", q.name, (head,), s, self.jacobian_rank(heads.q, columns)))
        found += _limited(queries, _certain(queries, limit))
        if self.layers[heads.k].bias:  # adding one vector to all keys of a head does not change the softmax
            every = tuple(range(heads.n_heads))
            found.append(Block("keys", self.layers[heads.k].name, every, 1, self.jacobian_rank(heads.k)))
        return found

    def _stream_blocks(self) -> list[Block]:
        """Find changes of basis of the residual stream, in which every layer that writes or reads it takes part.

        The first writer's outputs and the constant unit are mapped to any other basis; each later writer may add a
        constant, which the biases of later layers subtract again.
        """
        index = {layer.name: i for i, layer in enumerate(self.layers)}
        found = []
        for order, name in enumerate(getattr(self.network.model, "residual_stream", ())):
            layer, i = self.layers[index[name]], index[name]
            s = int(layer.bias) if order else self.rank(self._written(i), self.sums[i].inputs.count)
            found.append(Block("residual stream", name, tuple(range(layer.d_out)), s, self.jacobian_rank(i)))
        return found

    def own_blocks(self, factor: Float[Tensor, "r parameters"]) -> tuple[list[int | None], list[Fit]]:
        """Compute the rank of each layer's block of the Hessian, and how well G (x) K fits it."""
        ranks: list[int | None] = []
        fits = []
        parts = factor.split([layer.nominal for layer in self.layers], 1)
        for part, (gram, jacobian_gram) in zip(parts, self.grams(), strict=True):
            ranks.append(self.rank(part, self.n))
            fits.append(kronecker_fit(part, self.n, gram, jacobian_gram))
        return ranks, fits

    def grams(self) -> list[tuple[Tensor, Tensor]]:
        """Compute G and K of every layer."""
        factors = [(s.inputs.factor(), s.jacobians.factor(), max(s.inputs.count, 1)) for s in self.sums]
        return [(f.T @ f / count, j.T @ j / self.n) for f, j, count in factors]

    def layer_ledger(self, i: int, kept: int, blocks: list[Block], own: int | None, fit: Fit) -> LayerLedger:
        """Build the part of the ledger of layer i."""
        layer, sums = self.layers[i], self.sums[i]
        g, k = self.gram_rank(i), self.jacobian_rank(i)
        spectra = [
            _spectrum(sums.inputs.factor(), max(sums.inputs.count, 1)),
            _spectrum(sums.jacobians.factor(), self.n),
        ]
        soft = [None if self.epsilon is None else float((s / (s + self.epsilon)).sum()) for s in spectra]
        return LayerLedger(
            name=layer.name,
            n_inputs=layer.n_inputs,
            n_outputs=layer.d_out,
            gram_rank=g,
            jacobian_rank=k,
            activations=(layer.n_inputs - g) * layer.d_out,
            jacobians=g * (layer.d_out - k),
            gating=g * k - kept,
            synchronised=sum(block.free for block in blocks),
            tied=_tied(layer, sums.inputs.factor()) * layer.d_out,
            dead=sum(len(block.units) for block in blocks if block.kind == "dead"),
            blocks=tuple(blocks),
            hessian_rank=own,
            soft_gram_rank=soft[0],
            soft_jacobian_rank=soft[1],
            kronecker=fit,
            gram_spectrum=spectra[0],
            jacobian_spectrum=spectra[1],
        )


def _certain(blocks: Sequence[Block], rank: int) -> int:
    """Count the free directions that are independent in the layer that writes the blocks alone.

    They are tensors in span(J) (x) span(p). If the J_a of the blocks span fewer dimensions together than the sum of
    their own, each lost dimension costs as many directions as the largest s_a.
    """
    lost = sum(block.t for block in blocks) - rank
    return sum(block.free for block in blocks) - max((block.s for block in blocks), default=0) * lost


def _limited(blocks: list[Block], free: int) -> list[Block]:
    """Limit blocks to `free` directions together, the largest first; t_a is lowered where they exceed it."""
    left = max(free, 0)
    found = []
    for block in sorted(blocks, key=lambda b: -b.free):
        t = min(block.t, left // block.s if block.s else 0)
        left -= block.s * t
        found.append(replace(block, t=t))
    return found


def _starts(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:i]) for i in range(len(sizes))]


def _leading(matrix: Float[Tensor, "m d"], count: int) -> list[int]:
    """Return the columns that come first in a pivoted QR decomposition of the columns scaled to length 1."""
    length = matrix.norm(dim=0)
    scaled = matrix / torch.where(length > 1e-13 * length.max(), length, torch.inf) if len(matrix) else matrix
    if not count:
        return []
    return [int(j) for j in qr(scaled.numpy(), mode="r", pivoting=True)[1][:count]]


def _spectrum(factor: Float[Tensor, "r d"], count: int) -> Float[np.ndarray, " d"]:
    """Compute the eigenvalues of a factor's Gram matrix divided by the number of points, filled up with zeros."""
    values = torch.linalg.svdvals(factor).square() / count if factor.numel() else torch.zeros(0)
    return torch.cat([values.double(), torch.zeros(factor.shape[1] - len(values), dtype=torch.float64)]).numpy()


def _tied(layer: Layer, factor: Float[Tensor, "r d"]) -> int:
    """Count the tokens that occur exactly where a certain position does, and nowhere else."""
    if not 0 < layer.tokens < layer.d_in:
        return 0
    tokens, positions = factor[:, : layer.tokens], factor[:, layer.tokens : layer.d_in]
    apart = torch.cdist(tokens.T, positions.T) <= 1e-9 * tokens.norm(dim=0)[:, None]
    return int((apart & (tokens.norm(dim=0) > 0)[:, None]).any(1).sum())
