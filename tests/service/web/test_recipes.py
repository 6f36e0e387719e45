"""The forms of tasks: every choice is explained, and has the default of the recipe."""

from dataclasses import fields

import pytest
from cases_recipes import RECIPES
from fastapi.testclient import TestClient

from interbasis.service.api.app import create_app
from interbasis.service.records.choices import CHOICES, check_choices
from interbasis.service.store.store import Store
from interbasis.service.web import recipes
from interbasis.service.web.recipes import task_forms

FORMS = {form.task: form.choices["properties"] for form in task_forms()}


def test_there_is_a_form_of_every_task_with_all_its_choices() -> None:
    assert set(FORMS) == set(CHOICES)
    for task, choices in FORMS.items():
        assert set(choices) == set(CHOICES[task].__annotations__)
        assert all(len(choice["description"]) > 10 for choice in choices.values())
    used = {name for choices in FORMS.values() for name in choices}
    used |= {f"{name} of {task}" for task, choices in FORMS.items() for name in choices}
    assert not set(recipes._EXPLAINED) - used


@pytest.mark.parametrize("task", list(RECIPES))
def test_defaults_are_those_of_the_recipes(task: str) -> None:
    for field in (field for recipe in RECIPES[task] for field in fields(recipe)):
        shown = FORMS[task][field.name]
        assert shown.get("default") == field.default, field.name
        assert ("default" in shown) == (field.default is not None), field.name
        assert "default" in shown or field.default is None


@pytest.mark.parametrize("task", list(RECIPES))
def test_defaults_are_allowed_values(task: str) -> None:
    needed = {"llc": {"temperature": 1.0}, "compare": {"labels": {"layers.0/3": 1}}}.get(task, {})
    for name, choice in FORMS[task].items():
        if "default" in choice:
            check_choices(task, {**needed, name: choice["default"]})


def test_the_service_answers_with_them(store: Store) -> None:
    answer = TestClient(create_app(store), base_url="http://127.0.0.1").get("/api/v1/recipes").json()
    assert [form["task"] for form in answer["items"]] == list(FORMS)
    assert answer["items"][1]["choices"]["properties"]["chains"]["enum"] == ["discount", "count"]
