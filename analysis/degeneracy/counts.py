"""Counts behind the ledger: what passes over the data record of every layer, and the ranks computed from it.

Ranks are those of triangular factors (see `linalg.RowSpace`): of a layer's inputs, at the data points and positions
from which its output reaches the network's output, and of the Jacobian with respect to the layer's outputs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import LayerError
from ..linalg import RowSpace, column_rank
from ..network.batches import Batch, read_batches
from ..network.network import Network
from ..progress import ProgressCallback
from ..results import by_value
from .gradients import PlainSize, check_layers
from .hessian_rank import Fit, kronecker_fit, layer_rows
from .layer_trace import LayerTrace, arranged, jacobian_blocks, trace_layers
from .layers import Layer, OneLayerError, attention_heads, find_layers
from .synchronised_units import Activation, FiringPatterns, HeadPatterns, SynchronisedUnits, activations_between

__all__ = ["Block", "Census", "LayerLedger"]

_EXACT_WORK = 10**12  # floating point operations of the exact rank, about a minute on two cores

_EXACT_ENTRIES = 2 * 10**8  # entries of the matrix for the exact rank, 1.6 GB


@dataclass(frozen=True)
class Block:
    """A block of parameters that can be changed together without any effect: s_a t_a free directions.

    Attributes:
        kind: "synchronised", "always on", "complementary", "dead" (units); "values", "queries and keys",
            "keys" (heads of an attention block); "residual stream"; "normalisation", "gated units", "same sum". For
            what `symmetries` finds s is 1 and t the number of directions.
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
        groups: number of maps side by side, each with its own share of the inputs and outputs (grouped convolutions,
            normalisations); ranks, spectra and causes are those of all of them.
        shares: for a second use of a matrix, such as a tied embedding, the layer where its parameters are counted.
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
    groups: int = 1
    shares: str = ""

    @property
    def nominal(self) -> int:
        """The number of parameters of its own."""
        return 0 if self.shares else self.n_inputs * self.n_outputs // self.groups

    @classmethod
    def of_groups(cls, parts: Sequence[LayerLedger]) -> LayerLedger:
        """Add up the ledgers of the maps that one module holds side by side; the Kronecker fit is that of the worst."""
        if len(parts) == 1:
            return parts[0]
        summed = ("n_inputs", "n_outputs", "gram_rank", "jacobian_rank", "activations", "jacobians", "gating")
        soft = ("soft_gram_rank", "soft_jacobian_rank")
        totals: dict[str, Any] = {name: sum(getattr(part, name) for part in parts) for name in summed}
        totals |= {n: None if getattr(parts[0], n) is None else sum(getattr(p, n) for p in parts) for n in soft}
        for name in ("gram_spectrum", "jacobian_spectrum"):
            totals[name] = -np.sort(-np.concatenate([getattr(part, name) for part in parts]))
        worst = max((part.kronecker for part in parts), key=lambda fit: fit.error)
        return replace(parts[0], **totals, kronecker=worst, groups=len(parts))

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
    """The layers of a network with all counts made of them.

    Attributes:
        uncounted: by name the number of entries of each parameter that no layer explains.
        reasons: why, as sentences.
    """

    def __init__(
        self, network: Network, layers: tuple[Layer, ...], links: tuple[Activation, ...], n: int, rows: int
    ) -> None:
        self.network, self.layers, self.links, self.n, self.rows = network, layers, links, n, rows
        self.uncounted = _outside(network, layers)
        self.reasons: tuple[str, ...] = ()
        self.index = {layer.name: i for i, layer in enumerate(layers) if not layer.group}
        self.uses = {self.index[layer.shares]: i for i, layer in enumerate(layers) if layer.shares}
        self.epsilon: float | None = None
        self.tolerance = 0.0
        self.heads = attention_heads(network, layers)
        self.sums = [_LayerSums(layer) for layer in layers]
        self.gradients = RowSpace(sum(layer.nominal for layer in layers))
        self.patterns = {link: FiringPatterns(layers[link.source].d_out, link.slope) for link in links}
        self.head_patterns = {heads: HeadPatterns(heads) for heads in self.heads}
        self.units: dict[Activation, SynchronisedUnits] = {}

    @classmethod
    def take(cls, network: Network, batches: Iterable[Batch], epsilon: float | None, tolerance: float) -> Census:
        """Find the layers, check them against autograd, and count the data.

        A layer that does not explain autograd's gradients of its parameters is left out, and the rest looked at again.

        Raises:
            LayerError: no layer explains the gradients of its parameters (see `gradients`).
        """
        without: dict[str, str] = {}
        while True:
            try:
                layers, n, rows = cls._checked(network, batches, without)
                break
            except OneLayerError as error:
                if error.layer in without:
                    raise
                without[error.layer] = str(error)
            except LayerError as error:
                raise LayerError(next(iter(without.values()), str(error))) from error
        census = cls(network, layers, activations_between(network, layers, batches), n, rows)
        census.epsilon, census.tolerance, census.reasons = epsilon, tolerance, tuple(without.values())
        return census

    @staticmethod
    def _checked(
        network: Network, batches: Iterable[Batch], without: Collection[str]
    ) -> tuple[tuple[Layer, ...], int, int]:
        """Return the layers that explain autograd's gradients, and the numbers of data points and of gradients."""
        n = rows = 0
        layers: tuple[Layer, ...] = ()
        for batch in read_batches(batches, "layers", None):
            layers = layers or find_layers(network, batch, without)
            check_layers(network, layers, batch)
            output = network.output(batch)
            free = output.shape[-1] - (network.loss == "kl")  # a softmax does not depend on the mean of its logits
            n, rows = n + len(output), rows + output[..., 0].numel() * free
        return layers, n, rows

    @property
    def nominal(self) -> int:
        """The number of parameters of the layers."""
        return sum(layer.nominal for layer in self.layers)

    def choose(self, method: str, plain: PlainSize | None = None) -> tuple[str, str | None]:
        """Choose the method for the rank of the Hessian, and return it with a warning or None.

        Args:
            method: as asked for.
            plain: the cost of autograd's gradients, where layers do not explain those of all parameters.
        """
        nominal = self.nominal + sum(self.uncounted.values())
        least = min(nominal, self.rows)
        fits = 2.5 * self.rows * nominal * least <= _EXACT_WORK and least * nominal <= _EXACT_ENTRIES
        fits &= plain is None or plain.feasible
        notes = [self._left_out(nominal)] if self.uncounted else []
        if self.rows < nominal:
            notes.append(
                f"{self.n} data points give {self.rows:,} gradients, fewer than the {nominal:,} parameters: the "
                "data themselves limit the rank"
            )
        if method == "auto":
            method = "exact" if fits else "estimate"
            if not fits:
                how = "bounded from below by a sample" if self.epsilon is None else "estimated by Lanczos quadrature"
                notes.append(
                    f"{nominal:,} parameters and {self.rows:,} gradients are too many for the exact rank: {how}"
                )
        return method, "; ".join(notes) or None

    def _left_out(self, nominal: int) -> str:
        """Name the parameters that are not counted, with their share and the reasons."""
        count, names = sum(self.uncounted.values()), list(self.uncounted)
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        why = f": {'; '.join(self.reasons[:2])}" if self.reasons else ""
        return (
            f"not counted: {count:,} parameters ({count / nominal:.1%}) in {', '.join(names[:4])}{more}, since layers "
            f"do not explain their gradients{why}"
        )

    def measure(self, batches: Iterable[Batch], *, exact: bool, progress: ProgressCallback | None) -> None:
        """Pass over the data once and record spans of activations and Jacobians, firing patterns, and gradients."""
        for batch in read_batches(batches, "activations and Jacobians", progress):
            trace = trace_layers(self.network, self.layers, batch)
            felt = [torch.zeros(f.shape[:2], dtype=torch.bool, device="cpu") for f in trace.inputs]
            for blocks in jacobian_blocks(self.network, self.layers, trace):
                for sums, seen, block in zip(self.sums, felt, blocks, strict=True):
                    on = block.ne(0).any(-1)
                    seen |= on.any(0)
                    sums.jacobians.add(block[on])
                if exact:
                    self.gradients.add(torch.cat(layer_rows(self.layers, trace.inputs, blocks), 1))
            for sums, seen, f in zip(self.sums, felt, trace.inputs, strict=True):
                sums.inputs.add(f[seen])
            for link, patterns in self.patterns.items():
                read = torch.stack([felt[reader] for reader in link.readers]).any(0)
                patterns.add(self.preactivations(trace, link)[read])
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
        """Compute rank(G) rank(K); for a matrix used twice the dimension of the sum of both tensor spaces.

        (A (x) B) + (A' (x) B') has the dimension a b + a' b' - dim(A meet A') dim(B meet B').
        """
        if self.layers[i].shares:
            return 0
        own = self.gram_rank(i) * self.jacobian_rank(i)
        if i not in self.uses:
            return own
        second = self.uses[i]
        width = self.layers[i].n_inputs
        inputs, jacobian = self.sums[i].inputs.factor(), self.sums[i].jacobians.factor()
        read, seen = self.sums[second].inputs.factor(), self.sums[second].jacobians.factor()
        seen = torch.nn.functional.pad(seen, (0, width - seen.shape[1]))
        both = self._common(inputs, seen) * self._common(jacobian, read)
        return own + self.gram_rank(second) * self.jacobian_rank(second) - both

    def _common(self, a: Float[Tensor, "_ d"], b: Float[Tensor, "_ d"]) -> int:
        """Compute the dimension of what two row spaces have in common, at the tolerance."""
        bases = []
        for side in (a, b):
            values, rows = torch.linalg.svd(side, full_matrices=False)[1:]
            bases.append(rows[values > max(self.tolerance, 1e-12) * values.max()] if len(values) else rows)
        cosines = torch.linalg.svdvals(bases[0] @ bases[1].T) if all(map(len, bases)) else torch.zeros(0, device="cpu")
        return int((cosines > 1 - 1e-9).sum())

    def positive(self) -> int:
        """Sum rank(G) rank(K) at the tolerance: at most so many eigenvalues of the Hessian are above zero."""
        factors = [(sums.inputs.factor(), sums.jacobians.factor()) for sums in self.sums]  # second uses included
        return sum(math.prod(column_rank(f, tolerance=self.tolerance) for f in pair) for pair in factors)

    def preactivations(self, trace: LayerTrace, link: Activation) -> Float[Tensor, "batch positions d_out"]:
        """Return what the layer before an activation writes, in the order of its units."""
        return arranged(trace.outputs[link.source].detach(), self.layers[link.source])

    def own_blocks(self, factor: Float[Tensor, "r parameters"]) -> tuple[list[int | None], list[Fit]]:
        """Compute the rank of each layer's block of the Hessian, of all its groups, and how well G (x) K fits it."""
        fits = []
        parts = factor.split([layer.nominal for layer in self.layers], 1)
        for part, (gram, jacobian_gram) in zip(parts, self.grams(), strict=True):
            fits.append(kronecker_fit(part, self.n, gram, jacobian_gram))
        ranks: list[int | None] = []
        for _, group in groupby(zip(self.layers, parts, strict=True), key=lambda pair: pair[0].name):
            together = [part for _, part in group]
            ranks += [self.rank(torch.cat(together, 1), self.n)] * len(together)
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
        activations, product = (layer.n_inputs - g) * layer.d_out, self.product(i)
        if i in self.uses:  # what neither use reads
            read = self.gram_rank(self.uses[i])
            activations = (layer.n_inputs - g) * max(layer.d_out - read, 0)
        lost = 0 if layer.shares else layer.nominal - activations - product
        return LayerLedger(
            name=layer.name,
            n_inputs=layer.n_inputs,
            n_outputs=layer.d_out,
            gram_rank=g,
            jacobian_rank=k,
            activations=0 if layer.shares else activations,
            jacobians=lost,
            gating=product - kept,
            synchronised=sum(block.free for block in blocks),
            tied=_tied(layer, sums.inputs.factor()) * layer.d_out,
            shares=layer.shares,
            dead=sum(len(block.units) for block in blocks if block.kind == "dead"),
            blocks=tuple(blocks),
            hessian_rank=own,
            soft_gram_rank=soft[0],
            soft_jacobian_rank=soft[1],
            kronecker=fit,
            gram_spectrum=spectra[0],
            jacobian_spectrum=spectra[1],
        )


