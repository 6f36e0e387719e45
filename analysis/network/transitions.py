"""Exact forms of the map between two adjacent cuts, for models that declare them.

Between two cuts most models are either position-wise with one elementwise nonlinearity (dense layers, MLP blocks)
or an attention block. Where a family declares that form, second moments of the Jacobian need no backward passes.
`Network.check_cuts` compares each declared form with the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..results import by_value

__all__ = ["Attention", "Frame", "PositionWise", "Transition"]


@by_value
@dataclass(frozen=True)
class Frame:
    """Coordinates before and after a map: x = mean + columns x^, y^ = rows (y - target); all float64.

    Attributes:
        mean, columns: (d_in,) and (d_in, k).
        target, rows: (d_out,) and (j, d_out).
    """

    mean: Float[Tensor, " d_in"]
    columns: Float[Tensor, "d_in k"]
    target: Float[Tensor, " d_out"]
    rows: Float[Tensor, "j d_out"]


@by_value
@dataclass(frozen=True)
class PositionWise:
    """y = R x + B phi(A x + b) + c at each position, phi elementwise.

    Attributes:
        inner: A (h, d_in), or None where the map is linear.
        inner_bias: b (h,).
        outer: B (d_out, h), or None for the identity.
        skip: R (d_out, d_in), or None for zero.
        bias: c (d_out,), or None for zero.
        phi: the elementwise function, None for the identity.
    """

    inner: Tensor | None = None
    inner_bias: Tensor | None = None
    outer: Tensor | None = None
    skip: Tensor | None = None
    bias: Tensor | None = None
    phi: Callable[[Tensor], Tensor] | None = None

    def apply(self, x: Float[Tensor, "batch positions d_in"]) -> Float[Tensor, "batch positions d_out"]:
        """Compute y."""
        y = x.new_zeros(()) if self.bias is None else self.bias
        if self.skip is not None:
            y = y + x @ self.skip.T
        if self.inner is not None:
            z = self._preactivations(x)
            hidden = z if self.phi is None else self.phi(z)
            y = y + (hidden if self.outer is None else hidden @ self.outer.T)
        return y

    def in_coordinates(self, frame: Frame) -> PositionWise:
        """Return the same map between coordinates, float64."""
        offset = -frame.target
        skip = inner = inner_bias = outer = None
        if self.bias is not None:
            offset = offset + self.bias.double()
        if self.skip is not None:
            offset = offset + self.skip.double() @ frame.mean
            skip = frame.rows @ self.skip.double() @ frame.columns
        if self.inner is not None:
            inner = self.inner.double() @ frame.columns
            inner_bias = self.inner.double() @ frame.mean
            inner_bias = inner_bias if self.inner_bias is None else inner_bias + self.inner_bias.double()
            outer = frame.rows if self.outer is None else frame.rows @ self.outer.double()
        return PositionWise(inner, inner_bias, outer, skip, frame.rows @ offset, self.phi)

    def narrowed(self, columns: Int[Tensor, " k"], rows: Int[Tensor, " j"]) -> PositionWise:
        """Return the map from some of its inputs, the others set to 0, to some of its outputs."""
        return PositionWise(
            None if self.inner is None else self.inner[:, columns],
            self.inner_bias,
            None if self.inner is None else _rows(self.outer, rows, self.inner),
            None if self.skip is None else self.skip[rows][:, columns],
            None if self.bias is None else self.bias[rows],
            self.phi,
        )

    def partly(
        self,
        x: Float[Tensor, "batch positions d_in"],
        others: Float[Tensor, "batch positions d_in"] | None,
        mask: Float[Tensor, "d_out d_in"],
    ) -> Float[Tensor, "batch positions d_out"]:
        """Compute each output from an input of its own: y_j(mask_j x + (1 - mask_j) others), without others 0.

        >>> form = PositionWise(skip=torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        >>> form.partly(torch.ones(1, 1, 2), None, torch.tensor([[1.0, 0.0], [0.5, 1.0]]))
        tensor([[[1.0000, 5.5000]]])
        """
        y = x.new_zeros(()) if self.bias is None else self.bias
        if self.skip is not None:
            kept = mask * self.skip
            y = y + x @ kept.T
            y = y if others is None else y + others @ (self.skip - kept).T
        if self.inner is not None:
            seen = mask[:, None] * self.inner  # (d_out, h, d_in): the inner weights as each output sees them
            z = x @ seen.flatten(0, 1).T
            z = z if others is None else z + others @ (self.inner - seen).flatten(0, 1).T
            z = z.unflatten(-1, seen.shape[:2])
            z = z if self.inner_bias is None else z + self.inner_bias
            hidden = z if self.phi is None else self.phi(z)
            if self.outer is None:
                return y + hidden.diagonal(dim1=-2, dim2=-1)
            y = y + torch.einsum("...jh,jh->...j", hidden, self.outer)
        return y

    def slopes(self, x: Float[Tensor, "batch positions d_in"]) -> Float[Tensor, "batch positions h"]:
        """Compute q(x) = phi'(A x + b); of width zero where the map is linear."""
        if self.inner is None:
            return x.new_zeros(*x.shape[:-1], 0)
        with torch.enable_grad():
            z = self._preactivations(x).detach().requires_grad_()
            if self.phi is None:
                return torch.ones_like(z)
            return torch.autograd.grad(self.phi(z).sum(), z)[0]

    def jacobian_rows(
        self,
        x: Float[Tensor, "batch 1 d_in"],
        rows: Float[Tensor, "o d_out"],
        columns: Float[Tensor, "d_in k"],
        block: int,
    ) -> Iterator[tuple[Int[Tensor, " v"], Float[Tensor, "v batch 1 k"]]]:
        """Yield (indices of rows, rows J columns) with J = R + B diag(q) A, one position per data point."""
        skip, inner, outer = _in_basis(self, rows, columns)
        slopes = self.slopes(x)[:, 0]
        for start in range(0, len(rows), block):
            part = slice(start, min(start + block, len(rows)))
            grad = (outer[part, None] * slopes) @ inner + skip[part, None]
            yield torch.arange(part.start, part.stop, device=grad.device), grad[:, :, None]

    def _preactivations(self, x: Tensor) -> Tensor:
        z = x @ self.inner.T if self.inner is not None else x
        return z if self.inner_bias is None else z + self.inner_bias


@by_value
@dataclass(frozen=True)
class SlopeMoments:
    """Sums over data points and positions of q and q q^T for a position-wise map.

    Attributes:
        n: number of data points.
        count: number of data points times positions.
        first: sum of q (h,).
        second: sum of q q^T (h, h).
    """

    n: int
    count: int
    first: Float[Tensor, " h"]
    second: Float[Tensor, "h h"]

    def jacobian_moments(
        self,
        form: PositionWise,
        rows: Float[Tensor, "o d_out"],
        columns: Float[Tensor, "d_in k"],
        groups: Sequence[slice],
    ) -> list[Float[Tensor, "o _ _"]]:
        """Compute E[J_oi J_oi'] for i, i' in each group of columns, with J = rows (dy/dx) columns.

        With A, B, R in those coordinates, S = E[q q^T] and m = E[q] (expectation over data points, sum over
        positions): R_oi R_oi' T + R_oi (B_o m A)_i' + (B_o m A)_i R_oi' + sum_hh' B_oh B_oh' S_hh' A_hi A_h'i'.
        """
        skip, inner, outer = _in_basis(form, rows, columns)
        mean, second = self.first / self.n, self.second / self.n
        linear = (outer * mean) @ inner
        moments = []
        for group in groups:
            r, a, b = skip[:, group], inner[:, group], linear[:, group]
            cross = r[:, :, None] * b[:, None, :]
            value = r[:, :, None] * r[:, None, :] * (self.count / self.n) + cross + cross.transpose(1, 2)
            for o in range(len(rows)):
                on = outer[o].nonzero()[:, 0]  # dense layers with one-hot rows touch few hidden units
                weighted = outer[o, on][:, None] * a[on]
                value[o] += weighted.T @ (second[on][:, on] @ weighted)
            moments.append(value)
        return moments

    def squared_jacobian(
        self, form: PositionWise, rows: Float[Tensor, "o d_out"], columns: Float[Tensor, "d_in k"]
    ) -> Float[Tensor, "o k"]:
        """Compute E[J_oi^2], the diagonal of `jacobian_moments`."""
        skip, inner, outer = _in_basis(form, rows, columns)
        linear = (outer * (self.first / self.n)) @ inner
        squared = skip.square() * (self.count / self.n) + 2 * skip * linear
        for o in range(len(rows)):
            weighted = outer[o][:, None] * inner
            squared[o] += (weighted * (self.second @ weighted)).sum(0) / self.n
        return squared

    def mean_jacobian(
        self, form: PositionWise, rows: Float[Tensor, "o d_out"], columns: Float[Tensor, "d_in k"]
    ) -> Float[Tensor, "o k"]:
        """Compute E[sum_t J_oi] = R_oi T + (B_o m A)_i in the notation of `jacobian_moments`."""
        skip, inner, outer = _in_basis(form, rows, columns)
        return skip * (self.count / self.n) + (outer * (self.first / self.n)) @ inner


def _rows(matrix: Tensor | None, rows: Int[Tensor, " j"], before: Tensor) -> Tensor:
    """Select rows of a matrix; None stands for the identity that follows `before`."""
    return (
        matrix[rows] if matrix is not None else torch.eye(len(before), dtype=before.dtype, device=before.device)[rows]
    )


def _in_basis(form: PositionWise, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return R, A and B in the coordinates of rows and columns, float64; zero or empty if the form has none."""
    skip = rows.new_zeros(len(rows), columns.shape[1]) if form.skip is None else rows @ form.skip.double() @ columns
    if form.inner is None:
        return skip, columns.new_zeros(0, columns.shape[1]), rows.new_zeros(len(rows), 0)
    return skip, form.inner.double() @ columns, rows if form.outer is None else rows @ form.outer.double()


@by_value
@dataclass(frozen=True)
class Attention:
    """y = x + sum_h softmax(q_h k_h^T / sqrt(d_head)) v_h W_O,h + b_O with a causal mask, no normalisation.

    Attributes:
        w_q, w_k, w_v: (heads, d_in, d_head); x @ W convention.
        w_o: (heads, d_head, d_out).
        b_q, b_k, b_v: (heads, d_head).
        b_o: (d_out,).
        queries: positions of y that count.
        skip: R (d_out, d_in) in place of the identity: y = R x + ...
    """

    w_q: Tensor
    w_k: Tensor
    w_v: Tensor
    w_o: Tensor
    b_q: Tensor
    b_k: Tensor
    b_v: Tensor
    b_o: Tensor
    queries: tuple[int, ...]
    skip: Tensor | None = None

    def apply(self, x: Float[Tensor, "batch positions d_in"]) -> Float[Tensor, "batch counted d_out"]:
        """Compute y at the counted query positions."""
        pattern, _, _, value = self._pattern(x)
        mixed = torch.einsum("nhts,nhsd,hdm->ntm", pattern, value, self.w_o)
        here = x[:, list(self.queries)]
        return (here if self.skip is None else here @ self.skip.T) + mixed + self.b_o

    def in_coordinates(self, frame: Frame) -> Attention:
        """Return the same map between coordinates, float64."""
        q, k, v = (torch.einsum("dk,hde->hke", frame.columns, w.double()) for w, _ in self._weights())
        b_q, b_k, b_v = (b.double() + torch.einsum("d,hde->he", frame.mean, w.double()) for w, b in self._weights())
        skip = frame.rows if self.skip is None else frame.rows @ self.skip.double()
        offset = skip @ frame.mean + frame.rows @ (self.b_o.double() - frame.target)
        written = torch.einsum("hed,jd->hej", self.w_o.double(), frame.rows)
        return Attention(q, k, v, written, b_q, b_k, b_v, offset, self.queries, skip @ frame.columns)

    def narrowed(self, columns: Int[Tensor, " k"], rows: Int[Tensor, " j"]) -> Attention:
        """Return the map from some of its inputs, the others set to 0, to some of its outputs."""
        return replace(
            self,
            w_q=self.w_q[:, columns],
            w_k=self.w_k[:, columns],
            w_v=self.w_v[:, columns],
            w_o=self.w_o[..., rows],
            b_o=self.b_o[rows],
            skip=_rows(self.skip, rows, self.w_q[0])[:, columns],
        )

    def jacobian_rows(
        self,
        x: Float[Tensor, "batch positions d"],
        rows: Float[Tensor, "o d"],
        columns: Float[Tensor, "d k"],
        block: int,
    ) -> Iterator[tuple[Int[Tensor, " v"], Float[Tensor, "v batch positions k"]]]:
        """Yield (indices of rows, rows J columns) for each counted query position in turn, J = dy/dx.

        rows J_s = [s = t] rows + sum_h p_hs rows W_OV,h + gradient through the pattern, where the first factor of
        the second term does not depend on the data, which makes it cheap.
        """
        pattern, query, key, value = self._pattern(x)
        scale = 1 / math.sqrt(self.w_q.shape[-1])
        w_q, w_k, w_v = (torch.einsum("hmd,mk->hkd", w, columns) for w in (self.w_q, self.w_k, self.w_v))
        for i, t in enumerate(self.queries):
            p = pattern[:, :, i]
            to_key = torch.einsum("nhd,hkd->nhk", query[:, :, i], w_k) * scale
            to_query = torch.einsum("nhsd,hkd->nhsk", key, w_q) * scale
            for start in range(0, len(rows), block):
                part = rows[start : start + block]
                direct = part if self.skip is None else part @ self.skip
                to_value = torch.einsum("om,hdm->hod", part, self.w_o)
                through = torch.einsum("hod,hkd->ohk", to_value, w_v)
                slope = torch.einsum("hod,nhsd->onhs", to_value, value)
                score = p * (slope - (p * slope).sum(-1, keepdim=True))
                grad = torch.einsum("nhs,ohk->onsk", p, through)
                grad += torch.einsum("onhs,nhk->onsk", score, to_key)
                grad[:, :, t] += torch.einsum("onhs,nhsk->onk", score, to_query) + (direct @ columns)[:, None]
                yield torch.arange(start, start + len(part), device=grad.device), grad

    def _pattern(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        heads = [torch.einsum("nsm,hmd->nhsd", x, w) + b[:, None] for w, b in self._weights()]
        query, key, value = heads[0][:, :, list(self.queries)], heads[1], heads[2]
        score = query @ key.transpose(-1, -2) / math.sqrt(self.w_q.shape[-1])
        queries = torch.tensor(self.queries, device=x.device)
        future = torch.arange(x.shape[1], device=x.device)[None] > queries[:, None]
        return score.masked_fill(future, -math.inf).softmax(-1), query, key, value

    def _weights(self) -> list[tuple[Tensor, Tensor]]:
        return [(self.w_q, self.b_q), (self.w_k, self.b_k), (self.w_v, self.b_v)]


Transition: TypeAlias = PositionWise | Attention
