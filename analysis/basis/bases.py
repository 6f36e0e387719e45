"""The bases of a network: one per cut, as a result that can be stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..network.cut_search import LeftOut
from ..notebook.tables import Columns, html_table
from ..results import Result, by_value, decode, encode

__all__ = ["KINDS", "OUTPUTS", "ROTATIONS", "Bases", "Basis"]

KINDS = ("global", "local", "pca", "neuron")

OUTPUTS = ("auto", "neuron", "pca")

ROTATIONS = ("none", "degenerate", "full")

_ARRAYS = ("mean", "to_basis", "from_basis", "importance", "gram_spectrum", "jacobian_spectrum", "influence")


@by_value
@dataclass(frozen=True, repr=False)
class Basis:
    """The coordinates of one cut.

    Attributes:
        cut: name of the cut.
        kind: "global", "local", "pca" or "neuron".
        mean: (d,) mean of the activations, or (positions, d) where the positions are those of a picture;
            what does not depend on the data, kept apart.
        to_basis: C (k, d); f^ = C (f - mean).
        from_basis: C^+ (d, k).
        importance: Lambda (k,), variance of each coordinate, descending (in the neuron basis in the model's order);
            for interaction bases the mean squared change of the output (or of the next cut's coordinates) that it
            carries to first order, in units of the behavioural loss.
        gram_spectrum: eigenvalues of the centred G (d,), descending.
        jacobian_spectrum: eigenvalues D_M of M~ (rank of G,), descending; empty for PCA and neuron bases.
        influence: (o, k): E_x[J_oi^2] Lambda_i, the squared strength of coordinate i on output o (global) or on
            coordinate o of the next cut (local, there the graph's w^2); empty where it was not computed.
        runs: sizes of the near-degenerate runs that were rotated.
        off_diagonal: largest |M~_ij| / sqrt(M~_ii M~_jj) that the rotation left, 0 where there was none.
    """

    cut: str
    kind: str
    mean: Float[np.ndarray, "*positions d"]
    to_basis: Float[np.ndarray, "k d"]
    from_basis: Float[np.ndarray, "d k"]
    importance: Float[np.ndarray, " k"]
    gram_spectrum: Float[np.ndarray, " d"]
    jacobian_spectrum: Float[np.ndarray, " _"]
    influence: Float[np.ndarray, "o _k"]
    runs: tuple[int, ...] = ()
    off_diagonal: float = 0.0

    def __repr__(self) -> str:
        """Describe the basis by cut, kind and sizes."""
        k, d = self.to_basis.shape
        return f"Basis({self.cut!r}, kind={self.kind!r}, {k} of {d} directions kept)"

    def coordinates(self, activations: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch k"]:
        """Compute f^ = C (f - mean) in float64 on the CPU; at all positions where the mean has positions."""
        return (activations.to("cpu", torch.float64) - torch.from_numpy(self.mean)) @ torch.from_numpy(self.to_basis).T


@by_value
@dataclass(frozen=True, repr=False)
class Bases(Mapping[str, Basis], Result):
    """The bases of all cuts of a network, by name of the cut, in order of computation.

    Attributes:
        bases: one per cut.
        settings: kind, output, rotation, tolerance, probes and seed that fix the numbers, whether the model was
            `checked`, and which modules are `left_out`, at no cut (see `Network.left_out`).
    """

    bases: tuple[Basis, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    @overload
    def __getitem__(self, cut: str | int) -> Basis: ...

    @overload
    def __getitem__(self, cut: slice) -> tuple[Basis, ...]: ...

    def __getitem__(self, cut: str | int | slice) -> Basis | tuple[Basis, ...]:
        """Return the basis of a cut by name or by its place among the cuts, or those of a slice."""
        if not isinstance(cut, str):
            return self.bases[cut]
        for basis in self.bases:
            if basis.cut == cut:
                return basis
        raise KeyError(cut)

    def __iter__(self) -> Iterator[str]:
        return (basis.cut for basis in self.bases)

    def __len__(self) -> int:
        return len(self.bases)

    def __repr__(self) -> str:
        """Describe one basis a line."""
        return "\n".join(map(repr, self.bases))

    @property
    def measured(self) -> bool:
        """Whether the strengths between adjacent cuts were measured while the basis was built."""
        return self.bases[0].kind == "local" and all(basis.influence.size for basis in self.bases[:-1])

    def _columns(self) -> Columns:
        """Return a row per coordinate: its cut, number and importance."""
        widths = [len(basis.importance) for basis in self.bases]
        return {
            "cut": np.repeat([basis.cut for basis in self.bases], widths),
            "coordinate": np.concatenate([np.arange(width) for width in widths]),
            "importance": np.concatenate([basis.importance for basis in self.bases]),
        }

    def _repr_html_(self) -> str:
        """Return a table of the cuts."""
        columns = {
            "cut": [basis.cut for basis in self.bases],
            "basis": [basis.kind for basis in self.bases],
            "directions kept": [basis.to_basis.shape[0] for basis in self.bases],
            "of": [basis.to_basis.shape[1] for basis in self.bases],
            "largest importance": [float(basis.importance.max(initial=0.0)) for basis in self.bases],
        }
        left_out = self.settings.get("left_out")  # bases of earlier versions do not know
        notes = LeftOut(**left_out).sentences() if left_out else []
        return html_table(f"Bases of {len(self)} cuts", columns, notes)

    def to_bytes(self) -> bytes:
        """Return the content of the file that `save` writes."""
        arrays = {f"{name}.{i}": getattr(b, name) for i, b in enumerate(self.bases) for name in _ARRAYS}
        scalars = [{k: getattr(b, k) for k in ("cut", "kind", "runs", "off_diagonal")} for b in self.bases]
        return encode("bases", arrays, {"bases": scalars, "settings": self.settings})

    @classmethod
    def from_bytes(cls, data: bytes) -> Bases:
        """Rebuild bases from `to_bytes`."""
        arrays, meta = decode("bases", data)
        bases = []
        for i, scalars in enumerate(meta["bases"]):
            values: dict[str, Any] = {name: arrays[f"{name}.{i}"] for name in _ARRAYS}
            bases.append(Basis(**values, **{**scalars, "runs": tuple(scalars["runs"])}))
        return cls(tuple(bases), meta["settings"])
