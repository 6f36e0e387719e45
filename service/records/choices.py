"""The choices of each task, and the values that each choice may have; checked when a job is submitted.

They are the fields of the recipes in `interbasis.analysis`, listed here so that the queue imports no numerics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import StoreError

__all__ = ["CHOICES", "Choice", "as_json", "check_choices"]

_MOST = 2**63 - 1  # what a column for whole numbers holds

_SHOWN = 80  # characters of a refused value


@dataclass(frozen=True)
class Choice:
    """One choice of a task: which JSON values it may have, and how to describe them.

    Attributes:
        expected: the description, as in "expected a path".
        fits: whether a value is allowed.
    """

    expected: str
    fits: Callable[[Any], bool]


def _word(*words: str) -> Choice:
    return Choice(f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value in words)


def _whole(least: int) -> Choice:
    return Choice(
        f"a whole number of at least {least}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= _MOST,
    )


def _is_number(value: Any) -> bool:
    """Return whether a value is a finite number; booleans are not numbers here."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _number(expected: str, within: Callable[[float], bool]) -> Choice:
    return Choice(expected, lambda value: _is_number(value) and within(value))


def _fits_cuts(value: Any) -> bool:
    """Return whether a value is a name, a list of names, or a list of lists of names (cuts to concatenate)."""
    if isinstance(value, str):
        return bool(value)
    return _listed(value, lambda cut: _fits_name(cut) or _listed(cut, _fits_name))


def _fits_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _listed(value: Any, fits: Callable[[Any], bool]) -> bool:
    """Return whether a value is a list that is not empty and whose items all fit."""
    return isinstance(value, list) and bool(value) and all(map(fits, value))


def _fits_scale(value: Any) -> bool:
    return _is_number(value) and value > 0


def _fits_labels(value: Any) -> bool:
    """Return whether a value maps nodes to the modules they are in, by number or name."""
    labels = value.values() if isinstance(value, Mapping) else [[]]
    return all(
        label is None or isinstance(label, str) or (_is_number(label) and label == int(label)) for label in labels
    )


_ABOVE_ZERO = _number("a number above 0", lambda value: value > 0)

_AT_LEAST_ZERO = _number("a number of at least 0", lambda value: value >= 0)

_SHARE = _number("a number between 0 and 1", lambda value: 0 < value < 1)

_FLAG = Choice("true or false", lambda value: isinstance(value, bool))

_LOSS, _SEED = _word("mse", "kl"), _whole(0)

_DATA = Choice("a path, or the sha256:... of an upload", _fits_name)

_PARTITION: dict[str, Choice] = {
    "epsilon": Choice(
        "a number above 0, a list of one per pair of cuts, 'graph' or 'pairs'",
        lambda value: (
            value in ("graph", "pairs") if isinstance(value, str) else _fits_scale(value) or _listed(value, _fits_scale)
        ),
    ),
    "objective": _word("layered_cpm", "layered_modularity", "kway", "cpm", "modularity"),
    "resolution": _AT_LEAST_ZERO,
    "seed": _SEED,
    "k": _whole(1),
    "min_size": _whole(1),
    "max_size": _whole(1),
    "mediator_polish": _FLAG,
    "chains": _word("discount", "count"),
    "control": _FLAG,
}

