"""Checks of what the analyses assume about a model.

1. Layout: the leading axis of the output and of every tensor at a cut is the data point.
2. Independence: f(x[index]) = f(x)[index] at all of them, where half of the data points are replaced by others.
3. Function: the same batch gives the same numbers twice, without gradients and with them.

"The same" allows for rounding: a difference of eps^(2/3) of the largest number there (4e-11 in float64, 2e-5 in
float32). All functions take `run(batch, gradients)`, which runs the model once and returns tensors by name of their
place, the data point first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.utils.checkpoint
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from .batches import Batch, batch_size, take_points, tensors
from .errors import CutError, DataError

__all__ = [
    "Events",
    "Run",
    "Seen",
    "check_function",
    "check_points",
    "check_sizes",
    "differs",
    "halves",
    "parameters_put_back",
    "random_numbers_put_back",
    "refuse_checkpointing",
    "spread",
]

Seen: TypeAlias = dict[str, Tensor]
Run: TypeAlias = Callable[[Batch, bool], Seen]
Events: TypeAlias = Callable[[Batch, bool], list[tuple[str, Any]]]
"""Runs the model like `Run` and returns what goes into and comes out of every module, in order."""

_POINTS = 16  # data points that the checks look at first
_REPEATS = 8  # runs of a model that draws random numbers and gave the same output twice


def spread(batch: Batch) -> Batch:
    """At most 16 data points, evenly spaced over the batch."""
    n = batch_size(batch)
    return batch if n <= _POINTS else take_points(batch, torch.linspace(0, n - 1, _POINTS).round().long())


def differs(a: Tensor, b: Tensor) -> float:
    """Largest difference of two tensors as a share of the largest number; 0 where it may be rounding."""
    if a.shape != b.shape:
        return float("inf")
    if torch.equal(a, b):
        return 0.0
    kind = a.dtype if a.is_floating_point() or a.is_complex() else torch.float64
    a, b = (_real(v) for v in (a, b))
    share = float((a - b).abs().max() / a.abs().max().clamp_min(torch.finfo(torch.float64).tiny))
    return 0.0 if share <= torch.finfo(kind).eps ** (2 / 3) else share


def check_sizes(seen: Mapping[str, Tensor], n: int) -> None:
    """The leading axis of every tensor has the length of the batch.

    Raises:
        CutError: names the place, its shape and the layout that is expected.
    """
    for name, value in seen.items():
        if value.ndim and len(value) == n:
            continue
        shape = tuple(value.shape)
        if value.ndim and len(value) and len(value) % n == 0 and len(value) > n:
            todo = f"positions seem to be merged with data points: reshape to ({n}, {len(value) // n}, ...)"
        elif value.ndim and len(value) == 1:
            todo = "one row serves all data points: expand it to the batch"
        else:
            todo = "the data point must be the first axis" + _declare(name, value)
        raise CutError(
            f"{name!r} has shape {shape} for a batch of {n} data points: expected (batch, width) or (batch, positions, "
            f"width). {todo[0].upper()}{todo[1:]}"
        )


def halves(n: int) -> tuple[Int[Tensor, " a"], Int[Tensor, " b"]]:
    """Two halves of n data points, drawn once for all."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    return order[: n // 2], order[n // 2 :]


def check_points(run: Run, batch: Batch, events: Events) -> None:
    """Replacing half of the data points by others leaves the rest as it was and moves the rows along, gradients on.

    Raises:
        CutError: names the place where data points are mixed, and a module where it starts.
    """
    n = batch_size(batch)
    base = run(batch, True)
    check_sizes(base, n)
    if n < 2:
        return
    one, other = halves(n)
    for replaced, kept in ((one, other), (other, one)):
        index = torch.arange(n)
        index[replaced] = kept[torch.arange(len(replaced)) % len(kept)]
        changed = take_points(batch, index)
        seen = run(changed, True)
        for name, value in seen.items():
            if share := differs(base[name][kept], value[kept]):
                start = _start(events(batch, True), events(changed, True), lambda v, kept=kept: v[kept], n)
                raise CutError(
                    f"data points are mixed: replacing half of a batch changes the others at {name!r} by {share:.2g} "
                    f"of the largest number there{start}. Each data point must be a row of its own along the first of "
                    f"the axes {tuple(value.shape)}{_declare(name, value)}. A model that normalises or centres over "
                    "the batch needs statistics that are fixed" + _shared(batch)
                )
            if share := differs(base[name][index], value):
                raise CutError(
                    f"{name!r} depends on the place of a data point in its batch, by {share:.2g} of the largest number "
                    f"there: each data point must be a row of its own along the first of the axes {tuple(value.shape)}"
                    + _declare(name, value)
                )


def check_function(model: nn.Module, run: Run, batch: Batch, whole: Batch, events: Events) -> tuple[str, ...]:
    """The same batch gives the same numbers twice, and the same with gradients.

    Args:
        model: whose buffers are watched.
        run: see above.
        batch: a few data points.
        whole: more of them, for a model that draws random numbers and seems not to use them.
        events: names the module where numbers begin to differ.

    Returns:
        Names of buffers that the model writes into without an effect on the numbers.

    Raises:
        DataError: the model is random, keeps state, writes into its parameters, or has other numbers with gradients.
    """
    held, state = _copies(model), _random_state()
    with parameters_put_back(model):
        first = run(batch, False)
    between = _copies(model)
    second = run(batch, False)
    after = _copies(model)
    written = tuple(name for name, value in after.items() if name in between and differs(between[name], value))
    drawn = not _same_state(state, _random_state())
    try:
        _agree(first, second, "twice", drawn, written, lambda: (events(batch, False), events(batch, False)))
        for _ in range(_REPEATS if drawn else 0):
            _agree(run(whole, False), run(whole, False), "twice", drawn, written, lambda: ([], []))
        graded = run(batch, True)
        _agree(second, graded, "gradients", drawn, written, lambda: (events(batch, False), events(batch, True)))
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if name in written and name in held and buffer.shape == held[name].shape:
                    buffer.copy_(held[name])
    return written


