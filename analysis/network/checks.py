"""Checks of what the analyses assume about a model.

1. Layout: the leading axis of the output and of every tensor at a cut is the data point.
2. Independence: f(x[index]) = f(x)[index] at all of them, where half of the data points are replaced by others.
3. Function: the same batch gives the same numbers twice, without gradients and with them, and what the first run sets
   on the model does not depend on the data.

"The same" allows for rounding: a difference of eps^(2/3) of the largest number there (4e-11 in float64, 2e-5 in
float32). The checks take `run(batch, gradients)`, which runs the model once and returns tensors by name of their
place, the data point first.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch.utils.checkpoint
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedParameter

from ..devices.device import summed
from ..errors import CutError, DataError, InputError
from .batches import Batch, batch_size, naming_batch, take_points, tensors
from .cuts import Place
from .forward import HookedModel
from .layouts import refuse_layout, shown_axes

__all__ = [
    "Events",
    "Run",
    "Seen",
    "check_function",
    "check_model",
    "check_points",
    "check_sizes",
    "differs",
    "few_then_all",
    "halves",
    "parameters_put_back",
    "random_numbers_put_back",
    "refuse_checkpointing",
    "spread",
]

T = TypeVar("T")

Seen: TypeAlias = dict[str, Tensor]

Run: TypeAlias = Callable[[Batch, bool], Seen]

Events: TypeAlias = Callable[[Batch, bool], list[tuple[str, Any]]]

"""Runs the model like `Run` and returns the inputs and outputs of every module, in order."""

_Attributes: TypeAlias = dict[tuple[nn.Module, str], Any]

_OF_MODULES = frozenset(vars(nn.Module()))  # what every module has, such as its parameters, hooks and mode

_POINTS = 16  # data points that the checks look at first

_REPEATS = 8  # pairs of runs of a model that draws random numbers and gave the same output twice


def spread(batch: Batch) -> Batch:
    """Select at most 16 data points, evenly spaced over the batch."""
    n = batch_size(batch)
    return batch if n <= _POINTS else take_points(batch, _spaced(n))


def _spaced(n: int) -> Int[Tensor, " few"]:
    return torch.linspace(0, n - 1, _POINTS, device="cpu").round().long()


def differs(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two tensors relative to the largest number; 0 if it may be rounding."""
    if a.shape != b.shape:
        return float("inf")
    if torch.equal(a, b):
        return 0.0
    kind = a.dtype if a.is_floating_point() or a.is_complex() else torch.float64
    a, b = (_real(v) for v in (a, b))
    share = float((a - b).abs().max() / a.abs().max().clamp_min(torch.finfo(torch.float64).tiny))
    return 0.0 if share <= torch.finfo(kind).eps ** (2 / 3) else share


def few_then_all(batch: Batch, check: Callable[[Batch], T]) -> T:
    """Run a check on a few data points, and on the whole batch if it fails there."""
    few = spread(batch)
    try:
        return check(few)
    except InputError as problem:
        if few is batch:
            raise
        first = problem
    try:
        return check(batch)
    except InputError as problem:
        raise (first if problem.__cause__ else problem) from None  # with a cause: the model itself failed


def check_sizes(seen: Mapping[str, Tensor], n: int) -> None:
    """Check that the leading axis of every tensor has the length of the batch.

    Raises:
        CutError: a tensor has another length; names the place, its shape and the expected layout.
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
    """Split the indices of n data points at random into two halves, the same ones for the same n."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0), device="cpu")
    return order[: n // 2], order[n // 2 :]


def check_points(run: Run, batch: Batch, events: Events, whole: Batch | None = None) -> None:
    """Check that replacing half of the data points leaves the others unchanged and moves rows along, gradients on.

    Where the data points were picked from a larger batch by `spread`, they must also give the same rows as there.

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
        index = torch.arange(n, device="cpu")
        index[replaced] = kept[torch.arange(len(replaced), device="cpu") % len(kept)]
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
    if whole is None or batch_size(whole) == n:
        return
    for name, value in run(whole, False).items():
        if share := differs(base[name], value[_spaced(batch_size(whole))]):
            raise CutError(
                f"data points are mixed: at {name!r} they differ by {share:.2g} of the largest number there in a batch "
                f"of {batch_size(whole)} and in one of {n}. Each data point must be a row of its own, in any batch"
            )


def check_model(
    model: HookedModel, batch: Batch, whole: Batch, places: Sequence[Place], *, loss: str, returned: bool = False
) -> None:
    """Check layout, independence and function of a model, on a few data points.

    Args:
        model: the model; the buffers that it writes into are restored from here on.
        batch: a few data points.
        whole: more data points.
        places: where to look, besides the output.
        loss: the behavioural loss; "kl" reads the last axis of the output as logits.
        returned: look at all that the model returns, not at the part that is the output.

    Raises:
        CutError: names the place at which an assumption fails.
        DataError: the model is not a function of its batch.
    """
    with random_numbers_put_back():
        run = partial(model.observe, places, whole=returned)
        model.written = ()  # first, so that all later runs restore what the model writes into
        model.written = check_function(model.model, run, batch, whole, model.events)
        with naming_batch(batch), torch.no_grad():
            if places:
                names = {module: path for path, module in model.modules.items()}
                refuse_checkpointing(names, lambda: model.run(batch, whole=True))
            for place, shown in shown_axes(model.modules, lambda: model.run(batch, whole=True), places).items():
                if not (shown.as_declared or model.layouts.declared(place)) and (place or places or loss == "kl"):
                    refuse_layout(place.name if place else "output", shown)
        check_points(run, batch, model.events, whole)


def check_function(model: nn.Module, run: Run, batch: Batch, whole: Batch, events: Events) -> tuple[str, ...]:
    """Check that the same batch gives the same numbers twice, and the same with gradients.

    Args:
        model: the model; its buffers are watched.
        run: runs the model once, see the head of this module.
        batch: a few data points.
        whole: more data points, for a model that draws random numbers without a visible effect.
        events: used to find the module where numbers begin to differ.

    Returns:
        Names of buffers that the model writes into without an effect on the numbers.

    Raises:
        DataError: the model is random, keeps state, writes into its parameters, or has other numbers with gradients.
    """
    held, state, python = _copies(model), _random_state(model), random.getstate()
    before = _attributes(model)
    with parameters_put_back(model):
        first = run(batch, False)
    between = _copies(model)
    second = run(batch, False)
    after = _copies(model)
    written = tuple(name for name, value in after.items() if name in between and differs(between[name], value))
    drawn = not _same_state(state, _random_state(model))
    try:
        _agree(first, second, "twice", drawn, written, lambda: (events(batch, False), events(batch, False)))
        repeats = [whole, *[batch] * 3] * _REPEATS if drawn else []
        if python != random.getstate():  # drawn by the model, or by another part of the program
            repeats += [batch] * (2 * _REPEATS)
        for points in repeats:
            _agree(run(points, False), run(points, False), "twice", drawn, written, lambda: ([], []))
        graded = run(batch, True)
        _agree(second, graded, "gradients", drawn, written, lambda: (events(batch, False), events(batch, True)))
        if any(not _same_value(before.get(key), value) for key, value in _attributes(model).items()):
            _refuse_set_by_data(run, batch, model, before)
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
    """Restore the parameters of a model, and refuse the model if it wrote into them."""
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
    """Restore the random states of torch, numpy and Python afterwards."""
    state, python = _random_state(), random.getstate()
    try:
        yield
    finally:
        random.setstate(python)
        if not _same_state(state, _random_state()):
            torch.set_rng_state(state[0])
            np.random.set_state(state[1])  # noqa: NPY002


def refuse_checkpointing(names: Mapping[nn.Module, str], run: Callable[[], object]) -> None:
    """Refuse activation checkpointing, which runs modules a second time in the backward pass, past the cuts.

    Raises:
        CutError: a module uses checkpointing; the message names it.
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
    """Describe where two runs begin to differ."""
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
    """Describe how to declare another order of the axes."""
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
    return summed(torch.view_as_real(value) if value.is_complex() else value).nan_to_num()


def _copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.named_buffers()}


