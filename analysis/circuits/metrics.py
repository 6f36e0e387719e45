"""Metrics of a network: one value per data point, a behavioural loss, a task metric or a user's function."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import DataError, GraphError
from ..huggingface.language import IGNORED
from ..results import by_value

__all__ = [
    "BEHAVIOURAL",
    "METRICS",
    "NEEDS_TARGETS",
    "Estimate",
    "Metric",
    "MetricFunction",
    "class_accuracy",
    "difference",
    "estimate",
    "find_metric",
]

MetricFunction: TypeAlias = Callable[[Tensor, Tensor | None], Tensor]

"""metric(output (batch, positions, width), targets or None) -> one number per data point, of that point alone."""

_CLASSES = 2**20  # largest number of (answer, class) pairs that are counted one by one

_ALONE = 3  # data points of a batch at which a metric is also computed alone

_SAME = 1e-5  # rounding, relative to the largest value in the batch


@by_value
@dataclass(frozen=True)
class Metric:
    """One value per data point; the mean measures how well a network does.

    Attributes:
        name: name to show and store.
        function: function of output, the whole network's output, and targets.
        higher_is_better: True for an accuracy, False for a loss.
    """

    name: str
    function: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    higher_is_better: bool = False

    def values(
        self,
        output: Tensor,
        whole: Tensor,
        targets: Tensor | None,
        counted: Bool[Tensor, "batch positions"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """Compute the value of every data point, float64.

        Args:
            output: (batch, positions, width).
            whole: the whole network's output.
            targets: (batch, ...).
            counted: which positions count at each data point; None for all. The function sees only these, for data
                points with equal numbers of them at a time; the same holds for targets (batch, positions, ...).

        Raises:
            DataError: targets are missing or do not fit, or values are NaN or not one number per data point.
        """
        if counted is not None and not counted.all():
            values = torch.zeros(len(output), dtype=torch.float64, device="cpu")
            for members in _alike(counted):
                mask = counted[members]
                given = None if targets is None else _where_counted(targets[members], mask)
                values[members] = self.values(
                    _where_counted(output[members], mask), _where_counted(whole[members], mask), given
                )
            return values
        try:
            values = self.function(output, whole, targets)
        except DataError:
            raise
        except Exception as error:  # the user's function may fail in any way
            raise DataError(f"metric {self.name!r} failed: {type(error).__name__}: {error}") from error
        if not isinstance(values, Tensor) or values.shape != (len(output),):
            seen = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise DataError(f"metric {self.name!r} gave {seen}: expected one number per data point, ({len(output)},)")
        values = values.detach().double()
        if not torch.isfinite(values).all():
            raise DataError(f"metric {self.name!r} is NaN or infinite for some data points: check outputs and targets")
        return values

    def check_alone(
        self,
        output: Tensor,
        whole: Tensor,
        targets: Tensor | None,
        counted: Bool[Tensor, "batch positions"] | None = None,
    ) -> None:
        """Refuse a user's function whose value of a data point depends on other data points in the batch.

        A batch that repeats one data point must give the value that the point has among the others. Tensors of
        different shapes, which torch broadcasts, do not: output (n, 1, c) - targets (n, c) is (n, n, c).

        Args:
            output: (batch, positions, width).
            whole: the whole network's output.
            targets: (batch, ...).
            counted: see `values`.

        Raises:
            DataError: the value depends on them; or see `values`.
        """
        if METRICS.get(self.name) is self or len(output) < 2:
            return
        values = self.values(output, whole, targets, counted)
        last = len(output) - 1
        for point in sorted({round(last * i / (_ALONE - 1)) for i in range(_ALONE)}):
            rows = torch.full((len(output),), point, device="cpu")
            given = None if targets is None else targets[rows]
            alone = self.values(output[rows], whole[rows], given, None if counted is None else counted[rows])
            furthest = alone[(alone - values[point]).abs().argmax()]
            if abs(float(furthest - values[point])) <= _SAME * float(torch.cat([values, alone]).abs().max()):
                continue
            shapes = f"(data points, positions, width) {tuple(output.shape)}"
            other = None if targets is None else tuple(targets.shape)
            raise DataError(
                f"metric {self.name!r} gives data point {point} of a batch {float(values[point]):.4g} among the other "
                f"ones and {float(furthest):.4g} without them: expected a value that does not depend on other data "
                f"points. Outputs are {shapes}, targets {other}: torch broadcasts shapes that differ. Make them alike "
                "(output[:, 0] where there is one position), and reduce every axis but the first; no means, ranks or "
                "random numbers over the batch"
            )

    def loss(self, value: float) -> float:
        """Return values such that smaller is better."""
        return -value if self.higher_is_better else value


@dataclass(frozen=True)
class Estimate:
    """A mean over data points and its standard error, std / sqrt(n)."""

    value: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {float(f'{self.standard_error:.1g}'):g}"


def estimate(values: Float[np.ndarray, " n"]) -> Estimate:
    """Compute mean and standard error of one value per data point; for a single point the error is 0.

    >>> str(estimate(np.array([0.0, 1.0, 1.0, 0.0])))
    '0.5 ± 0.3'
    """
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return Estimate(float(np.mean(values)), error)


def difference(values: Float[np.ndarray, " n"], whole: Float[np.ndarray, " n"]) -> Estimate:
    """Compute mean and standard error of the change per data point, both on the same points."""
    return estimate(values - whole)


def find_metric(metric: str | MetricFunction | Metric, higher_is_better: bool | None = None) -> Metric:
    """Return the metric of a name, or one around a user's function.

    Args:
        metric: "loss" is the behavioural loss in the network's own kind, named "mse" or "kl" before it gets here;
            "accuracy", "cross_entropy" (means over the answers of a data point whose target is not `IGNORED`); or a
            function of (output, targets).
        higher_is_better: direction of a function; ignored for named metrics.

    Raises:
        GraphError: there is no such metric, or `higher_is_better` is missing for a function.

    >>> find_metric("accuracy").higher_is_better
    True
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        if metric not in METRICS:
            raise GraphError(f"unknown metric {metric!r}: expected loss, {', '.join(METRICS)}, or a function")
        return METRICS[metric]
    given, name = metric, getattr(metric, "__name__", "metric")
    if higher_is_better is None:
        raise GraphError(
            f"is a higher {name!r} better? p-values depend on it: give higher_is_better=True (an accuracy) or "
            "False (a loss)"
        )
    return Metric(name, lambda output, _, targets: given(output, targets), higher_is_better)