def _outside(network: Network, layers: Sequence[Layer]) -> dict[str, int]:
    """Return the parameters that are not those of the layers, by name, with their sizes."""
    modules = dict(network.model.named_modules())
    own = {id(p) for layer in layers for p in modules[layer.name].parameters(recurse=False)}
    named = network.model.named_parameters()
    return {name: p.numel() for name, p in named if p.is_floating_point() and id(p) not in own}


def _spectrum(factor: Float[Tensor, "r d"], count: int) -> Float[np.ndarray, " d"]:
    """Compute the eigenvalues of a factor's Gram matrix divided by the number of points, filled up with zeros."""
    values = torch.linalg.svdvals(factor).square() / count if factor.numel() else torch.zeros(0, device="cpu")
    return torch.cat(
        [values.double(), torch.zeros(factor.shape[1] - len(values), dtype=torch.float64, device="cpu")]
    ).numpy()


def _tied(layer: Layer, factor: Float[Tensor, "r d"]) -> int:
    """Count the tokens that occur exactly where a certain position does, and nowhere else."""
    if not 0 < layer.tokens < layer.d_in:
        return 0
    tokens, positions = factor[:, : layer.tokens], factor[:, layer.tokens : layer.d_in]
    apart = torch.cdist(tokens.T, positions.T) <= 1e-9 * tokens.norm(dim=0)[:, None]
    return int((apart & (tokens.norm(dim=0) > 0)[:, None]).any(1).sum())
