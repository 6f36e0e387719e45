"""Find the cuts of a model: places that pass the swap test, one per layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import CutError
from .batches import Batch, batch_size, naming_batch, take_points, tensors
from .checks import differs
from .cuts import Cut, Place, block_lists, find_modules_by_name, first_tensor, short_name
from .forward import HookedModel
from .layouts import shown_axes
from .masks import Masks
from .swap_test import LEAK, leaks_by_swapping

__all__ = [
    "LeftOut",
    "WeightsUsed",
    "candidates",
    "find_cuts",
    "find_stream",
    "modules_left_out",
    "scan",
    "vocabularies",
    "weights_used",
]


def candidates(model: nn.Module) -> tuple[Cut, ...]:
    """List input and output of every module below the root, to be scanned for cuts."""
    return tuple(
        Cut((Place(path, is_input),)) for path in find_modules_by_name(model) if path for is_input in (True, False)
    )


def find_cuts(model: HookedModel, masks: Masks, few: Batch) -> tuple[Cut, ...]:
    """Find the cuts: the residual stream of a sequence of blocks (see `find_stream`), or else what `scan` finds.

    The places scanned are those whose leading axis is the data point. A picture that the model is given is no cut: its
    one to three channels are read by everything that follows.
    """
    if stream := find_stream(model, masks, few):
        return stream
    index = torch.arange(batch_size(few), device="cpu").roll(1)
    places = _with_tensors(model, few, [cut.places[0] for cut in candidates(model.model)])
    values, output = _values_at(model, masks, few, places)
    rolled, _ = _values_at(model, masks, take_points(few, index), places)
    with torch.no_grad(), naming_batch(few):
        shown = shown_axes(model.modules, lambda: model.run(few, whole=True), places)
    usable = [
        place
        for place, value in values.items()
        if (place not in shown or shown[place].as_declared or model.layouts.declared(place))
        and place in rolled
        and not differs(value[index], rolled[place])
    ]
    layers = weights_used(model.model, lambda visit: model.run(few, usable, visit)).before
    usable = [place for place in usable if layers[place] or len(shown[place].shape if place in shown else ()) < 4]
    leak = leaks_by_swapping(model, masks, few, [Cut((place,)) for place in usable], {})
    return scan(
        {place: values[place] for place in usable},
        vocabularies(model.model, output.shape[-1]),
        lambda place: leak(usable.index(place)) <= LEAK,
        layers,
        tuple(output.shape),
    )


def find_stream(model: HookedModel, masks: Masks, few: Batch) -> tuple[Cut, ...]:
    """Find the residual stream: the places before the first block and after each; none where there is no such sequence.

    The blocks are the elements of the longest list (see `block_lists`) that are called once and in turn, on tensors
    (batch, positions, width) of one shape, and all of whose places pass the swap test.
    """
    for blocks in block_lists(model.model):
        places = [Place(blocks[0], True), *(Place(block, False) for block in blocks)]
        with torch.no_grad(), naming_batch(few):
            shown = shown_axes(model.modules, lambda: model.run(few, whole=True), places)
        if not all(place in shown and len(shown[place].shape) == 3 and shown[place].as_declared for place in places):
            continue
        values, _ = _values_at(model, masks, few, places)
        if list(values) != places or len({value.shape for value in values.values()}) > 1:
            continue
        cuts = tuple(Cut((place,)) for place in places)
        leak = leaks_by_swapping(model, masks, few, cuts, {})
        if all(leak(p) <= LEAK for p in range(len(cuts))):
            return cuts
    return ()


def _with_tensors(model: HookedModel, few: Batch, places: Sequence[Place]) -> list[Place]:
    """Leave out the places where a module is called without a tensor, or returns none."""
    without: set[Place] = set()

    def look(place: Place, held: Any) -> None:
        try:
            first_tensor(held, place.name)
        except CutError:
            without.add(place)

    with ExitStack() as stack, torch.no_grad(), naming_batch(few):
        for place in places:
            module = model.modules[place.path]
            if place.is_input:
                handle = module.register_forward_pre_hook(
                    lambda _, args, kwargs, place=place: look(place, args or kwargs), with_kwargs=True
                )
            else:
                handle = module.register_forward_hook(lambda _, __, value, place=place: look(place, value))
            stack.callback(handle.remove)
        model.run(few, whole=True)
    return [place for place in places if place not in without]


def _values_at(
    model: HookedModel, masks: Masks, batch: Batch, places: Sequence[Place]
) -> tuple[dict[Place, Tensor], Tensor]:
    """Copy the tensors at all places that are computed once, in order, and the output."""
    values: dict[Place, Tensor] = {}
    calls: dict[Place, int] = {}
    n, mask = batch_size(batch), masks.of(batch)

    def note(place: Place, value: Tensor) -> Tensor:
        calls[place] = calls.get(place, 0) + 1
        if value.ndim > 1 and value.is_floating_point() and (value.ndim < 4 or model.layouts.of(place) is not False):
            sequence = model.sequence(place, value)
            fits = value.ndim == 2 or mask is None or sequence.shape[1] in (1, mask.shape[1])
            if fits and len(sequence) == n:
                values[place] = sequence.clone()
        return value

    with torch.no_grad(), naming_batch(batch):
        output = model.arranged(model.run(batch, places, note))
    return {place: value for place, value in values.items() if calls[place] == 1}, output


_WIDEST = 10_000  # features of a cut

_FLAT = 1024  # features of a picture in one row, above which its channels are taken instead


def scan(
    values: Mapping[Place, Float[Tensor, "batch _ _"]],
    wide: Collection[int],
    is_cut: Callable[[Place], bool],
    layers: Mapping[Place, int],
    output: tuple[int, ...],
) -> tuple[Cut, ...]:
    """Find one cut per layer, in order of computation: after the activation, the pooling and the reshaping.

    Of the places between two uses of weights the last one that passes the swap test is kept; of those after the last
    use the first one of the output's shape, the logits before a softmax. A picture in one row of more than 1,024
    features does not take the place of its channels. Of several places with equal tensors, as
    before and after dropout in evaluation mode or at a module and the container that ends in it, the one with the
    shortest path counts. Places as wide as a vocabulary are left out: those with a width in `wide`, and those wider
    than 10,000.

    Args:
        values: the tensor at each place that is computed exactly once, in order of computation.
        wide: widths to leave out, see `vocabularies`.
        is_cut: the swap test.
        layers: how many times weights are used before each place, see `weights_used`.
        output: shape of the output as (batch, positions, width).

    Raises:
        CutError: fewer than two cuts.
    """
    groups: list[list[Place]] = []
    for place, value in values.items():
        if value.shape[-1] in wide or value.shape[-1] > _WIDEST:
            continue
        for group in groups:
            if torch.equal(values[group[0]], value):
                group.append(place)
                break
        else:
            groups.append([place])
    order = list(values)
    found: list[Place] = []
    for group in groups:
        preferred = sorted(group, key=lambda place: (place.is_input, place.path.count(".")))
        first = next((place for place in preferred if is_cut(place)), None)
        found += [first] if first else []
    if len(found) < 2:
        raise CutError(
            f"the swap test found {len(found)} cuts (places that every path from the data to the output passes), "
            "expected at least two: name them; or, if the batches are single data points, pass batches of several"
        )
    kept = _one_per_layer(sorted(found, key=order.index), values, layers, output)
    return tuple(Cut((place,)) for place in (kept if len(kept) > 1 else sorted(found, key=order.index)))


def _one_per_layer(
    found: Sequence[Place], values: Mapping[Place, Tensor], layers: Mapping[Place, int], output: tuple[int, ...]
) -> list[Place]:
    """Choose among cuts in order of computation, see `scan`; a constant shift, as by positions, makes no layer."""
    kept: list[Place] = []
    for place in found:
        if kept and layers[place] == layers[kept[-1]]:
            before, here = values[kept[-1]].shape, values[place].shape
            if layers[place] == max(layers.values()) and before == output:
                continue
            if before[1] > here[1] and here[2] > _FLAT:
                continue
            kept.pop()
        elif kept and values[kept[-1]].shape == values[place].shape:
            shift = values[place] - values[kept[-1]]
            if not differs(shift, shift[:1].expand_as(shift)):
                kept.pop()
        kept.append(place)
    return kept


_MIXES_NOTHING = re.compile(  # element by element, or put together: with a table of positions, say
    "[ir]?(add|sub|mul|div|truediv)|cat|concat|concatenate|stack|where|lerp"
)

_SAME_NUMBERS = re.compile(  # the same numbers in another place
    "get|getitem|expand|expand_as|repeat|tile|view|view_as|reshape|transpose|t|permute|swapaxes|unsqueeze|squeeze|detach"
    "|clone|contiguous|to|type_as|double|float|half|flatten|narrow|select|requires_grad"
)


class _Weights(TorchFunctionMode):
    """Record which weights the functions of torch read, and whose results a tensor is made of.

    Weights are parameters of two or more axes, and what only shows the same numbers in another place. Weights that a
    function takes element by element, as a table of positions is added, do not count.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        named = ((path, p) for path, module in model.named_modules() for p in module.parameters(recurse=False))
        self._weights = {id(p): path for path, p in named if p.ndim > 1}
        self._latest: dict[int, frozenset[str]] = {}
        self._alive: list[Tensor] = []  # so that no identity is used twice
        self.used: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, and record the modules whose weights it reads."""
        returned = func(*args, **kwargs or {})
        name = getattr(func, "__name__", "").strip("_")
        read, made = tensors((args, kwargs or {})), tensors(args[0] if name == "setitem" else returned)
        weights = list(dict.fromkeys(self._weights[id(value)] for value in read if id(value) in self._weights))
        if weights and _SAME_NUMBERS.fullmatch(name):
            self._weights |= {id(value): weights[0] for value in made}
        elif weights and made and not _MIXES_NOTHING.fullmatch(name):
            self.used += weights
            self._latest |= {id(value): frozenset(weights) for value in made}
        else:
            latest = frozenset[str]().union(*map(self.latest, read))
            self._latest |= {id(value): latest for value in made}
        self._alive += made
        return returned

    def latest(self, value: Tensor) -> frozenset[str]:
        """Return the modules whose results the tensor is made of without other weights between."""
        return self._latest.get(id(value), frozenset())


class WeightsUsed(NamedTuple):
    """Which weights a forward pass uses.

    Attributes:
        before: at each place, how many uses came before.
        latest: at each place, the modules whose results are there, without other weights between.
        modules: the modules whose weights are used, in order.
    """

    before: dict[Place, int]
    latest: dict[Place, frozenset[str]]
    modules: list[str]


def weights_used(model: nn.Module, run: Callable[[Callable[[Place, Tensor], Tensor]], object]) -> WeightsUsed:
    """Run a model once, and record which weights it uses, whoever holds and reads them.

    Args:
        model: the model; its weights are its parameters of two or more axes.
        run: runs a forward pass and calls the visitor at every place.
    """
    weights, found = _Weights(model), WeightsUsed({}, {}, [])

    def visit(place: Place, value: Tensor) -> Tensor:
        found.before[place] = len(weights.used)
        found.latest[place] = weights.latest(value)
        return value

    with weights, torch.no_grad():
        run(visit)
    found.modules.extend(weights.used)
    return found


class LeftOut(NamedTuple):
    """Modules with weights whose output, after its activation, is at no cut.

    Attributes:
        before: those that run before the first cut.
        between: those within the step from one cut to the next.
        after: those that run after the last cut.
    """

    before: tuple[str, ...]
    between: tuple[str, ...]
    after: tuple[str, ...]

    def sentences(self) -> list[str]:
        """Name the modules, a sentence per place; at most six of each.

        >>> LeftOut(("conv1", "conv2"), (), ()).sentences()
        ['At no cut, before the first cut: conv1, conv2.']
        """
        words = ("before the first cut", "between two cuts", "after the last cut")
        return [
            f"At no cut, {where}: {', '.join(names[:6])}" + (f" and {len(names) - 6} more." if len(names) > 6 else ".")
            for where, names in zip(words, self, strict=True)
            if names
        ]


def modules_left_out(model: HookedModel, cuts: Sequence[Cut], batch: Batch) -> LeftOut:
    """Find the modules with weights that are at no cut; weights are parameters of two or more axes."""
    places = [place for cut in cuts for place in cut.places]
    with naming_batch(batch):
        found = weights_used(model.model, lambda visit: model.run(batch, places, visit, whole=True))
    ends = [max(found.before[place] for place in cut.places) for cut in cuts]
    at_cuts = frozenset[str]().union(*found.latest.values())
    parts: tuple[dict[str, None], ...] = ({}, {}, {})
    for k, path in enumerate(found.modules):
        if path not in at_cuts:
            name = short_name(model.model, path) or type(model.model).__name__
            parts[0 if k < ends[0] else 2 if k >= ends[-1] else 1][name] = None
    return LeftOut(*(tuple(part) for part in parts))


def vocabularies(model: nn.Module, output: int) -> set[int]:
    """Return the width of the output if it is a vocabulary size: the number of rows of a narrower embedding.

    >>> vocabularies(nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 50)), 50)
    {50}
    """
    rows = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.num_embeddings > m.embedding_dim]
    return {output} & {embedding.num_embeddings for embedding in rows}
