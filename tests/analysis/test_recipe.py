"""Recipes: read, checked, hashed; and `run` is nothing but the steps it names."""

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases_attribution import SMALL
from cases_checkpoints import save_inputs, save_mlp
from hypothesis import given, settings
from hypothesis import strategies as st

from interbasis.analysis.attribution import as_shares, kept_by_influence
from interbasis.analysis.basis.interaction_basis import interaction_basis
from interbasis.analysis.checkpoints.checkpoint import Checkpoint, load_checkpoint
from interbasis.analysis.circuits.experiments import ExperimentRecipe
from interbasis.analysis.errors import InputError
from interbasis.analysis.graph.strengths import interaction_graph
from interbasis.analysis.modules.find_modules import find_modules
from interbasis.analysis.pipeline.one_call import run
from interbasis.analysis.reading import graph_of_bytes
from interbasis.analysis.recipe import (
    GraphRecipe,
    ImportRecipe,
    LedgerRecipe,
    LlcRecipe,
    PartitionRecipe,
    Recipe,
    from_choices,
    imported_graph,
    read_choices,
)

CHOICES: dict[str, Any] = {
    "cuts": ["layers.0:in", "layers.2"],
    "loss": "kl",
    "basis": "local",
    "rotation": "none",
    "gap": 0.5,
    "probes": 3,
    "strengths": "attribution",
    "points": 2,
    "epsilon": 1e-4,
    "objective": "layered_cpm",
    "resolution": 2.0,
    "chains": "count",
    "control": False,
    "seed": 5,
}
TOML = "\n".join(f"{name} = {json.dumps(value)}" for name, value in CHOICES.items())


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    path = save_mlp(tmp_path / "net.safetensors", blocks=2)
    return load_checkpoint(path, data=save_inputs(tmp_path / "data.npz", 8))


def test_every_choice_arrives_in_its_part() -> None:
    recipe = Recipe.from_mapping(CHOICES)
    for part in (recipe.graph, recipe.partition):
        for name, value in asdict(part).items():
            if name in CHOICES:
                assert value == (tuple(CHOICES[name]) if name == "cuts" else CHOICES[name])
    assert {*asdict(recipe.graph), *asdict(recipe.partition)} >= set(CHOICES)
    assert recipe.graph.seed == recipe.partition.seed == 5


def test_none_and_nothing_leave_the_defaults() -> None:
    assert Recipe.from_mapping({"basis": None, "epsilon": None, "seed": None}) == Recipe.from_mapping({}) == Recipe()


@pytest.mark.parametrize("given", ["layers.0", ["layers.0"], ("layers.0",)])
def test_one_cut_may_be_given_as_text(given: Any) -> None:
    assert Recipe.from_mapping({"cuts": given}).graph.cuts == ("layers.0",)