def class_accuracy(
    output: Tensor, targets: Tensor | None, counted: Bool[Tensor, "batch positions"] | None = None
) -> tuple[Tensor, Tensor]:
    """Count right answers and data points per (answer, class); empty if targets are no classes that fit.

    Answers are positions, so the result is also empty if different positions count at different data points, and where
    there are more than 2^20 answers times classes, as there are in a vocabulary.
    """
    if counted is not None and not counted.all():
        if not torch.equal(counted, counted[:1].expand_as(counted)):
            return torch.zeros(0, 0, device="cpu"), torch.zeros(0, 0, device="cpu")
        output, targets = _where_counted(output, counted), None if targets is None else _where_counted(targets, counted)
    try:
        logits, expected = _answers("accuracy", output, targets)
    except DataError:
        return torch.zeros(0, 0, device="cpu"), torch.zeros(0, 0, device="cpu")
    shape = (expected.shape[1], logits.shape[-1])
    if math.prod(shape) > _CLASSES:
        return torch.zeros(0, 0, device="cpu"), torch.zeros(0, 0, device="cpu")
    right, count = (
        torch.zeros(shape, dtype=torch.float64, device="cpu"),
        torch.zeros(shape, dtype=torch.float64, device="cpu"),
    )
    hits = (logits.argmax(-1) == expected).double()
    for answer in range(shape[0]):
        known = expected[:, answer] != IGNORED
        classes = expected[known, answer]
        right[answer].index_add_(0, classes, hits[known, answer])
        count[answer].index_add_(0, classes, torch.ones(len(classes), dtype=torch.float64, device="cpu"))
    return right, count


