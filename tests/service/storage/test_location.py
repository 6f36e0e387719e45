"""How a store may be named, and where it is by default."""

from pathlib import Path

import pytest

from interbasis.service.records.errors import StoreError
from interbasis.service.storage.location import Settings, default_file, locate


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_default_is_in_the_users_data_folder(tmp_path: Path) -> None:
    location = locate()
    assert location.file == default_file() == tmp_path / "data" / "interbasis" / "interbasis.sqlite"
    assert location.artifacts == str(tmp_path / "data" / "interbasis" / "interbasis.artifacts")
    assert not (tmp_path / "data").exists(), "looking makes nothing"


@pytest.mark.parametrize("named", ["runs/a.sqlite", "./runs/a.sqlite", "sqlite:///runs/a.sqlite"])
def test_relative_file(named: str, tmp_path: Path) -> None:
    location = locate(named)
    assert location.file == tmp_path / "runs" / "a.sqlite"
    assert location.artifacts == str(tmp_path / "runs" / "a.artifacts")


def test_absolute_file(tmp_path: Path) -> None:
    assert locate(f"sqlite:///{tmp_path}/a.db").file == tmp_path / "a.db"
    assert locate(f"{tmp_path}/a ?#%.db").file == tmp_path / "a ?#%.db"


def test_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/a.sqlite").file == tmp_path / "a.sqlite"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"])
def test_postgresql_uses_the_driver_that_is_installed(scheme: str) -> None:
    location = locate(f"{scheme}://me:secret@host:5433/db", "s3://bucket/x")
    assert location.url.render_as_string(hide_password=False) == "postgresql+psycopg://me:secret@host:5433/db"
    assert (location.file, location.artifacts) == (None, "s3://bucket/x")
    assert "secret" not in str(location)


def test_postgresql_needs_a_place_for_artifacts() -> None:
    with pytest.raises(StoreError, match=r"\*\*\*@host/db has no place for artifacts.*INTERBASIS_ARTIFACTS"):
        locate("postgresql://me:secret@host/db")
    assert locate("postgresql://host/db", need_artifacts=False).artifacts is None


def test_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INTERBASIS_STORE", "from-environment.sqlite")
    monkeypatch.setenv("INTERBASIS_ARTIFACTS", "memory://x")
    assert Settings().store == "from-environment.sqlite"
    location = locate()
    assert (location.file, location.artifacts) == (tmp_path / "from-environment.sqlite", "memory://x")
    assert locate("given.sqlite", "given").file == tmp_path / "given.sqlite"
    assert locate("given.sqlite", "given").artifacts == "given"


def test_empty_environment_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERBASIS_STORE", "")
    assert locate().file == default_file()


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("mysql://host/db", "cannot be a mysql database: expected the path of a SQLite file"),
        ("http://host:port/x", "cannot be|cannot be read"),
        ("://", "cannot be read"),
        ("sqlite://", "has to be a file"),
        ("sqlite:///:memory:", "has to be a file"),
        ("sqlite:///a.db?mode=ro", "without options"),
        (".", "is a folder: name a file in it"),
    ],
)
def test_names_that_cannot_be_used(named: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        locate(named)
