"""The public functions and methods of `interbasis.analysis` keep to one form: names, types, options, docstrings."""

import inspect
from collections.abc import Iterator
from operator import attrgetter

import pytest

import interbasis.analysis

FUNCTIONS = [name for name in interbasis.analysis.__all__ if inspect.isfunction(getattr(interbasis.analysis, name))]


def methods() -> Iterator[str]:
    """Public methods of the public classes as "Class.method", with those inherited from classes of ours."""
    for name in interbasis.analysis.__all__:
        value = getattr(interbasis.analysis, name)
        for method, found in inspect.getmembers(value) if inspect.isclass(value) else ():
            ours = inspect.isroutine(found) and (getattr(found, "__module__", None) or "").startswith("interbasis")
            if ours and not method.startswith("_"):
                yield f"{name}.{method}"


METHODS = list(methods())
NAMES = {  # of parameters, by the type that they take
    "Network": "net",
    "InteractionGraph": "graph",
    "Bases": "bases",
    "Iterable[Batch]": "batches",
    "Partition": "partition",
    "Partition | None": "partition",
    "ProgressCallback | None": "progress",
    "Dataset": "data",
    "Batch": "batch",
}
POSITIONAL = {"epsilon", "epsilons", "batches", "partition"}  # options that need no name
MOST_POSITIONAL = 3
MORE_POSITIONAL = {
    "isolate_modules",
    "ablate_modules",
    "describe",
}  # programs of users pass them partition and batches unnamed
LONGER_METHODS = {"Interventions.receive", "Network.resume", "Network.vjp", "Network.vjps"}
OPTIONS_UNNAMED = {  # methods that take options without a name
    "InteractionGraph.from_blocks",
    "Interventions.measure",
    "Interventions.outputs",
    "Network.evaluate",
    "Network.resume",
}


def parameters(name: str) -> list[inspect.Parameter]:
    """The parameters of a function or method, without `self`."""
    found = inspect.signature(attrgetter(name)(interbasis.analysis)).parameters.values()
    return [p for p in found if p.name != "self"]


def unnamed(name: str) -> list[inspect.Parameter]:
    """The parameters that may be given without their names."""
    return [p for p in parameters(name) if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]


def unnamed_options(name: str) -> set[str]:
    """The options, but those that need no name, that may be given without their names."""
    return {p.name for p in unnamed(name) if p.default is not p.empty} - POSITIONAL


@pytest.mark.parametrize("name", FUNCTIONS + METHODS)
def test_one_name_for_one_thing(name: str) -> None:
    for parameter in parameters(name):
        expected = NAMES.get(str(parameter.annotation))
        assert expected in (None, parameter.name), f"{name}({parameter})"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_are_given_by_name(name: str) -> None:
    assert not unnamed_options(name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_few_parameters_need_no_name(name: str) -> None:
    names = [p.name for p in unnamed(name)]
    if name in MORE_POSITIONAL:
        assert names == ["net", "bases", "graph", "partition", "batches"]
    else:
        assert len(names) <= MOST_POSITIONAL, names


def test_methods_keep_to_the_form_of_functions() -> None:
    """The lists of exceptions name those of today, and lose a name when its method is mended."""
    assert len(METHODS) > 50
    assert {name for name in METHODS if len(unnamed(name)) > MOST_POSITIONAL} == LONGER_METHODS
    assert {name for name in METHODS if unnamed_options(name)} == OPTIONS_UNNAMED


@pytest.mark.parametrize("name", METHODS)
def test_types_of_methods_are_documented(name: str) -> None:
    assert all(p.annotation is not p.empty for p in parameters(name))
    assert inspect.signature(attrgetter(name)(interbasis.analysis)).return_annotation is not inspect.Signature.empty
    assert attrgetter(name)(interbasis.analysis).__doc__, name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_types_and_errors_are_documented(name: str) -> None:
    function = getattr(interbasis.analysis, name)
    assert all(p.annotation is not p.empty for p in parameters(name))
    assert inspect.signature(function).return_annotation is not inspect.Signature.empty
    assert "Raises:" in (inspect.getdoc(function) or ""), name
