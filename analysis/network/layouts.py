"""Layouts of tensors with three axes: which axis is the data point, which the position, which the width.

Every analysis sees (batch, positions, width). A place of three axes may be declared to hold (positions, batch, width)
or, as the one-dimensional convolutions of torch do, (batch, width, positions). Places of four or more axes hold
(batch, channels, height, width) where a function of the model shows it, or are declared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from itertools import product
from typing import Any, Literal, NamedTuple, TypeAlias

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import CutError
from .batches import tensors
from .cuts import Place

__all__ = ["BatchFirst", "Layout", "Layouts", "Shown", "refuse_layout", "shown_axes", "swap_of"]

Layout: TypeAlias = bool | Literal["channels"]

"""True: (batch, positions, width). False: (positions, batch, width). "channels": (batch, width, positions).

Of four axes True is (batch, height, width, channels) and "channels" (batch, channels, height, width).
"""

BatchFirst: TypeAlias = Layout | Mapping[str, Layout]

_CHANNELS = re.compile(
    r"(?:conv|conv_transpose|(?:adaptive_)?(?:avg|max)_pool|lp_pool|max_unpool|dropout)(?P<axes>[123])d(?:_with_indices)?"
    r"|(?:batch|instance|group|local_response)_norm|interpolate|upsample"
)  # functions of torch that read and return (batch, channels, length), or more axes of lengths

_PADS = (nn.ConstantPad1d, nn.ReflectionPad1d, nn.ReplicationPad1d, nn.CircularPad1d)  # `pad` alone pads any axis

_OTHER_AXES = re.compile(
    r"(?:bi)?linear|r?matmul|(?:add)?b?mm|addbmm|baddbmm|einsum|tensordot|inner|cdist|lstm|gru|rnn_\w+|as_strided"
    r"|(?:native_)?layer_norm|rms_norm|scaled_dot_product_attention|multi_head_attention_forward"
    r"|transpose|swap(?:axe|dim)s|permute|move(?:dim|axis)|adjoint|rot90|stack"
)  # functions that turn axes, or read the last one as features: what they return may have another layout

_SAME_AXES = re.compile("cat|concat|concatenate|chunk|split|tensor_split|narrow|pad|glu")  # of other lengths

_Key: TypeAlias = tuple[int, tuple[int, ...], tuple[int, ...]]

"""Address, shape and stride of a tensor with three or more axes."""


class Layouts:
    """The layouts of all places; None stands for the output.

    Args:
        default: layout of places that are not named.
        named: layouts of named places.
        output: the place where the output is read, if it is a place of a module.
    """

    def __init__(self, default: Layout, named: Mapping[Place | None, Layout], output: Place | None) -> None:
        self._named, self._default, self._output = dict(named), default, output
        for layout in (default, *named.values()):
            swap_of(layout)

    def declared(self, place: Place | None) -> bool:
        """Return whether the layout was given."""
        return self.of(place) is not None

    def of(self, place: Place | None) -> Layout | None:
        """Return the layout that was given for a place; None where none was."""
        if place is None and None not in self._named and self._output is not None:
            place = self._output
        if place in self._named:
            return self._named[place]
        return self._default if place is not None and self._default is not True else None


def swap_of(layout: Layout | None) -> tuple[int, int] | None:
    """Return the two axes to exchange for (batch, positions, width); None if there is nothing to do.

    Of three axes; None is the layout of a place for which none is given.

    >>> swap_of(False), swap_of("channels"), swap_of(True)
    ((0, 1), (1, 2), None)

    Raises:
        CutError: an unknown layout.
    """
    if layout is True or layout is None:
        return None
    if layout is False:
        return 0, 1
    if isinstance(layout, str) and layout == "channels":
        return 1, 2
    raise CutError(
        f"unknown layout {layout!r}: expected True for (batch, positions, width), False for (positions, batch, width) "
        "or 'channels' for (batch, width, positions)"
    )


class _Axes(TorchFunctionMode):
    """Track, through the torch functions that a model calls, which tensors have their channels on axis 1.

    Functions that read channels on axis 1 (convolutions, pooling) tell the layout. Tensors share a layout where a
    function returns one from another with the same shape (element-wise functions, sums, dropout, copies), with other
    lengths after axis 1, or joined or cut. They do not share it across functions that permute axes or read the last
    one as features.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []  # names of the modules that run
        self._links: dict[_Key, _Key] = {}
        self._marked: dict[_Key, str] = {}
        self._alive: list[Tensor] = []  # so that no address is used twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function and record what it tells about layouts."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").partition(".")[0].strip("_")
        read = self.keys((args, kwargs))  # before the call, which may permute the axes of a tensor in place
        returned = func(*args, **kwargs)
        if not read or name == "get" or _OTHER_AXES.fullmatch(name):
            return returned
        made = self.keys(args[0] if name == "setitem" else returned)
        if found := _CHANNELS.fullmatch(name):
            axes = int(found["axes"]) + 2 if found["axes"] else 0
            where = f"{name} in {self.inside[-1]!r}" if self.inside and self.inside[-1] else name
            takes = self.keys(kwargs.get("input", args[:1]))
            self.mark([key for key in (*takes, *made) if axes in (0, len(key[1]))], where)
        else:
            same = _SAME_AXES.fullmatch(name) or (name in ("getitem", "setitem") and _only_slices(args[1]))
            for one, other in product(read, made):
                if _alike(one[1], other[1]) or (same and len(one[1]) == len(other[1])):
                    self._link(one, other)
        return returned

    def keys(self, value: Any) -> list[_Key]:
        """Return the keys of all tensors in a structure that have three or more axes."""
        found = []
        for v in tensors(value):
            with suppress(RuntimeError):  # nested, sparse or vmapped: it has no address
                if v.ndim >= 3 and v.shape[1:].numel() > 1:
                    found.append((v.data_ptr(), tuple(v.shape), v.stride()))
                    self._alive.append(v)
        return found

    def mark(self, keys: Iterable[_Key], where: str) -> None:
        """Record that a function reads channels on axis 1 of this tensor."""
        for key in keys:
            self._marked.setdefault(self._root(key), where)

    def found(self, keys: Iterable[_Key]) -> str | None:
        """Return the function that shows channels on axis 1; None if there is none."""
        return next((self._marked[root] for root in map(self._root, keys) if root in self._marked), None)

    def _root(self, key: _Key) -> _Key:
        while key in self._links:
            key = self._links[key]
        return key

    def _link(self, one: _Key, other: _Key) -> None:
        above, below = self._root(one), self._root(other)
        if above != below:
            self._links[below] = above
            if below in self._marked:
                self._marked.setdefault(above, self._marked.pop(below))