CHOICES: dict[str, dict[str, Choice]] = {
    "analyze": {
        **_PARTITION,
        "cuts": Choice("'auto', a name, or a list of names (lists of names are concatenated)", _fits_cuts),
        "loss": _LOSS,
        "basis": _word("global", "local", "pca", "neuron"),
        "output": _word("auto", "pca", "neuron"),
        "rotation": _word("none", "degenerate", "full"),
        "rank_tolerance": _SHARE,
        "gap": _AT_LEAST_ZERO,
        "probes": _whole(1),
        "strengths": _word("jacobian", "attribution"),
        "points": _whole(1),
        "data": _DATA,
    },
    "partition": {
        **_PARTITION,
        "labels": Choice('nodes and their modules, like {"layers.0/3": 1}', _fits_labels),
    },
    "track": {
        **_PARTITION,
        "like": Choice("the ID of a graph", _fits_name),
        "coupling": _AT_LEAST_ZERO,
        "align": _FLAG,
        "data": _DATA,
    },
    "experiment": {
        "kind": _word("isolate", "modules", "faithfulness", "bisect", "epsilon", "predict"),
        "metric": _word("loss", "mse", "kl", "accuracy", "cross_entropy"),
        "tolerance": _AT_LEAST_ZERO,
        "draws": _whole(0),
        "replacement": _word("mean", "zero", "resample"),
        "seed": _SEED,
        "data": _DATA,
    },
    "ledger": {
        "loss": _LOSS,
        "epsilon": _ABOVE_ZERO,
        "tolerance": _SHARE,
        "method": _word("auto", "exact", "estimate"),
        "seed": _SEED,
        "data": _DATA,
    },
    "llc": {
        "epsilon": _ABOVE_ZERO,
        "temperature": _ABOVE_ZERO,
        "curve": _FLAG,
        "loss": _LOSS,
        "parameters": Choice(
            'a list of globs on names of parameters, like ["layers.0.*"]', lambda value: _listed(value, _fits_name)
        ),
        "kernel": _word("auto", "hmc", "mala", "sgld", "psgld", "sgnht"),
        "preconditioner": _word("auto", "gauss-newton", "lanczos", "none"),
        "radius": _ABOVE_ZERO,
        "gamma": _ABOVE_ZERO,
        "chains": _whole(1),
        "warmup": _whole(3),
        "draws": _whole(4),
        "step_size": _ABOVE_ZERO,
        "seed": _SEED,
        "data": _DATA,
    },
}

"""The choices of each task by name; every task also has `force`."""


def as_json(choices: Mapping[str, Any]) -> dict[str, Any]:
    """Convert choices to JSON values: drop None; paths become text, tuples lists, NumPy scalars numbers.

    >>> as_json({"cuts": ("a", "b"), "seed": None, "data": Path("x.npz")})
    {'cuts': ['a', 'b'], 'data': 'x.npz'}
    """
    return {name: _plain(value) for name, value in choices.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def check_choices(task: str, choices: Mapping[str, Any]) -> None:
    """Refuse choices that the task does not have, or whose values are not allowed.

    Raises:
        StoreError: the message names the choice, what was seen and what was expected.

    >>> try:
    ...     check_choices("analyze", {"probes": "many"})
    ... except StoreError as error:
    ...     print(error)
    analyze: probes is 'many', expected a whole number of at least 1
    """
    known = {**CHOICES[task], "force": _FLAG}
    if unknown := {str(name) for name in choices} - set(known):
        names = ", ".join(sorted(CHOICES[task]))
        raise StoreError(f"{task} has no choice {', '.join(sorted(unknown))[:200]}: it has {names}")
    for name, value in choices.items():
        if not known[name].fits(value):
            raise StoreError(f"{task}: {name} is {_shown(value)}, expected {known[name].expected}")
    _check_together(task, choices)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _check_together(task: str, choices: Mapping[str, Any]) -> None:
    """Refuse choices that contradict each other, or that need another one which is missing."""
    if task == "llc":
        given = [name for name in ("epsilon", "temperature") if name in choices]
        given += ["curve"] if choices.get("curve") else []
        if len(given) != 1:
            found = " and ".join(given) if given else "none of them"
            raise StoreError(f"llc: {found} was given, expected one of epsilon, temperature and curve")
    objective = choices.get("objective")
    if "k" in choices and objective not in (None, "kway"):
        raise StoreError(f"{task}: k goes with objective 'kway', not {objective!r}: leave one of them out")
    if objective == "kway" and "k" not in choices:
        raise StoreError(f"{task}: objective 'kway' needs k, the number of modules")
    if "min_size" in choices and "max_size" in choices and choices["min_size"] > choices["max_size"]:
        sizes = f"{choices['min_size']} to {choices['max_size']}"
        raise StoreError(f"{task}: min_size and max_size are {sizes}, expected min_size <= max_size")
    idle = {"labels", "epsilon", "force", *(name for name in ("seed", "mediator_polish") if not choices.get(name))}
    if "labels" in choices and (others := set(choices) - idle):
        names = ", ".join(sorted(others))
        raise StoreError(f"{task}: labels already define a partition: give only epsilon with them, not {names}")
