"""Check the fields of recipes against the types of their annotations; a refusal names the field."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import InputError

__all__ = ["settle_fields", "settled"]

_WORDS: Mapping[Any, tuple[str, str]] = {  # one, several
    bool: ("true or false", "true or false"),
    float: ("a finite number", "finite numbers"),
    int: ("a whole number", "whole numbers"),
    str: ("a text", "texts"),
    type(None): ("None", "None"),
}
_SHOWN = 80  # characters of a refused value in a message


def settle_fields(recipe: Any) -> None:
    """Check the fields of a frozen dataclass by their annotations, from its `__post_init__`; see `settled`.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Choice:
    ...     gap: "float | None" = None
    ...     def __post_init__(self) -> None:
    ...         settle_fields(self)
    >>> Choice(1).gap
    1.0
    """
    for name, value in settled(type(recipe), {f.name: getattr(recipe, f.name) for f in fields(recipe)}).items():
        object.__setattr__(recipe, name, value)


def settled(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert values to the types that the fields of a dataclass have.

    Where any number is allowed, whole numbers become floats, so that 1 and 1.0 are the same choice. Lists become
    tuples, and NumPy scalars become numbers.

    Args:
        kind: a dataclass with fields of type bool, int, float, str, Literal of texts, tuples and unions of such, or
            None.
        values: values of some of its fields, by name.

    Raises:
        InputError: a value of another type, or a number that is not finite; the message names the field.
    """
    hints, found = get_type_hints(kind), {}
    for name, given in values.items():
        try:
            found[name] = _settled(given, hints[name])
        except (TypeError, OverflowError):
            raise InputError(f"{kind.__name__}: {name} is {_shown(given)}, expected {_in_words(hints[name])}") from None
    return found


def _settled(value: Any, hint: Any) -> Any:
    """Convert a value to the type of its annotation.

    Raises:
        TypeError: the value is not of that type.
        OverflowError: the value is a whole number too large for a float.
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    kinds = _kinds(hint)
    if type(value) in kinds and (type(value) is not float or math.isfinite(value)):
        return value
    if float in kinds and type(value) is int:
        return float(value)
    for kind in kinds:
        if get_origin(kind) is Literal and type(value) is str and value in get_args(kind):
            return value
        if get_origin(kind) is tuple and isinstance(value, list | tuple):
            return tuple(_settled(item, get_args(kind)[0]) for item in value)
    raise TypeError(hint)


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _in_words(hint: Any, several: bool = False) -> str:
    words: list[str] = []
    for kind in _kinds(hint):
        if get_origin(kind) is Literal:
            words += map(repr, get_args(kind))
        elif get_origin(kind) is tuple:
            words.append(f"{'lists' if several else 'a list'} of {_in_words(get_args(kind)[0], several=True)}")
        else:
            words.append(_WORDS[kind][several])
    return ", ".join(words[:-1]) + (" or " if len(words) > 1 else "") + words[-1]


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # of a value of any type
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
