"""The choices of each task, and the values that each choice may have; checked when a job is submitted.

They are the fields of the recipes in `interbasis.analysis`, listed here so that the queue imports no numerics.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic refuses that of `typing` before Python 3.12

from .errors import StoreError

__all__ = ["CHOICES", "as_json", "check_choices", "shown"]

_SHOWN = 80  # characters of a refused value

_RADIUS = 0.02  # the default, which stored recipes name beside gamma


def _line(text: str) -> str:
    if not (text.strip() and text.isprintable()):
        raise ValueError("not a line that can be printed")
    return text


def _whole(number: float) -> float:
    if not number.is_integer():
        raise ValueError("not a whole number")
    return number


def _ascending(numbers: list[int]) -> list[int]:
    if numbers != sorted(set(numbers)):
        raise ValueError("not ascending")
    return numbers


_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, description="a number above 0")]

_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, description="a number of at least 0")]

_Share = Annotated[float, Field(gt=0, lt=1, description="a number between 0 and 1")]

_Count = Annotated[int, Field(ge=1, lt=2**63, description="a whole number of at least 1")]

_Natural = Annotated[int, Field(ge=0, lt=2**63, description="a whole number of at least 0")]

_Seed = Annotated[int, Field(ge=0, lt=2**63, description="a whole number of at least 0, below 2**63")]

_Name = Annotated[str, Field(min_length=1)]

_Seeds = Annotated[list[_Name], Field(min_length=2, description="a list of names of two networks or more")]

_Names = Annotated[list[_Name], Field(min_length=1)]

_Data = Annotated[_Name, Field(description="a path, or the sha256:... of an upload")]

_Whole = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_whole)]

_Line = Annotated[
    str, Field(min_length=1, max_length=200), AfterValidator(_line), Field(description="up to 200 printable characters")
]

_Positions = Literal["all", "mask", "later", "last"]

_Loss = Literal["mse", "kl"]


class _Choices(TypedDict, total=False):
    force: bool


class _Division(_Choices, total=False):
    epsilon: Annotated[
        _Positive | Annotated[list[_Positive], Field(min_length=1)] | Literal["graph", "pairs"],
        Field(description="a number above 0, a list of one per pair of cuts, 'graph' or 'pairs'"),
    ]
    seeds: _Seeds
    objective: Literal["layered_cpm", "layered_modularity", "kway", "cpm", "modularity"]
    resolution: _NotNegative
    seed: _Seed
    k: _Count
    min_size: _Count
    max_size: _Count
    mediator_polish: bool
    chains: Literal["discount", "count"]
    control: bool
    nulls: Annotated[int, Field(ge=4, lt=2**63, description="a whole number of at least 4")]
    untrained: _Count


class _Analyze(_Division, total=False):
    cuts: Annotated[
        _Name | Annotated[list[_Name | _Names], Field(min_length=1)],
        Field(description="'auto', a name, or a list of names (lists of names are concatenated)"),
    ]
    loss: _Loss
    positions: _Positions
    basis: Literal["global", "local", "pca", "neuron"]
    output: Literal["auto", "pca", "neuron"]
    rotation: Literal["none", "degenerate", "full"]
    rank_tolerance: _Share
    gap: _NotNegative
    probes: _Count
    tolerance: _Share
    strengths: Literal["jacobian", "attribution"]
    points: _Count
    data: _Data


class _Partition(_Division, total=False):
    labels: Annotated[
        dict[str, _Whole | str | None], Field(description='nodes and their modules, like {"layers.0/3": 1}')
    ]


class _Track(_Division, total=False):
    like: Annotated[_Name, Field(description="the ID of a graph")]
    coupling: _NotNegative
    align: bool
    data: _Data


class _Experiment(_Choices, total=False):
    kind: Literal["isolate", "modules", "faithfulness", "bisect", "epsilon", "predict"]
    metric: Literal["loss", "mse", "kl", "accuracy", "cross_entropy"]
    tolerance: _NotNegative
    draws: _Natural
    replacement: Literal["mean", "zero", "resample"]
    adversarial: Annotated[
        list[_Count],
        AfterValidator(_ascending),
        Field(min_length=1, description="a list of numbers of steps that ascend, like [20, 80]"),
    ]
    seed: _Seed
    data: _Data


class _Describe(_Choices, total=False):
    examples: _Count
    deciles: _Natural
    sampled: Annotated[int, Field(ge=10, lt=2**63, description="a whole number of at least 10")]
    points: _Natural
    outputs: _Count
    neighbours: _Natural
    seed: _Seed
    data: _Data


class _Compare(_Choices, total=False):
    other: Annotated[_Name, Field(description="the reference of a partition")]
    labels: Annotated[
        dict[str, _Whole | str | list[str] | None],
        Field(description='nodes and their modules, like {"layers.0/3": 1}, of a node in several a list of names'),
    ]
    name: Annotated[str, Field(min_length=1, max_length=200, description="a name of up to 200 characters")]
    permutations: _Count
    align: bool
    seed: _Seed
    data: _Data


class _Import(_Choices, total=False):
    model: _Line
    label: _Line
    format: Literal["circuit-tracer", "node-link", "graphml", "gexf", "csv", "parquet", "safetensors"]
    without: Annotated[_Names, Field(description='a list of types of nodes, like ["error"]')]
    longest_path: bool
    keep: _Share
    unit: Literal["weight", "share"]


class _Ledger(_Choices, total=False):
    loss: _Loss
    positions: _Positions
    epsilon: _Positive
    seeds: _Seeds
    tolerance: _Share
    method: Literal["auto", "exact", "estimate"]
    seed: _Seed
    data: _Data


class _Llc(_Choices, total=False):
    epsilon: _Positive
    seeds: _Seeds
    temperature: _Positive
    curve: bool
    loss: _Loss
    positions: _Positions
    parameters: Annotated[_Names, Field(description='a list of globs on names of parameters, like ["layers.0.*"]')]
    modules: Annotated[_Name, Field(description="the reference of a partition")]
    parts: Annotated[_Names, Field(description='a list of globs or slices, like ["attn.W_Q[0]"], or ["auto"]')]
    kernel: Literal["auto", "hmc", "mala", "sgld", "psgld", "sgnht"]
    preconditioner: Literal["auto", "gauss-newton", "lanczos", "none"]
    radius: _Positive
    gamma: _Positive
    chains: _Count
    warmup: Annotated[int, Field(ge=3, lt=2**63, description="a whole number of at least 3")]
    draws: Annotated[int, Field(ge=4, lt=2**63, description="a whole number of at least 4")]
    step_size: _Positive
    batch_size: _Count
    seed: _Seed
    data: _Data


CHOICES: dict[str, Any] = {
    "analyze": _Analyze,
    "partition": _Partition,
    "track": _Track,
    "experiment": _Experiment,
    "describe": _Describe,
    "compare": _Compare,
    "import": _Import,
    "ledger": _Ledger,
    "llc": _Llc,
}
"""The choices of each task with their types; none is required."""


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
    if task not in CHOICES:
        raise StoreError(f"there is no task {task!r}: expected one of {', '.join(CHOICES)}")
    known = get_type_hints(CHOICES[task], include_extras=True)
    if unknown := {str(name) for name in choices} - set(known):
        names = sorted(set(known) - {"force"})
        near = dict.fromkeys(match for name in sorted(unknown) for match in get_close_matches(name, names, 2))
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise StoreError(f"{task} has no choice {', '.join(sorted(unknown))[:200]}: {meant}it has {', '.join(names)}")
    try:
        _validator(task).validate_python(dict(choices), strict=True)
    except ValidationError as error:
        name = str(error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"][0])
        raise StoreError(f"{task}: {name} is {shown(choices[name])}, expected {_expected(known[name])}") from None
    _check_together(task, choices)


@functools.cache
def _validator(task: str) -> TypeAdapter[Any]:
    return TypeAdapter(CHOICES[task])


def _expected(hint: Any) -> str:
    """Describe the values of a choice, as in "expected a path"."""
    if hint is bool:
        return "true or false"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    return str(next(field.description for field in reversed(hint.__metadata__) if field.description))


def shown(value: Any) -> str:
    """Return a refused value as a message shows it: its first characters, or its type.

    >>> shown("many"), len(shown("x" * 500))
    ("'many'", 83)
    """
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _check_together(task: str, choices: Mapping[str, Any]) -> None:
    """Refuse choices that contradict each other, or that need another one which is missing."""
    if task == "analyze" and {"probes", "tolerance"} <= set(choices):
        _refuse_both(task, choices, "probes", "tolerance")
    if "seeds" in choices and not isinstance(choices.get("epsilon"), int | float):
        raise StoreError(f"{task}: seeds name the networks whose mean distance epsilon is: give epsilon, a number, too")
    if task == "llc":
        _check_llc(choices)
    if task == "compare":
        _check_compare(choices)
        return
    objective = choices.get("objective")
    if "k" in choices and objective not in (None, "kway"):
        raise StoreError(f"{task}: k goes with objective 'kway', not {objective!r}: leave one of them out")
    if objective == "kway" and "k" not in choices:
        raise StoreError(f"{task}: objective 'kway' needs k, the number of modules")
    if "min_size" in choices and "max_size" in choices and choices["min_size"] > choices["max_size"]:
        sizes = f"{choices['min_size']} to {choices['max_size']}"
        raise StoreError(f"{task}: min_size and max_size are {sizes}, expected min_size <= max_size")
    idle = {
        "labels",
        "epsilon",
        "seeds",
        "force",
        *(name for name in ("seed", "mediator_polish") if not choices.get(name)),
    }
    if "labels" in choices and (others := set(choices) - idle):
        names = ", ".join(sorted(others))
        raise StoreError(f"{task}: labels already define a partition: give only epsilon with them, not {names}")


def _check_compare(choices: Mapping[str, Any]) -> None:
    given = [name for name in ("other", "labels") if name in choices]
    if len(given) != 1:
        said = "both were given" if given else "nothing to compare with"
        raise StoreError(f"compare: {said}: expected one of other, a partition, and labels, the module of each node")
    if "name" in choices and "labels" not in choices:
        raise StoreError("compare: name is that of labels: leave it out with other")


def _check_llc(choices: Mapping[str, Any]) -> None:
    given = [name for name in ("epsilon", "temperature") if name in choices]
    given += ["curve"] if choices.get("curve") else []
    counted = [name for name in ("modules", "parts", "parameters") if name in choices]
    if len(counted) > 1:
        raise StoreError(f"llc: {' and '.join(counted)} were given, expected one of them")
    if counted and counted[0] != "parameters" and set(given) - {"epsilon"}:
        raise StoreError(f"llc: {counted[0]}: all parts are counted at one loss scale: give epsilon alone")
    if not given and "modules" not in choices:
        raise StoreError("llc: no loss scale: give epsilon for one, or curve for a range of them")
    if len(given) > 1:
        raise StoreError(f"llc: {' and '.join(given)} were given, expected one of epsilon, temperature and curve")
    kernel = choices.get("kernel")
    if "batch_size" in choices and kernel in ("mala", "hmc"):
        raise StoreError(f"llc: {kernel} needs all the data in each step: leave out batch_size, or use sgld")
    if "gamma" in choices and choices.get("radius", _RADIUS) != _RADIUS:
        _refuse_both("llc", choices, "gamma", "radius")


def _refuse_both(task: str, choices: Mapping[str, Any], one: str, other: str) -> None:
    raise StoreError(f"{task}: {one} {choices[one]} and {other} {choices[other]} were given: expected one of them")