def _alike(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Return whether two shapes agree on axis 1: equal, or only lengths after it reduced, flattened or divided."""
    return one == other or (one[:2] == other[:2] and one[1] > 1)


def _only_slices(index: Any) -> bool:
    return all(part is ... or isinstance(part, slice) for part in (index if isinstance(index, tuple) else (index,)))


class Shown(NamedTuple):
    """What the functions that read and make the tensor at a place show of its axes.

    Attributes:
        shape: of the tensor.
        channels: the function that shows channels on axis 1; None if none does.
    """

    shape: tuple[int, ...]
    channels: str | None

    @property
    def as_declared(self) -> bool:
        """Return whether the tensor is what is assumed where no layout is given, see `as_sequence`."""
        return (len(self.shape) == 3) == (self.channels is None)


def shown_axes(
    modules: Mapping[str, nn.Module], run: Callable[[], Any], wanted: Iterable[Place]
) -> dict[Place | None, Shown]:
    """Find places that hold three or more axes, each with the function that shows channels on axis 1.

    Args:
        modules: modules of the model, by name.
        run: runs a forward pass and returns the output.
        wanted: the places to examine.
    """
    axes = _Axes()
    at: dict[Place | None, list[_Key]] = {place: [] for place in wanted}

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: axes.inside.append(name)

    def leave(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, value: Any) -> None:
            axes.inside.pop()
            if isinstance(module, _PADS):
                axes.mark(axes.keys((args, value)), f"{type(module).__name__} {name!r}")
            for place, held in ((Place(name, True), args or kwargs), (Place(name, False), value)):
                if place in at:
                    at[place] += axes.keys(tensors(held)[:1])

        return hook

    with ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_pre_hook(enter(name)).remove)
            stack.callback(module.register_forward_hook(leave(name), with_kwargs=True, always_call=True).remove)
        with axes:
            output = run()
    at[None] = axes.keys(output) if isinstance(output, Tensor) else []
    return {place: Shown(keys[0][1], axes.found(keys)) for place, keys in at.items() if keys}


def refuse_layout(name: str, shown: Shown) -> None:
    """Raise an error that tells how to declare a layout.

    Raises:
        CutError: always.
    """
    if len(shown.shape) > 3:
        raise CutError(
            f"{name!r} has shape {shown.shape}, and nothing shows which axis holds the channels: declare it: "
            f"Network(..., batch_first={{{name!r}: 'channels'}}) for (batch, channels, height, width), or True for "
            "(batch, height, width, channels)"
        )
    raise CutError(
        f"{name!r} holds (batch, channels, length), as {shown.channels} takes it: read as (batch, positions, width), "
        f"channels would be positions. Declare it: Network(..., batch_first={{{name!r}: 'channels'}}); or True, where "
        "it is (batch, positions, width) all the same"
    )