def _agree(
    one: Seen,
    other: Seen,
    what: str,
    drawn: bool,
    written: tuple[str, ...],
    again: Callable[[], tuple[list[tuple[str, Any]], list[tuple[str, Any]]]],
) -> None:
    for name, value in one.items():
        share = differs(value, other[name])
        if not share:
            continue
        start = _start(*again(), lambda v: v)
        if what == "gradients":
            cause = "it takes another path with gradients: expected one function for both"
        elif drawn:
            cause = (
                "it draws random numbers in evaluation mode: use nn.Dropout, or dropout(..., training=self.training)"
            )
        else:
            kept = f" (buffers {', '.join(written)} change)" if written else ""
            cause = (
                f"it keeps state between runs{kept}, or is random: expected a function of parameters and batch alone"
            )
        how = "run twice on one batch" if what == "twice" else "run with gradients and without"
        raise DataError(f"the model {how} gives {name!r} with a difference of {share:.2g}{start}; {cause}")


@contextmanager
def parameters_put_back(model: nn.Module) -> Iterator[None]:
    """Refuse a model that writes into its parameters, which are put back."""
    held = {
        name: (parameter, parameter.detach().clone())
        for name, parameter in model.named_parameters()
        if not isinstance(parameter, UninitializedParameter) and not parameter.is_meta
    }
    try:
        yield
    finally:
        written = [name for name, (p, value) in held.items() if not torch.equal(_real(p.detach()), _real(value))]
        with torch.no_grad():
            for name in written:
                parameter, value = held[name]
                parameter.copy_(value)
    if written:
        raise DataError(
            f"the model writes into its parameters {', '.join(map(repr, written[:6]))} when it is run (as "
            "nn.Embedding(max_norm=...) does): expected a function of them. Have it compute with a copy, or set "
            "max_norm to None once the weights obey it"
        )


@contextmanager
def random_numbers_put_back() -> Iterator[None]:
    """Leave the random numbers of torch and numpy as they were, whatever a model draws."""
    state = _random_state()
    try:
        yield
    finally:
        if not _same_state(state, _random_state()):
            torch.set_rng_state(state[0])
            np.random.set_state(state[1])  # noqa: NPY002


def refuse_checkpointing(names: Mapping[nn.Module, str], run: Callable[[], object]) -> None:
    """Refuse activation checkpointing, which runs modules a second time in the backward pass, past the cuts.

    Raises:
        CutError: names the module that uses it.
    """
    used: list[str] = []
    before = sys.getprofile()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and not used and frame.f_code.co_filename == torch.utils.checkpoint.__file__:
            used.append(_module_above(frame, names))

    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(before)
    if used:
        raise CutError(
            f"{used[0]} uses activation checkpointing (torch.utils.checkpoint), which runs modules again in the "
            "backward pass, past the cuts: turn it off for the analysis, for example with "
            "model.gradient_checkpointing_disable()"
        )


def _module_above(frame: FrameType | None, names: Mapping[nn.Module, str]) -> str:
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, nn.Module) and names.get(caller):
            return repr(names[caller])
        frame = frame.f_back
    return "the model"


def _start(
    one: list[tuple[str, Any]], other: list[tuple[str, Any]], part: Callable[[Tensor], Tensor], n: int | None = None
) -> str:
    """Where two runs begin to differ, in words."""
    for (name, before), (again, after) in zip(one, other, strict=False):
        if name != again:
            break
        for a, b in zip(tensors(before), tensors(after), strict=False):
            if n is not None and not (a.ndim and b.ndim and len(a) == len(b) == n):
                continue
            if differs(part(a), part(b)):
                return f", first seen at {name!r}"
    return ""


def _declare(name: str, value: Tensor) -> str:
    """How to say that the axes stand in another order."""
    if value.ndim != 3:
        return ""
    return (
        f". Where they are (positions, batch, width), declare it: Network(..., batch_first={{{name!r}: False}}); the "
        "data and the arguments of the model have the data point first"
    )


def _shared(batch: Batch) -> str:
    if len(tensors(batch)) < 2:
        return ""
    return "; an argument that all data points share needs a leading axis of length one, where it is read as theirs"


def _real(value: Tensor) -> Tensor:
    return (torch.view_as_real(value) if value.is_complex() else value).double().nan_to_num()


def _copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.named_buffers()}


def _random_state() -> tuple[Tensor, Any]:
    return torch.get_rng_state(), np.random.get_state()  # noqa: NPY002 - what models draw from


def _same_state(a: tuple[Tensor, Any], b: tuple[Tensor, Any]) -> bool:
    return torch.equal(a[0], b[0]) and all(np.array_equal(x, y) for x, y in zip(a[1], b[1], strict=True))
