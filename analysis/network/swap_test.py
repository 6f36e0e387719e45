"""The swap test, and what else is checked of the cuts of a network.

x' is x with its data points exchanged. With the tensors at a cut taken from x while the model runs on x', the output
must be that of x: the part of the effect of the exchange that remains is the leak of the cut. Further, the gradients of
the output belong to one data point each and agree with finite differences, exact forms reproduce the activations, and
padding has no effect. A first position that is left out by `skip_first` stays that of x in x', as if it were given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..derivatives import AWAY, DIFFERENTIABLE, gradient_disagreements
from ..errors import CutError, DataError
from .batches import Batch, naming_batch, read_batches, tensors
from .checks import halves
from .cuts import Cut
from .forward import HookedModel, Record, Trace, check_finite
from .masks import Counted, Masks, Positions, counted_at, how_to_declare, other_padding, swapped, unread_masks
from .transitions import Transition

__all__ = [
    "LEAK",
    "Traced",
    "UnchangedError",
    "check_derivative",
    "check_gradients",
    "check_padding",
    "check_swaps",
    "check_transitions",
    "leaks_by_swapping",
]

LEAK = 1e-6
"""Leaks up to this share of the effect of swapping the whole input count as rounding."""


class UnchangedError(DataError):
    """Swapping data points leaves the output of the model unchanged."""


@runtime_checkable
class Traced(Protocol):
    """The passes of a `Network` that the checks use."""

    def trace(
        self,
        batch: Batch,
        *,
        joined: bool = False,
        start: int = 0,
        replace: Mapping[int, Sequence[Tensor]] | None = None,
    ) -> Trace:
        """Run the model once, see `Network.trace`."""
        ...

    def vjps(
        self, trace: Trace, target: Tensor, cuts: Sequence[int], cotangents: Float[Tensor, "v batch positions width"]
    ) -> list[Float[Tensor, "v batch _ _"]]:
        """Compute vector-Jacobian products with respect to several cuts."""
        ...

    def moved(self, trace: Trace, cut: int, shift: Float[Tensor, "batch _ _"]) -> list[Tensor]:
        """Return the tensors at a cut with the counted positions shifted."""
        ...


def leaks_by_swapping(
    model: HookedModel, masks: Masks, batch: Batch, cuts: Sequence[Cut], positions: Mapping[int | str, Positions]
) -> Callable[[int], float]:
    """Return a function that computes the leak |f(x' with h(x)) - f(x)| / |f(x') - f(x)| of a cut h by its index.

    Args:
        model: the model f.
        masks: which positions count at each data point.
        batch: x, of which x' is made by exchanging data points.
        cuts: the cuts.
        positions: by index of a cut, and "output", the positions that count there; all elsewhere.

    Raises:
        CutError: activations at a cut do not vary.
        UnchangedError: the exchange leaves the output unchanged.
    """
    mask = masks.of(batch)
    rolled = masks.first_kept(batch, swapped(batch, mask, masks.held(batch)))
    record = Record(None, {}, model.layouts)

    def counted(key: int | str, name: str, value: Tensor) -> Counted:
        mask_there = None if mask is None else mask.to(value.device)
        return counted_at(mask_there, positions.get(key, "all"), len(value), value.shape[1], name)

    def output_of(batch: Batch, cuts: Sequence[Cut], record: Record) -> Tensor:
        with torch.no_grad(), naming_batch(batch):
            value = model.arranged(model.record(batch, cuts, record))
            return counted("output", "the output", value).read(value)

    here = output_of(batch, cuts, record)
    check_finite([("the output", here)], model.model, batch)
    span = float((output_of(rolled, (), Record(None, {}, model.layouts)) - here).norm())
    if not span > 0:
        other = any(not torch.equal(a, b) for a, b in zip(tensors(batch), tensors(rolled), strict=True))
        for p, cut in enumerate(cuts if other else ()):
            entries = [record.entries[p, i] for i in range(len(cut.places))]
            if all(torch.equal(entry, entry[:1].expand_as(entry)) for entry in entries):
                raise CutError(
                    f"the activations at {cut.name!r} do not vary over the {len(here)} data points of a batch: "
                    "leave this cut out, or use data that makes it vary"
                )
        raise UnchangedError("swapping the data points of a batch leaves the output unchanged: give different ones")

    def leak(p: int) -> float:
        entries = {0: [record.entries[p, i] for i in range(len(cuts[p].places))]}
        where = partial(counted, p, repr(cuts[p].name))
        got = output_of(rolled, (cuts[p],), Record(None, entries, model.layouts, lambda _, value: where(value)))
        return float((got - here).norm()) / span

    return leak


def check_swaps(
    model: HookedModel, masks: Masks, batch: Batch, cuts: Sequence[Cut], positions: Mapping[int | str, Positions]
) -> None:
    """Check that every cut passes the swap test; the arguments are those of `leaks_by_swapping`.

    Raises:
        CutError: names the leaking cut and the share of the swap that gets around it.
        UnchangedError: the exchange leaves the output unchanged.
    """
    leak_of = leaks_by_swapping(model, masks, batch, cuts, positions)
    for p, cut in enumerate(cuts):
        if (leak := leak_of(p)) > LEAK:
            raise CutError(
                f"{cut.name!r} is not a cut: {leak:.2g} of the effect of swapping the input goes around it (a skip "
                "path, another branch, or positions that are not counted). Cut where every path passes, for "
                'example at a residual stream, or concatenate the branches: ("a", "b")'
            )


def check_gradients(net: Traced, trace: Trace, cuts: Sequence[int], names: Sequence[str]) -> None:
    """Check that the output depends on each cut, and that the gradients of a data point belong to it alone.

    Args:
        net: the network.
        trace: a joined trace, see `Network.output_traces`.
        cuts: indices of the cuts that it serves.
        names: of all cuts.

    Raises:
        CutError: names the cut.
    """
    draws = torch.Generator().manual_seed(0)
    cotangents = torch.randn(2, *trace.output.shape, generator=draws, device="cpu").to(trace.output)
    parts = halves(len(trace.output))
    for cotangent, without in zip(cotangents, parts, strict=True):
        cotangent[without] = 0
    for p, grads in zip(cuts, net.vjps(trace, trace.output, cuts, cotangents), strict=True):
        if not grads.any():
            raise CutError(f"{names[p]!r} does not reach the output: no change there has an effect on it")
        foreign = max(float(g[without].abs().max()) for g, without in zip(grads, parts, strict=True))
        if foreign > LEAK * float(grads.abs().max()):
            raise CutError(
                f"data points are mixed: the gradient of the output of half of a batch with respect to "
                f"{names[p]!r} is not zero at the other half ({foreign:.2g}, the largest is "
                f"{float(grads.abs().max()):.2g}): each data point must be independent of the others"
            )


def check_derivative(net: Traced, batch: Batch, p: int, name: str) -> None:
    """Check autograd's derivative of the output with respect to cut p against finite differences near the data.

    Raises:
        CutError: they differ; names the cut.
    """
    start = net.trace(batch, joined=True, start=p)
    here = start.values[p].detach()
    if here.dtype not in DIFFERENTIABLE:
        return
    draws = torch.Generator().manual_seed(0)
    size = float(here.square().mean().sqrt())
    away = torch.randn(here.shape, generator=draws, dtype=torch.float64, device="cpu").to(here)
    away *= size * AWAY[here.dtype]
    try:
        near = net.trace(batch, joined=True, start=p, replace={p: net.moved(start, p, away)})
    except DataError:  # the model may not accept values that do not occur there
        near, away = start, torch.zeros_like(here)
    cotangent = torch.randn(near.output.shape, generator=draws, dtype=torch.float64, device="cpu").to(near.output)

    def output_at(named: Mapping[str, Tensor]) -> Tensor:
        there = net.trace(batch, replace={p: net.moved(start, p, named["cut"] - here)})
        return (there.output * cotangent).sum().detach()

    ((slope,),) = net.vjps(near, near.output, [p], cotangent[None])
    if found := gradient_disagreements(output_at, {"cut": here + away}, {"cut": slope}):
        raise CutError(
            f"autograd's derivative of the output with respect to {name!r} is wrong: along a random "
            f"direction it is {found[0].by_autograd:.4g}, but finite differences give "
            f"{found[0].by_differences:.4g}. Something after this cut changes the gradient: a straight-through "
            "estimator, detach, fake quantisation, a reversed or clipped gradient, or a custom backward. Remove "
            "it for the analysis"
        )


def check_transitions(trace: Trace, transitions: Mapping[int, Transition], names: Sequence[str]) -> None:
    """Check that exact forms of the maps between adjacent cuts give the activations of a trace.

    Raises:
        CutError: one does not; names its cuts.
    """
    for p, transition in transitions.items():
        expected = trace.values[p + 1].detach()
        got = trace.counted[p + 1].clean(transition.apply(trace.values[p].detach()))
        tolerance = 1e-9 if expected.dtype == torch.float64 else 1e-4
        same = got.shape == expected.shape and trace.counted[p].agrees(trace.counted[p + 1])
        if not same or (got - expected).norm() > tolerance * expected.norm():
            raise CutError(
                f"the transition declared from {names[p]!r} to {names[p + 1]!r} does not reproduce the "
                "model's activations: correct it or leave it out"
            )


def check_padding(net: Traced, masks: Masks, batches: Iterable[Batch]) -> None:
    """Check, on the first batch with padding, that padding has no effect where positions count.

    Raises:
        DataError: it has; or batches are padded and no mask is declared.
    """
    if masks.mask is None:
        _refuse_unread_mask(net, masks, batches)
        return
    batch = next((b for b in read_batches(batches, "checks", None) if not masks.padding(b).all()), None)
    if batch is None:
        return
    mask, changed = masks.padding(batch), other_padding(batch, masks.padding)
    with torch.no_grad():
        here = net.trace(batch)
        entries = here.entries[0] if here.entries else ()
        if changed is not None:
            there = net.trace(changed)
        elif entries and entries[0].shape[:2] == mask.shape:  # the tokens make the mask: change the first cut
            padding = Counted(slice(None), ~mask.to(entries[0].device))
            there = net.trace(batch, replace={0: [padding.write(e, e.roll(1, 1) + 1) for e in entries]})
        else:
            return
    leak = float((there.output - here.output).norm() / here.output.norm())
    if not leak <= LEAK:
        raise DataError(
            f"the output at positions that count depends on padding, {leak:.2g} of it: the model reads positions "
            "that the mask leaves out. Pass the mask to the model (attention_mask), or give a mask of all "
            "positions that it reads"
        )


def _refuse_unread_mask(net: Traced, masks: Masks, batches: Iterable[Batch]) -> None:
    """Refuse padded batches whose mask is given to the model alone, since padding would be read as data."""
    for batch in read_batches(batches, "checks", None):
        found = unread_masks(batch, masks.arguments)
        if found is None:
            return
        if not found:
            continue
        with torch.no_grad():
            trace = net.trace(batch)
        for name, mask in found.items():
            if any(value.shape[1] == mask.shape[1] > 1 for value in (*trace.values, trace.output)):
                if name == "attention_mask":
                    seen, declared = f"{name} holds zeros", f"mask={name!r}"
                else:
                    seen = f"{name} holds true and false"
                    declared = how_to_declare(name, mask, batch, masks.arguments)
                raise DataError(
                    f"batches are padded ({seen}), and all positions would count, padding too: pass "
                    f"Network(..., {declared})"
                )
        return
