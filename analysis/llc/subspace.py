"""Linear subspaces of the parameters, and a loss restricted to one.

    theta = theta* + Q (z - Q^T theta*),   Q^T Q = 1

The coordinates z are orthonormal, so that the localiser measures the same distance as in the whole space, and a
learning coefficient depends on the subspace alone and not on the directions that span it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from scipy.linalg import qr
from torch import Tensor

from ..errors import InputError
from ..results import by_value
from .landscape import Landscape

__all__ = ["Block", "Directions", "Restricted", "Subspace", "orthonormal_basis", "subspace_of"]

Directions: TypeAlias = Float[Tensor, "d k"] | Mapping[str, Float[Tensor, "..."]]

"""Directions that span a subspace: columns of a matrix, or (directions, *shape) by name of a parameter."""

_RANK_TOLERANCE = 1e-10


@by_value
@dataclass(frozen=True)
class Block:
    """Directions on some entries of the parameters: the orthonormal columns of `basis`, or each entry for None."""

    entries: Int[Tensor, " m"]
    basis: Float[Tensor, "m k"] | None = None

    @property
    def dimension(self) -> int:
        """The number of directions."""
        return len(self.entries) if self.basis is None else self.basis.shape[1]


@by_value
@dataclass(frozen=True)
class Subspace:
    """A linear subspace of vectors of parameters: the sum of blocks on entries that do not overlap.

    >>> plane = Subspace.spanned_by(torch.tensor([[1.0, 1.0], [1.0, -1.0], [0.0, 0.0]]))
    >>> plane.dimension, plane.project(torch.tensor([[3.0, 4.0, 5.0]])).tolist()
    (2, [[3.0, 4.0]])
    """

    blocks: tuple[Block, ...]

    @classmethod
    def spanned_by(cls, directions: Float[Tensor, "d k"]) -> Subspace:
        """Return the span of the columns of a matrix."""
        if directions.ndim != 2 or not torch.isfinite(directions).all():
            raise InputError(
                f"the directions of a subspace are {tuple(directions.shape)}, or hold NaN or infinite numbers: "
                "expected a matrix (parameters, directions)"
            )
        entries = directions.any(1).nonzero()[:, 0].cpu()
        return cls.on(entries, directions.cpu()[entries])

    @classmethod
    def on(cls, entries: Int[Tensor, " m"], directions: Float[Tensor, "m k"] | None = None) -> Subspace:
        """Return the span of directions on some entries; without directions, all that change these entries."""
        if directions is None:
            return cls((Block(entries),)) if len(entries) else cls(())
        basis = orthonormal_basis(directions)
        return cls((Block(entries, basis),)) if basis.shape[1] else cls(())

    @classmethod
    def joined(cls, parts: Sequence[Subspace]) -> Subspace:
        """Return the sum of subspaces on entries that do not overlap."""
        return cls(tuple(block for part in parts for block in part.blocks))

    @property
    def dimension(self) -> int:
        """The number of independent directions."""
        return sum(block.dimension for block in self.blocks)

    @property
    def entries(self) -> Int[Tensor, " m"]:
        """The entries of the parameters that change."""
        found = [block.entries for block in self.blocks]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64, device="cpu")

    def project(self, vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Compute Q^T v for each row."""
        parts = [_into(block, vectors[:, block.entries]) for block in self.blocks]
        return torch.cat(parts, 1) if parts else vectors[:, :0]

    def lift(self, coordinates: Float[Tensor, "n k"], d: int) -> Float[Tensor, "n d"]:
        """Compute Q z for each row."""
        found = coordinates.new_zeros(len(coordinates), d)
        parts = coordinates.split([block.dimension for block in self.blocks], 1) if self.blocks else ()
        for block, part in zip(self.blocks, parts, strict=True):
            found[:, block.entries] = part if block.basis is None else part @ block.basis.to(part).T
        return found