def _alike(counted: Bool[Tensor, "batch positions"]) -> Iterator[Int[Tensor, " members"]]:
    """Group data points at which equally many positions count."""
    numbers = counted.sum(1)
    for number in numbers.unique():
        yield (numbers == number).nonzero()[:, 0]


def _where_counted(value: Tensor, mask: Bool[Tensor, "batch positions"]) -> Tensor:
    """Select counted positions, equally many at each data point; without positions return the value as it is."""
    return value[mask].unflatten(0, (len(mask), -1)) if value.shape[:2] == mask.shape else value


def _mse(output: Tensor, whole: Tensor, _: Tensor | None) -> Tensor:
    return (output - whole).square().flatten(1).sum(1)


def _kl(output: Tensor, whole: Tensor, _: Tensor | None) -> Tensor:
    expected = whole.log_softmax(-1)
    change = output.log_softmax(-1) - expected
    return (expected.exp() * (torch.expm1(change) - change)).flatten(1).sum(1)  # every term is >= 0


def _accuracy(output: Tensor, _: Tensor, targets: Tensor | None) -> Tensor:
    logits, expected = _answers("accuracy", output, targets)
    return _mean_of_known((logits.argmax(-1) == expected).double(), expected)


def _cross_entropy(output: Tensor, _: Tensor, targets: Tensor | None) -> Tensor:
    logits, expected = _answers("cross_entropy", output, targets)
    chosen = expected.clamp(min=0)[..., None]
    return _mean_of_known(-logits.log_softmax(-1).gather(-1, chosen)[..., 0], expected)


def _mean_of_known(values: Tensor, expected: Tensor) -> Tensor:
    """Compute the mean over the answers that count."""
    known = expected != IGNORED
    if not known.any(1).all():
        raise DataError(f"all targets of a data point are {IGNORED}: expected a class at one position or more")
    return torch.where(known, values, 0.0).sum(1) / known.sum(1)


def _answers(name: str, output: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return logits (batch, answers, classes) and classes (batch, answers).

    There is one answer per position; or, if there is one position, one per entry in a row of targets, each with its
    share of the outputs.
    """
    if targets is None:
        raise DataError(f"metric {name!r} needs targets, and the data have none: give targets, or metric='loss'")
    if targets.is_floating_point() or targets.is_complex():
        raise DataError(f"metric {name!r} needs classes as targets: expected integers, got {targets.dtype}")
    expected = targets.long().flatten(1) if targets.ndim > 1 else targets.long()[:, None]
    n, positions, width = output.shape
    answers = expected.shape[1]
    if not answers:
        raise DataError(f"targets have shape {tuple(targets.shape)}: metric {name!r} needs a class per data point")
    if positions == 1 and width % answers == 0:
        output = output.reshape(n, answers, width // answers)
    if output.shape[:2] != expected.shape:
        raise DataError(
            f"targets of shape {tuple(targets.shape)} do not fit an output of (points, positions, width) "
            f"{(n, positions, width)}: expected one class per point and position"
        )
    known = expected[expected != IGNORED]
    if known.numel() and (int(known.min()) < 0 or int(known.max()) >= output.shape[-1]):
        raise DataError(
            f"targets go from {int(known.min())} to {int(known.max())}: expected classes 0 to {output.shape[-1] - 1}, "
            f"or {IGNORED} where none is expected"
        )
    return output, expected


METRICS: dict[str, Metric] = {
    "mse": Metric("mse", _mse),
    "kl": Metric("kl", _kl),
    "accuracy": Metric("accuracy", _accuracy, higher_is_better=True),
    "cross_entropy": Metric("cross_entropy", _cross_entropy),
}

"""The named metrics."""

BEHAVIOURAL = ("mse", "kl")

"""The behavioural losses, which compare with the whole network."""

NEEDS_TARGETS = ("accuracy", "cross_entropy")

"""The metrics that compare with targets; of a decoder without targets these are the next tokens."""
