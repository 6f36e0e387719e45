"""Choices of jobs: wrong types and values are refused when they are given, whoever gives them, naming the choice."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import httpx
import numpy as np
import pytest
from annotated_types import Ge, Gt, Lt
from cases_checkpoints import save_inputs, save_mlp
from cases_long import SQLITE_FIRST
from cases_recipes import RECIPES
from cases_store import register, save_graph, save_partition
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from interbasis.analysis.basis.bases import KINDS, OUTPUTS, ROTATIONS
from interbasis.analysis.circuits.experiments import KINDS as EXPERIMENTS
from interbasis.analysis.circuits.interventions import REPLACEMENTS
from interbasis.analysis.circuits.metrics import METRICS
from interbasis.analysis.errors import InputError
from interbasis.analysis.llc.chains import PRECONDITIONERS, Sampler
from interbasis.analysis.llc.kernels import KERNELS
from interbasis.analysis.recipe import (
    LlcRecipe,
    PartitionRecipe,
    Recipe,
    from_choices,
)
from interbasis.analysis.search.objectives import OBJECTIVES
from interbasis.service.api.app import create_app
from interbasis.service.cli.app import app
from interbasis.service.client.client import Client
from interbasis.service.client.in_process import InProcess
from interbasis.service.records.choices import CHOICES, as_json, check_choices
from interbasis.service.records.errors import StoreError
from interbasis.service.records.jobs import TASKS, JobRow, ScheduleRow
from interbasis.service.store.store import Store

BESIDE: dict[str, dict[str, Any]] = {
    **{task: {"data": str, "force": bool} for task in RECIPES},
    "partition": {"labels": dict, "force": bool},
    "track": {"like": str, "coupling": float, "align": bool, "data": str, "force": bool},
    "import": {"model": str, "label": str, "force": bool},
    "compare": {"other": str, "labels": dict, "name": str, "align": bool, "data": str, "force": bool},
}
"""Choices of each task that no recipe has."""
HINTS = {task: get_type_hints(choices) for task, choices in CHOICES.items()}
FIELDS = [(task, name) for task, hints in HINTS.items() for name in hints]
NEEDED: dict[str, dict[str, Any]] = {"llc": {"temperature": 100.0}, "compare": {"labels": {"a/0": 1}}}

_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
_values = st.recursive(_scalars, lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each))


def test_choices_are_the_fields_of_the_recipes() -> None:
    assert set(CHOICES) == set(TASKS)
    for task, recipes in RECIPES.items():
        named = {field.name for recipe in recipes for field in fields(recipe)}
        assert set(HINTS[task]) == named | set(BESIDE[task]), task


def limits(hint: Any) -> set[Any]:
    """Words and bounds in an annotation, but for the largest number that a column holds."""
    found = set(get_args(hint)) if get_origin(hint) is Literal else set()
    for part in (*get_args(hint), *getattr(hint, "__metadata__", ())):
        found |= limits(part)
    bounds = getattr(hint, "metadata", ())
    return found | {bound for bound in bounds if isinstance(bound, Ge | Gt | Lt) and bound != Lt(2**63)}


def test_words_and_bounds_are_those_of_the_recipes() -> None:
    compared = set()
    for task, recipes in RECIPES.items():
        given = get_type_hints(CHOICES[task], include_extras=True)
        for recipe in recipes:
            for name, hint in get_type_hints(recipe, include_extras=True).items():
                if limits(hint):
                    assert limits(hint) == limits(given[name]), (task, name)
                    compared.add(name)
    assert {"basis", "objective", "epsilon", "tolerance", "seed", "probes", "gap"} <= compared


def kinds(task: str, name: str) -> set[type]:
    """What JSON types a choice may have, by the annotation of the recipe."""
    hints = {key: hint for recipe in RECIPES[task] for key, hint in get_type_hints(recipe).items()}
    hint = {**hints, **BESIDE[task]}[name]
    found = {getattr(each, "__origin__", each) for each in getattr(hint, "__args__", (hint,))}
    found |= {int} if float in found else set()
    found |= {str} if name == "cuts" else set()
    return {{tuple: list, Literal: str}.get(kind, kind) for kind in found} - {type(None)}


KINDS_OF = {(task, name): kinds(task, name) for task, name in FIELDS}


def together(task: str, name: str, value: Any) -> dict[str, Any]:
    return {**({} if name in ("epsilon", "curve", "other") else NEEDED.get(task, {})), name: value}


@settings(max_examples=30, deadline=None)
@given(value=_values.filter(lambda value: value is not None))
def test_wrong_types_are_refused_by_name(value: Any) -> None:
    for task, name in FIELDS:
        if type(value) not in KINDS_OF[task, name]:
            with pytest.raises(StoreError, match=rf"^{task}: {name} is .*, expected "):
                check_choices(task, together(task, name, value))


@settings(max_examples=30, deadline=None)
@given(value=_values.filter(lambda value: value is not None))
def test_what_is_taken_is_what_recipes_take(value: Any) -> None:
    """Nothing that passes breaks in the worker that makes the recipe."""
    for task, name in FIELDS:
        if name in BESIDE[task]:
            continue
        given_ = together(task, name, value)
        try:
            check_choices(task, given_)
        except StoreError:
            continue
        (kind, *more) = RECIPES[task]
        if more or kind is PartitionRecipe:
            Recipe.from_mapping(given_)
        else:
            from_choices(kind, {name: value for name, value in given_.items() if name not in BESIDE[task]})


def test_defaults_and_values_of_every_type_are_taken() -> None:
    for task, recipes in RECIPES.items():
        for recipe in recipes:
            for field in fields(recipe):
                if field.default is not None and field.name != "curve":
                    check_choices(task, together(task, field.name, field.default))
    check_choices(
        "analyze", {"cuts": ["a", ["b", "c"]], "epsilon": [0.1, 1], "probes": 3, "resolution": 0, "force": True}
    )
    check_choices("partition", {"labels": {"a/0": 1, "a/1": "left", "a/2": None}, "epsilon": "graph", "seed": 0})
    check_choices("llc", {"curve": True, "parameters": ["layers.*"], "step_size": 1e-3})


def test_words_are_those_of_the_analysis() -> None:
    words = {
        ("analyze", "basis"): KINDS,
        ("analyze", "output"): ("auto", *OUTPUTS),
        ("analyze", "rotation"): ROTATIONS,
        ("partition", "objective"): tuple(OBJECTIVES),
        ("experiment", "kind"): EXPERIMENTS,
        ("experiment", "metric"): ("loss", *METRICS),
        ("experiment", "replacement"): REPLACEMENTS,
        ("llc", "kernel"): ("auto", *KERNELS),
        ("llc", "preconditioner"): PRECONDITIONERS,
    }
    for (task, name), known in words.items():
        assert set(get_args(HINTS[task][name])) == set(known), (task, name)


NEVER: list[Any] = ["", -1, -0.5, float("nan"), float("inf"), 10**400, [], [""], [[]], [-1], {"a": 1.5}, {"a": [1]}]
OF_KIND: dict[Any, list[Any]] = {
    bool: [0, 1, "true"],
    int: [True, 0.5, 1.0, 2**63, "1"],
    float: [True, "0.1", [0.1]],
    str: [True, 1, ["a"]],
    Literal: ["no such word", True],
}
"""What no choice takes, and what none of a type takes."""


def wrong_values(task: str, name: str) -> list[Any]:
    hint = HINTS[task][name]
    return [*NEVER, *OF_KIND.get(getattr(hint, "__origin__", hint), [])]


@pytest.mark.parametrize(("task", "name"), FIELDS)
def test_wrong_values_are_refused_by_name(task: str, name: str) -> None:
    for value in wrong_values(task, name):
        with pytest.raises(StoreError) as caught:
            check_choices(task, together(task, name, value))
        assert str(caught.value).startswith(f"{task}: {name} is {value!r}"[:90])
        assert ", expected " in str(caught.value)


@pytest.mark.parametrize(
    ("task", "given_", "said"),
    [
        ("analyze", {"seed": 2**63}, r"seed is 9223372036854775808, .* of at least 0, below 2\*\*63"),
        ("analyze", {"epsilon": [0.1, -1]}, "epsilon is"),
        ("analyze", {"epsilon": []}, "epsilon is"),
        ("analyze", {"epsilon": float("nan")}, "epsilon is nan"),
        ("analyze", {"gap": 10**400}, "gap is"),
        ("analyze", {"k": 2, "objective": "cpm"}, "k goes with objective 'kway'"),
        ("partition", {"objective": "kway"}, "needs k"),
        ("partition", {"min_size": 5, "max_size": 4}, "min_size <= max_size"),
        ("partition", {"labels": {"a/0": 1}, "k": 2}, "only epsilon with them, not k"),
        ("partition", {"labels": {"a/0": [1]}}, "labels is"),
        ("llc", {}, "no loss scale: give epsilon for one"),
        ("llc", {"epsilon": 1.0, "temperature": 3.0}, "epsilon and temperature were given"),
        ("llc", {"epsilon": 1.0, "curve": True}, "epsilon and curve were given"),
        ("compare", {}, "nothing to compare with: expected one of other, a partition, and labels"),
        ("compare", {"other": "p-1", "labels": {"a/0": 1}}, "both were given"),
        ("compare", {"other": "p-1", "name": "a.csv"}, "leave it out with other"),
        ("ledger", {"wings": 2}, "ledger has no choice wings: it has data"),
    ],
)
def test_values_out_of_range_and_contradictions_are_refused(task: str, given_: dict[str, Any], said: str) -> None:
    with pytest.raises(StoreError, match=said):
        check_choices(task, given_)


@pytest.mark.parametrize(
    ("task", "given_"),
    [
        ("analyze", {"probes": 3, "tolerance": 0.1}),
        ("llc", {"epsilon": 0.1, "kernel": "hmc", "batch_size": 10}),
        ("llc", {"epsilon": 0.1, "kernel": "mala", "batch_size": 10}),
        ("llc", {"epsilon": 0.1, "gamma": 1.0, "radius": 2.0}),
    ],
)
def test_contradictions_are_refused_as_the_analysis_does(task: str, given_: dict[str, Any]) -> None:
    """Before anything is sent, in the same words."""
    with pytest.raises(InputError) as late:
        RECIPES[task][0](**given_)
    with pytest.raises(StoreError) as early:
        check_choices(task, given_)
    assert str(early.value) == f"{task}: {late.value}"


def test_a_stored_recipe_can_be_given_again() -> None:
    """It names the radius also where gamma was given, which then has no effect."""
    made = {name: value for name, value in asdict(LlcRecipe(epsilon=0.1, gamma=1.0)).items() if value is not None}
    check_choices("llc", made)
    assert made["radius"] == LlcRecipe.radius == Sampler.radius
    assert from_choices(LlcRecipe, made).gamma == 1.0


def test_nesting_and_length_do_not_reach_the_message() -> None:
    deep: Any = "a"
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, "a" * 10**6, list(range(10**5))):
        with pytest.raises(StoreError, match="probes is") as caught:
            check_choices("analyze", {"probes": value})
        assert len(str(caught.value)) < 300


def test_python_values_become_json() -> None:
    given_ = {"cuts": ("a", ("b", "c")), "seed": np.int64(3), "gap": np.float32(0.5), "data": Path("x"), "k": None}
    assert as_json(given_) == {"cuts": ["a", ["b", "c"]], "seed": 3, "gap": 0.5, "data": "x"}


WRONG: dict[str, dict[str, Any]] = {
    "analyze": {"probes": "many", "basis": 3, "cuts": {"a": 1}, "rank_tolerance": "small", "output": "half"},
    "partition": {"k": 1.5, "epsilon": "big", "labels": [1, 2], "mediator_polish": "yes"},
    "track": {"align": "no", "coupling": [1], "seed": True},
    "describe": {"examples": 0, "sampled": 5, "points": -1},
    "compare": {"permutations": 0, "labels": [1], "align": "no", "name": ""},
    "import": {"keep": 1.5, "format": "pdf", "without": "error", "unit": "loss", "longest_path": "no"},
    "experiment": {"draws": "all", "kind": "guess", "tolerance": "small", "adversarial": [80, 20]},
    "ledger": {"method": 1, "epsilon": "0.1x", "tolerance": 2},
    "llc": {"temperature": "hot", "chains": 0, "parameters": "layers.*", "curve": 1},
}


def targets(store: Store) -> dict[str, str]:
    checkpoint, _ = register(store)
    graph = save_graph(store).id
    partition = save_partition(store, graph).id
    return {
        "partition": graph,
        "track": "digits",
        "experiment": partition,
        "describe": partition,
        "compare": partition,
        "import": "sha256:" + "ab" * 32,
    } | dict.fromkeys(("analyze", "ledger", "llc"), checkpoint)


@SQLITE_FIRST
@pytest.mark.parametrize(
    "way", ["submit", "client submit", "http submit", "schedule", "client schedule", "http schedule"]
)
def test_no_job_or_schedule_is_made_of_them(store: Store, way: str) -> None:
    """Not by the store, not by the client, which sends nothing, and not by the service, whoever asks it."""
    named = targets(store)
    sent: list[str] = []

    def send(request: httpx.Request) -> httpx.Response:
        sent.append(request.url.path)
        return httpx.Response(500)

    def ask(task: str, choices: dict[str, Any]) -> None:
        source: Any = client if way.startswith("client") else store
        if way == "http submit":
            remote._post(JobRow, "jobs", body={"task": task, "target": named[task], "choices": choices})
        elif way == "http schedule":
            remote._post(ScheduleRow, "schedules", body={"task": task, "model": "digits", "choices": choices})
        elif way.endswith("schedule"):
            source.add_schedule(task, "digits", choices, cron="0 2 * * *")
        else:
            source.submit(task, named[task], choices)

    client = Client(transport=httpx.MockTransport(send))
    with Client("http://127.0.0.1", transport=InProcess(create_app(store))) as remote:
        for task, name in FIELDS:
            if way.startswith("http") and name == "data":
                continue  # the route refuses paths itself, see test_security
            for value in wrong_values(task, name)[-2:]:
                with pytest.raises(StoreError, match=rf"^{task}: {name} is .*, expected ") as caught:
                    ask(task, together(task, name, value))
                assert type(caught.value) is StoreError
    assert (store.jobs().items, store.schedules().items, sent) == ((), (), [])


def test_command_line_refuses_them(sqlite_place: Any, tmp_path: Path) -> None:
    with sqlite_place.open() as store:
        named = targets(store)
    runner = CliRunner()
    place = ["--store", sqlite_place.url, "--artifacts", sqlite_place.artifacts]
    for task, choices in WRONG.items():
        for name, value in choices.items():
            file = tmp_path / "recipe.toml"
            text = str(value).lower() if isinstance(value, bool) else repr(value)
            file.write_text(f"{name} = {text}" if not isinstance(value, dict) else f"[{name}]\na = 1")
            for given_ in (["--set", f"{name}={value}"], ["--recipe", str(file)]):
                if name == "cuts" and given_[0] == "--set":
                    continue  # any text is the name of a cut
                result = runner.invoke(app, ["submit", task, named[task], *given_, *place])
                assert isinstance(result.exception, StoreError), (task, name, result.output)
                assert f"{task}: {name} is " in str(result.exception)
    with sqlite_place.open() as store:
        assert store.jobs().items == ()


def test_path_as_text_is_a_path(store: Store, tmp_path: Path) -> None:
    path = save_mlp(tmp_path / "a.safetensors", model="run")
    save_inputs(tmp_path / "x.npz")
    assert store.register_checkpoint(str(path)) == store.register_checkpoint(path)
    with pytest.raises(StoreError, match=r"cannot read .*gone\.safetensors"):
        store.register_checkpoint(str(tmp_path / "gone.safetensors"))