def _refuse_set_by_data(run: Run, batch: Batch, model: nn.Module, before: _Attributes) -> None:
    """Refuse a model whose first run stores something that depends on its data, and restore the model.

    Half of a batch is run first, and then again after the other half. State that does not depend on the data (a table
    of positions, say) and state that every run overwrites pass this check.
    """
    n = batch_size(batch)
    index = (torch.arange((n + 1) // 2, device="cpu"), torch.arange(n // 2, n, device="cpu"))
    one, other = (take_points(batch, part) for part in index)
    _put_back(before, _attributes(model))
    first = run(one, False)
    changed = [key for key, value in _attributes(model).items() if not _same_value(before.get(key), value)]
    if not changed:
        return
    _put_back(before, _attributes(model))
    run(other, False)
    after = run(one, False)
    for name, value in first.items():
        if share := differs(value, after[name]):
            _put_back(before, _attributes(model))
            paths = {module: path for path, module in model.named_modules()}
            kept = ", ".join(".".join(part for part in (paths[module], key) if part) for module, key in changed[:6])
            raise DataError(
                f"the first run of the model sets {kept} by the data that it gets, and later runs keep it: after other "
                f"data {name!r} differs by {share:.2g}. Run the model once on the data that should set it, before the "
                "analysis"
            )


def _attributes(model: nn.Module) -> _Attributes:
    """Collect buffers and plain attributes of all modules, tensors copied; lazy modules are initialised once."""
    found: _Attributes = {}
    for module in model.modules():
        if isinstance(module, LazyModuleMixin):
            continue
        for name, value in (*vars(module).items(), *module._buffers.items()):
            if name not in _OF_MODULES:
                found[module, name] = value.detach().clone() if isinstance(value, Tensor) else value
    return found


def _put_back(before: _Attributes, now: _Attributes) -> None:
    for (module, name), value in now.items():
        if (module, name) not in before:
            delattr(module, name)
            continue
        held = before[module, name]
        if _same_value(held, value):
            continue
        live = getattr(module, name)
        if isinstance(live, Tensor) and isinstance(held, Tensor) and live.shape == held.shape:
            with torch.no_grad():
                live.copy_(held)
        else:
            setattr(module, name, held)


def _same_value(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(a, b))
    return a is b or (isinstance(a, int | float) and type(a) is type(b) and a == b)


def _random_state(model: nn.Module | None = None) -> list[Any]:
    """Collect the states of all random generators a model may use: torch, numpy, and those held by modules."""
    states = [torch.get_rng_state(), np.random.get_state()]  # noqa: NPY002
    for module in model.modules() if model is not None else ():
        for value in vars(module).values():
            if isinstance(value, torch.Generator):
                states.append(value.get_state())
            elif isinstance(value, random.Random):
                states.append(value.getstate())
            elif isinstance(value, np.random.Generator):
                states.append(repr(value.bit_generator.state))
            elif isinstance(value, np.random.RandomState):
                states.append(value.get_state())
    return states


def _same_state(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(_same_entry(x, y) for x, y in zip(a, b, strict=True))


def _same_entry(x: Any, y: Any) -> bool:
    if isinstance(x, Tensor):
        return bool(torch.equal(x, y))
    if isinstance(x, tuple):
        return len(x) == len(y) and all(map(_same_entry, x, y))
    return bool(np.array_equal(x, y))
