"""Nodes that files describe by attributes: their ids, types, labels, positions and layers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..errors import GraphError

__all__ = ["layer_key", "node_row"]

_NAMES = {
    "type": (("type", "feature_type"), str),
    "position": (("position", "ctx_idx"), int),
    "label": (("label", "clerp"), str),
}

_NUMBER = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]*)?")


def layer_key(value: Any) -> str:
    """Return the name of a layer: numbers and texts of the same number are the same layer.

    >>> layer_key(3), layer_key(3.0), layer_key(" 3"), layer_key("3.0"), layer_key("3.50"), layer_key("blocks.3")
    ('3', '3', '3', '3', '3.5', 'blocks.3')
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise GraphError(f"a node has the layer {value!r:.80}: expected a number or a name")
    text = str(value).strip()
    number = float(text) if _NUMBER.fullmatch(text) else value
    return str(int(number)) if isinstance(number, float) and number.is_integer() else str(number).strip()


def node_row(name: Any, attributes: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return what is known of a node, as `NodeTable` takes it, and its layer.

    Ids that are no texts are kept as `id` among the attributes.
    """
    left = {key: value for key, value in attributes.items() if key not in ("id", "layer")}
    row: dict[str, Any] = {"id": name if isinstance(name, str) else json.dumps(name)}
    for field, (keys, kind) in _NAMES.items():
        for key in keys:
            if type(left.get(key)) is kind:
                row[field] = left.pop(key)
                break
    if not isinstance(name, str):
        left["id"] = name
    layer = attributes.get("layer", attributes.get("cut") if "coordinate" in attributes else None)
    return {**row, "attributes": left}, None if layer is None else layer_key(layer)
