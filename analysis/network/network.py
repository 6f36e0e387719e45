"""Network: a torch model with named cuts. Hooks read and replace the tensors at the cuts; the model is not rewritten.

A set of tensors is a *cut* when every path from the input to the output passes through it. `Network.check_cuts`
tests this by swapping: with the tensors at the cut taken from x while the model runs on x', the output must be
that of x.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import replace as changed
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..derivatives import batched_gradients
from ..devices.device import device_of, moved, sums_on
from ..devices.memory import points_that_fit
from ..errors import CutError, DataError, GraphError, InterbasisError
from ..notebook.tables import html_table
from .batches import Batch, batch_size, doubled, joined, map_tensors, naming_batch, read_batches, take_points
from .checks import check_model, check_sizes, few_then_all, parameters_put_back, random_numbers_put_back
from .cut_search import LeftOut, find_cuts, modules_left_out
from .cuts import Cut, Place, resolve, short_name, stream_names
from .forward import HookedModel, ReachedError, Record, Trace, check_finite, concatenate
from .hooks import Kept, as_written, copied, copied_to, with_gradients
from .layouts import BatchFirst
from .masks import Counted, Mask, Masks, Positions, counted_at
from .swap_test import (
    UnchangedError,
    check_derivative,
    check_gradients,
    check_padding,
    check_swaps,
    check_transitions,
)
from .transitions import PositionWise, Transition

__all__ = ["Network"]


class Network:
    """A model, its cuts and its behavioural loss.

    Args:
        model: any module; its mode, parameters and gradients are left as they were.
        cuts: paths of `named_modules()` (the module's output), `path:in` (its input), globs matched part by part
            (`transformer.h.*`), tuples of names (a concatenated cut), `resid_pre.0` and `resid_post.3` for the residual
            stream before and after a block, or "auto": the residual stream of a sequence of blocks, or else one place
            per layer, that pass the swap test on `example`, or else on the first batch that is seen (see `find_cuts`);
            or none, where only losses are asked for. The parts `module.` and `_orig_mod.` that wrappers add to names
            are left out of `cuts`, and accepted.
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
        device: where to compute: "cpu", "cuda", "cuda:1", "mps" or "auto"; a model that is elsewhere is copied there.
            Default: where the model is. Batches are moved there one at a time.
        check: whether `check_once` tests what the analyses assume about the model; without, the model is trusted,
            and `checked` stays False.

    Attributes:
        assumed: what was assumed of the model where nothing was said, as sentences; results say it, too.

    Raises:
        InputError: an unknown device, or one that is not there.
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
        device: str | torch.device | None = None,
        check: bool = True,
    ) -> None:
        if loss not in ("mse", "kl"):
            raise GraphError(f"unknown behavioural loss {loss!r}: expected 'mse' or 'kl'")
        self.loss = loss
        hooked = HookedModel(model, output, batch_first)
        model = copied_to(model, device)
        self._hooked = hooked.on(model)
        self._masks = Masks(model, mask, skip_first)
        self._widths: tuple[int, ...] | None = None
        self._part_widths: tuple[tuple[int, ...], ...] = ()
        self._output_width = 0
        self.check, self._checked, self._whole = check, False, False
        self.assumed: tuple[str, ...] = ()
        self._found: tuple[Cut, ...] | None = None
        self._left_out: LeftOut | None = None
        self._options = positions, transitions or {}
        self._positions: dict[int | str, Positions] = {}
        if cuts != "auto":
            self._set_cuts(resolve(model, [cuts] if isinstance(cuts, str) else cuts) if len(cuts) else ())
        if example is not None:
            with parameters_put_back(model) if check else nullcontext():
                self.activations(example)

    @property
    def model(self) -> nn.Module:
        """The model."""
        return self._hooked.model

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return device_of(self.model)

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
        found = {p: form for p, form in found.items() if isinstance(form, PositionWise) or not self.masked}
        exact = sums_on(self.device) == self.device  # they are computed in float64
        self.transitions = map_tensors(lambda v: v.to(self.device), found) if exact else {}

    def _settle(self, batch: Batch) -> None:
        """Find the cuts on the first batch where `cuts` was "auto"."""
        if self._found is None:
            self._set_cuts(few_then_all(batch, partial(find_cuts, self._hooked, self._masks)))

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

    def _repr_html_(self) -> str:
        """Return a table of the cuts and their widths, and the modules at no cut once they are known, for notebooks."""
        name = type(self.model).__name__
        if self._found is None:
            return html_table(f"Network of {name}", {}, ["The cuts are found once a batch was seen."])
        widths = self._widths or (None,) * len(self.cuts)
        checked = "checked" if self.checked else "not checked yet"
        notes = [] if self._left_out is None else self._left_out.sentences()
        columns = {"cut": self.cuts, "width": widths}
        return html_table(f"Network of {name}, loss {self.loss}, {checked}", columns, notes)

    @property
    def output_width(self) -> int:
        """The number of output coordinates, known once a batch was seen."""
        if not self._output_width:
            raise CutError("the width of the output is known once a batch was seen: pass example=batch")
        return self._output_width

    @property
    def masked(self) -> bool:
        """Whether the positions that count may differ between data points."""
        return self._masks.vary

    @property
    def streams(self) -> dict[str, str]:
        """The cuts that are the residual stream before or after a block, by their names in the field.

        >>> from torch.nn import ModuleList, Sequential, TransformerEncoderLayer
        >>> Network(Sequential(ModuleList([TransformerEncoderLayer(4, 1)])), ["resid_pre.0", "0.0"]).streams
        {'resid_pre.0': '0.0:in', 'resid_post.0': '0.0'}
        """
        return {name: at.name for name, at in stream_names(self.model).items() if at.name in self.cuts}

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was assumed of the model, and which cuts are the residual stream, as sentences."""
        named: dict[str, list[tuple[str, str]]] = {"resid_pre": [], "resid_post": []}
        for name, cut in self.streams.items():
            named[name.partition(".")[0]].append((name, cut))
        parts = []
        for found in filter(None, named.values()):
            (name, cut), (last, last_cut) = found[0], found[-1]
            parts.append(f"{cut} is {name}" if len(found) == 1 else f"{cut} to {last_cut} are {name} to {last}")
        return (*self.assumed, *([f"Residual stream: {', '.join(parts)}."] if parts else []))

    def mask(self, batch: Batch) -> Bool[Tensor, "batch positions"] | None:
        """Return which positions count at each data point of a batch; None where all do."""
        return self._masks.of(batch)

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

    def points_that_fit(self, batch: Batch) -> int | None:
        """Return how many data points like those of a batch fit into memory in a backward pass.

        None if memory is unknown, or if the network cannot run on them, which its checks tell.

        Raises:
            DataError: not even one data point fits.
        """
        few = take_points(batch, slice(0, 2))
        try:
            with torch.no_grad():
                seen = self.trace(few)
        except InterbasisError:
            return None
        return points_that_fit(partial(self.trace, few, joined=True), (*seen.values, seen.output), self.model)

    def with_model(self, model: nn.Module) -> Network:
        """Return a network with the same cuts and loss on another model; exact forms are not taken along."""
        other = copy(self)
        other._hooked, other._masks = self._hooked.on(model), changed(self._masks, model=model)
        other.transitions, other._checked = {}, False
        return other

    def forward(self, batch: Batch) -> Float[Tensor, "batch positions width"]:
        """Run the model with its parameters frozen; an autograd graph starts only where hooks start one."""
        return self.counted_output(batch)[0]

    def counted_output(self, batch: Batch) -> tuple[Float[Tensor, "batch positions width"], Counted]:
        """Compute the output as `forward` does, and which of its positions count."""
        self._settle(batch)
        raw = self._hooked.arranged(self._hooked.run(batch))
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
        raw = self._hooked.run(batch, places, kept, parameters)
        mask = self.mask(batch)
        found = []
        for p in cuts:
            parts = [self._hooked.sequence(place, kept.values[place]) for place in self._cuts[p].places]
            found.append(self._read(torch.cat(parts, -1), p, mask))
        return self._read(self._hooked.arranged(raw), "output", mask), found

    def uncleaned(
        self, parameters: Mapping[str, Tensor], batch: Batch
    ) -> tuple[Float[Tensor, "batch positions width"], Bool[Tensor, "batch positions"] | None]:
        """Compute the output as `evaluate` does, but not 0 where a position does not count, and which count."""
        self._settle(batch)
        raw = self._hooked.arranged(self._hooked.run(batch, parameters=parameters))
        counted = self._counted(raw, "output", self.mask(batch))
        if isinstance(counted.index, Tensor):
            return counted.read(raw), None
        return raw[..., counted.index, :], counted.mask

    def returned(self, parameters: Mapping[str, Tensor], batch: Batch) -> Any:
        """Return what the model returns with given parameters, or the part that `output` names, unchanged.

        Its shape and structure are the model's own, whatever `positions` and `batch_first` say.
        """
        return self._hooked.run(batch, parameters=parameters, whole=True)

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
        seen = Record(start if joined else None, replace or {}, self._hooked.layouts)
        with naming_batch(batch):
            raw = self._hooked.record(batch, self._cuts, seen)
        entries = tuple(tuple(seen.entries[p, i] for i in range(len(cut.places))) for p, cut in enumerate(self._cuts))
        whole = [concatenate(seen.values, p, cut) for p, cut in enumerate(self._cuts)]
        mask = self.mask(batch)
        last = self._hooked.arranged(raw)
        if self.check:
            check_sizes({**dict(zip(self.cuts, whole, strict=True)), "output": last}, batch_size(batch))
        counted = tuple(self._counted(value, p, mask) for p, value in enumerate(whole))
        values = tuple(where.read(value) for where, value in zip(counted, whole, strict=True))
        output_counted = self._counted(last, "output", mask)
        output = output_counted.read(last)
        self._widths = tuple(value.shape[-1] for value in values)
        self._part_widths = tuple(tuple(entry.shape[-1] for entry in parts) for parts in entries)
        self._output_width = output.shape[-1]
        check_finite((*zip(self.cuts, values, strict=True), ("the output", output)), self.model, batch)
        return Trace(entries, values, output, counted, output_counted, frozenset(seen.grids))

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
            where.write(entry, where.read(entry) + part.to(entry)) for entry, part in zip(entries, parts, strict=True)
        ]

    def resume(
        self,
        batch: Batch,
        start: int,
        values: Float[Tensor, "batch _ _"],
        stop: int | None = None,
        *,
        gradients: bool = False,
    ) -> Float[Tensor, "batch _ _"]:
        """Compute the activations at a cut (None: the output) from new values at an earlier cut.

        Exact forms are used where they connect the two cuts (call `check_once` before); otherwise the model runs
        from its input to the requested cut, and no further. With `gradients` the result can be differentiated by the
        values; parameters require none.
        """
        with torch.set_grad_enabled(gradients):
            if stop is not None and not self.masked and all(p in self.transitions for p in range(start, stop)):
                wanted_type = next((w.dtype for w in self.model.parameters()), values.dtype)
                values = values.to(self.device, wanted_type)
                for p in range(start, stop):
                    values = self.transitions[p].apply(values)
                return values
            values = moved(values, self.device)
            given = dict(zip(self._cuts[start].places, values.split(self._part_widths[start], -1), strict=True))
            wanted = self._cuts[stop].places if stop is not None else ()
            read: dict[Place, Tensor] = {}
            mask = self.mask(batch)

            def visit(place: Place, value: Tensor) -> Tensor:
                sequence = self._hooked.sequence(place, value)
                if place in given:
                    sequence = self._counted(sequence, start, mask).write(sequence, given[place])
                if place in wanted:
                    read[place] = sequence.clone()
                    if len(read) == len(wanted):
                        raise ReachedError
                return as_written(sequence, value, self._hooked.layouts.of(place))

            try:
                output = self._hooked.run(batch, {**given, **dict.fromkeys(wanted)}, visit)
            except ReachedError:
                return self._read(torch.cat([read[place] for place in wanted], -1), stop or 0, mask)
        return self._read(self._hooked.arranged(output), "output", mask)

    def jacobian(self, batch: Batch, earlier: int, later: int) -> Float[Tensor, "batch t_out d_out t_in d_in"]:
        """Compute per-sample Jacobians of the activations at one cut with respect to those at an earlier one."""
        trace = self.trace(batch, joined=True, start=earlier)
        target = trace.values[later]
        n, t, d = target.shape
        basis = torch.eye(t * d, dtype=target.dtype, device=target.device).reshape(t * d, 1, t, d).expand(-1, n, -1, -1)
        rows = self.vjp(trace, target, earlier, basis)
        return rows.transpose(0, 1).reshape(n, t, d, *rows.shape[2:])

    def check_cuts(self, batch: Batch) -> None:
        """Check that every cut passes the swap test and reaches the output, with gradients of each data point its own.

        Raises:
            CutError: names the leaking cut and the share of the swap that gets around it, or the cut without effect.
            DataError: the batch holds fewer than two different data points.
        """
        self._settle(batch)
        check_swaps(self._hooked, self._masks, batch, self._cuts, self._positions)
        for trace, cuts in self.output_traces(batch, range(len(self._cuts))):
            check_gradients(self, trace, cuts, self.cuts)
        exact, given = self._if_in_double(batch)
        for p, cut in enumerate(self.cuts):
            check_derivative(exact, given, p, cut)
        with torch.no_grad():
            check_transitions(self.trace(batch), self.transitions, self.cuts)

    def in_double(self) -> Network:
        """Return this network in float64, with a copy of its model unless that is in float64 already.

        The copy is on the CPU where the device has no float64.
        """
        if all(p.dtype == torch.float64 for p in self.model.parameters() if p.is_floating_point()):
            return self
        return self.with_model(copied(self.model).to(sums_on(self.device)).double())

    def _if_in_double(self, batch: Batch) -> tuple[Network, Batch]:
        """Return network and batch in float64, or as they are if the model cannot run in float64."""
        try:
            exact, given = self.in_double(), next(iter(doubled([batch])))
            exact.activations(given)
        except Exception:  # any error: a model that names its type, or that cannot be copied
            return self, batch
        return exact, given

    def left_out(self, batch: Batch) -> LeftOut:
        """Return the modules with weights whose output is at no cut, before, between and after the cuts."""
        self._settle(batch)
        self._left_out = modules_left_out(self._hooked, self._cuts, batch)
        return self._left_out

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
        if not self._checked and self.check:
            other = copy(self)
            other._found, other._whole = (), True
            other._hooked, other._masks = copy(self._hooked), Masks(self.model, None, False)
            other.check_once(batches)
        return self.check

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
        if self._checked or not self.check:
            return
        if not self._whole:
            check_padding(self, self._masks, batches)
        problem: DataError | None = None
        single: Batch | None = None
        for batch in read_batches(batches, "checks", None):
            if batch_size(batch) < 2:
                pair = None if single is None else joined([single, batch])
                single, batch = batch, pair
                if batch is None:
                    continue
            if not self._masks.swappable(batch):
                continue
            try:
                self._check_on_few(batch)
                return
            except UnchangedError as error:
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
            few_then_all(batch, check)
        self._checked = True

    def check_rows(self, batch: Batch, names: Iterable[str]) -> None:
        """Check layout, independence and function at any places, for analyses that read modules themselves.

        Args:
            batch: a batch; few of its data points are used.
            names: of modules (their output) or, with ":in", of their input.

        Raises:
            CutError: names the place at which an assumption fails.
            DataError: the model is not a function of its batch.
        """
        if not self.check:
            return
        wanted = [short_name(self.model, name) for name in names]
        places = [Place(name.removesuffix(":in"), name.endswith(":in")) for name in wanted]
        few_then_all(batch, lambda part: self._check_model(part, batch, places))

    def _check_model(self, batch: Batch, whole: Batch, places: Sequence[Place]) -> None:
        check_model(self._hooked, batch, whole, places, loss=self.loss, returned=self._whole)

    def _resolve_positions(self, positions: Positions | Mapping[str, Positions]) -> dict[int | str, Positions]:
        if not isinstance(positions, Mapping):
            return {len(self._cuts) - 1: positions, "output": positions}
        positions = {name if name == "output" else short_name(self.model, name): v for name, v in positions.items()}
        if unknown := set(positions) - {*self.cuts, "output"}:
            raise CutError(f"positions are given for {sorted(unknown)}, which are not among the cuts {list(self.cuts)}")
        chosen: dict[int | str, Positions] = {self.cuts.index(k): v for k, v in positions.items() if k != "output"}
        chosen["output"] = positions.get("output", chosen.get(len(self._cuts) - 1, "all"))
        return chosen

    def _counted(self, value: Tensor, key: int | str, mask: Tensor | None) -> Counted:
        name = "the output" if isinstance(key, str) else repr(self.cuts[key])
        mask = None if mask is None else mask.to(value.device)
        return counted_at(mask, self._positions.get(key, "all"), len(value), value.shape[1], name)

    def _read(self, value: Tensor, key: int | str, mask: Tensor | None) -> Tensor:
        return self._counted(value, key, mask).read(value)
