"""What is wrong with a request: the field as the client wrote it, what was seen, what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..records.choices import shown

__all__ = ["complaint"]

_LIMITS = {
    "greater_than": ("gt", "more than {}"),
    "greater_than_equal": ("ge", "at least {}"),
    "less_than": ("lt", "less than {}"),
    "less_than_equal": ("le", "at most {}"),
    "string_too_long": ("max_length", "at most {} characters"),
    "string_too_short": ("min_length", "at least {} characters"),
    "too_long": ("max_length", "at most {} values"),
    "string_pattern_mismatch": ("pattern", "a text like {}"),
    "literal_error": ("expected", "{}"),
}
"""For types of errors the bound in their context, and what is expected."""

_TYPES = {"int": "a whole number", "float": "a number", "string": "a text", "bool": "true or false"}
_TYPES |= {"dict": "an object", "list": "a list", "model": "an object", "finite": "a finite number"}


def complaint(error: Mapping[str, Any]) -> str:
    """Say what is wrong with a value, from an error of pydantic.

    >>> complaint({"type": "less_than_equal", "loc": ("query", "limit"), "input": "5000", "ctx": {"le": 1000}})
    "limit is '5000', expected at most 1000"
    >>> complaint({"type": "missing", "loc": ("body", "task"), "input": {}})
    'task is missing'
    >>> complaint({"type": "extra_forbidden", "loc": ("body", "taks"), "input": "llc"})
    "there is no field 'taks'"
    """
    kind, place = str(error["type"]), error["loc"][1:]
    if kind == "json_invalid":
        return f"the body is not JSON: {error.get('ctx', {}).get('error', 'it cannot be read')}"
    name = ".".join(map(str, place)) or "the body"
    if kind == "missing":
        return f"{name} is missing"
    if kind == "extra_forbidden":
        return f"there is no field {name!r}"
    bound, words = _LIMITS.get(kind, ("", ""))
    expected = words.format(error.get("ctx", {}).get(bound)) if words else _TYPES.get(kind.partition("_")[0])
    seen = f"{name} is {shown(error.get('input'))}"
    return f"{seen}, expected {expected}" if expected else f"{seen}: {error.get('msg', kind)}"
