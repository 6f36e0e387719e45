"""Network: a torch model with named cuts. Hooks read and replace the tensors at the cuts; the model is not rewritten.

A set of tensors is a *cut* when every path from the input to the output passes through it. `Network.check_cuts`
tests this by swapping: with the tensors at the cut taken from x while the model runs on x', the output must be
that of x.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from copy import copy, deepcopy
from functools import partial
from inspect import signature
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

from ..derivatives import AWAY, DIFFERENTIABLE, batched_gradients, gradient_disagreements
from ..errors import CutError, DataError, GraphError
from .batches import Batch, arguments, batch_size, joined, map_tensors, naming_batch, read_batches, take_points, tensors
from .checks import (
    Seen,
    check_function,
    check_points,
    check_sizes,
    differs,
    halves,
    parameters_put_back,
    random_numbers_put_back,
    refuse_checkpointing,
)
from .cuts import Cut, Place, candidates, find_modules_by_name, resolve, scan, short_name, vocabularies
from .forward import (
    _LEAK,
    Trace,
    _concatenate,
    _few_then_all,
    _in_layout,
    _one_type,
    _ReachedError,
    _Run,
    _UnchangedError,
)
from .hooks import Kept, Visit, as_sequence, as_written, at_rest, hooked, with_gradients
from .layouts import BatchFirst, Layout, Layouts, channels_first, refuse_channels_first
from .masks import (
    Counted,
    Mask,
    Positions,
    counted_at,
    how_to_declare,
    mask_entry,
    other_padding,
    read_mask,
    swap_partners,
    swapped,
    unread_masks,
)
from .transitions import PositionWise, Transition

__all__ = ["Network"]


class Network:
    """A model, its cuts and its behavioural loss.

    Args:
        model: any module; its mode, parameters and gradients are left as they were.
        cuts: paths of `named_modules()` (the module's output), `path:in` (its input), globs matched part by part
            (`transformer.h.*`), tuples of names (a concatenated cut), or "auto" (see `scan`): every input or output of
            a module that passes the swap test on `example`, or else on the first batch that is seen; or none, where
            only losses are asked for. The parts `module.` and `_orig_mod.` that wrappers add to names are left out
            of `cuts`, and accepted.
        output: which part of the model's return value is the output: None for the value itself, a key, attribute or
            index, or the path of a module whose output is to be the final one.
        loss: behavioural loss, "mse" (sum over output coordinates) or "kl" (output are logits of one softmax).
        positions: which positions of the output and of the last cut count; or a mapping from names of cuts (and
            "output") to the positions that count there. At other cuts all positions count. "last" is the last one
            that the mask counts; a list counts from the first position of the tensor, padding included.
        mask: which positions count at each data point, where batches are padded: a key of the batch or the name of an
            argument of the model, such as "attention_mask", or a function of the batch; (data points, positions).
        skip_first: leave out the first position of each data point, a token that only begins the text.
        transitions: exact forms of the map between two cuts, by their names (see `transitions`); used where the two
            are adjacent, and checked against the model. Those of attention know no mask, and with one are left out.
        example: a batch, on which the order and the widths of the cuts are found right away.
        batch_first: layout of tensors with three axes at the cuts: True for (batch, positions, width), False for
            (positions, batch, width), "channels" for (batch, width, positions); or a mapping from names of cuts (and
            "output") to such values, True elsewhere. One value for all cuts holds for the output only where `output`
            names a module. The data, and what the model is called with, have the data point first in any case.
        check: whether `check_once` tests what the analyses assume about the model; without, the model is trusted,
            and `checked` stays False.

    Raises:
        CutError: a cut does not exist or, once a batch was seen, is out of order, is not called exactly once, or
            leaks.
    """

    def __init__(
        self,
        model: nn.Module,
        cuts: str | Sequence[str | Sequence[str]],
        *,
        output: str | int | None = None,
        loss: str = "mse",
        positions: Positions | Mapping[str, Positions] = "all",
        mask: Mask | None = None,
        skip_first: bool = False,
        transitions: Mapping[tuple[str, str], Transition] | None = None,
        example: Batch | None = None,
        batch_first: BatchFirst = True,
        check: bool = True,
    ) -> None:
        if loss not in ("mse", "kl"):
            raise GraphError(f"unknown behavioural loss {loss!r}: expected 'mse' or 'kl'")
        if not isinstance(model, nn.Module):
            raise CutError(f"the model is a {type(model).__name__}: expected a torch.nn.Module")
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
        self.model = model
        self.loss = loss
        self._modules = find_modules_by_name(model)
        self._output = short_name(model, output) if isinstance(output, str) else output
        self._mask, self._skip_first = mask, skip_first
        self._widths: tuple[int, ...] | None = None
        self._part_widths: tuple[tuple[int, ...], ...] = ()
        self._output_width = 0
        self._check, self._checked, self._whole = check, False, False
        self._written: tuple[str, ...] = ()
        self._found: tuple[Cut, ...] | None = None
        self._options = positions, transitions or {}
        self._positions: dict[int | str, Positions] = {}
        self._layouts = self._resolve_layouts(batch_first)
        if cuts != "auto":
            self._set_cuts(resolve(model, [cuts] if isinstance(cuts, str) else cuts) if len(cuts) else ())
        if example is not None:
            with parameters_put_back(model) if check else nullcontext():
                self.activations(example)

    @property
    def cuts(self) -> tuple[str, ...]:
        """The resolved names of the cuts, in order of computation."""
        return tuple(cut.name for cut in self._cuts)

    @property
    def _cuts(self) -> tuple[Cut, ...]:
        if self._found is None:
            raise CutError("the cuts are found once a batch was seen: pass example=batch, or name them")
        return self._found

    def _set_cuts(self, cuts: tuple[Cut, ...]) -> None:
        positions, transitions = self._options
        self._found = cuts
        self._positions = self._resolve_positions(positions)
        forms = {tuple(short_name(self.model, name) for name in pair): form for pair, form in transitions.items()}
        pairs = enumerate(zip(self.cuts[:-1], self.cuts[1:], strict=True))
        found = {p: forms[pair] for p, pair in pairs if pair in forms}
        self.transitions = {p: f for p, f in found.items() if isinstance(f, PositionWise) or not self.masked}

    def _settle(self, batch: Batch) -> None:
        """Find the cuts on the first batch where `cuts` was "auto"."""
        if self._found is None:
            self._set_cuts(_few_then_all(batch, self._scan))

    @property
    def checked(self) -> bool:
        """Whether the checks of `check_once` ran on this model and passed."""
        return self._checked

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of features at each cut, known once a batch was seen."""
        if self._widths is None:
            raise CutError("the widths of the cuts are known once a batch was seen: pass example=batch")
        return self._widths

    @property
    def output_width(self) -> int:
        """The number of output coordinates, known once a batch was seen."""
        if not self._output_width:
            raise CutError("the width of the output is known once a batch was seen: pass example=batch")
        return self._output_width

    @property
    def masked(self) -> bool:
        """Whether the positions that count may differ between data points."""
        return self._mask is not None or self._skip_first

    def mask(self, batch: Batch) -> Bool[Tensor, "batch positions"] | None:
        """Return which positions count at each data point of a batch; None where all do."""
        if not self.masked:
            return None
        mask = read_mask(self._mask, batch, self._arguments, skip_first=self._skip_first)
        return mask if mask is None or len(mask) > 1 else mask.expand(batch_size(batch), -1)

    @property
    def _arguments(self) -> list[str]:
        """The names of the model's arguments."""
        return list(signature(self.model.forward).parameters)

    def activations(self, batch: Batch) -> dict[str, Float[Tensor, "batch _ _"]]:
        """Compute the activations at all cuts (counted positions only) in one forward pass; matrices get one position.

        They are 0 where a mask leaves a position out; `Trace.counted` tells where.
        """
        with torch.no_grad():
            values = self.trace(batch).values
        return dict(zip(self.cuts, values, strict=True))

    def output(self, batch: Batch) -> Float[Tensor, "batch positions width"]:
        """Compute the network's output at the counted positions."""
        with torch.no_grad():
            return self.trace(batch).output

    def with_model(self, model: nn.Module) -> Network:
        """Return a network with the same cuts and loss on another model; exact forms are not taken along."""
        other = copy(self)
        other.model, other.transitions, other._checked = model, {}, False
        other._modules = find_modules_by_name(model)
        return other

    def forward(self, batch: Batch) -> Float[Tensor, "batch positions width"]:
        """Run the model with its parameters frozen; an autograd graph starts only where hooks start one."""
        return self.counted_output(batch)[0]

    def counted_output(self, batch: Batch) -> tuple[Float[Tensor, "batch positions width"], Counted]:
        """Compute the output as `forward` does, and which of its positions count."""
        self._settle(batch)
        raw = self._arranged(self._forward(batch))
        counted = self._counted(raw, "output", self.mask(batch))
        return counted.read(raw), counted

    def evaluate(
        self, parameters: Mapping[str, Tensor], batch: Batch, cuts: Sequence[int] = ()
    ) -> tuple[Float[Tensor, "batch positions width"], list[Float[Tensor, "batch _ _"]]]:
        """Compute output and activations at some cuts, with given parameters instead of the model's own.

        The result depends on the arguments alone, so that `torch.func` can transform this function.
        """
        self._settle(batch)
        kept = Kept()
        places = [place for p in cuts for place in self._cuts[p].places]
        raw = self._forward(batch, places, kept, parameters)
        mask = self.mask(batch)
        found = []
        for p in cuts:
            parts = [self._sequence(place, kept.values[place]) for place in self._cuts[p].places]
            found.append(self._read(torch.cat(parts, -1), p, mask))
        return self._read(self._arranged(raw), "output", mask), found

    def returned(self, parameters: Mapping[str, Tensor], batch: Batch) -> Any:
        """Return what the model returns with given parameters, or the part that `output` names, unchanged.

        Its shape and structure are the model's own, whatever `positions` and `batch_first` say.
        """
        return self._forward(batch, parameters=parameters, whole=True)

    def trace(
        self,
        batch: Batch,
        *,
        joined: bool = False,
        start: int = 0,
        replace: Mapping[int, Sequence[Tensor]] | None = None,
    ) -> Trace:
        """Run the model once and keep the autograd graph between the cuts.

        Args:
            batch: input of the model.
            joined: keep one graph from the cut `start` to the output; otherwise the graph is split at each cut, so that
                `values[p + 1]` depends on `entries[p]` only.
            start: where a joined graph starts.
            replace: by index of a cut the tensors (one per place) to put there.
        """
        self._settle(batch)
        run = _Run(start if joined else None, replace or {}, self._layouts)
        with naming_batch(batch):
            raw = self._run(batch, self._cuts, run)
        entries = tuple(tuple(run.entries[p, i] for i in range(len(cut.places))) for p, cut in enumerate(self._cuts))
        whole = [_concatenate(run.values, p, cut) for p, cut in enumerate(self._cuts)]
        mask = self.mask(batch)
        last = self._arranged(raw)
        if self._check:
            check_sizes({**dict(zip(self.cuts, whole, strict=True)), "output": last}, batch_size(batch))
        counted = tuple(self._counted(value, p, mask) for p, value in enumerate(whole))
        values = tuple(where.read(value) for where, value in zip(counted, whole, strict=True))
        output_counted = self._counted(last, "output", mask)
        output = output_counted.read(last)
        self._widths = tuple(value.shape[-1] for value in values)
        self._part_widths = tuple(tuple(entry.shape[-1] for entry in parts) for parts in entries)
        self._output_width = output.shape[-1]
        for name, value in (*zip(self.cuts, values, strict=True), ("the output", output)):
            if not torch.isfinite(value).all():
                raise DataError(f"NaN or infinite activations at {name}: {self._blame(batch)}")
        return Trace(entries, values, output, counted, output_counted)

    def output_traces(self, batch: Batch, cuts: Iterable[int]) -> Iterator[tuple[Trace, list[int]]]:
        """Yield joined traces for derivatives of the output with respect to cuts, each with the cuts it serves.

        One trace serves all cuts except concatenated ones. One part of such a cut may feed another, and its parts are
        independent of each other only where the graph starts at the cut.
        """
        wanted = list(cuts)
        shared = [p for p in wanted if len(self._cuts[p].places) == 1]
        if shared:
            yield self.trace(batch, joined=True), shared
        for p in wanted:
            if p not in shared:
                yield self.trace(batch, joined=True, start=p), [p]

    def vjp(
        self, trace: Trace, target: Tensor, cut: int, cotangents: Float[Tensor, "v batch positions width"]
    ) -> Float[Tensor, "v batch _ _"]:
        """Compute vector-Jacobian products of a tensor of a trace with respect to a cut, for a block of cotangents."""
        return self.vjps(trace, target, [cut], cotangents)[0]

    def vjps(
        self, trace: Trace, target: Tensor, cuts: Sequence[int], cotangents: Float[Tensor, "v batch positions width"]
    ) -> list[Float[Tensor, "v batch _ _"]]:
        """Compute vector-Jacobian products as `vjp`, with respect to several cuts in one backward pass."""
        entries = [entry for cut in cuts for entry in trace.entries[cut]]
        for cut in cuts:
            if not (target.requires_grad and all(entry.requires_grad for entry in trace.entries[cut])):
                raise CutError(
                    f"{self.cuts[cut]!r} has no gradient: no path leads from there to the differentiated tensor, or "
                    "it goes through torch.no_grad or detach"
                )
        blocks = batched_gradients(target, entries, cotangents)
        zeros = [entry.new_zeros(len(cotangents), *entry.shape) for entry in entries]
        grads = iter([zero if block is None else block for block, zero in zip(blocks, zeros, strict=True)])
        found = [trace.counted[cut].read(torch.cat([next(grads) for _ in trace.entries[cut]], -1)) for cut in cuts]
        if self.masked and not all(torch.isfinite(rows).all() for rows in found):
            raise DataError(
                "NaN or infinite gradients, while values are finite: the model gives such numbers where positions do "
                "not count (softmax over nothing, say); have it give finite ones there"
            )
        return found

    def moved(self, trace: Trace, cut: int, shift: Float[Tensor, "batch _ _"]) -> list[Tensor]:
        """Return the tensors at a cut with the counted positions shifted, for `trace(replace=...)`."""
        entries, where = [entry.detach() for entry in trace.entries[cut]], trace.counted[cut]
        parts = shift.split([entry.shape[-1] for entry in entries], -1)
        return [
            where.write(entry, where.read(entry) + part.to(entry.dtype))
            for entry, part in zip(entries, parts, strict=True)
        ]

    def resume(
        self, batch: Batch, start: int, values: Float[Tensor, "batch _ _"], stop: int | None = None
    ) -> Float[Tensor, "batch _ _"]:
        """Compute the activations at a cut (None: the output) from new values at an earlier cut.

        Exact forms are used where they connect the two cuts (call `check_once` before); otherwise the model runs
        from its input to the requested cut, and no further.
        """
        with torch.no_grad():
            if stop is not None and not self.masked and all(p in self.transitions for p in range(start, stop)):
                wanted_type = next((w.dtype for w in self.model.parameters()), values.dtype)
                values = values.to(wanted_type)
                for p in range(start, stop):
                    values = self.transitions[p].apply(values)
                return values
            given = dict(zip(self._cuts[start].places, values.split(self._part_widths[start], -1), strict=True))
            wanted = self._cuts[stop].places if stop is not None else ()
            read: dict[Place, Tensor] = {}
            mask = self.mask(batch)

            def visit(place: Place, value: Tensor) -> Tensor:
                sequence = self._sequence(place, value)
                if place in given:
                    sequence = self._counted(sequence, start, mask).write(sequence, given[place])
                if place in wanted:
                    read[place] = sequence.clone()
                    if len(read) == len(wanted):
                        raise _ReachedError
                return as_written(sequence, value, self._layouts.swap(place))

            try:
                output = self._forward(batch, {**given, **dict.fromkeys(wanted)}, visit)
            except _ReachedError:
                return self._read(torch.cat([read[place] for place in wanted], -1), stop or 0, mask)
        return self._read(self._arranged(output), "output", mask)

    def jacobian(self, batch: Batch, earlier: int, later: int) -> Float[Tensor, "batch t_out d_out t_in d_in"]:
        """Compute per-sample Jacobians of the activations at one cut with respect to those at an earlier one."""
        trace = self.trace(batch, joined=True, start=earlier)
        target = trace.values[later]
        n, t, d = target.shape
        basis = torch.eye(t * d, dtype=target.dtype).reshape(t * d, 1, t, d).expand(-1, n, -1, -1)
        rows = self.vjp(trace, target, earlier, basis)
        return rows.transpose(0, 1).reshape(n, t, d, *rows.shape[2:])

    def check_cuts(self, batch: Batch) -> None:
        """Check that every cut passes the swap test and reaches the output, with gradients of each data point its own.

        Raises:
            CutError: names the leaking cut and the share of the swap that gets around it, or the cut without effect.
            DataError: the batch holds fewer than two different data points.
        """
        self._settle(batch)
        leak_of = self._swapping(batch, self._cuts, self._positions)
        for p, cut in enumerate(self.cuts):
            if (leak := leak_of(p)) > _LEAK:
                raise CutError(
                    f"{cut!r} is not a cut: {leak:.2g} of the effect of swapping the input goes around it (a skip "
                    "path, another branch, or positions that are not counted). Cut where every path passes, for "
                    'example at a residual stream, or concatenate the branches: ("a", "b")'
                )
        for trace, cuts in self.output_traces(batch, range(len(self._cuts))):
            self._check_gradients(trace, cuts)
        exact, given = self._in_double(batch)
        for p in range(len(self._cuts)):
            exact._check_derivative(given, p)
        with torch.no_grad():
            self._check_transitions(self.trace(batch))

    def _check_gradients(self, trace: Trace, cuts: Sequence[int]) -> None:
        draws = torch.Generator().manual_seed(0)
        cotangents = torch.randn(2, *trace.output.shape, generator=draws).to(trace.output)
        parts = halves(len(trace.output))
        for cotangent, without in zip(cotangents, parts, strict=True):
            cotangent[without] = 0
        for p, grads in zip(cuts, self.vjps(trace, trace.output, cuts, cotangents), strict=True):
            if not grads.any():
                raise CutError(f"{self.cuts[p]!r} does not reach the output: no change there has an effect on it")
            foreign = max(float(g[without].abs().max()) for g, without in zip(grads, parts, strict=True))
            if foreign > _LEAK * float(grads.abs().max()):
                raise CutError(
                    f"data points are mixed: the gradient of the output of half of a batch with respect to "
                    f"{self.cuts[p]!r} is not zero at the other half ({foreign:.2g}, the largest is "
                    f"{float(grads.abs().max()):.2g}): each data point must be independent of the others"
                )

    def _in_double(self, batch: Batch) -> tuple[Network, Batch]:
        """Copy this network and a batch to float64; return them as they are if the model cannot run in float64."""
        if all(p.dtype == torch.float64 for p in self.model.parameters() if p.is_floating_point()):
            return self, batch
        try:
            exact = self.with_model(deepcopy(self.model).double())
            given: Batch = map_tensors(lambda v: v.double() if v.is_floating_point() else v, batch)
            exact.activations(given)
        except Exception:  # any error: a model that names its type, or that cannot be copied
            return self, batch
        return exact, given

    def _check_derivative(self, batch: Batch, p: int) -> None:
        """Check autograd's derivative of the output with respect to a cut against finite differences near the data."""
        start = self.trace(batch, joined=True, start=p)
        here = start.values[p].detach()
        if here.dtype not in DIFFERENTIABLE:
            return
        draws = torch.Generator().manual_seed(0)
        size = float(here.square().mean().sqrt())
        away = size * AWAY[here.dtype] * torch.randn(here.shape, generator=draws, dtype=torch.float64).to(here)
        try:
            near = self.trace(batch, joined=True, start=p, replace={p: self.moved(start, p, away)})
        except DataError:  # the model may not accept values that do not occur there
            near, away = start, torch.zeros_like(here)
        cotangent = torch.randn(near.output.shape, generator=draws, dtype=torch.float64).to(near.output)

        def output_at(named: Mapping[str, Tensor]) -> Tensor:
            there = self.trace(batch, replace={p: self.moved(start, p, named["cut"] - here)})
            return (there.output * cotangent).sum().detach()

        (slope,) = self.vjp(near, near.output, p, cotangent[None])
        if found := gradient_disagreements(output_at, {"cut": here + away}, {"cut": slope}):
            raise CutError(
                f"autograd's derivative of the output with respect to {self.cuts[p]!r} is wrong: along a random "
                f"direction it is {found[0].by_autograd:.4g}, but finite differences give "
                f"{found[0].by_differences:.4g}. Something after this cut changes the gradient: a straight-through "
                "estimator, detach, fake quantisation, a reversed or clipped gradient, or a custom backward. Remove "
                "it for the analysis"
            )

    def check_returned(self, batches: Iterable[Batch]) -> bool:
        """Check layout, independence and function of all that the model returns, as a loss of the user's sees it.

        Cuts are not looked at, and the structure is the model's own: tensors of any number of axes, of which those
        that hold data points are compared.

        Returns:
            Whether the model was checked: False where it is to be trusted.

        Raises:
            CutError: data points are mixed.
            DataError: the model is not a function of its batch.
        """
        if not self._checked and self._check:
            other = copy(self)
            other._found, other._whole, other._mask, other._skip_first = (), True, None, False
            other.check_once(batches)
        return self._check

    @with_gradients()
    def check_once(self, batches: Iterable[Batch]) -> None:
        """Check the assumptions about the model, unless that has passed before or `check` is False.

        The checks use a few data points of the first batch with two of them, and the whole batch where something
        seems to be wrong: leading axes, independence of data points, a function of parameters and batch alone (see
        `checks`), no activation checkpointing past the cuts, no channels first, and `check_cuts`.

        Raises:
            CutError: names the place at which an assumption fails, what was seen and what to do.
            DataError: the model is not a function of its batch; or no batch holds two different data points.
        """
        if self._checked or not self._check:
            return
        self._check_padding(batches)
        problem: DataError | None = None
        single: Batch | None = None
        for batch in read_batches(batches, "checks", None):
            if batch_size(batch) < 2:
                pair = None if single is None else joined([single, batch])
                single, batch = batch, pair
                if batch is None:
                    continue
            if not self._swappable(batch):
                continue
            try:
                self._check_on_few(batch)
                return
            except _UnchangedError as error:
                problem = problem or error
        if self._found is None or self._found:
            alike = " at which the same positions count" if self.masked else ""
            raise problem or DataError(
                f"no batch holds two data points{alike}: the cuts can only be checked by swapping two of them"
            )
        if single is not None:
            self._check_model(single, single, ())
            self._checked = True

    def _check_on_few(self, batch: Batch) -> None:
        self._settle(batch)
        places = [place for cut in self._cuts for place in cut.places]

        def check(part: Batch) -> None:
            self._check_model(part, batch, places)
            if self._cuts:
                self.check_cuts(part)

        with random_numbers_put_back():
            _few_then_all(batch, check)
        self._checked = True

    def _swappable(self, batch: Batch) -> bool:
        """Return whether two data points can be swapped under the same mask: it is held, or equal for both."""
        mask = self.mask(batch)
        if mask is None or isinstance(self._mask, str):
            return True
        return not torch.equal(swap_partners(mask), torch.arange(len(mask)))

    def _check_padding(self, batches: Iterable[Batch]) -> None:
        """Check, on the first batch with padding, that padding has no effect where positions count."""
        if self._mask is None:
            self._refuse_unread_mask(batches)
            return

        def mask_of(batch: Batch) -> Tensor:
            mask = read_mask(self._mask, batch, self._arguments)
            return torch.ones(1, 1, dtype=torch.bool) if mask is None else mask

        batch = next((b for b in read_batches(batches, "checks", None) if not mask_of(b).all()), None)
        if batch is None:
            return
        mask, changed = mask_of(batch), other_padding(batch, mask_of)
        with torch.no_grad():
            here = self.trace(batch)
            entries = here.entries[0] if self._cuts else ()
            if changed is not None:
                there = self.trace(changed)
            elif entries and entries[0].shape[:2] == mask.shape:  # the tokens make the mask: change the first cut
                padding = Counted(slice(None), ~mask)
                there = self.trace(batch, replace={0: [padding.write(e, e.roll(1, 1) + 1) for e in entries]})
            else:
                return
        leak = float((there.output - here.output).norm() / here.output.norm())
        if not leak <= _LEAK:
            raise DataError(
                f"the output at positions that count depends on padding, {leak:.2g} of it: the model reads positions "
                "that the mask leaves out. Pass the mask to the model (attention_mask), or give a mask of all "
                "positions that it reads"
            )

    def _refuse_unread_mask(self, batches: Iterable[Batch]) -> None:
        """Refuse padded batches whose mask is given to the model alone, since padding would be read as data."""
        for batch in read_batches(batches, "checks", None):
            masks = None if self._whole else unread_masks(batch, self._arguments)
            if masks is None:
                return
            if not masks:
                continue
            with torch.no_grad():
                trace = self.trace(batch)
            for name, mask in masks.items():
                if any(value.shape[1] == mask.shape[1] > 1 for value in (*trace.values, trace.output)):
                    if name == "attention_mask":
                        seen, declared = f"{name} holds zeros", f"mask={name!r}"
                    else:
                        seen = f"{name} holds true and false"
                        declared = how_to_declare(name, mask, batch, self._arguments)
                    raise DataError(
                        f"batches are padded ({seen}), and all positions would count, padding too: pass "
                        f"Network(..., {declared})"
                    )
            return

    def check_rows(self, batch: Batch, names: Iterable[str]) -> None:
        """Check layout, independence and function at any places, for analyses that read modules themselves.

        Args:
            batch: a batch; few of its data points are used.
            names: of modules (their output) or, with ":in", of their input.

        Raises:
            CutError: names the place at which an assumption fails.
            DataError: the model is not a function of its batch.
        """
        if not self._check:
            return
        wanted = [short_name(self.model, name) for name in names]
        places = [Place(name.removesuffix(":in"), name.endswith(":in")) for name in wanted]
        _few_then_all(batch, lambda part: self._check_model(part, batch, places))

    def _check_model(self, batch: Batch, whole: Batch, places: Sequence[Place]) -> None:
        with random_numbers_put_back():
            run = partial(self._observe, places)
            self._written = ()  # first, so that all later runs restore what the model writes into
            self._written = check_function(self.model, run, batch, whole, self._events)
            with naming_batch(batch), torch.no_grad():
                if places:
                    names = {module: path for path, module in self._modules.items()}
                    refuse_checkpointing(names, lambda: self._forward(batch, whole=True))
                self._refuse_channels_first(batch, places)
            check_points(run, batch, self._events, whole)

    def _refuse_channels_first(self, batch: Batch, places: Sequence[Place]) -> None:
        with torch.no_grad():
            found = channels_first(self._modules, lambda: self._forward(batch, whole=True), places)
        for place, where in found.items():
            if not self._layouts.declared(place) and (place or places or self.loss == "kl"):
                refuse_channels_first(place.name if place else "output", where)

    def _observe(self, places: Sequence[Place], batch: Batch, gradients: bool) -> Seen:
        """Run one pass, with or without gradients, and return the tensors at some places and the output."""
        seen: Seen = {}

        def visit(place: Place, value: Tensor) -> Tensor:
            swap = self._layouts.swap(place)
            name = place.name if place.name not in seen else f"{place.name} (again)"
            seen[name] = _in_layout(value, swap)
            return value

        with torch.set_grad_enabled(gradients), naming_batch(batch):
            raw = self._forward(batch, places, visit, gradients=gradients, whole=self._whole)
        if self._whole:
            n, parts = batch_size(batch), enumerate(tensors(raw))
            own = {f"output {i}": v for i, v in parts if v.is_floating_point() and v.ndim and len(v) == n}
            return seen | {name: v.detach().clone() for name, v in own.items()}
        as_sequence(raw, "output")
        seen["output"] = _in_layout(raw, self._layouts.swap(None))
        return seen

    def _events(self, batch: Batch, gradients: bool) -> list[tuple[str, Any]]:
        """Run one pass and return the inputs and outputs of every module, in order."""
        events: list[tuple[str, Any]] = []

        def note(name: str, value: Any) -> None:
            events.append((name, [v.detach().clone() for v in tensors(value)]))

        with ExitStack() as stack, torch.set_grad_enabled(gradients):
            for path, module in self._modules.items():
                before, after = (Place(path or type(module).__name__, is_input).name for is_input in (True, False))
                enters = module.register_forward_pre_hook(
                    lambda _, args, kwargs, name=before: note(name, (args, kwargs)), with_kwargs=True
                )
                leaves = module.register_forward_hook(lambda _, __, value, name=after: note(name, value))
                stack.callback(enters.remove)
                stack.callback(leaves.remove)
            self._forward(batch, gradients=gradients, whole=True)
        return events

    def _scan(self, few: Batch) -> tuple[Cut, ...]:
        """Find the cuts with `scan` among the places whose leading axis is the data point."""
        index = torch.arange(batch_size(few)).roll(1)
        places = [cut.places[0] for cut in candidates(self.model)]
        values, output = self._all_values(few, places)
        rolled, _ = self._all_values(take_points(few, index), places)
        with torch.no_grad(), naming_batch(few):
            skipped = channels_first(self._modules, lambda: self._forward(few, whole=True), places)
        usable = [
            place
            for place, value in values.items()
            if (place not in skipped or self._layouts.declared(place))
            and place in rolled
            and not differs(value[index], rolled[place])
        ]
        leak = self._swapping(few, [Cut((place,)) for place in usable], {})
        return scan(
            {place: values[place] for place in usable},
            vocabularies(self.model, output.shape[-1]),
            lambda place: leak(usable.index(place)) <= _LEAK,
        )

    def _all_values(self, batch: Batch, places: Sequence[Place]) -> tuple[dict[Place, Tensor], Tensor]:
        """Copy the tensors at all places that are computed once, in order, and the output."""
        values: dict[Place, Tensor] = {}
        calls: dict[Place, int] = {}
        n, mask = batch_size(batch), self.mask(batch)

        def note(place: Place, value: Tensor) -> Tensor:
            calls[place] = calls.get(place, 0) + 1
            if value.ndim in (2, 3) and value.is_floating_point():
                sequence = self._sequence(place, value)
                fits = value.ndim == 2 or mask is None or sequence.shape[1] in (1, mask.shape[1])
                if fits and len(sequence) == n:
                    values[place] = sequence.clone()
            return value

        with torch.no_grad(), naming_batch(batch):
            output = self._arranged(self._forward(batch, places, note))
        return {place: value for place, value in values.items() if calls[place] == 1}, output

    def _swapping(
        self, batch: Batch, cuts: Sequence[Cut], positions: Mapping[int | str, Positions]
    ) -> Callable[[int], float]:
        """Compute the leak |f(x' with h(x)) - f(x)| / |f(x') - f(x)| of each cut, x' being x with points swapped."""
        mask = self.mask(batch)
        held = mask_entry(batch, self._mask, self._arguments) if isinstance(self._mask, str) else None
        rolled = swapped(batch, mask, held)
        run = _Run(None, {}, self._layouts)

        def output_of(batch: Batch, cuts: Sequence[Cut], run: _Run) -> Tensor:
            with torch.no_grad(), naming_batch(batch):
                return self._read(self._arranged(self._run(batch, cuts, run)), "output", mask)

        here = output_of(batch, cuts, run)
        span = float((output_of(rolled, (), _Run(None, {}, self._layouts)) - here).norm())
        if not span > 0:
            other = any(not torch.equal(a, b) for a, b in zip(tensors(batch), tensors(rolled), strict=True))
            for p, cut in enumerate(cuts if other else ()):
                entries = [run.entries[p, i] for i in range(len(cut.places))]
                if all(torch.equal(entry, entry[:1].expand_as(entry)) for entry in entries):
                    raise CutError(
                        f"the activations at {cut.name!r} do not vary over the {len(here)} data points of a batch: "
                        "leave this cut out, or use data that makes it vary"
                    )
            raise _UnchangedError(
                "swapping the data points of a batch leaves the output unchanged: give different ones"
            )

        def leak(p: int) -> float:
            entries = {0: [run.entries[p, i] for i in range(len(cuts[p].places))]}
            where = partial(self._where, mask, positions.get(p, "all"), cuts[p].name)
            got = output_of(rolled, (cuts[p],), _Run(None, entries, self._layouts, where))
            return float((got - here).norm()) / span

        return leak

    def _check_transitions(self, trace: Trace) -> None:
        for p, transition in self.transitions.items():
            expected = trace.values[p + 1].detach()
            got = trace.counted[p + 1].clean(transition.apply(trace.values[p].detach()))
            tolerance = 1e-9 if expected.dtype == torch.float64 else 1e-4
            same = got.shape == expected.shape and trace.counted[p].agrees(trace.counted[p + 1])
            if not same or (got - expected).norm() > tolerance * expected.norm():
                raise CutError(
                    f"the transition declared from {self.cuts[p]!r} to {self.cuts[p + 1]!r} does not reproduce the "
                    "model's activations: correct it or leave it out"
                )

    def _run(self, batch: Batch, cuts: Sequence[Cut], run: _Run) -> Tensor:
        """Run the model, record and replace the tensors of the cuts as `run` says, and return the output."""
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
                value = run.visit(p, i, value, place)
            return value

        output: Tensor = self._forward(batch, indices, visit)
        for place, count in calls.items():
            if count != 1:
                raise CutError(
                    f"{place.name!r} is computed {count} times in a forward pass, expected once: "
                    "cut at a module that is not shared and is used"
                )
        return output

    def _forward(
        self,
        batch: Batch,
        places: Iterable[Place] = (),
        visit: Visit = lambda _, value: value,
        parameters: Mapping[str, Tensor] | None = None,
        *,
        gradients: bool = False,
        whole: bool = False,
    ) -> Any:
        final = Kept()
        keep = Place(str(self._output), False)
        by_module = isinstance(self._output, str) and self._output in self._modules
        with ExitStack() as stack:
            given = None if parameters is not None else gradients
            stack.enter_context(at_rest(self.model, gradients=given, restored=self._written))
            for place in places:
                stack.callback(hooked(self._modules[place.path], place, visit).remove)
            if by_module:
                stack.callback(hooked(self._modules[keep.path], keep, final).remove)
            args, kwargs = arguments(batch, _one_type(parameters.values() if parameters else self.model.parameters()))
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
        if self._output is not None:
            try:
                by_name = isinstance(self._output, str) and not isinstance(returned, Mapping)
                value = getattr(returned, str(self._output)) if by_name else returned[self._output]
            except (AttributeError, KeyError, IndexError, TypeError) as error:
                raise CutError(
                    f"the model's return value has no {self._output!r}: it is a {type(returned).__name__}"
                ) from error
        if not whole and not isinstance(value, Tensor):
            raise CutError(
                f"the model returns a {type(value).__name__}: say which part is the output, for example output='logits'"
            )
        return value

    def _resolve_positions(self, positions: Positions | Mapping[str, Positions]) -> dict[int | str, Positions]:
        if not isinstance(positions, Mapping):
            return {len(self._cuts) - 1: positions, "output": positions}
        positions = {name if name == "output" else short_name(self.model, name): v for name, v in positions.items()}
        if unknown := set(positions) - {*self.cuts, "output"}:
            raise CutError(f"positions are given for {sorted(unknown)}, which are not among the cuts {list(self.cuts)}")
        chosen: dict[int | str, Positions] = {self.cuts.index(k): v for k, v in positions.items() if k != "output"}
        chosen["output"] = positions.get("output", chosen.get(len(self._cuts) - 1, "all"))
        return chosen

    def _resolve_layouts(self, batch_first: BatchFirst) -> Layouts:
        if not isinstance(batch_first, Mapping):
            output = Place(self._output, False) if isinstance(self._output, str) else None
            return Layouts(batch_first, {}, output if output and output.path in self._modules else None)
        named: dict[Place | None, Layout] = {}
        for name, layout in batch_first.items():
            for part in short_name(self.model, name).split("+"):
                place = Place(part.removesuffix(":in"), part.endswith(":in"))
                if part != "output" and place.path not in self._modules:
                    raise CutError(f"batch_first is given for {name!r}, which no module or cut is called")
                named[None if part == "output" and place.path not in self._modules else place] = layout
        output = Place(str(self._output), False)
        return Layouts(True, named, output if output.path in self._modules else None)

    def _sequence(self, place: Place, value: Tensor) -> Float[Tensor, "batch _ _"]:
        return as_sequence(value, place.name, self._layouts.swap(place))

    def _arranged(self, output: Tensor) -> Float[Tensor, "batch positions width"]:
        return as_sequence(output, "output", self._layouts.swap(None))

    def _counted(self, value: Tensor, key: int | str, mask: Tensor | None) -> Counted:
        name = "the output" if isinstance(key, str) else repr(self.cuts[key])
        return counted_at(mask, self._positions.get(key, "all"), len(value), value.shape[1], name)

    @staticmethod
    def _where(mask: Tensor | None, positions: Positions, name: str, _: int, value: Tensor) -> Counted:
        return counted_at(mask, positions, len(value), value.shape[1], repr(name))

    def _read(self, value: Tensor, key: int | str, mask: Tensor | None) -> Tensor:
        return self._counted(value, key, mask).read(value)

    def _blame(self, batch: Batch) -> str:
        for name, parameter in self.model.named_parameters():
            if not torch.isfinite(parameter).all():
                return f"the weight {name!r} holds them"
        holds = not all(torch.isfinite(v).all() for v in tensors(batch))
        return "the data holds them" if holds else "data and weights are finite, so the model overflows"
