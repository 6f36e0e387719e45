"""Attention heads and MLPs of a transformer, and where each of them reads and writes in the forward pass.

A residual stream is read and written by components: heads `a0.h1`, each with queries, keys and values, and MLPs `m0`.
Circuit-discovery tools name circuits by them. The input of a component is observed after its own weights were applied
to the stream; its output just before, or just after, the map into the stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from posixpath import commonpath
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CutError
from ..huggingface.attention import AttentionLayer, attention_layouts
from ..network.batches import Batch, naming_batch
from ..network.cuts import Place, block_lists, find_modules_by_name
from ..network.hooks import hooked
from ..network.network import Network

__all__ = ["Component", "Components", "Part", "find_components"]

_BY_HAND = "name the heads and MLPs in Python (Components)"

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
        hidden: of an MLP the part along the last axis that carries the values of its hidden units, of which its output
            is a linear map; None where there is none.

    >>> Component(0, None, {"": Part("mlp.inner")}, Part("mlp.outer")).name
    'm0'
    """

    layer: int
    head: int | None
    reads: Mapping[str, Part]
    writes: Part
    hidden: Part | None = None

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


def find_components(network: Network, batch: Batch) -> Components:
    """Find heads and MLPs in the blocks of a transformer, of transformers' or of TransformerLens' names.

    Attention is found by the names of its layers; of the layouts that these may have that one is taken in which a
    constant added to the values appears at the output of each head, as it must where a pattern sums to one. The MLP are
    the other linear layers of a block, and the last of them that is called writes.

    Args:
        network: the network.
        batch: a batch of its data.

    Raises:
        CutError: no blocks, or one whose attention or MLP is not understood; the message names it.
    """
    modules = find_modules_by_name(network.model)
    blocks = next(iter(block_lists(network.model)), [])
    if not blocks:
        raise CutError(f"the model has no list of blocks in which heads and MLPs could be found: {_BY_HAND}")
    if f"{blocks[0]}.attn.hook_z" in modules:
        items = _of_hooks(network, batch, blocks)
    else:
        items = [item for layer, block in enumerate(blocks) for item in _of_block(network, batch, layer, block)]
    mlps = [item for item in items if item.head is None]
    heads = {item.layer: item.writes for item in items if item.head is not None}
    alone = [mlp for mlp in mlps if not _moved(network, batch, heads[mlp.layer].name, mlp.reads[""])]
    if alone and len(alone) < len(mlps):
        raise CutError(f"{alone[0].name} reads beside its heads and other MLPs behind theirs: expected layers alike")
    return Components(tuple(items), parallel=bool(alone))


def _of_block(network: Network, batch: Batch, layer: int, block: str) -> list[Component]:
    """Find the heads and the MLP of a block of transformers."""
    modules = {n: m for n, m in find_modules_by_name(network.model).items() if n.startswith(f"{block}.")}
    for name, module in modules.items():
        if _linear(module) is None and any(p.ndim > 1 for p in module.parameters(recurse=False)):
            raise CutError(
                f"{name!r} is a {type(module).__name__}, and heads and MLPs are found among linear layers: {_BY_HAND}"
            )
    sizes = {name: size for name, module in modules.items() if (size := _linear(module)) is not None}
    attention = _attention(network, batch, block, sizes)
    rest = {name for name in sizes if name not in (attention.q, attention.k, attention.v, attention.o)}
    calls = [name for name in _calls(network, batch, sizes) if name in rest]
    if not calls or sorted(calls) != sorted(rest):
        raise CutError(
            f"block {block!r} has the linear layers {sorted(rest)} beside attention, and calls {calls}: expected an "
            f"MLP whose layers are called once; {_BY_HAND}"
        )
    holder = commonpath([name.replace(".", "/") for name in calls]).replace("/", ".")
    inner = holder if len(calls) > 1 and holder != block else calls[0]
    hidden = Part(f"{calls[-1]}:in") if len(calls) > 1 else None
    mlp = Component(layer, None, {"": Part(f"{inner}:in")}, Part(calls[-1]), hidden)
    _require_all(network, batch, block, (Part(f"{attention.o}:in"), mlp.writes), set(sizes) - {attention.o, calls[-1]})
    return [*_heads(layer, attention), mlp]


