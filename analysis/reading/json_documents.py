"""Large JSON documents with a long list of links: the rest as Python objects, the links as arrays of numbers.

The list of links is cut into pieces of some megabytes between its items, and each piece is decoded by itself, so that
no more than a piece is held as Python objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np

from ..errors import GraphError
from .tables import UNKNOWN, Links

__all__ = ["Document", "Link", "links_of", "members_of"]

_PIECE = 1 << 22  # bytes of a list of links that are decoded at once
_BETWEEN = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\{")
_NOT_A_NUMBER = re.compile(rb"-?(NaN|Infinity)")

Document = dict[str, msgspec.Raw]

"""Members of a JSON object, not decoded yet."""

Item = TypeVar("Item", bound=msgspec.Struct)


class Link(msgspec.Struct, gc=False):
    """A link between two nodes that are named by texts."""

    source: str
    target: str
    weight: float


def members_of(data: bytes | msgspec.Raw, what: str) -> Document:
    """Split a JSON object into its members.

    Raises:
        GraphError: it is no JSON, no object, or nested too deeply.
    """
    members: Document = decoded(data, Document, what)
    return members


def decoded(data: Any, kind: Any, what: str) -> Any:
    """Decode JSON as a type.

    Raises:
        GraphError: it is no JSON, or of another type.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except RecursionError:
        raise GraphError(f"{what} is nested too deeply to be read: expected lists of plain objects") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise GraphError(f"{what} cannot be read: {_said(error, data)}") from error


def _said(error: Exception, data: Any) -> str:
    """Say what is wrong with JSON; msgspec does not name NaN and infinity, which JSON does not have."""
    place = re.search(r"\(byte (\d+)\)", str(error))
    if place is not None:
        at = int(place[1])
        found = _NOT_A_NUMBER.match(bytes(memoryview(data)[max(at - 1, 0) : at + 10]).lstrip(b" ,:["))
        if found is not None:
            return f"it holds {found[0].decode()} at byte {at}, which is no number of JSON: expected finite numbers"
    return f"{error}; expected JSON, whole and in UTF-8"


def links_of(
    raw: msgspec.Raw,
    kind: type[Item],
    index: Mapping[Any, int],
    ends: Callable[[Item], tuple[Any, Any, float]] | None = None,
) -> Links:
    """Read a list of links.

    Args:
        raw: the JSON list.
        kind: type of an item, `Link` or one that `ends` understands.
        index: number of a node by its name.
        ends: source, target and weight of an item; default its fields of these names.

    Raises:
        GraphError: an item of another type, or a node that does not exist.
    """
    parts: list[Links] = []
    for count, items in _pieces(raw, kind):
        rows = [(one.source, one.target, one.weight) for one in items] if ends is None else [ends(one) for one in items]  # type: ignore[attr-defined]
        parts.append(_numbered(rows, index, count))
    return Links.joined(parts)


def _numbered(rows: Sequence[tuple[Any, Any, float]], index: Mapping[Any, int], count: int) -> Links:
    """Turn names of nodes into numbers; `count` links came before."""
    found = Links(
        np.array([index.get(row[0], UNKNOWN) for row in rows], dtype=np.int32),
        np.array([index.get(row[1], UNKNOWN) for row in rows], dtype=np.int32),
        np.array([row[2] for row in rows], dtype=np.float64),
    )
    for side, numbers in enumerate((found.source, found.target)):
        if (numbers == UNKNOWN).any():
            k = int(np.argmax(numbers == UNKNOWN))
            raise GraphError(
                f"link {count + k + 1:,} names the {('source', 'target')[side]} {rows[k][side]!r:.80}, which is none "
                "of the nodes: expected the id of a node"
            )
    return found


def _pieces(raw: msgspec.Raw, kind: type[Item]) -> Iterator[tuple[int, list[Item]]]:
    """Yield parts of a list, with the number of items that came before."""
    view = memoryview(raw)
    if bytes(view[:1]) != b"[":
        raise GraphError(f"the links are {bytes(view[:40])!r}: expected a list of objects with source and target")
    decoder = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
    start, end, size, count = 1, len(view) - 1, _PIECE, 0
    while start < end:
        between = _BETWEEN.search(view, start + size) if start + size < end else None
        stop = end if between is None else between.start() + 1
        try:
            items = decoder.decode(b"[%b]" % bytes(view[start:stop]))
        except (msgspec.ValidationError, UnicodeDecodeError) as error:
            raise GraphError(
                f"a link is not as expected, in the part that begins with link {count + 1:,}: {error}; expected "
                "source, target and a finite weight"
            ) from error
        except (msgspec.DecodeError, RecursionError) as error:
            if stop == end:
                raise GraphError(f"the links cannot be read: {error}") from error
            size *= 2  # what looked like the end of an item is inside of one
            continue
        yield count, items
        count += len(items)
        start = end if between is None else between.end() - 1
        size = _PIECE
