"""Frequencies of nodes on cyclic inputs: integers modulo P, as in modular addition.

A node that computes cos(2 pi k (x + y) / P) has all its variance at the frequency k. For inputs x and y the frequency k
has eight functions, cos and sin of k x, k y, k (x + y) and k (x - y); the share of k is the part of a node's variance
that they explain by least squares. On all pairs of inputs it is the power of the two-dimensional Fourier transform at
(k, 0), (0, k), (k, k) and (k, -k), over the power at all but (0, 0).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import DataError
from ..seeds import torch_generator

__all__ = ["Frequencies", "cyclic_inputs"]

_RANDOM = 32  # random directions of a cut that its nodes are compared with

_MOST_POSITIONS = 8

_MOST_MODULUS = 512

_SHOWN = 3

_LEAST = 0.05  # share of a frequency that is shown

_PARTS = 0.1  # share of a frequency's power that one of its arguments has, to be named


def cyclic_inputs(values: Int[Tensor, "n columns"], modulus: int) -> Int[Tensor, "n inputs"]:
    """Return the columns of the inputs that are integers modulo `modulus`: one or two; others are left out.

    Raises:
        DataError: none of them, or more than two.

    >>> cyclic_inputs(torch.tensor([[0, 4, 5], [3, 2, 5]]), 5).tolist()
    [[0, 4], [3, 2]]
    """
    own = [c for c in range(values.shape[1]) if bool(((values[:, c] >= 0) & (values[:, c] < modulus)).all())]
    if not 1 <= len(own) <= 2 or modulus > _MOST_MODULUS:
        raise DataError(
            f"modulus is {modulus}, and {len(own)} of {values.shape[1]} columns of the inputs are below it: expected "
            f"one or two, and a modulus of at most {_MOST_MODULUS}"
        )
    return values[:, own].long()


class Frequencies:
    """Sums over the data from which the shares of the frequencies at one cut follow; batches do not matter."""

    def __init__(self, nodes: int, modulus: int, inputs: int, *, seed: int) -> None:
        self.modulus, self.inputs, self.nodes = modulus, inputs, nodes
        self.arguments = ("x", "y", "x + y", "x - y") if inputs == 2 else ("x",)
        draws = torch_generator(seed, 3)
        self._random = torch.randn(_RANDOM, nodes, generator=draws, dtype=torch.float64, device="cpu")
        self._frequencies = torch.arange(1, modulus // 2 + 1, device="cpu")
        size = 1 + 2 * len(self.arguments)
        self._gram = torch.zeros(len(self._frequencies), size, size, dtype=torch.float64, device="cpu")
        self._cross: Tensor | None = None
        self._squares = torch.zeros(0, device="cpu")

    def add(self, inputs: Int[Tensor, "n inputs"], values: Float[Tensor, "nodes n positions"]) -> None:
        """Take a batch into account.

        Raises:
            DataError: too many positions.
        """
        if values.shape[2] > _MOST_POSITIONS:
            raise DataError(f"cyclic inputs at {values.shape[2]} positions: expected at most {_MOST_POSITIONS}")
        functions = self._functions(inputs)
        whole = torch.cat([values, torch.tensordot(self._random, values, 1)])
        self._gram += functions @ functions.mT
        cross = torch.einsum("kbn,int->tkbi", functions, whole)
        squares = whole.square().sum(1)
        if self._cross is None:
            self._cross, self._squares = cross, squares
        else:
            self._cross, self._squares = self._cross + cross, self._squares + squares

    def _functions(self, inputs: Int[Tensor, "n inputs"]) -> Float[Tensor, "frequencies functions n"]:
        """Compute 1, then cos and sin of each argument, at each frequency."""
        x, y = inputs[:, 0], inputs[:, -1]
        arguments = torch.stack([x, y, x + y, x - y][: len(self.arguments)])
        turns = (self._frequencies[:, None, None] * arguments) % self.modulus
        angles = turns.double() * (2 * torch.pi / self.modulus)
        both = torch.stack([angles.cos(), angles.sin()], 2).flatten(1, 2)
        return torch.cat([torch.ones_like(both[:, :1]), both], 1)

    def _explained(self, chosen: list[int]) -> Float[Tensor, "frequencies nodes"]:
        """Compute the share of variance about the mean at each position that some of the functions explain."""
        if self._cross is None:
            raise DataError("no data were seen: the frequencies are not known")
        n = self._gram[:, 0, 0]
        means = self._gram[:, 0, chosen] / n[:, None]
        gram = self._gram[:, chosen][:, :, chosen] - n[:, None, None] * means[:, :, None] * means[:, None]
        node_sums = self._cross[:, 0, 0]
        cross = self._cross[:, :, chosen] - means[None, :, :, None] * node_sums[:, None, None]
        explained = torch.einsum("tkbi,kbc,tkci->ki", cross, torch.linalg.pinv(gram, rtol=1e-9, hermitian=True), cross)
        variance = (self._squares - node_sums.T.square() / n[0]).sum(1)
        return torch.where(variance > 1e-24 * self._squares.sum(1), explained / variance, 0.0).clamp(0.0, 1.0)

    @property
    def shares(self) -> Float[np.ndarray, "frequencies nodes"]:
        """The share of each node's variance at the frequencies 1, 2, ..., P // 2."""
        return self._explained(list(range(1, self._gram.shape[1])))[:, : self.nodes].numpy()

    def facts(self) -> list[dict[str, Any]]:
        """Return for each node its strongest frequencies, with what random directions of the cut get.

        Of each: frequency, share of the variance, and its arguments; `together` is the share of the frequencies that
        are listed, `random` that of the strongest one, two and three of a random direction of the cut, the mean over
        32 of them with independent normal coefficients in the basis' coordinates.
        """
        every = self._explained(list(range(1, self._gram.shape[1])))
        parts = torch.stack([self._explained([1 + 2 * a, 2 + 2 * a]) for a in range(len(self.arguments))])
        strongest = every[:, self.nodes :].sort(0, descending=True).values[:_SHOWN].cumsum(0).mean(1).clamp_max(1.0)
        found = []
        for i in range(self.nodes):
            order = every[:, i].argsort(descending=True, stable=True)[:_SHOWN].tolist()
            listed = [self._one(k, float(every[k, i]), parts[:, k, i]) for k in order if every[k, i] >= _LEAST]
            together = min(sum(one["share"] for one in listed), 1.0)
            found.append(
                {"modulus": self.modulus, "frequencies": listed, "together": together, "random": strongest.tolist()}
            )
        return found

    def _one(self, k: int, share: float, parts: Float[Tensor, " arguments"]) -> dict[str, Any]:
        whole = float(parts.sum()) or 1.0
        of = [name for name, part in zip(self.arguments, parts.tolist(), strict=True) if part >= _PARTS * whole]
        return {"frequency": k + 1, "share": share, "arguments": of}