@pytest.mark.parametrize(("name", "text"), [("recipe.toml", TOML), ("recipe.json", json.dumps(CHOICES))])
def test_file_equals_mapping(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    assert Recipe.read(file) == Recipe.from_mapping(CHOICES)
    assert read_choices(file) == CHOICES


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("recipe.toml", "basis = ", "cannot read the recipe"),
        ("recipe.json", "{", "cannot read the recipe"),
        ("recipe.json", "[1]", "holds a list: expected a table of names"),
        ("recipe.toml", "bassis = 'local'", "unknown in a recipe: bassis; known are cuts, loss, basis"),
    ],
)
def test_bad_file_raises(tmp_path: Path, name: str, text: str, message: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        Recipe.read(file)


def test_unknown_names_raise() -> None:
    with pytest.raises(InputError, match="unknown in a recipe: bassis; known are cuts, loss, basis"):
        Recipe.from_mapping({"bassis": 1})
    with pytest.raises(InputError, match="unknown in a LedgerRecipe: bassis; known are loss, positions, epsilon"):
        from_choices(LedgerRecipe, {"bassis": 1})


def test_missing_and_binary_files_raise(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the recipe .*none\.toml"):
        Recipe.read(tmp_path / "none.toml")
    file = tmp_path / "binary.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot read the recipe"):
        Recipe.read(file)


BASES = "'global', 'local', 'pca' or 'neuron'"
CUTS = "'auto', a name, or a list of names (lists of names are concatenated) or None"
SCALES = "a number above 0, a list of one per pair of cuts, 'graph' or 'pairs' or None"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("basis", 3, BASES),
        ("basis", "fourier", BASES),
        ("seed", "0", "a whole number of at least 0, below 2**63"),
        ("seed", True, "a whole number of at least 0, below 2**63"),
        ("seed", 2**63, "a whole number of at least 0, below 2**63"),
        ("seed", -1, "a whole number of at least 0, below 2**63"),
        ("epsilon", "small", SCALES),
        ("epsilon", (0.1, "x"), SCALES),
        ("epsilon", True, SCALES),
        ("epsilon", -1.0, SCALES),
        ("epsilon", float("inf"), SCALES),
        ("mediator_polish", 1, "true or false"),
        ("objective", "louvain", "'layered_cpm', 'layered_modularity', 'kway', 'cpm', 'modularity' or None"),
        ("k", 2.0, "a whole number of at least 1 or None"),
        ("k", 0, "a whole number of at least 1 or None"),
        ("points", 1.5, "a whole number of at least 1"),
        ("rank_tolerance", 5.0, "a number between 0 and 1"),
        ("cuts", 7, CUTS),
        ("cuts", [], CUTS),
        ("cuts", [1, 2], CUTS),
        ("cuts", [["a", 3], "b"], CUTS),
        ("probes", [1], "a whole number of at least 1 or None"),
    ],
)
def test_wrong_type_raises_with_name_value_and_type(name: str, value: Any, expected: str) -> None:
    kind = "GraphRecipe" if name in {field.name for field in fields(GraphRecipe)} else "PartitionRecipe"
    with pytest.raises(InputError) as caught:
        Recipe.from_mapping({name: value})
    assert str(caught.value) == f"{kind}: {name} is {value!r}, expected {expected}"


def test_hashes_of_the_defaults_are_those_of_this_version() -> None:
    assert GraphRecipe().sha256 == "425630aac977f2c367facf7313cc110e863c28ea1e2ba6a0f8250a06a290040c"
    assert PartitionRecipe().sha256 == "b442c308dba0740b311d239af37f0c2ae011393af0347ecc45e0fc41275400d7"


def test_hash_does_not_depend_on_the_order_of_choices() -> None:
    backwards = dict(reversed(CHOICES.items()))
    assert Recipe.from_mapping(backwards).graph.sha256 == Recipe.from_mapping(CHOICES).graph.sha256


@pytest.mark.parametrize("name", [name for name in CHOICES if name != "seed"])
def test_choice_changes_the_hash_of_its_part_alone(name: str) -> None:
    default, changed = Recipe(), Recipe.from_mapping({name: CHOICES[name]})
    in_graph = name in asdict(GraphRecipe())
    assert (changed.graph.sha256 != default.graph.sha256) == in_graph
    assert (changed.partition.sha256 != default.partition.sha256) == (not in_graph)


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"basis": "local", "rotation": "none", "epsilon": 1e-3, "objective": "layered_cpm", "resolution": 1.0},
        {"strengths": "attribution", "points": 3, "output": "neuron", "gap": 0.1, "seed": 3},
        {"rotation": "none", "probes": 2, "seed": 1},
        {"tolerance": 0.2},
    ],
    ids=["defaults", "local", "attribution", "probes", "tolerance"],
)
def test_run_equals_the_steps_by_hand(checkpoint: Checkpoint, choices: dict[str, Any]) -> None:
    result = run(checkpoint, Recipe.from_mapping(choices))
    names = {"basis": "kind", "output": "output", "rotation": "rotation", "gap": "gap"}
    names |= {"probes": "probes", "tolerance": "tolerance"}
    options = {option: choices[name] for name, option in names.items() if name in choices}
    seed = choices.get("seed", 0)
    bases = interaction_basis(checkpoint.network, checkpoint.batches, seed=seed, **options)
    of_graph = {name: choices[name] for name in ("strengths", "points", "probes") if name in choices}
    of_graph |= {"probes": 1} if "tolerance" in choices else {}
    graph = interaction_graph(checkpoint.network, bases, checkpoint.batches, seed=seed, **of_graph)
    of_partition = {name: choices[name] for name in ("epsilon", "objective", "resolution") if name in choices}
    partition = find_modules(graph, seed=seed, **of_partition)
    for ours, theirs in zip(result.bases.values(), bases.values(), strict=True):
        np.testing.assert_allclose(ours.to_basis, theirs.to_basis, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(result.graph.blocks, graph.blocks, strict=True):
        np.testing.assert_allclose(ours**2, theirs**2, rtol=1e-9, atol=1e-14)
    for ours, theirs in zip(result.partition.labels, partition.labels, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert result.partition.edge_cost == pytest.approx(partition.edge_cost)
    assert result.partition.objective == partition.objective


def test_partition_choices_do_not_change_the_graph(checkpoint: Checkpoint) -> None:
    recipes = [Recipe.from_mapping({"epsilon": epsilon}).graph for epsilon in (None, 1e-2)]
    one, two = (run(checkpoint, Recipe(graph=recipe)).graph for recipe in recipes)
    for a, b in zip(one.blocks, two.blocks, strict=True):
        np.testing.assert_array_equal(a, b)


def test_run_reports_progress(checkpoint: Checkpoint) -> None:
    steps: list[str] = []
    run(checkpoint, Recipe(), progress=lambda report: steps.append(report.step))
    assert len(set(steps)) >= 3


_RECIPES = (GraphRecipe, PartitionRecipe, LedgerRecipe, LlcRecipe, ExperimentRecipe)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=2), each, max_size=2),
)


