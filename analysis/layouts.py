"""Layouts of tensors with three axes: which axis is the data point, which the position, which the width.

Every analysis sees (batch, positions, width). A place may be declared to hold (positions, batch, width) or, as the
one-dimensional convolutions of torch do, (batch, width, positions).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from .batches import tensors
from .cuts import Place
from .errors import CutError

__all__ = ["BatchFirst", "Layout", "Layouts", "channels_first", "refuse_channels_first", "swap_of"]

Layout: TypeAlias = bool | Literal["channels"]
"""True: (batch, positions, width). False: (positions, batch, width). "channels": (batch, width, positions)."""

BatchFirst: TypeAlias = Layout | Mapping[str, Layout]

_CHANNELS = (
    *(nn.Conv1d, nn.ConvTranspose1d, nn.GroupNorm, nn.LocalResponseNorm, _BatchNorm, _InstanceNorm),
    *(nn.MaxPool1d, nn.AvgPool1d, nn.LPPool1d, nn.AdaptiveMaxPool1d, nn.AdaptiveAvgPool1d, nn.Upsample, nn.Dropout1d),
    *(nn.ConstantPad1d, nn.ZeroPad1d, nn.ReflectionPad1d, nn.ReplicationPad1d, nn.CircularPad1d),
)
_POINTWISE = (
    *(nn.Identity, nn.Dropout, nn.AlphaDropout, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.PReLU, nn.ELU, nn.CELU),
    *(nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish),
    *(nn.Hardsigmoid, nn.LogSigmoid, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.Threshold),
)

_Key: TypeAlias = tuple[Any, ...]


class Layouts:
    """The layout of every place; None stands for the output.

    Args:
        default: of places that are not named.
        named: of those that are.
        output: the place that the output is read at, where it is one.
    """

    def __init__(self, default: Layout, named: Mapping[Place | None, Layout], output: Place | None) -> None:
        self._named, self._default, self._output = dict(named), default, output
        for layout in (default, *named.values()):
            swap_of(layout)

    def declared(self, place: Place | None) -> bool:
        """Whether the layout was given."""
        return self._given(place) is not None

    def swap(self, place: Place | None) -> tuple[int, int] | None:
        """The two axes that differ from (batch, positions, width)."""
        given = self._given(place)
        return None if given is None else swap_of(given)

    def _given(self, place: Place | None) -> Layout | None:
        if place is None and None not in self._named and self._output is not None:
            place = self._output
        if place in self._named:
            return self._named[place]
        return self._default if place is not None and self._default is not True else None


def swap_of(layout: Layout) -> tuple[int, int] | None:
    """The two axes that differ from (batch, positions, width).

    >>> swap_of(False), swap_of("channels"), swap_of(True)
    ((0, 1), (1, 2), None)

    Raises:
        CutError: an unknown layout.
    """
    if layout is True:
        return None
    if layout is False:
        return 0, 1
    if isinstance(layout, str) and layout == "channels":
        return 1, 2
    raise CutError(
        f"unknown layout {layout!r}: expected True for (batch, positions, width), False for (positions, batch, width) "
        "or 'channels' for (batch, width, positions)"
    )


def channels_first(
    modules: Mapping[str, nn.Module], run: Callable[[], Tensor], wanted: Iterable[Place]
) -> dict[Place | None, str]:
    """Places that hold (batch, channels, length), each with the module that says so; None stands for the output.

    A tensor of three axes has the channels first where a layer of convolutions takes or returns it, or an element-wise
    module, Flatten or container hands it on.
    """
    if not any(isinstance(module, _CHANNELS) for module in modules.values()):
        return {}
    links: dict[_Key, _Key] = {}
    marked: dict[_Key, str] = {}
    at: dict[Place, _Key] = {}
    alive: list[Tensor] = []  # so that no address is used twice

    def root(key: _Key) -> _Key:
        while key in links:
            key = links[key]
        return key

    def keys(value: Any) -> list[_Key]:
        found = [v for v in tensors(value)[:1] if v.ndim == 3]
        alive.extend(found)
        return [_key(v) for v in found]

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, value: Any) -> None:
            read, made = keys(args or kwargs), keys(value)
            at.update({Place(name, True): key for key in read} | {Place(name, False): key for key in made})
            if isinstance(module, _CHANNELS):
                marked.update(dict.fromkeys((*read, *made), name))
            elif isinstance(module, _POINTWISE) and read and made and root(read[0]) != root(made[0]):
                links[root(made[0])] = root(read[0])
            elif any(True for _ in module.children()) and made:
                inside = {key[1]: who for key, who in marked.items() if who.startswith(f"{name}." if name else "")}
                if made[0][1] in inside:
                    marked[made[0]] = inside[made[0][1]]

        return hook

    with ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(note(name), with_kwargs=True).remove)
        output = run()
    alive.append(output)
    roots = {root(key): name for key, name in marked.items()}
    found: dict[Place | None, str] = {p: roots[root(at[p])] for p in wanted if p in at and root(at[p]) in roots}
    if output.ndim == 3 and root(_key(output)) in roots:
        found[None] = roots[root(_key(output))]
    return found


def refuse_channels_first(name: str, module: str) -> None:
    """Say that positions and width would be taken for each other.

    Raises:
        CutError: always.
    """
    raise CutError(
        f"{name!r} holds (batch, channels, length), as {module!r} takes it: read as (batch, positions, width), "
        f"channels would be positions. Declare it: Network(..., batch_first={{{name!r}: 'channels'}}); or True, where "
        "it is (batch, positions, width) all the same"
    )


def _key(value: Tensor) -> _Key:
    return value.data_ptr(), tuple(value.shape), value.stride()
