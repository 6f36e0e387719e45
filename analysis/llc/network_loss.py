"""The loss of a network as a function of its parameters: behavioural, or the user's training loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from itertools import accumulate, pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..checkpoints.pairs import Pair, ignores_pairing, join_pairs, read_pairs, reduction_of, sliceable
from ..checkpoints.weights import refuse_shared_memory
from ..derivatives import describe_disagreements, gradient_disagreements
from ..devices.device import summed
from ..errors import DataError, InputError
from ..network.batches import Batch, batch_size, describe, map_tensors, naming_batch, take_points
from ..network.network import Network
from ..progress import ProgressCallback
from .batch_loss import LARGE, BatchLoss, Parameters, TrainingLoss
from .ways import FAILURES, PlainAutograd, Transforms, Way, short

__all__ = ["DENSE", "NetworkLandscape", "behavioural_loss", "training_loss"]

DENSE = 3000  # largest order of a symmetric matrix that is diagonalised

_HELD = 2**28  # numbers of all outputs up to which they are kept as targets: 1 GiB in float32

_IN_DOUBLE = 10**5  # a model in float32 with up to so many parameters is copied to float64

_TOGETHER = 10**6  # parameters up to which a stack of vectors is evaluated at once

_PART = 2**18  # numbers of the outputs of a part of the data of a large model

_ROWS = 2 * 10**7  # numbers in a block of per-sample gradients

_ROWS_ALONE = 3000  # up to so many rows they are computed one by one

_TESTED = 256, 3 * 10**7  # data points on which gradients are tested, and these times parameters

_NO_DERIVATIVE = (
    "Something there tells autograd another derivative: padding_idx or scale_grad_by_freq of F.embedding, a "
    "straight-through estimator, detach, a hook on gradients, or a backward of its own. Take it out, or hold these "
    "parameters fixed by leaving them out of parameters="
)


class NetworkLandscape:
    """The loss of a network's parameters on data, which is held in memory.

    Use `behavioural_loss`, `constrained_loss` or `training_loss` to make one. The network's own checks run first
    (`Network.check_once`), and autograd's gradient is tested against finite differences, unless the network is
    trusted (`Network(check=False)`). Rows of embeddings with `padding_idx` are parameters like others: give masks to
    keep them fixed, as training does.

    Args:
        network: the network; models in float32 with at most 100,000 parameters are copied to float64.
        batches: the data; read once. With a training loss, pairs of (input, target).
        parameters: parameters to vary: globs, or masks by name; None for all.
        readout: per name of a cut a matrix (m, width) whose rows are weighted mediating nodes.
        loss: a training loss instead of the behavioural one.
        reduction: reduction of the training loss, see `training_loss`.
        progress: called after each batch.

    Attributes:
        names: names of the parameters that are varied.
        checked: whether the checks of the network ran and passed.
        notes: remarks, as sentences.
        reduction: reduction of the training loss, as given or found.
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        network: Network,
        batches: Iterable[Batch],
        *,
        parameters: Parameters | None = None,
        readout: Mapping[str, Float[Tensor, "m width"]] | None = None,
        loss: TrainingLoss | None = None,
        reduction: str | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        if reduction not in (None, "mean", "sum"):
            raise InputError(f"unknown reduction {reduction!r}: expected 'mean', 'sum', or None to find out")
        self.behavioural = loss is None
        self.notes: tuple[str, ...] = ()
        self._batches = read_pairs(batches, labelled=loss is not None, progress=progress)
        given = [inputs for inputs, _ in self._batches]
        self.n = sum(batch_size(inputs) for inputs in given)
        self._loss = self._of(network, lambda network: BatchLoss(network, parameters, readout or {}, loss))
        refuse_shared_memory(network.model, self._loss.names)
        if loss is None:
            network.check_once(given)
        self.checked = network.checked if loss is None else network.check_returned(given)
        self.network, self.start, self.names = self._loss.network, self._loss.start, self._loss.names
        self.reduction = reduction or "mean"
        if loss is not None:
            self._refuse_all_pairs(fails=reduction is None)
        if loss is not None and reduction is None:
            self.reduction = reduction_of(self._of_some, self._batches)
        self.row_count = self.n * self._loss.outputs_per_point if self.behavioural else 0
        if min(len(self.start), self.row_count) > DENSE or len(self.start) > 10 * DENSE:
            self.row_count = 0  # too many for all eigenpairs, for which alone they are needed
        self._alone: PlainAutograd | None = None  # of a large model, for one vector at a time
        self._ahead = False  # whether it has forward derivatives
        self._joined: Pair | None = None
        self._choose_ways()
        first = float(self.evaluate(self.start[None])[0])
        if not math.isfinite(first):
            raise DataError("the loss is NaN or infinite at the trained parameters: check data, targets and weights")
        if self.behavioural and first > self._rounding():
            raise DataError(
                f"the behavioural loss at the trained parameters is {first:.3g}, expected 0: the model gives other "
                "outputs when it is run again, so it keeps state, is random, or takes another path with gradients"
            )
        self.baseline = 0.0 if self.behavioural else first
        self.scale = self._constant_output() if self.behavioural else max(abs(first), 1e-12)
        if network.check:
            self._check_gradient()

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many entries of each parameter are varied."""
        return tuple(self._loss.sizes)

    @property
    def inputs(self) -> list[Batch]:
        """The batches of data, in the type of the parameters."""
        return [inputs for inputs, _ in self._batches]

    @property
    def outputs_per_point(self) -> int:
        """The numbers of the output of a data point."""
        return self._loss.outputs_per_point

    @property
    def vectorised(self) -> bool:
        """Whether a stack of vectors is evaluated at once by `torch.func`; set it to False for plain autograd."""
        return isinstance(self._ways["values"], Transforms)

    @vectorised.setter
    def vectorised(self, wanted: bool) -> None:
        way = Transforms(self._loss) if wanted else PlainAutograd(self._loss)
        self._ways: dict[str, Way] = dict.fromkeys(("values", "points", "rows", "products"), way)

    def evaluate(
        self, theta: Float[Tensor, "chains d"], points: Int[Tensor, "chains points"] | None = None
    ) -> tuple[Float[Tensor, " chains"], Float[Tensor, "chains d"]]:
        """Compute L and its gradient, over all data or as the mean over each chain's own data points."""
        if len(theta) > 1 and (self._alone is not None or theta.shape[1] > _TOGETHER):
            each = [
                self.evaluate(theta[c : c + 1], None if points is None else points[c : c + 1])
                for c in range(len(theta))
            ]
            return torch.cat([value for value, _ in each]), torch.cat([slope for _, slope in each])
        if self._alone is not None:
            parts = self._batches if points is None else [take_points(self._only_batch(), points[0])]
            return self._evaluated(self._alone, theta[0], parts, self.n if points is None else points.shape[1])
        if points is not None:
            value, slope = self._ways["points"].values(theta, self._only_batch(), points)
            weight = self._weight(points.shape[1], points.shape[1])
            return weight * value, weight * slope
        value, slope = theta.new_zeros(len(theta)), torch.zeros_like(theta)
        for pair in self._batches:
            more, other = self._ways["values"].values(theta, pair)
            weight = self._weight(batch_size(pair[0]), self.n)
            value, slope = value + weight * more, slope + weight * other
        return value, slope

    def _evaluated(
        self, way: PlainAutograd, theta: Float[Tensor, " d"], parts: Sequence[Pair], n: int
    ) -> tuple[Float[Tensor, " chains"], Float[Tensor, "chains d"]]:
        """Compute L and its gradient at one vector, changing the gradient in place."""
        value, total = theta.new_zeros(1), None
        for pair in parts:
            more, slope = way.slope(theta, pair, self._weight(batch_size(pair[0]), n))
            value += more
            total = slope if total is None else total.add_(slope)
            del slope
        return value, torch.zeros_like(theta)[None] if total is None else total[None]

    def rows(self, theta: Float[Tensor, " d"]) -> Iterator[Float[Tensor, "rows d"]]:
        """Yield blocks of rows R with sum R^T R = H: gradients of single data points, weighted by the loss."""
        if not self.row_count:
            return
        size = max(1, _ROWS // max(1, self.row_count // self.n * len(theta)))
        for inputs, _ in self._batches:
            n = batch_size(inputs)
            for first in range(0, n, size):
                part = take_points(inputs, slice(first, first + size)) if size < n else inputs
                yield self._ways["rows"].rows(theta, part).flatten(0, 1) / math.sqrt(self.n)

    def product(self, theta: Float[Tensor, " d"], vectors: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        """Compute H v = 1/n sum_x J^T (d^2 loss / d output^2) J v."""
        if self._alone is not None and self._ahead:
            products = [self._product(self._alone, theta, vector) for vector in vectors]
            return products[0][None] if len(products) == 1 else torch.stack(products)
        total = torch.zeros_like(vectors)
        for pair in self._batches:
            total += self._weight(batch_size(pair[0]), self.n) * self._ways["products"].products(theta, vectors, pair)
        return total

    def _product(self, way: PlainAutograd, theta: Float[Tensor, " d"], vector: Float[Tensor, " d"]) -> Tensor:
        total = None
        for pair in self._batches:
            part = way.product(theta, vector, pair).mul_(self._weight(batch_size(pair[0]), self.n))
            total = part if total is None else total.add_(part)
            del part
        return torch.zeros_like(vector) if total is None else total

    def _of(self, network: Network, make: Callable[[Network], BatchLoss]) -> BatchLoss:
        """Build the loss of batches and their targets, in float64 if that is affordable and the model can."""
        pairs = self._batches
        parameters = [p for p in network.model.parameters() if p.is_floating_point()]
        double = all(p.dtype == torch.float64 for p in parameters)
        if not double and sum(p.numel() for p in parameters) <= _IN_DOUBLE:
            try:
                loss = make(network.in_double())
                self._batches = self._targeted(loss, [_pair_in_double(pair) for pair in pairs])
                loss.value(loss.nearby, *self._batches[0])
                return loss
            except (DataError, *FAILURES) as error:
                loss = make(network)
                self._batches = self._targeted(loss, pairs)
                self.notes += (f"computed in {loss.start.dtype}: in float64 the model fails ({short(error)})",)
                return loss
        loss = make(network)
        self._batches = self._targeted(loss, pairs)
        return loss

    def _targeted(self, loss: BatchLoss, pairs: list[Pair]) -> list[Pair]:
        """Return the batches with their targets, which a behavioural loss computes each time where they are many."""
        first = loss.with_targets(pairs[0])
        loss.held = not self.behavioural or self.n * loss.outputs_per_point <= _HELD
        return [first if loss.held else (first[0], None), *(loss.with_targets(pair) for pair in pairs[1:])]

    def _of_some(self, pair: Pair) -> float:
        """Compute the training loss of some data points, near the start.

        Raises:
            DataError: the loss fails on them.
        """
        try:
            return float(self._loss.value(self._loss.nearby, *pair))
        except FAILURES as error:
            raise DataError(
                f"the training loss works on whole batches only: on {batch_size(pair)} data points of "
                f"{describe(pair)} it fails: {short(error)}. Expected outputs and targets of one shape, data points "
                "along the leading axis"
            ) from error

    def _refuse_all_pairs(self, *, fails: bool) -> None:
        """Refuse a training loss over all pairs of an output and a target.

        Args:
            fails: whether to refuse a loss that fails on some of the data points, too.

        Raises:
            DataError: it is such a loss; names the shapes.
        """
        pair = max(self._batches, key=lambda pair: batch_size(pair[0]))
        try:
            mixed = ignores_pairing(self._of_some, pair, torch.finfo(self.start.dtype).eps)
        except DataError:
            if fails:
                raise
            return
        if mixed:
            raise DataError(
                "the training loss ignores which target belongs to which data point: it does not change when data "
                f"points exchange their targets, and is no mean or sum over data points; {self._loss.shapes(pair)}"
            )

    def _choose_ways(self) -> None:
        """Choose `torch.func` for all chains at once if it supports the model and agrees with autograd."""
        if len(self.start) > LARGE:
            self._choose_alone()
            return
        pair, theta = self._batches[0], self._loss.nearby
        few = take_points(pair[0], slice(0, 2))
        plain, fast = PlainAutograd(self._loss), Transforms(self._loss)
        with naming_batch(pair[0]):
            plain.settle(pair[0])
            values = plain.values(theta[None], pair)
        self.vectorised = True
        why: dict[str, str] = {}

        def probe(name: str, way: Way) -> tuple[Tensor, ...]:
            if name == "values":
                return way.values(theta[None], pair)
            if name == "points":  # of each chain its own, which a model that branches on its input does not allow
                return way.values(theta[None], pair, torch.zeros(1, 1, dtype=torch.int64, device="cpu"))
            return (way.products(theta, theta[None], pair) if name == "products" else way.rows(theta, few),)

        drawn = ["points"] if sliceable(pair) else []
        for name in ["values", "products", *drawn, *(["rows"] if self.row_count else [])]:
            try:
                pairs = zip(probe(name, fast), values if name == "values" else probe(name, plain), strict=True)
                if not all(_same(a, b) for a, b in pairs):
                    why[name] = "it gives other numbers"
            except FAILURES as error:
                why[name] = short(error)
        if plain.once:
            why.setdefault("products", plain.once)
        self._ways |= dict.fromkeys(why, plain)
        if "values" in why:
            said = f"derivatives by plain autograd, one chain at a time, since torch.func cannot ({why['values']})"
            self.notes += (said,)
        if "rows" in why and self.row_count > _ROWS_ALONE:
            self.row_count = 0
        if "products" in why and plain.once and not self.row_count:
            self.notes += (f"curvature by finite differences, since autograd differentiates once ({plain.once})",)

    def _choose_alone(self) -> None:
        """Take plain autograd, one vector at a time, and forward derivatives for H v where the model has them."""
        self._batches = [part for pair in self._batches for part in self._in_parts(pair)]
        pair, start = self._batches[0], self.start
        self.vectorised = False
        self._alone = PlainAutograd(self._loss)
        vector = torch.randn(len(start), generator=torch.Generator().manual_seed(0), dtype=start.dtype, device="cpu")
        with naming_batch(pair[0]):
            try:
                self._ahead = bool(torch.isfinite(self._alone.product(start, vector, pair)).all())
            except FAILURES:
                self._ahead = False
            if not self._ahead:
                self._alone.settle(pair[0])
                self._ways = dict.fromkeys(self._ways, self._alone)
                if self._alone.once:
                    said = f"curvature by finite differences, since autograd differentiates once ({self._alone.once})"
                    self.notes += (said,)

    def _in_parts(self, pair: Pair) -> list[Pair]:
        """Cut a batch into parts whose activations are small beside those of a step's batch."""
        size = max(1, _PART // max(1, self._loss.outputs_per_point))
        if not sliceable(pair) or batch_size(pair) <= size or (pair[1] is None and self._loss.loss is not None):
            return [pair]
        return [take_points(pair, slice(first, first + size)) for first in range(0, batch_size(pair), size)]

    def _check_gradient(self) -> None:
        """Refuse a loss whose gradient is not its derivative, at a point near theta*.

        Raises:
            InputError: the gradient is wrong; names the parameters.
        """
        loss, pair = self._loss, self._batches[0]
        if self.start.dtype != torch.float64:
            try:
                loss, pair = self._in_double()
            except (DataError, *FAILURES):
                loss, pair = self._loss, self._batches[0]
        if sliceable(pair):
            pair = take_points(pair, slice(0, min(_TESTED[0], max(2, _TESTED[1] // len(self.start)))))
        theta = loss.nearby
        way = Transforms(loss) if self.vectorised else PlainAutograd(loss)

        def value(named: Mapping[str, Tensor]) -> Tensor:
            return loss.value(torch.cat(list(named.values())), *pair)

        with naming_batch(pair[0]):
            slope = way.values(theta[None], pair)[1][0]
            at, slopes = (dict(zip(loss.names, v.split(loss.sizes), strict=True)) for v in (theta, slope))
            found = gradient_disagreements(value, at, slopes)
        if found:
            raise InputError(
                f"autograd's gradient is not the derivative of the loss for {describe_disagreements(found)}. "
                f"{_NO_DERIVATIVE}"
            )

    def _in_double(self) -> tuple[BatchLoss, Pair]:
        """Return the loss and the first batch in float64, for tests only."""
        loss = copy(self._loss)
        loss.network = self.network.in_double()
        varied = {name for name, size in zip(loss.names, loss.sizes, strict=True) if size == loss.fixed[name].numel()}
        loss.fixed = {name: value if name in varied else summed(value) for name, value in loss.fixed.items()}
        loss.readouts = [summed(matrix) for matrix in loss.readouts]
        loss.start = self.start.double()
        pair = loss.with_targets(_pair_in_double(self._batches[0]))
        loss.value(loss.nearby, *pair)
        return loss, pair

    def _rounding(self) -> float:
        """Return the largest behavioural loss at theta* that counts as rounding."""
        targets = (part for pair in self._batches for part in self._loss.target(pair))
        square = max(float(part.square().sum(-1).max()) for part in targets)
        return float((1e3 * torch.finfo(self.start.dtype).eps) ** 2 * square)

    def _constant_output(self) -> float:
        """Compute the behavioural loss of a network whose output is always the mean output."""
        kl = self.network.loss == "kl"
        count, mean, total = 0, torch.zeros((), device="cpu"), 0.0
        for part in self._output_rows():
            count, mean = count + len(part), mean + (part.exp() if kl else part).sum(0)
        mean = (mean / count).log() if kl else mean / count
        for part in self._output_rows():
            total += float((part.exp() * (part - mean)).sum() if kl else (part - mean).square().sum())
        return total / self.n or 1.0

    def _output_rows(self) -> Iterator[Tensor]:
        """Yield the reference outputs per batch; single positions that count where these differ or are many."""
        shapes = {target[0].shape[1:] for _, target in self._batches if target is not None}
        whole = len(shapes) == 1 and not self.network.masked
        for pair in self._batches:
            part = self._loss.target(pair)[0]
            if not whole:
                with torch.no_grad():
                    part = self.network.counted_output(pair[0])[1].rows(part)
            yield part

    def _weight(self, count: int, whole: int) -> float:
        """Return the factor of the loss of a batch of `count` data points, out of `whole` data points."""
        if self.behavioural:
            return 1 / whole
        return count / whole if self.reduction == "mean" else self.n / whole

    def _only_batch(self) -> Pair:
        if self._joined is None and (len(self._batches) > 1 or not sliceable(self._batches[0])):
            joined = join_pairs(self._batches)
            if joined is None:
                raise DataError("the batches have different shapes: batches of random data points need equal ones")
            ends = [0, *accumulate(batch_size(pair[0]) for pair in self._batches)]
            self._joined, cut = joined, self._alone is not None
            self._batches = [take_points(joined, slice(*part)) for part in pairwise(ends)] if cut else [joined]
        return self._batches[0] if self._joined is None else self._joined


def behavioural_loss(
    network: Network,
    batches: Iterable[Batch],
    *,
    parameters: Parameters | None = None,
    progress: ProgressCallback | None = None,
) -> NetworkLandscape:
    """Build the loss that measures how far outputs move from those of the trained network (paper, eq. 6).

    Raises:
        DataError: no data.
        InputError: `parameters` names no parameter.
    """
    return NetworkLandscape(network, batches, parameters=parameters, progress=progress)


def training_loss(
    network: Network,
    batches: Iterable[Any],
    loss: TrainingLoss,
    *,
    parameters: Parameters | None = None,
    reduction: str | None = None,
    progress: ProgressCallback | None = None,
) -> NetworkLandscape:
    """Build the user's loss(output, target) on pairs of (input, target), as on one batch of all data.

    Args:
        network: the network. The loss sees what the model returns, or the part that `Network(output=...)` names, in its
            own shape and structure; `positions` are ignored.
        batches: pairs of (input, target). Targets may have any structure whose tensors hold the data points along their
            leading axes; others only in a single batch.
        loss: a mean over the data points of a batch, or their sum.
        parameters: parameters to vary.
        reduction: "mean": L = sum_b n_b loss_b / n; "sum": L = sum_b loss_b; None finds out, by taking the data points
            of a batch twice.
        progress: called after each batch.

    Raises:
        DataError: no data, batches that are not pairs, or a loss that broadcasts outputs against targets of another
            shape, so that it compares outputs with targets of other data points.
        InputError: the loss is not a single number, it is neither a mean nor a sum and there are several batches, or
            `parameters` names no parameter.
    """
    return NetworkLandscape(network, batches, parameters=parameters, loss=loss, reduction=reduction, progress=progress)


def _pair_in_double(pair: Pair) -> Pair:
    changed: Pair = map_tensors(lambda v: summed(v) if v.is_floating_point() else v, pair)
    return changed


def _same(a: Tensor, b: Tensor) -> bool:
    """Return whether two values are equal up to rounding, or both not finite."""
    if not torch.isfinite(b).all():
        return not torch.isfinite(a).all()
    return float((a - b).norm()) <= 1e4 * torch.finfo(b.dtype).eps * float(b.norm()) + 1e-30