class Restricted:
    """A loss on a subspace of its parameters, in orthonormal coordinates; a `Landscape` itself.

    Args:
        whole: the loss.
        subspace: the subspace of its vectors.
    """

    def __init__(self, whole: Landscape, subspace: Subspace) -> None:
        self.whole, self.subspace = whole, subspace
        self.start: Float[Tensor, " k"] = subspace.project(whole.start[None])[0]
        self.n, self.baseline, self.behavioural, self.scale = whole.n, whole.baseline, whole.behavioural, whole.scale
        self.row_count, self.vectorised = whole.row_count, whole.vectorised

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters that change; () where they have none."""
        names, sizes = getattr(self.whole, "names", ()), getattr(self.whole, "sizes", ())
        if not names:
            return ()
        changed = torch.zeros(len(self.whole.start), dtype=torch.bool, device="cpu")
        changed[self.subspace.entries] = True
        return tuple(name for name, part in zip(names, changed.split(list(sizes)), strict=True) if part.any())

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the loss."""
        return tuple(getattr(self.whole, "notes", ()))

    @property
    def checked(self) -> bool:
        """Whether the checks of the network ran and passed."""
        return bool(getattr(self.whole, "checked", False))

    @property
    def outputs_per_point(self) -> int:
        """The numbers of the output of a data point."""
        return int(getattr(self.whole, "outputs_per_point", 1))

    def evaluate(
        self, theta: Float[Tensor, "chains k"], points: Int[Tensor, "chains points"] | None = None
    ) -> tuple[Float[Tensor, " chains"], Float[Tensor, "chains k"]]:
        """Compute L and its gradient in the subspace."""
        value, slope = self.whole.evaluate(self.parameters(theta), points)
        return value, self.subspace.project(slope)

    def rows(self, theta: Float[Tensor, " k"]) -> Iterator[Float[Tensor, "rows k"]]:
        """Yield blocks of rows R Q, with R those of the whole space."""
        for block in self.whole.rows(self.parameters(theta[None])[0]):
            yield self.subspace.project(block)

    def product(self, theta: Float[Tensor, " k"], vectors: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        """Compute Q^T H Q v for each of the vectors."""
        lifted = self.subspace.lift(vectors, len(self.whole.start))
        return self.subspace.project(self.whole.product(self.parameters(theta[None])[0], lifted))

    def parameters(self, coordinates: Float[Tensor, "n k"]) -> Float[Tensor, "n d"]:
        """Compute the parameters at some coordinates."""
        return self.whole.start + self.subspace.lift(coordinates - self.start, len(self.whole.start))


def subspace_of(landscape: Landscape, given: Subspace | Directions) -> Subspace:
    """Read a subspace as users give it: a matrix of directions, or directions by name of a parameter.

    Raises:
        InputError: directions that do not fit the parameters.
    """
    if isinstance(given, Mapping):
        return _by_name(landscape, given)
    d = len(landscape.start)
    found = given if isinstance(given, Subspace) else Subspace.spanned_by(given)
    fits = bool((found.entries < d).all()) if isinstance(given, Subspace) else len(given) == d
    if not fits:
        raise InputError(f"the directions of the subspace are of other parameters: {d:,} are varied")
    return found


def orthonormal_basis(directions: Float[Tensor, "d k"]) -> Float[Tensor, "d r"]:
    """Compute an orthonormal basis of the span of columns, the same for all directions with this span.

    The reduced echelon form of the span, on rows that pivoting chooses, is made orthonormal; that of the whole space
    is the identity.

    >>> orthonormal_basis(torch.tensor([[2.0], [0.0], [2.0]])).round(decimals=4).tolist()
    [[0.7071], [0.0], [0.7071]]
    """
    columns = directions.to("cpu", torch.float64)
    lengths = columns.norm(dim=0)
    columns = columns[:, lengths > 0] / lengths[lengths > 0]
    if not columns.numel():
        return directions[:, :0].to("cpu", torch.float64)
    left, sizes, _ = torch.linalg.svd(columns, full_matrices=False)
    left = left[:, sizes > _RANK_TOLERANCE * sizes[0]]
    pivots = sorted(qr(left.T.numpy(), mode="r", pivoting=True)[-1][: left.shape[1]])
    basis, upper = torch.linalg.qr(torch.linalg.solve(left[pivots].T, left.T).T)
    found: Tensor = basis * upper.diagonal().sign()
    return found


def _by_name(landscape: Landscape, given: Mapping[str, Tensor]) -> Subspace:
    """Return the span of directions that are given per name of a parameter, as (directions, *shape)."""
    names, sizes = getattr(landscape, "names", ()), getattr(landscape, "sizes", ())
    offsets = dict(zip(names, accumulate(sizes[:-1], initial=0), strict=True))
    size_of = dict(zip(names, sizes, strict=True))
    counts = {len(part) for part in given.values()}
    for name, part in given.items():
        if name not in size_of or part[0].numel() != size_of[name] or len(counts) > 1:
            shapes = {name: tuple(part.shape) for name, part in given.items()}
            raise InputError(
                f"the directions of the subspace are {shapes}: expected (directions, *shape of the parameter) for "
                f"parameters that are varied, as many directions for each; these are {', '.join(names) or 'nameless'}"
            )
    if not given:
        return Subspace(())
    entries = [offsets[name] + torch.arange(size_of[name], device="cpu") for name in given]
    return Subspace.on(torch.cat(entries), torch.cat([part.flatten(1) for part in given.values()], 1).T)


def _into(block: Block, own: Float[Tensor, "n m"]) -> Float[Tensor, "n k"]:
    """Compute the coordinates of vectors of a block's entries."""
    return own if block.basis is None else own @ block.basis.to(own)
