"""Derivatives of the loss of a batch in two ways with one contract: by `torch.func`, or by plain autograd.

    values      the loss and its gradient for a stack of vectors
    rows        gradients of single data points, R with sum R^T R = n H (behavioural losses)
    products    H v for a stack of vectors, without the weight of the batch

`Transforms` handles all vectors at once with `torch.func`. `PlainAutograd` handles one at a time and supports every
model that autograd can differentiate: an `autograd.Function` of the older form, recurrent networks, branches on values,
writes into buffers, and activation checkpointing. The latter runs modules again in the backward pass, so the parameters
stay replaced until that has ended.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacrev, vjp, vmap

from ..checkpoints.pairs import Pair
from ..network.batches import Batch, batch_size, map_tensors, take_points, tensors
from .batch_loss import BatchLoss

__all__ = ["FAILURES", "PlainAutograd", "Transforms", "Way", "gradient", "gradients", "products_of", "short"]

T = TypeVar("T")

FAILURES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

"""Errors of models that cannot be transformed or differentiated."""


@runtime_checkable
class Way(Protocol):
    """The contract of both ways."""

    def values(
        self, theta: Float[Tensor, "chains d"], pair: Pair, points: Int[Tensor, "chains m"] | None = None
    ) -> tuple[Float[Tensor, " chains"], Float[Tensor, "chains d"]]:
        """Compute the loss of a batch and its gradient, for each vector on its own data points."""
        ...

    def rows(self, theta: Float[Tensor, " d"], inputs: Batch) -> Float[Tensor, "batch rows d"]:
        """Compute rows of each data point."""
        ...

    def products(self, theta: Float[Tensor, " d"], vectors: Float[Tensor, "k d"], pair: Pair) -> Float[Tensor, "k d"]:
        """Compute J^T (d^2 loss / d output^2) J v for each of the vectors."""
        ...


class Transforms:
    """Derivatives for all vectors at once, by `torch.func`."""

    def __init__(self, loss: BatchLoss) -> None:
        self.loss = loss

    def values(
        self, theta: Float[Tensor, "chains d"], pair: Pair, points: Int[Tensor, "chains m"] | None = None
    ) -> tuple[Float[Tensor, " chains"], Float[Tensor, "chains d"]]:
        """Compute the loss of a batch and its gradient, for each vector on its own data points."""
        own = tensors(pair)
        n = batch_size(pair) if points is not None else -1
        picked = [points is not None and v.ndim > 0 and len(v) == n for v in own]
        taken = [v[points] if mine else v for v, mine in zip(own, picked, strict=True)]

        def value(theta: Tensor, taken: list[Tensor]) -> Tensor:
            rest = iter(taken)
            return self.loss.value(theta, *map_tensors(lambda _: next(rest), pair))

        axes = [0 if mine else None for mine in picked]
        return gradients(vmap(value, in_dims=(0, axes)), theta, taken)

    def rows(self, theta: Float[Tensor, " d"], inputs: Batch) -> Float[Tensor, "batch rows d"]:
        """Compute rows of each data point."""
        own, n = tensors(inputs), batch_size(inputs)
        mine = [v.ndim > 0 and len(v) == n for v in own]

        def rows(theta: Tensor, taken: list[Tensor]) -> Tensor:
            rest = iter([v[None] if one else v for v, one in zip(taken, mine, strict=True)])
            alone = map_tensors(lambda _: next(rest), inputs)

            def residual(theta: Tensor) -> tuple[Tensor, list[Tensor]]:
                outputs = self.loss.outputs(theta, alone)
                return torch.cat([part.flatten() for part in outputs]), outputs

            slopes, outputs = jacrev(residual, has_aux=True)(theta)
            return _weighted(slopes, outputs, self.loss.network.loss)

        found: Tensor = vmap(rows, in_dims=(None, [0 if one else None for one in mine]))(theta, own)
        return found

    def products(self, theta: Float[Tensor, " d"], vectors: Float[Tensor, "k d"], pair: Pair) -> Float[Tensor, "k d"]:
        """Compute J^T (d^2 loss / d output^2) J v for each of the vectors."""
        outputs_of, outputs_with = self.loss.parts(pair[0])
        target = self.loss.target(pair)
        outputs, pull = vjp(outputs_of, theta)
        _, push = vjp(lambda cotangents: pull(cotangents)[0], [torch.zeros_like(y) for y in outputs])
        _, bend = vjp(grad(lambda parts: self.loss.total(outputs_with(parts), target)), outputs)

        def one(vector: Tensor) -> Tensor:
            (moved,) = push(vector)  # J v, the derivative of J^T u with respect to u
            result: Tensor = pull(*bend(moved))[0]
            return result

        found: Tensor = vmap(one)(vectors)
        return found


class PlainAutograd:
    """Derivatives for one vector at a time, by `torch.autograd.grad`; J v may be by differences.

    Attributes:
        once: why autograd differentiates only once, so that J v is by differences; None where it differentiates twice.
    """

    def __init__(self, loss: BatchLoss) -> None:
        self.loss = copy(loss)
        self.loss.buffers = True
        self.once: str | None = None

    def values(
        self, theta: Float[Tensor, "chains d"], pair: Pair, points: Int[Tensor, "chains m"] | None = None
    ) -> tuple[Float[Tensor, " chains"], Float[Tensor, "chains d"]]:
        """Compute the loss of a batch and its gradient, for each vector on its own data points."""
        parts = [pair] * len(theta) if points is None else [take_points(pair, index) for index in points]
        found = [
            self._within(row, lambda leaf, part=part: gradient(lambda theta: self.loss.value(theta, *part), leaf))
            for row, part in zip(theta, parts, strict=True)
        ]
        return torch.stack([value for value, _ in found]), torch.stack([slope for _, slope in found])

    def slope(self, theta: Float[Tensor, " d"], pair: Pair, weight: float) -> tuple[float, Float[Tensor, " d"]]:
        """Compute the same for one vector, without copies of it: the loss and its gradient, times a weight."""

        def slope(leaf: Tensor) -> tuple[float, Tensor]:
            value, parts, slopes = self.loss.value_with_slopes(leaf, *pair, weight)
            return value, _pull(parts, leaf, slopes, once=True)

        return self._within(theta, slope, copied=False)

    def product(self, theta: Float[Tensor, " d"], vector: Float[Tensor, " d"], pair: Pair) -> Float[Tensor, " d"]:
        """Compute J^T (d^2 loss / d output^2) J v with J v by forward differentiation, which takes few vectors.

        Raises:
            FAILURES: a part of the model has no forward derivative.
        """
        outputs_of, outputs_with = self.loss.parts(pair[0])
        target = self.loss.target(pair)

        def ahead(leaf: Tensor) -> list[Tensor]:
            found = [forward_ad.unpack_dual(y) for y in outputs_of(leaf)]
            return [torch.zeros_like(y) if moved is None else moved for y, moved in found]

        with torch.no_grad(), forward_ad.dual_level(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch scripts its forward derivatives
            moved = self._within(theta, lambda _: ahead(forward_ad.make_dual(theta, vector)), copied=False, graph=False)
        moved = [part.detach() for part in moved]

        def product(leaf: Tensor) -> Tensor:
            outputs = outputs_of(leaf)
            bent = _bend(lambda parts: self.loss.total(outputs_with(parts), target), outputs, moved)
            return _pull(outputs, leaf, bent, once=True)

        return self._within(theta, product, copied=False)

    def rows(self, theta: Float[Tensor, " d"], inputs: Batch) -> Float[Tensor, "batch rows d"]:
        """Compute rows of each data point, with a backward pass for each number of the output."""

        def rows(leaf: Tensor, alone: Batch) -> Tensor:
            outputs = self.loss.outputs(leaf, alone)
            numbers = [number for y in outputs for number in y.flatten()]
            slopes = torch.stack([_pull([number], leaf, [torch.ones_like(number)]) for number in numbers])
            return _weighted(slopes, [y.detach() for y in outputs], self.loss.network.loss)

        parts = [take_points(inputs, slice(i, i + 1)) for i in range(batch_size(inputs))]
        return torch.stack([self._within(theta, lambda leaf, part=part: rows(leaf, part)) for part in parts])

    def products(self, theta: Float[Tensor, " d"], vectors: Float[Tensor, "k d"], pair: Pair) -> Float[Tensor, "k d"]:
        """Compute J^T (d^2 loss / d output^2) J v for each of the vectors."""
        outputs_of, outputs_with = self.loss.parts(pair[0])
        moved = self._by_differences(theta, vectors, outputs_of) if self.once else None
        target = self.loss.target(pair)

        def total(parts: Sequence[Tensor]) -> Tensor:
            return self.loss.total(outputs_with(parts), target)

        def products(leaf: Tensor) -> Tensor:
            outputs = outputs_of(leaf)
            ahead = _push(outputs, leaf, vectors) if moved is None else moved
            found = [_pull(outputs, leaf, _bend(total, outputs, parts)) for parts in ahead]
            return torch.stack(found)

        return self._within(theta, products)

    def settle(self, inputs: Batch) -> None:
        """Test whether autograd differentiates twice and correctly: J v against differences of the outputs."""
        theta = self.loss.start
        vector = torch.randn(len(theta), generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu")
        vectors = vector.to(theta)[None]
        outputs_of, _ = self.loss.parts(inputs)
        try:
            found = self._within(theta, lambda leaf: _push(outputs_of(leaf), leaf, vectors))[0]
        except FAILURES as error:
            self.once = short(error)
            return
        expected = self._by_differences(theta, vectors, outputs_of)[0]
        off = sum(float((a - b).square().sum()) for a, b in zip(found, expected, strict=True))
        size = sum(float(b.square().sum()) for b in expected)
        if math.isfinite(size) and off > 1e-4 * size:
            self.once = "its second derivative is not that of the first"

    def _within(
        self, theta: Float[Tensor, " d"], run: Callable[[Tensor], T], *, copied: bool = True, graph: bool = True
    ) -> T:
        """Return `run` of a leaf while the model has its parameters and is in evaluation mode.

        Args:
            theta: the parameters.
            run: is called with the leaf.
            copied: whether the leaf has memory of its own.
            graph: whether autograd records.
        """
        model, leaf = self.loss.network.model, theta.detach()
        leaf = (leaf.clone() if copied else leaf).requires_grad_()
        modes = [(module, module.training) for module in model.modules()]
        held = {f"model.{name}": value for name, value in self.loss.assembled(leaf).items()}
        try:
            model.eval()
            with torch.set_grad_enabled(graph):
                found: T = functional_call(_Within(model), held, (lambda: run(leaf),))
        finally:
            for module, mode in modes:
                module.training = mode
        return found

    def _by_differences(
        self, theta: Float[Tensor, " d"], vectors: Float[Tensor, "k d"], outputs_of: Callable[[Tensor], list[Tensor]]
    ) -> list[list[Tensor]]:
        """Compute J v, per output, by central differences: about ten digits in float64."""
        root = len(theta) ** 0.5
        step = float(torch.finfo(theta.dtype).eps) ** (1 / 3) * max(float(theta.norm()) / root, 1e-3)
        found = []
        with torch.no_grad():
            for vector in vectors:
                h = step * root / (float(vector.norm()) or 1.0)
                sides = zip(outputs_of(theta + h * vector), outputs_of(theta - h * vector), strict=True)
                found.append([(ahead - behind) / (2 * h) for ahead, behind in sides])
        return found


class _Within(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, run: Callable[[], Any]) -> Any:
        return run()


def gradient(function: Callable[[Tensor], Tensor], theta: Float[Tensor, " d"]) -> tuple[Tensor, Float[Tensor, " d"]]:
    """Compute value and gradient of a function by plain autograd; 0 where it does not depend on its argument."""
    leaf = theta if theta.requires_grad else theta.detach().clone().requires_grad_()
    with torch.enable_grad():
        value = function(leaf)
    return value.detach(), _pull([value], leaf, [torch.ones_like(value)])


def gradients(
    function: Callable[..., Tensor], theta: Float[Tensor, "chains d"], *more: Any
) -> tuple[Float[Tensor, " chains"], Float[Tensor, "chains d"]]:
    """Compute a function's value for each row of a matrix and its gradient with respect to that row.

    Plain autograd around `vmap` takes half the time of `vmap(grad_and_value)` on small losses.
    """
    leaf = theta.detach().clone().requires_grad_()
    with torch.enable_grad():
        values = function(leaf, *more)
    return values.detach(), _pull([values], leaf, [torch.ones_like(values)])


def products_of(
    function: Callable[[Tensor], Tensor], theta: Float[Tensor, " d"], vectors: Float[Tensor, "k d"]
) -> Float[Tensor, "k d"]:
    """Compute the Hessian of a function times each vector, by central differences of its gradient."""
    root = len(theta) ** 0.5
    step = float(torch.finfo(theta.dtype).eps) ** (1 / 3) * max(float(theta.norm()) / root, 1e-3)
    found = []
    for vector in vectors:
        h = step * root / (float(vector.norm()) or 1.0)
        ahead, behind = (gradient(function, theta + side * h * vector)[1] for side in (1, -1))
        found.append((ahead - behind) / (2 * h))
    return torch.stack(found)


def short(error: Exception) -> str:
    """Return the first sentence of an error's text.

    >>> short(ValueError("too much. Use less"))
    'too much'
    """
    lines = str(error).strip().split("\n")
    return lines[0].split(". ")[0].rstrip(".")[:160] or type(error).__name__


def _pull(
    outputs: Sequence[Tensor], leaf: Tensor, cotangents: Sequence[Tensor], *, again: bool = False, once: bool = False
) -> Tensor:
    """Compute J^T u.

    Args:
        outputs: what is differentiated.
        leaf: what it is differentiated by.
        cotangents: u.
        again: whether J^T u is differentiated again, and has a graph of its own.
        once: whether the graph is not needed any more, so that activations are freed on the way.
    """
    pairs = [(y, u) for y, u in zip(outputs, cotangents, strict=True) if y.requires_grad]
    if not pairs:
        return torch.zeros_like(leaf)
    outs, ups = [y for y, _ in pairs], [u for _, u in pairs]
    options = {"retain_graph": not once, "create_graph": again, "allow_unused": True, "materialize_grads": True}
    found: Tensor = torch.autograd.grad(outs, leaf, ups, **options)[0]
    return found


def _push(outputs: Sequence[Tensor], leaf: Tensor, vectors: Float[Tensor, "k d"]) -> list[list[Tensor]]:
    """Compute J v for each of the vectors, per output: the derivative of J^T u with respect to u."""
    cotangents = [torch.zeros_like(y, requires_grad=True) for y in outputs]
    pulled = _pull(outputs, leaf, cotangents, again=True)
    if not pulled.requires_grad:
        return [[torch.zeros_like(y) for y in outputs] for _ in vectors]
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    return [list(torch.autograd.grad(pulled, cotangents, v, **options)) for v in vectors]


def _bend(
    total: Callable[[Sequence[Tensor]], Tensor], outputs: Sequence[Tensor], moved: Sequence[Tensor]
) -> list[Tensor]:
    """Compute (d^2 loss / d output^2) J v."""
    leaves = [y.detach().clone().requires_grad_() for y in outputs]
    value = total(leaves)
    slopes = torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True, materialize_grads=True)
    pairs = [(g, v) for g, v in zip(slopes, moved, strict=True) if g.requires_grad]
    if not pairs:
        return [torch.zeros_like(y) for y in leaves]
    turned = torch.autograd.grad(
        [g for g, _ in pairs], leaves, [v for _, v in pairs], allow_unused=True, materialize_grads=True
    )
    return list(turned)


def _weighted(slopes: Float[Tensor, "rows d"], outputs: Sequence[Tensor], loss: str) -> Float[Tensor, "rows d"]:
    """Compute rows of a data point's Jacobian, times the root of the loss's second derivative in the outputs."""
    if loss != "kl":
        return torch.mul(slopes, math.sqrt(2))
    size, outputs = outputs[0].numel(), [part.to(slopes.device) for part in outputs]
    head = slopes[:size].reshape(*outputs[0].shape[1:], -1)
    p = outputs[0][0].softmax(-1)[..., None]
    head = p.sqrt() * (head - (p * head).sum(-2, keepdim=True))
    return torch.cat([head.flatten(0, 1), math.sqrt(2) * slopes[size:]])
