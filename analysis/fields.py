"""Check the fields of recipes against the types of their annotations; a refusal names the field."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Union, get_args, get_origin, get_type_hints

from .errors import InputError

__all__ = ["settle_fields"]

_WORDS: Mapping[Any, str] = {
    bool: "true or false",
    float: "a finite number",
    int: "a whole number",
    str: "a text",
    type(None): "None",
}
_SHOWN = 80  # characters of a refused value in a message


def settle_fields(recipe: Any) -> None:
    """Check the fields of a frozen dataclass by their annotations, from its `__post_init__`.

    Where any number is allowed, whole numbers become floats, so that 1 and 1.0 are the same choice. Lists become
    tuples, and NumPy scalars become numbers.

    Args:
        recipe: a dataclass with fields of type bool, int, float, str, tuples of such, unions of these, or None.

    Raises:
        InputError: a value of another type, or a number that is not finite; the message names the field.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Choice:
    ...     gap: "float | None" = None
    ...     def __post_init__(self) -> None:
    ...         settle_fields(self)
    >>> Choice(1).gap
    1.0
    """
    hints = get_type_hints(type(recipe))
    for field in fields(recipe):
        given, hint = getattr(recipe, field.name), hints[field.name]
        try:
            value = _settled(given, hint)
        except (TypeError, OverflowError):
            raise InputError(
                f"{type(recipe).__name__}: {field.name} is {_shown(given)}, expected {_in_words(hint)}"
            ) from None
        object.__setattr__(recipe, field.name, value)


def _settled(value: Any, hint: Any) -> Any:
    """Convert a value to the type of its annotation.

    Raises:
        TypeError: the value is not of that type.
        OverflowError: the value is a whole number too large for a float.
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if type(value) in kinds and (type(value) is not float or math.isfinite(value)):
        return value
    if float in kinds and type(value) is int:
        return float(value)
    for kind in kinds:
        if get_origin(kind) is tuple and isinstance(value, list | tuple):
            return tuple(_settled(item, get_args(kind)[0]) for item in value)
    raise TypeError(hint)


def _in_words(hint: Any) -> str:
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    words = [f"a list ({_in_words(get_args(k)[0])} each)" if get_origin(k) is tuple else _WORDS[k] for k in kinds]
    return ", ".join(words[:-1]) + (" or " if len(words) > 1 else "") + words[-1]


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # of a value of any type
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
