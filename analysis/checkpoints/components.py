"""Attention heads and MLPs of a transformer, and where each of them reads and writes in the forward pass.

A residual stream is read and written by components: heads `a0.h1`, each with queries, keys and values, and MLPs `m0`.
Circuit-discovery tools name circuits by them. The input of a component is observed after its own weights were applied
to the stream; its output just before, or just after, the map into the stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..errors import CutError
from ..network.cuts import Place

__all__ = ["Component", "Components", "Part"]

_INPUTS = {True: ("q", "k", "v"), False: ("",)}


@dataclass(frozen=True)
class Part:
    """Some entries along one axis of the input or output of a module.

    Attributes:
        name: of the place, as cuts are named: a path, or `path:in` for the module's input.
        axis: an axis of the tensor there.
        start, stop: range of the entries; a stop of None means all that follow.
    """

    name: str
    axis: int = -1
    start: int = 0
    stop: int | None = None

    @property
    def place(self) -> Place:
        """The place of the part."""
        return Place(self.name.removesuffix(":in"), self.name.endswith(":in"))

    def of(self, value: Tensor) -> Tensor:
        """Return a view of these entries of a tensor.

        Raises:
            CutError: the tensor has no such axis, or too few entries.
        """
        if not -value.ndim <= self.axis < value.ndim:
            raise CutError(f"{self.name!r} has shape {tuple(value.shape)}: expected an axis {self.axis}")
        size = value.shape[self.axis]
        stop = size if self.stop is None else self.stop
        if not 0 <= self.start < stop <= size:
            raise CutError(f"{self.name!r} has {size} entries along axis {self.axis}: expected {self.start} to {stop}")
        return value.narrow(self.axis, self.start, stop - self.start)


@dataclass(frozen=True)
class Component:
    """An attention head or an MLP.

    Attributes:
        layer: counted from 0.
        head: counted from 0; None for an MLP.
        reads: for each input ("q", "k" and "v" of a head, "" of an MLP) the part that carries it.
        writes: the part that carries its output to the stream, up to a linear map.

    >>> Component(0, None, {"": Part("mlp.inner")}, Part("mlp.outer")).name
    'm0'
    """

    layer: int
    head: int | None
    reads: Mapping[str, Part]
    writes: Part

    def __post_init__(self) -> None:
        if sorted(self.reads) != sorted(_INPUTS[self.head is not None]):
            raise CutError(
                f"{self.name} reads {sorted(self.reads)}: expected q, k and v of a head, one input '' of an MLP"
            )

    @property
    def name(self) -> str:
        """The name of the component, `a0.h1` or `m0`."""
        return f"m{self.layer}" if self.head is None else f"a{self.layer}.h{self.head}"


@dataclass(frozen=True)
class Components:
    """All heads and MLPs of a transformer, in order of computation.

    Attributes:
        items: layer by layer, the heads in order and then the MLP.
        parallel: whether the MLP of a layer reads the same stream as its heads.

    Raises:
        CutError: layers or heads are missing, or out of order.
    """

    items: tuple[Component, ...]
    parallel: bool = False

    def __post_init__(self) -> None:
        names = [item.name for item in self.items]
        expected = [
            name for la in range(self.n_layers) for name in (*(f"a{la}.h{h}" for h in range(self.n_heads)), f"m{la}")
        ]
        if not names or names != expected:
            raise CutError(f"the components are {names}: expected {expected or ['a0.h0', 'm0']}, all layers alike")

    @property
    def n_layers(self) -> int:
        """The number of layers."""
        return 1 + max((item.layer for item in self.items), default=-1)

    @property
    def n_heads(self) -> int:
        """The number of heads of each layer."""
        return 1 + max((item.head for item in self.items if item.head is not None), default=-1)

    def before(self, reader: Component) -> int:
        """Count the components that write into the stream before the reader reads it."""
        heads = self.n_heads if reader.head is None and not self.parallel else 0
        return reader.layer * (self.n_heads + 1) + heads
