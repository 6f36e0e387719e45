"""Results answer `==`, by value, whatever arrays they hold."""

import dataclasses
import importlib
import inspect
import pkgutil
import typing
from typing import Any

import numpy as np
import pytest
import torch
from cases_graphs import planted
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import interbasis.analysis
from interbasis.analysis.graph.interaction_graph import InteractionGraph
from interbasis.analysis.modules.find_modules import score_partition
from interbasis.analysis.results import Result, same


def holds_arrays(hint: Any, seen: tuple[Any, ...] = ()) -> bool:
    """Whether values of a type may be, or contain in plain containers, arrays."""
    if hint in seen:
        return False
    if hint in (np.ndarray, torch.Tensor, Any) or hasattr(hint, "array_type"):
        return True
    return any(holds_arrays(part, (*seen, hint)) for part in typing.get_args(hint))


def result_classes() -> list[type]:
    """Public dataclasses of all modules of the package."""
    found = []
    for module in pkgutil.walk_packages(interbasis.analysis.__path__, "interbasis.analysis."):
        namespace = vars(importlib.import_module(module.name))
        for name, cls in namespace.items():
            ours = isinstance(cls, type) and cls.__module__ == module.name
            if ours and dataclasses.is_dataclass(cls) and not name.startswith("_"):
                found.append(cls)
    return found


def values_of(cls: type, fill: Any) -> Any:
    """An instance whose every field that may hold arrays holds `fill()`, made without its checks."""
    made = object.__new__(cls)
    for field in dataclasses.fields(cls):
        object.__setattr__(made, field.name, fill(field))
    return made


@pytest.mark.parametrize("cls", result_classes(), ids=lambda cls: cls.__name__)
def test_every_public_value_with_arrays_is_compared_by_value(cls: type) -> None:
    try:
        hints = typing.get_type_hints(cls)
    except NameError:  # a name that is imported for type checks alone
        hints = dict.fromkeys((field.name for field in dataclasses.fields(cls)), Any)
    within = {name for name, hint in hints.items() if holds_arrays(hint)}

    def fill(shift: float) -> Any:
        return lambda field: (np.array([shift, np.nan, 1.0]),) if field.name in within else field.name

    one, again, other = (values_of(cls, fill(shift)) for shift in (0.0, 0.0, 1.0))
    assert one == again
    assert (one == other) is not bool(within)
    assert one != 0


NUMBERS = st.sampled_from([np.dtype(code) for code in ("f8", "f4", "i8", "?", "c16")])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_same_is_what_type_shape_and_numbers_say(data: st.DataObject) -> None:
    kind = data.draw(NUMBERS)
    shape = data.draw(arrays.array_shapes(min_dims=0, min_side=0, max_side=3))
    array = data.draw(arrays.arrays(kind, shape))
    assert same([{"a": (array,)}], [{"a": (array.copy(),)}])
    assert same(torch.from_numpy(array.copy()), torch.from_numpy(array.copy()))
    assert not same(array, array[None])
    assert not same(array, array.astype("O"))
    if array.size:
        changed = array.copy()
        flat = changed.reshape(-1)
        flat[0] = not flat[0] if kind.kind == "b" else 1 if flat[0] != 1 else 2
        assert not same(array, changed)
        assert not same(torch.from_numpy(array.copy()), torch.from_numpy(changed))


@pytest.mark.parametrize(
    ("one", "other"),
    [((1, 2), [1, 2]), ({"a": 1}, {"b": 1}), (1.0, 2.0), ("a", np.zeros(1)), (torch.zeros(1), 0), (None, 0)],
)
def test_other_values_are_not_the_same(one: Any, other: Any) -> None:
    assert not same(one, other)
    assert not same(other, one)


def test_graphs_and_partitions_are_equal_when_read_back() -> None:
    graph, labels = planted((4, 3), n_cuts=3, seed=0)
    found = score_partition(graph, labels, 1.0)
    assert InteractionGraph.from_bytes(graph.to_bytes()) == graph
    assert type(found).from_bytes(found.to_bytes()) == found
    assert found != score_partition(graph, labels, 2.0)
    assert graph != planted((4, 3), n_cuts=3, seed=1)[0]


def test_every_result_describes_itself_briefly() -> None:
    """A dataclass's own description would print all arrays."""
    kinds = [cls for cls in result_classes() if issubclass(cls, Result)]
    assert len(kinds) > 5
    for cls in kinds:
        assert "__repr__" in vars(cls), cls
        assert inspect.unwrap(cls.__repr__).__code__.co_filename != "<string>", f"{cls} prints all its fields"
    assert len(repr(planted((8, 8), seed=0)[0])) < 150
