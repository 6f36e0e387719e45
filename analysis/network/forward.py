"""One forward pass of a model: hooks read and replace the tensors at the cuts, and the model is left as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from ..devices.device import device_of
from ..errors import CutError, DataError
from ..results import by_value
from .batches import Batch, arguments, batch_size, naming_batch, tensors
from .cuts import Cut, Place, find_modules_by_name, short_name
from .hooks import Kept, Visit, as_sequence, as_written, at_rest, hooked
from .layouts import BatchFirst, Layout, Layouts, swap_of
from .masks import Counted

__all__ = ["HookedModel", "ReachedError", "Record", "Trace", "check_finite", "concatenate", "named_output"]


@by_value
@dataclass(frozen=True)
class Trace:
    """The result of one forward pass: the tensors at the cuts, with the autograd graph between them.

    Attributes:
        entries: per cut the tensors to differentiate with respect to, one per place, each (batch, positions, width).
        values: per cut the activations at the positions that are read (batch, positions, width), 0 where one does not
            count.
        output: the network's output (batch, positions, width), 0 where a position does not count.
        counted: per cut the positions that are read, and which of them count.
        output_counted: the same for the output.
        grids: indices of the cuts whose positions are those of a picture, the same for every data point.
    """

    entries: tuple[tuple[Float[Tensor, "batch _ _"], ...], ...]
    values: tuple[Float[Tensor, "batch _ _"], ...]
    output: Float[Tensor, "batch _ _"]
    counted: tuple[Counted, ...]
    output_counted: Counted
    grids: frozenset[int] = frozenset()


class ReachedError(BaseException):
    """The requested cut has been reached, so the rest of the model need not run."""


class Record:
    """The record of one forward pass: what to read and replace at the cuts, and the tensors read."""

    def __init__(
        self,
        start: int | None,
        replace: Mapping[int, Sequence[Tensor]],
        layouts: Layouts,
        where: Callable[[int, Tensor], Counted] | None = None,
    ) -> None:
        self.start, self.replace, self.layouts, self.where = start, replace, layouts, where
        self.entries: dict[tuple[int, int], Tensor] = {}
        self.values: dict[tuple[int, int], Tensor] = {}
        self.grids: set[int] = set()

    def visit(self, p: int, i: int, value: Tensor, place: Place) -> Tensor:
        """Read the tensor at part i of cut p, and return what to put there."""
        layout = self.layouts.of(place)
        sequence = as_sequence(value, place.name, layout)
        self.values[p, i] = sequence
        if value.ndim > 3:
            self.grids.add(p)
        entry = sequence
        if p in self.replace:
            entry = self.replace[p][i]
            if self.where is not None:
                counted = self.where(p, sequence)
                entry = counted.write(sequence, counted.read(entry))
        if torch.is_grad_enabled() and (self.start in (None, p) or not entry.requires_grad):
            entry = entry.detach().requires_grad_()
        self.entries[p, i] = entry
        return as_written(entry, value, layout).clone()  # a copy, so that in-place modules leave the entry alone


class HookedModel:
    """A model with hooks at places of its modules, and the part of what it returns that is the output.

    Args:
        model: any module.
        output: see `Network`.
        batch_first: see `Network`.

    Attributes:
        model: the model.
        modules: the modules of the model by name.
        layouts: of the tensors at the places.
        written: names of buffers that the model writes into, which each run restores.

    Raises:
        CutError: modules that hooks or autograd cannot read, or a layout of a place that is not there.
    """

    def __init__(self, model: nn.Module, output: str | int | None = None, batch_first: BatchFirst = True) -> None:
        _refuse_unreadable(model)
        self.model = model
        self.modules = find_modules_by_name(model)
        self._output = short_name(model, output) if isinstance(output, str) else output
        self.layouts = self._resolve_layouts(batch_first)
        self.written: tuple[str, ...] = ()

    def on(self, model: nn.Module) -> HookedModel:
        """Return the same hooks and output on another model."""
        other = copy(self)
        other.model, other.modules = model, find_modules_by_name(model)
        return other

    def _resolve_layouts(self, batch_first: BatchFirst) -> Layouts:
        if not isinstance(batch_first, Mapping):
            output = Place(self._output, False) if isinstance(self._output, str) else None
            return Layouts(batch_first, {}, output if output and output.path in self.modules else None)
        named: dict[Place | None, Layout] = {}
        for name, layout in batch_first.items():
            for part in short_name(self.model, name).split("+"):
                place = Place(part.removesuffix(":in"), part.endswith(":in"))
                if part != "output" and place.path not in self.modules:
                    raise CutError(f"batch_first is given for {name!r}, which no module or cut is called")
                named[None if part == "output" and place.path not in self.modules else place] = layout
        output = Place(str(self._output), False)
        return Layouts(True, named, output if output.path in self.modules else None)

    def run(
        self,
        batch: Batch,
        places: Iterable[Place] = (),
        visit: Visit = lambda _, value: value,
        parameters: Mapping[str, Tensor] | None = None,
        *,
        gradients: bool = False,
        whole: bool = False,
    ) -> Any:
        """Run the model on a batch and return its output as the model returns it.

        Args:
            batch: input of the model.
            places: where `visit` is called with the tensors there, and may replace them.
            visit: see `hooked`.
            parameters: instead of the model's own, for `torch.func`.
            gradients: whether the parameters require gradients.
            whole: allow an output that is no tensor.
        """
        final = Kept()
        keep = Place(str(self._output), False)
        by_module = isinstance(self._output, str) and self._output in self.modules
        with ExitStack() as stack:
            given = None if parameters is not None else gradients
            stack.enter_context(at_rest(self.model, gradients=given, restored=self.written))
            for place in places:
                stack.callback(hooked(self.modules[place.path], place, visit).remove)
            if by_module:
                stack.callback(hooked(self.modules[keep.path], keep, final).remove)
            kind = _one_type(parameters.values() if parameters else self.model.parameters())
            args, kwargs = arguments(batch, kind, device_of(self.model))
            if parameters is None:
                returned = self.model(*args, **kwargs)
            else:
                model, named = self.model, dict(parameters)
                while isinstance(model, nn.DataParallel):  # functional_call does not accept these
                    model, named = model.module, {name.removeprefix("module."): v for name, v in named.items()}
                returned = functional_call(model, named, args, kwargs)
        if not by_module:
            return self._pick(returned, whole)
        if keep not in final.values:
            raise CutError(f"the output {keep.name!r} is not computed in a forward pass: name a module that is used")
        return final.values[keep]

    def _pick(self, returned: Any, whole: bool) -> Any:
        value = returned
        if self._output is None and not whole and (name := named_output(returned)) is not None:
            value = returned[name]
        elif self._output is not None:
            try:
                by_name = isinstance(self._output, str) and not isinstance(returned, Mapping)
                value = getattr(returned, str(self._output)) if by_name else returned[self._output]
            except (AttributeError, KeyError, IndexError, TypeError) as error:
                raise CutError(
                    f"the model's return value has no {self._output!r}: it is a {type(returned).__name__}"
                ) from error
        if not whole and not isinstance(value, Tensor):
            raise CutError(
                f"the model returns a {type(value).__name__}: say which part is the output, for example "
                f"{_part_of(value)}"
            )
        return value

    def sequence(self, place: Place, value: Tensor) -> Float[Tensor, "batch _ _"]:
        """Return a tensor of a place as (batch, positions, width)."""
        return as_sequence(value, place.name, self.layouts.of(place))

    def arranged(self, output: Tensor) -> Float[Tensor, "batch positions width"]:
        """Return an output of `run` as (batch, positions, width)."""
        return as_sequence(output, "output", self.layouts.of(None))

    def record(self, batch: Batch, cuts: Sequence[Cut], into: Record) -> Tensor:
        """Run the model, read and replace the tensors of the cuts as the record says, and return the output."""
        indices: dict[Place, list[tuple[int, int]]] = {}
        for p, cut in enumerate(cuts):
            for i, place in enumerate(cut.places):
                indices.setdefault(place, []).append((p, i))
        calls: dict[Place, int] = dict.fromkeys(indices, 0)
        furthest = -1

        def visit(place: Place, value: Tensor) -> Tensor:
            nonlocal furthest
            calls[place] += 1
            if calls[place] > 1:
                return value
            for p, i in indices[place]:
                if p < furthest:
                    raise CutError(
                        f"cut {cuts[furthest].name!r} is computed before {cuts[p].name!r}: list cuts in order of "
                        "computation"
                    )
                furthest = p
                value = into.visit(p, i, value, place)
            return value

        output: Tensor = self.run(batch, indices, visit)
        for place, count in calls.items():
            if count != 1:
                raise CutError(
                    f"{place.name!r} is computed {count} times in a forward pass, expected once: "
                    "cut at a module that is not shared and is used"
                )
        return output

    def observe(
        self, places: Sequence[Place], batch: Batch, gradients: bool, *, whole: bool = False
    ) -> dict[str, Tensor]:
        """Run one pass, with or without gradients, and return the tensors at some places and the output.

        With `whole` the output is all that the model returns: each tensor of it that holds data points.
        """
        seen: dict[str, Tensor] = {}

        def visit(place: Place, value: Tensor) -> Tensor:
            layout = self.layouts.of(place)
            name = place.name if place.name not in seen else f"{place.name} (again)"
            seen[name] = _in_layout(value, layout)
            return value

        with torch.set_grad_enabled(gradients), naming_batch(batch):
            raw = self.run(batch, places, visit, gradients=gradients, whole=whole)
        if whole:
            n, parts = batch_size(batch), enumerate(tensors(raw))
            own = {f"output {i}": v for i, v in parts if v.is_floating_point() and v.ndim and len(v) == n}
            return seen | {name: v.detach().clone() for name, v in own.items()}
        as_sequence(raw, "output")
        seen["output"] = _in_layout(raw, self.layouts.of(None))
        return seen

    def events(self, batch: Batch, gradients: bool) -> list[tuple[str, Any]]:
        """Run one pass and return the inputs and outputs of every module, in order."""
        events: list[tuple[str, Any]] = []

        def note(name: str, value: Any) -> None:
            events.append((name, [v.detach().clone() for v in tensors(value)]))

        with ExitStack() as stack, torch.set_grad_enabled(gradients):
            for path, module in self.modules.items():
                before, after = (Place(path or type(module).__name__, is_input).name for is_input in (True, False))
                enters = module.register_forward_pre_hook(
                    lambda _, args, kwargs, name=before: note(name, (args, kwargs)), with_kwargs=True
                )
                leaves = module.register_forward_hook(lambda _, __, value, name=after: note(name, value))
                stack.callback(enters.remove)
                stack.callback(leaves.remove)
            self.run(batch, gradients=gradients, whole=True)
        return events


def named_output(returned: Any) -> str | None:
    """Return which part of what a model of transformers returns is the output; None for anything else.

    Such a model returns a mapping that is a dataclass. Its logits are the output, or else its last hidden state.
    """
    if not (isinstance(returned, Mapping) and is_dataclass(returned)):
        return None
    named: Mapping[str, Any] = returned
    return next((name for name in ("logits", "last_hidden_state") if isinstance(named.get(name), Tensor)), None)


def _part_of(value: Any) -> str:
    """Give an example of how to name a part of what a model returns."""
    if isinstance(value, Mapping) and value:
        return f"output={next(iter(value))!r}"
    return "output=0" if isinstance(value, tuple | list) and not hasattr(value, "_fields") else "output='logits'"


def _refuse_unreadable(model: nn.Module) -> None:
    """Refuse what is no module, and modules that hooks or autograd cannot read.

    Raises:
        CutError: no module, one that torch.jit compiled, or one made under `torch.inference_mode`.
    """
    if not isinstance(model, nn.Module):
        raise CutError(f"the model is of type {type(model).__name__}: expected a torch.nn.Module")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise CutError(
                f"{name or 'the model'} is compiled by torch.jit (script or trace), where modules cannot be read "
                "and parameters not replaced: give the model that it was made from"
            )
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if value.is_inference():
            raise CutError(
                f"{name!r} was made under torch.inference_mode, where autograd cannot use it: build or load the "
                "model outside of it"
            )


def _one_type(parameters: Iterable[Tensor]) -> torch.dtype | None:
    """Return the common type of all floating point parameters; None if types differ or there are none."""
    kinds = {parameter.dtype for parameter in parameters if parameter.is_floating_point()}
    return kinds.pop() if len(kinds) == 1 else None


def _in_layout(value: Tensor, layout: Layout | None) -> Tensor:
    swap = swap_of(layout)
    return (value.transpose(*swap) if swap and value.ndim == 3 else value).detach().clone()


def concatenate(values: Mapping[tuple[int, int], Tensor], p: int, cut: Cut) -> Tensor:
    """Join the tensors read at the places of cut p along the features."""
    parts = [values[p, i] for i in range(len(cut.places))]
    if len({part.shape[:-1] for part in parts}) > 1:
        raise CutError(f"the parts of {cut.name!r} have shapes {[tuple(v.shape) for v in parts]}: positions must agree")
    return torch.cat(parts, -1)


def check_finite(seen: Iterable[tuple[str, Tensor]], model: nn.Module, batch: Batch) -> None:
    """Check that all numbers are finite.

    Raises:
        DataError: some are not; names the place, and what is to blame.
    """
    for name, value in seen:
        with torch.no_grad():
            finite = bool(torch.isfinite(value.sum())) or bool(torch.isfinite(value).all())  # the sum is quicker
        if not finite:
            raise DataError(f"NaN or infinite activations at {name}: {_blame(model, batch)}")


def _blame(model: nn.Module, batch: Batch) -> str:
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"the weight {name!r} holds them"
    holds = not all(torch.isfinite(v).all() for v in tensors(batch))
    return "the data holds them" if holds else "data and weights are finite, so the model overflows"
