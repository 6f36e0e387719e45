"""Every kind of stored thing has all that store, client, service and terminal need; none is forgotten anywhere."""

from dataclasses import fields
from typing import Any

import pytest

from interbasis.service.api.app import create_app
from interbasis.service.client.client import Client
from interbasis.service.records.base import Kind, Provenance, Record
from interbasis.service.records.jobs import TASKS
from interbasis.service.records.kinds import KINDS, Source
from interbasis.service.storage.tables import ARTIFACT_COLUMNS, TABLES, Result
from interbasis.service.store.store import Store
from interbasis.service.terminal.views import VIEWS

RESULTS = {name: kind for name, kind in KINDS.items() if kind.values is not None}


def names(record: type[Record]) -> set[str]:
    return {field.name for field in fields(record)}  # type: ignore[arg-type]


def owners_of(name: str) -> set[str]:
    direct = KINDS[name].owners
    return {*direct, *(further for owner in direct for further in owners_of(owner))}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The OpenAPI document of a service."""
    with Store.open(str(tmp_path_factory.mktemp("store") / "store.sqlite")) as store:
        return create_app(store).openapi()


def test_every_table_of_results_has_its_kind() -> None:
    assert set(RESULTS) == {name for name, table in TABLES.items() if issubclass(table, Result)}
    assert set(KINDS) <= set(TABLES)


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
class TestKind:
    def test_fields_are_columns_or_owners(self, kind: Kind[Any, Any]) -> None:
        columns = set(TABLES[kind.name].__table__.columns.keys())
        inherited = {name for owner in owners_of(kind.name) for name in dir(TABLES[owner])}
        assert names(kind.row) - columns <= owners_of(kind.name) | inherited | set(dir(TABLES[kind.name]))
        assert names(kind.detail) == names(kind.row) | set(kind.parts)
        assert issubclass(kind.detail, kind.row)

    def test_results_say_their_owners_numbers_and_provenance(self, kind: Kind[Any, Any]) -> None:
        if kind.values is None:
            assert not kind.files
            return
        assert issubclass(kind.row, kind.values)
        assert issubclass(kind.row, Provenance)
        assert set(kind.owners) <= names(kind.row)
        assert {f"{name}_sha256" for name in kind.files} <= names(kind.row)
        assert next(iter(kind.files)) == kind.name

    def test_filters_are_things_it_belongs_to(self, kind: Kind[Any, Any]) -> None:
        assert set(kind.filters) <= owners_of(kind.name)

    def test_files_are_columns_that_keep_artifacts(self, kind: Kind[Any, Any]) -> None:
        kept = {column.key for column in ARTIFACT_COLUMNS if column.class_ is TABLES[kind.name]}
        assert {f"{name}_sha256" for name in kind.files} == kept - {"file_sha256"}

    def test_store_and_client_read_it_by_name(self, kind: Kind[Any, Any]) -> None:
        methods = [f"get_{kind.name}", f"{kind.name}s", *(f"{name}_bytes" for name in kind.files)]
        for method in methods:
            assert callable(getattr(Source, method)), method
            assert getattr(Store, method) is getattr(Client, method) is getattr(Source, method), method
        if kind.values is not None:
            assert callable(getattr(Store, f"find_{kind.name}"))
            assert callable(getattr(Store, f"save_{kind.name}"))

    def test_service_lists_it_and_sends_its_files(self, kind: Kind[Any, Any], document: dict[str, Any]) -> None:
        listing = document["paths"][f"/api/v1/{kind.plural}"]["get"]
        assert listing["description"] == kind.listing
        taken = [each["name"] for each in listing["parameters"]]
        assert taken == [*kind.filters, *kind.narrowings, "cursor", "limit", "newest"]
        assert document["paths"][f"/api/v1/{kind.plural}/{{ref}}"]["get"]["description"] == kind.single
        for name, text in kind.files.items():
            path = "file" if name == kind.name else name
            assert document["paths"][f"/api/v1/{kind.plural}/{{ref}}/{path}"]["get"]["description"] == text

    def test_terminal_shows_it(self, kind: Kind[Any, Any]) -> None:
        view = VIEWS[kind.plural]
        assert view.record is kind.row
        assert view.columns[0] == "id"


def test_results_are_made_by_tasks() -> None:
    """Each kind of result has the task that computes it, of the same name where it has steps of its own.

    Graphs are also read from files.
    """
    computed = {"graph": "analyze", "tracking": "track", "description": "describe", "comparison": "compare"}
    assert {computed.get(name, name) for name in RESULTS} | {"import"} == set(TASKS)
