"""The public functions of `interbasis.analysis` keep to one form: names, types, options, docstrings."""

import inspect

import pytest

import interbasis.analysis

FUNCTIONS = [name for name in interbasis.analysis.__all__ if inspect.isfunction(getattr(interbasis.analysis, name))]
NAMES = {  # of parameters, by the type that they take
    "Network": "net",
    "InteractionGraph": "graph",
    "Bases": "bases",
    "Iterable[Batch]": "batches",
    "Partition": "partition",
    "Partition | None": "partition",
    "ProgressCallback | None": "progress",
    "Dataset": "data",
}
POSITIONAL = {"epsilon", "epsilons", "batches", "partition"}  # options that need no name
MOST_POSITIONAL = 3
MORE_POSITIONAL = {"isolate_modules", "ablate_modules"}  # programs of users pass them partition and batches unnamed


def parameters(name: str) -> list[inspect.Parameter]:
    return list(inspect.signature(getattr(interbasis.analysis, name)).parameters.values())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_name_for_one_thing(name: str) -> None:
    for parameter in parameters(name):
        expected = NAMES.get(str(parameter.annotation))
        assert expected in (None, parameter.name), f"{name}({parameter})"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_are_given_by_name(name: str) -> None:
    options = [p for p in parameters(name) if p.default is not p.empty and p.kind is not p.KEYWORD_ONLY]
    assert {p.name for p in options} <= POSITIONAL, name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_few_parameters_need_no_name(name: str) -> None:
    unnamed = [p.name for p in parameters(name) if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]
    if name in MORE_POSITIONAL:
        assert unnamed == ["net", "bases", "graph", "partition", "batches"]
    else:
        assert len(unnamed) <= MOST_POSITIONAL, unnamed


@pytest.mark.parametrize("name", FUNCTIONS)
def test_types_and_errors_are_documented(name: str) -> None:
    function = getattr(interbasis.analysis, name)
    assert all(p.annotation is not p.empty for p in parameters(name))
    assert inspect.signature(function).return_annotation is not inspect.Signature.empty
    assert "Raises:" in (inspect.getdoc(function) or ""), name
