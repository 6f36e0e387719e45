"""Check the fields of recipes by pydantic against their annotations; a refusal names the field."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from .errors import InputError

__all__ = ["Count", "Loss", "Name", "Natural", "NotNegative", "Positive", "Share", "settle_fields", "settled"]

Positive = Annotated[float, Field(gt=0, description="a number above 0")]

NotNegative = Annotated[float, Field(ge=0, description="a number of at least 0")]

Share = Annotated[float, Field(gt=0, lt=1, description="a number between 0 and 1")]

Count = Annotated[int, Field(ge=1, description="a whole number of at least 1")]

Natural = Annotated[int, Field(ge=0, lt=2**63, description="a whole number of at least 0, below 2**63")]

Name = Annotated[str, Field(min_length=1, description="a name")]

Loss = Literal["mse", "kl"]

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
        kind: a dataclass with fields of type bool, int, float, str, Literal of texts, tuples and unions of such, None,
            or such a type with pydantic's `Field(description=...)` and bounds.
        values: values of some of its fields, by name.

    Raises:
        InputError: a value of another type, out of bounds or not finite; the message names the field.
    """
    hints, found = get_type_hints(kind, include_extras=True), {}
    for name, given in values.items():
        try:
            found[name] = _validator(hints[name]).validate_python(_plain(given))
        except (ValidationError, RecursionError):
            raise InputError(f"{kind.__name__}: {name} is {_shown(given)}, expected {_in_words(hints[name])}") from None
    return found


@functools.cache
def _validator(hint: Any) -> Any:
    return TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False))


def _plain(value: Any) -> Any:
    """Convert lists to tuples and NumPy scalars to numbers."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _in_words(hint: Any, several: bool = False) -> str:
    words: list[str] = []
    for kind in _kinds(hint):
        if get_origin(kind) is Annotated:
            words.append(str(next(field.description for field in kind.__metadata__)))
        elif get_origin(kind) is Literal:
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