def _linear(module: Any) -> tuple[int, int] | None:
    """Return inputs and outputs of a linear layer, or of Conv1D of transformers; None of any other module."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return tuple(module.weight.shape) if type(module).__name__ == "Conv1D" else None


def _attention(network: Network, batch: Batch, block: str, sizes: Mapping[str, tuple[int, int]]) -> AttentionLayer:
    """Return the attention of a block in the layout that the model has."""
    found = list(attention_layouts(network.model, sizes))
    if not found or len({layout.o for layout in found}) > 1:
        seen = ", ".join(dict.fromkeys(layout.name for layout in found)) or "none is known by the names of its layers"
        raise CutError(f"attention in {block!r}: {seen}; expected one layer whose heads can be told apart; {_BY_HAND}")
    mask = network.mask(batch)
    for layout in found:
        whole = Part(f"{layout.o}:in")
        before = _seen(network, batch, whole)
        added, expected = (torch.zeros(n, device="cpu") for n in (sizes[layout.v][1], sizes[layout.o][0]))
        for number, group in enumerate(layout.groups):
            constants = torch.arange(1.0, 1 + len(group.v), device="cpu") + number * len(group.v)
            added[list(group.v)] = constants
            for units in group.o:
                expected[list(units)] = constants
        scale = float(before.abs().mean()) / float(expected.max())
        moved = (_seen(network, batch, whole, added={Part(layout.v): scale * added}) - before) / scale
        moved = moved if mask is None or mask.shape != moved.shape[:2] else moved[mask]
        if torch.allclose(moved.to("cpu", torch.float64), expected.double().expand_as(moved), rtol=1e-3, atol=1e-3):
            return layout
    raise CutError(
        f"attention {found[0].name!r}: a constant added to the values of a head does not appear at its output, as it "
        f"does where patterns sum to one, so that its heads are not understood; {_BY_HAND}"
    )


def _heads(layer: int, attention: AttentionLayer) -> list[Component]:
    def part(name: str, units: range) -> Part:
        return Part(name, -1, units.start, units.stop)

    found = {}
    for group in attention.groups:
        shared = {"k": part(attention.k, group.k), "v": part(attention.v, group.v)}
        for head, q, o in zip(group.heads, group.q, group.o, strict=True):
            found[head] = Component(layer, head, {"q": part(attention.q, q), **shared}, part(f"{attention.o}:in", o))
    return [found[head] for head in sorted(found)]


def _of_hooks(network: Network, batch: Batch, blocks: Sequence[str]) -> list[Component]:
    """Name the heads and MLPs of a model of TransformerLens by its hooks."""
    items = []
    for layer, block in enumerate(blocks):
        z, k = (_seen(network, batch, Part(f"{block}.attn.{hook}")) for hook in ("hook_z", "hook_k"))
        each = z.shape[2] // k.shape[2]  # heads that share keys and values
        for h in range(z.shape[2]):
            at = {"q": h, "k": h // each, "v": h // each}
            reads = {key: Part(f"{block}.attn.hook_{key}", 2, i, i + 1) for key, i in at.items()}
            items.append(Component(layer, h, reads, Part(f"{block}.attn.hook_z", 2, h, h + 1)))
        post = f"{block}.mlp.hook_post"
        hidden = Part(post) if post in find_modules_by_name(network.model) else None
        items.append(Component(layer, None, {"": Part(f"{block}.mlp:in")}, Part(f"{block}.hook_mlp_out"), hidden))
    return items


def _require_all(network: Network, batch: Batch, block: str, writes: Sequence[Part], others: Iterable[str]) -> None:
    """Require that no other layer of a block writes into its output: with the writes held, noise there changes nothing.

    Raises:
        CutError: one does.
    """
    end = Part(block)
    held = {part: _seen(network, batch, part) for part in writes}
    before = _seen(network, batch, end, held=held)
    for name in sorted(others):
        size = float(_seen(network, batch, Part(name)).abs().mean())
        after = _seen(network, batch, end, held=held, added={Part(name): torch.tensor(size, device="cpu")})
        if not torch.equal(after, before):
            raise CutError(
                f"{name!r} writes into the output of {block!r} beside attention and the last layer of the MLP, so that "
                f"the components of this block are not understood; {_BY_HAND}"
            )


def _moved(network: Network, batch: Batch, name: str, reader: Part) -> bool:
    """Return whether a reader sees a change of what is written at a place."""
    written = _seen(network, batch, Part(name))
    changed = {Part(name): written.abs().mean() * torch.linspace(1, 2, written.shape[-1], device="cpu").to(written)}
    return not torch.equal(_seen(network, batch, reader), _seen(network, batch, reader, added=changed))


def _calls(network: Network, batch: Batch, names: Iterable[str]) -> list[str]:
    """List modules in the order of their calls."""
    modules, called = find_modules_by_name(network.model), list[str]()
    with ExitStack() as stack, torch.no_grad():
        for name in names:
            hook = modules[name].register_forward_hook(lambda *_, name=name: called.append(name))
            stack.callback(hook.remove)
        network.forward(batch)
    return called


def _seen(
    network: Network,
    batch: Batch,
    part: Part,
    *,
    added: Mapping[Part, Tensor] | None = None,
    held: Mapping[Part, Tensor] | None = None,
) -> Tensor:
    """Run the network with constants added at some places and values held at others, and return what a part carries."""
    modules, found, changes, kept = find_modules_by_name(network.model), list[Tensor](), added or {}, held or {}

    def visit(place: Place, value: Tensor) -> Tensor:
        for other, constant in changes.items():
            value = value + constant.to(value) if other.place == place else value
        for other, given in kept.items():
            value = given if other.place == place else value
        if part.place == place:
            found.append(part.of(value).detach().clone())
        return value

    with ExitStack() as stack, torch.no_grad(), naming_batch(batch):
        for place in dict.fromkeys(each.place for each in (part, *changes, *kept)):
            if place.path not in modules:
                raise CutError(f"no module is named {place.path!r}, at which a component should read or write")
            stack.callback(hooked(modules[place.path], place, visit).remove)
        network.forward(batch)
    if not found:
        raise CutError(f"{part.name!r}, at which a component should read or write, is not computed")
    return found[-1]
