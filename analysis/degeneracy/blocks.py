"""Blocks of parameters that can be changed together without any effect, and how many of their directions are new.

Units that are on together, always on or complementary, the values and the queries and keys of heads, and the residual
stream give such blocks. Directions of synchronised units that gating or another block counts already are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from scipy.linalg import qr
from torch import Tensor

from ..linalg import RowSpace
from ..network.batches import Batch, read_batches
from ..progress import ProgressCallback
from .counts import Block, Census
from .free_directions import Moves, Part, independent, independent_up_to
from .layer_trace import trace_layers
from .layers import AttentionHeads, layer_weight
from .symmetries import Symmetry, symmetries
from .synchronised_units import Activation

__all__ = ["FreeBlocks"]

_MOVES = 4000  # free directions whose independence is tested; with more, s_a t_a are not tested


class FreeBlocks:
    """The blocks of parameters that a measured census shows to be free together.

    Attributes:
        tested: whether the independence of their directions is tested; known after `gate`.
    """

    def __init__(self, census: Census) -> None:
        self.census = census
        self.network, self.layers, self.links, self.sums = census.network, census.layers, census.links, census.sums
        self.moves: dict[Activation, Moves] = {}
        self.gated: set[int] = set()
        self.tested = True
        self.symmetries: list[Symmetry] = []
        self.left_out = 0
        self._where_on: dict[tuple[int, int], RowSpace] = {}

    @property
    def note(self) -> str | None:
        """What could not be tested, and is counted as far as it is certain; None if everything was."""
        if not self.tested:
            return (
                "too many units act as one to test their free directions one by one: those that are certain are counted"
            )
        if self.left_out:
            return f"{self.left_out:,} directions of symmetries are too many to test their independence: not counted"
        return None

    def gate(self, batches: Iterable[Batch], progress: ProgressCallback | None) -> list[int]:
        """Compute per layer the parameters kept: rank(G) rank(K), or less where units are off on part of the data.

        Where gating would count free directions of synchronised units again, the better of the two is chosen, layer
        by layer. With more than 4,000 directions gating is left out, as the warning says.
        """
        kept = [self.census.product(i) for i in range(len(self.layers))]
        pairs = {link: self._pairs(link) for link in self.links}
        if sum(map(len, pairs.values())) > _MOVES:
            self.tested = False
            return kept
        self.moves = {link: self._moves(link, found) for link, found in pairs.items()}
        spans = self._spans_where_on(batches, progress)
        free = self._independent()
        for link in self.links:
            units = self.census.units[link]
            ranks = [self.census.jacobian_rank(link.source, block) for block in units.blocks]
            counted = sum(spans[link.source, a] * rank for a, rank in enumerate(ranks))
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
        left = torch.zeros(width, len(pairs), dtype=torch.float64, device="cpu")
        right = torch.zeros(width + 1, len(pairs), dtype=torch.float64, device="cpu")
        for d, (i, j) in enumerate(pairs):
            left[i, d] = right[j, d] = 1
        gain = torch.ones(width, dtype=torch.float64, device="cpu")
        gain[list(self.census.units[link].silent)] = link.slope
        return Moves(left, right, gain, torch.ones(len(pairs), dtype=torch.float64, device="cpu"))

    def _writes_constant(self, link: Activation, block: Block) -> bool:
        biased = self.layers[link.source].bias and all(self.layers[r].bias for r in link.readers)
        return block.kind == "always on" and biased

    def _independent(self) -> int:
        """Count the free directions of synchronised units that are independent of all others counted."""
        formula = sum(block.free for link in self.links for block in self._unit_blocks(link))
        moves = list(self.moves.values())
        total = sum(m.left.shape[1] for m in moves)
        complementary = sum(int((m.undo != 1).sum()) for m in moves)
        return independent(self._parts(), total, formula + complementary, self.census.tolerance)

    def _parts(self, *, symmetric: bool = False) -> Iterator[Part]:
        """Yield the tensor spaces of all layers, with the moves that act there."""
        starts = dict(zip(self.moves, _starts([m.left.shape[1] for m in self.moves.values()]), strict=True))
        for i, (layer, sums) in enumerate(zip(self.layers, self.sums, strict=True)):
            weight = layer_weight(self.network, layer)
            terms: list[tuple[Tensor, Tensor, Tensor]] = []
            for link, moves in self.moves.items():
                columns = starts[link] + torch.arange(moves.left.shape[1], device="cpu")
                if link.source == i:
                    constant = torch.zeros(1, layer.n_inputs, dtype=torch.float64, device="cpu")
                    constant[0, -1] = float(layer.bias)
                    terms.append((columns, moves.left, torch.cat([weight, constant]).T @ moves.right))
                elif i in link.readers:
                    left, right = moves.behind()
                    read = right if layer.bias else right[:-1]
                    terms.append((columns, -weight[:, : layer.d_in] @ left, read))
            terms += self._symmetric_terms(i) if symmetric else []
            jacobian = sums.jacobians.factor()
            if i not in self.gated:
                yield Part(jacobian, sums.inputs.factor(), tuple(terms))
                continue
            (link,) = (link for link in self.links if link.source == i)
            for a, block in enumerate(self.census.units[link].blocks):
                units = list(block)
                own = tuple((start, left[units], right) for start, left, right in terms)
                yield Part(jacobian[:, units], self._where_on.get((i, a), sums.inputs).factor(), own)

    def _symmetric_terms(self, i: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return what the symmetries change in one use of a matrix: in its own layer, and transposed in its second."""
        start = sum(moves.left.shape[1] for moves in self.moves.values())
        layer, second, terms = self.layers[i], self.census.uses.get(i), []
        owner = self.census.index[layer.shares] if layer.shares else None
        for symmetry in self.symmetries:
            for where, columns, left, right in symmetry.terms:
                if where == i:
                    terms.append((start + columns, left, right))
                elif where == second:
                    pad = (0, 0, 0, layer.n_inputs - len(left))
                    terms.append((start + columns, right, torch.nn.functional.pad(left, pad)))
                elif where == owner:
                    terms.append((start + columns, right[: layer.d_out], left))
            start += symmetry.count
        return terms

    def find_symmetries(self, batches: Iterable[Batch]) -> None:
        """Find the symmetries of attention, normalisations and residual stream; those beyond 4,000 moves are left out.

        Attention of this package's own type has counts of its own.
        """
        if self.census.heads or not self.tested:
            return
        room = _MOVES - sum(moves.left.shape[1] for moves in self.moves.values())
        linked = {self.layers[link.source].name for link in self.links}  # their units are counted as synchronised
        for symmetry in symmetries(self.network, self.layers, batches):
            if symmetry.kind == "gated units" and symmetry.layer in linked:
                continue
            if symmetry.count <= room:
                self.symmetries.append(symmetry)
                room -= symmetry.count
            else:
                self.left_out += symmetry.count

    def _symmetric_blocks(self, before: int) -> list[Block]:
        """Count per symmetry the directions that are independent of all counted before it."""
        start = sum(moves.left.shape[1] for moves in self.moves.values())
        ends = [start + sum(s.count for s in self.symmetries[: k + 1]) for k in range(len(self.symmetries))]
        found = []
        for symmetry, rank in zip(self.symmetries, independent_up_to(self._parts(symmetric=True), ends), strict=True):
            more = rank - before
            if more > 0:
                found.append(Block(symmetry.kind, symmetry.layer, symmetry.units, 1, more))
                before = rank
        return found

    def _spans_where_on(
        self, batches: Iterable[Batch], progress: ProgressCallback | None
    ) -> dict[tuple[int, int], int]:
        """Compute per source layer and block the rank of the layer's inputs over the points where the block is on."""
        spaces = {
            (link.source, a): RowSpace(self.layers[link.source].n_inputs)
            for link in self.links
            for a, _ in enumerate(self.census.units[link].blocks)
            if self.census.units[link].always_on != a and link.slope == 0
        }
        if spaces:
            for batch in read_batches(batches, "activations where units are on", progress):
                trace = trace_layers(self.network, self.layers, batch, grad=False)
                for link in self.links:
                    on = self.census.preactivations(trace, link) > 0
                    for a, block in enumerate(self.census.units[link].blocks):
                        if (link.source, a) in spaces:
                            points = on[..., list(block)].any(-1)
                            spaces[link.source, a].add(trace.inputs[link.source][points])
        self._where_on = spaces
        ranks = {key: self.census.rank(space.factor(), self.sums[key[0]].inputs.count) for key, space in spaces.items()}
        for link in self.links:
            for a, _ in enumerate(self.census.units[link].blocks):
                limit = self.census.gram_rank(link.source)
                ranks[link.source, a] = min(ranks.get((link.source, a), limit), limit)
        return ranks

    def blocks(self) -> list[Block]:
        """List all blocks of parameters that can be changed together, by the layer that writes them."""
        found: list[Block] = []
        before = 0
        if self.tested:
            before = self._independent()
            written = [block for link in self.links for block in self._unit_blocks(link)]
            found += _limited(written, before)
        for link in self.links:
            if not self.tested:
                blocks = self._unit_blocks(link)
                found += _limited(blocks, _certain(blocks, self.census.jacobian_rank(link.source)))
            complementary = self._complementary_blocks(link)
            before, found = before + sum(block.free for block in complementary), found + complementary
            dead = self.census.units[link].dead
            if dead:
                found.append(Block("dead", self.layers[link.source].name, dead, 0, 0))
        for heads in self.census.heads:
            found += self._head_blocks(heads)
        if self.symmetries:
            found += self._symmetric_blocks(before)
        return found + self._stream_blocks()

    def _unit_blocks(self, link: Activation) -> list[Block]:
        """Compute s_a from the inputs of the block, and t_a from the Jacobians of its preactivations."""
        units, layer = self.census.units[link], self.layers[link.source]
        blocks = []
        for a, members in enumerate(units.blocks):
            kind = "always on" if a == units.always_on else "synchronised"
            block = Block(kind, layer.name, members, 0, self.census.jacobian_rank(link.source, members))
            constant = self._writes_constant(link, block)
            columns = {r: [*members, *([self.layers[r].d_in] if constant else [])] for r in link.readers}
            blocks.append(replace(block, s=max(self.census.gram_rank(r, read) for r, read in columns.items())))
        return blocks

    def _complementary_blocks(self, link: Activation) -> list[Block]:
        """Find constants that two complementary blocks write together, r_a c + r_b c = c, and later biases undo.

        t is the dimension of the common span of both blocks' weights, as far as it is not free for another reason.
        """
        units, (reader, *others) = self.census.units[link], link.readers
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
            left = torch.zeros(layer.d_out, alike.shape[1], dtype=torch.float64, device="cpu")
            for side in sides:
                left[side] = torch.linalg.lstsq(weight[:, side], alike, driver="gelsd").solution
            right = torch.zeros(layer.d_out + 1, alike.shape[1], dtype=torch.float64, device="cpu")
            right[-1] = 1
            before = self._independent()
            own = self.moves[link]
            undo = torch.full((alike.shape[1],), (1 + link.slope) / 2, dtype=torch.float64, device="cpu")
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
            bases.append(vectors[:, : self.census.rank(side, self.census.n)])
        left, cosines, _ = torch.linalg.svd(bases[0].T @ bases[1])
        common = bases[0] @ left[:, : len(cosines)][:, cosines > 1 - 1e-12]
        scaled: Tensor = common * min(float(side.norm(dim=0).max()) for side in (a, b))
        return scaled

    def _head_blocks(self, heads: AttentionHeads) -> list[Block]:
        q, v, o = (self.layers[i] for i in (heads.q, heads.v, heads.o))
        seen = self.sums[heads.o].jacobians.factor() @ layer_weight(self.network, o)[:, : o.d_in]
        found = []
        for group in self.census.head_patterns[heads].groups(self.census.epsilon, self.census.tolerance):
            columns = [u for head in group for u in heads.units(head, o.d_in)]
            constant = [o.d_in] if v.bias and o.bias else []
            s = self.census.gram_rank(heads.o, columns + constant)
            found.append(Block("values", v.name, tuple(group), s, self.census.rank(seen[:, columns], self.census.n)))
        queries, limit = [], self.census.jacobian_rank(heads.q)
        count = self.sums[heads.q].inputs.count
        for head in range(heads.n_heads):
            columns = heads.units(head, q.d_out)
            s = self.census.rank(self._written(heads.q)[:, columns], count)
            queries.append(Block("queries and keys", q.name, (head,), s, self.census.jacobian_rank(heads.q, columns)))
        found += _limited(queries, _certain(queries, limit))
        if self.layers[heads.k].bias:  # adding one vector to all keys of a head does not change the softmax
            every = tuple(range(heads.n_heads))
            found.append(Block("keys", self.layers[heads.k].name, every, 1, self.census.jacobian_rank(heads.k)))
        return found

    def _stream_blocks(self) -> list[Block]:
        """Find changes of basis of the residual stream, in which every layer that writes or reads it takes part.

        The first writer's outputs and the constant unit are mapped to any other basis; each later writer may add a
        constant, which the biases of later layers subtract again.
        """
        index = {layer.name: i for i, layer in enumerate(self.layers)}
        found = []
        stream = getattr(self.network.model, "residual_stream", ())
        for order, name in enumerate(stream if all(name in index for name in stream) else ()):
            layer, i = self.layers[index[name]], index[name]
            s = int(layer.bias) if order else self.census.rank(self._written(i), self.sums[i].inputs.count)
            found.append(Block("residual stream", name, tuple(range(layer.d_out)), s, self.census.jacobian_rank(i)))
        return found

    def _written(self, i: int) -> Float[Tensor, "r _"]:
        """Compute the factor of a layer's outputs and the constant unit."""
        layer = self.layers[i]
        constant = torch.zeros(1, layer.n_inputs, dtype=torch.float64, device="cpu")
        if layer.bias:
            constant[0, -1] = 1
        elif layer.tokens:  # one-hot vectors sum to one: over positions, or over tokens where there are no positions
            constant[0, layer.tokens if layer.tokens < layer.d_in else 0 :] = 1
        weight = torch.cat([layer_weight(self.network, layer), constant])
        return self.sums[i].inputs.factor() @ weight.T


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