@pytest.mark.parametrize("recipe", _RECIPES)
@settings(max_examples=30, deadline=None)
@given(value=_json)
def test_any_value_of_any_field_is_taken_or_refused_in_words(recipe: Any, value: Any) -> None:
    """Also from Python: no error of another kind, and what is taken can be hashed and stored."""
    for name in (field.name for field in fields(recipe)):
        needed = {"temperature": 9.0} if recipe is LlcRecipe and name not in ("epsilon", "curve") else {}
        try:
            made = _made(recipe, **needed | {name: value})
        except InputError as error:
            said = str(error).replace("step size", "step_size")
        else:
            said = ""
        if said:
            assert value is None or name in said
            continue
        json.dumps(asdict(made), allow_nan=False)
        assert made == _made(recipe, **asdict(made)), name
        assert len(made.sha256) == 64


def _made(recipe: Any, **values: Any) -> Any:
    """A recipe as users make it, without the checks of types that are on in tests."""
    made = object.__new__(recipe)
    for field in fields(recipe):
        object.__setattr__(made, field.name, values.get(field.name, field.default))
    made.__post_init__()
    return made


def test_fields_become_what_their_annotations_say() -> None:
    made = _made(GraphRecipe, gap=1, probes=np.int64(3), cuts=["a", ["b", "c"]], rank_tolerance=np.float32(0.5))
    assert made == GraphRecipe(gap=1.0, probes=3, cuts=("a", ("b", "c")), rank_tolerance=0.5)
    for name, value, expected in (
        ("epsilon", "big", "a number above 0 or None"),
        ("tolerance", 0.0, "a number between 0 and 1"),
        ("method", "guess", "'auto', 'exact' or 'estimate'"),
    ):
        with pytest.raises(InputError, match=f"LedgerRecipe: {name} is {value!r}, expected {expected}"):
            _made(LedgerRecipe, **{name: value})
    for name, value in (("epsilon", -1.0), ("loss", "l2"), ("parameters", ())):
        with pytest.raises(InputError, match=f"LlcRecipe: {name} is"):
            _made(LlcRecipe, **{"epsilon": 1.0, name: value})


def test_an_imported_graph_is_what_the_steps_make_of_it() -> None:
    assert imported_graph(SMALL, ImportRecipe()) == graph_of_bytes(SMALL)
    left = graph_of_bytes(SMALL, without=["error"], longest_path=True)
    recipe = ImportRecipe(without=("error",), longest_path=True, keep=0.9, unit="share")
    assert imported_graph(SMALL, recipe) == as_shares(kept_by_influence(left, 0.9))
    own = replace(graph_of_bytes(SMALL), unit="loss").to_bytes()
    assert [imported_graph(own, ImportRecipe(unit=unit)).unit for unit in (None, "weight")] == ["loss", "weight"]
    assert ImportRecipe().sha256 != recipe.sha256
    with pytest.raises(InputError, match="unit is 'loss'"):
        from_choices(ImportRecipe, {"unit": "loss"})
