"""Attention layers of transformers: the modules of queries, keys, values and output, and the units of each head.

They are found by the names that transformers and others give them. Layers that hold queries, keys and values in one
matrix are laid out in one of two ways, which only a test on the model tells apart, so both are proposed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

__all__ = ["AttentionLayer", "HeadGroup", "attention_layouts"]

_NAMES = (
    *(("q_proj", "k_proj", "v_proj", "o_proj"), ("q_proj", "k_proj", "v_proj", "out_proj")),
    *(("self.query", "self.key", "self.value", "output.dense"), ("q_lin", "k_lin", "v_lin", "out_lin")),
    *(("q", "k", "v", "o"), ("query", "key", "value", "dense"), ("wq", "wk", "wv", "wo")),
)

_FUSED = (("c_attn", "c_proj"), ("query_key_value", "dense"), ("qkv_proj", "o_proj"), ("Wqkv", "Wo"))

_SIZES = ("head_dim", "attention_head_size", "head_size", "dim_per_head", "key_value_proj_dim")

_COUNTS = ("num_attention_heads", "num_heads", "n_heads", "n_head")


@dataclass(frozen=True)
class HeadGroup:
    """Heads that share keys and values.

    Attributes:
        heads: their numbers in the layer.
        q: the units of each among the outputs of the module of queries.
        k, v: the units that they share among the outputs of the modules of keys and of values.
        o: the units of each among the inputs of the output module.
    """

    heads: tuple[int, ...]
    q: tuple[range, ...]
    k: range
    v: range
    o: tuple[range, ...]


@dataclass(frozen=True)
class AttentionLayer:
    """A layer of attention, in one layout.

    Attributes:
        name: of the module that holds it.
        q, k, v, o: names of the modules of queries, keys, values and output; the first three are one where fused.
        groups: its heads.
    """

    name: str
    q: str
    k: str
    v: str
    o: str
    groups: tuple[HeadGroup, ...]

    @property
    def n_heads(self) -> int:
        """The number of heads."""
        return sum(len(group.heads) for group in self.groups)


def attention_layouts(model: nn.Module, sizes: Mapping[str, tuple[int, int]]) -> Iterator[AttentionLayer]:
    """Propose the layers of attention of a model, in each layout that they may have.

    Args:
        model: the model.
        sizes: numbers of inputs and outputs of its linear layers, by their names.
    """
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        for names in _NAMES:
            found = [prefix + part for part in names]
            if all(part in sizes for part in found):
                yield from _separate(name, module, found, sizes)
        for pair in _FUSED:
            qkv, o = (prefix + part for part in pair)
            if qkv in sizes and o in sizes:
                yield from _fused(name, module, (qkv, o), sizes)


def _separate(
    name: str, module: Any, found: list[str], sizes: Mapping[str, tuple[int, int]]
) -> Iterator[AttentionLayer]:
    (_, queries), (_, keys), (_, values), (inner, _) = (sizes[part] for part in found)
    size = _head_size(module, queries)
    if not size or queries % size or keys % size:
        return
    count, groups = queries // size, keys // size
    if count % groups or values % groups or inner % count:
        return
    wide, each = values // groups, count // groups
    made = []
    for g in range(groups):
        heads = tuple(range(g * each, (g + 1) * each))
        own = tuple(_block(h, size) for h in heads)
        made.append(HeadGroup(heads, own, _block(g, size), _block(g, wide), tuple(_block(h, wide) for h in heads)))
    q, k, v, o = found
    yield AttentionLayer(name, q, k, v, o, tuple(made))


def _fused(
    name: str, module: Any, found: tuple[str, str], sizes: Mapping[str, tuple[int, int]]
) -> Iterator[AttentionLayer]:
    qkv, o = found
    width, inner = sizes[qkv][1], sizes[o][0]
    size = _head_size(module, inner)
    if not size or inner % size or (width - inner) % (2 * size) or width <= inner:
        return
    count, groups = inner // size, (width - inner) // (2 * size)
    if count % groups:
        return
    each = count // groups
    apart, beside = [], []
    for g in range(groups):
        heads = tuple(range(g * each, (g + 1) * each))
        out = tuple(_block(h, size) for h in heads)
        key, value = _block(count + g, size), _block(count + groups + g, size)
        apart.append(HeadGroup(heads, out, key, value, out))  # all queries, all keys, all values
        start = g * (each + 2)  # or each group's queries, key and value side by side
        own = tuple(_block(start + h, size) for h in range(each))
        beside.append(HeadGroup(heads, own, _block(start + each, size), _block(start + each + 1, size), out))
    for made in (apart, beside):
        yield AttentionLayer(name, qkv, qkv, qkv, o, tuple(made))


def _block(number: int, size: int) -> range:
    return range(number * size, (number + 1) * size)


def _head_size(module: Any, width: int) -> int:
    """Return the number of units of a head, from the attributes of an attention module or its config; else 0."""
    holders = [
        module,
        getattr(module, "self", None),
        getattr(module, "attention", None),
        getattr(module, "config", None),
    ]
    for names, per_head in ((_SIZES, True), (_COUNTS, False)):
        for holder in holders:
            for name in names:
                value = getattr(holder, name, None)
                if isinstance(value, int) and value > 0:
                    return value if per_head else width // value
    return 0
